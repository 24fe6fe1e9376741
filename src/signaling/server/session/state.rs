//! Decides how one client comes, speaks and goes. Pure: no tasks, no channels, and the time is told.
//!
//! Two things move on their own, the connection and the client's place in a lobby:
//!
//! ```text
//! link:  open ──────> closing ──────> gone         a close frame, from whomever; then its answer, or the limit
//!          └──────────────────────────^            lost: nothing heard for too long, TCP's end
//!
//! seat:  outside ──> joining ──> inside ──> left   said so, closed by us, or the lobby is over
//!                                  │          ^
//!                                  └─> kept ──┘    the connection is lost, and the client has a session:
//!                                                  it comes back on another connection, or the hold is over
//! ```
//!
//! It is over when the link is gone and there is no seat. One frame is answered before the next one is looked at.

use std::str;

use axum::extract::ws::Utf8Bytes;
use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::super::mailbox::Letter;
use super::super::rate::{Bucket, Rate};
use super::super::rendezvous::{Leaving, Membership};
use crate::signaling::godot::{CloseReason, Generation, MalformedMessage, Message, RelayKind};

/// The numbers that decisions depend on.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Limits {
    pub(in super::super) join: Duration,
    pub(in super::super) ping: Duration,
    pub(in super::super) silence: Duration,
    /// How long the place of a lost client is kept; zero: not at all, as for one without a session.
    pub(in super::super) resume: Duration,
    pub(in super::super) seal: Duration,
    pub(in super::super) messages: Rate,
}

/// What a session is told.
#[derive(Debug)]
pub(in super::super) enum Input {
    /// A text frame.
    Text(Utf8Bytes),
    /// A binary frame.
    Binary(Bytes),
    /// A ping, or a pong.
    Beat,
    /// The client's close frame.
    Goodbye,
    /// What came is no WebSocket, or too long: nothing more can be read.
    Unreadable(CloseReason),
    /// The connection is at its end, or takes nothing.
    Lost,
    /// What the request to join has come to.
    Joined(Result<Membership, CloseReason>),
    /// What a relay has come to: whether somebody was told.
    Relayed(bool),
    /// What the request to seal has come to.
    Sealed(Result<(), CloseReason>),
    /// From the mailbox.
    Letter(Letter),
    /// The server shuts down.
    Stop,
    /// A deadline may have passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Effect {
    /// Ask whether the client may join, and the lobbies to take it; [`Input::Joined`] answers.
    Join { generation: Generation, lobby: String, mesh: bool },
    /// Hand on; [`Input::Relayed`] answers.
    Relay { from: Membership, to: u32, kind: RelayKind, payload: String },
    /// Seal; [`Input::Sealed`] answers.
    Seal(Membership),
    /// The place is given up.
    Leave(Membership, Leaving),
    /// Say this in a text frame.
    Say(String),
    /// Send a ping.
    Ping,
    /// Send a close frame, the last that is sent.
    Close(CloseReason),
    /// Forget the connection.
    Drop,
    /// Nobody hears this; for the counters.
    Count(Event),
}

/// What is worth a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Event {
    Joined,
    Resumed,
    Relayed,
    DroppedRelay,
    Malformed,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Open,
    Closing { until: Instant },
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seat {
    Outside { until: Instant },
    Joining,
    Inside(Membership),
    Kept(Membership, Instant),
    Left,
}

/// One client.
#[derive(Debug)]
pub(in super::super) struct State {
    limits: Limits,
    has_session: bool,
    generation: Option<Generation>,
    link: Link,
    seat: Seat,
    /// Something is asked for that has not been answered: nothing is read meanwhile.
    asked: bool,
    bucket: Bucket,
    paused_until: Option<Instant>,
    /// When to take it for lost, if nothing is heard.
    silent_until: Instant,
    pinged: Instant,
    sealed_until: Option<Instant>,
}

/// How long the other side has to answer a close frame.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A deadline that is noticed so much later has been slept through.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// How long a connection that cannot be read any more is kept, so that the client may see the close frame.
const LINGER: Duration = Duration::from_millis(500);

