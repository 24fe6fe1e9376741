//! The network itself: who is on it, which way a datagram goes, and whether it arrives.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::link::{Bandwidth, Fate, Link, Links, Pipe, Selection, Shape};
use super::nat::{Nat, NatKind, Table};
use super::socket::{Inbox, Parcel, Socket};
use super::trace::{DatagramKind, DropCause, Entry, Outcome, Record, Trace};
use super::{Host, HostId, NatId, SocketId};
use crate::connection::PeerConnectionConfig;

/// Hosts, and the wires between all of them. Clones are the same network.
///
/// It runs no task of its own: each socket wakes its own reader when the next datagram is due. What happens to a
/// datagram is decided when it is sent; a change made later does not touch what is already on its way.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    seed: u64,
    state: Mutex<State>,
    /// Apart from the state, so that the hook may call the network.
    hook: Mutex<Option<Hook>>,
}

type Hook = Box<dyn FnMut(&Datagram<'_>) -> bool + Send>;

/// One datagram at the moment it is sent, as a hook of [`Network::drop_if`] sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// Name of the host that sends it.
    pub from_host: &'a str,
    /// Name of the host that it is for, if there is one, also behind a NAT.
    pub to_host: Option<&'a str>,
    /// Address of the sending socket.
    pub from: SocketAddr,
    /// Where it is sent.
    pub to: SocketAddr,
    /// The whole content.
    pub bytes: &'a [u8],
}

impl Datagram<'_> {
    /// What it is, by its first byte.
    pub fn kind(&self) -> DatagramKind {
        DatagramKind::of(self.bytes)
    }
}

/// What became of the datagrams so far. A sent one in no other count was read, or can still be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Handed to the network, whatever happened next.
    pub sent: u64,
    /// Lost on the wire: by the dice, a hook, a cut, a silent host, or a full queue before a slow link.
    pub lost: u64,
    /// Arrived at a socket with [`RECEIVE_BUFFER_BYTES`](super::RECEIVE_BUFFER_BYTES) unread.
    pub overflowed: u64,
    /// Sent where nobody is, or where a NAT lets nobody in, from an address that is gone, or to a socket that closed
    /// before it was read.
    pub unclaimed: u64,
    /// Delivered twice.
    pub doubled: u64,
}

impl Traffic {
    fn add(&mut self, other: &Traffic) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.overflowed += other.overflowed;
        self.unclaimed += other.unclaimed;
        self.doubled += other.doubled;
    }

    fn count(&mut self, cause: DropCause) {
        match cause {
            DropCause::Loss
            | DropCause::Burst
            | DropCause::Cut
            | DropCause::Silent
            | DropCause::Hook
            | DropCause::QueueFull => self.lost += 1,
            DropCause::BufferFull => self.overflowed += 1,
            DropCause::NoSocket
            | DropCause::NoRoute
            | DropCause::Filtered
            | DropCause::NatFull
            | DropCause::AddressGone => self.unclaimed += 1,
        }
    }
}

impl Network {
    /// A network without hosts, whose losses and delays follow `seed`. Most programs get theirs from
    /// [`run`](super::run).
    pub fn new(seed: u64) -> Network {
        let state = State {
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
        };
        Network(Arc::new(Shared { seed, state: Mutex::new(state), hook: Mutex::new(None) }))
    }

    /// The number that its dice follow.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The host of this name; made with a public IPv4 address of its own, out of 198.18.0.0/15, if there is none.
    pub fn host(&self, name: &str) -> Host {
        let id = self.state().host(name, None);
        Host { network: self.clone(), id }
    }

    /// The configuration for connections of the host of this name, which is made if there is none: short for
    /// [`host`](Network::host) and [`Host::peer`].
    pub fn peer(&self, name: &str) -> PeerConnectionConfig {
        self.host(name).peer()
    }

    /// A new NAT, with a public IPv4 address of its own, and nobody behind it.
    pub fn nat(&self, kind: NatKind) -> Nat {
        let id = self.state().add_nat(kind);
        Nat { network: self.clone(), id }
    }

    /// Every link, those of hosts that come later too.
    pub fn links(&self) -> Links {
        Links { network: self.clone(), selection: Selection::All }
    }

