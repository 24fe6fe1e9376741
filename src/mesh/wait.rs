//! Waiting for a peer to be connected, without reading the events: [`MeshHandle::wait_connected`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use super::handle::MeshHandle;
use crate::error::WaitError;
use crate::id::PeerId;

/// Who waits for whom. As many as there are calls that wait; whoever gives up is forgotten at the next that waits for
/// the same peer, or when that peer is told of.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<PeerId, Vec<Waiter>>>);

type Waiter = oneshot::Sender<Result<(), WaitError>>;

impl Waiters {
    /// Waits for the next that is told of this peer, unless `is_so` already; nothing can come between the two.
    fn put(
        &self,
        peer: PeerId,
        is_so: impl FnOnce() -> bool,
    ) -> Option<oneshot::Receiver<Result<(), WaitError>>> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_so() {
            return None;
        }
        let (waiter, told) = oneshot::channel();
        waiters.retain(|_, waiting| {
            waiting.retain(|waiter| !waiter.is_closed());
            !waiting.is_empty()
        });
        waiters.entry(peer).or_default().push(waiter);
        Some(told)
    }

    /// What has become of a peer.
    pub(super) fn tell(&self, peer: PeerId, outcome: &Result<(), WaitError>) {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
        for waiter in waiting.into_iter().flatten() {
            let _ = waiter.send(outcome.clone());
        }
    }
}

impl MeshHandle {
    /// Waits until a peer is connected: ready when its `PeerConnected` is put among the events, whether anybody reads
    /// them or not, and at once if it is connected. From then on it takes packets, until it leaves.
    ///
    /// A peer that is not in the mesh yet is waited for, so it may be called before `add_peer`, or before signalling
    /// has reported the peer. One that is there is waited for at the most the handshake limit
    /// ([`MeshBuilder::handshake_limit`](crate::MeshBuilder::handshake_limit), default 30 s), one that never comes for
    /// ever: who is not sure of it puts a limit of their own around (`tokio::time::timeout`). One that is saying goodbye
    /// is waited for until it is gone, and then is [`WaitError::Disconnected`]. In a server-compatible mesh, nobody is
    /// connected before peer 1 is.
    ///
    /// # Errors
    ///
    /// See [`WaitError`]. After [`WaitError::Failed`] it can be waited again: the peer may come anew.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, and nothing else.
    pub async fn wait_connected(&self, peer: PeerId) -> Result<(), WaitError> {
        let shared = &self.shared;
        if peer == self.id() {
            return Err(WaitError::OwnId);
        }
        if shared.is_closing() {
            return Err(WaitError::MeshClosed);
        }
        let is_connected = || shared.registry().get(&peer).is_some_and(|entry| entry.is_announced());
        let Some(told) = shared.waiters.put(peer, is_connected) else { return Ok(()) };
        tokio::select! {
            biased;
            // Before the closing, so that a failure that came first is told.
            Ok(outcome) = told => outcome,
            () = shared.close.cancelled() => Err(WaitError::MeshClosed),
            () = shared.stop.cancelled() => Err(WaitError::MeshClosed),
        }
    }
}
