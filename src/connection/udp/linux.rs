//! A UDP socket that asks the kernel for less.
//!
//! **Events.** Tokio's own is registered for reading and writing, so the kernel makes an event of each datagram that has left:
//! the thread that waits for events wakes up, and finds nothing to do. This one is registered for reading alone. Should it ever
//! have no room, its double is registered for writing, and from then on it is as tokio's.
//!
//! **Calls.** After each datagram the driver asks whether there is another, and mostly there is none. This one asks for two at
//! once, so one that comes alone is known to be alone ([`UdpSocket::is_drained`]), and the second call is not made. When
//! there are two, the second is kept for the next call, and one by one is asked for until there are no more. So it is while
//! long runs come, too, as the second would be copied.
//!
//! In a full mesh of 16 that is half of the calls to receive, and 3 % of the processor's time.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use quinn_udp::{UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

// One call takes two.
const _: () = assert!(quinn_udp::BATCH_SIZE >= 2);

/// More bytes than this at once are a run.
const LONG: usize = 4096;

thread_local! {
    /// Where a second datagram is received.
    static SECOND: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

#[allow(deprecated, reason = "the other one is unsafe, for descriptors that change; a socket's does not")]
fn registered(socket: std::net::UdpSocket, interest: Interest) -> io::Result<AsyncFd<std::net::UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

/// First, what each turn looks at.
#[repr(C)]
pub(in super::super) struct UdpSocket {
    drained: AtomicBool,
    /// There were two at once, or a long one, and it was not seen since that there are no more.
    floods: AtomicBool,
    /// What was received last was [`LONG`].
    is_long: AtomicBool,
    keeps: AtomicBool,
    /// The capabilities of the kernel.
    state: UdpSocketState,
    io: AsyncFd<std::net::UdpSocket>,
    /// The second of two.
    kept: Mutex<Option<(Vec<u8>, RecvMeta)>>,
    /// The same socket, registered for writing, once there was no room.
    double: OnceLock<AsyncFd<std::net::UdpSocket>>,
    runtime: Handle,
}

impl UdpSocket {
    /// Registers with the tokio runtime of the task that calls.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        socket.set_nonblocking(true)?;
        Ok(UdpSocket {
            drained: AtomicBool::new(false),
            floods: AtomicBool::new(false),
            is_long: AtomicBool::new(false),
            keeps: AtomicBool::new(false),
            state: UdpSocketState::new(UdpSockRef::from(&socket))?,
            io: registered(socket, Interest::READABLE)?,
            kept: Mutex::default(),
            double: OnceLock::new(),
            runtime: Handle::current(),
        })
    }

    /// What was received last is known to be all that there was.
    pub(super) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<usize> {
        let sent = self.state.try_send(UdpSockRef::from(self.io.get_ref()), transmit);
        sent.map(|()| transmit.contents.len())
    }

    /// The same socket, registered for writing.
    fn double(&self) -> io::Result<&AsyncFd<std::net::UdpSocket>> {
        if let Some(double) = self.double.get() {
            return Ok(double);
        }
        // Whoever drops a socket may be outside of the runtime, and what waits leaves then.
        let _entered = self.runtime.enter();
        let double = registered(self.io.get_ref().try_clone()?, Interest::WRITABLE)?;
        Ok(self.double.get_or_init(|| double))
    }

    /// Receives one datagram, or a run of one length. Whether that is known to be all.
    fn receive(&self, buf: &mut [u8], meta: &mut RecvMeta) -> io::Result<bool> {
        let socket = UdpSockRef::from(self.io.get_ref());
        if self.floods.load(Ordering::Relaxed) {
            let count = self.state.recv(socket, &mut [IoSliceMut::new(buf)], std::slice::from_mut(meta))?;
            return if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(false) };
        }
        SECOND.with_borrow_mut(|second| {
            let length = second.len().max(buf.len());
            second.resize(length, 0);
            let mut metas = [RecvMeta::default(); 2];
            // Another socket's buffers may be longer.
            let second = second.get_mut(..buf.len()).unwrap_or_default();
            let mut bufs = [IoSliceMut::new(buf), IoSliceMut::new(second)];
            let count = self.state.recv(socket, &mut bufs, &mut metas)?;
            let [first, other] = metas;
            *meta = first;
            match count {
                0 => Err(ErrorKind::WouldBlock.into()),
                1 => Ok(true),
                _ => {
                    self.floods.store(true, Ordering::Relaxed);
                    let bytes = second.get(..other.len).unwrap_or_default().to_vec();
                    *self.kept() = Some((bytes, other));
                    self.keeps.store(true, Ordering::Release);
                    Ok(false)
                }
            }
        })
    }

    /// What came with the one before.
    fn take_kept(&self, buf: &mut [u8], meta: &mut RecvMeta) -> bool {
        if !self.keeps.load(Ordering::Acquire) {
            return false;
        }
        let kept = self.kept().take();
        self.keeps.store(false, Ordering::Release);
        let Some((bytes, its)) = kept else { return false };
        // All buffers are as long as the socket's largest receive.
        let Some(room) = buf.get_mut(..bytes.len()) else { return false };
        room.copy_from_slice(&bytes);
        *meta = its;
        true
    }

    fn kept(&self) -> MutexGuard<'_, Option<(Vec<u8>, RecvMeta)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for room, and tries again.
