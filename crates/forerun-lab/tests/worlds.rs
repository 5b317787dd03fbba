//! The two worlds against figures of an independent scorer, and policies against what they may know.

use forerun_lab::{
    Capacity, Decision, LabError, Options, Outcome, PolicyName, Requests, Scores, World, decide_requests,
    replay_minutes, replay_requests, score_requests,
};
use forerun_trace::{MinuteApp, MinuteTrace, Trace, TraceEvent};
use forerun_types::{ActionKey, GroupKey, ServiceId, ServiceSpec, Span, TenantKey, Time, UserKey};
use std::sync::Arc;

/// A plain congruential generator: simple enough to be restated wherever these traces are scored again.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn event(at_ms: u64, service: u32, duration_ms: u64, memory_bytes: u64) -> TraceEvent {
    TraceEvent {
        at: Time(at_ms * 1_000),
        service: ServiceId(service),
        tenant: TenantKey(0),
        user: UserKey(0),
        group: GroupKey(0),
        action: ActionKey(0),
        duration: Some(Span::from_millis(duration_ms)),
        memory_bytes: Some(memory_bytes),
    }
}

/// Numbers services in order of first appearance, as the readers do.
fn trace(rows: Vec<(u64, String, u64, u64)>) -> Trace {
    let mut trace = Trace::default();
    for (at_ms, name, duration_ms, memory_bytes) in rows {
        let known = trace.services.iter().position(|s| *s == name);
        let service = known.unwrap_or_else(|| {
            trace.services.push(name);
            trace.services.len() - 1
        });
        trace.events.push(event(at_ms, service as u32, duration_ms, memory_bytes));
    }
    trace
}

/// Requests on a grid of 250 ms, so that much happens at one instant.
fn synthetic(requests: u64) -> Trace {
    let mut draws = Draws(7);
    let mut at_ms = 0;
    let mut rows = Vec::new();
    for n in 0..requests {
        at_ms += if n > 0 { draws.below(4) * 250 } else { 0 };
        let service = draws.below(6).min(draws.below(6));
        let name = format!("s{}", service * 7 % 10);
        rows.push((at_ms, name, draws.below(13) * 250, (1 + service % 3) * 500_000_000));
    }
    trace(rows)
}

fn drawn_decisions(trace: &Trace, count: u64) -> Vec<Decision> {
    let mut draws = Draws(11);
    let mut at_ms = 0;
    let mut decisions = Vec::new();
    for _ in 0..count {
        at_ms += draws.below(4) * 250;
        let name = format!("s{}", draws.below(6) * 7 % 10);
        let wanted = draws.below(4) as u32;
        if let Some(service) = trace.services.iter().position(|s| *s == name) {
            decisions.push(Decision { at: Time(at_ms * 1_000), service: ServiceId(service as u32), wanted });
        }
    }
    decisions
}

fn options(start_s: u64, capacity: u32, per_instance: u32) -> Options {
    let capacity = if capacity == 0 { Capacity::Unlimited } else { Capacity::Instances(capacity) };
    let start = Span::from_secs(start_s);
    Options { world: World { start, capacity, per_instance, ..World::default() }, ..Options::default() }
}

fn score(trace: &Trace, decisions: &[Decision], options: &Options) -> Scores {
    let requests = Requests::new(trace, options).expect("options fit the trace");
    score_requests("drawn", &requests, decisions, options, &mut |_| {})
}

