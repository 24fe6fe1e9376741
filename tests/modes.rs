//! What is sent arrives where it should, how it should, and byte for byte; what cannot be sent is refused with a reason.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt as _};
use support::*;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerConnection, PeerId, SendError, Signal, Target,
    TransferMode, TrySendError,
};

/// At a modest rate, so that loopback loses nothing of the unreliable modes either.
#[test]
fn every_pair_of_five_talks_both_ways_in_every_mode() {
    const PACKETS: u32 = 100;
    promise(async {
        let meshes = full_mesh(5).await;
        let handles: Vec<_> = meshes.iter().map(Mesh::handle).collect();
        let sending = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            for n in 0..PACKETS {
                pace.tick().await;
                for (from, to) in pairs(5) {
                    for mode in TransferMode::ALL {
                        let payload = numbered(from, to, mode, n);
                        handles[from as usize - 1].send(of(mode, to, payload)).await.unwrap();
                    }
                }
            }
        });
        let reading: FuturesUnordered<_> = meshes
            .into_iter()
            .map(|mut mesh| async move {
                let mut received: HashMap<(PeerId, TransferMode), Vec<u32>> = HashMap::new();
                for _ in 0..4 * 3 * PACKETS {
                    let packet = packet(&mut mesh).await;
                    let n = u32::from_be_bytes(packet.payload[..4].try_into().unwrap());
                    let expected = numbered(packet.from.get(), mesh.id().get(), packet.mode, n);
                    assert_eq!(packet.payload, expected);
                    received.entry((packet.from, packet.mode)).or_default().push(n);
                }
                for ((_, mode), mut numbers) in received {
                    if mode == TransferMode::Unreliable {
                        numbers.sort_unstable();
                    }
                    assert_eq!(numbers, (0..PACKETS).collect::<Vec<_>>(), "{mode:?}");
                }
                mesh
            })
            .collect();
        let meshes = reading.collect().await;
        sending.await.unwrap();
        close_all(meshes).await;
    });
}

#[test]
fn a_packet_goes_to_whom_it_names_and_never_to_its_sender() {
    promise(async {
        let mut meshes = full_mesh(4).await;
        let everyone = [2, 3, 4];
        for (target, receivers) in [
            (Target::Peer(id(2)), &[2][..]),
            (Target::Peer(id(4)), &[4]),
            (Target::All, &everyone),
            (Target::AllExcept(id(3)), &[2, 4]),
            (Target::AllExcept(id(99)), &everyone),
            (Target::AllExcept(id(1)), &everyone),
        ] {
            for mode in TransferMode::ALL {
                let name = format!("{target:?} {mode:?}");
                meshes[0].handle().send(OutgoingPacket::new(target, mode, name.clone())).await.unwrap();
                for receiver in receivers {
                    let packet = packet(&mut meshes[*receiver as usize - 1]).await;
                    let expected = (id(1), mode, Bytes::from(name.clone()));
                    assert_eq!((packet.from, packet.mode, packet.payload), expected);
                }
            }
        }
        // Nobody has anything left, and the sender has nothing of its own.
        for n in everyone {
            let (one, rest) = meshes.split_first_mut().unwrap();
            let other = &mut rest[n as usize - 2];
            talk(one, other, "last").await;
            talk(other, one, "last").await;
        }
        close_all(meshes).await;
    });
}

#[test]
fn a_broadcast_goes_to_those_who_are_connected_and_to_nobody_is_no_error() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        for connecting in [false, true] {
            if connecting {
                let there = connection().await;
                let here = connection().await;
                add(&one, &here, 2).await.unwrap();
                add(&two, &there, 1).await.unwrap();
                carry(&here, &there);
                say_to_nobody(&mut one).await;
                here.create_offer().await.unwrap();
            } else {
                say_to_nobody(&mut one).await;
            }
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        // The first that it hears is what was said after it came.
        one.handle().put_packet("welcome").await.unwrap();
        assert_eq!(next(&mut two).await, said(1, "welcome"));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_packet_to_nobody_says_whom_it_was_for() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        add(&one, &connection().await, 3).await.unwrap();
        let handle = one.handle();
        for mode in TransferMode::ALL {
            for (target, error) in [
                (1, SendError::UnknownPeer(id(1))),
                (9, SendError::UnknownPeer(id(9))),
                (3, SendError::NotConnected(id(3))),
            ] {
                let packet = of(mode, target, "nobody");
                assert_eq!(handle.send(packet.clone()).await, Err(error.clone()));
                assert_eq!(handle.try_send(packet.clone()), Err(TrySendError::Refused(error.clone())));
                assert_eq!(one.send(packet).await, Err(error));
            }
        }
        talk(&one, &mut two, "heard").await;
        talk(&two, &mut one, "heard").await;
        close_all(vec![one, two]).await;
    });
}

