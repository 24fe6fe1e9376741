//! The mesh, on its defaults.

use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use webrtc_mesh::{
    Mesh, MeshEvent, MeshHandle, OutgoingPacket, PeerConnection, PeerConnectionConfig, PeerId, Signal,
    Target, TransferMode, UnreliableLifetime,
};

use super::{End, Input, Wire};

/// The longest message, if it is not the default.
pub static MAX_MESSAGE_BYTES: OnceLock<usize> = OnceLock::new();

/// A mesh, and to whom it sends.
pub struct Member {
    pub mesh: Mesh,
    pub target: Target,
    /// When the last peer was added, and when it was connected.
    pub times: (Instant, Instant),
}

/// The id of the so-manieth member.
pub fn id(index: usize) -> PeerId {
    PeerId::new(index as u32 + 1).expect("an id")
}

impl Member {
    pub fn new(index: usize, target: Target) -> Member {
        let now = Instant::now();
        Member { mesh: Mesh::builder().build(id(index)), target, times: (now, now) }
    }

    async fn link(&mut self, peer: PeerId, offers: bool, wire: Wire<Signal>) {
        let began = add(&self.mesh.handle(), peer, offers, wire).await;
        match self.mesh.next().await {
            Some(MeshEvent::PeerConnected(connected)) if connected == peer => {}
            other => panic!("{peer} was expected, not {other:?}"),
        }
        self.times = (began, Instant::now());
    }
}

/// Adds a peer, and leaves a task that carries the signals. Returns when it was added.
pub async fn add(mesh: &MeshHandle, peer: PeerId, offers: bool, wire: Wire<Signal>) -> Instant {
    let config = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
    let config = match MAX_MESSAGE_BYTES.get() {
        Some(bytes) => config.max_message_bytes(*bytes),
        None => config,
    };
    let connection = PeerConnection::new(config).await.expect("a connection");
    wire.made().await;
    let began = Instant::now();
    mesh.add_peer(connection.clone(), peer, UnreliableLifetime::Once).await.expect("it is new");
    if offers {
        connection.create_offer().await.expect("an offer");
    }
    tokio::spawn(carry(connection, wire));
    began
}

async fn carry(connection: PeerConnection, mut wire: Wire<Signal>) {
    let mut signals = connection.signals();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Some(signal) => wire.say(signal),
                None => return,
            },
            Some(signal) = wire.from.recv() => {
                // It may have been closed meanwhile.
                let _ = connection.handle_signal(signal).await;
            }
        }
    }
}

impl End for Member {
    type Input = MemberInput;
    type Signal = Signal;

    async fn hub(wires: Vec<Wire<Signal>>) -> Vec<Member> {
        let target = if wires.len() == 1 { Target::Peer(id(1)) } else { Target::All };
        let mut hub = Member::new(0, target);
        for (index, wire) in wires.into_iter().enumerate() {
            hub.link(id(index + 1), true, wire).await;
        }
        vec![hub]
    }

    async fn end(index: usize, wire: Wire<Signal>) -> Member {
        let mut end = Member::new(index + 1, Target::Peer(id(0)));
        end.link(id(0), false, wire).await;
        end
    }

    fn input(&self) -> MemberInput {
        MemberInput { mesh: self.mesh.handle(), target: self.target }
    }

    async fn take(&mut self, expected: TransferMode) -> Bytes {
        loop {
            match self.mesh.next().await {
                Some(MeshEvent::Packet(packet)) => {
                    assert_eq!(packet.mode, expected);
                    return packet.payload;
                }
                // What is missing is counted by whoever counts what arrives.
                Some(MeshEvent::Lagged { .. } | MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_)) => {
                }
                other => panic!("a packet was expected, not {other:?}"),
            }
        }
    }

    async fn close(self) {
        let handle = self.mesh.handle();
        let _ = tokio::time::timeout(Duration::from_secs(10), handle.close()).await;
    }
}

#[derive(Clone)]
pub struct MemberInput {
    mesh: MeshHandle,
    target: Target,
}

impl Input for MemberInput {
    async fn put(&self, mode: TransferMode, payload: BytesMut) {
        let packet = OutgoingPacket::new(self.target, mode, payload.freeze());
        self.mesh.send(packet).await.expect("the mesh takes it");
    }

    async fn offer(&self, mode: TransferMode, payload: BytesMut) -> bool {
        self.mesh.try_send(OutgoingPacket::new(self.target, mode, payload.freeze())).is_ok()
    }
}
