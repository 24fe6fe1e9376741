//! The signalling server, over real connections on loopback.
#![cfg(feature = "server")]

mod coming_back;
mod dialogues;
mod limits;
mod program;
mod support;
mod together;
