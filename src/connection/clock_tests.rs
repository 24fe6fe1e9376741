use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;
const S: fn(u64) -> Duration = Duration::from_secs;

const ACKNOWLEDGED: Held =
    Held { lasting_bytes: 500, headway: true, fleeting_bytes: 0, moves: false, is_greeted: true };
const STUCK: Held = Held { headway: false, ..ACKNOWLEDGED };

/// Open, with a round trip of 40 ms, and something to send.
fn busy(remote: Remote) -> (State, Instant) {
    let start = Instant::now();
    let mut state = State::new(start);
    state.change(start, |state| {
        (state.remote, state.round_trip, state.traffic) = (Some(remote), Some(MS(40)), Some(start));
    });
    (state, start)
}

/// How far the clock has gone when so much time has passed.
fn gone(state: &mut State, start: Instant, time: Duration) -> Duration {
    state.change(start + time, |_| {});
    time + state.ahead
}

#[test]
fn a_second_of_sctps_takes_little_more_than_a_round_trip_and_with_strangers_their_delay_as_well() {
    let second = |remote, round_trip, takes| {
        let (mut state, start) = busy(remote);
        state.change(start, |state| state.round_trip = Some(round_trip));
        let gone = gone(&mut state, start, takes);
        assert!(gone.abs_diff(S(1)) < MS(2), "{remote:?}, {round_trip:?}: {gone:?}");
    };
    second(Remote::Member, MS(40), MS(70));
    second(Remote::Stranger, MS(40), MS(320));
    second(Remote::Member, MS(400), MS(520));
    second(Remote::Member, MS(0), MS(100));
    second(Remote::Member, MS(20), MS(85));
    // A long path has its second.
    second(Remote::Member, MS(900), S(1));
}

