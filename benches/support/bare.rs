//! The `webrtc` crate by itself, on the settings that a mesh gives it: what a mesh is measured against.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::setting_engine::SctpMaxMessageSize;
use rtc::peer_connection::transport::RTCDtlsRole;
use tokio::sync::mpsc;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, RTCSessionDescription, SettingEngineBuilder,
};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};
use webrtc_mesh::TransferMode;

use super::{End, Input, Wire};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One side of a connection, with a channel for each mode.
pub struct Side {
    connection: Arc<dyn PeerConnection>,
    /// By the number of their mode.
    channels: [Arc<dyn DataChannel>; 3],
    candidates: mpsc::UnboundedReceiver<RTCIceCandidateInit>,
    /// When its connecting began, and when its channels were open.
    pub times: (Instant, Instant),
}

/// What the two sides tell each other.
pub enum Signal {
    Description(Box<RTCSessionDescription>),
    Candidate(RTCIceCandidateInit),
}

impl Side {
    pub async fn connect(offers: bool, mut wire: Wire<Signal>) -> Side {
        let mut side = Side::new().await;
        wire.made().await;
        let began = Instant::now();
        let connection = side.connection.clone();
        if offers {
            let offer = connection.create_offer(None).await.expect("an offer");
            connection.set_local_description(offer.clone()).await.expect("the offer is set");
            wire.say(Signal::Description(Box::new(offer)));
            side.tell_candidate(&wire).await;
        }
        // One socket, one candidate.
        for _ in 0..2 {
            match wire.from.recv().await.expect("a signal") {
                Signal::Description(description) => {
                    connection.set_remote_description(*description).await.expect("the description is taken");
                    if !offers {
                        let answer = connection.create_answer(None).await.expect("an answer");
                        connection.set_local_description(answer.clone()).await.expect("the answer is set");
                        wire.say(Signal::Description(Box::new(answer)));
                        side.tell_candidate(&wire).await;
                    }
                }
                Signal::Candidate(candidate) => {
                    connection.add_ice_candidate(candidate).await.expect("the candidate is taken");
                }
            }
        }
        side.opened().await;
        side.times = (began, Instant::now());
        // What the DTLS server sends before the client has made its streams is lost.
        tokio::time::sleep(Duration::from_millis(100)).await;
        side
    }

    async fn tell_candidate(&mut self, wire: &Wire<Signal>) {
        wire.say(Signal::Candidate(self.candidates.recv().await.expect("a candidate")));
    }

    async fn new() -> Side {
        let (found, candidates) = mpsc::unbounded_channel();
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_answering_dtls_role(RTCDtlsRole::Server)
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_ice_timeouts(
                Some(Duration::from_secs(3)),
                Some(Duration::ZERO),
                Some(Duration::from_secs(1)),
            )
            .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(u16::MAX))
            .with_prflx_acceptance_min_wait(Some(Duration::from_millis(50)))
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
        let mut channels = Vec::new();
        // Godot's streams, and each packet sent once on the unreliable ones: as the mesh has them.
        for (id, mode) in
            [(3, TransferMode::Unreliable), (2, TransferMode::UnreliableOrdered), (1, TransferMode::Reliable)]
        {
            let init = RTCDataChannelInit {
                ordered: mode != TransferMode::Unreliable,
                max_retransmits: (mode != TransferMode::Reliable).then_some(0),
                negotiated: Some(id),
                ..Default::default()
            };
            let label = format!("{mode:?}");
            channels.push(connection.create_data_channel(&label, Some(init)).await.expect("a channel"));
        }
        let channels = channels.try_into().unwrap_or_else(|_| panic!("there are three"));
        let now = Instant::now();
        Side { connection: Arc::new(connection), channels, candidates, times: (now, now) }
    }

    /// Waits until the channels are open, and wakes the driver meanwhile: by itself it takes 400 ms.
    async fn opened(&self) {
        let open = join_all(self.channels.iter().map(|channel| async {
            while !matches!(channel.poll().await, Some(DataChannelEvent::OnOpen)) {}
        }));
        let wake = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = self.channels[0].set_buffered_amount_low_threshold(0).await;
            }
        };
        tokio::select! {
            _ = open => {}
            () = wake => {}
        }
    }
}

#[derive(Clone)]
pub struct Channels([Arc<dyn DataChannel>; 3]);

impl Input for Channels {
    async fn put(&self, mode: TransferMode, payload: BytesMut) {
        self.0[mode as usize].send(payload).await.expect("the channel takes it");
    }

    async fn offer(&self, mode: TransferMode, payload: BytesMut) -> bool {
        self.0[mode as usize].try_send(payload).await.is_ok()
    }
}

impl End for Side {
    type Input = Channels;
    type Signal = Signal;

    async fn hub(wires: Vec<Wire<Signal>>) -> Vec<Side> {
        let mut sides = Vec::new();
        for wire in wires {
            sides.push(Side::connect(true, wire).await);
        }
        sides
    }

    async fn end(_index: usize, wire: Wire<Signal>) -> Side {
        Side::connect(false, wire).await
    }

    fn input(&self) -> Channels {
        Channels(self.channels.clone())
    }

    async fn take(&mut self, mode: TransferMode) -> Bytes {
        loop {
            match self.channels[mode as usize].poll().await {
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
