//! Signalling within one process, for tests and examples: a [`Hub`] and its members.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use webrtc_mesh::{Mesh, signaling::loopback::Hub};
//!
//! let hub = Hub::new();
//! let server = Mesh::builder().join(hub.join()).await?; // 1
//! let client = Mesh::builder().join(hub.join()).await?; // 2
//! assert_eq!((server.id().get(), client.id().get()), (1, 2));
//! # Ok(()) }
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::{Signaling, SignalingEvent};
use crate::connection::Signal;
use crate::error::SignalingError;
use crate::id::PeerId;

/// A meeting place. Clones are the same place.
///
/// Of two members the one with the lower id offers, as in Godot 3's demo.
///
/// At the most 16,384 events wait for one member, which is far more than a member that runs leaves unread. Beyond
/// them, a signal is refused to its sender with [`SignalingError::Transport`]; that somebody has come or gone is lost
/// to that member, which is logged as a warning.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    members: Arc<Mutex<Members>>,
}

#[derive(Debug, Default)]
struct Members {
    next: u32,
    queues: BTreeMap<PeerId, mpsc::Sender<SignalingEvent>>,
    shut: bool,
}

/// What waits for one member: enough for a mesh of hundreds.
const QUEUE: usize = 16 * 1024;

impl Hub {
    /// An empty one.
    pub fn new() -> Hub {
        Hub::default()
    }

    /// A member with the next id: 1, 2, 3, … in the order of these calls.
    pub fn join(&self) -> LoopbackSignaling {
        let id = {
            let mut members = self.lock();
            members.next = members.next.saturating_add(1);
            members.next
        };
        LoopbackSignaling::new(self.clone(), PeerId::new(id).unwrap_or(PeerId::MAX))
    }

    /// A member with this id. Whoever has it already keeps it: joining fails with
    /// [`SignalingError::IdTaken`], until that one has left.
    pub fn join_as(&self, id: PeerId) -> LoopbackSignaling {
        LoopbackSignaling::new(self.clone(), id)
    }

    /// Signalling is lost: every member's mesh reports [`SignalingLost`](crate::MeshEvent::SignalingLost), and
    /// nobody can join any more.
    pub fn shut_down(&self) {
        let mut members = self.lock();
        members.shut = true;
        members.queues.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One member's end of a [`Hub`]. It leaves when it is dropped.
#[derive(Debug)]
pub struct LoopbackSignaling {
    hub: Hub,
    id: PeerId,
    events: Option<mpsc::Receiver<SignalingEvent>>,
}

impl LoopbackSignaling {
    fn new(hub: Hub, id: PeerId) -> LoopbackSignaling {
        LoopbackSignaling { hub, id, events: None }
    }

    /// The id that it joins with.
    pub fn id(&self) -> PeerId {
        self.id
    }

    fn part(&mut self) {
        if self.events.take().is_some() {
            let mut members = self.hub.lock();
            members.queues.remove(&self.id);
            for (other, queue) in &members.queues {
                tell(queue, *other, SignalingEvent::PeerLeft(self.id));
            }
        }
    }
}

/// Tells a member what nobody would repeat.
fn tell(queue: &mpsc::Sender<SignalingEvent>, member: PeerId, event: SignalingEvent) {
    if let Err(TrySendError::Full(lost)) = queue.try_send(event) {
        tracing::warn!(%member, ?lost, "a member of a hub has {QUEUE} events unread; one more is lost");
    }
}

#[async_trait]
impl Signaling for LoopbackSignaling {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        let (queue, events) = mpsc::channel(QUEUE);
        let mut members = self.hub.lock();
        if members.shut {
            return Err(SignalingError::Closed);
        }
        if members.queues.contains_key(&self.id) {
            return Err(SignalingError::IdTaken(self.id));
        }
        for (other, theirs) in &members.queues {
            tell(&queue, self.id, SignalingEvent::PeerJoined { peer: *other, we_offer: self.id < *other });
            tell(theirs, *other, SignalingEvent::PeerJoined { peer: self.id, we_offer: *other < self.id });
        }
        members.queues.insert(self.id, queue);
        drop(members);
        self.events = Some(events);
        Ok(self.id)
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        let events = self.events.as_mut().ok_or(SignalingError::Closed)?;
        events.recv().await.ok_or(SignalingError::Closed)
    }

    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
        let queue = self.hub.lock().queues.get(&to).cloned().ok_or(SignalingError::UnknownPeer(to))?;
        queue
            .try_send(SignalingEvent::Signal { from: self.id, signal })
            .map_err(|_| SignalingError::Transport(format!("the queue of {to} is full")))
    }

    async fn leave(&mut self) {
        self.part();
    }
}

impl Drop for LoopbackSignaling {
    fn drop(&mut self) {
        self.part();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::connection::{SdpKind, SessionDescription};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_a_full_queue_does_not_take_is_refused_or_logged() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);

        let hub = Hub::new();
        let (mut reads_nothing, mut sends) = (hub.join(), hub.join());
        reads_nothing.join().await.unwrap();
        sends.join().await.unwrap();
        let description = SessionDescription { kind: SdpKind::Offer, sdp: String::new() };
        let signal = Signal::Description(description);
        let mut taken = 1; // its PeerJoined
        while sends.send(reads_nothing.id(), signal.clone()).await.is_ok() {
            taken += 1;
        }
        assert_eq!(taken, QUEUE);
        assert_eq!(log.0.lock().unwrap().len(), 0);
        sends.leave().await;
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains("WARN") && log.contains("PeerLeft"), "{log}");
    }
}
