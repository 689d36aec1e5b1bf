//! Counts of durations in buckets that widen with the value: any number of values in one size.

/// Buckets for each doubling: no bucket is wider than a 32nd of what it holds.
const SUB_BITS: u32 = 5;
const SUB_COUNT: usize = 1 << SUB_BITS;
/// Greater values (2^36 µs are 19 hours) are counted as this.
const VALUE_MAX: u64 = (1 << 36) - 1;
const BUCKET_COUNT: usize = (36 - SUB_BITS as usize + 1) * SUB_COUNT;

/// Microseconds, counted.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; BUCKET_COUNT], count: 0, max: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, micros: u64) {
        let micros = micros.min(VALUE_MAX);
        self.buckets[bucket_of(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Adds what `other` counted, and empties it.
    pub(crate) fn absorb(&mut self, other: &mut Histogram) {
        if other.count == 0 {
            return;
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&mut other.buckets) {
            *mine += std::mem::take(theirs);
        }
        self.count += std::mem::take(&mut other.count);
        self.max = self.max.max(std::mem::take(&mut other.max));
    }

    /// How many were counted.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// The greatest value.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// What was counted, without what was not: the greatest value of a bucket, and how many it has.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, &count)| (last_of(bucket), count)).collect()
    }

    /// The value that so many of a thousand do not exceed: at most a 32nd too great, never too small. `None` of
    /// nothing.
    pub(crate) fn quantile(&self, permille: u64) -> Option<u64> {
        let rank = (self.count * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        Some(last_of(bucket).min(self.max))
    }
}

fn bucket_of(value: u64) -> usize {
    let Some(exponent) = value.checked_ilog2().filter(|&exponent| exponent >= SUB_BITS) else {
        return value as usize;
    };
    let shift = exponent - SUB_BITS;
    // The leading bit is always set: what follows it says which bucket of this doubling.
    (shift as usize + 1) * SUB_COUNT + (value >> shift) as usize % SUB_COUNT
}

/// The greatest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let (doubling, sub) = (bucket / SUB_COUNT, (bucket % SUB_COUNT) as u64);
    match doubling.checked_sub(1) {
        None => sub,
        Some(shift) => ((SUB_COUNT as u64 + sub + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..5_000).chain((12..36).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 7])) {
            let bucket = bucket_of(value);
            assert!(bucket < BUCKET_COUNT);
            assert!(last_of(bucket) >= value, "{value}");
            assert!(bucket == 0 || last_of(bucket - 1) < value, "{value}");
            assert!(last_of(bucket) - value <= value / 32, "{value}");
        }
    }

    #[test]
    fn quantiles_agree_with_a_sorted_list() {
        let mut random = 1_u64;
        let mut values: Vec<u64> = (0..10_000)
            .map(|_| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % (1 << (1 + (random >> 60)))
            })
            .collect();
        let mut histogram = Histogram::default();
        values.iter().for_each(|&value| histogram.record(value));
        values.sort_unstable();
        for permille in [1, 10, 500, 900, 990, 999, 1000] {
            let exact = values[(values.len() * permille).div_ceil(1000) - 1];
            let found = histogram.quantile(permille as u64).unwrap();
            assert!(found >= exact && found - exact <= exact / 32, "{permille}: {found}, not {exact}");
        }
        assert_eq!(histogram.quantile(1000), values.last().copied());
    }

    #[test]
    fn nothing_has_no_quantile_and_too_much_is_the_greatest() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        histogram.record(u64::MAX);
        assert_eq!(histogram.quantile(500), Some(VALUE_MAX));
        assert_eq!(histogram.counts(), [(VALUE_MAX, 1)]);
        let mut sum = Histogram::default();
        sum.record(3);
        sum.absorb(&mut histogram);
        assert_eq!((sum.count, histogram.count, sum.max(), histogram.max()), (2, 0, VALUE_MAX, 0));
        assert_eq!(histogram.quantile(500), None);
    }
}
