//! For how long a worker lets come what comes, before it looks: the fewer its wake-ups, the less each packet costs.
//!
//! With a tick a packet that finds another waiting cannot leave before it, so until that one is due there is nothing to
//! wake for. And there are lulls: nobody speaks, nobody joins, and still a thousand silent peers ask after it. Each of
//! their ICE checks would be a wake-up of its own, with cold caches, and that is most of what it costs. Nobody minds when
//! the answer is a little late, so in a lull the worker waits for more of them. The first word ends it.

use std::time::{Duration, Instant};

use crate::worker::Worker;

/// Without voice and without orders for this long, it is a lull.
const QUIET: Duration = Duration::from_secs(1);
/// With fewer datagrams in that time there is nothing to save.
const DATAGRAM_COUNT_MIN: u64 = 100;
/// Put off for so long at most, in a lull: for a first word no more than a jitter buffer takes, for an order less than
/// anybody feels.
const LULL: Duration = Duration::from_millis(5);
/// With a tick: how often a worker wakes in it where much comes, which sockets and buffers have to hold meanwhile, or
/// where what comes concerns other workers, whose own tick begins with it.
const WAKES_PER_TICK: u32 = 4;
/// So long after the last that concerned other workers the next one is expected to.
const SHARED: Duration = Duration::from_secs(1);
/// So many datagrams in a wake-up have paid for it.
const BATCH_LEN: u64 = 64;

/// A worker's, told after each wake-up.
pub(super) struct BatchWait {
    asked: Duration,
    lull: Lull,
    before: Seen,
    shared_at: Option<Instant>,
}

impl BatchWait {
    /// `asked`: for a batch, in any case.
    pub(super) fn new(now: Instant, asked: Duration) -> BatchWait {
        BatchWait { asked, lull: Lull::new(now), before: Seen::default(), shared_at: None }
    }

    /// For how long the worker may wait, if nothing is due before, once it has `worked` since it woke at `now`. `tick`:
    /// what packets wait for those they leave with. `is_shared`: something came from other workers or went to them.
    pub(super) fn look(
        &mut self,
        now: Instant,
        worked: Duration,
        tick: Duration,
        seen: Seen,
        is_shared: bool,
    ) -> Duration {
        if is_shared {
            self.shared_at = Some(now);
        }
        let is_shared = self.shared_at.is_some_and(|at| now < at + SHARED);
        let is_pressed = seen.datagrams - self.before.datagrams >= BATCH_LEN;
        self.before = seen;
        let often = tick / WAKES_PER_TICK;
        // What came while it worked has waited already.
        let settled = if is_shared || is_pressed { often } else { tick.saturating_sub(worked).max(often) };
        let calm = if self.lull.look(now, seen) { LULL } else { Duration::ZERO };
        self.asked.max(settled).max(calm)
    }
}

struct Lull {
    /// What was counted when the last word or order came, or a period without them ended.
    since: Seen,
    at: Instant,
    is_on: bool,
}

/// What a worker has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Packets of voices: [`Worker::voice_count`](crate::worker::Worker::voice_count).
    pub(super) voice: u64,
    /// Orders of control.
    pub(super) orders: u64,
    /// Datagrams of all kinds.
    pub(super) datagrams: u64,
}

impl Seen {
    /// By now.
    pub(super) fn of(worker: &Worker, orders: u64) -> Seen {
        Seen { voice: worker.voice_count(), orders, datagrams: worker.counters.datagrams_in }
    }
}

impl Lull {
    fn new(now: Instant) -> Lull {
        Lull { since: Seen::default(), at: now, is_on: false }
    }

    fn look(&mut self, now: Instant, seen: Seen) -> bool {
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
    fn with_a_tick_a_worker_looks_once_in_it_but_where_others_wait_or_much_comes() {
        let tick = Duration::from_millis(20);
        let mut now = Now::read().instant;
        let mut wait = BatchWait::new(now, Duration::from_millis(2));
        let mut seen = Seen::default();
        let mut look = |came, is_shared, later| {
            now += later;
            seen = Seen { voice: seen.voice + came, datagrams: seen.datagrams + came, ..seen };
            wait.look(now, Duration::ZERO, tick, seen, is_shared)
        };
        assert_eq!(look(BATCH_LEN - 1, false, tick), tick);
        assert_eq!(look(BATCH_LEN, false, tick), tick / 4);
        assert_eq!(look(1, false, tick), tick);
        assert_eq!(look(1, true, tick), tick / 4);
        assert_eq!(look(1, false, SHARED - tick), tick / 4);
        assert_eq!(look(1, false, tick), tick);
        assert_eq!(wait.look(now, Duration::ZERO, Duration::ZERO, seen, false), Duration::from_millis(2));
    }

    #[test]
    fn what_came_during_work_has_waited_already() {
        let tick = Duration::from_millis(20);
        let now = Now::read().instant;
        let mut wait = BatchWait::new(now, Duration::ZERO);
        let mut look = |ms| wait.look(now, Duration::from_millis(ms), tick, Seen::default(), false);
        assert_eq!([0, 6, 15, 40].map(&mut look), [20, 14, 5, 5].map(Duration::from_millis));
    }

    #[test]
    fn a_lull_begins_after_a_quiet_second_with_many_checks_and_ends_at_the_first_word() {
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
