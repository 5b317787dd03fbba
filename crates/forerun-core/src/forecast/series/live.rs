//! Trees that are fitted while forecasts go on: rows are made of forecasts whose outcome has come, and a fit is done a
//! slice at a time. Both are bounded and counted, so that the same outcomes in the same slices make the same trees.

use super::LEVELS;
use super::boost::{Binned, Booster, Fit, FitState, ROWS_PER_TREE, Rows, TREES, hash};
use super::features::{FEATURES, Row};
use serde::{Deserialize, Serialize};

/// Rows that are kept, the newest of them.
const ROWS_MAX: usize = 1 << 14;
/// Fewer are not fitted.
const ROWS_LEAST: usize = 2_000;
/// A season shorter than this is not what rows are spread over.
const SPREAD_LEAST: f64 = 240.0;
/// Steps of one forecast that rows are made of at most.
const STEPS_MAX: f64 = 8.0;
/// Slices of a whole fit.
pub const SLICES: usize = FEATURES + LEVELS.len() * TREES;

/// The rows of late, and the fit that is under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grower {
    rows: Rows,
    /// Where the next row goes.
    next: usize,
    /// Forecasts that were looked at for rows.
    looked: u64,
    /// Rows that have come since the last fit was begun.
    new: usize,
    fit: Option<Box<Fitting>>,
}

/// A fit under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Fitting {
    /// Without their features, once these are in bins.
    rows: Rows,
    binned: Binned,
    state: FitState,
    done: Vec<Booster>,
}

impl Grower {
    /// How many steps of a forecast rows are to be made of, so that those kept reach back over a season of all series;
    /// one forecast in so many where that is less than one.
    pub fn steps(&mut self, series: usize, season: usize, horizon: usize) -> usize {
        if self.fit.as_ref().is_some_and(|fit| fit.is_binning()) {
            return 0; // what is being binned stays as it is
        }
        let forecasts = series.max(1) as f64 * (season as f64).max(SPREAD_LEAST) / (horizon + 1) as f64;
        let each = (ROWS_MAX as f64 / forecasts).min(STEPS_MAX);
        self.looked += 1;
        if each >= 1.0 {
            return each as usize;
        }
        let one_in = (1.0 / each) as u64;
        usize::from(hash(self.looked, 0).is_multiple_of(one_in))
    }

    /// Forecasts that were looked at for rows so far.
    #[must_use]
    pub fn looked(&self) -> u64 {
        self.looked
    }

    /// A row whose outcome has come.
    pub fn push(&mut self, row: &Row, target: f64, weight: f64) {
        if self.rows.len() < ROWS_MAX {
            self.rows.push(row, target, weight);
        } else {
            self.rows.replace(self.next, row, target, weight);
            self.next = (self.next + 1) % ROWS_MAX;
        }
        self.new += 1;
    }

    /// Whether there is a slice to be done.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        // A fit is worth its work when half of what is fitted is new.
        self.fit.is_some() || self.new >= (self.rows.len() / 2).max(ROWS_LEAST)
    }

    /// Does one slice of a fit: bins one feature, or grows one tree. The trees of all levels once the fit is done.
    pub fn slice(&mut self) -> Option<Vec<Booster>> {
        if !self.is_busy() {
            return None;
        }
        if self.fit.is_none() {
            self.new = 0;
        }
        let fit = self.fit.get_or_insert_default();
        if fit.is_binning() {
            if !fit.binned.bin(&self.rows) || !fit.is_binning() {
                fit.rows.targets.clone_from(&self.rows.targets);
                fit.rows.weights.clone_from(&self.rows.weights);
            }
            return None;
        }
        fit.grow();
        if fit.done.len() < LEVELS.len() {
            return None;
        }
        self.fit.take().map(|fit| fit.done)
    }
}

impl Fitting {
    fn is_binning(&self) -> bool {
        self.binned.features() < FEATURES
    }

