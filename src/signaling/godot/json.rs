//! The protocol of Godot 4's demo: a JSON object with `type`, `id` and `data`.

use serde_json::{Value, json};

use super::message::{MalformedMessage, Message, RelayKind};

const JOIN: u64 = 0;
const ID: u64 = 1;
const PEER_CONNECT: u64 = 2;
const PEER_DISCONNECT: u64 = 3;
const OFFER: u64 = 4;
const ANSWER: u64 = 5;
const CANDIDATE: u64 = 6;
const SEAL: u64 = 7;

/// What `data` says of a mesh.
const TRUE: &str = "true";

pub(super) fn encode(message: &Message) -> String {
    let (kind, id, data) = match message {
        Message::Join { lobby, mesh } => (JOIN, u32::from(!mesh), lobby.as_str()),
        Message::Id { id, mesh } => (ID, *id, if *mesh { TRUE } else { "" }),
        Message::PeerConnect(id) => (PEER_CONNECT, *id, ""),
        Message::PeerDisconnect(id) => (PEER_DISCONNECT, *id, ""),
        Message::Relay { peer, kind: RelayKind::Offer, payload } => (OFFER, *peer, payload.as_str()),
        Message::Relay { peer, kind: RelayKind::Answer, payload } => (ANSWER, *peer, payload.as_str()),
        Message::Relay { peer, kind: RelayKind::Candidate, payload } => (CANDIDATE, *peer, payload.as_str()),
        Message::Seal => (SEAL, 0, ""),
    };
    json!({ "type": kind, "id": id, "data": data }).to_string()
}

pub(super) fn decode(frame: &str) -> Result<Message, MalformedMessage> {
    let value: Value = serde_json::from_str(frame).map_err(|_| MalformedMessage::Format)?;
    let number = |name| value.get(name).and_then(whole).ok_or(MalformedMessage::Format);
    let (kind, id) = (number("type")?, number("id")?);
    let data = value.get("data").and_then(Value::as_str).unwrap_or_default();
    let peer = || u32::try_from(id).map_err(|_| MalformedMessage::Id);
    let relay = |kind| peer().map(|peer| Message::Relay { peer, kind, payload: data.to_owned() });
    match kind {
        JOIN => Ok(Message::Join { lobby: data.trim().to_owned(), mesh: id == 0 }),
        ID => Ok(Message::Id { id: peer()?, mesh: data == TRUE }),
        PEER_CONNECT => Ok(Message::PeerConnect(peer()?)),
        PEER_DISCONNECT => Ok(Message::PeerDisconnect(peer()?)),
        OFFER => relay(RelayKind::Offer),
        ANSWER => relay(RelayKind::Answer),
        CANDIDATE => relay(RelayKind::Candidate),
        SEAL => Ok(Message::Seal),
        _ => Err(MalformedMessage::UnknownKind),
    }
}

/// Godot's numbers may all be floating.
fn whole(value: &Value) -> Option<u64> {
    let floating = || value.as_f64().filter(|number| (0.0..1e15).contains(number));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, and to be cut off")]
    value.as_u64().or_else(|| floating().map(|number| number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_as_godot_4_writes_them() {
        let relay = |kind, payload: &str| Message::Relay { peer: 17, kind, payload: payload.to_owned() };
        let join = |lobby: &str, mesh| Message::Join { lobby: lobby.to_owned(), mesh };
        for (frame, message) in [
            (r#"{"data":"","id":0,"type":0}"#, join("", true)),
            (r#"{"data":"abc","id":1,"type":0}"#, join("abc", false)),
            (r#"{"data":"true","id":1,"type":1}"#, Message::Id { id: 1, mesh: true }),
            (r#"{"data":"","id":9,"type":1}"#, Message::Id { id: 9, mesh: false }),
            (r#"{"data":"","id":2147483647,"type":2}"#, Message::PeerConnect(2_147_483_647)),
            (r#"{"data":"","id":17,"type":3}"#, Message::PeerDisconnect(17)),
            (r#"{"data":"v=0\r\n","id":17,"type":4}"#, relay(RelayKind::Offer, "v=0\r\n")),
            (r#"{"data":"v=0\r\n","id":17,"type":5}"#, relay(RelayKind::Answer, "v=0\r\n")),
            (
                r#"{"data":"\n0\n0\ncandidate:1","id":17,"type":6}"#,
                relay(RelayKind::Candidate, "\n0\n0\ncandidate:1"),
            ),
            (r#"{"data":"","id":0,"type":7}"#, Message::Seal),
        ] {
            assert_eq!(decode(frame), Ok(message.clone()), "{frame}");
            let said: Value = serde_json::from_str(&encode(&message)).unwrap();
            assert_eq!(said, serde_json::from_str::<Value>(frame).unwrap());
        }
    }

    #[test]
    fn numbers_may_be_floating_and_other_members_are_ignored() {
        let floating = r#"{"type": 2.0, "id": 1234567890.0, "data": "", "more": [1, 2]}"#;
        assert_eq!(decode(floating), Ok(Message::PeerConnect(1_234_567_890)));
        assert_eq!(decode(r#"{"type":7,"id":0}"#), Ok(Message::Seal));
        assert_eq!(decode(r#"{"type":7.9,"id":0.5,"data":null}"#), Ok(Message::Seal));
    }

    #[test]
    fn what_is_no_message_says_why() {
        let deep = "[".repeat(100_000);
        for (frame, error) in [
            ("", MalformedMessage::Format),
            ("[]", MalformedMessage::Format),
            ("7", MalformedMessage::Format),
            (r#"{"type":7}"#, MalformedMessage::Format),
            (r#"{"type":"7","id":0,"data":""}"#, MalformedMessage::Format),
            (r#"{"type":-1,"id":0,"data":""}"#, MalformedMessage::Format),
            (r#"{"type":4,"id":-5,"data":""}"#, MalformedMessage::Format),
            (r#"{"type":4,"id":1e300,"data":""}"#, MalformedMessage::Format),
            (r#"{"type":8,"id":0,"data":""}"#, MalformedMessage::UnknownKind),
            (r#"{"type":4,"id":4294967296,"data":""}"#, MalformedMessage::Id),
            (deep.as_str(), MalformedMessage::Format),
        ] {
            assert_eq!(decode(frame), Err(error), "{}", &frame[..frame.len().min(60)]);
        }
    }
}
