//! A future that wakes itself is polled again where it is.
//!
//! Tokio hands a task that was woken while it was polled to the queue, and wakes another thread to look there. That is a
//! system call and a thread for nothing where a future wakes itself each time: `FuturesUnordered` does so whenever all
//! its futures were polled, and the `webrtc` crate's driver waits for its sockets with one, so with each of its turns.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::bell::Bells;

/// How often it is polled in a row; then it has its turn after the others.
const POLLS: usize = 3;

/// Polls its future again if that was woken meanwhile.
pub(crate) struct InPlace<F> {
    future: F,
    /// Rings when the future is woken.
    bell: Bells<1>,
}

impl<F: Future + Unpin> InPlace<F> {
    pub(crate) fn new(future: F) -> InPlace<F> {
        InPlace { future, bell: Bells::new() }
    }

    /// The future, for somebody who looks by himself whether it has woken itself.
    pub(crate) fn future(&mut self) -> &mut F {
        &mut self.future
    }
}

impl<F: Future + Unpin> Future for InPlace<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let InPlace { future, bell } = &mut *self;
        bell.attend(cx.waker());
        // Whoever polls it has a reason.
        bell.ring_all();
        for _ in 0..POLLS {
            if bell.take().is_empty() {
                break;
            }
            if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut bell.context(0)) {
                return Poll::Ready(output);
            }
        }
        if !bell.rest() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls a future once that wakes itself so often, and tells how often it was polled, and how often the task woken.
    fn polled(wakes: usize) -> (usize, usize) {
        let task = Arc::new(Task::default());
        let mut polls = 0;
        let mut future = InPlace::new(poll_fn(|cx| {
            polls += 1;
            if polls <= wakes {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }));
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&task.clone().into())).is_pending());
        drop(future);
        (polls, task.0.load(Ordering::Relaxed))
    }

    #[test]
    fn who_wakes_itself_is_polled_again_and_the_task_is_woken_only_if_it_goes_on() {
        assert_eq!(polled(0), (1, 0));
        assert_eq!(polled(1), (2, 0));
        assert_eq!(polled(2), (3, 0));
        assert_eq!(polled(3), (3, 1));
    }

    #[test]
    fn who_is_woken_while_it_rests_wakes_the_task_once() {
        let task = Arc::new(Task::default());
        let mut future = InPlace::new(std::future::pending::<()>());
        let waker = Waker::from(task.clone());
        for wakes in 1..=3 {
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
            future.bell.waker(0).wake_by_ref();
            future.bell.waker(0).wake_by_ref();
            assert_eq!(task.0.load(Ordering::Relaxed), wakes);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_another_thread_is_lost() {
        // Unbounded, as the sender must not wait for the receiver, or no wake would meet a poll.
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let sending = tokio::spawn(async move {
            for n in 0..100_000_u32 {
                assert!(sender.send(n).is_ok());
                if n % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        let receiving = InPlace::new(Box::pin(async move {
            let mut count = 0;
            while receiver.recv().await.is_some() {
                count += 1;
            }
            count
        }));
        assert_eq!(tokio::spawn(receiving).await.unwrap(), 100_000);
        sending.await.unwrap();
    }
}
