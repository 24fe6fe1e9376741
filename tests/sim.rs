//! The simulator keeps its own promises: what it does to datagrams, whom a NAT lets in, and that a seed fixes a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fault in a test is a failed test"
)]

#[path = "sim/determinism.rs"]
mod determinism;
#[path = "sim/hosts.rs"]
mod hosts;
#[path = "sim/links.rs"]
mod links;
#[path = "sim/nats.rs"]
mod nats;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::{Instant, timeout};
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::{Network, UdpSocket};
use webrtc_mesh::{Mesh, MeshEvent, PeerConnectionConfig};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Two hosts, "alice" and "bob", with a socket each.
fn two_sockets(network: &Network) -> (UdpSocket, UdpSocket) {
    (network.host("alice").bind(0).unwrap(), network.host("bob").bind(0).unwrap())
}

/// Everything that arrives until nothing has for a second: what, from where, and how long after `start`.
async fn arrivals(socket: &mut UdpSocket, start: Instant) -> Vec<(Vec<u8>, SocketAddr, Duration)> {
    let mut all = Vec::new();
    while let Ok((bytes, from)) = timeout(ms(1_000), socket.recv_from()).await {
        all.push((bytes, from, start.elapsed()));
    }
    all
}

/// Whether the next datagram is this.
async fn hears(socket: &mut UdpSocket, what: &[u8]) -> bool {
    timeout(ms(1_000), socket.recv_from()).await.is_ok_and(|(bytes, _)| bytes == what)
}

/// Two meshes that are about to meet.
async fn two_meshes(one: PeerConnectionConfig, two: PeerConnectionConfig) -> (Mesh, Mesh) {
    let hub = Hub::new();
    let one = Mesh::builder().connection(one).join(hub.join()).await.unwrap();
    (one, Mesh::builder().connection(two).join(hub.join()).await.unwrap())
}

/// Whether two such meshes meet, or fail.
async fn meet(one: PeerConnectionConfig, two: PeerConnectionConfig) -> bool {
    let (mut one, mut two) = two_meshes(one, two).await;
    let met = matches!(one.next().await, Some(MeshEvent::PeerConnected(_)))
        && matches!(two.next().await, Some(MeshEvent::PeerConnected(_)));
    one.handle().close().await;
    two.handle().close().await;
    met
}