fn poll_room(
    double: &AsyncFd<std::net::UdpSocket>,
    cx: &mut Context<'_>,
    mut send: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        let mut guard = ready!(double.poll_write_ready(cx))?;
        match send() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
            sent => return Poll::Ready(sent),
        }
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("io", &self.io).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        match self.send(transmit) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
        match self.double() {
            Ok(double) => poll_room(double, cx, || self.send(transmit)),
            Err(error) => {
                // No more files may be open, or the runtime has ended. It is not that it cannot be sent there.
                tracing::debug!(%error, "a datagram is lost, as there is no room for it");
                Poll::Ready(Ok(transmit.contents.len()))
            }
        }
    }

    /// Receives into the first of the buffers.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        if self.take_kept(buf, meta) {
            return Poll::Ready(Ok(1));
        }
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            let received = self.receive(buf, meta);
            let is_long = received.is_ok() && meta.len > LONG;
            let is_all = match &received {
                // More of it may come while it is looked at.
                Ok(is_all) => *is_all && !is_long,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            self.drained.store(is_all, Ordering::Relaxed);
            if is_all {
                // What comes from now on is another event.
                guard.clear_ready();
            }
            match received {
                Ok(_) => {
                    self.is_long.store(is_long, Ordering::Relaxed);
                    if is_long {
                        self.floods.store(true, Ordering::Relaxed);
                    }
                    // An empty datagram.
                    meta.stride = meta.stride.max(1);
                    return Poll::Ready(Ok(1));
                }
                Err(_) if is_all => {
                    self.floods.store(self.is_long.load(Ordering::Relaxed), Ordering::Relaxed)
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn max_gso_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use futures::poll;
    use tokio::time::{Duration, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A socket, one that sends to it, and its address.
    struct Pair {
        here: UdpSocket,
        there: std::net::UdpSocket,
        to: SocketAddr,
    }

    impl Pair {
        fn new() -> Pair {
            let bound = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let here = UdpSocket::new(bound()).unwrap();
            Pair { to: here.local_addr().unwrap(), here, there: bound() }
        }

        fn say(&self, datagrams: impl IntoIterator<Item = Vec<u8>>) {
            for datagram in datagrams {
                self.there.send_to(&datagram, self.to).unwrap();
            }
        }

        /// The next datagram, when there is one.
        async fn next(&self) -> Vec<u8> {
            let mut buf = vec![0; 65_536];
            let mut meta = [RecvMeta::default()];
            let received = poll_fn(|cx| self.here.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta));
            assert_eq!(timeout(LIMIT, received).await.unwrap().unwrap(), 1);
            assert_eq!(meta[0].addr, self.there.local_addr().unwrap());
            assert!(meta[0].stride >= meta[0].len.min(1));
            buf.truncate(meta[0].len);
            buf
        }

        async fn is_empty(&self) -> bool {
            poll!(Box::pin(self.next())).is_pending()
        }
    }

    /// The `n`th of datagrams of many lengths.
    fn datagram(n: usize) -> Vec<u8> {
        vec![n as u8; n * 37 % 1400]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_that_come_are_received_once_and_in_their_order_however_many_come_at_once() {
        let pair = Pair::new();
        let mut n = 0;
        for burst in [1, 1, 2, 1, 3, 1, 40, 2, 2, 1, 7, 1, 1] {
            pair.say((n..n + burst).map(datagram));
            for _ in 0..burst {
                assert_eq!(pair.next().await, datagram(n), "the {n}th");
                n += 1;
            }
            assert!(pair.is_empty().await);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_event_is_lost_whenever_a_datagram_comes() {
        const LAST: usize = 20_000;
        let pair = Pair::new();
        let (there, to) = (pair.there.try_clone().unwrap(), pair.to);
        let (seen, told) = std::sync::mpsc::channel();
        let sending = std::thread::spawn(move || {
            for n in 0..LAST {
                there.send_to(&datagram(n), to).unwrap();
                // One or two are under way.
                if n > 0 && told.recv_timeout(LIMIT).is_err() {
                    return;
                }
            }
        });
        for n in 0..LAST {
            assert_eq!(pair.next().await, datagram(n), "the {n}th");
            // After the last nobody listens.
            let _ = seen.send(());
        }
        sending.join().unwrap();
    }

    #[tokio::test]
    async fn one_that_comes_alone_is_known_to_be_alone() {
        let pair = Pair::new();
        pair.say([datagram(1)]);
        assert_eq!(pair.next().await, datagram(1));
        assert!(pair.here.is_drained());
        let two_at_once = async {
            loop {
                pair.say([datagram(2), datagram(3)]);
                assert_eq!(pair.next().await, datagram(2));
                // The kernel may be so slow that they do not come at once.
                let are_two = !pair.here.is_drained();
                assert_eq!(pair.next().await, datagram(3));
                if are_two {
                    break;
                }
            }
        };
        timeout(LIMIT, two_at_once).await.unwrap();
        assert!(!pair.here.is_drained(), "there may be more");
        assert!(pair.is_empty().await);
        assert!(pair.here.is_drained());
    }

    #[tokio::test]
    async fn a_socket_that_had_no_room_is_tried_again_when_it_has() {
        let Pair { here, there, .. } = Pair::new();
        let double = here.double().unwrap();
        // On loopback there is always room, as the kernel says first.
        let room = poll_fn(|cx| poll_room(double, cx, || Ok(7)));
        assert_eq!(timeout(LIMIT, room).await.unwrap().unwrap(), 7);
        let mut tries = 0;
        let mut sending = Box::pin(poll_fn(|cx| {
            poll_room(double, cx, || {
                tries += 1;
                if tries == 1 { Err(ErrorKind::WouldBlock.into()) } else { Ok(tries) }
            })
        }));
        assert!(poll!(&mut sending).is_pending());
        let (destination, contents) = (there.local_addr().unwrap(), b"8");
        let transmit = Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None };
        assert_eq!(poll_fn(|cx| here.poll_send(cx, &transmit)).await.unwrap(), 1);
        // When that has left, the kernel says so.
        assert_eq!(timeout(LIMIT, sending).await.unwrap().unwrap(), 2);
    }

    #[test]
    fn outside_of_the_runtime_and_after_its_end_it_does_not_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [here, other] = runtime.block_on(async { [Pair::new().here, Pair::new().here] });
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let full = || Err(ErrorKind::WouldBlock.into());
        assert!(poll_room(here.double().unwrap(), &mut cx, full).is_pending());
        drop(runtime);
        assert!(matches!(poll_room(here.double().unwrap(), &mut cx, full), Poll::Ready(Err(_))));
        assert!(other.double().is_err());
    }
}
