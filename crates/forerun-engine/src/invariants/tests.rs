//! Each rule is broken by what breaks it and by nothing else.

use super::*;
use forerun_backends::{StartOrder, StopOrder};
use forerun_types::{Action, InstanceRoute, Reason, ServiceRoute, SlaClass, Span, StopWhy, Variant};

const SERVICE: ServiceId = ServiceId(0);

/// A site for one instance, one router, and one instance that is ready.
fn up() -> Invariants {
    let mut invariants = Invariants::default();
    let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 1 };
    for event in [Event::Began, Event::Site(site), Event::Service(spec), Event::RouterJoined(RouterId(0))] {
        invariants.event(&event);
    }
    start(&mut invariants, 1, 1);
    let address = ([127, 0, 0, 1], 1).into();
    invariants.event(&Event::Ready { instance: InstanceId(1), address, took: Span::ZERO });
    route(&mut invariants, 2, &[1]);
    invariants
}

fn start(invariants: &mut Invariants, instance: u64, generation: u64) {
    let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
    let (instance, generation) = (InstanceId(instance), Generation(generation));
    invariants.start(Time(1), &StartOrder { instance, generation, spec });
}

#[test]
fn each_site_has_its_own_room() {
    let mut invariants = up();
    let site = |id, name: &str| SiteSpec {
        id: SiteId(id),
        name: name.to_owned(),
        capacity: Resources::default(),
        instances_max: 1,
    };
    invariants.event(&Event::Site(site(1, "b")));
    let mut spec = ServiceSpec::named(ServiceId(1), "t");
    spec.launch = forerun_types::Launch::Container(forerun_types::Container {
        engine: "b".to_owned(),
        ..Default::default()
    });
    let spec = Arc::new(spec);
    let order = |id| StartOrder {
        instance: InstanceId(id),
        generation: Generation(id + 10),
        spec: Arc::clone(&spec),
    };
    invariants.start(Time(2), &order(2));
    assert_eq!(invariants.take(), []);
    invariants.let_go(InstanceId(2));
    invariants.start(Time(3), &order(3));
    assert_eq!(invariants.take(), []);
    invariants.start(Time(4), &order(4));
    assert_eq!(invariants.take().len(), 1, "b is full");
}

fn stop(invariants: &mut Invariants, at: Time, generation: u64) {
    let (instance, generation) = (InstanceId(1), Generation(generation));
    invariants.stop(at, &StopOrder { instance, generation, grace: Span::ZERO });
}

fn route(invariants: &mut Invariants, generation: u64, instances: &[u64]) {
    let entry = |&instance: &u64| InstanceRoute {
        instance: InstanceId(instance),
        address: ([127, 0, 0, 1], 1).into(),
        access: forerun_types::Access::Any,
    };
    let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
    let route = ServiceRoute::new(spec, instances.iter().map(entry).collect(), None);
    invariants.route(Time(1), Generation(generation), SERVICE, Some(&route));
}

fn quiesced(invariants: &mut Invariants, generation: u64) {
    let (router, instance) = (RouterId(0), InstanceId(1));
    invariants.event(&Event::Quiesced { router, instance, generation: Generation(generation) });
}

fn check(story: impl FnOnce(&mut Invariants), expect: &[Rule]) {
    let mut invariants = up();
    story(&mut invariants);
    let broken: Vec<Rule> = invariants.take().into_iter().map(|v| v.rule).collect();
    assert_eq!(broken, expect);
    assert_eq!(invariants.counts().values().sum::<u64>(), expect.len() as u64);
}

/// Gives the one instance to a key of its service, after it has left the table.
fn becomes(key: &str, generation: u64) -> StartOrder {
    let variant = Some(Variant { of: SERVICE, key: key.to_owned() });
    let id = ServiceId(key.len() as u32);
    let spec = Arc::new(ServiceSpec { variant, ..ServiceSpec::named(id, format!("s@{key}")) });
    StartOrder { instance: InstanceId(1), generation: Generation(generation), spec }
}

fn keys_are_kept_apart() {
    let given = |quiet: bool| {
        move |i: &mut Invariants| {
            route(i, 3, &[]);
            if quiet {
                quiesced(i, 3);
            }
            i.specialise(Time(2), &becomes("red", 4));
        }
    };
    let touched = Event::Touched { router: RouterId(0), instance: InstanceId(1) };
    check(given(true), &[]);
    check(given(false), &[Rule::OneKey]);
    check(|i| i.specialise(Time(2), &becomes("red", 4)), &[Rule::OneKey]);
    check(
        |i| {
            i.event(&touched);
            given(true)(i);
        },
        &[Rule::OneKey],
    );
    let done = Event::Specialised { instance: InstanceId(1), took: Span::ZERO };
    let given_and_done = |i: &mut Invariants| {
        given(true)(i);
        i.event(&done);
    };
    // Back in the pool, for another key, or for everybody.
    check(
        |i| {
            given_and_done(i);
            route(i, 5, &[1]);
        },
        &[Rule::OneKey],
    );
    check(
        |i| {
            given_and_done(i);
            i.specialise(Time(3), &becomes("blue", 5));
        },
        &[Rule::OneKey],
    );
}

