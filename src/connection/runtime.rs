//! The runtime that a connection's driver runs on: the one of the configuration, with nineteen cures around it.
//!
//! All workarounds for the transport of `webrtc` 0.21.1 that need its clock, its sockets or its tasks stand here:
//!
//! * **Lost handshake datagrams.** When a flight of the DTLS server is lost, the client's repeated ClientHello is not
//!   answered, and the link hangs for good: one link in thirty at 5 % loss. So every datagram of a flight is sent again
//!   after 60, 200 and 500 ms, until something new is heard from the other side ([`Handshake`](super::handshake::Handshake)).
//! * **The flood of checks.** ICE asks each pair of addresses every 20 ms until it is answered, so that a near way is
//!   found at once, and never asks less often: the checks of a mesh of 8 fill an uplink of 100 kbit/s for good, and nothing
//!   else passes. So the longer a connection is being made, the fewer of its checks leave ([`CheckPace`]).
//! * **The slow opening on a network that loses.** SCTP repeats what was lost after a second, then after two, and so on. So
//!   the first small datagrams after the handshake, which open SCTP and carry the hellos, are sent again at the same times,
//!   until the remote has acknowledged our hello; DTLS drops those that have arrived (RFC 6347 section 4.1.2.6). A mesh of
//!   8 is full after 0.5 s, 0.6 s and 1.3 s at 1, 5 and 20 % loss (median); without this after 1.4 s, 2.5 s and 10.5 s.
//! * **The slow opening.** What DTLS and SCTP have to say after a received datagram is written to the socket on the
//!   driver's next turn, which is its next timer, up to 400 ms later. While the connection is being made, the
//!   driver's sleep after a received datagram is [`HURRY`] at the most.
//! * **Small socket buffers.** A burst of segmented sends overflows the kernel's default buffers, and throughput
//!   falls to a tenth. Every socket asks for [`SOCKET_BUFFER_BYTES`]; the kernel grants what it allows.
//! * **The forgotten messages.** The driver takes 256 messages at the most out of SCTP when a datagram arrives, and
//!   looks for more only at the next datagram: a burst of small messages stands still for up to a second. So whoever
//!   takes messages asks for more by [`Progress::nudge`], which hands the driver a datagram that means nothing.
//! * **The slow relay.** What goes through a TURN relay is handed on within the driver, and each hand waits for the
//!   driver's next turn: a packet for its next timer, up to 400 ms, and so do its acknowledgement and what that lets
//!   go. So a driver that has done something for a relayed link takes [`RELAY_TURNS`] more turns at once.
//! * **The lost channel.** When a TURN server answers a repeated ChannelBind with a stale nonce, the library forgets the
//!   channel and asks for another, which the server refuses; what the server still sends over the first is thrown away,
//!   and the link is dead. So a ChannelBind never leaves: packets travel in indications, 40 bytes longer.
//! * **The lost last words.** A driver that closes gives up its relays first, and then has no way for what is still to
//!   be sent: acknowledgements, and DTLS's own close. So the closing waits for [`Progress::flush_relay`]. The close of
//!   DTLS is lost all the same: between two of ours a last frame stands for it, and others find out by themselves.
//! * **The slow second.** SCTP sends again after a second at the least, and more and more seconds after a cut. So its
//!   clock runs ahead while it has something to do ([`Clock`]).
//! * **The last try.** SCTP gives up for good when a packet was lost six times in a row, and after a cut it has one or
//!   two tries left. So the first datagrams that leave then, and when the clock has spent more of its budget than usual,
//!   are sent again as those of the opening are. And for a while so is what acknowledges the other side's tries.
//! * **The last word.** A connection that closes says so once, in a datagram or two that nobody repeats; if they are lost,
//!   the remote finds out by itself, 11 s later. So each is sent three times; DTLS drops those that it has
//!   (RFC 6347 section 4.1.2.6).
//! * **The turn for nothing.** The driver waits for its sockets with a `FuturesUnordered`, which wakes its task whenever
//!   all that it holds was polled. Tokio then takes the task for one that yields, and wakes another thread to run it. So
//!   it is polled again where it is (`in_place.rs`), and once there are packets, in the peer's task ([`Driver`]).
//! * **The fresh timer.** The driver sleeps anew in each turn, and a timer that is earlier than all others wakes the
//!   thread that waits for input. So it has one that is kept ([`Timers`]).
//! * **The small run.** The driver hands the kernel several datagrams in one call only if they are sixteen and more. So
//!   those that it sends one by one are gathered ([`Outlet`]).
//! * **The lone acknowledgement.** SCTP never sends an acknowledgement along with a packet, so in a game's mesh a third of
//!   all datagrams are acknowledgements. Between members those wait a little for the next packet, or for the end of the
//!   turn of the task ([`Rider`]).
//! * **The long turn.** The driver takes up to 64 segmented receives at once, 4 MB, before it acknowledges any: one side
//!   works while the other waits, in turn. So a turn ends after [`MAX_TURN_BYTES`].
//! * **Names.** The driver stands still while the names of ICE servers are resolved, one after another and without a
//!   limit. So all are resolved here at once, within [`RESOLVE_LIMIT`].
//! * **The silent end.** A driver that stops with an error, or panics, tells nobody. The guard in
//!   [`ConnectionRuntime::spawn`] does.

