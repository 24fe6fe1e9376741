//! The way out of a socket, for the driver and for what is sent again.
//!
//! **Who waits for room.** A socket without room remembers one task to wake, the last that asked. The driver waits for room;
//! a repeat that asked after it would have the wake to itself, and the driver would stand still. So repeats do not wait, and
//! whoever is remembered for them, it is the driver that is woken.
//!
//! **Runs.** The kernel takes many datagrams of one length, and a shorter last one, in one call (UDP GSO), and hands them
//! over in one. The driver makes use of it from 16 datagrams on, which a message of less than 18 KiB never is. So what it
//! sends one by one is gathered here: the first of a turn leaves at once, those that follow and are as long wait for each
//! other until the run ends, or the turn ([`Outlet::end_turn`]). For messages of 16 KiB that halves the processor's time.
//! What becomes of those that wait, the driver is not told: an error that lasts is told of the first of the next turn. What
//! has [waited for a packet](super::rider) leaves in the same way ([`Outlet::poll_send_both`]).

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::task::AtomicWaker;
use tokio::task::coop::unconstrained;
use webrtc::runtime::{AsyncUdpSocket as _, Transmit};

use super::runtime::Progress;
use super::udp::UdpSocket;

/// Datagrams from this length on are gathered. Shorter ones are alone in their turn mostly.
const MIN_BYTES: usize = 512;
/// What the kernel takes in one call.
const MAX_DATAGRAMS: usize = 64;
const MAX_RUN_BYTES: usize = 65_000;

/// Goes to the socket, and knows who waits for it. First, what each turn looks at.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Outlet {
    pub(super) socket: UdpSocket,
    run: Mutex<Run>,
    progress: Arc<Progress>,
    waits: Arc<Waits>,
}

#[derive(Debug, Default)]
struct Waits(AtomicWaker);

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

/// What is gathered.
#[derive(Debug, Default)]
struct Run {
    /// The length and the destination of this turn's long datagrams, once one has left.
    like: Option<(usize, SocketAddr)>,
    /// Such datagrams, one after the other.
    bytes: Vec<u8>,
    /// The last is shorter, and nothing can follow it.
    closed: bool,
}

impl Run {
    /// Takes a datagram, if it can be one of the run.
    fn takes(&mut self, transmit: &Transmit<'_>, most: usize) -> bool {
        let Some((size, to)) = self.like.filter(|_| !self.closed) else { return false };
        let bytes = transmit.contents.len();
        let is_like = bytes == size || bytes < size && !self.bytes.is_empty();
        let has_room = self.bytes.len() + bytes <= MAX_RUN_BYTES.min(size * most);
        let takes = is_like && has_room && to == transmit.destination && is_plain(transmit);
        if takes {
            if self.bytes.is_empty() {
                self.bytes.reserve(MAX_RUN_BYTES.min(size * most));
            }
            self.bytes.extend_from_slice(transmit.contents);
            self.closed = bytes < size;
        }
        takes
    }
}

impl Outlet {
    /// Tells `progress` when its turn is to be [ended](Outlet::end_turn).
    pub(super) fn new(socket: UdpSocket, progress: Arc<Progress>) -> Outlet {
        Outlet { socket, waits: Arc::default(), run: Mutex::default(), progress }
    }

