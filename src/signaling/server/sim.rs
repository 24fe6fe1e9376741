//! A few clients against the lobbies in memory, without a network: what bytes, or a property test, tell them to do,
//! and what must hold whatever that is.

#![allow(clippy::expect_used, clippy::panic, reason = "what must hold, and is not part of the library")]

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::{Duration, Instant};

use super::mailbox::{Bounds, Budget, Mailbox, Wanted};
use super::memory::InMemory;
use super::rate::Rate;
use super::rendezvous::{JoinRequest, Leaving, Membership, Rendezvous as _, SessionSecret};
use super::session::state::{Effect, Input, Limits, State};
use crate::signaling::godot::{CloseReason, Generation, Message, RelayKind};

/// The bounds that the clients meet, small so that they do.
const MAX_LOBBIES: usize = 3;
const MAX_PEERS: usize = 4;
const MAX_RELAYS: usize = 6;
const MAX_BYTES: usize = 600;
const MAX_BYTES_OF_ALL: usize = 1_000;
/// That each member goes, and another one comes, and the seal: more cannot wait.
const MAX_NEWS: usize = 2 * (MAX_PEERS - 1) + 1;
const MAX_CLIENTS: usize = 12;

const BOUNDS: Bounds = Bounds { relays: MAX_RELAYS, bytes: MAX_BYTES, news: MAX_NEWS };

const LIMITS: Limits = Limits {
    join: Duration::from_secs(1),
    ping: Duration::from_secs(10),
    silence: Duration::from_secs(25),
    resume: Duration::from_secs(15),
    seal: Duration::from_secs(10),
    messages: Rate { per_second: 100.0, burst: 20.0 },
};

pub(crate) struct World {
    lobbies: InMemory,
    budget: Arc<Budget>,
    clients: Vec<Client>,
    now: Instant,
    /// Whom the last step was about.
    acting: usize,
}

struct Client {
    state: State,
    mailbox: Mailbox,
    request: JoinRequest,
    /// What has no answer yet.
    asked: Option<Effect>,
    /// Does not take what it is told.
    deaf: bool,
    /// Those that it has been told of.
    known: BTreeSet<u32>,
    told: Vec<Message>,
    closed: Option<CloseReason>,
}

impl World {
    pub(crate) fn new(restores: bool) -> World {
        let restore = if restores { Duration::from_secs(3_600) } else { Duration::ZERO };
        World {
            lobbies: InMemory::new(MAX_LOBBIES, MAX_PEERS, restore),
            budget: Budget::new(MAX_BYTES_OF_ALL),
            clients: Vec::new(),
            now: Instant::now(),
            acting: 0,
        }
    }

    /// Does what three bytes say, and looks whether all is well. Of eight steps, one is followed by the next before
    /// anybody has been told anything, and another one before anybody has had an answer.
    pub(crate) fn step(&mut self, [what, who, how]: [u8; 3]) {
        let choice = usize::from(who) % self.clients.len().max(1);
        let outside = || self.clients.iter().position(|client| client.is_undecided());
        let is_member = |client: usize| self.clients[client].state.membership().is_some();
        // What would only be refused is rare: it says the same each time.
        let anyway = how == 255;
        let generation = if (240..250).contains(&how) { Generation::Godot3 } else { Generation::Godot4 };
        let say = |message: Message| Input::Text(message.encode(generation).into());
        let action = match what % 32 {
            0..4 => None,
            _ if self.clients.is_empty() => None,
            4..12 => outside().or(anyway.then_some(choice)).map(|client| {
                let lobby = ["", "a", "a", "a", "a", "a", "b", "b"][usize::from(how % 8)].to_owned();
                (client, say(Message::Join { lobby, mesh: how & 16 == 0 }))
            }),
            12..19 if is_member(choice) || anyway => {
                let known = self.clients[choice].known.iter().copied();
                let to = known.chain([1, 2, 0]).nth(usize::from(how % 4)).unwrap_or(77);
                let payload = "x".repeat(usize::from(how));
                let kind = RelayKind::Candidate;
                Some((choice, say(Message::Relay { peer: to, kind, payload })))
            }
            19 if is_member(choice) || anyway => Some((choice, say(Message::Seal))),
            20 => Some((choice, Input::Binary(vec![how; usize::from(how % 9)].into()))),
            21 | 22 => Some((choice, Input::Goodbye)),
            23..27 => Some((choice, Input::Lost)),
            27 => {
                self.clients[choice].deaf = how % 4 == 0;
                Some((choice, Input::Beat))
            }
            // It is the server that stops, so all hear it, and nobody is told of the others.
            30 if how > 250 => {
                for client in 0..self.clients.len() {
                    self.acting = client;
                    self.tell(client, Input::Stop);
                }
                None
            }
            30 => Some((choice, Input::Unreadable(CloseReason::TooLarge))),
            31 => None,
            _ => {
                self.now += Duration::from_millis(u64::from(how) * 50);
                for client in 0..self.clients.len() {
                    self.acting = client;
                    self.tell(client, Input::Tick);
                }
                None
            }
        };
        if let Some((client, input)) = action {
            self.acting = client;
            self.tell(client, input);
        } else if what % 32 < 4 || self.clients.is_empty() {
            self.connect(who, how);
        }
        match what {
            0..192 => {
                self.settle();
                self.check();
            }
            192..224 => (0..self.clients.len()).for_each(|client| {
                self.answer(client);
            }),
            224.. => {}
        }
    }

