//! Why a signalling server closes a connection: [`CloseReason`].

use std::borrow::Cow;
use std::fmt;

use super::Generation;

/// Why a server closes a client's connection: the code and text of the WebSocket's close frame (RFC 6455 section
/// 5.5.1).
///
/// Godot's Node.js server says all of its reasons with the code 4000, and in its own words, which are looked for.
/// Its GDScript servers close without a code ([`Other`](CloseReason::Other), 1005).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client joined no lobby in time (1 s).
    NotJoined,
    /// There is no lobby of this name.
    LobbyDoesNotExist,
    /// The lobby is sealed: nobody else joins it.
    LobbySealed,
    /// The lobby has as many peers as it may have.
    LobbyFull,
    /// The lobby's members speak the protocol of this generation, and the client the other one. The two offer in
    /// opposite directions.
    OtherGeneration(Generation),
    /// The server has as many lobbies as it may have.
    TooManyLobbies,
    /// The server has as many clients as it may have.
    TooManyPeers,
    /// The server does not let this client in, and says why.
    Refused(String),
    /// The client wants the place back that it had, and cannot have it: it was away for too long, or somebody else has
    /// it.
    NotResumed,
    /// The host has left, and its lobby is no more.
    HostDisconnected,
    /// The lobby was sealed a while ago, and signalling has done its work.
    SealComplete,
    /// A client that is not the host wanted to seal the lobby.
    NotHost,
    /// The client wanted to join a second time.
    AlreadyInLobby,
    /// The client said something else before it joined.
    NeedLobby,
    /// What the client said is of no form that the server knows.
    InvalidFormat,
    /// The client said something to a peer that cannot be.
    InvalidDestination,
    /// The client said something of an unknown kind.
    InvalidCommand,
    /// The client sent something else than text.
    NotText,
    /// The client said something that is too long.
    TooLarge,
    /// The client does not take what is sent to it, or does not answer.
    Unresponsive,
    /// The same client has come back on another connection.
    Replaced,
    /// The server shuts down.
    ShuttingDown,
    /// The server is in an unexpected state.
    ServerError,
    /// Something else.
    Other {
        /// The code of the close frame; 1005 without one.
        code: u16,
        /// The text of the close frame.
        text: String,
    },
}

/// The code of Godot's server for all refusals.
const REFUSED: u16 = 4000;
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;
const TOO_LARGE: u16 = 1009;

/// The longest text of a close frame, in bytes (RFC 6455 section 5.5: 125, with the code).
const MAX_TEXT_BYTES: usize = 123;

/// What comes before the words of somebody else.
const REFUSED_TEXT: &str = "Refused: ";

/// Those that are told by their words alone.
static TEXTS: [(CloseReason, u16, &str); 22] = [
    (CloseReason::NotJoined, REFUSED, "Have not joined lobby yet"),
    (CloseReason::LobbyDoesNotExist, REFUSED, "Lobby does not exists"),
    (CloseReason::LobbySealed, REFUSED, "Lobby is sealed"),
    (CloseReason::LobbyFull, REFUSED, "Lobby is full"),
    (
        CloseReason::OtherGeneration(Generation::Godot3),
        REFUSED,
        "The lobby speaks the protocol of Godot 3, lines of text",
    ),
    (
        CloseReason::OtherGeneration(Generation::Godot4),
        REFUSED,
        "The lobby speaks the protocol of Godot 4, JSON",
    ),
    (CloseReason::TooManyLobbies, REFUSED, "Too many lobbies open, disconnecting"),
    (CloseReason::TooManyPeers, REFUSED, "Too many peers connected"),
    (CloseReason::NotResumed, REFUSED, "Its place is gone"),
    (CloseReason::HostDisconnected, REFUSED, "Room host has disconnected"),
    (CloseReason::SealComplete, NORMAL, "Seal complete"),
    (CloseReason::NotHost, REFUSED, "Only host can seal the lobby"),
    (CloseReason::AlreadyInLobby, REFUSED, "Already in a lobby"),
    (CloseReason::NeedLobby, REFUSED, "Invalid message when not in a lobby"),
    (CloseReason::InvalidFormat, REFUSED, "Invalid message format"),
    (CloseReason::InvalidDestination, REFUSED, "Invalid destination"),
    (CloseReason::InvalidCommand, REFUSED, "Invalid command"),
    (CloseReason::NotText, REFUSED, "Invalid transfer mode, must be text"),
    (CloseReason::Unresponsive, REFUSED, "Does not answer"),
    (CloseReason::Replaced, REFUSED, "Has come back on another connection"),
    (CloseReason::ShuttingDown, GOING_AWAY, "The server shuts down"),
    (CloseReason::ServerError, REFUSED, "Server error, lobby not found"),
];