    /// Sends, now or at the end of the turn; or wakes the driver when there is room.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let is_long = transmit.contents.len() >= MIN_BYTES;
        if !is_long && !self.progress.gathers.load(Ordering::Relaxed) {
            return self.poll_socket(cx, transmit);
        }
        let mut run = self.lock();
        let most = self.socket.max_gso_segments().min(MAX_DATAGRAMS);
        if run.takes(transmit, most) {
            if run.closed {
                // Should there be no room, it waits for the next datagram or the end of the turn.
                let _ = self.poll_run(&mut run, cx);
            }
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        ready!(self.poll_run(&mut run, cx));
        if run.takes(transmit, most) {
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        let sent = ready!(self.poll_socket(cx, transmit));
        if is_long && most > 1 && is_plain(transmit) {
            run.like = Some((transmit.contents.len(), transmit.destination));
            self.progress.gathers.store(true, Ordering::Relaxed);
        }
        Poll::Ready(sent)
    }

    /// Whether one of so many bytes can leave with this datagram: it is the first of its turn, and no shorter.
    pub(super) fn takes_along(&self, transmit: &Transmit<'_>, bytes: usize) -> bool {
        is_plain(transmit) && bytes <= transmit.contents.len() && self.lock().bytes.is_empty()
    }

    /// Sends a datagram, and one that it [takes along](Outlet::takes_along), in one call if the kernel takes both.
    pub(super) fn poll_send_both(
        &self,
        cx: &mut Context<'_>,
        transmit: &Transmit<'_>,
        rider: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (size, to) = (transmit.contents.len(), transmit.destination);
        let mut run = self.lock();
        let takes_both = self.socket.max_gso_segments() > 1;
        let sends_both = takes_both && {
            let mut both = std::mem::take(&mut run.bytes);
            // The shorter one must be the last. If they are alike, the one that has waited is first.
            let order =
                if rider.len() < size { [transmit.contents, rider] } else { [rider, transmit.contents] };
            order.into_iter().for_each(|datagram| both.extend_from_slice(datagram));
            let sent = self.poll_socket(cx, &Transmit { segment_size: Some(size), ..plain(&both, to) });
            both.clear();
            run.bytes = both;
            // A network card may refuse to take several at once.
            ready!(sent).is_ok()
        };
        if !sends_both {
            ready!(self.poll_socket(cx, transmit))?;
            // Without room it is lost, as a datagram may be; the next one acknowledges the same.
            let _ = self.try_send(rider, to);
        }
        if takes_both && size >= MIN_BYTES {
            run.like = Some((size, to));
            self.progress.gathers.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(size))
    }

    /// The driver's turn is over: what is gathered leaves, if there is room.
    pub(super) fn end_turn(&self) -> Poll<()> {
        let waker = Waker::from(self.waits.clone());
        let mut cx = Context::from_waker(&waker);
        let mut run = self.lock();
        ready!(self.send_run(&mut run, |transmit| self.socket.poll_send(&mut cx, transmit)));
        *run = Run::default();
        Poll::Ready(())
    }

    /// The same, and wakes the driver when there is room.
    pub(super) fn poll_end_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut run = self.lock();
        ready!(self.poll_run(&mut run, cx));
        *run = Run::default();
        Poll::Ready(())
    }

    /// Sends if there is room, also when tokio's budget is spent.
    pub(super) fn send_now(&self, datagram: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        let sends = unconstrained(poll_fn(|_| self.send_if_room(datagram, to)));
        pin!(sends).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Sends if there is room.
    pub(super) fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        match self.send_if_room(datagram, to) {
            Poll::Ready(sent) => sent.map(drop),
            Poll::Pending => Ok(()),
        }
    }

    fn send_if_room(&self, datagram: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        let waker = Waker::from(self.waits.clone());
        self.socket.poll_send(&mut Context::from_waker(&waker), &plain(datagram, to))
    }

    fn poll_run(&self, run: &mut Run, cx: &mut Context<'_>) -> Poll<()> {
        self.send_run(run, |transmit| self.poll_socket(cx, transmit))
    }

