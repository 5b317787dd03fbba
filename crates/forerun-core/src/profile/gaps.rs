//! The time from a user's step to the next, as a histogram over octaves.

use forerun_types::Span;
use serde::{Deserialize, Serialize};

/// Octaves of microseconds: 2^46 us are two years.
const OCTAVES: usize = 47;
/// What everyone's histogram weighs against a service's own, in gaps.
const PRIOR: f64 = 4.0;
/// Counts are halved beyond this, so that old habits fade.
const TOTAL_MAX: u32 = 1 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GapHistogram {
    counts: Vec<u32>,
    total: u32,
}

impl Default for GapHistogram {
    fn default() -> Self {
        Self { counts: vec![0; OCTAVES], total: 0 }
    }
}

impl GapHistogram {
    pub fn add(&mut self, gap: Span) {
        self.counts[octave(gap)] += 1;
        self.total += 1;
        if self.total >= TOTAL_MAX {
            for count in &mut self.counts {
                *count /= 2;
            }
            self.total = self.counts.iter().sum();
        }
    }

    /// The share of gaps that are shorter than `gap`, backed by `all`'s.
    #[must_use]
    pub fn cdf(&self, gap: Span, all: &GapHistogram) -> f64 {
        let prior = all.share(gap);
        (f64::from(self.total) * self.share(gap) + PRIOR * prior) / (f64::from(self.total) + PRIOR)
    }

    fn share(&self, gap: Span) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        let octave = octave(gap);
        let below: u32 = self.counts[..octave].iter().sum();
        let start = if octave == 0 { 0.0 } else { (1u64 << octave) as f64 };
        let width = (1u64 << octave.max(1)) as f64;
        let inside = ((gap.0 as f64 - start) / width).clamp(0.0, 1.0);
        (f64::from(below) + inside * f64::from(self.counts[octave])) / f64::from(self.total)
    }
}

fn octave(gap: Span) -> usize {
    (gap.0.max(1).ilog2() as usize).min(OCTAVES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_share_rises_from_zero_to_one(gaps in proptest::collection::vec(0u64..1 << 45, 1..50), a in 0u64..1 << 45, b in 0u64..1 << 45) {
            let mut histogram = GapHistogram::default();
            for gap in gaps {
                histogram.add(Span(gap));
            }
            let (low, high) = (a.min(b), a.max(b));
            let (l, h) = (histogram.cdf(Span(low), &histogram), histogram.cdf(Span(high), &histogram));
            prop_assert!((0.0..=1.0).contains(&l) && (0.0..=1.0).contains(&h) && l <= h + 1e-12);
            prop_assert!(histogram.cdf(Span(u64::MAX), &histogram) > 0.999);
        }
    }
}
