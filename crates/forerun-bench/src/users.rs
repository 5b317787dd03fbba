//! What a million users cost: the memory that their histories take at the default bound, who and what is kept of them,
//! and what that loses beside a bound eight times as large.

use crate::Figure;
use crate::processor::Began;
use forerun_core::profile::next::Predictor;
use forerun_core::profile::table::spread;

const USERS: u64 = 1_000_000;
const STEPS: u64 = 3_000_000;
const ITEMS: u64 = 2_000;
const HABITS: u64 = 300;
const MEMORY: usize = 256 << 20;
const ROOMY: usize = 8 * MEMORY;
/// Of the stream, what is scored: the last tenth.
const SCORED_FROM: u64 = STEPS - STEPS / 10;

/// Users come one after another, each to stay: one step in three is somebody's first, the others are of those who came
/// already, a few of them often and most seldom (half of the steps are of a sixteenth of the users). A user walks one of
/// 300 rounds of six items, begun anywhere, and strays one time in five, mostly to items that are popular.
fn steps() -> impl Iterator<Item = (u64, u32, i64)> {
    let mut place: Vec<u8> = Vec::new();
    (0..STEPS).map(move |n| {
        let draw = spread(n);
        let part = |at: u32| (draw >> at & 0xffff) as f64 / 65_536.0;
        let user = if n % (STEPS / USERS) == 0 {
            place.push((draw >> 60) as u8 % 6);
            place.len() as u64 - 1
        } else {
            (place.len() as f64 * part(0).powi(4) + part(8)) as u64 % place.len() as u64
        };
        let at = &mut place[user as usize];
        *at = (*at + 1) % 6;
        let stray = (ITEMS as f64 * part(32).powi(3)) as u64;
        let round = spread(user) % HABITS * 7 + u64::from(*at) * 131;
        let item = if part(48) < 0.2 { stray } else { round };
        (user + 1, (item % ITEMS) as u32, 1_700_000_000 + n as i64)
    })
}

struct Ran {
    bytes: usize,
    users: usize,
    bits: f64,
    right: f64,
    us: f64,
}

fn run_with(memory: usize) -> Ran {
    let mut model = Predictor::new(memory);
    let (mut bits, mut right, mut scored) = (0.0, 0.0, 0.0);
    let mut ranked = Vec::new();
    let began = Began::now();
    for (n, (user, item, at_s)) in steps().enumerate() {
        model.ask(user, 0, Some(at_s));
        if n as u64 >= SCORED_FROM {
            model.ranked(&mut ranked);
            scored += 1.0;
            bits -= model.chance_of(item).max(1e-9).log2();
            right += if ranked.first().is_some_and(|(first, _)| *first == item) { 1.0 } else { 0.0 };
        }
        model.learn(user, 0, Some(at_s), item);
    }
    let us = began.us() / STEPS as f64;
    Ran { bytes: model.bytes(), users: model.users(), bits: bits / scored, right: 100.0 * right / scored, us }
}

pub(crate) fn run() -> Vec<Figure> {
    let (held, roomy) = (run_with(MEMORY), run_with(ROOMY));
    let eight = "a bound eight times as large";
    vec![
        Figure::new(
            "memory of a million users",
            held.bytes as f64 / 1e6,
            "MB",
            "the bound",
            MEMORY as f64 / 1e6,
        ),
        Figure::new(
            "memory of a million users",
            held.bytes as f64 / 1e6,
            "MB",
            eight,
            roomy.bytes as f64 / 1e6,
        ),
        Figure::new("users kept", held.users as f64, "users", "users that came", USERS as f64),
        Figure::new("bits a step", held.bits, "bits", eight, roomy.bits),
        Figure::new("right at once", held.right, "%", eight, roomy.right),
        Figure::new("predict and learn one step", held.us, "us", eight, roomy.us),
    ]
}
