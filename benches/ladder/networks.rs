//! The networks, from good to bad.

/// A network, as it is between any two peers.
pub(crate) struct Rung {
    pub(crate) name: &'static str,
    /// One way, from peer to peer, and how much more at the most; each datagram by itself, so they overtake one another.
    pub(crate) latency_ms: f64,
    pub(crate) jitter_ms: f64,
    /// The share that is lost, in bursts of so many on average; 1 is each by itself.
    pub(crate) loss: f64,
    pub(crate) burst: f64,
    /// What a peer can send to all the others together, and how long a datagram waits for it at the most.
    pub(crate) upload_kbit: u64,
    pub(crate) queue_ms: u64,
}

/// The order of magnitude that is usual for such links, as anyone may see it with `ping` and a speed test. Nothing here
/// was measured for this table, and yours will differ.
///
/// * A wire loses next to nothing, unless it is full. Its latency is the distance (5 ms for 1,000 km of fibre, and half
///   as much again for detours), and some 5 to 10 ms at each end with cable or DSL.
/// * Radio repeats by itself what was lost (Wi-Fi, 4G, 3G), so most of its loss becomes jitter. What remains comes in
///   bursts: somebody walks by, a neighbour's television loads, another cell or satellite takes over.
/// * The queue before a slow wire is often long (bufferbloat), on a phone up to seconds.
/// * A satellite at 36,000 km is 240 ms away, up and down, and its network adds the rest. Those at 550 km are as near as a
///   town, but every few minutes another one takes over.
/// * The last two are on no map: what a network is like that is overloaded, or at the edge of its reach.
#[rustfmt::skip]
pub(crate) const LADDER: [Rung; 13] = [
    rung("LAN",              0.2,   0.2,   0.0,    1.0,  1_000_000, 5),
    rung("good Wi-Fi",       2.0,   3.0,   0.001,  1.0,  100_000,   50),
    rung("cable, DSL",       15.0,  3.0,   0.0005, 1.0,  10_000,    200),
    rung("good 4G",          30.0,  15.0,  0.001,  1.0,  20_000,    200),
    rung("LEO satellite",    30.0,  15.0,  0.01,   10.0, 15_000,    100),
    rung("busy Wi-Fi",       5.0,   25.0,  0.02,   5.0,  20_000,    100),
    rung("intercontinental", 120.0, 5.0,   0.005,  1.0,  20_000,    100),
    rung("3G",               80.0,  40.0,  0.01,   1.0,  1_000,     1_000),
    rung("poor 4G",          60.0,  60.0,  0.03,   4.0,  2_000,     500),
    rung("GEO satellite",    300.0, 20.0,  0.005,  1.0,  3_000,     500),
    rung("EDGE",             250.0, 100.0, 0.01,   1.0,  100,       2_000),
    rung("congested",        40.0,  30.0,  0.05,   1.0,  5_000,     200),
    rung("very bad",         60.0,  40.0,  0.2,    1.0,  2_000,     500),
];

const fn rung(
    name: &'static str,
    latency_ms: f64,
    jitter_ms: f64,
    loss: f64,
    burst: f64,
    upload_kbit: u64,
    queue_ms: u64,
) -> Rung {
    Rung { name, latency_ms, jitter_ms, loss, burst, upload_kbit, queue_ms }
}

impl Rung {
    /// As a row of the table of networks.
    pub(crate) fn row(&self) -> String {
        let Rung { name, latency_ms, jitter_ms, queue_ms, .. } = self;
        let burst = if self.burst > 1.0 { format!(" in bursts of {}", self.burst) } else { String::new() };
        let loss = self.loss * 100.0;
        let upload = match self.upload_kbit {
            kbit @ ..1_000 => format!("{kbit} kbit/s"),
            kbit => format!("{} Mbit/s", kbit / 1_000),
        };
        format!("| {name} | {latency_ms} + 0–{jitter_ms} ms | {loss} %{burst} | {upload} | {queue_ms} ms |")
    }
}
