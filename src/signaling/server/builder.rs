//! How a server is set up: [`SignalingServerBuilder`].

use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SignalingServer;
use super::admission::{Admission, Arrival};
use super::households::Households;
use super::http::Door;
use super::mailbox::{Bounds, Budget};
use super::memory::InMemory;
use super::metrics::Metrics;
use super::rate::{Addresses, Rate};
use super::rendezvous::Rendezvous;
use super::session::state::Limits;
use super::shared::Shared;

/// Sets up a [`SignalingServer`]. Every number has a default.
#[derive(Clone)]
#[must_use = "nothing is built before `build`"]
pub struct SignalingServerBuilder {
    peers: usize,
    lobbies: usize,
    peers_per_lobby: usize,
    peers_per_address: usize,
    message_bytes: usize,
    messages: (u32, u32),
    bytes: (u32, u32),
    joins: (u32, u32),
    join_limit: Duration,
    ping_interval: Duration,
    silence_limit: Duration,
    write_limit: Duration,
    outbox: (usize, usize),
    outboxes_bytes: usize,
    http_limit: Duration,
    header_limit: Duration,
    tls_handshake_limit: Duration,
    resume: Duration,
    restore: Duration,
    seal_delay: Duration,
    admission_limit: Duration,
    shutdown_limit: Duration,
    trust_forwarded_for: bool,
    admission: Option<Admission>,
    rendezvous: Option<Arc<dyn Rendezvous>>,
}

impl Default for SignalingServerBuilder {
    fn default() -> SignalingServerBuilder {
        SignalingServerBuilder {
            peers: 4_096,
            lobbies: 1_024,
            peers_per_lobby: 128,
            peers_per_address: 512,
            message_bytes: 64 * 1024,
            messages: (100, 1_000),
            bytes: (1024 * 1024, 8 * 1024 * 1024),
            joins: (200, 1_000),
            join_limit: Duration::from_secs(1),
            ping_interval: Duration::from_secs(10),
            silence_limit: Duration::from_secs(25),
            write_limit: Duration::from_secs(10),
            outbox: (4_096, 1024 * 1024),
            outboxes_bytes: 256 * 1024 * 1024,
            http_limit: Duration::from_secs(15),
            header_limit: Duration::from_secs(5),
            tls_handshake_limit: Duration::from_secs(5),
            resume: Duration::from_secs(15),
            restore: Duration::from_secs(60),
            seal_delay: Duration::from_secs(10),
            admission_limit: Duration::from_secs(5),
            shutdown_limit: Duration::from_secs(5),
            trust_forwarded_for: false,
            admission: None,
            rendezvous: None,
        }
    }
}

impl SignalingServerBuilder {
    /// Clients that may be connected at once (default 4,096, as Godot's server has it). One more is closed with
    /// [`TooManyPeers`](crate::signaling::godot::CloseReason::TooManyPeers). As many again may be away while their
    /// place is kept; beyond that, who loses its connection has left.
    pub fn max_peers(mut self, peers: usize) -> Self {
        self.peers = peers;
        self
    }

    /// Lobbies at once (default 1,024, as Godot's server has it). To make one more fails with
    /// [`TooManyLobbies`](crate::signaling::godot::CloseReason::TooManyLobbies). Not for a
    /// [`rendezvous`](SignalingServerBuilder::rendezvous) of your own.
    pub fn max_lobbies(mut self, lobbies: usize) -> Self {
        self.lobbies = lobbies;
        self
    }

    /// Members of a lobby (default 128, as many as [`MeshBuilder::max_peers`](crate::MeshBuilder::max_peers) takes: in a
    /// full mesh each has a connection to all others). One more is closed with
    /// [`LobbyFull`](crate::signaling::godot::CloseReason::LobbyFull). Not for a
    /// [`rendezvous`](SignalingServerBuilder::rendezvous) of your own.
    pub fn max_peers_per_lobby(mut self, peers: usize) -> Self {
        self.peers_per_lobby = peers;
        self
    }

    /// Clients of one IPv4 address, or one /64 of IPv6, at once (default 512, an eighth of all: a school, or a LAN party,
    /// is behind one address). Those are counted whose place is kept while they are away; one that comes back counts
    /// once. One more is closed with [`TooManyPeers`](crate::signaling::godot::CloseReason::TooManyPeers). Behind a proxy,
    /// all have its address, unless [`trust_forwarded_for`](SignalingServerBuilder::trust_forwarded_for) is on. Not
    /// limited where the address is not known ([`router`](SignalingServer::router)).
    pub fn max_peers_per_address(mut self, peers: usize) -> Self {
        self.peers_per_address = peers;
        self
    }

    /// The longest message from a client, in bytes (default 64 KiB; a description is 1 to 4 KiB, and some engines put
    /// all candidates into it). A longer one closes the client with
    /// [`TooLarge`](crate::signaling::godot::CloseReason::TooLarge), and is not received first.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// Frames that a client may send per second in the long run, and at once (default 100 and 1,000; a newcomer to a
    /// lobby of 128 sends some ten to each). Beyond it the client is not read for a moment: it waits, and nothing is
    /// lost. At least 1 each.
    pub fn message_rate(mut self, per_second: u32, burst: u32) -> Self {
        self.messages = (per_second, burst);
        self
    }

