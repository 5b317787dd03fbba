//! After what gaps are counted.

use super::super::history::History;
use super::super::store::join;
use super::bins::bin;

pub(super) const CONTEXTS: usize = 19;

/// A context: its key (0: there is none), whose it is (0: everyone's), and the total at which its counts are halved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) key: u64,
    pub(super) owner: u64,
    pub(super) fade: u32,
}

/// Habits of one user; of everyone, kept long; and of everyone lately, since on a shared service a busy hour is busy
/// for all. How short "lately" is was chosen on the earlier part of four sets, together with which contexts there are.
const OWN: u32 = 128;
const LONG: u32 = 20_000;
const LATELY: u32 = 300;

/// Everyone's gaps, from which all the others start.
pub(super) const ALL: Asked = Asked { key: 0x3e00, owner: 0, fade: LONG };

pub(super) fn contexts(user: u64, group: u64, h: &History) -> [Asked; CONTEXTS] {
    let step = |back: usize| if h.len() > back { u64::from(h.back(back)) + 1 } else { 0 };
    let (last, before) = (step(0), step(1));
    let octave = |gap: Option<i64>| gap.map_or(0, |gap| 1 + bin(gap) as u64 / 8);
    let (gap, gap_before) = (octave(h.gap_s), octave(h.gap_before_s));
    let part =
        |unit_s: i64, of: i64| h.last_s.map_or(0, |at| 1 + at.div_euclid(unit_s).rem_euclid(of) as u64);
    let (five_minutes, hour, day) = (part(300, 12), part(3_600, 24), part(86_400, 7));
    let key = |kind: u64, a: u64, b: u64| join(join(0x3e00 + kind, a), b);
    let all = |kind: u64, a: u64, b: u64, fade: u32| Asked { key: key(kind, a, b), owner: 0, fade };
    let own = |kind: u64, a: u64, b: u64| match user {
        0 => Asked::default(),
        _ => Asked { key: join(key(kind, a, b), user), owner: user, fade: OWN },
    };
    [
        own(1, 0, 0),
        own(2, last, 0),
        own(3, last, before),
        own(4, gap, 0),
        own(5, gap, last),
        own(6, hour, 0),
        all(7, last, 0, LONG),
        all(8, last, before, LONG),
        all(9, last, hour, LONG),
        all(10, last, join(hour, day), LONG),
        all(11, last, join(gap, before), LONG),
        all(12, gap, gap_before, LONG),
        if group == 0 { Asked::default() } else { all(13, group, last, LONG) },
        all(14, 0, 0, LATELY),
        all(15, gap, gap_before, LATELY),
        all(16, five_minutes, gap, LATELY),
        all(17, last, 0, 200),
        all(18, last, 0, 40),
        all(19, last, before, 60),
    ]
}
