//! What a network knows and decides, behind its lock: addresses, the way of a datagram, and whether it arrives.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::link::{Bandwidth, Fate, Link, Pipe, Selection, Shape};
use super::nat::{NatKind, Table};
use super::network::Traffic;
use super::socket::{Inbox, Parcel};
use super::trace::{DatagramKind, DropCause, Entry, Outcome, Record, Trace};
use super::{HostId, NatId, SocketId};

pub(super) struct State {
    seed: u64,
    started: Instant,
    /// Of links that nobody has used or changed yet.
    default_shape: Shape,
    /// By [`HostId`].
    pub(super) hosts: Vec<HostState>,
    pub(super) names: BTreeMap<Arc<str>, HostId>,
    /// By [`NatId`].
    nats: Vec<NatState>,
    owners: BTreeMap<IpAddr, Owner>,
    links: BTreeMap<(HostId, HostId), Link>,
    pub(super) inboxes: BTreeMap<SocketId, Inbox>,
    bound: BTreeMap<SocketAddr, SocketId>,
    /// Numbers sockets, and datagrams as the order among those due at the same instant.
    next_number: u64,
    next_public: u32,
    /// What was sent to no host.
    pub(super) nowhere: Traffic,
    pub(super) trace: Trace,
}

pub(super) struct HostState {
    pub(super) name: Arc<str>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) nat: Option<NatId>,
    pub(super) is_silent: bool,
    pub(super) upload: Option<Bandwidth>,
    uplink: Pipe,
    next_port: u16,
}

struct NatState {
    table: Table,
    next_private: u16,
}

#[derive(Clone, Copy)]
enum Owner {
    Host(HostId),
    Nat(NatId),
}

/// Which way a datagram goes.
pub(super) struct Route {
    /// Who it is for, also if it does not get there.
    pub(super) host: Option<HostId>,
    /// The sender, as the receiver sees it.
    from: SocketAddr,
    /// The address of the receiver's socket, or why there is no way.
    to: Result<SocketAddr, DropCause>,
}

/// Bytes of the headers of IP and UDP.
fn headers(to: SocketAddr) -> u64 {
    if to.is_ipv4() { 28 } else { 48 }
}

