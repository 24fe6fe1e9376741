//! The main job: a full mesh of peers, each sending numbered packets in every mode to every other.
//!
//! ```text
//! cargo run --release --example mesh -- [PEERS] [PACKETS]
//! ```
//!
//! `PEERS` (default 4) meet in one process through the in-memory loopback signalling; all else is real: UDP on
//! 127.0.0.1, DTLS and SCTP. Each sends `PACKETS` (default 100) in each of the three modes to each of the others, from
//! the moment it is connected to it. The events are printed as they come, then a table. The exit code is 1 if anything
//! reliable is missing or out of order, or if it takes longer than a minute.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is its output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    Mesh, MeshEvent, MeshHandle, OutgoingPacket, Packet, PeerConnectionConfig, PeerId, SendError,
    TransferMode,
};

const USAGE: &str = "usage: mesh [PEERS] [PACKETS], by default 4 and 100";

type Failure = Box<dyn Error + Send + Sync>;

/// For everything together.
const LIMIT: Duration = Duration::from_secs(60);

/// What came unreliably may still come for so long after the last packet.
const QUIET: Duration = Duration::from_millis(200);

/// Each link's round trip is looked at every 2 s, so after so long it is that of a link at rest.
const REST: Duration = Duration::from_millis(2_200);

/// The number of the packet, and filling: about what a game sends.
const PAYLOAD_BYTES: usize = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Plan::from_args() {
        Ok(plan) => timeout(LIMIT, run(plan)).await.unwrap_or_else(|_| {
            Err(format!("not done after {} s; the last event above tells how far it came", LIMIT.as_secs())
                .into())
        }),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done, and when it began.
#[derive(Debug, Clone, Copy)]
struct Plan {
    peers: u32,
    packets: u32,
    began: Instant,
}

impl Plan {
    fn from_args() -> Result<Plan, Failure> {
        let mut args = std::env::args().skip(1);
        let mut number = |name: &str, default: u32| match args.next() {
            Some(text) => text.parse().map_err(|_| format!("{name} is a number, not {text:?}; {USAGE}")),
            None => Ok(default),
        };
        let (peers, packets) = (number("PEERS", 4)?, number("PACKETS", 100)?);
        if !(2..=32).contains(&peers) {
            return Err(format!("PEERS is 2 to 32; {USAGE}").into());
        }
        Ok(Plan { peers, packets, began: Instant::now() })
    }

    fn others(self) -> u32 {
        self.peers - 1
    }

    fn say(self, who: PeerId, what: impl std::fmt::Display) {
        println!("{:8.3} s  peer {who}: {what}", self.began.elapsed().as_secs_f64());
    }
}

async fn run(plan: Plan) -> Result<(), Failure> {
    // Everyone joins, and goes on in a task of its own.
    let hub = Hub::new();
    let connection = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
    let mut talking = JoinSet::new();
    for _ in 0..plan.peers {
        let mesh = Mesh::builder().connection(connection.clone()).join(hub.join()).await?;
        plan.say(mesh.id(), "joined");
        talking.spawn(talk(mesh, plan));
    }
    let mut members = Vec::new();
    while let Some(member) = talking.join_next().await {
        members.push(member??);
    }

    println!(
        "{:8.3} s  a rest, until every round trip was measured anew",
        plan.began.elapsed().as_secs_f64()
    );
    tokio::time::sleep(REST).await;
    let mut round_trips = Vec::new();
    for (mesh, _) in &members {
        round_trips.extend(mesh.handle().peers().await.into_values().filter_map(|info| info.round_trip_time));
    }

    // Everyone says goodbye at once.
    let parting = Instant::now();
    let mut leaving = JoinSet::new();
    let mut tallies = Vec::new();
    for (mesh, tally) in members {
        leaving.spawn(part(mesh, plan));
        tallies.push(tally);
    }
    while let Some(left) = leaving.join_next().await {
        left?;
    }
    report(plan, &tallies, round_trips, parting.elapsed())
}

/// One member, until all its packets are sent and everybody else's have come.
async fn talk(mut mesh: Mesh, plan: Plan) -> Result<(Mesh, Tally), Failure> {
    let (id, handle) = (mesh.id(), mesh.handle());
    let mut tally = Tally::new(plan.packets);
    // Sending may wait for room, and this task must not: while it does not read, nobody has room.
    let mut senders = JoinSet::new();
    loop {
        let finished = tally.has_all_reliable(plan) && senders.is_empty();
        if finished && tally.has_all(plan) {
            break;
        }
        tokio::select! {
            event = mesh.next() => {
                let event = event.ok_or("the mesh ended by itself")?;
                if let MeshEvent::Packet(packet) = event {
                    tally.count(packet)?;
                    if tally.has_all_reliable(plan) && tally.complete.is_none() {
                        tally.complete = Some(plan.began.elapsed());
                        plan.say(id, "has everybody's reliable packets");
                    }
                    continue;
                }
                plan.say(id, format_args!("{event:?}"));
                match event {
                    MeshEvent::PeerConnected(peer) => {
                        senders.spawn(send_all(handle.clone(), peer, plan.packets));
                        tally.links.insert(peer, Link::default());
                        if tally.links.len() as u32 == plan.others() {
                            tally.full = plan.began.elapsed();
                            plan.say(id, "is connected to everybody");
                        }
                    }
                    MeshEvent::PeerFailed(peer, failure) => {
                        return Err(format!("{id} could not connect to {peer}: {failure}").into());
                    }
                    MeshEvent::PeerDisconnected(peer, reason) => {
                        return Err(format!("{id} lost {peer} too early: {reason}").into());
                    }
                    _ => {}
                }
            }
            Some(sent) = senders.join_next() => tally.sent += sent??,
            () = tokio::time::sleep(QUIET), if finished => break,
        }
    }
    Ok((mesh, tally))
}

/// Sends the numbers from 0 in each mode, and returns how many packets those were for each.
async fn send_all(handle: MeshHandle, peer: PeerId, packets: u32) -> Result<u64, SendError> {
    for number in 0..packets {
        for mode in TransferMode::ALL {
            handle.send(OutgoingPacket::new(peer, mode, payload(number))).await?;
        }
    }
    Ok(u64::from(packets))
}

fn payload(number: u32) -> Bytes {
    let mut payload = BytesMut::with_capacity(PAYLOAD_BYTES);
    payload.put_u32(number);
    payload.resize(PAYLOAD_BYTES, 0);
    payload.freeze()
}

/// Closes the mesh, and tells how its peers left.
async fn part(mut mesh: Mesh, plan: Plan) {
    mesh.handle().close().await;
    while let Some(event) = mesh.next().await {
        plan.say(mesh.id(), format_args!("{event:?}"));
    }
    plan.say(mesh.id(), "closed");
}

/// What one member has sent and received.
#[derive(Debug)]
struct Tally {
    /// Packets to each of the others, in each mode.
    packets: u32,
    /// Sent in each mode, to all others together.
    sent: u64,
    links: BTreeMap<PeerId, Link>,
    /// When it was connected to everybody.
    full: Duration,
    /// When it had everybody's reliable packets.
    complete: Option<Duration>,
}

/// What came from one peer, by mode.
#[derive(Debug, Default)]
struct Link {
    received: [u32; 3],
    /// The number that the next packet has, or may have at the least.
    next: [u32; 3],
}

impl Tally {
    fn new(packets: u32) -> Tally {
        Tally { packets, sent: 0, links: BTreeMap::new(), full: Duration::ZERO, complete: None }
    }

    fn count(&mut self, packet: Packet) -> Result<(), Failure> {
        let Packet { from, mode, mut payload } = packet;
        let link = self.links.get_mut(&from).ok_or("a packet came before its PeerConnected")?;
        let number = payload.try_get_u32()?;
        let next = &mut link.next[mode as usize];
        let in_order = match mode {
            TransferMode::Reliable => number == *next,
            TransferMode::UnreliableOrdered => number >= *next,
            TransferMode::Unreliable => true,
        };
        if !in_order {
            return Err(format!("{mode:?} packet {number} of {from} came where {next} was due").into());
        }
        *next = number + 1;
        link.received[mode as usize] += 1;
        Ok(())
    }

    fn received(&self, mode: TransferMode) -> u64 {
        self.links.values().map(|link| u64::from(link.received[mode as usize])).sum()
    }

    fn has_all_reliable(&self, plan: Plan) -> bool {
        self.has_all_of(TransferMode::Reliable, plan)
    }

    fn has_all(&self, plan: Plan) -> bool {
        TransferMode::ALL.into_iter().all(|mode| self.has_all_of(mode, plan))
    }

    fn has_all_of(&self, mode: TransferMode, plan: Plan) -> bool {
        self.links.len() as u32 == plan.others()
            && self.links.values().all(|link| link.received[mode as usize] >= self.packets)
    }
}

/// Prints the table, and judges.
fn report(
    plan: Plan,
    tallies: &[Tally],
    mut round_trips: Vec<Duration>,
    parted: Duration,
) -> Result<(), Failure> {
    let links = plan.peers * plan.others() / 2;
    println!();
    println!(
        "{} peers, {links} links, {} packets of {PAYLOAD_BYTES} bytes each way in each mode",
        plan.peers, plan.packets
    );
    println!();
    println!("{:<18} {:>10} {:>10} {:>10}", "mode", "sent", "received", "missing");
    let sent: u64 = tallies.iter().map(|tally| tally.sent).sum();
    for mode in TransferMode::ALL.into_iter().rev() {
        let received: u64 = tallies.iter().map(|tally| tally.received(mode)).sum();
        println!("{:<18} {sent:>10} {received:>10} {:>10}", format!("{mode:?}"), sent - received);
    }
    println!();
    let full = tallies.iter().map(|tally| tally.full).max().unwrap_or_default();
    let complete = tallies.iter().filter_map(|tally| tally.complete).max().unwrap_or_default();
    println!("{:<18} {:>10}", "mesh full after", millis(full));
    println!("{:<18} {:>10}", "all reliable after", millis(complete));
    round_trips.sort();
    match (round_trips.first(), round_trips.get(round_trips.len() / 2), round_trips.last()) {
        (Some(min), Some(median), Some(max)) => println!(
            "{:<18} {:>10} min {:>10} median {:>10} max, of {}",
            "round trip",
            millis(*min),
            millis(*median),
            millis(*max),
            round_trips.len()
        ),
        _ => println!("{:<18} {:>10}", "round trip", "not measured"),
    }
    println!("{:<18} {:>10}", "all closed within", millis(parted));
    println!();

    let received: u64 = tallies.iter().map(|tally| tally.received(TransferMode::Reliable)).sum();
    let expected = u64::from(2 * links) * u64::from(plan.packets);
    if (sent, received) != (expected, expected) {
        return Err(format!("{expected} reliable packets were due, {sent} were sent, {received} came").into());
    }
    println!("every reliable packet arrived, in order");
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
