//! Next activity on a recorded stream: the predictor of the decision core goes through it once, says before each step
//! what it will be, and learns it after.

mod quick;
mod rows;
mod scores;
mod window;

use forerun_core::profile::next::{Predictor, QUANTILES, When};
use forerun_trace::{Step, Steps};
pub use quick::predict_quick;
pub use scores::{PredictScores, WhenScores};
use scores::{Tally, WhenTally};
use std::collections::HashMap;
use std::io::{self, Write};
pub use window::{FOLDS, FoldScores, predict_folds, predict_windows};

/// Share of the memory that goes to the times between steps, if they are asked for.
const WHEN_SHARE: f64 = 0.2;
/// Ranks in a row.
const RANKS: usize = 10;

/// What may be wrong with a prediction.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    #[error("cannot write the predictions: {0}")]
    Write(#[from] io::Error),
    #[error("--when: the steps have no times, so there is nothing to tell")]
    NoClock,
    #[error("no step is scored: {0}")]
    NothingScored(&'static str),
}

/// Where rows go; `None` writes none.
#[derive(Default)]
pub struct PredictOut<'a> {
    pub rows: Option<&'a mut dyn Write>,
    pub when: Option<&'a mut dyn Write>,
}

impl std::fmt::Debug for PredictOut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PredictOut").field("rows", &self.rows.is_some()).finish_non_exhaustive()
    }
}

/// Which steps are scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PredictSplit {
    /// The last fifth of each user's, but never a user's first.
    EachUser,
    /// All after a share of the stream, but no user's first.
    After(f64),
    /// All from so many seconds after the file's zero on, but no user's first.
    From(i64),
}

/// Marks the steps that are scored.
///
/// # Errors
/// None is.
pub fn mark_scored(steps: &mut Steps, split: PredictSplit) -> Result<(), PredictError> {
    let mut totals = vec![0u64; steps.users.len()];
    steps.steps.iter().for_each(|s| totals[s.user as usize] += 1);
    let count = steps.steps.len() as f64;
    for (n, step) in steps.steps.iter_mut().enumerate() {
        let index = u64::from(step.index);
        step.scored = index >= 1
            && match split {
                PredictSplit::EachUser => index >= totals[step.user as usize] * 8 / 10,
                PredictSplit::After(share) => n as f64 >= share * count,
                PredictSplit::From(from_s) => step.at_s.is_some_and(|at| at >= from_s),
            };
    }
    if steps.steps.iter().any(|s| s.scored) {
        return Ok(());
    }
    Err(PredictError::NothingScored(
        "no user has a second step there: give more of the trace or another --split",
    ))
}

/// The number by which the core knows a user of a file: never nobody's.
fn user_key(user: u32) -> u64 {
    forerun_core::profile::table::spread(u64::from(user)).max(1)
}

/// One pass through the steps. `memory_bytes` bounds the model; `progress` is told of the steps done.
///
/// # Errors
/// Rows that cannot be written; times that are asked for and not there.
pub fn predict_steps(
    steps: &Steps,
    memory_bytes: usize,
    out: &mut PredictOut<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<PredictScores, PredictError> {
    let with_when = out.when.is_some();
    if with_when && steps.steps.iter().any(|s| s.at_s.is_none()) {
        return Err(PredictError::NoClock);
    }
    let when_bytes = if with_when { (memory_bytes as f64 * WHEN_SHARE) as usize } else { 0 };
    let mut run = Run {
        steps,
        predictor: Predictor::new(memory_bytes - when_bytes),
        when: with_when.then(|| WhenRun { model: When::new(when_bytes), said: HashMap::new() }),
        now_s: None,
        ranked: Vec::new(),
        tally: Tally::new(steps.users.len()),
        when_tally: WhenTally::default(),
    };
    for (n, step) in steps.steps.iter().enumerate() {
        run.step(step, out)?;
        if n % 4096 == 0 {
            progress(n as u64);
        }
    }
    let mut scores = run.tally.scores(run.predictor.bytes(), run.predictor.users());
    scores.when = with_when.then(|| run.when_tally.scores());
    Ok(scores)
}

struct WhenRun {
    model: When,
    /// What was said after each user's last step.
    said: HashMap<u32, [f32; QUANTILES]>,
}

struct Run<'a> {
    steps: &'a Steps,
    predictor: Predictor,
    when: Option<WhenRun>,
    /// The latest time in the stream so far: a step's own time is not known before it happens.
    now_s: Option<i64>,
    ranked: Vec<(u32, f64)>,
    tally: Tally,
    when_tally: WhenTally,
}

impl Run<'_> {
    fn step(&mut self, step: &Step, out: &mut PredictOut<'_>) -> Result<(), PredictError> {
        let (user, group) = (user_key(step.user), u64::from(step.group));
        self.predictor.ask(user, group, self.now_s);
        if step.scored {
            self.predictor.ranked(&mut self.ranked);
            let new = self.predictor.chance_of_new();
            let mut happened = self.predictor.chance_of(step.item);
            let listed = self.ranked.iter().take(RANKS).any(|(item, _)| *item == step.item);
            // What is weighed only with all others can come out above the last rank; it is not claimed to.
            if !listed && happened != new && self.ranked.len() >= RANKS {
                happened = happened.min(self.ranked[RANKS - 1].1);
            }
            self.tally.add(step, &self.ranked, happened);
            self.tally.weigh(&self.predictor);
            if let Some(rows) = &mut out.rows {
                rows::row(rows, self.steps, step, &self.ranked, happened, new)?;
            }
        } else {
            self.tally.pass(step);
        }
        if let Some(when) = &mut self.when {
            let gap_s = self.predictor.history(user).and_then(|h| h.gap_to(step.at_s));
            if step.scored
                && let (Some(said), Some(gap_s)) = (when.said.get(&step.user), gap_s)
            {
                self.when_tally.add(said, gap_s);
                if let Some(rows) = &mut out.when {
                    rows::when(rows, &self.steps.users[step.user as usize], step.index, said)?;
                }
            }
            if let Some(history) = self.predictor.history(user) {
                when.model.learn(user, group, history, gap_s);
            }
        }
        self.predictor.learn(user, group, step.at_s, step.item);
        if let Some(when) = &mut self.when
            && let Some(history) = self.predictor.history(user)
        {
            when.model.ask(user, group, history);
            when.said.insert(step.user, when.model.quantiles());
        }
        self.now_s = self.now_s.max(step.at_s);
        Ok(())
    }
}
