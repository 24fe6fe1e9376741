//! What all sessions of a server share.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Arrival};
use super::households::Households;
use super::mailbox::{Bounds, Budget, Mailbox};
use super::metrics::Metrics;
use super::rate::{Addresses, Rate};
use super::rendezvous::Rendezvous;
use super::session::state::Limits;
use crate::signaling::godot::CloseReason;

pub(super) struct Shared {
    pub(super) rendezvous: Arc<dyn Rendezvous>,
    pub(super) session: Limits,
    pub(super) metrics: Metrics,
    pub(super) admission: Option<Admission>,
    pub(super) admission_limit: Duration,
    pub(super) max_message_bytes: usize,
    pub(super) write_limit: Duration,
    pub(super) http_limit: Duration,
    pub(super) header_limit: Duration,
    pub(super) tls_limit: Duration,
    pub(super) shutdown_limit: Duration,
    pub(super) outbox: Bounds,
    pub(super) budget: Arc<Budget>,
    pub(super) trust_forwarded_for: bool,
    pub(super) addresses: Mutex<Addresses>,
    pub(super) bytes: Rate,
    pub(super) households: Arc<Households>,
    pub(super) max_peers: usize,
    /// TCP connections, whatever becomes of them.
    pub(super) connections: Arc<Semaphore>,
    /// As many as may be connected.
    pub(super) peers: Arc<Semaphore>,
    /// As many as may be away, with their place kept.
    pub(super) kept: Arc<Semaphore>,
    /// As many as are told at once that there is no room.
    pub(super) refusals: Arc<Semaphore>,
    pub(super) tracker: TaskTracker,
    /// All sessions are to close.
    pub(super) stop: CancellationToken,
    /// They have taken too long.
    pub(super) kill: CancellationToken,
    pub(super) sessions: AtomicU64,
}

/// How long sessions that are dropped may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn number(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn mailbox(&self) -> Mailbox {
        Mailbox::new(self.outbox, Arc::clone(&self.budget))
    }

    /// Clients that are connected.
    pub(super) fn connected(&self) -> usize {
        self.max_peers.saturating_sub(self.peers.available_permits())
    }

    /// Whether one more may connect from there.
    pub(super) fn welcomes(&self, address: IpAddr) -> bool {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).take(address, Instant::now())
    }

    /// Waits until no session is left, and ends those that take too long. To be called when they have been told to stop.
    pub(super) async fn wind_down(&self) {
        self.tracker.close();
        if timeout(self.shutdown_limit, self.tracker.wait()).await.is_err() {
            tracing::warn!("some sessions take too long to close and are dropped");
            self.kill.cancel();
            // They have nothing to wait for any more; but in somebody else's program a request may be stuck on its way
            // to be a session, and then it never is one.
            let _ = timeout(KILL_LIMIT, self.tracker.wait()).await;
        }
    }

    pub(super) async fn admit(&self, arrival: Arrival) -> Result<(), CloseReason> {
        let Some(admission) = &self.admission else { return Ok(()) };
        match timeout(self.admission_limit, admission(arrival)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(CloseReason::Refused(reason)),
            Err(_) => {
                tracing::warn!("an admission takes too long");
                Err(CloseReason::Refused("admission takes too long".to_owned()))
            }
        }
    }
}
