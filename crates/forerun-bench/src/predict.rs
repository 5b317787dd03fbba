//! What it costs to predict a user's next step and to learn it, beside a hash-map insert timed in the same run.

use crate::Figure;
use forerun_core::profile::next::{Predictor, Quick};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

const STEPS: u64 = 200_000;
const USERS: u64 = 2_000;
const ITEMS: u64 = 500;
/// The default bound of `forerun predict`.
const MEMORY: usize = 256 << 20;

fn spread(n: u64) -> u64 {
    forerun_core::profile::table::spread(n)
}

/// Users walk habitual rounds of six items, and stray one time in five.
fn steps() -> Vec<(u64, u32, i64)> {
    let mut place = vec![0u64; USERS as usize];
    let step = |n: u64| {
        let draw = spread(n);
        let user = draw % USERS;
        let at = &mut place[user as usize];
        *at += 1;
        let item = if draw >> 40 & 0xff < 51 { draw >> 48 } else { user * 7 + *at % 6 * 131 };
        (user + 1, (item % ITEMS) as u32, 1_700_000_000 + n as i64)
    };
    (0..STEPS).map(step).collect()
}

/// Microseconds that the quick model takes for a step: asked, the five likeliest, learned.
fn quick_us(steps: &[(u64, u32, i64)]) -> f64 {
    let mut model = Quick::new(MEMORY);
    let mut top = Vec::new();
    let mut sum = 0;
    let began = Instant::now();
    for (user, item, _) in steps {
        model.ask(*user);
        model.top(5, &mut top);
        sum += top.len();
        model.learn(*user, *item);
    }
    black_box(sum);
    began.elapsed().as_secs_f64() * 1e6 / steps.len() as f64
}

pub(crate) fn run() -> Vec<Figure> {
    let steps = steps();
    let began = Instant::now();
    let mut map: HashMap<u64, u32> = HashMap::new();
    for (n, (user, item, _)) in steps.iter().enumerate() {
        map.insert(spread(*user ^ n as u64), *item);
    }
    let insert_us = began.elapsed().as_secs_f64() * 1e6 / STEPS as f64;
    black_box(&map);
    let mut model = Predictor::new(MEMORY);
    let mut sum = 0.0;
    let began = Instant::now();
    for (user, item, at_s) in &steps {
        model.ask(*user, 0, Some(*at_s));
        sum += model.chance_of(*item);
        model.learn(*user, 0, Some(*at_s), *item);
    }
    let step_us = began.elapsed().as_secs_f64() * 1e6 / STEPS as f64;
    black_box(sum);
    let quick_us = quick_us(&steps);
    vec![
        Figure::new("predict and learn one step", step_us, "us", "hash-map insert", insert_us),
        Figure::new("quick: five likeliest and learn", quick_us, "us", "hash-map insert", insert_us),
        Figure::new(
            "memory of 2,000 users and their contexts",
            model.bytes() as f64 / 1e6,
            "MB",
            "the bound",
            MEMORY as f64 / 1e6,
        ),
    ]
}
