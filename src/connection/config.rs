//! How a connection is made: [`PeerConnectionConfig`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio_util::task::AbortOnDropHandle;
use webrtc::runtime::Runtime;

use super::description::MAX_MESSAGE_BYTES;
use super::ice_server::{IceServer, Server};
use crate::error::ConnectionError;

/// How a [`PeerConnection`](crate::PeerConnection) is made.
///
/// The default binds one UDP socket per address of every interface, each on a port of the system's choice, and uses
/// no ICE server. On a machine that has no other interface it binds loopback, so that it works anywhere.
#[derive(Clone, Default)]
pub struct PeerConnectionConfig {
    pub(crate) bind: Vec<SocketAddr>,
    pub(crate) port_range: Option<RangeInclusive<u16>>,
    pub(crate) public_addresses: Vec<IpAddr>,
    pub(crate) ice_servers: Vec<IceServer>,
    ask: Option<Ask>,
    /// Some of the servers came from the callback.
    pub(crate) asked: bool,
    pub(crate) relay_only: bool,
    max_message_bytes: Option<usize>,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
    /// The simulated host that it is of.
    #[cfg(feature = "sim")]
    pub(crate) host: Option<crate::sim::Host>,
}

/// Gives the ICE servers of one connection.
type Ask = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<IceServer>, String>> + Send + Sync>;

/// What the control channel needs: a description that is relayed for two others, its name and its destination.
pub(crate) const MIN_MESSAGE_BYTES: usize = 20 * 1024;

/// How long the callback for ICE servers may take.
pub(crate) const ASK_LIMIT: Duration = Duration::from_secs(10);

impl PeerConnectionConfig {
    /// The default.
    pub fn new() -> PeerConnectionConfig {
        PeerConnectionConfig::default()
    }

    /// Binds this address, and no others but those given by further calls. Port 0 is a port of the system's choice;
    /// `0.0.0.0` and `[::]` mean every interface of that family that there is when the connection is made.
    pub fn bind(mut self, addr: SocketAddr) -> Self {
        self.bind.push(addr);
        self
    }

    /// Takes ports from this range, for firewalls that open one, wherever [`bind`](Self::bind) says port 0. Every
    /// connection needs a port of its own.
    pub fn port_range(mut self, range: RangeInclusive<u16>) -> Self {
        self.port_range = Some(range);
        self
    }

    /// Announces this address instead of the interface's own: for a machine behind a one-to-one NAT, as every cloud
    /// server is. Once for IPv4, once for IPv6.
    pub fn public_address(mut self, address: IpAddr) -> Self {
        self.public_addresses.push(address);
        self
    }

    /// Uses this STUN or TURN server as well.
    pub fn ice_server(mut self, server: IceServer) -> Self {
        self.ice_servers.push(server);
        self
    }

