//! The quick model on a recorded stream.

use super::scores::Tally;
use super::{PredictError, PredictScores, RANKS, rows, user_key};
use forerun_core::profile::next::Quick;
use forerun_trace::Steps;
use std::io::Write;

/// What anybody has turned to so far.
struct Seen {
    items: Vec<bool>,
    distinct: usize,
}

impl Seen {
    fn add(&mut self, item: u32) {
        let held = &mut self.items[item as usize];
        self.distinct += usize::from(!*held);
        *held = true;
    }
}

/// One pass through the steps by the quick model. What it gives to no item that it thinks of is shared evenly by all
/// other items seen so far and something new. `memory_bytes` bounds the model; `progress` is told of the steps done.
///
/// # Errors
/// Rows that cannot be written.
pub fn predict_quick(
    steps: &Steps,
    memory_bytes: usize,
    mut out: Option<&mut dyn Write>,
    progress: &mut dyn FnMut(u64),
) -> Result<PredictScores, PredictError> {
    let mut model = Quick::new(memory_bytes);
    let mut tally = Tally::new(steps.users.len());
    let mut seen = Seen { items: vec![false; steps.items.len()], distinct: 0 };
    let (mut top, mut ranked) = (Vec::new(), Vec::new());
    for (n, step) in steps.steps.iter().enumerate() {
        let user = user_key(step.user);
        model.ask(user);
        if step.scored {
            model.top(RANKS, &mut top);
            ranked.clear();
            ranked.extend(top.iter().map(|(item, p)| (*item, f64::from(*p))));
            let others = 1 + seen.distinct.saturating_sub(model.count());
            let other = f64::from(model.rest()) / others as f64;
            // Nothing that is not listed is claimed to be likelier than the last that is.
            let last = if ranked.len() < RANKS { 1.0 } else { ranked[RANKS - 1].1 };
            let happened = match model.chance_of(step.item).map(f64::from) {
                Some(p) => p,
                None if seen.items[step.item as usize] => other.min(last),
                None => other,
            };
            tally.add(step, &ranked, happened);
            if let Some(out) = &mut out {
                rows::row(out, steps, step, &ranked, happened, other)?;
            }
        } else {
            tally.pass(step);
        }
        seen.add(step.item);
        model.learn(user, step.item);
        if n % 4096 == 0 {
            progress(n as u64);
        }
    }
    Ok(tally.scores(model.bytes(), model.users()))
}
