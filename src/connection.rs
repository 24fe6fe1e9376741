//! One WebRTC connection to one peer: [`PeerConnection`], Godot's `WebRTCPeerConnection`.
//!
//! This is the only room that uses the `webrtc` crate. What that crate does otherwise than one would expect is
//! worked around here, each in one named place: the transport in `connection/runtime.rs`, what it sends too seldom in
//! `connection/handshake.rs` and too often in `connection/checks.rs`, its time in `connection/clock.rs`, its timer
//! and its task in `connection/timer.rs` and `connection/driver.rs`, the silence about ICE servers in `connection/servers.rs`, the settings in `connection/setup.rs`, the order of signals in
//! `connection/signals.rs`, the order of a channel's last events in `connection/channel.rs`, its slow or missing ends
//! in [`PeerConnection::close`] and in the drop of its last clone.

mod channel;
mod checks;
mod clock;
mod config;
mod content;
mod description;
mod driver;
mod handshake;
mod ice_server;
mod looks;
mod negotiation;
mod outlet;
mod record;
mod rest;
mod rider;
mod runtime;
mod servers;
mod setup;
mod signals;
mod stun;
mod timer;
mod udp;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::Instrument as _;
use webrtc::data_channel::RTCDataChannelInit;
use webrtc::peer_connection::{
    self as library, PeerConnectionBuilder, RTCConfigurationBuilder, RTCIceTransportPolicy,
};
use webrtc::runtime::{Runtime, TokioRuntime};

pub(crate) use channel::{Channel, ChannelClosed, ChannelEvent, MAX_HELD_BYTES, Outstanding};
pub use config::PeerConnectionConfig;
pub(crate) use config::{ASK_LIMIT, MIN_MESSAGE_BYTES};
pub(crate) use description::{CONTROL_VERSION, MAX_MESSAGE_BYTES, Mark, RemoteDescription, Stamp};
pub use description::{IceCandidate, SdpKind, SessionDescription, Signal};
pub use ice_server::IceServer;
pub(crate) use servers::NoRelay;
pub use signals::SignalStream;

use crate::error::{ConnectionError, IceServerError};
use crate::event::Stage;
use crate::report::{CandidatePair, ConnectionReport};
pub(crate) use clock::Held;
use clock::{Clock, Remote};
#[cfg(feature = "ws")]
pub(crate) use description::MAX_SDP_BYTES;
use driver::Driver;
pub(crate) use driver::Taken;
use ice_server::Server;
pub(crate) use negotiation::is_too_large;
use negotiation::{Negotiation, library_error};
use record::Record;
use runtime::{ConnectionRuntime, Kind, Progress, Watched};
use servers::ServerWatch;
use setup::{Addresses, Handler, settings};
use signals::SignalQueue;

/// A WebRTC connection to one peer. Clones share the connection.
///
/// It negotiates once (and [restarts ICE](PeerConnection::restart_ice) any number of times): add it to a mesh while it is [`New`](ConnectionState::New), then either
/// [`create_offer`](PeerConnection::create_offer) or hand it the remote's offer; carry what comes out of
/// [`signals`](PeerConnection::signals) to the other side and what comes from there into
/// [`handle_signal`](PeerConnection::handle_signal). For a second try, make a fresh one.
///
/// The mesh that it was added to closes it. One that is in no mesh closes when its last clone is dropped.
#[derive(Clone)]
pub struct PeerConnection {
    inner: Arc<Inner>,
}

struct Inner {
    library: Arc<dyn library::PeerConnection>,
    shared: Arc<Shared>,
    negotiation: Mutex<Negotiation>,
    /// The first to close does it; the others wait.
    closing: AtomicBool,
    /// Unless it is to run where the configuration says.
    driver: Option<Arc<Driver>>,
    runtime: tokio::runtime::Handle,
}

/// What the connection and the library's callbacks share. It holds no connection, so there is no cycle.
#[derive(Debug)]
struct Shared {
    condition: watch::Sender<Condition>,
    signals: Arc<SignalQueue>,
    progress: Arc<Progress>,
    servers: Arc<ServerWatch>,
    record: Arc<Record>,
    clock: Arc<Clock>,
    /// Channels that the remote opened in-band.
    refused_channels: AtomicU64,
    /// The longest message, either way.
    max_message_bytes: usize,
    /// Our ICE session, once ICE was restarted.
    session: std::sync::Mutex<Option<String>>,
}

