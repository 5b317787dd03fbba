//! The plan as a small integer problem: of each service on each site one of several offers (so many instances of it, hot,
//! frozen or generic), so that all fit into the site and are together worth the most.
//!
//! A multiple-choice knapsack with several resources (H. Kellerer, U. Pferschy, D. Pisinger, *Knapsack Problems*, 2004,
//! chapter 11). Sites do not compete, so each is solved alone ([`site`]). What a resource is worth where it is short is its
//! shadow price ([`prices`]): at the prices that make the Lagrangian dual least (M. L. Fisher, *The Lagrangian relaxation
//! method for solving integer programming problems*, Management Science 27(1), 1981) most services choose for themselves,
//! and only those on the edge are tried out ([`search`]). The dual is also a bound: no plan is worth more.
//!
//! Pure integers in and out. What is chosen depends on the problem alone.

mod prices;
mod search;
mod site;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// CPU, memory, network, storage: whatever units the capacities have.
pub const RESOURCES: usize = 4;

/// One way to have a service on a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is worth, less its keeping; thousandths of a GB-second, or whatever unit all share.
    pub value: i64,
    pub takes: [u64; RESOURCES],
}

/// A service on a site. Not to have it at all is always possible: it takes nothing and is worth nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub offers: Vec<Offer>,
    /// The offer that is guaranteed: it or a later one is chosen before anything that is guaranteed nothing.
    pub guaranteed: Option<u32>,
    /// What it costs to have another offer than before.
    pub switching: i64,
}

/// What a site can hold, and who wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// 0 is no bound.
    pub capacity: [u64; RESOURCES],
    pub choices: Vec<Choice>,
}

/// What was decided for one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Of each choice the offer, if any.
    pub offers: Vec<Option<u32>>,
    /// What all are worth together, what changes cost not counted.
    pub value: i64,
    /// What one unit of a resource is worth; 0 where there is enough.
    pub prices: [f64; RESOURCES],
    /// No plan is worth more, changes counted.
    pub bound: f64,
}

/// Decides for each site. `previous` is what was decided before, empty or shorter where nothing was. Deciding anew with
/// what was decided changes nothing.
#[must_use]
pub fn solve(sites: &[Site], previous: &[Vec<Option<u32>>]) -> Vec<Decided> {
    sites
        .iter()
        .enumerate()
        .map(|(at, site)| replan(site, previous.get(at).map_or(&[], Vec::as_slice)))
        .collect()
}

/// Improvements in a row; each is of what the one before left, and the second hardly ever finds any.
const ROUNDS: usize = 8;

/// Decides for one site anew, as [`solve`] does: what has changed on one is nothing to the others.
#[must_use]
pub fn replan(site: &Site, previous: &[Option<u32>]) -> Decided {
    let mut before: Vec<Option<u32>> = (0..site.choices.len())
        .map(|at| {
            previous.get(at).copied().flatten().filter(|o| (*o as usize) < site.choices[at].offers.len())
        })
        .collect();
    let mut decided = site::decide(site, &before);
    for _ in 0..ROUNDS {
        if decided.offers == before {
            break;
        }
        before.clone_from(&decided.offers);
        decided = site::decide(site, &before);
    }
    decided
}
