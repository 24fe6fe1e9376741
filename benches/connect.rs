//! How long a link takes to come up: the mesh beside the bare `webrtc` crate.
//!
//! ```text
//! cargo bench --bench connect                       # some fifteen seconds
//! SVG=docs/speed cargo bench --bench connect        # and a plot
//! ```
//!
//! The mesh: from `add_peer` to `PeerConnected` on both sides, the hello of the two included, after which nothing that is
//! sent is lost. The bare crate: from the offer to `OnOpen` of three channels on both sides, with its driver woken every
//! millisecond, as it takes 400 ms by itself; after that it may still lose what the DTLS server sends first. Neither has
//! the making of the connection objects, with their keys and sockets, in it. Signalling is a queue within this process.
//!
//! 41 of each, in turn, on 127.0.0.1; the columns are p50, p90 and the slowest in ms, and the ratio of the p50.

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use std::time::Instant;

use support::bare::Side;
use support::figures::percentile;
use support::meshes::Member;
use support::report::{Asked, Table};
use support::{Star, star};
use tokio::runtime::Runtime;

const PAIRS: usize = 41;

fn main() {
    let asked = Asked::from_args();
    if !asked.wants("connect") {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    let (mut mesh, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..asked.times(PAIRS) {
        runtime.block_on(async {
            let star: Star<Member> = star(1).await;
            mesh.push(took(star.hub.iter().chain(&star.ends).map(|member| member.times)));
            star.close().await;
        });
        runtime.block_on(async {
            let star: Star<Side> = star(1).await;
            bare.push(took(star.hub.iter().chain(&star.ends).map(|side| side.times)));
            star.close().await;
        });
    }
    let mut table = Table::new(&[
        "",
        "mesh p50 ms",
        "bare p50 ms",
        "ratio",
        "mesh p90 ms",
        "bare p90 ms",
        "mesh slowest ms",
        "bare slowest ms",
    ]);
    let [mesh, bare] =
        [&mut mesh, &mut bare].map(|times| [50, 90, 99].map(|percent| percentile(times, percent)));
    let mut figures = vec![mesh[0], bare[0], mesh[0] / bare[0]];
    figures.extend((1..3).flat_map(|at| [mesh[at], bare[at]]));
    table.row("connect", figures);
    table.print();
    let panels = [("p50, ms", [1, 2]), ("p90, ms", [4, 5]), ("slowest of 41, ms", [6, 7])];
    let panels = panels.map(|(title, columns)| table.panel(title, &columns));
    table.plot("connect", "Until both sides are connected, ms", &["mesh", "bare webrtc"], &panels);
}

/// From when the first of the two began until both were connected, in ms.
fn took(times: impl Iterator<Item = (Instant, Instant)> + Clone) -> f64 {
    let began = times.clone().map(|(began, _)| began).min();
    let connected = times.map(|(_, connected)| connected).max();
    match (began, connected) {
        (Some(began), Some(connected)) => (connected - began).as_secs_f64() * 1e3,
        _ => f64::NAN,
    }
}
