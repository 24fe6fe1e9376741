//! How much in how much time: [`Bucket`], and one for each address, [`Addresses`]. Pure: the time is told.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio::time::{Duration, Instant};

/// So many per second in the long run, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    pub(super) burst: f64,
}

impl Rate {
    /// At least one in a while, so that nothing waits for ever.
    pub(super) fn new(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: f64::from(per_second.max(1)), burst: f64::from(burst.max(1)) }
    }
}

/// A bucket of tokens, full at first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { tokens: rate.burst, filled: now }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// How long it takes until there is a token.
    pub(super) fn wait(&mut self, rate: Rate, now: Instant) -> Duration {
        self.fill(rate, now);
        let missing = (1.0 - self.tokens).max(0.0);
        Duration::try_from_secs_f64(missing / rate.per_second).unwrap_or(Duration::ZERO)
    }

    /// Takes so many, there or not; until they are there, it is to be waited so long.
    pub(super) fn spend(&mut self, rate: Rate, tokens: usize, now: Instant) -> Duration {
        self.fill(rate, now);
        self.tokens -= tokens as f64;
        let missing = (-self.tokens).max(0.0);
        Duration::try_from_secs_f64(missing / rate.per_second).unwrap_or(Duration::ZERO)
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.filled = now;
    }

    fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.tokens >= rate.burst
    }
}

/// Addresses that are remembered at once, about 4 MiB. A bucket that is full again is as good as none and is
/// forgotten first; beyond that, all strangers share one.
const MAX_ADDRESSES: usize = 65_536;

/// A bucket for each IPv4 address, and for each /64 of IPv6, which is what one household has.
#[derive(Debug)]
pub(super) struct Addresses {
    rate: Rate,
    max: usize,
    buckets: HashMap<IpAddr, Bucket>,
    strangers: Bucket,
    /// No bucket is looked at more than once in this time to make room, so that a full table costs little.
    swept: Option<Instant>,
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl Addresses {
    pub(super) fn new(rate: Rate, now: Instant) -> Addresses {
        Addresses {
            rate,
            max: MAX_ADDRESSES,
            buckets: HashMap::new(),
            strangers: Bucket::new(rate, now),
            swept: None,
        }
    }

    /// Whether one more may come from there.
    pub(super) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let rate = self.rate;
        let address = household(address);
        if let Some(bucket) = self.buckets.get_mut(&address) {
            return bucket.take(rate, now);
        }
        let recently = |swept: Instant| now.saturating_duration_since(swept) < SWEEP_EVERY;
        if self.buckets.len() >= self.max && !self.swept.is_some_and(recently) {
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
            self.swept = Some(now);
        }
        if self.buckets.len() >= self.max {
            return self.strangers.take(rate, now);
        }
        self.buckets.entry(address).or_insert_with(|| Bucket::new(rate, now)).take(rate, now)
    }
}

/// What one household has: an IPv4 address, or a /64 of IPv6.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_so_many_per_second() {
        let (rate, start) = (Rate::new(10, 3), Instant::now());
        let mut bucket = Bucket::new(rate, start);
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(rate, now)).count();
        assert_eq!(taken(&mut bucket, start), 3);
        assert!(bucket.wait(rate, start) <= Duration::from_millis(101));
        assert_eq!(taken(&mut bucket, start + Duration::from_millis(250)), 2);
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(60)), 3);
    }

    #[test]
    fn what_is_spent_beyond_the_burst_is_waited_for() {
        let (rate, start) = (Rate::new(1_000, 4_000), Instant::now());
        let mut bucket = Bucket::new(rate, start);
        assert_eq!(bucket.spend(rate, 4_000, start), Duration::ZERO);
        assert_eq!(bucket.spend(rate, 500, start), Duration::from_millis(500));
        assert_eq!(bucket.spend(rate, 0, start + Duration::from_millis(500)), Duration::ZERO);
        assert_eq!(bucket.spend(rate, 5_000, start + Duration::from_secs(60)), Duration::from_secs(1));
    }

    #[test]
    fn a_household_has_one_bucket_and_another_its_own() {
        let start = Instant::now();
        let mut addresses = Addresses::new(Rate::new(1, 1), start);
        let mut take = |address: &str| addresses.take(address.parse().unwrap(), start);
        assert!(take("2001:db8:1:2::1"));
        assert!(!take("2001:db8:1:2:ffff::9"));
        assert!(take("2001:db8:1:3::1"));
        assert!(take("192.0.2.1"));
        assert!(!take("::ffff:192.0.2.1"));
        assert!(take("192.0.2.2"));
    }

    #[test]
    fn the_table_is_bounded_and_strangers_share_what_is_left() {
        let start = Instant::now();
        let mut addresses = Addresses::new(Rate::new(1, 2), start);
        addresses.max = 100;
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let taken = (0..1_000).filter(|number| addresses.take(address(*number), start)).count();
        assert_eq!((taken, addresses.buckets.len()), (102, 100));
        // Those who have been quiet for a while make room.
        assert!(addresses.take(address(5_000), start + Duration::from_secs(2)));
        assert_eq!(addresses.buckets.len(), 1);
    }
}
