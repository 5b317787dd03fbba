//! Load forecasts of a regular series: quantiles for each step of a horizon.
//!
//! Four stages, each a file: point members whose record weighs them ([`points`]), quantile members on top of them
//! ([`members`], and boosted trees over [`features`], [`boost`], asked through [`forest`]), a mixture of the members' quantiles that learns by
//! gradient ([`mix`]), and a conformal stage that widens or narrows what the mixture says until as much lies under a
//! quantile as should ([`conformal`]). [`track`] runs them over one series. All of it is online but the trees, which
//! are fitted one tree at a time ([`boost::Fit::grow`]), so that nobody waits for a fit.

pub mod boost;
pub mod conformal;
pub mod features;
pub mod forest;
pub mod live;
pub mod members;
pub mod mix;
pub mod points;
pub mod track;

/// What quantiles are told. The first three are what scores are made of.
pub const LEVELS: [f64; 5] = [0.1, 0.5, 0.9, 0.95, 0.99];
/// Where the median stands in [`LEVELS`].
pub const MEDIAN: usize = 1;

/// One value for each of [`LEVELS`], never falling.
pub type Quantiles = [f64; LEVELS.len()];

/// Values beyond are no load; they are cut to it, so that no sum of squares overflows.
const VALUE_MAX: f64 = 1e100;
/// Steps of a horizon that are told apart.
pub const HORIZON_MAX: usize = 1_024;
/// A season is at most so many steps: a week of minutes.
pub const SEASON_MAX: usize = 10_080;

/// What may be read at an origin: a series up to and with it.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Oldest first, the last is the origin's; none is empty or not finite (see [`clean`]).
    pub values: &'a [f64],
    /// Steps of a day, or whatever comes round; 1 is none.
    pub season: usize,
    /// Steps that are asked for.
    pub horizon: usize,
    /// The series' usual change, see [`usual_change`]: above 0.
    pub scale: f64,
}

impl Past<'_> {
    pub fn last(&self) -> f64 {
        self.values.last().copied().unwrap_or_default()
    }

    /// The last `n` values, or all if there are fewer.
    pub fn tail(&self, n: usize) -> &[f64] {
        &self.values[self.values.len().saturating_sub(n)..]
    }

    /// The value at the same time as `step` ahead, `periods` times `season` before it at least, and not after the
    /// origin.
    pub fn same_time(&self, step: usize, periods: usize, season: usize) -> Option<f64> {
        let back = (step.div_ceil(season) - 1 + periods) * season;
        (self.values.len() - 1 + step).checked_sub(back).map(|at| self.values[at])
    }
}

/// Fills what is missing or no number with what was last known (before the first, with the first), and says where
/// a value was: what is filled in teaches nothing.
pub fn clean(values: &mut [f64]) -> Vec<bool> {
    let mut last = values.iter().copied().find(|v| v.is_finite()).unwrap_or_default();
    values
        .iter_mut()
        .map(|value| {
            let known = value.is_finite();
            last = if known { value.clamp(-VALUE_MAX, VALUE_MAX) } else { last };
            *value = last;
            known
        })
        .collect()
}

/// The mean change over a season, or over a step where that says nothing; what errors are measured by. Above 0.
pub fn usual_change(values: &[f64], season: usize) -> f64 {
    let level = mean(values.iter().map(|v| v.abs()));
    for lag in [season, 1] {
        if values.len() > lag {
            let change = mean(values[lag..].iter().zip(values).map(|(a, b)| (a - b).abs()));
            if change > 1e-4 * level {
                return change;
            }
        }
    }
    if level > 0.0 { 1e-4 * level } else { 1.0 }
}

/// 0 of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0_f64);
    for value in values {
        sum += value;
        n += 1.0;
    }
    sum / n.max(1.0)
}

/// The `p`-quantile of sorted values, between neighbours in proportion; 0 of nothing.
pub(crate) fn quantile<T: Copy + Into<f64>>(sorted: &[T], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = p * last as f64;
    let low = at as usize;
    let (below, above): (f64, f64) = (sorted[low].into(), sorted[(low + 1).min(last)].into());
    below + (at - low as f64) * (above - below)
}

/// The loss of saying that `q` is the `p`-quantile when `y` comes.
pub fn pinball(p: f64, y: f64, q: f64) -> f64 {
    let d = y - q;
    if d >= 0.0 { p * d } else { (p - 1.0) * d }
}
