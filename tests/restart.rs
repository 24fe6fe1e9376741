//! ICE restarts: the way between two peers changes, and nothing else does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use support::*;
use tokio::time::Instant;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::Network;
use webrtc_mesh::{
    ConnectionError, ConnectionState, DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerConnection,
};

async fn sim_pair(network: &Network) -> (Mesh, Mesh) {
    let hub = Hub::new();
    let mut meshes = Vec::new();
    for n in 1..=2 {
        let config = network.peer(&n.to_string());
        meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(n))).await.unwrap());
    }
    let (mut two, mut one) = (meshes.pop().unwrap(), meshes.pop().unwrap());
    assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
    assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
    (one, two)
}

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

async fn sim_mesh(network: &Network, hub: &Hub, n: u32) -> Vec<Mesh> {
    let mut meshes = Vec::new();
    for number in 1..=n {
        let config = network.peer(&number.to_string());
        meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(number))).await.unwrap());
    }
    for mesh in &mut meshes {
        for _ in 1..n {
            assert!(matches!(next(mesh).await, MeshEvent::PeerConnected(_)));
        }
    }
    meshes
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
