//! One level of a service: the j-th instance that it needs at once.

use super::chance::{Chance, Step};
use super::contexts::Scene;
use super::grid::AgeGrid;
use super::hazard::{OwnGaps, Pool};
use super::mixture::{Mixture, Question, Whose};
use super::past::Past;
use forerun_types::{Span, Time};
use serde::{Deserialize, Serialize};

/// Bins that are looked at beyond the one in which a start would be done.
const BINS_AHEAD: usize = 3;
/// Bins from now on that are looked at one by one, if a start takes longer; and all that are looked at.
const BINS_NEAR: usize = 8;
const BINS_MAX: usize = BINS_NEAR + 1 + BINS_AHEAD;
/// What of the difference that the scene makes is believed of the bins after it.
const SHIFT_CARRIED: f64 = 0.5;
/// Bins of which a lump is made at most.
const LUMP_MAX: usize = 256;
/// Bins narrower than a grain's eighth are told by the hazard alone: what has just been used is kept anyway, and a busy
/// service passes through them at every request.
const QUICK_PARTS: u64 = 8;
/// Users on their way are told apart to a thousandth.
const USERS_STEPS: f64 = 1_024.0;

/// An opinion that was given and waits for its outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asked {
    bin: u16,
    question: Question,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Level {
    in_use: bool,
    pub(super) idle_since: Time,
    /// Bins of the running gap that the pool has counted.
    passed: u16,
    own: OwnGaps,
    past: Past,
    asked: Option<Box<Asked>>,
    told: Option<Told>,
}

/// An answer that holds while what it was made of does not change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Told {
    of: (u16, u16, u32, u32),
    chances: LevelChances,
}

/// What all levels share.
pub(super) struct Mind<'a> {
    pub(super) pool: &'a mut Pool,
    pub(super) mixture: &'a mut Mixture,
}

/// When and for whom a level is asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now: Time,
    pub(super) lead: Span,
    /// The chance that so many users are on their way that this level is needed.
    pub(super) users: f64,
    /// Idle levels below this one, and levels in use.
    pub(super) above: u32,
    pub(super) needed: u32,
    pub(super) whose: Whose,
    /// Whether what the level itself did counts.
    pub(super) own: bool,
}

/// What lies before one idle level: the chance of a need in each of the next bins, given that there was none before.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct LevelChances {
    bins: [Chance; BINS_MAX],
    len: u8,
    /// The first bin that an instance whose start is ordered now is ready for.
    ready: u8,
    /// What has passed of the first bin now, and of the ready one by then.
    passed: [Span; 2],
}

impl LevelChances {
    /// From now on, or from when an instance is ready whose start is ordered now.
    pub fn steps(&self, from_ready: bool) -> impl DoubleEndedIterator<Item = Step> {
        let ready = if from_ready { usize::from(self.ready.min(self.len)) } else { 0 };
        let passed = self.passed[usize::from(from_ready)];
        let rest = self.bins[ready..usize::from(self.len)].iter().enumerate();
        rest.flat_map(move |(at, chance)| chance.after(if at == 0 { passed } else { Span::ZERO }))
    }

    /// The chance that nothing is needed until an instance is ready whose start is ordered now.
    #[must_use]
    pub fn idle_until_ready(&self) -> f64 {
        let ready = usize::from(self.ready.min(self.len));
        let [now, then] = self.passed;
        if ready == 0 {
            let in_bin = self.bins.first().map_or(0.0, |c| c.part(now, then));
            return 1.0 - in_bin;
        }
        let first = 1.0 - self.bins[0].part(now, self.bins[0].within);
        let whole: f64 = self.bins[1..ready].iter().map(|c| 1.0 - c.chance).product();
        let last = self.bins.get(ready).map_or(0.0, |c| c.part(Span::ZERO, then));
        first * whole * (1.0 - last)
    }

    /// These bins, seen at the beginning of the first.
    #[cfg(test)]
    pub(crate) fn of(bins: &[Chance]) -> Self {
        let mut out = Self::default();
        bins.iter().for_each(|bin| out.push(*bin));
        out
    }

