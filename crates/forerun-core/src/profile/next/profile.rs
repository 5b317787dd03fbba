//! One user's own part of a model, apart from it: what a user takes along to another site.

use super::History;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A user's own contexts, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contexts(BTreeMap<u64, Context>);

/// What followed one context.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Context {
    pub(super) last: u32,
    pub(super) streak: u16,
    /// Items and how often each followed, the most frequent first.
    pub(super) followers: Vec<(u32, u16)>,
}

impl Contexts {
    pub(super) fn insert(&mut self, key: u64, context: Context) {
        self.0.insert(key, context);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Context)> + '_ {
        self.0.iter().map(|(key, context)| (*key, context))
    }

    /// Contexts that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What two sites know together: counts add up. `a.merge(&b)` is `b.merge(&a)`.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        for (key, theirs) in &other.0 {
            merged
                .0
                .entry(*key)
                .and_modify(|ours| *ours = ours.merge(theirs))
                .or_insert_with(|| theirs.clone());
        }
        merged
    }
}

impl Context {
    fn merge(&self, other: &Self) -> Self {
        let mut sums: BTreeMap<u32, u16> = BTreeMap::new();
        for (item, count) in self.followers.iter().chain(&other.followers) {
            let sum = sums.entry(*item).or_default();
            *sum = sum.saturating_add(*count);
        }
        let mut followers: Vec<(u32, u16)> = sums.into_iter().collect();
        followers.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        // Which of the two came later is not known: the longer row is the stronger habit.
        let (streak, last) = (self.streak, self.last).max((other.streak, other.last));
        Self { last, streak, followers }
    }
}

/// A user's own part of a [`super::Predictor`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub(super) history: History,
    pub(super) weights: Vec<f32>,
    pub(super) firsts: u32,
    pub(super) contexts: Contexts,
}

impl Profile {
    /// One profile of two sites' of the same user, both of which give the same numbers to items. `a.merge(&b)` is
    /// `b.merge(&a)`, and with an empty profile it changes nothing.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        Self {
            history: self.history.merge(&other.history),
            weights: self.weigh(other),
            firsts: self.firsts.saturating_add(other.firsts),
            contexts: self.contexts.merge(&other.contexts),
        }
    }

    /// The mean of the weights, by how many steps each has learned from.
    fn weigh(&self, other: &Self) -> Vec<f32> {
        match (self.weights.is_empty(), other.weights.is_empty()) {
            (true, _) => return other.weights.clone(),
            (_, true) => return self.weights.clone(),
            _ => {}
        }
        let (ours, theirs) = (self.history.seen() as f32, other.history.seen() as f32);
        let each = 1.0 / (ours + theirs).max(1.0);
        self.weights.iter().zip(&other.weights).map(|(a, b)| (a * ours + b * theirs) * each).collect()
    }
}
