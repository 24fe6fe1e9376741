//! When the clock need not run ahead: as long as each side acknowledges in time what the other says.
//!
//! SCTP needs its timers for what was lost, and to acknowledge a packet that none follows. While acknowledgements come that
//! tell of no gap, and ours leave, there is neither. So [the clock](super::clock) rests then: it goes as fast as time, and
//! the library, which looks after ICE five times in a second by it, does not do so fifty times. When something is not
//! acknowledged in time, what the clock would have gained meanwhile is made up for at once, so SCTP sends again as early as
//! it would have. What tells of a gap ends the rest at once, and for [a while](AFTER_LOSS) there is none; nor is there with a
//! backlog, or far from the remote.
//!
//! All that is told by the lengths of datagrams, as [the rider](super::rider) tells an acknowledgement. So this is for members
//! of this crate among themselves. A packet of up to 32 bytes is as long as an acknowledgement with gaps, and is taken for one:
//! with those the clock does not rest. What tells of more gaps is not known; then the rest ends when its time is over.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::rider::ACKNOWLEDGEMENT;

/// An acknowledgement with one to eight gaps, or packets that came twice, four bytes each (RFC 9260 section 3.3.4).
const WITH_GAPS: RangeInclusive<usize> = ACKNOWLEDGEMENT + 4..=ACKNOWLEDGEMENT + 4 * 8;

/// As long after something seemed to be lost it does not rest.
const AFTER_LOSS: Duration = Duration::from_secs(2);

/// A packet has left; an acknowledgement has.
const SENT: u8 = 1;
const ACKNOWLEDGES: u8 = 1 << 1;
/// A packet has come; an acknowledgement without gaps; what may be one with gaps.
const HEARD: u8 = 1 << 2;
const ACKNOWLEDGED: u8 = 1 << 3;
const GAPS: u8 = 1 << 4;

/// What has left and come since the driver's last turn. Only the driver, which is in one place at a time, notes and takes it.
#[derive(Debug, Default)]
pub(super) struct Passing(AtomicU8);

/// What had, when it was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed(u8);

impl Passing {
    /// A datagram of so many bytes has left.
    pub(super) fn sent(&self, bytes: usize) {
        self.note(if bytes == ACKNOWLEDGEMENT { ACKNOWLEDGES } else { SENT });
    }

    /// A datagram of so many bytes has come.
    pub(super) fn heard(&self, bytes: usize) {
        self.note(match bytes {
            ACKNOWLEDGEMENT => ACKNOWLEDGED,
            bytes if WITH_GAPS.contains(&bytes) => GAPS,
            _ => HEARD,
        });
    }

    /// Whether what has come may tell of a gap.
    pub(super) fn has_gaps(&self) -> bool {
        Passed(self.0.load(Ordering::Relaxed)).has(GAPS)
    }

    pub(super) fn take(&self) -> Passed {
        let passed = self.0.load(Ordering::Relaxed);
        self.0.store(0, Ordering::Relaxed);
        Passed(passed)
    }

    fn note(&self, what: u8) {
        self.0.store(self.0.load(Ordering::Relaxed) | what, Ordering::Relaxed);
    }
}

impl Passed {
    pub(super) fn is_any(self) -> bool {
        self.0 != 0
    }

    /// Something has come.
    pub(super) fn is_heard(self) -> bool {
        self.has(HEARD | ACKNOWLEDGED | GAPS)
    }

    /// An acknowledgement has come, and nothing that may tell of a gap.
    pub(super) fn is_acknowledged(self) -> bool {
        self.has(ACKNOWLEDGED) && !self.has(GAPS)
    }

    fn has(self, any: u8) -> bool {
        self.0 & any != 0
    }
}

/// Whether the clock rests.
#[derive(Debug)]
pub(super) struct Rest {
    until: Instant,
    /// A packet was under way when the last acknowledgement came, or has left since then.
    has_sent: bool,
    /// When a packet left last.
    sent: Option<Instant>,
    /// When a packet came that we have not acknowledged yet.
    owed: Option<Instant>,
    /// When something seemed to be lost last.
    lost: Option<Instant>,
}

impl Rest {
    pub(super) fn new(now: Instant) -> Rest {
        Rest { until: now, has_sent: false, sent: None, owed: None, lost: None }
    }

