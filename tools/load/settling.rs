//! The end of a run: what is on its way is waited for, from the server as from whatever it is held against.

use std::time::{Duration, Instant};

/// Members read what came at their own times.
const MIN: Duration = Duration::from_millis(700);
/// Nothing more is on its way when nothing came for so long.
const QUIET: Duration = Duration::from_millis(300);
/// What comes later than this is lost: somebody's queue held more than his CPU could carry in time.
const MAX: Duration = Duration::from_secs(20);

/// From the moment at which nobody speaks any more.
pub(crate) struct Settling {
    began: Instant,
    came_at: Instant,
    arrived: u64,
}

impl Settling {
    /// How often to ask whether it is over.
    pub(crate) const STEP: Duration = Duration::from_millis(50);

    /// `arrived`: packets that have come by now.
    pub(crate) fn new(now: Instant, arrived: u64) -> Settling {
        Settling { began: now, came_at: now, arrived }
    }

    /// Whether no more is to be waited for.
    pub(crate) fn is_over(&mut self, now: Instant, arrived: u64) -> bool {
        if arrived != self.arrived {
            (self.arrived, self.came_at) = (arrived, now);
        }
        let passed = now.saturating_duration_since(self.began);
        passed >= MAX || passed >= MIN && now.saturating_duration_since(self.came_at) >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::now;
    use super::*;

    /// When it is over if one packet comes at each of `times`, in ms.
    fn over_after(mut times: impl Iterator<Item = u64>) -> u64 {
        let began = now();
        let (mut settling, mut arrived, mut next) = (Settling::new(began, 0), 0, times.next());
        let is_over = |ms: &u64| {
            while next.is_some_and(|at| at <= *ms) {
                (arrived, next) = (arrived + 1, times.next());
            }
            settling.is_over(began + Duration::from_millis(*ms), arrived)
        };
        (0..).step_by(50).find(is_over).expect("it ends")
    }

    #[test]
    fn what_still_comes_is_waited_for() {
        assert_eq!(over_after(std::iter::empty()), 700, "until all have read");
        assert_eq!(over_after((0..4_000).step_by(10)), 4_300, "from a queue that is emptied slowly");
        assert_eq!(over_after((0..).step_by(200)), 20_000, "and not for ever");
    }
}
