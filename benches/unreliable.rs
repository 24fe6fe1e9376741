//! What arrives of a stream of small unreliable packets, and what each costs: the mesh beside the bare `webrtc` crate.
//!
//! ```text
//! cargo bench --bench unreliable                    # all rates, about a minute
//! cargo bench --bench unreliable -- 50,000          # one of them
//! SVG=docs/speed cargo bench --bench unreliable     # and plots
//! ```
//!
//! Packets of 200 bytes, each sent once, by a sender that wakes every millisecond or two and sends what is due, at once,
//! but of a longer pause only 5 ms: so it sends somewhat less than the rate on a machine that is busy. The mesh sheds
//! when a link takes less than it is given; of the bare crate, what `try_send` refuses counts as sent, too.
//!
//! | column | what it is |
//! |---|---|
//! | `sent /s` | what the sender came to |
//! | `delivered %` | how many of those arrived, as they were sent |
//! | `CPU µs` | CPU time of the process for each packet sent: the sender's, the receiver's, and the little that this program does (Unix) |
//!
//! The two run in turn, 2 s each, 5 times, on 127.0.0.1 and in one process; the table has the medians, and the ratio of
//! the CPU times is the median of all pairs.

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::bare::Side;
use support::figures::in_turn;
use support::meshes::Member;
use support::report::{Asked, Table};
use support::{End, Payload, Star, machine, star};
use tokio::runtime::Runtime;
use tokio::time::{MissedTickBehavior, interval, sleep};
use webrtc_mesh::TransferMode;

const RATES: [(&str, u64); 3] = [("10,000 /s", 10_000), ("50,000 /s", 50_000), ("100,000 /s", 100_000)];
const PAIRS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const CATCHES_UP: Duration = Duration::from_millis(5);
/// When nothing has come for so long, nothing will.
const SILENCE: Duration = Duration::from_millis(300);
const MODE: TransferMode = TransferMode::Unreliable;

fn main() {
    let asked = Asked::from_args();
    let runtime = Runtime::new().expect("a runtime");
    let mut table = Table::new(&[
        "unreliable 200 B",
        "mesh sent /s",
        "bare sent /s",
        "mesh delivered %",
        "bare delivered %",
        "mesh CPU µs",
        "bare CPU µs",
        "ratio",
    ]);
    let round = if asked.is_bench { ROUND } else { Duration::from_millis(50) };
    for (name, rate) in RATES.into_iter().filter(|(name, _)| asked.wants(name)) {
        let (mut mesh, mut bare) =
            runtime.block_on(async { (star::<Member>(1).await, star::<Side>(1).await) });
        // Packets of an earlier round that come late are not counted.
        let mut rounds = 0..;
        let mut rounds_of_bare = 0..;
        let pairs = in_turn(
            asked.times(PAIRS),
            || runtime.block_on(stream(rounds.next().unwrap_or(0), rate, round, &mut mesh)),
            || runtime.block_on(stream(rounds_of_bare.next().unwrap_or(0), rate, round, &mut bare)),
        );
        let mut figures: Vec<f64> = (0..3).flat_map(|at| [pairs.mesh[at], pairs.bare[at]]).collect();
        figures.push(pairs.ratio[2]);
        table.row(name, figures);
        runtime.block_on(async { tokio::join!(mesh.close(), bare.close()) });
    }
    table.print();
    let panels = [table.panel("delivered, %", &[3, 4]), table.panel("CPU, µs for each", &[5, 6])];
    table.plot("unreliable", "Unreliable packets of 200 B", &["mesh", "bare webrtc"], &panels);
}

/// What was sent in a second, the share of it that arrived, in per cent, and the CPU time of each, in µs.
async fn stream<E: End>(round: u64, rate: u64, lasts: Duration, star: &mut Star<E>) -> [f64; 3] {
    let payload = Payload::new(200);
    let (Some(hub), Some(mut end)) = (star.hub.first(), star.ends.pop()) else { return [f64::NAN; 3] };
    let arrived = Arc::new(AtomicU64::new(0));
    let stop = tokio_util::sync::CancellationToken::new();
    let receiver = tokio::spawn({
        let (payload, arrived, stop) = (payload.clone(), arrived.clone(), stop.clone());
        async move {
            let receive = async {
                loop {
                    if payload.number(&end.take(MODE).await) >> 32 == round {
                        arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            stop.run_until_cancelled(receive).await;
            end
        }
    });
    let cpu = machine::cpu();
    let sender = tokio::spawn(send(hub.input(), payload, round, rate, lasts));
    let (sent, took) = sender.await.expect("the sender");
    let mut before = u64::MAX;
    loop {
        let now = arrived.load(Ordering::Relaxed);
        if now >= sent || now == before {
            break;
        }
        before = now;
        sleep(SILENCE).await;
    }
    let cpu = machine::cpu_seconds_since(cpu);
    stop.cancel();
    star.ends.push(receiver.await.expect("the receiver"));
    let (sent, arrived) = (sent as f64, arrived.load(Ordering::Relaxed) as f64);
    [sent / took.as_secs_f64(), 100.0 * arrived / sent, cpu / sent * 1e6]
}

/// How many were sent, in what time.
async fn send(
    input: impl support::Input,
    payload: Payload,
    round: u64,
    rate: u64,
    lasts: Duration,
) -> (u64, Duration) {
    let began = Instant::now();
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut due, mut last) = (0, 0.0, began);
    while began.elapsed() < lasts {
        ticks.tick().await;
        let now = Instant::now();
        due += (now - last).min(CATCHES_UP).as_secs_f64() * rate as f64;
        last = now;
        while due >= 1.0 {
            input.offer(MODE, payload.make(round << 32 | sent)).await;
            sent += 1;
            due -= 1.0;
        }
    }
    (sent, began.elapsed())
}
