//! Everything that waits to be read from a mesh: packets, fairly between peers, and membership events in their place.
//!
//! A membership event divides time: packets that arrived before it are read before it, and those that arrived after
//! it, after it. Between two of them, the peers take turns, a packet each, so one that floods delays another's
//! packet by one packet. Within a peer, packets are read in the order of arrival.
//!
//! | what waits | bound | beyond it |
//! |---|---|---|
//! | reliable packets of a peer | its window, in bytes | the peer gets no more credit, or is not read |
//! | unreliable packets of a peer | a bound in bytes | the oldest is shed and counted |
//! | `PeerUnstable` and `PeerRecovered` of a peer, `SignalingLost` and `SignalingRestored` | [`MAX_UNREAD_WAVERING`] | later pairs are left out |
//! | ended lives, of a peer and in all | [`MAX_UNREAD_LIVES_OF_A_PEER`], [`MAX_UNREAD_LIVES`] | new ones are not admitted until some are read |

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::sync::Notify;

use crate::event::{DisconnectReason, MeshEvent, PeerFailure};
use crate::id::PeerId;
use crate::packet::{Packet, TransferMode};
use crate::peer::control::cost;
use crate::peer::{Backlog, Delivery, Life};

/// A peer that flaps while nobody reads has this many lives on record.
pub(crate) const MAX_UNREAD_LIVES_OF_A_PEER: u32 = 4;
/// Many peers that flap have this many in all.
pub(crate) const MAX_UNREAD_LIVES: u32 = 1024;

/// A peer, or signalling, that wavers while nobody reads has this many events of it on record; later pairs are left
/// out.
pub(crate) const MAX_UNREAD_WAVERING: u32 = 8;

/// The queue between the peers and whoever reads the mesh.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    /// Told when an ended life was read.
    pub(crate) life_read: Notify,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<Life, LaneState>,
    /// Lanes with something to read, in the order of their turns.
    turns: VecDeque<Life>,
    book: Book,
    unread: HashMap<PeerId, u32>,
    unread_total: u32,
    /// For each peer, and for signalling (`None`), the events that wait of those that come in pairs, and whether the
    /// last put was the first of a pair.
    wavering: HashMap<Option<PeerId>, (u32, bool)>,
    reader: Option<Waker>,
    /// Nothing will come any more; `None` when all is read.
    finished: bool,
    /// The reader is gone; nothing is kept.
    deaf: bool,
}

/// The membership events, and how many items are to be read around them.
#[derive(Debug, Default)]
struct Book {
    /// Each with the number of items that are to be read before it, and after the one before it.
    membership: VecDeque<(usize, Entry)>,
    /// Items after the last membership event.
    tail: usize,
    /// The number of the first membership event in the queue, counted from the beginning.
    first: u64,
}

#[derive(Debug)]
enum Entry {
    Event(MeshEvent),
    /// An event that ends a life.
    End(Option<Life>, PeerId, MeshEvent),
}

#[derive(Debug)]
struct LaneState {
    lane: Arc<Lane>,
    peer: PeerId,
    /// Not announced: what arrives is held.
    held: bool,
    over: bool,
    reliable: VecDeque<Item>,
    unreliable: VecDeque<Item>,
    unreliable_bytes: usize,
    arrivals: u64,
    /// Shed and not reported, by mode, and where the report has its place.
    shed: [u64; 3],
    report: Option<Place>,
    /// The cost of all reliable packets that were read.
    read: u64,
    /// Whether it is in `turns`.
    queued: bool,
}

#[derive(Debug)]
struct Item {
    place: Place,
    mode: TransferMode,
    payload: Bytes,
}

/// When something of a lane is to be read.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// How many membership events there had been.
    epoch: u64,
    /// How many items had arrived in this lane.
    arrival: u64,
}

