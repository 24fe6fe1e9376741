//! The task that signals: connects every peer that signalling reports, and tries again when an attempt dies.
//!
//! For each remote there is one [`Link`]: the connection of the current attempt. The side that offers decides when an
//! attempt is over (its connection failed, or the attempt limit has passed) and makes a fresh connection, whose offer
//! the other side recognises by its token: it answers with a fresh connection too. The peer in the mesh stays the
//! same through all attempts, until it is connected or the handshake limit is over.
//!
//! A stock Godot or a browser cannot be asked to try again, so its answer to the first offer is what counts.

use std::collections::HashMap;

use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::handle::MeshHandle;
use crate::connection::{
    ConnectionState, PeerConnection, PeerConnectionConfig, SdpKind, SessionDescription, Signal,
    UnreliableLifetime,
};
use crate::error::{AddPeerError, ConnectionError};
use crate::event::{MeshEvent, PeerFailure};
use crate::id::PeerId;
use crate::mesh::handle::Command;
use crate::peer::{Farewell, Life, Takeover};
use crate::signaling::{Signaling, SignalingEvent};

/// How links are made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) connection: PeerConnectionConfig,
    pub(super) attempt_limit: Duration,
    pub(super) farewell: Duration,
}

/// A remote that is being connected, or was.
#[derive(Debug)]
struct Link {
    life: Life,
    connection: PeerConnection,
    we_offer: bool,
    /// Counts the connections of all links, to tell what belongs to which.
    attempt: u64,
    /// When the attempt is over, or the next one begins; `None` once connected.
    next: Option<Instant>,
    tries: u32,
}

/// What comes from the connections.
enum News {
    Signal(Signal),
    /// The connection failed or was closed.
    Ended,
}

type Source = BoxStream<'static, (PeerId, u64, News)>;

struct Driver<S> {
    signaling: S,
    mesh: MeshHandle,
    plan: Plan,
    links: HashMap<PeerId, Link>,
    news: SelectAll<Source>,
    attempts: u64,
}

/// A dead attempt is followed by a fresh one after this long, twice as long each time, and up to half of it more, so
/// that many links do not try at the same moment.
const BACK_OFF: Duration = Duration::from_millis(250);
const MAX_BACK_OFF: Duration = Duration::from_secs(4);

/// Runs until the mesh closes or is dropped, or signalling is lost.
pub(super) async fn run(signaling: impl Signaling, mesh: MeshHandle, plan: Plan) {
    let driver = Driver { signaling, mesh, plan, links: HashMap::new(), news: SelectAll::new(), attempts: 0 };
    driver.run().await;
}

