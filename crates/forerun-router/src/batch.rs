//! What is learned of traffic, gathered for at most 20 ms and told in batches of at most 512 records.

use crate::core::Core;
use crate::service::Service;
use forerun_types::{ActionKey, Activity, Finished, Traffic};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

const EVERY: Duration = Duration::from_millis(20);
const RECORDS_MAX: usize = 512;
/// What may gather while the flusher does not get to run; beyond it records are lost and counted.
const PENDING_MAX: usize = 16 * RECORDS_MAX;

#[derive(Default)]
struct Pending {
    activities: Vec<Activity>,
    finished: Vec<Finished>,
    names: Vec<(ActionKey, String)>,
    /// Whose gauges have changed.
    services: Vec<Arc<Service>>,
    lost: u64,
}

impl Pending {
    fn records(&self) -> usize {
        self.activities.len() + self.finished.len()
    }

    fn is_empty(&self) -> bool {
        self.records() == 0 && self.names.is_empty() && self.services.is_empty() && self.lost == 0
    }
}

#[derive(Default)]
pub(crate) struct Batch {
    pending: Mutex<Pending>,
    some: Notify,
    full: Notify,
}

impl Batch {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, add: impl FnOnce(&mut Pending)) {
        let mut pending = self.lock();
        let was_empty = pending.is_empty();
        let before = pending.records();
        add(&mut pending);
        let is_full = before < RECORDS_MAX && pending.records() >= RECORDS_MAX;
        drop(pending);
        if was_empty {
            self.some.notify_one();
        }
        if is_full {
            self.full.notify_one();
        }
    }

    /// What was done, if it counts, and the name of what was done, if it has not been told.
    pub(crate) fn activity(&self, activity: Option<Activity>, action: ActionKey, name: Option<String>) {
        self.add(|pending| {
            if let Some(name) = name {
                pending.names.push((action, name));
            }
            match activity {
                Some(activity) if pending.records() < PENDING_MAX => pending.activities.push(activity),
                Some(_) => pending.lost += 1,
                None => {}
            }
        });
    }

    pub(crate) fn finished(&self, finished: Finished) {
        self.add(|pending| {
            if pending.records() < PENDING_MAX {
                pending.finished.push(finished);
            } else {
                pending.lost += 1;
            }
        });
    }

    /// A service whose gauges have changed since they were last told.
    pub(crate) fn changed(&self, service: Arc<Service>) {
        self.add(|pending| pending.services.push(service));
    }

    /// Tells what there is whenever there is something, until the task is aborted.
    pub(crate) async fn run(core: Arc<Core>) {
        loop {
            core.batch.some.notified().await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = core.batch.full.notified() => {}
            }
            core.batch.flush(&core);
        }
    }

    /// Called by one task at a time, or batches could overtake each other.
    pub(crate) fn flush(&self, core: &Core) {
        let mut pending = std::mem::take(&mut *self.lock());
        while !pending.is_empty() {
            let traffic = next_batch(core, &mut pending);
            let services = std::mem::take(&mut pending.services);
            if let Err(refused) = core.up.learning(traffic) {
                self.take_back(core, refused, pending, services);
                return;
            }
        }
    }

    /// No room: the records are lost, names and gauges are told with the next batch.
    fn take_back(&self, core: &Core, refused: Traffic, rest: Pending, services: Vec<Arc<Service>>) {
        let lost = (refused.activities.len() + refused.finished.len() + rest.records()) as u64;
        core.totals.lost.fetch_add(lost, Ordering::Relaxed);
        let untold = refused.services.iter().zip(services);
        let services: Vec<_> =
            untold.filter(|(load, service)| service.untold(load)).map(|(_, service)| service).collect();
        self.add(|pending| {
            pending.lost += refused.lost + rest.lost + lost;
            pending.names.extend(refused.action_names);
            pending.names.extend(rest.names);
            pending.services.extend(services);
        });
    }
}

/// Takes names, gauges and up to 512 records; what happened first goes first.
fn next_batch(core: &Core, pending: &mut Pending) -> Traffic {
    let activities = pending.activities.len().min(RECORDS_MAX);
    let finished = pending.finished.len().min(RECORDS_MAX - activities);
    let mut traffic = Traffic {
        router: core.id,
        activities: pending.activities.drain(..activities).collect(),
        finished: pending.finished.drain(..finished).collect(),
        action_names: std::mem::take(&mut pending.names),
        lost: std::mem::take(&mut pending.lost),
        ..Traffic::default()
    };
    for service in &pending.services {
        service.tell_loads(&mut traffic.services, &mut traffic.instances);
    }
    traffic
}
