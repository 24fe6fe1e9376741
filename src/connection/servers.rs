//! What the ICE servers of one connection say to it: [`ServerWatch`].
//!
//! The library tells nobody why a server gave no candidate: its callback for that is never called, and what it writes
//! to its log names no server. A TURN server that refuses without asking for credentials, or does not answer, it does
//! not even notice. So the requests to the configured servers and the answers to them are read here, as they go
//! through our sockets. Nothing else is looked into, and nothing that is found changes what the library does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ice_server::Server;
use super::stun::{BINDING, ERROR, REQUEST, SUCCESS, Stun, Transaction};
use crate::error::{IceServerError, IceServerProblem};

/// Follows the servers of one connection.
#[derive(Debug)]
pub(super) struct ServerWatch {
    servers: Vec<Server>,
    /// A relay is the only way.
    relay_only: bool,
    /// A later connection would ask the same servers with the same credentials.
    repeats: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Addresses that are bound here.
    bound: Vec<SocketAddr>,
    /// What is known of each server.
    known: Vec<Known>,
    /// Requests without an answer, by their transaction; at the most [`MAX_REQUESTS`].
    requests: HashMap<Transaction, Request>,
    outcomes: HashMap<Asking, Outcome>,
    /// That there is no relay was told.
    told: bool,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// It could not even be asked.
    unasked: Option<IceServerProblem>,
    refused_remote: Option<u16>,
    warned: bool,
}

/// One address asks another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asking {
    relay: bool,
    from: SocketAddr,
    to: SocketAddr,
}

#[derive(Debug)]
struct Request {
    asking: Asking,
    /// It carries credentials.
    signed: bool,
    /// How many times it was sent.
    sent: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Waiting,
    Good,
    Bad(IceServerProblem),
}

/// There is no relay, and there is no other way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoRelay {
    /// Each TURN server, and why.
    pub(crate) errors: Vec<IceServerError>,
    /// It will be the same for every later connection of this configuration.
    pub(crate) is_final: bool,
}

/// A request that was sent so many times is taken for unanswered: 4.5 s after the first for STUN, 4.6 s for TURN. The
/// library gives up 3 s later, or not at all.
const UNANSWERED_AFTER: u32 = 6;

/// Two for each bound address and server, and far more than that.
const MAX_REQUESTS: usize = 1024;

impl ServerWatch {
    pub(super) fn new(servers: Vec<Server>, relay_only: bool, repeats: bool) -> ServerWatch {
        let known = servers.iter().map(|_| Known::default()).collect();
        let state = Mutex::new(State { known, ..State::default() });
        ServerWatch { servers, relay_only, repeats, state }
    }

    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// An address was bound.
    pub(super) fn bound(&self, addr: SocketAddr) {
        self.lock().bound.push(addr);
    }

    /// What became of the names of all servers, in their order.
    pub(super) fn resolved(&self, found: &[Result<Vec<SocketAddr>, String>]) -> Option<NoRelay> {
        let mut state = self.lock();
        let State { bound, known, .. } = &mut *state;
        for (known, found) in known.iter_mut().zip(found) {
            match found {
                Ok(addresses) => {
                    let common = |to: &SocketAddr| bound.iter().any(|from| from.is_ipv4() == to.is_ipv4());
                    known.addresses.clone_from(addresses);
                    known.unasked =
                        (!addresses.iter().any(common)).then_some(IceServerProblem::NoCommonFamily);
                }
                Err(error) => known.unasked = Some(IceServerProblem::Unresolved(error.clone())),
            }
        }
        self.conclude(state)
    }

    /// A datagram was sent, or could not be.
    pub(super) fn sent(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
        error: Option<&std::io::Error>,
    ) -> Option<NoRelay> {
        let stun = Stun::parse(datagram).filter(|stun| stun.class == REQUEST)?;
        let relay = match stun.method {
            ALLOCATE => true,
            BINDING => false,
            _ => return None,
        };
        let mut state = self.lock();
        let asked =
            |(server, known): (&Server, &Known)| server.relay == relay && known.addresses.contains(&to);
        if !self.servers.iter().zip(&state.known).any(asked) {
            return None;
        }
        let asking = Asking { relay, from, to };
        if let Some(error) = error {
            let problem = IceServerProblem::Unreachable(error.to_string());
            state.outcomes.insert(asking, Outcome::Bad(problem));
            return self.conclude(state);
        }
        let State { requests, outcomes, .. } = &mut *state;
        let outcome = outcomes.entry(asking).or_insert(Outcome::Waiting);
        if requests.len() >= MAX_REQUESTS && !requests.contains_key(&stun.transaction) {
            return None;
        }
        let signed = stun.attribute(MESSAGE_INTEGRITY).is_some();
        let request = requests.entry(stun.transaction).or_insert(Request { asking, signed, sent: 0 });
        request.sent += 1;
        if request.sent != UNANSWERED_AFTER || *outcome != Outcome::Waiting {
            return None;
        }
        *outcome = Outcome::Bad(IceServerProblem::Unanswered);
        self.conclude(state)
    }

