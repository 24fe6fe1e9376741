//! The table of the front page, row by row; what holds in any order of anything stands in [`any_order`].

use super::*;
use crate::event::{DisconnectReason, PeerFailure, Stage};

#[path = "state_tests/any_order.rs"]
mod any_order;

#[test]
fn a_peer_that_opens_before_the_server_is_suppressed() {
    let mut mesh = client().with_connecting([2]);
    assert_eq!(mesh.open(2), nothing());
    assert!(mesh.state.member(id(2)).unwrap().open, "it can be sent to all the same");
}

#[test]
fn the_server_opens_the_gate_and_everyone_is_announced_by_ascending_id() {
    let mut mesh = client().with_connecting([5, 3, 1, 4, 2]);
    for suppressed in [4, 2, 5] {
        assert_eq!(mesh.open(suppressed), nothing());
    }
    assert_eq!(mesh.open(1), ["status Connected", "ConnectionSucceeded", "+1", "+2", "+4", "+5"]);
}

#[test]
fn a_peer_that_opens_after_the_server_is_announced_at_once() {
    let mut mesh = client().with_open([1]).with_connecting([2]);
    assert_eq!(mesh.open(2), ["+2"]);
}

#[test]
fn the_server_goes_and_the_others_stay() {
    let mut mesh = client().with_open([1, 2]);
    assert_eq!(mesh.gone(1), ["status Disconnected", "-1 (the remote left)", "ServerDisconnected"]);
    assert!(mesh.state.member(id(2)).is_some());
}

#[test]
fn an_announced_peer_that_goes_is_disconnected_whatever_the_status() {
    let mut mesh = client().with_open([1, 2, 3]);
    assert_eq!(mesh.gone(2), ["-2 (the remote left)"]);
    mesh.gone(1);
    assert_eq!(mesh.gone(3), ["-3 (the remote left)"]);
}

#[test]
fn a_suppressed_peer_goes_in_silence_and_what_it_sent_is_dropped() {
    let mut mesh = client().with_connecting([1]).with_open([2]);
    assert_eq!(mesh.gone(2), nothing());
    assert_eq!(mesh.effects, [Effect::Forget(mesh.life(2), id(2))]);
    assert_eq!(mesh.open(1), ["status Connected", "ConnectionSucceeded", "+1"]);
}

#[test]
fn a_peer_that_fails_is_reported_whatever_the_status() {
    let mut mesh = client().with_connecting([1, 2, 3]);
    assert_eq!(mesh.fail(2), ["2 failed"]);
    mesh.open(1);
    assert_eq!(mesh.fail(3), ["3 failed"]);
    assert_eq!(plain().with_connecting([1]).fail(1), ["1 failed"], "no gate, no ConnectionFailed");
}

#[test]
fn the_server_fails_and_so_does_the_connection() {
    let mut mesh = client().with_connecting([1]);
    assert_eq!(mesh.fail(1), ["status Disconnected", "1 failed", "ConnectionFailed"]);
}

#[test]
fn a_peer_removed_while_connecting_goes_in_silence() {
    for how_it_ends in [Exit::Silent, failed(), left()] {
        let mut mesh = plain().with_connecting([2]);
        mesh.remove(2).unwrap();
        assert_eq!(mesh.effects, [Effect::Leave(mesh.life(2), Farewell::Removed)]);
        assert_eq!(mesh.open(2), nothing(), "it had opened before it heard that it is to leave");
        assert_eq!(mesh.end(2, how_it_ends), nothing());
    }
}

#[test]
fn the_server_removed_while_connecting_goes_in_silence_and_the_status_stays() {
    let mut mesh = client().with_connecting([1]);
    mesh.remove(1).unwrap();
    assert_eq!(mesh.end(1, Exit::Silent), nothing());
    assert_eq!(mesh.state.status(), ConnectionStatus::Connecting);
}

