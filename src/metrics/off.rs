//! Without the feature `metrics`: nothing.

use std::time::Duration;

use crate::event::{DisconnectReason, PeerFailure};
use crate::peer::Gauges;
use crate::report::ConnectionReport;

pub(crate) fn attempt() {}

pub(crate) fn connected(_: impl FnOnce() -> std::sync::Arc<ConnectionReport>) {}

pub(crate) fn disconnected(_: &DisconnectReason) {}

pub(crate) fn failed(_: &PeerFailure) {}

pub(crate) fn round_trip(_: Duration) {}

#[derive(Debug, Default)]
pub(crate) struct Meter {}

impl Meter {
    pub(crate) fn read(&mut self, _: &Gauges, _: impl FnOnce() -> [u64; 3]) {}
}
