//! An acknowledgement that waits a little leaves with the next packet.
//!
//! SCTP acknowledges every second packet at once, in a datagram of its own. In a game that sends to everybody sixty times
//! in a second that is a third of all datagrams, and for each the other side is woken and takes a turn. So such an
//! acknowledgement waits for the next packet that goes the same way, and both leave in one call, and mostly arrive in one
//! (UDP GSO and GRO).
//!
//! It holds up nobody. It waits for a fifth of what [the clock](super::clock) adds to a round trip, 20 ms on a near path
//! and 4 ms on a far one, and only if what it acknowledges is [so little](MAX_BYTES) that the remote may still send; what
//! tells of a loss is longer, and leaves at once. If no packet came along, it leaves alone, and for a while none waits so.
//! Otherwise it waits until the peer's task, which runs the driver, [has nothing more to do](Rider::take_waiting): who is busy finds
//! packets to send and to receive in the same turn.
//!
//! An acknowledgement is told by its length, and that depends on the cipher. So this is for members of this crate among
//! themselves, who agree on AES-GCM.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::outlet::Outlet;

/// How long a datagram is that acknowledges, and tells of no gap: SCTP's header (12 bytes) and a SACK chunk (16; RFC 9260
/// section 3.3.4), in a record of DTLS 1.2 with AES-GCM (13 + 8 + 16). Hardly anything else is as long: a FORWARD-TSN of two
/// streams, and the answer to the closing of a channel. Those may wait as well, and are repeated should another take their
/// place; members send a FORWARD-TSN of one stream at the most.
pub(super) const ACKNOWLEDGEMENT: usize = 65;

/// How much may have come that is not acknowledged: half of the least window, which is one full datagram (RFC 9260 section
/// 7.2.3), so that there is room for another packet like that.
const MAX_BYTES: usize = 600;

/// The same for the end of the turn: as much again for each packet of a few that have come while the task had to wait, but so
/// little that what comes in bulk is acknowledged as it comes.
const MAX_WAITING_BYTES: usize = 4 * MAX_BYTES;

/// After one that left alone.
const PAUSE: Duration = Duration::from_millis(500);

/// What waits, and whether it may; in the order in which it is looked at.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Rider {
    /// Something waits.
    holds: AtomicBool,
    /// Somebody says when [nothing more](Rider::take_waiting) is to be done.
    attended: AtomicBool,
    /// How many bytes of datagrams have come since an acknowledgement was here.
    heard: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
#[repr(C)]
struct State {
    /// When a packet left last.
    sent: Option<Instant>,
    /// When one has left alone.
    alone: Option<Instant>,
    held: Option<Held>,
}

/// An acknowledgement that waits, and how it is to leave.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) datagram: [u8; ACKNOWLEDGEMENT],
    pub(super) to: SocketAddr,
    pub(super) outlet: Weak<Outlet>,
    /// `None`: the end of the turn.
    until: Option<Instant>,
}

/// What the driver is to do before it sleeps.
#[derive(Debug)]
pub(super) enum Next {
    Nothing,
    /// To wake up after so long.
    Wake(Duration),
    /// To send what has waited for long enough.
    Send(Held),
}

impl Held {
    /// Sends it, if there is room. What fails is lost, as a datagram may be; the next one acknowledges the same.
    pub(super) fn send(&self) -> Poll<()> {
        let Some(outlet) = self.outlet.upgrade() else { return Poll::Ready(()) };
        outlet.send_now(&self.datagram, self.to).map(drop)
    }
}

