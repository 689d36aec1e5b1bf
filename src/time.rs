//! Three kinds of time, kept apart: the monotonic clock, wall-clock time in NTP format (RFC 3550
//! §4) and media time (RTP timestamps). The clocks are read here and nowhere else, once per
//! wake-up; everything else is told what time it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of the clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic: for time-outs and intervals.
    pub instant: Instant,
    /// Wall clock: for RTCP sender reports only.
    pub ntp: NtpTime,
}

impl Now {
    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn read() -> Now {
        Now { instant: Instant::now(), ntp: NtpTime::from_system(SystemTime::now()) }
    }

    /// The same reading moved on by `elapsed`: virtual clocks of tests, tools and benches.
    pub fn after(self, elapsed: Duration) -> Now {
        Now { instant: self.instant + elapsed, ntp: self.ntp.after(elapsed) }
    }
}

/// NTP timestamp: seconds since 1900 in the upper 32 bits, the fraction in the lower (RFC 5905 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpTime(pub u64);

/// Seconds from 1900-01-01 to 1970-01-01.
const NTP_UNIX_OFFSET: u64 = 2_208_988_800;

impl NtpTime {
    /// Times before 1970 become 1970; NTP eras wrap in 2036 as the format does.
    pub fn from_system(time: SystemTime) -> NtpTime {
        NtpTime::from_unix(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// This time moved on by `elapsed`.
    pub fn after(self, elapsed: Duration) -> NtpTime {
        let fraction = (u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000;
        NtpTime(self.0.wrapping_add((elapsed.as_secs() << 32).wrapping_add(fraction)))
    }

    /// From the time since 1970.
    pub fn from_unix(since_unix: Duration) -> NtpTime {
        NtpTime(NTP_UNIX_OFFSET << 32).after(since_unix)
    }

    /// The time from `earlier` to this, to about a nanosecond; `None` if it is the later one (a clock was set).
    pub fn since(self, earlier: NtpTime) -> Option<Duration> {
        let elapsed = self.0.wrapping_sub(earlier.0);
        let nanos = ((elapsed & 0xFFFF_FFFF) * 1_000_000_000) >> 32;
        (elapsed as i64 >= 0).then(|| Duration::new(elapsed >> 32, nanos as u32))
    }

    /// Seconds since 1970, until 2106.
    pub const fn unix_seconds(self) -> u32 {
        ((self.0 >> 32) as u32).wrapping_sub(NTP_UNIX_OFFSET as u32)
    }

    /// The middle 32 bits, as LSR and RTT arithmetic use them (RFC 3550 §6.4.1).
    pub const fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// An RTP timestamp; arithmetic wraps (RFC 3550 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpTime(pub u32);

impl RtpTime {
    /// This time moved on by `elapsed` at `clock_rate` Hz.
    pub fn after(self, elapsed: Duration, clock_rate: u32) -> RtpTime {
        let ticks = elapsed.as_nanos() * u128::from(clock_rate) / 1_000_000_000;
        RtpTime(self.0.wrapping_add(ticks as u32))
    }

    /// Whether it is less than half a turn before `other`: timestamps wrap (RFC 3550 §5.1).
    pub fn is_before(self, other: RtpTime) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_of_a_known_instant() {
        let noon = UNIX_EPOCH + Duration::new(1_000_000_000, 500_000_000);
        assert_eq!(NtpTime::from_system(noon).0, (3_208_988_800 << 32) | 0x8000_0000);
        assert_eq!(NtpTime::from_system(noon).middle(), (3_208_988_800_u64 << 16) as u32 | 0x8000);
    }

    #[test]
    fn media_time_wraps() {
        assert!(RtpTime(u32::MAX).is_before(RtpTime(5)) && !RtpTime(5).is_before(RtpTime(u32::MAX)));
        assert!(!RtpTime(5).is_before(RtpTime(5)));
    }

    #[test]
    fn the_time_between_two_instants() {
        let earlier = NtpTime::from_unix(Duration::new(1_000_000_000, 999_000_000));
        let later = earlier.after(Duration::from_micros(2_500));
        let since = later.since(earlier).unwrap();
        assert!(since.abs_diff(Duration::from_micros(2_500)) < Duration::from_nanos(3), "{since:?}");
        assert_eq!(earlier.since(later), None);
        assert_eq!(earlier.since(earlier), Some(Duration::ZERO));
    }

    #[test]
    fn rtp_time_wraps() {
        assert_eq!(RtpTime(u32::MAX).after(Duration::from_millis(20), 48_000), RtpTime(959));
    }
}
