//! The mesh's task: the supervisor of the peers' tasks. Listens, lets its [`State`] decide, acts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLockWriteGuard};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::JoinMap;
use tracing::Instrument as _;

use super::handle::{Command, Entry, Shared};
use super::meeting::Fate;
use super::state::{Effect, State};
use crate::error::{UnknownPeer, WaitError};
use crate::event::{DisconnectReason, PeerFailure};
use crate::id::PeerId;
use crate::metrics;
use crate::peer::control::Frame;
use crate::peer::{Bounds, Exit, Life, Limits, Report, Takeover, Task};

/// The supervisor, before it runs.
#[derive(Debug)]
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    state: State,
    peers: JoinMap<Life, Exit>,
    /// Who lives which life.
    lives: HashMap<Life, PeerId>,
    last_life: u64,
    report_to: mpsc::Sender<(Life, Report)>,
    reports: mpsc::Receiver<(Life, Report)>,
    /// Who waits for a peer to leave.
    leaving: HashMap<Life, Vec<oneshot::Sender<Result<(), UnknownPeer>>>>,
    /// Who waited for a peer that has left, and is told so when the rest is done.
    gone: Vec<oneshot::Sender<Result<(), UnknownPeer>>>,
    /// The task that signals, if the mesh was joined.
    signaling: Option<JoinHandle<()>>,
    limits: Limits,
    bounds: Bounds,
    /// Comes last, when this task ends, however it does.
    _end: End,
}

/// Reports that wait for the supervisor, which waits for nobody: one from each peer of a large mesh at once.
const REPORTS: usize = 256;

/// What the supervisor hears.
enum Input {
    Command(Command),
    Report(Life, Report),
    Ended(Life, Result<Exit, JoinError>),
    Close,
}