/// How a connection is (W3C `RTCPeerConnectionState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Nothing was negotiated yet; only now can it be added to a mesh.
    New,
    /// It negotiates, or looks for a way to the remote.
    Connecting,
    /// ICE and DTLS are up.
    Connected,
    /// The remote is not heard; this may pass.
    Disconnected,
    /// There is no way to the remote, or the connection broke down.
    Failed,
    /// It was closed here.
    Closed,
}

/// What a peer's task follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    pub(crate) state: ConnectionState,
    /// What the library calls it, which cannot tell whether the remote is heard; and whether it is.
    pub(crate) said: ConnectionState,
    pub(crate) heard: bool,
    /// How far the connecting has come; it never goes back.
    pub(crate) stage: Stage,
    /// What both descriptions together say; `None` until both are here.
    pub(crate) agreed: Option<Agreed>,
    /// The remote has closed the connection.
    pub(crate) remote_closed: bool,
    /// It failed as there is no relay, and no other way is allowed.
    pub(crate) no_relay: Option<NoRelay>,
    /// How often ICE was restarted.
    pub(crate) restarts: u32,
    /// Connected, and not heard.
    pub(crate) silent: bool,
    /// Our hello is on its way.
    pub(crate) greeting: bool,
}

impl Condition {
    pub(crate) fn new(state: ConnectionState) -> Condition {
        Condition {
            state,
            said: state,
            heard: true,
            stage: Stage::Signaling,
            agreed: None,
            remote_closed: false,
            no_relay: None,
            restarts: 0,
            silent: false,
            greeting: false,
        }
    }

    /// Whether the state changes by what the library says and by what is heard. Once it was connected, a remote that is
    /// not heard is missed also while ICE looks for another way to it.
    fn combine(&mut self) -> bool {
        let was_connected = self.stage == Stage::Channels;
        let state = match self.said {
            ConnectionState::Connected | ConnectionState::Connecting if was_connected && !self.heard => {
                ConnectionState::Disconnected
            }
            said => said,
        };
        std::mem::replace(&mut self.state, state) != state
    }
}

/// What the two descriptions agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The version of the control channel, if the remote is a member of this crate.
    pub(crate) control: Option<u8>,
    /// Whether our side is the DTLS client, which loses what the server sends before the client is ready.
    pub(crate) dtls_client: bool,
    /// The largest message that may be sent, in bytes.
    pub(crate) max_message_bytes: usize,
}

/// How the two unreliable channels give up on a packet.
///
/// Each side decides for what it sends; the two may differ, and stock Godot never gives up (it misspells the option).
///
/// Members on aiortc 1.16 or werift 0.24 stand still when a packet is given up that has come in part (more than some
/// 1,100 bytes, or sent by a browser): they throw away what is complete, too. `Millis(u16::MAX)` keeps what *we* send them
/// from that, though with it a lost packet is sent again as late as SCTP does by itself, after a second at the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum UnreliableLifetime {
    /// Sent once, never again (`maxRetransmits` 0). A healthy link loses nothing.
    #[default]
    Once,
    /// Sent again until so many milliseconds have passed since it was handed to SCTP (`maxPacketLifeTime`).
    ///
    /// Short times lose packets on a healthy link: on the unordered channel one that has waited longer is dropped
    /// before it is sent at all. With 1 ms, a burst of 1,000 delivers 21.
    Millis(u16),
}

/// The streams of the four channels, in the order in which [`PeerConnection::open_channels`] gives them.
const STREAMS: [(u16, &str); 4] = [(1, "reliable"), (2, "ordered"), (3, "unreliable"), (1023, "control")];

/// The library's own bound of what a channel hands to SCTP: never reached, as ours is below it by a message.
const SEND_BUFFER_BYTES: usize = MAX_HELD_BYTES + MAX_MESSAGE_BYTES;

/// How many ports of a range are tried before giving up.
const PORT_TRIES: usize = 64;

