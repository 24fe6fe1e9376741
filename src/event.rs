//! What a mesh tells its owner: [`MeshEvent`], and why something ended.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ConnectionError, IceServerError};
use crate::id::PeerId;
use crate::packet::{Packet, TransferMode};
use crate::report::ConnectionReport;

/// Something that happened in the mesh, in the order in which it happened.
///
/// What holds for every peer, whatever ends it: one [`PeerConnected`](MeshEvent::PeerConnected), then its packets,
/// then one [`PeerDisconnected`](MeshEvent::PeerDisconnected). No packet comes outside the two. A peer that was added
/// and never became connected has one [`PeerFailed`](MeshEvent::PeerFailed) instead, unless it was removed, the mesh
/// was closed, or it left the signalling, while it was connecting.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MeshEvent {
    /// Server-compatible mode: peer 1 is connected. Comes right before its `PeerConnected`.
    ConnectionSucceeded,

    /// Server-compatible mode: peer 1 could not be connected. Comes right after its `PeerFailed`.
    ConnectionFailed(PeerFailure),

    /// Server-compatible mode: peer 1 was connected and is gone. Comes right after its `PeerDisconnected`; the status
    /// is already `Disconnected`. The other peers stay.
    ServerDisconnected,

    /// All three channels of the peer are open and, between two members of this crate, both sides have said hello.
    PeerConnected(PeerId),

    /// The peer is gone. Exactly one for every `PeerConnected`.
    PeerDisconnected(PeerId, DisconnectReason),

    /// The peer was added and never became connected. In a mesh that was [joined](crate::MeshBuilder::join) its next life
    /// may begin by itself, and end like this again.
    PeerFailed(PeerId, PeerFailure),

    /// A packet arrived.
    Packet(Packet),

    /// Packets of the unreliable modes were shed, the oldest first, because a queue was full: on the way to this
    /// peer because the link is slower than what was sent, or on the way from it because the mesh is read too slowly.
    Lagged {
        /// The peer they were for or from.
        peer: PeerId,
        /// How they travelled.
        mode: TransferMode,
        /// How many, since the last report for this peer and mode.
        dropped: u64,
    },

    /// A connected peer has gone silent: nothing of it was heard for 3 s, or it has answered neither ICE nor the control
    /// channel for 5 s. That no data comes is no sign, as it may have none. The peer is kept for the grace time
    /// ([`MeshBuilder::grace`](crate::MeshBuilder::grace)), in which a mesh that was [joined](crate::MeshBuilder::join)
    /// restarts ICE: either `PeerRecovered` or `PeerDisconnected` follows.
    PeerUnstable(PeerId),

    /// A peer that was unstable is heard again, by the way it had or another one. Nothing reliable was lost; what waits
    /// may take some seconds more, as SCTP's timer has grown with the silence.
    PeerRecovered(PeerId),

    /// Signalling is gone. Connected peers stay; no new ones come, unless and until
    /// [`SignalingRestored`](MeshEvent::SignalingRestored). Why, and whether it is tried to reach it again, says
    /// [`MeshHandle::signaling`](crate::MeshHandle::signaling). Comes once more when it is given up for good.
    SignalingLost,

    /// Signalling was lost and is there again.
    SignalingRestored,

    /// The host has sealed the lobby ([`MeshHandle::seal_lobby`](crate::MeshHandle::seal_lobby)): nobody else joins.
    LobbySealed,
}

