//! What is foreign, broken, too much or out of turn is refused with a reason of its own, and harms nobody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a fault in a test is a failed test")]

mod support;

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use support::*;
use tokio::net::UdpSocket;
use webrtc_mesh::signaling::loopback::{Hub, LoopbackSignaling};
use webrtc_mesh::{
    AddPeerError, ConnectionError, ConnectionState, ConnectionStatus, DisconnectReason, IceCandidate,
    IceServer, JoinError, MeshEvent, OutgoingPacket, PeerConnection, PeerConnectionConfig, PeerFailure,
    SdpKind, SendError, SessionDescription, Signal, Signaling as _, SignalingError, SignalingEvent, Stage,
    Target, TransferMode, TrySendError, UnknownPeer, UnreliableLifetime,
};

#[test]
fn a_description_that_cannot_be_used_is_refused_and_a_good_one_is_taken_after_it() {
    promise(async {
        for kind in [SdpKind::Offer, SdpKind::Answer] {
            let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
            let (here, there) = (connection().await, connection().await);
            add(&one, &here, 2).await.unwrap();
            add(&two, &there, 1).await.unwrap();
            let victim = if kind == SdpKind::Offer { &there } else { &here };
            if kind == SdpKind::Answer {
                here.create_offer().await.unwrap();
            }
            for sdp in unusable() {
                match give(victim, description(kind, &sdp)).await {
                    Err(ConnectionError::InvalidDescription(_)) => {}
                    other => panic!("{kind:?} {sdp:?}: {other:?}"),
                }
            }
            let huge = format!("v=0\r\na={}\r\n", "x".repeat(100 * 1024));
            match give(victim, description(kind, &huge)).await {
                Err(ConnectionError::TooMuch { limit, .. }) => assert_eq!(limit, 64 * 1024),
                other => panic!("{kind:?}: {other:?}"),
            }
            carry(&here, &there);
            if kind == SdpKind::Offer {
                assert_eq!(there.state(), ConnectionState::New, "it stays as it was");
                here.create_offer().await.unwrap();
            }
            assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)), "{kind:?}");
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)), "{kind:?}");
            close_all(vec![one, two]).await;
        }
    });
}

#[test]
fn a_description_out_of_turn_is_refused_and_the_link_comes_up_all_the_same() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let three = builder().build(id(3));
        let (here, there, third) = (connection().await, connection().await, connection().await);
        out_of_turn(here.create_offer().await);
        add(&three, &third, 9).await.unwrap();
        third.create_offer().await.unwrap();
        let foreign_offer = in_time(third.signals().next()).await.unwrap();
        out_of_turn(give(&there, foreign_offer.clone()).await);
        assert_eq!((here.state(), there.state()), (ConnectionState::New, ConnectionState::New));

        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        out_of_turn(give(&there, description(SdpKind::Answer, "v=0\r\n")).await);
        here.create_offer().await.unwrap();
        out_of_turn(here.create_offer().await);
        out_of_turn(give(&here, foreign_offer.clone()).await);

        let mut of_one = here.signals();
        let offer = in_time(of_one.next()).await.unwrap();
        out_of_turn(give(&here, offer.clone()).await);
        give(&there, offer.clone()).await.unwrap();
        give(&there, offer).await.unwrap();
        out_of_turn(give(&there, foreign_offer.clone()).await);
        out_of_turn(there.create_offer().await);
        let answer = in_time(there.signals().next()).await.unwrap();
        out_of_turn(give(&there, answer.clone()).await);
        // An answer to somebody else's offer is none of its business.
        give(&third, answer.clone()).await.unwrap();
        assert_eq!(third.state(), ConnectionState::Connecting);
        give(&here, answer).await.unwrap();

        drop(of_one);
        carry(&here, &there);
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        // Nor is it afterwards.
        out_of_turn(give(&there, foreign_offer.clone()).await);
        out_of_turn(give(&here, foreign_offer).await);
        talk(&one, &mut two, "unharmed").await;
        talk(&two, &mut one, "unharmed").await;
        close_all(vec![one, two, three]).await;
    });
}

