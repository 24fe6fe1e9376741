//! What a backlog of reliable packets does to the other modes on a slow link. Virtual time, so the figures are exact.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::Duration;

use futures::StreamExt as _;
use support::*;
use tokio::time::Instant;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim;
use webrtc_mesh::{Mesh, MeshEvent, OutgoingPacket, TransferMode};

struct Figures {
    bytes_per_second: f64,
    /// Median and 99 %, by mode.
    latencies: [(Duration, Duration); 2],
}

/// Reliable packets of 16 KiB without end, and a small one of each other mode every 10 ms, for 20 s.
fn with_backlog(loss: f64, delay: Duration, bandwidth: Option<u64>) -> Figures {
    sim::run(1, |network| async move {
        network.links().latency(delay).jitter(delay / 4);
        if let Some(bytes_per_second) = bandwidth {
            network.links().bandwidth(bytes_per_second, 64 * 1024);
        }
        let hub = Hub::new();
        let config = |host: &str| network.peer(host);
        let mut one = Mesh::builder().connection(config("1")).join(hub.join()).await.unwrap();
        let mut two = Mesh::builder().connection(config("2")).join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        network.links().loss(loss);

        let start = Instant::now();
        let handle = one.handle();
        tokio::spawn(async move {
            while handle.send(OutgoingPacket::reliable(id(2), vec![0; 16_384])).await.is_ok() {}
        });
        let handle = one.handle();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                let now = start.elapsed().as_nanos().to_be_bytes().to_vec();
                for mode in [TransferMode::Unreliable, TransferMode::UnreliableOrdered] {
                    if handle.try_send(of(mode, 2, now.clone())).is_err() {
                        return;
                    }
                }
            }
        });
        let mut bytes = 0;
        let mut latencies = [Vec::new(), Vec::new()];
        while start.elapsed() < Duration::from_secs(20) {
            match tokio::time::timeout(LIMIT, two.next()).await.unwrap() {
                Some(MeshEvent::Packet(packet)) if packet.mode == TransferMode::Reliable => {
                    bytes += packet.payload.len();
                }
                Some(MeshEvent::Packet(packet)) => {
                    let sent = u128::from_be_bytes(packet.payload[..].try_into().unwrap());
                    let sent = Duration::from_nanos(u64::try_from(sent).unwrap());
                    latencies[packet.mode as usize].push(start.elapsed() - sent);
                }
                other => panic!("{other:?}"),
            }
        }
        let bytes_per_second = bytes as f64 / start.elapsed().as_secs_f64();
        let latencies = latencies.map(|mut latencies| {
            latencies.sort_unstable();
            assert!(latencies.len() > 1500, "most of 2,000 arrive: {}", latencies.len());
            (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100])
        });
        println!("loss {loss}, {delay:?} each way: {bytes_per_second:.0} B/s, {latencies:?}");
        Figures { bytes_per_second, latencies }
    })
}

#[test]
fn a_reliable_backlog_on_an_uneven_link_delays_the_ordered_mode_by_a_few_round_trips() {
    let figures = with_backlog(0.0, Duration::from_millis(20), None);
    let [(unreliable, _), (ordered, _)] = figures.latencies;
    assert!(unreliable < Duration::from_millis(60), "{unreliable:?}");
    assert!(ordered < Duration::from_millis(160), "{ordered:?}");
    assert!(figures.bytes_per_second > 350_000.0, "{}", figures.bytes_per_second);
}

/// 4 Mbit/s, with a queue that holds 131 ms of it.
#[test]
fn on_a_narrow_link_too() {
    let figures = with_backlog(0.0, Duration::from_millis(20), Some(500_000));
    let [(unreliable, _), (ordered, _)] = figures.latencies;
    assert!(unreliable < Duration::from_millis(160), "{unreliable:?}");
    assert!(ordered < Duration::from_millis(400), "{ordered:?}");
    assert!(figures.bytes_per_second > 350_000.0, "{}", figures.bytes_per_second);
}

#[test]
fn on_a_lossy_link_too() {
    let [(unreliable, _), (ordered, _)] = with_backlog(0.01, Duration::from_millis(20), None).latencies;
    assert!(unreliable < Duration::from_millis(90), "{unreliable:?}");
    assert!(ordered < Duration::from_millis(250), "{ordered:?}");
}
