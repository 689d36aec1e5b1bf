//! Limits that the kernel sets to this process, and what it keeps time by.

use std::io;

/// Raises the soft limit of open files to `wanted`, as far as the hard limit allows; returns what it is then.
///
/// # Errors
/// When the limit can be neither read nor set.
pub fn raise_descriptors(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted.min(limit.rlim_max);
        // SAFETY: as above; the kernel only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// The clock that the kernel uses, as it names it.
///
/// # Errors
/// Where it is not shown.
pub fn clock_source() -> io::Result<String> {
    read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}

/// All clocks that it could use, with blanks between.
///
/// # Errors
/// Where they are not shown.
pub fn clock_sources() -> io::Result<String> {
    read("/sys/devices/system/clocksource/clocksource0/available_clocksource")
}

/// Who may have a ring: 0 everybody, 1 the privileged, 2 nobody; `None` where there is no such switch (before
/// Linux 6.6), or where it is not shown.
pub fn io_uring_disabled() -> Option<u8> {
    read("/proc/sys/kernel/io_uring_disabled").ok()?.parse().ok()
}

fn read(path: &str) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

/// The kernel's version, as `uname -r` has it.
pub(super) fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "of unknown version".into(), |text| text.trim().into())
}
