//! Why something was refused: one enum for each operation, each variant says what the caller can do next.

use std::io;

use crate::event::{DisconnectReason, PeerFailure};
use crate::id::PeerId;
use crate::packet::OutgoingPacket;

/// Why a peer was not added. Checked in the order in which the variants stand; the first that holds is reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddPeerError {
    /// The mesh has shut down, or is about to.
    #[error("the mesh is closed")]
    MeshClosed,

    /// The mesh refuses new connections (`set_refuse_new_connections`).
    #[error("the mesh refuses new connections")]
    Refused,

    /// A mesh has no link to itself.
    #[error("this is the mesh's own id")]
    OwnId,

    /// A peer with this id is there already, or still saying goodbye. Remove it first.
    #[error("peer {0} is in the mesh already")]
    AlreadyExists(PeerId),

    /// The mesh is full.
    #[error("the mesh has its {limit} peers already")]
    TooManyPeers {
        /// The limit, [`MeshBuilder::max_peers`](crate::MeshBuilder::max_peers).
        limit: usize,
    },

    /// The connection was added before, or has begun to negotiate. Make a fresh one: the channels must be there
    /// before the offer.
    #[error("the connection is not new")]
    NotNew,

    /// The channels could not be made.
    #[error("the channels could not be made: {0}")]
    Connection(#[source] ConnectionError),
}

/// There is no peer with this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no peer {0}")]
pub struct UnknownPeer(
    /// The id that was asked for.
    pub PeerId,
);

/// Why a peer that was waited for ([`MeshHandle::wait_connected`](crate::MeshHandle::wait_connected)) is not connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The mesh was closed, or dropped.
    #[error("the mesh is closed")]
    MeshClosed,

    /// A mesh has no link to itself.
    #[error("this is the mesh's own id")]
    OwnId,

    /// It was not connected; the failure says why.
    #[error("{0}")]
    Failed(PeerFailure),

    /// It was removed, or has left the signalling, before it was connected; or its connection was not new.
    #[error("the peer was removed before it was connected")]
    Removed,

    /// It was connected before, and was about to leave; or, in a server-compatible mesh, it has gone while peer 1 was
    /// still being waited for.
    #[error("the peer has left: {0}")]
    Disconnected(DisconnectReason),
}

/// Why a packet was not taken. Nothing of it was sent, to nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The mesh has shut down; no later send on any handle will succeed.
    #[error("the mesh is closed")]
    MeshClosed,

    /// No such peer: signalling has not reported it yet, or it has left; its last packets may still be unread here. A
    /// mesh is not its own peer.
    #[error("there is no peer {0}")]
    UnknownPeer(PeerId),

    /// The peer is still connecting, or saying goodbye. Wait for its `PeerConnected`.
    #[error("peer {0} is not connected")]
    NotConnected(PeerId),

    /// The payload is over the limit agreed with the peer, so it can never be sent. Of a broadcast, the smallest
    /// limit of its peers counts.
    #[error("a payload of {actual} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Size of the payload, in bytes.
        actual: usize,
        /// Largest payload allowed, in bytes.
        limit: usize,
    },
}

/// Why a packet was not taken at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The queue of a target is full. The packet comes back; try again later, or wait with `send`.
    #[error("the queue is full")]
    Full(OutgoingPacket),

    /// It will not be taken later either.
    #[error(transparent)]
    Refused(#[from] SendError),
}

/// Why something about a connection did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,

    /// No UDP socket could be bound.
    #[error("no UDP socket could be bound: {0}")]
    Bind(String),

    /// An ICE server of the configuration cannot be used.
    #[error("the ICE server {url:?} cannot be used: {reason}")]
    IceServer {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The configuration says `relay_only`, and names no TURN server.
    #[error("relay_only needs a TURN server, and none is configured")]
    NoRelay,

    /// The callback of [`PeerConnectionConfig::ice_servers_from`](crate::PeerConnectionConfig::ice_servers_from) gave
    /// no servers. Its own reason, or that it took too long.
    #[error("the ICE servers and their credentials could not be had: {0}")]
    Credentials(String),

    /// A description could not be parsed or applied. It came from the other side: ask there.
    #[error("the description was not accepted: {0}")]
    InvalidDescription(String),

    /// A candidate could not be parsed. The others still count.
    #[error("the candidate was not accepted: {0}")]
    InvalidCandidate(String),

    /// The candidates or the description exceed what one connection takes.
    #[error("over the limit of {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: usize,
    },

    /// An answer came without an offer, a second offer came on the same connection, or `create_offer` was called on
    /// a connection that already negotiates. A connection negotiates once; make a fresh one.
    #[error("out of turn: {0}")]
    OutOfTurn(&'static str),

    /// There is no tokio runtime here.
    #[error("not inside a tokio runtime")]
    NoRuntime,

    /// Something in the WebRTC library failed.
    #[error("the WebRTC library failed: {0}")]
    Library(String),
}

