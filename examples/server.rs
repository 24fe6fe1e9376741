//! A server-compatible mesh: for its clients, being connected means being connected to peer 1, the server.
//!
//! ```text
//! cargo run --example server -- [CLIENTS]
//! ```
//!
//! A server and `CLIENTS` clients (default 3) meet; the server leaves; the clients see it, stay connected to each
//! other, and say goodbye. In Godot's terms: `initialize(id, true)`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is its output")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::timeout;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    Mesh, MeshBuilder, MeshEvent, OutgoingPacket, Packet, PeerConnectionConfig, PeerId, SendError, Target,
};

/// For everything together.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    match timeout(LIMIT, run()).await {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => eprintln!("error: {error}"),
        Err(_) => eprintln!("error: not done after {} s", LIMIT.as_secs()),
    }
    ExitCode::FAILURE
}

async fn run() -> Result<(), Box<dyn Error>> {
    let clients: usize = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|_| format!("CLIENTS is a number, not {text:?}"))?,
        None => 3,
    };
    if clients == 0 {
        return Err("CLIENTS is 1 or more".into());
    }
    // The clients come first: until the server is there, they are connecting, and hear of nobody.
    let hub = Hub::new();
    let mut waiting = Vec::new();
    for _ in 0..clients {
        let client = builder().join(hub.join_as(PeerId::random())).await?;
        say(&client, "joined");
        waiting.push(client);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;

    let mut server = builder().join(hub.join()).await?;
    say(&server, "joined, and is the server");
    see_everybody(&mut server, clients).await?;
    for client in &mut waiting {
        see_everybody(client, clients).await?;
    }

    // One packet to all clients, and the answers.
    server.handle().send(OutgoingPacket::reliable(Target::All, "Welcome")).await?;
    for client in &mut waiting {
        print_packet(client).await?;
        client.handle().send(OutgoingPacket::reliable(Target::SERVER, "Thank you")).await?;
    }
    for _ in 0..clients {
        print_packet(&mut server).await?;
    }

    // The server leaves. The clients' status changes, but their own links stay.
    server.handle().close().await;
    while let Some(event) = server.next().await {
        say(&server, format_args!("{event:?}"));
    }
    for client in &mut waiting {
        loop {
            let event = client.next().await.ok_or("a client's mesh ended")?;
            say(client, format_args!("{event:?}"));
            if event == MeshEvent::ServerDisconnected {
                break;
            }
        }
        match client.handle().send(OutgoingPacket::reliable(Target::SERVER, "Still there?")).await {
            Err(SendError::UnknownPeer(server)) => say(client, format_args!("has no peer {server} now")),
            other => return Err(format!("the server is gone, but sending to it gave {other:?}").into()),
        }
    }
    let others = waiting[0].handle().peers().await;
    say(&waiting[0], format_args!("still has {:?}", others.into_keys().collect::<Vec<_>>()));

    for client in &waiting {
        client.handle().close().await;
        say(client, "closed");
    }
    Ok(())
}

fn builder() -> MeshBuilder {
    let connection = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
    Mesh::builder().server_compatibility(true).connection(connection)
}

/// Reads a mesh's events until it is connected to so many others.
async fn see_everybody(mesh: &mut Mesh, others: usize) -> Result<(), Box<dyn Error>> {
    let mut connected = 0;
    while connected < others {
        let event = mesh.next().await.ok_or("a mesh ended")?;
        say(mesh, format_args!("{event:?}"));
        match event {
            MeshEvent::PeerConnected(_) => connected += 1,
            MeshEvent::ConnectionFailed(failure) => return Err(format!("no server: {failure}").into()),
            _ => {}
        }
    }
    Ok(())
}

async fn print_packet(mesh: &mut Mesh) -> Result<(), Box<dyn Error>> {
    match mesh.next().await {
        Some(MeshEvent::Packet(Packet { from, payload, .. })) => {
            say(mesh, format_args!("got from {from}: {:?}", String::from_utf8_lossy(&payload)));
            Ok(())
        }
        other => Err(format!("a packet was expected, not {other:?}").into()),
    }
}

fn say(mesh: &Mesh, what: impl std::fmt::Display) {
    let who = if mesh.handle().is_server() { "server".to_owned() } else { format!("client {}", mesh.id()) };
    println!("{who:<18} {:<13} {what}", format!("[{:?}]", mesh.handle().status()));
}
