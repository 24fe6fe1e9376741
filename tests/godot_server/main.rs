//! The signalling server, over real connections on loopback.

#![cfg(feature = "server")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what goes wrong here fails a test"
)]

mod coming_back;
mod dialogues;
mod limits;
mod program;
mod support;
mod together;
