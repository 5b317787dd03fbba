//! What instances cost and did, integrated over time from the same events and actions that the core sees.

use forerun_types::{Action, Event, InstanceId, InstanceLoad, Reason, ServiceId, Span, Time};
use std::collections::{BTreeMap, BTreeSet};

/// Totals of one service, up to the last event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceTotals {
    pub started: u64,
    /// Started with no request waiting for them.
    pub prewarmed: u64,
    /// Of those, how many have served a request.
    pub prewarmed_used: u64,
    pub failed: u64,
    /// Byte-seconds from the order to start until ready, in use, and ready but unused.
    pub starting_byte_seconds: f64,
    pub busy_byte_seconds: f64,
    pub idle_byte_seconds: f64,
    /// Seconds that starts took, the last ones first-in first-out.
    pub start_seconds_sum: f64,
    pub start_seconds_count: u64,
    /// By reason label.
    pub decisions: BTreeMap<(&'static str, &'static str), u64>,
}

#[derive(Clone, Debug)]
struct Running {
    service: ServiceId,
    reserved_bytes: u64,
    memory_bytes: u64,
    ready: bool,
    busy: bool,
    prewarmed: bool,
    served: bool,
    since: Time,
}

/// Sums per service. An instance counts with its measured memory, before the first reading with what is reserved.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    services: BTreeMap<ServiceId, ServiceTotals>,
    running: BTreeMap<InstanceId, Running>,
    /// The same instances by their services.
    owned: BTreeSet<(ServiceId, InstanceId)>,
}

impl Running {
    fn new(service: ServiceId, reserved_bytes: u64, since: Time) -> Self {
        Self {
            service,
            reserved_bytes,
            memory_bytes: 0,
            ready: false,
            busy: false,
            prewarmed: false,
            served: false,
            since,
        }
    }

    fn bytes(&self) -> f64 {
        (if self.memory_bytes > 0 { self.memory_bytes } else { self.reserved_bytes }) as f64
    }

    /// Adds the time since the last change to the totals.
    fn advance(&mut self, now: Time, totals: &mut ServiceTotals) {
        let byte_seconds = self.bytes() * now.since(self.since).as_secs_f64();
        self.since = self.since.max(now);
        match (self.ready, self.busy) {
            (false, _) => totals.starting_byte_seconds += byte_seconds,
            (true, true) => totals.busy_byte_seconds += byte_seconds,
            (true, false) => totals.idle_byte_seconds += byte_seconds,
        }
    }
}

