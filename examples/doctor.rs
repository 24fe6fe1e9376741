//! What connectivity this machine has, for whoever wonders why a peer does not connect.
//!
//! ```text
//! cargo run --release --example doctor -- [--ice-server URL]... [--username NAME --credential SECRET] [--bind ADDRESS]
//! ```
//!
//! It shows the addresses of this machine, connects two peers within it and says how long each stage took, and asks each
//! `--ice-server` (`stun:` or `turn:`): what address it sees us under, from which follows what kind of NAT there is, and
//! of a TURN server whether two peers can meet through it. Name two servers on different machines: one alone cannot tell
//! whether the NAT gives us the same address towards everybody. None is asked by default. `--username` and `--credential`
//! are for the TURN servers; `--bind` uses this address alone (say `127.0.0.1`), instead of those of all interfaces.
//!
//! The exit code is 0 if all is well, 1 if something is not, 2 if it was not understood.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is its output")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;
use rtc::shared::ifaces::ifaces;
use rtc::stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Getter as _, Message, TransactionId};
use rtc::stun::xoraddr::XorMappedAddress;
use tokio::net::{UdpSocket, lookup_host};
use tokio::time::{Instant, timeout};
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::{
    CandidateKind, ConnectionReport, IceServer, Mesh, MeshEvent, OutgoingPacket, PeerConnectionConfig, Stage,
};

/// How long each of three requests to a STUN server waits for its answer.
const ANSWER_LIMITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1000), Duration::from_millis(1500)];

/// How long a server's name may take to be found.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// How long two peers may take to connect here. On a machine that is well it is a fraction of a second.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

const USAGE: &str =
    "usage: doctor [--ice-server URL]... [--username NAME --credential SECRET] [--bind ADDRESS]";

#[tokio::main]
async fn main() -> ExitCode {
    let plan = match Plan::from_args(std::env::args().skip(1)) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut findings = Findings::default();
    addresses(&mut findings);
    within_this_machine(&plan, &mut findings).await;
    ice_servers(&plan, &mut findings).await;
    findings.conclude()
}

/// What was asked for.
#[derive(Debug, Default)]
struct Plan {
    servers: Vec<Server>,
    bind: Option<IpAddr>,
}

#[derive(Debug, Clone)]
struct Server {
    url: String,
    /// Host and port.
    host: String,
    /// As a peer would use it.
    ice: IceServer,
    relays: bool,
}

impl Plan {
    /// `None` if help was asked for.
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Option<Plan>, String> {
        let (mut urls, mut username, mut credential, mut plan) = (Vec::new(), None, None, Plan::default());
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--ice-server" => urls.push(value()?),
                "--username" => username = Some(value()?),
                "--credential" => credential = Some(value()?),
                "--bind" => {
                    let text = value()?;
                    plan.bind = Some(text.parse().map_err(|_| format!("{text:?} is not an IP address"))?);
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("{arg:?} is not known")),
            }
        }
        for url in urls {
            let (scheme, rest) = url.split_once(':').unwrap_or_default();
            let relays = match scheme {
                "stun" => false,
                "turn" => true,
                _ => return Err(format!("{url:?} does not begin with stun: or turn:")),
            };
            let host = rest.split('?').next().unwrap_or_default();
            // The port is behind the last colon, unless that is one of an IPv6 address without brackets.
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let host = if has_port { host.to_owned() } else { format!("{host}:3478") };
            let ice = match (relays, &username, &credential) {
                (false, ..) => IceServer::stun(&url),
                (true, Some(username), Some(credential)) => IceServer::turn(&url, username, credential),
                (true, ..) => return Err(format!("{url:?} needs --username and --credential")),
            };
            plan.servers.push(Server { url, host, ice, relays });
        }
        Ok(Some(plan))
    }

    fn config(&self) -> PeerConnectionConfig {
        let config = PeerConnectionConfig::new();
        self.bind.map_or(config.clone(), |ip| config.bind((ip, 0).into()))
    }
}

