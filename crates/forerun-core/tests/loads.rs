//! Load forecasts through the core's own door: traffic in, a forecast in the status out, and no decision changed.

use forerun_core::{Core, KeepAlive};
use forerun_types::*;
use std::sync::Arc;

const ROUTER: RouterId = RouterId(0);
const WEB: ServiceId = ServiceId(0);

struct World {
    core: Core<KeepAlive>,
    now: Time,
    actions: Vec<Action>,
}

impl World {
    fn new(followed: bool) -> Self {
        let mut core = Core::new(KeepAlive::new(Span::from_secs(60)));
        if followed {
            core.forecast_loads();
        }
        let mut world = Self { core, now: Time(1_000_000_000_000), actions: Vec::new() };
        let spec = ServiceSpec { concurrency: 10, ..ServiceSpec::named(WEB, "web") };
        for event in [Event::Began, Event::RouterJoined(ROUTER), Event::Service(Arc::new(spec))] {
            world.tell(event);
        }
        world
    }

    fn tell(&mut self, event: Event) {
        self.core.step(self.now, &event, &mut self.actions);
    }

    /// Ticks when they are due, as the engine's loop does.
    fn pass(&mut self, span: Span) {
        let until = self.now + span;
        while self.core.next_due() <= until {
            self.now = self.core.next_due().max(self.now + Span::from_millis(2));
            self.tell(Event::Tick);
        }
        self.now = until;
    }

    fn load(&mut self, in_flight: u32) {
        let load = ServiceLoad { service: WEB, in_flight, peak: in_flight, waiting: 0 };
        self.tell(Event::Traffic(Traffic { router: ROUTER, services: vec![load], ..Traffic::default() }));
    }

    /// So many minutes with six requests at a time for half of each.
    fn minutes(&mut self, minutes: u64) {
        for _ in 0..minutes {
            self.load(6);
            self.pass(Span::from_secs(30));
            self.load(0);
            self.pass(Span::from_secs(30));
        }
    }

    fn status(&self) -> forerun_core::ServiceStatus {
        self.core.services().next().expect("a service")
    }
}

#[test]
fn what_came_is_what_is_expected_and_nothing_else_changes() {
    let (mut followed, mut plain) = (World::new(true), World::new(false));
    for world in [&mut followed, &mut plain] {
        world.minutes(60);
        world.pass(Span::from_secs(2));
    }
    assert_eq!(plain.status().forecast, None);
    let told = followed.status().forecast.expect("an hour is enough");
    assert!((told.steps[0][1] - 6.0).abs() < 0.5, "{told:?}");
    assert!(told.from > Time(0) && told.from <= followed.now);
    let decided = |world: &World| format!("{:?}", world.actions);
    assert_eq!(decided(&followed), decided(&plain), "only told, not acted upon");
}

#[test]
fn a_new_life_goes_on_with_what_it_knew_and_a_gap() {
    let mut world = World::new(true);
    world.minutes(60);
    world.now += Span::from_secs(1_800);
    world.tell(Event::Began);
    world.tell(Event::RouterJoined(ROUTER));
    let spec = ServiceSpec { concurrency: 10, ..ServiceSpec::named(WEB, "web") };
    world.tell(Event::Service(Arc::new(spec)));
    world.minutes(3);
    world.pass(Span::from_secs(2));
    let told = world.status().forecast.expect("it is still known");
    assert!((told.steps[0][1] - 6.0).abs() < 0.5, "half an hour of nothing known is not 0: {told:?}");
}

#[test]
fn a_model_elsewhere_is_heard_through_its_event() {
    let mut world = World::new(true);
    for _ in 0..200 {
        world.minutes(1);
        let (from, step) = (Time(world.now.0 - world.now.0 % 60_000_000), Span::from_secs(60));
        world.tell(Event::ExternalPrediction {
            service: WEB,
            from,
            step,
            quantiles_milli: vec![[6_000; 5]; 40],
        });
        // One of a service that nobody knows is dropped.
        world.tell(Event::ExternalPrediction {
            service: ServiceId(77),
            from,
            step,
            quantiles_milli: vec![[u32::MAX; 5]; 40],
        });
    }
    world.pass(Span::from_secs(2));
    let told = world.status().forecast.expect("a forecast");
    assert!(told.weights.iter().any(|(name, weight)| *name == "outside" && *weight > 0.0), "{told:?}");
}

#[test]
fn hostile_predictions_do_no_harm() {
    let mut world = World::new(true);
    for (from, step, quantiles_milli) in [
        (Time::NEVER, Span::from_secs(60), vec![[1; 5]; 3]),
        (Time(0), Span::ZERO, vec![[1; 5]; 3]),
        (Time(0), Span(1), vec![[u32::MAX, 0, u32::MAX, 0, 1]; 10_000]),
        (Time(5), Span(u64::MAX), Vec::new()),
    ] {
        world.tell(Event::ExternalPrediction { service: WEB, from, step, quantiles_milli });
        world.minutes(15);
        let told = world.status().forecast.map_or(Vec::new(), |told| told.steps);
        assert!(told.iter().all(|step| step.is_sorted() && step.iter().all(|q| q.is_finite())), "{told:?}");
    }
}

