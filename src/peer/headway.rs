//! Whether SCTP makes headway: whether something of what it must deliver was acknowledged.
//!
//! The connection's clock runs ahead only as long as it does (`connection/clock.rs`), and without any for long the
//! association is [dead](GIVEN_UP). It is looked four times a second while packets move or something is outstanding; an
//! idle peer costs nothing.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Duration, Instant, Sleep};

use crate::connection::Outstanding;

/// How often it is looked. On a near path the clock may stop being ahead before the next look; then it goes on from there.
const LOOK: Duration = Duration::from_millis(250);

/// When SCTP is taken to have given up: it sends the last time after five expirations in a row, which is after 31 s at
/// the usual second, and tells nobody (`rtc-sctp` only logs it, as ICE is expected to notice). Then nothing is ever
/// delivered again, though ICE is well.
pub(super) const GIVEN_UP: Duration = Duration::from_secs(45);
/// The same where the clock is never ahead: there the timer of a link that loses much begins with several seconds.
pub(super) const GIVEN_UP_STEADILY: Duration = Duration::from_secs(150);

/// What SCTP holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Of what it must deliver, and whether something of that was acknowledged since it was looked last.
    pub(super) lasting_bytes: usize,
    pub(super) headway: bool,
    /// Of what may be lost; there, what is given up looks like what has arrived.
    pub(super) fleeting_bytes: usize,
    /// How long it has held something, and been done with nothing.
    pub(super) stuck: Duration,
}

/// Looks what SCTP holds.
pub(super) struct Headway {
    timer: Pin<Box<Sleep>>,
    measuring: Option<BoxFuture<'static, ([u64; 2], usize, usize)>>,
    /// Packets have moved since it was looked last.
    moved: bool,
    /// The most bytes that SCTP was done with, of what it must deliver, and of what may be lost.
    done: [u64; 2],
    /// Since when something waits, and nothing of it was acknowledged.
    waits: Option<Instant>,
}

impl Headway {
    pub(super) fn new() -> Headway {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Headway { timer, measuring: None, moved: false, done: [0; 2], waits: None }
    }

    /// The remote could not be reached until now: what waits is given the whole time again.
    pub(super) fn reached_again(&mut self) {
        self.waits = None;
    }

    /// Packets have moved.
    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    /// Looks when it is time. `gauges` are those of the channels that lose nothing, then of the others; `handed` is how
    /// many bytes the former were given in all, and the latter.
    pub(super) fn poll(
        &mut self,
        gauges: &[Outstanding; 4],
        handed: [u64; 2],
        cx: &mut Context<'_>,
    ) -> Poll<Held> {
        loop {
            if let Some(measuring) = &mut self.measuring {
                let (handed, lasting_bytes, fleeting_bytes) = std::task::ready!(measuring.poll_unpin(cx));
                self.measuring = None;
                // Until it is there, it is looked again, though nothing moves.
                self.moved = lasting_bytes + fleeting_bytes > 0;
                let now = Instant::now();
                self.timer.as_mut().reset(now + LOOK);
                let holds = [lasting_bytes, fleeting_bytes];
                let [headway, moves] = [0, 1].map(|kind| {
                    let (before, done) = (self.done[kind], handed[kind].saturating_sub(holds[kind] as u64));
                    self.done[kind] = before.max(done);
                    done > before
                });
                if headway || moves || holds == [0, 0] {
                    self.waits = None;
                }
                if holds != [0, 0] {
                    self.waits.get_or_insert(now);
                }
                let stuck = self.waits.map_or(Duration::ZERO, |since| now - since);
                return Poll::Ready(Held { lasting_bytes, headway, fleeting_bytes, stuck });
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
