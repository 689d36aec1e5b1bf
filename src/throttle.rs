//! Lines of the log that a stranger, the network or a broken disk can repeat without end: the first is written at
//! once, then one every [`INTERVAL`], which says how many it stands for.
//!
//! Each place in the code has a [`Throttle`] of its own, without a lock; `throttled!` makes it. A line about what
//! an operator did himself is not for this: he waits for the answer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two lines of one place.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// What one place has said and left out.
#[derive(Debug)]
pub struct Throttle {
    /// When the next line may come, in milliseconds after the first that anybody asked for.
    closed_until: AtomicU64,
    left_out: AtomicU64,
}

impl Throttle {
    /// Of a place that has said nothing yet.
    #[expect(clippy::new_without_default, reason = "a static needs what is const")]
    pub const fn new() -> Throttle {
        Throttle { closed_until: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// Whether a line is to be written now: with how many were left out since the last.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        let begun = *BEGUN.get_or_init(|| now);
        let now = now.saturating_duration_since(begun).as_millis() as u64;
        let until = self.closed_until.load(Ordering::Relaxed);
        let next = now + INTERVAL.as_millis() as u64;
        // Of several threads that come at once, one writes.
        let is_open = now >= until
            && self.closed_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_open {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// As `tracing::$level!`, throttled; `repeated` says how many lines this one stands for besides itself.
macro_rules! throttled {
    ($level:ident, $($line:tt)+) => {{
        static LINE: $crate::throttle::Throttle = $crate::throttle::Throttle::new();
        if let Some(left_out) = LINE.admit($crate::time::Now::read().instant) {
            let repeated = (left_out > 0).then_some(left_out);
            tracing::$level!(repeated, $($line)+);
        }
    }};
}

pub(crate) use throttled;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    #[test]
    fn the_first_at_once_then_one_in_a_while_with_the_count() {
        let line = Throttle::new();
        let now = Now::read().instant;
        assert_eq!(line.admit(now), Some(0));
        assert!((0..100).all(|_| line.admit(now + INTERVAL / 2).is_none()));
        assert_eq!(line.admit(now + INTERVAL), Some(100));
        assert_eq!(line.admit(now + INTERVAL), None);
        assert_eq!(line.admit(now + 3 * INTERVAL), Some(1));
        assert_eq!(line.admit(now + 9 * INTERVAL), Some(0), "nothing was left out");
    }

    #[test]
    fn places_are_strangers() {
        let now = Now::read().instant;
        assert_eq!([Throttle::new(), Throttle::new()].map(|line| line.admit(now)), [Some(0); 2]);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let line = Throttle::new();
        let now = Now::read().instant;
        let said: u64 = std::thread::scope(|scope| {
            let talk = || (0..1000).filter_map(|_| line.admit(now)).map(|left_out| left_out + 1).sum::<u64>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(talk)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(said + line.admit(now + INTERVAL).unwrap(), 4000);
    }
}
