//! Deadlines by name: at most one each, the earliest at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines that are taken in one turn: a network that fails takes thousands with it at one instant, and what follows from
/// each may be told to a whole room.
const DUE_AT_ONCE: usize = 64;

/// Deadlines of things named `K`.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_key: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Timers<K> {
    pub(super) fn new() -> Timers<K> {
        Timers { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets the deadline of `key`, or takes it away.
    pub(super) fn set(&mut self, key: K, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out those that are due, the earliest first and [`DUE_AT_ONCE`] at most. What is set meanwhile, even for now,
    /// waits for the next call: no deadline can keep the caller in a circle.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<K> {
        let mut due = vec![];
        while due.len() < DUE_AT_ONCE
            && let Some(&(at, key)) = self.by_time.first()
            && at <= now
        {
            self.by_time.pop_first();
            self.by_key.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::Now;

    #[test]
    fn one_deadline_each_and_the_earliest_first() {
        let start = Now::read().instant;
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new();
        timers.set('a', Some(at(3)));
        timers.set('b', Some(at(1)));
        timers.set('c', Some(at(2)));
        timers.set('b', Some(at(4)));
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.take_due(at(3)), ['c', 'a']);
        timers.set('b', None);
        assert_eq!((timers.next(), timers.by_key.len()), (None, 0));
    }

    #[test]
    fn what_is_due_at_one_instant_is_taken_in_turns() {
        let start = Now::read().instant;
        let mut timers = Timers::new();
        (0..DUE_AT_ONCE + 1).for_each(|key| timers.set(key, Some(start)));
        assert_eq!(timers.take_due(start), (0..DUE_AT_ONCE).collect::<Vec<_>>());
        assert_eq!(timers.next(), Some(start), "due still");
        assert_eq!(timers.take_due(start), [DUE_AT_ONCE]);
    }
}
