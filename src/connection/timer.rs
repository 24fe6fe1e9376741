//! The driver's timer, which is kept from one sleep to the next.
//!
//! The driver sleeps anew after every datagram and every message, mostly a little longer than before. A fresh timer of
//! tokio's costs an allocation and two turns of the timer wheel; and if it is to run out before all others, it wakes
//! the thread that waits for input and output, so that it waits less long. Most of those timers never run out. So an
//! earlier timer is left as it is: when it runs out, it is set for what is left.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use webrtc::runtime::Runtime;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the timer is between two sleeps.
#[derive(Clone)]
pub(super) struct Timers {
    base: Arc<dyn Runtime>,
    kept: Arc<Mutex<Option<Timer>>>,
}

struct Timer {
    at: Instant,
    sleep: Boxed,
}

/// A sleep. If two are under way at once, each has a timer.
struct Sleep {
    until: Instant,
    timer: Option<Timer>,
    timers: Timers,
}

impl Timers {
    pub(super) fn new(base: Arc<dyn Runtime>) -> Timers {
        Timers { base, kept: Arc::default() }
    }

    /// Sleeps for so long.
    pub(super) fn sleep(&self, duration: Duration) -> Boxed {
        let until = self.base.now() + duration;
        Box::pin(Sleep { until, timer: self.kept().take(), timers: self.clone() })
    }

    fn kept(&self) -> MutexGuard<'_, Option<Timer>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (until, base) = (this.until, &this.timers.base);
        loop {
            let timer = match &mut this.timer {
                Some(timer) if timer.at <= until => timer,
                slot => {
                    let sleep = base.sleep(until.saturating_duration_since(base.now()));
                    slot.insert(Timer { at: until, sleep })
                }
            };
            std::task::ready!(timer.sleep.as_mut().poll(cx));
            let at = timer.at;
            this.timer = None;
            if at >= until {
                return Poll::Ready(());
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            *self.timers.kept() = Some(timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::poll;
    use webrtc::runtime::{
        AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, TokioRuntime,
    };

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// A runtime at tokio's virtual time, which counts its sleeps.
    #[derive(Debug, Default)]
    struct Virtual {
        sleeps: Arc<AtomicUsize>,
    }

    impl Runtime for Virtual {
        fn spawn(&self, future: Boxed) -> Box<dyn JoinHandle> {
            TokioRuntime.spawn(future)
        }

        fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
            TokioRuntime.wrap_udp_socket(socket)
        }

        fn wrap_tcp_listener(
            &self,
            listener: std::net::TcpListener,
        ) -> io::Result<Arc<dyn AsyncTcpListener>> {
            TokioRuntime.wrap_tcp_listener(listener)
        }

        fn connect_tcp<'a>(
            &'a self,
            to: SocketAddr,
        ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
            TokioRuntime.connect_tcp(to)
        }

        fn resolve_host<'a>(
            &'a self,
            host: &'a str,
        ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
            TokioRuntime.resolve_host(host)
        }

        fn now(&self) -> Instant {
            tokio::time::Instant::now().into_std()
        }

        fn sleep(&self, duration: Duration) -> Boxed {
            self.sleeps.fetch_add(1, Ordering::Relaxed);
            Box::pin(tokio::time::sleep(duration))
        }

        fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
            TokioRuntime.interval(period)
        }

        fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
            TokioRuntime.block_on(future);
        }

        fn yield_now(&self) -> Boxed {
            TokioRuntime.yield_now()
        }

        fn name(&self) -> &'static str {
            "virtual"
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_timer_is_left_as_it_is_and_no_sleep_ends_early_or_late() {
        let made = Arc::new(AtomicUsize::new(0));
        let base = Arc::new(Virtual { sleeps: made.clone() });
        let timers = Timers::new(base.clone());
        let made = || made.load(Ordering::Relaxed);
        for second in 1..=10 {
            assert!(poll!(timers.sleep(S(10 + second))).is_pending());
        }
        assert_eq!(made(), 1);
        assert!(poll!(timers.sleep(S(5))).is_pending());
        assert_eq!(made(), 2, "an earlier one");
        let begun = base.now();
        timers.sleep(S(7)).await;
        assert_eq!(base.now() - begun, S(7));
        assert_eq!(made(), 3, "the earlier one has run out, and then what was left");
        timers.sleep(S(1)).await;
        assert_eq!((base.now() - begun, made()), (S(8), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn two_at_once_each_end_in_time() {
        let base = Arc::new(Virtual::default());
        let timers = Timers::new(base.clone());
        let begun = base.now();
        let sleep = async |seconds| {
            timers.sleep(S(seconds)).await;
            base.now() - begun
        };
        assert_eq!(tokio::join!(sleep(3), sleep(2), sleep(4)), (S(3), S(2), S(4)));
    }
}
