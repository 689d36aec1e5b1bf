//! The ring itself: how it is made, what is asked of the kernel, and the one system call.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Napi, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use crate::net::backend::coalescing;
use crate::net::limits::kernel_release;
use crate::net::slab::Slab;
use crate::net::socket::has_segmentation;
use crate::packet::Coalescing;
use crate::time::Now;

/// Submissions between two system calls, at most.
pub(super) const SUBMISSION_COUNT: u32 = 16;

/// Completions that fit: every receive buffer and the ends of all multishots, at once.
pub(super) const COMPLETION_COUNT: u32 = 4096;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum UringError {
    /// A seccomp profile, `kernel.io_uring_disabled` or a kernel built without.
    #[error("io_uring is not allowed here: {0}")]
    Refused(io::Error),
    /// Linux before 6.1.
    #[error("this kernel's io_uring lacks {0}")]
    TooOld(&'static str),
    /// Out of memory or descriptors.
    #[error("cannot set up io_uring: {0}")]
    Failed(#[from] io::Error),
}

impl UringError {
    fn of_setup(error: io::Error) -> UringError {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EOPNOTSUPP) => UringError::Refused(error),
            Some(libc::EINVAL) => UringError::TooOld("SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1)"),
            _ => UringError::Failed(error),
        }
    }
}

/// What the kernel offers; its `Display` is one line for the start banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// As `uname -r` has it.
    pub kernel: String,
    /// A wait for several completions that ends early with fewer (Linux 6.12).
    pub has_min_wait: bool,
    /// One send of several datagrams (Linux 4.18).
    pub has_segmentation: bool,
    /// Waiting does not count as waiting for a disk (Linux 6.15).
    pub has_no_iowait: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring on Linux {}: deferred task work, multishot receive, buffer ring", self.kernel)?;
        for (has, what) in [
            (self.has_segmentation, "segmentation"),
            (self.has_min_wait, "min_wait"),
            (self.has_no_iowait, "no_iowait"),
        ] {
            write!(f, ", {}{what}", if has { "" } else { "no " })?;
        }
        Ok(())
    }
}

/// Tries whether a worker's ring can be had, and says what it can do.
///
/// # Errors
/// When it cannot; then there is no use in trying with sockets.
pub fn probe() -> Result<Features, UringError> {
    let ring = Ring::new()?;
    let parameters = ring.uring.params();
    let mut probe = io_uring::Probe::new();
    ring.uring.submitter().register_probe(&mut probe)?;
    for (code, name) in [(opcode::RecvMsgMulti::CODE, "RECVMSG"), (opcode::PollAdd::CODE, "POLL_ADD")] {
        if !probe.is_supported(code) {
            return Err(UringError::TooOld(name));
        }
    }
    let entries = Slab::new(4096)?;
    // SAFETY: the page holds the one entry and outlives the registration, which ends on the next line.
    unsafe { ring.register_buffers(&entries, 1) }
        .map_err(|_| UringError::TooOld("buffer rings (Linux 5.19)"))?;
    ring.uring.submitter().unregister_buf_ring(BUFFER_GROUP)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(Features {
        has_segmentation: has_segmentation(socket.as_raw_fd()),
        kernel: kernel_release(),
        has_min_wait: parameters.is_feature_min_timeout(),
        has_no_iowait: parameters.is_feature_no_iowait(),
    })
}

/// The one group of receive buffers.
pub(super) const BUFFER_GROUP: u16 = 0;

/// Why an enter came back, where that is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// Something completed, or was submitted, or a signal came.
    Done,
    /// Nothing happened within the time-out. Not said of an enter that submitted something besides.
    TimedOut,
}

/// How long an enter waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// `None`: for ever.
    pub(super) timeout: Option<Duration>,
    /// How long for `batch_len` completions; before Linux 6.12 it begins with the first.
    pub(super) batch_wait: Duration,
    /// Completions worth waiting for.
    pub(super) batch_len: u32,
}

/// An io_uring, used by the thread that made it alone.
pub(super) struct Ring {
    uring: IoUring,
    has_min_wait: bool,
    enter_flags: EnterFlags,
    /// System calls made.
    pub(super) enters: u64,
}

