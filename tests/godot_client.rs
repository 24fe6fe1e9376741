//! A client of Godot's signalling says and understands what the demo's servers do, survives what they do wrong, and
//! says why it is not let in. The servers here are scripted, frame by frame.
#![cfg(feature = "ws")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::result_large_err, reason = "the error of a handshake's callback is tungstenite's")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use webrtc_mesh::signaling::godot::{
    CloseReason, Generation, GodotConnect, GodotSignaling, Message, RelayKind,
};
use webrtc_mesh::{
    IceCandidate, Mesh, MeshEvent, Signal, Signaling as _, SignalingError, SignalingEvent, SignalingStatus,
};

const BOTH: [Generation; 2] = [Generation::Godot3, Generation::Godot4];

#[test]
fn a_newcomer_joins_as_godots_own_client_does() {
    promise(async {
        for (generation, joins, welcome) in [
            (Generation::Godot3, "J: abc\n", ["I: 77\n", "N: 1\n", "J: abc\n"]),
            (
                Generation::Godot4,
                r#"{"data":"abc","id":0,"type":0}"#,
                [
                    r#"{"type":1,"id":77,"data":"true"}"#,
                    r#"{"type":2,"id":1,"data":""}"#,
                    r#"{"type":0,"id":0,"data":"abc"}"#,
                ],
            ),
        ] {
            let server = Server::new().await;
            let serving = async {
                let mut client = server.accept().await;
                assert_eq!(client.hears().await, joins);
                for frame in welcome {
                    client.says(frame).await;
                }
                client
            };
            let joining = server.client(generation).lobby("abc");
            let (_client, signaling) = both(serving, joining).await;
            let mut signaling = signaling.unwrap();
            assert_eq!((signaling.id(), signaling.lobby_name(), signaling.is_mesh()), (id(77), "abc", true));
            let host = SignalingEvent::PeerJoined { peer: id(1), we_offer: generation == Generation::Godot4 };
            assert_eq!(in_time(signaling.next()).await, Ok(host));
        }
    });
}

#[test]
fn whoever_makes_a_lobby_is_its_host_and_the_server_makes_its_name() {
    promise(async {
        for generation in BOTH {
            let server = Server::new().await;
            let (mut client, mesh) = server.join(generation, 1, &[]).await;
            assert_eq!((mesh.id(), mesh.handle().lobby().as_deref()), (id(1), Some("LOBBY")));
            assert_eq!(mesh.handle().signaling(), SignalingStatus::Joined);
            in_time(mesh.handle().close()).await;
            let (code, _) = client.is_closed().await;
            assert_eq!(code, 1000, "it says that it goes");
        }
    });
}

#[test]
fn the_offer_goes_out_before_its_candidates_and_to_the_right_side() {
    promise(async {
        for (generation, us, them) in [(Generation::Godot3, 1, 77), (Generation::Godot4, 77, 1)] {
            let server = Server::new().await;
            let (mut client, mesh) = server.join(generation, us, &[them]).await;
            let Message::Relay { peer, kind: RelayKind::Offer, payload } = client.takes(generation).await
            else {
                panic!("the offer comes first");
            };
            assert_eq!(peer, them);
            assert!(payload.starts_with("v=0\r\n") && payload.contains("m=application"), "{payload}");
            let Message::Relay { peer, kind: RelayKind::Candidate, payload } = client.takes(generation).await
            else {
                panic!("then a candidate");
            };
            assert_eq!(peer, them);
            let lines: Vec<&str> = payload.split('\n').collect();
            let ["", "0", "0", candidate] = lines[..] else {
                panic!("{payload:?} is no candidate of Godot's")
            };
            assert!(candidate.starts_with("candidate:"), "{candidate}");
            in_time(mesh.handle().close()).await;
        }
    });
}

#[test]
fn every_refusal_of_godots_server_has_its_own_error() {
    promise(async {
        for (code, text, reason) in [
            (4000, "Have not joined lobby yet", CloseReason::NotJoined),
            (4000, "Lobby does not exists", CloseReason::LobbyDoesNotExist),
            (4000, "Lobby is sealed", CloseReason::LobbySealed),
            (4000, "Too many lobbies open, disconnecting", CloseReason::TooManyLobbies),
            (4000, "Too many peers connected", CloseReason::TooManyPeers),
            (4000, "Room host has disconnected", CloseReason::HostDisconnected),
            (4000, "Refused: not you", CloseReason::Refused("not you".to_owned())),
            (4321, "whatever", CloseReason::Other { code: 4321, text: "whatever".to_owned() }),
        ] {
            let server = Server::new().await;
            let serving = async {
                let mut client = server.accept().await;
                client.hears().await;
                client.closes(code, text).await;
                client
            };
            let joining = server.client(Generation::Godot4).lobby("abc");
            let (_client, signaling) = both(serving, joining).await;
            assert_eq!(signaling.unwrap_err(), SignalingError::ClosedByServer(reason));
        }
    });
}

