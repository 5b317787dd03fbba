//! The view of the core that the outside may read: made by the engine's thread, swapped in whole.

use super::keys;
use crate::invariants::Rule;
use crate::meter::ServiceTotals;
use crate::ports::{Backends, Clock, Disk, Routers};
use crate::shell::{JournalState, Shell};
use arc_swap::ArcSwap;
use forerun_core::{ServiceStatus, SiteStatus};
use forerun_types::{ServiceId, ServiceSpec, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A view is made at most so often,
const EVERY_LEAST: Duration = Duration::from_millis(200);
/// and takes at most this part of the engine's time.
const SHARE: u32 = 50;

#[derive(Clone, Debug)]
pub struct View {
    pub at: Time,
    /// Those that are variants of none, with what their variants have counted in.
    pub services: Vec<ServiceStatus>,
    /// Variants, by their parents.
    pub keys: BTreeMap<ServiceId, Vec<ServiceStatus>>,
    /// Their descriptions, in the same order.
    pub specs: Vec<Arc<ServiceSpec>>,
    /// The first one first.
    pub sites: Vec<SiteStatus>,
    pub totals: BTreeMap<ServiceId, ServiceTotals>,
    pub journal: JournalState,
    /// How often each rule of what always holds was broken.
    pub violations: BTreeMap<Rule, u64>,
}

impl View {
    /// Where a service's instances are.
    #[must_use]
    pub fn site_name<'a>(&'a self, spec: &'a ServiceSpec) -> &'a str {
        let first = || self.sites.first().map_or("", |site| &site.name);
        spec.launch.site().unwrap_or_else(first)
    }
}

/// The newest view; `None` before the first.
#[derive(Clone, Debug)]
pub struct Published(Arc<ArcSwap<Option<View>>>);

impl Published {
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.0.load().as_ref().clone()
    }

    /// Reads the newest view without copying it.
    pub fn with<T>(&self, read: impl FnOnce(Option<&View>) -> T) -> T {
        read(self.0.load().as_ref().as_ref())
    }
}

pub(super) struct Publisher {
    to: Arc<ArcSwap<Option<View>>>,
    last: Option<Instant>,
    took: Duration,
}

pub(super) fn channel() -> (Publisher, Published) {
    let shared = Arc::new(ArcSwap::from_pointee(None));
    (Publisher { to: Arc::clone(&shared), last: None, took: Duration::ZERO }, Published(shared))
}

impl Publisher {
    pub(super) fn publish<C: Clock, D: Disk, B: Backends, R: Routers>(&mut self, shell: &Shell<C, D, B, R>) {
        let pause = EVERY_LEAST.max(self.took * SHARE);
        if self.last.is_none_or(|last| last.elapsed() >= pause) {
            self.publish_now(shell);
        }
    }

    pub(super) fn publish_now<C: Clock, D: Disk, B: Backends, R: Routers>(
        &mut self,
        shell: &Shell<C, D, B, R>,
    ) {
        let began = Instant::now();
        let (services, keys) = keys::gathered(shell.core().services());
        let view = View {
            at: shell.now(),
            services,
            keys,
            specs: shell.core().specs().filter(|s| s.variant.is_none()).map(Arc::clone).collect(),
            sites: shell.core().sites().collect(),
            totals: keys::totals(shell.meter().totals(shell.now()), |id| shell.core().elder_of(id)),
            journal: shell.journal().clone(),
            violations: shell.invariants().counts().clone(),
        };
        self.to.store(Arc::new(Some(view)));
        self.took = began.elapsed();
        self.last = Some(began);
    }
}