/// What is wrong, in the order in which it was found.
#[derive(Debug, Default)]
struct Findings(Vec<String>);

impl Findings {
    fn good(&self, what: impl std::fmt::Display) {
        println!("  ok    {what}");
    }

    fn note(&self, what: impl std::fmt::Display) {
        println!("  -     {what}");
    }

    fn bad(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("  BAD   {what}");
        self.0.push(what);
    }

    fn conclude(self) -> ExitCode {
        println!();
        if self.0.is_empty() {
            println!("Nothing wrong was found.");
            return ExitCode::SUCCESS;
        }
        println!("Wrong:");
        self.0.iter().for_each(|what| println!("  * {what}"));
        ExitCode::FAILURE
    }
}

fn addresses(findings: &mut Findings) {
    println!("Addresses of this machine");
    let mut interfaces = match ifaces() {
        Ok(interfaces) => interfaces,
        Err(error) => return findings.bad(format!("the interfaces cannot be listed: {error}")),
    };
    interfaces.sort_by(|one, other| one.name.cmp(&other.name));
    let mut usable = 0;
    for interface in interfaces {
        let Some(ip) = interface.addr.map(|addr| addr.ip()) else { continue };
        let what = match ip {
            _ if ip.is_loopback() => "for this machine alone",
            IpAddr::V4(ip) if ip.is_link_local() => "for the local wire alone, not used",
            IpAddr::V6(ip) if ip.is_unicast_link_local() => "for the local wire alone, not used",
            IpAddr::V4(ip) if ip.is_private() => "private: reached from this network",
            IpAddr::V6(ip) if ip.is_unique_local() => "private: reached from this network",
            // RFC 6598.
            IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64 => {
                "shared: behind the provider's NAT"
            }
            _ => "public, if no firewall stands before it",
        };
        usable += usize::from(!ip.is_loopback() && !what.ends_with("not used"));
        findings.note(format!("{:<10} {ip}  ({what})", interface.name));
    }
    if usable == 0 {
        findings.note("none by which another machine could reach this one");
    }
}

async fn within_this_machine(plan: &Plan, findings: &mut Findings) {
    println!("\nTwo peers within this machine");
    let loopback = PeerConnectionConfig::new().bind((Ipv4Addr::LOCALHOST, 0).into());
    let mut ways = vec![("on 127.0.0.1".to_owned(), loopback)];
    match plan.bind {
        Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) => {}
        Some(ip) => ways.push((format!("on {ip}"), plan.config())),
        None => ways.push(("on the addresses of all interfaces".to_owned(), plan.config())),
    }
    for (way, config) in ways {
        match meet(config).await {
            Ok((report, round_trip)) => findings.good(format!("{way}: {}", timed(&report, round_trip))),
            Err(NotMet(failure, _)) => findings.bad(format!("{way}: {failure}")),
        }
    }
}

async fn ice_servers(plan: &Plan, findings: &mut Findings) {
    println!("\nICE servers");
    if plan.servers.is_empty() {
        return findings.note(
            "none was named (--ice-server), so nothing is known of NATs and of UDP beyond this machine",
        );
    }
    let mut asker = Asker::new(plan.bind);
    let mut answered = false;
    for server in &plan.servers {
        match asker.ask(server).await {
            Ok((mapped, time)) => {
                answered = true;
                let millis = time.as_secs_f64() * 1000.0;
                findings
                    .good(format!("{} answers after {millis:.1} ms, and sees us as {mapped}", server.url));
            }
            Err(problem) => findings.bad(format!("{} {problem}", server.url)),
        }
    }
    match (answered, asker.asked) {
        (true, _) => {}
        (false, true) => findings.bad("no server answers over UDP: it is blocked, or they are all down"),
        (false, false) => {
            findings.note("none could be asked, so nothing is known of UDP beyond this machine")
        }
    }
    asker.conclude(findings);
    for server in plan.servers.iter().filter(|server| server.relays) {
        match meet(plan.config().ice_server(server.ice.clone()).relay_only(true)).await {
            Ok((report, round_trip)) => {
                findings.good(format!(
                    "{} relays between two peers: {}",
                    server.url,
                    timed(&report, round_trip)
                ));
            }
            Err(NotMet(failure, relay)) => {
                let but = if relay {
                    "gives a relay, but two peers do not meet through it"
                } else {
                    "gives no relay"
                };
                findings.bad(format!("{} {but}: {failure}", server.url));
            }
        }
    }
}

