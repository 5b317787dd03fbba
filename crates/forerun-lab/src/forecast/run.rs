//! Fits and forecasts a set of series: at an origin only what the contract allows is read.

use forerun_core::forecast::series::boost::{Binned, Booster, Fit, Rows};
use forerun_core::forecast::series::track::{Shared, Teaches, Told, Track};
use forerun_core::forecast::series::{HORIZON_MAX, LEVELS, Past, SEASON_MAX, clean, usual_change};

/// One series on a regular grid, oldest first; what is not finite is no data.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    pub values: Vec<f64>,
    /// Steps of a season; 1 is none.
    pub season: usize,
    /// Nothing from here on is fitted, tuned or calibrated on, but at this series' own later origins.
    pub test_from: usize,
    /// Where forecasts are wanted: indices of the last value that may be read, rising.
    pub asked: Vec<Asked>,
}

/// An origin and the steps that are wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub origin: usize,
    pub horizon: usize,
}

/// Rows that trees are fitted on, at most.
const ROWS_MAX: usize = 60_000;
/// Forecasts that the mixture is trained on, over all series.
const TRIALS_MAX: usize = 3_000;
/// The part of what may be fitted on that the first trees are fitted on; the rest trains the mixture.
const FIRST_PART: f64 = 0.8;

/// One series made ready.
#[derive(Debug)]
struct Prepared<'a> {
    series: &'a Series,
    values: Vec<f64>,
    known: Vec<bool>,
    season: usize,
    horizon: usize,
    scale: f64,
    track: Track,
}

impl<'a> Prepared<'a> {
    fn new(series: &'a Series) -> Self {
        let mut values = series.values.clone();
        let known = clean(&mut values);
        let season = series.season.clamp(1, SEASON_MAX);
        let scale = usual_change(&values[..series.test_from.min(values.len())], season);
        let horizon = series.asked.iter().map(|a| a.horizon).max().unwrap_or(1).clamp(1, HORIZON_MAX);
        Self { series, values, known, season, horizon, scale, track: Track::default() }
    }

    fn past(values: &[f64], season: usize, horizon: usize, scale: f64) -> Past<'_> {
        Past { values, season, horizon, scale }
    }

    fn stride(&self) -> usize {
        (self.horizon / 2).max(1)
    }

    /// The first origin: with a few values before it, if the series has them.
    fn first(&self) -> usize {
        (3 * self.horizon).min(self.series.test_from / 2)
    }

    /// Origins from `from` on whose next value lies before `until`.
    fn grid(&self, until: usize) -> impl Iterator<Item = usize> + use<> {
        (self.first()..until.saturating_sub(1)).step_by(self.stride())
    }

    /// Learns of what lies before `until`, and makes rows of it.
    fn train(&mut self, until: usize, steps: usize, rows: &mut Rows) {
        let mut track = Track::default();
        for origin in self.grid(until) {
            track.learn(&self.values[..=origin], &self.known, None);
            let past = Self::past(&self.values[..=origin], self.season, self.horizon, self.scale);
            let end = (origin + 1 + self.horizon).min(until);
            track.train(&past, &self.values[origin + 1..end], &self.known[origin + 1..end], steps, rows);
        }
        self.track = track;
    }

    /// Goes to an origin by the cheap grid.
    fn go(&mut self, from: usize, origin: usize) {
        for between in (from + self.stride()..origin).step_by(self.stride()) {
            self.track.learn(&self.values[..=between], &self.known, None);
            self.track.pass(&Self::past(&self.values[..=between], self.season, self.horizon, self.scale));
        }
    }

    /// `teaches`: of how many series this one is, if what all share may learn from it.
    fn forecast(&mut self, origin: usize, shared: &mut Shared, teaches: Option<usize>) -> Told {
        let values = &self.values[..=origin];
        let teaches = teaches.map(|series| Teaches { shared: &mut *shared, series, rows: None });
        self.track.learn(values, &self.known, teaches);
        self.track.forecast(&Self::past(values, self.season, self.horizon, self.scale), shared, &[])
    }
}

