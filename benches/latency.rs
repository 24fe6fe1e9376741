//! How long a packet takes: round trips of 64 bytes on each mode, the mesh beside the bare `webrtc` crate.
//!
//! ```text
//! cargo bench --bench latency                       # all modes, some ten seconds
//! cargo bench --bench latency -- ordered            # those with this in their name
//! SVG=docs/speed cargo bench --bench latency        # and a plot
//! ```
//!
//! A packet there and one back, one at a time, on 127.0.0.1 and in one process. The two run in turn, 500 round trips of
//! the one and 500 of the other, 21 times; a batch has its p50 and p99, and the table the medians of those, in µs. The
//! ratio is that of the mesh's by the bare crate's, the median of all pairs. All on tokio's multi-threaded runtime, and
//! once more on one of a single thread.

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use support::bare::Side;
use support::figures::{in_turn, percentile};
use support::meshes::Member;
use support::report::{Asked, Table};
use support::{End, Payload, Star, jobs, star};
use tokio::runtime::{Builder, Runtime};
use webrtc_mesh::TransferMode;

const ROWS: [(&str, TransferMode, Threads); 4] = [
    ("reliable", TransferMode::Reliable, Threads::Many),
    ("unreliable ordered", TransferMode::UnreliableOrdered, Threads::Many),
    ("unreliable", TransferMode::Unreliable, Threads::Many),
    ("reliable, one thread", TransferMode::Reliable, Threads::One),
];

/// What tokio's runtime has: a thread for each core, or one, which no other has to wake.
#[derive(Clone, Copy)]
enum Threads {
    Many,
    One,
}

const PAIRS: usize = 21;
const BATCH: usize = 500;

fn main() {
    let asked = Asked::from_args();
    let head =
        ["ping-pong 64 B", "mesh p50 µs", "bare p50 µs", "ratio", "mesh p99 µs", "bare p99 µs", "ratio"];
    let mut table = Table::new(&head);
    for (name, mode, threads) in ROWS.into_iter().filter(|(name, ..)| asked.wants(name)) {
        let runtime = match threads {
            Threads::Many => Runtime::new(),
            Threads::One => Builder::new_current_thread().enable_all().build(),
        };
        let runtime = runtime.expect("a runtime");
        let (mut mesh, mut bare) =
            runtime.block_on(async { (star::<Member>(1).await, star::<Side>(1).await) });
        let count = asked.times(BATCH) as u64;
        let pairs = in_turn(
            asked.times(PAIRS),
            || p50_and_p99(&runtime, count, mode, &mut mesh),
            || p50_and_p99(&runtime, count, mode, &mut bare),
        );
        let figures = [0, 1].map(|at| [pairs.mesh[at], pairs.bare[at], pairs.ratio[at]]);
        table.row(name, figures.concat());
        runtime.block_on(async { tokio::join!(mesh.close(), bare.close()) });
    }
    table.print();
    let panels = [table.panel("p50, µs", &[1, 2]), table.panel("p99, µs", &[4, 5])];
    table.plot("latency", "A packet of 64 B there and back, µs", &["mesh", "bare webrtc"], &panels);
}

fn p50_and_p99<E: End>(runtime: &Runtime, count: u64, mode: TransferMode, star: &mut Star<E>) -> [f64; 2] {
    let times = runtime.block_on(jobs::ping_pong(count, mode, &Payload::new(64), star));
    let mut micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    [50, 99].map(|percent| percentile(&mut micros, percent))
}