/// The end of the inbox that one life of a peer fills. First, what each packet looks at.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Lane {
    life: Life,
    inbox: Arc<Inbox>,
    /// What the task asks for when it is woken for it, without the lock: the cost of all reliable packets that were read,
    /// and of those when it was told last.
    read: AtomicU64,
    told: AtomicU64,
    /// Wakes the peer's task.
    waker: AtomicWaker,
    /// Unreliable packets are shed here: the reader does not keep up.
    shedding: AtomicBool,
    unreliable_bound: usize,
    /// Packets that were shed, as they were not read, by mode.
    shed: [AtomicU64; 3],
}

/// The peer's task learns of what was read in steps of this many bytes: a fraction of the smallest window.
const TELL_EVERY_BYTES: u64 = 64 * 1024;

impl Inbox {
    /// A lane for a life that begins. What it brings is held until it is announced.
    pub(crate) fn lane(self: &Arc<Self>, life: Life, peer: PeerId, unreliable_bound: usize) -> Arc<Lane> {
        let lane = Arc::new(Lane {
            life,
            inbox: self.clone(),
            unreliable_bound,
            waker: AtomicWaker::new(),
            shed: Default::default(),
            read: AtomicU64::new(0),
            told: AtomicU64::new(0),
            shedding: AtomicBool::new(false),
        });
        let state = LaneState {
            lane: lane.clone(),
            peer,
            held: true,
            over: false,
            reliable: VecDeque::new(),
            unreliable: VecDeque::new(),
            unreliable_bytes: 0,
            arrivals: 0,
            shed: [0; 3],
            report: None,
            read: 0,
            queued: false,
        };
        self.lock().lanes.insert(life, state);
        lane
    }

    /// Puts an event that concerns no life's beginning or end.
    pub(crate) fn event(&self, event: MeshEvent) {
        let mut state = self.lock();
        if let Some((who, first)) = half_of_a_pair(&event) {
            let (waiting, was_first) = state.wavering.entry(who).or_default();
            // Both of a pair are put, or none.
            if if first { *waiting >= MAX_UNREAD_WAVERING } else { !*was_first } {
                return;
            }
            *waiting += 1;
            *was_first = first;
        }
        state.member(Entry::Event(event));
    }

    /// Signalling is gone for good, whatever was said of it before. Put once.
    pub(crate) fn signaling_is_gone(&self) {
        self.lock().member(Entry::Event(MeshEvent::SignalingLost));
    }

    /// Puts the peer's `PeerConnected`, and what was held after it.
    pub(crate) fn announce(&self, life: Life, peer: PeerId) {
        let mut state = self.lock();
        state.member(Entry::Event(MeshEvent::PeerConnected(peer)));
        let State { lanes, turns, book, .. } = &mut *state;
        let epoch = book.epoch();
        let Some(lane) = lanes.get_mut(&life) else { return };
        lane.held = false;
        let items = lane.reliable.iter_mut().chain(&mut lane.unreliable);
        let mut count = items.map(|item| item.place.epoch = epoch).count();
        if lane.shed != [0; 3] {
            lane.report = Some(Place { epoch, arrival: 0 });
            count += 1;
        }
        if count > 0 {
            lane.queued = true;
            turns.push_back(life);
            book.tail += count;
        }
    }

    /// Ends an announced life: its packets, then `PeerDisconnected`. No packet of it is taken any more.
    pub(crate) fn end(&self, life: Life, peer: PeerId, reason: DisconnectReason) {
        let mut state = self.lock();
        if let Some(lane) = state.lanes.get_mut(&life) {
            lane.over = true;
        }
        if let Some((_, unstable)) = state.wavering.get_mut(&Some(peer)) {
            *unstable = false;
        }
        state.member(Entry::End(Some(life), peer, MeshEvent::PeerDisconnected(peer, reason)));
    }

    /// Ends a life that was never connected.
    pub(crate) fn fail(&self, life: Life, peer: PeerId, failure: PeerFailure) {
        let mut state = self.lock();
        state.lanes.remove(&life);
        state.member(Entry::End(None, peer, MeshEvent::PeerFailed(peer, failure)));
    }

    /// Ends a life that was never announced, in silence.
    pub(crate) fn forget(&self, life: Life) {
        self.lock().lanes.remove(&life);
    }