    /// A datagram was received.
    pub(super) fn heard(&self, from: SocketAddr, datagram: &[u8]) -> Option<NoRelay> {
        let stun = Stun::parse(datagram).filter(|stun| matches!(stun.class, SUCCESS | ERROR))?;
        let code = stun.attribute(ERROR_CODE).and_then(code_of).unwrap_or(0);
        let mut state = self.lock();
        if (stun.method, stun.class) == (CREATE_PERMISSION, ERROR) && code != STALE_NONCE {
            let known = state.known.iter_mut().filter(|known| known.addresses.contains(&from));
            known.for_each(|known| known.refused_remote = Some(code));
            tracing::debug!(code, "a TURN server does not relay to an address of the remote");
            return None;
        }
        let Request { asking, signed, .. } = state.requests.remove(&stun.transaction)?;
        let asks_for_credentials =
            code == UNAUTHORIZED && stun.attribute(REALM).is_some() && stun.attribute(NONCE).is_some();
        let outcome = match stun.class {
            SUCCESS if asking.relay && !signed => Outcome::Bad(IceServerProblem::NoCredentialsWanted),
            SUCCESS => Outcome::Good,
            // It answers, and waits for credentials.
            _ if asking.relay && !signed && asks_for_credentials => Outcome::Waiting,
            _ => Outcome::Bad(IceServerProblem::Refused { code }),
        };
        state.outcomes.insert(asking, outcome);
        self.conclude(state)
    }

    /// The servers that are of no use, as far as is known, in the order of the configuration.
    pub(super) fn errors(&self) -> Vec<IceServerError> {
        let state = self.lock();
        let problem = |(server, known)| {
            let refused = || known_refusal(known);
            Some(named(server, state.problem(server, known).or_else(refused)?))
        };
        self.servers.iter().zip(&state.known).filter_map(problem).collect()
    }

