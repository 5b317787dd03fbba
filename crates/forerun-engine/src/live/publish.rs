//! The view of the core that the outside may read: gathered by the engine's thread a slice at a time, so that no event
//! waits for it, and swapped in whole.

use super::keys::{self, Gathered};
use crate::invariants::Rule;
use crate::meter::{Meter, ServiceTotals};
use crate::ports::{Backends, Clock, Disk, Routers};
use crate::shell::{JournalState, Shell};
use arc_swap::ArcSwap;
use forerun_core::{AnyPolicy, BudgetStatus, Core, ServiceStatus, SiteStatus};
use forerun_types::{ServiceId, ServiceSpec, Time};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A view is begun at most so often,
const EVERY_LEAST: Duration = Duration::from_millis(200);
/// and takes at most this part of the engine's time.
const SHARE: u32 = 50;
/// How long it is gathered before it is looked whether an event waits: little beside what a start takes.
const SLICE: Duration = Duration::from_millis(1);
/// Services between two looks at the clock.
const AT_ONCE: usize = 16;

#[derive(Clone, Debug)]
pub struct View {
    /// When it was whole; of many services some were looked at a moment before.
    pub at: Time,
    /// Those that are variants of none, with what their variants have counted in.
    pub services: Vec<ServiceStatus>,
    /// Variants, by their parents.
    pub keys: BTreeMap<ServiceId, Vec<ServiceStatus>>,
    /// Their descriptions, in the same order.
    pub specs: Vec<Arc<ServiceSpec>>,
    /// The first one first.
    pub sites: Vec<SiteStatus>,
    pub budgets: Vec<BudgetStatus>,
    pub totals: BTreeMap<ServiceId, ServiceTotals>,
    pub journal: JournalState,
    /// How often each rule of what always holds was broken.
    pub violations: BTreeMap<Rule, u64>,
    /// The longest that the engine was at one thing since the view before: so long an event may have waited.
    pub longest: Duration,
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
    /// When the last view was begun, and how long all its slices took.
    last: Option<Instant>,
    took: Duration,
    gathering: Option<Gathering>,
    /// The view before, which is let go of a slice at a time as well.
    before: Option<View>,
    longest: Duration,
}

/// A view that is not yet whole.
#[derive(Debug, Default)]
struct Gathering {
    all: Gathered,
    specs: Vec<Arc<ServiceSpec>>,
    totals: BTreeMap<ServiceId, ServiceTotals>,
    /// Where the services and then the totals go on; `None` when there are no more.
    next_service: Option<ServiceId>,
    next_totals: Option<ServiceId>,
}

pub(super) fn channel() -> (Publisher, Published) {
    let shared = Arc::new(ArcSwap::from_pointee(None));
    let publisher = Publisher {
        to: Arc::clone(&shared),
        last: None,
        took: Duration::ZERO,
        gathering: None,
        before: None,
        longest: Duration::ZERO,
    };
    (publisher, Published(shared))
}

impl Publisher {
    /// The engine does something, and looks at nothing else meanwhile.
    pub(super) fn noted<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let began = Instant::now();
        let done = work(self);
        self.longest = self.longest.max(began.elapsed());
        done
    }

    /// Does a slice of what is due. Whether there is more to be done at once, unless an event comes first.
    pub(super) fn publish<C: Clock, D: Disk, B: Backends, R: Routers>(
        &mut self,
        shell: &Shell<C, D, B, R>,
    ) -> bool {
        let pause = EVERY_LEAST.max(self.took * SHARE);
        if self.gathering.is_none() && self.last.is_some_and(|last| last.elapsed() < pause) {
            return false;
        }
        self.slice(shell, SLICE)
    }

    /// Publishes what holds now, in one go.
    pub(super) fn publish_now<C: Clock, D: Disk, B: Backends, R: Routers>(
        &mut self,
        shell: &Shell<C, D, B, R>,
    ) {
        self.gathering = None;
        while self.slice(shell, Duration::MAX) {}
    }

    /// Goes on gathering for so long; false when the view is whole and published.
    fn slice<C: Clock, D: Disk, B: Backends, R: Routers>(
        &mut self,
        shell: &Shell<C, D, B, R>,
        at_most: Duration,
    ) -> bool {
        let began = Instant::now();
        if self.gathering.is_none() {
            (self.last, self.took) = (Some(began), Duration::ZERO);
        }
        let gathering = self.gathering.get_or_insert_with(Gathering::new);
        let whole = loop {
            if !gathering.go_on(shell.core(), shell.meter(), shell.now()) {
                break true;
            }
            if let Some(before) = &mut self.before {
                before.shrink();
            }
            if began.elapsed() >= at_most {
                break false;
            }
        };
        if whole && let Some(gathering) = self.gathering.take() {
            let view = View { longest: std::mem::take(&mut self.longest), ..gathering.view(shell) };
            let before = self.to.swap(Arc::new(Some(view)));
            // Whoever still reads it lets go of it.
            self.before = Arc::try_unwrap(before).ok().flatten();
        }
        self.took += began.elapsed();
        !whole
    }
}

