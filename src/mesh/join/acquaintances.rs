//! What is known of each remote beyond one life: [`Acquaintances`].

use std::collections::{HashMap, VecDeque};

use tokio::time::Duration;

use crate::connection::Stamp;
use crate::id::PeerId;
use crate::mesh::meeting::Fate;

/// Who is there by signalling, which of their descriptions was the newest, and how often they could not be connected.
///
/// At the most [`MAX_ACQUAINTANCES`] are known; of one more nothing is, so it is not connected anew by itself.
#[derive(Debug, Default)]
pub(super) struct Acquaintances {
    peers: HashMap<PeerId, Acquaintance>,
}

#[derive(Debug, Default)]
struct Acquaintance {
    /// Signalling says that it is there, and whether we offer.
    present: Option<bool>,
    /// It is a member of this crate; `None` while nothing was heard of it.
    among_us: Option<bool>,
    /// Lives in a row that never were connected.
    failures: u32,
    /// The newest description.
    newest: Option<Stamp>,
    /// Who made descriptions for this peer before: it has restarted since.
    former: VecDeque<u64>,
}

/// When the next life of a peer begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NextLife {
    pub(super) after: Duration,
    pub(super) we_offer: bool,
}

/// Eight times as many as a mesh has peers by default.
const MAX_ACQUAINTANCES: usize = 1024;
/// Former lives of a peer whose descriptions are recognised.
const MAX_FORMER: usize = 4;

/// How soon a lost peer is connected anew by the side that offers; twice as long after each failure, and up to half of it
/// more, so that many links do not try at the same moment.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A stranger may have given us up for good, as a Godot game does.
const MAX_PAUSE_OF_STRANGERS: Duration = Duration::from_secs(60);
/// How much later the other side offers itself, as the one that was to offer may not have noticed; and how long after a
/// stranger has closed, as it may be about to leave signalling, too.
const YIELD: Duration = Duration::from_secs(3);

impl Acquaintances {
    /// Signalling says that it is there.
    pub(super) fn joined(&mut self, peer: PeerId, we_offer: bool) {
        if let Some(known) = self.meet(peer) {
            (known.present, known.failures) = (Some(we_offer), 0);
        }
    }

