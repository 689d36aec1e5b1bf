//! When a worker need not hurry: nobody speaks, nobody joins, and still a thousand silent peers ask after it.
//!
//! Each of their ICE checks would be a wake-up of its own, with cold caches, and that is most of what it costs. Nobody
//! minds when the answer is a little late, so in a lull the worker waits for more of them. The first word ends it.

use std::time::{Duration, Instant};

/// Without voice and without orders for this long, it is a lull.
const QUIET: Duration = Duration::from_secs(1);
/// With fewer datagrams in that time there is nothing to save.
const DATAGRAM_COUNT_MIN: u64 = 100;
/// Put off for so long at most, in a lull: for a first word no more than a jitter buffer takes, for an order less than
/// anybody feels.
pub(super) const WAIT: Duration = Duration::from_millis(5);

/// A worker's, told after each wake-up.
pub(super) struct Lull {
    /// What was counted when the last word or order came, or a period without them ended.
    since: Seen,
    at: Instant,
    is_on: bool,
}

/// What a worker has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// RTP packets that verified.
    pub(super) voice: u64,
    /// Orders of control.
    pub(super) orders: u64,
    /// Datagrams of all kinds.
    pub(super) datagrams: u64,
}

impl Lull {
    /// Not yet.
    pub(super) fn new(now: Instant) -> Lull {
        Lull { since: Seen::default(), at: now, is_on: false }
    }

    /// Whether it is one now.
    pub(super) fn look(&mut self, now: Instant, seen: Seen) -> bool {
        if (seen.voice, seen.orders) != (self.since.voice, self.since.orders) {
            *self = Lull { since: seen, at: now, is_on: false };
        } else if now >= self.at + QUIET {
            let is_on = seen.datagrams - self.since.datagrams >= DATAGRAM_COUNT_MIN;
            *self = Lull { since: seen, at: now, is_on };
        }
        self.is_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    #[test]
    fn begins_after_a_quiet_second_with_many_checks_and_ends_at_the_first_word() {
        let mut now = Now::read().instant;
        let mut lull = Lull::new(now);
        let mut seen = Seen { voice: 7, orders: 3, datagrams: 50 };
        let mut pass = |seen: &mut Seen, checks: u64| {
            now += QUIET / 2;
            seen.datagrams += checks;
            lull.look(now, *seen)
        };
        assert_eq!([60, 60, 60, 60].map(|checks| pass(&mut seen, checks)), [false, false, true, true]);
        seen.voice += 1;
        assert_eq!([60, 60, 60].map(|checks| pass(&mut seen, checks)), [false, false, true]);
        seen.orders += 1;
        assert!(!pass(&mut seen, 60));
        assert!([40; 8].iter().all(|checks| !pass(&mut seen, *checks)), "too few to be worth it");
        assert_eq!([60, 60].map(|checks| pass(&mut seen, checks)), [false, true]);
    }
}
