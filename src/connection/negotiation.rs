//! The negotiation of one connection: offer, answer and candidates, in whatever order signalling brings them.
//!
//! And its ICE restarts (RFC 8445 section 9), between members of this crate: the side that offered offers again, with the
//! same token and the next number, and the channels live on over whatever way is found. The library gives up the old way
//! as soon as the local description is set, so ours is set only when the answer is here: an offer that nobody answers
//! costs nothing, and the old way may still heal. One that is not answered is repeated as it is; an answer that may have
//! been lost, too, with the candidates known by then.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rtc::peer_connection::configuration::RTCOfferOptions;
use tokio::time::Instant;
use webrtc::peer_connection::{RTCIceCandidateInit, RTCSessionDescription};

use super::description::{CONTROL_VERSION, MAX_SDP_BYTES, Mark, RemoteDescription, lacks};
use super::signals::MAX_CANDIDATES;
use super::{Agreed, ConnectionState, IceCandidate, Inner, SdpKind, SessionDescription, Signal};
use crate::error::ConnectionError;
use crate::event::Stage;

/// How far the negotiation has come.
#[derive(Debug, Default)]
pub(super) struct Negotiation {
    /// A mesh has made its channels.
    pub(super) claimed: bool,
    pub(super) role: Option<Role>,
    remote: Option<Remote>,
    /// Candidates that came before the description they belong to.
    early: Vec<IceCandidate>,
    candidates: usize,
    /// The number of the last restart that was offered, or answered.
    restart: u32,
    /// The offer of that restart, as long as there is no answer.
    offered: Option<RTCSessionDescription>,
    /// When a restart was answered last, again or not.
    answered: Option<Instant>,
    /// The remote's candidates of this session, as they may come by several ways.
    taken: HashSet<String>,
}

/// The description that was taken.
#[derive(Debug)]
struct Remote {
    identity: Identity,
    /// The ICE session that its candidates are of.
    ufrag: String,
    /// Those before it.
    former: Vec<String>,
    /// Its certificates, which a restart does not change.
    fingerprints: Vec<String>,
}

/// What tells one description from another of the same peer.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// The token of a member of this crate.
    Token(String),
    /// The ICE sessions and certificates of everyone else; each connection has its own.
    Lines(Vec<String>),
}

/// Our part in it.
#[derive(Debug)]
pub(super) enum Role {
    Offerer(Mark),
    Answerer,
}

/// Remote candidates taken by one connection between two restarts.
const MAX_REMOTE_CANDIDATES: usize = 1024;
/// How often restarts of the remote are answered, and their answers repeated; the remote repeats its offers less often.
const ANSWER_EVERY: Duration = Duration::from_millis(500);
/// Former ICE sessions that are remembered: a candidate of an older one costs a few checks that fail.
const MAX_FORMER: usize = 16;
const MAX_CANDIDATE_BYTES: usize = 1024;

/// Whether a signal is over the limits of any connection.
pub(crate) fn is_too_large(signal: &Signal) -> bool {
    match signal {
        Signal::Description(description) => description.sdp.len() > MAX_SDP_BYTES,
        Signal::Candidate(candidate) => candidate.candidate.len() > MAX_CANDIDATE_BYTES,
    }
}

impl Negotiation {
    /// Whether this is the offer that was answered, or another one; `None` if none was answered.
    pub(super) fn has_answered(&self, offer: &SessionDescription) -> Option<bool> {
        match (&self.role, &self.remote) {
            (Some(Role::Answerer), Some(remote)) => Some(Identity::of(&offer.sdp) == remote.identity),
            _ => None,
        }
    }

    /// What both sides have in common, between members of this crate.
    pub(super) fn token(&self) -> Option<&str> {
        match &self.remote.as_ref()?.identity {
            Identity::Token(token) => Some(token),
            Identity::Lines(_) => None,
        }
    }

    /// Which ICE session of the remote's a candidate is of, if it says so.
    fn session_of(&self, candidate: &IceCandidate) -> Session {
        let Some(remote) = &self.remote else { return Session::Coming };
        match ufrag_of(candidate) {
            None => Session::Current,
            Some(ufrag) if ufrag == remote.ufrag => Session::Current,
            // Of a restart whose description is still under way, as it may be if they came by different ways.
            Some(ufrag) if remote.is_among_us() && !remote.former.iter().any(|former| former == ufrag) => {
                Session::Coming
            }
            Some(_) => Session::Former,
        }
    }
}

