//! The load of each service, step by step, and what it is forecast to be: quantiles of the requests at a time over the
//! steps that a start takes, by the models of [`crate::forecast::series`] and whatever a model elsewhere tells.
//!
//! A service is forecast once a step, some of them at a time, so that ten thousand take nobody's turn. A step in which no
//! router told anything is unknown, and not zero.

use crate::forecast::series::mix::NAMES;
use crate::forecast::series::track::{Shared, Teaches, Track};
use crate::forecast::series::{HORIZON_MAX, LEVELS, MEDIAN, Past, Quantiles, clean, usual_change};
use forerun_types::{ServiceId, Span, Time};
use serde::{Deserialize, Serialize};

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
const LOOKS_PER_TICK: usize = 1_024;
/// Between two such ticks.
const TICKS_APART: Span = Span::from_millis(20);
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
    /// The next to be forecast in this step.
    turn: usize,
    next_tick: Time,
    shared: Shared,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Load {
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
        for load in self.services.iter_mut().flatten() {
            (load.now, load.peak) = (0, 0);
        }
    }

    /// So many requests at a time were there since the last call, and so many are now.
    pub(crate) fn seen(&mut self, id: ServiceId, peak: u32, now: u32) {
        if !self.on || (peak == 0 && now == 0 && self.get(id).is_none()) {
            return;
        }
        let load = self.slot(id);
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
        let slot = &mut self.services[at];
        self.count += usize::from(slot.is_none());
        slot.get_or_insert_default()
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
        let kept = self.kept();
        if self.began > Time::default() {
            let passed = (start.since(self.began).0 / STEP.0) as usize;
            for load in self.services.iter_mut().flatten() {
                load.pass(self.began, passed, heard, kept);
            }
        }
        (self.began, self.turn, self.next_tick) = (start, 0, now);
    }

    /// When there is something to do next.
    pub(crate) fn next_due(&self) -> Time {
        match self.on && self.count > 0 {
            true if self.turn < self.services.len() => self.next_tick,
            true => self.began + STEP,
            false => Time::NEVER,
        }
    }

    /// Forecasts some services; `start` tells how long a start of one takes.
    pub(crate) fn tick(&mut self, now: Time, start: impl Fn(ServiceId) -> Span) {
        if !self.on || now < self.next_tick || self.turn >= self.services.len() {
            return;
        }
        let series = self.services.len();
        let (mut made, until) = (0, (self.turn + LOOKS_PER_TICK).min(self.services.len()));
        while self.turn < until && made < PER_TICK {
            let at = self.turn;
            self.turn += 1;
            let Some(load) = &mut self.services[at] else { continue };
            let ahead = (2 * start(ServiceId(at as u32)).0).div_ceil(STEP.0).clamp(AHEAD_LEAST, AHEAD_MOST);
            made += usize::from(load.forecast(self.began, ahead as usize, &mut self.shared, series));
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
    /// Ends `passed` steps, the first of which began at `began`.
    fn pass(&mut self, began: Time, passed: usize, heard: bool, kept: usize) {
        let first = if heard { self.peak } else { UNKNOWN };
        if heard
            && let Some(said) = self.told.as_ref().filter(|t| t.from == began).and_then(|t| t.steps.first())
        {
            self.coverage.learn(said, f64::from(self.peak));
        }
        let rest = if heard { self.now } else { UNKNOWN };
        self.values.push(first);
        self.values.extend(std::iter::repeat_n(rest, (passed - 1).min(KEPT_MOST)));
        self.quiet = match (self.peak, self.now) {
            (0, 0) => self.quiet + passed,
            (_, 0) => passed - 1,
            _ => 0,
        };
        self.peak = self.now;
        // Moved in one go now and then.
        if self.values.len() > kept + kept / 8 {
            let over = self.values.len() - kept;
            self.values.drain(..over);
            self.track.drop_oldest(over);
        }
    }

    /// False where there is nothing to forecast. `series`: how many services teach what all share.
    fn forecast(&mut self, from: Time, ahead: usize, shared: &mut Shared, series: usize) -> bool {
        // Without any load in all that is kept there is nothing that a series could tell.
        if self.values.len() < VALUES_LEAST || (self.quiet >= self.values.len() && self.outside.is_none()) {
            self.told = None;
            return false;
        }
        let number = |v: &u32| if *v == UNKNOWN { f64::NAN } else { f64::from(*v) };
        let mut values: Vec<f64> = self.values.iter().map(number).collect();
        let known = clean(&mut values);
        let scale = usual_change(&values, DAY);
        self.track.learn(&values, &known, Some(Teaches { shared: &mut *shared, series }));
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
mod tests {
    use super::*;

    const A: ServiceId = ServiceId(3);
    const MINUTE: u64 = 60_000_000;

    /// Lets so many minutes pass, each with the load that `load` gives for it.
    fn run(loads: &mut Loads, minutes: std::ops::Range<u64>, load: impl Fn(u64) -> Option<u32>) {
        for minute in minutes {
            let at = Time((1_000_000 + minute) * MINUTE);
            loads.pass(at, true);
            while loads.turn < loads.services.len() {
                loads.tick(loads.next_tick, |_| Span::from_secs(30));
            }
            match load(minute) {
                Some(n) => {
                    loads.seen(A, n, 0);
                    loads.pass(at + STEP, true);
                }
                None => loads.pass(at + STEP, false),
            }
        }
    }

    fn on() -> Loads {
        let mut loads = Loads::default();
        loads.switch_on();
        loads
    }

    /// Every ten minutes five requests at a time, else one.
    fn timer(minute: u64) -> Option<u32> {
        Some(if minute.is_multiple_of(10) { 5 } else { 1 })
    }

    #[test]
    fn a_rhythm_is_foreseen_with_its_quantiles() {
        let mut loads = on();
        run(&mut loads, 0..400, timer);
        loads.tick(loads.next_tick, |_| Span::from_secs(30));
        let told = loads.forecast(A).expect("a forecast");
        assert_eq!((told.steps.len(), told.step), (5, STEP));
        // Minute 400 is the next.
        assert_eq!(told.from, Time(1_000_400 * MINUTE));
        assert!(told.steps[0][4] > 4.0, "{:?}", told.steps);
        assert!(told.steps[2][MEDIAN] < 2.0, "{:?}", told.steps);
        for step in &told.steps {
            assert!(step.is_sorted(), "{step:?}");
        }
        let coverage = told.coverage.expect("enough steps");
        assert!(coverage[4] > 0.9 && coverage[0] < coverage[4], "{coverage:?}");
    }

    #[test]
    fn what_nobody_told_is_not_zero() {
        let (mut whole, mut gaps) = (on(), on());
        run(&mut whole, 0..300, |_| Some(7));
        run(&mut gaps, 0..300, |minute| if (200..260).contains(&minute) { None } else { Some(7) });
        for loads in [&mut whole, &mut gaps] {
            loads.tick(loads.next_tick, |_| Span::from_secs(30));
        }
        let median = |loads: &Loads| loads.forecast(A).expect("a forecast").steps[0][MEDIAN];
        assert!((median(&whole) - 7.0).abs() < 0.1 && (median(&gaps) - 7.0).abs() < 0.1);
    }

    #[test]
    fn a_model_elsewhere_is_believed_as_far_as_it_was_right() {
        let weight = |right: bool| {
            let mut loads = on();
            // A load that no rhythm tells.
            let load = |minute: u64| (minute.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as u32;
            for minute in 0..600 {
                let at = Time((1_000_000 + minute) * MINUTE);
                let says = |i: u64| if right { load(minute + i) } else { 40 };
                let told: Vec<[u32; 5]> = (0..5).map(|i| [says(i) * 1_000; 5]).collect();
                loads.outside(A, at, STEP, &told);
                run(&mut loads, minute..minute + 1, |m| Some(load(m)));
            }
            let told = loads.forecast(A).expect("a forecast");
            told.weights.iter().find(|(name, _)| *name == "outside").map_or(0.0, |w| w.1)
        };
        let (right, wrong) = (weight(true), weight(false));
        assert!(right > 0.8 && wrong < 0.1, "{right} {wrong}");
    }

    #[test]
    fn what_is_kept_is_bounded_however_many_there_are() {
        let mut loads = on();
        for id in 0..4_000 {
            loads.seen(ServiceId(id), 1, 1);
        }
        loads.pass(Time(MINUTE), true);
        loads.pass(Time(100_000 * MINUTE), true);
        let kept: usize = loads.services.iter().flatten().map(|l| l.values.len()).sum();
        assert!(kept <= 4_000 * KEPT_LEAST * 9 / 8, "{kept}");
        loads.gone(ServiceId(7));
        loads.gone(ServiceId(7));
        assert_eq!(loads.count, 3_999);
    }

    #[test]
    fn services_are_forecast_some_at_a_time() {
        let mut loads = on();
        for minute in 0..20 {
            for id in 0..100 {
                loads.seen(ServiceId(id), 1 + id % 3, 0);
            }
            loads.pass(Time((50 + minute) * MINUTE), true);
        }
        let mut ticks = 0;
        while loads.next_due() < Time(70 * MINUTE) {
            loads.tick(loads.next_due(), |_| Span::ZERO);
            ticks += 1;
        }
        assert_eq!(ticks, 100_usize.div_ceil(PER_TICK));
        assert!((0..100).all(|id| loads.forecast(ServiceId(id)).is_some()));
    }

    #[test]
    fn switched_off_it_costs_nothing() {
        let mut loads = Loads::default();
        loads.seen(A, 1, 1);
        loads.outside(A, Time(1), STEP, &[[1; 5]]);
        loads.pass(Time(10 * MINUTE), true);
        assert_eq!((loads.next_due(), loads.services.len()), (Time::NEVER, 0));
    }
}
