//! Which key a user brings to a service that specialises: the last one, which is the habit of most.

use super::table::{Table, Worth, spread};
use forerun_types::{ServiceId, Time, UserKey};
use serde::{Deserialize, Serialize};

/// About fifteen thousand users; those who were longest away make way.
const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Habit {
    user: UserKey,
    parent: ServiceId,
    variant: ServiceId,
    last: Time,
}

impl Worth for Habit {
    fn worth(&self) -> u64 {
        self.last.0
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyHabits {
    habits: Table<Habit>,
}

impl Default for KeyHabits {
    fn default() -> Self {
        Self { habits: Table::new(BYTES_MAX) }
    }
}

fn place(user: UserKey, parent: ServiceId) -> u64 {
    spread(user.0 ^ spread(u64::from(parent.0) + 1))
}

impl KeyHabits {
    /// A user was at a variant of a service.
    pub fn note(&mut self, user: UserKey, parent: ServiceId, variant: ServiceId, at: Time) {
        if user.is_known() {
            *self.habits.entry(place(user, parent)) = Habit { user, parent, variant, last: at };
        }
    }

    /// Where a user who comes to a service will be: at the variant of the user's last key, or at the service itself.
    #[must_use]
    pub fn of(&self, user: UserKey, parent: ServiceId) -> ServiceId {
        if self.habits.is_empty() {
            return parent; // as in every world without keys
        }
        let habit = self.habits.get(place(user, parent));
        habit.filter(|h| h.user == user && h.parent == parent).map_or(parent, |h| h.variant)
    }

    /// A variant is gone: its id may stand for another key later.
    pub fn gone(&mut self, variant: ServiceId) {
        self.habits.retain(|h| h.variant != variant);
    }

    pub fn forget(&mut self, user: UserKey) {
        self.habits.retain(|h| h.user != user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_key_counts_until_its_variant_or_the_user_is_gone() {
        let [shop, red, blue] = [ServiceId(0), ServiceId(1), ServiceId(2)];
        let (anna, bob) = (UserKey(7), UserKey(8));
        let mut habits = KeyHabits::default();
        assert_eq!(habits.of(anna, shop), shop);
        habits.note(anna, shop, red, Time(1));
        habits.note(bob, shop, red, Time(1));
        habits.note(anna, shop, blue, Time(2));
        assert_eq!((habits.of(anna, shop), habits.of(bob, shop)), (blue, red));
        habits.gone(red);
        assert_eq!((habits.of(anna, shop), habits.of(bob, shop)), (blue, shop));
        habits.forget(anna);
        assert_eq!(habits.of(anna, shop), shop);
        habits.note(UserKey::NOBODY, shop, red, Time(3));
        assert_eq!(habits.of(UserKey::NOBODY, shop), shop);
    }
}
