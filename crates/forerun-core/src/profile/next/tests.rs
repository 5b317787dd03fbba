use super::*;
use crate::profile::table::spread;
use proptest::prelude::*;

fn step(model: &mut Predictor, user: u64, item: u32, at_s: i64) {
    model.ask(user, 0, Some(at_s));
    model.learn(user, 0, Some(at_s), item);
}

/// The chances of all items that were ever seen, and of a new one.
fn sum(model: &Predictor, items: u32) -> f64 {
    (0..items).filter(|i| model.items.seen(*i)).map(|i| model.chance_of(i)).sum::<f64>()
        + model.chance_of_new()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chances_sum_to_one(steps in proptest::collection::vec((1u64..6, 0u32..90, 0i64..5_000), 1..300)) {
        let mut model = Predictor::new(1 << 20);
        for (n, (user, item, at)) in steps.iter().enumerate() {
            model.ask(*user, 0, Some(*at));
            let sum = sum(&model, 90);
            prop_assert!((sum - 1.0).abs() < 1e-3, "step {n}: {sum}");
            model.learn(*user, 0, Some(*at), *item);
        }
    }

    #[test]
    fn a_forgotten_user_is_like_one_who_never_came(steps in proptest::collection::vec((1u64..4, 0u32..9), 1..200)) {
        let mut model = Predictor::new(1 << 20);
        for (n, (user, item)) in steps.iter().enumerate() {
            step(&mut model, *user, *item, n as i64);
        }
        model.forget(1);
        prop_assert!(model.history(1).is_none());
        let mut ranked = [Vec::new(), Vec::new()];
        // Another who never came is told the same: nothing of the first one's own is left.
        for (user, ranked) in [1, 77].into_iter().zip(&mut ranked) {
            model.ask(user, 0, Some(1_000));
            model.ranked(ranked);
        }
        prop_assert_eq!(&ranked[0], &ranked[1]);
    }

    #[test]
    fn a_saved_model_goes_on_alike(steps in proptest::collection::vec((1u64..4, 0u32..9), 1..120)) {
        let mut model = Predictor::new(1 << 20);
        for (n, (user, item)) in steps.iter().enumerate() {
            step(&mut model, *user, *item, n as i64);
        }
        let saved = postcard::to_allocvec(&model).unwrap();
        let mut again: Predictor = postcard::from_bytes(&saved).unwrap();
        let mut ranked = [Vec::new(), Vec::new()];
        for (model, ranked) in [&mut model, &mut again].into_iter().zip(&mut ranked) {
            step(model, 2, 5, 500);
            model.ask(2, 0, Some(600));
            model.ranked(ranked);
        }
        prop_assert_eq!(&ranked[0], &ranked[1]);
        prop_assert!(postcard::to_allocvec(&model).unwrap() == postcard::to_allocvec(&again).unwrap());
    }
}

#[test]
fn a_habit_is_learned_in_a_few_rounds() {
    let mut model = Predictor::new(4 << 20);
    for round in 0..12 {
        for item in [3, 1, 2] {
            step(&mut model, 7, item, 100 * round);
        }
    }
    let mut ranked = Vec::new();
    model.ask(7, 0, None);
    model.ranked(&mut ranked);
    assert!(ranked[0].0 == 3 && ranked[0].1 > 0.7, "{ranked:?}");
}

#[test]
fn a_new_user_starts_from_the_group_and_from_everyone() {
    let mut model = Predictor::new(4 << 20);
    for user in 1..200u64 {
        let group = 1 + user % 2;
        for item in [0, group as u32] {
            model.ask(user, group, None);
            model.learn(user, group, None, item);
        }
    }
    let mut ranked = Vec::new();
    for group in [1, 2] {
        model.learn(1_000 + group, group, None, 0);
        model.ask(1_000 + group, group, None);
        model.ranked(&mut ranked);
        assert_eq!(ranked[0].0, group as u32, "{ranked:?}");
    }
}

/// Guarantee: whatever comes, the model stays within its memory and its answers stay chances.
#[test]
fn hostile_streams_stay_within_memory() {
    const BYTES: usize = 4 << 20;
    type Stream = fn(u64) -> (u64, u32, i64);
    let streams: [(&str, Stream); 4] = [
        ("one user does everything", |n| (1, (spread(n) % 50_000) as u32, n as i64)),
        ("every step is a new user's", |n| (n + 1, (n % 10) as u32, n as i64)),
        ("time goes backwards", |n| (n % 5 + 1, (n % 7) as u32, i64::MAX - 1_000 * n as i64)),
        ("time jumps between its ends", |n| {
            (n % 3 + 1, (n % 4) as u32, if n % 2 == 0 { i64::MIN } else { i64::MAX })
        }),
    ];
    for (what, stream) in streams {
        let mut model = Predictor::new(BYTES);
        let mut when = When::new(BYTES / 4);
        for n in 0..20_000 {
            let (user, item, at) = stream(n);
            if let Some(history) = model.history(user) {
                when.learn(user, 0, history, history.gap_to(Some(at)));
            }
            step(&mut model, user, item, at);
        }
        assert!(model.bytes() <= BYTES, "{what}: {}", model.bytes());
        model.ask(1, 0, Some(0));
        let chance = model.chance_of(3);
        assert!((0.0..=1.0).contains(&chance), "{what}: {chance}");
        let q = when.quantiles();
        assert!(q.windows(2).all(|w| w[0] <= w[1]) && q[0] >= 0.0, "{what}: {q:?}");
    }
}

#[test]
fn the_time_to_the_next_step_is_learned() {
    let mut when = When::new(1 << 20);
    let mut history = History::default();
    for n in 0..400i64 {
        // A minute after item 0, an hour after item 1.
        let gap = if n % 2 == 0 { 3_600 } else { 60 };
        let at = history.last_s.unwrap_or(0) + gap;
        when.learn(5, 0, &history, history.gap_to(Some(at)));
        history.push((n % 2) as u32, Some(at));
    }
    when.ask(5, 0, &history);
    let after_one = when.quantiles()[9];
    assert!((f64::from(after_one) - libm::log1p(3_600.0)).abs() < 0.2, "{after_one}");
    assert!(
        when.within(600.0) < 0.2 && when.within(7_200.0) > 0.9,
        "{} {}",
        when.within(600.0),
        when.within(7_200.0)
    );
    assert!(when.chance(3_000.0, 1_200.0) > 0.5, "{}", when.chance(3_000.0, 1_200.0));
    let rising: Vec<f64> = (0..200).map(|i| when.within(f64::from(i) * 60.0)).collect();
    assert!(rising.windows(2).all(|w| w[0] <= w[1] + 1e-9));
}
