//! Links that come up and stay up on bad networks. Virtual time, the real ICE, DTLS and SCTP.

mod support;

use std::time::Duration;

use support::*;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{MeshEvent, OutgoingPacket};

#[test]
fn every_link_comes_up_at_5_percent_loss() {
    let mut slowest = Duration::ZERO;
    for seed in 0..100 {
        simulated(seed, |network| async move {
            network.set_loss(0.05);
            let hub = Hub::new();
            let mut meshes = Vec::new();
            for n in 1..=2 {
                let config = config().runtime(network.runtime(&n.to_string()));
                meshes.push(builder().connection(config).join(hub.join()).await.unwrap());
            }
            let since = tokio::time::Instant::now();
            assert_eq!(next(&mut meshes[0]).await, MeshEvent::PeerConnected(id(2)));
            assert_eq!(next(&mut meshes[1]).await, MeshEvent::PeerConnected(id(1)));
            println!("{seed}: {:?}", since.elapsed());
            close_all(meshes).await;
        });
    }
    let _ = &mut slowest;
}
