//! The driver's timer, which is kept from one sleep to the next.
//!
//! The driver sleeps anew after every datagram and every message, mostly a little longer than before. A fresh timer of
//! tokio's costs an allocation and two turns of the timer wheel; and if it is to run out before all others, it wakes
//! the thread that waits for input and output, so that it waits less long. Most of those timers never run out. So the timer
//! is kept. To set tokio's later is an atomic exchange: at its former time tokio puts it to where it belongs, and does not
//! wake the driver. Another runtime's that is earlier is left as it is: when it runs out, there is one for what is left.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use webrtc::runtime::Runtime;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The timer, between two sleeps and in one.
pub(super) struct Timers {
    kept: Mutex<Kept>,
    base: Arc<dyn Runtime>,
    is_tokio: bool,
}

#[derive(Default)]
struct Kept {
    /// A sleep is under way that has it.
    is_taken: bool,
    timer: Option<Timer>,
}

struct Timer {
    at: Instant,
    sleep: Kind,
}

enum Kind {
    Tokio(Pin<Box<tokio::time::Sleep>>),
    Other(Boxed),
}

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Kind::Tokio(sleep) => sleep.as_mut().poll(cx),
            Kind::Other(sleep) => sleep.as_mut().poll(cx),
        }
    }
}

/// A sleep. One that begins while another is under way has a timer of its own.
pub(super) struct Sleep<K: AsRef<Timers>> {
    until: Instant,
    /// How long, if it was not polled yet.
    duration: Option<Duration>,
    has_kept: bool,
    own: Option<Timer>,
    keeper: Arc<K>,
}

impl Timers {
    /// `is_tokio` says that the runtime sleeps as tokio does: then a timer can be set anew.
    pub(super) fn new(base: Arc<dyn Runtime>, is_tokio: bool) -> Timers {
        Timers { kept: Mutex::default(), base, is_tokio }
    }

    /// Sleeps for so long from `now` on, if it is polled at once, by the keeper's timer.
    pub(super) fn sleep<K: AsRef<Timers>>(keeper: Arc<K>, now: Instant, duration: Duration) -> Sleep<K> {
        let has_kept = !std::mem::replace(&mut (*keeper).as_ref().kept().is_taken, true);
        Sleep { until: now + duration, duration: Some(duration), has_kept, own: None, keeper }
    }

    /// Sets the timer anew, or makes one, for what is left.
    fn set(&self, timer: &mut Option<Timer>, until: Instant, left: Duration) {
        *timer = Some(match timer.take() {
            Some(Timer { sleep: Kind::Tokio(mut sleep), .. }) => {
                sleep.as_mut().reset(tokio::time::Instant::now() + left);
                Timer { at: until, sleep: Kind::Tokio(sleep) }
            }
            _ if self.is_tokio => Timer { at: until, sleep: Kind::Tokio(Box::pin(tokio::time::sleep(left))) },
            _ => Timer { at: until, sleep: Kind::Other(self.base.sleep(left)) },
        });
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: AsRef<Timers>> Future for Sleep<K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Sleep { until, duration, has_kept, own, keeper } = &mut *self;
        let timers = (**keeper).as_ref();
        let mut kept = timers.kept();
        let timer = if *has_kept { &mut kept.timer } else { own };
        let mut at_once = duration.take();
        let mut set = |timer: &mut Option<Timer>| {
            let left = at_once.take().unwrap_or_else(|| until.saturating_duration_since(timers.base.now()));
            timers.set(timer, *until, left);
        };
        loop {
            match timer {
                Some(Timer { at, sleep: Kind::Tokio(_) }) if *at < *until => set(timer),
                Some(known) if known.at <= *until => {
                    std::task::ready!(known.poll(cx));
                    if known.at >= *until {
                        // Tokio's can be set anew; others are over.
                        timer.take_if(|timer| matches!(timer.sleep, Kind::Other(_)));
                        return Poll::Ready(());
                    }
                    set(timer);
                }
                _ => set(timer),
            }
        }
    }
}

impl<K: AsRef<Timers>> Drop for Sleep<K> {
    fn drop(&mut self) {
        if self.has_kept {
            (*self.keeper).as_ref().kept().is_taken = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use futures::poll;
    use webrtc::runtime::{
        AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, TokioRuntime,
    };

    use super::*;

    impl AsRef<Timers> for Timers {
        fn as_ref(&self) -> &Timers {
            self
        }
    }

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn sleep(timers: &Arc<Timers>, duration: Duration) -> Pin<Box<Sleep<Timers>>> {
        Box::pin(Timers::sleep(timers.clone(), timers.base.now(), duration))
    }

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
        let timers = Arc::new(Timers::new(base.clone(), false));
        let made = || made.load(Ordering::Relaxed);
        for second in 1..=10 {
            assert!(poll!(sleep(&timers, S(10 + second))).is_pending());
        }
        assert_eq!(made(), 1);
        assert!(poll!(sleep(&timers, S(5))).is_pending());
        assert_eq!(made(), 2, "an earlier one");
        let begun = base.now();
        sleep(&timers, S(7)).await;
        assert_eq!(base.now() - begun, S(7));
        assert_eq!(made(), 3, "the earlier one has run out, and then what was left");
        sleep(&timers, S(1)).await;
        assert_eq!((base.now() - begun, made()), (S(8), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_set_later_wakes_nobody_at_its_former_time() {
        #[derive(Default)]
        struct Task(AtomicUsize);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let timers = Arc::new(Timers::new(Arc::new(Virtual::default()), true));
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(sleep(&timers, S(5)).as_mut().poll(&mut cx).is_pending());
        let mut later = sleep(&timers, S(10));
        assert!(later.as_mut().poll(&mut cx).is_pending());
        tokio::time::sleep(S(7)).await;
        assert_eq!(task.0.load(Ordering::Relaxed), 0);
        tokio::time::sleep(S(4)).await;
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert!(later.as_mut().poll(&mut cx).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_two_at_once_and_each_of_many_in_a_row_ends_in_time() {
        for is_tokio in [false, true] {
            let base = Arc::new(Virtual::default());
            let timers = Arc::new(Timers::new(base.clone(), is_tokio));
            let slept = async |seconds| {
                let begun = base.now();
                sleep(&timers, S(seconds)).await;
                base.now() - begun
            };
            assert_eq!(tokio::join!(slept(3), slept(2), slept(4)), (S(3), S(2), S(4)));
            for seconds in [5, 1, 1, 7, 2, 9] {
                assert!(poll!(sleep(&timers, S(20))).is_pending());
                assert!(
                    poll!(sleep(&timers, S(3))).is_pending(),
                    "this one is earlier than what follows, or later"
                );
                assert_eq!(slept(seconds).await, S(seconds));
            }
            assert_eq!(is_tokio, base.sleeps.load(Ordering::Relaxed) == 0);
        }
    }
}
