//! Our part in what the members of a mesh say to each other: the same that the other stacks' members do.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::select_all;
use ring::digest::{Context, SHA256};
use serde_json::Value;
use tokio::sync::Notify;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, MeshHandle, OutgoingPacket, Packet, PeerId, SendError, TransferMode,
};

use crate::support::{LIMIT, next};

/// How many packets everybody sends to everybody else in each mode.
const PACKETS: u32 = 50;

/// Of what *we* send in the unreliable modes, which goes out once and no more, so many arrive at least.
const ENOUGH: usize = 40;

/// How long one of those is waited for, before the next is sent.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// A sum over packets, to compare.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    packets: u64,
    bytes: u64,
    sha256: String,
}

/// A member that is not of this crate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) id: PeerId,
    /// In every mode, as Godot does.
    pub(crate) sends_reliably: bool,
}

/// What one of our meshes has heard of a peer.
#[derive(Debug)]
struct Heard {
    us: PeerId,
    them: PeerId,
    /// In every mode.
    they_send_reliably: bool,
    /// Numbers of its packets, as they came.
    theirs: HashMap<TransferMode, Vec<u32>>,
    /// Numbers of our packets that it has echoed.
    echoes: HashMap<TransferMode, Vec<u32>>,
    /// One of those that we send once in the unreliable mode.
    echoed: Arc<Notify>,
}

/// Lets these meshes of ours meet each other and these guests, send to each in every mode, and echo what comes. Returns
/// when all has come and come back, and the guests are done as well; within the limit.
pub(crate) async fn converse(
    meshes: &mut [Mesh],
    guests: &[Guest],
    guests_are_done: impl Future<Output = ()>,
) {
    let mut heard = with_guests(meshes, guests);
    for us in meshes.iter() {
        for them in meshes.iter().filter(|them| them.id() != us.id()) {
            heard.insert((us.id(), them.id()), Heard::new(us.id(), them.id(), false));
        }
    }
    hear(meshes, heard, guests_are_done).await;
}

/// The same with guests who come to meshes that know each other.
pub(crate) async fn welcome(
    meshes: &mut [Mesh],
    guests: &[Guest],
    guests_are_done: impl Future<Output = ()>,
) {
    let heard = with_guests(meshes, guests);
    hear(meshes, heard, guests_are_done).await;
}

fn with_guests(meshes: &[Mesh], guests: &[Guest]) -> HashMap<(PeerId, PeerId), Heard> {
    let pairs = meshes.iter().flat_map(|mesh| guests.iter().map(|guest| (mesh.id(), *guest)));
    pairs.map(|(us, Guest { id, sends_reliably })| ((us, id), Heard::new(us, id, sends_reliably))).collect()
}

async fn hear(
    meshes: &mut [Mesh],
    mut heard: HashMap<(PeerId, PeerId), Heard>,
    guests_are_done: impl Future<Output = ()>,
) {
    let ours: Vec<PeerId> = meshes.iter().map(Mesh::id).collect();
    let mut connected = HashSet::new();
    let (mut guests_are_done, mut done) = (pin!(guests_are_done), false);
    // A guest that is missed has its say first.
    let mut limit = pin!(tokio::time::sleep(LIMIT + Duration::from_secs(1)));
    while !done || connected.len() < heard.len() || !heard.values().all(Heard::is_complete) {
        let event = select_all(meshes.iter_mut().map(StreamExt::next));
        let (event, which) = tokio::select! {
            () = &mut guests_are_done, if !done => {
                done = true;
                continue;
            }
            () = &mut limit => {
                let left: Vec<_> = heard.values().filter(|heard| !heard.is_complete()).collect();
                panic!("connected: {connected:?}; the guests are done: {done}; incomplete: {left:#?}");
            }
            (event, which, _) = event => (event.expect("not the end"), which),
        };
        match event {
            MeshEvent::PeerConnected(peer) => {
                assert!(heard.contains_key(&(ours[which], peer)), "{peer} was expected by nobody");
                assert!(connected.insert((ours[which], peer)));
                tokio::spawn(send_reliably(meshes[which].handle(), peer));
            }
            MeshEvent::Packet(packet) => {
                // What was late in an earlier round is of no concern.
                let Some(heard) = heard.get_mut(&(ours[which], packet.from)) else { continue };
                if !heard.take(&packet) {
                    // There is room: all that is under way is less than a queue holds.
                    let echo = OutgoingPacket::new(packet.from, packet.mode, packet.payload);
                    meshes[which].handle().try_send(echo).unwrap();
                } else if packet.mode == TransferMode::Reliable && number(&packet.payload) == PACKETS - 1 {
                    tokio::spawn(send_once(meshes[which].handle(), packet.from, heard.echoed.clone()));
                }
            }
            // A busy machine.
            MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
            other => panic!("{} did not expect {other:?}", ours[which]),
        }
    }
}

