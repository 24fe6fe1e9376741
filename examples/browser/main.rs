//! A shared space in the browser: everyone's pointer, a chat, and the mesh drawn as it is. This program serves the page
//! and the signalling, and is a member of the mesh itself.
//!
//! ```text
//! cargo run --release --features server,ws --example browser -- [--bind ADDRESS:PORT] [--ice SERVER]… [--address ADDRESS]
//! ```
//!
//! `--bind` is where the page is served (default 127.0.0.1:8080). `--ice` names a STUN or TURN server, for this member
//! and for the page: `stun:HOST:PORT`, or `turn:HOST:PORT,USER,PASSWORD`, which every visitor is told. `--address` is
//! the one address of this machine that this member connects from, instead of all. `README.md` says the rest.
//!
//! What goes over the wire, besides what the mesh needs itself. Of what is longer or otherwise, nothing is taken:
//!
//! | mode | payload | |
//! |---|---|---|
//! | reliable | `{"t":"hello","name":"anna","color":"#3a86ff"}` | to a newcomer, and to all when it changes; 24 characters |
//! | reliable | `{"t":"chat","text":"hi"}` | 500 characters |
//! | reliable | `{"t":"links","links":[[7,"connected",1.2],…]}` | the sender's links, every 3 s and when one changes: to whom, how it is, its round trip in milliseconds or null |
//! | ordered | 2, begins (0 or 1), x, y | ink: a point of a line that fades; x and y are u16, big-endian, 0 to 65535 across the space |
//! | unreliable | 1, x, y | the pointer, at most 60 times a second; at rest, once a second |
//! | unreliable | 0 | the pointer has left the space |

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is its output")]

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::f64::consts::TAU;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use webrtc_mesh::signaling::godot::GodotSignaling;
use webrtc_mesh::signaling::server::SignalingServer;
use webrtc_mesh::{
    IceServer, Mesh, MeshEvent, MeshHandle, OutgoingPacket, Packet, PeerConnectionConfig, PeerId,
    SignalingStatus, Target, TransferMode,
};

const USAGE: &str = "usage: browser [--bind ADDRESS:PORT] [--ice SERVER]... [--address ADDRESS]";

/// Where everybody meets.
const LOBBY: &str = "playground";

const NAME: &str = "Ferris";
const COLOR: &str = "#d2572b";
const HELP: &str =
    "/peers: who is here, as I see it. /heart: I draw one. /help: this. Press and move to draw.";

/// In characters.
const MAX_NAME: usize = 24;
const MAX_TEXT: usize = 500;
/// In bytes: a `links` of 128 peers has some 4 KiB.
const MAX_JSON: usize = 16 * 1024;

const POINTER: u8 = 1;
const INK: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    // A visitor of an earlier run is refused its old id, and joins anew: it cannot make the lobby before its host does.
    let signaling = SignalingServer::builder().restore(Duration::ZERO).build();
    let listener = TcpListener::bind(arguments.bind).await?;
    println!("* the page is at http://{}", reachable(listener.local_addr()?));
    let site = site(&arguments.ice).nest("/signaling", signaling.router());
    let site = axum::serve(listener, site.into_make_service_with_connect_info::<SocketAddr>());

    // A door of our own to the same server, which stays plain whatever is put before the page.
    let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("ws://{}", door.local_addr()?);

    let stop = CancellationToken::new();
    let connection = arguments.connection();
    let mut member = std::pin::pin!(host(&url, connection, stop.clone()));
    tokio::select! {
        served = site => served?,
        served = signaling.serve(door) => served?,
        () = &mut member => {}
        _ = tokio::signal::ctrl_c() => {
            stop.cancel();
            member.await;
        }
    }
    signaling.shutdown().await;
    Ok(())
}

/// The page and what it is made of, in this binary.
fn site(ice: &[Ice]) -> Router {
    let script = "text/javascript; charset=utf-8";
    let ice_servers: Vec<Value> = ice.iter().map(Ice::for_browser).collect();
    let config = json!({ "lobby": LOBBY, "iceServers": ice_servers }).to_string();
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("index.html")))
        .route("/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
        .route("/app.js", file(script, include_str!("app.js")))
        .route("/webrtc-mesh.js", file(script, include_str!("webrtc-mesh.js")))
        .route("/config.json", file("application/json", config))
}

