//! The `webrtc` crate by itself, on the settings that a mesh gives it: what a mesh is measured against.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use rtc::peer_connection::transport::RTCDtlsRole;
use tokio::sync::mpsc;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, SettingEngineBuilder,
};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};

use super::{End, Input, Star};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One side of a connection, with a reliable, ordered channel.
pub(crate) struct Side {
    connection: Arc<dyn PeerConnection>,
    channel: Arc<dyn DataChannel>,
    candidates: mpsc::UnboundedReceiver<RTCIceCandidateInit>,
}

/// Connections to so many others.
pub(crate) async fn star(ends: usize) -> Star<Side> {
    let mut star = Star { hub: Vec::new(), ends: Vec::new() };
    for _ in 0..ends {
        let (hub, end) = connect().await;
        star.hub.push(hub);
        star.ends.push(end);
    }
    star
}

async fn connect() -> (Side, Side) {
    let (mut offerer, mut answerer) = (Side::new().await, Side::new().await);
    let offer = offerer.connection.create_offer(None).await.expect("an offer");
    offerer.connection.set_local_description(offer.clone()).await.expect("the offer is set");
    answerer.connection.set_remote_description(offer).await.expect("the offer is taken");
    let answer = answerer.connection.create_answer(None).await.expect("an answer");
    answerer.connection.set_local_description(answer.clone()).await.expect("the answer is set");
    offerer.connection.set_remote_description(answer).await.expect("the answer is taken");
    // One socket, one candidate.
    let theirs = answerer.candidates.recv().await.expect("a candidate");
    offerer.connection.add_ice_candidate(theirs).await.expect("the candidate is taken");
    let ours = offerer.candidates.recv().await.expect("a candidate");
    answerer.connection.add_ice_candidate(ours).await.expect("the candidate is taken");
    tokio::join!(offerer.opened(), answerer.opened());
    // What the DTLS server sends before the client has made its streams is lost.
    tokio::time::sleep(Duration::from_millis(100)).await;
    (offerer, answerer)
}

impl Side {
    async fn new() -> Side {
        let (found, candidates) = mpsc::unbounded_channel();
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_answering_dtls_role(RTCDtlsRole::Server)
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(500))
            .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(SctpMaxMessageSize::MAX_MESSAGE_SIZE))
            .with_sctp_max_receive_buffer_size(8 * 1024 * 1024)
            .build();
        let connection = PeerConnectionBuilder::new()
            .with_setting_engine(settings)
            .with_runtime(Arc::new(LargeBuffers(TokioRuntime)))
            .with_handler(Arc::new(Candidates(found)))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .with_data_channel_send_buffer_limit(256 * 1024)
            .build()
            .await
            .expect("a connection");
        let init = RTCDataChannelInit { ordered: true, negotiated: Some(1), ..Default::default() };
        let channel = connection.create_data_channel("reliable", Some(init)).await.expect("a channel");
        Side { connection: Arc::new(connection), channel, candidates }
    }

    /// Waits until the channel is open, and wakes the driver meanwhile: by itself it takes 400 ms.
    async fn opened(&self) {
        let open = async { while !matches!(self.channel.poll().await, Some(DataChannelEvent::OnOpen)) {} };
        let wake = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = self.channel.set_buffered_amount_low_threshold(0).await;
            }
        };
        tokio::select! {
            () = open => {}
            () = wake => {}
        }
    }
}

#[derive(Clone)]
pub(crate) struct Channel(Arc<dyn DataChannel>);

impl Input for Channel {
    async fn put(&self, payload: Bytes) {
        self.0.send(BytesMut::from(&payload[..])).await.expect("the channel takes it");
    }
}

impl End for Side {
    type Input = Channel;

    fn input(&self) -> Channel {
        Channel(self.channel.clone())
    }

    async fn take(&mut self) -> Bytes {
        loop {
            match self.channel.poll().await {
                Some(DataChannelEvent::OnMessage(message)) => return message.data.freeze(),
                Some(DataChannelEvent::OnClose) | None => panic!("the channel closed"),
                Some(_) => {}
            }
        }
    }

    async fn close(self) {
        let _ = self.connection.close().await;
    }
}

struct Candidates(mpsc::UnboundedSender<RTCIceCandidateInit>);

#[async_trait]
impl PeerConnectionEventHandler for Candidates {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(candidate) = event.candidate.to_json()
            && !candidate.candidate.trim_start_matches("candidate:").is_empty()
        {
            let _ = self.0.send(candidate);
        }
    }
}

/// Tokio, with socket buffers of 4 MiB, or what the kernel grants.
#[derive(Debug)]
struct LargeBuffers(TokioRuntime);

impl Runtime for LargeBuffers {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        self.0.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let kernel = socket2::SockRef::from(&socket);
        let _ = kernel.set_recv_buffer_size(4 * 1024 * 1024);
        let _ = kernel.set_send_buffer_size(4 * 1024 * 1024);
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
