//! The same seed, the same run.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::{self, Network, Traffic};
use webrtc_mesh::{Mesh, MeshEvent, OutgoingPacket, Target, TransferMode};

/// What one run of a seed has shown.
#[derive(Debug, PartialEq)]
struct Run {
    /// What each mesh read, and when.
    events: BTreeMap<String, Vec<(Duration, String)>>,
    /// What each link carried.
    links: BTreeMap<(String, String), Traffic>,
}

/// `n` meshes on a bad network that meet, through a relay or not, say something in every mode, and close, one after another.
async fn a_small_mesh(network: Network, n: usize, loss: f64, relayed: bool) -> Run {
    let relay = network.host("relay").turn_server("user", "secret").unwrap();
    network.links().loss(loss).jitter(Duration::from_millis(15)).duplication(0.02);
    let (hub, start) = (Hub::new(), tokio::time::Instant::now());
    let names: Vec<String> = (1..=n).map(|n| format!("host {n}")).collect();
    let mut readers = Vec::new();
    let mut handles = Vec::new();
    for name in &names {
        let config = network.peer(name);
        let config = if relayed { config.ice_server(relay.ice_server()).relay_only(true) } else { config };
        let mut mesh = Mesh::builder().connection(config).join(hub.join()).await.unwrap();
        handles.push(mesh.handle());
        readers.push(tokio::spawn(async move {
            let mut events = Vec::new();
            while let Some(event) = mesh.next().await {
                if let MeshEvent::PeerConnected(peer) = event {
                    for mode in
                        [TransferMode::Reliable, TransferMode::Unreliable, TransferMode::UnreliableOrdered]
                    {
                        let packet = OutgoingPacket::new(peer, mode, format!("{mode:?}"));
                        let _ = mesh.handle().try_send(packet);
                    }
                }
                events.push((start.elapsed(), format!("{event:?}")));
            }
            events
        }));
    }
    // Over a relay twice as many datagrams are lost, so an attempt may end, after 8 s, and another follow.
    tokio::time::sleep(Duration::from_secs(if relayed { 25 } else { 4 })).await;
    for (number, handle) in handles.iter().enumerate() {
        for size in [1, 10_000] {
            let _ = handle.send(OutgoingPacket::reliable(Target::All, vec![number as u8; size])).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for handle in handles {
        handle.close().await;
    }
    let mut events = BTreeMap::new();
    for (name, reader) in names.iter().zip(readers) {
        events.insert(name.clone(), reader.await.unwrap());
    }
    let mut links = BTreeMap::new();
    for (one, other) in names.iter().flat_map(|one| names.iter().map(move |other| (one, other))) {
        links.insert((one.clone(), other.clone()), network.link(one, other).traffic());
    }
    Run { events, links }
}

/// The seed, and whatever is different.
fn differences(seed: u64, relayed: bool) -> Option<String> {
    let once = sim::run(seed, |network| a_small_mesh(network, 3, 0.05, relayed));
    let again = sim::run(seed, |network| a_small_mesh(network, 3, 0.05, relayed));
    assert!(once.events.values().all(|events| events.len() > 2), "{once:?}");
    for (name, events) in &once.events {
        let others = &again.events[name];
        if let Some(at) = (0..events.len().max(others.len())).find(|at| events.get(*at) != others.get(*at)) {
            return Some(format!("seed {seed}: {name} read {:?} and {:?}", events.get(at), others.get(at)));
        }
    }
    let different = once.links.iter().find(|(link, traffic)| again.links[*link] != **traffic);
    different.map(|(link, traffic)| {
        format!("seed {seed}: {link:?} carried {traffic:?} and {:?}", again.links[link])
    })
}

#[test]
fn a_hundred_seeds_run_the_same_way_twice() {
    let halves = [0..50, 50..100].map(|seeds| {
        std::thread::spawn(|| seeds.filter_map(|seed| differences(seed, false)).collect::<Vec<_>>())
    });
    let different: Vec<String> = halves.into_iter().flat_map(|half| half.join().unwrap()).collect();
    assert!(different.is_empty(), "{} of 100:\n{}", different.len(), different.join("\n"));
}

#[test]
fn another_seed_is_another_run() {
    let run = |seed| sim::run(seed, |network| a_small_mesh(network, 2, 0.05, false));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_relayed_mesh_runs_the_same_way_twice_too() {
    let different: Vec<String> = (0..5).filter_map(|seed| differences(seed, true)).collect();
    assert!(different.is_empty(), "{} of 5:\n{}", different.len(), different.join("\n"));
}
