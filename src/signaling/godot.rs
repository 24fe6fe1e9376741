//! The signalling of Godot's official demo, which stock games speak: its [`Message`]s in both generations, why its
//! servers close a connection ([`CloseReason`]), and a client (with the feature `ws`).
//!
//! Godot 3's demo speaks lines of text, Godot 4's JSON, both over a WebSocket. A client opens the connection, says
//! which *lobby* it joins, or lets the server make one, and is told its id, who else is there, and the lobby's name.
//! Whoever makes a lobby is its host, known to everybody as peer 1. Offers, answers and candidates are handed to the
//! server with the id of whom they are for, and come out there with the id of whom they are from.
//!
//! | | Godot 3 ([`Text`](Generation::Godot3)) | Godot 4 ([`JSON`](Generation::Godot4)) |
//! |---|---|---|
//! | join, or create if empty | `J: LOBBY\n` | `{"type":0,"id":0,"data":"LOBBY"}`; an `id` of 1 makes a client/server lobby |
//! | you are in it | `J: LOBBY\n` | `{"type":0,"id":0,"data":"LOBBY"}` |
//! | your id | `I: ID\n` | `{"type":1,"id":ID,"data":"true"}`, `""` in a client/server lobby |
//! | a peer is there | `N: ID\n` | `{"type":2,"id":ID,"data":""}` |
//! | it has left | `D: ID\n` | `{"type":3,"id":ID,"data":""}` |
//! | offer | `O: ID\nSDP` | `{"type":4,"id":ID,"data":"SDP"}` |
//! | answer | `A: ID\nSDP` | `{"type":5,"id":ID,"data":"SDP"}` |
//! | candidate | `C: ID\n\nMID\nINDEX\nCANDIDATE` | `{"type":6,"id":ID,"data":"\nMID\nINDEX\nCANDIDATE"}` |
//! | nobody joins any more | `S: \n` | `{"type":7,"id":0,"data":""}` |
//! | who offers | the lower id | the higher id |
//!
//! A newcomer is told its id, then who is there, then the lobby's name. The two generations offer in opposite
//! directions, so they cannot meet in one lobby.

#[cfg(feature = "ws")]
mod client;
mod close;
mod json;
mod message;
mod text;

#[cfg(feature = "ws")]
#[cfg_attr(docsrs, doc(cfg(feature = "ws")))]
pub use client::{GodotConnect, GodotSignaling};
pub use close::CloseReason;
pub use message::{MalformedMessage, Message, RelayKind};

use std::fmt;

use crate::id::PeerId;

/// Which of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Generation {
    /// Lines of text, of the demo for Godot 3. The lower id offers, so the host offers to everybody.
    Godot3,
    /// JSON, of the demo for Godot 4. The higher id offers, so everybody offers to the host.
    #[default]
    Godot4,
}

impl Generation {
    /// Whether `us` makes the offer to `them`; just one of the two does.
    pub fn offers(self, us: PeerId, them: PeerId) -> bool {
        match self {
            Generation::Godot3 => us < them,
            Generation::Godot4 => us > them,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Generation::Godot3 => "Godot 3",
            Generation::Godot4 => "Godot 4",
        })
    }
}
