//! Forecasts of recorded series as they are made live: of all series a step at a time, beginning with nothing known.

use super::{Series, Told};
use forerun_core::forecast::series::live::{Grower, SLICES};
use forerun_core::forecast::series::track::{Shared, Teaches, Track};
use forerun_core::forecast::series::{HORIZON_MAX, Past, SEASON_MAX, clean, usual_change};

/// Values of a series that are kept, as live of few services.
const KEPT: usize = 8 * 1_440;
/// With fewer nothing is forecast, as live.
const VALUES_LEAST: usize = 10;

/// A series as it is followed live.
struct Followed<'a> {
    series: &'a Series,
    values: Vec<f64>,
    known: Vec<bool>,
    season: usize,
    horizon: usize,
    track: Track,
    /// Values before are no longer kept.
    first: usize,
    told: Vec<Told>,
}

impl<'a> Followed<'a> {
    fn new(series: &'a Series) -> Self {
        let mut values = series.values.clone();
        let known = clean(&mut values);
        let horizon = series.asked.iter().map(|a| a.horizon).max().unwrap_or(1).clamp(1, HORIZON_MAX);
        let (season, track) = (series.season.clamp(1, SEASON_MAX), Track::default());
        Self { series, values, known, season, horizon, track, first: 0, told: Vec::new() }
    }

    /// Goes to a step, and tells what is asked for there; `series` is how many there are.
    fn step(&mut self, t: usize, series: usize, shared: &mut Shared, rows: Option<&mut Grower>) {
        if t >= self.values.len() || t + 1 < VALUES_LEAST {
            return;
        }
        let over = (t + 1 - self.first).saturating_sub(KEPT);
        if over > KEPT / 8 {
            self.first += over;
            self.track.drop_oldest(over);
        }
        let (values, known) = (&self.values[self.first..=t], &self.known[self.first..=t]);
        let rows = rows.map(|grower| (grower, self.season));
        let teaches = Teaches { shared: &mut *shared, series, rows };
        self.track.learn(values, known, (t < self.series.test_from).then_some(teaches));
        let asked = self.series.asked.get(self.told.len()).filter(|asked| asked.origin == t);
        if self.track.waits() && asked.is_none() {
            return;
        }
        let scale = usual_change(values, self.season);
        let past = Past { values, season: self.season, horizon: self.horizon, scale };
        let mut one = match self.track.waits() {
            true => self.track.look(&past, shared, &[]),
            false => self.track.forecast(&past, shared, &[]),
        };
        if let Some(asked) = asked {
            one.steps.truncate(asked.horizon);
            self.told.push(one);
        }
    }
}

/// Forecasts of every series at its origins, by series and origin, as asked. What all series share is learned before
/// their test parts, as the contract for files wants it; live it goes on. `trees`: whether trees are fitted on the way.
pub fn live(all: &[Series], trees: bool) -> Vec<Vec<Told>> {
    let (mut shared, mut grower) = (Shared::default(), Grower::default());
    let mut followed: Vec<Followed<'_>> = all.iter().map(Followed::new).collect();
    let steps = all.iter().map(|s| s.values.len()).max().unwrap_or_default();
    for t in 0..steps {
        for one in &mut followed {
            one.step(t, all.len(), &mut shared, trees.then_some(&mut grower));
        }
        // A minute has room for a fit.
        for _ in 0..SLICES {
            if let Some(trees) = grower.slice() {
                shared.renew(trees);
            }
        }
    }
    followed.into_iter().map(|one| one.told).collect()
}
