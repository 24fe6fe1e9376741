//! What can be read off a peer from outside, at any time, without its task: [`Gauges`].
//!
//! A packet costs two relaxed additions to [`Counters`], and no lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

use crate::connection::{Observed, Outstanding, PeerConnection};
use crate::event::Stage;
use crate::metrics;
use crate::packet::TransferMode;
use crate::report::{CandidatePair, ConnectionReport, StageTimes};
use crate::stats::Traffic;

/// The gauges of one life of a peer.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    round_trip_micros: AtomicU64,
    /// By [`TransferMode::index`].
    counters: [Counters; 3],
    /// How many times ICE was restarted.
    pub(crate) restarts: AtomicU32,
    /// What SCTP holds of each mode, by [`TransferMode::index`].
    outstanding: Mutex<Option<[Outstanding; 3]>>,
    /// Locked for a moment when an attempt begins or ends, and by who reads; never for a packet.
    history: Mutex<History>,
}

/// What one mode has carried.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    shed_sending: AtomicU64,
}

/// How the connection was made.
#[derive(Debug, Default)]
struct History {
    attempts: u32,
    /// Of the attempts before the current one.
    times: StageTimes,
    current: Option<(Observed, Instant)>,
    /// The attempt before the current one.
    before: Option<ConnectionReport>,
    connected: Option<Instant>,
    over: Option<Arc<ConnectionReport>>,
}

impl Gauges {
    /// The last round trip of ICE's requests.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    pub(super) fn set_round_trip(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip_micros.store(micros, Ordering::Relaxed);
        metrics::round_trip(time);
    }

    pub(crate) fn counters(&self, mode: TransferMode) -> &Counters {
        &self.counters[mode.index()]
    }

    /// The channels of the current attempt.
    pub(super) fn set_outstanding(&self, by_mode: [Outstanding; 3]) {
        *self.outstanding.lock().unwrap_or_else(PoisonError::into_inner) = Some(by_mode);
    }

    /// What SCTP holds of each mode, in bytes.
    pub(crate) async fn sctp_bytes(&self) -> [u64; 3] {
        let outstanding = self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut bytes = [0; 3];
        for (bytes, channel) in bytes.iter_mut().zip(outstanding.iter().flatten()) {
            *bytes = channel.bytes().await as u64;
        }
        bytes
    }

    /// For how long it has been connected.
    pub(crate) fn connected(&self) -> Option<Duration> {
        self.history().connected.map(|since| since.elapsed())
    }

    /// The pair of addresses that the link goes over.
    pub(crate) fn selected(&self) -> Option<CandidatePair> {
        self.history().current.as_ref().and_then(|(observed, _)| observed.selected())
    }

    /// An attempt begins with this connection; the one before is over.
    pub(super) fn begin(&self, connection: &PeerConnection) {
        let now = Instant::now();
        let mut history = self.history();
        if let Some((observed, _)) = &history.current {
            let report = observed.report();
            history.times = history.times_at(now);
            history.before = Some(report);
        }
        history.attempts += 1;
        metrics::attempt();
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
        *self.outstanding.lock().unwrap_or_else(PoisonError::into_inner) = None;
        report
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    pub(super) fn count_sent(&self, bytes: usize) {
        self.sent_packets.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received_packets.fetch_add(1, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was received came by a connection that never was up.
    pub(super) fn forget_received(&self) {
        self.received_packets.store(0, Ordering::Relaxed);
        self.received_bytes.store(0, Ordering::Relaxed);
    }

    pub(crate) fn count_shed_sending(&self, packets: u64) {
        if packets > 0 {
            self.shed_sending.fetch_add(packets, Ordering::Relaxed);
        }
    }

    pub(crate) fn sent(&self) -> Traffic {
        Traffic {
            packets: self.sent_packets.load(Ordering::Relaxed),
            bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn received(&self) -> Traffic {
        Traffic {
            packets: self.received_packets.load(Ordering::Relaxed),
            bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn shed_sending(&self) -> u64 {
        self.shed_sending.load(Ordering::Relaxed)
    }
}

const STAGES: [Stage; 4] = [Stage::Signaling, Stage::Ice, Stage::Dtls, Stage::Channels];

/// How many checks were sent.
fn checks(report: &ConnectionReport) -> u64 {
    report.pairs.iter().map(|pair| pair.requests_sent).sum()
}

impl History {
    fn report(&self, now: Instant) -> ConnectionReport {
        let mut report =
            self.current.as_ref().map_or_else(ConnectionReport::new, |(observed, _)| observed.report());
        let answered = report.pairs.iter().any(|pair| pair.responses_received > 0);
        // One that has hardly begun when the time is over tells little.
        if let Some(before) = &self.before
            && !answered
            && checks(before) > checks(&report)
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
