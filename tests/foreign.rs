//! Peers that are not of this crate: the wire is Godot's, and nothing else is ever sent to one.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt as _;
use support::bare::Bare;
use support::*;
use webrtc::data_channel::DataChannelEvent;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshBuilder, MeshEvent, OutgoingPacket, PeerConnection, SendError, Signal,
    Target, TransferMode, UnreliableLifetime,
};

const MODES: [TransferMode; 3] =
    [TransferMode::Reliable, TransferMode::UnreliableOrdered, TransferMode::Unreliable];

async fn meet_with(
    build: MeshBuilder,
    it_offers: bool,
    edit: impl Fn(Signal) -> Signal,
    more: &[u16],
) -> (Mesh, Bare) {
    let mut mesh = build.build(id(1));
    let ours = PeerConnection::new(config()).await.unwrap();
    mesh.handle().add_peer(ours.clone(), id(2), UnreliableLifetime::default()).await.unwrap();
    let mut bare = Bare::new(more).await;
    bare.connect(&ours, it_offers, edit).await;
    assert_eq!(next(&mut mesh).await, MeshEvent::PeerConnected(id(2)));
    (mesh, bare)
}

async fn meet(it_offers: bool) -> (Mesh, Bare) {
    meet_with(Mesh::builder(), it_offers, |signal| signal, &[]).await
}

#[test]
fn a_foreign_peer_is_a_member_whoever_offers() {
    promise(async {
        for it_offers in [true, false] {
            let (mut mesh, bare) = meet(it_offers).await;
            for (channel, mode) in MODES.into_iter().enumerate() {
                mesh.handle().try_send(OutgoingPacket::new(id(2), mode, "to you")).unwrap();
                assert_eq!(&bare.message(channel).await[..], b"to you");
                bare.send(channel, b"to me").await;
                let packet = packet(&mut mesh).await;
                assert_eq!((packet.from, packet.mode, &packet.payload[..]), (id(2), mode, &b"to me"[..]));
            }
            in_time(mesh.handle().close()).await;
            bare.connection.close().await.unwrap();
        }
    });
}

#[test]
fn what_a_foreign_peer_sends_the_moment_it_is_open_arrives_when_it_offers() {
    promise(async {
        for round in 0..20 {
            let (mut mesh, bare) = meet(true).await;
            bare.send(0, b"at once").await;
            assert_eq!(&packet(&mut mesh).await.payload[..], b"at once", "round {round}");
            in_time(mesh.handle().close()).await;
            bare.connection.close().await.unwrap();
        }
    });
}

#[test]
fn text_arrives_as_its_utf8_bytes_and_empty_messages_arrive() {
    promise(async {
        let (mut mesh, bare) = meet(true).await;
        bare.channels[0].send_text("grüße").await.unwrap();
        assert_eq!(&packet(&mut mesh).await.payload[..], "grüße".as_bytes());
        bare.send(0, b"").await;
        assert_eq!(&packet(&mut mesh).await.payload[..], b"");
        in_time(mesh.handle().close()).await;
        bare.connection.close().await.unwrap();
    });
}

#[test]
fn a_foreign_peer_never_sees_a_byte_on_the_control_channel() {
    promise(async {
        let (mut mesh, bare) = meet_with(Mesh::builder(), true, |signal| signal, &[1023]).await;
        mesh.handle().send(OutgoingPacket::reliable(id(2), "x")).await.unwrap();
        assert_eq!(&bare.message(0).await[..], b"x");
        // What it says there is not for us either.
        bare.send(3, &[3, 0, 0]).await;
        bare.send(0, b"still here").await;
        assert_eq!(&packet(&mut mesh).await.payload[..], b"still here");
        in_time(mesh.handle().close()).await;
        let mut events = Vec::new();
        while let Some(Some(event)) = bare.channels[3].poll().now_or_never() {
            events.push(event);
        }
        assert!(!events.iter().any(|event| matches!(event, DataChannelEvent::OnMessage(_))), "{events:?}");
        bare.connection.close().await.unwrap();
    });
}

#[test]
fn channels_that_the_remote_opens_beyond_the_agreed_ones_are_closed_and_counted() {
    promise(async {
        let (mut mesh, bare) = meet(true).await;
        let extra = bare.connection.create_data_channel("extra", None).await.unwrap();
        loop {
            match tokio::time::timeout(LIMIT, extra.poll()).await.expect("closed in time") {
                Some(DataChannelEvent::OnClose) | None => break,
                Some(_) => {}
            }
        }
        assert_eq!(mesh.handle().peer(id(2)).await.unwrap().refused_channels, 1);
        bare.send(0, b"still here").await;
        assert_eq!(&packet(&mut mesh).await.payload[..], b"still here");
        in_time(mesh.handle().close()).await;
        bare.connection.close().await.unwrap();
    });
}

