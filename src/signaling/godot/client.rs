//! A [`Signaling`] through a WebSocket server that speaks the protocol of Godot's demo: [`GodotSignaling`].

mod enter;
mod lobby;
mod socket;

use std::collections::VecDeque;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{CloseReason, Generation, Message, RelayKind};
use crate::connection::Signal;
use crate::error::SignalingError;
use crate::id::PeerId;
use crate::signaling::{Signaling, SignalingEvent};
use enter::{Claim, Entered, Settings, enter};
use lobby::Lobby;
use socket::{End, Socket};

/// A member of a lobby on a server that speaks the protocol of Godot's demo.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use webrtc_mesh::{Mesh, signaling::godot::GodotSignaling};
///
/// let signaling = GodotSignaling::connect("ws://127.0.0.1:9080").lobby("kWQ8…").await?;
/// let mesh = Mesh::builder().join(signaling).await?;
/// # Ok(()) }
/// ```
///
/// The server may be Godot's own, of either generation, or the one of this crate (feature `server`).
///
/// # When the server is lost
///
/// Connected peers stay. What follows depends on the server:
///
/// * The protocol of Godot's own gives a client that comes back another id, under which it would be a stranger to its
///   peers. So the loss is final: the mesh reports [`SignalingLost`](crate::MeshEvent::SignalingLost), and
///   [`MeshHandle::signaling`](crate::MeshHandle::signaling) says why.
/// * The server of this crate gives it its id again, if it comes back in time, and even after a restart of its own. So
///   it is tried to reach it again, for as long as the mesh lives: at first within 500 ms, then after up to twice as
///   long each time, 10 s at the most, each pause random within its bound so that not everyone comes at once. The mesh
///   reports `SignalingLost`, and [`SignalingRestored`](crate::MeshEvent::SignalingRestored) when it is reached; or
///   `SignalingLost` once more, if the server is reached and does not have us any more.
/// * After a seal ([`MeshHandle::seal_lobby`](crate::MeshHandle::seal_lobby)) the loss is expected, and silent.
///
/// A server from which nothing comes for 25 s is lost; it is sent a ping every 10 s.
///
/// # Dropping it
///
/// The server is told, if the socket takes it at once.
pub struct GodotSignaling {
    settings: Arc<Settings>,
    id: PeerId,
    lobby: Lobby,
    link: Link,
    /// Since when the link is up.
    up_since: Instant,
    /// Losses and vain attempts, one soon after the other.
    tries: u32,
    /// What is to be said when the server is reached again.
    unsent: VecDeque<(PeerId, Message)>,
    /// What is to be reported; it is taken before more is heard, so this holds what one message says, or one entry.
    events: VecDeque<SignalingEvent>,
}

/// How it stands with the server.
enum Link {
    Up(Box<Socket>),
    Down(Repair),
    /// Gone for good.
    Over(SignalingError),
    /// The lobby was sealed, and the server has gone: nothing is to be heard, and nothing is wrong.
    Done,
}

/// The way back to the server.
struct Repair {
    attempt: BoxFuture<'static, Result<Entered, SignalingError>>,
}

/// The bound of the first pause before it is tried to reach the server again, and of the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A connection that held for so long was a good one. The pauses after one that did not go on growing.
const STEADY: Duration = Duration::from_secs(30);

/// Signals that wait for the server to be reached again: descriptions and candidates of a few peers, 4 MiB at the most.
/// Over it, a signal is refused.
const MAX_UNSENT: usize = 64;

impl GodotSignaling {
    /// The options of a connection to this server, `ws://HOST[:PORT][/PATH]` or `wss://…`; awaiting them connects and
    /// joins.
    pub fn connect(url: impl Into<String>) -> GodotConnect {
        GodotConnect { settings: Settings::new(url.into()) }
    }

    /// The id that the server gave us; 1 if we are the host.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// The lobby's name, which others need to join it.
    pub fn lobby_name(&self) -> &str {
        &self.lobby.name
    }

    /// Whether the lobby is a mesh, or one of clients that connect to the host alone.
    pub fn is_mesh(&self) -> bool {
        self.lobby.mesh
    }

    /// What the server says.
    fn hear(&mut self, frame: &str) {
        match Message::decode(self.settings.generation, frame) {
            Ok(message) => self.lobby.take(message, &mut self.events),
            Err(error) => tracing::debug!(%error, "a message of the signalling server is ignored"),
        }
    }

