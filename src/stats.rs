//! What a peer's link has carried and how it is: [`PeerStats`]. Plain data.

use std::ops::AddAssign;
use std::time::Duration;

use crate::packet::TransferMode;
use crate::report::CandidatePair;

/// A peer's link, at the moment of asking ([`MeshHandle::stats`](crate::MeshHandle::stats)).
///
/// The counters belong to one life of the peer: they are 0 when it is added, and never go back once it is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// For how long it has been connected; `None` while it connects.
    pub connected: Option<Duration>,
    /// The round trip, as in [`PeerInfo`](crate::PeerInfo).
    pub round_trip_time: Option<Duration>,
    /// What the mode [`Reliable`](TransferMode::Reliable) has carried.
    pub reliable: ModeStats,
    /// What the mode [`UnreliableOrdered`](TransferMode::UnreliableOrdered) has carried.
    pub unreliable_ordered: ModeStats,
    /// What the mode [`Unreliable`](TransferMode::Unreliable) has carried.
    pub unreliable: ModeStats,
    /// The pair of addresses that the link goes over; `None` until ICE has one.
    pub selected: Option<CandidatePair>,
    /// How many times ICE was restarted on this link (RFC 8445 section 9).
    pub restarts: u32,
}

/// What one transfer mode has carried, between this side and one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ModeStats {
    /// Handed to SCTP. That it has arrived it does not say.
    pub sent: Traffic,
    /// Arrived here, read or not, those among it that were shed afterwards.
    pub received: Traffic,
    /// Packets shed on the way out, as the link is slower than what was sent: the sum of
    /// [`Lagged`](crate::MeshEvent::Lagged) in that direction.
    pub shed_sending: u64,
    /// Packets shed on the way in, as the mesh is read too slowly: the same in this direction.
    pub shed_receiving: u64,
    /// What waits here to be handed to SCTP.
    pub queued: Traffic,
    /// Payload bytes that SCTP holds: neither acknowledged nor given up. `None` if that could not be learnt within
    /// 100 ms.
    pub sctp_bytes: Option<u64>,
}

/// Packets and the payload in them, without any overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// How many.
    pub packets: u64,
    /// Their payload, in bytes.
    pub bytes: u64,
}

impl PeerStats {
    /// What this mode has carried.
    pub fn mode(&self, mode: TransferMode) -> ModeStats {
        match mode {
            TransferMode::Reliable => self.reliable,
            TransferMode::UnreliableOrdered => self.unreliable_ordered,
            TransferMode::Unreliable => self.unreliable,
        }
    }

    /// What all modes have carried together.
    pub fn total(&self) -> ModeStats {
        let mut total = self.reliable;
        total += self.unreliable_ordered;
        total += self.unreliable;
        total
    }

    /// Whether the link goes through a TURN server, of ours or of the remote; `None` until ICE has a pair.
    pub fn is_relayed(&self) -> Option<bool> {
        self.selected.as_ref().map(CandidatePair::is_relayed)
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// For sums over modes or peers. What is not known of one is not known of the sum.
impl AddAssign for ModeStats {
    fn add_assign(&mut self, other: ModeStats) {
        self.sent += other.sent;
        self.received += other.received;
        self.shed_sending += other.shed_sending;
        self.shed_receiving += other.shed_receiving;
        self.queued += other.queued;
        self.sctp_bytes = self.sctp_bytes.zip(other.sctp_bytes).map(|(one, two)| one + two);
    }
}
