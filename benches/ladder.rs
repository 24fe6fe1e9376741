//! What to expect of a mesh on networks from a good one to a dreadful one: the tables of `docs/networks.md`.
//!
//! ```text
//! cargo bench --features sim --bench ladder                  # all of it, five to ten minutes
//! cargo bench --features sim --bench ladder -- 2             # two seeds of each network instead of ten
//! cargo bench --features sim --bench ladder -- 4G satellite  # the networks with one of these in their name
//! ```
//!
//! On the simulated network ([`webrtc_mesh::sim`]): ICE, DTLS and SCTP are the real ones, the time is virtual. So the
//! figures do not depend on the machine, nor on how busy it is, nor on optimization. They are not the same to the last
//! digit in each run: keys and certificates are random and their lengths vary by a few bytes, which shifts what comes
//! after them on a wire of limited bandwidth.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it is for")]

#[path = "ladder/networks.rs"]
mod networks;
#[path = "ladder/scenarios.rs"]
mod scenarios;

use std::time::Duration;

use networks::{LADDER, Rung};
use scenarios::{Met, PEERS, TICKS, Talked, meet, talk};
use webrtc_mesh::TransferMode;
use webrtc_mesh::sim;

/// Runs of each scenario on each network.
const SEEDS: u64 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = arguments.iter().find_map(|argument| argument.parse().ok());
    let names = arguments.iter().filter(|name| !name.starts_with('-') && name.parse::<u64>().is_err());
    let names: Vec<&str> = names.map(String::as_str).collect();
    // Without it somebody only tries whether it runs (`cargo test --benches`).
    let is_bench = arguments.iter().any(|argument| argument == "--bench") || asked.is_some();
    let (seeds, rungs) = if is_bench { (asked.unwrap_or(SEEDS), LADDER.len()) } else { (1, 1) };

    let table = |head: &str| {
        vec![format!("| network | {head} |"), "|---".repeat(2 + head.matches('|').count()) + "|"]
    };
    let mut networks = table("one way | lost | upload | queue");
    let mut links =
        table("links up | mesh of 8 full: median | slowest | back after a cut of 4 s: median | slowest");
    let mut packets = table(
        "reliable p50 / p99 | ordered p50 / p99 | unreliable p50 / p99 | unreliable delivered | bulk | bulk, in order",
    );
    let chosen = |rung: &&Rung| names.is_empty() || names.iter().any(|name| rung.name.contains(name));
    for rung in LADDER[..rungs].iter().filter(chosen) {
        eprintln!("{}", rung.name);
        let met: Vec<Met> = (0..seeds).map(|seed| sim::run(seed, |network| meet(rung, network))).collect();
        let talked: Vec<Talked> =
            (0..seeds).map(|seed| sim::run(seed, |network| talk(rung, network))).collect();
        for (seed, talked) in talked.iter().enumerate() {
            if let Some(fault) = &talked.fault {
                eprintln!("{}, seed {seed}: {fault}", rung.name);
            }
        }
        networks.push(rung.row());
        links.push(links_row(rung, met, &talked));
        packets.push(packets_row(rung, &talked));
    }
    // None, if a name was given that is meant for another benchmark.
    for table in [networks, links, packets].into_iter().filter(|table| table.len() > 2) {
        println!("{}\n", table.join("\n"));
    }
}

fn links_row(rung: &Rung, met: Vec<Met>, talked: &[Talked]) -> String {
    let all = met.len() * (PEERS * (PEERS - 1) / 2) as usize;
    let up: usize = met.iter().map(|met| met.links).sum();
    let [full, slowest] = median_and_slowest(met.into_iter().map(|met| met.full).collect());
    let [back, last] = median_and_slowest(talked.iter().map(|talked| talked.back).collect());
    format!("| {} | {up} of {all} | {full} | {slowest} | {back} | {last} |", rung.name)
}

fn packets_row(rung: &Rung, talked: &[Talked]) -> String {
    let latencies = |mode: TransferMode| {
        let mut all: Vec<Duration> =
            talked.iter().flat_map(|talked| &talked.latencies[mode as usize]).copied().collect();
        all.sort_unstable();
        all
    };
    let [unreliable, ordered, reliable] = TransferMode::ALL.map(latencies);
    let sent = TICKS as usize
        * talked.iter().filter(|talked| talked.tried[TransferMode::Unreliable as usize]).count();
    let delivered = 100.0 * unreliable.len() as f64 / sent.max(1) as f64;
    format!(
        "| {} | {} | {} | {} | {delivered:.1} % | {} | {} |",
        rung.name,
        p50_and_p99(&reliable),
        p50_and_p99(&ordered),
        p50_and_p99(&unreliable),
        median_rate(talked.iter().filter_map(|talked| talked.bulk).collect()),
        median_rate(talked.iter().filter_map(|talked| talked.bulk_in_order).collect()),
    )
}

/// Those that never came to it count as slower than all.
fn median_and_slowest(mut times: Vec<Option<Duration>>) -> [String; 2] {
    times.sort_unstable_by_key(|time| time.unwrap_or(Duration::MAX));
    [times.len() / 2, times.len().saturating_sub(1)]
        .map(|at| times.get(at).copied().flatten().map_or("never".to_string(), time))
}

fn p50_and_p99(sorted: &[Duration]) -> String {
    let at =
        |percent: usize| sorted.get(sorted.len() * percent / 100).map_or("–".to_string(), |&at| time(at));
    format!("{} / {}", at(50), at(99))
}

fn time(time: Duration) -> String {
    match time.as_millis() {
        millis @ ..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn median_rate(mut bytes_per_second: Vec<f64>) -> String {
    bytes_per_second.sort_by(f64::total_cmp);
    match bytes_per_second.get(bytes_per_second.len() / 2) {
        None => "–".to_string(),
        Some(rate) if *rate < 1e6 => format!("{:.0} kB/s", rate / 1e3),
        Some(rate) => format!("{:.1} MB/s", rate / 1e6),
    }
}
