//! The task that signals: connects every peer that signalling reports, and tries again when an attempt dies.
//!
//! For each remote there is one [`Link`]: the connection of the current attempt. The side that offers decides when an
//! attempt is over (its connection failed, or the attempt limit has passed) and makes a fresh connection, whose offer
//! the other side recognises by its token: it answers with a fresh connection too. The peer in the mesh stays the
//! same through all attempts, until it is connected or the handshake limit is over.
//!
//! A stock Godot or a browser cannot be asked to try again, so its answer to the first offer is what counts.
//!
//! Nothing that one peer does holds up the others. What makes a connection goes through the [`WaitingRoom`]: a peer
//! waits there while the owner has not read of its former lives, while its former life says goodbye, and between one
//! offer of it and the next. What we made ourselves, which is bounded, goes before what signalling brings.
//!
//! If the ICE servers are asked for anew for each connection, that is done aside, and the peer waits for it as for
//! everything else; its retries wait as long.
//!
//! Candidates of a former attempt that name their ICE session (`ufrag`, RFC 8839 section 5.1) are recognised and
//! ignored by the connection. Those that do not are handed on; they cost a few checks that fail.

mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use super::handle::MeshHandle;
use super::meeting::{SealRequest, SignalingStatus};
use crate::connection::{
    ASK_LIMIT, ConnectionState, NotOpened, PeerConnection, PeerConnectionConfig, SdpKind, SessionDescription,
    Signal, UnreliableLifetime,
};
use crate::error::{AddPeerError, ConnectionError, SignalingError};
use crate::event::{MeshEvent, PeerFailure};
use crate::id::PeerId;
use crate::mesh::handle::Command;
use crate::peer::{Farewell, Life, Takeover};
use crate::random;
use crate::signaling::{Signaling, SignalingEvent};
use waiting::{Waiting, WaitingRoom};

/// How links are made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) connection: PeerConnectionConfig,
    pub(super) unreliable_lifetime: UnreliableLifetime,
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
    since: Instant,
    /// When the attempt is over, or the next one begins; `None` once connected.
    next: Option<Instant>,
    /// How many attempts were before this one.
    tries: u32,
}

/// What comes from the connections.
enum News {
    Signal(Signal),
    /// The connection failed or was closed.
    Ended,
    /// How the peer's next connection is made.
    Configured(Result<PeerConnectionConfig, ConnectionError>),
}

type Source = BoxStream<'static, (PeerId, u64, News)>;

/// How the next connection to a peer is made, if the ICE servers are asked for each time.
enum Configuring {
    Asking,
    Asked(Result<PeerConnectionConfig, ConnectionError>),
}

/// What became of a peer that was to be connected.
enum Outcome {
    Begun,
    /// Its former life is in the way, for a moment.
    Blocked,
    Failed,
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

struct Driver<S> {
    signaling: S,
    mesh: MeshHandle,
    plan: Plan,
    /// In order, so that those that are due at once come in order.
    links: BTreeMap<PeerId, Link>,
    waiting: WaitingRoom,
    /// The peers that wait or are linked, while their next connection is configured.
    configuring: HashMap<PeerId, Configuring>,
    /// Those that were reported as failed since they joined, as no connection could be made for them.
    reported: HashSet<PeerId>,
    news: SelectAll<Source>,
    attempts: u64,
    /// What the handles ask of signalling.
    requests: mpsc::Receiver<SealRequest>,
    /// How it stands with signalling.
    standing: Standing,
    /// The owner knows that nobody else can join.
    sealed: bool,
}

/// Whether signalling can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Joined,
    /// Not now.
    Restoring,
    /// Never again.
    Gone,
}

/// A dead attempt is followed by a fresh one after this long, twice as long each time, and up to half of it more, so
/// that many links do not try at the same moment. The other side answers no faster: see [`Driver::take`].
const BACK_OFF: Duration = Duration::from_millis(250);
const MAX_BACK_OFF: Duration = Duration::from_secs(4);

/// How long signalling may take to carry one signal, while all others wait.
const SEND_LIMIT: Duration = Duration::from_secs(2);

/// How long signalling may take, after the last peer has left, to end what it does and to carry our leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether a former life has gone: it takes up to 200 ms, or the farewell time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How much longer than the farewell time a peer waits for a former life to go.
const GOODBYE_SLACK: Duration = Duration::from_secs(2);