/// Which ICE session a candidate is of.
#[derive(Debug, PartialEq, Eq)]
enum Session {
    Former,
    Current,
    /// Of one whose description is not here.
    Coming,
}

impl Remote {
    fn is_among_us(&self) -> bool {
        matches!(self.identity, Identity::Token(_))
    }

    fn of(sdp: &str, before: Option<Remote>) -> Remote {
        let mut former = Vec::new();
        if let Some(before) = before {
            former = before.former;
            former.push(before.ufrag);
            former.drain(..former.len().saturating_sub(MAX_FORMER));
        }
        let ufrag = ufrag_of_description(sdp).unwrap_or_default().to_owned();
        Remote { identity: Identity::of(sdp), ufrag, former, fingerprints: fingerprints_of(sdp) }
    }

    /// DTLS lives on through a restart, so the certificates are those that it has proved (RFC 8842 section 5.5).
    fn check_restart(&self, sdp: &str) -> Result<(), ConnectionError> {
        if fingerprints_of(sdp) == self.fingerprints {
            return Ok(());
        }
        Err(ConnectionError::InvalidDescription("a restart of ICE has another fingerprint".to_owned()))
    }
}

impl Identity {
    fn of(sdp: &str) -> Identity {
        if let Some(mark) = RemoteDescription::parse(sdp).mark {
            return Identity::Token(mark.token);
        }
        let lines = sdp.lines().map(str::trim_end);
        let telling = |line: &&str| line.starts_with(UFRAG) || line.starts_with("a=fingerprint:");
        Identity::Lines(lines.filter(telling).map(str::to_owned).collect())
    }
}

/// The address of a candidate, or the name in its place.
fn address_of(candidate: &str) -> Option<&str> {
    candidate.split_whitespace().nth(4)
}

/// A description without those candidates that have a name for an address. They are to be ignored (RFC 8839 section
/// 5.1), as nothing resolves them; the library refuses the whole description for one of them, unless it ends in
/// `.local`.
fn without_names(mut description: SessionDescription) -> SessionDescription {
    let named = |line: &str| {
        line.strip_prefix("a=candidate:")
            .and_then(address_of)
            .is_some_and(|address| address.parse::<IpAddr>().is_err())
    };
    if description.sdp.lines().any(named) {
        tracing::debug!("candidates with names for addresses are left out of a description");
        description.sdp = description.sdp.split_inclusive('\n').filter(|line| !named(line)).collect();
    }
    description
}

const UFRAG: &str = "a=ice-ufrag:";

fn fingerprints_of(sdp: &str) -> Vec<String> {
    let lines = sdp.lines().filter_map(|line| line.trim_end().strip_prefix("a=fingerprint:"));
    lines.map(str::to_ascii_lowercase).collect()
}

fn ufrag_of_description(sdp: &str) -> Option<&str> {
    sdp.lines().find_map(|line| line.trim_end().strip_prefix(UFRAG))
}

/// A description without candidates: those of before a restart name sockets that are about to go.
fn without_candidates(sdp: &str) -> String {
    let is_kept = |line: &&str| !line.starts_with("a=candidate:") && !line.starts_with("a=end-of-candidates");
    sdp.split_inclusive('\n').filter(is_kept).collect()
}

/// The extension by which many name the ICE session of a candidate. Extensions are pairs of a name and a value after
/// the type, as are the related address and port (RFC 8839 section 5.1).
fn ufrag_of(candidate: &IceCandidate) -> Option<&str> {
    let mut words = candidate.candidate.split_ascii_whitespace().skip(8);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name == "ufrag" {
            return Some(value);
        }
    }
    None
}

impl Inner {
    pub(super) async fn offer(&self) -> Result<(), ConnectionError> {
        let mut negotiation = self.negotiation.lock().await;
        self.check_open()?;
        if !negotiation.claimed {
            return Err(ConnectionError::OutOfTurn("add the connection to a mesh before it offers"));
        }
        if negotiation.role.is_some() {
            return Err(ConnectionError::OutOfTurn("the connection negotiates already"));
        }
        let mark = Mark::new();
        let offer = self.library.create_offer(None).await.map_err(|error| library_error(&error))?;
        negotiation.role = Some(Role::Offerer(mark.clone()));
        self.shared.set_state(ConnectionState::Connecting);
        let sdp = mark.write(offer.sdp.clone());
        self.library.set_local_description(offer).await.map_err(|error| library_error(&error))?;
        self.shared.signals.describe(SessionDescription { kind: SdpKind::Offer, sdp });
        Ok(())
    }

