//! Profiles: who does what next, and after how long.
//!
//! A first context model with back-off. The next service is predicted from the longest context seen (a user's last
//! two steps, the last one, the group's, everyone's, no context), each escaping to the next shorter one with the
//! chance `distinct / (total + distinct)`: method C of prediction by partial matching (A. Moffat, *Implementing the
//! PPM data compression scheme*, IEEE Trans. Comm. 38(11), 1990). Constant time per activity, one bounded table for
//! all contexts.

pub mod gaps;
pub mod table;

use forerun_types::{Activity, GroupKey, ServiceId, Time, UserKey};
use gaps::GapHistogram;
use serde::{Deserialize, Serialize};
use table::{Table, Worth, spread};

/// Followers that one context remembers; the rarest is replaced.
const FOLLOWERS: usize = 4;
/// Predictions that are handed on.
pub const NEXT_MAX: usize = 3;
/// Chances below this are not worth an expectation.
const CHANCE_LEAST: f64 = 0.05;
const CONTEXTS: usize = 6;
/// Share of the memory that goes to contexts; the rest holds users.
const CONTEXT_SHARE: f64 = 0.75;
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Context {
    /// Whose it is, so that it can be forgotten; nobody for shared ones.
    owner: UserKey,
    total: u16,
    followers: [(u32, u16); FOLLOWERS],
}

impl Worth for Context {
    fn worth(&self) -> u64 {
        u64::from(self.total)
    }
}

impl Context {
    /// Counts a follower; returns whether it was known here before.
    fn learn(&mut self, service: u32) -> bool {
        if self.total == u16::MAX {
            for follower in &mut self.followers {
                follower.1 /= 2;
            }
            self.total /= 2;
        }
        self.total += 1;
        let known = self.followers.iter().position(|f| f.1 > 0 && f.0 == service);
        let at = known.unwrap_or_else(|| {
            let rarest = (0..FOLLOWERS).min_by_key(|&i| self.followers[i].1).unwrap_or(0);
            self.followers[rarest] = (service, 0);
            rarest
        });
        self.followers[at].1 += 1;
        known.is_some()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    key: UserKey,
    last: Time,
    recent: [u32; 2],
    /// Where this user is expected; to be taken back at the next step.
    expected: [u32; NEXT_MAX],
}

impl Default for User {
    fn default() -> Self {
        Self { key: UserKey::NOBODY, last: Time::default(), recent: [NONE; 2], expected: [NONE; NEXT_MAX] }
    }
}

impl Worth for User {
    fn worth(&self) -> u64 {
        self.last.0
    }
}

/// A service that a user may need next, and how likely that is the next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Next {
    pub service: ServiceId,
    pub chance: f64,
}

/// What an activity changes in what is expected of its user.
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    /// Services at which the user is no longer expected.
    pub lapsed: [Option<ServiceId>; NEXT_MAX],
    /// Services at which the user is expected now.
    pub next: [Option<Next>; NEXT_MAX],
}

/// Everyone's profiles, within a bound on memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profiles {
    contexts: Table<Context>,
    users: Table<User>,
    /// By the service of the step before the gap.
    pub gaps: Vec<GapHistogram>,
    pub all_gaps: GapHistogram,
}

impl Profiles {
    #[must_use]
    pub fn new(memory_bytes_max: u64) -> Self {
        let bytes = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        let contexts = (bytes as f64 * CONTEXT_SHARE) as usize;
        Self {
            contexts: Table::new(contexts),
            users: Table::new(bytes - contexts),
            gaps: Vec::new(),
            all_gaps: GapHistogram::default(),
        }
    }

