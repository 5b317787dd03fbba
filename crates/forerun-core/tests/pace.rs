//! Many planned starts on an engine that makes one instance after the other. Each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

use forerun_core::{Core, LevelValue, Policy, View};
use forerun_types::*;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

const SERVICES: u32 = 60;
/// What the engine makes an instance in.
const EACH: Span = Span::from_millis(250);

/// One instance of every service, worth more the higher its number, until it is there.
struct One;

impl Policy for One {
    fn service(&mut self, _: &View<'_>) {}
    fn service_gone(&mut self, _: ServiceId) {}
    fn activity(&mut self, _: &Activity, _: &mut Vec<ServiceId>) {}
    fn needed(&mut self, _: Time, _: ServiceId, _: u32, _: u32) {}
    fn period(&mut self, _: Time, _: ServiceId, _: Span, _: u32) {}
    fn forget(&mut self, _: UserKey) {}
    fn appraise(&mut self, _: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time {
        if view.needed == 0 {
            let worth = 1_000_000 * (i64::from(view.spec.id.0) + 1);
            let reason = Reason::Bound { what: "it is wanted".to_owned() };
            values.push(LevelValue::new(worth, Span::from_secs(60), view.spec, reason));
        }
        Time::NEVER
    }
    fn next_stop(&self, _: Time, _: &View<'_>) -> Option<Time> {
        None
    }
}

/// A core over an engine that makes one instance at a time, in the order in which it is told to.
struct World {
    core: Core<One>,
    now: Time,
    queue: VecDeque<(InstanceId, ServiceId, Time)>,
    free_at: Time,
    /// Services in the order of their starts, and when each was ready.
    ordered: Vec<ServiceId>,
    ready: Vec<(ServiceId, Time)>,
    at_once: usize,
}

impl World {
    fn new() -> Self {
        let now = Time(1_000_000_000);
        let mut world = Self {
            core: Core::new(One),
            now,
            queue: VecDeque::new(),
            free_at: now,
            ordered: Vec::new(),
            ready: Vec::new(),
            at_once: 0,
        };
        world.tell(&Event::Began);
        world.tell(&Event::RouterJoined(RouterId(0)));
        world
    }

    fn describe(&mut self, services: std::ops::Range<u32>) {
        for id in services {
            let named = ServiceSpec::named(ServiceId(id), format!("s{id}"));
            self.tell(&Event::Service(Arc::new(ServiceSpec { start_estimate: EACH, ..named })));
        }
    }

    fn tell(&mut self, event: &Event) {
        let mut actions = Vec::new();
        self.core.step(self.now, event, &mut actions);
        for action in actions {
            if let Action::Start { instance, service, .. } = action {
                self.queue.push_back((instance, service, self.now));
                self.ordered.push(service);
            }
        }
        self.at_once = self.at_once.max(self.queue.len());
    }

    /// Until the engine has made all that it was told to, or the time is over.
    fn run(&mut self, most: Span) {
        let until = self.now + most;
        while let Some((instance, service, told)) = self.queue.front().copied() {
            let done = self.free_at.max(told) + EACH;
            let due = self.core.next_due().max(self.now);
            if done.min(due) > until {
                self.now = until;
                return;
            }
            if due < done {
                self.now = due;
                self.tell(&Event::Tick);
                continue;
            }
            (self.now, self.free_at) = (done, done);
            self.queue.pop_front();
            self.ready.push((service, done));
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            self.tell(&Event::Ready { instance, address, took: done.since(told) });
        }
    }
}

#[test]
fn a_held_request_does_not_wait_behind_all_that_is_foreseen() {
    let mut world = World::new();
    world.describe(0..SERVICES);
    world.run(Span::from_secs(2));
    // The engine is at its limit, and most is still to be made.
    assert!(world.ready.len() < 10 && world.at_once <= 10, "{} at once", world.at_once);
    let cold = ServiceId(8);
    assert!(!world.ordered.contains(&cold), "of those that wait it is worth least");
    let asked = world.now;
    world.tell(&Event::Waiting { router: RouterId(0), service: cold, waiting: 1, user: UserKey::NOBODY });
    assert_eq!(world.ordered.last(), Some(&cold), "in the very step of the request");
    world.run(Span::from_secs(60));
    let ready = world.ready.iter().find(|(service, _)| *service == cold).unwrap().1;
    assert!(ready.since(asked) <= Span::from_millis(2_500), "{:?}", ready.since(asked));
    // All that was foreseen is there in the end, no later than if it had been ordered at once.
    assert_eq!(world.ready.len(), SERVICES as usize);
    let last = world.ready.last().unwrap().1;
    assert_eq!(last.since(Time(1_000_000_000)), Span(EACH.0 * u64::from(SERVICES)));
}

#[test]
fn what_is_worth_most_is_started_first() {
    let mut world = World::new();
    world.describe(0..SERVICES);
    world.run(Span::from_secs(60));
    // The first ones were ordered as they were described, when nobody else was there.
    let by_worth: Vec<u32> = world.ordered[8..].iter().map(|s| s.0).collect();
    assert!(by_worth.is_sorted_by(|a, b| a > b), "{by_worth:?}");
    assert_eq!(world.ordered.len(), SERVICES as usize);
}

#[test]
fn a_start_that_is_given_up_makes_way_for_the_next() {
    let mut world = World::new();
    world.describe(0..SERVICES);
    while let Some((instance, ..)) = world.queue.pop_front() {
        let before = world.ordered.len();
        world.now += EACH;
        world.tell(&Event::StartFailed { instance, why: "no such image".to_owned() });
        if before < SERVICES as usize {
            assert!(world.ordered.len() > before, "{before} of {SERVICES} were ordered");
        }
        if before >= SERVICES as usize {
            return;
        }
    }
    panic!("only {} were ordered", world.ordered.len());
}

#[test]
fn services_that_go_while_they_wait_hold_nobody_up() {
    let mut world = World::new();
    world.describe(0..SERVICES);
    for id in 20..SERVICES {
        world.tell(&Event::ServiceGone(ServiceId(id)));
    }
    world.run(Span::from_secs(60));
    assert_eq!(world.ready.len(), 20);
}
