//! What a lost packet costs: the latency of small reliable packets over paths of 2 to 600 ms that lose up to a fifth.
//!
//! ```text
//! cargo bench --features sim --bench loss            # all of it; `-- 40` for the paths of 40 ms
//! cargo bench --features sim --bench loss -- ordered # of the ordered mode between members: of what arrives, how late
//! cargo bench --features sim --bench loss -- bulk    # instead of that, kB/s of reliable packets of 16 KiB without a pause
//! ```
//!
//! A pair on the simulated network: 64 bytes every 10 ms, reliable unless asked for otherwise, one way. ICE, DTLS and
//! SCTP are the real ones, time is virtual, so the figures do not depend on the machine. `members` are two of this crate.
//! The others are one of this crate that sends to, or hears from, a WebRTC stack whose timers are those of the `webrtc`
//! crate, as a stock Godot's would be: it sends again after a second, and acknowledges up to 200 ms late. "stock" is two
//! of them, which is what the `webrtc` crate by itself does, but for what this crate repeats after a silence.
//! `datagrams` is how many left the sender for each packet: what more there are than without loss is what was sent again,
//! needed or not. `ended` is how many of the 20 links ended before all had arrived, as SCTP gives up a packet that is lost six
//! times in a row; what had arrived until then counts.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a pair that never meets ends it")]
#![allow(clippy::print_stdout, reason = "the table")]

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, interval, timeout};
use webrtc_mesh::sim::{self, Network};
use webrtc_mesh::{
    Mesh, MeshEvent, OutgoingPacket, PeerConnection, PeerId, Signal, Target, TransferMode, UnreliableLifetime,
};

const ROUND_TRIPS_MS: [u64; 6] = [2, 20, 40, 100, 300, 600];
const LOSSES: [f64; 5] = [0.0, 0.01, 0.05, 0.1, 0.2];
/// Single losses decide what is slowest, so there are many.
const SEEDS: u64 = 20;
const BULK_SEEDS: u64 = 4;
const PACKETS: u32 = 1500;
const EVERY: Duration = Duration::from_millis(10);
const BULK: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(300);

/// Who sends to whom.
#[derive(Debug, Clone, Copy)]
struct Pair {
    name: &'static str,
    sender_is_stock: bool,
    receiver_is_stock: bool,
}

const PAIRS: [Pair; 4] = [
    Pair { name: "members", sender_is_stock: false, receiver_is_stock: false },
    Pair { name: "to stock", sender_is_stock: false, receiver_is_stock: true },
    Pair { name: "from stock", sender_is_stock: true, receiver_is_stock: false },
    Pair { name: "stock", sender_is_stock: true, receiver_is_stock: true },
];

fn main() {
    let wanted: Option<u64> = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let ordered = std::env::args().any(|arg| arg == "ordered");
    let mode = if ordered { TransferMode::UnreliableOrdered } else { TransferMode::Reliable };
    if std::env::args().any(|arg| arg == "bulk") {
        return bulk(wanted);
    }
    println!("| round trip | lost | pair | p50 ms | p90 ms | p99 ms | slowest ms | datagrams | ended |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for round_trip in ROUND_TRIPS_MS.into_iter().filter(|ms| wanted.is_none_or(|wanted| wanted == *ms)) {
        for loss in LOSSES {
            // Those with stock timers have packets that live for a minute, which is another mode.
            for pair in
                PAIRS.into_iter().filter(|pair| !ordered || !pair.sender_is_stock && !pair.receiver_is_stock)
            {
                row(round_trip, loss, pair, mode);
            }
        }
    }
}

fn row(round_trip: u64, loss: f64, pair: Pair, mode: TransferMode) {
    let mut latencies = Vec::new();
    let mut datagrams = 0;
    let mut ended = 0;
    for seed in 0..SEEDS {
        let one_way = Duration::from_millis(round_trip) / 2;
        let (some, sent) = sim::run_within(LIMIT * 20, seed, |network| async move {
            network.links().latency(one_way).jitter(one_way / 10);
            packets(network, loss, pair, mode).await
        });
        ended += u64::from(mode == TransferMode::Reliable && some.len() < PACKETS as usize);
        latencies.extend(some);
        datagrams += sent;
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(place).copied().unwrap_or_default().as_millis()
    };
    println!(
        "| {round_trip} ms | {} % | {} | {} | {} | {} | {} | {:.2} | {ended} |",
        loss * 100.0,
        pair.name,
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        datagrams as f64 / (SEEDS * u64::from(PACKETS)) as f64
    );
}

