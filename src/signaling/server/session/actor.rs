//! The task of one connection: waits, and does what `state` decides.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink as _, SinkExt as _, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite;

use super::super::admission::Arrival;
use super::super::households::Place;
use super::super::mailbox::{Mailbox, Wanted};
use super::super::rendezvous::{Counts, JoinRequest, Leaving, SessionSecret};
use super::super::shared::Shared;
use super::state::{Effect, Input, LATE, State};
use crate::signaling::godot::{CloseReason, Generation};

/// What the request said, before it was a WebSocket.
#[derive(Debug)]
pub(in super::super) struct Client {
    pub(in super::super) session: Option<SessionSecret>,
    pub(in super::super) id: Option<u32>,
    pub(in super::super) create: bool,
    /// Kept for the admission, if there is one.
    pub(in super::super) arrival: Option<Arrival>,
    /// One of as many as may be connected.
    pub(in super::super) permit: Option<OwnedSemaphorePermit>,
    /// One of as many as may be of its address, also while it is away.
    pub(in super::super) _place: Option<Place>,
}

/// A connection, and what is done for it.
pub(in super::super) struct Actor {
    shared: Arc<Shared>,
    /// For the log.
    number: u64,
    client: Client,
    state: State,
    mailbox: Mailbox,
    reader: Option<SplitStream<WebSocket>>,
    writer: Option<Writer>,
    /// Asked of the lobbies, one after the other: a request, and that the client has left.
    calls: VecDeque<BoxFuture<'static, Option<Input>>>,
    stopped: bool,
    /// One of as many as may be away.
    kept: Option<OwnedSemaphorePermit>,
}

/// What is being written. Filled only while it is empty, so it holds no more than a batch.
struct Writer {
    sink: SplitSink<WebSocket, Frame>,
    queue: VecDeque<Frame>,
    /// Of the texts since it was empty.
    bytes: usize,
    /// Since when it is not empty.
    since: Option<Instant>,
}

/// How long the lobbies may take for an answer.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Letters that are written before it is waited for them to be gone: few system calls, and little to hold.
const BATCH: usize = 32;

/// And their bytes, so that a slow connection has the time for them.
const BATCH_BYTES: usize = 16 * 1024;

/// Runs a connection to its end; at the latest until the server has waited for long enough.
pub(in super::super) async fn run(mut actor: Actor) {
    let kill = actor.shared.kill.clone();
    let lived = AssertUnwindSafe(kill.run_until_cancelled(actor.live())).catch_unwind().await;
    actor.mailbox.shut();
    if lived.is_err() {
        tracing::error!(session = actor.number, "a session panicked");
        if let Some(membership) = actor.state.membership() {
            let leave = actor.shared.rendezvous.leave(membership, Leaving::Gone);
            let _ = timeout(CALL_LIMIT, leave).await;
        }
    }
}

impl Actor {
    pub(in super::super) fn new(shared: Arc<Shared>, socket: WebSocket, client: Client) -> Actor {
        let (sink, stream) = socket.split();
        let state = State::new(shared.session, client.session.is_some(), Instant::now());
        Actor {
            number: shared.number(),
            mailbox: shared.mailbox(),
            shared,
            client,
            state,
            reader: Some(stream),
            writer: Some(Writer { sink, queue: VecDeque::new(), bytes: 0, since: None }),
            calls: VecDeque::new(),
            stopped: false,
            kept: None,
        }
    }

    async fn live(&mut self) {
        let mut effects = Vec::new();
        while !(self.state.is_over() && self.calls.is_empty()) {
            let mut input = self.listen().await;
            while let Some(next) = input.take() {
                let letter = matches!(next, Input::Letter(_));
                self.state.handle(next, Instant::now(), &mut effects);
                for effect in effects.drain(..) {
                    self.perform(effect);
                }
                self.settle();
                let room = self.writer.as_ref().is_some_and(Writer::has_room);
                if letter && room && self.state.talks() && !self.is_to_stop() {
                    input = self.mailbox.try_next(Wanted::All).map(Input::Letter);
                }
            }
        }
    }

