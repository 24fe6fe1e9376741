//! One peer: a task that owns a connection, its channels and their queues. It does not know that it is in a mesh.
//!
//! * [`Outbox`]: what waits to be sent; filled by anyone who sends.
//! * [`Delivery`]: where packets go that arrive; whoever made the peer says.
//! * [`Peer`]: the handle to the task; [`Task::run`] is the task.

mod actor;
mod channels;
pub(crate) mod control;
mod gauges;
mod headway;
mod liveness;
mod outbox;
mod pace;
mod state;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use actor::Task;
pub(crate) use channels::{Backlog, Delivery};
pub(crate) use gauges::Gauges;
pub(crate) use outbox::{Bounds, Outbox, Refusal};

use crate::connection::{NotOpened, PeerConnection, UnreliableLifetime};
use crate::event::{DisconnectReason, PeerFailure};
use control::Frame;

/// The number of one life of a peer. A peer that is removed and added again has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Life(pub(crate) u64);

/// What a peer's task reports while it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The peer is connected; payloads of this many bytes are taken.
    Connected { max_message_bytes: usize },
    /// It is silent for too long, and may come back.
    Unstable,
    /// It came back.
    Recovered,
    /// It has said goodbye, and all that it sent is here. Its task goes on for as long as it takes to tell it so.
    Departed,
    /// It asks for this to be handed to another peer.
    Relay { to: u32, body: Bytes },
    /// It hands on what another peer has asked it to.
    Relayed { from: u32, body: Bytes },
}

/// How a peer's task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was told to leave before it was connected.
    Silent,
    /// It never was connected.
    Failed(PeerFailure),
    /// It was connected, and is gone.
    Disconnected(DisconnectReason),
}

/// Why a peer is told to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The owner removes it.
    Removed,
    /// The mesh closes.
    LocalClose,
    /// A fresh connection takes its place; nothing can be said to the remote any more.
    Replaced,
}

impl Farewell {
    fn reason(self) -> DisconnectReason {
        match self {
            Farewell::Removed => DisconnectReason::Removed,
            Farewell::LocalClose => DisconnectReason::LocalClose,
            Farewell::Replaced => DisconnectReason::Replaced,
        }
    }
}

/// How long things may take, for one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) handshake: Duration,
    pub(crate) grace: Duration,
    pub(crate) farewell: Duration,
    pub(crate) stall: Duration,
    /// Somebody makes a fresh connection when one fails, until the handshake limit.
    pub(crate) renewable: bool,
    /// How much reliable payload may arrive and be unread, in bytes of [`control::cost`].
    pub(crate) window_bytes: usize,
}

/// The handle to a peer's task.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) gauges: Arc<Gauges>,
    leave: watch::Sender<Option<Farewell>>,
    renew: mpsc::Sender<Takeover>,
    relay: mpsc::Sender<Frame>,
    #[cfg(test)]
    pub(crate) panic: Arc<tokio::sync::Notify>,
}

/// A connection that a peer's task takes over, and who wants to know that its channels are made.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub(crate) connection: PeerConnection,
    pub(crate) unreliable_lifetime: UnreliableLifetime,
    pub(crate) made: oneshot::Sender<Result<(), NotOpened>>,
}

impl Peer {
    /// Tells the peer to leave. Once is enough; the first reason counts.
    pub(crate) fn leave(&self, farewell: Farewell) {
        self.leave.send_if_modified(|current| {
            let change = current.is_none() || farewell == Farewell::Replaced;
            if change {
                *current = Some(farewell);
            }
            change
        });
    }

    /// Hands on what it is to relay, or what another has relayed for it. `false`: there is too much of it.
    pub(crate) fn relay(&self, frame: Frame) -> bool {
        self.relay.try_send(frame).is_ok()
    }

    /// Gives a peer that is still connecting a fresh connection. `false`: the one before was not even begun with.
    pub(crate) fn renew(&self, fresh: Takeover) -> bool {
        self.renew.try_send(fresh).is_ok()
    }
}
