//! Adding peers by hand is complete: connections of one's own, signals carried over anything, and a typed reason for
//! every peer that is not taken.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a fault in a test is a failed test")]

mod support;

use std::task::Poll;

use futures::StreamExt as _;
use support::*;
use tokio::sync::mpsc;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    AddPeerError, ConnectionState, ConnectionStatus, DisconnectReason, Mesh, MeshEvent, OutgoingPacket,
    PeerConnection, SdpKind, SendError, SessionDescription, Signal, SignalStream, Target, TransferMode,
    UnknownPeer, UnreliableLifetime,
};

#[test]
fn two_meshes_meet_over_whatever_carries_their_signals() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        assert_eq!((here.state(), there.state()), (ConnectionState::New, ConnectionState::New));
        add(&one, &here, 2).await.unwrap();
        let lifetime = UnreliableLifetime::Millis(500);
        two.handle().add_peer(there.clone(), id(1), lifetime).await.unwrap();

        let (to_two, mut for_two) = mpsc::unbounded_channel();
        let (to_one, mut for_one) = mpsc::unbounded_channel();
        here.create_offer().await.unwrap();
        let (mut of_one, mut of_two) = (here.signals(), there.signals());
        let carrying = async {
            loop {
                tokio::select! {
                    Some(signal) = of_one.next() => to_two.send(signal).unwrap(),
                    Some(signal) = of_two.next() => to_one.send(signal).unwrap(),
                    Some(signal) = for_two.recv() => there.handle_signal(signal).await.unwrap(),
                    Some(signal) = for_one.recv() => here.handle_signal(signal).await.unwrap(),
                }
            }
        };
        let meeting = async {
            assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        };
        tokio::select! {
            () = carrying => unreachable!(),
            () = meeting => {}
        }
        assert_eq!((here.state(), there.state()), (ConnectionState::Connected, ConnectionState::Connected));
        for mode in TransferMode::ALL {
            one.handle().try_send(of(mode, 2, "there")).unwrap();
            assert_eq!(packet(&mut two).await.mode, mode);
            two.handle().try_send(of(mode, 1, "back")).unwrap();
            assert_eq!(packet(&mut one).await.mode, mode);
        }
        close_all(vec![one, two]).await;
        assert_eq!((here.state(), there.state()), (ConnectionState::Closed, ConnectionState::Closed));
        assert_eq!(of_one.next().await, None, "the signals end with the connection");
    });
}

/// The connection's driver stays where it was made, and says goodbye from there.
#[test]
fn a_mesh_may_run_on_another_runtime_than_its_connections_and_end_with_it() {
    promise(async {
        let mut two = builder().build(id(2));
        let (here, there) = (connection().await, connection().await);
        add(&two, &there, 1).await.unwrap();
        let (elsewhere, made) = std::sync::mpsc::channel();
        let connection = here.clone();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let mut one = runtime.block_on(async { builder().build(id(1)) });
            runtime.block_on(add(&one, &connection, 2)).unwrap();
            elsewhere.send(()).unwrap();
            runtime.block_on(async {
                assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
                for n in 0..100_u8 {
                    one.handle().try_send(of(TransferMode::Reliable, 2, vec![n])).unwrap();
                    assert_eq!(packet(&mut one).await.payload[..], [n]);
                }
            });
            ended.recv().unwrap();
        });
        tokio::task::spawn_blocking(move || made.recv().unwrap()).await.unwrap();
        carry(&here, &there);
        here.create_offer().await.unwrap();
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        for n in 0..100_u8 {
            assert_eq!(packet(&mut two).await.payload[..], [n]);
            two.handle().try_send(of(TransferMode::Reliable, 1, vec![n])).unwrap();
        }
        end.send(()).unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        assert_eq!(here.state(), ConnectionState::Closed);
        close_all(vec![two]).await;
    });
}

#[test]
fn with_a_runtime_of_ones_own_packets_go_both_ways_too() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let own = config().runtime(std::sync::Arc::new(webrtc::runtime::TokioRuntime));
        let (here, there) = (PeerConnection::new(own).await.unwrap(), connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        carry(&here, &there);
        here.create_offer().await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        talk(&one, &mut two, "there").await;
        close_all(vec![one, two]).await;
    });
}

