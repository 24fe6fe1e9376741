//! What waits to be sent to one peer: three queues, filled by anyone who sends, emptied by the peer's task.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::control::cost;
use crate::packet::TransferMode;
use crate::task_waker::TaskWaker;

/// The queues of packets to one peer.
///
/// | queue | bound | when it is full |
/// |---|---|---|
/// | reliable | [`Bounds::reliable_bytes`] | `send` waits, `try_send` gives the packet back; a peer that stays so leaves with `TooSlow` |
/// | the two unreliable | [`Bounds::unreliable_bytes`] each | the oldest is shed and counted |
///
/// A bound counts each packet with its overhead ([`cost`]). The last packet may go over it, so that one of any size
/// fits into an empty queue.
#[derive(Debug)]
pub(crate) struct Outbox {
    bounds: Bounds,
    queues: Mutex<Queues>,
    /// Wakes the peer's task.
    pub(super) work: TaskWaker,
    /// Told when a quarter of a full reliable queue is free again, or the peer is gone.
    pub(crate) room: Notify,
}

/// How much may wait for one peer, in bytes of [`cost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) reliable_bytes: usize,
    pub(crate) unreliable_bytes: usize,
}

/// Why a packet cannot be taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The reliable queue is full.
    Full,
    /// The peer is not connected (any more).
    NotConnected,
    /// The payload is over this limit.
    TooLarge(usize),
}

