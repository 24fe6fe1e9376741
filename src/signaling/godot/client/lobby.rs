//! Who is in the lobby, by what the server says: plain decisions, no socket.

use std::collections::{BTreeSet, VecDeque};

use super::{Generation, Message, RelayKind, Signal, SignalingEvent};
use crate::connection::is_too_large;
use crate::id::PeerId;

/// The lobby, as we know it.
#[derive(Debug)]
pub(super) struct Lobby {
    pub(super) name: String,
    pub(super) mesh: bool,
    pub(super) sealed: bool,
    generation: Generation,
    us: PeerId,
    /// Who was reported, and has not left.
    peers: BTreeSet<PeerId>,
    /// Who was there, and is not now.
    absent: BTreeSet<PeerId>,
    /// The server gives an id to no other than who had it, so whoever comes back under it lives still. After a restart
    /// of the server all come back, one after the other.
    gives_back: bool,
    /// Signals of peers that the server has not announced yet.
    early: VecDeque<(PeerId, Signal)>,
}

/// A description and its candidates of a few peers. Servers announce a peer before they hand on what it sends, so this
/// is for odd ones; what is over it is dropped, the oldest first.
const MAX_EARLY: usize = 64;

/// Peers that are known at once: far more than a mesh takes. Those over it are ignored.
const MAX_PEERS: usize = 4096;

impl Lobby {
    pub(super) fn new(
        generation: Generation,
        us: PeerId,
        mesh: bool,
        name: String,
        gives_back: bool,
    ) -> Lobby {
        let (peers, absent, early) = Default::default();
        Lobby { name, mesh, sealed: false, generation, us, peers, absent, gives_back, early }
    }

    pub(super) fn has(&self, peer: PeerId) -> bool {
        self.peers.contains(&peer)
    }

    /// We have entered the lobby, at first or again, and these are there. Those that we know already are not there
    /// anew; but while we were away, either side may have given up the other.
    pub(super) fn meet(&mut self, there: &[u32], events: &mut VecDeque<SignalingEvent>) {
        let there: BTreeSet<PeerId> = there.iter().filter_map(|id| self.link_to(*id)).collect();
        let (still, gone): (Vec<PeerId>, Vec<PeerId>) =
            self.peers.iter().copied().partition(|peer| there.contains(peer));
        gone.into_iter().for_each(|peer| self.goes(peer, events));
        for peer in still {
            let we_offer = self.generation.offers(self.us, peer);
            events.push_back(SignalingEvent::PeerReturned { peer, we_offer });
        }
        there.into_iter().for_each(|peer| self.comes(peer, events));
    }

    /// What the server says once we are in.
    pub(super) fn take(&mut self, message: Message, events: &mut VecDeque<SignalingEvent>) {
        match message {
            Message::PeerConnect(id) => {
                if let Some(peer) = self.link_to(id) {
                    self.comes(peer, events);
                }
            }
            Message::PeerDisconnect(id) => {
                if let Some(peer) = self.link_to(id) {
                    self.goes(peer, events);
                }
            }
            Message::Relay { peer, kind, payload } => self.relayed(peer, kind, payload, events),
            Message::Seal if !self.sealed => {
                self.sealed = true;
                events.push_back(SignalingEvent::Sealed);
            }
            Message::Seal | Message::Join { .. } | Message::Id { .. } => {}
        }
    }

    fn relayed(
        &mut self,
        from: u32,
        kind: RelayKind,
        payload: String,
        events: &mut VecDeque<SignalingEvent>,
    ) {
        let Some(from) = self.link_to(from) else { return };
        match kind.signal(payload) {
            Ok(signal) if is_too_large(&signal) => {
                tracing::debug!(peer = %from, "a signal that is too large is ignored");
            }
            Ok(signal) if self.has(from) => events.push_back(SignalingEvent::Signal { from, signal }),
            Ok(signal) => {
                if self.early.len() == MAX_EARLY {
                    tracing::debug!("over {MAX_EARLY} signals of peers that nobody has announced");
                    self.early.pop_front();
                }
                self.early.push_back((from, signal));
            }
            Err(error) => tracing::debug!(peer = %from, %error, "a signal is ignored"),
        }
    }

