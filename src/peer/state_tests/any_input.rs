//! Whatever a peer's task hears, in any order and at any time.

use proptest::prelude::*;

use super::*;
use crate::connection::CONTROL_VERSION;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_a_task_hears_its_peer_has_one_course_and_one_end(
        renewable in any::<bool>(),
        limits in any_limits(),
        agreed in any_agreed(),
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut course = Course::begin(Subject::new(Limits { renewable, ..limits }, agreed));
        for step in steps {
            course.take(step);
            course.has_a_deadline_until_it_is_over();
        }
        course.ends_at_a_deadline_unless_it_is_connected();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Hear(Heard),
    /// So much later, a deadline may have passed.
    Wait(Duration),
    WaitForTheDeadline,
    /// Reliable packets are accepted, sent, or arrive.
    Traffic(Tally),
}

/// As [`Input`], which is not `Clone`.
#[derive(Debug, Clone)]
enum Heard {
    Condition(ConnectionState, Stage, bool),
    Open(usize),
    Closed(usize),
    Frame(Frame),
    BadFrame,
    /// If it was asked for.
    Received,
    /// If it was asked for.
    Drained,
    Stalled,
    GivenUp,
    /// If it is still connecting, as the task takes over no connection later.
    Renewed,
    Leave(Farewell),
    Settled,
}

fn any_step() -> impl Strategy<Value = Step> {
    let traffic = (0u64..2, 0u64..4, 0u64..4, 0u64..4);
    prop_oneof![
        20 => any_heard().prop_map(Step::Hear),
        3 => (0u64..40_000).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        1 => Just(Step::WaitForTheDeadline),
        4 => traffic.prop_map(|(answers, sent, received, waiting)| {
            Step::Traffic(Tally { answers, sent, received, waiting })
        }),
    ]
}

