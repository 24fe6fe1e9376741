//! How a connection was made, or was not: [`ConnectionReport`]. Plain data.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::IceServerError;
use crate::event::Stage;

/// How a connection to a peer was made, or why it was not, as far as this side can tell.
///
/// A [`PeerFailure`](crate::PeerFailure) carries one; of any peer, also after its end, gives it
/// [`MeshHandle::report`](crate::MeshHandle::report).
///
/// `Debug` is the whole report, addresses of both sides among it: think before logging it. `Display` is one line
/// without addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionReport {
    /// How far the last attempt has come.
    pub stage: Stage,
    /// How many connections were tried, the last one included. More than one only in a mesh that was
    /// [`join`](crate::MeshBuilder::join)ed.
    pub attempts: u32,
    /// How long all attempts together have spent in each stage.
    pub times: StageTimes,
    /// How long the peer was connected, if it was.
    pub connected: Option<Duration>,
    /// The addresses of ours that the remote was told, at the most 256. Like the next two, of the last attempt; or of
    /// the one before, if that has sent more checks and the last had no answer.
    pub local: Vec<Candidate>,
    /// The addresses of the remote that signalling brought, at the most 256.
    pub remote: Vec<Candidate>,
    /// The pairs of addresses, at the most 256, in the order in which they were tried.
    pub pairs: Vec<CandidatePair>,
    /// The STUN and TURN servers that were of no use, and why.
    pub ice_server_errors: Vec<IceServerError>,
}

/// How long the making of a connection has spent in each [`Stage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StageTimes {
    /// Until both descriptions were here.
    pub signaling: Duration,
    /// Until a pair of addresses reached each other.
    pub ice: Duration,
    /// Until the DTLS handshake was done.
    pub dtls: Duration,
    /// Until the channels were open and, between two members of this crate, both had said hello.
    pub channels: Duration,
}

/// An address at which a peer may be reached (RFC 8445 section 4). UDP, as all are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// The address; `None` if it has a name in its place, by which browsers hide theirs: nothing here resolves it.
    pub address: Option<SocketAddr>,
}

/// Where an address comes from (RFC 8445 section 5.1). `Display` is the word that candidates have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CandidateKind {
    /// An interface's own: `host`.
    Host,
    /// What a STUN server sees of it: `srflx`, server-reflexive.
    ServerReflexive,
    /// What the remote sees of it: `prflx`, peer-reflexive.
    PeerReflexive,
    /// A TURN server's, that relays: `relay`.
    Relay,
}

/// An address of ours and one of the remote, and whether they reach each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CandidatePair {
    /// Ours, from which the checks leave: [`Host`](CandidateKind::Host) with the address of the socket, or
    /// [`Relay`](CandidateKind::Relay) with that of the TURN server. A reflexive address has no pairs of its own: what
    /// is sent from it leaves by its socket (RFC 8445 section 6.1.2.4).
    pub local: Candidate,
    /// The remote's; one that signalling did not bring is [`PeerReflexive`](CandidateKind::PeerReflexive).
    pub remote: Candidate,
    /// Whether they reach each other.
    pub state: PairState,
    /// Whether it is the pair that the connection took, at last.
    pub nominated: bool,
    /// Connectivity checks sent, repeats and keepalives included.
    pub requests_sent: u64,
    /// Answers to them.
    pub responses_received: u64,
    /// The remote's checks that have arrived. Some of these and no answer to ours: what we send does not arrive, or its
    /// answers are kept back.
    pub requests_received: u64,
}

/// Whether a pair of addresses reaches each other (RFC 8445 section 6.1.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PairState {
    /// Nothing was sent yet.
    Waiting,
    /// Checks were sent, and none was answered.
    InProgress,
    /// A check was answered.
    Succeeded,
    /// No check could even be sent: there is no route, say.
    Failed,
}

