//! The core driven by hand: each test opens with what it guarantees.

use forerun_core::{Core, Forerun, InstanceState, KeepAlive, Policy};
use forerun_types::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

const ROUTER: RouterId = RouterId(0);

/// A core with an obedient world around it, whose starts take `start`.
struct World<P> {
    core: Core<P>,
    now: Time,
    start: Span,
    starting: BTreeMap<InstanceId, Time>,
    table: BTreeMap<ServiceId, Vec<InstanceId>>,
    in_flight: BTreeMap<InstanceId, u32>,
    log: Vec<String>,
    quiesce: bool,
}

impl<P: Policy> World<P> {
    fn new(policy: P, specs: &[ServiceSpec], site: SiteSpec) -> Self {
        let mut world = Self {
            core: Core::new(policy),
            now: Time(1_000_000_000),
            start: Span::from_secs(1),
            starting: BTreeMap::new(),
            table: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            log: Vec::new(),
            quiesce: true,
        };
        world.tell(Event::Began);
        world.tell(Event::Site(site));
        world.tell(Event::RouterJoined(ROUTER));
        for spec in specs {
            world.tell(Event::Service(Arc::new(spec.clone())));
        }
        world
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.step(self.now, &event, &mut actions);
        for action in actions {
            self.obey(action);
        }
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Want { service, instances, .. } => self.log.push(format!("want {service} {instances}")),
            Action::Start { instance, service, .. } => {
                self.log.push(format!("start {service}"));
                self.starting.insert(instance, self.now + self.start);
            }
            Action::Stop { instance, .. } => {
                self.log.push(format!("stop {instance}"));
                self.starting.remove(&instance);
                self.tell(Event::Stopped { instance });
            }
            Action::Route { generation, service, route } => {
                let ids: Vec<InstanceId> =
                    route.iter().flat_map(|r| &r.instances).map(|i| i.instance).collect();
                let gone: Vec<InstanceId> = self
                    .table
                    .get(&service)
                    .into_iter()
                    .flatten()
                    .copied()
                    .filter(|i| !ids.contains(i))
                    .collect();
                self.table.insert(service, ids);
                for instance in gone {
                    if self.quiesce && self.in_flight.get(&instance).copied().unwrap_or(0) == 0 {
                        self.tell(Event::Quiesced { router: ROUTER, instance, generation });
                    }
                }
            }
            Action::Finished => self.log.push("finished".to_owned()),
            other => self.log.push(format!("{other:?}")),
        }
    }

    /// Lets time pass, with ticks when they are due and starts that end.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        loop {
            let ready = self.starting.iter().map(|(i, t)| (*t, *i)).min();
            let due = self.core.next_due().max(self.now + Span(1));
            let (at, event) = match ready {
                Some((at, instance)) if at <= due => {
                    self.starting.remove(&instance);
                    let address = SocketAddr::from(([127, 0, 0, 1], 1));
                    (at, Event::Ready { instance, address, took: self.start })
                }
                _ => (due, Event::Tick),
            };
            if at > until {
                if let Event::Ready { instance, .. } = event {
                    self.starting.insert(instance, at);
                }
                self.now = until;
                return;
            }
            self.now = at;
            self.tell(event);
        }
    }

    fn gauge(&mut self, service: ServiceId, in_flight: u32, waiting: u32) {
        let instances = self.table.get(&service).cloned().unwrap_or_default();
        let mut left = in_flight;
        let mut loads = Vec::new();
        for instance in instances {
            let here = left.min(1);
            left -= here;
            self.in_flight.insert(instance, here);
            loads.push(InstanceLoad { instance, in_flight: here, last_used: self.now });
        }
        self.tell(Event::Traffic(Traffic {
            router: ROUTER,
            services: vec![ServiceLoad { service, in_flight, peak: in_flight + waiting, waiting }],
            instances: loads,
            ..Traffic::default()
        }));
    }

    fn hold(&mut self, service: ServiceId, waiting: u32) {
        self.tell(Event::Waiting { router: ROUTER, service, user: UserKey(0), waiting });
    }

    /// One request that finds or waits for an instance and takes `span`.
    fn request(&mut self, service: ServiceId, span: Span) {
        if self.table.get(&service).is_none_or(Vec::is_empty) {
            self.hold(service, 1);
            self.pass(self.start);
        }
        self.gauge(service, 1, 0);
        self.pass(span);
        self.gauge(service, 0, 0);
    }

    fn up(&self, service: ServiceId) -> usize {
        self.table.get(&service).map_or(0, Vec::len)
    }

    fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|l| l.starts_with(what)).count()
    }
}

