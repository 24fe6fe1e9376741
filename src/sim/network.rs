//! The network itself: who is on it, which way a datagram goes, and whether it arrives.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::link::{Links, Selection, Shape};
use super::nat::{Nat, NatKind};
use super::socket::Socket;
use super::state::State;
use super::trace::{DatagramKind, DropCause, Record};
use super::{Host, HostId, SocketId};
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
    pub(super) fn add(&mut self, other: &Traffic) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.overflowed += other.overflowed;
        self.unclaimed += other.unclaimed;
        self.doubled += other.doubled;
    }

    pub(super) fn count(&mut self, cause: DropCause) {
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
        Network(Arc::new(Shared { seed, state: Mutex::new(State::new(seed)), hook: Mutex::new(None) }))
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
        self.state().change(selection, change);
    }

    pub(super) fn traffic_of(&self, selection: &Selection) -> Traffic {
        self.state().traffic_of(selection)
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
