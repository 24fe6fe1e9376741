//! What a packet to everyone costs: reliable ones of 1 KiB to 1, 7 and 15 peers, the mesh beside the bare `webrtc` crate.
//!
//! ```text
//! cargo bench --bench broadcast                     # all of it, half a minute
//! cargo bench --bench broadcast -- "to 7"           # one of them
//! SVG=docs/speed cargo bench --bench broadcast      # and a plot
//! ```
//!
//! The mesh sends each packet once, to `Target::All`; of the bare crate a task for each peer sends it. Timed is from the
//! first packet sent until all peers have all of them, each checked. The columns are the time and the CPU time (Unix) of
//! each packet delivered, in µs, both sides and this program's part included.
//!
//! The two run in turn, a batch of some 150 ms each, 21 times, on 127.0.0.1 and in one process; the table has the medians.
//! A ratio is that of the mesh's figure by the bare crate's, the median of all pairs.

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use support::bare::Side;
use support::figures::in_turn;
use support::meshes::Member;
use support::report::{Asked, Table};
use support::{End, Payload, Star, jobs, machine, star};
use tokio::runtime::Runtime;
use webrtc_mesh::Target;

const STARS: [(&str, usize); 3] = [("to 1", 1), ("to 7", 7), ("to 15", 15)];
const PAIRS: usize = 21;
const BATCH: f64 = 0.15;

fn main() {
    let asked = Asked::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let head =
        ["reliable 1 KiB", "mesh µs", "bare µs", "ratio", "mesh CPU µs", "bare CPU µs", "ratio of CPU"];
    let mut table = Table::new(&head);
    for (name, ends) in STARS.into_iter().filter(|(name, _)| asked.wants(name)) {
        let (mut mesh, mut bare) =
            runtime.block_on(async { (star::<Member>(ends).await, star::<Side>(ends).await) });
        mesh.hub[0].target = Target::All;
        // A first batch of each, to know how many fit into one; not counted.
        let first = asked.times(500 / ends) as u64;
        let slower = once(&runtime, first, &mut mesh)[0].max(once(&runtime, first, &mut bare)[0]);
        let count = asked.times((BATCH / (slower / 1e6 * ends as f64)).ceil() as usize) as u64;
        let pairs = in_turn(
            asked.times(PAIRS),
            || once(&runtime, count, &mut mesh),
            || once(&runtime, count, &mut bare),
        );
        let figures = [0, 1].map(|at| [pairs.mesh[at], pairs.bare[at], pairs.ratio[at]]);
        table.row(name, figures.concat());
        runtime.block_on(async { tokio::join!(mesh.close(), bare.close()) });
    }
    table.print();
    let panels = [table.panel("time, µs", &[1, 2]), table.panel("CPU, µs", &[4, 5])];
    let title = "Broadcast of 1 KiB, reliable: of each packet delivered";
    table.plot("broadcast", title, &["mesh", "bare webrtc"], &panels);
}

/// The time and the CPU time of each packet delivered, in µs.
fn once<E: End>(runtime: &Runtime, count: u64, star: &mut Star<E>) -> [f64; 2] {
    let delivered = (count * star.ends.len() as u64) as f64;
    let cpu = machine::cpu();
    let took = runtime.block_on(jobs::one_way(count, &Payload::new(1024), star));
    [took.as_secs_f64(), machine::cpu_seconds_since(cpu)].map(|seconds| seconds / delivered * 1e6)
}
