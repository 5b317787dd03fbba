//! What a load forecast guarantees, whatever the series: finite quantiles that do not cross, bounded memory of itself,
//! the same from the same.

#![allow(clippy::unwrap_used)]

use forerun_core::forecast::series::boost::{Binned, Fit, Rows};
use forerun_core::forecast::series::track::{Shared, Teaches, Told, Track};
use forerun_core::forecast::series::{LEVELS, Past, clean, usual_change};
use proptest::prelude::*;

/// Trains a little, then forecasts along the series; the told quantiles in order.
fn along(mut values: Vec<f64>, season: usize, horizon: usize) -> Vec<Told> {
    let known = clean(&mut values);
    let scale = usual_change(&values, season);
    let past = |origin: usize| Past { values: &values[..=origin], season, horizon, scale };
    let mut rows = Rows::default();
    let mut track = Track::default();
    let origins = || (0..values.len()).step_by((horizon / 2).max(1));
    for origin in origins() {
        track.learn(&values[..=origin], &known, None);
        let end = (origin + 1 + horizon).min(values.len());
        let (came, known) = (&values[origin + 1..end], &known[origin + 1..end]);
        track.train(&past(origin), came, known, 6, &mut rows);
    }
    let binned = Binned::new(&rows);
    let mut shared = Shared::default();
    let mut trees = Vec::new();
    for level in LEVELS {
        let mut fit = Fit::new(&rows, &binned, level);
        for _ in 0..8 {
            fit.grow();
        }
        trees.push(fit.finish());
    }
    shared.plant(trees);
    let mut track = Track::default();
    let mut told = Vec::new();
    for origin in origins() {
        track.learn(&values[..=origin], &known, Some(Teaches { shared: &mut shared, series: 1, rows: None }));
        told.push(track.forecast(&past(origin), &shared, &[]));
    }
    told
}

fn holds(told: &[Told], horizon: usize, negative: bool) {
    for told in told {
        assert_eq!(told.steps.len(), horizon);
        for quantiles in &told.steps {
            assert!(quantiles.iter().all(|q| q.is_finite()), "{quantiles:?}");
            assert!(quantiles.is_sorted(), "{quantiles:?}");
            assert!(negative || quantiles[0] >= 0.0, "{quantiles:?}");
        }
        for shares in &told.shares {
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        }
    }
}

/// Numbers as hostile files have them.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..100.0f64,
        2 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => any::<f64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn quantiles_are_finite_and_do_not_cross(
        values in prop::collection::vec(value(), 1..160),
        season in 1usize..30,
        horizon in 1usize..20,
    ) {
        let negative = values.iter().any(|v| *v < 0.0);
        let told = along(values, season, horizon);
        holds(&told, horizon, negative);
    }
}

/// A wave with a spike every tenth step.
fn wave(n: usize) -> Vec<f64> {
    (0..n).map(|t| (20 + (t % 24) * ((t + 7) % 24) / 4 + if t % 10 == 0 { 15 } else { 0 }) as f64).collect()
}

/// The figure is of one build; another build, debug or release, on any machine, has to find the same.
#[test]
fn every_build_says_the_same() {
    let told = along(wave(400), 24, 12);
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for q in told.iter().flat_map(|t| t.steps.iter().flatten()) {
        sum = (sum ^ q.to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
    }
    assert_eq!(sum, SAID, "{sum:#x}");
}

const SAID: u64 = 0xe4aa_187b_c384_d91e;

#[test]
fn a_timer_of_the_series_own_is_found() {
    let values: Vec<f64> = (0..600).map(|t| if t % 10 == 0 { 5.0 } else { 0.0 }).collect();
    let told = along(values.clone(), 1, 30);
    let origin = 585;
    let last = &told[origin / 15];
    for (step, quantiles) in last.steps.iter().enumerate().take(14) {
        let came = values[origin + 1 + step];
        assert!((quantiles[1] - came).abs() < 1.0, "step {}: {quantiles:?}, came {came}", step + 1);
    }
}

#[test]
fn no_data_is_not_zero() {
    let mut values = wave(400);
    for value in &mut values[300..340] {
        *value = f64::NAN;
    }
    let told = along(values, 24, 12);
    // In the gap and after it nothing falls to 0: the series never did.
    let lowest = told[50..].iter().flat_map(|t| &t.steps).map(|q| q[1]).fold(f64::MAX, f64::min);
    assert!(lowest > 5.0, "{lowest}");
}