impl CloseReason {
    /// The code of the close frame.
    pub fn code(&self) -> u16 {
        match self {
            CloseReason::Other { code, .. } => *code,
            CloseReason::TooLarge => TOO_LARGE,
            _ => self.known().map_or(REFUSED, |(_, code, _)| *code),
        }
    }

    /// The text of the close frame: Godot's own words where it has any. At the most 123 bytes.
    pub fn text(&self) -> Cow<'static, str> {
        let text = match self {
            CloseReason::Other { text, .. } => text.clone(),
            CloseReason::Refused(why) => format!("{REFUSED_TEXT}{why}"),
            CloseReason::TooLarge => return Cow::Borrowed("Message too large"),
            _ => return Cow::Borrowed(self.known().map_or("", |(_, _, text)| text)),
        };
        Cow::Owned(cut(text))
    }

    /// What a close frame says; `None` stands for the lack of one.
    pub fn from_close_frame(frame: Option<(u16, &str)>) -> CloseReason {
        let (code, text) = frame.unwrap_or((1005, ""));
        if let Some((reason, ..)) = TEXTS.iter().find(|(_, _, known)| *known == text) {
            return reason.clone();
        }
        match (code, text.strip_prefix(REFUSED_TEXT)) {
            (TOO_LARGE, _) => CloseReason::TooLarge,
            (REFUSED, Some(why)) => CloseReason::Refused(why.to_owned()),
            _ => CloseReason::Other { code, text: text.to_owned() },
        }
    }

    fn known(&self) -> Option<&'static (CloseReason, u16, &'static str)> {
        TEXTS.iter().find(|(reason, ..)| reason == self)
    }
}

/// Cut to what a close frame takes, between two characters.
fn cut(mut text: String) -> String {
    let fits = |end: &usize| *end <= MAX_TEXT_BYTES;
    let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
    let end = ends.take_while(fits).last().unwrap_or(0);
    text.truncate(end);
    text
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Other { code: 1005, text } if text.is_empty() => f.write_str("no reason given"),
            CloseReason::Other { code, text } => write!(f, "{text:?} (code {code})"),
            _ => f.write_str(&self.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_goes_round_in_a_close_frame() {
        let others = [
            CloseReason::TooLarge,
            CloseReason::Refused("not today".to_owned()),
            CloseReason::Other { code: 1011, text: "oops".to_owned() },
        ];
        for reason in TEXTS.iter().map(|(reason, ..)| reason.clone()).chain(others) {
            let (code, text) = (reason.code(), reason.text());
            assert!(text.len() <= MAX_TEXT_BYTES);
            assert_eq!(CloseReason::from_close_frame(Some((code, &text))), reason);
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = CloseReason::Refused("é".repeat(100));
        assert!(reason.text().len() >= MAX_TEXT_BYTES - 1 && reason.text().len() <= MAX_TEXT_BYTES);
        assert!(matches!(
            CloseReason::from_close_frame(Some((4000, &reason.text()))),
            CloseReason::Refused(_)
        ));
    }

    #[test]
    fn a_server_that_says_nothing_gives_no_reason() {
        assert_eq!(CloseReason::from_close_frame(None).to_string(), "no reason given");
        let odd = CloseReason::from_close_frame(Some((4000, "Something new")));
        assert_eq!(odd.to_string(), "\"Something new\" (code 4000)");
    }
}
