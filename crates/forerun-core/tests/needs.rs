//! Services that need one another, or cannot run beside each other; what is kept for a while; what says that it is
//! busy. Each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{InstanceState, KeepAlive, WakeBy};
use forerun_types::*;
use std::sync::Arc;
use story::*;

fn needing(id: ServiceId, needs: &[(&str, DependsUntil)]) -> ServiceSpec {
    let need = |(service, until): &(&str, DependsUntil)| Dependency {
        service: (*service).to_owned(),
        until: *until,
    };
    ServiceSpec { depends_on: needs.iter().map(need).collect(), ..container(id) }
}

fn started(story: &Story<KeepAlive>) -> Vec<ServiceId> {
    let of = |a: &Action| if let Action::Start { service, .. } = a { Some(*service) } else { None };
    story.actions.iter().filter_map(of).collect()
}

/// Makes ready what starts of a service.
fn ready(story: &mut Story<KeepAlive>, service: ServiceId, port: u16) -> InstanceId {
    let all = story.status(service).instances;
    let starting = all.iter().find(|i| i.state == InstanceState::Starting).unwrap().instance;
    story.ready(starting, port);
    starting
}

#[test]
fn what_a_request_needs_is_started_first_however_deep() {
    // C needs B needs A.
    let specs = [
        container(A),
        needing(B, &[("s0", DependsUntil::Ready)]),
        needing(C, &[("s1", DependsUntil::Ready)]),
    ];
    let mut story = Story::begin(&specs);
    story.hold(C, 1);
    assert_eq!(started(&story), [A], "in the very step of the request");
    story.gauge(C, 0, 1);
    assert_eq!(story.status(C).held_up.unwrap(), "waits for s1, which it depends on");
    assert_eq!(story.status(A).wakes[0].by, WakeBy::Dependent(B));
    ready(&mut story, A, 80);
    assert_eq!(started(&story), [A, B]);
    ready(&mut story, B, 81);
    assert_eq!(started(&story), [A, B, C]);
    ready(&mut story, C, 82);
    assert_eq!(story.route(C).0.len(), 1);
    // All three are kept while the last is, though nobody asks for the first two.
    story.gauge(C, 1, 0);
    story.pass(600);
    assert_eq!(story.stopped(), []);
    assert_eq!(story.status(A).kept_for.unwrap(), "s1");
    assert_eq!(story.status(A).reason, "s1 depends on it");
    story.gauge(C, 0, 0);
    story.pass(200);
    let mut expect = Vec::new();
    for service in [C, B, A] {
        let id = story.status(service).instances[0].instance;
        expect.push(id);
        assert_eq!(story.stopped(), expect, "what is needed is last out");
        story.tell(Event::Stopped { instance: id });
    }
}

#[test]
fn how_far_a_dependency_has_to_be_is_said() {
    let check = |until: DependsUntil, step: fn(&mut Story<KeepAlive>), expect: &[ServiceId]| {
        let mut story = Story::begin(&[container(A), needing(B, &[("s0", until)])]);
        story.hold(B, 1);
        step(&mut story);
        assert_eq!(started(&story), expect, "{until:?}");
        story
    };
    check(DependsUntil::Started, |_| {}, &[A, B]);
    check(DependsUntil::Ready, |_| {}, &[A]);
    let completes = |story: &mut Story<KeepAlive>| {
        story.gauge(B, 0, 1);
        let instance = ready(story, A, 80);
        assert_eq!(started(story), [A], "ready is not enough");
        story.tell(Event::Completed { instance });
    };
    let mut story = check(DependsUntil::Completed, completes, &[A, B]);
    // It has ended once, which is enough from now on.
    ready(&mut story, B, 81);
    story.gauge(B, 0, 0);
    story.pass(100);
    story.tell(Event::Stopped { instance: story.status(B).instances[0].instance });
    story.hold(B, 1);
    assert_eq!(started(&story), [A, B, B]);
}

#[test]
fn one_that_others_share_stays_until_the_last_of_them_is_gone() {
    let need = [("s0", DependsUntil::Ready)];
    let mut story = Story::begin(&[container(A), needing(B, &need), needing(C, &need)]);
    for service in [B, C] {
        story.hold(service, 1);
        story.gauge(service, 0, 1);
        if service == B {
            ready(&mut story, A, 80);
        }
        ready(&mut story, service, 81);
        story.gauge(service, 1, 0);
    }
    story.gauge(B, 0, 0);
    story.pass(100);
    assert_eq!(story.stopped(), [story.status(B).instances[0].instance]);
    story.tell(Event::Stopped { instance: story.status(B).instances[0].instance });
    story.pass(100);
    assert_eq!(story.status(A).kept_for.as_deref(), Some("s2"));
    assert_eq!(story.stopped().len(), 1);
}