    /// Waits for the next thing to happen; `None` if it is nothing to decide on.
    ///
    /// Every branch is cancel-safe: losing the race loses nothing.
    async fn listen(&mut self) -> Option<Input> {
        if self.is_to_stop() {
            // Before any letter: the lobbies that end with the server are not why.
            self.stopped = true;
            return Some(Input::Stop);
        }
        let write_deadline = self.writer.as_ref().and_then(|writer| writer.since);
        let write_deadline = write_deadline.map(|since| since + self.shared.write_limit);
        let deadline = [self.state.deadline(), write_deadline].into_iter().flatten().min();
        let wanted = match (self.state.talks(), &self.writer) {
            (true, Some(writer)) if writer.since.is_none() => Wanted::All,
            (true, _) => Wanted::Overflow,
            (false, _) => Wanted::End,
        };
        let Actor { shared, state, mailbox, reader, writer, calls, stopped, .. } = self;
        let writing = writer.as_mut().filter(|writer| writer.since.is_some());
        let reading = reader.as_mut().filter(|_| state.reads());
        tokio::select! {
            () = shared.stop.cancelled(), if !*stopped => {
                *stopped = true;
                Some(Input::Stop)
            }
            answer = first(calls), if !calls.is_empty() => {
                calls.pop_front();
                answer
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                let now = Instant::now();
                match write_deadline.filter(|deadline| *deadline <= now) {
                    // It is us who slept: the client could not show that it takes anything.
                    Some(deadline) if now - deadline > LATE => {
                        writer.as_mut().and_then(|writer| writer.since.replace(now));
                        Some(Input::Tick)
                    }
                    Some(_) => Some(Input::Lost),
                    None => Some(Input::Tick),
                }
            }
            Some(written) = async { Some(writing?.flush().await) } => written.err().map(|_| Input::Lost),
            letter = mailbox.next(wanted), if state.has_seat() => Some(Input::Letter(letter)),
            Some(frame) = async { Some(reading?.next().await) } => {
                let input = heard(frame);
                match &input {
                    Input::Text(text) => shared.metrics.received(text.len()),
                    Input::Binary(bytes) => shared.metrics.received(bytes.len()),
                    Input::Unreadable(_) => *reader = None,
                    _ => {}
                }
                Some(input)
            }
            else => Some(Input::Lost),
        }
    }

