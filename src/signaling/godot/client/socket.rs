//! The connection to the server: [`Socket`], a WebSocket that notices when the other side is silent.

use std::fmt;
use std::time::Duration;

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message as Frame};
use tokio_tungstenite::tungstenite::{Bytes, Error};

use super::CloseReason;
use crate::error::SignalingError;

/// A WebSocket to the server.
///
/// Dropping it says goodbye, if it is still up and takes that at once.
pub(super) struct Socket {
    frames: WebSocketStream<Box<dyn Stream>>,
    /// The server gives us our id again if we come back in time.
    pub(super) can_return: bool,
    heard: Instant,
    ping: Instant,
    ended: bool,
}

/// A byte stream, plain or encrypted.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// Why nothing comes any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The server has closed the connection.
    Closed(CloseReason),
    /// The connection is broken.
    Broken(String),
    /// Nothing came for so long.
    Silent(Duration),
}

/// Godot's Node.js server pings as often.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Two pings and some more.
const SILENCE_LIMIT: Duration = Duration::from_secs(25);

/// A timer that comes so late says more of this machine than of the server: it was suspended, or overloaded.
const LATE: Duration = Duration::from_secs(1);

/// The largest message that is taken. Godot's Node.js server hands on what a peer sends up to 100 MiB, and one that is
/// not taken ends the connection for all: so this is far above what is of use, which is 64 KiB; the rest is ignored
/// when it is looked at.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// What may wait to be sent: descriptions of many peers at once. Over it, a signal is refused.
const MAX_UNSENT_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
        .max_write_buffer_size(MAX_UNSENT_BYTES)
}

impl Socket {
    pub(super) fn new(frames: WebSocketStream<Box<dyn Stream>>, can_return: bool) -> Socket {
        let now = Instant::now();
        Socket { frames, can_return, heard: now, ping: now + PING_EVERY, ended: false }
    }

    /// The next message, as text, of whichever kind its frame is. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Result<String, End> {
        loop {
            tokio::select! {
                biased;
                frame = self.frames.next() => {
                    self.heard = Instant::now();
                    match frame {
                        Some(Ok(Frame::Text(text))) => return Ok(text.as_str().to_owned()),
                        Some(Ok(Frame::Binary(bytes))) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                        Some(Ok(Frame::Close(frame))) => {
                            // Our answer to it.
                            let _ = self.frames.flush().now_or_never();
                            return Err(self.end(End::closed(frame.as_ref())));
                        }
                        Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => {}
                        Some(Err(Error::ConnectionClosed)) | None => return Err(self.end(End::closed(None))),
                        Some(Err(error)) => return Err(self.end(End::Broken(error.to_string()))),
                    }
                }
                () = sleep_until(self.heard + SILENCE_LIMIT) => {
                    // Are we late, then it was us who did not run, and what the server has sent may lie unread.
                    if self.heard.elapsed() < SILENCE_LIMIT + LATE {
                        return Err(self.end(End::Silent(SILENCE_LIMIT)));
                    }
                    self.heard = Instant::now() - SILENCE_LIMIT / 2;
                    self.ping();
                }
                () = sleep_until(self.ping) => self.ping(),
            }
        }
    }

    fn ping(&mut self) {
        self.ping = Instant::now() + PING_EVERY;
        // What is wrong with it is heard next.
        let _ = self.frames.send(Frame::Ping(Bytes::new())).now_or_never();
    }

    /// Sends a message. If the future is dropped, it is sent all the same, at the latest with the next ping.
    pub(super) async fn say(&mut self, text: String) -> Result<(), SignalingError> {
        let sent = self.frames.send(Frame::Text(text.into())).await;
        sent.map_err(|error| SignalingError::Transport(error.to_string()))
    }

    /// Sends a message with what is sent next, if there is room for it.
    pub(super) fn say_soon(&mut self, text: String) {
        if let Err(error) = self.frames.start_send_unpin(Frame::Text(text.into())) {
            tracing::debug!(%error, "a signal is not sent");
        }
        let _ = self.frames.flush().now_or_never();
    }

    /// Says goodbye, and waits for the server's. Without a limit: whoever waits has one.
    pub(super) async fn close(&mut self) {
        self.ended = true;
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if self.frames.close(Some(goodbye)).await.is_ok() {
            while let Some(Ok(_)) = self.frames.next().await {}
        }
    }

    fn end(&mut self, end: End) -> End {
        self.ended = true;
        end
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // To one that is silent nothing is said: it could be heard later, and end what has been restored by then.
        if !self.ended {
            let _ = self.close().now_or_never();
        }
    }
}

impl End {
    fn closed(frame: Option<&CloseFrame>) -> End {
        let frame = frame.map(|frame| (u16::from(frame.code), frame.reason.as_str()));
        End::Closed(CloseReason::from_close_frame(frame))
    }