fn spec(id: u32) -> ServiceSpec {
    ServiceSpec { start_estimate: Span::from_secs(1), ..ServiceSpec::named(ServiceId(id), format!("s{id}")) }
}

fn site(instances_max: u32) -> SiteSpec {
    SiteSpec { id: SiteId(0), name: "here".to_owned(), capacity: Resources::default(), instances_max }
}

const A: ServiceId = ServiceId(0);
const B: ServiceId = ServiceId(1);

#[test]
fn a_held_request_starts_an_instance_in_the_same_step() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    let mut actions = Vec::new();
    let now = world.now;
    world.core.step(
        now,
        &Event::Waiting { router: ROUTER, service: A, user: UserKey(0), waiting: 1 },
        &mut actions,
    );
    assert!(
        matches!(&actions[..], [Action::Start { reason: Reason::Waiting { waiting: 1 }, .. }]),
        "{actions:?}"
    );
}

#[test]
fn a_second_held_request_joins_nothing_but_starts_its_own() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    world.hold(A, 1);
    world.hold(A, 2);
    assert_eq!(world.count("start"), 2);
    // A repeat of the same gauge starts nothing more.
    world.hold(A, 2);
    assert_eq!(world.count("start"), 2);
}

#[test]
fn one_instance_serves_any_number_when_concurrency_is_zero() {
    let mut world =
        World::new(KeepAlive::new(Span::ZERO), &[ServiceSpec { concurrency: 0, ..spec(0) }], site(0));
    for waiting in 1..=50 {
        world.hold(A, waiting);
    }
    assert_eq!(world.count("start"), 1);
}

#[test]
fn a_fixed_keep_alive_keeps_just_so_long() {
    let mut world = World::new(KeepAlive::new(Span::from_secs(60)), &[spec(0)], site(0));
    world.request(A, Span::from_secs(1));
    world.pass(Span::from_secs(59));
    assert_eq!(world.up(A), 1);
    world.pass(Span::from_secs(1));
    assert_eq!(world.up(A), 0);
    assert_eq!((world.count("start"), world.count("stop")), (1, 1));
}

#[test]
fn no_instance_is_stopped_with_a_request_in_flight_until_its_drain_time() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    world.hold(A, 1);
    world.pass(Span::from_secs(1));
    world.gauge(A, 1, 0);
    world.quiesce = false;
    world.tell(Event::Override { service: A, order: Override { instances: Some(0), until: Time::NEVER } });
    world.pass(Span::from_secs(29));
    assert_eq!(world.count("stop"), 0, "busy: not even taken out of the table");
    world.gauge(A, 0, 0); // the router is slow to answer that it has quiesced
    assert_eq!((world.up(A), world.count("stop")), (0, 0));
    world.pass(Span::from_secs(29));
    assert_eq!(world.count("stop"), 0);
    world.pass(Span::from_secs(1));
    assert_eq!(world.count("stop"), 1, "its drain time has passed");
}

#[test]
fn a_draining_instance_comes_back_instead_of_a_new_start() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    world.quiesce = false;
    world.request(A, Span::from_secs(1));
    assert_eq!(world.up(A), 0);
    world.hold(A, 1);
    assert_eq!((world.up(A), world.count("start")), (1, 1));
    // An answer for the older table must not stop it now.
    let instance = world.table[&A][0];
    world.tell(Event::Quiesced { router: ROUTER, instance, generation: Generation(1) });
    assert_eq!(world.count("stop"), 0);
}

