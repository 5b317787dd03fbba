//! What stays when not everything fits: the rule that of late would have had most hits.
//!
//! No one rule is best everywhere: frequency wins where loops and scans pass by, recency and its balance where what was lately
//! new comes again. So each is tried on a sample of the keys, in a cache of names alone that is as much smaller
//! (C. Waldspurger, T. Saemundsson, I. Ahmad, N. Park, "Cache modeling and optimization using miniature simulations", ATC
//! '17), and the cache itself follows the one with most hits of late.
//!
//! Pure: no clock, no chance; the same requests give the same hits. Everything is a hash and a number of units (bytes).

mod lists;
mod rules;
mod sketch;

pub(crate) use rules::{ByHash, Gone};
use rules::{Rule, Rules};
use std::collections::VecDeque;

/// What is tried. The first is followed until another is seen to be better.
const RULES: [Rule; 3] =
    [Rule::Frequency { window_percent: 1 }, Rule::Frequency { window_percent: 20 }, Rule::Balance];
/// What a cache follows that has grown large before anything told the rules apart: of so many entries few are asked for twice by
/// then, and frequency would go by chance for the long time that it takes to see it.
const LARGE_FIRST: usize = 2;
/// Entries of a trial cache; beyond it, fewer keys are sampled.
const TRIAL_ENTRIES_MAX: usize = 4096;
/// Twice what a change of rule can leave over.
const EXTRAS_MAX: usize = 2 * TRIAL_ENTRIES_MAX;
/// One key in 2^40 is none.
const SAMPLE_ZEROS_MAX: u32 = 40;
/// A hit counts this much when it happens, and fades with every sampled request.
const HIT: i64 = 1 << 20;

/// Hits fade over so many requests for each entry of a trial: long enough that a rule shows what it keeps, short enough that the
/// next phase of the traffic is followed.
const FADE_PASSES: i64 = 16;
/// And over no fewer than this, where a few hits would be chance.
const FADE_MIN: i64 = 1024;
/// A rule takes over when it is ahead by one hit in so many requests. A change costs little, waiting for certainty costs hits.
const AHEAD: i64 = 2048;

/// A rule on trial.
#[derive(Clone, Debug)]
struct Trial {
    rules: Rules,
    hits: i64,
}

/// Which hashes stay.
///
/// After a change of rule it may name what is not there, because the old rule had not kept it. Then there is room for what the
/// new one would not have kept, the extras.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    rules: Rules,
    capacity: u64,
    trials: [Trial; RULES.len()],
    followed: usize,
    /// Keys whose hash has this many leading zeros are sampled.
    sample_zeros: u32,
    /// What a rule before had kept and this one would not have: it stays as long as there is room.
    extras: VecDeque<u64>,
}

impl Policy {
    /// For entries of `capacity` units together.
    pub(crate) fn new(capacity: u64) -> Self {
        let trial = |rule| Trial { rules: Rules::new(capacity, rule), hits: 0 };
        Self {
            rules: Rules::new(capacity, RULES[0]),
            capacity,
            trials: RULES.map(trial),
            followed: 0,
            sample_zeros: 0,
            extras: VecDeque::new(),
        }
    }

    fn sampled(&self, hash: u64) -> bool {
        hash.leading_zeros() >= self.sample_zeros
    }

    /// Whether it is to stay; what is there beside that is extra.
    pub(crate) fn names(&self, hash: u64) -> bool {
        self.rules.peek(hash).is_some()
    }

    /// It is asked for. `there`: its entry's units, if it is there. `gone` is told of all that leave.
    pub(crate) fn get(&mut self, hash: u64, there: Option<u64>, gone: &mut Gone) {
        if self.sampled(hash) {
            let fade = fade(self.trials[0].rules.held());
            for trial in &mut self.trials {
                let hit = trial.rules.get(hash).is_some();
                trial.hits += if hit { HIT } else { 0 } - trial.hits / fade;
            }
            self.choose(fade, gone);
        }
        self.rules.get(hash);
        if let Some(units) = there {
            // An extra that is asked for comes in as if it were new.
            self.put(hash, units, gone);
        }
    }

    /// One that is there beside what is named, to make room; it is not named any more.
    pub(crate) fn pop_extra(&mut self) -> Option<u64> {
        while let Some(hash) = self.extras.pop_front() {
            if !self.names(hash) {
                return Some(hash);
            }
        }
        None
    }

    /// It comes in, if it is let in. `gone` is told of all that leave for it, itself included.
    pub(crate) fn put(&mut self, hash: u64, units: u64, gone: &mut Gone) {
        self.put_on_trial(hash, units);
        if self.rules.units_of(hash) != Some(units) {
            self.rules.put(hash, units, gone);
        }
    }

    /// It goes, as if it had never been.
    pub(crate) fn remove(&mut self, hash: u64) {
        for trial in &mut self.trials {
            trial.rules.remove(hash);
        }
        self.rules.remove(hash);
    }

    /// What is there comes in wherever it is tried and missing.
    fn put_on_trial(&mut self, hash: u64, units: u64) {
        if !self.sampled(hash) {
            return;
        }
        for trial in &mut self.trials {
            if trial.rules.units_of(hash) != Some(units) {
                trial.rules.put(hash, units, &mut Gone::new());
            }
        }
        while self.trials[0].rules.held() > TRIAL_ENTRIES_MAX && self.sample_zeros < SAMPLE_ZEROS_MAX {
            if self.sample_zeros == 0 && self.trials.iter().all(|trial| trial.hits == self.trials[0].hits) {
                self.followed = LARGE_FIRST;
                self.rules.follow(RULES[LARGE_FIRST], 0);
            }
            self.sample_zeros += 1;
            let zeros = self.sample_zeros;
            for trial in &mut self.trials {
                trial.rules.thin(self.capacity >> zeros, |hash| hash.leading_zeros() >= zeros);
            }
        }
    }

    /// Follows another rule once it is clearly ahead.
    fn choose(&mut self, fade: i64, gone: &mut Gone) {
        let own = self.trials[self.followed].hits;
        let best = (0..RULES.len()).max_by_key(|n| (self.trials[*n].hits, std::cmp::Reverse(*n)));
        let Some(best) = best.filter(|n| *n != self.followed) else { return };
        if self.trials[best].hits - own <= margin(fade) {
            return;
        }
        self.followed = best;
        let tried = &self.trials[best].rules;
        if self.sample_zeros == 0 {
            // All keys are sampled: what the rule would have kept is known, and the sooner it is kept the better.
            self.extras.extend(self.rules.hashes().filter(|hash| tried.peek(*hash).is_none()));
            self.rules = tried.clone();
            while self.extras.len() > EXTRAS_MAX {
                gone.extend(self.extras.pop_front());
            }
        } else {
            self.rules.follow(RULES[best], tried.target() << self.sample_zeros);
        }
    }
}

/// Sampled requests over which a hit fades to a third.
fn fade(held: usize) -> i64 {
    (FADE_PASSES * held as i64).max(FADE_MIN)
}

/// How far ahead another rule must be.
fn margin(fade: i64) -> i64 {
    HIT * fade / AHEAD
}
