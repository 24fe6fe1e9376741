//! The wires: what becomes of a datagram on its way from one host to another.

use std::time::Duration;

use tokio::time::Instant;

use super::network::Network;
use super::trace::DropCause;
use super::{HostId, Traffic};
use crate::random::seeded::{GOLDEN, mix};

/// Some of the directed links of a network, to be changed together.
///
/// [`Network::links`] and its neighbours select them. Each method changes all of them at once and gives the selection
/// back, so that calls follow one another:
///
/// ```
/// # use std::time::Duration;
/// # use webrtc_mesh::sim::Network;
/// let network = Network::new(1);
/// network.host("alice");
/// network.host("bob");
/// network.links().latency(Duration::from_millis(40)).jitter(Duration::from_millis(10));
/// network.link("alice", "bob").loss(0.1);
/// network.between("alice", "bob").cut();
/// ```
///
/// A link begins with a latency of 20 ms, a jitter of 5 ms, and nothing else. What happens to a datagram is decided
/// when it is sent: a change does not touch what is already on its way.
#[derive(Debug, Clone)]
pub struct Links {
    pub(super) network: Network,
    pub(super) selection: Selection,
}

/// Which links. A host that comes later is in [`All`](Selection::All) only.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    All,
    From(HostId),
    To(HostId),
    Of(HostId),
    One(HostId, HostId),
    Between(HostId, HostId),
}

impl Selection {
    pub(super) fn has(&self, from: HostId, to: HostId) -> bool {
        match *self {
            Selection::All => true,
            Selection::From(host) => from == host,
            Selection::To(host) => to == host,
            Selection::Of(host) => from == host || to == host,
            Selection::One(one, other) => (from, to) == (one, other),
            Selection::Between(one, other) => (from, to) == (one, other) || (from, to) == (other, one),
        }
    }
}

impl Links {
    /// Delivers each datagram so much later. Default 20 ms.
    ///
    /// Timers tick in milliseconds: what arrives between two ticks is read at the later one.
    pub fn latency(self, one_way: Duration) -> Links {
        self.set(|shape| shape.latency = one_way)
    }

    /// Delivers each datagram up to this much later than the latency says, so neighbours may overtake one another.
    /// Default 5 ms.
    pub fn jitter(self, at_most: Duration) -> Links {
        self.set(|shape| shape.jitter = at_most)
    }

    /// Loses each datagram with this probability, whatever became of the one before. Default 0.
    ///
    /// # Panics
    ///
    /// If it is not between 0 and 1.
    pub fn loss(self, probability: f64) -> Links {
        check(probability);
        self.set(|shape| shape.loss = probability)
    }

    /// Loses this share of the datagrams in bursts of `mean` datagrams on average, as radio does (the model of Gilbert;
    /// with [`loss`](Links::loss) beside it, that of Gilbert and Elliott). Default 0.
    ///
    /// # Panics
    ///
    /// If the share is not between 0 and 1, or 1 itself, or `mean` is below 1.
    pub fn bursty_loss(self, share: f64, mean: f64) -> Links {
        check(share);
        assert!(share < 1.0 && mean >= 1.0, "a share of {share} in bursts of {mean} cannot be");
        let leave = 1.0 / mean;
        // In the long run, the share is enter / (enter + leave).
        let enter = (leave * share / (1.0 - share)).min(1.0);
        self.set(|shape| (shape.enter_burst, shape.leave_burst) = (enter, leave))
    }

    /// Delivers each datagram twice with this probability, the second after a jitter of its own. Default 0.
    ///
    /// # Panics
    ///
    /// If it is not between 0 and 1.
    pub fn duplication(self, probability: f64) -> Links {
        check(probability);
        self.set(|shape| shape.duplication = probability)
    }

    /// Holds each datagram back with this probability for `by`, so that later ones overtake it. Default 0.
    ///
    /// # Panics
    ///
    /// If it is not between 0 and 1.
    pub fn reordering(self, probability: f64, by: Duration) -> Links {
        check(probability);
        self.set(|shape| (shape.reordering, shape.held_back) = (probability, by))
    }

    /// Takes so many bytes a second, headers of IP and UDP included (28 or 48 each). What comes faster waits, and is
    /// dropped if more than `queue_bytes` with it were not sent yet; one that finds nothing waiting is always taken.
    /// Default: as fast as you like.
    ///
    /// For a time that a datagram may wait, multiply: half a second is a queue of `bytes_per_second / 2`.
    ///
    /// # Panics
    ///
    /// If `bytes_per_second` is 0.
    pub fn bandwidth(self, bytes_per_second: u64, queue_bytes: u64) -> Links {
        let pipe = Some(Bandwidth::new(bytes_per_second, queue_bytes));
        self.set(|shape| shape.bandwidth = pipe)
    }

    /// Takes the limit of [`bandwidth`](Links::bandwidth) away.
    pub fn unlimited(self) -> Links {
        self.set(|shape| shape.bandwidth = None)
    }

    /// Loses everything until [`heal`](Links::heal).
    pub fn cut(self) -> Links {
        self.set(|shape| shape.cut = true)
    }

