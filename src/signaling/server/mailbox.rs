//! What waits for one session: [`Mailbox`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::signaling::godot::{CloseReason, Message};

/// Where a [`Rendezvous`](super::Rendezvous) puts what one client is to be told. Clones are the same mailbox.
///
/// Bounded in messages and bytes ([`outbox`](super::SignalingServerBuilder::outbox)). A message that does not fit is
/// not taken, nor is any after it, and the session, which would otherwise miss something in silence, ends:
/// [`Unresponsive`](CloseReason::Unresponsive).
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

struct Shared {
    contents: Mutex<Contents>,
    changed: Notify,
}

#[derive(Default)]
struct Contents {
    max_messages: usize,
    max_bytes: usize,
    /// As many as a lobby has peers, and two or three. Said first, and not counted.
    greeting: VecDeque<Message>,
    messages: VecDeque<Message>,
    bytes: usize,
    end: Option<Letter>,
    /// The session is over; nobody reads any more.
    shut: bool,
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
    /// The client is being told something: only that too much waits.
    Overflow,
    /// The client cannot be told anything: only the end.
    End,
}

/// What a message takes beside its payload.
const OVERHEAD_BYTES: usize = 32;

impl Mailbox {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Mailbox {
        let contents = Contents { max_messages, max_bytes, ..Contents::default() };
        Mailbox { shared: Arc::new(Shared { contents: Mutex::new(contents), changed: Notify::new() }) }
    }

    /// Tells the client what it is told on joining, before anything else: its id, who is there, the lobby's name; and
    /// then what has been waiting for it ([`take_over`](Mailbox::take_over)). Called once. The greeting is bounded by
    /// the lobby's size, and does not count.
    pub fn greet(&self, greeting: Vec<Message>, waiting: Vec<Message>) {
        let mut contents = self.lock();
        contents.greeting.extend(greeting);
        for message in waiting {
            contents.bytes += bytes(&message);
            contents.messages.push_back(message);
        }
        drop(contents);
        self.shared.changed.notify_one();
    }

    /// Tells the client. False if it was not taken: the session is at its end, or the mailbox is full, so that it is
    /// now.
    pub fn say(&self, message: Message) -> bool {
        let mut contents = self.lock();
        if contents.end.is_some() || contents.shut {
            return false;
        }
        let bytes = contents.bytes + bytes(&message);
        let fits = contents.messages.len() < contents.max_messages && bytes <= contents.max_bytes;
        if fits {
            contents.bytes = bytes;
            contents.messages.push_back(message);
        } else {
            contents.clear();
            contents.end = Some(Letter::Overflow);
        }
        drop(contents);
        self.shared.changed.notify_one();
        fits
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
            if let Some(message) = contents.messages.pop_front() {
                contents.bytes -= bytes(&message);
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

    /// As if something had not fit.
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

    #[cfg(any(test, fuzzing))]
    pub(super) fn load(&self) -> (usize, usize) {
        let contents = self.lock();
        (contents.messages.len(), contents.bytes)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn is_at_its_end(&self) -> bool {
        self.lock().end.is_some()
    }
}

impl Contents {
    fn clear(&mut self) {
        self.greeting = VecDeque::new();
        self.messages = VecDeque::new();
        self.bytes = 0;
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contents = self.lock();
        f.debug_struct("Mailbox").field("messages", &contents.messages.len()).finish_non_exhaustive()
    }
}

fn bytes(message: &Message) -> usize {
    let payload = match message {
        Message::Relay { payload, .. } => payload.len(),
        Message::Join { lobby, .. } => lobby.len(),
        _ => 0,
    };
    OVERHEAD_BYTES + payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_ends_it_and_nothing_is_kept() {
        let mailbox = Mailbox::new(2, 1_000);
        assert!(mailbox.say(Message::PeerConnect(2)) && mailbox.say(Message::PeerConnect(3)));
        assert!(!mailbox.say(Message::PeerConnect(4)));
        assert!(!mailbox.say(Message::PeerConnect(5)));
        assert_eq!(mailbox.try_next(Wanted::All), Some(Letter::Overflow));
        assert_eq!(mailbox.try_next(Wanted::All), None);
    }

    #[test]
    fn a_greeting_does_not_count_and_comes_first() {
        let mailbox = Mailbox::new(1, 1_000);
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
        let mailbox = Mailbox::new(8, 1_000);
        assert!(mailbox.say(Message::Seal));
        assert_eq!(mailbox.try_next(Wanted::End), None);
        assert_eq!(mailbox.take_over(), [Message::Seal]);
        assert_eq!(mailbox.try_next(Wanted::End), Some(Letter::Close(CloseReason::Replaced)));
    }
}
