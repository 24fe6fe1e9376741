//! What two sides hand each other to connect, and the little of it that we read ourselves.
//!
//! A member of this crate says so by one line in its descriptions, `a=x-webrtc-mesh:1 TOKEN STAMP RESTART`. It travels
//! with the signalling only; everyone else ignores an attribute it does not know (RFC 8866 section 5.13).
//!
//! * The first number is the version of the control channel.
//! * The token (32 hexadecimal digits, made by the offerer and repeated by the answerer) tells apart the attempts to make
//!   one link, so that the answer to an attempt that was given up is not taken for the answer to the current one. Only
//!   the two and their signalling know it, so it also is the key of what others relay between the two.
//! * The stamp (16 hexadecimal digits, a dash, a number) says which process made the description, and counts what that
//!   one made: of two descriptions it tells the newer one, whichever way and in whatever order they came.
//! * The last number counts the ICE restarts of the connection (RFC 8445 section 9); 0 is its beginning.
//!
//! The last two may be missing.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the other side must be handed: a description first, then candidates as they are found (trickle ICE,
/// RFC 8838).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// An offer or an answer.
    Description(SessionDescription),
    /// An address at which the sender may be reached.
    Candidate(IceCandidate),
}

/// An offer or an answer (W3C `RTCSessionDescriptionInit`).
#[derive(Clone, PartialEq, Eq)]
pub struct SessionDescription {
    /// Which of the two.
    pub kind: SdpKind,
    /// The description in SDP (RFC 8866), lines ended by CR LF.
    pub sdp: String,
}

/// Whether a description is an offer or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SdpKind {
    /// The first description of a connection.
    Offer,
    /// The reply to an offer.
    Answer,
}

/// An address at which a peer may be reached (W3C `RTCIceCandidateInit`).
///
/// There is one media section, so where a browser says `null` for one of the last two, say `"0"` and 0. A browser's end
/// of candidates, an empty one, may be handed on: it is taken and means nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCandidate {
    /// The candidate attribute, beginning with `candidate:` (RFC 8839 section 5.1).
    pub candidate: String,
    /// The media section it belongs to: `0`, as there is one.
    pub sdp_mid: String,
    /// The number of that media section: 0.
    pub sdp_mline_index: u16,
}

impl fmt::Debug for SessionDescription {
    /// Without the description, which holds addresses and the key of the ICE session.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionDescription({:?}, {} bytes)", self.kind, self.sdp.len())
    }
}

impl fmt::Debug for IceCandidate {
    /// Without the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCandidate({} bytes)", self.candidate.len())
    }
}

/// The version of the control channel that this release speaks.
pub(crate) const CONTROL_VERSION: u8 = 1;

/// The largest message that is sent or taken, in bytes, and what our descriptions announce.
pub(crate) const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// Descriptions over this size are refused. A browser's, with a candidate for each of 50 addresses, has 10 KiB.
pub(crate) const MAX_SDP_BYTES: usize = 64 * 1024;

const ATTRIBUTE: &str = "a=x-webrtc-mesh:";

/// What a remote description says about the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteDescription {
    /// The mark of this crate.
    pub(crate) mark: Option<Mark>,
    /// Whether it is an answer that takes the DTLS server's part (`a=setup:passive`).
    pub(crate) setup_passive: bool,
    /// The largest message it takes, in bytes, and at the most [`MAX_MESSAGE_BYTES`].
    pub(crate) max_message_bytes: usize,
}

/// The line by which members of this crate know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) version: u8,
    pub(crate) token: String,
    pub(crate) stamp: Option<Stamp>,
    pub(crate) restart: u32,
}

/// Who made a description, and how many that one had made by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) maker: u64,
    pub(crate) number: u64,
}

impl Stamp {
    /// The next one of this process.
    fn next() -> Stamp {
        static MAKER: LazyLock<u64> = LazyLock::new(rand::random);
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Stamp { maker: *MAKER, number: NUMBER.fetch_add(1, Ordering::Relaxed) }
    }

    fn parse(text: &str) -> Option<Stamp> {
        let (maker, number) = text.split_once('-')?;
        let maker = u64::from_str_radix(maker, 16).ok().filter(|_| maker.len() == 16)?;
        Some(Stamp { maker, number: number.parse().ok()? })
    }
}

