//! The way in: TCP, TLS, the WebSocket's handshake, and joining the lobby, all within one limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Uri};
use tokio_tungstenite::tungstenite::{self};

use super::socket::{Socket, Stream, config};
use super::{CloseReason, Generation, Message};
use crate::connection::MAX_SDP_BYTES;
use crate::error::SignalingError;
use crate::id::PeerId;

/// What was asked for.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) url: String,
    pub(super) lobby: String,
    pub(super) create: bool,
    pub(super) generation: Generation,
    pub(super) mesh: bool,
    pub(super) connect_limit: Duration,
    pub(super) reconnect: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) root_certificates: Vec<Vec<u8>>,
    /// By which the server knows us when we come back: 32 hexadecimal digits, and nobody else's business.
    session: String,
}

/// What we had, and come back to.
pub(super) struct Claim {
    pub(super) id: PeerId,
    pub(super) lobby: String,
}

/// We are in.
pub(super) struct Entered {
    pub(super) socket: Socket,
    pub(super) id: PeerId,
    pub(super) mesh: bool,
    pub(super) lobby: String,
    /// Who is there.
    pub(super) peers: Vec<u32>,
    /// What else was said by then.
    pub(super) rest: Vec<Message>,
}

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Peers that are in a lobby when we come.
const MAX_THERE: usize = 4096;
/// Other messages that are heard before the lobby's name. Servers say nothing else by then.
const MAX_REST: usize = 64;

/// A server's answer to the handshake says by this header that it gives a client its id again.
const SESSION_HEADER: &str = "x-webrtc-mesh-session";

impl Settings {
    pub(super) fn new(url: String) -> Settings {
        Settings {
            url,
            lobby: String::new(),
            create: false,
            generation: Generation::default(),
            mesh: true,
            connect_limit: CONNECT_LIMIT,
            reconnect: true,
            headers: Vec::new(),
            root_certificates: Vec::new(),
            session: String::new(),
        }
    }

    /// Of one member: whoever connects twice is two.
    pub(super) fn with_session(mut self) -> Settings {
        self.session = format!("{:032x}", rand::random::<u128>());
        self
    }

    fn refused_url(&self, reason: impl fmt::Display) -> SignalingError {
        SignalingError::InvalidUrl { url: self.url.clone(), reason: reason.to_string() }
    }
}