/// No other candidates exist here than those that come too early.
#[test]
fn candidates_that_come_before_their_description_count() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        here.create_offer().await.unwrap();
        for (from, to, kind) in [(&here, &there, SdpKind::Offer), (&there, &here, SdpKind::Answer)] {
            let mut signals = from.signals();
            let description = description(&mut signals, kind).await;
            let candidate = in_time(signals.next()).await.unwrap();
            assert!(matches!(candidate, Signal::Candidate(_)), "{candidate:?}");
            to.handle_signal(candidate).await.unwrap();
            to.handle_signal(Signal::Description(without_candidates(description))).await.unwrap();
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        close_all(vec![one, two]).await;
    });
}

/// The answerer's checks reach the offerer; its candidates never do, or always too late.
#[test]
fn a_link_whose_checks_overtake_its_candidates_is_up_within_a_second() {
    for candidates_are_late in [false, true] {
        simulated(1, |network| async move {
            let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
            let here = PeerConnection::new(network.peer("here")).await.unwrap();
            let there = PeerConnection::new(network.peer("there")).await.unwrap();
            add(&one, &here, 2).await.unwrap();
            add(&two, &there, 1).await.unwrap();
            here.create_offer().await.unwrap();
            let since = tokio::time::Instant::now();
            let (mut of_one, mut of_two) = (here.signals(), there.signals());
            let offer = description(&mut of_one, SdpKind::Offer).await;
            there.handle_signal(Signal::Description(offer)).await.unwrap();
            there.handle_signal(in_time(of_one.next()).await.unwrap()).await.unwrap();
            let answer = without_candidates(description(&mut of_two, SdpKind::Answer).await);
            here.handle_signal(Signal::Description(answer)).await.unwrap();
            if candidates_are_late {
                // Time enough for a check, as it is virtual.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                here.handle_signal(in_time(of_two.next()).await.unwrap()).await.unwrap();
            }
            assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
            assert!(since.elapsed().as_millis() < 1000, "{:?}", since.elapsed());
            close_all(vec![one, two]).await;
        });
    }
}

#[test]
fn signals_are_kept_until_somebody_takes_them_and_a_newer_stream_goes_on() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        let (mut earliest, mut older) = (here.signals(), here.signals());
        here.create_offer().await.unwrap();
        assert_eq!(earliest.next().await, None, "one stream at a time");
        there
            .handle_signal(Signal::Description(description(&mut older, SdpKind::Offer).await))
            .await
            .unwrap();
        // The answer and the candidates of both sides are taken by those who come late.
        let mut newer = here.signals();
        let candidate = in_time(newer.next()).await.unwrap();
        assert!(matches!(candidate, Signal::Candidate(_)), "{candidate:?}");
        assert_eq!(older.next().await, None);
        there.handle_signal(candidate).await.unwrap();
        drop((older, newer));
        carry(&here, &there);
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn what_is_repeated_by_signalling_does_no_harm() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        here.create_offer().await.unwrap();
        for (from, to, kind) in [(&here, &there, SdpKind::Offer), (&there, &here, SdpKind::Answer)] {
            let mut signals = from.signals();
            let description = description(&mut signals, kind).await;
            let candidate = in_time(signals.next()).await.unwrap();
            for _ in 0..3 {
                to.handle_signal(Signal::Description(description.clone())).await.unwrap();
                to.handle_signal(candidate.clone()).await.unwrap();
            }
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_connection_that_is_not_new_is_refused_and_unharmed() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let three = builder().build(id(3));
        let refused = async |connection: &PeerConnection| {
            for (mesh, peer) in [(&one, 9), (&three, 1)] {
                assert_eq!(add(mesh, connection, peer).await, Err(AddPeerError::NotNew));
                assert!(!mesh.handle().has_peer(id(peer)).await, "who is refused is not there");
            }
        };
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        refused(&here).await;
        assert_eq!(here.state(), ConnectionState::New, "added, and nothing more");

        add(&two, &there, 1).await.unwrap();
        here.create_offer().await.unwrap();
        assert_eq!(here.state(), ConnectionState::Connecting);
        refused(&here).await;

        carry(&here, &there);
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        for connection in [&here, &there] {
            assert_eq!(add(&three, connection, 1).await, Err(AddPeerError::NotNew));
        }
        assert_eq!(add(&one, &there, 9).await, Err(AddPeerError::NotNew));
        talk(&one, &mut two, "unharmed").await;
        talk(&two, &mut one, "as ever").await;

        let closed = connection().await;
        closed.close().await;
        assert_eq!(add(&one, &closed, 9).await, Err(AddPeerError::NotNew));
        close_all(vec![one, two, three]).await;
    });
}

