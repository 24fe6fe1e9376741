//! What many hold: [`MeshHandle`], and what it shares with the mesh's task ([`Shared`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::inbox::{Inbox, Lane};
use super::meeting::Meeting;
use super::reports::Reports;
use super::state::ConnectionStatus;
use super::wait::Waiters;
use crate::connection::{MAX_MESSAGE_BYTES, NotOpened, PeerConnection, UnreliableLifetime};
use crate::error::{AddPeerError, SendError, TrySendError, UnknownPeer};
use crate::event::PeerFailure;
use crate::id::{PeerId, Target};
use crate::packet::{OutgoingPacket, TransferMode};
use crate::peer::{Delivery as _, Farewell, Gauges, Life, Outbox, Refusal, Takeover};

/// A handle to a mesh: cloneable, usable from any task. It does not keep the mesh alive.
///
/// The mode and the target that [`put_packet`](MeshHandle::put_packet) uses belong to the mesh, not to the handle:
/// every clone sees the same. They are there because Godot's page has them; [`send`](MeshHandle::send) with a packet
/// that names its own is what new code uses.
#[derive(Clone)]
pub struct MeshHandle {
    pub(super) shared: Arc<Shared>,
}

/// What handles, the mesh's ends and its task share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: PeerId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Who is there; the mesh's task alone changes it.
    pub(super) registry: RwLock<BTreeMap<PeerId, Arc<Entry>>>,
    status: AtomicU8,
    refuses: AtomicBool,
    transfer_mode: AtomicU8,
    target: AtomicU32,
    /// The mesh is closed, or about to be: nothing is taken any more.
    closing: AtomicBool,
    /// Asks the task to close.
    pub(super) close: CancellationToken,
    /// Stops everything at once.
    pub(super) stop: CancellationToken,
    /// Every peer has left, so signalling may be told that we go.
    pub(super) gone: CancellationToken,
    /// Nothing runs any more.
    pub(super) closed: watch::Sender<bool>,
    /// How it stands with signalling.
    pub(super) meeting: Meeting,
    /// Of the peers that have ended.
    pub(super) reports: Reports,
    /// Who waits for a peer to be connected.
    pub(super) waiters: Waiters,
    pub(super) span: tracing::Span,
}

/// What the task is asked.
#[derive(Debug)]
pub(super) enum Command {
    Add {
        peer: PeerId,
        first: Takeover,
        renewable: bool,
        reply: oneshot::Sender<Result<Life, AddPeerError>>,
    },
    Remove {
        peer: PeerId,
        /// The life that was told to leave already.
        begun: Option<Life>,
        farewell: Farewell,
        gone: oneshot::Sender<Result<(), UnknownPeer>>,
    },
    /// Tells when this life is over.
    AwaitEnd {
        life: Life,
        gone: oneshot::Sender<Result<(), UnknownPeer>>,
    },
    /// A peer that signalling brought, for which no connection could be made.
    Fail {
        peer: PeerId,
        failure: PeerFailure,
    },
}

/// One peer, as the handles see it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) life: Life,
    pub(super) connection: Mutex<PeerConnection>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) lane: Arc<Lane>,
    pub(super) connected: AtomicBool,
    /// It leaves, or has left but for its task.
    pub(super) leaving: AtomicBool,
    /// The owner was told that it is gone; its task goes on for a moment.
    pub(super) departed: AtomicBool,
    /// The owner was told that it is connected.
    pub(super) announced: AtomicBool,
    /// What both sides take, once connected.
    pub(super) max_message_bytes: AtomicUsize,
    pub(super) peer: crate::peer::Peer,
}

