//! The grid on which idle ages are counted: fine for the young, even in the middle, coarse for the old.

use forerun_types::{Span, Time};
use serde::{Deserialize, Serialize};

/// Bins narrower than the grain, for load that is seen event by event: below grain/64, then one per octave.
const YOUNG: usize = 7;
/// Even bins, one grain wide each: periodic load of up to four hours at a grain of a minute is told apart exactly.
const EVEN: u64 = 256;
/// Octaves above them, 256 bins each; with a grain of a minute the last bin ends after 45 days.
const OCTAVES: usize = 8;

/// Maps an idle age to a bin. All integers, so that every build agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgeGrid {
    grain_us: u64,
    /// Whether ages below the grain are told apart.
    fine: bool,
}

impl AgeGrid {
    /// For load that is seen event by event.
    #[must_use]
    pub fn fine(grain: Span) -> Self {
        Self { grain_us: grain.0.max(64), fine: true }
    }

    /// For load that is seen in whole periods only: every age is a multiple of the grain.
    #[must_use]
    pub fn whole(period: Span) -> Self {
        Self { grain_us: period.0.max(1), fine: false }
    }

    #[must_use]
    pub fn grain(&self) -> Span {
        Span(self.grain_us)
    }

    /// Whether it matters where in a bin an age lies: load that is seen in whole periods is at their beginnings.
    #[must_use]
    pub fn tells_parts(&self) -> bool {
        self.fine
    }

    fn young(&self) -> usize {
        if self.fine { YOUNG } else { 1 }
    }

    #[must_use]
    pub fn bins(&self) -> usize {
        self.young() - 1 + EVEN as usize * (OCTAVES + 1)
    }

    /// The bin of an age; ages beyond the grid share the last.
    #[must_use]
    pub fn bin(&self, age: Span) -> usize {
        let units = age.0 / self.grain_us;
        if units == 0 {
            if !self.fine {
                return 0;
            }
            // Halves of the grain: [g/2, g) is the last young bin, below g/64 the first.
            let parts = age.0 * 64 / self.grain_us;
            return if parts == 0 { 0 } else { parts.ilog2() as usize + 1 };
        }
        let base = self.young() - 1;
        if units < EVEN {
            return base + units as usize;
        }
        let octave = (units / EVEN).ilog2() as usize;
        if octave >= OCTAVES {
            return self.bins() - 1;
        }
        let inside = (units >> octave) - EVEN;
        base + EVEN as usize * (octave + 1) + inside as usize
    }

    /// The age at which a bin begins.
    #[must_use]
    pub fn start(&self, bin: usize) -> Span {
        let young = self.young();
        if bin < young {
            return match bin {
                0 => Span::ZERO,
                n => Span((self.grain_us << (n - 1)).div_ceil(64)),
            };
        }
        let even = bin - (young - 1);
        if even < EVEN as usize {
            return Span(even as u64 * self.grain_us);
        }
        let octave = even / EVEN as usize - 1;
        let inside = (even % EVEN as usize) as u64;
        Span(((EVEN + inside) << octave).saturating_mul(self.grain_us))
    }

    /// Counts powers of two of the age, so that a bin's octave holds all bins of about its age.
    #[must_use]
    pub fn octave(&self, bin: usize) -> usize {
        let young = self.young();
        if bin < young {
            return bin;
        }
        young + (self.start(bin).0 / self.grain_us).max(1).ilog2() as usize
    }

    /// The slot of the grain that a time lies in.
    #[must_use]
    pub fn slot(&self, at: Time) -> u64 {
        at.0 / self.grain_us
    }

    #[must_use]
    pub fn width(&self, bin: usize) -> Span {
        self.start(bin + 1) - self.start(bin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_minutes_are_told_apart_for_four_hours() {
        let grid = AgeGrid::whole(Span::from_secs(60));
        for minute in 0..256 {
            assert_eq!(grid.bin(Span::from_secs(60 * minute)), minute as usize);
            assert_eq!(grid.width(minute as usize), Span::from_secs(60));
        }
        assert_eq!(grid.bin(Span::from_secs(60 * 257)), grid.bin(Span::from_secs(60 * 256)) + 1);
        assert_eq!(grid.bin(Span::from_secs(60 * 513)), grid.bin(Span::from_secs(60 * 512)));
    }

    proptest! {
        #[test]
        fn every_age_lies_in_its_bin(age in 0u64..10_000_000_000_000, grain in 64u64..100_000_000, fine: bool) {
            let grid = if fine { AgeGrid::fine(Span(grain)) } else { AgeGrid::whole(Span(grain)) };
            let bin = grid.bin(Span(age));
            prop_assert!(bin < grid.bins());
            prop_assert!(grid.start(bin) <= Span(age));
            if bin + 1 < grid.bins() {
                prop_assert!(Span(age) < grid.start(bin + 1), "age {age} bin {bin} next {:?}", grid.start(bin + 1));
            }
        }

        #[test]
        fn bins_grow_and_have_width(grain in 64u64..100_000_000, fine: bool) {
            let grid = if fine { AgeGrid::fine(Span(grain)) } else { AgeGrid::whole(Span(grain)) };
            for bin in 0..grid.bins() {
                prop_assert!(grid.width(bin) > Span::ZERO, "bin {bin}");
            }
        }
    }
}
