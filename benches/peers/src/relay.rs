//! A network between two nodes: a relay on 127.0.0.1 that forwards datagrams late, and loses some.
//!
//! Each node is told the relay's address instead of the other's: [`Relay::candidate`] and [`Relay::description`] rewrite
//! what signalling carries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::stack::Result;

/// What happens to a datagram, either way.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// How long it takes.
    pub delay: Duration,
    /// Up to how much longer, evenly spread; datagrams overtake each other then.
    pub jitter: Duration,
    /// The share that is lost, once [`Relay::lose`] says so.
    pub loss: f64,
    /// What the loss depends on.
    pub seed: u64,
}

/// Forwards between node 0 and node 1 until the runtime ends.
#[derive(Debug)]
pub struct Relay {
    network: Network,
    /// The share that is lost now, as the bits of an `f64`.
    loss: AtomicU64,
    /// What faces each node, and the node's own address, from a candidate or where it was last heard from.
    sides: [Side; 2],
}

#[derive(Debug)]
struct Side {
    socket: UdpSocket,
    node: Mutex<Option<SocketAddr>>,
}

/// Datagrams under way in one direction, at the most: 300 ms of 250,000 in a second. What comes beyond is lost.
const UNDER_WAY: usize = 75_000;

impl Relay {
    /// A relay that delays, but loses nothing yet.
    pub async fn start(network: Network) -> Result<Arc<Relay>> {
        let sides = [Side::new()?, Side::new()?];
        let relay = Arc::new(Relay { network, loss: AtomicU64::new(0), sides });
        for from in 0..2 {
            tokio::spawn(Arc::clone(&relay).forward(from));
        }
        Ok(relay)
    }

    /// From now on datagrams are lost.
    pub fn lose(&self) {
        self.loss.store(self.network.loss.to_bits(), Ordering::Relaxed);
    }

    /// A candidate of node `from`, as the other node is told it. `None` for one that the relay does not reach.
    pub fn candidate(&self, from: usize, candidate: &str) -> Option<String> {
        let mut words: Vec<&str> = candidate.split_whitespace().collect();
        let addr = SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?);
        let is_udp = words.get(2)?.eq_ignore_ascii_case("udp");
        let node = *self.sides[from].node().get_or_insert(addr);
        if !is_udp || !addr.is_ipv4() || node != addr {
            return None;
        }
        let seen = self.sides[1 - from].socket.local_addr().ok()?;
        let (ip, port) = (seen.ip().to_string(), seen.port().to_string());
        (words[4], words[5]) = (&ip, &port);
        Some(words.join(" "))
    }

    /// A description of node `from`, as the other node is told it.
    pub fn description(&self, from: usize, sdp: &str) -> String {
        let mut told = String::with_capacity(sdp.len());
        for line in sdp.lines() {
            match line.strip_prefix("a=candidate:") {
                None => told.extend([line, "\r\n"]),
                Some(candidate) => {
                    if let Some(candidate) = self.candidate(from, candidate) {
                        told.extend(["a=candidate:", &candidate, "\r\n"]);
                    }
                }
            }
        }
        told
    }

    async fn forward(self: Arc<Relay>, from: usize) {
        let (here, there) = (&self.sides[from], &self.sides[1 - from]);
        let mut random = StdRng::seed_from_u64(self.network.seed ^ from as u64);
        let mut under_way: BinaryHeap<Reverse<Datagram>> = BinaryHeap::new();
        let mut buffer = vec![0; 65_536];
        let mut count = 0;
        loop {
            let due = under_way.peek().map(|Reverse(first)| first.due);
            tokio::select! {
                ready = here.socket.readable() => {
                    if ready.is_err() {
                        return;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            // A bounded number at a time, so that what is due goes out in between.
            for _ in 0..64 {
                let (len, source) = match here.socket.try_recv_from(&mut buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What the node's side refuses is lost.
                    Err(_) => continue,
                };
                *here.node() = Some(source);
                let lost = random.random::<f64>() < f64::from_bits(self.loss.load(Ordering::Relaxed));
                if !lost && under_way.len() < UNDER_WAY {
                    count += 1;
                    let late = self.network.delay + self.network.jitter.mul_f64(random.random());
                    let due = Instant::now() + late;
                    under_way.push(Reverse(Datagram { due, count, bytes: buffer[..len].into() }));
                }
            }
            let now = Instant::now();
            while under_way.peek().is_some_and(|Reverse(first)| first.due <= now) {
                let Some(Reverse(datagram)) = under_way.pop() else { break };
                let node = *there.node();
                if let Some(node) = node {
                    // As on any network, what cannot be sent is lost.
                    let _ = there.socket.send_to(&datagram.bytes, node).await;
                }
            }
        }
    }
}

impl Side {
    fn new() -> Result<Side> {
        let socket = loopback_socket()?;
        Ok(Side { socket, node: Mutex::new(None) })
    }

    fn node(&self) -> std::sync::MutexGuard<'_, Option<SocketAddr>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By time, then by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    due: Instant,
    count: u64,
    bytes: Box<[u8]>,
}

/// A UDP socket on 127.0.0.1, with buffers of 4 MiB or what the kernel grants.
pub fn loopback_socket() -> Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(4 * 1024 * 1024)?;
    socket.set_send_buffer_size(4 * 1024 * 1024)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(UdpSocket::from_std(socket.into())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NETWORK: Network =
        Network { delay: Duration::from_millis(20), jitter: Duration::ZERO, loss: 1.0, seed: 1 };

    #[tokio::test]
    async fn what_is_sent_to_the_relay_comes_late_from_its_other_side() {
        let relay = Relay::start(NETWORK).await.unwrap();
        let [a, b] = [loopback_socket().unwrap(), loopback_socket().unwrap()];
        let candidate = |of: &UdpSocket| {
            let port = of.local_addr().unwrap().port();
            format!("candidate:1 1 UDP 2122317823 127.0.0.1 {port} typ host")
        };
        let told = relay.candidate(0, &candidate(&a)).unwrap();
        let port: u16 = told.split(' ').nth(5).unwrap().parse().unwrap();
        relay.candidate(1, &candidate(&b)).unwrap();
        let began = Instant::now();
        b.send_to(b"hello", ("127.0.0.1", port)).await.unwrap();
        let mut buffer = [0; 16];
        let (len, source) =
            tokio::time::timeout(Duration::from_secs(5), a.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..len], b"hello");
        assert!(began.elapsed() >= NETWORK.delay);
        assert_ne!(source.port(), port, "each node has a side of its own");
    }

    #[tokio::test]
    async fn a_candidate_of_another_address_is_not_told() {
        let relay = Relay::start(NETWORK).await.unwrap();
        assert!(relay.candidate(0, "candidate:1 1 UDP 1 127.0.0.1 1000 typ host").is_some());
        assert!(relay.candidate(0, "candidate:1 1 UDP 1 127.0.0.1 1001 typ host").is_none());
        let sdp = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 1001 typ host\r\na=x\r\n";
        assert_eq!(relay.description(0, sdp), "v=0\r\na=x\r\n");
    }
}
