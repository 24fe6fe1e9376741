//! The four channels of a peer and the traffic on them: what is in the outbox goes out, what comes in is delivered.
//!
//! Packets flow here without a word; [`Channels::poll`] reports only what there is to decide on ([`Happening`]).

use std::collections::VecDeque;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::{Duration, Instant, Sleep};

use super::control::{Frame, FrameError, cost};
use super::gauges::Gauges;
use super::headway::Headway;
use super::outbox::Outbox;
use super::pace::Pace;
use crate::bell::Places;
use crate::connection::{
    Channel, ChannelClosed, ChannelEvent, MAX_HELD_BYTES, MAX_MESSAGE_BYTES, Outstanding,
};
use crate::packet::TransferMode;
use crate::task_waker::Registered;

/// Where a peer's packets go: a bounded queue that somebody reads, or does not.
pub(crate) trait Delivery: fmt::Debug + Send + Sync {
    /// Takes a packet, whatever the backlog. Those of the unreliable modes may be shed.
    fn deliver(&self, mode: TransferMode, payload: Bytes);

    /// Packets to this peer were shed.
    fn shed(&self, mode: TransferMode, dropped: u64);

    /// Drops what was delivered, as nobody was told of it: it came by a connection that never was up.
    fn forget(&self);

    /// Packets from this peer that were shed as they were not read, by [`TransferMode::index`].
    fn shed_receiving(&self) -> [u64; 3];

    /// How much is read and unread; `waker` is woken when that has changed by enough to say so.
    fn backlog(&self, waker: &Waker) -> Backlog;
}

/// How far the reader of a peer's packets has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// The [`cost`] of all reliable packets that were read since the beginning.
    pub(crate) read: u64,
    /// The unreliable packets are being shed, as the reader does not keep up.
    pub(crate) shedding: bool,
}

/// What the traffic gives to decide on.
#[derive(Debug, PartialEq)]
pub(crate) enum Happening {
    /// A channel can carry messages now: 0 to 2 those of the modes, 3 the control channel.
    Open(usize),
    /// A channel has closed.
    Closed(usize),
    /// The remote said something on the control channel.
    Frame(Frame),
    /// The remote said something there that breaks the protocol.
    BadFrame(FrameError),
    /// The remote sends more than it was granted.
    Overrun,
    /// As many reliable packets have arrived as [`Channels::await_received`] asked for.
    Received,
    /// Everything that waited was handed to SCTP, as [`Channels::await_drained`] asked for.
    Drained,
    /// The queue of reliable packets stayed full for the stall limit.
    Stalled,
    /// SCTP has had nothing acknowledged for so long that it has given up.
    GivenUp,
}

/// The channels and counters of one connection. First, and in this order, what each turn looks at: it is not at hand when
/// there are many links.
#[repr(C)]
pub(crate) struct Channels {
    /// The channels that may have events: one that waits for its reader stays among them, and is looked at again when
    /// that has gone on.
    unread: Places,
    /// Those with a message that waits for room, and those that are paced: as they would say themselves, were they looked at.
    busy: Places,
    paced: Places,
    /// Packets may be sent.
    sending: bool,
    await_drained: bool,
    /// Where the next turn begins, so that a channel that always has something to decide on leaves the others theirs.
    first: usize,
    /// A channel has closed, or is said to have: what the reliable one still holds is taken, for a moment.
    closing: Option<usize>,
    await_received: Option<u64>,
    frames: VecDeque<Frame>,
    outbox: Arc<Outbox>,
    gauges: Arc<Gauges>,
    delivery: Arc<dyn Delivery>,
    headway: Headway,
    /// How far its reader was when it said last that it had gone on.
    backlog: Backlog,
    /// The remote gives credits, and takes ours.
    credits: Option<Credits>,
    /// How much reliable payload may be unread, in bytes of [`cost`].
    window_bytes: u64,
    sent: u64,
    received: u64,
    received_cost: u64,
    channels: [Channel; 4],
    /// How much SCTP is given of each channel of packets, with what it holds.
    paces: [(Pace, Outstanding); 3],
    stall_limit: Duration,
    stall: Pin<Box<Sleep>>,
    /// How many reliable bytes SCTP was done with when the stall limit was over last.
    done_when_stalled: u64,
    last_messages: Pin<Box<Sleep>>,
    /// Of the control channel, of the reliable one, then of the others.
    held: [Outstanding; 4],
}

