//! The mixture of members' quantiles: at each level a weighted mean, weights learned by exponentiated gradient on the
//! quantile loss (Kivinen & Warmuth 1997), one part shared by all series and one of the series' own.

use super::{LEVELS, Quantiles};
use serde::{Deserialize, Serialize};

/// Members, in the order of [`Weights`].
pub const NAMES: [&str; MEMBERS] =
    ["trees", "points and residuals", "last two horizons", "last twelve horizons", "outside"];
pub const MEMBERS: usize = 5;
/// Where the trees stand.
pub const TREES: usize = 0;
/// Where the member stands that is not of this crate.
pub const OUTSIDE: usize = 4;
/// How fast the shared part moves: it sees every series.
pub const SHARED_RATE: f64 = 0.2;
/// How fast a series' own part moves.
pub const OWN_RATE: f64 = 2.0;
/// Own weights fade back to what all share: about the last hundred origins count.
const KEEP: f64 = 0.99;

/// Logarithms of weights, by level and member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    logs: [[f64; MEMBERS]; LEVELS.len()],
}

impl Weights {
    /// What each member weighs at a level; those that say nothing weigh nothing.
    pub fn shares(&self, own: &Weights, level: usize, says: &[bool; MEMBERS]) -> [f64; MEMBERS] {
        let mut shares = [0.0; MEMBERS];
        let logs = |m: usize| self.logs[level][m] + own.logs[level][m];
        let most = (0..MEMBERS).filter(|m| says[*m]).map(logs).fold(f64::MIN, f64::max);
        let mut sum = 0.0;
        for m in (0..MEMBERS).filter(|m| says[*m]) {
            shares[m] = libm::exp(logs(m) - most);
            sum += shares[m];
        }
        shares.iter_mut().for_each(|s| *s /= f64::max(sum, 1e-300));
        shares
    }

    /// A member that says something from now on begins beside the best: at less, the steps of those in front, which are
    /// in proportion to what a member weighs, would leave it behind for good.
    pub fn welcome(&mut self, member: usize) {
        for logs in &mut self.logs {
            logs[member] = logs.iter().copied().fold(f64::MIN, f64::max);
        }
    }

    /// Moves down the gradient of what an origin lost.
    pub fn learn(&mut self, gradient: &[[f64; MEMBERS]; LEVELS.len()], rate: f64, fade: bool) {
        for (logs, gradient) in self.logs.iter_mut().zip(gradient) {
            for (log, g) in logs.iter_mut().zip(gradient) {
                let kept = if fade { KEEP * *log } else { *log };
                *log = (kept - rate * g).clamp(-8.0, 8.0);
            }
        }
    }
}

/// How a mean of members' quantiles loses, per step, with the logarithm of each weight.
pub fn gradient(
    members: &[Vec<Quantiles>; MEMBERS],
    mixed: &[Quantiles],
    shares: &[[f64; MEMBERS]; LEVELS.len()],
    came: &[f64],
    known: &[bool],
    scale: f64,
) -> [[f64; MEMBERS]; LEVELS.len()] {
    let mut sums = [[0.0; MEMBERS]; LEVELS.len()];
    let mut n = 0.0_f64;
    for (i, mixed) in mixed.iter().enumerate().filter(|(i, _)| known.get(*i) == Some(&true)) {
        n += 1.0;
        for (l, p) in LEVELS.iter().enumerate() {
            let slope = if came[i] < mixed[l] { 1.0 - p } else { -p };
            for (m, member) in members.iter().enumerate() {
                if let Some(said) = member.get(i) {
                    let apart = ((said[l] - mixed[l]) / scale).clamp(-4.0, 4.0);
                    sums[l][m] += shares[l][m] * slope * apart;
                }
            }
        }
    }
    sums.map(|level| level.map(|sum| sum / n.max(1.0)))
}