mod socket;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::{Either, FutureExt as _, Shared, join_all, select};
use futures::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio_util::sync::CancellationToken;
use webrtc::runtime::{AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime};

use super::checks::CheckPace;
use super::clock::Clock;
use super::driver::{Driver, drives, tell_anew, told};
use super::handshake::CHANGE_CIPHER_SPEC;
use super::ice_server::Host;
use super::outlet::Outlet;
use super::record::Record;
use super::rider::{Next, Rider};
use super::servers::{NoRelay, ServerWatch};
use super::timer::Timers;
use super::udp::UdpSocket;
use socket::Socket;

/// The driver's longest sleep within [`HURRY_FOR`] of a datagram received, while the connection is being made.
const HURRY: Duration = Duration::from_millis(1);
const HURRY_FOR: Duration = Duration::from_millis(10);

/// How many turns the driver takes at once for a relayed link: from the socket to SCTP, from there to the relay, from
/// there to the socket.
const RELAY_TURNS: u8 = 3;

/// How long the last words to a relayed link may take to the socket: a few turns of the driver.
const FLUSH_LIMIT: Duration = Duration::from_millis(50);

/// How long the names of all ICE servers together may take to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(3);

/// How many of the first datagrams after the handshake are repeated, and how small they are: four of SCTP's opening, two
/// hellos and their acknowledgements, between which packets may come.
const MAX_OPENING: u8 = 12;
const MAX_OPENING_BYTES: usize = 256;
/// And until when, since all channels are open here: the other side may still wait for a hello, unless it has acknowledged
/// ours.
const OPENING: Duration = Duration::from_secs(2);

/// How many of the first after a silence: what SCTP sends again, and what it acknowledges.
const RESUMING: u8 = 6;
const RESUMING_FOR: Duration = Duration::from_secs(2);
/// For how long the other side may be at its last tries, what it sends then comes after a pause, and how many small
/// datagrams acknowledge it; and all of them together.
const RECOVERY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(400);
const ACKNOWLEDGING: u8 = 2;
const MAX_ACKNOWLEDGING: u8 = 20;

/// How often each datagram of the closing is sent.
const FAREWELLS: usize = 3;

/// What each socket asks for, both ways: 16 bursts of the largest segmented send, 64 KiB each, and then some.
pub(super) const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// How much the driver takes from a socket before it acknowledges that, hands it over and sends: three of the largest
/// segmented receives. With 100 KB messages of 1 KiB are a tenth slower, with 500 those of 64 KiB.
const MAX_TURN_BYTES: usize = 192 * 1024;

