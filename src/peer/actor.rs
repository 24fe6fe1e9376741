//! The task of one peer: listens, lets its [`State`] decide, acts.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio::task::coop::unconstrained;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::channels::{Bells, CHANNELS, Channels, DRIVER, Delivery, Happening, RARE, TIME, WORK};
use super::control::Frame;
use super::outbox::{Bounds, Outbox};
use super::state::{Effect, Input, State, Tally, hello};
use super::{Exit, Farewell, Gauges, Life, Limits, Peer, Report, Takeover};
use crate::bell::Places;
use crate::connection::{Condition, NotOpened, Outstanding, PeerConnection, Taken};
use crate::metrics::Meter;
use crate::packet::TransferMode;

/// A peer's task, before it runs.
#[derive(Debug)]
pub(crate) struct Task {
    first: Takeover,
    limits: Limits,
    delivery: Arc<dyn Delivery>,
    ears: Ears,
}

/// What the task and its handle share.
#[derive(Debug)]
struct Ears {
    life: Life,
    outbox: Arc<Outbox>,
    gauges: Arc<Gauges>,
    reports: mpsc::Sender<(Life, Report)>,
    leave: watch::Receiver<Option<Farewell>>,
    renew: mpsc::Receiver<Takeover>,
    relay: mpsc::Receiver<Frame>,
    #[cfg(test)]
    panic: Arc<tokio::sync::Notify>,
}

impl Ears {
    async fn report(&self, report: Report) {
        // Nobody listens any more when the mesh is dropped; then this task is about to be.
        let _ = self.reports.send((self.life, report)).await;
    }
}

/// A peer's task, with its channels made; first what each turn looks at.
#[derive(Debug)]
#[repr(C)]
struct Running {
    /// The connection's driver, from when packets may come.
    driver: Option<Taken>,
    /// Ring when there is something to do.
    bells: Bells,
    channels: Channels,
    connection: ClosedOnDrop,
    condition: watch::Receiver<Condition>,
    state: State,
    settling: Settling,
    /// When the round trip is asked for next; `None` until connected.
    pulse: Option<Instant>,
    meter: Meter,
    ears: Ears,
}

/// What happens next.
enum Next {
    Traffic(Happening),
    Rare(Rare),
}

/// What happens beside the traffic.
enum Rare {
    Leave,
    Renew(Takeover),
    Relay(Frame),
    Deadline,
    Condition,
    OutstandingBytes(usize),
    RoundTrip(Option<Duration>),
    Nothing,
}

/// What is to be relayed waits for the peer's task, which takes it at once.
const RELAYS: usize = 32;

/// How often it is looked what has rung before other tasks have their turn: the driver and the channels follow each other, and
/// the driver wakes itself each time.
const TURNS: usize = 8;

/// How often ICE is asked for the round trip, which it measures every second, and the counters are told.
const PULSE: Duration = Duration::from_secs(2);

async fn round_trip(at: Option<Instant>, connection: &PeerConnection) -> Option<Duration> {
    until(at).await;
    connection.ice_round_trip()
}