/// A peer, at the moment of asking (Godot's `get_peer`).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its connection.
    pub connection: PeerConnection,
    /// Its three channels: reliable, ordered, unreliable, as Godot orders them.
    pub channels: [ChannelInfo; 3],
    /// Whether all three are open, so that packets can be sent.
    pub connected: bool,
    /// The round trip: of ICE's requests, one in a second, which wait behind no packets; looked at every 2 s.
    pub round_trip_time: Option<Duration>,
    /// Channels that the remote opened beyond the agreed ones; they were closed.
    pub refused_channels: u64,
}

/// One channel of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// The packets it carries.
    pub mode: TransferMode,
    /// Its SCTP stream (W3C `RTCDataChannel.id`).
    pub id: u16,
    /// Its label, which never crosses the wire.
    pub label: &'static str,
    /// Packets that wait here to be handed to SCTP.
    pub queued_packets: usize,
    /// The same in bytes, with 64 bytes of overhead for each packet: what the queue's bound counts.
    pub queued_bytes: usize,
}

impl MeshHandle {
    /// Our own id (Godot's `get_unique_id`). It stays what it was after the mesh is closed.
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// Whether our own id is 1.
    pub fn is_server(&self) -> bool {
        self.id().is_server()
    }

    /// Whether the mesh as a whole is connected (Godot's `get_connection_status`).
    pub fn status(&self) -> ConnectionStatus {
        match self.shared.status.load(Ordering::Acquire) {
            0 => ConnectionStatus::Disconnected,
            1 => ConnectionStatus::Connecting,
            _ => ConnectionStatus::Connected,
        }
    }

    /// Adds a peer: makes its channels on the connection, which must be [`New`](crate::ConnectionState::New), and
    /// lets a task of its own look after it. Then `create_offer` on one side, and carry the signals.
    ///
    /// Waits while the owner has not read of the ends of 4 former lives of this peer, or of 1,024 in all.
    ///
    /// `unreliable_lifetime` is how the two unreliable channels give up on what *we* send.
    ///
    /// # Errors
    ///
    /// See [`AddPeerError`], in the order of its variants. The connection stays as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait. The peer may have been added.
    pub async fn add_peer(
        &self,
        connection: PeerConnection,
        peer: PeerId,
        unreliable_lifetime: UnreliableLifetime,
    ) -> Result<(), AddPeerError> {
        self.add(connection, peer, unreliable_lifetime, false).await.map(|_| ())
    }

    pub(super) async fn add(
        &self,
        connection: PeerConnection,
        peer: PeerId,
        unreliable_lifetime: UnreliableLifetime,
        renewable: bool,
    ) -> Result<Life, AddPeerError> {
        let shared = &self.shared;
        self.admission(peer).await;
        // Its owner was told that it has left, so its id is free but for a moment: the farewell time at the most.
        let departed =
            shared.registry().get(&peer).filter(|entry| entry.has_departed()).map(|entry| entry.life);
        if let Some(life) = departed {
            let (gone, left) = oneshot::channel();
            if shared.commands.send(Command::AwaitEnd { life, gone }).await.is_ok() {
                let _ = left.await;
            }
        }
        let (made, channels_made) = oneshot::channel();
        let (reply, replied) = oneshot::channel();
        let first = Takeover { connection, unreliable_lifetime, made };
        let command = Command::Add { peer, first, renewable, reply };
        shared.commands.send(command).await.map_err(|_| AddPeerError::MeshClosed)?;
        let life = replied.await.map_err(|_| AddPeerError::MeshClosed)??;
        let error = match channels_made.await {
            Ok(Ok(())) => return Ok(life),
            Ok(Err(NotOpened::NotNew)) => AddPeerError::NotNew,
            Ok(Err(NotOpened::Failed(error))) => AddPeerError::Connection(error),
            // Its task ended before it began: the mesh closes.
            Err(_) => return Err(AddPeerError::MeshClosed),
        };
        // Whoever is told so must find the id free, and nobody there.
        let (gone, left) = oneshot::channel();
        if shared.commands.send(Command::AwaitEnd { life, gone }).await.is_ok() {
            let _ = left.await;
        }
        Err(error)
    }