/// Whoever was refused is gone by the time that the refusal is known.
#[test]
fn an_id_is_free_again_the_moment_its_connection_was_refused() {
    promise(async {
        let one = builder().build(id(1));
        let used = connection().await;
        add(&one, &used, 2).await.unwrap();
        for peer in 10..60 {
            let refused = add(&one, &used, peer).await;
            assert_eq!(refused, Err(AddPeerError::NotNew));
            assert_eq!(add(&one, &connection().await, peer).await, Ok(()));
        }
        close_all(vec![one]).await;
    });
}

#[test]
fn a_peer_is_refused_by_the_first_reason_of_the_list() {
    promise(async {
        let one = builder().max_peers(1).build(id(1));
        let handle = one.handle();
        let (there, used, fresh) = (connection().await, connection().await, connection().await);
        let other = builder().build(id(7));
        add(&other, &used, 1).await.unwrap();
        add(&one, &there, 2).await.unwrap();

        handle.set_refuse_new_connections(true);
        for (connection, peer) in [(&used, 1), (&used, 2), (&used, 3), (&fresh, 3)] {
            assert_eq!(add(&one, connection, peer).await, Err(AddPeerError::Refused));
        }
        handle.set_refuse_new_connections(false);
        for connection in [&used, &fresh] {
            assert_eq!(add(&one, connection, 1).await, Err(AddPeerError::OwnId));
            assert_eq!(add(&one, connection, 2).await, Err(AddPeerError::AlreadyExists(id(2))));
            assert_eq!(add(&one, connection, 3).await, Err(AddPeerError::TooManyPeers { limit: 1 }));
        }
        handle.remove_peer(id(2)).await.unwrap();
        assert_eq!(add(&one, &used, 3).await, Err(AddPeerError::NotNew));
        add(&one, &fresh, 3).await.unwrap();
        handle.remove_peer(id(3)).await.unwrap();

        handle.set_refuse_new_connections(true);
        let last = connection().await;
        in_time(handle.close()).await;
        for (connection, peer) in [(&used, 1), (&used, 3), (&last, 3)] {
            assert_eq!(add(&one, connection, peer).await, Err(AddPeerError::MeshClosed));
        }
        assert_eq!(last.state(), ConnectionState::New, "whoever is not taken stays as it was");
        add(&other, &last, 8).await.unwrap();
        close_all(vec![other]).await;
    });
}

#[test]
fn a_peer_removed_while_it_connects_goes_in_silence() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (idle, offering) = (connection().await, connection().await);
        for connection in [&idle, &offering] {
            add(&one, connection, 2).await.unwrap();
            assert!(one.handle().has_peer(id(2)).await);
            if connection == &offering {
                connection.create_offer().await.unwrap();
            }
            in_time(one.handle().remove_peer(id(2))).await.unwrap();
            assert!(!one.handle().has_peer(id(2)).await);
            assert_eq!(connection.state(), ConnectionState::Closed);
        }
        // The first that is heard of anybody.
        link(&one, &two).await;
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_peer_that_was_removed_comes_again_under_its_id_and_nothing_of_its_old_life() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        for life in 0..5_u8 {
            for n in 0..100 {
                one.handle().send(OutgoingPacket::reliable(id(2), vec![life, n])).await.unwrap();
                two.handle().send(OutgoingPacket::reliable(id(1), vec![life, n])).await.unwrap();
            }
            in_time(one.handle().remove_peer(id(2))).await.unwrap();
            assert!(!one.handle().has_peer(id(2)).await);
            let sent = one.handle().send(OutgoingPacket::reliable(id(2), "to nobody")).await;
            assert_eq!(sent, Err(SendError::UnknownPeer(id(2))));

            // All that was sent to the one that is removed, and then that it was left.
            for n in 0..100 {
                assert_eq!(next(&mut two).await, said(1, vec![life, n]));
            }
            assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
            // What came before the removal, in order, and nothing after it.
            let mut received = 0;
            loop {
                match next(&mut one).await {
                    MeshEvent::PeerDisconnected(peer, reason) => {
                        assert_eq!((peer, reason), (id(2), DisconnectReason::Removed));
                        break;
                    }
                    event => assert_eq!(event, said(2, vec![life, received])),
                }
                received += 1;
            }
            while two.handle().has_peer(id(1)).await {
                tokio::task::yield_now().await;
            }
            link(&one, &two).await;
            assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        }
        close_all(vec![one, two]).await;
    });
}

