//! The attempts to connect a peer: the first connection of a life, and the fresh ones that follow it.

use futures::stream::StreamExt as _;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout};

use super::asking::{ADMISSION_LIMIT, Denial};
use super::{BACK_OFF, Driver, Link, News, Source};
use crate::connection::{ASK_LIMIT, Condition, ConnectionState, NotOpened, PeerConnection};
use crate::error::AddPeerError;
use crate::event::PeerFailure;
use crate::id::PeerId;
use crate::mesh::handle::Command;
use crate::mesh::meeting::Fate;
use crate::peer::{Farewell, Life, Takeover};
use crate::random;
use crate::signaling::Signaling;

/// What became of a peer that was to be connected.
enum Outcome {
    Begun,
    /// Its former life is in the way, for a moment.
    Blocked,
    Failed,
    /// No connection could be made now.
    Unable,
}

/// What became of a fresh connection for a peer that is connecting.
enum Renewal {
    Made(PeerConnection),
    /// It is connected, or says goodbye.
    NotConnecting,
    /// It has just ended, or is not heard.
    Blocked,
    Failed,
}

/// The longest pause between two attempts, see [`BACK_OFF`]: a few of them fit into the handshake limit.
const MAX_BACK_OFF: Duration = Duration::from_secs(4);

/// How often it is looked whether a former life has gone: it takes up to 200 ms, or the farewell time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How much longer than the farewell time a peer waits for a former life to go.
const GOODBYE_SLACK: Duration = Duration::from_secs(2);
/// How long the answers to what is asked before a connection are waited for.
pub(super) const ANSWERS_LIMIT: Duration =
    Duration::from_secs(ASK_LIMIT.as_secs() + ADMISSION_LIMIT.as_secs() + GOODBYE_SLACK.as_secs());

/// A peer's task makes the channels of a fresh connection at once, unless it is about to end.
const RENEWAL_LIMIT: Duration = Duration::from_millis(100);

/// Peers that are remembered to have been reported; one more would be reported twice.
const MAX_REPORTED: usize = 1024;

impl<S: Signaling> Driver<S> {
    /// Connects those who need not wait any more.
    pub(super) async fn take_up(&mut self) {
        for peer in self.waiting.due(Instant::now()) {
            if self.mesh.shared.is_closing() {
                return;
            }
            if !self.mesh.shared.inbox.admits(peer) && !self.mesh.refuse_new_connections() {
                continue;
            }
            self.forget_if_gone(peer);
            // One that is connected, or leaves, is to be replaced.
            if !self.is_asked(peer, !self.is_connecting(peer)) {
                self.waiting.look_at(peer, Instant::now() + ANSWERS_LIMIT);
                continue;
            }
            let Some(waiting) = self.waiting.remove(peer) else { continue };
            self.forget_if_gone(peer);
            let outcome = if self.links.contains_key(&peer) {
                self.restart(peer, waiting.we_offer).await
            } else {
                self.connect(peer, waiting.we_offer).await
            };
            match outcome {
                Outcome::Begun => {
                    for signal in waiting.signals {
                        self.hand_on(peer, signal).await;
                    }
                }
                Outcome::Blocked => {
                    let limit = self.plan.farewell + GOODBYE_SLACK;
                    match waiting.blocked(LOOK_AGAIN, limit) {
                        Some(waiting) => self.waiting.put(peer, waiting),
                        None => tracing::debug!(%peer, "a peer is not connected: it is in the mesh already"),
                    }
                }
                Outcome::Failed => {}
                Outcome::Unable => self.begin_next_life(peer, Fate::Failed),
            }
        }
    }

