//! The load of each service, step by step, and what it is forecast to be: quantiles of the requests at a time over the
//! steps that a start takes, by the models of [`crate::forecast::series`] and whatever a model elsewhere tells.
//!
//! A service is forecast once a step, some of them at a time, so that ten thousand take nobody's turn; trees are fitted a
//! slice at a time beside that. A step in which no router told anything is unknown, and not zero.

use crate::forecast::series::live::Grower;
use crate::forecast::series::mix::NAMES;
use crate::forecast::series::track::{Shared, Teaches, Track};
use crate::forecast::series::{HORIZON_MAX, LEVELS, MEDIAN, Past, Quantiles, clean, usual_change};
use forerun_types::{ServiceId, Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What one value is the highest load of.
const STEP: Span = Span::from_secs(60);
/// Steps of a day, which is what comes round.
const DAY: usize = 1_440;
/// Values that all services together may keep; each keeps an even part, within these.
const VALUES_MAX: usize = 1 << 19;
const KEPT_LEAST: usize = 240;
const KEPT_MOST: usize = 8 * DAY;
/// With fewer values nothing is forecast.
const VALUES_LEAST: usize = 10;
/// Steps ahead: twice a start, within these.
const AHEAD_LEAST: u64 = 5;
const AHEAD_MOST: u64 = 30;
/// Forecasts that one tick makes, and services that it looks at to find them.
const PER_TICK: usize = 8;
/// Forecasts that a tick does not make when it does a slice of a fit.
const FIT_COSTS: usize = 4;
const LOOKS_PER_TICK: usize = 1_024;
/// Between two such ticks.
const TICKS_APART: Span = Span::from_millis(20);
/// Ended steps that are kept: a service's turn comes sooner, but among more services than a step has turns for.
const ENDED_KEPT: usize = 64;
/// A step in which nobody told anything.
const UNKNOWN: u32 = u32::MAX;
/// What a record of coverage keeps of itself with each step: about the last five hours count.
const COVERAGE_KEPT: f64 = 0.997;
/// Steps that coverage is told from.
const COVERAGE_LEAST: f64 = 30.0;

/// Loads and forecasts of all services. Nothing is kept until it is switched on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Loads {
    on: bool,
    services: Vec<Option<Load>>,
    count: usize,
    /// When the running step began; 0 before the first.
    began: Time,
    /// The last steps that have ended: what each was to a service is noted when the service has its turn, or is next told
    /// of.
    ended: VecDeque<Ended>,
    /// How many have ended.
    passed: u64,
    /// The next to be forecast, and how many are left in this step. They take turns also where a step is too short for
    /// all.
    turn: usize,
    left: usize,
    next_tick: Time,
    shared: Shared,
    grower: Grower,
}

/// Steps that ended together: more than one where time has jumped.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ended {
    began: Time,
    /// Steps that had ended before these.
    before: u64,
    steps: u64,
    /// Whether a router was there to say what the load is.
    heard: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Load {
    /// Steps that have ended and are noted.
    noted: u64,
    /// The most requests at a time in each step, oldest first.
    values: Vec<u32>,
    now: u32,
    /// Since the running step began.
    peak: u32,
    /// Steps since there was any.
    quiet: usize,
    track: Track,
    told: Option<Told>,
    outside: Option<Outside>,
    coverage: Coverage,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    from: Time,
    steps: Vec<Quantiles>,
    weights: Vec<f64>,
}

/// What a model elsewhere said.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Outside {
    from: Time,
    step: Span,
    /// Thousandths.
    quantiles: Vec<[u32; LEVELS.len()]>,
}

/// How much of what came was at most what each level said one step before.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Coverage {
    under: [f64; LEVELS.len()],
    steps: f64,
}

/// A service's forecast, for people and metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadForecast {
    /// When the first step begins.
    pub from: Time,
    pub step: Span,
    /// The most requests at a time in each step, at [`LEVELS`].
    pub steps: Vec<Quantiles>,
    /// What the models weigh in the median, heaviest first.
    pub weights: Vec<(&'static str, f64)>,
    /// How much of the load was at most what each level had said; `None` before half an hour of it.
    pub coverage: Option<Quantiles>,
}

impl LoadForecast {
    /// The most requests at a time of all steps, at one of [`LEVELS`].
    #[must_use]
    pub fn most(&self, level: usize) -> f64 {
        self.steps.iter().filter_map(|step| step.get(level)).copied().fold(0.0, f64::max)
    }
}

