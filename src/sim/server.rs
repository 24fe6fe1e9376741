//! STUN and TURN servers on the network.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rtc::crypto::RTCCryptoProvider;
use rtc::stun::attributes::{
    ATTR_DATA, ATTR_LIFETIME, ATTR_NONCE, ATTR_REALM, ATTR_USERNAME, ATTR_XOR_PEER_ADDRESS,
    ATTR_XOR_RELAYED_ADDRESS, ATTR_XORMAPPED_ADDRESS, AttrType,
};
use rtc::stun::error_code::{
    CODE_ALLOC_MISMATCH, CODE_ALLOC_QUOTA_REACHED, CODE_BAD_REQUEST, CODE_UNAUTHORIZED, ErrorCode,
};
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_ALLOCATE,
    METHOD_BINDING, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH, METHOD_SEND, Message,
    MessageClass, MessageType, Method, Setter as _,
};
use rtc::stun::xoraddr::XorMappedAddress;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Host, UdpSocket};
use crate::connection::IceServer;

/// A STUN or TURN server on a [`Host`], at port 3478. It is a task, and stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ice_server: IceServer,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// What a connection's configuration takes: [`PeerConnectionConfig::ice_server`].
    ///
    /// [`PeerConnectionConfig::ice_server`]: crate::PeerConnectionConfig::ice_server
    pub fn ice_server(&self) -> IceServer {
        self.ice_server.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Host {
    /// Starts a STUN server here, which answers Binding requests (RFC 8489).
    ///
    /// # Errors
    ///
    /// As for [`bind`](Host::bind).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn stun_server(&self) -> io::Result<Server> {
        self.serve(None, |address| IceServer::stun(format!("stun:{address}")))
    }

    /// Starts a TURN server here (RFC 8656, over UDP), which is a STUN server too. It relays from this host's address
    /// for whoever has this name and credential: at the most 1,024 allocations, of 10 minutes unless they are
    /// refreshed, with permissions of 5 minutes. It knows no channels and signs no answer.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Host::bind).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn turn_server(&self, username: &str, credential: &str) -> io::Result<Server> {
        let crypto = rtc::crypto::default_provider().map_err(io::Error::other)?;
        let (name, realm, password) = (username.to_owned(), REALM.to_owned(), credential.to_owned());
        let key = MessageIntegrity::long_term_integrity_key(name, realm, password, crypto.crypto());
        let login = Login { username: username.to_owned(), key: key.map_err(io::Error::other)?, crypto };
        self.serve(Some(login), |address| IceServer::turn(format!("turn:{address}"), username, credential))
    }

    fn serve(
        &self,
        login: Option<Login>,
        ice_server: impl FnOnce(SocketAddr) -> IceServer,
    ) -> io::Result<Server> {
        let socket = self.bind(PORT)?;
        let address = socket.local_addr();
        let service = Service { host: self.clone(), socket, login, allocations: BTreeMap::new() };
        let task = AbortOnDropHandle::new(tokio::spawn(service.run()));
        Ok(Server { address, ice_server: ice_server(address), _task: task })
    }
}

const PORT: u16 = 3478;
const REALM: &str = "sim";
const NONCE: &str = "once";
const MAX_ALLOCATIONS: usize = 1024;
const ALLOCATION_LIFETIME: Duration = Duration::from_secs(600);
const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);
/// Permissions of one allocation; far more than any mesh has members.
const MAX_PERMISSIONS: usize = 4096;

struct Service {
    host: Host,
    socket: UdpSocket,
    /// Of a TURN server.
    login: Option<Login>,
    /// By the client's address.
    allocations: BTreeMap<SocketAddr, Allocation>,
}

struct Login {
    username: String,
    key: Vec<u8>,
    crypto: Arc<dyn RTCCryptoProvider>,
}

struct Allocation {
    relay: UdpSocket,
    expires: Instant,
    permissions: BTreeMap<IpAddr, Instant>,
}