/// The reliable channel's flow control between two members of this crate, so that SCTP's window never closes.
#[derive(Debug, Clone, Copy)]
struct Credits {
    /// The sum of costs that the remote takes; one packet may go over it.
    limit: u64,
    /// The sum of costs sent.
    sent: u64,
    /// The remote sheds unreliable packets; they wait, and are shed, here.
    pause: bool,
    /// What we granted last.
    granted: u64,
    /// The pause we said last.
    paused: bool,
}

pub(super) const CHANNELS: usize = 4;
/// The channels' places: [`crate::connection::PeerConnection::open_channels`] gives them in this order.
const CHANNEL_OF: [usize; 3] = [2, 1, 0]; // by TransferMode::index
const MODE_OF: [TransferMode; 3] =
    [TransferMode::Reliable, TransferMode::UnreliableOrdered, TransferMode::Unreliable];
pub(super) const CONTROL: usize = 3;

/// The bells of a peer's task. Those of the channels' events have the channels' places, 0 to 3.
pub(super) type Bells = crate::bell::Bells<8>;
/// Somebody sends, or reads: after this it is looked how far the reader is, and what there is to send.
pub(super) const WORK: usize = 4;
/// A timer has run out, or SCTP has room for a message: it is looked what there is to send.
pub(super) const TIME: usize = 5;
/// Not of the channels: their driver, and what happens rarely.
pub(super) const DRIVER: usize = 6;
pub(super) const RARE: usize = 7;

/// The channels' turns: control first, then what is lost by being late.
const ORDER: [usize; 4] = [CONTROL, 2, 1, 0];

/// How long what arrived before a close is waited for, since the last of it.
const LAST_MESSAGES: Duration = Duration::from_millis(20);

/// Packets that a channel moves, each way, before the next has its turn; and turns before other tasks have theirs.
const BATCH: usize = 16;
const TURNS: usize = 8;

/// Frames that wait for the control channel. Each of ours is followed by an answer before the next of its kind, so
/// only a remote that floods us with probes fills it; then its probes go unanswered.
const MAX_FRAMES: usize = 16;
/// Of those, how many are relayed for others; more are lost, as they may be by any other way.
const MAX_RELAYS: usize = 8;

impl Channels {
    /// `bells` are those that come with each poll; who sends rings from now on.
    pub(crate) fn new(
        channels: [Channel; 4],
        outbox: Arc<Outbox>,
        gauges: Arc<Gauges>,
        delivery: Arc<dyn Delivery>,
        window_bytes: usize,
        stall_limit: Duration,
        bells: &Bells,
    ) -> Channels {
        let paces = paces_of(&channels);
        outbox.work.register(&mut Registered::default(), bells.waker(WORK));
        gauges.set_outstanding(outstanding_of(&paces));
        Channels {
            first: 0,
            closing: None,
            last_messages: Box::pin(tokio::time::sleep(Duration::ZERO)),
            paces,
            headway: Headway::new(),
            held: held_of(&channels),
            channels,
            outbox,
            gauges,
            delivery,
            backlog: Backlog::default(),
            unread: Places::default(),
            busy: Places::default(),
            paced: Places::default(),
            frames: VecDeque::new(),
            sending: false,
            credits: None,
            window_bytes: window_bytes as u64,
            sent: 0,
            received: 0,
            received_cost: 0,
            await_received: None,
            await_drained: false,
            stall_limit,
            stall: Box::pin(tokio::time::sleep(Duration::ZERO)),
            done_when_stalled: 0,
        }
    }

