//! How often values of which size came: plain fields, counted without a lock or an allocation.

/// Counts of values by size: one for each bound, and one for what is beyond the last.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    /// Inclusive, rising.
    bounds: &'static [u64; N],
    counts: [u64; N],
    beyond: u64,
    sum: u64,
}

impl<const N: usize> Histogram<N> {
    /// Without values. `bounds` are inclusive and rise.
    pub const fn new(bounds: &'static [u64; N]) -> Histogram<N> {
        Histogram { bounds, counts: [0; N], beyond: 0, sum: 0 }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_many(&mut self, value: u64, times: u64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        *self.counts.get_mut(index).unwrap_or(&mut self.beyond) += times;
        self.sum = self.sum.saturating_add(value.saturating_mul(times));
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// All values added up.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bound with the values up to it that no bound before has, and at the end `None` with the rest.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().map(|bound| Some(*bound)).chain([None]);
        bounds.zip(self.counts.iter().copied().chain([self.beyond]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[u64; 3] = &[1, 10, 100];

    #[test]
    fn bounds_are_inclusive() {
        let mut histogram = Histogram::new(BOUNDS);
        for value in [0, 1, 2, 10, 11, 100, 101] {
            histogram.record(value);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(Some(1), 2), (Some(10), 2), (Some(100), 2), (None, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (7, 225));
    }

    proptest! {
        #[test]
        fn every_value_is_in_the_first_bucket_that_takes_it(values in prop::collection::vec(0_u64..200, 0..50)) {
            let mut histogram = Histogram::new(BOUNDS);
            values.iter().for_each(|value| histogram.record(*value));
            let mut below = 0;
            for (bound, count) in histogram.buckets() {
                let up_to = values.iter().filter(|value| bound.is_none_or(|bound| **value <= bound)).count() as u64;
                prop_assert_eq!(count, up_to - below);
                below = up_to;
            }
            prop_assert_eq!(histogram.sum(), values.iter().sum::<u64>());
        }
    }
}