#[test]
fn what_godots_gdscript_servers_do_otherwise_is_understood() {
    promise(async {
        // Binary frames.
        let server = Server::new().await;
        let serving = async {
            let mut client = server.accept().await;
            client.hears().await;
            for frame in ["I: 5\n", "N: 1\n", "J: abc\n"] {
                client.0.send(Frame::Binary(frame.into())).await.unwrap();
            }
            client
        };
        let joining = server.client(Generation::Godot3).lobby("abc");
        let (_client, signaling) = both(serving, joining).await;
        assert_eq!(signaling.unwrap().id(), id(5));

        // A sealed lobby: its name, and no id. A lobby that does not exist: closed without a word.
        for (frame, reason) in [
            (Some("J: abc\n"), CloseReason::LobbySealed),
            (None, CloseReason::Other { code: 1005, text: String::new() }),
        ] {
            let serving = async {
                let mut client = server.accept().await;
                client.hears().await;
                match frame {
                    Some(frame) => client.says(frame).await,
                    None => client.0.close(None).await.unwrap(),
                }
                client
            };
            let joining = server.client(Generation::Godot3).lobby("abc");
            let (_client, signaling) = both(serving, joining).await;
            assert_eq!(signaling.unwrap_err(), SignalingError::ClosedByServer(reason));
        }
    });
}

#[test]
fn nonsense_from_the_server_harms_no_link() {
    promise(async {
        for (generation, us, them) in [(Generation::Godot3, 1, 77), (Generation::Godot4, 77, 1)] {
            let server = Server::new().await;
            let (mut client, mut mesh) = server.join(generation, us, &[]).await;
            for frame in
                ["", "{", "[]", "null", "X: 1\n", "N: 0\n", "I: 3\n", "{\"type\":99,\"id\":1}", "\u{0}"]
            {
                client.says(frame).await;
            }
            client.0.send(Frame::Binary(vec![0xff; 100].into())).await.unwrap();
            // A stranger sends 10 MB, and 10,000 candidates; one of them is announced.
            let sdp = "x".repeat(10_000_000);
            let relay = |kind, payload: &str| Message::Relay { peer: 66, kind, payload: payload.to_owned() };
            client.tells(generation, &relay(RelayKind::Offer, &sdp)).await;
            client.tells(generation, &Message::PeerConnect(66)).await;
            client.tells(generation, &relay(RelayKind::Offer, &sdp)).await;
            let candidate = relay(RelayKind::Candidate, "\n0\n0\ncandidate:nonsense").encode(generation);
            for _ in 0..10_000 {
                in_time(client.0.feed(Frame::Text(candidate.as_str().into()))).await.unwrap();
            }
            client.tells(generation, &relay(RelayKind::Candidate, "nonsense")).await;
            client.tells(generation, &Message::PeerDisconnect(66)).await;
            client.tells(generation, &Message::PeerConnect(them)).await;
            let offered = loop {
                if let Message::Relay { peer, kind: RelayKind::Offer, .. } = client.takes(generation).await
                    && peer == them
                {
                    break peer;
                }
            };
            assert_eq!(offered, them);
            is_silent(&mut mesh).await;
            in_time(mesh.handle().close()).await;
        }
    });
}