fn any_heard() -> impl Strategy<Value = Heard> {
    use ConnectionState::{Closed, Connected, Connecting, Disconnected, Failed, New};
    let state = prop_oneof![
        1 => Just(New), 1 => Just(Connecting), 6 => Just(Connected), 3 => Just(Disconnected),
        1 => Just(Failed), 1 => Just(Closed),
    ];
    let stage = prop::sample::select(vec![Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels]);
    let farewell = prop::sample::select(vec![Removed, LocalClose, Replaced]);
    prop_oneof![
        8 => (state, stage, any::<bool>()).prop_map(|(state, stage, closed)| Heard::Condition(state, stage, closed)),
        16 => (0usize..4).prop_map(Heard::Open),
        1 => (0usize..4).prop_map(Heard::Closed),
        16 => any_frame().prop_map(Heard::Frame),
        1 => Just(Heard::BadFrame),
        6 => Just(Heard::Received),
        6 => Just(Heard::Drained),
        1 => Just(Heard::Stalled),
        1 => Just(Heard::GivenUp),
        1 => Just(Heard::Renewed),
        2 => farewell.prop_map(Heard::Leave),
        2 => Just(Heard::Settled),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let number = || prop_oneof![3 => 0u64..4, 1 => any::<u64>()];
    prop_oneof![
        3 => number().prop_map(|credit| Frame::Hello { version: CONTROL_VERSION, credit, steady: false, socket_bytes: 0 }),
        1 => (number(), number(), any::<bool>())
            .prop_map(|(credit, received, pause)| Frame::Credit { credit, received, pause }),
        2 => (number(), number()).prop_map(|(sent, received)| Frame::Goodbye { sent, received }),
        2 => number().prop_map(|received| Frame::GoodbyeAck { received }),
        1 => number().prop_map(|number| Frame::Probe { number }),
        1 => (number(), number()).prop_map(|(number, received)| Frame::Echo { number, received }),
        1 => Just(Frame::Closing),
        1 => any::<u32>().prop_map(|to| Frame::Relay { to, body: Bytes::new() }),
        1 => any::<u32>().prop_map(|from| Frame::Relayed { from, body: Bytes::new() }),
    ]
}

fn any_agreed() -> impl Strategy<Value = Agreed> {
    (prop::option::weighted(0.7, 0u8..3), any::<bool>()).prop_map(|(control, dtls_client)| Agreed {
        control,
        dtls_client,
        ..OURS
    })
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let limit = || (0u64..60_000).prop_map(Duration::from_millis);
    (limit(), limit(), limit()).prop_map(|(handshake, grace, farewell)| Limits {
        handshake,
        grace,
        farewell,
        ..LIMITS
    })
}

/// A peer, and what it has done so far.
struct Course {
    peer: Subject,
    control: bool,
    connected: bool,
    unstable: bool,
    drained: bool,
    acknowledged: bool,
    over: bool,
    /// What it asked the channels to report.
    awaits_received: bool,
    awaits_drained: bool,
}

impl Course {
    fn begin(peer: Subject) -> Course {
        Course {
            control: peer.condition.agreed.unwrap().control.is_some(),
            peer,
            connected: false,
            unstable: false,
            drained: false,
            acknowledged: false,
            over: false,
            awaits_received: false,
            awaits_drained: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hear(heard) => {
                let Some(input) = self.input(heard) else { return };
                let effects = self.peer.handles(input);
                self.follow(effects);
            }
            Step::Wait(time) => {
                let effects = self.peer.after(time);
                self.follow(effects);
            }
            Step::WaitForTheDeadline => self.wait_for_the_deadline(),
            Step::Traffic(Tally { answers, sent, received, waiting }) => {
                let before = self.peer.tally;
                self.peer.tally = Tally {
                    answers: before.answers + answers,
                    sent: before.sent + sent,
                    received: before.received + received,
                    waiting,
                };
            }
        }
    }

    fn input(&mut self, heard: Heard) -> Option<Input> {
        let happening = match heard {
            Heard::Condition(state, stage, remote_closed) => {
                let agreed = self.peer.condition.agreed;
                let failed = state == ConnectionState::Failed && stage <= Stage::Ice;
                let no_relay = failed.then(|| NoRelay { errors: Vec::new(), is_final: remote_closed });
                return Some(Input::Condition(Condition {
                    state,
                    stage,
                    agreed,
                    remote_closed,
                    no_relay,
                    ..self.peer.condition.clone()
                }));
            }
            Heard::Open(channel) => Happening::Open(channel),
            Heard::Closed(channel) => Happening::Closed(channel),
            Heard::Frame(frame) => Happening::Frame(frame),
            Heard::BadFrame => Happening::BadFrame(FrameError::Empty),
            Heard::Received if std::mem::take(&mut self.awaits_received) => Happening::Received,
            Heard::Drained if std::mem::take(&mut self.awaits_drained) => Happening::Drained,
            Heard::Received | Heard::Drained => return None,
            Heard::Stalled => Happening::Stalled,
            Heard::GivenUp => Happening::GivenUp,
            Heard::Renewed => return self.peer.state.is_connecting().then_some(Input::Renewed),
            Heard::Leave(farewell) => return Some(Input::Leave(farewell)),
            Heard::Settled => return Some(Input::Settled(self.peer.tally.sent)),
        };
        Some(Input::Channels(happening))
    }

    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(!self.over, "{effect:?} after the end");
            match &effect {
                Effect::Connected { credit, .. } => {
                    assert!(!self.connected, "connected twice");
                    assert_eq!(credit.is_some(), self.control);
                    self.connected = true;
                }
                Effect::Unstable => {
                    assert!(self.connected && !self.unstable && !self.drained);
                    self.unstable = true;
                }
                Effect::Recovered => {
                    assert!(self.unstable && !self.drained);
                    self.unstable = false;
                }
                Effect::Departed => assert!(self.connected && self.acknowledged && !self.drained),
                Effect::Drain => {
                    assert!(self.connected && !self.drained, "drained twice, or before it was connected");
                    (self.drained, self.awaits_drained) = (true, true);
                }
                Effect::AwaitReceived(_) => self.awaits_received = true,
                Effect::AwaitClosed => assert!(self.connected),
                Effect::Say(frame) => self.say(frame),
                Effect::Relay { .. } | Effect::Relayed { .. } => assert!(self.control),
                Effect::SayHello => assert!(self.control && !self.connected),
                Effect::Credit { .. } => assert!(self.control && self.connected),
                Effect::End(exit) => self.end(exit),
            }
        }
    }

    fn say(&mut self, frame: &Frame) {
        assert!(self.control, "a foreign peer does not know what {frame:?} is");
        assert!(self.connected, "{frame:?} before both hellos");
        match *frame {
            Frame::Goodbye { sent, received } => {
                assert_eq!((sent, received), (self.peer.tally.sent, self.peer.tally.received));
            }
            Frame::GoodbyeAck { received } => {
                assert_eq!(received, self.peer.tally.received);
                assert!(!self.acknowledged, "acknowledged twice");
                self.acknowledged = true;
            }
            _ => {}
        }
    }

    fn end(&mut self, exit: &Exit) {
        self.over = true;
        match exit {
            Exit::Silent | Exit::Failed(_) => assert!(!self.connected, "{exit:?} of a connected peer"),
            Exit::Disconnected(reason) => {
                assert!(self.connected, "{reason:?} of a peer that never was connected");
                if let DisconnectReason::Unconfirmed { packets } = reason {
                    let accepted = self.peer.tally.sent + self.peer.tally.waiting;
                    assert!((1..=accepted).contains(packets), "{packets} of {accepted}");
                }
            }
        }
    }

    fn wait_for_the_deadline(&mut self) {
        let Some(deadline) = self.peer.state.deadline() else { return };
        let effects = self.peer.after(deadline.saturating_duration_since(self.peer.now));
        self.follow(effects);
    }

    /// A connected peer is looked at again and again.
    fn has_a_deadline_until_it_is_over(&self) {
        assert_eq!(self.peer.state.deadline().is_none(), self.over, "{:?}", self.peer.state);
    }

    fn ends_at_a_deadline_unless_it_is_connected(mut self) {
        // Silent ones are looked at every 250 ms.
        for _ in 0..300 {
            if self.is_settled() {
                return;
            }
            self.wait_for_the_deadline();
        }
        assert!(self.over, "{:?}", self.peer.state);
    }

    /// Connected, heard, and nobody leaves.
    fn is_settled(&self) -> bool {
        self.connected && !self.unstable && !self.drained && !self.over
    }
}
