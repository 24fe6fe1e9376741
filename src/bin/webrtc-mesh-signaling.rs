//! `webrtc-mesh-signaling`: the signalling server of `webrtc_mesh::signaling::server`, with a command line.

use std::env;
use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Parser, ValueEnum};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use webrtc_mesh::signaling::server::{SignalingServer, TlsConfig};

const ABOUT: &str = "A signalling server for WebRTC meshes: Godot 3 and Godot 4 games, and programs made with the Rust \
crate webrtc-mesh, find each other through it.

It speaks the protocol of the official WebRTC signalling demos, both generations on one port. Players join a lobby by its \
name, or make one; offers, answers and candidates go through the server, the game itself does not.";

const EXAMPLES: &str = "Examples:
  For a game on this machine; its URL in Godot is ws://127.0.0.1:9080
      webrtc-mesh-signaling

  Behind a proxy that speaks TLS and adds X-Forwarded-For (wss://example.org/signaling)
      webrtc-mesh-signaling --bind 127.0.0.1:9080 --trust-forwarded-for

  On the open internet with a certificate of its own (wss://example.org:9443). Pages served over https can connect to \
wss:// only.
      webrtc-mesh-signaling --bind 0.0.0.0:9443 --tls-cert fullchain.pem --tls-key privkey.pem

  Logs for machines, with more in them
      webrtc-mesh-signaling --log-format json --log info,webrtc_mesh=debug

GET /healthz answers while it runs, GET /metrics is for Prometheus. SIGINT and SIGTERM close all clients and end it.

Exit status: 0 after a signal, 1 if it cannot run (the address is in use, a certificate cannot be read), 2 if the command \
line cannot be understood.";

#[derive(Debug, Parser)]
#[command(name = "webrtc-mesh-signaling", version, about = ABOUT, after_help = EXAMPLES)]
struct Options {
    /// Address and port to listen on; port 0 takes a free one, which is logged
    #[arg(long, env = "WEBRTC_MESH_BIND", default_value = "127.0.0.1:9080", value_name = "ADDRESS:PORT")]
    bind: SocketAddr,

    /// Certificate chain, PEM: serve wss:// instead of ws://
    #[arg(long, env = "WEBRTC_MESH_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, PEM
    #[arg(long, env = "WEBRTC_MESH_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Take clients' addresses from the last entry of X-Forwarded-For; only behind a proxy that adds it
    #[arg(long, env = "WEBRTC_MESH_TRUST_FORWARDED_FOR", value_parser = BoolishValueParser::new())]
    trust_forwarded_for: bool,

    /// Clients at once
    #[arg(long, env = "WEBRTC_MESH_MAX_PEERS", default_value_t = 4_096, value_name = "N")]
    max_peers: usize,

    /// Lobbies at once
    #[arg(long, env = "WEBRTC_MESH_MAX_LOBBIES", default_value_t = 1_024, value_name = "N")]
    max_lobbies: usize,

    /// Members of a lobby, its host included
    #[arg(long, env = "WEBRTC_MESH_MAX_PEERS_PER_LOBBY", default_value_t = 128, value_name = "N")]
    max_peers_per_lobby: usize,

    /// Clients of one address (IPv6: one /64) at once; behind a proxy, use --trust-forwarded-for
    #[arg(long, env = "WEBRTC_MESH_MAX_PEERS_PER_ADDRESS", default_value_t = 512, value_name = "N")]
    max_peers_per_address: usize,

    /// The longest message from a client, in bytes
    #[arg(long, env = "WEBRTC_MESH_MAX_MESSAGE_BYTES", default_value_t = 65_536, value_name = "BYTES")]
    max_message_bytes: usize,

    /// Messages per second that a client may send in the long run; a faster one is slowed down
    #[arg(long, env = "WEBRTC_MESH_MESSAGES_PER_SECOND", default_value_t = 100, value_name = "N")]
    messages_per_second: u32,

    /// Messages that a client may send at once
    #[arg(long, env = "WEBRTC_MESH_MESSAGE_BURST", default_value_t = 1_000, value_name = "N")]
    message_burst: u32,

    /// Bytes per second that are read from a client in the long run
    #[arg(long, env = "WEBRTC_MESH_BYTES_PER_SECOND", default_value_t = 1_048_576, value_name = "BYTES")]
    bytes_per_second: u32,

    /// Bytes that are read from a client at once
    #[arg(long, env = "WEBRTC_MESH_BYTE_BURST", default_value_t = 8_388_608, value_name = "BYTES")]
    byte_burst: u32,

    /// Connections per second from one address (IPv6: one /64) in the long run; more get HTTP 429
    #[arg(long, env = "WEBRTC_MESH_JOINS_PER_SECOND", default_value_t = 200, value_name = "N")]
    joins_per_second: u32,

    /// Connections from one address at once
    #[arg(long, env = "WEBRTC_MESH_JOIN_BURST", default_value_t = 1_000, value_name = "N")]
    join_burst: u32,

    /// Messages from others that may wait for one client; what is over it is dropped
    #[arg(long, env = "WEBRTC_MESH_OUTBOX_MESSAGES", default_value_t = 4_096, value_name = "N")]
    outbox_messages: usize,

    /// Their bytes
    #[arg(long, env = "WEBRTC_MESH_OUTBOX_BYTES", default_value_t = 1_048_576, value_name = "BYTES")]
    outbox_bytes: usize,

    /// Bytes that may wait for all clients together; what is over it is dropped
    #[arg(long, env = "WEBRTC_MESH_OUTBOXES_BYTES", default_value_t = 268_435_456, value_name = "BYTES")]
    outboxes_bytes: usize,

    /// How long a client may take to join a lobby
    #[arg(long, env = "WEBRTC_MESH_JOIN_LIMIT", default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    join_limit: Duration,

    /// How often clients are pinged
    #[arg(long, env = "WEBRTC_MESH_PING_INTERVAL", default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    ping_interval: Duration,

    /// After how long without a sign of life a client's connection counts as lost
    #[arg(long, env = "WEBRTC_MESH_SILENCE_LIMIT", default_value = "25", value_parser = seconds, value_name = "SECONDS")]
    silence_limit: Duration,

    /// How long a client may take to receive what it was sent
    #[arg(long, env = "WEBRTC_MESH_WRITE_LIMIT", default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    write_limit: Duration,

    /// How long a connection may take in all to become a WebSocket
    #[arg(long, env = "WEBRTC_MESH_HTTP_LIMIT", default_value = "15", value_parser = seconds, value_name = "SECONDS")]
    http_limit: Duration,

    /// How long the head of an HTTP request may take
    #[arg(long, env = "WEBRTC_MESH_HEADER_LIMIT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    header_limit: Duration,

    /// How long a TLS handshake may take
    #[arg(long, env = "WEBRTC_MESH_TLS_HANDSHAKE_LIMIT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    tls_handshake_limit: Duration,

    /// How long the place of a client that lost its connection is kept, if it can come back; 0 keeps none
    #[arg(long, env = "WEBRTC_MESH_RESUME", default_value = "15", value_parser = seconds, value_name = "SECONDS")]
    resume: Duration,

    /// For how long after the start clients may restore the lobbies that they were in before; 0 never
    #[arg(long, env = "WEBRTC_MESH_RESTORE", default_value = "60", value_parser = seconds, value_name = "SECONDS")]
    restore: Duration,

    /// How long after a lobby was sealed its clients are closed
    #[arg(long, env = "WEBRTC_MESH_SEAL_DELAY", default_value = "10", value_parser = seconds, value_name = "SECONDS")]
    seal_delay: Duration,

    /// How long to wait for clients when the server is told to end
    #[arg(long, env = "WEBRTC_MESH_SHUTDOWN_LIMIT", default_value = "5", value_parser = seconds, value_name = "SECONDS")]
    shutdown_limit: Duration,

    /// Which log lines to write: a level, and others for parts of the program, as in `warn,webrtc_mesh=debug`
    #[arg(long, env = "WEBRTC_MESH_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// Log lines for people or for machines, on standard error
    #[arg(long, env = "WEBRTC_MESH_LOG_FORMAT", default_value = "text", value_enum)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the log filter `{filter}` cannot be understood: {error}")]
    Filter { filter: String, error: String },
    #[error("cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("cannot use {} with {}: {error}", cert.display(), key.display())]
    Tls { cert: PathBuf, key: PathBuf, error: webrtc_mesh::signaling::server::TlsError },
    #[error("cannot listen on {bind}: {error}{}", hint(error))]
    Listen { bind: SocketAddr, error: io::Error },
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("stopped: {0}")]
    Stopped(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program has this port; --bind takes another one)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege)",
        io::ErrorKind::AddrNotAvailable => " (this machine has no such address)",
        _ => "",
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    // A year: what is longer is a mistake, and added to the time it might be too much.
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err("not between 0 and 31536000 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            #[allow(clippy::print_stderr, reason = "there may be no log yet")]
            {
                eprintln!("error: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    log_to_stderr(&options)?;
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => Some(read_tls(cert, key)?),
        _ => None,
    };
    let server = build(&options);
    let unable = |error| Failure::Listen { bind: options.bind, error };
    let listener = TcpListener::bind(options.bind).await.map_err(unable)?;
    let address = listener.local_addr().map_err(unable)?;
    // Before it says that it listens, so that who waits for that line can end it.
    let signal = end_signal().map_err(Failure::Signals)?;
    tracing::info!(%address, tls = tls.is_some(), "listening");

    let stopper = server.clone();
    let stop = tokio::spawn(async move {
        let name = signal.await;
        tracing::info!("{name}: closing all clients");
        stopper.shutdown().await;
    });
    match tls {
        Some(tls) => server.serve_tls(listener, tls).await,
        None => server.serve(listener).await,
    }
    .map_err(Failure::Stopped)?;
    let _ = stop.await;
    tracing::info!("done");
    Ok(())
}

fn build(options: &Options) -> SignalingServer {
    SignalingServer::builder()
        .trust_forwarded_for(options.trust_forwarded_for)
        .max_peers(options.max_peers)
        .max_lobbies(options.max_lobbies)
        .max_peers_per_lobby(options.max_peers_per_lobby)
        .max_peers_per_address(options.max_peers_per_address)
        .max_message_bytes(options.max_message_bytes)
        .message_rate(options.messages_per_second, options.message_burst)
        .byte_rate(options.bytes_per_second, options.byte_burst)
        .join_rate(options.joins_per_second, options.join_burst)
        .outbox(options.outbox_messages, options.outbox_bytes)
        .outboxes_bytes(options.outboxes_bytes)
        .join_limit(options.join_limit)
        .ping_interval(options.ping_interval)
        .silence_limit(options.silence_limit)
        .write_limit(options.write_limit)
        .http_limit(options.http_limit)
        .header_limit(options.header_limit)
        .tls_handshake_limit(options.tls_handshake_limit)
        .resume(options.resume)
        .restore(options.restore)
        .seal_delay(options.seal_delay)
        .shutdown_limit(options.shutdown_limit)
        .build()
}

fn log_to_stderr(options: &Options) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&options.log)
        .map_err(|error| Failure::Filter { filter: options.log.clone(), error: error.to_string() })?;
    let colors = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colors);
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn read_tls(cert: &Path, key: &Path) -> Result<TlsConfig, Failure> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Failure::Unreadable { path: path.to_owned(), error })
    };
    TlsConfig::from_pem(&read(cert)?, &read(key)?).map_err(|error| Failure::Tls {
        cert: cert.to_owned(),
        key: key.to_owned(),
        error,
    })
}

/// Comes back with the name of the signal to end. It is caught from here on, not from the first wait on.
#[cfg(unix)]
fn end_signal() -> io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

#[cfg(not(unix))]
fn end_signal() -> io::Result<impl Future<Output = &'static str>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    })
}