impl State {
    pub(in super::super) fn new(limits: Limits, has_session: bool, now: Instant) -> State {
        State {
            limits,
            has_session,
            generation: None,
            link: Link::Open,
            seat: Seat::Outside { until: now + limits.join },
            asked: false,
            bucket: Bucket::new(limits.messages, now),
            paused_until: None,
            silent_until: now + limits.silence,
            pinged: now,
            sealed_until: None,
        }
    }

    /// Whether the next frame can be taken; what the client sends waits in its connection otherwise.
    pub(in super::super) fn reads(&self) -> bool {
        match self.link {
            Link::Open => !self.asked && self.paused_until.is_none(),
            Link::Closing { .. } => true,
            Link::Gone => false,
        }
    }

    /// Whether the client can be told anything.
    pub(in super::super) fn talks(&self) -> bool {
        self.link == Link::Open
    }

    /// Whether there is a place, so that letters matter.
    pub(in super::super) fn has_seat(&self) -> bool {
        matches!(self.seat, Seat::Joining | Seat::Inside(_) | Seat::Kept(..))
    }

    /// Whether the connection is gone and the place is kept.
    pub(in super::super) fn is_kept(&self) -> bool {
        matches!(self.seat, Seat::Kept(..))
    }

    /// The place, if there is one.
    pub(in super::super) fn membership(&self) -> Option<&Membership> {
        match &self.seat {
            Seat::Inside(membership) | Seat::Kept(membership, _) => Some(membership),
            Seat::Outside { .. } | Seat::Joining | Seat::Left => None,
        }
    }

    pub(in super::super) fn is_over(&self) -> bool {
        self.link == Link::Gone && !self.has_seat() && !self.asked
    }

