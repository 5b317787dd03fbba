//! What tells the keys of a table apart, and how much each would be missed: beside the slots, in few bytes, so that the
//! memory of a slot is touched only where it holds what is looked for.

use serde::{Deserialize, Serialize};

/// Slots in which a key may stand.
pub(super) const WINDOW: usize = 4;

/// What is told of four slots without a look at them: 16 bytes, so that all of them stay near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(align(16))]
pub(super) struct Window {
    /// [`mark`] of each slot's key, 0 for a free one.
    pub(super) marks: [u16; WINDOW],
    pub(super) worths: [Worth; WINDOW],
}

impl Window {
    /// The place for a new key: a free one, or that of the slot that would be missed least.
    #[inline]
    pub(super) fn room(&self, era: u32) -> usize {
        let (place, free) = place(self.marks, 0);
        if free {
            return place;
        }
        let worths = self.worths.iter().enumerate();
        worths.min_by_key(|(_, worth)| worth.now(era)).map_or(0, |(place, _)| place)
    }
}

/// Eras in which the table turns over once.
pub(super) const ERAS: u32 = 4;

/// How much a slot would be missed: in which era it was last counted in, and in the lowest bits how often it was, up to
/// 63 times. Eras are told apart up to 1,024: what was not counted in for so long is gone already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Worth(u16);

impl Worth {
    const COUNT_BITS: u32 = 6;
    const COUNT_MAX: u32 = (1 << Self::COUNT_BITS) - 1;

    pub(super) fn new(era: u32, total: u32) -> Self {
        Self((era << Self::COUNT_BITS) as u16 | total.min(Self::COUNT_MAX) as u16)
    }

    /// What was counted often and lately would be missed most. A halving of the count weighs as much as the table's
    /// turning over once.
    pub(super) fn now(self, era: u32) -> u32 {
        let then = u32::from(self.0) >> Self::COUNT_BITS;
        let age = era.wrapping_sub(then) & (u32::from(u16::MAX) >> Self::COUNT_BITS);
        ((u32::from(self.0) & Self::COUNT_MAX) << 16) / (age + ERAS)
    }
}

/// The place of a mark in a window, and whether it is there.
#[inline]
pub(super) fn place(marks: [u16; WINDOW], mark: u16) -> (usize, bool) {
    let [a, b, c, d] = marks.map(|held| held == mark);
    (usize::from(!a) * (1 + usize::from(!b) * (1 + usize::from(!c))), a | b | c | d)
}

/// What tells most keys of a window apart; never 0.
#[inline]
pub(super) fn mark(key: u64) -> u16 {
    ((key >> 48) as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_where_it_stands_first() {
        for (marks, sought, at) in [
            ([7, 8, 9, 0], 7, Some(0)),
            ([7, 8, 8, 0], 8, Some(1)),
            ([7, 8, 9, 9], 9, Some(2)),
            ([1; 4], 2, None),
        ] {
            let (found, there) = place(marks, sought);
            assert_eq!(there.then_some(found), at, "{sought} in {marks:?}");
        }
        assert_eq!(place([7, 8, 9, 0], 0), (3, true));
    }

    #[test]
    fn what_was_counted_seldom_or_long_ago_makes_way() {
        let worths = [(9, 40), (9, 1), (2, 30), (9, 2_000_000)].map(|(era, total)| Worth::new(era, total));
        let mut window = Window { marks: [1, 2, 3, 4], worths };
        assert_eq!(window.room(9), 1, "the rarest");
        window.worths[1] = Worth::new(9, 60);
        assert_eq!(window.room(9), 2, "the oldest");
        window.worths[2] = Worth::new(9 + 1_024, 30);
        assert_eq!(window.room(9 + 1_024), 2, "eras go round: all are new, and this is the rarest");
        window.marks[3] = 0;
        assert_eq!(window.room(9), 3, "a free one before all");
    }
}
