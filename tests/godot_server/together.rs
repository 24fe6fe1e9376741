//! In a program, over TLS, watched, and ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use webrtc_mesh::signaling::godot::{CloseReason, Generation, Message, RelayKind};
use webrtc_mesh::signaling::server::{
    Counts, InMemory, JoinRequest, Leaving, Mailbox, Membership, Rendezvous, SignalingServer, TlsConfig,
    TlsError,
};

use super::support::{Client, serve, usual, within};

const GENERATION: Generation = Generation::Godot4;

#[tokio::test]
async fn one_program_serves_its_page_and_the_signalling() {
    let server = SignalingServer::builder().build();
    let program = Router::new()
        .route("/", get(|| async { Html("the game") }))
        .nest("/nested", server.router())
        .nest_service("/signaling", server.router());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, program).await });
    assert!(super::support::get(address, "/").await.ends_with("the game"));
    assert!(super::support::get(address, "/signaling/healthz").await.starts_with("HTTP/1.1 200"));
    for path in ["/nested", "/nested?a=b", "/signaling", "/signaling/?a=b"] {
        Client::connect(address, path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    for path in ["/nested/", "/signaling/x"] {
        assert!(Client::connect(address, path).await.is_err(), "{path}");
    }
    let client = Client::connect(address, "/signaling/").await.unwrap();
    let mut host = client.join(GENERATION, "").await;
    within(server.shutdown()).await;
    assert_eq!(host.client.closed().await, CloseReason::ShuttingDown);
    assert!(super::support::get(address, "/").await.ends_with("the game"), "the page stays");
    serving.abort();
}

#[tokio::test]
async fn a_server_that_is_told_to_end_says_goodbye_and_leaves_no_task() {
    let runtime = tokio::runtime::Handle::current();
    let before = runtime.metrics().num_alive_tasks();
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let member = server.client_of(&format!("/?session={:032x}", 7)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    // One that is away, one that has not joined, and one that has said nothing at all.
    member.client.vanish();
    server.metric_reaches("lost_total", 1).await;
    let mut undecided = server.client().await;
    let _silent = TcpStream::connect(server.address).await.unwrap();

    let goodbyes = tokio::spawn(async move {
        let reasons = [host.client.closed().await, undecided.closed().await];
        reasons.map(|reason| reason.code())
    });
    within(server.server.shutdown()).await;
    within(server.serving).await.unwrap().unwrap();
    assert_eq!(within(goodbyes).await.unwrap(), [1001, 1001]);
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens");
    within(async {
        while runtime.metrics().num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_does_not_hold_up_the_end() {
    let server = serve(SignalingServer::builder().shutdown_limit(Duration::from_millis(100))).await;
    let _host = server.member(GENERATION, "").await; // Reads no close frame.
    let since = Instant::now();
    within(server.server.shutdown()).await;
    within(server.serving).await.unwrap().unwrap();
    assert!(since.elapsed() < Duration::from_millis(1_500), "2 s is what it has: {:?}", since.elapsed());
}

#[tokio::test]
async fn when_nobody_holds_the_server_its_sessions_end() {
    let server = SignalingServer::builder().build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { server.serve(listener).await });
    let mut host = Client::connect(address, "/").await.unwrap().join(GENERATION, "").await;
    serving.abort();
    assert_eq!(host.client.closed().await, CloseReason::ShuttingDown);
}

#[tokio::test]
async fn health_and_metrics_tell_how_it_is() {
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let mut member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    member.tell(1, "hello").await;
    host.hears_from(member.id, "hello").await;
    let mut odd = server.client().await;
    odd.say("odd").await;
    odd.closed().await;
    let health = server.get("/healthz").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.contains(r#""status":"ok""#) && health.contains(r#""lobbies":1"#), "{health}");
    let metrics = server.get("/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.ends_with("# EOF\n"), "{metrics}");
    for line in [
        "members 2",
        "lobbies 1",
        "joins_total 2",
        "resumed_total 0",
        "relays_total 1",
        "dropped_relays_total 0",
        "malformed_total 1",
        "lost_total 0",
        "closed_total{reason=\"invalid_format\"} 1",
    ] {
        assert!(
            metrics.lines().any(|it| it == format!("webrtc_mesh_signaling_{line}")),
            "{line}:\n{metrics}"
        );
    }
    for name in ["peers", "received_bytes_total", "sent_bytes_total"] {
        assert!(server.metric(name).await >= 2, "{name}");
    }
    let page = server.get("/").await;
    assert!(page.starts_with("HTTP/1.1 426") && page.contains("WebSocket"), "{page}");
}

#[tokio::test]
async fn over_tls_it_is_the_same() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let config = TlsConfig::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let server = SignalingServer::builder().http_limit(Duration::from_millis(500)).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let on_tls = server.clone();
    let serving = tokio::spawn(async move { on_tls.serve_tls(listener, config).await });

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    // Somebody who does not speak TLS is no trouble.
    let _plain = Client::connect(address, "/").await.err().unwrap();
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    };
    let (mut idle, since) = (connect().await, Instant::now());
    let stream = connect().await;
    let client = Client::over(stream, "wss://localhost/").await.unwrap();
    let mut host = client.join(GENERATION, "").await;
    assert_eq!(host.id, 1);
    // What is no WebSocket in time is cut, and what is stays.
    let _ = within(idle.read_to_end(&mut Vec::new())).await;
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    host.tell(77, "still here").await;
    let goodbye = tokio::spawn(async move { host.client.closed().await });
    within(server.shutdown()).await;
    assert_eq!(within(goodbye).await.unwrap(), CloseReason::ShuttingDown);
    within(serving).await.unwrap().unwrap();
}

#[test]
fn what_is_no_certificate_says_which_of_the_two() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let error = |cert: &str, key: &str| TlsConfig::from_pem(cert.as_bytes(), key.as_bytes()).unwrap_err();
    assert!(matches!(error("nothing", &key), TlsError::Certificate(_)));
    assert!(matches!(error(&cert, "nothing"), TlsError::Key(_)));
    assert!(matches!(error(&cert, &other.signing_key.serialize_pem()), TlsError::Rejected(_)));
}

/// Lobbies in memory, but all of them have a name that begins with a word.
#[derive(Debug)]
struct OurLobbies(InMemory);

#[async_trait::async_trait]
impl Rendezvous for OurLobbies {
    async fn join(&self, mut request: JoinRequest, mailbox: Mailbox) -> Result<Membership, CloseReason> {
        if request.lobby.is_empty() {
            (request.lobby, request.create) = ("ours".to_owned(), true);
        }
        if request.lobby == "nobody's" {
            std::future::pending().await
        }
        self.0.join(request, mailbox).await
    }

    async fn relay(&self, from: &Membership, to: u32, kind: RelayKind, payload: String) -> bool {
        self.0.relay(from, to, kind, payload).await
    }

    async fn seal(&self, _: &Membership) -> Result<(), CloseReason> {
        Err(CloseReason::Refused("never".to_owned()))
    }

    async fn leave(&self, member: &Membership, why: Leaving) {
        self.0.leave(member, why).await;
    }

    fn counts(&self) -> Counts {
        self.0.counts()
    }
}

#[tokio::test]
async fn lobbies_can_be_kept_elsewhere() {
    let lobbies = OurLobbies(InMemory::new(10, 10, Duration::ZERO));
    let server = serve(SignalingServer::builder().rendezvous(lobbies)).await;
    let mut host = server.member(GENERATION, "").await;
    assert_eq!((host.id, host.lobby.as_str()), (1, "ours"));
    // Asked for something that never comes, it is given up in 5 s.
    let mut waits = server.client().await;
    waits.say(&super::support::join(GENERATION, "nobody's")).await;
    let member = server.member(GENERATION, "").await;
    assert_eq!(member.peers, [1]);
    host.hears(Message::PeerConnect(member.id)).await;
    host.client.say(&Message::Seal.encode(GENERATION)).await;
    assert_eq!(host.client.closed().await, CloseReason::Refused("never".to_owned()));
    assert_eq!(waits.closed().await, CloseReason::ServerError);
}