/// Guarantee: decisions are played as the outside scorer plays them, every tie included.
#[test]
fn the_world_of_requests_agrees_with_an_independent_scorer() {
    // start s, capacity, requests an instance | cold starts, starts | GB-seconds in all, busy, starting | waits in s:
    // sum, p50, p95, p99.
    type Case = (u64, u32, u32, [u64; 2], [f64; 3], [f64; 4]);
    let cases: [Case; 10] = [
        (0, 0, 1, [160, 366], [1668.250, 588.750, 0.000], [0.000, 0.000, 0.000, 0.000]),
        (2, 0, 1, [262, 379], [1944.250, 587.750, 684.000], [503.250, 2.000, 2.000, 2.000]),
        (2, 0, 0, [94, 241], [1605.500, 377.750, 416.375], [129.250, 0.000, 2.000, 2.000]),
        (2, 0, 2, [139, 261], [1673.500, 445.125, 451.875], [214.750, 0.000, 2.000, 2.000]),
        (2, 4, 1, [314, 316], [582.000, 293.375, 288.625], [32904.000, 83.250, 155.000, 162.250]),
        (2, 9, 1, [307, 373], [1294.875, 587.125, 639.375], [890.250, 2.000, 4.000, 5.000]),
        (2, 5, 2, [243, 178], [730.875, 393.125, 316.875], [916.000, 2.250, 5.000, 5.750]),
        (3, 2, 1, [295, 296], [280.625, 114.875, 165.750], [119009.250, 300.500, 573.750, 600.500]),
        (1, 3, 2, [266, 195], [431.750, 303.125, 128.500], [12023.750, 31.000, 60.750, 64.250]),
        (1, 1, 0, [400, 320], [137.375, 85.375, 52.000], [145252.250, 372.750, 673.000, 702.500]),
    ];
    let trace = synthetic(400);
    let decisions = drawn_decisions(&trace, 400);
    for (start, capacity, per_instance, counts, memory, waits) in cases {
        let case = format!("start {start} capacity {capacity} per instance {per_instance}");
        let s = score(&trace, &decisions, &options(start, capacity, per_instance));
        assert_eq!([s.cold_starts, s.instances_started], counts, "{case}");
        let (m, w) = (s.memory_gb_seconds, s.added_wait_seconds);
        let got = [m.total, m.busy, m.starting, w.mean * 400.0, w.p50, w.p95, w.p99];
        for (got, expect) in got.iter().zip(memory.iter().chain(&waits)) {
            assert!((got - expect).abs() < 1e-3, "{case}: {got} is not {expect}");
        }
        assert!((m.busy + m.idle + m.starting - m.total).abs() < 1e-9, "{case}");
    }
}

/// Guarantee: each rule of the world, one at a time, worked by hand.
#[test]
fn the_rules_one_by_one() {
    let gb = 1_000_000_000;
    let t = |rows: &[(u64, &str, u64)]| {
        trace(rows.iter().map(|&(at, s, d)| (at * 1000, s.to_owned(), d * 1000, gb)).collect())
    };
    let d = |at_s: u64, service: u32, wanted: u32| Decision {
        at: Time(at_s * 1_000_000),
        service: ServiceId(service),
        wanted,
    };
    let check = |trace: &Trace,
                 decisions: &[Decision],
                 capacity,
                 per_instance,
                 cold,
                 starts,
                 total: f64,
                 waited: f64| {
        let s = score(trace, decisions, &options(10, capacity, per_instance));
        assert_eq!((s.cold_starts, s.instances_started), (cold, starts), "{trace:?} {decisions:?}");
        assert!(
            (s.memory_gb_seconds.total - total).abs() < 1e-9,
            "{} is not {total}",
            s.memory_gb_seconds.total
        );
        let sum = s.added_wait_seconds.mean * s.requests as f64;
        assert!((sum - waited).abs() < 1e-9, "{sum} is not {waited}");
    };
    let three = t(&[(0, "x", 5), (20, "x", 5), (22, "x", 5)]);
    // Nothing kept: each starts its own, and costs stop at the last nominal end, 27 s.
    check(&three, &[], 0, 1, 3, 3, 15.0 + 7.0 + 5.0, 30.0);
    // Kept till 21 s: the second is warm, the third cold; what is busy at 21 s goes when done.
    check(&three, &[d(0, 0, 1), d(21, 0, 0)], 0, 1, 2, 2, 25.0 + 5.0, 20.0);
    // Started ahead, in time.
    check(&three, &[d(8, 0, 1), d(9, 0, 2), d(26, 0, 0)], 0, 1, 1, 2, 26.0 + 18.0, 10.0);
    // Started ahead too late by 4 s: cold, with the shorter wait.
    let late = t(&[(0, "y", 1), (20, "x", 5), (90, "y", 1)]);
    check(&late, &[d(14, 1, 1), d(30, 1, 0)], 0, 1, 3, 3, 11.0 + 16.0 + 1.0, 24.0);
    // Any number at a time: the second joins the start, the third is warm.
    check(&t(&[(0, "x", 30), (4, "x", 1), (12, "x", 1)]), &[], 0, 0, 2, 1, 30.0, 16.0);
    // Capacity for one: z waits for y, and is no cold start while it queues; it is when it is placed.
    let full = t(&[(0, "y", 10), (5, "z", 1)]);
    check(&full, &[], 1, 1, 2, 2, 10.0, 10.0 + 25.0);
}

