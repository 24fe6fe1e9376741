//! E: libdatachannel (C++, with usrsctp, libjuice and OpenSSL), by the crate `datachannel`.
//!
//! Its defaults, bound to 127.0.0.1: its own threads call back, and what arrives is handed over in the callback. Channels
//! are negotiated beforehand, as the mesh's are, so both sides make their own description (no automatic negotiation,
//! which would have both offer). What it calls the buffered amount comes on top of the 1 MiB that it gives to SCTP: `send`
//! stops at 256 KiB of it, and goes on when libdatachannel says that 64 KiB are left; it is looked at after every 16 KiB, as
//! asking takes a lock. An unreliable message is left out while anything waits for room in SCTP. A mesh is a connection for every two nodes and a loop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use datachannel::{
    ConnectionState, DataChannelHandler, DataChannelInfo, DataChannelInit, IceCandidate,
    PeerConnectionHandler, Reliability, RtcConfig, RtcDataChannel, RtcPeerConnection, SdpType,
    SessionDescription,
};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::relay::Relay;
use crate::stack::{Inbox, Node, RELIABLE, Result, Stack, UNRELIABLE};
use crate::stacks::pairs;

/// libdatachannel 0.23.
#[derive(Debug)]
pub struct Libdatachannel;

/// What may wait for room in SCTP when a reliable message is sent.
const WAITING: usize = 256 * 1024;
/// What is left when a sender that has waited goes on.
const LOW: usize = 64 * 1024;
/// How much is sent between two looks at the buffered amount.
const LOOK: usize = 16 * 1024;

impl Stack for Libdatachannel {
    type Node = Member;

    async fn open(nodes: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<Vec<Member>> {
        let mut opening = JoinSet::new();
        for (a, b) in pairs(nodes) {
            let (inbox, relay) = (Arc::clone(&inbox), relay.clone());
            opening.spawn(
                async move { Ok::<_, crate::stack::Failure>((a, b, link(a, b, inbox, relay).await?)) },
            );
        }
        let mut links: Vec<Vec<Option<Arc<Link>>>> = (0..nodes).map(|_| vec![None; nodes]).collect();
        while let Some(opened) = opening.join_next().await {
            let (a, b, [here, there]) = opened??;
            links[a][b] = Some(here);
            links[b][a] = Some(there);
        }
        Ok(links.into_iter().map(|links| Member { links: links.into() }).collect())
    }
}

/// A node: an end of a link to every other.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "what it holds has none")]
pub struct Member {
    links: Arc<[Option<Arc<Link>>]>,
}

/// One end of a connection.
#[allow(missing_debug_implementations, reason = "what it holds has none")]
struct Link {
    connection: Mutex<Box<RtcPeerConnection<Signals>>>,
    reliable: Mutex<Channel>,
    unreliable: Mutex<Channel>,
    /// What was sent since the buffered amount was looked at.
    since: AtomicUsize,
    room: Arc<Notify>,
}

type Channel = Box<RtcDataChannel<Events>>;

async fn link(
    a: usize,
    b: usize,
    inbox: Arc<dyn Inbox>,
    relay: Option<Arc<Relay>>,
) -> Result<[Arc<Link>; 2]> {
    let (opened, mut openings) = mpsc::unbounded_channel();
    let (here, from_here) = Link::new(a, b, &inbox, &opened)?;
    let (there, from_there) = Link::new(b, a, &inbox, &opened)?;
    drop(opened);
    tokio::spawn(carry(from_here, 0, Arc::clone(&there), relay.clone()));
    tokio::spawn(carry(from_there, 1, Arc::clone(&here), relay));
    lock(&here.connection).set_local_description(SdpType::Offer)?;
    for _ in 0..4 {
        openings.recv().await.ok_or("a connection has ended")??;
    }
    Ok([here, there])
}

/// Carries signals to the other side until this one is gone.
async fn carry(
    mut signals: mpsc::UnboundedReceiver<Signal>,
    from: usize,
    to: Arc<Link>,
    relay: Option<Arc<Relay>>,
) {
    while let Some(signal) = signals.recv().await {
        if let Err(error) = to.take(signal, from, relay.as_deref()) {
            eprintln!("a signal was not taken: {error}");
        }
    }
}

impl Link {
    fn new(
        at: usize,
        from: usize,
        inbox: &Arc<dyn Inbox>,
        opened: &mpsc::UnboundedSender<Result<()>>,
    ) -> Result<(Arc<Link>, mpsc::UnboundedReceiver<Signal>)> {
        let room = Arc::new(Notify::new());
        let events =
            Events { at, from, inbox: Arc::clone(inbox), opened: opened.clone(), room: Arc::clone(&room) };
        let (signals, taken) = mpsc::unbounded_channel();
        let config = RtcConfig::new::<&str>(&[]).bind_address(&"127.0.0.1").disable_auto_negotiation();
        let mut connection = RtcPeerConnection::new(&config, Signals { signals, events: events.clone() })?;
        let init = |stream| DataChannelInit::default().negotiated().manual_stream().stream(stream);
        let once = Reliability::default().unordered().unreliable().max_retransmits(0);
        let mut reliable = connection.create_data_channel_ex(RELIABLE, events.clone(), &init(1))?;
        reliable.set_buffered_amount_low_threshold(LOW)?;
        let unreliable = connection.create_data_channel_ex(UNRELIABLE, events, &init(3).reliability(once))?;
        let link = Link {
            connection: Mutex::new(connection),
            reliable: Mutex::new(reliable),
            unreliable: Mutex::new(unreliable),
            since: AtomicUsize::new(0),
            room,
        };
        Ok((Arc::new(link), taken))
    }

