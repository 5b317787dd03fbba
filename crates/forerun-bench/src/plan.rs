//! What a plan of all sites costs, and a plan of the one site where something has changed: services by ten instances each,
//! a hundred services a site, two resources short. Beside both, the sort of the same offers by what they are worth for
//! what they take, which is what the plainest plan takes.

use crate::Figure;
use crate::processor::Began;
use forerun_core::plan::{Choice, Offer, RESOURCES, Site, replan, solve};
use forerun_core::profile::table::spread;
use std::hint::black_box;

const SIZES: [usize; 4] = [1_250, 2_500, 5_000, 10_000];
const PER_SITE: usize = 100;
const LEVELS: u64 = 10;
/// Of what all services would take.
const ROOM_PERCENT: u64 = 40;
const ROUNDS: usize = 5;
const ROUND_US: f64 = 100_000.0;

/// Services whose every next instance is worth less; CPU and memory are short.
fn sites(services: usize) -> Vec<Site> {
    let mut state = 1u64;
    let mut draw = |n: u64| {
        state = spread(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        state % n
    };
    let mut site = || {
        let (mut site, mut wanted) = (Site::default(), [0u64; RESOURCES]);
        for _ in 0..PER_SITE {
            let (cpu, memory) = (50 + draw(2_000), (64 + draw(4_096)) << 20);
            let (mut value, mut gain) = (0, 50 + draw(100_000) as i64);
            let mut choice = Choice { switching: draw(20) as i64, ..Choice::default() };
            for n in 1..=LEVELS {
                value += gain;
                gain = gain * (50 + draw(45) as i64) / 100;
                choice.offers.push(Offer { value, takes: [cpu * n, memory * n, 0, 0] });
            }
            wanted[0] += cpu * LEVELS;
            wanted[1] += memory * LEVELS;
            site.choices.push(choice);
        }
        site.capacity = wanted.map(|w| w / 100 * ROOM_PERCENT);
        site
    };
    (0..services / PER_SITE).map(|_| site()).collect()
}

/// The least of a few rounds, each long enough for a coarse clock; in milliseconds of this thread on a processor.
fn least_ms(mut run: impl FnMut()) -> f64 {
    let mut round = || {
        let (began, mut times) = (Began::now(), 0.0);
        while began.us() < ROUND_US {
            run();
            times += 1.0;
        }
        began.us() / 1e3 / times
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

fn sort(sites: &[Site]) -> Vec<f64> {
    let offers = sites.iter().flat_map(|s| &s.choices).flat_map(|c| &c.offers);
    let mut all: Vec<f64> = offers.map(|o| o.value as f64 / o.takes[1] as f64).collect();
    all.sort_unstable_by(f64::total_cmp);
    all
}

pub(crate) fn run() -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut points: Vec<(f64, f64)> = Vec::new();
    for services in SIZES {
        let all = sites(services);
        let sorted = least_ms(|| drop(black_box(sort(&all))));
        let plan = least_ms(|| drop(black_box(solve(&all, &[]))));
        points.push(((services as f64).ln(), plan.ln()));
        figures.push(Figure::new(
            format!("plan {services} services by {LEVELS} instances on {} sites", all.len()),
            plan,
            "ms",
            "sorting the offers",
            sorted,
        ));
        if services != SIZES[SIZES.len() - 1] {
            continue;
        }
        let decided = solve(&all, &[]);
        let offers: Vec<Vec<Option<u32>>> = decided.iter().map(|d| d.offers.clone()).collect();
        let again = least_ms(|| drop(black_box(solve(&all, &offers))));
        figures.push(Figure::new(
            "plan them once more, nothing changed",
            again,
            "ms",
            "sorting the offers",
            sorted,
        ));
        let mut one = all[0].clone();
        for choice in one.choices.iter_mut().take(5) {
            choice.offers.iter_mut().for_each(|o| o.value = o.value * 3 / 2);
        }
        let changed = least_ms(|| drop(black_box(replan(&one, &offers[0]))));
        figures.push(Figure::new(
            "plan one site anew, five services changed",
            changed,
            "ms",
            "sorting the offers",
            sorted,
        ));
        let value: f64 = decided.iter().map(|d| d.value as f64).sum();
        let bound: f64 = decided.iter().map(|d| d.bound).sum();
        figures.push(Figure::new(
            "what the plan is worth",
            value / 1e3,
            "GB-s",
            "no plan is worth more",
            bound / 1e3,
        ));
    }
    figures.push(Figure::new("exponent of the cost over the services", slope(&points), "", "n log n", 1.0));
    figures
}

/// Of the line through points that misses them least.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
    over / under
}
