//! How much of a channel's backlog is handed to SCTP at a time.
//!
//! SCTP sends what it was given first in, first out, the ordered channels in one queue; so on a slow link, what it
//! holds of one channel delays the others (256 KiB at 500 kB/s are half a second). What waits in our own queues
//! delays nobody. So SCTP is given what it needs to keep the link busy, and little more: the link's rate times
//! [twice the round trip and 20 ms](Rate::target); twice as much of the reliable channel while [nobody else](SHARED) waits
//! in that queue, as SCTP opens its window only as long as something waits. And at the most [what depends on the round
//! trip](Rate::max): more of it on a near path overflows the kernel's buffers, less on a far one would leave the link idle. Of
//! a fast link it is [what passes in 4 ms](FAST_TIME), up to a quarter of what the remote's socket holds: on loopback, messages
//! of 64 KiB go at 320 MB/s with 256 KiB, and at 470 with 1 MiB; where the socket holds only 208 KiB, 512 KiB halve it.
//!
//! Measured on the simulated network (20 ms each way, with jitter, reliable packets of 16 KiB without end, one packet
//! of each other mode every 10 ms): the ordered mode's latency falls from 621 ms (median) and 1,003 ms (99 %) to what
//! `tests/backlog.rs` prints, at the same throughput.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Duration, Instant, Sleep};

use crate::connection::{MAX_HELD_BYTES, Outstanding};

/// Lets a channel's messages pass to SCTP as long as that holds few enough.
pub(super) struct Pace {
    rate: Rate,
    timer: Pin<Box<Sleep>>,
    measuring: Option<BoxFuture<'static, usize>>,
}

/// The most that a channel hands to SCTP on a near path, and how much more for each second of the round trip.
const MAX_NEAR_BYTES: usize = 256 * 1024;
/// More than the former is what a fast link takes in this time, and at the most this share of the remote's socket: there
/// are three channels.
const FAST_TIME: Duration = Duration::from_millis(4);
const SOCKET_SHARE: usize = 4;
const MAX_BYTES_PER_SECOND: f64 = 50e6;
/// What a link is given that was not measured yet, unless its round trip is at the most so long.
const FIRST_BYTES: usize = 64 * 1024;
const NEAR: Duration = Duration::from_millis(10);
/// The least: a dozen datagrams; and with nobody else.
const MIN_BYTES: usize = 16 * 1024;
const MIN_BYTES_ALONE: usize = 32 * 1024;
/// For so long after a message in the ordered mode another is expected, which waits in the same queue. If there was none, a
/// reliable backlog has that to itself, but for what the control channel has to say; and at 1 % loss and 20 ms each way an
/// eighth more of it passes in the first ten seconds, with twice as much (24 runs of each over real sockets).
const SHARED: Duration = Duration::from_secs(10);

/// How often it is looked whether SCTP has room, when it had none.
const LOOK: Duration = Duration::from_millis(4);
/// The same while the channel is at the most that it may hold, and sees by itself when it has room.
const LOOK_AT_MAX: Duration = Duration::from_millis(50);
/// A rate is measured over a round trip, and over this at the least.
const SAMPLE: Duration = Duration::from_millis(40);

impl Pace {
    /// `may_be_alone` in its queue, as it is [told](Pace::shares) of all others.
    pub(super) fn new(may_be_alone: bool) -> Pace {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Pace { rate: Rate { may_be_alone, ..Rate::default() }, timer, measuring: None }
    }

    /// Whether a message may be handed over; `held_up` by one that has no room yet, it only measures.
    pub(super) fn poll_room(&mut self, held_up: bool, gauge: &Outstanding, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(measuring) = &mut self.measuring {
                let outstanding_bytes = ready!(measuring.poll_unpin(cx));
                self.measuring = None;
                let now = Instant::now();
                self.rate.measured(outstanding_bytes, now);
                self.timer.as_mut().reset(now + if held_up { LOOK_AT_MAX } else { LOOK });
            }
            if !held_up && self.rate.has_room() {
                return Poll::Ready(());
            }
            ready!(self.timer.as_mut().poll(cx));
            self.measuring = Some(gauge.clone().measure());
        }
    }

    /// How much the channel may hold at the most.
    pub(super) fn max_bytes(&self) -> usize {
        self.rate.max()
    }

    /// A message was handed over.
    pub(super) fn handed(&mut self, bytes: usize) {
        self.rate.handed += bytes as u64;
    }

    /// A message of another channel waits in the same queue.
    pub(super) fn shares(&mut self, now: Instant) {
        self.rate.shared_until = Some(now + SHARED);
    }

    /// There is no backlog, so what leaves now says nothing about the link.
    pub(super) fn idle(&mut self) {
        self.rate.sample = None;
        // Nobody polls it any more, and it may be the first to wait for the library's lock.
        self.measuring = None;
    }

    /// How many bytes of those handed over SCTP was done with, when last looked.
    pub(super) fn done(&self) -> u64 {
        self.rate.done
    }

    pub(super) fn set_round_trip(&mut self, time: Duration) {
        self.rate.round_trip = Some(time);
    }

    /// How much the remote's socket holds; 0 if that is not known.
    pub(super) fn set_remote_socket(&mut self, bytes: usize) {
        self.rate.remote_socket = bytes;
    }
}

