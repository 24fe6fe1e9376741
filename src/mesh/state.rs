//! Decides who is in the mesh and what its owner is told. Pure: no tasks, no channels, no clock.
//!
//! In a mesh that is not server-compatible, or whose own id is 1, every peer is announced when it is open, and the
//! status is `Connected` from the beginning to the end. In a server-compatible mesh, peer 1 is the gate
//! (`WebRTCMultiplayer.initialize`, Godot 3):
//!
//! | status | what happens | what follows, in this order |
//! |---|---|---|
//! | Connecting, Disconnected | peer k opens | nothing: it is suppressed, and what it sends is held |
//! | Connecting, Disconnected | peer 1 opens | status Connected, `ConnectionSucceeded`, `PeerConnected(1)`, then `PeerConnected` of every open peer that is not announced, by ascending id |
//! | Connected | peer k opens | `PeerConnected(k)` |
//! | Connected | peer 1 goes | status Disconnected, `PeerDisconnected(1)`, `ServerDisconnected`; the others stay |
//! | any | an announced peer wavers | `PeerUnstable`, `PeerRecovered`; one that is unstable when it is announced: `PeerUnstable` after its `PeerConnected` |
//! | any | an announced peer goes | `PeerDisconnected` |
//! | any | a suppressed peer goes | nothing |
//! | any | peer k fails | `PeerFailed(k)` |
//! | any | peer 1 fails | status Disconnected, `PeerFailed(1)`, `ConnectionFailed` |
//! | any | a peer that is connecting is removed | nothing |
//! | any | the mesh closes | status Disconnected, `PeerDisconnected` of every announced peer |

use std::collections::BTreeMap;

use crate::error::{AddPeerError, UnknownPeer};
use crate::event::{DisconnectReason, MeshEvent};
use crate::id::PeerId;
use crate::peer::{Exit, Farewell, Life};

/// Whether the mesh as a whole is connected (Godot's `ConnectionStatus`).
///
/// A mesh that is not server-compatible, and the server of one that is, is `Connected` from the start. A client is
/// `Connecting` until peer 1 is connected, and `Disconnected` after it is gone, or could not be connected.
///
/// (Godot's page says that the status stays `CONNECTED` when the server leaves. The engine sets it to `DISCONNECTED`,
/// and so do we. Unlike the engine, it is changed before the event, so whoever handles the event sees the new one.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum ConnectionStatus {
    /// The server is gone, or the mesh is closed.
    Disconnected = 0,
    /// The server is not connected yet.
    Connecting = 1,
    /// Connected.
    Connected = 2,
}

/// What the mesh's task is to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// The status has changed. Comes before the events that it belongs to.
    Status(ConnectionStatus),
    /// Tell the owner.
    Emit(MeshEvent),
    /// The peer takes packets.
    Open(Life, PeerId),
    /// Tell the owner that the peer is connected, and give what it sent.
    Announce(Life, PeerId),
    /// Tell the owner how an announced peer, or one that never was connected, ended.
    End(Life, PeerId, Exit),
    /// Drop what a suppressed peer sent.
    Forget(Life, PeerId),
    /// Tell the peer to leave.
    Leave(Life, Farewell),
}

/// The members.
#[derive(Debug)]
pub(crate) struct State {
    id: PeerId,
    /// Peer 1 is the gate.
    gated: bool,
    status: ConnectionStatus,
    max_peers: usize,
    closing: bool,
    members: BTreeMap<PeerId, Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) life: Life,
    /// Its channels are open.
    pub(crate) open: bool,
    /// `PeerConnected` was emitted.
    announced: bool,
    /// It has gone silent, whether the owner was told or not.
    unstable: bool,
    /// It was told to leave.
    pub(crate) leaving: bool,
    /// It has said goodbye, and the owner knows.
    departed: bool,
}

impl State {
    pub(crate) fn new(id: PeerId, server_compatibility: bool, max_peers: usize) -> State {
        let gated = server_compatibility && !id.is_server();
        let status = if gated { ConnectionStatus::Connecting } else { ConnectionStatus::Connected };
        State { id, gated, status, max_peers, closing: false, members: BTreeMap::new() }
    }

    pub(crate) fn status(&self) -> ConnectionStatus {
        self.status
    }

    pub(crate) fn member(&self, peer: PeerId) -> Option<Member> {
        self.members.get(&peer).copied()
    }

