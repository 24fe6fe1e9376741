//! What the handles know of signalling: [`SignalingStatus`], the lobby, and the way to ask for something. And what the
//! mesh's task has to tell the task that signals.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use super::handle::MeshHandle;
use crate::error::SignalingError;
use crate::id::PeerId;
use crate::peer::Life;

/// How a mesh stands with its signalling.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SignalingStatus {
    /// There is none: its peers are added by hand.
    #[default]
    Absent,
    /// It brings peers; or, once the lobby is sealed, it has done its work, and nobody looks after it any more.
    Joined,
    /// It is not reachable, for this reason, and the transport tries to reach it again.
    Restoring(SignalingError),
    /// It is gone for good, for this reason.
    Lost(SignalingError),
}

/// Shared by the handles, the mesh's task and the task that signals.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    state: Mutex<State>,
    /// Told when a life has ended.
    pub(super) ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    status: SignalingStatus,
    lobby: Option<String>,
    mail: Option<Mail>,
    /// How the last life of each peer has ended, until the task that signals looks: no more than there are peers.
    ends: BTreeMap<PeerId, (Life, Fate)>,
}

/// Where the task that signals is reached.
#[derive(Debug)]
struct Mail {
    requests: mpsc::Sender<SealRequest>,
    relayed: mpsc::Sender<(PeerId, Bytes)>,
}

/// What comes to the task that signals.
#[derive(Debug)]
pub(super) struct Letters {
    /// What the handles ask for.
    pub(super) requests: mpsc::Receiver<SealRequest>,
    /// What peers have others relay to us.
    pub(super) relayed: mpsc::Receiver<(PeerId, Bytes)>,
}

/// How a peer's life has ended, as far as it matters for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was connected, and was lost.
    Lost,
    /// It never was connected, for a reason that may pass.
    Failed,
    /// It has closed the connection: as it leaves, or removes us; or, if it is a stranger, as it has lost us.
    Closed,
    /// Somebody wanted it, or it will not be better the next time.
    Final,
}

/// Asks for the lobby to be sealed.
pub(super) type SealRequest = oneshot::Sender<Result<(), SignalingError>>;

/// One at a time is carried out; whoever else asks waits.
const REQUESTS: usize = 4;

/// What is relayed to us waits for the task that signals, which waits for nobody but signalling; more is lost, as it may
/// be anywhere on its way.
const RELAYED: usize = 64;

impl Meeting {
    /// Signalling has been joined by the task that gets these letters.
    pub(super) fn joined(&self, lobby: Option<String>) -> Letters {
        let (requests, to_do) = mpsc::channel(REQUESTS);
        let (relayed, from_others) = mpsc::channel(RELAYED);
        let mut state = self.lock();
        state.status = SignalingStatus::Joined;
        state.lobby = lobby;
        state.mail = Some(Mail { requests, relayed });
        Letters { requests: to_do, relayed: from_others }
    }

    /// A peer has had another one hand us this.
    pub(super) fn relayed(&self, from: PeerId, body: Bytes) {
        if let Some(mail) = &self.lock().mail
            && mail.relayed.try_send((from, body)).is_err()
        {
            tracing::debug!(%from, "what another peer has handed on is lost: there is too much of it");
        }
    }

    /// A life of a peer has ended.
    pub(super) fn life_ended(&self, peer: PeerId, life: Life, fate: Fate) {
        let mut state = self.lock();
        if state.mail.is_some() {
            state.ends.insert(peer, (life, fate));
            drop(state);
            self.ended.notify_one();
        }
    }

    /// The lives that have ended since the last call.
    pub(super) fn take_ends(&self) -> BTreeMap<PeerId, (Life, Fate)> {
        std::mem::take(&mut self.lock().ends)
    }

    pub(super) fn set_status(&self, status: SignalingStatus) {
        self.lock().status = status;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MeshHandle {
    /// How the mesh stands with its signalling, and why it is lost if it is.
    pub fn signaling(&self) -> SignalingStatus {
        self.shared.meeting.lock().status.clone()
    }

    /// The name of the lobby that was joined, or made; `None` if signalling has no such thing.
    pub fn lobby(&self) -> Option<String> {
        self.shared.meeting.lock().lobby.clone()
    }

    /// Seals the lobby: nobody else joins it. Only its host may (peer 1, whoever has made it). Everyone in it gets
    /// [`LobbySealed`](crate::MeshEvent::LobbySealed); the mesh goes on, without signalling: a Godot server closes it
    /// 10 s later, which is no loss.
    ///
    /// # Errors
    ///
    /// [`SignalingError::NotHost`]; [`SignalingError::Unsupported`] if signalling cannot, or if there is none;
    /// [`SignalingError::Closed`] if the mesh is closed; whatever signalling says.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the request.
    pub async fn seal_lobby(&self) -> Result<(), SignalingError> {
        let mail = self.shared.meeting.lock().mail.as_ref().map(|mail| mail.requests.clone());
        let requests = mail.ok_or(SignalingError::Unsupported)?;
        let (reply, sealed) = oneshot::channel();
        requests.send(reply).await.map_err(|_| SignalingError::Closed)?;
        sealed.await.unwrap_or(Err(SignalingError::Closed))
    }
}
