//! Counters and gauges by the [`metrics`](https://docs.rs/metrics) facade (feature `metrics`), for whatever recorder the
//! program installs: of all meshes of the process together.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `webrtc_mesh_peers_connected` | gauge | | peers that are connected now |
//! | `webrtc_mesh_peer_connects_total` | counter | | peers that were connected |
//! | `webrtc_mesh_peer_disconnects_total` | counter | `reason` | peers that were connected and are gone; the variants of [`DisconnectReason`], as `connection_lost` |
//! | `webrtc_mesh_peer_failures_total` | counter | `reason`, `stage` | peers that were not connected; the variants of [`PeerFailure`], and `signaling`, `ice`, `dtls`, `channels` or `none` |
//! | `webrtc_mesh_connection_attempts_total` | counter | | connections that were tried |
//! | `webrtc_mesh_ice_restarts_total` | counter | | restarts of ICE on a link |
//! | `webrtc_mesh_connect_seconds` | histogram | | from being added to being connected, of those who were |
//! | `webrtc_mesh_stage_seconds` | histogram | `stage` | what of it was spent in each stage |
//! | `webrtc_mesh_round_trip_seconds` | histogram | | each round trip that was measured: of every peer, one in 2 s |
//! | `webrtc_mesh_packets_total` | counter | `mode`, `direction` | packets handed to SCTP (`sent`), and those that arrived (`received`) |
//! | `webrtc_mesh_payload_bytes_total` | counter | `mode`, `direction` | the payload in them |
//! | `webrtc_mesh_shed_packets_total` | counter | `mode`, `direction` | unreliable packets that were shed from a full queue on their way |
//!
//! `mode` is `reliable`, `unreliable_ordered` or `unreliable`. No label names a peer, an address or a mesh, so there are
//! at the most some 80 series, however many peers come and go.
//!
//! Packets are counted by their peer anyway, for [`MeshHandle::stats`](crate::MeshHandle::stats); what is new is told to
//! the recorder every 2 s, and at the peer's end. So a packet costs nothing more with this feature than without.
//!
//! ```ignore
//! // With `metrics-exporter-prometheus`, on http://127.0.0.1:9000/metrics:
//! PrometheusBuilder::new().with_http_listener(([127, 0, 0, 1], 9000)).install()?;
//! let mesh = Mesh::builder().join(signaling).await?;
//! ```
//!
//! A recorder hears what happens after it was installed: install it before the first mesh is made, or the gauge of
//! connected peers is off by those who were there.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::event::{DisconnectReason, PeerFailure, Stage};
use crate::packet::TransferMode;
use crate::peer::Gauges;
use crate::report::ConnectionReport;
use crate::stats::Traffic;

const PEERS_CONNECTED: &str = "webrtc_mesh_peers_connected";
const CONNECTS: &str = "webrtc_mesh_peer_connects_total";
const DISCONNECTS: &str = "webrtc_mesh_peer_disconnects_total";
const FAILURES: &str = "webrtc_mesh_peer_failures_total";
const ATTEMPTS: &str = "webrtc_mesh_connection_attempts_total";
const RESTARTS: &str = "webrtc_mesh_ice_restarts_total";
const CONNECT_SECONDS: &str = "webrtc_mesh_connect_seconds";
const STAGE_SECONDS: &str = "webrtc_mesh_stage_seconds";
const ROUND_TRIP: &str = "webrtc_mesh_round_trip_seconds";
const PACKETS: &str = "webrtc_mesh_packets_total";
const BYTES: &str = "webrtc_mesh_payload_bytes_total";
const SHED: &str = "webrtc_mesh_shed_packets_total";

/// Tells the recorder what each of the names means, and its unit. Call it once, after the recorder is installed; without
/// it there are the same figures, without a word of help beside them.
pub fn describe() {
    describe_gauge!(PEERS_CONNECTED, Unit::Count, "Peers that are connected now.");
    describe_counter!(CONNECTS, Unit::Count, "Peers that were connected.");
    describe_counter!(DISCONNECTS, Unit::Count, "Peers that were connected and are gone, by reason.");
    describe_counter!(FAILURES, Unit::Count, "Peers that were not connected, by reason and stage.");
    describe_counter!(ATTEMPTS, Unit::Count, "Connections that were tried.");
    describe_counter!(RESTARTS, Unit::Count, "Restarts of ICE on a link.");
    describe_histogram!(CONNECT_SECONDS, Unit::Seconds, "From being added to being connected.");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "What of connecting was spent in each stage.");
    describe_histogram!(ROUND_TRIP, Unit::Seconds, "Round trips, of every peer one in 2 s.");
    describe_counter!(PACKETS, Unit::Count, "Packets, by mode and direction.");
    describe_counter!(BYTES, Unit::Bytes, "Payload bytes, by mode and direction.");
    describe_counter!(SHED, Unit::Count, "Packets shed from full queues, by mode and direction.");
}

