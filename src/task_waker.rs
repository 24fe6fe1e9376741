//! Whom to wake: a task that polls often, and seldom is another.
//!
//! `futures`' `AtomicWaker` gives its waker away when it wakes, so that its task registers again with every poll, which
//! costs two atomic exchanges each time. This one keeps it: a task that is the same as last time compares two pointers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// What those who wake hold, by a reference.
#[derive(Debug, Default)]
pub(crate) struct TaskWaker(Mutex<Option<Waker>>);

/// What the task holds: whom it has registered last.
#[derive(Debug, Default)]
pub(crate) struct Registered(Option<Waker>);

impl TaskWaker {
    /// Has this one woken from now on. To be called before it is looked whether there is something to do.
    ///
    /// All calls must come with the same `last`, or with a fresh one.
    pub(crate) fn register(&self, last: &mut Registered, waker: &Waker) {
        if !last.0.as_ref().is_some_and(|last| last.will_wake(waker)) {
            last.0 = Some(waker.clone());
            // Whoever has woken the one before had something to be seen before this, and it is looked after it.
            let before = self.lock().replace(waker.clone());
            drop(before);
        }
    }

    /// Wakes it. To be called after there is something to do.
    pub(crate) fn wake(&self) {
        // Of an executor that has ended, it may end the task at once, which forgets it here.
        let waker = self.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Keeps no task any longer, which may be ended.
    pub(crate) fn forget(&self) {
        let waker = self.lock().take();
        drop(waker);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Poll, Wake};
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_one_who_came_last_is_woken_each_time_until_it_is_forgotten() {
        let [one, two] = [Arc::new(Task::default()), Arc::new(Task::default())];
        let (waker, mut last) = (TaskWaker::default(), Registered::default());
        waker.wake();
        let count = |task: &Arc<Task>| task.0.load(Ordering::Relaxed);
        for round in 1..=2 {
            waker.register(&mut last, &one.clone().into());
            waker.wake();
            waker.wake();
            assert_eq!((count(&one), count(&two)), (round * 2, round - 1));
            waker.register(&mut last, &two.clone().into());
            waker.wake();
            assert_eq!((count(&one), count(&two)), (round * 2, round));
        }
        waker.forget();
        waker.wake();
        assert_eq!((count(&one), count(&two)), (4, 2));
        assert_eq!(Arc::strong_count(&one), 1);
    }

    #[test]
    fn whoever_is_woken_may_end_at_once() {
        struct Ends(Arc<TaskWaker>);
        impl Wake for Ends {
            fn wake(self: Arc<Self>) {
                self.0.forget();
            }
        }
        let waker = Arc::new(TaskWaker::default());
        waker.register(&mut Registered::default(), &Arc::new(Ends(waker.clone())).into());
        waker.wake();
        assert!(waker.lock().is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost_whoever_comes_next() {
        const LAST: usize = 20_000;
        const LIMIT: Duration = Duration::from_secs(20);
        #[derive(Default)]
        struct Shared {
            said: AtomicUsize,
            seen: AtomicUsize,
            waker: TaskWaker,
        }
        let shared = Arc::new(Shared::default());
        let (told, mut last, mut seen) = (shared.clone(), Registered::default(), 0);
        let waking = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            for n in 1..=LAST {
                told.said.store(n, Ordering::Release);
                told.waker.wake();
                while told.seen.load(Ordering::Acquire) + 2 < n && began.elapsed() < LIMIT {
                    std::thread::yield_now();
                }
            }
        });
        // One task after the other sees some of it.
        while seen < LAST {
            let (told, before) = (shared.clone(), seen);
            let next = tokio::spawn(async move {
                let news = poll_fn(|cx| {
                    told.waker.register(&mut last, cx.waker());
                    let seen = told.said.load(Ordering::Acquire);
                    told.seen.store(seen, Ordering::Release);
                    if seen > before { Poll::Ready(seen) } else { Poll::Pending }
                });
                let seen = news.await;
                (last, seen)
            });
            (last, seen) = tokio::time::timeout(LIMIT, next).await.expect("a wake was lost").unwrap();
        }
        waking.await.unwrap();
    }
}
