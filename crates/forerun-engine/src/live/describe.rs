//! Services that come, change and go while the engine runs.

use super::publish::{Published, View};
use forerun_router::Up;
use forerun_types::{Event, ServiceSpec};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Describes services to a running engine. Cheap to clone; what is told after the engine's end is lost.
#[derive(Clone)]
pub struct Describer {
    up: Arc<dyn Up>,
    published: Published,
    problems: Problems,
    /// Microseconds.
    drain_max: Arc<AtomicU64>,
}

impl std::fmt::Debug for Describer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Describer").finish_non_exhaustive()
    }
}

impl Describer {
    pub(super) fn new(
        up: Arc<dyn Up>,
        published: Published,
        problems: Problems,
        drain_max: Arc<AtomicU64>,
    ) -> Self {
        Self { up, published, problems, drain_max }
    }

    /// A new service, or one of the same name as it is now: what is known by that name keeps what was learned of it.
    /// The id in `spec` is not looked at.
    pub fn describe(&self, spec: Arc<ServiceSpec>) {
        self.drain_max.fetch_max(spec.drain_timeout.0, Ordering::Relaxed);
        self.up.control(Event::Service(spec));
    }

    /// A service is no longer described by anyone: its instances stop, and what was learned of it goes. Returns whether
    /// it was known; one that was described within the last second may not be yet.
    #[must_use]
    pub fn retire(&self, name: &str) -> bool {
        let named =
            |view: Option<&View>| view.and_then(|v| v.specs.iter().find(|s| s.name == name).map(|s| s.id));
        let id = self.published.with(named);
        if let Some(id) = id {
            self.up.control(Event::ServiceGone(id));
        }
        id.is_some()
    }

    /// The services that were found by themselves, as the engine knows them.
    #[must_use]
    pub fn found(&self) -> Vec<Arc<ServiceSpec>> {
        let found = |v: &View| v.specs.iter().filter(|s| s.found).map(Arc::clone).collect();
        self.published.with(|view| view.map(found)).unwrap_or_default()
    }

    /// What `status` tells of descriptions that cannot be used, and of what is odd and goes on all the same: one line
    /// each, whole each time.
    pub fn set_problems(&self, lines: Vec<String>, notices: Vec<String>) {
        self.problems.set(lines, notices);
    }
}

/// What cannot be used as it is described, and what is odd.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems(Arc<Mutex<(Vec<String>, Vec<String>)>>);

impl Problems {
    fn set(&self, lines: Vec<String>, notices: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (lines, notices);
    }

    pub(super) fn get(&self) -> (Vec<String>, Vec<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