#[test]
fn the_mesh_closes_and_every_announced_peer_is_disconnected() {
    let mut mesh = client().with_open([1, 2]).with_connecting([3]);
    assert_eq!(mesh.close(), ["status Disconnected"]);
    let leaving = [1, 2, 3].map(|peer| Effect::Leave(mesh.life(peer), Farewell::LocalClose));
    assert_eq!(mesh.effects[1..], leaving);

    assert_eq!(mesh.open(3), nothing());
    assert_eq!(mesh.end(3, Exit::Silent), nothing());
    assert_eq!(mesh.gone(1), ["-1 (the remote left)"], "who closes is not told that the server is gone");
    assert!(!mesh.state.is_over());
    assert_eq!(mesh.gone(2), ["-2 (the remote left)"]);
    assert!(mesh.state.is_over());
}

#[test]
fn closing_again_does_nothing() {
    let mut mesh = plain().with_open([2]);
    mesh.close();
    assert_eq!(mesh.close(), nothing());
    assert!(mesh.effects.is_empty());
}

#[test]
fn without_server_compatibility_peer_1_is_a_peer_like_any_other() {
    for mut mesh in [plain(), Mesh::new(1, true)] {
        assert_eq!(mesh.state.status(), ConnectionStatus::Connected);
        mesh = mesh.with_connecting([2, 3]);
        assert_eq!(mesh.open(3), ["+3"]);
        assert_eq!(mesh.open(2), ["+2"]);
        assert_eq!(mesh.gone(2), ["-2 (the remote left)"]);
    }
    let mut mesh = plain().with_connecting([1]);
    assert_eq!(mesh.open(1), ["+1"]);
    assert_eq!(mesh.gone(1), ["-1 (the remote left)"]);
}

#[test]
fn the_server_returns_and_only_those_not_announced_now_are_announced() {
    let mut mesh = client().with_open([1, 2, 3]);
    mesh.gone(1);
    mesh.gone(3);
    mesh = mesh.with_connecting([1, 3, 4, 5]);
    assert_eq!(mesh.open(4), nothing());
    assert_eq!(mesh.open(3), nothing());
    assert_eq!(mesh.open(1), ["status Connected", "ConnectionSucceeded", "+1", "+3", "+4"]);
}

#[test]
fn who_is_leaving_when_the_gate_opens_is_not_announced() {
    let mut mesh = client().with_connecting([1]).with_open([2, 3]);
    mesh.remove(2).unwrap();
    assert_eq!(mesh.open(1), ["status Connected", "ConnectionSucceeded", "+1", "+3"]);
}

#[test]
fn an_unstable_peer_that_is_announced_is_reported_as_unstable() {
    let mut mesh = client().with_connecting([1]).with_open([2, 3]);
    assert_eq!(mesh.waver(2, true), nothing());
    assert_eq!(mesh.waver(3, true), nothing());
    assert_eq!(mesh.waver(3, false), nothing());
    assert_eq!(mesh.open(1), ["status Connected", "ConnectionSucceeded", "+1", "+2", "2 is unstable", "+3"]);
    assert_eq!(mesh.waver(2, false), ["2 is back"]);
}

#[test]
fn reports_of_a_former_life_are_ignored() {
    let mut mesh = plain().with_open([2]);
    let former = mesh.life(2);
    mesh.gone(2);
    mesh = mesh.with_connecting([2]);
    mesh.effects.clear();

    mesh.state.opened(id(2), former, &mut mesh.effects);
    mesh.state.wavered(id(2), former, true, &mut mesh.effects);
    mesh.state.ended(id(2), former, failed(), &mut mesh.effects);
    assert!(mesh.effects.is_empty());
    assert_eq!(mesh.open(2), ["+2"]);
}

#[test]
fn a_peer_that_is_not_there_cannot_be_removed() {
    assert_eq!(plain().remove(2), Err(UnknownPeer(id(2))));
}

#[test]
fn who_may_be_added_is_checked_in_the_documented_order() {
    let mut mesh = Mesh { state: State::new(id(9), true, 2), ..plain() }.with_open([2, 3]);
    let check = |mesh: &Mesh, peer, refuses| mesh.state.check_add(id(peer), refuses).unwrap_err();

    assert_eq!(check(&mesh, 4, false), AddPeerError::TooManyPeers { limit: 2 });
    assert_eq!(check(&mesh, 2, false), AddPeerError::AlreadyExists(id(2)));
    assert_eq!(check(&mesh, 9, false), AddPeerError::OwnId);
    assert_eq!(check(&mesh, 9, true), AddPeerError::Refused);
    assert_eq!(check(&mesh, 2, true), AddPeerError::Refused);
    mesh.gone(3);
    assert_eq!(mesh.state.check_add(id(4), false), Ok(()));
    mesh.close();
    assert_eq!(check(&mesh, 9, true), AddPeerError::MeshClosed);
}