    /// Bytes that are read from a connection per second in the long run, and at once (default 1 MiB and 8 MiB: more than
    /// a newcomer sends to a full lobby). Beyond it the connection is not read for a moment. Unlike
    /// [`message_rate`](SignalingServerBuilder::message_rate), it counts all that comes, what makes no message yet too. At
    /// least 1 each. For [`serve`](SignalingServer::serve) and [`serve_tls`](SignalingServer::serve_tls).
    pub fn byte_rate(mut self, per_second: u32, burst: u32) -> Self {
        self.bytes = (per_second, burst);
        self
    }

    /// Connections from one IPv4 address, or one /64 of IPv6, per second in the long run, and at once (default 200 and
    /// 1,000, for many players behind one address). One more is refused with HTTP 429. Requests for `/healthz` and
    /// `/metrics` count as well. At least 1 each. Not limited
    /// where the address is not known ([`router`](SignalingServer::router)). 65,536 addresses are remembered; those
    /// beyond share one allowance.
    pub fn join_rate(mut self, per_second: u32, burst: u32) -> Self {
        self.joins = (per_second, burst);
        self
    }

    /// How long a client may take to say which lobby it joins (default 1 s, as Godot's server has it). After that it is
    /// closed with [`NotJoined`](crate::signaling::godot::CloseReason::NotJoined).
    pub fn join_limit(mut self, limit: Duration) -> Self {
        self.join_limit = limit;
        self
    }

    /// How often each client is pinged (default 10 s, as Godot's server does it).
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// After how long without any frame from a client, answers to pings among them, its connection counts as lost
    /// (default 25 s: two pings and a half). If it is the server that did nothing meanwhile, as its machine slept, clients
    /// have half of it from then on.
    pub fn silence_limit(mut self, limit: Duration) -> Self {
        self.silence_limit = limit;
        self
    }

    /// How long a client may take to receive what was handed to its connection (default 10 s); then the connection
    /// counts as lost.
    pub fn write_limit(mut self, limit: Duration) -> Self {
        self.write_limit = limit;
        self
    }

    /// What members say that may wait for one client: messages, and their bytes (default 4,096 and 1 MiB: offers from a
    /// full lobby of 128 with all their candidates). Of one sender's, a quarter of it may wait. What is over it is dropped
    /// and counted, and closes nobody, whether the client is connected or away; one that does not read is ended by the
    /// [`write_limit`](SignalingServerBuilder::write_limit). What the server itself says has room of its own
    /// ([`Mailbox`](super::Mailbox)).
    pub fn outbox(mut self, max_messages: usize, max_bytes: usize) -> Self {
        self.outbox = (max_messages, max_bytes);
        self
    }

    /// What may wait for all clients together, in bytes (default 256 MiB: some 250 full outboxes, which a small machine
    /// has the memory for). What members say beyond it is dropped and counted.
    pub fn outboxes_bytes(mut self, max_bytes: usize) -> Self {
        self.outboxes_bytes = max_bytes;
        self
    }

    /// How long a connection may take in all to become a WebSocket, whatever it asks for before (default 15 s: a TLS
    /// handshake and a request on the worst of networks); then it is cut. One that asks only for `/healthz` or `/metrics`
    /// is, too. For [`serve`](SignalingServer::serve) and [`serve_tls`](SignalingServer::serve_tls).
    pub fn http_limit(mut self, limit: Duration) -> Self {
        self.http_limit = limit;
        self
    }

    /// How long the head of a request may take, and how long a connection may be idle before it is a WebSocket
    /// (default 5 s). For [`serve`](SignalingServer::serve) and [`serve_tls`](SignalingServer::serve_tls).
    pub fn header_limit(mut self, limit: Duration) -> Self {
        self.header_limit = limit;
        self
    }

    /// How long a TLS handshake may take (default 5 s).
    pub fn tls_handshake_limit(mut self, limit: Duration) -> Self {
        self.tls_handshake_limit = limit;
        self
    }

    /// How long the place of a client that has a session is kept when its connection is lost (default 15 s: a phone that
    /// changes networks is back within a few; zero keeps none). See the [front page](crate::signaling::server#coming-back).
    pub fn resume(mut self, hold: Duration) -> Self {
        self.resume = hold;
        self
    }

    /// For how long after its start a server takes it from clients which lobbies there were, and which ids they had
    /// (default 60 s; zero never). See the [front page](crate::signaling::server#coming-back) for what that trusts. Not for a
    /// [`rendezvous`](SignalingServerBuilder::rendezvous) of your own.
    pub fn restore(mut self, window: Duration) -> Self {
        self.restore = window;
        self
    }

