//! Decides how one peer comes, stays and goes. Pure: no tasks, no channels, and the time is told.
//!
//! ```text
//!            all channels open,                       disconnected            grace over
//!            both said hello                         ┌───────────> unstable ──────────────┐
//! connecting ────────────────────> connected ────────┤                                    v
//!     │                               │              └─ channel closed, TooSlow, … ───> over
//!     │ limit over, failed            │ leave                                             ^
//!     └──────────> over               v            acknowledged, or farewell over         │
//!                                  leaving ───────────────────────────────────────────────┘
//!                                  (drain, goodbye, wait for the acknowledgement)
//! ```
//!
//! The remote's goodbye is acknowledged when all that it counted has arrived, and our owner told that it has left; then it
//! says that it closes, and closes, and either is the end.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::channels::{CONTROL, Happening};
use super::control::Frame;
use super::liveness::Liveness;
use super::{Exit, Farewell, Limits};
use crate::connection::{CONTROL_VERSION, Condition, ConnectionState};
use crate::error::IceServerError;
use crate::event::{DisconnectReason, PeerFailure, Stage};

/// What a peer's task tells its state.
#[derive(Debug)]
pub(crate) enum Input {
    /// The connection's condition changed.
    Condition(Condition),
    /// Something on the channels.
    Channels(Happening),
    /// A fresh connection takes the place of the one that is being made.
    Renewed,
    /// The peer is to leave.
    Leave(Farewell),
    /// A remote without a control channel has acknowledged, by its SCTP, so many reliable packets.
    Settled(u64),
    /// A deadline may have passed.
    Tick,
}

/// The counters that decisions depend on, most of them of the reliable channel.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// How many of our ICE requests were answered.
    pub(crate) answers: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Accepted, but not handed to SCTP.
    pub(crate) waiting: u64,
}

/// What the task is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Say this on the control channel.
    Say(Frame),
    /// Say hello, with our first credit.
    SayHello,
    /// The remote's reader went on.
    Credit { limit: u64, pause: bool },
    /// The peer is connected: start sending; with the remote's first credit, if it gives credits.
    Connected { credit: Option<u64>, max_message_bytes: usize },
    /// It was silent for too long, and may come back.
    Unstable,
    /// It came back.
    Recovered,
    /// The remote has said goodbye, and all that it sent is here.
    Departed,
    /// Take no more packets, and report when all of them are handed to SCTP.
    Drain,
    /// Report when so many reliable packets have arrived.
    AwaitReceived(u64),
    /// The remote has closed: report that when what arrived before is taken.
    AwaitClosed,
    /// The remote asks for this to be handed to another peer.
    Relay { to: u32, body: Bytes },
    /// The remote hands on what another peer has asked it to.
    Relayed { from: u32, body: Bytes },
    /// It is over. Nothing follows.
    End(Exit),
}

/// One peer.
#[derive(Debug)]
pub(crate) struct State {
    limits: Limits,
    added: Instant,
    phase: Phase,
    condition: Condition,
    /// Why the last attempt that got so far had no relay, and no other way.
    no_relay: Vec<IceServerError>,
    open: [bool; 4],
    said_hello: bool,
    /// The remote's hello: its first credit.
    heard_hello: Option<u64>,
    /// It has said that its clock is not ahead of time.
    remote_is_steady: bool,
    remote_socket_bytes: usize,
    /// Reliable packets that the remote has said to have.
    confirmed: u64,
    /// Leaving, and everything is handed to SCTP.
    drained: bool,
    /// The remote said goodbye, and has no acknowledgement yet.
    owes_ack: bool,
    /// It could have one, but we have not said our own goodbye yet.
    ack_held: bool,
    heard_goodbye: bool,
    probe: Probe,
    liveness: Liveness,
    relays: Relays,
}

#[derive(Debug)]
enum Phase {
    Connecting,
    Connected,
    Unstable {
        until: Instant,
        /// It answered nothing any more, after so many answers.
        answers: Option<u64>,
    },
    Leaving {
        farewell: Farewell,
        until: Instant,
    },
    /// The remote said goodbye and has our acknowledgement; it closes. We may be told to leave meanwhile.
    Dismissed {
        told: bool,
        until: Instant,
    },
    Over,
}

#[derive(Debug)]
struct Probe {
    number: u64,
    /// When the one was sent that is unanswered.
    sent: Option<Instant>,
    /// When the last one was.
    last: Option<Instant>,
}

/// How much a remote has had relayed, or has relayed.
#[derive(Debug)]
struct Relays {
    since: Instant,
    count: u32,
    bytes: usize,
}

