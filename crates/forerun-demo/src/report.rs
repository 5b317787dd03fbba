//! What the race showed, for programs and for people.

use crate::learn::Learned;
use crate::manifest::Rules;
use crate::race::{Tally, gb_seconds, quantile};
use crate::script::Script;
use comfy_table::{CellAlignment, Table, presets};
use forerun_lab::{MemoryScores, Scores, WaitScores};
use forerun_types::Span;
use serde::Serialize;

/// Resamples for the interval.
const RESAMPLES: usize = 4_000;

#[derive(Debug, Serialize)]
pub struct Report {
    pub acts: Vec<Act>,
}

#[derive(Debug, Serialize)]
pub struct Act {
    pub act: &'static str,
    pub traffic: Traffic,
    /// Times and GB-seconds as measured, at playing speed.
    pub runs: Vec<Scores>,
    pub wins: Wins,
    #[serde(skip)]
    pub(crate) interval: (f64, f64),
}

#[derive(Debug, Serialize)]
pub struct Traffic {
    pub source: &'static str,
    pub requests: u64,
    pub services: usize,
    pub users: usize,
    pub speedup: u64,
}

/// Forerun over the baseline; below 1 is better.
#[derive(Debug, Serialize)]
pub struct Wins {
    pub cold_starts_ratio: f64,
    pub p99_wait_ratio: f64,
    pub memory_ratio: f64,
}

/// Puts the tallies, the baseline's first and Forerun's last, side by side.
pub(crate) fn act(tallies: &[Tally], script: &Script) -> Option<Act> {
    let [baseline, .., forerun] = tallies else { return None };
    let runs: Vec<Scores> = tallies.iter().map(|t| scores(t, &script.rules)).collect();
    let ratio = |of: fn(&Scores) -> f64| of(&runs[runs.len() - 1]) / of(&runs[0]);
    Some(Act {
        act: script.act,
        traffic: Traffic {
            source: script.source,
            requests: script.future.events.len() as u64,
            services: baseline.services.iter().filter(|s| s.0 > 0).count(),
            users: script.users(),
            speedup: script.rules.speedup,
        },
        wins: Wins {
            cold_starts_ratio: ratio(|s| s.cold_starts as f64),
            p99_wait_ratio: ratio(|s| s.added_wait_seconds.p99),
            memory_ratio: ratio(|s| s.memory_gb_seconds.total),
        },
        interval: interval(&baseline.services, &forerun.services),
        runs,
    })
}

fn scores(tally: &Tally, act: &Rules) -> Scores {
    let requests: u64 = tally.services.iter().map(|s| s.0).sum();
    let cold: u64 = tally.services.iter().map(|s| s.1).sum();
    let gbs = |byte_seconds: f64| byte_seconds / 1e9;
    let memory = MemoryScores {
        busy: gbs(tally.totals.busy_byte_seconds),
        idle: gbs(tally.totals.idle_byte_seconds),
        starting: gbs(tally.totals.starting_byte_seconds),
        total: gb_seconds(&tally.totals),
    };
    let seconds = |q| quantile(&tally.waits, q).as_secs_f64();
    let mean = tally.waits.iter().sum::<u64>() as f64 / 1e6 / tally.waits.len().max(1) as f64;
    let price = act.cold_start_gbs / act.speedup as f64;
    let mut ratios: Vec<f64> =
        tally.services.iter().filter(|s| s.0 > 0).map(|s| s.1 as f64 / s.0 as f64).collect();
    ratios.sort_by(f64::total_cmp);
    let part = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    Scores {
        policy: tally.policy.clone(),
        cold_start_cost: price,
        requests,
        cold_starts: cold,
        cold_start_ratio: part(cold, requests),
        cold_start_ratio_p75_service: ratios.get(ratios.len() * 3 / 4).copied().unwrap_or(0.0),
        added_wait_seconds: WaitScores { p50: seconds(0.5), p95: seconds(0.95), p99: seconds(0.99), mean },
        idle_waste_ratio: memory.idle / (memory.busy + memory.idle).max(f64::MIN_POSITIVE),
        cost: cold as f64 * price + memory.idle + memory.starting,
        memory_gb_seconds: memory,
        instances_started: tally.totals.started,
        prewarm_precision: part(tally.totals.prewarmed_used, tally.totals.prewarmed),
        prewarm_recall: part(tally.totals.prewarmed_used, tally.totals.prewarmed_used + cold),
        decisions: tally.totals.started,
        ..Scores::default()
    }
}

