//! A network in memory and in virtual time, to test your program on (feature `sim`).
//!
//! ICE, DTLS and SCTP are the real ones, those of every connection of a whole mesh. The sockets below them are queues,
//! with the loss, delay and NATs that you say; the clock is tokio's paused one; all of it is one thread. A minute of
//! waiting costs nothing, a hang becomes a failed test, and a failure names the seed that shows it again.
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::StreamExt as _;
//! use webrtc_mesh::{Mesh, MeshEvent, OutgoingPacket, sim, signaling::loopback::Hub};
//!
//! // In your program, a #[test].
//! sim::run(7, |network| async move {
//!     network.links().latency(Duration::from_millis(30)).loss(0.02);
//!
//!     let hub = Hub::new();
//!     let mut alice = Mesh::builder().connection(network.peer("alice")).join(hub.join()).await.unwrap();
//!     let mut bob = Mesh::builder().connection(network.peer("bob")).join(hub.join()).await.unwrap();
//!     assert_eq!(alice.next().await, Some(MeshEvent::PeerConnected(bob.id())));
//!     assert_eq!(bob.next().await, Some(MeshEvent::PeerConnected(alice.id())));
//!
//!     // What is sent while the network is down arrives when it is up again.
//!     network.between("alice", "bob").cut();
//!     alice.handle().send(OutgoingPacket::reliable(bob.id(), "hello")).await.unwrap();
//!     tokio::time::sleep(Duration::from_secs(2)).await;
//!     network.between("alice", "bob").heal();
//!     match bob.next().await {
//!         Some(MeshEvent::Packet(packet)) => assert_eq!(packet.payload, "hello"),
//!         other => panic!("{other:?}"),
//!     }
//! });
//! ```
//!
//! Everything but the configuration of the connections is the ordinary API. Without it, `join` and
//! [`PeerConnection::new`](crate::PeerConnection::new) fail within [`run`] and say so. Your program needs no other change,
//! if it takes that configuration from outside, and its time from tokio. To try many seeds, call [`run`] in a loop; a mesh
//! of 8 that meets and talks takes some 0.3 s without optimization.
//!
//! # Where to find what
//!
//! | you want to | look at |
//! |---|---|
//! | run a scenario; the limit of its virtual time | [`run`], [`run_within`] |
//! | get the configuration for a mesh | [`Network::peer`], [`Host::peer`] |
//! | latency, jitter, loss, bursts, duplicates, reordering, bandwidth | [`Links`]: [`Network::links`] for all, [`Network::link`] for one |
//! | a cut, one-way or both, a partition | [`Links::cut`], [`Network::partition`], [`Links::heal`] |
//! | a host that goes silent, or changes its address, or has several | [`Host`] |
//! | NATs, and the servers that help through them | [`Network::nat`], [`Host::stun_server`], [`Host::turn_server`] |
//! | lose just this datagram | [`Network::drop_if`] |
//! | see what happened | [`Network::trace`], [`Network::traffic`], [`Links::traffic`] |
//! | a service of your own over UDP | [`Host::bind`] |
//!
//! All of it can be changed while it runs.
//!
//! # What a seed fixes
//!
//! Two runs of one scenario with one seed do the same: the same events in the same order at the same virtual times, the
//! same datagrams on each link, each with the same fate. This holds as far as the scenario itself is the same in both
//! runs, on hosts of one address, with a build of the same sources. It is tested with 100 seeds.
//!
//! * The fate of a datagram follows from the seed, the names of the two hosts, and how many went before it that way. So
//!   a host more or less changes nothing between the others.
//! * The pauses and [ids](crate::PeerId::random) that this crate draws by lot follow the seed within [`run`].
//! * What stays random: keys, certificates, ICE's and SCTP's identifiers. Their lengths may differ by a few bytes, so
//!   nothing is promised where [bandwidth](Links::bandwidth) is limited; nor the content of datagrams to a
//!   [hook](Network::drop_if) that looks beyond their [kind](DatagramKind).
//! * What the scenario must do without, as it is random in every run: `tokio::select!` without `biased` and
//!   `futures::select!` where several branches may be ready at once, the order of a `HashMap`, `rand`, and the real clock.
//! * A host of several addresses: the `webrtc` crate keeps its sockets in a `HashMap`, and tries them in its order.
//!
//! # What is not simulated
//!
//! TCP, so no signalling over WebSockets (use [`loopback`](crate::signaling::loopback)); IP fragmentation, so datagrams
//! of any size pass; MTU, ECN, ICMP: whoever sends to nobody is not told; multicast DNS. Computing takes no time, so a
//! busy machine is not simulated. A datagram is read at the first millisecond after it is due. What happens to it, at a
//! NAT too, is decided when it is sent.
//!
//! Real input and output (a socket, a file, `spawn_blocking`) does not mix with a paused clock, which runs on while the
//! kernel works. The library below binds a real UDP socket on `127.0.0.1` for each connection and closes it at once;
//! nothing is ever sent over it, and nothing of the machine's network matters.

