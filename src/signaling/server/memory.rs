//! The lobbies of a single server: [`InMemory`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rand::RngExt as _;
use tokio::time::{Duration, Instant};

use super::mailbox::Mailbox;
use super::rendezvous::{Counts, JoinRequest, Leaving, Membership, Rendezvous, SessionSecret};
use crate::id::PeerId;
use crate::signaling::godot::{CloseReason, Generation, Message, RelayKind};

/// Lobbies in the memory of one server, gone with it.
///
/// One lock over all of it, held for no longer than it takes to tell the members of one lobby something.
pub struct InMemory {
    max_lobbies: usize,
    max_peers_per_lobby: usize,
    restore: Duration,
    started: Instant,
    lobbies: Mutex<Lobbies>,
}

#[derive(Default)]
struct Lobbies {
    by_name: HashMap<String, Lobby>,
    members: usize,
    tickets: u64,
}

struct Lobby {
    generation: Generation,
    mesh: bool,
    sealed: bool,
    /// Made under a name of a client's choice while lobbies of an earlier run are restored: whoever made it, others may
    /// have been in it before.
    restored: bool,
    members: BTreeMap<u32, Member>,
    /// Members whose connection was lost and who did not come back in time.
    lost: VecDeque<(u32, SessionSecret)>,
}

struct Member {
    ticket: u64,
    session: Option<SessionSecret>,
    mailbox: Mailbox,
}

const HOST: u32 = 1;

/// Lost members that a lobby remembers, 8 KiB of them; the oldest is forgotten first.
const MAX_LOST: usize = 256;

/// The longest name that a client may choose for a lobby.
const MAX_NAME_BYTES: usize = 64;

const NAME_LETTERS: u32 = 32;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// How somebody comes into a lobby.
enum Way {
    New(u32),
    /// In the place of a member that is still counted as one.
    Back(u32),
}

impl InMemory {
    /// None yet: at the most `max_lobbies` of `max_peers_per_lobby` each (1 at least). Lobbies of an earlier run can be
    /// restored for `restore` from now on; see [`restore`](super::SignalingServerBuilder::restore).
    pub fn new(max_lobbies: usize, max_peers_per_lobby: usize, restore: Duration) -> InMemory {
        InMemory {
            max_lobbies,
            max_peers_per_lobby: max_peers_per_lobby.max(1),
            restore,
            started: Instant::now(),
            lobbies: Mutex::default(),
        }
    }

    pub(super) fn join_now(&self, request: JoinRequest, mailbox: Mailbox) -> Result<Membership, CloseReason> {
        let restores = self.started.elapsed() < self.restore;
        let mut lobbies = self.lock();
        let name = self.find_or_make(&mut lobbies, &request, restores)?;
        lobbies.tickets += 1;
        let ticket = lobbies.tickets;
        let Some(lobby) = lobbies.by_name.get_mut(&name) else { return Err(CloseReason::ServerError) };
        let way = lobby.way_in(&request, restores, self.max_peers_per_lobby)?;
        let (Way::New(id) | Way::Back(id)) = way;

        let mut greeting = vec![Message::Id { id, mesh: lobby.mesh }];
        let known = lobby.members.keys().filter(|other| lobby.know_each_other(id, **other));
        greeting.extend(known.map(|other| Message::PeerConnect(*other)));
        // Godot's servers say 0 here whatever the lobby is.
        greeting.push(Message::Join { lobby: name.clone(), mesh: true });
        if lobby.sealed {
            greeting.push(Message::Seal);
        }
        let before = lobby.members.remove(&id);
        let resumed = before.is_some();
        let waiting = before.map(|member| member.mailbox.take_over()).unwrap_or_default();
        // Of who came and went meanwhile the greeting tells.
        let still_news = |message: &Message| matches!(message, Message::Relay { peer, .. } if lobby.members.contains_key(peer));
        mailbox.greet(greeting, waiting.into_iter().filter(still_news).collect());
        if !resumed {
            lobby.tell_those_who_know(id, &Message::PeerConnect(id));
        }
        lobby.members.insert(id, Member { ticket, session: request.session, mailbox });
        lobbies.members += usize::from(!resumed);
        Ok(Membership { lobby: name, id, ticket, resumed })
    }

    pub(super) fn relay_now(&self, from: &Membership, to: u32, kind: RelayKind, payload: String) -> bool {
        let lobbies = self.lock();
        let Some(lobby) = lobbies.by_name.get(&from.lobby) else { return false };
        let Some(other) = lobby.members.get(&to) else { return false };
        let may = lobby.is_member(from) && lobby.know_each_other(from.id, to);
        may && other.mailbox.say(Message::Relay { peer: from.id, kind, payload })
    }

    pub(super) fn seal_now(&self, member: &Membership) -> Result<(), CloseReason> {
        let mut lobbies = self.lock();
        let Some(lobby) = lobbies.by_name.get_mut(&member.lobby).filter(|lobby| lobby.is_member(member))
        else {
            return Ok(());
        };
        if member.id != HOST {
            return Err(CloseReason::NotHost);
        }
        if !lobby.sealed {
            lobby.sealed = true;
            for member in lobby.members.values() {
                member.mailbox.say(Message::Seal);
            }
        }
        Ok(())
    }

