//! How a peer's link is: [`MeshHandle::stats`].

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handle::{Entry, MeshHandle};
use crate::id::PeerId;
use crate::packet::TransferMode;
use crate::peer::Delivery as _;
use crate::peer::control::cost;
use crate::stats::{ModeStats, PeerStats, Traffic};

/// SCTP answers at once, unless the connection's driver is stuck.
const MEASURE_LIMIT: Duration = Duration::from_millis(100);

impl MeshHandle {
    /// What a peer's link has carried, and how it is; `None` if there is no such peer. Takes 100 ms at the most.
    ///
    /// Counting costs the packets next to nothing, and asking costs the peer nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn stats(&self, peer: PeerId) -> Option<PeerStats> {
        let entry = self.shared.registry().get(&peer).cloned()?;
        let sctp_bytes = tokio::time::timeout(MEASURE_LIMIT, entry.gauges.sctp_bytes()).await.ok();
        let [unreliable, unreliable_ordered, reliable] =
            TransferMode::ALL.map(|mode| entry.mode_stats(mode, sctp_bytes.map(|bytes| bytes[mode.index()])));
        Some(PeerStats {
            connected: entry.gauges.connected(),
            round_trip_time: entry.gauges.round_trip(),
            reliable,
            unreliable_ordered,
            unreliable,
            selected: entry.gauges.selected(),
            restarts: entry.gauges.restarts.load(Ordering::Relaxed),
        })
    }
}

impl Entry {
    fn mode_stats(&self, mode: TransferMode, sctp_bytes: Option<u64>) -> ModeStats {
        let (packets, bytes) = {
            let queues = self.outbox.lock();
            (queues.waiting(mode), queues.waiting_bytes(mode))
        };
        let counters = self.gauges.counters(mode);
        ModeStats {
            sent: counters.sent(),
            received: counters.received(),
            shed_sending: counters.shed_sending(),
            shed_receiving: self.lane.shed_receiving()[mode.index()],
            queued: Traffic { packets: packets as u64, bytes: (bytes - packets * cost(0)) as u64 },
            sctp_bytes,
        }
    }
}