#[test]
fn candidates_of_nowhere_or_of_nothing_are_refused_or_harmless() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        // What comes before the description is looked at when that is there, and costs the others nothing.
        for text in garbage().into_iter().chain(nowhere()) {
            give(&there, candidate(&text)).await.unwrap();
        }
        carry(&here, &there);
        here.create_offer().await.unwrap();
        until(async || there.state() != ConnectionState::New).await;
        for text in garbage() {
            match give(&there, candidate(&text)).await {
                Err(ConnectionError::InvalidCandidate(_)) => {}
                other => panic!("{text:?}: {other:?}"),
            }
        }
        for text in nowhere() {
            give(&there, candidate(&text)).await.unwrap();
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        for text in garbage() {
            give(&here, candidate(&text)).await.unwrap_err();
        }
        for text in nowhere() {
            give(&here, candidate(&text)).await.unwrap();
        }
        talk(&one, &mut two, "unharmed").await;
        talk(&two, &mut one, "unharmed").await;
        close_all(vec![one, two]).await;
    });
}

#[test]
fn too_many_or_too_long_candidates_are_refused_with_the_limit() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        let long = format!("candidate:{}", "9".repeat(2048));
        match give(&there, candidate(&long)).await {
            Err(ConnectionError::TooMuch { limit: 1024, .. }) => {}
            other => panic!("{other:?}"),
        }
        let mut refused = 0;
        for n in 0..300_u16 {
            let text = format!("candidate:{n} 1 udp 1 192.0.2.1 {} typ host", 1000 + n);
            match give(&there, candidate(&text)).await {
                Ok(()) => assert!(n < 256),
                Err(ConnectionError::TooMuch { limit: 256, .. }) => refused += 1,
                other => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!(refused, 300 - 256);
        // There is room for those that matter, as they come after the description.
        carry(&here, &there);
        here.create_offer().await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        let refused = async |range: std::ops::Range<u32>| {
            for n in range {
                let text = format!("candidate:{n} 1 udp 1 192.0.2.1 {} typ host", 2000 + n);
                if let Err(error) = give(&there, candidate(&text)).await {
                    return Some(error);
                }
            }
            None
        };
        assert_eq!(
            refused(0..2000).await,
            Some(ConnectionError::TooMuch { what: "candidates", limit: 1024 })
        );
        talk(&one, &mut two, "unharmed").await;
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_closed_connection_says_so_to_everything() {
    promise(async {
        let one = builder().build(id(1));
        let (unused, added) = (connection().await, connection().await);
        add(&one, &added, 2).await.unwrap();
        added.create_offer().await.unwrap();
        let offer = in_time(added.signals().next()).await.unwrap();
        for closed in [&unused, &added] {
            in_time(closed.close()).await;
            assert_eq!(closed.state(), ConnectionState::Closed);
            assert_eq!(in_time(closed.signals().next()).await, None);
            assert_eq!(closed.create_offer().await, Err(ConnectionError::Closed));
            for signal in [
                offer.clone(),
                description(SdpKind::Answer, "v=0\r\n"),
                description(SdpKind::Offer, ""),
                candidate("candidate:1 1 udp 1 127.0.0.1 9 typ host"),
                candidate("garbage"),
            ] {
                assert_eq!(give(closed, signal).await, Err(ConnectionError::Closed));
            }
            in_time(closed.close()).await;
        }
        close_all(vec![one]).await;
    });
}

#[test]
fn ids_that_nobody_has_are_answered_by_every_method() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        let handle = one.handle();
        for unknown in [id(1), id(3), webrtc_mesh::PeerId::MAX] {
            assert_eq!(handle.peer(unknown).await, None);
            assert!(!handle.has_peer(unknown).await);
            assert!(!handle.peers().await.contains_key(&unknown));
            assert_eq!(handle.remove_peer(unknown).await, Err(UnknownPeer(unknown)));
            let packet = OutgoingPacket::reliable(unknown, "x");
            let error = SendError::UnknownPeer(unknown);
            assert_eq!(handle.send(packet.clone()).await, Err(error.clone()));
            assert_eq!(handle.try_send(packet.clone()), Err(TrySendError::Refused(error.clone())));
            assert_eq!(one.feed(packet).await, Err(error.clone()));
            handle.set_target(unknown.into());
            assert_eq!(handle.put_packet("x").await, Err(error));
            let excepted = Target::AllExcept(unknown);
            handle.send(OutgoingPacket::reliable(excepted, "everyone")).await.unwrap();
            assert_eq!(next(&mut two).await, said(1, "everyone"));
        }
        close_all(vec![one, two]).await;
    });
}