/// A peer's task makes the channels of a fresh connection at once, unless it is about to end.
const RENEWAL_LIMIT: Duration = Duration::from_millis(100);

/// Peers that are remembered to have been reported; one more would be reported twice.
const MAX_REPORTED: usize = 1024;

/// Runs until the mesh closes, then leaves signalling; or until the mesh is dropped.
pub(super) async fn run(
    signaling: impl Signaling,
    requests: mpsc::Receiver<SealRequest>,
    mesh: MeshHandle,
    plan: Plan,
) {
    let (gone, stop) = (mesh.shared.gone.clone(), mesh.shared.stop.clone());
    let limit = plan.farewell.min(LEAVE_LIMIT);
    let mut driver = Driver {
        signaling,
        mesh,
        plan,
        links: BTreeMap::new(),
        waiting: WaitingRoom::default(),
        configuring: HashMap::new(),
        reported: HashSet::new(),
        news: SelectAll::new(),
        attempts: 0,
        requests,
        standing: Standing::Joined,
        sealed: false,
    };
    let work = async {
        driver.work().await;
        // Not before: a remote that is not quite connected with us would take it for our end, and what we have sent it
        // would be lost.
        gone.cancelled().await;
        driver.signaling.leave().await;
    };
    // One limit for all that is left to do then, however slow signalling is.
    let limit = async {
        gone.cancelled().await;
        sleep(limit).await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work => {}
        () = limit => tracing::debug!("signalling did not take our leave in time"),
    }
}

impl<S: Signaling> Driver<S> {
    /// Runs until the mesh closes.
    async fn work(&mut self) {
        let shared = self.mesh.shared.clone();
        while !shared.is_closing() {
            // Before it is looked who can be admitted, so that no news is missed.
            let life_read = shared.inbox.life_read.notified();
            tokio::pin!(life_read);
            life_read.as_mut().enable();
            self.take_up().await;
            let attempts = self.links.values().filter_map(|link| link.next);
            let wake = attempts.chain(self.waiting.next(Instant::now())).min();
            tokio::select! {
                biased;
                () = shared.close.cancelled() => return,
                Some((peer, attempt, news)) = self.news.next() => self.heard(peer, attempt, news).await,
                () = until(wake) => self.due().await,
                () = life_read, if !self.waiting.is_empty() => {}
                Some(reply) = self.requests.recv() => self.seal(reply).await,
                event = self.signaling.next(), if self.standing != Standing::Gone => match event {
                    Ok(event) => self.signaled(event).await,
                    Err(error) => self.signaling_is_gone(error),
                },
            }
            // Signalling that always has something lets others run.
            tokio::task::coop::consume_budget().await;
        }
    }

    async fn signaled(&mut self, event: SignalingEvent) {
        match event {
            SignalingEvent::PeerJoined { peer, we_offer } => {
                self.forget_if_gone(peer);
                self.reported.remove(&peer);
                // If we offer, it is there anew, and what we had with it is of its former life. Else its offer tells.
                if we_offer || !(self.links.contains_key(&peer) || self.is_offering(peer)) {
                    self.waiting.put(peer, Waiting::new(we_offer, None, Instant::now()));
                }
            }
            SignalingEvent::PeerReturned { peer, we_offer } => {
                self.forget_if_gone(peer);
                self.reported.remove(&peer);
                let there = self.links.contains_key(&peer) || self.waiting.get(peer).is_some();
                if !there && !self.mesh.shared.registry().contains_key(&peer) {
                    self.waiting.put(peer, Waiting::new(we_offer, None, Instant::now()));
                }
            }
            SignalingEvent::PeerLeft(peer) => {
                self.forget_if_gone(peer);
                self.reported.remove(&peer);
                self.waiting.remove(peer);
                self.configuring.remove(&peer);
                if self.is_connecting(peer) {
                    match self.links.get_mut(&peer) {
                        // It is on the way, and knows better than signalling; but it is not asked again.
                        Some(link) if link.connection.reaches_remote() => link.next = None,
                        _ => {
                            self.links.remove(&peer);
                            self.dismiss(peer, Farewell::Removed).await;
                        }
                    }
                }
            }
            SignalingEvent::Signal { from, signal } => self.take(from, signal).await,
            SignalingEvent::Lost(error) if self.standing == Standing::Joined => {
                tracing::info!(%error, "signalling is lost, and tried to be reached again");
                self.standing = Standing::Restoring;
                self.mesh.shared.meeting.set_status(SignalingStatus::Restoring(error));
                self.mesh.shared.inbox.event(MeshEvent::SignalingLost);
            }
            SignalingEvent::Restored if self.standing == Standing::Restoring => {
                tracing::info!("signalling is restored");
                self.standing = Standing::Joined;
                self.mesh.shared.meeting.set_status(SignalingStatus::Joined);
                self.mesh.shared.inbox.event(MeshEvent::SignalingRestored);
            }
            SignalingEvent::Sealed if !self.sealed => {
                self.sealed = true;
                self.mesh.shared.inbox.event(MeshEvent::LobbySealed);
            }
            SignalingEvent::Lost(_) | SignalingEvent::Restored | SignalingEvent::Sealed => {}
        }
    }

