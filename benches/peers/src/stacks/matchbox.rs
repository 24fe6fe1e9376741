//! G: `matchbox_socket` with its signalling server, `matchbox_signaling`, in this process on 127.0.0.1.
//!
//! Its defaults, without ICE servers. It binds every interface by itself, IPv4 and IPv6, so its datagrams go between
//! addresses of this machine, though not 127.0.0.1 (the kernel keeps them within the machine all the same). Opening
//! includes joining the room. It has no buffered amount and all its queues are without a bound, so the program here does
//! what any program has to that sends more than a little: a receiver acknowledges what it has, in a message, and a sender
//! waits while so much is sent and not acknowledged. So much is 64 KiB, as more overruns its sockets' buffers and stalls it
//! for seconds, and 1 MiB behind the relay, where the others have that. Unreliable messages have no limit at all.
//!
//! Behind the relay it is signalled within this process, as its server has nobody rewrite candidates; only one IPv4 address
//! of each side is told.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use matchbox_signaling::SignalingServer;
use matchbox_socket::async_trait::async_trait;
use matchbox_socket::{
    ChannelConfig, Packet, PeerEvent, PeerId, PeerRequest, PeerSignal, PeerState, RtcIceServerConfig,
    SignalingError, Signaller, SignallerBuilder, WebRtcSocket,
};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::relay::Relay;
use crate::stack::{Inbox, Node, ROOM, Result, Stack};

/// `matchbox_socket` 0.15.
#[derive(Debug)]
pub struct Matchbox;

impl Stack for Matchbox {
    type Node = Member;