/// When a handshake datagram is sent again, counted from its first sending.
const REPEATS: [Duration; 3] =
    [Duration::from_millis(60), Duration::from_millis(200), Duration::from_millis(500)];

const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// When a datagram need not be sent again any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Something newer of the handshake was heard, or it is over.
    NewsAfter(u64),
    /// [The opening is over](Progress::end_opening).
    Greeted,
    /// It was sent as often as any.
    TheLast,
}

/// What a runtime is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tokio,
    /// Tokio's tasks and timers, in virtual time, and sockets of a network in memory.
    #[cfg(feature = "sim")]
    VirtualTokio,
    /// Somebody's own.
    Other,
}

/// A runtime for one connection. First, what each turn looks at.
#[repr(C)]
pub(super) struct ConnectionRuntime {
    base: Arc<dyn Runtime>,
    timers: Timers,
    me: Weak<ConnectionRuntime>,
    kind: Kind,
    driver: Arc<Driver>,
    progress: Arc<Progress>,
    on_end: OnEnd,
    watched: Watched,
    names: Names,
    sockets: AtomicUsize,
    driver_spawned: AtomicBool,
    outlets: Mutex<Vec<Weak<Outlet>>>,
}

/// What follows the datagrams: what ICE tries, what becomes of the ICE servers, the clock; and who is told.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) record: Arc<Record>,
    pub(super) servers: Arc<ServerWatch>,
    pub(super) clock: Arc<Clock>,
    pub(super) on_no_relay: Arc<dyn Fn(NoRelay) + Send + Sync>,
    /// Told `false` when the remote was silent for too long, and `true` when it is heard again.
    pub(super) on_heard: Arc<dyn Fn(bool) + Send + Sync>,
}

/// The addresses of all ICE servers, in their order, found when the first is asked for.
type Names = Shared<Boxed<'static, Arc<Vec<Result<Vec<SocketAddr>, String>>>>>;

/// Called when the driver has ended, however it did.
pub(super) type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// What acknowledges the other side's last tries.
#[derive(Debug)]
struct Recovery {
    until: Instant,
    /// When data was heard last.
    heard: Option<Instant>,
    /// How many of the next datagrams may acknowledge it, until when, and how many there still are in all.
    next: u8,
    next_until: Instant,
    left: u8,
}

/// What the runtime and the connection tell each other. What is looked at in each turn comes first and in this order, so that
/// it takes few lines of the cache: in a mesh of many links none of them are at hand.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Progress {
    /// A datagram that means nothing is to be received, and the socket that is waiting for one.
    receiver: AtomicWaker,
    nudged: AtomicBool,
    /// All channels are open: the cures for the handshake are over.
    open: AtomicBool,
    /// The remote is a member of this crate.
    among_us: AtomicBool,
    /// The connection is being closed: what is sent now is sent [`FAREWELLS`] times.
    closing: AtomicBool,
    /// The remote was not heard for too long, and that was told.
    silent: AtomicBool,
    /// The link goes through a TURN relay, as far as what was sent last tells.
    relayed: AtomicBool,
    /// Turns that the driver still takes at once.
    turns: AtomicU8,
    /// The last turn was one of them, and nothing else came before it.
    turned: AtomicBool,
    /// How many datagrams of the opening were repeated; [`MAX_OPENING`] when it is over.
    repeated: AtomicU8,
    /// How many of the next are, after a silence.
    resuming: AtomicU8,
    /// There was such a silence within [`RECOVERY`].
    recovers: AtomicBool,
    /// A socket gathers datagrams, which leave at the end of the turn.
    pub(super) gathers: AtomicBool,
    /// How many bytes of datagrams the smallest socket holds; 0 if that is not known.
    socket_bytes: AtomicU32,
    /// How many bytes of datagrams the driver has taken in this turn.
    taken: AtomicUsize,
    /// What waits for the next packet.
    rider: Rider,
    /// The driver has nothing to do before its next timer.
    rests: Notify,
    /// Answers to our requests of ICE.
    answers: AtomicU64,
    /// The remote has acknowledged our hello.
    greeted: AtomicBool,
    /// Since when all channels are open.
    opened: OnceLock<Instant>,
    /// When the last datagram was received, while the connection was being made.
    received: Mutex<Option<Instant>>,
    /// Which of ICE's checks leave.
    checks: Mutex<CheckPace>,
    /// Until when what leaves is repeated, after a silence.
    resuming_until: Mutex<Option<Instant>>,
    recovery: Mutex<Option<Recovery>>,
    /// The driver has ended.
    pub(super) ended: CancellationToken,
}

