//! How long small reliable messages are under way on a network that loses some.

use std::sync::Arc;
use std::time::Duration;

use crate::message;
use crate::relay::{Network, Relay};
use crate::rows::tally::{Order, Tally};
use crate::rows::{opened, quantile};
use crate::stack::{Node as _, Result, Stack};

const BYTES: usize = 64;
const MESSAGES: u64 = 2000;
const EVERY: Duration = Duration::from_millis(10);

/// Median and 99th percentile of the time under way, in milliseconds.
pub async fn run<S: Stack>(delay: Duration, loss: f64, seed: u64) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(BYTES, Order::Kept, 2));
    let relay = Relay::start(Network { delay, jitter: Duration::ZERO, loss, seed }).await?;
    let nodes = opened::<S>(2, tally.clone(), Some(Arc::clone(&relay))).await?;
    relay.lose();
    let mut ticks = tokio::time::interval(EVERY);
    for number in 0..MESSAGES {
        ticks.tick().await;
        nodes[0].send(1, message::make(BYTES, number)).await?;
    }
    tally.wait(MESSAGES).await?;
    let mut delays = tally.take_delays();
    Ok(vec![quantile(&mut delays, 0.5)? / 1e6, quantile(&mut delays, 0.99)? / 1e6])
}
