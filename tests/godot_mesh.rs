//! Meshes that meet through this crate's server in Godot's protocols: everyone is connected, in both generations, and
//! whatever becomes of the server, those who are connected stay so.
#![cfg(all(feature = "server", feature = "ws"))]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use support::*;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use webrtc_mesh::signaling::godot::{CloseReason, Generation, GodotSignaling};
use webrtc_mesh::signaling::server::{SignalingServer, SignalingServerBuilder};
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerId, SignalingError, SignalingStatus, Target,
    TransferMode,
};

const BOTH: [Generation; 2] = [Generation::Godot3, Generation::Godot4];

#[test]
fn four_meet_in_either_generation_and_hear_each_other_in_every_mode() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        for generation in BOTH {
            let mut meshes = server.full_mesh(4, generation).await;
            let ids: Vec<PeerId> = meshes.iter().map(Mesh::id).collect();
            assert_eq!(ids[0], PeerId::SERVER, "whoever makes the lobby is the host");
            for mode in [TransferMode::Reliable, TransferMode::UnreliableOrdered, TransferMode::Unreliable] {
                for mesh in &meshes {
                    let packet = OutgoingPacket::new(Target::All, mode, format!("{} says", mesh.id()));
                    in_time(mesh.handle().send(packet)).await.unwrap();
                }
                for mesh in &mut meshes {
                    let us = mesh.id();
                    let mut missing: Vec<PeerId> = ids.iter().copied().filter(|peer| *peer != us).collect();
                    while !missing.is_empty() {
                        let heard = packet(mesh).await;
                        assert_eq!(
                            (heard.mode, &heard.payload[..]),
                            (mode, format!("{} says", heard.from).as_bytes())
                        );
                        missing.retain(|peer| *peer != heard.from);
                    }
                }
            }
            close_all(meshes).await;
        }
        server.stop().await;
    });
}

#[test]
fn the_two_generations_do_not_meet_and_are_told_so() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        for (first, second) in [(BOTH[0], BOTH[1]), (BOTH[1], BOTH[0])] {
            let name = format!("{first:?}");
            let host = server.member(&name, first).await;
            let refused = GodotSignaling::connect(server.url()).lobby(&name).generation(second).await;
            let reason = CloseReason::OtherGeneration(first);
            assert_eq!(refused.unwrap_err(), SignalingError::ClosedByServer(reason));
            in_time(host.handle().close()).await;
        }
        server.stop().await;
    });
}

#[test]
fn a_lobby_has_to_exist_unless_it_is_asked_for() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        let unknown = GodotSignaling::connect(server.url()).lobby("nowhere").await;
        let reason = CloseReason::LobbyDoesNotExist;
        assert_eq!(unknown.unwrap_err(), SignalingError::ClosedByServer(reason));
        let made = GodotSignaling::connect(server.url()).await.unwrap();
        let found = GodotSignaling::connect(server.url()).lobby(made.lobby_name()).await.unwrap();
        assert_eq!((made.id(), found.id().is_server()), (PeerId::SERVER, false));
        drop((made, found));
        server.stop().await;
    });
}

#[test]
fn clients_of_a_host_have_no_links_to_each_other() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        let join = async || {
            let how = GodotSignaling::connect(server.url()).lobby("star").create(true).mesh(false);
            let signaling = how.await.unwrap();
            assert!(!signaling.is_mesh());
            builder().join(signaling).await.unwrap()
        };
        let (mut host, mut one, mut two) = (join().await, join().await, join().await);
        let mut clients = Vec::new();
        for _ in 0..2 {
            let MeshEvent::PeerConnected(client) = next(&mut host).await else { panic!("a client connects") };
            clients.push(client);
        }
        clients.sort();
        let mut ids = vec![one.id(), two.id()];
        ids.sort();
        assert_eq!(clients, ids);
        for client in [&mut one, &mut two] {
            assert_eq!(next(client).await, MeshEvent::PeerConnected(PeerId::SERVER));
            assert_eq!(client.handle().peers().await.into_keys().collect::<Vec<_>>(), [PeerId::SERVER]);
        }
        close_all(vec![one, two, host]).await;
        server.stop().await;
    });
}

#[test]
fn a_sealed_lobby_lets_nobody_in_and_its_mesh_goes_on_without_the_server() {
    promise(async {
        for generation in BOTH {
            let server =
                Server::start(SignalingServer::builder().seal_delay(Duration::from_millis(300))).await;
            let mut meshes = server.full_mesh(3, generation).await;
            let refused = in_time(meshes[1].handle().seal_lobby()).await;
            assert_eq!(refused, Err(SignalingError::NotHost));
            in_time(meshes[0].handle().seal_lobby()).await.unwrap();
            for mesh in &mut meshes {
                assert_eq!(next(mesh).await, MeshEvent::LobbySealed);
            }
            let late = GodotSignaling::connect(server.url()).lobby("lobby").generation(generation).await;
            assert_eq!(late.unwrap_err(), SignalingError::ClosedByServer(CloseReason::LobbySealed));
            // The lobby is no more when its name is free again.
            until(async || {
                let again = GodotSignaling::connect(server.url()).lobby("lobby").generation(generation).await;
                again.unwrap_err() == SignalingError::ClosedByServer(CloseReason::LobbyDoesNotExist)
            })
            .await;
            server.stop().await;
            everyone_is_heard(&mut meshes).await;
            close_all(meshes).await;
        }
    });
}

