//! The runtime that a connection's driver runs on: the one of the configuration, with five cures around it.
//!
//! All workarounds for the transport of `webrtc` 0.21.1 that need its clock, its sockets or its tasks stand here:
//!
//! * **Lost handshake datagrams.** When a flight of the DTLS server is lost, the client's repeated ClientHello is not
//!   answered, and the link hangs for good: one link in thirty at 5 % loss. So every datagram of a flight is sent again
//!   after 60, 200 and 500 ms, until something new is heard from the other side ([`Handshake`]).
//! * **The slow opening.** What DTLS and SCTP have to say after a received datagram is written to the socket on the
//!   driver's next turn, which is its next timer, up to 400 ms later. While the connection is being made, the
//!   driver's sleep after a received datagram is [`HURRY`] at the most.
//! * **Small socket buffers.** A burst of segmented sends overflows the kernel's default buffers, and throughput
//!   falls to a tenth. Every socket asks for [`SOCKET_BUFFER_BYTES`]; the kernel grants what it allows.
//! * **The forgotten messages.** The driver takes 256 messages at the most out of SCTP when a datagram arrives, and
//!   looks for more only at the next datagram: a burst of small messages stands still for up to a second. So whoever
//!   takes messages asks for more by [`Progress::nudge`], which hands the driver a datagram that means nothing.
//! * **The silent end.** A driver that stops with an error, or panics, tells nobody. The guard in
//!   [`ConnectionRuntime::spawn`] does.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio_util::sync::CancellationToken;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, Transmit,
};

/// The driver's longest sleep within [`HURRY_FOR`] of a datagram received, while the connection is being made.
const HURRY: Duration = Duration::from_millis(1);
const HURRY_FOR: Duration = Duration::from_millis(10);

/// What each socket asks for, both ways: 16 bursts of the largest segmented send, 64 KiB each, and then some.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// When a handshake datagram is sent again, counted from its first sending.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(60), Duration::from_millis(200), Duration::from_millis(500)];

const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A runtime for one connection.
pub(super) struct ConnectionRuntime {
    base: Arc<dyn Runtime>,
    progress: Arc<Progress>,
    on_end: OnEnd,
    sockets: AtomicUsize,
    driver_spawned: AtomicBool,
}

/// Called when the driver has ended, however it did.
pub(super) type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// What the runtime and the connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// All channels are open: the cures for the handshake are over.
    open: AtomicBool,
    /// The remote is a member of this crate.
    among_us: AtomicBool,
    /// When the last datagram was received, while the connection was being made.
    heard: Mutex<Option<Instant>>,
    /// A datagram that means nothing is to be received, and the socket that is waiting for one.
    nudged: AtomicBool,
    receiver: AtomicWaker,
    /// The driver has ended.
    pub(super) ended: CancellationToken,
}

impl Progress {
    pub(super) fn set_open(&self) {
        self.open.store(true, Ordering::Release);
    }

    pub(super) fn set_among_us(&self) {
        self.among_us.store(true, Ordering::Release);
    }

    /// Makes the driver look for messages that it has left in SCTP.
    pub(super) fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::AcqRel) {
            self.receiver.wake();
        }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn is_among_us(&self) -> bool {
        self.among_us.load(Ordering::Acquire)
    }
}

impl ConnectionRuntime {
    pub(super) fn new(base: Arc<dyn Runtime>, progress: Arc<Progress>, on_end: OnEnd) -> ConnectionRuntime {
        ConnectionRuntime {
            base,
            progress,
            on_end,
            sockets: AtomicUsize::new(0),
            driver_spawned: AtomicBool::new(false),
        }
    }

    /// How many UDP sockets were bound.
    pub(super) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Acquire)
    }
}