    fn is_to_stop(&self) -> bool {
        !self.stopped && self.shared.stop.is_cancelled()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Join { generation, lobby, mesh } => self.join(generation, lobby, mesh),
            Effect::Relay { from, to, kind, payload } => {
                let shared = Arc::clone(&self.shared);
                self.calls.push_back(Box::pin(async move {
                    let told = timeout(CALL_LIMIT, shared.rendezvous.relay(&from, to, kind, payload)).await;
                    // Whoever it is for comes first: what one says at once is not to pile up there.
                    tokio::task::yield_now().await;
                    Some(Input::Relayed(told.unwrap_or(false)))
                }));
            }
            Effect::Seal(membership) => {
                let shared = Arc::clone(&self.shared);
                self.calls.push_back(Box::pin(async move {
                    let sealed = timeout(CALL_LIMIT, shared.rendezvous.seal(&membership)).await;
                    Some(Input::Sealed(sealed.unwrap_or(Err(CloseReason::ServerError))))
                }));
            }
            Effect::Leave(membership, why) => {
                tracing::info!(session = self.number, id = membership.id, ?why, "left its lobby");
                let shared = Arc::clone(&self.shared);
                self.calls.push_back(Box::pin(async move {
                    if timeout(CALL_LIMIT, shared.rendezvous.leave(&membership, why)).await.is_err() {
                        tracing::error!(id = membership.id, "the lobbies take too long to let a member go");
                    }
                    None
                }));
            }
            Effect::Say(text) => {
                self.shared.metrics.sent(text.len());
                if let Some(writer) = &mut self.writer {
                    writer.bytes += text.len();
                }
                self.write(Frame::Text(text.into()));
            }
            Effect::Ping => self.write(Frame::Ping(bytes::Bytes::new())),
            Effect::Close(reason) => {
                tracing::debug!(session = self.number, %reason, "closed");
                self.shared.metrics.closed(&reason);
                self.write(close_frame(&reason));
            }
            Effect::Drop => self.hang_up(),
            Effect::Count(event) => {
                tracing::debug!(session = self.number, ?event);
                self.shared.metrics.count(event);
            }
        }
    }

    fn join(&mut self, generation: Generation, lobby: String, mesh: bool) {
        let (shared, mailbox, number) = (Arc::clone(&self.shared), self.mailbox.clone(), self.number);
        let arrival = self.client.arrival.take().map(|arrival| Arrival {
            lobby: Some(lobby.clone()).filter(|lobby| !lobby.is_empty()),
            generation,
            ..arrival
        });
        let request = JoinRequest {
            create: self.client.create,
            mesh,
            session: self.client.session,
            id: self.client.id,
            ..JoinRequest::new(lobby, generation)
        };
        self.calls.push_back(Box::pin(async move {
            if let Some(arrival) = arrival
                && let Err(reason) = shared.admit(arrival).await
            {
                return Some(Input::Joined(Err(reason)));
            }
            let joined = timeout(CALL_LIMIT, shared.rendezvous.join(request, mailbox)).await;
            let joined = joined.unwrap_or(Err(CloseReason::ServerError));
            if let Ok(membership) = &joined {
                let Counts { lobbies, members } = shared.rendezvous.counts();
                let (id, resumed) = (membership.id, membership.resumed);
                tracing::info!(session = number, %generation, id, resumed, lobbies, members, "joined a lobby");
            }
            Some(Input::Joined(joined))
        }));
    }

    fn write(&mut self, frame: Frame) {
        if let Some(writer) = &mut self.writer {
            writer.queue.push_back(frame);
            writer.since.get_or_insert_with(Instant::now);
        }
    }

    /// Forgets the connection, and gives its place among the connected ones to another.
    fn hang_up(&mut self) {
        if let Some(writer) = &mut self.writer {
            // What the kernel takes now may still be heard.
            let _ = writer.flush().now_or_never();
        }
        self.reader = None;
        self.writer = None;
        self.client.permit = None;
    }

    /// Whoever is away takes one of as many places as there are for that; without one, it has left.
    fn settle(&mut self) {
        if self.state.is_kept() && self.kept.is_none() {
            self.kept = Arc::clone(&self.shared.kept).try_acquire_owned().ok();
            if self.kept.is_none() {
                self.mailbox.overflow();
            }
        }
    }
}

impl Writer {
    fn has_room(&self) -> bool {
        self.queue.len() < BATCH && self.bytes < BATCH_BYTES
    }

    /// Writes what there is.
    ///
    /// Cancel-safe: a frame leaves the queue when the connection has room for it.
    async fn flush(&mut self) -> Result<(), axum::Error> {
        while !self.queue.is_empty() {
            poll_fn(|cx| Pin::new(&mut self.sink).poll_ready(cx)).await?;
            if let Some(frame) = self.queue.pop_front() {
                Pin::new(&mut self.sink).start_send(frame)?;
            }
        }
        self.sink.flush().await?;
        (self.since, self.bytes) = (None, 0);
        Ok(())
    }
}

/// The answer of the first call.
async fn first(calls: &mut VecDeque<BoxFuture<'static, Option<Input>>>) -> Option<Input> {
    match calls.front_mut() {
        Some(call) => call.await,
        None => None,
    }
}

fn heard(frame: Option<Result<Frame, axum::Error>>) -> Input {
    let error = match frame {
        Some(Ok(Frame::Text(text))) => return Input::Text(text),
        Some(Ok(Frame::Binary(bytes))) => return Input::Binary(bytes),
        Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => return Input::Beat,
        Some(Ok(Frame::Close(_))) => return Input::Goodbye,
        Some(Err(error)) => error.into_inner(),
        None => return Input::Lost,
    };
    use tungstenite::error::{Error, ProtocolError};
    match error.downcast_ref::<Error>() {
        Some(Error::Capacity(_)) => Input::Unreadable(CloseReason::TooLarge),
        Some(Error::Utf8(_)) => Input::Unreadable(CloseReason::NotText),
        Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Input::Lost,
        Some(Error::Protocol(_)) => Input::Unreadable(CloseReason::InvalidFormat),
        _ => Input::Lost,
    }
}

/// The last frame, which says why.
pub(in super::super) fn close_frame(reason: &CloseReason) -> Frame {
    Frame::Close(Some(CloseFrame { code: reason.code(), reason: reason.text().into_owned().into() }))
}
