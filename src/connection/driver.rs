//! Where a connection's driver runs: as a task of its own, or, once there are packets, in the task of the peer.
//!
//! A datagram wakes the driver, and what it brings wakes the peer's task; what that sends wakes the driver. In two tasks
//! each of those wakes goes through the scheduler, which lets three tasks in a row follow each other at once and wakes
//! another thread for the fourth: on cores that rest, that is most of a round trip. In one task the two just follow each
//! other. So the peer's task [takes](Driver::take) the driver while it waits, and when it lets go of it, to close for
//! instance, the driver goes on [at home](Home).

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::task::AtomicWaker;

use super::runtime::Progress;
use crate::in_place::InPlace;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Goes with the driver, and is dropped when that returns, panics, or is dropped with its runtime.
type End = Box<dyn Send>;

thread_local! {
    static DRIVES: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// What a driver does on this thread.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    /// What time it is for all of its turn, once it was told.
    told: Option<Instant>,
}

/// Whether it is a driver that asks: the library's other tasks sleep by the same runtime, to limit what they wait for.
pub(super) fn drives() -> bool {
    DRIVES.get().is_some()
}

/// The time that a driver is told: the same for all of its turn, which is short, as it asks up to four times; anew if it waits
/// in between. `None` if it is no driver that asks.
pub(super) fn told(read: impl FnOnce() -> Instant) -> Option<Instant> {
    let turn = DRIVES.get()?;
    let told = turn.told.unwrap_or_else(read);
    DRIVES.set(Some(Turn { told: Some(told) }));
    Some(told)
}

/// A driver's turn is over, or the time has changed.
pub(super) fn tell_anew() {
    if drives() {
        DRIVES.set(Some(Turn::default()));
    }
}

/// The driver itself, which says so while it is polled.
struct Driving {
    driver: Boxed,
    /// What is dropped after it.
    _end: End,
}

impl Future for Driving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        struct Was(Option<Turn>);
        impl Drop for Was {
            fn drop(&mut self) {
                DRIVES.set(self.0);
            }
        }
        let _was = Was(DRIVES.replace(Some(Turn::default())));
        self.driver.as_mut().poll(cx)
    }
}

/// The driver, wherever it runs.
#[derive(Default)]
pub(super) struct Driver {
    seat: Mutex<Seat>,
    home: AtomicWaker,
}

#[derive(Default)]
struct Seat {
    /// `None` before it is spawned, and when it has ended.
    driver: Option<InPlace<Driving>>,
    taken: bool,
}

/// The driver's own task, which ends with the driver. Dropping it ends the driver.
pub(super) struct Home(Arc<Driver>);

/// The driver, taken along. Dropped, it is at home again.
pub(crate) struct Taken {
    driver: Arc<Driver>,
    progress: Arc<Progress>,
}

impl Driver {
    /// What is to be spawned for it.
    pub(super) fn spawned(self: &Arc<Driver>, driver: Boxed, end: End) -> Home {
        self.seat().driver = Some(InPlace::new(Driving { driver, _end: end }));
        Home(self.clone())
    }

