use super::*;
use proptest::prelude::*;

fn top(model: &mut Quick, user: u64) -> Vec<(u32, f32)> {
    let mut out = Vec::new();
    model.ask(user);
    model.top(5, &mut out);
    out
}

#[test]
fn a_habit_is_learned_in_a_few_rounds() {
    let mut model = Quick::new(1 << 20);
    for item in [3, 1, 2].repeat(12) {
        model.learn(7, item);
    }
    let said = top(&mut model, 7);
    assert!(said[0].0 == 3 && said[0].1 > 0.7, "{said:?}");
}

#[test]
fn not_that_again_is_learned() {
    let mut model = Quick::new(1 << 20);
    // Everyone takes each of three items once, in an order of their own.
    for user in 1..400u64 {
        let draw = spread(user);
        let first = draw % 3;
        let second = (first + 1 + (draw >> 8) % 2) % 3;
        [first, second, 3 - first - second].into_iter().for_each(|item| model.learn(user, item as u32));
    }
    [0, 1].into_iter().for_each(|item| model.learn(1_000, item));
    let said = top(&mut model, 1_000);
    assert!(said[0].0 == 2 && said[0].1 > 0.9, "{said:?}");
    let ratio = model.ratio;
    assert!(ratio[0] < 1.0 && ratio[1] < 1.0 && ratio[STEPS] > 1.0, "{ratio:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn chances_are_chances_within_memory_and_a_user_is_forgotten(
        steps in proptest::collection::vec((1u64..6, 0u32..2_000), 1..600),
    ) {
        const BYTES: usize = 1 << 18;
        let mut model = Quick::new(BYTES);
        for (user, item) in &steps {
            let said = top(&mut model, *user);
            prop_assert!(said.iter().all(|(_, p)| (0.0..=1.0).contains(p)), "{said:?}");
            let sum = model.chances[..model.count].iter().sum::<f32>() + model.rest();
            prop_assert!((sum - 1.0).abs() < 1e-4, "{sum}");
            prop_assert!(said.iter().all(|(item, p)| model.chance_of(*item) == Some(*p)), "{said:?}");
            prop_assert!(said.windows(2).all(|w| w[0].1 >= w[1].1), "{said:?}");
            model.learn(*user, *item);
        }
        prop_assert!(model.bytes() <= BYTES, "{}", model.bytes());
        model.forget(1);
        prop_assert_eq!(top(&mut model, 1), top(&mut model, 77));
        prop_assert!(model.cells.iter().all(|c| c.owner != owner(1)));
    }
}
