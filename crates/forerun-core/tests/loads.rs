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