#[test]
fn each_rule_is_broken_by_what_breaks_it_and_by_nothing_else() {
    let drained = Time(1) + Span::from_secs(30);
    check(|_| {}, &[]);
    check(|i| start(i, 2, 3), &[Rule::Capacity]);
    check(
        |i| {
            i.event(&Event::Died { instance: InstanceId(1), why: String::new() });
            start(i, 2, 3);
        },
        &[],
    );
    check(|i| stop(i, Time(2), 3), &[Rule::StopInUse]);
    let leaves = |quiet: Option<u64>, at: Time| {
        move |i: &mut Invariants| {
            route(i, 3, &[]);
            quiet.into_iter().for_each(|generation| quiesced(i, generation));
            stop(i, at, 4);
        }
    };
    check(leaves(None, Time(2)), &[Rule::StopInUse]);
    check(leaves(Some(2), Time(2)), &[Rule::StopInUse]);
    check(leaves(Some(3), Time(2)), &[]);
    check(leaves(None, drained), &[]);
    check(|i| route(i, 1, &[1]), &[Rule::StaleGeneration]);
    check(|i| route(i, 3, &[1, 7]), &[Rule::RoutedToNothing]);
    keys_are_kept_apart();
    check(
        |i| {
            i.event(&Event::Died { instance: InstanceId(1), why: String::new() });
            start(i, 1, 3);
        },
        &[Rule::DoubleStart],
    );
    check(
        |i| {
            i.event(&Event::Died { instance: InstanceId(1), why: String::new() });
            let spec = ServiceSpec { mode: Mode::Observe, ..ServiceSpec::named(SERVICE, "s") };
            i.event(&Event::Service(Arc::new(spec)));
            start(i, 2, 3);
        },
        &[Rule::Observed],
    );
}

fn start_of(instance: u64, generation: u64, spec: &ServiceSpec) -> Action {
    let (service, spec) = (spec.id, Arc::new(spec.clone()));
    let (instance, generation) = (InstanceId(instance), Generation(generation));
    Action::Start { instance, generation, service, site: SiteId(0), spec, reason: Reason::ShutDown }
}

fn stop_of(generation: u64) -> Action {
    let (grace, why, reason) = (Span::ZERO, StopWhy::Plan, Reason::ShutDown);
    Action::Stop { instance: InstanceId(1), generation: Generation(generation), grace, why, reason }
}

/// The rule by which an action is refused, and what the core is told.
fn refused(invariants: &mut Invariants, at: Time, action: &Action) -> Option<(Rule, Option<&'static str>)> {
    let refusal = invariants.admit(at, action).err()?;
    Some((refusal.rule, refusal.told.as_ref().map(Event::name)))
}

#[test]
fn what_would_break_a_rule_is_refused_and_the_books_stay_as_they_were() {
    let spec = ServiceSpec::named(SERVICE, "s");
    let mut i = up();
    let before = format!("{:?}", (&i.known, &i.reserved, i.ordered, i.last_started));
    let told = Some("start_failed");
    let second = start_of(2, 3, &spec);
    assert_eq!(refused(&mut i, Time(2), &second), Some((Rule::Capacity, told)));
    assert_eq!(refused(&mut i, Time(2), &start_of(2, 1, &spec)), Some((Rule::StaleGeneration, told)));
    // The first order for it holds: nothing is to be made of the second.
    assert_eq!(refused(&mut i, Time(2), &start_of(1, 3, &spec)), Some((Rule::DoubleStart, None)));
    assert_eq!(before, format!("{:?}", (&i.known, &i.reserved, i.ordered, i.last_started)));
    let pause = |generation| {
        let (instance, generation) = (InstanceId(1), Generation(generation));
        Action::Pause { instance, generation, reason: Reason::ShutDown }
    };
    assert_eq!(refused(&mut i, Time(2), &pause(3)), Some((Rule::StopInUse, Some("not_changed"))));
    assert!(!i.known[&InstanceId(1)].paused);
    // Once there is room, and it is out of the table and quiet, the same is let pass.
    route(&mut i, 3, &[]);
    quiesced(&mut i, 3);
    assert_eq!(refused(&mut i, Time(2), &stop_of(4)), None);
    i.event(&Event::Stopped { instance: InstanceId(1) });
    assert_eq!(refused(&mut i, Time(2), &start_of(2, 5, &spec)), None);
}

