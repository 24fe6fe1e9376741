//! The mesh: [`Mesh`], its two ends, and its builder.

mod actor;
mod handle;
mod inbox;
mod join;
mod meeting;
mod reports;
mod state;
mod stats;
mod wait;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::FusedStream;
use futures::{Sink, Stream};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::connection::{MAX_MESSAGE_BYTES, PeerConnectionConfig, UnreliableLifetime};
use crate::error::{JoinError, SendError};
use crate::event::MeshEvent;
use crate::id::PeerId;
use crate::packet::{OutgoingPacket, TransferMode};
use crate::peer::{Bounds, Limits};
use crate::signaling::Signaling;
use actor::Supervisor;
pub use handle::{ChannelInfo, MeshHandle, PeerInfo};
use handle::{Entry, Offer, Shared};
use inbox::Inbox;
pub use meeting::SignalingStatus;
pub use state::ConnectionStatus;
use state::State;

/// A full mesh of peers: a [`Stream`] of [`MeshEvent`]s and a [`Sink`] of [`OutgoingPacket`]s.
///
/// * **Next** event: in the order in which they happened; the packets of several peers take turns. Reading is what
///   gives the peers room to send: whoever does not read is, after a while, sent nothing more.
/// * **Ready** to take a packet: whatever was put in last is within the bounds of its targets' queues. A packet for a
///   full peer is taken nevertheless, once, and then the sink is not ready until there is room; handles go on.
/// * **Flushed**: every packet taken is in its targets' queues, within their bounds; not: it was sent.
/// * **Closed**, as a sink: flushed, and it takes no more packets (they are refused with
///   [`SendError::MeshClosed`], though only the sink is). The mesh goes on; [`MeshHandle::close`] ends it.
/// * **End of stream**: the mesh is closed, and every event was read. `None` for ever after.
///
/// Dropping it stops everything at once, without flushing: connections are closed, the tasks end. For a goodbye,
/// [`close`](MeshHandle::close) first.
#[must_use = "a mesh that is dropped stops at once"]
pub struct Mesh {
    stream: MeshStream,
    sink: MeshSink,
}

/// The receiving half of a [`Mesh`], which owns it: dropping it stops the mesh at once.
pub struct MeshStream {
    shared: Arc<Shared>,
    over: bool,
}

/// The sending half of a [`Mesh`]. Dropping it ends nothing: handles go on sending.
pub struct MeshSink {
    shared: Arc<Shared>,
    /// The peers whose queues the last packet has overfilled.
    full: Vec<Arc<Entry>>,
    closed: bool,
}

impl Mesh {
    /// A builder with the defaults.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    /// A handle, of which there may be any number.
    pub fn handle(&self) -> MeshHandle {
        MeshHandle { shared: self.stream.shared.clone() }
    }

    /// Our own id.
    pub fn id(&self) -> PeerId {
        self.stream.shared.id
    }

    /// The two ends, for two tasks. The mesh lives as long as the stream.
    pub fn split(self) -> (MeshSink, MeshStream) {
        (self.sink, self.stream)
    }

    fn new(shared: Arc<Shared>) -> Mesh {
        let sink = MeshSink { shared: shared.clone(), full: Vec::new(), closed: false };
        Mesh { stream: MeshStream { shared, over: false }, sink }
    }
}

impl MeshStream {
    /// Our id.
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// A handle, of which there may be any number.
    pub fn handle(&self) -> MeshHandle {
        MeshHandle { shared: self.shared.clone() }
    }
}