#[test]
fn every_method_of_a_closed_mesh_says_that_it_is_closed() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        let handle = one.handle();
        in_time(handle.close()).await;
        let spare = connection().await;
        for read in [false, true] {
            if read {
                assert_eq!(next(&mut one).await, left(2, DisconnectReason::LocalClose));
                ends(&mut one).await;
                ends(&mut one).await;
            }
            assert_eq!((handle.id(), handle.is_server()), (id(1), true));
            assert_eq!(handle.status(), ConnectionStatus::Disconnected);
            let adding = handle.add_peer(spare.clone(), id(2), UnreliableLifetime::Once);
            assert_eq!(in_time(adding).await, Err(AddPeerError::MeshClosed));
            assert_eq!(in_time(handle.remove_peer(id(2))).await, Err(UnknownPeer(id(2))));
            assert_eq!(handle.peer(id(2)).await, None);
            assert!(handle.peers().await.is_empty());
            assert!(!handle.has_peer(id(2)).await);
            for mode in TransferMode::ALL {
                for target in [Target::All, Target::Peer(id(2)), Target::Peer(id(9))] {
                    let packet = OutgoingPacket::new(target, mode, vec![0; 300_000]);
                    assert_eq!(handle.send(packet.clone()).await, Err(SendError::MeshClosed));
                    let refused = Err(TrySendError::Refused(SendError::MeshClosed));
                    assert_eq!(handle.try_send(packet.clone()), refused);
                    assert_eq!(one.send(packet).await, Err(SendError::MeshClosed));
                }
            }
            assert_eq!(handle.put_packet("x").await, Err(SendError::MeshClosed));
            handle.set_target(Target::Peer(id(2)));
            handle.set_transfer_mode(TransferMode::Unreliable);
            handle.set_refuse_new_connections(true);
            assert!(handle.refuse_new_connections());
            assert_eq!((handle.target(), handle.transfer_mode()), (id(2).into(), TransferMode::Unreliable));
            in_time(handle.close()).await;
        }
        assert_eq!(spare.state(), ConnectionState::New);
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        close_all(vec![two]).await;
    });
}

