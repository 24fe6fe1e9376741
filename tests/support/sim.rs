//! A network that exists only in memory and in virtual time, under real `webrtc` connections.
//!
//! ICE, DTLS and SCTP are the real ones; the sockets are queues with seeded loss and delay, and the clock is
//! tokio's paused one. A minute of waiting costs nothing; a hang becomes a failed test that names its seed.
//!
//! ```ignore
//! #[test]
//! fn a_link_comes_up_at_five_percent_loss() {
//!     sim::run(7, |network| async move {
//!         network.set_loss(0.05);
//!         let loopback = PeerConnectionConfig::default().bind("127.0.0.1:0".parse().unwrap());
//!         let a = PeerConnection::new(loopback.clone().runtime(network.runtime("a"))).await.unwrap();
//!         let b = PeerConnection::new(loopback.runtime(network.runtime("b"))).await.unwrap();
//!         // … introduce them, and wait for what was promised.
//!     });
//! }
//! ```
//!
//! A real socket is bound behind every simulated one, to reserve an address that no other socket has; nothing
//! is sent over it. So every host may bind `127.0.0.1:0`, and file descriptors are the limit on how many
//! sockets there can be.
//!
//! What is *not* simulated: bandwidth, NAT, TCP and name resolution. A seed fixes the rolls of the dice, not
//! the run: keys, certificates, port numbers and the branch order of `select!` stay random, so two runs of
//! one seed are alike but not equal. Real I/O (a signalling server on a socket, say) does not mix with a
//! paused clock, which runs on while the kernel works.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a fault in a test is a failed test"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, Sleep};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, Transmit,
};

/// Runs `scenario` on a network of its own, in one thread and at virtual time, and returns its output.
///
/// As soon as every task waits, time jumps to the next timer. A task that spins without waiting for time stops
/// the clock, so that is not caught. Tasks that the scenario leaves behind are dropped with the tokio runtime.
///
/// # Panics
///
/// When the scenario panics or is still running after [`TIME_LIMIT`]; stderr then names the seed.
pub(crate) fn run<T, F>(seed: u64, scenario: impl FnOnce(Network) -> F) -> T
where
    F: Future<Output = T>,
{
    let _name_seed = NameSeedOnPanic(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a current-thread runtime needs nothing but an event queue of the kernel");
    runtime.block_on(async {
        match tokio::time::timeout(TIME_LIMIT, scenario(Network::new(seed))).await {
            Ok(output) => output,
            Err(_) => panic!("seed {seed}: still running after {TIME_LIMIT:?} of virtual time"),
        }
    })
}

/// Longest virtual time that [`run`] gives a scenario: far more than all the time limits of a connection.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

struct NameSeedOnPanic(u64);

impl Drop for NameSeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation's seed was {}", self.0);
        }
    }
}

/// The wires between all hosts; clones are the same network.
///
/// It begins with no loss and a one-way delay of 20 ms. What happens to a datagram is decided when it is
/// sent: a change made later does not touch what is already on its way.
///
/// It runs no task of its own: each socket wakes its own reader when the next datagram is due.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    seed: u64,
    state: Mutex<State>,
    /// Apart from the state, so that the hook may call the network.
    hook: Mutex<Option<Hook>>,
}

type Hook = Box<dyn FnMut(&Datagram<'_>) -> bool + Send>;

/// One datagram at the moment it is sent, as a hook of [`Network::drop_if`] sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    /// Name of the host that sends it.
    pub(crate) from_host: &'a str,
    /// Name of the host that has a socket at `to`, if there is one.
    pub(crate) to_host: Option<&'a str>,
    /// Address of the sending socket.
    pub(crate) from: SocketAddr,
    /// Where it is sent.
    pub(crate) to: SocketAddr,
    /// The whole content. The first byte tells the protocol: 0–3 STUN, 20–63 DTLS, of which 22 is a handshake
    /// in the clear (RFC 7983).
    pub(crate) bytes: &'a [u8],
}

