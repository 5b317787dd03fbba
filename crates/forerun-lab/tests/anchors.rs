//! Rivals on public traces against figures that were measured elsewhere. The traces are not part of the repository:
//! they are looked for in the folder that `FORERUN_SHARED` names, else in `../shared` beside the checkout.

use forerun_lab::{Capacity, Options, Outcome, PolicyName, World, replay_minutes, replay_requests};
use forerun_trace::{ColumnMap, Input, MinuteTrace, ReadOptions, Recorded, Trace, read};
use forerun_types::Span;
use std::io::Write;
use std::path::PathBuf;

/// A file of the shared data; `None`, and a word about it, if it is not there.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("FORERUN_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let file = root.join("data").join(path);
    if file.exists() {
        return Some(file);
    }
    // Straight to standard error: the test harness would swallow a print of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {} is not there; set FORERUN_SHARED", file.display());
    None
}

fn minutes() -> Option<MinuteTrace> {
    let input = Input::Path(shared("azure2019_femux100")?);
    match read(&[input], &ReadOptions::default(), &mut |_| {}).expect("reads") {
        Recorded::Minutes(trace) => Some(trace),
        Recorded::Requests(_) => panic!("a folder of minutes is read as requests"),
    }
}

fn requests(path: &str, map: Option<&str>) -> Option<Trace> {
    let map = map.map(|m| ColumnMap::parse(m).expect("a good map"));
    let input = Input::Path(shared(path)?);
    match read(&[input], &ReadOptions { map, ..ReadOptions::default() }, &mut |_| {}).expect("reads") {
        Recorded::Requests(trace) => Some(trace),
        Recorded::Minutes(_) => panic!("a file of requests is read as minutes"),
    }
}

fn named(name: &str) -> PolicyName {
    PolicyName::parse(name).expect("a policy's name")
}

/// (cold starts, GB-seconds in all, started) of the rounded figures.
fn figures(outcome: &Outcome) -> (u64, u64, u64) {
    let s = &outcome.scores;
    (s.cold_starts, s.memory_gb_seconds.total.round() as u64, s.instances_started)
}

/// Guarantee: whole minutes give the figures that the published rule gives on the same day.
#[test]
fn a_day_of_azure_functions() {
    let Some(trace) = minutes() else { return };
    assert_eq!(trace.apps.len(), 47);
    let keep = |minutes: u64| PolicyName::KeepAlive(Span::from_secs(60 * minutes));
    for (policy, expect) in [
        (PolicyName::None, (18_317, 93_910, 4_336)),
        (keep(5), (924, 287_429, 777)),
        (keep(10), (515, 318_110, 509)),
        (keep(20), (224, 349_403, 218)),
        (PolicyName::Hazard, (569, 221_634, 4_062)),
        (named("always-on"), (57, 628_925, 57)),
        (named("histogram"), (160, 336_999, 2_423)),
        (named("histogram=fallback:240m"), (136, 388_813, 2_399)),
        // FeMux's Knative: a window of a minute, a target of one.
        (named("knative=target:1"), (4_336, 194_238, 3_541)),
        (named("knative"), (4_323, 206_127, 3_928)),
        (named("optimal-keep"), (643, 259_263, 643)),
        (named("optimal-prewarm"), (0, 174_417, 4_336)),
    ] {
        let outcome = replay_minutes(policy, "p", &trace, &Options::default(), &mut |_| {}).expect("replays");
        assert_eq!(figures(&outcome), expect, "{policy:?}");
    }
    let hazard =
        replay_minutes(PolicyName::Hazard, "p", &trace, &Options::default(), &mut |_| {}).expect("replays");
    let forerun =
        replay_minutes(PolicyName::Forerun, "p", &trace, &Options::default(), &mut |_| {}).expect("replays");
    let rum = |o: &Outcome| o.scores.rum.expect("minutes have it");
    assert_eq!(rum(&hazard).round(), 2_426.0);
    assert!(rum(&forerun) <= rum(&hazard), "forerun {} is worse than hazard {}", rum(&forerun), rum(&hazard));
}