/// Guarantee: started ahead is what no request waited for, and it is met once.
#[test]
fn what_was_started_ahead_is_counted() {
    let trace =
        trace(vec![(0, "x".into(), 1000, 1), (60_000, "x".into(), 1000, 1), (70_000, "x".into(), 1000, 1)]);
    let want = |at_s: u64, wanted| Decision { at: Time(at_s * 1_000_000), service: ServiceId(0), wanted };
    // Two ahead at 40 s, one of which serves twice.
    let s = score(&trace, &[want(40, 2)], &options(10, 0, 1));
    assert_eq!((s.cold_starts, s.instances_started, s.decisions), (1, 3, 1));
    assert_eq!((s.prewarm_precision, s.prewarm_recall), (0.5, 0.5));
    assert_eq!((s.cold_start_ratio, s.cold_start_ratio_p75_service), (1.0 / 3.0, 1.0 / 3.0));
}

/// Guarantee: what is scored is cut out of one and the same run.
#[test]
fn split_and_only_leave_the_rest_out() {
    let trace = synthetic(400);
    let decisions = drawn_decisions(&trace, 400);
    let all = options(2, 0, 1);
    let whole = score(&trace, &decisions, &all);
    let parts: Vec<Scores> = trace
        .services
        .iter()
        .map(|name| score(&trace, &decisions, &Options { only: Some(vec![name.clone()]), ..all.clone() }))
        .collect();
    assert_eq!(parts.iter().map(|p| p.cold_starts).sum::<u64>(), whole.cold_starts);
    assert_eq!(parts.iter().map(|p| p.requests).sum::<u64>(), whole.requests);
    let total: f64 = parts.iter().map(|p| p.memory_gb_seconds.total).sum();
    assert!((total - whole.memory_gb_seconds.total).abs() < 1e-6);
    let split = Time(60_000_000);
    let late = score(&trace, &decisions, &Options { split, ..all.clone() });
    assert_eq!(late.requests, trace.events.iter().filter(|e| e.at >= split).count() as u64);
    assert!(late.memory_gb_seconds.total < whole.memory_gb_seconds.total);
    let nobody = Options { only: Some(vec!["nobody".into()]), ..all };
    assert!(matches!(Requests::new(&trace, &nobody), Err(LabError::Option { option: "--only", .. })));
}

/// Guarantee: bytes bound what exists; what could never fit is refused at once.
#[test]
fn capacity_in_bytes() {
    let trace = synthetic(400);
    let world = |bytes| World { capacity: Capacity::Bytes(bytes), ..World::default() };
    let tight = Options { world: world(3_000_000_000), ..Options::default() };
    let s = score(&trace, &drawn_decisions(&trace, 400), &tight);
    let horizon_s =
        trace.events.iter().map(|e| e.at.0 + e.duration.map_or(0, |d| d.0)).max().unwrap_or(0) as f64 / 1e6;
    assert!(s.memory_gb_seconds.total <= 3.0 * horizon_s);
    assert!(s.added_wait_seconds.p50 > 10.0, "the world is crowded: {:?}", s.added_wait_seconds);
    let never = Options { world: world(1_000_000_000), ..Options::default() };
    assert!(matches!(Requests::new(&trace, &never), Err(LabError::NeverFits { bytes: 1_500_000_000, .. })));
}

