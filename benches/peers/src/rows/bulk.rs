//! Reliable throughput over a network with delay and loss.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::message;
use crate::relay::{Network, Relay};
use crate::rows::opened;
use crate::rows::tally::{Order, Tally};
use crate::stack::{Failure, Node as _, Result, Stack};

const BYTES: usize = 16 * 1024;
const LASTS: Duration = Duration::from_secs(10);

/// MB/s received in the first ten seconds, the slow start among them.
pub async fn run<S: Stack>(delay: Duration, loss: f64, seed: u64) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(BYTES, Order::Kept, 2));
    let relay = Relay::start(Network { delay, jitter: Duration::ZERO, loss, seed }).await?;
    let nodes = opened::<S>(2, tally.clone(), Some(Arc::clone(&relay))).await?;
    relay.lose();
    let sending = async {
        for number in 0.. {
            nodes[0].send(1, message::make(BYTES, number)).await?;
        }
        Ok::<(), Failure>(())
    };
    if let Ok(ended) = timeout(LASTS, sending).await {
        ended?;
    }
    tally.check()?;
    Ok(vec![(tally.received() * BYTES as u64) as f64 / LASTS.as_secs_f64() / 1e6])
}
