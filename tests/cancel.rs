//! Whoever stops waiting loses what the documentation says, and nothing else: every public `async fn` is polled so
//! many times, as its waker asks, and then dropped.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use support::*;
use tokio::net::UdpSocket;
use webrtc_mesh::signaling::loopback::{Hub, LoopbackSignaling};
use webrtc_mesh::{
    AddPeerError, ConnectionError, ConnectionState, ConnectionStatus, DisconnectReason, IceCandidate,
    MeshEvent, OutgoingPacket, PeerConnection, PeerId, SendError, Signal, Signaling, SignalingError,
    SignalingEvent, Target, TransferMode, UnreliableLifetime,
};

/// The port shows it: it is free again.
#[test]
fn a_connection_whose_making_was_dropped_is_none() {
    promise(async {
        let port = UdpSocket::bind(loopback()).await.unwrap().local_addr().unwrap().port();
        let config = || config().port_range(port..=port);
        for polls in 0.. {
            let made = dropped_after(polls, PeerConnection::new(config())).await;
            let finished = made.is_some();
            if let Some(made) = made {
                in_time(made.unwrap().close()).await;
            }
            until(async || PeerConnection::new(config()).map(|made| made.is_ok()).await).await;
            until(async || UdpSocket::bind((loopback().ip(), port)).await.is_ok()).await;
            if finished {
                return;
            }
        }
    });
}

#[test]
fn an_offer_that_was_begun_is_made() {
    promise(async {
        for polls in 0.. {
            let one = builder().build(id(1));
            let connection = connection().await;
            add(&one, &connection, 2).await.unwrap();
            let offered = dropped_after(polls, connection.create_offer()).await;
            if polls == 0 {
                assert_eq!(connection.state(), ConnectionState::New);
                connection.create_offer().await.unwrap();
            }
            let offer = in_time(connection.signals().next()).await.unwrap();
            assert!(matches!(offer, Signal::Description(_)), "{offer:?}");
            let again = connection.create_offer().await;
            assert!(matches!(again, Err(ConnectionError::OutOfTurn(_))), "{again:?}");
            close_all(vec![one]).await;
            if offered.is_some() {
                return;
            }
        }
    });
}

#[test]
fn a_signal_that_was_begun_is_taken() {
    promise(async {
        for polls in 1.. {
            let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
            let (here, there) = (connection().await, connection().await);
            add(&one, &here, 2).await.unwrap();
            add(&two, &there, 1).await.unwrap();
            here.create_offer().await.unwrap();
            let mut finished = true;
            for (from, to) in [(&here, &there), (&there, &here)] {
                let mut signals = from.signals();
                for _ in 0..2 {
                    let mut signal = in_time(signals.next()).await.unwrap();
                    if let Signal::Description(description) = signal {
                        signal = Signal::Description(without_candidates(description));
                    }
                    finished &= dropped_after(polls, to.handle_signal(signal)).await.is_some();
                }
            }
            assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)), "{polls} polls");
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)), "{polls} polls");
            close_all(vec![one, two]).await;
            if finished {
                return;
            }
        }
    });
}

#[test]
fn a_connection_whose_closing_was_begun_closes() {
    promise(async {
        for polls in 0.. {
            let connection = connection().await;
            let finished = dropped_after(polls, connection.close()).await.is_some();
            if polls == 0 {
                assert_eq!(connection.state(), ConnectionState::New);
                continue;
            }
            until(async || connection.state() == ConnectionState::Closed).await;
            if finished {
                return;
            }
        }
    });
}

