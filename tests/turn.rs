//! Connections through TURN relays and with STUN servers, and what is said of servers that are of no use.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and says so if it is skipped"
)]

mod support;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use support::turn::{Coturn, PASSWORD, Stubborn, USER};
use support::*;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime, TokioRuntime,
};
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    ConnectionError, DisconnectReason, IceServer, IceServerError, IceServerProblem, JoinError, Mesh,
    MeshEvent, PeerConnection, PeerConnectionConfig, PeerFailure, PeerId, Signal, Signaling, SignalingError,
    SignalingEvent, Stage, TransferMode, UnreliableLifetime,
};

/// Everything beside the relay is well under this on loopback; the library's own waits are not.
const PROMPT: Duration = Duration::from_secs(1);

#[test]
fn a_mesh_of_three_talks_through_relays_alone_in_every_mode() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let relayed = || Mesh::builder().connection(config().ice_server(coturn.turn()).relay_only(true));
        let since = Instant::now();
        let mut meshes = full_mesh_of(3, |_| relayed()).await;
        assert!(since.elapsed() < 2 * PROMPT, "{:?} to connect", since.elapsed());
        for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
            for mode in TransferMode::ALL {
                for size in [0, 1, 1_000, 60_000] {
                    let payload: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
                    let target = meshes[to].id().get();
                    meshes[from].handle().send(of(mode, target, payload.clone())).await.unwrap();
                    let packet = packet(&mut meshes[to]).await;
                    assert_eq!((packet.mode, &packet.payload[..]), (mode, &payload[..]));
                }
            }
        }
        for mesh in &meshes {
            for info in mesh.handle().peers().await.into_values() {
                assert_eq!(info.connection.ice_server_errors(), vec![]);
            }
        }
        let since = Instant::now();
        close_all(meshes).await;
        assert!(since.elapsed() < PROMPT, "{:?} to close", since.elapsed());
    });
}

/// The library hands a packet to the relay on a later turn of its driver, which would be its next timer.
#[test]
fn a_lone_packet_goes_through_relays_at_once() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let relayed = || Mesh::builder().connection(config().ice_server(coturn.turn()).relay_only(true));
        let mut meshes = full_mesh_of(2, |_| relayed()).await;
        let (one, rest) = meshes.split_first_mut().unwrap();
        let mut times = Vec::new();
        for _ in 0..20 {
            // Long enough for the driver to sleep; the promise is about what comes after.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let since = Instant::now();
            talk(one, &mut rest[0], "ping").await;
            talk(&rest[0], one, "pong").await;
            times.push(since.elapsed());
        }
        times.sort();
        println!("round trips through two relays: {:?} to {:?}", times[0], times[19]);
        assert!(times[10] < Duration::from_millis(40), "{times:?}");
        close_all(meshes).await;
    });
}

#[test]
fn who_leaves_through_a_relay_is_gone_at_once_and_has_been_heard() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let relayed = || Mesh::builder().connection(config().ice_server(coturn.turn()).relay_only(true));
        let mut meshes = full_mesh_of(2, |_| relayed()).await.into_iter();
        let (one, mut two) = (meshes.next().unwrap(), meshes.next().unwrap());
        for n in 0..100_u32 {
            one.handle().send(of(TransferMode::Reliable, 2, n.to_be_bytes().to_vec())).await.unwrap();
        }
        let since = Instant::now();
        in_time(one.handle().close()).await;
        for n in 0..100_u32 {
            assert_eq!(packet(&mut two).await.payload, n.to_be_bytes()[..]);
        }
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        assert!(since.elapsed() < 2 * PROMPT, "{:?}", since.elapsed());
        close_all(vec![two]).await;
        drop(one);
    });
}