impl Ring {
    pub(super) fn new() -> Result<Ring, UringError> {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_single_issuer()
            // Task work runs when we ask for completions, not whenever the kernel interrupts us.
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // One submission that is refused must not hold up those behind it.
            .setup_submit_all()
            .setup_cqsize(COMPLETION_COUNT);
        let uring = builder.build(SUBMISSION_COUNT).map_err(UringError::of_setup)?;
        let parameters = uring.params();
        let wanted = [
            (parameters.is_feature_nodrop(), "NODROP (Linux 5.5)"),
            (parameters.is_feature_ext_arg(), "EXT_ARG (Linux 5.11)"),
        ];
        if let Some((_, lacking)) = wanted.iter().find(|(has, _)| !has) {
            return Err(UringError::TooOld(lacking));
        }
        let has_min_wait = parameters.is_feature_min_timeout();
        let mut enter_flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if parameters.is_feature_no_iowait() {
            enter_flags |= EnterFlags::NO_IOWAIT;
        }
        Ok(Ring { uring, has_min_wait, enter_flags, enters: 0 })
    }

    /// Every wait looks into the queues of the cards that the sockets hear from, for `time` at most.
    pub(super) fn register_busy_poll(&self, time: Duration) -> io::Result<()> {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let mut napi = Napi::new().set_busy_poll_timeout(micros).set_prefer_busy_poll(true);
        self.uring.submitter().register_napi(&mut napi)
    }

    pub(super) fn register_files(&self, fds: &[RawFd]) -> io::Result<()> {
        self.uring.submitter().register_files(fds)
    }

    /// Registers `count` (a power of two) entries for receive buffers.
    ///
    /// # Safety
    /// `entries` has room for them and stays until the ring is gone or they are unregistered.
    pub(super) unsafe fn register_buffers(&self, entries: &Slab, count: u16) -> io::Result<()> {
        assert!(usize::from(count) * size_of::<io_uring::types::BufRingEntry>() <= entries.len());
        let address = entries.at(0).as_ptr() as u64;
        let submitter = self.uring.submitter();
        // SAFETY: by the caller's word.
        unsafe { submitter.register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0) }
    }

    /// Queues a submission; `false` when the queue is full.
    ///
    /// # Safety
    /// What `entry` points to stays, unchanged, until the operation has ended.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        let mut queue = self.uring.submission();
        // SAFETY: by the caller's word.
        unsafe { queue.push(entry) }.is_ok()
    }

    /// Deferred task work is waiting for the next [`Ring::collect`].
    pub(super) fn has_task_work(&mut self) -> bool {
        self.uring.submission().taskrun()
    }

    /// The kernel keeps completions back for want of room.
    pub(super) fn holds_back_completions(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    pub(super) fn completions(&mut self) -> impl Iterator<Item = cqueue::Entry> + '_ {
        self.uring.completion()
    }

    /// Submits what is queued and runs what task work there is, without waiting.
    pub(super) fn collect(&mut self) -> io::Result<Entered> {
        self.enter(0, &SubmitArgs::new())
    }

    /// Submits what is queued and waits for a completion. Says when it let others come.
    pub(super) fn wait(&mut self, patience: Patience) -> io::Result<(Entered, Option<Coalescing>)> {
        if patience.timeout.is_some_and(|timeout| timeout.is_zero()) {
            // A time-out of nothing would be a timer and a sleep all the same, some 25 µs.
            return Ok((self.collect()?, None));
        }
        // The kernel would wait for a batch beyond the time-out.
        let batch_wait = patience.batch_wait.min(patience.timeout.unwrap_or(Duration::MAX));
        let timeout = patience.timeout.map(timespec);
        let mut args = SubmitArgs::new();
        if let Some(timeout) = &timeout {
            args = args.timespec(timeout);
        }
        if batch_wait.is_zero() {
            return Ok((self.enter(1, &args)?, None));
        }
        let began = Now::read().instant;
        if self.has_min_wait {
            let micros = u32::try_from(batch_wait.as_micros()).unwrap_or(u32::MAX);
            let entered = self.enter(patience.batch_len, &args.min_wait_usec(micros))?;
            return Ok((entered, Some(Coalescing { from: began, until: began + batch_wait })));
        }
        // Before Linux 6.12: wait for the first, then for the batch or its time.
        let entered = self.enter(1, &args)?;
        let coalescing = match entered {
            Entered::Done => coalescing(batch_wait, patience.timeout, began),
            Entered::TimedOut => None,
        };
        if let Some(coalescing) = &coalescing {
            let batch_wait = timespec(coalescing.duration());
            self.enter(patience.batch_len, &SubmitArgs::new().timespec(&batch_wait))?;
        }
        Ok((entered, coalescing))
    }

    fn enter(&mut self, completion_count: u32, args: &SubmitArgs<'_, '_>) -> io::Result<Entered> {
        self.enters += 1;
        let queued = self.uring.submission().len() as u32;
        let flags = self.enter_flags.bits();
        let submitter = self.uring.submitter();
        // SAFETY: EXT_ARG is among the flags and `args` is what it says the argument is; the entries
        // queued were vouched for when they were pushed.
        outcome(unsafe { submitter.enter(queued, completion_count, flags, Some(args)) })
    }

    /// Submits what is queued, then ends every operation under way, as far as that can be done at once.
    pub(super) fn cancel_all(&mut self) {
        let _ = self.collect();
        // Nothing to cancel is an error too; whether it worked is seen by the completions.
        let _ = self.uring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let _ = self.collect();
    }
}

