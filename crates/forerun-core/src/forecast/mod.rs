//! Forecast: how likely each level of a service is to be needed, and by when.
//!
//! Two views of the same future are mixed by their track record: top-down, the hazard of a level's idle age
//! ([`hazard`]), and bottom-up, the sum of what known users are about to do ([`users`]).

pub mod grid;
pub mod hazard;
pub mod mixer;
pub mod series;
pub mod users;

use forerun_types::{ServiceId, Span, Time, UserKey};
use grid::AgeGrid;
use hazard::{OwnGaps, Pool};
use mixer::{Mixer, clip, logistic, logit};
use serde::{Deserialize, Serialize};
use users::ExpectedUsers;

/// Levels that are told apart; what is needed above them is served, but not foreseen.
const LEVELS_MAX: usize = 1_024;
/// Bins that one look ahead walks through.
const BINS_AHEAD_MAX: usize = 16;
/// Bins that a person's question looks ahead.
const BINS_SHOWN_MAX: usize = 300;
/// How fast the mixer moves. Small: it serves all services, so it sees much.
const MIXER_RATE: f64 = 0.01;

/// What the mixer is given: see [`mixed`].
const INPUTS: usize = 4;
/// At the start the level's own rhythm is believed, its smooth hazard not yet, the users half, and there is no bias.
const WEIGHTS: [f64; INPUTS] = [1.0, 0.0, 0.5, 0.0];

/// The chance that an idle level is needed, and over what time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chance {
    pub chance: f64,
    /// The chance is of a need within this time; keeping the instance costs as much memory-time.
    pub within: Span,
}

/// An opinion that was given and waits for its outcome.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Asked {
    bin: u16,
    inputs: [f64; INPUTS],
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Level {
    in_use: bool,
    idle_since: Time,
    /// Bins of the running gap that the pool has counted.
    passed: u16,
    own: OwnGaps,
    asked: Option<Asked>,
    told: Option<Told>,
}

/// An answer that holds while neither the bins nor the users on their way change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Told {
    first: u16,
    last: u16,
    users: u32,
    chances: LevelChances,
}

/// Users on their way are told apart to a thousandth.
const USERS_STEPS: f64 = 1_024.0;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServiceLoadModel {
    pool: usize,
    levels: Vec<Level>,
    needed: u32,
    expected: ExpectedUsers,
}

/// Load forecasts of all services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Forecast {
    pools: Vec<Pool>,
    /// One mixer for each pool and octave of age: what is to be believed depends on both.
    mixers: Vec<Vec<Mixer>>,
    services: Vec<Option<ServiceLoadModel>>,
}

impl Forecast {
    /// Makes a service known; keeps what was learned of it unless its grid has changed.
    pub fn service(&mut self, id: ServiceId, grid: AgeGrid) {
        let at = id.0 as usize;
        if self.services.len() <= at {
            self.services.resize_with(at + 1, || None);
        }
        let pool = self.pool(grid);
        match &mut self.services[at] {
            Some(model) if model.pool == pool => {}
            slot => {
                *slot = Some(ServiceLoadModel {
                    pool,
                    levels: Vec::new(),
                    needed: 0,
                    expected: ExpectedUsers::default(),
                });
            }
        }
    }

    pub fn gone(&mut self, id: ServiceId) {
        if let Some(slot) = self.services.get_mut(id.0 as usize) {
            *slot = None;
        }
    }

    fn pool(&mut self, grid: AgeGrid) -> usize {
        match self.pools.iter().position(|p| p.grid == grid) {
            Some(at) => at,
            None => {
                self.pools.push(Pool::new(grid));
                let octaves = grid.octave(grid.bins() - 1) + 1;
                self.mixers.push(vec![Mixer::new(WEIGHTS.to_vec(), MIXER_RATE); octaves]);
                self.pools.len() - 1
            }
        }
    }