impl<S: Signaling> Driver<S> {
    async fn run(mut self) {
        let (close, stop) = (self.mesh.shared.close.clone(), self.mesh.shared.stop.clone());
        let mut lost = false;
        loop {
            let wake = self.links.values().filter_map(|link| link.next).min();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = close.cancelled() => break,
                event = self.signaling.next(), if !lost => match event {
                    Ok(event) => self.signaled(event).await,
                    Err(error) => {
                        tracing::info!(%error, "signalling is lost");
                        self.mesh.shared.inbox.event(MeshEvent::SignalingLost);
                        lost = true;
                    }
                },
                Some((peer, attempt, news)) = self.news.next() => self.heard(peer, attempt, news, lost).await,
                () = until(wake) => self.due(lost).await,
            }
        }
        if timeout(self.plan.farewell, self.signaling.leave()).await.is_err() {
            tracing::debug!("signalling did not take our leave in time");
        }
    }

    async fn signaled(&mut self, event: SignalingEvent) {
        match event {
            SignalingEvent::PeerJoined { peer, we_offer } => {
                self.forget_if_gone(peer);
                if !self.links.contains_key(&peer) {
                    // Whoever does not offer waits for the offer, and not for ever: the handshake limit runs for both.
                    self.connect(peer, we_offer).await;
                } else if we_offer {
                    // It is there anew, so what we had with it is of its former life.
                    self.restart(peer).await;
                }
                // Else its offer tells whether it is there anew.
            }
            SignalingEvent::PeerLeft(peer) => {
                self.forget_if_gone(peer);
                if self.is_connecting(peer) {
                    self.links.remove(&peer);
                    let _ = self.mesh.dismiss(peer, Farewell::Removed).await;
                }
            }
            SignalingEvent::Signal { from, signal } => self.take(from, signal).await,
        }
    }

    /// A peer's signal goes to the connection that it is for.
    async fn take(&mut self, from: PeerId, signal: Signal) {
        self.forget_if_gone(from);
        if let Signal::Description(description @ SessionDescription { kind: SdpKind::Offer, .. }) = &signal {
            match self.links.get(&from) {
                None => self.connect(from, false).await,
                Some(link) if !link.we_offer && link.connection.is_other_offer(description).await => {
                    self.restart(from).await;
                }
                Some(_) => {}
            }
        }
        let Some(link) = self.links.get(&from) else {
            tracing::debug!(peer = %from, "a signal of a peer that is not being connected is ignored");
            return;
        };
        match link.connection.handle_signal(signal).await {
            // Candidates of a former attempt.
            Ok(()) | Err(ConnectionError::Closed) => {}
            Err(error) => tracing::debug!(peer = %from, %error, "a signal is ignored"),
        }
    }

    /// Adds a peer with its first connection.
    async fn connect(&mut self, peer: PeerId, we_offer: bool) {
        let added = match PeerConnection::new(self.plan.connection.clone()).await {
            Ok(connection) => {
                let lifetime = UnreliableLifetime::default();
                // Waits, if need be, until the owner has read of this peer's former lives; so does all signalling.
                let adding = self.mesh.add(connection.clone(), peer, lifetime, true);
                adding.await.map(|life| (life, connection))
            }
            Err(error) => Err(AddPeerError::Connection(error)),
        };
        match added {
            Ok((life, connection)) => self.begin(peer, life, connection, we_offer, 0).await,
            Err(AddPeerError::Connection(error)) => {
                let failure = PeerFailure::Connection(error);
                self.mesh.admission(peer).await;
                let _ = self.mesh.shared.commands.send(Command::Fail { peer, failure }).await;
            }
            Err(error) => tracing::debug!(%peer, %error, "a peer is not connected"),
        }
    }

    /// Puts a fresh connection in the place of one that is being made, or of a former life's.
    async fn restart(&mut self, peer: PeerId) {
        let Some(link) = self.links.get(&peer) else { return };
        let (we_offer, life, tries) = (link.we_offer, link.life, link.tries + 1);
        if !self.is_connecting(peer) {
            self.links.remove(&peer);
            let _ = self.mesh.dismiss(peer, Farewell::Replaced).await;
            self.connect(peer, we_offer).await;
            return;
        }
        let fresh = match PeerConnection::new(self.plan.connection.clone()).await {
            Ok(connection) => self.renew(peer, life, connection).await,
            Err(error) => {
                tracing::debug!(%peer, %error, "no fresh connection could be made");
                None
            }
        };
        match fresh {
            Some(connection) => self.begin(peer, life, connection, we_offer, tries).await,
            None => self.back_off(peer),
        }
    }

    async fn renew(
        &mut self,
        peer: PeerId,
        life: Life,
        connection: PeerConnection,
    ) -> Option<PeerConnection> {
        let entry = self.mesh.shared.registry().get(&peer).filter(|entry| entry.life == life).cloned()?;
        let (made, channels_made) = oneshot::channel();
        let fresh = Takeover {
            connection: connection.clone(),
            unreliable_lifetime: UnreliableLifetime::default(),
            made,
        };
        if !entry.peer.renew(fresh) {
            return None;
        }
        channels_made.await.ok()?.ok()?;
        entry.set_connection(connection.clone());
        Some(connection)
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
        let next = we_offer.then(|| Instant::now() + self.plan.attempt_limit);
        let offered = if we_offer { connection.create_offer().await } else { Ok(()) };
        self.links.insert(peer, Link { life, connection, we_offer, attempt, next, tries });
        if let Err(error) = offered {
            tracing::debug!(%peer, %error, "no offer could be made");
            self.back_off(peer);
        }
    }

    async fn heard(&mut self, peer: PeerId, attempt: u64, news: News, lost: bool) {
        let current = self.links.get(&peer).is_some_and(|link| link.attempt == attempt);
        match news {
            // A signal of an attempt that was given up, or of a link that is gone.
            News::Signal(_) if !current || lost => {}
            News::Signal(signal) => {
                match timeout(self.plan.attempt_limit, self.signaling.send(peer, signal)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a signal was not sent"),
                    Err(_) => tracing::debug!(%peer, "a signal was not sent in time"),
                }
            }
            News::Ended if current => {
                if self.is_connecting(peer) {
                    self.back_off(peer);
                } else {
                    self.links.remove(&peer);
                }
            }
            News::Ended => {}
        }
    }

    /// Some attempt is over, or some pause before the next.
    async fn due(&mut self, lost: bool) {
        let now = Instant::now();
        let due = self.links.iter().filter(|(_, link)| link.next.is_some_and(|next| next <= now));
        let peers: Vec<PeerId> = due.map(|(peer, _)| *peer).collect();
        for peer in peers {
            if self.is_connecting(peer) && self.can_retry(peer) && !lost {
                self.restart(peer).await;
            } else if let Some(link) = self.links.get_mut(&peer) {
                link.next = None;
            }
            self.forget_if_gone(peer);
        }
    }

    /// A peer that is not of this crate takes one offer for each connection, and makes one connection; so what it
    /// has answered has until the handshake limit.
    fn can_retry(&self, peer: PeerId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.we_offer && !link.connection.is_foreign())
    }

    /// The next attempt of the side that offers begins a little later.
    fn back_off(&mut self, peer: PeerId) {
        if !self.can_retry(peer) {
            return;
        }
        let Some(link) = self.links.get_mut(&peer).filter(|link| link.we_offer) else { return };
        let pause = (BACK_OFF * 2_u32.saturating_pow(link.tries.min(8))).min(MAX_BACK_OFF);
        let pause = pause + pause.mul_f64(rand::random::<f64>() / 2.0);
        link.tries += 1;
        link.next = Some(Instant::now() + pause);
    }

    /// Whether the link's peer is in the mesh and not connected yet.
    fn is_connecting(&self, peer: PeerId) -> bool {
        let Some(link) = self.links.get(&peer) else { return false };
        let registry = self.mesh.shared.registry();
        registry.get(&peer).is_some_and(|entry| entry.life == link.life && !entry.is_connected())
    }

    /// A link whose peer has left the mesh is none.
    fn forget_if_gone(&mut self, peer: PeerId) {
        let Some(link) = self.links.get(&peer) else { return };
        let there = self.mesh.shared.registry().get(&peer).is_some_and(|entry| entry.life == link.life);
        if !there {
            self.links.remove(&peer);
        }
    }
}

fn signals_of(peer: PeerId, attempt: u64, connection: &PeerConnection) -> Source {
    connection.signals().map(move |signal| (peer, attempt, News::Signal(signal))).boxed()
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

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
