//! What happens past Forerun, and what a person says: each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{Core, InstanceState, KeepAlive, WakeBy};
use forerun_types::*;
use story::*;

const MODES: [Mode; 3] = [Mode::Act, Mode::Advise, Mode::Observe];

#[test]
fn what_is_found_becomes_an_instance_in_every_mode() {
    for mode in MODES {
        let mut story = Story::begin(&[ServiceSpec { mode, ..container(A) }]);
        story.found(A, "abc", 81);
        let adopted = story.adopted();
        assert_eq!(adopted.len(), 1);
        assert_eq!(adopted[0].1, "abc");
        assert_eq!(story.route(A), (vec![adopted[0].0], None), "{mode:?}");
        assert_eq!(story.core.sites().next().expect("a site").instances, 1, "it is reserved for");
        assert_eq!((story.starts(), story.stops()), (0, 0));
        assert_eq!(story.status(A).wakes[0].by, WakeBy::Operator);
        // A use that has just ended: the plan keeps it for a minute, then may stop it, where it may act.
        story.pass(59);
        assert_eq!(story.stops(), 0, "{mode:?}");
        story.pass(3);
        assert_eq!(story.stops(), usize::from(mode == Mode::Act), "{mode:?}");
        let would = story.status(A).would.unwrap_or_default();
        assert_eq!(would.starts_with("would stop 1"), mode != Mode::Act, "{would}");
    }
}

#[test]
fn what_is_found_twice_is_one_instance_where_it_is_now() {
    let mut story = Story::begin(&[container(A)]);
    story.found(A, "abc", 81);
    story.found(A, "abc", 82);
    let adopted = story.adopted();
    assert_eq!((adopted.len(), adopted[0].0), (2, adopted[1].0), "the second answer repeats the first");
    assert_eq!(story.status(A).instances.len(), 1);
    let moved = story.actions.iter().rev().find_map(|a| match a {
        Action::Route { route: Some(route), .. } => Some(route.instances[0].address),
        _ => None,
    });
    assert_eq!(moved, Some(at(82)));
}

#[test]
fn what_a_start_took_over_is_not_adopted_when_it_is_told_of_again() {
    let mut story = Story::begin(&[container(A)]);
    story.hold(A, 1);
    let id = story.last_start();
    story.found(A, "abc", 80);
    story.ready(id, 80);
    story.found(A, "abc", 80);
    assert_eq!(story.adopted(), []);
    assert_eq!(story.status(A).instances.len(), 1);
}

#[test]
fn of_too_many_that_are_found_a_persons_own_is_the_last_to_go() {
    for own_first in [true, false] {
        let mut story = Story::begin(&[ServiceSpec { max: 1, ..container(A) }]);
        for own in [own_first, !own_first] {
            match own {
                true => story.found(A, "own", 81),
                false => story.found_was(A, "clone", 82, Some(7), false),
            }
        }
        let own = story.adopted().iter().find(|(_, handle)| handle == "own").unwrap().0;
        assert_eq!((story.stops(), story.ids(InstanceState::Ready)), (1, vec![own]), "{own_first}");
    }
}

#[test]
fn an_id_of_an_earlier_life_stays_unless_this_life_has_used_it() {
    let mut story = Story::begin(&[container(A), container(B)]);
    story.hold(A, 1);
    let first = story.last_start();
    story.ready(first, 81);
    story.live(&[container(A), container(B)]);
    story.actions.clear();
    story.found_was(A, "abc", 81, Some(first.0), false);
    assert_eq!(story.adopted(), [(first, "abc".to_owned())]);
    // It ends, and what carries its label is started again by hand: backends take no order for an ended id.
    story.tell(Event::StoppedByHand { instance: first, why: "stopped by hand".to_owned() });
    story.found_was(A, "abc", 81, Some(first.0), false);
    let again = story.adopted()[1].0;
    assert!(again > first);
    // One that was given in a part of the journal that was lost is not given again.
    story.found_was(B, "def", 82, Some(900), false);
    assert_eq!(story.adopted()[2].0, InstanceId(900));
    story.tell(Event::Died { instance: InstanceId(900), why: String::new() });
    story.hold(B, 1);
    assert!(story.last_start() > InstanceId(900));
}

