//! What speaks for what: the items that may come next, and how often each context has seen each of them.

use super::entries::Entries;
use super::history::History;
use super::items::Items;
use super::keys::{ALL_FIRST, ALL_ORDERS, LAGS_BACK, LOOKED_UP, OWN_ORDERS, PLACE};
use super::store::Store;

/// Items that are weighed one by one; the others share what is left. More than these gain nothing.
pub(super) const CANDIDATES: usize = 64;
/// The most frequent followers of each context that become candidates.
const PER_CONTEXT: usize = 24;
/// Followers of a context that are looked at, and of those that so many things follow that the rest say little: what
/// everyone does, all the time and at this place of the history, and what comes soon after a step further back.
const HEARD: usize = 128;
const HEARD_OF_ALL: usize = 24;
const HEARD_OF_PLACE: usize = 32;
const HEARD_OF_LAGS: usize = 96;
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
    /// What a chain leaves to the next shorter order.
    backed: f32,
    /// Where the store has it.
    at: usize,
}

pub(super) const NOBODY: u16 = u16::MAX;
pub(super) const NO_SLOT: u8 = u8::MAX;

/// By candidate; 0 beyond the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row(pub(super) [f32; CANDIDATES]);

impl Default for Row {
    fn default() -> Self {
        Self([0.0; CANDIDATES])
    }
}

#[derive(Clone, Debug)]
pub(super) struct Ages(pub(super) [(u32, u32); CANDIDATES]);

impl Default for Ages {
    fn default() -> Self {
        Self([(u32::MAX, 0); CANDIDATES])
    }
}

/// Everything that is known about one moment. Its buffers are used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    pub(super) candidates: Vec<u32>,
    pub(super) entries: Entries,
    /// By expert, rising.
    pub(super) witnesses: Vec<Witness>,
    /// The longest of the user's own and of everyone's orders that has been seen, plus one.
    pub(super) own_depth: usize,
    pub(super) all_depth: usize,
    /// Of everyone's order 1: the trust bucket, or [`TOTALS`]` * `[`VARIETIES`] if it was never seen.
    pub(super) after_last: usize,
    /// Whether there are items that are no candidates.
    pub(super) others: bool,
    /// Contexts that the store has: number and place, rising.
    pub(super) found: Vec<(usize, usize)>,
    /// By item: the number of its candidate; [`NO_SLOT`] if it is none.
    slot_of: Vec<u8>,
    /// What the experts give that say something of every candidate, from [`POPULAR`] on.
    pub(super) dense: [Row; EXPERTS - POPULAR],
    /// By candidate: steps since the user turned to it, and how often it did.
    pub(super) ages: Ages,
}

impl Evidence {
    pub(super) fn gather(&mut self, store: &Store, items: &Items, keys: &[u64; LOOKED_UP], h: &History) {
        store.find_all(keys, ALL_FIRST, &mut self.found);
        self.propose(store, items, h);
        self.others = self.candidates.len() < items.distinct as usize;
        self.entries.clear();
        self.witnesses.clear();
        (self.own_depth, self.all_depth, self.after_last) = (0, 0, TOTALS * VARIETIES);
        for i in 0..self.found.len() {
            let (k, at) = self.found[i];
            self.looked_up(store, k, at);
        }
        self.recalled(h);
        if items.total > 0 {
            let popular = |item: u32| items.counts[item as usize] as f32;
            self.every(POPULAR, items.total as f32, popular);
            self.every(UNIFORM, items.distinct as f32, |_| 1.0);
            self.chains(items);
        }
    }

