//! What this process takes of the machine. Of what a system does not tell, there is `None`.

use std::time::Duration;

/// The CPU time of all threads, since the process began.
#[cfg(unix)]
pub fn cpu() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).ok()
}

#[cfg(not(unix))]
pub fn cpu() -> Option<Duration> {
    None
}

/// The CPU time since then, in seconds; not a number where it is not known.
pub fn cpu_seconds_since(then: Option<Duration>) -> f64 {
    match (cpu(), then) {
        (Some(now), Some(then)) => now.saturating_sub(then).as_secs_f64(),
        _ => f64::NAN,
    }
}

/// Resident memory, in KiB (Linux).
pub fn memory() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// How often a thread has gone to sleep by itself, and so was woken (Linux).
pub fn wakeups() -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let each = tasks.map(|task| {
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        field(&status, "voluntary_ctxt_switches:")
    });
    Some(each.flatten().sum())
}

/// Open file descriptors, and of those, sockets (Linux).
pub fn files() -> Option<(u64, u64)> {
    let mut counts = (0, 0);
    for file in std::fs::read_dir("/proc/self/fd").ok()?.flatten() {
        let Ok(what) = std::fs::read_link(file.path()) else { continue };
        counts.0 += 1;
        counts.1 += u64::from(what.to_string_lossy().starts_with("socket:"));
    }
    Some(counts)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
