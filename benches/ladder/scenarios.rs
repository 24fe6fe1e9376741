//! What is played on each network: a mesh that meets, and a pair that talks.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::select_all;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::Network;
use webrtc_mesh::{Mesh, MeshEvent, MeshHandle, OutgoingPacket, PeerId, TransferMode};

use crate::networks::Rung;

/// Members of the mesh that meets.
pub(crate) const PEERS: u32 = 8;
/// How long it may take: twice as long as a connection may, so that one that failed has had a second chance.
const MEETING: Duration = Duration::from_secs(60);

/// Small packets of each mode: 20 s, 60 a second.
pub(crate) const TICKS: u32 = 20 * 60;
const TICK: Duration = Duration::from_micros(16_667);
const SMALL: usize = 32;
/// Whoever hears nothing for so long hears no more of them. SCTP's tries are up to a minute apart.
const QUIET: Duration = Duration::from_secs(130);

/// A cut, so long after the small packets have begun.
const CUT_AFTER: Duration = Duration::from_secs(2);
const CUT: Duration = Duration::from_secs(4);

/// The bulk: packets of these sizes in turn, for so long, or until so many bytes are there.
const BULK_KIB: [usize; 5] = [1, 2, 4, 8, 16];
const BULK: Duration = Duration::from_secs(30);
const BULK_BYTES: usize = 64 << 20;

/// How a mesh came together.
pub(crate) struct Met {
    /// That are up at the end.
    pub(crate) links: usize,
    pub(crate) full: Option<Duration>,
}