fn file(kind: &'static str, content: impl Into<axum::body::Bytes>) -> axum::routing::MethodRouter {
    let content = content.into();
    get(move || async move {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // A browser that does not take this page's own WebSocket for 'self' needs its schemes.
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; base-uri 'none'; \
                 form-action 'none'; frame-ancestors 'none'",
            ),
            (HeaderName::from_static("referrer-policy"), "no-referrer"),
        ];
        (headers, content).into_response()
    })
}

/// Is the lobby's host, and makes the lobby anew whenever it has ended.
async fn host(url: &str, connection: PeerConnectionConfig, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let joined = async {
            let signaling = GodotSignaling::connect(url).lobby(LOBBY).create(true).await?;
            let mesh = Mesh::builder().connection(connection.clone()).join(signaling).await?;
            Ok::<_, Box<dyn Error>>(mesh)
        };
        match joined.await {
            Ok(mesh) => {
                println!("* {NAME} is peer {} in the lobby {LOBBY}", mesh.id());
                Member::new(mesh.handle()).run(mesh, &stop).await;
            }
            Err(error) => println!("* the lobby is not joined: {error}"),
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await;
    }
}

/// Our part in the space.
struct Member {
    handle: MeshHandle,
    visitors: BTreeMap<PeerId, Visitor>,
    /// Links that did not come to be, and when; shown to the others for a while.
    failed: VecDeque<(PeerId, Instant)>,
    /// Links that are not heard at the moment.
    unstable: Vec<PeerId>,
    /// What is to be drawn, a point at a time; bounded, as a new drawing is begun when this one is done.
    ink: VecDeque<[u8; 6]>,
    since: Instant,
}

/// Somebody who is connected.
#[derive(Default)]
struct Visitor {
    /// Once it has said hello.
    name: Option<String>,
    /// Packets of it, by [`TransferMode`].
    packets: [u64; 3],
}

/// How often our pointer moves, and how long it takes around.
const POINTER_EVERY: Duration = Duration::from_millis(40);
const ROUND: Duration = Duration::from_secs(16);
const LINKS_EVERY: Duration = Duration::from_secs(3);

/// How long failed links are shown, and how many at once.
const FAILED_SHOWN: Duration = Duration::from_secs(30);
const MAX_FAILED: usize = 16;

impl Member {
    fn new(handle: MeshHandle) -> Member {
        Member {
            handle,
            visitors: BTreeMap::new(),
            failed: VecDeque::new(),
            unstable: Vec::new(),
            ink: VecDeque::new(),
            since: Instant::now(),
        }
    }