    /// Takes it along, unless somebody has, or it has ended.
    pub(super) fn take(self: &Arc<Driver>, progress: &Arc<Progress>) -> Option<Taken> {
        let mut seat = self.seat();
        if seat.taken || seat.driver.is_none() {
            return None;
        }
        seat.taken = true;
        drop(seat);
        progress.attend(true);
        Some(Taken { driver: self.clone(), progress: progress.clone() })
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Home {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.home.register(cx.waker());
        let mut seat = self.0.seat();
        let Seat { driver: Some(driver), taken } = &mut *seat else { return Poll::Ready(()) };
        if *taken {
            return Poll::Pending;
        }
        // Should it panic, dropping this ends it.
        std::task::ready!(Pin::new(driver).poll(cx));
        let ended = seat.driver.take();
        drop(seat);
        drop(ended);
        Poll::Ready(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let driver = self.0.seat().driver.take();
        drop(driver);
    }
}

impl Taken {
    /// Lets it run. Ready when it has ended. It may wake itself, and is to be polled again then.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut seat = self.driver.seat();
        let ended = match &mut seat.driver {
            None => return Poll::Ready(()),
            // A panic of the driver is its own end, not that of whoever has taken it along.
            Some(driver) => match catch_unwind(AssertUnwindSafe(|| Pin::new(driver.future()).poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => seat.driver.take(),
                Err(_) => {
                    tracing::error!("the driver of a connection has panicked");
                    seat.driver.take()
                }
            },
        };
        drop(seat);
        drop(ended);
        self.driver.home.wake();
        Poll::Ready(())
    }

    /// Nothing is to be done any more, for the driver and for whoever has taken it along: what has waited for that leaves.
    pub(crate) fn send_waiting(&self) {
        self.progress.send_waiting();
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").finish_non_exhaustive()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.progress.attend(false);
        self.progress.send_waiting();
        self.driver.seat().taken = false;
        self.driver.home.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt as _;
    use tokio::time::{Duration, timeout};

    use super::*;

    /// A driver that counts what it is told, and ends or panics at 100. It is told a handful of things, so the queue has no
    /// bound.
    fn counting(told: tokio::sync::mpsc::UnboundedReceiver<u32>) -> (Arc<AtomicU32>, Boxed) {
        let count = Arc::new(AtomicU32::new(0));
        let (counted, mut told) = (count.clone(), told);
        let driver = async move {
            while let Some(more) = told.recv().await {
                assert!(more < 1000, "on purpose");
                if counted.fetch_add(more, Ordering::AcqRel) + more >= 100 {
                    return;
                }
            }
        };
        (count, driver.boxed())
    }

    async fn counts(count: &AtomicU32, expected: u32) {
        let counted = async {
            while count.load(Ordering::Acquire) < expected {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), counted).await.unwrap();
    }

    #[tokio::test]
    async fn it_runs_at_home_and_where_it_is_taken_and_at_home_again_and_loses_no_wake() {
        // Unbounded, as a test tells it a few numbers and does not wait.
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        let (count, driver) = counting(told);
        let place = Arc::new(Driver::default());
        let home = tokio::spawn(place.spawned(driver, Box::new(())));
        tell.send(1).unwrap();
        counts(&count, 1).await;

        let taken = place.take(&Arc::default()).unwrap();
        assert!(place.take(&Arc::default()).is_none(), "once");
        tell.send(1).unwrap();
        (0..10).for_each(|_| assert!(tokio::task::yield_now().now_or_never().is_none()));
        assert_eq!(count.load(Ordering::Acquire), 1, "it runs nowhere else");
        let visit = tokio::spawn(poll_fn(move |cx| taken.poll(cx)));
        counts(&count, 2).await;
        tell.send(1).unwrap();
        counts(&count, 3).await;

        tell.send(1).unwrap();
        visit.abort();
        counts(&count, 4).await;
        tell.send(96).unwrap();
        timeout(Duration::from_secs(5), home).await.unwrap().unwrap();
        assert!(place.take(&Arc::default()).is_none(), "it has ended");
    }

    #[tokio::test]
    async fn it_is_known_who_drives() {
        let place = Arc::new(Driver::default());
        let driver = async {
            for _ in 0..2 {
                assert!(drives());
                tokio::task::yield_now().await;
            }
        };
        let home = place.spawned(driver.boxed(), Box::new(()));
        assert!(!drives());
        assert!(tokio::spawn(async { drives() }).await.is_ok_and(|drives| !drives));
        home.await;
        assert!(!drives());
        let panics = place.spawned(async { panic!("on purpose") }.boxed(), Box::new(()));
        assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
        assert!(!drives());
    }

    #[tokio::test]
    async fn its_end_and_its_panic_are_its_own_and_end_its_task() {
        for last in [100, 1000] {
            // Unbounded, as above.
            let (tell, told) = tokio::sync::mpsc::unbounded_channel();
            let (_, driver) = counting(told);
            let place = Arc::new(Driver::default());
            let home = tokio::spawn(place.spawned(driver, Box::new(())));
            let taken = place.take(&Arc::default()).unwrap();
            tell.send(last).unwrap();
            timeout(Duration::from_secs(5), poll_fn(|cx| taken.poll(cx))).await.unwrap();
            timeout(Duration::from_secs(5), home).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn without_its_task_there_is_no_driver() {
        let place = Arc::new(Driver::default());
        let alive = Arc::new(());
        let held = Box::new(alive.clone());
        let home = place.spawned(Box::pin(pending()), held);
        let taken = place.take(&Arc::default()).unwrap();
        assert!(poll_fn(|cx| Poll::Ready(taken.poll(cx))).await.is_pending());
        drop(home);
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(poll_fn(|cx| Poll::Ready(taken.poll(cx))).await.is_ready());
    }
}
