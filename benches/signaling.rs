//! What a signalling server takes: lobbies of four that join, exchange messages and leave, on loopback.
//!
//! ```text
//! cargo bench --features server --bench signaling          # 1,000 lobbies, some ten seconds
//! cargo bench --features server --bench signaling -- 100   # so many lobbies
//! ```
//!
//! The server is a process of its own, so that its memory is its own; the clients, in this one, share the cores with it,
//! and are the slower half. Each client is one file descriptor here and one there.

#![allow(clippy::expect_used, clippy::panic, reason = "a broken link ends the benchmark")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it is for")]

use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use webrtc_mesh::signaling::godot::{Generation, Message, RelayKind};
use webrtc_mesh::signaling::server::SignalingServer;

const LOBBIES: usize = 1_000;
const PEERS_PER_LOBBY: usize = 4;
const MESSAGES_EACH: usize = 20;
/// As long as a candidate; a description is ten times that, once.
const PAYLOAD_BYTES: usize = 120;
/// Lobbies that are being joined at the same time.
const AT_ONCE: usize = 64;

/// The argument with which this program is the server.
const SERVE: &str = "--serve";

const LIMIT: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if arguments.iter().any(|argument| argument == SERVE) {
        runtime.block_on(serve());
        return;
    }
    let asked = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(LOBBIES);
    let lobbies = affordable(asked);
    let server = Server::start();
    runtime.block_on(load(&server, lobbies));
}

/// As many lobbies as file descriptors allow.
fn affordable(lobbies: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let files: Option<usize> = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    let Some(files) = files else { return lobbies };
    let most = files.saturating_sub(64) / PEERS_PER_LOBBY;
    if most < lobbies {
        println!("{files} open files (ulimit -n) are enough for {most} lobbies, not for {lobbies}");
    }
    lobbies.min(most).max(1)
}

async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    std::io::stdout().flush().expect("a pipe");
    let server = SignalingServer::builder()
        .max_peers(1_000_000)
        .max_peers_per_address(1_000_000)
        .max_lobbies(1_000_000)
        .join_rate(1_000_000, 1_000_000)
        .message_rate(1_000_000, 1_000_000)
        .byte_rate(u32::MAX, u32::MAX)
        .join_limit(LIMIT)
        .build();
    let ends = server.clone();
    tokio::spawn(async move {
        // The pipe ends with the parent.
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
        ends.shutdown().await;
    });
    server.serve(listener).await.expect("a server");
}

/// This program once more, as the server.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Server {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        Server { child, address: line.trim().parse().expect("its address") }
    }

    /// Its memory (VmRSS), in KiB.
    fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

async fn load(server: &Server, lobbies: usize) {
    let peers = lobbies * PEERS_PER_LOBBY;
    println!(
        "{lobbies} lobbies of {PEERS_PER_LOBBY}, {MESSAGES_EACH} messages of {PAYLOAD_BYTES} bytes each"
    );
    let before = server.memory();
    let address = server.address;

    let since = Instant::now();
    let mut joined = Vec::with_capacity(lobbies);
    let mut joining = JoinSet::new();
    for _ in 0..lobbies {
        if joining.len() >= AT_ONCE {
            joined.extend(joining.join_next().await.map(|lobby| lobby.expect("a lobby")));
        }
        joining.spawn(async move { within(lobby(address)).await });
    }
    while let Some(lobby) = joining.join_next().await {
        joined.push(lobby.expect("a lobby"));
    }
    row("joins", peers, since);
    let each = server.memory().saturating_sub(before) as f64 / peers as f64;
    println!("{:<10} {each:>10.1} KiB for each of them in the server", "memory");

    let since = Instant::now();
    let mut talking = JoinSet::new();
    for members in joined {
        talking.spawn(async move { within(talk(members)).await });
    }
    let mut talked = Vec::with_capacity(lobbies);
    while let Some(lobby) = talking.join_next().await {
        talked.push(lobby.expect("a lobby"));
    }
    row("messages", peers * MESSAGES_EACH, since);

    let since = Instant::now();
    let mut leaving = JoinSet::new();
    for members in talked {
        leaving.spawn(async move { within(leave(members)).await });
    }
    while let Some(left) = leaving.join_next().await {
        left.expect("a lobby");
    }
    row("leaves", peers, since);
}

fn row(what: &str, count: usize, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("{what:<10} {:>10.0} per second ({count} in {seconds:.2} s)", count as f64 / seconds);
}

struct Member {
    socket: WebSocketStream<TcpStream>,
    id: u32,
    others: Vec<u32>,
}

async fn lobby(address: SocketAddr) -> Vec<Member> {
    let (host, name) = member(address, String::new()).await;
    let mut members = vec![host];
    for _ in 1..PEERS_PER_LOBBY {
        members.push(member(address, name.clone()).await.0);
    }
    members
}

async fn member(address: SocketAddr, lobby: String) -> (Member, String) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("no delay");
    let url = format!("ws://{address}/");
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket");
    let mut member = Member { socket, id: 0, others: Vec::new() };
    member.say(&Message::Join { lobby, mesh: true }).await;
    loop {
        match member.hear().await {
            Message::Id { id, .. } => member.id = id,
            Message::PeerConnect(other) => member.others.push(other),
            Message::Join { lobby, .. } => return (member, lobby),
            other => panic!("{other:?} while joining"),
        }
    }
}

/// Each says its messages to those whom it knows, in turn, and hears as many as are said to it.
async fn talk(members: Vec<Member>) -> Vec<Member> {
    let mut ids: Vec<u32> = members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    let ids = &ids;
    let talking = members.into_iter().map(|mut member| {
        let said_by = |id: u32| {
            let others: Vec<u32> = ids.iter().copied().filter(|other| *other != id).collect();
            (0..MESSAGES_EACH).map(move |said| others[said % others.len()])
        };
        let me = member.id;
        let others = ids.iter().filter(move |id| **id != me);
        let expected = others.flat_map(|id| said_by(*id)).filter(|peer| *peer == me).count();
        let mine: Vec<u32> = said_by(me).collect();
        async move {
            let payload = "x".repeat(PAYLOAD_BYTES);
            for peer in mine {
                let kind = RelayKind::Candidate;
                member.say(&Message::Relay { peer, kind, payload: payload.clone() }).await;
            }
            let mut heard = 0;
            while heard < expected {
                if matches!(member.hear().await, Message::Relay { .. }) {
                    heard += 1;
                }
            }
            member
        }
    });
    futures::future::join_all(talking).await
}

async fn leave(members: Vec<Member>) {
    // The host last: the lobby ends with it.
    for mut member in members.into_iter().rev() {
        let _ = member.socket.close(None).await;
        while let Some(Ok(_)) = member.socket.next().await {}
    }
}

impl Member {
    async fn say(&mut self, message: &Message) {
        let frame = Frame::text(message.encode(Generation::Godot4));
        self.socket.send(frame).await.expect("a connection");
    }

    async fn hear(&mut self) -> Message {
        loop {
            match self.socket.next().await {
                Some(Ok(Frame::Text(text))) => {
                    return Message::decode(Generation::Godot4, &text).expect("a message");
                }
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                other => panic!("no message, but {other:?}"),
            }
        }
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it happens in time")
}
