//! Whether the bugs that are built in on purpose are caught, and which fault each needs.

use crate::faults::Fault;
use crate::scenario::Scenario;
use crate::world::{Failure, run};
use forerun_core::Canary;
use std::collections::BTreeSet;

/// Seeds that a canary has to be caught in.
pub const BUDGET: u32 = 500;

/// How a canary was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    pub seeds: u32,
    pub seed: u64,
    pub failure: Failure,
}

/// Runs seeds from 1 until the canary is caught in one that holds without it; `None` where the budget does not do.
#[must_use]
pub fn catch(canary: Canary, off: &BTreeSet<Fault>, budget: u32) -> Option<Caught> {
    (1..=budget).find_map(|seeds| {
        let seed = u64::from(seeds);
        let scenario = Scenario { seed, off: off.clone(), canary: Some(canary), ..Scenario::default() };
        let failure = run(&scenario).failure?;
        let holds = run(&Scenario { canary: None, ..scenario }).failure.is_none();
        holds.then_some(Caught { seeds, seed, failure })
    })
}

/// The table of canaries, as Markdown; and those that were not caught.
#[must_use]
pub fn table(caught: &[(Canary, Option<Caught>)]) -> (String, Vec<Canary>) {
    let mut text = "| bug built in | seeds until caught | by the rule |\n|---|---:|---|\n".to_owned();
    let mut missed = Vec::new();
    for (canary, caught) in caught {
        match caught {
            Some(c) => {
                text += &format!("| `{}` | {} | `{}` |\n", canary.name(), c.seeds, c.failure.rule);
            }
            None => {
                text += &format!("| `{}` | not caught | |\n", canary.name());
                missed.push(*canary);
            }
        }
    }
    (text, missed)
}
