//! Profiles: who does what next, and after how long.
//!
//! A first context model with back-off. The next service is predicted from the longest context that has been seen: the
//! user's last two steps in the user's own history, the last one, then the last step in the group's and in everyone's,
//! the user's own favourites, everyone's. Each escapes to the next with the chance `distinct / (total + distinct)`:
//! method C of prediction by partial matching (A. Moffat, *Implementing the PPM data compression scheme*, IEEE Trans.
//! Comm. 38(11), 1990). A user's contexts are read from the last steps themselves; what is shared is counted in one
//! bounded table. Constant time per activity.

mod counts;
pub mod follows;
pub mod gaps;
pub mod keys;
pub mod next;
pub mod table;

use counts::Counts;
use forerun_types::{Activity, GroupKey, ServiceId, Time, UserKey};
use gaps::GapHistogram;
use serde::{Deserialize, Serialize};
use table::{Table, Worth, spread};

/// Predictions that are handed on.
pub const NEXT_MAX: usize = 3;
/// Chances below this are not worth an expectation.
const CHANCE_LEAST: f64 = 0.05;
/// Steps of a user that are remembered: enough for a few rounds of a habit, three cache lines.
const STEPS: usize = 32;
/// Share of the memory that goes to shared contexts; the rest holds users.
const CONTEXT_SHARE: f64 = 0.25;
const NONE: u32 = u32::MAX;

/// What has followed a context that is nobody's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Context {
    followers: Counts,
}

impl Worth for Context {
    fn worth(&self) -> u64 {
        u64::from(self.followers.total())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct User {
    key: UserKey,
    last: Time,
    /// The last steps, oldest first.
    steps: Vec<u32>,
    /// Where this user is expected; to be taken back at the next step.
    expected: [u32; NEXT_MAX],
}

impl Default for User {
    fn default() -> Self {
        Self { key: UserKey::NOBODY, last: Time::default(), steps: Vec::new(), expected: [NONE; NEXT_MAX] }
    }
}

impl Worth for User {
    fn worth(&self) -> u64 {
        self.last.0
    }

    fn heap_bytes() -> usize {
        STEPS * size_of::<u32>()
    }
}

impl User {
    fn step(&mut self, service: u32) {
        if self.steps.capacity() == 0 {
            self.steps.reserve_exact(STEPS);
        }
        if self.steps.len() == STEPS {
            self.steps.remove(0);
        }
        self.steps.push(service);
    }

    fn last_step(&self) -> Option<u32> {
        self.steps.last().copied()
    }

    /// What has followed the last two steps, and the last one, in the user's own history.
    fn followers(&self) -> [Counts; 2] {
        let [mut two, mut one] = [Counts::default(), Counts::default()];
        let (Some(last), before) =
            (self.last_step(), self.steps.len().checked_sub(2).map(|at| self.steps[at]))
        else {
            return [two, one];
        };
        for (at, pair) in self.steps.windows(2).enumerate().filter(|(_, pair)| pair[0] == last) {
            one.add(pair[1]);
            if at > 0 && Some(self.steps[at - 1]) == before {
                two.add(pair[1]);
            }
        }
        [two, one]
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

    /// Learns one activity of a known user. One that is older than the user's last teaches nothing: its place in the
    /// order is not known any more.
    pub fn activity(&mut self, activity: &Activity) -> Option<Outlook> {
        if !activity.user.is_known() {
            return None;
        }
        let service = activity.service.0;
        let user = self.users.entry(activity.user.0);
        if user.key != activity.user {
            *user = User { key: activity.user, ..User::default() };
        }
        if user.last > activity.at {
            return None;
        }
        let gap = activity.at.since(std::mem::replace(&mut user.last, activity.at));
        let lapsed = user.expected.map(|s| (s != NONE).then_some(ServiceId(s)));
        let before = user.last_step();
        let known = before.is_some_and(|before| user.steps.windows(2).any(|pair| pair == [before, service]));
        user.step(service);
        let own = user.followers();
        if let Some(before) = before {
            let at = before as usize;
            if self.gaps.len() <= at {
                self.gaps.resize_with(at + 1, GapHistogram::default);
            }
            self.gaps[at].add(gap);
            self.all_gaps.add(gap);
        }
        // Update exclusion: what the user's own history foretold is not told to the shared contexts. They then count
        // in how many places something is new, which is what a back-off needs to know.
        if !known {
            for key in shared_keys(activity.group, before) {
                if self.contexts.entry(key).followers.add(service) {
                    break;
                }
            }
        }
        let next = self.predict(activity.user, &own, activity.group, Some(service));
        self.users.entry(activity.user.0).expected = next.map(|n| n.map_or(NONE, |n| n.service.0));
        Some(Outlook { lapsed, next })
    }

    /// The likeliest next services, likeliest first.
    fn predict(
        &self,
        user: UserKey,
        own: &[Counts; 2],
        group: GroupKey,
        last: Option<u32>,
    ) -> [Option<Next>; NEXT_MAX] {
        let mut mix = counts::Mix::default();
        mix.take(&own[0]);
        mix.take(&own[1]);
        for key in shared_keys(group, last) {
            if mix.left() < CHANCE_LEAST {
                break;
            }
            if let Some(context) = self.contexts.get(key) {
                mix.take(&context.followers);
            }
        }
        if mix.left() >= CHANCE_LEAST
            && let Some(user) = self.users.get(user.0)
        {
            mix.take(&Counts::of(&user.steps));
        }
        let mut out = [None; NEXT_MAX];
        for slot in &mut out {
            let Some((service, chance)) = mix.pop_best(CHANCE_LEAST) else { break };
            *slot = Some(Next { service: ServiceId(service), chance });
        }
        out
    }

    /// What the user's own profile says now; nothing is learned.
    #[must_use]
    pub fn next_of(&self, user: UserKey, group: GroupKey) -> [Option<Next>; NEXT_MAX] {
        match self.users.get(user.0) {
            Some(known) if known.key == user => {
                self.predict(user, &known.followers(), group, known.last_step())
            }
            _ => [None; NEXT_MAX],
        }
    }

    /// Drops a user's profile. What the group's and everyone's contexts have counted stays: sums without an identity.
    pub fn forget(&mut self, user: UserKey) {
        self.users.remove(user.0);
    }
}

/// The shared contexts after a step, the narrower first.
fn shared_keys(group: GroupKey, last: Option<u32>) -> impl Iterator<Item = u64> {
    let after = last.map_or(0, |s| u64::from(s) + 1);
    let group = (group.0 != 0 && last.is_some()).then(|| spread(spread(group.0).wrapping_add(after)) | 1);
    let everyone = last.map(|_| spread(after) & !1);
    group.into_iter().chain(everyone).chain([EVERYTHING])
}

/// The key of the empty context.
const EVERYTHING: u64 = 2;

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
        let mut never = Profiles::new(1 << 20);
        for round in 0..5 {
            never.activity(&at(round, 2, 5));
        }
        assert_eq!(profiles.users(), never.users());
        assert_eq!(profiles.next_of(UserKey(2), GroupKey(0))[0].unwrap().service, ServiceId(5));
    }

    #[test]
    fn late_records_move_nothing() {
        let mut profiles = Profiles::new(1 << 20);
        profiles.activity(&at(10, 1, 4));
        assert!(profiles.activity(&at(5, 1, 6)).is_none());
        assert_eq!(profiles.users.get(1).unwrap().steps, [4]);
    }
}
