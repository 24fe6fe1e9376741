//! B: the `webrtc` crate by itself, on which webrtc-mesh stands: what it would be at the best if the mesh cost nothing.
//!
//! With the mesh's settings: DTLS server where it answers, no multicast DNS, the largest messages, a receive window of 8 MiB,
//! socket buffers of 4 MiB; 256 KiB may be outstanding on a channel, and 1 MiB behind the relay. A task for each channel
//! reads it. A mesh is a connection for every two nodes. While it opens, something wakes its driver every millisecond, as
//! by itself it takes 400 ms. Then nothing is said for 10 ms, or 100 behind the relay, as a DTLS client loses what comes
//! before it is ready, and a program without hellos cannot know: that is part of its opening.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use rtc::peer_connection::transport::RTCDtlsRole;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, RTCSessionDescription, SettingEngineBuilder,
};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};

use crate::relay::Relay;
use crate::stack::{Failure, Inbox, Node, RELIABLE, ROOM, Result, Stack, UNRELIABLE};
use crate::stacks::pairs;

/// `webrtc` 0.21.
#[derive(Debug)]
pub struct Webrtc;

/// What a channel may have outstanding on loopback.
const NEAR_ROOM: usize = 256 * 1024;
/// From when a channel is open until the other side does not lose what is sent.
const NEAR_READY: Duration = Duration::from_millis(10);
const FAR_READY: Duration = Duration::from_millis(100);
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
const RECEIVE_WINDOW: u32 = 8 * 1024 * 1024;

impl Stack for Webrtc {
    type Node = Member;

    async fn open(nodes: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<Vec<Member>> {
        let mut opening = JoinSet::new();
        for (a, b) in pairs(nodes) {
            let (inbox, relay) = (Arc::clone(&inbox), relay.clone());
            opening.spawn(async move { Ok::<_, Failure>((a, b, link(a, b, inbox, relay).await?)) });
        }
        let mut links: Vec<Vec<Option<Channels>>> = (0..nodes).map(|_| vec![None; nodes]).collect();
        while let Some(opened) = opening.join_next().await {
            let (a, b, [here, there]) = opened??;
            links[a][b] = Some(here);
            links[b][a] = Some(there);
        }
        Ok(links.into_iter().map(|links| Member { links: links.into() }).collect())
    }
}

/// A node: channels to every other.
#[derive(Clone)]
pub struct Member {
    links: Arc<[Option<Channels>]>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").finish_non_exhaustive()
    }
}

/// One end's channels, which keep its connection.
#[derive(Clone)]
struct Channels {
    reliable: Arc<dyn DataChannel>,
    unreliable: Arc<dyn DataChannel>,
    _connection: Arc<dyn PeerConnection>,
}

impl Member {
    fn to(&self, to: usize) -> Result<&Channels> {
        self.links.get(to).and_then(Option::as_ref).ok_or_else(|| "nobody is there".into())
    }
}

impl Node for Member {
    async fn send(&self, to: usize, payload: Bytes) -> Result<()> {
        Ok(self.to(to)?.reliable.send(owned(payload)).await?)
    }

    fn reply(&self, to: usize, payload: Bytes) -> Result<()> {
        let channel = self.to(to)?.reliable.clone();
        at_once(async move { channel.try_send(owned(payload)).await.map_err(Into::into) }.boxed())
    }

    fn fire(&self, to: usize, payload: Bytes) {
        let Ok(channels) = self.to(to) else { return };
        let channel = channels.unreliable.clone();
        // Who has no room misses it.
        let _ = at_once(async move { channel.try_send(owned(payload)).await.map_err(Into::into) }.boxed());
    }

    fn fire_at_all(&self, payload: Bytes) {
        for to in 0..self.links.len() {
            self.fire(to, payload.clone());
        }
    }
}

fn owned(payload: Bytes) -> BytesMut {
    payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}

/// What waits for nothing but a lock, mostly not even that.
fn at_once(mut sending: BoxFuture<'static, Result<()>>) -> Result<()> {
    match (&mut sending).now_or_never() {
        Some(sent) => sent,
        None => {
            tokio::spawn(sending);
            Ok(())
        }
    }
}