impl Progress {
    pub(super) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn set_open(&self, now: Instant) {
        self.opened.get_or_init(|| now);
        self.open.store(true, Ordering::Release);
    }

    /// The remote has acknowledged our hello, so of ours it needs nothing more to open.
    pub(super) fn end_opening(&self) {
        self.greeted.store(true, Ordering::Relaxed);
        self.repeated.store(MAX_OPENING, Ordering::Relaxed);
    }

    /// ICE looks for another way.
    pub(super) fn look_anew(&self) {
        lock(&self.checks).begin_anew();
    }

    pub(super) fn set_among_us(&self) {
        self.among_us.store(true, Ordering::Release);
    }

    /// The end of the driver's next turn that ends from now on, also if nobody waits for it yet.
    pub(super) fn turn(&self) -> Notified<'_> {
        self.rests.notified()
    }

    pub(super) fn socket_bytes(&self) -> u32 {
        self.socket_bytes.load(Ordering::Relaxed)
    }

    /// A socket holds so much.
    fn holds(&self, bytes: u32) {
        let least = |known| Some(if known == 0 { bytes } else { bytes.min(known) });
        let _ = self.socket_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, least);
    }

    /// Whoever runs the driver from now on says when there is [nothing more to do](Progress::send_waiting); or does so no more.
    pub(super) fn attend(&self, attended: bool) {
        self.rider.attend(attended);
    }

    pub(super) fn send_waiting(&self) {
        if let Some(held) = self.rider.take_waiting()
            && held.send().is_pending()
        {
            self.rider.put_back(held);
        }
    }

    fn begin_turn(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Called by the driver alone.
    fn takes(&self, bytes: usize) {
        self.taken.store(self.taken() + bytes, Ordering::Relaxed);
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Makes the driver look for messages that it has left in SCTP.
    pub(super) fn nudge(&self) {
        if !self.nudged.swap(true, Ordering::AcqRel) {
            self.receiver.wake();
        }
    }

    /// Whether a datagram that means nothing is to be received.
    fn takes_nudge(&self) -> bool {
        self.nudged.load(Ordering::Acquire) && self.nudged.swap(false, Ordering::AcqRel)
    }

    /// What leaves now is not to be lost.
    fn resume(&self, now: Instant) {
        *lock(&self.resuming_until) = Some(now + RESUMING_FOR);
        self.resuming.store(RESUMING, Ordering::Relaxed);
        let mut recovery = lock(&self.recovery);
        let (until, next_until) = (now + RECOVERY, now);
        match recovery.as_mut().filter(|recovery| now < recovery.until) {
            // On a way that comes and goes there are no more of them.
            Some(recovery) => recovery.heard = None,
            None => {
                *recovery =
                    Some(Recovery { until, heard: None, next: 0, next_until, left: MAX_ACKNOWLEDGING });
            }
        }
        self.recovers.store(true, Ordering::Relaxed);
    }

    /// Data is here. After a pause it may be one of the other side's last tries, and what acknowledges it is not to be
    /// lost.
    fn hears_data(&self, now: impl Fn() -> Instant) {
        if !self.recovers.load(Ordering::Relaxed) {
            return;
        }
        let (now, mut recovery) = (now(), lock(&self.recovery));
        let Some(recovery) = recovery.as_mut().filter(|recovery| now < recovery.until) else {
            self.recovers.store(false, Ordering::Relaxed);
            return;
        };
        let before = recovery.heard.replace(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) >= PAUSE) {
            (recovery.next, recovery.next_until) = (ACKNOWLEDGING, now + RESUMING_FOR);
        }
    }

    /// Whether this datagram may acknowledge one of the other side's last tries.
    fn acknowledges(&self, bytes: usize, now: impl Fn() -> Instant) -> bool {
        if bytes > MAX_OPENING_BYTES || !self.recovers.load(Ordering::Relaxed) {
            return false;
        }
        let mut recovery = lock(&self.recovery);
        let next = recovery.as_mut().filter(|recovery| recovery.next > 0 && recovery.left > 0);
        let Some(recovery) = next else { return false };
        recovery.next -= 1;
        if now() >= recovery.next_until {
            recovery.next = 0;
            return false;
        }
        recovery.left -= 1;
        true
    }

    /// Whether, and until when, this datagram is repeated: it is one of the first after a silence; or of SCTP's opening, or a
    /// hello, as far as can be told without a key: small, and early.
    fn repeats_data(&self, bytes: usize, now: impl Fn() -> Instant) -> Option<Until> {
        if self.acknowledges(bytes, &now) {
            return Some(Until::TheLast);
        }
        let resuming = self.resuming.load(Ordering::Relaxed);
        if resuming > 0 {
            let resumes = lock(&self.resuming_until).is_some_and(|until| now() < until);
            self.resuming.store(if resumes { resuming - 1 } else { 0 }, Ordering::Relaxed);
            return resumes.then_some(Until::TheLast);
        }
        if self.repeated.load(Ordering::Relaxed) >= MAX_OPENING {
            return None;
        }
        if self.opened.get().is_some_and(|opened| now().saturating_duration_since(*opened) > OPENING) {
            self.repeated.store(MAX_OPENING, Ordering::Relaxed);
            return None;
        }
        let repeats = bytes <= MAX_OPENING_BYTES;
        if repeats {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        repeats.then_some(Until::Greeted)
    }

    /// Whether there is nothing that is not to be lost.
    fn is_calm(&self) -> bool {
        self.is_open()
            && !self.closing.load(Ordering::Acquire)
            && !self.recovers.load(Ordering::Relaxed)
            && self.resuming.load(Ordering::Relaxed) == 0
            && self.repeated.load(Ordering::Relaxed) >= MAX_OPENING
    }

    /// How many answers were heard.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Which way the link goes, as its datagrams tell: through a relay in ChannelData or Send indications (RFC 8656
    /// sections 11.5 and 12.4), else in DTLS records.
    fn sends(&self, datagram: &[u8]) {
        match datagram {
            [0x40..=0x4f, ..] | [0, 0x16, ..] => self.relayed.store(true, Ordering::Release),
            [CHANGE_CIPHER_SPEC..=63, ..] => self.relayed.store(false, Ordering::Release),
            _ => {}
        }
    }

    /// Waits until what was handed to the library for a relayed link has gone to the socket, [`FLUSH_LIMIT`] at the most.
    pub(super) async fn flush_relay(&self) {
        if !self.relayed.load(Ordering::Acquire) {
            return;
        }
        let flushed = async {
            // The first rest may have begun before.
            for _ in 0..2 {
                let rests = self.rests.notified();
                tokio::pin!(rests);
                rests.as_mut().enable();
                self.nudge();
                rests.await;
            }
        };
        let limit = tokio::time::timeout(FLUSH_LIMIT, flushed);
        let _ = self.ended.run_until_cancelled(limit).await;
    }

    /// Whether the driver, which is about to sleep, is to take another turn instead.
    fn turns_again(&self) -> bool {
        if !self.relayed.load(Ordering::Acquire) {
            return false;
        }
        let left = match self.turned.swap(false, Ordering::AcqRel) {
            true => self.turns.load(Ordering::Acquire).saturating_sub(1),
            // A timer, a datagram or something to send has woken it.
            false => RELAY_TURNS,
        };
        self.turns.store(left, Ordering::Release);
        left > 0
    }

    fn is_among_us(&self) -> bool {
        self.among_us.load(Ordering::Acquire)
    }
}

impl ConnectionRuntime {
    pub(super) fn new(
        base: Arc<dyn Runtime>,
        kind: Kind,
        progress: Arc<Progress>,
        on_end: OnEnd,
        watched: Watched,
    ) -> Arc<ConnectionRuntime> {
        let names: Boxed<'static, _> = Box::pin(resolve_all(base.clone(), watched.clone()));
        Arc::new_cyclic(|me| ConnectionRuntime {
            timers: Timers::new(base.clone(), kind != Kind::Other),
            me: me.clone(),
            kind,
            driver: Arc::default(),
            base,
            progress,
            on_end,
            names: names.shared(),
            watched,
            sockets: AtomicUsize::new(0),
            driver_spawned: AtomicBool::new(false),
            outlets: Mutex::default(),
        })
    }

    /// The driver, once it is spawned.
    pub(super) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// How many UDP sockets were bound.
    pub(super) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Acquire)
    }
}

