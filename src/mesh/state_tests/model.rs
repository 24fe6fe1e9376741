//! The table of the state's front page once more, in sets: who is announced follows from who is open, and the status
//! from whether peer 1 is.

use std::collections::BTreeSet;

use super::super::id;
use crate::error::AddPeerError;
use crate::event::MeshEvent;
use crate::mesh::state::{ConnectionStatus, Effect};
use crate::peer::{Exit, Farewell};

pub(super) struct Model {
    own: u32,
    pub(super) gated: bool,
    max_peers: usize,
    pub(super) closing: bool,
    /// Peer 1 failed, or went.
    server_lost: bool,
    pub(super) members: BTreeSet<u32>,
    open: BTreeSet<u32>,
    leaving: BTreeSet<u32>,
    announced: BTreeSet<u32>,
    unstable: BTreeSet<u32>,
}

/// An effect, without what only the machinery needs.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    TakesPackets(u32),
    Status(ConnectionStatus),
    Event(MeshEvent),
    IsToLeave(Farewell),
}

impl Told {
    pub(super) fn of(effect: &Effect) -> Option<Told> {
        Some(match effect.clone() {
            Effect::Status(status) => Told::Status(status),
            Effect::Emit(event) => Told::Event(event),
            Effect::Open(_, peer) => Told::TakesPackets(peer.get()),
            Effect::Announce(_, peer) => Told::Event(MeshEvent::PeerConnected(peer)),
            Effect::End(_, peer, Exit::Failed(failure)) => Told::Event(MeshEvent::PeerFailed(peer, failure)),
            Effect::End(_, peer, Exit::Disconnected(reason)) => {
                Told::Event(MeshEvent::PeerDisconnected(peer, reason))
            }
            Effect::End(_, _, Exit::Silent) | Effect::Forget(..) => return None,
            Effect::Leave(_, farewell) => Told::IsToLeave(farewell),
        })
    }
}

impl Model {
    pub(super) fn new(own: u32, server_compatibility: bool, max_peers: usize) -> Model {
        Model {
            own,
            gated: server_compatibility && own != 1,
            max_peers,
            closing: false,
            server_lost: false,
            members: BTreeSet::new(),
            open: BTreeSet::new(),
            leaving: BTreeSet::new(),
            announced: BTreeSet::new(),
            unstable: BTreeSet::new(),
        }
    }

    fn status(&self) -> ConnectionStatus {
        match () {
            () if self.closing => ConnectionStatus::Disconnected,
            () if !self.gated || self.open.contains(&1) => ConnectionStatus::Connected,
            () if self.server_lost => ConnectionStatus::Disconnected,
            () => ConnectionStatus::Connecting,
        }
    }

    pub(super) fn may_add(&self, peer: u32, refuses: bool) -> Result<(), AddPeerError> {
        let reasons = [
            (self.closing, AddPeerError::MeshClosed),
            (refuses, AddPeerError::Refused),
            (peer == self.own, AddPeerError::OwnId),
            (self.members.contains(&peer), AddPeerError::AlreadyExists(id(peer))),
            (self.members.len() >= self.max_peers, AddPeerError::TooManyPeers { limit: self.max_peers }),
        ];
        reasons.into_iter().find(|(applies, _)| *applies).map_or(Ok(()), |(_, reason)| Err(reason))
    }

    pub(super) fn opened(&mut self, peer: u32) -> Vec<Told> {
        if self.leaving.contains(&peer) {
            return Vec::new();
        }
        let mut told = vec![Told::TakesPackets(peer)];
        told.extend(self.change(|model| {
            model.open.insert(peer);
            let succeeded = (model.gated && peer == 1).then_some(MeshEvent::ConnectionSucceeded);
            succeeded.into_iter().chain(model.announce_all()).collect()
        }));
        told
    }

    fn announce_all(&mut self) -> Vec<MeshEvent> {
        if self.gated && !self.open.contains(&1) {
            return Vec::new();
        }
        let new: BTreeSet<u32> =
            self.open.iter().copied().filter(|peer| !self.leaving.contains(peer)).collect();
        let new: Vec<u32> = new.difference(&self.announced).copied().collect();
        self.announced.extend(&new);
        let unstable = |peer| self.unstable.contains(&peer).then_some(MeshEvent::PeerUnstable(id(peer)));
        new.into_iter()
            .flat_map(|peer| [Some(MeshEvent::PeerConnected(id(peer))), unstable(peer)])
            .flatten()
            .collect()
    }

    pub(super) fn wavered(&mut self, peer: u32, unstable: bool) -> Vec<Told> {
        let changed = if unstable { self.unstable.insert(peer) } else { self.unstable.remove(&peer) };
        let event = if unstable { MeshEvent::PeerUnstable } else { MeshEvent::PeerRecovered };
        let told = changed && self.announced.contains(&peer);
        told.then(|| Told::Event(event(id(peer)))).into_iter().collect()
    }

    pub(super) fn ended(&mut self, peer: u32, exit: &Exit) -> Vec<Told> {
        self.change(|model| {
            let was_announced = model.announced.contains(&peer);
            let was_leaving = model.leaving.contains(&peer);
            let sets = [
                &mut model.members,
                &mut model.open,
                &mut model.leaving,
                &mut model.announced,
                &mut model.unstable,
            ];
            for set in sets {
                set.remove(&peer);
            }

            let (of_the_peer, of_the_connection) = match exit {
                Exit::Disconnected(reason) if was_announced => {
                    (MeshEvent::PeerDisconnected(id(peer), reason.clone()), MeshEvent::ServerDisconnected)
                }
                Exit::Failed(failure) if !was_leaving => (
                    MeshEvent::PeerFailed(id(peer), failure.clone()),
                    MeshEvent::ConnectionFailed(failure.clone()),
                ),
                _ => return Vec::new(),
            };
            if model.gated && peer == 1 && !model.closing {
                model.server_lost = true;
                vec![of_the_peer, of_the_connection]
            } else {
                vec![of_the_peer]
            }
        })
    }

    pub(super) fn remove(&mut self, peer: u32, farewell: Farewell) -> Vec<Told> {
        if !self.members.contains(&peer) {
            return Vec::new();
        }
        self.leaving.insert(peer);
        vec![Told::IsToLeave(farewell)]
    }

    pub(super) fn close(&mut self) -> Vec<Told> {
        if self.closing {
            return Vec::new();
        }
        let mut told = self.change(|model| {
            model.closing = true;
            model.leaving = model.members.clone();
            Vec::new()
        });
        told.extend(self.members.iter().map(|_| Told::IsToLeave(Farewell::LocalClose)));
        told
    }

    /// What is told of a change: the status first, if it is another one.
    fn change(&mut self, change: impl FnOnce(&mut Model) -> Vec<MeshEvent>) -> Vec<Told> {
        let before = self.status();
        let events = change(self);
        let after = self.status();
        let status = (before != after).then_some(Told::Status(after));
        status.into_iter().chain(events.into_iter().map(Told::Event)).collect()
    }
}