    fn grow(&mut self) {
        let Some(level) = LEVELS.get(self.done.len()) else { return };
        let one_in = (self.rows.len() / ROWS_PER_TREE).max(2) as u64;
        let state = std::mem::take(&mut self.state);
        let mut fit = Fit::resume(&self.rows, &self.binned, *level, one_in, state);
        if fit.grow() {
            self.state = fit.pause();
        } else {
            self.done.push(fit.finish());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes is twice the first feature, with noise.
    fn feed(grower: &mut Grower, from: u64, to: u64) {
        for n in from..to {
            let mut row = [0.0; FEATURES];
            row[0] = (hash(n, 1) % 100) as f32 / 100.0;
            let noise = (hash(n, 2) % 100) as f64 / 500.0;
            grower.push(&row, f64::from(2.0 * row[0]) + noise, 1.0);
        }
    }

    fn run(grower: &mut Grower) -> (usize, Vec<Booster>) {
        for slices in 1..=2 * SLICES {
            if let Some(trees) = grower.slice() {
                return (slices, trees);
            }
        }
        panic!("the fit has no end");
    }

    #[test]
    fn a_fit_takes_a_known_number_of_slices_and_finds_what_there_is() {
        let mut grower = Grower::default();
        feed(&mut grower, 0, ROWS_LEAST as u64 - 1);
        assert!(!grower.is_busy() && grower.slice().is_none());
        feed(&mut grower, ROWS_LEAST as u64 - 1, 6_000);
        let (slices, trees) = run(&mut grower);
        assert_eq!(slices, SLICES);
        assert_eq!(trees.len(), LEVELS.len());
        for first in [0.2_f32, 0.7] {
            let mut row = [0.0; FEATURES];
            row[0] = first;
            let told: Vec<f64> = trees.iter().map(|t| t.predict(&[row])[0]).collect();
            let low = f64::from(2.0 * first);
            assert!((told[1] - low - 0.1).abs() < 0.08, "{first}: {told:?}");
            assert!(told[0] < told[1] && told[1] < told[2], "{first}: {told:?}");
        }
    }

    #[test]
    fn it_is_done_again_when_half_is_new_and_never_holds_more_than_it_may() {
        let mut grower = Grower::default();
        feed(&mut grower, 0, 3 * ROWS_MAX as u64);
        assert_eq!(grower.rows.len(), ROWS_MAX);
        run(&mut grower);
        assert!(!grower.is_busy());
        feed(&mut grower, 0, ROWS_MAX as u64 / 2 - 1);
        assert!(!grower.is_busy());
        feed(&mut grower, 0, 1);
        assert!(grower.is_busy());
    }

    #[test]
    fn rows_are_spread_over_a_season_of_all_series() {
        for (series, season, horizon) in [(1, 1_440, 5), (50, 1_440, 30), (10_000, 1_440, 5), (207, 24, 48)] {
            let mut grower = Grower::default();
            let forecasts = series * season.max(240) / (horizon + 1);
            let rows: usize = (0..forecasts).map(|_| grower.steps(series, season, horizon)).sum();
            let most = ROWS_MAX.min(8 * forecasts);
            assert!(
                rows <= ROWS_MAX * 5 / 4 && rows >= most / 2,
                "{series} {season} {horizon}: {rows} of {most}"
            );
        }
    }

    /// What is written down in the middle of a fit goes on as what was not.
    #[test]
    fn a_fit_goes_on_where_it_was_left() {
        for left_after in [1, 30, FEATURES, FEATURES + 1, FEATURES + TREES + 7] {
            let mut whole = Grower::default();
            feed(&mut whole, 0, 2_500);
            let mut left = whole.clone();
            let (_, trees) = run(&mut whole);
            for _ in 0..left_after {
                assert!(left.slice().is_none());
            }
            let bytes = postcard::to_allocvec(&left).expect("it is plain data");
            let mut back: Grower = postcard::from_bytes(&bytes).expect("it is what was written");
            assert_eq!(back, left);
            assert_eq!(run(&mut back).1, trees);
        }
    }
}
