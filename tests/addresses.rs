//! Where a connection binds, and what it says of that to the remote.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use futures::StreamExt as _;
use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    ConnectionError, IceServer, JoinError, Mesh, MeshEvent, PeerConnection, PeerConnectionConfig,
    PeerFailure, Signal, UnreliableLifetime,
};

/// The address and the port of the first candidate that a connection of this configuration offers.
async fn announced(config: PeerConnectionConfig) -> (String, u16) {
    let mesh = Mesh::builder().build(id(1));
    let connection = PeerConnection::new(config).await.unwrap();
    mesh.handle().add_peer(connection.clone(), id(2), UnreliableLifetime::default()).await.unwrap();
    connection.create_offer().await.unwrap();
    let mut signals = connection.signals();
    loop {
        if let Some(Signal::Candidate(candidate)) = in_time(signals.next()).await {
            let mut fields = candidate.candidate.split(' ').skip(4).map(str::to_owned);
            let (address, port) = (fields.next().unwrap(), fields.next().unwrap());
            in_time(mesh.handle().close()).await;
            return (address, port.parse().unwrap());
        }
    }
}

#[test]
fn a_public_address_is_announced_instead_of_the_interfaces_own() {
    promise(async {
        let (address, _) = announced(config()).await;
        assert_eq!(address, "127.0.0.1");
        let (address, _) = announced(config().public_address("203.0.113.7".parse().unwrap())).await;
        assert_eq!(address, "203.0.113.7");
    });
}

#[test]
fn ports_are_taken_from_the_range_and_each_connection_has_its_own() {
    promise(async {
        let range = 42_100..=42_163;
        let mesh = Mesh::builder().build(id(1));
        let mut connections = Vec::new();
        for _ in 0..8 {
            connections.push(PeerConnection::new(config().port_range(range.clone())).await.unwrap());
        }
        let (_, port) = announced(config().port_range(range.clone())).await;
        assert!(range.contains(&port), "{port}");
        drop((mesh, connections));
    });
}

#[test]
fn relay_only_without_a_relay_is_refused_with_its_reason() {
    promise(async {
        let refused = PeerConnection::new(config().relay_only(true)).await;
        assert_eq!(refused, Err(ConnectionError::NoRelay));

        let joined = builder().connection(config().relay_only(true)).join(Hub::new().join()).await;
        assert_eq!(joined.unwrap_err(), JoinError::Connection(ConnectionError::NoRelay));
    });
}

/// Its relay does not answer, and no other address is told.
#[test]
fn relay_only_tells_no_address_of_this_machine() {
    promise(async {
        let limit = Duration::from_millis(700);
        let relay = IceServer::turn("turn:127.0.0.1:9", "user", "secret");
        let mut mesh = Mesh::builder().handshake_limit(limit).build(id(1));
        let connection = PeerConnection::new(config().relay_only(true).ice_server(relay)).await.unwrap();
        mesh.handle().add_peer(connection.clone(), id(2), UnreliableLifetime::default()).await.unwrap();
        connection.create_offer().await.unwrap();
        let signals: Vec<Signal> = in_time(connection.signals().collect()).await;
        assert!(matches!(&signals[..], [Signal::Description(_)]), "{signals:?}");
        assert!(matches!(next(&mut mesh).await, MeshEvent::PeerFailed(_, PeerFailure::TimedOut { .. })));
        in_time(mesh.handle().close()).await;
    });
}
