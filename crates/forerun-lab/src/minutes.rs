//! The world of whole minutes: what is wanted at a minute's beginning is there for all of it, at once and at no cost
//! of starting; what is missing starts when its request comes and lives to the minute's end. No state passes from
//! one minute to the next.

use crate::scores::ServiceScores;
use forerun_trace::MinuteTrace;

/// Below this, a mean concurrency is nothing.
pub(crate) const CONCURRENCY_MIN: f64 = 1.6e-5;

/// The mean concurrency of each app and minute, with what is next to nothing as nothing.
pub(crate) fn concurrency(trace: &MinuteTrace) -> Vec<Vec<f64>> {
    let clean = |&c: &f64| if c >= CONCURRENCY_MIN { c } else { 0.0 };
    trace.apps.iter().map(|a| a.concurrency.iter().map(clean).collect()).collect()
}

/// Instances needed by app and minute.
pub(crate) fn needs(trace: &MinuteTrace) -> Vec<Vec<u32>> {
    concurrency(trace).iter().map(|app| app.iter().map(|c| c.ceil() as u32).collect()).collect()
}

/// The fixed keep-alive of so many minutes: the most that was needed in the last of them.
pub(crate) fn fixed(needs: &[Vec<u32>], keep: usize) -> Vec<Vec<u32>> {
    let one = |need: &Vec<u32>| {
        let recent = |m: usize| need[m.saturating_sub(keep)..m].iter().copied().max().unwrap_or(0);
        (0..need.len()).map(recent).collect()
    };
    needs.iter().map(one).collect()
}

/// What the scored minutes cost, GB-seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MinuteTally {
    pub(crate) needed: u64,
    pub(crate) cold: u64,
    pub(crate) alloc_gbs: f64,
    pub(crate) used_gbs: f64,
    pub(crate) starts: u64,
    pub(crate) ahead: u64,
    pub(crate) ahead_used: u64,
    pub(crate) apps: Vec<ServiceScores>,
}

/// Plays what is wanted by app and minute; minutes before `from` are not counted.
pub(crate) fn play(trace: &MinuteTrace, wanted: &[Vec<u32>], from: usize, scored: &[bool]) -> MinuteTally {
    let mut tally = MinuteTally::default();
    for (at, (app, concurrency)) in trace.apps.iter().zip(concurrency(trace)).enumerate() {
        let mut one = App { memory_gb: app.memory_mb / 1e3, ..App::default() };
        for (minute, (c, wanted)) in concurrency.iter().zip(&wanted[at]).enumerate() {
            one.minute(*c, *wanted, minute >= from && scored[at], &mut tally);
        }
        let ServiceScores { requests, cold_starts, .. } = one.scores;
        tally.apps.push(one.scores);
        tally.needed += requests;
        tally.cold += cold_starts;
    }
    tally
}

#[derive(Default)]
struct App {
    memory_gb: f64,
    scores: ServiceScores,
    /// For each instance of the last minute whether it was started with nothing waiting and has not served yet.
    unserved: Vec<bool>,
}

impl App {
    fn minute(&mut self, concurrency: f64, wanted: u32, counts: bool, tally: &mut MinuteTally) {
        let need = concurrency.ceil() as u32;
        let missing = need.saturating_sub(wanted);
        let now = wanted.max(need);
        let before = self.unserved.len() as u32;
        let ahead_used = self.serve_first(wanted, need, counts);
        if counts {
            self.scores.requests += u64::from(need);
            self.scores.cold_starts += u64::from(missing);
            let busy = concurrency * 60.0 * self.memory_gb;
            let there = f64::from(wanted) * 60.0 + late_seconds(missing, need);
            let alloc_gbs = (there * self.memory_gb).max(busy);
            self.scores.waste_gbs += alloc_gbs - busy;
            tally.alloc_gbs += alloc_gbs;
            tally.used_gbs += busy;
            tally.starts += u64::from(now.saturating_sub(before));
            tally.ahead += u64::from(wanted.saturating_sub(before));
            tally.ahead_used += ahead_used;
        }
    }

    /// Goes on to the next minute's instances; how many of those started ahead serve for the first time in it.
    fn serve_first(&mut self, wanted: u32, need: u32, counts: bool) -> u64 {
        let (before, now) = (self.unserved.len() as u32, wanted.max(need));
        self.unserved.truncate(now as usize);
        self.unserved.extend((before..now).map(|level| counts && level < wanted));
        let first =
            self.unserved.iter_mut().take(need as usize).filter_map(|u| std::mem::take(u).then_some(()));
        first.count() as u64
    }
}

/// Seconds that `missing` instances, started by the minute's first arrivals, live to its end.
pub(crate) fn late_seconds(missing: u32, arrivals: u32) -> f64 {
    let n = f64::from(missing.min(arrivals));
    if n > 0.0 { 60.0 * n - 30.0 * n * n / f64::from(arrivals) } else { 0.0 }
}
