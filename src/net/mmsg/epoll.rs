//! Waiting for several descriptors, to the microsecond where the kernel can.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use crate::net::socket::SOCKET_COUNT_MAX;

/// Descriptors told of at once: the sockets and the waker.
const EVENT_COUNT_MAX: usize = SOCKET_COUNT_MAX + 1;

/// `struct epoll_params` of `linux/eventpoll.h`.
#[repr(C)]
#[derive(Default)]
struct BusyPoll {
    micros: u32,
    /// Packets taken at a time; 0: as the kernel likes.
    budget: u16,
    is_preferred: u8,
    zero: u8,
}

/// `EPIOCSPARAMS` of the same file: `_IOW(0x8A, 0x01, struct epoll_params)`.
const SET_BUSY_POLL: libc::Ioctl = libc::_IOW::<BusyPoll>(0x8A, 0x01);

/// An epoll instance, looking at levels.
pub(super) struct Epoll {
    fd: OwnedFd,
    events: [libc::epoll_event; EVENT_COUNT_MAX],
    /// The kernel has a wait of less than a millisecond (Linux 5.11), and lets us call it.
    has_fine_wait: bool,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Epoll> {
        // SAFETY: takes no pointer; the result is checked below.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = [libc::epoll_event { events: 0, u64: 0 }; EVENT_COUNT_MAX];
        Ok(Epoll { fd, events, has_fine_wait: true })
    }

    /// Looks at `fd` from now on, as `token`.
    pub(super) fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` is alive; the kernel copies it.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Looks at `fd` no longer.
    pub(super) fn remove(&self, fd: RawFd) -> io::Result<()> {
        // SAFETY: this operation takes no event.
        let result =
            unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Every wait looks into the queue of the card that the sockets hear from, for `time` at most (Linux 6.9).
    pub(super) fn set_busy_poll(&self, time: Duration) -> io::Result<()> {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let wanted = BusyPoll { micros, is_preferred: 1, ..BusyPoll::default() };
        // SAFETY: the kernel reads one structure of this kind, and writes nothing.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), SET_BUSY_POLL, &raw const wanted) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The tokens of what is readable, or has an error, within `timeout` (`None`: for ever). None at all when
    /// it passed, or a signal came.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = u64>> {
        let count = match self.wait_fine(timeout) {
            Err(error) if is_without_fine_wait(&error) => {
                self.has_fine_wait = false;
                self.wait_coarse(timeout)
            }
            result => result,
        };
        let count = match count {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            count => count?,
        };
        Ok(self.events[..count].iter().map(|event| event.u64))
    }

    fn wait_fine(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if !self.has_fine_wait {
            return self.wait_coarse(timeout);
        }
        let timeout = timeout.map(timespec);
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (fd, events) = (self.fd.as_raw_fd(), self.events.as_mut_ptr());
        let no_mask = ptr::null::<libc::sigset_t>();
        // By number, since the C library has a function for it only since glibc 2.35.
        let call = libc::SYS_epoll_pwait2;
        // SAFETY: the kernel writes at most as many events as there are, and reads one timespec or none.
        let count = unsafe { libc::syscall(call, fd, events, EVENT_COUNT_MAX, timeout, no_mask, 0_usize) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    fn wait_coarse(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let millis = timeout.map_or(-1, coarse_millis);
        let (fd, events) = (self.fd.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: the kernel writes at most as many events as there are.
        let count = unsafe { libc::epoll_wait(fd, events, EVENT_COUNT_MAX as libc::c_int, millis) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

/// Waits until `fd` is readable: `true`, or the time has passed, or a signal came.
pub(super) fn is_readable_within(fd: RawFd, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let timeout = timespec(timeout);
    // SAFETY: one valid pollfd and a live timespec; no signal mask.
    unsafe { libc::ppoll(&raw mut poll, 1, &raw const timeout, ptr::null()) == 1 }
}

/// An older kernel, or a seccomp filter that was written for one.
fn is_without_fine_wait(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// Rounded up: a wait that ends too early would be made again and again.
fn coarse_millis(timeout: Duration) -> libc::c_int {
    timeout.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(libc::c_int::MAX)
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::wake::waker;
    use crate::time::Now;

    #[test]
    fn a_coarse_wait_is_never_shorter_than_asked_for() {
        let millis = [0, 1, 999, 1_000, 1_001].map(|micros| coarse_millis(Duration::from_micros(micros)));
        assert_eq!(millis, [0, 1, 1, 1, 2]);
        assert_eq!(coarse_millis(Duration::MAX), libc::c_int::MAX);
    }

    #[test]
    fn a_wait_that_looks_first_is_what_the_kernel_was_told() {
        const GET_BUSY_POLL: libc::Ioctl = libc::_IOR::<BusyPoll>(0x8A, 0x02);
        let mut epoll = Epoll::new().unwrap();
        if let Err(error) = epoll.set_busy_poll(Duration::from_micros(70)) {
            eprintln!("skipped: {error}"); // Linux before 6.9.
            return;
        }
        let mut told = BusyPoll::default();
        // SAFETY: the kernel writes one structure of this kind.
        let result = unsafe { libc::ioctl(epoll.fd.as_raw_fd(), GET_BUSY_POLL, &raw mut told) };
        assert_eq!((result, told.micros, told.is_preferred), (0, 70, 1));
        assert_eq!(epoll.wait(Some(Duration::from_millis(1))).unwrap().count(), 0);
    }

    #[test]
    fn both_waits_end_with_their_time_and_with_what_they_wait_for() {
        for has_fine_wait in [true, false] {
            let mut epoll = Epoll::new().unwrap();
            epoll.has_fine_wait = has_fine_wait;
            let (waker, reader) = waker().unwrap();
            let fd = reader.as_raw_fd();
            epoll.add(fd, 7).unwrap();
            let start = Now::read().instant;
            assert_eq!(epoll.wait(Some(Duration::from_millis(5))).unwrap().count(), 0);
            assert!(!is_readable_within(fd, Duration::from_micros(500)));
            assert!(start.elapsed() >= Duration::from_micros(5500));
            waker.wake();
            assert!(epoll.wait(None).unwrap().eq([7]));
            assert!(is_readable_within(fd, Duration::from_secs(20)));
            epoll.remove(fd).unwrap();
            assert_eq!(epoll.wait(Some(Duration::ZERO)).unwrap().count(), 0);
        }
    }
}