    /// Adds a peer with its first connection.
    async fn connect(&mut self, peer: PeerId, we_offer: bool) -> Outcome {
        if self.mesh.shared.registry().contains_key(&peer) {
            return Outcome::Blocked;
        }
        let added = match self.make(peer).await {
            Ok(connection) => {
                let lifetime = self.plan.unreliable_lifetime;
                let adding = self.mesh.add(connection.clone(), peer, lifetime, true);
                adding.await.map(|life| (life, connection))
            }
            Err(Denial::Connection(error)) => Err(AddPeerError::Connection(error)),
            Err(Denial::Refused(reason)) => {
                tracing::debug!(%peer, reason, "a peer is not welcome");
                self.report(peer, PeerFailure::Refused(reason)).await;
                return Outcome::Failed;
            }
        };
        match added {
            // Whoever does not offer waits for the offer, and not for ever: the handshake limit runs for both.
            Ok((life, connection)) => {
                self.reported.remove(&peer);
                self.begin(peer, life, connection, we_offer, 0).await;
                Outcome::Begun
            }
            Err(AddPeerError::AlreadyExists(_)) => Outcome::Blocked,
            Err(AddPeerError::Connection(error)) => {
                tracing::debug!(%peer, %error, "no connection could be made");
                self.report(peer, PeerFailure::Connection(error)).await;
                Outcome::Unable
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "a peer is not connected");
                Outcome::Failed
            }
        }
    }

    /// Tells the owner, once for a `PeerJoined` and the offers after it.
    async fn report(&mut self, peer: PeerId, failure: PeerFailure) {
        if self.reported.contains(&peer) {
            return;
        }
        if self.reported.len() < MAX_REPORTED {
            self.reported.insert(peer);
        }
        let _ = self.mesh.shared.commands.send(Command::Fail { peer, failure }).await;
    }

    /// Puts a fresh connection in the place of one that is being made, or of a former life's, as the remote is there
    /// anew.
    async fn restart(&mut self, peer: PeerId, we_offer: bool) -> Outcome {
        let Some(link) = self.links.get(&peer) else { return Outcome::Failed };
        let (life, tries) = (link.life, link.tries + 1);
        let renewal = match self.is_connecting(peer) {
            true => self.renew(peer, life).await,
            false => Renewal::NotConnecting,
        };
        match renewal {
            Renewal::Made(connection) => {
                self.begin(peer, life, connection, we_offer, tries).await;
                Outcome::Begun
            }
            Renewal::NotConnecting => {
                self.dismiss(peer, Farewell::Replaced).await;
                Outcome::Blocked
            }
            Renewal::Blocked => Outcome::Blocked,
            Renewal::Failed => {
                self.back_off(peer);
                Outcome::Failed
            }
        }
    }

    /// The next attempt of the side that offers.
    pub(super) async fn retry(&mut self, peer: PeerId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.tries += 1;
        let (life, we_offer, tries) = (link.life, link.we_offer, link.tries);
        match self.renew(peer, life).await {
            Renewal::Made(connection) => self.begin(peer, life, connection, we_offer, tries).await,
            // If it is connected or gone, that is seen then.
            _ => self.back_off(peer),
        }
    }

    /// Gives a peer that is connecting a fresh connection.
    async fn renew(&mut self, peer: PeerId, life: Life) -> Renewal {
        let connection = match self.make(peer).await {
            Ok(connection) => connection,
            Err(denial) => {
                tracing::debug!(%peer, ?denial, "no fresh connection could be made");
                return Renewal::Failed;
            }
        };
        let entry = self.mesh.shared.registry().get(&peer).filter(|entry| entry.life == life).cloned();
        let Some(entry) = entry else { return Renewal::Blocked };
        let (made, channels_made) = oneshot::channel();
        let fresh = Takeover {
            connection: connection.clone(),
            unreliable_lifetime: self.plan.unreliable_lifetime,
            made,
        };
        if !entry.peer.renew(fresh) {
            return Renewal::Blocked;
        }
        match timeout(RENEWAL_LIMIT, channels_made).await {
            Ok(Ok(Ok(()))) => {
                entry.set_connection(connection.clone());
                Renewal::Made(connection)
            }
            Ok(Ok(Err(NotOpened::NotNew))) => Renewal::NotConnecting,
            Ok(Ok(Err(NotOpened::Failed(error)))) => {
                tracing::debug!(%peer, %error, "no channels could be made");
                Renewal::Failed
            }
            Ok(Err(_)) | Err(_) => Renewal::Blocked,
        }
    }

    /// Tells a linked peer to leave, and does not wait for it.
    pub(super) async fn dismiss(&mut self, peer: PeerId, farewell: Farewell) {
        let Some(link) = self.links.remove(&peer) else { return };
        let (gone, _) = oneshot::channel();
        let begun = Some(link.life);
        let _ = self.mesh.shared.commands.send(Command::Remove { peer, begun, farewell, gone }).await;
    }

    /// Follows a connection whose channels are made, and offers if that is our part.
    async fn begin(
        &mut self,
        peer: PeerId,
        life: Life,
        connection: PeerConnection,
        we_offer: bool,
        tries: u32,
    ) {
        self.attempts += 1;
        let attempt = self.attempts;
        tracing::debug!(%peer, tries, we_offer, "an attempt begins");
        self.news.push(signals_of(peer, attempt, &connection));
        self.news.push(end_of(peer, attempt, &connection));
        self.news.push(silences_of(peer, attempt, &connection));
        // The longer it takes, the more time each has: a slow way needs it.
        let limit = self.plan.attempt_limit * 2_u32.pow(tries.min(2));
        let next = we_offer.then(|| Instant::now() + limit);
        let offered = if we_offer { connection.create_offer().await } else { Ok(()) };
        let since = Instant::now();
        let link = Link {
            life,
            connection,
            we_offer,
            attempt,
            since,
            next,
            tries,
            restart: None,
            restarts: 0,
            hastened: false,
        };
        self.links.insert(peer, link);
        if let Err(error) = offered {
            tracing::debug!(%peer, %error, "no offer could be made");
            self.back_off(peer);
        }
    }

    /// A peer that is not of this crate takes one offer for each connection, and makes one connection; so what it
    /// has answered has until the handshake limit.
    pub(super) fn can_retry(&self, peer: PeerId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.we_offer && !link.connection.is_foreign())
    }

    /// The next attempt of the side that offers begins a little later.
    pub(super) fn back_off(&mut self, peer: PeerId) {
        if !self.can_retry(peer) {
            return;
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        let pause = (BACK_OFF * 2_u32.saturating_pow(link.tries.min(8))).min(MAX_BACK_OFF);
        let pause = pause + pause.mul_f64(random::fraction() / 2.0);
        link.next = Some(Instant::now() + pause);
    }
}

fn signals_of(peer: PeerId, attempt: u64, connection: &PeerConnection) -> Source {
    connection.signals().map(move |signal| (peer, attempt, News::Signal(signal))).boxed()
}

/// Whenever the remote falls silent, or is heard again, until the connection is over.
fn silences_of(peer: PeerId, attempt: u64, connection: &PeerConnection) -> Source {
    let over =
        |condition: &Condition| matches!(condition.state, ConnectionState::Failed | ConnectionState::Closed);
    let changes =
        futures::stream::unfold((connection.watch(), false), move |(mut condition, was)| async move {
            let silent = {
                let changed = condition.wait_for(|condition| over(condition) || condition.silent != was);
                changed.await.ok().filter(|condition| !over(condition))?.silent
            };
            Some(((peer, attempt, News::Silent(silent)), (condition, silent)))
        });
    changes.boxed()
}

fn end_of(peer: PeerId, attempt: u64, connection: &PeerConnection) -> Source {
    let mut condition = connection.watch();
    let ended = async move {
        let over = |state| matches!(state, ConnectionState::Failed | ConnectionState::Closed);
        let _ = condition.wait_for(|condition| over(condition.state)).await;
        (peer, attempt, News::Ended)
    };
    futures::stream::once(ended).boxed()
}