/// Fits one ensemble of trees on what lies before `until(test_from)` of all series.
fn fit(prepared: &mut [Prepared<'_>], until: impl Fn(usize) -> usize) -> (Vec<Booster>, usize) {
    let origins: usize = prepared.iter().map(|p| p.grid(until(p.series.test_from)).count()).sum();
    let steps = (ROWS_MAX / origins.max(1)).max(1);
    let mut rows = Rows::default();
    for p in prepared.iter_mut() {
        p.train(until(p.series.test_from), steps, &mut rows);
    }
    let binned = Binned::new(&rows);
    let grow = |level: f64| {
        let mut fit = Fit::new(&rows, &binned, level);
        while fit.grow() {}
        fit.finish()
    };
    let trees = std::thread::scope(|scope| {
        let threads: Vec<_> = LEVELS.iter().map(|level| scope.spawn(|| grow(*level))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_default()).collect()
    });
    (trees, rows.len())
}

/// A set of series, fitted.
#[derive(Debug)]
pub struct Fitted<'a> {
    prepared: Vec<Prepared<'a>>,
    shared: Shared,
    /// Rows that the trees were fitted on.
    pub rows: usize,
}

impl<'a> Fitted<'a> {
    /// Trees are fitted on what lies before `test_from` of all series; the mixture is trained on the last fifth of
    /// that, with trees of the rest.
    pub fn new(all: &'a [Series]) -> Self {
        let mut prepared: Vec<Prepared<'_>> = all.iter().map(Prepared::new).collect();
        let first = |test_from: usize| (test_from as f64 * FIRST_PART) as usize;
        let (trees, _) = fit(&mut prepared, first);
        let mut shared = Shared::default();
        shared.plant(trees);
        try_out(&mut prepared, &mut shared, first);
        let tried: Vec<Track> = prepared.iter().map(|p| p.track.clone()).collect();
        let (trees, rows) = fit(&mut prepared, |test_from| test_from);
        shared.plant(trees);
        for (p, track) in prepared.iter_mut().zip(tried) {
            p.track = track;
        }
        Fitted { prepared, shared, rows }
    }

    /// Forecasts every series at its origins: by series and origin, as asked. `progress` is told of each series.
    pub fn forecast(&mut self, progress: &mut dyn FnMut(usize)) -> Vec<Vec<Told>> {
        let mut all = Vec::new();
        for p in &mut self.prepared {
            let mut of = Vec::new();
            let mut from = p.series.test_from.saturating_sub(1);
            for asked in &p.series.asked {
                p.go(from, asked.origin);
                from = asked.origin;
                let mut one = p.forecast(asked.origin, &mut self.shared, None);
                one.steps.truncate(asked.horizon);
                of.push(one);
            }
            progress(of.len());
            all.push(of);
        }
        all
    }
}

/// Forecasts over the part that the first trees have not seen, in turn over all series.
fn try_out(prepared: &mut [Prepared<'_>], shared: &mut Shared, first: impl Fn(usize) -> usize) {
    let count = prepared.len();
    let each = (TRIALS_MAX / count.max(1)).max(4);
    let plans: Vec<(usize, usize)> = prepared
        .iter()
        .map(|p| {
            let from = first(p.series.test_from).max(p.first());
            let stride = ((p.series.test_from.saturating_sub(from)) / each).max(p.stride());
            (from, stride)
        })
        .collect();
    for k in 0..each {
        for (p, (from, stride)) in prepared.iter_mut().zip(&plans) {
            let origin = from + k * stride;
            if origin < p.series.test_from {
                if k > 0 {
                    p.go(origin - stride, origin);
                }
                p.forecast(origin, shared, Some(count));
            }
        }
    }
    for p in prepared.iter_mut() {
        let end = p.series.test_from.min(p.values.len());
        let teaches = Teaches { shared: &mut *shared, series: count, rows: None };
        p.track.learn(&p.values[..end], &p.known, Some(teaches));
    }
}
