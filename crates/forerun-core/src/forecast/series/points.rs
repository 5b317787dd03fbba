//! Points: what the load will be by one plain rule each, and their mixture by record.

use super::{HORIZON_MAX, Past, mean};
use serde::{Deserialize, Serialize};

/// The rules, in the order of [`of`].
pub const NAMES: [&str; RULES] = [
    "last",
    "recent mean",
    "day mean",
    "same time",
    "same time, shifted",
    "days, shifted",
    "week, shifted",
    "trend",
    "week",
    "weeks",
    "week, scaled",
    "own period",
];
/// How many there are.
pub const RULES: usize = 12;
/// Values that the recent level is the mean of.
pub const RECENT: usize = 12;
/// A weekly level is the mean of as many values, or a day's.
const WEEKS: usize = 4;
/// Same times of so many days are averaged.
const DAYS: usize = 7;
/// Steps are told apart by so many groups, finer where they are near.
const GROUPS: usize = 4;
/// What the record keeps of itself at each origin: about the last thirty count.
const KEEP: f64 = 0.97;
/// How sharply errors decide: a rule of twice the error weighs a 64th.
const SHARPNESS: i32 = 6;

/// What each rule says of the steps of the horizon: `out[step - 1][rule]`.
pub fn of(past: &Past<'_>, period: Option<usize>, out: &mut Vec<[f64; RULES]>) {
    let recent = mean(past.tail(RECENT).iter().copied());
    let day = mean(past.tail(past.season.max(RECENT)).iter().copied());
    let before = |lag: usize| {
        let end = past.values.len().checked_sub(lag)?;
        let start = end.checked_sub(RECENT)?;
        Some(mean(past.values[start..end].iter().copied()))
    };
    let days: Vec<Option<f64>> = (1..=DAYS).map(|d| before(d * past.season)).collect();
    let week = 7 * past.season;
    let week_level = past
        .values
        .len()
        .checked_sub(week + past.season.max(RECENT))
        .map(|start| mean(past.values[start..past.values.len() - week].iter().copied()));
    // The trend is that of the halves of the recent window, and dies away by a tenth a step.
    let (old, new) = (past.tail(RECENT), past.tail(RECENT / 2));
    let slope = (mean(new.iter().copied()) - mean(old.iter().copied())) / (RECENT as f64 / 4.0);
    let (mut trend, mut damp) = (mean(past.tail(3).iter().copied()), 1.0);
    out.clear();
    for step in 1..=past.horizon.min(HORIZON_MAX) {
        damp *= 0.9;
        trend += slope * damp;
        let seasonal = past.season > 1;
        let passed = step.div_ceil(past.season.max(1)) - 1;
        let shifted = |d: usize| -> Option<f64> {
            let was = (*days.get(d + passed - 1)?)?;
            Some(past.same_time(step, d, past.season)? - was + recent)
        };
        let same = if seasonal { past.same_time(step, 1, past.season) } else { None };
        let near = if seasonal { shifted(1) } else { None };
        let many = if seasonal { mean_of((1..=DAYS).map_while(shifted)) } else { None };
        let weekly = if seasonal {
            before(week).and_then(|was| Some(past.same_time(step, 1, week)? - was + recent))
        } else {
            None
        };
        let near = near.unwrap_or(recent);
        let plain = if seasonal { past.same_time(step, 1, week) } else { None };
        let weeks =
            if seasonal { mean_of((1..=WEEKS).map_while(|w| past.same_time(step, w, week))) } else { None };
        let scaled = plain.zip(week_level).map(|(value, was)| value * grown(day, was));
        out.push([
            past.last(),
            recent,
            day,
            same.unwrap_or(recent),
            near,
            many.unwrap_or(near),
            weekly.or(many).unwrap_or(near),
            trend,
            plain.or(same).unwrap_or(recent),
            weeks.or(same).unwrap_or(recent),
            scaled.or(many).unwrap_or(near),
            period.map_or(recent, |p| {
                mean_of((1..=3).map_while(|k| past.same_time(step, k, p))).unwrap_or(recent)
            }),
        ]);
    }
}

/// `None` of nothing.
fn mean_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
    (n > 0.0).then(|| sum / n)
}

/// How much a level has grown; levels that are not above 0 do not grow in proportion.
fn grown(now: f64, was: f64) -> f64 {
    if now > 0.0 && was > 0.0 { (now / was).clamp(0.25, 4.0) } else { 1.0 }
}

/// Lags that are tried for a period of the series' own: to two hours of minutes, as timers have.
const LAG_MAX: usize = 130;
/// Values that a period is looked for in.
const LOOK_BACK: usize = 240;

/// Lags that are looked at together: sums that do not wait for one another.
const LAGS: usize = 8;