enum Input {
    /// From a client.
    Message(Vec<u8>, SocketAddr),
    /// From a peer, for the client of this address.
    Relayed(SocketAddr, Vec<u8>, SocketAddr),
}

type Attributes = Vec<(AttrType, Vec<u8>)>;

impl Service {
    async fn run(mut self) {
        loop {
            let input = poll_fn(|cx| {
                if let Poll::Ready((bytes, from)) = self.socket.poll_recv_from(cx) {
                    return Poll::Ready(Input::Message(bytes, from));
                }
                for (client, allocation) in &mut self.allocations {
                    if let Poll::Ready((bytes, from)) = allocation.relay.poll_recv_from(cx) {
                        return Poll::Ready(Input::Relayed(*client, bytes, from));
                    }
                }
                Poll::Pending
            })
            .await;
            let now = Instant::now();
            self.allocations.retain(|_, allocation| allocation.expires > now);
            match input {
                Input::Message(bytes, from) => self.message(&bytes, from, now),
                Input::Relayed(client, bytes, from) => self.relayed(client, bytes, from, now),
            }
        }
    }

    fn relayed(&mut self, client: SocketAddr, bytes: Vec<u8>, from: SocketAddr, now: Instant) {
        let allocation = self.allocations.get(&client);
        let permission = allocation.and_then(|allocation| allocation.permissions.get(&from.ip()));
        if permission.is_none_or(|until| *until <= now) {
            return;
        }
        let mut indication = Message::new();
        indication.typ = MessageType::new(METHOD_DATA, CLASS_INDICATION);
        indication.write_header();
        if xor(from).add_to_as(&mut indication, ATTR_XOR_PEER_ADDRESS).is_ok() {
            indication.add(ATTR_DATA, &bytes);
            self.socket.send_to(&indication.raw, client);
        }
    }

    fn message(&mut self, bytes: &[u8], from: SocketAddr, now: Instant) {
        let mut message = Message::new();
        if message.unmarshal_binary(bytes).is_err() {
            return;
        }
        let MessageType { method, class } = message.typ;
        if class == CLASS_REQUEST && method == METHOD_BINDING {
            self.answer(&message, CLASS_SUCCESS_RESPONSE, from, &[], &[(ATTR_XORMAPPED_ADDRESS, from)]);
        } else if class == CLASS_INDICATION && method == METHOD_SEND {
            self.send(&message, from, now);
        } else if class == CLASS_REQUEST && self.login.is_some() {
            match self.request(&mut message, method, from, now) {
                Ok((attributes, addresses)) => {
                    self.answer(&message, CLASS_SUCCESS_RESPONSE, from, &attributes, &addresses);
                }
                Err(code) => self.refuse(&message, from, code),
            }
        }
    }

    fn send(&mut self, indication: &Message, from: SocketAddr, now: Instant) {
        let (Some(peer), Ok(data)) = (peer_of(indication), indication.get(ATTR_DATA)) else { return };
        let Some(allocation) = self.allocations.get(&from) else { return };
        if allocation.permissions.get(&peer.ip()).is_some_and(|until| *until > now) {
            allocation.relay.send_to(&data, peer);
        }
    }

