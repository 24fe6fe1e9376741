//! Readers that sleep, links that are slow: who waits, who is told, and who does not notice.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::{Duration, Instant};

use support::*;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, MeshHandle, OutgoingPacket, TransferMode, TrySendError,
};

async fn flood(
    handle: MeshHandle,
    to: u32,
    packets: u32,
    bytes: usize,
) -> Result<(), webrtc_mesh::SendError> {
    for n in 0..packets {
        let mut payload = vec![0; bytes];
        payload[..4].copy_from_slice(&n.to_be_bytes());
        handle.send(OutgoingPacket::reliable(id(to), payload)).await?;
    }
    Ok(())
}

async fn expect_flood(mesh: &mut Mesh, packets: u32) {
    for n in 0..packets {
        assert_eq!(packet(mesh).await.payload[..4], n.to_be_bytes());
    }
}

async fn sleeps_for(time: Duration, bytes: usize) {
    let mut meshes = full_mesh_of(2, |_| builder().stall_limit(Duration::from_secs(120))).await;
    let mut reader = meshes.pop().unwrap();
    let sender = meshes.pop().unwrap();
    let sending = tokio::spawn(flood(sender.handle(), 2, 10_000, bytes));
    tokio::time::sleep(time).await;
    let woken = Instant::now();
    expect_flood(&mut reader, 10_000).await;
    println!("all there {:?} after waking", woken.elapsed());
    assert!(woken.elapsed() < Duration::from_secs(8), "within seconds of waking");
    sending.await.unwrap().unwrap();
    close_all(vec![sender, reader]).await;
}

#[test]
fn ten_thousand_packets_to_a_reader_that_sleeps_1_s_all_arrive_in_order() {
    promise(sleeps_for(Duration::from_secs(1), 1024));
}

#[test]
fn ten_thousand_packets_to_a_reader_that_sleeps_40_s_all_arrive_in_order() {
    promise(sleeps_for(Duration::from_secs(40), 1024));
}

