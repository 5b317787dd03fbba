//! Which item a user turns to next.
//!
//! Contexts of many kinds ([`keys`]) each remember what has followed them ([`store`]). The first stage blends what they
//! say ([`blend`]), the second weighs the likeliest once more, one by one ([`rescore`]), the third corrects the first two
//! ranks by how often their like was right ([`refine`]); what nobody has ever turned to has a chance of its own
//! ([`novelty`]). All of it is learned online, a step at a time, in constant time. In the manner
//! of prediction by partial matching and of PAQ's context mixing, over items instead of bits.

mod blend;
mod entries;
mod evidence;
mod fast;
mod foresight;
mod history;
mod items;
mod keys;
mod novelty;
mod pair;
mod profile;
mod quick;
mod refine;
mod rescore;
mod slots;
mod store;
mod when;
mod windows;

use super::table::{Table, Worth};
use blend::Blend;
use evidence::{EXPERTS, Evidence};
pub use foresight::{Foresight, Outlook};
pub use history::History;
use items::Items;
pub use keys::Asked;
use keys::{ALL_FIRST, LOOKED_UP, is_own, keys};
use novelty::Novelty;
pub use profile::{Contexts, Profile};
pub use quick::Quick;
use refine::Refine;
use rescore::Rescore;
use serde::{Deserialize, Serialize};
use store::Store;
pub use when::{QUANTILES, When};

/// Of the memory: what contexts get, and what users get.
const STORE_SHARE: f64 = 0.7;
const USERS_SHARE: f64 = 0.25;
/// A user's contexts halve their counts at this total, so that habits change; everyone's hardly fade.
const OWN_FADE: u32 = 1_000;
const ALL_FADE: u32 = 60_000;
/// Steps after which a user has weights of their own in the first stage, and in those after it.
const OWN_WEIGHTS_FROM: u32 = 16;
const OWN_LATER_FROM: u32 = 64;
/// A user's own orders are begun up to so many beyond the longest that was known: a passage that comes once fills few.
const OWN_BEGUN: usize = 3;
/// Items have numbers below this.
pub const ITEMS_MAX: u32 = 1 << 22;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct User {
    history: History,
    weights: Vec<f32>,
    firsts: u32,
    /// When it was last learned of, in steps of everyone.
    used: u64,
}

impl Worth for User {
    fn worth(&self) -> u64 {
        self.used
    }

    fn heap_bytes() -> usize {
        history::BYTES + EXPERTS * size_of::<f32>()
    }
}

/// A model of what follows what, for any number of users, within a bound on memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Predictor {
    store: Store,
    users: Table<User>,
    items: Items,
    blend: Blend,
    rescore: Rescore,
    refine: Refine,
    novelty: Novelty,
    steps: u64,
    #[serde(skip)]
    evidence: Evidence,
    /// What was asked last, if nothing was learned since.
    #[serde(skip)]
    asked: Option<([u64; LOOKED_UP], Asked)>,
}

