//! Where within a bin of idle ages the gaps fall that end in it.
//!
//! A bin may be as wide as six starts. A need that always comes late in it is worth an instance that is ready then, and
//! not one that is ready when the bin begins. So what ended in a bin is counted by sixteenths of it too, and these counts
//! are believed by how much better than an even spread they have told of the next gap (the Bayes factor of I. J. Good, "A
//! Bayesian significance test for multinomial distributions", J. R. Statist. Soc. B 29, 1967, taken gap by gap): requests
//! that come at random would else have instances started and stopped for nothing.

use forerun_types::Span;
use serde::{Deserialize, Serialize};

/// Equal parts of a bin.
pub const PARTS: usize = 16;
/// A count takes so many bits; all are halved when one is full.
const BITS: usize = 4;
const MOST: u64 = (1 << BITS) - 1;
const HALVES: u64 = 0x7777_7777_7777_7777;
/// What an even spread weighs against the counts, in gaps.
const EVEN_WEIGHT: f64 = 2.0;
/// The odds that where gaps fell tells where they will, before any was seen.
const ODDS_BEGUN: f32 = 0.1;
/// The odds stay within this and its inverse, so that a rhythm may come and go.
const ODDS_MOST: f32 = 1_024.0;
/// Counts that are believed by less than this are none.
const BELIEF_MIN: f64 = 0.2;

/// The part of a bin that is so wide, in which the moment lies at which `passed` has passed of it.
#[must_use]
pub fn part_at(passed: Span, width: Span) -> usize {
    let part = u128::from(passed.0) * PARTS as u128 / u128::from(width.0.max(1));
    part.min(PARTS as u128 - 1) as usize
}

/// How many gaps ended in each part of a bin, and what these counts are worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Within {
    counts: u64,
    odds: f32,
}

impl Default for Within {
    fn default() -> Self {
        Self { counts: 0, odds: ODDS_BEGUN }
    }
}

impl Within {
    fn count(self, part: usize) -> u64 {
        self.counts >> (part * BITS) & MOST
    }

    /// The chance of each part, by the counts.
    fn told(self) -> [f64; PARTS] {
        let counts: [f64; PARTS] = std::array::from_fn(|part| self.count(part) as f64);
        let sum = counts.iter().sum::<f64>() + EVEN_WEIGHT;
        counts.map(|count| (count + EVEN_WEIGHT / PARTS as f64) / sum)
    }

    /// A gap ended when so much of a bin of this width had passed.
    pub fn ended(&mut self, passed: Span, width: Span) {
        let part = part_at(passed, width);
        let better = self.told()[part] * PARTS as f64;
        self.odds = (self.odds * better as f32).clamp(1.0 / ODDS_MOST, ODDS_MOST);
        if self.count(part) == MOST {
            self.counts = self.counts >> 1 & HALVES;
        }
        self.counts += 1 << (part * BITS);
    }

    #[must_use]
    pub fn falls(self) -> Falls {
        let odds = f64::from(self.odds);
        let belief = odds / (1.0 + odds);
        if belief < BELIEF_MIN {
            return Falls::EVEN;
        }
        Falls::of(&self.told().map(|told| belief * told + (1.0 - belief) / PARTS as f64))
    }
}

/// What share of a bin's chance has come to pass by the end of each part, in 255ths; all zero if evenly spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Falls([u8; PARTS]);

impl Falls {
    pub const EVEN: Self = Self([0; PARTS]);

    /// From weights of the parts, of which one at least is more than nothing.
    #[must_use]
    pub fn of(weights: &[f64; PARTS]) -> Self {
        let sum: f64 = weights.iter().sum();
        let mut so_far = 0.0;
        Self(weights.map(|weight| {
            so_far += weight;
            (so_far / sum * f64::from(u8::MAX) + 0.5) as u8
        }))
    }

    #[must_use]
    pub fn is_even(self) -> bool {
        self == Self::EVEN
    }

    /// What share of the chance has come to pass when this share of the bin has passed.
    #[must_use]
    pub fn at(self, share: f64) -> f64 {
        if self.is_even() {
            return share;
        }
        let place = share * PARTS as f64;
        let part = (place as usize).min(PARTS - 1);
        let [low, high] =
            [part.checked_sub(1), Some(part)].map(|at| at.map_or(0.0, |at| f64::from(self.0[at])));
        (low + (high - low) * (place - part as f64).min(1.0)) / f64::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Span = Span::from_secs(60);

    /// What falls in each part after gaps that ended so many thousandths of the bin after its beginning.
    fn after(places: impl IntoIterator<Item = u64>) -> (Within, [f64; PARTS]) {
        let mut within = Within::default();
        places.into_iter().for_each(|place| within.ended(Span(MINUTE.0 / 1_000 * place), MINUTE));
        let falls = within.falls();
        (
            within,
            std::array::from_fn(|part| {
                let [from, to] = [part, part + 1].map(|at| falls.at(at as f64 / PARTS as f64));
                to - from
            }),
        )
    }

    #[test]
    fn what_always_falls_late_is_expected_late_after_a_few_gaps() {
        let (_, told) = after([900, 880, 930]);
        assert!(told[14] > 0.5, "{told:?}");
        let (_, told) = after((0..100).map(|n| 880 + n * 37 % 50));
        assert!(told[14] > 0.75 && told[..13].iter().sum::<f64>() < 0.2, "{told:?}");
    }

    #[test]
    fn what_falls_at_random_is_spread_evenly() {
        // The golden ratio's multiples: even, and in no order.
        let (within, told) = after((0..200).map(|n| n * 618 % 1_000));
        assert!(within.falls().is_even(), "{within:?} {told:?}");
    }

    #[test]
    fn a_rhythm_that_moves_is_followed() {
        let (_, told) = after((0..300).map(|n| if n < 200 { 100 } else { 700 }));
        assert!(told[11] > 0.75, "{told:?}");
    }

    proptest::proptest! {
        #[test]
        fn shares_rise_from_nothing_to_all(places in proptest::collection::vec(0u64..2_000, 0..300)) {
            let (within, told) = after(places);
            let falls = within.falls();
            proptest::prop_assert!(falls.at(0.0) == 0.0 && falls.at(1.0) == 1.0);
            proptest::prop_assert!(told.iter().all(|part| *part >= 0.0), "{told:?}");
        }

        #[test]
        fn parts_follow_one_another(width in 1u64..200_000_000, passed in 0.0f64..1.0) {
            let passed = Span((width as f64 * passed) as u64);
            let part = part_at(passed, Span(width));
            let begins = |part: usize| Span((u128::from(width) * part as u128).div_ceil(PARTS as u128) as u64);
            proptest::prop_assert!(begins(part) <= passed && passed < begins(part + 1), "{width} {passed:?} {part}");
        }
    }
}
