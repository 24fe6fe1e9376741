//! How a peer comes, stays and goes, told in inputs, effects and times.

use Farewell::{LocalClose, Removed, Replaced};

use super::*;
use crate::connection::{Agreed, NoRelay};
use crate::peer::control::FrameError;

#[path = "state_tests/any_input.rs"]
mod any_input;

// Coming.

#[test]
fn the_dtls_client_says_hello_first() {
    let mut client = ours(DTLS_CLIENT);
    client.is(ConnectionState::Connected);
    assert_eq!(client.opens([0, 1, 2]), nothing());
    assert_eq!(client.opens([3]), [Effect::SayHello]);
    assert_eq!(client.hears(HELLO), [connected_with(Some(1000))]);
}

#[test]
fn the_dtls_server_waits_for_the_clients_hello() {
    let mut server = ours(DTLS_SERVER);
    server.is(ConnectionState::Connected);
    assert_eq!(server.opens([0, 1, 2, 3]), nothing());
    assert_eq!(server.hears(HELLO), [Effect::SayHello, connected_with(Some(1000))]);
}

#[test]
fn a_hello_that_comes_before_the_channels_are_open_is_answered_when_they_are() {
    let mut server = ours(DTLS_SERVER);
    server.is(ConnectionState::Connected);
    assert_eq!(server.opens([3]), nothing());
    assert_eq!(server.hears(HELLO), nothing());
    assert_eq!(server.opens([0, 1, 2])[..2], [Effect::SayHello, connected_with(Some(1000))]);
}

#[test]
fn what_the_remotes_socket_holds_is_what_its_first_hello_says() {
    let mut peer = ours(DTLS_SERVER);
    peer.is(ConnectionState::Connected);
    peer.opens([0, 1, 2, 3]);
    for socket_bytes in [300_000, 7] {
        peer.hears(Frame::Hello { version: 1, credit: 1000, steady: false, socket_bytes });
        assert_eq!(peer.state.remote_socket_bytes(), 300_000);
    }
}

#[test]
fn a_second_hello_changes_nothing() {
    let mut peer = connected();
    assert_eq!(
        peer.hears(Frame::Hello { version: 1, credit: u64::MAX, steady: false, socket_bytes: 0 }),
        nothing()
    );
}

#[test]
fn a_foreign_peer_is_connected_when_its_three_channels_are_open() {
    let mut peer = foreign();
    peer.is(ConnectionState::Connected);
    assert_eq!(peer.opens([2, 0]), nothing());
    assert_eq!(peer.opens([1]), [connected_with(None)]);
}

#[test]
fn a_foreign_peer_knows_nothing_of_the_control_channel() {
    let mut peer = connected_foreign();
    for frame in [HELLO, Frame::Probe { number: 1 }, Frame::Goodbye { sent: 0, received: 0 }, ack(9)] {
        assert_eq!(peer.hears(frame), nothing());
    }
    assert_eq!(peer.happens(Happening::BadFrame(FrameError::Empty)), nothing());
    assert_eq!(peer.happens(Happening::Closed(CONTROL)), nothing());
    assert_eq!(peer.happens(Happening::Closed(0)), [gone(DisconnectReason::RemoteClose)]);
}

#[test]
fn the_handshake_limit_names_the_stage_it_was_stuck_in() {
    for stage in [Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels] {
        let mut peer = ours(DTLS_CLIENT);
        peer.condition.stage = stage;
        peer.is(ConnectionState::Connecting);
        assert_eq!(peer.after(LIMITS.handshake - MOMENT), nothing());
        let failure = PeerFailure::timed_out(stage, LIMITS.handshake);
        assert_eq!(peer.after(MOMENT), [failed(failure)]);
    }
}

#[test]
fn a_connection_that_fails_while_connecting_fails_the_peer() {
    let mut peer = ours(DTLS_CLIENT);
    let failure = PeerFailure::connection_failed(Stage::Ice);
    assert_eq!(peer.is(ConnectionState::Failed), [failed(failure)]);

    let mut peer = ours(DTLS_CLIENT);
    peer.condition.remote_closed = true;
    let failure = PeerFailure::remote_closed(Stage::Ice);
    assert_eq!(peer.is(ConnectionState::Failed), [failed(failure)]);
}