impl StageTimes {
    /// The time in this stage.
    pub fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Signaling => self.signaling,
            Stage::Ice => self.ice,
            Stage::Dtls => self.dtls,
            Stage::Channels => self.channels,
        }
    }

    /// The time in all stages together.
    pub fn total(&self) -> Duration {
        self.signaling + self.ice + self.dtls + self.channels
    }

    pub(crate) fn add(&mut self, stage: Stage, time: Duration) {
        let total = match stage {
            Stage::Signaling => &mut self.signaling,
            Stage::Ice => &mut self.ice,
            Stage::Dtls => &mut self.dtls,
            Stage::Channels => &mut self.channels,
        };
        *total += time;
    }
}

impl CandidatePair {
    /// Whether what goes over it goes through a TURN server, of ours or of the remote.
    pub fn is_relayed(&self) -> bool {
        [&self.local, &self.remote].iter().any(|candidate| candidate.kind == CandidateKind::Relay)
    }
}

impl ConnectionReport {
    /// Of what was not begun.
    pub(crate) fn new() -> ConnectionReport {
        ConnectionReport {
            stage: Stage::Signaling,
            attempts: 0,
            times: StageTimes::default(),
            connected: None,
            local: Vec::new(),
            remote: Vec::new(),
            pairs: Vec::new(),
            ice_server_errors: Vec::new(),
        }
    }

    /// The pair of addresses that the connection took, if it came so far.
    pub fn selected(&self) -> Option<&CandidatePair> {
        self.pairs.iter().find(|pair| pair.nominated)
    }

    /// What was tried by ICE, for a line: "host, srflx here; host there; 4 pairs tried, no answer".
    pub(crate) fn tried(&self) -> String {
        let tried = self.pairs.iter().filter(|pair| pair.state != PairState::Waiting).count();
        let answered = self.pairs.iter().filter(|pair| pair.responses_received > 0).count();
        let unsent = self.pairs.iter().filter(|pair| pair.state == PairState::Failed).count();
        let heard = self.pairs.iter().any(|pair| pair.requests_received > 0);
        let mut line = format!("{} here; {} there; ", kinds_of(&self.local), kinds_of(&self.remote));
        line += &match tried {
            0 => "no pair tried".to_owned(),
            1 => "1 pair tried".to_owned(),
            _ => format!("{tried} pairs tried"),
        };
        line += &match (tried, answered) {
            (0, _) => String::new(),
            (_, 0) if unsent == tried => ", nothing could be sent".to_owned(),
            (_, 0) if heard => ", no answer, but the remote's own checks arrive".to_owned(),
            (_, 0) => ", no answer".to_owned(),
            _ => format!(", {answered} answered"),
        };
        if self.attempts > 1 {
            line += &format!("; {} attempts", self.attempts);
        }
        line
    }
}

/// The kinds of these candidates, each once.
fn kinds_of(candidates: &[Candidate]) -> String {
    let mut kinds: Vec<CandidateKind> = candidates.iter().map(|candidate| candidate.kind).collect();
    kinds.sort();
    kinds.dedup();
    let mut words: Vec<String> = kinds.iter().map(CandidateKind::to_string).collect();
    if !candidates.is_empty() && candidates.iter().all(|candidate| candidate.address.is_none()) {
        words.push("all hidden behind names".to_owned());
    }
    if words.is_empty() { "no address".to_owned() } else { words.join(", ") }
}

impl fmt::Display for ConnectionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.connected, self.selected()) {
            (Some(time), Some(pair)) => {
                let how = if pair.is_relayed() { "relayed" } else { "direct" };
                write!(
                    f,
                    "connected for {:.1} s, {how}, {} to {}",
                    time.as_secs_f64(),
                    pair.local.kind,
                    pair.remote.kind
                )?;
            }
            (Some(time), None) => write!(f, "connected for {:.1} s", time.as_secs_f64())?,
            (None, _) => write!(f, "{}: {}", self.stage, self.tried())?,
        }
        let StageTimes { signaling, ice, dtls, channels } = self.times;
        let [signaling, ice, dtls, channels] = [signaling, ice, dtls, channels].map(Short);
        write!(f, "; {signaling} of signalling, {ice} of ICE, {dtls} of DTLS, {channels} for the channels")
    }
}