impl Runtime for ConnectionRuntime {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        if self.driver_spawned.swap(true, Ordering::AcqRel) {
            return self.base.spawn(future);
        }
        // The first task is the driver.
        let end = End(self.progress.clone(), self.on_end.clone());
        self.base.spawn(Box::pin(async move {
            let _end = end;
            future.await;
        }))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.sockets.fetch_add(1, Ordering::AcqRel);
        let kernel = socket2::SockRef::from(&socket);
        // The kernel grants less than asked for without an error; an error means a platform without the option.
        let _ = kernel.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = kernel.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        Ok(Arc::new(Socket {
            base: self.base.wrap_udp_socket(socket)?,
            runtime: self.base.clone(),
            progress: self.progress.clone(),
            handshake: Arc::default(),
        }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.base.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.base.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        self.base.resolve_host(host)
    }

    fn now(&self) -> Instant {
        self.base.now()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        self.base.sleep(self.hurried(duration))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.base.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.base.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        self.base.yield_now()
    }

    fn name(&self) -> &'static str {
        self.base.name()
    }
}

impl fmt::Debug for ConnectionRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionRuntime").field("base", &self.base).finish_non_exhaustive()
    }
}

/// Goes with the driver's future: when it returns, panics, or is dropped with its runtime.
struct End(Arc<Progress>, OnEnd);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.cancel();
        (self.1)();
    }
}

impl ConnectionRuntime {
    fn hurried(&self, duration: Duration) -> Duration {
        if self.progress.is_open() || duration <= HURRY {
            return duration;
        }
        let heard = *lock(&self.progress.heard);
        match heard {
            Some(heard) if self.base.now().saturating_duration_since(heard) < HURRY_FOR => HURRY,
            _ => duration,
        }
    }
}

#[derive(Debug)]
struct Socket {
    base: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
    progress: Arc<Progress>,
    handshake: Arc<Mutex<Handshake>>,
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.base.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let sent = self.base.poll_send(cx, transmit);
        if !self.progress.is_open()
            && matches!(sent, Poll::Ready(Ok(_)))
            && is_to_be_repeated(transmit.contents, self.progress.is_among_us())
        {
            self.repeat(transmit);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.progress.receiver.register(cx.waker());
        if self.progress.nudged.swap(false, Ordering::AcqRel) {
            return Poll::Ready(Ok(self.receive_nothing(bufs, meta)));
        }
        let received = self.base.poll_recv(cx, bufs, meta);
        if !self.progress.is_open()
            && let Poll::Ready(Ok(count)) = received
        {
            *lock(&self.progress.heard) = Some(self.runtime.now());
            let mut handshake = lock(&self.handshake);
            for (buf, meta) in bufs.iter().zip(meta.iter()).take(count) {
                let datagrams = buf.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1));
                datagrams.for_each(|datagram| handshake.heard(datagram));
            }
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.base.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.base.max_gro_segments()
    }
}

