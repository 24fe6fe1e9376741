//! A chat through a signalling server: start it in several terminals, on one machine or many.
//!
//! ```text
//! cargo run --features server --bin webrtc-mesh-signaling
//! cargo run --features ws --example chat -- URL [LOBBY] [--name NAME] [--godot3] [--stun URL] [--bind ADDRESS]
//! ```
//!
//! `URL` is the server's, `ws://127.0.0.1:9080` for the one above. Everyone who names the same `LOBBY` meets; without
//! one, the server makes a new one and this prints its name. `--godot3` speaks the protocol of Godot 3's demo instead
//! of Godot 4's. `--stun` names a STUN server, which peers behind different routers need to find each other. `--bind`
//! names the one address of this machine to use, such as 127.0.0.1, instead of all.
//!
//! A line is sent to everybody. What begins with `/` is a command: `/peers`, `/name NAME`, `/seal`, `/quit`.
//!
//! What goes over the wire is text, one packet a line, and `/name NAME` for who says it: a Godot game joins in with
//! `rtc_mp.put_packet(line.to_utf8_buffer())`, if its `rtc_mp` is not also the `multiplayer_peer`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is its output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::BufRead as _;
use std::net::IpAddr;
use std::process::ExitCode;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use webrtc_mesh::signaling::godot::{Generation, GodotSignaling};
use webrtc_mesh::{
    IceServer, Mesh, MeshEvent, MeshHandle, OutgoingPacket, PeerConnectionConfig, PeerId, SignalingStatus,
    Target,
};

const USAGE: &str = "usage: chat URL [LOBBY] [--name NAME] [--godot3] [--stun URL] [--bind ADDRESS]";
const COMMANDS: &str = "commands: /peers, /name NAME, /seal, /quit";

/// The longest name that is shown, in characters: others choose theirs.
const MAX_NAME: usize = 24;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) if error.is_empty() => {
            println!("{USAGE}\n{COMMANDS}");
            return ExitCode::SUCCESS;
        }
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
    let signaling = GodotSignaling::connect(arguments.url)
        .lobby(&arguments.lobby)
        .create(!arguments.lobby.is_empty())
        .generation(arguments.generation)
        .await?;
    let mut connection = PeerConnectionConfig::new();
    if let Some(address) = arguments.bind {
        connection = connection.bind((address, 0).into());
    }
    for server in arguments.ice {
        connection = connection.ice_server(server);
    }
    let mesh = Mesh::builder().connection(connection).join(signaling).await?;
    let name = arguments.name.unwrap_or_else(|| format!("peer {}", mesh.id()));
    println!("* you are {name} ({}), in the lobby {}", mesh.id(), mesh.handle().lobby().unwrap_or_default());
    println!("* {COMMANDS}");
    Chat { handle: mesh.handle(), name, names: BTreeMap::new() }.run(mesh).await;
    Ok(())
}

struct Chat {
    handle: MeshHandle,
    name: String,
    /// Of those who are connected, and have said it.
    names: BTreeMap<PeerId, String>,
}

impl Chat {
    async fn run(mut self, mut mesh: Mesh) {
        let mut lines = lines();
        loop {
            tokio::select! {
                event = mesh.next() => match event {
                    Some(event) => self.show(event),
                    None => return,
                },
                line = lines.recv() => match line.as_deref().map(str::trim) {
                    None | Some("/quit") => break,
                    Some(line) => self.typed(line).await,
                },
                _ = tokio::signal::ctrl_c() => break,
            }
        }
        // What was sent is delivered, and everyone is told.
        self.handle.close().await;
        println!("* goodbye");
    }

