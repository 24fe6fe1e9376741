//! Our part in what the members of a mesh say to each other: the same that the other stacks' members do.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::select_all;
use ring::digest::{Context, SHA256};
use serde_json::Value;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, MeshHandle, OutgoingPacket, Packet, PeerId, SendError, TransferMode,
};

use crate::member::Stack;
use crate::support::next;

/// How many packets everybody sends to everybody else in each mode.
const PACKETS: u32 = 50;

/// Of what *we* send in the unreliable modes, which goes out once and no more, so many arrive at least.
const ENOUGH: usize = 40;

/// A sum over packets, to compare.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    packets: u64,
    bytes: u64,
    sha256: String,
}

/// What one of our meshes has heard of a peer.
struct Heard {
    us: PeerId,
    them: PeerId,
    /// Whether it sends reliably in every mode, as Godot does.
    is_foreign: bool,
    /// Numbers of its packets, as they came.
    theirs: HashMap<TransferMode, Vec<u32>>,
    /// Numbers of our packets that it has echoed.
    echoes: HashMap<TransferMode, Vec<u32>>,
}

/// Lets these meshes of ours meet each other and these foreign peers, send to each in every mode, and echo what comes.
/// Returns when all has come and come back, and the foreign ones are done as well.
pub(crate) async fn converse(
    meshes: &mut [Mesh],
    foreign: &[PeerId],
    foreign_are_done: impl Future<Output = ()>,
) {
    let ours: Vec<PeerId> = meshes.iter().map(Mesh::id).collect();
    let mut heard = HashMap::new();
    for us in &ours {
        for them in ours.iter().chain(foreign).filter(|them| *them != us) {
            heard.insert((*us, *them), Heard::new(*us, *them, foreign.contains(them)));
        }
    }
    let mut connected = HashSet::new();
    let (mut foreign_are_done, mut done) = (pin!(foreign_are_done), false);
    while !done || connected.len() < heard.len() || !heard.values().all(Heard::is_complete) {
        let event = select_all(meshes.iter_mut().map(StreamExt::next));
        let (event, which) = tokio::select! {
            () = &mut foreign_are_done, if !done => {
                done = true;
                continue;
            }
            (event, which, _) = event => (event.expect("not the end"), which),
        };
        match event {
            MeshEvent::PeerConnected(peer) => {
                assert!(connected.insert((ours[which], peer)));
                tokio::spawn(send_all(meshes[which].handle(), peer));
            }
            MeshEvent::Packet(packet) => {
                let heard = heard.get_mut(&(ours[which], packet.from)).expect("one of them");
                if !heard.take(&packet) {
                    // There is room: all that is under way is less than a queue holds.
                    let echo = OutgoingPacket::new(packet.from, packet.mode, packet.payload);
                    meshes[which].handle().try_send(echo).unwrap();
                }
            }
            // A busy machine.
            MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
            other => panic!("{} did not expect {other:?}", ours[which]),
        }
    }
}

/// Sends messages of odd sizes, waits for the echo of each, and returns what the peer has now received of us in all.
pub(crate) async fn sizes(mesh: &mut Mesh, peer: PeerId, stack: Stack) -> Digest {
    let most = stack.max_message_bytes();
    let mut sums = Sums::new();
    (0..PACKETS).for_each(|n| sums.add(&packet(mesh.id(), TransferMode::Reliable, n)));
    for size in [0, 1, 2, 1_199, 1_200, 1_201, 16_384, 65_535, 65_536, most] {
        if size == 0 && !stack.sends_empty_messages() {
            continue;
        }
        let payload: Bytes = (0..size).map(|place| 0x80 | (place % 113) as u8).collect();
        sums.add(&payload);
        mesh.handle().send(OutgoingPacket::reliable(peer, payload.clone())).await.unwrap();
        let echo = loop {
            match next(mesh).await {
                MeshEvent::Packet(packet) if packet.mode == TransferMode::Reliable => break packet.payload,
                // One that was late.
                MeshEvent::Packet(_) | MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
                other => panic!("an echo was expected, not {other:?}"),
            }
        };
        assert!(echo == payload, "{size} bytes came back as {}", echo.len());
    }
    let too_much = OutgoingPacket::reliable(peer, vec![0; most + 1]);
    let too_large = SendError::TooLarge { actual: most + 1, limit: most };
    assert_eq!(mesh.handle().send(too_much).await, Err(too_large));
    mesh.handle().send(OutgoingPacket::reliable(peer, "digest?")).await.unwrap();
    sums.finish()
}