/// Sparse arrivals in flows: a user asks for one service, then for the next.
fn flows(requests: u64) -> Trace {
    let mut draws = Draws(3);
    let mut at_ms = 0;
    let mut trace = Trace { services: (0..5).map(|n| format!("f{n}")).collect(), ..Trace::default() };
    for n in 0..requests {
        at_ms += draws.below(40_000);
        // The first five name all services in order, so that numbers stand by first appearance.
        let service = if n < 5 { n } else { draws.below(3) + n % 3 };
        let user = UserKey(1 + draws.below(4));
        trace
            .events
            .push(TraceEvent { user, ..event(at_ms, service as u32, draws.below(9_000), 500_000_000) });
    }
    trace
}

const POLICIES: [(&str, PolicyName); 7] = [
    ("none", PolicyName::None),
    ("keep-alive=60s", PolicyName::KeepAlive(Span::from_secs(60))),
    ("hazard", PolicyName::Hazard),
    ("forerun", PolicyName::Forerun),
    ("forerun-no-users", PolicyName::ForerunNoUsers),
    ("forerun-no-load", PolicyName::ForerunNoLoad),
    ("forerun-no-users-no-load", PolicyName::ForerunNoUsersNoLoad),
];

/// Those of others that do not know the future.
const RIVALS: [&str; 7] = [
    "always-on",
    "histogram=fallback:60s",
    "knative",
    "knative=window:20s,burst:0",
    "hpa",
    "lru",
    "faascache",
];

fn named(name: &str) -> PolicyName {
    PolicyName::parse(name).expect(name)
}

/// Guarantee: no decision knows what comes after it.
#[test]
fn decisions_do_not_know_the_future() {
    let whole = flows(600);
    for (name, policy) in POLICIES.into_iter().chain(RIVALS.map(|name| (name, named(name)))) {
        for per_instance in [1, 0] {
            let capacity = if ["lru", "faascache"].contains(&name) { 3 } else { 0 };
            let options = options(10, capacity, per_instance);
            let full = replay_requests(policy, name, &whole, &options, &mut |_| {}).expect("replays");
            for until in [whole.events[200].at, whole.events[431].at + Span(3)] {
                let mut cut = whole.clone();
                cut.cut(until);
                let options = Options { until: Some(until), ..options.clone() };
                let part = replay_requests(policy, name, &cut, &options, &mut |_| {}).expect("replays");
                let before = |d: &[Decision]| -> Vec<Decision> {
                    d.iter().copied().filter(|d| d.at < until).collect()
                };
                assert_eq!(before(&full.decisions), before(&part.decisions), "{name} until {until:?}");
                assert!(name == "none" || !before(&full.decisions).is_empty(), "{name} decides nothing");
            }
        }
    }
}

/// Guarantee: the world that the core lives in and the one that scores its decisions are the same world.
#[test]
fn the_driven_world_is_the_scored_one() {
    let trace = flows(600);
    for (name, policy) in [("forerun", PolicyName::Forerun), ("forerun-no-users", PolicyName::ForerunNoUsers)]
    {
        for (per_instance, capacity) in [(1, 0), (2, 0), (1, 3), (1, 2)] {
            let options = Options { cold_start_gbs: 300.0, ..options(10, capacity, per_instance) };
            let requests = Requests::new(&trace, &options).expect("options fit the trace");
            let driven =
                decide_requests(policy, name, &requests, &options, &mut |_| {}).expect("comes to rest");
            let scores = score_requests(name, &requests, &driven.decisions, &options, &mut |_| {});
            let case = format!("{name}, {per_instance} an instance, at most {capacity}");
            assert_eq!(driven.requests, scores.requests, "{case}");
            // Without a limit they are the same to the last request; with one, who gets the room that comes may differ.
            let (a, b) = (driven.cold as f64, scores.cold_starts as f64);
            assert!(
                (a - b).abs() <= if capacity == 0 { 0.0 } else { 0.015 * b },
                "{case}: {a} there, {b} here"
            );
            let (a, b) =
                (driven.waited.as_secs_f64(), scores.added_wait_seconds.mean * scores.requests as f64);
            // On two instances for six services nearly every request waits for somebody else.
            let most = if capacity == 2 { 0.03 } else { 0.01 };
            assert!((a - b).abs() <= most * b, "{case}: waited {a} s there, {b} s here");
            assert!(
                capacity > 0 || scores.cold_starts < scores.requests / 2,
                "{case} keeps nothing warm: {scores:?}"
            );
        }
    }
}

