//! One client's connection, from its upgrade to its end, and beyond it for as long as its place is kept.
//!
//! `state` decides, `actor` waits and acts.

mod actor;
pub(super) mod state;

pub(super) use actor::{Actor, Client, close_frame, run};
