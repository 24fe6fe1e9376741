//! How often memory is allocated for a packet: the mesh beside the bare `webrtc` crate on which it stands.
//!
//! ```text
//! cargo bench --bench allocations                   # all of it, half a minute
//! cargo bench --bench allocations -- broadcast      # one of the jobs
//! SVG=docs/speed cargo bench --bench allocations    # and a plot
//! ```
//!
//! The hub and its ends each have a thread of their own with all their tasks and drivers, and the allocations of each
//! thread are counted (a growth of what was allocated counts as one): so what sending costs and what receiving costs are
//! apart. 20,000 packets of each kind, on links that have carried 2,000 before. They go in rounds: the next begins when
//! all packets of the last have arrived. Rounds of one show a packet by itself, as a game sends it, with a datagram and
//! an acknowledgement of its own; rounds of 50 a stream, where packets share them.
//!
//! The columns are allocations for each packet delivered: `mesh`, `bare`, and what is the mesh's own, the difference. The
//! sender's have the making of the payload in them, one for each packet, and in a broadcast of the bare crate one for
//! each peer, as its `send` takes the payload away; the mesh makes one, and copies it for each peer but the last.

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use support::bare::Side;
use support::meshes::Member;
use support::report::{Asked, Table};
use support::{End, Input as _, Payload, Wire, wire};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use webrtc_mesh::TransferMode;

/// Name, mode, payload bytes, ends.
const JOBS: [(&str, TransferMode, usize, usize); 6] = [
    ("reliable 200 B", TransferMode::Reliable, 200, 1),
    ("reliable 1 KiB", TransferMode::Reliable, 1024, 1),
    ("unreliable 200 B", TransferMode::Unreliable, 200, 1),
    ("unreliable 1 KiB", TransferMode::Unreliable, 1024, 1),
    ("broadcast to 7, reliable 200 B", TransferMode::Reliable, 200, 7),
    ("broadcast to 7, unreliable 200 B", TransferMode::Unreliable, 200, 7),
];
/// Packets in a round.
const ROUNDS: [u64; 2] = [1, 50];
const PACKETS: u64 = 20_000;
const WARMED_UP: u64 = 2_000;
/// On loopback nothing is lost of what is sent in rounds.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Job {
    mode: TransferMode,
    bytes: usize,
    ends: usize,
    in_round: u64,
    rounds: u64,
    warms_up: u64,
}

fn main() {
    let asked = Asked::from_args();
    let head =
        ["allocations for each packet", "sending: mesh", "bare", "own", "receiving: mesh", "bare", "own"];
    let mut table = Table::new(&head);
    for (name, mode, bytes, ends) in JOBS {
        for in_round in ROUNDS {
            let name = format!("{name}, {}", if in_round == 1 { "one by one" } else { "in rounds of 50" });
            if !asked.wants(&name) {
                continue;
            }
            let rounds = |packets: u64| asked.times((packets / in_round) as usize) as u64;
            let (rounds, warms_up) = (rounds(PACKETS / ends as u64), rounds(WARMED_UP / ends as u64));
            let job = Job { mode, bytes, ends, in_round, rounds, warms_up };
            let ([mesh_sends, mesh_receives], [bare_sends, bare_receives]) =
                (count::<Member>(job), count::<Side>(job));
            let sending = [mesh_sends, bare_sends, mesh_sends - bare_sends];
            let receiving = [mesh_receives, bare_receives, mesh_receives - bare_receives];
            table.row(&name, [sending, receiving].concat());
        }
    }
    table.print();
    let panels = table.panels(&[1, 2, 4, 5]);
    let series = ["mesh sending", "bare sending", "mesh receiving", "bare receiving"];
    table.plot("allocations", "Allocations for each packet", &series, &panels);
}

/// Of the hub's thread and of the ends', for each packet delivered.
fn count<E: End>(job: Job) -> [f64; 2] {
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..job.ends).map(|_| wire()).unzip();
    // A permit for each round that has arrived.
    let arrived = Arc::new(Semaphore::new(0));
    let delivered = (job.rounds * job.in_round * job.ends as u64) as f64;
    let allocations = std::thread::scope(|scope| {
        let receives = scope.spawn(|| receive::<E>(job, theirs, &arrived));
        let sends = scope.spawn(|| send::<E>(job, ours, &arrived));
        [sends, receives].map(|thread| thread.join().expect("a side"))
    });
    allocations.map(|count| count as f64 / delivered)
}

fn send<E: End>(job: Job, wires: Vec<Wire<E::Signal>>, arrived: &Semaphore) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let payload = Payload::new(job.bytes);
    let hub = runtime.block_on(E::hub(wires));
    let inputs: Vec<E::Input> = hub.iter().map(End::input).collect();
    let rounds = async |count: u64| {
        for _ in 0..count {
            for number in 0..job.in_round {
                for input in &inputs {
                    input.put(job.mode, payload.make(number)).await;
                }
            }
            let all = timeout(LIMIT, arrived.acquire()).await.expect("they arrive");
            all.expect("it is never closed").forget();
        }
    };
    runtime.block_on(rounds(job.warms_up));
    // Everything ends with the runtime.
    measure(|| runtime.block_on(rounds(job.rounds))).count_total
}

fn receive<E: End>(job: Job, wires: Vec<Wire<E::Signal>>, arrived: &Semaphore) -> u64 {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let payload = Payload::new(job.bytes);
    let ends = wires.into_iter().enumerate().map(|(index, wire)| E::end(index, wire));
    let mut ends = runtime.block_on(futures::future::join_all(ends));
    let mut rounds = async |count: u64| {
        for _ in 0..count {
            for end in &mut ends {
                for expected in 0..job.in_round {
                    let packet = timeout(LIMIT, end.take(job.mode)).await.expect("it arrives");
                    let number = payload.number(&packet);
                    // An unreliable one may overtake.
                    assert!(number == expected || job.mode == TransferMode::Unreliable);
                }
            }
            arrived.add_permits(1);
        }
    };
    runtime.block_on(rounds(job.warms_up));
    measure(|| runtime.block_on(rounds(job.rounds))).count_total
}