    async fn open(nodes: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<Vec<Member>> {
        let mut server = SignalingServer::full_mesh_builder((Ipv4Addr::LOCALHOST, 0)).build();
        let room = format!("ws://{}/mesh", server.bind()?);
        tokio::spawn(server.serve());
        let window = if relay.is_some() { ROOM } else { 64 * 1024 };
        let mut signallers = relay.map(Within::two).into_iter().flatten();
        let mut sockets = Vec::new();
        for _ in 0..nodes {
            let no_servers = RtcIceServerConfig { urls: Vec::new(), username: None, credential: None };
            let mut builder = WebRtcSocket::builder(&room)
                .ice_server(no_servers)
                .add_channel(ChannelConfig::reliable())
                .add_channel(ChannelConfig::unreliable());
            if let Some(signaller) = signallers.next() {
                builder = builder.signaller_builder(Arc::new(signaller));
            }
            let (socket, run) = builder.build();
            tokio::spawn(async move {
                if let Err(error) = run.await {
                    eprintln!("a socket of matchbox ended: {error}");
                }
            });
            sockets.push(socket);
        }
        connected(&mut sockets).await?;
        members(sockets, window, inbox)
    }
}

/// Waits until everybody is connected to everybody. A socket can only be asked, so it is, every millisecond.
async fn connected(sockets: &mut [WebRtcSocket]) -> Result<()> {
    loop {
        let mut all = true;
        let others = sockets.len() - 1;
        for socket in &mut *sockets {
            for (_, state) in socket.try_update_peers()? {
                if state == PeerState::Disconnected {
                    return Err("a connection was lost".into());
                }
            }
            all &= socket.id().is_some() && socket.connected_peers().count() == others;
        }
        if all {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn members(mut sockets: Vec<WebRtcSocket>, room: usize, inbox: Arc<dyn Inbox>) -> Result<Vec<Member>> {
    let nodes = sockets.len();
    let ids = sockets.iter_mut().map(|socket| socket.id().ok_or("no id"));
    let ids: Arc<[PeerId]> = ids.collect::<std::result::Result<Vec<_>, _>>()?.into();
    let windows: Arc<[Window]> = (0..nodes * nodes).map(|_| Window::new(room)).collect();
    let mut members = Vec::new();
    for (at, mut socket) in sockets.into_iter().enumerate() {
        let (reliable, from_reliable) = socket.take_channel(0)?.split();
        let (unreliable, from_unreliable) = socket.take_channel(1)?.split();
        let froms = ids.iter().copied().enumerate().map(|(from, id)| (id, from)).collect();
        let reader = Reader { at, froms, inbox: Arc::clone(&inbox), windows: Arc::clone(&windows) };
        tokio::spawn(reader.clone().read_reliable(from_reliable, reliable.clone()));
        tokio::spawn(reader.read_unreliable(from_unreliable));
        let socket = Arc::new(Mutex::new(socket));
        let (ids, windows) = (Arc::clone(&ids), Arc::clone(&windows));
        members.push(Member { at, ids, reliable, unreliable, windows, _socket: socket });
    }
    Ok(members)
}

/// How many acknowledgements there are for what may be under way.
const ACKNOWLEDGEMENTS: usize = 4;

/// A node, with its socket.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "a socket has none")]
pub struct Member {
    at: usize,
    ids: Arc<[PeerId]>,
    reliable: UnboundedSender<(PeerId, Packet)>,
    unreliable: UnboundedSender<(PeerId, Packet)>,
    /// Of each node towards each.
    windows: Arc<[Window]>,
    _socket: Arc<Mutex<WebRtcSocket>>,
}

/// Reliable bytes that were sent and are not acknowledged.
#[derive(Debug)]
struct Window {
    bytes: usize,
    under_way: AtomicUsize,
    room: Notify,
}

impl Window {
    fn new(bytes: usize) -> Window {
        Window { bytes, under_way: AtomicUsize::new(0), room: Notify::new() }
    }

    fn is_full(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) >= self.bytes
    }

    fn acknowledged(&self, bytes: usize) {
        let before = self.under_way.fetch_sub(bytes, Ordering::Relaxed);
        if before >= self.bytes && before - bytes < self.bytes {
            self.room.notify_one();
        }
    }
}

#[derive(Clone)]
struct Reader {
    at: usize,
    froms: HashMap<PeerId, usize>,
    inbox: Arc<dyn Inbox>,
    windows: Arc<[Window]>,
}

impl Reader {
    /// An acknowledgement is a message of eight bytes, of how many more have come; all others are longer.
    async fn read_reliable(
        self,
        mut packets: UnboundedReceiver<(PeerId, Packet)>,
        answers: UnboundedSender<(PeerId, Packet)>,
    ) {
        let nodes = self.froms.len();
        let mut received = vec![0; nodes];
        while let Some((id, packet)) = packets.next().await {
            let Some(&from) = self.froms.get(&id) else { continue };
            let window = &self.windows[self.at * nodes + from];
            if let Ok(bytes) = <[u8; 8]>::try_from(&packet[..]) {
                window.acknowledged(u64::from_be_bytes(bytes) as usize);
                continue;
            }
            received[from] += packet.len();
            if received[from] >= window.bytes / ACKNOWLEDGEMENTS {
                let bytes = std::mem::take(&mut received[from]) as u64;
                let _ = answers.unbounded_send((id, bytes.to_be_bytes().to_vec().into()));
            }
            self.inbox.message(self.at, from, &packet);
        }
    }

    async fn read_unreliable(self, mut packets: UnboundedReceiver<(PeerId, Packet)>) {
        while let Some((id, packet)) = packets.next().await {
            let Some(&from) = self.froms.get(&id) else { continue };
            self.inbox.message(self.at, from, &packet);
        }
    }
}

impl Node for Member {
    async fn send(&self, to: usize, payload: Bytes) -> Result<()> {
        let window = &self.windows[self.at * self.ids.len() + to];
        while window.is_full() {
            window.room.notified().await;
        }
        self.reply(to, payload)
    }

    fn reply(&self, to: usize, payload: Bytes) -> Result<()> {
        let window = &self.windows[self.at * self.ids.len() + to];
        window.under_way.fetch_add(payload.len(), Ordering::Relaxed);
        Ok(self.reliable.unbounded_send((self.ids[to], payload))?)
    }

    fn fire(&self, to: usize, payload: Bytes) {
        let _ = self.unreliable.unbounded_send((self.ids[to], payload));
    }

    fn fire_at_all(&self, payload: Bytes) {
        for to in (0..self.ids.len()).filter(|to| *to != self.at) {
            self.fire(to, payload.clone());
        }
    }
}

/// Signalling between two sockets in this process, with the relay's addresses.
struct Within {
    at: usize,
    relay: Arc<Relay>,
    to_other: mpsc::UnboundedSender<PeerEvent>,
    events: mpsc::UnboundedReceiver<PeerEvent>,
}

/// Gives its one signaller to the one socket that asks.
struct WithinBuilder(Mutex<Option<Within>>);

impl Within {
    fn two(relay: Arc<Relay>) -> [WithinBuilder; 2] {
        let (to_first, first) = mpsc::unbounded_channel();
        let (to_second, second) = mpsc::unbounded_channel();
        let _ = to_first.send(PeerEvent::IdAssigned(id(0)));
        let _ = to_second.send(PeerEvent::IdAssigned(id(1)));
        // Who is told of the other makes the offer.
        let _ = to_first.send(PeerEvent::NewPeer(id(1)));
        [
            Within { at: 0, relay: Arc::clone(&relay), to_other: to_second, events: first },
            Within { at: 1, relay, to_other: to_first, events: second },
        ]
        .map(|within| WithinBuilder(Mutex::new(Some(within))))
    }

    fn told(&self, signal: PeerSignal) -> Option<PeerSignal> {
        Some(match signal {
            PeerSignal::Offer(sdp) => PeerSignal::Offer(self.relay.description(self.at, &sdp)),
            PeerSignal::Answer(sdp) => PeerSignal::Answer(self.relay.description(self.at, &sdp)),
            PeerSignal::IceCandidate(json) => {
                let mut candidate: serde_json::Value = serde_json::from_str(&json).ok()?;
                let told = self.relay.candidate(self.at, candidate.get("candidate")?.as_str()?)?;
                *candidate.get_mut("candidate")? = told.into();
                PeerSignal::IceCandidate(candidate.to_string())
            }
        })
    }
}

fn id(at: usize) -> PeerId {
    PeerId(Uuid::from_u128(at as u128 + 1))
}

impl fmt::Debug for WithinBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WithinBuilder")
    }
}

#[async_trait]
impl SignallerBuilder for WithinBuilder {
    async fn new_signaller(
        &self,
        _: Option<u16>,
        _: String,
    ) -> std::result::Result<Box<dyn Signaller>, SignalingError> {
        let within = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(within.ok_or(SignalingError::StreamExhausted)?))
    }
}

#[async_trait]
impl Signaller for Within {
    async fn send(&mut self, request: PeerRequest) -> std::result::Result<(), SignalingError> {
        if let PeerRequest::Signal { data, .. } = request
            && let Some(data) = self.told(data)
        {
            let _ = self.to_other.send(PeerEvent::Signal { sender: id(self.at), data });
        }
        Ok(())
    }

    async fn next_message(&mut self) -> std::result::Result<PeerEvent, SignalingError> {
        self.events.recv().await.ok_or(SignalingError::StreamExhausted)
    }
}