/// A connection to a peer is tried.
pub(crate) fn attempt() {
    counter!(ATTEMPTS).increment(1);
}

/// A peer is announced. A `PeerDisconnected` follows, and [`disconnected`] with it.
pub(crate) fn connected(report: impl FnOnce() -> Arc<ConnectionReport>) {
    let times = report().times;
    gauge!(PEERS_CONNECTED).increment(1.0);
    counter!(CONNECTS).increment(1);
    histogram!(CONNECT_SECONDS).record(times.total());
    for stage in [Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels] {
        histogram!(STAGE_SECONDS, "stage" => label_of(stage)).record(times.of(stage));
    }
}

pub(crate) fn disconnected(reason: &DisconnectReason) {
    gauge!(PEERS_CONNECTED).decrement(1.0);
    let reason = match reason {
        DisconnectReason::Removed => "removed",
        DisconnectReason::LocalClose => "local_close",
        DisconnectReason::RemoteClose => "remote_close",
        DisconnectReason::ConnectionClosed => "connection_closed",
        DisconnectReason::ConnectionLost => "connection_lost",
        DisconnectReason::Unacknowledged => "unacknowledged",
        DisconnectReason::Replaced => "replaced",
        DisconnectReason::TooSlow => "too_slow",
        DisconnectReason::Unconfirmed { .. } => "unconfirmed",
        DisconnectReason::Protocol(_) => "protocol",
        DisconnectReason::Panicked => "panicked",
        DisconnectReason::Aborted => "aborted",
    };
    counter!(DISCONNECTS, "reason" => reason).increment(1);
}

pub(crate) fn failed(failure: &PeerFailure) {
    let (reason, stage) = match failure {
        PeerFailure::TimedOut { stage, .. } => ("timed_out", label_of(*stage)),
        PeerFailure::ConnectionFailed { stage, .. } => ("connection_failed", label_of(*stage)),
        PeerFailure::RemoteClosed { stage, .. } => ("remote_closed", label_of(*stage)),
        PeerFailure::Protocol(_) => ("protocol", label_of(Stage::Channels)),
        PeerFailure::IceServers(_) => ("ice_servers", label_of(Stage::Ice)),
        PeerFailure::Connection(_) => ("connection", "none"),
        PeerFailure::Refused(_) => ("refused", "none"),
        PeerFailure::Panicked => ("panicked", "none"),
    };
    counter!(FAILURES, "reason" => reason, "stage" => stage).increment(1);
}

pub(crate) fn round_trip(time: Duration) {
    histogram!(ROUND_TRIP).record(time);
}

fn label_of(stage: Stage) -> &'static str {
    match stage {
        Stage::Signaling => "signaling",
        Stage::Ice => "ice",
        Stage::Dtls => "dtls",
        Stage::Channels => "channels",
    }
}

/// What the recorder was told of one peer's counters.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    told: [Told; 3],
    restarts: u32,
}

#[derive(Debug, Default)]
struct Told {
    sent: Traffic,
    received: Traffic,
    shed_sending: u64,
    shed_receiving: u64,
}

impl Meter {
    /// Tells the recorder what is new.
    pub(crate) fn read(&mut self, gauges: &Gauges, shed_receiving: impl FnOnce() -> [u64; 3]) {
        let shed_receiving = shed_receiving();
        for mode in TransferMode::ALL {
            let (counters, told) = (gauges.counters(mode), &mut self.told[mode.index()]);
            let mode_name = match mode {
                TransferMode::Reliable => "reliable",
                TransferMode::UnreliableOrdered => "unreliable_ordered",
                TransferMode::Unreliable => "unreliable",
            };
            let tell = |name, direction, now: u64, told: &mut u64| {
                let new = now.saturating_sub(*told);
                *told = now;
                if new > 0 {
                    counter!(name, "mode" => mode_name, "direction" => direction).increment(new);
                }
            };
            let (sent, received) = (counters.sent(), counters.received());
            tell(PACKETS, "sent", sent.packets, &mut told.sent.packets);
            tell(BYTES, "sent", sent.bytes, &mut told.sent.bytes);
            tell(PACKETS, "received", received.packets, &mut told.received.packets);
            tell(BYTES, "received", received.bytes, &mut told.received.bytes);
            tell(SHED, "sent", counters.shed_sending(), &mut told.shed_sending);
            tell(SHED, "received", shed_receiving[mode.index()], &mut told.shed_receiving);
        }
        let restarts = gauges.restarts.load(Ordering::Relaxed);
        if restarts > self.restarts {
            counter!(RESTARTS).increment(u64::from(restarts - self.restarts));
            self.restarts = restarts;
        }
    }
}