/// What is known of the link, and what follows from it.
#[derive(Debug)]
struct Rate {
    limit: Limit,
    handed: u64,
    /// Of what was handed over, what SCTP is done with, when last looked.
    done: u64,
    /// When the measurement began, and what SCTP was done with then.
    sample: Option<(Instant, u64)>,
    /// What it was done with in a second of the last sample.
    per_second: f64,
    round_trip: Option<Duration>,
    remote_socket: usize,
    /// Nobody else is in its queue, but until then.
    may_be_alone: bool,
    shared_until: Option<Instant>,
}

/// How much SCTP may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// Nothing was measured: [`FIRST_BYTES`] on a path that is not near.
    Unknown,
    Bytes(usize),
    /// The link takes so much that [`Rate::max`] is what holds it up.
    Most,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate {
            limit: Limit::Unknown,
            handed: 0,
            done: 0,
            sample: None,
            per_second: 0.0,
            round_trip: None,
            remote_socket: 0,
            may_be_alone: false,
            shared_until: None,
        }
    }
}

impl Rate {
    fn has_room(&self) -> bool {
        let limit = match self.limit {
            Limit::Unknown if self.round_trip.is_some_and(|time| time > NEAR) => FIRST_BYTES,
            Limit::Bytes(limit) => limit,
            Limit::Unknown | Limit::Most => return true,
        };
        self.handed - self.done < limit as u64
    }

    fn max(&self) -> usize {
        let seconds = self.round_trip.unwrap_or_default().as_secs_f64();
        let fast = (self.per_second * FAST_TIME.as_secs_f64()) as usize;
        let near = fast.min(self.remote_socket / SOCKET_SHARE).max(MAX_NEAR_BYTES);
        (near + (seconds * MAX_BYTES_PER_SECOND) as usize).min(MAX_HELD_BYTES)
    }

    fn measured(&mut self, outstanding_bytes: usize, now: Instant) {
        let is_alone = self.may_be_alone && self.shared_until.is_none_or(|until| until <= now);
        self.done = self.handed.saturating_sub(outstanding_bytes as u64);
        let Some(round_trip) = self.round_trip else { return };
        let (since, done) = *self.sample.get_or_insert((now, self.done));
        let time = now - since;
        if time >= SAMPLE.max(round_trip) {
            let rate = self.done.saturating_sub(done) as f64 / time.as_secs_f64();
            let target = Rate::target(rate, round_trip, is_alone);
            self.per_second = rate;
            self.limit = if target < self.max() { Limit::Bytes(target) } else { Limit::Most };
            self.sample = Some((now, self.done));
        }
    }