/// Why a connected peer is gone. `Display` is a line for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// [`MeshHandle::remove_peer`](crate::MeshHandle::remove_peer) was called here, and the peer confirmed all that
    /// was sent.
    Removed,

    /// The mesh was closed here, and the peer confirmed all that was sent.
    LocalClose,

    /// The remote left: it said goodbye, or closed its connection or one of its channels. What it sent before has
    /// arrived; what was accepted for it here and was still under way may be lost.
    RemoteClose,

    /// The connection was closed here, by a clone of it ([`PeerInfo::connection`](crate::PeerInfo)). Nothing was
    /// flushed.
    ConnectionClosed,

    /// The remote was not heard for longer than the grace time, or ICE gave it up.
    /// [`MeshHandle::report`](crate::MeshHandle::report) says over which addresses it was heard last.
    ConnectionLost,

    /// The remote answers ICE, but it has acknowledged nothing of what it was sent for too long: some 12 s after it was
    /// out of reach, else 45 s; of a remote of another stack in any case 45 s, and with
    /// [`UnreliableLifetime::Millis`](crate::UnreliableLifetime::Millis) 150 s. The library's SCTP gives up for good when
    /// a packet was lost six times in a row. A mesh that was [joined](crate::MeshBuilder::join) connects it
    /// anew. A remote of another stack that does not read for so long, with its receive window full, looks the same.
    Unacknowledged,

    /// The remote has restarted under the same id: a fresh connection takes the place of this one.
    Replaced,

    /// The queue of reliable packets for this peer stayed full, and no packet left it, for the stall limit
    /// ([`MeshBuilder::stall_limit`](crate::MeshBuilder::stall_limit)): its reader sleeps, or its link is dead.
    TooSlow,

    /// The peer was removed or the mesh closed, and the remote did not confirm everything within the farewell time
    /// ([`MeshBuilder::farewell`](crate::MeshBuilder::farewell)), or vanished before.
    Unconfirmed {
        /// Reliable packets accepted for this peer that the remote did not confirm, at the most. Some of them may
        /// have arrived.
        packets: u64,
    },

    /// The remote broke the rules of the control channel.
    Protocol(String),

    /// The task of this peer panicked. A bug, of this crate or of one below it; the other peers go on.
    Panicked,

    /// The runtime was shut down under the mesh, so nothing was flushed. [`MeshHandle::close`](crate::MeshHandle::close) first.
    Aborted,
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DisconnectReason::Removed => f.write_str("removed here"),
            DisconnectReason::LocalClose => f.write_str("the mesh was closed here"),
            DisconnectReason::RemoteClose => f.write_str("the remote left"),
            DisconnectReason::ConnectionClosed => f.write_str("its connection was closed here"),
            DisconnectReason::ConnectionLost => f.write_str("the remote was not heard any more"),
            DisconnectReason::Unacknowledged => {
                f.write_str("the remote answers, but has acknowledged nothing for too long")
            }
            DisconnectReason::Replaced => f.write_str("the remote restarted and connects afresh"),
            DisconnectReason::TooSlow => f.write_str("the remote did not take its reliable packets in time"),
            DisconnectReason::Unconfirmed { packets } => {
                write!(f, "left here, and the remote did not confirm the last {packets} reliable packets")
            }
            DisconnectReason::Protocol(what) => write!(f, "the remote broke the protocol: {what}"),
            DisconnectReason::Panicked => f.write_str("the peer's task panicked"),
            DisconnectReason::Aborted => f.write_str("the runtime was shut down under the mesh"),
        }
    }
}

/// Why a peer never became connected. `Display` is a line for a person, without addresses.
///
/// The variants that are about the way to the remote carry what was tried; that of the others, if there is any, gives
/// [`MeshHandle::report`](crate::MeshHandle::report).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFailure {
    /// Not connected within the handshake limit
    /// ([`MeshBuilder::handshake_limit`](crate::MeshBuilder::handshake_limit)).
    #[non_exhaustive]
    TimedOut {
        /// What it was stuck in.
        stage: Stage,
        /// How long it was tried.
        after: Duration,
        /// What was tried.
        report: Arc<ConnectionReport>,
    },

    /// The connection failed or ended.
    #[non_exhaustive]
    ConnectionFailed {
        /// What it was in.
        stage: Stage,
        /// What was tried.
        report: Arc<ConnectionReport>,
    },

    /// The remote closed the connection before it was connected.
    #[non_exhaustive]
    RemoteClosed {
        /// What it was in.
        stage: Stage,
        /// What was tried.
        report: Arc<ConnectionReport>,
    },

    /// The remote broke the rules of the control channel.
    Protocol(String),

    /// No connection could be made for it.
    Connection(ConnectionError),

    /// It is not welcome here, for this reason ([`MeshBuilder::admission`](crate::MeshBuilder::admission)).
    Refused(String),

    /// Relays are all that it may use ([`relay_only`](crate::PeerConnectionConfig::relay_only)), and no TURN server has
    /// given one: each, and why. Comes as soon as that is known, unless it may be otherwise for a later attempt of
    /// [`join`](crate::MeshBuilder::join): then at the handshake limit.
    IceServers(Vec<IceServerError>),

    /// The task of this peer panicked. A bug, of this crate or of one below it; the other peers go on.
    Panicked,
}

