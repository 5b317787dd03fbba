//! Honest quantiles: widths grow where too much came beyond them and shrink where too little did, origin by origin,
//! so that in the long run as much lies under a quantile as should, whatever the series does (adaptive conformal
//! inference, Gibbs & Candès 2021, on the logarithm of the width).

use super::{LEVELS, MEDIAN, Quantiles};
use serde::{Deserialize, Serialize};

/// Logarithms of how much wider each level's distance from the median is than it was said; the shared or own part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Widths {
    logs: [f64; LEVELS.len()],
}

/// How far one origin that lies wholly beyond a level moves the shared part, of few series.
const SHARED_RATE: f64 = 0.05;
/// Of more series than this, a round over all moves the shared part no further than a round over so many would. What
/// happens to all series at once happened once: else a common rise or fall would throw the widths of all over, and the
/// last series of a round would decide for the others.
const TOGETHER: f64 = 5.0;
/// And a series' own.
pub const OWN_RATE: f64 = 0.15;
/// Width that is added where the members see none, per unit of the logarithm, in local scales.
const FLOOR: f64 = 0.1;

/// How far one origin moves the shared part, of so many series.
pub fn shared_rate(series: usize) -> f64 {
    SHARED_RATE * (TOGETHER / series.max(1) as f64).min(1.0)
}

impl Widths {
    /// Widens what was said; afterwards quantiles do not cross.
    pub fn apply(&self, own: &Widths, local: f64, said: &Quantiles) -> Quantiles {
        let middle = said[MEDIAN];
        let mut wide = *said;
        for (l, q) in wide.iter_mut().enumerate().filter(|(l, _)| *l != MEDIAN) {
            let log = self.logs[l] + own.logs[l];
            let side = if l < MEDIAN { -1.0 } else { 1.0 };
            let width = (side * (*q - middle)).max(0.0) * libm::exp(log) + FLOOR * local * log.max(0.0);
            *q = middle + side * width;
        }
        wide.sort_unstable_by(f64::total_cmp);
        wide
    }

    /// What came beside what was said.
    pub fn learn(&mut self, said: &[Quantiles], came: &[f64], known: &[bool], rate: f64) {
        for (l, p) in LEVELS.iter().enumerate().filter(|(l, _)| *l != MEDIAN) {
            let (mut beyond, mut n) = (0.0, 0.0);
            for ((said, came), _) in said.iter().zip(came).zip(known).filter(|(_, known)| **known) {
                let out = if l < MEDIAN { *came < said[l] } else { *came > said[l] };
                beyond += if out { 1.0 } else { 0.0 };
                n += 1.0;
            }
            if n > 0.0 {
                let wanted = if l < MEDIAN { *p } else { 1.0 - p };
                self.logs[l] = (self.logs[l] + rate * (beyond / n - wanted)).clamp(-1.5, 3.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a fall of all series at once is one that is learned from once, not once for each.
    #[test]
    fn what_happens_to_all_at_once_happened_once() {
        let said = [[10.0, 20.0, 30.0, 35.0, 40.0]];
        for (series, most) in [(1, 1.05), (5, 1.3), (200, 1.3), (10_000, 1.3)] {
            let mut widths = Widths::default();
            for _ in 0..series {
                widths.learn(&said, &[0.0], &[true], shared_rate(series));
            }
            let told = widths.apply(&Widths::default(), 0.0, &said[0]);
            let wider = (told[MEDIAN] - told[0]) / 10.0;
            assert!(wider > 1.04 && wider < most, "{series} series: {wider}");
        }
    }
}
