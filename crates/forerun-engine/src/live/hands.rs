//! What carries the core's orders to backends and routers.

use crate::ports::{Backends, Routers};
use forerun_backends::{Backend, OrderError, Sink, StartOrder, StopOrder};
use forerun_router::RouterHandle;
use forerun_types::{Event, Generation, InstanceId, RouteTable, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) struct LiveBackends {
    pub(super) by_name: BTreeMap<&'static str, Arc<dyn Backend>>,
    pub(super) sink: Sink,
    /// Which backend was ordered to start an instance.
    pub(super) owners: BTreeMap<InstanceId, Arc<dyn Backend>>,
}

/// Owners of instances that are gone are kept until there are so many.
const OWNERS_LEAST: usize = 1_024;

impl std::fmt::Debug for LiveBackends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.by_name.keys()).finish()
    }
}

impl Backends for LiveBackends {
    fn start(&mut self, order: StartOrder) {
        let instance = order.instance;
        let result = match self.by_name.get(order.spec.backend.as_str()) {
            Some(backend) => {
                let backend = Arc::clone(backend);
                self.note_owner(instance, &backend);
                backend.start(order).map_err(|e| (matches!(e, OrderError::Stale { .. }), e.to_string()))
            }
            None => Err((false, format!("this forerun has no backend called `{}`", order.spec.backend))),
        };
        match result {
            Ok(()) => {}
            // A newer order stands, and its outcome will be told.
            Err((true, why)) => tracing::warn!(%why, "a start order was refused"),
            Err((false, why)) => (self.sink)(Event::StartFailed { instance, why }),
        }
    }

    fn stop(&mut self, order: StopOrder) {
        let Some(backend) = self.owner(order.instance) else {
            // None of them has it: it is gone.
            (self.sink)(Event::Stopped { instance: order.instance });
            return;
        };
        if let Err(error) = backend.stop(order) {
            tracing::warn!(%error, instance = %order.instance, "a stop order was refused");
        }
    }

    fn adopt(&mut self, order: StartOrder, handle: &str) {
        let instance = order.instance;
        let result = match self.by_name.get(order.spec.backend.as_str()) {
            Some(backend) => {
                let backend = Arc::clone(backend);
                self.note_owner(instance, &backend);
                backend.adopt(order, handle).map_err(|e| e.to_string())
            }
            None => Err(format!("this forerun has no backend called `{}`", order.spec.backend)),
        };
        // Nobody will tell of it again, so that it must not stay in the books.
        if let Err(why) = result {
            (self.sink)(Event::Died { instance, why });
        }
    }

    fn pause(&mut self, instance: InstanceId, generation: Generation) {
        self.change(instance, |backend| backend.pause(instance, generation));
    }

    fn resume(&mut self, instance: InstanceId, generation: Generation) {
        self.change(instance, |backend| backend.resume(instance, generation));
    }

    fn specialise(&mut self, order: StartOrder) {
        self.change(order.instance, |backend| backend.specialise(order));
    }

    fn ask_busy(&mut self, order: StartOrder) {
        let instance = order.instance;
        let result = match self.owner(instance) {
            Some(backend) => backend.ask_busy(order).map_err(|e| e.to_string()),
            None => Err("no backend has it".to_owned()),
        };
        // Who cannot be asked counts as busy, as one who does not answer.
        if let Err(why) = result {
            (self.sink)(Event::BusyAnswer { instance, busy: true, why });
        }
    }

    fn let_go(&mut self, instance: InstanceId) {
        self.owners.remove(&instance);
    }

    fn know(&mut self, services: &[Arc<ServiceSpec>]) {
        for (name, backend) in &self.by_name {
            let own: Vec<Arc<ServiceSpec>> =
                services.iter().filter(|s| s.backend == *name).map(Arc::clone).collect();
            backend.know(&own);
        }
    }
}

impl LiveBackends {
    fn owner(&self, instance: InstanceId) -> Option<&Arc<dyn Backend>> {
        let has = |b: &&Arc<dyn Backend>| b.running().contains(&instance);
        self.owners.get(&instance).or_else(|| self.by_name.values().find(has))
    }

    /// Has an instance's backend change it; a refusal leaves it as it was.
    fn change(&self, instance: InstanceId, order: impl FnOnce(&Arc<dyn Backend>) -> Result<(), OrderError>) {
        let result = match self.owner(instance) {
            Some(backend) => {
                order(backend).map_err(|e| (matches!(e, OrderError::Stale { .. }), e.to_string()))
            }
            None => Err((false, "no backend has it".to_owned())),
        };
        match result {
            Ok(()) => {}
            Err((true, why)) => tracing::warn!(%why, "an order was refused"),
            Err((false, why)) => (self.sink)(Event::NotChanged { instance, why }),
        }
    }

    fn note_owner(&mut self, instance: InstanceId, backend: &Arc<dyn Backend>) {
        let known = self.owners.len();
        if known >= OWNERS_LEAST && known.is_power_of_two() {
            let alive: BTreeSet<InstanceId> = self.by_name.values().flat_map(|b| b.running()).collect();
            self.owners.retain(|i, _| alive.contains(i));
        }
        // Only now: the backend hears of this one later, and it must not be swept.
        self.owners.insert(instance, Arc::clone(backend));
    }
}

pub(super) struct LiveRouters {
    pub(super) router: Arc<RouterHandle>,
}

impl std::fmt::Debug for LiveRouters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveRouters").finish_non_exhaustive()
    }
}

impl Routers for LiveRouters {
    fn publish(&mut self, table: Arc<RouteTable>) {
        self.router.publish(&table);
    }
}
