//! The core over single requests.

use super::classes::Accounts;
use super::{
    Driven, Ends, Fleet, Follow, Loads, ROUTER, STEPS_MAX, State, has_room, quiesced, restless, spec,
};
use crate::requests::Requests;
use crate::{LabError, Options};
use forerun_core::{AnyPolicy, Core};
use forerun_route::{Pick, pick};
use forerun_types::{
    Activity, Event, Finished, InstanceId, InstanceLoad, ServiceId, ServiceLoad, ServiceSpec, SiteId, Span,
    Time, Traffic,
};
use std::cmp::Reverse;
use std::sync::Arc;

/// A router tells of traffic after the fact; in the lab, by the least time there is.
const REPORT_DELAY: Span = Span(1);

/// The world of requests around the core.
struct Drive<'a> {
    fleet: Fleet,
    requests: &'a Requests<'a>,
    ends: Ends,
    options: &'a Options,
    arrived: usize,
    /// What the router will tell, and when.
    traffic: Traffic,
    report: Time,
    touched_services: Vec<ServiceId>,
    touched_instances: Vec<InstanceId>,
    draw: u64,
}

/// Runs the core over the requests and beyond, up to `options.until`.
pub(crate) fn drive_requests(
    policy: AnyPolicy,
    name: &str,
    requests: &Requests<'_>,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Driven, LabError> {
    drive(policy, name, requests, options, progress).map(|fleet| fleet.out)
}

/// The core as it is at `options.until`, with what it has learned by then. Its clock reads as the trace's does.
///
/// # Errors
/// When the policy never comes to rest at an instant.
pub fn learn(
    policy: AnyPolicy,
    requests: &Requests<'_>,
    options: &Options,
) -> Result<Core<AnyPolicy>, LabError> {
    drive(policy, "forerun", requests, options, &mut |_| {}).map(|fleet| fleet.core)
}

fn drive(
    policy: AnyPolicy,
    name: &str,
    requests: &Requests<'_>,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Fleet, LabError> {
    let trace = requests.trace;
    let services = requests.start.iter().copied().zip(requests.slots.iter().copied());
    let mut fleet = Fleet::new(policy, services, trace.origin_us, options);
    fleet.classes = Accounts::new(requests, options);
    let mut drive = Drive {
        fleet,
        requests,
        ends: Ends::default(),
        options,
        arrived: 0,
        traffic: Traffic { router: ROUTER, ..Traffic::default() },
        report: Time::NEVER,
        touched_services: Vec::new(),
        touched_instances: Vec::new(),
        draw: options.seed,
    };
    let run_until = options.until.unwrap_or(Time(0)).max(requests.horizon);
    drive.fleet.run(Some(requests), &mut drive.ends);
    while drive.next(run_until) {
        if drive.fleet.steps > STEPS_MAX {
            return Err(restless(name, drive.fleet.now));
        }
        if drive.arrived.is_multiple_of(1 << 14) {
            progress(drive.arrived as u64);
        }
    }
    drive.fleet.close_instant();
    drive.fleet.close_accounts(requests);
    Ok(drive.fleet)
}