/// Milliseconds below a second, else seconds.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            time if time < Duration::from_secs(1) => write!(f, "{} ms", time.as_millis()),
            time => write!(f, "{:.1} s", time.as_secs_f64()),
        }
    }
}

/// With the address: not for a log that strangers read.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} {address}", self.kind),
            None => write!(f, "{} behind a name", self.kind),
        }
    }
}

/// With the addresses: not for a log that strangers read.
impl fmt::Display for CandidatePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}, {}", self.local, self.remote, self.state)
    }
}

impl fmt::Display for CandidateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
            CandidateKind::Relay => "relay",
        })
    }
}

impl fmt::Display for PairState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PairState::Waiting => "waiting",
            PairState::InProgress => "in progress",
            PairState::Succeeded => "succeeded",
            PairState::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(kind: CandidateKind, address: &str) -> Candidate {
        Candidate { kind, address: address.parse().ok() }
    }

    fn pair(requests_received: u64, responses_received: u64) -> CandidatePair {
        CandidatePair {
            local: candidate(CandidateKind::Host, "192.0.2.1:1"),
            remote: candidate(CandidateKind::Host, "192.0.2.2:2"),
            state: PairState::InProgress,
            nominated: false,
            requests_sent: 9,
            responses_received,
            requests_received,
        }
    }

    #[test]
    fn the_line_says_what_was_tried_and_no_address() {
        let mut report = ConnectionReport {
            stage: Stage::Ice,
            attempts: 1,
            local: vec![
                candidate(CandidateKind::ServerReflexive, "198.51.100.1:1"),
                candidate(CandidateKind::Host, "192.0.2.1:1"),
                candidate(CandidateKind::Host, "192.0.2.3:1"),
            ],
            remote: vec![candidate(CandidateKind::Host, "192.0.2.2:2")],
            pairs: vec![pair(0, 0), pair(0, 0)],
            ..ConnectionReport::new()
        };
        assert_eq!(report.tried(), "host, srflx here; host there; 2 pairs tried, no answer");
        report.pairs.push(pair(3, 0));
        assert_eq!(
            report.tried(),
            "host, srflx here; host there; 3 pairs tried, no answer, but the remote's own checks arrive"
        );
        (report.pairs, report.attempts) = (vec![pair(0, 1)], 3);
        assert_eq!(report.tried(), "host, srflx here; host there; 1 pair tried, 1 answered; 3 attempts");
        report.pairs[0] = CandidatePair { state: PairState::Failed, ..pair(0, 0) };
        assert_eq!(
            report.tried(),
            "host, srflx here; host there; 1 pair tried, nothing could be sent; 3 attempts"
        );
        (report.pairs, report.remote) = (vec![], vec![candidate(CandidateKind::Host, "a-name.local")]);
        assert_eq!(
            report.tried(),
            "host, srflx here; host, all hidden behind names there; no pair tried; 3 attempts"
        );
        report.remote.clear();
        assert_eq!(report.tried(), "host, srflx here; no address there; no pair tried; 3 attempts");
        assert!(!report.to_string().contains("192.0.2"), "{report}");
        assert!(format!("{report:?}").contains("192.0.2.1:1"), "the whole of it");
    }

    #[test]
    fn the_line_of_one_that_was_connected_says_how() {
        let mut report = ConnectionReport {
            stage: Stage::Channels,
            connected: Some(Duration::from_millis(2500)),
            pairs: vec![CandidatePair { nominated: true, ..pair(1, 1) }],
            ..ConnectionReport::new()
        };
        assert!(
            report.to_string().starts_with("connected for 2.5 s, direct, host to host; 0 ms of"),
            "{report}"
        );
        report.pairs[0].remote.kind = CandidateKind::Relay;
        assert!(report.to_string().starts_with("connected for 2.5 s, relayed, host to relay;"), "{report}");
        report.times.add(Stage::Ice, Duration::from_millis(21));
        report.times.add(Stage::Dtls, Duration::from_millis(3100));
        assert!(
            report.to_string().contains("; 0 ms of signalling, 21 ms of ICE, 3.1 s of DTLS, "),
            "{report}"
        );
    }
}