impl Predictor {
    /// A model that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let part = |share: f64| (bytes_max as f64 * share) as usize;
        Self {
            store: Store::new(part(STORE_SHARE)),
            users: Table::new(part(USERS_SHARE)),
            items: Items::default(),
            blend: Blend::default(),
            rescore: Rescore::default(),
            refine: Refine::default(),
            novelty: Novelty::default(),
            steps: 0,
            evidence: Evidence::default(),
            asked: None,
        }
    }

    /// Asks what a user will turn to next. `now_s`: seconds since 1970, if there is a clock. The answer is read from
    /// [`Self::ranked`] and [`Self::chance_of`].
    pub fn ask(&mut self, user: u64, group: u64, now_s: Option<i64>) {
        let nobody = User::default();
        let known = self.users.get(user).unwrap_or(&nobody);
        let gap_s = known.history.gap_to(now_s);
        let asked = Asked { user, group, at_s: now_s, gap_s };
        let keys = keys(&asked, &known.history);
        self.evidence.gather(&self.store, &self.items, &keys, &known.history);
        self.blend.blend(&self.evidence, &known.weights);
        let owner = if known.history.seen() < OWN_LATER_FROM { 0 } else { user };
        let first = (&self.blend.shares, self.blend.rest);
        self.rescore.score(&mut self.evidence, &known.history, first, owner);
        self.refine.refine(&self.evidence, &known.history, &self.rescore.chances, owner);
        self.novelty.estimate(&self.evidence, &self.items, &known.history, known.firsts);
        self.asked = Some((keys, asked));
    }

    /// The chance that it will be something that nobody has ever turned to.
    #[must_use]
    pub fn chance_of_new(&self) -> f64 {
        f64::from(self.novelty.chance)
    }

    /// Whether anybody has ever turned to an item.
    #[must_use]
    pub fn has_seen(&self, item: u32) -> bool {
        self.items.seen(item)
    }

    /// The likeliest items, the likeliest first; of equals the lowest number.
    pub fn ranked(&self, out: &mut Vec<(u32, f64)>) {
        let known = 1.0 - self.chance_of_new();
        out.clear();
        let candidates = self.evidence.candidates.iter().zip(&self.refine.chances);
        out.extend(candidates.map(|(item, p)| (*item, known * f64::from(*p))));
        out.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }

    /// The chance of one item; of one that nobody has turned to, the chance of all such together.
    #[must_use]
    pub fn chance_of(&self, item: u32) -> f64 {
        if !self.items.seen(item) {
            return self.chance_of_new();
        }
        let known = 1.0 - self.chance_of_new();
        match self.evidence.slot(item) {
            Some(slot) => known * f64::from(self.refine.chances[usize::from(slot)]),
            None => {
                let rest = self.refine.chances.last().copied().unwrap_or(1.0);
                let share = self.blend.share_of(&self.evidence, &self.store, &self.items, item);
                known * f64::from(rest * (share / self.blend.rest).min(1.0))
            }
        }
    }

    /// Learns that a user turned to an item. Right after [`Self::ask`] for the same user it learns from that answer,
    /// else it asks first.
    pub fn learn(&mut self, user: u64, group: u64, at_s: Option<i64>, item: u32) {
        if self.asked.as_ref().is_none_or(|(_, asked)| asked.user != user || asked.group != group) {
            self.ask(user, group, at_s);
        }
        let Some((keys, _)) = self.asked.take() else { return };
        if item >= ITEMS_MAX {
            return;
        }
        let first = !self.items.seen(item);
        self.novelty.learn(first);
        self.steps += 1;
        let known = self.users.entry(user);
        known.used = self.steps;
        if first {
            known.firsts += 1;
        } else {
            if known.weights.is_empty() && known.history.seen() >= OWN_WEIGHTS_FROM {
                known.weights = vec![0.0; EXPERTS];
            }
            self.blend.learn(&self.evidence, &self.store, &self.items, item, &mut known.weights, 1.0);
            self.rescore.learn(&self.evidence, &[item]);
            self.refine.learn(self.evidence.slot(item));
        }
        known.history.push(item, at_s);
        self.count(&keys, user, item);
    }

    fn count(&mut self, keys: &[u64; LOOKED_UP], user: u64, item: u32) {
        self.items.add(item);
        let begun = self.evidence.own_depth + OWN_BEGUN;
        let wanted = |k: usize| k < begun || k >= ALL_FIRST;
        let mut found = self.evidence.found.iter().copied().peekable();
        let place = |k: usize| found.next_if(|(kind, _)| *kind == k).map(|(_, at)| at);
        let places: [Option<usize>; LOOKED_UP] = std::array::from_fn(place);
        let new = |k: &usize| places[*k].is_none() && keys[*k] != 0 && wanted(*k);
        self.store.expect::<LOOKED_UP>((0..LOOKED_UP).filter(new).map(|k| keys[k]));
        for (k, key) in keys.iter().enumerate().filter(|(k, key)| **key != 0 && wanted(*k)) {
            let (owner, fade) = if is_own(k) { (user, OWN_FADE) } else { (0, ALL_FADE) };
            self.store.add(places[k], *key, owner, item, fade);
        }
    }

    /// Asks with a history that the caller keeps: what is likely in what comes after it, nobody's own habits looked at.
    pub fn ask_after(&mut self, history: &History) {
        let asked = Asked::default();
        let keys = keys(&asked, history);
        self.evidence.gather(&self.store, &self.items, &keys, history);
        self.blend.blend(&self.evidence, &[]);
        self.rescore.score(&mut self.evidence, history, (&self.blend.shares, self.blend.rest), 0);
        self.refine.pass(&self.rescore.chances);
        self.novelty.estimate(&self.evidence, &self.items, history, 0);
        self.asked = Some((keys, asked));
    }

    /// Learns how far each context is to be trusted from which items came within a window after a history; counts
    /// nothing yet ([`Self::count_after`]).
    pub fn weigh_after(&mut self, history: &History, happened: &[u32]) {
        self.ask_after(history);
        self.asked = None;
        let mut known: Vec<u32> = happened.iter().copied().filter(|i| self.items.seen(*i)).collect();
        known.sort_unstable();
        known.dedup();
        let part = 1.0 / known.len().max(1) as f32;
        for item in &known {
            self.blend.learn(&self.evidence, &self.store, &self.items, *item, &mut [], part);
        }
        if !known.is_empty() {
            self.rescore.learn(&self.evidence, &known);
        }
    }

    /// Counts which items came within a window after a history; how far each context is to be trusted stays.
    pub fn count_after(&mut self, history: &History, happened: &[u32]) {
        self.asked = None;
        self.count_all(&keys(&Asked::default(), history), happened);
    }

    fn count_all(&mut self, keys: &[u64; LOOKED_UP], happened: &[u32]) {
        for (i, item) in happened.iter().enumerate() {
            if *item < ITEMS_MAX && !happened[..i].contains(item) {
                self.count(keys, 0, *item);
            }
        }
    }

    /// Drops all that is a user's own: history, weights and contexts. What stays are sums over everyone: how often each
    /// item followed each context that is not a user's own, and the mixers' weights; nothing in them says whose step
    /// it was.
    pub fn forget(&mut self, user: u64) {
        self.users.remove(user);
        self.store.forget(user);
        self.rescore.forget(user);
        self.refine.forget(user);
        self.asked = None;
    }

    /// What is a user's own, to be taken to another site that gives the same numbers to users and items.
    #[must_use]
    pub fn profile(&self, user: u64) -> Profile {
        let nobody = User::default();
        let known = self.users.get(user).unwrap_or(&nobody);
        Profile {
            history: known.history.clone(),
            weights: known.weights.clone(),
            firsts: known.firsts,
            contexts: self.store.owned(user),
        }
    }

    /// Takes in a user's profile, instead of what was known here. What the memory has no room for is let go, the rarest
    /// first.
    pub fn adopt(&mut self, user: u64, profile: &Profile) {
        self.asked = None;
        self.store.replace(user, &profile.contexts);
        let used = self.steps;
        let known = self.users.entry(user);
        known.history = profile.history.clone();
        known.weights = profile.weights.clone();
        known.weights.resize(if profile.weights.is_empty() { 0 } else { EXPERTS }, 0.0);
        known.firsts = profile.firsts;
        known.used = used;
    }

    /// What each expert that has a word weighs in the first stage, at what was asked last.
    pub fn weights(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.evidence.witnesses.iter().map(|w| w.expert).zip(self.blend.weights.iter().copied())
    }

    /// What an expert looks at.
    #[must_use]
    pub fn expert_name(expert: usize) -> String {
        evidence::name(expert)
    }

    /// A user's last steps.
    #[must_use]
    pub fn history(&self, user: u64) -> Option<&History> {
        self.users.get(user).map(|known| &known.history)
    }

    /// Users known now.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Bytes of memory that contexts and users take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes() + self.users.bytes()
    }
}

#[cfg(test)]
mod tests;
