//! A signalling server that stock Godot games find each other through, both generations of the
//! [protocol](super::godot) on one port.
//!
//! ```no_run
//! use tokio::net::TcpListener;
//! use webrtc_mesh::signaling::server::SignalingServer;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! let server = SignalingServer::builder().max_peers(1_000).build();
//! let on_ctrl_c = server.clone();
//! tokio::spawn(async move {
//!     let _ = tokio::signal::ctrl_c().await;
//!     on_ctrl_c.shutdown().await;
//! });
//! server.serve(TcpListener::bind("127.0.0.1:9080").await?).await
//! # }
//! ```
//!
//! The program `webrtc-mesh-signaling` is this with a command line. In an axum program of your own,
//! [`router`](SignalingServer::router) goes beside the game's page:
//!
//! ```
//! use axum::{Router, response::Html, routing::get};
//! use webrtc_mesh::signaling::server::SignalingServer;
//!
//! let signaling = SignalingServer::builder().build();
//! let program: Router = Router::new()
//!     .route("/", get(|| async { Html("<h1>the game</h1>") }))
//!     .nest_service("/signaling", signaling.router());
//! # let _ = program;
//! ```
//!
//! # What clients see
//!
//! A client's first message says which generation it is of, and each lobby has one. Text and binary frames are taken, if
//! they are UTF-8; answers are text. Whoever makes a lobby is its host, 1 to everybody; the others have random ids. In a
//! client/server lobby of Godot 4, clients know the host alone. As in Godot's servers, but:
//!
//! * A message to somebody who is not there is dropped and counted, and does not close the sender, who cannot know.
//! * Nobody is closed for what another one does, except that a lobby ends with its host, or after it was sealed.
//! * Two members never have the same id.
//! * A relay is as from its sender, whatever it says.
//! * Every refusal has words of its own, [`CloseReason`](super::godot::CloseReason).
//!
//! A client may ask for more in the query of its URL; others are not concerned:
//!
//! | query | |
//! |---|---|
//! | `create=true` | a lobby that is not there is made under the name that the client joins: 1 to 64 bytes, no control characters |
//! | `session=HEX` | 32 hex digits of its choice, by which the server knows the client when it comes back; whoever has them can take its place, so they are a secret. The answer to the upgrade has a header `x-webrtc-mesh-session` with the seconds that its place is kept, rounded up; none if it is not |
//! | `id=N` | with `session`: the id that it had, which it wants back |
//!
//! A query that cannot be understood is refused with HTTP 400.
//!
//! # Coming back
//!
//! *After a lost connection.* If the connection of a client with a session ends without a close frame (TCP fails, or no
//! pong comes), its place is kept for [`resume`](SignalingServerBuilder::resume) (15 s). The others are not told, and what
//! they send it waits, as much as fits the [`outbox`](SignalingServerBuilder::outbox). If it joins the same lobby with the
//! same session meanwhile, it gets the same id, who is there now, the lobby's name, and what has been waiting from those
//! who are still there; the others are told nothing. An old connection that still seems open is closed with
//! [`Replaced`](super::godot::CloseReason::Replaced). What was on its way over the lost connection is lost with it.
//!
//! *Later.* After that it has left: the others are told, and the lobby of a host is over. Until the lobby is over it
//! remembers 256 such members, and one that says `id=N` gets that id back.
//!
//! *After a restart of the server.* For [`restore`](SignalingServerBuilder::restore) (60 s) from its start, the server
//! believes clients that say `id=N`: it makes the lobby anew if it is not there, of the kind that the first of them joins,
//! and gives them their ids in it if nobody has them. Only 1 is the host; if the host does not come back in that time,
//! the lobby goes on without one, and nobody can seal it. Others who join get random ids. If a newcomer makes the lobby
//! first, by `create=true`, it is the host, as of any lobby that it makes: the others still get their ids, but the former
//! host does not.
//!
//! Whoever wants back what it cannot have is closed with [`NotResumed`](super::godot::CloseReason::NotResumed).
//!
//! What that trusts: a lobby's name is its key, as in Godot's servers: who knows it may join. In the window after a
//! restart, who knows it may also claim the id of a member that is not back yet, the host's too, as the server knows no
//! more than what it is told. `restore` of zero turns that off.
//!
//! # What it bounds
//!
//! Everything a client can make grow has a bound, and the [builder](SignalingServerBuilder) a setting for it with the
//! reason: clients, in all and of one address, lobbies, members of a lobby, the size and the rate of messages, bytes that are
//! read, what waits for a client and for all, connections per address, and the time that each step may take. Beside them, before a connection is a WebSocket: 32 KiB for the head
//! of a request, and 1,024 TCP connections more than there may be clients, beyond which one more is dropped. Each takes a
//! file descriptor, of which the operating system allows so many (`ulimit -n`). A quiet client costs some 11 KiB.
//!
//! | task | parent | born | dies |
//! |---|---|---|---|
//! | listening | your task | [`serve`](SignalingServer::serve) | with [`shutdown`](SignalingServer::shutdown), or when the future is dropped |
//! | HTTP connection | listening | a client connects | when it is a WebSocket, with its last request, after [5 s](SignalingServerBuilder::header_limit) without a complete one, after [15 s](SignalingServerBuilder::http_limit) in any case, with the listening |
//! | session | the server | a WebSocket is upgraded | when the client is gone and its place is given up; with `shutdown`, or the last clone of the server |
//!
//! | queue | from, to | bound | when it is full |
//! |---|---|---|---|
//! | outbox: what members say | the lobbies, a session | [4,096 messages, 1 MiB](SignalingServerBuilder::outbox), a quarter of it from one sender; [256 MiB](SignalingServerBuilder::outboxes_bytes) in all | what is over it is dropped, and counted |
//! | outbox: who comes and goes | the lobbies, a session | 1,024 messages, or twice as many as a lobby may have members | cannot be, as nobody is mentioned twice; else the client is closed with `Unresponsive` |
//! | being written | a session, its connection | 32 messages, 16 KiB and one message | the rest stays in the outbox; [10 s](SignalingServerBuilder::write_limit) later the connection is lost |
//! | frames | a connection, its session | one, of [64 KiB](SignalingServerBuilder::max_message_bytes) | the client's TCP waits |
//! | bytes read | TCP, a connection | [1 MiB per second, 8 MiB at once](SignalingServerBuilder::byte_rate) | the client's TCP waits |
//!
//! # Metrics
//!
//! `/healthz` answers 200 and `{"status":"ok","peers":3,"lobbies":1}`. `/metrics` is for Prometheus, each name with
//! `webrtc_mesh_signaling_` before it:
//!
//! | name | kind | |
//! |---|---|---|
//! | `peers` | gauge | clients that are connected |
//! | `members` | gauge | clients in a lobby, and those that are expected back |
//! | `lobbies` | gauge | lobbies |
//! | `joins_total` | counter | clients that joined a lobby |
//! | `resumed_total` | counter | clients that got back the place that was kept for them |
//! | `relays_total` | counter | offers, answers and candidates handed on |
//! | `dropped_relays_total` | counter | those for somebody who was not there, or for whom too much waited |
//! | `malformed_total` | counter | frames that are no message |
//! | `lost_total` | counter | connections lost without a close frame |
//! | `refused_total{reason}` | counter | requests that came to nothing: `no_websocket`, `too_many_joins`, `too_many_requests` (for `/healthz` and `/metrics`), `too_many_peers`, `too_many_peers_of_address`, `query`, `shutting_down` |
//! | `closed_total{reason}` | counter | connections closed by the server: the [`CloseReason`](super::godot::CloseReason), as in `host_disconnected` |
//! | `received_bytes_total`, `sent_bytes_total` | counter | payload of frames |
//!
//! Both are open to whoever reaches the port, as often as it may [join](SignalingServerBuilder::join_rate): they hold
//! numbers alone. A proxy can keep them in.
//!
//! # Logging
//!
//! By [`tracing`]: `info` says that somebody joined or left, with ids and counts; `debug` more. Nothing of addresses,
//! descriptions, lobbies' names or sessions is logged.