#[test]
fn a_stop_in_use_is_refused_until_a_drain_is_over_and_no_longer() {
    let mut i = up();
    let (at, drain) = (Time(2), ServiceSpec::named(SERVICE, "s").drain_timeout);
    assert_eq!(refused(&mut i, at, &stop_of(3)), Some((Rule::StopInUse, None)));
    assert_eq!(refused(&mut i, Time((at + drain).0 - 1), &stop_of(4)), Some((Rule::StopInUse, None)));
    // Or what nobody can make leave the table would keep its room for ever.
    assert_eq!(refused(&mut i, at + drain, &stop_of(5)), None);
}

#[test]
fn nothing_is_done_to_what_is_only_watched() {
    let watched = |mode| Event::ModeTold { service: SERVICE, mode: Some(mode) };
    for mode in [Mode::Observe, Mode::Advise] {
        let mut i = up();
        i.event(&watched(mode));
        route(&mut i, 3, &[]);
        quiesced(&mut i, 3);
        assert_eq!(refused(&mut i, Time(2), &stop_of(4)), Some((Rule::Observed, None)), "{mode:?}");
        // What goes with Forerun, or with its service, goes in any mode.
        i.event(&Event::ServiceGone(SERVICE));
        assert_eq!(refused(&mut i, Time(2), &stop_of(5)), None, "{mode:?}");
    }
}

#[test]
fn an_entry_that_must_not_be_in_the_table_is_left_out_of_it() {
    let mut i = up();
    let entry = |instance| InstanceRoute {
        instance: InstanceId(instance),
        address: ([127, 0, 0, 1], 1).into(),
        access: forerun_types::Access::Any,
    };
    let spec = Arc::new(ServiceSpec::named(SERVICE, "s"));
    let route = ServiceRoute::new(spec, vec![entry(1), entry(7)], None);
    let (sound, rule) = i.sound(Time(2), SERVICE, &route).expect("7 is not there");
    assert_eq!((sound.instances, rule), (vec![entry(1)], Rule::RoutedToNothing));
    let alone = ServiceRoute { instances: vec![entry(1)], ..route };
    assert_eq!(i.sound(Time(2), SERVICE, &alone), None);
}

/// A site for four; gold is guaranteed half of it. Bronze is slow to give back, or quick.
fn beside_gold(bronze_drain: Span) -> (Invariants, ServiceSpec, ServiceSpec) {
    let mut i = Invariants::default();
    let site =
        SiteSpec { id: SiteId(0), name: String::new(), capacity: Resources::default(), instances_max: 4 };
    i.event(&Event::Began);
    i.event(&Event::Site(site));
    let class = |name: &str, guarantee_milli| SlaClass {
        name: name.to_owned(),
        guarantee_milli,
        reclaim_max: Span::from_secs(10),
        ..SlaClass::default()
    };
    let gold = ServiceSpec { sla: class("gold", 500), ..ServiceSpec::named(ServiceId(0), "gold") };
    let bronze = ServiceSpec {
        sla: class("bronze", 0),
        drain_timeout: bronze_drain,
        ..ServiceSpec::named(ServiceId(1), "bronze")
    };
    for spec in [&gold, &bronze] {
        let route = ServiceRoute::new(Arc::new(spec.clone()), Vec::new(), None);
        i.route(Time(1), Generation(1), spec.id, Some(&route));
    }
    (i, gold, bronze)
}

#[test]
fn what_is_a_classs_own_is_lent_only_to_what_can_give_it_back() {
    for (drain, lent) in [(Span::from_secs(30), 2), (Span::from_secs(5), 4)] {
        let (mut i, gold, bronze) = beside_gold(drain);
        let mut started = 0;
        while started < 4 && refused(&mut i, Time(2), &start_of(started + 1, started + 2, &bronze)).is_none()
        {
            started += 1;
        }
        assert_eq!(started, lent, "{drain}");
        let next = start_of(10, 10, &gold);
        let expect = (lent == 4).then_some((Rule::Capacity, Some("start_failed")));
        assert_eq!(refused(&mut i, Time(2), &next), expect, "{drain}");
    }
    let (mut i, gold, bronze) = beside_gold(Span::from_secs(30));
    for instance in 1..=2 {
        assert_eq!(refused(&mut i, Time(2), &start_of(instance, instance + 1, &bronze)), None);
    }
    assert_eq!(
        refused(&mut i, Time(2), &start_of(3, 4, &bronze)),
        Some((Rule::Guarantee, Some("start_failed")))
    );
    // Where nothing is guaranteed any more, all of it is anyone's.
    i.route(Time(3), Generation(9), gold.id, None);
    assert_eq!(refused(&mut i, Time(3), &start_of(3, 10, &bronze)), None);
}