async fn link(a: usize, b: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<[Channels; 2]> {
    let room = if relay.is_some() { ROOM } else { NEAR_ROOM };
    let (here, mut from_here) = connection(room).await?;
    let (there, mut from_there) = connection(room).await?;
    let told = |from, description: RTCSessionDescription| {
        let Some(relay) = &relay else { return Ok(description) };
        let sdp = relay.description(from, &description.sdp);
        match from {
            0 => RTCSessionDescription::offer(sdp),
            _ => RTCSessionDescription::answer(sdp),
        }
    };
    let sides = [channels(&here).await?, channels(&there).await?];
    let offer = here.create_offer(None).await?;
    here.set_local_description(offer.clone()).await?;
    there.set_remote_description(told(0, offer)?).await?;
    let answer = there.create_answer(None).await?;
    there.set_local_description(answer.clone()).await?;
    here.set_remote_description(told(1, answer)?).await?;
    for (from, candidates, to) in [(0, &mut from_here, &there), (1, &mut from_there, &here)] {
        // One socket, one candidate.
        let mut candidate = candidates.recv().await.ok_or("no candidate")?;
        if let Some(relay) = &relay {
            candidate.candidate = relay.candidate(from, &candidate.candidate).ok_or("no candidate")?;
        }
        to.add_ice_candidate(candidate).await?;
    }
    let (here_is_open, there_is_open) = futures::join!(opened(&sides[0]), opened(&sides[1]));
    here_is_open.and(there_is_open)?;
    tokio::time::sleep(if relay.is_some() { FAR_READY } else { NEAR_READY }).await;
    for (at, from, channels) in [(a, b, &sides[0]), (b, a, &sides[1])] {
        for channel in [&channels.reliable, &channels.unreliable] {
            tokio::spawn(read(channel.clone(), at, from, Arc::clone(&inbox)));
        }
    }
    Ok(sides)
}

/// Waits until they are open.
async fn opened(channels: &Channels) -> Result<()> {
    let wake = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _ = channels.reliable.set_buffered_amount_low_threshold(0).await;
        }
    };
    let open = async {
        for channel in [&channels.reliable, &channels.unreliable] {
            while !matches!(channel.poll().await.ok_or("a channel has ended")?, DataChannelEvent::OnOpen) {}
        }
        Ok(())
    };
    tokio::select! {
        opened = open => opened,
        () = wake => Ok(()),
    }
}

async fn read(channel: Arc<dyn DataChannel>, at: usize, from: usize, inbox: Arc<dyn Inbox>) {
    while let Some(event) = channel.poll().await {
        match event {
            DataChannelEvent::OnMessage(message) => inbox.message(at, from, &message.data),
            DataChannelEvent::OnClose => return,
            _ => {}
        }
    }
}

async fn connection(
    room: usize,
) -> Result<(Arc<dyn PeerConnection>, mpsc::UnboundedReceiver<RTCIceCandidateInit>)> {
    let (found, candidates) = mpsc::unbounded_channel();
    let settings = SettingEngineBuilder::new()
        .with_include_loopback_candidate(true)
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_ice_timeouts(Some(Duration::from_secs(3)), Some(Duration::ZERO), Some(Duration::from_secs(1)))
        .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(u16::MAX))
        .with_prflx_acceptance_min_wait(Some(Duration::from_millis(50)))
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(SctpMaxMessageSize::MAX_MESSAGE_SIZE))
        .with_sctp_max_receive_buffer_size(RECEIVE_WINDOW)
        .build();
    let connection = PeerConnectionBuilder::new()
        .with_setting_engine(settings)
        .with_runtime(Arc::new(LargeBuffers(TokioRuntime)))
        .with_handler(Arc::new(Candidates(found)))
        .with_udp_addrs(vec!["127.0.0.1:0"])
        .with_data_channel_send_buffer_limit(room)
        .build()
        .await?;
    Ok((Arc::new(connection), candidates))
}

async fn channels(connection: &Arc<dyn PeerConnection>) -> Result<Channels> {
    let channel = |label: &'static str, id, once: bool| {
        let init = RTCDataChannelInit {
            ordered: !once,
            max_retransmits: once.then_some(0),
            negotiated: Some(id),
            ..Default::default()
        };
        async move { connection.create_data_channel(label, Some(init)).await }
    };
    Ok(Channels {
        reliable: channel(RELIABLE, 1, false).await?,
        unreliable: channel(UNRELIABLE, 3, true).await?,
        _connection: connection.clone(),
    })
}

#[derive(Debug)]
struct Candidates(mpsc::UnboundedSender<RTCIceCandidateInit>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Candidates {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(candidate) = event.candidate.to_json()
            && !candidate.candidate.trim_start_matches("candidate:").is_empty()
        {
            let _ = self.0.send(candidate);
        }
    }
}

/// Tokio's, with larger socket buffers.
#[derive(Debug)]
struct LargeBuffers(TokioRuntime);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for LargeBuffers {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        self.0.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let kernel = socket2::SockRef::from(&socket);
        kernel.set_recv_buffer_size(SOCKET_BUFFER)?;
        kernel.set_send_buffer_size(SOCKET_BUFFER)?;
        self.0.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.0.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.0.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        self.0.resolve_host(host)
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.0.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.0.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        self.0.yield_now()
    }

    fn name(&self) -> &'static str {
        self.0.name()
    }
}