/// A mesh, and what its state has just asked for.
struct Mesh {
    state: State,
    effects: Vec<Effect>,
    lives: BTreeMap<u32, Life>,
}

/// A member of a server-compatible mesh.
fn client() -> Mesh {
    Mesh::new(9, true)
}

/// A mesh that is not server-compatible.
fn plain() -> Mesh {
    Mesh::new(9, false)
}

impl Mesh {
    fn new(own: u32, server_compatibility: bool) -> Mesh {
        let state = State::new(id(own), server_compatibility, 16);
        Mesh { state, effects: Vec::new(), lives: BTreeMap::new() }
    }

    fn with_connecting(mut self, peers: impl IntoIterator<Item = u32>) -> Mesh {
        for peer in peers {
            assert_eq!(self.state.check_add(id(peer), false), Ok(()));
            let life = self.lives.get(&peer).map_or(u64::from(peer), |former| former.0 + 100);
            self.lives.insert(peer, Life(life));
            self.state.add(id(peer), Life(life));
        }
        self
    }

    fn with_open(mut self, peers: impl IntoIterator<Item = u32>) -> Mesh {
        for peer in peers {
            self = self.with_connecting([peer]);
            self.open(peer);
        }
        self.effects.clear();
        self
    }

    fn life(&self, peer: u32) -> Life {
        self.lives[&peer]
    }

    fn open(&mut self, peer: u32) -> Vec<String> {
        let life = self.life(peer);
        self.told(|state, effects| state.opened(id(peer), life, effects))
    }

    fn waver(&mut self, peer: u32, unstable: bool) -> Vec<String> {
        let life = self.life(peer);
        self.told(|state, effects| state.wavered(id(peer), life, unstable, effects))
    }

    fn gone(&mut self, peer: u32) -> Vec<String> {
        self.end(peer, left())
    }

    fn fail(&mut self, peer: u32) -> Vec<String> {
        self.end(peer, failed())
    }

    fn end(&mut self, peer: u32, exit: Exit) -> Vec<String> {
        let life = self.life(peer);
        self.told(|state, effects| state.ended(id(peer), life, exit, effects))
    }

    fn remove(&mut self, peer: u32) -> Result<(), UnknownPeer> {
        self.effects.clear();
        self.state.remove(id(peer), Farewell::Removed, &mut self.effects)
    }

    fn close(&mut self) -> Vec<String> {
        self.told(State::close)
    }

    /// What the owner is told, in short.
    fn told(&mut self, act: impl FnOnce(&mut State, &mut Vec<Effect>)) -> Vec<String> {
        self.effects.clear();
        act(&mut self.state, &mut self.effects);
        self.effects.iter().filter_map(in_short).collect()
    }
}

fn in_short(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Status(status) => format!("status {status:?}"),
        Effect::Emit(MeshEvent::ConnectionFailed(_)) => "ConnectionFailed".to_owned(),
        Effect::Emit(MeshEvent::PeerUnstable(peer)) => format!("{peer} is unstable"),
        Effect::Emit(MeshEvent::PeerRecovered(peer)) => format!("{peer} is back"),
        Effect::Emit(event) => format!("{event:?}"),
        Effect::Announce(_, peer) => format!("+{peer}"),
        Effect::End(_, peer, Exit::Disconnected(reason)) => format!("-{peer} ({reason})"),
        Effect::End(_, peer, Exit::Failed(_)) => format!("{peer} failed"),
        Effect::End(_, peer, Exit::Silent) => format!("{peer} ended without a word"),
        Effect::Open(..) | Effect::Forget(..) | Effect::Leave(..) => return None,
    })
}

fn nothing() -> [&'static str; 0] {
    []
}

fn left() -> Exit {
    Exit::Disconnected(DisconnectReason::RemoteClose)
}

fn failed() -> Exit {
    Exit::Failed(PeerFailure::connection_failed(Stage::Ice))
}

fn id(n: u32) -> PeerId {
    PeerId::new(n).unwrap()
}