#[test]
fn forerun_learns_a_timer_and_is_there_before_it() {
    let mut world = World::new(Forerun::new(1 << 20), &[spec(0)], site(0));
    let mut cold = 0;
    for round in 0..20 {
        if round >= 10 {
            cold += usize::from(world.up(A) == 0);
        }
        let before = world.now;
        world.request(A, Span::from_millis(100));
        let period = Span::from_secs(300);
        let busy = world.now.since(before);
        world.pass(Span::from_secs(100));
        if round >= 10 {
            assert_eq!(world.up(A), 0, "kept through a gap that it knows to be long, round {round}");
        }
        world.pass(period - busy - Span::from_secs(100));
    }
    assert!(cold <= 1, "{cold} of 10 timers met a cold start");
}

#[test]
fn capacity_is_never_exceeded_and_the_least_valuable_goes() {
    let specs = [spec(0), spec(1), spec(2)];
    let mut world = World::new(KeepAlive::new(Span::from_secs(600)), &specs, site(2));
    world.request(A, Span::from_secs(1));
    world.pass(Span::from_secs(10));
    world.request(B, Span::from_secs(1));
    world.hold(ServiceId(2), 1);
    assert_eq!((world.up(A), world.up(B), world.count("start")), (0, 1, 3), "{:?}", world.log);
    let status = world.core.sites().next().expect("a site");
    assert!(status.instances <= 2 && status.shadow_price > 0, "{status:?}");
    world.tell(Event::Site(site(9)));
    world.pass(Span::from_secs(2));
    assert_eq!(
        (world.up(A), world.core.sites().next().expect("a site").shadow_price),
        (1, 0),
        "with room for all memory has no price"
    );
}

#[test]
fn a_held_request_gets_the_room_that_comes() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0), spec(1)], site(1));
    world.hold(A, 1);
    world.pass(Span::from_secs(1));
    world.gauge(A, 1, 0);
    world.hold(B, 1);
    assert_eq!(world.count("start"), 1, "no room while A is busy");
    world.gauge(A, 0, 0);
    assert_eq!(world.count("start"), 2, "{:?}", world.log);
}

#[test]
fn a_plan_does_not_take_back_what_was_evicted_for_a_held_request() {
    let specs = [spec(0), spec(1)];
    let mut world = World::new(KeepAlive::new(Span::from_secs(600)), &specs, site(1));
    world.request(A, Span::from_secs(1));
    world.pass(Span::from_secs(10));
    // The router takes its time to let go of it.
    world.quiesce = false;
    world.hold(B, 1);
    assert_eq!((world.up(A), world.count("stop")), (0, 0), "it drains");
    world.gauge(A, 0, 0);
    world.pass(Span::from_secs(1));
    assert_eq!(world.up(A), 0, "A's plan took it back: {:?}", world.log);
    let generation = Generation(u64::MAX);
    world.tell(Event::Quiesced { router: ROUTER, instance: InstanceId(1), generation });
    assert_eq!((world.count("stop"), world.count("start s1")), (1, 1), "{:?}", world.log);
}

#[test]
fn a_full_site_comes_to_rest_after_every_event() {
    // Six services that would all keep what they have, on a site with room for three.
    let specs: Vec<ServiceSpec> = (0..6).map(spec).collect();
    let mut world = World::new(Forerun::new(1 << 20), &specs, site(3));
    let mut state = 3u64;
    for round in 0..400 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        world.log.clear();
        world.request(ServiceId((state >> 33) as u32 % 6), Span::from_millis(state >> 40 & 0x1fff));
        world.pass(Span::from_millis(state >> 45 & 0xffff));
        assert!(world.count("start") < 60, "round {round} thrashes: {:?}", world.log);
        assert!(world.core.sites().next().expect("a site").instances <= 3);
    }
}