    /// What a successful answer says.
    fn request(
        &mut self,
        request: &mut Message,
        method: Method,
        from: SocketAddr,
        now: Instant,
    ) -> Result<(Attributes, Vec<(AttrType, SocketAddr)>), ErrorCode> {
        let Some(login) = &self.login else { return Err(CODE_BAD_REQUEST) };
        let named = request.get(ATTR_USERNAME).is_ok_and(|name| name == login.username.as_bytes());
        if !named || MessageIntegrity::check(request, &login.key, login.crypto.crypto()).is_err() {
            return Err(CODE_UNAUTHORIZED);
        }
        let lifetime = |lifetime: Duration| {
            let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
            (ATTR_LIFETIME, seconds.to_be_bytes().to_vec())
        };
        match method {
            METHOD_ALLOCATE => {
                // A repeated request: the answer was lost.
                if !self.allocations.contains_key(&from) {
                    if self.allocations.len() >= MAX_ALLOCATIONS {
                        return Err(CODE_ALLOC_QUOTA_REACHED);
                    }
                    let relay = self.host.bind(0).map_err(|_| CODE_ALLOC_QUOTA_REACHED)?;
                    let expires = now + ALLOCATION_LIFETIME;
                    let allocation = Allocation { relay, expires, permissions: BTreeMap::new() };
                    self.allocations.insert(from, allocation);
                }
                let relay = self.allocations.get(&from).ok_or(CODE_ALLOC_MISMATCH)?.relay.local_addr();
                let addresses = vec![(ATTR_XOR_RELAYED_ADDRESS, relay), (ATTR_XORMAPPED_ADDRESS, from)];
                Ok((vec![lifetime(ALLOCATION_LIFETIME)], addresses))
            }
            METHOD_REFRESH => {
                if request.get(ATTR_LIFETIME).is_ok_and(|seconds| seconds == [0; 4]) {
                    self.allocations.remove(&from);
                    return Ok((vec![lifetime(Duration::ZERO)], Vec::new()));
                }
                let allocation = self.allocations.get_mut(&from).ok_or(CODE_ALLOC_MISMATCH)?;
                allocation.expires = now + ALLOCATION_LIFETIME;
                Ok((vec![lifetime(ALLOCATION_LIFETIME)], Vec::new()))
            }
            METHOD_CREATE_PERMISSION => {
                let allocation = self.allocations.get_mut(&from).ok_or(CODE_ALLOC_MISMATCH)?;
                let peer = peer_of(request).ok_or(CODE_BAD_REQUEST)?;
                allocation.permissions.retain(|_, until| *until > now);
                if allocation.permissions.len() >= MAX_PERMISSIONS {
                    return Err(CODE_ALLOC_QUOTA_REACHED);
                }
                allocation.permissions.insert(peer.ip(), now + PERMISSION_LIFETIME);
                Ok((Vec::new(), Vec::new()))
            }
            _ => Err(CODE_BAD_REQUEST),
        }
    }

    fn refuse(&self, request: &Message, to: SocketAddr, code: ErrorCode) {
        let mut attributes = Vec::new();
        if code == CODE_UNAUTHORIZED {
            attributes.push((ATTR_REALM, REALM.into()));
            attributes.push((ATTR_NONCE, NONCE.into()));
        }
        let mut answer = self.begin(request, CLASS_ERROR_RESPONSE, &attributes);
        if code.add_to(&mut answer).is_ok() {
            self.socket.send_to(&answer.raw, to);
        }
    }

    fn answer(
        &self,
        request: &Message,
        class: MessageClass,
        to: SocketAddr,
        attributes: &[(AttrType, Vec<u8>)],
        addresses: &[(AttrType, SocketAddr)],
    ) {
        let mut answer = self.begin(request, class, attributes);
        if addresses.iter().all(|(name, address)| xor(*address).add_to_as(&mut answer, *name).is_ok()) {
            self.socket.send_to(&answer.raw, to);
        }
    }

    fn begin(&self, request: &Message, class: MessageClass, attributes: &[(AttrType, Vec<u8>)]) -> Message {
        let mut answer = Message::new();
        answer.transaction_id = request.transaction_id;
        answer.typ = MessageType::new(request.typ.method, class);
        answer.write_header();
        attributes.iter().for_each(|(name, value)| answer.add(*name, value));
        answer
    }
}

fn xor(address: SocketAddr) -> XorMappedAddress {
    XorMappedAddress { ip: address.ip(), port: address.port() }
}

fn peer_of(message: &Message) -> Option<SocketAddr> {
    let mut peer = xor(SocketAddr::from(([0, 0, 0, 0], 0)));
    peer.get_from_as(message, ATTR_XOR_PEER_ADDRESS).ok()?;
    Some(SocketAddr::new(peer.ip, peer.port))
}