/// Sends messages of odd sizes up to the largest, waits for the echo of each, and returns what the peer has now received
/// of us in all.
pub(crate) async fn sizes(mesh: &mut Mesh, peer: PeerId, most: usize, empty_too: bool) -> Digest {
    let mut sums = Sums::new();
    (0..PACKETS).for_each(|n| sums.add(&packet(mesh.id(), TransferMode::Reliable, n)));
    for size in [0, 1, 2, 1_199, 1_200, 1_201, 16_384, 65_535, 65_536, most] {
        if size == 0 && !empty_too {
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

/// The same in a mode that may lose them; each is sent until it comes back.
pub(crate) async fn sizes_once(mesh: &mut Mesh, peer: PeerId, mode: TransferMode, sizes: &[usize]) {
    for size in sizes {
        let mut tries = 0_usize;
        loop {
            assert!(tries < 20, "{size} bytes do not come back in the mode {mode:?}");
            let payload: Bytes = (0..*size).map(|place| 0x80 | ((place + tries) % 113) as u8).collect();
            mesh.handle().send(OutgoingPacket::new(peer, mode, payload.clone())).await.unwrap();
            let echo = async {
                loop {
                    match next(mesh).await {
                        MeshEvent::Packet(packet) if packet.mode == mode && packet.payload == payload => {
                            return;
                        }
                        MeshEvent::Packet(_) | MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
                        other => panic!("an echo was expected, not {other:?}"),
                    }
                }
            };
            if tokio::time::timeout(Duration::from_millis(500), echo).await.is_ok() {
                break;
            }
            tries += 1;
        }
    }
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

async fn send_reliably(mesh: MeshHandle, peer: PeerId) {
    for n in 0..PACKETS {
        send(&mesh, peer, TransferMode::Reliable, n).await;
    }
}

/// After the burst of the above, which may overflow the receive buffer of a browser's socket, and no faster than they come
/// back: loopback loses next to nothing then.
async fn send_once(mesh: MeshHandle, peer: PeerId, echoed: Arc<Notify>) {
    for n in 0..PACKETS {
        send(&mesh, peer, TransferMode::UnreliableOrdered, n).await;
        send(&mesh, peer, TransferMode::Unreliable, n).await;
        let _is_lost = tokio::time::timeout(LOST_AFTER, echoed.notified()).await;
    }
}

async fn send(mesh: &MeshHandle, peer: PeerId, mode: TransferMode, n: u32) {
    mesh.send(OutgoingPacket::new(peer, mode, packet(mesh.id(), mode, n))).await.unwrap();
}

impl Heard {
    fn new(us: PeerId, them: PeerId, they_send_reliably: bool) -> Heard {
        let echoed = Arc::default();
        Heard { us, them, they_send_reliably, theirs: HashMap::new(), echoes: HashMap::new(), echoed }
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
        // The one that was sent last of the two, so that no more than these are under way.
        if is_echo && packet.mode == TransferMode::Unreliable {
            self.echoed.notify_one();
        }
        is_echo
    }

    fn is_complete(&self) -> bool {
        TransferMode::ALL.iter().all(|mode| {
            let all = PACKETS as usize;
            let enough = if *mode == TransferMode::Reliable { all } else { ENOUGH };
            let count = |numbers: &HashMap<_, Vec<u32>>| numbers.get(mode).map_or(0, Vec::len);
            count(&self.echoes) >= enough
                && count(&self.theirs) >= if self.they_send_reliably { all } else { enough }
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
