//! An inbox that verifies and counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::message;
use crate::stack::{Inbox, Result};

/// Counts the messages of one size, verifies each, and keeps how long each was under way.
pub struct Tally {
    bytes: usize,
    order: Order,
    received: AtomicU64,
    /// How many are waited for.
    awaited: AtomicU64,
    enough: Notify,
    /// The first thing that was wrong.
    wrong: OnceLock<String>,
    /// Nanoseconds under way, by node, so that nodes do not wait for each other.
    delays: Vec<Mutex<Vec<u64>>>,
}

/// What is promised of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All come, from one sender to one receiver, by ascending number.
    Kept,
    /// Some are lost, some overtake.
    Any,
}

impl Tally {
    /// Of messages of `bytes`, at so many nodes.
    pub fn new(bytes: usize, order: Order, nodes: usize) -> Tally {
        Tally {
            bytes,
            order,
            received: AtomicU64::new(0),
            awaited: AtomicU64::new(u64::MAX),
            enough: Notify::new(),
            wrong: OnceLock::new(),
            delays: (0..nodes).map(|_| Mutex::default()).collect(),
        }
    }

    /// How many have come.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Fails if something has come that was not sent, or not in order.
    pub fn check(&self) -> Result<()> {
        match self.wrong.get() {
            Some(wrong) => Err(wrong.as_str().into()),
            None => Ok(()),
        }
    }

    /// Waits until so many have come in all.
    pub async fn wait(&self, count: u64) -> Result<()> {
        self.awaited.store(count, Ordering::SeqCst);
        while self.received.load(Ordering::SeqCst) < count {
            self.check()?;
            self.enough.notified().await;
        }
        self.check()
    }

    /// Waits until all have come, or nothing more for 300 ms.
    pub async fn settle(&self, count: u64) -> Result<()> {
        let (mut before, mut since) = (self.received(), Instant::now());
        while before < count && since.elapsed() < Duration::from_millis(300) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.received();
            if now > before {
                (before, since) = (now, Instant::now());
            }
        }
        self.check()
    }

    /// How long each was under way, in nanoseconds, in no order.
    pub fn take_delays(&self) -> Vec<u64> {
        let take = |delays: &Mutex<Vec<u64>>| {
            std::mem::take(&mut *delays.lock().unwrap_or_else(PoisonError::into_inner))
        };
        self.delays.iter().flat_map(take).collect()
    }
}

impl Inbox for Tally {
    fn message(&self, at: usize, _: usize, payload: &[u8]) {
        let arrived = message::now();
        let count = self.received.fetch_add(1, Ordering::SeqCst);
        match message::read(payload, self.bytes) {
            Ok(header) if self.order == Order::Kept && header.number != count => {
                let _ = self.wrong.set(format!("message {} came as the {count}th", header.number));
            }
            Ok(header) => {
                let delay = arrived.saturating_sub(header.made);
                self.delays[at].lock().unwrap_or_else(PoisonError::into_inner).push(delay);
            }
            Err(error) => drop(self.wrong.set(error.to_string())),
        }
        if count + 1 == self.awaited.load(Ordering::SeqCst) || self.wrong.get().is_some() {
            self.enough.notify_one();
        }
    }
}
