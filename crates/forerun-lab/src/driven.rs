//! Forerun's own policies: the live decision core, driven in virtual time.
//!
//! The core hears what it would hear from a live router and its backends, no earlier: a held request at once, all
//! other traffic a microsecond after it happened. Instances are modelled, requests are placed by the router's own
//! picks, and every `Want` of the core is a decision.

mod classes;
mod minutes;
mod requests;

pub(crate) use minutes::drive_minutes;
pub(crate) use requests::drive_requests;
pub use requests::learn;

use crate::options::Capacity;
use crate::requests::Requests;
use crate::scores::ClassScores;
use crate::{Decision, LabError, Options};
use forerun_core::{AnyPolicy, Core};
use forerun_route::LoadView;
use forerun_types::{
    Action, Event, Generation, InstanceId, Resources, RouterId, ServiceId, ServiceRoute, ServiceSpec, SiteId,
    SiteSpec, SlaClass, Span, Time, UserKey,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

const ROUTER: RouterId = RouterId(0);
/// Steps of one instant; a policy that takes more does not come to rest.
const STEPS_MAX: u32 = 1_000_000;
/// Modelled drains take as long as their requests do.
const DRAIN: Span = Span::from_secs(10 * 365 * 86_400);
/// The core's time of the trace's beginning, if the trace has no date. Time 0 is "never" to some.
const BASE_MIN: Time = Time(7 * 86_400 * 1_000_000);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Gone,
    Starting,
    Ready,
    /// Ordered to stop; gone when its requests are done.
    Stopping,
}

#[derive(Clone, Debug, Default)]
struct Instance {
    service: u32,
    state: State,
    in_flight: u32,
    last_used: Time,
    ready_at: Time,
    /// Requests that wait for it to be ready: positions in the trace.
    bound: Vec<u32>,
    /// The latest route entry that has it.
    listed: Generation,
    /// To be told quiet for this generation once its requests are done.
    draining: Option<Generation>,
    touched: bool,
}

#[derive(Debug, Default)]
struct Service {
    /// How long a start of it takes.
    start: Span,
    /// Requests that an instance of it serves at a time.
    slots: u32,
    known: bool,
    route: Option<Arc<ServiceRoute>>,
    /// Oldest first, which is the order in which they will be ready: starts of one service take equally long.
    starting: VecDeque<InstanceId>,
    /// Held requests that no starting instance is for: positions in the trace.
    unbound: VecDeque<u32>,
    held: u32,
    in_flight: u32,
    peak: u32,
    touched: bool,
    wanted: u32,
}

struct Loads<'a>(&'a [Instance]);

impl LoadView for Loads<'_> {
    fn in_flight(&self, instance: InstanceId) -> u32 {
        self.0[instance.0 as usize].in_flight
    }
    fn last_used(&self, instance: InstanceId) -> Time {
        self.0[instance.0 as usize].last_used
    }
}

/// Whether one more request may wait for a starting instance.
fn has_room(instance: &Instance, slots: u32) -> bool {
    instance.bound.len() < slots as usize
}

/// What a driven run did, by its own count: a check on the world that scores its decisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Driven {
    pub decisions: Vec<Decision>,
    pub requests: u64,
    /// Requests that found no ready instance.
    pub cold: u64,
    /// Sum of all waits.
    pub waited: Span,
    pub starts: u64,
    /// What each SLA class got, where a configuration says what classes there are.
    pub classes: Vec<ClassScores>,
}

/// What an action leads to at the same instant.
#[derive(Debug)]
enum Follow {
    Tell(Event),
    Ready(InstanceId),
}

/// The core with its modelled instances.
struct Fleet {
    core: Core<AnyPolicy>,
    base: Time,
    now: Time,
    services: Vec<Service>,
    instances: Vec<Instance>,
    actions: Vec<Action>,
    follows: VecDeque<Follow>,
    /// When starts are ready; those of one instant in the order in which they were ordered.
    starts: BinaryHeap<Reverse<(Time, u64, InstanceId)>>,
    /// Decisions of the present instant.
    wants: Vec<(ServiceId, u32)>,
    steps: u32,
    out: Driven,
    classes: Option<classes::Accounts>,
}

