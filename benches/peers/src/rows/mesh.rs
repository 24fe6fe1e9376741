//! A full mesh, in which everybody sends to everybody sixty times a second, as a game does.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::message;
use crate::rows::tally::{Order, Tally};
use crate::rows::{opened, quantile};
use crate::stack::{Node as _, Result, Stack};
use crate::usage;

const BYTES: usize = 200;
const LASTS: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_nanos(16_666_667);
/// What follows on the opening is over by then.
const SETTLE: Duration = Duration::from_secs(1);

/// The share that arrives, and the processor time, of one core, both in percent; the 99th percentile of the time under way,
/// in milliseconds.
pub async fn run<S: Stack>(nodes: usize) -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(BYTES, Order::Any, nodes));
    let members = opened::<S>(nodes, tally.clone(), None).await?;
    tokio::time::sleep(SETTLE).await;
    let (used, began) = (usage::processor_time()?, Instant::now());
    let mut senders = JoinSet::new();
    for (at, member) in members.iter().cloned().enumerate() {
        // Games do not tick together.
        let first = began + TICK * at as u32 / nodes as u32;
        senders.spawn(async move {
            let mut ticks = tokio::time::interval_at(first, TICK);
            let mut sent = 0;
            while began.elapsed() < LASTS {
                ticks.tick().await;
                member.fire_at_all(message::make(BYTES, sent));
                sent += 1;
            }
            sent
        });
    }
    let sent: u64 = senders.join_all().await.into_iter().sum::<u64>() * (nodes as u64 - 1);
    let share = (usage::processor_time()? - used).as_secs_f64() / began.elapsed().as_secs_f64();
    tally.settle(sent).await?;
    let delivered = tally.received() as f64 / sent as f64;
    let p99 = quantile(&mut tally.take_delays(), 0.99)? / 1e6;
    Ok(vec![delivered * 100.0, share * 100.0, p99])
}
