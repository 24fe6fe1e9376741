//! What the mesh costs: each job beside the bare `webrtc` crate on the same settings, in the same run.
//!
//! ```text
//! cargo bench                      # all of it, about two minutes
//! cargo bench -- ping-pong         # one of the jobs
//! ```
//!
//! | job | what is timed |
//! |---|---|
//! | `reliable 64 B`, `reliable 16 KiB` | packets one way, from the first sent to the last received |
//! | `ping-pong 64 B` | one reliable packet there and one back |
//! | `broadcast 1 KiB to 7` | reliable packets to seven peers, until all have all; the bare crate has a task for each |
//!
//! Everything runs in this process over UDP on 127.0.0.1: both sides share the cores, and whatever else the machine does
//! is in the figures. The table at the end has the median of each pair and how fast the mesh is as a share of the bare
//! crate; believe that share rather than the absolute figures. The bare crate stalls for a second now and then when more
//! than 256 messages arrive at once; the median leaves those batches out, criterion's own figures have them.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken link ends the benchmark")]
#![allow(clippy::print_stdout, reason = "the table at the end")]

mod bare;

use std::future::Future;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput};
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use webrtc_mesh::{
    Mesh, MeshEvent, MeshHandle, OutgoingPacket, PeerConnection, PeerConnectionConfig, PeerId, Target,
    UnreliableLifetime,
};

/// What is timed.
#[derive(Debug, Clone, Copy)]
enum Job {
    /// From the hub to each end, all at once.
    OneWay,
    /// From the hub to its one end and back, one at a time.
    PingPong,
}

const JOBS: [(&str, Job, usize, usize); 4] = [
    // name, job, payload bytes, ends
    ("reliable 64 B", Job::OneWay, 64, 1),
    ("reliable 16 KiB", Job::OneWay, 16 * 1024, 1),
    ("ping-pong 64 B", Job::PingPong, 64, 1),
    ("broadcast 1 KiB to 7", Job::OneWay, 1024, 7),
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(2))
        .measurement_time(Duration::from_secs(8))
        .configure_from_args();
    let runtime = Runtime::new().expect("a runtime");
    let mut results = Vec::new();
    for (name, job, payload_bytes, ends) in JOBS {
        let payload = Bytes::from(vec![7; payload_bytes]);
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Bytes((payload_bytes * ends) as u64));
        let mut mesh = Bench { runtime: &runtime, star: None, batches: Vec::new() };
        group.bench_function("mesh", |bencher| {
            bencher.iter_custom(|count| mesh.run(job, count, &payload, || star(ends)));
        });
        let mut bare = Bench { runtime: &runtime, star: None, batches: Vec::new() };
        group.bench_function("bare", |bencher| {
            bencher.iter_custom(|count| bare.run(job, count, &payload, || bare::star(ends)));
        });
        group.finish();
        results.push((name, payload_bytes * ends, mesh.finish(), bare.finish()));
    }
    criterion.final_summary();
    print_shares(&results);
}

/// The median of each pair, and how fast the mesh is as a share of the bare crate.
fn print_shares(results: &[(&str, usize, Option<f64>, Option<f64>)]) {
    println!(
        "{:<22} {:>12} {:>12} {:>12} {:>12} {:>8}",
        "", "mesh µs", "bare µs", "mesh MB/s", "bare MB/s", "share"
    );
    for (name, bytes, mesh, bare) in results {
        let (Some(mesh), Some(bare)) = (mesh, bare) else { continue };
        let rate = |seconds: f64| *bytes as f64 / seconds / 1e6;
        println!(
            "{name:<22} {:>12.2} {:>12.2} {:>12.1} {:>12.1} {:>6.0} %",
            mesh * 1e6,
            bare * 1e6,
            rate(*mesh),
            rate(*bare),
            bare / mesh * 100.0
        );
    }
}

/// One job on one of the two, with its connections made when it is first run.
struct Bench<'a, E> {
    runtime: &'a Runtime,
    star: Option<Star<E>>,
    batches: Vec<(u64, Duration)>,
}