    /// How long it lasts.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    pub(super) fn lasts(&self, now: Instant) -> bool {
        now < self.until
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.until = self.until.min(now);
    }

    /// At the end of a turn in which something has passed, on a way that takes so long. Tells whether it begins, or goes on, so
    /// that nothing before now is to be made up for: SCTP begins to wait anew when something is acknowledged, and, if nothing else
    /// is under way, with the first packet that follows.
    pub(super) fn passes(&mut self, passed: Passed, way: Duration, now: Instant) -> bool {
        // An acknowledgement that leaves in a turn is of all that has come in it.
        if passed.has(ACKNOWLEDGES) {
            self.owed = None;
        } else if passed.has(HEARD) {
            self.owed.get_or_insert(now);
        }
        let sent = passed.has(SENT);
        if passed.has(GAPS) {
            self.lost = Some(now);
        }
        let first = sent && !self.has_sent && self.lasts(now);
        let is_acknowledged = passed.is_acknowledged();
        let is_under_way = self.sent.is_some_and(|sent| now.saturating_duration_since(sent) < way);
        self.has_sent = sent || if is_acknowledged { is_under_way } else { self.has_sent };
        if sent {
            self.sent = Some(now);
        }
        first || is_acknowledged
    }

    /// Something seemed to be lost, and not long ago.
    pub(super) fn has_lost(&self, now: Instant) -> bool {
        self.lost.is_some_and(|lost| now.saturating_duration_since(lost) < AFTER_LOSS)
    }

    /// It lasts until what was sent first, `since` then, is not acknowledged `within` that time, or what has come is not by us
    /// within `owed_within`.
    pub(super) fn lasts_for(&mut self, since: Instant, within: Duration, owed_within: Duration) {
        let until = since + within;
        self.until = self.owed.map_or(until, |owed| until.min(owed + owed_within));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const PACKET: usize = 200;
    const WAY: Duration = Duration::from_millis(3);
    /// What the clock asks for.
    const WITHIN: Duration = Duration::from_millis(75);
    const OWED_WITHIN: Duration = Duration::from_millis(20);

    /// A rest, the time, and since when it would be made up for.
    struct Link {
        rest: Rest,
        now: Instant,
        since: Instant,
    }

    impl Link {
        fn new() -> Link {
            let now = Instant::now();
            Link { rest: Rest::new(now), now, since: now }
        }

        /// So much later there is a turn in which that was heard, and sent. Whether it rests then.
        fn turn(&mut self, after: Duration, heard: &[usize], sent: &[usize]) -> bool {
            self.now += after;
            let passing = Passing::default();
            heard.iter().for_each(|bytes| passing.heard(*bytes));
            sent.iter().for_each(|bytes| passing.sent(*bytes));
            let renews = self.rest.passes(passing.take(), WAY, self.now);
            if renews {
                self.since = self.now;
            }
            if renews || self.rest.lasts(self.now) {
                self.rest.lasts_for(self.since, WITHIN, OWED_WITHIN);
            }
            self.rest.lasts(self.now)
        }
    }

    #[test]
    fn it_begins_with_an_acknowledgement_and_lasts_from_the_first_packet_after_it() {
        let mut link = Link::new();
        assert!(!link.turn(MS(5), &[], &[PACKET]), "nothing is acknowledged yet");
        assert!(link.turn(MS(5), &[ACKNOWLEDGEMENT], &[]));
        let acknowledged = link.now;
        assert_eq!((link.since, link.rest.left(link.now)), (acknowledged, WITHIN));
        assert!(link.turn(MS(30), &[], &[PACKET]));
        let first = link.now;
        assert_eq!((link.since, link.rest.left(link.now)), (first, WITHIN));
        assert!(link.turn(MS(30), &[], &[PACKET]));
        assert_eq!(link.since, first, "it is the first that waits longest");
        assert!(link.turn(MS(40), &[ACKNOWLEDGEMENT], &[PACKET]));
        assert!(link.turn(MS(70), &[], &[PACKET]));
        assert!(!link.turn(MS(5), &[], &[]), "that was the first");
        // One that was under way when another was acknowledged is not followed by a first one.
        assert!(link.turn(MS(50), &[ACKNOWLEDGEMENT], &[]));
        assert!(link.turn(MS(10), &[], &[PACKET]));
        assert!(link.turn(MS(2), &[ACKNOWLEDGEMENT], &[]));
        let acknowledged = link.now;
        assert!(link.turn(MS(30), &[], &[PACKET]));
        assert_eq!(link.since, acknowledged);
    }

    #[test]
    fn it_ends_when_we_owe_an_acknowledgement_for_too_long() {
        let mut link = Link::new();
        assert!(link.turn(MS(0), &[ACKNOWLEDGEMENT], &[]));
        assert!(link.turn(MS(10), &[PACKET], &[]));
        assert_eq!(link.rest.left(link.now), OWED_WITHIN);
        assert!(link.turn(MS(15), &[PACKET], &[ACKNOWLEDGEMENT]));
        assert!(link.turn(MS(30), &[], &[]), "it was acknowledged");
        assert!(link.turn(MS(1), &[PACKET, ACKNOWLEDGEMENT], &[]));
        assert!(!link.turn(OWED_WITHIN, &[], &[]));
    }

    #[test]
    fn what_may_tell_of_a_gap_is_known_and_not_forgotten_at_once() {
        let is_gap = |bytes| {
            let passing = Passing::default();
            passing.heard(bytes);
            passing.has_gaps()
        };
        assert!([69, 73, 97].into_iter().all(is_gap));
        assert!(![ACKNOWLEDGEMENT, 98, PACKET].into_iter().any(is_gap));
        let mut link = Link::new();
        link.turn(MS(0), &[69, ACKNOWLEDGEMENT], &[]);
        assert!(link.rest.owed.is_none(), "nobody waits for us to acknowledge that");
        assert!(link.rest.has_lost(link.now) && link.rest.has_lost(link.now + AFTER_LOSS - MS(1)));
        assert!(!link.rest.has_lost(link.now + AFTER_LOSS));
    }
}