    /// The connection to the server has ended.
    fn lost(&mut self, end: End) {
        if self.lobby.sealed || end == End::Closed(CloseReason::SealComplete) {
            tracing::debug!(%end, "the server of the sealed lobby has gone");
            self.link = Link::Done;
            return;
        }
        let can_return = match &self.link {
            Link::Up(socket) => socket.can_return && self.settings.reconnect && end.is_passing(),
            _ => false,
        };
        let error = SignalingError::from(end);
        self.tries = if self.up_since.elapsed() < STEADY { self.tries + 1 } else { 0 };
        self.link = if can_return {
            self.events.push_back(SignalingEvent::Lost(error));
            Link::Down(self.repair())
        } else {
            Link::Over(error)
        };
    }

    fn repair(&self) -> Repair {
        let claim = Claim { id: self.id, lobby: self.lobby.name.clone() };
        let settings = self.settings.clone();
        let bound = (FIRST_PAUSE * 2_u32.saturating_pow(self.tries.min(16))).min(LONGEST_PAUSE);
        let pause = bound.mul_f64(rand::random());
        let attempt = async move {
            tokio::time::sleep(pause).await;
            enter(&settings, Some(&claim)).await
        };
        Repair { attempt: attempt.boxed() }
    }

    /// An attempt to reach the server again is over.
    fn repaired(&mut self, attempt: Result<Entered, SignalingError>) {
        match attempt {
            Ok(Entered { socket, id, .. }) if id != self.id => {
                // It does not know us, and now somebody else is in the lobby who never was: we go again.
                drop(socket);
                self.link = Link::Over(SignalingError::ClosedByServer(CloseReason::NotResumed));
            }
            Ok(Entered { mut socket, mesh, peers, rest, .. }) => {
                self.up_since = Instant::now();
                self.lobby.mesh = mesh;
                self.lobby.meet(&peers, &mut self.events);
                rest.into_iter().for_each(|message| self.lobby.take(message, &mut self.events));
                self.events.push_back(SignalingEvent::Restored);
                for (peer, message) in std::mem::take(&mut self.unsent) {
                    if self.lobby.has(peer) {
                        socket.say_soon(message.encode(self.settings.generation));
                    }
                }
                self.link = Link::Up(Box::new(socket));
            }
            Err(error) if is_final(&error) => self.link = Link::Over(error),
            Err(error) => {
                self.tries += 1;
                tracing::debug!(%error, tries = self.tries, "the signalling server is not reached");
                self.link = Link::Down(self.repair());
            }
        }
    }

    /// Sends a message, if the server is there to take it.
    async fn say(&mut self, message: &Message) -> Result<(), SignalingError> {
        let frame = message.encode(self.settings.generation);
        match &mut self.link {
            Link::Up(socket) => socket.say(frame).await,
            Link::Down(_) => Err(SignalingError::Transport("the server is not reached now".to_owned())),
            Link::Over(error) => Err(error.clone()),
            Link::Done => Err(SignalingError::Closed),
        }
    }
}

/// Whether a server that answers so will not answer otherwise later.
fn is_final(error: &SignalingError) -> bool {
    match error {
        SignalingError::ClosedByServer(reason) => {
            !End::Closed(reason.clone()).is_passing()
                && !matches!(reason, CloseReason::TooManyPeers | CloseReason::TooManyLobbies)
        }
        SignalingError::InvalidUrl { .. } => true,
        _ => false,
    }
}

#[async_trait]
impl Signaling for GodotSignaling {
    async fn join(&mut self) -> Result<PeerId, SignalingError> {
        Ok(self.id)
    }

