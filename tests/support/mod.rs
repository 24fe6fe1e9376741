//! What the tests share: a leak-checked stage for each promise, meshes on loopback, and readers with a limit.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a fault in a test is a failed test"
)]

pub(crate) mod bare;
pub(crate) mod program;
pub(crate) mod turn;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::{PoisonError, RwLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::{self, Network};
use webrtc_mesh::{
    AddPeerError, DisconnectReason, Mesh, MeshBuilder, MeshEvent, OutgoingPacket, Packet, PeerConnection,
    PeerConnectionConfig, PeerId, SessionDescription, TransferMode, UnreliableLifetime,
};

/// How long a test waits for anything before it fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Whoever counts what the process has open is alone with it.
static TURN: RwLock<()> = RwLock::new(());

/// Runs a test on real sockets, one at a time, and checks that it leaves nothing behind: no task of its runtime
/// alive, and no file descriptor of the process open, soon after its end: a second, and more where other programs keep
/// the cores busy.
pub(crate) fn promise<F: Future<Output = ()>>(test: F) {
    let _turn = TURN.write().unwrap_or_else(PoisonError::into_inner);
    log_as_asked();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let metrics = runtime.metrics();
    let (tasks, files) = (metrics.num_alive_tasks(), open_files());
    runtime.block_on(async {
        test.await;
        let since = Instant::now();
        loop {
            let (tasks_now, files_now) = (metrics.num_alive_tasks(), open_files());
            if tasks_now <= tasks && files_now <= files {
                break;
            }
            assert!(
                since.elapsed() < Duration::from_secs(3),
                "left behind: {} tasks, {} file descriptors",
                tasks_now - tasks.min(tasks_now),
                files_now - files.min(files_now)
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if since.elapsed() > Duration::from_secs(1) {
            println!("what was left behind was gone after {:?}", since.elapsed());
        }
    });
}

/// Like [`promise`], on virtual time and the simulated network.
pub(crate) fn simulated<F: Future<Output = ()>>(seed: u64, test: impl FnOnce(Network) -> F) {
    log_as_asked();
    let _turn = TURN.read().unwrap_or_else(PoisonError::into_inner);
    sim::run(seed, |network| async move {
        let metrics = tokio::runtime::Handle::current().metrics();
        let tasks = metrics.num_alive_tasks();
        test(network).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(metrics.num_alive_tasks(), tasks, "tasks left behind");
    });
}

/// By `RUST_LOG`.
fn log_as_asked() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or(0)
}

pub(crate) fn id(n: u32) -> PeerId {
    PeerId::new(n).unwrap()
}

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn config() -> PeerConnectionConfig {
    PeerConnectionConfig::new().bind(loopback())
}

pub(crate) fn builder() -> MeshBuilder {
    Mesh::builder().connection(config())
}

/// The next event, within the limit.
pub(crate) async fn next(mesh: &mut (impl futures::Stream<Item = MeshEvent> + Unpin)) -> MeshEvent {
    tokio::time::timeout(LIMIT, mesh.next()).await.expect("an event in time").expect("an event, not the end")
}

/// The next packet; anything else fails the test.
pub(crate) async fn packet(mesh: &mut (impl futures::Stream<Item = MeshEvent> + Unpin)) -> Packet {
    match next(mesh).await {
        MeshEvent::Packet(packet) => packet,
        other => panic!("a packet was expected, not {other:?}"),
    }
}

/// Within the limit, or the test fails.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("done in time")
}

/// Looks again and again until it is so, within the limit; for what no event tells.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    in_time(async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// What it does in this moment: nothing.
pub(crate) async fn is_silent(mesh: &mut Mesh) {
    assert_eq!(futures::poll!(mesh.next()), Poll::Pending, "nothing is to be read");
}

/// Full meshes 1 to `n`, joined by a hub, after everybody's `PeerConnected` of everybody else.
pub(crate) async fn full_mesh(n: u32) -> Vec<Mesh> {
    full_mesh_of(n, |_| builder()).await
}

pub(crate) async fn full_mesh_of(n: u32, build: impl Fn(PeerId) -> MeshBuilder) -> Vec<Mesh> {
    let hub = Hub::new();
    let mut meshes = Vec::new();
    for number in 1..=n {
        meshes.push(build(id(number)).join(hub.join()).await.unwrap());
    }
    for mesh in &mut meshes {
        let mut missing: Vec<PeerId> = (1..=n).map(id).filter(|peer| *peer != mesh.id()).collect();
        while !missing.is_empty() {
            match next(mesh).await {
                MeshEvent::PeerConnected(peer) => missing.retain(|other| *other != peer),
                other => panic!("{} expected its peers, not {other:?}", mesh.id()),
            }
        }
    }
    meshes
}

/// Full meshes 1 to `n`, each on a simulated host of its number, joined by a hub.
pub(crate) async fn sim_mesh(network: &Network, hub: &Hub, n: u32) -> Vec<Mesh> {
    let mut meshes = Vec::new();
    for number in 1..=n {
        let config = network.peer(&number.to_string());
        meshes.push(Mesh::builder().connection(config).join(hub.join_as(id(number))).await.unwrap());
    }
    for mesh in &mut meshes {
        for _ in 1..n {
            assert!(matches!(next(mesh).await, MeshEvent::PeerConnected(_)));
        }
    }
    meshes
}

pub(crate) async fn sim_pair(network: &Network) -> (Mesh, Mesh) {
    let mut meshes = sim_mesh(network, &Hub::new(), 2).await.into_iter();
    (meshes.next().unwrap(), meshes.next().unwrap())
}

/// The seeds that this variable names, as `0..1000`; without it, these.
pub(crate) fn seeds_of(variable: &str, default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var(variable) else { return default };
    let range = text.split_once("..").and_then(|(first, last)| Some(first.parse().ok()?..last.parse().ok()?));
    range.unwrap_or_else(|| panic!("{variable} is a range, such as 0..1000, not {text:?}"))
}

pub(crate) async fn pair() -> (Mesh, Mesh) {
    let mut meshes = full_mesh(2).await.into_iter();
    (meshes.next().unwrap(), meshes.next().unwrap())
}

/// Closes all of them, one after another, within the limit.
pub(crate) async fn close_all(meshes: Vec<Mesh>) {
    for mesh in meshes {
        in_time(mesh.handle().close()).await;
    }
}

pub(crate) fn of(mode: TransferMode, to: u32, payload: impl Into<bytes::Bytes>) -> OutgoingPacket {
    OutgoingPacket::new(id(to), mode, payload)
}

pub(crate) fn left(peer: u32, reason: DisconnectReason) -> MeshEvent {
    MeshEvent::PeerDisconnected(id(peer), reason)
}

/// A fresh connection on loopback.
pub(crate) async fn connection() -> PeerConnection {
    PeerConnection::new(config()).await.unwrap()
}

/// Adds a peer by hand, within the limit.
pub(crate) async fn add(mesh: &Mesh, connection: &PeerConnection, peer: u32) -> Result<(), AddPeerError> {
    in_time(mesh.handle().add_peer(connection.clone(), id(peer), UnreliableLifetime::default())).await
}

/// Carries what comes out of either connection to the other, until both are closed.
pub(crate) fn carry(one: &PeerConnection, two: &PeerConnection) {
    for (from, to) in [(one, two), (two, one)] {
        let (mut signals, to) = (from.signals(), to.clone());
        tokio::spawn(async move {
            while let Some(signal) = signals.next().await {
                // One side may be gone already.
                let _ = to.handle_signal(signal).await;
            }
        });
    }
}

/// Adds two meshes to each other by hand and lets the first offer; they are connected when they say so.
pub(crate) async fn link(one: &Mesh, two: &Mesh) -> (PeerConnection, PeerConnection) {
    let (here, there) = (connection().await, connection().await);
    add(one, &here, two.id().get()).await.unwrap();
    add(two, &there, one.id().get()).await.unwrap();
    carry(&here, &there);
    here.create_offer().await.unwrap();
    (here, there)
}

/// Two meshes, 1 and 2, added to each other by hand, connected.
pub(crate) async fn pair_by_hand() -> (Mesh, Mesh) {
    let (mut one, mut two) = (builder().build(id(1)), builder().build(id(2)));
    link(&one, &two).await;
    assert_eq!(next(&mut one).await, MeshEvent::PeerConnected(id(2)));
    assert_eq!(next(&mut two).await, MeshEvent::PeerConnected(id(1)));
    (one, two)
}

/// A description that names no address.
pub(crate) fn without_candidates(mut description: SessionDescription) -> SessionDescription {
    let lines = description.sdp.lines().filter(|line| !line.contains("candidate"));
    description.sdp = lines.map(|line| format!("{line}\r\n")).collect();
    description
}

/// A reliable packet, as it arrives.
pub(crate) fn said(from: u32, payload: impl Into<bytes::Bytes>) -> MeshEvent {
    MeshEvent::Packet(Packet { from: id(from), mode: TransferMode::Reliable, payload: payload.into() })
}

/// Sends a reliable packet from one to the other, and expects it there as the next event.
pub(crate) async fn talk(from: &Mesh, to: &mut Mesh, payload: &'static str) {
    in_time(from.handle().send(of(TransferMode::Reliable, to.id().get(), payload))).await.unwrap();
    assert_eq!(next(to).await, said(from.id().get(), payload));
}

/// The next event is the end, and so is every later one.
pub(crate) async fn ends(mesh: &mut (impl futures::Stream<Item = MeshEvent> + Unpin)) {
    assert_eq!(in_time(mesh.next()).await, None);
}