    fn take(&self, signal: Signal, from: usize, relay: Option<&Relay>) -> Result<()> {
        match signal {
            Signal::Description(mut description) => {
                if let Some(relay) = relay {
                    let sdp = relay.description(from, &description.sdp.to_string());
                    description.sdp = datachannel::sdp::parse_sdp(&sdp, false)?;
                }
                let is_offer = matches!(description.sdp_type, SdpType::Offer);
                let mut connection = lock(&self.connection);
                connection.set_remote_description(&description)?;
                if is_offer {
                    connection.set_local_description(SdpType::Answer)?;
                }
            }
            Signal::Candidate(mut candidate) => {
                if let Some(relay) = relay {
                    let Some(told) = relay.candidate(from, &candidate.candidate) else { return Ok(()) };
                    candidate.candidate = told;
                }
                lock(&self.connection).add_remote_candidate(&candidate)?;
            }
        }
        Ok(())
    }

    /// Sends if there is room.
    fn try_send(&self, payload: &[u8]) -> Result<bool> {
        let mut reliable = lock(&self.reliable);
        if self.since.load(Ordering::Relaxed) >= LOOK {
            if reliable.buffered_amount() >= WAITING {
                return Ok(false);
            }
            self.since.store(0, Ordering::Relaxed);
        }
        self.since.fetch_add(payload.len(), Ordering::Relaxed);
        reliable.send(payload)?;
        Ok(true)
    }

    fn fire(&self, payload: &[u8]) {
        let mut unreliable = lock(&self.unreliable);
        if unreliable.buffered_amount() == 0 {
            // What a closed channel refuses is lost.
            let _ = unreliable.send(payload);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    fn link(&self, to: usize) -> Result<&Link> {
        Ok(self.links.get(to).and_then(Option::as_deref).ok_or("no such node")?)
    }
}

impl Node for Member {
    async fn send(&self, to: usize, payload: Bytes) -> Result<()> {
        let link = self.link(to)?;
        // A permit is kept when the amount falls between the look and the wait.
        while !link.try_send(&payload)? {
            link.room.notified().await;
        }
        Ok(())
    }

    fn reply(&self, to: usize, payload: Bytes) -> Result<()> {
        Ok(lock(&self.link(to)?.reliable).send(&payload)?)
    }

    fn fire(&self, to: usize, payload: Bytes) {
        if let Ok(link) = self.link(to) {
            link.fire(&payload);
        }
    }

    fn fire_at_all(&self, payload: Bytes) {
        self.links.iter().flatten().for_each(|link| link.fire(&payload));
    }
}

/// What a connection wants carried to the other side.
enum Signal {
    Description(Box<SessionDescription>),
    Candidate(IceCandidate),
}

struct Signals {
    signals: mpsc::UnboundedSender<Signal>,
    events: Events,
}

impl PeerConnectionHandler for Signals {
    type DCH = Events;

    fn data_channel_handler(&mut self, _: DataChannelInfo) -> Events {
        self.events.clone()
    }

    fn on_description(&mut self, description: SessionDescription) {
        let _ = self.signals.send(Signal::Description(Box::new(description)));
    }

    fn on_candidate(&mut self, candidate: IceCandidate) {
        let _ = self.signals.send(Signal::Candidate(candidate));
    }

    fn on_connection_state_change(&mut self, state: ConnectionState) {
        if state == ConnectionState::Failed {
            let _ = self.events.opened.send(Err("a connection failed".into()));
        }
    }
}

/// What happens on a channel.
#[derive(Clone)]
struct Events {
    at: usize,
    from: usize,
    inbox: Arc<dyn Inbox>,
    opened: mpsc::UnboundedSender<Result<()>>,
    room: Arc<Notify>,
}

impl DataChannelHandler for Events {
    fn on_open(&mut self) {
        let _ = self.opened.send(Ok(()));
    }

    fn on_message(&mut self, message: &[u8]) {
        self.inbox.message(self.at, self.from, message);
    }

    fn on_buffered_amount_low(&mut self) {
        self.room.notify_one();
    }
}