    /// The same when so much has passed of the first bin, and will have of the ready one.
    #[cfg(test)]
    pub(crate) fn seen_from(self, passed: [Span; 2], ready: usize) -> Self {
        Self { passed, ready: ready as u8, ..self }
    }

    /// When they change next by the mere passing of time.
    fn next_change(&self, now: Time) -> Time {
        let bins = &self.bins[..usize::from(self.len)];
        let until = |bin: usize, passed: Span| {
            // The grid's last bin has no end.
            let chance = bins.get(bin).filter(|chance| passed < chance.within);
            chance.map_or(Time::NEVER, |chance| now + (chance.step_ends(passed) - passed))
        };
        until(0, self.passed[0]).min(until(usize::from(self.ready), self.passed[1]))
    }

    /// From now on to the end of the first bin, at the moments at which they change for an instance that is there: what
    /// has passed of the bin by then, and what they are.
    pub(super) fn until_next_bin(self) -> impl Iterator<Item = (Span, Self)> {
        let mut next = Some(self.passed[0]);
        std::iter::from_fn(move || {
            let passed = next?;
            let ends = self.bins[0].step_ends(passed);
            next = (passed < ends && ends < self.bins[0].within).then_some(ends);
            Some((passed, Self { passed: [passed, self.passed[1]], ..self }))
        })
    }

    fn push(&mut self, chance: Chance) {
        if usize::from(self.len) < BINS_MAX {
            self.bins[usize::from(self.len)] = chance;
            self.len += 1;
        }
    }
}

impl Level {
    pub(super) fn begin_use(&mut self, now: Time, mind: &mut Mind<'_>, whose: Whose) {
        if self.in_use {
            return;
        }
        self.in_use = true;
        // At its first use no gap has ended.
        if self.idle_since != Time::default() {
            let bin = mind.pool.grid.bin(now.since(self.idle_since));
            self.pass_until(bin, mind, whose);
            if let Some(asked) = self.asked.take().filter(|a| usize::from(a.bin) == bin) {
                mind.mixture.learn(&asked.question, true, whose);
            }
            mind.pool.ended(bin);
            self.own.ended(now.since(self.idle_since), mind.pool);
        }
        self.past.begin(now, &mind.pool.grid);
    }

    pub(super) fn end_use(&mut self, now: Time, pool: &Pool) {
        if self.in_use {
            self.in_use = false;
            self.idle_since = now;
            self.passed = 0;
            self.asked = None;
            self.told = None;
            self.past.end(now, &pool.grid);
        }
    }

    /// Counts the bins that the running gap has outlived.
    pub(super) fn age(&mut self, now: Time, mind: &mut Mind<'_>, whose: Whose) {
        if !self.in_use && self.idle_since != Time::default() {
            let bin = mind.pool.grid.bin(now.since(self.idle_since));
            self.pass_until(bin, mind, whose);
        }
    }

    fn pass_until(&mut self, bin: usize, mind: &mut Mind<'_>, whose: Whose) {
        if let Some(asked) = self.asked.take_if(|a| usize::from(a.bin) < bin) {
            mind.mixture.learn(&asked.question, false, whose);
        }
        while usize::from(self.passed) < bin {
            mind.pool.passed(usize::from(self.passed));
            self.passed += 1;
        }
    }

    /// The chances of the present and the next bins, and when they change.
    pub(super) fn chances(&mut self, moment: &Moment, mind: &Mind<'_>) -> (LevelChances, Time) {
        if self.idle_since == Time::default() {
            return (LevelChances::default(), Time::NEVER);
        }
        let (now, grid) = (moment.now, &mind.pool.grid);
        let age = now.since(self.idle_since);
        let (first, last) = (grid.bin(age), grid.bin(age + moment.lead));
        let of = (first as u16, last as u16, (moment.users * USERS_STEPS) as u32, moment.needed);
        let passed = Self::passed_of(first, last, age, moment.lead, grid);
        let chances = match self.told.filter(|t| t.of == of) {
            Some(told) => LevelChances { passed, ..told.chances },
            None => {
                let (chances, question) = self.look(moment, mind.pool, mind.mixture);
                // The first opinion of a bin is the one to be judged: it was given for all of it.
                if let Some(question) = question
                    && self.asked.as_ref().is_none_or(|a| usize::from(a.bin) != first)
                {
                    self.asked = Some(Box::new(Asked { bin: first as u16, question }));
                }
                chances
            }
        };
        self.told = Some(Told { of, chances });
        (chances, chances.next_change(now))
    }