impl MeshSink {
    /// Our id.
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// A handle, of which there may be any number.
    pub fn handle(&self) -> MeshHandle {
        MeshHandle { shared: self.shared.clone() }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.full.retain(|full| !full.outbox.has_room_or_wake(cx.waker()));
        if self.full.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Stream for MeshStream {
    type Item = MeshEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MeshEvent>> {
        if self.over {
            return Poll::Ready(None);
        }
        // A reader that always finds something lets others run now and then.
        let budget = std::task::ready!(tokio::task::coop::poll_proceed(cx));
        let next = std::task::ready!(self.shared.inbox.poll_next(cx));
        budget.made_progress();
        self.over = next.is_none();
        Poll::Ready(next)
    }
}

impl FusedStream for MeshStream {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl Drop for MeshStream {
    fn drop(&mut self) {
        // First, so that nothing takes this for a closing that says goodbye.
        self.shared.stop.cancel();
        self.shared.begin_close();
        self.shared.inbox.deafen();
    }
}

/// Validates a packet when it is put in, so an error is about that packet, and the sink goes on.
impl Sink<OutgoingPacket> for MeshSink {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if self.closed || self.shared.is_closing() {
            return Poll::Ready(Err(SendError::MeshClosed));
        }
        self.poll_room(cx).map(Ok)
    }

    fn start_send(mut self: Pin<&mut Self>, mut packet: OutgoingPacket) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::MeshClosed);
        }
        match self.shared.offer(&mut packet, true) {
            Offer::Taken => Ok(()),
            Offer::Full(full) => {
                self.full = full;
                Ok(())
            }
            Offer::Refused(error) => Err(error),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_room(cx).map(Ok)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.closed = true;
        self.poll_room(cx).map(Ok)
    }
}

impl Stream for Mesh {
    type Item = MeshEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MeshEvent>> {
        Pin::new(&mut self.stream).poll_next(cx)
    }
}

impl FusedStream for Mesh {
    fn is_terminated(&self) -> bool {
        self.stream.is_terminated()
    }
}

impl Sink<OutgoingPacket> for Mesh {
    type Error = SendError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Pin::new(&mut self.sink).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, packet: OutgoingPacket) -> Result<(), SendError> {
        Pin::new(&mut self.sink).start_send(packet)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Pin::new(&mut self.sink).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Pin::new(&mut self.sink).poll_close(cx)
    }
}

/// How a mesh is made. Each setting says its unit and default.
#[derive(Debug, Clone)]
#[must_use = "a builder makes nothing until `build` or `join`"]
pub struct MeshBuilder {
    server_compatibility: bool,
    refuse_new_connections: bool,
    transfer_mode: TransferMode,
    connection: PeerConnectionConfig,
    unreliable_lifetime: UnreliableLifetime,
    attempt_limit: Duration,
    limits: Limits,
    bounds: Bounds,
    max_peers: usize,
    admission: Option<join::Admission>,
}

impl Default for MeshBuilder {
    fn default() -> MeshBuilder {
        MeshBuilder {
            server_compatibility: false,
            refuse_new_connections: false,
            transfer_mode: TransferMode::Reliable,
            connection: PeerConnectionConfig::default(),
            unreliable_lifetime: UnreliableLifetime::default(),
            attempt_limit: Duration::from_secs(8),
            limits: Limits {
                handshake: Duration::from_secs(30),
                grace: Duration::from_secs(8),
                farewell: Duration::from_secs(5),
                stall: Duration::from_secs(30),
                renewable: false,
                window_bytes: 4 * MIB,
            },
            bounds: Bounds { reliable_bytes: MIB, unreliable_bytes: MIB / 4 },
            max_peers: 128,
            admission: None,
        }
    }
}

const MIB: usize = 1024 * 1024;

/// The smallest receive window: two of the largest packets.
const MIN_WINDOW_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// The largest: 1 GiB, for each peer.
const MAX_WINDOW_BYTES: usize = 1024 * MIB;

/// A longer limit is as good as none, and a sum with it would not be an `Instant` any more on some platforms.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Commands that wait for the mesh's task, which waits for nobody: those of many tasks at once.
const COMMANDS: usize = 64;

impl MeshBuilder {
    /// Whether peer 1 is the server: the mesh is connected when peer 1 is, and nobody is announced before. See
    /// [`ConnectionStatus`]. Default `false`.
    pub fn server_compatibility(mut self, server_compatibility: bool) -> Self {
        self.server_compatibility = server_compatibility;
        self
    }

