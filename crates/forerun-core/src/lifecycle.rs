//! What happens to instances: starts, ends, the four-step stop, failures and their back-off.

use crate::bounds::clock;
use crate::canary::Canary;
use crate::core::{Core, Instance, Service, State, Tally};
use crate::policy::Policy;
use crate::usage::Reading;
use forerun_types::{
    Action, Generation, InstanceId, InstanceRoute, Mode, Reason, RouterId, ServiceId, ServiceRoute, Span,
    StopWhy, Time, Unavailable, WaitNotes,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// An instance that lives at least so long has started well: an end after that is no part of a crash loop.
const LIVED_WELL: Span = Span::from_secs(10);
/// The first failure is tried again at once; from the second on, the pause doubles up to the longest.
/// After so many failures in a row requests are refused during the pause; before, they are held through it.
const FAILURES_HELD: u32 = 2;
/// Longer than the longest pause and a usual start together.
const FAILURES_FORGOTTEN: Span = Span::from_secs(600);
const BACKOFF_FIRST: Span = Span::from_secs(1);
const BACKOFF_MAX: Span = Span::from_secs(60);
/// How long after its own deadline a backend may still answer, before it is asked again to stop the instance.
const BACKEND_LATE: Span = Span::from_secs(10);
/// Links of a chain of dependencies that a refusal tells.
const NEEDS_TOLD_MAX: u32 = 4;
/// Text of a failure that is kept for people.
const WHY_MAX: usize = 2_000;

impl<P: Policy> Core<P> {
    pub(crate) fn ready(
        &mut self,
        id: InstanceId,
        address: SocketAddr,
        took: Span,
        actions: &mut Vec<Action>,
    ) {
        let now = self.now;
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.state != State::Starting {
            return; // an order to stop it is already on its way
        }
        instance.address = Some(address);
        instance.ready_at = Some(now);
        instance.last_used = now;
        let service = instance.service;
        self.set_state(id, State::Ready);
        self.pace_ready(id);
        self.demand.started(service, took);
        self.note_ready(id, took);
        if let Some(s) = self.get_mut(service) {
            s.backoff_until = Time::default();
            s.told.progress.clear();
        }
        self.adopt_late(service, Some(address), actions);
        self.publish(service, actions);
        self.mark(service);
    }

    pub(crate) fn start_failed(&mut self, id: InstanceId, why: &str, actions: &mut Vec<Action>) {
        let Some(instance) = self.remove(id) else { return };
        // One that was ordered to stop while it started did what it was told.
        if !matches!(
            instance.state,
            State::Stopping {
                why: StopWhy::Plan | StopWhy::Evicted | StopWhy::ShutDown | StopWhy::Wedged,
                ..
            }
        ) {
            self.failed(&instance, why);
        }
        self.adopt_late(instance.service, None, actions);
        self.publish(instance.service, actions);
    }

    pub(crate) fn died(&mut self, id: InstanceId, why: &str, actions: &mut Vec<Action>) {
        let now = self.now;
        self.change_failed(id);
        let Some(instance) = self.remove(id) else { return };
        // One that goes because it is wedged has been counted already.
        if !matches!(instance.state, State::Stopping { .. }) && !instance.goes_wedged() {
            self.failed_ready(&instance, now, why);
        }
        self.publish(instance.service, actions);
    }

    pub(crate) fn stopped(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        let Some(instance) = self.remove(id) else { return };
        let lived = instance.ready_at.is_some() && !instance.goes_wedged();
        if let Some(s) = self.get_mut(instance.service)
            && lived
        {
            s.failures = 0;
        }
        if let State::Stopping { why: StopWhy::StartTimeout, .. } = instance.state {
            self.failed(&instance, "the backend did not say in time whether it had started");
        }
        self.adopt_late(instance.service, None, actions);
    }

    /// One that was ready is as good as dead; `since` then it did its work no more.
    pub(crate) fn failed_ready(&mut self, instance: &Instance, since: Time, why: &str) {
        let lived = instance.ready_at.map_or(Span::ZERO, |at| since.since(at));
        if lived >= LIVED_WELL
            && let Some(s) = self.get_mut(instance.service)
        {
            s.failures = 0;
        }
        self.failed(instance, why);
    }

    pub(crate) fn failed(&mut self, instance: &Instance, why: &str) {
        let now = self.now;
        let forgets = self.is_canary(Canary::LostWaiter);
        let Some(s) = self.get_mut(instance.service) else { return };
        if forgets {
            s.gauges.iter_mut().for_each(|g| g.waiting = 0);
        }
        s.last_failure = why.chars().take(WHY_MAX).collect();
        // Several that fail together have failed once: only what was tried after a failure says that it lasts.
        if s.failures > 0 && instance.born < s.failed_at {
            return;
        }
        // A failure long after the last one is no part of a series.
        if now.since(s.failed_at) > FAILURES_FORGOTTEN {
            s.failures = 0;
        }
        s.failed_at = now;
        s.failures = s.failures.saturating_add(1);
        s.backoff_until = match s.failures {
            0 | 1 => now,
            n => now + Span((BACKOFF_FIRST.0 << (n - 2).min(16)).min(BACKOFF_MAX.0)),
        };
    }

    /// Takes an instance out of the books: it is known to be gone.
    pub(crate) fn remove(&mut self, id: InstanceId) -> Option<Instance> {
        let instance = self.instances.remove(&id)?;
        self.families.instance_gone(id);
        self.rooms.at_mut(instance.site).release(&instance.reserved);
        self.room_changed = true;
        if let Some(s) = self.get_mut(instance.service) {
            s.instances.retain(|i| *i != id);
        }
        self.retally(instance.service);
        // What it leaves of `max` is for any of its relatives.
        self.mark_relatives(instance.service);
        self.mark_linked(instance.service);
        if instance.goes_wedged() {
            // Its own service has waited for its place.
            self.mark(instance.service);
        }
        Some(instance)
    }

    pub(crate) fn used(&mut self, id: InstanceId, memory_bytes: u64, cpu: Span) {
        let now = self.now;
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.memory_bytes = memory_bytes;
        let (used, over) = (cpu - instance.cpu, now.since(instance.usage_at));
        let since_ready = instance.ready_at.is_some_and(|at| at <= instance.usage_at);
        let idle = instance.requests() == 0 && instance.last_used < instance.usage_at && since_ready;
        instance.cpu = cpu;
        instance.usage_at = now;
        let (service, ready) = (instance.service, instance.state == State::Ready);
        if ready {
            self.demand.used(service, memory_bytes);
            self.demand.cpu(service, used, over);
            if idle {
                self.demand.idle_cpu(service, used, over);
            }
        }
        // A reading that holds some of the start tells of the start.
        let idle_us_per_s = self.demand.idle_cpu_milli(service) * 1_000;
        let idle_cpu = Span(over.0.saturating_mul(idle_us_per_s) / 1_000_000);
        let elder = self.families.parent_of(service).unwrap_or(service);
        if let Some(instance) = self.instances.get_mut(&id) {
            let reading = Reading { over, cpu: used, idle_cpu, memory_bytes };
            match since_ready {
                true => self.usage.read(elder, &mut instance.window, &reading),
                false => instance.window.restart(),
            }
        }
    }

    /// So many bytes from and to disks since its start.
    pub(crate) fn moved(&mut self, id: InstanceId, storage_bytes: u64) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let elder = self.families.parent_of(instance.service).unwrap_or(instance.service);
        self.usage.read_disk(elder, &mut instance.window, storage_bytes);
    }

    /// First step of a stop: out of the route table. What never was in it is stopped at once.
    pub(crate) fn drain(
        &mut self,
        id: InstanceId,
        why: StopWhy,
        reason: Reason,
        pause: bool,
        actions: &mut Vec<Action>,
    ) {
        let (now, nobody) = (self.now, self.routers.is_empty());
        // One that is not its variant's yet is stopped as what it is.
        self.give_back(id, actions);
        let Some(instance) = self.instances.get(&id) else { return };
        let service = instance.service;
        let unlisted = !matches!(instance.state, State::Ready | State::Draining { .. });
        // The state must change before the table is made, and the table's generation is not known until then.
        self.set_state(id, State::Stopping { ordered: now, why });
        // What it leaves of `max` is for any of its relatives, whether it is stopped or frozen. One that is evicted is
        // promised already: its own service, or the family that it is to make way in, looked at again at once, would
        // take it back for ever.
        match &reason {
            Reason::Evicted { for_service, .. } | Reason::Preempted { for_service, .. }
                if self.elder_of(*for_service) == self.elder_of(service) => {}
            Reason::Evicted { .. } | Reason::Preempted { .. } => self.mark_other_relatives(service),
            _ => self.mark_relatives(service),
        }
        if unlisted || nobody || self.is_canary(Canary::StopInUse) {
            if !unlisted {
                self.publish(service, actions);
            }
            self.end_drain(id, why, reason, pause && !unlisted, actions);
            return;
        }
        let generation = self.publish(service, actions);
        let grace = self.get(service).map_or(Span::ZERO, |s| s.spec.drain_timeout);
        self.set_state(
            id,
            State::Draining { generation, quiesced: Vec::new(), deadline: now + grace, why, reason, pause },
        );
        // Its deadline must be among the service's dues.
        let due = self.deadline(service).min(self.get(service).map_or(Time::NEVER, |s| s.due));
        self.set_due(service, due);
    }

    pub(crate) fn order_stop(
        &mut self,
        id: InstanceId,
        why: StopWhy,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) {
        let now = self.now;
        let generation = self.order_generation();
        let Some(service) = self.instances.get(&id).map(|i| i.service) else { return };
        self.set_state(id, State::Stopping { ordered: now, why });
        if self.is_canary(Canary::FreedEarly)
            && let Some(instance) = self.instances.get_mut(&id)
        {
            let reserved = std::mem::take(&mut instance.reserved);
            self.rooms.at_mut(instance.site).release(&reserved);
            self.room_changed = true;
        }
        let grace = self.get(service).map_or(Span::ZERO, |s| s.spec.drain_timeout);
        actions.push(Action::Stop { instance: id, generation, grace, why, reason });
        self.mark(service);
    }

    pub(crate) fn quiesced(
        &mut self,
        router: RouterId,
        id: InstanceId,
        told: Generation,
        actions: &mut Vec<Action>,
    ) {
        // Its last load may never be told: the router has forgotten the instance, also when it is brought back.
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.in_flight.retain(|flight| flight.0 != router);
            instance.silent.retain(|silent| silent.router != router);
        }
        self.claim_quiesced(router, id, told, actions);
        let any_generation = self.is_canary(Canary::OldGeneration);
        if let Some(Instance { state: State::Draining { generation, quiesced, .. }, .. }) =
            self.instances.get_mut(&id)
            && (told >= *generation || any_generation)
            && !quiesced.contains(&router)
        {
            quiesced.push(router);
            self.stop_if_quiet(id, actions);
        }
    }

    fn stop_if_quiet(&mut self, id: InstanceId, actions: &mut Vec<Action>) {
        let Some(Instance { state: State::Draining { quiesced, why, reason, pause, .. }, .. }) =
            self.instances.get(&id)
        else {
            return;
        };
        if self.routers.iter().all(|r| quiesced.contains(r)) {
            let (why, reason, pause) = (*why, reason.clone(), *pause);
            self.end_drain(id, why, reason, pause, actions);
        }
    }

    /// Third step: it is quiet, or its time is over.
    fn end_drain(
        &mut self,
        id: InstanceId,
        why: StopWhy,
        reason: Reason,
        pause: bool,
        actions: &mut Vec<Action>,
    ) {
        match pause {
            true => self.order_pause(id, reason, actions),
            false => self.order_stop(id, why, reason, actions),
        }
    }

    pub(crate) fn router_left(&mut self, router: RouterId, actions: &mut Vec<Action>) {
        self.routers.retain(|r| *r != router);
        self.held_again = true;
        self.touched_unseen(actions);
        for instance in self.instances.values_mut() {
            instance.in_flight.retain(|f| f.0 != router);
            instance.silent.retain(|s| s.router != router);
        }
        let draining: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, i)| matches!(i.state, State::Draining { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in draining {
            self.stop_if_quiet(id, actions);
        }
        for at in 0..self.services.len() {
            let now = self.now;
            let id = ServiceId(at as u32);
            let Some(s) = self.get_mut(id) else { continue };
            let before = s.gauges.len();
            s.gauges.retain(|g| g.router != router);
            if s.gauges.len() != before {
                s.note_waiting(now);
                let needed = s.spec.instances_for(s.requests());
                self.policy.needed(now, id, needed, needed);
                self.mark(id);
            }
        }
    }

    pub(crate) fn set_state(&mut self, id: InstanceId, state: State) {
        if let Some(instance) = self.instances.get_mut(&id) {
            if state == State::Ready {
                // Routers count anew what comes back to them.
                instance.silent.clear();
            }
            instance.state = state;
            let service = instance.service;
            self.retally(service);
        }
    }

    /// Counts a service's instances anew, after one came, went or changed its state.
    pub(crate) fn retally(&mut self, id: ServiceId) {
        let (endless, unasked) =
            (self.is_canary(Canary::EndlessDrain), self.is_canary(Canary::StopUnanswered));
        let now = self.now;
        let Some(s) = self.get(id) else { return };
        let mut tally = Tally::default();
        for i in s.instances.iter().filter_map(|i| self.instances.get(i)) {
            let deadline = match &i.state {
                State::Starting => {
                    tally.starting += 1;
                    i.born + s.spec.start_timeout + BACKEND_LATE
                }
                State::Ready => {
                    tally.ready += 1;
                    i.asked.deadline(now)
                }
                State::Paused => {
                    tally.paused += 1;
                    continue;
                }
                State::Resuming { ordered } => {
                    tally.starting += 1;
                    *ordered + s.spec.start_timeout + BACKEND_LATE
                }
                State::Pausing { ordered, back } => {
                    tally.starting += u32::from(*back);
                    *ordered + BACKEND_LATE
                }
                State::Draining { .. } if endless => continue,
                State::Stopping { .. } if unasked => continue,
                State::Draining { deadline, .. } => *deadline,
                State::Claimed { deadline, .. } => {
                    tally.starting += 1;
                    *deadline
                }
                State::Specialising { ordered } => {
                    tally.starting += 1;
                    *ordered + s.spec.start_timeout + BACKEND_LATE
                }
                State::Stopping { ordered, .. } => *ordered + s.spec.drain_timeout + BACKEND_LATE,
            };
            tally.deadline = tally.deadline.min(deadline);
        }
        if let Some(s) = self.get_mut(id) {
            s.tally = tally;
        }
    }

    /// The earliest deadline among a service's instances.
    pub(crate) fn deadline(&self, id: ServiceId) -> Time {
        self.get(id).map_or(Time::NEVER, |s| s.tally.deadline)
    }

    /// Acts on deadlines that have passed: drains that took too long, backends that do not answer.
    pub(crate) fn overdue(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        let now = self.now;
        if self.deadline(id) > now {
            return;
        }
        let (endless, unasked) =
            (self.is_canary(Canary::EndlessDrain), self.is_canary(Canary::StopUnanswered));
        let Some(s) = self.get(id) else { return };
        let (start, drain) = (s.spec.start_timeout + BACKEND_LATE, s.spec.drain_timeout + BACKEND_LATE);
        for instance in s.instances.clone() {
            self.unanswered(instance);
            let Some(i) = self.instances.get(&instance) else { continue };
            if matches!(i.state, State::Claimed { deadline, .. } if deadline <= now) {
                self.give_back(instance, actions);
                continue;
            }
            let late = match &i.state {
                State::Starting if i.born + start <= now => {
                    let why =
                        format!("the backend has not said for {} whether it started", now.since(i.born));
                    Some((StopWhy::StartTimeout, Reason::Failed { why }))
                }
                State::Specialising { ordered } if *ordered + start <= now => {
                    let why =
                        format!("the backend has not said for {} whether it changed it", now.since(*ordered));
                    Some((StopWhy::StartTimeout, Reason::Failed { why }))
                }
                State::Draining { deadline, why, reason, pause, .. } if *deadline <= now && !endless => {
                    let (why, reason, pause) = (*why, reason.clone(), *pause);
                    self.end_drain(instance, why, reason, pause, actions);
                    continue;
                }
                State::Pausing { ordered, .. } if *ordered + BACKEND_LATE <= now && !self.acts(id) => {
                    // What is only watched now is not stopped: it is taken for what it was to become.
                    self.set_state(instance, State::Paused);
                    continue;
                }
                State::Pausing { ordered, .. } if *ordered + BACKEND_LATE <= now => {
                    let late = "the backend has not answered an order to pause it".to_owned();
                    Some((StopWhy::Plan, Reason::Failed { why: late }))
                }
                State::Resuming { ordered } if *ordered + start <= now => {
                    let late = "the backend has not answered an order to resume it".to_owned();
                    Some((StopWhy::StartTimeout, Reason::Failed { why: late }))
                }
                State::Stopping { ordered, why } if *ordered + drain <= now && !unasked => {
                    let late = "the backend has not answered an order to stop it".to_owned();
                    Some((*why, Reason::Failed { why: late }))
                }
                _ => None,
            };
            if let Some((why, reason)) = late {
                self.change_failed(instance);
                self.order_stop(instance, why, reason, actions);
            }
        }
        self.retally(id);
    }

    /// Tells the routers a service's entry as it is now; returns the generation that says so.
    pub(crate) fn publish(&mut self, id: ServiceId, actions: &mut Vec<Action>) -> Generation {
        let generation = self.order_generation();
        let Some(s) = self.get(id) else { return generation };
        let mut instances = Vec::new();
        for &instance in &s.instances {
            let frozen = self.is_canary(Canary::RoutesToPaused);
            let shown = |state: &State| *state == State::Ready || frozen && *state == State::Paused;
            if let Some(Instance { state, address: Some(address), .. }) = self.instances.get(&instance)
                && shown(state)
            {
                let access = self.access(id, instance);
                instances.push(InstanceRoute { instance, address: *address, access });
            }
        }
        let unavailable = if instances.is_empty() { self.refusal(id) } else { None };
        let route = ServiceRoute {
            spec: Arc::clone(&s.spec),
            instances,
            notes: self.wait_notes(s),
            unavailable: unavailable.clone(),
        };
        let route = Some(Arc::new(route));
        self.mark_linked(id);
        if let Some(s) = self.get_mut(id) {
            s.refusing = unavailable.map(|u| u.why);
        }
        actions.push(Action::Route { generation, service: id, route });
        generation
    }

    fn wait_notes(&self, s: &Service) -> WaitNotes {
        let resumed = |id: &&InstanceId| self.is(**id, |i| i.resumed && i.state == State::Ready);
        let mut resumed: Vec<InstanceId> = s.instances.iter().filter(resumed).copied().collect();
        resumed.sort_unstable();
        let progress = match (s.told.progress.as_str(), s.failures) {
            ("", 0) => self.held_up(s.spec.id).unwrap_or_default(),
            ("", _) => format!("tried again after: {}", s.last_failure),
            (progress, _) => progress.to_owned(),
        };
        WaitNotes { progress, usual_start: self.demand.start_time(&s.spec), resumed }
    }

    /// Why requests for a service that has nothing ready are refused instead of held.
    pub(crate) fn refusal(&self, id: ServiceId) -> Option<Unavailable> {
        self.refusal_at(id, NEEDS_TOLD_MAX)
    }

    pub(crate) fn refusal_at(&self, id: ServiceId, depth: u32) -> Option<Unavailable> {
        let now = self.now;
        let s = self.get(id)?;
        let elder = self.elder(s);
        let by_hand =
            |s: &Service| s.told.down.is_some() || s.mode() != Mode::Act || s.bounds.word(now) == Some(0);
        if elder.spec.id != id && by_hand(elder) {
            return self.refusal(elder.spec.id);
        }
        let name = &s.spec.name;
        let refuse = |why: String, retry_after| Some(Unavailable { why, retry_after });
        if let Some(down) = &s.told.down {
            let at = clock(down.at, s.bounds.offset_seconds);
            let why = match down.gone {
                true => format!("{} (since {at}); bring it back, or `forerun resume {name}`", down.why),
                false => format!("{} at {at}; start it, or `forerun resume {name}`", down.why),
            };
            return refuse(why, Span::from_secs(60));
        }
        if s.failures > FAILURES_HELD && now < s.backoff_until {
            return refuse(s.last_failure.clone(), s.backoff_until.since(now));
        }
        if s.mode() != Mode::Act {
            let why = "forerun only watches this service (mode observe or advise) and starts nothing for it";
            return refuse(why.to_owned(), Span::from_secs(60));
        }
        if s.bounds.word(now) == Some(0) {
            let why = format!("a person keeps it at 0 instances; `forerun resume {name}` ends that");
            return refuse(why, Span::from_secs(60));
        }
        self.refused_by_need(s, depth)
    }

    /// Publishes when the reason to refuse comes, changes or goes.
    pub(crate) fn refuse_or_accept(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        let Some(s) = self.get(id) else { return };
        let refusal = if s.tally.ready == 0 { self.refusal(id) } else { None };
        if refusal.map(|r| r.why) != s.refusing {
            self.publish(id, actions);
        }
    }

    /// A service that was taken out of the configuration goes with its last instance.
    pub(crate) fn remove_if_left(&mut self, id: ServiceId, actions: &mut Vec<Action>) {
        if self.get(id).is_some_and(|s| s.leaving && s.instances.is_empty()) && !self.has_variants(id) {
            self.set_due(id, Time::NEVER);
            self.short.remove(&id);
            self.policy.service_gone(id);
            self.loads.gone(id);
            self.note_described();
            // Whoever waited for it waits in vain no longer.
            self.mark_linked(id);
            if let Some(s) = &self.services[id.0 as usize] {
                self.links.remove(&s.spec);
            }
            self.services[id.0 as usize] = None;
            self.classes.gone(id);
            self.service_removed(id);
            let generation = self.order_generation();
            actions.push(Action::Route { generation, service: id, route: None });
        }
    }
}