/// Six minutes for the library: what it has to prolong with the server, it prolongs, though nonces expire meanwhile.
#[test]
fn a_relayed_link_outlives_the_servers_nonces() {
    promise(async {
        const HURRY: u32 = 30;
        const PACKETS: u32 = 120;
        let Some(coturn) = Coturn::start(&["--stale-nonce=4"]).await else { return };
        let runtime = Arc::new(Hurried(TokioRuntime, HURRY, Instant::now()));
        let relayed = config().ice_server(coturn.turn()).relay_only(true).runtime(runtime);
        let meshes = full_mesh_of(2, |_| Mesh::builder().connection(relayed.clone())).await;
        let [one, mut two] = <[Mesh; 2]>::try_from(meshes).unwrap();
        let sender = one.handle();
        let sending = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            for n in 0..PACKETS {
                pace.tick().await;
                sender.send(of(TransferMode::Reliable, 2, n.to_be_bytes().to_vec())).await.unwrap();
            }
        });
        let (mut received, mut last) = (0, Instant::now());
        while received < PACKETS {
            match next(&mut two).await {
                MeshEvent::Packet(packet) => {
                    assert_eq!(packet.payload, received.to_be_bytes()[..]);
                    assert!(last.elapsed() < 2 * PROMPT, "{:?} of silence", last.elapsed());
                    (received, last) = (received + 1, Instant::now());
                }
                // A tenth of a second counts for three here.
                MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
                other => panic!("{other:?} after {received} packets"),
            }
        }
        sending.await.unwrap();
        close_all(vec![one, two]).await;
    });
}

#[test]
fn relays_alone_tell_no_address_of_this_machine_and_a_stun_server_tells_what_it_sees() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let told = candidates(config().ice_server(coturn.turn()).relay_only(true), 1).await;
        assert!(told[0].ends_with("typ relay raddr 0.0.0.0 rport 0"), "{told:?}");

        let told = candidates(config().ice_server(coturn.stun()), 2).await;
        assert!(told.iter().any(|candidate| candidate.contains("typ host")), "{told:?}");
        assert!(told.iter().any(|candidate| candidate.contains("typ srflx")), "{told:?}");

        let both = config().ice_server(coturn.stun()).ice_server(coturn.turn());
        let told = candidates(both, 3).await;
        assert!(told.iter().any(|candidate| candidate.contains("typ relay raddr 127.0.0.1")), "{told:?}");
    });
}

#[test]
fn a_mesh_with_stun_and_turn_servers_takes_the_direct_way() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let all = || Mesh::builder().connection(config().ice_server(coturn.stun()).ice_server(coturn.turn()));
        let since = Instant::now();
        let mut meshes = full_mesh_of(3, |_| all()).await;
        assert!(since.elapsed() < 2 * PROMPT, "{:?} to connect", since.elapsed());
        let (one, rest) = meshes.split_first_mut().unwrap();
        talk(one, &mut rest[0], "hello").await;
        close_all(meshes).await;
    });
}

#[test]
fn names_and_ipv6_addresses_of_servers_are_found() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let port = coturn.address.port();
        let named = IceServer::turn(format!("turn:localhost:{port}?transport=udp"), USER, PASSWORD);
        assert_eq!(candidates(config().ice_server(named).relay_only(true), 1).await.len(), 1);
        let named = IceServer::stun(format!("stun:localhost:{port}"));
        assert_eq!(candidates(config().ice_server(named), 2).await.len(), 2);

        let ipv6 = Ipv6Addr::LOCALHOST;
        if std::net::UdpSocket::bind((ipv6, 0)).is_err() {
            println!("SKIPPED: there is no IPv6 loopback");
            return;
        }
        // A relay is of IPv4 unless IPv6 is asked for, which the library does not do (RFC 8656 section 7.2).
        let own_family = ["--allocation-default-address-family=keep"];
        let Some(coturn) = Coturn::start_on(ipv6.into(), &own_family).await else { return };
        let bound = || PeerConnectionConfig::new().bind(SocketAddr::new(ipv6.into(), 0));
        let told = candidates(bound().ice_server(coturn.turn()).relay_only(true), 1).await;
        assert!(told[0].ends_with("typ relay raddr :: rport 0"), "{told:?}");
        let told = candidates(bound().ice_server(coturn.stun()), 2).await;
        assert!(told.iter().any(|candidate| candidate.contains("typ srflx")), "{told:?}");
    });
}

