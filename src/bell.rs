//! Wakers of one's own, for all that a task waits for.
//!
//! A task that waits for many things polls all of them whenever one wakes it, and most have nothing to say: in a mesh of
//! many links the processor has none of them at hand, and to look at each costs more than to do what there is to do. So
//! each wakes a bell of its own, and the task polls what has rung.

use std::fmt;
use std::ops::BitOr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Wake, Waker};

use crate::task_waker::{Registered, TaskWaker};

/// The bells of one task. Each rings when what is behind it may have something to say, and wakes the task.
#[repr(C)]
pub(crate) struct Bells<const N: usize> {
    board: Arc<Board>,
    registered: Registered,
    wakers: [Waker; N],
}

/// Some of up to fifteen: of the bells of a task, or of whatever has the same places.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Places(u16);

/// Who rings wakes nobody, as the task looks once more before it rests.
const ATTENDED: u16 = 1 << 15;

/// What all of them share. On a line of the cache by itself: hardly anything else is touched by a wake.
#[repr(align(64))]
struct Board {
    /// Those that have rung, and [`ATTENDED`].
    state: AtomicU16,
    task: TaskWaker,
}

struct Wire {
    board: Arc<Board>,
    bell: Places,
}

impl Wake for Wire {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A task that has not looked yet since another rang need not be told again.
        if self.board.state.fetch_or(self.bell.0, Ordering::AcqRel) == 0 {
            self.board.task.wake();
        }
    }
}

impl<const N: usize> Bells<N> {
    const ALL: Places = {
        assert!(N < 16, "a bit for each, and one more");
        Places((1 << N) - 1)
    };

    /// All of them have rung, as nothing was polled yet.
    pub(crate) fn new() -> Bells<N> {
        let board = Arc::new(Board { state: AtomicU16::new(Self::ALL.0), task: TaskWaker::default() });
        let waker =
            |bell| Waker::from(Arc::new(Wire { board: Arc::clone(&board), bell: Places::only(bell) }));
        Bells { wakers: std::array::from_fn(waker), board, registered: Registered::default() }
    }

    /// Who rings this one, by being woken.
    pub(crate) fn waker(&self, bell: usize) -> &Waker {
        &self.wakers[bell]
    }

    /// To poll what is behind this one.
    pub(crate) fn context(&self, bell: usize) -> Context<'_> {
        Context::from_waker(self.waker(bell))
    }

    /// Rings, without a word to the task: only while it [attends](Bells::attend), or about to. One that rests would not hear
    /// of any other either.
    pub(crate) fn ring(&self, bells: Places) {
        self.board.state.fetch_or(bells.0, Ordering::AcqRel);
    }

    /// Rings all of them, in the same way.
    pub(crate) fn ring_all(&self) {
        self.ring(Self::ALL);
    }

    /// The task, whose waker this is, looks at what has rung until it [rests](Bells::rest). Until then nobody is woken: who
    /// does something else meanwhile looks again by itself.
    pub(crate) fn attend(&mut self, task: &Waker) {
        // Before it is looked, so that no ring comes between.
        self.board.task.register(&mut self.registered, task);
        self.board.state.fetch_or(ATTENDED, Ordering::AcqRel);
    }

    /// Those that have rung since they were taken last. What is behind them is to be polled until it is pending.
    pub(crate) fn take(&self) -> Places {
        Places(self.board.state.swap(ATTENDED, Ordering::AcqRel) & !ATTENDED)
    }

    /// True: none has rung, and from now on who rings wakes the task. False: look again.
    pub(crate) fn rest(&self) -> bool {
        self.board.state.compare_exchange(ATTENDED, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl<const N: usize> Drop for Bells<N> {
    fn drop(&mut self) {
        self.board.task.forget();
    }
}

impl<const N: usize> fmt::Debug for Bells<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.board.state.load(Ordering::Acquire);
        f.debug_struct("Bells").field("rung", &Places(state & !ATTENDED)).finish_non_exhaustive()
    }
}

impl Places {
    pub(crate) const fn only(bell: usize) -> Places {
        Places(1 << bell)
    }

    pub(crate) fn has(self, bell: usize) -> bool {
        self.0 & Places::only(bell).0 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are among the first so many.
    pub(crate) fn first(self, bells: usize) -> Places {
        Places(self.0 & ((1 << bells) - 1))
    }

    pub(crate) fn insert(&mut self, bell: usize) {
        self.0 |= Places::only(bell).0;
    }

    pub(crate) fn remove(&mut self, bell: usize) {
        self.0 &= !Places::only(bell).0;
    }
}

impl BitOr for Places {
    type Output = Places;