fn bulk(wanted: Option<u64>) {
    println!("| round trip | lost | pair | kB/s |");
    println!("|---|---|---|---|");
    for round_trip in ROUND_TRIPS_MS.into_iter().filter(|ms| wanted.is_none_or(|wanted| wanted == *ms)) {
        for loss in LOSSES.into_iter().filter(|loss| *loss > 0.0) {
            for pair in PAIRS {
                let bytes: usize = (0..BULK_SEEDS)
                    .map(|seed| {
                        sim::run_within(LIMIT, seed, |network| async move {
                            network.links().latency(Duration::from_millis(round_trip) / 2);
                            bytes(network, loss, pair).await
                        })
                    })
                    .sum();
                let rate = bytes as f64 / (BULK_SEEDS as f64 * BULK.as_secs_f64()) / 1e3;
                println!("| {round_trip} ms | {} % | {} | {rate:.0} |", loss * 100.0, pair.name);
            }
        }
    }
}

/// How many bytes arrive in [`BULK`].
async fn bytes(network: Network, loss: f64, pair: Pair) -> usize {
    let (sender, mut receiver) = connect(&network, pair).await;
    network.links().loss(loss);
    let handle = sender.handle();
    tokio::spawn(async move {
        let packet = || OutgoingPacket::reliable(PeerId::new(2).unwrap(), vec![7; 16 * 1024]);
        while handle.send(packet()).await.is_ok() {}
    });
    let (until, mut arrived) = (Instant::now() + BULK, 0);
    while let Ok(Some(event)) = tokio::time::timeout_at(until, receiver.next()).await {
        if let MeshEvent::Packet(packet) = event {
            arrived += packet.payload.len();
        }
    }
    arrived
}

/// The latency of each packet, and how many datagrams the sender has sent until the last had arrived.
async fn packets(network: Network, loss: f64, pair: Pair, mode: TransferMode) -> (Vec<Duration>, u64) {
    let (sender, mut receiver) = connect(&network, pair).await;
    network.links().loss(loss);
    let before = network.link("one", "two").traffic().sent;
    let handle = sender.handle();
    let sending = tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        let mut times = Vec::new();
        for n in 0..PACKETS {
            ticks.tick().await;
            times.push(Instant::now());
            let payload = [&n.to_be_bytes()[..], &[7; 60]].concat();
            let (target, payload) = (Target::Peer(PeerId::new(2).unwrap()), payload.into());
            if handle.send(OutgoingPacket { target, mode, payload }).await.is_err() {
                break;
            }
        }
        times
    });
    let (mut arrived, mut sent) = (Vec::new(), 0);
    while arrived.len() < PACKETS as usize {
        match timeout(LIMIT, receiver.next()).await {
            Ok(Some(MeshEvent::Packet(packet))) => {
                let n = u32::from_be_bytes(packet.payload[..4].try_into().unwrap());
                arrived.push((n as usize, Instant::now()));
                sent = network.link("one", "two").traffic().sent - before;
            }
            Ok(Some(MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_))) => {}
            Ok(Some(MeshEvent::PeerDisconnected(..))) => break,
            Err(_) if mode != TransferMode::Reliable => break,
            other => panic!("{other:?}"),
        }
    }
    let times = sending.await.expect("it sends");
    (arrived.into_iter().map(|(n, arrived)| arrived - times[n]).collect(), sent)
}

async fn connect(network: &Network, pair: Pair) -> (Mesh, Mesh) {
    let one = PeerConnection::new(network.peer("one")).await.expect("a connection");
    let two = PeerConnection::new(network.peer("two")).await.expect("a connection");
    let mut meshes = [1, 2].map(|id| Mesh::builder().build(PeerId::new(id).unwrap()));
    let stocks = [pair.sender_is_stock, pair.receiver_is_stock];
    for (n, connection) in [&one, &two].into_iter().enumerate() {
        // With lifetimes the timers are the library's own.
        let lifetime = if stocks[n] { UnreliableLifetime::Millis(60_000) } else { UnreliableLifetime::Once };
        let peer = meshes[1 - n].id();
        meshes[n].handle().add_peer(connection.clone(), peer, lifetime).await.expect("it is new");
    }
    one.create_offer().await.expect("an offer");
    let strangers = pair.sender_is_stock || pair.receiver_is_stock;
    for (from, to) in [(one.clone(), two.clone()), (two, one)] {
        tokio::spawn(async move {
            let mut signals = from.signals();
            while let Some(mut signal) = signals.next().await {
                if let (true, Signal::Description(description)) = (strangers, &mut signal) {
                    let lines = description.sdp.split_inclusive('\n');
                    description.sdp = lines.filter(|line| !line.starts_with("a=x-webrtc-mesh")).collect();
                }
                to.handle_signal(signal).await.expect("the signal is taken");
            }
        });
    }
    for mesh in &mut meshes {
        let event = timeout(LIMIT, mesh.next()).await.expect("they connect");
        assert!(matches!(event, Some(MeshEvent::PeerConnected(_))), "{event:?}");
    }
    let [one, two] = meshes;
    (one, two)
}