#[test]
fn a_renewable_peer_does_not_fail_before_the_limit() {
    let mut peer = Subject::new(Limits { renewable: true, ..LIMITS }, OURS);
    assert_eq!(peer.is(ConnectionState::Failed), nothing());
    assert_eq!(peer.happens(Happening::Closed(0)), nothing());
    assert_eq!(peer.handles(Input::Renewed), nothing());
    assert_eq!(peer.is(ConnectionState::Connecting), nothing());
    let failure = PeerFailure::timed_out(Stage::Ice, LIMITS.handshake);
    assert_eq!(peer.after(LIMITS.handshake), [failed(failure)]);
}

#[test]
fn without_a_relay_a_peer_fails_early_unless_a_fresh_connection_may_have_one() {
    let problem = crate::error::IceServerProblem::Unanswered;
    let errors = vec![IceServerError { url: "turn:192.0.2.1".to_owned(), problem }];
    let failure = failed(PeerFailure::IceServers(errors.clone()));
    for (renewable, is_final) in [(false, false), (false, true), (true, true)] {
        let mut peer = Subject::new(Limits { renewable, ..LIMITS }, OURS);
        peer.condition.no_relay = Some(NoRelay { errors: errors.clone(), is_final });
        assert_eq!(peer.is(ConnectionState::Failed), std::slice::from_ref(&failure));
    }
    for reached in [false, true] {
        let mut peer = Subject::new(Limits { renewable: true, ..LIMITS }, OURS);
        peer.condition.no_relay = Some(NoRelay { errors: errors.clone(), is_final: false });
        assert_eq!(peer.is(ConnectionState::Failed), nothing());
        peer.handles(Input::Renewed);
        peer.condition.no_relay = None;
        peer.condition.stage = if reached { Stage::Dtls } else { Stage::Signaling };
        assert_eq!(peer.is(ConnectionState::Connecting), nothing());
        let timed_out = PeerFailure::timed_out(Stage::Dtls, LIMITS.handshake);
        let failure = if reached { failed(timed_out) } else { failure.clone() };
        assert_eq!(peer.after(LIMITS.handshake), [failure]);
    }
}

#[test]
fn a_fresh_connection_begins_with_nothing_open_and_nothing_said() {
    let mut peer = Subject::new(Limits { renewable: true, ..LIMITS }, OURS);
    peer.is(ConnectionState::Connected);
    assert_eq!(peer.opens([0, 1, 2, 3]), [Effect::SayHello]);
    peer.handles(Input::Renewed);
    assert_eq!(peer.hears(HELLO), nothing());
    assert_eq!(peer.opens([0, 1, 2]), nothing());
    assert_eq!(peer.opens([3])[..2], [Effect::SayHello, connected_with(Some(1000))]);
}

#[test]
fn what_is_said_before_both_hellos_is_ignored() {
    let mut peer = ours(DTLS_CLIENT);
    for frame in [Frame::Goodbye { sent: 0, received: 0 }, ack(0), Frame::Probe { number: 7 }] {
        assert_eq!(peer.hears(frame), nothing());
    }
}

#[test]
fn a_peer_told_to_leave_while_connecting_is_over_in_silence() {
    for farewell in [Removed, LocalClose, Replaced] {
        assert_eq!(ours(DTLS_CLIENT).leaves(farewell), [Effect::End(Exit::Silent)]);
    }
}

// Staying.

#[test]
fn a_silent_peer_is_unstable_and_recovers_within_the_grace() {
    let mut peer = connected();
    assert_eq!(peer.is(ConnectionState::Disconnected), [Effect::Unstable]);
    assert_eq!(peer.after(LIMITS.grace - MOMENT), nothing());
    assert_eq!(peer.is(ConnectionState::Connected), [Effect::Recovered]);
    assert!(peer.after(LIMITS.grace).iter().all(|effect| !matches!(effect, Effect::End(_))));
}

#[test]
fn a_silent_peer_is_lost_after_the_grace() {
    let mut peer = connected();
    peer.is(ConnectionState::Disconnected);
    assert_eq!(peer.after(LIMITS.grace), [gone(DisconnectReason::ConnectionLost)]);
}

