//! What in this machine's set-up will hurt, found at the start and said with what to do. Nothing of the advice
//! keeps the server from running: that is for [`Io::choose`], the sockets and the folders.

use std::io;
use std::time::Duration;

use anyhow::Result;

use super::io::Io;
use super::refused::Refused;
use super::{logging, private_folder};
use crate::config::Config;
use crate::net::busy_poll::BusyPollError;
use crate::net::limits;
use crate::net::socket::{BUFFER_LEN_WANTED, BufferLens};
use crate::net::uring::UringError;

/// Descriptors besides those of connections: rings, sockets, queues, the log, captures.
const DESCRIPTORS_BESIDES: u64 = 512;
/// WebSockets for each participant, as one that comes back is not turned away for its own dead connection, and a connection
/// that is none yet.
const DESCRIPTORS_PER_CONNECTION: u64 = 3;

/// The oldest kernel that this server is made for.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The first that waits for a batch in one system call.
const KERNEL_WITH_MIN_WAIT: (u32, u32) = (6, 12);

/// Clocks that are read without a system call.
const FAST_CLOCKS: &[&str] = &["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

/// Raises the limit of descriptors as far as it may, and says what is left to do. `buffers`: the shortest of the
/// media sockets'; `refused`: to the workers.
pub(super) fn advice(
    config: &Config,
    io: &Io,
    buffers: Option<BufferLens>,
    refused: &Refused,
) -> Vec<String> {
    let wanted = config.max_connections as u64 * DESCRIPTORS_PER_CONNECTION + DESCRIPTORS_BESIDES;
    let descriptors = match limits::raise_descriptors(wanted) {
        Ok(limit) => of_descriptors(limit, wanted, config.max_connections),
        Err(error) => Some(format!("cannot read the limit of file descriptors: {error}")),
    };
    // What only those with a ring care for.
    let (kernel, permission) = match io {
        Io::Uring(features) => (
            of_kernel(&features.kernel, !config.batch_wait.is_zero()),
            of_permission(limits::io_uring_disabled()),
        ),
        Io::Mmsg { .. } => (None, None),
    };
    let advice = [
        of_refusal(io),
        descriptors,
        buffers.and_then(of_buffers),
        kernel,
        permission,
        refused.affinity.as_ref().map(of_affinity),
        refused.scheduling.as_ref().map(of_scheduling),
        refused.busy_poll.as_ref().map(|error| of_busy_poll(error, config.busy_poll)),
        of_clock(limits::clock_source(), limits::clock_sources()),
    ];
    advice.into_iter().flatten().collect()
}

/// Looks for the folders and files that the server writes to, without making any.
///
/// # Errors
/// What the start would say of them.
pub fn look_for_files(config: &Config) -> Result<()> {
    config.log_file.as_deref().map(logging::check).transpose()?;
    let folders = [("CAPTURE_DIR", &config.capture_dir), ("KEYLOG_DIR", &config.keylog_dir)];
    let mut given = folders.iter().filter_map(|(variable, folder)| Some((variable, folder.as_deref()?)));
    given.try_for_each(|(variable, folder)| private_folder::check(variable, folder))
}

/// Why there is no ring, with what to do about it, in one line.
pub fn no_ring(error: &UringError) -> String {
    let cure = match error {
        UringError::Refused(_) => cure_of_refusal(limits::io_uring_disabled()),
        UringError::TooOld(_) => "boot a kernel of 6.1 or later",
        UringError::Failed(_) => return error.to_string(),
    };
    format!("{error}; {cure}")
}

/// It runs without a ring, and was not asked to.
fn of_refusal(io: &Io) -> Option<String> {
    let Io::Mmsg { refused: Some(refused), .. } = io else { return None };
    Some(format!(
        "{}. Media passes by recvmmsg and sendmmsg meanwhile; if it is to stay so, IO_BACKEND=mmsg ends this line",
        no_ring(refused)
    ))
}

fn cure_of_refusal(disabled: Option<u8>) -> &'static str {
    match disabled {
        Some(2) => "kernel.io_uring_disabled is 2: sysctl kernel.io_uring_disabled=0",
        Some(1) => {
            "kernel.io_uring_disabled is 1: sysctl kernel.io_uring_disabled=0, or put this user's group into \
             kernel.io_uring_group"
        }
        _ => {
            "a seccomp filter forbids it, or the kernel is built without: in a container give the engine \
             tools/deploy/seccomp.json"
        }
    }
}

