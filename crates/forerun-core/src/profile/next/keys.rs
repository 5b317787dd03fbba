//! The contexts of a moment: what they are and under which key each is counted.

use super::history::History;
use super::store::join;

/// A user's own contexts: what followed the last 0, 1, ... steps.
pub(super) const OWN_ORDERS: [usize; 10] = [0, 1, 2, 3, 4, 6, 8, 12, 18, 28];
/// The longest of them.
const DEPTH: usize = OWN_ORDERS[OWN_ORDERS.len() - 1];
/// Everyone's.
pub(super) const ALL_ORDERS: [usize; 6] = [0, 1, 2, 3, 4, 5];
/// Single steps, the last and further back: everyone's. All count into the same contexts, so that an item's followers
/// are what came within so many steps after it; how far each step is to be trusted is learned apart.
const LAGS: [usize; 7] = [1, 2, 3, 4, 5, 6, 7];

/// Contexts that are looked up.
pub(super) const LOOKED_UP: usize = OTHERS_FIRST + 15;
/// The first of everyone's.
pub(super) const ALL_FIRST: usize = OWN_ORDERS.len();
const LAG_FIRST: usize = ALL_FIRST + ALL_ORDERS.len();
const OTHERS_FIRST: usize = LAG_FIRST + LAGS.len();
/// The steps before the last.
pub(super) const LAGS_BACK: std::ops::Range<usize> = LAG_FIRST + 1..OTHERS_FIRST;
/// The place in the history.
pub(super) const PLACE: usize = OTHERS_FIRST;

/// When and who, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// 0 is nobody in particular: nothing of the user's own is looked at.
    pub user: u64,
    /// 0 is none.
    pub group: u64,
    /// Seconds since 1970, if there is a clock.
    pub at_s: Option<i64>,
    /// Seconds since the user's last step, if there is a clock and a step.
    pub gap_s: Option<i64>,
}

/// Whether a context is a user's own.
pub(super) fn is_own(k: usize) -> bool {
    k < ALL_FIRST || [7, 10, 11].contains(&k.wrapping_sub(OTHERS_FIRST))
}

/// What stands for the contexts after orders and lags.
const OTHERS: [&str; LOOKED_UP - OTHERS_FIRST] = [
    "place in the history",
    "place and last item",
    "set of items so far",
    "last and third last",
    "second and third last",
    "first and last item",
    "gap and last item",
    "user and gap",
    "gap and last two",
    "hour and last item",
    "user and hour",
    "user and set of items",
    "group",
    "group and last item",
    "group and last two",
];

/// What a context looks at.
pub(super) fn name(k: usize) -> String {
    match k {
        k if k < ALL_FIRST => format!("user's order {}", OWN_ORDERS[k]),
        k if k < LAG_FIRST => format!("everyone's order {}", ALL_ORDERS[k - ALL_FIRST]),
        k if k < OTHERS_FIRST => format!("what came soon after the step {} back", LAGS[k - LAG_FIRST]),
        k => OTHERS.get(k - OTHERS_FIRST).copied().unwrap_or_default().to_owned(),
    }
}

/// One key for each context; 0 where it does not apply.
pub(super) fn keys(asked: &Asked, h: &History) -> [u64; LOOKED_UP] {
    let mut keys = [0u64; LOOKED_UP];
    let own = join(asked.user, 0x0117);
    let mut chain = [0u64; DEPTH + 1];
    let depth = h.len().min(DEPTH);
    let mut hash = 0x51ed;
    for (i, slot) in chain.iter_mut().enumerate().take(depth + 1) {
        if i > 0 {
            hash = join(hash, u64::from(h.back(i - 1)) + 1);
        }
        *slot = hash;
    }
    for (k, order) in OWN_ORDERS.into_iter().enumerate() {
        if order <= depth && asked.user != 0 {
            keys[k] = join(own ^ chain[order], order as u64);
        }
    }
    for (k, order) in ALL_ORDERS.into_iter().enumerate() {
        if order <= depth {
            keys[ALL_FIRST + k] = join(chain[order], 0x0a00 + order as u64);
        }
    }
    for (k, lag) in LAGS.into_iter().enumerate() {
        if lag <= h.len() {
            keys[LAG_FIRST + k] = join(u64::from(h.back(lag - 1)), 0x1a00);
        }
    }
    others(asked, h, own, &mut keys[OTHERS_FIRST..]);
    keys
}

fn others(asked: &Asked, h: &History, own: u64, keys: &mut [u64]) {
    let last = if !h.is_empty() { u64::from(h.back(0)) + 1 } else { 0 };
    let before = if h.len() > 1 { u64::from(h.back(1)) + 1 } else { 0 };
    let third = if h.len() > 2 { u64::from(h.back(2)) + 1 } else { 0 };
    let known = asked.user != 0;
    let place = u64::from(h.seen().min(31));
    keys[0] = join(join(0x2001, place), 0);
    keys[1] = join(join(0x2002, place), last);
    keys[2] = if h.len() > 1 { join(0x2003, h.set()) } else { 0 };
    keys[3] = if third > 0 { join(join(0x2005, last), third) } else { 0 };
    keys[4] = if third > 0 { join(join(0x2006, before), third) } else { 0 };
    keys[5] = if !h.is_empty() { join(join(0x2007, u64::from(h.first())), last) } else { 0 };
    if let Some(gap) = asked.gap_s {
        let octave = u64::from(64 - (gap.max(0) as u64 * 2).leading_zeros());
        keys[6] = join(join(0x2008, octave), last);
        keys[7] = if known { join(join(own, octave), 0x2009) } else { 0 };
        keys[8] = join(join(0x200a, octave), join(last, before));
    }
    if let Some(at) = asked.at_s {
        let hour = at.div_euclid(3600).rem_euclid(24) as u64;
        keys[9] = join(join(0x200b, hour), last);
        keys[10] = if known { join(join(own, hour), 0x200c) } else { 0 };
    }
    keys[11] = if last > 0 && known { join(own ^ h.set(), 0x200d) } else { 0 };
    if asked.group != 0 {
        let group = join(asked.group, 0x200e);
        keys[12] = join(group, 0);
        keys[13] = if last > 0 { join(group, last) } else { 0 };
        keys[14] = if before > 0 { join(join(group, last), before) } else { 0 };
    }
}