#[test]
fn each_silence_has_its_own_grace() {
    let mut peer = connected_foreign();
    peer.is(ConnectionState::Disconnected);
    peer.after(LIMITS.grace - MOMENT);
    peer.is(ConnectionState::Connected);
    assert_eq!(peer.is(ConnectionState::Disconnected), [Effect::Unstable]);
    assert_eq!(peer.after(LIMITS.grace - MOMENT), nothing());
    assert_eq!(peer.after(MOMENT), [gone(DisconnectReason::ConnectionLost)]);
}

#[test]
fn a_peer_that_is_silent_when_its_channels_open_has_the_grace_too() {
    let mut peer = foreign();
    peer.is(ConnectionState::Disconnected);
    assert_eq!(peer.opens([0, 1, 2]), [connected_with(None), Effect::Unstable]);
    assert_eq!(peer.after(LIMITS.grace), [gone(DisconnectReason::ConnectionLost)]);
}

#[test]
fn a_connected_peer_whose_connection_fails_is_lost() {
    assert_eq!(connected().is(ConnectionState::Failed), [gone(DisconnectReason::ConnectionLost)]);
}

#[test]
fn a_remote_that_closes_has_left() {
    let mut peer = connected();
    peer.condition.remote_closed = true;
    assert_eq!(peer.is(ConnectionState::Failed), [Effect::AwaitClosed], "what arrived before is taken first");
    assert_eq!(peer.happens(Happening::Closed(0)), [gone(DisconnectReason::RemoteClose)]);
    assert_eq!(connected().happens(Happening::Closed(2)), [gone(DisconnectReason::RemoteClose)]);
}

#[test]
fn a_connection_closed_here_ends_the_peer_and_says_so() {
    assert_eq!(connected().is(ConnectionState::Closed), [gone(DisconnectReason::ConnectionClosed)]);
}

#[test]
fn a_remote_that_sends_more_than_it_was_granted_is_gone() {
    let effects = connected().happens(Happening::Overrun);
    assert!(
        matches!(&effects[..], [Effect::End(Exit::Disconnected(DisconnectReason::Protocol(_)))]),
        "{effects:?}"
    );
}

#[test]
fn a_queue_that_stays_full_ends_the_peer() {
    assert_eq!(connected().happens(Happening::Stalled), [gone(DisconnectReason::TooSlow)]);
}

#[test]
fn a_remote_that_acknowledges_nothing_is_gone_unless_it_is_silent() {
    assert_eq!(connected().happens(Happening::GivenUp), [gone(DisconnectReason::Unacknowledged)]);
    let mut silent = connected();
    silent.is(ConnectionState::Disconnected);
    assert_eq!(silent.happens(Happening::GivenUp), nothing());
}

#[test]
fn a_frame_that_breaks_the_protocol_ends_the_peer_and_says_how() {
    let broken = || Happening::BadFrame(FrameError::Short(3));
    let how = "control message 3 is cut short".to_owned();
    assert_eq!(connected().happens(broken()), [gone(DisconnectReason::Protocol(how.clone()))]);
    assert_eq!(ours(DTLS_CLIENT).happens(broken()), [failed(PeerFailure::Protocol(how))]);
}

#[test]
fn a_remote_is_asked_what_has_arrived_while_something_may_not_have_and_an_idle_one_nothing() {
    let mut peer = connected();
    let probe = |number| Effect::Say(Frame::Probe { number });
    for answers in 1..10 {
        peer.tally.answers = answers;
        assert_eq!(peer.after(Duration::from_secs(1)), nothing());
    }
    (peer.tally.sent, peer.tally.answers) = (3, 10);
    assert_eq!(peer.after(PROBE_INTERVAL), [probe(1)]);
    peer.tally.answers = 11;
    assert_eq!(peer.after(PROBE_INTERVAL), nothing(), "it is unanswered");
    peer.hears(Frame::Echo { number: 1, received: 2 });
    peer.tally.answers = 12;
    assert_eq!(peer.after(PROBE_INTERVAL), [probe(2)], "one is missing");
    peer.hears(Frame::Echo { number: 2, received: 3 });
    peer.tally.answers = 13;
    assert_eq!(peer.after(PROBE_INTERVAL), nothing());
    assert_eq!(peer.after(PROBE_INTERVAL), [probe(3)], "ICE's questions have no answer");
}