    fn parts(&mut self, id: ServiceId) -> Option<(&mut ServiceLoadModel, &mut Pool, &mut Vec<Mixer>)> {
        let model = self.services.get_mut(id.0 as usize)?.as_mut()?;
        let pool = &mut self.pools[model.pool];
        let mixers = &mut self.mixers[model.pool];
        Some((model, pool, mixers))
    }

    /// Expects a user nowhere any more.
    pub fn forget(&mut self, user: UserKey) {
        for model in self.services.iter_mut().flatten() {
            model.expected.remove(user);
        }
    }

    pub fn expected_mut(&mut self, id: ServiceId) -> Option<&mut ExpectedUsers> {
        self.services.get_mut(id.0 as usize)?.as_mut().map(|m| &mut m.expected)
    }

    /// So many instances were needed at most since the last call, and so many are now.
    pub fn needed(&mut self, now: Time, id: ServiceId, peak: u32, needed: u32) {
        let Some((model, pool, mixers)) = self.parts(id) else { return };
        let peak = peak.max(needed).min(LEVELS_MAX as u32) as usize;
        if model.levels.len() < peak {
            model.levels.resize_with(peak, Level::default);
        }
        let (before, after) = (model.needed as usize, (needed as usize).min(LEVELS_MAX));
        for level in &mut model.levels[before.min(peak)..peak] {
            level.begin_use(now, pool, mixers);
        }
        let high = model.levels.len().min(peak.max(before));
        for level in &mut model.levels[after..high.max(after)] {
            level.end_use(now);
        }
        model.needed = after as u32;
    }

    /// So many instances were needed at once in the period that ends now.
    pub fn period(&mut self, now: Time, id: ServiceId, period: Span, needed: u32) {
        let grid = AgeGrid::whole(period);
        let fits = self.services.get(id.0 as usize).and_then(Option::as_ref);
        if fits.is_some_and(|m| self.pools[m.pool].grid != grid) {
            self.service(id, grid);
        }
        let Some((model, pool, mixers)) = self.parts(id) else { return };
        let needed = (needed as usize).min(LEVELS_MAX);
        if model.levels.len() < needed {
            model.levels.resize_with(needed, Level::default);
        }
        for (j, level) in model.levels.iter_mut().enumerate() {
            if j < needed {
                level.begin_use(now.minus(period), pool, mixers);
                level.end_use(now);
            } else {
                level.age(now, pool, mixers);
            }
        }
    }

    /// The chances of the levels above what is needed now, the best window of each within `lead` (a start time)
    /// from now, appended to `out`; returns when they change next by the mere passing of time.
    pub fn chances(
        &mut self,
        now: Time,
        id: ServiceId,
        lead: Span,
        expected: f64,
        out: &mut Vec<LevelChances>,
    ) -> Time {
        let Some((model, pool, mixers)) = self.parts(id) else { return Time::NEVER };
        let needed = model.needed as usize;
        let mut again = Time::NEVER;
        for (level, tail) in model.levels.iter_mut().skip(needed).zip(users::poisson_tails(expected)) {
            level.age(now, pool, mixers);
            let (chances, next) = level.chances(now, lead, tail, pool, mixers);
            again = again.min(next);
            out.push(chances);
        }
        again
    }
}

impl Forecast {
    /// When the first of the idle levels that are `wanted` now will be wanted no more, if it stays idle and no users
    /// come; looks at most at the even part of the grid.
    pub fn next_stop(
        &self,
        now: Time,
        id: ServiceId,
        lead: Span,
        wanted: impl Fn(&Chance) -> bool,
    ) -> Option<Time> {
        let model = self.services.get(id.0 as usize)?.as_ref()?;
        let (pool, mixers) = (&self.pools[model.pool], &self.mixers[model.pool]);
        let on = |level: &Level, age: Span| {
            let last = pool.grid.bin(age + lead);
            (pool.grid.bin(age)..=last).any(|bin| wanted(&mixed(bin, &level.own, 0.0, pool, mixers).1))
        };
        let idle =
            model.levels.iter().skip(model.needed as usize).filter(|l| l.idle_since != Time::default());
        idle.filter(|level| on(level, now.since(level.idle_since)))
            .filter_map(|level| {
                let first = pool.grid.bin(now.since(level.idle_since)) + 1;
                let stop = (first..pool.grid.bins().min(first + BINS_SHOWN_MAX))
                    .map(|bin| pool.grid.start(bin))
                    .find(|age| !on(level, *age))?;
                Some(level.idle_since + stop)
            })
            .min()
    }
}