    /// Puts those of a fresh connection in place of these. Nothing was sent; what was received was of a connection that
    /// never was up, and is forgotten.
    pub(crate) fn renew(&mut self, channels: [Channel; 4]) {
        (self.received, self.received_cost) = (0, 0);
        (self.await_received, self.closing) = (None, None);
        self.delivery.forget();
        TransferMode::ALL.into_iter().for_each(|mode| self.gauges.counters(mode).forget_received());
        self.paces = paces_of(&channels);
        self.headway = Headway::new();
        self.held = held_of(&channels);
        self.gauges.set_outstanding(outstanding_of(&self.paces));
        self.channels = channels;
        (self.busy, self.paced) = (Places::default(), Places::default());
        self.frames.clear();
    }

    /// The link's round trip, without what waits in queues.
    pub(crate) fn set_round_trip(&mut self, time: Duration) {
        self.paces.iter_mut().for_each(|(pace, _)| pace.set_round_trip(time));
    }

    /// Says something on the control channel, after what was said before.
    pub(crate) fn say(&mut self, frame: Frame) {
        let is_relay = |frame: &Frame| matches!(frame, Frame::Relay { .. } | Frame::Relayed { .. });
        let is_too_much = match &frame {
            Frame::Echo { .. } => self.frames.len() >= MAX_FRAMES,
            // They are large, and must not hold up what the two have to say to each other.
            frame if is_relay(frame) => {
                self.frames.iter().filter(|frame| is_relay(frame)).count() >= MAX_RELAYS
            }
            _ => false,
        };
        if !is_too_much {
            self.frames.push_back(frame);
        }
    }

    /// Sends packets from now on; with the remote's first credit, if it gives credits, and what its socket holds, if it
    /// knows.
    pub(crate) fn start_sending(&mut self, credit: Option<u64>, socket_bytes: usize) {
        self.sending = true;
        self.paces.iter_mut().for_each(|(pace, _)| pace.set_remote_socket(socket_bytes));
        self.credits = credit.map(|limit| Credits {
            limit,
            sent: 0,
            pause: false,
            granted: self.window_bytes,
            paused: false,
        });
    }

    /// The remote's reader went on.
    pub(crate) fn credit(&mut self, limit: u64, pause: bool) {
        if let Some(credits) = &mut self.credits {
            credits.limit = credits.limit.max(limit);
            credits.pause = pause;
        }
    }

    /// The connection is said to be closed by the remote: reports a [`Happening::Closed`] when what arrived before is
    /// taken.
    pub(crate) fn await_closed(&mut self) {
        self.begin_closing(0);
    }

    fn begin_closing(&mut self, channel: usize) {
        // The control channel's close means nothing with a remote that does not know it; another's does.
        if self.closing.is_none_or(|closing| closing == CONTROL && channel != CONTROL) {
            self.closing = Some(channel);
            self.last_messages.as_mut().reset(Instant::now() + LAST_MESSAGES);
        }
    }

    /// Asks for [`Happening::Received`] when so many reliable packets have arrived.
    pub(crate) fn await_received(&mut self, packets: u64) {
        self.await_received = Some(packets);
    }

    /// Asks for [`Happening::Drained`] when everything that waits was handed to SCTP.
    pub(crate) fn await_drained(&mut self) {
        self.await_drained = true;
    }

    /// What the first hello grants, in bytes of [`cost`].
    pub(crate) fn window_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// Reliable packets handed to SCTP.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Reliable packets received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the remote is a member of this crate that has said hello.
    pub(crate) fn gives_credits(&self) -> bool {
        self.credits.is_some()
    }

    /// Packets that were shed as they were not read, by mode.
    pub(crate) fn shed_receiving(&self) -> [u64; 3] {
        self.delivery.shed_receiving()
    }

    /// A gauge of what SCTP holds of the reliable channel.
    pub(crate) fn reliable(&self) -> Outstanding {
        self.channels[0].outstanding()
    }