impl Fleet {
    /// `services` are in order of their numbers: how long a start takes, how much an instance serves at a time.
    fn new(
        policy: AnyPolicy,
        services: impl Iterator<Item = (Span, u32)>,
        origin_us: i64,
        options: &Options,
    ) -> Self {
        let all = services.map(|(start, slots)| Service { start, slots, ..Service::default() }).collect();
        let base = Time(u64::try_from(origin_us).unwrap_or(0)).max(BASE_MIN);
        let mut fleet = Self {
            core: Core::new(policy),
            base,
            now: Time(0),
            services: all,
            instances: Vec::new(),
            actions: Vec::new(),
            follows: VecDeque::new(),
            starts: BinaryHeap::new(),
            wants: Vec::new(),
            steps: 0,
            out: Driven::default(),
            classes: None,
        };
        let mut site = SiteSpec {
            id: SiteId(0),
            name: "lab".to_owned(),
            capacity: Resources::default(),
            instances_max: 0,
        };
        match options.world.capacity {
            Capacity::Unlimited => {}
            Capacity::Instances(most) => site.instances_max = most,
            Capacity::Bytes(most) => site.capacity.memory_bytes = most,
        }
        fleet.follows.push_back(Follow::Tell(Event::Site(site)));
        fleet.follows.push_back(Follow::Tell(Event::RouterJoined(ROUTER)));
        fleet
    }

    fn core_now(&self) -> Time {
        self.base + Span(self.now.0)
    }

    /// When the core wants a tick, in the lab's time.
    fn next_tick(&self) -> Time {
        match self.core.next_due() {
            Time::NEVER => Time::NEVER,
            due => Time(due.since(self.base).0).max(self.now),
        }
    }

    fn go_to(&mut self, at: Time) {
        if at > self.now {
            self.close_instant();
            self.account_until(at);
            self.now = at;
            self.steps = 0;
        }
    }

    /// The last word on each service is the decision of the instant.
    fn close_instant(&mut self) {
        let at = self.now;
        for n in 0..self.wants.len() {
            let (service, wanted) = self.wants[n];
            let last = !self.wants[n + 1..].iter().any(|w| w.0 == service);
            let s = &mut self.services[service.0 as usize];
            if last && s.wanted != wanted {
                s.wanted = wanted;
                self.out.decisions.push(Decision { at, service, wanted });
            }
        }
        self.wants.clear();
    }

    /// Tells the core, and carries out what it says until nothing follows at this instant.
    fn tell(&mut self, event: Event, requests: Option<&Requests<'_>>, ends: &mut Ends) {
        self.follows.push_back(Follow::Tell(event));
        self.run(requests, ends);
    }

    fn run(&mut self, requests: Option<&Requests<'_>>, ends: &mut Ends) {
        while let Some(follow) = self.follows.pop_front() {
            match follow {
                Follow::Tell(event) => self.step(&event),
                Follow::Ready(instance) => self.ready(instance, requests, ends),
            }
            if self.steps > STEPS_MAX {
                self.follows.clear();
            }
        }
    }