mod accept;
mod admission;
mod builder;
mod households;
mod http;
mod mailbox;
mod memory;
mod metrics;
mod rate;
mod rendezvous;
mod session;
mod shared;
#[cfg(any(fuzzing, test))]
pub(crate) mod sim;
mod tls;

pub use admission::Arrival;
pub use builder::SignalingServerBuilder;
pub use mailbox::Mailbox;
pub use memory::InMemory;
pub use rendezvous::{Counts, InvalidSession, JoinRequest, Leaving, Membership, Rendezvous, SessionSecret};
pub use tls::{TlsConfig, TlsError};

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use tokio::net::TcpListener;

use accept::Bounded;
use http::Door;

/// A signalling server. Clones are the same server.
///
/// When the last clone and the last of its [`router`](SignalingServer::router)s are gone, its sessions are closed as
/// by [`shutdown`](SignalingServer::shutdown), only that nobody waits for them.
#[derive(Clone)]
pub struct SignalingServer {
    door: Door,
}

impl SignalingServer {
    /// A server with defaults that fit a small machine on the open internet.
    pub fn builder() -> SignalingServerBuilder {
        SignalingServerBuilder::default()
    }

    /// Serves whoever connects to this listener, over plain HTTP, until [`shutdown`](SignalingServer::shutdown), whose
    /// end it waits for. A WebSocket is taken on any path but `/healthz` and
    /// `/metrics`, which answer. Several listeners can
    /// be served at once.
    ///
    /// Connections that cannot be accepted, as there are no more file descriptors, are waited for.
    ///
    /// # Errors
    ///
    /// Those of the listener; none is known.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops listening, and forgets connections that are not WebSockets yet. The others stay.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let handle = Handle::new();
        let server = Server::from_listener(listener).handle(handle.clone());
        let server = self.configure(server.acceptor(self.bounded(NoDelayAcceptor::new())));
        self.until_shutdown(handle, server.serve(self.make_service())).await
    }

    /// As [`serve`](SignalingServer::serve), over TLS, for `wss://`.
    ///
    /// # Errors
    ///
    /// As [`serve`](SignalingServer::serve). A client whose handshake fails concerns nobody else.
    ///
    /// # Cancel safety
    ///
    /// As [`serve`](SignalingServer::serve).
    pub async fn serve_tls(&self, listener: TcpListener, config: impl Into<TlsConfig>) -> io::Result<()> {
        let TlsConfig(config) = config.into();
        let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(config))
            .handshake_timeout(self.door.shared.tls_limit)
            .acceptor(NoDelayAcceptor::new());
        let handle = Handle::new();
        let server = Server::from_listener(listener).handle(handle.clone());
        let server = self.configure(server.acceptor(self.bounded(acceptor)));
        self.until_shutdown(handle, server.serve(self.make_service())).await
    }

    /// The server as a part of an axum program: a WebSocket at `/`, and `/healthz` and `/metrics`, to be merged or
    /// nested. `nest_service("/signaling", …)` takes WebSockets at `/signaling` and at `/signaling/`; `nest("/signaling",
    /// …)` only at the former, as axum's nested routers do.
    ///
    /// Where clients come from is known if the program is served with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, or
    /// [`trust_forwarded_for`](SignalingServerBuilder::trust_forwarded_for) is on; otherwise nothing is limited by
    /// address. The time limits of HTTP and TLS are those of the program, and so is how fast connections are read.
    pub fn router(&self) -> Router {
        http::router(self.door.clone())
    }

    /// Closes all sessions with [`ShuttingDown`](crate::signaling::godot::CloseReason::ShuttingDown), lets nobody else
    /// in, and waits until nothing of the server runs: at the most for
    /// [`shutdown_limit`](SignalingServerBuilder::shutdown_limit), then what is left is dropped. Final.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, and what takes too long is then not dropped.
    pub async fn shutdown(&self) {
        let shared = &self.door.shared;
        shared.stop.cancel();
        shared.wind_down().await;
    }

    fn bounded<A>(&self, inner: A) -> Bounded<A> {
        let shared = &self.door.shared;
        Bounded {
            inner,
            room: Arc::clone(&shared.connections),
            limit: shared.http_limit,
            bytes: shared.bytes,
            stop: shared.stop.clone(),
        }
    }

    fn make_service(&self) -> IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
        http::router_of_all_paths(self.door.clone()).into_make_service_with_connect_info()
    }

    /// The numbers of HTTP. Idle connections are closed as those are that say nothing.
    fn configure<A>(&self, mut server: Server<SocketAddr, A>) -> Server<SocketAddr, A> {
        let limit = self.door.shared.header_limit;
        server.http_builder().http1().header_read_timeout(limit).max_buf_size(MAX_HEADER_BYTES);
        server.first_request_timeout(limit).accept_error_handler(|_, error| {
            tracing::debug!(%error, "a connection was not accepted");
        })
    }

    async fn until_shutdown(
        &self,
        handle: Handle<SocketAddr>,
        serving: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        let shared = &self.door.shared;
        let listening = HangUp(handle);
        let mut serving = pin!(serving);
        tokio::select! {
            result = &mut serving => return result,
            () = shared.stop.cancelled() => {}
        }
        listening.0.graceful_shutdown(Some(shared.shutdown_limit));
        let result = serving.await;
        shared.wind_down().await;
        result
    }
}

/// No more connections, whichever way the listening ends.
struct HangUp(Handle<SocketAddr>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// The longest head of a request. A browser's, with cookies, is some 8 KiB.
const MAX_HEADER_BYTES: usize = 32 * 1024;

impl fmt::Debug for SignalingServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.door.shared;
        f.debug_struct("SignalingServer")
            .field("peers", &shared.connected())
            .field("rendezvous", &shared.rendezvous)
            .finish_non_exhaustive()
    }
}
