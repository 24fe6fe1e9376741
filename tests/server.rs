//! A server-compatible mesh: the server is the gate. Before it comes nobody is announced; when it goes the others stay.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a fault in a test is a failed test")]

mod support;

use std::time::Duration;

use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    ConnectionStatus, DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerFailure, Signaling as _, Stage,
    Target, TransferMode,
};

use ConnectionStatus::{Connected, Connecting, Disconnected};

#[test]
fn nobody_is_announced_before_the_server_and_then_everybody_in_order() {
    promise(async {
        let hub = Hub::new();
        let mut clients = clients(&hub, [3, 2, 4]).await;
        for client in &mut clients {
            assert_eq!(client.handle().status(), Connecting);
            is_silent(client).await;
        }
        let mut server = member(&hub, 1).await;
        assert_eq!(server.handle().status(), Connected, "from the start");
        for client in &mut clients {
            for event in arrival(others_of(client, [2, 3, 4])) {
                assert_eq!(next(client).await, event);
                assert_eq!(client.handle().status(), Connected, "changed before the first event");
            }
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            match next(&mut server).await {
                MeshEvent::PeerConnected(client) => seen.push(client),
                event => panic!("{event:?}"),
            }
        }
        seen.sort();
        assert_eq!(seen, [2, 3, 4].map(id));
        // That was all.
        for client in &mut clients {
            talk(&server, client, "welcome").await;
            talk(client, &mut server, "thank you").await;
        }
        clients.push(server);
        close_all(clients).await;
    });
}

#[test]
fn what_suppressed_peers_send_comes_after_their_peer_connected() {
    promise(async {
        let hub = Hub::new();
        let mut clients = clients(&hub, [2, 3, 4]).await;
        for client in &clients {
            for n in 0..50_u8 {
                let packet = OutgoingPacket::reliable(Target::All, vec![n]);
                client.handle().try_send(packet).unwrap();
            }
        }
        // One that was there, and left before the server came, was never there.
        let mut short = member(&hub, 5).await;
        until(async || connected(&short).await == [2, 3, 4].map(id)).await;
        short.handle().try_send(OutgoingPacket::reliable(Target::All, "never heard")).unwrap();
        in_time(short.handle().close()).await;
        ends(&mut short).await;
        for client in &mut clients {
            until(async || !client.handle().has_peer(id(5)).await).await;
            is_silent(client).await;
        }

        let server = member(&hub, 1).await;
        for client in &mut clients {
            assert_eq!(next(client).await, MeshEvent::ConnectionSucceeded);
            assert_eq!(next(client).await, MeshEvent::PeerConnected(id(1)));
            let others = others_of(client, [2, 3, 4]);
            let (mut announced, mut received) = (Vec::new(), [0_u8; 5]);
            for _ in 0..2 + 2 * 50 {
                match next(client).await {
                    MeshEvent::PeerConnected(other) => announced.push(other.get()),
                    MeshEvent::Packet(packet) => {
                        let from = packet.from.get();
                        assert!(announced.contains(&from), "a packet before PeerConnected({from})");
                        assert_eq!(packet.payload[..], [received[from as usize]]);
                        received[from as usize] += 1;
                    }
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(announced, others, "by ascending id");
        }
        clients.push(server);
        close_all(clients).await;
    });
}

#[test]
fn when_the_server_leaves_the_others_stay_and_when_it_returns_nobody_is_announced_twice() {
    promise(async {
        let hub = Hub::new();
        let mut clients = clients(&hub, [2, 3, 4]).await;
        let mut server = member(&hub, 1).await;
        for client in &mut clients {
            for event in arrival(others_of(client, [2, 3, 4])) {
                assert_eq!(next(client).await, event);
            }
        }
        for life in 0..3 {
            in_time(server.handle().close()).await;
            for client in &mut clients {
                assert_eq!(next(client).await, left(1, DisconnectReason::RemoteClose));
                assert_eq!(client.handle().status(), Disconnected, "changed before the event");
                assert_eq!(next(client).await, MeshEvent::ServerDisconnected);
                is_silent(client).await;
            }
            let [two, three, four] = &mut clients[..] else { unreachable!() };
            for mode in TransferMode::ALL {
                two.handle().try_send(OutgoingPacket::new(Target::All, mode, "still here")).unwrap();
                for other in [&mut *three, &mut *four] {
                    let packet = packet(other).await;
                    assert_eq!((packet.from, packet.mode), (id(2), mode));
                }
            }
            talk(three, two, "so am I").await;

            // Who comes while it is away is announced when it is back, and nobody else.
            let newcomer = 5 + life;
            let mut late = member(&hub, newcomer).await;
            until(async || connected(&late).await == [2, 3, 4].map(id)).await;
            for client in &mut clients {
                until(async || connected(client).await.contains(&id(newcomer))).await;
                is_silent(client).await;
            }
            is_silent(&mut late).await;
            assert_eq!(late.handle().status(), Connecting);

            server = member(&hub, 1).await;
            for client in &mut clients {
                for event in arrival([newcomer]) {
                    assert_eq!(next(client).await, event);
                }
                assert_eq!(client.handle().status(), Connected);
            }
            for event in arrival([2, 3, 4]) {
                assert_eq!(next(&mut late).await, event);
            }
            until(async || connected(&server).await == [2, 3, 4, newcomer].map(id)).await;
            in_time(late.handle().close()).await;
            for client in &mut clients {
                assert_eq!(next(client).await, left(newcomer, DisconnectReason::RemoteClose));
            }
        }
        clients.push(server);
        close_all(clients).await;
    });
}

#[test]
fn a_client_that_removes_its_server_has_none() {
    promise(async {
        let hub = Hub::new();
        let mut clients = clients(&hub, [2, 3]).await;
        let mut server = member(&hub, 1).await;
        let (mut three, mut two) = (clients.pop().unwrap(), clients.pop().unwrap());
        for event in arrival([3]) {
            assert_eq!(next(&mut two).await, event);
        }
        for event in arrival([2]) {
            assert_eq!(next(&mut three).await, event);
        }
        in_time(two.handle().remove_peer(id(1))).await.unwrap();
        assert_eq!(two.handle().status(), Disconnected);
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::Removed));
        assert_eq!(next(&mut two).await, MeshEvent::ServerDisconnected);
        talk(&two, &mut three, "I am without a server").await;
        assert_eq!(three.handle().status(), Connected);
        loop {
            match next(&mut server).await {
                MeshEvent::PeerConnected(_) => {}
                event => break assert_eq!(event, left(2, DisconnectReason::RemoteClose)),
            }
        }

        // Closing tells of everyone who was announced, and nothing of the server in particular.
        in_time(three.handle().close()).await;
        let mut last = [next(&mut three).await, next(&mut three).await];
        last.sort_by_key(|event| format!("{event:?}"));
        let local = DisconnectReason::LocalClose;
        assert_eq!(last, [left(1, local.clone()), left(2, local)]);
        ends(&mut three).await;
        assert_eq!(three.handle().status(), Disconnected);
        close_all(vec![two, server]).await;
    });
}