impl fmt::Debug for Settings {
    /// Without what may be a secret: the headers and the session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("lobby", &self.lobby)
            .field("create", &self.create)
            .field("generation", &self.generation)
            .field("mesh", &self.mesh)
            .field("connect_limit", &self.connect_limit)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

/// Connects, and joins the lobby: at first, or again with what we had.
pub(super) async fn enter(settings: &Settings, claim: Option<&Claim>) -> Result<Entered, SignalingError> {
    let limit = settings.connect_limit;
    let entered = async {
        let socket = connect(settings, claim).await?;
        join(settings, claim, socket).await
    };
    tokio::time::timeout(limit, entered).await.unwrap_or(Err(SignalingError::TimedOut { limit }))
}

async fn connect(settings: &Settings, claim: Option<&Claim>) -> Result<Socket, SignalingError> {
    let server = Server::parse(settings, claim)?;
    let request = server.request(settings)?;
    let transport = |error: std::io::Error| SignalingError::Transport(error.to_string());
    let tcp = TcpStream::connect((server.host.as_str(), server.port)).await;
    let nobody = |error| SignalingError::Transport(format!("{}:{}: {error}", server.host, server.port));
    let tcp = tcp.map_err(nobody)?;
    tcp.set_nodelay(true).map_err(transport)?;
    let stream: Box<dyn Stream> = if server.tls {
        let name = ServerName::try_from(server.host.clone())
            .map_err(|_| settings.refused_url("its host is neither a name nor an address"))?;
        let tls = TlsConnector::from(trust(settings).await?);
        let not_tls = |error| SignalingError::Transport(format!("no TLS with the server: {error}"));
        Box::new(tls.connect(name, tcp).await.map_err(not_tls)?)
    } else {
        Box::new(tcp)
    };
    match client_async_with_config(request, stream, Some(config())).await {
        Ok((frames, answer)) => Ok(Socket::new(frames, answer.headers().contains_key(SESSION_HEADER))),
        Err(tungstenite::Error::Http(answer)) => {
            Err(SignalingError::Refused(format!("the server answers with HTTP status {}", answer.status())))
        }
        Err(tungstenite::Error::HttpFormat(_) | tungstenite::Error::Protocol(_)) if !server.tls => {
            Err(SignalingError::Transport("the server speaks no HTTP; is it wss://?".to_owned()))
        }
        Err(error) => Err(SignalingError::Transport(error.to_string())),
    }
}

/// Says which lobby, and hears who we are, who is there, and the lobby's name.
async fn join(
    settings: &Settings,
    claim: Option<&Claim>,
    mut socket: Socket,
) -> Result<Entered, SignalingError> {
    let generation = settings.generation;
    let name = claim.map_or(&settings.lobby, |claim| &claim.lobby);
    if name.contains(['\n', '\r']) || name.trim() != name {
        return Err(SignalingError::InvalidOption(
            "a lobby's name is one line, with no blanks around it".to_owned(),
        ));
    }
    socket.say(Message::Join { lobby: name.clone(), mesh: settings.mesh }.encode(generation)).await?;
    let (mut us, mut peers, mut rest) = (None, Vec::new(), Vec::new());
    loop {
        let frame = socket.hear().await?;
        match Message::decode(generation, &frame) {
            Ok(Message::Id { id, mesh }) => us = Some((id, mesh)),
            Ok(Message::PeerConnect(id)) if peers.len() < MAX_THERE => peers.push(id),
            Ok(Message::PeerDisconnect(id)) => peers.retain(|peer| *peer != id),
            Ok(Message::Join { lobby, .. }) => {
                // Godot's GDScript servers let a client into a sealed lobby so far, and no farther.
                let sealed = SignalingError::ClosedByServer(CloseReason::LobbySealed);
                let (id, mesh) = us.ok_or(sealed)?;
                let id = PeerId::new(id).map_err(|error| {
                    SignalingError::Transport(format!("the server gave us a bad id: {error}"))
                })?;
                return Ok(Entered { socket, id, mesh, lobby, peers, rest });
            }
            Ok(Message::Relay { payload, .. }) if payload.len() > MAX_SDP_BYTES => {}
            Ok(message) if rest.len() < MAX_REST => rest.push(message),
            Ok(_) => {
                return Err(SignalingError::Transport(
                    "the server says too much before it lets us in".to_owned(),
                ));
            }
            Err(error) => tracing::debug!(%error, "a message of the signalling server is ignored"),
        }
    }
}

/// Where to connect to.
struct Server {
    tls: bool,
    host: String,
    port: u16,
    /// With our wishes in the query, which a server that does not know them ignores.
    uri: Uri,
}

impl Server {
    fn parse(settings: &Settings, claim: Option<&Claim>) -> Result<Server, SignalingError> {
        let refused = |reason: &str| settings.refused_url(reason);
        let uri: Uri = settings.url.parse().map_err(|error| settings.refused_url(error))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(refused("it begins neither with ws:// nor with wss://")),
        };
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("a user's name and password in it are not supported; use a header"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refused("it names no host"));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => {
                port.parse().map_err(|_| refused("its port is no number up to 65535"))?
            }
            _ if tls => 443,
            _ => 80,
        };
        let mut wishes = Vec::from_iter(uri.query().filter(|query| !query.is_empty()).map(str::to_owned));
        wishes.push(format!("session={}", settings.session));
        if settings.create {
            wishes.push("create=true".to_owned());
        }
        if let Some(claim) = claim {
            wishes.push(format!("id={}", claim.id));
        }
        let scheme = if tls { "wss" } else { "ws" };
        let uri = format!("{scheme}://{authority}{}?{}", uri.path(), wishes.join("&"));
        let uri = uri.parse().map_err(|error| settings.refused_url(error))?;
        Ok(Server { tls, host, port, uri })
    }

    fn request(&self, settings: &Settings) -> Result<Request, SignalingError> {
        let mut request =
            self.uri.clone().into_client_request().map_err(|error| settings.refused_url(error))?;
        for (name, value) in &settings.headers {
            let bad = |what| SignalingError::InvalidOption(format!("the {what} of the header {name:?}"));
            let key: HeaderName = name.parse().map_err(|_| bad("name"))?;
            let value: HeaderValue = value.parse().map_err(|_| bad("value"))?;
            request.headers_mut().insert(key, value);
        }
        Ok(request)
    }
}

