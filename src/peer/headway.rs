//! Whether SCTP makes headway: whether something of what it must deliver was acknowledged.
//!
//! The connection's clock runs ahead only as long as it does, and tells when the association must be dead
//! (`connection/clock.rs`). It is looked four times a second while packets move or something is outstanding; an idle peer
//! costs nothing.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Duration, Instant, Sleep};

use crate::connection::{Held, Outstanding};

/// How often it is looked. On a near path the clock may stop being ahead before the next look; then it goes on from there.
const LOOK: Duration = Duration::from_millis(250);

/// Looks what SCTP holds.
#[repr(C)]
pub(super) struct Headway {
    /// Packets have moved since it was looked last.
    moved: bool,
    /// It was polled since then, and waits.
    waits: bool,
    timer: Pin<Box<Sleep>>,
    measuring: Option<BoxFuture<'static, ([u64; 2], usize, usize)>>,
    /// The most bytes that SCTP was done with, of what it must deliver, and of what may be lost.
    done: [u64; 2],
}

impl Headway {
    pub(super) fn new() -> Headway {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Headway { timer, measuring: None, moved: false, waits: false, done: [0; 2] }
    }

    /// Packets have moved.
    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    /// Whether it is to be polled though nothing has woken it.
    pub(super) fn begins(&self) -> bool {
        self.moved && !self.waits
    }

    /// Looks when it is time. `gauges` are those of the channels that lose nothing, then of the others; `handed` is how
    /// many bytes the former were given in all, and the latter.
    pub(super) fn poll(
        &mut self,
        gauges: &[Outstanding; 4],
        handed: [u64; 2],
        cx: &mut Context<'_>,
    ) -> Poll<Held> {
        self.waits = self.moved;
        loop {
            if let Some(measuring) = &mut self.measuring {
                let (handed, lasting_bytes, fleeting_bytes) = std::task::ready!(measuring.poll_unpin(cx));
                self.measuring = None;
                // Until it is there, it is looked again, though nothing moves.
                self.moved = lasting_bytes + fleeting_bytes > 0;
                self.waits = false;
                self.timer.as_mut().reset(Instant::now() + LOOK);
                let holds = [lasting_bytes, fleeting_bytes];
                let [headway, moves] = [0, 1].map(|kind| {
                    let (before, done) = (self.done[kind], handed[kind].saturating_sub(holds[kind] as u64));
                    self.done[kind] = before.max(done);
                    done > before
                });
                return Poll::Ready(Held { lasting_bytes, headway, fleeting_bytes, moves });
            }
            if !self.moved {
                return Poll::Pending;
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let [one, two, three, four] = gauges.clone();
            let lasting = async move { one.bytes().await + two.bytes().await };
            let fleeting = async move { three.bytes().await + four.bytes().await };
            // What is handed over while it is looked must not count as done.
            self.measuring = Some(async move { (handed, lasting.await, fleeting.await) }.boxed());
        }
    }
}
