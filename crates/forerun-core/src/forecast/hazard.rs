//! How likely an idle level is to be needed, by how long it has been idle.
//!
//! A *level* is the j-th instance that a service needs at once: level j is in use while at least j are needed. Its
//! idle gaps are a renewal process; the hazard of a gap's age (Cox & Oakes, *Analysis of Survival Data*, 1984,
//! ch. 2) comes from the level's own gaps, backed by those of all services of the same grain, themselves begun at
//! 1/(2 + age in grains). Gaps that still run count as at risk for every age that they have passed.

use super::grid::AgeGrid;
use super::parts::{Falls, Within};
use forerun_types::Span;
use serde::{Deserialize, Serialize};

/// What the pooled hazard weighs against a level's own gaps, in gaps. Small, because a service's own rhythm is the
/// best witness as soon as it has shown one.
const POOL_WEIGHT: f64 = 0.3;
/// The same for the mean over an octave.
const OCTAVE_WEIGHT: f64 = 2.0;
/// An age's neighbourhood reaches as far as one part in so many of it.
const NEAR_PART: usize = 8;
/// Distinct gap lengths that one level remembers.
const OWN_BINS_MAX: usize = 128;
/// Counts are halved beyond this, so that old habits fade.
const OWN_GAPS_MAX: u32 = 4_096;

/// All services' gaps on one grid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pool {
    pub grid: AgeGrid,
    ended: Vec<f64>,
    at_risk: Vec<f64>,
    /// The mean hazard of each octave, as [`Self::octave_hazard`] gives it.
    octaves: Vec<Octave>,
    octave_of: Vec<u8>,
}

/// Bins whose ages lie within a factor of two.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Octave {
    /// Bins in it.
    bins: f64,
    /// Gaps that ended in it, and passages through one of its bins.
    ended: f64,
    at_risk: f64,
}

impl Pool {
    #[must_use]
    pub fn new(grid: AgeGrid) -> Self {
        let grain = grid.grain().0 as f64;
        let bins = grid.bins();
        let mut pool =
            Self { grid, ended: Vec::new(), at_risk: Vec::new(), octaves: Vec::new(), octave_of: Vec::new() };
        for bin in 0..bins {
            // A bin of w grains at age a (in grains) begins with the hazard w / (2 + a).
            let (ended, at_risk) = (grid.width(bin).0 as f64 / grain, 2.0 + grid.start(bin).0 as f64 / grain);
            let octave = grid.octave(bin);
            if pool.octaves.len() <= octave {
                pool.octaves.resize(octave + 1, Octave::default());
            }
            pool.octave_of.push(octave as u8);
            let of = &mut pool.octaves[octave];
            of.bins += 1.0;
            of.ended += ended;
            of.at_risk += at_risk;
            pool.ended.push(ended);
            pool.at_risk.push(at_risk);
        }
        pool
    }

    /// A gap passed through a bin without ending.
    pub fn passed(&mut self, bin: usize) {
        self.at_risk[bin] += 1.0;
        self.octaves[usize::from(self.octave_of[bin])].at_risk += 1.0;
    }

    /// A gap ended in a bin.
    pub fn ended(&mut self, bin: usize) {
        self.passed(bin);
        self.ended[bin] += 1.0;
        self.octaves[usize::from(self.octave_of[bin])].ended += 1.0;
    }

    fn hazard(&self, bin: usize) -> f64 {
        (self.ended[bin] / self.at_risk[bin]).min(1.0)
    }

    /// The mean hazard of the bins in a bin's octave.
    fn octave_hazard(&self, bin: usize) -> f64 {
        let of = &self.octaves[usize::from(self.octave_of[bin])];
        (of.ended / of.at_risk).min(1.0)
    }
}

/// Gaps that ended in one bin.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ended {
    bin: u16,
    count: u16,
    within: Within,
}

/// One level's own gaps: how many ended in each bin, sparse and sorted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OwnGaps {
    ended: Vec<Ended>,
    total: u32,
    /// Gaps that ended in each octave, and passages through one of its bins.
    octaves: Vec<(f32, f32)>,
}

impl OwnGaps {
    /// Those of a level that never was in use.
    pub const NONE: Self = Self { ended: Vec::new(), total: 0, octaves: Vec::new() };

    pub fn ended(&mut self, gap: Span, pool: &Pool) {
        let bin = pool.grid.bin(gap);
        let passed = gap - pool.grid.start(bin);
        let last = usize::from(pool.octave_of[bin]);
        if self.octaves.len() <= last {
            self.octaves.resize(last + 1, (0.0, 0.0));
        }
        for (octave, counts) in self.octaves.iter_mut().enumerate().take(last) {
            counts.1 += pool.octaves[octave].bins as f32;
        }
        let inside = pool.octave_of[..bin].iter().rev().take_while(|o| usize::from(**o) == last).count();
        self.octaves[last].0 += 1.0;
        self.octaves[last].1 += inside as f32 + 1.0;
        let bin = bin as u16;
        let at = match self.ended.binary_search_by_key(&bin, |e| e.bin) {
            Ok(at) => at,
            Err(at) => {
                self.ended.insert(at, Ended { bin, count: 0, within: Within::default() });
                at
            }
        };
        self.ended[at].count = self.ended[at].count.saturating_add(1);
        self.ended[at].within.ended(passed, pool.grid.width(usize::from(bin)));
        self.total += 1;
        if self.total >= OWN_GAPS_MAX || self.ended.len() > OWN_BINS_MAX {
            self.fade();
        }
    }

