//! Whoever leaves is missed at once: within a round trip, however it leaves.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::Duration;

use support::*;
use tokio::time::Instant;
use webrtc_mesh::sim::Network;
use webrtc_mesh::{DisconnectReason, MeshEvent};

/// One way takes 20 ms, and up to a quarter more.
const ROUND_TRIP: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy)]
enum Way {
    Close,
    RemovePeer,
    Drop,
}

/// How long it takes until two misses one, which goes this way, at this loss.
async fn missed_after(network: Network, way: Way, loss: f64) -> Duration {
    let (one, mut two) = sim_pair(&network).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    network.links().loss(loss);
    let since = Instant::now();
    let kept = match way {
        Way::Close => {
            let handle = one.handle();
            tokio::spawn(async move { handle.close().await });
            Some(one)
        }
        Way::RemovePeer => {
            let handle = one.handle();
            tokio::spawn(async move { handle.remove_peer(id(2)).await });
            Some(one)
        }
        Way::Drop => {
            drop(one);
            None
        }
    };
    let took = loop {
        match next(&mut two).await {
            MeshEvent::PeerUnstable(_) | MeshEvent::PeerRecovered(_) => {}
            event => {
                let reasons = [DisconnectReason::RemoteClose, DisconnectReason::ConnectionLost];
                assert!(reasons.into_iter().any(|reason| event == left(1, reason)), "{event:?}");
                break since.elapsed();
            }
        }
    };
    network.links().loss(0.0);
    close_all(kept.into_iter().chain([two]).collect()).await;
    took
}

#[test]
fn whoever_leaves_is_missed_within_a_round_trip() {
    for way in [Way::Close, Way::RemovePeer, Way::Drop] {
        simulated(1, |network| async move {
            let took = missed_after(network, way, 0.0).await;
            println!("{way:?}: missed after {took:?}");
            assert!(took <= ROUND_TRIP, "{way:?}: {took:?}");
        });
    }
}

#[test]
fn most_are_missed_at_once_on_a_network_that_loses_a_fifth() {
    for way in [Way::Close, Way::RemovePeer, Way::Drop] {
        let mut took = Vec::new();
        for seed in 0..40 {
            simulated(seed, |network| {
                let took = &mut took;
                async move { took.push(missed_after(network, way, 0.2).await) }
            });
        }
        took.sort_unstable();
        println!(
            "{way:?}: half after {:?}, nine of ten after {:?}, all after {:?}",
            took[20], took[36], took[39]
        );
    }
}
