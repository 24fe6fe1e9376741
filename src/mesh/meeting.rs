//! What the handles know of signalling: [`SignalingStatus`], the lobby, and the way to ask for something.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::handle::MeshHandle;
use crate::error::SignalingError;

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

/// Shared by the handles and the task that signals.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    status: SignalingStatus,
    lobby: Option<String>,
    requests: Option<mpsc::Sender<SealRequest>>,
}

/// Asks for the lobby to be sealed.
pub(super) type SealRequest = oneshot::Sender<Result<(), SignalingError>>;

/// One at a time is carried out; whoever else asks waits.
const REQUESTS: usize = 4;

impl Meeting {
    /// Signalling has been joined; what is asked of it comes out of the receiver.
    pub(super) fn joined(&self, lobby: Option<String>) -> mpsc::Receiver<SealRequest> {
        let (requests, to_do) = mpsc::channel(REQUESTS);
        let mut state = self.lock();
        *state = State { status: SignalingStatus::Joined, lobby, requests: Some(requests) };
        to_do
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
        let requests = self.shared.meeting.lock().requests.clone().ok_or(SignalingError::Unsupported)?;
        let (reply, sealed) = oneshot::channel();
        requests.send(reply).await.map_err(|_| SignalingError::Closed)?;
        sealed.await.unwrap_or(Err(SignalingError::Closed))
    }
}
