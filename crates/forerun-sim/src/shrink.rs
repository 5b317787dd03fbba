//! Makes a failing scenario smaller: drops faults and requests while it still fails by the same rule.

use crate::faults::Fault;
use crate::scenario::Scenario;
use crate::world::{Ended, run};

/// Runs that shrinking may take.
const RUNS_MAX: u32 = 600;

/// The smallest scenario found that breaks the same rule, and how it ended. The scenario must fail.
#[must_use]
pub fn shrink(scenario: &Scenario) -> (Scenario, Ended) {
    let mut best = Scenario { tell: false, ..scenario.clone() };
    let mut ended = run(&best);
    let Some(rule) = ended.failure.as_ref().map(|f| f.rule) else { return (best, ended) };
    let mut runs = 0;
    let mut try_it = |candidate: Scenario, best: &mut Scenario, ended: &mut Ended| {
        runs += 1;
        if runs > RUNS_MAX {
            return false;
        }
        let result = run(&candidate);
        let fails = result.failure.as_ref().is_some_and(|f| f.rule == rule);
        if fails {
            (*best, *ended) = (candidate, result);
        }
        fails
    };
    for fault in Fault::ALL {
        let mut candidate = best.clone();
        candidate.off.insert(*fault);
        try_it(candidate, &mut best, &mut ended);
    }
    let count = ended.requests;
    let mut size = count.div_ceil(2).max(1);
    loop {
        let mut from = 0;
        while from < count {
            let mut candidate = best.clone();
            candidate.skipped_requests.extend(from..(from + size).min(count));
            if candidate.skipped_requests.len() > best.skipped_requests.len() {
                try_it(candidate, &mut best, &mut ended);
            }
            from += size;
        }
        if size == 1 {
            break;
        }
        size = size.div_ceil(2);
    }
    for (fault, struck) in ended.struck.clone() {
        for n in 1..=struck.min(200) {
            let mut candidate = best.clone();
            if candidate.skipped_faults.insert((fault, n)) {
                try_it(candidate, &mut best, &mut ended);
            }
        }
    }
    let ended = run(&Scenario { tell: true, ..best.clone() });
    (best, ended)
}
