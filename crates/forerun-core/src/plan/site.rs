//! One site: guarantees first, then what is worth most.

use super::{Choice, Decided, Offer, RESOURCES, Site, prices, search};

/// What a choice may become: the offer's number, its worth with the cost of a change, what it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) offer: Option<u32>,
    pub(super) value: i64,
    pub(super) takes: [u64; RESOURCES],
    /// The same as they are priced.
    pub(super) priced: (f64, [f64; RESOURCES]),
}

impl Way {
    fn new(offer: Option<u32>, value: i64, takes: [u64; RESOURCES]) -> Self {
        Self { offer, value, takes, priced: (value as f64, takes.map(|t| t as f64)) }
    }

    /// What it is worth at prices, by what it takes.
    pub(super) fn reduced(&self, prices: &[f64; RESOURCES]) -> f64 {
        let (value, takes) = &self.priced;
        let mut worth = *value;
        for (takes, price) in takes.iter().zip(prices) {
            worth -= price * takes;
        }
        worth
    }
}

/// The ways of each choice, flat.
#[derive(Debug, Default)]
pub(super) struct Ways {
    all: Vec<Way>,
    ends: Vec<usize>,
}

impl Ways {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn of(&self, choice: usize) -> &[Way] {
        let from = if choice == 0 { 0 } else { self.ends[choice - 1] };
        &self.all[from..self.ends[choice]]
    }

    /// Takes in a choice's ways, those left out that another one is never worse than.
    fn push(&mut self, ways: impl Iterator<Item = Way>, before: Option<u32>) {
        let from = self.all.len();
        for way in ways {
            // Of equals the one as before stays, then the earlier one.
            let beats = |a: &Way, b: &Way| {
                let no_more = a.takes.iter().zip(&b.takes).all(|(a, b)| a <= b);
                no_more && (a.value > b.value || (a.value == b.value && b.offer != before))
            };
            if self.all[from..].iter().any(|other| beats(other, &way)) {
                continue;
            }
            let mut at = from;
            while at < self.all.len() {
                if beats(&way, &self.all[at]) {
                    self.all.remove(at);
                } else {
                    at += 1;
                }
            }
            self.all.push(way);
        }
        self.ends.push(self.all.len());
    }
}

pub(super) fn decide(site: &Site, before: &[Option<u32>]) -> Decided {
    let capacity = site.capacity.map(|c| if c == 0 { u64::MAX } else { c });
    let floors = floors(site, before, &capacity);
    let mut ways = Ways::default();
    for ((choice, before), floor) in site.choices.iter().zip(before).zip(&floors) {
        let fits = |offer: &Offer| offer.takes.iter().zip(&capacity).all(|(t, c)| t <= c);
        let way = |(at, offer): (usize, &Offer)| {
            let this = Some(at as u32);
            Way::new(this, offer.value.saturating_sub(change(choice, *before, this)), offer.takes)
        };
        let least = floor.map_or(0, |f| f as usize);
        let none = floor.is_none().then(|| Way::new(None, -change(choice, *before, None), [0; RESOURCES]));
        let offers = choice.offers.iter().enumerate().filter(|(at, offer)| *at >= least && fits(offer));
        ways.push(none.into_iter().chain(offers.map(way)), *before);
    }
    let priced = prices::find(&ways, &capacity);
    let picks = search::best(&ways, &capacity, &priced, before);
    let offers: Vec<Option<u32>> = picks.iter().enumerate().map(|(c, w)| ways.of(c)[*w].offer).collect();
    let worth =
        |(choice, offer): (&Choice, &Option<u32>)| offer.map_or(0, |o| choice.offers[o as usize].value);
    let value = site.choices.iter().zip(&offers).map(worth).sum();
    Decided { offers, value, prices: priced.prices, bound: priced.bound }
}

fn change(choice: &Choice, before: Option<u32>, after: Option<u32>) -> i64 {
    if before == after { 0 } else { choice.switching.max(0) }
}

/// The guarantees that fit together; where not all do, those of a higher value per share of the room come first.
fn floors(site: &Site, before: &[Option<u32>], capacity: &[u64; RESOURCES]) -> Vec<Option<u32>> {
    let mut floors = vec![None; site.choices.len()];
    let mut wanted: Vec<(usize, u32, &Offer)> = Vec::new();
    for (at, choice) in site.choices.iter().enumerate() {
        if let Some(number) = choice.guaranteed
            && let Some(offer) = choice.offers.get(number as usize)
        {
            wanted.push((at, number, offer));
        }
    }
    let share = |offer: &Offer| {
        let shares = offer.takes.iter().zip(capacity).map(|(t, c)| *t as f64 / *c as f64);
        shares.fold(1e-12, f64::max)
    };
    let density = |offer: &Offer| offer.value as f64 / share(offer);
    let had = |at: usize, number: u32| before[at].is_some_and(|b| b >= number);
    wanted.sort_by(|a, b| {
        density(b.2).total_cmp(&density(a.2)).then(had(b.0, b.1).cmp(&had(a.0, a.1))).then(a.0.cmp(&b.0))
    });
    let mut left = *capacity;
    for (at, number, offer) in wanted {
        if offer.takes.iter().zip(&left).all(|(t, l)| t <= l) {
            for (left, takes) in left.iter_mut().zip(&offer.takes) {
                if *left != u64::MAX {
                    *left -= takes;
                }
            }
            floors[at] = Some(number);
        }
    }
    floors
}