fn of_descriptors(limit: u64, wanted: u64, max_connections: usize) -> Option<String> {
    (limit < wanted).then(|| {
        format!(
            "{limit} file descriptors are too few for MAX_CONNECTIONS={max_connections}; raise the hard limit to \
             {wanted} (ulimit -Hn, LimitNOFILE)"
        )
    })
}

/// The kernel limits whoever has no CAP_NET_ADMIN.
fn of_buffers(lens: BufferLens) -> Option<String> {
    let (len, sysctls) = match (lens.receive < BUFFER_LEN_WANTED, lens.send < BUFFER_LEN_WANTED) {
        (false, false) => return None,
        (true, false) => (lens.receive, "net.core.rmem_max"),
        (false, true) => (lens.send, "net.core.wmem_max"),
        (true, true) => (lens.receive.min(lens.send), "net.core.rmem_max and wmem_max"),
    };
    Some(format!("socket buffers are {} KiB; raise {sysctls} to {BUFFER_LEN_WANTED}", len / 1024))
}

/// A distribution may bring what it needs to an older kernel, but then it is not what was tried.
fn of_kernel(release: &str, waits_for_batches: bool) -> Option<String> {
    let version = version(release)?;
    if version < KERNEL_MIN {
        return Some(format!(
            "Linux {release} is older than 6.1, which this server is made for; boot a newer kernel before you rely \
             on it"
        ));
    }
    (version < KERNEL_WITH_MIN_WAIT && waits_for_batches).then(|| {
        format!(
            "Linux {release} takes two system calls a batch with BATCH_WAIT_US; boot 6.12 or later, or leave it at 0"
        )
    })
}

/// The first two numbers of `uname -r`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// It runs, so it was allowed; the next start may be by somebody else.
fn of_permission(disabled: Option<u8>) -> Option<String> {
    disabled.filter(|disabled| *disabled > 0).map(|disabled| {
        format!(
            "kernel.io_uring_disabled is {disabled}: without this one's privileges the server would get no ring; sysctl \
             kernel.io_uring_disabled=0"
        )
    })
}

/// Whoever is moved about wakes late.
fn of_affinity(error: &io::Error) -> String {
    format!("workers cannot stay on their CPUs: {error}; let this process call sched_setaffinity")
}

/// Ordinary threads are what workers are then.
fn of_scheduling(error: &io::Error) -> String {
    format!(
        "WORKER_SCHEDULING=fifo has no effect: {error}; raise the limit of realtime priority to 1 (ulimit -r, LimitRTPRIO) \
         and forbid it nowhere (RestrictRealtime=no), or leave it at nice"
    )
}

/// What an operator asked for and will look for in vain.
fn of_busy_poll(error: &BusyPollError, time: Duration) -> String {
    let micros = time.as_micros();
    match error {
        BusyPollError::Ring(_) | BusyPollError::Epoll(_) => {
            format!("BUSY_POLL_US={micros} has no effect: {error}; boot 6.9 or later, or leave it at 0")
        }
        BusyPollError::Socket(_) => {
            format!("BUSY_POLL_US={micros} has no effect: {error}; grant CAP_NET_ADMIN, or leave it at 0")
        }
        BusyPollError::Preference(_) => format!(
            "BUSY_POLL_US={micros} leaves the card's interrupts as they are: {error}; grant CAP_NET_ADMIN to have fewer"
        ),
    }
}