    /// It is not there any more.
    pub(super) fn left(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// A description came, of this crate or not.
    pub(super) fn described(&mut self, peer: PeerId, among_us: bool) {
        if let Some(known) = self.meet(peer) {
            known.among_us = Some(among_us);
        }
    }

    /// Whether a description is older than one that has come, or of a process that is gone.
    pub(super) fn is_stale(&mut self, peer: PeerId, stamp: Stamp) -> bool {
        let Some(known) = self.meet(peer) else { return false };
        match known.newest {
            Some(newest) if newest.maker == stamp.maker => {
                known.newest = Some(if stamp.number > newest.number { stamp } else { newest });
                return stamp.number < newest.number;
            }
            Some(_) if known.former.contains(&stamp.maker) => return true,
            Some(newest) => {
                known.former.push_back(newest.maker);
                if known.former.len() > MAX_FORMER {
                    known.former.pop_front();
                }
            }
            None => {}
        }
        known.newest = Some(stamp);
        false
    }

    /// A life has ended; whether and when the next begins by itself. `random` is from 0 to 1.
    pub(super) fn ended(&mut self, peer: PeerId, fate: Fate, random: f64) -> Option<NextLife> {
        let known = self.peers.get_mut(&peer)?;
        known.failures = match fate {
            Fate::Lost => 0,
            Fate::Failed => known.failures.saturating_add(1),
            // A page that has lost us, and not we it, waits for our offer. One of ours offers then.
            Fate::Closed if known.among_us == Some(false) => 0,
            Fate::Closed | Fate::Final => return None,
        };
        let offers = known.present?;
        // Who was to offer may be a stranger, who would not know what to do with ours.
        if !offers && known.among_us != Some(true) {
            return None;
        }
        let limit = if known.among_us == Some(false) { MAX_PAUSE_OF_STRANGERS } else { MAX_PAUSE };
        let pause = (FIRST_PAUSE * 2_u32.saturating_pow(known.failures.min(16))).min(limit);
        let after = pause
            + pause.mul_f64(random / 2.0)
            + if offers && fate != Fate::Closed { Duration::ZERO } else { YIELD };
        Some(NextLife { after, we_offer: true })
    }

    fn meet(&mut self, peer: PeerId) -> Option<&mut Acquaintance> {
        if self.peers.len() >= MAX_ACQUAINTANCES && !self.peers.contains_key(&peer) {
            return None;
        }
        Some(self.peers.entry(peer).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> PeerId {
        PeerId::new(n).unwrap()
    }

    fn stamp(maker: u64, number: u64) -> Stamp {
        Stamp { maker, number }
    }

    #[test]
    fn an_older_description_is_stale_whichever_way_it_came() {
        let mut known = Acquaintances::default();
        let mut is_stale = |maker, number| known.is_stale(id(1), stamp(maker, number));
        assert!(!is_stale(1, 5));
        assert!(!is_stale(1, 5), "the same by another way");
        assert!(is_stale(1, 4));
        assert!(!is_stale(1, 6));
        assert!(!is_stale(2, 1), "it has restarted");
        assert!(is_stale(1, 7), "of its former life");
        assert!(!is_stale(2, 2));
        (3..10).for_each(|maker| assert!(!is_stale(maker, 1)));
        assert!(is_stale(8, 9) && is_stale(5, 9));
    }

    #[test]
    fn a_lost_peer_is_connected_anew_by_both_sides_one_after_the_other() {
        let mut known = Acquaintances::default();
        assert_eq!(known.ended(id(1), Fate::Lost, 0.0), None, "signalling does not know it");
        known.joined(id(1), true);
        known.joined(id(2), false);
        let next = |after| Some(NextLife { after, we_offer: true });
        assert_eq!(known.ended(id(1), Fate::Lost, 0.0), next(FIRST_PAUSE));
        assert_eq!(known.ended(id(1), Fate::Lost, 1.0), next(FIRST_PAUSE.mul_f64(1.5)));
        assert_eq!(known.ended(id(1), Fate::Final, 0.0), None);
        assert_eq!(known.ended(id(2), Fate::Lost, 0.0), None, "it may be a stranger");
        known.described(id(2), true);
        assert_eq!(known.ended(id(2), Fate::Lost, 0.0), next(FIRST_PAUSE + YIELD));
        known.left(id(1));
        assert_eq!(known.ended(id(1), Fate::Lost, 0.0), None);
    }

    #[test]
    fn a_stranger_that_has_closed_and_stays_is_offered_to_after_a_while() {
        let mut known = Acquaintances::default();
        for (offers, among_us) in [(true, true), (false, true), (false, false)] {
            known.joined(id(1), offers);
            known.described(id(1), among_us);
            assert_eq!(known.ended(id(1), Fate::Closed, 0.0), None, "{offers} {among_us}");
        }
        known.joined(id(1), true);
        let next = NextLife { after: FIRST_PAUSE + YIELD, we_offer: true };
        assert_eq!(known.ended(id(1), Fate::Closed, 0.0), Some(next));
    }

    #[test]
    fn a_peer_that_cannot_be_connected_is_tried_less_and_less_often() {
        let mut known = Acquaintances::default();
        known.joined(id(1), true);
        let mut pauses =
            |fate, times| (0..times).map(|_| known.ended(id(1), fate, 0.0).unwrap().after).last();
        assert_eq!(pauses(Fate::Failed, 1), Some(2 * FIRST_PAUSE));
        assert_eq!(pauses(Fate::Failed, 2), Some(8 * FIRST_PAUSE));
        assert_eq!(pauses(Fate::Failed, 99), Some(MAX_PAUSE));
        assert_eq!(pauses(Fate::Lost, 1), Some(FIRST_PAUSE), "it was connected");
        known.described(id(1), false);
        let last = (0..99).map(|_| known.ended(id(1), Fate::Failed, 0.0).unwrap().after).last();
        assert_eq!(last, Some(MAX_PAUSE_OF_STRANGERS));
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Acquaintances::default();
        (1..5000).for_each(|n| known.joined(id(n), true));
        assert_eq!(known.peers.len(), MAX_ACQUAINTANCES);
        assert!(!known.is_stale(id(4999), stamp(1, 2)) && !known.is_stale(id(4999), stamp(1, 1)));
    }
}
