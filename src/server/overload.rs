//! A worker that has hardly any CPU time left saves some: its packets wait for others, so that more leave in one send.
//!
//! Without that they would wait all the same, in the socket, and sooner or later be lost there. That holds as well where
//! others, or the limit of its control group, leave it less than a CPU: what counts is how long it would have run.

use std::time::{Duration, Instant};

use crate::ids::WorkerId;
use crate::throttle::throttled;

/// A worker that works, or waits for a CPU to do so, for so many percent of the time is overloaded.
const HIGH: u128 = 90;
/// Looks in a row that have to say so: a burst of joins is no overload.
const HIGH_COUNT: u32 = 3;
/// While it saves, nobody knows what it would take otherwise. One that works for fewer percent tries, at first after
/// `STAY_MIN`, and where that was too early after twice as long the next time.
const LOW: u128 = 60;
const STAY_MIN: Duration = Duration::from_secs(10);
const STAY_MAX: Duration = Duration::from_secs(600);

/// A worker's.
pub(super) struct Overload {
    worker: WorkerId,
    tick: Duration,
    overload_tick: Duration,
    looked_at: Instant,
    wanted: Duration,
    /// Looks in a row at a worker that does not save and is overloaded.
    count: u32,
    /// Since when it saves or does not.
    since: Instant,
    is_on: bool,
    stay: Duration,
    lasted: Duration,
}

impl Overload {
    /// Not yet. `tick`: what packets wait for others otherwise; it is never shortened.
    pub(super) fn new(
        worker: WorkerId,
        now: Instant,
        wanted: Duration,
        tick: Duration,
        overload_tick: Duration,
    ) -> Overload {
        Overload {
            worker,
            tick,
            overload_tick: overload_tick.max(tick),
            looked_at: now,
            wanted,
            count: 0,
            since: now,
            is_on: false,
            stay: Duration::ZERO,
            lasted: Duration::ZERO,
        }
    }

    /// What packets are to wait for others from now on. `wanted`: the CPU time of the worker's thread,
    /// and what it waited for a CPU.
    pub(super) fn look(&mut self, now: Instant, wanted: Duration) -> Duration {
        if self.overload_tick == self.tick {
            return self.tick;
        }
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        let worked = wanted.saturating_sub(std::mem::replace(&mut self.wanted, wanted));
        let works = |percent: u128| worked.as_nanos() * 100 >= passed.as_nanos() * percent;
        let stayed = now.saturating_duration_since(self.since);
        if self.is_on {
            self.lasted += passed;
            if stayed >= self.stay && !works(LOW) {
                (self.is_on, self.since) = (false, now);
                throttled!(info, worker = %self.worker, "the worker has CPU time again: packets wait as configured");
            }
        } else {
            self.count = if works(HIGH) { self.count + 1 } else { 0 };
            if self.count >= HIGH_COUNT {
                // After the first time `stay` is what was not enough.
                let is_relapse = stayed < STAY_MIN;
                self.stay = if is_relapse { (self.stay * 2).clamp(STAY_MIN, STAY_MAX) } else { STAY_MIN };
                (self.is_on, self.since, self.count) = (true, now, 0);
                let tick_ms = self.overload_tick.as_millis();
                let worker = self.worker;
                throttled!(warn, %worker, tick_ms, "the worker's CPU is used up: packets wait to leave in fewer sends");
            }
        }
        if self.is_on { self.overload_tick } else { self.tick }
    }

    /// How long it was so, altogether.
    pub(super) fn lasted(&self) -> Duration {
        self.lasted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    const LOOK: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_millis(5);

    /// The ticks, where the worker works for these parts of the time.
    fn ticks(overload: &mut Overload, percents: impl IntoIterator<Item = u32>) -> Vec<Duration> {
        let look = |percent: u32| {
            let (now, wanted) = (overload.looked_at + LOOK, overload.wanted + LOOK / 100 * percent);
            overload.look(now, wanted)
        };
        percents.into_iter().map(look).collect()
    }

    fn overload(tick: Duration, overload_tick: Duration) -> Overload {
        Overload::new(WorkerId(0), Now::read().instant, Duration::from_secs(7), tick, overload_tick)
    }

    /// For how many looks it saves, where it works for `saving` percent then and for `otherwise` before and after.
    fn looks_on(overload: &mut Overload, saving: u32, otherwise: u32) -> u32 {
        let mut count = 0;
        while ticks(overload, [otherwise]) != [LONG] {
            count += 1;
            assert!(count < HIGH_COUNT);
        }
        (1..).find(|_| ticks(overload, [saving]) != [LONG]).unwrap()
    }

    #[test]
    fn begins_after_a_while_without_cpu_time_and_is_tried_again_ever_less_often() {
        let mut overload = overload(Duration::ZERO, LONG);
        assert_eq!(ticks(&mut overload, [100, 95, 80, 100, 91]), [Duration::ZERO; 5]);
        assert_eq!(ticks(&mut overload, [91]), [LONG]);
        let stay = |times: u32| (STAY_MIN * times).as_millis() as u32 / LOOK.as_millis() as u32;
        assert_eq!(ticks(&mut overload, vec![75; stay(3) as usize]).last(), Some(&LONG), "still too much");
        assert_eq!(ticks(&mut overload, [59]), [Duration::ZERO]);
        assert_eq!(overload.lasted(), LOOK * (stay(3) + 1));
        for times in [2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(looks_on(&mut overload, 40, 95), stay(times));
        }
        // It went well for a while: the next time is another story.
        assert_eq!(ticks(&mut overload, vec![50; stay(1) as usize]).last(), Some(&Duration::ZERO));
        assert_eq!(looks_on(&mut overload, 40, 95), stay(1));
    }

    #[test]
    fn never_shortens_a_tick_and_can_be_turned_off() {
        let tick = Duration::from_millis(10);
        assert_eq!(ticks(&mut overload(tick, LONG), [100; 9]), [tick; 9]);
        assert_eq!(ticks(&mut overload(Duration::ZERO, Duration::ZERO), [100; 9]), [Duration::ZERO; 9]);
    }
}