impl Loads {
    pub(crate) fn switch_on(&mut self) {
        self.on = true;
    }

    pub(crate) fn gone(&mut self, id: ServiceId) {
        if let Some(slot) = self.services.get_mut(id.0 as usize) {
            self.count -= usize::from(slot.take().is_some());
        }
    }

    /// A new life: what runs now is not known until routers tell.
    pub(crate) fn began(&mut self) {
        let kept = self.kept();
        for load in self.services.iter_mut().flatten() {
            load.note(&self.ended, kept);
            (load.now, load.peak) = (0, 0);
        }
    }

    /// So many requests at a time were there since the last call, and so many are now.
    pub(crate) fn seen(&mut self, id: ServiceId, peak: u32, now: u32) {
        if !self.on || (peak == 0 && now == 0 && self.get(id).is_none()) {
            return;
        }
        let kept = self.kept();
        self.slot(id);
        let Some(load) = self.services.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        load.note(&self.ended, kept);
        (load.peak, load.now) = (load.peak.max(peak).max(now), now);
    }

    fn get(&self, id: ServiceId) -> Option<&Load> {
        self.services.get(id.0 as usize)?.as_ref()
    }

    fn slot(&mut self, id: ServiceId) -> &mut Load {
        let at = id.0 as usize;
        if self.services.len() <= at {
            self.services.resize_with(at + 1, || None);
        }
        let (slot, noted) = (&mut self.services[at], self.passed);
        self.count += usize::from(slot.is_none());
        slot.get_or_insert_with(|| Load { noted, ..Load::default() })
    }

    /// A model elsewhere says what comes from `from` on, in thousandths of a request at a time.
    pub(crate) fn outside(&mut self, id: ServiceId, from: Time, step: Span, told: &[[u32; LEVELS.len()]]) {
        if self.on && step > Span::ZERO {
            let quantiles = told.iter().take(HORIZON_MAX).copied().collect();
            self.slot(id).outside = Some(Outside { from, step, quantiles });
        }
    }

    fn kept(&self) -> usize {
        (VALUES_MAX / self.count.max(1)).clamp(KEPT_LEAST, KEPT_MOST)
    }

    /// Ends the steps that are over. `heard` tells whether a router is there to say what the load is.
    pub(crate) fn pass(&mut self, now: Time, heard: bool) {
        if !self.on || now < self.began + STEP {
            return;
        }
        let start = Time(now.0 - now.0 % STEP.0);
        if self.began > Time::default() {
            let steps = start.since(self.began).0 / STEP.0;
            if self.ended.len() == ENDED_KEPT {
                self.ended.pop_front();
            }
            self.ended.push_back(Ended { began: self.began, before: self.passed, steps, heard });
            self.passed += steps;
        }
        (self.began, self.left, self.next_tick) = (start, self.services.len(), now);
    }

    /// When there is something to do next.
    pub(crate) fn next_due(&self) -> Time {
        match self.on && self.count > 0 {
            true if self.left > 0 || self.grower.is_busy() => self.next_tick,
            true => self.began + STEP,
            false => Time::NEVER,
        }
    }

    /// Forecasts some services, and goes on with the fit that is under way; `start` tells how long a start of one takes.
    pub(crate) fn tick(&mut self, now: Time, start: impl Fn(ServiceId) -> Span) {
        if !self.on || now < self.next_tick || (self.left == 0 && !self.grower.is_busy()) {
            return;
        }
        let (mut made, series, kept) = (0, self.count, self.kept());
        if self.grower.is_busy() {
            made += FIT_COSTS;
            if let Some(trees) = self.grower.slice() {
                self.shared.renew(trees);
            }
        }
        for _ in 0..LOOKS_PER_TICK.min(self.left) {
            if made >= PER_TICK {
                break;
            }
            let at = self.turn % self.services.len();
            (self.turn, self.left) = (at + 1, self.left - 1);
            let Some(load) = &mut self.services[at] else { continue };
            load.note(&self.ended, kept);
            let ahead = (2 * start(ServiceId(at as u32)).0).div_ceil(STEP.0).clamp(AHEAD_LEAST, AHEAD_MOST);
            let teaches = Teaches { shared: &mut self.shared, series, rows: Some((&mut self.grower, DAY)) };
            made += usize::from(load.forecast(self.began, ahead as usize, teaches));
        }
        self.next_tick = now + TICKS_APART;
    }

