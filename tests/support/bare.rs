//! A peer that is not of this crate: the bare `webrtc` library, with Godot's three channels.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelInit};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCPeerConnectionIceEvent, RTCSessionDescription, SettingEngineBuilder,
};
use webrtc_mesh::{IceCandidate, SdpKind, SessionDescription, Signal};

use super::{LIMIT, loopback};

/// What a member of the crate says of itself in its descriptions.
pub(crate) const MARK: &str = "a=x-webrtc-mesh:1 ";

pub(crate) struct Bare {
    pub(crate) connection: Arc<dyn PeerConnection>,
    /// Reliable, ordered, unreliable, and whatever is made beyond.
    pub(crate) channels: Vec<Arc<dyn DataChannel>>,
    candidates: mpsc::UnboundedReceiver<RTCIceCandidateInit>,
}

struct Handler(mpsc::UnboundedSender<RTCIceCandidateInit>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        if let Ok(candidate) = event.candidate.to_json() {
            let _ = self.0.send(candidate);
        }
    }
}

impl Bare {
    /// With the three channels and, on the streams named, more reliable ones.
    pub(crate) async fn new(more: &[u16]) -> Bare {
        let (found, candidates) = mpsc::unbounded_channel();
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(std::time::Duration::from_millis(20)), Some(100))
            .build();
        let connection: Arc<dyn PeerConnection> = Arc::new(
            PeerConnectionBuilder::new()
                .with_setting_engine(settings)
                .with_handler(Arc::new(Handler(found)))
                .with_udp_addrs(vec![loopback() as SocketAddr])
                .with_data_channel_send_buffer_limit(1 << 18)
                .build()
                .await
                .unwrap(),
        );
        let mut channels = Vec::new();
        for stream in [1, 2, 3].iter().chain(more) {
            let init = RTCDataChannelInit {
                ordered: *stream != 3,
                max_retransmits: matches!(stream, 2 | 3).then_some(0),
                negotiated: Some(*stream),
                ..Default::default()
            };
            channels.push(connection.create_data_channel(&stream.to_string(), Some(init)).await.unwrap());
        }
        Bare { connection, channels, candidates }
    }

    pub(crate) async fn offer(&self) -> Signal {
        let offer = self.connection.create_offer(None).await.unwrap();
        self.connection.set_local_description(offer.clone()).await.unwrap();
        Signal::Description(SessionDescription { kind: SdpKind::Offer, sdp: offer.sdp })
    }

    pub(crate) async fn answer(&self, offer: SessionDescription) -> Signal {
        self.connection
            .set_remote_description(RTCSessionDescription::offer(offer.sdp).unwrap())
            .await
            .unwrap();
        let answer = self.connection.create_answer(None).await.unwrap();
        self.connection.set_local_description(answer.clone()).await.unwrap();
        Signal::Description(SessionDescription { kind: SdpKind::Answer, sdp: answer.sdp })
    }

    /// Connects it with `ours`, which is in a mesh already. `edit` changes its descriptions on their way to us.
    pub(crate) async fn connect(
        &mut self,
        ours: &webrtc_mesh::PeerConnection,
        it_offers: bool,
        edit: impl Fn(Signal) -> Signal,
    ) {
        let mut signals = ours.signals();
        let mut marked = false;
        if it_offers {
            let offer = edit(self.offer().await);
            marked = matches!(&offer, Signal::Description(offer) if offer.sdp.contains(MARK));
            ours.handle_signal(offer).await.unwrap();
        } else {
            ours.create_offer().await.unwrap();
        }
        let exchange = async {
            loop {
                tokio::select! {
                    signal = signals.next() => match signal {
                        Some(Signal::Description(description)) if description.kind == SdpKind::Offer => {
                            assert!(description.sdp.contains(MARK), "ours says what it is");
                            ours.handle_signal(edit(self.answer(description).await)).await.unwrap();
                        }
                        Some(Signal::Description(description)) => {
                            assert_eq!(description.sdp.contains(MARK), marked, "nothing unasked for");
                            let answer = RTCSessionDescription::answer(description.sdp).unwrap();
                            self.connection.set_remote_description(answer).await.unwrap();
                        }
                        Some(Signal::Candidate(candidate)) => {
                            let init = RTCIceCandidateInit {
                                candidate: candidate.candidate,
                                sdp_mid: Some(candidate.sdp_mid),
                                sdp_mline_index: Some(candidate.sdp_mline_index),
                                ..Default::default()
                            };
                            self.connection.add_ice_candidate(init).await.unwrap();
                        }
                        Some(other) => panic!("{other:?} is nothing the library knows"),
                        None => panic!("our connection closed"),
                    },
                    Some(init) = self.candidates.recv() => {
                        let candidate = IceCandidate {
                            candidate: init.candidate,
                            sdp_mid: init.sdp_mid.unwrap_or_default(),
                            sdp_mline_index: init.sdp_mline_index.unwrap_or_default(),
                        };
                        ours.handle_signal(Signal::Candidate(candidate)).await.unwrap();
                    }
                    event = self.channels[0].poll() => match event {
                        Some(DataChannelEvent::OnOpen) => return,
                        other => panic!("{other:?} before it is open"),
                    },
                }
            }
        };
        tokio::time::timeout(LIMIT, exchange).await.expect("connected in time");
    }

    pub(crate) async fn send(&self, channel: usize, payload: &[u8]) {
        self.channels[channel].send(BytesMut::from(payload)).await.unwrap();
    }

    /// The next message, within the limit.
    pub(crate) async fn message(&self, channel: usize) -> Bytes {
        loop {
            match tokio::time::timeout(LIMIT, self.channels[channel].poll()).await.expect("a message in time")
            {
                Some(DataChannelEvent::OnMessage(message)) => return message.data.freeze(),
                Some(DataChannelEvent::OnClose) | None => panic!("closed"),
                Some(_) => {}
            }
        }
    }
}