#[test]
fn who_waits_for_a_dependency_that_fails_is_told_why() {
    let mut story = Story::begin(&[container(A), needing(B, &[("s0", DependsUntil::Ready)])]);
    story.hold(B, 1);
    story.gauge(B, 0, 1);
    for _ in 0..3 {
        let instance = story.ids(InstanceState::Starting)[0];
        story.tell(Event::StartFailed { instance, why: "exited with 1: no space".to_owned() });
        if story.ids(InstanceState::Starting).is_empty() {
            story.pass(1);
        }
    }
    let why = story.route(B).1.unwrap();
    assert_eq!(why, "s0, which it depends on, is unavailable: exited with 1: no space");
    story.pass(60);
    ready(&mut story, A, 80);
    assert_eq!(story.route(B).1, None);
    assert_eq!(story.ids(InstanceState::Starting).len(), 1, "and then it starts");
}

#[test]
fn a_dependency_that_a_person_stopped_or_that_is_only_watched_keeps_its_dependents_down() {
    let needs = || needing(B, &[("s0", DependsUntil::Ready)]);
    let mut story = Story::begin(&[ServiceSpec { mode: Mode::Observe, ..container(A) }, needs()]);
    story.hold(B, 1);
    story.pass(60);
    assert_eq!(story.starts(), 0);
    assert!(story.route(B).1.unwrap().contains("forerun only watches"), "{:?}", story.route(B));
    story.found(A, "abc", 80);
    assert_eq!(started(&story), [B], "somebody started it");
    // The same where a person stopped it past Forerun.
    let mut story = Story::unlisted(&[container(A), needs()]);
    story.found(A, "abc", 80);
    let instance = story.adopted()[0].0;
    story.tell(Event::StoppedByHand { instance, why: "stopped by hand".to_owned() });
    story.hold(B, 1);
    story.pass(60);
    assert_eq!(story.starts(), 0);
    assert!(story.route(B).1.unwrap().contains("s0, which it depends on, is unavailable: stopped by hand"));
}

#[test]
fn everything_ends_in_order_and_circles_end_too() {
    let mut story = Story::begin(&[]);
    let spec = |id: ServiceId, needs: &str| ServiceSpec {
        launch: Launch::Modelled,
        min: 1,
        ..needing(id, &[(needs, DependsUntil::Started)])
    };
    let plain = ServiceSpec { launch: Launch::Modelled, min: 1, ..container(A) };
    story.live(&[plain, spec(B, "s0")]);
    let (a, b) = (ready(&mut story, A, 80), ready(&mut story, B, 81));
    story.tell(Event::ShutDown);
    assert_eq!(story.stopped(), [b]);
    story.tell(Event::Stopped { instance: b });
    assert_eq!(story.stopped(), [b, a]);
    story.tell(Event::Stopped { instance: a });
    assert_eq!(story.count(|a| matches!(a, Action::Finished)), 1);
    // A and B need each other: nothing of them starts, nothing goes round.
    let mut story = Story::begin(&[]);
    story.live(&[needing(A, &[("s1", DependsUntil::Ready)]), needing(B, &[("s0", DependsUntil::Ready)])]);
    story.hold(A, 1);
    story.pass(100);
    assert_eq!(story.starts(), 0);
    story.tell(Event::ShutDown);
    assert_eq!(story.count(|a| matches!(a, Action::Finished)), 1);
}

#[test]
fn a_chain_is_started_only_where_it_is_needed_and_has_room() {
    // A plan of B's pulls A too; observing B does not.
    for (mode, expect) in [(Mode::Act, vec![A]), (Mode::Observe, vec![])] {
        let b = ServiceSpec { min: 1, mode, ..needing(B, &[("s0", DependsUntil::Ready)]) };
        let story = Story::begin(&[container(A), b.clone()]);
        let mut story = Story { actions: Vec::new(), ..story };
        story.live(&[container(A), b]);
        for service in [A, B] {
            story.tell(Event::OwnState { service, there: true });
        }
        story.pass(10);
        assert_eq!(started(&story), expect, "{mode:?}");
    }
    // What A needs is taken from an idle C.
    let mut story = Story::begin(&[container(A), needing(B, &[("s0", DependsUntil::Ready)]), container(C)]);
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 2 };
    story.tell(Event::Site(site));
    for port in [90, 91] {
        story.found(C, &port.to_string(), port);
    }
    story.hold(B, 1);
    story.gauge(B, 0, 1);
    assert_eq!(story.stopped().len(), 1);
    story.tell(Event::Stopped { instance: story.stopped()[0] });
    assert_eq!(started(&story), [A]);
    ready(&mut story, A, 80);
    let last = *story.stopped().last().unwrap();
    story.tell(Event::Stopped { instance: last });
    assert_eq!(started(&story), [A, B]);
}