#[test]
fn min_max_and_a_persons_word_bound_the_plan() {
    let mut world =
        World::new(KeepAlive::new(Span::ZERO), &[ServiceSpec { min: 1, max: 2, ..spec(0) }], site(0));
    world.pass(Span::from_secs(2));
    assert_eq!(world.up(A), 1);
    world.gauge(A, 1, 0);
    world.hold(A, 5);
    world.pass(Span::from_secs(2));
    assert_eq!(world.up(A), 2);
    world.gauge(A, 0, 0);
    assert_eq!(world.up(A), 1);
    let until = world.now + Span::from_secs(60);
    world.tell(Event::Override { service: A, order: Override { instances: Some(3), until } });
    world.pass(Span::from_secs(2));
    assert_eq!(world.up(A), 3);
    world.pass(Span::from_secs(60));
    assert_eq!(world.up(A), 1, "the word ends by itself");
}

#[test]
fn observe_changes_nothing_outside() {
    let mut world =
        World::new(Forerun::new(1 << 20), &[ServiceSpec { mode: Mode::Observe, min: 1, ..spec(0) }], site(0));
    world.hold(A, 1);
    world.gauge(A, 0, 1);
    world.pass(Span::from_secs(100));
    assert_eq!((world.count("start"), world.count("stop")), (0, 0));
    assert!(world.count("want") > 0, "but it says what it would want");
}

#[test]
fn a_crash_loop_backs_off_and_tells_the_router_why() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    world.start = Span::from_secs(1_000);
    world.hold(A, 1);
    for failure in 1..=3u32 {
        let instance = *world.starting.keys().next().unwrap();
        world.starting.clear();
        let mut actions = Vec::new();
        let now = world.now;
        world.core.step(
            now,
            &Event::StartFailed { instance, why: "exited with 1: no such file".into() },
            &mut actions,
        );
        let told = actions.iter().rev().find_map(|a| match a {
            Action::Route { route: Some(route), .. } => Some(route.unavailable.clone()),
            _ => None,
        });
        let refused = told.flatten();
        for action in actions {
            world.obey(action);
        }
        match failure {
            1 => {
                assert!(refused.is_none(), "the first failure is tried again at once");
                assert_eq!(world.count("start"), 2);
            }
            2 => {
                assert!(
                    refused.is_none(),
                    "the second is tried again after a short pause, through which requests are held"
                );
                assert_eq!(world.count("start"), 2);
                world.pass(Span::from_secs(1));
                assert_eq!(world.count("start"), 3);
            }
            _ => assert!(refused.unwrap().why.contains("no such file")),
        }
    }
    world.pass(Span::from_secs(60));
    world.hold(A, 1);
    assert_eq!(world.count("start"), 4, "and after the pause it may try again");
}

#[test]
fn instances_that_fail_together_have_failed_once() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    world.start = Span::from_secs(1_000);
    world.hold(A, 4);
    assert_eq!(world.count("start"), 4);
    world.pass(Span::from_secs(1));
    let together: Vec<InstanceId> = world.starting.keys().copied().collect();
    for instance in together {
        world.starting.remove(&instance);
        world.tell(Event::StartFailed { instance, why: "no memory".into() });
    }
    assert_eq!(world.count("start"), 8, "each was tried again at once");
    assert!(world.core.services().all(|s| s.failing.as_deref() == Some("no memory")));
}

#[test]
fn shutting_down_stops_everything_and_says_when_it_has() {
    let mut world = World::new(
        KeepAlive::new(Span::from_secs(600)),
        &[spec(0), ServiceSpec { min: 2, ..spec(1) }],
        site(0),
    );
    world.request(A, Span::from_secs(1));
    world.tell(Event::ShutDown);
    assert_eq!(world.count("stop"), 3);
    assert_eq!(world.count("finished"), 1);
    world.hold(A, 1);
    world.pass(Span::from_secs(10));
    assert_eq!(world.count("start"), 3, "nothing starts any more");
}