#[test]
fn a_found_instance_does_not_double_the_start_that_may_be_the_same() {
    let check = |found_at: u16, expect: usize| {
        let mut story = Story::begin(&[container(A)]);
        story.hold(A, 1);
        let start = story.last_start();
        story.found(A, "abc", found_at);
        assert!(story.adopted().is_empty(), "which it is, is not known yet");
        story.ready(start, 81);
        assert_eq!((story.adopted().len(), story.status(A).instances.len()), (expect, 1 + expect));
    };
    check(81, 0);
    check(99, 1);
    let mut story = Story::begin(&[container(A)]);
    story.hold(A, 1);
    let start = story.last_start();
    story.found(A, "abc", 81);
    story.tell(Event::StartFailed { instance: start, why: "it runs already".to_owned() });
    assert_eq!((story.adopted().len(), story.starts()), (1, 1), "{:?}", story.actions);
}

#[test]
fn a_new_life_plans_nothing_before_it_knows_what_runs() {
    let spec = ServiceSpec { min: 2, ..container(A) };
    let mut story = Story::unlisted(std::slice::from_ref(&spec));
    story.pass(2);
    assert_eq!(story.starts(), 0);
    story.found(A, "one", 81);
    assert_eq!(story.starts(), 0, "more may follow");
    story.found(A, "two", 82);
    story.tell(Event::OwnState { service: A, there: true });
    story.pass(60);
    assert_eq!((story.starts(), story.status(A).instances.len()), (0, 2));
    // Nothing was there.
    let mut story = Story::unlisted(std::slice::from_ref(&spec));
    story.tell(Event::OwnState { service: A, there: true });
    assert_eq!(story.starts(), 2);
    // A request does not wait for the listing.
    let mut story = Story::unlisted(std::slice::from_ref(&spec));
    story.hold(A, 1);
    assert_eq!(story.starts(), 1);
    // A backend that never lists does not hold the plan back for ever.
    let mut story = Story::unlisted(&[spec]);
    story.pass(31);
    assert_eq!(story.starts(), 2);
    // What nothing can be found of is not waited for.
    let story = Story::unlisted(&[ServiceSpec { min: 1, ..ServiceSpec::named(A, "a") }]);
    assert_eq!(story.starts(), 1);
}

#[test]
fn what_a_person_stopped_stays_stopped_until_a_person_says_otherwise() {
    let down = |spec: ServiceSpec| {
        let mut story = Story::unlisted(&[spec]);
        story.found(A, "abc", 81);
        story.tell(Event::OwnState { service: A, there: true });
        let instance = story.adopted()[0].0;
        story.tell(Event::StoppedByHand { instance, why: "stopped by hand".to_owned() });
        story.hold(A, 1);
        story.pass(600);
        assert_eq!(story.starts(), 0, "min, requests and time do not bring it back");
        let why = story.route(A).1.unwrap();
        assert!(why.starts_with("stopped by hand at 1970-01-01 00:16 UTC"), "{why}");
        assert!(why.contains("forerun resume s0"), "{why}");
        assert_eq!(story.status(A).down.as_ref().map(|d| d.why.as_str()), Some("stopped by hand"));
        story
    };
    let spec = || ServiceSpec { min: 1, ..container(A) };
    let scaled = |instances| {
        let order = Override { instances, until: Time::NEVER };
        Event::Override { service: A, order }
    };
    for word in [scaled(None), scaled(Some(1)), Event::ModeTold { service: A, mode: Some(Mode::Act) }] {
        let mut story = down(spec());
        story.tell(word.clone());
        assert_eq!(story.starts(), 1, "{word:?}");
        assert_eq!(story.status(A).down, None, "{word:?}");
        assert_eq!(story.route(A).1, None, "{word:?}");
    }
    let mut story = down(spec());
    story.found(A, "abc", 81);
    assert_eq!((story.starts(), story.status(A).down), (0, None), "started by hand, it is up again");
    // A new life does not forget, and a listing that finds it stopped says nothing new.
    let mut story = down(spec());
    story.live(&[spec()]);
    story.tell(Event::OwnState { service: A, there: true });
    story.pass(60);
    assert_eq!(story.starts(), 0);
    story.say(A, None);
    assert_eq!(story.starts(), 1);
}

#[test]
fn what_is_gone_is_not_started_and_what_is_back_is() {
    let mut story = Story::begin(&[container(A)]);
    story.tell(Event::OwnState { service: A, there: false });
    story.hold(A, 1);
    assert_eq!(story.starts(), 0);
    let why = story.route(A).1.unwrap();
    assert!(why.contains("not there any more"), "{why}");
    story.tell(Event::OwnState { service: A, there: true });
    assert_eq!((story.starts(), story.route(A).1), (1, None));
}

