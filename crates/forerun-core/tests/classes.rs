//! SLA classes: a guaranteed share is there at once or within a drain, what is lent comes back, and where nothing is
//! guaranteed the higher priority goes first.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{InstanceState, KeepAlive};
use forerun_types::*;
use story::{A, B, C, Story};

const SECOND: Span = Span::from_secs(1);

fn class(name: &str, priority: u8, guarantee_milli: u32) -> SlaClass {
    SlaClass { name: name.to_owned(), priority, guarantee_milli, ..SlaClass::default() }
}

fn service(id: ServiceId, sla: &SlaClass) -> ServiceSpec {
    ServiceSpec { sla: sla.clone(), drain_timeout: SECOND, ..ServiceSpec::named(id, format!("s{}", id.0)) }
}

/// A site for so many instances.
fn world(specs: &[ServiceSpec], instances_max: u32) -> Story<KeepAlive> {
    let mut story = Story::with(KeepAlive::new(Span::from_secs(600)), specs);
    let (id, name, capacity) = (SiteId(0), "here".to_owned(), Resources::default());
    story.tell(Event::Site(SiteSpec { id, name, capacity, instances_max }));
    story
}

/// Requests that are held until each has an instance, and then served or done.
fn fill(story: &mut Story<KeepAlive>, service: ServiceId, instances: u32, in_use: bool) {
    story.hold(service, instances);
    for id in story.ids(InstanceState::Starting) {
        story.ready(id, 1);
    }
    let ids: Vec<InstanceId> = story.status(service).instances.iter().map(|i| i.instance).collect();
    let in_flight = u32::from(in_use);
    let load = |instance| InstanceLoad { instance, in_flight, last_used: Time(story.seconds * 1_000_000) };
    let all = instances * in_flight;
    let traffic = Traffic {
        router: story::ROUTER,
        services: vec![ServiceLoad { service, in_flight: all, peak: instances, waiting: 0 }],
        instances: ids.into_iter().map(load).collect(),
        ..Traffic::default()
    };
    story.tell(Event::Traffic(traffic));
}

/// What was ordered to stop is gone.
fn gone(story: &mut Story<KeepAlive>) {
    for instance in story.ids(InstanceState::Stopping) {
        story.tell(Event::Stopped { instance });
    }
}

fn up(story: &Story<KeepAlive>, service: ServiceId) -> usize {
    let counts = |s: InstanceState| matches!(s, InstanceState::Starting | InstanceState::Ready);
    story.status(service).instances.iter().filter(|i| counts(i.state)).count()
}

fn reasons(story: &Story<KeepAlive>) -> Vec<String> {
    let of = |a: &Action| match a {
        Action::Stop { reason, .. } => Some(reason.sentence()),
        _ => None,
    };
    story.actions.iter().filter_map(of).collect()
}

#[test]
fn a_guaranteed_class_takes_its_share_back_from_what_is_in_use() {
    let (gold, bronze) = (class("gold", 200, 500), class("bronze", 50, 0));
    let mut story = world(&[service(A, &gold), service(B, &bronze)], 4);
    fill(&mut story, B, 4, true);
    assert_eq!(up(&story, B), 4, "what nobody uses is lent");
    story.hold(A, 3);
    // Two of the four are its own, both at once; the third waits like anybody's.
    assert_eq!((story.stops(), up(&story, B)), (2, 2), "{:?}", reasons(&story));
    let numbers = "room for service s0: class gold holds 0.0% of the site and 50.0% is its own; class bronze holds \
                   100.0% of the site and 0.0% is its own";
    assert_eq!(reasons(&story)[0], numbers);
    story.hold(B, 5);
    assert_eq!(story.stops(), 2, "what was taken back is not brought back");
    gone(&mut story);
    assert_eq!((up(&story, A), up(&story, B)), (2, 2), "{:?}", reasons(&story));
    story.pass(5);
    assert_eq!((up(&story, A), up(&story, B), story.stops()), (2, 2, 2), "and there it rests");
}

#[test]
fn what_cannot_be_given_back_in_time_is_not_lent() {
    let (gold, bronze) = (class("gold", 200, 500), class("bronze", 50, 0));
    let slow = ServiceSpec { drain_timeout: Span::from_secs(30), ..service(B, &bronze) };
    let mut story = world(&[service(A, &gold), slow], 4);
    fill(&mut story, B, 4, true);
    assert_eq!(up(&story, B), 2);
    story.hold(A, 2);
    assert_eq!((up(&story, A), story.stops()), (2, 0), "its own is there at once");
    // A second class of its own share does not get what is the first one's either.
    let asks = ServiceSpec { busy: Some(Busy::Cpu { milli: 1 }), ..service(B, &class("silver", 100, 250)) };
    let mut story = world(&[service(A, &gold), asks], 4);
    fill(&mut story, B, 4, true);
    assert_eq!(up(&story, B), 2);
}

