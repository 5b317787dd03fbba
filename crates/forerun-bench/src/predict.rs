//! What it costs to predict a user's next step and to learn it, beside a hash-map insert timed in the same run: over the
//! public sets where they lie beside the checkout, and over a stream of its own. Times are on the processor.

use crate::Figure;
use crate::processor::Began;
use crate::sets::sets;
use forerun_core::profile::next::{Predictor, Quick};
use forerun_core::profile::table::spread;
use std::collections::HashMap;
use std::hint::black_box;

const STEPS: u64 = 200_000;
const USERS: u64 = 2_000;
const ITEMS: u64 = 500;
/// The default bound of `forerun predict`.
const MEMORY: usize = 256 << 20;
const INSERT: &str = "hash-map insert";

/// User, item and, if there is a clock, seconds since 1970.
type Step = (u64, u32, Option<i64>);

/// Users walk habitual rounds of six items, and stray one time in five.
fn own_stream() -> Vec<Step> {
    let mut place = vec![0u64; USERS as usize];
    let step = |n: u64| {
        let draw = spread(n);
        let user = draw % USERS;
        let at = &mut place[user as usize];
        *at += 1;
        let item = if draw >> 40 & 0xff < 51 { draw >> 48 } else { user * 7 + *at % 6 * 131 };
        (user + 1, (item % ITEMS) as u32, Some(1_700_000_000 + n as i64))
    };
    (0..STEPS).map(step).collect()
}

/// Microseconds a step for the quick model: asked, the five likeliest, learned.
fn quick_us(steps: &[Step]) -> f64 {
    let mut model = Quick::new(MEMORY);
    let mut top = Vec::new();
    let mut sum = 0;
    let began = Began::now();
    for (user, item, _) in steps {
        model.ask(*user);
        model.top(5, &mut top);
        sum += top.len();
        model.learn(*user, *item);
    }
    black_box(sum);
    began.us() / steps.len() as f64
}

/// Microseconds a step at the default setting: asked, the chance of what came read, learned. "Now" is the latest time
/// before the step.
fn full_us(steps: &[Step], model: &mut Predictor) -> f64 {
    let mut sum = 0.0;
    let mut now_s = None;
    let began = Began::now();
    for (user, item, at_s) in steps {
        model.ask(*user, 0, now_s);
        sum += model.chance_of(*item);
        model.learn(*user, 0, *at_s, *item);
        now_s = now_s.max(*at_s);
    }
    black_box(sum);
    began.us() / steps.len() as f64
}

fn insert_us(steps: &[Step]) -> f64 {
    let mut map: HashMap<u64, u32> = HashMap::new();
    let began = Began::now();
    for (n, (user, item, _)) in steps.iter().enumerate() {
        map.insert(spread(*user ^ n as u64), *item);
    }
    black_box(&map);
    began.us() / steps.len() as f64
}

pub(crate) fn run() -> Vec<Figure> {
    let own = own_stream();
    let insert = insert_us(&own);
    let mut figures = Vec::new();
    let (mut full, mut quick) = (Vec::new(), Vec::new());
    for (set, steps) in sets() {
        let each = steps.steps.iter().map(|s| (spread(u64::from(s.user)).max(1), s.item, s.at_s));
        let steps: Vec<Step> = each.collect();
        full.push(full_us(&steps, &mut Predictor::new(MEMORY)));
        quick.push(quick_us(&steps));
        let (full, quick) = (full[full.len() - 1], quick[quick.len() - 1]);
        figures.push(Figure::new(format!("predict and learn one step, {set}"), full, "us", INSERT, insert));
        figures.push(Figure::new(format!("quick, {set}"), quick, "us", INSERT, insert));
    }
    if !full.is_empty() {
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let (full, quick) = (mean(&full), mean(&quick));
        figures.push(Figure::new("predict and learn one step, mean of the sets", full, "us", INSERT, insert));
        figures.push(Figure::new("quick, mean of the sets", quick, "us", INSERT, insert));
    }
    let mut model = Predictor::new(MEMORY);
    let (full, quick) = (full_us(&own, &mut model), quick_us(&own));
    let (bytes, bound) = (model.bytes() as f64 / 1e6, MEMORY as f64 / 1e6);
    figures.push(Figure::new("predict and learn one step, own stream", full, "us", INSERT, insert));
    figures.push(Figure::new("quick, own stream", quick, "us", INSERT, insert));
    figures.push(Figure::new("memory of 2,000 users and their contexts", bytes, "MB", "the bound", bound));
    figures
}