#[test]
fn credentials_that_a_server_refuses_fail_the_peer_early_by_name() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let wrong = IceServer::turn(format!("turn:{}", coturn.address), USER, "not the password");
        let expected = error(coturn.address, IceServerProblem::Refused { code: 401 });

        // By hand.
        let relayed = config().ice_server(wrong).relay_only(true);
        let mut mesh = Mesh::builder().build(id(1));
        let connection = PeerConnection::new(relayed.clone()).await.unwrap();
        add(&mesh, &connection, 2).await.unwrap();
        let since = Instant::now();
        connection.create_offer().await.unwrap();
        let failed = failure(&mut mesh).await;
        assert_eq!(named_by(&failed), std::slice::from_ref(&expected));
        assert_eq!(named(&connection.ice_server_errors()), std::slice::from_ref(&expected));
        let text = failed.to_string();
        assert!(text.contains(&coturn.address.to_string()) && text.contains("credentials"), "{text}");
        assert!(!text.contains("not the password") && !text.contains(USER), "{text}");
        assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
        close_all(vec![mesh]).await;

        // Joined: the one who can, and the one who cannot.
        let hub = Hub::new();
        let since = Instant::now();
        let mut one = Mesh::builder().connection(relayed).join(hub.join()).await.unwrap();
        let two = builder().join(hub.join()).await.unwrap();
        assert_eq!(named_by(&failure(&mut one).await), [expected]);
        assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_server_that_refuses_is_named_with_its_reason() {
    promise(async {
        for code in [300, 400, 403, 486, 500, 508] {
            let server = Stubborn::start(Some(code)).await;
            let failure = failure_by_hand(config().ice_server(server.turn()).relay_only(true)).await;
            let expected = error(server.address, IceServerProblem::Refused { code });
            assert_eq!(named_by(&failure), [expected]);
        }
    });
}

