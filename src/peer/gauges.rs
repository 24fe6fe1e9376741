//! What can be read off a peer from outside, at any time, without its task: [`Gauges`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

use crate::connection::{Observed, PeerConnection};
use crate::event::Stage;
use crate::report::{ConnectionReport, StageTimes};

/// The gauges of one life of a peer.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    round_trip_micros: AtomicU64,
    /// Locked for a moment when an attempt begins or ends, and by who reads; never for a packet.
    history: Mutex<History>,
}

/// How the connection was made.
#[derive(Debug, Default)]
struct History {
    attempts: u32,
    /// Of the attempts before the current one.
    times: StageTimes,
    current: Option<(Observed, Instant)>,
    /// The last attempt that tried any pair, before the current one.
    before: Option<ConnectionReport>,
    connected: Option<Instant>,
    over: Option<Arc<ConnectionReport>>,
}

impl Gauges {
    /// The last round trip on the control channel.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    pub(super) fn set_round_trip(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip_micros.store(micros, Ordering::Relaxed);
    }

    /// An attempt begins with this connection; the one before is over.
    pub(super) fn begin(&self, connection: &PeerConnection) {
        let now = Instant::now();
        let mut history = self.history();
        if let Some((observed, _)) = &history.current {
            let report = observed.report();
            history.times = history.times_at(now);
            if report.pairs.iter().any(|pair| pair.requests_sent > 0) {
                history.before = Some(report);
            }
        }
        history.attempts += 1;
        history.current = Some((connection.observed(), now));
    }

    pub(super) fn set_connected(&self) {
        self.history().connected = Some(Instant::now());
    }

    /// How the connection was made, as far as it is now.
    pub(crate) fn report(&self) -> Arc<ConnectionReport> {
        let history = self.history();
        match &history.over {
            Some(report) => report.clone(),
            None => Arc::new(history.report(Instant::now())),
        }
    }

    /// The last report of this life, which does not change any more.
    pub(crate) fn end(&self) -> Arc<ConnectionReport> {
        let mut history = self.history();
        if let Some(report) = &history.over {
            return report.clone();
        }
        let report = Arc::new(history.report(Instant::now()));
        history.over = Some(report.clone());
        history.current = None;
        report
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const STAGES: [Stage; 4] = [Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels];

impl History {
    fn report(&self, now: Instant) -> ConnectionReport {
        let mut report =
            self.current.as_ref().map_or_else(ConnectionReport::new, |(observed, _)| observed.report());
        if let Some(before) = &self.before
            && !report.pairs.iter().any(|pair| pair.requests_sent > 0)
        {
            report.local.clone_from(&before.local);
            report.remote.clone_from(&before.remote);
            report.pairs.clone_from(&before.pairs);
        }
        report.attempts = self.attempts;
        report.times = self.times_at(now);
        report.connected = self.connected.map(|since| now - since);
        report
    }

    /// A stage lasts until the next that was entered, and the last until the peer was connected.
    fn times_at(&self, now: Instant) -> StageTimes {
        let mut times = self.times;
        let Some((observed, begun)) = &self.current else { return times };
        let mut until = self.connected.unwrap_or(now);
        for stage in STAGES.into_iter().rev() {
            let entered = match stage {
                Stage::Signaling => Some(*begun),
                later => observed.entered(later).map(|entered| entered.max(*begun)),
            };
            if let Some(entered) = entered {
                times.add(stage, until.saturating_duration_since(entered));
                until = until.min(entered);
            }
        }
        times
    }
}
