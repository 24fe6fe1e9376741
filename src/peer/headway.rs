//! Whether SCTP makes headway: whether something of what it must deliver was acknowledged.
//!
//! The connection's clock runs ahead only as long as it does (`connection/clock.rs`). It is looked four times a second
//! while packets move or something is outstanding; an idle peer costs nothing.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Duration, Instant, Sleep};

use crate::connection::Outstanding;

/// How often it is looked: three times before the clock stops being ahead.
const LOOK: Duration = Duration::from_millis(250);

/// What SCTP holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Of what it must deliver, and whether something of that was acknowledged since it was looked last.
    pub(super) lasting_bytes: usize,
    pub(super) headway: bool,
    /// Of what may be lost; there, what is given up looks like what has arrived.
    pub(super) fleeting_bytes: usize,
}

/// Looks what SCTP holds.
pub(super) struct Headway {
    timer: Pin<Box<Sleep>>,
    measuring: Option<BoxFuture<'static, (usize, usize)>>,
    /// Packets have moved since it was looked last.
    moved: bool,
    /// The most bytes that SCTP was done with, of what it must deliver.
    done: u64,
}

impl Headway {
    pub(super) fn new() -> Headway {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Headway { timer, measuring: None, moved: false, done: 0 }
    }

    /// Packets have moved.
    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    /// Looks when it is time. `gauges` are those of the channels that lose nothing, then of the others; `handed` is how
    /// many bytes the former were given in all.
    pub(super) fn poll(
        &mut self,
        gauges: &[Outstanding; 4],
        handed: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Held> {
        loop {
            if let Some(measuring) = &mut self.measuring {
                let (lasting_bytes, fleeting_bytes) = std::task::ready!(measuring.poll_unpin(cx));
                self.measuring = None;
                // Until it is there, it is looked again, though nothing moves.
                self.moved = lasting_bytes + fleeting_bytes > 0;
                self.timer.as_mut().reset(Instant::now() + LOOK);
                let done = handed.saturating_sub(lasting_bytes as u64);
                let headway = done > self.done;
                self.done = self.done.max(done);
                return Poll::Ready(Held { lasting_bytes, headway, fleeting_bytes });
            }
            if !self.moved {
                return Poll::Pending;
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let [one, two, three, four] = gauges.clone();
            let lasting = async move { one.bytes().await + two.bytes().await };
            let fleeting = async move { three.bytes().await + four.bytes().await };
            self.measuring = Some(async move { (lasting.await, fleeting.await) }.boxed());
        }
    }
}
