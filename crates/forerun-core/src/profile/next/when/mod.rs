//! How long until a user's next step.
//!
//! Gaps are counted in bins ([`bins`]), after contexts of several kinds ([`contexts`]). The bins are the leaves of a
//! tree; at each fork the contexts' counts say how likely the later half is, and a mixer weighs what they say by how well
//! each has done so far ([`mixer`]). A user who has not come back yet has no gap to count: how many steps still wait
//! for their next one says how likely it is that none comes ([`When::chance_of_return`]).

mod bins;
mod contexts;
mod mixer;

use super::history::History;
use super::profile::Contexts;
use super::store::Store;
use bins::{BINS, bin};
use contexts::{ALL, CONTEXTS, contexts};
use mixer::{Mixer, Nodes, sum_up};
use serde::{Deserialize, Serialize};

/// The quantiles that are told: .05, .1, ... .95.
pub const QUANTILES: usize = 19;

/// What is known of gaps, and the answer to the last question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct When {
    store: Store,
    mixer: Mixer,
    /// Gaps that ended, and steps that were somebody's first.
    ended: u64,
    begun: u64,
    #[serde(skip)]
    counted: Vec<(usize, Nodes)>,
    #[serde(skip, default = "even")]
    shares: Vec<f32>,
}

fn even() -> Vec<f32> {
    vec![1.0 / BINS as f32; BINS]
}

impl When {
    /// A model that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            store: Store::new(bytes_max),
            mixer: Mixer::default(),
            ended: 0,
            begun: 0,
            counted: Vec::with_capacity(CONTEXTS),
            shares: even(),
        }
    }

    /// Asks how long it will be from a user's last step to the next.
    pub fn ask(&mut self, user: u64, group: u64, history: &History) {
        let all = self.count(user, group, history);
        self.mixer.shares(&all, &self.counted, history.seen(), &mut self.shares);
    }

    /// Gathers what the contexts have counted; returns what was counted of everyone.
    fn count(&mut self, user: u64, group: u64, history: &History) -> Nodes {
        self.counted.clear();
        for (k, asked) in
            contexts(user, group, history).iter().enumerate().filter(|(_, asked)| asked.key != 0)
        {
            if let Some(at) = self.store.find(asked.key) {
                self.counted.push((k, nodes(&self.store, at)));
            }
        }
        self.store.find(ALL.key).map_or([0.0; 2 * BINS], |at| nodes(&self.store, at))
    }

    /// Learns how long it was from a user's last step to the next; `None`: it is the user's first.
    pub fn learn(&mut self, user: u64, group: u64, history: &History, gap_s: Option<i64>) {
        let Some(gap_s) = gap_s else {
            self.begun += 1;
            return;
        };
        self.ended += 1;
        let all = self.count(user, group, history);
        let bin = bin(gap_s);
        self.mixer.learn(&all, &self.counted, history.seen(), bin, self.ended);
        for asked in contexts(user, group, history).iter().chain([&ALL]).filter(|asked| asked.key != 0) {
            self.store.add(None, asked.key, asked.owner, bin as u32, asked.fade);
        }
    }

    /// Quantiles .05 to .95 of ln(1 + seconds), rising.
    #[must_use]
    pub fn quantiles(&self) -> [f32; QUANTILES] {
        bins::quantiles(&self.shares)
    }

    /// The chance that the gap ends within so many seconds, if it ends.
    #[must_use]
    pub fn within(&self, seconds: f64) -> f64 {
        bins::within(&self.shares, seconds)
    }

    /// The share of steps that have been followed by another of the same user.
    #[must_use]
    pub fn chance_of_return(&self) -> f64 {
        (self.ended as f64 + 1.0) / ((self.ended + self.begun) as f64 + 2.0)
    }

    /// The chance that a user who was last seen `age_s` ago comes within the next `within_s`: neither having come since,
    /// nor having left for good, is taken for granted.
    #[must_use]
    pub fn chance(&self, age_s: f64, within_s: f64) -> f64 {
        let returns = self.chance_of_return();
        let (gone, then) = (self.within(age_s), self.within(age_s + within_s.max(0.0)));
        let left = 1.0 - returns * gone;
        if left <= 0.0 { 0.0 } else { (returns * (then - gone).max(0.0) / left).clamp(0.0, 1.0) }
    }

    /// Bytes of memory that contexts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// What is a user's own, to be taken to another site.
    #[must_use]
    pub fn profile(&self, user: u64) -> Contexts {
        self.store.owned(user)
    }

    /// Takes in what another site knows of a user, instead of what was known here.
    pub fn adopt(&mut self, user: u64, profile: &Contexts) {
        self.store.replace(user, profile);
    }

    /// Drops a user's own contexts; what everyone's contexts have counted stays, sums without an identity.
    pub fn forget(&mut self, user: u64) {
        self.store.forget(user);
    }
}

/// A context's counts at the nodes of the tree of bins.
fn nodes(store: &Store, at: usize) -> Nodes {
    let mut nodes = [0.0; 2 * BINS];
    let (bins, counts) = store.followers(at);
    for (bin, count) in bins.iter().zip(counts) {
        nodes[BINS + (*bin as usize).min(BINS - 1)] += f32::from(*count);
    }
    sum_up(&mut nodes);
    nodes
}
