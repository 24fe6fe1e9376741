//! Godot's `WebRTCMultiplayer` as an async, actor-based mesh for tokio.
//!
//! A full mesh of WebRTC peers, three data channels each (reliable, ordered, unreliable). Its members can be this
//! crate, a stock Godot 3 or 4 game, a browser page, or any other WebRTC stack: the wire is Godot's, bare payloads on
//! channels agreed on beforehand. You hold a [`Mesh`]: a [`Stream`](futures::Stream) of [`MeshEvent`]s and a
//! [`Sink`](futures::Sink) of [`OutgoingPacket`]s, with any number of cloneable [`MeshHandle`]s.
//!
//! ```
//! use futures::StreamExt as _;
//! use webrtc_mesh::{Mesh, MeshEvent, OutgoingPacket, PeerConnectionConfig, signaling::loopback::Hub};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::new(); // signalling within this process; see `signaling` for your own
//! let on_loopback = || Mesh::builder().connection(PeerConnectionConfig::new().bind(([127, 0, 0, 1], 0).into()));
//! let mut one = on_loopback().join(hub.join()).await?;
//! let mut two = on_loopback().join(hub.join()).await?;
//!
//! let greeter = one.handle();
//! tokio::spawn(async move {
//!     while let Some(event) = one.next().await {
//!         if let MeshEvent::PeerConnected(peer) = event {
//!             let _ = one.handle().try_send(OutgoingPacket::reliable(peer, "hello"));
//!         }
//!     }
//! });
//! while let Some(event) = two.next().await {
//!     match event {
//!         MeshEvent::PeerConnected(peer) => println!("{peer} is here"),
//!         MeshEvent::Packet(packet) => {
//!             println!("{} said {:?}", packet.from, packet.payload);
//!             break;
//!         }
//!         MeshEvent::PeerDisconnected(peer, reason) => println!("{peer} left: {reason}"),
//!         _ => {}
//!     }
//! }
//! two.handle().close().await;
//! greeter.close().await;
//! # Ok(()) }
//! ```
//!
//! (Two programs that both *wait* for room to send, inside the loop that reads, can stop each other: neither reads.
//! Whoever waits uses [`Mesh::split`] or another task. [`MeshHandle::send`] says more.)
//!
//! # Where to find what
//!
//! | you want to | look at |
//! |---|---|
//! | join a mesh through signalling | [`MeshBuilder::join`], [`signaling`] |
//! | join the lobby of a Godot game, over a WebSocket | `signaling::godot` (feature `ws`) |
//! | run the signalling server, alone or within an axum program | `signaling::server` (feature `server`) |
//! | add peers by hand, over anything that carries text | [`MeshBuilder::build`], [`MeshHandle::add_peer`], [`PeerConnection`] |
//! | know how links are kept, and made anew | [`MeshBuilder::join`], [`MeshEvent::PeerUnstable`], [`PeerConnection::restart_ice`] |
//! | let only some in | [`MeshBuilder::admission`] |
//! | know what happens, and why something ended | [`MeshEvent`], [`DisconnectReason`], [`PeerFailure`] |
//! | know what was tried to connect a peer, and for how long | [`ConnectionReport`], [`MeshHandle::report`] |
//! | see what a link has carried, its round trip, its way | [`MeshHandle::stats`], [`PeerStats`] |
//! | have counters and gauges in Prometheus | `metrics` (feature `metrics`) |
//! | wait for one peer, without the events | [`MeshHandle::wait_connected`] |
//! | send, wait, or be told that there is no room | [`MeshHandle::send`], [`MeshHandle::try_send`], [`Mesh`] as a `Sink` |
//! | a server that clients connect to first | [`MeshBuilder::server_compatibility`], [`ConnectionStatus`] |
//! | choose addresses, ports, STUN and TURN servers | [`PeerConnectionConfig`] |
//! | test your program on bad networks, with NATs, in virtual time | `sim` (feature `sim`) |
//! | know what to expect on Wi-Fi, 4G, a satellite, and at much loss | the table in `docs/networks.md`, beside the sources |
//! | end it without losing anything | [`MeshHandle::close`] |
//!
//! # Who runs
//!
//! ```text
//!    your tasks                                                    the network
//!  ┌─────────────┐   events    ┌───────────────────────┐
//!  │ Mesh        │<────────────│ inbox (fair, bounded) │<───┐
//!  │  Stream     │             └───────────────────────┘    │ packets
//!  │  Sink ──────┼──┐ packets        ^ membership           │
//!  │ MeshHandle ─┼──┼────────┐ ┌─────┴──────┐  reports  ┌───┴──────────┐  4 channels ┌─────────────┐
//!  │ MeshHandle  │  │        │ │ supervisor │<──────────│ peer's task  │<───────────>│ connection's│<──> UDP
//!  └──────┬──────┘  │        │ │ (decides   │──────────>│ (one for each│             │ driver      │
//!         │ commands│        │ │  who is in)│   leave   │  connection) │<── signals  │ (webrtc)    │
//!         └─────────┼────────┼>└─────┬──────┘           └───^──────────┘       │     └─────────────┘
//!                   │        v       │ owns, too            │ takes            v
//!                   │   ┌────────────┴─────┐         ┌──────┴───────┐   ┌────────────┐
//!                   └──>│ outbox of a peer │────────>│ 3 queues     │   │ signalling │<──> whatever
//!                       └──────────────────┘         └──────────────┘   └────────────┘     you use
//! ```
//!
//! Packets pass the supervisor by: a handle puts them into the peer's outbox, the peer's task takes them out; what
//! arrives goes from the peer's task into the inbox, and out of it to you. A peer's task does not know that it is in a
//! mesh, and what befalls it, a panic too, befalls no other.
//!
//! | task | parent | born | dies |
//! |---|---|---|---|
//! | supervisor | your [`Mesh`] (or [`MeshStream`]) | [`build`](MeshBuilder::build), [`join`](MeshBuilder::join) | when [`close`](MeshHandle::close) is done, at once when the parent is dropped, with the runtime |
//! | peer | supervisor | [`add_peer`](MeshHandle::add_peer), or signalling reports a peer | when the peer has left, failed or panicked; aborted with the supervisor |
//! | signalling | supervisor | [`join`](MeshBuilder::join) | when the mesh closes, after [`leave`](Signaling::leave); aborted with the supervisor |
//! | driver (of the `webrtc` crate) | [`PeerConnection`] | [`PeerConnection::new`] | when the connection is closed: by its peer's task on every way out, or when its last clone is dropped. While the peer is connected it runs within the peer's task (not on a [runtime](PeerConnectionConfig::runtime) of your choice) |
//! | closing | [`PeerConnection`] | its `close`, or the drop of its last clone | after 150 ms at the most |
//! | asking for admission | signalling | each new life, with [`admission`](MeshBuilder::admission) | when the callback is done; aborted after 10 s, or when the mesh closes |
//! | asking for ICE servers | who makes the connection | each new connection, with [`ice_servers_from`](PeerConnectionConfig::ice_servers_from) | when the callback is done; aborted after 10 s, or when nobody waits any more |
//! | a negotiation step | [`PeerConnection`] | `create_offer`, `handle_signal` | as soon as it is done; it waits for no network |
//! | repeats of a handshake datagram | [`PeerConnection`] | when one is sent | after 500 ms, when the other side answers, or with the connection |
//!
//! | queue | from, to | bound | when it is full |
//! |---|---|---|---|
//! | outbox, reliable | handles and sink, peer's task | [1 MiB](MeshBuilder::send_queue_bytes) | `send` waits, `try_send` gives back, the sink is not ready; full for [30 s](MeshBuilder::stall_limit): the peer leaves with `TooSlow` |
//! | outbox, unreliable, two | handles and sink, peer's task | [256 KiB](MeshBuilder::unreliable_queue_bytes) each | the oldest is shed, counted in `Lagged` |
//! | SCTP, per channel | peer's task, driver | 16 KiB to 4 MiB, by what the link takes and its round trip | the rest waits in the outbox |
//! | control frames | peer's task, driver | one of each kind; 16 when the remote floods us with probes, and 8 that are relayed | its probes go unanswered, what is relayed is lost |
//! | what is relayed for two others | supervisor, peer's task | 32, and 256 or 256 KiB in 10 s from each peer | it is lost, and sent again |
//! | what others relay to us | supervisor, signalling | 64 | it is lost, and sent again |
//! | events of a channel | driver, peer's task | 256, and SCTP's window of 8 MiB | the remote's SCTP stops. Between two of this crate credits keep it from coming to that |
//! | inbox, reliable, per peer | peer's task, you | [4 MiB](MeshBuilder::receive_window_bytes) | the remote gets no more credit; one that knows no credits is not read |
//! | inbox, unreliable, per peer | peer's task, you | [256 KiB](MeshBuilder::unreliable_queue_bytes) | the oldest is shed, counted in `Lagged` |
//! | `PeerUnstable`, `PeerRecovered` | supervisor, you | 8 of a peer | later pairs are left out |
//! | membership events | supervisor, you | 4 ended lives of a peer, 1,024 in all | [`add_peer`](MeshHandle::add_peer), and signalling, wait until some are read |
//! | reports | peers that have ended, [`MeshHandle::report`] | 128 peers | the oldest is forgotten |
//! | commands | handles, supervisor | 64 | the method waits a turn: the supervisor waits for nobody |
//! | reports | peers, supervisor | 256 | the peer waits a turn |
//! | signals | connection, [`SignalStream`] | 256 candidates | a candidate is dropped, and logged |
//! | remote candidates | [`handle_signal`](PeerConnection::handle_signal), connection | 256 before the description, 1,024 of each restart of ICE | [`ConnectionError::TooMuch`] |
//! | a member's signals | [`Hub`](signaling::loopback::Hub), signalling | 16,384 | refused to the sender, or logged |
//! | frames to a signalling server | `GodotSignaling`, its socket | 4 MiB | a signal is refused, and logged |
//! | signals of peers not announced yet | a signalling server, `GodotSignaling` | 64 | the oldest is dropped, and logged |
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `ws` | `signaling::godot::GodotSignaling`: a client of Godot's signalling, over WebSockets, plain or with TLS |
//! | `server` | `signaling::server`: such a server, as a library on axum and as the program `webrtc-mesh-signaling` |
//! | `sim` | `sim`: a network in memory and in virtual time, to test programs on. It turns on tokio's `test-util`, so it is best one of your dev-dependencies |
//! | `metrics` | `metrics`: counters and gauges by the `metrics` facade, for Prometheus say |
//! | `godot` | `signaling::godot`: the messages of both, for a client or a server of your own; the other two bring it |
//!
//! # What a mesh trusts
//!
//! Everything between two peers is encrypted (DTLS), to whom the descriptions name, and the descriptions come through
//! signalling. So whoever runs the signalling says who is who, and could put itself between any two: it is trusted
//! with that, and with nothing else; signals that do not parse, or come in the wrong order, or in masses, are errors or
//! are ignored. A peer is trusted with nothing: what it sends is bounded, malformed control frames end that peer, and
//! no peer is told anything of another. When signalling is gone, members relay what two others need to restart ICE: it is
//! sealed with a key that only those two and their signalling know, so they can lose it, and no more. A peer learns the addresses of this machine, unless
//! [`relay_only`](PeerConnectionConfig::relay_only). Nothing of addresses, descriptions or payloads is logged above
//! `debug`, but for the URL of an ICE server that is of no use.
//!
//! # Logging
//!
//! By [`tracing`]: a span `mesh{id}`, and in it `peer{peer}` for each peer. `warn` names an
//! ICE server that is of no use, once for each connection, `info` says who comes and goes and why, `debug` how connections are made, `trace` every decision. The `webrtc` crate below logs by itself, through `log`,
//! and names addresses in its warnings and errors; a filter such as `warn,webrtc=off,rtc=off` keeps them out.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod signaling;

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "metrics/off.rs"]
mod metrics;
#[cfg(feature = "sim")]
pub mod sim;

