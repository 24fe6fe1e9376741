//! A network in memory and in virtual time, to test a program of meshes on (feature `sim`).

mod host;
mod link;
mod nat;
mod network;
mod runtime;
mod server;
mod socket;
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
            Err(_) => panic!("still running after {limit:?} of virtual time"),
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