    fn comes(&mut self, peer: PeerId, events: &mut VecDeque<SignalingEvent>) {
        if self.peers.len() >= MAX_PEERS {
            tracing::debug!(%peer, "over {MAX_PEERS} peers are in the lobby; one is ignored");
            return;
        }
        if !self.peers.insert(peer) {
            return;
        }
        let we_offer = self.generation.offers(self.us, peer);
        events.push_back(match self.absent.remove(&peer) && self.gives_back {
            true => SignalingEvent::PeerReturned { peer, we_offer },
            false => SignalingEvent::PeerJoined { peer, we_offer },
        });
        for (from, signal) in std::mem::take(&mut self.early) {
            match from == peer {
                true => events.push_back(SignalingEvent::Signal { from, signal }),
                false => self.early.push_back((from, signal)),
            }
        }
    }

    fn goes(&mut self, peer: PeerId, events: &mut VecDeque<SignalingEvent>) {
        self.early.retain(|(from, _)| *from != peer);
        if self.peers.remove(&peer) {
            if self.absent.len() >= MAX_PEERS {
                self.absent.pop_first();
            }
            self.absent.insert(peer);
            events.push_back(SignalingEvent::PeerLeft(peer));
        }
    }

    /// The peer, if we are to have a link to it. Where clients connect to the host alone, the servers announce everyone
    /// to everyone nevertheless; and some give out ids that are none.
    fn link_to(&self, id: u32) -> Option<PeerId> {
        let peer = PeerId::new(id).ok().filter(|peer| *peer != self.us);
        if peer.is_none() {
            tracing::debug!(id, "the server speaks of a peer that cannot be");
        }
        peer.filter(|peer| self.mesh || self.us.is_server() || peer.is_server())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connection::{SdpKind, SessionDescription};

    fn id(n: u32) -> PeerId {
        PeerId::new(n).unwrap()
    }

    fn lobby(us: u32, mesh: bool) -> Lobby {
        Lobby::new(Generation::Godot4, id(us), mesh, "lobby".to_owned(), false)
    }

    fn told(lobby: &mut Lobby, messages: impl IntoIterator<Item = Message>) -> Vec<SignalingEvent> {
        let mut events = VecDeque::new();
        messages.into_iter().for_each(|message| lobby.take(message, &mut events));
        events.into()
    }

    fn joined(peer: u32, we_offer: bool) -> SignalingEvent {
        SignalingEvent::PeerJoined { peer: id(peer), we_offer }
    }

    fn offer(peer: u32) -> Message {
        Message::Relay { peer, kind: RelayKind::Offer, payload: "sdp".to_owned() }
    }

    fn offered(peer: u32) -> SignalingEvent {
        let description = SessionDescription { kind: SdpKind::Offer, sdp: "sdp".to_owned() };
        SignalingEvent::Signal { from: id(peer), signal: Signal::Description(description) }
    }

    #[test]
    fn the_generation_says_who_offers() {
        for (generation, to_higher) in [(Generation::Godot3, true), (Generation::Godot4, false)] {
            let mut lobby = Lobby::new(generation, id(5), true, String::new(), false);
            let events = told(&mut lobby, [Message::PeerConnect(9), Message::PeerConnect(1)]);
            assert_eq!(events, [joined(9, to_higher), joined(1, !to_higher)]);
        }
    }

    #[test]
    fn a_signal_that_comes_before_its_peer_waits_for_it() {
        let mut lobby = lobby(5, true);
        assert_eq!(told(&mut lobby, [offer(9), offer(8)]), []);
        assert_eq!(told(&mut lobby, [Message::PeerConnect(9)]), [joined(9, false), offered(9)]);
        assert_eq!(
            told(&mut lobby, [Message::PeerDisconnect(8), Message::PeerConnect(8)]),
            [joined(8, false)]
        );
        told(&mut lobby, (0..1000).map(|_| offer(7)));
        assert_eq!(told(&mut lobby, [Message::PeerConnect(7)]).len(), 1 + MAX_EARLY);
    }

    #[test]
    fn a_client_has_no_link_to_another_client() {
        let mut client = lobby(5, false);
        let all = [Message::PeerConnect(9), Message::PeerConnect(1), offer(9), Message::PeerDisconnect(9)];
        assert_eq!(told(&mut client, all.clone()), [joined(1, true)]);
        assert!(!client.has(id(9)));
        let mut host = lobby(1, false);
        assert_eq!(told(&mut host, all), [joined(9, false), offered(9), SignalingEvent::PeerLeft(id(9))]);
    }

    #[test]
    fn who_is_there_still_is_not_there_anew() {
        let mut lobby = lobby(5, true);
        told(&mut lobby, [Message::PeerConnect(1), Message::PeerConnect(2)]);
        let mut events = VecDeque::new();
        lobby.meet(&[2, 3], &mut events);
        let returned = SignalingEvent::PeerReturned { peer: id(2), we_offer: true };
        assert_eq!(Vec::from(events), [SignalingEvent::PeerLeft(id(1)), returned, joined(3, true)]);
    }

    #[test]
    fn who_comes_back_under_its_id_lives_still_if_the_server_gives_ids_back() {
        for gives_back in [false, true] {
            let mut lobby = Lobby::new(Generation::Godot4, id(5), true, String::new(), gives_back);
            let (peer, we_offer) = (id(1), true);
            let back = match gives_back {
                true => SignalingEvent::PeerReturned { peer, we_offer },
                false => SignalingEvent::PeerJoined { peer, we_offer },
            };
            let said = [Message::PeerConnect(1), Message::PeerDisconnect(1), Message::PeerConnect(1)];
            assert_eq!(told(&mut lobby, said), [joined(1, true), SignalingEvent::PeerLeft(peer), back]);
        }
    }

    #[test]
    fn a_server_that_names_peers_without_end_is_bounded() {
        let mut lobby = lobby(1, true);
        assert_eq!(told(&mut lobby, (2..100_000).map(Message::PeerConnect)).len(), MAX_PEERS);
    }

    #[test]
    fn ids_that_are_none_are_ignored_and_so_is_our_own() {
        let mut lobby = lobby(5, true);
        let odd = [0, 5, 1 << 31, u32::MAX];
        assert_eq!(told(&mut lobby, odd.map(Message::PeerConnect)), []);
        assert_eq!(told(&mut lobby, odd.map(offer)), []);
    }

    proptest! {
        #[test]
        fn whatever_the_server_says_peers_come_and_go_in_turn(
            gives_back in any::<bool>(),
            said in proptest::collection::vec((0_u32..8, 0_u32..8, proptest::collection::vec(0_u32..8, 0..8)), 0..100),
        ) {
            let mut lobby = Lobby::new(Generation::Godot4, id(4), true, String::new(), gives_back);
            let mut events = VecDeque::new();
            let mut met = BTreeSet::new();
            for (what, peer, others) in said {
                match what {
                    0..=2 => lobby.take(Message::PeerConnect(peer), &mut events),
                    3..=4 => lobby.take(Message::PeerDisconnect(peer), &mut events),
                    5 => lobby.meet(&others, &mut events),
                    _ => lobby.take(offer(peer), &mut events),
                }
            }
            let mut there = BTreeSet::new();
            for event in events {
                match event {
                    SignalingEvent::PeerJoined { peer, .. } => {
                        prop_assert!(there.insert(peer));
                        prop_assert!(met.insert(peer) || !gives_back);
                    }
                    SignalingEvent::PeerReturned { peer, .. } => {
                        prop_assert!(!there.insert(peer) || gives_back);
                        prop_assert!(met.contains(&peer));
                    }
                    SignalingEvent::PeerLeft(peer) => prop_assert!(there.remove(&peer)),
                    SignalingEvent::Signal { from, .. } => prop_assert!(there.contains(&from)),
                    _ => {}
                }
            }
            prop_assert_eq!(there, lobby.peers);
        }
    }
}
