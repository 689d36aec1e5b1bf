//! What the kernel says of processes and threads.

use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time and memory of a process, all its threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time so far.
    pub(crate) cpu: Duration,
    pub(crate) resident_kib: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Usage> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no memory of its own")?;
        let resident_kib = line.trim().trim_end_matches(" kB").parse().context("a line on memory")?;
        Ok(Usage { cpu: cpu_time(&format!("/proc/{pid}"))?, resident_kib })
    }
}

/// User and system time so far of a process (`/proc/1`) or a thread (`/proc/1/task/1`).
pub(crate) fn cpu_time(folder: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("{folder}/stat"))?;
    // The second field is the name in parentheses; utime and stime are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(") ").context("a stat line")?;
    let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10)) // USER_HZ is 100 on every Linux.
}

/// Where the kernel tells of the calling thread.
pub(crate) fn this_thread() -> Result<String> {
    let link = std::fs::read_link("/proc/thread-self")?;
    Ok(format!("/proc/{}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_use_memory_and_time() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 500, "{usage:?}");
        let thread = this_thread().unwrap();
        let before = cpu_time(&thread).unwrap();
        let mut sum = 0_u64;
        while cpu_time(&thread).unwrap() < before + Duration::from_millis(50) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(Usage::of(u32::MAX).is_err());
    }
}