/// Of the one who offers to it, and of the one who waits for its offer.
#[test]
fn a_member_that_signals_garbage_fails_alone() {
    promise(async {
        let hub = Hub::new();
        let limit = Duration::from_millis(1500);
        let mut two = builder().handshake_limit(limit).join(hub.join_as(id(2))).await.unwrap();
        let mut three = builder().handshake_limit(limit).join(hub.join_as(id(3))).await.unwrap();
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(3)));
        assert_eq!(next(&mut three).await, MeshEvent::PeerConnected(id(2)));
        let mut offered_to = hub.join_as(id(9));
        let mut offering = hub.join_as(id(1));
        offered_to.join().await.unwrap();
        offering.join().await.unwrap();
        let chatting = async {
            for n in 0_u8..100 {
                two.handle().send(OutgoingPacket::reliable(id(3), vec![n])).await.unwrap();
                for (bad, kind) in [(&mut offered_to, SdpKind::Answer), (&mut offering, SdpKind::Offer)] {
                    let to = id(2 + u32::from(n) % 2);
                    for signal in bad_signals(kind, n) {
                        bad.send(to, signal).await.unwrap();
                    }
                }
                assert_eq!(next(&mut three).await, said(2, vec![n]));
            }
        };
        in_time(chatting).await;
        for mesh in [&mut two, &mut three] {
            let mut failed = Vec::new();
            for _ in 0..2 {
                match next(mesh).await {
                    MeshEvent::PeerFailed(
                        peer,
                        PeerFailure::TimedOut { stage: Stage::Signaling, after, .. },
                    ) => {
                        assert!(after >= limit);
                        failed.push(peer);
                    }
                    event => panic!("{event:?}"),
                }
            }
            failed.sort();
            assert_eq!(failed, [id(1), id(9)]);
        }
        talk(&two, &mut three, "unharmed").await;
        talk(&three, &mut two, "unharmed").await;
        close_all(vec![two, three]).await;
    });
}

