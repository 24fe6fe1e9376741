//! D: str0m, which does no I/O of its own; here a tokio task and a UDP socket on 127.0.0.1 for each connection.
//!
//! The loop is that of str0m's page: one change, then everything it wants sent is sent, then the next. What is to be sent
//! comes by a queue, 64 reliable messages at the most; one that str0m does not accept waits until it reports that the
//! buffered amount is low. It may buffer its default of 128 KiB, with which it is three times as fast on loopback as with
//! more, and 1 MiB behind the relay, where the default would cap it at so much per round trip. Socket buffers are 4 MiB as
//! the mesh's are, and up to 64 datagrams are taken in a turn. An unreliable message that finds 1,024 waiting, or that is
//! not accepted, is left out. A mesh is a connection for every two nodes and a loop. Cryptography is aws-lc, its default.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::relay::{Relay, loopback_socket};
use crate::stack::{Failure, Inbox, Node, RELIABLE, ROOM, Result, Stack, UNRELIABLE};
use crate::stacks::pairs;

/// str0m 0.25.
#[derive(Debug)]
pub struct Str0m;

/// Reliable messages in front of a connection's task.
const QUEUE: usize = 64;
/// Unreliable ones: 200 KiB of 200 bytes each.
const UNRELIABLE_QUEUE: usize = 1024;
/// Datagrams, or messages, in a turn of the loop.
const TURN: usize = 64;

impl Stack for Str0m {
    type Node = Member;

    async fn open(nodes: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<Vec<Member>> {
        let mut opening = JoinSet::new();
        for (a, b) in pairs(nodes) {
            let (inbox, relay) = (Arc::clone(&inbox), relay.clone());
            opening.spawn(async move { Ok::<_, Failure>((a, b, link(a, b, inbox, relay).await?)) });
        }
        let mut links: Vec<Vec<Option<Queues>>> = (0..nodes).map(|_| vec![None; nodes]).collect();
        while let Some(opened) = opening.join_next().await {
            let (a, b, [here, there]) = opened??;
            links[a][b] = Some(here);
            links[b][a] = Some(there);
        }
        Ok(links.into_iter().map(|links| Member { links: links.into() }).collect())
    }
}

/// A node: queues to the connection with every other.
#[derive(Debug, Clone)]
pub struct Member {
    links: Arc<[Option<Queues>]>,
}

#[derive(Debug, Clone)]
struct Queues {
    reliable: mpsc::Sender<Bytes>,
    unreliable: mpsc::Sender<Bytes>,
}

async fn link(a: usize, b: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<[Queues; 2]> {
    let (opened, mut openings) = mpsc::unbounded_channel();
    let room = if relay.is_some() { ROOM } else { 128 * 1024 };
    let (mut here, to_here) = End::new(a, b, room, &inbox, &opened)?;
    let (mut there, to_there) = End::new(b, a, room, &inbox, &opened)?;
    drop(opened);
    let told = |from, sdp: String| relay.as_ref().map_or(sdp.clone(), |relay| relay.description(from, &sdp));

    let mut changes = here.rtc.sdp_api();
    changes.add_channel(RELIABLE.into());
    changes.add_channel_with_config(ChannelConfig {
        label: UNRELIABLE.into(),
        ordered: false,
        reliability: Reliability::MaxRetransmits { retransmits: 0 },
        ..ChannelConfig::default()
    });
    let (offer, pending) = changes.apply().ok_or("no offer")?;
    let offer = SdpOffer::from_sdp_string(&told(0, offer.to_sdp_string()))?;
    let answer = there.rtc.sdp_api().accept_offer(offer)?;
    let answer = SdpAnswer::from_sdp_string(&told(1, answer.to_sdp_string()))?;
    here.rtc.sdp_api().accept_answer(pending, answer)?;
    tokio::spawn(here.run());
    tokio::spawn(there.run());
    for _ in 0..4 {
        openings.recv().await.ok_or("a connection has ended")??;
    }
    Ok([to_here, to_there])
}

/// One end of a connection, and what its task needs.
struct End {
    at: usize,
    from: usize,
    inbox: Arc<dyn Inbox>,
    opened: mpsc::UnboundedSender<Result<()>>,
    rtc: Rtc,
    socket: UdpSocket,
    addr: SocketAddr,
    channels: HashMap<&'static str, ChannelId>,
    reliable: mpsc::Receiver<Bytes>,
    unreliable: mpsc::Receiver<Bytes>,
    /// A reliable message that was not accepted.
    waiting: Option<Bytes>,
    /// How much str0m may buffer.
    room: usize,
    /// Whether the buffered amount is low, since then.
    is_low: bool,
}

impl End {
    fn new(
        at: usize,
        from: usize,
        room: usize,
        inbox: &Arc<dyn Inbox>,
        opened: &mpsc::UnboundedSender<Result<()>>,
    ) -> Result<(End, Queues)> {
        let socket = loopback_socket()?;
        let addr = socket.local_addr()?;
        let mut rtc = Rtc::builder().set_sctp_max_buffered_amount(room).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(addr, "udp")?);
        let (to_reliable, reliable) = mpsc::channel(QUEUE);
        let (to_unreliable, unreliable) = mpsc::channel(UNRELIABLE_QUEUE);
        let end = End {
            at,
            from,
            inbox: Arc::clone(inbox),
            opened: opened.clone(),
            rtc,
            socket,
            addr,
            channels: HashMap::new(),
            reliable,
            unreliable,
            waiting: None,
            room,
            is_low: true,
        };
        Ok((end, Queues { reliable: to_reliable, unreliable: to_unreliable }))
    }

    async fn run(mut self) {
        if let Err(error) = self.drive().await {
            // Nobody listens any more once all are open; then the run ends at its time limit.
            eprintln!("a connection of str0m ended: {error}");
            let _ = self.opened.send(Err(error));
        }
    }

    async fn drive(&mut self) -> Result<()> {
        let mut buffer = vec![0; 2000];
        loop {
            let mut due = self.drain().await?;
            if self.is_low
                && let Some(payload) = self.waiting.take()
            {
                self.write_reliable(payload)?;
                due = self.drain().await?;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => self.rtc.handle_input(Input::Timeout(Instant::now()))?,
                ready = self.socket.readable() => {
                    ready?;
                    self.receive(&mut buffer).await?;
                }
                Some(payload) = self.reliable.recv(), if self.waiting.is_none() && self.is_open() => {
                    let mut next = Some(payload);
                    for _ in 0..TURN {
                        let Some(payload) = next else { break };
                        self.write_reliable(payload)?;
                        self.drain().await?;
                        next = if self.waiting.is_none() { self.reliable.try_recv().ok() } else { None };
                    }
                    // What was taken beyond the turn goes first in the next.
                    if let Some(payload) = next {
                        self.waiting = Some(payload);
                        self.is_low = true;
                    }
                }
                Some(payload) = self.unreliable.recv(), if self.is_open() => {
                    let mut next = Some(payload);
                    for _ in 0..TURN {
                        let Some(payload) = next else { break };
                        self.write(UNRELIABLE, &payload)?;
                        self.drain().await?;
                        next = self.unreliable.try_recv().ok();
                    }
                    if let Some(payload) = next {
                        self.write(UNRELIABLE, &payload)?;
                    }
                }
            }
        }
    }

    /// Takes the datagrams that are here.
    async fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        for _ in 0..TURN {
            let (len, source) = match self.socket.try_recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            let received = Receive {
                proto: Protocol::Udp,
                source,
                destination: self.addr,
                contents: buffer[..len].try_into()?,
            };
            self.rtc.handle_input(Input::Receive(Instant::now(), received))?;
            self.drain().await?;
        }
        Ok(())
    }