#[test]
fn a_stop_that_was_ordered_is_no_persons_word() {
    let mut story = Story::begin(&[container(A)]);
    story.found(A, "abc", 81);
    let instance = story.adopted()[0].0;
    story.pass(62);
    assert_eq!(story.stops(), 1);
    story.tell(Event::StoppedByHand { instance, why: "stopped by hand".to_owned() });
    assert_eq!(story.status(A).down, None);
    story.hold(A, 1);
    assert_eq!(story.starts(), 1);
}

#[test]
fn what_has_done_its_work_is_started_again_only_for_requests_or_a_person() {
    let mut story = Story::begin(&[ServiceSpec { min: 1, ..container(A) }]);
    assert_eq!(story.status(A).instances.len(), 1, "min starts it");
    let run = |story: &mut Story<KeepAlive>, expect: usize| {
        let starts = story.starts();
        let id = story.ids(InstanceState::Starting)[0];
        story.ready(id, 81);
        story.tell(Event::Completed { instance: id });
        story.pass(100);
        assert_eq!(story.starts(), starts, "not for `min`");
        assert_eq!(story.status(A).failing, None);
        assert_eq!(story.starts() + 1, expect);
    };
    run(&mut story, 1);
    story.hold(A, 1);
    story.gauge(A, 0, 0);
    run(&mut story, 2);
    story.say(A, Some(1));
    run(&mut story, 3);
    assert!(story.status(A).completed.is_some());
}

#[test]
fn a_persons_word_on_the_mode_goes_before_the_description_also_in_the_next_life() {
    let spec = ServiceSpec { mode: Mode::Observe, min: 1, ..container(A) };
    let mut story = Story::begin(std::slice::from_ref(&spec));
    assert_eq!(story.status(A).would.unwrap(), "would start 1: min keeps 1");
    story.tell(Event::ModeTold { service: A, mode: Some(Mode::Act) });
    assert_eq!((story.starts(), story.status(A).mode), (1, Mode::Act));
    let said = story.status(A).mode_word.unwrap().since;
    let snapshot = postcard::to_allocvec(&story.core).unwrap();
    let core: Core<KeepAlive> = postcard::from_bytes(&snapshot).unwrap();
    let mut next = Story { core, seconds: story.seconds + 5, actions: Vec::new() };
    next.live(&[spec]);
    next.tell(Event::OwnState { service: A, there: true });
    assert_eq!((next.starts(), next.status(A).mode), (1, Mode::Act));
    assert_eq!(next.status(A).mode_word.unwrap().since, said);
    next.tell(Event::ModeTold { service: A, mode: None });
    assert_eq!(next.status(A).mode, Mode::Observe);
    assert_eq!(next.stops(), 0, "what is up is left alone");
}

#[test]
fn who_goes_from_act_to_observe_keeps_what_was_about_to_be_stopped() {
    let mut story = Story::begin(&[container(A)]);
    story.found(A, "abc", 81);
    let instance = story.adopted()[0].0;
    // Its router does not answer: it drains.
    let now = Time(story.seconds * 1_000_000);
    story.core.step(now, &Event::RouterJoined(RouterId(1)), &mut story.actions);
    story.pass(61);
    assert_eq!(story.ids(InstanceState::Draining), [instance]);
    story.tell(Event::ModeTold { service: A, mode: Some(Mode::Observe) });
    story.pass(600);
    assert_eq!((story.stops(), story.route(A).0), (0, vec![instance]));
}

#[test]
fn what_is_only_watched_is_not_evicted_for_others() {
    let mut story = Story::begin(&[ServiceSpec { mode: Mode::Observe, ..container(A) }, container(B)]);
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 1 };
    story.tell(Event::Site(site));
    story.found(A, "abc", 81);
    story.hold(B, 1);
    story.pass(300);
    assert_eq!((story.starts(), story.stops()), (0, 0));
}

#[test]
fn what_a_daemon_owns_goes_on_when_forerun_ends() {
    for mode in MODES {
        let mut story = Story::begin(&[ServiceSpec { mode, ..container(A) }]);
        story.found(A, "abc", 81);
        story.tell(Event::ShutDown);
        assert_eq!(story.stops(), 0, "{mode:?}");
        assert_eq!(story.count(|a| matches!(a, Action::LetGo { .. })), 1);
        assert_eq!(story.count(|a| matches!(a, Action::Finished)), 1);
    }
}

