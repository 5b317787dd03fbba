//! What a policy saved against another on the same traffic, and how sure that is.

use crate::Scores;
use crate::scores::ServiceScores;

/// Resamples of the services.
const RESAMPLES: usize = 1_000;

/// Parts of the other's cost; below zero it cost more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saved {
    pub cost: f64,
    /// From and to where 95 of 100 such traces would lie, had they had other services of the same kinds: services, not
    /// requests, are independent. `None` where fewer than five were asked for.
    pub between: Option<(f64, f64)>,
}

/// What `policy` saved against `other`, which was scored on the same trace at the same price; `None` where the other cost
/// nothing. The interval is the percentile bootstrap (Efron 1979) over services, both policies' costs drawn together.
#[must_use]
pub fn saved(policy: &Scores, other: &Scores) -> Option<Saved> {
    let cost = |s: &ServiceScores| s.cold_starts as f64 * policy.cold_start_cost + s.waste_gbs;
    let pairs: Vec<(f64, f64)> = policy
        .services
        .iter()
        .zip(&other.services)
        .filter(|(s, _)| s.requests > 0)
        .map(|(one, other)| (cost(one), cost(other)))
        .collect();
    if other.cost <= 0.0 {
        return None;
    }
    let mut draws = Draws(1);
    let mut shares: Vec<f64> = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (mut ours, mut theirs) = (0.0, 0.0);
        for _ in &pairs {
            let (one, other) = pairs[draws.below(pairs.len())];
            ours += one;
            theirs += other;
        }
        if theirs > 0.0 {
            shares.push(1.0 - ours / theirs);
        }
    }
    shares.sort_by(f64::total_cmp);
    let at = |share: f64| shares.get((share * shares.len() as f64) as usize).copied();
    let between = if pairs.len() < 5 { None } else { at(0.025).zip(at(0.975)) };
    Some(Saved { cost: 1.0 - policy.cost / other.cost, between })
}

/// SplitMix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(cold_starts: &[u64]) -> Scores {
        let services: Vec<ServiceScores> = cold_starts
            .iter()
            .map(|&cold_starts| ServiceScores { requests: 9, cold_starts, waste_gbs: 5.0 })
            .collect();
        let cost = services.iter().map(|s| s.cold_starts as f64 * 10.0 + s.waste_gbs).sum();
        Scores { cost, cold_start_cost: 10.0, services, ..Scores::default() }
    }

    #[test]
    fn services_that_are_alike_leave_no_doubt() {
        let (few, many) = (scores(&[1; 6]), scores(&[2; 6]));
        assert_eq!(saved(&few, &many), Some(Saved { cost: 0.4, between: Some((0.4, 0.4)) }));
        assert!(saved(&many, &few).is_some_and(|s| s.cost < 0.0));
        assert_eq!(saved(&few, &Scores::default()), None);
    }

    #[test]
    fn one_service_that_decides_all_leaves_much() {
        let (ours, theirs) = (scores(&[3, 3, 3, 3, 3, 3, 0]), scores(&[3, 3, 3, 3, 3, 3, 30]));
        let (low, high) = saved(&ours, &theirs).and_then(|s| s.between).expect("enough services");
        assert!(low < 0.01 && high > 0.7, "{low} to {high}");
        let few = saved(&scores(&[1, 0]), &scores(&[1, 9])).expect("the other cost something");
        assert!(few.between.is_none() && few.cost > 0.5);
    }
}
