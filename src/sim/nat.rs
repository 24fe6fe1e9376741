//! NATs: who is behind one has an address that nobody outside can reach, until it has sent something out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::network::Network;
use super::{Host, NatId};

/// A NAT in front of some hosts, for IPv4. Clones are the same NAT. [`Network::nat`] makes one.
///
/// What a host behind it sends leaves from the NAT's public address, from a port that is mapped to the host's; what
/// comes back to that port is let in as the [`NatKind`] says. Hosts behind the same NAT reach each other directly, and
/// at their mapped addresses too (hairpinning, RFC 4787 section 6). IPv6 addresses of hosts behind it are public.
///
/// A mapping that nothing is sent out through for 2 minutes is forgotten (RFC 4787 section 4.3). There are 64,511 of
/// them at the most; who needs one more sends in vain.
#[derive(Debug, Clone)]
pub struct Nat {
    pub(super) network: Network,
    pub(super) id: NatId,
}

/// How a NAT maps ports, and whom it lets in (RFC 4787 sections 4.1 and 5; the names are those of RFC 3489).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NatKind {
    /// One port for each port inside; anybody may send to it.
    FullCone,
    /// One port for each port inside; an address may send to it that was sent to.
    AddressRestricted,
    /// One port for each port inside; an address and port may send to it that was sent to. Most homes have this.
    PortRestricted,
    /// Another port for each address and port that is sent to, and only that may send to it. What a STUN server saw is
    /// of no use to anybody else.
    Symmetric,
}

impl Nat {
    /// The host of this name behind the NAT; made, if there is none, else moved here with an address of its own
    /// within, as [`Host::move_behind`] does.
    pub fn host(&self, name: &str) -> Host {
        self.network.host_behind(name, self)
    }

    /// The address that all hosts behind it share.
    pub fn public_address(&self) -> IpAddr {
        self.network.state().nat(self.id).public
    }

    /// Forgets all mappings, as a router does that is switched off and on.
    pub fn forget_mappings(&self) {
        let mut state = self.network.state();
        let table = state.nat(self.id);
        table.ports.clear();
        table.mappings.clear();
    }
}

const MAPPING_LIFETIME: Duration = Duration::from_secs(120);

/// Those below are for services.
const FIRST_PORT: u16 = 1025;

/// How many remotes one mapping remembers that were sent to; far more than any host meets.
const MAX_ALLOWED: usize = 16 * 1024;

/// The mappings of one NAT.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) kind: NatKind,
    pub(super) public: IpAddr,
    next_port: u16,
    /// By the address inside and, where each has a mapping of its own, the one outside.
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    mappings: BTreeMap<u16, Mapping>,
}

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    outside: Option<SocketAddr>,
    allowed: BTreeSet<SocketAddr>,
    used: Instant,
}

impl Table {
    pub(super) fn new(kind: NatKind, public: IpAddr) -> Table {
        Table { kind, public, next_port: FIRST_PORT, ports: BTreeMap::new(), mappings: BTreeMap::new() }
    }

    /// The public address from which `inside` sends to `to`; `None` if no port is left.
    pub(super) fn outbound(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        let outside = (self.kind == NatKind::Symmetric).then_some(to);
        let port = match self.ports.get(&(inside, outside)) {
            Some(port) if self.lives(*port, now) => *port,
            _ => {
                self.forget((inside, outside));
                let port = self.free_port(now)?;
                let mapping = Mapping { inside, outside, allowed: BTreeSet::new(), used: now };
                self.ports.insert((inside, outside), port);
                self.mappings.insert(port, mapping);
                port
            }
        };
        let mapping = self.mappings.get_mut(&port)?;
        mapping.used = now;
        if mapping.allowed.len() >= MAX_ALLOWED && !mapping.allowed.contains(&to) {
            return None;
        }
        mapping.allowed.insert(to);
        Some(SocketAddr::new(self.public, port))
    }

    /// The address inside that `port` belongs to, and whether `from` is let in.
    pub(super) fn inbound(&self, port: u16, from: SocketAddr, now: Instant) -> Option<(SocketAddr, bool)> {
        let mapping = self.mappings.get(&port).filter(|_| self.lives(port, now))?;
        let lets_in = match self.kind {
            NatKind::FullCone => true,
            NatKind::AddressRestricted => mapping.allowed.iter().any(|to| to.ip() == from.ip()),
            NatKind::PortRestricted | NatKind::Symmetric => mapping.allowed.contains(&from),
        };
        Some((mapping.inside, lets_in))
    }

    fn lives(&self, port: u16, now: Instant) -> bool {
        self.mappings
            .get(&port)
            .is_some_and(|mapping| now.saturating_duration_since(mapping.used) < MAPPING_LIFETIME)
    }

    fn forget(&mut self, key: (SocketAddr, Option<SocketAddr>)) {
        if let Some(port) = self.ports.remove(&key) {
            self.mappings.remove(&port);
        }
    }

    /// The next port that no mapping has, or one whose mapping is forgotten.
    fn free_port(&mut self, now: Instant) -> Option<u16> {
        for _ in FIRST_PORT..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.lives(port, now) {
                if let Some(old) = self.mappings.remove(&port) {
                    self.ports.remove(&(old.inside, old.outside));
                }
                return Some(port);
            }
        }
        None
    }
}