#[test]
fn a_backlog_has_longer_as_long_as_the_remote_answers() {
    let little = Held { lasting_bytes: BACKLOG_BYTES - 1, ..ACKNOWLEDGED };
    let much = Held { lasting_bytes: BACKLOG_BYTES, ..ACKNOWLEDGED };
    let fleeting =
        Held { lasting_bytes: 0, fleeting_bytes: BACKLOG_BYTES, headway: false, moves: true, ..ACKNOWLEDGED };
    for (held, second) in [(little, MS(70)), (much, Duration::from_micros(122_500)), (fleeting, MS(70))] {
        let (clock, start) = clock(|state| {
            (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
            state.traffic = Some(state.reckoned);
        });
        clock.held(held);
        // In 70 ms a quarter of the second, and then the rest as fast as ever.
        let _ = clock.heard_data(200);
        let turn = clock.turn(S(1), start);
        assert!(turn.sleep.abs_diff(second) < MS(1), "{held:?}: {turn:?}");
        let gone = |time| clock.read(start + time, false) - start;
        assert!(gone(second).abs_diff(S(1)) < MS(10), "{held:?}: {:?}", gone(second));
        // The remote is heard again and again.
        let mut now = start + second;
        for after in [0, 50, 50] {
            now += MS(after);
            let _ = clock.heard_data(200);
            clock.turn(S(1), now);
        }
        let gone = clock.read(now, false) - start - S(1);
        let takes = if held.lasting_bytes < BACKLOG_BYTES { 70.0 } else { 280.0 };
        assert!((gone.as_secs_f64() * takes / 100.0 - 1.0).abs() < 0.05, "{held:?}: {gone:?}");
    }
}

#[test]
fn the_driver_is_told_when_a_backlog_is_over() {
    let much = Held { lasting_bytes: BACKLOG_BYTES, ..ACKNOWLEDGED };
    let (clock, start) = clock(|state| {
        (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
        state.traffic = Some(state.reckoned);
    });
    clock.held(much);
    let _ = clock.heard_data(200);
    clock.turn(S(1), start);
    assert!(!clock.held(much).hurries);
    assert!(clock.held(ACKNOWLEDGED).hurries);
    assert!(!clock.held(ACKNOWLEDGED).hurries);
}

#[test]
fn without_traffic_the_clock_is_not_ahead() {
    let (mut state, start) = busy(Remote::Member);
    let after_traffic = gone(&mut state, start, TRAFFIC);
    assert!(after_traffic > S(5));
    assert_eq!(gone(&mut state, start, TRAFFIC + S(9)), after_traffic + S(9));
    for change in [
        |state: &mut State| state.remote = None,
        |state: &mut State| state.searching = true,
        |state: &mut State| state.steady = true,
        |state: &mut State| state.round_trip = None,
    ] {
        let (mut state, start) = busy(Remote::Member);
        state.change(start, change);
        assert_eq!(gone(&mut state, start, MS(500)), MS(500));
    }
}

#[test]
fn without_headway_only_so_much_is_gained_and_more_while_the_remote_answers() {
    for (answered, heard, budget) in
        [(false, true, BUDGET), (true, false, BUDGET), (true, true, BUDGET_ANSWERED)]
    {
        let (mut state, start) = busy(Remote::Member);
        for millis in (0..10_000).step_by(100) {
            let now = start + MS(millis);
            state.change(now, |state| {
                (state.traffic, state.answered) = (Some(now), answered.then_some(now));
                if heard {
                    state.answers_until = now;
                }
            });
        }
        assert!(state.ahead.abs_diff(budget) < MS(1), "{:?}", state.ahead);
        // Since the last acknowledgement.
        state.change(start + S(10), |state| state.gained = Duration::ZERO);
        gone(&mut state, start, S(10) + MS(500));
        assert!(state.ahead > budget);
    }
}

#[test]
fn what_is_owed_keeps_it_going_as_long_as_the_remote_answers() {
    let (mut state, start) = busy(Remote::Stranger);
    let owes = |state: &mut State| (state.traffic, state.owing, state.answered) = (None, true, Some(start));
    state.change(start, owes);
    assert!(!state.fast_for(start + MS(1500)).is_zero());
    assert!(state.fast_for(start + ANSWERED).is_zero());
    state.change(start, |state| state.owing = false);
    assert!(state.fast_for(start + MS(1500)).is_zero());
}

fn clock(change: impl FnOnce(&mut State)) -> (Clock, Instant) {
    let clock = Clock::new(Arc::new(webrtc::runtime::TokioRuntime), false);
    let start = clock.lock().reckoned;
    clock.change(start, change);
    (clock, start)
}

#[test]
fn a_sleep_ends_when_the_clock_has_gone_on_by_so_much() {
    let (clock, start) = clock(|state| {
        (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
        state.traffic = Some(state.reckoned);
    });
    for duration in [MS(1), MS(200), S(1), S(7), S(30)] {
        let slept = clock.lock().true_time_of(duration, start);
        let gone = clock.read(start + slept, false) - start;
        assert!(gone >= duration && gone < duration + MS(1), "{duration:?}: {slept:?}, {gone:?}");
    }
}

#[test]
fn a_look_of_ices_is_put_off_while_the_clock_is_ahead_and_nothing_else_is() {
    let sleeps = |round_trip, traffic, after| {
        let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
        clock.change(start, |state| {
            (state.round_trip, state.traffic) = (Some(round_trip), Some(start - traffic));
        });
        // It looks, and goes to sleep.
        clock.read(start, true);
        clock.turn(after, start).sleep
    };
    let look = MS(200);
    let near = |time: Duration, expected| assert!(time.abs_diff(expected) < MS(1), "{time:?}");
    near(sleeps(MS(0), S(0), look), MS(20) + MS(20));
    near(sleeps(MS(0), S(0), look - MS(10)), MS(19));
    near(sleeps(MS(400), S(0), look), MS(104) + MS(4));
    near(sleeps(MS(0), S(3), look), look);
}

#[test]
fn after_a_silence_the_clock_leaps_as_far_as_a_timer_may_have_left() {
    let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
    let waits_since = |since: Option<Instant>| clock.lock().waits = since.map(|since| (since, since));
    // By how much.
    let leap_when_heard = |after| {
        let before = clock.lock().ahead;
        let _ = clock.heard_data(200);
        clock.turn(S(1), start + after);
        clock.lock().ahead - before
    };
    assert_eq!(leap_when_heard(S(5)), S(0), "nothing waits");
    waits_since(Some(start + S(5)));
    assert_eq!(leap_when_heard(S(6)), S(0), "no silence");
    assert_eq!(leap_when_heard(S(10)), S(5) + S(5));
    assert_eq!(leap_when_heard(S(20)), S(25) + S(5), "the second time");
    assert_eq!(leap_when_heard(S(30)), S(0), "not a third, without headway");
    clock.held(ACKNOWLEDGED);
    waits_since(Some(start + S(40)));
    assert_eq!(leap_when_heard(S(100)), RTO_MAX);
    clock.held(ACKNOWLEDGED);
    clock.search(true);
    assert_eq!(leap_when_heard(S(110)), S(0));
    clock.held(Held { lasting_bytes: 0, ..ACKNOWLEDGED });
    clock.search(false);
    assert_eq!(leap_when_heard(S(111)), S(0), "what waited was acknowledged while ICE looked for a way");
}

#[test]
fn who_does_not_hear_us_for_a_while_is_told_at_once_when_it_does() {
    let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
    let mut next = 0;
    let mut is_answered = |after| {
        next += 1;
        clock.asked([next; 12], start + after - MS(40));
        clock.answered(&[next; 12], start + after);
        clock.turn(S(1), start + after).resumes
    };
    assert!(!is_answered(S(1)));
    clock.lock().waits = Some((start + S(1), start + S(1)));
    (2..9).for_each(|second| clock.heard(start + S(second)));
    assert!(is_answered(S(9)));
    assert_eq!(clock.lock().ahead, S(8) + S(5));
    assert!(!is_answered(S(10)));
}

#[test]
fn after_a_cut_of_a_moment_sctp_tries_when_a_request_is_answered() {
    for (round_trip, waited, leaps) in [
        (MS(40), MS(500), true),
        (MS(40), MS(450), false),
        (MS(300), MS(1100), false),
        (MS(300), MS(1300), true),
        (S(1), S(9), false),
    ] {
        let (clock, start) = clock(|state| {
            (state.remote, state.round_trip) = (Some(Remote::Member), Some(round_trip));
            state.answer(state.heard);
        });
        let now = start + S(2);
        let since = now.checked_sub(waited).map(|since| (since, since));
        (clock.lock().waits, clock.lock().stuck) = (since, since);
        clock.heard(start + S(1));
        clock.heard(now - MS(10));
        assert!(!clock.turn(S(1), now).resumes, "the remote does not tell whether it hears us");
        clock.asked([7; 12], now - round_trip);
        assert!(clock.answered(&[7; 12], now));
        let before = clock.lock().ahead;
        assert_eq!(clock.turn(S(1), now).resumes, leaps, "{waited:?}");
        assert_eq!(clock.lock().ahead >= before + S(5), leaps, "{waited:?}");
        // Once, also if all of it may be lost and the remote says something.
        let _ = clock.heard_data(200);
        clock.turn(S(1), now);
        clock.held(Held { fleeting_bytes: 500, ..Held::default() });
        let ahead = clock.lock().ahead;
        clock.asked([8; 12], now - round_trip);
        assert!(clock.answered(&[8; 12], now));
        clock.turn(S(1), now);
        assert!(!leaps || clock.lock().ahead < ahead + S(5));
    }
    // It is done with something of what may be lost.
    let (clock, start) = clock(|state| {
        (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
        state.stuck = state.heard.checked_sub(S(4)).map(|since| (since, since));
    });
    assert!(clock.lock().is_cut_off(start));
    clock.held(Held { fleeting_bytes: 500, moves: true, ..Held::default() });
    assert!(!clock.lock().is_cut_off(start));
}

#[test]
fn after_a_silence_more_may_be_gained_until_there_was_headway_for_a_while() {
    let (mut state, start) = busy(Remote::Member);
    state.change(start, |state| {
        (state.waits, state.owing, state.gained) = (Some((start - S(2), start)), true, BUDGET_ANSWERED);
        state.answered = Some(start);
    });
    assert!(state.fast_for(start).is_zero());
    state.change(start, |state| state.resume(start));
    assert!(!state.fast_for(start).is_zero() && !state.becomes_stuck(start));
    let last_try = start + MS(10);
    assert!(state.becomes_stuck(last_try), "what is sent now is one of the last tries");
    assert!(!state.becomes_stuck(last_try), "once");
    assert!(state.becomes_stuck(start + MS(1200)), "and for the next");
    state.change(start, |state| state.calm = RESUMED);
    assert!(state.fast_for(start).is_zero() && !state.becomes_stuck(start + S(1)));
}

/// When SCTP is said to have given up, if the remote answers each second, and nothing is acknowledged any more.
fn given_up_after(remote: Remote, silence: bool, change: impl Fn(&mut State, Duration)) -> Duration {
    let (mut state, start) = busy(remote);
    state.answer(start);
    let mut time = Duration::ZERO;
    loop {
        let now = start + time;
        state.change(now, |state| {
            (state.owing, state.traffic) = (true, Some(now));
            state.waits.get_or_insert((now, now + state.ahead));
            state.stuck.get_or_insert((now, now + state.ahead));
            if time.subsec_millis() == 0 {
                state.answer(now);
            }
            if silence && time == S(2) {
                state.resume(now);
            }
            change(state, time);
        });
        if state.has_given_up(now) {
            return time;
        }
        time += MS(250);
    }
}

#[test]
fn sctp_has_given_up_when_its_tries_must_be_over_and_the_remote_has_answered_all_the_time() {
    let after = |remote, silence| given_up_after(remote, silence, |_, _| {});
    assert!((S(10)..S(16)).contains(&after(Remote::Member, true)), "{:?}", after(Remote::Member, true));
    assert_eq!(after(Remote::Member, false), GIVEN_UP_SLOWLY, "the tries are not spent");
    assert_eq!(after(Remote::Stranger, true), GIVEN_UP_SLOWLY);
    let leaps = given_up_after(Remote::Stranger, true, |state, time| {
        if time == S(20) {
            state.ahead += RTO_MAX * 2;
        }
    });
    assert_eq!(leaps, GIVEN_UP_SLOWLY, "a stranger is given its time");
    let searches = given_up_after(Remote::Member, true, |state, time| state.searching = time < S(60));
    assert!(searches >= S(60), "{searches:?}");
    let steady = given_up_after(Remote::Member, true, |state, _| state.steady = true);
    assert_eq!(steady, GIVEN_UP);
    let headway = given_up_after(Remote::Member, false, |state, time| {
        if time == S(40) {
            state.stuck = None;
        }
    });
    assert!(headway > S(84), "{headway:?}");
    let silent = given_up_after(Remote::Member, false, |state, time| {
        if time < S(100) {
            (state.answers, state.answered) = (None, None);
        }
    });
    assert!(silent >= S(100) + GIVEN_UP_REACHED, "{silent:?}");
}

#[test]
fn who_answers_and_acknowledges_nothing_is_told_of() {
    let (clock, start) = clock(|state| state.remote = Some(Remote::Member));
    clock.change(start, |state| state.answer(start));
    assert!(!clock.held(STUCK).given_up);
    clock.change(start, |state| {
        let long_ago = start - S(200);
        state.stuck = Some((long_ago, long_ago));
        (state.answers, state.answered) = (Some(long_ago), Some(start));
    });
    assert!(clock.held(STUCK).given_up);
    assert!(!clock.held(Held { moves: true, ..STUCK }).given_up, "it is done with something");
}

#[test]
fn the_clock_never_goes_back_even_if_somebody_comes_late_with_its_time() {
    let (clock, start) = clock(|state| {
        (state.remote, state.round_trip) = (Some(Remote::Member), Some(MS(40)));
        state.traffic = Some(state.reckoned);
    });
    let read = clock.read(start + MS(100), false);
    clock.change(start + MS(90), |state| state.searching = true);
    assert!(clock.read(start + MS(95), false) >= read);
}

#[test]
fn what_may_be_lost_makes_headway_when_the_remote_says_something_and_answers() {
    let (clock, start) = clock(|state| state.gained = S(5));
    let gained = |fleeting_bytes| {
        clock.held(Held { fleeting_bytes, ..Held::default() });
        clock.lock().gained
    };
    assert_eq!(gained(100), S(5));
    let _ = clock.heard_data(200);
    clock.turn(S(1), start);
    assert_eq!(gained(100), S(5), "it answers nothing");
    clock.change(start, |state| state.answered = Some(start + S(1)));
    let _ = clock.heard_data(200);
    clock.turn(S(1), start);
    assert_eq!(gained(100), Duration::ZERO);
    clock.change(start, |state| state.gained = S(5));
    assert_eq!(gained(100), S(5), "nothing was said since");
    assert_eq!(gained(0), Duration::ZERO);
}

#[test]
fn the_round_trip_is_that_of_our_own_requests() {
    let (clock, start) = clock(|_| {});
    clock.asked([1; 12], start);
    assert!(!clock.answered(&[2; 12], start + MS(10)), "nobody asked");
    assert!(clock.answered(&[1; 12], start + MS(80)));
    assert!(!clock.answered(&[1; 12], start + MS(90)), "once");
    assert_eq!(clock.round_trip(), Some(MS(80)));
    clock.asked([3; 12], start);
    clock.answered(&[3; 12], start + MS(40));
    assert_eq!(clock.round_trip(), Some(MS(75)), "smoothed");
    clock.asked([4; 12], start);
    clock.answered(&[4; 12], start + MS(300));
    assert_eq!(clock.round_trip(), Some(MS(300)), "a longer one is believed");
    (0..1000_u32).for_each(|n| clock.asked([n.to_be_bytes(); 3].concat().try_into().unwrap(), start));
    assert_eq!(clock.lock().asked.len(), MAX_ASKED);
}

#[test]
fn an_idle_link_rests_until_it_is_time_to_ask() {
    let (clock, start) = clock(|state| state.remote = Some(Remote::Stranger));
    clock.heard(start + S(10));
    clock.asked([1; 12], start + S(10));
    let sleep = |millis| clock.turn(MS(200), start + S(10) + MS(millis)).sleep;
    assert_eq!(sleep(0), MS(950));
    assert_eq!(sleep(300), MS(650));
    assert_eq!(sleep(950), MS(200) + Duration::from_nanos(1), "now");
    for change in [
        |state: &mut State| state.searching = true,
        |state: &mut State| (state.searching, state.owing) = (false, true),
        |state: &mut State| (state.owing, state.traffic) = (false, Some(state.heard)),
    ] {
        clock.change(start + S(10), change);
        assert_eq!(sleep(0), MS(200) + Duration::from_nanos(1));
    }
}

#[test]
fn idle_links_of_a_process_ask_at_the_same_beat() {
    let (clock, start) =
        clock(|state| (state.remote, state.beat) = (Some(Remote::Member), Some(state.reckoned)));
    let asks_at = |asked: Duration| {
        clock.heard(start + asked);
        clock.asked([1; 12], start + asked);
        asked + clock.turn(MS(200), start + asked).sleep
    };
    assert_eq!(asks_at(MS(10_003)), S(11), "a little late");
    assert_eq!(asks_at(MS(11_000)), S(12));
    assert_eq!(asks_at(MS(12_060)), MS(13_250), "too late");
}

#[test]
fn a_remote_is_silent_after_3_s() {
    let (clock, start) = clock(|_| {});
    clock.heard(start + S(2));
    assert_eq!(clock.turn(S(9), start + S(4)), Turn { sleep: S(1), silent: false, resumes: false });
    assert!(clock.turn(S(9), start + S(5)).silent);
    let _ = clock.heard_data(200);
    assert!(!clock.turn(S(9), start + S(6)).silent);
}

/// Sixty packets a second both ways for so long, every second one acknowledged, near the remote. Tells how far the clock went
/// when the last had left, and when that was.
fn game(remote: Remote) -> (Clock, Instant, Duration) {
    let (clock, start) = clock(|state| (state.remote, state.round_trip) = (Some(remote), Some(MS(0))));
    let mut now = start;
    for packet in 0..60 {
        now += Duration::from_micros(16_667);
        clock.sent_data(200);
        if packet % 2 == 1 {
            let _ = clock.heard_data(65);
        }
        clock.turn(S(1), now);
        now += MS(5);
        let _ = clock.heard_data(200);
        if packet % 2 == 1 {
            clock.sent_data(65);
        }
        clock.turn(S(1), now);
        now -= MS(5);
    }
    let gone = clock.read(now, false) - start;
    (clock, now, gone)
}

#[test]
fn while_all_is_acknowledged_the_clock_goes_like_time_and_then_makes_up_for_it() {
    let (clock, last, gone) = game(Remote::Member);
    let begins = MS(400);
    assert!(gone > S(1) && gone < S(1) + begins, "until the first acknowledgement it is ahead: {gone:?}");
    // That is not acknowledged.
    let before = clock.read(last, false);
    clock.sent_data(200);
    clock.sent_data(65);
    let turn = clock.turn(S(1), last + MS(5));
    let second = MS(100);
    assert!(turn.sleep.abs_diff(second - MS(5)) < MS(5), "as late as ever: {turn:?}");
    let gone = |time| clock.read(last + time, false) - before;
    assert!(gone(MS(74)) < MS(80), "it may still come: {:?}", gone(MS(74)));
    assert!(gone(second).abs_diff(S(1)) < MS(50), "{:?}", gone(second));
}

#[test]
fn what_tells_of_a_gap_counts_from_what_the_clock_would_have_gained() {
    let (clock, last, _) = game(Remote::Member);
    let before = clock.read(last, false);
    clock.sent_data(200);
    clock.turn(S(1), last);
    let _ = clock.heard_data(69);
    let gone = clock.read(last + MS(30), true) - before;
    assert!(gone.abs_diff(MS(300)) < MS(5), "{gone:?}");
    clock.turn(S(1), last + MS(30));
    // For a while it does not rest any more.
    let _ = clock.heard_data(65);
    clock.turn(S(1), last + MS(40));
    let gone = clock.read(last + MS(48), true) - before;
    assert!(gone.abs_diff(MS(480)) < MS(5), "{gone:?}");
}

#[test]
fn what_passes_in_a_rest_makes_nothing_later() {
    for millis in [0, 20] {
        for later in [0, 1, 4] {
            let (clock, last, _) = game(Remote::Member);
            clock.change(last, |state| state.round_trip = Some(MS(millis)));
            // All is acknowledged, and then a packet is not.
            let now = last + MS(30);
            assert!(!clock.heard_data(65));
            clock.sent_data(65);
            clock.turn(S(1), now);
            let lost = now + MS(30);
            clock.sent_data(200);
            clock.turn(S(1), lost);
            let before = clock.read(lost, false);
            for packet in 1..=later {
                clock.sent_data(200);
                clock.turn(S(1), lost + MS(packet * 10));
                clock.lock().change(lost + MS(packet * 10 + 3), |_| {});
            }
            let second = if millis == 0 { MS(100) } else { MS(85) };
            let gone = clock.read(lost + second, false) - before;
            assert!(gone.abs_diff(S(1)) < MS(5), "{millis}, {later}: {gone:?}");
        }
    }
}

#[test]
fn what_was_acknowledged_by_a_clock_that_rested_does_not_leap() {
    let (clock, last, _) = game(Remote::Member);
    clock.sent_data(200);
    clock.sent_data(65);
    clock.turn(S(1), last + MS(5));
    // The driver hands it to SCTP, which has not waited since then; and the turn takes its time.
    let told = clock.read(last + MS(74), true);
    assert!(!clock.heard_data(65));
    clock.turn(S(1), last + MS(76));
    let gone = clock.read(last + MS(77), true) - told;
    assert!(gone < MS(5), "{gone:?}");
}

#[test]
fn far_away_the_clock_does_not_rest() {
    let (clock, last, _) = game(Remote::Member);
    clock.change(last, |state| state.round_trip = Some(MS(40)));
    let gone = |now: Instant| {
        let _ = clock.heard_data(65);
        clock.turn(S(1), now);
        let before = clock.read(now, false);
        clock.read(now + MS(30), false) - before
    };
    let _ = gone(last + MS(5));
    let gone = gone(last + MS(40));
    assert!(gone > MS(300), "{gone:?}");
}

#[test]
fn a_packet_that_none_follows_is_acknowledged_in_time() {
    let (clock, last, _) = game(Remote::Member);
    let now = last + MS(5);
    clock.sent_data(65);
    clock.turn(S(1), now);
    let before = clock.read(now, false);
    let _ = clock.heard_data(200);
    clock.turn(MS(200), now);
    let gone = clock.read(now + MS(40), true) - before;
    assert!(gone >= MS(200), "SCTP waits for a second packet for so long: {gone:?}");
}

#[test]
fn with_strangers_and_with_a_backlog_the_clock_does_not_rest() {
    let (_, _, gone) = game(Remote::Stranger);
    assert!(gone > S(2), "{gone:?}");
    let (clock, last, _) = game(Remote::Member);
    clock.sent_data(200);
    clock.turn(S(1), last + MS(5));
    clock.held(Held { lasting_bytes: BACKLOG_BYTES, ..ACKNOWLEDGED });
    let _ = clock.heard_data(65);
    clock.turn(S(1), last + MS(10));
    let before = clock.read(last + MS(10), false);
    let gone = clock.read(last + MS(20), false) - before;
    assert!(gone > MS(15), "{gone:?}");
}

#[test]
fn who_is_near_is_so_when_it_is_busy_and_who_is_far_now_is_so_soon() {
    let (clock, mut now) = clock(|state| state.remote = Some(Remote::Member));
    let mut answered = |number: u8, after| {
        let transaction = [number; 12];
        now += S(1);
        clock.asked(transaction, now);
        assert!(clock.answered(&transaction, now + after));
        clock.lock().slack()
    };
    assert_eq!(answered(0, MS(1)), MS(98));
    assert!(answered(1, MS(60)) > MS(94));
    assert!((2..20).map(|number| answered(number, MS(60))).all(|slack| slack > SLACK));
    assert_eq!((20..60).map(|number| answered(number, MS(60))).count(), 40);
    assert_eq!(answered(60, MS(60)), SLACK);
    assert_eq!(answered(61, MS(2)), MS(96));
}
