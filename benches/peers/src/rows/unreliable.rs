//! Unreliable packets at a steady rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message;
use crate::rows::opened;
use crate::rows::tally::{Order, Tally};
use crate::stack::{Node as _, Result, Stack};
use crate::usage;

const BYTES: usize = 200;
const LASTS: Duration = Duration::from_secs(2);

/// The share that arrives, in percent, and the processor time of both ends for each that does, in microseconds.
pub async fn run<S: Stack>(per_second: u32) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(BYTES, Order::Any, 2));
    let nodes = opened::<S>(2, tally.clone(), None).await?;
    let total = (f64::from(per_second) * LASTS.as_secs_f64()) as u64;
    let mut sent = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let (used, began) = (usage::processor_time()?, Instant::now());
    while sent < total {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while sent < due.min(total) {
            nodes[0].fire(1, message::make(BYTES, sent));
            sent += 1;
        }
    }
    tally.settle(sent).await?;
    let used = usage::processor_time()? - used;
    let received = tally.received();
    if received == 0 {
        return Err("nothing arrived".into());
    }
    Ok(vec![received as f64 / sent as f64 * 100.0, used.as_secs_f64() * 1e6 / received as f64])
}
