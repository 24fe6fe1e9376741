//! How much a link carries: reliable packets one way, the mesh beside the bare `webrtc` crate on the same settings.
//!
//! ```text
//! cargo bench --bench throughput                    # all sizes, about a minute
//! cargo bench --bench throughput -- "16 KiB"        # one of them
//! SVG=docs/speed cargo bench --bench throughput     # and a plot
//! ```
//!
//! | column | what it is |
//! |---|---|
//! | `mesh µs`, `bare µs` | one packet's time, from the first sent to the last received, by their number |
//! | `mesh MB/s`, `bare MB/s` | payload in that time |
//! | `share %` | how fast the mesh is, as a share of the bare crate |
//! | `best %` | the same of the fastest batch of each |
//!
//! Everything runs in this process over UDP on 127.0.0.1: both sides share the cores, and whatever else the machine does
//! is in the figures. So after criterion has measured each by itself, the two run in turn, a batch of the one and a batch
//! of the other, 21 times: the table at the end has the medians, and the median of the share in each pair. Believe that
//! share rather than the absolute figures. The bare crate stalls for up to a second when more than 256 messages arrive at
//! once. Where that befalls most batches, as it may at 64 B, the share is more than 100, and `best` tells what the mesh
//! costs when nothing stalls.

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput};
use support::bare::Side;
use support::figures::in_turn;
use support::meshes::Member;
use support::report::Table;
use support::{End, Payload, Star, jobs, star};
use tokio::runtime::Runtime;

const SIZES: [(&str, usize); 4] = [
    ("reliable 64 B", 64),
    ("reliable 1 KiB", 1024),
    ("reliable 16 KiB", 16 * 1024),
    ("reliable 64 KiB", 64 * 1024),
];

/// Pairs of batches, and how long the slower batch of a pair takes, in seconds.
const PAIRS: usize = 21;
const BATCH: f64 = 0.15;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    let mut table = Table::new(&["", "mesh µs", "bare µs", "mesh MB/s", "bare MB/s", "share %", "best %"]);
    for (name, bytes) in SIZES {
        let payload = Payload::new(bytes);
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut mesh = Bench::<Member>::new(&runtime, &payload);
        group.bench_function("mesh", |bencher| bencher.iter_custom(|count| mesh.run(count)));
        let mut bare = Bench::<Side>::new(&runtime, &payload);
        group.bench_function("bare", |bencher| bencher.iter_custom(|count| bare.run(count)));
        group.finish();
        if let (Some(mesh_takes), Some(bare_takes)) = (mesh.fastest, bare.fastest) {
            let count = (BATCH / mesh_takes.max(bare_takes)).ceil() as u64;
            let pairs = in_turn(PAIRS, || [mesh.once(count)], || [bare.once(count)]);
            let rate = |seconds: f64| bytes as f64 / seconds / 1e6;
            let ([mesh], [bare]) = (pairs.mesh, pairs.bare);
            let shares = [pairs.ratio, pairs.ratio_of_least].map(|[ratio]| 100.0 / ratio);
            table.row(name, [[mesh * 1e6, bare * 1e6, rate(mesh), rate(bare)].as_slice(), &shares].concat());
        }
        mesh.finish();
        bare.finish();
    }
    criterion.final_summary();
    table.print();
    table.plot(
        "throughput",
        "Reliable packets one way, MB/s",
        &["mesh", "bare webrtc"],
        &table.panels(&[3, 4]),
    );
}

/// One size on one of the two, with its link made when it is first run.
struct Bench<'a, E> {
    runtime: &'a Runtime,
    payload: &'a Payload,
    star: Option<Star<E>>,
    /// The least time of one packet, in seconds; of a run that was measured, not only tried (`--test`).
    fastest: Option<f64>,
}

impl<'a, E: End> Bench<'a, E> {
    fn new(runtime: &'a Runtime, payload: &'a Payload) -> Bench<'a, E> {
        Bench { runtime, payload, star: None, fastest: None }
    }

    fn run(&mut self, count: u64) -> Duration {
        let seconds = self.once(count);
        if count > 1 {
            self.fastest = Some(self.fastest.map_or(seconds, |fastest| fastest.min(seconds)));
        }
        Duration::from_secs_f64(seconds * count as f64)
    }

    /// The time of one packet, in seconds.
    fn once(&mut self, count: u64) -> f64 {
        let star = self.star.get_or_insert_with(|| self.runtime.block_on(star(1)));
        self.runtime.block_on(jobs::one_way(count, self.payload, star)).as_secs_f64() / count as f64
    }

    /// Closes everything.
    fn finish(self) {
        if let Some(star) = self.star {
            self.runtime.block_on(star.close());
        }
    }
}