    fn step(&mut self, event: &Event) {
        self.steps += 1;
        let mut actions = std::mem::take(&mut self.actions);
        self.core.step(self.core_now(), event, &mut actions);
        for action in actions.drain(..) {
            self.act(action);
        }
        self.actions = actions;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Want { service, instances, .. } => self.wants.push((service, instances)),
            Action::Start { instance, service, .. } => self.start(instance, service),
            Action::Stop { instance, .. } => self.stop(instance),
            Action::Route { generation, service, route } => self.route(generation, service, route),
            // Modelled instances are started and stopped.
            _ => {}
        }
    }

    fn start(&mut self, id: InstanceId, service: ServiceId) {
        self.out.starts += 1;
        self.reserve(service, true);
        let at = id.0 as usize;
        if self.instances.len() <= at {
            self.instances.resize_with(at + 1, Instance::default);
        }
        let mut bound = Vec::new();
        let s = &mut self.services[service.0 as usize];
        while (bound.len() as u64) < u64::from(s.slots)
            && let Some(request) = s.unbound.pop_front()
        {
            bound.push(request);
        }
        s.starting.push_back(id);
        let last_used = self.now;
        self.instances[at] =
            Instance { service: service.0, state: State::Starting, last_used, bound, ..Instance::default() };
        let start = self.services[service.0 as usize].start;
        if start == Span::ZERO {
            self.follows.push_back(Follow::Ready(id));
        } else {
            self.starts.push(Reverse((self.now + start, self.out.starts, id)));
        }
    }

    fn stop(&mut self, id: InstanceId) {
        let instance = &mut self.instances[id.0 as usize];
        if instance.in_flight > 0 {
            instance.state = State::Stopping;
            return;
        }
        let service = ServiceId(instance.service);
        instance.state = State::Gone;
        self.reserve(service, false);
        let instance = &mut self.instances[id.0 as usize];
        let bound = std::mem::take(&mut instance.bound);
        self.services[service.0 as usize].starting.retain(|i| *i != id);
        self.follows.push_back(Follow::Tell(Event::Stopped { instance: id }));
        if !bound.is_empty() {
            self.rebind(service, bound);
        }
    }

    fn reserve(&mut self, service: ServiceId, is: bool) {
        if let Some(classes) = &mut self.classes {
            classes.reserved(service.0 as usize, is);
        }
    }

    /// Requests whose instance will not come wait for another that starts, or are told anew.
    fn rebind(&mut self, service: ServiceId, bound: Vec<u32>) {
        for request in bound.into_iter().rev() {
            self.services[service.0 as usize].unbound.push_front(request);
        }
        let s = &mut self.services[service.0 as usize];
        for id in &s.starting {
            let instance = &mut self.instances[id.0 as usize];
            while has_room(instance, s.slots)
                && let Some(request) = s.unbound.pop_front()
            {
                instance.bound.push(request);
            }
        }
        if !s.unbound.is_empty() {
            let waiting = Event::Waiting { router: ROUTER, service, user: UserKey::NOBODY, waiting: s.held };
            self.follows.push_back(Follow::Tell(waiting));
        }
    }

    fn route(&mut self, generation: Generation, service: ServiceId, route: Option<Arc<ServiceRoute>>) {
        for entry in route.iter().flat_map(|r| &r.instances) {
            let instance = &mut self.instances[entry.instance.0 as usize];
            instance.listed = generation;
            instance.draining = None;
        }
        let old = std::mem::replace(&mut self.services[service.0 as usize].route, route);
        for entry in old.iter().flat_map(|r| &r.instances) {
            let instance = &mut self.instances[entry.instance.0 as usize];
            if instance.listed == generation || instance.state == State::Gone {
                continue;
            }
            if instance.in_flight > 0 {
                instance.draining = Some(generation);
            } else {
                self.follows.push_back(Follow::Tell(quiesced(entry.instance, generation)));
            }
        }
    }

    fn ready(&mut self, id: InstanceId, requests: Option<&Requests<'_>>, ends: &mut Ends) {
        let instance = &mut self.instances[id.0 as usize];
        if instance.state != State::Starting {
            return;
        }
        instance.state = State::Ready;
        instance.ready_at = self.now;
        let service = instance.service as usize;
        let bound = std::mem::take(&mut instance.bound);
        let starting = &mut self.services[service].starting;
        // Almost always the oldest; those before it would have been ready by now.
        if starting.front() == Some(&id) {
            starting.pop_front();
        } else {
            starting.retain(|i| *i != id);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let took = self.services[service].start;
        self.step(&Event::Ready { instance: id, address, took });
        let Some(requests) = requests else { return };
        for request in bound {
            self.begin(id, request, requests, ends);
        }
        self.take_held(id, requests, ends);
    }

    /// An instance in the route table takes held requests while it has room.
    fn take_held(&mut self, id: InstanceId, requests: &Requests<'_>, ends: &mut Ends) {
        loop {
            let instance = &self.instances[id.0 as usize];
            let service = instance.service as usize;
            let free = instance.in_flight < self.services[service].slots;
            let listed =
                instance.state == State::Ready && instance.draining.is_none() && instance.listed.0 > 0;
            if !free || !listed {
                return;
            }
            let Some(request) = self.services[service].unbound.pop_front() else { return };
            self.begin(id, request, requests, ends);
        }
    }

    /// A request that was held reaches an instance.
    fn begin(&mut self, id: InstanceId, request: u32, requests: &Requests<'_>, ends: &mut Ends) {
        let event = &requests.trace.events[request as usize];
        let waited = self.now.since(event.at);
        self.out.waited = self.out.waited + waited;
        let service = event.service.0 as usize;
        self.services[service].held -= 1;
        if let Some(classes) = &mut self.classes {
            let cold = self.instances[id.0 as usize].ready_at > event.at;
            classes.placed(service, event.at, waited, cold);
        }
        self.hand_over(id, request, requests, ends);
    }

    fn hand_over(&mut self, id: InstanceId, request: u32, requests: &Requests<'_>, ends: &mut Ends) {
        let event = &requests.trace.events[request as usize];
        let instance = &mut self.instances[id.0 as usize];
        instance.in_flight += 1;
        instance.last_used = self.now;
        let s = &mut self.services[event.service.0 as usize];
        s.in_flight += 1;
        s.peak = s.peak.max(s.in_flight + s.held);
        ends.push(self.now + requests.duration(event), id, request, self.now.since(event.at));
    }
}