/// What a remote may have relayed to others, and hand on to us: a restart of ICE takes some ten messages of 1 KiB at the
/// most, and with each of the others there may be several.
const MAX_RELAYS: u32 = 256;
const MAX_RELAYS_BYTES: usize = 256 * 1024;
const RELAYS_PERIOD: Duration = Duration::from_secs(10);

impl Relays {
    fn admits(&mut self, bytes: usize, now: Instant) -> bool {
        if now - self.since >= RELAYS_PERIOD {
            *self = Relays { since: now, count: 0, bytes: 0 };
        }
        self.count += 1;
        self.bytes += bytes;
        self.count <= MAX_RELAYS && self.bytes <= MAX_RELAYS_BYTES
    }
}

const OVERRUN: &str = "it sends more than it was granted";

/// How often the remote is asked what has arrived, while something may not have; and, when ICE's questions have no answer,
/// whether it is there. An idle link that answers is asked nothing.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

impl State {
    pub(crate) fn new(limits: Limits, condition: Condition, now: Instant) -> State {
        State {
            limits,
            added: now,
            phase: Phase::Connecting,
            condition,
            no_relay: Vec::new(),
            open: [false; 4],
            said_hello: false,
            heard_hello: None,
            remote_is_steady: false,
            remote_socket_bytes: 0,
            confirmed: 0,
            drained: false,
            owes_ack: false,
            ack_held: false,
            heard_goodbye: false,
            probe: Probe { number: 0, sent: None, last: None },
            liveness: Liveness::new(now),
            relays: Relays { since: now, count: 0, bytes: 0 },
        }
    }