#[test]
fn what_a_service_needs_is_not_evicted_for_it() {
    // Room for one: what is said to be in flight at B has lost its instance, and B needs A.
    for (in_flight, waiting) in [(1, 0), (0, 1)] {
        let mut story = Story::begin(&[container(A), needing(B, &[("s0", DependsUntil::Ready)])]);
        let capacity = Resources::default();
        let site = SiteSpec { id: SiteId(0), name: String::new(), capacity, instances_max: 1 };
        story.tell(Event::Site(site));
        story.found(A, "abc", 90);
        story.actions.clear();
        story.gauge(B, in_flight, waiting);
        story.pass(5);
        let tables = |a: &Action| matches!(a, Action::Route { service: A, .. });
        assert_eq!((story.stops(), story.starts(), story.count(tables)), (0, 0, 0));
    }
}

fn excluding(id: ServiceId, excludes: &[&str]) -> ServiceSpec {
    ServiceSpec { excludes: excludes.iter().map(|e| (*e).to_owned()).collect(), ..container(id) }
}

#[test]
fn what_excludes_another_starts_when_that_is_gone_and_the_other_waits_for_it() {
    for named in ["s1", "batch"] {
        let b = ServiceSpec { group: Some("batch".to_owned()), min: 1, ..container(B) };
        let mut story = Story::begin(&[excluding(A, &[named]), b]);
        let other = ready(&mut story, B, 81);
        story.gauge(B, 1, 0);
        story.hold(A, 1);
        assert_eq!(started(&story), [] as [ServiceId; 0]);
        assert_eq!(story.stopped(), [other], "its requests end first: here its router is quiet at once");
        story.gauge(A, 0, 1);
        assert!(story.status(A).held_up.unwrap().contains("until s1 is gone"));
        story.gauge(B, 0, 0);
        story.tell(Event::Stopped { instance: other });
        assert_eq!(started(&story), [A], "{named}");
        ready(&mut story, A, 80);
        story.gauge(A, 1, 0);
        story.hold(B, 1);
        story.pass(100);
        assert_eq!(started(&story), [A], "the other does not start beside it, whatever waits");
        story.gauge(A, 0, 0);
        story.gauge(B, 0, 1);
        story.pass(100);
        let last = *story.stopped().last().unwrap();
        story.tell(Event::Stopped { instance: last });
        assert_eq!(started(&story), [A, B]);
    }
}

#[test]
fn two_that_exclude_each_other_take_turns() {
    let mut story = Story::begin(&[excluding(A, &["s1"]), excluding(B, &["s0"])]);
    let mut turn = |service: ServiceId, other: ServiceId| {
        story.hold(service, 1);
        story.gauge(service, 0, 1);
        for instance in story.status(other).instances {
            story.tell(Event::Stopped { instance: instance.instance });
        }
        let instance = ready(&mut story, service, 80);
        story.gauge(service, 1, 0);
        assert_eq!(story.route(service).0, [instance]);
        story.gauge(service, 0, 0);
        story.pass(1);
    };
    for _ in 0..5 {
        turn(A, B);
        turn(B, A);
    }
    assert_eq!((story.starts(), story.stops()), (10, 9), "each change costs one start and one stop");
}

#[test]
fn an_instance_is_kept_at_least_so_long_after_its_last_use() {
    let mut story = Story::begin(&[ServiceSpec { keep_at_least: Span::from_secs(300), ..container(A) }]);
    story.found(A, "abc", 81);
    story.pass(299);
    assert_eq!(story.stops(), 0);
    assert_eq!(story.status(A).reason, "kept at least 5m after its last use");
    story.pass(2);
    assert_eq!(story.stops(), 1);
    // A person's word is stronger.
    let mut story = Story::begin(&[ServiceSpec { keep_at_least: Span::from_secs(300), ..container(A) }]);
    story.found(A, "abc", 81);
    story.say(A, Some(0));
    assert_eq!(story.stops(), 1);
}

fn busy_service() -> ServiceSpec {
    let busy = Some(Busy::Cpu { milli: 100 });
    ServiceSpec { busy, busy_max: Span::from_secs(200), ..container(A) }
}

