//! Waiting for a peer, while nobody reads the events.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use futures::FutureExt as _;
use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{DisconnectReason, MeshEvent, PeerFailure, Stage, WaitError};

#[test]
fn whoever_waits_for_a_peer_is_told_when_it_is_connected_though_nobody_reads() {
    promise(async {
        let hub = Hub::new();
        let one = builder().join(hub.join()).await.unwrap();
        let handle = one.handle();
        // It is not even there yet.
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.wait_connected(id(2)).await })
            })
            .collect();
        let mut given_up = Box::pin(handle.wait_connected(id(2)));
        assert!((&mut given_up).now_or_never().is_none());
        drop(given_up);
        let mut two = builder().join(hub.join()).await.unwrap();
        for waiting in waiting {
            assert_eq!(in_time(waiting).await.unwrap(), Ok(()));
        }
        handle.try_send(of(webrtc_mesh::TransferMode::Reliable, 2, "at once")).unwrap();
        assert_eq!(handle.wait_connected(id(2)).now_or_never(), Some(Ok(())), "it is");
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        assert_eq!(&packet(&mut two).await.payload[..], b"at once");
        close_all(vec![one, two]).await;
    });
}

#[test]
fn whoever_waits_for_a_peer_that_is_not_connected_is_told_why() {
    promise(async {
        let mesh = builder().handshake_limit(Duration::from_millis(100)).build(id(1));
        let handle = mesh.handle();
        assert_eq!(handle.wait_connected(id(1)).await, Err(WaitError::OwnId));

        let waiting = tokio::spawn({
            let handle = handle.clone();
            async move { handle.wait_connected(id(2)).await }
        });
        add(&mesh, &connection().await, 2).await.unwrap();
        let Err(WaitError::Failed(failure)) = in_time(waiting).await.unwrap() else { panic!("it fails") };
        assert!(matches!(failure, PeerFailure::TimedOut { stage: Stage::Signaling, .. }), "{failure}");
        assert_eq!(WaitError::Failed(failure.clone()).to_string(), failure.to_string());
        close_all(vec![mesh]).await;
    });
}

#[test]
fn a_peer_that_is_removed_meanwhile_and_a_mesh_that_is_closed_or_dropped_end_the_wait() {
    promise(async {
        let mesh = builder().build(id(1));
        let handle = mesh.handle();
        let begun = |peer| {
            let mut waiting = Box::pin(handle.wait_connected(id(peer)));
            assert!((&mut waiting).now_or_never().is_none());
            waiting
        };
        add(&mesh, &connection().await, 2).await.unwrap();
        let waiting = begun(2);
        in_time(handle.remove_peer(id(2))).await.unwrap();
        assert_eq!(in_time(waiting).await, Err(WaitError::Removed));

        add(&mesh, &connection().await, 2).await.unwrap();
        let waiting = (begun(2), begun(3));
        in_time(handle.close()).await;
        let closed = Err(WaitError::MeshClosed);
        assert_eq!((in_time(waiting.0).await, in_time(waiting.1).await), (closed.clone(), closed.clone()));
        assert_eq!(handle.wait_connected(id(2)).await, closed);

        let mesh = builder().build(id(1));
        let handle = mesh.handle();
        let mut waiting = Box::pin(handle.wait_connected(id(2)));
        assert!((&mut waiting).now_or_never().is_none());
        drop(mesh);
        assert_eq!(in_time(waiting).await, closed);
    });
}

/// A client of a server-compatible mesh announces nobody before the server.
#[test]
fn a_peer_that_is_suppressed_is_not_connected_until_it_is_announced() {
    promise(async {
        let (mut client, other) = (builder().server_compatibility(true).build(id(2)), builder().build(id(3)));
        link(&client, &other).await;
        let handle = client.handle();
        let mut waiting = Box::pin(handle.wait_connected(id(3)));
        until(async || handle.peer(id(3)).await.is_some_and(|peer| peer.connected)).await;
        assert!((&mut waiting).now_or_never().is_none(), "it is open, and not announced");
        in_time(other.handle().close()).await;
        assert_eq!(in_time(waiting).await, Err(WaitError::Disconnected(DisconnectReason::RemoteClose)));
        is_silent(&mut client).await;
        close_all(vec![client]).await;
    });
}
