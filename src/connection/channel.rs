//! One data channel of a connection, as its peer's task uses it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _};
use futures::{FutureExt as _, Stream as _, future::BoxFuture};
use tokio::time::timeout;
use tokio_util::sync::ReusableBoxFuture;
use webrtc::data_channel::{DataChannel, DataChannelEvent};

use super::clock::{Clock, Held};
use super::runtime::Progress;

/// What a channel reports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChannelEvent {
    /// It can carry messages now. At most once, and first.
    Open,
    /// A message arrived, binary or text.
    Message(Bytes),
    /// It has closed: no event follows.
    Closed,
}

/// How far the reading of a channel has come.
enum Reading {
    Open(Arc<dyn DataChannel>),
    /// The close was reported; messages that arrived before it may still come.
    Closing(Arc<dyn DataChannel>),
    Over,
}

/// The library reports a close before messages of the same burst of datagrams, and after the close it may never end
/// the channel. So what comes within this time after a close is taken, and the time ends the channel.
const LAST_MESSAGES: Duration = Duration::from_millis(20);

async fn next_event(mut reading: Reading) -> Option<(ChannelEvent, Reading)> {
    loop {
        let event = match &reading {
            Reading::Open(channel) => channel.poll().await,
            Reading::Closing(channel) => timeout(LAST_MESSAGES, channel.poll()).await.ok().flatten(),
            Reading::Over => return None,
        };
        match event {
            Some(DataChannelEvent::OnOpen) => return Some((ChannelEvent::Open, reading)),
            Some(DataChannelEvent::OnMessage(message)) => {
                return Some((ChannelEvent::Message(message.data.freeze()), reading));
            }
            Some(DataChannelEvent::OnClose) => {
                reading = match reading {
                    Reading::Open(channel) | Reading::Closing(channel) => Reading::Closing(channel),
                    Reading::Over => Reading::Over,
                };
            }
            Some(_) => {}
            None => return Some((ChannelEvent::Closed, Reading::Over)),
        }
    }
}

/// Hands a message to SCTP as soon as that holds fewer than `bound` bytes of the channel, or nothing. It holds `at_most`
/// so many now; gives what it holds at most then.
///
/// The library's `send` waits for a bound that is the same for every path, and takes its lock once more to see. So this
/// looks by itself, at every turn of the driver, and only when it cannot be known without looking.
async fn send(
    channel: Arc<dyn DataChannel>,
    progress: Arc<Progress>,
    message: BytesMut,
    mut at_most: usize,
    bound: usize,
) -> webrtc::error::Result<usize> {
    let bytes = message.len();
    while at_most > 0 && at_most + bytes > bound {
        let turn = progress.turn();
        at_most = channel.outstanding_bytes().await?;
        // Of a driver that has ended nothing is to be waited for: `try_send` says so.
        if at_most < bound || progress.ended.is_cancelled() {
            break;
        }
        let _ = timeout(LOOK_AGAIN, turn).await;
    }
    channel.try_send(message).await?;
    Ok(at_most + bytes)
}

/// A channel could not send, as it is closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ChannelClosed;

/// A channel that was agreed on beforehand (`negotiated`), with room for one message that waits to be handed to SCTP.
/// First what a message that arrives needs, then what one that leaves does.
#[repr(C)]
pub(crate) struct Channel {
    events: BoxStream<'static, ChannelEvent>,
    /// Messages taken since the driver was nudged.
    taken: usize,
    /// The message that waits, in a box that is used again for the next one.
    sending: ReusableBoxFuture<'static, webrtc::error::Result<usize>>,
    is_sending: bool,
    /// The size of that message; of all that SCTP has taken; and of what it holds of them at the most.
    sending_bytes: usize,
    handed_bytes: u64,
    held_bytes: usize,
    inner: Arc<dyn DataChannel>,
    progress: Arc<Progress>,
    clock: Arc<Clock>,
}

