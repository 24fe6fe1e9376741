//! What `fuzz/` throws bytes at, and `cargo test` its corpus: the doors through which a stranger's bytes come in.

use crate::connection::RemoteDescription;
use crate::peer::control::Frame;
#[cfg(feature = "godot")]
use crate::signaling::godot::{Generation, Message};

/// A message on the control channel.
pub fn control_frame(message: &[u8]) {
    if let Ok(Some(frame)) = Frame::decode(message) {
        let said = frame.encode();
        assert_eq!(Frame::decode(&said), Ok(Some(frame)), "what is understood can be said");
        assert!(said.len() <= message.len(), "and says no more than was heard");
    }
}

/// A description from signalling.
pub fn description(sdp: &str) {
    let description = RemoteDescription::parse(sdp);
    assert!(description.max_message_bytes <= crate::connection::MAX_MESSAGE_BYTES);
    assert_eq!(RemoteDescription::parse(sdp), description);
}

/// A message of Godot 3's signalling.
#[cfg(feature = "godot")]
pub fn godot_text(frame: &str) {
    godot(Generation::Godot3, frame);
}

/// A message of Godot 4's signalling.
#[cfg(feature = "godot")]
pub fn godot_json(frame: &str) {
    godot(Generation::Godot4, frame);
}

#[cfg(feature = "godot")]
fn godot(generation: Generation, frame: &str) {
    if let Ok(message) = Message::decode(generation, frame) {
        if let Message::Relay { kind, payload, .. } = &message {
            let _ = kind.signal(payload.clone());
        }
        let said = message.encode(generation);
        assert_eq!(Message::decode(generation, &said), Ok(message), "what is understood can be said");
    }
}

/// What a few clients of a signalling server do.
#[cfg(feature = "server")]
pub fn signaling_session(steps: &[u8]) {
    crate::signaling::server::sim::play(steps);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| std::fs::read(file.path()).unwrap()).collect()
    }

    #[test]
    fn the_corpus_is_taken() {
        let frames = corpus("control_frame");
        let descriptions = corpus("description");
        frames.iter().for_each(|message| super::control_frame(message));
        descriptions.iter().for_each(|sdp| super::description(&String::from_utf8_lossy(sdp)));
        #[cfg(feature = "godot")]
        for (name, take) in
            [("godot_text", super::godot_text as fn(&str)), ("godot_json", super::godot_json as fn(&str))]
        {
            let frames = corpus(name);
            frames.iter().for_each(|frame| take(&String::from_utf8_lossy(frame)));
            assert_eq!(frames.is_empty(), descriptions.is_empty());
        }
        #[cfg(feature = "server")]
        {
            let sessions = corpus("signaling_session");
            sessions.iter().for_each(|steps| super::signaling_session(steps));
            assert_eq!(sessions.is_empty(), descriptions.is_empty());
        }
        // A package from the registry comes without the corpus.
        assert_eq!(frames.is_empty(), descriptions.is_empty());
    }
}