/// The certificates of this machine, and those we were given.
async fn trust(settings: &Settings) -> Result<Arc<ClientConfig>, SignalingError> {
    let mut roots = RootCertStore::empty();
    for pem in &settings.root_certificates {
        let bad = |why: String| SignalingError::InvalidOption(format!("the root certificate: {why}"));
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    // From files.
    let native = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let native = native.await.map_err(|error| SignalingError::Transport(error.to_string()))?;
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        let why = native.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(SignalingError::Transport(format!("this machine trusts no certificate at all{why}")));
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| SignalingError::Transport(error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server, SignalingError> {
        Server::parse(&Settings::new(url.to_owned()).with_session(), None)
    }

    #[test]
    fn a_url_says_where_to_connect() {
        for (url, tls, host, port, path) in [
            ("ws://127.0.0.1:9080", false, "127.0.0.1", 9080, "/"),
            ("wss://example.org", true, "example.org", 443, "/"),
            ("ws://example.org/a/b?c=d", false, "example.org", 80, "/a/b"),
            ("ws://[::1]:9080/", false, "::1", 9080, "/"),
            ("wss://[::1]", true, "::1", 443, "/"),
        ] {
            let server = server(url).unwrap();
            assert_eq!((server.tls, server.host.as_str(), server.port), (tls, host, port), "{url}");
            assert_eq!(server.uri.path(), path);
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_says_why() {
        for (url, reason) in [
            ("127.0.0.1:9080", "ws://"),
            ("http://127.0.0.1", "ws://"),
            ("ws://", ""),
            ("ws://:9080", "no host"),
            ("ws://host:port", "port"),
            ("ws://host:99999", "port"),
            ("ws://me:secret@host", "header"),
            ("ws://ho st", ""),
        ] {
            match server(url) {
                Err(SignalingError::InvalidUrl { url: given, reason: why }) => {
                    assert_eq!(given, url);
                    assert!(why.contains(reason), "{url}: {why}");
                }
                other => panic!("{url}: {:?}", other.map(|server| server.uri)),
            }
        }
    }

    #[test]
    fn the_query_of_the_url_stays_and_our_wishes_come_after_it() {
        let mut settings = Settings::new("ws://host/path?token=x".to_owned()).with_session();
        settings.create = true;
        let claim = Claim { id: PeerId::SERVER, lobby: String::new() };
        let query = |claim| Server::parse(&settings, claim).unwrap().uri.query().map(str::to_owned).unwrap();
        let session = &settings.session;
        assert_eq!(query(None), format!("token=x&session={session}&create=true"));
        assert_eq!(query(Some(&claim)), format!("token=x&session={session}&create=true&id=1"));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_an_error() {
        let mut settings = Settings::new("ws://host".to_owned());
        settings.headers.push(("bad name".to_owned(), "x".to_owned()));
        let refused = Server::parse(&settings, None).unwrap().request(&settings);
        assert!(matches!(refused, Err(SignalingError::InvalidOption(_))));
    }
}