    /// Whether it may be otherwise in a while: the server restarts, or something between it and us did.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            End::Broken(_) | End::Silent(_) => true,
            End::Closed(CloseReason::ShuttingDown | CloseReason::Unresponsive) => true,
            // No close frame at all, going away, abnormal, internal error, service restart, try again, bad gateway
            // (RFC 6455 section 7.4 and its registry).
            End::Closed(CloseReason::Other { code, .. }) => {
                matches!(code, 1001 | 1005 | 1006 | 1011..=1014)
            }
            End::Closed(_) => false,
        }
    }
}

impl From<End> for SignalingError {
    fn from(end: End) -> SignalingError {
        match end {
            End::Closed(reason) => SignalingError::ClosedByServer(reason),
            other => SignalingError::Transport(other.to_string()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed(reason) => write!(f, "closed by the server: {reason}"),
            End::Broken(why) => write!(f, "the connection to the server broke: {why}"),
            End::Silent(limit) => write!(f, "nothing came from the server for {} s", limit.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    type Server = WebSocketStream<DuplexStream>;

    async fn pair() -> (Socket, Server) {
        let (here, there) = duplex(64 * 1024);
        let here: Box<dyn Stream> = Box::new(here);
        let client = WebSocketStream::from_raw_socket(here, Role::Client, Some(config())).await;
        let server = WebSocketStream::from_raw_socket(there, Role::Server, Some(config())).await;
        (Socket::new(client, true), server)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_noticed() {
        let (mut socket, server) = pair().await;
        let since = Instant::now();
        assert_eq!(socket.hear().await, Err(End::Silent(SILENCE_LIMIT)));
        assert_eq!(since.elapsed(), SILENCE_LIMIT);
        drop(server);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_pings_is_not_silent() {
        let (mut socket, mut server) = pair().await;
        let answering = async move { while let Some(Ok(_)) = server.next().await {} };
        let hour = Duration::from_secs(60 * 60);
        tokio::select! {
            _ = answering => panic!("the client has closed"),
            heard = socket.hear() => panic!("{heard:?} is heard"),
            () = tokio::time::sleep(hour) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_the_server_that_was_silent_while_we_slept() {
        let (mut socket, mut server) = pair().await;
        tokio::time::advance(Duration::from_secs(60 * 60)).await;
        let answering = async move { while let Some(Ok(_)) = server.next().await {} };
        tokio::select! {
            _ = answering => panic!("the client has closed"),
            heard = socket.hear() => panic!("{heard:?} is heard"),
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }

        let (mut socket, server) = pair().await;
        tokio::time::advance(Duration::from_secs(60 * 60)).await;
        let woken = Instant::now();
        assert_eq!(socket.hear().await, Err(End::Silent(SILENCE_LIMIT)));
        assert_eq!(woken.elapsed(), SILENCE_LIMIT / 2);
        drop(server);
    }

    #[tokio::test]
    async fn dropping_it_says_goodbye_unless_it_is_lost() {
        let (socket, mut server) = pair().await;
        drop(socket);
        let frame = server.next().await.unwrap().unwrap();
        assert!(matches!(frame, Frame::Close(Some(CloseFrame { code: CloseCode::Normal, .. }))));

        let (here, mut there) = duplex(1024);
        let here: Box<dyn Stream> = Box::new(here);
        let mut lost = Socket::new(WebSocketStream::from_raw_socket(here, Role::Client, None).await, true);
        lost.end(End::Silent(SILENCE_LIMIT));
        drop(lost);
        assert_eq!(there.read(&mut [0; 16]).await.unwrap(), 0, "nothing was said");
    }

    #[tokio::test]
    async fn text_comes_in_frames_of_either_kind() {
        let (mut socket, mut server) = pair().await;
        server.send(Frame::Text("I: 1\n".into())).await.unwrap();
        server.send(Frame::Binary("N: 2\n".into())).await.unwrap();
        server.send(Frame::Binary(vec![0xff].into())).await.unwrap();
        assert_eq!(socket.hear().await.as_deref(), Ok("I: 1\n"));
        assert_eq!(socket.hear().await.as_deref(), Ok("N: 2\n"));
        assert_eq!(socket.hear().await.as_deref(), Ok("\u{fffd}"));
    }

    #[tokio::test]
    async fn how_the_server_closes_is_told() {
        let (mut socket, mut server) = pair().await;
        let reason = CloseFrame { code: CloseCode::from(4000), reason: "Lobby is sealed".into() };
        server.close(Some(reason)).await.unwrap();
        assert_eq!(socket.hear().await, Err(End::Closed(CloseReason::LobbySealed)));
        let (mut socket, server) = pair().await;
        drop(server);
        assert!(matches!(socket.hear().await, Err(end) if end.is_passing()));
    }
}
