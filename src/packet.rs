//! What is sent and received: [`OutgoingPacket`], [`Packet`], and how it travels, [`TransferMode`].

use bytes::Bytes;

use crate::id::{PeerId, Target};

/// How a packet travels: which of the three data channels of a peer carries it. The numbers are Godot's.
///
/// | mode | SCTP stream | order | if a datagram is lost |
/// |---|---|---|---|
/// | [`Reliable`](TransferMode::Reliable) | 1 | kept | sent again until it arrives |
/// | [`UnreliableOrdered`](TransferMode::UnreliableOrdered) | 2 | kept | the packet is lost; later ones wait only until that is known |
/// | [`Unreliable`](TransferMode::Unreliable) | 3 | not kept | the packet is lost |
///
/// Order is kept within a mode, never between modes. On the two unreliable modes a packet of more than about 1,100
/// bytes is cut into several datagrams, and one lost datagram loses it all: keep those packets small.
///
/// Complete, as Godot's numbers are, so that a `match` needs no other arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum TransferMode {
    /// May be lost, may overtake.
    Unreliable = 0,
    /// May be lost, never overtakes.
    UnreliableOrdered = 1,
    /// Arrives, in order, while the peer stays connected.
    #[default]
    Reliable = 2,
}

impl TransferMode {
    /// The three modes, by ascending number.
    pub const ALL: [TransferMode; 3] =
        [TransferMode::Unreliable, TransferMode::UnreliableOrdered, TransferMode::Reliable];

    /// The mode's place in [`TransferMode::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl TryFrom<u8> for TransferMode {
    type Error = InvalidTransferMode;

    /// From Godot's number.
    fn try_from(number: u8) -> Result<TransferMode, InvalidTransferMode> {
        TransferMode::ALL.get(usize::from(number)).copied().ok_or(InvalidTransferMode(number))
    }
}

/// A number that is no transfer mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a transfer mode: there are 0 (unreliable), 1 (unreliable ordered) and 2 (reliable)")]
pub struct InvalidTransferMode(u8);

/// A packet that came from a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub from: PeerId,
    /// How it travelled.
    pub mode: TransferMode,
    /// What was sent, byte for byte. A text message of a browser arrives as its UTF-8 bytes. May be empty.
    pub payload: Bytes,
}

/// A packet to be sent, with whom it is for and how it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingPacket {
    /// Whom it is for.
    pub target: Target,
    /// How it travels.
    pub mode: TransferMode,
    /// What is sent. Shared between the peers of a broadcast, and copied once for each when it is handed to SCTP.
    pub payload: Bytes,
}

impl OutgoingPacket {
    /// A packet for `target` that travels by `mode`.
    pub fn new(target: impl Into<Target>, mode: TransferMode, payload: impl Into<Bytes>) -> OutgoingPacket {
        OutgoingPacket { target: target.into(), mode, payload: payload.into() }
    }

    /// A packet that arrives, in order.
    pub fn reliable(target: impl Into<Target>, payload: impl Into<Bytes>) -> OutgoingPacket {
        OutgoingPacket::new(target, TransferMode::Reliable, payload)
    }

    /// A packet that may be lost and may overtake.
    pub fn unreliable(target: impl Into<Target>, payload: impl Into<Bytes>) -> OutgoingPacket {
        OutgoingPacket::new(target, TransferMode::Unreliable, payload)
    }

    /// A packet that may be lost and never overtakes.
    pub fn unreliable_ordered(target: impl Into<Target>, payload: impl Into<Bytes>) -> OutgoingPacket {
        OutgoingPacket::new(target, TransferMode::UnreliableOrdered, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_godots_numbers_and_reliable_is_the_default() {
        for (number, mode) in TransferMode::ALL.into_iter().enumerate() {
            assert_eq!(mode.index(), number);
            assert_eq!(TransferMode::try_from(number as u8), Ok(mode));
        }
        assert_eq!(TransferMode::try_from(3), Err(InvalidTransferMode(3)));
        assert_eq!(TransferMode::default(), TransferMode::Reliable);
    }

    #[test]
    fn a_packet_is_made_from_an_id_and_anything_that_becomes_bytes() {
        let packet = OutgoingPacket::reliable(PeerId::SERVER, "hello");
        assert_eq!(packet, OutgoingPacket::new(Target::SERVER, TransferMode::Reliable, &b"hello"[..]));
    }
}