    /// Whether the mesh is closing and everyone has gone.
    pub(crate) fn is_over(&self) -> bool {
        self.closing && self.members.is_empty()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether a peer may be added; then `add` it.
    pub(crate) fn check_add(&self, peer: PeerId, refuses: bool) -> Result<(), AddPeerError> {
        if self.closing {
            Err(AddPeerError::MeshClosed)
        } else if refuses {
            Err(AddPeerError::Refused)
        } else if peer == self.id {
            Err(AddPeerError::OwnId)
        } else if self.members.contains_key(&peer) {
            Err(AddPeerError::AlreadyExists(peer))
        } else if self.members.len() >= self.max_peers {
            Err(AddPeerError::TooManyPeers { limit: self.max_peers })
        } else {
            Ok(())
        }
    }

    /// Adds a peer that is connecting.
    pub(crate) fn add(&mut self, peer: PeerId, life: Life) {
        let member =
            Member { life, open: false, announced: false, unstable: false, leaving: false, departed: false };
        self.members.insert(peer, member);
    }

    /// The channels of a peer are open.
    pub(crate) fn opened(&mut self, peer: PeerId, life: Life, effects: &mut Vec<Effect>) {
        let Some(member) = self.current(peer, life) else { return };
        if member.leaving || member.open {
            return;
        }
        member.open = true;
        effects.push(Effect::Open(life, peer));
        if self.gated && peer.is_server() {
            self.set_status(ConnectionStatus::Connected, effects);
            effects.push(Effect::Emit(MeshEvent::ConnectionSucceeded));
            self.announce(peer, effects);
            let open: Vec<PeerId> = self.members.keys().copied().collect();
            open.into_iter().for_each(|peer| self.announce(peer, effects));
        } else if self.status == ConnectionStatus::Connected {
            self.announce(peer, effects);
        }
    }

    /// A connected peer has gone silent, or is heard again.
    pub(crate) fn wavered(&mut self, peer: PeerId, life: Life, unstable: bool, effects: &mut Vec<Effect>) {
        let Some(member) = self.current(peer, life) else { return };
        let changed = std::mem::replace(&mut member.unstable, unstable) != unstable;
        if changed && member.announced && !member.departed {
            let event = if unstable { MeshEvent::PeerUnstable(peer) } else { MeshEvent::PeerRecovered(peer) };
            effects.push(Effect::Emit(event));
        }
    }

    /// A peer has said goodbye. The owner is told at once, and nothing when its task has ended.
    pub(crate) fn departed(&mut self, peer: PeerId, life: Life, effects: &mut Vec<Effect>) {
        let Some(member) = self.current(peer, life) else { return };
        if !std::mem::replace(&mut member.departed, true) && member.announced {
            self.disconnected(peer, life, DisconnectReason::RemoteClose, effects);
        }
    }

    /// Tells the owner of an announced peer's end.
    fn disconnected(
        &mut self,
        peer: PeerId,
        life: Life,
        reason: DisconnectReason,
        effects: &mut Vec<Effect>,
    ) {
        let gate = self.gated && peer.is_server() && !self.closing;
        if gate {
            self.set_status(ConnectionStatus::Disconnected, effects);
        }
        effects.push(Effect::End(life, peer, Exit::Disconnected(reason)));
        if gate {
            effects.push(Effect::Emit(MeshEvent::ServerDisconnected));
        }
    }

    /// A peer has ended.
    pub(crate) fn ended(&mut self, peer: PeerId, life: Life, exit: Exit, effects: &mut Vec<Effect>) {
        let Some(member) = self.current(peer, life).copied() else { return };
        self.members.remove(&peer);
        let gate = self.gated && peer.is_server() && !self.closing;
        match exit {
            Exit::Failed(_) if member.leaving || self.closing => effects.push(Effect::Forget(life, peer)),
            Exit::Failed(failure) => {
                if gate {
                    self.set_status(ConnectionStatus::Disconnected, effects);
                }
                effects.push(Effect::End(life, peer, Exit::Failed(failure.clone())));
                if gate {
                    effects.push(Effect::Emit(MeshEvent::ConnectionFailed(failure)));
                }
            }
            _ if member.departed && member.announced => {}
            Exit::Disconnected(reason) if member.announced => self.disconnected(peer, life, reason, effects),
            // An announced peer was connected, so it has a reason; this is for the one who changes that.
            Exit::Silent if member.announced => {
                self.disconnected(peer, life, DisconnectReason::ConnectionLost, effects);
            }
            _ => effects.push(Effect::Forget(life, peer)),
        }
    }

    /// Tells a peer to leave; it has left when it has `ended`.
    pub(crate) fn remove(
        &mut self,
        peer: PeerId,
        farewell: Farewell,
        effects: &mut Vec<Effect>,
    ) -> Result<(), UnknownPeer> {
        let member = self.members.get_mut(&peer).ok_or(UnknownPeer(peer))?;
        member.leaving = true;
        effects.push(Effect::Leave(member.life, farewell));
        Ok(())
    }

    /// Tells everyone to leave. Nobody comes any more.
    pub(crate) fn close(&mut self, effects: &mut Vec<Effect>) {
        if self.closing {
            return;
        }
        self.closing = true;
        self.set_status(ConnectionStatus::Disconnected, effects);
        for member in self.members.values_mut() {
            member.leaving = true;
            effects.push(Effect::Leave(member.life, Farewell::LocalClose));
        }
    }

    fn announce(&mut self, peer: PeerId, effects: &mut Vec<Effect>) {
        if let Some(member) = self.members.get_mut(&peer)
            && member.open
            && !member.announced
            && !member.leaving
            && !member.departed
        {
            member.announced = true;
            effects.push(Effect::Announce(member.life, peer));
            if member.unstable {
                effects.push(Effect::Emit(MeshEvent::PeerUnstable(peer)));
            }
        }
    }

    fn current(&mut self, peer: PeerId, life: Life) -> Option<&mut Member> {
        self.members.get_mut(&peer).filter(|member| member.life == life)
    }

    fn set_status(&mut self, status: ConnectionStatus, effects: &mut Vec<Effect>) {
        if self.status != status {
            self.status = status;
            effects.push(Effect::Status(status));
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