    /// Offers an ICE restart, or repeats the offer of one that was not answered.
    pub(super) async fn offer_restart(&self) -> Result<(), ConnectionError> {
        let mut guard = self.negotiation.lock().await;
        let negotiation = &mut *guard;
        self.check_open()?;
        let Some(Role::Offerer(mark)) = &negotiation.role else {
            return Err(ConnectionError::OutOfTurn("the side that has offered restarts ICE"));
        };
        match &negotiation.remote {
            None => return Err(ConnectionError::OutOfTurn("the connection negotiates still")),
            Some(remote) if !remote.is_among_us() => {
                return Err(ConnectionError::OutOfTurn(
                    "ICE is restarted between members of this crate only",
                ));
            }
            Some(_) => {}
        }
        let offer = match &negotiation.offered {
            Some(offer) => offer,
            None => {
                let options = RTCOfferOptions { ice_restart: true };
                let offer = self.library.create_offer(Some(options)).await;
                let offer = offer.map_err(|error| library_error(&error))?;
                negotiation.restart += 1;
                negotiation.offered.insert(offer)
            }
        };
        let sdp = Mark { restart: negotiation.restart, ..mark.clone() }.write(without_candidates(&offer.sdp));
        tracing::debug!(number = negotiation.restart, "an ICE restart is offered");
        self.shared.signals.describe(SessionDescription { kind: SdpKind::Offer, sdp });
        Ok(())
    }

    pub(super) async fn describe(&self, description: SessionDescription) -> Result<(), ConnectionError> {
        let mut negotiation = self.negotiation.lock().await;
        self.check_open()?;
        if description.sdp.len() > MAX_SDP_BYTES {
            return Err(ConnectionError::TooMuch { what: "bytes of a description", limit: MAX_SDP_BYTES });
        }
        let remote = RemoteDescription::parse(&description.sdp);
        match (&negotiation.role, description.kind) {
            (None, SdpKind::Offer) => self.answer(&mut negotiation, description, remote).await?,
            (None, SdpKind::Answer) => {
                return Err(ConnectionError::OutOfTurn("an answer came, but nothing was offered"));
            }
            (Some(Role::Offerer(_)), SdpKind::Offer) => {
                return Err(ConnectionError::OutOfTurn("an offer came, but this side offers"));
            }
            (Some(Role::Answerer), SdpKind::Answer) => {
                return Err(ConnectionError::OutOfTurn("an answer came, but this side answers"));
            }
            (Some(Role::Answerer), SdpKind::Offer)
                if negotiation.has_answered(&description) == Some(true) =>
            {
                let number = remote.mark.as_ref().map_or(0, |mark| mark.restart);
                let now = Instant::now();
                let too_often = negotiation.answered.is_some_and(|answered| now - answered < ANSWER_EVERY);
                if number == 0 || number < negotiation.restart || too_often {
                    tracing::debug!("an offer that was answered, or comes too soon, is ignored");
                } else if number > negotiation.restart {
                    negotiation.answered = Some(now);
                    self.answer_restart(&mut negotiation, description, remote).await?;
                } else if self.shared.condition.borrow().state != ConnectionState::Connected {
                    // Else the answer has arrived, as there is a way.
                    negotiation.answered = Some(now);
                    self.repeat_answer(&remote).await;
                }
            }
            (Some(Role::Answerer), SdpKind::Offer) => {
                return Err(ConnectionError::OutOfTurn("a second offer came; a fresh connection is needed"));
            }
            (Some(Role::Offerer(mark)), SdpKind::Answer) => {
                if remote.mark.as_ref().is_some_and(|theirs| theirs.token != mark.token) {
                    tracing::debug!("the answer to an earlier offer is ignored");
                    return Ok(());
                }
                if negotiation.remote.is_none() {
                    self.set_remote(&mut negotiation, description).await?;
                    self.agree(&negotiation, &remote);
                } else if remote.mark.as_ref().is_some_and(|theirs| theirs.restart == negotiation.restart)
                    && negotiation.offered.is_some()
                {
                    self.finish_restart(&mut negotiation, description).await?;
                } else {
                    return Ok(());
                }
            }
        }
        self.add_early(&mut negotiation).await;
        Ok(())
    }

