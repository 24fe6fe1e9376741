//! Both sides offer, and every message of theirs takes its own time: one link comes of it, and it stays.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::*;
use tokio::sync::mpsc;
use tokio::time::Instant;
use webrtc_mesh::{Mesh, MeshEvent, PeerId, Signal, Signaling, SignalingError, SignalingEvent};

/// Signalling for two, which tells both to offer, and delivers each signal after a time of its own, in any order,
/// some of them twice, and loses some.
struct Crossing {
    me: PeerId,
    other: PeerId,
    to_other: mpsc::UnboundedSender<SignalingEvent>,
    here: mpsc::UnboundedReceiver<SignalingEvent>,
    dice: StdRng,
    slowest: Duration,
    loss: f64,
}

/// The queues are unbounded: two members send some ten signals for each attempt.
fn crossing(seed: u64, slowest: Duration, loss: f64) -> [Crossing; 2] {
    let (to_one, one) = mpsc::unbounded_channel();
    let (to_two, two) = mpsc::unbounded_channel();
    let end = |me, other, to_other, here| {
        let dice = StdRng::seed_from_u64(seed * 2 + u64::from(me == id(1)));
        Crossing { me, other, to_other, here, dice, slowest, loss }
    };
    [end(id(1), id(2), to_two, one), end(id(2), id(1), to_one, two)]
}

impl Crossing {
    fn later(&mut self, event: SignalingEvent) {
        let after = self.slowest.mul_f64(self.dice.random());
        let to_other = self.to_other.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let _ = to_other.send(event);
        });
    }
}

#[async_trait]
impl Signaling for Crossing {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        let _ = self.to_other.send(SignalingEvent::PeerJoined { peer: self.me, we_offer: true });
        Ok(self.me)
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        self.here.recv().await.ok_or(SignalingError::Closed)
    }

    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
        assert_eq!(to, self.other);
        if self.dice.random_bool(self.loss) {
            return Ok(());
        }
        let again = self.dice.random_bool(0.2);
        for _ in 0..=usize::from(again) {
            self.later(SignalingEvent::Signal { from: self.me, signal: signal.clone() });
        }
        Ok(())
    }
}

/// The links of two meshes that both offer, over many orders of their messages; how long the slowest took.
fn links(seeds: std::ops::Range<u64>, slowest: Duration, loss: f64, limit: Duration) {
    let mut worst = Duration::ZERO;
    for seed in seeds {
        simulated(seed, |network| {
            let worst = &mut worst;
            async move {
                let mut meshes = Vec::new();
                for signaling in crossing(seed, slowest, loss) {
                    let config = network.peer(&signaling.me.to_string());
                    meshes.push(Mesh::builder().connection(config).join(signaling).await.unwrap());
                }
                let since = Instant::now();
                let (mut two, mut one) = (meshes.pop().unwrap(), meshes.pop().unwrap());
                assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
                assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
                let took = since.elapsed();
                assert!(took < limit, "seed {seed}: {took:?}");
                *worst = took.max(*worst);
                // What is late by now does no harm to it.
                tokio::time::sleep(slowest + Duration::from_secs(20)).await;
                talk(&one, &mut two, "are you still the one?").await;
                talk(&two, &mut one, "I am.").await;
                close_all(vec![one, two]).await;
            }
        });
    }
    println!("signals up to {slowest:?} late, {loss} lost: the slowest link was up after {worst:?}");
}

#[test]
fn of_two_offers_that_cross_one_link_comes() {
    links(0..100, Duration::from_millis(100), 0.0, Duration::from_secs(3));
}

#[test]
fn of_two_offers_on_a_slow_way_that_keeps_no_order_one_link_comes() {
    links(0..50, Duration::from_secs(2), 0.0, Duration::from_secs(20));
}

#[test]
fn of_two_offers_on_a_way_that_loses_and_doubles_one_link_comes() {
    links(0..50, Duration::from_millis(500), 0.1, Duration::from_secs(40));
}
