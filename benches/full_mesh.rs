//! A game among many: everyone says something to everyone 60 times a second, the mesh beside the bare `webrtc` crate.
//!
//! ```text
//! cargo bench --bench full_mesh                     # all of it, about a minute
//! cargo bench --bench full_mesh -- 16               # meshes of 16
//! SVG=docs/speed cargo bench --bench full_mesh      # and plots
//! ```
//!
//! Each of N members sends a packet of 200 bytes to all others 60 times a second, unreliable, each sent once
//! (`UnreliableLifetime::Once`); their ticks are spread evenly. The bare crate has N (N − 1) / 2 connections, with a task
//! for each end that reads it. 5 s each on 127.0.0.1, and all members are in one process: so the CPU is that of N players'
//! machines together, and a mesh of 32 asks for more than two cores have.
//!
//! | column | what it is |
//! |---|---|
//! | `full after s` | until all links were up; a member that comes connects to all that are there at once, and then comes the next |
//! | `packets /s` | what all members sent, counted for each receiver: 60 N (N − 1), or fewer if senders are late and skip ticks |
//! | `delivered %` | how many of those arrived, checked |
//! | `CPU %` | CPU time by wall-clock time, 100 is one core (Unix) |
//! | `p50 ms`, `p99 ms` | from before the packet is made until its receiver has it |

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use support::bare::Side;
use support::figures::percentile;
use support::meshes::{self, Member};
use support::report::{Asked, Table};
use support::{End, Input, Payload, machine, wire};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant as Tick, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use webrtc_mesh::{MeshEvent, Target, TransferMode};

const MODE: TransferMode = TransferMode::Unreliable;
const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);
const LASTS: Duration = Duration::from_secs(5);
/// Until everything that comes has come.
const SETTLES: Duration = Duration::from_millis(500);

fn main() {
    let asked = Asked::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let mut table = Table::new(&[
        "60 × 200 B to all",
        "full after s",
        "packets /s",
        "delivered %",
        "CPU %",
        "p50 ms",
        "p99 ms",
    ]);
    let lasts = if asked.is_bench { LASTS } else { Duration::from_millis(100) };
    let sizes: &[usize] = if asked.is_bench { &[8, 16, 32] } else { &[3] };
    for &size in sizes {
        let name = format!("mesh of {size}");
        if asked.wants(&name) {
            let (members, full) = runtime.block_on(mesh_of(size));
            // One stream of events for each member, and one input, which sends to all.
            let members = members.into_iter().map(|member| (vec![member.input()], vec![member])).collect();
            row(&mut table, &name, full, runtime.block_on(play(members, size - 1, lasts)));
        }
        let name = format!("bare {size}");
        if asked.wants(&name) && size <= 16 {
            let (members, full) = runtime.block_on(bare_of(size));
            let members =
                members.into_iter().map(|sides| (sides.iter().map(Side::input).collect(), sides)).collect();
            row(&mut table, &name, full, runtime.block_on(play(members, 1, lasts)));
        }
    }
    table.print();
    let panels = [("delivered, %", 3), ("CPU, %", 4), ("p99, ms", 6)];
    let panels = panels.map(|(title, column)| table.panel(title, &[column]));
    table.plot("full_mesh", "Everyone to everyone, 60 packets of 200 B a second", &[], &panels);
}

fn row(table: &mut Table, name: &str, full: Duration, played: [f64; 5]) {
    table.row(name, [[full.as_secs_f64()].as_slice(), &played].concat());
}

