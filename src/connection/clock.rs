//! The clock of a connection: while packets are under way it runs ahead of time, so that what was lost is sent again soon.
//!
//! SCTP sends a lost packet again when its timer runs out, and that is a second at the least
//! (RFC 9260 section 6.3.1, `RTO.Min`), which cannot be set: at 5 % loss one reliable packet in a hundred comes more than
//! a second late, on a path of 40 ms. But all of the library's time comes from here. So the clock runs faster, by as
//! much as makes that second [one and a quarter of a round trip and a little](State::rate):
//!
//! * only when all channels are open, since DTLS gives up by the same clock; and not while ICE looks for another way;
//! * only while there is [traffic](TRAFFIC), or something is to be acknowledged, so that an idle link wakes nobody more
//!   often;
//! * less while [a backlog](BACKLOG_BYTES) makes headway: what follows a lost packet tells of it, and a time-out too many
//!   makes SCTP begin again with one datagram;
//! * only while SCTP makes headway: it gives up for good after six expirations in a row, so without any
//!   acknowledgement only so much is gained ([`BUDGET`]);
//! * never with packets that live for so many milliseconds, as SCTP counts those by the same clock.
//!
//! A link that was silent for a while finds SCTP waiting for a timer that was doubled each time. So when the remote is
//! heard again the clock is set [forward](leap_after), if SCTP holds anything.
//!
//! The library looks after ICE by it, too, and on a near path that would be a turn of the driver every 20 ms for nothing. So
//! a look is [put off](State::puts_off) a little, to come with the next packet.
//!
//! On an idle link the library looks five times in a second whether it is time to ask whether the remote is there. It
//! sleeps [until it is](State::rests_until); and all idle links of a process ask at the same [beat](BEAT), as it costs much
//! less to do the same for many links at once than to wake up for each.
//!
//! ICE's consent goes by this clock too, so it cannot tell how long a remote was silent. That is told from here, in
//! true time ([`Turn::silent`]), as is the round trip ([`Clock::round_trip`]); and of its keepalives, those that come
//! too often do not leave (`connection/checks.rs`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use webrtc::runtime::Runtime;

use super::looks::Looks;
use super::setup::ICE_KEEPALIVE;
use super::stun::Transaction;

/// SCTP's least time-out, by the clock.
const RTO_MIN: Duration = Duration::from_secs(1);
/// Added to one and a quarter of a round trip; on a near path more, as there the jitter of a Wi-Fi, and an
/// acknowledgement that waits for a second packet, take longer than the way.
const SLACK: Duration = Duration::from_millis(20);
const NEAR_SLACK: Duration = Duration::from_millis(100);
/// Others acknowledge after up to 200 ms (RFC 9260 section 6.2), by their own clocks.
const DELAYED_ACK: Duration = Duration::from_millis(250);

/// So much, that three packets and more follow most that are lost; then SCTP has so many times as long. At 1 % loss and
/// 20 ms each way bulk goes a third faster so.
const BACKLOG_BYTES: usize = 8 * 1024;
const PATIENCE: u32 = 4;

/// Since the last packet of data, either way: as long as a few expirations may take, as SCTP does not say what it still has
/// to say.
const TRAFFIC: Duration = Duration::from_millis(2500);

/// How far the clock runs ahead without headway: expirations after 1 and 3 s; and just after an answer, so that it is the
/// loss of single packets, after 7 s. Those that are left take 56 s of true time, and a way that was cut for a while
/// needs them when it is back.
const BUDGET: Duration = Duration::from_secs(3);
const BUDGET_ANSWERED: Duration = Duration::from_secs(7);
const JUST_ANSWERED: Duration = Duration::from_millis(1200);
/// The same, for a while after a silence: what arrived before it, and only its acknowledgement was lost, counts as having
/// been under way for all of it. That makes SCTP expect such round trips, and wait for up to a minute for each, until
/// some twenty have shown otherwise. If it does not wait so long, that is five expirations, the last that it has.
const BUDGET_RESUMED: Duration = Duration::from_secs(31);
/// For so many looks with headway.
const RESUMED: u8 = 16;
/// And all that is left, when the remote answers again for this long, and nothing makes headway: then either one of the
/// last tries arrives, or SCTP has [given up](GIVEN_UP).
const TRIED: Duration = Duration::from_secs(4);

/// When SCTP is taken to have given up: when by its clock it has held something for this long, and was done with nothing.
/// Its sixth expiration in a row comes after 63 s at the usual second, and after 150 s if the first took more than two.
/// Then it sends nothing any more, and tells nobody (`rtc-sctp` only logs it, as ICE is expected to notice).
const GIVEN_UP: Duration = Duration::from_secs(150);
/// Or for this long of true time, when the clock could have been ahead: it was slow to make sure.
const GIVEN_UP_SLOWLY: Duration = Duration::from_secs(45);
/// And all the time, this long at the least, the remote has answered.
const GIVEN_UP_REACHED: Duration = Duration::from_secs(8);
/// It answers: ICE asks it every second.
const ANSWERED: Duration = Duration::from_millis(2500);

