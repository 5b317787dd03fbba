//! Quantile members that need no fit: windows of the last values, and the residuals of the points' mixture.

use super::{LEVELS, Past, Quantiles, quantile};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A member: says quantiles of every step of the horizon.
pub trait Member {
    /// `points` is what the points' mixture says of each step; one entry is appended to `out` for each.
    fn forecast(&self, past: &Past<'_>, points: &[f64], locals: &[f64], out: &mut Vec<Quantiles>);
}

/// The quantiles of the last values, the same for every step: `horizons` times the horizon of them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub horizons: usize,
}

impl Member for Window {
    fn forecast(&self, past: &Past<'_>, points: &[f64], _locals: &[f64], out: &mut Vec<Quantiles>) {
        let mut values = past.tail(self.horizons * past.horizon).to_vec();
        values.sort_unstable_by(f64::total_cmp);
        let quantiles = LEVELS.map(|p| quantile(&values, p));
        out.extend(points.iter().map(|_| quantiles));
    }
}

/// Residuals that are kept for each group of steps.
const KEPT: usize = 256;
/// Fewer than these tell no quantile.
const ENOUGH: usize = 20;

/// What the points' mixture missed by, in local scales, lately: split conformal prediction on a sliding window
/// (Vovk et al. 2005), scaled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Residuals {
    kept: [VecDeque<f32>; GROUPS],
    sorted: [Vec<f32>; GROUPS],
}

const GROUPS: usize = 3;

fn group(index: usize, horizon: usize) -> usize {
    (index * GROUPS / horizon.max(1)).min(GROUPS - 1)
}

impl Residuals {
    /// What came, beside what was said, at each step's scale.
    pub fn learn(&mut self, points: &[f64], came: &[f64], known: &[bool], locals: &[f64]) {
        let horizon = points.len();
        // A few steps of each origin, so that the window reaches back further than the last days.
        let every = (horizon / 12).max(1);
        for i in (0..horizon.min(came.len())).step_by(every) {
            if known[i] {
                let kept = &mut self.kept[group(i, horizon)];
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(((came[i] - points[i]) / locals[i]).clamp(-1e6, 1e6) as f32);
            }
        }
        for (sorted, kept) in self.sorted.iter_mut().zip(&self.kept) {
            sorted.clear();
            sorted.extend(kept);
            sorted.sort_unstable_by(f32::total_cmp);
        }
    }
}

impl Member for Residuals {
    fn forecast(&self, _past: &Past<'_>, points: &[f64], locals: &[f64], out: &mut Vec<Quantiles>) {
        let told = self.sorted.each_ref().map(|sorted| {
            if sorted.len() < ENOUGH {
                // Of a normal distribution as wide as the local scale.
                return [-1.28, 0.0, 1.28, 1.64, 2.33];
            }
            LEVELS.map(|p| quantile(sorted, p))
        });
        out.extend(
            points
                .iter()
                .enumerate()
                .map(|(i, point)| told[group(i, points.len())].map(|r| point + locals[i] * r)),
        );
    }
}
