//! A remote that says it is of this crate, and then breaks the rules: it ends, with a reason, and harms nobody.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use support::bare::{Bare, MARK};
use support::*;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerConnection, Signal, UnreliableLifetime,
};

/// Its channels: the three of packets, and the control channel.
const CONTROL: usize = 3;

fn hello(credit: u64) -> Vec<u8> {
    [&[1, 1][..], &credit.to_be_bytes(), &[0], &0_u32.to_be_bytes()].concat()
}

/// A mesh that is connected with one such remote, which has said hello.
async fn with_hostile(build: webrtc_mesh::MeshBuilder) -> (Mesh, Bare) {
    let mut mesh = build.build(id(1));
    let ours = PeerConnection::new(config()).await.unwrap();
    mesh.handle().add_peer(ours.clone(), id(2), UnreliableLifetime::default()).await.unwrap();
    let mut hostile = Bare::new(&[1023]).await;
    let marked = |signal| match signal {
        Signal::Description(mut description) => {
            description.sdp += &format!("{MARK}00000000000000000000000000000000\r\n");
            Signal::Description(description)
        }
        candidate => candidate,
    };
    hostile.connect(&ours, true, marked).await;
    hostile.send(CONTROL, &hello(1 << 40)).await;
    assert_eq!(next(&mut mesh).await, MeshEvent::PeerConnected(id(2)));
    (mesh, hostile)
}

async fn ends(mesh: &mut Mesh) -> DisconnectReason {
    loop {
        match next(mesh).await {
            MeshEvent::PeerDisconnected(_, reason) => return reason,
            MeshEvent::Packet(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_remote_that_sends_more_than_it_was_granted_is_gone() {
    promise(async {
        let (mut mesh, hostile) = with_hostile(Mesh::builder().receive_window_bytes(1 << 20)).await;
        let flood = async {
            for _ in 0..1000 {
                let sent = hostile.channels[0].send(BytesMut::from(&[1; 16_384][..])).await;
                if sent.is_err() {
                    return;
                }
            }
        };
        // Nobody reads until it is over; what waits then is what it was granted.
        let _ = tokio::time::timeout(LIMIT, flood).await;
        let mut unread = 0;
        let reason = loop {
            match next(&mut mesh).await {
                MeshEvent::Packet(packet) => unread += packet.payload.len(),
                MeshEvent::PeerDisconnected(_, reason) => break reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason, DisconnectReason::Protocol("it sends more than it was granted".to_owned()));
        assert!(unread <= (1 << 20) + 262_144, "{unread} bytes were taken");
        in_time(mesh.handle().close()).await;
        let _ = hostile.connection.close().await;
    });
}

#[test]
fn a_control_frame_that_is_cut_short_ends_its_sender() {
    promise(async {
        for frame in [&[][..], &[2, 0, 0], &[3], &[5, 1, 2, 3]] {
            let (mut mesh, hostile) = with_hostile(Mesh::builder()).await;
            hostile.send(CONTROL, frame).await;
            let reason = ends(&mut mesh).await;
            assert!(matches!(reason, DisconnectReason::Protocol(_)), "{frame:?}: {reason}");
            in_time(mesh.handle().close()).await;
            let _ = hostile.connection.close().await;
        }
    });
}

#[test]
fn frames_of_a_later_release_and_floods_of_probes_change_nothing() {
    promise(async {
        let (mut mesh, hostile) = with_hostile(Mesh::builder()).await;
        // It reads what it is answered: unread, that would stop its own channels.
        let answers = hostile.channels[CONTROL].clone();
        let reading = tokio::spawn(async move { while answers.poll().await.is_some() {} });
        hostile.send(CONTROL, &[200, 1, 2, 3]).await;
        hostile.send(CONTROL, &hello(0)).await;
        for n in 0..5_000_u64 {
            hostile.send(CONTROL, &[&[5][..], &n.to_be_bytes()].concat()).await;
        }
        hostile.send(0, b"still here").await;
        assert_eq!(&packet(&mut mesh).await.payload[..], b"still here");
        mesh.handle().try_send(OutgoingPacket::reliable(id(2), "so are we")).unwrap();
        assert_eq!(&hostile.message(0).await[..], b"so are we");
        drop(mesh);
        let _ = hostile.connection.close().await;
        in_time(reading).await.unwrap();
    });
}

#[test]
fn goodbyes_that_count_what_was_never_sent_hold_up_nobody() {
    promise(async {
        let (mut mesh, hostile) = with_hostile(Mesh::builder().farewell(Duration::from_millis(300))).await;
        for _ in 0..100 {
            hostile.send(CONTROL, &[&[3][..], &[255; 16]].concat()).await;
        }
        hostile.send(0, b"x").await;
        assert_eq!(&packet(&mut mesh).await.payload[..], b"x");
        in_time(mesh.handle().close()).await;
        ends(&mut mesh).await;
        let _ = hostile.connection.close().await;
    });
}
