//! The protocol of Godot 3's demo: a line, `X: ARGUMENT`, and what follows it.

use super::message::{MalformedMessage, Message, RelayKind};

pub(super) fn encode(message: &Message) -> String {
    match message {
        Message::Join { lobby, .. } => format!("J: {lobby}\n"),
        Message::Id { id, .. } => format!("I: {id}\n"),
        Message::PeerConnect(id) => format!("N: {id}\n"),
        Message::PeerDisconnect(id) => format!("D: {id}\n"),
        Message::Relay { peer, kind, payload } => {
            let letter = match kind {
                RelayKind::Offer => 'O',
                RelayKind::Answer => 'A',
                RelayKind::Candidate => 'C',
            };
            format!("{letter}: {peer}\n{payload}")
        }
        Message::Seal => "S: \n".to_owned(),
    }
}

pub(super) fn decode(frame: &str) -> Result<Message, MalformedMessage> {
    let (line, payload) = frame.split_once('\n').ok_or(MalformedMessage::Format)?;
    let Some((letter, argument)) = line.split_at_checked(3) else { return Err(MalformedMessage::Format) };
    let argument = argument.trim();
    let relay = |kind| {
        let payload = payload.to_owned();
        id(argument).map(|peer| Message::Relay { peer, kind, payload })
    };
    match letter {
        "J: " => Ok(Message::Join { lobby: argument.to_owned(), mesh: true }),
        "I: " => id(argument).map(|id| Message::Id { id, mesh: true }),
        "N: " => id(argument).map(Message::PeerConnect),
        "D: " => id(argument).map(Message::PeerDisconnect),
        "O: " => relay(RelayKind::Offer),
        "A: " => relay(RelayKind::Answer),
        "C: " => relay(RelayKind::Candidate),
        "S: " => Ok(Message::Seal),
        _ => Err(MalformedMessage::UnknownKind),
    }
}

fn id(argument: &str) -> Result<u32, MalformedMessage> {
    argument.parse().map_err(|_| MalformedMessage::Id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_godot_3_writes_them() {
        let relay = |peer, kind, payload: &str| Message::Relay { peer, kind, payload: payload.to_owned() };
        let join = |lobby: &str| Message::Join { lobby: lobby.to_owned(), mesh: true };
        for (line, message) in [
            ("J: \n", join("")),
            ("J: abc\n", join("abc")),
            ("I: 1\n", Message::Id { id: 1, mesh: true }),
            ("N: 2147483647\n", Message::PeerConnect(2_147_483_647)),
            ("D: 17\n", Message::PeerDisconnect(17)),
            ("O: 17\nv=0\r\ns=-\r\n", relay(17, RelayKind::Offer, "v=0\r\ns=-\r\n")),
            ("A: 17\nv=0\r\n", relay(17, RelayKind::Answer, "v=0\r\n")),
            ("C: 17\n\n0\n0\ncandidate:1", relay(17, RelayKind::Candidate, "\n0\n0\ncandidate:1")),
            ("S: \n", Message::Seal),
        ] {
            assert_eq!(decode(line), Ok(message.clone()), "{line:?}");
            assert_eq!(encode(&message), line);
        }
    }

    #[test]
    fn what_is_no_line_says_why() {
        for (frame, error) in [
            ("", MalformedMessage::Format),
            ("J: abc", MalformedMessage::Format),
            ("J\n", MalformedMessage::Format),
            ("é:\n", MalformedMessage::UnknownKind),
            ("ab€\n", MalformedMessage::Format),
            ("X: 1\n", MalformedMessage::UnknownKind),
            ("j: abc\n", MalformedMessage::UnknownKind),
            ("O: \nsdp", MalformedMessage::Id),
            ("O: -1\nsdp", MalformedMessage::Id),
            ("O: 4294967296\nsdp", MalformedMessage::Id),
            ("N: one\n", MalformedMessage::Id),
        ] {
            assert_eq!(decode(frame), Err(error), "{frame:?}");
        }
        assert_eq!(decode("J:   a b \r\n"), Ok(Message::Join { lobby: "a b".to_owned(), mesh: true }));
    }
}