    fn signaling_is_gone(&mut self, error: SignalingError) {
        tracing::info!(%error, "signalling is lost");
        self.mesh.shared.meeting.set_status(SignalingStatus::Lost(error));
        self.mesh.shared.inbox.signaling_is_gone();
        self.standing = Standing::Gone;
        self.waiting.clear();
    }

    async fn seal(&mut self, reply: SealRequest) {
        let close = self.mesh.shared.close.clone();
        let sealed = tokio::select! {
            biased;
            () = close.cancelled() => Err(SignalingError::Closed),
            sealed = timeout(SEND_LIMIT, self.signaling.seal()) => {
                sealed.unwrap_or(Err(SignalingError::TimedOut { limit: SEND_LIMIT }))
            }
        };
        let _ = reply.send(sealed);
    }

    /// A peer's signal goes to the connection that it is for.
    ///
    /// An offer of another connection than ours is for a fresh one, which is made [`BACK_OFF`] after the one before:
    /// until then the last such offer counts.
    async fn take(&mut self, from: PeerId, signal: Signal) {
        self.forget_if_gone(from);
        let Signal::Description(description @ SessionDescription { kind: SdpKind::Offer, .. }) = &signal
        else {
            if let Some(signal) = self.waiting.keep(from, signal) {
                self.hand_on(from, signal).await;
            }
            return;
        };
        let not_before = match self.links.get(&from) {
            None => Instant::now(),
            Some(link) if !link.we_offer && link.connection.is_other_offer(description).await => {
                link.since + BACK_OFF
            }
            Some(_) => return self.hand_on(from, signal).await,
        };
        match self.waiting.get(from) {
            Some(waiting) if waiting.we_offer => {
                tracing::debug!(peer = %from, "the offer of a peer that we offer to is ignored");
            }
            Some(waiting) if waiting.signals.first() == Some(&signal) => {}
            // It waits for what the one before waited for.
            Some(&Waiting { not_before, blocked_since, .. }) => {
                let waiting = Waiting { blocked_since, ..Waiting::new(false, Some(signal), not_before) };
                self.waiting.put(from, waiting);
            }
            None => self.waiting.put(from, Waiting::new(false, Some(signal), not_before)),
        }
    }

