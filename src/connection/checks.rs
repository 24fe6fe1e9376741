//! Which of ICE's checks leave ([`CheckPace`]): it sends more of them than a slow wire, or the other side, has use for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How far the connection is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Making {
    /// It is being made: the checks are thinned out to one for each destination in a twentieth of the time since its
    /// first.
    ///
    /// So there are all of them for 400 ms, two in 100 ms after a second, and two in a second after 10 s: some 20 for
    /// each doubling of the time. ICE takes a check that never left for one that was lost.
    Begun,
    /// It is up: ICE asks once in a second, by a clock that runs ahead; what comes too early stays here.
    Done,
    /// It is up, and ICE looks for another way: all leave.
    Anew,
}

#[derive(Debug, Default)]
pub(super) struct CheckPace {
    /// The first check to each destination, and the last.
    sent: HashMap<SocketAddr, (Instant, Instant)>,
    /// The last keepalive on each way.
    keepalives: HashMap<(SocketAddr, SocketAddr), Instant>,
}

const CHECKS_PER_AGE: u32 = 20;
const KEEPALIVE: Duration = Duration::from_millis(900);
/// Destinations whose checks are thinned out: more than a remote has candidates; and more than ICE keeps alive.
const MAX_DESTINATIONS: usize = 1024;
const MAX_KEEPALIVES: usize = 64;

impl CheckPace {
    pub(super) fn admits(&mut self, from: SocketAddr, to: SocketAddr, making: Making, now: Instant) -> bool {
        match making {
            Making::Begun => self.admits_check(to, now),
            Making::Done => self.admits_keepalive(from, to, now),
            Making::Anew => true,
        }
    }

    fn admits_check(&mut self, to: SocketAddr, now: Instant) -> bool {
        let full = self.sent.len() >= MAX_DESTINATIONS;
        match self.sent.get_mut(&to) {
            Some((first, last)) => {
                let pause = now.saturating_duration_since(*first) / CHECKS_PER_AGE;
                let admits = now.saturating_duration_since(*last) >= pause;
                if admits {
                    *last = now;
                }
                admits
            }
            None if full => true,
            None => {
                self.sent.insert(to, (now, now));
                true
            }
        }
    }

    fn admits_keepalive(&mut self, from: SocketAddr, to: SocketAddr, now: Instant) -> bool {
        let early = |last: &Instant| now.saturating_duration_since(*last) < KEEPALIVE;
        if self.keepalives.get(&(from, to)).is_some_and(early) {
            return false;
        }
        self.keepalives.retain(|_, last| early(last));
        if self.keepalives.len() < MAX_KEEPALIVES {
            self.keepalives.insert((from, to), now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    #[test]
    fn checks_are_thinned_out_the_more_the_longer_it_takes() {
        let (mut pace, start) = (CheckPace::default(), Instant::now());
        let mut sent = |port, from: u64, until: u64| {
            let times = (from..until).step_by(20).map(|millis| start + Duration::from_millis(millis));
            times.filter(|time| pace.admits(to(1), to(port), Making::Begun, *time)).count()
        };
        assert_eq!(sent(1, 0, 400), 20, "all of them");
        assert!((12..=20).contains(&sent(1, 400, 1000)));
        assert!((30..=50).contains(&sent(1, 1000, 8000)));
        assert_eq!(sent(2, 8000, 8400), 20, "each destination has its own time");
    }

    #[test]
    fn while_the_clock_is_ahead_ice_asks_once_a_second_all_the_same() {
        let (mut pace, start) = (CheckPace::default(), Instant::now());
        let mut admits = |port, making, millis| {
            pace.admits(to(1), to(port), making, start + Duration::from_millis(millis))
        };
        let asked = (0..10_000).step_by(70).filter(|millis| admits(2, Making::Done, *millis)).count();
        assert!((9..=11).contains(&asked), "{asked}");
        assert!(admits(3, Making::Done, 10_000), "each destination has its own");
        assert!(admits(3, Making::Anew, 10_001), "every check of a restart leaves");
    }
}