#[test]
fn a_peer_whose_adding_was_dropped_is_there_or_is_not_and_both_can_be_told() {
    promise(async {
        for polls in 0.. {
            let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
            let (first, there) = (connection().await, connection().await);
            let handle = one.handle();
            let adding = handle.add_peer(first.clone(), id(2), UnreliableLifetime::default());
            let added = dropped_after(polls, adding).await;
            let second = connection().await;
            let here = match add(&one, &second, 2).await {
                Ok(()) => {
                    assert_eq!(added, None);
                    second
                }
                Err(AddPeerError::AlreadyExists(peer)) => {
                    assert_eq!(peer, id(2));
                    // Its channels are made by a task of its own; whoever dropped the wait does not know when.
                    until(async || match first.create_offer().await {
                        Ok(()) => true,
                        Err(ConnectionError::OutOfTurn(_)) => false,
                        Err(other) => panic!("{other:?}"),
                    })
                    .await;
                    first.clone()
                }
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(handle.peer(id(2)).await.unwrap().connection, here);
            if here != first {
                assert_eq!(first.state(), ConnectionState::New, "it stays as it was");
                here.create_offer().await.unwrap();
            }
            add(&two, &there, 1).await.unwrap();
            carry(&here, &there);
            assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
            assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
            close_all(vec![one, two]).await;
            if let Some(added) = added {
                return added.unwrap();
            }
        }
    });
}

#[test]
fn a_peer_whose_removal_was_begun_leaves() {
    promise(async {
        for polls in 0.. {
            let (mut one, mut two) = pair().await;
            one.handle().send(OutgoingPacket::reliable(id(2), "the last")).await.unwrap();
            let removed = dropped_after(polls, one.handle().remove_peer(id(2))).await;
            if polls == 0 {
                talk(&two, &mut one, "still here").await;
                in_time(one.handle().remove_peer(id(2))).await.unwrap();
            }
            assert_eq!(next(&mut one).await, left(2, DisconnectReason::Removed), "{polls} polls");
            assert_eq!(next(&mut two).await, said(1, "the last"));
            assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
            close_all(vec![one, two]).await;
            if let Some(removed) = removed {
                return removed.unwrap();
            }
        }
    });
}

#[test]
fn what_only_looks_is_ready_at_once() {
    promise(async {
        let (one, mut two) = pair().await;
        let handle = one.handle();
        assert!(dropped_after(1, handle.peer(id(2))).await.unwrap().unwrap().connected);
        assert_eq!(dropped_after(1, handle.peers()).await.unwrap().len(), 1);
        assert!(dropped_after(1, handle.has_peer(id(2))).await.unwrap());
        // So is what has room.
        assert_eq!(dropped_after(1, handle.put_packet("put")).await, Some(Ok(())));
        let packet = OutgoingPacket::reliable(id(2), "sent");
        assert_eq!(dropped_after(1, handle.send(packet.clone())).await, Some(Ok(())));
        assert_eq!(dropped_after(0, handle.send(packet)).await, None);
        assert_eq!(next(&mut two).await, said(1, "put"));
        assert_eq!(next(&mut two).await, said(1, "sent"));
        is_silent(&mut two).await;
        close_all(vec![one, two]).await;
    });
}

/// What was accepted arrives, in order, at everyone; what was given up arrives nowhere.
#[test]
fn a_packet_that_was_given_up_before_there_was_room_is_not_sent() {
    promise(async {
        for polls in 1..=3 {
            let mut meshes =
                full_mesh_of(3, |_| builder().send_queue_bytes(100_000).receive_window_bytes(0)).await;
            let (one, readers) = (meshes.remove(0), meshes);
            let reading = readers.into_iter().enumerate().map(|(place, mut mesh)| {
                tokio::spawn(async move {
                    let mut received = Vec::new();
                    loop {
                        let packet = packet(&mut mesh).await;
                        if packet.payload.is_empty() {
                            return (mesh, received);
                        }
                        received.push(u32::from_be_bytes(packet.payload[..4].try_into().unwrap()));
                        // One reads more slowly than the other.
                        tokio::time::sleep(Duration::from_millis(1 + place as u64)).await;
                    }
                })
            });
            let reading: Vec<_> = reading.collect();
            let handle = one.handle();
            let (mut accepted, mut given_up) = ([Vec::new(), Vec::new()], 0);
            for n in 0..400_u32 {
                let mut payload = vec![0; 20_000];
                payload[..4].copy_from_slice(&n.to_be_bytes());
                let payload = Bytes::from(payload);
                let (target, receivers) = match n % 4 {
                    0 => (Target::Peer(id(2)), &[0][..]),
                    1 => (Target::Peer(id(3)), &[1][..]),
                    _ => (Target::All, &[0, 1][..]),
                };
                let sent = if n % 2 == 0 {
                    dropped_after(polls, handle.send(OutgoingPacket::reliable(target, payload))).await
                } else {
                    handle.set_target(target);
                    dropped_after(polls, handle.put_packet(payload)).await
                };
                match sent {
                    Some(result) => {
                        result.unwrap();
                        receivers.iter().for_each(|receiver| accepted[*receiver].push(n));
                    }
                    None => {
                        given_up += 1;
                        // Or all would be over before the readers have read one.
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                }
            }
            for reader in [2, 3] {
                in_time(handle.send(OutgoingPacket::reliable(id(reader), ""))).await.unwrap();
            }
            assert!(polls > 1 || given_up > 0, "the queues were never full");
            let mut meshes = vec![one];
            for (reading, accepted) in reading.into_iter().zip(accepted) {
                let (mesh, received) = in_time(reading).await.unwrap();
                assert_eq!(received, accepted, "{polls} polls");
                meshes.push(mesh);
            }
            close_all(meshes).await;
        }
    });
}

#[test]
fn a_mesh_whose_closing_was_begun_closes() {
    promise(async {
        for polls in 0.. {
            let (mut one, mut two) = pair().await;
            one.handle().send(OutgoingPacket::reliable(id(2), "the last")).await.unwrap();
            let closed = dropped_after(polls, one.handle().close()).await;
            if polls == 0 {
                assert_eq!(one.handle().status(), ConnectionStatus::Connected);
                talk(&two, &mut one, "still here").await;
                in_time(one.handle().close()).await;
            }
            let refused = one.handle().send(OutgoingPacket::reliable(id(2), "too late")).await;
            assert_eq!(refused, Err(SendError::MeshClosed));
            assert_eq!(next(&mut one).await, left(2, DisconnectReason::LocalClose));
            ends(&mut one).await;
            assert_eq!(next(&mut two).await, said(1, "the last"));
            assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
            close_all(vec![two]).await;
            if closed.is_some() {
                return;
            }
        }
    });
}

#[test]
fn a_mesh_whose_joining_was_dropped_is_none_and_its_id_is_free() {
    promise(async {
        let hub = Hub::new();
        let mut one = builder().join(hub.join_as(id(1))).await.unwrap();
        for polls in 0.. {
            let joining = builder().join(Slow(hub.join_as(id(2))));
            if let Some(two) = dropped_after(polls, joining).await {
                let mut two = two.unwrap();
                assert!(polls > 5, "it was slow");
                assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
                assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
                return close_all(vec![one, two]).await;
            }
            let mut other = hub.join_as(id(2));
            assert_eq!(other.join().await, Ok(id(2)), "{polls} polls");
            drop(other);
            until(async || !one.handle().has_peer(id(2)).await).await;
            is_silent(&mut one).await;
        }
    });
}

#[test]
fn whoever_stops_waiting_for_the_next_event_loses_none() {
    promise(async {
        for polls in 1..=3 {
            let (one, mut two) = pair().await;
            let handle = one.handle();
            let sending = tokio::spawn(async move {
                for n in 0..2_000_u32 {
                    handle.send(OutgoingPacket::reliable(id(2), n.to_be_bytes().to_vec())).await.unwrap();
                    if n % 16 == 0 {
                        tokio::time::sleep(Duration::from_micros(500)).await;
                    }
                }
                handle.close().await;
            });
            let mut given_up = 0;
            let mut event = async || loop {
                match in_time(dropped_after(polls, two.next())).await {
                    Some(event) => return event,
                    None => given_up += 1,
                }
                tokio::task::yield_now().await;
            };
            for n in 0..2_000_u32 {
                assert_eq!(event().await, Some(said(1, n.to_be_bytes().to_vec())), "{polls} polls");
            }
            assert_eq!(event().await, Some(left(1, DisconnectReason::RemoteClose)));
            assert!(polls > 1 || given_up > 0, "it never had to wait");
            in_time(sending).await.unwrap();
            close_all(vec![one, two]).await;
        }
    });
}

#[test]
fn whoever_stops_waiting_for_the_next_signal_loses_none() {
    promise(async {
        let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
        let (here, there) = (connection().await, connection().await);
        add(&one, &here, 2).await.unwrap();
        add(&two, &there, 1).await.unwrap();
        for (from, to) in [(here.clone(), there.clone()), (there, here.clone())] {
            let mut signals = from.signals();
            tokio::spawn(async move {
                loop {
                    match dropped_after(1, signals.next()).await {
                        Some(Some(signal)) => drop(to.handle_signal(signal).await),
                        Some(None) => break,
                        None => tokio::time::sleep(Duration::from_micros(100)).await,
                    }
                }
            });
        }
        here.create_offer().await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        close_all(vec![one, two]).await;
    });
}

/// The mesh drops `next` whenever there is something to send.
#[test]
fn loopback_signalling_loses_nothing_when_it_is_not_waited_for() {
    promise(async {
        let hub = Hub::new();
        let (mut one, mut two) = (hub.join_as(id(1)), hub.join_as(id(2)));
        one.join().await.unwrap();
        two.join().await.unwrap();
        assert_eq!(one.next().await, Ok(SignalingEvent::PeerJoined { peer: id(2), we_offer: true }));
        assert_eq!(two.next().await, Ok(SignalingEvent::PeerJoined { peer: id(1), we_offer: false }));
        let signal = |n: u16| {
            Signal::Candidate(IceCandidate {
                candidate: n.to_string(),
                sdp_mid: "0".to_owned(),
                sdp_mline_index: n,
            })
        };
        for n in 0..100 {
            assert_eq!(dropped_after(1, two.next()).await, None, "nothing there yet");
            assert_eq!(dropped_after(1, one.send(id(2), signal(n))).await, Some(Ok(())));
            assert_eq!(dropped_after(0, two.next()).await, None);
            let expected = SignalingEvent::Signal { from: id(1), signal: signal(n) };
            assert_eq!(dropped_after(1, two.next()).await, Some(Ok(expected)));
        }
    });
}

/// Nothing of all this depends on the mode; here are the ones that never wait.
#[test]
fn an_unreliable_packet_is_sent_by_the_first_poll_however_full_it_is() {
    promise(async {
        let (one, two) = pair().await;
        let payload = Bytes::from(vec![7; 10_000]);
        for _ in 0..200 {
            for mode in [TransferMode::Unreliable, TransferMode::UnreliableOrdered] {
                let packet = OutgoingPacket::new(Target::All, mode, payload.clone());
                assert_eq!(dropped_after(1, one.handle().send(packet)).await, Some(Ok(())));
            }
        }
        close_all(vec![one, two]).await;
    });
}

/// Polls a future so many times at the most, as its waker asks, and drops it. `None`: it was not ready by then.
async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    in_time(poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }))
    .await
}

/// Signalling that takes its time to let us in, before and after the others know.
struct Slow(LoopbackSignaling);

#[async_trait]
impl Signaling for Slow {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        let joined = self.0.join().await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        joined
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        self.0.next().await
    }

    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
        self.0.send(to, signal).await
    }

    async fn leave(&mut self) {
        self.0.leave().await;
    }
}
