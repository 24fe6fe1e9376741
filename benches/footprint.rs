//! What a packet costs when there are many links: in a mesh of 16 the same code takes about twice as long as in one of 4,
//! as the memory that a link's turn looks at is not at hand any more.
//!
//! ```text
//! cargo bench --features sim --bench footprint          # half a minute
//! cargo bench --features sim --bench footprint -- 16    # one mesh of 16, once
//! ```
//!
//! Everybody sends 200 bytes to everybody sixty times in a second, unreliably, on the simulated network: so there is one
//! thread, no kernel, and the same work in each run. Each mesh carries as many packets as the others; medians of five runs, in
//! turn.
//!
//! Which memory that is, cachegrind tells: it counts what a cache of 1 MiB would not have (`DLmr`, `DLmw`).
//!
//! ```text
//! CARGO_PROFILE_BENCH_DEBUG=line-tables-only cargo bench --features sim --bench footprint --no-run
//! valgrind --tool=cachegrind --cache-sim=yes --D1=49152,12,64 --LL=1048576,16,64 target/release/deps/footprint-… --bench 16
//! ```

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]
#![allow(clippy::print_stdout, reason = "what it is for")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use support::figures::median;
use support::machine;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::{self, Network};
use webrtc_mesh::{Mesh, MeshEvent, OutgoingPacket, PeerId, Target};

const MESHES: [u64; 3] = [4, 8, 16];
/// In each run: a multiple of the links of each mesh.
const PACKETS: u64 = 43_680;
const TICK: Duration = Duration::from_micros(16_667);
const BYTES: usize = 200;
const RUNS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let members = arguments.iter().find_map(|argument| argument.parse::<u64>().ok());
    // Without it somebody only tries whether it runs (`cargo test --benches`).
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    if members.is_some() || !is_bench {
        let members = members.unwrap_or(2).max(2);
        let micros = sim::run(1, |network| play(members, if is_bench { PACKETS } else { 120 }, network));
        println!("{micros:.1} µs for each packet in a mesh of {members}");
        return;
    }
    let mut micros = [const { Vec::new() }; MESHES.len()];
    for run in 0..RUNS {
        for (micros, members) in micros.iter_mut().zip(MESHES) {
            micros.push(sim::run(run as u64, |network| play(members, PACKETS, network)));
        }
    }
    let micros = micros.map(median);
    println!("| members | µs for each packet | beside a mesh of {} |\n|--:|--:|--:|", MESHES[0]);
    for (members, each) in MESHES.into_iter().zip(micros) {
        println!("| {members} | {each:.1} | {:.2} |", each / micros[0]);
    }
}

/// Processor time for each packet, in microseconds.
async fn play(members: u64, packets: u64, network: Network) -> f64 {
    network.links().latency(Duration::from_micros(50));
    let (hub, received) = (Hub::new(), Arc::new(AtomicU64::new(0)));
    let mut handles = Vec::new();
    for n in 1..=members {
        let (host, id) = (network.host(&n.to_string()), id(n));
        let joined = Mesh::builder().connection(host.peer()).join(hub.join_as(id)).await;
        let mut mesh = joined.expect("the hub takes everyone");
        handles.push(mesh.handle());
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            while let Some(event) = mesh.next().await {
                if matches!(event, MeshEvent::Packet(_)) {
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    for handle in &handles {
        for other in (1..=members).map(id).filter(|other| *other != handle.id()) {
            handle.wait_connected(other).await.expect("nothing is in the way");
        }
    }
    // What follows on the opening.
    sleep(Duration::from_secs(3)).await;
    let before = machine::cpu();
    let ticks = packets / (members * (members - 1));
    let mut senders = JoinSet::new();
    for (n, handle) in handles.into_iter().enumerate() {
        // Games do not tick together.
        let first = TICK * n as u32 / members as u32;
        senders.spawn(async move {
            sleep(first).await;
            let mut at = interval(TICK);
            for _ in 0..ticks {
                at.tick().await;
                let packet = OutgoingPacket::unreliable(Target::All, vec![7; BYTES]);
                handle.try_send(packet).expect("it fits");
            }
            handle
        });
    }
    let handles = senders.join_all().await;
    sleep(Duration::from_millis(100)).await;
    let seconds = machine::cpu_seconds_since(before);
    let sent = ticks * members * (members - 1);
    assert_eq!(received.load(Ordering::Relaxed), sent, "the network loses nothing");
    drop(handles);
    seconds * 1e6 / sent as f64
}

fn id(n: u64) -> PeerId {
    PeerId::new(n as u32).expect("1 and up are ids")
}