#[test]
fn what_the_protocol_cannot_carry_is_not_sent_nor_anything_to_a_stranger() {
    promise(async {
        let server = Server::new().await;
        let serving = server.lets_in(Generation::Godot4, 77, &[1], None);
        let (mut client, signaling) = both(serving, server.client(Generation::Godot4)).await;
        let mut signaling = signaling.unwrap();
        let candidate = |candidate: &str, mid: &str| {
            Signal::Candidate(IceCandidate {
                candidate: candidate.to_owned(),
                sdp_mid: mid.to_owned(),
                sdp_mline_index: 0,
            })
        };
        // Godot's server would close us for this.
        let sent = in_time(signaling.send(id(9), candidate("candidate:1", "0"))).await;
        assert_eq!(sent, Err(SignalingError::UnknownPeer(id(9))));
        // A browser's end of candidates, and one without a media section.
        in_time(signaling.send(id(1), candidate("", "0"))).await.unwrap();
        in_time(signaling.send(id(1), candidate("candidate:1", ""))).await.unwrap();
        in_time(signaling.send(id(1), candidate("candidate:2", "0"))).await.unwrap();
        let Message::Relay { payload, .. } = client.takes(Generation::Godot4).await else {
            panic!("a relay")
        };
        assert_eq!(payload, "\n0\n0\ncandidate:2");
    });
}

#[test]
fn the_loss_of_a_godot_server_is_final_and_says_why() {
    promise(async {
        let server = Server::new().await;
        let (mut client, mut mesh) = server.join(Generation::Godot4, 77, &[]).await;
        client.closes(4000, "Room host has disconnected").await;
        assert_eq!(next(&mut mesh).await, MeshEvent::SignalingLost);
        let why = SignalingError::ClosedByServer(CloseReason::HostDisconnected);
        assert_eq!(mesh.handle().signaling(), SignalingStatus::Lost(why));
        let sealed = in_time(mesh.handle().seal_lobby()).await;
        assert_eq!(sealed, Err(SignalingError::NotHost));

        let (client, mut mesh_2) = server.join(Generation::Godot3, 1, &[]).await;
        drop(client);
        assert_eq!(next(&mut mesh_2).await, MeshEvent::SignalingLost);
        assert!(matches!(mesh_2.handle().signaling(), SignalingStatus::Lost(_)));
        assert!(in_time(mesh_2.handle().seal_lobby()).await.is_err());
        close_all(vec![mesh, mesh_2]).await;
    });
}

#[test]
fn after_a_seal_the_loss_of_the_server_is_silent() {
    promise(async {
        for (generation, us) in [(Generation::Godot3, 1), (Generation::Godot4, 1), (Generation::Godot4, 77)] {
            let server = Server::new().await;
            let (mut client, mut mesh) = server.join(generation, us, &[]).await;
            if us == 1 {
                let handle = mesh.handle();
                let sealing = async {
                    assert_eq!(client.takes(generation).await, Message::Seal);
                    client.tells(generation, &Message::Seal).await;
                };
                let (sealed, ()) = both(handle.seal_lobby(), sealing).await;
                assert_eq!(sealed, Ok(()));
            } else {
                client.tells(generation, &Message::Seal).await;
            }
            assert_eq!(next(&mut mesh).await, MeshEvent::LobbySealed);
            client.closes(1000, "Seal complete").await;
            client.is_closed().await;
            in_time(mesh.handle().close()).await;
            ends(&mut mesh).await;
        }
    });
}

#[test]
fn a_client_comes_back_to_a_server_that_gives_it_its_id_again() {
    promise(async {
        let generation = Generation::Godot4;
        let server = Server::new().await;
        let serving = server.lets_in(generation, 77, &[1, 5], Some("15"));
        let joining = mesh(server.client(generation).lobby("LOBBY"));
        let (client, mut mesh) = both(serving, joining).await;
        let session = client.1.clone();
        drop(client);
        assert_eq!(next(&mut mesh).await, MeshEvent::SignalingLost);
        assert!(matches!(mesh.handle().signaling(), SignalingStatus::Restoring(_)));

        // It fails twice more: once before it is let in, and once with a server that starts.
        drop(server.accept().await);
        server.accept().await.closes(1013, "later").await;
        let mut client = in_time(server.lets_in(generation, 77, &[1, 6], Some("15"))).await;
        assert_eq!(next(&mut mesh).await, MeshEvent::SignalingRestored);
        assert_eq!(mesh.handle().signaling(), SignalingStatus::Joined);
        assert_eq!(client.1, format!("{session}&id=77"), "it says who it was");
        // To the one who came meanwhile it offers; the one who was there it knows.
        let offered = client.takes(generation).await;
        assert!(matches!(offered, Message::Relay { peer: 6, kind: RelayKind::Offer, .. }), "{offered:?}");
        in_time(mesh.handle().close()).await;
    });
}

