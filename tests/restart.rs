//! ICE restarts: the way between two peers changes, and nothing else does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _};
use support::*;
use tokio::time::Instant;
use webrtc_mesh::signaling::loopback::{Hub, LoopbackSignaling};
use webrtc_mesh::sim::{DatagramKind, Network};
use webrtc_mesh::{
    ConnectionError, ConnectionState, DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerConnection,
    PeerFailure, PeerId, SendError, Signal, Signaling, SignalingError, SignalingEvent, Target, TrySendError,
};

async fn connection_to(mesh: &Mesh, peer: u32) -> PeerConnection {
    mesh.handle().peer(id(peer)).await.unwrap().connection
}

#[test]
fn ice_is_restarted_under_way_and_nothing_is_lost() {
    simulated(1, |network| async move {
        let (one, mut two) = sim_pair(&network).await;
        let connection = connection_to(&one, 2).await;
        let theirs = connection_to(&two, 1).await;
        assert!(matches!(theirs.restart_ice().await, Err(ConnectionError::OutOfTurn(_))));
        let mut next_number = 0_u32;
        for round in 0..5_u32 {
            let since = Instant::now();
            connection.restart_ice().await.unwrap();
            while next_number < (round + 1) * 100 {
                let packet = OutgoingPacket::reliable(id(2), next_number.to_be_bytes().to_vec());
                one.handle().send(packet).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                next_number += 1;
            }
            for n in round * 100..(round + 1) * 100 {
                assert_eq!(packet(&mut two).await.payload[..], n.to_be_bytes());
            }
            println!("round {round}: {:?}", since.elapsed());
            assert_eq!(one.handle().stats(id(2)).await.unwrap().restarts, round + 1);
            assert_eq!(two.handle().stats(id(1)).await.unwrap().restarts, round + 1);
            assert_eq!(connection.state(), ConnectionState::Connected);
        }
        close_all(vec![one, two]).await;
    });
}

