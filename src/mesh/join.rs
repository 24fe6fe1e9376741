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
//! A link that is lost, or could not be made for a reason that may pass, is made anew as long as signalling says that the
//! peer is there ([`Acquaintances`]): each time as a new life of the peer. The side that lost it offers, as the other may
//! not have noticed; both at once is resolved ([`descriptions`]). When the waiting room is full there is a warning in the
//! log, and no next life until signalling reports the peer again. A connected peer that falls silent has its grace
//! time, in which ICE is restarted ([`restarts`]).
//!
//! Candidates of a former attempt that name their ICE session (`ufrag`, RFC 8839 section 5.1) are recognised and
//! ignored by the connection. Those that do not are handed on; they cost a few checks that fail.

mod acquaintances;
mod asking;
mod attempts;
mod descriptions;
mod relayed;
mod restarts;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};

use super::handle::MeshHandle;
use super::meeting::{Fate, Letters, SealRequest, SignalingStatus};
use crate::connection::{PeerConnection, PeerConnectionConfig, Signal, UnreliableLifetime};
use crate::error::SignalingError;
use crate::event::MeshEvent;
use crate::id::PeerId;
use crate::peer::{Farewell, Life};
use crate::random;
use crate::signaling::{Signaling, SignalingEvent};
use acquaintances::{Acquaintances, NextLife};
pub(super) use asking::Admission;
use asking::{Asking, Denial};
use attempts::ANSWERS_LIMIT;
use waiting::{Waiting, WaitingRoom};

/// How links are made.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) connection: PeerConnectionConfig,
    pub(super) unreliable_lifetime: UnreliableLifetime,
    pub(super) attempt_limit: Duration,
    pub(super) farewell: Duration,
    pub(super) admission: Option<Admission>,
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
    /// The next attempt begins early, unless there is an answer.
    hastened: bool,
    /// When the next restart of ICE is offered, while the peer is silent.
    restart: Option<Instant>,
    /// How many there were when that was looked at last.
    restarts: u32,
}

/// What comes from the connections.
enum News {
    Signal(Signal),
    /// The connection failed or was closed.
    Ended,
    /// The remote is silent, or heard again.
    Silent(bool),
    /// How the peer's next connection is made, if it is.
    Asked(Result<PeerConnectionConfig, Denial>),
}

type Source = BoxStream<'static, (PeerId, u64, News)>;