impl View {
    /// Lets go of some of it.
    fn shrink(&mut self) {
        self.services.truncate(self.services.len().saturating_sub(AT_ONCE));
        self.specs.truncate(self.services.len());
        self.keys.pop_last();
        for _ in 0..AT_ONCE {
            self.totals.pop_last();
        }
    }
}

impl Gathering {
    fn new() -> Self {
        let first = Some(ServiceId(0));
        Self { next_service: first, next_totals: first, ..Self::default() }
    }

    /// Looks at a few more; false when all have been looked at.
    fn go_on(&mut self, core: &Core<AnyPolicy>, meter: &Meter, now: Time) -> bool {
        if let Some(first) = self.next_service.take() {
            for (status, spec) in core.services_from(first).take(AT_ONCE) {
                self.next_service = Some(ServiceId(status.service.0 + 1));
                if status.variant.is_none() {
                    self.specs.push(Arc::clone(spec));
                }
                self.all.take(status);
            }
            return true;
        }
        let Some(first) = self.next_totals.take() else { return false };
        for (service, totals) in meter.totals_from(now, first).take(AT_ONCE) {
            self.next_totals = Some(ServiceId(service.0 + 1));
            keys::count(self.totals.entry(core.elder_of(service)).or_default(), totals);
        }
        true
    }

    fn view<C: Clock, D: Disk, B: Backends, R: Routers>(self, shell: &Shell<C, D, B, R>) -> View {
        let Gathered { services, keys } = self.all;
        View {
            at: shell.now(),
            services,
            keys,
            specs: self.specs,
            sites: shell.core().sites().collect(),
            budgets: shell.core().budgets().collect(),
            totals: self.totals,
            journal: shell.journal().clone(),
            violations: shell.invariants().counts().clone(),
            longest: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{Action, Event, RouterId, Specialise, UserKey};

    /// Guarantee: events between two slices are seen or not, but no service is missed or told of twice.
    #[test]
    fn what_is_gathered_in_slices_is_whole() {
        let mut core = Core::new(AnyPolicy::named("none", None, 1 << 20).unwrap());
        let (mut meter, mut now) = (Meter::default(), Time(1));
        let mut tell = |core: &mut Core<AnyPolicy>, meter: &mut Meter, event: &Event| {
            now.0 += 1;
            let mut actions: Vec<Action> = Vec::new();
            core.step(now, event, &mut actions);
            meter.event(now, event);
            actions.iter().for_each(|action| meter.action(now, action));
            now
        };
        let waiting = |service| {
            let (router, user) = (RouterId(0), UserKey(0));
            Event::Waiting { router, service: ServiceId(service), user, waiting: 1 }
        };
        for id in 0..10 * AT_ONCE as u32 {
            let specialise = (id == 3).then(Specialise::default);
            let spec = ServiceSpec { specialise, ..ServiceSpec::named(ServiceId(id), format!("s{id}")) };
            tell(&mut core, &mut meter, &Event::Service(Arc::new(spec)));
            tell(&mut core, &mut meter, &waiting(id));
        }
        tell(&mut core, &mut meter, &Event::KeySeen { service: ServiceId(3), key: "red".to_owned() });
        tell(&mut core, &mut meter, &Event::ServiceGone(ServiceId(5)));
        let (mut gathering, mut slices) = (Gathering::new(), 0);
        loop {
            // The last service is asked for once more between any two slices.
            let at = tell(&mut core, &mut meter, &waiting(10 * AT_ONCE as u32 - 1));
            if !gathering.go_on(&core, &meter, at) {
                break;
            }
            slices += 1;
        }
        assert!(slices > 20, "{slices}");
        let names: Vec<&str> = gathering.all.services.iter().map(|s| s.name.as_str()).collect();
        let right: Vec<String> =
            core.specs().filter(|s| s.variant.is_none()).map(|s| s.name.clone()).collect();
        assert_eq!(names, right);
        assert!(gathering.specs.iter().map(|s| &s.name).eq(&right), "descriptions stand in the same order");
        assert_eq!(gathering.all.keys[&ServiceId(3)].len(), 1);
        let started: u64 = gathering.totals.values().map(|t| t.started).sum();
        assert_eq!(started, 10 * AT_ONCE as u64);
    }
}