impl Runtime for ConnectionRuntime {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        if self.driver_spawned.swap(true, Ordering::AcqRel) {
            return self.base.spawn(future);
        }
        // The first task is the driver.
        let end = End(self.progress.clone(), self.on_end.clone());
        self.base.spawn(Box::pin(self.driver.spawned(future, Box::new(end))))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.sockets.fetch_add(1, Ordering::AcqRel);
        let kernel = socket2::SockRef::from(&socket);
        // The kernel grants less than asked for without an error; an error means a platform without the option.
        let _ = kernel.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = kernel.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        let (granted, bound) = (granted_bytes(&kernel), socket.local_addr()?);
        let base = match self.kind {
            Kind::Tokio => UdpSocket::of_tokio(socket)?,
            _ => UdpSocket::Other(self.base.wrap_udp_socket(socket)?),
        };
        // In a simulation it is not the one that was bound.
        let local = base.local_addr()?;
        if let Some(granted) = granted.filter(|_| local == bound) {
            self.progress.holds(granted);
        }
        self.watched.servers.bound(local);
        self.watched.record.bound(local);
        let outlet = Arc::new(Outlet::new(base, self.progress.clone()));
        let mut outlets = lock(&self.outlets);
        outlets.retain(|outlet| outlet.strong_count() > 0);
        outlets.push(Arc::downgrade(&outlet));
        drop(outlets);
        Ok(Arc::new(Socket {
            has_servers: !self.watched.servers.servers().is_empty(),
            base: outlet,
            runtime: self.base.clone(),
            progress: self.progress.clone(),
            handshake: Arc::default(),
            local,
            watched: self.watched.clone(),
        }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.base.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.base.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let servers = self.watched.servers.servers();
            match servers.iter().position(|server| server.query == host) {
                Some(which) => match self.names.clone().await.get(which) {
                    Some(Ok(addresses)) => Ok(addresses.clone()),
                    Some(Err(error)) => Err(io::Error::other(error.clone())),
                    None => Err(io::ErrorKind::NotFound.into()),
                },
                None => self.base.resolve_host(host).await,
            }
        })
    }

    fn now(&self) -> Instant {
        let read = |drives| self.watched.clock.read(self.base.now(), drives);
        told(|| read(true)).unwrap_or_else(|| read(false))
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        // What follows is for the driver's turns. A close, for instance, has a time limit of its own.
        if !drives() {
            return self.base.sleep(duration);
        }
        tell_anew();
        self.progress.begin_turn();
        let mut gathered = self.send_gathered();
        if self.progress.turns_again() {
            let (progress, others) = (self.progress.clone(), self.base.yield_now());
            return Box::pin(async move {
                others.await;
                progress.turned.store(true, Ordering::Release);
            });
        }
        self.progress.rests.notify_waiters();
        let now = self.base.now();
        let mut turn = self.watched.clock.turn(duration, now);
        if turn.resumes {
            self.progress.resume(now);
        }
        match self.progress.rider.next(now, turn.resumes) {
            Next::Nothing => {}
            Next::Wake(after) => turn.sleep = turn.sleep.min(after),
            Next::Send(held) => drop(held.send()),
        }
        if self.progress.silent.swap(turn.silent, Ordering::AcqRel) != turn.silent {
            (self.watched.on_heard)(!turn.silent);
        }
        let sleep = match self.me.upgrade() {
            Some(me) => Timers::sleep(me, now, self.hurried(turn.sleep)),
            None => return self.base.sleep(turn.sleep),
        };
        if gathered.is_empty() {
            return Box::pin(sleep);
        }
        let mut sleep = Box::pin(sleep);
        Box::pin(poll_fn(move |cx| {
            gathered.retain(|outlet| {
                outlet.upgrade().is_some_and(|outlet| outlet.poll_end_turn(cx).is_pending())
            });
            sleep.as_mut().poll(cx)
        }))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.base.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.base.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        self.base.yield_now()
    }

    fn name(&self) -> &'static str {
        self.base.name()
    }
}