impl PeerConnection {
    /// Makes a connection: binds its sockets and starts its driver.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::IceServer`] if a server of the configuration cannot be used, [`ConnectionError::NoRelay`] if
    /// it needs a TURN server and has none, [`ConnectionError::Credentials`] if the callback for servers gave none,
    /// [`ConnectionError::Bind`] if no socket could be bound, [`ConnectionError::NoRuntime`] outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future makes no connection.
    pub async fn new(config: PeerConnectionConfig) -> Result<PeerConnection, ConnectionError> {
        #[cfg(feature = "sim")]
        config.check_host()?;
        let tokio = tokio::runtime::Handle::try_current().map_err(|_| ConnectionError::NoRuntime)?;
        let config = config.ask().await?;
        let servers = config.servers()?;
        // The library's driver holds its sockets for good once it runs, so the making goes on without whoever waits;
        // a connection that nobody takes is closed by its drop.
        let making = PeerConnection::make(config, servers, tokio.clone()).in_current_span();
        // Without an outcome, the runtime shuts down.
        tokio.spawn(making).await.unwrap_or(Err(ConnectionError::Closed))
    }

    async fn make(
        config: PeerConnectionConfig,
        servers: Vec<Server>,
        tokio: tokio::runtime::Handle,
    ) -> Result<PeerConnection, ConnectionError> {
        let mut tries = if config.port_range.is_some() { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            match PeerConnection::build(&config, servers.clone(), tokio.clone()).await {
                Err(ConnectionError::Bind(_)) if tries > 0 => {}
                built => return built,
            }
        }
    }

    async fn build(
        config: &PeerConnectionConfig,
        servers: Vec<Server>,
        tokio: tokio::runtime::Handle,
    ) -> Result<PeerConnection, ConnectionError> {
        let addresses = Addresses::of(config)?;
        let wanted = addresses.now()?.len();
        let progress = Arc::new(Progress::default());
        let condition = Condition::new(ConnectionState::New);
        let base = config.runtime.clone().unwrap_or_else(|| Arc::new(TokioRuntime));
        let kind = if config.runtime.is_some() { Kind::Other } else { Kind::Tokio };
        #[cfg(feature = "sim")]
        let kind = if addresses.attachment().is_some() { Kind::VirtualTokio } else { kind };
        // Virtual time begins anew with each simulation.
        let beat = kind == Kind::Tokio;
        #[cfg(feature = "sim")]
        let base = addresses.attachment().map_or(base, |attachment| attachment as Arc<dyn Runtime>);
        let shared = Arc::new(Shared {
            condition: watch::Sender::new(condition),
            signals: Arc::default(),
            progress,
            servers: Arc::new(ServerWatch::new(servers, config.relay_only, !config.asked)),
            record: Arc::new(Record::new(config.relay_only)),
            clock: Arc::new(Clock::new(base.clone(), beat)),
            refused_channels: AtomicU64::new(0),
            max_message_bytes: config.longest_message(),
            session: std::sync::Mutex::default(),
        });
        // A driver that ends by itself leaves the connection without a state change; so we make one.
        let ended = Arc::downgrade(&shared);
        let on_end = Arc::new(move || {
            if let Some(shared) = Weak::upgrade(&ended) {
                shared.set_state(ConnectionState::Failed);
            }
        });
        let relayless = Arc::downgrade(&shared);
        let on_no_relay = Arc::new(move |no_relay| {
            if let Some(shared) = Weak::upgrade(&relayless) {
                shared.fail_without_relay(no_relay);
            }
        });
        let listening = Arc::downgrade(&shared);
        let on_heard = Arc::new(move |heard| {
            if let Some(shared) = Weak::upgrade(&listening) {
                shared.set_heard(heard);
            }
        });
        let watched = Watched {
            record: shared.record.clone(),
            servers: shared.servers.clone(),
            clock: shared.clock.clone(),
            on_no_relay,
            on_heard,
        };
        let runtime = ConnectionRuntime::new(base, kind, shared.progress.clone(), on_end, watched);
        let driven_by: Arc<dyn Runtime> = runtime.clone();
        #[cfg(feature = "sim")]
        let driven_by = match addresses.attachment() {
            Some(_) => Arc::new(crate::sim::Turns::new(driven_by)),
            None => driven_by,
        };
        let ice_servers = shared.servers.servers().iter().map(|server| server.rtc.clone()).collect();
        let policy =
            if config.relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
        let configuration = RTCConfigurationBuilder::default()
            .with_ice_servers(ice_servers)
            .with_ice_transport_policy(policy)
            .build();
        let built = PeerConnectionBuilder::new()
            .with_configuration(configuration)
            .with_setting_engine(settings(config))
            .with_runtime(driven_by)
            .with_handler(Arc::new(Handler {
                shared: shared.clone(),
                public: config.public_addresses.clone(),
                relay_only: config.relay_only,
                #[cfg(feature = "sim")]
                attachment: addresses.attachment(),
            }))
            .with_udp_addrs(vec![addresses])
            .with_data_channel_send_buffer_limit(SEND_BUFFER_BYTES)
            .build()
            .await
            .map_err(|error| {
                ConnectionError::Bind(config.unusable_address().unwrap_or_else(|| error.to_string()))
            })?;
        let connection = PeerConnection {
            inner: Arc::new(Inner {
                library: Arc::new(built),
                shared,
                negotiation: Mutex::default(),
                closing: AtomicBool::new(false),
                driver: config.runtime.is_none().then(|| runtime.driver().clone()),
                runtime: tokio,
            }),
        };
        // The library skips an address that it cannot bind. With ports of a range, that is worth another try.
        if config.port_range.is_some() && runtime.sockets() < wanted {
            connection.close().await;
            return Err(ConnectionError::Bind("not every port was free".to_owned()));
        }
        Ok(connection)
    }

