//! Why a link did not come up, or was lost: what its report says, and the line that a person reads.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what a person would read"
)]

mod support;

use std::time::Duration;

use futures::StreamExt as _;
use support::turn::Coturn;
use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    CandidateKind, ConnectionReport, DisconnectReason, Mesh, MeshBuilder, MeshEvent, PairState,
    PeerConnectionConfig, PeerFailure, Signal, Stage,
};

/// Meshes 1 and 2, each on a host of this name.
async fn two(host: impl Fn(&str) -> PeerConnectionConfig) -> Vec<Mesh> {
    two_of(Mesh::builder(), host).await
}

async fn two_of(builder: MeshBuilder, host: impl Fn(&str) -> PeerConnectionConfig) -> Vec<Mesh> {
    let hub = Hub::new();
    let mut meshes = Vec::new();
    for n in 1..=2 {
        let builder = builder.clone().connection(host(&n.to_string()));
        meshes.push(builder.join(hub.join_as(id(n))).await.unwrap());
    }
    meshes
}

/// The failure of the next event, in virtual time, and a glance at its line.
async fn failure(mesh: &mut Mesh) -> PeerFailure {
    match tokio::time::timeout(Duration::from_secs(60), mesh.next()).await.unwrap() {
        Some(MeshEvent::PeerFailed(_, failure)) => {
            println!("{}: {failure}", mesh.id());
            failure
        }
        other => panic!("a failure was expected, not {other:?}"),
    }
}

fn names_no_address(line: &str) {
    assert!(!line.contains("127.0.0.1") && !line.contains("10."), "{line}");
}

fn about(duration: Duration, seconds: f64) {
    let off = (duration.as_secs_f64() - seconds).abs();
    assert!(off < 1.0, "{duration:?} is not about {seconds} s");
}

#[test]
fn a_link_on_which_nothing_passes_says_what_was_tried_and_where_the_time_went() {
    simulated(1, |network| async move {
        network.drop_if(|_| true);
        let mut meshes = two(|host| network.peer(host)).await;
        for mesh in &mut meshes {
            let failure = failure(mesh).await;
            let line = failure.to_string();
            assert!(line.starts_with("not connected after 30.0 s: no pair of addresses reached"), "{line}");
            assert!(line.contains("host here; host there; 1 pair tried, no answer; "), "{line}");
            assert!(line.ends_with("is UDP blocked, or is a TURN server needed?"), "{line}");
            names_no_address(&line);
            let report = failure.report().unwrap();
            assert_eq!((report.stage, report.connected, report.selected()), (Stage::Ice, None, None));
            assert!((3..=5).contains(&report.attempts), "{}", report.attempts);
            about(report.times.total(), 30.0);
            assert!(report.times.ice > Duration::from_secs(20), "{:?}", report.times);
            assert_eq!((report.times.dtls, report.times.channels), (Duration::ZERO, Duration::ZERO));
            let [pair] = &report.pairs[..] else { panic!("{report:?}") };
            assert_eq!((pair.state, pair.nominated), (PairState::InProgress, false));
            assert!(pair.requests_sent > 10 && pair.responses_received + pair.requests_received == 0);
            assert_eq!((pair.local.kind, pair.remote.kind), (CandidateKind::Host, CandidateKind::Host));
            assert_eq!(pair.remote.address, report.remote[0].address);
            // Whoever asks after the event is told the same.
            let other = if mesh.id() == id(1) { id(2) } else { id(1) };
            assert_eq!(mesh.handle().report(other).as_ref(), Some(report));
        }
        close_all(meshes).await;
    });
}

#[test]
fn an_attempt_that_has_just_begun_does_not_hide_what_the_one_before_has_tried() {
    simulated(5, |network| async move {
        network.drop_if(|_| true);
        let limit = Duration::from_secs(8);
        let builder = Mesh::builder().attempt_limit(limit).handshake_limit(limit + Duration::from_millis(2));
        let mut meshes = two_of(builder, |host| network.peer(host)).await;
        let failure = failure(&mut meshes[0]).await;
        let report = failure.report().unwrap();
        assert_eq!(report.attempts, 2);
        assert!(report.pairs.iter().any(|pair| pair.requests_sent > 50), "{report:?}");
        close_all(meshes).await;
    });
}

#[test]
fn a_link_that_passes_only_one_way_says_so() {
    simulated(2, |network| async move {
        network.drop_if(|datagram| datagram.from_host == "1");
        let mut meshes = two(|host| network.peer(host)).await;
        let line = failure(&mut meshes[0]).await.to_string();
        assert!(line.contains("no answer, but the remote's own checks arrive"), "{line}");
        let line = failure(&mut meshes[1]).await.to_string();
        assert!(line.contains("1 pair tried, no answer;"), "{line}");
        close_all(meshes).await;
    });
}

#[test]
fn a_link_that_is_stuck_in_dtls_has_a_pair_and_spent_its_time_there() {
    simulated(3, |network| async move {
        network.drop_if(|datagram| matches!(datagram.bytes.first(), Some(20..=63)));
        let mut meshes = two(|host| network.peer(host)).await;
        for mesh in &mut meshes {
            let failure = failure(mesh).await;
            let report = failure.report().unwrap();
            assert_eq!(report.stage, Stage::Dtls);
            assert!(report.times.dtls > Duration::from_secs(20), "{:?}", report.times);
            about(report.times.total(), 30.0);
            assert!(report.selected().is_some_and(|pair| pair.state == PairState::Succeeded), "{report:?}");
        }
        close_all(meshes).await;
    });
}