    /// Moves what can be moved, until there is something to decide on. `rung` are the bells that have: what has not is
    /// not looked at.
    ///
    /// Cancel-safe: what was moved is moved.
    pub(crate) fn poll(&mut self, rung: Places, bells: &Bells) -> Poll<Happening> {
        let time = &mut bells.context(TIME);
        self.unread = self.unread | rung.first(CHANNELS);
        if rung.has(WORK) {
            self.backlog = self.delivery.backlog(bells.waker(WORK));
            self.grant();
        }
        let sends = rung.has(WORK) || rung.has(TIME);
        for _ in 0..TURNS {
            let to_send = if sends { self.to_send() } else { Places::default() };
            let mut moved = false;
            for turn in 0..ORDER.len() {
                let place = (self.first + turn) % ORDER.len();
                let channel = ORDER[place];
                moved |= to_send.has(channel) && self.send_batch(channel, time);
                if self.unread.has(channel) {
                    let polled = self.poll_batch(channel, &mut bells.context(channel));
                    if let Poll::Ready(Some(happening)) = polled {
                        self.first = (place + 1) % ORDER.len();
                        // What was sent before it counts, too.
                        self.headway.moved();
                        return Poll::Ready(happening);
                    }
                    moved |= polled.is_ready();
                }
            }
            if self.await_received.is_some_and(|packets| self.received >= packets) {
                self.await_received = None;
                return Poll::Ready(Happening::Received);
            }
            if !moved {
                return self.poll_idle(sends, rung.has(TIME), time);
            }
            self.headway.moved();
        }
        if let Poll::Ready(happening) = self.poll_stalled(time) {
            return Poll::Ready(happening);
        }
        if let Poll::Ready(happening) = self.poll_headway(time) {
            return Poll::Ready(happening);
        }
        // There is more.
        bells.ring(Places::only(WORK));
        Poll::Pending
    }

    /// The channels for which there is something to do about sending.
    fn to_send(&self) -> Places {
        let mut to_send = self.busy | self.paced;
        if !self.frames.is_empty() {
            to_send.insert(CONTROL);
        }
        if self.sending {
            let queues = self.outbox.lock();
            for (channel, mode) in MODE_OF.into_iter().enumerate() {
                if queues.waiting(mode) > 0 {
                    to_send.insert(channel);
                }
            }
        }
        to_send
    }

    fn poll_headway(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        let [reliable, ordered, unreliable, control] =
            [0, 1, 2, CONTROL].map(|channel| self.channels[channel].handed_bytes());
        let handed = [control, reliable, ordered + unreliable];
        loop {
            let held = std::task::ready!(self.headway.poll(&self.held, handed, cx));
            if self.channels[CONTROL].tell_held(held) {
                return Poll::Ready(Happening::GivenUp);
            }
        }
    }

