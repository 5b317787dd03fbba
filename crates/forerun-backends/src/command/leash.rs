//! What is told to a line that runs on another thread: to be stopped, sooner, or to let everything be.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by the keeper, which tells, and the thread that brings an instance up or down, which hears.
#[derive(Debug, Default)]
pub(super) struct Leash {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Ordered to stop, with patience until then.
    pub(super) stop: Option<Instant>,
    /// The backend ends: whatever runs goes on.
    pub(super) let_be: bool,
}

impl Leash {
    pub(super) fn told(&self) -> Told {
        *self.lock()
    }

    /// A later stop may only hasten.
    pub(super) fn stop(&self, until: Instant) {
        let mut told = self.lock();
        told.stop = Some(told.stop.map_or(until, |earlier| earlier.min(until)));
        self.changed.notify_all();
    }

    pub(super) fn let_be(&self) {
        self.lock().let_be = true;
        self.changed.notify_all();
    }

    /// Waits for so long, or until something else than `known` has been told.
    pub(super) fn wait(&self, pause: Duration, known: Told) -> Told {
        let (told, _) = self
            .changed
            .wait_timeout_while(self.lock(), pause, |told| *told == known)
            .unwrap_or_else(PoisonError::into_inner);
        *told
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
