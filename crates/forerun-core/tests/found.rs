//! What the simulation found, each as the shortest story that shows it.

#![allow(clippy::unwrap_used)]

use forerun_core::{Core, KeepAlive};
use forerun_types::*;
use std::sync::Arc;

const ROUTER: RouterId = RouterId(0);
const SERVICE: ServiceId = ServiceId(0);

struct Story {
    core: Core<KeepAlive>,
    actions: Vec<Action>,
}

impl Story {
    fn begin(spec: &ServiceSpec) -> Self {
        let mut story = Self { core: Core::new(KeepAlive::new(Span::from_secs(60))), actions: Vec::new() };
        story.at(1, Event::Began);
        story.at(1, Event::RouterJoined(ROUTER));
        story.at(1, Event::Service(Arc::new(spec.clone())));
        story
    }

    fn at(&mut self, seconds: u64, event: Event) {
        self.core.step(Time(seconds * 1_000_000), &event, &mut self.actions);
    }

    fn starts(&self) -> usize {
        self.actions.iter().filter(|a| matches!(a, Action::Start { .. })).count()
    }
}

fn spec(drain_seconds: u64) -> ServiceSpec {
    ServiceSpec { drain_timeout: Span::from_secs(drain_seconds), ..ServiceSpec::named(SERVICE, "s") }
}

fn waiting(waiting: u32) -> Event {
    Event::Waiting { router: ROUTER, service: SERVICE, user: UserKey(1), waiting }
}

#[test]
fn a_person_who_asked_for_none_gets_none_whatever_waits() {
    let mut story = Story::begin(&spec(5));
    let order = Override { instances: Some(0), until: Time(100_000_000) };
    story.at(2, Event::Override { service: SERVICE, order });
    story.at(3, waiting(1));
    // It was started and stopped again, over and over.
    assert_eq!(story.starts(), 0);
    story.at(101, Event::Tick);
    story.at(101, waiting(1));
    assert_eq!(story.starts(), 1, "the word holds until its time is over");
}

#[test]
fn a_longer_drain_time_does_not_make_the_core_ask_for_ticks_without_end() {
    let mut story = Story::begin(&spec(5));
    story.at(2, waiting(1));
    story.at(3, Event::Abandoned { router: ROUTER, service: SERVICE, waiting: 0 });
    story.at(4, Event::ServiceGone(SERVICE));
    assert!(story.actions.iter().any(|a| matches!(a, Action::Stop { .. })));
    story.at(5, Event::Service(Arc::new(spec(60))));
    // The first deadline, by the old drain time; the backend has not answered yet.
    let now = 4 + 5 + 10;
    story.at(now, Event::Tick);
    assert!(story.core.next_due() > Time(now * 1_000_000), "due {:?}", story.core.next_due());
}

#[test]
fn a_new_life_without_the_journals_end_has_newer_tables_than_the_old_one() {
    let generation = |actions: &[Action]| {
        actions
            .iter()
            .filter_map(|a| if let Action::Route { generation, .. } = a { Some(*generation) } else { None })
            .max()
    };
    let mut old = Story::begin(&spec(5));
    let restored = old.core.clone();
    for second in 2..50 {
        old.at(second, Event::Service(Arc::new(spec(second))));
    }
    let mut new = Story { core: restored, actions: Vec::new() };
    new.at(60, Event::Began);
    assert!(generation(&new.actions) > generation(&old.actions));
}

#[test]
fn an_instance_that_quiesced_and_was_brought_back_is_idle() {
    let mut story = Story::begin(&spec(30));
    story.at(2, waiting(1));
    let instance = InstanceId(1);
    let address = ([127, 0, 0, 1], 1).into();
    story.at(3, Event::Ready { instance, address, took: Span::from_secs(1) });
    let last_used = Time(3_000_000);
    let instances = vec![InstanceLoad { instance, in_flight: 1, last_used }];
    story.at(4, Event::Traffic(Traffic { router: ROUTER, instances, ..Traffic::default() }));
    let generation = Generation(u64::MAX);
    story.at(5, Event::Quiesced { router: ROUTER, instance, generation });
    let in_flight: Vec<u32> = story.core.services().flat_map(|s| s.instances).map(|i| i.in_flight).collect();
    // Its router had forgotten it, and would never have said that its last request ended.
    assert_eq!(in_flight, [0]);
}