    /// Halves every count; what was seen once is forgotten.
    fn fade(&mut self) {
        for entry in &mut self.ended {
            entry.count /= 2;
        }
        self.ended.retain(|e| e.count > 0);
        if self.ended.len() > OWN_BINS_MAX {
            self.ended.truncate(OWN_BINS_MAX);
        }
        self.total = self.ended.iter().map(|e| u32::from(e.count)).sum();
        for counts in &mut self.octaves {
            *counts = (counts.0 / 2.0, counts.1 / 2.0);
        }
    }

    /// The chance that a gap which has reached `bin` ends in it.
    #[must_use]
    pub fn hazard(&self, bin: usize, pool: &Pool) -> f64 {
        let at = self.ended.partition_point(|e| usize::from(e.bin) < bin);
        let before: u32 = self.ended[..at].iter().map(|e| u32::from(e.count)).sum();
        let here =
            self.ended.get(at).filter(|e| usize::from(e.bin) == bin).map_or(0.0, |e| f64::from(e.count));
        let at_risk = f64::from(self.total - before);
        (here + POOL_WEIGHT * pool.hazard(bin)) / (at_risk + POOL_WEIGHT)
    }

    /// Where in a bin the level's gaps fall.
    #[must_use]
    pub fn falls(&self, bin: usize, pool: &Pool) -> Falls {
        if !pool.grid.tells_parts() {
            return Falls::EVEN;
        }
        let at = self.ended.binary_search_by_key(&bin, |e| usize::from(e.bin));
        at.map_or(Falls::EVEN, |at| self.ended[at].within.falls())
    }

    /// The same, from the gaps that ended within an eighth of the age: steady where a rhythm is not exact.
    #[must_use]
    pub fn near_hazard(&self, bin: usize, pool: &Pool) -> f64 {
        let reach = bin / NEAR_PART;
        let (low, high) = (bin - reach, (bin + reach).min(pool.grid.bins() - 1));
        let from = self.ended.partition_point(|e| usize::from(e.bin) < low);
        let to = self.ended.partition_point(|e| usize::from(e.bin) <= high);
        let count = |part: &[Ended]| f64::from(part.iter().map(|e| u32::from(e.count)).sum::<u32>());
        let ended = count(&self.ended[from..to]);
        let before = count(&self.ended[..from]);
        let bins = (high - low + 1) as f64;
        let at_risk = f64::from(self.total) - before - ended / 2.0;
        // Of those that end somewhere in so many bins, one part in so many ends in this.
        (ended / bins + POOL_WEIGHT * pool.octave_hazard(bin)) / (at_risk.max(0.0) + POOL_WEIGHT)
    }

    /// The same, from all gaps that ended at about this age: blind to a rhythm, steady where there is none.
    #[must_use]
    pub fn smooth_hazard(&self, bin: usize, pool: &Pool) -> f64 {
        let (ended, at_risk) =
            self.octaves.get(usize::from(pool.octave_of[bin])).copied().unwrap_or_default();
        let pooled = pool.octave_hazard(bin);
        // The octave's bins share what the pool weighs.
        let weight = OCTAVE_WEIGHT * pool.octaves[usize::from(pool.octave_of[bin])].bins;
        ((f64::from(ended) + weight * pooled) / (f64::from(at_risk) + weight)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_returns_every_fifteen_minutes_is_expected_then() {
        let mut pool = Pool::new(AgeGrid::whole(Span::from_secs(60)));
        let mut own = OwnGaps::default();
        for _ in 0..10 {
            own.ended(Span::from_secs(60 * 14), &pool);
            for bin in 0..14 {
                pool.passed(bin);
            }
            pool.ended(14);
        }
        assert!(own.hazard(14, &pool) > 0.95, "{}", own.hazard(14, &pool));
        assert!(own.hazard(5, &pool) < 0.01, "{}", own.hazard(5, &pool));
        // Past its usual return nothing is known but what everyone does.
        assert!((own.hazard(20, &pool) - pool.hazard(20)).abs() < 1e-12);
    }

    #[test]
    fn irregular_gaps_have_a_smooth_hazard() {
        let mut pool = Pool::new(AgeGrid::whole(Span::from_secs(60)));
        let mut own = OwnGaps::default();
        // Gaps of 8 to 15 minutes, each as likely: within that octave an eighth to one, on average about a quarter.
        for round in 0..400 {
            let bin = 8 + round * 5 % 8;
            own.ended(Span::from_secs(60 * bin as u64), &pool);
            (0..bin).for_each(|b| pool.passed(b));
            pool.ended(bin);
        }
        for bin in 8..16 {
            let smooth = own.smooth_hazard(bin, &pool);
            assert!((smooth - 0.222).abs() < 0.02, "bin {bin}: {smooth}");
        }
        assert!(own.smooth_hazard(3, &pool) < 0.02);
    }

    #[test]
    fn memory_of_gaps_is_bounded() {
        let pool = Pool::new(AgeGrid::whole(Span::from_secs(60)));
        let mut own = OwnGaps::default();
        for i in 0..100_000 {
            own.ended(Span::from_secs(60 * (i * 7 % 2_000)), &pool);
            assert!(own.ended.len() <= OWN_BINS_MAX && own.total < OWN_GAPS_MAX);
        }
    }
}
