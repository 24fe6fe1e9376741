//! The counters behind `/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::rendezvous::Counts;
use super::session::state::Event;
use crate::signaling::godot::CloseReason;

/// Why, as the label of a counter.
type Reasons = Family<[(&'static str, &'static str); 1], Counter<u64, AtomicU64>>;

/// All of them. The names stand on the front page of [`server`](super).
pub(super) struct Metrics {
    registry: Registry,
    peers: Gauge,
    members: Gauge,
    lobbies: Gauge,
    joins: Counter,
    resumed: Counter,
    relays: Counter,
    dropped_relays: Counter,
    malformed: Counter,
    lost: Counter,
    refused: Reasons,
    closed: Reasons,
    received_bytes: Counter,
    sent_bytes: Counter,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("webrtc_mesh_signaling");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let peers = gauge("peers", "Clients that are connected");
        let members = gauge("members", "Clients in a lobby, and those that are expected back");
        let lobbies = gauge("lobbies", "Lobbies");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let joins = counter("joins", "Clients that joined a lobby");
        let resumed = counter("resumed", "Clients that got back the place that was kept for them");
        let relays = counter("relays", "Offers, answers and candidates handed on");
        let dropped_relays =
            counter("dropped_relays", "Those for somebody who was not there, or for whom too much waited");
        let malformed = counter("malformed", "Frames that are no message");
        let lost = counter("lost", "Connections lost without a close frame");
        let received_bytes = counter("received_bytes", "Payload of frames from clients");
        let sent_bytes = counter("sent_bytes", "Payload of frames to clients");
        let mut reasons = |name: &str, help: &str| {
            let reasons = Reasons::default();
            registry.register(name, help, reasons.clone());
            reasons
        };
        let refused = reasons("refused", "Requests refused before they were connections");
        let closed = reasons("closed", "Connections closed by the server");
        Metrics {
            registry,
            peers,
            members,
            lobbies,
            joins,
            resumed,
            relays,
            dropped_relays,
            malformed,
            lost,
            refused,
            closed,
            received_bytes,
            sent_bytes,
        }
    }

    pub(super) fn count(&self, event: Event) {
        match event {
            Event::Joined => &self.joins,
            Event::Resumed => &self.resumed,
            Event::Relayed => &self.relays,
            Event::DroppedRelay => &self.dropped_relays,
            Event::Malformed => &self.malformed,
            Event::Lost => &self.lost,
        }
        .inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn closed(&self, reason: &CloseReason) {
        self.closed.get_or_create(&[("reason", label(reason))]).inc();
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    /// In the text format of OpenMetrics, which Prometheus reads.
    pub(super) fn text(&self, peers: usize, counts: Counts) -> String {
        for (gauge, value) in
            [(&self.peers, peers), (&self.members, counts.members), (&self.lobbies, counts.lobbies)]
        {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics that cannot be written");
        }
        text
    }
}

fn label(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::NotJoined => "not_joined",
        CloseReason::LobbyDoesNotExist => "lobby_does_not_exist",
        CloseReason::LobbySealed => "lobby_sealed",
        CloseReason::LobbyFull => "lobby_full",
        CloseReason::OtherGeneration(_) => "other_generation",
        CloseReason::TooManyLobbies => "too_many_lobbies",
        CloseReason::TooManyPeers => "too_many_peers",
        CloseReason::Refused(_) => "refused",
        CloseReason::NotResumed => "not_resumed",
        CloseReason::HostDisconnected => "host_disconnected",
        CloseReason::SealComplete => "seal_complete",
        CloseReason::NotHost => "not_host",
        CloseReason::AlreadyInLobby => "already_in_lobby",
        CloseReason::NeedLobby => "need_lobby",
        CloseReason::InvalidFormat => "invalid_format",
        CloseReason::InvalidDestination => "invalid_destination",
        CloseReason::InvalidCommand => "invalid_command",
        CloseReason::NotText => "not_text",
        CloseReason::TooLarge => "too_large",
        CloseReason::Unresponsive => "unresponsive",
        CloseReason::Replaced => "replaced",
        CloseReason::ShuttingDown => "shutting_down",
        CloseReason::ServerError => "server_error",
        CloseReason::Other { .. } => "other",
    }
}
