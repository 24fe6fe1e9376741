//! What an idle link costs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::rows::opened;
use crate::rows::tally::{Order, Tally};
use crate::stack::{Result, Stack};
use crate::usage;

/// 105 links, 210 ends.
const NODES: usize = 15;
const ENDS: f64 = (NODES * (NODES - 1)) as f64;
/// What follows on the opening is over by then.
const SETTLE: Duration = Duration::from_secs(4);
const LASTS: Duration = Duration::from_secs(5);

/// Resident memory of an end in KiB, its processor time in microseconds a second, its file descriptors.
///
/// A mesh of two is opened before, so that what a process has once is not counted.
pub async fn run<S: Stack>() -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(16, Order::Any, NODES));
    let _first = opened::<S>(2, tally.clone(), None).await?;
    sleep(Duration::from_secs(1)).await;
    let (memory, files) = (usage::resident_kib()?, usage::descriptors()?);
    let _mesh = opened::<S>(NODES, tally, None).await?;
    sleep(SETTLE).await;
    let memory = usage::resident_kib()? - memory;
    let files = usage::descriptors()? - files;
    let (used, began) = (usage::processor_time()?, Instant::now());
    sleep(LASTS).await;
    let used = (usage::processor_time()? - used).as_secs_f64() / began.elapsed().as_secs_f64();
    // The first two are idle, too.
    Ok(vec![memory / ENDS, used * 1e6 / (ENDS + 2.0), files as f64 / ENDS])
}
