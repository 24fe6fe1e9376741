//! Real browsers are members of a mesh: Chromium and Firefox, headless, on loopback alone.
//!
//! They are driven by WebDriver BiDi, which `chromedriver` speaks, and Firefox by itself. `apt-get install chromium
//! chromium-driver firefox-esr` gets them. Without them these tests are skipped, or fail with
//! `WEBRTC_MESH_BROWSER=require` in the environment.

#![cfg(unix)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints its figures"
)]

#[path = "../interop/exchange.rs"]
mod exchange;
#[path = "../interop/member.rs"]
mod member;
#[path = "../support/mod.rs"]
mod support;

mod bidi;
mod browsers;
mod example;
mod hostile;
mod site;
mod together;