    /// How the connection is.
    pub fn state(&self) -> ConnectionState {
        self.inner.shared.condition.borrow().state
    }

    /// The STUN and TURN servers that are of no use to this connection, as far as is known now, and why. Empty while
    /// they are asked, which begins with the negotiation, and ends within 5 s. Each is also logged as a warning, once.
    pub fn ice_server_errors(&self) -> Vec<IceServerError> {
        self.inner.shared.servers.errors()
    }

    /// Makes the offer and sets it locally; it comes out of [`signals`](PeerConnection::signals).
    ///
    /// # Errors
    ///
    /// [`ConnectionError::OutOfTurn`] if the connection was not added to a mesh (its channels must be there before
    /// the offer) or already negotiates; [`ConnectionError::Closed`] after `close`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the offer.
    pub async fn create_offer(&self) -> Result<(), ConnectionError> {
        let inner = self.inner.clone();
        self.detached(async move { inner.offer().await }).await
    }

    /// Restarts ICE (W3C `restartIce`): looks for a new way to the remote, over new sockets on the addresses that this
    /// machine has now. The channels and all that is under way on them live on. The offer comes out of
    /// [`signals`](PeerConnection::signals), as does the remote's answer there; until that is here, the old way stays.
    /// Called again before the answer, it repeats the offer; the number of restarts is not limited.
    ///
    /// A mesh that was joined does it by itself for a peer that has gone silent; this is for connections whose signals
    /// you carry. Only the side that has offered may, and only between two members of this crate: others are not asked,
    /// as many cannot.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::OutOfTurn`] for the other side, before the first answer, or if the remote is not a member of
    /// this crate; [`ConnectionError::Closed`] after `close`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the offer.
    pub async fn restart_ice(&self) -> Result<(), ConnectionError> {
        let inner = self.inner.clone();
        self.detached(async move { inner.offer_restart().await }).await
    }

    /// Takes what the other side's `signals` gave: a description or a candidate, in any order. An offer is answered;
    /// the answer comes out of [`signals`](PeerConnection::signals).
    ///
    /// Candidates that come before the description are kept, at the most 256, and looked at when it is here; a bad one
    /// is skipped then. The answer to an offer of another
    /// connection is ignored, and so is a repeated description: one with the same token, or from a peer that is not
    /// of this crate with the same `ice-ufrag` and `fingerprint`. A candidate that names a former ICE session of the
    /// remote's (`ufrag`, RFC 8839 section 5.1) is ignored as well; one of a session that is not known waits for its
    /// description, between members of this crate, and is ignored otherwise. The offer of a restart of ICE is answered,
    /// every 500 ms at the most.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::InvalidDescription`] or [`ConnectionError::InvalidCandidate`] for what cannot be parsed or
    /// applied; [`ConnectionError::OutOfTurn`] for an offer before the connection was added to a mesh, an offer to
    /// the offerer, an answer to the answerer; [`ConnectionError::TooMuch`] over the limits;
    /// [`ConnectionError::Closed`] after `close`. The connection stays as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the work.
    pub async fn handle_signal(&self, signal: Signal) -> Result<(), ConnectionError> {
        let inner = self.inner.clone();
        self.detached(async move {
            match signal {
                Signal::Description(description) => inner.describe(description).await,
                Signal::Candidate(candidate) => inner.candidate(candidate).await,
            }
        })
        .await
    }