/// Guarantee: what a rival decides while it looks on is, played by itself, the same run.
#[test]
fn decisions_made_in_the_world_are_the_whole_story() {
    let trace = flows(600);
    for name in RIVALS.into_iter().chain(["belady", "optimal-keep", "optimal-prewarm"]) {
        for (per_instance, capacity) in [(1, 0), (2, 0), (1, 4), (1, 3)] {
            let evicts = ["lru", "faascache", "belady"].contains(&name);
            let options = options(10, capacity, per_instance);
            let outcome = replay_requests(named(name), name, &trace, &options, &mut |_| {});
            if evicts && capacity == 0 {
                assert!(outcome.expect_err("needs a bound").to_string().contains("give --capacity"));
                continue;
            }
            let Outcome { decisions, scores } = outcome.expect("replays");
            let again = score(&trace, &decisions, &options);
            let case =
                format!("{name}, {per_instance} an instance, at most {capacity}: {scores:?} {again:?}");
            assert_eq!(
                (scores.cold_starts, scores.instances_started),
                (again.cold_starts, again.instances_started),
                "{case}"
            );
            assert_eq!(
                (scores.memory_gb_seconds, scores.added_wait_seconds),
                (again.memory_gb_seconds, again.added_wait_seconds),
                "{case}"
            );
            assert!(scores.decisions > 0, "{case}");
        }
    }
}

/// Guarantee: Knative and Kubernetes, worked by hand in the world of requests.
#[test]
fn autoscalers_look_on_at_their_times() {
    let at = |outcome: &Outcome| -> Vec<(u64, u32)> {
        outcome.decisions.iter().map(|d| (d.at.0 / 1_000_000, d.wanted)).collect()
    };
    let trace = trace(vec![(500, "x".into(), 1_000, 1), (400_000, "y".into(), 1, 1)]);
    let replay =
        |name| replay_requests(named(name), name, &trace, &options(10, 0, 1), &mut |_| {}).expect("replays");
    // Seen at 2 s, over at 11.5 s; the last second with traffic leaves the window of a minute at 72 s.
    assert_eq!(at(&replay("knative=target:1"))[..2], [(2, 1), (72, 0)]);
    // Three quarters of a request are two instances at 70% each, and no more than half of them go at once.
    assert_eq!(at(&replay("knative"))[..3], [(2, 2), (72, 1), (74, 0)]);
    // Seen at 15 s with one pod and no measurement; never fewer than one.
    assert_eq!(at(&replay("hpa"))[..1], [(15, 1)]);
    assert!(replay("hpa").decisions.iter().all(|d| d.wanted == 1));
    // With no burst to keep room for, the activator is out of the way, and the grace period begins at zero.
    assert_eq!(at(&replay("knative=target:1,burst:0"))[..2], [(2, 1), (102, 0)]);
}

/// Guarantee: starts that were measured are used, by every kind of policy.
#[test]
fn starts_by_service() {
    let trace = trace(vec![(0, "x".into(), 1_000, 1), (0, "y".into(), 1_000, 1), (60_000, "x".into(), 0, 1)]);
    let starts = [("x".to_owned(), Span::from_secs(3)), ("y".to_owned(), Span::ZERO)].into();
    let options = Options { starts, ..options(10, 0, 1) };
    for name in ["none", "forerun", "knative", "hazard", "always-on"] {
        let s = replay_requests(named(name), name, &trace, &options, &mut |_| {}).expect("replays").scores;
        let waited = s.added_wait_seconds.mean * 3.0;
        assert!((waited - 3.0 * if name == "none" { 2.0 } else { 1.0 }).abs() < 1e-9, "{name}: {s:?}");
    }
}

