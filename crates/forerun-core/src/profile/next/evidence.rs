//! What speaks for what: the items that may come next, and how often each context has seen each of them.

use super::fast::ln;
use super::history::History;
use super::keys::{ALL_FIRST, ALL_ORDERS, LOOKED_UP, OWN_ORDERS};
use super::store::Store;
use serde::{Deserialize, Serialize};

/// Items that are weighed one by one; the others share what is left. More than these gain nothing.
const CANDIDATES: usize = 64;
/// The most frequent followers of each context that become candidates.
const PER_CONTEXT: usize = 24;
/// How much less a step further back weighs, in the three experts that look at the user's last steps only.
const DECAYS: [f32; 3] = [0.5, 0.8, 0.95];
/// Steps that weigh less are not looked at.
const DECAYED_LEAST: f32 = 0.01;

/// Experts beside the contexts that are looked up: the user's last steps, how popular an item is, all alike, and two
/// chains of orders, each backing the next longer one.
const DECAY_FIRST: usize = LOOKED_UP;
pub(super) const POPULAR: usize = DECAY_FIRST + DECAYS.len();
pub(super) const UNIFORM: usize = POPULAR + 1;
pub(super) const CHAIN_ALL: usize = UNIFORM + 1;
pub(super) const CHAIN_OWN: usize = CHAIN_ALL + 1;
pub(super) const EXPERTS: usize = CHAIN_OWN + 1;

/// How far an expert may be trusted is learned for each of these: by how much it has seen, and how varied.
pub(super) const TOTALS: usize = 8;
pub(super) const VARIETIES: usize = 6;
/// What an absolute discount takes from each count of a chain (Ney, Essen & Kneser, *On structuring probabilistic
/// dependences in stochastic language modelling*, Computer Speech and Language 8, 1994).
const DISCOUNT: f32 = 0.75;
/// A popular item's count before it was seen, in a chain's last resort.
const POPULAR_PRIOR: f32 = 0.5;

/// What an expert looks at.
pub(super) fn name(expert: usize) -> String {
    match expert {
        k if k < LOOKED_UP => super::keys::name(k),
        POPULAR => "popularity".to_owned(),
        UNIFORM => "all alike".to_owned(),
        CHAIN_ALL => "chain of everyone's orders".to_owned(),
        CHAIN_OWN => "chain of the user's orders".to_owned(),
        k => format!("last steps, fading by {}", DECAYS[(k - DECAY_FIRST).min(DECAYS.len() - 1)]),
    }
}

/// How often everyone has turned to each item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Items {
    pub(super) counts: Vec<u32>,
    pub(super) total: u32,
    pub(super) distinct: u32,
}

impl Items {
    pub(super) fn seen(&self, item: u32) -> bool {
        self.counts.get(item as usize).is_some_and(|c| *c > 0)
    }

    pub(super) fn add(&mut self, item: u32) {
        let at = item as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.distinct += u32::from(self.counts[at] == 0);
        self.counts[at] = self.counts[at].saturating_add(1);
        self.total = self.total.saturating_add(1);
    }

    fn share(&self, item: u32) -> f32 {
        (self.counts[item as usize] as f32 + POPULAR_PRIOR)
            / (self.total as f32 + POPULAR_PRIOR * self.distinct as f32).max(1.0)
    }
}

/// How often one expert has seen one candidate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) slot: u16,
    pub(super) count: f32,
    /// What it adds in the second stage.
    pub(super) lift: f32,
}

/// An expert that has something to say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Witness {
    pub(super) expert: usize,
    /// The part of [`Evidence::entries`] that is its.
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) total: f32,
    /// Which of its learned weights applies.
    pub(super) trust: usize,
    /// Candidate that followed last, and how often in a row; [`NOBODY`] if it is none.
    pub(super) last: u16,
    pub(super) streak: u16,
    /// Where the store has it.
    at: usize,
}

pub(super) const NOBODY: u16 = u16::MAX;

/// Everything that is known about one moment. Its buffers are used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    pub(super) candidates: Vec<u32>,
    pub(super) entries: Vec<Entry>,
    pub(super) witnesses: Vec<Witness>,
    /// The longest of the user's own and of everyone's orders that has been seen, plus one.
    pub(super) own_depth: usize,
    pub(super) all_depth: usize,
    /// Of everyone's order 1: the trust bucket, or [`TOTALS`]` * `[`VARIETIES`] if it was never seen.
    pub(super) after_last: usize,
    /// Whether there are items that are no candidates.
    pub(super) others: bool,
    found: Vec<(usize, usize)>,
    /// By item: the number of its candidate, tagged with the moment.
    slot_of: Vec<u32>,
    moment: u32,
    chain: Vec<f32>,
}