const FIRST_EPHEMERAL_PORT: u16 = 49152;

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            seed,
            started: Instant::now(),
            default_shape: Shape::default(),
            hosts: Vec::new(),
            names: BTreeMap::new(),
            nats: Vec::new(),
            owners: BTreeMap::new(),
            links: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            bound: BTreeMap::new(),
            next_number: 0,
            next_public: 0,
            nowhere: Traffic::default(),
            trace: Trace::default(),
        }
    }

    /// The host of this name; made, behind this NAT if there is one, if there is none.
    pub(super) fn host(&mut self, name: &str, nat: Option<NatId>) -> HostId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let (id, name) = (HostId(self.hosts.len()), Arc::<str>::from(name));
        self.names.insert(name.clone(), id);
        self.hosts.push(HostState {
            name,
            addresses: Vec::new(),
            nat,
            is_silent: false,
            upload: None,
            uplink: Pipe::default(),
            next_port: FIRST_EPHEMERAL_PORT,
        });
        let address = self.fresh_address(nat);
        self.take_address(id, address);
        id
    }

    pub(super) fn add_nat(&mut self, kind: NatKind) -> NatId {
        let (id, public) = (NatId(self.nats.len()), self.fresh_address(None));
        self.nats.push(NatState { table: Table::new(kind, public), next_private: 1 });
        self.owners.insert(public, Owner::Nat(id));
        id
    }

    pub(super) fn nat(&mut self, id: NatId) -> &mut Table {
        &mut self.nats[id.0].table
    }

    /// An IPv4 address that nobody has, or had: public ones are out of the range for benchmarks (RFC 2544), those behind
    /// a NAT out of a private one.
    pub(super) fn fresh_address(&mut self, nat: Option<NatId>) -> IpAddr {
        loop {
            let address: IpAddr = match nat {
                None => {
                    self.next_public += 1;
                    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + self.next_public).into()
                }
                Some(id) => {
                    let nat = &mut self.nats[id.0];
                    let [high, low] = nat.next_private.to_be_bytes();
                    nat.next_private = nat.next_private.wrapping_add(1);
                    Ipv4Addr::new(10, id.0 as u8, high, low).into()
                }
            };
            if !self.owners.contains_key(&address) {
                return address;
            }
        }
    }

    /// Gives a host an address, unless somebody has it already.
    pub(super) fn take_address(&mut self, host: HostId, address: IpAddr) -> bool {
        if self.owners.contains_key(&address) {
            return false;
        }
        self.owners.insert(address, Owner::Host(host));
        self.hosts[host.0].addresses.push(address);
        true
    }

    /// Takes an address from a host; its sockets there are dead, and what was on its way to them is gone.
    pub(super) fn drop_address(&mut self, host: HostId, address: IpAddr) {
        let addresses = &mut self.hosts[host.0].addresses;
        let Some(index) = addresses.iter().position(|own| *own == address) else { return };
        addresses.remove(index);
        self.owners.remove(&address);
        self.bound.retain(|addr, _| addr.ip() != address);
        let State { inboxes, links, .. } = self;
        for inbox in inboxes.values_mut().filter(|inbox| inbox.addr.ip() == address) {
            inbox.is_dead = true;
            for parcel in inbox.drain() {
                if let Some(link) = links.get_mut(&(parcel.from_host, host)) {
                    link.traffic.count(DropCause::AddressGone);
                }
            }
        }
    }

    pub(super) fn change(&mut self, selection: &Selection, change: impl Fn(&mut Shape)) {
        if matches!(selection, Selection::All) {
            change(&mut self.default_shape);
        }
        // A link is there once somebody has used or changed it.
        if let Selection::One(one, other) | Selection::Between(one, other) = *selection {
            self.link(one, other);
            self.link(other, one);
        } else if let Selection::From(one) | Selection::To(one) | Selection::Of(one) = *selection {
            for other in (0..self.hosts.len()).map(HostId) {
                self.link(one, other);
                self.link(other, one);
            }
        }
        let chosen = self.links.iter_mut().filter(|((from, to), _)| selection.has(*from, *to));
        chosen.for_each(|(_, link)| change(&mut link.shape));
    }

    pub(super) fn traffic_of(&mut self, selection: &Selection) -> Traffic {
        let sockets: Vec<SocketId> = self.inboxes.keys().copied().collect();
        for socket in sockets {
            self.settle(socket); // what no reader has looked at yet
        }
        let mut traffic = Traffic::default();
        let chosen = self.links.iter().filter(|((from, to), _)| selection.has(*from, *to));
        chosen.for_each(|(_, link)| traffic.add(&link.traffic));
        traffic
    }

    pub(super) fn link(&mut self, from: HostId, to: HostId) -> &mut Link {
        let State { seed, hosts, links, default_shape, .. } = self;
        links.entry((from, to)).or_insert_with(|| {
            Link::new(*seed, &hosts[from.0].name, &hosts[to.0].name, default_shape.clone())
        })
    }

    pub(super) fn bind(&mut self, host: HostId, mut addr: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
        if !self.hosts[host.0].addresses.contains(&addr.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if addr.port() == 0 {
            let first = self.hosts[host.0].next_port;
            let ports = (first..=u16::MAX).chain(FIRST_EPHEMERAL_PORT..first);
            let mut free = ports.filter(|port| self.is_free(SocketAddr::new(addr.ip(), *port)));
            let port = free.next().ok_or(io::ErrorKind::AddrInUse)?;
            drop(free);
            self.hosts[host.0].next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            addr.set_port(port);
        } else if !self.is_free(addr) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = SocketId(self.number());
        self.bound.insert(addr, id);
        self.inboxes.insert(id, Inbox::new(host, addr));
        Ok((id, addr))
    }

    pub(super) fn is_free(&self, addr: SocketAddr) -> bool {
        !self.bound.contains_key(&addr)
    }

    pub(super) fn unbind(&mut self, id: SocketId) -> Option<Inbox> {
        let mut inbox = self.inboxes.remove(&id)?;
        if self.bound.get(&inbox.addr) == Some(&id) {
            self.bound.remove(&inbox.addr);
        }
        for parcel in inbox.drain() {
            self.link(parcel.from_host, inbox.host).traffic.count(DropCause::NoSocket);
        }
        Some(inbox)
    }

    /// Lets what is due arrive at a socket.
    pub(super) fn settle(&mut self, id: SocketId) -> Option<&mut Inbox> {
        let State { inboxes, links, trace, started, .. } = self;
        let now = Instant::now();
        let inbox = inboxes.get_mut(&id)?;
        let (host, addr) = (inbox.host, inbox.addr);
        inbox.settle(now, |parcel| {
            if let Some(link) = links.get_mut(&(parcel.from_host, host)) {
                link.traffic.count(DropCause::BufferFull);
            }
            trace.push(Entry {
                at: now.saturating_duration_since(*started),
                from_host: parcel.from_host,
                to_host: Some(host),
                from: parcel.from,
                to: addr,
                kind: DatagramKind::of(&parcel.bytes),
                bytes: parcel.bytes.len(),
                outcome: Outcome::Dropped(DropCause::BufferFull),
            });
        });
        Some(inbox)
    }

    /// Which way a datagram goes; if it goes out through a NAT, that maps its port.
    pub(super) fn route(&mut self, from_host: HostId, from: SocketAddr, to: SocketAddr) -> Route {
        let now = Instant::now();
        let nat = self.hosts[from_host.0].nat.filter(|_| from.is_ipv4());
        let owner = self.owners.get(&to.ip()).copied();
        let behind = |host: HostId| self.hosts[host.0].nat.filter(|_| to.is_ipv4());
        match owner {
            None => Route { host: None, from, to: Err(DropCause::NoRoute) },
            Some(Owner::Host(host)) if behind(host).is_some() && behind(host) != nat => {
                Route { host: Some(host), from, to: Err(DropCause::NoRoute) }
            }
            Some(Owner::Host(host)) if nat.is_some() && behind(host) == nat => {
                Route { host: Some(host), from, to: Ok(to) }
            }
            Some(owner) => {
                let source = match nat {
                    None => Some(from),
                    Some(nat) => self.nat(nat).outbound(from, to, now),
                };
                let (host, to) = match owner {
                    Owner::Host(host) => (Some(host), Ok(to)),
                    Owner::Nat(nat) => match self.nat(nat).inbound(to.port(), source.unwrap_or(from), now) {
                        None => (None, Err(DropCause::Filtered)),
                        Some((inside, lets_in)) => {
                            let host = match self.owners.get(&inside.ip()) {
                                Some(Owner::Host(host)) => Some(*host),
                                _ => None,
                            };
                            (host, if lets_in { Ok(inside) } else { Err(DropCause::Filtered) })
                        }
                    },
                };
                let to = if source.is_none() { Err(DropCause::NatFull) } else { to };
                Route { host, from: source.unwrap_or(from), to }
            }
        }
    }

    /// Puts a datagram on its way, unless it is `chosen` to be lost or unlucky; returns the readers to wake.
    pub(super) fn send(
        &mut self,
        id: SocketId,
        to: SocketAddr,
        bytes: &[u8],
        chosen: bool,
    ) -> [Option<Waker>; 2] {
        let Some(inbox) = self.inboxes.get(&id) else { return [None, None] };
        let (from_host, from, is_dead) = (inbox.host, inbox.addr, inbox.is_dead);
        let now = Instant::now();
        let sender_silent = self.hosts[from_host.0].is_silent;
        let route = self.route(from_host, from, to);
        let is_silent = |host: HostId| self.hosts[host.0].is_silent;
        let socket = route.to.map(|inside| self.bound.get(&inside).copied());
        let mut doomed = match (socket, chosen) {
            _ if is_dead => Some(DropCause::AddressGone),
            _ if sender_silent || route.host.is_some_and(is_silent) => Some(DropCause::Silent),
            (_, true) => Some(DropCause::Hook),
            (Err(cause), _) => Some(cause),
            (Ok(None), _) => Some(DropCause::NoSocket),
            (Ok(Some(_)), _) => None,
        };
        let size = bytes.len() as u64 + headers(to);
        let mut left = now;
        if let (None, Some(upload)) = (doomed, self.hosts[from_host.0].upload) {
            match self.hosts[from_host.0].uplink.send(upload, size, now) {
                Some(sent) => left = sent,
                None => doomed = Some(DropCause::QueueFull),
            }
        }

        let fate = match route.host {
            Some(host) => self.link(from_host, host).send(size, left, doomed),
            None => Fate { dropped: doomed, ..Fate::default() },
        };
        let traffic = match route.host {
            Some(host) => &mut self.link(from_host, host).traffic,
            None => &mut self.nowhere,
        };
        traffic.sent += 1;
        traffic.doubled += u64::from(fate.double.is_some());
        let outcome = match (fate.dropped, fate.arrival) {
            (None, Some(arrival)) => Outcome::Arrives(self.since_start(arrival)),
            (cause, _) => {
                let cause = cause.unwrap_or(DropCause::NoSocket);
                traffic.count(cause);
                Outcome::Dropped(cause)
            }
        };
        self.trace.push(Entry {
            at: self.since_start(now),
            from_host,
            to_host: route.host,
            from: route.from,
            to,
            kind: DatagramKind::of(bytes),
            bytes: bytes.len(),
            outcome,
        });
        let Ok(Some(socket)) = socket else { return [None, None] };
        [fate.arrival, fate.double].map(|arrival| {
            let due = (arrival?, self.number());
            let parcel = Parcel { from_host, from: route.from, bytes: bytes.into() };
            self.settle(socket)?.expect(due, parcel)
        })
    }

    fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    pub(super) fn record(&self, entry: &Entry) -> Record {
        let name = |host: HostId| self.hosts[host.0].name.to_string();
        Record {
            at: entry.at,
            from_host: name(entry.from_host),
            to_host: entry.to_host.map(name),
            from: entry.from,
            to: entry.to,
            kind: entry.kind,
            bytes: entry.bytes,
            outcome: entry.outcome,
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}