/// A retry may find it otherwise, so it goes on until the handshake limit, and then says why.
#[test]
fn a_refusal_that_may_pass_is_tried_again_and_named_at_the_limit() {
    promise(async {
        let server = Stubborn::start(Some(486)).await;
        let limit = Duration::from_millis(1500);
        let hub = Hub::new();
        let relayed = config().ice_server(server.turn()).relay_only(true);
        let one = Mesh::builder().handshake_limit(limit).connection(relayed);
        let mut one = one.join(hub.join()).await.unwrap();
        let since = Instant::now();
        let two = builder().join(hub.join()).await.unwrap();
        let expected = error(server.address, IceServerProblem::Refused { code: 486 });
        assert_eq!(named_by(&failure(&mut one).await), [expected]);
        assert!(since.elapsed() >= limit - Duration::from_millis(100));
        assert!(server.requests() > 1, "{} requests", server.requests());
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_server_that_does_not_answer_is_named_within_its_limit() {
    promise(async {
        let server = Stubborn::start(None).await;
        let since = Instant::now();
        let failure = failure_by_hand(config().ice_server(server.turn()).relay_only(true)).await;
        let expected = error(server.address, IceServerProblem::Unanswered);
        assert_eq!(named_by(&failure), [expected]);
        let took = since.elapsed();
        assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&took), "{took:?}");
    });
}

#[test]
fn every_server_is_named_and_one_that_works_is_enough() {
    promise(async {
        let (busy, angry) = (Stubborn::start(Some(486)).await, Stubborn::start(Some(403)).await);
        let both = || config().ice_server(busy.turn()).ice_server(angry.turn()).relay_only(true);
        let expected = [
            error(busy.address, IceServerProblem::Refused { code: 486 }),
            error(angry.address, IceServerProblem::Refused { code: 403 }),
        ];
        assert_eq!(named_by(&failure_by_hand(both()).await), expected);

        let Some(coturn) = Coturn::start(&[]).await else { return };
        let relayed = || Mesh::builder().connection(both().ice_server(coturn.turn()));
        let mut meshes = full_mesh_of(2, |_| relayed()).await;
        let info = meshes[0].handle().peer(id(2)).await.unwrap();
        assert_eq!(named(&info.connection.ice_server_errors()), expected);
        let (one, rest) = meshes.split_first_mut().unwrap();
        talk(one, &mut rest[0], "through the third").await;
        close_all(meshes).await;
    });
}

/// Only who needs a relay fails without; the others connect, and say on request what was of no use.
#[test]
fn a_direct_connection_says_which_servers_were_of_no_use() {
    promise(async {
        let (busy, angry) = (Stubborn::start(Some(486)).await, Stubborn::start(Some(403)).await);
        let stun = IceServer::stun(format!("stun:{}", angry.address));
        let unknown = IceServer::stun("stun:no-such-host.invalid");
        let servers = config().ice_server(busy.turn()).ice_server(stun).ice_server(unknown);
        let since = Instant::now();
        let meshes = full_mesh_of(2, |_| Mesh::builder().connection(servers.clone())).await;
        assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
        let connection = meshes[0].handle().peer(id(2)).await.unwrap().connection;
        until(async || connection.ice_server_errors().len() == 3).await;
        let errors = connection.ice_server_errors();
        assert_eq!(named(&errors)[0], error(busy.address, IceServerProblem::Refused { code: 486 }));
        assert_eq!(errors[1].problem, IceServerProblem::Refused { code: 403 });
        assert!(matches!(errors[2].problem, IceServerProblem::Unresolved(_)), "{errors:?}");
        assert!(errors[2].to_string().contains("no-such-host.invalid"), "{}", errors[2]);
        close_all(meshes).await;
    });
}

#[test]
fn a_server_that_cannot_be_asked_from_here_is_named() {
    promise(async {
        let relay = IceServer::turn("turn:[::1]:9", USER, PASSWORD);
        let failure = failure_by_hand(config().ice_server(relay).relay_only(true)).await;
        assert_eq!(named_by(&failure)[0].1, IceServerProblem::NoCommonFamily);
    });
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused_before_signalling_is_asked() {
    promise(async {
        for server in [
            IceServer::turn("turn:127.0.0.1?transport=tcp", USER, PASSWORD),
            IceServer::turn("turns:127.0.0.1", USER, PASSWORD),
            IceServer::stun("stuns:127.0.0.1"),
            IceServer::turn("turn:127.0.0.1", USER, ""),
            IceServer::stun("127.0.0.1"),
        ] {
            let config = config().ice_server(server);
            let error = PeerConnection::new(config.clone()).await.unwrap_err();
            assert!(matches!(error, ConnectionError::IceServer { .. }), "{error}");
            let joined = Mesh::builder().connection(config).join(Unasked).await;
            assert_eq!(joined.unwrap_err(), JoinError::Connection(error));
        }
        let joined = Mesh::builder().connection(config().relay_only(true)).join(Unasked).await;
        assert_eq!(joined.unwrap_err(), JoinError::Connection(ConnectionError::NoRelay));
    });
}

#[test]
fn credentials_are_asked_for_anew_for_each_connection() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let asked = Arc::new(AtomicUsize::new(0));
        let config = || {
            let (asked, server) = (asked.clone(), coturn.turn());
            let callback = move || {
                asked.fetch_add(1, Ordering::Relaxed);
                let server = server.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, String>(vec![server])
                }
            };
            config().relay_only(true).ice_servers_from(callback)
        };
        let mut meshes = full_mesh_of(3, |_| Mesh::builder().connection(config())).await;
        assert_eq!(asked.load(Ordering::Relaxed), 6, "once at each end of each link");
        let (one, rest) = meshes.split_first_mut().unwrap();
        talk(one, &mut rest[0], "with fresh credentials").await;
        close_all(meshes).await;
    });
}

/// The first credentials have expired; an attempt later there are others.
#[test]
fn a_later_attempt_has_later_credentials() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        let expired = IceServer::turn(format!("turn:{}", coturn.address), USER, "expired");
        let (asked, fresh) = (Arc::new(AtomicUsize::new(0)), coturn.turn());
        let callback = move || {
            let server =
                if asked.fetch_add(1, Ordering::Relaxed) < 2 { expired.clone() } else { fresh.clone() };
            std::future::ready(Ok::<_, String>(vec![server]))
        };
        let relayed = config().relay_only(true).ice_servers_from(callback);
        let mut meshes = full_mesh_of(2, |_| Mesh::builder().connection(relayed.clone())).await;
        let (one, rest) = meshes.split_first_mut().unwrap();
        talk(one, &mut rest[0], "at last").await;
        close_all(meshes).await;
    });
}

