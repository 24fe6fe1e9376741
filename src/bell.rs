//! A waker of one's own, for something that is polled beside what is busier.
//!
//! A task that waits for many things polls all of them whenever one wakes it, and most have nothing to say. Behind a
//! [`Bell`] only what has rung is polled.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::task_waker::{Registered, TaskWaker};

/// Rings when what is behind it may have something to say, and wakes the task.
pub(crate) struct Bell {
    wire: Arc<Wire>,
    waker: Waker,
    registered: Registered,
}

const QUIET: u8 = 0;
/// Who rings wakes nobody, as the task looks once more before it rests.
const ATTENDED: u8 = 1;
const RUNG: u8 = 2;

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.has_rung()).finish_non_exhaustive()
    }
}

struct Wire {
    state: AtomicU8,
    task: TaskWaker,
}

impl Wake for Wire {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Who has not looked yet since it rang need not be told again.
        if self.state.swap(RUNG, Ordering::AcqRel) == QUIET {
            self.task.wake();
        }
    }
}

impl Bell {
    /// One that has rung, as nothing was polled yet.
    pub(crate) fn new() -> Bell {
        let wire = Arc::new(Wire { state: AtomicU8::new(RUNG), task: TaskWaker::default() });
        Bell { waker: Waker::from(wire.clone()), wire, registered: Registered::default() }
    }

    /// Rings, without a word to the task.
    pub(crate) fn ring(&self) {
        self.wire.state.store(RUNG, Ordering::Release);
    }

    /// Who rings it, by being woken.
    #[cfg(test)]
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether it has rung since it was pending.
    pub(crate) fn has_rung(&self) -> bool {
        self.wire.state.load(Ordering::Acquire) == RUNG
    }

    /// Polls, if it has rung since it was pending.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.poll_then(QUIET, cx, poll)
    }

    /// The same, and until [`rest`](Bell::rest) who rings wakes nobody.
    pub(crate) fn poll_attended<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let _ = self.wire.state.compare_exchange(QUIET, ATTENDED, Ordering::AcqRel, Ordering::Acquire);
        self.poll_then(ATTENDED, cx, poll)
    }

    /// From now on who rings wakes the task. Whether nobody has rung.
    pub(crate) fn rest(&self) -> bool {
        let rests = self.wire.state.compare_exchange(ATTENDED, QUIET, Ordering::AcqRel, Ordering::Acquire);
        rests != Err(RUNG)
    }

    fn poll_then<T>(
        &mut self,
        state: u8,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Before it is looked, so that no ring comes between.
        self.wire.task.register(&mut self.registered, cx.waker());
        if !self.has_rung() {
            return Poll::Pending;
        }
        self.wire.state.swap(state, Ordering::AcqRel);
        let polled = poll(&mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            // There may be more.
            self.ring();
        }
        polled
    }

    /// The future, polled only when it has woken this.
    pub(crate) async fn watch<F: Future>(future: F) -> F::Output {
        let mut bell = Bell::new();
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(move |cx| bell.poll(cx, |cx| Pin::as_mut(&mut future).poll(cx))).await
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.wire.task.forget();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::task::noop_waker;

    use super::*;

    #[test]
    fn what_has_not_rung_is_not_polled() {
        let mut bell = Bell::new();
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let mut polls = 0;
        let mut inner: Option<Waker> = None;
        let mut poll = |ready: bool, inner: &mut Option<Waker>| {
            let polled = bell.poll(&mut cx, |cx| {
                polls += 1;
                *inner = Some(cx.waker().clone());
                if ready { Poll::Ready(()) } else { Poll::Pending }
            });
            (polled.is_ready(), polls)
        };
        assert_eq!(poll(true, &mut inner), (true, 1), "it was never polled");
        assert_eq!(poll(false, &mut inner), (false, 2), "there may be more");
        assert_eq!(poll(true, &mut inner), (false, 2), "it has not rung");
        inner.clone().unwrap().wake();
        assert_eq!(poll(true, &mut inner), (true, 3));
    }

    #[test]
    fn who_rings_while_the_task_attends_wakes_it_only_by_not_letting_it_rest() {
        struct Task(AtomicU8);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let task = Arc::new(Task(AtomicU8::new(0)));
        let waker = Waker::from(task.clone());
        let mut cx = Context::from_waker(&waker);
        let woken = || task.0.load(Ordering::Relaxed);
        let mut bell = Bell::new();
        let mut inner = None;
        let mut poll = |bell: &mut Bell| {
            let mut polls = 0;
            let polled = bell.poll_attended(&mut cx, |cx| {
                (inner, polls) = (Some(cx.waker().clone()), polls + 1);
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
            (inner.clone().unwrap(), polls)
        };
        let (ring, polls) = poll(&mut bell);
        assert_eq!(polls, 1);
        ring.wake_by_ref();
        assert!(!bell.rest(), "it has rung");
        assert_eq!(poll(&mut bell).1, 1);
        assert!(bell.rest());
        assert_eq!(woken(), 0);
        ring.wake_by_ref();
        ring.wake_by_ref();
        assert_eq!(woken(), 1, "the task rests");
        assert!(!bell.rest());
        assert_eq!(poll(&mut bell).1, 1);
        assert_eq!(poll(&mut bell).1, 0);
        assert!(bell.rest());
    }

    #[tokio::test]
    async fn a_watched_future_wakes_the_task_that_polls_it() {
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut watched = Box::pin(Bell::watch(told));
        assert!((&mut watched).now_or_never().is_none());
        let waiting = tokio::spawn(watched);
        tell.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }
}