impl PeerFailure {
    /// What was tried, where the failure is about that.
    pub fn report(&self) -> Option<&ConnectionReport> {
        match self {
            PeerFailure::TimedOut { report, .. }
            | PeerFailure::ConnectionFailed { report, .. }
            | PeerFailure::RemoteClosed { report, .. } => Some(report),
            _ => None,
        }
    }

    // Who decides on the failure has no report; who carries it out adds it.

    pub(crate) fn timed_out(stage: Stage, after: Duration) -> PeerFailure {
        PeerFailure::TimedOut { stage, after, report: Arc::new(ConnectionReport::new()) }
    }

    pub(crate) fn connection_failed(stage: Stage) -> PeerFailure {
        PeerFailure::ConnectionFailed { stage, report: Arc::new(ConnectionReport::new()) }
    }

    pub(crate) fn remote_closed(stage: Stage) -> PeerFailure {
        PeerFailure::RemoteClosed { stage, report: Arc::new(ConnectionReport::new()) }
    }

    pub(crate) fn with(mut self, its_report: Arc<ConnectionReport>) -> PeerFailure {
        match &mut self {
            PeerFailure::TimedOut { report, .. }
            | PeerFailure::ConnectionFailed { report, .. }
            | PeerFailure::RemoteClosed { report, .. } => *report = its_report,
            _ => {}
        }
        self
    }
}

impl fmt::Display for PeerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerFailure::TimedOut { stage, after, report } => {
                write!(f, "not connected after {:.1} s: {}", after.as_secs_f64(), Stuck(*stage, report))
            }
            PeerFailure::ConnectionFailed { stage, report } => {
                write!(f, "the connection failed: {}", Stuck(*stage, report))
            }
            PeerFailure::RemoteClosed { stage, report } => {
                let stuck = Stuck(*stage, report);
                write!(f, "the remote closed the connection before it was up: {stuck}")
            }
            PeerFailure::Protocol(what) => write!(f, "the remote broke the protocol: {what}"),
            PeerFailure::Connection(error) => write!(f, "no connection could be made: {error}"),
            PeerFailure::Refused(reason) => write!(f, "it was not let in: {reason}"),
            PeerFailure::IceServers(errors) => {
                f.write_str("there is no relay")?;
                errors
                    .iter()
                    .enumerate()
                    .try_for_each(|(n, error)| write!(f, "{} {error}", if n == 0 { ":" } else { ";" }))
            }
            PeerFailure::Panicked => f.write_str("the peer's task panicked"),
        }
    }
}

/// How far the making of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Offer and answer are not both here.
    Signaling,
    /// ICE looks for a pair of addresses that reach each other (RFC 8445).
    Ice,
    /// The DTLS handshake runs (RFC 6347), in which each side proves the fingerprint of its description.
    Dtls,
    /// SCTP opens the channels (RFC 8831); between two members of this crate, until both said hello.
    Channels,
}

/// What a peer is stuck in, for a line: what is missing, what was tried, what to ask oneself.
struct Stuck<'a>(Stage, &'a ConnectionReport);

impl fmt::Display for Stuck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stuck(stage, report) = self;
        f.write_str(match stage {
            Stage::Signaling => "the descriptions were not exchanged",
            Stage::Ice => "no pair of addresses reached each other",
            Stage::Dtls => "the addresses reach each other, but the DTLS handshake did not end",
            Stage::Channels => "DTLS is up, but the data channels did not open",
        })?;
        match stage {
            Stage::Ice if report.attempts > 0 => write!(f, " ({})", report.tried())?,
            _ if report.attempts > 1 => write!(f, " ({} attempts)", report.attempts)?,
            _ => {}
        }
        f.write_str(match stage {
            Stage::Signaling => "; is the remote there, does signalling reach it, and does it let us in?",
            Stage::Ice if report.attempts > 0 && report.remote.is_empty() => {
                "; does signalling carry the remote's candidates?"
            }
            Stage::Ice => "; is UDP blocked, or is a TURN server needed?",
            Stage::Dtls | Stage::Channels => "",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Signaling => "signalling",
            Stage::Ice => "ICE",
            Stage::Dtls => "DTLS",
            Stage::Channels => "channels",
        })
    }
}
