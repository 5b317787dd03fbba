//! What always holds of instances that answer nothing: they are replaced in time.

use crate::checks::Checks;
use crate::world::World;
use forerun_engine::invariants::Seen;
use forerun_types::{Event, InstanceId, Mode, RouterId, ServiceSpec, Span, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Once enough is told, it goes within the longest pause after failures.
const REPLACED_WITHIN: Span = Span::from_secs(70);

/// What routers have told, as `docs/docker.md` says what is enough.
#[derive(Debug, Default)]
pub(crate) struct Silences {
    told: BTreeMap<(InstanceId, RouterId), (u32, u32, Span)>,
    /// Those that were told of at some time.
    ever: BTreeSet<InstanceId>,
    enough_since: BTreeMap<InstanceId, Time>,
}

impl Silences {
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Began => *self = Self::default(),
            Event::Unanswered { router, instance, tries, left, silent } => {
                self.told.insert((*instance, *router), (*tries, *left, *silent));
                self.ever.insert(*instance);
            }
            Event::Quiesced { router, instance, .. } => {
                self.told.remove(&(*instance, *router));
            }
            Event::RouterLeft(router) => self.told.retain(|(_, of), _| of != router),
            _ => {}
        }
    }

    fn is_enough(&self, spec: &ServiceSpec, instance: InstanceId) -> bool {
        let least = spec.start_timeout.max(Span::from_secs(30));
        let of = self.told.range((instance, RouterId(0))..=(instance, RouterId(u32::MAX)));
        of.into_iter().any(|(_, (tries, left, silent))| {
            tries - left >= 3 && *silent >= least || *tries >= 3 && *silent >= least.max(Span::from_secs(300))
        })
    }
}

impl Checks {
    /// One of a service's instances goes, and may go because it answers nothing: its service waits for its place.
    pub(crate) fn waits_for_silent(&self, service: &ServiceSpec) -> bool {
        let going =
            |i: &Seen<'_>| i.spec.id == service.id && !i.counts && self.silences.ever.contains(&i.instance);
        self.orders.instances().any(|i| going(&i))
    }

    /// An instance that enough has been told of, and that is still there. `uses` says how many requests a router has
    /// there.
    fn wedged_stays(&mut self, now: Time, uses: impl Fn(InstanceId) -> Vec<RouterId>) -> Option<String> {
        let (mut stays, mut enough) = (None, BTreeMap::new());
        for i in self.orders.instances() {
            let acts = self.levels.mode(i.spec) == Mode::Act && !self.levels.is_down(i.spec) && !self.closing;
            let described = self.services.contains_key(&crate::rules::elder(i.spec));
            let may_go = acts && described && i.spec.busy.is_none() && i.listed && i.ready;
            let of_one = |other: &Seen<'_>| other.spec.id == i.spec.id && !other.counts && !other.paused;
            if !may_go
                || !self.silences.is_enough(i.spec, i.instance)
                || self.orders.instances().any(|o| of_one(&o))
            {
                continue;
            }
            let told =
                |router: &RouterId| self.silences.told.get(&(i.instance, *router)).is_some_and(|t| t.0 > 0);
            if !uses(i.instance).iter().all(told) {
                continue;
            }
            let since = *self.silences.enough_since.get(&i.instance).unwrap_or(&now);
            enough.insert(i.instance, since);
            if now > since + REPLACED_WITHIN {
                stays = Some(format!(
                    "{} of {} answers nothing, and is kept for {REPLACED_WITHIN}",
                    i.instance, i.spec.name
                ));
            }
        }
        self.silences.enough_since = enough;
        stays
    }
}

impl World {
    /// After every event.
    pub(crate) fn check_silent(&mut self, now: Time) {
        if self.checks.silences.told.is_empty() {
            return;
        }
        let sites = &self.sites;
        let uses = |instance| {
            let using = sites.iter().filter(|s| s.router.in_flight(instance) > 0);
            using.map(|s| s.router.id).collect()
        };
        if let Some(what) = self.checks.wedged_stays(now, uses) {
            self.fail("wedged", what);
        }
    }
}
