//! What has followed one context: eight followers at most.

/// Followers of a context.
pub(super) const FOLLOWERS: usize = 8;
/// A count that reaches this halves its context's counts.
const COUNT_MAX: u8 = 250;

/// A context, in one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(align(64))]
pub(super) struct Cell {
    /// 0 is free.
    pub(super) key: u64,
    /// The most frequent first.
    pub(super) items: [u32; FOLLOWERS],
    /// 0: no follower.
    pub(super) counts: [u8; FOLLOWERS],
    /// Whose own context it is ([`owner`]); 0 is everyone's.
    pub(super) owner: u32,
}

impl Cell {
    pub(super) fn total(&self) -> u32 {
        self.counts.iter().map(|n| u32::from(*n)).sum()
    }

    /// How often an item followed.
    pub(super) fn held(&self, item: u32) -> u8 {
        let pairs = self.items.iter().zip(&self.counts);
        pairs.map(|(i, n)| if *i == item { *n } else { 0 }).max().unwrap_or(0)
    }

    pub(super) fn count(&mut self, item: u32) {
        let at = (0..FOLLOWERS).find(|i| self.counts[*i] == 0 || self.items[*i] == item);
        let mut at = at.unwrap_or_else(|| {
            // The rarest makes way once its count is used up.
            self.counts[FOLLOWERS - 1] /= 2;
            FOLLOWERS - 1
        });
        if self.counts[at] > 0 && self.items[at] != item {
            return;
        }
        self.items[at] = item;
        self.counts[at] += 1;
        if self.counts[at] >= COUNT_MAX {
            self.counts.iter_mut().for_each(|n| *n /= 2);
        }
        while at > 0 && self.counts[at - 1] < self.counts[at] {
            self.counts.swap(at - 1, at);
            self.items.swap(at - 1, at);
            at -= 1;
        }
    }
}