#[test]
fn a_service_that_goes_takes_with_it_only_what_forerun_started() {
    let mut story = Story::begin(&[container(A)]);
    story.hold(A, 1);
    let started = story.last_start();
    story.ready(started, 81);
    story.found(A, "by hand", 82);
    story.tell(Event::ServiceGone(A));
    assert_eq!(story.count(|a| matches!(a, Action::LetGo { .. })), 1);
    assert_eq!(story.stopped(), [started]);
    story.tell(Event::Stopped { instance: started });
    assert!(story.core.services().next().is_none());
}

#[test]
fn what_was_found_frozen_is_thawed_before_anything_is_started() {
    let mut story = Story::begin(&[container(A)]);
    story.found_was(A, "abc", 81, None, true);
    let instance = story.adopted()[0].0;
    assert!(story.route(A).0.is_empty());
    story.hold(A, 1);
    let resumes = story.count(|a| matches!(a, Action::Resume { instance: i, .. } if *i == instance));
    assert_eq!((resumes, story.starts()), (1, 0));
    story.tell(Event::Resumed { instance, took: Span::from_millis(30) });
    assert_eq!(story.route(A), (vec![instance], None));
    assert_eq!(story.status(A).resume, Some(Span::from_millis(30)));
}

#[test]
fn what_a_person_froze_stays_frozen_until_a_person_says_otherwise() {
    let mut story = Story::begin(&[ServiceSpec { min: 1, ..container(A) }]);
    let instance = story.ids(InstanceState::Starting)[0];
    story.ready(instance, 81);
    story.tell(Event::Paused { instance });
    story.hold(A, 1);
    story.pass(60);
    assert_eq!((story.starts(), story.count(|a| matches!(a, Action::Resume { .. }))), (0, 0));
    assert!(story.route(A).1.unwrap().starts_with("paused by hand at"));
    story.tell(Event::Resumed { instance, took: Span::ZERO });
    assert_eq!(story.route(A), (vec![instance], None));
}

#[test]
fn who_waits_is_told_what_the_start_is_at_but_not_too_often() {
    let mut story = Story::begin(&[container(A)]);
    story.hold(A, 1);
    let instance = story.last_start();
    let said = |story: &Story<KeepAlive>| {
        story.actions.iter().rev().find_map(|a| match a {
            Action::Route { route: Some(route), .. } => Some(route.notes.progress.clone()),
            _ => None,
        })
    };
    for what in ["pulling 1%", "pulling 2%"] {
        story.tell(Event::Progress { instance, what: what.to_owned() });
    }
    assert_eq!(said(&story).unwrap(), "pulling 1%");
    assert_eq!(story.status(A).progress, "pulling 2%");
    story.pass(1);
    story.tell(Event::Progress { instance, what: "pulling 40%".to_owned() });
    assert_eq!(said(&story).unwrap(), "pulling 40%");
    story.ready(instance, 81);
    assert_eq!(said(&story).unwrap(), "");
}

#[test]
fn a_person_who_keeps_it_at_none_is_named_to_those_who_ask() {
    let mut story = Story::begin(&[container(A)]);
    story.say(A, Some(0));
    let why = story.route(A).1.unwrap();
    assert!(why.contains("a person keeps it at 0") && why.contains("forerun resume s0"), "{why}");
    let word = story.status(A).word.unwrap();
    assert_eq!((word.instances, word.until), (0, Time::NEVER));
    story.say(A, None);
    assert_eq!((story.route(A).1, story.status(A).word), (None, None));
}

#[test]
fn what_forgets_a_user_forgets_whom_it_woke() {
    let mut story = Story::begin(&[container(A)]);
    story.hold(A, 1);
    assert_eq!(story.status(A).wakes[0].by, WakeBy::User(UserKey(7)));
    story.tell(Event::Forget(UserKey(7)));
    assert_eq!(story.status(A).wakes[0].by, WakeBy::User(UserKey::NOBODY));
}

#[test]
fn of_several_the_users_own_is_the_last_to_go() {
    let mut story = Story::begin(&[container(A)]);
    story.found(A, "own", 80);
    let own = story.adopted()[0].0;
    story.tell(Event::IsOwn { instance: own });
    story.tell(Event::ModeTold { service: A, mode: Some(Mode::Act) });
    story.say(A, Some(3));
    let made: Vec<InstanceId> = story.ids(InstanceState::Starting);
    assert_eq!(made.len(), 2);
    for (id, port) in made.iter().zip(81..) {
        story.ready(*id, port);
    }
    // The others were used more recently, so by that alone the own one would go first.
    story.pass(5);
    story.say(A, Some(1));
    let left = story.route(A).0;
    assert_eq!(left, [own], "{:?}", story.actions);
}
