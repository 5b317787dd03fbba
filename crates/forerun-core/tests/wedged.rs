//! An instance that answers nothing is replaced, and no other. Each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{InstanceState, KeepAlive};
use forerun_types::*;
use std::sync::Arc;
use story::*;

fn service(max: u32) -> ServiceSpec {
    let launch = Launch::Process { command: vec!["web".to_owned()], env: [].into(), folder: None };
    ServiceSpec { max, launch, start_timeout: Span::from_secs(40), ..ServiceSpec::named(A, "a") }
}

/// A story with one instance that is ready and has been used.
fn with_one(spec: &ServiceSpec) -> (Story<KeepAlive>, InstanceId) {
    let mut story = Story::unlisted(std::slice::from_ref(spec));
    story.tell(Event::OwnState { service: A, there: true });
    story.hold(A, 1);
    let first = story.last_start();
    story.ready(first, 80);
    story.gauge(A, 1, 0);
    (story, first)
}

fn silent(story: &mut Story<KeepAlive>, instance: InstanceId, tries: u32, left: u32, secs: u64) {
    silent_at(story, ROUTER, instance, (tries, left, secs));
}

fn silent_at(
    story: &mut Story<KeepAlive>,
    router: RouterId,
    instance: InstanceId,
    (tries, left, secs): (u32, u32, u64),
) {
    story.tell(Event::Unanswered { router, instance, tries, left, silent: Span::from_secs(secs) });
}

fn in_flight(story: &mut Story<KeepAlive>, router: RouterId, instance: InstanceId, in_flight: u32) {
    let last_used = Time(story.seconds * 1_000_000);
    let load = InstanceLoad { instance, in_flight, last_used };
    story.tell(Event::Traffic(Traffic { router, instances: vec![load], ..Traffic::default() }));
}

fn stop_of(story: &Story<KeepAlive>, id: InstanceId) -> (StopWhy, String) {
    let of = |action: &Action| match action {
        Action::Stop { instance, why, reason, .. } if *instance == id => Some((*why, reason.sentence())),
        _ => None,
    };
    story.actions.iter().find_map(of).unwrap()
}

/// With no place beside it, the next one starts when the wedged one is gone; its reason reads like a person's.
#[test]
fn the_only_one_goes_first() {
    let (mut story, first) = with_one(&service(1));
    story.gauge(A, 1, 3);
    silent(&mut story, first, 12, 0, 43);
    assert_eq!((story.route(A).0, story.starts()), (vec![], 1));
    let sentence = "wedged: 12 requests in a row got no answer for 43s";
    assert_eq!(stop_of(&story, first), (StopWhy::Wedged, sentence.to_owned()));
    story.gauge(A, 0, 3);
    story.hold(A, 4);
    story.pass(3);
    assert_eq!(story.starts(), 1, "max is 1, and the first is not gone");
    story.tell(Event::Stopped { instance: first });
    assert_eq!(story.starts(), 2);
    assert_eq!(story.status(A).failing.unwrap(), sentence);
}

/// Where max and the room allow another, it is started at once.
#[test]
fn another_starts_before_the_wedged_one_is_gone() {
    let (mut story, first) = with_one(&service(3));
    silent(&mut story, first, 3, 0, 40);
    assert_eq!((story.starts(), story.stopped()), (2, vec![first]));
    let second = story.last_start();
    story.ready(second, 81);
    assert_eq!(story.route(A).0, [second]);
}

/// Too few tries, too short a silence, impatient clients alone, or an answer in between: it stays.
#[test]
fn what_may_be_slow_stays() {
    let (mut story, first) = with_one(&service(1));
    for (tries, left, secs) in [(2, 0, 900), (9, 0, 39), (9, 7, 299), (0, 0, 0), (12, 10, 120)] {
        silent(&mut story, first, tries, left, secs);
        story.pass(60);
        assert_eq!(story.stops(), 0, "{tries} {left} {secs}");
    }
    assert_eq!(
        story.status(A).instances[0].silent.as_deref(),
        Some("12 requests in a row got no answer for 2m")
    );
    silent(&mut story, first, 0, 0, 0);
    assert_eq!(story.status(A).instances[0].silent, None);
    // Where all clients left, it takes as long as a router waits by itself.
    silent(&mut story, first, 9, 9, 300);
    assert_eq!(story.stopped(), [first]);
}

/// What another router has requests at may be answering there.
#[test]
fn what_answers_another_router_stays() {
    let (mut story, first) = with_one(&service(1));
    let other = RouterId(5);
    story.tell(Event::RouterJoined(other));
    in_flight(&mut story, other, first, 1);
    silent(&mut story, first, 30, 0, 90);
    story.pass(60);
    assert_eq!(story.route(A).0, [first]);
    silent_at(&mut story, other, first, (1, 0, 2));
    assert_eq!(story.route(A).0, []);
}

/// A word of a router that is gone counts no more.
#[test]
fn a_router_takes_its_word_with_it() {
    let (mut story, first) = with_one(&service(1));
    let other = RouterId(5);
    story.tell(Event::RouterJoined(other));
    in_flight(&mut story, ROUTER, first, 1);
    silent_at(&mut story, other, first, (30, 0, 90));
    story.tell(Event::RouterLeft(other));
    in_flight(&mut story, ROUTER, first, 0);
    story.pass(60);
    assert_eq!(story.stops(), 0);
}

