//! What Forerun costs beside the policies of the lab on traffic that is made to hurt. With `--nocapture` the table is
//! printed. A build without optimisations plays the quick worlds only.

#[path = "stress/worlds.rs"]
mod worlds;

use forerun_lab::{Options, PolicyName, Scores, replay_requests};
use forerun_trace::Trace;
use std::fmt::Write as _;
use std::io::Write as _;
use worlds::World;

/// Policies that anyone could run without a capacity, and a bound. No world has users: `forerun` is what it is without.
const POLICIES: [&str; 10] = [
    "forerun",
    "hazard",
    "none",
    "keep-alive=1m",
    "keep-alive=10m",
    "always-on",
    "histogram",
    "knative",
    "hpa",
    "optimal-keep",
];

/// By how much another has to be cheaper to count.
const MARGIN: f64 = 0.05;

fn scores(trace: &Trace, policy: &str) -> Scores {
    let name = PolicyName::parse(policy).expect("a policy");
    replay_requests(name, policy, trace, &Options::default(), &mut |_| {}).expect("replays").scores
}

/// Plays a world and prints its table; returns who was cheaper than Forerun.
fn play(name: &str, trace: &Trace) -> Vec<String> {
    let mut table = format!("\n{name}: {} requests, {} services\n", trace.events.len(), trace.services.len());
    let _ =
        writeln!(table, "policy             of Forerun's       cost   cold starts    idle GB-s    starting");
    let all: Vec<Scores> = POLICIES.iter().map(|policy| scores(trace, policy)).collect();
    let mut cheaper = Vec::new();
    for s in &all {
        let ratio = s.cost / all[0].cost;
        let (m, cost) = (&s.memory_gb_seconds, s.cost);
        let _ = writeln!(
            table,
            "{:18} {ratio:12.3} {cost:10.0} {:13} {:12.0} {:11.0}",
            s.policy, s.cold_starts, m.idle, m.starting
        );
        if ratio < 1.0 - MARGIN && s.policy != "optimal-keep" {
            cheaper.push(format!("{name}: {} at {ratio:.3}", s.policy));
        }
    }
    println!("{table}");
    cheaper
}

fn play_all(worlds: &[World]) {
    let made = worlds.iter().filter_map(|(name, make)| Some((name, make()?)));
    let cheaper: Vec<String> = made.flat_map(|(name, trace)| play(name, &trace)).collect();
    assert!(cheaper.is_empty(), "cheaper than Forerun: {cheaper:?}");
}

/// Guarantee: nothing that anyone could run is cheaper than Forerun by more than a twentieth.
#[test]
fn nothing_beats_forerun() {
    play_all(&worlds::QUICK);
}

/// Guarantee: the same where it takes longer.
#[test]
fn nothing_beats_forerun_in_slow_worlds() {
    if cfg!(debug_assertions) {
        // Straight to standard error: the test harness would swallow a print of a test that passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the slow worlds of stress; the stage replay plays them in release"
        );
        return;
    }
    play_all(&worlds::SLOW);
}