/// What counts as a silence when the remote is heard again; or as none of our requests arriving, when one is answered.
const SILENCE: Duration = Duration::from_millis(1500);
const NO_ANSWER: Duration = Duration::from_millis(3500);
/// As long as SCTP waits at the most.
const RTO_MAX: Duration = Duration::from_secs(60);
/// How many times without headway: each is an expiration.
const LEAPS: u8 = 2;
/// How often what leaves is not to be lost, on a narrow way that comes and goes.
const RESUMES_EVERY: Duration = Duration::from_secs(5);

/// Idle links ask at multiples of this, counted from the first connection of the process. So they ask once a second, or a
/// little less often when they are late.
const BEAT: Duration = Duration::from_millis(250);

/// The remote is silent when nothing was heard of it for this long; the grace time runs from there.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Requests that may still be answered: on a path of 600 ms, all that some pairs are asked while ICE looks for a way.
const MAX_ASKED: usize = 256;

const UNIT: u64 = 1024;

/// What SCTP holds, on all channels, and what has become of it since it was looked last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    /// Of what it must deliver, and whether something of that was acknowledged.
    pub(crate) lasting_bytes: usize,
    pub(crate) headway: bool,
    /// Of what may be lost, and whether it is done with something of that: it has arrived, or was given up.
    pub(crate) fleeting_bytes: usize,
    pub(crate) moves: bool,
}

/// What follows from what SCTP holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The driver may sleep for too long, as the clock goes faster from now on.
    pub(super) hurries: bool,
    /// [It has given up](GIVEN_UP).
    pub(super) given_up: bool,
}

/// A clock, and the time that it goes by. All instants that it takes are of the true time.
#[derive(Debug)]
pub(super) struct Clock {
    time: Arc<dyn Runtime>,
    state: Mutex<State>,
    /// Since the driver's last turn, data has gone or come; and has come.
    traffic: AtomicBool,
    heard: AtomicBool,
}

/// What there is to do when the driver's turn is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// It sleeps so long, unless something wakes it.
    pub(super) sleep: Duration,
    /// Nothing was heard of the remote for too long.
    pub(super) silent: bool,
    /// The remote is heard again after a silence, or SCTP has few tries left: what leaves next is not to be lost.
    pub(super) resumes: bool,
}

#[derive(Debug)]
struct State {
    /// The last reckoning, and how far the clock was ahead then.
    reckoned: Instant,
    ahead: Duration,
    /// What it gains of each nanosecond, in units of 1/[`UNIT`]; and until when, if nothing happens.
    gain: u64,
    fast_until: Instant,
    /// How much was gained since SCTP made headway.
    gained: Duration,
    traffic: Option<Instant>,
    /// SCTP holds something.
    owing: bool,
    /// It makes headway, when it was looked last; and held much that it must deliver, and made headway then or before.
    headway: bool,
    backlog: bool,
    /// Data has come since it was looked what it holds.
    heard_data: bool,
    answered: Option<Instant>,
    /// Since when it answers, without a pause of [`NO_ANSWER`].
    answers: Option<Instant>,
    /// Who the remote is, once all channels are open.
    remote: Option<Remote>,
    /// ICE looks for another way.
    searching: bool,
    /// Lifetimes of packets go by it.
    steady: bool,
    heard: Instant,
    /// A silence has ended.
    resumes: bool,
    /// Since when, in true time and by the clock, SCTP holds something and has made no headway.
    waits: Option<(Instant, Instant)>,
    /// The same, and of what may be lost it was done with nothing either.
    stuck: Option<(Instant, Instant)>,
    /// How many looks with headway there were since a silence, up to [`RESUMED`].
    calm: u8,
    /// It is to be set forward; and how many times it was, since there was headway.
    leap: bool,
    leaps: u8,
    /// When what left was last not to be lost, and how much is to be gained before the next time.
    resumed: Option<Instant>,
    stuck_after: Duration,
    /// The last answer that was taken for headway.
    forgiven: Option<Instant>,
    /// What was read last.
    read: Instant,
    looks: Looks,
    asked: VecDeque<(Transaction, Instant)>,
    asked_last: Option<Instant>,
    /// Since when the [`BEAT`] is counted.
    beat: Option<Instant>,
    round_trip: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// A member of this crate, whose clock is ahead as well.
    Member,
    /// Another stack, or a member whose clock is steady: it takes its time to acknowledge a lone packet.
    Stranger,
}

impl Clock {
    /// With a `beat` it rests until one.
    pub(super) fn new(time: Arc<dyn Runtime>, beat: bool) -> Clock {
        static FIRST: OnceLock<Instant> = OnceLock::new();
        let now = time.now();
        let beat = beat.then(|| *FIRST.get_or_init(|| now));
        let state = Mutex::new(State { beat, ..State::new(now) });
        Clock { time, state, traffic: AtomicBool::new(false), heard: AtomicBool::new(false) }
    }

    /// The true time.
    pub(super) fn true_now(&self) -> Instant {
        self.time.now()
    }

    /// What the library is told; and whether it is its driver that asks.
    pub(super) fn read(&self, now: Instant, drives: bool) -> Instant {
        let mut state = self.lock();
        // Who comes late with its `now` must not see the clock go back.
        let read = state.read.max(now + state.ahead + state.gained_by(now));
        state.read = read;
        if drives {
            state.looks.read(read);
        }
        read
    }