#[test]
fn removing_whoever_is_not_there_says_so() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        for peer in [1, 3] {
            assert_eq!(one.handle().remove_peer(id(peer)).await, Err(UnknownPeer(id(peer))));
        }
        talk(&one, &mut two, "nobody noticed").await;
        in_time(one.handle().remove_peer(id(2))).await.unwrap();
        assert_eq!(one.handle().remove_peer(id(2)).await, Err(UnknownPeer(id(2))));
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::Removed));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn whoever_removes_a_peer_that_is_leaving_waits_for_the_same_end() {
    promise(async {
        let hub = Hub::new();
        let mut one = builder().join(hub.join()).await.unwrap();
        // Its window is smaller than what it is sent, so nobody has left before it reads.
        let mut two = builder().receive_window_bytes(0).join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        let handle = one.handle();
        for _ in 0..40 {
            handle.send(OutgoingPacket::reliable(id(2), vec![7; 20_000])).await.unwrap();
        }
        let mut both =
            std::pin::pin!(futures::future::join(handle.remove_peer(id(2)), handle.remove_peer(id(2))));
        assert_eq!(futures::poll!(&mut both), Poll::Pending);
        while handle.peer(id(2)).await.unwrap().connected {
            tokio::task::yield_now().await;
        }
        let sent = handle.send(OutgoingPacket::reliable(id(2), "too late")).await;
        assert_eq!(sent, Err(SendError::NotConnected(id(2))));
        let added = add(&one, &connection().await, 2).await;
        assert_eq!(added, Err(AddPeerError::AlreadyExists(id(2))));

        for _ in 0..40 {
            assert_eq!(packet(&mut two).await.payload.len(), 20_000);
        }
        assert_eq!(in_time(both).await, (Ok(()), Ok(())));
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::Removed));
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn refusing_new_connections_leaves_those_who_are_there_alone() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        let mut three = builder().build(id(3));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 3).await.unwrap();
        add(&three, &there, 1).await.unwrap();
        one.handle().set_refuse_new_connections(true);
        assert!(one.handle().refuse_new_connections());
        assert_eq!(add(&one, &connection().await, 4).await, Err(AddPeerError::Refused));

        talk(&one, &mut two, "still here").await;
        talk(&two, &mut one, "still here").await;
        carry(&here, &there);
        here.create_offer().await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(3)));
        assert_eq!(next(&mut three).await, MeshEvent::PeerConnected(id(1)));

        one.handle().set_refuse_new_connections(false);
        add(&one, &connection().await, 4).await.unwrap();
        let refusing = builder().refuse_new_connections(true).build(id(5));
        assert!(refusing.handle().refuse_new_connections());
        assert_eq!(add(&refusing, &connection().await, 1).await, Err(AddPeerError::Refused));
        close_all(vec![one, two, three, refusing]).await;
    });
}

