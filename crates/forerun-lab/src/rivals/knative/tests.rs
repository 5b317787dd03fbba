//! Knative's own cases: the figures are those of `TestAutoscaler*` in `pkg/autoscaler/scaling/autoscaler_test.go` of
//! knative/serving, with its test's limits of ten times up and down, and of `pkg/autoscaler/aggregation`.

use super::*;

const RULES: KnativeRules = KnativeRules {
    target_milli: 700,
    window: Span::from_secs(60),
    panic_window_milli: 100,
    panic_milli: 2_000,
    up_milli: 10_000,
    down_milli: 10_000,
    grace: Span::from_secs(30),
    burst: 211,
};

/// (second, ready, stable concurrency, panic concurrency) and what is wanted then.
fn check(target: f64, steps: &[(u64, u32, f64, f64, u32)]) {
    let mut scale = Scale::default();
    for &(at, ready, stable, panic, expect) in steps {
        let now = Time::default() + Span::from_secs(at);
        let got = scale.desired(&RULES, now, ready, target, stable, panic);
        assert_eq!(got, expect, "at {at} s, {ready} ready, stable {stable}, panic {panic}");
    }
}

#[test]
fn stable_mode_follows_the_stable_window() {
    check(10.0, &[(0, 1, 50.0, 10.0, 5), (2, 1, 100.0, 10.0, 10)]);
    check(10.0, &[(0, 8, 100.0, 100.0, 10), (2, 8, 50.0, 50.0, 5)]);
    check(10.0, &[(0, 1, 1.0, 0.0, 1), (2, 1, 0.0, 0.0, 0)]);
}

#[test]
fn panic_tracks_a_rise_and_settles() {
    check(
        1.0,
        &[
            (0, 1, 6.0, 6.0, 6),
            (0, 6, 36.0, 36.0, 36),
            (1, 36, 216.0, 216.0, 216),
            (1, 216, 1296.0, 1296.0, 1296),
            (2, 1296, 1296.0, 1296.0, 1296),
        ],
    );
}

#[test]
fn panic_ends_after_a_stable_window() {
    // Nothing goes while it lasts.
    check(
        10.0,
        &[
            (0, 1, 100.0, 100.0, 10),
            (0, 10, 100.0, 1000.0, 100),
            (30, 10, 1.0, 1.0, 100),
            (61, 10, 1.0, 1.0, 1),
        ],
    );
    // A slow rise does not prolong it.
    check(1.0, &[(0, 10, 11.0, 25.0, 25), (30, 40, 30.0, 41.0, 41), (62, 55, 50.0, 56.0, 50)]);
    // A surge does.
    check(1.0, &[(0, 10, 11.0, 25.0, 25), (30, 40, 30.0, 80.0, 80), (62, 80, 30.0, 80.0, 80)]);
}

#[test]
fn steps_are_bounded() {
    check(10.0, &[(0, 1, 1000.0, 1001.0, 10), (2, 10, 1000.0, 1001.0, 100)]);
    check(10.0, &[(0, 100, 1.0, 1.0, 10), (2, 10, 1.0, 1.0, 1)]);
}

/// The mean over what there is of a window, by the second.
#[test]
fn windows_average_seconds() {
    let mut windows = Windows::default();
    let second = 1_000_000;
    for concurrency in [10, 10, 5, 5] {
        windows.push(concurrency * second, 60, 6);
    }
    assert_eq!(windows.averages(6), (7.5, 7.5));
    for _ in 0..6 {
        windows.push(second, 60, 6);
    }
    // Ten seconds of the stable window, the last six in the panic window.
    assert_eq!(windows.averages(6), (3.6, 1.0));
    for _ in 0..54 {
        windows.push(0, 60, 6);
    }
    assert_eq!(windows.averages(6), (0.1, 0.0));
    windows.push(0, 60, 6);
    assert_eq!(windows.stable, 5_000_000, "the first second has left the window of sixty");
}

#[test]
fn settings_are_read_and_bounded() {
    let parse = |text| KnativeRules::parse(Some(text));
    assert_eq!(KnativeRules::parse(None), Ok(KnativeRules::default()));
    let rules = parse("target:70%,window:2m,panic-window:20%,panic:3,up:10,down:1.5,grace:0s,burst:0");
    let rules = rules.expect("all are settings");
    assert_eq!((rules.target_milli, rules.window, rules.panic_buckets()), (700, Span::from_secs(120), 24));
    assert_eq!((rules.panic_milli, rules.up_milli, rules.down_milli), (3_000, 10_000, 1_500));
    assert_eq!((rules.grace, rules.burst), (Span::ZERO, 0));
    for (text, part) in [
        ("target:2", "not a number from 0.01 to 1"),
        ("window:1s", "from 6s to 60m"),
        ("window", "write KEY:VALUE"),
        ("", "write KEY:VALUE"),
        ("windo:6s", "\"windo\" is unknown"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}
