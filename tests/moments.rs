//! The moments at which packets get lost elsewhere: the first and the last.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{DisconnectReason, MeshEvent, OutgoingPacket, Target, TransferMode};

/// The library below loses what the DTLS server sends the moment it is connected.
#[test]
fn packets_sent_in_the_very_moment_of_peer_connected_all_arrive_over_200_links() {
    promise(async {
        for round in 0..200 {
            let hub = Hub::new();
            let mut one = builder().join(hub.join()).await.unwrap();
            let mut two = builder().join(hub.join()).await.unwrap();
            let talk = async |mesh: &mut webrtc_mesh::Mesh, other: u32| {
                let mut received = Vec::new();
                let mut connected = false;
                while received.len() < 15 || !connected {
                    match next(mesh).await {
                        MeshEvent::PeerConnected(peer) => {
                            connected = true;
                            for n in 0..5_u8 {
                                for mode in TransferMode::ALL {
                                    let packet = OutgoingPacket::new(peer, mode, vec![n]);
                                    mesh.handle().try_send(packet).unwrap();
                                }
                            }
                        }
                        MeshEvent::Packet(packet) => {
                            assert!(connected, "a packet before PeerConnected");
                            received.push((packet.mode, packet.payload[0]));
                        }
                        other => panic!("round {round}: {other:?}"),
                    }
                }
                let of = |mode| {
                    received.iter().filter(move |(m, _)| *m == mode).map(|(_, n)| *n).collect::<Vec<_>>()
                };
                assert_eq!(of(TransferMode::Reliable), [0, 1, 2, 3, 4], "round {round}, from {other}");
                assert_eq!(
                    of(TransferMode::UnreliableOrdered),
                    [0, 1, 2, 3, 4],
                    "round {round}, from {other}"
                );
            };
            tokio::join!(talk(&mut one, 2), talk(&mut two, 1));
            close_all(vec![one, two]).await;
        }
    });
}

#[test]
fn what_was_accepted_arrives_before_the_goodbye_100_times() {
    promise(async {
        for round in 0..100 {
            let (mut sender, mut receiver) = pair().await;
            let handle = sender.handle();
            let sending = tokio::spawn(async move {
                for n in 0..3000_u32 {
                    handle
                        .send(OutgoingPacket::reliable(Target::All, n.to_be_bytes().to_vec()))
                        .await
                        .unwrap();
                }
                handle.close().await;
            });
            for n in 0..3000_u32 {
                assert_eq!(packet(&mut receiver).await.payload[..], n.to_be_bytes(), "round {round}");
            }
            assert_eq!(next(&mut receiver).await, left(1, DisconnectReason::RemoteClose));
            in_time(sending).await.unwrap();
            assert_eq!(next(&mut sender).await, left(2, DisconnectReason::LocalClose), "round {round}");
            close_all(vec![receiver]).await;
        }
    });
}

#[test]
fn whoever_closes_at_the_same_moment_as_the_other_has_everything_confirmed_or_is_told() {
    promise(async {
        for round in 0..100 {
            let (mut one, mut two) = pair().await;
            for n in 0..100_u32 {
                one.handle()
                    .try_send(OutgoingPacket::reliable(Target::All, n.to_be_bytes().to_vec()))
                    .unwrap();
                two.handle()
                    .try_send(OutgoingPacket::reliable(Target::All, n.to_be_bytes().to_vec()))
                    .unwrap();
            }
            let (a, b) = (one.handle(), two.handle());
            in_time(futures::future::join(a.close(), b.close())).await;
            let mut ends = Vec::new();
            for mesh in [&mut one, &mut two] {
                let mut received = 0_u32;
                let reason = loop {
                    match next(mesh).await {
                        MeshEvent::Packet(packet) => {
                            assert_eq!(packet.payload[..], received.to_be_bytes());
                            received += 1;
                        }
                        MeshEvent::PeerDisconnected(_, reason) => break reason,
                        event => panic!("round {round}: {event:?}"),
                    }
                };
                ends.push((received, reason));
            }
            for (sender, receiver) in [(0, 1), (1, 0)] {
                match &ends[sender].1 {
                    DisconnectReason::LocalClose => {
                        assert_eq!(ends[receiver].0, 100, "round {round}: {ends:?}")
                    }
                    DisconnectReason::RemoteClose => {}
                    DisconnectReason::Unconfirmed { packets } => {
                        assert!(100 - u64::from(ends[receiver].0) <= *packets, "round {round}: {ends:?}");
                    }
                    reason => panic!("round {round}: {reason}"),
                }
            }
        }
    });
}

/// The other side may not even be connected yet.
#[test]
fn a_mesh_that_is_closed_right_after_its_first_packets_loses_none_of_them() {
    promise(async {
        for round in 0..50 {
            let hub = Hub::new();
            let mut one = builder().join(hub.join()).await.unwrap();
            let mut two = builder().join(hub.join()).await.unwrap();
            let sending = tokio::spawn(async move {
                assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
                for n in 0..200_u32 {
                    one.handle()
                        .send(OutgoingPacket::reliable(id(2), n.to_be_bytes().to_vec()))
                        .await
                        .unwrap();
                }
                one.handle().close().await;
                next(&mut one).await
            });
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)), "round {round}");
            for n in 0..200_u32 {
                assert_eq!(packet(&mut two).await.payload[..], n.to_be_bytes(), "round {round}");
            }
            assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
            assert_eq!(
                in_time(sending).await.unwrap(),
                left(2, DisconnectReason::LocalClose),
                "round {round}"
            );
            close_all(vec![two]).await;
        }
    });
}

#[test]
fn who_has_read_all_and_closes_as_the_other_does_leaves_nothing_unconfirmed() {
    promise(async {
        for round in 0..50 {
            let (one, two) = pair().await;
            let talk = async |mut mesh: webrtc_mesh::Mesh, other: u32| {
                mesh.handle().try_send(OutgoingPacket::reliable(id(other), "hello")).unwrap();
                packet(&mut mesh).await;
                in_time(mesh.handle().close()).await;
                next(&mut mesh).await
            };
            for end in <[MeshEvent; 2]>::from(tokio::join!(talk(one, 2), talk(two, 1))) {
                assert!(
                    matches!(
                        end,
                        MeshEvent::PeerDisconnected(
                            _,
                            DisconnectReason::LocalClose | DisconnectReason::RemoteClose
                        )
                    ),
                    "round {round}: {end:?}"
                );
            }
        }
    });
}