#[test]
fn a_client_whose_server_never_answers_is_told_and_takes_it_when_it_comes() {
    promise(async {
        let hub = Hub::new();
        let mut deaf = hub.join_as(id(1));
        deaf.join().await.unwrap();
        let limit = Duration::from_millis(1500);
        let compatible = || builder().server_compatibility(true).handshake_limit(limit);
        let mut two = compatible().join(hub.join_as(id(2))).await.unwrap();
        let mut three = compatible().join(hub.join_as(id(3))).await.unwrap();
        for client in [&mut two, &mut three] {
            let failure = match next(client).await {
                MeshEvent::PeerFailed(peer, failure) => {
                    assert_eq!(peer, id(1));
                    failure
                }
                event => panic!("{event:?}"),
            };
            assert_eq!(client.handle().status(), Disconnected, "changed before the event");
            match &failure {
                PeerFailure::TimedOut { stage: Stage::Signaling, after, .. } => assert!(*after >= limit),
                other => panic!("{other:?}"),
            }
            assert_eq!(next(client).await, MeshEvent::ConnectionFailed(failure));
            assert!(!client.handle().has_peer(id(1)).await);
        }
        until(async || connected(&two).await == [id(3)]).await;
        is_silent(&mut two).await;

        drop(deaf);
        let server = member(&hub, 1).await;
        for event in arrival([3]) {
            assert_eq!(next(&mut two).await, event);
        }
        for event in arrival([2]) {
            assert_eq!(next(&mut three).await, event);
        }
        assert_eq!((two.handle().status(), three.handle().status()), (Connected, Connected));
        close_all(vec![two, three, server]).await;
    });
}

async fn member(hub: &Hub, number: u32) -> Mesh {
    builder().server_compatibility(true).join(hub.join_as(id(number))).await.unwrap()
}

/// Clients that are connected to each other, in the order of their numbers.
async fn clients<const N: usize>(hub: &Hub, numbers: [u32; N]) -> Vec<Mesh> {
    let mut clients = Vec::new();
    for number in numbers {
        clients.push(member(hub, number).await);
    }
    clients.sort_by_key(Mesh::id);
    for client in &clients {
        until(async || connected(client).await.len() == N - 1).await;
    }
    clients
}

/// Who is connected, announced or not.
async fn connected(mesh: &Mesh) -> Vec<webrtc_mesh::PeerId> {
    let peers = mesh.handle().peers().await;
    peers.into_iter().filter(|(_, info)| info.connected).map(|(peer, _)| peer).collect()
}

fn others_of(mesh: &Mesh, numbers: [u32; 3]) -> Vec<u32> {
    numbers.into_iter().filter(|other| id(*other) != mesh.id()).collect()
}

/// What a client is told when the server comes, and these others were not announced.
fn arrival(others: impl IntoIterator<Item = u32>) -> Vec<MeshEvent> {
    let mut events = vec![MeshEvent::ConnectionSucceeded, MeshEvent::PeerConnected(id(1))];
    events.extend(others.into_iter().map(|other| MeshEvent::PeerConnected(id(other))));
    events
}