/// One that always wedges is started ever more rarely; one that had served well first is started at once.
#[test]
fn it_counts_as_a_crash() {
    let (mut story, mut instance) = with_one(&service(1));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        story.pass(41);
        story.gauge(A, 0, 2);
        silent(&mut story, instance, 5, 0, 40);
        let before = story.starts();
        story.tell(Event::Stopped { instance });
        let from = story.seconds;
        while story.starts() == before {
            story.pass(1);
        }
        pauses.push(story.seconds - from);
        instance = story.last_start();
        story.ready(instance, 80);
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16]);
    story.pass(60);
    silent(&mut story, instance, 5, 0, 40);
    let before = story.starts();
    story.tell(Event::Stopped { instance });
    assert_eq!(story.starts(), before + 1, "it served for 20 s first");
}

/// Where all are wedged they go one after the other.
#[test]
fn one_at_a_time() {
    let (mut story, first) = with_one(&service(3));
    story.hold(A, 1);
    story.gauge(A, 1, 1);
    let second = story.last_start();
    story.ready(second, 81);
    story.gauge(A, 2, 0);
    for instance in [first, second] {
        silent(&mut story, instance, 5, 0, 60);
    }
    assert_eq!((story.stopped(), story.route(A).0), (vec![first], vec![second]));
    story.tell(Event::Stopped { instance: first });
    assert_eq!(story.stopped(), [first, second]);
}

/// What is only watched is spoken of and left alone.
#[test]
fn an_observed_one_is_only_said_to_be() {
    let spec = ServiceSpec { mode: Mode::Observe, ..container(A) };
    let mut story = Story::begin(&[spec]);
    story.found(A, "abc", 81);
    let first = story.adopted()[0].0;
    silent(&mut story, first, 5, 0, 90);
    story.pass(60);
    assert_eq!(story.stops(), 0);
    let would = format!("would replace {first}: wedged: 5 requests in a row got no answer for 90s");
    assert_eq!(story.status(A).would, Some(would));
}

/// What a person has frozen does not answer, and stays.
#[test]
fn a_paused_one_is_not_wedged() {
    let mut story = Story::begin(&[container(A)]);
    story.found(A, "abc", 81);
    let first = story.adopted()[0].0;
    silent(&mut story, first, 2, 0, 90);
    story.tell(Event::Paused { instance: first });
    silent(&mut story, first, 9, 0, 90);
    story.pass(60);
    assert_eq!((story.stops(), story.ids(InstanceState::Paused)), (0, vec![first]));
}

/// The user's own container is stopped and started again, and nothing is started beside it.
#[test]
fn the_users_own_is_started_again() {
    let mut story = Story::unlisted(&[ServiceSpec { max: 4, min: 1, ..container(A) }]);
    story.found(A, "abc", 81);
    story.tell(Event::OwnState { service: A, there: true });
    let first = story.adopted()[0].0;
    story.tell(Event::IsOwn { instance: first });
    silent(&mut story, first, 5, 0, 90);
    story.pass(2);
    assert_eq!((story.stopped(), story.starts()), (vec![first], 0));
    story.tell(Event::Stopped { instance: first });
    assert_eq!(story.starts(), 1);
}

/// One that is busy by its own word stays; what is asked over the same door is not asked.
#[test]
fn its_word_that_it_is_busy_counts_where_it_can_be_given() {
    let asked = |story: &Story<KeepAlive>| story.count(|a| matches!(a, Action::AskBusy { .. }));
    let busy = Busy::Command(vec!["busy".to_owned()]);
    let (mut story, first) = with_one(&ServiceSpec { busy: Some(busy), ..service(1) });
    silent(&mut story, first, 5, 0, 90);
    story.tell(Event::BusyAnswer { instance: first, busy: true, why: "it works".to_owned() });
    story.pass(10);
    assert_eq!((asked(&story), story.stops()), (1, 0));
    story.pass(21);
    story.tell(Event::BusyAnswer { instance: first, busy: false, why: String::new() });
    assert_eq!((asked(&story), story.stops()), (2, 1));

    let busy = Busy::Http { path: "/busy".to_owned(), pointer: None };
    let (mut story, first) = with_one(&ServiceSpec { busy: Some(busy), ..service(1) });
    silent(&mut story, first, 5, 0, 90);
    assert_eq!((asked(&story), story.stops()), (0, 1));
}

/// A request does not bring a wedged one back while it drains.
#[test]
fn it_does_not_come_back() {
    let (mut story, first) = with_one(&service(2));
    story.tell(Event::RouterJoined(RouterId(9))); // one that never answers
    in_flight(&mut story, ROUTER, first, 1);
    silent(&mut story, first, 5, 0, 90);
    assert_eq!(story.ids(InstanceState::Draining), [first]);
    story.gauge(A, 0, 2);
    story.hold(A, 3);
    assert_eq!((story.route(A).0, story.starts()), (vec![], 2));
    story.tell(Event::Service(Arc::new(service(3))));
    assert_eq!(story.ids(InstanceState::Draining), [first]);
}