#[test]
fn users_on_their_way_are_met_by_a_warm_instance() {
    // Fifty users go from A to B, 5 s later; nobody else comes to B. Each round, a new user.
    let cold = |policy: Forerun| {
        let mut world = World::new(policy, &[ServiceSpec { min: 1, ..spec(0) }, spec(1)], site(0));
        let mut cold = 0;
        let mut state = 7u64;
        for user in 1..=60u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            for service in [A, B] {
                let activity = Activity {
                    at: world.now,
                    tenant: TenantKey(0),
                    user: UserKey(user),
                    group: GroupKey(0),
                    site: SiteId(0),
                    service,
                    action: ActionKey(1),
                };
                if service == B && user > 30 {
                    cold += usize::from(world.up(B) == 0);
                }
                world.tell(Event::Traffic(Traffic { activities: vec![activity], ..Traffic::default() }));
                world.request(service, Span::from_millis(50));
                world.pass(Span::from_secs(5));
            }
            world.pass(Span::from_secs(200 + (state >> 33) % 4_000));
        }
        cold
    };
    let (with, without) = (cold(Forerun::new(1 << 20)), cold(Forerun::without_users(1 << 20)));
    assert!(with <= 6, "{with} of 30 met a cold start although they were expected");
    assert!(without >= 20, "{without}: the gaps alone should tell nothing here");
    let (users_only, neither) =
        (cold(Forerun::without_load(1 << 20)), cold(Forerun::without_either(1 << 20)));
    assert!(users_only <= 6 && neither >= 20, "{users_only} by users alone, {neither} by neither");
}

#[test]
fn the_same_events_give_the_same_actions_also_from_a_snapshot() {
    let script = |world: &mut World<Forerun>, from: u64, to: u64| {
        for round in from..to {
            world.request(ServiceId((round % 2) as u32), Span::from_millis(10 * (round % 7)));
            world.pass(Span::from_secs(3 + round % 5 * 40));
        }
    };
    let specs = [spec(0), spec(1)];
    let mut one = World::new(Forerun::new(1 << 20), &specs, site(3));
    script(&mut one, 0, 60);
    let snapshot = postcard::to_allocvec(&one.core).unwrap();
    let mut two = World {
        core: postcard::from_bytes(&snapshot).unwrap(),
        log: Vec::new(),
        ..World::new(Forerun::new(1 << 20), &specs, site(3))
    };
    (two.now, two.table, two.starting) = (one.now, one.table.clone(), one.starting.clone());
    one.log.clear();
    script(&mut one, 60, 120);
    script(&mut two, 60, 120);
    assert!(!one.log.is_empty());
    assert_eq!(one.log, two.log);
}

#[test]
fn status_shows_what_is_up_and_why() {
    let mut world = World::new(KeepAlive::new(Span::from_secs(600)), &[spec(0)], site(0));
    world.request(A, Span::from_secs(1));
    world.pass(Span::from_secs(10));
    let status = world.core.services().next().unwrap();
    assert_eq!((status.wanted, status.instances.len()), (1, 1));
    assert_eq!(status.instances[0].state, InstanceState::Ready);
    assert!(status.reason.contains("of 10m"), "{}", status.reason);
    assert_eq!(status.next_stop, Some(world.now + Span::from_secs(590)));
}

#[test]
fn forerun_foresees_its_next_stop() {
    let mut world = World::new(Forerun::new(1 << 20), &[spec(0)], site(0));
    for _ in 0..30 {
        world.request(A, Span::from_millis(100));
        world.pass(Span::from_secs(20));
    }
    let at = world.core.services().next().unwrap().next_stop.expect("it is kept, for it is back every 20 s");
    // Not to the second: that nothing comes is learned from meanwhile.
    let foreseen = at.since(world.now);
    world.pass(Span(foreseen.0 / 4));
    assert_eq!(world.up(A), 1, "{foreseen}");
    world.pass(Span(foreseen.0 * 3 / 4) + Span::from_secs(20));
    assert_eq!(world.up(A), 0, "{foreseen}");
}

#[test]
fn a_new_life_starts_nothing_before_the_world_is_described() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[ServiceSpec { min: 1, ..spec(0) }], site(0));
    world.pass(Span::from_secs(2));
    assert_eq!(world.up(A), 1);
    world.starting.clear();
    world.table.clear();
    world.log.clear();
    world.tell(Event::Began);
    assert_eq!(world.count("start"), 0, "the description is an earlier life's");
    world.tell(Event::Service(Arc::new(ServiceSpec { min: 1, mode: Mode::Observe, ..spec(0) })));
    world.pass(Span::from_secs(100));
    assert_eq!(world.count("start"), 0, "and now it is only watched");
}