    pub(crate) fn forecast(&self, id: ServiceId) -> Option<LoadForecast> {
        let load = self.get(id)?;
        let told = load.told.as_ref()?;
        let mut weights: Vec<(&'static str, f64)> =
            NAMES.into_iter().zip(told.weights.iter().copied()).filter(|(_, w)| *w > 0.0).collect();
        weights.sort_by(|a, b| b.1.total_cmp(&a.1));
        let coverage = load.coverage.told();
        Some(LoadForecast { from: told.from, step: STEP, steps: told.steps.clone(), weights, coverage })
    }
}

impl Load {
    /// Notes what the steps were that have ended since it was last told of.
    fn note(&mut self, ended: &VecDeque<Ended>, kept: usize) {
        for steps in ended {
            // Of those before nobody knows any more what they were.
            self.push(UNKNOWN, steps.before.saturating_sub(self.noted));
            if steps.before + steps.steps > self.noted {
                self.end(steps);
            }
            self.noted = self.noted.max(steps.before + steps.steps);
        }
        // Moved in one go now and then.
        if self.values.len() > kept + kept / 8 {
            let over = self.values.len() - kept;
            self.values.drain(..over);
            self.track.drop_oldest(over);
        }
    }

    fn push(&mut self, value: u32, times: u64) {
        self.values.extend(std::iter::repeat_n(value, times.min(KEPT_MOST as u64) as usize));
    }

    fn end(&mut self, ended: &Ended) {
        let (first, rest) = if ended.heard { (self.peak, self.now) } else { (UNKNOWN, UNKNOWN) };
        if ended.heard
            && let Some(said) =
                self.told.as_ref().filter(|t| t.from == ended.began).and_then(|t| t.steps.first())
        {
            self.coverage.learn(said, f64::from(self.peak));
        }
        self.push(first, 1);
        self.push(rest, ended.steps - 1);
        let steps = ended.steps as usize;
        self.quiet = match (self.peak, self.now) {
            (0, 0) => self.quiet + steps,
            (_, 0) => steps - 1,
            _ => 0,
        };
        self.peak = self.now;
    }

    /// False where there is nothing to forecast.
    fn forecast(&mut self, from: Time, ahead: usize, teaches: Teaches<'_>) -> bool {
        // Without any load in all that is kept there is nothing that a series could tell.
        if self.values.len() < VALUES_LEAST || (self.quiet >= self.values.len() && self.outside.is_none()) {
            self.told = None;
            return false;
        }
        let number = |v: &u32| if *v == UNKNOWN { f64::NAN } else { f64::from(*v) };
        let mut values: Vec<f64> = self.values.iter().map(number).collect();
        let known = clean(&mut values);
        let scale = usual_change(&values, DAY);
        let Teaches { shared, series, rows } = teaches;
        self.track.learn(&values, &known, Some(Teaches { shared: &mut *shared, series, rows }));
        let past = Past { values: &values, season: DAY, horizon: ahead, scale };
        let outside = self.outside.as_ref().and_then(|o| o.steps(from, ahead)).unwrap_or_default();
        // One forecast at a time is followed to its end: more would tell little that is new, and take memory.
        let told = match self.track.waits() {
            true => self.track.look(&past, shared, &outside),
            false => self.track.forecast(&past, shared, &outside),
        };
        let weights = told.shares[MEDIAN].to_vec();
        self.told = Some(Told { from, steps: told.steps, weights });
        true
    }
}

impl Outside {
    /// What was said of so many steps from `from` on; `None` if that is not all of them.
    fn steps(&self, from: Time, ahead: usize) -> Option<Vec<Quantiles>> {
        let said = |i: usize| {
            let at = from + Span(STEP.0 * i as u64);
            let since = at.0.checked_sub(self.from.0)?;
            let told = self.quantiles.get((since / self.step.0) as usize)?;
            Some(told.map(|milli| f64::from(milli) / 1e3))
        };
        (0..ahead).map(said).collect()
    }
}

impl Coverage {
    fn learn(&mut self, said: &Quantiles, came: f64) {
        for (under, said) in self.under.iter_mut().zip(said) {
            *under = COVERAGE_KEPT * *under + if came <= *said { 1.0 } else { 0.0 };
        }
        self.steps = COVERAGE_KEPT * self.steps + 1.0;
    }

    fn told(&self) -> Option<Quantiles> {
        (self.steps >= COVERAGE_LEAST).then(|| self.under.map(|under| under / self.steps))
    }
}

#[cfg(test)]
mod tests;