impl Mark {
    /// For a new offer.
    pub(crate) fn new() -> Mark {
        let token = format!("{:032x}", rand::random::<u128>());
        Mark { version: CONTROL_VERSION, token, stamp: None, restart: 0 }
    }

    /// Puts the line, with a stamp of now, at the end of a description's last media section.
    pub(crate) fn write(&self, mut sdp: String) -> String {
        if !sdp.ends_with('\n') {
            sdp.push_str("\r\n");
        }
        let Mark { version, token, restart, .. } = self;
        let Stamp { maker, number } = Stamp::next();
        sdp.push_str(&format!("{ATTRIBUTE}{version} {token} {maker:016x}-{number} {restart}\r\n"));
        sdp
    }

    fn parse(line: &str) -> Option<Mark> {
        let (version, rest) = line.strip_prefix(ATTRIBUTE)?.split_once(' ')?;
        let mut words = rest.split(' ');
        let token = words.next()?;
        let well_formed = token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let version = version.parse().ok().filter(|version| *version > 0)?;
        let stamp = words.next().and_then(Stamp::parse);
        let restart = words.next().and_then(|restart| restart.parse().ok()).unwrap_or(0);
        well_formed.then(|| Mark { version, token: token.to_owned(), stamp, restart })
    }
}

impl RemoteDescription {
    pub(crate) fn parse(sdp: &str) -> RemoteDescription {
        let mut description =
            RemoteDescription { mark: None, setup_passive: false, max_message_bytes: DEFAULT_MESSAGE_BYTES };
        for line in sdp.lines().map(str::trim_end) {
            if let Some(mark) = Mark::parse(line) {
                description.mark = Some(mark);
            } else if line == "a=setup:passive" {
                description.setup_passive = true;
            } else if let Some(bytes) = line.strip_prefix("a=max-message-size:") {
                // RFC 8841 section 6: 0 is no limit, no line is 64 KiB.
                description.max_message_bytes = match bytes.trim().parse::<usize>() {
                    Ok(0) => MAX_MESSAGE_BYTES,
                    Ok(bytes) => bytes.min(MAX_MESSAGE_BYTES),
                    Err(_) => DEFAULT_MESSAGE_BYTES,
                };
            }
        }
        description
    }
}

const DEFAULT_MESSAGE_BYTES: usize = 64 * 1024;

/// What a description lacks without which there can be no data channel. The library finds most of it out too late,
/// with its state changed already, or not at all.
pub(crate) fn lacks(description: &SessionDescription) -> Option<&'static str> {
    let lines = || description.sdp.lines().map(str::trim_end);
    let values = |attribute: &'static str| lines().filter_map(move |line| line.strip_prefix(attribute));
    let is_one = |attribute| {
        let mut values = values(attribute);
        values.next().is_some_and(|first| !first.is_empty() && values.all(|other| other == first))
    };
    let sections = lines().filter(|line| line.starts_with("m=")).count();
    if !lines().any(|line| line.starts_with("m=application ") && line.contains("SCTP")) {
        Some("it has no section for data channels")
    } else if description.kind == SdpKind::Offer
        && values("a=mid:").filter(|mid| !mid.is_empty()).count() < sections
    {
        Some("a section has no mid")
    } else if !is_one("a=ice-ufrag:") || !is_one("a=ice-pwd:") {
        Some("it has no ICE credentials, or several")
    } else if !values("a=fingerprint:").any(is_fingerprint) {
        Some("it has no fingerprint")
    } else {
        None
    }
}

