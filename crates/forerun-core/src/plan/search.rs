//! From prices to a plan: what chooses for itself, what must give way, what still fits, and the undecided tried out.

use super::RESOURCES;
use super::prices::Priced;
use super::site::Ways;

type Takes = [u64; RESOURCES];
type Prices = [f64; RESOURCES];

/// Steps of the trying out: of a small site it sees all that matters, of a large one, where a single choice is little
/// beside all, what lies nearest to the edge.
const TRIES: usize = 20_000;
const TRIES_OF_LARGE: usize = 1_000;
/// Choices that are tried out at most, those nearest to the edge.
const TRIED: usize = 24;

/// A plan under way.
struct Draft<'a> {
    ways: &'a Ways,
    capacity: &'a Takes,
    prices: &'a Prices,
    /// Of each choice a way.
    picks: Vec<usize>,
    taken: [u128; RESOURCES],
}

impl Draft<'_> {
    fn fits(&self) -> bool {
        self.taken.iter().zip(self.capacity).all(|(t, c)| *t <= u128::from(*c))
    }

    fn worth(&self) -> i64 {
        self.picks.iter().enumerate().map(|(c, w)| self.ways.of(c)[*w].value).sum()
    }

    fn with(&self, choice: usize, way: usize) -> [u128; RESOURCES] {
        let (old, new) = (&self.ways.of(choice)[self.picks[choice]], &self.ways.of(choice)[way]);
        let mut taken = self.taken;
        for (r, taken) in taken.iter_mut().enumerate() {
            *taken = *taken - u128::from(old.takes[r]) + u128::from(new.takes[r]);
        }
        taken
    }

    fn set(&mut self, choice: usize, way: usize) {
        self.taken = self.with(choice, way);
        self.picks[choice] = way;
    }

    /// By how much more is taken than there is, as shares of what there is.
    fn over(&self, taken: &[u128; RESOURCES]) -> f64 {
        let over = |(t, c): (&u128, &u64)| t.saturating_sub(u128::from(*c)) as f64 / (*c as f64).max(1.0);
        taken.iter().zip(self.capacity).map(over).sum()
    }

    fn reduced(&self, choice: usize, way: usize) -> f64 {
        self.ways.of(choice)[way].reduced(self.prices)
    }

    /// Takes back what costs least for the room that it makes, until all fits.
    fn give_way(&mut self) {
        if self.fits() {
            return;
        }
        let mut moves: Vec<(f64, usize, usize)> = Vec::new();
        for choice in 0..self.picks.len() {
            let here = self.reduced(choice, self.picks[choice]);
            for way in (0..self.ways.of(choice).len()).filter(|way| *way != self.picks[choice]) {
                let freed = self.over(&self.taken) - self.over(&self.with(choice, way));
                if freed > 0.0 {
                    moves.push(((here - self.reduced(choice, way)) / freed, choice, way));
                }
            }
        }
        moves.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        for (_, choice, way) in moves {
            if self.over(&self.with(choice, way)) < self.over(&self.taken) {
                self.set(choice, way);
                if self.fits() {
                    return;
                }
            }
        }
        // What is guaranteed takes least of all, and fits together.
        for choice in 0..self.picks.len() {
            let takes = |way: &usize| self.over(&self.with(choice, *way));
            let least = (0..self.ways.of(choice).len()).min_by(|a, b| takes(a).total_cmp(&takes(b)));
            if let Some(least) = least {
                self.set(choice, least);
            }
            if self.fits() {
                return;
            }
        }
    }

    /// Puts in what still fits, first what is worth most beyond its price.
    fn fill(&mut self) {
        let mut moves: Vec<(f64, usize, usize)> = Vec::new();
        for choice in 0..self.picks.len() {
            let here = &self.ways.of(choice)[self.picks[choice]];
            let better = |at: &usize| self.ways.of(choice)[*at].value > here.value;
            for at in (0..self.ways.of(choice).len()).filter(better) {
                moves.push((self.reduced(choice, self.picks[choice]) - self.reduced(choice, at), choice, at));
            }
        }
        moves.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        for (_, choice, way) in moves {
            let better = self.ways.of(choice)[way].value > self.ways.of(choice)[self.picks[choice]].value;
            let taken = self.with(choice, way);
            if better && taken.iter().zip(self.capacity).all(|(t, c)| *t <= u128::from(*c)) {
                self.set(choice, way);
            }
        }
    }
}

/// The best plan that is found: of each choice a way.
pub(super) fn best(ways: &Ways, capacity: &Takes, priced: &Priced, before: &[Option<u32>]) -> Vec<usize> {
    let prices = &priced.prices;
    let pick = |choice: usize| {
        let of = ways.of(choice);
        let worth = |at: usize| of[at].reduced(prices);
        let as_before = |at: usize| of[at].offer == before[choice];
        let least = |a: &usize, b: &usize| {
            worth(*b).total_cmp(&worth(*a)).then(as_before(*b).cmp(&as_before(*a))).then(a.cmp(b))
        };
        (0..of.len()).min_by(least).unwrap_or(0)
    };
    let picks: Vec<usize> = (0..ways.len()).map(pick).collect();
    let mut draft = Draft { ways, capacity, prices, taken: taken(ways, &picks), picks };
    draft.give_way();
    draft.fill();
    let mut best = (draft.worth(), draft.picks.clone());
    if (best.0 as f64) < priced.bound - 0.5 {
        // What was decided before may do better than what is made anew.
        let kept: Option<Vec<usize>> =
            (0..ways.len()).map(|c| ways.of(c).iter().position(|way| way.offer == before[c])).collect();
        if let Some(picks) = kept {
            let mut draft = Draft { ways, capacity, prices, taken: taken(ways, &picks), picks };
            if draft.fits() {
                draft.fill();
                if draft.worth() > best.0 {
                    best = (draft.worth(), draft.picks);
                }
            }
        }
        Tries::of(ways, capacity, prices, &mut best).run();
    }
    best.1
}