impl<E: End> Bench<'_, E> {
    fn run<F: Future<Output = Star<E>>>(
        &mut self,
        job: Job,
        count: u64,
        payload: &Bytes,
        connect: impl FnOnce() -> F,
    ) -> Duration {
        let star = self.star.get_or_insert_with(|| self.runtime.block_on(connect()));
        let took = self.runtime.block_on(async {
            match job {
                Job::OneWay => one_way(count, payload, star).await,
                Job::PingPong => ping_pong(count, payload, star).await,
            }
        });
        self.batches.push((count, took));
        took
    }

    /// Closes everything; the median time of one iteration, in seconds, over the measured batches.
    fn finish(self) -> Option<f64> {
        if let Some(Star { hub, ends }) = self.star {
            self.runtime.block_on(async {
                for end in hub.into_iter().chain(ends) {
                    end.close().await;
                }
            });
        }
        // The batches of the warm-up are smaller. A single iteration is a trial run (`--test`), not a measurement.
        let (measured, _) = *self.batches.last().filter(|(count, _)| *count > 1)?;
        let mut times: Vec<f64> = self
            .batches
            .iter()
            .filter(|(count, _)| *count == measured)
            .map(|(count, took)| took.as_secs_f64() / *count as f64)
            .collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    }
}

/// A hub with a link to each of some ends. A mesh is a hub by itself; the bare crate has a connection for each end.
struct Star<E> {
    hub: Vec<E>,
    ends: Vec<E>,
}

/// Where packets come out.
trait End: Send + 'static {
    type Input: Input;
    fn input(&self) -> Self::Input;
    fn take(&mut self) -> impl Future<Output = Bytes> + Send;
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Where reliable packets go in.
trait Input: Clone + Send + 'static {
    fn put(&self, payload: Bytes) -> impl Future<Output = ()> + Send;
}

/// So many packets to each end, from the first sent to the last received.
async fn one_way<E: End>(count: u64, payload: &Bytes, star: &mut Star<E>) -> Duration {
    let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
    let began = Instant::now();
    for mut end in star.ends.drain(..) {
        receivers.spawn(async move {
            for _ in 0..count {
                end.take().await;
            }
            end
        });
    }
    for input in star.hub.iter().map(End::input) {
        let payload = payload.clone();
        senders.spawn(async move {
            for _ in 0..count {
                input.put(payload.clone()).await;
            }
        });
    }
    senders.join_all().await;
    star.ends = receivers.join_all().await;
    began.elapsed()
}

/// So many round trips, one after the other.
async fn ping_pong<E: End>(count: u64, payload: &Bytes, star: &mut Star<E>) -> Duration {
    let mut echoes = JoinSet::new();
    let mut pings = JoinSet::new();
    let began = Instant::now();
    for mut end in star.ends.drain(..) {
        echoes.spawn(async move {
            let back = end.input();
            for _ in 0..count {
                let packet = end.take().await;
                back.put(packet).await;
            }
            end
        });
    }
    for mut hub in star.hub.drain(..) {
        let payload = payload.clone();
        pings.spawn(async move {
            let there = hub.input();
            for _ in 0..count {
                there.put(payload.clone()).await;
                hub.take().await;
            }
            hub
        });
    }
    star.hub = pings.join_all().await;
    star.ends = echoes.join_all().await;
    began.elapsed()
}

/// A mesh with so many others, which do not know each other.
async fn star(ends: usize) -> Star<Mesh> {
    let mut hub = Mesh::builder().build(PeerId::SERVER);
    let mut others = Vec::new();
    for _ in 0..ends {
        let mut other = Mesh::builder().build(PeerId::random());
        let config = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
        let here = PeerConnection::new(config.clone()).await.expect("a connection");
        let there = PeerConnection::new(config).await.expect("a connection");
        for (mesh, connection, peer) in [(&hub, &here, other.id()), (&other, &there, hub.id())] {
            let added = mesh.handle().add_peer(connection.clone(), peer, UnreliableLifetime::Once).await;
            added.expect("it is new");
        }
        here.create_offer().await.expect("an offer");
        for (from, to) in [(here.clone(), there.clone()), (there, here)] {
            tokio::spawn(async move {
                let mut signals = from.signals();
                while let Some(signal) = signals.next().await {
                    to.handle_signal(signal).await.expect("the signal is taken");
                }
            });
        }
        for mesh in [&mut hub, &mut other] {
            let event = mesh.next().await;
            assert!(matches!(event, Some(MeshEvent::PeerConnected(_))), "{event:?}");
        }
        others.push(other);
    }
    Star { hub: vec![hub], ends: others }
}

impl End for Mesh {
    type Input = MeshHandle;

    fn input(&self) -> MeshHandle {
        self.handle()
    }

    async fn take(&mut self) -> Bytes {
        match self.next().await {
            Some(MeshEvent::Packet(packet)) => packet.payload,
            other => panic!("a packet was expected, not {other:?}"),
        }
    }

    async fn close(self) {
        self.handle().close().await;
    }
}

impl Input for MeshHandle {
    async fn put(&self, payload: Bytes) {
        self.send(OutgoingPacket::reliable(Target::All, payload)).await.expect("the mesh takes it");
    }
}