    /// Moves a batch of a channel out. Whether anything moved.
    fn send_batch(&mut self, channel: usize, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for _ in 0..BATCH {
            match self.poll_send(channel, cx) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(ChannelClosed)) => {
                    self.begin_closing(channel);
                    break;
                }
                Poll::Pending => break,
            }
        }
        moved
    }

    /// Moves a batch of a channel in. Pending is: there was nothing to move.
    fn poll_batch(&mut self, channel: usize, cx: &mut Context<'_>) -> Poll<Option<Happening>> {
        let mut moved = false;
        for _ in 0..BATCH {
            match self.poll_receive(channel, cx) {
                // The others may hold what arrived before.
                Poll::Ready(Some(Happening::Closed(channel))) if channel != 0 => self.begin_closing(channel),
                Poll::Ready(Some(happening)) => return Poll::Ready(Some(happening)),
                Poll::Ready(None) => moved = true,
                Poll::Pending => break,
            }
        }
        if moved { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Waits until everything that was to be said is handed to SCTP, or never will be.
    pub(crate) fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Poll::Ready(sent) = self.poll_send(CONTROL, cx) {
            if sent.is_err() {
                return Poll::Ready(());
            }
        }
        let said = self.frames.is_empty() && !self.busy.has(CONTROL);
        if said { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends the next message of a channel. Pending is also: there is none.
    fn poll_send(&mut self, channel: usize, cx: &mut Context<'_>) -> Poll<Result<(), ChannelClosed>> {
        if self.busy.has(channel) {
            match self.channels[channel].poll_ready(cx) {
                Poll::Ready(sent) => {
                    self.busy.remove(channel);
                    if sent.is_err() {
                        return Poll::Ready(sent);
                    }
                }
                Poll::Pending => {}
            }
        }
        let ready = !self.busy.has(channel);
        let message = if channel == CONTROL {
            self.frames.front().filter(|_| ready).map(|frame| frame.encode())
        } else {
            if !self.has_packet(MODE_OF[channel]) {
                if self.paced.has(channel) {
                    self.paced.remove(channel);
                    self.paces[channel].0.idle();
                }
                return Poll::Pending;
            }
            self.paced.insert(channel);
            let (pace, gauge) = &mut self.paces[channel];
            std::task::ready!(pace.poll_room(!ready, gauge, cx));
            self.next_packet(MODE_OF[channel])
        };
        let Some(message) = message else { return Poll::Pending };
        let bound = match self.paces.get_mut(channel) {
            Some((pace, _)) => {
                pace.handed(message.len());
                pace.max_bytes()
            }
            None => {
                self.frames.pop_front();
                MAX_HELD_BYTES
            }
        };
        self.channels[channel].send(message, bound);
        // Starts it; whether SCTP has room for it is seen at the next one.
        match self.channels[channel].poll_ready(cx) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => {
                self.busy.insert(channel);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether a packet of this mode waits, and may be sent.
    fn has_packet(&self, mode: TransferMode) -> bool {
        let held = self.credits.is_some_and(|credits| match mode {
            TransferMode::Reliable => credits.sent >= credits.limit,
            _ => credits.pause && !self.await_drained,
        });
        self.sending && !held && self.outbox.lock().waiting(mode) > 0
    }

    fn next_packet(&mut self, mode: TransferMode) -> Option<Bytes> {
        let packet = self.outbox.pop(&mut self.outbox.lock(), mode)?;
        self.gauges.counters(mode).count_sent(packet.len());
        match mode {
            TransferMode::Reliable => {
                self.sent += 1;
                if let Some(credits) = &mut self.credits {
                    credits.sent += cost(packet.len()) as u64;
                }
            }
            TransferMode::UnreliableOrdered => self.paces[0].0.shares(Instant::now()),
            TransferMode::Unreliable => {}
        }
        Some(packet)
    }

    /// Takes the next event of a channel. Ready without a happening is: a packet was delivered.
    fn poll_receive(&mut self, channel: usize, cx: &mut Context<'_>) -> Poll<Option<Happening>> {
        // Who gives no credits is held up by SCTP's own window, at the price of all its channels: the last resort.
        let full = channel == 0
            && self.credits.is_none()
            && self.closing.is_none()
            && self.received_cost.saturating_sub(self.backlog.read) >= self.window_bytes;
        if full {
            return Poll::Pending;
        }
        let Poll::Ready(event) = self.channels[channel].poll_event(cx) else {
            self.unread.remove(channel);
            return Poll::Pending;
        };
        let happening = match event {
            ChannelEvent::Open => Some(Happening::Open(channel)),
            ChannelEvent::Closed => Some(Happening::Closed(channel)),
            ChannelEvent::Message(message) if channel == CONTROL => match Frame::decode(&message) {
                Ok(frame) => frame.map(Happening::Frame),
                Err(error) => Some(Happening::BadFrame(error)),
            },
            ChannelEvent::Message(payload) => {
                let mode = MODE_OF[channel];
                if mode == TransferMode::Reliable {
                    self.received += 1;
                    self.received_cost += cost(payload.len()) as u64;
                    // One packet may go over what was granted.
                    let granted =
                        self.credits.map(|credits| credits.granted + cost(MAX_MESSAGE_BYTES) as u64);
                    if granted.is_some_and(|granted| self.received_cost > granted) {
                        return Poll::Ready(Some(Happening::Overrun));
                    }
                    if self.closing.is_some() {
                        self.last_messages.as_mut().reset(Instant::now() + LAST_MESSAGES);
                    }
                }
                self.gauges.counters(mode).count_received(payload.len());
                self.delivery.deliver(mode, payload);
                None
            }
        };
        Poll::Ready(happening)
    }

    /// Grants credit for what was read, in steps of a quarter of the window.
    fn grant(&mut self) {
        let (Some(credits), backlog) = (&mut self.credits, self.backlog) else { return };
        let credit = backlog.read.saturating_add(self.window_bytes);
        if credit < credits.granted.saturating_add(self.window_bytes / 4)
            && credits.paused == backlog.shedding
        {
            return;
        }
        credits.granted = credits.granted.max(credit);
        credits.paused = backlog.shedding;
        let frame =
            Frame::Credit { credit: credits.granted, received: self.received, pause: backlog.shedding };
        // One that still waits is outdated by this one.
        self.frames.retain(|waiting| !matches!(waiting, Frame::Credit { .. }));
        self.frames.push_back(frame);
    }

    /// Nothing moves: is everything out, or is it stuck? What concerns sending is asked only if it `sends`.
    fn poll_idle(&mut self, sends: bool, is_time: bool, cx: &mut Context<'_>) -> Poll<Happening> {
        if (is_time || self.headway.begins())
            && let Poll::Ready(happening) = self.poll_headway(cx)
        {
            return Poll::Ready(happening);
        }
        if sends && self.is_drained() {
            self.await_drained = false;
            return Poll::Ready(Happening::Drained);
        }
        if let Some(channel) = self.closing {
            std::task::ready!(self.last_messages.as_mut().poll(cx));
            self.closing = None;
            return Poll::Ready(Happening::Closed(channel));
        }
        if sends { self.poll_stalled(cx) } else { Poll::Pending }
    }

    /// Nothing more is sent for now. Whether that is [waited for](Channels::await_drained), and nothing waits.
    fn is_drained(&self) -> bool {
        let mut queues = self.outbox.lock();
        self.outbox.rest(&mut queues);
        // Unreliable packets are not worth waiting for a remote that sheds them.
        let waits = |mode| queues.waiting(mode) > 0 || self.busy.has(CHANNEL_OF[TransferMode::index(mode)]);
        self.await_drained && !TransferMode::ALL.into_iter().any(waits)
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        loop {
            let Some(since) = self.outbox.lock().full_since() else { return Poll::Pending };
            self.stall.as_mut().reset(since + self.stall_limit);
            std::task::ready!(self.stall.as_mut().poll(cx));
            // On a slow link, SCTP may have had enough for all that time.
            let done = self.paces[0].0.done();
            if done == self.done_when_stalled {
                return Poll::Ready(Happening::Stalled);
            }
            self.done_when_stalled = done;
            self.outbox.lock().make_progress();
        }
    }
}

fn held_of(channels: &[Channel; 4]) -> [Outstanding; 4] {
    [CONTROL, 0, 1, 2].map(|channel| channels[channel].outstanding())
}

fn paces_of(channels: &[Channel; 4]) -> [(Pace, Outstanding); 3] {
    // SCTP has a queue for all ordered channels, of which the reliable one is told, and one for the other, which goes first.
    [0, 1, 2].map(|channel| (Pace::new(channel == 0), channels[channel].outstanding()))
}

/// What SCTP holds, by mode.
fn outstanding_of(paces: &[(Pace, Outstanding); 3]) -> [Outstanding; 3] {
    CHANNEL_OF.map(|channel| paces[channel].1.clone())
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels")
            .field("sent", &self.sent)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}
