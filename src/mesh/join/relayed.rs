//! Signals that go by way of another member, as signalling is gone, or may be: sealed, so that it can lose them, and
//! neither read, forge nor change them.
//!
//! A sealed signal is a nonce, and then, encrypted and authenticated (ChaCha20-Poly1305, RFC 8439), a byte that names
//! its kind and its text. The key is made of the token of the connection's offer, which only the two and their signalling
//! know; who it is from and for is authenticated with it. One that is replayed is a description of a restart that is
//! over, or a candidate of one, and is known by that.

use bytes::Bytes;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;

use crate::connection::{IceCandidate, SdpKind, SessionDescription, Signal};
use crate::id::PeerId;
use crate::peer::control::MAX_RELAYED_BYTES;

/// A signal for `to`, sealed; `None` if it is too long.
pub(super) fn seal(token: &str, from: PeerId, to: PeerId, signal: &Signal) -> Option<Bytes> {
    let (kind, text) = match signal {
        Signal::Description(SessionDescription { kind: SdpKind::Offer, sdp }) => (b'O', sdp),
        Signal::Description(SessionDescription { kind: SdpKind::Answer, sdp }) => (b'A', sdp),
        Signal::Candidate(candidate) => (b'C', &candidate.candidate),
    };
    let nonce: [u8; NONCE_LEN] = rand::random();
    let mut content = [&[kind][..], text.as_bytes()].concat();
    let aad = aad(from, to);
    key(token)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut content).ok()?;
    let sealed = [&nonce[..], &content].concat();
    (sealed.len() <= MAX_RELAYED_BYTES).then(|| sealed.into())
}

/// The signal in it, if `from` has sealed it for `to`.
pub(super) fn open(token: &str, from: PeerId, to: PeerId, sealed: &[u8]) -> Option<Signal> {
    let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut content = content.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let content = key(token)?.open_in_place(nonce, aad(from, to), &mut content).ok()?;
    let (kind, text) = content.split_first()?;
    let text = String::from_utf8(text.to_vec()).ok()?;
    let description = |kind, sdp| Some(Signal::Description(SessionDescription { kind, sdp }));
    match kind {
        b'O' => description(SdpKind::Offer, text),
        b'A' => description(SdpKind::Answer, text),
        b'C' => {
            let candidate = IceCandidate { candidate: text, sdp_mid: "0".to_owned(), sdp_mline_index: 0 };
            Some(Signal::Candidate(candidate))
        }
        _ => None,
    }
}

/// One key for both directions: a nonce of 96 random bits is not met twice among a few hundred messages.
fn key(token: &str) -> Option<LessSafeKey> {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let derived = hmac::sign(&secret, b"webrtc-mesh relayed signals");
    UnboundKey::new(&CHACHA20_POLY1305, derived.as_ref()).ok().map(LessSafeKey::new)
}

fn aad(from: PeerId, to: PeerId) -> Aad<[u8; 8]> {
    let mut ids = [0; 8];
    ids[..4].copy_from_slice(&from.get().to_be_bytes());
    ids[4..].copy_from_slice(&to.get().to_be_bytes());
    Aad::from(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn id(n: u32) -> PeerId {
        PeerId::new(n).unwrap()
    }

    fn description(kind: SdpKind, bytes: usize) -> Signal {
        Signal::Description(SessionDescription { kind, sdp: "v".repeat(bytes) })
    }

    #[test]
    fn what_is_sealed_is_opened_by_whom_it_is_for_and_cannot_be_read() {
        let candidate =
            IceCandidate { candidate: "candidate:1".to_owned(), sdp_mid: "0".to_owned(), sdp_mline_index: 0 };
        for signal in [
            description(SdpKind::Offer, 10),
            description(SdpKind::Answer, 1000),
            Signal::Candidate(candidate),
        ] {
            let sealed = seal(TOKEN, id(1), id(2), &signal).unwrap();
            assert!(!sealed.windows(3).any(|bytes| bytes == b"vvv" || bytes == b"can"));
            assert_eq!(open(TOKEN, id(1), id(2), &sealed), Some(signal));
        }
        assert_eq!(seal(TOKEN, id(1), id(2), &description(SdpKind::Offer, 20_000)), None);
    }

    #[test]
    fn what_was_changed_or_is_for_another_or_of_another_link_is_not_opened() {
        let sealed = seal(TOKEN, id(1), id(2), &description(SdpKind::Offer, 10)).unwrap();
        assert_eq!(open(&TOKEN.replace('0', "1"), id(1), id(2), &sealed), None);
        assert_eq!(open(TOKEN, id(2), id(1), &sealed), None);
        assert_eq!(open(TOKEN, id(3), id(2), &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(open(TOKEN, id(1), id(2), &changed), None);
            assert_eq!(open(TOKEN, id(1), id(2), &sealed[..at]), None);
        }
    }
}