impl AsRef<Timers> for ConnectionRuntime {
    fn as_ref(&self) -> &Timers {
        &self.timers
    }
}

impl fmt::Debug for ConnectionRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionRuntime").field("base", &self.base).finish_non_exhaustive()
    }
}

async fn resolve_all(base: Arc<dyn Runtime>, watched: Watched) -> Arc<Vec<Result<Vec<SocketAddr>, String>>> {
    let one = async |host: &Host| match host {
        Host::Address(address) => Ok(vec![*address]),
        Host::Name(name) => match select(base.resolve_host(name), base.sleep(RESOLVE_LIMIT)).await {
            Either::Left((Ok(addresses), _)) if addresses.is_empty() => Err("it has no address".to_owned()),
            Either::Left((found, _)) => found.map_err(|error| error.to_string()),
            Either::Right(_) => Err(format!("not within {} s", RESOLVE_LIMIT.as_secs())),
        },
    };
    let found = join_all(watched.servers.servers().iter().map(|server| one(&server.host))).await;
    watched.tell(watched.servers.resolved(&found));
    Arc::new(found)
}

impl Watched {
    fn tell(&self, no_relay: Option<NoRelay>) {
        if let Some(no_relay) = no_relay {
            (self.on_no_relay)(no_relay);
        }
    }
}