fn taken(ways: &Ways, picks: &[usize]) -> [u128; RESOURCES] {
    let mut taken = [0u128; RESOURCES];
    for (choice, way) in picks.iter().enumerate() {
        for (taken, takes) in taken.iter_mut().zip(&ways.of(choice)[*way].takes) {
            *taken += u128::from(*takes);
        }
    }
    taken
}

/// Depth first over the choices that are nearest to the edge, cut where the dual says that nothing better can follow
/// (branch and bound over the core; D. Pisinger, *A minimal algorithm for the multiple-choice knapsack problem*, EJOR
/// 83(2), 1995).
struct Tries<'a> {
    ways: &'a Ways,
    best: &'a mut (i64, Vec<usize>),
    /// The choices that are tried, with each one's ways by what they lose at the prices.
    order: Vec<(usize, Vec<(f64, usize)>)>,
    /// The room that the choices which are not tried leave.
    room: [u128; RESOURCES],
    /// What the tried choices from each one on take at least.
    least: Vec<[u128; RESOURCES]>,
    picks: Vec<usize>,
    /// What the choices that are not tried are worth.
    fixed: i64,
    /// What all that are tried are worth at the prices at most, with the room's own worth.
    bound: f64,
    left: usize,
}

impl<'a> Tries<'a> {
    fn of(ways: &'a Ways, capacity: &Takes, prices: &Prices, best: &'a mut (i64, Vec<usize>)) -> Self {
        let mut order: Vec<(usize, Vec<(f64, usize)>)> = Vec::new();
        for choice in 0..ways.len() {
            let of = ways.of(choice);
            let mut by_loss: Vec<(f64, usize)> =
                (0..of.len()).map(|at| (of[at].reduced(prices), at)).collect();
            let most = by_loss.iter().map(|w| w.0).fold(f64::NEG_INFINITY, f64::max);
            by_loss.iter_mut().for_each(|w| w.0 = most - w.0);
            by_loss.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            order.push((choice, by_loss));
        }
        let edge = |ways: &[(f64, usize)]| ways.get(1).map_or(f64::INFINITY, |w| w.0);
        order.sort_by(|a, b| edge(&a.1).total_cmp(&edge(&b.1)).then(a.0.cmp(&b.0)));
        order.truncate(TRIED);
        let tried: Vec<usize> = order.iter().map(|(choice, _)| *choice).collect();
        let mut room = capacity.map(u128::from);
        let (mut fixed, mut bound) = (0i64, 0.0);
        for (choice, way) in best.1.iter().enumerate() {
            if !tried.contains(&choice) {
                let way = &ways.of(choice)[*way];
                fixed += way.value;
                for (room, takes) in room.iter_mut().zip(&way.takes) {
                    *room = room.saturating_sub(u128::from(*takes));
                }
            }
        }
        for choice in &tried {
            let of = ways.of(*choice);
            bound += of.iter().map(|w| w.reduced(prices)).fold(f64::NEG_INFINITY, f64::max);
        }
        for (price, room) in prices.iter().zip(&room) {
            if *price > 0.0 {
                bound += price * *room as f64;
            }
        }
        // What the choices from each one on take at least.
        let mut least = vec![[0u128; RESOURCES]; order.len() + 1];
        for at in (0..order.len()).rev() {
            let of = ways.of(order[at].0);
            let after = least[at + 1];
            for (r, (least, after)) in least[at].iter_mut().zip(after).enumerate() {
                *least = after + of.iter().map(|w| u128::from(w.takes[r])).min().unwrap_or(0);
            }
        }
        let picks = best.1.clone();
        let left = if ways.len() > TRIED { TRIES_OF_LARGE } else { TRIES };
        Self { ways, best, order, room, least, picks, fixed, bound, left }
    }

    fn run(&mut self) {
        let (room, bound) = (self.room, self.bound);
        self.deeper(0, room, self.fixed, bound);
    }

    fn deeper(&mut self, at: usize, room: [u128; RESOURCES], worth: i64, bound: f64) {
        if at == self.order.len() {
            if worth > self.best.0 {
                *self.best = (worth, self.picks.clone());
            }
            return;
        }
        for k in 0..self.order[at].1.len() {
            let (choice, (loss, way)) = (self.order[at].0, self.order[at].1[k]);
            // The ways come by what they lose: none after this can do better either.
            let hopes = self.fixed as f64 + bound - loss;
            if hopes < self.best.0 as f64 + 1.0 - 1e-6 * hopes.abs().max(1.0) || self.left == 0 {
                return;
            }
            self.left -= 1;
            let taken = &self.ways.of(choice)[way];
            let mut after = room;
            let mut fits = true;
            for r in 0..RESOURCES {
                let takes = u128::from(taken.takes[r]);
                fits &= takes + self.least[at + 1][r] <= room[r];
                after[r] = room[r].saturating_sub(takes);
            }
            if fits {
                self.picks[choice] = way;
                let value = taken.value;
                self.deeper(at + 1, after, worth + value, bound - loss);
            }
        }
    }
}