    /// Sends all that is to be sent, and hands over all that has arrived; until when nothing more is to be done.
    async fn drain(&mut self) -> Result<Instant> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(due) => return Ok(due),
                Output::Transmit(datagram) => {
                    // What the kernel refuses is lost, as on any network.
                    let _ = self.socket.send_to(&datagram.contents, datagram.destination).await;
                }
                Output::Event(event) => self.handle(event)?,
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::ChannelData(data) => self.inbox.message(self.at, self.from, &data.data),
            Event::ChannelOpen(id, label) => {
                let label = if label == RELIABLE { RELIABLE } else { UNRELIABLE };
                if label == RELIABLE
                    && let Some(mut channel) = self.rtc.channel(id)
                {
                    channel.set_buffered_amount_low_threshold(self.room / 4);
                }
                self.channels.insert(label, id);
                let _ = self.opened.send(Ok(()));
            }
            Event::ChannelBufferedAmountLow(_) => self.is_low = true,
            Event::ChannelClose(_) => return Err("a channel was closed".into()),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                return Err("the connection was lost".into());
            }
            _ => {}
        }
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.channels.len() == 2
    }

    fn write_reliable(&mut self, payload: Bytes) -> Result<()> {
        if !self.write(RELIABLE, &payload)? {
            self.waiting = Some(payload);
            self.is_low = false;
        }
        Ok(())
    }

    fn write(&mut self, label: &str, payload: &[u8]) -> Result<bool> {
        let id = self.channels.get(label).ok_or("the channel is not open")?;
        let mut channel = self.rtc.channel(*id).ok_or("the channel is gone")?;
        Ok(channel.write(true, payload)?)
    }
}

impl Member {
    fn queues(&self, to: usize) -> Result<&Queues> {
        Ok(self.links.get(to).and_then(Option::as_ref).ok_or("no such node")?)
    }
}

impl Node for Member {
    async fn send(&self, to: usize, payload: Bytes) -> Result<()> {
        Ok(self.queues(to)?.reliable.send(payload).await?)
    }

    fn reply(&self, to: usize, payload: Bytes) -> Result<()> {
        Ok(self.queues(to)?.reliable.try_send(payload)?)
    }

    fn fire(&self, to: usize, payload: Bytes) {
        if let Ok(queues) = self.queues(to) {
            let _ = queues.unreliable.try_send(payload);
        }
    }

    fn fire_at_all(&self, payload: Bytes) {
        for queues in self.links.iter().flatten() {
            let _ = queues.unreliable.try_send(payload.clone());
        }
    }
}
