//! What the kernel says of processes and threads.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gryt_sfu::net::{limits, thread};

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
        Ok(Usage { cpu: process_cpu_time(pid)?, resident_kib })
    }
}

/// By the process's own clock: `/proc` counts in steps of 10 ms, which is much of what a second of one room takes.
fn process_cpu_time(pid: u32) -> Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: a plain value to write to.
    let errno = unsafe { libc::clock_getcpuclockid(pid.try_into()?, &raw mut clock) };
    ensure!(errno == 0, "process {pid}: {}", std::io::Error::from_raw_os_error(errno));
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(failed == 0, "process {pid}: {}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// User and system time so far of a thread (`/proc/1/task/1`), in steps of 10 ms.
pub(crate) fn cpu_time(folder: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("{folder}/stat"))?;
    // The second field is the name in parentheses; utime and stime are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(") ").context("a stat line")?;
    let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10)) // USER_HZ is 100 on every Linux.
}

/// Puts the calling thread before others where that is allowed, and nobody has chosen another priority for us (`nice`);
/// before all that are not realtime where that is asked for.
pub(crate) fn come_first(is_realtime: bool) -> Result<()> {
    if is_realtime {
        return thread::run_first()
            .context("--realtime needs CAP_SYS_NICE, or a limit of realtime priority (ulimit -r) of 1");
    }
    // SAFETY: takes no pointer. 0 is the calling thread.
    if unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } == 0 {
        let _ = thread::raise_priority();
    }
    Ok(())
}

/// Sees to enough descriptors: each member has two sockets at most, and a speaker a timer.
pub(crate) fn raise_descriptors(members: u64) -> Result<()> {
    const OTHERS: u64 = 64;
    let wanted = 3 * members + OTHERS;
    let limit = limits::raise_descriptors(wanted).context("the limit of open files")?;
    // Some of so many are no speakers: perhaps it is enough.
    if limit < wanted {
        eprintln!(
            "sfu-load: {members} members may need {wanted} open files, and {limit} are allowed (ulimit -Hn)"
        );
    }
    Ok(())
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
    fn a_thread_comes_first_unless_under_nice() {
        let niceness_after = |before| {
            let body = move || {
                // SAFETY: takes no pointer. 0 is the calling thread.
                let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, before) };
                assert_eq!(failed, 0, "anybody may be nicer");
                come_first(false).unwrap();
                // SAFETY: as above.
                unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
            };
            std::thread::spawn(body).join().unwrap()
        };
        let may = std::thread::spawn(|| thread::raise_priority().is_ok()).join().unwrap();
        assert_eq!(niceness_after(0) < 0, may);
        assert_eq!(niceness_after(5), 5);
    }

    #[test]
    fn we_use_memory_and_time() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 500, "{usage:?}");
        // Finer than the steps in which `/proc` counts.
        assert_ne!(usage.cpu.subsec_nanos() % 10_000_000, 0, "{usage:?}");
        let thread = this_thread().unwrap();
        let before = cpu_time(&thread).unwrap();
        let mut sum = 0_u64;
        while cpu_time(&thread).unwrap() < before + Duration::from_millis(50) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(Usage::of(u32::MAX).is_err());
    }
}
