//! What a simulated host gives to one connection in the place of the operating system: sockets, clock and tasks.
//!
//! The `webrtc` crate binds every socket itself, as a real one, and takes the address of its host candidates from it.
//! So it binds a stand-in on loopback, which closes at once; the simulated socket takes its place, and the candidates
//! are rewritten on their way out ([`Attachment::announced`]). Whatever the crate does with the stand-in's address
//! stays within it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use webrtc::runtime::{AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime};

use super::Host;
use super::socket::Socket;

/// One connection's place on a host.
pub(crate) struct Attachment {
    host: Host,
    stand_ins: Mutex<Vec<StandIn>>,
}

struct StandIn {
    /// What the library binds: loopback of the same family. Port 0 is for the first of a family only, as the library
    /// binds each address once.
    bind: SocketAddr,
    /// What is wanted: an address of the host, and its port or 0.
    wanted: SocketAddr,
    /// The real address of the stand-in, and the simulated one, since it was bound last.
    bound: Option<(SocketAddr, SocketAddr)>,
}

impl Host {
    /// The addresses to bind where `wanted` is asked for: with every address of the host in the place of none, and of
    /// an unspecified one.
    pub(crate) fn interfaces(&self, wanted: &[SocketAddr]) -> Vec<SocketAddr> {
        let all = self.addresses();
        let mut addresses = Vec::new();
        if wanted.is_empty() {
            addresses.extend(all.iter().map(|ip| SocketAddr::new(*ip, 0)));
        }
        for addr in wanted {
            if addr.ip().is_unspecified() {
                let family = all.iter().filter(|ip| ip.is_ipv4() == addr.is_ipv4());
                addresses.extend(family.map(|ip| SocketAddr::new(*ip, addr.port())));
            } else {
                addresses.push(*addr);
            }
        }
        addresses.dedup();
        addresses
    }

    pub(crate) fn is_free(&self, addr: SocketAddr) -> bool {
        self.network.state().is_free(addr)
    }

    /// A place for a connection that binds these addresses.
    pub(crate) fn attach(&self, wanted: Vec<SocketAddr>) -> io::Result<Arc<Attachment>> {
        // Open until each has a port, so that no two have the same.
        let mut reserved = Vec::new();
        let mut stand_ins: Vec<StandIn> = Vec::new();
        for wanted in wanted {
            let loopback: IpAddr =
                if wanted.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let mut bind = SocketAddr::new(loopback, 0);
            if stand_ins.iter().any(|stand_in| stand_in.bind == bind) {
                let socket = std::net::UdpSocket::bind(bind)?;
                bind = socket.local_addr()?;
                reserved.push(socket);
            }
            stand_ins.push(StandIn { bind, wanted, bound: None });
        }
        Ok(Arc::new(Attachment { host: self.clone(), stand_ins: Mutex::new(stand_ins) }))
    }
}

impl Attachment {
    /// What the library is to bind.
    pub(crate) fn stand_ins(&self) -> Vec<SocketAddr> {
        self.lock().iter().map(|stand_in| stand_in.bind).collect()
    }

    /// The candidate with simulated addresses in the place of the stand-ins'.
    pub(crate) fn announced(&self, candidate: &str) -> String {
        let mut fields: Vec<String> = candidate.split(' ').map(str::to_owned).collect();
        let related = fields.iter().skip(8).position(|field| field == "raddr").map(|at| 8 + at + 1);
        let related = related.map(|ip| (ip, ip + 2)); // between them, `rport`
        for (ip, port) in [Some((4, 5)), related].into_iter().flatten() {
            let address = fields.get(ip).zip(fields.get(port));
            let address =
                address.and_then(|(ip, port)| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)));
            let stand_ins = self.lock();
            let mut bound = stand_ins.iter().filter_map(|stand_in| stand_in.bound);
            if let Some((_, simulated)) = bound.find(|(real, _)| Some(*real) == address) {
                fields[ip] = simulated.ip().to_string();
                fields[port] = simulated.port().to_string();
            }
        }
        fields.join(" ")
    }

    /// The simulated socket for this stand-in. One that is bound again, as an ICE restart does, moves with its host.
    fn bind(&self, real: SocketAddr) -> io::Result<Socket> {
        let mut stand_ins = self.lock();
        let is_of = |stand_in: &StandIn| {
            stand_in.bind == real || (stand_in.bind.port() == 0 && stand_in.bind.ip() == real.ip())
        };
        let index = stand_ins
            .iter()
            .position(|stand_in| stand_in.bind == real)
            .or_else(|| stand_ins.iter().position(is_of))
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let stand_in = &mut stand_ins[index];
        let own = self.host.addresses();
        let ip = stand_in.wanted.ip();
        let present = own.iter().find(|own| own.is_ipv4() == ip.is_ipv4());
        let has_moved = stand_in.bound.is_some() && !own.contains(&ip);
        if let (true, Some(present)) = (has_moved, present) {
            stand_in.wanted.set_ip(*present);
        }
        let socket = self.host.network.bind(self.host.id, stand_in.wanted)?;
        stand_in.bound = Some((real, socket.local_addr()?));
        Ok(socket)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StandIn>> {
        self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("host", &self.host).finish_non_exhaustive()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for Attachment {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        Box::new(Task(tokio::spawn(future)))
    }

    fn wrap_udp_socket(&self, stand_in: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(self.bind(stand_in.local_addr()?)?))
    }

    fn wrap_tcp_listener(&self, _: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        Err(no_tcp())
    }

    fn connect_tcp<'a>(&'a self, _: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async { Err(no_tcp()) })
    }

    /// The names of hosts, with a port behind a colon.
    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            if let Ok(addr) = host.parse() {
                return Ok(vec![addr]);
            }
            let (name, port) = host.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            let addresses = self.host.network.resolve(name).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("the simulation has no host {name:?}"))
            })?;
            Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
        })
    }

    /// Tokio's paused clock: a fixed `std` instant and the virtual time since, the same for all hosts.
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        Box::new(Interval(tokio::time::interval(period)))
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        // Nothing of this crate calls it; within a runtime that blocks already, nothing could.
        tokio::runtime::Handle::current().block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}

fn no_tcp() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the simulation has no TCP")
}

struct Task(tokio::task::JoinHandle<()>);

impl JoinHandle for Task {
    /// Nothing to do: a tokio task runs on when its handle is dropped.
    fn detach(&self) {}

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

struct Interval(tokio::time::Interval);

impl AsyncInterval for Interval {
    fn tick(&mut self) -> Boxed<'_, ()> {
        Box::pin(async {
            self.0.tick().await;
        })
    }
}
