//! Worked examples of Kubernetes: "Horizontal Pod Autoscaling, algorithm details" of its documentation and the post on
//! v1.33's tolerances; the limits are those of `pkg/apis/autoscaling/v2/defaults.go`.

use super::*;

fn rules(target: u32) -> HpaRules {
    HpaRules { target_milli: target, ..HpaRules::default() }
}

#[test]
fn replicas_are_in_proportion() {
    // 200m against 100m doubles, 50m halves.
    assert_eq!(rules(500).replicas(4, 4, 4, 4.0), 8);
    assert_eq!(rules(1_000).replicas(4, 4, 4, 2.0), 2);
    // 50 at 90% with a target of 75% become 60; at 80% they are within a tenth of it.
    assert_eq!(rules(750).replicas(50, 50, 50, 45.0), 60);
    assert_eq!(rules(750).replicas(50, 50, 50, 40.0), 50);
    assert_eq!(rules(750).replicas(50, 50, 50, 33.0), 44);
}

#[test]
fn pods_without_a_measurement_count_as_idle_on_the_way_up() {
    // Two at 100% of a target of 50% would be four; the two that start already count, and make it right.
    assert_eq!(rules(500).replicas(4, 2, 4, 2.0), 4);
    assert_eq!(rules(500).replicas(3, 2, 3, 2.0), 4);
    // On the way down they are not looked at, and with none measured nothing changes.
    assert_eq!(rules(500).replicas(4, 2, 4, 0.5), 1);
    assert_eq!(rules(500).replicas(7, 0, 7, 0.0), 7);
}

#[test]
fn up_is_bounded_and_down_waits_five_minutes() {
    let (rules, mut recent) = (rules(500), Recent::default());
    let at = |seconds| Time::default() + Span::from_secs(seconds);
    // Four more, then twice as many.
    assert_eq!(recent.sync(&rules, at(0), 1, 100), 5);
    assert_eq!(recent.sync(&rules, at(15), 5, 100), 10);
    assert_eq!(recent.sync(&rules, at(30), 10, 12), 12);
    // 100 was the last recommendation above what there is until 315 s.
    assert_eq!(recent.sync(&rules, at(45), 12, 2), 12);
    assert_eq!(recent.sync(&rules, at(300), 12, 0), 12);
    assert_eq!(recent.sync(&rules, at(329), 12, 0), 12);
    assert_eq!(recent.sync(&rules, at(330), 12, 0), 2);
    assert_eq!(recent.sync(&rules, at(345), 2, 0), 1, "never below the least");
}

#[test]
fn settings_are_read_and_bounded() {
    assert_eq!(HpaRules::parse(None), Ok(HpaRules::default()));
    let rules = HpaRules::parse(Some("target:50%,min:2,max:1,stabilisation:1m")).expect("all are settings");
    assert_eq!((rules.target_milli, rules.min, rules.max), (500, 2, 2));
    assert_eq!(rules.stabilisation, Span::from_secs(60));
    for (text, part) in
        [("min:0", "whole number from 1"), ("targets:1", "unknown"), ("stabilisation:2h", "to 60m")]
    {
        let error = HpaRules::parse(Some(text)).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
