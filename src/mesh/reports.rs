//! Why and how: [`MeshHandle::report`], and the reports of those who have ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::handle::MeshHandle;
use crate::id::PeerId;
use crate::report::ConnectionReport;

/// The last report of each peer that has ended.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<VecDeque<(PeerId, Arc<ConnectionReport>)>>);

/// As many as a mesh has peers by default. A report has some ten KiB at the most, and mostly one.
const MAX_REPORTS: usize = 128;

impl Reports {
    /// Keeps it in the place of an earlier one of the same peer; if there are too many, that of the peer goes whose end
    /// is the longest ago.
    pub(super) fn keep(&self, peer: PeerId, report: Arc<ConnectionReport>) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|(other, _)| *other != peer);
        if reports.len() >= MAX_REPORTS {
            reports.pop_front();
        }
        reports.push_back((peer, report));
    }

    fn of(&self, peer: PeerId) -> Option<Arc<ConnectionReport>> {
        let reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter().find(|(other, _)| *other == peer).map(|(_, report)| report.clone())
    }
}

impl MeshHandle {
    /// How the connection to a peer was made, or why it was not: of a peer that is there, as it is now; of one that has
    /// ended, as it was at its end. It is there before the event that tells of the end, and says more than the reason
    /// in it: of a link that was lost, say, which addresses it went over, and whether the remote's checks still came.
    ///
    /// The last reports of the 128 peers that ended last are kept, also after the mesh is closed. `None` for a peer
    /// that is not among them, or for which no connection was made.
    pub fn report(&self, peer: PeerId) -> Option<ConnectionReport> {
        let live = self.shared.registry().get(&peer).map(|entry| entry.gauges.report());
        live.or_else(|| self.shared.reports.of(peer)).map(Arc::unwrap_or_clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_of_those_who_ended_last_are_kept() {
        let reports = Reports::default();
        let id = |n| PeerId::new(n).unwrap();
        let of_attempt = |attempts| Arc::new(ConnectionReport { attempts, ..ConnectionReport::new() });
        for n in 1..=MAX_REPORTS as u32 {
            reports.keep(id(n), of_attempt(1));
        }
        reports.keep(id(1), of_attempt(2));
        reports.keep(id(1000), of_attempt(1));
        assert_eq!(reports.of(id(1)), Some(of_attempt(2)), "the later of two");
        assert_eq!(reports.of(id(2)), None);
        assert_eq!(reports.of(id(3)), Some(of_attempt(1)));
        assert_eq!(reports.of(id(1000)), Some(of_attempt(1)));
    }
}
