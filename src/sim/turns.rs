//! One thing at a time: what makes a connection's driver do the same in every run of one seed.
//!
//! The driver of the `webrtc` crate waits with `futures::select!`, which tosses a coin when several things are ready,
//! and its coin cannot be seeded. At virtual time several things are ready often: a datagram, a timer and a message at
//! the same millisecond. So they are shown to it one after another: messages first, then datagrams, then timers, each
//! only when there is nothing more to do for those before it. It is all at the same instant, so nothing is delayed.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
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

#[derive(Debug, Default)]
struct Turn {
    /// The driver's task.
    task: AtomicWaker,
    /// The driver runs, so nothing else does.
    is_polling: AtomicBool,
    /// It was woken while it ran.
    again: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    granted: Option<Grant>,
    /// Readers of sockets that have a datagram.
    readers: VecDeque<Waker>,
    /// Timers that have run out.
    timers: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    Datagram,
    Timer,
}

impl Turns {
    pub(crate) fn new(base: Arc<dyn Runtime>) -> Turns {
        Turns { base, driver_spawned: AtomicBool::new(false), turn: Arc::default() }
    }
}

impl Turn {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_polling(&self) -> bool {
        self.is_polling.load(Ordering::Acquire)
    }

    /// Takes what was granted, if it is this.
    fn takes(&self, grant: Grant) -> bool {
        let mut waiting = self.waiting();
        let is_granted = waiting.granted == Some(grant);
        if is_granted {
            waiting.granted = None;
        }
        is_granted
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
        let mut driver_cx = Context::from_waker(&waker);
        turn.is_polling.store(true, Ordering::Release);
        let _stopped = Stop(&turn); // also when it panics
        loop {
            turn.again.store(false, Ordering::Release);
            if self.future.as_mut().poll(&mut driver_cx).is_ready() {
                return Poll::Ready(());
            }
            let mut waiting = turn.waiting();
            let was_in_vain = waiting.granted.take();
            if turn.again.load(Ordering::Acquire) {
                continue;
            }
            if let Some(reader) = waiting.readers.pop_front() {
                waiting.granted = Some(Grant::Datagram);
                drop(waiting);
                reader.wake();
            } else if waiting.timers > 0 && was_in_vain != Some(Grant::Timer) {
                waiting.granted = Some(Grant::Timer);
            } else {
                // A timer that nobody looks at now is looked at when the driver is woken by what it waits for.
                return Poll::Pending;
            }
        }
    }
}

/// Ends the driver's turn.
struct Stop<'a>(&'a Turn);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.waiting().granted = None;
        self.0.is_polling.store(false, Ordering::Release);
        if self.0.again.swap(false, Ordering::AcqRel) {
            self.0.task.wake();
        }
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A timer of the driver. Elsewhere it is an ordinary one.
struct Timer {
    inner: Boxed<'static, ()>,
    has_run_out: bool,
    turn: Arc<Turn>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_run_out {
            ready!(self.inner.as_mut().poll(cx));
            self.has_run_out = true;
            self.turn.waiting().timers += 1;
        }
        match !self.turn.is_polling() || self.turn.takes(Grant::Timer) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.has_run_out {
            self.turn.waiting().timers -= 1;
        }
    }
}

#[derive(Debug)]
struct Socket {
    base: Arc<dyn AsyncUdpSocket>,
    turn: Arc<Turn>,
    ahead: Mutex<Ahead>,
}

#[derive(Debug, Default)]
struct Ahead {
    /// A datagram that was read before its turn.
    datagram: Option<(Box<[u8]>, RecvMeta)>,
    /// How many more the driver may take in this turn.
    more: usize,
}

/// After a datagram the driver takes what else there is, so many at the most, without waiting.
const BURST: usize = 64;

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
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.datagram.is_none() {
            let mut bufs = [IoSliceMut::new(buf)];
            let received = self.base.poll_recv(cx, &mut bufs, std::slice::from_mut(meta))?;
            if received.is_pending() {
                ahead.more = 0;
                return Poll::Pending;
            }
            if !self.turn.is_polling() || ahead.more > 0 {
                ahead.more = ahead.more.saturating_sub(1);
                return Poll::Ready(Ok(1));
            }
            ahead.datagram = Some((bufs[0].get(..meta.len).unwrap_or_default().into(), *meta));
        }
        if self.turn.is_polling() && !self.turn.takes(Grant::Datagram) {
            self.turn.waiting().readers.push_back(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some((bytes, its_meta)) = ahead.datagram.take() {
            let len = bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&bytes[..len]);
            *meta = its_meta;
        }
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
        Ok(Arc::new(Socket { base, turn: self.turn.clone(), ahead: Mutex::default() }))
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
        Box::pin(Timer { inner, has_run_out: false, turn: self.turn.clone() })
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