/// Asks servers for our address, all from the same port, so that the answers can be compared.
struct Asker {
    bind: Option<IpAddr>,
    /// For IPv4 and for IPv6.
    sockets: [Option<UdpSocket>; 2],
    /// Something was sent to one.
    asked: bool,
    /// Whom was asked, from where, and what was answered.
    answers: Vec<(SocketAddr, SocketAddr, SocketAddr)>,
}

impl Asker {
    fn new(bind: Option<IpAddr>) -> Asker {
        Asker { bind, sockets: [None, None], asked: false, answers: Vec::new() }
    }

    /// Our address as the server sees it, and how long it took.
    async fn ask(&mut self, server: &Server) -> Result<(SocketAddr, Duration), String> {
        let found = timeout(LOOKUP_LIMIT, lookup_host(&server.host)).await;
        let found = found.map_err(|_| format!("is not found within {} s", LOOKUP_LIMIT.as_secs()))?;
        let found = found.map_err(|error| format!("is not found: {error}"))?;
        let mut why = "has no address of a family that is used here".to_owned();
        let bind = self.bind;
        for to in found.filter(|to| bind.is_none_or(|ip| ip.is_ipv4() == to.is_ipv4())) {
            match self.ask_at(to).await {
                Ok(answer) => return Ok(answer),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn ask_at(&mut self, to: SocketAddr) -> Result<(SocketAddr, Duration), String> {
        let unspecified =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = match &mut self.sockets[usize::from(to.is_ipv6())] {
            Some(socket) => socket,
            none => {
                let bound = UdpSocket::bind((self.bind.unwrap_or(unspecified), 0)).await;
                none.insert(
                    bound.map_err(|error| format!("cannot be asked, as no socket is bound: {error}"))?,
                )
            }
        };
        let unsent = |error: std::io::Error| format!("cannot be sent to: {error}");
        // Which of our addresses the datagrams leave by, the kernel tells of a socket that is connected.
        let probe = std::net::UdpSocket::bind((self.bind.unwrap_or(unspecified), 0)).map_err(unsent)?;
        probe.connect(to).map_err(unsent)?;
        let port = socket.local_addr().map_err(unsent)?.port();
        let from = SocketAddr::new(probe.local_addr().map_err(unsent)?.ip(), port);

        let mut request = Message::new();
        let built = request.build(&[Box::new(BINDING_REQUEST), Box::new(TransactionId::new())]);
        built.map_err(|error| format!("cannot be asked: {error}"))?;
        let since = Instant::now();
        for limit in ANSWER_LIMITS {
            socket.send_to(&request.raw, to).await.map_err(unsent)?;
            self.asked = true;
            if let Ok(mapped) = timeout(limit, answer(socket, &request)).await {
                let mapped = mapped?;
                self.answers.push((to, from, mapped));
                return Ok((mapped, since.elapsed()));
            }
        }
        Err("does not answer".to_owned())
    }

    /// What the answers say of the NATs between (RFC 4787 section 4.1).
    fn conclude(&self, findings: &mut Findings) {
        for ipv4 in [true, false] {
            let answers: Vec<_> = self.answers.iter().filter(|(to, ..)| to.is_ipv4() == ipv4).collect();
            let [(first, from, mapped), rest @ ..] = &answers[..] else { continue };
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            if from == mapped {
                findings.good(format!("{family}: no NAT"));
            } else if rest.iter().all(|(to, ..)| to == first) {
                findings.note(format!("{family}: behind a NAT; name a second server to learn of what kind"));
            } else if rest.iter().all(|(_, _, other)| other == mapped) {
                findings.good(format!(
                    "{family}: behind a NAT that gives one address towards all (endpoint-independent mapping): \
                     direct links are likely"
                ));
            } else {
                findings.note(format!(
                    "{family}: behind a NAT that gives another address towards each (a symmetric one): direct links \
                     need a remote that is reachable; else a TURN server is needed"
                ));
            }
        }
    }
}

/// The answer to this request, whatever else comes.
async fn answer(socket: &UdpSocket, request: &Message) -> Result<SocketAddr, String> {
    let mut datagram = [0; 1500];
    loop {
        // An error is one of an earlier datagram: nobody listens there. The others may.
        let Ok((length, _)) = socket.recv_from(&mut datagram).await else { continue };
        let mut message = Message::new();
        let parsed = message.unmarshal_binary(&datagram[..length]);
        if parsed.is_err() || message.transaction_id != request.transaction_id {
            continue;
        }
        if message.typ != BINDING_SUCCESS {
            return Err(format!("refuses to tell our address: {}", message.typ));
        }
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&message).map_err(|error| format!("does not tell our address: {error}"))?;
        return Ok(SocketAddr::new(mapped.ip, mapped.port));
    }
}

type Met = (ConnectionReport, Duration);

/// Why two peers did not meet, and whether one of them had a relay.
struct NotMet(String, bool);

/// Lets two peers of this configuration meet, and one say something to the other, who says it back.
async fn meet(config: PeerConnectionConfig) -> Result<Met, NotMet> {
    let hub = Hub::new();
    let join = async || {
        let builder = Mesh::builder().connection(config.clone()).handshake_limit(CONNECT_LIMIT);
        builder.join(hub.join()).await.map_err(|error| NotMet(error.to_string(), false))
    };
    let (mut one, mut two) = (join().await?, join().await?);
    let (handle, other) = (one.handle(), two.id());
    let echo = tokio::spawn(async move {
        while let Some(event) = two.next().await {
            if let MeshEvent::Packet(packet) = event {
                let _ = two.handle().try_send(OutgoingPacket::reliable(packet.from, packet.payload));
            }
        }
    });
    let not_met = |why: String| {
        let relay = |report: ConnectionReport| {
            report.local.iter().any(|candidate| candidate.kind == CandidateKind::Relay)
        };
        NotMet(why, handle.report(other).is_some_and(relay))
    };
    let met = async {
        handle.wait_connected(other).await.map_err(|error| not_met(error.to_string()))?;
        let since = Instant::now();
        let sent = handle.try_send(OutgoingPacket::reliable(other, "are you there?"));
        sent.map_err(|error| not_met(error.to_string()))?;
        while let Some(event) = one.next().await {
            match event {
                MeshEvent::Packet(_) => break,
                MeshEvent::PeerDisconnected(_, reason) => {
                    return Err(not_met(reason.to_string()));
                }
                _ => {}
            }
        }
        let report = handle.report(other).ok_or_else(|| not_met("it has left at once".to_owned()))?;
        Ok((report, since.elapsed()))
    };
    let late = |_| Err(not_met("they are connected, and nothing comes back".to_owned()));
    let met = timeout(CONNECT_LIMIT + Duration::from_secs(2), met).await.unwrap_or_else(late);
    handle.close().await;
    // The other mesh goes with its task.
    echo.abort();
    let _ = echo.await;
    met
}

/// How long it took, stage by stage.
fn timed(report: &ConnectionReport, round_trip: Duration) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let stages = [Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels];
    let stages = stages.map(|stage| format!("{stage} {:.0}", millis(report.times.of(stage))));
    let pair = report
        .selected()
        .map_or(String::new(), |pair| format!(", {} to {}", pair.local.kind, pair.remote.kind));
    format!(
        "connected after {:.0} ms ({}){pair}; a packet there and back {:.1} ms",
        millis(report.times.total()),
        stages.join(", "),
        millis(round_trip)
    )
}