/// The lag, from 2 on, at which the last values repeat best, if they do so clearly better than from one to the next.
pub fn period(values: &[f64]) -> Option<usize> {
    let lag_max = LAG_MAX.min(values.len() / 3);
    let window = LOOK_BACK.min(values.len() - lag_max.min(values.len()));
    if lag_max < 2 || window < 12 {
        return None;
    }
    let from = values.len() - window;
    let middle = mean(values[from..].iter().copied());
    let usual = mean(values[from..].iter().map(|v| (v - middle).abs()));
    let [change] = changes(values, from, 1);
    let mut best = (0.9 * change.min(usual), None);
    let mut look = |lag: usize, change: f64| {
        // A multiple of a period repeats as well as the period: it has to be better to be taken.
        if change < 0.97 * best.0 {
            best = (change, Some(lag));
        }
    };
    let mut lag = 2;
    while lag + LAGS <= lag_max + 1 {
        let changes: [f64; LAGS] = changes(values, from, lag);
        changes.into_iter().zip(lag..).for_each(|(change, lag)| look(lag, change));
        lag += LAGS;
    }
    for lag in lag..=lag_max {
        let [change] = changes(values, from, lag);
        look(lag, change);
    }
    best.1
}

/// The mean change of the values from `from` on over each of so many lags, the first of which is `lag`.
fn changes<const N: usize>(values: &[f64], from: usize, lag: usize) -> [f64; N] {
    let mut sums = [0.0; N];
    // What lies the highest lag before stands first.
    let before = values[from + 1 - lag - N..].windows(N).filter_map(|w| <&[f64; N]>::try_from(w).ok());
    for (value, before) in values[from..].iter().zip(before) {
        for (sum, before) in sums.iter_mut().zip(before) {
            *sum += (value - before).abs();
        }
    }
    let n = ((values.len() - from) as f64).max(1.0);
    sums.reverse();
    sums.map(|sum| sum / n)
}

/// How each rule has done on a series, by groups of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    errors: [[f64; RULES]; GROUPS],
}

impl Default for Record {
    fn default() -> Self {
        Self { errors: [[1e-3; RULES]; GROUPS] }
    }
}

impl Record {
    /// What came after an origin, beside what the rules had said; `known[i]` is false where there was no data.
    pub fn learn(&mut self, said: &[[f64; RULES]], came: &[f64], known: &[bool], scale: f64) {
        let mut sums = [[0.0; RULES]; GROUPS];
        let mut counts = [0.0_f64; GROUPS];
        for (step, ((said, came), known)) in said.iter().zip(came).zip(known).enumerate() {
            if *known {
                let group = group(step);
                counts[group] += 1.0;
                for (sum, said) in sums[group].iter_mut().zip(said) {
                    *sum += ((said - came) / scale).abs().min(100.0);
                }
            }
        }
        for ((errors, sums), n) in self.errors.iter_mut().zip(sums).zip(counts) {
            if n > 0.0 {
                for (error, sum) in errors.iter_mut().zip(sums) {
                    *error = KEEP * *error + sum / n;
                }
            }
        }
    }

    /// What each rule weighs at a step; sums to 1.
    pub fn weights(&self, step: usize) -> [f64; RULES] {
        let errors = &self.errors[group(step - 1)];
        let best = errors.iter().copied().fold(f64::MAX, f64::min);
        let mut weights = errors.map(|e| {
            let r = (best + 1e-9) / (e + 1e-9);
            (0..SHARPNESS).fold(1.0, |w, _| w * r)
        });
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
        weights
    }

    /// The mixture of the rules at each step.
    pub fn mix(&self, said: &[[f64; RULES]], out: &mut Vec<f64>) {
        out.clear();
        for (i, said) in said.iter().enumerate() {
            let weights = self.weights(i + 1);
            out.push(weights.iter().zip(said).map(|(w, s)| w * s).sum());
        }
    }
}

/// Steps 1-2, 3-7, 8-23 and the rest: what is near depends on the last values, what is far on the time of day.
fn group(index: usize) -> usize {
    match index {
        0..2 => 0,
        2..7 => 1,
        7..23 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::series::boost::hash;

    /// One lag after the other, each by its own sum.
    fn plain(values: &[f64]) -> Option<usize> {
        let lag_max = LAG_MAX.min(values.len() / 3);
        let window = LOOK_BACK.min(values.len() - lag_max);
        if lag_max < 2 || window < 12 {
            return None;
        }
        let from = values.len() - window;
        let change =
            |lag: usize| mean(values[from..].iter().zip(&values[from - lag..]).map(|(a, b)| (a - b).abs()));
        let middle = mean(values[from..].iter().copied());
        let usual = mean(values[from..].iter().map(|v| (v - middle).abs()));
        let mut best = (0.9 * change(1).min(usual), None);
        for lag in 2..=lag_max {
            let one = change(lag);
            if one < 0.97 * best.0 {
                best = (one, Some(lag));
            }
        }
        best.1
    }

    #[test]
    fn a_period_is_found_among_lags_that_are_looked_at_together() {
        let mut found = 0;
        for n in 0..600_u64 {
            let (length, every) = (hash(n, 0) % 420, 2 + hash(n, 1) % 90);
            let value = |i: u64| {
                let wave = if i.is_multiple_of(every) { 9.0 } else { (i % every) as f64 / every as f64 };
                wave + (hash(n, i) % 100) as f64 / 90.0
            };
            let values: Vec<f64> = (0..length).map(value).collect();
            assert_eq!(period(&values), plain(&values), "{length} values, {every}");
            found += u64::from(period(&values) == Some(every as usize));
        }
        assert!(found > 200, "{found}");
    }
}