#[test]
fn signalling_that_carries_no_candidates_is_named_as_what_may_be_wrong() {
    promise(async {
        let limit = Duration::from_millis(500);
        let mut mesh = builder().handshake_limit(limit).build(id(1));
        let other = builder().build(id(2));
        let (here, there) = (connection().await, connection().await);
        add(&mesh, &here, 2).await.unwrap();
        add(&other, &there, 1).await.unwrap();
        for (from, to) in [(&here, &there), (&there, &here)] {
            let (mut signals, to) = (from.signals(), to.clone());
            tokio::spawn(async move {
                while let Some(signal) = signals.next().await {
                    if let Signal::Description(description) = signal {
                        let _ = to.handle_signal(Signal::Description(without_candidates(description))).await;
                    }
                }
            });
        }
        here.create_offer().await.unwrap();
        let MeshEvent::PeerFailed(_, failure) = next(&mut mesh).await else { panic!("it cannot connect") };
        let line = failure.to_string();
        assert!(line.contains("(host here; no address there; no pair tried)"), "{line}");
        assert!(line.ends_with("; does signalling carry the remote's candidates?"), "{line}");
        close_all(vec![mesh, other]).await;
    });
}

#[test]
fn a_live_link_is_reported_as_it_is_now() {
    promise(async {
        let (one, two) = pair().await;
        for (mesh, other) in [(&one, 2), (&two, 1)] {
            let report = mesh.handle().report(id(other)).unwrap();
            assert_eq!((report.stage, report.attempts), (Stage::Channels, 1));
            assert!(
                report.connected.is_some() && report.times.total() < Duration::from_secs(5),
                "{report:?}"
            );
            for stage in [Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels] {
                assert!(report.times.of(stage) > Duration::ZERO, "{stage}: {:?}", report.times);
            }
            let pair = report.selected().unwrap();
            assert_eq!((pair.state, pair.is_relayed()), (PairState::Succeeded, false));
            names_no_address(&report.to_string());
            assert!(format!("{report:?}").contains("127.0.0.1"), "the whole of it");
        }
        assert_eq!(one.handle().report(id(9)), None);
        let handle = one.handle();
        close_all(vec![one, two]).await;
        assert!(handle.report(id(2)).is_some_and(|report| report.connected.is_some()), "also after the end");
    });
}

/// Whoever names the pair, and whatever overtakes what.
#[test]
fn a_link_that_is_up_knows_its_pair_on_both_sides_over_100_networks() {
    for seed in 0..100 {
        simulated(seed, |network| async move {
            network.links().loss(0.1);
            let mut meshes = two(|host| network.peer(host)).await;
            for mesh in &mut meshes {
                match mesh.next().await {
                    Some(MeshEvent::PeerConnected(peer)) => {
                        let report = mesh.handle().report(peer).unwrap();
                        assert!(report.selected().is_some(), "seed {seed}, {}: {report:#?}", mesh.id());
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            network.links().loss(0.0);
            close_all(meshes).await;
        });
    }
}

#[test]
fn a_link_that_was_lost_is_reported_after_its_end() {
    simulated(4, |network| async move {
        let mut meshes = two(|host| network.peer(host)).await;
        for mesh in &mut meshes {
            assert!(matches!(mesh.next().await, Some(MeshEvent::PeerConnected(_))));
        }
        let before = meshes[0].handle().report(id(2)).unwrap();
        assert_eq!(meshes[0].handle().report(id(2)), Some(before.clone()), "no time has passed");
        tokio::time::sleep(Duration::from_secs(60)).await;
        network.links().cut();
        let end = loop {
            match meshes[0].next().await.unwrap() {
                MeshEvent::PeerDisconnected(_, reason) => break reason,
                MeshEvent::PeerUnstable(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(end, DisconnectReason::ConnectionLost);
        let report = meshes[0].handle().report(id(2)).unwrap();
        assert!(report.connected.unwrap() > Duration::from_secs(65), "{:?}", report.connected);
        assert_eq!(report.times, before.times, "they end with the connecting");
        let pair = |report: &ConnectionReport| report.selected().unwrap().clone();
        let (before, after) = (pair(&before), pair(&report));
        assert!(after.requests_sent > after.responses_received, "{after:?}");
        assert!(after.responses_received > before.responses_received + 10, "keepalives: {after:?}");
        close_all(meshes).await;
    });
}

#[test]
fn a_link_through_a_relay_is_reported_as_such() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let relayed = || Mesh::builder().connection(config().ice_server(coturn.turn()).relay_only(true));
        let meshes = full_mesh_of(2, |_| relayed()).await;
        for (mesh, other) in [(&meshes[0], 2), (&meshes[1], 1)] {
            let report = mesh.handle().report(id(other)).unwrap();
            let pair = report.selected().unwrap();
            assert!(pair.is_relayed() && pair.local.kind == CandidateKind::Relay, "{report:?}");
            assert!(report.local.iter().all(|candidate| candidate.kind == CandidateKind::Relay));
            assert_eq!(pair.state, PairState::Succeeded);
        }
        close_all(meshes).await;
    });
}