    /// When to tick.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Open => Some(self.silent_until.min(self.pinged + self.limits.ping)),
            Link::Closing { until } => Some(until),
            Link::Gone => None,
        };
        let seat = match self.seat {
            Seat::Outside { until } if self.link == Link::Open => Some(until),
            Seat::Kept(_, until) => Some(until),
            _ => None,
        };
        let sealed = self.sealed_until.filter(|_| matches!(self.seat, Seat::Inside(_) | Seat::Kept(..)));
        [link, seat, sealed, self.paused_until].into_iter().flatten().min()
    }

    pub(in super::super) fn handle(&mut self, input: Input, now: Instant, effects: &mut Vec<Effect>) {
        match input {
            Input::Text(text) => self.hear(Ok(&text), now, effects),
            Input::Binary(bytes) => {
                self.hear(str::from_utf8(&bytes).map_err(|_| CloseReason::NotText), now, effects);
            }
            Input::Beat => self.meter(now),
            Input::Goodbye => self.part(now, None, effects),
            Input::Unreadable(reason) => {
                if self.link == Link::Open {
                    effects.push(Effect::Count(Event::Malformed));
                }
                self.part(now, Some(reason), effects);
                if self.link != Link::Gone {
                    self.link = Link::Closing { until: now + LINGER };
                }
            }
            Input::Lost => self.lose(now, effects),
            Input::Joined(result) => self.joined(result, now, effects),
            Input::Relayed(told) => {
                self.asked = false;
                effects.push(Effect::Count(if told { Event::Relayed } else { Event::DroppedRelay }));
            }
            Input::Sealed(result) => {
                self.asked = false;
                if let Err(reason) = result {
                    self.part(now, Some(reason), effects);
                }
            }
            Input::Letter(Letter::Say(message)) => {
                if message == Message::Seal {
                    self.sealed_until = Some(now + self.limits.seal);
                }
                if let (Link::Open, Some(generation)) = (self.link, self.generation) {
                    effects.push(Effect::Say(message.encode(generation)));
                }
            }
            Input::Letter(Letter::Close(reason)) => {
                self.seat = Seat::Left;
                self.part(now, Some(reason), effects);
            }
            Input::Letter(Letter::Overflow) => {
                // It has missed something, and may come back under its id to hear it anew.
                self.leave(self.lost(), effects);
                self.part(now, Some(CloseReason::Unresponsive), effects);
            }
            Input::Stop => {
                self.leave(Leaving::ShuttingDown, effects);
                self.part(now, Some(CloseReason::ShuttingDown), effects);
            }
            Input::Tick => self.tick(now, effects),
        }
    }

    /// A frame of text, or why it is none.
    fn hear(&mut self, text: Result<&str, CloseReason>, now: Instant, effects: &mut Vec<Effect>) {
        if self.link != Link::Open {
            return;
        }
        self.meter(now);
        let said = text.and_then(|text| self.understand(text));
        if matches!(
            said,
            Err(CloseReason::InvalidFormat | CloseReason::NotText | CloseReason::InvalidCommand)
        ) {
            effects.push(Effect::Count(Event::Malformed));
        }
        match said {
            Ok(request) => {
                if let Effect::Join { generation, .. } = &request {
                    self.generation = Some(*generation);
                    self.seat = Seat::Joining;
                }
                self.asked = true;
                effects.push(request);
            }
            Err(reason) => self.part(now, Some(reason), effects),
        }
    }

    /// What the client asks for, or why it is closed.
    fn understand(&self, text: &str) -> Result<Effect, CloseReason> {
        let json = text.trim_start().starts_with('{');
        let first = if json { Generation::Godot4 } else { Generation::Godot3 };
        let generation = self.generation.unwrap_or(first);
        let message = Message::decode(generation, text);
        let Seat::Inside(membership) = &self.seat else {
            return match message {
                Ok(Message::Join { lobby, mesh }) => Ok(Effect::Join { generation, lobby, mesh }),
                Ok(_) | Err(MalformedMessage::UnknownKind) => Err(CloseReason::NeedLobby),
                Err(_) => Err(CloseReason::InvalidFormat),
            };
        };
        let membership = membership.clone();
        match message {
            Ok(Message::Relay { peer: 0, .. }) => Err(CloseReason::InvalidDestination),
            Ok(Message::Relay { peer, kind, payload }) if i32::try_from(peer).is_ok() => {
                Ok(Effect::Relay { from: membership, to: peer, kind, payload })
            }
            Ok(Message::Seal) => Ok(Effect::Seal(membership)),
            Ok(Message::Join { .. }) => Err(CloseReason::AlreadyInLobby),
            Ok(Message::Relay { .. }) | Err(MalformedMessage::Id) => Err(CloseReason::InvalidDestination),
            Ok(Message::Id { .. } | Message::PeerConnect(_) | Message::PeerDisconnect(_))
            | Err(MalformedMessage::UnknownKind) => Err(CloseReason::InvalidCommand),
            Err(_) => Err(CloseReason::InvalidFormat),
        }
    }

    fn joined(&mut self, result: Result<Membership, CloseReason>, now: Instant, effects: &mut Vec<Effect>) {
        self.asked = false;
        match result {
            Ok(membership) => {
                effects.push(Effect::Count(if membership.resumed { Event::Resumed } else { Event::Joined }));
                // Whoever has parted meanwhile does not want the place any more; whoever was lost may.
                let wanted = self.seat == Seat::Joining;
                self.seat = Seat::Inside(membership);
                if self.link != Link::Open {
                    if wanted {
                        self.keep(now, effects);
                    } else {
                        self.leave(Leaving::Gone, effects);
                    }
                }
            }
            Err(reason) => {
                self.seat = Seat::Left;
                self.part(now, Some(reason), effects);
            }
        }
    }

    /// The connection ends in order: the place is given up, and if it is us who close it, the client is told why.
    fn part(&mut self, now: Instant, reason: Option<CloseReason>, effects: &mut Vec<Effect>) {
        self.leave(Leaving::Gone, effects);
        if self.link == Link::Open {
            self.link = Link::Closing { until: now + CLOSE_LIMIT };
            self.paused_until = None;
            effects.extend(reason.map(Effect::Close));
        }
    }

    /// The connection is at its end without a goodbye, unless there was one.
    fn lose(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.link == Link::Open {
            effects.push(Effect::Count(Event::Lost));
            self.keep(now, effects);
        }
        if self.link != Link::Gone {
            effects.push(Effect::Drop);
        }
        self.link = Link::Gone;
        self.paused_until = None;
    }

    /// Keeps the place for a client that can come back.
    fn keep(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.seat, Seat::Left) {
            Seat::Inside(membership) if self.has_session && !self.limits.resume.is_zero() => {
                self.seat = Seat::Kept(membership, now + self.limits.resume);
            }
            Seat::Inside(membership) => effects.push(Effect::Leave(membership, self.lost())),
            Seat::Joining => self.seat = Seat::Joining,
            seat @ Seat::Kept(..) => self.seat = seat,
            Seat::Outside { .. } | Seat::Left => {}
        }
    }

    /// How one leaves who did not want to: it is remembered, if it can be known when it comes back.
    fn lost(&self) -> Leaving {
        if self.has_session { Leaving::Lost } else { Leaving::Gone }
    }

    fn leave(&mut self, why: Leaving, effects: &mut Vec<Effect>) {
        // Of one that is joining, `asked` remembers that an answer is to come.
        if let Seat::Inside(membership) | Seat::Kept(membership, _) =
            std::mem::replace(&mut self.seat, Seat::Left)
        {
            effects.push(Effect::Leave(membership, why));
        }
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.deadline().is_some_and(|deadline| now.saturating_duration_since(deadline) > LATE) {
            self.wake_up(now, effects);
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.sealed_until.is_some_and(|until| until <= now) {
            self.sealed_until = None;
            if matches!(self.seat, Seat::Inside(_) | Seat::Kept(..)) {
                self.leave(Leaving::SealComplete, effects);
                self.part(now, Some(CloseReason::SealComplete), effects);
            }
        }
        match self.seat {
            Seat::Outside { until } if until <= now => self.part(now, Some(CloseReason::NotJoined), effects),
            Seat::Kept(_, until) if until <= now => self.leave(Leaving::Lost, effects),
            _ => {}
        }
        match self.link {
            Link::Open if self.silent_until <= now => {
                // It may be that it hears, and only we do not: it is told, and not waited for.
                effects.push(Effect::Close(CloseReason::Unresponsive));
                self.lose(now, effects);
            }
            Link::Open if self.pinged + self.limits.ping <= now => {
                self.pinged = now;
                effects.push(Effect::Ping);
            }
            Link::Closing { until } if until <= now => {
                self.link = Link::Gone;
                effects.push(Effect::Drop);
            }
            _ => {}
        }
    }

    /// It is us who slept, stopped or with too much to do: what the client has said meanwhile may not have been read yet,
    /// so it is asked, and has a while to answer.
    fn wake_up(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.link == Link::Open && self.silent_until < now + self.limits.silence / 2 {
            self.silent_until = now + self.limits.silence / 2;
            self.pinged = now;
            effects.push(Effect::Ping);
        }
        if let Seat::Outside { until } = &mut self.seat {
            *until = (*until).max(now + self.limits.join);
        }
    }

    /// Counts a frame against what the client may send, and pauses if it was the last.
    fn meter(&mut self, now: Instant) {
        self.silent_until = now + self.limits.silence;
        let rate = self.limits.messages;
        self.bucket.take(rate, now);
        let wait = self.bucket.wait(rate, now);
        self.paused_until = (!wait.is_zero()).then(|| now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        join: Duration::from_secs(1),
        ping: Duration::from_secs(10),
        silence: Duration::from_secs(25),
        resume: Duration::from_secs(15),
        seal: Duration::from_secs(10),
        messages: Rate { per_second: 10.0, burst: 5.0 },
    };

    fn membership() -> Membership {
        Membership { lobby: "lobby".to_owned(), id: 7, ticket: 1, resumed: false }
    }

    /// A client, and the time since it came.
    struct Bench {
        state: State,
        start: Instant,
    }

    impl Bench {
        fn new(has_session: bool) -> Bench {
            let start = Instant::now();
            Bench { state: State::new(LIMITS, has_session, start), start }
        }

        fn joined(has_session: bool) -> Bench {
            let mut bench = Bench::new(has_session);
            bench.at(0.0, Input::Text("J: lobby\n".into()));
            bench.at(0.0, Input::Joined(Ok(membership())));
            bench
        }

        fn at(&mut self, seconds: f64, input: Input) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.state.handle(input, self.start + Duration::from_secs_f64(seconds), &mut effects);
            effects.retain(|effect| !matches!(effect, Effect::Count(_)));
            effects
        }

        fn due(&self) -> Option<f64> {
            self.state.deadline().map(|deadline| (deadline - self.start).as_secs_f64())
        }
    }

    #[test]
    fn who_has_not_joined_in_a_second_is_closed_and_then_dropped() {
        let mut client = Bench::new(false);
        assert_eq!(client.due(), Some(1.0));
        assert_eq!(client.at(0.9, Input::Tick), []);
        assert_eq!(client.at(1.0, Input::Tick), [Effect::Close(CloseReason::NotJoined)]);
        assert_eq!(client.due(), Some(3.0), "so long for the answer");
        assert_eq!(client.at(3.0, Input::Tick), [Effect::Drop]);
        assert!(client.state.is_over());
    }

    #[test]
    fn a_client_is_pinged_and_if_it_says_nothing_it_is_lost() {
        let mut client = Bench::joined(false);
        assert_eq!(client.at(10.0, Input::Tick), [Effect::Ping]);
        client.at(11.0, Input::Beat);
        assert_eq!(client.at(20.0, Input::Tick), [Effect::Ping]);
        assert_eq!(client.at(30.0, Input::Tick), [Effect::Ping]);
        assert_eq!(client.due(), Some(36.0), "25 s after the last it said");
        let gone = Effect::Leave(membership(), Leaving::Gone);
        assert_eq!(
            client.at(36.0, Input::Tick),
            [Effect::Close(CloseReason::Unresponsive), gone, Effect::Drop]
        );
        assert!(client.state.is_over());
    }

    #[test]
    fn when_it_is_the_server_that_slept_clients_have_time_to_answer() {
        let mut client = Bench::joined(false);
        assert_eq!(client.at(10.0, Input::Tick), [Effect::Ping]);
        client.at(10.1, Input::Beat);
        // Not for a minute is anything looked at.
        assert_eq!(client.at(70.0, Input::Tick), [Effect::Ping]);
        assert_eq!(client.due(), Some(80.0), "the next ping");
        assert_eq!(client.at(80.0, Input::Tick), [Effect::Ping]);
        assert_eq!(client.due(), Some(82.5), "half of the limit");
        let gone = Effect::Leave(membership(), Leaving::Gone);
        assert_eq!(
            client.at(82.5, Input::Tick),
            [Effect::Close(CloseReason::Unresponsive), gone, Effect::Drop]
        );
        // Whoever answers stays, and a second is no sleep.
        let mut client = Bench::joined(false);
        assert_eq!(client.at(70.0, Input::Tick), [Effect::Ping]);
        client.at(71.0, Input::Beat);
        assert_eq!(client.due(), Some(80.0));
        assert_eq!(client.at(80.0, Input::Tick), [Effect::Ping]);
        assert_eq!(client.at(90.0, Input::Tick), [Effect::Ping]);
        assert_eq!(client.at(97.0, Input::Tick).len(), 3, "25 s after the last it said");
        let mut newcomer = Bench::new(false);
        assert_eq!(newcomer.at(30.0, Input::Tick), [Effect::Ping]);
        newcomer.at(30.5, Input::Text("J: lobby\n".into()));
        assert!(newcomer.state.has_seat(), "what it said before could not be read");
    }

    #[test]
    fn the_place_of_a_client_with_a_session_is_kept_for_so_long() {
        let mut client = Bench::joined(true);
        assert_eq!(client.at(5.0, Input::Lost), [Effect::Drop]);
        assert!(client.state.is_kept() && !client.state.is_over());
        assert_eq!(client.due(), Some(20.0));
        assert_eq!(client.at(20.0, Input::Tick), [Effect::Leave(membership(), Leaving::Lost)]);
        assert!(client.state.is_over());
    }

    #[test]
    fn who_is_closed_as_it_hears_nothing_may_come_back_if_it_has_a_session() {
        for (session, why) in [(true, Leaving::Lost), (false, Leaving::Gone)] {
            let mut client = Bench::joined(session);
            let left = Effect::Leave(membership(), why);
            let effects = client.at(5.0, Input::Letter(Letter::Overflow));
            assert_eq!(effects, [left, Effect::Close(CloseReason::Unresponsive)]);
        }
        // With or without a place that is kept meanwhile.
        let mut client = Bench::joined(true);
        client.state.limits.resume = Duration::ZERO;
        assert_eq!(client.at(5.0, Input::Lost), [Effect::Leave(membership(), Leaving::Lost), Effect::Drop]);
        let mut client = Bench::joined(true);
        client.at(5.0, Input::Lost);
        let effects = client.at(6.0, Input::Letter(Letter::Overflow));
        assert_eq!(effects, [Effect::Leave(membership(), Leaving::Lost)]);
        assert!(client.state.is_over());
    }

    #[test]
    fn who_is_replaced_while_away_just_ends() {
        let mut client = Bench::joined(true);
        client.at(5.0, Input::Lost);
        assert_eq!(client.at(6.0, Input::Letter(Letter::Close(CloseReason::Replaced))), []);
        assert!(client.state.is_over());
    }

    #[test]
    fn a_place_that_comes_too_late_is_given_up() {
        for (input, session) in [(Input::Goodbye, true), (Input::Stop, true), (Input::Lost, false)] {
            let mut client = Bench::new(session);
            client.at(0.0, Input::Text("J: lobby\n".into()));
            client.at(0.1, input);
            assert!(!client.state.is_over(), "an answer is to come");
            let gone = Effect::Leave(membership(), Leaving::Gone);
            assert_eq!(client.at(0.2, Input::Joined(Ok(membership()))), [gone]);
        }
        let mut client = Bench::new(true);
        client.at(0.0, Input::Text("J: lobby\n".into()));
        client.at(0.1, Input::Lost);
        assert_eq!(client.at(0.2, Input::Joined(Ok(membership()))), []);
        assert!(client.state.is_kept(), "one that was lost meanwhile may come back");
    }

    #[test]
    fn nothing_is_read_before_an_answer_nor_above_the_rate() {
        let mut client = Bench::joined(false);
        assert!(client.state.reads());
        client.at(0.0, Input::Text("O: 1\nx".into()));
        assert!(!client.state.reads(), "it is asked whether somebody was told");
        client.at(0.0, Input::Relayed(true));
        for _ in 0..3 {
            assert!(client.state.reads());
            client.at(0.0, Input::Beat);
        }
        assert!(!client.state.reads(), "five at once");
        assert_eq!(client.due(), Some(0.1));
        client.at(0.1, Input::Tick);
        assert!(client.state.reads());
    }

    #[test]
    fn a_sealed_lobby_is_over_in_ten_seconds_also_for_who_is_away() {
        for away in [false, true] {
            let mut client = Bench::joined(true);
            client.at(1.0, Input::Letter(Letter::Say(Message::Seal)));
            if away {
                client.at(1.5, Input::Lost);
            }
            let effects = client.at(11.0, Input::Tick);
            assert!(effects.contains(&Effect::Leave(membership(), Leaving::SealComplete)));
            assert_eq!(effects.contains(&Effect::Close(CloseReason::SealComplete)), !away);
        }
    }

    #[test]
    fn what_cannot_be_read_is_closed_and_not_waited_for_long() {
        let mut client = Bench::joined(true);
        let gone = Effect::Leave(membership(), Leaving::Gone);
        let effects = client.at(1.0, Input::Unreadable(CloseReason::TooLarge));
        assert_eq!(effects, [gone, Effect::Close(CloseReason::TooLarge)]);
        assert_eq!(client.due(), Some(1.5));
        assert_eq!(client.at(1.5, Input::Tick), [Effect::Drop]);
    }
}
