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

/// Looks for headway on the channels that lose nothing; on the others, what is given up looks like what has arrived.
pub(super) struct Headway {
    timer: Pin<Box<Sleep>>,
    measuring: Option<BoxFuture<'static, usize>>,
    /// Packets have moved since it was looked last.
    moved: bool,
    /// The most bytes that SCTP was done with.
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

    /// Looks when it is time: gives what is outstanding, and whether there is headway. `handed` is how many bytes SCTP
    /// was given in all.
    pub(super) fn poll(
        &mut self,
        gauges: [&Outstanding; 2],
        handed: u64,
        cx: &mut Context<'_>,
    ) -> Poll<(usize, bool)> {
        loop {
            if let Some(measuring) = &mut self.measuring {
                let outstanding_bytes = std::task::ready!(measuring.poll_unpin(cx));
                self.measuring = None;
                // Until it is there, it is looked again, though nothing moves.
                self.moved = outstanding_bytes > 0;
                self.timer.as_mut().reset(Instant::now() + LOOK);
                let done = handed.saturating_sub(outstanding_bytes as u64);
                let headway = done > self.done;
                self.done = self.done.max(done);
                return Poll::Ready((outstanding_bytes, headway));
            }
            if !self.moved {
                return Poll::Pending;
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let [one, other] = gauges.map(Clone::clone);
            self.measuring = Some(async move { one.bytes().await + other.bytes().await }.boxed());
        }
    }
}
