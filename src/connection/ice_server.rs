//! A STUN or TURN server: [`IceServer`], and what its URL says.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use webrtc::peer_connection::RTCIceServer;

use crate::error::ConnectionError;

/// A STUN or TURN server, over UDP; others are refused when the connection is made.
///
/// The host is an IPv4 address, an IPv6 address in brackets, or a name; the port is 3478 if there is none. Names are
/// resolved anew for each connection, all of them at once and for 3 s at the most: so long its own addresses wait. Of
/// the addresses of a name, the first of each family is asked, from every bound address of that family. A server whose
/// name is not resolved, that does not answer, or that refuses, is left out; see
/// [`PeerConnection::ice_server_errors`](crate::PeerConnection::ice_server_errors).
///
/// Of several TURN servers with one address, only the first is asked, with its credentials. A TURN server must ask for
/// credentials. Its relay has an IPv4 address, unless the server is set up otherwise: no other is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    url: String,
    username: String,
    credential: String,
}

/// A server that can be used.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// The URL as it was given.
    pub(super) url: String,
    pub(super) relay: bool,
    pub(super) host: Host,
    /// What the library asks its runtime to resolve.
    pub(super) query: String,
    pub(super) rtc: RTCIceServer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Address(SocketAddr),
    /// The name and the port, with a colon between.
    Name(String),
}

/// The longest user name that STUN carries (RFC 8489 section 14.3).
const MAX_USERNAME_BYTES: usize = 508;
/// The longest name that DNS carries (RFC 1035 section 2.3.4), written out.
const MAX_NAME_BYTES: usize = 253;

const DEFAULT_PORT: u16 = 3478;

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
    pub(super) fn check(&self) -> Result<Server, ConnectionError> {
        self.parse().map_err(|reason| ConnectionError::IceServer { url: self.shown(), reason })
    }

    fn parse(&self) -> Result<Server, String> {
        let wrong = |reason: &str| Err(reason.to_owned());
        let Some((scheme, rest)) = self.url.split_once(':') else {
            return wrong("it has no scheme; stun:host:port or turn:host:port is expected");
        };
        let relay = match scheme.to_ascii_lowercase().as_str() {
            "stun" => false,
            "turn" => true,
            "stuns" | "turns" => return wrong("TLS is not supported; use the server's UDP port"),
            _ => return wrong("the scheme is neither stun nor turn"),
        };
        if rest.starts_with("//") {
            return wrong("there is no // in such a URL; stun:host:port or turn:host:port is expected");
        }
        if rest.contains('@') {
            return wrong("it names a user; the user name is an argument of IceServer::turn");
        }
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        match query {
            None | Some("transport=udp") if relay => {}
            None => {}
            Some(_) if !relay => return wrong("a stun: URL has no query"),
            Some("transport=tcp") => {
                return wrong("TURN over TCP is not supported; use the server's UDP port");
            }
            Some(query) => {
                return Err(match query.split_once('=') {
                    Some(("transport", _)) => "the transport is neither udp nor tcp".to_owned(),
                    _ => "the query is not transport=udp".to_owned(),
                });
            }
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host, port)?;
        let named = !(self.username.is_empty() && self.credential.is_empty());
        if relay && (self.username.is_empty() || self.credential.is_empty()) {
            return wrong("a TURN server needs a user name and a credential");
        }
        if self.username.len() > MAX_USERNAME_BYTES {
            return Err(format!("the user name is longer than {MAX_USERNAME_BYTES} bytes"));
        }
        if !relay && named {
            return wrong("a STUN server takes no credentials; use IceServer::stun");
        }
        let host_and_port = host.to_string();
        let scheme = if relay { "turn" } else { "stun" };
        let query = match &host {
            // The library leaves out the brackets here.
            Host::Address(SocketAddr::V6(address)) if relay => format!("{}:{}", address.ip(), address.port()),
            _ => host_and_port.clone(),
        };
        let rtc = RTCIceServer {
            urls: vec![format!("{scheme}:{host_and_port}")],
            username: self.username.clone(),
            credential: self.credential.clone(),
        };
        if let Err(error) = rtc.urls() {
            return Err(error.to_string());
        }
        Ok(Server { url: self.shown(), relay, host, query, rtc })
    }

    /// The URL as it may be shown: without a user that has no business there.
    fn shown(&self) -> String {
        match (self.url.split_once(':'), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}:…@{host}"),
            (None, Some((_, host))) => format!("…@{host}"),
            _ => self.url.clone(),
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the bracket of the address is not closed")?;
            host.parse::<Ipv6Addr>().map_err(|_| "what is in brackets is no IPv6 address")?;
            match after.strip_prefix(':') {
                Some(port) => (&authority[..host.len() + 2], Some(port)),
                None if after.is_empty() => (authority, None),
                None => return Err("after the bracket comes a colon and the port, or nothing".to_owned()),
            }
        }
        None if authority.parse::<Ipv6Addr>().is_ok() || authority.matches(':').count() > 1 => {
            return Err("an IPv6 address goes in brackets".to_owned());
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            port.ok_or("the port is not from 1 to 65535")?
        }
        Some(_) => return Err("the port is not a number".to_owned()),
    };
    Ok((host, port))
}

