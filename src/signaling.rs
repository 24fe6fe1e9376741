//! How the members of a mesh find each other: the [`Signaling`] trait, an in-memory one, [`loopback`], and with the
//! features `ws` and `server` a client and a server of the protocol that Godot games speak.
//!
//! A mesh needs somebody who says who is there, and who carries descriptions and candidates between two peers until
//! they have a connection of their own. That may be a WebSocket server, a chat room, or a sheet of paper. Implement
//! [`Signaling`] over it and give it to [`MeshBuilder::join`](crate::MeshBuilder::join):
//!
//! * [`join`](Signaling::join) says who we are;
//! * [`next`](Signaling::next) says who came and went, and brings what peers send;
//! * [`send`](Signaling::send) carries a signal to one peer;
//! * [`leave`](Signaling::leave) says that we go.
//!
//! One whose meeting place has a name and can be locked, as Godot's lobbies can, says so too:
//! [`lobby`](Signaling::lobby), [`seal`](Signaling::seal).
//!
//! Signals between two peers are best kept in order. Lost ones cost time: an attempt that does not come up within
//! the attempt limit is followed by a fresh one.
//!
//! One for two peers, over tokio's channels:
//!
//! ```
//! use tokio::sync::mpsc::{Receiver, Sender};
//! use webrtc_mesh::{PeerId, Signal, Signaling, SignalingError, SignalingEvent};
//!
//! struct Pair {
//!     me: PeerId,
//!     other: PeerId,
//!     to_other: Sender<SignalingEvent>,
//!     from_other: Receiver<SignalingEvent>,
//! }
//!
//! impl Pair {
//!     fn say(&self, event: SignalingEvent) -> Result<(), SignalingError> {
//!         self.to_other.try_send(event).map_err(|error| SignalingError::Transport(error.to_string()))
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl Signaling for Pair {
//!     async fn join(&mut self) -> Result<PeerId, SignalingError> {
//!         // The other side learns of us, and whether it offers: the lower id does.
//!         self.say(SignalingEvent::PeerJoined { peer: self.me, we_offer: self.other < self.me })?;
//!         Ok(self.me)
//!     }
//!
//!     async fn next(&mut self) -> Result<SignalingEvent, SignalingError> {
//!         self.from_other.recv().await.ok_or(SignalingError::Closed)
//!     }
//!
//!     async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError> {
//!         if to != self.other {
//!             return Err(SignalingError::UnknownPeer(to));
//!         }
//!         self.say(SignalingEvent::Signal { from: self.me, signal })
//!     }
//!
//!     async fn leave(&mut self) {
//!         let _ = self.say(SignalingEvent::PeerLeft(self.me));
//!     }
//! }
//! ```
//!
//! Whoever runs the signalling says who is who, and is trusted with that: a mesh encrypts to whom the descriptions
//! name, and the descriptions come from here.

use async_trait::async_trait;

use crate::connection::Signal;
use crate::error::SignalingError;
use crate::id::PeerId;

#[cfg(feature = "godot")]
#[cfg_attr(docsrs, doc(cfg(feature = "godot")))]
pub mod godot;
pub mod loopback;
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub mod server;

/// A way to find the other members and to exchange signals with them.
#[async_trait]
pub trait Signaling: Send + 'static {
    /// Joins, and returns the id that we are known by. Called once, before anything else.
    ///
    /// # Errors
    ///
    /// Whatever keeps us out; [`MeshBuilder::join`](crate::MeshBuilder::join) fails with it.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped if it takes longer than the handshake limit, and the signalling with it.
    async fn join(&mut self) -> Result<PeerId, SignalingError>;

    /// The next thing that happens. Peers that were there before us are reported like those that come later.
    ///
    /// # Errors
    ///
    /// Signalling is gone for good; it is not called again. The owner gets
    /// [`SignalingLost`](crate::MeshEvent::SignalingLost), also after a [`SignalingEvent::Lost`], and connected peers
    /// stay. One that has done its work, and is not expected to go on, waits for ever instead.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped whenever there is something to send, so dropping it must lose nothing. What is to be
    /// sent goes first, so a flood that comes out of here delays nobody.
    async fn next(&mut self) -> Result<SignalingEvent, SignalingError>;

    /// Carries a signal to a peer. Must not wait for the peer: nothing else is sent or heard meanwhile. So it is given
    /// up after 2 s, or after the attempt limit if that is shorter.
    ///
    /// # Errors
    ///
    /// [`SignalingError::UnknownPeer`] concerns that peer alone. After another one the mesh goes on as well: if
    /// signalling is gone, [`next`](Signaling::next) says so.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when it takes too long, or the mesh is closed or dropped: then the signal may be lost.
    async fn send(&mut self, to: PeerId, signal: Signal) -> Result<(), SignalingError>;

    /// Says that we go. Called once, when the mesh closes; not when it is dropped.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped after 2 s, or the farewell time if that is shorter, and the signalling with it.
    async fn leave(&mut self) {}

    /// The name of where we have joined, if it has one: what others need to find us
    /// ([`MeshHandle::lobby`](crate::MeshHandle::lobby)). Asked once, after [`join`](Signaling::join).
    fn lobby(&self) -> Option<String> {
        None
    }

    /// Lets nobody else join ([`MeshHandle::seal_lobby`](crate::MeshHandle::seal_lobby)). As with `send`, nothing
    /// else is sent or heard meanwhile, so it is given up after 2 s.
    ///
    /// # Errors
    ///
    /// [`SignalingError::Unsupported`], unless this is implemented; [`SignalingError::NotHost`] for those who may not.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when it takes too long, or the mesh is closed or dropped: it may be sealed all the same.
    async fn seal(&mut self) -> Result<(), SignalingError> {
        Err(SignalingError::Unsupported)
    }
}

/// What signalling reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignalingEvent {
    /// A peer is there. One of the two offers; both must be told the same.
    ///
    /// With `we_offer`, this says that the peer is there *anew*: a connection that we have with it is replaced, and the
    /// owner gets [`Replaced`](crate::DisconnectReason::Replaced). So a transport that reports everyone again after
    /// it has reconnected says [`PeerReturned`](SignalingEvent::PeerReturned) of those whom it has reported before.
    /// Without `we_offer` a
    /// repeat does nothing: the peer's offer tells whether it is there anew. Of offers that follow each other faster
    /// than every 250 ms, the last one is answered.
    PeerJoined {
        /// Who it is.
        peer: PeerId,
        /// Whether we offer.
        we_offer: bool,
    },
    /// A peer that was there before, and in the same life, can be reached through signalling again. A connection that
    /// we have with it stays; without one, this is as if it had joined.
    PeerReturned {
        /// Who it is.
        peer: PeerId,
        /// Whether we offer, if there is no connection.
        we_offer: bool,
    },
    /// A peer has left the signalling. If no way to it has been found yet, it is given up, in silence; otherwise it
    /// stays, as its connection knows better whether it lives.
    PeerLeft(PeerId),
    /// A peer sends a signal.
    Signal {
        /// Who sends it.
        from: PeerId,
        /// What it sends.
        signal: Signal,
    },
    /// Signalling is not reachable, and the transport tries to reach it again. Until then nothing is sent.
    Lost(SignalingError),
    /// Signalling is reachable again, under the same id. Those who came and went meanwhile are reported before this.
    Restored,
    /// Nobody else can join.
    Sealed,
}