/// Guarantee: on the apps that FeMux has figures for, the rivals have the RUM that was measured for them elsewhere.
#[test]
fn the_apps_of_femux() {
    let Some(trace) = minutes() else { return };
    let Some(path) = shared("azure2019_femux100/published_sim_results_per_app.csv") else { return };
    let mut reader = csv::Reader::from_path(path).expect("opens");
    let column = reader.headers().expect("a head").iter().position(|h| h == "femux_cold_starts");
    let column = column.expect("the published cold starts");
    let rows = reader.records().map(|row| row.expect("a row"));
    let only: Vec<String> = rows.filter(|r| !r[column].is_empty()).map(|r| r[0].to_owned()).collect();
    assert_eq!(only.len(), 41);
    let options = Options { only: Some(only), ..Options::default() };
    for (name, expect) in [
        ("none", 15_407.0),
        ("knative=target:1", 5_143.0),
        ("keep-alive=1m", 5_143.0),
        ("keep-alive=5m", 3_307.0),
        ("keep-alive=10m", 3_267.0),
        ("keep-alive=20m", 3_320.0),
        ("histogram", 3_105.0),
        ("optimal-keep", 2_821.0),
        ("hazard", 2_366.0),
        ("optimal-prewarm", 1_488.0),
    ] {
        let outcome = replay_minutes(named(name), name, &trace, &options, &mut |_| {}).expect("replays");
        assert_eq!(outcome.scores.rum.expect("minutes have it").round(), expect, "{name}");
    }
}

/// Guarantee: single requests give the figures of the outside scorer, and so do the rivals' decisions.
#[test]
fn two_weeks_of_image_generation() {
    let map = "at=gmt_create,service=checkpoint_model_version_id,duration_s=exec_time_seconds";
    let Some(trace) = requests("gentd26/lora_request_trace.csv", Some(map)) else { return };
    let options = Options { cold_start_gbs: 1_200.0, ..Options::default() };
    for (policy, expect) in [
        (PolicyName::None, (16_093, 589_856, 16_093)),
        (PolicyName::KeepAlive(Span::from_secs(600)), (3_539, 3_727_546, 3_539)),
        (PolicyName::Hazard, (3_682, 3_321_794, 5_548)),
        (named("always-on"), (125, 109_382_825, 125)),
        (named("histogram"), (1_199, 14_871_387, 1_295)),
        (named("optimal-keep"), (2_582, 2_502_043, 2_582)),
        (named("optimal-prewarm"), (129, 583_444, 14_664)),
    ] {
        let outcome = replay_requests(policy, "p", &trace, &options, &mut |_| {}).expect("replays");
        assert_eq!(figures(&outcome), expect, "{policy:?}");
    }
    for (most, total, lru, faascache, belady) in [
        (8, 11_309_272, 4_367, 4_827, 3_114),
        (16, 22_058_138, 1_962, 2_657, 1_380),
        (32, 40_609_644, 832, 963, 625),
    ] {
        let world = World { capacity: Capacity::Instances(most), ..World::default() };
        let options = Options { world, ..options.clone() };
        for (name, expect) in [("lru", lru), ("faascache", faascache), ("belady", belady)] {
            let outcome = replay_requests(named(name), name, &trace, &options, &mut |_| {}).expect("replays");
            assert_eq!(figures(&outcome), (expect, total, expect), "{name} at most {most}");
        }
    }
}

/// Guarantee: an access log gives the same figures by its paths, any number of requests to an instance.
#[test]
fn an_access_log() {
    let Some(trace) = requests("apache_semicomplete/apache_logs.gz", None) else { return };
    assert_eq!((trace.events.len(), trace.services.len(), trace.report.skipped), (10_000, 41, 0));
    let world = World { start: Span::from_secs(1), per_instance: 0, ..World::default() };
    for (policy, expect) in [
        (PolicyName::None, (8_014, 7_300, 6_954)),
        (PolicyName::KeepAlive(Span::from_secs(600)), (1_200, 709_039, 1_127)),
        (PolicyName::Hazard, (1_359, 68_393, 1_503)),
        (named("always-on"), (41, 10_635_960, 41)),
        (named("histogram"), (178, 4_361_793, 194)),
        (named("optimal-keep"), (1_200, 38_912, 1_127)),
        (named("optimal-prewarm"), (41, 8_839, 6_443)),
    ] {
        let options = Options { world, ..Options::default() };
        let outcome = replay_requests(policy, "p", &trace, &options, &mut |_| {}).expect("replays");
        assert_eq!(figures(&outcome), expect, "{policy:?}");
    }
    for (most, total, each) in [
        (8, 2_390_815, [("lru", 2_150, 2_025), ("faascache", 1_801, 1_718), ("belady", 1_170, 1_111)]),
        (16, 4_756_354, [("lru", 162, 162), ("faascache", 138, 138), ("belady", 114, 114)]),
        (32, 9_069_645, [("lru", 47, 47), ("faascache", 45, 45), ("belady", 41, 41)]),
    ] {
        let options =
            Options { world: World { capacity: Capacity::Instances(most), ..world }, ..Options::default() };
        for (name, cold, started) in each {
            let outcome = replay_requests(named(name), name, &trace, &options, &mut |_| {}).expect("replays");
            assert_eq!(figures(&outcome), (cold, total, started), "{name} at most {most}");
        }
    }
}
