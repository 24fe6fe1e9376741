//! The end of a mesh, at any moment and in any way: it ends, it says so, and it leaves nothing behind.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    ConnectionStatus, DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerConnection, SendError, Target,
    UnreliableLifetime,
};

#[test]
fn fifty_closes_at_once_all_see_the_end_and_the_stream_ends_with_none() {
    promise(async {
        let (mut one, two) = pair().await;
        let closes = (0..50).map(|_| {
            let handle = one.handle();
            tokio::spawn(async move { handle.close().await })
        });
        for close in closes.collect::<Vec<_>>() {
            in_time(close).await.unwrap();
        }
        assert_eq!(one.handle().status(), ConnectionStatus::Disconnected);
        let refused = one.handle().send(OutgoingPacket::reliable(Target::All, "x")).await;
        assert_eq!(refused, Err(SendError::MeshClosed));
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::LocalClose));
        assert_eq!((one.next().await, one.next().await), (None, None));
        in_time(one.handle().close()).await;
        close_all(vec![two]).await;
    });
}

#[test]
fn a_mesh_whose_events_nobody_reads_closes_all_the_same() {
    promise(async {
        let meshes = full_mesh(4).await;
        for mesh in &meshes {
            for n in 0..500_u32 {
                mesh.handle()
                    .try_send(OutgoingPacket::reliable(Target::All, n.to_be_bytes().to_vec()))
                    .unwrap();
            }
        }
        let since = Instant::now();
        in_time(futures::future::join_all(meshes.iter().map(|mesh| {
            let handle = mesh.handle();
            async move { handle.close().await }
        })))
        .await;
        assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    });
}

/// From before the first signal to long after the connection is up.
#[test]
fn a_mesh_closes_at_every_moment_of_a_connections_life() {
    promise(async {
        for millis in (0..40).chain([60, 100, 200]) {
            let hub = Hub::new();
            let one = builder().join(hub.join()).await.unwrap();
            let two = builder().join(hub.join()).await.unwrap();
            // Not a hope: every moment is as good as another, and all of them are tried.
            tokio::time::sleep(Duration::from_millis(millis)).await;
            let since = Instant::now();
            in_time(one.handle().close()).await;
            in_time(two.handle().close()).await;
            assert!(since.elapsed() < Duration::from_secs(2), "after {millis} ms: {:?}", since.elapsed());
        }
    });
}

#[test]
fn a_mesh_with_a_peer_of_each_stage_closes() {
    promise(async {
        let mesh = Mesh::builder().build(id(1));
        let handle = mesh.handle();
        for n in 2..6 {
            let connection = PeerConnection::new(config()).await.unwrap();
            handle.add_peer(connection.clone(), id(n), UnreliableLifetime::default()).await.unwrap();
            if n > 2 {
                connection.create_offer().await.unwrap();
            }
        }
        let since = Instant::now();
        in_time(handle.close()).await;
        assert!(since.elapsed() < Duration::from_secs(1));
        let events: Vec<MeshEvent> = mesh.collect().await;
        assert_eq!(events, [], "nobody was connected, so nobody is reported");
    });
}

#[test]
fn a_dropped_mesh_stops_at_once_and_its_remotes_notice() {
    promise(async {
        let (one, mut two) = pair().await;
        let handle = one.handle();
        let since = Instant::now();
        drop(one);
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        assert!(since.elapsed() < Duration::from_secs(1));
        in_time(handle.close()).await;
        assert_eq!(handle.try_send(OutgoingPacket::reliable(id(2), "x")), Err(SendError::MeshClosed.into()));
        assert_eq!(handle.peers().await.len(), 0);
        close_all(vec![two]).await;
    });
}

#[test]
fn a_mesh_dropped_at_every_moment_leaves_nothing() {
    promise(async {
        for millis in (0..40).chain([60, 100]) {
            let hub = Hub::new();
            let one = builder().join(hub.join()).await.unwrap();
            let two = builder().join(hub.join()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            drop((one, two));
        }
    });
}

#[test]
fn a_sender_that_waits_is_told_when_the_mesh_is_dropped_or_closed() {
    promise(async {
        for drops in [true, false] {
            let (one, two) = pair().await;
            let handle = one.handle();
            let waiting = tokio::spawn(async move {
                loop {
                    if let Err(error) = handle.send(OutgoingPacket::reliable(id(2), vec![0; 60_000])).await {
                        return error;
                    }
                }
            });
            // Until the queue is full: what it holds does not change any more.
            let mut held = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let now = one.handle().peer(id(2)).await.unwrap().channels[0].queued_bytes;
                if now > 0 && now == held {
                    break;
                }
                held = now;
            }
            if drops {
                drop(one);
            } else {
                let handle = one.handle();
                tokio::spawn(async move { handle.close().await });
                assert_eq!(in_time(waiting).await.unwrap(), SendError::MeshClosed);
                in_time(one.handle().close()).await;
                drop(two);
                continue;
            }
            let error = in_time(waiting).await.unwrap();
            assert!(matches!(error, SendError::MeshClosed | SendError::NotConnected(_)), "{error}");
            drop(two);
        }
    });
}

/// What was accepted and not confirmed within the farewell time is said.
#[test]
fn a_goodbye_to_a_reader_that_sleeps_is_unconfirmed() {
    promise(async {
        let farewell = Duration::from_millis(500);
        let mut meshes = full_mesh_of(2, |_| builder().farewell(farewell).receive_window_bytes(1)).await;
        let sleeper = meshes.pop().unwrap();
        let mut sender = meshes.pop().unwrap();
        let mut accepted = 0;
        while sender.handle().try_send(OutgoingPacket::reliable(id(2), vec![0; 60_000])).is_ok() {
            accepted += 1;
        }
        let since = Instant::now();
        in_time(sender.handle().close()).await;
        assert!(since.elapsed() >= farewell && since.elapsed() < farewell * 3, "{:?}", since.elapsed());
        match next(&mut sender).await {
            MeshEvent::PeerDisconnected(_, DisconnectReason::Unconfirmed { packets }) => {
                assert!(packets > 0 && packets <= accepted, "{packets} of {accepted}");
            }
            other => panic!("{other:?}"),
        }
        drop(sleeper);
    });
}

#[test]
fn the_end_of_the_runtime_is_the_end_of_the_mesh() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut one, two) = runtime.block_on(pair());
    let handle = one.handle();
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(handle.try_send(OutgoingPacket::reliable(id(2), "x")), Err(SendError::MeshClosed.into()));
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        in_time(handle.close()).await;
        let last: Vec<MeshEvent> = in_time(one.by_ref().collect()).await;
        assert_eq!(last, [left(2, DisconnectReason::Aborted)]);
        drop((one, two));
    });
}