/// So many members, all connected, and how long that took.
async fn mesh_of(size: usize) -> (Vec<Member>, Duration) {
    let began = Instant::now();
    let mut members: Vec<Member> = Vec::new();
    for index in 0..size {
        let mut new = Member::new(index, Target::All);
        let mut adding = Vec::new();
        for (other, member) in members.iter().enumerate() {
            let (one, two) = wire();
            let (here, there) = (new.mesh.handle(), member.mesh.handle());
            adding.push(async move {
                tokio::join!(
                    meshes::add(&here, meshes::id(other), true, one),
                    meshes::add(&there, meshes::id(index), false, two)
                )
            });
        }
        join_all(adding).await;
        for _ in 0..index {
            connected(&mut new).await;
        }
        join_all(members.iter_mut().map(connected)).await;
        members.push(new);
    }
    (members, began.elapsed())
}

async fn connected(member: &mut Member) {
    let event = member.mesh.next().await;
    assert!(matches!(event, Some(MeshEvent::PeerConnected(_))), "{event:?}");
}

/// The same of the bare crate: the sides of each member.
async fn bare_of(size: usize) -> (Vec<Vec<Side>>, Duration) {
    let began = Instant::now();
    let mut members: Vec<Vec<Side>> = Vec::new();
    for index in 0..size {
        let connecting = (0..index).map(|_| {
            let (one, two) = wire();
            async { tokio::join!(Side::connect(true, one), Side::connect(false, two)) }
        });
        let mut new = Vec::new();
        for (member, (here, there)) in join_all(connecting).await.into_iter().enumerate() {
            new.push(here);
            members[member].push(there);
        }
        members.push(new);
    }
    (members, began.elapsed())
}

/// What is sent in a second, the share of it that arrived and the CPU time, in per cent, p50 and p99 of the latency in ms.
/// Each member has inputs that together reach everyone, each so many, and ends that are read each by a task.
async fn play<E: End>(members: Vec<(Vec<E::Input>, Vec<E>)>, reach: usize, lasts: Duration) -> [f64; 5] {
    let (began, stop, sent) = (Instant::now(), CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
    let count = members.len();
    let cpu = machine::cpu();
    for (index, (inputs, ends)) in members.into_iter().enumerate() {
        for end in ends {
            receivers.spawn(receive(end, began, stop.clone()));
        }
        let first = Tick::now() + TICK * index as u32 / count as u32;
        senders.spawn(send(inputs, began, first, lasts, reach as u64, sent.clone()));
    }
    senders.join_all().await;
    let took = began.elapsed().as_secs_f64();
    let cpu = machine::cpu_seconds_since(cpu) / took * 100.0;
    sleep(SETTLES).await;
    stop.cancel();
    let mut latencies = Vec::new();
    let mut closing = Vec::new();
    for (end, mut received) in receivers.join_all().await {
        latencies.append(&mut received);
        closing.push(end.close());
    }
    join_all(closing).await;
    let sent = sent.load(Ordering::Relaxed) as f64;
    let delivered = 100.0 * latencies.len() as f64 / sent;
    let [p50, p99] = [50, 99].map(|percent| percentile(&mut latencies, percent));
    [sent / took, delivered, cpu, p50, p99]
}

async fn send<I: Input>(
    inputs: Vec<I>,
    began: Instant,
    first: Tick,
    lasts: Duration,
    reach: u64,
    sent: Arc<AtomicU64>,
) {
    let payload = Payload::new(200);
    let mut ticks = interval_at(first, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while began.elapsed() < lasts {
        ticks.tick().await;
        for input in &inputs {
            input.offer(MODE, payload.make(began.elapsed().as_nanos() as u64)).await;
            sent.fetch_add(reach, Ordering::Relaxed);
        }
    }
}

/// The latencies, in ms, of what has come until it is stopped.
async fn receive<E: End>(mut end: E, began: Instant, stop: CancellationToken) -> (E, Vec<f64>) {
    let payload = Payload::new(200);
    let mut latencies = Vec::new();
    let receive = async {
        loop {
            let sent = Duration::from_nanos(payload.number(&end.take(MODE).await));
            latencies.push(began.elapsed().saturating_sub(sent).as_secs_f64() * 1e3);
        }
    };
    stop.run_until_cancelled(receive).await;
    (end, latencies)
}
