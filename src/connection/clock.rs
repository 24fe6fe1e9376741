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
//! * not while all is acknowledged in time: it [rests](super::rest);
//! * less while [a backlog](BACKLOG_BYTES) makes headway and the remote answers: what follows a lost packet tells of it, and a
//!   time-out too many makes SCTP begin again with one datagram. When nothing comes for a round trip, nothing follows;
//! * only while SCTP makes headway: it gives up for good after six expirations in a row, so without any
//!   acknowledgement only so much is gained ([`BUDGET`]);
//! * never with packets that live for so many milliseconds, as SCTP counts those by the same clock.
//!
//! A link that was silent for a while finds SCTP waiting for a timer that was doubled each time. So when the remote is
//! heard again the clock is set [forward](leap_after), if SCTP holds anything; and once when it answers, if nothing has
//! become of that for a while ([`CUT_OFF`]).
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
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use webrtc::runtime::Runtime;

use super::looks::Looks;
use super::rest::{Passed, Passing, Rest};
use super::setup::ICE_KEEPALIVE;
use super::stun::Transaction;

/// SCTP's least time-out, by the clock.
const RTO_MIN: Duration = Duration::from_secs(1);
/// Added to one and a quarter of a round trip; if the remote is near more, as there the jitter of a Wi-Fi, and an
/// acknowledgement that waits for a second packet, take longer than the way.
const SLACK: Duration = Duration::from_millis(20);
const NEAR_SLACK: Duration = Duration::from_millis(100);
/// Others acknowledge after up to 200 ms (RFC 9260 section 6.2), by their own clocks.
const DELAYED_ACK: Duration = Duration::from_millis(250);

/// So much, that three packets and more follow most that are lost; then SCTP has so many times as long, for
/// [so long](State::answer_time) since data came last. With 2 bulk on a path of uneven delay is slower by 6 %, with 8 that
/// on a lossy one.
const BACKLOG_BYTES: usize = 8 * 1024;
const PATIENCE: u32 = 4;

/// Since the last packet of data, either way: as long as a few expirations may take, as SCTP does not say what it still has
/// to say.
const TRAFFIC: Duration = Duration::from_millis(2500);

/// How far the clock runs ahead without headway: expirations after 1 and 3 s; and just after an answer, and while other data
/// comes, so that it is the loss of single packets, after 7 s. Those that are left take 56 s of true time, and a way that
/// was cut for a while needs them when it is back.
const BUDGET: Duration = Duration::from_secs(3);
const BUDGET_ANSWERED: Duration = Duration::from_secs(7);
const JUST_ANSWERED: Duration = Duration::from_millis(1200);
/// Since data came, and was [due](State::answer_time) again.
const JUST_HEARD: Duration = Duration::from_millis(200);
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
/// For how long, and three times as long as an acknowledgement takes, SCTP has waited for one if it has been cut off for a
/// moment. When a request of ours is answered then, its next try may be seconds away.
const CUT_OFF: Duration = Duration::from_millis(500);
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

/// With each answer, one a second, the shortest round trip comes nearer to that of now, by one part of so many.
const LEAST_OF: u32 = 32;

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
    /// Our hello was acknowledged, now or before. Strangers are told none.
    pub(crate) is_greeted: bool,
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
#[repr(C)]
pub(super) struct Clock {
    passing: Passing,
    state: Mutex<State>,
    time: Arc<dyn Runtime>,
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

/// First, what each look at the clock needs.
#[derive(Debug)]
#[repr(C)]
struct State {
    /// What was read last.
    read: Instant,
    /// The last reckoning, or, while it rests, since when it is to be made up for; and how far the clock was ahead then.
    reckoned: Instant,
    ahead: Duration,
    rest: Rest,
    /// It rested when the driver was told the time of its turn.
    rested: bool,
    /// What it gains of each nanosecond, in units of 1/[`UNIT`]; and until when, if nothing happens.
    gain: u64,
    fast_until: Instant,
    /// And before that, as the remote has just answered a backlog.
    patient_gain: u64,
    patient_until: Instant,
    looks: Looks,
    /// How much was gained since SCTP made headway.
    gained: Duration,
    traffic: Option<Instant>,
    /// Until when what the remote has said last counts as its answer.
    answers_until: Instant,
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
    /// The clock was set forward since then, as [the remote could be reached](State::is_cut_off).
    tried: bool,
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
    asked: VecDeque<(Transaction, Instant)>,
    asked_last: Option<Instant>,
    /// Since when the [`BEAT`] is counted.
    beat: Option<Instant>,
    round_trip: Option<Duration>,
    /// The shortest of late: how far the remote is, also when one of the two is busy, or a queue on the way is full.
    least: Option<Duration>,
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
        Clock { time, state, passing: Passing::default() }
    }

    /// The true time.
    pub(super) fn true_now(&self) -> Instant {
        self.time.now()
    }

