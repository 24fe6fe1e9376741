//! What waits for one session: [`Mailbox`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::signaling::godot::{CloseReason, Message};

/// Where a [`Rendezvous`](super::Rendezvous) puts what one client is to be told. Clones are the same mailbox.
///
/// What members say to each other ([`Relay`](Message::Relay)) is bounded in messages and bytes
/// ([`outbox`](super::SignalingServerBuilder::outbox)), of one sender's to a quarter of that, and in the bytes of all
/// mailboxes together ([`outboxes_bytes`](super::SignalingServerBuilder::outboxes_bytes)). What is over it is not taken:
/// it costs those who say it, and never ends the session that it is for.
///
/// What the server itself says has room of its own, 1,024 messages, or twice as many as a lobby may have members if that
/// is more. Who comes and goes before the client has heard of it is not mentioned, nor is what it said, so that is enough
/// for any lobby. If it is not, the session, which would otherwise miss something in silence, ends:
/// [`Unresponsive`](CloseReason::Unresponsive).
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

struct Shared {
    contents: Mutex<Contents>,
    changed: Notify,
}

struct Contents {
    bounds: Bounds,
    budget: Arc<Budget>,
    /// As many as a lobby has peers, and two or three. Said first, and not counted.
    greeting: VecDeque<Message>,
    messages: VecDeque<Message>,
    /// Relays among the messages; the others are the server's own.
    relays: usize,
    /// Of the relays.
    bytes: usize,
    /// How many of the relays, and of their bytes, are from whom.
    shares: HashMap<u32, (usize, usize)>,
    /// Peers whose coming is among the messages.
    coming: HashSet<u32>,
    end: Option<Letter>,
    /// The session is over; nobody reads any more.
    shut: bool,
}

/// How much may wait in one mailbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) relays: usize,
    pub(super) bytes: usize,
    /// Messages of the server's own.
    pub(super) news: usize,
}

/// How many bytes of relays may wait in all mailboxes together, and do.
#[derive(Debug)]
pub(super) struct Budget {
    max: usize,
    used: AtomicUsize,
}

/// What comes out of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Letter {
    /// The client is to be told.
    Say(Message),
    /// It is a member no more, and its connection is to be closed. Nothing follows.
    Close(CloseReason),
    /// Something did not fit. Nothing follows.
    Overflow,
}

/// Which letters are wanted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them, in order.
    All,
    /// The client is being told something: only that too much of the server's own waits.
    Overflow,
    /// The client cannot be told anything: only the end.
    End,
}

/// One sender's share of the bounds is this part; it may always have one message waiting.
const SHARES: usize = 4;

