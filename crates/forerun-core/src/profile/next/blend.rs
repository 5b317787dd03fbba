//! The first stage: all experts' shares, blended by how well each has done in the like of this moment.
//!
//! p = sum of w_k p_k with w the softmax of z_k; z is the sum of three learned weights: by the expert and how much it
//! has seen, by the expert and the longest orders that are known, by the expert and the user. Each steps along the
//! gradient of the log of what happened's chance, w_k (p_k / p - 1).

use super::evidence::{CANDIDATES, CHAIN_OWN, EXPERTS, Evidence, POPULAR, TOTALS, VARIETIES};
use super::fast::{self, exp};
use super::items::Items;
use super::keys::{ALL_FIRST, ALL_ORDERS, OWN_ORDERS};
use super::store::Store;
use serde::{Deserialize, Serialize};

const RATE_TRUST: f32 = 0.1;
const RATE_DEPTH: f32 = 0.02;
const RATE_USER: f32 = 0.02;
const OWN_DEPTHS: usize = OWN_ORDERS.len() + 1;
const ALL_DEPTHS: usize = ALL_ORDERS.len() + 1;
/// No chance is taken to be smaller, so that one surprise does not overturn the weights.
const CHANCE_LEAST: f32 = 1e-9;

/// By candidate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shares(pub(super) [f32; CANDIDATES]);

impl Default for Shares {
    fn default() -> Self {
        Self([0.0; CANDIDATES])
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Blend {
    by_trust: Vec<f32>,
    by_depth: Vec<f32>,
    /// Of the last moment.
    #[serde(skip)]
    pub(super) weights: Vec<f32>,
    /// What each candidate is given, and what is left for all others.
    #[serde(skip)]
    pub(super) shares: Shares,
    #[serde(skip)]
    pub(super) rest: f32,
}

impl Default for Blend {
    fn default() -> Self {
        let mut by_trust = Vec::with_capacity(EXPERTS * TOTALS * VARIETIES);
        for expert in 0..EXPERTS {
            // Longer orders, more counts and less variety speak for an expert, until they have shown otherwise.
            let order = match expert {
                k if k < OWN_ORDERS.len() => OWN_ORDERS[k].min(6),
                k if k < ALL_FIRST + ALL_ORDERS.len() => ALL_ORDERS[k - ALL_FIRST],
                _ => 0,
            };
            for trust in 0..TOTALS * VARIETIES {
                let (much, varied) = (trust / VARIETIES, trust % VARIETIES);
                by_trust.push(0.5 * order as f32 + 0.3 * much as f32 - 0.3 * varied as f32 - 1.0);
            }
        }
        let by_depth = vec![0.0; EXPERTS * OWN_DEPTHS * ALL_DEPTHS];
        Self { by_trust, by_depth, weights: Vec::new(), shares: Shares::default(), rest: 1.0 }
    }
}

fn depth(e: &Evidence) -> usize {
    (e.own_depth * ALL_DEPTHS + e.all_depth) * EXPERTS
}

impl Blend {
    /// `user`: the user's own weights, none if there are none yet.
    pub(super) fn blend(&mut self, e: &Evidence, user: &[f32]) {
        let by_depth = &self.by_depth[depth(e)..][..EXPERTS];
        self.weights.clear();
        let mut highest = f32::MIN;
        for w in &e.witnesses {
            let own = user.get(w.expert).copied().unwrap_or(0.0);
            let z = self.by_trust[w.expert * TOTALS * VARIETIES + w.trust] + by_depth[w.expert] + own;
            highest = highest.max(z);
            self.weights.push(z);
        }
        let mut sum = 0.0;
        for z in &mut self.weights {
            *z = exp(*z - highest);
            sum += *z;
        }
        let Shares(shares) = &mut self.shares;
        shares.fill(0.0);
        for (w, weight) in e.witnesses.iter().zip(&mut self.weights) {
            *weight /= sum;
            let each = *weight / w.total;
            match w.expert.checked_sub(POPULAR) {
                Some(dense) => {
                    shares.iter_mut().zip(&e.dense[dense].0).for_each(|(p, count)| *p += each * count)
                }
                None => e.entries.of(w).for_each(|(slot, count)| shares[slot] += each * count),
            }
        }
        self.rest = (1.0 - fast::sum(&shares[..e.candidates.len()])).max(1e-6);
    }

    /// What an item is given that is no candidate.
    pub(super) fn share_of(&self, e: &Evidence, store: &Store, items: &Items, item: u32) -> f32 {
        e.witnesses.iter().zip(&self.weights).map(|(w, weight)| weight * e.share(store, items, w, item)).sum()
    }

    /// Learns what happened; `part` of a moment in which several things did.
    pub(super) fn learn(
        &mut self,
        e: &Evidence,
        store: &Store,
        items: &Items,
        item: u32,
        user: &mut [f32],
        part: f32,
    ) {
        let p = match e.slot(item) {
            Some(slot) => self.shares.0[usize::from(slot)],
            None => self.share_of(e, store, items, item),
        };
        let by_depth = &mut self.by_depth[depth(e)..][..EXPERTS];
        for (w, weight) in e.witnesses.iter().zip(&self.weights) {
            let better = part * weight * (e.share(store, items, w, item) / p.max(CHANCE_LEAST) - 1.0);
            self.by_trust[w.expert * TOTALS * VARIETIES + w.trust] += RATE_TRUST * better;
            by_depth[w.expert] += RATE_DEPTH * better;
            if let Some(own) = user.get_mut(w.expert) {
                *own += RATE_USER * better;
            }
        }
    }
}

const _: () = assert!(CHAIN_OWN + 1 == EXPERTS);
