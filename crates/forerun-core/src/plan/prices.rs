//! Shadow prices: what a unit of each resource is worth where not all that is worth something fits.

use super::RESOURCES;
use super::site::Ways;

/// Halvings of an interval at first, and when a price is set right once more after the others have moved. Prices need
/// not be exact: the search mends what they miss.
const HALVINGS: usize = 14;
const HALVINGS_AGAIN: usize = 7;
/// Rounds over the resources that are short. One is enough where there is one.
const PASSES: usize = 4;
/// A round that lowers the bound by less, as a part of it, was the last.
const ENOUGH: f64 = 1e-4;
/// How many times an interval is doubled in search of its end.
const DOUBLINGS: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Priced {
    pub(super) prices: [f64; RESOURCES],
    /// The dual's value at these prices.
    pub(super) bound: f64,
}

/// The dual at prices, and how much of one resource is taken there, of equals by the way that takes least.
fn dual(ways: &Ways, capacity: &[u64; RESOURCES], prices: &[f64; RESOURCES], of: usize) -> (f64, u128) {
    let (mut sum, mut taken) = (0.0, 0u128);
    for choice in 0..ways.len() {
        let (mut best, mut takes) = (f64::NEG_INFINITY, 0);
        for way in ways.of(choice) {
            let worth = way.reduced(prices);
            if worth > best || (worth == best && way.takes[of] < takes) {
                (best, takes) = (worth, way.takes[of]);
            }
        }
        if best > f64::NEG_INFINITY {
            sum += best;
            taken += u128::from(takes);
        }
    }
    for (price, capacity) in prices.iter().zip(capacity) {
        if *price > 0.0 {
            sum += price * *capacity as f64;
        }
    }
    (sum, taken)
}

/// The prices at which the dual is least, nearly: each resource's own by halving, the others held.
pub(super) fn find(ways: &Ways, capacity: &[u64; RESOURCES]) -> Priced {
    let mut prices = [0.0; RESOURCES];
    let short = |prices: &[f64; RESOURCES], r: usize| {
        capacity[r] != u64::MAX && dual(ways, capacity, prices, r).1 > u128::from(capacity[r])
    };
    let shorts = (0..RESOURCES).filter(|r| short(&prices, *r)).count();
    if shorts == 0 {
        return Priced { prices, bound: dual(ways, capacity, &prices, 0).0 };
    }
    let mut best = Priced { prices, bound: f64::INFINITY };
    for pass in 0..if shorts == 1 { 1 } else { PASSES } {
        for r in (0..RESOURCES).filter(|r| capacity[*r] != u64::MAX) {
            let before = std::mem::replace(&mut prices[r], 0.0);
            if short(&prices, r) {
                let halvings = if pass == 0 { HALVINGS } else { HALVINGS_AGAIN };
                prices[r] = halve(ways, capacity, prices, r, (before, halvings));
            }
        }
        let bound = dual(ways, capacity, &prices, 0).0;
        if bound >= best.bound * (1.0 - ENOUGH) {
            break;
        }
        best = Priced { prices, bound };
    }
    best
}

/// The least price of one resource, nearly, at which no more of it is taken than there is. `near`: a price that it may
/// be close to, and how finely it is looked for.
fn halve(
    ways: &Ways,
    capacity: &[u64; RESOURCES],
    mut prices: [f64; RESOURCES],
    r: usize,
    (near, halvings): (f64, usize),
) -> f64 {
    let mut enough = |price: f64| {
        prices[r] = price;
        dual(ways, capacity, &prices, r).1 <= u128::from(capacity[r])
    };
    let worth: f64 = (0..ways.len())
        .map(|choice| ways.of(choice).iter().map(|way| way.value).max().unwrap_or(0).max(0) as f64)
        .sum();
    // All that there is shared by all that is worth something.
    let guess = if near > 0.0 { near } else { (worth / (capacity[r] as f64).max(1.0)).max(1e-9) };
    let (mut low, mut high, mut step) = (guess, guess, if near > 0.0 { 1.1 } else { 2.0 });
    let down = enough(guess);
    for _ in 0..DOUBLINGS {
        let next = if down { low / step } else { high * step };
        step *= step.min(4.0);
        if down {
            (high, low) = (low, next);
        } else {
            (low, high) = (high, next);
        }
        if enough(next) != down {
            break;
        }
    }
    for _ in 0..halvings {
        let middle = f64::midpoint(low, high);
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}
