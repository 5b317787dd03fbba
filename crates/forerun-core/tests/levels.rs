//! Between hot and cold: what is frozen when, and what thaws it. Each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{InstanceState, LevelValue, Policy, View};
use forerun_types::*;
use story::*;

/// Worth being hot for a minute after its last use, and frozen for ten.
#[derive(Default)]
struct Ages {
    used: Time,
    seen: bool,
    in_use: bool,
}

impl Policy for Ages {
    fn service(&mut self, _: &View<'_>) {}
    fn service_gone(&mut self, _: ServiceId) {}
    fn activity(&mut self, _: &Activity, _: &mut Vec<ServiceId>) {}
    fn needed(&mut self, now: Time, service: ServiceId, peak: u32, needed: u32) {
        if service == A && (peak > 0 || needed > 0 || self.in_use) {
            (self.used, self.seen, self.in_use) = (now, true, needed > 0);
        }
    }
    fn period(&mut self, _: Time, _: ServiceId, _: Span, _: u32) {}
    fn forget(&mut self, _: UserKey) {}
    fn appraise(&mut self, now: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time {
        if view.spec.id != A || view.needed > 0 || !self.seen {
            return Time::NEVER;
        }
        let age = now.since(self.used).0 / 1_000_000;
        let worth = |until: u64| until as i64 * 1_000 - age as i64 * 1_000;
        let reason = Reason::KeepAlive { idle: Span::from_secs(age), keep: Span::from_secs(600) };
        let second = Span::from_secs(1);
        let value = LevelValue::new(worth(60), second, view.spec, reason);
        values.push(match view.resume {
            // Better than hot from a minute on.
            Some(_) => {
                value.or_frozen(worth(600).min(if age < 60 { 0 } else { i64::MAX }), second, view.spec)
            }
            None => value,
        });
        now + second
    }
    fn next_stop(&self, _: Time, _: &View<'_>) -> Option<Time> {
        None
    }
}

fn frozen() -> ServiceSpec {
    ServiceSpec { pausable: true, ..container(A) }
}

/// An instance that has just been used.
fn used(spec: &ServiceSpec) -> (Story<Ages>, InstanceId) {
    let mut story = Story::with(Ages::default(), std::slice::from_ref(spec));
    story.tell(Event::OwnState { service: A, there: true });
    story.hold(A, 1);
    let instance = story.last_start();
    story.ready(instance, 81);
    story.gauge(A, 1, 0);
    story.gauge(A, 0, 0);
    story.actions.retain(|a| matches!(a, Action::Route { .. }));
    (story, instance)
}

fn pauses<P: Policy>(story: &Story<P>) -> usize {
    story.count(|a| matches!(a, Action::Pause { .. }))
}

fn resumes<P: Policy>(story: &Story<P>) -> usize {
    story.count(|a| matches!(a, Action::Resume { .. }))
}

/// Passes time until it is told to freeze.
fn until_paused(story: &mut Story<Ages>) {
    story.pass(59);
    assert_eq!(pauses(story), 0);
    story.pass(2);
    assert_eq!(pauses(story), 1);
}

#[test]
fn what_burns_cpu_while_idle_is_frozen_and_thawed_by_the_next_request() {
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    assert_eq!((pauses(&story), story.stops()), (1, 0));
    assert!(story.route(A).0.is_empty(), "first it has left the table");
    story.tell(Event::Paused { instance });
    assert_eq!(story.status(A).instances[0].state, InstanceState::Paused);
    assert_eq!(story.core.sites().next().expect("a site").instances, 1, "its memory is still taken");
    story.hold(A, 1);
    assert_eq!((resumes(&story), story.starts()), (1, 0));
    story.tell(Event::Resumed { instance, took: Span::from_millis(40) });
    assert_eq!(story.route(A).0, [instance]);
    let noted = story.actions.iter().rev().find_map(|a| match a {
        Action::Route { route: Some(route), .. } => Some(route.notes.resumed.clone()),
        _ => None,
    });
    assert_eq!(noted.unwrap(), [instance], "routers know that it was no cold start");
}

#[test]
fn only_what_may_be_frozen_is() {
    let (mut story, instance) = used(&container(A));
    story.pass(62);
    assert_eq!((pauses(&story), story.stopped()), (0, vec![instance]));
}

#[test]
fn nothing_is_frozen_while_a_router_has_requests_there() {
    let (mut story, _) = used(&frozen());
    // A second router does not answer until the drain time is over.
    let now = Time(story.seconds * 1_000_000);
    story.core.step(now, &Event::RouterJoined(RouterId(1)), &mut story.actions);
    story.pass(62);
    assert_eq!((pauses(&story), story.ids(InstanceState::Draining).len()), (0, 1));
    story.pass(5);
    assert_eq!(pauses(&story), 1);
}

#[test]
fn what_drains_to_be_frozen_comes_back_for_a_request() {
    let (mut story, instance) = used(&frozen());
    let now = Time(story.seconds * 1_000_000);
    story.core.step(now, &Event::RouterJoined(RouterId(1)), &mut story.actions);
    story.pass(62);
    story.hold(A, 1);
    assert_eq!((story.route(A).0, pauses(&story), story.starts()), (vec![instance], 0, 0));
}

#[test]
fn what_is_frozen_for_long_is_let_go_cold() {
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    story.tell(Event::Paused { instance });
    story.pass(538);
    assert_eq!(story.stops(), 0);
    story.pass(3);
    assert_eq!((story.stops(), resumes(&story)), (1, 0), "its memory has a price too");
}

#[test]
fn a_pause_that_is_not_carried_out_leaves_it_serving_and_is_not_tried_again_at_once() {
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    story.tell(Event::NotChanged { instance, why: "the freezer is busy".to_owned() });
    assert_eq!(story.status(A).instances[0].instance, instance);
    story.pass(500);
    assert_eq!(pauses(&story), 1);
}

#[test]
fn what_does_not_thaw_is_replaced() {
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    story.tell(Event::Paused { instance });
    story.hold(A, 1);
    story.gauge(A, 0, 1);
    story.tell(Event::NotChanged { instance, why: "no such container".to_owned() });
    assert_eq!((story.stopped(), story.starts()), (vec![instance], 1));
    // The same where the backend does not answer at all.
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    story.tell(Event::Paused { instance });
    story.hold(A, 1);
    story.gauge(A, 0, 1);
    story.pass(71);
    assert_eq!((story.stopped(), story.starts()), (vec![instance], 1));
}

#[test]
fn who_comes_while_it_is_being_frozen_gets_it_back() {
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    story.hold(A, 1);
    assert_eq!((resumes(&story), story.starts()), (0, 0));
    story.tell(Event::Paused { instance });
    assert_eq!((resumes(&story), story.starts()), (1, 0));
}

#[test]
fn a_backend_that_does_not_freeze_in_time_is_told_to_stop_it() {
    let (mut story, instance) = used(&frozen());
    until_paused(&mut story);
    story.pass(11);
    assert_eq!(story.stopped(), [instance]);
}

#[test]
fn room_is_taken_from_what_is_frozen() {
    let (mut story, instance) = used(&frozen());
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 1 };
    story.tell(Event::Site(site));
    story.tell(Event::Service(std::sync::Arc::new(container(B))));
    until_paused(&mut story);
    story.tell(Event::Paused { instance });
    story.hold(B, 1);
    assert_eq!(story.stopped(), [instance]);
    story.tell(Event::Stopped { instance });
    assert_eq!(story.starts(), 1);
}

#[test]
fn a_person_who_wants_none_gets_none_frozen_either() {
    for (word, expect) in [(0, 1), (1, 0)] {
        let (mut story, instance) = used(&frozen());
        until_paused(&mut story);
        story.tell(Event::Paused { instance });
        story.say(A, Some(word));
        assert_eq!(story.stops(), expect);
        assert_eq!(resumes(&story), word as usize);
    }
}

#[test]
fn what_is_frozen_goes_when_its_service_or_forerun_does() {
    let spec = ServiceSpec { launch: Launch::Modelled, ..frozen() };
    for event in [Event::ShutDown, Event::ServiceGone(A)] {
        let (mut story, instance) = used(&spec);
        until_paused(&mut story);
        story.tell(Event::Paused { instance });
        story.tell(event);
        assert_eq!(story.stopped(), [instance]);
    }
}

/// As the router counts: what waited for no more than a thaw in good time is no cold start.
#[test]
fn what_was_thawed_in_good_time_spends_nothing_of_a_budget() {
    let (mut story, instance) = used(&frozen());
    let class = frozen().sla.name;
    story.tell(Event::ColdStartBudget { class, ppm: 10_000 });
    let spent = |story: &mut Story<Ages>, held_ms: u64| {
        story.tell(finished(instance, Span::from_millis(held_ms)));
        story.core.budgets().next().unwrap().cold_starts
    };
    assert_eq!([0, 100].map(|held_ms| spent(&mut story, held_ms)), [0, 1]);
    until_paused(&mut story);
    story.tell(Event::Paused { instance });
    story.hold(A, 1);
    story.tell(Event::Resumed { instance, took: Span::from_millis(40) });
    // The class's target is half a second.
    assert_eq!([0, 100, 500, 501].map(|held_ms| spent(&mut story, held_ms)), [1, 1, 1, 2]);
}
