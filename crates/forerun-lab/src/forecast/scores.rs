//! How good forecasts were, by the usual measures.

use super::Series;
use forerun_core::forecast::series::mix;
use forerun_core::forecast::series::track::Told;
use forerun_core::forecast::series::{LEVELS, MEDIAN, pinball, usual_change};
use serde::Serialize;

/// Scores of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    pub series: String,
    pub forecasts: usize,
    /// Mean error of the median, by the mean change over a season before the test part.
    pub mase: f64,
    /// Quantile loss at 0.1, 0.5 and 0.9 by the mean value; `None` if all values are 0.
    pub wql: Option<f64>,
    /// The same loss by the scale of `mase`.
    pub sql: f64,
    /// The part of the values that lay at or under the quantile.
    pub coverage_90: f64,
    pub coverage_99: f64,
    /// How members weighed in the median, heaviest first.
    pub weights: Vec<(&'static str, f64)>,
    /// A series that hardly changes before its test part has no scale to measure by.
    #[serde(skip)]
    flat: bool,
    /// The sums of `wql`: the loss, and the values.
    #[serde(skip)]
    sums: (f64, f64),
}

/// Scores of a set of series: each is a mean over series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Means {
    pub series: usize,
    /// Without series that hardly change before their test part.
    pub mase: f64,
    pub sql: f64,
    /// Without series whose values are all 0.
    pub wql: f64,
    /// The same loss by the values of all series together: for sets in one unit.
    pub wql_pooled: f64,
    pub coverage_90: f64,
    pub coverage_99: f64,
}

/// Means over all series; `None` if no value came to compare with.
pub fn means(scores: &[Scores]) -> Option<Means> {
    let mean = |of: &dyn Fn(&Scores) -> Option<f64>| {
        let values: Vec<f64> = scores.iter().filter_map(of).collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    let (loss, size) = scores.iter().fold((0.0, 0.0), |(l, s), one| (l + one.sums.0, s + one.sums.1));
    (!scores.is_empty()).then(|| Means {
        series: scores.len(),
        mase: mean(&|s| (!s.flat).then_some(s.mase)),
        sql: mean(&|s| (!s.flat).then_some(s.sql)),
        wql: mean(&|s| s.wql),
        wql_pooled: if size > 0.0 { loss / size } else { 0.0 },
        coverage_90: mean(&|s| Some(s.coverage_90)),
        coverage_99: mean(&|s| Some(s.coverage_99)),
    })
}

/// Scores what was told of a series; `None` if no value came to compare with.
pub fn scores(series: &Series, told: &[Told]) -> Option<Scores> {
    let past: Vec<f64> = {
        let mut values = series.values[..series.test_from.min(series.values.len())].to_vec();
        forerun_core::forecast::series::clean(&mut values);
        values
    };
    let scale = usual_change(&past, series.season.max(1));
    let level = past.iter().map(|v| v.abs()).sum::<f64>() / past.len().max(1) as f64;
    let (mut n, mut size, mut error, mut loss) = (0.0_f64, 0.0_f64, 0.0, 0.0);
    let (mut under_90, mut under_99) = (0.0, 0.0);
    for (asked, told) in series.asked.iter().zip(told) {
        for (quantiles, came) in told.steps.iter().zip(&series.values[asked.origin + 1..]) {
            if !came.is_finite() {
                continue;
            }
            n += 1.0;
            size += came.abs();
            error += (came - quantiles[MEDIAN]).abs();
            loss += (0..3).map(|l| pinball(LEVELS[l], *came, quantiles[l])).sum::<f64>() / 3.0;
            under_90 += f64::from(u8::from(*came <= quantiles[2]));
            under_99 += f64::from(u8::from(*came <= quantiles[4]));
        }
    }
    (n > 0.0).then(|| Scores {
        series: series.name.clone(),
        forecasts: told.len(),
        mase: error / n / scale,
        wql: (size > 0.0).then(|| 2.0 * loss / size),
        sql: 2.0 * loss / n / scale,
        coverage_90: under_90 / n,
        coverage_99: under_99 / n,
        weights: weights(told),
        // What [`usual_change`] says where it finds no change.
        flat: scale <= 1e-4 * level || level <= 0.0,
        sums: (2.0 * loss, size),
    })
}

/// Scores of every series that has some.
pub fn backtest(all: &[Series], told: &[Vec<Told>]) -> Vec<Scores> {
    all.iter().zip(told).filter_map(|(series, told)| scores(series, told)).collect()
}

/// How members weighed in the median, on average, heaviest first.
pub fn weights(told: &[Told]) -> Vec<(&'static str, f64)> {
    let n = told.len().max(1) as f64;
    let share = |m: usize| told.iter().map(|t| t.shares[MEDIAN][m]).sum::<f64>() / n;
    let mut all: Vec<(&'static str, f64)> =
        mix::NAMES.into_iter().enumerate().map(|(m, name)| (name, share(m))).filter(|w| w.1 > 0.0).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}
