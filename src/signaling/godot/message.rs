//! What client and server say to each other: [`Message`], the same in both generations.

use super::{Generation, json, text};
use crate::connection::{IceCandidate, SdpKind, SessionDescription, Signal};

/// A message, in either direction.
///
/// Ids are as they stand on the wire: Godot's own servers give out 0 and 2³¹ too, if rarely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From a client: it joins this lobby, or creates one if the name is empty. From a server: it is in.
    Join {
        /// The lobby's name.
        lobby: String,
        /// Whether the lobby, if it is created, is a mesh, or has clients that connect to the host alone. Godot 3
        /// knows meshes only.
        mesh: bool,
    },
    /// From a server: the client's id, 1 if it is the host.
    Id {
        /// The id.
        id: u32,
        /// Whether the lobby is a mesh.
        mesh: bool,
    },
    /// From a server: this peer is in the lobby.
    PeerConnect(u32),
    /// From a server: this peer has left the lobby.
    PeerDisconnect(u32),
    /// A description or a candidate, which the server hands on as it is.
    Relay {
        /// From a client: whom it is for. From a server: whom it is from.
        peer: u32,
        /// What it is.
        kind: RelayKind,
        /// The description, or the three lines of a candidate with an empty one before them.
        payload: String,
    },
    /// From the host: nobody else joins. From the server: so it is.
    Seal,
}

/// What is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RelayKind {
    /// An SDP offer.
    Offer,
    /// An SDP answer.
    Answer,
    /// An ICE candidate.
    Candidate,
}

/// Why something is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedMessage {
    /// It is not of the form of any message.
    #[error("not of the form of a message")]
    Format,
    /// Its id is no number from 0 to 2³².
    #[error("no peer has such an id")]
    Id,
    /// It is a message of a kind that this release does not know.
    #[error("a message of an unknown kind")]
    UnknownKind,
    /// A candidate is not an empty line, its media section, that one's number, and itself.
    #[error("a candidate that is not its media section, that one's number, and itself")]
    Candidate,
    /// A candidate that the wire cannot carry, as it is empty or names no media section, or as one of them has a line
    /// break.
    #[error("a candidate that the protocol cannot carry")]
    Unspeakable,
}

impl Message {
    /// The message as it is sent, in a text frame.
    pub fn encode(&self, generation: Generation) -> String {
        match generation {
            Generation::Godot3 => text::encode(self),
            Generation::Godot4 => json::encode(self),
        }
    }

    /// What a frame says.
    ///
    /// As liberal as Godot's own clients and servers: of JSON, unknown members are ignored, a missing `data` is empty,
    /// and numbers may have a fraction, which is cut off; of a line, blanks around what it says are ignored.
    ///
    /// # Errors
    ///
    /// [`MalformedMessage`], whatever the frame holds.
    pub fn decode(generation: Generation, frame: &str) -> Result<Message, MalformedMessage> {
        match generation {
            Generation::Godot3 => text::decode(frame),
            Generation::Godot4 => json::decode(frame),
        }
    }

    /// The message that carries a signal to a peer.
    ///
    /// # Errors
    ///
    /// [`MalformedMessage::Unspeakable`] for a candidate that no receiver could read. One that is empty (a browser's
    /// end of candidates) is among them: the protocol knows none.
    pub fn relay(peer: u32, signal: &Signal) -> Result<Message, MalformedMessage> {
        let (kind, payload) = match signal {
            Signal::Description(SessionDescription { kind: SdpKind::Offer, sdp }) => {
                (RelayKind::Offer, sdp.clone())
            }
            Signal::Description(SessionDescription { kind: SdpKind::Answer, sdp }) => {
                (RelayKind::Answer, sdp.clone())
            }
            Signal::Candidate(IceCandidate { candidate, sdp_mid, sdp_mline_index }) => {
                let speakable = |text: &str| !text.is_empty() && !text.contains('\n');
                if !speakable(candidate) || !speakable(sdp_mid) {
                    return Err(MalformedMessage::Unspeakable);
                }
                (RelayKind::Candidate, format!("\n{sdp_mid}\n{sdp_mline_index}\n{candidate}"))
            }
        };
        Ok(Message::Relay { peer, kind, payload })
    }
}

impl RelayKind {
    /// The signal that was handed on.
    ///
    /// # Errors
    ///
    /// [`MalformedMessage::Candidate`]; a description is only looked at by the connection that it is for.
    pub fn signal(self, payload: String) -> Result<Signal, MalformedMessage> {
        let kind = match self {
            RelayKind::Offer => SdpKind::Offer,
            RelayKind::Answer => SdpKind::Answer,
            RelayKind::Candidate => return candidate(&payload).map(Signal::Candidate),
        };
        Ok(Signal::Description(SessionDescription { kind, sdp: payload }))
    }
}

