//! A timer that keeps time. The runtime's own counts in whole milliseconds: voices that wait by it leave in a bunch at each
//! of them, and what a server is put under is another load than the one asked for.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use gryt_sfu::time::Now;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One at a time.
pub(crate) struct Alarm {
    timer: AsyncFd<File>,
    at: Option<Instant>,
}

impl Alarm {
    /// Within a runtime.
    pub(crate) fn new() -> io::Result<Alarm> {
        // SAFETY: takes no pointer.
        let fd =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened it, and nobody else has it.
        let timer = unsafe { File::from_raw_fd(fd) };
        // SAFETY: a `File` owns its descriptor, and nothing replaces it.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Alarm { timer, at: None })
    }

    /// Returns at `at`, or soon after. May be dropped before, and asked for another time.
    pub(crate) async fn wait(&mut self, at: Instant) {
        if self.at != Some(at) {
            let left = at.saturating_duration_since(Now::read().instant);
            if left.is_zero() {
                return;
            }
            self.set(left);
            self.at = Some(at);
        }
        while let Ok(mut ready) = self.timer.readable().await {
            // How often it went off; nothing, where it was ready for a time that has been replaced since.
            if let Ok(Ok(_)) = ready.try_io(|timer| timer.get_ref().read(&mut [0; 8])) {
                break;
            }
        }
        self.at = None;
    }

    fn set(&self, left: Duration) {
        let value = libc::timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let once =
            libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the kernel reads `once`, which outlives the call; null asks for nothing back.
        let result = unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const once, std::ptr::null_mut())
        };
        assert_eq!(result, 0, "a timer that is open takes a time in range");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn goes_off_within_a_millisecond_and_can_be_set_anew() {
        let mut alarm = Alarm::new().unwrap();
        let mut late = Vec::new();
        for step in 0..20 {
            let at = Now::read().instant + Duration::from_micros(2_300 + step * 10);
            // Given up for another one.
            let far = at + Duration::from_secs(60);
            assert!(tokio::time::timeout(Duration::from_millis(1), alarm.wait(far)).await.is_err());
            alarm.wait(at).await;
            late.push(Now::read().instant.checked_duration_since(at).expect("not before its time"));
        }
        late.sort_unstable();
        assert!(late[10] < Duration::from_micros(500), "{late:?}");
        alarm.wait(Now::read().instant).await;
    }
}