impl Meter {
    /// Totals as of `now` of the services from an id on, in order.
    pub fn totals_from(
        &self,
        now: Time,
        first: ServiceId,
    ) -> impl Iterator<Item = (ServiceId, ServiceTotals)> + '_ {
        self.services.range(first..).map(move |(service, totals)| {
            let mut totals = totals.clone();
            let own = self.owned.range((*service, InstanceId(0))..=(*service, InstanceId(u64::MAX)));
            for running in own.filter_map(|(_, instance)| self.running.get(instance)) {
                running.clone().advance(now, &mut totals);
            }
            (*service, totals)
        })
    }

    /// Whose an instance is that is not known to be gone.
    #[must_use]
    pub fn service_of(&self, instance: InstanceId) -> Option<ServiceId> {
        self.running.get(&instance).map(|r| r.service)
    }

    fn insert(&mut self, instance: InstanceId, running: Running) {
        self.owned.insert((running.service, instance));
        self.running.insert(instance, running);
    }

    fn remove(&mut self, instance: InstanceId) -> Option<Running> {
        let running = self.running.remove(&instance)?;
        self.owned.remove(&(running.service, instance));
        Some(running)
    }

    pub(crate) fn action(&mut self, now: Time, action: &Action) {
        let (service, label, reason) = match action {
            Action::Start { instance, service, spec, reason, .. } => {
                let prewarmed = !matches!(reason, Reason::Waiting { .. } | Reason::InUse { .. });
                let totals = self.services.entry(*service).or_default();
                totals.started += 1;
                totals.prewarmed += u64::from(prewarmed);
                let running =
                    Running { prewarmed, ..Running::new(*service, spec.resources.memory_bytes, now) };
                self.remove(*instance);
                self.insert(*instance, running);
                (*service, "start", reason)
            }
            Action::Adopt { instance, service, spec, .. } => {
                let running =
                    Running { ready: true, ..Running::new(*service, spec.resources.memory_bytes, now) };
                // Told again of one that it has, it goes on.
                if !self.running.contains_key(instance) {
                    self.insert(*instance, running);
                }
                *self
                    .services
                    .entry(*service)
                    .or_default()
                    .decisions
                    .entry(("adopt", "found"))
                    .or_default() += 1;
                return;
            }
            Action::LetGo { instance, .. } => {
                self.change(now, *instance, |_, _| {});
                self.remove(*instance);
                return;
            }
            Action::Want { service, reason, .. } => (*service, "want", reason),
            Action::Advise { service, from, to, reason, .. } => {
                (*service, if to > from { "would_start" } else { "would_stop" }, reason)
            }
            Action::Stop { instance, reason, .. } => match self.running.get(instance) {
                Some(running) => (running.service, "stop", reason),
                None => return,
            },
            Action::Pause { instance, reason, .. } => match self.running.get(instance) {
                Some(running) => (running.service, "pause", reason),
                None => return,
            },
            Action::Resume { instance, reason, .. } => match self.running.get(instance) {
                Some(running) => (running.service, "resume", reason),
                None => return,
            },
            Action::Specialise { instance, spec, reason, .. } => {
                self.change(now, *instance, |running, _| running.ready = false);
                // From now on it is the variant's.
                if let Some(running) = self.remove(*instance) {
                    self.insert(*instance, Running { service: spec.id, ..running });
                }
                (spec.id, "specialise", reason)
            }
            Action::Route { .. } | Action::Finished | Action::AskBusy { .. } => return,
        };
        let totals = self.services.entry(service).or_default();
        *totals.decisions.entry((label, reason.label())).or_default() += 1;
    }

    /// An action that the plan checker has refused, and by which rule.
    pub(crate) fn refused(&mut self, service: Option<ServiceId>, action: &'static str, rule: &'static str) {
        let Some(service) = service else { return };
        *self.services.entry(service).or_default().decisions.entry((action, rule)).or_default() += 1;
    }

    pub(crate) fn event(&mut self, now: Time, event: &Event) {
        match event {
            Event::Began => {
                self.running.clear();
                self.owned.clear();
            }
            Event::Ready { instance, took, .. } => {
                let took: Span = *took;
                self.change(now, *instance, |running, totals| {
                    running.ready = true;
                    totals.start_seconds_sum += took.as_secs_f64();
                    totals.start_seconds_count += 1;
                });
            }
            Event::StartFailed { instance, .. } | Event::Died { instance, .. } => {
                self.change(now, *instance, |_, totals| totals.failed += 1);
                self.remove(*instance);
            }
            Event::Specialised { instance, .. } => {
                self.change(now, *instance, |running, _| running.ready = true);
            }
            Event::Stopped { instance }
            | Event::StoppedByHand { instance, .. }
            | Event::Completed { instance } => {
                self.change(now, *instance, |_, _| {});
                self.remove(*instance);
            }
            Event::InstanceUsage { instance, memory_bytes, .. } => {
                self.change(now, *instance, |running, _| running.memory_bytes = *memory_bytes);
            }
            Event::Traffic(traffic) => {
                for load in &traffic.instances {
                    let finished = traffic.finished.iter().filter(|f| f.instance == load.instance);
                    let worked = finished.fold(Span::ZERO, |sum, f| sum + f.duration);
                    self.traffic(now, load, worked);
                }
            }
            _ => {}
        }
    }

    /// One batch of a router's: `worked` is the time that requests took which ended in it.
    fn traffic(&mut self, now: Time, load: &InstanceLoad, worked: Span) {
        let Some(running) = self.running.get_mut(&load.instance).filter(|r| r.ready) else { return };
        let totals = self.services.entry(running.service).or_default();
        let elapsed = now.since(running.since);
        let is_busy = load.in_flight > 0;
        let busy = match (running.busy, is_busy) {
            (true, true) => elapsed,
            (true, false) => load.last_used.since(running.since),
            (false, true) => now.since(load.last_used) + worked,
            (false, false) => worked,
        }
        .min(elapsed);
        totals.busy_byte_seconds += running.bytes() * busy.as_secs_f64();
        totals.idle_byte_seconds += running.bytes() * (elapsed - busy).as_secs_f64();
        running.since = running.since.max(now);
        running.busy = is_busy;
        if !running.served {
            running.served = true;
            totals.prewarmed_used += u64::from(running.prewarmed);
        }
    }

    fn change(
        &mut self,
        now: Time,
        instance: InstanceId,
        change: impl FnOnce(&mut Running, &mut ServiceTotals),
    ) {
        let Some(running) = self.running.get_mut(&instance) else { return };
        let totals = self.services.entry(running.service).or_default();
        running.advance(now, totals);
        change(running, totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{Generation, ServiceSpec, SiteId, Traffic};
    use std::sync::Arc;

    #[test]
    fn memory_time_is_split_into_starting_busy_and_idle() {
        let mut meter = Meter::default();
        let service = ServiceId(0);
        let at = |seconds: u64| Time(seconds * 1_000_000);
        let load = |seconds: u64, in_flight| {
            Event::Traffic(Traffic {
                instances: vec![InstanceLoad { instance: InstanceId(1), in_flight, last_used: at(seconds) }],
                ..Traffic::default()
            })
        };
        meter.action(
            at(10),
            &Action::Start {
                instance: InstanceId(1),
                generation: Generation(1),
                service,
                site: SiteId(0),
                spec: Arc::new(ServiceSpec::named(service, "s")),
                reason: Reason::Bound { what: "min".to_owned() },
            },
        );
        let address = ([127, 0, 0, 1], 1).into();
        meter.event(at(12), &Event::Ready { instance: InstanceId(1), address, took: Span::from_secs(2) });
        let so_far =
            |seconds| meter.totals_from(at(seconds), service).map(|(_, t)| t.idle_byte_seconds).sum::<f64>();
        assert_eq!(so_far(14), 2e9, "what still runs counts as well");
        assert!(meter.totals_from(at(14), ServiceId(1)).next().is_none());
        meter.event(at(15), &load(15, 1));
        meter.event(at(16), &load(16, 0));
        meter.event(at(20), &Event::Stopped { instance: InstanceId(1) });
        let (of, totals) = meter.totals_from(at(100), ServiceId(0)).next().unwrap();
        assert_eq!(of, service);
        let gb = 1e9;
        assert_eq!(totals.starting_byte_seconds, 2.0 * gb);
        assert_eq!(totals.busy_byte_seconds, 1.0 * gb);
        assert_eq!(totals.idle_byte_seconds, 7.0 * gb);
        assert_eq!((totals.started, totals.prewarmed, totals.prewarmed_used), (1, 1, 1));
    }
}