    /// Chooses the candidates: the narrowest contexts speak first.
    fn propose(&mut self, store: &Store, items: &Items, h: &History) {
        self.slot_of.resize(items.counts.len(), NO_SLOT);
        for item in self.candidates.drain(..) {
            self.slot_of[item as usize] = NO_SLOT;
        }
        h.recent().take(4).for_each(|item| self.candidate(item));
        let found = std::mem::take(&mut self.found);
        let split = |k: usize| found.partition_point(|(kind, _)| *kind < k);
        let (own, all, orders) = (split(1), split(ALL_FIRST), split(ALL_FIRST + ALL_ORDERS.len()));
        let after_popular = split(ALL_FIRST + 1);
        let narrow = found[own..all].iter().rev().chain(found[after_popular..orders].iter().rev());
        let wide = found[..own].iter().chain(&found[all..after_popular]);
        for (_, at) in narrow.chain(&found[orders..]).chain(wide) {
            if self.candidates.len() == CANDIDATES {
                break;
            }
            let (followers, _) = store.followers(*at);
            followers.iter().take(PER_CONTEXT).for_each(|item| self.candidate(*item));
            self.candidate(store.slot(*at).last);
        }
        self.found = found;
        h.recent().skip(4).take(8).for_each(|item| self.candidate(item));
    }

    fn candidate(&mut self, item: u32) {
        let Some(slot) = self.slot_of.get_mut(item as usize) else { return };
        if self.candidates.len() < CANDIDATES && *slot == NO_SLOT {
            *slot = self.candidates.len() as u8;
            self.candidates.push(item);
        }
    }

    /// The number of an item's candidate.
    pub(super) fn slot(&self, item: u32) -> Option<u16> {
        let slot = *self.slot_of.get(item as usize)?;
        (slot != NO_SLOT).then_some(u16::from(slot))
    }

    #[cfg(test)]
    pub(super) fn nominate(&mut self, items: &[u32]) {
        self.slot_of.resize(items.iter().max().map_or(0, |item| *item as usize + 1), NO_SLOT);
        items.iter().for_each(|item| self.candidate(*item));
    }

    fn witness(&mut self, expert: usize, from: usize, total: f32, trust: usize) {
        let to = self.entries.len();
        let none = Witness { expert, from, to, total, trust, last: NOBODY, ..Witness::default() };
        self.witnesses.push(none);
    }

    fn looked_up(&mut self, store: &Store, k: usize, at: usize) {
        let from = self.entries.len();
        let (items, counts) = heard(store, k, at);
        let slot_of = |item: u32| self.slot_of.get(item as usize).copied().unwrap_or(NO_SLOT);
        self.entries.extend(items.iter().zip(counts).map(|(item, n)| (slot_of(*item), *n)));
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
        let to = self.entries.len();
        let total: u32 = match slot.distinct() > items.len() {
            true => counts.iter().map(|c| u32::from(*c)).sum(),
            false => slot.total(),
        };
        let total = total as f32;
        let backed = DISCOUNT * items.len() as f32 / total;
        self.witnesses.push(Witness {
            expert: k,
            from,
            to,
            total,
            trust,
            last,
            streak: slot.streak,
            backed,
            at,
        });
    }

    /// The user's last steps, the last of all weighing most.
    fn recalled(&mut self, h: &History) {
        self.ages = Ages::default();
        let mut order = [0u8; CANDIDATES];
        let mut distinct = 0;
        let mut weights = [1.0f32; DECAYS.len()];
        let mut sums = [0.0f32; DECAYS.len()];
        let mut counts = [[0.0f32; CANDIDATES]; DECAYS.len()];
        for (age, item) in h.recent().enumerate() {
            if let Some(slot) = self.slot(item) {
                let slot = usize::from(slot) % CANDIDATES;
                let (first, times) = &mut self.ages.0[slot];
                if *times == 0 {
                    *first = age as u32;
                    order[distinct] = slot as u8;
                    distinct += 1;
                }
                *times += 1;
                for j in 0..DECAYS.len() {
                    counts[j][slot] += weights[j];
                    sums[j] += weights[j];
                }
            }
            for (weight, decay) in weights.iter_mut().zip(DECAYS) {
                *weight = if *weight * decay < DECAYED_LEAST { 0.0 } else { *weight * decay };
            }
        }
        for j in 0..DECAYS.len() {
            let from = self.entries.len();
            let counts = counts[j];
            self.entries.extend(order[..distinct].iter().map(|slot| {
                let count = counts[usize::from(*slot) % CANDIDATES];
                (if count > 0.0 { *slot } else { NO_SLOT }, count)
            }));
            if sums[j] > 0.0 {
                self.witness(DECAY_FIRST + j, from, sums[j], trust(h.len() as u32, h.len().min(2)));
            }
        }
    }