    /// Until the lobby has ended, or we are to stop.
    async fn run(mut self, mut mesh: Mesh, stop: &CancellationToken) {
        let (mut pointer, mut links) = (interval(POINTER_EVERY), interval(LINKS_EVERY));
        pointer.set_missed_tick_behavior(MissedTickBehavior::Skip);
        links.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                event = mesh.next() => match event {
                    Some(MeshEvent::SignalingLost) => match self.handle.signaling() {
                        SignalingStatus::Lost(why) => {
                            println!("* the lobby is over: {why}");
                            break;
                        }
                        other => println!("* the signalling is lost: {other:?}"),
                    },
                    Some(event) => {
                        if self.happened(event) {
                            links.reset_immediately();
                        }
                    }
                    None => return,
                },
                _ = pointer.tick(), if !self.visitors.is_empty() => self.move_pointer(),
                _ = links.tick() => self.tell_links().await,
                () = stop.cancelled() => break,
            }
        }
        self.handle.close().await;
    }

    /// Whether the links are others now.
    fn happened(&mut self, event: MeshEvent) -> bool {
        match event {
            MeshEvent::PeerConnected(peer) => {
                println!("* {peer} is here");
                self.failed.retain(|(failed, _)| *failed != peer);
                self.visitors.insert(peer, Visitor::default());
                self.say(peer, &json!({ "t": "hello", "name": NAME, "color": COLOR }));
            }
            MeshEvent::PeerDisconnected(peer, reason) => {
                println!("* {} left: {reason}", self.name_of(peer));
                self.visitors.remove(&peer);
                self.unstable.retain(|unstable| *unstable != peer);
            }
            MeshEvent::PeerFailed(peer, failure) => {
                println!("* {peer} could not be connected: {failure}");
                if self.failed.len() == MAX_FAILED {
                    self.failed.pop_front();
                }
                self.failed.push_back((peer, Instant::now()));
            }
            MeshEvent::PeerUnstable(peer) => self.unstable.push(peer),
            MeshEvent::PeerRecovered(peer) => self.unstable.retain(|unstable| *unstable != peer),
            MeshEvent::SignalingRestored => println!("* the signalling is there again"),
            MeshEvent::Packet(packet) => {
                self.heard(&packet);
                return false;
            }
            _ => return false,
        }
        true
    }

    fn heard(&mut self, packet: &Packet) {
        let Some(visitor) = self.visitors.get_mut(&packet.from) else { return };
        visitor.packets[usize::from(packet.mode as u8)] += 1;
        // Pointers and ink are for those who see.
        if packet.mode != TransferMode::Reliable || packet.payload.len() > MAX_JSON {
            return;
        }
        let Ok(said) = serde_json::from_slice::<Value>(&packet.payload) else { return };
        let text = |member: &str, limit| {
            said[member].as_str().map(|text| printable(text, limit)).filter(|text| !text.is_empty())
        };
        match said["t"].as_str() {
            Some("hello") => {
                let Some(name) = text("name", MAX_NAME) else { return };
                if visitor.name.replace(name.clone()).is_none() {
                    println!("* {} is {name}", packet.from);
                    let text = format!("Hello {name}! /help says what I can do.");
                    self.say_to_all(&json!({ "t": "chat", "text": text }));
                }
            }
            Some("chat") => {
                let Some(text) = text("text", MAX_TEXT) else { return };
                println!("{}: {text}", self.name_of(packet.from));
                self.asked(packet.from, &text);
            }
            _ => {}
        }
    }

    /// A command is answered to whoever gave it.
    fn asked(&mut self, peer: PeerId, text: &str) {
        let answers = match text {
            "/help" => vec![HELP.to_owned()],
            "/peers" => self.roll(),
            "/heart" if self.ink.is_empty() => {
                self.ink = heart();
                return;
            }
            "/heart" => vec!["One after the other, please.".to_owned()],
            _ if text.starts_with('/') => vec![format!("I do not know that. {HELP}")],
            _ => return,
        };
        for text in answers {
            self.say(peer, &json!({ "t": "chat", "text": text }));
        }
    }

    /// A line for everyone, at the most what a person reads.
    fn roll(&self) -> Vec<String> {
        let line = |(peer, visitor): (&PeerId, &Visitor)| {
            let [unreliable, ordered, reliable] = visitor.packets;
            let name = visitor.name.as_deref().unwrap_or("somebody");
            format!("{name} ({peer}) sent me {reliable} reliable, {ordered} ordered, {unreliable} unreliable")
        };
        self.visitors.iter().take(16).map(line).collect()
    }

    /// In a circle; and draws, if there is something to be drawn.
    fn move_pointer(&mut self) {
        if let Some(point) = self.ink.pop_front() {
            self.send(OutgoingPacket::unreliable_ordered(Target::All, point.to_vec()));
            let pointer = [&[POINTER], &point[2..]].concat();
            return self.send(OutgoingPacket::unreliable(Target::All, pointer));
        }
        let angle = TAU * self.since.elapsed().as_secs_f64() / ROUND.as_secs_f64();
        let [x, y] = [0.5 + 0.32 * angle.cos(), 0.5 + 0.32 * angle.sin()].map(fraction);
        let pointer = [&[POINTER], &x[..], &y[..]].concat();
        self.send(OutgoingPacket::unreliable(Target::All, pointer));
    }

    /// Everyone draws the links of all, so everyone tells its own.
    async fn tell_links(&mut self) {
        let links = self.handle.peers().await.into_iter().map(|(peer, info)| {
            let state = match info.connected {
                true if self.unstable.contains(&peer) => "unstable",
                true => "connected",
                false => "connecting",
            };
            let time = info.round_trip_time.map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0);
            json!([peer.get(), state, time])
        });
        let mut links: Vec<Value> = links.collect();
        self.failed.retain(|(_, when)| when.elapsed() < FAILED_SHOWN);
        links.extend(self.failed.iter().map(|(peer, _)| json!([peer.get(), "failed", null])));
        self.say_to_all(&json!({ "t": "links", "links": links }));
    }

    /// One after the other: a broadcast reaches nobody as long as one of them does not read.
    fn say_to_all(&self, what: &Value) {
        for peer in self.visitors.keys() {
            self.say(*peer, what);
        }
    }

    fn say(&self, peer: PeerId, what: &Value) {
        self.send(OutgoingPacket::reliable(peer, what.to_string()));
    }

    /// Does not wait: this runs in the loop that reads. Whoever does not read misses it.
    fn send(&self, packet: OutgoingPacket) {
        if let Err(error) = self.handle.try_send(packet) {
            println!("* not sent: {error}");
        }
    }

    fn name_of(&self, peer: PeerId) -> String {
        let name = self.visitors.get(&peer).and_then(|visitor| visitor.name.as_ref());
        name.map_or_else(|| peer.to_string(), |name| format!("{name} ({peer})"))
    }
}

