//! What one connection has tried: its candidates, the checks between them, and when it came how far ([`Record`]).
//!
//! For reports only; nothing is decided by it. The library's statistics know the pair that was chosen and no other,
//! and are silent when its driver is dead. So the checks are counted here, as they go through our sockets, and the
//! candidates as they come and go: what is known can be read at once, at any time.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::content::{Content, Way};
use super::stun::{PRIORITY, REQUEST, SUCCESS, USE_CANDIDATE};
use crate::event::Stage;
use crate::report::{Candidate, CandidateKind, CandidatePair, PairState};

/// What is known of one connection.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    relay_only: bool,
    entered: [Option<Instant>; 4],
    bound: Vec<SocketAddr>,
    local: Vec<Candidate>,
    remote: Vec<Candidate>,
    pairs: Vec<Pair>,
    /// Ways by which the remote's checks have come before one of ours went, and whether it has named them, at the most
    /// [`MAX_EARLY`].
    early: VecDeque<(Way, bool)>,
    nominated: Option<Way>,
}

#[derive(Debug)]
struct Pair {
    way: Way,
    sent: u64,
    /// Of these, the ones that could not be sent.
    unsent: u64,
    answered: u64,
    heard: u64,
    /// Either side has said that this pair is to be taken (RFC 8445 section 8.1.1), and it is not yet.
    named: bool,
}

/// Candidates of each side, and pairs. More than any machine has addresses; a remote may name far more, and what is
/// beyond is tried, but not told.
const MAX: usize = 256;

/// Each is answered by a check of ours at once, unless it comes from a stranger; of those, the oldest are forgotten.
const MAX_EARLY: usize = 16;

impl Record {
    pub(super) fn new(relay_only: bool) -> Record {
        Record(Mutex::new(State { relay_only, ..State::default() }))
    }

    /// The making of the connection has come so far.
    pub(super) fn enter(&self, stage: Stage) {
        self.lock().entered[stage as usize].get_or_insert_with(Instant::now);
    }

    /// When it first came to this stage.
    pub(super) fn entered(&self, stage: Stage) -> Option<Instant> {
        self.lock().entered[stage as usize]
    }

    pub(super) fn bound(&self, socket: SocketAddr) {
        let mut state = self.lock();
        if state.bound.len() < MAX && !state.bound.contains(&socket) {
            state.bound.push(socket);
        }
    }

    /// The remote is told this candidate.
    pub(super) fn local(&self, candidate: &str) {
        note(&mut self.lock().local, candidate);
    }

    /// The remote has told this candidate.
    pub(super) fn remote(&self, candidate: &str) {
        note(&mut self.lock().remote, candidate);
    }

    /// The remote has told these candidates in its description.
    pub(super) fn remote_description(&self, sdp: &str) {
        let mut state = self.lock();
        sdp.lines().filter_map(|line| line.strip_prefix("a=")).for_each(|line| note(&mut state.remote, line));
    }

    /// A datagram was sent, or could not be.
    pub(super) fn sent(&self, content: &Content<'_>, failed: bool) {
        let Content::Check(way, stun) = content else { return };
        let way = *way;
        if stun.class != REQUEST || stun.attribute(PRIORITY).is_none() {
            return;
        }
        let mut state = self.lock();
        let place = match state.pairs.iter().position(|pair| pair.way == way) {
            Some(place) => place,
            None if state.pairs.len() < MAX => {
                let mut pair = Pair::new(way);
                state.early.retain(|(early, named)| {
                    let same = *early == way;
                    pair.heard += u64::from(same);
                    pair.named |= same && *named;
                    !same
                });
                state.pairs.push(pair);
                state.pairs.len() - 1
            }
            None => return,
        };
        let pair = &mut state.pairs[place];
        pair.sent += 1;
        pair.unsent += u64::from(failed);
        pair.named |= stun.attribute(USE_CANDIDATE).is_some();
    }

    /// A datagram has arrived.
    pub(super) fn heard(&self, content: &Content<'_>) {
        let Content::Check(way, stun) = content else { return };
        let way = *way;
        let mut state = self.lock();
        let names = stun.attribute(USE_CANDIDATE).is_some();
        let Some(pair) = state.pairs.iter_mut().find(|pair| pair.way == way) else {
            if stun.class == REQUEST && stun.attribute(PRIORITY).is_some() {
                if state.early.len() >= MAX_EARLY {
                    state.early.pop_front();
                }
                state.early.push_back((way, names));
            }
            return;
        };
        match stun.class {
            REQUEST => {
                pair.heard += 1;
                pair.named |= names;
            }
            SUCCESS => pair.answered += 1,
            _ => return,
        }
        if pair.named && pair.answered > 0 {
            // Named anew, it is taken anew.
            pair.named = false;
            state.nominated = Some(way);
        }
    }

    pub(super) fn local_candidates(&self) -> Vec<Candidate> {
        self.lock().local.clone()
    }