/// Five seconds; at the first of a minute routers tell of services that have some load all the time, each with a rhythm
/// of its own.
fn five_seconds(world: &mut World, services: u32, at: u32) {
    if at.is_multiple_of(12) {
        let load = |id: u32| {
            let in_flight = 1 + (at / 12 * (id + 3)) % (5 + id % 7);
            ServiceLoad { service: ServiceId(id), in_flight, peak: in_flight, waiting: 0 }
        };
        let services = (0..services).map(load).collect();
        world.tell(Event::Traffic(Traffic { router: ROUTER, services, ..Traffic::default() }));
    }
    world.pass(Span::from_secs(5));
}

/// Guarantee: trees come from what was seen, a slice at a time, and a state that is written down in the middle of a fit
/// goes on as the one that was not.
#[test]
fn trees_are_fitted_on_the_way_and_in_any_life_the_same() {
    const SERVICES: u32 = 10;
    let mut world = World::new(true);
    for id in 1..SERVICES {
        let spec = ServiceSpec { concurrency: 10, ..ServiceSpec::named(ServiceId(id), format!("s{id}")) };
        world.tell(Event::Service(Arc::new(spec)));
    }
    let trees = |world: &World| {
        let told = world.status().forecast;
        told.is_some_and(|told| told.weights.iter().any(|(model, _)| *model == "trees"))
    };
    // So that no minute ends where it is looked whether something is due.
    world.pass(Span::from_secs(3));
    let (mut half, mut at) = (None, 0);
    while !trees(&world) {
        assert!(at < 12 * 400, "no fit was ever done");
        five_seconds(&mut world, SERVICES, at);
        at += 1;
        // What is due so soon, when all have long been forecast, is a fit's slice.
        if world.core.next_due() <= world.now + Span::from_millis(50) && half.is_none() {
            half = Some((postcard::to_allocvec(&world.core).expect("plain data"), world.now, at));
        }
    }
    let (bytes, now, from) = half.expect("a fit takes longer than that");
    let core: Core<KeepAlive> = postcard::from_bytes(&bytes).expect("what was written");
    let mut again = World { core, now, actions: Vec::new() };
    for at in from..at {
        five_seconds(&mut again, SERVICES, at);
    }
    assert_eq!(again.now, world.now);
    let bytes = |world: &World| postcard::to_allocvec(&world.core).expect("plain data");
    assert!(bytes(&again) == bytes(&world), "the same to the last bit");
}

/// Guarantee: a forecast of requests is one of instances, memory, network and, once readings tell of them, of cores and disks.
#[test]
fn a_forecast_of_activities_is_one_of_all_four_resources() {
    let mut world = World::new(true);
    world.load(0);
    // Six requests at a time of two seconds and 30 kB each, without end: three a second.
    for second in 0..1_200 {
        let done = |n: u64| Finished {
            service: WEB,
            action: ActionKey(1 + n % 2),
            instance: InstanceId(1),
            duration: Span::from_secs(2),
            held: Span::ZERO,
            network_bytes: 30_000,
            status: 200,
        };
        let load = ServiceLoad { service: WEB, in_flight: 6, peak: 6, waiting: 0 };
        let finished = (0..3).map(done).collect();
        let services = vec![load];
        let instances = vec![InstanceLoad { instance: InstanceId(1), in_flight: 6, last_used: world.now }];
        let traffic = Traffic { router: ROUTER, services, instances, finished, ..Traffic::default() };
        world.tell(Event::Traffic(traffic));
        world.tell(Event::InstanceTraffic {
            instance: InstanceId(1),
            network_bytes: 0,
            storage_bytes: second * 12_000,
        });
        world.tell(Event::InstanceUsage {
            instance: InstanceId(1),
            memory_bytes: 50_000_000,
            cpu: Span::from_millis(second * 90),
        });
        if second == 0 {
            let address = ([127, 0, 0, 1], 80).into();
            world.tell(Event::Ready { instance: InstanceId(1), address, took: Span::from_secs(1) });
        }
        world.pass(Span::from_secs(1));
    }
    world.pass(Span::from_secs(2));
    let spec = Arc::clone(world.core.specs().next().expect("a service"));
    let status = world.status();
    let told = status.forecast.clone().expect("twenty minutes are enough");
    let takes = status.takes(&spec, told.steps[0][1]);
    let near = |name: &str, found: f64, right: f64| {
        assert!((found - right).abs() < 0.1 * right, "{name}: {found} instead of {right}");
    };
    assert_eq!(takes.instances, 1, "ten at a time are one's: {takes:?}");
    near("memory", takes.memory_bytes, 50e6);
    near("cores", takes.cpu, 0.09);
    near("network", takes.network_bytes_per_s, 90e3);
    near("storage", takes.storage_bytes_per_s, 12e3);
    // Six at a time before ten places: one in twenty-seven would wait for longer than half a second.
    assert_eq!(status.instances_for_target(&spec), 2);
    let twice = status.takes(&spec, 2.0 * told.steps[0][1]);
    assert_eq!(twice.instances, 2);
    near("twice as many cores", twice.cpu, 2.0 * takes.cpu);
    for hostile in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        assert!(status.takes(&spec, hostile).cpu.is_finite(), "{hostile}");
    }
}
