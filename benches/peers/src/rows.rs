//! What is measured: the rows of the table, each a job that runs on any stack.

mod bulk;
mod delay;
mod idle;
mod mesh;
mod open;
mod ping_pong;
mod tally;
mod throughput;
mod unreliable;

use std::sync::Arc;
use std::time::Duration;

use crate::relay::Relay;
use crate::stack::{Inbox, Result, Stack};

/// Rows that belong together, in one chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The chart's file name, without `.svg`.
    pub name: &'static str,
    /// What it is, for the chart's title.
    pub title: &'static str,
    /// The figures that each row of it gives.
    pub figures: &'static [Figure],
}

/// A figure of a row, and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// What it is, after the row's name; empty where the row has but one.
    pub name: &'static str,
    /// In what it is.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
}

const fn more(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, more_is_better: true }
}

const fn less(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit, more_is_better: false }
}

/// A row, or as many as its kind has figures.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What is given on the command line.
    pub name: &'static str,
    /// What it belongs to.
    pub kind: Kind,
    /// What is done.
    job: Job,
    /// How long a run may take before it is ended.
    pub limit: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Job {
    Throughput { bytes: usize },
    PingPong,
    Open,
    Unreliable { per_second: u32 },
    Mesh { nodes: usize },
    Delay { loss: f64 },
    Bulk { loss: f64, delay: Duration },
    Idle,
}

const THROUGHPUT: Kind =
    Kind { name: "throughput", title: "Reliable messages one way", figures: &[more("", "MB/s")] };
const PING_PONG: Kind = Kind {
    name: "ping-pong",
    title: "A reliable message of 64 B there and back",
    figures: &[less("p50", "µs"), less("p99", "µs")],
};
const OPEN: Kind = Kind { name: "open", title: "Until both sides are open", figures: &[less("", "ms")] };
const UNRELIABLE: Kind = Kind {
    name: "unreliable",
    title: "Unreliable packets of 200 B",
    figures: &[more("delivered", "%"), less("CPU", "µs/packet")],
};
const MESH: Kind = Kind {
    name: "mesh",
    title: "Full mesh, 60 unreliable packets of 200 B a second from each to each",
    figures: &[more("delivered", "%"), less("CPU", "%"), less("p99", "ms")],
};
const DELAY: Kind = Kind {
    name: "delay",
    title: "Reliable messages of 64 B every 10 ms, 20 ms each way",
    figures: &[less("p50", "ms"), less("p99", "ms")],
};
const BULK: Kind = Kind {
    name: "bulk",
    title: "Reliable messages of 16 KiB over a network with delay and loss",
    figures: &[more("", "MB/s")],
};
const IDLE: Kind = Kind {
    name: "idle",
    title: "An idle end of a link",
    figures: &[less("memory", "KiB"), less("CPU", "µs/s"), less("files", "fds")],
};

const fn row(name: &'static str, kind: Kind, job: Job, limit_seconds: u64) -> Row {
    Row { name, kind, job, limit: Duration::from_secs(limit_seconds) }
}

const WAY: Duration = Duration::from_millis(20);
const LONG_WAY: Duration = Duration::from_millis(300);

/// The rows, in the order of the table.
pub const ROWS: [Row; 19] = [
    row("reliable 64 B", THROUGHPUT, Job::Throughput { bytes: 64 }, 40),
    row("reliable 1 KiB", THROUGHPUT, Job::Throughput { bytes: 1024 }, 40),
    row("reliable 16 KiB", THROUGHPUT, Job::Throughput { bytes: 16 * 1024 }, 40),
    row("reliable 64 KiB", THROUGHPUT, Job::Throughput { bytes: 64 * 1024 }, 40),
    row("ping-pong 64 B", PING_PONG, Job::PingPong, 30),
    row("open", OPEN, Job::Open, 60),
    row("unreliable 10,000/s", UNRELIABLE, Job::Unreliable { per_second: 10_000 }, 30),
    row("unreliable 50,000/s", UNRELIABLE, Job::Unreliable { per_second: 50_000 }, 30),
    row("unreliable 100,000/s", UNRELIABLE, Job::Unreliable { per_second: 100_000 }, 30),
    row("mesh of 8", MESH, Job::Mesh { nodes: 8 }, 60),
    row("mesh of 16", MESH, Job::Mesh { nodes: 16 }, 60),
    row("mesh of 32", MESH, Job::Mesh { nodes: 32 }, 90),
    row("delay 1 % loss", DELAY, Job::Delay { loss: 0.01 }, 60),
    row("delay 5 % loss", DELAY, Job::Delay { loss: 0.05 }, 60),
    row("bulk 20 ms", BULK, Job::Bulk { loss: 0.0, delay: WAY }, 60),
    row("bulk 20 ms 1 % loss", BULK, Job::Bulk { loss: 0.01, delay: WAY }, 60),
    row("bulk 20 ms 5 % loss", BULK, Job::Bulk { loss: 0.05, delay: WAY }, 60),
    row("bulk 300 ms", BULK, Job::Bulk { loss: 0.0, delay: LONG_WAY }, 90),
    row("idle", IDLE, Job::Idle, 60),
];

impl Row {
    /// Runs the row once on a stack: a value for each of its figures. Each `seed` loses other datagrams.
    pub async fn run<S: Stack>(&self, seed: u64) -> Result<Vec<f64>> {
        match self.job {
            Job::Throughput { bytes } => throughput::run::<S>(bytes).await,
            Job::PingPong => ping_pong::run::<S>().await,
            Job::Open => open::run::<S>().await,
            Job::Unreliable { per_second } => unreliable::run::<S>(per_second).await,
            Job::Mesh { nodes } => mesh::run::<S>(nodes).await,
            Job::Delay { loss } => delay::run::<S>(WAY, loss, seed).await,
            Job::Bulk { loss, delay } => bulk::run::<S>(delay, loss, seed).await,
            Job::Idle => idle::run::<S>().await,
        }
    }
}

/// Opens a mesh, which takes a few seconds at the most, or it hangs.
async fn opened<S: Stack>(
    nodes: usize,
    inbox: Arc<dyn Inbox>,
    relay: Option<Arc<Relay>>,
) -> Result<Vec<S::Node>> {
    const LIMIT: Duration = Duration::from_secs(20);
    let limit = tokio::time::timeout(LIMIT, S::open(nodes, inbox, relay)).await;
    limit.unwrap_or_else(|_| Err(format!("not open after {} s", LIMIT.as_secs()).into()))
}

/// The value below which such a share of all is, in their order.
fn quantile(values: &mut [u64], share: f64) -> Result<f64> {
    values.sort_unstable();
    let last = values.len().checked_sub(1).ok_or("nothing arrived")?;
    Ok(values[((values.len() as f64 * share) as usize).min(last)] as f64)
}