fn parse_host(host: &str, port: u16) -> Result<Host, String> {
    if host.is_empty() {
        return Err("it names no host".to_owned());
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "what is in brackets is no IPv6 address")?;
        return Ok(Host::Address(SocketAddr::new(IpAddr::V6(address), port)));
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Address(SocketAddr::new(IpAddr::V4(address), port)));
    }
    if let Some(other) = host.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))) {
        return Err(format!("{other:?} is in no host name"));
    }
    let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
    if host.len() > MAX_NAME_BYTES || labels.clone().any(|label| label.is_empty() || label.len() > 63) {
        return Err("the host is no name: a part of it is empty or too long".to_owned());
    }
    if labels.next_back().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("the host is neither an IPv4 address nor a name".to_owned());
    }
    Ok(Host::Name(format!("{host}:{port}")))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for IceServer {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("url", &self.shown()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(url: &str) -> IceServer {
        IceServer::turn(url, "alice", "secret")
    }

    #[test]
    fn what_is_wrong_with_a_url_is_named() {
        let long = format!("stun:{}", "a".repeat(64));
        let user = "u".repeat(509);
        for (server, reason) in [
            (IceServer::stun(""), "no scheme"),
            (IceServer::stun("example.org"), "no scheme"),
            (IceServer::stun("http://example.org"), "neither stun nor turn"),
            (IceServer::stun(" stun:example.org"), "neither stun nor turn"),
            (IceServer::stun("stuns:example.org"), "TLS is not supported"),
            (turn("turns:example.org"), "TLS is not supported"),
            (turn("turns:example.org:443?transport=tcp"), "TLS is not supported"),
            (turn("TURNS:example.org"), "TLS is not supported"),
            (IceServer::stun("stun://example.org"), "no //"),
            (turn("turn:example.org?transport=tcp"), "TURN over TCP is not supported"),
            (turn("turn:example.org?transport=sctp"), "neither udp nor tcp"),
            (turn("turn:example.org?transport=UDP"), "neither udp nor tcp"),
            (turn("turn:example.org?transport"), "the query is not transport=udp"),
            (turn("turn:example.org?"), "the query is not transport=udp"),
            (turn("turn:example.org?ttl=3"), "the query is not transport=udp"),
            (turn("turn:example.org?transport=udp&ttl=3"), "neither udp nor tcp"),
            (IceServer::stun("stun:example.org?transport=udp"), "no query"),
            (IceServer::stun("stun:"), "no host"),
            (IceServer::stun("stun::3478"), "no host"),
            (IceServer::stun("stun:example.org:"), "the port is not a number"),
            (IceServer::stun("stun:example.org:http"), "the port is not a number"),
            (IceServer::stun("stun:example.org:-1"), "the port is not a number"),
            (IceServer::stun("stun:example.org:+1"), "the port is not a number"),
            (IceServer::stun("stun:example.org:0"), "from 1 to 65535"),
            (IceServer::stun("stun:example.org:65536"), "from 1 to 65535"),
            (IceServer::stun("stun:example.org:99999999999999999999"), "from 1 to 65535"),
            (IceServer::stun("stun:::1"), "brackets"),
            (IceServer::stun("stun:2001:db8::1"), "brackets"),
            (IceServer::stun("stun:[::1"), "not closed"),
            (IceServer::stun("stun:[]"), "no IPv6 address"),
            (IceServer::stun("stun:[127.0.0.1]"), "no IPv6 address"),
            (IceServer::stun("stun:[fe80::1%eth0]"), "no IPv6 address"),
            (IceServer::stun("stun:[::1]3478"), "after the bracket"),
            (IceServer::stun("stun:[::1]:x"), "the port is not a number"),
            (IceServer::stun("stun:127.0.0.256"), "neither an IPv4 address nor a name"),
            (IceServer::stun("stun:127.1"), "neither an IPv4 address nor a name"),
            (IceServer::stun("stun:exämple.org"), "'ä' is in no host name"),
            (IceServer::stun("stun:example.org/path"), "'/' is in no host name"),
            (IceServer::stun("stun:example.org#here"), "'#' is in no host name"),
            (IceServer::stun("stun:example.org "), "' ' is in no host name"),
            (IceServer::stun("stun:example..org"), "empty or too long"),
            (IceServer::stun("stun:."), "empty or too long"),
            (IceServer::stun(long), "empty or too long"),
            (IceServer::stun("turn:example.org"), "needs a user name"),
            (IceServer::turn("turn:example.org", "alice", ""), "needs a user name"),
            (IceServer::turn("turn:example.org", "", "secret"), "needs a user name"),
            (IceServer::turn("turn:example.org", user, "secret"), "longer than 508 bytes"),
            (turn("stun:example.org"), "takes no credentials"),
        ] {
            let error = server.check().unwrap_err();
            let text = error.to_string();
            assert!(text.contains(reason) && text.contains(&format!("{:?}", server.url)), "{text}");
            assert!(!text.contains("secret") && !text.contains("alice"), "{text}");
        }
    }

    #[test]
    fn a_url_that_can_be_used_names_its_address_or_its_name() {
        for (server, host, query) in [
            (IceServer::stun("stun:example.org"), "example.org:3478", "example.org:3478"),
            (IceServer::stun("stun:localhost:1"), "localhost:1", "localhost:1"),
            (IceServer::stun("STUN:example.org.:65535"), "example.org.:65535", "example.org.:65535"),
            (IceServer::stun("stun:192.0.2.1"), "192.0.2.1:3478", "192.0.2.1:3478"),
            (IceServer::stun("stun:[::1]:9"), "[::1]:9", "[::1]:9"),
            (turn("turn:my_host-1.example.org:5"), "my_host-1.example.org:5", "my_host-1.example.org:5"),
            (turn("turn:example.org?transport=udp"), "example.org:3478", "example.org:3478"),
            (turn("turn:[2001:db8::1]"), "[2001:db8::1]:3478", "2001:db8::1:3478"),
        ] {
            let server = server.check().unwrap();
            assert_eq!((server.host.to_string().as_str(), server.query.as_str()), (host, query));
            assert_eq!(server.relay, server.rtc.urls[0].starts_with("turn:"));
        }
    }

    #[test]
    fn a_user_in_a_url_is_not_shown() {
        let server = IceServer::stun("turn:alice:secret@example.org");
        let error = server.check().unwrap_err().to_string();
        assert!(error.contains("it names a user") && error.contains("turn:…@example.org"), "{error}");
        assert!(!format!("{server:?} {error}").contains("secret"));
    }
}
