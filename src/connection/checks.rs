//! Which of ICE's checks leave ([`CheckPace`]): it sends more of them than a slow wire, or the other side, has use for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How far the connection is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Making {
    /// It is being made, or ICE looks for another way: the checks are thinned out to one for each destination in a
    /// twentieth of the time since its first.
    ///
    /// So there are all of them for 400 ms, two in 100 ms after a second, and two in a second after 10 s: some 20 for
    /// each doubling of the time. ICE takes a check that never left for one that was lost.
    Begun,
    /// It is up: ICE asks once in a second, by a clock that runs ahead; what comes too early stays here.
    Done,
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
    /// Whether one may leave now.
    pub(super) fn admits(&self, from: SocketAddr, to: SocketAddr, making: Making, now: Instant) -> bool {
        let since = |time: &Instant| now.saturating_duration_since(*time);
        match making {
            Making::Begun => {
                self.sent.get(&to).is_none_or(|(first, last)| since(last) >= since(first) / CHECKS_PER_AGE)
            }
            Making::Done => self.keepalives.get(&(from, to)).is_none_or(|last| since(last) >= KEEPALIVE),
        }
    }

    /// One has left: a socket may have had no room for what was admitted.
    pub(super) fn left(&mut self, from: SocketAddr, to: SocketAddr, making: Making, now: Instant) {
        match making {
            Making::Begun => {
                if let Some((_, last)) = self.sent.get_mut(&to) {
                    *last = now;
                } else if self.sent.len() < MAX_DESTINATIONS {
                    self.sent.insert(to, (now, now));
                }
            }
            Making::Done => {
                self.keepalives.retain(|_, last| now.saturating_duration_since(*last) < KEEPALIVE);
                if self.keepalives.len() < MAX_KEEPALIVES {
                    self.keepalives.insert((from, to), now);
                }
            }
        }
    }

    /// ICE looks for another way: each destination is new.
    pub(super) fn begin_anew(&mut self) {
        self.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    /// Whether one to there leaves, if the socket has room.
    fn leaves(pace: &mut CheckPace, to: SocketAddr, making: Making, now: Instant) -> bool {
        let from = self::to(1);
        let admits = pace.admits(from, to, making, now);
        if admits {
            pace.left(from, to, making, now);
        }
        admits
    }

    #[test]
    fn checks_are_thinned_out_the_more_the_longer_it_takes() {
        let (mut pace, start) = (CheckPace::default(), Instant::now());
        let mut sent = |port, from: u64, until: u64| {
            let times = (from..until).step_by(20).map(|millis| start + Duration::from_millis(millis));
            times.filter(|time| leaves(&mut pace, to(port), Making::Begun, *time)).count()
        };
        assert_eq!(sent(1, 0, 400), 20, "all of them");
        assert!((12..=20).contains(&sent(1, 400, 1000)));
        assert!((30..=50).contains(&sent(1, 1000, 8000)));
        assert_eq!(sent(2, 8000, 8400), 20, "each destination has its own time");
        pace.begin_anew();
        let again = start + Duration::from_secs(9);
        assert!((0..20).all(|n| leaves(
            &mut pace,
            to(1),
            Making::Begun,
            again + Duration::from_millis(n * 20)
        )));
    }

    #[test]
    fn while_the_clock_is_ahead_ice_asks_once_a_second_all_the_same() {
        let (mut pace, start) = (CheckPace::default(), Instant::now());
        let mut leaves =
            |port, millis| leaves(&mut pace, to(port), Making::Done, start + Duration::from_millis(millis));
        let asked = (0..10_000).step_by(70).filter(|millis| leaves(2, *millis)).count();
        assert!((9..=11).contains(&asked), "{asked}");
        assert!(leaves(3, 10_000), "each destination has its own");
    }

    #[test]
    fn what_the_socket_had_no_room_for_is_admitted_again() {
        let (mut pace, start) = (CheckPace::default(), Instant::now());
        for making in [Making::Begun, Making::Done] {
            assert!(leaves(&mut pace, to(2), making, start));
            let later = start + Duration::from_secs(1);
            assert!(pace.admits(to(1), to(2), making, later));
            assert!(leaves(&mut pace, to(2), making, later));
            assert!(!pace.admits(to(1), to(2), making, later + Duration::from_millis(20)));
        }
    }
}
