//! One thing at a time: what makes a connection's driver do the same in every run of one seed.
//!
//! The driver of the `webrtc` crate waits with `futures::select!`, which tosses a coin when several things are ready,
//! and its coin cannot be seeded. At virtual time several things are ready often: a datagram, a timer and a message at
//! the same millisecond. So they are shown to it one after another: messages first, then datagrams, then timers, each
//! only when there is nothing more to do for those before it. It is all at the same instant, so nothing is delayed.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, Transmit,
};

/// A runtime for one connection whose driver sees one thing at a time.
pub(crate) struct Turns {
    base: Arc<dyn Runtime>,
    driver_spawned: AtomicBool,
    turn: Arc<Turn>,
}

impl Turns {
    pub(crate) fn new(base: Arc<dyn Runtime>) -> Turns {
        Turns { base, driver_spawned: AtomicBool::new(false), turn: Arc::default() }
    }
}

#[derive(Debug, Default)]
struct Turn {
    /// The driver's task.
    task: AtomicWaker,
    /// The driver runs, so nothing else does.
    is_polling: AtomicBool,
    /// It was woken while it ran: by a message, as everything else is handed to it.
    again: AtomicBool,
    sockets: Mutex<Vec<Weak<Socket>>>,
    /// Where a datagram is read to, kept for the next.
    buf: Mutex<Vec<u8>>,
    /// The driver has one, as a rule.
    timers: Mutex<Vec<Weak<Mutex<Timer>>>>,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("has_run_out", &self.has_run_out).finish_non_exhaustive()
    }
}

/// Wakes the driver's task, unless it runs.
impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_polling() {
            self.again.store(true, Ordering::Release);
        } else {
            self.task.wake();
        }
    }
}

impl Turn {
    fn is_polling(&self) -> bool {
        self.is_polling.load(Ordering::Acquire)
    }

    /// Hands the driver the next datagram, if there is one.
    fn hand_a_datagram(&self, cx: &mut Context<'_>) -> bool {
        let mut sockets = lock(&self.sockets);
        sockets.retain(|socket| socket.strong_count() > 0);
        let mut buf = lock(&self.buf);
        buf.resize(LARGEST_DATAGRAM_BYTES, 0);
        sockets.iter().filter_map(Weak::upgrade).any(|socket| socket.hand_over(cx, &mut buf))
    }

    /// Hands the driver a timer that has run out, if there is one.
    fn hand_a_timer(&self, cx: &mut Context<'_>) -> bool {
        let mut timers = lock(&self.timers);
        timers.retain(|timer| timer.strong_count() > 0);
        timers.iter().filter_map(Weak::upgrade).any(|timer| lock(&timer).hand_over(cx))
    }
}

/// The driver, which is polled until there is nothing to do at this instant.
struct Driver {
    future: Boxed<'static, ()>,
    turn: Arc<Turn>,
    waker: Waker,
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.clone();
        turn.task.register(cx.waker());
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        turn.is_polling.store(true, Ordering::Release);
        let _stop = Stop(&turn); // also when it panics
        loop {
            turn.again.store(false, Ordering::Release);
            if self.future.as_mut().poll(&mut cx).is_ready() {
                return Poll::Ready(());
            }
            let is_more = turn.again.load(Ordering::Acquire)
                || turn.hand_a_datagram(&mut cx)
                || turn.hand_a_timer(&mut cx);
            if !is_more {
                return Poll::Pending;
            }
        }
    }
}

/// Ends the driver's turn.
struct Stop<'a>(&'a Turn);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.is_polling.store(false, Ordering::Release);
        if self.0.again.swap(false, Ordering::AcqRel) {
            self.0.task.wake();
        }
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A timer of the driver.
struct Timer {
    inner: Boxed<'static, ()>,
    has_run_out: bool,
    is_handed: bool,
}

impl Timer {
    /// Once: the driver may be waiting for something else, and then it looks later.
    fn hand_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.has_run_out = self.has_run_out || self.inner.as_mut().poll(cx).is_ready();
        self.has_run_out && !std::mem::replace(&mut self.is_handed, true)
    }
}

struct Sleep(Arc<Mutex<Timer>>);

impl Future for Sleep {
    type Output = ();

    /// Needs no waker, as whoever hands the timer over polls the driver.
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if lock(&self.0).is_handed { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Debug)]
struct Socket {
    base: Arc<dyn AsyncUdpSocket>,
    ahead: Mutex<Ahead>,
}

#[derive(Debug, Default)]
struct Ahead {
    /// A datagram that was read for the driver.
    datagram: Option<(Box<[u8]>, RecvMeta)>,
    is_handed: bool,
    reader: Option<Waker>,
    /// How many more the driver may take in this turn.
    more: usize,
}

const LARGEST_DATAGRAM_BYTES: usize = 1 << 16;

/// After a datagram the driver takes what else there is, so many at the most, without waiting.
const BURST: usize = 64;

impl Socket {
    fn hand_over(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> bool {
        let mut ahead = lock(&self.ahead);
        if ahead.datagram.is_none() {
            let mut meta = [RecvMeta::default()];
            let received = self.base.poll_recv(cx, &mut [IoSliceMut::new(buf)], &mut meta);
            if !matches!(received, Poll::Ready(Ok(1..))) {
                return false;
            }
            ahead.datagram = Some((buf[..meta[0].len].into(), meta[0]));
        }
        ahead.is_handed = true;
        let reader = ahead.reader.take();
        drop(ahead);
        // Without one the driver is waiting for something else, and looks later.
        reader.map(Waker::wake).is_some()
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.base.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.base.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut ahead = lock(&self.ahead);
        if ahead.more > 0 && ahead.datagram.is_none() {
            ahead.more -= 1;
            let received = self.base.poll_recv(cx, bufs, meta);
            if received.is_ready() {
                return received;
            }
            ahead.more = 0;
        }
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        if !std::mem::take(&mut ahead.is_handed) {
            ahead.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some((bytes, its_meta)) = ahead.datagram.take() else { return Poll::Pending };
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        *meta = its_meta;
        meta.len = len;
        ahead.more = BURST;
        Poll::Ready(Ok(1))
    }

    fn max_gso_segments(&self) -> usize {
        self.base.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.base.max_gro_segments()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runtime for Turns {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        if self.driver_spawned.swap(true, Ordering::AcqRel) {
            return self.base.spawn(future);
        }
        // The first task is the driver.
        let (turn, waker) = (self.turn.clone(), Waker::from(self.turn.clone()));
        self.base.spawn(Box::pin(Driver { future, turn, waker }))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let base = self.base.wrap_udp_socket(socket)?;
        let socket = Arc::new(Socket { base, ahead: Mutex::default() });
        lock(&self.turn.sockets).push(Arc::downgrade(&socket));
        Ok(socket)
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
        let inner = self.base.sleep(duration);
        if !self.turn.is_polling() {
            return inner; // not the driver's
        }
        let timer = Arc::new(Mutex::new(Timer { inner, has_run_out: false, is_handed: false }));
        lock(&self.turn.timers).push(Arc::downgrade(&timer));
        Box::pin(Sleep(timer))
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

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("base", &self.base).finish_non_exhaustive()
    }
}
