//! ICE restarts: the way between two peers changes, and nothing else does.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::Duration;

use support::sim::Network;
use support::*;
use tokio::time::Instant;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{ConnectionError, ConnectionState, Mesh, MeshEvent, OutgoingPacket, PeerConnection};

async fn sim_pair(network: &Network) -> (Mesh, Mesh) {
    let hub = Hub::new();
    let mut meshes = Vec::new();
    for n in 1..=2 {
        let config = config().runtime(network.runtime(&n.to_string()));
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
            assert_eq!(connection.state(), ConnectionState::Connected);
        }
        close_all(vec![one, two]).await;
    });
}
