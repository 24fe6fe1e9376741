//! Peers that are to be connected, and cannot be yet: [`WaitingRoom`].

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use crate::connection::{Signal, is_too_large};
use crate::id::PeerId;

/// Who waits, and with what.
///
/// A peer waits while the owner has not read of its former lives, while its former life says goodbye, as its offer
/// came too soon after the one before, or while the ICE servers for it are asked for. There is one entry for each peer: its last `PeerJoined`, or its last offer and
/// what came after it. At the most [`MAX_WAITING`] peers wait; one more is not connected, which is logged.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    peers: BTreeMap<PeerId, Waiting>,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) we_offer: bool,
    /// Its offer, then its candidates; empty if we offer, or if its offer has not come.
    pub(super) signals: Vec<Signal>,
    /// When it is looked at next.
    pub(super) not_before: Instant,
    /// Since when a former life is in the way.
    pub(super) blocked_since: Option<Instant>,
}

/// As many as a mesh has peers by default.
const MAX_WAITING: usize = 128;
/// As many as a connection keeps before the description they belong to.
const MAX_CANDIDATES: usize = 256;

impl WaitingRoom {
    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&Waiting> {
        self.peers.get(&peer)
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Waiting> {
        self.peers.remove(&peer)
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
    }

    /// Puts a peer in the place of its former entry.
    pub(super) fn put(&mut self, peer: PeerId, waiting: Waiting) {
        if self.peers.len() >= MAX_WAITING && !self.peers.contains_key(&peer) {
            tracing::warn!(%peer, "over {MAX_WAITING} peers wait to be connected; one is not");
        } else if waiting.signals.iter().any(is_too_large) {
            tracing::debug!(%peer, "an offer that is too large is ignored");
        } else {
            self.peers.insert(peer, waiting);
        }
    }

    /// Keeps a candidate that belongs to an offer that waits; gives back what does not.
    pub(super) fn keep(&mut self, peer: PeerId, signal: Signal) -> Option<Signal> {
        let Some(waiting) = self.peers.get_mut(&peer).filter(|waiting| !waiting.signals.is_empty()) else {
            return Some(signal);
        };
        if waiting.signals.len() > MAX_CANDIDATES || is_too_large(&signal) {
            tracing::debug!(%peer, "a candidate is ignored: there are too many, or it is too large");
        } else {
            waiting.signals.push(signal);
        }
        None
    }

    /// Looks at a peer that waits at another time.
    pub(super) fn look_at(&mut self, peer: PeerId, time: Instant) {
        if let Some(waiting) = self.peers.get_mut(&peer) {
            waiting.not_before = time;
        }
    }

    /// Whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<PeerId> {
        let due = self.peers.iter().filter(|(_, waiting)| waiting.not_before <= now);
        due.map(|(peer, _)| *peer).collect()
    }

    /// When somebody's time comes that has not come yet.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.peers.values().map(|waiting| waiting.not_before).filter(|time| *time > now).min()
    }
}

impl Waiting {
    pub(super) fn new(we_offer: bool, offer: Option<Signal>, not_before: Instant) -> Waiting {
        Waiting { we_offer, signals: offer.into_iter().collect(), not_before, blocked_since: None }
    }

    /// It waits for its former life to go; `None` once it has waited for longer than `limit`.
    pub(super) fn blocked(mut self, retry: Duration, limit: Duration) -> Option<Waiting> {
        let now = Instant::now();
        let since = *self.blocked_since.get_or_insert(now);
        self.not_before = now + retry;
        (now - since <= limit).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{IceCandidate, SdpKind, SessionDescription};

    fn id(n: u32) -> PeerId {
        PeerId::new(n).unwrap()
    }

    fn offer(bytes: usize) -> Option<Signal> {
        Some(Signal::Description(SessionDescription { kind: SdpKind::Offer, sdp: "x".repeat(bytes) }))
    }

    fn candidate(bytes: usize) -> Signal {
        let candidate = "x".repeat(bytes);
        Signal::Candidate(IceCandidate { candidate, sdp_mid: "0".to_owned(), sdp_mline_index: 0 })
    }

    #[test]
    fn what_waits_is_bounded() {
        let (mut room, now) = (WaitingRoom::default(), Instant::now());
        (1..=200).for_each(|n| room.put(id(n), Waiting::new(false, offer(10), now)));
        assert_eq!(room.due(now).len(), MAX_WAITING);
        assert!((0..1000).all(|_| room.keep(id(1), candidate(10)).is_none()));
        assert_eq!(room.remove(id(1)).unwrap().signals.len(), 1 + MAX_CANDIDATES);
        room.put(id(1), Waiting::new(false, offer(100_000), now));
        assert!(room.get(id(1)).is_none(), "too large");
        assert!(room.keep(id(2), candidate(2000)).is_none());
        assert_eq!(room.remove(id(2)).unwrap().signals.len(), 1, "too large");
    }

    #[test]
    fn candidates_wait_only_with_their_offer() {
        let (mut room, now) = (WaitingRoom::default(), Instant::now());
        assert_eq!(room.keep(id(1), candidate(1)), Some(candidate(1)));
        room.put(id(1), Waiting::new(false, None, now));
        assert_eq!(room.keep(id(1), candidate(1)), Some(candidate(1)));
        room.put(id(1), Waiting::new(false, offer(1), now));
        assert_eq!(room.keep(id(1), candidate(1)), None);
        room.put(id(1), Waiting::new(false, offer(2), now));
        assert_eq!(room.remove(id(1)).unwrap().signals, Vec::from_iter(offer(2)), "of the last offer");
    }
}
