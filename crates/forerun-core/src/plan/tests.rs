use super::*;
use crate::profile::table::spread;

/// Numbers that only look drawn.
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = spread(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
        self.0 % n.max(1)
    }
}

/// `steps` offers for each of `n` services, each worth less than the one before it.
fn random(draws: &mut Draws, n: usize, steps: u64, scarce: usize, room_percent: u64) -> Site {
    let mut site = Site::default();
    let mut wanted = [0u64; RESOURCES];
    for _ in 0..n {
        let (mut value, mut gain) = (0, 50 + draws.below(2_000) as i64);
        let mut each = [0; RESOURCES];
        for takes in each.iter_mut().take(scarce) {
            *takes = 1 + draws.below(64);
        }
        let mut choice = Choice { switching: draws.below(20) as i64, ..Choice::default() };
        for step in 1..=1 + draws.below(steps) {
            value += gain;
            gain = gain * (30 + draws.below(65) as i64) / 100 - draws.below(9) as i64;
            choice.offers.push(Offer { value, takes: each.map(|t| t * step) });
        }
        for (wanted, each) in wanted.iter_mut().zip(&each) {
            *wanted += each * choice.offers.len() as u64;
        }
        site.choices.push(choice);
    }
    site.capacity = wanted.map(|w| w * room_percent / 100);
    site
}

fn takes(site: &Site, offers: &[Option<u32>]) -> [u64; RESOURCES] {
    let mut sum = [0; RESOURCES];
    for (choice, offer) in site.choices.iter().zip(offers) {
        if let Some(offer) = offer {
            for (sum, takes) in sum.iter_mut().zip(&choice.offers[*offer as usize].takes) {
                *sum += takes;
            }
        }
    }
    sum
}

fn fits(site: &Site, offers: &[Option<u32>]) -> bool {
    takes(site, offers).iter().zip(&site.capacity).all(|(t, c)| *c == 0 || t <= c)
}

/// What a plan is worth, changes counted.
fn worth(site: &Site, before: &[Option<u32>], offers: &[Option<u32>]) -> i64 {
    let one = |(at, choice): (usize, &Choice)| {
        let value = offers[at].map_or(0, |o| choice.offers[o as usize].value);
        let was = before.get(at).copied().flatten();
        if was == offers[at] { value } else { value - choice.switching }
    };
    site.choices.iter().enumerate().map(one).sum()
}

/// The best of all plans, by looking at each.
fn exhaustive(site: &Site, before: &[Option<u32>]) -> i64 {
    fn deeper(site: &Site, before: &[Option<u32>], offers: &mut Vec<Option<u32>>) -> i64 {
        if !fits(site, offers) {
            return i64::MIN;
        }
        let at = offers.len();
        if at == site.choices.len() {
            return worth(site, before, offers);
        }
        let mut best = i64::MIN;
        for offer in std::iter::once(None).chain((0..site.choices[at].offers.len() as u32).map(Some)) {
            offers.push(offer);
            best = best.max(deeper(site, before, offers));
            offers.pop();
        }
        best
    }
    deeper(site, before, &mut Vec::new())
}

#[test]
fn small_problems_are_solved_to_the_optimum() {
    let mut draws = Draws(1);
    let (mut found, mut best) = (0, 0);
    for round in 0..2_000 {
        let scarce = 1 + round % RESOURCES;
        let (services, steps, room) = (1 + draws.below(7) as usize, 3, 10 + draws.below(90));
        let site = random(&mut draws, services, steps, scarce, room);
        let before: Vec<Option<u32>> = Vec::new();
        let decided = site::decide(&site, &vec![None; site.choices.len()]);
        assert!(fits(&site, &decided.offers));
        let (ours, optimum) = (worth(&site, &before, &decided.offers), exhaustive(&site, &before));
        assert!(ours <= optimum && optimum as f64 <= decided.bound + 1e-6 * decided.bound.abs(), "{round}");
        assert!(ours as f64 >= optimum as f64 * 0.99, "{round}: {ours} of {optimum}");
        found += ours;
        best += optimum;
    }
    assert!(found as f64 >= 0.9999 * best as f64, "{found} of {best}");
}

#[test]
fn large_problems_come_near_the_bound() {
    let mut draws = Draws(2);
    for (services, scarce, part) in [(100, 1, 0.999), (100, 2, 0.99), (1_000, 1, 0.9999), (1_000, 4, 0.98)] {
        let site = random(&mut draws, services, 10, scarce, 40);
        let decided = replan(&site, &[]);
        assert!(fits(&site, &decided.offers));
        assert!(
            decided.value as f64 >= part * decided.bound,
            "{services}, {scarce}: {} of {}",
            decided.value,
            decided.bound
        );
    }
}

#[test]
fn solving_twice_changes_nothing() {
    let mut draws = Draws(3);
    for round in 0..300 {
        let services = 2 + draws.below(60) as usize;
        let room = 20 + draws.below(70);
        let sites = [random(&mut draws, services, 6, 1 + round % 4, room)];
        let first = solve(&sites, &[]);
        let offers: Vec<Vec<Option<u32>>> = first.iter().map(|d| d.offers.clone()).collect();
        let second = solve(&sites, &offers);
        assert_eq!(first[0].offers, second[0].offers, "{round}");
        // Less room moves what it must, and not what it need not: at most a few times as much as has to go.
        let mut less = sites.clone();
        less[0].capacity = less[0].capacity.map(|c| c * 95 / 100);
        assert!(fits(&less[0], &solve(&less, &offers)[0].offers));
    }
}

#[test]
fn guarantees_come_before_what_is_worth_more() {
    let one = |value| Offer { value, takes: [0, 10, 0, 0] };
    let gold = Choice { offers: vec![one(1)], guaranteed: Some(0), switching: 0 };
    let dear = Choice { offers: vec![one(1_000)], guaranteed: None, switching: 0 };
    let site = Site { capacity: [0, 10, 0, 0], choices: vec![dear.clone(), gold.clone()] };
    assert_eq!(replan(&site, &[]).offers, [None, Some(0)]);
    let site = Site { capacity: [0, 20, 0, 0], choices: vec![dear, gold] };
    assert_eq!(replan(&site, &[]).offers, [Some(0), Some(0)]);
}

#[test]
fn a_change_must_pay_for_itself() {
    let offer = |value| Choice {
        offers: vec![Offer { value, takes: [1, 0, 0, 0] }],
        switching: 5,
        ..Choice::default()
    };
    let site = Site { capacity: [1, 0, 0, 0], choices: vec![offer(100), offer(104)] };
    assert_eq!(replan(&site, &[Some(0), None]).offers, [Some(0), None]);
    let site = Site { capacity: [1, 0, 0, 0], choices: vec![offer(100), offer(120)] };
    assert_eq!(replan(&site, &[Some(0), None]).offers, [None, Some(0)]);
    let decided = replan(&site, &[]);
    assert!(decided.prices[0] > 50.0, "{decided:?}");
}

#[test]
fn without_bounds_or_services_there_is_nothing_to_weigh() {
    assert!(replan(&Site::default(), &[]).offers.is_empty());
    let losing = Choice { offers: vec![Offer { value: -3, takes: [1; 4] }], ..Choice::default() };
    let paying = Choice { offers: vec![Offer { value: 3, takes: [u64::MAX; 4] }], ..Choice::default() };
    let site = Site { capacity: [0; 4], choices: vec![losing, paying] };
    let decided = replan(&site, &[]);
    assert_eq!((decided.offers, decided.prices), (vec![None, Some(0)], [0.0; 4]));
}