    fn connect(&mut self, who: u8, how: u8) {
        self.settle();
        self.clients.retain(|client| !client.state.is_over());
        if self.clients.len() >= MAX_CLIENTS {
            return;
        }
        let session = (how & 3 != 0).then(|| format!("{:032x}", who % 4));
        let session: Option<SessionSecret> = session.and_then(|session| session.parse().ok());
        let request = JoinRequest {
            create: how & 4 == 0,
            id: (session.is_some() && how & 0x18 == 0x18).then_some(u32::from(who / 4 % 3) + 1),
            session,
            ..JoinRequest::new("", Generation::Godot4)
        };
        self.clients.push(Client {
            state: State::new(LIMITS, session.is_some(), self.now),
            mailbox: Mailbox::new(BOUNDS, Arc::clone(&self.budget)),
            request,
            asked: None,
            deaf: false,
            known: BTreeSet::new(),
            told: Vec::new(),
            closed: None,
        });
    }

    /// As the task does it: input by input, with what they bring about.
    fn tell(&mut self, client: usize, input: Input) {
        let frame = matches!(input, Input::Text(_) | Input::Binary(_) | Input::Beat);
        if frame && !self.clients[client].state.reads() {
            return; // It waits in the connection.
        }
        let mut effects = Vec::new();
        self.clients[client].state.handle(input, self.now, &mut effects);
        for effect in effects {
            self.perform(client, effect);
        }
        self.clients[client].over();
    }

    fn perform(&mut self, client: usize, effect: Effect) {
        match effect {
            Effect::Join { .. } | Effect::Relay { .. } | Effect::Seal(_) => {
                assert_eq!(self.clients[client].asked.replace(effect), None, "one at a time");
            }
            Effect::Leave(membership, why) => {
                assert!(why != Leaving::Lost || self.acting == client, "what others do takes no place away");
                self.lobbies.leave_now(&membership, why);
            }
            Effect::Say(text) => self.clients[client].hear(&text),
            Effect::Close(reason) => {
                self.blame(client, &reason);
                assert_eq!(self.clients[client].closed.replace(reason), None, "closed once");
            }
            Effect::Ping | Effect::Drop | Effect::Count(_) => {}
        }
    }

    /// What the lobbies say to what a client has asked.
    fn answer(&mut self, client: usize) -> bool {
        let asked = self.clients[client].asked.take();
        let answer = match asked {
            Some(Effect::Join { generation, lobby, mesh }) => {
                let (request, mailbox) =
                    (self.clients[client].request.clone(), self.clients[client].mailbox.clone());
                let request = JoinRequest { generation, lobby, mesh, ..request };
                Input::Joined(self.lobbies.join_now(request, mailbox))
            }
            Some(Effect::Relay { from, to, kind, payload }) => {
                Input::Relayed(self.lobbies.relay_now(&from, to, kind, payload))
            }
            Some(Effect::Seal(membership)) => Input::Sealed(self.lobbies.seal_now(&membership)),
            _ => return false,
        };
        self.acting = client;
        self.tell(client, answer);
        true
    }

    /// Only what a client itself has done closes it, or what its lobby comes to.
    fn blame(&self, client: usize, reason: &CloseReason) {
        let by_others = matches!(
            reason,
            CloseReason::HostDisconnected | CloseReason::SealComplete | CloseReason::Replaced
        );
        assert!(by_others || client == self.acting, "{reason} for what {} did", self.acting);
        let session = self.clients[client].request.session;
        let same = |other: &&Client| other.request.session.is_some() && other.request.session == session;
        let came_back = self.clients.iter().filter(same).count() > 1;
        assert!(*reason != CloseReason::Replaced || came_back, "it is another one");
    }

    /// Everyone has its answers, and whoever listens is told what waits.
    fn settle(&mut self) {
        let mut rest = true;
        while rest {
            rest = false;
            for client in 0..self.clients.len() {
                rest |= self.answer(client);
                let Client { state, mailbox, deaf, .. } = &self.clients[client];
                let wanted = match (state.talks(), deaf) {
                    (true, false) => Wanted::All,
                    (true, true) => Wanted::Overflow,
                    (false, _) => Wanted::End,
                };
                let letter = Some(mailbox).filter(|_| state.has_seat()).and_then(|it| it.try_next(wanted));
                if let Some(letter) = letter {
                    rest = true;
                    self.tell(client, Input::Letter(letter));
                } else if *deaf && state.talks() && state.has_seat() && mailbox.is_at_its_end() {
                    // What is being written takes too long.
                    rest = true;
                    self.tell(client, Input::Lost);
                }
            }
        }
    }

