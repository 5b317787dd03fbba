//! What one level has done lately: in which slots of the grain it was in use, when its uses began, how often.

use super::grid::AgeGrid;
use forerun_types::{Span, Time};
use serde::{Deserialize, Serialize};

const WORDS: usize = 4;
/// Slots that are remembered.
const SLOTS: u64 = 64 * WORDS as u64;
/// Lags between beginnings that are counted; shorter ones are no rhythm, longer ones are not remembered.
const LAGS: std::ops::RangeInclusive<u64> = 2..=130;
/// Lags of one level that are counted at a time; the least counted makes way.
const LAGS_MAX: usize = 24;
/// A lag's count fades by this at each beginning.
const LAG_FADE: f32 = 0.97;
/// Half-lives of the rates, in grains: what is going on, this hour, this half day, this week, at a grain of a minute.
pub const HALF_LIVES: [f64; 4] = [5.0, 40.0, 320.0, 2_560.0];

/// Whether something was so in each of the last slots.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Slots {
    newest: u64,
    words: [u64; WORDS],
}

impl Slots {
    pub fn set(&mut self, slot: u64) {
        if slot > self.newest {
            self.shift(slot - self.newest);
            self.newest = slot;
        }
        let back = self.newest - slot;
        if back < SLOTS {
            self.words[(back / 64) as usize] |= 1 << (back % 64);
        }
    }

    fn shift(&mut self, by: u64) {
        if by >= SLOTS {
            self.words = [0; WORDS];
            return;
        }
        let (whole, part) = ((by / 64) as usize, by % 64);
        for at in (0..WORDS).rev() {
            let low = at.checked_sub(whole).map_or(0, |from| self.words[from] << part);
            let carried = at.checked_sub(whole + 1).filter(|_| part > 0);
            self.words[at] = low | carried.map_or(0, |from| self.words[from] >> (64 - part));
        }
    }

    #[must_use]
    pub fn get(&self, slot: u64) -> bool {
        match self.newest.checked_sub(slot) {
            Some(back) if back < SLOTS => self.words[(back / 64) as usize] >> (back % 64) & 1 == 1,
            _ => false,
        }
    }

    /// The `count` (at most 64) slots before `slot`, the latest in the lowest bit.
    #[must_use]
    pub fn before(&self, slot: u64, count: u64) -> u64 {
        let mask = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        let latest = slot.saturating_sub(1);
        let bits = match self.newest.checked_sub(latest) {
            // The latest asked for is past all that is remembered.
            None => {
                let ahead = latest - self.newest;
                if ahead >= 64 { 0 } else { self.words[0] << ahead }
            }
            Some(back) if back < SLOTS => {
                let (whole, part) = ((back / 64) as usize, back % 64);
                let high = self.words.get(whole + 1).filter(|_| part > 0).map_or(0, |w| w << (64 - part));
                self.words[whole] >> part | high
            }
            Some(_) => 0,
        };
        bits & mask
    }
}

/// How often something happened, at four speeds of forgetting.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    at: Time,
    counts: [f64; HALF_LIVES.len()],
}

impl Rates {
    pub fn happened(&mut self, now: Time, grain: Span) {
        self.counts = self.faded(now, grain);
        self.counts.iter_mut().for_each(|c| *c += 1.0);
        self.at = now;
    }

    fn faded(&self, now: Time, grain: Span) -> [f64; HALF_LIVES.len()] {
        let grains = now.since(self.at).0 as f64 / grain.0.max(1) as f64;
        std::array::from_fn(|i| match self.counts[i] > 0.0 {
            true => self.counts[i] * libm::exp2(-grains / HALF_LIVES[i]),
            false => 0.0,
        })
    }

    /// Times a grain, by each half-life.
    #[must_use]
    pub fn a_grain(&self, now: Time, grain: Span) -> [f64; HALF_LIVES.len()] {
        let faded = self.faded(now, grain);
        std::array::from_fn(|i| faded[i] * std::f64::consts::LN_2 / HALF_LIVES[i])
    }
}

/// The lag at which beginnings most often follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// In slots; 0 while none has been seen.
    pub slots: u64,
    /// Of ten beginnings, how many had another this lag before.
    pub tenths: u8,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Past {
    pub used: Slots,
    begun: Slots,
    /// When its last use began and ended.
    pub began: Time,
    pub ended: Time,
    /// Between the last two beginnings, and the last idle time that ended.
    pub distance: Span,
    pub gap: Span,
    pub uses: u32,
    pub rates: Rates,
    lags: Vec<(u8, f32)>,
    faded_uses: f32,
    pub period: Period,
}