/// RFC 8122 section 5, without the hash functions that it forbids.
fn is_fingerprint(value: &str) -> bool {
    value.split_once(' ').is_some_and(|(function, hash)| {
        let is_byte = |text: &str| text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        function.to_ascii_lowercase().starts_with("sha-") && hash.split(':').all(is_byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_survives_a_description() {
        let mark = Mark::new();
        let sdp = mark.write("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n".to_owned());
        assert!(sdp.ends_with("\r\n") && !sdp.contains("\r\n\r\n"));
        let parsed = RemoteDescription::parse(&sdp).mark.unwrap();
        let first = parsed.stamp.unwrap();
        assert_eq!(parsed, Mark { stamp: Some(first), ..mark.clone() });

        let restart = Mark { restart: 7, ..mark };
        let parsed = RemoteDescription::parse(&restart.write(String::new())).mark.unwrap();
        assert_eq!((parsed.restart, &parsed.token), (7, &restart.token));
        let second = parsed.stamp.unwrap();
        assert!(second.maker == first.maker && second.number > first.number, "{second:?}");
    }

    #[test]
    fn a_mark_may_end_early_or_be_of_a_later_release() {
        let token = "0123456789abcdef0123456789abcdef";
        let mark = |more: &str| {
            let mark = RemoteDescription::parse(&format!("{ATTRIBUTE}1 {token}{more}")).mark.unwrap();
            assert_eq!(mark.token, token);
            (mark.stamp, mark.restart)
        };
        let stamp = Some(Stamp { maker: 0xff, number: 9 });
        assert_eq!(mark(""), (None, 0));
        assert_eq!(mark(" 00000000000000ff-9"), (stamp, 0));
        assert_eq!(mark(" 00000000000000ff-9 3"), (stamp, 3));
        assert_eq!(mark(" 00000000000000ff-9 3 more"), (stamp, 3));
        assert_eq!(mark(" ff-9 x"), (None, 0));
    }

    #[test]
    fn a_mark_that_is_not_ours_is_no_mark() {
        for line in [
            "a=x-webrtc-mesh:",
            "a=x-webrtc-mesh:1",
            "a=x-webrtc-mesh:1 abc",
            "a=x-webrtc-mesh:0 00000000000000000000000000000000",
            "a=x-webrtc-mesh:999 00000000000000000000000000000000",
            "a=x-webrtc-mesh:1 0000000000000000000000000000000g",
            "a=x-other:1 00000000000000000000000000000000",
        ] {
            assert_eq!(RemoteDescription::parse(line).mark, None, "{line}");
        }
    }

    #[test]
    fn the_message_limit_is_the_smaller_of_both_sides() {
        let limit = |sdp| RemoteDescription::parse(sdp).max_message_bytes;
        assert_eq!(limit("v=0\r\n"), 65_536);
        assert_eq!(limit("a=max-message-size:0\r\n"), 262_144);
        assert_eq!(limit("a=max-message-size:1000\r\n"), 1000);
        assert_eq!(limit("a=max-message-size:1073741823\r\n"), 262_144);
        assert_eq!(limit("a=max-message-size:what\r\n"), 65_536);
    }

    #[test]
    fn what_a_description_lacks_is_said() {
        const WHOLE: [&str; 6] = [
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            "a=mid:0",
            "a=ice-ufrag:abcd",
            "a=ice-pwd:abcdefghijklmnopqrstuv",
            "a=fingerprint:sha-256 AB:cd:01",
            "a=sctp-port:5000",
        ];
        let lacks = |kind, lines: &[&str]| lacks(&SessionDescription { kind, sdp: lines.join("\r\n") });
        let without = |line: usize| {
            let mut lines = WHOLE;
            lines[line] = "a=other";
            lines
        };
        for kind in [SdpKind::Offer, SdpKind::Answer] {
            assert_eq!(lacks(kind, &WHOLE), None);
            for (line, what) in [(0, "data channels"), (2, "ICE"), (3, "ICE"), (4, "fingerprint")] {
                assert!(lacks(kind, &without(line)).is_some_and(|text| text.contains(what)), "{line}");
            }
            let several = [&WHOLE[..], &["m=audio", "a=mid:1", "a=ice-ufrag:other"]].concat();
            assert!(lacks(kind, &several).is_some_and(|text| text.contains("several")));
        }
        assert!(lacks(SdpKind::Offer, &without(1)).is_some_and(|text| text.contains("mid")));
        assert_eq!(lacks(SdpKind::Answer, &without(1)), None, "the library knows it from the offer");
        for not_one in ["md-5 AB", "sha-256", "sha-256 nonsense", "sha-256 A", "sha-256 AB:"] {
            assert!(!is_fingerprint(not_one), "{not_one}");
        }
    }

    #[test]
    fn debug_shows_no_addresses() {
        let candidate = IceCandidate {
            candidate: "candidate:1 1 udp 1 10.9.8.7 5 typ host".to_owned(),
            sdp_mid: "0".to_owned(),
            sdp_mline_index: 0,
        };
        let description =
            SessionDescription { kind: SdpKind::Offer, sdp: "c=IN IP4 10.9.8.7\r\n".to_owned() };
        let text = format!("{:?} {:?}", Signal::Candidate(candidate), Signal::Description(description));
        assert!(!text.contains("10.9.8.7"), "{text}");
    }
}