    /// The candidates that have waited for the description that has come.
    async fn add_early(&self, negotiation: &mut Negotiation) {
        for candidate in std::mem::take(&mut negotiation.early) {
            match negotiation.session_of(&candidate) {
                Session::Former => tracing::debug!("an early candidate of a former attempt is ignored"),
                Session::Coming => negotiation.early.push(candidate),
                Session::Current => {
                    if let Err(error) = self.add_candidate(candidate).await {
                        tracing::debug!(%error, "an early candidate is skipped");
                    }
                }
            }
        }
    }

    /// The remote restarts ICE: its offer is answered, and the old way given up.
    async fn answer_restart(
        &self,
        negotiation: &mut Negotiation,
        offer: SessionDescription,
        remote: RemoteDescription,
    ) -> Result<(), ConnectionError> {
        let Some(mark) = remote.mark else { return Ok(()) };
        if let Some(before) = &negotiation.remote {
            before.check_restart(&offer.sdp)?;
        }
        tracing::debug!(number = mark.restart, "ICE is restarted by the remote");
        self.set_remote(negotiation, offer).await?;
        let answer = self.library.create_answer(None).await.map_err(|error| library_error(&error))?;
        negotiation.restart = mark.restart;
        let sdp = mark.write(without_candidates(&answer.sdp));
        self.shared.begin_restart(ufrag_of_description(&answer.sdp));
        self.library.set_local_description(answer).await.map_err(|error| library_error(&error))?;
        self.shared.signals.describe(SessionDescription { kind: SdpKind::Answer, sdp });
        Ok(())
    }

    /// The answer to this restart may have been lost, and what came after it.
    async fn repeat_answer(&self, remote: &RemoteDescription) {
        let answer = self.library.local_description().await;
        if let (Some(mark), Some(answer)) = (&remote.mark, answer) {
            let sdp = mark.write(without_candidates(&answer.sdp));
            self.shared.signals.repeat(SessionDescription { kind: SdpKind::Answer, sdp });
        }
    }

    /// The restart that we have offered is answered: now the old way is given up.
    async fn finish_restart(
        &self,
        negotiation: &mut Negotiation,
        answer: SessionDescription,
    ) -> Result<(), ConnectionError> {
        if let Some(what) = lacks(&answer) {
            return Err(ConnectionError::InvalidDescription(what.to_owned()));
        }
        if let Some(before) = &negotiation.remote {
            before.check_restart(&answer.sdp)?;
        }
        let Some(offer) = negotiation.offered.take() else { return Ok(()) };
        self.shared.begin_restart(ufrag_of_description(&offer.sdp));
        self.library.set_local_description(offer).await.map_err(|error| library_error(&error))?;
        self.set_remote(negotiation, answer).await
    }

    async fn answer(
        &self,
        negotiation: &mut Negotiation,
        offer: SessionDescription,
        remote: RemoteDescription,
    ) -> Result<(), ConnectionError> {
        if !negotiation.claimed {
            return Err(ConnectionError::OutOfTurn("add the connection to a mesh before it gets an offer"));
        }
        self.set_remote(negotiation, offer).await?;
        negotiation.role = Some(Role::Answerer);
        self.shared.set_state(ConnectionState::Connecting);
        let answer = self.library.create_answer(None).await.map_err(|error| library_error(&error))?;
        let sdp = match &remote.mark {
            Some(theirs) => {
                let version = theirs.version.min(CONTROL_VERSION);
                Mark { version, ..theirs.clone() }.write(answer.sdp.clone())
            }
            None => answer.sdp.clone(),
        };
        self.agree(negotiation, &remote);
        self.library.set_local_description(answer).await.map_err(|error| library_error(&error))?;
        self.shared.signals.describe(SessionDescription { kind: SdpKind::Answer, sdp });
        Ok(())
    }

    async fn set_remote(
        &self,
        negotiation: &mut Negotiation,
        description: SessionDescription,
    ) -> Result<(), ConnectionError> {
        let told = description.sdp.clone();
        let description = without_names(description);
        if let Some(what) = lacks(&description) {
            return Err(ConnectionError::InvalidDescription(what.to_owned()));
        }
        let sdp = description.sdp.clone();
        let invalid = |error: webrtc::error::Error| ConnectionError::InvalidDescription(error.to_string());
        let description = match description.kind {
            SdpKind::Offer => RTCSessionDescription::offer(description.sdp),
            SdpKind::Answer => RTCSessionDescription::answer(description.sdp),
        };
        self.library.set_remote_description(description.map_err(invalid)?).await.map_err(invalid)?;
        self.shared.record.remote_description(&told);
        negotiation.remote = Some(Remote::of(&sdp, negotiation.remote.take()));
        negotiation.candidates = negotiation.early.len();
        negotiation.taken.clear();
        Ok(())
    }