    /// Waits until one more life of this peer can be put on record, or none will ever be.
    pub(super) async fn admission(&self, peer: PeerId) {
        let shared = &self.shared;
        loop {
            let life_read = shared.inbox.life_read.notified();
            tokio::pin!(life_read);
            life_read.as_mut().enable();
            if shared.is_closing() || self.refuse_new_connections() || shared.inbox.admits(peer) {
                return;
            }
            tokio::select! {
                biased;
                () = life_read => {}
                () = shared.close.cancelled() => {}
                () = shared.stop.cancelled() => {}
            }
        }
    }

    /// Removes a peer and waits until it has left.
    ///
    /// A connected one gets what `send` had accepted, as in [`close`](MeshHandle::close), and is told; then its
    /// `PeerDisconnected` says `Removed`, or `Unconfirmed` if it did not confirm everything within the farewell time
    /// (default 5 s). One that is still connecting goes at once and in silence. Afterwards the id is free.
    ///
    /// # Errors
    ///
    /// [`UnknownPeer`] if there is no such peer, or none any more as the mesh is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the removal.
    pub async fn remove_peer(&self, peer: PeerId) -> Result<(), UnknownPeer> {
        self.dismiss(peer, Farewell::Removed).await
    }

    pub(super) async fn dismiss(&self, peer: PeerId, farewell: Farewell) -> Result<(), UnknownPeer> {
        // At once, whoever waits for the supervisor or does not.
        let begun = self.shared.registry().get(&peer).map(|entry| {
            entry.peer.leave(farewell);
            entry.life
        });
        let (gone, left) = oneshot::channel();
        let command = Command::Remove { peer, begun, farewell, gone };
        self.shared.commands.send(command).await.map_err(|_| UnknownPeer(peer))?;
        // Without a reply the mesh is gone, and the peer with it.
        left.await.unwrap_or(Ok(()))
    }

    /// The peer, connected or not; `None` if there is none (Godot's `get_peer`).
    ///
    /// # Cancel safety
    ///
    /// It is ready at once.
    pub async fn peer(&self, peer: PeerId) -> Option<PeerInfo> {
        self.shared.registry().get(&peer).filter(|entry| !entry.has_departed()).map(|entry| entry.info())
    }

    /// All peers, connected or not, by ascending id (Godot's `get_peers`).
    ///
    /// # Cancel safety
    ///
    /// It is ready at once.
    pub async fn peers(&self) -> BTreeMap<PeerId, PeerInfo> {
        let registry = self.shared.registry();
        let there = registry.iter().filter(|(_, entry)| !entry.has_departed());
        there.map(|(peer, entry)| (*peer, entry.info())).collect()
    }

    /// Whether the peer is in the mesh, connected or not (Godot's `has_peer`).
    ///
    /// # Cancel safety
    ///
    /// It is ready at once.
    pub async fn has_peer(&self, peer: PeerId) -> bool {
        self.shared.registry().get(&peer).is_some_and(|entry| !entry.has_departed())
    }

    /// Refuses new peers, or no more. Those that were added, connected or not, are not concerned.
    pub fn set_refuse_new_connections(&self, refuse: bool) {
        self.shared.refuses.store(refuse, Ordering::Release);
        // Whoever waits to add a peer waits no more.
        self.shared.inbox.life_read.notify_waiters();
    }

    /// Whether new peers are refused.
    pub fn refuse_new_connections(&self) -> bool {
        self.shared.refuses.load(Ordering::Acquire)
    }

    /// Sets the mode of [`put_packet`](MeshHandle::put_packet).
    pub fn set_transfer_mode(&self, mode: TransferMode) {
        self.shared.transfer_mode.store(mode as u8, Ordering::Release);
    }

