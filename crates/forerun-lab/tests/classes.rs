//! SLA classes at twice the capacity: who is guaranteed a share keeps it and its latency target, and who is promised
//! nothing bears the loss.

use forerun_lab::{Capacity, ClassScores, Options, PolicyName, World, replay_requests};
use forerun_trace::{Trace, TraceEvent};
use forerun_types::{ActionKey, GroupKey, ServiceId, ServiceSpec, SlaClass, Span, TenantKey, Time, UserKey};
use std::sync::Arc;

/// Instances that there may be at a time.
const CAPACITY: u32 = 10;

/// A plain congruential generator.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Ten minutes: bronze asks for 17 instances all the time, gold for three from the second minute on, so that together
/// they ask for twice what there is. Gaps are drawn evenly from nothing to twice their mean.
fn contention() -> Trace {
    let mut draws = Draws(5);
    let mut arrivals: Vec<(u64, usize, u64)> = Vec::new();
    for (service, from_ms, gap_ms, takes_ms) in [(0, 0, 30, 510), (1, 60_000, 70, 210)] {
        let mut at_ms = from_ms;
        while at_ms < 600_000 {
            at_ms += draws.below(2 * gap_ms + 1);
            arrivals.push((at_ms, service, takes_ms));
        }
    }
    arrivals.sort_unstable();
    let mut trace = Trace { services: vec!["bulk".into(), "shop".into()], ..Trace::default() };
    trace.events.extend(arrivals.into_iter().map(|(at_ms, service, takes_ms)| TraceEvent {
        at: Time(at_ms * 1_000),
        service: ServiceId(service as u32),
        tenant: TenantKey(0),
        user: UserKey(0),
        group: GroupKey(0),
        action: ActionKey(0),
        duration: Some(Span::from_millis(takes_ms)),
        memory_bytes: None,
    }));
    trace
}

/// Bronze and gold; `guarantee_milli` is gold's, and a drain of bronze takes no longer than `drain_s`.
fn replayed(guarantee_milli: u32, drain_s: u64) -> (ClassScores, ClassScores) {
    let class = |name: &str, priority, guarantee_milli| SlaClass {
        name: name.to_owned(),
        priority,
        guarantee_milli,
        ..SlaClass::default()
    };
    let spec = |name: &str, sla| ServiceSpec {
        sla,
        drain_timeout: Span::from_secs(drain_s),
        ..ServiceSpec::named(ServiceId(0), name)
    };
    let services = [spec("bulk", class("bronze", 100, 0)), spec("shop", class("gold", 100, guarantee_milli))];
    let options = Options {
        world: World {
            capacity: Capacity::Instances(CAPACITY),
            start: Span::from_secs(1),
            ..World::default()
        },
        services: services.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect(),
        ..Options::default()
    };
    let outcome = replay_requests(PolicyName::Forerun, "forerun", &contention(), &options, &mut |_| {});
    let [bronze, gold] = outcome.expect("it replays").scores.classes.try_into().expect("two classes");
    assert_eq!((bronze.class.as_str(), gold.class.as_str()), ("bronze", "gold"));
    (bronze, gold)
}

#[test]
fn at_twice_the_capacity_the_guaranteed_class_keeps_its_target_and_the_other_bears_the_loss() {
    for drain_s in [4, 30] {
        let (bronze, gold) = replayed(500, drain_s);
        let told = format!("{gold:?} {bronze:?}");
        let waits = &gold.added_wait_seconds;
        assert!(waits.p99 <= gold.latency_seconds, "{told}");
        assert_eq!(gold.refused, 0, "{told}");
        // Of ten minutes it lacks its own only while what was lent to bronze drains: a few requests of half a second.
        assert!(gold.share_short_seconds <= 2.0, "{told}");
        assert!(gold.share_held >= 0.25 && bronze.share_held <= 0.75, "{told}");
        assert!(bronze.added_wait_seconds.p99 > 60.0 && bronze.refused > bronze.requests / 3, "{told}");
    }
}

#[test]
fn without_a_guarantee_it_shares_the_loss() {
    let (bronze, gold) = replayed(0, 4);
    let told = format!("{gold:?} {bronze:?}");
    assert!(gold.added_wait_seconds.p99 > 10.0 * gold.latency_seconds, "{told}");
    assert_eq!(gold.share_short_seconds, 0.0, "nothing is its own: {told}");
}

/// A month of requests, from none to twenty minutes apart: cold starts, and GB-seconds idle.
fn month(cold_start_budget_ppm: u32) -> (u64, f64) {
    let (mut draws, mut at_s) = (Draws(9), 0);
    let mut trace = Trace { services: vec!["shop".into()], ..Trace::default() };
    while at_s < 30 * 86_400 {
        at_s += draws.below(1_200);
        trace.events.push(TraceEvent {
            at: Time(at_s * 1_000_000),
            service: ServiceId(0),
            tenant: TenantKey(0),
            user: UserKey(0),
            group: GroupKey(0),
            action: ActionKey(0),
            duration: Some(Span::from_millis(200)),
            memory_bytes: None,
        });
    }
    let sla = SlaClass { cold_start_budget_ppm, ..SlaClass::default() };
    let mut spec = ServiceSpec { sla, ..ServiceSpec::named(ServiceId(0), "shop") };
    spec.resources.memory_bytes = 250_000_000;
    let options = Options {
        world: World { start: Span::from_secs(1), ..World::default() },
        services: [("shop".to_owned(), Arc::new(spec))].into(),
        ..Options::default()
    };
    let outcome = replay_requests(PolicyName::Forerun, "forerun", &trace, &options, &mut |_| {});
    let scores = outcome.expect("it replays").scores;
    (scores.cold_starts, scores.memory_gb_seconds.idle)
}

#[test]
fn a_cold_start_budget_buys_fewer_cold_starts_for_a_bounded_price() {
    let ((plain, plain_idle), (tight, tight_idle), (ample, ample_idle)) =
        (month(0), month(10_000), month(1_000_000));
    let told = format!("{plain} at {plain_idle}; 1%: {tight} at {tight_idle}; 100%: {ample} at {ample_idle}");
    println!("{told}");
    assert!(tight * 10 < plain * 8 && tight < ample && ample < plain, "{told}");
    // Four times the price of a cold start is the most that is paid for one.
    let most = 4.0 * SlaClass::default().cold_start_milli_gbs as f64 / 1e3;
    assert!(tight_idle - plain_idle < most * (plain - tight) as f64, "{told}");
    assert!(ample_idle - plain_idle < most * (plain - ample) as f64, "{told}");
}