    /// Data has left. It counts from the end of the driver's turn on.
    pub(super) fn sent_data(&self) {
        self.traffic.store(true, Ordering::Relaxed);
    }

    /// Data has come, the same.
    pub(super) fn heard_data(&self) {
        self.traffic.store(true, Ordering::Relaxed);
        self.heard.store(true, Ordering::Relaxed);
    }

    /// The driver's turn is over, and it wants to sleep until the clock has gone on by `duration`.
    pub(super) fn turn(&self, duration: Duration, now: Instant) -> Turn {
        let mut state = self.lock();
        if self.traffic.swap(false, Ordering::Relaxed) {
            state.change(now, |state| state.traffic = Some(now));
        }
        if self.heard.swap(false, Ordering::Relaxed) {
            state.heard_data = true;
            state.hear(now);
        }
        let resumes = state.becomes_stuck(now) | std::mem::take(&mut state.resumes);
        let silence = (state.heard + SILENT_AFTER).saturating_duration_since(now);
        let silent = silence.is_zero();
        // Only now: a round trip that was measured over the leap would be one of a minute.
        if state.leap && state.is_ready() {
            state.leap = false;
            // What waited may have been acknowledged meanwhile.
            if let Some((_, since)) = state.waits {
                let clock = now + state.ahead + state.gained_by(now);
                state.leaps += 1;
                state.ahead += leap_after(clock.saturating_duration_since(since));
                return Turn { sleep: Duration::ZERO, silent, resumes: true };
            }
        }
        let rests =
            state.rests_until(now).map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let puts_off = if state.looks.is_due(duration) { state.puts_off(now) } else { Duration::ZERO };
        let sleep = (state.true_time_of(duration, now) + puts_off).max(rests);
        Turn { sleep: if silent { sleep } else { sleep.min(silence) }, silent, resumes }
    }

    /// All channels are open.
    pub(super) fn open(&self, remote: Remote) {
        self.change(self.true_now(), |state| state.remote = Some(remote));
    }

    /// Packets have lifetimes: the clock is never ahead.
    pub(super) fn keep_steady(&self) {
        self.change(self.true_now(), |state| state.steady = true);
    }

    /// Whether it is never ahead.
    pub(super) fn is_steady(&self) -> bool {
        self.lock().steady
    }

    /// ICE looks for another way, or has found it.
    pub(super) fn search(&self, searching: bool) {
        let now = self.true_now();
        self.change(now, |state| {
            state.searching = searching;
            // What answered until now was asked over ways that may not be the one.
            state.answers = state.answers.map(|_| now);
        });
    }

    /// What SCTP holds. If it is only what may be lost, that the remote answers and says something itself is sign enough
    /// of headway.
    pub(super) fn held(&self, held: Held) -> Verdict {
        let Held { lasting_bytes, headway, fleeting_bytes, moves } = held;
        let now = self.true_now();
        let mut state = self.lock();
        let was_fast = state.fast_until > now;
        state.change(now, |state| {
            state.owing = lasting_bytes + fleeting_bytes > 0;
            state.backlog = lasting_bytes >= BACKLOG_BYTES && (headway || state.headway);
            state.headway = headway;
            let answered = state.answered.is_some_and(|answered| now < answered + ANSWERED);
            let heard = std::mem::take(&mut state.heard_data) && answered && state.answered != state.forgiven;
            let heard = lasting_bytes == 0 && heard;
            if heard {
                state.forgiven = state.answered;
            }
            if headway || heard {
                state.calm = (state.calm + 1).min(RESUMED);
            }
            if headway || heard || !state.owing {
                state.leaps = 0;
                state.gained = Duration::ZERO;
                state.stuck_after = BUDGET_ANSWERED;
                state.waits = None;
            }
            if headway || moves || !state.owing {
                state.stuck = None;
            }
            if state.owing {
                state.waits.get_or_insert((now, now + state.ahead));
                state.stuck.get_or_insert((now, now + state.ahead));
            }
        });
        Verdict { hurries: !was_fast && state.fast_until > now, given_up: state.has_given_up(now) }
    }

    /// The remote asks something.
    pub(super) fn heard(&self, now: Instant) {
        self.lock().hear(now);
    }

    /// A request of ICE's has left.
    pub(super) fn asked(&self, transaction: Transaction, now: Instant) {
        let mut state = self.lock();
        state.asked_last = Some(now);
        if state.asked.len() >= MAX_ASKED {
            state.asked.pop_front();
        }
        state.asked.push_back((transaction, now));
    }

    /// An answer is here. Tells whether it is one to a request of ours.
    pub(super) fn answered(&self, transaction: &Transaction, now: Instant) -> bool {
        let mut state = self.lock();
        let place = state.asked.iter().position(|(asked, _)| asked == transaction);
        let Some((_, sent)) = place.and_then(|place| state.asked.remove(place)) else { return false };
        let time = now.saturating_duration_since(sent);
        state.hear(now);
        state.change(now, |state| {
            state.answer(now);
            // Smoothed as SCTP does it (RFC 9260 section 6.3.1), but quick to believe in a longer one.
            let smoothed = state.round_trip.map_or(time, |before| (before * 7 + time) / 8);
            state.round_trip = Some(smoothed.max(time));
        });
        true
    }