    /// Whether new peers are refused from the start. Default `false`.
    pub fn refuse_new_connections(mut self, refuse: bool) -> Self {
        self.refuse_new_connections = refuse;
        self
    }

    /// What [`put_packet`](MeshHandle::put_packet) uses. Default [`TransferMode::Reliable`].
    pub fn transfer_mode(mut self, mode: TransferMode) -> Self {
        self.transfer_mode = mode;
        self
    }

    /// How connections that [`join`](MeshBuilder::join) makes are configured. Those that you make yourself, for
    /// [`build`](MeshBuilder::build), have their own configuration.
    pub fn connection(mut self, config: PeerConnectionConfig) -> Self {
        self.connection = config;
        self
    }

    /// How the unreliable modes of peers that [`join`](MeshBuilder::join) adds give up on a packet. Default
    /// [`UnreliableLifetime::Once`].
    pub fn unreliable_lifetime(mut self, lifetime: UnreliableLifetime) -> Self {
        self.unreliable_lifetime = lifetime;
        self
    }

    /// How long a peer may take from being added to being connected, all its attempts together. Beyond it, it fails
    /// with the stage it was stuck in. Default 30 s.
    pub fn handshake_limit(mut self, limit: Duration) -> Self {
        self.limits.handshake = limit.min(FOREVER);
        self
    }

    /// How long the first attempt of [`join`](MeshBuilder::join) to connect a peer may take, before a fresh connection
    /// takes its place, which has twice as long, and those after it four times. Default 8 s.
    pub fn attempt_limit(mut self, limit: Duration) -> Self {
        self.attempt_limit = limit.min(FOREVER);
        self
    }