    /// What keeps a link of this rate busy: what is under way for a round trip, as much again so that a link that
    /// becomes faster is found out, and 20 ms for us to look.
    fn target(bytes_per_second: f64, round_trip: Duration, is_alone: bool) -> usize {
        let time = 2.0 * round_trip.as_secs_f64() + 0.02;
        let (times, least) = if is_alone { (2.0, MIN_BYTES_ALONE) } else { (1.0, MIN_BYTES) };
        ((bytes_per_second * time * times) as usize).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    /// A link of this rate, with an endless backlog; the limit after a while, and whether the link was kept busy.
    fn run(rate: &mut Rate, clock: &mut Instant, bytes_per_second: u64, seconds: u64) -> f64 {
        let before = rate.done;
        let mut held = (rate.handed - rate.done) as f64;
        for _ in 0..seconds * 250 {
            *clock += LOOK;
            // What is under way for a round trip cannot be done sooner.
            let per_step = (bytes_per_second as f64 * LOOK.as_secs_f64())
                .min(held * LOOK.as_secs_f64() / RTT.as_secs_f64());
            held -= per_step;
            rate.measured(held as usize, *clock);
            while rate.has_room() && held < rate.max() as f64 {
                rate.handed += 1200;
                held += 1200.0;
            }
        }
        (rate.done - before) as f64 / (bytes_per_second * seconds) as f64
    }

    #[test]
    fn sctp_holds_little_of_a_slow_link_and_the_link_is_busy() {
        let mut rate = Rate { round_trip: Some(RTT), ..Rate::default() };
        let busy = run(&mut rate, &mut Instant::now(), 500_000, 5);
        assert!(busy > 0.9, "{busy}");
        assert!(matches!(rate.limit, Limit::Bytes(..80_000)), "{:?}", rate.limit);
    }

    #[test]
    fn a_link_that_becomes_faster_is_found_out() {
        let mut rate = Rate { round_trip: Some(RTT), ..Rate::default() };
        let mut clock = Instant::now();
        run(&mut rate, &mut clock, 100_000, 5);
        assert_eq!(rate.limit, Limit::Bytes(MIN_BYTES));
        run(&mut rate, &mut clock, 40_000_000, 3);
        let busy = run(&mut rate, &mut clock, 40_000_000, 3);
        assert!(busy > 0.9 && rate.limit == Limit::Most, "{busy} {:?}", rate.limit);
    }

    #[test]
    fn a_far_link_may_hold_more_and_one_that_was_not_measured_little() {
        let of = |millis| Rate { round_trip: Some(Duration::from_millis(millis)), ..Rate::default() };
        assert_eq!(of(0).max(), MAX_NEAR_BYTES);
        assert_eq!(of(40).max(), MAX_NEAR_BYTES + 2_000_000);
        assert_eq!(of(600).max(), MAX_HELD_BYTES);
        for (millis, room) in [(1, true), (40, false)] {
            let mut rate = of(millis);
            rate.handed = FIRST_BYTES as u64;
            assert_eq!(rate.has_room(), room, "{millis} ms");
        }
    }

    #[test]
    fn a_fast_link_may_hold_what_passes_in_4_ms_up_to_a_quarter_of_the_remotes_socket() {
        let max = |per_second, remote_socket| Rate { per_second, remote_socket, ..Rate::default() }.max();
        let socket = 4 * 1024 * 1024;
        assert_eq!(max(50e6, socket), MAX_NEAR_BYTES);
        assert_eq!(max(100e6, socket), 400_000);
        assert_eq!(max(1e9, socket), 1024 * 1024);
        assert_eq!(max(1e9, 212_992), MAX_NEAR_BYTES);
        assert_eq!(max(1e9, 0), MAX_NEAR_BYTES, "a stranger's");
    }

    #[test]
    fn without_a_round_trip_and_without_a_backlog_nothing_is_concluded() {
        let mut rate = Rate::default();
        rate.measured(0, Instant::now());
        rate.measured(0, Instant::now() + Duration::from_secs(1));
        assert_eq!(rate.limit, Limit::Unknown);
        let mut pace = Rate { round_trip: Some(RTT), ..Rate::default() };
        pace.measured(0, Instant::now());
        pace.sample = None;
        pace.measured(0, Instant::now() + Duration::from_secs(10));
        assert_eq!(pace.limit, Limit::Unknown);
    }

    #[tokio::test]
    async fn a_backlog_with_a_queue_to_itself_may_be_twice_as_long() {
        let mut now = Instant::now();
        // 500 kB/s, as every second look tells.
        let mut limit = |pace: &mut Pace, wait| {
            now += wait;
            for _ in 0..2 {
                pace.rate.handed += 25_000;
                now += RTT;
                pace.rate.measured(0, now);
            }
            (pace.rate.limit, now)
        };
        let pace = |may_be_alone| {
            let mut pace = Pace::new(may_be_alone);
            pace.set_round_trip(RTT);
            pace
        };
        let (strict, twice) = (Limit::Bytes(60_000), Limit::Bytes(120_000));
        let (mut reliable, mut other) = (pace(true), pace(false));
        assert_eq!(limit(&mut other, Duration::ZERO).0, strict);
        let (first, now) = limit(&mut reliable, Duration::ZERO);
        assert_eq!(first, twice);
        reliable.shares(now);
        assert_eq!(limit(&mut reliable, Duration::ZERO).0, strict, "there was a message");
        assert_eq!(limit(&mut reliable, SHARED - 8 * RTT).0, strict);
        assert_eq!(limit(&mut reliable, 8 * RTT).0, twice, "for a while there was none");
    }
}