    /// Users known now.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Learns one activity of a known user; an activity older than the user's last one only counts, and moves nothing.
    pub fn activity(&mut self, activity: &Activity) -> Option<Outlook> {
        if !activity.user.is_known() {
            return None;
        }
        let service = activity.service.0;
        let user = self.users.entry(activity.user.0);
        if user.key != activity.user {
            *user = User { key: activity.user, ..User::default() };
        }
        let before = user.recent;
        let late = user.last > activity.at;
        let gap = activity.at.since(user.last);
        let first = before[0] == NONE;
        let lapsed = user.expected.map(|s| (s != NONE).then_some(ServiceId(s)));
        if !late {
            user.last = activity.at;
            user.recent = [service, before[0]];
        }
        let recent = user.recent;
        for key in context_keys(activity.user, activity.group, before) {
            let context = self.contexts.entry(key.hash);
            context.owner = key.owner;
            // Update exclusion: once a context knew what came, the shorter ones are not told. They then count in how
            // many places something is new, which is what a back-off needs to know.
            if context.learn(service) {
                break;
            }
        }
        if late {
            return None;
        }
        if !first {
            let at = before[0] as usize;
            if self.gaps.len() <= at {
                self.gaps.resize_with(at + 1, GapHistogram::default);
            }
            self.gaps[at].add(gap);
            self.all_gaps.add(gap);
        }
        let next = self.predict(activity.user, activity.group, recent);
        self.users.entry(activity.user.0).expected = next.map(|n| n.map_or(NONE, |n| n.service.0));
        Some(Outlook { lapsed, next })
    }

    /// The likeliest next services after `recent` (the last step first), likeliest first.
    fn predict(&self, user: UserKey, group: GroupKey, recent: [u32; 2]) -> [Option<Next>; NEXT_MAX] {
        let mut candidates: [(u32, f64); FOLLOWERS * CONTEXTS] = [(NONE, 0.0); FOLLOWERS * CONTEXTS];
        let mut len = 0;
        let mut left = 1.0;
        for key in context_keys(user, group, recent) {
            let Some(context) = self.contexts.get(key.hash).filter(|c| c.total > 0) else { continue };
            let distinct = context.followers.iter().filter(|f| f.1 > 0).count() as f64;
            let of = f64::from(context.total) + distinct;
            for &(service, count) in context.followers.iter().filter(|f| f.1 > 0) {
                let share = left * f64::from(count) / of;
                match candidates[..len].iter_mut().find(|c| c.0 == service) {
                    Some(candidate) => candidate.1 += share,
                    None => {
                        candidates[len] = (service, share);
                        len += 1;
                    }
                }
            }
            left *= distinct / of;
            if left < CHANCE_LEAST {
                break;
            }
        }
        let mut out = [None; NEXT_MAX];
        for slot in &mut out {
            let best = candidates[..len].iter_mut().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            let Some(best) = best.filter(|b| b.1 >= CHANCE_LEAST) else { break };
            *slot = Some(Next { service: ServiceId(best.0), chance: best.1 });
            best.1 = 0.0;
        }
        out
    }

    /// What the user's own profile says now; nothing is learned.
    #[must_use]
    pub fn next_of(&self, user: UserKey, group: GroupKey) -> [Option<Next>; NEXT_MAX] {
        match self.users.get(user.0) {
            Some(known) if known.key == user => self.predict(user, group, known.recent),
            _ => [None; NEXT_MAX],
        }
    }

    /// Drops a user's state and every context that is the user's own. What the group's and everyone's contexts have
    /// counted stays: sums without an identity.
    pub fn forget(&mut self, user: UserKey) -> [Option<ServiceId>; NEXT_MAX] {
        let expected = match self.users.get(user.0) {
            Some(known) if known.key == user => known.expected.map(|s| (s != NONE).then_some(ServiceId(s))),
            _ => [None; NEXT_MAX],
        };
        self.users.remove(user.0);
        self.contexts.retain(|c| c.owner != user);
        expected
    }
}

struct ContextKey {
    hash: u64,
    owner: UserKey,
}

