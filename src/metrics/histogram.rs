//! Durations, sorted by powers of two.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Durations of less than 1 µs, 2 µs, 4 µs, … 2^22 µs (4 s), and longer ones.
const BUCKETS: usize = 24;

/// Counts of durations, from short to long.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Histogram(pub Vec<Bucket>);

/// Observations below this bound that are not below that of the bucket before.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Bucket {
    /// A power of two; none in the last bucket.
    pub below_microseconds: Option<u64>,
    pub count: u64,
    /// The sum of this bucket's observations.
    pub total_nanoseconds: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let bucket = |index| Bucket {
            below_microseconds: (index + 1 < BUCKETS).then(|| 1_u64 << index),
            ..Bucket::default()
        };
        Self((0..BUCKETS).map(bucket).collect())
    }
}

impl Histogram {
    pub(crate) fn count(&mut self, took: Duration) {
        // Bucket n begins at 2^(n-1) µs, the first one at zero.
        let bits = u64::BITS - micros(took).leading_zeros();
        let bucket = &mut self.0[(bits as usize).min(BUCKETS - 1)];
        bucket.count += 1;
        // 64 bits hold 584 years.
        bucket.total_nanoseconds += took.as_nanos() as u64;
    }
}

/// Whole microseconds; 584,000 years fit.
pub(crate) const fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sorted_by_powers_of_two() {
        let mut histogram = Histogram::default();
        for nanos in [0, 999, 1_000, 1_999, 2_000, 4_000, 60_000_000_000] {
            histogram.count(Duration::from_nanos(nanos));
        }
        assert_eq!(histogram.0.len(), BUCKETS);
        let full: Vec<_> = histogram
            .0
            .iter()
            .filter(|bucket| bucket.count > 0)
            .map(|bucket| {
                let Bucket {
                    below_microseconds,
                    count,
                    total_nanoseconds,
                } = *bucket;
                (below_microseconds, count, total_nanoseconds)
            })
            .collect();
        let expected = [
            (Some(1), 2, 999),
            (Some(2), 2, 2_999),
            (Some(4), 1, 2_000),
            (Some(8), 1, 4_000),
            (None, 1, 60_000_000_000),
        ];
        assert_eq!(full, expected);
    }
}
