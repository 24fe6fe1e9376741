//! As much of WebDriver BiDi (W3C) as is needed: commands to a browser and their results, over a WebSocket.

use std::collections::HashMap;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{LIMIT, in_time};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Command {
    method: &'static str,
    parameters: Value,
    result: oneshot::Sender<Result<Value, String>>,
}

/// The way to a browser; its task ends with the last clone, or with the browser.
#[derive(Debug, Clone)]
pub(crate) struct Bidi(mpsc::Sender<Command>);

impl Bidi {
    /// With a session of its own.
    pub(crate) async fn connect(url: &str, capabilities: Value) -> Bidi {
        let (socket, _) = in_time(tokio_tungstenite::connect_async(url)).await.unwrap();
        // Whoever commands waits for the result.
        let (commands, queue) = mpsc::channel(1);
        tokio::spawn(carry(socket, queue));
        let bidi = Bidi(commands);
        let session = bidi.command("session.new", json!({ "capabilities": capabilities })).await;
        session.unwrap_or_else(|error| panic!("no session: {error}"));
        bidi
    }

    /// The result of a command, or what the browser says is wrong; within the limit.
    pub(crate) async fn command(&self, method: &'static str, parameters: Value) -> Result<Value, String> {
        let what = format!("{method} {parameters}");
        let carried = async {
            let (result, done) = oneshot::channel();
            self.0.send(Command { method, parameters, result }).await.ok()?;
            done.await.ok()
        };
        match tokio::time::timeout(LIMIT, carried).await {
            Ok(Some(result)) => result.map_err(|error| format!("{what}: {error}")),
            Ok(None) => Err(format!("{what}: the browser is gone")),
            Err(_) => Err(format!("{what}: no answer in time")),
        }
    }
}

async fn carry(mut socket: Socket, mut commands: mpsc::Receiver<Command>) {
    let (mut last, mut waiting) = (0, HashMap::new());
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some(Command { method, parameters, result }) = command else { return };
                last += 1;
                waiting.insert(last, result);
                let text = json!({ "id": last, "method": method, "params": parameters }).to_string();
                if socket.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Ok(answer) = serde_json::from_slice::<Value>(&message.into_data()) else { continue };
                let Some(result) = answer["id"].as_u64().and_then(|id| waiting.remove(&id)) else { continue };
                let _ = result.send(match answer["type"].as_str() {
                    Some("success") => Ok(answer["result"].clone()),
                    _ => Err(format!("{}: {}", answer["error"], answer["message"])),
                });
            }
        }
    }
}
