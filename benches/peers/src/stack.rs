//! What every stack is asked to do: open a full mesh, send, and hand over what arrives.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::relay::Relay;

/// Why a run has no result; printed as it is.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a run gives.
pub type Result<T> = std::result::Result<T, Failure>;

/// A stack, with the settings that its users would give it.
pub trait Stack: 'static {
    /// One member of a mesh.
    type Node: Node;

    /// Opens a full mesh of so many nodes in this process: a reliable, ordered channel and an unreliable, unordered one
    /// without retransmissions between any two. Returns when all channels are open on both sides.
    ///
    /// With a relay there are two nodes, and each sees the relay's addresses instead of the other's.
    fn open(
        nodes: usize,
        inbox: Arc<dyn Inbox>,
        relay: Option<Arc<Relay>>,
    ) -> impl Future<Output = Result<Vec<Self::Node>>> + Send;
}

/// One member of a mesh. Nodes are numbered from 0.
pub trait Node: Clone + Send + Sync + 'static {
    /// Sends reliably, and waits while as much is under way as its settings allow, [`ROOM`] at the most.
    fn send(&self, to: usize, payload: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Sends reliably from within [`Inbox::message`], where nothing may wait; there is room, as little is sent so.
    fn reply(&self, to: usize, payload: Bytes) -> Result<()>;

    /// Sends on the unreliable channel: once, or not at all when the stack's queue is full.
    fn fire(&self, to: usize, payload: Bytes);

    /// The same to every other node, the way the stack's users would.
    fn fire_at_all(&self, payload: Bytes);
}

/// Takes what arrives, wherever the stack hands it over: in a callback, or in the task that reads.
pub trait Inbox: Send + Sync + 'static {
    /// A message arrived at node `at`.
    fn message(&self, at: usize, from: usize, payload: &[u8]);
}

/// How many bytes a reliable channel may have under way before its sender waits: the default of webrtc-mesh's queue, and
/// what libdatachannel gives to SCTP by default. Stacks that do better with less on loopback have less there, and say so.
pub const ROOM: usize = 1024 * 1024;

/// The label of the reliable channel.
pub const RELIABLE: &str = "reliable";
/// The label of the unreliable channel.
pub const UNRELIABLE: &str = "unreliable";
