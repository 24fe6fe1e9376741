//! Reliable messages one way, from the first sent to the last received.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message;
use crate::rows::opened;
use crate::rows::tally::{Order, Tally};
use crate::stack::{Node as _, Result, Stack};

/// How long a batch should take, first to learn its size, then to be measured.
const TRIAL: Duration = Duration::from_millis(400);
const BATCH: Duration = Duration::from_secs(1);

/// MB/s.
pub async fn run<S: Stack>(bytes: usize) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(bytes, Order::Kept, 2));
    let nodes = opened::<S>(2, tally.clone(), None).await?;
    let mut sent = 0;
    let began = Instant::now();
    while began.elapsed() < TRIAL {
        nodes[0].send(1, message::make(bytes, sent)).await?;
        sent += 1;
    }
    tally.wait(sent).await?;
    let per_second = sent as f64 / began.elapsed().as_secs_f64();
    tally.take_delays();

    let count = (per_second * BATCH.as_secs_f64()).ceil().max(8.0) as u64;
    let began = Instant::now();
    for number in sent..sent + count {
        nodes[0].send(1, message::make(bytes, number)).await?;
    }
    tally.wait(sent + count).await?;
    Ok(vec![(count * bytes as u64) as f64 / began.elapsed().as_secs_f64() / 1e6])
}
