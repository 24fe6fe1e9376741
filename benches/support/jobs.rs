//! What is done with a star: packets one way, and round trips.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use webrtc_mesh::TransferMode;

use super::{End, Input as _, Payload, Star};

/// So many packets from the hub to each end, all at once, from the first sent to the last received.
///
/// Each end sees that each packet comes, once and in order.
pub async fn one_way<E: End>(count: u64, payload: &Payload, star: &mut Star<E>) -> Duration {
    const MODE: TransferMode = TransferMode::Reliable;
    let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
    let began = Instant::now();
    for mut end in star.ends.drain(..) {
        let payload = payload.clone();
        receivers.spawn(async move {
            for expected in 0..count {
                assert_eq!(payload.number(&end.take(MODE).await), expected);
            }
            end
        });
    }
    for input in star.hub.iter().map(End::input) {
        let payload = payload.clone();
        senders.spawn(async move {
            for number in 0..count {
                input.put(MODE, payload.make(number)).await;
            }
        });
    }
    senders.join_all().await;
    star.ends = receivers.join_all().await;
    began.elapsed()
}

/// So many round trips between the hub and its one end, one after the other.
pub async fn ping_pong<E: End>(
    count: u64,
    mode: TransferMode,
    payload: &Payload,
    star: &mut Star<E>,
) -> Vec<Duration> {
    let (Some(mut hub), Some(mut end)) = (star.hub.pop(), star.ends.pop()) else { return Vec::new() };
    let payload = payload.clone();
    let echo = tokio::spawn(async move {
        let back = end.input();
        for _ in 0..count {
            let packet = end.take(mode).await;
            back.put(mode, packet.into()).await;
        }
        end
    });
    let ping = tokio::spawn(async move {
        let there = hub.input();
        let mut times = Vec::with_capacity(count as usize);
        for number in 0..count {
            let began = Instant::now();
            there.put(mode, payload.make(number)).await;
            assert_eq!(payload.number(&hub.take(mode).await), number);
            times.push(began.elapsed());
        }
        (hub, times)
    });
    let (hub, times) = ping.await.expect("the round trips");
    star.hub.push(hub);
    star.ends.push(echo.await.expect("the echo"));
    times
}
