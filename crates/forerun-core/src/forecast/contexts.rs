//! What is known of an idle level at an age, as numbers under which outcomes are counted.
//!
//! Each context is one guess at what matters: the age with the last gap, the same time some beginnings ago, the last
//! slots, how busy it has been. None is always right; [`super::mixture`] finds out which are.

use super::grid::AgeGrid;
use super::past::Past;
use crate::profile::table::spread;
use forerun_types::Time;

pub const CONTEXTS: usize = 18;
/// Lags in slots that many timers have, whatever their own history says yet.
const USUAL_LAGS: [u64; 3] = [5, 15, 30];
const HOUR_US: u64 = 3_600_000_000;

/// An idle level at the beginning of a bin.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    pub past: &'a Past,
    pub grid: &'a AgeGrid,
    /// When the bin begins.
    pub at: Time,
    pub bin: usize,
    /// Levels between this one and the highest in use; in use are so many.
    pub above: u32,
    pub needed: u32,
    /// Users expected within reach.
    pub users: f64,
}

/// Small numbers as they are, large ones by thirds of an octave.
fn coarse(v: u64) -> u64 {
    if v < 9 { v } else { 9 + thirds(v / 9) }
}

/// Thirds of octaves, by integers.
fn thirds(v: u64) -> u64 {
    let octave = u64::from(v.max(1).ilog2());
    let part = (v << 8) >> octave; // 256 to 511
    3 * octave + u64::from(part >= 323) + u64::from(part >= 406)
}

/// A rate a grain, by half octaves above 2^-14.
fn coarse_rate(rate: f64) -> u64 {
    if rate <= 0.0 { 0 } else { (2.0 * (libm::log2(rate) + 14.0)).clamp(1.0, 60.0) as u64 }
}

impl Scene<'_> {
    /// The keys of all contexts, each spread over 32 bits with its own number.
    #[must_use]
    pub fn keys(&self) -> [u32; CONTEXTS] {
        let (past, grid) = (self.past, self.grid);
        let slot = grid.slot(self.at);
        let age = coarse(self.bin as u64);
        let in_grains = |us: u64| coarse(us / grid.grain().0);
        let lag = |p: u64| {
            let ago = |n: u64| u64::from(slot >= n && past.used.get(slot - n));
            ago(p)
                | ago(2 * p) << 1
                | ago(3 * p) << 2
                | ago(p.max(2) - 1) << 3
                | ago(p + 1) << 4
                | ago(1) << 5
        };
        let rates = past.rates.a_grain(self.at, grid.grain());
        let run = past.ended.since(past.began).0;
        let since_began = self.at.since(past.began).0;
        let recent = u64::from(past.used.before(slot, 30).count_ones());
        let level = u64::from(self.above.min(9)) * 10 + u64::from(self.needed.min(9));
        let period = past.period;
        let of = [
            lag(USUAL_LAGS[0]),
            lag(USUAL_LAGS[1]),
            lag(USUAL_LAGS[2]),
            if period.slots > 0 {
                lag(period.slots) << 3 | u64::from(period.tenths / 2).min(4)
            } else {
                u64::MAX
            },
            past.used.before(slot, 8),
            past.used.before(slot, 16),
            pair(level, age),
            pair((self.bin as u64).min(60), in_grains(past.gap.0) + 1),
            pair(age, coarse(recent)),
            pair(in_grains(since_began), in_grains(past.distance.0) + 1),
            pair(age, in_grains(run)),
            pair(self.at.0 / 60_000_000 % 60, 1),
            pair(slot % 5, age),
            pair(coarse_rate(rates[0]), coarse_rate(rates[1])),
            pair(age, coarse_rate(rates[2])),
            pair(self.at.0 / HOUR_US % 24, grid.octave(self.bin) as u64),
            pair(thirds((self.users * 256.0) as u64 + 1), grid.octave(self.bin) as u64),
            pair(coarse_rate(rates[1]), coarse_rate(rates[3])),
        ];
        let mut keys = [0; CONTEXTS];
        for (number, (key, value)) in keys.iter_mut().zip(of).enumerate() {
            *key = (spread(value ^ (number as u64) << 56) >> 32) as u32;
        }
        keys
    }
}

fn pair(a: u64, b: u64) -> u64 {
    a << 24 | b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_numbers_rise_and_tell_small_ones_apart() {
        let all: Vec<u64> = (0..100_000).map(coarse).collect();
        assert!(all.is_sorted());
        assert!((0..9).all(|v| coarse(v) == v));
        assert!(coarse(1 << 40) < 200);
        // A doubling is three steps.
        assert_eq!(thirds(1 << 20) + 3, thirds(1 << 21));
    }
}
