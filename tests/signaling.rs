//! What signalling does, or does not do, to one link harms no other, and the closing of the mesh neither.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use support::*;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use webrtc_mesh::signaling::loopback::{Hub, LoopbackSignaling};
use webrtc_mesh::sim::Network;
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshBuilder, MeshEvent, PeerConnection, PeerFailure, PeerId, SdpKind,
    SessionDescription, Signal, Signaling, SignalingError, SignalingEvent, SignalingStatus,
    UnreliableLifetime,
};

#[test]
fn a_peer_whose_ends_nobody_reads_holds_up_no_other() {
    simulated(1, |network| async move {
        let hub = Hub::new();
        let build = Mesh::builder().handshake_limit(Duration::from_secs(1));
        let mut one = member(&network, build, &hub, 1).await;
        let flap = async |member: &mut LoopbackSignaling| {
            member.join().await.unwrap();
            sleep(Duration::from_secs(2)).await;
            member.leave().await;
            sleep(Duration::from_secs(1)).await;
        };
        let mut flapping = hub.join_as(id(9));
        for _ in 0..6 {
            flap(&mut flapping).await;
        }
        flapping.join().await.unwrap();
        let mut two = member(&network, Mesh::builder(), &hub, 2).await;
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        // It is offered to as soon as there is room for its end.
        drain(&mut flapping);
        for _ in 0..4 {
            assert!(matches!(next(&mut one).await, MeshEvent::PeerFailed(peer, _) if peer == id(9)));
        }
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert!(matches!(signal(&mut flapping).await, Signal::Description(_)));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn of_a_flood_of_offers_four_in_a_second_are_answered_and_the_last_counts() {
    simulated(2, |network| async move {
        let hub = Hub::new();
        let mut flooder = hub.join_as(id(9));
        flooder.join().await.unwrap();
        let one = member(&network, Mesh::builder(), &hub, 10).await;
        let offer = an_offer(&network).await;
        let mut number = 0_u32;
        for _ in 0..1000 {
            for _ in 0..8 {
                number += 1;
                flooder.send(id(10), numbered(&offer, number)).await.unwrap();
            }
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(1)).await;
        let mut answers = Vec::new();
        while let Some(Ok(event)) = flooder.next().now_or_never() {
            if let SignalingEvent::Signal { signal: Signal::Description(description), .. } = event {
                answers.push(description);
            }
        }
        assert!((3..=6).contains(&answers.len()), "{} answers", answers.len());
        assert!(answers.last().unwrap().sdp.contains(&format!("{number:032x}")));
        close_all(vec![one]).await;
    });
}

#[test]
fn what_is_to_be_sent_does_not_wait_for_the_end_of_a_flood() {
    simulated(3, |network| async move {
        let mut events = vec![SignalingEvent::PeerJoined { peer: id(2), we_offer: true }];
        let nonsense = SessionDescription { kind: SdpKind::Answer, sdp: "v=0\r\n".to_owned() };
        let nonsense = SignalingEvent::Signal { from: id(9), signal: Signal::Description(nonsense) };
        events.extend(std::iter::repeat_n(nonsense, 100_000));
        let left = Arc::new(AtomicUsize::new(events.len()));
        // Unbounded: it holds what little the mesh sends, and the test ends.
        let (sent, mut heard) = mpsc::unbounded_channel();
        let flood = Scripted { events: events.into_iter(), left: left.clone(), sent, send_hangs: |_| false };
        let config = network.peer("1");
        let one = Mesh::builder().connection(config).join(flood).await.unwrap();
        let (peer, left_then) = in_time(heard.recv()).await.unwrap();
        println!("the offer went out with {left_then} events to come");
        assert_eq!(peer, id(2));
        assert!(left_then > 50_000);
        close_all(vec![one]).await;
    });
}

#[test]
fn a_signal_that_is_never_sent_holds_up_the_others_for_seconds_not_for_ever() {
    simulated(4, |network| async move {
        let hub = Hub::new();
        let mut silent = hub.join_as(id(2));
        silent.join().await.unwrap();
        let config = network.peer("1");
        let signaling = HangsTo(hub.join_as(id(1)), id(2));
        let build = Mesh::builder().connection(config).attempt_limit(Duration::MAX);
        let mut one = build.join(signaling).await.unwrap();
        let two = member(&network, Mesh::builder(), &hub, 3).await;
        let since = Instant::now();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(3)));
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        close_all(vec![one, two]).await;
    });
}

#[test]
fn closing_waits_for_hanging_signalling_no_longer_than_the_farewell_time() {
    for attempt_limit in [Duration::from_secs(8), Duration::MAX] {
        simulated(5, |network| async move {
            let events = vec![SignalingEvent::PeerJoined { peer: id(2), we_offer: true }].into_iter();
            // Unbounded, as above.
            let (sent, mut heard) = mpsc::unbounded_channel();
            let hangs = Scripted { events, left: Arc::default(), sent, send_hangs: |_| true };
            let config = network.peer("1");
            let build = Mesh::builder().connection(config).attempt_limit(attempt_limit);
            let one = build.join(hangs).await.unwrap();
            in_time(heard.recv()).await.unwrap();
            let since = Instant::now();
            close_all(vec![one]).await;
            let took = since.elapsed();
            assert!(took <= Duration::from_secs(5), "{took:?}");
        });
    }
}

#[test]
fn an_offer_that_signalling_repeats_leaves_the_connection_alone_even_of_a_foreign_peer() {
    simulated(6, |network| async move {
        let hub = Hub::new();
        let mut raw = hub.join_as(id(1));
        raw.join().await.unwrap();
        let mut mesh = member(&network, Mesh::builder(), &hub, 2).await;
        let mut foreign = StandIn::new(&network, 1, 2).await;
        foreign.connection.create_offer().await.unwrap();
        let mut offer = None;
        loop {
            tokio::select! {
                Some(signal) = foreign.signals.next() => {
                    let signal = unmarked(signal);
                    offer.get_or_insert(signal.clone());
                    raw.send(id(2), signal).await.unwrap();
                }
                event = raw.next() => if let SignalingEvent::Signal { signal, .. } = event.unwrap() {
                    foreign.connection.handle_signal(signal).await.unwrap();
                },
                event = mesh.next() => {
                    assert_eq!(event, Some(MeshEvent::PeerConnected(id(1))));
                    break;
                }
            }
        }
        raw.send(id(2), offer.unwrap()).await.unwrap();
        sleep(Duration::from_secs(5)).await;
        is_silent(&mut mesh).await;
        // Another one is another connection's.
        let mut other = StandIn::new(&network, 1, 2).await;
        other.connection.create_offer().await.unwrap();
        let again = unmarked(other.signals.next().await.unwrap());
        assert!(foreign.connection.handle_signal(again.clone()).await.is_err());
        raw.send(id(2), again).await.unwrap();
        assert_eq!(next(&mut mesh).await, left(1, DisconnectReason::Replaced));
        close_all(vec![mesh, foreign.mesh, other.mesh]).await;
    });
}

#[test]
fn another_offer_of_a_foreign_peer_is_out_of_turn_on_the_same_connection() {
    simulated(7, |network| async move {
        let answering = StandIn::new(&network, 2, 1).await;
        let (first, second) = (an_offer(&network).await, an_offer(&network).await);
        let offer = |sdp: &SessionDescription| unmarked(Signal::Description(sdp.clone()));
        answering.connection.handle_signal(offer(&first)).await.unwrap();
        answering.connection.handle_signal(offer(&first)).await.unwrap();
        let other = answering.connection.handle_signal(offer(&second)).await;
        assert!(matches!(other, Err(webrtc_mesh::ConnectionError::OutOfTurn(_))), "{other:?}");
        close_all(vec![answering.mesh]).await;
    });
}

#[test]
fn signalling_that_comes_and_goes_is_reported_once_each_time_and_links_stay() {
    promise(async {
        let hub = Hub::new();
        // Unbounded: the test puts a few events into it.
        let (inject, events) = mpsc::unbounded_channel();
        let mut one = builder().join(Injected { hub: hub.join(), events }).await.unwrap();
        let mut two = builder().join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        assert_eq!(one.handle().signaling(), SignalingStatus::Joined);

        let why = SignalingError::Transport("the cable".to_owned());
        for _ in 0..3 {
            inject.send(SignalingEvent::Lost(why.clone())).unwrap();
        }
        assert_eq!(next(&mut one).await, MeshEvent::SignalingLost);
        assert_eq!(one.handle().signaling(), SignalingStatus::Restoring(why.clone()));
        talk(&one, &mut two, "without signalling").await;
        for event in [SignalingEvent::Restored, SignalingEvent::Restored, SignalingEvent::Lost(why.clone())] {
            inject.send(event).unwrap();
        }
        assert_eq!(next(&mut one).await, MeshEvent::SignalingRestored);
        assert_eq!(next(&mut one).await, MeshEvent::SignalingLost);
        // That it will not be restored is told as well.
        hub.shut_down();
        assert_eq!(next(&mut one).await, MeshEvent::SignalingLost);
        assert_eq!(one.handle().signaling(), SignalingStatus::Lost(SignalingError::Closed));
        assert_eq!(next(&mut two).await, MeshEvent::SignalingLost);
        talk(&one, &mut two, "and none will be").await;
        talk(&two, &mut one, "the next that is read").await;
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_peer_that_has_returned_keeps_its_link_or_is_connected_if_it_has_none() {
    promise(async {
        let hub = Hub::new();
        // Unbounded: the test puts a few events into it.
        let (inject, events) = mpsc::unbounded_channel();
        let mut one = builder().join(Injected { hub: hub.join(), events }).await.unwrap();
        let mut two = builder().join(hub.join()).await.unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        let returned = SignalingEvent::PeerReturned { peer: id(2), we_offer: true };
        inject.send(returned.clone()).unwrap();
        // Reported in order, so the link has stayed by then.
        inject.send(SignalingEvent::Sealed).unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::LobbySealed);
        talk(&one, &mut two, "still here").await;
        talk(&two, &mut one, "and here").await;

        in_time(one.handle().remove_peer(id(2))).await.unwrap();
        assert_eq!(next(&mut one).await, left(2, DisconnectReason::Removed));
        assert_eq!(next(&mut two).await, left(1, DisconnectReason::RemoteClose));
        inject.send(returned).unwrap();
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        close_all(vec![one, two]).await;
    });
}

#[test]
fn a_seal_is_reported_once_and_signalling_that_knows_none_says_so() {
    promise(async {
        let hub = Hub::new();
        let (inject, events) = mpsc::unbounded_channel();
        let mut mesh = builder().join(Injected { hub: hub.join(), events }).await.unwrap();
        assert_eq!(mesh.handle().lobby(), None);
        assert_eq!(in_time(mesh.handle().seal_lobby()).await, Err(SignalingError::Unsupported));
        for event in
            [SignalingEvent::Sealed, SignalingEvent::Sealed, SignalingEvent::Lost(SignalingError::Closed)]
        {
            inject.send(event).unwrap();
        }
        assert_eq!(next(&mut mesh).await, MeshEvent::LobbySealed);
        assert_eq!(next(&mut mesh).await, MeshEvent::SignalingLost);
        in_time(mesh.handle().close()).await;
        assert_eq!(in_time(mesh.handle().seal_lobby()).await, Err(SignalingError::Closed));

        let by_hand = builder().build(id(1));
        assert_eq!(by_hand.handle().signaling(), SignalingStatus::Absent);
        assert_eq!(in_time(by_hand.handle().seal_lobby()).await, Err(SignalingError::Unsupported));
        in_time(by_hand.handle().close()).await;
    });
}

#[test]
fn the_pause_before_an_attempt_doubles_each_time() {
    simulated(8, |network| async move {
        let hub = Hub::new();
        let mut raw = hub.join_as(id(2));
        raw.join().await.unwrap();
        let one = member(&network, Mesh::builder(), &hub, 1).await;
        let mut pauses = Vec::new();
        while !matches!(signal(&mut raw).await, Signal::Description(_)) {}
        for _ in 0..4 {
            // An attempt dies.
            one.handle().peer(id(2)).await.unwrap().connection.close().await;
            let since = Instant::now();
            while !matches!(signal(&mut raw).await, Signal::Description(_)) {}
            pauses.push(since.elapsed().as_secs_f64());
        }
        println!("{pauses:?}");
        for (pause, least) in pauses.iter().zip([0.25, 0.5, 1.0, 2.0]) {
            assert!(*pause > least - 0.05 && *pause < least * 1.5 + 0.05, "{pauses:?}");
        }
        close_all(vec![one]).await;
    });
}

#[test]
fn a_peer_that_comes_again_while_its_former_life_ends_is_connected() {
    for offset_ms in [-20, 0, 10, 50, 90, 120, 180, 250] {
        simulated(9, |network| async move {
            let hub = Hub::new();
            let mut raw = hub.join_as(id(2));
            raw.join().await.unwrap();
            let build = Mesh::builder().handshake_limit(Duration::from_secs(1));
            let (event, events) = mpsc::unbounded_channel();
            let signaling = Injected { hub: hub.join_as(id(1)), events };
            let config = network.peer("1");
            let mut one = build.connection(config).join(signaling).await.unwrap();
            let began = Instant::now();
            let at = u64::try_from(1000 + offset_ms).unwrap();
            while let Ok(event) = timeout(Duration::from_millis(at) - began.elapsed(), raw.next()).await {
                event.unwrap();
            }
            event.send(SignalingEvent::PeerJoined { peer: id(2), we_offer: true }).unwrap();
            let offer = timeout(Duration::from_secs(1), async {
                while !matches!(signal(&mut raw).await, Signal::Description(_)) {}
            });
            assert!(offer.await.is_ok(), "no offer to who came {offset_ms} ms after the limit");
            if offset_ms >= 0 {
                assert!(matches!(
                    next(&mut one).await,
                    MeshEvent::PeerFailed(_, PeerFailure::TimedOut { .. })
                ));
            }
            close_all(vec![one]).await;
        });
    }
}

#[test]
fn a_peer_that_comes_again_while_it_is_removed_is_connected() {
    simulated(10, |network| async move {
        let hub = Hub::new();
        let (event, events) = mpsc::unbounded_channel();
        let signaling = Injected { hub: hub.join_as(id(1)), events };
        let config = network.peer("1");
        let mut one = Mesh::builder().connection(config).join(signaling).await.unwrap();
        let mut two = member(&network, Mesh::builder(), &hub, 2).await;
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
        network.host("2").set_silent(true);
        one.handle().try_send(of(webrtc_mesh::TransferMode::Reliable, 2, "never confirmed")).unwrap();
        let handle = one.handle();
        let removal = tokio::spawn(async move { handle.remove_peer(id(2)).await });
        sleep(Duration::from_millis(100)).await;
        network.host("2").set_silent(false);
        event.send(SignalingEvent::PeerJoined { peer: id(2), we_offer: true }).unwrap();
        assert!(matches!(next(&mut one).await, MeshEvent::PeerDisconnected(..)));
        assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
        removal.await.unwrap().unwrap();
        close_all(vec![one, two]).await;
    });
}

#[test]
fn an_answerer_without_connections_says_so_once_for_each_time_a_peer_joins() {
    simulated(11, |network| async move {
        let hub = Hub::new();
        let mut raw = hub.join_as(id(1));
        raw.join().await.unwrap();
        let _taken = network.host("2").bind(5000).unwrap();
        let nowhere = network.peer("2").port_range(5000..=5000);
        let mut two = Mesh::builder().connection(nowhere).join(hub.join_as(id(2))).await.unwrap();
        let offer = an_offer(&network).await;
        for _ in 0..2 {
            for number in 0..3 {
                raw.send(id(2), numbered(&offer, number)).await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
            assert!(matches!(next(&mut two).await, MeshEvent::PeerFailed(_, PeerFailure::Connection(_))));
            is_silent(&mut two).await;
            raw.leave().await;
            raw.join().await.unwrap();
        }
        close_all(vec![two]).await;
    });
}

/// A mesh on a host of its own.
async fn member(network: &Network, build: MeshBuilder, hub: &Hub, n: u32) -> Mesh {
    let config = network.peer(&n.to_string());
    build.connection(config).join(hub.join_as(id(n))).await.unwrap()
}

/// One of ours that plays a peer by hand.
struct StandIn {
    mesh: Mesh,
    connection: PeerConnection,
    signals: webrtc_mesh::SignalStream,
}

impl StandIn {
    async fn new(network: &Network, n: u32, peer: u32) -> StandIn {
        let mesh = Mesh::builder().build(id(n));
        let config = network.peer(&n.to_string());
        let connection = PeerConnection::new(config).await.unwrap();
        mesh.handle().add_peer(connection.clone(), id(peer), UnreliableLifetime::default()).await.unwrap();
        StandIn { mesh, signals: connection.signals(), connection }
    }
}

/// A usable offer, whose maker is gone.
async fn an_offer(network: &Network) -> SessionDescription {
    let mut maker = StandIn::new(network, 77, 78).await;
    maker.connection.create_offer().await.unwrap();
    let Some(Signal::Description(offer)) = maker.signals.next().await else {
        panic!("the offer comes first")
    };
    close_all(vec![maker.mesh]).await;
    offer
}

fn unmarked(signal: Signal) -> Signal {
    match signal {
        Signal::Description(mut description) => {
            let lines = description.sdp.lines().filter(|line| !line.starts_with("a=x-webrtc-mesh:"));
            description.sdp = lines.map(|line| format!("{line}\r\n")).collect();
            Signal::Description(description)
        }
        candidate => candidate,
    }
}

/// The offer of another attempt.
fn numbered(offer: &SessionDescription, number: u32) -> Signal {
    let Signal::Description(mut offer) = unmarked(Signal::Description(offer.clone())) else { unreachable!() };
    offer.sdp.push_str(&format!("a=x-webrtc-mesh:1 {number:032x}\r\n"));
    Signal::Description(offer)
}

/// The next signal; whoever comes or goes is passed over.
async fn signal(member: &mut LoopbackSignaling) -> Signal {
    loop {
        if let SignalingEvent::Signal { signal, .. } = in_time(member.next()).await.unwrap() {
            return signal;
        }
    }
}

fn drain(member: &mut LoopbackSignaling) {
    while member.next().now_or_never().is_some() {}
}

/// Reports what it is told to, all at once, and counts what it has left when something is sent.
struct Scripted {
    events: std::vec::IntoIter<SignalingEvent>,
    left: Arc<AtomicUsize>,
    sent: mpsc::UnboundedSender<(PeerId, usize)>,
    send_hangs: fn(PeerId) -> bool,
}

#[async_trait::async_trait]
impl Signaling for Scripted {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        Ok(id(1))
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        match self.events.next() {
            Some(event) => {
                self.left.store(self.events.len(), Ordering::Relaxed);
                Ok(event)
            }
            None => std::future::pending().await,
        }
    }

    async fn send(&mut self, to: PeerId, _: Signal) -> Result<(), SignalingError> {
        let _ = self.sent.send((to, self.left.load(Ordering::Relaxed)));
        if (self.send_hangs)(to) {
            std::future::pending().await
        }
        Ok(())
    }

    async fn leave(&mut self) {
        if (self.send_hangs)(id(2)) {
            std::future::pending().await
        }
    }
}

/// Never gets a signal to this peer.
struct HangsTo(LoopbackSignaling, PeerId);

#[async_trait::async_trait]
impl Signaling for HangsTo {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        self.0.join().await
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        self.0.next().await
    }

    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
        if to == self.1 {
            std::future::pending().await
        }
        self.0.send(to, signal).await
    }
}

/// Reports what the test says as well.
struct Injected {
    hub: LoopbackSignaling,
    events: mpsc::UnboundedReceiver<SignalingEvent>,
}

#[async_trait::async_trait]
impl Signaling for Injected {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        self.hub.join().await
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        tokio::select! {
            event = self.hub.next() => event,
            Some(event) = self.events.recv() => Ok(event),
        }
    }

    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
        self.hub.send(to, signal).await
    }
}
