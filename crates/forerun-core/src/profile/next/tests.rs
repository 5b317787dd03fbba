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

/// A model in which user 1 has made these steps, and others have too.
fn site(steps: &[(u32, i64)]) -> Predictor {
    // Room for all: what is let go is no part of this.
    let mut model = Predictor::new(32 << 20);
    for (item, at_s) in steps {
        step(&mut model, 1, *item, *at_s);
        step(&mut model, 2, item / 2, *at_s);
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn merging_profiles_is_commutative(
        here in proptest::collection::vec((0u32..30, 0i64..5_000), 0..60),
        there in proptest::collection::vec((0u32..30, 0i64..5_000), 0..60),
    ) {
        let (here, there) = (site(&here), site(&there));
        let (ours, theirs) = (here.profile(1), there.profile(1));
        let merged = ours.merge(&theirs);
        prop_assert!(merged == theirs.merge(&ours));
        prop_assert!(ours.merge(&Profile::default()) == Profile::default().merge(&ours));
        prop_assert!(ours.merge(&Profile::default()) == ours);
        // What is taken in comes out again, and nothing of the other users is touched.
        let mut third = there.clone();
        third.adopt(1, &merged);
        prop_assert!(third.profile(1) == merged);
        prop_assert!(third.profile(2) == there.profile(2));
        third.forget(1);
        prop_assert!(third.profile(1) == Profile::default());
    }

    #[test]
    fn an_outlook_is_a_distribution(
        steps in proptest::collection::vec((1u64..4, 0u32..40, 0i64..9_000), 1..120),
        within_s in -10.0f64..1e6,
    ) {
        let mut model = Foresight::new(1 << 20);
        for (user, item, at_s) in &steps {
            model.learn(*user, 0, *at_s, *item);
        }
        let outlook = model.look(1, 0, 9_000, within_s);
        let listed: f64 = outlook.items.iter().map(|(_, p)| p).sum();
        let sum = outlook.nothing + outlook.new + listed + outlook.others;
        prop_assert!((sum - 1.0).abs() < 1e-6, "{outlook:?}");
        let all: Vec<u32> = (0..40).collect();
        let need = model.chance_of_need(1, 0, 9_000, within_s, &all);
        let known = 1.0 - outlook.nothing - outlook.new;
        prop_assert!((need - known).abs() < 1e-3, "{need} {known}");
        prop_assert!(model.chance_of_need(1, 0, 9_000, 2.0 * within_s.abs(), &all) >= need - 1e-9);
    }
}

#[test]
fn a_habit_moves_with_its_user() {
    let habit: Vec<(u32, i64)> = (0..40).map(|n| ([3, 1, 2][n % 3], 100 * n as i64)).collect();
    let elsewhere: Vec<(u32, i64)> = (0..40).map(|n| (20 + (n % 5) as u32, 100 * n as i64)).collect();
    let (home, mut away) = (site(&habit), site(&elsewhere));
    let merged = home.profile(1).merge(&away.profile(1));
    away.adopt(1, &merged);
    for item in [3, 1, 2, 3, 1] {
        step(&mut away, 1, item, 5_000);
    }
    let mut ranked = Vec::new();
    away.ask(1, 0, Some(5_000));
    away.ranked(&mut ranked);
    assert_eq!(ranked[0].0, 2, "{ranked:?}");
}

#[test]
fn a_need_is_seen_coming_and_a_user_who_stays_away_is_nothing_soon() {
    let mut model = Foresight::new(4 << 20);
    for day in 0..60i64 {
        // Item 0 every day, item 1 ten minutes after it, item 2 a minute later.
        for (item, after_s) in [(0, 0), (1, 600), (2, 660)] {
            model.learn(9, 0, day * 86_400 + after_s, item);
        }
    }
    let last = 60 * 86_400;
    model.learn(9, 0, last, 0);
    let soon = model.chance_of_need(9, 0, last + 590, 60.0, &[1]);
    let too_early = model.chance_of_need(9, 0, last + 10, 60.0, &[1]);
    let not_that = model.chance_of_need(9, 0, last + 590, 60.0, &[2]);
    assert!(soon > 0.5 && too_early < 0.1 && not_that < 0.1, "{soon} {too_early} {not_that}");
    assert!(model.look(9, 0, last + 10, 60.0).nothing > 0.9);
    assert_eq!(model.look(77, 0, last, 60.0).nothing, 1.0);
}

/// Guarantee: a debug and a release build say the same to the last digit. The sum is of every bit of every answer; the
/// stage `simulate` runs this test in release, the stage `test` in debug.
#[test]
fn every_build_says_the_same_to_the_last_digit() {
    let mut model = Foresight::new(8 << 20);
    let mut sum = 0u64;
    let mut at_s = 1_700_000_000i64;
    for n in 0..6_000u64 {
        let draw = spread(n);
        let user = 1 + draw % 37;
        at_s += (draw >> 20) as i64 % 400;
        let item = if draw >> 40 & 3 == 0 { (draw >> 48) % 300 } else { user * 5 + n % 7 };
        if n % 3 == 0 {
            let outlook = model.look(user, user % 4, at_s, 300.0);
            let said = outlook.items.iter().map(|(item, p)| p.to_bits() ^ u64::from(*item));
            sum = said.fold(spread(sum ^ outlook.nothing.to_bits()), |sum, bits| spread(sum ^ bits));
        }
        model.learn(user, user % 4, at_s, item as u32);
    }
    let saved = postcard::to_allocvec(&model).unwrap();
    sum = saved.iter().fold(sum, |sum, byte| spread(sum ^ u64::from(*byte)));
    assert_eq!(format!("{sum:016x}"), "e63f8c8064335afa");
}
