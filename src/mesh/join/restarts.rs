//! ICE restarts of peers that have gone silent, and their signals, which go by every way that there is: through
//! signalling, and through up to [`RELAYS`] other members. A signal that comes twice does no harm.
//!
//! The side that has offered restarts, among members of this crate; strangers are waited for. It begins as soon as the
//! peer is silent. An offer that is not answered is repeated every [`REPEAT_AFTER`], as it costs nothing, and the old way
//! may heal at any time. An answer gives up the old way, so what it begins has [`RESTART_AFTER`] more: ICE takes a relay
//! after 2 s, and a slow way needs several round trips.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::relayed::{open, seal};
use super::{Driver, Standing};
use crate::connection::{RemoteDescription, Signal};
use crate::id::PeerId;
use crate::peer::control::Frame;
use crate::random;
use crate::signaling::Signaling;

/// How soon an offer that was not answered is repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(2);
/// How soon one that was answered, and did not help, is followed by another.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// How many members are asked to relay a signal.
const RELAYS: usize = 2;

impl<S: Signaling> Driver<S> {
    /// A connected peer is silent, or is heard again.
    pub(super) fn wavered(&mut self, peer: PeerId, silent: bool) {
        if let Some(link) = self.links.get_mut(&peer) {
            let restarts = silent && link.we_offer && !link.connection.is_foreign();
            link.restart = restarts.then(Instant::now);
            link.restarts = link.connection.restarts();
        }
    }

    /// Offers those restarts whose time has come.
    pub(super) async fn offer_restarts(&mut self) {
        let now = Instant::now();
        for (peer, link) in &mut self.links {
            if link.restart.is_some_and(|at| at <= now) {
                let restarts = link.connection.restarts();
                if std::mem::replace(&mut link.restarts, restarts) != restarts {
                    link.restart = Some(now + RESTART_AFTER);
                    continue;
                }
                link.restart = Some(now + REPEAT_AFTER);
                if let Err(error) = link.connection.restart_ice().await {
                    tracing::debug!(%peer, %error, "ICE is not restarted");
                    link.restart = None;
                }
            }
        }
    }

    /// Has a signal of a restart handed on by others.
    pub(super) async fn relay(&mut self, peer: PeerId, signal: &Signal) {
        let Some(link) = self.links.get(&peer) else { return };
        let Some(token) = link.connection.token().await else { return };
        let Some(body) = seal(&token, self.mesh.id(), peer, signal) else { return };
        let relays = {
            let registry = self.mesh.shared.registry();
            let others = registry.iter().filter(|(other, entry)| **other != peer && entry.can_relay());
            let mut others: Vec<_> = others.map(|(_, entry)| entry.clone()).collect();
            let count = others.len().min(RELAYS);
            // Others each time, so that one that hands on nothing is not always asked.
            (0..count).for_each(|place| {
                let left = u32::try_from(others.len() - place).unwrap_or(u32::MAX);
                others.swap(place, place + random::below(left) as usize);
            });
            others.truncate(count);
            others
        };
        for entry in relays {
            entry.peer.relay(Frame::Relay { to: peer.get(), body: body.clone() });
        }
    }

    /// What another member hands on may be a signal of a restart, and nothing else.
    pub(super) async fn take_relayed(&mut self, from: PeerId, body: Bytes) {
        self.forget_if_gone(from);
        let Some(link) = self.links.get(&from) else { return };
        let Some(token) = link.connection.token().await else { return };
        let Some(signal) = open(&token, from, self.mesh.id(), &body) else {
            tracing::debug!(peer = %from, "what another peer hands on was not sealed by the one it is said to be of");
            return;
        };
        if let Signal::Description(description) = &signal {
            let mark = RemoteDescription::parse(&description.sdp).mark;
            let mark = mark.filter(|mark| mark.token == token && mark.restart > 0);
            let Some(stamp) = mark.and_then(|mark| mark.stamp) else { return };
            if self.known.is_stale(from, stamp) {
                return;
            }
        }
        self.hand_on(from, signal).await;
    }

    /// Whether signalling carries signals now.
    pub(super) fn can_signal(&self) -> bool {
        self.standing != Standing::Gone
    }
}