#[test]
fn credentials_that_cannot_be_had_are_an_error_with_its_reason() {
    promise(async {
        let failing = || config().ice_servers_from(async || Err::<Vec<IceServer>, _>("the bank is closed"));
        let expected = ConnectionError::Credentials("the bank is closed".to_owned());
        assert_eq!(PeerConnection::new(failing()).await, Err(expected.clone()));

        let panicking = config().ice_servers_from(async || {
            if LIMIT > Duration::ZERO {
                panic!("on purpose");
            }
            Ok::<_, String>(Vec::new())
        });
        let error = PeerConnection::new(panicking).await.unwrap_err();
        assert!(matches!(&error, ConnectionError::Credentials(reason) if reason.contains("panicked")));

        let useless = config().ice_servers_from(async || Ok::<_, String>(vec![IceServer::stun("stun:")]));
        assert!(matches!(PeerConnection::new(useless).await, Err(ConnectionError::IceServer { .. })));
        let none = config().relay_only(true).ice_servers_from(async || Ok::<_, String>(Vec::new()));
        assert_eq!(PeerConnection::new(none).await, Err(ConnectionError::NoRelay));

        let hub = Hub::new();
        let mut one = Mesh::builder().connection(failing()).join(hub.join()).await.unwrap();
        let two = builder().join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerFailed(id(2), PeerFailure::Connection(expected)));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn who_waits_for_credentials_holds_up_nobody_else() {
    promise(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let callback = move || {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok::<_, String>(Vec::new())
            }
        };
        let hub = Hub::new();
        let slow = Mesh::builder().connection(config().ice_servers_from(callback));
        let mut slow = slow.join(hub.join()).await.unwrap();
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(builder().join(hub.join()).await.unwrap());
        }
        let since = Instant::now();
        assert!(matches!(next(&mut slow).await, MeshEvent::PeerConnected(_)));
        assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
        // The other fails when its time is over; the mesh closes without waiting for that.
        let since = Instant::now();
        others.push(slow);
        close_all(others).await;
        assert!(since.elapsed() < PROMPT, "{:?}", since.elapsed());
    });
}

#[test]
fn a_callback_that_never_answers_is_given_up_and_a_dropped_wait_ends_it() {
    promise(async {
        let (started, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let callback = {
            let (started, ended) = (started.clone(), ended.clone());
            move || {
                started.fetch_add(1, Ordering::Relaxed);
                let count = Count(ended.clone());
                async move {
                    let _count = count;
                    std::future::pending::<()>().await;
                    Ok::<_, String>(Vec::new())
                }
            }
        };
        let config = config().ice_servers_from(callback);
        let dropped = tokio::time::timeout(Duration::from_millis(50), PeerConnection::new(config.clone()));
        assert!(dropped.await.is_err());
        until(async || ended.load(Ordering::Relaxed) == 1).await;
        let since = Instant::now();
        let error = in_time(PeerConnection::new(config)).await.unwrap_err();
        assert_eq!(error, ConnectionError::Credentials("the callback took longer than 10 s".to_owned()));
        assert!((Duration::from_secs(9)..Duration::from_secs(12)).contains(&since.elapsed()));
        until(async || ended.load(Ordering::Relaxed) == 2).await;
        assert_eq!(started.load(Ordering::Relaxed), 2);
    });
}

/// Browsers hide their addresses behind names of multicast DNS. They reach us all the same.
#[test]
fn candidates_with_host_names_delay_nothing() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        let since = Instant::now();
        here.create_offer().await.unwrap();
        let mut offered = here.signals();
        let Some(Signal::Description(mut offer)) = in_time(offered.next()).await else { panic!("an offer") };
        // In the description, as who gathers first does, and trickled.
        let named = [
            "candidate:1 1 udp 2113937151 2f1c1d1e-aaaa-4bbb-8ccc-0123456789ab.local 50000 typ host",
            "candidate:2 1 UDP 2113937151 2F1C1D1E.LOCAL 50000 typ host generation 0 network-cost 999",
            "candidate:3 1 udp 1677729535 hidden.local 50001 typ srflx raddr 0.0.0.0 rport 0",
            "candidate:4 1 udp 2113937151 no-such-host.invalid 50002 typ host",
            "candidate:5 1 udp 41885439 relay.invalid 50003 typ relay raddr 0.0.0.0 rport 0",
        ];
        for named in named {
            offer.sdp += &format!("a={named}\r\n");
        }
        there.handle_signal(Signal::Description(offer)).await.unwrap();
        for named in named {
            let candidate = webrtc_mesh::IceCandidate {
                candidate: named.to_owned(),
                sdp_mid: "0".to_owned(),
                sdp_mline_index: 0,
            };
            let taken = there.handle_signal(Signal::Candidate(candidate)).await;
            let hidden = named.to_ascii_lowercase().contains(".local");
            assert_eq!(taken.is_ok(), hidden, "{named}: {taken:?}");
        }
        assert!(since.elapsed() < PROMPT / 2, "{:?}", since.elapsed());
        // The offerer's own candidates never arrive: it reaches the answerer, whose candidates do.
        let mut answered = there.signals();
        let to_here = here.clone();
        tokio::spawn(async move {
            while let Some(signal) = answered.next().await {
                let _ = to_here.handle_signal(signal).await;
            }
        });
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        assert!(since.elapsed() < 2 * PROMPT, "{:?}", since.elapsed());
        close_all(vec![one, two]).await;
    });
}

