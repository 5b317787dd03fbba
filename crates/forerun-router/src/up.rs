//! The way up: what a router tells the engine.

use forerun_types::{Event, ServiceId, Traffic};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Takes a router's messages. Called on the path of requests, with a service's lock held: it must neither block nor
/// call the router.
pub trait Up: Send + Sync {
    /// `Waiting`, `Abandoned`, `Quiesced`, `Unanswered`, `RouterJoined` and `RouterLeft`: must not be lost.
    fn control(&self, event: Event);

    /// What is learned of traffic.
    ///
    /// # Errors
    /// Gives the batch back when there is no room; its records are lost then, and counted.
    #[expect(clippy::result_large_err, reason = "to give the batch back is what the error is for")]
    fn learning(&self, traffic: Traffic) -> Result<(), Traffic>;
}

/// A way up within one process. At most `learning_max` batches wait in it; control events go before them.
#[must_use]
pub fn channel(learning_max: usize) -> (Arc<dyn Up>, UpReceiver) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        arrived: Notify::new(),
        arrived_blocking: Condvar::new(),
        learning_max,
    });
    (Arc::new(Sender(Arc::clone(&shared))), UpReceiver(shared))
}

/// So many control events are kept in full; of those beyond, the last `Waiting` or `Abandoned` of each service is,
/// which says all that the ones before it said.
const CONTROL_MAX: usize = 4_096;

#[derive(Default)]
struct Queue {
    control: VecDeque<Event>,
    latest: BTreeMap<ServiceId, Event>,
    learning: VecDeque<Traffic>,
    /// `RouterLeft`, which nothing may follow.
    farewell: Option<Event>,
    closed: bool,
}

impl Queue {
    fn push(&mut self, event: Event) {
        match event {
            Event::RouterLeft(_) => self.farewell = Some(event),
            Event::Waiting { service, .. } | Event::Abandoned { service, .. }
                if self.control.len() >= CONTROL_MAX || self.latest.contains_key(&service) =>
            {
                self.latest.insert(service, event);
            }
            _ => self.control.push_back(event),
        }
    }

    fn pop(&mut self) -> Option<Event> {
        self.control
            .pop_front()
            .or_else(|| self.latest.pop_first().map(|(_, event)| event))
            .or_else(|| self.learning.pop_front().map(Event::Traffic))
            .or_else(|| self.farewell.take())
    }
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
    arrived_blocking: Condvar,
    learning_max: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.arrived.notify_one();
        self.arrived_blocking.notify_one();
    }
}

struct Sender(Arc<Shared>);

impl Up for Sender {
    fn control(&self, event: Event) {
        self.0.lock().push(event);
        self.0.wake();
    }

    fn learning(&self, traffic: Traffic) -> Result<(), Traffic> {
        let mut queue = self.0.lock();
        if queue.learning.len() >= self.0.learning_max {
            return Err(traffic);
        }
        queue.learning.push_back(traffic);
        drop(queue);
        self.0.wake();
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake();
    }
}

/// The engine's end of a [`channel`], for async code and for a thread alike.
pub struct UpReceiver(Arc<Shared>);

impl std::fmt::Debug for UpReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpReceiver").finish_non_exhaustive()
    }
}

impl UpReceiver {
    /// The next event, or `None` when there is none yet.
    pub fn try_recv(&self) -> Option<Event> {
        self.0.lock().pop()
    }

    /// The next event; `None` when the router is gone and everything has been read. Safe to cancel.
    pub async fn recv(&self) -> Option<Event> {
        loop {
            {
                let mut queue = self.0.lock();
                if let Some(event) = queue.pop() {
                    return Some(event);
                }
                if queue.closed {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next event, waited for on this thread for at most `patience`.
    pub fn recv_timeout(&self, patience: Duration) -> Option<Event> {
        // No wait is so long that the sum overflows.
        let until = Instant::now() + patience.min(Duration::from_secs(86_400));
        let mut queue = self.0.lock();
        loop {
            if let Some(event) = queue.pop() {
                return Some(event);
            }
            let left = until.saturating_duration_since(Instant::now());
            if queue.closed || left.is_zero() {
                return None;
            }
            let waited = self.0.arrived_blocking.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{RouterId, UserKey};

    fn waiting(service: u32, waiting: u32) -> Event {
        let (router, user) = (RouterId(1), UserKey::NOBODY);
        Event::Waiting { router, service: ServiceId(service), user, waiting }
    }

    #[test]
    fn control_goes_first_and_farewell_last() {
        let (up, receiver) = channel(2);
        up.control(Event::RouterLeft(RouterId(1)));
        assert!(up.learning(Traffic::default()).is_ok());
        assert!(up.learning(Traffic::default()).is_ok());
        let lost = Traffic { lost: 7, ..Traffic::default() };
        assert_eq!(up.learning(lost.clone()), Err(lost), "a third batch has no room");
        up.control(waiting(1, 1));
        drop(up);
        let names: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).map(|e| e.name()).collect();
        assert_eq!(names, ["waiting", "traffic", "traffic", "router_left"]);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(5)), None, "closed, so it does not wait");
    }

    #[test]
    fn a_flood_keeps_the_last_word_of_each_service() {
        let (up, receiver) = channel(1);
        for n in 0..CONTROL_MAX as u32 * 3 {
            up.control(waiting(n % 2, n));
        }
        let events: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).collect();
        assert_eq!(events.len(), CONTROL_MAX + 2);
        let last = CONTROL_MAX as u32 * 3 - 1;
        assert_eq!(events[CONTROL_MAX..], [waiting(0, last - 1), waiting(1, last)]);
    }

    #[test]
    fn an_event_wakes_a_waiting_thread() {
        let (up, receiver) = channel(1);
        let reader = std::thread::spawn(move || receiver.recv_timeout(Duration::from_secs(20)));
        std::thread::sleep(Duration::from_millis(20));
        up.control(waiting(1, 1));
        assert_eq!(reader.join().expect("reader"), Some(waiting(1, 1)));
    }
}