#[test]
fn a_probe_is_echoed_with_what_has_arrived() {
    let mut peer = connected();
    peer.tally.received = 5;
    let echo = Effect::Say(Frame::Echo { number: u64::MAX, received: 5 });
    assert_eq!(peer.hears(Frame::Probe { number: u64::MAX }), [echo]);
}

#[test]
fn a_credit_is_passed_on() {
    let credit = Frame::Credit { credit: 7, received: 0, pause: true };
    assert_eq!(connected().hears(credit), [Effect::Credit { limit: 7, pause: true }]);
}

// Leaving.

#[test]
fn a_peer_that_leaves_drains_says_goodbye_and_waits_for_the_acknowledgement() {
    for (farewell, reason) in
        [(Removed, DisconnectReason::Removed), (LocalClose, DisconnectReason::LocalClose)]
    {
        let mut peer = connected();
        peer.tally = Tally { sent: 2, received: 0, waiting: 3, ..Tally::default() };
        assert_eq!(peer.leaves(farewell), [Effect::Drain]);
        peer.tally = Tally { sent: 5, received: 0, waiting: 0, ..Tally::default() };
        assert_eq!(peer.happens(Happening::Drained), [Effect::Say(Frame::Goodbye { sent: 5, received: 0 })]);
        assert_eq!(peer.hears(ack(5)), [Effect::Say(Frame::Closing), gone(reason)]);
    }
}

#[test]
fn a_foreign_peer_has_left_when_its_sctp_has_acknowledged_everything() {
    let mut peer = connected_foreign();
    peer.tally.sent = 5;
    peer.handles(Input::Settled(3));
    assert_eq!(peer.leaves(Removed), [Effect::Drain]);
    assert_eq!(peer.handles(Input::Settled(5)), nothing(), "more may wait");
    peer.tally.sent = 6;
    assert_eq!(peer.happens(Happening::Drained), nothing());
    assert_eq!(peer.handles(Input::Settled(6)), [gone(DisconnectReason::Removed)]);
}

#[test]
fn a_foreign_peer_with_nothing_outstanding_has_left_when_it_is_drained() {
    let mut peer = connected_foreign();
    peer.tally.sent = 5;
    peer.handles(Input::Settled(5));
    peer.leaves(LocalClose);
    assert_eq!(peer.happens(Happening::Drained), [gone(DisconnectReason::LocalClose)]);
}

#[test]
fn at_the_farewell_limit_what_is_not_confirmed_is_counted() {
    let mut peer = connected();
    peer.tally = Tally { sent: 5, received: 0, waiting: 3, ..Tally::default() };
    peer.hears(Frame::Credit { credit: 0, received: 4, pause: false });
    peer.leaves(Removed);
    assert_eq!(peer.after(LIMITS.farewell - MOMENT), nothing());
    assert_eq!(peer.after(MOMENT), [gone(DisconnectReason::Unconfirmed { packets: 1 + 3 })]);
}

#[test]
fn at_the_farewell_limit_what_is_confirmed_needs_no_acknowledgement() {
    let mut peer = connected();
    peer.tally.sent = 5;
    peer.hears(Frame::Echo { number: 0, received: 5 });
    peer.leaves(Removed);
    assert_eq!(peer.after(LIMITS.farewell), [gone(DisconnectReason::Removed)]);
}

#[test]
fn when_the_remote_vanishes_during_the_farewell_what_is_not_confirmed_is_counted() {
    let mut peer = connected();
    peer.tally = Tally { sent: 5, received: 0, waiting: 0, ..Tally::default() };
    peer.leaves(LocalClose);
    peer.hears(Frame::Credit { credit: 0, received: 2, pause: false });
    assert_eq!(peer.is(ConnectionState::Failed), [gone(DisconnectReason::Unconfirmed { packets: 3 })]);
}

#[test]
fn a_remote_that_confirms_more_than_was_sent_is_not_believed() {
    let mut peer = connected();
    peer.tally.sent = 2;
    peer.hears(Frame::Echo { number: 0, received: u64::MAX });
    peer.tally.sent = 5;
    peer.leaves(Removed);
    assert_eq!(peer.after(LIMITS.farewell), [gone(DisconnectReason::Unconfirmed { packets: 3 })]);
}