    /// What the library is told; and whether it is its driver that asks, for a turn.
    pub(super) fn read(&self, now: Instant, drives: bool) -> Instant {
        let mut state = self.lock();
        // Before what tells of it is handed to SCTP, which may begin to wait anew then.
        if self.passing.has_gaps() {
            state.end_rest(now);
        }
        // Who comes late with its `now` must not see the clock go back.
        let read = state.read.max(now + state.ahead + state.gained_by(now));
        state.read = read;
        if drives {
            state.looks.read(read);
            state.rested = state.rest.lasts(now);
        }
        read
    }

    /// A datagram of data has left, of so many bytes. It counts from the end of the driver's turn on.
    pub(super) fn sent_data(&self, bytes: usize) {
        self.passing.sent(bytes);
    }

    /// One has come, the same. Whether the driver is to be told the time anew before it has it.
    #[must_use]
    pub(super) fn heard_data(&self, bytes: usize) -> bool {
        self.passing.heard(bytes);
        self.passing.has_gaps()
    }

    /// The driver's turn is over, and it wants to sleep until the clock has gone on by `duration`.
    pub(super) fn turn(&self, duration: Duration, now: Instant) -> Turn {
        let mut state = self.lock();
        let passed = self.passing.take();
        if passed.is_heard() {
            state.heard_data = true;
            state.hear(now);
        }
        if passed.is_any() {
            state.go_on_resting(passed, now);
            state.change(now, |state| {
                state.traffic = Some(now);
                if passed.is_heard() {
                    state.answers_until = now + state.answer_time();
                }
            });
            state.rest(passed, now);
        }
        let resumes = state.becomes_stuck(now) | std::mem::take(&mut state.resumes);
        let silence = (state.heard + SILENT_AFTER).saturating_duration_since(now);
        let silent = silence.is_zero();
        // Only now: a round trip that was measured over the leap would be one of a minute.
        if state.leap && state.is_ready() {
            state.leap = false;
            // What waited may have been acknowledged meanwhile.
            if let Some((_, waits)) = state.waits {
                let since = state.stuck.map_or(waits, |(_, stuck)| stuck.min(waits));
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

    /// How long an acknowledgement may wait: a part of what the remote's clock adds to a round trip.
    pub(super) fn spares(&self) -> Duration {
        let state = self.lock();
        if state.is_ready() { state.spares() } else { Duration::ZERO }
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
            state.least = None;
            // What answered until now was asked over ways that may not be the one.
            state.answers = state.answers.map(|_| now);
        });
    }

    /// What SCTP holds. If it is only what may be lost, that the remote answers and says something itself is sign enough
    /// of headway.
    pub(super) fn held(&self, held: Held) -> Verdict {
        let Held { lasting_bytes, headway, fleeting_bytes, moves, .. } = held;
        let now = self.true_now();
        let mut state = self.lock();
        let before = state.gain_at(now);
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
                (state.stuck, state.tried) = (None, false);
            }
            if state.owing {
                state.waits.get_or_insert((now, now + state.ahead));
                state.stuck.get_or_insert((now, now + state.ahead));
            }
        });
        Verdict { hurries: state.gain_at(now) > before, given_up: state.has_given_up(now) }
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
            let round_trip = smoothed.max(time);
            state.round_trip = Some(round_trip);
            let least = state.least.map_or(time, |least| least + round_trip.saturating_sub(least) / LEAST_OF);
            state.least = Some(least.min(time));
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
            rest: Rest::new(now),
            rested: false,
            ahead: Duration::ZERO,
            gain: 0,
            fast_until: now,
            patient_gain: 0,
            patient_until: now,
            gained: Duration::ZERO,
            traffic: None,
            answers_until: now,
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
            tried: false,
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
            least: None,
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
        } else if self.is_cut_off(now) {
            // It can be reached now. One try, as there are few.
            self.leap |= !std::mem::replace(&mut self.tried, true);
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

    /// Whether SCTP was done with nothing of what it holds for so long that it must have been lost, more than once. Not on a
    /// long path, where its tries are as far between as ever.
    fn is_cut_off(&self, now: Instant) -> bool {
        let limit = CUT_OFF.max(self.answer_time() * 3);
        let waited = self.stuck.map(|(since, _)| now.saturating_duration_since(since));
        self.rate(1) >= 2.0 && waited.is_some_and(|waited| waited >= limit)
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
    fn rate(&self, patience: u32) -> f64 {
        match self.is_ready() {
            true => RTO_MIN.div_duration_f64(self.answer_time() * patience).max(1.0),
            false => 1.0,
        }
    }

    /// Within what time what was sent is acknowledged.
    fn answer_time(&self) -> Duration {
        let delay = if self.remote == Some(Remote::Member) { Duration::ZERO } else { DELAYED_ACK };
        self.round_trip.map_or(RTO_MIN, |round_trip| round_trip * 5 / 4 + self.slack() + delay)
    }

    /// What is added to one and a quarter of a round trip. Who is near is so when it is busy, too: then it is not a way that
    /// takes long, but something that waits on either side, now longer and now not.
    fn slack(&self) -> Duration {
        let least = self.least.or(self.round_trip).unwrap_or(RTO_MIN);
        NEAR_SLACK.saturating_sub(least * 2).max(SLACK)
    }

    /// What of it may be spent on something else.
    fn spares(&self) -> Duration {
        if self.round_trip.is_some() { self.slack() / 5 } else { Duration::ZERO }
    }

    /// How much later than it is due ICE may look, in true time: so little that a packet that is sent again then, as the
    /// driver does not tell when that is due, is not much later for it.
    fn puts_off(&self, now: Instant) -> Duration {
        let is_fast = self.gain > 0 && now < self.fast_until;
        if is_fast { self.spares() } else { Duration::ZERO }
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

    /// The rest ran out in a turn in which SCTP was told of an acknowledgement, by the clock that rested: what SCTP waits for
    /// since then is not to be made up for.
    fn go_on_resting(&mut self, passed: Passed, now: Instant) {
        if self.rested && passed.is_acknowledged() && !self.rest.lasts(now) {
            self.reckoned = self.reckoned.max(now);
        }
    }

    /// Something has passed, in a turn that is reckoned.
    fn rest(&mut self, passed: Passed, now: Instant) {
        let way = self.round_trip.unwrap_or(RTO_MIN) * 5 / 4;
        let renews = self.rest.passes(passed, way, now);
        // SCTP measures round trips by this clock. If they were more than 0.4 s when it runs, the change would make SCTP wait for
        // more than its second (RFC 9260 section 6.3.1).
        let is_near = way * 2 <= self.answer_time();
        let is_calm = self.calm >= RESUMED && !self.backlog && !self.rest.has_lost(now);
        if self.remote != Some(Remote::Member) || self.gain == 0 || !is_near || !is_calm {
            return self.end_rest(now);
        }
        if renews {
            self.reckoned = now;
        }
        if renews || self.rest.lasts(now) {
            self.rest.lasts_for(self.reckoned, self.answer_time() * 3 / 4, self.spares());
        }
    }

    /// Makes up for what it would have gained, if it rests.
    fn end_rest(&mut self, now: Instant) {
        if self.rest.lasts(now) {
            self.rest.end(now);
            self.change(now, |_| {});
        }
    }

    /// How much is gained from the last reckoning on.
    fn gained_by(&self, now: Instant) -> Duration {
        if self.rest.lasts(now) {
            return Duration::ZERO;
        }
        let until = now.min(self.fast_until);
        let patient = until.min(self.patient_until).saturating_duration_since(self.reckoned);
        let fast = until.saturating_duration_since(self.reckoned.max(self.patient_until));
        gained_in(patient, self.patient_gain) + gained_in(fast, self.gain)
    }

    /// What it gains then.
    fn gain_at(&self, now: Instant) -> u64 {
        match (now < self.fast_until, now < self.patient_until) {
            (false, _) => 0,
            (true, true) => self.patient_gain,
            (true, false) => self.gain,
        }
    }

    /// Something changes by which it goes.
    fn change(&mut self, now: Instant, change: impl FnOnce(&mut State)) {
        if !self.rest.lasts(now) {
            let gained = self.gained_by(now);
            self.ahead += gained;
            self.gained += gained;
            self.reckoned = self.reckoned.max(now);
        }
        change(self);
        let gain = |rate: f64| ((rate - 1.0) * UNIT as f64) as u64;
        (self.gain, self.patient_gain) = (gain(self.rate(1)), gain(self.rate(PATIENCE)));
        // Not what is to be made up for.
        self.patient_until = if self.backlog { self.answers_until } else { self.reckoned };
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
        let lasts = |budget: Duration| {
            let budget = budget.saturating_sub(self.gained);
            Duration::from_nanos(budget.as_nanos() as u64 * UNIT / self.gain)
        };
        let lasts = match budget {
            BUDGET_ANSWERED => {
                lasts(BUDGET).max(lasts(budget).min(left(Some(self.answers_until), JUST_HEARD)))
            }
            budget => lasts(budget),
        };
        left(self.traffic, TRAFFIC).max(owing).min(lasts)
    }

    /// How long it takes the clock to go on by so much.
    fn true_time_of(&self, mut duration: Duration, now: Instant) -> Duration {
        let rest = self.rest.left(now);
        if duration <= rest {
            return duration + Duration::from_nanos(1);
        }
        let mut time = rest;
        let mut from = now + rest;
        if !rest.is_zero() {
            duration = duration.saturating_sub(rest + self.gained_by(from));
        }
        for (gain, until) in
            [(self.patient_gain, self.patient_until.min(self.fast_until)), (self.gain, self.fast_until)]
        {
            let lasts = until.saturating_duration_since(from);
            let nanos = duration.as_nanos().min(u128::from(u64::MAX / UNIT)) as u64 * UNIT / (UNIT + gain);
            let all = Duration::from_nanos(nanos);
            if all <= lasts {
                duration = Duration::ZERO;
                time += all;
                break;
            }
            duration = duration.saturating_sub(lasts + gained_in(lasts, gain));
            time += lasts;
            from += lasts;
        }
        // Never too early by the last digit.
        time + duration + Duration::from_nanos(1)
    }
}

fn gained_in(time: Duration, gain: u64) -> Duration {
    Duration::from_nanos((time.as_nanos() as u64).saturating_mul(gain) / UNIT)
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