impl Drive<'_> {
    /// The next thing that happens; false when nothing does any more. At one instant: finishes, what is ready, what
    /// the router tells, ticks, arrivals.
    fn next(&mut self, run_until: Time) -> bool {
        let end = self.ends.next();
        let ready = self.fleet.starts.peek().map_or(Time::NEVER, |s| s.0.0);
        let tick = self.fleet.next_tick();
        let arrival = self.requests.trace.events.get(self.arrived).map_or(Time::NEVER, |e| e.at);
        let at = end.min(ready).min(self.report).min(tick).min(arrival);
        if at > run_until {
            return false;
        }
        self.fleet.go_to(at);
        if end == at {
            self.end();
        } else if ready == at {
            self.ready();
        } else if self.report == at {
            self.tell_traffic();
        } else if tick == at {
            self.fleet.tell(Event::Tick, Some(self.requests), &mut self.ends);
        } else {
            self.arrive();
        }
        true
    }

    fn arrive(&mut self) {
        let position = self.arrived as u32;
        let event = &self.requests.trace.events[self.arrived];
        self.arrived += 1;
        self.fleet.out.requests += 1;
        let at = event.service.0 as usize;
        if !std::mem::replace(&mut self.fleet.services[at].known, true) {
            let spec = self.spec(event.service);
            if spec.sla.cold_start_budget_ppm > 0 {
                let (class, ppm) = (spec.sla.name.clone(), spec.sla.cold_start_budget_ppm);
                let budget = Event::ColdStartBudget { class, ppm };
                self.fleet.tell(budget, Some(self.requests), &mut self.ends);
            }
            self.fleet.tell(Event::Service(spec), Some(self.requests), &mut self.ends);
        }
        self.traffic.activities.push(Activity {
            at: self.fleet.core_now(),
            tenant: event.tenant,
            user: event.user,
            group: event.group,
            site: SiteId(0),
            service: event.service,
            action: event.action,
        });
        self.touch_service(event.service);
        let draw = self.next_draw();
        let picked = match &self.fleet.services[at].route {
            Some(route) => pick(route, &Loads(&self.fleet.instances), None, draw),
            None => Pick::Hold,
        };
        if let Pick::Use(entry) = picked {
            let instance = entry.instance;
            if let Some(classes) = &mut self.fleet.classes {
                classes.placed(at, event.at, Span::ZERO, false);
            }
            self.fleet.hand_over(instance, position, self.requests, &mut self.ends);
            self.touch_instance(instance);
            return;
        }
        self.hold(position, event.service);
    }

    /// No ready instance can take it: the one that is ready soonest will, or the one that the core now starts.
    fn hold(&mut self, position: u32, service: ServiceId) {
        let fleet = &mut self.fleet;
        fleet.out.cold += 1;
        let instances = &mut fleet.instances;
        let s = &mut fleet.services[service.0 as usize];
        s.held += 1;
        s.peak = s.peak.max(s.in_flight + s.held);
        let slots = s.slots;
        let room = |i: &InstanceId| has_room(&instances[i.0 as usize], slots);
        match s.starting.iter().copied().find(room) {
            Some(starting) => instances[starting.0 as usize].bound.push(position),
            None => s.unbound.push_back(position),
        }
        let user = self.requests.trace.events[position as usize].user;
        let waiting = Event::Waiting { router: ROUTER, service, user, waiting: s.held };
        fleet.tell(waiting, Some(self.requests), &mut self.ends);
    }

    fn end(&mut self) {
        let Some(Reverse((_, _, id, request, held))) = self.ends.heap.pop() else { return };
        let event = &self.requests.trace.events[request as usize];
        let duration = self.requests.duration(event);
        let (service, action) = (event.service, event.action);
        self.traffic.finished.push(Finished {
            service,
            action,
            instance: id,
            duration,
            held,
            network_bytes: 0,
            status: 200,
        });
        let fleet = &mut self.fleet;
        fleet.services[service.0 as usize].in_flight -= 1;
        let instance = &mut fleet.instances[id.0 as usize];
        instance.in_flight -= 1;
        instance.last_used = fleet.now;
        if instance.in_flight == 0 {
            if let Some(generation) = instance.draining.take() {
                fleet.follows.push_back(Follow::Tell(quiesced(id, generation)));
            }
            if instance.state == State::Stopping {
                instance.state = State::Gone;
                fleet.reserve(service, false);
                fleet.follows.push_back(Follow::Tell(Event::Stopped { instance: id }));
            }
        }
        fleet.take_held(id, self.requests, &mut self.ends);
        fleet.run(Some(self.requests), &mut self.ends);
        self.touch_service(service);
        self.touch_instance(id);
    }

    fn ready(&mut self) {
        let Some(Reverse((_, _, id))) = self.fleet.starts.pop() else { return };
        self.fleet.follows.push_back(Follow::Ready(id));
        self.fleet.run(Some(self.requests), &mut self.ends);
        let instance = &self.fleet.instances[id.0 as usize];
        if instance.in_flight > 0 {
            let service = ServiceId(instance.service);
            self.touch_service(service);
            self.touch_instance(id);
        }
    }

    /// The router's report of all that happened since the last.
    fn tell_traffic(&mut self) {
        self.report = Time::NEVER;
        let mut traffic = std::mem::take(&mut self.traffic);
        for service in self.touched_services.drain(..) {
            let s = &mut self.fleet.services[service.0 as usize];
            s.touched = false;
            traffic.services.push(ServiceLoad {
                service,
                in_flight: s.in_flight,
                peak: s.peak,
                waiting: s.held,
            });
            s.peak = s.in_flight + s.held;
        }
        for instance in self.touched_instances.drain(..) {
            let i = &mut self.fleet.instances[instance.0 as usize];
            i.touched = false;
            let last_used = self.fleet.base + Span(i.last_used.0);
            traffic.instances.push(InstanceLoad { instance, in_flight: i.in_flight, last_used });
        }
        let event = Event::Traffic(traffic);
        self.fleet.step(&event);
        self.fleet.run(Some(self.requests), &mut self.ends);
        if let Event::Traffic(mut told) = event {
            // The same vectors again: no allocation by request.
            told.activities.clear();
            told.finished.clear();
            told.services.clear();
            told.instances.clear();
            self.traffic = told;
        }
    }

    fn touch_service(&mut self, service: ServiceId) {
        self.report = self.report.min(self.fleet.now + REPORT_DELAY);
        if !std::mem::replace(&mut self.fleet.services[service.0 as usize].touched, true) {
            self.touched_services.push(service);
        }
    }

    fn touch_instance(&mut self, instance: InstanceId) {
        if !std::mem::replace(&mut self.fleet.instances[instance.0 as usize].touched, true) {
            self.touched_instances.push(instance);
        }
    }

    fn spec(&self, id: ServiceId) -> Arc<ServiceSpec> {
        let memory_bytes = self.requests.memory_known[id.0 as usize];
        let name = self.requests.trace.services[id.0 as usize].clone();
        let (start, slots) = (self.requests.start[id.0 as usize], self.requests.slots[id.0 as usize]);
        let concurrency = if slots == u32::MAX { 0 } else { slots };
        Arc::new(spec(id, name, memory_bytes, start, concurrency, self.options))
    }

    /// SplitMix64.
    fn next_draw(&mut self) -> u64 {
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.draw ^ (self.draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