#[test]
fn a_server_that_is_restarted_is_found_again_and_newcomers_meet_all() {
    promise(async {
        for generation in BOTH {
            let server = Server::start(SignalingServer::builder()).await;
            let mut meshes = server.full_mesh(3, generation).await;
            let addr = server.addr;
            server.stop().await;
            for mesh in &mut meshes {
                assert_eq!(next(mesh).await, MeshEvent::SignalingLost);
                assert!(matches!(mesh.handle().signaling(), SignalingStatus::Restoring(_)));
            }
            everyone_is_heard(&mut meshes).await;

            let server = Server::start_at(SignalingServer::builder(), addr).await;
            for mesh in &mut meshes {
                assert_eq!(next(mesh).await, MeshEvent::SignalingRestored);
                assert_eq!(mesh.handle().signaling(), SignalingStatus::Joined);
            }
            let mut newcomer = server.member("lobby", generation).await;
            for mesh in &mut meshes {
                assert_eq!(next(mesh).await, MeshEvent::PeerConnected(newcomer.id()));
                assert!(matches!(next(&mut newcomer).await, MeshEvent::PeerConnected(_)));
            }
            meshes.push(newcomer);
            everyone_is_heard(&mut meshes).await;
            close_all(meshes).await;
            server.stop().await;
        }
    });
}

#[test]
fn a_member_whose_connection_to_the_server_breaks_comes_back_and_nobody_else_notices() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        let mut host = server.member("lobby", Generation::Godot4).await;
        let cable = Cable::to(server.addr).await;
        let how = GodotSignaling::connect(format!("ws://{}", cable.addr)).lobby("lobby");
        let mut guest = builder().join(how.await.unwrap()).await.unwrap();
        assert_eq!(next(&mut host).await, MeshEvent::PeerConnected(guest.id()));
        assert_eq!(next(&mut guest).await, MeshEvent::PeerConnected(PeerId::SERVER));
        for _ in 0..2 {
            cable.cut();
            assert_eq!(next(&mut guest).await, MeshEvent::SignalingLost);
            assert_eq!(next(&mut guest).await, MeshEvent::SignalingRestored);
        }
        let mut newcomer = server.member("lobby", Generation::Godot4).await;
        for mesh in [&mut host, &mut guest] {
            assert_eq!(next(mesh).await, MeshEvent::PeerConnected(newcomer.id()));
            assert!(matches!(next(&mut newcomer).await, MeshEvent::PeerConnected(_)));
        }
        let mut meshes = vec![host, guest, newcomer];
        everyone_is_heard(&mut meshes).await;
        close_all(meshes).await;
        drop(cable);
        server.stop().await;
    });
}

#[test]
fn a_link_that_was_lost_is_made_again_when_signalling_is_restored() {
    promise(async {
        for generation in BOTH {
            let server = Server::start(SignalingServer::builder()).await;
            let mut host = server.member("lobby", generation).await;
            let cable = Cable::to(server.addr).await;
            let how =
                GodotSignaling::connect(format!("ws://{}", cable.addr)).lobby("lobby").generation(generation);
            let mut guest = builder().join(how.await.unwrap()).await.unwrap();
            let [host_id, guest_id] = [&host, &guest].map(Mesh::id);
            assert_eq!(next(&mut host).await, MeshEvent::PeerConnected(guest_id));
            assert_eq!(next(&mut guest).await, MeshEvent::PeerConnected(host_id));
            in_time(host.handle().remove_peer(guest_id)).await.unwrap();
            assert!(matches!(next(&mut host).await, MeshEvent::PeerDisconnected(..)));
            assert!(matches!(next(&mut guest).await, MeshEvent::PeerDisconnected(..)));
            cable.cut();
            assert_eq!(next(&mut guest).await, MeshEvent::SignalingLost);
            assert_eq!(next(&mut guest).await, MeshEvent::SignalingRestored);
            if generation == Generation::Godot4 {
                // The guest offers. In Godot 3 the host does, and it has not noticed anything.
                assert_eq!(next(&mut guest).await, MeshEvent::PeerConnected(host_id));
                assert_eq!(next(&mut host).await, MeshEvent::PeerConnected(guest_id));
            }
            close_all(vec![guest, host]).await;
            drop(cable);
            server.stop().await;
        }
    });
}