/// Guarantee: how much an instance serves at a time may differ between services, for every kind of policy.
#[test]
fn concurrency_by_service() {
    let trace = trace(
        [0, 1_000, 60_000, 61_000]
            .into_iter()
            .flat_map(|at| ["x", "y"].map(|s| (at, s.to_owned(), 5_000, 1)))
            .collect(),
    );
    let concurrency = [("x".to_owned(), 2)].into();
    let by_name = Options { concurrency, ..options(1, 0, 1) };
    for name in ["none", "forerun", "knative", "hazard", "keep-alive=5m", "histogram"] {
        let of = |service: &str, options: &Options| {
            let options = Options { only: Some(vec![service.into()]), ..options.clone() };
            replay_requests(named(name), name, &trace, &options, &mut |_| {}).expect("replays").scores
        };
        let (x, y) = (of("x", &by_name), of("y", &by_name));
        assert_eq!((x.requests, y.requests), (4, 4));
        assert!(x.instances_started < y.instances_started, "{name}: {x:?} {y:?}");
        assert_eq!(y.cold_starts, of("y", &options(1, 0, 1)).cold_starts, "{name}");
    }
}

/// Guarantee: what a configuration says of a service bounds the core's policies.
#[test]
fn a_configuration_bounds_the_core() {
    let trace = flows(200);
    let bounded = |min, max| {
        let told = ServiceSpec { min, max, ..ServiceSpec::named(ServiceId(0), "told") };
        let services = trace.services.iter().map(|n| (n.clone(), Arc::new(told.clone()))).collect();
        let options = Options { services, ..options(10, 0, 1) };
        replay_requests(PolicyName::Forerun, "forerun", &trace, &options, &mut |_| {}).expect("replays")
    };
    let (most, kept) = (bounded(0, 1), bounded(1, 3));
    assert!(most.decisions.iter().all(|d| d.wanted <= 1), "{:?}", most.decisions);
    let after_first =
        |o: &Outcome, s| o.decisions.iter().filter(|d| d.service == ServiceId(s)).all(|d| d.wanted >= 1);
    assert!(after_first(&kept, 0) && !kept.decisions.is_empty());
}

/// Guarantee: the world of minutes, worked by hand; and what it cannot do is said.
#[test]
fn whole_minutes() {
    let app = |concurrency: &[f64]| MinuteApp {
        name: "a".into(),
        memory_mb: 1000.0,
        concurrency: concurrency.to_vec(),
    };
    let trace = MinuteTrace { apps: vec![app(&[0.5, 0.0, 1.5, 1e-5])], ..MinuteTrace::default() };
    let options = Options::default();
    let replay = |policy, options: &Options| replay_minutes(policy, "p", &trace, options, &mut |_| {});
    let s = replay(PolicyName::KeepAlive(Span::from_secs(120)), &options).expect("replays").scores;
    // Wanted: 0, 1, 1, 2. Needed: 1, 0, 2, 0. The first of two arrivals comes at 15 s.
    assert_eq!((s.requests, s.cold_starts, s.instances_started, s.decisions), (3, 2, 2, 2));
    assert!((s.memory_gb_seconds.total - (30.0 + 60.0 + 105.0 + 120.0)).abs() < 1e-9, "{s:?}");
    assert!((s.memory_gb_seconds.busy - 120.0).abs() < 1e-9);
    assert!((s.rum.expect("minutes have it") - (0.808 * 2.0 + 195.0 / 99.69)).abs() < 1e-9);
    let odd = replay(PolicyName::KeepAlive(Span::from_secs(90)), &options).expect_err("not whole minutes");
    assert!(odd.to_string().contains("whole minutes"), "{odd}");
    let world = World { capacity: Capacity::Instances(3), ..World::default() };
    assert!(replay(PolicyName::None, &Options { world, ..options }).is_err());
}

#[test]
fn policies_by_name() {
    for (name, policy) in POLICIES {
        assert_eq!(PolicyName::parse(name), Ok(policy));
    }
    for (text, expect) in
        [("forrerun", "there are forerun"), ("keep-alive", "keep-alive=10m"), ("keep-alive=x", "no duration")]
    {
        let error = PolicyName::parse(text).expect_err(text).to_string();
        assert!(error.contains(expect), "{error}");
    }
}