    /// The chances of the present and the next bins; what was asked of the present one.
    pub(super) fn look(
        &self,
        moment: &Moment,
        pool: &Pool,
        mixture: &Mixture,
    ) -> (LevelChances, Option<Question>) {
        let age = moment.now.since(self.idle_since);
        let (first, last) = (pool.grid.bin(age), pool.grid.bin(age + moment.lead));
        let passed = Self::passed_of(first, last, age, moment.lead, &pool.grid);
        let mut out = LevelChances { passed, ..LevelChances::default() };
        let (chance, question) = self.chance(first, moment, pool, mixture);
        out.push(chance);
        let mut shift = question.as_ref().map(|q| q.shift() * SHIFT_CARRIED);
        let mut bin = first + 1;
        let end = (last.max(first + 1) + BINS_AHEAD).min(pool.grid.bins());
        while bin < end {
            if bin == last {
                out.ready = out.len;
            }
            // Of a long start the middle is no matter of detail.
            if usize::from(out.len) == BINS_NEAR && bin + 1 < last {
                out.push(self.lump(bin..last, moment, pool));
                bin = last;
                continue;
            }
            // Full answers cost many logarithms: the next bin and the first of use get one, the others the last shift.
            if bin == first + 1 || bin == last || shift.is_none() {
                let (chance, question) = self.chance(bin, moment, pool, mixture);
                shift = question.map(|q| q.shift() * SHIFT_CARRIED);
                out.push(chance);
            } else {
                let shift = shift.unwrap_or(0.0);
                let chance = mixture.by_age(bin, &self.own, pool, moment.whose, shift);
                out.push(self.in_bin(bin, chance, moment, pool));
            }
            bin += 1;
        }
        (out, question)
    }

    /// What has passed of the bin of now, and of the bin of a lead later by then.
    fn passed_of(first: usize, last: usize, age: Span, lead: Span, grid: &AgeGrid) -> [Span; 2] {
        [age - grid.start(first).min(age), age + lead - grid.start(last).min(age + lead)]
    }

    /// Several bins as one, by the hazard alone.
    fn lump(&self, bins: std::ops::Range<usize>, moment: &Moment, pool: &Pool) -> Chance {
        let within = pool.grid.start(bins.end) - pool.grid.start(bins.start);
        let own = self.own_gaps(moment);
        let idle: f64 =
            bins.take(LUMP_MAX).map(|bin| 1.0 - Mixture::quick(bin, own, moment.users, pool)).product();
        Chance::even(1.0 - idle, within)
    }

    fn own_gaps(&self, moment: &Moment) -> &OwnGaps {
        if moment.own { &self.own } else { const { &OwnGaps::NONE } }
    }

    fn chance(
        &self,
        bin: usize,
        moment: &Moment,
        pool: &Pool,
        mixture: &Mixture,
    ) -> (Chance, Option<Question>) {
        let within = pool.grid.width(bin);
        if within.0 * QUICK_PARTS < pool.grid.grain().0 || !moment.own {
            let chance = Mixture::quick(bin, self.own_gaps(moment), moment.users, pool);
            return (Chance::even(chance, within), None);
        }
        let scene = Scene {
            past: &self.past,
            grid: &pool.grid,
            at: self.idle_since + pool.grid.start(bin),
            bin,
            above: moment.above,
            needed: moment.needed,
            users: moment.users,
        };
        let (chance, question) = mixture.chance(&scene, &self.own, pool, moment.whose);
        (self.in_bin(bin, chance, moment, pool), Some(question))
    }

    /// A chance with where its needs fall in the bin.
    fn in_bin(&self, bin: usize, chance: f64, moment: &Moment, pool: &Pool) -> Chance {
        let falls = self.own_gaps(moment).falls(bin, pool);
        Chance { chance, within: pool.grid.width(bin), falls }
    }
}
