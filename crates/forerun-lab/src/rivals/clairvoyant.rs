//! Rivals that know when each instance is needed next: bounds, and no policies that anyone could run.

use crate::gaps::{GapPolicy, Hold};
use crate::minutes::{self, late_seconds};
use crate::nominal::Use;
use forerun_trace::MinuteTrace;
use forerun_types::Span;

/// Keeps a gap where that costs less than a cold start; starts nothing ahead.
pub(super) struct OptimalKeep<'a> {
    pub(super) price_gbs: f64,
    /// Bytes by service.
    pub(super) memory: &'a [u64],
}

impl GapPolicy for OptimalKeep<'_> {
    fn holds(&mut self, gap: &Use, holds: &mut Vec<Hold>) {
        let Some(next) = gap.next else { return };
        let idle = next.since(gap.to);
        let memory_gb = self.memory[gap.service as usize] as f64 / 1e9;
        if idle.as_secs_f64() * memory_gb < self.price_gbs {
            holds.push((Span::ZERO, idle));
        }
    }
}

/// No cold start but each instance's first: keeps what could not be started again in time, and starts the rest just
/// in time. The least idle memory without waits, whatever a cold start is worth.
pub(super) struct OptimalPrewarm<'a> {
    /// How long a start takes by service.
    pub(super) start: &'a [Span],
}

/// What is ready a moment before its request is ready for it.
const MOMENT: Span = Span::from_millis(1);

impl GapPolicy for OptimalPrewarm<'_> {
    fn holds(&mut self, gap: &Use, holds: &mut Vec<Hold>) {
        let Some(next) = gap.next else { return };
        let idle = next.since(gap.to);
        let ahead = self.start[gap.service as usize] + MOMENT;
        let from = if idle <= ahead + MOMENT { Span::ZERO } else { Span(idle.0 - ahead.0) };
        holds.push((from, idle));
    }
}

/// Whole minutes: keeps each level's gap where that costs less than a cold start.
pub(super) fn keep_minutes(trace: &MinuteTrace, needs: &[Vec<u32>], price_gbs: f64) -> Vec<Vec<u32>> {
    let one = |(app, need): (usize, &Vec<u32>)| {
        let memory_gb = trace.apps[app].memory_mb / 1e3;
        let mut wanted = vec![0; need.len()];
        for level in 1..=need.iter().copied().max().unwrap_or(0) {
            let used = (0..need.len()).filter(|&m| need[m] >= level);
            for (last, next) in used.clone().zip(used.skip(1)) {
                let held_gbs = (next - last) as f64 * 60.0 * memory_gb;
                if held_gbs < price_gbs + 30.0 * memory_gb {
                    wanted[last + 1..=next].iter_mut().for_each(|w| *w += 1);
                }
            }
        }
        wanted
    };
    needs.iter().enumerate().map(one).collect()
}

/// Whole minutes, where what is wanted is there at once and at no cost of starting: the cheapest number for each.
pub(super) fn prewarm_minutes(trace: &MinuteTrace, needs: &[Vec<u32>], price_gbs: f64) -> Vec<Vec<u32>> {
    let concurrency = minutes::concurrency(trace);
    let one = |(app, need): (usize, &Vec<u32>)| {
        let memory_gb = trace.apps[app].memory_mb / 1e3;
        let minute = |(&need, &busy): (&u32, &f64)| {
            let cost = |wanted: u32| {
                let missing = need - wanted;
                let there_s = 60.0 * f64::from(wanted) + late_seconds(missing, need);
                price_gbs * f64::from(missing) + (there_s * memory_gb).max(60.0 * busy * memory_gb)
            };
            (0..=need).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(0)
        };
        need.iter().zip(&concurrency[app]).map(minute).collect()
    };
    needs.iter().enumerate().map(one).collect()
}
