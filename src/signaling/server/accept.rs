//! TCP connections before and after they are WebSockets: how many there may be, how long they may take to become one,
//! and how fast they are read: [`Bounded`].

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tower_layer::Layer as _;

use super::rate::{Bucket, Rate};

/// Accepts as `inner` does while there is room, and drops the connection otherwise. Those that are no WebSocket when
/// their time is over are cut, whatever they do with it.
#[derive(Debug, Clone)]
pub(super) struct Bounded<A> {
    pub(super) inner: A,
    pub(super) room: Arc<Semaphore>,
    /// How long a connection may take to become a WebSocket.
    pub(super) limit: Duration,
    /// How fast a connection is read.
    pub(super) bytes: Rate,
    pub(super) stop: CancellationToken,
}

/// How long requests under way have when the server stops; a few bytes are to be written.
const STOP_LIMIT: Duration = Duration::from_millis(250);

/// Goes with each request of a connection, to say that it is a WebSocket now.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(super) fn pass(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_passed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<A, I, S> Accept<I, S> for Bounded<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
    A::Stream: Send + 'static,
    A::Service: Send + 'static,
{
    type Stream = Watched<A::Stream>;
    type Service = AddExtension<A::Service, Gate>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return std::future::ready(Err(io::Error::other("too many connections"))).boxed();
        };
        let accepting = self.inner.accept(stream, service);
        let (now, rate, stop) = (Instant::now(), self.bytes, self.stop.clone());
        let late = sleep_until(now + self.limit);
        let stopped = async move {
            stop.cancelled().await;
            sleep(STOP_LIMIT).await;
        };
        let over = async move {
            tokio::select! {
                () = late => {}
                () = stopped => {}
            }
        };
        async move {
            let (stream, service) = accepting.await?;
            let gate = Gate::default();
            let stream = Watched {
                stream,
                gate: gate.clone(),
                stage: Stage::Http(over.boxed()),
                rate,
                bucket: Bucket::new(rate, now),
                pause: None,
                _permit: permit,
            };
            Ok((stream, Extension(gate).layer(service)))
        }
        .boxed()
    }
}

/// A connection that takes one of the places until it is dropped.
pub(super) struct Watched<S> {
    stream: S,
    gate: Gate,
    stage: Stage,
    rate: Rate,
    bucket: Bucket,
    /// Too much has come: so long nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

enum Stage {
    /// No WebSocket yet; with the time for it.
    Http(BoxFuture<'static, ()>),
    WebSocket,
    Cut,
}

impl<S> Watched<S> {
    /// Fails when the time is over. To be asked whenever the connection is used, as that is when it could wait.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Stage::Http(over) = &mut self.stage {
            if self.gate.is_passed() {
                self.stage = Stage::WebSocket;
            } else if over.poll_unpin(cx).is_ready() {
                self.stage = Stage::Cut;
            }
        }
        match self.stage {
            Stage::Cut => Err(io::Error::new(io::ErrorKind::TimedOut, "no WebSocket in time")),
            Stage::Http(_) | Stage::WebSocket => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.poll_time(cx)?;
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        let wait = this.bucket.spend(this.rate, read, Instant::now());
        this.pause = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_time(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_time(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_time(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_time(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("gate", &self.gate).finish_non_exhaustive()
    }
}
