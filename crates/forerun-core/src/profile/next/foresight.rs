//! Who does what next, and when, as one answer.

use super::{History, Predictor, When};
use serde::{Deserialize, Serialize};

/// Of the memory: what the times between steps get.
const WHEN_SHARE: f64 = 0.2;

/// What and when together, within one bound on memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Foresight {
    next: Predictor,
    when: When,
    #[serde(skip)]
    ranked: Vec<(u32, f64)>,
}

/// What a user does within some time, by their next step. All chances together are 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Nothing: the user does not come so soon, or never again.
    pub nothing: f64,
    /// Something that nobody has ever turned to.
    pub new: f64,
    /// The likeliest items, the likeliest first.
    pub items: Vec<(u32, f64)>,
    /// All other items together.
    pub others: f64,
}

impl Foresight {
    /// A model that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let when = (bytes_max as f64 * WHEN_SHARE) as usize;
        Self { next: Predictor::new(bytes_max - when), when: When::new(when), ranked: Vec::new() }
    }

    /// Learns that a user turned to an item. `at_s`: seconds since 1970.
    pub fn learn(&mut self, user: u64, group: u64, at_s: i64, item: u32) {
        match self.next.history(user) {
            Some(history) => self.when.learn(user, group, history, history.gap_to(Some(at_s))),
            None => self.when.learn(user, group, &History::default(), None),
        }
        self.next.learn(user, group, Some(at_s), item);
    }

    /// The chance that a user comes within so many seconds of `now_s`; of a user who was never seen it is 0: nobody
    /// says when strangers come.
    pub fn chance_of_coming(&mut self, user: u64, group: u64, now_s: i64, within_s: f64) -> f64 {
        let Some(history) = self.next.history(user) else { return 0.0 };
        let age_s = history.gap_to(Some(now_s)).unwrap_or(0);
        self.when.ask(user, group, history);
        self.when.chance(age_s as f64, within_s)
    }

    /// What a user does next, if within so many seconds of `now_s`.
    pub fn look(&mut self, user: u64, group: u64, now_s: i64, within_s: f64) -> Outlook {
        let comes = self.chance_of_coming(user, group, now_s, within_s);
        self.next.ask(user, group, Some(now_s));
        self.next.ranked(&mut self.ranked);
        let new = comes * self.next.chance_of_new();
        let items: Vec<(u32, f64)> = self.ranked.iter().map(|(item, p)| (*item, comes * p)).collect();
        let listed: f64 = items.iter().map(|(_, p)| p).sum();
        Outlook { nothing: 1.0 - comes, new, items, others: (comes - new - listed).max(0.0) }
    }

    /// The chance that a user needs a service within so many seconds of `now_s`, with the service's start time the
    /// chance that it should be started now. `actions`: the items that need it, each once. Only the user's next step
    /// counts, so it is a lower bound where many steps fall within that time.
    pub fn chance_of_need(
        &mut self,
        user: u64,
        group: u64,
        now_s: i64,
        within_s: f64,
        actions: &[u32],
    ) -> f64 {
        let comes = self.chance_of_coming(user, group, now_s, within_s);
        self.next.ask(user, group, Some(now_s));
        let seen = actions.iter().filter(|item| self.next.has_seen(**item));
        (comes * seen.map(|item| self.next.chance_of(*item)).sum::<f64>()).clamp(0.0, 1.0)
    }

    /// Drops all that is a user's own.
    pub fn forget(&mut self, user: u64) {
        self.next.forget(user);
        self.when.forget(user);
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.next.bytes() + self.when.bytes()
    }
}