#[test]
fn two_that_must_be_up_do_not_take_the_only_room_from_each_other() {
    let always = Schedule {
        minutes: u64::MAX,
        hours: u32::MAX,
        days: u32::MAX,
        months: u16::MAX,
        weekdays: u8::MAX,
        either_day: false,
        open_for: Span::from_secs(3_600),
        min: 1,
    };
    let specs = [ServiceSpec { schedules: vec![always], ..spec(0) }, ServiceSpec { min: 1, ..spec(1) }];
    let mut world = World::new(KeepAlive::new(Span::ZERO), &specs, site(1));
    world.pass(Span::from_secs(30));
    assert_eq!((world.up(A) + world.up(B), world.count("start")), (1, 1), "{:?}", world.log);
}

#[test]
fn a_start_for_a_client_that_gives_up_is_judged_by_its_chances() {
    let mut world = World::new(KeepAlive::new(Span::from_secs(60)), &[spec(0)], site(0));
    world.start = Span::from_secs(3);
    world.hold(A, 1);
    world.pass(Span::from_secs(1));
    world.tell(Event::Abandoned { router: ROUTER, service: A, waiting: 0 });
    world.pass(Span::from_secs(5));
    assert_eq!((world.up(A), world.count("start"), world.count("stop")), (1, 1, 0), "{:?}", world.log);
}

#[test]
fn a_failure_is_told_only_while_nothing_is_ready() {
    let mut world = World::new(KeepAlive::new(Span::from_secs(600)), &[spec(0)], site(0));
    world.hold(A, 1);
    let instance = *world.starting.keys().next().unwrap();
    world.starting.clear();
    world.tell(Event::StartFailed { instance, why: "exited with 1".to_owned() });
    assert!(world.core.services().next().unwrap().failing.is_some());
    world.pass(Span::from_secs(2));
    assert_eq!((world.up(A), world.core.services().next().unwrap().failing), (1, None));
}

/// What `min` keeps goes for a held request where it was started under a larger description, and comes back smaller.
#[test]
fn what_was_started_larger_than_it_is_described_now_makes_room() {
    let sized = |id, memory_bytes, min| ServiceSpec {
        resources: Resources { memory_bytes, ..Resources::default() },
        min,
        ..spec(id)
    };
    let memory = SiteSpec { capacity: Resources { memory_bytes: 8, ..Resources::default() }, ..site(0) };
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[sized(0, 6, 1), sized(1, 4, 0)], memory);
    world.pass(Span::from_secs(2));
    world.hold(B, 1);
    world.pass(Span::from_secs(5));
    assert_eq!((world.up(A), world.up(B)), (1, 0), "min of its own size is spared");
    world.tell(Event::Service(Arc::new(sized(0, 4, 1))));
    world.pass(Span::from_secs(5));
    assert_eq!((world.up(A), world.up(B)), (1, 1), "{:?}", world.log);
    assert_eq!((world.count("stop"), world.core.sites().next().expect("a site").used.memory_bytes), (1, 8));
}

/// No instance has an id that another one had in a life whose journal lost its end.
#[test]
fn a_new_life_gives_no_id_that_a_lost_one_gave() {
    let mut world = World::new(KeepAlive::new(Span::ZERO), &[spec(0)], site(0));
    world.now = Time(1_800_000_000_000_000);
    let kept = world.core.clone();
    let ids = |world: &mut World<KeepAlive>| {
        world.tell(Event::Began);
        world.tell(Event::RouterJoined(ROUTER));
        world.starting.clear();
        world.hold(A, 300);
        world.starting.keys().copied().collect::<Vec<_>>()
    };
    let first = ids(&mut world);
    world.core = kept;
    world.now += Span::from_millis(100);
    let second = ids(&mut world);
    assert_eq!((first.len(), second.len()), (300, 300));
    assert!(first.last() < second.first(), "{first:?} {second:?}");
}