    /// Both descriptions are here.
    fn agree(&self, negotiation: &Negotiation, remote: &RemoteDescription) {
        let agreed = Agreed {
            control: remote.mark.as_ref().map(|mark| mark.version.min(CONTROL_VERSION)),
            // The answerer takes the server's part (see `settings`), so the client is who offered to one that does.
            dtls_client: matches!(negotiation.role, Some(Role::Offerer(_))) && remote.setup_passive,
            max_message_bytes: remote.max_message_bytes.min(self.shared.max_message_bytes),
        };
        if agreed.control.is_some() {
            self.shared.progress.set_among_us();
        }
        self.shared.record.enter(Stage::Ice);
        self.shared.condition.send_modify(|condition| {
            condition.agreed = Some(agreed);
            condition.stage = condition.stage.max(Stage::Ice);
        });
    }

    pub(super) async fn candidate(&self, candidate: IceCandidate) -> Result<(), ConnectionError> {
        let mut negotiation = self.negotiation.lock().await;
        self.check_open()?;
        if candidate.candidate.is_empty() {
            // The end of candidates (RFC 8838 section 14); nothing waits for it.
            return Ok(());
        }
        if candidate.candidate.len() > MAX_CANDIDATE_BYTES {
            return Err(ConnectionError::TooMuch {
                what: "bytes of a candidate",
                limit: MAX_CANDIDATE_BYTES,
            });
        }
        let session = negotiation.session_of(&candidate);
        if session == Session::Former {
            tracing::debug!("a candidate of a former attempt is ignored");
            return Ok(());
        }
        if negotiation.candidates >= MAX_REMOTE_CANDIDATES {
            return Err(ConnectionError::TooMuch { what: "candidates", limit: MAX_REMOTE_CANDIDATES });
        }
        if session == Session::Current {
            if !negotiation.taken.insert(candidate.candidate.clone()) {
                return Ok(());
            }
            negotiation.candidates += 1;
            return self.add_candidate(candidate).await;
        }
        if negotiation.early.len() >= MAX_CANDIDATES && negotiation.remote.is_some() {
            // Of a restart whose description never came.
            negotiation.early.clear();
        }
        if negotiation.early.len() >= MAX_CANDIDATES {
            return Err(ConnectionError::TooMuch { what: "early candidates", limit: MAX_CANDIDATES });
        }
        negotiation.candidates += 1;
        negotiation.early.push(candidate);
        Ok(())
    }

    async fn add_candidate(&self, candidate: IceCandidate) -> Result<(), ConnectionError> {
        let told = candidate.candidate.clone();
        if address_of(&candidate.candidate)
            .is_some_and(|address| address.to_ascii_lowercase().ends_with(".local"))
        {
            // Browsers hide host addresses behind names that only multicast DNS resolves, which is off here. They
            // reach us all the same, and are then known by the address they come from.
            self.shared.record.remote(&told);
            return Ok(());
        }
        let init = RTCIceCandidateInit {
            candidate: candidate.candidate,
            sdp_mid: Some(candidate.sdp_mid),
            sdp_mline_index: Some(candidate.sdp_mline_index),
            ..Default::default()
        };
        let added = self.library.add_ice_candidate(init).await;
        added.map_err(|error| ConnectionError::InvalidCandidate(error.to_string()))?;
        self.shared.record.remote(&told);
        Ok(())
    }

    fn check_open(&self) -> Result<(), ConnectionError> {
        match self.shared.condition.borrow().state {
            ConnectionState::Closed => Err(ConnectionError::Closed),
            _ if self.closing.load(Ordering::Acquire) => Err(ConnectionError::Closed),
            _ => Ok(()),
        }
    }
}