/// A STUN binding indication (RFC 8489 section 5), which ICE takes without a word.
const INDICATION: [u8; 20] = [0, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Socket {
    /// A datagram that means nothing, from nobody: so it is no sign of life of the remote.
    fn receive_nothing(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let (Some(buf), Some(meta)) = (bufs.first_mut().and_then(|buf| buf.get_mut(..20)), meta.first_mut())
        else {
            return 0;
        };
        buf.copy_from_slice(&INDICATION);
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (NOBODY, INDICATION.len(), INDICATION.len());
        1
    }

    /// Sends a handshake datagram again until something new is heard. The task ends with the connection.
    fn repeat(&self, transmit: &Transmit<'_>) {
        let (handshake, progress) = (self.handshake.clone(), self.progress.clone());
        let news = lock(&handshake).news;
        // Weak, so that a repeat never keeps a closed connection's port.
        let (base, runtime) = (Arc::downgrade(&self.base), self.runtime.clone());
        let (contents, to, segment_size) =
            (transmit.contents.to_vec(), transmit.destination, transmit.segment_size);
        let repeat = async move {
            let mut slept = Duration::ZERO;
            for at in REPEATS {
                runtime.sleep(at - slept).await;
                slept = at;
                let Some(socket) = base.upgrade() else { return };
                if progress.is_open() || lock(&handshake).news != news {
                    return;
                }
                let size = segment_size.filter(|size| *size > 0).unwrap_or(contents.len().max(1));
                for datagram in contents.chunks(size) {
                    if socket.send_to(datagram, to).await.is_err() {
                        return;
                    }
                }
            }
        };
        let ended = self.progress.ended.clone();
        let until_the_end = async move { ended.run_until_cancelled(repeat).await.unwrap_or_default() };
        self.runtime.spawn(Box::pin(until_the_end)).detach();
    }
}

/// How far the other side's handshake has come, as its datagrams show without a key.
#[derive(Debug, Default)]
struct Handshake {
    /// The highest message number heard in the clear (RFC 6347 section 4.2.2). A repeated flight has none higher.
    highest: Option<u16>,
    /// ChangeCipherSpec, or an encrypted handshake record, was heard.
    finishing: bool,
    /// Application data was heard: DTLS is up.
    data: bool,
    /// Counts what was new.
    news: u64,
}

impl Handshake {
    fn heard(&mut self, datagram: &[u8]) {
        let new = match datagram {
            [HANDSHAKE, _, _, 0, 0, ..] => {
                let number = datagram.get(17..19).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
                let new = number > self.highest;
                self.highest = self.highest.max(number);
                new
            }
            [HANDSHAKE | CHANGE_CIPHER_SPEC, ..] => !std::mem::replace(&mut self.finishing, true),
            [APPLICATION_DATA, ..] => !std::mem::replace(&mut self.data, true),
            _ => false,
        };
        self.news += u64::from(new);
    }
}

/// DTLS record types (RFC 6347 section 4.1); they share the port with STUN, whose datagrams begin with 0 or 1.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The place of a handshake message's kind, after the header of its record (RFC 6347 sections 4.1 and 4.2.2).
const MESSAGE_KIND: usize = 13;
const HELLO_VERIFY_REQUEST: u8 = 3;

/// Whether it belongs to a flight that its sender has to repeat. A HelloVerifyRequest does not (RFC 6347 section
/// 4.2.1), and werift fails over one that comes again. But this library does not, and without it a lost one costs a
/// second each time.
fn is_to_be_repeated(datagram: &[u8], among_us: bool) -> bool {
    match datagram {
        [HANDSHAKE, ..] => among_us || datagram.get(MESSAGE_KIND) != Some(&HELLO_VERIFY_REQUEST),
        [CHANGE_CIPHER_SPEC, ..] => true,
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, epoch: u8, message: u8) -> Vec<u8> {
        let mut datagram = vec![0; 40];
        (datagram[0], datagram[4], datagram[18]) = (kind, epoch, message);
        datagram
    }

    #[test]
    fn flights_are_repeated_and_to_strangers_a_request_for_a_cookie_is_not() {
        let message = |kind| {
            let mut datagram = record(HANDSHAKE, 0, 0);
            datagram[MESSAGE_KIND] = kind;
            datagram
        };
        for among_us in [false, true] {
            let is_to_be_repeated = |datagram: &[u8]| is_to_be_repeated(datagram, among_us);
            assert!(is_to_be_repeated(&message(1)), "ClientHello");
            assert_eq!(is_to_be_repeated(&message(HELLO_VERIFY_REQUEST)), among_us);
            assert!(is_to_be_repeated(&message(11)), "Certificate");
            assert!(is_to_be_repeated(&record(CHANGE_CIPHER_SPEC, 0, 0)));
            assert!(!is_to_be_repeated(&[0, 1]) && !is_to_be_repeated(&[]), "STUN, nothing");
        }
    }

    #[test]
    fn a_repeated_flight_is_no_news_and_a_later_one_is() {
        let mut handshake = Handshake::default();
        let mut news = |datagram: &[u8]| {
            let before = handshake.news;
            handshake.heard(datagram);
            handshake.news > before
        };
        assert!(news(&record(HANDSHAKE, 0, 0)), "ClientHello");
        assert!(!news(&record(HANDSHAKE, 0, 0)), "the same again");
        assert!(news(&record(HANDSHAKE, 0, 1)), "ClientHello with the cookie");
        assert!(news(&record(CHANGE_CIPHER_SPEC, 0, 0)));
        assert!(!news(&record(HANDSHAKE, 1, 0)), "Finished comes with ChangeCipherSpec");
        assert!(news(&record(APPLICATION_DATA, 1, 0)));
        assert!(!news(&record(APPLICATION_DATA, 1, 0)));
        assert!(!news(&[0, 1, 2]) && !news(&[]) && !news(&[HANDSHAKE]), "STUN, nothing, a stub");
    }
}
