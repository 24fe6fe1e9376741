//! Other WebRTC stacks are members of a mesh, through Godot's signalling, as a stock game would be.
//!
//! `tests/interop/install` gets them; `tests/interop/README.md` says what they do. Without them these tests are
//! skipped, or fail with `WEBRTC_MESH_INTEROP=require` in the environment.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

#[path = "interop/exchange.rs"]
mod exchange;
#[path = "interop/member.rs"]
mod member;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use exchange::converse;
use member::{Member, Stack};
use support::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use webrtc_mesh::signaling::godot::{Generation, GodotSignaling};
use webrtc_mesh::signaling::server::SignalingServer;
use webrtc_mesh::{DisconnectReason, Mesh};

/// How soon a member's leaving is noticed.
const NOTICED: Duration = Duration::from_secs(5);

#[test]
fn aiortc_joins_a_mesh_of_ours() {
    joins_a_mesh_of_ours(Stack::Aiortc);
}

#[test]
fn werift_joins_a_mesh_of_ours() {
    joins_a_mesh_of_ours(Stack::Werift);
}

#[test]
fn a_mesh_of_ours_joins_aiortc() {
    is_joined_by_a_mesh_of_ours(Stack::Aiortc);
}

#[test]
fn a_mesh_of_ours_joins_werift() {
    is_joined_by_a_mesh_of_ours(Stack::Werift);
}

/// We host: we offer in Godot 3, and are offered to in Godot 4.
fn joins_a_mesh_of_ours(stack: Stack) {
    if !stack.is_installed() {
        return;
    }
    promise(async move {
        for (generation, we_leave) in [(Generation::Godot3, true), (Generation::Godot4, false)] {
            let server = Server::start().await;
            let (mesh, lobby) = server.join(generation, "").await;
            let member = Member::start(stack, &server.url(), &lobby, generation, 1);
            meet_talk_and_part(mesh, stack, member, we_leave).await;
            server.stop().await;
        }
    });
}

/// They host: they offer in Godot 3, and are offered to in Godot 4.
fn is_joined_by_a_mesh_of_ours(stack: Stack) {
    if !stack.is_installed() {
        return;
    }
    promise(async move {
        for (generation, we_leave) in [(Generation::Godot3, false), (Generation::Godot4, true)] {
            let server = Server::start().await;
            let mut member = Member::start(stack, &server.url(), "", generation, 1);
            let lobby = member.joined().await.lobby;
            let (mesh, _) = server.join(generation, &lobby).await;
            meet_talk_and_part(mesh, stack, member, we_leave).await;
            server.stop().await;
        }
    });
}

async fn meet_talk_and_part(mut mesh: Mesh, stack: Stack, mut member: Member, we_leave: bool) {
    let began = Instant::now();
    let (us, guest) = (mesh.id(), member.guest(true).await);
    let peer = guest.id;
    let they_are_done = async {
        member.connected_to(us).await;
        member.met(&[us]).await;
    };
    converse(std::slice::from_mut(&mut mesh), &[guest], they_are_done).await;
    println!("{}: all modes both ways after {:?}", stack, began.elapsed());

    let sent =
        in_time(exchange::sizes(&mut mesh, peer, stack.max_message_bytes(), stack.sends_empty_messages()))
            .await;
    assert_eq!(member.digest_for(mesh.id()).await, sent);

    let began = Instant::now();
    if we_leave {
        in_time(mesh.handle().close()).await;
        member.disconnected_from(mesh.id()).await;
    } else {
        member.leave().await;
        assert_eq!(exchange::end_of(&mut mesh, peer).await, DisconnectReason::RemoteClose);
    }
    println!("{}: leaving noticed after {:?}", stack, began.elapsed());
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    in_time(mesh.handle().close()).await;
    member.leave().await;
}

#[test]
fn every_pair_of_two_meshes_of_ours_and_aiortc_and_werift_understands_each_other() {
    if !Stack::Aiortc.is_installed() || !Stack::Werift.is_installed() {
        return;
    }
    promise(async {
        for generation in [Generation::Godot3, Generation::Godot4] {
            let server = Server::start().await;
            let (one, lobby) = server.join(generation, "").await;
            let mut members = [Stack::Aiortc, Stack::Werift]
                .map(|stack| Member::start(stack, &server.url(), &lobby, generation, 3));
            let (two, _) = server.join(generation, &lobby).await;
            let mut meshes = [one, two];
            let began = Instant::now();
            let guests = [members[0].guest(true).await, members[1].guest(true).await];
            let foreign = guests.map(|guest| guest.id);
            let ours = meshes.each_ref().map(Mesh::id);
            let [aiortc, werift] = &mut members;
            let (of_aiortc, of_werift) = ([ours[0], ours[1], foreign[1]], [ours[0], ours[1], foreign[0]]);
            let they_are_done = async {
                tokio::join!(aiortc.met(&of_aiortc), werift.met(&of_werift));
            };
            converse(&mut meshes, &guests, they_are_done).await;
            println!("{generation}: every pair after {:?}", began.elapsed());

            // The host goes last.
            let [mut one, mut two] = meshes;
            for (member, id) in members.iter_mut().zip(foreign) {
                member.leave().await;
                assert_eq!(exchange::end_of(&mut one, id).await, DisconnectReason::RemoteClose);
                assert_eq!(exchange::end_of(&mut two, id).await, DisconnectReason::RemoteClose);
            }
            close_all(vec![two, one]).await;
            server.stop().await;
        }
    });
}

/// A signalling server of ours on loopback.
struct Server {
    server: SignalingServer,
    address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = SignalingServer::builder().build();
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener).await }
        });
        Server { server, address, serving }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// A mesh of ours in a lobby, a new one if `lobby` is empty, and the lobby's name.
    async fn join(&self, generation: Generation, lobby: &str) -> (Mesh, String) {
        let signaling =
            GodotSignaling::connect(self.url()).lobby(lobby).generation(generation).await.unwrap();
        let lobby = signaling.lobby_name().to_owned();
        (builder().join(signaling).await.unwrap(), lobby)
    }

    async fn stop(self) {
        in_time(self.server.shutdown()).await;
        in_time(self.serving).await.unwrap().unwrap();
    }
}