    /// An expert that says something of every candidate.
    fn every(&mut self, expert: usize, total: f32, count: impl Fn(u32) -> f32) {
        let Row(row) = &mut self.dense[expert - POPULAR];
        row.fill(0.0);
        row.iter_mut().zip(&self.candidates).for_each(|(n, item)| *n = count(*item));
        self.witness(expert, self.entries.len(), total, 0);
    }

    /// Each order's discounted counts, backed by the next shorter's: everyone's orders, and the user's own on top.
    fn chains(&mut self, items: &Items) {
        let mut chain = [0.0f32; CANDIDATES];
        for (p, item) in chain.iter_mut().zip(&self.candidates) {
            *p = items.share(*item);
        }
        for (own, expert, depth) in [(false, CHAIN_ALL, self.all_depth), (true, CHAIN_OWN, self.own_depth)] {
            for w in self.witnesses.iter().filter(|w| links(w.expert, own)) {
                let each = 1.0 / w.total;
                chain.iter_mut().for_each(|p| *p *= w.backed);
                self.entries.of(w).for_each(|(slot, count)| chain[slot] += (count - DISCOUNT) * each);
            }
            self.dense[expert - POPULAR] = Row(chain);
            self.witness(expert, self.entries.len(), 1.0, depth.min(TOTALS - 1) * VARIETIES);
        }
    }

    fn chain_of(&self, store: &Store, items: &Items, item: u32, own: bool) -> f32 {
        let mut p = items.share(item);
        let own_links = self.witnesses.iter().filter(|w| own && links(w.expert, true));
        for witness in self.witnesses.iter().filter(|w| links(w.expert, false)).chain(own_links) {
            p *= witness.backed;
            let count = held(store, witness, item);
            if count > 0.0 {
                p += (count - DISCOUNT) / witness.total;
            }
        }
        p
    }

    /// What an expert gives to an item, candidate or not.
    pub(super) fn share(&self, store: &Store, items: &Items, w: &Witness, item: u32) -> f32 {
        if let Some(slot) = self.slot(item) {
            let slot = usize::from(slot) % CANDIDATES;
            let count = match w.expert.checked_sub(POPULAR) {
                Some(dense) => self.dense[dense].0[slot],
                None => self.entries.count(w, slot),
            };
            return count / w.total;
        }
        let count = match w.expert {
            POPULAR => items.counts[item as usize] as f32,
            UNIFORM => 1.0,
            CHAIN_ALL | CHAIN_OWN => self.chain_of(store, items, item, w.expert == CHAIN_OWN),
            k if k < LOOKED_UP => held(store, w, item),
            _ => 0.0,
        };
        count / w.total
    }

    /// Those that speak in the second stage: they stand first.
    pub(super) fn lifting(&self) -> &[Witness] {
        &self.witnesses[..self.witnesses.partition_point(|w| w.expert < POPULAR)]
    }

    /// Sets what each count adds in the second stage: how far it is above what the first stage gives.
    pub(super) fn lift(&mut self, first: &[f32; CANDIDATES], prior: f32) {
        let count = self.lifting().len();
        self.entries.lift(&self.witnesses[..count], first, prior);
    }
}

/// Whether an expert is a link of the chain.
fn links(expert: usize, own: bool) -> bool {
    if own { expert < ALL_FIRST } else { (ALL_FIRST..ALL_FIRST + ALL_ORDERS.len()).contains(&expert) }
}

/// What a context may say: its most frequent followers.
#[inline]
fn heard(store: &Store, k: usize, at: usize) -> (&[u32], &[u16]) {
    let (items, counts) = store.followers(at);
    let len = items.len().min(match k {
        ALL_FIRST => HEARD_OF_ALL,
        PLACE => HEARD_OF_PLACE,
        _ if LAGS_BACK.contains(&k) => HEARD_OF_LAGS,
        _ => HEARD,
    });
    (&items[..len], &counts[..len])
}

fn held(store: &Store, w: &Witness, item: u32) -> f32 {
    let (items, counts) = heard(store, w.expert, w.at);
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