#[test]
fn silence_during_the_farewell_does_not_prolong_it() {
    let mut peer = connected();
    peer.leaves(Removed);
    assert_eq!(peer.is(ConnectionState::Disconnected), nothing());
    assert_eq!(peer.after(LIMITS.farewell), [gone(DisconnectReason::Removed)]);
}

#[test]
fn an_unstable_peer_can_leave_too() {
    let mut peer = connected();
    peer.is(ConnectionState::Disconnected);
    assert_eq!(peer.leaves(Removed), [Effect::Drain]);
    assert_eq!(peer.is(ConnectionState::Connected), nothing());
}

#[test]
fn who_leaves_is_told_so_once() {
    let mut peer = connected();
    peer.leaves(Removed);
    peer.after(LIMITS.farewell - MOMENT);
    assert_eq!(peer.leaves(LocalClose), nothing());
    assert_eq!(peer.after(MOMENT), [gone(DisconnectReason::Removed)], "the first reason counts");
}

#[test]
fn being_replaced_takes_no_time() {
    assert_eq!(connected().leaves(Replaced), [gone(DisconnectReason::Replaced)]);

    let mut unstable = connected();
    unstable.is(ConnectionState::Disconnected);
    assert_eq!(unstable.leaves(Replaced), [gone(DisconnectReason::Replaced)]);

    let mut leaving = connected();
    leaving.tally.sent = 1;
    leaving.leaves(Removed);
    assert_eq!(leaving.leaves(Replaced), [gone(DisconnectReason::Unconfirmed { packets: 1 })]);

    let mut dismissed = connected();
    dismissed.hears(Frame::Goodbye { sent: 0, received: 0 });
    dismissed.happens(Happening::Received);
    assert_eq!(dismissed.leaves(Replaced), [gone(DisconnectReason::RemoteClose)]);
}

// The remote leaves.

#[test]
fn a_goodbye_is_acknowledged_when_all_has_arrived_and_then_the_remote_closes() {
    let mut peer = connected();
    peer.tally.received = 3;
    assert_eq!(peer.hears(Frame::Goodbye { sent: 5, received: 0 }), [Effect::AwaitReceived(5)]);
    peer.tally.received = 5;
    assert_eq!(peer.happens(Happening::Received), [Effect::Say(ack(5)), Effect::Departed, Effect::Drain]);
    assert_eq!(peer.happens(Happening::Drained), nothing());
    assert_eq!(peer.happens(Happening::Closed(0)), [gone(DisconnectReason::RemoteClose)]);
}

// Falling silent.

#[test]
fn a_remote_that_answers_nothing_is_unstable_until_it_does() {
    let mut peer = connected();
    peer.tally.answers = 7;
    let mut effects = Vec::new();
    for second in 1..=10 {
        effects.extend(peer.after(Duration::from_secs(1)).into_iter().map(|effect| (second, effect)));
    }
    let fell = effects.iter().find(|(_, effect)| *effect == Effect::Unstable);
    assert!(fell.is_some_and(|(second, _)| (5..=7).contains(second)), "{effects:?}");
    peer.tally.answers = 8;
    assert_eq!(peer.after(Duration::from_secs(1)), [Effect::Recovered]);

    let mut peer = connected();
    peer.tally.answers = 7;
    let effects: Vec<Effect> = (0..30).flat_map(|_| peer.after(Duration::from_secs(1))).collect();
    assert_eq!(effects.last(), Some(&gone(DisconnectReason::ConnectionLost)), "{effects:?}");
}

#[test]
fn a_restart_by_the_remote_has_4_s_before_it_counts_as_silence() {
    let mut peer = connected();
    assert_eq!(peer.is(ConnectionState::Connecting), nothing());
    assert_eq!(peer.after(Duration::from_secs(1)).len(), 0);
    assert_eq!(peer.is(ConnectionState::Connected), nothing());

    assert_eq!(peer.is(ConnectionState::Connecting), nothing());
    let effects: Vec<Effect> = (0..4).flat_map(|_| peer.after(Duration::from_secs(1))).collect();
    assert_eq!(effects.last(), Some(&Effect::Unstable), "{effects:?}");
    peer.tally.answers = 1;
    assert_eq!(peer.is(ConnectionState::Connected), [Effect::Recovered]);
}

