//! How likely an idle level is to be needed, by how long it has been idle.
//!
//! A *level* is the j-th instance that a service needs at once: level j is in use while at least j are needed. Its
//! idle gaps are a renewal process; the hazard of a gap's age (Cox & Oakes, *Analysis of Survival Data*, 1984,
//! ch. 2) comes from the level's own gaps, backed by those of all services of the same grain, themselves begun at
//! 1/(2 + age in grains). Gaps that still run count as at risk for every age that they have passed.

use super::grid::AgeGrid;
use serde::{Deserialize, Serialize};

/// What the pooled hazard weighs against a level's own gaps, in gaps. Small, because a service's own rhythm is the
/// best witness as soon as it has shown one.
const POOL_WEIGHT: f64 = 0.3;
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
}

impl Pool {
    #[must_use]
    pub fn new(grid: AgeGrid) -> Self {
        let grain = grid.grain().0 as f64;
        let bins = grid.bins();
        let mut ended = Vec::with_capacity(bins);
        let mut at_risk = Vec::with_capacity(bins);
        for bin in 0..bins {
            // A bin of w grains at age a (in grains) begins with the hazard w / (2 + a).
            ended.push(grid.width(bin).0 as f64 / grain);
            at_risk.push(2.0 + grid.start(bin).0 as f64 / grain);
        }
        Self { grid, ended, at_risk }
    }

    /// A gap passed through a bin without ending.
    pub fn passed(&mut self, bin: usize) {
        self.at_risk[bin] += 1.0;
    }

    /// A gap ended in a bin.
    pub fn ended(&mut self, bin: usize) {
        self.at_risk[bin] += 1.0;
        self.ended[bin] += 1.0;
    }

    fn hazard(&self, bin: usize) -> f64 {
        (self.ended[bin] / self.at_risk[bin]).min(1.0)
    }
}

/// One level's own gaps: how many ended in each bin, sparse and sorted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OwnGaps {
    ended: Vec<(u16, u16)>,
    total: u32,
}

impl OwnGaps {
    pub fn ended(&mut self, bin: usize) {
        let bin = bin as u16;
        match self.ended.binary_search_by_key(&bin, |e| e.0) {
            Ok(at) => self.ended[at].1 = self.ended[at].1.saturating_add(1),
            Err(at) => self.ended.insert(at, (bin, 1)),
        }
        self.total += 1;
        if self.total >= OWN_GAPS_MAX || self.ended.len() > OWN_BINS_MAX {
            self.fade();
        }
    }

    /// Halves every count; what was seen once is forgotten.
    fn fade(&mut self) {
        for entry in &mut self.ended {
            entry.1 /= 2;
        }
        self.ended.retain(|e| e.1 > 0);
        if self.ended.len() > OWN_BINS_MAX {
            self.ended.truncate(OWN_BINS_MAX);
        }
        self.total = self.ended.iter().map(|e| u32::from(e.1)).sum();
    }

    /// The chance that a gap which has reached `bin` ends in it.
    #[must_use]
    pub fn hazard(&self, bin: usize, pool: &Pool) -> f64 {
        let at = self.ended.partition_point(|e| usize::from(e.0) < bin);
        let before: u32 = self.ended[..at].iter().map(|e| u32::from(e.1)).sum();
        let here = match self.ended.get(at) {
            Some(&(b, n)) if usize::from(b) == bin => f64::from(n),
            _ => 0.0,
        };
        let at_risk = f64::from(self.total - before);
        (here + POOL_WEIGHT * pool.hazard(bin)) / (at_risk + POOL_WEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::Span;

    #[test]
    fn a_level_that_returns_every_fifteen_minutes_is_expected_then() {
        let mut pool = Pool::new(AgeGrid::whole(Span::from_secs(60)));
        let mut own = OwnGaps::default();
        for _ in 0..10 {
            own.ended(14);
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
    fn memory_of_gaps_is_bounded() {
        let mut own = OwnGaps::default();
        for i in 0..100_000 {
            own.ended(i * 7 % 2_000);
            assert!(own.ended.len() <= OWN_BINS_MAX && own.total < OWN_GAPS_MAX);
        }
    }
}
