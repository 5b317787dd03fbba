//! Scores as programs read them.

use crate::minutes::MinuteTally;
use crate::tally::{Part, Tally};
use serde::Serialize;

/// What a policy scored. Fields and units are a contract with outside programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Scores {
    /// The policy as it was asked for.
    pub policy: String,
    /// What a cold start was worth, GB-seconds.
    pub cold_start_cost: f64,
    pub requests: u64,
    pub cold_starts: u64,
    pub cold_start_ratio: f64,
    /// The 75th percentile over services that had a scored request, unweighted.
    pub cold_start_ratio_p75_service: f64,
    pub added_wait_seconds: WaitScores,
    pub memory_gb_seconds: MemoryScores,
    /// idle / (busy + idle)
    pub idle_waste_ratio: f64,
    pub instances_started: u64,
    /// Of the instances started with no request waiting, the part that served one.
    pub prewarm_precision: f64,
    /// Needs met by such an instance, over those and the cold starts.
    pub prewarm_recall: f64,
    /// Cold starts at their price, and memory that was idle or starting, GB-seconds.
    pub cost: f64,
    pub decisions: u64,
    /// FeMux's objective, seconds; whole minutes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rum: Option<f64>,
    /// What each SLA class got, by name; where a configuration says what classes there are, and the core decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassScores>,
    /// The same service by service, in the trace's order; for [`crate::saved`].
    #[serde(skip)]
    pub services: Vec<ServiceScores>,
}

/// What one SLA class got.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassScores {
    pub class: String,
    /// The part of the capacity that is guaranteed to it.
    pub guarantee: f64,
    /// The wait that its requests should stay within.
    pub latency_seconds: f64,
    pub requests: u64,
    pub cold_starts: u64,
    pub cold_start_ratio: f64,
    /// Requests that waited longer than a router would hold them.
    pub refused: u64,
    pub added_wait_seconds: WaitScores,
    /// The mean part of the capacity that its instances had reserved; 0 where there is no limit.
    pub share_held: f64,
    /// Seconds in which a request of it waited with no instance on its way, though one more was within its guarantee.
    pub share_short_seconds: f64,
}

/// What one service scored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceScores {
    pub requests: u64,
    pub cold_starts: u64,
    /// GB-seconds of its instances that were idle or starting.
    pub waste_gbs: f64,
}

/// Seconds that requests waited beyond their own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct WaitScores {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub mean: f64,
}

/// GB-seconds (10^9 bytes) by what the instances did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct MemoryScores {
    pub busy: f64,
    pub idle: f64,
    pub starting: f64,
    pub total: f64,
}

/// What a cold start takes where the world does not say: FeMux's figure.
const COLD_START_S: f64 = 0.808;
/// GB-seconds that FeMux counts as one second.
const GBS_PER_S: f64 = 99.69;

impl Scores {
    pub(crate) fn of_requests(policy: &str, tally: Tally, cold_start_gbs: f64, decisions: u64) -> Self {
        let gbs = |byte_micros: u128| byte_micros as f64 / 1e15;
        let idle = tally.alloc.saturating_sub(tally.busy).saturating_sub(tally.starting);
        let memory = MemoryScores {
            busy: gbs(tally.busy),
            idle: gbs(idle),
            starting: gbs(tally.starting),
            total: gbs(tally.alloc),
        };
        let service = |part: &Part| ServiceScores {
            requests: part.requests,
            cold_starts: part.cold,
            waste_gbs: u128::try_from(part.waste).map_or(0.0, gbs),
        };
        let services = tally.services.iter().map(service).collect();
        Self {
            added_wait_seconds: waits(tally.waits, tally.requests),
            prewarm_precision: ratio(tally.ahead_used, tally.ahead),
            prewarm_recall: ratio(tally.ahead_met, tally.ahead_met + tally.cold),
            instances_started: tally.starts,
            ..Self::common(policy, tally.requests, tally.cold, services, memory, cold_start_gbs, decisions)
        }
    }