/// A STUN or TURN server that is of no use to a connection. `Display` is a line for a person, without credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ICE server {url:?} {problem}")]
#[non_exhaustive]
pub struct IceServerError {
    /// Its URL, as it was given.
    pub url: String,
    /// Why.
    pub problem: IceServerProblem,
}

/// Why a STUN or TURN server is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IceServerProblem {
    /// Its name was not resolved, or not within 3 s.
    #[error("has a name that could not be resolved: {0}")]
    Unresolved(String),

    /// It has IPv4 addresses and the connection has none bound, or the other way round.
    #[error("has no address of a family that is bound here")]
    NoCommonFamily,

    /// Nothing could be sent to it from here: there is no route, say.
    #[error("cannot be sent to: {0}")]
    Unreachable(String),

    /// It has not answered 6 requests, in some 5 s. It may have an answer later.
    #[error("does not answer")]
    Unanswered,

    /// It asks for no credentials, which is not supported.
    #[error("asks for no credentials, which is not supported")]
    NoCredentialsWanted,

    /// It has answered with an error.
    #[error("{}", refusal(*code))]
    Refused {
        /// The error code (RFC 8489 section 14.8, RFC 8656 section 19).
        code: u16,
    },

    /// It has a relay for us, but does not relay to some address of the remote. Others may do.
    #[error("does not relay to an address of the remote (error {code})")]
    RefusedRemote {
        /// The error code.
        code: u16,
    },
}

fn refusal(code: u16) -> String {
    let what = match code {
        300 => "wants another server to be asked",
        400 => "takes our request for a bad one",
        401 | 431 | 441 => "does not accept the credentials",
        403 => "forbids it",
        420 => "does not know an attribute of our request",
        437 => "has another relay for the same address",
        438 => "does not accept its own nonce",
        440 => "has no relay of this address family",
        442 => "has no relay over UDP",
        486 => "gives this user no more relays",
        500 => "has an error of its own",
        508 => "has no more relays",
        _ => "refuses",
    };
    format!("{what} (error {code})")
}

impl IceServerProblem {
    /// Whether asking again with the same credentials is in vain.
    pub(crate) fn is_final(&self) -> bool {
        let passing = |code| matches!(code, 437 | 438 | 486 | 500..);
        match self {
            IceServerProblem::Refused { code } => !passing(*code),
            IceServerProblem::NoCommonFamily | IceServerProblem::NoCredentialsWanted => true,
            _ => false,
        }
    }
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> ConnectionError {
        ConnectionError::Bind(error.to_string())
    }
}

/// Why signalling failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalingError {
    /// Signalling has ended: the server is gone, or everyone has left.
    #[error("signalling is closed")]
    Closed,

    /// The id that was asked for is taken.
    #[error("the id {0} is taken")]
    IdTaken(PeerId),

    /// There is nobody with this id to hand a signal to. Others are not concerned.
    #[error("signalling knows no peer {0}")]
    UnknownPeer(PeerId),

    /// The other end refused, with its reason.
    #[error("signalling refused: {0}")]
    Refused(String),

    /// The transport failed.
    #[error("signalling failed: {0}")]
    Transport(String),

    /// The server has closed the connection, and said why.
    #[cfg(feature = "godot")]
    #[cfg_attr(docsrs, doc(cfg(feature = "godot")))]
    #[error("the signalling server has closed the connection: {0}")]
    ClosedByServer(crate::signaling::godot::CloseReason),

    /// The URL of the server cannot be used.
    #[error("the signalling URL {url:?} cannot be used: {reason}")]
    InvalidUrl {
        /// The URL as it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    /// An option of the connection to the server cannot be used: a header, or a certificate.
    #[error("the signalling option cannot be used: {0}")]
    InvalidOption(String),

    /// Only the host may do this.
    #[error("only the host may do this")]
    NotHost,

    /// This signalling cannot do this.
    #[error("this signalling cannot do this")]
    Unsupported,

    /// It did not answer in time.
    #[error("signalling did not answer within {} s", limit.as_secs_f64())]
    TimedOut {
        /// How long it was waited.
        limit: std::time::Duration,
    },
}

/// Why a mesh could not be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No connection could be made with this configuration
    /// ([`MeshBuilder::connection`](crate::MeshBuilder::connection)). Signalling was not asked.
    #[error("no connection can be made: {0}")]
    Connection(#[source] ConnectionError),

    /// Signalling failed before it gave us an id.
    #[error("could not join: {0}")]
    Signaling(#[from] SignalingError),

    /// Signalling did not give us an id in time.
    #[error("signalling gave no id within {} s", limit.as_secs_f64())]
    TimedOut {
        /// How long it was waited, [`MeshBuilder::handshake_limit`](crate::MeshBuilder::handshake_limit).
        limit: std::time::Duration,
    },
}
