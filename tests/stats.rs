//! What a link has carried, and how it is.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use futures::StreamExt as _;
use support::turn::Coturn;
use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{CandidateKind, Mesh, MeshEvent, OutgoingPacket, PeerStats, Target, TransferMode};

async fn stats(mesh: &Mesh, peer: u32) -> PeerStats {
    in_time(mesh.handle().stats(id(peer))).await.expect("it is there")
}

#[test]
fn every_packet_is_counted_once_on_each_side_by_mode() {
    promise(async {
        let (one, mut two) = pair().await;
        for (mode, packets, bytes) in [
            (TransferMode::Reliable, 7, 1000),
            (TransferMode::UnreliableOrdered, 5, 100),
            (TransferMode::Unreliable, 3, 0),
        ] {
            for _ in 0..packets {
                one.handle().send(of(mode, 2, vec![1; bytes])).await.unwrap();
                assert_eq!(packet(&mut two).await.payload.len(), bytes);
            }
            let (here, there) = (stats(&one, 2).await, stats(&two, 1).await);
            let (sent, received) = (here.mode(mode).sent, there.mode(mode).received);
            assert_eq!((sent.packets, sent.bytes), (packets, packets * bytes as u64), "{mode:?}");
            assert_eq!(sent, received);
            assert_eq!((here.mode(mode).received.packets, there.mode(mode).sent.packets), (0, 0));
        }
        let here = stats(&one, 2).await;
        let total = here.total();
        assert_eq!((total.sent.packets, total.sent.bytes), (15, 7500));
        assert_eq!((total.queued.packets, total.shed_sending, total.shed_receiving), (0, 0, 0));
        assert!(total.sctp_bytes.is_some() && here.connected.is_some() && here.restarts == 0);
        until(async || stats(&one, 2).await.round_trip_time.is_some()).await;
        let pair = here.selected.as_ref().unwrap();
        assert!(pair.nominated && here.is_relayed() == Some(false));
        assert_eq!(one.handle().stats(id(9)).await, None);
        close_all(vec![one, two]).await;
    });
}

#[test]
fn what_is_shed_is_counted_as_lagged_counts_it() {
    promise(async {
        let hub = Hub::new();
        let small = || builder().unreliable_queue_bytes(2_000);
        let mut one = small().join(hub.join()).await.unwrap();
        let mut two = small().join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        let burst = async |packets: u32| {
            for _ in 0..packets {
                one.handle().try_send(of(TransferMode::Unreliable, 2, vec![0; 200])).unwrap();
            }
        };
        until(async || {
            burst(100).await;
            stats(&one, 2).await.unreliable.shed_sending > 0
        })
        .await;
        // The reader of the other side sleeps; what comes is shed there, until this side is told to hold it back.
        until(async || {
            burst(1).await;
            stats(&two, 1).await.unreliable.shed_receiving > 0
        })
        .await;
        let shed_sending = stats(&one, 2).await.unreliable.shed_sending;
        let MeshEvent::Lagged { dropped, mode: TransferMode::Unreliable, .. } = next(&mut one).await else {
            panic!("some were shed")
        };
        assert_eq!(dropped, shed_sending);
        let received = stats(&two, 1).await.unreliable;
        let mut lagged = 0;
        let mut read = 0;
        while read + lagged < received.received.packets {
            match next(&mut two).await {
                MeshEvent::Lagged { dropped, .. } => lagged += dropped,
                MeshEvent::Packet(_) => read += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(lagged >= received.shed_receiving, "{lagged} of {received:?}");
        close_all(vec![one, two]).await;
    });
}

/// What a reader does not take is not sent to it for nothing: one that says nothing itself says this much, and at once.
#[test]
fn who_sends_to_a_slow_reader_is_told_within_a_few_round_trips() {
    simulated(1, |network| async move {
        network.links().latency(Duration::from_millis(10));
        let hub = Hub::new();
        let mut meshes = Vec::new();
        for n in 1..=2 {
            let builder =
                Mesh::builder().connection(network.peer(&n.to_string())).unreliable_queue_bytes(20_000);
            meshes.push(builder.join(hub.join_as(id(n))).await.unwrap());
        }
        for mesh in &mut meshes {
            assert!(matches!(mesh.next().await, Some(MeshEvent::PeerConnected(_))));
        }
        let [one, two] = &meshes[..] else { unreachable!() };
        let mut sheds = None;
        // A thousand a second, of which nobody reads any.
        let told = loop {
            one.handle().try_send(of(TransferMode::Unreliable, 2, vec![0; 200])).unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = tokio::time::Instant::now();
            if stats(two, 1).await.unreliable.shed_receiving > 0 {
                sheds.get_or_insert(now);
            }
            if stats(one, 2).await.unreliable.shed_sending > 0 {
                break now - sheds.expect("it has room for what is not held back");
            }
        };
        // What is held back fills a queue of 20,000 bytes first.
        assert!(told < Duration::from_millis(200), "{told:?}");
    });
}

#[test]
fn what_a_dead_link_holds_back_is_seen_and_so_is_since_when_it_is_connected() {
    simulated(1, |network| async move {
        let hub = Hub::new();
        let mut meshes = Vec::new();
        for n in 1..=2 {
            let config = network.peer(&n.to_string());
            meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(n))).await.unwrap());
        }
        for mesh in &mut meshes {
            assert!(matches!(mesh.next().await, Some(MeshEvent::PeerConnected(_))));
        }
        tokio::time::sleep(Duration::from_secs(1800)).await;
        network.links().cut();
        let sent = 900 * 1000;
        for _ in 0..900 {
            let packet = OutgoingPacket::reliable(Target::All, vec![0; 1000]);
            meshes[0].handle().try_send(packet).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stats = stats(&meshes[0], 2).await;
        let half_hours = stats.connected.unwrap().as_secs_f64() / 1800.0;
        assert!((1.0..1.001).contains(&half_hours), "{:?}", stats.connected);
        let reliable = stats.reliable;
        assert_eq!(reliable.sent.bytes + reliable.queued.bytes, sent);
        assert!(reliable.queued.packets > 100, "{reliable:?}");
        assert!(reliable.sctp_bytes.unwrap() > 0, "{reliable:?}");
        network.links().heal();
        close_all(meshes).await;
    });
}

#[test]
fn a_link_through_a_relay_is_counted_as_relayed() {
    promise(async {
        let Some(coturn) = Coturn::start(&[]).await else { return };
        // Only one side needs the relay.
        let hub = Hub::new();
        let relayed = config().ice_server(coturn.turn()).relay_only(true);
        let mut one = Mesh::builder().connection(relayed).join(hub.join()).await.unwrap();
        let mut two = builder().join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        let (here, there) = (stats(&one, 2).await, stats(&two, 1).await);
        assert_eq!((here.is_relayed(), there.is_relayed()), (Some(true), Some(true)));
        assert_eq!(here.selected.unwrap().local.kind, CandidateKind::Relay);
        assert_eq!(there.selected.unwrap().remote.kind, CandidateKind::Relay);
        close_all(vec![one, two]).await;
    });
}