/// The windows of one level: from now, and from within a start time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LevelChances {
    windows: [Option<Chance>; 2],
}

impl LevelChances {
    pub fn windows(&self) -> impl Iterator<Item = Chance> {
        self.windows.iter().flatten().copied()
    }
}

impl Level {
    fn begin_use(&mut self, now: Time, pool: &mut Pool, mixers: &mut [Mixer]) {
        if self.in_use {
            return;
        }
        self.in_use = true;
        if self.idle_since == Time::default() {
            return; // its first use: no gap has ended
        }
        let bin = pool.grid.bin(now.since(self.idle_since));
        self.pass_until(bin, pool, mixers);
        if let Some(asked) = self.asked.take().filter(|a| usize::from(a.bin) == bin) {
            mixers[pool.grid.octave(bin)].learn(&asked.inputs, true);
        }
        pool.ended(bin);
        self.own.ended(bin, pool);
    }

    fn end_use(&mut self, now: Time) {
        if self.in_use {
            self.in_use = false;
            self.idle_since = now;
            self.passed = 0;
            self.asked = None;
            self.told = None;
        }
    }

    /// Counts the bins that the running gap has outlived.
    fn age(&mut self, now: Time, pool: &mut Pool, mixers: &mut [Mixer]) {
        if !self.in_use && self.idle_since != Time::default() {
            let bin = pool.grid.bin(now.since(self.idle_since));
            self.pass_until(bin, pool, mixers);
        }
    }

    fn pass_until(&mut self, bin: usize, pool: &mut Pool, mixers: &mut [Mixer]) {
        if let Some(asked) = self.asked.take_if(|a| usize::from(a.bin) < bin) {
            mixers[pool.grid.octave(usize::from(asked.bin))].learn(&asked.inputs, false);
        }
        while usize::from(self.passed) < bin {
            pool.passed(usize::from(self.passed));
            self.passed += 1;
        }
    }

    fn chances(
        &mut self,
        now: Time,
        lead: Span,
        users: f64,
        pool: &Pool,
        mixers: &[Mixer],
    ) -> (LevelChances, Time) {
        if self.idle_since == Time::default() {
            return (LevelChances::default(), Time::NEVER);
        }
        let age = now.since(self.idle_since);
        let (first, last) = (pool.grid.bin(age), pool.grid.bin(age + lead));
        let users_told = (users * USERS_STEPS) as u32;
        let same =
            |t: &Told| usize::from(t.first) == first && usize::from(t.last) == last && t.users == users_told;
        let out = match self.told.filter(same) {
            Some(told) => told.chances,
            None => self.look(first, last, users, pool, mixers),
        };
        self.told = Some(Told { first: first as u16, last: last as u16, users: users_told, chances: out });
        let edge = |bin: usize, at: Span| {
            if bin + 1 < pool.grid.bins() {
                now + (pool.grid.start(bin + 1) - at).max(Span(1))
            } else {
                Time::NEVER
            }
        };
        (out, edge(first, age).min(edge(last, age + lead)))
    }