/// Which results of an enter are no failure of the ring.
fn outcome(result: io::Result<usize>) -> io::Result<Entered> {
    match result {
        Ok(_) => Ok(Entered::Done),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME) => Ok(Entered::TimedOut),
            // A signal; completions to be reaped first; no memory for a request just now.
            Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => Ok(Entered::Done),
            _ => Err(error),
        },
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::new().sec(duration.as_secs()).nsec(duration.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_one_line_or_a_reason() {
        let text = match probe() {
            Ok(features) => features.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(text.contains("io_uring") && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_forbidden_ring_is_told_from_an_old_one() {
        let of = |errno| UringError::of_setup(io::Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::EPERM), UringError::Refused(_)));
        assert!(matches!(of(libc::ENOSYS), UringError::Refused(_)));
        assert!(matches!(of(libc::EINVAL), UringError::TooOld(_)));
        assert!(matches!(of(libc::ENOMEM), UringError::Failed(_)));
    }

    #[test]
    fn an_idle_ring_waits_its_time() {
        let Ok(mut ring) = Ring::new() else { return };
        let patience = Patience {
            timeout: Some(Duration::from_millis(5)),
            batch_wait: Duration::from_micros(500),
            batch_len: 32,
        };
        let entered = ring.wait(patience).unwrap();
        assert_eq!(entered.0, Entered::TimedOut);
        // No time at all is no timer, which would run out.
        let at_once = Patience { timeout: Some(Duration::ZERO), ..patience };
        assert_eq!(ring.wait(at_once).unwrap(), (Entered::Done, None));
    }

    /// As the kernel has it, and as before Linux 6.12.
    #[test]
    fn a_batch_is_not_waited_for_beyond_the_time_out() {
        let Ok(mut ring) = Ring::new() else { return };
        let batch_wait = Duration::from_secs(10);
        let timeout = Duration::from_millis(250); // A busy machine does not take that between two looks at the clock.
        let patience = Patience { timeout: Some(timeout), batch_wait, batch_len: 32 };
        for has_min_wait in [ring.has_min_wait, false] {
            ring.has_min_wait = has_min_wait;
            // SAFETY: points to nothing.
            assert!(unsafe { ring.push(&opcode::Nop::new().build()) });
            let began = Now::read().instant;
            let (_, coalescing) = ring.wait(patience).unwrap();
            assert!(began.elapsed() < batch_wait / 2);
            let coalescing = coalescing.unwrap();
            assert!(coalescing.from >= began && coalescing.duration() <= timeout);
            assert_eq!(ring.completions().count(), 1);
        }
    }
}
