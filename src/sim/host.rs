//! A computer on the network: its addresses, its sockets, and the configuration for its connections.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::HostId;
use super::link::Bandwidth;
use super::nat::Nat;
use super::network::Network;
use super::socket::UdpSocket;
use crate::connection::PeerConnectionConfig;

/// A computer on a [`Network`]. Clones are the same computer. [`Network::host`] and [`Nat::host`] make one.
///
/// It begins with one IPv4 address, and any number of meshes and sockets may run on it. Names of hosts are what DNS
/// knows: `stun:alice:3478` is a server on the host "alice".
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) network: Network,
    pub(super) id: HostId,
}

impl Host {
    /// The configuration for connections of this host: [`PeerConnectionConfig::new`], with sockets, clock and tasks of
    /// the simulation. Everything else may be set as usual. An address to [bind](PeerConnectionConfig::bind) is one of
    /// this host; without one, or with `0.0.0.0` or `[::]`, it is all that it has when the connection is made.
    pub fn peer(&self) -> PeerConnectionConfig {
        PeerConnectionConfig::new().host(self.clone())
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.network.state().hosts[self.id.0].name.to_string()
    }

    /// Its address, the first if it has several.
    ///
    /// # Panics
    ///
    /// If it has none, as [`remove_address`](Host::remove_address) took it.
    #[allow(clippy::expect_used, reason = "as documented")]
    pub fn address(&self) -> IpAddr {
        *self.addresses().first().expect("the host has an address")
    }

    /// All its addresses: its own, also behind a NAT.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.network.state().hosts[self.id.0].addresses.clone()
    }

    /// Gives it one more address, as one more network card would: an IPv6 one, say `2001:db8::1`, or another IPv4 one.
    /// Connections that are made from now on use it.
    ///
    /// A connection over IPv6 needs a machine that has `[::1]`.
    ///
    /// # Panics
    ///
    /// If somebody has this address already.
    pub fn add_address(&self, address: IpAddr) {
        let taken = self.network.state().take_address(self.id, address);
        assert!(taken, "somebody has the address {address} already");
    }

    /// Takes an address away. Sockets bound to it neither send nor receive any more, and are told nothing. If the host
    /// does not have it, nothing happens.
    pub fn remove_address(&self, address: IpAddr) {
        self.network.state().drop_address(self.id, address);
    }

    /// Gives it another IPv4 address in the place of all that it has, as when a telephone goes from one network to
    /// another: what is bound to the old ones is [dead](Host::remove_address). Returns the new one.
    pub fn change_address(&self) -> IpAddr {
        let nat = self.network.state().hosts[self.id.0].nat;
        self.readdress(nat)
    }

    /// Moves it behind a NAT: with another address there, like [`change_address`](Host::change_address). Returns the
    /// new one.
    pub fn move_behind(&self, nat: &Nat) -> IpAddr {
        self.readdress(Some(nat.id))
    }

    /// Moves it out, with another address that is public, like [`change_address`](Host::change_address). Returns the
    /// new one.
    pub fn move_out(&self) -> IpAddr {
        self.readdress(None)
    }

    /// Loses everything that it sends and everything sent to it while `silent`, as when its cable is pulled. It keeps
    /// its addresses and notices nothing.
    pub fn set_silent(&self, silent: bool) {
        self.network.state().hosts[self.id.0].is_silent = silent;
    }

    /// Lets everything that it sends, to whomever, through one wire of so many bytes a second, behind a queue of
    /// `queue_bytes`; the links' own [bandwidth](super::Links::bandwidth) comes after that. Default: no such wire.
    ///
    /// # Panics
    ///
    /// If `bytes_per_second` is 0.
    pub fn set_upload(&self, bytes_per_second: u64, queue_bytes: u64) {
        let upload = Bandwidth::new(bytes_per_second, queue_bytes);
        self.network.state().hosts[self.id.0].upload = Some(upload);
    }

    /// A socket at this port of its first address; port 0 is any free one.
    ///
    /// # Errors
    ///
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if another socket has it,
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if the host has no address.
    pub fn bind(&self, port: u16) -> io::Result<UdpSocket> {
        let address = self.addresses().first().copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.network.bind(self.id, SocketAddr::new(address, port)).map(UdpSocket)
    }

    fn readdress(&self, nat: Option<super::NatId>) -> IpAddr {
        let mut state = self.network.state();
        for address in state.hosts[self.id.0].addresses.clone() {
            state.drop_address(self.id, address);
        }
        state.hosts[self.id.0].nat = nat;
        let address = state.fresh_address(nat);
        state.take_address(self.id, address);
        address
    }
}