    /// The chances of the present bin and of the best within the start time.
    fn look(&mut self, first: usize, last: usize, users: f64, pool: &Pool, mixers: &[Mixer]) -> LevelChances {
        // Mixing costs logarithms: of the bins ahead only the one with the highest rate is mixed.
        let mut ahead: Option<usize> = None;
        let mut best_rate = 0.0;
        for bin in first + 1..=last.min(first + BINS_AHEAD_MAX) {
            let rate = self.own.hazard(bin, pool) / pool.grid.width(bin).0.max(1) as f64;
            if rate > best_rate {
                best_rate = rate;
                ahead = Some(bin);
            }
        }
        let mut out = LevelChances::default();
        let (inputs, chance) = mixed(first, &self.own, users, pool, mixers);
        self.asked = Some(Asked { bin: first as u16, inputs });
        out.windows[0] = Some(chance);
        out.windows[1] = ahead.map(|bin| mixed(bin, &self.own, users, pool, mixers).1);
        out
    }
}

/// A level's chance in a bin: the mix of its own rhythm's logit, how much its smooth hazard and the users on their way
/// would shift that, and a bias.
fn mixed(bin: usize, own: &OwnGaps, users: f64, pool: &Pool, mixers: &[Mixer]) -> ([f64; INPUTS], Chance) {
    let hazard = clip(own.hazard(bin, pool));
    let rhythm = logit(hazard);
    let smooth = logit(own.smooth_hazard(bin, pool)) - rhythm;
    let lift = if users > 0.0 { logit(1.0 - (1.0 - hazard) * (1.0 - users)) - rhythm } else { 0.0 };
    let inputs = [rhythm, smooth, lift, 1.0];
    let mixer = &mixers[pool.grid.octave(bin)];
    (inputs, Chance { chance: logistic(mixer.mix(&inputs)), within: pool.grid.width(bin) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Span = Span::from_secs(60);

    fn chance_now(forecast: &mut Forecast, now: Time) -> f64 {
        let mut out = Vec::new();
        forecast.chances(now, ServiceId(0), Span::ZERO, 0.0, &mut out);
        out[0].windows().next().unwrap().chance
    }

    #[test]
    fn a_timer_is_foreseen_to_the_minute() {
        let mut forecast = Forecast::default();
        forecast.service(ServiceId(0), AgeGrid::whole(MINUTE));
        let start = 1_000_000;
        for minute in 0..200u64 {
            let needed = u32::from(minute % 15 == 0);
            forecast.period(Time((start + 60 * (minute + 1)) * 1_000_000), ServiceId(0), MINUTE, needed);
        }
        // Minute 195 was the last use; 210 is the next.
        for minute in 200..210u64 {
            let now = Time((start + 60 * minute) * 1_000_000);
            assert!(chance_now(&mut forecast, now) < 0.05, "minute {minute}");
            forecast.period(now + MINUTE, ServiceId(0), MINUTE, 0);
        }
        assert!(chance_now(&mut forecast, Time((start + 60 * 210) * 1_000_000)) > 0.9);
    }

    #[test]
    fn users_raise_the_chance() {
        let mut forecast = Forecast::default();
        forecast.service(ServiceId(0), AgeGrid::fine(MINUTE));
        forecast.needed(Time(1_000_000), ServiceId(0), 1, 1);
        forecast.needed(Time(2_000_000), ServiceId(0), 0, 0);
        let (mut without, mut with) = (Vec::new(), Vec::new());
        forecast.chances(Time(3_000_000), ServiceId(0), Span::from_secs(1), 0.0, &mut without);
        forecast.chances(Time(3_000_000), ServiceId(0), Span::from_secs(1), 2.0, &mut with);
        let first = |c: &[LevelChances]| c[0].windows().next().unwrap().chance;
        assert!(first(&with) > first(&without));
    }

    #[test]
    fn peaks_between_reports_count_as_use() {
        let mut forecast = Forecast::default();
        forecast.service(ServiceId(0), AgeGrid::fine(MINUTE));
        forecast.needed(Time(1_000_000), ServiceId(0), 3, 0);
        let mut out = Vec::new();
        forecast.chances(Time(2_000_000), ServiceId(0), Span::ZERO, 0.0, &mut out);
        assert_eq!(out.len(), 3);
        assert!(out.iter().all(|c| c.windows().count() == 1));
    }
}
