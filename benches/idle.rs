//! What a link costs that carries nothing: the mesh beside the bare `webrtc` crate.
//!
//! ```text
//! cargo bench --bench idle                          # about a minute
//! SVG=docs/speed cargo bench --bench idle           # and a plot
//! ```
//!
//! A hub with 50 links, of the mesh, of the mesh with messages of 20 KiB at the most, and of the bare crate, each in a
//! process of its own, so that memory is its own: both ends of each link are in it, and each figure is for one end of one
//! link. What two links and their closing have made of the process is there before it is looked at. Of Linux alone.
//!
//! | column | what it is |
//! |---|---|
//! | `KiB` | resident memory that 50 links have added, 12 s after the last came up |
//! | `CPU µs/s` | CPU time in a second, over 10 s |
//! | `wake-ups /s` | how often a thread went to sleep, in a second; several timers may share a wake-up |
//! | `files`, `sockets` | file descriptors, and those of them that are sockets |

#![allow(clippy::expect_used, reason = "a broken link ends the benchmark")]
#![allow(clippy::print_stdout, reason = "what the measured process says")]

mod support;

use std::process::Command;
use std::time::Duration;

use support::bare::Side;
use support::meshes::{self, Member};
use support::report::{Asked, Table};
use support::{End, Star, machine, star};
use tokio::runtime::Runtime;
use tokio::time::sleep;

const LINKS: usize = 50;
/// Until all that comes with the opening is over: repeats of its datagrams for 2 s, ICE's checks of other pairs for longer.
const SETTLES: Duration = Duration::from_secs(12);
const IDLE: Duration = Duration::from_secs(10);

const MESH: &str = "mesh";
/// With `max_message_bytes`, as the library's buffer is as long.
const SHORT: &str = "mesh, 20 KiB messages";
const SHORT_BYTES: usize = 20 * 1024;
const BARE: &str = "bare";

/// The argument with which this program is the one that is measured.
const MEASURED: &str = "--measured";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, which, links] = &arguments[..]
        && first == MEASURED
    {
        let links = links.parse().expect("a number of links");
        let runtime = Runtime::new().expect("a runtime");
        let figures = match which.as_str() {
            MESH => runtime.block_on(measure::<Member>(links)),
            SHORT => {
                meshes::MAX_MESSAGE_BYTES.get_or_init(|| SHORT_BYTES);
                runtime.block_on(measure::<Member>(links))
            }
            _ => runtime.block_on(measure::<Side>(links)),
        };
        println!("{}", figures.map(|figure| figure.to_string()).join(" "));
        return;
    }
    let asked = Asked::from_args();
    let mut table = Table::new(&["idle end of a link", "KiB", "CPU µs/s", "wake-ups /s", "files", "sockets"]);
    for which in [MESH, SHORT, BARE].into_iter().filter(|_| asked.wants("idle")) {
        let links = asked.times(LINKS).to_string();
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args([MEASURED, which, &links])
            .output()
            .expect("a process");
        let said = String::from_utf8_lossy(&child.stdout);
        let figures: Vec<f64> = said.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        assert_eq!(figures.len(), 5, "{said} {}", String::from_utf8_lossy(&child.stderr));
        table.row(which, figures);
    }
    table.print();
    let panels = [("KiB", 1), ("CPU, µs/s", 2), ("wake-ups /s", 3), ("sockets", 5)];
    let panels = panels.map(|(title, column)| table.panel(title, &[column]));
    table.plot("idle", "One end of an idle link", &[], &panels);
}

/// The columns of the table.
async fn measure<E: End>(links: usize) -> [f64; 5] {
    let warmed: Star<E> = star(2).await;
    warmed.close().await;
    sleep(Duration::from_millis(500)).await;
    let before = [machine::memory(), files().0, files().1];
    let star: Star<E> = star(links).await;
    // One link is only tried.
    let [settles, idle] = [SETTLES, IDLE].map(|time| if links == 1 { time / 100 } else { time });
    sleep(settles).await;
    let after = [machine::memory(), files().0, files().1];
    let (cpu, wakeups) = (machine::cpu(), machine::wakeups());
    sleep(idle).await;
    let seconds = idle.as_secs_f64();
    let cpu = machine::cpu_seconds_since(cpu) / seconds * 1e6;
    let wakeups = difference(machine::wakeups(), wakeups) / seconds;
    let [memory, files, sockets] = [0, 1, 2].map(|at| difference(after[at], before[at]));
    star.close().await;
    [memory, cpu, wakeups, files, sockets].map(|figure| figure / (2 * links) as f64)
}

fn files() -> (Option<u64>, Option<u64>) {
    machine::files().unzip()
}

fn difference(now: Option<u64>, then: Option<u64>) -> f64 {
    now.zip(then).map_or(f64::NAN, |(now, then)| now as f64 - then as f64)
}