#[test]
fn a_foreign_peer_that_closes_its_connection_has_left() {
    promise(async {
        let (mut mesh, bare) = meet(false).await;
        bare.send(0, b"last words").await;
        assert_eq!(&packet(&mut mesh).await.payload[..], b"last words");
        bare.connection.close().await.unwrap();
        let since = std::time::Instant::now();
        assert_eq!(next(&mut mesh).await, left(2, DisconnectReason::RemoteClose));
        assert!(since.elapsed() < Duration::from_secs(2));
        in_time(mesh.handle().close()).await;
    });
}

#[test]
fn closing_flushes_to_a_foreign_peer_too() {
    promise(async {
        for round in 0..5 {
            let (mut mesh, bare) = meet(round % 2 == 0).await;
            let handle = mesh.handle();
            let sending = tokio::spawn(async move {
                for n in 0..3000_u32 {
                    let payload = [&n.to_be_bytes()[..], &[0; 1020]].concat();
                    handle.send(OutgoingPacket::reliable(Target::All, payload)).await.unwrap();
                }
                handle.close().await;
            });
            for n in 0..3000_u32 {
                assert_eq!(bare.message(0).await[..4], n.to_be_bytes(), "round {round}");
            }
            in_time(sending).await.unwrap();
            assert_eq!(next(&mut mesh).await, left(2, DisconnectReason::LocalClose), "round {round}");
            bare.connection.close().await.unwrap();
        }
    });
}

#[test]
fn the_limit_is_the_remotes_and_nothing_over_it_is_sent() {
    promise(async {
        let smaller = |signal| match signal {
            Signal::Description(mut description) => {
                let lines: Vec<&str> =
                    description.sdp.lines().filter(|line| !line.starts_with("a=max-message-size")).collect();
                description.sdp = lines.join("\r\n") + "\r\na=max-message-size:1000\r\n";
                Signal::Description(description)
            }
            candidate => candidate,
        };
        let (mut mesh, bare) = meet_with(Mesh::builder(), true, smaller, &[]).await;
        let send = |bytes: usize| mesh.handle().try_send(OutgoingPacket::reliable(id(2), vec![1; bytes]));
        send(1000).unwrap();
        let refused = send(1001).unwrap_err();
        assert_eq!(refused, SendError::TooLarge { actual: 1001, limit: 1000 }.into());
        assert_eq!(bare.message(0).await.len(), 1000);
        bare.channels[0].send(BytesMut::from(&b"ok"[..])).await.unwrap();
        assert_eq!(&packet(&mut mesh).await.payload[..], b"ok");
        in_time(mesh.handle().close()).await;
        bare.connection.close().await.unwrap();
    });
}

#[test]
fn a_foreign_peer_whose_reader_sleeps_leaves_with_too_slow() {
    promise(async {
        let build = Mesh::builder().stall_limit(Duration::from_secs(2));
        let (mut mesh, bare) = meet_with(build, true, |signal| signal, &[]).await;
        let handle = mesh.handle();
        let sending = tokio::spawn(async move {
            while handle.send(OutgoingPacket::reliable(id(2), vec![0; 16_384])).await.is_ok() {}
        });
        assert_eq!(next(&mut mesh).await, left(2, DisconnectReason::TooSlow));
        in_time(sending).await.unwrap();
        in_time(mesh.handle().close()).await;
        bare.connection.close().await.unwrap();
    });
}

/// SCTP had told the remote that they arrived.
#[test]
fn what_a_foreign_peer_sent_before_it_closed_arrives_though_nobody_read() {
    promise(async {
        let build = Mesh::builder().receive_window_bytes(1);
        let (mut mesh, bare) = meet_with(build, true, |signal| signal, &[]).await;
        let packets = 100_u32;
        for n in 0..packets {
            bare.send(0, &[&n.to_be_bytes()[..], &[0; 16_000]].concat()).await;
        }
        while bare.channels[0].outstanding_bytes().await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bare.connection.close().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        for n in 0..packets {
            assert_eq!(packet(&mut mesh).await.payload[..4], n.to_be_bytes());
        }
        assert_eq!(next(&mut mesh).await, left(2, DisconnectReason::RemoteClose));
        in_time(mesh.handle().close()).await;
    });
}