impl Evidence {
    pub(super) fn gather(&mut self, store: &Store, items: &Items, keys: &[u64; LOOKED_UP], h: &History) {
        self.found.clear();
        for (k, key) in keys.iter().enumerate().filter(|(_, key)| **key != 0) {
            self.found.extend(store.find(*key).map(|at| (k, at)));
        }
        self.propose(store, items, h);
        self.others = self.candidates.len() < items.distinct as usize;
        self.entries.clear();
        self.witnesses.clear();
        (self.own_depth, self.all_depth, self.after_last) = (0, 0, TOTALS * VARIETIES);
        for i in 0..self.found.len() {
            let (k, at) = self.found[i];
            self.looked_up(store, k, at);
        }
        if !h.is_empty() {
            (0..DECAYS.len()).for_each(|j| self.decayed(j, h));
        }
        if items.total > 0 {
            let popular = |item: u32| items.counts[item as usize] as f32;
            self.every(POPULAR, items.total as f32, popular);
            self.every(UNIFORM, items.distinct as f32, |_| 1.0);
            self.chains(store, items);
        }
    }

    /// Chooses the candidates: the narrowest contexts speak first.
    fn propose(&mut self, store: &Store, items: &Items, h: &History) {
        self.moment += 1;
        if self.moment >= 1 << 24 {
            self.slot_of.fill(0);
            self.moment = 1;
        }
        self.slot_of.resize(items.counts.len(), 0);
        self.candidates.clear();
        h.recent().take(4).for_each(|item| self.candidate(item));
        let orders_end = ALL_FIRST + ALL_ORDERS.len();
        let longest_first = |range: std::ops::Range<usize>| move |k: &usize| range.contains(k);
        let found = std::mem::take(&mut self.found);
        let pass = |this: &mut Self, wanted: &dyn Fn(&usize) -> bool, back: bool| {
            let mut one = |k: usize, at: usize| {
                if wanted(&k) {
                    let (followers, _) = store.followers(at);
                    followers.iter().take(PER_CONTEXT).for_each(|item| this.candidate(*item));
                    this.candidate(store.slot(at).last);
                }
            };
            if back {
                found.iter().rev().for_each(|(k, at)| one(*k, *at));
            } else {
                found.iter().for_each(|(k, at)| one(*k, *at));
            }
        };
        pass(self, &longest_first(1..ALL_FIRST), true);
        pass(self, &longest_first(ALL_FIRST + 1..orders_end), true);
        pass(self, &longest_first(orders_end..LOOKED_UP), false);
        pass(self, &|k| *k == 0 || *k == ALL_FIRST, false);
        self.found = found;
        h.recent().skip(4).take(8).for_each(|item| self.candidate(item));
    }

    fn candidate(&mut self, item: u32) {
        let tag = self.moment << 8;
        let Some(slot) = self.slot_of.get_mut(item as usize) else { return };
        if self.candidates.len() < CANDIDATES && *slot & !255 != tag {
            *slot = tag | self.candidates.len() as u32;
            self.candidates.push(item);
        }
    }

    /// The number of an item's candidate.
    pub(super) fn slot(&self, item: u32) -> Option<u16> {
        let slot = *self.slot_of.get(item as usize)?;
        (slot & !255 == self.moment << 8).then_some((slot & 255) as u16)
    }

    fn witness(&mut self, expert: usize, from: usize, total: f32, trust: usize) {
        let to = self.entries.len();
        let none = Witness { expert, from, to, total, trust, last: NOBODY, ..Witness::default() };
        self.witnesses.push(none);
    }

    fn looked_up(&mut self, store: &Store, k: usize, at: usize) {
        let from = self.entries.len();
        let (items, counts) = store.followers(at);
        for (item, count) in items.iter().zip(counts) {
            if let Some(slot) = self.slot(*item) {
                self.entries.push(Entry { slot, count: f32::from(*count), lift: 0.0 });
            }
        }
        let slot = store.slot(at);
        let trust = trust(slot.total(), slot.distinct());
        if k < OWN_ORDERS.len() {
            self.own_depth = k + 1;
        } else if k < ALL_FIRST + ALL_ORDERS.len() {
            self.all_depth = k - ALL_FIRST + 1;
        }
        if k == ALL_FIRST + 1 {
            self.after_last = trust;
        }
        let last = self.slot(slot.last).unwrap_or(NOBODY);
        let (total, to) = (slot.total() as f32, self.entries.len());
        self.witnesses.push(Witness { expert: k, from, to, total, trust, last, streak: slot.streak, at });
    }

    /// The user's last steps, the last of all weighing most.
    fn decayed(&mut self, j: usize, h: &History) {
        let from = self.entries.len();
        let (mut weight, mut sum) = (1.0f32, 0.0f32);
        for item in h.recent() {
            if let Some(slot) = self.slot(item) {
                sum += weight;
                match self.entries[from..].iter_mut().find(|e| e.slot == slot) {
                    Some(entry) => entry.count += weight,
                    None => self.entries.push(Entry { slot, count: weight, lift: 0.0 }),
                }
            }
            weight *= DECAYS[j];
            if weight < DECAYED_LEAST {
                break;
            }
        }
        if sum > 0.0 {
            self.witness(DECAY_FIRST + j, from, sum, trust(h.len() as u32, h.len().min(2)));
        }
    }