    /// Warns of what is new, once for each server, and finds whether there is no relay, once.
    fn conclude(&self, mut state: MutexGuard<'_, State>) -> Option<NoRelay> {
        let problems: Vec<Option<IceServerProblem>> = self
            .servers
            .iter()
            .zip(&state.known)
            .map(|(server, known)| state.problem(server, known))
            .collect();
        let mut warnings = Vec::new();
        for ((server, known), problem) in self.servers.iter().zip(&mut state.known).zip(&problems) {
            if let Some(problem) = problem
                && !std::mem::replace(&mut known.warned, true)
            {
                warnings.push(named(server, problem.clone()));
            }
        }
        let relays = || self.servers.iter().zip(&problems).filter(|(server, _)| server.relay);
        let mut no_relay = None;
        if self.relay_only && !state.told && relays().all(|(_, problem)| problem.is_some()) {
            state.told = true;
            let error = |(server, problem): (&Server, &Option<IceServerProblem>)| {
                problem.clone().map(|problem| named(server, problem))
            };
            let errors: Vec<IceServerError> = relays().filter_map(error).collect();
            let is_final = self.repeats && errors.iter().all(|error| error.problem.is_final());
            no_relay = Some(NoRelay { errors, is_final });
        }
        drop(state);
        for error in warnings {
            tracing::warn!("{error}");
        }
        no_relay
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Why a server is of no use: every address of ours that has asked it was refused. `None` as long as one was not.
    fn problem(&self, server: &Server, known: &Known) -> Option<IceServerProblem> {
        if known.unasked.is_some() {
            return known.unasked.clone();
        }
        let outcomes = self
            .outcomes
            .iter()
            .filter(|(asking, _)| asking.relay == server.relay && known.addresses.contains(&asking.to));
        let mut problem = None;
        for (_, outcome) in outcomes {
            match outcome {
                Outcome::Bad(bad) => problem = Some(bad.clone()),
                Outcome::Good | Outcome::Waiting => return None,
            }
        }
        problem
    }
}

fn known_refusal(known: &Known) -> Option<IceServerProblem> {
    known.refused_remote.map(|code| IceServerProblem::RefusedRemote { code })
}

fn named(server: &Server, problem: IceServerProblem) -> IceServerError {
    IceServerError { url: server.url.clone(), problem }
}

const ALLOCATE: u16 = 3;
const CREATE_PERMISSION: u16 = 8;

const MESSAGE_INTEGRITY: u16 = 0x08;
const ERROR_CODE: u16 = 0x09;
const REALM: u16 = 0x14;
const NONCE: u16 = 0x15;

const UNAUTHORIZED: u16 = 401;
const STALE_NONCE: u16 = 438;

fn code_of(attribute: &[u8]) -> Option<u16> {
    let [_, _, class, number, ..] = attribute else { return None };
    Some(u16::from(class & 7) * 100 + u16::from(*number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::IceServer;
    use crate::connection::stun::MAGIC_COOKIE;

    const SERVER: &str = "192.0.2.1:3478";
    const ANSWERED: &[(u16, &[u8])] = &[];

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn here() -> SocketAddr {
        addr("198.51.100.1:1000")
    }

    fn message(method: u16, class: u16, transaction: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let kind = (method & 0xf) | (class & 1) << 4 | (class & 2) << 7;
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
        datagram.extend([transaction; 12]);
        datagram.extend(body);
        datagram
    }

    fn watch(servers: &[IceServer], relay_only: bool, repeats: bool) -> ServerWatch {
        let servers: Vec<Server> = servers.iter().map(|server| server.check().unwrap()).collect();
        let found: Vec<_> = servers.iter().map(|_| Ok(vec![addr(SERVER)])).collect();
        let watch = ServerWatch::new(servers, relay_only, repeats);
        watch.bound(here());
        assert_eq!(watch.resolved(&found), None);
        watch
    }

    fn turn() -> IceServer {
        IceServer::turn(format!("turn:{SERVER}"), "alice", "secret")
    }

    fn stun() -> IceServer {
        IceServer::stun(format!("stun:{SERVER}"))
    }

    /// Asks for a relay without credentials, is asked for them, and asks with them: transaction 2.
    fn challenged(watch: &ServerWatch) {
        assert_eq!(watch.sent(here(), addr(SERVER), &message(ALLOCATE, REQUEST, 1, &[]), None), None);
        let challenge =
            message(ALLOCATE, ERROR, 1, &[(ERROR_CODE, &[0, 0, 4, 1]), (REALM, b"r"), (NONCE, b"n")]);
        assert_eq!(watch.heard(addr(SERVER), &challenge), None);
        let signed = message(ALLOCATE, REQUEST, 2, &[(MESSAGE_INTEGRITY, &[0; 20])]);
        assert_eq!(watch.sent(here(), addr(SERVER), &signed, None), None);
        assert_eq!(watch.errors(), vec![]);
    }

    fn refused(code: u16) -> Vec<IceServerError> {
        let problem = IceServerProblem::Refused { code };
        vec![IceServerError { url: format!("turn:{SERVER}"), problem }]
    }

    fn refusal(transaction: u8, class: u8, number: u8) -> Vec<u8> {
        message(ALLOCATE, ERROR, transaction, &[(ERROR_CODE, &[0, 0, class, number])])
    }

    #[test]
    fn a_refusal_is_told_once_and_is_final_if_asking_again_is_in_vain() {
        for (class, number, repeats, is_final) in
            [(4, 1, true, true), (4, 1, false, false), (4, 86, true, false), (5, 8, true, false)]
        {
            let watch = watch(&[turn()], true, repeats);
            challenged(&watch);
            let code = u16::from(class) * 100 + u16::from(number);
            let errors = refused(code);
            let no_relay = watch.heard(addr(SERVER), &refusal(2, class, number));
            assert_eq!(no_relay, Some(NoRelay { errors: errors.clone(), is_final }));
            assert_eq!(watch.heard(addr(SERVER), &refusal(2, class, number)), None, "a repeated answer");
            assert_eq!(watch.errors(), errors);
        }
    }

    #[test]
    fn a_server_that_gives_a_relay_has_no_error() {
        let watch = watch(&[turn()], true, true);
        challenged(&watch);
        assert_eq!(watch.heard(addr(SERVER), &message(ALLOCATE, SUCCESS, 2, ANSWERED)), None);
        assert_eq!(watch.errors(), vec![]);
        // It does not relay to everyone.
        let forbidden = message(CREATE_PERMISSION, ERROR, 3, &[(ERROR_CODE, &[0, 0, 4, 3])]);
        assert_eq!(watch.heard(addr(SERVER), &forbidden), None);
        assert_eq!(watch.errors()[0].problem, IceServerProblem::RefusedRemote { code: 403 });
    }

    #[test]
    fn a_refusal_that_asks_for_no_credentials_is_told() {
        for (code, answer) in [(300, refusal(1, 3, 0)), (401, refusal(1, 4, 1)), (500, refusal(1, 5, 0))] {
            let watch = watch(&[turn()], true, true);
            assert_eq!(watch.sent(here(), addr(SERVER), &message(ALLOCATE, REQUEST, 1, &[]), None), None);
            assert_eq!(watch.heard(addr(SERVER), &answer).unwrap().errors, refused(code));
        }
    }

    #[test]
    fn what_is_sent_again_and_again_is_unanswered_until_it_is_answered() {
        let watch = watch(&[stun()], false, true);
        let request = message(BINDING, REQUEST, 1, &[]);
        for _ in 1..UNANSWERED_AFTER {
            assert_eq!(watch.sent(here(), addr(SERVER), &request, None), None);
            assert_eq!(watch.errors(), vec![]);
        }
        assert_eq!(watch.sent(here(), addr(SERVER), &request, None), None, "a relay is not needed");
        assert_eq!(watch.errors()[0].problem, IceServerProblem::Unanswered);
        assert_eq!(watch.heard(addr(SERVER), &message(BINDING, SUCCESS, 1, ANSWERED)), None);
        assert_eq!(watch.errors(), vec![]);
    }

    #[test]
    fn one_relay_is_enough() {
        let other = IceServer::turn("turn:192.0.2.2", "alice", "secret");
        let servers: Vec<Server> = [turn(), other].iter().map(|server| server.check().unwrap()).collect();
        let watch = ServerWatch::new(servers, true, true);
        watch.bound(here());
        let unknown = Err("no such name".to_owned());
        assert_eq!(watch.resolved(&[Ok(vec![addr(SERVER)]), unknown]), None);
        assert_eq!(watch.errors()[0].problem, IceServerProblem::Unresolved("no such name".to_owned()));
        challenged_but_one(&watch);
        let no_relay = watch.heard(addr(SERVER), &refusal(2, 4, 1)).unwrap();
        assert_eq!((no_relay.errors.len(), no_relay.is_final), (2, false), "a name may be found later");
    }

    fn challenged_but_one(watch: &ServerWatch) {
        let signed = message(ALLOCATE, REQUEST, 2, &[(MESSAGE_INTEGRITY, &[0; 20])]);
        assert_eq!(watch.sent(here(), addr(SERVER), &signed, None), None);
        assert_eq!(watch.errors().len(), 1);
    }

    #[test]
    fn a_server_of_another_family_or_without_a_route_is_told() {
        let servers = vec![turn().check().unwrap()];
        let watch = ServerWatch::new(servers, true, true);
        watch.bound(here());
        let no_relay = watch.resolved(&[Ok(vec![addr("[2001:db8::1]:3478")])]).unwrap();
        assert_eq!(no_relay.errors[0].problem, IceServerProblem::NoCommonFamily);
        assert!(no_relay.is_final);

        let watch = self::watch(&[turn()], true, true);
        let error = std::io::Error::from(std::io::ErrorKind::NetworkUnreachable);
        let request = message(ALLOCATE, REQUEST, 1, &[]);
        let no_relay = watch.sent(here(), addr(SERVER), &request, Some(&error)).unwrap();
        assert!(matches!(no_relay.errors[0].problem, IceServerProblem::Unreachable(_)));
    }

    #[test]
    fn whatever_else_goes_over_the_socket_is_not_looked_into() {
        let watch = watch(&[turn(), stun()], true, true);
        let request = message(ALLOCATE, REQUEST, 1, &[]);
        for _ in 0..10 {
            assert_eq!(watch.sent(here(), addr("192.0.2.9:3478"), &request, None), None, "another server");
            assert_eq!(
                watch.sent(here(), addr(SERVER), &message(4, REQUEST, 1, &[]), None),
                None,
                "a refresh"
            );
        }
        assert_eq!(watch.heard(addr(SERVER), &refusal(1, 4, 1)), None, "nobody asked");
        let whole = refusal(1, 4, 1);
        for length in 0..whole.len() {
            let _ = watch.sent(here(), addr(SERVER), &request, None);
            let _ = watch.heard(addr(SERVER), &whole[..length]);
        }
        assert_eq!(watch.heard(addr(SERVER), &[0xff; 40]), None);
    }

    #[test]
    fn requests_that_nobody_answers_are_bounded() {
        let watch = watch(&[turn()], false, true);
        for n in 0..10 * MAX_REQUESTS {
            let mut request = message(ALLOCATE, REQUEST, 1, &[]);
            request[8..16].copy_from_slice(&n.to_be_bytes());
            let _ = watch.sent(here(), addr(SERVER), &request, None);
        }
        assert_eq!(watch.lock().requests.len(), MAX_REQUESTS);
    }
}
