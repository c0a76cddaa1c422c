//! The processor with its limits, and who started the process.

use super::Check;
use crate::environment::{engine, ignored_signals, n_threads, simd_level, text_of};

/// Number of the signal that schedulers send.
const SIGTERM: u64 = 15;
/// Memory that the main job needs, in bytes.
const NEEDED_BYTES: u64 = 2 << 30;

/// Processor, threads and memory, with the limits of a container.
pub(super) fn processor() -> Vec<Check> {
    vec![simd(), threads(), memory()]
}

fn simd() -> Check {
    match simd_level() {
        "x86-64" => Check::warn(
            "cpu",
            "x86-64 without AVX2: matrix products are several times slower",
            "use a machine with AVX2",
        ),
        level => Check::good("cpu", level),
    }
}

fn threads() -> Check {
    let n_threads = n_threads();
    let found = if n_threads == 1 { "1 thread".to_owned() } else { format!("{n_threads} threads") };
    match text_of("/sys/fs/cgroup/cpu.max").as_deref().and_then(quota) {
        Some(quota) if quota < real(n_threads) - 0.5 => Check::warn(
            "cpu",
            format!("{found}, but a quota of {quota:.1} processors"),
            "raise the container's limit or lower RAYON_NUM_THREADS",
        ),
        _ => Check::good("cpu", found),
    }
}

/// Processors that `cpu.max` allows, `<quota> <period>` in microseconds.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.trim().parse::<f64>().ok()?)
}

#[expect(clippy::cast_precision_loss, reason = "processors are few")]
const fn real(n: usize) -> f64 {
    n as f64
}

fn memory() -> Check {
    let free = text_of("/proc/meminfo").and_then(|text| available(&text));
    let limit = text_of("/sys/fs/cgroup/memory.max").and_then(|text| text.parse::<u64>().ok());
    let Some(bytes) = free.into_iter().chain(limit).min() else {
        return Check::warn("memory", "unknown", "read it with the system's own tools");
    };
    let found = format!("{} MiB available", bytes >> 20);
    if bytes < NEEDED_BYTES {
        Check::warn("memory", found, "the main job needs 2048 MiB")
    } else {
        Check::good("memory", found)
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Scheduler, process number and ignored signals.
pub(super) fn job() -> Vec<Check> {
    let engine = engine();
    let name = engine.get("name").map_or("no scheduler is recognized", String::as_str);
    let mut checks = vec![Check::good("job", name)];
    if std::process::id() == 1 {
        checks.push(Check::good("job", "process 1 of a container: stop signals are handled"));
    }
    if (ignored_signals() >> (SIGTERM - 1)) & 1 == 1 {
        checks.push(Check::warn(
            "job",
            "SIGTERM is ignored: a scheduler cannot ask for a stop",
            "start the program with `exec` and without a trap that ignores it",
        ));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_container_are_read() {
        assert_eq!(quota("150000 100000"), Some(1.5));
        assert_eq!(quota("max 100000"), None);
        assert_eq!(available("MemTotal: 5 kB\nMemAvailable:   2048 kB\n"), Some(2048 * 1024));
    }
}
