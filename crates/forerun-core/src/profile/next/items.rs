//! How often everyone has turned to each item.

use serde::{Deserialize, Serialize};

/// An item's count before it was seen, in a chain's last resort.
const POPULAR_PRIOR: f32 = 0.5;

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

    /// An item's share of all, in a chain's last resort.
    pub(super) fn share(&self, item: u32) -> f32 {
        (self.counts[item as usize] as f32 + POPULAR_PRIOR)
            / (self.total as f32 + POPULAR_PRIOR * self.distinct as f32).max(1.0)
    }
}