/// What a message takes beside its payload.
const OVERHEAD_BYTES: usize = 32;

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget { max, used: AtomicUsize::new(0) })
    }

    /// Takes so much, if it is there.
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes what is there already, and only changes hands.
    fn take_anyway(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Mailbox {
    pub(super) fn new(bounds: Bounds, budget: Arc<Budget>) -> Mailbox {
        let contents = Contents {
            bounds,
            budget,
            greeting: VecDeque::new(),
            messages: VecDeque::new(),
            relays: 0,
            bytes: 0,
            shares: HashMap::new(),
            coming: HashSet::new(),
            end: None,
            shut: false,
        };
        Mailbox { shared: Arc::new(Shared { contents: Mutex::new(contents), changed: Notify::new() }) }
    }

    /// Tells the client what it is told on joining, before anything else: its id, who is there, the lobby's name; and
    /// then what has been waiting for it ([`take_over`](Mailbox::take_over)). Called once. The greeting is bounded by
    /// the lobby's size, and does not count.
    pub fn greet(&self, greeting: Vec<Message>, waiting: Vec<Message>) {
        let mut contents = self.lock();
        if contents.shut {
            return;
        }
        contents.greeting.extend(greeting);
        for message in waiting {
            contents.budget.take_anyway(bytes(&message));
            contents.push(message);
        }
        drop(contents);
        self.shared.changed.notify_one();
    }

    /// Tells the client. False if it was not taken: the session is at its end, too much of what members say waits, of
    /// this one or of all, or there is no room for what the server says, so that the session ends.
    pub fn say(&self, message: Message) -> bool {
        let mut contents = self.lock();
        if contents.end.is_some() || contents.shut {
            return false;
        }
        match &message {
            Message::Relay { .. } if !contents.takes_relay(&message) => return false,
            Message::PeerDisconnect(peer) if contents.unsay(*peer) => return true,
            Message::Relay { .. } => {}
            _ if contents.messages.len() - contents.relays < contents.bounds.news => {}
            _ => {
                contents.clear();
                contents.end = Some(Letter::Overflow);
                drop(contents);
                self.shared.changed.notify_one();
                return false;
            }
        }
        contents.push(message);
        drop(contents);
        self.shared.changed.notify_one();
        true
    }

    /// The client is a member no more: its connection is closed, after what was said before. Always taken; of several,
    /// the first counts.
    pub fn close(&self, reason: CloseReason) {
        let mut contents = self.lock();
        if contents.end.is_none() {
            contents.end = Some(Letter::Close(reason));
        }
        drop(contents);
        self.shared.changed.notify_one();
    }

    /// Somebody else takes the member's place: what waits, in order, is for that one, and this session ends with
    /// [`Replaced`](CloseReason::Replaced).
    pub fn take_over(&self) -> Vec<Message> {
        let mut contents = self.lock();
        let waiting = contents.messages.drain(..).collect();
        contents.clear();
        contents.end = Some(Letter::Close(CloseReason::Replaced));
        drop(contents);
        self.shared.changed.notify_one();
        waiting
    }

    /// The next letter of those that are wanted. One reader at a time.
    ///
    /// Cancel-safe: a letter is taken out when it is returned.
    pub(super) async fn next(&self, wanted: Wanted) -> Letter {
        loop {
            if let Some(letter) = self.try_next(wanted) {
                return letter;
            }
            self.shared.changed.notified().await;
        }
    }

    pub(super) fn try_next(&self, wanted: Wanted) -> Option<Letter> {
        let mut contents = self.lock();
        if wanted == Wanted::All {
            if let Some(message) = contents.greeting.pop_front() {
                return Some(Letter::Say(message));
            }
            if let Some(message) = contents.pop() {
                return Some(Letter::Say(message));
            }
        }
        if contents.shut || (wanted == Wanted::Overflow && contents.end != Some(Letter::Overflow)) {
            return None;
        }
        let end = contents.end.clone()?;
        contents.shut = true;
        Some(end)
    }

    /// As if something of the server's own had not fit.
    pub(super) fn overflow(&self) {
        let mut contents = self.lock();
        contents.clear();
        contents.end.get_or_insert(Letter::Overflow);
        drop(contents);
        self.shared.changed.notify_one();
    }

    /// The session is over: nothing is kept any more.
    pub(super) fn shut(&self) {
        let mut contents = self.lock();
        contents.clear();
        contents.shut = true;
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.shared.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relays that wait, their bytes, and messages of the server's own.
    #[cfg(any(test, fuzzing))]
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let contents = self.lock();
        (contents.relays, contents.bytes, contents.messages.len() - contents.relays)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_at_its_end(&self) -> bool {
        self.lock().end.is_some()
    }
}

impl Contents {
    /// Whether there is room for one more of what members say, which is then taken of the budget.
    fn takes_relay(&self, message: &Message) -> bool {
        let Message::Relay { peer, .. } = message else { return false };
        let (bytes, bounds) = (bytes(message), self.bounds);
        let flooded = self.shares.get(peer).is_some_and(|(relays, share)| {
            *relays >= bounds.relays / SHARES || share + bytes > bounds.bytes / SHARES
        });
        let fits = self.relays < bounds.relays && self.bytes + bytes <= bounds.bytes;
        fits && !flooded && self.budget.take(bytes)
    }

    /// Whether the client has not yet been told that this peer came; it is told neither that, nor what it said since.
    fn unsay(&mut self, peer: u32) -> bool {
        if !self.coming.remove(&peer) {
            return false;
        }
        let coming = self.messages.iter().rposition(|message| *message == Message::PeerConnect(peer));
        let since = self.messages.split_off(coming.unwrap_or(self.messages.len()));
        for message in since {
            match message {
                Message::PeerConnect(who) if who == peer => {}
                Message::Relay { peer: who, .. } if who == peer => self.discount(&message),
                _ => self.messages.push_back(message),
            }
        }
        true
    }

    /// Of what is pushed, the budget knows already.
    fn push(&mut self, message: Message) {
        match &message {
            Message::Relay { peer, .. } => {
                let bytes = bytes(&message);
                let share = self.shares.entry(*peer).or_default();
                *share = (share.0 + 1, share.1 + bytes);
                self.bytes += bytes;
                self.relays += 1;
            }
            Message::PeerConnect(peer) => {
                self.coming.insert(*peer);
            }
            _ => {}
        }
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.discount(&message);
        Some(message)
    }

    fn discount(&mut self, message: &Message) {
        match message {
            Message::Relay { peer, .. } => {
                let bytes = bytes(message);
                self.bytes -= bytes;
                self.relays -= 1;
                self.budget.give_back(bytes);
                if let Some(share) = self.shares.get_mut(peer) {
                    *share = (share.0 - 1, share.1 - bytes);
                    if share.0 == 0 {
                        self.shares.remove(peer);
                    }
                }
            }
            Message::PeerConnect(peer) => {
                self.coming.remove(peer);
            }
            _ => {}
        }
    }

    fn clear(&mut self) {
        self.budget.give_back(self.bytes);
        (self.relays, self.bytes) = (0, 0);
        self.greeting = VecDeque::new();
        self.messages = VecDeque::new();
        self.shares = HashMap::new();
        self.coming = HashSet::new();
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.lock();
        f.debug_struct("Mailbox").field("messages", &contents.messages.len()).finish_non_exhaustive()
    }
}

/// What a relay takes; nothing else is counted.
fn bytes(message: &Message) -> usize {
    match message {
        Message::Relay { payload, .. } => OVERHEAD_BYTES + payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(relays: usize, bytes: usize, news: usize) -> Mailbox {
        Mailbox::new(Bounds { relays, bytes, news }, Budget::new(usize::MAX))
    }

    fn relay(peer: u32, payload: &str) -> Message {
        let kind = crate::signaling::godot::RelayKind::Candidate;
        Message::Relay { peer, kind, payload: payload.to_owned() }
    }

    fn letters(mailbox: &Mailbox) -> Vec<Letter> {
        std::iter::from_fn(|| mailbox.try_next(Wanted::All)).collect()
    }

    #[test]
    fn news_that_do_not_fit_end_it_and_nothing_is_kept() {
        let mailbox = mailbox(1, 1_000, 2);
        assert!(mailbox.say(Message::PeerConnect(2)) && mailbox.say(Message::PeerConnect(3)));
        assert!(!mailbox.say(Message::PeerConnect(4)));
        assert!(!mailbox.say(Message::PeerConnect(5)));
        assert_eq!(letters(&mailbox), [Letter::Overflow]);
    }

    #[test]
    fn however_many_flood_it_nobody_gets_it_closed_and_news_have_room() {
        let mailbox = mailbox(8, 10_000, 2);
        for sender in 2..40 {
            for _ in 0..10 {
                mailbox.say(relay(sender, &"x".repeat(500)));
            }
        }
        assert_eq!(mailbox.load().0, 8);
        assert!(!mailbox.say(relay(99, "")), "it is full");
        assert!(
            mailbox.say(Message::PeerConnect(99)) && mailbox.say(Message::Seal),
            "the server has its own"
        );
        assert!(!mailbox.is_at_its_end());
    }

    #[test]
    fn one_who_floods_has_a_quarter() {
        let mailbox = mailbox(8, 1_000, 8);
        let long = "x".repeat(500);
        assert!(mailbox.say(relay(7, &long)), "one is taken whatever its share");
        assert!(!mailbox.say(relay(7, "")));
        let taken = (0..100).filter(|_| mailbox.say(relay(8, "short"))).count();
        assert_eq!(taken, 2);
        assert!(mailbox.say(relay(9, "there is room for others")));
        assert_eq!(mailbox.try_next(Wanted::All), Some(Letter::Say(relay(7, &long))));
        assert!(mailbox.say(relay(7, "again")));
        assert!(!mailbox.say(relay(8, "short")));
    }

    #[test]
    fn who_comes_and_goes_unheard_of_is_not_mentioned() {
        let mailbox = mailbox(8, 1_000, 3);
        assert!(mailbox.say(relay(7, "before")) && mailbox.say(Message::PeerDisconnect(7)));
        for _ in 0..1_000 {
            assert!(mailbox.say(Message::PeerConnect(7)) && mailbox.say(relay(7, "unheard")));
            assert!(mailbox.say(relay(8, "meanwhile")) || mailbox.load().0 >= 2);
            assert!(mailbox.say(Message::PeerDisconnect(7)));
        }
        assert!(mailbox.say(Message::PeerConnect(7)));
        let say = Letter::Say;
        let meanwhile = || say(relay(8, "meanwhile"));
        assert_eq!(
            letters(&mailbox),
            [
                say(relay(7, "before")),
                say(Message::PeerDisconnect(7)),
                meanwhile(),
                meanwhile(),
                say(Message::PeerConnect(7))
            ]
        );
        assert!(mailbox.say(Message::PeerDisconnect(7)));
        assert_eq!(letters(&mailbox), [say(Message::PeerDisconnect(7))], "it has been heard of");
    }

    #[test]
    fn all_mailboxes_together_hold_no_more_than_the_budget() {
        let budget = Budget::new(100);
        let bounds = Bounds { relays: 100, bytes: 10_000, news: 8 };
        let [one, other] = [(); 2].map(|()| Mailbox::new(bounds, Arc::clone(&budget)));
        let message = || relay(7, "18 bytes and 32 are");
        assert!(one.say(message()));
        assert!(!other.say(relay(7, &"x".repeat(60))) && other.say(relay(7, "")));
        assert_eq!(budget.used(), 51 + 32);
        assert!(!one.say(message()), "it is used up");
        assert!(one.say(Message::PeerConnect(9)), "of the server's there is no end");
        other.try_next(Wanted::All);
        assert!(other.say(relay(7, "")));
        // What changes hands is counted once.
        let heir = Mailbox::new(bounds, Arc::clone(&budget));
        heir.greet(vec![], one.take_over());
        assert_eq!(budget.used(), 51 + 32);
        other.overflow();
        assert_eq!(budget.used(), 51);
        drop(heir);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_greeting_does_not_count_and_comes_first() {
        let mailbox = mailbox(1, 1_000, 1);
        mailbox.greet(vec![Message::PeerConnect(2), Message::PeerConnect(3)], vec![]);
        assert!(mailbox.say(Message::Seal));
        mailbox.close(CloseReason::HostDisconnected);
        let order: Vec<_> = std::iter::from_fn(|| mailbox.try_next(Wanted::All)).collect();
        let say = |message| Letter::Say(message);
        assert_eq!(
            order,
            [
                say(Message::PeerConnect(2)),
                say(Message::PeerConnect(3)),
                say(Message::Seal),
                Letter::Close(CloseReason::HostDisconnected)
            ]
        );
    }

    #[test]
    fn while_nobody_listens_only_the_end_comes_out() {
        let mailbox = mailbox(8, 1_000, 1);
        assert!(mailbox.say(Message::Seal));
        assert_eq!(mailbox.try_next(Wanted::End), None);
        assert_eq!(mailbox.take_over(), [Message::Seal]);
        assert_eq!(mailbox.try_next(Wanted::End), Some(Letter::Close(CloseReason::Replaced)));
    }
}