fn quiesced(instance: InstanceId, generation: Generation) -> Event {
    Event::Quiesced { router: ROUTER, instance, generation }
}

/// A request that is being served: when it ends, in which order it was placed, where, which, and how long it was held.
type Running = (Time, u64, InstanceId, u32, Span);

#[derive(Debug, Default)]
struct Ends {
    heap: BinaryHeap<Reverse<Running>>,
    seq: u64,
}

impl Ends {
    fn push(&mut self, at: Time, instance: InstanceId, request: u32, held: Span) {
        self.seq += 1;
        self.heap.push(Reverse((at, self.seq, instance, request, held)));
    }

    fn next(&self) -> Time {
        self.heap.peek().map_or(Time::NEVER, |e| e.0.0)
    }
}

fn restless(policy: &str, at: Time) -> LabError {
    LabError::Restless { policy: policy.to_owned(), at_s: at.as_secs_f64() }
}

fn spec(
    id: ServiceId,
    name: String,
    memory_bytes: u64,
    start: Span,
    concurrency: u32,
    options: &Options,
) -> ServiceSpec {
    let cold_start_milli_gbs = (options.cold_start_gbs * 1e3).round() as u64;
    let modelled = ServiceSpec {
        start_estimate: start,
        start_timeout: start + Span::from_secs(60),
        drain_timeout: DRAIN,
        resources: Resources { memory_bytes, ..Resources::default() },
        concurrency,
        sla: SlaClass { cold_start_milli_gbs, ..SlaClass::default() },
        ..ServiceSpec::named(id, name)
    };
    // What is lent must come back in time: then it counts how long a service's drains may take.
    let guaranteed = options.services.values().any(|s| s.sla.guarantee_milli > 0);
    match options.services.get(&modelled.name) {
        None => modelled,
        Some(told) => ServiceSpec {
            drain_timeout: if guaranteed { told.drain_timeout } else { modelled.drain_timeout },
            sla: told.sla.clone(),
            min: told.min,
            max: told.max,
            schedules: told.schedules.clone(),
            ..modelled
        },
    }
}
