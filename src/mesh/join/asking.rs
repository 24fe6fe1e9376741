//! What is asked before a connection is made: whether the peer is welcome, and which ICE servers there are.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::StreamExt as _;
use tokio::time::{Duration, Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Driver, News};
use crate::connection::{PeerConnection, PeerConnectionConfig};
use crate::error::ConnectionError;
use crate::id::PeerId;
use crate::signaling::Signaling;

/// Says whether a peer is welcome, or why not.
#[derive(Clone)]
pub(in crate::mesh) struct Admission(
    Arc<dyn Fn(PeerId) -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
);

/// What was asked about one peer.
#[derive(Debug)]
pub(super) struct Asking {
    /// Tells it from what was asked before, about whoever had the id then.
    number: u64,
    /// It was asked whether a new life is welcome.
    new_life: bool,
    answer: Option<Result<PeerConnectionConfig, Denial>>,
}

/// Why no connection is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// The peer is not welcome.
    Refused(String),
    Connection(ConnectionError),
}

/// How long the callback may take.
pub(super) const ADMISSION_LIMIT: Duration = Duration::from_secs(10);

impl Admission {
    pub(in crate::mesh) fn new<F, Asked, E>(callback: F) -> Admission
    where
        F: Fn(PeerId) -> Asked + Send + Sync + 'static,
        Asked: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        Admission(Arc::new(move |peer| {
            let asked = callback(peer);
            Box::pin(async move { asked.await.map_err(|error| error.to_string()) })
        }))
    }

    /// Whoever gives no answer is not welcome. A callback that panics does so in a task of its own.
    async fn ask(self, peer: PeerId) -> Result<(), Denial> {
        let asking = AbortOnDropHandle::new(tokio::spawn(async move { (self.0)(peer).await }));
        match timeout(ADMISSION_LIMIT, asking).await {
            Ok(Ok(answer)) => answer.map_err(Denial::Refused),
            Ok(Err(_)) => Err(Denial::Refused("the callback for admission has panicked".to_owned())),
            Err(_) => {
                let seconds = ADMISSION_LIMIT.as_secs();
                Err(Denial::Refused(format!("the callback for admission took longer than {seconds} s")))
            }
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl<S: Signaling> Driver<S> {
    /// Whether a connection to the peer can be made at once. If not, what is to be asked is asked, and it is looked at
    /// again when that is known. Whether it is welcome is asked for each new life.
    pub(super) fn is_asked(&mut self, peer: PeerId, new_life: bool) -> bool {
        let admission = self.plan.admission.clone().filter(|_| new_life);
        if !self.plan.connection.must_ask() && admission.is_none() {
            return true;
        }
        // What was asked for a former life says nothing of a new one.
        match self.asked.get(&peer).filter(|asking| asking.new_life || !new_life) {
            Some(asking) => asking.answer.is_some(),
            None => {
                self.questions += 1;
                let number = self.questions;
                self.asked.insert(peer, Asking { number, new_life, answer: None });
                let config = self.plan.connection.clone();
                let answers = async move {
                    if let Some(admission) = admission {
                        admission.ask(peer).await?;
                    }
                    config.ask().await.map_err(Denial::Connection)
                };
                let asked = async move { (peer, number, News::Asked(answers.await)) };
                self.news.push(futures::stream::once(asked).boxed());
                false
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        peer: PeerId,
        number: u64,
        answer: Result<PeerConnectionConfig, Denial>,
    ) {
        // Else it has left and come back, or somebody else has, and it was asked anew.
        let Some(asking) = self.asked.get_mut(&peer).filter(|asking| asking.number == number) else { return };
        asking.answer = Some(answer);
        let now = Instant::now();
        if self.waiting.get(peer).is_some() {
            self.waiting.look_at(peer, now);
        } else if let Some(next) = self.links.get_mut(&peer).and_then(|link| link.next.as_mut()) {
            *next = now;
        } else {
            self.asked.remove(&peer);
        }
    }

    pub(super) async fn make(&mut self, peer: PeerId) -> Result<PeerConnection, Denial> {
        let config = match self.asked.remove(&peer).and_then(|asking| asking.answer) {
            Some(config) => config?,
            None => self.plan.connection.clone(),
        };
        PeerConnection::new(config).await.map_err(Denial::Connection)
    }
}