impl Rider {
    /// A datagram of data is here.
    pub(super) fn heard(&self, bytes: usize) {
        if bytes > ACKNOWLEDGEMENT {
            self.heard.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Somebody says so from now on, or not any more.
    pub(super) fn attend(&self, attended: bool) {
        self.attended.store(attended, Ordering::Relaxed);
    }

    /// A datagram of data is about to leave. Whether it waits: it does if it is an acknowledgement, and a packet is to be
    /// expected within `limit`, or in this turn. A newer one takes the place of one that waits, as it acknowledges all of that.
    pub(super) fn takes(
        &self,
        datagram: &[u8],
        to: SocketAddr,
        outlet: &Arc<Outlet>,
        limit: impl FnOnce() -> Duration,
        now: Instant,
    ) -> bool {
        let mut state = self.state();
        let Ok(datagram) = <[u8; ACKNOWLEDGEMENT]>::try_from(datagram) else {
            state.sent = Some(now);
            return false;
        };
        let limit = limit();
        let within = |since: Option<Instant>, time| {
            since.is_some_and(|since| now.saturating_duration_since(since) < time)
        };
        let heard = self.heard.load(Ordering::Relaxed);
        let is_expected = within(state.sent, limit) && !within(state.alone, PAUSE);
        let until = (heard <= MAX_BYTES && state.held.is_none() && is_expected).then_some(now + limit);
        let waits_for_turn =
            heard <= MAX_WAITING_BYTES && !limit.is_zero() && self.attended.load(Ordering::Relaxed);
        let waits = until.is_some() || waits_for_turn;
        if waits {
            state.held = Some(Held { datagram, to, outlet: Arc::downgrade(outlet), until });
            self.holds.store(true, Ordering::Release);
        }
        waits
    }

    /// A datagram of so many bytes has left.
    pub(super) fn sent(&self, bytes: usize) {
        if bytes == ACKNOWLEDGEMENT {
            self.heard.store(0, Ordering::Relaxed);
        }
    }

    /// What waits and goes the same way.
    pub(super) fn held(&self, to: SocketAddr, outlet: &Arc<Outlet>) -> Option<[u8; ACKNOWLEDGEMENT]> {
        if !self.holds.load(Ordering::Acquire) {
            return None;
        }
        let is_same = |held: &&Held| held.to == to && std::ptr::eq(held.outlet.as_ptr(), Arc::as_ptr(outlet));
        self.state().held.as_ref().filter(is_same).map(|held| held.datagram)
    }

    /// It has left with a packet.
    pub(super) fn left(&self) {
        self.state().held = None;
        self.is_gone();
    }

    /// What the driver, which is about to sleep, is to do for it. It `hurries` if nothing is to be lost.
    pub(super) fn next(&self, now: Instant, hurries: bool) -> Next {
        if !self.holds.load(Ordering::Acquire) {
            return Next::Nothing;
        }
        let mut state = self.state();
        match state.held.take() {
            Some(held) if hurries || held.until.is_some_and(|until| until <= now) => {
                state.alone = Some(now);
                self.is_gone();
                Next::Send(held)
            }
            Some(held) => {
                let wake = |until: Instant| Next::Wake(until.saturating_duration_since(now));
                let next = held.until.map_or(Next::Nothing, wake);
                state.held = Some(held);
                next
            }
            None => Next::Nothing,
        }
    }

    /// Nothing more is to be done in this turn: what has waited for a packet of it is to leave alone.
    pub(super) fn take_waiting(&self) -> Option<Held> {
        if !self.holds.load(Ordering::Acquire) {
            return None;
        }
        let held = self.state().held.take_if(|held| held.until.is_none())?;
        self.is_gone();
        Some(held)
    }

    /// There was no room for it.
    pub(super) fn put_back(&self, held: Held) {
        self.state().held.get_or_insert(held);
        self.holds.store(true, Ordering::Release);
    }

    fn is_gone(&self) {
        self.holds.store(false, Ordering::Release);
        self.heard.store(0, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicU16;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const S: fn(u64) -> Duration = Duration::from_secs;
    const LIMIT: Duration = Duration::from_millis(20);

    /// A rider, the outlet and the destination of its datagrams, and the time.
    struct Way {
        rider: Rider,
        outlet: Arc<Outlet>,
        to: SocketAddr,
        now: Instant,
    }

    impl Way {
        fn new() -> Way {
            static PORT: AtomicU16 = AtomicU16::new(1);
            let port = PORT.fetch_add(1, Ordering::Relaxed);
            Way {
                rider: Rider::default(),
                outlet: Arc::new(Outlet::without_room()),
                to: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                now: Instant::now(),
            }
        }

        /// One that has sent a packet 5 ms ago, and received two.
        fn game() -> Way {
            let mut way = Way::new();
            assert!(!way.takes(250));
            way.now += MS(5);
            way.rider.heard(250);
            way.rider.heard(250);
            way
        }

        /// Whether a datagram of so many bytes waits.
        fn takes(&self, bytes: usize) -> bool {
            let takes = self.would_take(bytes);
            if !takes {
                self.rider.sent(bytes);
            }
            takes
        }

        /// The same, but that there is no room for it.
        fn would_take(&self, bytes: usize) -> bool {
            self.rider.takes(&vec![7; bytes], self.to, &self.outlet, || LIMIT, self.now)
        }

        fn holds(&self) -> bool {
            self.rider.held(self.to, &self.outlet).is_some()
        }
    }

    #[test]
    fn an_acknowledgement_waits_for_the_next_packet_the_same_way() {
        let way = Way::game();
        assert!(way.takes(ACKNOWLEDGEMENT));
        assert_eq!(way.rider.held(way.to, &way.outlet), Some([7; ACKNOWLEDGEMENT]));
        let other = Way::new();
        assert!(way.rider.held(other.to, &way.outlet).is_none(), "another destination");
        assert!(way.rider.held(way.to, &other.outlet).is_none(), "another socket");
        assert!(
            matches!(way.rider.next(way.now + MS(5), false), Next::Wake(after) if after == LIMIT - MS(5))
        );
        way.rider.left();
        assert!(!way.holds());
        assert!(matches!(way.rider.next(way.now + LIMIT, false), Next::Nothing));
        way.rider.heard(250);
        assert!(way.takes(ACKNOWLEDGEMENT));
        assert!(matches!(way.rider.next(way.now, true), Next::Send(_)));
    }

    #[test]
    fn what_no_packet_took_along_leaves_alone_and_for_a_while_none_waits() {
        let mut way = Way::game();
        assert!(way.takes(ACKNOWLEDGEMENT));
        way.now += LIMIT;
        let Next::Send(held) = way.rider.next(way.now, false) else { panic!("it is due") };
        assert_eq!((held.datagram, held.to), ([7; ACKNOWLEDGEMENT], way.to));
        assert!(held.outlet.upgrade().is_some_and(|outlet| Arc::ptr_eq(&outlet, &way.outlet)));
        assert!(!way.holds());
        let after = |way: &mut Way, time| {
            way.now += time;
            assert!(!way.takes(250));
            way.takes(ACKNOWLEDGEMENT)
        };
        assert!(!after(&mut way, MS(10)));
        assert!(after(&mut way, PAUSE));
    }

    #[test]
    fn in_a_turn_that_is_ended_it_waits_for_the_end_and_the_newer_one_is_enough() {
        let way = Way::new();
        way.rider.attend(true);
        way.rider.heard(MAX_BYTES + 1);
        assert!(way.would_take(ACKNOWLEDGEMENT), "much has come, and no packet was sent");
        assert!(matches!(way.rider.next(way.now + S(1), false), Next::Nothing), "the turn goes on");
        assert!(way.rider.takes(&[8; ACKNOWLEDGEMENT], way.to, &way.outlet, || LIMIT, way.now));
        assert_eq!(way.rider.take_waiting().map(|held| held.datagram), Some([8; ACKNOWLEDGEMENT]));
        assert!(way.rider.take_waiting().is_none() && !way.holds());
        // There was no room.
        assert!(way.would_take(ACKNOWLEDGEMENT));
        way.rider.put_back(way.rider.take_waiting().unwrap());
        assert!(way.holds() && way.rider.take_waiting().is_some());
        // One that left with a packet.
        assert!(way.would_take(ACKNOWLEDGEMENT));
        way.rider.left();
        assert!(way.rider.take_waiting().is_none());
        // What is not to be lost.
        assert!(way.would_take(ACKNOWLEDGEMENT));
        assert!(matches!(way.rider.next(way.now, true), Next::Send(_)));
        // One that may wait for longer does.
        let way = Way::game();
        way.rider.attend(true);
        assert!(way.takes(ACKNOWLEDGEMENT));
        assert!(way.rider.take_waiting().is_none() && way.holds());
        // What comes in bulk is acknowledged as it comes; and nothing waits where nobody ends the turn.
        let way = Way::new();
        way.rider.attend(true);
        way.rider.heard(MAX_WAITING_BYTES + 1);
        assert!(!way.takes(ACKNOWLEDGEMENT));
        way.rider.attend(false);
        assert!(!way.takes(ACKNOWLEDGEMENT));
    }

    #[test]
    fn nothing_waits_that_may_hold_up_the_remote_or_for_a_packet_that_is_not_to_be_expected() {
        assert!(!Way::new().takes(ACKNOWLEDGEMENT), "nothing was sent");
        let mut way = Way::game();
        way.now += LIMIT;
        assert!(!way.takes(ACKNOWLEDGEMENT), "for a while");
        let way = Way::game();
        way.rider.heard(MAX_BYTES);
        assert!(!way.would_take(ACKNOWLEDGEMENT), "its window may be full");
        assert!(!way.takes(ACKNOWLEDGEMENT), "it was not acknowledged");
        assert!(way.takes(ACKNOWLEDGEMENT), "that was acknowledged");
        assert!(!way.takes(ACKNOWLEDGEMENT), "there is one");
        let way = Way::game();
        for bytes in [ACKNOWLEDGEMENT - 1, ACKNOWLEDGEMENT + 1, ACKNOWLEDGEMENT + 8] {
            assert!(!way.takes(bytes), "a gap, or a packet");
        }
        let steady = || Duration::ZERO;
        assert!(!way.rider.takes(&[7; ACKNOWLEDGEMENT], way.to, &way.outlet, steady, way.now));
    }
}
