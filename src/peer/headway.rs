//! Whether SCTP makes headway: whether something of what it must deliver was acknowledged.
//!
//! The connection's clock runs ahead only as long as it does, and tells when the association must be dead
//! (`connection/clock.rs`). It is looked four times a second while packets move or something is outstanding; an idle peer
//! costs nothing. And it is looked whether our hello was acknowledged, to whom one is said.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Duration, Instant, Sleep};

use crate::connection::{Held, Outstanding};

/// How often it is looked. On a near path the clock may stop being ahead before the next look; then it goes on from there.
const LOOK: Duration = Duration::from_millis(250);
/// And until our hello is acknowledged: then the opening is over, in which all that is small is sent several times, for two
/// seconds if nobody says so.
const LOOK_AT_FIRST: Duration = Duration::from_millis(25);
const AT_FIRST: Duration = Duration::from_secs(2);

/// Looks what SCTP holds.
#[repr(C)]
pub(super) struct Headway {
    /// Packets have moved since it was looked last.
    moved: bool,
    /// It was polled since then, and waits.
    waits: bool,
    timer: Pin<Box<Sleep>>,
    /// How many bytes SCTP was given, of the control channel, of the reliable one and of the others; and how many it holds.
    measuring: Option<BoxFuture<'static, ([u64; 3], [usize; 3])>>,
    /// The most bytes that SCTP was done with, of what it must deliver, and of what may be lost.
    done: [u64; 2],
    /// How many bytes our hello is, which is said first on the control channel, and when it had been handed over.
    hello: Option<(u64, Instant)>,
}

impl Headway {
    pub(super) fn new() -> Headway {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Headway { timer, measuring: None, moved: false, waits: false, done: [0; 2], hello: None }
    }

    /// Packets have moved.
    pub(super) fn moved(&mut self) {
        self.moved = true;
    }

    /// Whether it is to be polled though nothing has woken it.
    pub(super) fn begins(&self) -> bool {
        self.moved && !self.waits
    }

    /// Looks when it is time. `gauges` are those of the control channel, of the reliable one and of the others; `handed` is how
    /// many bytes they were given in all.
    pub(super) fn poll(
        &mut self,
        gauges: &[Outstanding; 4],
        handed: [u64; 3],
        cx: &mut Context<'_>,
    ) -> Poll<Held> {
        self.waits = self.moved;
        if self.hello.is_none() && handed[0] > 0 {
            let now = Instant::now();
            self.hello = Some((handed[0], now));
            self.timer.as_mut().reset(now + LOOK_AT_FIRST);
        }
        loop {
            if let Some(measuring) = &mut self.measuring {
                let (handed, [control, reliable, fleeting_bytes]) =
                    std::task::ready!(measuring.poll_unpin(cx));
                self.measuring = None;
                let lasting_bytes = control + reliable;
                // Until it is there, it is looked again, though nothing moves.
                self.moved = lasting_bytes + fleeting_bytes > 0;
                self.waits = false;
                let now = Instant::now();
                let acknowledged = handed[0].saturating_sub(control as u64);
                let is_greeted = self.hello.is_some_and(|(bytes, _)| acknowledged >= bytes);
                let is_first = self.hello.is_some_and(|(_, said)| now < said + AT_FIRST) && !is_greeted;
                self.timer.as_mut().reset(now + if is_first { LOOK_AT_FIRST } else { LOOK });
                let lasting = (handed[0] + handed[1], lasting_bytes);
                let [headway, moves] =
                    [(0, lasting), (1, (handed[2], fleeting_bytes))].map(|(kind, (handed, holds))| {
                        let (before, done) = (self.done[kind], handed.saturating_sub(holds as u64));
                        self.done[kind] = before.max(done);
                        done > before
                    });
                return Poll::Ready(Held { lasting_bytes, headway, fleeting_bytes, moves, is_greeted });
            }
            if !self.moved {
                return Poll::Pending;
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let [control, reliable, three, four] = gauges.clone();
            // What is handed over while it is looked must not count as done.
            self.measuring = Some(
                async move {
                    let fleeting = three.bytes().await + four.bytes().await;
                    (handed, [control.bytes().await, reliable.bytes().await, fleeting])
                }
                .boxed(),
            );
        }
    }
}
