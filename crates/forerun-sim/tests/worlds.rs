//! The simulation itself: the same seed is the same world, a bug is caught and its story is small, and worlds do
//! something. Thousands of seeds and all canaries are the stage `simulate`.

use forerun_core::Canary;
use forerun_sim::{BUDGET, Fault, Scenario, catch, run, shrink};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 340] {
        let scenario = Scenario { seed, tell: true, ..Scenario::default() };
        let (first, second) = (run(&scenario), run(&scenario));
        assert_eq!(first.story, second.story, "seed {seed}");
        assert_eq!((first.steps, first.served), (second.steps, second.served), "seed {seed}");
        assert!(!first.story.is_empty());
    }
}

#[test]
fn worlds_serve_many_requests_and_meet_every_fault() {
    let mut struck: BTreeMap<Fault, u32> = BTreeMap::new();
    let (mut requests, mut served) = (0, 0);
    for seed in 0..80 {
        let ended = run(&Scenario { seed, ..Scenario::default() });
        assert_eq!(ended.failure, None, "seed {seed}");
        requests += ended.requests;
        served += ended.served;
        for (fault, count) in ended.struck {
            *struck.entry(fault).or_default() += count;
        }
    }
    // Many sites have room for one instance only, so that much is held too long.
    assert!(served * 3 > requests, "{served} of {requests} served");
    for fault in Fault::ALL {
        assert!(struck[fault] > 0, "{} never struck", fault.name());
    }
}

#[test]
fn a_fault_that_is_off_does_not_strike() {
    for fault in Fault::ALL {
        let off = BTreeSet::from([*fault]);
        let ended = run(&Scenario { seed: 3, off, ..Scenario::default() });
        assert!(ended.struck.contains(&(*fault, 0)), "{}", fault.name());
    }
}

#[test]
fn every_bug_that_is_built_in_is_caught_within_its_budget() {
    for canary in Canary::ALL {
        let caught = catch(canary, &BTreeSet::new(), BUDGET);
        assert!(caught.is_some(), "{} is not caught within {BUDGET} seeds", canary.name());
    }
}

/// With a bug in the core that the plan checker knows of, its orders are refused, and nothing of it reaches the world:
/// neither by the orders that do, nor by what really runs and by the routers' own counters.
#[test]
fn the_plan_checker_keeps_what_the_core_gets_wrong_from_the_world() {
    const WORLDS: u32 = 3;
    for (canary, rule) in [
        (Canary::DoubleStart, "double_start"),
        (Canary::CapacityOffByOne, "capacity"),
        (Canary::FreedEarly, "capacity"),
        (Canary::StopInUse, "stop_in_use"),
        (Canary::ObserveActs, "observed"),
        (Canary::RoutesToPaused, "routed_to_nothing"),
        (Canary::UsedIsGeneric, "one_key"),
        (Canary::LendsOwn, "guarantee"),
    ] {
        let mut worlds = 0;
        for seed in 1..=u64::from(BUDGET) {
            let scenario =
                Scenario { seed, canary: Some(canary), past_refusals: true, ..Scenario::default() };
            let ended = run(&scenario);
            worlds += u32::from(ended.refused > 0);
            let broken = ended.failure.filter(|f| f.rule == rule);
            assert_eq!(broken, None, "{} in seed {seed}", canary.name());
            if worlds == WORLDS {
                break;
            }
        }
        assert_eq!(worlds, WORLDS, "{} is refused in too few worlds", canary.name());
    }
}

#[test]
fn a_failing_world_shrinks_to_the_same_rule() {
    let canary = Canary::LostWaiter;
    let caught = catch(canary, &BTreeSet::new(), BUDGET).expect("caught");
    let whole = Scenario { seed: caught.seed, canary: Some(canary), ..Scenario::default() };
    let before = run(&whole);
    let (small, ended) = shrink(&whole);
    assert_eq!(ended.failure.map(|f| f.rule), Some(caught.failure.rule));
    let left = before.requests - small.skipped_requests.len() as u32;
    assert!(left < before.requests / 2 || left <= 3, "{left} of {} requests left", before.requests);
}