    pub(super) fn leave_now(&self, member: &Membership, why: Leaving) {
        let mut lobbies = self.lock();
        let Some(lobby) = lobbies.by_name.get_mut(&member.lobby).filter(|lobby| lobby.is_member(member))
        else {
            return;
        };
        let left = lobby.members.remove(&member.id);
        let over = match why {
            Leaving::SealComplete => Some(CloseReason::SealComplete),
            Leaving::ShuttingDown => None,
            _ if member.id == HOST => Some(CloseReason::HostDisconnected),
            _ => None,
        };
        let mut gone = 1;
        if let Some(reason) = over {
            gone += lobby.members.len();
            for member in std::mem::take(&mut lobby.members).into_values() {
                member.mailbox.close(reason.clone());
            }
        } else if why != Leaving::ShuttingDown {
            lobby.tell_those_who_know(member.id, &Message::PeerDisconnect(member.id));
            if let (Leaving::Lost, Some(session)) = (why, left.and_then(|left| left.session)) {
                if lobby.lost.len() >= MAX_LOST {
                    lobby.lost.pop_front();
                }
                lobby.lost.push_back((member.id, session));
            }
        }
        let empty = lobby.members.is_empty();
        if empty {
            lobbies.by_name.remove(&member.lobby);
        }
        lobbies.members -= gone;
    }

    /// The name of the lobby that is meant, which is there now.
    fn find_or_make(
        &self,
        lobbies: &mut Lobbies,
        request: &JoinRequest,
        restores: bool,
    ) -> Result<String, CloseReason> {
        if lobbies.by_name.contains_key(&request.lobby) {
            return Ok(request.lobby.clone());
        }
        let (name, restored) = if request.lobby.is_empty() {
            (unused_name(lobbies), false)
        } else if request.id.is_some() {
            if !restores {
                return Err(CloseReason::NotResumed);
            }
            (request.lobby.clone(), true)
        } else if request.create {
            (request.lobby.clone(), restores)
        } else {
            return Err(CloseReason::LobbyDoesNotExist);
        };
        if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            let rule = "the name of a lobby is 1 to 64 bytes, without control characters";
            return Err(CloseReason::Refused(rule.to_owned()));
        }
        if lobbies.by_name.len() >= self.max_lobbies {
            return Err(CloseReason::TooManyLobbies);
        }
        let lobby = Lobby {
            generation: request.generation,
            mesh: request.mesh,
            sealed: false,
            restored,
            members: BTreeMap::new(),
            lost: VecDeque::new(),
        };
        lobbies.by_name.insert(name.clone(), lobby);
        Ok(name)
    }

    fn lock(&self) -> MutexGuard<'_, Lobbies> {
        self.lobbies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lobby {
    /// The id that somebody gets, if any. A lobby that was just made lets its maker in.
    fn way_in(
        &mut self,
        request: &JoinRequest,
        restores: bool,
        max_peers: usize,
    ) -> Result<Way, CloseReason> {
        if self.generation != request.generation {
            return Err(CloseReason::OtherGeneration(self.generation));
        }
        let same = |member: &Member| member.session.is_some() && member.session == request.session;
        if let Some((id, _)) = self.members.iter().find(|(_, member)| same(member)) {
            return Ok(Way::Back(*id));
        }
        let full = self.members.len() >= max_peers;
        if let Some(id) = request.id.filter(|_| !request.lobby.is_empty()) {
            let free = !self.members.contains_key(&id);
            let was =
                |(lost, session): &(u32, SessionSecret)| *lost == id && Some(*session) == request.session;
            let remembered = self.lost.iter().position(was).filter(|_| free);
            let somebody_elses = remembered.is_none() && self.lost.iter().any(|(lost, _)| *lost == id);
            let claimed = self.restored && restores && free && !somebody_elses && !self.sealed;
            return match remembered {
                _ if full => Err(CloseReason::LobbyFull),
                Some(place) => {
                    self.lost.remove(place);
                    Ok(Way::New(id))
                }
                None if claimed => Ok(Way::New(id)),
                None => Err(CloseReason::NotResumed),
            };
        }
        if self.sealed {
            return Err(CloseReason::LobbySealed);
        }
        if full {
            return Err(CloseReason::LobbyFull);
        }
        // A lobby has members, unless it was just made for this one.
        Ok(Way::New(if self.members.is_empty() { HOST } else { self.unused_id() }))
    }

    fn unused_id(&self) -> u32 {
        loop {
            let id = PeerId::random().get();
            if !self.members.contains_key(&id) && !self.lost.iter().any(|(lost, _)| *lost == id) {
                return id;
            }
        }
    }

    fn is_member(&self, member: &Membership) -> bool {
        self.members.get(&member.id).is_some_and(|there| there.ticket == member.ticket)
    }

    /// In a mesh everybody does; clients of a host know the host alone.
    fn know_each_other(&self, one: u32, other: u32) -> bool {
        one != other && (self.mesh || one == HOST || other == HOST)
    }

    fn tell_those_who_know(&self, id: u32, message: &Message) {
        for (other, member) in &self.members {
            if self.know_each_other(id, *other) {
                member.mailbox.say(message.clone());
            }
        }
    }
}

fn unused_name(lobbies: &Lobbies) -> String {
    let mut rng = rand::rng();
    loop {
        let letter = |_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]);
        let name: String = (0..NAME_LETTERS).map(letter).collect();
        if !lobbies.by_name.contains_key(&name) {
            return name;
        }
    }
}

#[async_trait]
impl Rendezvous for InMemory {
    async fn join(&self, request: JoinRequest, mailbox: Mailbox) -> Result<Membership, CloseReason> {
        self.join_now(request, mailbox)
    }

    async fn relay(&self, from: &Membership, to: u32, kind: RelayKind, payload: String) -> bool {
        self.relay_now(from, to, kind, payload)
    }

    async fn seal(&self, member: &Membership) -> Result<(), CloseReason> {
        self.seal_now(member)
    }

    async fn leave(&self, member: &Membership, why: Leaving) {
        self.leave_now(member, why);
    }

    fn counts(&self) -> Counts {
        let lobbies = self.lock();
        Counts { lobbies: lobbies.by_name.len(), members: lobbies.members }
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