#[test]
fn packets_of_every_size_arrive_byte_for_byte() {
    promise(async {
        let (one, mut two) = pair().await;
        let sizes = |mode| match mode {
            TransferMode::Reliable => &[0, 1, 1_200, 16_384, 65_535, 65_536, 262_144][..],
            _ => &[0, 1, 1_200, 16_384],
        };
        for mode in TransferMode::ALL {
            for &size in sizes(mode) {
                let payload = noise(size);
                in_time(one.handle().send(of(mode, 2, payload.clone()))).await.unwrap();
                let packet = packet(&mut two).await;
                assert_eq!((packet.mode, packet.payload.len()), (mode, size));
                assert!(packet.payload == payload, "{mode:?}, {size} bytes: not what was sent");
            }
        }
        close_all(vec![one, two]).await;
    });
}

#[test]
fn packets_of_all_sizes_at_once_keep_their_order() {
    promise(async {
        let (one, mut two) = pair().await;
        let sizes = [262_144, 0, 65_536, 1, 16_384, 0, 0, 65_535, 1_200, 262_144, 1];
        for size in sizes.repeat(3) {
            one.handle().send(OutgoingPacket::reliable(id(2), noise(size))).await.unwrap();
        }
        for size in sizes.repeat(3) {
            let packet = packet(&mut two).await;
            assert_eq!(packet.payload.len(), size);
            assert!(packet.payload == noise(size), "{size} bytes: not what was sent");
        }
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_packet_over_the_limit_is_refused_before_anything_is_sent() {
    promise(async {
        let mut meshes = full_mesh(3).await;
        let too_large = SendError::TooLarge { actual: 262_145, limit: 262_144 };
        let handle = meshes[0].handle();
        for mode in TransferMode::ALL {
            for target in [Target::Peer(id(2)), Target::All, Target::AllExcept(id(3))] {
                let packet = OutgoingPacket::new(target, mode, vec![0; 262_145]);
                assert_eq!(handle.send(packet.clone()).await, Err(too_large.clone()));
                assert_eq!(handle.try_send(packet.clone()), Err(TrySendError::Refused(too_large.clone())));
                assert_eq!(meshes[0].send(packet).await, Err(too_large.clone()));
            }
        }
        let (one, rest) = meshes.split_first_mut().unwrap();
        for other in rest {
            talk(one, other, "the first that comes").await;
        }
        close_all(meshes).await;
    });
}

/// One side is configured for short packets, and says so to the other.
#[test]
fn who_is_configured_for_short_packets_neither_sends_longer_ones_nor_is_sent_any() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let here = PeerConnection::new(config().max_message_bytes(30_000)).await.unwrap();
        let there = connection().await;
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        carry(&here, &there);
        here.create_offer().await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        let too_large = Err(SendError::TooLarge { actual: 30_001, limit: 30_000 });
        let (from_one, from_two) = (one.handle(), two.handle());
        for (from, to, there) in [(1, &mut two, from_one), (2, &mut one, from_two)] {
            let other = id(3 - from);
            assert_eq!(there.send(OutgoingPacket::reliable(other, noise(30_001))).await, too_large);
            there.send(OutgoingPacket::reliable(other, noise(30_000))).await.unwrap();
            assert_eq!(next(to).await, said(from, noise(30_000)));
        }
        close_all(vec![one, two]).await;
    });
}