/// Lets the driver and the channels follow each other, each as far as there is something to do for it.
fn poll_next(
    mut rarely: Pin<&mut impl Future<Output = Rare>>,
    driver: &mut Option<Taken>,
    channels: &mut Channels,
    bells: &mut Bells,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    bells.attend(cx.waker());
    for _ in 0..TURNS {
        let rung = bells.take();
        if rung.has(RARE)
            && let Poll::Ready(rare) = rarely.as_mut().poll(&mut bells.context(RARE))
        {
            // The others still are to be looked at.
            bells.ring(rung);
            return Poll::Ready(Next::Rare(rare));
        }
        if rung.has(DRIVER)
            && let Some(taken) = driver
            && taken.poll(&mut bells.context(DRIVER)).is_ready()
        {
            *driver = None;
        }
        let concerns_channels = !rung.first(CHANNELS).is_empty() || rung.has(WORK) || rung.has(TIME);
        // Without tokio's budget, which the driver may have spent: their timers would never run out. They have bounds of
        // their own.
        if concerns_channels
            && let Poll::Ready(happening) =
                pin!(unconstrained(poll_fn(|_| channels.poll(rung, bells)))).poll(cx)
        {
            return Poll::Ready(Next::Traffic(happening));
        }
        if bells.rest() {
            return Poll::Pending;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// A task that is aborted, or panics, closes its connection all the same.
#[derive(Debug)]
struct ClosedOnDrop(PeerConnection);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// How long the end waits for what is to be said on the control channel to be handed to SCTP.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Closing takes 150 ms at the most; should it ever take longer, it goes on without us.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

impl Task {
    /// A task that will tell `reports` what happens, and its handle.
    pub(crate) fn new(
        life: Life,
        first: Takeover,
        limits: Limits,
        bounds: Bounds,
        delivery: Arc<dyn Delivery>,
        reports: mpsc::Sender<(Life, Report)>,
    ) -> (Task, Peer) {
        let outbox = Arc::new(Outbox::new(bounds));
        let gauges = Arc::new(Gauges::default());
        let (leave, leave_heard) = watch::channel(None);
        let (renew, renewals) = mpsc::channel(1);
        let (relay, to_relay) = mpsc::channel(RELAYS);
        #[cfg(test)]
        let panic = Arc::new(tokio::sync::Notify::new());
        let ears = Ears {
            life,
            outbox: outbox.clone(),
            gauges: gauges.clone(),
            reports,
            leave: leave_heard,
            renew: renewals,
            relay: to_relay,
            #[cfg(test)]
            panic: panic.clone(),
        };
        let peer = Peer {
            outbox,
            gauges,
            leave,
            renew,
            relay,
            #[cfg(test)]
            panic,
        };
        (Task { first, limits, delivery, ears }, peer)
    }

    /// Makes the channels, then runs until the peer is gone and its connection closed.
    ///
    /// A connection whose channels cannot be made is not ours, and stays as it is.
    pub(crate) async fn run(self) -> Exit {
        let Task { first: Takeover { connection, unreliable_lifetime, made }, limits, delivery, ears } = self;
        let channels = match connection.open_channels(unreliable_lifetime).await {
            Ok(channels) => channels,
            Err(error) => {
                let _ = made.send(Err(error));
                return Exit::Silent;
            }
        };
        ears.gauges.begin(&connection);
        let condition = connection.watch();
        let state = State::new(limits, condition.borrow().clone(), Instant::now());
        let (outbox, gauges) = (ears.outbox.clone(), ears.gauges.clone());
        let (bells, window_bytes) = (Bells::new(), limits.window_bytes);
        let channels = Channels::new(channels, outbox, gauges, delivery, window_bytes, limits.stall, &bells);
        let mut running = Running {
            connection: ClosedOnDrop(connection),
            driver: None,
            condition,
            channels,
            bells,
            state,
            settling: Settling::default(),
            pulse: None,
            meter: Meter::default(),
            ears,
        };
        let _ = made.send(Ok(()));
        let mut effects = Vec::new();
        let exit = 'life: loop {
            let input = running.listen().await;
            tracing::trace!(?input);
            running.state.handle(input, running.tally(), Instant::now(), &mut effects);
            for effect in effects.drain(..) {
                if let Some(exit) = running.perform(effect).await {
                    break 'life exit;
                }
            }
        };
        running.end(exit).await
    }
}

impl Running {
    async fn end(mut self, exit: Exit) -> Exit {
        // What follows waits for the driver elsewhere.
        self.driver = None;
        let report = self.ears.gauges.end();
        let exit = match exit {
            Exit::Failed(failure) => Exit::Failed(failure.with(report)),
            exit => exit,
        };
        tracing::debug!(?exit, "over");
        self.ears.outbox.close();
        // An acknowledgement may be among the last words; to a remote that hears them that is a matter of one turn.
        let _ = timeout(LAST_WORDS, poll_fn(|cx| self.channels.poll_said(cx))).await;
        self.tell_meter();
        let _ = timeout(CLOSE_LIMIT, self.connection.0.close()).await;
        exit
    }

    /// Waits for the next thing to happen. Every branch is cancel-safe: losing the race loses nothing.
    async fn listen(&mut self) -> Input {
        #[cfg(test)]
        let asked = panic_when_asked(self.ears.panic.clone());
        #[cfg(not(test))]
        let asked = std::future::pending::<()>();
        tokio::pin!(asked);
        let deadline = self.state.deadline();
        loop {
            // What has just happened may be for them. What happens rarely is polled anew each time.
            self.bells.ring(Places::only(WORK) | Places::only(TIME) | Places::only(RARE));
            let next = {
                // What happens rarely, beside the channels, which wake the task for every packet.
                let mut rarely = pin!(async {
                    tokio::select! {
                        biased;
                        Ok(()) = self.ears.leave.changed() => Rare::Leave,
                        Some(fresh) = self.ears.renew.recv() => Rare::Renew(fresh),
                        Some(frame) = self.ears.relay.recv() => Rare::Relay(frame),
                        () = until(deadline) => Rare::Deadline,
                        Ok(()) = self.condition.changed() => Rare::Condition,
                        bytes = self.settling.measure() => Rare::OutstandingBytes(bytes),
                        round_trip = round_trip(self.pulse, &self.connection.0) => Rare::RoundTrip(round_trip),
                        () = &mut asked => Rare::Nothing,
                    }
                });
                let (driver, channels, bells) = (&mut self.driver, &mut self.channels, &mut self.bells);
                poll_fn(|cx| {
                    let next = poll_next(rarely.as_mut(), driver, channels, bells, cx);
                    if let Some(driver) = driver {
                        driver.send_waiting();
                    }
                    next
                })
                .await
            };
            let rare = match next {
                Next::Traffic(happening) => return Input::Channels(happening),
                Next::Rare(rare) => rare,
            };
            match rare {
                Rare::Leave => {
                    return Input::Leave(self.ears.leave.borrow_and_update().unwrap_or(Farewell::Removed));
                }
                Rare::Renew(fresh) => return self.take_over(fresh).await,
                Rare::Relay(frame) => self.relay(frame),
                Rare::Deadline => return Input::Tick,
                Rare::Condition => {
                    let condition = self.condition.borrow_and_update().clone();
                    self.ears.gauges.restarts.store(condition.restarts, Ordering::Relaxed);
                    return Input::Condition(condition);
                }
                Rare::Nothing => {}
                Rare::OutstandingBytes(bytes) => {
                    if let Some(sent) = self.settling.measured(bytes, self.channels.sent()) {
                        return Input::Settled(sent);
                    }
                }
                Rare::RoundTrip(time) => {
                    self.pulse = Some(Instant::now() + PULSE);
                    self.tell_meter();
                    if let Some(time) = time {
                        self.channels.set_round_trip(time);
                        self.ears.gauges.set_round_trip(time);
                    }
                }
            }
        }
    }

    /// Puts a fresh connection in the place of the one that is being made. Making its channels waits for nobody.
    async fn take_over(&mut self, fresh: Takeover) -> Input {
        let Takeover { connection, unreliable_lifetime, made } = fresh;
        let result = if self.state.is_connecting() {
            connection.open_channels(unreliable_lifetime).await
        } else {
            Err(NotOpened::NotNew)
        };
        match result {
            Ok(channels) => {
                tracing::debug!("a fresh connection");
                self.ears.gauges.begin(&connection);
                self.condition = connection.watch();
                self.condition.mark_changed();
                self.channels.renew(channels);
                self.bells.ring_all();
                self.connection = ClosedOnDrop(connection);
                let _ = made.send(Ok(()));
                Input::Renewed
            }
            Err(error) => {
                let _ = made.send(Err(error));
                Input::Tick
            }
        }
    }

    /// Acts. The reports are the only wait, for a supervisor that waits for nobody.
    async fn perform(&mut self, effect: Effect) -> Option<Exit> {
        tracing::trace!(?effect);
        match effect {
            Effect::Say(frame) => self.channels.say(frame),
            Effect::SayHello => {
                self.connection.0.set_greeting();
                let connection = &self.connection.0;
                let credit = self.channels.window_bytes();
                self.channels.say(hello(credit, connection.is_steady(), connection.socket_bytes()));
            }
            Effect::Credit { limit, pause } => self.channels.credit(limit, pause),
            Effect::Connected { credit, max_message_bytes } => {
                self.connection.0.set_open(self.state.remote_is_steady());
                self.driver = self.connection.0.take_driver();
                self.bells.ring(Places::only(DRIVER));
                self.ears.gauges.set_connected();
                self.channels.start_sending(credit, self.state.remote_socket_bytes());
                self.pulse = Some(Instant::now());
                if credit.is_none() {
                    self.settling.watched = Some(self.channels.reliable());
                }
                self.ears.report(Report::Connected { max_message_bytes }).await;
            }
            Effect::Unstable => {
                self.connection.0.set_silent(true);
                self.ears.report(Report::Unstable).await;
            }
            Effect::Recovered => {
                self.connection.0.set_silent(false);
                self.ears.report(Report::Recovered).await;
            }
            Effect::Relay { to, body } => self.ears.report(Report::Relay { to, body }).await,
            Effect::Relayed { from, body } => self.ears.report(Report::Relayed { from, body }).await,
            Effect::Departed => self.ears.report(Report::Departed).await,
            Effect::Drain => {
                self.ears.outbox.close();
                self.settling.hurry();
                self.channels.await_drained();
            }
            Effect::AwaitClosed => self.channels.await_closed(),
            Effect::AwaitReceived(packets) => self.channels.await_received(packets),
            Effect::End(exit) => return Some(exit),
        }
        None
    }

    /// Only to members of this crate that have said hello: nobody else would know what it is.
    fn relay(&mut self, frame: Frame) {
        if self.channels.gives_credits() {
            self.channels.say(frame);
        }
    }

    /// Nothing of a connection that never was up is told.
    fn tell_meter(&mut self) {
        if self.pulse.is_none() {
            return;
        }
        let channels = &self.channels;
        self.meter.read(&self.ears.gauges, || channels.shed_receiving());
    }

    fn tally(&self) -> Tally {
        let waiting = self.ears.outbox.lock().waiting(TransferMode::Reliable) as u64;
        Tally {
            answers: self.connection.0.answers(),
            sent: self.channels.sent(),
            received: self.channels.received(),
            waiting,
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
async fn panic_when_asked(asked: Arc<tokio::sync::Notify>) {
    asked.notified().await;
    panic!("a test makes this task panic");
}

/// Watches how much a remote without a control channel has acknowledged by its SCTP.
///
/// Nothing outstanding is no proof: so it reads while a lost chunk waits for its timer. Nothing outstanding for
/// longer than that timer is as good as can be had.
#[derive(Debug)]
struct Settling {
    /// The reliable channel, if the remote has no control channel.
    watched: Option<Outstanding>,
    next: Instant,
    every: Duration,
    /// Since when nothing is outstanding, and how many packets were sent then.
    quiet: Option<(Instant, u64)>,
}

/// SCTP's retransmission timer is 1 s at the least (RFC 9260 section 6.3.1).
const SETTLED_AFTER: Duration = Duration::from_millis(1200);
const SETTLING_INTERVAL: Duration = Duration::from_secs(2);
const LEAVING_INTERVAL: Duration = Duration::from_millis(50);

impl Default for Settling {
    fn default() -> Settling {
        Settling { watched: None, next: Instant::now(), every: SETTLING_INTERVAL, quiet: None }
    }
}

impl Settling {
    fn hurry(&mut self) {
        self.every = LEAVING_INTERVAL;
        self.next = Instant::now();
    }

    /// What is outstanding, when it is time to look.
    async fn measure(&self) -> usize {
        match &self.watched {
            Some(channel) => {
                sleep_until(self.next).await;
                channel.bytes().await
            }
            None => std::future::pending().await,
        }
    }

    /// How many reliable packets are acknowledged, if that is known now.
    fn measured(&mut self, outstanding_bytes: usize, sent: u64) -> Option<u64> {
        let now = Instant::now();
        self.next = now + self.every;
        if outstanding_bytes > 0 {
            self.quiet = None;
            return None;
        }
        let (since, acknowledged) = *self.quiet.get_or_insert((now, sent));
        if now - since < SETTLED_AFTER {
            return None;
        }
        self.quiet = Some((now, sent));
        Some(acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_outstanding_is_believed_after_a_retransmission_time() {
        let mut settling = Settling::default();
        assert_eq!(settling.measured(0, 7), None);
        advance(Duration::from_millis(600)).await;
        assert_eq!(settling.measured(1000, 7), None, "a lost chunk was sent again");
        assert_eq!(settling.measured(0, 7), None);
        advance(SETTLED_AFTER).await;
        assert_eq!(settling.measured(0, 9), Some(7), "the 2 that were sent since are not proven");
        advance(SETTLED_AFTER).await;
        assert_eq!(settling.measured(0, 9), Some(9));
    }
}