/// Goes with the driver's future: when it returns, panics, or is dropped with its runtime.
struct End(Arc<Progress>, OnEnd);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.cancel();
        (self.1)();
    }
}

impl ConnectionRuntime {
    /// What was gathered leaves; those remain whose socket has no room for it. Weak, as a restart of ICE binds the ports
    /// anew.
    fn send_gathered(&self) -> Vec<Weak<Outlet>> {
        let gathers = &self.progress.gathers;
        if !gathers.load(Ordering::Relaxed) {
            return Vec::new();
        }
        gathers.store(false, Ordering::Relaxed);
        let mut remain = lock(&self.outlets).clone();
        remain.retain(|outlet| outlet.upgrade().is_some_and(|outlet| outlet.end_turn().is_pending()));
        if !remain.is_empty() {
            gathers.store(true, Ordering::Relaxed);
        }
        remain
    }

    fn hurried(&self, duration: Duration) -> Duration {
        if self.progress.is_open() || duration <= HURRY {
            return duration;
        }
        let received = *lock(&self.progress.received);
        match received {
            Some(then) if self.base.now().saturating_duration_since(then) < HURRY_FOR => HURRY,
            _ => duration,
        }
    }
}

/// How many bytes of full datagrams the socket holds that nobody has read. Linux counts what it takes to keep them, too, as
/// much again, and says twice what can be asked for.
fn granted_bytes(kernel: &socket2::SockRef<'_>) -> Option<u32> {
    let granted = u32::try_from(kernel.recv_buffer_size().ok()?).ok()?;
    Some(if cfg!(any(target_os = "linux", target_os = "android")) { granted / 2 } else { granted })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