/// The queues, locked. A broadcast locks those of all its targets, by ascending id, to fill all or none.
#[derive(Debug)]
pub(crate) struct Queues {
    accepting: bool,
    closed: bool,
    max_message_bytes: usize,
    packets: [VecDeque<Bytes>; 3],
    bytes: [usize; 3],
    /// Since when the reliable queue has been full without any progress.
    full_since: Option<Instant>,
    /// It was full, has room, and whoever waits does not know.
    owed: bool,
    /// Whoever polls for room, rather than waiting on `room`: the one `Sink` of the mesh.
    sink: Option<Waker>,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Outbox {
        let queues = Queues {
            accepting: false,
            closed: false,
            max_message_bytes: 0,
            packets: Default::default(),
            bytes: [0; 3],
            full_since: None,
            owed: false,
            sink: None,
        };
        Outbox { bounds, queues: Mutex::new(queues), work: TaskWaker::default(), room: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes packets from now on, unless it was closed already.
    pub(crate) fn open(&self, max_message_bytes: usize) {
        let mut queues = self.lock();
        queues.accepting = !queues.closed;
        queues.max_message_bytes = max_message_bytes;
    }

    /// Takes no more packets; what waits stays until it is sent. Whoever waits for room learns it.
    pub(crate) fn close(&self) {
        let mut queues = self.lock();
        (queues.accepting, queues.closed) = (false, true);
        self.tell_room(&mut queues);
    }

    /// Whether the packet could be pushed now.
    pub(crate) fn check(
        &self,
        queues: &Queues,
        mode: TransferMode,
        payload_bytes: usize,
    ) -> Result<(), Refusal> {
        if !queues.accepting {
            return Err(Refusal::NotConnected);
        }
        if payload_bytes > queues.max_message_bytes {
            return Err(Refusal::TooLarge(queues.max_message_bytes));
        }
        if mode == TransferMode::Reliable && self.is_full(queues) {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Adds a packet, over the bound or not, after `check`. Returns how many were shed for it.
    pub(crate) fn push(&self, queues: &mut Queues, mode: TransferMode, payload: Bytes) -> u64 {
        let index = mode.index();
        queues.bytes[index] += cost(payload.len());
        queues.packets[index].push_back(payload);
        let mut shed = 0;
        if mode != TransferMode::Reliable {
            while queues.bytes[index] > self.bounds.unreliable_bytes && queues.packets[index].len() > 1 {
                queues.pop(mode);
                shed += 1;
            }
        } else if self.is_full(queues) {
            queues.full_since.get_or_insert_with(Instant::now);
        }
        self.work.wake();
        shed
    }

    /// The next packet of this mode to send.
    pub(super) fn pop(&self, queues: &mut Queues, mode: TransferMode) -> Option<Bytes> {
        let before = queues.bytes[mode.index()];
        let packet = queues.pop(mode)?;
        if mode == TransferMode::Reliable {
            if queues.full_since.is_some() {
                // Progress: the stall limit starts again, and ends if there is room.
                queues.full_since = self.is_full(queues).then(Instant::now);
            }
            // Whoever waits is woken once for many packets, not for each: when a quarter is free, or the task rests.
            queues.owed |= before >= self.bounds.reliable_bytes;
            if queues.owed && queues.bytes[mode.index()] <= self.bounds.reliable_bytes / 4 * 3 {
                self.tell_room(queues);
            }
        }
        Some(packet)
    }

    /// The peer's task rests: whoever waits is woken for what room there is.
    pub(super) fn rest(&self, queues: &mut Queues) {
        if queues.owed && !self.is_full(queues) {
            self.tell_room(queues);
        }
    }

    /// Whether a reliable packet could be pushed; if not, `waker` is woken when one can, or when the peer is gone.
    pub(crate) fn has_room_or_wake(&self, waker: &Waker) -> bool {
        let mut queues = self.lock();
        if queues.accepting && self.is_full(&queues) {
            queues.sink = Some(waker.clone());
            return false;
        }
        true
    }

    fn is_full(&self, queues: &Queues) -> bool {
        queues.bytes[TransferMode::Reliable.index()] >= self.bounds.reliable_bytes
    }

    fn tell_room(&self, queues: &mut Queues) {
        queues.owed = false;
        self.room.notify_waiters();
        if let Some(sink) = queues.sink.take() {
            sink.wake();
        }
    }
}

impl Queues {
    fn pop(&mut self, mode: TransferMode) -> Option<Bytes> {
        let packet = self.packets[mode.index()].pop_front()?;
        self.bytes[mode.index()] -= cost(packet.len());
        Some(packet)
    }

    /// Packets of this mode that wait.
    pub(crate) fn waiting(&self, mode: TransferMode) -> usize {
        self.packets[mode.index()].len()
    }

    /// The same, in bytes of [`cost`].
    pub(crate) fn waiting_bytes(&self, mode: TransferMode) -> usize {
        self.bytes[mode.index()]
    }

    /// What left it before has made progress: the stall limit starts again.
    pub(super) fn make_progress(&mut self) {
        self.full_since = self.full_since.map(|_| Instant::now());
    }

    /// Since when the reliable queue has been full without any progress.
    pub(super) fn full_since(&self) -> Option<Instant> {
        self.full_since
    }
}

#[cfg(test)]
mod tests {
    use TransferMode::{Reliable, Unreliable};
    use futures::FutureExt as _;
    use tokio::time::{Duration, advance};

    use super::*;

    fn outbox() -> Outbox {
        let outbox = Outbox::new(Bounds { reliable_bytes: cost(10) * 3, unreliable_bytes: cost(10) * 3 });
        outbox.open(1000);
        outbox
    }

    fn push(outbox: &Outbox, mode: TransferMode, n: u8) -> u64 {
        outbox.push(&mut outbox.lock(), mode, vec![n; 10].into())
    }

    #[test]
    fn reliable_fills_up_and_unreliable_sheds_the_oldest() {
        let outbox = outbox();
        for n in 0..3 {
            assert_eq!(outbox.check(&outbox.lock(), Reliable, 10), Ok(()));
            push(&outbox, Reliable, n);
        }
        assert_eq!(outbox.check(&outbox.lock(), Reliable, 10), Err(Refusal::Full));
        assert_eq!((0..5).map(|n| push(&outbox, Unreliable, n)).sum::<u64>(), 2);
        let mut queues = outbox.lock();
        assert_eq!(outbox.pop(&mut queues, Unreliable).unwrap()[0], 2, "the oldest were shed");
        assert_eq!(outbox.pop(&mut queues, Reliable).unwrap()[0], 0, "none was shed");
        assert_eq!(outbox.check(&queues, Reliable, 10), Ok(()));
    }

    #[test]
    fn a_packet_of_any_size_fits_into_an_empty_queue() {
        let outbox = Outbox::new(Bounds { reliable_bytes: 1, unreliable_bytes: 1 });
        outbox.open(1000);
        for mode in TransferMode::ALL {
            assert_eq!(outbox.check(&outbox.lock(), mode, 1000), Ok(()));
            assert_eq!(outbox.push(&mut outbox.lock(), mode, vec![0; 1000].into()), 0);
        }
    }

    #[test]
    fn too_large_is_said_before_full_and_not_connected_before_both() {
        let outbox = outbox();
        (0..3).for_each(|n| assert_eq!(push(&outbox, Reliable, n), 0));
        assert_eq!(outbox.check(&outbox.lock(), Reliable, 1001), Err(Refusal::TooLarge(1000)));
        outbox.close();
        assert_eq!(outbox.check(&outbox.lock(), Reliable, 1001), Err(Refusal::NotConnected));
    }

    #[test]
    fn whoever_waits_is_woken_once_for_many_packets_and_at_the_latest_when_the_task_rests() {
        let outbox = Outbox::new(Bounds { reliable_bytes: cost(10) * 8, unreliable_bytes: 1 });
        outbox.open(1000);
        (0..8).for_each(|n| assert_eq!(push(&outbox, Reliable, n), 0));
        let woken = || {
            let mut room = Box::pin(outbox.room.notified());
            room.as_mut().enable();
            room
        };
        let mut waiting = woken();
        outbox.pop(&mut outbox.lock(), Reliable);
        assert!((&mut waiting).now_or_never().is_none(), "an eighth is free");
        outbox.rest(&mut outbox.lock());
        assert!(waiting.now_or_never().is_some());
        assert_eq!(push(&outbox, Reliable, 9), 0);
        let mut waiting = woken();
        outbox.pop(&mut outbox.lock(), Reliable);
        assert!((&mut waiting).now_or_never().is_none());
        outbox.pop(&mut outbox.lock(), Reliable);
        assert!(waiting.now_or_never().is_some(), "a quarter is free");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_being_full_starts_again_with_every_progress() {
        let outbox = outbox();
        (0..4).for_each(|n| assert_eq!(push(&outbox, Reliable, n), 0));
        let full = outbox.lock().full_since().unwrap();
        advance(Duration::from_secs(5)).await;
        outbox.pop(&mut outbox.lock(), Reliable);
        assert_eq!(outbox.lock().full_since().unwrap() - full, Duration::from_secs(5), "still full");
        outbox.pop(&mut outbox.lock(), Reliable);
        assert_eq!(outbox.lock().full_since(), None);
    }
}