    /// What the other side must be handed, the description before its candidates. See [`SignalStream`].
    pub fn signals(&self) -> SignalStream {
        SignalStream::new(self.inner.shared.signals.clone())
    }

    /// Closes the connection and tells the remote, without waiting for what was sent to arrive. Calls after the
    /// first wait for the same end. Takes 150 ms at the most.
    ///
    /// A connection that is in a mesh is better removed there: `remove_peer` flushes first.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the closing.
    pub async fn close(&self) {
        let inner = self.inner.clone();
        self.inner.clone().begin_close();
        let mut condition = inner.shared.condition.subscribe();
        // The sender is in `inner`, which is held here.
        let _ = condition.wait_for(|condition| condition.state == ConnectionState::Closed).await;
    }

    /// Makes the three channels and the control channel, once, while the connection is new.
    pub(crate) async fn open_channels(
        &self,
        lifetime: UnreliableLifetime,
    ) -> Result<[Channel; 4], NotOpened> {
        let mut negotiation = self.inner.negotiation.lock().await;
        let closing = self.inner.closing.load(Ordering::Acquire);
        if negotiation.claimed || closing || self.state() != ConnectionState::New {
            return Err(NotOpened::NotNew);
        }
        if let UnreliableLifetime::Millis(_) = lifetime {
            self.inner.shared.clock.keep_steady();
        }
        let (retransmits, life_time) = match lifetime {
            UnreliableLifetime::Once => (Some(0), None),
            UnreliableLifetime::Millis(millis) => (None, Some(millis)),
        };
        let shared = &self.inner.shared;
        let mut channels = Vec::with_capacity(STREAMS.len());
        for (stream, label) in STREAMS {
            let unreliable = matches!(stream, 2 | 3);
            let init = RTCDataChannelInit {
                ordered: stream != 3,
                max_retransmits: retransmits.filter(|_| unreliable),
                max_packet_life_time: life_time.filter(|_| unreliable),
                negotiated: Some(stream),
                ..Default::default()
            };
            let made = self.inner.library.create_data_channel(label, Some(init)).await;
            let channel = made.map_err(|error| NotOpened::Failed(library_error(&error)))?;
            channels.push(Channel::new(channel, shared.progress.clone(), shared.clock.clone()));
        }
        negotiation.claimed = true;
        channels.try_into().map_err(|_| NotOpened::NotNew)
    }

    /// Follows how the connection is.
    pub(crate) fn watch(&self) -> watch::Receiver<Condition> {
        self.inner.shared.condition.subscribe()
    }

    /// The round trip of ICE's keepalives, which wait for no data; `None` before the first.
    pub(crate) fn ice_round_trip(&self) -> Option<Duration> {
        self.inner.shared.clock.round_trip()
    }

    /// What is known of it, to be read as long as it lives, and after.
    pub(crate) fn observed(&self) -> Observed {
        Observed(self.inner.shared.clone())
    }

    /// All channels are open: the cures for the handshake are over. `steady` is what the remote says of its clock.
    pub(crate) fn set_open(&self, steady: bool) {
        let shared = &self.inner.shared;
        shared.progress.set_open(shared.clock.true_now());
        let is_ahead = self.is_among_us() && !steady;
        shared.clock.open(if is_ahead { Remote::Member } else { Remote::Stranger });
    }

    /// Whether its clock is never ahead of time, as its packets have lifetimes.
    pub(crate) fn is_steady(&self) -> bool {
        self.inner.shared.clock.is_steady()
    }

    /// How many bytes of datagrams the kernel holds for it, in each of its sockets; 0 if that is not known.
    pub(crate) fn socket_bytes(&self) -> u32 {
        self.inner.shared.progress.socket_bytes()
    }

    /// Takes the driver along, which then runs where it is polled; not to another runtime, whose timers may end before
    /// the connection does.
    pub(crate) fn take_driver(&self) -> Option<Taken> {
        let is_at_home =
            tokio::runtime::Handle::try_current().is_ok_and(|here| here.id() == self.inner.runtime.id());
        self.inner.driver.as_ref().filter(|_| is_at_home)?.take(&self.inner.shared.progress)
    }

    /// Channels that the remote opened beyond the agreed ones, and that were closed.
    pub(crate) fn refused_channels(&self) -> u64 {
        self.inner.shared.refused_channels.load(Ordering::Relaxed)
    }