    /// Uses the servers that the callback gives as well. It is called for each new connection, each attempt of
    /// [`join`](crate::MeshBuilder::join) among them, and may be called for many of them at once: so credentials may be
    /// short-lived. Default none; a second one takes the place of the first.
    ///
    /// It has 10 s. If it fails, takes longer or panics, the connection is not made:
    /// [`ConnectionError::Credentials`]. In a mesh that was joined, a peer waits for its own servers only, and nobody
    /// else; if its first connection could not be made, it fails with
    /// [`PeerFailure::Connection`](crate::PeerFailure::Connection), and a later attempt is followed by the next.
    ///
    /// # Cancel safety
    ///
    /// It runs as a task, which is aborted when nobody waits for the connection any more.
    pub fn ice_servers_from<F, Asking, E>(mut self, callback: F) -> Self
    where
        F: Fn() -> Asking + Send + Sync + 'static,
        Asking: Future<Output = Result<Vec<IceServer>, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.ask = Some(Arc::new(move || {
            let asking = callback();
            async move { asking.await.map_err(|error| error.to_string()) }.boxed()
        }));
        self
    }

    /// Connects through TURN relays only, so that the remote learns no address of this machine. Default `false`.
    /// Without a TURN server no connection can be made: [`ConnectionError::NoRelay`]. If every TURN server is of no
    /// use, the peer fails early and says why: [`PeerFailure::IceServers`](crate::PeerFailure::IceServers).
    pub fn relay_only(mut self, relay_only: bool) -> Self {
        self.relay_only = relay_only;
        self
    }

    /// Sends and takes no packets that are longer than so many bytes, between 20 KiB and 256 KiB, which is the default;
    /// what is outside is set to the nearest. A longer one that is to be sent is
    /// [`TooLarge`](crate::SendError::TooLarge), and the remote is told that this side takes no more
    /// (`a=max-message-size`, RFC 8841 section 6), so that it sends none. Another stack that does so all the same loses
    /// that packet, and what comes with it.
    ///
    /// The `webrtc` crate keeps a buffer of this length for each connection, which is half of what a connection takes: for
    /// many peers and short packets it is worth setting.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = Some(bytes.clamp(MIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES));
        self
    }

    /// The longest message, either way.
    pub(crate) fn longest_message(&self) -> usize {
        self.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES)
    }

    /// Takes sockets, clock and tasks from this runtime of the `webrtc` crate. Default: tokio's, or that of the
    /// simulated host that the configuration is of. For tests on a virtual clock, mostly, where the feature `sim` has all
    /// there is to want.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        #[cfg(feature = "sim")]
        {
            self.host = None;
        }
        self.runtime = Some(runtime);
        self
    }

    #[cfg(feature = "sim")]
    pub(crate) fn host(mut self, host: crate::sim::Host) -> Self {
        self.host = Some(host);
        self
    }

    /// Checks what is known before a connection is made.
    pub(crate) fn check(&self) -> Result<(), ConnectionError> {
        if let Some(unusable) = self.unusable_address() {
            return Err(ConnectionError::Bind(unusable));
        }
        #[cfg(feature = "sim")]
        self.check_host()?;
        match self.servers() {
            Err(ConnectionError::NoRelay) if self.must_ask() => Ok(()),
            checked => checked.map(|_| ()),
        }
    }

    /// Refuses to let a simulation out to the real network.
    #[cfg(feature = "sim")]
    pub(crate) fn check_host(&self) -> Result<(), ConnectionError> {
        if self.host.is_none() && self.runtime.is_none() && crate::random::seeded::is_simulated() {
            let what =
                "a simulation has no network but its own: `.connection(network.peer(\"name\"))` is missing";
            return Err(ConnectionError::Bind(what.to_owned()));
        }
        Ok(())
    }

    /// An address to bind that this machine does not have now, and what the system says of it.
    pub(super) fn unusable_address(&self) -> Option<String> {
        #[cfg(feature = "sim")]
        if self.host.is_some() {
            return None;
        }
        // Another runtime may have addresses of its own.
        let own = self.bind.iter().filter(|_| self.runtime.is_none());
        own.filter(|addr| !addr.ip().is_unspecified()).find_map(|addr| {
            let bound = std::net::UdpSocket::bind(SocketAddr::new(addr.ip(), 0));
            bound.err().map(|error| format!("{}: {error}", addr.ip()))
        })
    }

    /// Whether the servers are not all known yet.
    pub(crate) fn must_ask(&self) -> bool {
        self.ask.is_some()
    }

    /// The same with the servers of the callback, if there is one.
    pub(crate) async fn ask(mut self) -> Result<PeerConnectionConfig, ConnectionError> {
        let Some(ask) = self.ask.take() else { return Ok(self) };
        let asking = AbortOnDropHandle::new(tokio::spawn(async move { ask().await }));
        let failed = |what: String| Err(ConnectionError::Credentials(what));
        match tokio::time::timeout(ASK_LIMIT, asking).await {
            Ok(Ok(Ok(servers))) => self.ice_servers.extend(servers),
            Ok(Ok(Err(error))) => return failed(error),
            Ok(Err(_)) => return failed("the callback has panicked".to_owned()),
            Err(_) => {
                return failed(format!("the callback took longer than {} s", ASK_LIMIT.as_secs()));
            }
        }
        self.asked = true;
        Ok(self)
    }

    pub(super) fn servers(&self) -> Result<Vec<Server>, ConnectionError> {
        let servers: Vec<Server> = self.ice_servers.iter().map(IceServer::check).collect::<Result<_, _>>()?;
        if self.relay_only && !servers.iter().any(|server| server.relay) {
            return Err(ConnectionError::NoRelay);
        }
        Ok(servers)
    }

    /// Whether a port is free now.
    pub(crate) fn is_free(&self, addr: SocketAddr) -> bool {
        #[cfg(feature = "sim")]
        if let Some(host) = &self.host {
            return host.is_free(addr);
        }
        std::net::UdpSocket::bind(addr).is_ok()
    }

    /// The addresses to bind now, with their ports where those are fixed.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        #[cfg(feature = "sim")]
        if let Some(host) = &self.host {
            return host.interfaces(&self.bind);
        }
        if self.bind.is_empty() {
            let mut all = interface_addresses(|_| true);
            if all.is_empty() {
                all.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            }
            return all;
        }
        let mut addresses = Vec::new();
        for addr in &self.bind {
            let mut these = vec![*addr];
            if addr.ip().is_unspecified() {
                these = interface_addresses(|other| other.is_ipv4() == addr.is_ipv4());
                if these.is_empty() {
                    these.push(SocketAddr::new(loopback_like(addr), 0));
                }
                these.iter_mut().for_each(|this| this.set_port(addr.port()));
            }
            addresses.extend(these);
        }
        addresses.dedup();
        addresses
    }
}