/// The third takes 1,000 bytes, or so it says.
#[test]
fn the_smallest_limit_of_its_peers_decides_on_a_broadcast_all_or_nothing() {
    promise(async {
        let (mut one, mut two) = pair_by_hand().await;
        let mut three = builder().build(id(3));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 3).await.unwrap();
        add(&three, &there, 1).await.unwrap();
        let mut of_three = there.signals();
        here.create_offer().await.unwrap();
        let mut of_one = here.signals();
        tokio::spawn(async move {
            while let Some(signal) = of_one.next().await {
                let _ = there.handle_signal(signal).await;
            }
        });
        tokio::spawn(async move {
            while let Some(mut signal) = of_three.next().await {
                if let Signal::Description(description) = &mut signal {
                    let lines = description.sdp.lines().filter(|line| !line.contains("max-message-size"));
                    let lines = lines.chain(["a=max-message-size:1000"]);
                    description.sdp = lines.map(|line| format!("{line}\r\n")).collect();
                }
                let _ = here.handle_signal(signal).await;
            }
        });
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(3)));
        assert_eq!(next(&mut three).await, MeshEvent::PeerConnected(id(1)));

        let handle = one.handle();
        let too_large = Err(SendError::TooLarge { actual: 1001, limit: 1000 });
        assert_eq!(handle.send(OutgoingPacket::reliable(Target::All, noise(1001))).await, too_large);
        assert_eq!(handle.send(OutgoingPacket::reliable(id(3), noise(1001))).await, too_large);
        // Who takes more is sent more, alone or without the one who does not.
        handle.send(OutgoingPacket::reliable(Target::AllExcept(id(3)), noise(2000))).await.unwrap();
        assert_eq!(next(&mut two).await, said(1, noise(2000)));
        handle.send(OutgoingPacket::reliable(Target::All, noise(1000))).await.unwrap();
        assert_eq!(next(&mut two).await, said(1, noise(1000)));
        assert_eq!(next(&mut three).await, said(1, noise(1000)));
        close_all(vec![one, two, three]).await;
    });
}

#[test]
fn a_mesh_is_a_sink_that_sends_feeds_and_flushes() {
    promise(async {
        let (mut one, mut two) = pair().await;
        in_time(one.send(OutgoingPacket::reliable(Target::All, "sent"))).await.unwrap();
        assert_eq!(next(&mut two).await, said(1, "sent"));
        for n in 0..200_u8 {
            in_time(one.feed(OutgoingPacket::reliable(id(2), vec![n]))).await.unwrap();
        }
        in_time(one.flush()).await.unwrap();
        for n in 0..200_u8 {
            assert_eq!(next(&mut two).await, said(1, vec![n]));
        }
        let stream = (0..200_u8).map(|n| Ok(OutgoingPacket::reliable(id(2), vec![n])));
        in_time(one.send_all(&mut futures::stream::iter(stream))).await.unwrap();
        for n in 0..200_u8 {
            assert_eq!(next(&mut two).await, said(1, vec![n]));
        }
        close_all(vec![one, two]).await;
    });
}

