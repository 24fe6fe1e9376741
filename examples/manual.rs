//! Adding peers by hand, without the crate's signalling: two meshes, and every signal that goes between them.
//!
//! ```text
//! cargo run --example manual
//! ```
//!
//! What is a function call here would be a web server, a chat or a QR code: a signal is a description (an offer or an
//! answer, in SDP) or an address at which a side may be reached, and anything that carries text carries it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is its output")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::timeout;
use webrtc_mesh::{
    Mesh, MeshEvent, OutgoingPacket, Packet, PeerConnection, PeerConnectionConfig, PeerId, Signal,
    SignalStream, UnreliableLifetime,
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
    // Who is who is agreed on beforehand, by whatever brings the two together.
    let (alice, bob) = (PeerId::new(1)?, PeerId::new(2)?);
    let mut alices = Mesh::builder().build(alice);
    let mut bobs = Mesh::builder().build(bob);

    // Each side makes a connection for the other, and adds it while it is new.
    let config = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
    let to_bob = PeerConnection::new(config.clone()).await?;
    let to_alice = PeerConnection::new(config).await?;
    alices.handle().add_peer(to_bob.clone(), bob, UnreliableLifetime::Once).await?;
    bobs.handle().add_peer(to_alice.clone(), alice, UnreliableLifetime::Once).await?;

    // Exactly one side offers. From here on, what one has to say is handed to the other, until it is closed.
    to_bob.create_offer().await?;
    let there = tokio::spawn(carry("1 -> 2", to_bob.signals(), to_alice.clone()));
    let back = tokio::spawn(carry("2 -> 1", to_alice.signals(), to_bob.clone()));

    // Both learn that the other is there. Sending waits for that; receiving needs nothing.
    expect(alice, &mut alices, MeshEvent::PeerConnected(bob)).await?;
    expect(bob, &mut bobs, MeshEvent::PeerConnected(alice)).await?;

    alices.handle().send(OutgoingPacket::reliable(bob, "Hello Bob")).await?;
    print_packet(bob, &mut bobs).await?;
    bobs.handle().send(OutgoingPacket::unreliable(alice, "Hello Alice")).await?;
    print_packet(alice, &mut alices).await?;

    // Removing a peer says goodbye to it, and the other side sees it leave.
    alices.handle().remove_peer(bob).await?;
    print_event(alice, &mut alices).await?;
    print_event(bob, &mut bobs).await?;
    println!("1 still has a peer 2: {}", alices.handle().has_peer(bob).await);

    alices.handle().close().await;
    bobs.handle().close().await;
    // The connections are closed, so there are no more signals.
    there.await?;
    back.await?;
    println!("closed");
    Ok(())
}

/// Hands every signal of one side to the connection of the other, and prints it.
async fn carry(way: &'static str, mut signals: SignalStream, to: PeerConnection) {
    while let Some(signal) = signals.next().await {
        match &signal {
            Signal::Description(description) => {
                println!("{way}  {:?}, {} bytes of SDP:", description.kind, description.sdp.len());
                description.sdp.lines().for_each(|line| println!("          {line}"));
            }
            Signal::Candidate(candidate) => println!("{way}  {}", candidate.candidate),
            other => println!("{way}  {other:?}"),
        }
        // A bad signal is the other side's mistake; the connection stays as it was.
        if let Err(error) = to.handle_signal(signal).await {
            println!("{way}  not taken: {error}");
        }
    }
}

async fn expect(who: PeerId, mesh: &mut Mesh, expected: MeshEvent) -> Result<(), Box<dyn Error>> {
    match print_event(who, mesh).await? {
        event if event == expected => Ok(()),
        event => Err(format!("{expected:?} was expected, not {event:?}").into()),
    }
}

async fn print_packet(who: PeerId, mesh: &mut Mesh) -> Result<(), Box<dyn Error>> {
    match mesh.next().await {
        Some(MeshEvent::Packet(Packet { from, mode, payload })) => {
            println!("{who} got from {from}, {mode:?}: {:?}", String::from_utf8_lossy(&payload));
            Ok(())
        }
        other => Err(format!("a packet was expected, not {other:?}").into()),
    }
}

async fn print_event(who: PeerId, mesh: &mut Mesh) -> Result<MeshEvent, Box<dyn Error>> {
    let event = mesh.next().await.ok_or("the mesh ended")?;
    println!("{who} sees {event:?}");
    Ok(event)
}