#[test]
fn a_connected_peer_that_signals_garbage_stays_connected() {
    promise(async {
        let hub = Hub::new();
        let mut one = builder().join(hub.join_as(id(1))).await.unwrap();
        // The other's signalling is in our hands, from the offer on.
        let mut two = builder().build(id(2));
        let there = connection().await;
        add(&two, &there, 1).await.unwrap();
        let mut raw = hub.join_as(id(2));
        raw.join().await.unwrap();
        let mut of_two = there.signals();
        while one.handle().peers().await.values().all(|peer| !peer.connected) {
            tokio::select! {
                event = raw.next() => if let SignalingEvent::Signal { signal, .. } = event.unwrap() {
                    give(&there, signal).await.unwrap();
                },
                Some(signal) = of_two.next() => raw.send(id(1), signal).await.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        for n in 0..50 {
            for kind in [SdpKind::Offer, SdpKind::Answer] {
                for signal in bad_signals(kind, n) {
                    raw.send(id(1), signal).await.unwrap();
                }
            }
        }
        assert_eq!(raw.send(id(7), candidate("x")).await, Err(SignalingError::UnknownPeer(id(7))));
        for _ in 0..20 {
            talk(&one, &mut two, "unharmed").await;
            talk(&two, &mut one, "unharmed").await;
        }
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_member_whose_addresses_reach_nobody_fails_in_ice() {
    promise(async {
        let hub = Hub::new();
        let limit = Duration::from_millis(1500);
        let mut one = builder().handshake_limit(limit).join(hub.join_as(id(1))).await.unwrap();
        let mut other = builder().join(hub.join_as(id(3))).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(3)));
        assert_eq!(next(&mut other).await, MeshEvent::PeerConnected(id(1)));
        let two = builder().build(id(2));
        let there = connection().await;
        add(&two, &there, 1).await.unwrap();
        let mut raw = hub.join_as(id(2));
        raw.join().await.unwrap();
        // It answers, and neither gives its own address nor hears of ours.
        give(&there, offer_from(&mut raw, 1).await).await.unwrap();
        match in_time(there.signals().next()).await.unwrap() {
            Signal::Description(answer) => {
                raw.send(id(1), Signal::Description(without_candidates(answer))).await.unwrap();
            }
            other => panic!("{other:?}"),
        }
        for text in nowhere() {
            raw.send(id(1), candidate(&text)).await.unwrap();
        }
        match next(&mut one).await {
            MeshEvent::PeerFailed(peer, PeerFailure::TimedOut { stage, .. }) => {
                assert_eq!((peer, stage), (id(2), Stage::Ice));
            }
            event => panic!("{event:?}"),
        }
        talk(&one, &mut other, "unharmed").await;
        talk(&other, &mut one, "unharmed").await;
        close_all(vec![one, other, two]).await;
    });
}

#[test]
fn a_configuration_that_cannot_work_says_what_is_wrong() {
    promise(async {
        for (server, reason) in [
            (IceServer::stun("example.org"), "scheme"),
            (IceServer::stun("http://example.org"), "scheme"),
            (IceServer::stun("stun:"), "host"),
            (IceServer::stun("stun:host:99999"), ""),
            (IceServer::stun("stuns:host"), "TLS"),
            (IceServer::turn("turn:host", "", ""), "credential"),
            (IceServer::turn("turn:host?transport=tcp", "user", "secret"), "TCP"),
        ] {
            match PeerConnection::new(config().ice_server(server)).await {
                Err(ConnectionError::IceServer { url, reason: told }) => {
                    assert!(told.contains(reason), "{url}: {told}");
                    assert!(!told.contains("secret"));
                }
                other => panic!("{other:?}"),
            }
        }
        // Nobody here has the address 203.0.113.1 (RFC 5737).
        let elsewhere = || PeerConnectionConfig::new().bind("203.0.113.1:0".parse().unwrap());
        bind_fails(elsewhere()).await;
        bind_fails(elsewhere().port_range(40_000..=40_010)).await;
        #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
        bind_fails(config().port_range(5..=4)).await;
        bind_fails(config().port_range(0..=0)).await;

        // A port that was free a moment ago.
        let port = UdpSocket::bind(loopback()).await.unwrap().local_addr().unwrap().port();
        let first = PeerConnection::new(config().port_range(port..=port)).await.unwrap();
        bind_fails(config().port_range(port..=port)).await;
        bind_fails(PeerConnectionConfig::new().bind((loopback().ip(), port).into())).await;
        in_time(first.close()).await;
        let second = PeerConnection::new(config().port_range(port..=port)).await.unwrap();
        in_time(second.close()).await;
    });
}

/// As `join` has no connection to give back, its peers fail with the reason, and the mesh is there.
#[test]
fn a_mesh_that_cannot_make_connections_says_so_of_every_peer() {
    promise(async {
        let hub = Hub::new();
        // An address that cannot be had is found out before signalling is asked.
        let nowhere = PeerConnectionConfig::new().bind("203.0.113.1:0".parse().unwrap());
        match builder().connection(nowhere).join(hub.join()).await {
            Err(JoinError::Connection(ConnectionError::Bind(reason))) => {
                assert!(reason.contains("203.0.113.1"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        // A port that somebody has is not.
        let taken = UdpSocket::bind(loopback()).await.unwrap();
        let config = PeerConnectionConfig::new().bind(taken.local_addr().unwrap());
        let hub = Hub::new();
        let mut one = builder().connection(config).join(hub.join()).await.unwrap();
        let two = builder().join(hub.join()).await.unwrap();
        match next(&mut one).await {
            MeshEvent::PeerFailed(peer, PeerFailure::Connection(ConnectionError::Bind(_))) => {
                assert_eq!(peer, id(2));
            }
            event => panic!("{event:?}"),
        }
        assert!(!one.handle().has_peer(id(2)).await);
        close_all(vec![one, two]).await;
    });
}

#[test]
fn outside_a_runtime_no_connection_is_made() {
    let making = std::pin::pin!(PeerConnection::new(config()));
    match making.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Err(ConnectionError::NoRuntime)) => {}
        other => panic!("{other:?}"),
    }
}

async fn give(connection: &PeerConnection, signal: Signal) -> Result<(), ConnectionError> {
    in_time(connection.handle_signal(signal)).await
}

fn out_of_turn(result: Result<(), ConnectionError>) {
    assert!(matches!(result, Err(ConnectionError::OutOfTurn(_))), "{result:?}");
}

async fn bind_fails(config: PeerConnectionConfig) {
    match in_time(PeerConnection::new(config)).await {
        Err(ConnectionError::Bind(reason)) => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    }
}

async fn offer_from(raw: &mut LoopbackSignaling, from: u32) -> Signal {
    loop {
        match in_time(raw.next()).await.unwrap() {
            SignalingEvent::Signal { from: peer, signal: signal @ Signal::Description(_) }
                if peer == id(from) =>
            {
                return signal;
            }
            _ => {}
        }
    }
}

fn description(kind: SdpKind, sdp: &str) -> Signal {
    Signal::Description(SessionDescription { kind, sdp: sdp.to_owned() })
}

fn candidate(text: &str) -> Signal {
    Signal::Candidate(IceCandidate {
        candidate: text.to_owned(),
        sdp_mid: "0".to_owned(),
        sdp_mline_index: 0,
    })
}

/// Descriptions without what a data channel needs.
fn unusable() -> Vec<String> {
    let session = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n";
    let fingerprint = format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let ice = "a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwxyz\r\n";
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sctp-port:5000\r\n";
    let audio =
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n";
    vec![
        String::new(),
        "\r\n".to_owned(),
        "this is no description".to_owned(),
        "{\"type\":\"offer\"}".to_owned(),
        "v=0\r\n".to_owned(),
        "\0\u{fffd}\u{1f980}".to_owned(),
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n".repeat(50),
        session.to_owned(),
        format!("{session}{ice}{fingerprint}"),
        format!("{session}{data}"),
        format!("{session}{data}{ice}"),
        format!("{session}{data}{fingerprint}"),
        format!("{session}{audio}{ice}{fingerprint}a=setup:actpass\r\n"),
        format!("{session}{data}{ice}a=fingerprint:sha-256 nonsense\r\n"),
        format!("{session}{data}{ice}a=fingerprint:md-5 AB\r\n"),
    ]
}

/// Texts that are no candidates.
fn garbage() -> Vec<String> {
    [
        "garbage",
        "candidate:1 1 udp",
        "candidate:1 1 udp 1 127.0.0.1 99999 typ host",
        "candidate:1 1 udp 1 127.0.0.1 -1 typ host",
        "candidate:1 1 udp 1 127.0.0.1 9 typ nonsense",
        "candidate:1 one udp 1 127.0.0.1 9 typ host",
        "\0\u{fffd}\u{1f980} \r\n",
    ]
    .map(str::to_owned)
    .into()
}

/// Candidates that lead nowhere (RFC 5737, RFC 3849), or to a name.
fn nowhere() -> Vec<String> {
    [
        "",
        "candidate:",
        "candidate:1 1 udp 2130706431 192.0.2.1 9 typ host",
        "candidate:1 1 udp 2130706431 2001:db8::1 9 typ host",
        "candidate:1 1 udp 2130706431 0.0.0.0 9 typ host",
        "candidate:1 1 udp 2130706431 127.0.0.1 1 typ host",
        "candidate:1 1 udp 2130706431 255.255.255.255 9 typ host",
        "candidate:1 1 udp 2130706431 224.0.0.1 9 typ host",
        "candidate:1 1 udp 2130706431 127.0.0.1 0 typ host",
        "candidate:1 1 tcp 2130706431 127.0.0.1 9 typ host tcptype active",
        "candidate:1 1 udp 1 192.0.2.1 9 typ relay raddr 192.0.2.2 rport 9",
        "candidate:1 1 udp 2130706431 0b0e2a3c-1111-2222-3333-444455556666.local 9 typ host",
    ]
    .map(str::to_owned)
    .into()
}

fn bad_signals(kind: SdpKind, n: u8) -> Vec<Signal> {
    let unusable = unusable();
    let garbage: Vec<_> = garbage().into_iter().chain(nowhere()).collect();
    let n = usize::from(n);
    vec![
        description(kind, &unusable[n % unusable.len()]),
        candidate(&garbage[n % garbage.len()]),
        candidate(&"x".repeat(2048)),
    ]
}