fn asks(story: &Story<KeepAlive>) -> usize {
    story.count(|a| matches!(a, Action::AskBusy { .. }))
}

#[test]
fn what_says_that_it_is_busy_is_left_alone_and_asked_again() {
    let mut story = Story::begin(&[busy_service()]);
    story.found(A, "abc", 81);
    let instance = story.adopted()[0].0;
    story.pass(61);
    assert_eq!((asks(&story), story.stops()), (1, 0));
    assert_eq!(story.route(A).0, [instance], "it serves while it is asked");
    story.tell(Event::BusyAnswer { instance, busy: true, why: "transcoding".to_owned() });
    let (why, _) = story.status(A).instances[0].busy.clone().unwrap();
    assert_eq!(why, "transcoding");
    story.pass(29);
    assert_eq!(asks(&story), 1);
    story.pass(2);
    assert_eq!(asks(&story), 2);
    story.tell(Event::BusyAnswer { instance, busy: false, why: String::new() });
    assert_eq!((story.stops(), asks(&story)), (1, 2));
}

#[test]
fn no_answer_is_busy_but_not_for_ever() {
    let mut story = Story::begin(&[busy_service()]);
    story.found(A, "abc", 81);
    let instance = story.adopted()[0].0;
    story.pass(100);
    assert_eq!(story.stops(), 0);
    assert!(story.status(A).instances[0].busy.as_ref().unwrap().0.contains("not answered"));
    // An answer that comes too late is none.
    story.pass(60 + 200 - 100);
    story.pass(60);
    assert_eq!(story.stops(), 1, "after busy_max it is stopped");
    assert!((5..=8).contains(&asks(&story)), "{}", asks(&story));
    story.tell(Event::Stopped { instance });
}

#[test]
fn a_use_makes_what_was_said_past() {
    let mut story = Story::begin(&[busy_service()]);
    story.found(A, "abc", 81);
    let instance = story.adopted()[0].0;
    story.pass(61);
    story.tell(Event::BusyAnswer { instance, busy: true, why: "transcoding".to_owned() });
    let now = Time(story.seconds * 1_000_000);
    let used = |in_flight| {
        let instances = vec![InstanceLoad { instance, in_flight, last_used: now }];
        let service = ServiceLoad { service: A, in_flight, peak: 1, waiting: 0 };
        Event::Traffic(Traffic { router: ROUTER, instances, services: vec![service], ..Traffic::default() })
    };
    story.tell(used(1));
    assert_eq!(story.status(A).instances[0].busy, None);
    story.tell(used(0));
    story.pass(59);
    assert_eq!(asks(&story), 1);
    story.pass(2);
    assert_eq!((asks(&story), story.stops()), (2, 0));
}

#[test]
fn nobody_is_asked_when_everything_ends() {
    let spec = ServiceSpec { launch: Launch::Modelled, min: 1, ..busy_service() };
    let mut story = Story::begin(&[]);
    story.live(&[spec]);
    ready(&mut story, A, 80);
    story.tell(Event::ShutDown);
    assert_eq!((asks(&story), story.stops()), (0, 1));
}

#[test]
fn room_waits_for_the_answer_of_what_is_to_make_it() {
    let mut story = Story::begin(&[busy_service(), container(B)]);
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 1 };
    story.tell(Event::Site(site));
    story.found(A, "abc", 81);
    let instance = story.adopted()[0].0;
    story.hold(B, 1);
    story.gauge(B, 0, 1);
    assert_eq!((asks(&story), story.stops()), (1, 0));
    story.pass(3);
    assert_eq!(asks(&story), 1, "once");
    story.tell(Event::BusyAnswer { instance, busy: false, why: String::new() });
    assert_eq!(story.stops(), 1);
    story.tell(Event::Stopped { instance });
    assert_eq!(started(&story), [B]);
}

#[test]
fn a_new_description_does_not_touch_what_runs_but_says_so() {
    let mut story = Story::begin(&[container(A)]);
    story.found(A, "abc", 81);
    let outdated = |story: &Story<KeepAlive>| story.status(A).instances[0].outdated;
    assert!(!outdated(&story));
    story.tell(Event::Service(Arc::new(ServiceSpec { max: 3, ..container(A) })));
    assert!(!outdated(&story), "how many there may be changes nothing in it");
    let resources = Resources { memory_bytes: 5, ..Resources::default() };
    story.tell(Event::Service(Arc::new(ServiceSpec { resources, ..container(A) })));
    assert!(outdated(&story));
    assert_eq!(story.stops(), 0);
}
