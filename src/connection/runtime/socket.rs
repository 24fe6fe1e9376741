//! A socket of a connection, and the cures that need the datagrams themselves.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Runtime, Transmit};

use super::super::checks::Making;
use super::super::content::{Content, Way};
use super::super::driver::tell_anew;
use super::super::handshake::{Handshake, is_to_be_repeated};
use super::super::outlet::Outlet;
use super::super::stun::{DATA, REQUEST, SEND, SUCCESS};
use super::{FAREWELLS, MAX_TURN_BYTES, NOBODY, Progress, REPEATS, Until, Watched, lock};

pub(super) struct Socket {
    pub(super) base: Arc<Outlet>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) progress: Arc<Progress>,
    pub(super) handshake: Arc<Mutex<Handshake>>,
    pub(super) local: SocketAddr,
    pub(super) watched: Watched,
    /// There are ICE servers, whose datagrams are looked at.
    pub(super) has_servers: bool,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("base", &self.base).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.base.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let to = transmit.destination;
        // Several datagrams at once, each as long as the first but for the last, which may be of another kind.
        let size = segment_size(transmit);
        let mut waits = false;
        if transmit.contents.len() <= size {
            let content = Content::of(self.local, to, transmit.contents, SEND);
            if !self.admits(&content, transmit.contents) {
                return Poll::Ready(Ok(transmit.contents.len()));
            }
            waits = self.waits(&content, transmit);
        }
        let sent = if waits {
            Ok(transmit.contents.len())
        } else {
            std::task::ready!(self.poll_socket(cx, transmit))
        };
        let mut is_dtls = false;
        for datagram in transmit.contents.chunks(size) {
            let content = Content::of(self.local, to, datagram, SEND);
            self.has_left(&content);
            self.watched.record.sent(&content, sent.is_err());
            if self.has_servers {
                self.progress.sends(datagram);
                self.watched.tell(self.watched.servers.sent(self.local, to, datagram, sent.as_ref().err()));
            }
            if sent.is_ok() {
                is_dtls |= content.dtls().is_some();
                if !waits {
                    self.progress.rider.sent(datagram.len());
                }
                if let Some(until) = self.repeats(&content) {
                    self.repeat(datagram, to, until);
                }
            }
        }
        if is_dtls && self.progress.closing.load(Ordering::Acquire) {
            for _ in 1..FAREWELLS {
                let _ = self.base.poll_send(cx, transmit);
            }
        }
        Poll::Ready(sent)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let begins = self.progress.taken() == 0;
        // For its next turn, which follows, the driver has made the receive anew, and polls that.
        let is_enough = !begins && (self.base.socket.is_drained() || self.progress.taken() >= MAX_TURN_BYTES);
        if self.progress.takes_nudge() {
            return Poll::Ready(Ok(self.receive_nothing(bufs, meta)));
        }
        if is_enough {
            return Poll::Pending;
        }
        let received = self.base.socket.poll_recv(cx, bufs, meta);
        // Within a turn it only looks for more, and need not be woken for it.
        if received.is_pending() && begins {
            self.progress.receiver.register(cx.waker());
            if self.progress.takes_nudge() {
                return Poll::Ready(Ok(self.receive_nothing(bufs, meta)));
            }
        }
        if let Poll::Ready(Ok(count)) = received {
            self.progress.takes(meta.iter().take(count).map(|meta| meta.len).sum());
            let Watched { record, servers, .. } = &self.watched;
            let is_open = self.progress.is_open();
            if !is_open {
                *lock(&self.progress.received) = Some(self.runtime.now());
            }
            for (buf, meta) in bufs.iter().zip(meta.iter()).take(count) {
                let datagrams = buf.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1));
                datagrams.for_each(|datagram| {
                    let content = Content::of(self.local, meta.addr, datagram, DATA);
                    self.heard(&content);
                    record.heard(&content);
                    if self.has_servers {
                        self.watched.tell(servers.heard(meta.addr, datagram));
                    }
                    if let (false, Some(record)) = (is_open, content.dtls()) {
                        lock(&self.handshake).heard(record);
                    }
                });
            }
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.base.socket.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.base.socket.max_gro_segments()
    }
}

