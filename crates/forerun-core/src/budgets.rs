//! Cold-start budgets of SLA classes: what part of a class's requests of the last day may have been cold starts, what of
//! that is spent, and how much dearer its next ones count for the plan.
//!
//! An error budget (Beyer et al., *Site Reliability Engineering*, 2016, chapter 3) that slows the plan down on letting go:
//! while less than half is spent a cold start counts as configured, never less; from there its price rises evenly to
//! [`DEAREST_MILLI`] where all is spent, and stays there.

use crate::core::Core;
use crate::policy::Policy;
use forerun_types::{Finished, ServiceId, ServiceSpec, SlaClass, Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A day, an hour at a time: long enough that one bad minute does not decide, short enough to see an effect.
const HOUR: Span = Span::from_secs(3_600);
const HOURS: u64 = 24;
/// Spent so far, in thousandths, the price stays as it is: half is what an even spending leaves at noon.
const CALM_MILLI: u64 = 500;
/// Two doublings, and no more: a budget that no keeping can meet, for needs that nobody foresees, would else buy any amount
/// of idle memory.
pub(crate) const DEAREST_MILLI: u32 = 4_000;
/// Prices move in steps, so that not each request changes every value a little.
const STEP_MILLI: u32 = 250;

/// The classes that have a budget, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Budgets(BTreeMap<String, Budget>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Budget {
    /// Cold starts that are allowed among a million requests.
    ppm: u32,
    /// Oldest first; hours without requests are left out.
    hours: VecDeque<Hour>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Hour {
    number: u64,
    requests: u64,
    cold_starts: u64,
}

/// A class's cold-start budget as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetStatus {
    pub class: String,
    /// Cold starts that are allowed among a million requests.
    pub budget_ppm: u32,
    /// Requests of the last day that were answered, and those of them that were cold starts.
    pub requests: u64,
    pub cold_starts: u64,
    /// What of the budget is spent, in thousandths; above a thousand where it is overspent.
    pub spent_milli: u64,
    /// What a cold start counts, in thousandths of its configured price.
    pub dearer_milli: u32,
}

/// A description as a journal has it: the core must not know more of it than a replay does.
pub(crate) fn as_journaled(spec: &Arc<ServiceSpec>) -> Arc<ServiceSpec> {
    match spec.sla.cold_start_budget_ppm {
        0 => Arc::clone(spec),
        _ => {
            let sla = SlaClass { cold_start_budget_ppm: 0, ..spec.sla.clone() };
            Arc::new(ServiceSpec { sla, ..ServiceSpec::clone(spec) })
        }
    }
}

impl Budget {
    fn note(&mut self, now: Time, is_cold: bool) {
        let number = now.0 / HOUR.0;
        while self.hours.front().is_some_and(|hour| hour.number + HOURS <= number) {
            self.hours.pop_front();
        }
        if self.hours.back().is_none_or(|hour| hour.number != number) {
            self.hours.push_back(Hour { number, ..Hour::default() });
        }
        if let Some(hour) = self.hours.back_mut() {
            hour.requests += 1;
            hour.cold_starts += u64::from(is_cold);
        }
    }

    /// Requests and cold starts of the last day.
    fn counts(&self, now: Time) -> (u64, u64) {
        let since = (now.0 / HOUR.0).saturating_sub(HOURS - 1);
        let day = self.hours.iter().filter(|hour| hour.number >= since);
        day.fold((0, 0), |sum, hour| (sum.0 + hour.requests, sum.1 + hour.cold_starts))
    }

    /// In thousandths. One cold start is always allowed: of few requests it is no part that tells anything.
    fn spent_milli(&self, now: Time) -> u64 {
        let (requests, cold_starts) = self.counts(now);
        let allowed_ppm = (u128::from(requests) * u128::from(self.ppm)).max(1_000_000);
        let spent = u128::from(cold_starts) * 1_000_000_000 / allowed_ppm;
        u64::try_from(spent).unwrap_or(u64::MAX)
    }

    fn dearer_milli(&self, now: Time) -> u32 {
        let beyond = self.spent_milli(now).clamp(CALM_MILLI, 1_000) - CALM_MILLI;
        let rise = u64::from(DEAREST_MILLI - 1_000) * beyond / (1_000 - CALM_MILLI);
        1_000 + rise as u32 / STEP_MILLI * STEP_MILLI
    }
}