    /// Whether both descriptions are here.
    pub(crate) fn is_answered(&self) -> bool {
        self.inner.shared.condition.borrow().agreed.is_some()
    }

    /// Whether ICE has found a way to the remote.
    pub(crate) fn reaches_remote(&self) -> bool {
        self.inner.shared.condition.borrow().stage > Stage::Ice
    }

    /// How many of our ICE requests were answered so far.
    pub(crate) fn answers(&self) -> u64 {
        self.inner.shared.progress.answers()
    }

    /// The remote is not heard, or is again: for those who follow the connection.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.inner
            .shared
            .condition
            .send_if_modified(|condition| std::mem::replace(&mut condition.silent, silent) != silent);
    }

    /// We have said hello, to one that is of this crate.
    pub(crate) fn set_greeting(&self) {
        self.inner.shared.condition.send_if_modified(|condition| {
            condition.greeting = true;
            false
        });
    }

    /// Whether all is up but for what two members of this crate say to each other.
    pub(crate) fn is_greeting(&self) -> bool {
        let condition = self.inner.shared.condition.borrow();
        condition.greeting && condition.state == ConnectionState::Connected
    }

    /// Whether the remote is known not to be a member of this crate.
    pub(crate) fn is_foreign(&self) -> bool {
        self.inner.shared.condition.borrow().agreed.is_some_and(|agreed| agreed.control.is_none())
    }

    /// Whether it is known to be one.
    pub(crate) fn is_among_us(&self) -> bool {
        self.inner.shared.condition.borrow().agreed.is_some_and(|agreed| agreed.control.is_some())
    }

    /// Whether the remote is not heard now.
    pub(crate) fn is_silent(&self) -> bool {
        self.inner.shared.condition.borrow().silent
    }

    /// How often ICE was restarted.
    pub(crate) fn restarts(&self) -> u32 {
        self.inner.shared.condition.borrow().restarts
    }

    /// The token that both sides share, once they do.
    pub(crate) async fn token(&self) -> Option<String> {
        self.inner.negotiation.lock().await.token().map(str::to_owned)
    }

    /// Closes without waiting.
    pub(crate) fn abandon(&self) {
        self.inner.clone().begin_close();
    }

    /// Whether this is an offer of another connection than the one that this connection answered.
    pub(crate) async fn is_other_offer(&self, description: &SessionDescription) -> bool {
        self.inner.negotiation.lock().await.has_answered(description) == Some(false)
    }

    /// Runs to the end what must not stop half way, even if the caller stops waiting.
    async fn detached(
        &self,
        work: impl Future<Output = Result<(), ConnectionError>> + Send + 'static,
    ) -> Result<(), ConnectionError> {
        match self.inner.runtime.spawn(work.in_current_span()).await {
            Ok(result) => result,
            // The runtime shuts down.
            Err(_) => Err(ConnectionError::Closed),
        }
    }
}

/// What is known of a connection. It does not keep it.
#[derive(Debug, Clone)]
pub(crate) struct Observed(Arc<Shared>);

impl Observed {
    /// When the making of it first came to this stage.
    pub(crate) fn entered(&self, stage: Stage) -> Option<Instant> {
        self.0.record.entered(stage)
    }

    /// What it has tried; the times and attempts are not its own to know.
    pub(crate) fn report(&self) -> ConnectionReport {
        let record = &self.0.record;
        let mut report = ConnectionReport::new();
        report.stage = self.0.condition.borrow().stage;
        report.local = record.local_candidates();
        report.remote = record.remote_candidates();
        report.pairs = record.pairs();
        report.ice_server_errors = self.0.servers.errors();
        report
    }

    /// The pair of addresses that it took.
    pub(crate) fn selected(&self) -> Option<CandidatePair> {
        self.0.record.selected()
    }
}

/// Why the channels were not made.
#[derive(Debug)]
pub(crate) enum NotOpened {
    NotNew,
    Failed(ConnectionError),
}

impl Inner {
    /// The closing runs as a task of its own, so that it is done whoever waits or does not, and whoever drops what.
    fn begin_close(self: Arc<Inner>) {
        if self.closing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (library, shared) = (self.library.clone(), self.shared.clone());
        let closing = async move {
            shared.progress.flush_relay().await;
            shared.progress.set_closing();
            library.close().await
        };
        self.runtime.spawn(close(closing, self.shared.clone()));
    }
}

