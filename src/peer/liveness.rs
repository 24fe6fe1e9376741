//! Whether a connected remote is alive: by ICE consent and the control channel, never by data.
//!
//! A connection is `Disconnected` when nothing was *heard* for 3 s. A remote that does not hear us, but
//! whom we hear, goes on asking, so it counts as heard; only that it answers nothing tells (RFC 7675). That alone is weak
//! evidence at high loss, one request in a second; so the control channel, where loss is repaired, has to be silent too.

use tokio::time::{Duration, Instant};

/// What is known of a remote's answers.
#[derive(Debug)]
pub(super) struct Liveness {
    answers: u64,
    answered: Instant,
    /// When it is looked next.
    pub(super) look: Instant,
    /// ICE was restarted by the remote, and has until then to find a way.
    pub(super) restart_until: Option<Instant>,
}

/// How long our requests may be without an answer: at 20 % loss, 5 in a row are once in 160 times.
const UNANSWERED: Duration = Duration::from_secs(5);
/// And how long a probe on the control channel, if the remote has one: three sendings.
const UNECHOED: Duration = Duration::from_secs(3);
/// Without a control channel, loss alone must not make it.
const UNANSWERED_BY_STRANGERS: Duration = Duration::from_secs(8);

/// After so long without an answer the remote is asked on the control channel, too.
const DOUBTFUL: Duration = Duration::from_millis(1500);

/// How often it is looked; and while the remote gives no sign.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_FOR_A_SIGN: Duration = Duration::from_millis(250);

/// How long a restart by the remote may take: as long as silence is borne otherwise.
const RESTART_LIMIT: Duration = Duration::from_secs(4);

impl Liveness {
    pub(super) fn new(now: Instant) -> Liveness {
        Liveness { answers: 0, answered: now, look: now + LOOK, restart_until: None }
    }

    /// So many of our requests were answered so far.
    pub(super) fn note(&mut self, answers: u64, now: Instant) {
        if answers != self.answers {
            self.answers = answers;
            self.answered = now;
        }
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether there were answers since there were so many.
    pub(super) fn has_answered_since(&self, answers: u64) -> bool {
        self.answers != answers
    }

    /// `doubtful` is whether the remote gives no sign.
    pub(super) fn look_again(&mut self, doubtful: bool, now: Instant) {
        self.look = now + if doubtful { LOOK_FOR_A_SIGN } else { LOOK };
    }

    /// Whether answers are missing.
    pub(super) fn is_doubtful(&self, now: Instant) -> bool {
        now - self.answered >= DOUBTFUL
    }

    /// Whether the remote gives no sign; `probe` is when the unanswered probe was sent, `control` whether there are any.
    pub(super) fn is_silent(&self, probe: Option<Instant>, control: bool, now: Instant) -> bool {
        let unanswered = now - self.answered;
        if self.restart_until.is_some_and(|until| until <= now) {
            return true;
        }
        if control {
            unanswered >= UNANSWERED && probe.is_some_and(|sent| now - sent >= UNECHOED)
        } else {
            unanswered >= UNANSWERED_BY_STRANGERS
        }
    }

    /// All that is known begins now.
    pub(super) fn restart(&mut self, now: Instant) {
        self.answered = now;
        self.restart_until = None;
        self.look_again(false, now);
    }

    pub(super) fn restart_begins(&mut self, now: Instant) {
        self.restart_until.get_or_insert(now + RESTART_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_remote_is_silent_when_neither_requests_nor_probes_are_answered() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.note(5, start + S(1));
        let silent = |at, probe: Option<u64>| {
            liveness.is_silent(probe.map(|probe| start + S(probe)), true, start + S(at))
        };
        assert!(!silent(5, Some(0)), "4 s without an answer");
        assert!(silent(6, Some(0)));
        assert!(!silent(6, None), "the control channel is in order");
        assert!(!silent(6, Some(4)), "the probe is under way");
        assert!(!liveness.is_silent(None, false, start + S(8)), "a stranger has more time");
        assert!(liveness.is_silent(None, false, start + S(9)));
    }

    #[test]
    fn a_restart_by_the_remote_has_its_time() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        liveness.restart_begins(start);
        liveness.restart_begins(start + S(3));
        assert!(!liveness.is_silent(None, true, start + S(3)));
        assert!(liveness.is_silent(None, true, start + S(4)), "since the first");
    }
}