    /// When nothing is under way, all is as it should be.
    fn check(&self) {
        let members = || self.clients.iter().filter_map(|client| client.state.membership());
        let seats: BTreeSet<(&str, u32)> = members().map(|it| (it.lobby.as_str(), it.id)).collect();
        assert_eq!(seats.len(), members().count(), "ids are unique in a lobby");
        for client in &self.clients {
            let (relays, bytes, news) = client.mailbox.load();
            assert!(relays <= MAX_RELAYS && bytes <= MAX_BYTES && news <= MAX_NEWS, "what waits is bounded");
            let Some(Membership { lobby, id, .. }) = client.state.membership() else { continue };
            if client.state.talks() && !client.deaf {
                let Some(Message::Id { id: told, mesh }) = client.told.first() else {
                    panic!("its id comes first, but {:?} did", client.told.first());
                };
                assert_eq!(told, id);
                let others = seats.iter().filter(|(there, _)| there == lobby).map(|(_, other)| *other);
                let known = others.filter(|other| other != id && (*mesh || *id == 1 || *other == 1));
                assert_eq!(client.known, known.collect(), "everyone there, and nobody else");
            }
        }
        let waiting = self.clients.iter().map(|client| client.mailbox.load().1);
        assert_eq!(self.budget.used(), waiting.sum::<usize>(), "what waits is counted");
        assert!(self.budget.used() <= MAX_BYTES_OF_ALL);
        let counts = self.lobbies.counts();
        let lobbies: BTreeSet<&str> = seats.iter().map(|(lobby, _)| *lobby).collect();
        assert_eq!((counts.members, counts.lobbies), (seats.len(), lobbies.len()));
        assert!(counts.lobbies <= MAX_LOBBIES && counts.members <= MAX_LOBBIES * MAX_PEERS);
    }
}

impl Client {
    fn hear(&mut self, text: &str) {
        let generation = if text.starts_with('{') { Generation::Godot4 } else { Generation::Godot3 };
        let message = Message::decode(generation, text).expect("what the server says is a message");
        match &message {
            Message::Id { .. } => assert!(self.told.is_empty(), "first, and once"),
            Message::PeerConnect(peer) => assert!(self.known.insert(*peer), "told of each once"),
            Message::PeerDisconnect(peer) => assert!(self.known.remove(peer), "of nobody unknown"),
            Message::Relay { peer, .. } => assert!(self.known.contains(peer), "from nobody unknown"),
            Message::Join { .. } | Message::Seal => {}
        }
        self.told.push(message);
    }

    /// Whether it may yet join.
    fn is_undecided(&self) -> bool {
        self.state.talks() && self.state.reads() && !self.state.has_seat()
    }

    fn over(&mut self) {
        if self.state.is_over() {
            self.mailbox.shut();
        }
    }
}

/// Any bytes, as clients.
pub(crate) fn play(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let mut world = World::new(first % 2 == 0);
    for step in steps.chunks_exact(3) {
        world.step([step[0], step[1], step[2]]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

        #[test]
        fn whatever_clients_do_lobbies_stay_in_order(
            restores: bool,
            steps in prop::collection::vec(any::<[u8; 3]>(), 1..150),
        ) {
            let mut world = World::new(restores);
            steps.into_iter().for_each(|step| world.step(step));
            // And when all have gone, nothing is left.
            world.settle();
            for client in 0..world.clients.len() {
                world.acting = client;
                world.tell(client, Input::Goodbye);
                world.tell(client, Input::Lost);
            }
            world.settle();
            world.now += Duration::from_secs(60);
            for client in 0..world.clients.len() {
                world.acting = client;
                world.tell(client, Input::Tick);
                prop_assert!(world.clients[client].state.is_over());
            }
            prop_assert_eq!(world.lobbies.counts().lobbies, 0);
        }
    }

    /// One step of a client that is connected.
    const CONNECT: u8 = 0;
    const JOIN: u8 = 4;
    const SEAL: u8 = 19;
    const LOST: u8 = 23;
    const WAIT: u8 = 28;

    #[test]
    fn the_steps_reach_what_they_are_for() {
        let mut world = World::new(false);
        // Two with sessions, in a lobby that the first one makes.
        for who in [0, 1] {
            world.step([CONNECT, who, 1]);
            world.step([JOIN, who, 1]);
        }
        assert_eq!(world.lobbies.counts().members, 2);
        // The second is lost, and comes back on a third connection.
        world.step([LOST, 1, 0]);
        assert!(world.clients[1].state.is_kept());
        world.step([CONNECT, 1, 1]);
        world.step([JOIN, 2, 1]);
        assert!(world.clients[1].state.is_over());
        assert_eq!(world.clients[2].known, BTreeSet::from([1]));
        assert_eq!(world.clients[0].told.len(), 3, "{:?}", world.clients[0].told);
        world.step([SEAL, 0, 0]);
        world.step([WAIT, 0, 190]);
        assert_eq!(world.clients[0].closed, None);
        world.step([WAIT, 0, 10]);
        assert_eq!(world.clients[0].closed, Some(CloseReason::SealComplete));
        assert_eq!(world.clients[2].closed, Some(CloseReason::SealComplete));
        assert_eq!(world.lobbies.counts().lobbies, 0);
    }
}