/// The library's connection lives on, and keeps its remote, until it is closed; so it is closed on every path.
impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.closing.get_mut() {
            self.shared.progress.set_closing();
            let library = self.library.clone();
            self.runtime.spawn(close(async move { library.close().await }, self.shared.clone()));
        }
    }
}

async fn close(closing: impl Future<Output = Result<(), webrtc::error::Error>>, shared: Arc<Shared>) {
    let _end = ClosedOnDrop(shared);
    if let Err(error) = closing.await {
        tracing::debug!(%error, "the connection did not close cleanly");
    }
}

/// A connection is closed however its closing ends, or whoever waits for that would wait for ever.
struct ClosedOnDrop(Arc<Shared>);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        let ClosedOnDrop(shared) = self;
        // Repeats of the handshake end with it.
        shared.progress.ended.cancel();
        shared.signals.close();
        shared.set_state(ConnectionState::Closed);
    }
}

impl Shared {
    /// ICE begins anew, with this session of ours.
    fn begin_restart(&self, ufrag: Option<&str>) {
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = ufrag.map(str::to_owned);
        self.signals.restart();
        self.condition.send_modify(|condition| condition.restarts += 1);
    }

    /// A candidate of a restart says which session it is of, as those of before may still be under way.
    fn name_session(&self, candidate: &mut String) {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ufrag) = &*session
            && !candidate.contains(" ufrag ")
        {
            candidate.push_str(&format!(" ufrag {ufrag}"));
        }
    }

    fn fail_without_relay(&self, no_relay: NoRelay) {
        self.condition.send_if_modified(|condition| {
            let fails = condition.stage <= Stage::Ice && condition.state != ConnectionState::Closed;
            if fails {
                condition.no_relay = Some(no_relay);
                condition.said = ConnectionState::Failed;
                condition.combine();
            }
            fails
        });
    }

    /// The remote is heard, or was not for too long. The library tells that by a clock that runs ahead.
    fn set_heard(&self, heard: bool) {
        self.condition.send_if_modified(|condition| {
            condition.heard = heard;
            condition.combine()
        });
    }

    fn set_state(&self, state: ConnectionState) {
        self.condition.send_if_modified(|condition| {
            let terminal = matches!(condition.state, ConnectionState::Closed)
                || (condition.state == ConnectionState::Failed && state != ConnectionState::Closed);
            if terminal {
                return false;
            }
            condition.said = state;
            if state == ConnectionState::Connected {
                self.record.enter(Stage::Channels);
                condition.stage = Stage::Channels;
            }
            condition.combine()
        });
    }
}

impl fmt::Debug for PeerConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConnection").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl PartialEq for PeerConnection {
    /// Whether both are clones of one connection.
    fn eq(&self, other: &PeerConnection) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::runtime::SOCKET_BUFFER_BYTES;
    use super::*;

    #[tokio::test]
    async fn it_is_known_what_its_socket_holds() {
        let config = PeerConnectionConfig::new().bind((std::net::Ipv4Addr::LOCALHOST, 0).into());
        let connection = PeerConnection::new(config).await.unwrap();
        let bytes = connection.socket_bytes() as usize;
        assert!((4096..=SOCKET_BUFFER_BYTES).contains(&bytes), "{bytes}");
        connection.close().await;
    }

    #[tokio::test]
    async fn a_connection_is_closed_even_if_the_library_panics() {
        let condition = Condition { stage: Stage::Channels, ..Condition::new(ConnectionState::Connected) };
        let shared = Arc::new(Shared {
            condition: watch::Sender::new(condition),
            signals: Arc::default(),
            progress: Arc::default(),
            servers: Arc::new(ServerWatch::new(Vec::new(), false, true)),
            record: Arc::default(),
            clock: Arc::new(Clock::new(Arc::new(TokioRuntime), false)),
            refused_channels: AtomicU64::new(0),
            max_message_bytes: MAX_MESSAGE_BYTES,
            session: std::sync::Mutex::default(),
        });
        let closing = tokio::spawn(close(async { panic!("on purpose") }, shared.clone())).await;
        assert!(closing.is_err_and(|error| error.is_panic()));
        assert_eq!(shared.condition.borrow().state, ConnectionState::Closed);
        assert!(shared.progress.ended.is_cancelled());
        assert_eq!(SignalStream::new(shared.signals.clone()).next().await, None);
    }
}