mod host;
mod link;
mod nat;
mod network;
mod runtime;
mod server;
mod socket;
mod state;
mod trace;
mod turns;

use std::time::Duration;

pub use host::Host;
pub use link::Links;
pub use nat::{Nat, NatKind};
pub use network::{Datagram, Network, Traffic};
pub(crate) use runtime::Attachment;
pub use server::Server;
pub use socket::{RECEIVE_BUFFER_BYTES, UdpSocket};
pub use trace::{DatagramKind, DropCause, Outcome, Record, TRACE_RECORDS};
pub(crate) use turns::Turns;

use crate::random::seeded::Seeded;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct HostId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NatId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SocketId(u64);

/// Longest virtual time that [`run`] gives a scenario: far more than all the time limits of a connection.
pub const TIME_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How many lines of the trace a failed scenario prints.
const LAST_LINES: usize = 40;

/// Runs `scenario` on a network of its own, in one thread and at virtual time, and returns its output.
///
/// See the [front page](self) for an example.
///
/// As soon as every task waits, time jumps to the next timer. A task that spins without waiting for time stops
/// the clock, so that is not caught. Tasks that the scenario leaves behind are dropped with its tokio runtime.
///
/// # Panics
///
/// When the scenario panics, or is still running after [`TIME_LIMIT`] of virtual time, or within another tokio runtime.
/// The seed and the end of the [trace](Network::trace) are on stderr then.
pub fn run<T, F>(seed: u64, scenario: impl FnOnce(Network) -> F) -> T
where
    F: Future<Output = T>,
{
    run_within(TIME_LIMIT, seed, scenario)
}

/// Like [`run`], with a limit of its own.
///
/// # Panics
///
/// As [`run`] does.
#[allow(clippy::expect_used, clippy::panic, reason = "as documented: a fault in a test is a failed test")]
pub fn run_within<T, F>(limit: Duration, seed: u64, scenario: impl FnOnce(Network) -> F) -> T
where
    F: Future<Output = T>,
{
    assert!(
        tokio::runtime::Handle::try_current().is_err(),
        "a simulation has a tokio runtime of its own: call it from a plain #[test], not from within #[tokio::test]"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a current-thread runtime needs nothing but an event queue of the kernel");
    let _seeded = Seeded::new(seed);
    runtime.block_on(async {
        let network = Network::new(seed);
        let _told = TellOnPanic(network.clone());
        match tokio::time::timeout(limit, scenario(network)).await {
            Ok(output) => output,
            Err(_) => panic!(
                "still running after {limit:?} of virtual time: what the scenario waits for never came, or it never waits"
            ),
        }
    })
}

struct TellOnPanic(Network);

impl Drop for TellOnPanic {
    #[allow(clippy::print_stderr, reason = "as a failed test does")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.0.last_lines(LAST_LINES);
            eprintln!("the last {} datagrams:\n  {}", lines.len(), lines.join("\n  "));
            eprintln!("the simulation's seed was {}", self.0.seed());
        }
    }
}
