//! What a datagram that goes through our sockets carries, as far as can be told without a key.

use std::net::SocketAddr;

use super::handshake::{APPLICATION_DATA, CHANGE_CIPHER_SPEC};
use super::stun::{BINDING, DATA_ATTRIBUTE, INDICATION, Stun, XOR_PEER_ADDRESS, address_of};
#[cfg(doc)]
use super::stun::{DATA, SEND};

/// How datagrams of ICE travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The address of our socket.
    pub(super) socket: SocketAddr,
    /// The TURN server that relays.
    pub(super) relay: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
}

/// What a datagram carries, bare or within one to or from a relay.
pub(super) enum Content<'a> {
    /// One of ICE's, and which way it goes.
    Check(Way, Stun<'a>),
    /// Application data of DTLS: SCTP, that is.
    Data(&'a [u8]),
    /// Another record of DTLS.
    Handshake(&'a [u8]),
    Other,
}

impl<'a> Content<'a> {
    /// Whatever is not STUN begins with more than 1 (RFC 7983).
    ///
    /// `relaying` is [`SEND`] for a datagram that goes to `other`, [`DATA`] for one that came from there.
    pub(super) fn of(
        socket: SocketAddr,
        other: SocketAddr,
        datagram: &'a [u8],
        relaying: u16,
    ) -> Content<'a> {
        match datagram.first() {
            Some(0..=1) => Content::of_stun(socket, other, datagram, relaying).unwrap_or(Content::Other),
            _ => Content::of_dtls(datagram).unwrap_or(Content::Other),
        }
    }

    fn of_dtls(datagram: &'a [u8]) -> Option<Content<'a>> {
        match datagram.first()? {
            &APPLICATION_DATA => Some(Content::Data(datagram)),
            CHANGE_CIPHER_SPEC..=63 => Some(Content::Handshake(datagram)),
            _ => None,
        }
    }

    /// The record of DTLS, if it is one.
    pub(super) fn dtls(&self) -> Option<&'a [u8]> {
        match self {
            Content::Data(record) | Content::Handshake(record) => Some(record),
            Content::Check(..) | Content::Other => None,
        }
    }

    fn of_stun(
        socket: SocketAddr,
        other: SocketAddr,
        datagram: &'a [u8],
        relaying: u16,
    ) -> Option<Content<'a>> {
        let stun = Stun::parse(datagram)?;
        if stun.method == BINDING {
            return Some(Content::Check(Way { socket, relay: None, remote: other }, stun));
        }
        if (stun.method, stun.class) != (relaying, INDICATION) {
            return None;
        }
        let inner = stun.attribute(DATA_ATTRIBUTE)?;
        if let Some(content) = Content::of_dtls(inner) {
            return Some(content);
        }
        let inner = Stun::parse(inner).filter(|inner| inner.method == BINDING)?;
        let remote = address_of(stun.attribute(XOR_PEER_ADDRESS)?, &stun.transaction)?;
        Some(Content::Check(Way { socket, relay: Some(other), remote }, inner))
    }
}