    fn show(&mut self, event: MeshEvent) {
        match event {
            MeshEvent::PeerConnected(peer) => {
                println!("* {peer} is here");
                self.send(peer, format!("/name {}", self.name));
            }
            MeshEvent::PeerDisconnected(peer, reason) => {
                println!("* {} left: {reason}", self.name_of(peer));
                self.names.remove(&peer);
            }
            MeshEvent::PeerFailed(peer, failure) => println!("* {peer} could not be connected: {failure}"),
            MeshEvent::PeerUnstable(peer) => println!("* {} is not heard now", self.name_of(peer)),
            MeshEvent::PeerRecovered(peer) => println!("* {} is heard again", self.name_of(peer)),
            MeshEvent::Packet(packet) => self.heard(packet.from, &printable(&packet.payload)),
            MeshEvent::SignalingLost => match self.handle.signaling() {
                SignalingStatus::Restoring(why) => println!("* no server now ({why}); whoever is here stays"),
                SignalingStatus::Lost(why) => {
                    println!("* nobody else can come ({why}); whoever is here stays")
                }
                _ => {}
            },
            MeshEvent::SignalingRestored => println!("* the server is there again"),
            MeshEvent::LobbySealed => println!("* the lobby is sealed: nobody else comes in"),
            _ => {}
        }
    }

    fn heard(&mut self, from: PeerId, text: &str) {
        match text.strip_prefix("/name ") {
            Some(name) => {
                let name: String = name.trim().chars().take(MAX_NAME).collect();
                println!("* {} is {name}", self.name_of(from));
                self.names.insert(from, format!("{name} ({from})"));
            }
            None => println!("{}: {text}", self.name_of(from)),
        }
    }

    async fn typed(&mut self, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("/peers", _) => self.print_peers().await,
            ("/name", name) if !name.trim().is_empty() => {
                self.name = name.trim().to_owned();
                println!("* you are {}", self.name);
                self.send(Target::All, format!("/name {}", self.name));
            }
            ("/seal", _) => {
                if let Err(error) = self.handle.seal_lobby().await {
                    println!("* not sealed: {error}");
                }
            }
            (command, _) if command.starts_with('/') => println!("* {COMMANDS}"),
            _ if !self.handle.peers().await.values().any(|peer| peer.connected) => {
                println!("* nobody hears it: nobody else is here");
            }
            _ => self.send(Target::All, line.to_owned()),
        }
    }

    async fn print_peers(&self) {
        let peers = self.handle.peers().await;
        if peers.is_empty() {
            println!("* nobody else is here");
        }
        for (peer, info) in peers {
            let state = match (info.connected, info.round_trip_time) {
                (false, _) => "connecting".to_owned(),
                (true, None) => "connected".to_owned(),
                (true, Some(time)) => format!("round trip {:.1} ms", time.as_secs_f64() * 1000.0),
            };
            println!("* {}: {state}", self.name_of(peer));
        }
    }

    /// Does not wait: this runs in the loop that reads.
    fn send(&self, target: impl Into<Target>, line: String) {
        if let Err(error) = self.handle.try_send(OutgoingPacket::reliable(target, line)) {
            println!("* not sent: {error}");
        }
    }

    fn name_of(&self, peer: PeerId) -> String {
        self.names.get(&peer).cloned().unwrap_or_else(|| peer.to_string())
    }
}

/// Text from elsewhere, without what moves the cursor.
fn printable(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// What is typed. A thread of its own, as the end of the program must not wait for one more line.
fn lines() -> mpsc::Receiver<String> {
    let (lines, typed) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    typed
}

struct Arguments {
    url: String,
    lobby: String,
    name: Option<String>,
    generation: Generation,
    ice: Vec<IceServer>,
    bind: Option<IpAddr>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let (mut places, mut ice) = (Vec::new(), Vec::new());
        let (mut name, mut bind, mut generation) = (None, None, Generation::Godot4);
        while let Some(argument) = given.next() {
            let mut value = || given.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--name" => name = Some(value()?),
                "--stun" => ice.push(IceServer::stun(value()?)),
                "--bind" => bind = Some(value()?.parse().map_err(|_| "--bind takes an address".to_owned())?),
                // No error: the usage is what is asked for.
                "--help" | "-h" => return Err(String::new()),
                "--godot3" => generation = Generation::Godot3,
                option if option.starts_with('-') => return Err(format!("there is no option {option}")),
                _ => places.push(argument),
            }
        }
        let mut places = places.into_iter();
        let url = places.next().ok_or("the server's URL is missing")?;
        let lobby = places.next().unwrap_or_default();
        match places.next() {
            Some(more) => Err(format!("{more:?} is one too many")),
            None => Ok(Arguments { url, lobby, name, generation, ice, bind }),
        }
    }
}