impl Past {
    pub fn begin(&mut self, now: Time, grid: &AgeGrid) {
        let slot = grid.slot(now);
        if self.uses > 0 {
            self.distance = now.since(self.began);
            self.gap = now.since(self.ended);
        }
        self.note_lags(slot);
        self.begun.set(slot);
        self.used.set(slot);
        self.began = now;
        self.uses = self.uses.saturating_add(1);
        self.rates.happened(now, grid.grain());
    }

    pub fn end(&mut self, now: Time, grid: &AgeGrid) {
        self.ended = now;
        // What ended at the beginning of a slot was not in use in it.
        let last = grid.slot(Time(now.0.saturating_sub(1))).max(grid.slot(self.began));
        for slot in grid.slot(self.began).max(last.saturating_sub(SLOTS))..=last {
            self.used.set(slot);
        }
    }

    fn note_lags(&mut self, slot: u64) {
        self.lags.iter_mut().for_each(|l| l.1 *= LAG_FADE);
        self.faded_uses = self.faded_uses * LAG_FADE + 1.0;
        for lag in LAGS {
            if slot < lag || !self.begun.get(slot - lag) {
                continue;
            }
            let full = self.lags.len() == LAGS_MAX;
            let lag = lag as u8;
            if let Some(known) = self.lags.iter_mut().find(|l| l.0 == lag) {
                known.1 += 1.0;
            } else if !full {
                self.lags.push((lag, 1.0));
            } else if let Some(least) = self.lags.iter_mut().min_by(|a, b| a.1.total_cmp(&b.1))
                && least.1 < 1.0
            {
                *least = (lag, 1.0);
            }
        }
        let best = self.lags.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        self.period = best.map_or_else(Period::default, |&(lag, count)| Period {
            slots: u64::from(lag),
            tenths: (10.0 * count / self.faded_uses) as u8,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slots_are_remembered_as_they_were(
            steps in prop::collection::vec(0u64..90, 1..40),
            asked in 0u64..300,
            count in 1u64..64,
        ) {
            let mut slots = Slots::default();
            let mut set = Vec::new();
            let mut at = 1_000;
            for step in steps {
                at += step;
                slots.set(at);
                set.push(at);
            }
            let slot = at + 150 - asked.min(at);
            let known = |s: u64| set.contains(&s) && at - s < SLOTS;
            prop_assert_eq!(slots.get(slot), known(slot));
            let expect = (0..count).filter(|b| known(slot - 1 - b)).fold(0, |bits, b| bits | 1u64 << b);
            prop_assert_eq!(slots.before(slot, count), expect);
        }
    }

    #[test]
    fn a_timer_has_a_period_and_noise_has_little_of_one() {
        let grid = AgeGrid::whole(Span::from_secs(60));
        let mut timer = Past::default();
        for n in 1..40u64 {
            timer.begin(Time(n * 15 * 60_000_000), &grid);
            timer.end(Time((n * 15 + 1) * 60_000_000), &grid);
        }
        assert_eq!(timer.period.slots, 15);
        assert!(timer.period.tenths >= 9, "{:?}", timer.period);
        let mut noise = Past::default();
        let mut at = 0;
        for n in 1..40u64 {
            at += 3 + n * n * 7 % 41;
            noise.begin(Time(at * 60_000_000), &grid);
            noise.end(Time((at + 1) * 60_000_000), &grid);
        }
        assert!(noise.period.tenths <= 5 && noise.lags.len() <= LAGS_MAX, "{:?}", noise.period);
    }

    #[test]
    fn a_steady_rate_is_found_at_every_speed_that_has_seen_enough() {
        let (mut rates, grain) = (Rates::default(), Span::from_secs(60));
        for minute in 0..3_000u64 {
            rates.happened(Time(minute * 60_000_000), grain);
        }
        let told = rates.a_grain(Time(3_000 * 60_000_000), grain);
        assert!(told[..3].iter().all(|r| (r - 1.0).abs() < 0.08), "{told:?}");
        assert!(rates.a_grain(Time(4_000 * 60_000_000), grain)[0] < 1e-9);
    }
}