    fn bitor(self, other: Places) -> Places {
        Places(self.0 | other.0)
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:b}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Task {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Bells that nothing has rung since they were taken, and the task that attends to them.
    fn attended() -> (Bells<3>, Arc<Task>) {
        let (mut bells, task) = (Bells::new(), Arc::new(Task::default()));
        bells.attend(&task.clone().into());
        assert_eq!(bells.take(), Bells::<3>::ALL, "nothing was polled");
        (bells, task)
    }

    #[test]
    fn what_has_rung_is_taken_once() {
        let (bells, _) = attended();
        assert!(bells.take().is_empty());
        bells.waker(0).wake_by_ref();
        bells.waker(2).wake_by_ref();
        bells.waker(2).wake_by_ref();
        let rung = bells.take();
        assert_eq!([0, 1, 2].map(|bell| rung.has(bell)), [true, false, true]);
        assert!(bells.take().is_empty());
        bells.ring_all();
        assert_eq!(bells.take(), Bells::<3>::ALL);
    }

    #[test]
    fn who_rings_while_the_task_attends_wakes_it_only_by_not_letting_it_rest() {
        let (mut bells, task) = attended();
        bells.waker(1).wake_by_ref();
        assert!(!bells.rest(), "it has rung");
        assert_eq!(bells.take(), Places::only(1));
        assert!(bells.rest());
        assert_eq!(task.woken(), 0);
        bells.waker(1).wake_by_ref();
        assert_eq!(task.woken(), 1, "the task rests");
        bells.waker(1).wake_by_ref();
        bells.waker(0).wake_by_ref();
        assert_eq!(task.woken(), 1, "it has not looked yet");
        bells.attend(&task.clone().into());
        assert_eq!(bells.take(), Places::only(0) | Places::only(1));
        assert!(bells.rest());
        bells.attend(&task.clone().into());
        bells.ring(Places::only(2));
        assert!(!bells.rest());
        assert_eq!((task.woken(), bells.take()), (1, Places::only(2)), "without a word");
    }

    #[test]
    fn whoever_comes_last_is_woken_and_nobody_when_they_are_gone() {
        let (mut bells, before) = attended();
        let task = Arc::new(Task::default());
        bells.attend(&task.clone().into());
        assert!(bells.rest());
        let waker = bells.waker(0).clone();
        waker.wake_by_ref();
        assert_eq!((before.woken(), task.woken()), (0, 1));
        bells.attend(&task.clone().into());
        bells.take();
        assert!(bells.rest());
        drop(bells);
        waker.wake_by_ref();
        assert_eq!((Arc::strong_count(&task), task.woken()), (1, 1));
    }

    /// Each of four threads says so many numbers behind its bell; the task looks only behind what has rung.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_lost_among_others() {
        const LAST: usize = 20_000;
        const LIMIT: Duration = Duration::from_secs(20);
        let said: Arc<[AtomicUsize; 4]> = Arc::default();
        let seen: Arc<[AtomicUsize; 4]> = Arc::default();
        let mut bells = Bells::<4>::new();
        let threads = [0, 1, 2, 3].map(|bell| {
            let (waker, said, seen) = (bells.waker(bell).clone(), said.clone(), seen.clone());
            std::thread::spawn(move || {
                let began = Instant::now();
                for n in 1..=LAST {
                    said[bell].store(n, Ordering::Release);
                    waker.wake_by_ref();
                    // Each of them matters: nobody else rings this one before it was seen.
                    while n % 16 == 0 && seen[bell].load(Ordering::Acquire) < n && began.elapsed() < LIMIT {
                        std::thread::yield_now();
                    }
                }
            })
        });
        let looking = poll_fn(|cx| {
            bells.attend(cx.waker());
            loop {
                let rung = bells.take();
                for bell in (0..4).filter(|bell| rung.has(*bell)) {
                    seen[bell].store(said[bell].load(Ordering::Acquire), Ordering::Release);
                }
                if seen.iter().all(|seen| seen.load(Ordering::Acquire) == LAST) {
                    return Poll::Ready(());
                }
                if bells.rest() {
                    return Poll::Pending;
                }
            }
        });
        tokio::time::timeout(LIMIT, looking).await.expect("a ring was lost");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