    /// Whether a fresh connection can still take this one's place.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting)
    }

    /// Whether the remote has said that its clock is not ahead of time.
    pub(crate) fn remote_is_steady(&self) -> bool {
        self.remote_is_steady
    }

    /// What the remote has said that its socket holds; 0 if it does not know.
    pub(crate) fn remote_socket_bytes(&self) -> usize {
        self.remote_socket_bytes
    }

    /// When a [`Input::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Connecting => Some(self.added + self.limits.handshake),
            Phase::Connected => Some(self.liveness.look),
            Phase::Unstable { until, answers: Some(_) } => Some(self.liveness.look.min(*until)),
            Phase::Unstable { until, answers: None } => Some(*until),
            Phase::Leaving { until, .. } | Phase::Dismissed { until, .. } => Some(*until),
            Phase::Over => None,
        }
    }

    pub(crate) fn handle(&mut self, input: Input, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.liveness.note(tally.answers, now);
        match input {
            Input::Condition(condition) => self.condition_changed(condition, tally, now, effects),
            Input::Channels(happening) => self.happened(happening, tally, now, effects),
            Input::Renewed => {
                self.open = [false; 4];
                (self.said_hello, self.heard_hello) = (false, None);
            }
            Input::Leave(farewell) => self.leave(farewell, tally, now, effects),
            Input::Settled(sent) => {
                self.confirm(sent, tally);
                if matches!(self.phase, Phase::Leaving { .. }) && self.drained && self.unconfirmed(tally) == 0
                {
                    self.left(tally, effects);
                }
            }
            Input::Tick => self.tick(tally, now, effects),
        }
    }

    fn condition_changed(
        &mut self,
        condition: Condition,
        tally: Tally,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let remote_closed = condition.remote_closed;
        self.condition = condition;
        if self.condition.stage > Stage::Ice {
            self.no_relay.clear();
        }
        if let (Some(no_relay), Phase::Connecting) = (&self.condition.no_relay, &self.phase) {
            self.no_relay.clone_from(&no_relay.errors);
            // A fresh connection has other credentials, or a server that answers.
            if no_relay.is_final || !self.limits.renewable {
                self.end(Exit::Failed(PeerFailure::IceServers(self.no_relay.clone())), effects);
            }
            return;
        }
        match (self.condition.state, &self.phase) {
            (ConnectionState::Failed, Phase::Connecting) if remote_closed => {
                self.remote_closed(tally, effects)
            }
            // What arrived before the close is taken first.
            (ConnectionState::Failed, _) if remote_closed => effects.push(Effect::AwaitClosed),
            (ConnectionState::Closed, _) => self.closed_here(tally, effects),
            (ConnectionState::Failed, _) => self.lost(tally, effects),
            (ConnectionState::Disconnected, Phase::Connected) => {
                self.fall_silent(None, now, effects);
            }
            // ICE is restarted, by the remote or by us.
            (ConnectionState::Connecting, Phase::Connected) => self.liveness.restart_begins(now),
            (ConnectionState::Connected, Phase::Connected) => self.liveness.restart_until = None,
            (ConnectionState::Connected, Phase::Unstable { .. }) => self.recover(now, effects),
            (_, Phase::Connecting) => self.greet(tally, now, effects),
            _ => {}
        }
    }

    fn happened(&mut self, happening: Happening, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        match happening {
            Happening::Open(channel) => {
                self.open[channel] = true;
                self.greet(tally, now, effects);
            }
            // A remote that is not of this crate knows nothing of the control channel.
            Happening::Closed(CONTROL) if self.control().is_none() => {}
            Happening::Closed(_) => self.remote_closed(tally, effects),
            Happening::Frame(frame) if self.control().is_some() => self.heard(frame, tally, now, effects),
            Happening::Frame(_) => {}
            Happening::BadFrame(_) if self.control().is_none() => {}
            Happening::BadFrame(error) => self.end_because(
                |_| PeerFailure::Protocol(error.to_string()),
                || DisconnectReason::Protocol(error.to_string()),
                tally,
                effects,
            ),
            Happening::Overrun => self.end_because(
                |_| PeerFailure::Protocol(OVERRUN.to_owned()),
                || DisconnectReason::Protocol(OVERRUN.to_owned()),
                tally,
                effects,
            ),
            Happening::Received => match self.phase {
                // Both leave at the same time. Whoever has its acknowledgement closes, so ours goes after our own
                // goodbye: then the remote knows that it owes us one.
                Phase::Leaving { .. } if !self.drained => self.ack_held = true,
                // The remote closes when it has this; who ended now would cut it off.
                Phase::Leaving { .. } => self.acknowledge(tally, effects),
                Phase::Connected | Phase::Unstable { .. } => {
                    self.acknowledge(tally, effects);
                    self.phase = Phase::Dismissed { told: false, until: now + self.limits.farewell };
                    effects.push(Effect::Departed);
                    effects.push(Effect::Drain);
                }
                Phase::Connecting | Phase::Dismissed { .. } | Phase::Over => {}
            },
            Happening::Drained => {
                if let Phase::Leaving { .. } = self.phase {
                    self.drained = true;
                    match self.control() {
                        Some(_) => {
                            effects.push(Effect::Say(Frame::Goodbye {
                                sent: tally.sent,
                                received: tally.received,
                            }));
                            if std::mem::take(&mut self.ack_held) {
                                self.acknowledge(tally, effects);
                            }
                        }
                        None if self.unconfirmed(tally) == 0 => self.left(tally, effects),
                        None => {}
                    }
                }
            }
            Happening::Stalled => {
                self.end_because(PeerFailure::connection_failed, || DisconnectReason::TooSlow, tally, effects)
            }
            // Who is silent has the grace time, and what it is sent another try when it is back.
            Happening::GivenUp if matches!(self.phase, Phase::Unstable { .. }) => {}
            Happening::GivenUp => self.end_because(
                PeerFailure::connection_failed,
                || DisconnectReason::Unacknowledged,
                tally,
                effects,
            ),
        }
    }

    fn heard(&mut self, frame: Frame, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        match frame {
            Frame::Hello { credit, steady, socket_bytes, .. } => {
                if self.heard_hello.is_none() {
                    self.remote_is_steady = steady;
                    self.remote_socket_bytes = socket_bytes as usize;
                    self.heard_hello = Some(credit);
                    self.greet(tally, now, effects);
                }
            }
            // Nobody of ours says anything before both hellos.
            _ if self.is_connecting() => {}
            Frame::Credit { credit, received, pause } => {
                self.confirm(received, tally);
                effects.push(Effect::Credit { limit: credit, pause });
            }
            Frame::Goodbye { sent, received } => {
                self.confirm(received, tally);
                if !self.heard_goodbye {
                    (self.heard_goodbye, self.owes_ack) = (true, true);
                    effects.push(Effect::AwaitReceived(sent));
                }
            }
            Frame::GoodbyeAck { received } => {
                self.confirm(received, tally);
                if matches!(self.phase, Phase::Leaving { .. }) && !self.owes_ack {
                    effects.push(Effect::Say(Frame::Closing));
                    self.left(tally, effects);
                }
            }
            Frame::Closing => {
                if matches!(self.phase, Phase::Dismissed { .. }) {
                    self.dismissed(tally, effects);
                }
            }
            Frame::Relay { to, body } => {
                if self.relays.admits(body.len(), now) {
                    effects.push(Effect::Relay { to, body });
                } else {
                    tracing::debug!("too much is to be relayed: one message is not");
                }
            }
            Frame::Relayed { from, body } => {
                if self.relays.admits(body.len(), now) {
                    effects.push(Effect::Relayed { from, body });
                }
            }
            Frame::Probe { number } => {
                effects.push(Effect::Say(Frame::Echo { number, received: tally.received }));
            }
            Frame::Echo { number, received } => {
                self.confirm(received, tally);
                if number == self.probe.number {
                    self.probe.sent = None;
                }
                if let Phase::Unstable { answers, .. } = &mut self.phase {
                    *answers = None;
                    self.recover(now, effects);
                }
            }
        }
    }

    fn acknowledge(&mut self, tally: Tally, effects: &mut Vec<Effect>) {
        self.owes_ack = false;
        effects.push(Effect::Say(Frame::GoodbyeAck { received: tally.received }));
    }

    /// A remote that confirms more than was sent is not believed.
    fn confirm(&mut self, received: u64, tally: Tally) {
        self.confirmed = self.confirmed.max(received.min(tally.sent));
    }

    /// Says hello when it is time, and is connected when all is open and said.
    fn greet(&mut self, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        let (Phase::Connecting, Some(agreed)) = (&self.phase, self.condition.agreed) else { return };
        let connected = if agreed.control.is_some() {
            let open = self.open == [true; 4];
            // The DTLS server waits: until the client has said hello, it loses what the server sends.
            if open && !self.said_hello && (agreed.dtls_client || self.heard_hello.is_some()) {
                self.said_hello = true;
                effects.push(Effect::SayHello);
            }
            self.said_hello && self.heard_hello.is_some()
        } else {
            self.open[..CONTROL] == [true; 3]
        };
        if connected {
            self.phase = Phase::Connected;
            let credit = self.heard_hello.filter(|_| agreed.control.is_some());
            effects.push(Effect::Connected { credit, max_message_bytes: agreed.max_message_bytes });
            // That the channels are open may be heard late.
            self.liveness = Liveness::new(now);
            self.liveness.note(tally.answers, now);
            if self.condition.state == ConnectionState::Disconnected {
                self.fall_silent(None, now, effects);
            }
        }
    }

    fn fall_silent(&mut self, answers: Option<u64>, now: Instant, effects: &mut Vec<Effect>) {
        self.phase = Phase::Unstable { until: now + self.limits.grace, answers };
        self.liveness.look_again(true, now);
        effects.push(Effect::Unstable);
    }

    /// The remote is heard again, and if it had not answered, it does.
    fn recover(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Phase::Unstable { answers, .. } = self.phase else { return };
        let connected = self.condition.state == ConnectionState::Connected;
        if connected && answers.is_none_or(|answers| self.liveness.has_answered_since(answers)) {
            self.phase = Phase::Connected;
            // What it did not answer meanwhile is no evidence against it.
            self.liveness.restart(now);
            self.probe.sent = self.probe.sent.map(|_| now);
            effects.push(Effect::Recovered);
        }
    }

    /// Looks whether the remote gives signs of life.
    fn look(&mut self, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        match self.phase {
            Phase::Connected => {
                let control = self.control().is_some();
                let doubtful = self.liveness.is_doubtful(now);
                if control && (doubtful || tally.sent > self.confirmed) {
                    self.send_probe(now, effects);
                }
                self.liveness.look_again(doubtful, now);
                if self.liveness.is_silent(self.probe.sent, control, now) {
                    self.fall_silent(Some(self.liveness.answers()), now, effects);
                }
            }
            Phase::Unstable { .. } => {
                self.liveness.look_again(true, now);
                self.recover(now, effects);
            }
            _ => {}
        }
    }

    fn send_probe(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        // One that is unanswered goes on counting: SCTP repeats it.
        let due = self.probe.last.is_none_or(|last| now - last >= PROBE_INTERVAL);
        if due && self.probe.sent.is_none() {
            self.probe.last = Some(now);
            self.probe.number += 1;
            self.probe.sent = Some(now);
            effects.push(Effect::Say(Frame::Probe { number: self.probe.number }));
        }
    }

    fn leave(&mut self, farewell: Farewell, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Connecting => self.end(Exit::Silent, effects),
            Phase::Connected | Phase::Unstable { .. } if farewell == Farewell::Replaced => {
                self.end(Exit::Disconnected(DisconnectReason::Replaced), effects);
            }
            Phase::Connected | Phase::Unstable { .. } => {
                self.phase = Phase::Leaving { farewell, until: now + self.limits.farewell };
                effects.push(Effect::Drain);
            }
            // Nobody is there any more who could acknowledge, or close.
            Phase::Leaving { .. } if farewell == Farewell::Replaced => self.left(tally, effects),
            Phase::Dismissed { .. } if farewell == Farewell::Replaced => {
                self.end(Exit::Disconnected(DisconnectReason::RemoteClose), effects);
            }
            // It leaves by itself already.
            Phase::Dismissed { told, .. } => *told = true,
            Phase::Leaving { .. } | Phase::Over => {}
        }
    }

    fn tick(&mut self, tally: Tally, now: Instant, effects: &mut Vec<Effect>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.phase {
            Phase::Connecting => {
                let failure = match std::mem::take(&mut self.no_relay) {
                    errors if errors.is_empty() => {
                        PeerFailure::timed_out(self.condition.stage, now - self.added)
                    }
                    errors => PeerFailure::IceServers(errors),
                };
                self.end(Exit::Failed(failure), effects);
            }
            Phase::Connected => self.look(tally, now, effects),
            Phase::Unstable { until, .. } if now < *until => self.look(tally, now, effects),
            Phase::Unstable { .. } => self.lost(tally, effects),
            Phase::Leaving { .. } => self.left(tally, effects),
            Phase::Dismissed { .. } => self.dismissed(tally, effects),
            Phase::Over => {}
        }
    }

    /// What was to be said is said, or there is no more time for it.
    fn left(&mut self, tally: Tally, effects: &mut Vec<Effect>) {
        let Phase::Leaving { farewell, .. } = self.phase else { return };
        let reason = match self.unconfirmed(tally) {
            0 => farewell.reason(),
            packets => DisconnectReason::Unconfirmed { packets },
        };
        self.end(Exit::Disconnected(reason), effects);
    }

    /// The remote has gone. If our owner wanted to leave too, what was accepted for the remote was to be confirmed.
    fn dismissed(&mut self, tally: Tally, effects: &mut Vec<Effect>) {
        let Phase::Dismissed { told, .. } = self.phase else { return };
        let reason = match self.unconfirmed(tally) {
            packets if told && packets > 0 => DisconnectReason::Unconfirmed { packets },
            _ => DisconnectReason::RemoteClose,
        };
        self.end(Exit::Disconnected(reason), effects);
    }

    fn unconfirmed(&self, tally: Tally) -> u64 {
        tally.waiting + tally.sent - self.confirmed.min(tally.sent)
    }

    fn remote_closed(&mut self, tally: Tally, effects: &mut Vec<Effect>) {
        self.end_because(PeerFailure::remote_closed, || DisconnectReason::RemoteClose, tally, effects);
    }

    /// Somebody has closed a clone of the connection.
    fn closed_here(&mut self, tally: Tally, effects: &mut Vec<Effect>) {
        self.end_because(
            PeerFailure::connection_failed,
            || DisconnectReason::ConnectionClosed,
            tally,
            effects,
        );
    }

    fn lost(&mut self, tally: Tally, effects: &mut Vec<Effect>) {
        self.end_because(PeerFailure::connection_failed, || DisconnectReason::ConnectionLost, tally, effects);
    }

    /// Ends the peer by the reason that fits its phase.
    fn end_because(
        &mut self,
        failure: impl FnOnce(Stage) -> PeerFailure,
        reason: impl FnOnce() -> DisconnectReason,
        tally: Tally,
        effects: &mut Vec<Effect>,
    ) {
        match self.phase {
            // A fresh connection will come, or the time limit.
            Phase::Connecting if self.limits.renewable => {}
            Phase::Connecting => self.end(Exit::Failed(failure(self.condition.stage)), effects),
            Phase::Connected | Phase::Unstable { .. } => self.end(Exit::Disconnected(reason()), effects),
            Phase::Leaving { .. } => self.left(tally, effects),
            Phase::Dismissed { .. } => self.dismissed(tally, effects),
            Phase::Over => {}
        }
    }

    fn end(&mut self, exit: Exit, effects: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        effects.push(Effect::End(exit));
    }

    fn control(&self) -> Option<u8> {
        self.condition.agreed.and_then(|agreed| agreed.control)
    }
}

/// The hello of this release.
pub(crate) fn hello(credit: u64, steady: bool, socket_bytes: u32) -> Frame {
    Frame::Hello { version: CONTROL_VERSION, credit, steady, socket_bytes }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
