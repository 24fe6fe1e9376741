//! How long a connection takes to open: from the first call to when both sides have all their channels.

use std::sync::Arc;
use std::time::Instant;

use crate::rows::tally::{Order, Tally};
use crate::rows::{opened, quantile};
use crate::stack::{Result, Stack};

const OPENINGS: usize = 9;

/// The median of some, in milliseconds. The first of the process is left out, as it loads what is loaded once.
pub async fn run<S: Stack>() -> Result<Vec<f64>> {
    let tally = Arc::new(Tally::new(16, Order::Any, 2));
    let mut open = Vec::new();
    let mut times = Vec::new();
    for _ in 0..=OPENINGS {
        let began = Instant::now();
        open.push(opened::<S>(2, tally.clone(), None).await?);
        times.push(began.elapsed().as_nanos() as u64);
    }
    Ok(vec![quantile(&mut times[1..], 0.5)? / 1e6])
}