    pub(crate) fn of_minutes(policy: &str, tally: &MinuteTally, cold_start_gbs: f64, decisions: u64) -> Self {
        let idle = tally.alloc_gbs - tally.used_gbs;
        let memory = MemoryScores { busy: tally.used_gbs, idle, starting: 0.0, total: tally.alloc_gbs };
        let cold_wait = (COLD_START_S * 1e6) as u64;
        Self {
            added_wait_seconds: waits(
                vec![cold_wait; usize::try_from(tally.cold).unwrap_or(0)],
                tally.needed,
            ),
            prewarm_precision: ratio(tally.ahead_used, tally.ahead),
            prewarm_recall: ratio(tally.ahead_used, tally.ahead_used + tally.cold),
            instances_started: tally.starts,
            rum: Some(COLD_START_S * tally.cold as f64 + idle / GBS_PER_S),
            ..Self::common(
                policy,
                tally.needed,
                tally.cold,
                tally.apps.clone(),
                memory,
                cold_start_gbs,
                decisions,
            )
        }
    }

    fn common(
        policy: &str,
        requests: u64,
        cold: u64,
        services: Vec<ServiceScores>,
        memory: MemoryScores,
        cold_start_gbs: f64,
        decisions: u64,
    ) -> Self {
        let used = memory.busy + memory.idle;
        Self {
            policy: policy.to_owned(),
            cold_start_cost: cold_start_gbs,
            requests,
            cold_starts: cold,
            cold_start_ratio: ratio(cold, requests),
            cold_start_ratio_p75_service: p75(&services),
            memory_gb_seconds: memory,
            idle_waste_ratio: if used > 0.0 { memory.idle / used } else { 0.0 },
            cost: cold as f64 * cold_start_gbs + memory.idle + memory.starting,
            decisions,
            services,
            ..Self::default()
        }
    }
}

/// 0 where there is nothing to divide by: no number is a score of its own.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn p75(services: &[ServiceScores]) -> f64 {
    let mut ratios: Vec<f64> =
        services.iter().filter(|s| s.requests > 0).map(|s| ratio(s.cold_starts, s.requests)).collect();
    ratios.sort_by(f64::total_cmp);
    percentile(&ratios, 0, 0.75)
}

pub(crate) fn waits(mut above_zero: Vec<u64>, requests: u64) -> WaitScores {
    above_zero.sort_unstable();
    let zeros = usize::try_from(requests).unwrap_or(usize::MAX).saturating_sub(above_zero.len());
    let seconds: Vec<f64> = above_zero.iter().map(|&us| us as f64 / 1e6).collect();
    let sum: u128 = above_zero.iter().map(|&us| u128::from(us)).sum();
    WaitScores {
        p50: percentile(&seconds, zeros, 0.5),
        p95: percentile(&seconds, zeros, 0.95),
        p99: percentile(&seconds, zeros, 0.99),
        mean: if requests == 0 { 0.0 } else { sum as f64 / 1e6 / requests as f64 },
    }
}

/// Of `zeros` zeros and then `sorted`: the value at the floor of q times their number.
fn percentile(sorted: &[f64], zeros: usize, q: f64) -> f64 {
    let count = zeros + sorted.len();
    let at = ((q * count as f64) as usize).min(count.saturating_sub(1));
    at.checked_sub(zeros).and_then(|at| sorted.get(at)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_referees() {
        let check = |waits: &[f64], zeros, q, expect: f64| assert_eq!(percentile(waits, zeros, q), expect);
        check(&[], 0, 0.5, 0.0);
        check(&[], 9, 0.99, 0.0);
        check(&[1.0, 2.0], 2, 0.5, 1.0);
        check(&[1.0, 2.0], 3, 0.5, 0.0);
        check(&[1.0, 2.0, 3.0, 4.0], 0, 0.99, 4.0);
        let services = [(0, 0), (2, 1), (4, 4), (10, 0), (1, 0)]
            .map(|(requests, cold_starts)| ServiceScores { requests, cold_starts, waste_gbs: 0.0 });
        assert_eq!(p75(&services), 1.0);
    }
}
