//! What becomes of a signal: whose connection it is for, which offer counts, and what is too old to count.
//!
//! | an offer, of a peer | what becomes of it |
//! |---|---|
//! | older than another description of that peer | ignored |
//! | of the connection that there is: repeated, or a restart of ICE | handed to it |
//! | of a restart of another connection | ignored: that one is gone here, and the remote will find out |
//! | without a link | a link is made, and it is answered |
//! | that offers by signalling's word: another one | it is there anew, or tries again: a fresh connection answers it |
//! | that we offer to, and are connected with | it has lost us, or has restarted: the same |
//! | that we offer to at the same time | glare: the offer of the lower id counts, and the other side answers it |
//!
//! A stranger's offers have no stamps. Those of one that we offer to are ignored, as it may only repeat what it sent.

use tokio::time::Instant;

use super::waiting::Waiting;
use super::{BACK_OFF, Driver};
use crate::connection::{Mark, RemoteDescription, SdpKind, SessionDescription, Signal, is_too_large};
use crate::error::ConnectionError;
use crate::id::PeerId;
use crate::signaling::Signaling;

impl<S: Signaling> Driver<S> {
    /// A peer's signal goes to the connection that it is for.
    ///
    /// An offer of another connection than ours is for a fresh one, which is made [`BACK_OFF`] after the one before:
    /// until then the last such offer counts.
    pub(super) async fn take(&mut self, from: PeerId, signal: Signal) {
        self.forget_if_gone(from);
        let Signal::Description(description) = &signal else {
            if let Some(signal) = self.waiting.keep(from, signal) {
                self.hand_on(from, signal).await;
            }
            return;
        };
        if is_too_large(&signal) {
            tracing::debug!(peer = %from, "a description that is too large is ignored");
            return;
        }
        let mark = RemoteDescription::parse(&description.sdp).mark;
        if mark.as_ref().and_then(|mark| mark.stamp).is_some_and(|stamp| self.known.is_stale(from, stamp)) {
            tracing::debug!(peer = %from, "a description that is older than another is ignored");
            return;
        }
        self.known.described(from, mark.is_some());
        if description.kind == SdpKind::Answer {
            return self.hand_on(from, signal).await;
        }
        match self.place_of_offer(from, description, mark.as_ref()).await {
            Place::Connection => self.hand_on(from, signal).await,
            Place::Nowhere(why) => tracing::debug!(peer = %from, "an offer is ignored: {why}"),
            Place::Fresh { not_before } => match self.waiting.get(from) {
                Some(waiting) if waiting.signals.first() == Some(&signal) => {}
                Some(waiting) if waiting.we_offer && mark.is_none() => {
                    tracing::debug!(peer = %from, "the offer of a stranger that we offer to is ignored");
                }
                // It waits for what the one before waited for.
                Some(&Waiting { not_before, blocked_since, we_offer, .. }) if !we_offer => {
                    let waiting = Waiting { blocked_since, ..Waiting::new(false, Some(signal), not_before) };
                    self.waiting.put(from, waiting);
                }
                _ => self.waiting.put(from, Waiting::new(false, Some(signal), not_before)),
            },
        }
    }

    async fn place_of_offer(
        &mut self,
        from: PeerId,
        offer: &SessionDescription,
        mark: Option<&Mark>,
    ) -> Place {
        let now = Instant::now();
        // A fresh connection must not answer it: the remote would take that for the answer of the one that is gone.
        if let Some(mark) = mark.filter(|mark| mark.restart > 0) {
            let ours = match self.links.get(&from) {
                Some(link) => link.connection.token().await.is_some_and(|token| token == mark.token),
                None => false,
            };
            return if ours {
                Place::Connection
            } else {
                Place::Nowhere("it restarts ICE of a connection that is gone")
            };
        }
        let Some(link) = self.links.get(&from) else { return Place::Fresh { not_before: now } };
        let fresh = Place::Fresh { not_before: link.since + BACK_OFF };
        if !link.we_offer {
            return if link.connection.is_other_offer(offer).await { fresh } else { Place::Connection };
        }
        match mark {
            None => Place::Nowhere("it is we who offer to that stranger"),
            Some(_) if !self.is_connecting(from) => fresh,
            Some(_) if self.mesh.id() > from => fresh,
            Some(_) => {
                // The two have crossed, or ours was lost: then there is no answer soon.
                if let Some(link) = self.links.get_mut(&from)
                    && !link.connection.is_answered()
                {
                    link.next = link.next.map(|next| next.min(now.max(link.since + CROSSING)));
                    link.hastened = true;
                }
                Place::Nowhere("ours counts, which was made at the same time")
            }
        }
    }

    pub(super) async fn hand_on(&mut self, from: PeerId, signal: Signal) {
        let Some(link) = self.links.get(&from) else {
            tracing::debug!(peer = %from, "a signal of a peer that is not being connected is ignored");
            return;
        };
        match link.connection.handle_signal(signal).await {
            // Candidates of a former attempt.
            Ok(()) | Err(ConnectionError::Closed) => {}
            Err(error) => tracing::debug!(peer = %from, %error, "a signal is ignored"),
        }
    }
}

/// Where an offer goes.
enum Place {
    /// To the connection that there is.
    Connection,
    /// To a fresh one, made at this time.
    Fresh {
        not_before: Instant,
    },
    Nowhere(&'static str),
}

/// How long an answer may take when two offers have passed each other on their ways.
const CROSSING: tokio::time::Duration = tokio::time::Duration::from_secs(2);