impl Supervisor {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        state: State,
        limits: Limits,
        bounds: Bounds,
    ) -> Supervisor {
        let (report_to, reports) = mpsc::channel(REPORTS);
        Supervisor {
            _end: End(shared.clone()),
            shared,
            commands,
            state,
            peers: JoinMap::new(),
            lives: HashMap::new(),
            last_life: 0,
            report_to,
            reports,
            leaving: HashMap::new(),
            gone: Vec::new(),
            signaling: None,
            limits,
            bounds,
        }
    }

    /// The task that signals is looked after as the peers are.
    pub(super) fn signaling(mut self, task: JoinHandle<()>) -> Supervisor {
        self.signaling = Some(task);
        self
    }

    /// Runs until the mesh is closed, or its owner has dropped it.
    pub(super) async fn run(mut self) {
        let shared = self.shared.clone();
        let _signaling = self.signaling.as_ref().map(|task| AbortOnDrop(task.abort_handle()));
        let mut effects = Vec::new();
        while !self.state.is_over() {
            let input = tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                input = self.listen() => input,
            };
            self.decide(input, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            for waiting in self.gone.drain(..) {
                let _ = waiting.send(Ok(()));
            }
        }
        shared.gone.cancel();
        // Whoever waits for a reply, the task that signals among them, has it by this.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        if let Some(task) = self.signaling.take() {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => {}
                _ = task => {}
            }
        }
    }

    /// Waits for the next thing to happen. Every branch is cancel-safe: losing the race loses nothing.
    async fn listen(&mut self) -> Input {
        tokio::select! {
            biased;
            () = self.shared.close.cancelled(), if !self.state.is_closing() => Input::Close,
            // Before the ends: what a peer reported last is heard before it has ended.
            Some((life, report)) = self.reports.recv() => Input::Report(life, report),
            Some((life, exit)) = self.peers.join_next() => Input::Ended(life, exit),
            Some(command) = self.commands.recv() => Input::Command(command),
        }
    }

    fn decide(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Close => self.state.close(effects),
            Input::Report(life, report) => {
                let Some(peer) = self.lives.get(&life).copied() else { return };
                match report {
                    Report::Connected { max_message_bytes } => {
                        self.entry(peer).inspect(|entry| {
                            entry.max_message_bytes.store(max_message_bytes, Ordering::Release);
                        });
                        self.state.opened(peer, life, effects);
                    }
                    Report::Unstable => self.state.wavered(peer, life, true, effects),
                    Report::Recovered => self.state.wavered(peer, life, false, effects),
                    Report::Departed => self.state.departed(peer, life, effects),
                    Report::Relay { to, body } => self.relay(peer, to, body),
                    Report::Relayed { from, body } => {
                        if let Ok(from) = PeerId::new(from) {
                            self.shared.meeting.relayed(from, body);
                        }
                    }
                }
            }
            Input::Ended(life, exit) => {
                let Some(peer) = self.lives.remove(&life) else { return };
                let member = self.state.member(peer);
                let opened = member.is_some_and(|member| member.open);
                let exit = exit.unwrap_or_else(|error| match (error.is_cancelled(), opened) {
                    (true, true) => Exit::Disconnected(DisconnectReason::Aborted),
                    (true, false) => Exit::Silent,
                    (false, true) => Exit::Disconnected(DisconnectReason::Panicked),
                    (false, false) => Exit::Failed(PeerFailure::Panicked),
                });
                if let Some(entry) = self.registry().remove(&peer) {
                    entry.outbox.close();
                    entry.connected.store(false, Ordering::Release);
                    let report = entry.gauges.end();
                    // Else its connection was not even begun with.
                    if report.attempts > 0 {
                        self.shared.reports.keep(peer, report);
                    }
                }
                self.shared.meeting.life_ended(peer, life, fate(&exit));
                let removed = member.is_some_and(|member| member.leaving);
                let why = match exit.clone() {
                    _ if self.state.is_closing() => WaitError::MeshClosed,
                    Exit::Failed(failure) if !removed => WaitError::Failed(failure),
                    Exit::Disconnected(reason) => WaitError::Disconnected(reason),
                    Exit::Failed(_) | Exit::Silent => WaitError::Removed,
                };
                self.shared.waiters.tell(peer, &Err(why));
                self.state.ended(peer, life, exit, effects);
                self.gone.extend(self.leaving.remove(&life).unwrap_or_default());
            }
            Input::Command(Command::Add { peer, first, renewable, reply }) => {
                let refuses = self.shared.is_refusing();
                let result = self.state.check_add(peer, refuses).map(|()| self.add(peer, first, renewable));
                let _ = reply.send(result);
            }
            Input::Command(Command::Remove { peer, begun, farewell, gone }) => {
                match self.state.member(peer).filter(|member| begun.is_none_or(|life| life == member.life)) {
                    Some(member) => {
                        self.leaving.entry(member.life).or_default().push(gone);
                        let _ = self.state.remove(peer, farewell, effects);
                    }
                    // That life is over already.
                    None if begun.is_some() => self.gone.push(gone),
                    None => drop(gone.send(Err(UnknownPeer(peer)))),
                }
            }
            // A life that is over drops the sender, which tells as much.
            Input::Command(Command::AwaitEnd { life, gone }) => {
                if self.lives.contains_key(&life) {
                    self.leaving.entry(life).or_default().push(gone);
                }
            }
            Input::Command(Command::Fail { peer, failure }) => {
                if self.state.check_add(peer, false).is_ok() {
                    let life = self.next_life();
                    self.shared.waiters.tell(peer, &Err(WaitError::Failed(failure.clone())));
                    self.state.add(peer, life);
                    self.state.ended(peer, life, Exit::Failed(failure), effects);
                }
            }
        }
    }

    /// Begins a life.
    fn add(&mut self, peer: PeerId, first: Takeover, renewable: bool) -> Life {
        let life = self.next_life();
        let lane = self.shared.inbox.lane(life, peer, self.bounds.unreliable_bytes);
        let connection = first.connection.clone();
        let limits = Limits { renewable, ..self.limits };
        let (task, handle) =
            Task::new(life, first, limits, self.bounds, lane.clone(), self.report_to.clone());
        let span = tracing::info_span!(parent: &self.shared.span, "peer", %peer);
        // A span that nobody follows would be looked at in each turn.
        match span.is_disabled() {
            true => self.peers.spawn(life, task.run()),
            false => self.peers.spawn(life, task.run().instrument(span)),
        }
        let entry = Entry {
            life,
            connection: Mutex::new(connection),
            outbox: handle.outbox.clone(),
            gauges: handle.gauges.clone(),
            lane,
            connected: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            departed: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            max_message_bytes: AtomicUsize::new(0),
            peer: handle,
        };
        self.registry().insert(peer, Arc::new(entry));
        self.lives.insert(life, peer);
        self.state.add(peer, life);
        life
    }

    /// Acts. Nothing here waits, so no peer holds up another.
    fn perform(&mut self, effect: Effect) {
        let inbox = &self.shared.inbox;
        match effect {
            Effect::Status(status) => self.shared.set_status(status),
            Effect::Emit(event) => inbox.event(event),
            Effect::Open(_, peer) => {
                self.entry(peer).inspect(|entry| {
                    entry.outbox.open(entry.max_message_bytes.load(Ordering::Acquire));
                    entry.connected.store(true, Ordering::Release);
                });
            }
            Effect::Announce(life, peer) => {
                tracing::info!(%peer, "connected");
                inbox.announce(life, peer);
                self.entry(peer).inspect(|entry| {
                    entry.announced.store(true, Ordering::Release);
                    metrics::connected(|| entry.gauges.report());
                });
                self.shared.waiters.tell(peer, &Ok(()));
            }
            Effect::End(life, peer, Exit::Failed(failure)) => {
                match &failure {
                    // It may name a host or an address.
                    PeerFailure::IceServers(_) => {
                        tracing::info!(%peer, "failed: there is no relay");
                        tracing::debug!(%peer, %failure);
                    }
                    PeerFailure::Connection(error) => {
                        tracing::info!(%peer, "failed: no connection could be made");
                        tracing::debug!(%peer, %error);
                    }
                    failure => tracing::info!(%peer, %failure, "failed"),
                }
                metrics::failed(&failure);
                inbox.fail(life, peer, failure);
            }
            Effect::End(life, peer, exit) => {
                let reason = match exit {
                    Exit::Disconnected(reason) => reason,
                    // An announced peer was connected, so it has a reason; this is for the one who changes that.
                    Exit::Silent | Exit::Failed(_) => DisconnectReason::ConnectionLost,
                };
                tracing::info!(%peer, %reason, "disconnected");
                // Its task may go on for a moment, to say goodbye.
                if let Some(entry) = self.entry(peer).filter(|entry| entry.life == life) {
                    entry.leaving.store(true, Ordering::Release);
                    entry.departed.store(true, Ordering::Release);
                    entry.connected.store(false, Ordering::Release);
                }
                metrics::disconnected(&reason);
                inbox.end(life, peer, reason);
            }
            Effect::Forget(life, _) => inbox.forget(life),
            Effect::Leave(life, farewell) => {
                let Some(entry) = self.lives.get(&life).and_then(|peer| self.entry(*peer)) else { return };
                // A broadcast passes it by; what names it is told that it is not connected.
                entry.outbox.close();
                entry.leaving.store(true, Ordering::Release);
                entry.connected.store(false, Ordering::Release);
                entry.peer.leave(farewell);
            }
        }
    }

    /// Hands on what one peer has for another, if that one is connected.
    fn relay(&self, from: PeerId, to: u32, body: Bytes) {
        let Some(entry) = PeerId::new(to).ok().filter(|to| *to != from).and_then(|to| self.entry(to)) else {
            return;
        };
        let handed = entry.is_connected() && entry.peer.relay(Frame::Relayed { from: from.get(), body });
        tracing::debug!(%from, to, handed, "a message between two peers");
    }

    fn next_life(&mut self) -> Life {
        self.last_life += 1;
        Life(self.last_life)
    }

    fn entry(&self, peer: PeerId) -> Option<Arc<Entry>> {
        self.shared.registry().get(&peer).cloned()
    }

    fn registry(&self) -> RwLockWriteGuard<'_, std::collections::BTreeMap<PeerId, Arc<Entry>>> {
        self.shared.registry.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is worth another try.
