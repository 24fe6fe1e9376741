//! What a connection wants handed to the other side: a bounded queue, and the stream that takes from it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::Stream;

use super::description::{IceCandidate, SessionDescription, Signal};

/// Signals wait here from the making of the connection on, until a [`SignalStream`] takes them.
///
/// The description goes before its candidates, whichever is found first. At the most [`MAX_CANDIDATES`] candidates
/// wait; what is found beyond is dropped and logged, as a machine of so many addresses is reachable by the first ones.
#[derive(Debug, Default)]
pub(super) struct SignalQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Signal>,
    /// Candidates found before the description was made.
    early: VecDeque<IceCandidate>,
    /// All candidates since ICE was restarted, to be repeated.
    session: Vec<IceCandidate>,
    described: bool,
    closed: bool,
    /// The number of the stream that takes the signals; older ones have ended.
    stream: u64,
    waker: Option<Waker>,
}

/// As many as 60 interfaces have on host, server-reflexive and relayed addresses together.
pub(super) const MAX_CANDIDATES: usize = 256;

impl SignalQueue {
    pub(super) fn describe(&self, description: SessionDescription) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if std::mem::replace(&mut state.described, true) {
            // What was not taken yet is of a former session, or repeated now.
            state.ready.clear();
        }
        state.ready.push_back(Signal::Description(description));
        let early = std::mem::take(&mut state.early);
        state.ready.extend(early.into_iter().map(Signal::Candidate));
        state.wake();
    }

    /// ICE is restarted: what was found before is not repeated.
    pub(super) fn restart(&self) {
        self.lock().session.clear();
    }

    /// Puts a description again, and the candidates that followed it.
    pub(super) fn repeat(&self, description: SessionDescription) {
        let session = std::mem::take(&mut self.lock().session);
        self.describe(description);
        session.into_iter().for_each(|candidate| self.candidate(candidate));
    }

    pub(super) fn candidate(&self, candidate: IceCandidate) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.session.len() < MAX_CANDIDATES {
            state.session.push(candidate.clone());
        }
        if state.ready.len() + state.early.len() >= MAX_CANDIDATES {
            tracing::warn!("over {MAX_CANDIDATES} signals wait to be taken; a candidate is dropped");
        } else if state.described {
            state.ready.push_back(Signal::Candidate(candidate));
            state.wake();
        } else {
            state.early.push_back(candidate);
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ready.clear();
        state.early.clear();
        state.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What the other side must be handed, in this order; ends when the connection is closed.
///
/// Signals are kept from the making of the connection on, so a stream that is taken late misses nothing. One stream
/// at a time takes them: a newer one goes on where the older stopped, and the older ends.
pub struct SignalStream {
    queue: Arc<SignalQueue>,
    number: u64,
}

impl SignalStream {
    pub(super) fn new(queue: Arc<SignalQueue>) -> SignalStream {
        let number = {
            let mut state = queue.lock();
            state.stream += 1;
            state.wake();
            state.stream
        };
        SignalStream { queue, number }
    }
}

impl Stream for SignalStream {
    type Item = Signal;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Signal>> {
        let mut state = self.queue.lock();
        if state.stream != self.number {
            return Poll::Ready(None);
        }
        match state.ready.pop_front() {
            Some(signal) => Poll::Ready(Some(signal)),
            None if state.closed => Poll::Ready(None),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for SignalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::connection::description::SdpKind;

    fn candidate(n: usize) -> IceCandidate {
        IceCandidate { candidate: format!("candidate:{n}"), sdp_mid: "0".to_owned(), sdp_mline_index: 0 }
    }

    fn offer() -> SessionDescription {
        SessionDescription { kind: SdpKind::Offer, sdp: "v=0".to_owned() }
    }

    #[test]
    fn the_description_goes_before_candidates_that_were_found_earlier() {
        let queue = Arc::new(SignalQueue::default());
        let mut stream = SignalStream::new(queue.clone());
        queue.candidate(candidate(1));
        assert_eq!(stream.next().now_or_never(), None);
        queue.describe(offer());
        queue.candidate(candidate(2));
        for expected in
            [Signal::Description(offer()), Signal::Candidate(candidate(1)), Signal::Candidate(candidate(2))]
        {
            assert_eq!(stream.next().now_or_never(), Some(Some(expected)));
        }
        queue.close();
        assert_eq!(stream.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_newer_stream_goes_on_where_the_older_stopped() {
        let queue = Arc::new(SignalQueue::default());
        queue.describe(offer());
        queue.candidate(candidate(1));
        let mut older = SignalStream::new(queue.clone());
        assert_eq!(older.next().now_or_never(), Some(Some(Signal::Description(offer()))));
        let mut newer = SignalStream::new(queue.clone());
        assert_eq!(older.next().now_or_never(), Some(None));
        assert_eq!(newer.next().now_or_never(), Some(Some(Signal::Candidate(candidate(1)))));
        assert_eq!(newer.next().now_or_never(), None);
    }

    #[test]
    fn nothing_comes_out_of_a_closed_queue() {
        let queue = Arc::new(SignalQueue::default());
        let mut stream = SignalStream::new(queue.clone());
        queue.candidate(candidate(1));
        queue.close();
        queue.describe(offer());
        queue.candidate(candidate(2));
        assert_eq!(stream.next().now_or_never(), Some(None));
    }

    #[test]
    fn a_description_is_repeated_with_the_candidates_since_the_restart() {
        let queue = Arc::new(SignalQueue::default());
        let mut stream = SignalStream::new(queue.clone());
        queue.candidate(candidate(1));
        queue.restart();
        queue.describe(offer());
        queue.candidate(candidate(2));
        while stream.next().now_or_never().is_some() {}
        for _ in 0..2 {
            queue.repeat(offer());
            for expected in [Signal::Description(offer()), Signal::Candidate(candidate(2))] {
                assert_eq!(stream.next().now_or_never(), Some(Some(expected)));
            }
            assert_eq!(stream.next().now_or_never(), None);
        }
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let queue = Arc::new(SignalQueue::default());
        (0..10 * MAX_CANDIDATES).for_each(|n| queue.candidate(candidate(n)));
        queue.describe(offer());
        assert_eq!(queue.lock().ready.len(), MAX_CANDIDATES + 1);
    }
}