/// A clock that the kernel must be asked for, instead of the CPU, costs a system call a wake-up.
fn of_clock(source: io::Result<String>, available: io::Result<String>) -> Option<String> {
    let source = source.ok()?; // Not every container shows it.
    if FAST_CLOCKS.contains(&source.as_str()) {
        return None;
    }
    let available = available.unwrap_or_default();
    let better = available.split_whitespace().find(|name| FAST_CLOCKS.contains(name));
    let cure = match better {
        Some(name) => format!("boot with clocksource={name}, which this machine has"),
        None => {
            "the kernel found none that is not: look for tsc in dmesg, or ask whose virtual machine it is"
                .into()
        }
    };
    Some(format!("the clock source is {source}, which is slow to read; {cure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each case with a part of what is said, or nothing.
    fn check<T>(
        cases: impl IntoIterator<Item = (T, Option<&'static str>)>,
        of: impl Fn(T) -> Option<String>,
    ) {
        for (index, (case, part)) in cases.into_iter().enumerate() {
            let said = of(case);
            let is_so = match (&said, part) {
                (Some(said), Some(part)) => said.contains(part) && !said.contains('\n'),
                (said, part) => said.is_none() && part.is_none(),
            };
            assert!(is_so, "case {index}: {said:?}");
        }
    }

    #[test]
    fn descriptors() {
        check(
            [(2256, None), (4000, None), (2255, Some("2256")), (1024, Some("MAX_CONNECTIONS=1000"))],
            |limit| of_descriptors(limit, 2256, 1000),
        );
    }

    #[test]
    fn buffers() {
        let full = BUFFER_LEN_WANTED;
        let cases = [
            ((full, full), None),
            ((2 * full, full), None),
            ((212_992, full), Some("208 KiB; raise net.core.rmem_max to 8388608")),
            ((full, 425_984), Some("416 KiB; raise net.core.wmem_max to")),
            ((212_992, 425_984), Some("208 KiB; raise net.core.rmem_max and wmem_max to")),
        ];
        check(cases, |(receive, send)| of_buffers(BufferLens { receive, send }));
    }

    #[test]
    fn kernels() {
        let batches = [
            ("6.12.0-1-amd64", None),
            ("7.0.0", None),
            ("6.11.10+bpo-cloud-amd64", Some("6.12 or later")),
            ("6.1.0-49-amd64", Some("BATCH_WAIT_US")),
            ("5.14.0-503.el9.x86_64", Some("older than 6.1")),
            ("of unknown version", None),
            ("6", None),
            ("", None),
        ];
        check(batches, |release| of_kernel(release, true));
        let single = [("6.1.0-49-amd64", None), ("6.0.19", Some("older than 6.1")), ("4.19", Some("older"))];
        check(single, |release| of_kernel(release, false));
    }

    #[test]
    fn permission() {
        let cases = [
            (None, None),
            (Some(0), None),
            (Some(1), Some("io_uring_disabled is 1")),
            (Some(2), Some("sysctl kernel.io_uring_disabled=0")),
        ];
        check(cases, of_permission);
    }

    #[test]
    fn affinities() {
        let said = of_affinity(&io::Error::from_raw_os_error(libc::EPERM));
        assert!(said.contains("Operation not permitted") && said.contains("sched_setaffinity"), "{said}");
    }

    #[test]
    fn scheduling() {
        let said = of_scheduling(&io::Error::from_raw_os_error(libc::EPERM));
        assert!(said.contains("Operation not permitted") && said.contains("LimitRTPRIO"), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }

    #[test]
    fn busy_polls() {
        let refused = || io::Error::from_raw_os_error(libc::EPERM);
        for (error, part) in [
            (BusyPollError::Ring(refused()), "has no effect: IORING_REGISTER_NAPI"),
            (BusyPollError::Epoll(refused()), "boot 6.9 or later"),
            (BusyPollError::Socket(refused()), "has no effect: SO_BUSY_POLL"),
            (BusyPollError::Preference(refused()), "grant CAP_NET_ADMIN to have fewer"),
        ] {
            let said = of_busy_poll(&error, Duration::from_micros(50));
            let is_so = said.starts_with("BUSY_POLL_US=50 ") && said.contains(part) && !said.contains('\n');
            assert!(is_so, "{said}");
        }
    }

    #[test]
    fn clocks() {
        let cases = [
            ((Some("tsc"), Some("tsc hpet acpi_pm")), None),
            ((Some("kvm-clock"), None), None),
            ((Some("arch_sys_counter"), None), None),
            ((Some("hpet"), Some("hpet acpi_pm tsc")), Some("boot with clocksource=tsc")),
            ((Some("acpi_pm"), Some("acpi_pm")), Some("look for tsc in dmesg")),
            ((Some("xen"), None), Some("the clock source is xen")),
            ((None, None), None),
        ];
        let read = |text: Option<&str>| text.map(str::to_owned).ok_or(io::ErrorKind::NotFound.into());
        check(cases, |(source, available)| of_clock(read(source), read(available)));
    }

    #[test]
    fn only_a_ring_that_was_refused_is_worth_a_word() {
        let mmsg = |refused| Io::Mmsg { features: crate::net::mmsg::probe(), refused };
        let refused = UringError::Refused(io::Error::from_raw_os_error(libc::EPERM));
        let cases = [(None, None), (Some(refused), Some("io_uring is not allowed here"))];
        check(cases, |refused| of_refusal(&mmsg(refused)));
    }

    #[test]
    fn no_rings() {
        for (disabled, part) in [
            (Some(2), "io_uring_disabled is 2"),
            (Some(1), "io_uring_group"),
            (Some(0), "seccomp"),
            (None, "seccomp"),
        ] {
            assert!(cure_of_refusal(disabled).contains(part));
        }
        let said = no_ring(&UringError::TooOld("buffer rings (Linux 5.19)"));
        assert!(
            said.starts_with("this kernel's io_uring lacks buffer rings") && said.contains("6.1"),
            "{said}"
        );
    }
}
