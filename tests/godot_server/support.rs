//! Clients that say just what they are told to, and what they hear.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails a test"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::{self, Message};
use webrtc_mesh::signaling::godot::{CloseReason, Generation};
use webrtc_mesh::signaling::server::{SignalingServer, SignalingServerBuilder};

/// A server that listens.
pub(crate) struct Served {
    pub(crate) server: SignalingServer,
    pub(crate) address: SocketAddr,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
}

pub(crate) async fn serve(builder: SignalingServerBuilder) -> Served {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), builder).await
}

pub(crate) async fn serve_at(address: SocketAddr, builder: SignalingServerBuilder) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = builder.build();
    let serving = server.clone();
    let serving = tokio::spawn(async move { serving.serve(listener).await });
    Served { server, address, serving }
}

/// A server with its defaults.
pub(crate) async fn usual() -> Served {
    serve(SignalingServer::builder()).await
}

impl Served {
    pub(crate) async fn client(&self) -> Client {
        self.client_of("/").await
    }

    pub(crate) async fn client_of(&self, path: &str) -> Client {
        Client::connect(self.address, path).await.unwrap()
    }

    /// One that has joined, with its id and what else it heard before the lobby's name.
    pub(crate) async fn member(&self, generation: Generation, lobby: &str) -> Member {
        self.client().await.join(generation, lobby).await
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        get(self.address, path).await
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("webrtc_mesh_signaling_{name} ")));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric is at least that.
    pub(crate) async fn metric_reaches(&self, name: &str, value: u64) {
        within(async {
            while self.metric(name).await < value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// Nothing here takes so long.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

/// A WebSocket.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) socket: WebSocketStream<S>,
    pub(crate) headers: HeaderMap,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Result<Client, tungstenite::Error> {
        let stream = TcpStream::connect(address).await.unwrap();
        Client::over(stream, &format!("ws://{address}{path}")).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn over(stream: S, url: &str) -> Result<Client<S>, tungstenite::Error> {
        let (socket, response) = within(tokio_tungstenite::client_async(url, stream)).await?;
        Ok(Client { socket, headers: response.headers().clone() })
    }

    pub(crate) async fn say(&mut self, text: &str) {
        within(self.socket.send(Message::text(text))).await.unwrap();
    }

    pub(crate) async fn say_binary(&mut self, bytes: &[u8]) {
        within(self.socket.send(Message::binary(bytes.to_vec()))).await.unwrap();
    }

    /// The next text.
    pub(crate) async fn hear(&mut self) -> String {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no text, but {other:?}"),
            }
        }
    }

    /// The next texts are these.
    pub(crate) async fn hears(&mut self, texts: &[&str]) {
        for text in texts {
            assert_eq!(self.hear().await, *text);
        }
    }

    /// The close frame, after which nothing comes. Texts before it are skipped.
    pub(crate) async fn closed(&mut self) -> CloseReason {
        loop {
            match within(self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                    return CloseReason::from_close_frame(
                        frame.as_ref().map(|(code, text)| (*code, text.as_str())),
                    );
                }
                Some(Ok(_)) => {}
                other => panic!("no close frame, but {other:?}"),
            }
        }
    }

    pub(crate) async fn join(mut self, generation: Generation, lobby: &str) -> Member<S> {
        self.say(&join(generation, lobby)).await;
        self.joined(generation).await
    }

    /// What a joiner hears up to the lobby's name.
    pub(crate) async fn joined(mut self, generation: Generation) -> Member<S> {
        use webrtc_mesh::signaling::godot::Message;
        let mut peers = Vec::new();
        let mut id = 0;
        let lobby = loop {
            match Message::decode(generation, &self.hear().await).unwrap() {
                Message::Id { id: given, .. } => id = given,
                Message::PeerConnect(peer) => peers.push(peer),
                Message::Join { lobby, .. } => break lobby,
                other => panic!("{other:?} while joining"),
            }
        };
        Member { client: self, generation, id, peers, lobby }
    }

    /// The connection is at its end, without a goodbye.
    pub(crate) fn vanish(self) {}
}

/// One that has joined.
pub(crate) struct Member<S = TcpStream> {
    pub(crate) client: Client<S>,
    pub(crate) generation: Generation,
    pub(crate) id: u32,
    pub(crate) peers: Vec<u32>,
    pub(crate) lobby: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Member<S> {
    /// Says something to a peer.
    pub(crate) async fn tell(&mut self, peer: u32, what: &str) {
        self.client.say(&offer(self.generation, peer, what)).await;
    }

    /// What a peer says is the next thing that is heard: nothing else came before.
    pub(crate) async fn hears_from(&mut self, peer: u32, what: &str) {
        assert_eq!(self.client.hear().await, offer(self.generation, peer, what));
    }

    /// The next thing that is heard.
    pub(crate) async fn hears(&mut self, message: webrtc_mesh::signaling::godot::Message) {
        assert_eq!(self.client.hear().await, message.encode(self.generation));
    }
}

pub(crate) fn join(generation: Generation, lobby: &str) -> String {
    match generation {
        Generation::Godot3 => format!("J: {lobby}\n"),
        Generation::Godot4 => format!(r#"{{"type":0,"id":0,"data":"{lobby}"}}"#),
    }
}

/// As the server writes it.
pub(crate) fn offer(generation: Generation, peer: u32, what: &str) -> String {
    match generation {
        Generation::Godot3 => format!("O: {peer}\n{what}"),
        Generation::Godot4 => format!(r#"{{"data":"{what}","id":{peer},"type":4}}"#),
    }
}