#[test]
fn what_a_class_holds_of_its_own_is_taken_by_no_other() {
    let (gold, bronze) = (class("gold", 50, 500), class("bronze", 200, 0));
    let mut story = world(&[service(A, &gold), service(B, &bronze), service(C, &gold)], 4);
    fill(&mut story, A, 3, false);
    fill(&mut story, B, 1, true);
    story.hold(B, 4);
    gone(&mut story);
    assert_eq!((up(&story, A), up(&story, B)), (2, 2), "{:?}", reasons(&story));
    // Its own services share by worth, as all did before.
    story.hold(C, 1);
    gone(&mut story);
    assert_eq!((up(&story, A), up(&story, B), up(&story, C)), (1, 2, 1), "{:?}", reasons(&story));
}

#[test]
fn what_a_bound_demands_of_the_share_takes_what_is_idle_and_not_what_is_in_use() {
    let (gold, bronze) = (class("gold", 200, 500), class("bronze", 50, 0));
    for (in_use, taken) in [(false, 2), (true, 0)] {
        let mut story = world(&[service(A, &gold), service(B, &bronze)], 4);
        fill(&mut story, B, 4, in_use);
        story.say(A, Some(2));
        for _ in 0..5 {
            gone(&mut story);
            story.pass(2);
        }
        assert_eq!((up(&story, A), up(&story, B)), (taken, 4 - taken), "in use: {in_use}");
    }
}

#[test]
fn a_number_that_a_person_asked_for_is_not_taken_for_a_guarantee() {
    let (gold, bronze) = (class("gold", 200, 500), class("bronze", 50, 0));
    let mut story = world(&[service(A, &gold), service(B, &bronze)], 2);
    story.say(B, Some(2));
    fill(&mut story, B, 2, true);
    story.hold(A, 1);
    assert_eq!((up(&story, B), story.stops()), (2, 0));
}

#[test]
fn of_held_requests_the_higher_priority_gets_the_next_room() {
    for (later, gets) in [(150, B), (100, A), (50, A)] {
        let sla = [class("a", 100, 0), class("b", later, 0), class("c", 1, 0)];
        let mut story = world(&[service(A, &sla[0]), service(B, &sla[1]), service(C, &sla[2])], 1);
        fill(&mut story, C, 1, true);
        story.hold(A, 1);
        story.pass(2);
        story.hold(B, 1);
        assert_eq!((up(&story, A), up(&story, B), story.stops()), (0, 0, 0), "nothing in use is taken");
        let instance = story.ids(InstanceState::Ready)[0];
        story.tell(Event::Died { instance, why: "died".to_owned() });
        assert_eq!(up(&story, gets), 1, "priority {later}");
    }
}

#[test]
fn of_what_is_idle_the_lowest_priority_goes_first() {
    for (a, goes) in [(200, B), (100, A), (50, A)] {
        let sla = [class("a", a, 0), class("b", 100, 0), class("c", 100, 0)];
        let mut story = world(&[service(A, &sla[0]), service(B, &sla[1]), service(C, &sla[2])], 2);
        // The first one has been idle for longer, and is worth less.
        fill(&mut story, A, 1, false);
        story.pass(30);
        fill(&mut story, B, 1, false);
        story.hold(C, 1);
        gone(&mut story);
        assert_eq!((up(&story, goes), up(&story, C)), (0, 1), "priority {a}: {:?}", reasons(&story));
    }
}

/// Once two services of one class, short of room while something of theirs was on its way out, each left the same room
/// to the other.
#[test]
fn two_of_one_class_do_not_wait_for_each_other() {
    const D: ServiceId = ServiceId(3);
    let (gold, bronze) = (class("gold", 200, 500), class("bronze", 50, 0));
    let specs = [service(A, &gold), service(B, &gold), service(C, &gold), service(D, &bronze)];
    let mut story = world(&specs, 4);
    fill(&mut story, A, 2, true);
    fill(&mut story, D, 2, true);
    story.say(B, Some(1));
    story.hold(C, 1);
    assert_eq!((up(&story, B), up(&story, C), story.stops()), (0, 0, 0), "its class has all that is its own");
    // One of the first leaves, and its backend does not answer yet.
    let one = story.status(A).instances[0].instance;
    story.tell(Event::Traffic(Traffic {
        router: story::ROUTER,
        services: vec![ServiceLoad { service: A, in_flight: 1, peak: 2, waiting: 0 }],
        instances: vec![InstanceLoad {
            instance: one,
            in_flight: 0,
            last_used: Time(story.seconds * 1_000_000),
        }],
        ..Traffic::default()
    }));
    story.say(A, Some(1));
    assert_eq!(story.stops(), 1);
    let other = story.status(D).instances[0].instance;
    story.gauge(D, 1, 0);
    story.tell(Event::Died { instance: other, why: "died".to_owned() });
    assert_eq!((up(&story, C), up(&story, B)), (1, 0), "{:?}", story.status(C).instances);
}