#[test]
fn a_client_that_is_a_stranger_when_it_comes_back_goes_again() {
    promise(async {
        let generation = Generation::Godot3;
        let server = Server::new().await;
        let serving = server.lets_in(generation, 77, &[], Some("15"));
        let joining = mesh(server.client(generation));
        let (client, mut mesh) = both(serving, joining).await;
        drop(client);
        assert_eq!(next(&mut mesh).await, MeshEvent::SignalingLost);
        let mut client = in_time(server.lets_in(generation, 88, &[], Some("15"))).await;
        client.is_closed().await;
        assert_eq!(next(&mut mesh).await, MeshEvent::SignalingLost, "for good");
        let lost = SignalingStatus::Lost(SignalingError::ClosedByServer(CloseReason::NotResumed));
        assert_eq!(mesh.handle().signaling(), lost);
        in_time(mesh.handle().close()).await;
        ends(&mut mesh).await;
    });
}

#[test]
fn a_server_that_answers_nothing_or_something_else_is_an_error_in_time() {
    promise(async {
        let limit = Duration::from_millis(300);
        let server = Server::new().await;
        // It takes the connection, and is silent: before the handshake, and after it.
        let silent = server.client(Generation::Godot4).connect_limit(limit).await;
        assert_eq!(silent.unwrap_err(), SignalingError::TimedOut { limit });
        drop(server.listener.accept().await.unwrap());
        let serving = server.accept();
        let joining = server.client(Generation::Godot4).connect_limit(limit);
        let (_client, silent) = both(serving, joining).await;
        assert_eq!(silent.unwrap_err(), SignalingError::TimedOut { limit });

        let serving = async {
            let (mut tcp, _) = server.listener.accept().await.unwrap();
            let _ = tcp.read(&mut [0; 4096]).await;
            tcp.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let ((), web) = both(serving, server.client(Generation::Godot4)).await;
        let refused = "the server answers with HTTP status 404 Not Found".to_owned();
        assert_eq!(web.unwrap_err(), SignalingError::Refused(refused));

        let url = server.url.clone();
        drop(server);
        let nobody = GodotSignaling::connect(url).await;
        assert!(matches!(nobody, Err(SignalingError::Transport(_))));
        let url = GodotSignaling::connect("http://127.0.0.1").await;
        assert!(matches!(url, Err(SignalingError::InvalidUrl { .. })));
        let name = Server::new().await;
        let serving = name.accept();
        let joining = name.client(Generation::Godot3).lobby("two\nlines");
        let (_client, refused) = both(serving, joining).await;
        assert!(matches!(refused, Err(SignalingError::InvalidOption(_))));
    });
}

#[test]
fn a_bad_id_from_the_server_is_an_error() {
    promise(async {
        for bad in [0, 1 << 31] {
            let server = Server::new().await;
            let serving = server.lets_in(Generation::Godot3, bad, &[], None);
            let (_client, joined) = both(serving, server.client(Generation::Godot3)).await;
            assert!(matches!(joined, Err(SignalingError::Transport(why)) if why.contains("id")));
        }
    });
}

#[test]
fn headers_are_sent() {
    promise(async {
        let server = Server::new().await;
        let serving = async {
            let (tcp, _) = server.listener.accept().await.unwrap();
            let mut token = None;
            let frames = tokio_tungstenite::accept_hdr_async(tcp, |request: &Request, response: Response| {
                token = request.headers().get("authorization").cloned();
                Ok(response)
            });
            let _frames = frames.await.unwrap();
            token
        };
        let limit = Duration::from_millis(200);
        let joining =
            server.client(Generation::Godot4).header("Authorization", "Bearer x").connect_limit(limit);
        let (token, _) = both(serving, joining).await;
        assert_eq!(token.unwrap(), "Bearer x");
    });
}

#[test]
fn a_server_over_tls_must_be_trusted() {
    promise(async {
        let key =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let private =
            tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der());
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], private.unwrap())
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://127.0.0.1:{}", listener.local_addr().unwrap().port());

        let serving = async {
            let (tcp, _) = listener.accept().await.unwrap();
            assert!(tls.accept(tcp).await.is_err());
        };
        let ((), untrusted) = both(serving, GodotSignaling::connect(&url)).await;
        assert!(matches!(untrusted, Err(SignalingError::Transport(why)) if why.contains("certificate")));

        let serving = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut frames = tokio_tungstenite::accept_async(tls.accept(tcp).await.unwrap()).await.unwrap();
            frames.next().await.unwrap().unwrap();
            for frame in [r#"{"type":1,"id":1,"data":"true"}"#, r#"{"type":0,"id":0,"data":"abc"}"#] {
                frames.send(Frame::Text(frame.into())).await.unwrap();
            }
            frames
        };
        let joining = GodotSignaling::connect(&url).root_certificate(key.cert.pem());
        let (_frames, trusted) = both(serving, joining).await;
        assert_eq!(trusted.unwrap().lobby_name(), "abc");
        let no_pem = GodotSignaling::connect(&url).root_certificate("nonsense").await;
        assert!(matches!(no_pem, Err(SignalingError::InvalidOption(_) | SignalingError::Transport(_))));
    });
}