    async fn hand_on(&mut self, from: PeerId, signal: Signal) {
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

    /// Connects those who need not wait any more.
    async fn take_up(&mut self) {
        for peer in self.waiting.due(Instant::now()) {
            if self.mesh.shared.is_closing() {
                return;
            }
            if !self.mesh.shared.inbox.admits(peer) && !self.mesh.refuse_new_connections() {
                continue;
            }
            if !self.is_configured(peer) {
                self.waiting.look_at(peer, Instant::now() + ASK_LIMIT + GOODBYE_SLACK);
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
            Err(error) => Err(AddPeerError::Connection(error)),
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
                Outcome::Failed
            }
            Err(error) => {
                tracing::debug!(%peer, %error, "a peer is not connected");
                Outcome::Failed
            }
        }
    }

    /// Whether a connection to the peer can be made at once. If not, its ICE servers are asked for, and it is looked at
    /// again when they are known.
    fn is_configured(&mut self, peer: PeerId) -> bool {
        if !self.plan.connection.must_ask() {
            return true;
        }
        match self.configuring.get(&peer) {
            Some(Configuring::Asked(_)) => true,
            Some(Configuring::Asking) => false,
            None => {
                self.configuring.insert(peer, Configuring::Asking);
                let asking = self.plan.connection.clone().ask();
                let asked = async move { (peer, 0, News::Configured(asking.await)) };
                self.news.push(futures::stream::once(asked).boxed());
                false
            }
        }
    }

    fn configured(&mut self, peer: PeerId, config: Result<PeerConnectionConfig, ConnectionError>) {
        // Else it was asked for twice, as it has left and come back.
        if !matches!(self.configuring.get(&peer), Some(Configuring::Asking)) {
            return;
        }
        self.configuring.insert(peer, Configuring::Asked(config));
        let now = Instant::now();
        if self.waiting.get(peer).is_some() {
            self.waiting.look_at(peer, now);
        } else if let Some(next) = self.links.get_mut(&peer).and_then(|link| link.next.as_mut()) {
            *next = now;
        } else {
            self.configuring.remove(&peer);
        }
    }

    async fn make(&mut self, peer: PeerId) -> Result<PeerConnection, ConnectionError> {
        let config = match self.configuring.remove(&peer) {
            Some(Configuring::Asked(config)) => config?,
            _ => self.plan.connection.clone(),
        };
        PeerConnection::new(config).await
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
                self.links.remove(&peer);
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
    async fn retry(&mut self, peer: PeerId) {
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
            Err(error) => {
                tracing::debug!(%peer, %error, "no fresh connection could be made");
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

    /// Tells a peer to leave, and does not wait for it.
    async fn dismiss(&mut self, peer: PeerId, farewell: Farewell) {
        let (gone, _) = oneshot::channel();
        let _ = self.mesh.shared.commands.send(Command::Remove { peer, begun: None, farewell, gone }).await;
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
        let since = Instant::now();
        self.links.insert(peer, Link { life, connection, we_offer, attempt, since, next, tries });
        if let Err(error) = offered {
            tracing::debug!(%peer, %error, "no offer could be made");
            self.back_off(peer);
        }
    }

    async fn heard(&mut self, peer: PeerId, attempt: u64, news: News) {
        let current = self.links.get(&peer).is_some_and(|link| link.attempt == attempt);
        match news {
            // A signal of an attempt that was given up, or of a link that is gone.
            News::Signal(_) if !current || self.standing == Standing::Gone => {}
            News::Signal(signal) => {
                let limit = SEND_LIMIT.min(self.plan.attempt_limit);
                let close = self.mesh.shared.close.clone();
                tokio::select! {
                    biased;
                    () = close.cancelled() => tracing::debug!(%peer, "a signal was not sent: the mesh closes"),
                    sent = timeout(limit, self.signaling.send(peer, signal)) => match sent {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a signal was not sent"),
                        Err(_) => tracing::debug!(%peer, "a signal was not sent in time"),
                    },
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
            News::Configured(config) => self.configured(peer, config),
        }
    }

    /// Some attempt is over, or some pause before the next.
    async fn due(&mut self) {
        let now = Instant::now();
        let due = self.links.iter().filter(|(_, link)| link.next.is_some_and(|next| next <= now));
        let peers: Vec<PeerId> = due.map(|(peer, _)| *peer).collect();
        for peer in peers {
            if self.is_connecting(peer) && self.can_retry(peer) && self.standing != Standing::Gone {
                if self.is_configured(peer) {
                    self.retry(peer).await;
                } else if let Some(link) = self.links.get_mut(&peer) {
                    link.next = Some(now + ASK_LIMIT + GOODBYE_SLACK);
                }
            } else if let Some(link) = self.links.get_mut(&peer) {
                link.next = None;
                if self.waiting.get(peer).is_none() {
                    self.configuring.remove(&peer);
                }
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
        let Some(link) = self.links.get_mut(&peer) else { return };
        let pause = (BACK_OFF * 2_u32.saturating_pow(link.tries.min(8))).min(MAX_BACK_OFF);
        let pause = pause + pause.mul_f64(random::fraction() / 2.0);
        link.next = Some(Instant::now() + pause);
    }

    /// Whether the peer's offer waits.
    fn is_offering(&self, peer: PeerId) -> bool {
        self.waiting.get(peer).is_some_and(|waiting| !waiting.signals.is_empty())
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