#[test]
fn a_reader_asleep_past_the_stall_limit_leaves_with_too_slow_and_nobody_else_notices() {
    promise(async {
        let mut meshes = full_mesh_of(3, |_| builder().stall_limit(Duration::from_secs(2))).await;
        let sleeper = meshes.pop().unwrap();
        let mut other = meshes.pop().unwrap();
        let mut sender = meshes.pop().unwrap();
        let flooding = tokio::spawn(flood(sender.handle(), 3, 100_000, 1024));
        let handle = sender.handle();
        let chatting = tokio::spawn(async move {
            for n in 0..300_u32 {
                handle.send(OutgoingPacket::reliable(id(2), n.to_be_bytes().to_vec())).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut slowest = Duration::ZERO;
        let mut last = Instant::now();
        for n in 0..300_u32 {
            assert_eq!(packet(&mut other).await.payload[..4], n.to_be_bytes());
            slowest = slowest.max(last.elapsed());
            last = Instant::now();
        }
        println!("the longest pause of the other was {slowest:?}");
        assert!(slowest < Duration::from_millis(500));
        assert_eq!(next(&mut sender).await, left(3, DisconnectReason::TooSlow));
        assert!(flooding.await.unwrap().is_err());
        chatting.await.unwrap();
        close_all(vec![sender, other, sleeper]).await;
    });
}

#[test]
fn a_full_queue_gives_the_packet_back_and_the_sink_waits_while_handles_go_on() {
    promise(async {
        let mut meshes = full_mesh_of(3, |_| builder().send_queue_bytes(10_000)).await;
        let mut third = meshes.pop().unwrap();
        let mut reader = meshes.pop().unwrap();
        let mut sender = meshes.pop().unwrap();
        let handle = sender.handle();
        let packet_to = |to| OutgoingPacket::reliable(id(to), vec![7; 60_000]);
        let mut taken = 0_u32;
        // The queue, the credits of the reader who does not read, and what is under way.
        let full = loop {
            match handle.try_send(packet_to(2)) {
                Ok(()) => taken += 1,
                Err(TrySendError::Full(packet)) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    if handle.try_send(packet.clone()).is_err() {
                        break packet;
                    }
                    taken += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(full, packet_to(2));
        let mut sink = std::pin::Pin::new(&mut sender);
        use futures::SinkExt as _;
        in_time(sink.feed(packet_to(2))).await.unwrap();
        let not_ready = futures::future::poll_fn(|cx| {
            std::task::Poll::Ready(futures::Sink::poll_ready(sink.as_mut(), cx).is_pending())
        });
        assert!(not_ready.await, "the sink waits for the full peer");
        handle.try_send(packet_to(3)).unwrap();
        assert_eq!(packet(&mut third).await.payload.len(), 60_000);
        for _ in 0..taken + 1 {
            packet(&mut reader).await;
        }
        in_time(sender.flush()).await.unwrap();
        close_all(vec![sender, reader, third]).await;
    });
}

#[test]
fn a_backlog_of_reliable_packets_hardly_delays_the_other_modes() {
    promise(async {
        let (sender, reader) = pair().await;
        let (_, mut events) = reader.split();
        let start = Instant::now();
        let flooding = tokio::spawn(flood(sender.handle(), 2, 20_000, 16_384));
        let handle = sender.handle();
        let ticking = tokio::spawn(async move {
            loop {
                let now = (start.elapsed().as_micros() as u64).to_be_bytes().to_vec();
                for mode in [TransferMode::Unreliable, TransferMode::UnreliableOrdered] {
                    if handle.try_send(of(mode, 2, now.clone())).is_err() {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let mut latencies = [Vec::new(), Vec::new()];
        let mut reliable = 0;
        while reliable < 20_000 {
            match next(&mut events).await {
                MeshEvent::Packet(packet) if packet.mode == TransferMode::Reliable => reliable += 1,
                MeshEvent::Packet(packet) => {
                    let sent = u64::from_be_bytes(packet.payload[..].try_into().unwrap());
                    latencies[packet.mode as usize].push(start.elapsed().as_micros() as u64 - sent);
                }
                other => panic!("{other:?}"),
            }
        }
        let rate = 20_000.0 * 16_384.0 / start.elapsed().as_secs_f64() / 1e6;
        for (mode, latencies) in latencies.iter_mut().enumerate() {
            latencies.sort_unstable();
            let p99 = latencies[latencies.len() * 99 / 100];
            println!(
                "{rate:.0} MB/s, mode {mode}: {} packets, p50 {} µs, p99 {p99} µs",
                latencies.len(),
                latencies[latencies.len() / 2]
            );
            assert!(p99 < 250_000, "p99 {p99} µs");
        }
        ticking.abort();
        flooding.await.unwrap().unwrap();
        drop(events);
        close_all(vec![sender]).await;
    });
}

#[test]
fn a_sleeping_peer_among_eight_delays_nobody_else() {
    promise(async {
        let mut meshes = full_mesh(8).await;
        let sleeper = meshes.pop().unwrap();
        let mut sender = meshes.remove(0);
        // Until the sleeper's queue is full: then only its credits could free it.
        while sender.handle().try_send(OutgoingPacket::reliable(id(8), vec![0; 60_000])).is_ok() {}
        let handle = sender.handle();
        let waiting = tokio::spawn(async move {
            while handle.send(OutgoingPacket::reliable(id(8), vec![0; 60_000])).await.is_ok() {}
        });
        let start = Instant::now();
        let reading = meshes.into_iter().map(|mut mesh| {
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while latencies.len() < 200 {
                    let sent = u64::from_be_bytes(packet(&mut mesh).await.payload[..].try_into().unwrap());
                    latencies.push(start.elapsed().as_micros() as u64 - sent);
                }
                (mesh, latencies)
            })
        });
        let reading: Vec<_> = reading.collect();
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        for _ in 0..200 {
            ticks.tick().await;
            let now = (start.elapsed().as_micros() as u64).to_be_bytes().to_vec();
            for to in 2..8 {
                sender.handle().try_send(OutgoingPacket::reliable(id(to), now.clone())).unwrap();
            }
        }
        let mut latencies = Vec::new();
        let mut others = Vec::new();
        for reading in reading {
            let (mesh, some) = in_time(reading).await.unwrap();
            latencies.extend(some);
            others.push(mesh);
        }
        latencies.sort_unstable();
        let p99 = latencies[latencies.len() * 99 / 100];
        println!("p50 {} µs, p99 {p99} µs beside a sleeper", latencies[latencies.len() / 2]);
        assert!(p99 < 100_000, "{p99} µs");
        drop(sleeper);
        assert!(matches!(next(&mut sender).await, MeshEvent::PeerDisconnected(peer, _) if peer == id(8)));
        in_time(waiting).await.unwrap();
        drop((sender, others));
    });
}

#[test]
fn unreliable_packets_that_a_slow_reader_or_link_does_not_take_are_shed_and_counted() {
    promise(async {
        let mut meshes = full_mesh_of(2, |_| builder().unreliable_queue_bytes(20_000)).await;
        let mut reader = meshes.pop().unwrap();
        let mut sender = meshes.pop().unwrap();
        let total = 20_000_u32;
        for n in 0..total {
            let mode = if n % 2 == 0 { TransferMode::Unreliable } else { TransferMode::UnreliableOrdered };
            let payload = [&n.to_be_bytes()[..], &[0; 500]].concat();
            sender.handle().try_send(of(mode, 2, payload)).unwrap();
            if n % 1000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        sender.handle().try_send(of(TransferMode::Reliable, 2, "done")).unwrap();
        let (mut received, mut shed) = (0_u64, 0_u64);
        let mut done = false;
        // The last unreliable ones may come after the reliable one: until nothing comes any more.
        loop {
            let wait = if done { Duration::from_millis(500) } else { LIMIT };
            match tokio::time::timeout(wait, futures::StreamExt::next(&mut reader)).await {
                Ok(Some(MeshEvent::Packet(packet))) if packet.mode == TransferMode::Reliable => done = true,
                Ok(Some(MeshEvent::Packet(_))) => received += 1,
                Ok(Some(MeshEvent::Lagged { dropped, .. })) => shed += dropped,
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
        sender.handle().close().await;
        loop {
            match next(&mut sender).await {
                MeshEvent::Lagged { peer, dropped, mode } => {
                    assert!(peer == id(2) && mode != TransferMode::Reliable);
                    shed += dropped;
                }
                MeshEvent::PeerDisconnected(_, _) => break,
                other => panic!("{other:?}"),
            }
        }
        println!("{received} received, {shed} shed");
        assert!(shed > 0 && received > 0);
        assert_eq!(received + shed, u64::from(total), "each was received or counted: loopback loses none");
        close_all(vec![reader]).await;
    });
}

/// All of those that a broadcast has overfilled, not the first of them.
#[test]
fn the_sink_waits_for_every_full_target_of_a_broadcast() {
    promise(async {
        let mut meshes = full_mesh_of(3, |_| builder().send_queue_bytes(10_000)).await;
        let sleeper = meshes.pop().unwrap();
        let mut reader = meshes.pop().unwrap();
        let mut sender = meshes.pop().unwrap();
        let handle = sender.handle();
        for to in [2, 3] {
            let full = || handle.try_send(OutgoingPacket::reliable(id(to), vec![7; 60_000])).is_err();
            // Until it is full and stays so.
            while !full() || {
                tokio::time::sleep(Duration::from_millis(100)).await;
                !full()
            } {}
        }
        use futures::SinkExt as _;
        let broadcast = OutgoingPacket::reliable(webrtc_mesh::Target::All, vec![7; 60_000]);
        in_time(sender.feed(broadcast)).await.unwrap();
        let reading = tokio::spawn(async move {
            loop {
                if !matches!(futures::StreamExt::next(&mut reader).await, Some(MeshEvent::Packet(_))) {
                    return;
                }
            }
        });
        // The one that reads has room soon; the other never.
        while handle.try_send(OutgoingPacket::reliable(id(2), "room?")).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let flushed = tokio::time::timeout(Duration::from_millis(300), sender.flush()).await;
        assert!(flushed.is_err(), "the sleeper's queue is over its bound");
        drop(sleeper);
        in_time(sender.flush()).await.unwrap();
        drop(sender);
        in_time(reading).await.unwrap();
    });
}
