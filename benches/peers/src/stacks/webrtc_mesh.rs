//! M: webrtc-mesh, this repository.
//!
//! Its defaults, bound to 127.0.0.1. A node is a [`Mesh`]; one task reads its events. `send` waits for room in the mesh's
//! own queue (1 MiB for each peer), packets of the unreliable mode are sent once, and shed from a queue of 256 KiB when
//! there are too many. To all is one packet for [`Target::All`].

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use webrtc_mesh::{
    Mesh, MeshEvent, MeshHandle, OutgoingPacket, PeerConnection, PeerConnectionConfig, PeerId, Signal,
    Target, UnreliableLifetime,
};

use crate::relay::Relay;
use crate::stack::{Inbox, Node, Result, Stack};
use crate::stacks::pairs;

/// This repository.
#[derive(Debug)]
pub struct WebrtcMesh;

impl Stack for WebrtcMesh {
    type Node = MeshHandle;

    async fn open(nodes: usize, inbox: Arc<dyn Inbox>, relay: Option<Arc<Relay>>) -> Result<Vec<MeshHandle>> {
        let (connected, mut connections) = mpsc::unbounded_channel();
        let mut handles = Vec::new();
        for at in 0..nodes {
            let mesh = Mesh::builder().build(id(at)?);
            handles.push(mesh.handle());
            tokio::spawn(read(mesh, at, Arc::clone(&inbox), connected.clone()));
        }
        drop(connected);
        let mut links = JoinSet::new();
        for (a, b) in pairs(nodes) {
            links.spawn(link(handles[a].clone(), handles[b].clone(), relay.clone()));
        }
        while let Some(linked) = links.join_next().await {
            linked??;
        }
        for _ in 0..nodes * (nodes - 1) {
            connections.recv().await.ok_or("a mesh has ended")??;
        }
        Ok(handles)
    }
}

/// Hands over what arrives, and reports each peer that is connected, or fails.
async fn read(
    mut mesh: Mesh,
    at: usize,
    inbox: Arc<dyn Inbox>,
    connected: mpsc::UnboundedSender<Result<()>>,
) {
    while let Some(event) = mesh.next().await {
        match event {
            MeshEvent::Packet(packet) => inbox.message(at, index(packet.from), &packet.payload),
            MeshEvent::PeerConnected(_) => drop(connected.send(Ok(()))),
            MeshEvent::PeerFailed(_, failure) => drop(connected.send(Err(failure.to_string().into()))),
            _ => {}
        }
    }
}

async fn link(a: MeshHandle, b: MeshHandle, relay: Option<Arc<Relay>>) -> Result<()> {
    let config = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
    let here = PeerConnection::new(config.clone()).await?;
    let there = PeerConnection::new(config).await?;
    a.add_peer(here.clone(), b.id(), UnreliableLifetime::Once).await?;
    b.add_peer(there.clone(), a.id(), UnreliableLifetime::Once).await?;
    here.create_offer().await?;
    for (side, from, to) in [(0, here.clone(), there.clone()), (1, there, here)] {
        let relay = relay.clone();
        tokio::spawn(async move {
            let mut signals = from.signals();
            while let Some(signal) = signals.next().await {
                let Some(signal) = told(signal, side, relay.as_deref()) else { continue };
                if to.handle_signal(signal).await.is_err() {
                    // The peer fails at its own time limit, and says why.
                    return;
                }
            }
        });
    }
    Ok(())
}

fn told(mut signal: Signal, from: usize, relay: Option<&Relay>) -> Option<Signal> {
    if let Some(relay) = relay {
        match &mut signal {
            Signal::Description(description) => {
                description.sdp = relay.description(from, &description.sdp);
            }
            Signal::Candidate(candidate) => {
                candidate.candidate = relay.candidate(from, &candidate.candidate)?;
            }
            // What is unknown could name the other's address.
            _ => return None,
        }
    }
    Some(signal)
}

fn id(at: usize) -> Result<PeerId> {
    Ok(PeerId::new(at as u32 + 1)?)
}

fn index(id: PeerId) -> usize {
    id.get() as usize - 1
}

impl Node for MeshHandle {
    async fn send(&self, to: usize, payload: Bytes) -> Result<()> {
        Ok(MeshHandle::send(self, OutgoingPacket::reliable(id(to)?, payload)).await?)
    }

    fn reply(&self, to: usize, payload: Bytes) -> Result<()> {
        self.try_send(OutgoingPacket::reliable(id(to)?, payload)).map_err(|error| error.to_string().into())
    }

    fn fire(&self, to: usize, payload: Bytes) {
        if let Ok(to) = id(to) {
            // Who is not there misses it.
            let _ = self.try_send(OutgoingPacket::unreliable(to, payload));
        }
    }

    fn fire_at_all(&self, payload: Bytes) {
        let _ = self.try_send(OutgoingPacket::unreliable(Target::All, payload));
    }
}