#[test]
fn who_has_too_much_relayed_is_not_heard() {
    let mut peer = connected();
    let relay = || Frame::Relay { to: 3, body: Bytes::new() };
    let count = (0..1000).map(|_| peer.hears(relay()).len()).sum::<usize>();
    assert_eq!(count, 256);
    peer.after(Duration::from_secs(10));
    assert_eq!(peer.hears(relay()), [Effect::Relay { to: 3, body: Bytes::new() }]);
}

#[test]
fn a_remote_that_says_that_it_closes_is_gone_if_it_has_said_goodbye() {
    let mut peer = connected();
    assert_eq!(peer.hears(Frame::Closing), nothing());
    peer.hears(Frame::Goodbye { sent: 0, received: 0 });
    assert_eq!(peer.hears(Frame::Closing), nothing(), "it has no acknowledgement yet");
    peer.happens(Happening::Received);
    assert_eq!(peer.hears(Frame::Closing), [gone(DisconnectReason::RemoteClose)]);
}

#[test]
fn a_remote_that_says_goodbye_and_does_not_close_is_gone_after_the_farewell() {
    let mut peer = connected();
    peer.hears(Frame::Goodbye { sent: 0, received: 0 });
    peer.happens(Happening::Received);
    assert_eq!(peer.after(LIMITS.farewell), [gone(DisconnectReason::RemoteClose)]);
}

#[test]
fn a_goodbye_is_acknowledged_once() {
    let mut peer = connected();
    assert_eq!(peer.hears(Frame::Goodbye { sent: 0, received: 0 }), [Effect::AwaitReceived(0)]);
    assert_eq!(peer.hears(Frame::Goodbye { sent: 0, received: 0 }), nothing());
    peer.happens(Happening::Received);
    assert_eq!(peer.hears(Frame::Goodbye { sent: 0, received: 0 }), nothing());
}

#[test]
fn both_leave_at_once_and_the_acknowledgement_comes_after_all_has_arrived() {
    let mut peer = connected();
    peer.leaves(Removed);
    peer.happens(Happening::Drained);
    assert_eq!(peer.hears(Frame::Goodbye { sent: 0, received: 0 }), [Effect::AwaitReceived(0)]);
    assert_eq!(peer.happens(Happening::Received), [Effect::Say(ack(0))]);
    assert_eq!(peer.hears(ack(0)), [Effect::Say(Frame::Closing), gone(DisconnectReason::Removed)]);
}

/// What is said in the same breath as the end is not heard: the connection closes.
#[test]
fn a_goodbye_confirms_what_its_sender_has_received() {
    let mut peer = connected();
    peer.tally.sent = 3;
    peer.hears(Frame::Goodbye { sent: 0, received: 3 });
    peer.happens(Happening::Received);
    assert_eq!(peer.leaves(LocalClose), nothing());
    assert_eq!(peer.happens(Happening::Closed(CONTROL)), [gone(DisconnectReason::RemoteClose)]);
}

#[test]
fn both_leave_at_once_and_our_goodbye_goes_before_our_acknowledgement() {
    let mut peer = connected();
    peer.leaves(LocalClose);
    assert_eq!(peer.hears(Frame::Goodbye { sent: 0, received: 0 }), [Effect::AwaitReceived(0)]);
    assert_eq!(
        peer.happens(Happening::Received),
        nothing(),
        "the remote would close and lose what waits here"
    );
    assert_eq!(
        peer.happens(Happening::Drained),
        [Effect::Say(Frame::Goodbye { sent: 0, received: 0 }), Effect::Say(ack(0))]
    );
}

#[test]
fn who_is_told_to_leave_after_the_remotes_goodbye_says_what_was_not_confirmed() {
    for (sent, reason) in
        [(0, DisconnectReason::RemoteClose), (3, DisconnectReason::Unconfirmed { packets: 3 })]
    {
        let mut peer = connected();
        peer.tally.sent = sent;
        peer.hears(Frame::Goodbye { sent: 0, received: 0 });
        peer.happens(Happening::Received);
        assert_eq!(peer.leaves(LocalClose), nothing());
        assert_eq!(peer.happens(Happening::Closed(CONTROL)), [gone(reason)]);
    }
}