/// From now on nothing passes between these hosts by the sockets that they have used so far.
fn end_the_ways_of_now(network: &Network, hosts: [&'static str; 2], n: usize) {
    let mut old = HashSet::new();
    let mut new = HashSet::new();
    let since = Instant::now();
    network.drop_if(move |datagram| {
        let between =
            hosts.contains(&datagram.from_host) && datagram.to_host.is_none_or(|host| hosts.contains(&host));
        if !between {
            return false;
        }
        // Keepalives show all of the old ones in time, and the new ones come later.
        for socket in [datagram.from, datagram.to] {
            if old.len() < n && since.elapsed() < Duration::from_millis(1500) {
                old.insert(socket);
            } else if !old.contains(&socket) {
                new.insert(socket);
            }
        }
        old.contains(&datagram.from) || old.contains(&datagram.to)
    });
}

#[test]
fn a_way_that_ends_is_replaced_and_no_peer_is_disconnected() {
    simulated(2, |network| async move {
        let (mut one, mut two) = sim_pair(&network).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let since = Instant::now();
        end_the_ways_of_now(&network, ["1", "2"], 2);
        for n in 0..100_u8 {
            one.handle().try_send(OutgoingPacket::reliable(id(2), vec![n])).unwrap();
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerUnstable(id(2)));
        println!("unstable after {:?}", since.elapsed());
        assert!(since.elapsed() <= Duration::from_secs(4));
        assert_eq!(next(&mut one).await, MeshEvent::PeerRecovered(id(2)));
        println!("recovered after {:?}", since.elapsed());
        assert!(since.elapsed() < Duration::from_secs(6));
        let mut received = 0;
        while received < 100 {
            match next(&mut two).await {
                MeshEvent::Packet(packet) => {
                    assert_eq!(packet.payload[..], [received]);
                    received += 1;
                }
                MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
                other => panic!("{other:?}"),
            }
        }
        println!("all there after {:?}", since.elapsed());
        close_all(vec![one, two]).await;
    });
}

#[test]
fn without_signalling_a_common_member_carries_what_a_restart_needs() {
    simulated(3, |network| async move {
        let hub = Hub::new();
        let mut meshes = sim_mesh(&network, &hub, 3).await;
        hub.shut_down();
        for mesh in &mut meshes {
            assert_eq!(next(mesh).await, MeshEvent::SignalingLost);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let since = Instant::now();
        end_the_ways_of_now(&network, ["1", "2"], 2);
        let [one, two, three] = &mut meshes[..] else { unreachable!() };
        for (mesh, other) in [(one, 2), (two, 1)] {
            assert_eq!(next(mesh).await, MeshEvent::PeerUnstable(id(other)));
            assert_eq!(next(mesh).await, MeshEvent::PeerRecovered(id(other)));
            println!("recovered after {:?}", since.elapsed());
            assert!(since.elapsed() < Duration::from_secs(6));
        }
        is_silent(three).await;
        close_all(meshes).await;
    });
}

#[test]
fn a_remote_that_hears_nothing_of_us_is_silent_too() {
    simulated(4, |network| async move {
        let (mut one, mut two) = sim_pair(&network).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        // From 1 to 2 nothing passes, for 8 s; 1 hears 2's questions all the while.
        let since = Instant::now();
        network
            .drop_if(move |datagram| datagram.from_host == "1" && since.elapsed() < Duration::from_secs(6));
        for (mesh, other) in [(&mut one, 2), (&mut two, 1)] {
            assert_eq!(next(mesh).await, MeshEvent::PeerUnstable(id(other)));
            println!("{}: unstable after {:?}", mesh.id(), since.elapsed());
            assert!(since.elapsed() <= Duration::from_millis(7500));
        }
        for (mesh, other) in [(&mut one, 2), (&mut two, 1)] {
            assert_eq!(next(mesh).await, MeshEvent::PeerRecovered(id(other)));
            println!("{}: recovered after {:?}", mesh.id(), since.elapsed());
            assert!(since.elapsed() < Duration::from_secs(11));
        }
        talk(&one, &mut two, "still the same").await;
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_long_cut_ends_one_life_and_another_follows_it() {
    for seed in 0..10 {
        simulated(seed, |network| async move {
            let (mut one, mut two) = sim_pair(&network).await;
            network.host("2").set_silent(true);
            tokio::time::sleep(Duration::from_secs(40)).await;
            network.host("2").set_silent(false);
            let healed = Instant::now();
            for (mesh, other) in [(&mut one, 2), (&mut two, 1)] {
                assert_eq!(next(mesh).await, MeshEvent::PeerUnstable(id(other)));
                assert_eq!(next(mesh).await, left(other, DisconnectReason::ConnectionLost));
                assert_eq!(next(mesh).await, MeshEvent::PeerConnected(id(other)));
            }
            println!("{seed}: connected anew {:?} after the cut", healed.elapsed());
            assert!(healed.elapsed() < Duration::from_secs(15));
            talk(&one, &mut two, "a new life").await;
            close_all(vec![one, two]).await;
        });
    }
}

/// SCTP gives up after six losses in a row, and ICE notices nothing of it.
#[test]
fn a_link_whose_sctp_has_given_up_is_made_anew() {
    simulated(11, |network| async move {
        network.links().latency(Duration::from_millis(20));
        let (mut one, mut two) = sim_pair(&network).await;
        // Until nothing of the opening waits for its acknowledgement.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let since = Instant::now();
        network.drop_if(move |datagram| {
            datagram.kind() == DatagramKind::Dtls && since.elapsed() < Duration::from_secs(40)
        });
        one.handle().try_send(OutgoingPacket::reliable(Target::All, vec![1])).unwrap();
        tokio::time::sleep(Duration::from_secs(40)).await;
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::Unacknowledged));
        assert!(since.elapsed().abs_diff(Duration::from_secs(45)) < Duration::from_secs(2));
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert!(matches!(next(&mut two).await, MeshEvent::PeerDisconnected(..)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        assert!(since.elapsed() < Duration::from_secs(50), "{:?}", since.elapsed());
        close_all(vec![one, two]).await;
    });
}

/// With 20 s without a single datagram of data, SCTP still has a try left.
#[test]
fn data_that_is_held_up_for_20_s_arrives_and_nobody_is_disconnected() {
    simulated(11, |network| async move {
        network.links().latency(Duration::from_millis(20));
        let (one, mut two) = sim_pair(&network).await;
        let since = Instant::now();
        network.drop_if(move |datagram| {
            datagram.kind() == DatagramKind::Dtls && since.elapsed() < Duration::from_secs(20)
        });
        one.handle().try_send(OutgoingPacket::reliable(Target::All, vec![1])).unwrap();
        assert_eq!(packet(&mut two).await.payload[..], [1]);
        assert!(since.elapsed() < Duration::from_secs(35), "{:?}", since.elapsed());
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_peer_that_could_not_be_connected_is_when_it_can_be() {
    simulated(5, |network| async move {
        network.host("2").set_silent(true);
        let hub = Hub::new();
        let mut meshes = Vec::new();
        for n in 1..=2 {
            let config = network.peer(&n.to_string());
            meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(n))).await.unwrap());
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        network.host("2").set_silent(false);
        let healed = Instant::now();
        for mesh in &mut meshes {
            let mut failures = 0;
            loop {
                match next(mesh).await {
                    MeshEvent::PeerFailed(..) => failures += 1,
                    MeshEvent::PeerConnected(_) => break,
                    other => panic!("{other:?}"),
                }
            }
            println!("{}: {failures} failures, connected {:?} after the cut", mesh.id(), healed.elapsed());
            assert!((2..=4).contains(&failures), "one for each handshake limit");
        }
        assert!(healed.elapsed() < Duration::from_secs(15), "{:?}", healed.elapsed());
        close_all(meshes).await;
    });
}

#[test]
fn who_was_removed_or_has_left_does_not_come_back_by_itself() {
    simulated(6, |network| async move {
        let (mut one, mut two) = sim_pair(&network).await;
        in_time(one.handle().remove_peer(id(2))).await.unwrap();
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::Removed));
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        tokio::time::sleep(Duration::from_secs(60)).await;
        is_silent(&mut one).await;
        is_silent(&mut two).await;
        close_all(vec![one, two]).await;
    });
}

/// Signalling that hides of both sides what they are, and counts what they say.
struct Hiding {
    inner: LoopbackSignaling,
    said: Arc<AtomicUsize>,
}

#[async_trait]
impl Signaling for Hiding {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        self.inner.join().await
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        self.inner.next().await
    }

    async fn send(&mut self, to: PeerId, mut signal: Signal) -> Result<(), SignalingError> {
        self.said.fetch_add(1, Ordering::Relaxed);
        if let Signal::Description(description) = &mut signal {
            let lines = description.sdp.lines().filter(|line| !line.starts_with("a=x-webrtc-mesh:"));
            description.sdp = lines.map(|line| format!("{line}\r\n")).collect();
        }
        self.inner.send(to, signal).await
    }
}

#[test]
fn a_stranger_that_falls_silent_is_waited_for_and_asked_nothing() {
    simulated(7, |network| async move {
        let (hub, said) = (Hub::new(), Arc::new(AtomicUsize::new(0)));
        let mut meshes = Vec::new();
        for n in 1..=3 {
            let config = network.peer(&n.to_string());
            let signaling = Hiding { inner: hub.join_as(id(n)), said: said.clone() };
            meshes.push(Mesh::builder().connection(config).join(signaling).await.unwrap());
        }
        for mesh in &mut meshes {
            for _ in 0..2 {
                assert!(matches!(next(mesh).await, MeshEvent::PeerConnected(_)));
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = said.load(Ordering::Relaxed);
        network.between("1", "2").cut();
        assert_eq!(next(&mut meshes[0]).await, MeshEvent::PeerUnstable(id(2)));
        assert_eq!(next(&mut meshes[1]).await, MeshEvent::PeerUnstable(id(1)));
        tokio::time::sleep(Duration::from_secs(5)).await;
        network.between("1", "2").heal();
        assert_eq!(next(&mut meshes[0]).await, MeshEvent::PeerRecovered(id(2)));
        assert_eq!(next(&mut meshes[1]).await, MeshEvent::PeerRecovered(id(1)));
        assert_eq!(said.load(Ordering::Relaxed), before, "nothing was signalled");
        is_silent(&mut meshes[2]).await;
        close_all(meshes).await;
    });
}

#[test]
fn a_peer_changes_its_address_and_stays() {
    for seed in 0..20 {
        simulated(seed, |network| async move {
            let mut meshes = sim_mesh(&network, &Hub::new(), 4).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            network.host("2").change_address();
            // Of each link, one side at the least finds out; the other may be asked for a restart before.
            tokio::time::sleep(Duration::from_secs(8)).await;
            let mut wavering = BTreeSet::new();
            let mut seen = BTreeSet::new();
            for mesh in &mut meshes {
                let me = mesh.id().get();
                while let Some(event) = mesh.next().now_or_never().flatten() {
                    match event {
                        MeshEvent::PeerUnstable(peer) => assert!(wavering.insert((me, peer.get()))),
                        MeshEvent::PeerRecovered(peer) => {
                            assert!(wavering.remove(&(me, peer.get())));
                            seen.insert(if me == 2 { peer.get() } else { me });
                        }
                        other => panic!("{me}: {other:?}"),
                    }
                }
            }
            assert_eq!((wavering, seen), (BTreeSet::new(), BTreeSet::from([1, 3, 4])));
            let (one, rest) = meshes.split_at_mut(1);
            talk(&one[0], &mut rest[0], "at your new address").await;
            close_all(meshes).await;
        });
    }
}

#[test]
fn who_is_not_welcome_is_not_connected_and_the_reason_is_told() {
    simulated(8, |network| async move {
        let hub = Hub::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let builder = Mesh::builder().connection(network.peer("1")).admission(move |peer| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if peer == id(3) { Err("the table is full") } else { Ok(()) }
            }
        });
        let mut one = builder.join(hub.join_as(id(1))).await.unwrap();
        let mut others = Vec::new();
        for n in 2..=3 {
            let config = network.peer(&n.to_string());
            others.push(Mesh::builder().connection(config).join(hub.join_as(id(n))).await.unwrap());
        }
        let mut events = [next(&mut one).await, next(&mut one).await];
        events.sort_by_key(|event| matches!(event, MeshEvent::PeerFailed(..)));
        assert_eq!(events[0], MeshEvent::PeerConnected(id(2)));
        let MeshEvent::PeerFailed(peer, failure @ PeerFailure::Refused(_)) = &events[1] else {
            panic!("{:?}", events[1]);
        };
        assert_eq!((*peer, &*failure.to_string()), (id(3), "it was not let in: the table is full"));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        tokio::time::sleep(Duration::from_secs(100)).await;
        is_silent(&mut one).await;
        close_all(others.into_iter().chain([one]).collect()).await;
    });
}

/// Signalling takes no time here; the direct way is gone for good, and a relay is there.
#[test]
fn a_direct_way_that_ends_is_replaced_by_a_relay_of_either_side() {
    for both in [true, false] {
        simulated(9, |network| async move {
            let server = network.host("relay").turn_server("user", "secret").unwrap();
            let hub = Hub::new();
            let mut meshes = Vec::new();
            for n in 1..=2 {
                let mut config = network.peer(&n.to_string());
                if both || n == 1 {
                    config = config.ice_server(server.ice_server());
                }
                meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(n))).await.unwrap());
            }
            for mesh in &mut meshes {
                assert!(matches!(next(mesh).await, MeshEvent::PeerConnected(_)));
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
            let since = Instant::now();
            network.link("1", "2").cut();
            network.link("2", "1").cut();
            for (mesh, other) in meshes.iter_mut().zip([2, 1]) {
                assert_eq!(next(mesh).await, MeshEvent::PeerUnstable(id(other)));
                assert_eq!(next(mesh).await, MeshEvent::PeerRecovered(id(other)));
                println!("{both} {}: recovered over the relay after {:?}", mesh.id(), since.elapsed());
            }
            let stats = meshes[0].handle().stats(id(2)).await.unwrap();
            assert!(stats.is_relayed() == Some(true) && stats.restarts > 0, "{stats:?}");
            tokio::time::sleep(Duration::from_secs(60)).await;
            let (one, two) = meshes.split_at_mut(1);
            talk(&one[0], &mut two[0], "by a detour").await;
            close_all(meshes).await;
        });
    }
}

#[test]
fn each_life_is_admitted_anew_whatever_else_was_asked_before() {
    simulated(10, |network| async move {
        let hub = Hub::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let no_servers = || async { Ok::<_, String>(Vec::new()) };
        let config = network.peer("1").ice_servers_from(no_servers);
        let builder = Mesh::builder().connection(config).admission(move |_| {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Ok(()) } else { Err("once is enough") } }
        });
        let mut one = builder.join(hub.join_as(id(1))).await.unwrap();
        let first = Mesh::builder().connection(network.peer("2")).join(hub.join_as(id(2))).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        // It dies without a word, and comes back under its id.
        network.host("2").set_silent(true);
        drop(first);
        // The hub has its id free in a moment.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let again = Mesh::builder().connection(network.peer("3")).join(hub.join_as(id(2))).await.unwrap();
        loop {
            match next(&mut one).await {
                MeshEvent::PeerUnstable(_) | MeshEvent::PeerDisconnected(..) => {}
                MeshEvent::PeerFailed(_, PeerFailure::Refused(reason)) => {
                    break assert_eq!(reason, "once is enough");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        close_all(vec![again, one]).await;
    });
}

#[test]
fn a_lost_link_is_made_anew_although_no_connection_could_be_made_for_a_while() {
    simulated(11, |network| async move {
        let hub = Hub::new();
        let down = Arc::new(AtomicUsize::new(0));
        let mut meshes = Vec::new();
        for n in 1..=2 {
            let down = down.clone();
            let servers = move || {
                let down = down.load(Ordering::Relaxed) > 0;
                async move { if down { Err("no network") } else { Ok(Vec::new()) } }
            };
            let config = network.peer(&n.to_string()).ice_servers_from(servers);
            meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(n))).await.unwrap());
        }
        for mesh in &mut meshes {
            assert!(matches!(next(mesh).await, MeshEvent::PeerConnected(_)));
        }
        down.store(1, Ordering::Relaxed);
        network.links().cut();
        tokio::time::sleep(Duration::from_secs(40)).await;
        down.store(0, Ordering::Relaxed);
        network.links().heal();
        let healed = Instant::now();
        for mesh in &mut meshes {
            while !matches!(next(mesh).await, MeshEvent::PeerConnected(_)) {}
        }
        println!("connected anew {:?} after", healed.elapsed());
        assert!(healed.elapsed() < Duration::from_secs(15), "{:?}", healed.elapsed());
        close_all(meshes).await;
    });
}

#[test]
fn who_has_said_goodbye_is_gone_when_it_is_told_and_may_come_back_at_once() {
    promise(async {
        for _ in 0..20 {
            let (mut one, two) = pair_by_hand().await;
            let closing = tokio::spawn(async move { two.handle().close().await });
            assert_eq!(next(&mut one).await, left(2, DisconnectReason::RemoteClose));
            assert!(!one.handle().has_peer(id(2)).await);
            assert_eq!(one.handle().peers().await.len(), 0);
            let sent = one.handle().try_send(OutgoingPacket::reliable(id(2), "too late"));
            assert!(matches!(sent, Err(TrySendError::Refused(SendError::UnknownPeer(_)))), "{sent:?}");
            let anew = connection().await;
            add(&one, &anew, 2).await.unwrap();
            closing.await.unwrap();
            in_time(one.handle().close()).await;
        }
    });
}
