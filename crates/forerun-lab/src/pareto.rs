//! Cold starts against memory: which of several runs anyone would still want.

use crate::Scores;

/// A run among others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tried {
    /// Only runs of one world are weighed against each other: starts that take equally long.
    pub world: usize,
    pub cold_starts: u64,
    /// GB-seconds of all that existed.
    pub memory: f64,
    /// Knew the future: no reason to drop another.
    pub bound: bool,
}

impl Tried {
    #[must_use]
    pub fn of(scores: &Scores, world: usize, bound: bool) -> Self {
        Self { world, cold_starts: scores.cold_starts, memory: scores.memory_gb_seconds.total, bound }
    }

    /// At most as much of both, and less of one.
    fn beats(&self, other: &Self) -> bool {
        self.world == other.world
            && !self.bound
            && self.cold_starts <= other.cold_starts
            && self.memory <= other.memory
            && (self.cold_starts < other.cold_starts || self.memory < other.memory)
    }
}

/// For each run whether another had no more cold starts, no more memory, and less of one of them. Those that knew the
/// future stand beside it: they neither drop others nor are they dropped.
#[must_use]
pub fn dominated(tried: &[Tried]) -> Vec<bool> {
    tried.iter().map(|one| !one.bound && tried.iter().any(|other| other.beats(one))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_costs_nothing_more_drops_another() {
        let run = |world, cold_starts, memory, bound| Tried { world, cold_starts, memory, bound };
        let tried = [
            run(0, 10, 5.0, false),
            run(0, 10, 6.0, false),
            run(0, 4, 9.0, false),
            run(0, 5, 9.0, false),
            // The same twice: neither is less than the other.
            run(0, 4, 9.0, false),
            run(0, 0, 1.0, true),
            run(0, 99, 99.0, true),
            run(1, 99, 99.0, false),
        ];
        assert_eq!(dominated(&tried), [false, true, false, true, false, false, false, false]);
        assert!(dominated(&[]).is_empty());
    }
}
