//! Which of the driver's sleeps ends with a look of ICE's, which is seldom needed.
//!
//! ICE looks every 200 ms whether it is time to ask the remote, and asks once in a second. By a clock that runs ten times
//! ahead that is a turn of the driver every 20 ms, a quarter of all in a game that sends 60 packets a second, and it can be
//! [put off](super::clock). The driver tells only when the first of all that it waits for is due. But ICE counts from the
//! instant of its last look, and the driver has that from its runtime, which tells it one for each turn: what is due 200 ms
//! after the turn in which the last look was due is the next. An acknowledgement is due as long after a datagram, but that came
//! in another turn.

use std::time::{Duration, Instant};

/// `DEFAULT_CHECK_INTERVAL` of `rtc-ice`.
const EVERY: Duration = Duration::from_millis(200);

/// By the connection's clock.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// What the driver was told last.
    last: Option<Instant>,
    /// When the next look is due.
    due: Option<Instant>,
}

impl Looks {
    /// The driver is told the time of its turn.
    pub(super) fn read(&mut self, time: Instant) {
        self.last = Some(time);
    }

    /// The driver sleeps for so long after it was told the time. Whether it is ICE that is due then.
    pub(super) fn is_due(&mut self, duration: Duration) -> bool {
        let Some(last) = self.last else { return false };
        let until = last + duration;
        // What was due before has been done, in this turn.
        if self.due.is_none_or(|due| due < until) {
            self.due = Some(last + EVERY);
        }
        self.due == Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// A driver, and the time by its clock.
    struct Driver {
        looks: Looks,
        now: Instant,
    }

    impl Driver {
        fn new() -> Driver {
            Driver { looks: Looks::default(), now: Instant::now() }
        }

        /// So much later it is told the time.
        fn read(&mut self, after: Duration) -> Instant {
            self.now += after + Duration::from_nanos(7);
            self.looks.read(self.now);
            self.now
        }

        /// It sleeps until then.
        fn sleeps_until(&mut self, until: Instant) -> bool {
            self.looks.is_due(until - self.now)
        }
    }

    #[test]
    fn what_is_due_after_a_look_is_the_next_look_whatever_happens_meanwhile() {
        let mut driver = Driver::new();
        for _ in 0..3 {
            let next = driver.read(MS(200)) + EVERY;
            assert!(driver.sleeps_until(next));
            for _ in 0..20 {
                // A datagram, or something to send; and it sleeps again.
                driver.read(MS(1));
                assert!(driver.sleeps_until(next));
            }
            // Something else is due before.
            driver.read(MS(1));
            assert!(!driver.sleeps_until(next - MS(10)));
            assert!(!driver.sleeps_until(next - MS(5)));
            assert!(driver.sleeps_until(next));
        }
    }

    #[test]
    fn an_acknowledgement_that_is_delayed_as_long_is_not_taken_for_a_look() {
        let mut driver = Driver::new();
        let look = driver.read(MS(200));
        assert!(driver.sleeps_until(look + EVERY));
        let came = driver.read(MS(150));
        assert!(driver.sleeps_until(look + EVERY), "the look is due before");
        let look = driver.read(MS(50));
        assert!(!driver.sleeps_until(came + EVERY));
        driver.read(MS(150));
        assert!(driver.sleeps_until(look + EVERY));
    }

    #[test]
    fn a_look_in_a_turn_of_something_else_is_found_too() {
        let mut driver = Driver::new();
        let look = driver.read(MS(200));
        assert!(driver.sleeps_until(look + EVERY));
        // An event, and ICE was due as well: it looks in that turn.
        let look = driver.read(MS(230));
        assert!(!driver.sleeps_until(look + MS(100)), "a timer of something else");
        driver.read(MS(50));
        assert!(driver.sleeps_until(look + EVERY));
    }

    #[test]
    fn nothing_is_taken_for_a_look_that_is_due_at_another_time() {
        let mut driver = Driver::new();
        assert!(!driver.looks.is_due(EVERY), "it was told nothing yet");
        for after in [1, 30, 199, 201, 1000] {
            driver.read(MS(3));
            let until = driver.now + MS(after);
            assert!(!driver.sleeps_until(until));
        }
    }
}