    /// The round trip of ICE's requests, which wait for nothing.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.lock().round_trip
    }

    /// Whether ICE looks for another way.
    pub(super) fn searches(&self) -> bool {
        self.lock().searching
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut State)) {
        self.lock().change(now, change);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is added to one and a quarter of a round trip.
fn slack(round_trip: Duration) -> Duration {
    NEAR_SLACK.saturating_sub(round_trip * 2).max(SLACK)
}

/// How far the clock is set forward when a remote is heard, and something has waited for so long by the clock.
///
/// A timer that began then and was doubled each time has as much left at the most, and a time-out more; and it may have
/// begun before it was looked. No farther, as what is under way then makes SCTP expect [such round trips](BUDGET_RESUMED).
fn leap_after(wait: Duration) -> Duration {
    (wait + RTO_MIN * 5).min(RTO_MAX)
}

impl State {
    fn new(now: Instant) -> State {
        State {
            reckoned: now,
            ahead: Duration::ZERO,
            gain: 0,
            fast_until: now,
            gained: Duration::ZERO,
            traffic: None,
            owing: false,
            headway: false,
            backlog: false,
            heard_data: false,
            answered: None,
            answers: None,
            remote: None,
            searching: false,
            steady: false,
            heard: now,
            resumes: false,
            waits: None,
            stuck: None,
            calm: RESUMED,
            leap: false,
            leaps: 0,
            resumed: None,
            stuck_after: BUDGET_ANSWERED,
            forgiven: None,
            read: now,
            looks: Looks::default(),
            asked: VecDeque::new(),
            asked_last: None,
            beat: None,
            round_trip: None,
        }
    }

    /// Whether the clock may run ahead at all.
    fn is_ready(&self) -> bool {
        self.remote.is_some() && !self.searching && !self.steady
    }

    fn hear(&mut self, now: Instant) {
        if now.saturating_duration_since(self.heard) >= SILENCE {
            self.resume(now);
        }
        self.heard = now;
    }

    fn answer(&mut self, now: Instant) {
        if self.answered.is_none_or(|before| now.saturating_duration_since(before) >= NO_ANSWER) {
            self.answers = Some(now);
            if self.answered.is_some() {
                self.resume(now);
            }
        }
        self.answered = Some(now);
    }

    /// For how long the remote has answered, without a pause, while SCTP held what [`stuck`](State::stuck) says.
    fn reached(&self, stuck: Option<(Instant, Instant)>, now: Instant) -> Option<Duration> {
        let (since, answers) = (stuck?.0, self.answers?);
        let answers_still = now.saturating_duration_since(self.answered?) < NO_ANSWER;
        answers_still.then(|| now.saturating_duration_since(since.max(answers)))
    }

    /// Whether SCTP has given up, as far as can be told.
    fn has_given_up(&self, now: Instant) -> bool {
        // Meanwhile nothing can be acknowledged.
        if self.searching {
            return false;
        }
        let (Some((_, since)), Some(reached)) = (self.stuck, self.reached(self.stuck, now)) else {
            return false;
        };
        let by_the_clock = (now + self.ahead).saturating_duration_since(since);
        // A stranger that does not read acknowledges nothing new, and its link is well: it is given its time.
        let is_known = self.steady || self.remote == Some(Remote::Member);
        let in_time = is_known && by_the_clock >= GIVEN_UP;
        reached >= GIVEN_UP_REACHED && (in_time || !self.steady && reached >= GIVEN_UP_SLOWLY)
    }

    /// The remote could not be reached for a while, and now it can.
    fn resume(&mut self, now: Instant) {
        if self.remote.is_none() {
            return;
        }
        // Not for nothing, or there are no tries left when needed.
        if self.waits.is_some_and(|(since, _)| now.saturating_duration_since(since) >= SILENCE) {
            self.calm = 0;
            self.leap |= self.leaps < LEAPS;
        }
        // But what the remote sends again is to be acknowledged in any case.
        if self.resumed.is_none_or(|last| now.saturating_duration_since(last) >= RESUMES_EVERY) {
            self.resumed = Some(now);
            self.resumes = true;
        }
    }

    /// How many times as fast as time it may run: so many that SCTP's second takes one and a quarter of a round trip and
    /// a little, and with a stranger its delay of acknowledgements.
    fn rate(&self) -> f64 {
        let (Some(remote), Some(round_trip), true) = (self.remote, self.round_trip, self.is_ready()) else {
            return 1.0;
        };
        let delay = if remote == Remote::Member { Duration::ZERO } else { DELAYED_ACK };
        let patience = if self.backlog { PATIENCE } else { 1 };
        RTO_MIN.div_duration_f64((round_trip * 5 / 4 + slack(round_trip) + delay) * patience).max(1.0)
    }

    /// How much later than it is due ICE may look, in true time: so little that a packet that is sent again then, as the
    /// driver does not tell when that is due, is not much later for it.
    fn puts_off(&self, now: Instant) -> Duration {
        let is_fast = self.gain > 0 && now < self.fast_until;
        self.round_trip.filter(|_| is_fast).map_or(Duration::ZERO, |round_trip| slack(round_trip) / 5)
    }

    /// Until when there is nothing to do but for what comes from outside: nothing was said for a while, nothing waits, and
    /// the remote was asked a moment ago. The timers of a relay take second place, by up to a second.
    fn rests_until(&self, now: Instant) -> Option<Instant> {
        let talks = self.traffic.is_some_and(|traffic| now < traffic + TRAFFIC);
        let rests = self.remote.is_some() && !self.searching && !self.owing && !talks;
        self.asked_last.filter(|_| rests).map(|asked| self.on_the_beat(asked + ICE_KEEPALIVE))
    }

    fn on_the_beat(&self, at: Instant) -> Instant {
        let Some(first) = self.beat else { return at };
        let beats = at.saturating_duration_since(first).as_nanos().div_ceil(BEAT.as_nanos());
        u32::try_from(beats).map_or(at, |beats| first + BEAT * beats)
    }

    /// Whether more of the budget is spent than usual, and again so much more: so what is sent now is one of the last
    /// tries.
    fn becomes_stuck(&mut self, now: Instant) -> bool {
        let stuck = self.calm < RESUMED && self.owing && self.gained + self.gained_by(now) > self.stuck_after;
        if stuck {
            // By the clock: every second or so.
            self.stuck_after += BUDGET_ANSWERED * 2;
        }
        stuck
    }

    /// How much is gained from the last reckoning on.
    fn gained_by(&self, now: Instant) -> Duration {
        let fast = now.min(self.fast_until).saturating_duration_since(self.reckoned);
        Duration::from_nanos((fast.as_nanos() as u64).saturating_mul(self.gain) / UNIT)
    }

    /// Something changes by which it goes.
    fn change(&mut self, now: Instant, change: impl FnOnce(&mut State)) {
        let gained = self.gained_by(now);
        self.ahead += gained;
        self.gained += gained;
        self.reckoned = self.reckoned.max(now);
        change(self);
        self.gain = ((self.rate() - 1.0) * UNIT as f64) as u64;
        self.fast_until = now + self.fast_for(now);
    }

    /// How long from then on it runs ahead.
    fn fast_for(&self, from: Instant) -> Duration {
        if self.gain == 0 {
            return Duration::ZERO;
        }
        let left = |since: Option<Instant>, limit: Duration| {
            since.map_or(Duration::ZERO, |since| (since + limit).saturating_duration_since(from))
        };
        let answered = left(self.answered, ANSWERED);
        let owing = if self.owing { answered } else { Duration::ZERO };
        let just = left(self.answered, JUST_ANSWERED);
        let tried = || self.reached(self.waits, from).is_some_and(|reached| reached >= TRIED);
        let budget = match (just.is_zero(), self.calm < RESUMED) {
            (true, _) => BUDGET,
            (false, false) => BUDGET_ANSWERED,
            (false, true) if self.remote == Some(Remote::Member) && tried() => GIVEN_UP,
            (false, true) => BUDGET_RESUMED,
        };
        let budget = budget.saturating_sub(self.gained);
        let lasts = Duration::from_nanos(budget.as_nanos() as u64 * UNIT / self.gain);
        left(self.traffic, TRAFFIC).max(owing).min(lasts)
    }

    /// How long it takes the clock to go on by so much.
    fn true_time_of(&self, duration: Duration, now: Instant) -> Duration {
        let fast = self.fast_until.saturating_duration_since(now);
        let nanos = (duration.as_nanos().min(u128::from(u64::MAX / UNIT)) as u64) * UNIT / (UNIT + self.gain);
        let all_fast = Duration::from_nanos(nanos);
        let time = if all_fast <= fast {
            all_fast
        } else {
            duration - Duration::from_nanos(fast.as_nanos() as u64 * self.gain / UNIT)
        };
        // Never too early by the last digit.
        time + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const S: fn(u64) -> Duration = Duration::from_secs;

    const ACKNOWLEDGED: Held = Held { lasting_bytes: 500, headway: true, fleeting_bytes: 0, moves: false };
    const STUCK: Held = Held { headway: false, ..ACKNOWLEDGED };

    /// Open, with a round trip of 40 ms, and something to send.
    fn busy(remote: Remote) -> (State, Instant) {
        let start = Instant::now();
        let mut state = State::new(start);
        state.change(start, |state| {
            (state.remote, state.round_trip, state.traffic) = (Some(remote), Some(MS(40)), Some(start));
        });
        (state, start)
    }

    /// How far the clock has gone when so much time has passed.
    fn gone(state: &mut State, start: Instant, time: Duration) -> Duration {
        state.change(start + time, |_| {});
        time + state.ahead
    }

    #[test]
    fn a_second_of_sctps_takes_little_more_than_a_round_trip_and_with_strangers_their_delay_as_well() {
        let second = |remote, round_trip, takes| {
            let (mut state, start) = busy(remote);
            state.change(start, |state| state.round_trip = Some(round_trip));
            let gone = gone(&mut state, start, takes);
            assert!(gone.abs_diff(S(1)) < MS(2), "{remote:?}, {round_trip:?}: {gone:?}");
        };
        second(Remote::Member, MS(40), MS(70));
        second(Remote::Stranger, MS(40), MS(320));
        second(Remote::Member, MS(400), MS(520));
        second(Remote::Member, MS(0), MS(100));
        second(Remote::Member, MS(20), MS(85));
        // A long path has its second.
        second(Remote::Member, MS(900), S(1));
    }

    #[test]
    fn a_backlog_that_makes_headway_has_four_times_as_long() {
        for (held, takes) in [
            (ACKNOWLEDGED, MS(70)),
            (Held { lasting_bytes: BACKLOG_BYTES, ..ACKNOWLEDGED }, MS(280)),
            (Held { lasting_bytes: BACKLOG_BYTES, ..STUCK }, MS(70)),
            (Held { lasting_bytes: 0, fleeting_bytes: BACKLOG_BYTES, headway: false, moves: true }, MS(70)),
        ] {
            let (clock, _) = clock(|state| {
                (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
                state.traffic = Some(state.reckoned);
            });
            clock.held(held);
            let rate = clock.lock().rate();
            assert!((rate * takes.as_secs_f64() - 1.0).abs() < 0.01, "{held:?}: {rate}");
            if takes == MS(280) {
                clock.held(Held { headway: false, ..held });
                assert_eq!(clock.lock().rate(), rate, "it may come at the next look");
                clock.held(Held { headway: false, ..held });
                assert!(clock.lock().rate() > rate * 3.9);
            }
        }
    }

    #[test]
    fn without_traffic_the_clock_is_not_ahead() {
        let (mut state, start) = busy(Remote::Member);
        let after_traffic = gone(&mut state, start, TRAFFIC);
        assert!(after_traffic > S(5));
        assert_eq!(gone(&mut state, start, TRAFFIC + S(9)), after_traffic + S(9));
        for change in [
            |state: &mut State| state.remote = None,
            |state: &mut State| state.searching = true,
            |state: &mut State| state.steady = true,
            |state: &mut State| state.round_trip = None,
        ] {
            let (mut state, start) = busy(Remote::Member);
            state.change(start, change);
            assert_eq!(gone(&mut state, start, MS(500)), MS(500));
        }
    }

    #[test]
    fn without_headway_only_so_much_is_gained_and_more_while_the_remote_answers() {
        for (answered, budget) in [(false, BUDGET), (true, BUDGET_ANSWERED)] {
            let (mut state, start) = busy(Remote::Member);
            for millis in (0..10_000).step_by(100) {
                let now = start + MS(millis);
                state.change(now, |state| {
                    (state.traffic, state.answered) = (Some(now), answered.then_some(now));
                });
            }
            assert!(state.ahead.abs_diff(budget) < MS(1), "{:?}", state.ahead);
            // Since the last acknowledgement.
            state.change(start + S(10), |state| state.gained = Duration::ZERO);
            gone(&mut state, start, S(10) + MS(500));
            assert!(state.ahead > budget);
        }
    }

    #[test]
    fn what_is_owed_keeps_it_going_as_long_as_the_remote_answers() {
        let (mut state, start) = busy(Remote::Stranger);
        let owes =
            |state: &mut State| (state.traffic, state.owing, state.answered) = (None, true, Some(start));
        state.change(start, owes);
        assert!(!state.fast_for(start + MS(1500)).is_zero());
        assert!(state.fast_for(start + ANSWERED).is_zero());
        state.change(start, |state| state.owing = false);
        assert!(state.fast_for(start + MS(1500)).is_zero());
    }

    fn clock(change: impl FnOnce(&mut State)) -> (Clock, Instant) {
        let clock = Clock::new(Arc::new(webrtc::runtime::TokioRuntime), false);
        let start = clock.lock().reckoned;
        clock.change(start, change);
        (clock, start)
    }

    #[test]
    fn a_sleep_ends_when_the_clock_has_gone_on_by_so_much() {
        let (clock, start) = clock(|state| {
            (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
            state.traffic = Some(state.reckoned);
        });
        for duration in [MS(1), MS(200), S(1), S(7), S(30)] {
            let slept = clock.lock().true_time_of(duration, start);
            let gone = clock.read(start + slept, false) - start;
            assert!(gone >= duration && gone < duration + MS(1), "{duration:?}: {slept:?}, {gone:?}");
        }
    }

    #[test]
    fn a_look_of_ices_is_put_off_while_the_clock_is_ahead_and_nothing_else_is() {
        let sleeps = |round_trip, traffic, after| {
            let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
            clock.change(start, |state| {
                (state.round_trip, state.traffic) = (Some(round_trip), Some(start - traffic));
            });
            // It looks, and goes to sleep.
            clock.read(start, true);
            clock.read(start, true);
            clock.turn(after, start).sleep
        };
        let look = MS(200);
        let near = |time: Duration, expected| assert!(time.abs_diff(expected) < MS(1), "{time:?}");
        near(sleeps(MS(0), S(0), look), MS(20) + MS(20));
        near(sleeps(MS(0), S(0), look - MS(10)), MS(19));
        near(sleeps(MS(400), S(0), look), MS(104) + MS(4));
        near(sleeps(MS(0), S(3), look), look);
    }

    #[test]
    fn after_a_silence_the_clock_leaps_as_far_as_a_timer_may_have_left() {
        let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
        let waits_since = |since: Option<Instant>| clock.lock().waits = since.map(|since| (since, since));
        // By how much.
        let leap_when_heard = |after| {
            let before = clock.lock().ahead;
            clock.heard_data();
            clock.turn(S(1), start + after);
            clock.lock().ahead - before
        };
        assert_eq!(leap_when_heard(S(5)), S(0), "nothing waits");
        waits_since(Some(start + S(5)));
        assert_eq!(leap_when_heard(S(6)), S(0), "no silence");
        assert_eq!(leap_when_heard(S(10)), S(5) + S(5));
        assert_eq!(leap_when_heard(S(20)), S(25) + S(5), "the second time");
        assert_eq!(leap_when_heard(S(30)), S(0), "not a third, without headway");
        clock.held(ACKNOWLEDGED);
        waits_since(Some(start + S(40)));
        assert_eq!(leap_when_heard(S(100)), RTO_MAX);
        clock.held(ACKNOWLEDGED);
        clock.search(true);
        assert_eq!(leap_when_heard(S(110)), S(0));
        clock.held(Held { lasting_bytes: 0, ..ACKNOWLEDGED });
        clock.search(false);
        assert_eq!(leap_when_heard(S(111)), S(0), "what waited was acknowledged while ICE looked for a way");
    }

    #[test]
    fn who_does_not_hear_us_for_a_while_is_told_at_once_when_it_does() {
        let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
        let mut next = 0;
        let mut is_answered = |after| {
            next += 1;
            clock.asked([next; 12], start + after - MS(40));
            clock.answered(&[next; 12], start + after);
            clock.turn(S(1), start + after).resumes
        };
        assert!(!is_answered(S(1)));
        clock.lock().waits = Some((start + S(1), start + S(1)));
        (2..9).for_each(|second| clock.heard(start + S(second)));
        assert!(is_answered(S(9)));
        assert_eq!(clock.lock().ahead, S(8) + S(5));
        assert!(!is_answered(S(10)));
    }

    #[test]
    fn after_a_silence_more_may_be_gained_until_there_was_headway_for_a_while() {
        let (mut state, start) = busy(Remote::Member);
        state.change(start, |state| {
            (state.waits, state.owing, state.gained) = (Some((start - S(2), start)), true, BUDGET_ANSWERED);
            state.answered = Some(start);
        });
        assert!(state.fast_for(start).is_zero());
        state.change(start, |state| state.resume(start));
        assert!(!state.fast_for(start).is_zero() && !state.becomes_stuck(start));
        let last_try = start + MS(10);
        assert!(state.becomes_stuck(last_try), "what is sent now is one of the last tries");
        assert!(!state.becomes_stuck(last_try), "once");
        assert!(state.becomes_stuck(start + MS(1200)), "and for the next");
        state.change(start, |state| state.calm = RESUMED);
        assert!(state.fast_for(start).is_zero() && !state.becomes_stuck(start + S(1)));
    }

    /// When SCTP is said to have given up, if the remote answers each second, and nothing is acknowledged any more.
    fn given_up_after(remote: Remote, silence: bool, change: impl Fn(&mut State, Duration)) -> Duration {
        let (mut state, start) = busy(remote);
        state.answer(start);
        let mut time = Duration::ZERO;
        loop {
            let now = start + time;
            state.change(now, |state| {
                (state.owing, state.traffic) = (true, Some(now));
                state.waits.get_or_insert((now, now + state.ahead));
                state.stuck.get_or_insert((now, now + state.ahead));
                if time.subsec_millis() == 0 {
                    state.answer(now);
                }
                if silence && time == S(2) {
                    state.resume(now);
                }
                change(state, time);
            });
            if state.has_given_up(now) {
                return time;
            }
            time += MS(250);
        }
    }

    #[test]
    fn sctp_has_given_up_when_its_tries_must_be_over_and_the_remote_has_answered_all_the_time() {
        let after = |remote, silence| given_up_after(remote, silence, |_, _| {});
        assert!((S(10)..S(16)).contains(&after(Remote::Member, true)), "{:?}", after(Remote::Member, true));
        assert_eq!(after(Remote::Member, false), GIVEN_UP_SLOWLY, "the tries are not spent");
        assert_eq!(after(Remote::Stranger, true), GIVEN_UP_SLOWLY);
        let leaps = given_up_after(Remote::Stranger, true, |state, time| {
            if time == S(20) {
                state.ahead += RTO_MAX * 2;
            }
        });
        assert_eq!(leaps, GIVEN_UP_SLOWLY, "a stranger is given its time");
        let searches = given_up_after(Remote::Member, true, |state, time| state.searching = time < S(60));
        assert!(searches >= S(60), "{searches:?}");
        let steady = given_up_after(Remote::Member, true, |state, _| state.steady = true);
        assert_eq!(steady, GIVEN_UP);
        let headway = given_up_after(Remote::Member, false, |state, time| {
            if time == S(40) {
                state.stuck = None;
            }
        });
        assert!(headway > S(84), "{headway:?}");
        let silent = given_up_after(Remote::Member, false, |state, time| {
            if time < S(100) {
                (state.answers, state.answered) = (None, None);
            }
        });
        assert!(silent >= S(100) + GIVEN_UP_REACHED, "{silent:?}");
    }

    #[test]
    fn who_answers_and_acknowledges_nothing_is_told_of() {
        let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
        clock.change(start, |state| state.answer(start));
        assert!(!clock.held(STUCK).given_up);
        clock.change(start, |state| {
            let long_ago = start - S(200);
            state.stuck = Some((long_ago, long_ago));
            (state.answers, state.answered) = (Some(long_ago), Some(start));
        });
        assert!(clock.held(STUCK).given_up);
        assert!(!clock.held(Held { moves: true, ..STUCK }).given_up, "it is done with something");
    }

    #[test]
    fn the_clock_never_goes_back_even_if_somebody_comes_late_with_its_time() {
        let (clock, start) = clock(|state| {
            (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
            state.traffic = Some(state.reckoned);
        });
        let read = clock.read(start + MS(100), false);
        clock.change(start + MS(90), |state| state.searching = true);
        assert!(clock.read(start + MS(95), false) >= read);
    }

    #[test]
    fn what_may_be_lost_makes_headway_when_the_remote_says_something_and_answers() {
        let (clock, start) = clock(|state| state.gained = S(5));
        let gained = |fleeting_bytes| {
            clock.held(Held { fleeting_bytes, ..Held::default() });
            clock.lock().gained
        };
        assert_eq!(gained(100), S(5));
        clock.heard_data();
        clock.turn(S(1), start);
        assert_eq!(gained(100), S(5), "it answers nothing");
        clock.change(start, |state| state.answered = Some(start + S(1)));
        clock.heard_data();
        clock.turn(S(1), start);
        assert_eq!(gained(100), Duration::ZERO);
        clock.change(start, |state| state.gained = S(5));
        assert_eq!(gained(100), S(5), "nothing was said since");
        assert_eq!(gained(0), Duration::ZERO);
    }

    #[test]
    fn the_round_trip_is_that_of_our_own_requests() {
        let (clock, start) = clock(|_| {});
        clock.asked([1; 12], start);
        assert!(!clock.answered(&[2; 12], start + MS(10)), "nobody asked");
        assert!(clock.answered(&[1; 12], start + MS(80)));
        assert!(!clock.answered(&[1; 12], start + MS(90)), "once");
        assert_eq!(clock.round_trip(), Some(MS(80)));
        clock.asked([3; 12], start);
        clock.answered(&[3; 12], start + MS(40));
        assert_eq!(clock.round_trip(), Some(MS(75)), "smoothed");
        clock.asked([4; 12], start);
        clock.answered(&[4; 12], start + MS(300));
        assert_eq!(clock.round_trip(), Some(MS(300)), "a longer one is believed");
        (0..1000_u32).for_each(|n| clock.asked([n.to_be_bytes(); 3].concat().try_into().unwrap(), start));
        assert_eq!(clock.lock().asked.len(), MAX_ASKED);
    }

    #[test]
    fn an_idle_link_rests_until_it_is_time_to_ask() {
        let (clock, start) = clock(|state| state.remote = Some(Remote::Stranger));
        clock.heard(start + S(10));
        clock.asked([1; 12], start + S(10));
        let sleep = |millis| clock.turn(MS(200), start + S(10) + MS(millis)).sleep;
        assert_eq!(sleep(0), MS(950));
        assert_eq!(sleep(300), MS(650));
        assert_eq!(sleep(950), MS(200) + Duration::from_nanos(1), "now");
        for change in [
            |state: &mut State| state.searching = true,
            |state: &mut State| (state.searching, state.owing) = (false, true),
            |state: &mut State| (state.owing, state.traffic) = (false, Some(state.heard)),
        ] {
            clock.change(start + S(10), change);
            assert_eq!(sleep(0), MS(200) + Duration::from_nanos(1));
        }
    }

    #[test]
    fn idle_links_of_a_process_ask_at_the_same_beat() {
        let (clock, start) =
            clock(|state| (state.remote, state.beat) = (Some(Remote::Member), Some(state.reckoned)));
        let asks_at = |asked: Duration| {
            clock.heard(start + asked);
            clock.asked([1; 12], start + asked);
            asked + clock.turn(MS(200), start + asked).sleep
        };
        assert_eq!(asks_at(MS(10_003)), S(11), "a little late");
        assert_eq!(asks_at(MS(11_000)), S(12));
        assert_eq!(asks_at(MS(12_060)), MS(13_250), "too late");
    }

    #[test]
    fn a_remote_is_silent_after_3_s() {
        let (clock, start) = clock(|_| {});
        clock.heard(start + S(2));
        assert_eq!(clock.turn(S(9), start + S(4)), Turn { sleep: S(1), silent: false, resumes: false });
        assert!(clock.turn(S(9), start + S(5)).silent);
        clock.heard_data();
        assert!(!clock.turn(S(9), start + S(6)).silent);
    }
}
