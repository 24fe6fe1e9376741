//! What happened on the network: who sent what to whom, and what became of it.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How many records a network keeps; older ones are forgotten.
pub const TRACE_RECORDS: usize = 4096;

/// One datagram in the [trace](super::Network::trace).
///
/// Its `Display` is one line, such as
/// `1.204 s  alice 198.18.0.1:49152 > bob 198.18.0.2:49152  DTLS handshake, 214 bytes: lost`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// When it was sent, since the network was made.
    pub at: Duration,
    /// Name of the host that sent it.
    pub from_host: String,
    /// Name of the host that it was for, if there is one.
    pub to_host: Option<String>,
    /// Address of the sending socket, or of the NAT in front of it.
    pub from: SocketAddr,
    /// Where it was sent.
    pub to: SocketAddr,
    /// What it was.
    pub kind: DatagramKind,
    /// Its size without headers.
    pub bytes: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It arrives at this time since the network was made, unless its socket closes before that.
    Arrives(Duration),
    /// It never arrives.
    Dropped(DropCause),
}

/// Why a datagram never arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DropCause {
    /// Lost by the dice ([`Links::loss`](super::Links::loss)).
    Loss,
    /// Lost within a burst ([`Links::bursty_loss`](super::Links::bursty_loss)).
    Burst,
    /// The link is cut.
    Cut,
    /// One of the two hosts is [silent](super::Host::set_silent).
    Silent,
    /// A hook chose it ([`Network::drop_if`](super::Network::drop_if)).
    Hook,
    /// The queue before a link of little [bandwidth](super::Links::bandwidth) was full.
    QueueFull,
    /// No socket is bound to that address, or it closed before the datagram was read.
    NoSocket,
    /// There is no way to that address: nobody has it, or it is behind a NAT.
    NoRoute,
    /// A NAT has no mapping for it, or does not let that sender in.
    Filtered,
    /// A NAT has no port left for a mapping.
    NatFull,
    /// The host no longer has the address of the socket.
    AddressGone,
    /// The socket had [too much](super::RECEIVE_BUFFER_BYTES) unread when it arrived.
    BufferFull,
}

impl fmt::Display for DropCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropCause::Loss => "lost",
            DropCause::Burst => "lost in a burst",
            DropCause::Cut => "the link is cut",
            DropCause::Silent => "a host is silent",
            DropCause::Hook => "dropped by the hook",
            DropCause::QueueFull => "the link's queue is full",
            DropCause::NoSocket => "no socket is there",
            DropCause::NoRoute => "no way there",
            DropCause::Filtered => "the NAT lets nobody in",
            DropCause::NatFull => "the NAT has no port left",
            DropCause::AddressGone => "the sender's address is gone",
            DropCause::BufferFull => "the receiver's buffer is full",
        })
    }
}

/// What a datagram is, by its first byte (RFC 7983).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DatagramKind {
    /// STUN, which is ICE's checks, and TURN's requests and indications: 0 to 3.
    Stun,
    /// A DTLS handshake in the clear, or the ChangeCipherSpec that ends it: 20 and 22.
    DtlsHandshake,
    /// DTLS with something encrypted in it, which is SCTP mostly: the others from 20 to 63.
    Dtls,
    /// TURN's ChannelData: 64 to 79.
    TurnChannel,
    /// Anything else, nothing too.
    Other,
}

impl DatagramKind {
    /// Of a datagram with this content.
    pub fn of(datagram: &[u8]) -> DatagramKind {
        match datagram {
            [0..=3, ..] => DatagramKind::Stun,
            // Type, version, and then the epoch, which is 0 in the clear (RFC 6347 section 4.1).
            [20, ..] | [22, _, _, 0, 0, ..] => DatagramKind::DtlsHandshake,
            [20..=63, ..] => DatagramKind::Dtls,
            [64..=79, ..] => DatagramKind::TurnChannel,
            _ => DatagramKind::Other,
        }
    }
}

impl fmt::Display for DatagramKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatagramKind::Stun => "STUN",
            DatagramKind::DtlsHandshake => "DTLS handshake",
            DatagramKind::Dtls => "DTLS",
            DatagramKind::TurnChannel => "TURN channel",
            DatagramKind::Other => "other",
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { from_host, from, to, kind, bytes, .. } = self;
        let to_host = self.to_host.as_deref().unwrap_or("nobody");
        let at = self.at.as_secs_f64();
        write!(f, "{at:.3} s  {from_host} {from} > {to_host} {to}  {kind}, {bytes} bytes: ")?;
        match self.outcome {
            Outcome::Arrives(at) => write!(f, "arrives at {:.3} s", at.as_secs_f64()),
            Outcome::Dropped(cause) => cause.fmt(f),
        }
    }
}

/// The last [`TRACE_RECORDS`] records, with hosts by number.
#[derive(Debug, Default)]
pub(super) struct Trace {
    records: VecDeque<Entry>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) at: Duration,
    pub(super) from_host: super::HostId,
    pub(super) to_host: Option<super::HostId>,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) kind: DatagramKind,
    pub(super) bytes: usize,
    pub(super) outcome: Outcome,
}

impl Trace {
    pub(super) fn push(&mut self, entry: Entry) {
        if self.records.len() == TRACE_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(entry);
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.records.iter()
    }
}