/// 95% interval of the ratio of cold starts, by resampling services: they, not requests, are independent.
fn interval(baseline: &[(u64, u64)], forerun: &[(u64, u64)]) -> (f64, f64) {
    let n = baseline.len().min(forerun.len());
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % n.max(1)
    };
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let (mut below, mut above) = (0, 0);
        for _ in 0..n {
            let at = draw();
            above += forerun[at].1;
            below += baseline[at].1;
        }
        if below > 0 {
            ratios.push(above as f64 / below as f64);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let at = |q: f64| ratios.get((q * ratios.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    (at(0.025), at(0.975))
}

impl Report {
    /// One JSON document.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How the race was made, to be read before its figures.
pub(crate) fn preface(script: &Script, learned: &Learned, instances: &str) -> String {
    let act = &script.rules;
    let span = |minutes: (usize, usize)| match script.has_clock {
        true => format!("{}-{}", script.minute(minutes.0), script.minute(minutes.1)),
        false => format!("minutes {}-{}", minutes.0 + 1, minutes.1),
    };
    let users = match script.users() {
        0 => String::new(),
        users => format!(" of {users} users"),
    };
    let recorded = |gbs: f64| gbs * act.speedup as f64 / 3_600.0;
    format!(
        "\
Traffic   {source}.
          Learned from {learn}; raced over {race}: {requests} requests{users} at {speedup}x, {minute}.
          {how}
Starts    {instances}; each sleeps {sleep} before it listens, {sleep_recorded} at recorded speed.
          {concurrency} An instance counts with the memory that {memory}.
Baseline  keep-alive={keep}: of the fixed times, the shortest that may use Forerun's memory on the learning part
          ({keep_gbh:.1} against {forerun_gbh:.1} GB-hours there, {keep_cold} against {forerun_cold} cold starts).
",
        source = script.source,
        how = script.how,
        requests = script.future.events.len(),
        learn = span(act.learn_minutes),
        race = span(act.race_minutes),
        speedup = act.speedup,
        sleep = act.sleep,
        sleep_recorded = act.recorded(act.sleep),
        concurrency = match act.concurrency {
            0 => "Any number of requests at a time each.".to_owned(),
            1 => "One request at a time each.".to_owned(),
            n => format!("{n} requests at a time each."),
        },
        memory = match act.untold.memory_bytes {
            0 => "the trace tells of its application",
            _ => "is named above",
        },
        minute = match act.played(Span::from_secs(60)) {
            Span(1_000_000) => "a recorded minute a second".to_owned(),
            played => format!("a recorded minute in {played}"),
        },
        keep = learned.keep_alive,
        keep_gbh = recorded(learned.keep_alive_gbs),
        forerun_gbh = recorded(learned.forerun_gbs),
        keep_cold = learned.keep_alive_cold,
        forerun_cold = learned.forerun_cold,
    )
}

/// The one table at the end.
pub(crate) fn table(act: &Act) -> String {
    let [baseline, .., forerun] = &act.runs[..] else { return String::new() };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let names = act.runs.iter().map(|r| r.policy.clone());
    table.set_header([String::new()].into_iter().chain(names).chain(["forerun / baseline".to_owned()]));
    let ms = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
    let gbh = |gbs: f64| format!("{:.2} GB-h", gbs * act.traffic.speedup as f64 / 3_600.0);
    let (low, high) = act.interval;
    let cold = format!("{:.2}  (95%: {low:.2} to {high:.2})", act.wins.cold_starts_ratio);
    let row = |name: &str, of: &dyn Fn(&Scores) -> String, ratio: String| {
        [name.to_owned()].into_iter().chain(act.runs.iter().map(of)).chain([ratio]).collect::<Vec<_>>()
    };
    let over = |of: fn(&Scores) -> f64| format!("{:.2}", of(forerun) / of(baseline));
    let wait = |name: &str, of: fn(&Scores) -> f64| row(name, &|s| ms(of(s)), over(of));
    table.add_row(row("requests", &|s| s.requests.to_string(), String::new()));
    table.add_row(row("cold starts", &|s| s.cold_starts.to_string(), cold));
    table.add_row(wait("wait, mean", |s| s.added_wait_seconds.mean));
    table.add_row(wait("wait, p95", |s| s.added_wait_seconds.p95));
    table.add_row(wait("wait, p99", |s| s.added_wait_seconds.p99));
    table.add_row(row("memory", &|s| gbh(s.memory_gb_seconds.total), over(|s| s.memory_gb_seconds.total)));
    table.add_row(row("of that idle", &|s| format!("{:.0}%", 100.0 * s.idle_waste_ratio), String::new()));
    table.add_row(row("instances started", &|s| s.instances_started.to_string(), String::new()));
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 3));
        if at > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let notes = "memory at recorded speed. GB are 10^9 bytes.";
    format!("{lines}\nWaits as measured at {}x; {notes}\n", act.traffic.speedup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_ratio_and_narrows_with_more_services() {
        let side = |cold: u64, n: usize| vec![(100, cold); n];
        let (low, high) = interval(&side(10, 50), &side(4, 50));
        assert!(
            (low - 0.4).abs() < 1e-9 && (high - 0.4).abs() < 1e-9,
            "no spread, no interval: {low} {high}"
        );
        let mixed =
            |a: u64, b: u64| (0..40).map(|i| (100, if i % 2 == 0 { a } else { b })).collect::<Vec<_>>();
        let (low, high) = interval(&mixed(10, 20), &mixed(2, 12));
        assert!(low < 14.0 / 30.0 && 14.0 / 30.0 < high && high - low < 0.3, "{low} {high}");
    }
}