    /// The mode of [`put_packet`](MeshHandle::put_packet); [`Reliable`](TransferMode::Reliable) unless the builder
    /// said otherwise.
    pub fn transfer_mode(&self) -> TransferMode {
        TransferMode::try_from(self.shared.transfer_mode.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Sets the target of [`put_packet`](MeshHandle::put_packet) (Godot's `set_target_peer`). It is not checked
    /// before a packet is put.
    pub fn set_target(&self, target: Target) {
        self.shared.target.store(target.to_godot().cast_unsigned(), Ordering::Release);
    }

    /// The target of [`put_packet`](MeshHandle::put_packet); at first [`Target::All`].
    pub fn target(&self) -> Target {
        Target::try_from(self.shared.target.load(Ordering::Acquire).cast_signed()).unwrap_or_default()
    }

    /// Sends to [`target`](MeshHandle::target) by [`transfer_mode`](MeshHandle::transfer_mode), as Godot does; waits
    /// as [`send`](MeshHandle::send) does.
    ///
    /// # Errors
    ///
    /// As [`send`](MeshHandle::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](MeshHandle::send).
    pub async fn put_packet(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.send(OutgoingPacket::new(self.target(), self.transfer_mode(), payload)).await
    }

    /// Sends a packet; a reliable one waits until there is room in the queue of its target, or of all its targets.
    ///
    /// Accepted means: it is in the queues of its targets. A broadcast goes to those who are connected now, to all of
    /// them or, with an error, to none; to nobody at all is no error. While it waits for one target it holds no room
    /// at the others. A peer whose queue stays full, and that takes no packet, for the stall limit (default 30 s)
    /// leaves with [`TooSlow`](crate::DisconnectReason::TooSlow), so the wait ends.
    ///
    /// An unreliable packet never waits: if the queue is full, the oldest packet in it is shed and counted in
    /// [`Lagged`](crate::MeshEvent::Lagged).
    ///
    /// **Do not wait here inside the loop that reads the mesh.** If two programs both wait for room in their receive
    /// loops, neither reads, so neither has room, and they wait until the stall limit ends one of them. Send from
    /// another task, or use [`split`](crate::Mesh::split), or [`try_send`](MeshHandle::try_send).
    ///
    /// # Errors
    ///
    /// See [`SendError`]; nothing was sent then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready sends nothing.
    pub async fn send(&self, mut packet: OutgoingPacket) -> Result<(), SendError> {
        loop {
            let full = match self.shared.offer(&mut packet, false) {
                Offer::Taken => return Ok(()),
                Offer::Refused(error) => return Err(error),
                Offer::Full(full) => full,
            };
            let Some(full) = full.into_iter().next() else { continue };
            let room = full.outbox.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            // Once more, now that no news can be missed.
            match self.shared.offer(&mut packet, false) {
                Offer::Taken => return Ok(()),
                Offer::Refused(error) => return Err(error),
                Offer::Full(now_full) if now_full.iter().any(|entry| Arc::ptr_eq(entry, &full)) => room.await,
                Offer::Full(_) => {}
            }
        }
    }

    /// Sends a packet if there is room for it now; see [`send`](MeshHandle::send).
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] gives the packet back if the queue of a target is full, which no unreliable packet
    /// meets; [`TrySendError::Refused`] is final.
    pub fn try_send(&self, mut packet: OutgoingPacket) -> Result<(), TrySendError> {
        match self.shared.offer(&mut packet, false) {
            Offer::Taken => Ok(()),
            Offer::Refused(error) => Err(TrySendError::Refused(error)),
            Offer::Full(_) => Err(TrySendError::Full(packet)),
        }
    }

    /// Closes the mesh and waits until nothing of it runs.
    ///
    /// From now on nothing is accepted. What `send` had accepted is sent, and between two members of this crate it is
    /// waited for the remote's acknowledgement, for at most the farewell time (default 5 s); with others, until
    /// their SCTP has acknowledged it for longer than a retransmission takes. Then each peer is told, and reported as
    /// `PeerDisconnected` with `LocalClose`, or with `Unconfirmed` if it did not confirm everything. After the last
    /// event the stream ends with `None`. Nobody needs to read the events for that.
    ///
    /// A loop that reads the mesh may wait for it: nothing here waits for the reader.
    ///
    /// Every call waits for the same end; after it, no task, socket or timer of the mesh is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the closing.
    pub async fn close(&self) {
        self.shared.begin_close();
        // The sender is in `shared`, which is held here.
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }
}

impl fmt::Debug for MeshHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshHandle")
            .field("id", &self.id())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

/// What became of an offered packet.
pub(super) enum Offer {
    /// It is in the queues of its targets.
    Taken,
    /// These targets have no room. It is nowhere; or, overfilling, everywhere.
    Full(Vec<Arc<Entry>>),
    /// It is nowhere, and will not be taken later.
    Refused(SendError),
}

impl Shared {
    pub(super) fn new(
        id: PeerId,
        inbox: Arc<Inbox>,
        commands: mpsc::Sender<Command>,
        status: ConnectionStatus,
        refuses: bool,
        transfer_mode: TransferMode,
        span: tracing::Span,
    ) -> Shared {
        Shared {
            id,
            inbox,
            commands,
            registry: RwLock::default(),
            status: AtomicU8::new(status as u8),
            refuses: AtomicBool::new(refuses),
            transfer_mode: AtomicU8::new(transfer_mode as u8),
            target: AtomicU32::new(Target::All.to_godot().cast_unsigned()),
            closing: AtomicBool::new(false),
            close: CancellationToken::new(),
            stop: CancellationToken::new(),
            gone: CancellationToken::new(),
            closed: watch::Sender::new(false),
            meeting: Meeting::default(),
            reports: Reports::default(),
            waiters: Waiters::default(),
            span,
        }
    }

    pub(super) fn registry(&self) -> RwLockReadGuard<'_, BTreeMap<PeerId, Arc<Entry>>> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_status(&self, status: ConnectionStatus) {
        self.status.store(status as u8, Ordering::Release);
    }

    pub(super) fn is_refusing(&self) -> bool {
        self.refuses.load(Ordering::Acquire)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
        self.set_status(ConnectionStatus::Disconnected);
        self.close.cancel();
    }

    /// Puts a packet into the queues of all its targets, or into none. `overfill` puts it there even if they are
    /// full, and then says so. Where it goes to one peer alone, the payload is taken out of the packet, so that nobody
    /// shares it, and it needs no copy on its way.
    pub(super) fn offer(&self, packet: &mut OutgoingPacket, overfill: bool) -> Offer {
        if self.is_closing() {
            return Offer::Refused(SendError::MeshClosed);
        }
        let registry = self.registry();
        // Never taken by anyone, so not by a broadcast to nobody either.
        let too_large = packet.payload.len() > MAX_MESSAGE_BYTES && !matches!(packet.target, Target::Peer(_));
        if too_large {
            let actual = packet.payload.len();
            return Offer::Refused(SendError::TooLarge { actual, limit: MAX_MESSAGE_BYTES });
        }
        let excepted = match packet.target {
            Target::Peer(peer) => {
                let entry = registry.get(&peer).filter(|entry| !entry.has_departed()).cloned();
                drop(registry);
                return match entry {
                    Some(entry) => entry.offer(peer, packet, overfill),
                    None => Offer::Refused(SendError::UnknownPeer(peer)),
                };
            }
            Target::AllExcept(peer) => Some(peer),
            Target::All => None,
        };
        let targets: Vec<Arc<Entry>> = registry
            .iter()
            .filter(|(peer, entry)| Some(**peer) != excepted && entry.connected.load(Ordering::Acquire))
            .map(|(_, entry)| entry.clone())
            .collect();
        drop(registry);
        broadcast(&targets, packet, overfill)
    }
}

/// All or none. The queues are locked by ascending id, so two broadcasts never wait for each other.
fn broadcast(targets: &[Arc<Entry>], packet: &OutgoingPacket, overfill: bool) -> Offer {
    let mut taking = Vec::with_capacity(targets.len());
    let mut full = Vec::new();
    let mut limit = None;
    for entry in targets {
        let queues = entry.outbox.lock();
        match entry.outbox.check(&queues, packet.mode, packet.payload.len()) {
            Ok(()) => taking.push((entry, queues)),
            Err(Refusal::Full) => {
                full.push(entry.clone());
                taking.push((entry, queues));
            }
            Err(Refusal::TooLarge(bytes)) => {
                limit = Some(limit.map_or(bytes, |limit: usize| limit.min(bytes)))
            }
            // It has just left.
            Err(Refusal::NotConnected) => {}
        }
    }
    if let Some(limit) = limit {
        return Offer::Refused(SendError::TooLarge { actual: packet.payload.len(), limit });
    }
    if full.is_empty() || overfill {
        for (entry, mut queues) in taking {
            let shed = entry.outbox.push(&mut queues, packet.mode, packet.payload.clone());
            drop(queues);
            entry.gauges.counters(packet.mode).count_shed_sending(shed);
            entry.lane.shed(packet.mode, shed);
        }
    }
    if full.is_empty() { Offer::Taken } else { Offer::Full(full) }
}

impl Entry {
    fn offer(self: Arc<Entry>, peer: PeerId, packet: &mut OutgoingPacket, overfill: bool) -> Offer {
        let mut queues = self.outbox.lock();
        let full = match self.outbox.check(&queues, packet.mode, packet.payload.len()) {
            Ok(()) => false,
            Err(Refusal::Full) => true,
            Err(Refusal::NotConnected) => return Offer::Refused(SendError::NotConnected(peer)),
            Err(Refusal::TooLarge(limit)) => {
                return Offer::Refused(SendError::TooLarge { actual: packet.payload.len(), limit });
            }
        };
        if full && !overfill {
            drop(queues);
            return Offer::Full(vec![self]);
        }
        let shed = self.outbox.push(&mut queues, packet.mode, std::mem::take(&mut packet.payload));
        drop(queues);
        self.gauges.counters(packet.mode).count_shed_sending(shed);
        self.lane.shed(packet.mode, shed);
        if full { Offer::Full(vec![self]) } else { Offer::Taken }
    }

