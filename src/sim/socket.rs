//! UDP sockets that are queues.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Instant, Sleep};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::network::Network;
use super::{HostId, SocketId};

/// How much a socket holds unread before it drops what arrives, like a kernel with a generous `SO_RCVBUF`.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// A UDP socket of a [`Host`](super::Host), for services of your own within the simulation.
///
/// Sending never waits and never fails: what is too much is lost further on. It closes when it is dropped.
#[derive(Debug)]
pub struct UdpSocket(pub(super) Socket);

impl UdpSocket {
    /// Its address: the host's own, also behind a NAT.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Sends one datagram.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) {
        self.0.network.send(self.0.id, to, datagram);
    }

    /// Waits for a datagram, and gives it with the address it came from.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no datagram.
    pub async fn recv_from(&mut self) -> (Vec<u8>, SocketAddr) {
        poll_fn(|cx| self.poll_recv_from(cx)).await
    }

    pub(super) fn poll_recv_from(&mut self, cx: &mut Context<'_>) -> Poll<(Vec<u8>, SocketAddr)> {
        self.0.poll_read(cx).map(|parcel| (parcel.bytes.into(), parcel.from))
    }
}

/// What is on its way to one socket, and what has arrived there.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) host: HostId,
    pub(super) addr: SocketAddr,
    /// The host no longer has the address.
    pub(super) is_dead: bool,
    on_the_way: BTreeMap<(Instant, u64), Parcel>,
    /// Bounded by [`RECEIVE_BUFFER_BYTES`]; what arrives when it is full is dropped and counted.
    unread: VecDeque<Parcel>,
    unread_bytes: usize,
    reader: Option<Waker>,
}

#[derive(Debug, Clone)]
pub(super) struct Parcel {
    pub(super) from_host: HostId,
    pub(super) from: SocketAddr,
    pub(super) bytes: Box<[u8]>,
}

impl Inbox {
    pub(super) fn new(host: HostId, addr: SocketAddr) -> Inbox {
        Inbox {
            host,
            addr,
            is_dead: false,
            on_the_way: BTreeMap::new(),
            unread: VecDeque::new(),
            unread_bytes: 0,
            reader: None,
        }
    }

    /// Takes note of a parcel; returns the reader when it must be told, as its alarm is set for a later one.
    pub(super) fn expect(&mut self, due: (Instant, u64), parcel: Parcel) -> Option<Waker> {
        let is_next = self.on_the_way.first_key_value().is_none_or(|(next, _)| due < *next);
        self.on_the_way.insert(due, parcel);
        if is_next { self.reader.take() } else { None }
    }

    /// Lets what is due arrive; hands out what found the buffer full.
    pub(super) fn settle(&mut self, now: Instant, mut overflowed: impl FnMut(Parcel)) {
        while let Some(next) = self.on_the_way.first_entry().filter(|next| next.key().0 <= now) {
            let parcel = next.remove();
            if self.unread_bytes + parcel.bytes.len() > RECEIVE_BUFFER_BYTES {
                overflowed(parcel);
            } else {
                self.unread_bytes += parcel.bytes.len();
                self.unread.push_back(parcel);
            }
        }
    }

    /// Everything that no reader has taken; nothing is left.
    pub(super) fn drain(&mut self) -> Vec<Parcel> {
        self.unread_bytes = 0;
        let on_the_way = std::mem::take(&mut self.on_the_way).into_values();
        self.unread.drain(..).chain(on_the_way).collect()
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
pub(super) struct Socket {
    id: SocketId,
    addr: SocketAddr,
    network: Network,
    /// Wakes the reader when the next datagram is due. Apart from the network's state, as polling it may drop a waker.
    alarm: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Socket {
    pub(super) fn new(network: Network, id: SocketId, addr: SocketAddr) -> Socket {
        Socket { id, addr, network, alarm: Mutex::new(None) }
    }

    fn poll_alarm(&self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(cx)
    }

    fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Parcel> {
        loop {
            let mut state = self.network.state();
            let Some(inbox) = state.settle(self.id) else { return Poll::Pending };
            if let Some(parcel) = inbox.read() {
                return Poll::Ready(parcel);
            }
            let old_reader = inbox.reader.replace(cx.waker().clone());
            let due = inbox.next_due();
            drop(state);
            drop(old_reader); // after the lock: dropping a waker may run code that comes back here

            match due {
                Some(due) => ready!(self.poll_alarm(cx, due)),
                None => return Poll::Pending,
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let inbox = self.network.state().unbind(self.id);
        drop(inbox); // after the lock, as above
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    /// Always ready, as an ordinary UDP socket nearly is.
    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let whole = transmit.contents.len().max(1);
        let size = transmit.segment_size.filter(|size| *size > 0).unwrap_or(whole);
        for bytes in transmit.contents.chunks(size) {
            self.network.send(self.id, transmit.destination, bytes);
        }
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let parcel = ready!(self.poll_read(cx));
        let len = parcel.bytes.len().min(buf.len()); // the rest is cut off, as the kernel does
        buf[..len].copy_from_slice(&parcel.bytes[..len]);
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (parcel.from, len, len.max(1));
        meta.dst_ip = Some(self.addr.ip());
        Poll::Ready(Ok(1))
    }
}