    /// An expert that says something of every candidate.
    fn every(&mut self, expert: usize, total: f32, count: impl Fn(u32) -> f32) {
        let from = self.entries.len();
        for (slot, item) in self.candidates.iter().enumerate() {
            self.entries.push(Entry { slot: slot as u16, count: count(*item), lift: 0.0 });
        }
        self.witness(expert, from, total, 0);
    }

    /// Each order's discounted counts, backed by the next shorter's: everyone's orders, and the user's own on top.
    fn chains(&mut self, store: &Store, items: &Items) {
        let mut chain = std::mem::take(&mut self.chain);
        chain.clear();
        chain.extend(self.candidates.iter().map(|item| items.share(*item)));
        for (own, expert, depth) in [(false, CHAIN_ALL, self.all_depth), (true, CHAIN_OWN, self.own_depth)] {
            for witness in self.witnesses.iter().filter(|w| links(w.expert, own)) {
                let slot = store.slot(witness.at);
                let backed = DISCOUNT * slot.distinct() as f32 / witness.total;
                chain.iter_mut().for_each(|p| *p *= backed);
                for entry in &self.entries[witness.from..witness.to] {
                    chain[usize::from(entry.slot)] += (entry.count - DISCOUNT) / witness.total;
                }
            }
            let from = self.entries.len();
            let said = chain.iter().enumerate();
            self.entries.extend(said.map(|(slot, p)| Entry { slot: slot as u16, count: *p, lift: 0.0 }));
            self.witness(expert, from, 1.0, depth.min(TOTALS - 1) * VARIETIES);
        }
        self.chain = chain;
    }

    fn chain_of(&self, store: &Store, items: &Items, item: u32, own: bool) -> f32 {
        let mut p = items.share(item);
        let own_links = self.witnesses.iter().filter(|w| own && links(w.expert, true));
        for witness in self.witnesses.iter().filter(|w| links(w.expert, false)).chain(own_links) {
            p *= DISCOUNT * store.slot(witness.at).distinct() as f32 / witness.total;
            let count = held(store, witness.at, item);
            if count > 0.0 {
                p += (count - DISCOUNT) / witness.total;
            }
        }
        p
    }

    /// What an expert gives to an item, candidate or not.
    pub(super) fn share(&self, store: &Store, items: &Items, w: &Witness, item: u32) -> f32 {
        if let Some(slot) = self.slot(item) {
            let found = self.entries[w.from..w.to].iter().find(|e| e.slot == slot);
            return found.map_or(0.0, |e| e.count) / w.total;
        }
        let count = match w.expert {
            POPULAR => items.counts[item as usize] as f32,
            UNIFORM => 1.0,
            CHAIN_ALL | CHAIN_OWN => self.chain_of(store, items, item, w.expert == CHAIN_OWN),
            k if k < LOOKED_UP => held(store, w.at, item),
            _ => 0.0,
        };
        count / w.total
    }

    /// Sets what each count adds in the second stage: how far it is above what the first stage gives.
    pub(super) fn lift(&mut self, first: &[f32], prior: f32) {
        for w in self.witnesses.iter().filter(|w| w.expert < POPULAR) {
            let expected = prior * w.total.max(1.0);
            for entry in &mut self.entries[w.from..w.to] {
                entry.lift = ln(1.0 + entry.count / (expected * first[usize::from(entry.slot)] + prior));
            }
        }
    }
}

/// Whether an expert is a link of the chain.
fn links(expert: usize, own: bool) -> bool {
    if own { expert < ALL_FIRST } else { (ALL_FIRST..ALL_FIRST + ALL_ORDERS.len()).contains(&expert) }
}

fn held(store: &Store, at: usize, item: u32) -> f32 {
    let (items, counts) = store.followers(at);
    items.iter().position(|i| *i == item).map_or(0.0, |i| f32::from(counts[i]))
}

/// The bucket of a context that has seen so much, and so many different things.
fn trust(total: u32, distinct: usize) -> usize {
    let much = match total {
        0..=1 => 0,
        2 => 1,
        3..=4 => 2,
        5..=8 => 3,
        9..=16 => 4,
        17..=64 => 5,
        65..=256 => 6,
        _ => 7,
    };
    let (distinct, total) = (distinct as u64, u64::from(total));
    let varied = match distinct {
        0..=1 => 0,
        _ if distinct * 10 <= total => 1,
        _ if distinct * 10 <= total * 3 => 2,
        _ if distinct * 10 <= total * 6 => 3,
        _ if distinct < total => 4,
        _ => 5,
    };
    much * VARIETIES + varied
}
