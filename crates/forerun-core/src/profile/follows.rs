//! What data an activity is followed by: of each key, what the same user asks for within the minute after it.
//!
//! Counted is how often a key was asked for, and how often each of its followers came at least once while it was fresh, as
//! the arcs of a dependency graph are (V. N. Padmanabhan, J. C. Mogul, *Using predictive prefetching to improve World Wide
//! Web latency*, ACM SIGCOMM CCR 26(3), 1996). Everything is bounded: users and keys by tables, followers of a key
//! by a newcomer taking one from the least counted, and its place once that has none left.

use super::table::{Table, Worth};
use forerun_types::{Span, Time};
use serde::{Deserialize, Serialize};

/// How long what follows counts as following.
const FRESH: Span = Span::from_secs(60);
/// Keys that are remembered of a user's last minute.
const RECENT: usize = 16;
/// Followers that are told apart of a key.
const FOLLOWERS: usize = 16;
/// Of a key asked for only once nothing is said.
const ASKED_LEAST: u16 = 2;
/// A key counts as asked for so many times more than it was, followed by nothing: few followers prove little.
const PRIOR: f64 = 1.0;
/// Counts are halved here, so that old habits fade.
const ASKED_MAX: u16 = 1_024;
/// One part in so many of the memory is for users' last minutes.
const USERS_SHARE: usize = 4;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Recent {
    /// Oldest first, each key once, as it was last asked for.
    asked: Vec<(Time, u64)>,
}

impl Worth for Recent {
    fn worth(&self) -> u64 {
        self.asked.last().map_or(0, |(at, _)| at.0)
    }

    fn heap_bytes() -> usize {
        RECENT * size_of::<(Time, u64)>()
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Followed {
    asked: u16,
    by: Vec<(u64, u16)>,
}

impl Worth for Followed {
    fn worth(&self) -> u64 {
        u64::from(self.asked)
    }

    fn heap_bytes() -> usize {
        FOLLOWERS * size_of::<(u64, u16)>()
    }
}

impl Followed {
    fn asked(&mut self) {
        self.asked += 1;
        if self.asked >= ASKED_MAX {
            self.asked /= 2;
            self.by.iter_mut().for_each(|(_, count)| *count /= 2);
        }
    }

    fn by(&mut self, key: u64) {
        if let Some((_, count)) = self.by.iter_mut().find(|(by, _)| *by == key) {
            *count = count.saturating_add(1);
        } else if self.by.len() < FOLLOWERS {
            self.by.push((key, 1));
        } else if let Some(least) = self.by.iter_mut().min_by_key(|(_, count)| *count) {
            match least.1 {
                0 | 1 => *least = (key, 1),
                _ => least.1 -= 1,
            }
        }
    }
}

/// What is asked for after what, learned as it is asked for. Users and keys are told apart by hashes, which are not 0,
/// within one tenant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Follows {
    users: Table<Recent>,
    keys: Table<Followed>,
}

/// A key that may be asked for next, and the chance that it is, within a minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likely {
    pub key: u64,
    pub chance: f64,
}

impl Follows {
    /// Takes at most about so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let users = bytes_max / USERS_SHARE;
        Self { users: Table::new(users), keys: Table::new(bytes_max - users) }
    }

    /// A user asks for a key: learns from it, and appends what the user is likely to ask for next and has not asked for
    /// in the last minute, the likeliest first, at a chance of `least` or more.
    pub fn asked(&mut self, user: u64, key: u64, at: Time, least: f64, likely: &mut Vec<Likely>) {
        let asked = &mut self.users.entry(user).asked;
        asked.retain(|(then, _)| at.since(*then) <= FRESH);
        let before = asked.iter().position(|(_, recent)| *recent == key);
        // Those before its last time have had it as a follower already.
        for (_, recent) in &asked[before.map_or(0, |at| at + 1)..] {
            self.keys.entry(*recent).by(key);
        }
        match before {
            Some(before) => drop(asked.remove(before)),
            None => {
                if asked.len() == RECENT {
                    asked.remove(0);
                }
                self.keys.entry(key).asked();
            }
        }
        asked.push((at, key));
        let Some(followed) = self.keys.get(key).filter(|followed| followed.asked >= ASKED_LEAST) else {
            return;
        };
        let first = likely.len();
        let times = f64::from(followed.asked) + PRIOR;
        let chances = followed
            .by
            .iter()
            .map(|(key, count)| Likely { key: *key, chance: (f64::from(*count) / times).min(1.0) });
        likely.extend(
            chances.filter(|l| l.chance >= least && asked.iter().all(|(_, recent)| *recent != l.key)),
        );
        likely[first..].sort_by(|a, b| b.chance.total_cmp(&a.chance).then(a.key.cmp(&b.key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 1;

    fn at(seconds: u64) -> Time {
        Time((1_000 + seconds) * 1_000_000)
    }

    fn likely(follows: &mut Follows, user: u64, key: u64, seconds: u64) -> Vec<(u64, u32)> {
        let mut likely = Vec::new();
        follows.asked(user, key, at(seconds), 0.3, &mut likely);
        likely.into_iter().map(|l| (l.key, (l.chance * 100.0) as u32)).collect()
    }

    /// Guarantee: what followed a key nine times of nine and five of nine is told in that order, to users who have not
    /// got it yet; what came later than a minute, or of another user, does not count.
    #[test]
    fn a_page_is_followed_by_its_assets() {
        let mut follows = Follows::new(1 << 20);
        for user in 1..10 {
            let begin = user * 1_000;
            likely(&mut follows, user, PAGE, begin);
            likely(&mut follows, user, 2, begin + 1);
            // Again: that is no second follower.
            likely(&mut follows, user, 2, begin + 2);
            if user < 6 {
                likely(&mut follows, user, 3, begin + 59);
            }
            likely(&mut follows, user, 4, begin + 61);
            likely(&mut follows, user + 100, 5, begin + 1);
        }
        assert_eq!(likely(&mut follows, 50, PAGE, 20_000), [(2, 81), (3, 45)]);
        // Who has one of them is told the other.
        likely(&mut follows, 51, 2, 30_000);
        assert_eq!(likely(&mut follows, 51, PAGE, 30_001), [(3, 41)]);
    }

    #[test]
    fn of_what_was_asked_for_once_nothing_is_said() {
        let mut follows = Follows::new(1 << 20);
        likely(&mut follows, 1, PAGE, 0);
        likely(&mut follows, 1, 2, 1);
        assert_eq!(likely(&mut follows, 2, 7, 100), []);
        assert_eq!(likely(&mut follows, 2, PAGE, 101), [(2, 33)]);
    }

    #[test]
    fn no_user_and_no_key_has_more_than_its_share() {
        let mut follows = Follows::new(1 << 16);
        for n in 0..20_000 {
            likely(&mut follows, n % 3 + 1, n % 700 + 1, n / 100);
        }
        assert!(follows.users.get(1).is_some_and(|recent| recent.asked.len() <= RECENT));
        let most = (1..701).filter_map(|key| follows.keys.get(key)).map(|f| (f.by.len(), f.asked)).max();
        assert!(most.is_some_and(|(by, _)| by <= FOLLOWERS), "{most:?}");
    }
}
