//! Forecast: how likely each level of a service is to be needed, and by when.
//!
//! Two views of the same future are mixed by their track record ([`mixture`]): top-down, what the level, and all levels,
//! did under like circumstances ([`hazard`], [`contexts`]), and bottom-up, the sum of what known users are about to do
//! ([`users`]).

mod chance;
pub mod contexts;
pub mod crowd;
pub mod grid;
pub mod hazard;
mod level;
pub mod mixer;
pub mod mixture;
pub mod parts;
pub mod past;
pub mod series;
pub mod users;

pub use chance::{Chance, Step};
pub use level::LevelChances;

use crowd::Crowd;
use forerun_types::{ServiceId, Span, Time, UserKey};
use grid::AgeGrid;
use hazard::Pool;
use level::{Level, Mind, Moment};
use mixture::{Mixture, Whose};
use serde::{Deserialize, Serialize};
use users::ExpectedUsers;

/// Levels that are told apart; what is needed above them is served, but not foreseen.
const LEVELS_MAX: usize = 1_024;
/// Bins that a person's question looks ahead.
const BINS_SHOWN_MAX: usize = 300;

/// What is asked of a service's forecast.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How long a start takes.
    pub lead: Span,
    /// Users that come within reach, on average.
    pub expected: f64,
    /// Whether what the service's own load did before counts.
    pub own: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ServiceLoadModel {
    pool: usize,
    /// Tells its levels' counts from all others', also from those of an earlier service of its id.
    number: u64,
    levels: Vec<Level>,
    needed: u32,
    expected: ExpectedUsers,
    crowd: Crowd,
}

impl ServiceLoadModel {
    fn whose(&self, level: usize) -> Whose {
        Whose { level: self.number * LEVELS_MAX as u64 + level as u64, pool: self.pool as u64 }
    }
}

/// Load forecasts of all services.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Forecast {
    pools: Vec<Pool>,
    mixture: Mixture,
    services: Vec<Option<ServiceLoadModel>>,
    /// Services that were ever known, and pools, which are numbered below them.
    numbers: u64,
}

/// Numbers below are those of pools.
const POOLS_MAX: u64 = 64;