    /// How long a connected peer may be silent before it is lost, counted from its `PeerUnstable`. That comes within 4 s
    /// when nothing is heard of it; when it is heard, and hears nothing of us, within 7 s (9 s if it is not of this
    /// crate; over a relay of ours only when it falls silent itself). Default 8 s.
    ///
    /// What was under way when a longer silence began may be beyond saving: SCTP sends it for the last time some 25 s
    /// later. Then the peer recovers, and leaves with [`Unacknowledged`](crate::DisconnectReason::Unacknowledged) some
    /// 12 s after that, or 45 s if it is not of this crate.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace.min(FOREVER);
        self
    }

    /// How long `close` and `remove_peer` wait for the remote to confirm what was sent. Default 5 s.
    pub fn farewell(mut self, limit: Duration) -> Self {
        self.limits.farewell = limit.min(FOREVER);
        self
    }

    /// How long the queue of reliable packets for a peer may stay full, without a packet leaving it, before the peer
    /// leaves with [`TooSlow`](crate::DisconnectReason::TooSlow). Default 30 s.
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.limits.stall = limit.min(FOREVER);
        self
    }

    /// How many bytes of reliable packets may wait here for one peer. When it is full, `send` waits. Each packet
    /// counts with 64 bytes of overhead; the last one may go over it. Default 1 MiB.
    pub fn send_queue_bytes(mut self, bytes: usize) -> Self {
        self.bounds.reliable_bytes = bytes.max(1);
        self
    }

    /// How many bytes of unreliable packets may wait here, for one peer and mode on the way out, and from one peer on
    /// the way in. When it is full, the oldest are shed and counted in `Lagged`. Each packet counts with 64 bytes of
    /// overhead. Default 256 KiB.
    pub fn unreliable_queue_bytes(mut self, bytes: usize) -> Self {
        self.bounds.unreliable_bytes = bytes.max(1);
        self
    }

    /// How many bytes of reliable packets from one peer may be here unread; then it is sent no more until some are
    /// read. Each packet counts with 64 bytes of overhead. Default 4 MiB, from
    /// 512 KiB to 1 GiB.
    pub fn receive_window_bytes(mut self, bytes: usize) -> Self {
        self.limits.window_bytes = bytes.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES);
        self
    }

    /// How many peers there may be, connected or not. Default 128: each costs some 500 KiB and a socket for each
    /// address of this machine, and in a full mesh everyone sends everything to everyone.
    pub fn max_peers(mut self, peers: usize) -> Self {
        self.max_peers = peers;
        self
    }

    /// Asks the callback about each peer that signalling brings to [`join`](Self::join), before a connection to it is made:
    /// a ban list, a room that is full, tickets that were checked elsewhere (all that is known of the peer is its id). `Ok` lets it in; with an error, the peer fails with
    /// [`PeerFailure::Refused`](crate::PeerFailure::Refused) and the error's text, once for each time that it joins;
    /// it is told nothing. It is asked again about each later life of the peer, also when a lost link is to be made anew,
    /// and may be asked about many peers at once. Default none: everyone is welcome. A second one takes the place of the first.
    ///
    /// It has 10 s. Who gets no answer in that time, or a panic for one, is not let in. Nobody else waits for it.
    ///
    /// ```
    /// # use std::{collections::HashSet, sync::{Arc, Mutex}};
    /// # use webrtc_mesh::{Mesh, PeerId};
    /// let banned: Arc<Mutex<HashSet<PeerId>>> = Arc::default();
    /// let builder = Mesh::builder().admission(move |peer| {
    ///     let is_banned = banned.lock().unwrap().contains(&peer);
    ///     async move { if is_banned { Err("banned for cheating") } else { Ok(()) } }
    /// });
    /// # let _ = builder;
    /// ```
    ///
    /// # Cancel safety
    ///
    /// It runs as a task, which is aborted when the mesh is closed or dropped.
    pub fn admission<F, Asked, E>(mut self, callback: F) -> Self
    where
        F: Fn(PeerId) -> Asked + Send + Sync + 'static,
        Asked: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        self.admission = Some(join::Admission::new(callback));
        self
    }

    /// A mesh to which peers are added by hand (Godot's `initialize(id, server_compatibility)`).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build(self, id: PeerId) -> Mesh {
        let (shared, supervisor) = self.prepare(id);
        tokio::spawn(supervisor.run().instrument(shared.span.clone()));
        Mesh::new(shared)
    }

    /// Joins a mesh through signalling, which says who we are. Returns as soon as it has; peers come as events.
    ///
    /// Every peer that signalling reports is connected to. An attempt that dies, or is not up within the attempt
    /// limit, is followed by a fresh one, within the handshake limit. If signalling is lost, connected peers stay.
    ///
    /// A peer that falls silent is looked for by restarts of ICE within its grace time; their signals go through signalling
    /// and, as that may be gone, through other members, sealed. One that is lost all the same, or failed at the handshake
    /// limit, is connected anew as long as signalling says that it is there: as a new life, after 250 ms, and twice as
    /// long after each failure, at the most 5 s (60 s with a peer that is not of this crate). One that was removed, here
    /// or there, or has closed its mesh, is not, until signalling or its own offer brings it back. (A browser page closes
    /// the connection, too, when it has lost us; so one that is not of this crate, and stays, is offered to after 3 s.)
    ///
    /// A peer of which the owner has not read the ends of 4 former lives waits until some are read, as in
    /// [`add_peer`](MeshHandle::add_peer); the others do not wait for it.
    ///
    /// # Errors
    ///
    /// [`JoinError::Connection`] if no connection can be made as [`connection`](Self::connection) says; signalling is
    /// not asked then. [`JoinError::Signaling`] with signalling's reason; [`JoinError::TimedOut`] if it gave no id within the
    /// handshake limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the signalling, and makes no mesh.
    pub async fn join(self, mut signaling: impl Signaling) -> Result<Mesh, JoinError> {
        self.connection.check().map_err(JoinError::Connection)?;
        let limit = self.limits.handshake;
        let joined = tokio::time::timeout(limit, signaling.join()).await;
        let id = joined.map_err(|_| JoinError::TimedOut { limit })??;
        let plan = join::Plan {
            connection: self.connection.clone(),
            unreliable_lifetime: self.unreliable_lifetime,
            attempt_limit: self.attempt_limit,
            farewell: self.limits.farewell,
            admission: self.admission.clone(),
        };
        let (shared, supervisor) = self.prepare(id);
        let handle = MeshHandle { shared: shared.clone() };
        let span = shared.span.clone();
        let letters = shared.meeting.joined(signaling.lobby());
        let driver = tokio::spawn(join::run(signaling, letters, handle, plan).instrument(span.clone()));
        tokio::spawn(supervisor.signaling(driver).run().instrument(span));
        Ok(Mesh::new(shared))
    }

    fn prepare(self, id: PeerId) -> (Arc<Shared>, Supervisor) {
        let state = State::new(id, self.server_compatibility, self.max_peers);
        let (commands, to_do) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::new(
            id,
            Arc::new(Inbox::default()),
            commands,
            state.status(),
            self.refuse_new_connections,
            self.transfer_mode,
            tracing::info_span!("mesh", %id),
        ));
        let supervisor = Supervisor::new(shared.clone(), to_do, state, self.limits, self.bounds);
        (shared, supervisor)
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("handle", &self.handle()).finish()
    }
}

