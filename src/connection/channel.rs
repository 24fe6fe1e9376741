//! One data channel of a connection, as its peer's task uses it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _};
use futures::{FutureExt as _, Stream as _, future::BoxFuture};
use webrtc::data_channel::{DataChannel, DataChannelEvent};

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

/// A channel could not send, as it is closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ChannelClosed;

/// A channel that was agreed on beforehand (`negotiated`), with room for one message that waits to be handed to SCTP.
pub(crate) struct Channel {
    inner: Arc<dyn DataChannel>,
    events: BoxStream<'static, ChannelEvent>,
    sending: Option<BoxFuture<'static, webrtc::error::Result<()>>>,
}

impl Channel {
    pub(super) fn new(inner: Arc<dyn DataChannel>) -> Channel {
        let events = futures::stream::unfold(Some(inner.clone()), |inner| async {
            let inner = inner?;
            loop {
                match inner.poll().await {
                    Some(DataChannelEvent::OnOpen) => return Some((ChannelEvent::Open, Some(inner))),
                    Some(DataChannelEvent::OnMessage(message)) => {
                        return Some((ChannelEvent::Message(message.data.freeze()), Some(inner)));
                    }
                    // `None` may never come after `OnClose`, so that is the end.
                    Some(DataChannelEvent::OnClose) | None => return Some((ChannelEvent::Closed, None)),
                    Some(_) => {}
                }
            }
        });
        Channel { inner, events: events.boxed(), sending: None }
    }

    /// The next event. After [`ChannelEvent::Closed`] never again ready.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ChannelEvent> {
        match Pin::new(&mut self.events).poll_next(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Whether a message can be given to [`send`](Channel::send): none waits.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelClosed>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = std::task::ready!(sending.poll_unpin(cx));
        self.sending = None;
        Poll::Ready(sent.map_err(|error| {
            tracing::debug!(%error, "a channel does not send");
            ChannelClosed
        }))
    }

    /// Hands a message to SCTP as soon as that has room; only after `poll_ready`. This is the one copy of a payload
    /// on its way out, and there is none if nobody else holds it.
    pub(crate) fn send(&mut self, payload: Bytes) {
        debug_assert!(self.sending.is_none());
        let message = payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let inner = self.inner.clone();
        self.sending = Some(async move { inner.send(message).await }.boxed());
    }

    /// Whether a message waits to be handed to SCTP.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some()
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