/// Text from elsewhere, without what moves the cursor or turns others around.
fn printable(text: &str, limit: usize) -> String {
    let hidden = |character: char| {
        character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text: String = text.chars().take(limit).collect();
    text.replace(hidden, " ").trim().to_owned()
}

/// A place between 0 and 1, as it is sent.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
fn fraction(place: f64) -> [u8; 2] {
    ((place.clamp(0.0, 1.0) * 65_535.0).round() as u16).to_be_bytes()
}

fn heart() -> VecDeque<[u8; 6]> {
    let point = |step: u32| {
        let angle = TAU * f64::from(step) / 60.0;
        let x = 0.5 + 0.014 * 16.0 * angle.sin().powi(3) * 0.75;
        let y = 0.48
            - 0.02
                * (13.0 * angle.cos()
                    - 5.0 * (2.0 * angle).cos()
                    - 2.0 * (3.0 * angle).cos()
                    - (4.0 * angle).cos());
        let ([x0, x1], [y0, y1]) = (fraction(x), fraction(y));
        [INK, u8::from(step == 0), x0, x1, y0, y1]
    };
    (0..=60).map(point).collect()
}

/// Where a browser on this machine finds what is bound there.
fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, bound.port()).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, bound.port()).into(),
        _ => bound,
    }
}

struct Arguments {
    bind: SocketAddr,
    ice: Vec<Ice>,
    address: Option<IpAddr>,
}

/// A STUN server, or a TURN server with its user and password.
struct Ice {
    url: String,
    login: Option<(String, String)>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments =
            Arguments { bind: (Ipv4Addr::LOCALHOST, 8080).into(), ice: Vec::new(), address: None };
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bind" => {
                    arguments.bind =
                        value()?.parse().map_err(|_| "--bind takes an address and a port".to_owned())?;
                }
                "--address" => {
                    let address = value()?.parse().map_err(|_| "--address takes an address".to_owned())?;
                    arguments.address = Some(address);
                }
                "--ice" => arguments.ice.push(Ice::parse(&value()?)?),
                _ => return Err(format!("there is no option {argument}")),
            }
        }
        Ok(arguments)
    }

    fn connection(&self) -> PeerConnectionConfig {
        let mut connection = PeerConnectionConfig::new();
        if let Some(address) = self.address {
            connection = connection.bind((address, 0).into());
        }
        for Ice { url, login } in &self.ice {
            connection = connection.ice_server(match login {
                None => IceServer::stun(url),
                Some((user, password)) => IceServer::turn(url, user, password),
            });
        }
        connection
    }
}

impl Ice {
    fn parse(text: &str) -> Result<Ice, String> {
        let mut parts = text.splitn(3, ',').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(url), None, None) if url.starts_with("stun:") => Ok(Ice { url, login: None }),
            (Some(url), Some(user), Some(password)) if url.starts_with("turn:") => {
                Ok(Ice { url, login: Some((user, password)) })
            }
            _ => Err("--ice takes stun:HOST:PORT or turn:HOST:PORT,USER,PASSWORD".to_owned()),
        }
    }

    /// As the page's `RTCPeerConnection` takes it.
    fn for_browser(&self) -> Value {
        match &self.login {
            None => json!({ "urls": self.url }),
            Some((user, password)) => json!({ "urls": self.url, "username": user, "credential": password }),
        }
    }
}