#[test]
fn both_leave_at_once_and_who_is_acknowledged_first_stays_until_it_has_acknowledged() {
    let mut peer = connected();
    peer.leaves(LocalClose);
    peer.happens(Happening::Drained);
    assert_eq!(peer.hears(Frame::Goodbye { sent: 1, received: 0 }), [Effect::AwaitReceived(1)]);
    assert_eq!(peer.hears(ack(0)), nothing());
    peer.tally.received = 1;
    assert_eq!(peer.happens(Happening::Received), [Effect::Say(ack(1))]);
    assert_eq!(peer.happens(Happening::Closed(CONTROL)), [gone(DisconnectReason::LocalClose)]);
}

const DTLS_CLIENT: bool = true;
const DTLS_SERVER: bool = false;
const MOMENT: Duration = Duration::from_millis(1);
const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(30),
    grace: Duration::from_secs(8),
    farewell: Duration::from_secs(5),
    stall: Duration::from_secs(30),
    renewable: false,
    window_bytes: 1 << 20,
};
const OURS: Agreed = Agreed { control: Some(1), dtls_client: DTLS_CLIENT, max_message_bytes: 65_536 };
const HELLO: Frame = Frame::Hello { version: 1, credit: 1000, steady: false, socket_bytes: 0 };

/// A peer's state, its clock and its counters.
struct Subject {
    state: State,
    condition: Condition,
    tally: Tally,
    now: Instant,
}

/// A member of this crate.
fn ours(dtls_client: bool) -> Subject {
    Subject::new(LIMITS, Agreed { dtls_client, ..OURS })
}

/// A Godot game, or a browser.
fn foreign() -> Subject {
    Subject::new(LIMITS, Agreed { control: None, ..OURS })
}

fn connected() -> Subject {
    let mut peer = ours(DTLS_CLIENT);
    peer.is(ConnectionState::Connected);
    peer.opens([0, 1, 2, 3]);
    peer.hears(HELLO);
    peer
}

fn connected_foreign() -> Subject {
    let mut peer = foreign();
    peer.is(ConnectionState::Connected);
    peer.opens([0, 1, 2]);
    peer
}

impl Subject {
    fn new(limits: Limits, agreed: Agreed) -> Subject {
        let condition = Condition {
            stage: Stage::Ice,
            agreed: Some(agreed),
            ..Condition::new(ConnectionState::Connecting)
        };
        let now = Instant::now();
        let state = State::new(limits, condition.clone(), now);
        Subject { state, condition, tally: Tally::default(), now }
    }

    fn handles(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state.handle(input, self.tally, self.now, &mut effects);
        effects
    }

    fn is(&mut self, state: ConnectionState) -> Vec<Effect> {
        self.condition.state = state;
        self.handles(Input::Condition(self.condition.clone()))
    }

    fn opens(&mut self, channels: impl IntoIterator<Item = usize>) -> Vec<Effect> {
        channels.into_iter().flat_map(|channel| self.happens(Happening::Open(channel))).collect()
    }

    fn hears(&mut self, frame: Frame) -> Vec<Effect> {
        self.happens(Happening::Frame(frame))
    }

    fn happens(&mut self, happening: Happening) -> Vec<Effect> {
        self.handles(Input::Channels(happening))
    }

    fn leaves(&mut self, farewell: Farewell) -> Vec<Effect> {
        self.handles(Input::Leave(farewell))
    }

    /// Time passes.
    fn after(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.handles(Input::Tick)
    }
}

fn nothing() -> [Effect; 0] {
    []
}

fn ack(received: u64) -> Frame {
    Frame::GoodbyeAck { received }
}

fn connected_with(credit: Option<u64>) -> Effect {
    Effect::Connected { credit, max_message_bytes: OURS.max_message_bytes }
}

fn failed(failure: PeerFailure) -> Effect {
    Effect::End(Exit::Failed(failure))
}

fn gone(reason: DisconnectReason) -> Effect {
    Effect::End(Exit::Disconnected(reason))
}