    /// Whether it was never connected, and is not told to leave.
    pub(super) fn is_connecting(&self) -> bool {
        !self.is_connected() && !self.leaving.load(Ordering::Acquire)
    }

    fn has_departed(&self) -> bool {
        self.departed.load(Ordering::Acquire)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether it can hand on what is for another peer.
    pub(super) fn can_relay(&self) -> bool {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_connected() && connection.is_among_us() && !connection.is_silent()
    }

    /// Whether the owner was told, and it has not begun to leave.
    pub(super) fn is_announced(&self) -> bool {
        self.is_connected() && self.announced.load(Ordering::Acquire)
    }

    /// A fresh connection has taken the place of the one before.
    pub(super) fn set_connection(&self, connection: PeerConnection) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn info(&self) -> PeerInfo {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queues = self.outbox.lock();
        let channel = |mode, id, label| ChannelInfo {
            mode,
            id,
            label,
            queued_packets: queues.waiting(mode),
            queued_bytes: queues.waiting_bytes(mode),
        };
        PeerInfo {
            channels: [
                channel(TransferMode::Reliable, 1, "reliable"),
                channel(TransferMode::UnreliableOrdered, 2, "ordered"),
                channel(TransferMode::Unreliable, 3, "unreliable"),
            ],
            connected: self.connected.load(Ordering::Acquire),
            round_trip_time: self.gauges.round_trip(),
            refused_channels: connection.refused_channels(),
            connection,
        }
    }
}
