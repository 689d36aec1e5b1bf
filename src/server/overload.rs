//! A worker that has hardly any CPU time left saves some: its packets wait for others, so that more leave in one send.
//!
//! Without that they would wait all the same, in the socket, and sooner or later be lost there.

use std::time::{Duration, Instant};

use crate::throttle::throttled;

/// A worker that works for so many percent of the time is overloaded; one that works for fewer than `LOW` is so no longer.
/// Between them lies more than the longest trains save, or it would go to and fro.
const HIGH: u128 = 90;
const LOW: u128 = 25;
/// Looks in a row that have to say so: a burst of joins is no overload, a moment's silence no relief.
const HIGH_COUNT: u32 = 3;
const LOW_COUNT: u32 = 10;

/// A worker's.
pub(super) struct Overload {
    tick: Duration,
    overload_tick: Duration,
    looked_at: Instant,
    cpu: Duration,
    is_on: bool,
    /// Looks in a row that said the opposite.
    count: u32,
    lasted: Duration,
}

impl Overload {
    /// Not yet. `tick`: what packets wait for others otherwise; it is never shortened.
    pub(super) fn new(now: Instant, cpu: Duration, tick: Duration, overload_tick: Duration) -> Overload {
        let overload_tick = overload_tick.max(tick);
        Overload { tick, overload_tick, looked_at: now, cpu, is_on: false, count: 0, lasted: Duration::ZERO }
    }

    /// What packets are to wait for others from now on. `cpu`: the CPU time of the worker's thread.
    pub(super) fn look(&mut self, now: Instant, cpu: Duration) -> Duration {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        let worked = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        let (worked, passed_ns) = (worked.as_nanos() * 100, passed.as_nanos());
        if self.is_on {
            self.lasted += passed;
        }
        let (is_opposite, count) = if self.is_on {
            (worked < passed_ns * LOW, LOW_COUNT)
        } else {
            (worked > passed_ns * HIGH, HIGH_COUNT)
        };
        self.count = if is_opposite { self.count + 1 } else { 0 };
        if self.count >= count && self.overload_tick > self.tick {
            (self.is_on, self.count) = (!self.is_on, 0);
            self.say();
        }
        if self.is_on { self.overload_tick } else { self.tick }
    }

    /// How long it was so, altogether.
    pub(super) fn lasted(&self) -> Duration {
        self.lasted
    }

    fn say(&self) {
        if self.is_on {
            let tick_ms = self.overload_tick.as_millis();
            throttled!(
                warn,
                tick_ms,
                "a worker's CPU is nearly used up: packets wait up to a tick to leave in fewer sends"
            );
        } else {
            throttled!(info, "the worker has CPU time again: packets leave at once");
        }
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
            let (now, cpu) = (overload.looked_at + LOOK, overload.cpu + LOOK / 100 * percent);
            overload.look(now, cpu)
        };
        percents.into_iter().map(look).collect()
    }

    fn overload(tick: Duration, overload_tick: Duration) -> Overload {
        Overload::new(Now::read().instant, Duration::from_secs(7), tick, overload_tick)
    }

    #[test]
    fn begins_after_a_while_without_cpu_time_and_ends_after_a_longer_one_with_plenty() {
        let mut overload = overload(Duration::ZERO, LONG);
        assert_eq!(ticks(&mut overload, [100, 95, 80, 100, 91]), [Duration::ZERO; 5]);
        assert_eq!(ticks(&mut overload, [91, 60, 26]), [LONG; 3], "what it saves does not end it");
        assert_eq!(ticks(&mut overload, [10; 9]), [LONG; 9]);
        assert_eq!(ticks(&mut overload, [26]), [LONG]);
        assert_eq!(ticks(&mut overload, [24; 10])[8..], [LONG, Duration::ZERO]);
        assert_eq!(overload.lasted(), LOOK * 22);
    }

    #[test]
    fn never_shortens_a_tick_and_can_be_turned_off() {
        let tick = Duration::from_millis(10);
        assert_eq!(ticks(&mut overload(tick, LONG), [100; 9]), [tick; 9]);
        assert_eq!(ticks(&mut overload(Duration::ZERO, Duration::ZERO), [100; 9]), [Duration::ZERO; 9]);
    }
}
