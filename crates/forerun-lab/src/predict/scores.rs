//! How good predictions are: the measures of `referee/nextactivity`.

use forerun_core::profile::next::{Predictor, QUANTILES};
use forerun_trace::Step;
use serde::Serialize;

/// No step costs more bits.
const BITS_MAX: f64 = 30.0;
const BINS: usize = 10;

/// Scores over the scored steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PredictScores {
    pub scored: u64,
    pub users: u64,
    /// Shares of steps whose item was ranked first, and among the first five.
    pub acc1: f64,
    pub acc5: f64,
    /// Mean of 1/rank within the first ten.
    pub mrr10: f64,
    /// Mean of -log2 of the chance of what happened.
    pub bits: f64,
    /// Mean distance of the first rank's chance from how often it is right, over ten bins.
    pub ece: f64,
    /// Share of steps to an item that nobody had turned to.
    pub new_share: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<WhenScores>,
    /// Bytes of memory that the model takes at the end, and per user that it knows.
    pub bytes: u64,
    pub bytes_per_user: u64,
    /// By first rank's chance, in tenths: steps, mean chance, share that was right.
    pub calibration: Vec<(u64, f64, f64)>,
    /// What each expert's word weighed in the first stage, on average; the heaviest first.
    pub experts: Vec<(String, f64)>,
}

/// Scores of the time to the next step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WhenScores {
    pub scored: u64,
    pub mean_abs_log_error: f64,
    pub crps_log: f64,
    pub cover_10_90: f64,
}

#[derive(Debug)]
pub(super) struct Tally {
    seen: Vec<bool>,
    scored_users: Vec<bool>,
    scored: u64,
    first: u64,
    five: u64,
    new: u64,
    reciprocal: f64,
    bits: f64,
    bins: [(u64, f64, u64); BINS],
    weights: Vec<f64>,
}

impl Tally {
    pub(super) fn new(users: usize) -> Self {
        Self {
            seen: Vec::new(),
            scored_users: vec![false; users],
            scored: 0,
            first: 0,
            five: 0,
            new: 0,
            reciprocal: 0.0,
            bits: 0.0,
            bins: [(0, 0.0, 0); BINS],
            weights: Vec::new(),
        }
    }

    /// What each expert weighed at a scored step.
    pub(super) fn weigh(&mut self, predictor: &Predictor) {
        for (expert, weight) in predictor.weights() {
            if self.weights.len() <= expert {
                self.weights.resize(expert + 1, 0.0);
            }
            self.weights[expert] += f64::from(weight);
        }
    }

    /// A step that is not scored.
    pub(super) fn pass(&mut self, step: &Step) -> bool {
        let at = step.item as usize;
        if self.seen.len() <= at {
            self.seen.resize(at + 1, false);
        }
        !std::mem::replace(&mut self.seen[at], true)
    }

    pub(super) fn add(&mut self, step: &Step, ranked: &[(u32, f64)], happened: f64) {
        let is_new = self.pass(step);
        let rank = ranked.iter().take(super::RANKS).position(|(item, _)| *item == step.item);
        let hit = rank == Some(0);
        self.scored += 1;
        self.scored_users[step.user as usize] = true;
        self.first += u64::from(hit);
        self.five += u64::from(rank.is_some_and(|r| r < 5));
        self.new += u64::from(is_new);
        self.reciprocal += rank.map_or(0.0, |r| 1.0 / (r + 1) as f64);
        self.bits += (-happened.max(1e-12).log2()).clamp(0.0, BITS_MAX);
        let p1 = ranked.first().map_or(0.0, |(_, p)| *p);
        let bin = &mut self.bins[((p1 * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1;
        bin.1 += p1;
        bin.2 += u64::from(hit);
    }

    /// `bytes`: what the model takes, and `users` that it knows.
    pub(super) fn scores(&self, bytes: usize, users: usize) -> PredictScores {
        let n = self.scored.max(1) as f64;
        let bytes = bytes as u64;
        let names = self.weights.iter().enumerate();
        let mut experts: Vec<(String, f64)> =
            names.map(|(expert, sum)| (Predictor::expert_name(expert), sum / n)).collect();
        experts.sort_by(|a, b| b.1.total_cmp(&a.1));
        PredictScores {
            scored: self.scored,
            users: self.scored_users.iter().filter(|u| **u).count() as u64,
            acc1: self.first as f64 / n,
            acc5: self.five as f64 / n,
            mrr10: self.reciprocal / n,
            bits: self.bits / n,
            ece: self.bins.iter().map(|b| (b.1 - b.2 as f64).abs()).sum::<f64>() / n,
            new_share: self.new as f64 / n,
            when: None,
            bytes,
            bytes_per_user: bytes / users.max(1) as u64,
            experts,
            calibration: self.bins.iter().map(|b| bin_of(*b)).collect(),
        }
    }
}

fn bin_of((n, sum, hits): (u64, f64, u64)) -> (u64, f64, f64) {
    let count = n.max(1) as f64;
    (n, sum / count, hits as f64 / count)
}

#[derive(Debug, Default)]
pub(super) struct WhenTally {
    scored: u64,
    error: f64,
    crps: f64,
    covered: u64,
}

impl WhenTally {
    pub(super) fn add(&mut self, q: &[f32; QUANTILES], gap_s: i64) {
        let y = (gap_s.max(0) as f64).ln_1p();
        self.scored += 1;
        self.error += (y - f64::from(q[QUANTILES / 2])).abs();
        let mut loss = 0.0;
        for (i, q) in q.iter().enumerate() {
            let (level, off) = ((i + 1) as f64 / (QUANTILES + 1) as f64, y - f64::from(*q));
            loss += 2.0 * if off >= 0.0 { level * off } else { (level - 1.0) * off };
        }
        self.crps += loss / QUANTILES as f64;
        self.covered += u64::from(f64::from(q[1]) <= y && y <= f64::from(q[QUANTILES - 2]));
    }

    pub(super) fn scores(&self) -> WhenScores {
        let n = self.scored.max(1) as f64;
        WhenScores {
            scored: self.scored,
            mean_abs_log_error: self.error / n,
            crps_log: self.crps / n,
            cover_10_90: self.covered as f64 / n,
        }
    }
}