    /// The link from one host to another, this direction only.
    ///
    /// # Panics
    ///
    /// When there is no such host, so that a misspelt name does not pass for a test.
    pub fn link(&self, from: &str, to: &str) -> Links {
        self.select(Selection::One(self.id(from), self.id(to)))
    }

    /// The links between two hosts, both directions.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub fn between(&self, one: &str, other: &str) -> Links {
        self.select(Selection::Between(self.id(one), self.id(other)))
    }

    /// The links from this host to all the others that there are now.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub fn links_from(&self, host: &str) -> Links {
        self.select(Selection::From(self.id(host)))
    }

    /// The links from all the others that there are now to this host.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub fn links_to(&self, host: &str) -> Links {
        self.select(Selection::To(self.id(host)))
    }

    /// The links of this host with all the others that there are now, both directions.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub fn links_of(&self, host: &str) -> Links {
        self.select(Selection::Of(self.id(host)))
    }

    /// Cuts every link between hosts of different groups, and heals every link within one. Hosts in no group stay as
    /// they are. `links().heal()` ends it.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub fn partition(&self, groups: &[&[&str]]) {
        let groups: Vec<Vec<HostId>> =
            groups.iter().map(|group| group.iter().map(|name| self.id(name)).collect()).collect();
        let mut state = self.state();
        for (one, group) in groups.iter().enumerate() {
            for (other, others) in groups.iter().enumerate() {
                for (from, to) in group.iter().flat_map(|from| others.iter().map(move |to| (*from, *to))) {
                    state.link(from, to).shape.cut = one != other;
                }
            }
        }
    }

    /// Loses each datagram for which `hook` says so.
    ///
    /// It is asked once about each one sent, in order, also about those that are lost anyway. It replaces the
    /// hook before it, and may call the network, though not this method.
    ///
    /// ```
    /// # use webrtc_mesh::sim::{DatagramKind, Network};
    /// # let network = Network::new(1);
    /// // The first handshake datagram of the host "b", and no other.
    /// let mut already = false;
    /// network.drop_if(move |datagram| {
    ///     let chosen = datagram.from_host == "b" && datagram.kind() == DatagramKind::DtlsHandshake;
    ///     chosen && !std::mem::replace(&mut already, true)
    /// });
    /// ```
    pub fn drop_if(&self, hook: impl FnMut(&Datagram<'_>) -> bool + Send + 'static) {
        *lock(&self.0.hook) = Some(Box::new(hook));
    }

    /// The addresses of the host of this name.
    pub(super) fn resolve(&self, name: &str) -> Option<Vec<IpAddr>> {
        let state = self.state();
        state.names.get(name).map(|id| state.hosts[id.0].addresses.clone())
    }

    /// What became of the datagrams so far, on all links and beside them.
    pub fn traffic(&self) -> Traffic {
        let mut traffic = self.traffic_of(&Selection::All);
        traffic.add(&self.state().nowhere);
        traffic
    }

    /// The last [`TRACE_RECORDS`](super::TRACE_RECORDS) datagrams, the oldest first: in the order of sending, but that
    /// a [`BufferFull`](DropCause::BufferFull) stands where it was noticed.
    pub fn trace(&self) -> Vec<Record> {
        let state = self.state();
        state.trace.entries().map(|entry| state.record(entry)).collect()
    }

    /// The last `count` lines of the trace.
    pub(super) fn last_lines(&self, count: usize) -> Vec<String> {
        let state = self.state();
        let entries = state.trace.entries();
        let skipped = entries.len().saturating_sub(count);
        entries.skip(skipped).map(|entry| state.record(entry).to_string()).collect()
    }

    fn select(&self, selection: Selection) -> Links {
        Links { network: self.clone(), selection }
    }

    #[track_caller]
    #[allow(clippy::panic, reason = "as documented at all who call it")]
    fn id(&self, name: &str) -> HostId {
        match self.state().names.get(name) {
            Some(id) => *id,
            None => panic!("the network has no host {name:?}"),
        }
    }

    pub(super) fn host_behind(&self, name: &str, nat: &Nat) -> Host {
        let id = self.state().host(name, Some(nat.id));
        let host = Host { network: self.clone(), id };
        if self.state().hosts[id.0].nat != Some(nat.id) {
            host.move_behind(nat);
        }
        host
    }

    pub(super) fn change(&self, selection: &Selection, change: impl Fn(&mut Shape)) {
        let mut state = self.state();
        if matches!(selection, Selection::All) {
            change(&mut state.default_shape);
        }
        if let Selection::One(one, other) | Selection::Between(one, other) = *selection {
            state.link(one, other);
            state.link(other, one);
        } else if let Selection::From(one) | Selection::To(one) | Selection::Of(one) = *selection {
            for other in (0..state.hosts.len()).map(HostId) {
                state.link(one, other);
                state.link(other, one);
            }
        }
        let chosen = state.links.iter_mut().filter(|((from, to), _)| selection.has(*from, *to));
        chosen.for_each(|(_, link)| change(&mut link.shape));
    }

    pub(super) fn traffic_of(&self, selection: &Selection) -> Traffic {
        let mut state = self.state();
        let sockets: Vec<SocketId> = state.inboxes.keys().copied().collect();
        for socket in sockets {
            state.settle(socket); // what no reader has looked at yet
        }
        let mut traffic = Traffic::default();
        let chosen = state.links.iter().filter(|((from, to), _)| selection.has(*from, *to));
        chosen.for_each(|(_, link)| traffic.add(&link.traffic));
        traffic
    }

    pub(super) fn bind(&self, host: HostId, addr: SocketAddr) -> io::Result<Socket> {
        let (id, addr) = self.state().bind(host, addr)?;
        Ok(Socket::new(self.clone(), id, addr))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Decides what becomes of one datagram and puts it on its way.
    pub(super) fn send(&self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        let chosen = lock(&self.0.hook).as_mut().is_some_and(|hook| self.asks(hook, socket, to, bytes));
        let wakers = self.state().send(socket, to, bytes, chosen);
        // Only now, with the state free again: a waker may run code that comes back here.
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn asks(&self, hook: &mut Hook, socket: SocketId, to: SocketAddr, bytes: &[u8]) -> bool {
        let mut state = self.state();
        let Some((host, from)) = state.inboxes.get(&socket).map(|inbox| (inbox.host, inbox.addr)) else {
            return false;
        };
        let from_host = state.hosts[host.0].name.clone();
        let to_host = state.route(host, from, to).host.map(|host| state.hosts[host.0].name.clone());
        drop(state);
        hook(&Datagram { from_host: &from_host, to_host: to_host.as_deref(), from, to, bytes })
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}

/// Takes the lock, also after a panic: whatever panicked has failed the test already, and a second panic in a
/// destructor would hide why.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct State {
    seed: u64,
    started: Instant,
    /// Of links that nobody has used or changed yet.
    default_shape: Shape,
    /// By [`HostId`].
    pub(super) hosts: Vec<HostState>,
    names: BTreeMap<Arc<str>, HostId>,
    /// By [`NatId`].
    nats: Vec<NatState>,
    owners: BTreeMap<IpAddr, Owner>,
    links: BTreeMap<(HostId, HostId), Link>,
    inboxes: BTreeMap<SocketId, Inbox>,
    bound: BTreeMap<SocketAddr, SocketId>,
    /// Numbers sockets, and datagrams as the order among those due at the same instant.
    next_number: u64,
    next_public: u32,
    /// What was sent to no host.
    nowhere: Traffic,
    trace: Trace,
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
struct Route {
    /// Who it is for, also if it does not get there.
    host: Option<HostId>,
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
    fn host(&mut self, name: &str, nat: Option<NatId>) -> HostId {
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

    fn add_nat(&mut self, kind: NatKind) -> NatId {
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

    fn link(&mut self, from: HostId, to: HostId) -> &mut Link {
        let State { seed, hosts, links, default_shape, .. } = self;
        links.entry((from, to)).or_insert_with(|| {
            Link::new(*seed, &hosts[from.0].name, &hosts[to.0].name, default_shape.clone())
        })
    }

    fn bind(&mut self, host: HostId, mut addr: SocketAddr) -> io::Result<(SocketId, SocketAddr)> {
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
    fn route(&mut self, from_host: HostId, from: SocketAddr, to: SocketAddr) -> Route {
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
    fn send(&mut self, id: SocketId, to: SocketAddr, bytes: &[u8], chosen: bool) -> [Option<Waker>; 2] {
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

    fn record(&self, entry: &Entry) -> Record {
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