    async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match &mut self.link {
                Link::Up(socket) => match socket.hear().await {
                    Ok(frame) => self.hear(&frame),
                    Err(end) => self.lost(end),
                },
                Link::Down(repair) => {
                    let attempt = (&mut repair.attempt).await;
                    self.repaired(attempt);
                }
                Link::Over(error) => return Err(error.clone()),
                Link::Done => std::future::pending().await,
            }
        }
    }

    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
        // Godot's own server closes whoever sends to somebody who has just left.
        if !self.lobby.has(to) {
            return Err(SignalingError::UnknownPeer(to));
        }
        match Message::relay(to.get(), &signal) {
            Ok(message) if matches!(self.link, Link::Down(_)) && self.unsent.len() < MAX_UNSENT => {
                self.unsent.push_back((to, message));
                Ok(())
            }
            Ok(message) => self.say(&message).await,
            Err(error) => {
                tracing::debug!(peer = %to, %error, "a signal is left out");
                Ok(())
            }
        }
    }

    async fn leave(&mut self) {
        if let Link::Up(socket) = &mut self.link {
            socket.close().await;
        }
        self.link = Link::Done;
    }

    fn lobby(&self) -> Option<String> {
        Some(self.lobby.name.clone())
    }

    async fn seal(&mut self) -> Result<(), SignalingError> {
        if !self.id.is_server() {
            return Err(SignalingError::NotHost);
        }
        if !self.lobby.sealed {
            self.say(&Message::Seal).await?;
        }
        // It is sealed when the server says so; what it says before waits its turn.
        while !self.lobby.sealed {
            match &mut self.link {
                Link::Up(socket) => match socket.hear().await {
                    Ok(frame) => self.hear(&frame),
                    Err(end) => self.lost(end),
                },
                Link::Over(error) => return Err(error.clone()),
                Link::Down(_) | Link::Done => return Err(SignalingError::Closed),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GodotSignaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GodotSignaling")
            .field("id", &self.id)
            .field("generation", &self.settings.generation)
            .field("mesh", &self.lobby.mesh)
            .field("sealed", &self.lobby.sealed)
            .finish_non_exhaustive()
    }
}

/// How to connect; made by [`GodotSignaling::connect`]. Awaiting it connects and joins the lobby.
///
/// # Errors
///
/// [`SignalingError::InvalidUrl`] and [`SignalingError::InvalidOption`] for what cannot be used;
/// [`SignalingError::ClosedByServer`] with the server's reason; [`SignalingError::Refused`] if there is an HTTP server
/// that does not want a WebSocket; [`SignalingError::TimedOut`]; [`SignalingError::Transport`] for everything between
/// here and there, as a certificate that is not trusted.
///
/// # Cancel safety
///
/// Dropping the future drops the connection.
#[derive(Debug, Clone)]
#[must_use = "nothing is connected until it is awaited"]
pub struct GodotConnect {
    settings: Settings,
}

impl GodotConnect {
    /// The lobby to join. Default none: a new one, whose name the server makes
    /// ([`lobby_name`](GodotSignaling::lobby_name)).
    pub fn lobby(mut self, name: impl Into<String>) -> Self {
        self.settings.lobby = name.into();
        self
    }

    /// Whether the lobby is made under its name if it does not exist, so that whoever comes first is its host. Default
    /// `false`. The server of this crate can; Godot's own always make the name, and answer
    /// [`LobbyDoesNotExist`](CloseReason::LobbyDoesNotExist).
    pub fn create(mut self, create: bool) -> Self {
        self.settings.create = create;
        self
    }

    /// The protocol, which is that of everyone in the lobby. Default [`Generation::Godot4`].
    pub fn generation(mut self, generation: Generation) -> Self {
        self.settings.generation = generation;
        self
    }

    /// Whether the lobby, if we make it, is a mesh (the default), or one of clients that connect to the host alone.
    /// Godot 3 knows meshes only. Of a lobby that is there, it tells what it is.
    pub fn mesh(mut self, mesh: bool) -> Self {
        self.settings.mesh = mesh;
        self
    }

    /// How long it may take to connect and to join, name resolution and TLS included. Default 10 s.
    pub fn connect_limit(mut self, limit: Duration) -> Self {
        self.settings.connect_limit = limit.min(Duration::from_secs(24 * 60 * 60));
        self
    }

    /// Whether it is tried to reach the server again when it is lost, if it can give us our id again. Default `true`.
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.settings.reconnect = reconnect;
        self
    }

    /// A header of the HTTP request, for a server that wants to know who comes. Sent with every connection.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.headers.push((name.into(), value.into()));
        self
    }

    /// One more certificate to trust, beside those of this machine, in PEM: for a server with a certificate of its own
    /// making. It matters to `wss://` only. A certificate that may sign others is no server's
    /// (`CaUsedAsEndEntity`), and that is what `openssl` makes unless it is told otherwise:
    ///
    /// ```text
    /// openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 365 -subj /CN=localhost \
    ///     -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE
    /// ```
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.settings.root_certificates.push(pem.into());
        self
    }
}

impl IntoFuture for GodotConnect {
    type Output = Result<GodotSignaling, SignalingError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move {
            let settings = Arc::new(self.settings.with_session());
            let Entered { socket, id, mesh, lobby, peers, rest } = enter(&settings, None).await?;
            let mut lobby = Lobby::new(settings.generation, id, mesh, lobby, socket.can_return);
            let mut events = VecDeque::new();
            lobby.meet(&peers, &mut events);
            rest.into_iter().for_each(|message| lobby.take(message, &mut events));
            let link = Link::Up(Box::new(socket));
            let (up_since, tries, unsent) = (Instant::now(), 0, VecDeque::new());
            Ok(GodotSignaling { settings, id, lobby, link, up_since, tries, unsent, events })
        }
        .boxed()
    }
}
