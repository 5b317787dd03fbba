//! What runs as its service was described before is replaced while nobody uses it. Each test opens with what it
//! guarantees.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{InstanceState, KeepAlive};
use forerun_types::*;
use std::sync::Arc;
use story::*;

fn service(min: u32, max: u32) -> ServiceSpec {
    let launch = |word: &str| Launch::Process {
        command: vec![word.to_owned()],
        env: std::collections::BTreeMap::new(),
        folder: None,
    };
    ServiceSpec { min, max, launch: launch("old"), ..ServiceSpec::named(A, "a") }
}

/// The same, launched otherwise.
fn anew(story: &mut Story<KeepAlive>, spec: &ServiceSpec) {
    let Launch::Process { command, env, folder } = spec.launch.clone() else { unreachable!() };
    let command = [command, vec!["new".to_owned()]].concat();
    let launch = Launch::Process { command, env, folder };
    story.tell(Event::Service(Arc::new(ServiceSpec { launch, ..spec.clone() })));
}

/// A story with one instance that is ready and has been used.
fn with_one(spec: &ServiceSpec) -> (Story<KeepAlive>, InstanceId) {
    let mut story = Story::unlisted(std::slice::from_ref(spec));
    story.tell(Event::OwnState { service: A, there: true });
    story.hold(A, 1);
    let old = story.last_start();
    story.ready(old, 80);
    story.gauge(A, 1, 0);
    (story, old)
}

#[test]
fn an_idle_one_is_drained_and_what_is_wanted_starts_anew() {
    let spec = service(0, 1);
    let (mut story, old) = with_one(&spec);
    anew(&mut story, &spec);
    story.pass(30);
    assert_eq!(story.stops(), 0, "a request is in flight");
    story.gauge(A, 0, 0);
    assert_eq!(story.stopped(), [old]);
    // The keep-alive wants one, and a stop does not wait for the start.
    assert_eq!(story.starts(), 2);
    story.tell(Event::Stopped { instance: old });
    let new = story.last_start();
    story.ready(new, 81);
    story.pass(30);
    assert_eq!((story.route(A).0, story.starts(), story.stops()), (vec![new], 2, 1));
}

#[test]
fn one_that_min_keeps_gets_its_successor_first() {
    let spec = service(1, 3);
    let (mut story, old) = with_one(&spec);
    story.gauge(A, 0, 0);
    anew(&mut story, &spec);
    assert_eq!((story.starts(), story.stops()), (2, 0));
    story.pass(20);
    assert_eq!((story.route(A).0, story.stops()), (vec![old], 0), "it serves until the other is ready");
    let new = story.last_start();
    story.ready(new, 81);
    assert_eq!((story.route(A).0, story.stopped()), (vec![new], vec![old]));
    story.tell(Event::Stopped { instance: old });
    story.pass(120);
    assert_eq!((story.starts(), story.stops()), (2, 1));
}

#[test]
fn where_two_find_no_room_the_old_one_goes_first() {
    let spec = service(1, 3);
    let (mut story, old) = with_one(&spec);
    story.gauge(A, 0, 0);
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 1 };
    story.tell(Event::Site(site));
    anew(&mut story, &spec);
    assert_eq!((story.stopped(), story.starts()), (vec![old], 1));
    story.tell(Event::Stopped { instance: old });
    assert_eq!(story.starts(), 2);
}

#[test]
fn a_successor_that_does_not_start_leaves_the_old_one_where_it_is() {
    let spec = service(1, 3);
    let (mut story, old) = with_one(&spec);
    story.gauge(A, 0, 0);
    anew(&mut story, &spec);
    for _ in 0..60 {
        for instance in story.ids(InstanceState::Starting) {
            story.tell(Event::StartFailed { instance, why: "exit code 1".to_owned() });
        }
        story.pass(1);
    }
    assert_eq!((story.route(A).0, story.stops()), (vec![old], 0));
    // It is tried again and again, ever more rarely.
    assert!((5..12).contains(&story.starts()), "{}", story.starts());
}

#[test]
fn a_request_that_comes_while_it_drains_takes_it_back() {
    let spec = service(0, 1);
    let (mut story, old) = with_one(&spec);
    story.gauge(A, 0, 0);
    story.tell(Event::RouterJoined(RouterId(9))); // one that never answers
    anew(&mut story, &spec);
    assert_eq!((story.ids(InstanceState::Draining), story.starts()), (vec![old], 2));
    let new = story.last_start();
    story.hold(A, 1);
    story.gauge(A, 0, 1);
    story.ready(new, 81);
    assert_eq!(story.route(A).0, [new]);
    assert_eq!(story.starts(), 2);
}
