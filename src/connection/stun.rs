//! STUN messages as they pass through our sockets (RFC 8489), as far as they are read here.

use std::net::{IpAddr, SocketAddr};

/// A STUN message (RFC 8489 section 5).
pub(super) struct Stun<'a> {
    pub(super) method: u16,
    pub(super) class: u16,
    pub(super) transaction: Transaction,
    attributes: &'a [u8],
}

pub(super) type Transaction = [u8; 12];

impl<'a> Stun<'a> {
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Stun<'a>> {
        let (header, attributes) = datagram.split_at_checked(20)?;
        if header[0] & 0xc0 != 0 || header[4..8] != MAGIC_COOKIE {
            return None;
        }
        let kind = u16::from_be_bytes([header[0], header[1]]);
        Some(Stun {
            method: (kind & 0xf) | (kind >> 1 & 0x70) | (kind >> 2 & 0xf80),
            class: (kind >> 4 & 1) | (kind >> 7 & 2),
            transaction: header[8..20].try_into().ok()?,
            attributes,
        })
    }

    /// The value of the first attribute of this kind.
    pub(super) fn attribute(&self, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.attributes;
        loop {
            let (head, after) = rest.split_at_checked(4)?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            if u16::from_be_bytes([head[0], head[1]]) == wanted {
                return after.get(..length);
            }
            rest = after.get(length.next_multiple_of(4)..)?;
        }
    }
}

/// An XOR-PEER-ADDRESS, or another attribute of that form (RFC 8489 section 14.2).
pub(super) fn address_of(value: &[u8], transaction: &Transaction) -> Option<SocketAddr> {
    let (head, ip) = value.split_at_checked(4)?;
    let port = u16::from_be_bytes([head[2] ^ MAGIC_COOKIE[0], head[3] ^ MAGIC_COOKIE[1]]);
    let key = MAGIC_COOKIE.iter().chain(transaction);
    let plain: Vec<u8> = ip.iter().zip(key).map(|(byte, key)| byte ^ key).collect();
    let ip = match head[1] {
        1 => IpAddr::from(<[u8; 4]>::try_from(plain).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(plain).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

pub(super) const BINDING: u16 = 1;
pub(super) const SEND: u16 = 6;
pub(super) const DATA: u16 = 7;

pub(super) const REQUEST: u16 = 0;
pub(super) const INDICATION: u16 = 1;
pub(super) const SUCCESS: u16 = 2;
pub(super) const ERROR: u16 = 3;

pub(super) const XOR_PEER_ADDRESS: u16 = 0x12;
pub(super) const DATA_ATTRIBUTE: u16 = 0x13;
pub(super) const PRIORITY: u16 = 0x24;
pub(super) const USE_CANDIDATE: u16 = 0x25;

pub(super) const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
