//! What `fuzz/` throws bytes at, and `cargo test` its corpus: the doors through which a stranger's bytes come in.

use crate::connection::RemoteDescription;
use crate::peer::control::Frame;

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
        // A package from the registry comes without the corpus.
        assert_eq!(frames.is_empty(), descriptions.is_empty());
    }
}
