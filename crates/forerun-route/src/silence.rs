//! Whether an instance answers: what one router knows of tries in a row that got nothing from it.
//!
//! A router that gets no answer leaves the instance alone and dials it, but only the decision core can replace it. What
//! it goes by is told from here: how many tries have failed in a row, and for how long. Any answer that begins ends
//! the row, and while one is on its way nothing counts: an instance that streams is in use, however its other requests
//! fare.

use forerun_types::{Span, Time};

/// Tries that are further apart than that are no row: nobody has asked in between.
const APART_MAX: Span = Span::from_secs(300);
/// A client that has waited for less than that and goes away says nothing of the instance.
const WAITED_LEAST: Span = Span::from_secs(10);
/// So many are told each; of those beyond, one at a time within [`TOLD_EVERY`].
const TOLD_EACH: u32 = 8;
const TOLD_EVERY: Span = Span::from_millis(500);

/// What of an answer a request had when it left its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Its beginning, which [`crate::Queue::answers`] has been told of.
    Begun,
    /// None, by the instance's fault: it closed the connection, or let the time pass. It had the request since then.
    Failed { since: Time },
    /// None: its client went away.
    Left { since: Time },
    /// Nothing was asked of it, or the client did not send what it asked.
    NotAsked,
}

/// A row of tries without an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// Answers that have begun and not ended.
    answering: u32,
    pub(crate) tries: u32,
    pub(crate) left: u32,
    since: Time,
    last: Time,
    /// When the engine was told last.
    told: Option<Time>,
}

impl Silence {
    /// How long nothing has come.
    pub(crate) fn lasts(&self) -> Span {
        self.last.since(self.since)
    }

    /// A try that began at `since` has failed; says whether the engine is to be told.
    pub(crate) fn failed(&mut self, since: Time, client_left: bool, now: Time) -> bool {
        if self.answering > 0 || client_left && now.since(since) < WAITED_LEAST {
            return false;
        }
        if self.tries == 0 || since.since(self.last) > APART_MAX {
            *self = Self { since, told: self.told, ..Self::default() };
        }
        // Several at a time may end in another order than they began.
        (self.since, self.last) = (self.since.min(since), now);
        self.tries = self.tries.saturating_add(1);
        self.left = self.left.saturating_add(u32::from(client_left));
        let tells = self.tries <= TOLD_EACH || self.told.is_none_or(|at| now.since(at) >= TOLD_EVERY);
        if tells {
            self.told = Some(now);
        }
        tells
    }

    /// An answer has begun; says whether the engine was told that none came.
    pub(crate) fn answers(&mut self) -> bool {
        let told = self.told.is_some();
        *self = Self { answering: self.answering + 1, ..Self::default() };
        told
    }

    /// An answer that had begun has ended.
    pub(crate) fn answered(&mut self) {
        self.answering = self.answering.saturating_sub(1);
    }

    /// It is reached anew: what was before says nothing.
    pub(crate) fn forget(&mut self) {
        *self = Self { answering: self.answering, ..Self::default() };
    }

    /// Whether the engine is to hear of it again, which has lost sight of this router.
    pub(crate) fn is_told(&self) -> bool {
        self.told.is_some() && self.tries > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time(secs * 1_000_000)
    }

    #[test]
    fn a_row_is_counted_until_an_answer_begins() {
        let mut silence = Silence::default();
        assert!(silence.failed(at(10), false, at(40)));
        assert!(silence.failed(at(5), true, at(41)), "it began before the first");
        assert_eq!((silence.tries, silence.left, silence.lasts()), (2, 1, Span::from_secs(36)));
        assert!(silence.answers());
        assert!(!silence.failed(at(42), false, at(43)), "it answers somebody");
        assert!(!silence.answers(), "nothing was told since");
        silence.answered();
        assert!(!silence.failed(at(42), false, at(44)));
        silence.answered();
        assert!(silence.failed(at(50), false, at(51)));
        assert_eq!((silence.tries, silence.lasts()), (1, Span::from_secs(1)));
    }

    #[test]
    fn what_is_far_apart_is_no_row_and_the_impatient_say_nothing() {
        let mut silence = Silence::default();
        assert!(!silence.failed(at(10), true, at(19)));
        assert!(silence.failed(at(10), true, at(20)));
        assert!(silence.failed(at(320), false, at(321)));
        assert_eq!(silence.tries, 2);
        assert!(silence.failed(at(622), false, at(623)));
        assert_eq!((silence.tries, silence.left, silence.lasts()), (1, 0, Span::from_secs(1)));
    }

    #[test]
    fn a_flood_is_told_now_and_then() {
        let mut silence = Silence::default();
        let told = (0..1_000).filter(|n| silence.failed(Time(n * 1_000), false, Time(n * 1_000))).count();
        assert_eq!(told, TOLD_EACH as usize + 1);
        assert_eq!(silence.tries, 1_000);
    }
}
