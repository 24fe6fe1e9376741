//! Meshes that find each other through signalling.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use support::*;
use webrtc_mesh::{DisconnectReason, MeshEvent, OutgoingPacket, TransferMode};

#[test]
fn two_meshes_meet_talk_and_part() {
    promise(async {
        let (mut one, mut two) = pair().await;
        for mode in TransferMode::ALL {
            one.handle().try_send(of(mode, 2, "hello")).unwrap();
            let packet = packet(&mut two).await;
            assert_eq!((packet.from, packet.mode, &packet.payload[..]), (id(1), mode, &b"hello"[..]));
        }
        two.handle().send(OutgoingPacket::reliable(id(1), "back")).await.unwrap();
        assert_eq!(&packet(&mut one).await.payload[..], b"back");

        in_time(two.handle().close()).await;
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::RemoteClose));
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::LocalClose));
        assert_eq!(futures::StreamExt::next(&mut two).await, None::<MeshEvent>);
        in_time(one.handle().close()).await;
    });
}
