//! Who is in which lobby: the [`Rendezvous`] trait. [`InMemory`](super::InMemory) is the one of a single server.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;

use super::mailbox::Mailbox;
use crate::signaling::godot::{CloseReason, Generation, RelayKind};

/// The lobbies, their members, and what goes between them.
///
/// [`InMemory`](super::InMemory) keeps them within one server. Another one may keep them where several servers share
/// them: a session of any server puts in here what its client asks for, and an implementation puts into the
/// [`Mailbox`]es of the sessions of this server what their clients are to be told. Ids are those that clients see: 1
/// is the host.
///
/// Each call is given up after 5 s, and its client closed with [`ServerError`](CloseReason::ServerError).
#[async_trait]
pub trait Rendezvous: fmt::Debug + Send + Sync + 'static {
    /// A client joins, and `mailbox` is how it is told anything from then on.
    ///
    /// Greets the mailbox with the client's id, everyone there whom it is to know, and the lobby's name, in this
    /// order, then `Seal` if the lobby is sealed, then what has been waiting for a member that comes back. Tells
    /// those who are there of it, unless they know.
    ///
    /// # Errors
    ///
    /// Why the client's connection is to be closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the client must not be a member.
    async fn join(&self, request: JoinRequest, mailbox: Mailbox) -> Result<Membership, CloseReason>;

    /// A member says something to another one, whose mailbox is told so as from the sender. False if nobody is told:
    /// the other is not there, its mailbox does not take it, or the two are both clients of a client/server lobby.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the message may be lost.
    async fn relay(&self, from: &Membership, to: u32, kind: RelayKind, payload: String) -> bool;

    /// The host lets nobody else in; everyone is told, the host too. Once more is nothing.
    ///
    /// # Errors
    ///
    /// [`NotHost`](CloseReason::NotHost), with which the client's connection is closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the lobby may be sealed or not.
    async fn seal(&self, member: &Membership) -> Result<(), CloseReason>;

    /// A member is none any more. Those who know it are told, unless its server shuts down; if it was the host, all others' mailboxes are closed
    /// with [`HostDisconnected`](CloseReason::HostDisconnected) instead, and the lobby is no more. Nothing, if the
    /// member's mailbox has been closed or taken over before.
    ///
    /// # Cancel safety
    ///
    /// Dropped only when the server is at its end, or takes too long.
    async fn leave(&self, member: &Membership, why: Leaving);

    /// How much there is, for `/healthz` and `/metrics`.
    fn counts(&self) -> Counts;
}

/// What a client asks for when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinRequest {
    /// The lobby's name; empty for a new one of any name.
    pub lobby: String,
    /// Whether a lobby that is not there is to be made under that name (`?create=true`).
    pub create: bool,
    /// Whether the lobby, if it is made, is a mesh.
    pub mesh: bool,
    /// Which of the two protocols the client speaks.
    pub generation: Generation,
    /// The client's own secret (`?session=`), by which it is known when it comes back.
    pub session: Option<SessionSecret>,
    /// The id that the client had (`&id=`), and wants back.
    pub id: Option<u32>,
}

impl JoinRequest {
    /// A request for a lobby of this name, a mesh, or for a new one if the name is empty. Nothing else is asked for.
    pub fn new(lobby: impl Into<String>, generation: Generation) -> JoinRequest {
        JoinRequest { lobby: lobby.into(), create: false, mesh: true, generation, session: None, id: None }
    }
}

/// That a client is in a lobby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The lobby's name.
    pub lobby: String,
    /// The client's id; 1 is the host.
    pub id: u32,
    /// Tells this membership from an earlier one of the same id.
    pub ticket: u64,
    /// Whether the client has got back the place that it had.
    pub resumed: bool,
}

/// Why a member is none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Leaving {
    /// It said so, or was closed.
    Gone,
    /// Its connection was lost, and it did not come back in time, or it was closed as it heard nothing. It may yet
    /// ([`restore`](super::SignalingServerBuilder::restore)).
    Lost,
    /// The lobby was sealed a while ago: all others' mailboxes are closed with
    /// [`SealComplete`](CloseReason::SealComplete), and the lobby is no more.
    SealComplete,
    /// The server that it is connected to shuts down. It is expected back at the one that follows, so nobody is told
    /// anything: not by a host's leaving either, which would end the lobby.
    ShuttingDown,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Counts {
    /// Lobbies.
    pub lobbies: usize,
    /// Members of lobbies, those among them who are expected back.
    pub members: usize,
}

/// What a client has chosen to be known by when it comes back: 32 hex digits. Hidden in `Debug`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionSecret(u128);

impl FromStr for SessionSecret {
    type Err = InvalidSession;

    fn from_str(text: &str) -> Result<SessionSecret, InvalidSession> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidSession);
        }
        u128::from_str_radix(text, 16).map(SessionSecret).map_err(|_| InvalidSession)
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(…)")
    }
}

/// A text that is no session's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session is 32 hex digits")]
pub struct InvalidSession;
