//! One reliable message there and back, the next when it is here. Both sides answer where the stack hands over.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::message;
use crate::rows::{opened, quantile};
use crate::stack::{Inbox, Node, Result, Stack};

const BYTES: usize = 64;
const WARM_UP: u64 = 500;
const LASTS: Duration = Duration::from_secs(1);

/// Median and 99th percentile of the round trips, in microseconds.
pub async fn run<S: Stack>() -> Result<Vec<f64>> {
    let table = Arc::new(Table::<S::Node>::default());
    let nodes = opened::<S>(2, table.clone(), None).await?;
    table.nodes.set(nodes.clone()).map_err(|_| "the nodes are known already")?;
    nodes[0].reply(1, message::make(BYTES, 0))?;
    table.ended.notified().await;
    let mut game = table.game.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(wrong) = game.wrong.take() {
        return Err(wrong.into());
    }
    let trips = &mut game.trips;
    Ok(vec![quantile(trips, 0.5)? / 1e3, quantile(trips, 0.99)? / 1e3])
}

/// Node 0 serves, node 1 returns.
struct Table<N> {
    nodes: OnceLock<Vec<N>>,
    game: Mutex<Game>,
    ended: Notify,
}

#[derive(Default)]
struct Game {
    /// What is under way.
    number: u64,
    /// When the first counted one began.
    began: u64,
    trips: Vec<u64>,
    wrong: Option<String>,
}

impl<N> Default for Table<N> {
    fn default() -> Table<N> {
        Table { nodes: OnceLock::new(), game: Mutex::default(), ended: Notify::new() }
    }
}

impl<N: Node> Table<N> {
    fn play(&self, at: usize, payload: &[u8]) -> Result<()> {
        let nodes = self.nodes.get().ok_or("a message came before the nodes were known")?;
        if at == 1 {
            return nodes[1].reply(0, Bytes::copy_from_slice(payload));
        }
        let header = message::read(payload, BYTES)?;
        let now = message::now();
        let next = {
            let mut game = self.game.lock().unwrap_or_else(PoisonError::into_inner);
            if header.number != game.number {
                return Err(format!("message {} came instead of {}", header.number, game.number).into());
            }
            game.number += 1;
            match header.number {
                ..WARM_UP => {}
                WARM_UP => game.began = now,
                _ => game.trips.push(now - header.made),
            }
            if header.number > WARM_UP && now - game.began > LASTS.as_nanos() as u64 {
                self.ended.notify_one();
                return Ok(());
            }
            game.number
        };
        nodes[0].reply(1, message::make(BYTES, next))
    }
}

impl<N: Node> Inbox for Table<N> {
    fn message(&self, at: usize, _: usize, payload: &[u8]) {
        if let Err(error) = self.play(at, payload) {
            self.game.lock().unwrap_or_else(PoisonError::into_inner).wrong = Some(error.to_string());
            self.ended.notify_one();
        }
    }
}