/// All of them join at the same moment. The signalling takes no time.
pub(crate) async fn meet(rung: &Rung, network: Network) -> Met {
    let since = Instant::now();
    let mut meshes = join(rung, &network, PEERS).await;
    let mut up = BTreeSet::new();
    let all = (PEERS * (PEERS - 1)) as usize;
    let mut events = select_all(meshes.iter_mut().map(|mesh| {
        let me = mesh.id();
        mesh.map(move |event| (me, event))
    }));
    while up.len() < all {
        match timeout_at(since + MEETING, events.next()).await {
            Ok(Some((me, MeshEvent::PeerConnected(peer)))) => drop(up.insert((me, peer))),
            Ok(Some((me, MeshEvent::PeerDisconnected(peer, _)))) => drop(up.remove(&(me, peer))),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let links = up.iter().filter(|(one, other)| one < other && up.contains(&(*other, *one))).count();
    Met { links, full: (up.len() == all).then(|| since.elapsed()) }
}

/// What a pair found, as far as it came.
#[derive(Default)]
pub(crate) struct Talked {
    /// By mode, of what arrived; and whether it was sent at all.
    pub(crate) latencies: [Vec<Duration>; 3],
    pub(crate) tried: [bool; 3],
    /// From the end of the cut until a reliable packet arrives that was sent after it, so all that waited has arrived.
    pub(crate) back: Option<Duration>,
    /// Bytes a second; and where no datagram overtakes another.
    pub(crate) bulk: Option<f64>,
    pub(crate) bulk_in_order: Option<f64>,
    /// What ended it too early.
    pub(crate) fault: Option<String>,
}

/// Small packets of each mode by itself, then reliable ones through a cut, then the bulk, then that without jitter. All
/// one way.
pub(crate) async fn talk(rung: &Rung, network: Network) -> Talked {
    let mut talked = Talked::default();
    talked.fault = talk_into(&mut talked, rung, network).await.err();
    talked
}

async fn talk_into(talked: &mut Talked, rung: &Rung, network: Network) -> Result<(), String> {
    let mut meshes = join(rung, &network, 2).await;
    let (Some(mut two), Some(one)) = (meshes.pop(), meshes.pop()) else { return Ok(()) };
    for (mesh, peer) in [(&one, two.id()), (&two, one.id())] {
        let connected = timeout(MEETING, mesh.handle().wait_connected(peer)).await;
        connected.map_err(|_| "never connected")?.map_err(|error| error.to_string())?;
    }
    for mode in TransferMode::ALL {
        talked.tried[mode as usize] = true;
        for (sent, arrived) in small_packets(one.handle(), &mut two, mode).await? {
            talked.latencies[mode as usize].push(arrived - sent);
        }
    }

    let healed = Instant::now() + CUT_AFTER + CUT;
    let links = network.links();
    tokio::spawn(async move {
        sleep(CUT_AFTER).await;
        let links = links.cut();
        sleep(CUT).await;
        links.heal();
    });
    let packets = small_packets(one.handle(), &mut two, TransferMode::Reliable).await?;
    talked.back = packets.iter().find(|(sent, _)| *sent > healed).map(|(_, arrived)| *arrived - healed);

    let (bulk, peer) = (one.handle(), two.id());
    tokio::spawn(async move {
        for kib in BULK_KIB.into_iter().cycle() {
            if bulk.send(OutgoingPacket::reliable(peer, vec![0; kib << 10])).await.is_err() {
                return;
            }
        }
    });
    talked.bulk = Some(bytes_per_second(&mut two).await?);
    network.links().jitter(Duration::ZERO);
    talked.bulk_in_order = Some(bytes_per_second(&mut two).await?);
    Ok(())
}

async fn bytes_per_second(mesh: &mut Mesh) -> Result<f64, String> {
    let (since, mut bytes) = (Instant::now(), 0);
    while bytes < BULK_BYTES {
        match packet(mesh, since + BULK).await? {
            Some(payload) => bytes += payload.len(),
            None => break,
        }
    }
    Ok(bytes as f64 / since.elapsed().as_secs_f64())
}

/// When each was sent and when it arrived, of those that did, in the order of arrival.
async fn small_packets(
    from: MeshHandle,
    to: &mut Mesh,
    mode: TransferMode,
) -> Result<Vec<(Instant, Instant)>, String> {
    let (since, peer) = (Instant::now(), to.id());
    tokio::spawn(async move {
        let mut ticks = interval(TICK);
        for _ in 0..TICKS {
            ticks.tick().await;
            let mut payload = vec![0; SMALL];
            let now = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            payload[..8].copy_from_slice(&now.to_be_bytes());
            if from.try_send(OutgoingPacket::new(peer, mode, payload)).is_err() {
                return; // the reader sees why
            }
        }
    });
    let mut times = Vec::new();
    while times.len() < TICKS as usize {
        let Some(payload) = packet(to, Instant::now() + QUIET).await? else { break };
        let Some(sent) = payload.first_chunk().copied().map(u64::from_be_bytes) else { continue };
        times.push((since + Duration::from_nanos(sent), Instant::now()));
    }
    match (mode, times.len()) {
        (TransferMode::Reliable, arrived) if arrived < TICKS as usize => {
            Err(format!("only {arrived} of {TICKS} reliable packets arrived"))
        }
        _ => Ok(times),
    }
}

/// The next one, unless none comes in time.
async fn packet(mesh: &mut Mesh, until: Instant) -> Result<Option<bytes::Bytes>, String> {
    loop {
        match timeout_at(until, mesh.next()).await {
            Ok(Some(MeshEvent::Packet(packet))) => return Ok(Some(packet.payload)),
            Ok(Some(MeshEvent::PeerDisconnected(_, reason))) => return Err(reason.to_string()),
            Ok(Some(_)) => {}
            Ok(None) => return Err("the mesh has ended".to_string()),
            Err(_) => return Ok(None),
        }
    }
}

/// Members 1 to `n`, each on a host of its own.
#[allow(
    clippy::expect_used,
    reason = "the hub has no limit that this comes to, nor has the configuration a fault"
)]
async fn join(rung: &Rung, network: &Network, n: u32) -> Vec<Mesh> {
    let millis = |millis: f64| Duration::from_secs_f64(millis / 1e3);
    network.links().latency(millis(rung.latency_ms)).jitter(millis(rung.jitter_ms));
    if rung.burst > 1.0 {
        network.links().bursty_loss(rung.loss, rung.burst);
    } else {
        network.links().loss(rung.loss);
    }
    let bytes_per_second = rung.upload_kbit * 1_000 / 8;
    let hub = Hub::new();
    let mut meshes = Vec::new();
    for n in 1..=n {
        let host = network.host(&n.to_string());
        host.set_upload(bytes_per_second, bytes_per_second * rung.queue_ms / 1_000);
        let id = PeerId::new(n).expect("1 and up are ids");
        let joined = Mesh::builder().connection(host.peer()).join(hub.join_as(id)).await;
        meshes.push(joined.expect("the hub takes everyone"));
    }
    meshes
}