#[test]
fn what_can_be_read_off_a_peer() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let handle = one.handle();
        assert_eq!(handle.peer(id(2)).await, None);
        assert!(handle.peers().await.is_empty());
        let waiting = connection().await;
        add(&one, &waiting, 3).await.unwrap();
        let (here, _) = link(&one, &two).await;
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));

        let peers = handle.peers().await;
        assert_eq!(peers.keys().copied().collect::<Vec<_>>(), [id(2), id(3)]);
        let (connected, connecting) = (&peers[&id(2)], &peers[&id(3)]);
        assert!(connected.connected && !connecting.connected);
        assert_eq!((&connected.connection, &connecting.connection), (&here, &waiting));
        assert_eq!(connecting.round_trip_time, None);
        for info in [connected, connecting] {
            let channels = info.channels.map(|channel| (channel.id, channel.label, channel.mode));
            assert_eq!(
                channels,
                [
                    (1, "reliable", TransferMode::Reliable),
                    (2, "ordered", TransferMode::UnreliableOrdered),
                    (3, "unreliable", TransferMode::Unreliable),
                ]
            );
            assert_eq!(info.refused_channels, 0);
            assert!(info.channels.iter().all(|channel| channel.queued_packets == 0));
        }
        assert!(handle.has_peer(id(2)).await && handle.has_peer(id(3)).await);
        assert!(!handle.has_peer(id(1)).await, "nobody is a peer of oneself");

        let round_trip = in_time(async {
            loop {
                match handle.peer(id(2)).await.unwrap().round_trip_time {
                    Some(time) => break time,
                    None => tokio::task::yield_now().await,
                }
            }
        });
        assert!(round_trip.await > std::time::Duration::ZERO);
        close_all(vec![one, two]).await;
        assert!(handle.peers().await.is_empty());
    });
}

#[test]
fn put_packet_goes_where_and_how_any_handle_said_last() {
    promise(async {
        let mut meshes = full_mesh_of(3, |_| builder().transfer_mode(TransferMode::Unreliable)).await;
        let mut three = meshes.pop().unwrap();
        let mut two = meshes.pop().unwrap();
        let one = meshes.pop().unwrap();
        let (handle, other) = (one.handle(), one.handle().clone());
        assert_eq!((handle.target(), handle.transfer_mode()), (Target::All, TransferMode::Unreliable));
        let arrives = async |mesh: &mut Mesh, mode, payload: &str| {
            let packet = packet(mesh).await;
            assert_eq!((packet.from, packet.mode, &packet.payload[..]), (id(1), mode, payload.as_bytes()));
        };
        handle.put_packet("to all").await.unwrap();
        arrives(&mut two, TransferMode::Unreliable, "to all").await;
        arrives(&mut three, TransferMode::Unreliable, "to all").await;

        other.set_target(Target::Peer(id(2)));
        other.set_transfer_mode(TransferMode::Reliable);
        assert_eq!((handle.target(), handle.transfer_mode()), (Target::Peer(id(2)), TransferMode::Reliable));
        handle.put_packet("to two").await.unwrap();
        arrives(&mut two, TransferMode::Reliable, "to two").await;

        one.handle().set_target(Target::AllExcept(id(2)));
        one.handle().set_transfer_mode(TransferMode::UnreliableOrdered);
        other.put_packet("to three").await.unwrap();
        arrives(&mut three, TransferMode::UnreliableOrdered, "to three").await;

        handle.set_target(Target::Peer(id(9)));
        assert_eq!(other.target(), Target::Peer(id(9)));
        assert_eq!(other.put_packet("to nobody").await, Err(SendError::UnknownPeer(id(9))));
        // A packet that names its own target and mode is not concerned.
        talk(&one, &mut two, "by name").await;
        close_all(vec![one, two, three]).await;
    });
}

#[test]
fn a_mesh_without_a_server_is_connected_until_it_is_closed() {
    promise(async {
        for (number, server_compatibility, status) in [
            (1, false, ConnectionStatus::Connected),
            (2, false, ConnectionStatus::Connected),
            (1, true, ConnectionStatus::Connected),
            (2, true, ConnectionStatus::Connecting),
        ] {
            let mut mesh = builder().server_compatibility(server_compatibility).build(id(number));
            let handle = mesh.handle();
            assert_eq!((handle.status(), handle.id(), mesh.id()), (status, id(number), id(number)));
            assert_eq!(handle.is_server(), number == 1);
            in_time(handle.close()).await;
            assert_eq!((handle.status(), handle.id()), (ConnectionStatus::Disconnected, id(number)));
            ends(&mut mesh).await;
        }
    });
}

async fn description(signals: &mut SignalStream, kind: SdpKind) -> SessionDescription {
    match in_time(signals.next()).await.unwrap() {
        Signal::Description(description) => {
            assert_eq!(description.kind, kind);
            description
        }
        other => panic!("the description comes first, not {other:?}"),
    }
}