fn fate(exit: &Exit) -> Fate {
    match exit {
        Exit::Disconnected(DisconnectReason::ConnectionLost | DisconnectReason::Unacknowledged) => Fate::Lost,
        Exit::Disconnected(DisconnectReason::RemoteClose) => Fate::Closed,
        Exit::Failed(
            PeerFailure::TimedOut { .. }
            | PeerFailure::ConnectionFailed { .. }
            | PeerFailure::RemoteClosed { .. }
            | PeerFailure::IceServers { .. },
        ) => Fate::Failed,
        _ => Fate::Final,
    }
}

/// Whoever is still there when this task ends is gone with it: the mesh was dropped (then nobody hears of it), the
/// runtime shuts down, or this task has panicked.
impl Drop for Supervisor {
    fn drop(&mut self) {
        let mut effects = Vec::new();
        for (life, peer) in std::mem::take(&mut self.lives) {
            if let Some(entry) = self.entry(peer) {
                self.shared.reports.keep(peer, entry.gauges.end());
            }
            let exit = Exit::Disconnected(DisconnectReason::Aborted);
            self.state.ended(peer, life, exit, &mut effects);
        }
        for effect in effects {
            self.perform(effect);
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The end of the mesh, for everyone who holds it.
#[derive(Debug)]
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.begin_close();
        let entries = std::mem::take(&mut *shared.registry.write().unwrap_or_else(PoisonError::into_inner));
        for entry in entries.into_values() {
            entry.connected.store(false, Ordering::Release);
            entry.outbox.close();
        }
        shared.inbox.finish();
        shared.closed.send_replace(true);
    }
}