    /// Ends a [`cut`](Links::cut) or a [`partition`](Network::partition).
    pub fn heal(self) -> Links {
        self.set(|shape| shape.cut = false)
    }

    /// What became of the datagrams so far.
    pub fn traffic(&self) -> Traffic {
        self.network.traffic_of(&self.selection)
    }

    fn set(self, change: impl Fn(&mut Shape)) -> Links {
        self.network.change(&self.selection, change);
        self
    }
}

#[track_caller]
fn check(probability: f64) {
    assert!((0.0..=1.0).contains(&probability), "{probability} is no probability");
}

/// How a link treats what is sent over it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: f64,
    enter_burst: f64,
    leave_burst: f64,
    duplication: f64,
    reordering: f64,
    held_back: Duration,
    bandwidth: Option<Bandwidth>,
    pub(super) cut: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            loss: 0.0,
            enter_burst: 0.0,
            leave_burst: 1.0,
            duplication: 0.0,
            reordering: 0.0,
            held_back: Duration::ZERO,
            bandwidth: None,
            cut: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bandwidth {
    bytes_per_second: u64,
    queue_bytes: u64,
}

impl Bandwidth {
    pub(super) fn new(bytes_per_second: u64, queue_bytes: u64) -> Bandwidth {
        assert!(bytes_per_second > 0, "a link that takes no byte a second is one that is cut");
        Bandwidth { bytes_per_second, queue_bytes }
    }
}

/// The sender's end of a wire with a bandwidth: when it has sent what it took.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    busy_until: Option<Instant>,
}

impl Pipe {
    /// When a datagram of so many bytes has left, or `None` if the queue has no room for it.
    pub(super) fn send(&mut self, bandwidth: Bandwidth, bytes: u64, now: Instant) -> Option<Instant> {
        let rate = bandwidth.bytes_per_second as f64;
        let wait = self.busy_until.map(|busy| busy.saturating_duration_since(now)).unwrap_or_default();
        let waiting_bytes = wait.as_secs_f64() * rate;
        if !wait.is_zero() && waiting_bytes + bytes as f64 > bandwidth.queue_bytes as f64 {
            return None;
        }
        let left = now + wait + Duration::from_secs_f64(bytes as f64 / rate);
        self.busy_until = Some(left);
        Some(left)
    }
}

/// One direction between two hosts.
///
/// The fate of a datagram follows from the network's seed, the names of the two hosts, and how many went before it
/// this way: so what other hosts do does not change it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) shape: Shape,
    pub(super) traffic: Traffic,
    stream: u64,
    count: u64,
    in_burst: bool,
    pipe: Pipe,
}

/// What a link decides.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// When it arrives.
    pub(super) arrival: Option<Instant>,
    /// When its double does.
    pub(super) double: Option<Instant>,
    pub(super) dropped: Option<DropCause>,
}

impl Link {
    pub(super) fn new(seed: u64, from: &str, to: &str, shape: Shape) -> Link {
        let stream = mix(seed) ^ mix(hash(from)).rotate_left(17) ^ mix(hash(to)).rotate_left(41);
        Link { shape, traffic: Traffic::default(), stream, count: 0, in_burst: false, pipe: Pipe::default() }
    }

    /// Rolls the dice for a datagram that leaves at `now`. They are rolled for every datagram, whatever `doomed` says
    /// of it, so that a hook or a cut does not shift those of all that follow.
    pub(super) fn send(&mut self, bytes: u64, now: Instant, doomed: Option<DropCause>) -> Fate {
        let mut rolls = Rolls { state: mix(self.stream.wrapping_add(self.count.wrapping_mul(GOLDEN))) };
        self.count += 1;
        let (burst, loss) = (rolls.next(), rolls.next());
        let (double, held_back) = (rolls.next(), rolls.next());
        let (jitter, double_jitter) = (rolls.next(), rolls.next());
        let shape = &self.shape;

        self.in_burst = if self.in_burst { burst >= shape.leave_burst } else { burst < shape.enter_burst };
        let dropped = doomed.or_else(|| {
            let causes = [
                (shape.cut, DropCause::Cut),
                (self.in_burst, DropCause::Burst),
                (loss < shape.loss, DropCause::Loss),
            ];
            causes.into_iter().find_map(|(is_so, cause)| is_so.then_some(cause))
        });
        if dropped.is_some() {
            return Fate { dropped, ..Fate::default() };
        }
        let left = match shape.bandwidth {
            None => Some(now),
            Some(bandwidth) => self.pipe.send(bandwidth, bytes, now),
        };
        let Some(left) = left else {
            return Fate { dropped: Some(DropCause::QueueFull), ..Fate::default() };
        };
        let late = |roll| left + shape.latency + shape.jitter.mul_f64(roll);
        let held_back = if held_back < shape.reordering { shape.held_back } else { Duration::ZERO };
        Fate {
            arrival: Some(late(jitter) + held_back),
            double: (double < shape.duplication).then(|| late(double_jitter)),
            dropped: None,
        }
    }
}

struct Rolls {
    state: u64,
}

impl Rolls {
    /// From 0 to 1, without 1.
    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(GOLDEN);
        (mix(self.state) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// FNV-1a: the same on every platform and in every release.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