#[test]
fn an_error_of_one_packet_leaves_the_sink_usable() {
    promise(async {
        let (mut one, mut two) = pair().await;
        in_time(one.feed(OutgoingPacket::reliable(id(2), "before"))).await.unwrap();
        let refused = one.feed(OutgoingPacket::reliable(id(9), "refused")).await;
        assert_eq!(refused, Err(SendError::UnknownPeer(id(9))));
        let refused = one.feed(OutgoingPacket::reliable(id(2), vec![0; 300_000])).await;
        assert_eq!(refused, Err(SendError::TooLarge { actual: 300_000, limit: 262_144 }));
        in_time(one.send(OutgoingPacket::reliable(id(2), "after"))).await.unwrap();
        assert_eq!(next(&mut two).await, said(1, "before"));
        assert_eq!(next(&mut two).await, said(1, "after"));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_sink_that_is_closed_takes_no_more_and_the_mesh_lives_on() {
    promise(async {
        let (mut one, mut two) = pair().await;
        in_time(one.feed(OutgoingPacket::reliable(id(2), "last of the sink"))).await.unwrap();
        in_time(SinkExt::close(&mut one)).await.unwrap();
        assert_eq!(next(&mut two).await, said(1, "last of the sink"));
        let refused = one.send(OutgoingPacket::reliable(id(2), "too late")).await;
        assert_eq!(refused, Err(SendError::MeshClosed));
        in_time(SinkExt::close(&mut one)).await.unwrap();
        talk(&one, &mut two, "handles go on").await;
        talk(&two, &mut one, "and so does the stream").await;
        close_all(vec![one, two]).await;
    });
}

#[test]
fn the_two_halves_of_a_mesh_work_in_two_tasks() {
    promise(async {
        const PACKETS: u32 = 2_000;
        let (one, two) = pair().await;
        let mut tasks = Vec::new();
        for (mesh, other) in [(one, 2), (two, 1)] {
            let (mut sink, mut stream) = mesh.split();
            tasks.push(tokio::spawn(async move {
                for n in 0..PACKETS {
                    let packet = OutgoingPacket::reliable(id(other), n.to_be_bytes().to_vec());
                    in_time(sink.send(packet)).await.unwrap();
                }
                assert_eq!(sink.handle().id(), id(3 - other));
                // The stream's task closes the mesh.
                drop(sink);
                None
            }));
            tasks.push(tokio::spawn(async move {
                for n in 0..PACKETS {
                    assert_eq!(next(&mut stream).await, said(other, n.to_be_bytes().to_vec()));
                }
                Some(stream)
            }));
        }
        let ended = futures::future::join_all(tasks).await.into_iter().filter_map(Result::unwrap);
        let handles: Vec<_> = ended.map(|stream| (stream.handle(), stream)).collect();
        for (handle, _) in &handles {
            in_time(handle.close()).await;
        }
    });
}

#[test]
fn a_mesh_goes_on_without_its_sink_half() {
    promise(async {
        let (one, mut two) = pair().await;
        let (sink, mut stream) = one.split();
        let handle = sink.handle();
        drop(sink);
        in_time(handle.send(OutgoingPacket::reliable(id(2), "still here"))).await.unwrap();
        assert_eq!(next(&mut two).await, said(1, "still here"));
        in_time(two.handle().send(OutgoingPacket::reliable(id(1), "so am I"))).await.unwrap();
        assert_eq!(next(&mut stream).await, said(2, "so am I"));
        in_time(handle.close()).await;
        assert_eq!(next(&mut stream).await, left(2, DisconnectReason::LocalClose));
        ends(&mut stream).await;
        close_all(vec![two]).await;
    });
}

#[test]
fn a_mesh_stops_with_its_stream_half() {
    promise(async {
        let (one, mut two) = pair().await;
        let (mut sink, stream) = one.split();
        drop(stream);
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        let handle = sink.handle();
        in_time(handle.close()).await;
        assert_eq!(sink.send(OutgoingPacket::reliable(id(2), "x")).await, Err(SendError::MeshClosed));
        let refused = handle.send(OutgoingPacket::reliable(id(2), "x")).await;
        assert_eq!(refused, Err(SendError::MeshClosed));
        close_all(vec![two]).await;
    });
}

fn pairs(n: u32) -> impl Iterator<Item = (u32, u32)> {
    (1..=n).flat_map(move |from| (1..=n).map(move |to| (from, to))).filter(|(from, to)| from != to)
}

fn numbered(from: u32, to: u32, mode: TransferMode, n: u32) -> Bytes {
    let mut payload = n.to_be_bytes().to_vec();
    payload.extend(format!(" from {from} to {to}, {mode:?}").into_bytes());
    payload.into()
}

/// Bytes that repeat nowhere near.
fn noise(bytes: usize) -> Bytes {
    let mut state = bytes as u32 ^ 0x9e37_79b9;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

async fn say_to_nobody(mesh: &mut Mesh) {
    let handle = mesh.handle();
    for target in [Target::All, Target::AllExcept(id(2)), Target::AllExcept(id(9))] {
        for mode in TransferMode::ALL {
            let packet = OutgoingPacket::new(target, mode, "is anybody there?");
            assert_eq!(handle.send(packet.clone()).await, Ok(()));
            assert_eq!(handle.try_send(packet.clone()), Ok(()));
            assert_eq!(mesh.send(packet).await, Ok(()));
        }
    }
    assert_eq!(handle.put_packet("hello?").await, Ok(()));
}