    /// How long after a lobby was sealed its members are closed with
    /// [`SealComplete`](crate::signaling::godot::CloseReason::SealComplete) (default 10 s, as Godot's server has it).
    pub fn seal_delay(mut self, delay: Duration) -> Self {
        self.seal_delay = delay;
        self
    }

    /// How long an [`admission`](SignalingServerBuilder::admission) may take (default 5 s); then it has refused.
    pub fn admission_limit(mut self, limit: Duration) -> Self {
        self.admission_limit = limit;
        self
    }

    /// How long [`shutdown`](SignalingServer::shutdown) waits for clients to answer (default 5 s).
    pub fn shutdown_limit(mut self, limit: Duration) -> Self {
        self.shutdown_limit = limit;
        self
    }

    /// Whether a request comes from the last address in its `X-Forwarded-For` (default false). Behind a proxy that adds
    /// it, all clients have the proxy's address otherwise. Without such a proxy, clients could say anything there.
    pub fn trust_forwarded_for(mut self, trust: bool) -> Self {
        self.trust_forwarded_for = trust;
        self
    }

    /// Asks this whether somebody may join (default: everybody may). Whoever may not is closed with
    /// [`Refused`](crate::signaling::godot::CloseReason::Refused) and the reason, of which 114 bytes are sent. Asked when
    /// the client has said which lobby it joins, also when it comes back. The client's further messages wait meanwhile.
    ///
    /// ```
    /// use webrtc_mesh::signaling::server::SignalingServer;
    ///
    /// let server = SignalingServer::builder().admission(|arrival| async move {
    ///     let token = arrival.query.split('&').find_map(|pair| pair.strip_prefix("token="));
    ///     if token == Some("sesame") { Ok(()) } else { Err("no token".to_owned()) }
    /// });
    /// # let _ = server;
    /// ```
    pub fn admission<F, Fut>(mut self, admission: F) -> Self
    where
        F: Fn(Arrival) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.admission = Some(Arc::new(move |arrival| Box::pin(admission(arrival))));
        self
    }

    /// Who keeps the lobbies (default [`InMemory`], with the limits given here).
    pub fn rendezvous(mut self, rendezvous: impl Rendezvous) -> Self {
        self.rendezvous = Some(Arc::new(rendezvous));
        self
    }

    /// The server. Nothing runs before it serves, or one of its routers does.
    pub fn build(self) -> SignalingServer {
        let in_memory = || -> Arc<dyn Rendezvous> {
            Arc::new(InMemory::new(self.lobbies, self.peers_per_lobby, self.restore))
        };
        let rendezvous = self.rendezvous.clone().unwrap_or_else(in_memory);
        let max_peers = self.peers.min(Semaphore::MAX_PERMITS);
        let stop = CancellationToken::new();
        let shared = Shared {
            rendezvous,
            session: Limits {
                join: self.join_limit,
                ping: self.ping_interval,
                silence: self.silence_limit,
                resume: self.resume,
                seal: self.seal_delay,
                messages: Rate::new(self.messages.0, self.messages.1),
            },
            metrics: Metrics::new(),
            admission: self.admission,
            admission_limit: self.admission_limit,
            max_message_bytes: self.message_bytes,
            write_limit: self.write_limit,
            http_limit: self.http_limit,
            header_limit: self.header_limit,
            tls_limit: self.tls_handshake_limit,
            shutdown_limit: self.shutdown_limit,
            outbox: Bounds {
                relays: self.outbox.0,
                bytes: self.outbox.1,
                news: NEWS.max(self.peers_per_lobby.saturating_mul(2)),
            },
            budget: Budget::new(self.outboxes_bytes),
            trust_forwarded_for: self.trust_forwarded_for,
            addresses: Mutex::new(Addresses::new(Rate::new(self.joins.0, self.joins.1), Instant::now())),
            bytes: Rate::new(self.bytes.0, self.bytes.1),
            households: Households::new(self.peers_per_address),
            max_peers,
            connections: Arc::new(Semaphore::new((max_peers + SPARE).min(Semaphore::MAX_PERMITS))),
            peers: Arc::new(Semaphore::new(max_peers)),
            kept: Arc::new(Semaphore::new(max_peers)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            tracker: TaskTracker::new(),
            stop: stop.clone(),
            kill: CancellationToken::new(),
            sessions: AtomicU64::new(0),
        };
        SignalingServer { door: Door { shared: Arc::new(shared), _guard: Arc::new(stop.drop_guard()) } }
    }
}

/// Messages of the server's own that may wait for a client, at least: some 64 KiB.
const NEWS: usize = 1_024;

/// TCP connections beside those of as many clients as may be: for those who are yet to ask for something.
const SPARE: usize = 1_024;

/// Clients that are told at once, for a second at the most each, that there is no room; others get HTTP 503.
const REFUSALS: usize = 64;

impl fmt::Debug for SignalingServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalingServerBuilder")
            .field("max_peers", &self.peers)
            .field("max_lobbies", &self.lobbies)
            .field("max_peers_per_lobby", &self.peers_per_lobby)
            .finish_non_exhaustive()
    }
}