    pub(super) fn remote_candidates(&self) -> Vec<Candidate> {
        self.lock().remote.clone()
    }

    /// The pairs that were tried, in that order, then those that can be.
    pub(super) fn pairs(&self) -> Vec<CandidatePair> {
        let state = self.lock();
        let mut pairs: Vec<CandidatePair> = state.pairs.iter().map(|pair| state.told(pair)).collect();
        if state.relay_only {
            return pairs;
        }
        for to in state.remote.iter().filter_map(|candidate| candidate.address) {
            for socket in state.bound.iter().filter(|socket| socket.is_ipv4() == to.is_ipv4()) {
                let way = Way { socket: *socket, relay: None, remote: to };
                if pairs.len() < MAX && !state.pairs.iter().any(|pair| pair.way == way) {
                    pairs.push(state.told(&Pair::new(way)));
                }
            }
        }
        pairs
    }

    /// The pair that the connection took.
    pub(super) fn selected(&self) -> Option<CandidatePair> {
        let state = self.lock();
        let way = state.nominated?;
        state.pairs.iter().find(|pair| pair.way == way).map(|pair| state.told(pair))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair {
    fn new(way: Way) -> Pair {
        Pair { way, sent: 0, unsent: 0, answered: 0, heard: 0, named: false }
    }
}

impl State {
    fn told(&self, pair: &Pair) -> CandidatePair {
        let Way { socket, relay, remote } = pair.way;
        let known = self.remote.iter().find(|candidate| candidate.address == Some(remote));
        let local = match relay {
            Some(server) => Candidate { kind: CandidateKind::Relay, address: Some(server) },
            None => Candidate { kind: CandidateKind::Host, address: Some(socket) },
        };
        CandidatePair {
            local,
            remote: Candidate {
                kind: known.map_or(CandidateKind::PeerReflexive, |candidate| candidate.kind),
                address: Some(remote),
            },
            state: match pair {
                Pair { answered: 1.., .. } => PairState::Succeeded,
                Pair { sent: 0, .. } => PairState::Waiting,
                Pair { sent, unsent, .. } if sent == unsent => PairState::Failed,
                _ => PairState::InProgress,
            },
            nominated: self.nominated == Some(pair.way),
            requests_sent: pair.sent,
            responses_received: pair.answered,
            requests_received: pair.heard,
        }
    }
}

/// Notes the candidate of a line (RFC 8839 section 5.1), if it is one over UDP, and a new one.
fn note(candidates: &mut Vec<Candidate>, line: &str) {
    let Some(line) = line.strip_prefix("candidate:") else { return };
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _, transport, _, ip, port, "typ", kind, ..] = words[..] else { return };
    let kind = match kind {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::ServerReflexive,
        "prflx" => CandidateKind::PeerReflexive,
        "relay" => CandidateKind::Relay,
        _ => return,
    };
    let ip: Option<IpAddr> = ip.parse().ok();
    let address = ip.zip(port.parse().ok()).map(|(ip, port)| SocketAddr::new(ip, port));
    let candidate = Candidate { kind, address };
    if transport.eq_ignore_ascii_case("udp") && candidates.len() < MAX && !candidates.contains(&candidate) {
        candidates.push(candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stun::{
        BINDING, DATA, DATA_ATTRIBUTE, INDICATION, MAGIC_COOKIE, SEND, XOR_PEER_ADDRESS,
    };
    use super::*;

    fn sent(record: &Record, socket: SocketAddr, to: SocketAddr, datagram: &[u8], failed: bool) {
        record.sent(&Content::of(socket, to, datagram, SEND), failed);
    }

    fn heard(record: &Record, socket: SocketAddr, from: SocketAddr, datagram: &[u8]) {
        record.heard(&Content::of(socket, from, datagram, DATA));
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn message(method: u16, class: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let kind = method | (class & 1) << 4 | (class & 2) << 7;
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut datagram = kind.to_be_bytes().to_vec();
        datagram.extend((body.len() as u16).to_be_bytes());
        datagram.extend(MAGIC_COOKIE);
        datagram.extend([7; 12]);
        datagram.extend(body);
        datagram
    }

    fn request() -> Vec<u8> {
        message(BINDING, REQUEST, &[(PRIORITY, &[0; 4])])
    }

    fn naming() -> Vec<u8> {
        message(BINDING, REQUEST, &[(PRIORITY, &[0; 4]), (USE_CANDIDATE, &[])])
    }

    fn success() -> Vec<u8> {
        message(BINDING, SUCCESS, &[])
    }

    const HERE: &str = "192.0.2.1:1000";
    const THERE: &str = "192.0.2.2:2000";
    const ELSEWHERE: &str = "192.0.2.3:3000";
    const SERVER: &str = "192.0.2.9:3478";

    fn record() -> Record {
        let record = Record::default();
        record.bound(addr(HERE));
        record.remote_description(
            "v=0\r\na=candidate:1 1 udp 9 192.0.2.2 2000 typ srflx raddr 0.0.0.0 rport 0\r\n",
        );
        record
    }

    #[test]
    fn a_pair_waits_then_is_tried_then_answered_then_taken() {
        let record = record();
        let state = || record.pairs().iter().map(|pair| (pair.remote.kind, pair.state)).collect::<Vec<_>>();
        let srflx = CandidateKind::ServerReflexive;
        assert_eq!(state(), [(srflx, PairState::Waiting)]);
        sent(&record, addr(HERE), addr(THERE), &request(), true);
        assert_eq!(state(), [(srflx, PairState::Failed)]);
        sent(&record, addr(HERE), addr(THERE), &request(), false);
        sent(&record, addr(HERE), addr(ELSEWHERE), &request(), false);
        let others = (CandidateKind::PeerReflexive, PairState::InProgress);
        assert_eq!(state(), [(srflx, PairState::InProgress), others]);
        heard(&record, addr(HERE), addr(THERE), &success());
        assert_eq!(state(), [(srflx, PairState::Succeeded), others]);
        assert_eq!(record.selected(), None, "nobody has named it");
        sent(&record, addr(HERE), addr(THERE), &naming(), false);
        heard(&record, addr(HERE), addr(THERE), &success());
        let pair = record.selected().unwrap();
        assert_eq!((pair.requests_sent, pair.responses_received, pair.requests_received), (3, 2, 0));
        assert!(pair.nominated && !pair.is_relayed());
        // The remote names another, after a restart say.
        heard(&record, addr(HERE), addr(ELSEWHERE), &naming());
        assert_eq!(record.selected(), Some(pair), "it was not answered yet");
        heard(&record, addr(HERE), addr(ELSEWHERE), &success());
        assert_eq!(record.selected().unwrap().remote.address, Some(addr(ELSEWHERE)));
    }

    #[test]
    fn a_pair_that_the_remote_names_before_it_was_tried_is_taken_when_it_is_answered() {
        let record = record();
        for port in 1..100_u16 {
            heard(&record, addr(HERE), SocketAddr::new(addr(ELSEWHERE).ip(), port), &request());
        }
        assert_eq!(record.lock().early.len(), MAX_EARLY, "strangers");
        heard(&record, addr(HERE), addr(THERE), &request());
        heard(&record, addr(HERE), addr(THERE), &naming());
        sent(&record, addr(HERE), addr(THERE), &request(), false);
        assert_eq!(record.selected(), None);
        heard(&record, addr(HERE), addr(THERE), &success());
        assert_eq!(record.selected().unwrap().requests_received, 2);
    }

    #[test]
    fn checks_through_a_relay_are_known_by_the_peer_they_are_for() {
        let record = record();
        let mut peer = vec![0, 1];
        peer.extend((2000_u16 ^ 0x2112).to_be_bytes());
        peer.extend([192, 0, 2, 2].iter().zip(MAGIC_COOKIE).map(|(byte, key)| byte ^ key));
        let relayed = |method, inner: Vec<u8>| {
            message(method, INDICATION, &[(XOR_PEER_ADDRESS, &peer), (DATA_ATTRIBUTE, &inner)])
        };
        sent(&record, addr(HERE), addr(SERVER), &relayed(SEND, naming()), false);
        heard(&record, addr(HERE), addr(SERVER), &relayed(DATA, success()));
        let pair = record.selected().unwrap();
        assert!(pair.is_relayed());
        assert_eq!(pair.local, Candidate { kind: CandidateKind::Relay, address: Some(addr(SERVER)) });
        assert_eq!(pair.remote.address, Some(addr(THERE)));
    }

    #[test]
    fn what_is_no_check_is_not_counted_and_what_is_too_much_is_not_kept() {
        let record = Record::default();
        for datagram in [vec![], vec![0], vec![22; 40], message(BINDING, REQUEST, &[]), success(), naming()] {
            heard(&record, addr(HERE), addr(THERE), &datagram);
        }
        sent(&record, addr(HERE), addr(THERE), &message(BINDING, REQUEST, &[]), false);
        for length in 0..request().len() {
            sent(&record, addr(HERE), addr(THERE), &request()[..length], false);
        }
        record.local("candidate:1 1 tcp 9 192.0.2.2 9 typ host tcptype active");
        record.local("candidate:1 1 udp nonsense");
        assert_eq!((record.pairs(), record.local_candidates()), (vec![], vec![]));
        for port in 1..1000_u16 {
            sent(&record, addr(HERE), SocketAddr::new(addr(THERE).ip(), port), &request(), false);
            record.remote(&format!("candidate:1 1 udp 9 192.0.2.2 {port} typ host"));
            record.bound(SocketAddr::new(addr(HERE).ip(), port));
        }
        assert_eq!((record.pairs().len(), record.remote_candidates().len()), (MAX, MAX));
    }
}