/// Without a limit of its own a failing peer would wait for the handshake limit, and say no more than where it stuck.
#[test]
fn a_peer_without_servers_still_says_where_it_stuck() {
    promise(async {
        let limit = Duration::from_millis(300);
        let mut mesh = Mesh::builder().handshake_limit(limit).build(id(1));
        let connection = PeerConnection::new(config()).await.unwrap();
        add(&mesh, &connection, 2).await.unwrap();
        connection.create_offer().await.unwrap();
        assert!(matches!(
            next(&mut mesh).await,
            MeshEvent::PeerFailed(_, PeerFailure::TimedOut { stage: Stage::Signaling, .. })
        ));
        close_all(vec![mesh]).await;
    });
}

/// The first candidates that a connection of this configuration offers.
async fn candidates(config: PeerConnectionConfig, count: usize) -> Vec<String> {
    let mesh = Mesh::builder().build(id(1));
    let connection = PeerConnection::new(config).await.unwrap();
    mesh.handle().add_peer(connection.clone(), id(2), UnreliableLifetime::default()).await.unwrap();
    connection.create_offer().await.unwrap();
    let mut signals = connection.signals();
    let mut candidates = Vec::new();
    while candidates.len() < count {
        if let Signal::Candidate(candidate) = in_time(signals.next()).await.expect("a candidate") {
            candidates.push(candidate.candidate);
        }
    }
    close_all(vec![mesh]).await;
    candidates
}

/// How a peer fails that is added by hand with this configuration.
async fn failure_by_hand(config: PeerConnectionConfig) -> PeerFailure {
    let mut mesh = Mesh::builder().build(id(1));
    let connection = PeerConnection::new(config).await.unwrap();
    add(&mesh, &connection, 2).await.unwrap();
    connection.create_offer().await.unwrap();
    let failure = failure(&mut mesh).await;
    close_all(vec![mesh]).await;
    failure
}

type Named = (String, IceServerProblem);

fn error(address: SocketAddr, problem: IceServerProblem) -> Named {
    (format!("turn:{address}"), problem)
}

fn named(errors: &[IceServerError]) -> Vec<Named> {
    errors.iter().map(|error| (error.url.clone(), error.problem.clone())).collect()
}

fn named_by(failure: &PeerFailure) -> Vec<Named> {
    match failure {
        PeerFailure::IceServers(errors) => named(errors),
        other => panic!("the servers were to be named, not {other:?}"),
    }
}

/// How the next peer fails.
async fn failure(mesh: &mut Mesh) -> PeerFailure {
    match next(mesh).await {
        MeshEvent::PeerFailed(_, failure) => failure,
        other => panic!("a failure was expected, not {other:?}"),
    }
}

/// tokio, with a clock that is so many times faster.
#[derive(Debug)]
struct Hurried(TokioRuntime, u32, Instant);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for Hurried {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        self.0.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.0.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.0.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.0.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        self.0.resolve_host(host)
    }

    fn now(&self) -> Instant {
        self.2 + self.2.elapsed() * self.1
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        self.0.sleep(duration / self.1)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.0.interval(period / self.1)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.0.block_on(future);
    }
}

/// Signalling that must not be asked.
struct Unasked;

#[async_trait::async_trait]
impl Signaling for Unasked {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        panic!("signalling was asked");
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        Err(SignalingError::Closed)
    }

    async fn send(&mut self, _: PeerId, _: Signal) -> Result<(), SignalingError> {
        Err(SignalingError::Closed)
    }

    async fn leave(&mut self) {}
}