impl fmt::Debug for PeerConnectionConfig {
    /// Without addresses and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConnectionConfig")
            .field("port_range", &self.port_range)
            .field("ice_servers", &self.ice_servers.len())
            .field("relay_only", &self.relay_only)
            .field("max_message_bytes", &self.longest_message())
            .field("runtime", &self.runtime.as_ref().map(|runtime| runtime.name()))
            .finish_non_exhaustive()
    }
}

/// The addresses of the interfaces that a remote could reach: not loopback, not link-local.
fn interface_addresses(wanted: impl Fn(&SocketAddr) -> bool) -> Vec<SocketAddr> {
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the network interfaces");
        Vec::new()
    });
    let mut addresses: Vec<SocketAddr> = interfaces
        .into_iter()
        .filter_map(|interface| interface.addr)
        .map(|addr| SocketAddr::new(addr.ip(), 0))
        .filter(|addr| is_reachable(addr.ip()) && wanted(addr))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn is_reachable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

fn loopback_like(addr: &SocketAddr) -> IpAddr {
    if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_addresses_stay_out_of_debug() {
        let server = IceServer::turn("turn:host", "alice", "secret");
        let config =
            PeerConnectionConfig::new().bind("10.1.2.3:0".parse().unwrap()).ice_server(server.clone());
        let text = format!("{server:?} {config:?}");
        assert!(!text.contains("secret") && !text.contains("alice") && !text.contains("10.1.2.3"), "{text}");
    }

    #[test]
    fn an_address_of_another_machine_is_named_with_the_reason() {
        let config = |addr: &str| PeerConnectionConfig::new().bind(addr.parse().unwrap());
        assert_eq!(config("127.0.0.1:0").bind("0.0.0.0:0".parse().unwrap()).check(), Ok(()));
        match config("192.0.2.99:0").check() {
            Err(ConnectionError::Bind(what)) => assert!(what.starts_with("192.0.2.99: "), "{what}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_bind_address_something_is_bound() {
        let addresses = PeerConnectionConfig::new().addresses();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|addr| addr.port() == 0 && !addr.ip().is_unspecified()));
    }
}