#[cfg(any(fuzzing, test))]
#[doc(hidden)]
#[allow(unreachable_pub, reason = "public when fuzzing")]
pub mod fuzzing;

mod bell;
mod connection;
mod error;
mod event;
mod id;
mod in_place;
mod mesh;
mod packet;
mod peer;
mod random;
mod report;
mod stats;
mod task_waker;

pub use connection::{
    ConnectionState, IceCandidate, IceServer, PeerConnection, PeerConnectionConfig, SdpKind,
    SessionDescription, Signal, SignalStream, UnreliableLifetime,
};
pub use error::{
    AddPeerError, ConnectionError, IceServerError, IceServerProblem, JoinError, SendError, SignalingError,
    TrySendError, UnknownPeer, WaitError,
};
pub use event::{DisconnectReason, MeshEvent, PeerFailure, Stage};
pub use id::{InvalidPeerId, PeerId, Target};
pub use mesh::{
    ChannelInfo, ConnectionStatus, Mesh, MeshBuilder, MeshHandle, MeshSink, MeshStream, PeerInfo,
    SignalingStatus,
};
pub use packet::{InvalidTransferMode, OutgoingPacket, Packet, TransferMode};
pub use report::{Candidate, CandidateKind, CandidatePair, ConnectionReport, PairState, StageTimes};
pub use signaling::{Signaling, SignalingEvent};
pub use stats::{ModeStats, PeerStats, Traffic};