/// Both, within the limit.
async fn both<A, B>(one: impl Future<Output = A>, other: impl IntoFuture<Output = B>) -> (A, B) {
    in_time(futures::future::join(one, other.into_future())).await
}

/// A mesh that joins so.
async fn mesh(how: GodotConnect) -> Mesh {
    builder().join(how.await.unwrap()).await.unwrap()
}

/// A server that does what it is told.
struct Server {
    listener: TcpListener,
    url: String,
}

/// A client's connection, at the server's end, and the query of its URL.
struct Client(WebSocketStream<TcpStream>, String);

impl Server {
    async fn new() -> Server {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        Server { listener, url }
    }

    fn client(&self, generation: Generation) -> GodotConnect {
        GodotSignaling::connect(&self.url).generation(generation)
    }

    async fn accept(&self) -> Client {
        self.accept_with(None).await
    }

    /// `hold` says in the answer that an id is given back.
    async fn accept_with(&self, hold: Option<&'static str>) -> Client {
        let (tcp, _) = in_time(self.listener.accept()).await.unwrap();
        let mut query = None;
        let frames = tokio_tungstenite::accept_hdr_async(tcp, |request: &Request, mut response: Response| {
            query = request.uri().query().map(str::to_owned);
            if let Some(hold) = hold {
                response.headers_mut().insert("x-webrtc-mesh-session", hold.parse().unwrap());
            }
            Ok(response)
        });
        let frames = in_time(frames).await.unwrap();
        Client(frames, query.unwrap())
    }

    /// Lets a client in, under this id, into a lobby with these.
    async fn lets_in(
        &self,
        generation: Generation,
        us: u32,
        there: &[u32],
        hold: Option<&'static str>,
    ) -> Client {
        let mut client = self.accept_with(hold).await;
        assert!(matches!(client.takes(generation).await, Message::Join { mesh: true, .. }));
        client.tells(generation, &Message::Id { id: us, mesh: true }).await;
        for peer in there {
            client.tells(generation, &Message::PeerConnect(*peer)).await;
        }
        client.tells(generation, &Message::Join { lobby: "LOBBY".to_owned(), mesh: true }).await;
        client
    }

    /// A mesh that has joined under this id, and its connection.
    async fn join(&self, generation: Generation, us: u32, there: &[u32]) -> (Client, Mesh) {
        let serving = self.lets_in(generation, us, there, None);
        both(serving, mesh(self.client(generation))).await
    }
}

impl Client {
    async fn hears(&mut self) -> String {
        loop {
            match in_time(self.0.next()).await.expect("a frame").expect("a frame") {
                Frame::Text(text) => return text.as_str().to_owned(),
                Frame::Ping(_) | Frame::Pong(_) => {}
                other => panic!("a text was expected, not {other:?}"),
            }
        }
    }

    async fn takes(&mut self, generation: Generation) -> Message {
        Message::decode(generation, &self.hears().await).unwrap()
    }

    async fn says(&mut self, frame: &str) {
        in_time(self.0.send(Frame::Text(frame.into()))).await.unwrap();
    }

    async fn tells(&mut self, generation: Generation, message: &Message) {
        self.says(&message.encode(generation)).await;
    }

    async fn closes(&mut self, code: u16, text: &'static str) {
        in_time(self.0.close(Some(CloseFrame { code: code.into(), reason: text.into() }))).await.unwrap();
    }

    /// The close frame of the other side, or its answer to ours.
    async fn is_closed(&mut self) -> (u16, String) {
        loop {
            match in_time(self.0.next()).await {
                Some(Ok(Frame::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.as_str().to_owned());
                }
                Some(Ok(_)) => {}
                other => panic!("a close frame was expected, not {other:?}"),
            }
        }
    }
}
