//! "Within the next N" instead of "next".

use super::PredictError;
use forerun_core::profile::next::{History, Predictor};
use forerun_core::profile::table::spread;
use forerun_trace::{Sequences, Steps, csv_cell};
use serde::Serialize;
use std::io::Write;

/// Blocks of IPredict's protocol (Gueniche, Fournier-Viger et al., *CPT+: decreasing the time/space complexity of the
/// compact prediction tree*, PAKDD '15): each is predicted by a model that learned the other 13.
pub const FOLDS: usize = 14;
/// Items before the window that are looked at.
const CONTEXT: usize = 5;

/// How many sequences had the one predicted item in their last N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FoldScores {
    pub sequences: u64,
    pub right: u64,
    pub wrong: u64,
    /// Not longer than the window.
    pub too_short: u64,
    /// Right, of all sequences.
    pub overall: f64,
}

fn after(items: &[u32]) -> History {
    let mut history = History::default();
    items[items.len().saturating_sub(CONTEXT)..].iter().for_each(|item| history.push(*item, None));
    history
}

/// What is scored is the last window of a sequence, so that is what the mixers learn on, and the one before it: on the
/// first half of the folds that was better than one on both public sets; three were better still on one and worse on the
/// other. What follows what is counted at every place.
const WEIGHED: usize = 2;

fn learn(model: &mut Predictor, sequence: &[u32], window: usize) {
    let places = (sequence.len() + 1).saturating_sub(window);
    let within = |from: usize| (after(&sequence[..from]), &sequence[from..from + window]);
    for (before, happened) in (1..places).skip(places.saturating_sub(1 + WEIGHED)).map(within) {
        model.weigh_after(&before, happened);
    }
    for (before, happened) in (1..places).map(within) {
        model.count_after(&before, happened);
    }
}

/// The sequences in an order that has nothing to do with the file's: a frozen model must not be most like the last that
/// it learned.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|n| spread(*n as u64));
    order
}

/// IPredict's protocol. Rows `fold,sequence,item` without a header; none for a sequence that is too short.
///
/// # Errors
/// Rows that cannot be written.
pub fn predict_folds(
    data: &Sequences,
    window: usize,
    memory_bytes: usize,
    mut rows: Option<&mut dyn Write>,
    progress: &mut dyn FnMut(u64),
) -> Result<FoldScores, PredictError> {
    let count = data.sequences.len();
    let size = (count / FOLDS).max(1);
    let fold_of = |n: usize| (n / size).min(FOLDS - 1);
    let mut scores = FoldScores { sequences: count as u64, ..FoldScores::default() };
    let mut ranked = Vec::new();
    let order = shuffled(count);
    for fold in 0..FOLDS {
        let mut model = Predictor::new(memory_bytes);
        for (done, n) in order.iter().copied().enumerate().filter(|(_, n)| fold_of(*n) != fold) {
            learn(&mut model, &data.sequences[n], window);
            progress((fold * count + done) as u64);
        }
        for (n, sequence) in data.sequences.iter().enumerate().filter(|(n, _)| fold_of(*n) == fold) {
            if sequence.len() <= window {
                scores.too_short += 1;
                continue;
            }
            let (before, last) = sequence.split_at(sequence.len() - window);
            model.ask_after(&after(before));
            model.ranked(&mut ranked);
            let Some((item, _)) = ranked.first() else { continue };
            *(if last.contains(item) { &mut scores.right } else { &mut scores.wrong }) += 1;
            if let Some(rows) = &mut rows {
                writeln!(rows, "{fold},{n},{}", csv_cell(&data.items[*item as usize]))?;
            }
        }
    }
    scores.overall = scores.right as f64 / count.max(1) as f64;
    Ok(scores)
}

/// One pass through a stream: before each scored step the one item that is likeliest among its user's next `window`.
/// What it learns from is complete: a place is learned once its whole window has passed. Rows `user,index,item`.
///
/// # Errors
/// Rows that cannot be written.
pub fn predict_windows(
    steps: &Steps,
    window: usize,
    memory_bytes: usize,
    mut rows: Option<&mut dyn Write>,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, PredictError> {
    let mut model = Predictor::new(memory_bytes);
    let mut recent: Vec<Vec<u32>> = vec![Vec::new(); steps.users.len()];
    let mut ranked = Vec::new();
    let mut said = 0;
    for (n, step) in steps.steps.iter().enumerate() {
        let items = &mut recent[step.user as usize];
        if step.scored {
            model.ask_after(&after(items));
            model.ranked(&mut ranked);
            said += 1;
            if let (Some(rows), Some((item, _))) = (&mut rows, ranked.first()) {
                let user = csv_cell(&steps.users[step.user as usize]);
                writeln!(rows, "{user},{},{}", step.index, csv_cell(&steps.items[*item as usize]))?;
            }
        }
        items.push(step.item);
        if items.len() > window {
            let (before, within) = items.split_at(items.len() - window);
            let before = after(before);
            model.weigh_after(&before, within);
            model.count_after(&before, within);
        }
        if items.len() >= CONTEXT + window {
            items.remove(0);
        }
        if n % 4096 == 0 {
            progress(n as u64);
        }
    }
    Ok(said)
}