/// What became of the datagrams so far. A sent one in no other count was read, or can still be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Handed to the network, whatever happened next.
    pub(crate) sent: u64,
    /// Lost by the dice, a hook, a cut or a blackout.
    pub(crate) lost: u64,
    /// Arrived at a socket with [`RECEIVE_BUFFER_BYTES`] unread.
    pub(crate) overflowed: u64,
    /// Sent where no socket is bound, or to one that closed before it was read.
    pub(crate) unclaimed: u64,
}

/// How much a socket holds unread before it drops what arrives, like a kernel with a generous `SO_RCVBUF`.
pub(crate) const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

impl Network {
    /// A network whose losses and delays follow `seed`. Most tests have theirs from [`run`].
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            loss: 0.0,
            delay: Duration::from_millis(20),
            blackout: false,
            hosts: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            next_number: 0,
            traffic: Traffic::default(),
        };
        Self(Arc::new(Shared { seed, state: Mutex::new(state), hook: Mutex::new(None) }))
    }

    /// The runtime for the connections of the host `name`; asked again, another one for the same host.
    pub(crate) fn runtime(&self, name: &str) -> Arc<dyn Runtime> {
        let host: Arc<str> = name.into();
        self.state().hosts.entry(host.clone()).or_insert(Link::Up);
        Arc::new(SimRuntime { network: self.clone(), host })
    }

    /// Loses each datagram with this probability, from 0 to 1.
    pub(crate) fn set_loss(&self, probability: f64) {
        assert!((0.0..=1.0).contains(&probability), "{probability} is no probability");
        self.state().loss = probability;
    }

    /// Delivers each datagram after `one_way` and up to a quarter more, so neighbours may overtake one
    /// another. At zero nothing overtakes.
    pub(crate) fn set_delay(&self, one_way: Duration) {
        self.state().delay = one_way;
    }

    /// Loses everything while `on`.
    pub(crate) fn blackout(&self, on: bool) {
        self.state().blackout = on;
    }

    /// Loses everything that `host` sends and everything sent to it, until [`heal`](Self::heal).
    ///
    /// # Panics
    ///
    /// When there is no such host, so that a misspelt name does not pass for a test.
    pub(crate) fn cut(&self, host: &str) {
        self.set_link(host, Link::Cut);
    }

    /// Ends the [`cut`](Self::cut) of `host`.
    ///
    /// # Panics
    ///
    /// When there is no such host.
    pub(crate) fn heal(&self, host: &str) {
        self.set_link(host, Link::Up);
    }

    /// Loses each datagram for which `hook` says so.
    ///
    /// It is asked once about each one sent, in order, also about those that are lost anyway. It replaces the
    /// hook before it, and may call the network, though not this method.
    ///
    /// ```ignore
    /// // The first handshake datagram of the host "b", and no other.
    /// let mut already = false;
    /// network.drop_if(move |datagram| {
    ///     let is_handshake = datagram.from_host == "b" && datagram.bytes.first() == Some(&22);
    ///     is_handshake && !std::mem::replace(&mut already, true)
    /// });
    /// ```
    pub(crate) fn drop_if(&self, hook: impl FnMut(&Datagram<'_>) -> bool + Send + 'static) {
        *lock(&self.0.hook) = Some(Box::new(hook));
    }

    /// What became of the datagrams so far.
    pub(crate) fn traffic(&self) -> Traffic {
        let mut state = self.state();
        let State { inboxes, traffic, .. } = &mut *state;
        let now = Instant::now();
        for inbox in inboxes.values_mut() {
            traffic.overflowed += inbox.settle(now); // what no reader has looked at yet
        }
        *traffic
    }

    fn set_link(&self, host: &str, link: Link) {
        match self.state().hosts.get_mut(host) {
            Some(current) => *current = link,
            None => panic!("the network has no host {host:?}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Decides what becomes of one datagram and puts it on its way.
    fn send(&self, from_host: &str, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let to_host = self.state().host_at(to);
        let datagram = Datagram { from_host, to_host: to_host.as_deref(), from, to, bytes };
        let chosen = lock(&self.0.hook).as_mut().is_some_and(|hook| hook(&datagram));
        let wakers = self.state().send(&datagram, chosen);
        // Only now, with the state free again: a waker may run code that comes back here.
        wakers.into_iter().for_each(Waker::wake);
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

struct State {
    rng: StdRng,
    loss: f64,
    delay: Duration,
    blackout: bool,
    hosts: BTreeMap<Arc<str>, Link>,
    inboxes: BTreeMap<SocketKey, Inbox>,
    /// Numbers sockets, and datagrams as the order among those due at the same instant.
    next_number: u64,
    traffic: Traffic,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Cut,
}

/// The address and a number: several sockets may share an address, as all mDNS sockets do their group's. Each
/// gets a copy of what is sent there.
type SocketKey = (SocketAddr, u64);

impl State {
    /// Puts a datagram on its way, unless it is `chosen` to be lost or unlucky; returns the readers to wake.
    fn send(&mut self, datagram: &Datagram<'_>, chosen: bool) -> Vec<Waker> {
        // Rolled for every datagram, so that a hook or a cut does not shift the dice of all that follow.
        let unlucky = self.rng.random::<f64>() < self.loss;
        let jitter = self.delay.mul_f64(self.rng.random::<f64>() / 4.0);
        let now = Instant::now();
        let due = (now + self.delay + jitter, self.number());
        let Self { hosts, inboxes, traffic, .. } = self;
        let is_cut = |host: &str| hosts.get(host) == Some(&Link::Cut);

        traffic.sent += 1;
        if chosen || unlucky || self.blackout || is_cut(datagram.from_host) {
            traffic.lost += 1;
            return Vec::new();
        }
        let (mut wakers, mut claimed) = (Vec::new(), false);
        for (_, inbox) in inboxes.range_mut(sockets_at(datagram.to)) {
            claimed = true;
            if is_cut(&inbox.host) {
                traffic.lost += 1;
                continue;
            }
            traffic.overflowed += inbox.settle(now);
            wakers.extend(inbox.expect(due, Parcel { from: datagram.from, bytes: datagram.bytes.into() }));
        }
        if !claimed {
            traffic.unclaimed += 1;
        }
        wakers
    }

    fn host_at(&self, addr: SocketAddr) -> Option<Arc<str>> {
        self.inboxes.range(sockets_at(addr)).next().map(|(_, inbox)| inbox.host.clone())
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

/// The keys of all sockets bound to `addr`.
fn sockets_at(addr: SocketAddr) -> std::ops::RangeInclusive<SocketKey> {
    (addr, u64::MIN)..=(addr, u64::MAX)
}

/// What is on its way to one socket, and what has arrived there.
struct Inbox {
    host: Arc<str>,
    on_the_way: BTreeMap<(Instant, u64), Parcel>,
    /// Bounded by [`RECEIVE_BUFFER_BYTES`]; what arrives when it is full is dropped and counted.
    unread: VecDeque<Parcel>,
    unread_bytes: usize,
    reader: Option<Waker>,
}

struct Parcel {
    from: SocketAddr,
    bytes: Box<[u8]>,
}

impl Inbox {
    fn new(host: Arc<str>) -> Self {
        Self { host, on_the_way: BTreeMap::new(), unread: VecDeque::new(), unread_bytes: 0, reader: None }
    }

    /// Takes note of a parcel; returns the reader when it must be told, as its alarm is set for a later one.
    fn expect(&mut self, due: (Instant, u64), parcel: Parcel) -> Option<Waker> {
        let is_next = self.on_the_way.first_key_value().is_none_or(|(next, _)| due < *next);
        self.on_the_way.insert(due, parcel);
        if is_next { self.reader.take() } else { None }
    }

    /// Lets what is due arrive; returns how much of it found the buffer full.
    fn settle(&mut self, now: Instant) -> u64 {
        let mut overflowed = 0;
        while let Some(next) = self.on_the_way.first_entry().filter(|next| next.key().0 <= now) {
            let parcel = next.remove();
            if self.unread_bytes + parcel.bytes.len() > RECEIVE_BUFFER_BYTES {
                overflowed += 1;
            } else {
                self.unread_bytes += parcel.bytes.len();
                self.unread.push_back(parcel);
            }
        }
        overflowed
    }

    fn read(&mut self) -> Option<Parcel> {
        let parcel = self.unread.pop_front()?;
        self.unread_bytes -= parcel.bytes.len();
        Some(parcel)
    }

    fn next_due(&self) -> Option<Instant> {
        self.on_the_way.first_key_value().map(|(due, _)| due.0)
    }
}

#[derive(Debug)]
struct Socket {
    key: SocketKey,
    host: Arc<str>,
    network: Network,
    /// Wakes the reader when the next datagram is due. Apart from the network's state, as polling it may drop
    /// a waker.
    alarm: Mutex<Option<Pin<Box<Sleep>>>>,
    /// Keeps the address taken; nothing is sent over it.
    _reservation: std::net::UdpSocket,
}

impl Socket {
    fn poll_alarm(&self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let mut alarm = lock(&self.alarm);
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.network.state();
        let inbox = state.inboxes.remove(&self.key);
        if let Some(inbox) = &inbox {
            state.traffic.unclaimed += (inbox.on_the_way.len() + inbox.unread.len()) as u64;
        }
        drop(state);
        drop(inbox); // after the lock: dropping a waker may run code that comes back here
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.key.0)
    }

    /// Always ready, as an ordinary UDP socket nearly is: what is too much is lost further on.
    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let whole = transmit.contents.len().max(1);
        let size = transmit.segment_size.filter(|size| *size > 0).unwrap_or(whole);
        for bytes in transmit.contents.chunks(size) {
            self.network.send(&self.host, self.key.0, transmit.destination, bytes);
        }
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut state = self.network.state();
            let State { inboxes, traffic, .. } = &mut *state;
            let inbox = inboxes.get_mut(&self.key).expect("the inbox lives as long as its socket");
            traffic.overflowed += inbox.settle(Instant::now());

            let mut filled = 0;
            for (buf, meta) in bufs.iter_mut().zip(&mut *meta) {
                let Some(parcel) = inbox.read() else { break };
                let len = parcel.bytes.len().min(buf.len()); // the rest is cut off, as the kernel does
                buf[..len].copy_from_slice(&parcel.bytes[..len]);
                *meta = RecvMeta::default();
                (meta.addr, meta.len, meta.stride) = (parcel.from, len, len.max(1));
                meta.dst_ip = Some(self.key.0.ip());
                filled += 1;
            }
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
            let old_reader = inbox.reader.replace(cx.waker().clone());
            let due = inbox.next_due();
            drop(state);
            drop(old_reader); // after the lock, as in `Socket::drop`

            match due {
                Some(due) => ready!(self.poll_alarm(cx, due)),
                None => return Poll::Pending,
            }
        }
    }
}

/// One host's view of the network, on tokio's clock and tasks.
#[derive(Debug)]
struct SimRuntime {
    network: Network,
    host: Arc<str>,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Runtime for SimRuntime {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        Box::new(Task(tokio::spawn(future)))
    }

    fn wrap_udp_socket(&self, reservation: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let addr = reservation.local_addr()?;
        let mut state = self.network.state();
        let key = (addr, state.number());
        state.inboxes.insert(key, Inbox::new(self.host.clone()));
        drop(state);
        let (host, network) = (self.host.clone(), self.network.clone());
        Ok(Arc::new(Socket { key, host, network, alarm: Mutex::new(None), _reservation: reservation }))
    }

    fn wrap_tcp_listener(&self, _: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        Err(no_tcp())
    }

    fn connect_tcp<'a>(&'a self, _: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async { Err(no_tcp()) })
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let addr = host.parse().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("{host:?} is a name, and the simulation has no DNS"),
                )
            })?;
            Ok(vec![addr])
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

    fn block_on(&self, _: Pin<Box<dyn Future<Output = ()> + '_>>) {
        panic!("a simulated runtime lives inside `sim::run`, which blocks already: await the future instead");
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