impl fmt::Debug for MeshStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshStream").field("handle", &self.handle()).field("over", &self.over).finish()
    }
}

impl fmt::Debug for MeshSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshSink").field("handle", &self.handle()).field("closed", &self.closed).finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::event::DisconnectReason;
    use crate::signaling::loopback::Hub;

    async fn joined(hub: &Hub) -> Mesh {
        let loopback = PeerConnectionConfig::new().bind(([127, 0, 0, 1], 0).into());
        Mesh::builder().connection(loopback).join(hub.join()).await.unwrap()
    }

    async fn next(mesh: &mut Mesh) -> MeshEvent {
        tokio::time::timeout(Duration::from_secs(10), mesh.next()).await.expect("in time").expect("an event")
    }

    #[tokio::test]
    async fn a_panicking_peer_leaves_and_the_rest_stay() {
        let hub = Hub::new();
        let [a, b] = [2, 3].map(|n| PeerId::new(n).unwrap());
        let mut mesh = joined(&hub).await;
        let (mut peer_a, mut peer_b) = (joined(&hub).await, joined(&hub).await);
        for _ in 0..2 {
            assert!(matches!(next(&mut mesh).await, MeshEvent::PeerConnected(_)));
            assert!(matches!(next(&mut peer_a).await, MeshEvent::PeerConnected(_)));
            assert!(matches!(next(&mut peer_b).await, MeshEvent::PeerConnected(_)));
        }

        mesh.stream.shared.registry()[&a].peer.panic.notify_one();
        assert_eq!(next(&mut mesh).await, MeshEvent::PeerDisconnected(a, DisconnectReason::Panicked));
        let server = PeerId::SERVER;
        assert_eq!(
            next(&mut peer_a).await,
            MeshEvent::PeerDisconnected(server, DisconnectReason::RemoteClose),
            "its connection is closed all the same"
        );

        mesh.handle().try_send(OutgoingPacket::reliable(b, "still here?")).unwrap();
        assert!(
            matches!(next(&mut peer_b).await, MeshEvent::Packet(packet) if &packet.payload[..] == b"still here?")
        );
        mesh.handle().close().await;
    }

    #[test]
    fn a_limit_can_be_switched_off_by_the_longest_duration() {
        let never = Duration::MAX;
        let builder = MeshBuilder::default()
            .handshake_limit(never)
            .attempt_limit(never)
            .grace(never)
            .farewell(never)
            .stall_limit(never);
        let Limits { handshake, grace, farewell, stall, .. } = builder.limits;
        for limit in [handshake, builder.attempt_limit, grace, farewell, stall] {
            assert!(tokio::time::Instant::now().checked_add(2 * limit).is_some());
        }
    }
}