/// SCTP is given this much of a channel at the most, and one message more.
pub(crate) const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// A channel that is full is looked at again after so long, should no turn of the driver have told it to.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How many messages are taken between two nudges of the driver (see [`Progress::nudge`]), which takes 256 out of
/// SCTP at a time: often enough that of 256, however they spread over the four channels, there is one among them.
const NUDGE_EVERY: usize = 64;

impl Channel {
    pub(super) fn new(inner: Arc<dyn DataChannel>, progress: Arc<Progress>, clock: Arc<Clock>) -> Channel {
        let events = futures::stream::unfold(Reading::Open(inner.clone()), next_event).fuse().boxed();
        let nothing = send(inner.clone(), progress.clone(), BytesMut::new(), 0, 0);
        Channel {
            inner,
            events,
            sending: ReusableBoxFuture::new(nothing),
            is_sending: false,
            sending_bytes: 0,
            handed_bytes: 0,
            held_bytes: 0,
            progress,
            clock,
            taken: 0,
        }
    }

    /// The next event. After [`ChannelEvent::Closed`] never again ready.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        match Pin::new(&mut self.events).poll_next(cx) {
            Poll::Ready(Some(event)) => {
                self.taken += 1;
                if self.taken >= NUDGE_EVERY {
                    self.taken = 0;
                    self.progress.nudge();
                }
                Poll::Ready(event)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Whether a message can be given to [`send`](Channel::send): none waits.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelClosed>> {
        if !self.is_sending {
            return Poll::Ready(Ok(()));
        }
        let sent = std::task::ready!(self.sending.poll(cx));
        self.is_sending = false;
        self.handed_bytes += self.sending_bytes as u64;
        match sent {
            Ok(held_bytes) => {
                self.held_bytes = held_bytes;
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                tracing::debug!(%error, "a channel does not send");
                Poll::Ready(Err(ChannelClosed))
            }
        }
    }

    /// Hands a message to SCTP as soon as that has room; only after `poll_ready`. This is the one copy of a payload
    /// on its way out, and there is none if nobody else holds it.
    ///
    /// SCTP has room while it holds fewer than `bound` bytes of the channel.
    pub(crate) fn send(&mut self, payload: Bytes, bound: usize) {
        let bound = bound.min(MAX_HELD_BYTES);
        debug_assert!(!self.is_sending);
        self.sending_bytes = payload.len();
        let message = payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let (channel, progress) = (self.inner.clone(), self.progress.clone());
        self.sending.set(send(channel, progress, message, self.held_bytes, bound));
        self.is_sending = true;
    }

    /// What SCTP holds, on all channels. Tells whether it has given up.
    pub(crate) fn tell_held(&self, held: Held) -> bool {
        if held.is_greeted {
            self.progress.end_opening();
        }
        let verdict = self.clock.held(held);
        if verdict.hurries {
            self.progress.nudge();
        }
        verdict.given_up
    }

    /// How many bytes SCTP has taken.
    pub(crate) fn handed_bytes(&self) -> u64 {
        self.handed_bytes
    }

    /// A gauge of what SCTP holds.
    pub(crate) fn outstanding(&self) -> Outstanding {
        Outstanding(self.inner.clone())
    }
}

/// How much of a channel's messages SCTP holds.
#[derive(Clone)]
pub(crate) struct Outstanding(Arc<dyn DataChannel>);

impl Outstanding {
    /// Bytes handed to SCTP and neither acknowledged nor given up. That this is 0 is no proof of arrival: so it
    /// reads, too, while a lost chunk waits for its timer.
    pub(crate) async fn bytes(&self) -> usize {
        self.0.outstanding_bytes().await.unwrap_or(0)
    }

    /// The same, to be kept.
    pub(crate) fn measure(self) -> BoxFuture<'static, usize> {
        async move { self.bytes().await }.boxed()
    }
}

impl fmt::Debug for Outstanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outstanding").field(&self.0.id()).finish()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("id", &self.inner.id()).finish_non_exhaustive()
    }
}
