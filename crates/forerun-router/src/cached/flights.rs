//! One fetch for many who ask for the same at a time.
//!
//! The first is sent, the others wait until its answer is whole, and no longer than the service's `cache.wait`. What turns out to
//! be no answer for others is remembered for a while: nobody waits for the like again.

use forerun_types::{Span, Time};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How long what cannot be shared is remembered.
const REMEMBERED: Span = Span::from_secs(30);
/// Places of what is remembered; two keys in one place forget each other.
const PLACES: usize = 1 << 12;

#[derive(Debug)]
pub(crate) struct Flights {
    open: Mutex<HashMap<u64, watch::Receiver<()>>>,
    /// Pairs of a key's hash and until when it is not waited for, in microseconds. Torn pairs cost a wait.
    apart: Box<[(AtomicU64, AtomicU64)]>,
}

/// What a request is in a flight.
pub(crate) enum Join {
    Lead(Leader),
    Follow(Follower),
    /// The last answer of this key was for its request alone.
    Alone,
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self { open: Mutex::default(), apart: (0..PLACES).map(|_| <_>::default()).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, watch::Receiver<()>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, key: u64) -> &(AtomicU64, AtomicU64) {
        &self.apart[key as usize & (PLACES - 1)]
    }

    pub(crate) fn join(self: &Arc<Self>, key: u64, now: Time) -> Join {
        let (hash, until) = self.place(key);
        if hash.load(Ordering::Relaxed) == key && now.0 < until.load(Ordering::Relaxed) {
            return Join::Alone;
        }
        let mut open = self.lock();
        if let Some(over) = open.get(&key) {
            return Join::Follow(Follower(over.clone()));
        }
        let (landed, over) = watch::channel(());
        open.insert(key, over);
        Join::Lead(Leader { flights: Arc::clone(self), key, _landed: landed })
    }
}

/// Who fetches for all. Dropped, the flight is over.
#[derive(Debug)]
pub(crate) struct Leader {
    flights: Arc<Flights>,
    key: u64,
    _landed: watch::Sender<()>,
}

impl Leader {
    /// The answer is for this request alone.
    pub(crate) fn apart(self, now: Time) {
        let (hash, until) = self.flights.place(self.key);
        until.store((now + REMEMBERED).0, Ordering::Relaxed);
        hash.store(self.key, Ordering::Relaxed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

/// Who waits for a leader.
pub(crate) struct Follower(watch::Receiver<()>);

impl Follower {
    /// Whether it was over in time.
    pub(crate) async fn wait(mut self, most: Span) -> bool {
        tokio::time::timeout(most.into(), async { while self.0.changed().await.is_ok() {} }).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_follow_go_on_when_their_leader_has_ended_however_it_did() {
        let flights = Arc::new(Flights::new());
        let now = Time(1);
        let Join::Lead(leader) = flights.join(7, now) else { panic!("the first leads") };
        let Join::Follow(follower) = flights.join(7, now) else { panic!("the second follows") };
        let Join::Lead(_other) = flights.join(8, now) else { panic!("another key is another flight") };
        let waits = tokio::spawn(follower.wait(Span::from_secs(60)));
        drop(leader);
        assert!(waits.await.unwrap());
        let Join::Lead(_leader) = flights.join(7, now) else { panic!("the flight is over") };
        let Join::Follow(follower) = flights.join(7, now) else { panic!("there is a new one") };
        assert!(!follower.wait(Span::from_millis(5)).await, "a leader that never ends is not waited for");
    }

    #[test]
    fn what_cannot_be_shared_is_not_waited_for() {
        let flights = Arc::new(Flights::new());
        let Join::Lead(leader) = flights.join(7, Time(1)) else { panic!("the first leads") };
        leader.apart(Time(1));
        assert!(matches!(flights.join(7, Time(2)), Join::Alone));
        assert!(matches!(flights.join(7, Time(1) + REMEMBERED), Join::Lead(_)), "it is tried again");
    }
}