    /// Nothing will come any more: after what waits, the reader gets `None`.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.finished = true;
        // A peer's task that outlives the mesh's by a moment has nobody to deliver to.
        state.lanes.values_mut().for_each(|lane| lane.over = true);
        state.wake();
    }

    /// Nobody will read any more: what waits is dropped, and what comes.
    pub(crate) fn deafen(&self) {
        let mut state = self.lock();
        state.deaf = true;
        state.turns.clear();
        state.book = Book::default();
        state.lanes.clear();
        state.unread.clear();
        state.unread_total = 0;
        drop(state);
        self.life_read.notify_waiters();
    }

    /// Whether a new life of this peer can be put on record.
    pub(crate) fn admits(&self, peer: PeerId) -> bool {
        let state = self.lock();
        state.unread_total < MAX_UNREAD_LIVES
            && state.unread.get(&peer).is_none_or(|lives| *lives < MAX_UNREAD_LIVES_OF_A_PEER)
    }

    /// The next event; `None` after the end.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<MeshEvent>> {
        let mut state = self.lock();
        let (event, told) = match state.next() {
            Some(next) => next,
            None if state.finished => return Poll::Ready(None),
            None => {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        drop(state);
        match told {
            Told::Lane(lane) => lane.waker.wake(),
            Told::LifeRead => self.life_read.notify_waiters(),
            Told::Nobody => {}
        }
        Poll::Ready(Some(event))
    }

    /// Whether the end was read.
    #[cfg(test)]
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.finished && state.turns.is_empty() && state.book.membership.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom an event that comes in pairs is of, `None` standing for signalling, and whether it is the first of its pair.
fn half_of_a_pair(event: &MeshEvent) -> Option<(Option<PeerId>, bool)> {
    match event {
        MeshEvent::PeerUnstable(peer) => Some((Some(*peer), true)),
        MeshEvent::PeerRecovered(peer) => Some((Some(*peer), false)),
        MeshEvent::SignalingLost => Some((None, true)),
        MeshEvent::SignalingRestored => Some((None, false)),
        _ => None,
    }
}

/// Who is told that something was read, after the lock is given back.
enum Told {
    Lane(Arc<Lane>),
    LifeRead,
    Nobody,
}

impl Book {
    /// The number of membership events so far.
    fn epoch(&self) -> u64 {
        self.first + self.membership.len() as u64
    }

    /// One item more to read, now.
    fn count(&mut self) -> u64 {
        self.tail += 1;
        self.epoch()
    }

    /// An item of this epoch is read, or is not to be read any more.
    fn uncount(&mut self, epoch: u64) {
        let place = usize::try_from(epoch.saturating_sub(self.first)).unwrap_or(usize::MAX);
        match self.membership.get_mut(place) {
            Some((before, _)) => *before -= 1,
            None => self.tail -= 1,
        }
    }
}

impl State {
    fn member(&mut self, entry: Entry) {
        if self.deaf {
            return;
        }
        if let Entry::End(_, peer, _) = &entry {
            *self.unread.entry(*peer).or_default() += 1;
            self.unread_total += 1;
        }
        let before = std::mem::take(&mut self.book.tail);
        self.book.membership.push_back((before, entry));
        self.wake();
    }

    fn next(&mut self) -> Option<(MeshEvent, Told)> {
        match self.book.membership.front() {
            Some((0, _)) => self.next_membership(),
            _ => self.next_item(self.book.first),
        }
    }

    fn next_membership(&mut self) -> Option<(MeshEvent, Told)> {
        let (_, entry) = self.book.membership.pop_front()?;
        self.book.first += 1;
        match entry {
            Entry::Event(event) => {
                if let Some((who, _)) = half_of_a_pair(&event)
                    && let Some((waiting, _)) = self.wavering.get_mut(&who)
                {
                    *waiting = waiting.saturating_sub(1);
                }
                Some((event, Told::Nobody))
            }
            Entry::End(life, peer, event) => {
                if let Some(life) = life {
                    self.lanes.remove(&life);
                }
                // A later life of the peer may be wavering already.
                if self.wavering.get(&Some(peer)).is_some_and(|(waiting, first)| *waiting == 0 && !first) {
                    self.wavering.remove(&Some(peer));
                }
                if let Some(lives) = self.unread.get_mut(&peer) {
                    *lives -= 1;
                    if *lives == 0 {
                        self.unread.remove(&peer);
                    }
                }
                self.unread_total = self.unread_total.saturating_sub(1);
                Some((event, Told::LifeRead))
            }
        }
    }

    /// The next packet, or report of shed ones, of the epoch that is being read.
    fn next_item(&mut self, epoch: u64) -> Option<(MeshEvent, Told)> {
        for _ in 0..self.turns.len() {
            let life = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&life) else { continue };
            let taken = lane.take(epoch);
            if lane.is_empty() {
                lane.queued = false;
            } else {
                self.turns.push_back(life);
            }
            if let Some((event, told, counted)) = taken {
                if counted {
                    self.book.uncount(epoch);
                }
                return Some((event, told));
            }
        }
        None
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl LaneState {
    fn is_empty(&self) -> bool {
        self.reliable.is_empty() && self.unreliable.is_empty() && self.report.is_none()
    }

    /// `arrival` is that of the item that the report goes before.
    fn count_shed(&mut self, book: &mut Book, mode: TransferMode, dropped: u64, arrival: u64) {
        self.shed[mode.index()] += dropped;
        if !self.held && self.report.is_none() {
            self.report = Some(Place { epoch: book.count(), arrival });
        }
    }

    /// What comes first of this epoch, and whether it used up a place that was counted.
    fn take(&mut self, epoch: u64) -> Option<(MeshEvent, Told, bool)> {
        let now = |place: Place| (place.epoch == epoch).then_some(place.arrival);
        let first = |queue: &VecDeque<Item>| queue.front().and_then(|item| now(item.place));
        let (reliable, unreliable) = (first(&self.reliable), first(&self.unreliable));
        let packet = reliable.into_iter().chain(unreliable).min();
        match (self.report.and_then(now), packet) {
            // The report has its place among the packets: one that always went first would leave no turn for them.
            (Some(report), packet) if packet.is_none_or(|packet| report <= packet) => self.take_report(),
            (_, None) => None,
            (_, Some(packet)) => self.take_packet(reliable == Some(packet)),
        }
    }

    fn take_report(&mut self) -> Option<(MeshEvent, Told, bool)> {
        let mode = TransferMode::ALL.into_iter().find(|mode| self.shed[mode.index()] > 0)?;
        let dropped = std::mem::take(&mut self.shed[mode.index()]);
        let last = self.shed == [0; 3];
        if last {
            self.report = None;
        }
        Some((MeshEvent::Lagged { peer: self.peer, mode, dropped }, Told::Nobody, last))
    }

    fn take_packet(&mut self, reliable: bool) -> Option<(MeshEvent, Told, bool)> {
        let queue = if reliable { &mut self.reliable } else { &mut self.unreliable };
        let item = queue.pop_front()?;
        let bytes = cost(item.payload.len());
        let tell = if reliable {
            self.read += bytes as u64;
            self.lane.read.store(self.read, Ordering::Release);
            let tell = self.read - self.lane.told.load(Ordering::Acquire) >= TELL_EVERY_BYTES;
            if tell {
                self.lane.told.store(self.read, Ordering::Release);
            }
            tell
        } else {
            self.unreliable_bytes -= bytes;
            // It takes more when half of it is read, not at every packet.
            let enough = self.unreliable_bytes <= self.lane.unreliable_bound / 2;
            enough && self.lane.shedding.swap(false, Ordering::AcqRel)
        };
        let told = if tell { Told::Lane(self.lane.clone()) } else { Told::Nobody };
        let packet = Packet { from: self.peer, mode: item.mode, payload: item.payload };
        Some((MeshEvent::Packet(packet), told, true))
    }
}

impl Lane {
    /// Changes the lane, unless its life is over, and gives it its turn if there is something to read.
    fn with(&self, change: impl FnOnce(&mut LaneState, &mut Book)) {
        let mut state = self.inbox.lock();
        let State { lanes, turns, book, .. } = &mut *state;
        let Some(lane) = lanes.get_mut(&self.life).filter(|lane| !lane.over) else { return };
        change(lane, book);
        if lane.held || lane.is_empty() {
            return;
        }
        if !lane.queued {
            lane.queued = true;
            turns.push_back(self.life);
        }
        state.wake();
    }
}

impl Delivery for Lane {
    fn deliver(&self, mode: TransferMode, payload: Bytes) {
        let mut sheds = false;
        self.with(|lane, book| {
            let bytes = cost(payload.len());
            let epoch = if lane.held { 0 } else { book.count() };
            lane.arrivals += 1;
            let item = Item { place: Place { epoch, arrival: lane.arrivals }, mode, payload };
            if mode == TransferMode::Reliable {
                lane.reliable.push_back(item);
                return;
            }
            lane.unreliable.push_back(item);
            lane.unreliable_bytes += bytes;
            while lane.unreliable_bytes > self.unreliable_bound && lane.unreliable.len() > 1 {
                let Some(oldest) = lane.unreliable.pop_front() else { break };
                lane.unreliable_bytes -= cost(oldest.payload.len());
                if !lane.held {
                    book.uncount(oldest.place.epoch);
                }
                lane.count_shed(book, oldest.mode, 1, lane.arrivals);
                self.shed[oldest.mode.index()].fetch_add(1, Ordering::Relaxed);
                sheds |= !lane.lane.shedding.swap(true, Ordering::AcqRel);
            }
        });
        if sheds {
            self.waker.wake();
        }
    }

    fn forget(&self) {
        self.with(|lane, _| {
            if lane.held {
                lane.reliable.clear();
                lane.unreliable.clear();
                lane.unreliable_bytes = 0;
                lane.shed = [0; 3];
                // Else the remote would hold back what nobody sheds any more.
                lane.lane.shedding.store(false, Ordering::Release);
                self.shed.iter().for_each(|shed| shed.store(0, Ordering::Relaxed));
            }
        });
    }

    fn shed_receiving(&self) -> [u64; 3] {
        [0, 1, 2].map(|mode: usize| self.shed[mode].load(Ordering::Relaxed))
    }

    fn shed(&self, mode: TransferMode, dropped: u64) {
        if dropped > 0 {
            self.with(|lane, book| lane.count_shed(book, mode, dropped, lane.arrivals + 1));
        }
    }

    fn backlog(&self, waker: &Waker) -> Backlog {
        self.waker.register(waker);
        let read = self.read.load(Ordering::Acquire);
        self.told.store(read, Ordering::Release);
        Backlog { read, shedding: self.shedding.load(Ordering::Acquire) }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn id(n: u32) -> PeerId {
        PeerId::new(n).unwrap()
    }

    fn reader(inbox: &Arc<Inbox>) -> impl FnMut() -> Option<Option<MeshEvent>> + use<> {
        let inbox = inbox.clone();
        move || std::future::poll_fn(|cx| inbox.poll_next(cx)).now_or_never()
    }

    fn said(event: Option<Option<MeshEvent>>) -> String {
        match event {
            None => "nothing yet".to_owned(),
            Some(None) => "the end".to_owned(),
            Some(Some(MeshEvent::Packet(packet))) => {
                format!("{}: {}", packet.from, String::from_utf8_lossy(&packet.payload))
            }
            Some(Some(MeshEvent::PeerConnected(peer))) => format!("+{peer}"),
            Some(Some(MeshEvent::PeerDisconnected(peer, _))) => format!("-{peer}"),
            Some(Some(MeshEvent::Lagged { peer, dropped, .. })) => format!("{peer} lost {dropped}"),
            Some(Some(other)) => format!("{other:?}"),
        }
    }

    fn expect(read: &mut impl FnMut() -> Option<Option<MeshEvent>>, expected: &[&str]) {
        for expected in expected {
            assert_eq!(said(read()), *expected);
        }
        assert_eq!(said(read()), "nothing yet");
    }

    const BOUND: usize = 10_000;

    fn connected(inbox: &Arc<Inbox>, n: u32) -> Arc<Lane> {
        let lane = inbox.lane(Life(n.into()), id(n), BOUND);
        inbox.announce(Life(n.into()), id(n));
        lane
    }

    #[test]
    fn packets_before_the_announcement_come_after_it() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let lane = inbox.lane(Life(1), id(1), BOUND);
        lane.deliver(TransferMode::Reliable, "early".into());
        expect(&mut read, &[]);
        inbox.announce(Life(1), id(1));
        lane.deliver(TransferMode::Reliable, "late".into());
        expect(&mut read, &["+1", "1: early", "1: late"]);
    }

    #[test]
    fn membership_events_keep_their_place_among_the_packets() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let one = connected(&inbox, 1);
        one.deliver(TransferMode::Reliable, "a".into());
        let two = connected(&inbox, 2);
        two.deliver(TransferMode::Unreliable, "b".into());
        one.deliver(TransferMode::Reliable, "c".into());
        inbox.end(Life(2), id(2), DisconnectReason::RemoteClose);
        two.deliver(TransferMode::Reliable, "after the end".into());
        one.deliver(TransferMode::Reliable, "d".into());
        inbox.finish();
        for expected in ["+1", "1: a", "+2", "2: b", "1: c", "-2", "1: d", "the end", "the end"] {
            assert_eq!(said(read()), expected);
        }
    }

    #[test]
    fn peers_take_turns_and_a_peer_keeps_its_order() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let (one, two) = (connected(&inbox, 1), connected(&inbox, 2));
        for n in ["a", "b", "c"] {
            one.deliver(TransferMode::Reliable, n.into());
        }
        one.deliver(TransferMode::Unreliable, "d".into());
        two.deliver(TransferMode::Reliable, "x".into());
        expect(&mut read, &["+1", "+2", "1: a", "2: x", "1: b", "1: c", "1: d"]);
    }

    #[test]
    fn unreliable_packets_are_shed_oldest_first_and_counted() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let lane = inbox.lane(Life(1), id(1), cost(1) * 2);
        inbox.announce(Life(1), id(1));
        lane.deliver(TransferMode::Unreliable, "a".into());
        inbox.event(MeshEvent::SignalingLost);
        for n in ["b", "c", "d"] {
            lane.deliver(TransferMode::Unreliable, n.into());
        }
        assert!(lane.backlog(Waker::noop()).shedding);
        expect(&mut read, &["+1", "SignalingLost", "1 lost 2", "1: c", "1: d"]);
        assert!(!lane.backlog(Waker::noop()).shedding);
        lane.shed(TransferMode::Unreliable, 7);
        expect(&mut read, &["1 lost 7"]);
    }

    /// A report at every turn would leave none for the packets.
    #[test]
    fn what_is_shed_all_the_time_does_not_keep_the_packets_waiting() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let lane = connected(&inbox, 1);
        for n in ["a", "b", "c"] {
            lane.deliver(TransferMode::Reliable, n.into());
        }
        let mut packets = Vec::new();
        for _ in 0..8 {
            lane.shed(TransferMode::Unreliable, 1);
            packets.extend(Some(said(read())).filter(|said| said.starts_with("1: ")));
        }
        assert_eq!(packets, ["1: a", "1: b", "1: c"]);
    }

    #[test]
    fn a_peer_that_wavers_while_nobody_reads_is_bounded_and_stays_in_pairs() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        connected(&inbox, 1);
        assert_eq!(said(read()), "+1");
        for _ in 0..100 {
            inbox.event(MeshEvent::PeerUnstable(id(1)));
            inbox.event(MeshEvent::PeerRecovered(id(1)));
        }
        let mut events = Vec::new();
        while let Some(Some(event)) = read() {
            events.push(event);
        }
        assert_eq!(events.len(), MAX_UNREAD_WAVERING as usize);
        assert!(
            events
                .chunks(2)
                .all(|pair| { pair == [MeshEvent::PeerUnstable(id(1)), MeshEvent::PeerRecovered(id(1))] })
        );
        inbox.event(MeshEvent::PeerUnstable(id(1)));
        assert_eq!(said(read()), "PeerUnstable(PeerId(1))", "and goes on when it is read");
    }

    #[test]
    fn the_end_of_a_former_life_leaves_the_wavering_of_the_next_alone() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        connected(&inbox, 1);
        inbox.end(Life(1), id(1), DisconnectReason::RemoteClose);
        let _lane = inbox.lane(Life(2), id(1), BOUND);
        inbox.announce(Life(2), id(1));
        inbox.event(MeshEvent::PeerUnstable(id(1)));
        while let Some(Some(_)) = read() {}
        inbox.event(MeshEvent::PeerRecovered(id(1)));
        assert_eq!(said(read()), "PeerRecovered(PeerId(1))");
    }

    #[test]
    fn signalling_that_wavers_while_nobody_reads_is_bounded_and_its_end_is_told() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        for _ in 0..100 {
            inbox.event(MeshEvent::SignalingLost);
            inbox.event(MeshEvent::SignalingRestored);
        }
        inbox.signaling_is_gone();
        let mut events = Vec::new();
        while let Some(Some(event)) = read() {
            events.push(event);
        }
        assert_eq!(events.len(), MAX_UNREAD_WAVERING as usize + 1);
        assert_eq!(events.last(), Some(&MeshEvent::SignalingLost));
    }

    #[test]
    fn what_came_by_a_connection_that_never_was_up_is_forgotten() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let lane = inbox.lane(Life(1), id(1), BOUND);
        lane.deliver(TransferMode::Reliable, "of the attempt before".into());
        for _ in 0..=BOUND / cost(100) {
            lane.deliver(TransferMode::Unreliable, vec![0; 100].into());
        }
        assert!(lane.backlog(Waker::noop()).shedding);
        lane.forget();
        assert!(!lane.backlog(Waker::noop()).shedding);
        inbox.announce(Life(1), id(1));
        lane.deliver(TransferMode::Reliable, "of this one".into());
        lane.forget();
        expect(&mut read, &["+1", "1: of this one"]);
    }

    #[test]
    fn what_was_read_is_metered() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        let lane = connected(&inbox, 1);
        lane.deliver(TransferMode::Reliable, vec![0; 1000].into());
        assert_eq!(lane.backlog(Waker::noop()).read, 0);
        while said(read()) != "nothing yet" {}
        assert_eq!(lane.backlog(Waker::noop()).read, cost(1000) as u64);
    }

    #[test]
    fn lives_that_nobody_reads_are_bounded() {
        let inbox = Arc::new(Inbox::default());
        let mut read = reader(&inbox);
        for life in 0..MAX_UNREAD_LIVES_OF_A_PEER {
            assert!(inbox.admits(id(1)));
            inbox.lane(Life(life.into()), id(1), BOUND);
            inbox.announce(Life(life.into()), id(1));
            inbox.end(Life(life.into()), id(1), DisconnectReason::RemoteClose);
        }
        assert!(!inbox.admits(id(1)));
        assert!(inbox.admits(id(2)));
        assert_eq!(said(read()), "+1");
        assert!(!inbox.admits(id(1)));
        let mut told = Box::pin(inbox.life_read.notified());
        told.as_mut().enable();
        assert_eq!(said(read()), "-1");
        assert!(inbox.admits(id(1)));
        assert!(told.now_or_never().is_some());
    }

    #[test]
    fn a_life_that_is_forgotten_leaves_nothing() {
        let inbox = Arc::new(Inbox::default());
        let lane = inbox.lane(Life(1), id(1), BOUND);
        lane.deliver(TransferMode::Reliable, "held".into());
        inbox.forget(Life(1));
        inbox.finish();
        assert_eq!(said(reader(&inbox)()), "the end");
        assert!(inbox.lock().lanes.is_empty());
    }
}
