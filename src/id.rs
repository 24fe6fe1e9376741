//! Who is who: [`PeerId`] names a member of the mesh, [`Target`] says whom a packet is for.
//!
//! Both speak Godot's numbers. An id is 1 to 2,147,483,647, 1 is the server; a target is 0 for everyone, `n` for
//! that peer, `-n` for everyone but that peer (`NetworkedMultiplayerPeer.set_target_peer`).

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::random;

/// The id of one member of a mesh: 1 to 2,147,483,647, as in Godot.
///
/// Ids are agreed on by signalling, never on the wire: whoever runs the signalling says who is who.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(NonZeroU32);

impl PeerId {
    /// Peer 1, the server of a server-compatible mesh (Godot's `TARGET_PEER_SERVER`).
    pub const SERVER: PeerId = PeerId(NonZeroU32::MIN);

    /// The largest id, 2³¹ − 1.
    pub const MAX: PeerId = match NonZeroU32::new(i32::MAX as u32) {
        Some(id) => PeerId(id),
        None => PeerId::SERVER,
    };

    /// The id with this number.
    ///
    /// # Errors
    ///
    /// [`InvalidPeerId`] for 0 and for anything above 2,147,483,647.
    pub fn new(id: u32) -> Result<PeerId, InvalidPeerId> {
        match NonZeroU32::new(id) {
            Some(id) if id <= PeerId::MAX.0 => Ok(PeerId(id)),
            _ => Err(InvalidPeerId(i64::from(id))),
        }
    }

    /// A random id, never that of the server: 2 to 2,147,483,647 (Godot's `generate_unique_id`).
    ///
    /// Two peers may draw the same number; with 1,000 peers the chance that any two do is 1 in 4,300.
    pub fn random() -> PeerId {
        let id = 2 + random::below(PeerId::MAX.get() - 1);
        PeerId(NonZeroU32::new(id).unwrap_or(PeerId::MAX.0))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Whether this is peer 1.
    pub fn is_server(self) -> bool {
        self == PeerId::SERVER
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.0)
    }
}

impl FromStr for PeerId {
    type Err = InvalidPeerId;

    fn from_str(text: &str) -> Result<PeerId, InvalidPeerId> {
        let number: i64 = text.trim().parse().map_err(|_| InvalidPeerId::NOT_A_NUMBER)?;
        u32::try_from(number).map_err(|_| InvalidPeerId(number)).and_then(PeerId::new)
    }
}

impl TryFrom<u32> for PeerId {
    type Error = InvalidPeerId;

    fn try_from(id: u32) -> Result<PeerId, InvalidPeerId> {
        PeerId::new(id)
    }
}

impl TryFrom<i32> for PeerId {
    type Error = InvalidPeerId;

    fn try_from(id: i32) -> Result<PeerId, InvalidPeerId> {
        u32::try_from(id).map_err(|_| InvalidPeerId(i64::from(id))).and_then(PeerId::new)
    }
}

impl From<PeerId> for u32 {
    fn from(id: PeerId) -> u32 {
        id.get()
    }
}

impl From<PeerId> for i32 {
    fn from(id: PeerId) -> i32 {
        i32::try_from(id.get()).unwrap_or(i32::MAX)
    }
}

/// A number, or a text, that is no peer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a peer id: ids are whole numbers from 1 to 2147483647", self.shown())]
pub struct InvalidPeerId(i64);

impl InvalidPeerId {
    const NOT_A_NUMBER: InvalidPeerId = InvalidPeerId(i64::MIN);

    fn shown(&self) -> String {
        if *self == InvalidPeerId::NOT_A_NUMBER { "this text".to_owned() } else { self.0.to_string() }
    }
}

/// Whom a packet is for.
///
/// Complete, as Godot's numbers are, so that a `match` needs no other arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Target {
    /// Every connected peer (Godot's `TARGET_PEER_BROADCAST`, 0). Never oneself.
    #[default]
    All,
    /// This peer.
    Peer(PeerId),
    /// Every connected peer but this one. It need not be a member.
    AllExcept(PeerId),
}

impl Target {
    /// Peer 1.
    pub const SERVER: Target = Target::Peer(PeerId::SERVER);

    /// Godot's number for this target: 0 for all, `n` for that peer, `-n` for all but that peer.
    pub fn to_godot(self) -> i32 {
        match self {
            Target::All => 0,
            Target::Peer(peer) => i32::from(peer),
            Target::AllExcept(peer) => -i32::from(peer),
        }
    }
}

impl From<PeerId> for Target {
    fn from(peer: PeerId) -> Target {
        Target::Peer(peer)
    }
}

/// From Godot's number: 0 is all, `n` that peer, `-n` all but that peer.
///
/// The only number without a meaning is `i32::MIN`.
impl TryFrom<i32> for Target {
    type Error = InvalidPeerId;

    fn try_from(number: i32) -> Result<Target, InvalidPeerId> {
        match number {
            0 => Ok(Target::All),
            1.. => PeerId::try_from(number).map(Target::Peer),
            _ => PeerId::new(number.unsigned_abs()).map(Target::AllExcept),
        }
    }
}

impl From<Target> for i32 {
    fn from(target: Target) -> i32 {
        target.to_godot()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_1_to_2147483647() {
        assert_eq!(PeerId::new(1).unwrap(), PeerId::SERVER);
        assert_eq!(PeerId::new(2_147_483_647).unwrap(), PeerId::MAX);
        for number in [0, 2_147_483_648, u32::MAX] {
            assert!(PeerId::new(number).is_err(), "{number}");
        }
        for number in [0, -1, i32::MIN] {
            assert!(PeerId::try_from(number).is_err(), "{number}");
        }
    }

    #[test]
    fn a_random_id_is_never_the_server() {
        for _ in 0..10_000 {
            let id = PeerId::random();
            assert!(!id.is_server() && id <= PeerId::MAX);
        }
    }

    #[test]
    fn ids_are_read_from_and_written_as_text() {
        assert_eq!("17".parse::<PeerId>().unwrap().to_string(), "17");
        assert_eq!(
            "-4".parse::<PeerId>().unwrap_err().to_string(),
            "-4 is not a peer id: ids are whole numbers from 1 to 2147483647"
        );
        assert!("x".parse::<PeerId>().unwrap_err().to_string().starts_with("this text is not"));
    }

    #[test]
    fn targets_are_godots_numbers_both_ways() {
        for number in [0, 1, 2, 77, i32::MAX, -1, -2, -i32::MAX] {
            assert_eq!(i32::from(Target::try_from(number).unwrap()), number);
        }
        assert!(Target::try_from(i32::MIN).is_err());
        assert_eq!(Target::try_from(-3).unwrap(), Target::AllExcept(PeerId::new(3).unwrap()));
        assert_eq!(Target::SERVER.to_godot(), 1);
    }
}