/// Why a peer that was connected has left; what it still sent is ignored, and that it took the lobby with it.
pub(crate) async fn end_of(mesh: &mut Mesh, peer: PeerId) -> DisconnectReason {
    loop {
        match next(mesh).await {
            MeshEvent::PeerDisconnected(gone, reason) if gone == peer => return reason,
            MeshEvent::Packet(_) | MeshEvent::SignalingLost => {}
            MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
            other => panic!("{peer} was expected to leave, not {other:?}"),
        }
    }
}

/// Sends all that a peer is sent: the unreliable modes at a modest rate, so that loopback loses next to nothing.
async fn send_all(mesh: MeshHandle, peer: PeerId) {
    let send = async |mode, n| {
        mesh.send(OutgoingPacket::new(peer, mode, packet(mesh.id(), mode, n))).await.unwrap();
    };
    for n in 0..PACKETS {
        send(TransferMode::Reliable, n).await;
    }
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    for n in 0..PACKETS {
        pace.tick().await;
        send(TransferMode::UnreliableOrdered, n).await;
        send(TransferMode::Unreliable, n).await;
    }
}

impl Heard {
    fn new(us: PeerId, them: PeerId, is_foreign: bool) -> Heard {
        Heard { us, them, is_foreign, theirs: HashMap::new(), echoes: HashMap::new() }
    }

    /// Takes a packet; says whether it was an echo.
    fn take(&mut self, packet: &Packet) -> bool {
        let is_echo = packet.payload.starts_with(format!("{} ", self.us).as_bytes());
        let (sender, numbers) =
            if is_echo { (self.us, &mut self.echoes) } else { (self.them, &mut self.theirs) };
        let numbers = numbers.entry(packet.mode).or_default();
        let n = number(&packet.payload);
        let intact = packet.payload == self::packet(sender, packet.mode, n);
        assert!(intact, "{} sends {} a packet that is no {:?} {n}", self.them, self.us, packet.mode);
        let in_turn = match packet.mode {
            TransferMode::Reliable => n as usize == numbers.len(),
            TransferMode::UnreliableOrdered => numbers.last().is_none_or(|last| n > *last),
            _ => !numbers.contains(&n),
        };
        assert!(in_turn, "{} sends {} the {:?} {n} after {numbers:?}", self.them, self.us, packet.mode);
        numbers.push(n);
        is_echo
    }

    fn is_complete(&self) -> bool {
        TransferMode::ALL.iter().all(|mode| {
            let all = PACKETS as usize;
            let enough = if *mode == TransferMode::Reliable { all } else { ENOUGH };
            let count = |numbers: &HashMap<_, Vec<u32>>| numbers.get(mode).map_or(0, Vec::len);
            count(&self.echoes) >= enough && count(&self.theirs) >= if self.is_foreign { all } else { enough }
        })
    }
}

/// The n-th packet of a member in a mode: a line that says so, and bytes to fill it.
fn packet(sender: PeerId, mode: TransferMode, n: u32) -> Bytes {
    let (name, step) = match mode {
        TransferMode::Reliable => ("reliable", 333),
        TransferMode::UnreliableOrdered => ("ordered", 19),
        _ => ("unreliable", 19),
    };
    let mut bytes = BytesMut::from(format!("{sender} {name} {n} ").as_bytes());
    for place in bytes.len() as u32..67 + n * step {
        bytes.put_u8((n + place) as u8);
    }
    bytes.freeze()
}

/// The number of a packet; one that none has, if it has none.
fn number(payload: &[u8]) -> u32 {
    let word = payload.split(|byte| *byte == b' ').nth(2).unwrap_or_default();
    std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).unwrap_or(PACKETS)
}

/// A [`Digest`] in the making.
struct Sums {
    packets: u64,
    bytes: u64,
    sha256: Context,
}

impl Sums {
    fn new() -> Sums {
        Sums { packets: 0, bytes: 0, sha256: Context::new(&SHA256) }
    }

    fn add(&mut self, payload: &[u8]) {
        self.packets += 1;
        self.bytes += payload.len() as u64;
        self.sha256.update(payload);
    }

    fn finish(self) -> Digest {
        let sha256 = self.sha256.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        Digest { packets: self.packets, bytes: self.bytes, sha256 }
    }
}

impl Digest {
    /// As a member tells it.
    pub(crate) fn told(line: &Value) -> Digest {
        Digest {
            packets: line["packets"].as_u64().unwrap(),
            bytes: line["bytes"].as_u64().unwrap(),
            sha256: line["sha256"].as_str().unwrap().to_owned(),
        }
    }
}