/// The contexts of a user after `recent`, longest and most own first.
fn context_keys(user: UserKey, group: GroupKey, recent: [u32; 2]) -> impl Iterator<Item = ContextKey> {
    let [one, two] = recent.map(|s| u64::from(s) + 1);
    let keys: [(bool, u64, u64, u64, UserKey); CONTEXTS] = [
        (recent[1] != NONE, 1 ^ user.0, one, two, user),
        (recent[0] != NONE, 2 ^ user.0, one, 0, user),
        (group.0 != 0 && recent[0] != NONE, 3 ^ group.0, one, 0, UserKey::NOBODY),
        (recent[0] != NONE, 4, one, 0, UserKey::NOBODY),
        (true, 5 ^ user.0, 0, 0, user),
        (true, 6, 0, 0, UserKey::NOBODY),
    ];
    keys.into_iter().enumerate().filter(|(_, k)| k.0).map(|(kind, (_, base, one, two, owner))| ContextKey {
        hash: spread(spread(spread(base).wrapping_add(kind as u64)).wrapping_add(one))
            .wrapping_add(spread(two)),
        owner,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{ActionKey, SiteId, TenantKey};

    fn at(seconds: u64, user: u64, service: u32) -> Activity {
        Activity {
            at: Time(seconds * 1_000_000),
            tenant: TenantKey(0),
            user: UserKey(user),
            group: GroupKey(0),
            site: SiteId(0),
            service: ServiceId(service),
            action: ActionKey(0),
        }
    }

    #[test]
    fn a_habit_is_learned_in_a_few_rounds() {
        let mut profiles = Profiles::new(1 << 20);
        let mut last = None;
        for round in 0..10 {
            for (step, service) in [3, 1, 2].into_iter().enumerate() {
                last = profiles.activity(&at(100 * round + step as u64, 7, service));
            }
        }
        let next = last.unwrap().next[0].unwrap();
        assert_eq!(next.service, ServiceId(3));
        assert!(next.chance > 0.7, "{next:?}");
    }

    #[test]
    fn a_new_user_starts_from_everyone() {
        let mut profiles = Profiles::new(1 << 20);
        for user in 1..20 {
            for service in [1, 2] {
                profiles.activity(&at(user * 10 + u64::from(service), user, service));
            }
        }
        let outlook = profiles.activity(&at(1_000, 99, 1)).unwrap();
        assert_eq!(outlook.next[0].unwrap().service, ServiceId(2));
    }

    #[test]
    fn chances_of_one_step_sum_to_at_most_one() {
        let mut profiles = Profiles::new(1 << 20);
        let mut state = 1u64;
        for i in 0..5_000 {
            state = spread(state);
            let outlook = profiles.activity(&at(i, state % 5 + 1, (state >> 32) as u32 % 9)).unwrap();
            let sum: f64 = outlook.next.iter().flatten().map(|n| n.chance).sum();
            assert!(sum <= 1.0 + 1e-9, "{sum}");
        }
    }

    #[test]
    fn a_forgotten_user_leaves_nothing_of_their_own() {
        let mut profiles = Profiles::new(1 << 20);
        for round in 0..5 {
            profiles.activity(&at(round, 1, 4));
            profiles.activity(&at(round, 2, 5));
        }
        profiles.forget(UserKey(1));
        assert_eq!(profiles.next_of(UserKey(1), GroupKey(0)), [None; NEXT_MAX]);
        assert!(profiles.next_of(UserKey(2), GroupKey(0))[0].is_some());
        let mut owners = 0;
        profiles.contexts.retain(|c| {
            owners += usize::from(c.owner == UserKey(1));
            true
        });
        assert_eq!(owners, 0);
    }

    #[test]
    fn late_records_teach_and_move_nothing() {
        let mut profiles = Profiles::new(1 << 20);
        profiles.activity(&at(10, 1, 4));
        assert!(profiles.activity(&at(5, 1, 6)).is_none());
        assert_eq!(profiles.users.get(1).unwrap().recent[0], 4);
    }
}