pub(super) fn library_error(error: &webrtc::error::Error) -> ConnectionError {
    match error {
        webrtc::error::Error::ErrConnectionClosed => ConnectionError::Closed,
        other => ConnectionError::Library(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=ice-ufrag:abcd\r\na=fingerprint:sha-256 AB:CD\r\n";

    fn offer(sdp: impl Into<String>) -> SessionDescription {
        SessionDescription { kind: SdpKind::Offer, sdp: sdp.into() }
    }

    fn answered(sdp: &str) -> Negotiation {
        let remote = Some(Remote::of(sdp, None));
        Negotiation { role: Some(Role::Answerer), remote, ..Negotiation::default() }
    }

    #[test]
    fn an_offer_is_known_by_its_token_or_by_its_session_and_certificate() {
        assert_eq!(Negotiation::default().has_answered(&offer(OFFER)), None);
        let foreign = answered(OFFER);
        assert_eq!(foreign.has_answered(&offer(OFFER)), Some(true));
        assert_eq!(foreign.has_answered(&offer(format!("{OFFER}a=candidate:1\r\n"))), Some(true));
        assert_eq!(foreign.has_answered(&offer(OFFER.replace("abcd", "efgh"))), Some(false));
        assert_eq!(foreign.has_answered(&offer(OFFER.replace("AB", "EF"))), Some(false));

        let marked = Mark::new().write(OFFER.to_owned());
        assert_eq!(foreign.has_answered(&offer(&*marked)), Some(false));
        let ours = answered(&marked);
        assert_eq!(ours.has_answered(&offer(marked.replace("abcd", "efgh"))), Some(true));
        assert_eq!(ours.has_answered(&offer(OFFER)), Some(false));
        assert_eq!(ours.has_answered(&offer(Mark::new().write(OFFER.to_owned()))), Some(false));
    }

    #[test]
    fn candidates_with_names_are_left_out_of_a_description() {
        let named = "a=candidate:1 1 udp 1 host.example 5 typ host\r\n";
        let addressed = "a=candidate:2 1 udp 1 ::1 5 typ host\r\n";
        let bare = "a=candidate:3\n";
        let kept = without_names(offer(format!("{OFFER}{named}{addressed}{named}{bare}")));
        assert_eq!(kept, offer(format!("{OFFER}{addressed}{bare}")));
    }

    fn candidate(more: &str) -> IceCandidate {
        let candidate = format!("candidate:1 1 udp 1 10.0.0.1 5 typ srflx raddr 10.0.0.2 rport 6{more}");
        IceCandidate { candidate, sdp_mid: "0".to_owned(), sdp_mline_index: 0 }
    }

    #[test]
    fn a_candidate_of_another_session_of_a_stranger_is_stale_if_it_says_so() {
        let negotiation = answered(OFFER);
        let session = |more: &str| {
            assert_eq!(Negotiation::default().session_of(&candidate(more)), Session::Coming);
            negotiation.session_of(&candidate(more))
        };
        assert_eq!(session(""), Session::Current);
        assert_eq!(session(" generation 0 ufrag abcd network-cost 999"), Session::Current);
        assert_eq!(session(" generation 0 ufrag efgh network-cost 999"), Session::Former);
        assert_eq!(session(" ufrag abcde"), Session::Former);
        assert_eq!(session(" ufrag"), Session::Current);
        assert_eq!(session(" generation ufrag other efgh"), Session::Current);
    }

    #[test]
    fn among_us_a_candidate_of_an_unknown_session_waits_for_its_description() {
        let first = Mark::new().write(OFFER.to_owned());
        let second = Remote::of(&first.replace("abcd", "efgh"), Some(Remote::of(&first, None)));
        let negotiation = Negotiation { remote: Some(second), ..Negotiation::default() };
        assert_eq!(negotiation.session_of(&candidate(" ufrag abcd")), Session::Former);
        assert_eq!(negotiation.session_of(&candidate(" ufrag efgh")), Session::Current);
        assert_eq!(negotiation.session_of(&candidate(" ufrag ijkl")), Session::Coming);
    }

    #[test]
    fn a_restart_keeps_the_certificate() {
        let remote = Remote::of(OFFER, None);
        assert_eq!(remote.check_restart(&OFFER.replace("abcd", "efgh").replace("AB:CD", "ab:cd")), Ok(()));
        assert!(remote.check_restart(&OFFER.replace("AB:CD", "AB:CE")).is_err());
        assert!(remote.check_restart("v=0\r\n").is_err());
    }

    #[test]
    fn the_offer_of_a_restart_names_no_sockets_of_before() {
        let sdp = format!("{OFFER}a=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\na=end-of-candidates\r\n");
        assert_eq!(without_candidates(&sdp), OFFER);
    }
}