struct Driver<S> {
    signaling: S,
    mesh: MeshHandle,
    plan: Plan,
    /// In order, so that those that are due at once come in order.
    links: BTreeMap<PeerId, Link>,
    waiting: WaitingRoom,
    /// The peers that wait or are linked, while it is asked about their next connection.
    asked: HashMap<PeerId, Asking>,
    /// Counts what was asked.
    questions: u64,
    known: Acquaintances,
    /// Those that were reported as failed since they joined, as no connection could be made for them.
    reported: HashSet<PeerId>,
    news: SelectAll<Source>,
    attempts: u64,
    /// What others want of us.
    letters: Letters,
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

/// How long signalling may take to carry one signal, while all others wait.
const SEND_LIMIT: Duration = Duration::from_secs(2);

/// How long signalling may take, after the last peer has left, to end what it does and to carry our leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Runs until the mesh closes, then leaves signalling; or until the mesh is dropped.
pub(super) async fn run(signaling: impl Signaling, letters: Letters, mesh: MeshHandle, plan: Plan) {
    let (gone, stop) = (mesh.shared.gone.clone(), mesh.shared.stop.clone());
    let limit = plan.farewell.min(LEAVE_LIMIT);
    let mut driver = Driver {
        signaling,
        mesh,
        plan,
        links: BTreeMap::new(),
        waiting: WaitingRoom::default(),
        asked: HashMap::new(),
        questions: 0,
        known: Acquaintances::default(),
        reported: HashSet::new(),
        news: SelectAll::new(),
        attempts: 0,
        letters,
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
            self.look_who_ended();
            self.take_up().await;
            let attempts = self.links.values().flat_map(|link| [link.next, link.restart]).flatten();
            let wake = attempts.chain(self.waiting.next(Instant::now())).min();
            tokio::select! {
                biased;
                () = shared.close.cancelled() => return,
                Some((peer, attempt, news)) = self.news.next() => self.heard(peer, attempt, news).await,
                () = until(wake) => self.due().await,
                () = life_read, if !self.waiting.is_empty() => {}
                () = shared.meeting.ended.notified() => {}
                Some((from, body)) = self.letters.relayed.recv() => self.take_relayed(from, body).await,
                Some(reply) = self.letters.requests.recv() => self.seal(reply).await,
                event = self.signaling.next(), if self.standing != Standing::Gone => match event {
                    Ok(event) => self.signaled(event).await,
                    Err(error) => self.signaling_is_gone(error),
                },
            }
            // Signalling that always has something lets others run.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Whose life has ended, and may begin again by itself.
    fn look_who_ended(&mut self) {
        for (peer, (life, fate)) in self.mesh.shared.meeting.take_ends() {
            if self.links.get(&peer).is_some_and(|link| link.life == life) {
                self.links.remove(&peer);
            }
            self.begin_next_life(peer, fate);
        }
    }

    /// After a pause, if it is one that begins by itself.
    fn begin_next_life(&mut self, peer: PeerId, fate: Fate) {
        let next = self.known.ended(peer, fate, random::fraction());
        let free = self.waiting.get(peer).is_none() && !self.links.contains_key(&peer);
        if let Some(NextLife { after, we_offer }) = next
            && free
            && self.can_signal()
        {
            tracing::debug!(%peer, ?after, "its next life begins");
            self.waiting.put(peer, Waiting::new(we_offer, None, Instant::now() + after));
        }
    }

    async fn signaled(&mut self, event: SignalingEvent) {
        match event {
            SignalingEvent::PeerJoined { peer, we_offer } => {
                self.forget_if_gone(peer);
                self.known.joined(peer, we_offer);
                self.reported.remove(&peer);
                // If we offer, it is there anew, and what we had with it is of its former life. Else its offer tells.
                if we_offer || !(self.links.contains_key(&peer) || self.is_offering(peer)) {
                    self.waiting.put(peer, Waiting::new(we_offer, None, Instant::now()));
                }
            }
            SignalingEvent::PeerReturned { peer, we_offer } => {
                self.forget_if_gone(peer);
                self.known.joined(peer, we_offer);
                self.reported.remove(&peer);
                let there = self.links.contains_key(&peer) || self.waiting.get(peer).is_some();
                if !there && !self.mesh.shared.registry().contains_key(&peer) {
                    self.waiting.put(peer, Waiting::new(we_offer, None, Instant::now()));
                }
            }
            SignalingEvent::PeerLeft(peer) => {
                self.forget_if_gone(peer);
                self.known.left(peer);
                self.reported.remove(&peer);
                self.waiting.remove(peer);
                self.asked.remove(&peer);
                if self.is_connecting(peer) {
                    match self.links.get_mut(&peer) {
                        // It is on the way, and knows better than signalling; but it is not asked again.
                        Some(link) if link.connection.reaches_remote() => link.next = None,
                        _ => self.dismiss(peer, Farewell::Removed).await,
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

    async fn heard(&mut self, peer: PeerId, attempt: u64, news: News) {
        let current = self.links.get(&peer).is_some_and(|link| link.attempt == attempt);
        match news {
            // A signal of an attempt that was given up, or of a link that is gone.
            News::Signal(_) if !current => {}
            News::Signal(signal) => {
                let restarts = |link: &Link| link.restart.is_some() || link.connection.restarts() > 0;
                if self.links.get(&peer).is_some_and(restarts) {
                    self.relay(peer, &signal).await;
                }
                // While it is restored, too: those who came meanwhile are reported before it is.
                if !self.can_signal() {
                    return;
                }
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
            News::Silent(silent) if current => self.wavered(peer, silent),
            News::Silent(_) => {}
            News::Asked(answer) => self.answered(peer, attempt, answer),
        }
    }

    /// Some attempt is over, or some pause before the next.
    async fn due(&mut self) {
        self.offer_restarts().await;
        let now = Instant::now();
        let due = self.links.iter().filter(|(_, link)| link.next.is_some_and(|next| next <= now));
        let due: Vec<PeerId> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            let connecting = self.is_connecting(peer);
            let Some(link) = self.links.get_mut(&peer).filter(|_| connecting) else { continue };
            if link.hastened && link.connection.is_answered() {
                link.hastened = false;
                link.next = Some(link.since + self.plan.attempt_limit);
            } else if link.connection.is_greeting() {
                // What is left are hellos that SCTP repeats, and the remote may be connected already.
                link.next = Some(now + self.plan.attempt_limit);
            }
        }
        let due = self.links.iter().filter(|(_, link)| link.next.is_some_and(|next| next <= now));
        let peers: Vec<PeerId> = due.map(|(peer, _)| *peer).collect();
        for peer in peers {
            if self.is_connecting(peer) && self.can_retry(peer) && self.can_signal() {
                if self.is_asked(peer, false) {
                    self.retry(peer).await;
                } else if let Some(link) = self.links.get_mut(&peer) {
                    link.next = Some(now + ANSWERS_LIMIT);
                }
            } else if let Some(link) = self.links.get_mut(&peer) {
                link.next = None;
                if self.waiting.get(peer).is_none() {
                    self.asked.remove(&peer);
                }
            }
            self.forget_if_gone(peer);
        }
    }

    /// Whether the peer's offer waits.
    fn is_offering(&self, peer: PeerId) -> bool {
        self.waiting.get(peer).is_some_and(|waiting| !waiting.signals.is_empty())
    }

    /// Whether the link's peer is in the mesh and not connected yet.
    fn is_connecting(&self, peer: PeerId) -> bool {
        let Some(link) = self.links.get(&peer) else { return false };
        let registry = self.mesh.shared.registry();
        registry.get(&peer).is_some_and(|entry| entry.life == link.life && entry.is_connecting())
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

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