impl Forecast {
    /// What it counts takes at most about so many bytes.
    #[must_use]
    pub fn new(counts_bytes_max: usize) -> Self {
        let mixture = Mixture::new(counts_bytes_max);
        Self { pools: Vec::new(), mixture, services: Vec::new(), numbers: POOLS_MAX }
    }

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
                self.numbers += 1;
                *slot = Some(ServiceLoadModel {
                    pool,
                    number: self.numbers,
                    levels: Vec::new(),
                    needed: 0,
                    expected: ExpectedUsers::default(),
                    crowd: Crowd::default(),
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
                self.pools.len() - 1
            }
        }
    }

    /// A service's model, and what it shares with others.
    fn parts(&mut self, id: ServiceId) -> Option<(&mut ServiceLoadModel, Mind<'_>)> {
        let model = self.services.get_mut(id.0 as usize)?.as_mut()?;
        let mind = Mind { pool: &mut self.pools[model.pool], mixture: &mut self.mixture };
        Some((model, mind))
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

    /// A request has come for a service whose start takes so long.
    pub fn arrived(&mut self, at: Time, id: ServiceId, start: Span) {
        if let Some(model) = self.services.get_mut(id.0 as usize).and_then(Option::as_mut) {
            model.crowd.arrived(at, start);
        }
    }

    /// Requests, the first included, that usually come within a start time of one that finds a service idle.
    #[must_use]
    pub fn crowd(&self, id: ServiceId) -> f64 {
        self.services.get(id.0 as usize).and_then(Option::as_ref).map_or(1.0, |m| m.crowd.usual())
    }

    /// So many instances were needed at most since the last call, and so many are now.
    pub fn needed(&mut self, now: Time, id: ServiceId, peak: u32, needed: u32) {
        let Some((model, mut mind)) = self.parts(id) else { return };
        let peak = peak.max(needed).min(LEVELS_MAX as u32) as usize;
        if model.levels.len() < peak {
            model.levels.resize_with(peak, Level::default);
        }
        let (before, after) = (model.needed as usize, (needed as usize).min(LEVELS_MAX));
        for at in before.min(peak)..peak {
            let whose = model.whose(at);
            model.levels[at].begin_use(now, &mut mind, whose);
        }
        let high = model.levels.len().min(peak.max(before));
        for level in &mut model.levels[after..high.max(after)] {
            level.end_use(now, mind.pool);
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
        let Some((model, mut mind)) = self.parts(id) else { return };
        let needed = (needed as usize).min(LEVELS_MAX);
        if model.levels.len() < needed {
            model.levels.resize_with(needed, Level::default);
        }
        for at in 0..model.levels.len() {
            let whose = model.whose(at);
            let level = &mut model.levels[at];
            if at < needed {
                level.begin_use(now.minus(period), &mut mind, whose);
                level.end_use(now, mind.pool);
            } else {
                level.age(now, &mut mind, whose);
            }
        }
    }

    /// The chances of the levels above what is needed now, appended to `out`; returns when they change next by the mere
    /// passing of time.
    pub fn chances(&mut self, now: Time, id: ServiceId, asked: &Asked, out: &mut Vec<LevelChances>) -> Time {
        let Some((model, mut mind)) = self.parts(id) else { return Time::NEVER };
        let needed = model.needed as usize;
        let mut again = Time::NEVER;
        for (at, users) in (needed..model.levels.len()).zip(users::poisson_tails(asked.expected)) {
            let whose = model.whose(at);
            let level = &mut model.levels[at];
            level.age(now, &mut mind, whose);
            let (above, needed, lead, own) = ((at - needed) as u32, needed as u32, asked.lead, asked.own);
            let moment = Moment { now, lead, users, above, needed, whose, own };
            let (chances, next) = level.chances(&moment, &mind);
            again = again.min(next);
            out.push(chances);
        }
        again
    }

    /// When the first of the idle levels that are `wanted` now will be wanted no more, if it stays idle and no users
    /// come; looks at most at the even part of the grid.
    pub fn next_stop(
        &self,
        now: Time,
        id: ServiceId,
        asked: &Asked,
        wanted: impl Fn(&LevelChances) -> bool,
    ) -> Option<Time> {
        let model = self.services.get(id.0 as usize)?.as_ref()?;
        let pool = &self.pools[model.pool];
        let needed = model.needed as usize;
        let stop = |at: usize| {
            let level = &model.levels[at];
            let whose = model.whose(at);
            let (above, needed) = ((at - needed) as u32, needed as u32);
            if level.idle_since == Time::default() {
                return None;
            }
            let (grid, age) = (&pool.grid, now.since(level.idle_since));
            let look = |age: Span| {
                let (now, lead, own) = (level.idle_since + age, asked.lead, asked.own);
                let moment = Moment { now, lead, users: 0.0, above, needed, whose, own };
                level.look(&moment, pool, &self.mixture).0
            };
            let first = grid.bin(age);
            let last = grid.bins().min(first + 1 + BINS_SHOWN_MAX);
            let unwanted = (first..last).find_map(|bin| {
                let begins = grid.start(bin);
                let mut then = look(begins.max(age)).until_next_bin();
                Some(begins + then.find(|(_, chances)| !wanted(chances))?.0)
            })?;
            // What is not wanted now has no such moment ahead.
            (unwanted > age).then_some(level.idle_since + unwanted)
        };
        (needed..model.levels.len()).filter_map(stop).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Span = Span::from_secs(60);

    fn asked(lead_s: u64, expected: f64) -> Asked {
        Asked { lead: Span::from_secs(lead_s), expected, own: true }
    }

    fn chance_now(forecast: &mut Forecast, now: Time) -> f64 {
        let mut out = Vec::new();
        forecast.chances(now, ServiceId(0), &asked(0, 0.0), &mut out);
        out[0].steps(false).next().unwrap().chance
    }

    #[test]
    fn a_timer_is_foreseen_to_the_minute() {
        let mut forecast = Forecast::new(1 << 20);
        forecast.service(ServiceId(0), AgeGrid::whole(MINUTE));
        let start = 1_000_000;
        for minute in 0..200u64 {
            let needed = u32::from(minute % 15 == 0);
            let now = Time((start + 60 * (minute + 1)) * 1_000_000);
            forecast.period(now, ServiceId(0), MINUTE, needed);
            // What is asked is learned from.
            forecast.chances(now, ServiceId(0), &asked(0, 0.0), &mut Vec::new());
        }
        // Minute 195 was the last use; 210 is the next.
        for minute in 200..210u64 {
            let now = Time((start + 60 * minute) * 1_000_000);
            assert!(chance_now(&mut forecast, now) < 0.05, "minute {minute}");
            forecast.period(now + MINUTE, ServiceId(0), MINUTE, 0);
        }
        let due = chance_now(&mut forecast, Time((start + 60 * 210) * 1_000_000));
        assert!(due > 0.9, "{due}");
    }

    #[test]
    fn what_always_comes_late_in_a_bin_is_foreseen_late_in_it() {
        let mut forecast = Forecast::new(1 << 20);
        forecast.service(ServiceId(0), AgeGrid::fine(MINUTE));
        let mut used = Time(1_000_000);
        for gap in (0..60).map(|n| Span::from_secs(92 + n % 6)) {
            forecast.needed(used, ServiceId(0), 1, 0);
            let mut now = used + Span(1);
            // What is asked is learned from.
            while now < used + gap {
                let again = forecast.chances(now, ServiceId(0), &asked(0, 0.0), &mut Vec::new());
                assert!(again > now);
                now = again;
            }
            used += gap;
        }
        forecast.needed(used, ServiceId(0), 1, 0);
        let (mut now, mut left) = (used + MINUTE, Vec::new());
        while now < used + MINUTE + MINUTE {
            let mut out = Vec::new();
            let again = forecast.chances(now, ServiceId(0), &asked(0, 0.0), &mut out);
            let step = out[0].steps(false).next().unwrap();
            assert_eq!(now + step.within, again, "it is told anew when a step is over");
            left.push((now.since(used), step.chance));
            now = again;
        }
        assert_eq!(left.len(), 16, "{left:?}");
        let (early, late) = left.split_at(8);
        assert!(early.iter().all(|(_, chance)| *chance < 0.03), "{left:?}");
        // Of the parts from 90 s and from 93.75 s on the second is the likelier, and the last that is likely.
        assert!(late[0].1 > 0.2 && late[1].1 > 0.8, "{left:?}");
    }

    #[test]
    fn users_raise_the_chance() {
        let mut forecast = Forecast::new(1 << 20);
        forecast.service(ServiceId(0), AgeGrid::fine(MINUTE));
        forecast.needed(Time(1_000_000), ServiceId(0), 1, 1);
        forecast.needed(Time(2_000_000), ServiceId(0), 0, 0);
        let (mut without, mut with) = (Vec::new(), Vec::new());
        forecast.chances(Time(3_000_000), ServiceId(0), &asked(1, 0.0), &mut without);
        forecast.chances(Time(3_000_000), ServiceId(0), &asked(1, 2.0), &mut with);
        let first = |c: &[LevelChances]| c[0].steps(false).next().unwrap().chance;
        assert!(first(&with) > first(&without));
    }

    #[test]
    fn peaks_between_reports_count_as_use() {
        let mut forecast = Forecast::new(1 << 20);
        forecast.service(ServiceId(0), AgeGrid::fine(MINUTE));
        forecast.needed(Time(1_000_000), ServiceId(0), 3, 0);
        let mut out = Vec::new();
        forecast.chances(Time(2_000_000), ServiceId(0), &asked(0, 0.0), &mut out);
        assert_eq!(out.len(), 3);
        assert!(out.iter().all(|c| c.steps(false).next().is_some()));
    }
}