/// A STUN binding indication (RFC 8489 section 5), which ICE takes without a word.
pub(super) const INDICATION: [u8; 20] =
    [0, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

impl Socket {
    /// Whether it waits for a packet to leave with.
    fn waits(&self, content: &Content<'_>, transmit: &Transmit<'_>) -> bool {
        let Content::Data(record) = content else { return false };
        // What goes to a relay is longer than its record.
        let is_bare = record.len() == transmit.contents.len();
        if !is_bare || !self.progress.is_among_us() || !self.progress.is_calm() {
            return false;
        }
        let (clock, now) = (&self.watched.clock, self.runtime.now());
        self.progress.rider.takes(record, transmit.destination, &self.base, || clock.spares(), now)
    }

    /// Sends, and what waits for it as well.
    fn poll_socket(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let rider = &self.progress.rider;
        let Some(held) = rider.held(transmit.destination, &self.base) else {
            return self.base.poll_send(cx, transmit);
        };
        if !self.base.takes_along(transmit, held.len()) {
            // Not after this: it may be the last word of DTLS, or many datagrams, and what comes too late is dropped.
            rider.left();
            let _ = self.base.send_now(&held, transmit.destination);
            return self.base.poll_send(cx, transmit);
        }
        let sent = std::task::ready!(self.base.poll_send_both(cx, transmit, &held));
        if sent.is_ok() {
            rider.left();
        }
        Poll::Ready(sent)
    }

    /// Whether a datagram may leave.
    fn admits(&self, content: &Content<'_>, datagram: &[u8]) -> bool {
        match content {
            Content::Check(way, check) if check.class == REQUEST => {
                let (making, now) = (self.making(), self.runtime.now());
                !self.thins(way, making)
                    || lock(&self.progress.checks).admits(self.local, way.remote, making, now)
            }
            Content::Other => !is_channel_bind(datagram),
            Content::Check(..) | Content::Data(_) | Content::Handshake(_) => true,
        }
    }

    /// Notes what has left.
    fn has_left(&self, content: &Content<'_>) {
        match content {
            Content::Data(record) => self.watched.clock.sent_data(record.len()),
            Content::Check(way, check) if check.class == REQUEST => {
                let (making, now) = (self.making(), self.runtime.now());
                if self.thins(way, making) {
                    lock(&self.progress.checks).left(self.local, way.remote, making, now);
                }
                self.watched.clock.asked(check.transaction, now);
            }
            Content::Check(..) | Content::Handshake(_) | Content::Other => {}
        }
    }

    /// Whether checks are thinned out that go this way. Those that a relay hands on while a way is looked for are not.
    fn thins(&self, way: &Way, making: Making) -> bool {
        way.relay.is_none() || matches!(making, Making::Done)
    }

    fn making(&self) -> Making {
        match self.progress.is_open() && !self.watched.clock.searches() {
            true => Making::Done,
            false => Making::Begun,
        }
    }

    /// Takes a datagram for a sign of life, if it is one.
    fn heard(&self, content: &Content<'_>) {
        let clock = &self.watched.clock;
        match content {
            Content::Data(record) => {
                if clock.heard_data(record.len()) {
                    tell_anew();
                }
                self.progress.rider.heard(record.len());
                self.progress.hears_data(|| self.runtime.now());
            }
            Content::Check(_, check) if check.class == REQUEST => clock.heard(self.runtime.now()),
            // Others are a STUN server's, or nobody's.
            Content::Check(_, check) if check.class == SUCCESS => {
                if clock.answered(&check.transaction, self.runtime.now()) {
                    self.progress.answers.fetch_add(1, Ordering::Relaxed);
                }
            }
            Content::Check(..) | Content::Handshake(_) | Content::Other => {}
        }
    }

    /// A datagram that means nothing, from nobody: so it is no sign of life of the remote.
    fn receive_nothing(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> usize {
        let (Some(buf), Some(meta)) = (bufs.first_mut().and_then(|buf| buf.get_mut(..20)), meta.first_mut())
        else {
            return 0;
        };
        buf.copy_from_slice(&INDICATION);
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (NOBODY, INDICATION.len(), INDICATION.len());
        1
    }

    /// Whether it is to be sent again, and until when.
    fn repeats(&self, content: &Content<'_>) -> Option<Until> {
        match content {
            Content::Data(record) => self.progress.repeats_data(record.len(), || self.runtime.now()),
            Content::Handshake(record) if !self.progress.is_open() => {
                let repeats = is_to_be_repeated(record, self.progress.is_among_us());
                repeats.then(|| Until::NewsAfter(lock(&self.handshake).news))
            }
            Content::Handshake(_) | Content::Check(..) | Content::Other => None,
        }
    }

    /// Sends it again. The task ends with the connection.
    fn repeat(&self, datagram: &[u8], to: SocketAddr, until: Until) {
        let (handshake, progress) = (self.handshake.clone(), self.progress.clone());
        // Weak, so that a repeat never keeps a closed connection's port.
        let (base, runtime) = (Arc::downgrade(&self.base), self.runtime.clone());
        let datagram = datagram.to_vec();
        let repeat = async move {
            let mut slept = Duration::ZERO;
            for at in REPEATS {
                runtime.sleep(at - slept).await;
                slept = at;
                let Some(outlet) = base.upgrade() else { return };
                let is_over = match until {
                    Until::NewsAfter(news) => progress.is_open() || lock(&handshake).news != news,
                    Until::Greeted => progress.greeted.load(Ordering::Relaxed),
                    Until::TheLast => false,
                };
                if is_over {
                    return;
                }
                if outlet.try_send(&datagram, to).is_err() {
                    return;
                }
            }
        };
        let ended = self.progress.ended.clone();
        let until_the_end = async move { ended.run_until_cancelled(repeat).await.unwrap_or_default() };
        self.runtime.spawn(Box::pin(until_the_end)).detach();
    }
}

/// How long each of the datagrams is that are sent at once, but for the last.
fn segment_size(transmit: &Transmit<'_>) -> usize {
    transmit.segment_size.filter(|size| *size > 0).unwrap_or(transmit.contents.len()).max(1)
}

/// A request for a channel (RFC 8656 section 12.1). Nothing else that goes over our sockets begins like this.
pub(super) fn is_channel_bind(datagram: &[u8]) -> bool {
    matches!(datagram, [0, 9, _, _, 0x21, 0x12, 0xa4, 0x42, ..])
}