#[test]
fn who_connects_twice_is_two() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        let how = GodotSignaling::connect(server.url()).lobby("lobby").create(true);
        let mut one = builder().join(how.clone().await.unwrap()).await.unwrap();
        let mut two = builder().join(how.await.unwrap()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(two.id()));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(one.id()));
        close_all(vec![two, one]).await;
        server.stop().await;
    });
}

#[test]
fn a_server_that_is_gone_for_good_takes_no_link_with_it() {
    promise(async {
        let server = Server::start(SignalingServer::builder().resume(Duration::ZERO)).await;
        let mut meshes = server.full_mesh(3, Generation::Godot4).await;
        server.stop().await;
        for mesh in &mut meshes {
            assert_eq!(next(mesh).await, MeshEvent::SignalingLost);
        }
        everyone_is_heard(&mut meshes).await;
        close_all(meshes).await;
    });
}

#[test]
fn the_host_leaves_and_the_others_stay_connected() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        let mut meshes = server.full_mesh(3, Generation::Godot4).await;
        let host = meshes.remove(0);
        in_time(host.handle().close()).await;
        for mesh in &mut meshes {
            let mut events = vec![next(mesh).await, next(mesh).await];
            events.sort_by_key(|event| matches!(event, MeshEvent::SignalingLost));
            assert_eq!(events, [left(1, DisconnectReason::RemoteClose), MeshEvent::SignalingLost]);
            let why = SignalingError::ClosedByServer(CloseReason::HostDisconnected);
            assert_eq!(mesh.handle().signaling(), SignalingStatus::Lost(why));
        }
        everyone_is_heard(&mut meshes).await;
        close_all(meshes).await;
        server.stop().await;
    });
}

#[test]
fn a_mesh_that_is_dropped_has_left_its_lobby_at_once() {
    promise(async {
        let server = Server::start(SignalingServer::builder()).await;
        let host = server.member("lobby", Generation::Godot4).await;
        let guest = server.member("lobby", Generation::Godot4).await;
        drop(guest);
        drop(host);
        until(async || {
            let free = GodotSignaling::connect(server.url()).lobby("lobby").await;
            matches!(free, Err(SignalingError::ClosedByServer(CloseReason::LobbyDoesNotExist)))
        })
        .await;
        server.stop().await;
    });
}

/// A server on loopback, and the task that serves.
struct Server {
    server: SignalingServer,
    addr: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(builder: SignalingServerBuilder) -> Server {
        Server::start_at(builder, loopback()).await
    }

    async fn start_at(builder: SignalingServerBuilder, addr: SocketAddr) -> Server {
        let server = builder.build();
        // Connections of an earlier server may linger on its port.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let listener: TcpListener = socket.listen(128).unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener).await }
        });
        Server { server, addr, serving }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    async fn member(&self, lobby: &str, generation: Generation) -> Mesh {
        let how = GodotSignaling::connect(self.url()).lobby(lobby).create(true).generation(generation);
        builder().join(how.await.unwrap()).await.unwrap()
    }

    /// So many in the lobby `lobby`, all connected.
    async fn full_mesh(&self, n: usize, generation: Generation) -> Vec<Mesh> {
        let mut meshes = Vec::new();
        for _ in 0..n {
            meshes.push(self.member("lobby", generation).await);
        }
        for mesh in &mut meshes {
            for _ in 1..n {
                let event = next(mesh).await;
                assert!(matches!(event, MeshEvent::PeerConnected(_)), "{event:?}");
            }
        }
        meshes
    }

    async fn stop(self) {
        in_time(self.server.shutdown()).await;
        in_time(self.serving).await.unwrap().unwrap();
    }
}

/// What lies between a client and the server, and can be cut.
struct Cable {
    addr: SocketAddr,
    cut: Arc<Notify>,
    _carrying: AbortOnDropHandle<()>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Cable {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cut = Arc::new(Notify::new());
        let carrying = tokio::spawn({
            let cut = cut.clone();
            async move {
                loop {
                    let (mut here, _) = listener.accept().await.unwrap();
                    let mut there = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        () = cut.notified() => {}
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                    }
                }
            }
        });
        Cable { addr, cut, _carrying: AbortOnDropHandle::new(carrying) }
    }

    fn cut(&self) {
        self.cut.notify_one();
    }
}

/// Everyone says something to everyone, and nothing else is to be read.
async fn everyone_is_heard(meshes: &mut [Mesh]) {
    for mesh in &*meshes {
        let packet = OutgoingPacket::reliable(Target::All, "still here");
        in_time(mesh.handle().send(packet)).await.unwrap();
    }
    let others = meshes.len() - 1;
    for mesh in meshes {
        for _ in 0..others {
            assert_eq!(&packet(mesh).await.payload[..], b"still here");
        }
    }
}
