//! How a connection is made: [`PeerConnectionConfig`] and [`IceServer`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use webrtc::peer_connection::RTCIceServer;
use webrtc::runtime::Runtime;

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
    pub(crate) relay_only: bool,
    pub(crate) runtime: Option<Arc<dyn Runtime>>,
}

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

    /// Connects through TURN relays only, so that the remote learns no address of this machine. Default `false`.
    /// Without a TURN server no connection can be made: [`ConnectionError::NoRelay`].
    pub fn relay_only(mut self, relay_only: bool) -> Self {
        self.relay_only = relay_only;
        self
    }

    /// Takes sockets, clock and tasks from this runtime of the `webrtc` crate. Default: tokio's. For tests on a
    /// virtual clock and a simulated network, mostly.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    pub(crate) fn rtc_ice_servers(&self) -> Result<Vec<RTCIceServer>, ConnectionError> {
        if self.relay_only && !self.ice_servers.iter().any(|server| server.url.starts_with("turn:")) {
            return Err(ConnectionError::NoRelay);
        }
        self.ice_servers.iter().map(IceServer::to_rtc).collect()
    }

    /// The addresses to bind now, with their ports where those are fixed.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
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
            .field("runtime", &self.runtime.as_ref().map(|runtime| runtime.name()))
            .finish_non_exhaustive()
    }
}

/// A STUN or TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    url: String,
    username: String,
    credential: String,
}

impl IceServer {
    /// A STUN server, as `stun:host` or `stun:host:port` (RFC 7064).
    pub fn stun(url: impl Into<String>) -> IceServer {
        IceServer { url: url.into(), username: String::new(), credential: String::new() }
    }

    /// A TURN server over UDP, as `turn:host` or `turn:host:port` (RFC 7065), with the long-term credential.
    pub fn turn(
        url: impl Into<String>,
        username: impl Into<String>,
        credential: impl Into<String>,
    ) -> IceServer {
        IceServer { url: url.into(), username: username.into(), credential: credential.into() }
    }

    /// Checks what the library below would skip in silence or report too late.
    fn to_rtc(&self) -> Result<RTCIceServer, ConnectionError> {
        let wrong = |reason: &str| {
            Err(ConnectionError::IceServer { url: self.url.clone(), reason: reason.to_owned() })
        };
        let Some((scheme, rest)) = self.url.split_once(':') else {
            return wrong("it has no scheme; stun:host:port or turn:host:port is expected");
        };
        let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
        if host.is_empty() {
            return wrong("it names no host");
        }
        match scheme {
            "stun" if query.is_empty() => {}
            "stun" => return wrong("a stun: URL has no query"),
            "turn" if query == "transport=tcp" => {
                return wrong("TURN over TCP is not supported; use the server's UDP port");
            }
            "turn" if !query.is_empty() && query != "transport=udp" => {
                return wrong("the query is neither transport=udp nor transport=tcp");
            }
            "turn" if self.username.is_empty() || self.credential.is_empty() => {
                return wrong("a TURN server needs a user name and a credential");
            }
            "turn" => {}
            "stuns" | "turns" => return wrong("TLS is not supported; use the server's UDP port"),
            _ => return wrong("the scheme is neither stun nor turn"),
        }
        let server = RTCIceServer {
            urls: vec![self.url.clone()],
            username: self.username.clone(),
            credential: self.credential.clone(),
        };
        match rtc::ice::url::Url::parse_url(&self.url) {
            Ok(_) => Ok(server),
            Err(error) => wrong(&error.to_string()),
        }
    }
}

impl fmt::Debug for IceServer {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("url", &self.url).finish_non_exhaustive()
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
    fn an_ice_server_that_would_be_skipped_in_silence_is_refused_by_name() {
        for (server, reason) in [
            (IceServer::stun("example.org"), "no scheme"),
            (IceServer::stun("http://example.org"), "neither stun nor turn"),
            (IceServer::stun("stun:"), "no host"),
            (IceServer::stun("stun:host:99999"), ""),
            (IceServer::turn("turn:host?transport=tcp", "u", "c"), "TURN over TCP"),
            (IceServer::turn("turns:host", "u", "c"), "TLS"),
            (IceServer::turn("turn:host", "", ""), "needs a user name"),
            (IceServer::turn("turn:host?transport=sctp", "u", "c"), "neither transport"),
        ] {
            let error = server.to_rtc().unwrap_err();
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains(&server.url), "{text}");
        }
        IceServer::stun("stun:host:3478").to_rtc().unwrap();
        IceServer::turn("turn:host:3478?transport=udp", "u", "c").to_rtc().unwrap();
    }

    #[test]
    fn credentials_and_addresses_stay_out_of_debug() {
        let server = IceServer::turn("turn:host", "alice", "secret");
        let config =
            PeerConnectionConfig::new().bind("10.1.2.3:0".parse().unwrap()).ice_server(server.clone());
        let text = format!("{server:?} {config:?}");
        assert!(!text.contains("secret") && !text.contains("alice") && !text.contains("10.1.2.3"), "{text}");
    }

    #[test]
    fn without_a_bind_address_something_is_bound() {
        let addresses = PeerConnectionConfig::new().addresses();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|addr| addr.port() == 0 && !addr.ip().is_unspecified()));
    }
}