/// The three lines of a candidate. Empty lines do not count, and a line may end with CR LF.
fn candidate(payload: &str) -> Result<IceCandidate, MalformedMessage> {
    let mut lines = payload.lines().filter(|line| !line.is_empty());
    let (Some(mid), Some(index), Some(candidate), None) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(MalformedMessage::Candidate);
    };
    let sdp_mline_index = index.trim().parse().map_err(|_| MalformedMessage::Candidate)?;
    Ok(IceCandidate { candidate: candidate.to_owned(), sdp_mid: mid.to_owned(), sdp_mline_index })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(pattern: &'static str) -> impl Strategy<Value = String> {
        pattern.prop_map(|text: String| text)
    }

    fn any_message(mesh_only: bool) -> impl Strategy<Value = Message> {
        let kind = prop_oneof![Just(RelayKind::Offer), Just(RelayKind::Answer), Just(RelayKind::Candidate)];
        let mesh = any::<bool>().prop_map(move |mesh| mesh || mesh_only);
        let name = text("[A-Za-z0-9_. -]{0,40}").prop_map(|name| name.trim().to_owned());
        prop_oneof![
            (name, mesh.clone()).prop_map(|(lobby, mesh)| Message::Join { lobby, mesh }),
            (any::<u32>(), mesh).prop_map(|(id, mesh)| Message::Id { id, mesh }),
            any::<u32>().prop_map(Message::PeerConnect),
            any::<u32>().prop_map(Message::PeerDisconnect),
            (any::<u32>(), kind, any::<String>()).prop_map(|(peer, kind, payload)| Message::Relay {
                peer,
                kind,
                payload
            }),
            Just(Message::Seal),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_in_text_is_understood(message in any_message(true)) {
            let said = message.encode(Generation::Godot3);
            prop_assert_eq!(Message::decode(Generation::Godot3, &said), Ok(message));
        }

        #[test]
        fn what_is_said_in_json_is_understood(message in any_message(false)) {
            let said = message.encode(Generation::Godot4);
            prop_assert_eq!(Message::decode(Generation::Godot4, &said), Ok(message));
        }

        #[test]
        fn no_frame_is_too_odd(frame in any::<String>(), json in "[{}\":,0-9a-z\\\\ .-]{0,60}", line in "[A-Z]: [0-9 -]{0,12}\n?.{0,20}") {
            for frame in [frame, json, line] {
                for generation in [Generation::Godot3, Generation::Godot4] {
                    if let Ok(message) = Message::decode(generation, &frame) {
                        prop_assert_eq!(Message::decode(generation, &message.encode(generation)), Ok(message));
                    }
                }
            }
        }

        #[test]
        fn a_signal_goes_round(mid in "[a-z0-9]{1,8}", index in any::<u16>(), candidate in "candidate:[a-z0-9 .]{1,60}", sdp in any::<String>()) {
            let signals = [
                Signal::Candidate(IceCandidate { candidate, sdp_mid: mid, sdp_mline_index: index }),
                Signal::Description(SessionDescription { kind: SdpKind::Offer, sdp: sdp.clone() }),
                Signal::Description(SessionDescription { kind: SdpKind::Answer, sdp }),
            ];
            for signal in signals {
                let Ok(Message::Relay { peer: 7, kind, payload }) = Message::relay(7, &signal) else {
                    panic!("a signal is a relay");
                };
                prop_assert_eq!(kind.signal(payload), Ok(signal));
            }
        }
    }

    #[test]
    fn a_candidate_that_no_receiver_could_read_is_not_sent() {
        let signal = |candidate: &str, mid: &str| {
            Signal::Candidate(IceCandidate {
                candidate: candidate.to_owned(),
                sdp_mid: mid.to_owned(),
                sdp_mline_index: 0,
            })
        };
        for (candidate, mid) in
            [("", "0"), ("candidate:1", ""), ("candidate:1\n", "0"), ("candidate:1", "a\nb")]
        {
            assert_eq!(Message::relay(2, &signal(candidate, mid)), Err(MalformedMessage::Unspeakable));
        }
    }

    #[test]
    fn candidates_are_three_lines_whatever_surrounds_them() {
        for payload in ["\n0\n0\ncandidate:1 1", "0\n0\ncandidate:1 1\n", "\r\n0\r\n0\r\ncandidate:1 1\r\n"] {
            let Ok(Signal::Candidate(candidate)) = RelayKind::Candidate.signal(payload.to_owned()) else {
                panic!("{payload:?} is a candidate");
            };
            assert_eq!(candidate.candidate, "candidate:1 1");
            assert_eq!((candidate.sdp_mid.as_str(), candidate.sdp_mline_index), ("0", 0));
        }
        for payload in
            ["", "\n0\n0", "\n0\nx\ncandidate:1", "\n0\n-1\ncandidate:1", "0\n0\nc\nmore", "\n0\n70000\nc"]
        {
            assert_eq!(RelayKind::Candidate.signal(payload.to_owned()), Err(MalformedMessage::Candidate));
        }
    }
}