impl Budgets {
    /// A class's budget from now on; 0 is none. What was spent counts against a new one too.
    pub(crate) fn set(&mut self, class: &str, ppm: u32) {
        match ppm {
            0 => drop(self.0.remove(class)),
            ppm => self.0.entry(class.to_owned()).or_default().ppm = ppm,
        }
    }

    fn dearer_milli(&self, class: &str, now: Time) -> u32 {
        self.0.get(class).map_or(1_000, |budget| budget.dearer_milli(now))
    }
}

impl<P: Policy> Core<P> {
    /// Cold starts that are allowed among a million requests of a class; 0 where nothing is said of it.
    #[must_use]
    pub fn cold_start_budget(&self, class: &str) -> u32 {
        self.budgets.0.get(class).map_or(0, |budget| budget.ppm)
    }

    /// The budgets of classes that have services, in order of the classes' names.
    pub fn budgets(&self) -> impl Iterator<Item = BudgetStatus> + '_ {
        let now = self.now;
        let used = self.budgets.0.iter().filter(|(class, _)| self.classes.is_used(class));
        used.map(move |(class, budget)| {
            let (requests, cold_starts) = budget.counts(now);
            BudgetStatus {
                class: class.clone(),
                budget_ppm: budget.ppm,
                requests,
                cold_starts,
                spent_milli: budget.spent_milli(now),
                dearer_milli: budget.dearer_milli(now),
            }
        })
    }

    /// A request was answered: it counts for its class, and as a cold start if it was one.
    pub(crate) fn note_spending(&mut self, done: &Finished) {
        if self.budgets.0.is_empty() {
            return;
        }
        let Some(sla) = self.get(done.service).map(|s| &s.spec.sla) else { return };
        // As the router counts: one for whom an instance was only thawed, or given to a key, in good time is none.
        let in_time =
            || self.instances.get(&done.instance).is_some_and(|i| i.resumed) && done.held <= sla.latency;
        let (is_cold, class) = (done.held > Span::ZERO && !in_time(), sla.name.clone());
        let now = self.now;
        if let Some(budget) = self.budgets.0.get_mut(&class) {
            budget.note(now, is_cold);
        }
    }

    /// What a cold start of a service counts now, in thousandths of its configured price.
    pub(crate) fn dearer_milli(&self, id: ServiceId) -> u32 {
        if self.budgets.0.is_empty() {
            return 1_000;
        }
        self.get(id).map_or(1_000, |s| self.budgets.dearer_milli(&s.spec.sla.name, self.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &mut Budget, now: Time, requests: u64, cold_starts: u64) -> (u64, u32) {
        (0..requests).for_each(|n| budget.note(now, n < cold_starts));
        (budget.spent_milli(now), budget.dearer_milli(now))
    }

    /// Guarantee: a cold start never counts for less than configured, and never for more than four times that.
    #[test]
    fn price_rises_from_half_a_budget_to_all_of_it() {
        for (requests, cold_starts, expect) in [
            (0, 0, (0, 1_000)),
            (1_000, 0, (0, 1_000)),
            (1_000, 5, (500, 1_000)),
            (1_000, 6, (600, 1_500)),
            (1_000, 8, (800, 2_750)),
            (1_000, 10, (1_000, 4_000)),
            (1_000, 500, (50_000, 4_000)),
            // Of ten a tenth of a cold start would be allowed.
            (10, 1, (1_000, 4_000)),
            (100, 1, (1_000, 4_000)),
            (200, 1, (500, 1_000)),
        ] {
            let mut budget = Budget { ppm: 10_000, ..Budget::default() };
            let got = spent(&mut budget, Time(HOUR.0 * 500), requests, cold_starts);
            assert_eq!(got, expect, "{cold_starts} of {requests}");
        }
    }

    #[test]
    fn what_is_a_day_old_is_forgotten_and_no_more_is_kept() {
        let mut budget = Budget { ppm: 10_000, ..Budget::default() };
        let at = |hour: u64| Time(HOUR.0 * (1_000 + hour));
        spent(&mut budget, at(0), 1_000, 10);
        assert_eq!(budget.counts(at(23)), (1_000, 10));
        // Also while nothing comes that would push it out.
        assert_eq!((budget.counts(at(24)), budget.dearer_milli(at(24))), ((0, 0), 1_000));
        for hour in 1..200 {
            spent(&mut budget, at(hour), 10, 0);
        }
        assert_eq!((budget.hours.len(), budget.counts(at(199))), (24, (240, 0)));
    }
}