    /// Sends what is gathered. What fails is lost, as a datagram may be.
    fn send_run(
        &self,
        run: &mut Run,
        mut send: impl FnMut(&Transmit<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<()> {
        let Some((size, to)) = run.like.filter(|_| !run.bytes.is_empty()) else { return Poll::Ready(()) };
        let several = run.bytes.len() > size;
        let transmit = Transmit { segment_size: several.then_some(size), ..plain(&run.bytes, to) };
        if let Err(error) = ready!(send(&transmit)) {
            tracing::debug!(%error, "datagrams are not sent");
            // A network card may refuse to take several at once.
            let each = run.bytes.chunks(size).filter(|_| several);
            each.for_each(|datagram| drop(send(&plain(datagram, to))));
        }
        run.bytes.clear();
        run.closed = false;
        Poll::Ready(())
    }

    fn poll_socket(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(sent) = self.socket.poll_send(cx, transmit) {
            return Poll::Ready(sent);
        }
        self.waits.0.register(cx.waker());
        // There may have been room before that.
        self.socket.poll_send(cx, transmit)
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A driver that closes ends within a turn.
impl Drop for Outlet {
    fn drop(&mut self) {
        // Not within tokio's budget, which the driver may have spent.
        let ends = pin!(unconstrained(poll_fn(|_| self.end_turn())));
        let _ = ends.poll(&mut Context::from_waker(Waker::noop()));
    }
}

fn plain(contents: &[u8], destination: SocketAddr) -> Transmit<'_> {
    Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
}

fn is_plain(transmit: &Transmit<'_>) -> bool {
    transmit.segment_size.is_none() && transmit.ecn.is_none() && transmit.src_ip.is_none()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSliceMut;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use tokio::time::{Duration, timeout};
    use webrtc::runtime::{AsyncUdpSocket, RecvMeta};

    use super::*;

    /// A socket with so much room, which remembers whom to wake as the kernel's do.
    #[derive(Debug, Default)]
    struct Narrow {
        room: AtomicUsize,
        waits: Mutex<Option<Waker>>,
        sent: AtomicUsize,
        /// The lengths of what was sent, and of the datagrams in it.
        calls: Mutex<Vec<(usize, Option<usize>)>>,
        last: Mutex<Vec<u8>>,
        /// It refuses several at once.
        refuses: AtomicBool,
    }

    impl Outlet {
        /// One whose socket has no room.
        pub(in super::super) fn without_room() -> Outlet {
            Outlet::new(UdpSocket::Other(Arc::new(Narrow::default())), Arc::default())
        }
    }

    impl Narrow {
        fn make_room(&self) {
            self.room.fetch_add(1, Ordering::AcqRel);
            let waits = self.waits.lock().unwrap().take();
            if let Some(waits) = waits {
                waits.wake();
            }
        }
    }

    impl AsyncUdpSocket for Narrow {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
        }

        fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
            *self.waits.lock().unwrap() = Some(cx.waker().clone());
            let takes =
                self.room.fetch_update(Ordering::AcqRel, Ordering::Acquire, |room| room.checked_sub(1));
            if takes.is_err() {
                return Poll::Pending;
            }
            if transmit.segment_size.is_some() && self.refuses.load(Ordering::Acquire) {
                return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
            }
            self.sent.fetch_add(1, Ordering::AcqRel);
            *self.last.lock().unwrap() = transmit.contents.to_vec();
            self.calls.lock().unwrap().push((transmit.contents.len(), transmit.segment_size));
            Poll::Ready(Ok(transmit.contents.len()))
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn max_gso_segments(&self) -> usize {
            64
        }
    }

    /// An outlet over a socket with so much room, and what the socket was given since it was looked.
    struct Way {
        socket: Arc<Narrow>,
        outlet: Option<Outlet>,
        to: SocketAddr,
    }

    impl Way {
        fn new(room: usize) -> Way {
            let socket = Arc::new(Narrow { room: room.into(), ..Narrow::default() });
            let outlet = Some(Outlet::new(UdpSocket::Other(socket.clone()), Arc::default()));
            Way { to: socket.local_addr().unwrap(), socket, outlet }
        }

        fn outlet(&self) -> &Outlet {
            self.outlet.as_ref().unwrap()
        }

        fn send(&self, lengths: &[usize]) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            let sends = |bytes: &usize| {
                let datagram = vec![7; *bytes];
                self.outlet().poll_send(&mut cx, &plain(&datagram, self.to)).is_ready()
            };
            lengths.iter().all(sends)
        }

        fn calls(&self) -> Vec<(usize, Option<usize>)> {
            std::mem::take(&mut self.socket.calls.lock().unwrap())
        }
    }

    #[test]
    fn long_datagrams_of_one_length_that_follow_the_first_of_a_turn_leave_in_one_call() {
        let way = Way::new(100);
        // A message of 16 KiB, and another.
        assert!(way.send(&[[1200; 14].as_slice(), &[300], &[1200; 14], &[300]].concat()));
        assert_eq!(way.calls(), [(1200, None), (15_900, Some(1200)), (17_100, Some(1200))]);
        assert!(way.outlet().end_turn().is_ready());
        assert_eq!(way.calls(), []);
        // The first of each turn is not held up, nor is what is short.
        assert!(way.send(&[1200, 80, 1200, 1200]));
        assert_eq!(way.calls(), [(1200, None), (80, None)]);
        assert!(way.outlet().end_turn().is_ready());
        assert_eq!(way.calls(), [(2400, Some(1200))]);
        assert!(way.send(&[200; 5]));
        assert_eq!(way.calls(), [(200, None); 5]);
        // A longer one begins another run, and a short one does not overtake.
        assert!(way.send(&[1000, 1000, 1200, 1200, 1200, 80, 80]));
        assert_eq!(way.calls(), [(1000, None), (1000, None), (1200, None), (2480, Some(1200)), (80, None)]);
    }

    #[test]
    fn what_rides_along_leaves_in_one_call_if_the_kernel_takes_both_and_one_by_one_if_not() {
        let way = Way::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        let takes = |bytes: usize| way.outlet().takes_along(&plain(&vec![7; bytes], way.to), 65);
        let mut send = |bytes: usize| {
            assert!(takes(bytes));
            let datagram = vec![7; bytes];
            way.outlet().poll_send_both(&mut cx, &plain(&datagram, way.to), &[8; 65]).map(Result::unwrap)
        };
        assert_eq!(send(200), Poll::Ready(200));
        assert_eq!(way.calls(), [(265, Some(200))]);
        assert_eq!(way.socket.last.lock().unwrap()[..], [[7; 200].as_slice(), &[8; 65]].concat());
        assert_eq!(send(65), Poll::Ready(65));
        assert_eq!(way.calls(), [(130, Some(65))]);
        assert_eq!(way.socket.last.lock().unwrap()[..], [[8; 65], [7; 65]].concat(), "the older one first");
        assert!(!takes(64), "the shorter one must be the last");
        // The first of a turn; what follows is gathered.
        assert_eq!(send(1200), Poll::Ready(1200));
        assert_eq!(way.calls(), [(1265, Some(1200))]);
        assert!(way.send(&[1200, 1200]));
        assert!(!takes(1200), "what waits is not overtaken");
        assert_eq!(way.calls(), []);
        assert!(way.outlet().end_turn().is_ready());
        assert_eq!(way.calls(), [(2400, Some(1200))]);
        way.socket.refuses.store(true, Ordering::Release);
        assert_eq!(send(200), Poll::Ready(200));
        assert_eq!(way.calls(), [(200, None), (65, None)]);
        way.socket.room.store(0, Ordering::Release);
        assert_eq!(send(200), Poll::Pending);
    }

    #[test]
    fn a_run_is_no_longer_than_the_kernel_takes() {
        let way = Way::new(1000);
        assert!(way.send(&[1200; 200]));
        assert!(way.outlet().end_turn().is_ready());
        let calls = way.calls();
        assert_eq!(calls.iter().map(|(bytes, _)| bytes).sum::<usize>(), 200 * 1200);
        assert!(calls.iter().all(|(bytes, _)| *bytes <= MAX_RUN_BYTES), "{calls:?}");
        assert!(way.send(&[600; 200]));
        assert!(way.calls().iter().all(|(bytes, _)| *bytes <= 600 * MAX_DATAGRAMS));
    }

    #[test]
    fn without_room_what_is_gathered_waits_and_nothing_is_lost_or_overtaken() {
        let way = Way::new(1);
        assert!(way.send(&[1200, 1200, 300]));
        assert_eq!(way.calls(), [(1200, None)]);
        assert!(!way.send(&[300]), "a run has ended, and there is no room");
        assert!(way.outlet().end_turn().is_pending());
        way.socket.make_room();
        assert!(way.outlet().end_turn().is_ready());
        assert_eq!(way.calls(), [(1500, Some(1200))]);
    }

    #[test]
    fn what_the_card_does_not_take_at_once_leaves_one_by_one_and_at_the_end_all_does() {
        let mut way = Way::new(100);
        way.socket.refuses.store(true, Ordering::Release);
        assert!(way.send(&[1200, 1200, 1200]));
        way.outlet = None;
        assert_eq!(way.calls(), [(1200, None); 3]);
    }

    #[tokio::test]
    async fn the_driver_that_waits_for_room_is_woken_whoever_has_asked_since() {
        let socket = Arc::new(Narrow::default());
        let outlet = Arc::new(Outlet::new(UdpSocket::Other(socket.clone()), Arc::default()));
        let to = socket.local_addr().unwrap();
        let driver = tokio::spawn({
            let outlet = outlet.clone();
            async move { poll_fn(|cx| outlet.poll_send(cx, &plain(b"1", to))).await.unwrap() }
        });
        tokio::task::yield_now().await;
        outlet.try_send(b"again", to).unwrap();
        assert_eq!(socket.sent.load(Ordering::Acquire), 0, "no room");
        assert!(!driver.is_finished());
        socket.make_room();
        assert_eq!(timeout(Duration::from_secs(5), driver).await.unwrap().unwrap(), 1);

        socket.make_room();
        outlet.try_send(b"again", to).unwrap();
        assert_eq!(socket.sent.load(Ordering::Acquire), 2);
    }
}
