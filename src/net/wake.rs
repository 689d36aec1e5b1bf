//! Waking a loop from another thread: an eventfd, written at most once until its reader looked.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
struct Signal {
    eventfd: File,
    /// Set by a waker, cleared by the reader: only the first wake-up of several costs a system call.
    raised: AtomicBool,
}

/// The end that wakes. Cheap to clone, to be used from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Signal>);

/// The end that is woken; one loop owns it. Readable ([`AsRawFd`]) after a wake-up: a ring polls it, or
/// tokio as a [`WakeListener`].
#[derive(Debug)]
pub struct WakeReader(Arc<Signal>);

/// Makes both ends.
///
/// # Errors
/// When the process or the system is out of file descriptors.
pub fn waker() -> io::Result<(Waker, WakeReader)> {
    // SAFETY: takes no pointer; the result is checked below.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let signal = Arc::new(Signal { eventfd: File::from(fd), raised: AtomicBool::new(false) });
    Ok((Waker(Arc::clone(&signal)), WakeReader(signal)))
}

impl Waker {
    /// Wakes the loop, after what it is to find has been put into its queue.
    pub fn wake(&self) {
        // The swap orders the queue before the flag: a reader that lowers a raised flag sees the queue.
        if self.0.raised.swap(true, Ordering::AcqRel) {
            return;
        }
        // Fails only if the counter is full (2^64 wake-ups unread), and then the reader is awake anyway.
        let _ = (&self.0.eventfd).write(&1_u64.to_ne_bytes());
    }
}

impl WakeReader {
    /// Lets the next [`Waker::wake`] through. Before looking into the queues, never after: what is put
    /// there later wakes again. Enough for a reader that polls edges, as the ring does.
    pub fn acknowledge(&self) {
        self.0.raised.swap(false, Ordering::AcqRel);
    }

    /// As [`WakeReader::acknowledge`], and makes the descriptor unreadable again, for readers that look
    /// at levels. Call before looking into the queues.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Would block when nobody wrote, which is as well.
        let _ = (&self.0.eventfd).read(&mut count);
        self.acknowledge();
    }
}

impl AsRawFd for WakeReader {
    fn as_raw_fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }
}

/// The end that is woken, in a task.
#[derive(Debug)]
pub struct WakeListener(AsyncFd<WakeReader>);

impl WakeListener {
    /// Registers with the runtime of the calling thread.
    ///
    /// # Errors
    /// When the runtime cannot poll it.
    ///
    /// # Panics
    /// Outside a runtime with I/O enabled.
    pub fn new(reader: WakeReader) -> io::Result<WakeListener> {
        // SAFETY: the reader owns its descriptor, keeps it open as long as it lives, and lends it to be
        // read only.
        let registered = unsafe { AsyncFd::register_with_interest(reader, Interest::READABLE) };
        Ok(WakeListener(registered?))
    }

    /// Ends with the next wake-up, at once if there was one since the last; afterwards the queues are to be
    /// looked at. May be dropped half-way without losing any.
    ///
    /// # Errors
    /// When the runtime shuts down.
    pub async fn woken(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        self.0.get_ref().clear();
        ready.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(reader: &WakeReader) -> bool {
        let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn readable_from_wake_to_clear() {
        let (waker, reader) = waker().unwrap();
        assert!(!is_readable(&reader));
        waker.wake();
        waker.clone().wake();
        assert!(is_readable(&reader));
        reader.clear();
        assert!(!is_readable(&reader));
        waker.wake();
        assert!(is_readable(&reader));
    }

    #[test]
    fn only_the_first_of_several_wake_ups_writes() {
        let (waker, reader) = waker().unwrap();
        waker.wake();
        waker.wake();
        let mut count = [0; 8];
        (&reader.0.eventfd).read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
