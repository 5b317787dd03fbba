//! Variants of a service by key: each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

mod keys_world;

use forerun_core::{Forerun, KeepAlive};
use forerun_types::*;
use keys_world::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

#[test]
fn a_key_gets_a_service_of_its_own_that_is_like_its_parent() {
    let parent = ServiceSpec { min: 1, concurrency: 7, ..shop(false) };
    let mut world = kept(std::slice::from_ref(&parent));
    let red = world.see("red").unwrap();
    let spec = Arc::clone(&world.table[&red].spec);
    assert_eq!((spec.name.as_str(), spec.min, spec.concurrency, spec.unrouted), ("shop@red", 0, 7, true));
    assert_eq!(spec.variant, Some(Variant { of: SHOP, key: "red".to_owned() }));
    assert_eq!(world.see("red"), Some(red), "a key that is seen again changes nothing");
    world.request(red);
    assert_eq!(world.count("start shop@red"), 1);
    assert_eq!(world.accesses(red), [Access::Only(Variant::access_key("red"))]);
    // Described anew, it is described so as well.
    world.tell(Event::Service(Arc::new(ServiceSpec { concurrency: 9, ..parent.clone() })));
    assert_eq!(world.table[&red].spec.concurrency, 9);
    // Without specialisation there is none.
    world.tell(Event::Service(Arc::new(ServiceSpec { specialise: None, ..parent })));
    assert_eq!(world.variant("red"), None);
}

#[test]
fn keys_that_are_listed_are_there_at_once_and_others_never() {
    let mut spec = shop(false);
    spec.specialise.as_mut().unwrap().keys = vec!["red".to_owned(), "blue".to_owned()];
    let mut world = kept(&[spec]);
    assert!(world.variant("red").is_some() && world.variant("blue").is_some());
    assert_eq!(world.see("green"), None);
    assert_eq!(world.see(""), None);
}

#[test]
fn the_users_own_never_becomes_a_keys() {
    let mut world = with_a_pool();
    world.tell(Event::IsOwn { instance: InstanceId(1) });
    let red = world.see("red").unwrap();
    world.request(red);
    assert_eq!(world.count("start shop@red"), 1, "it is started, and not made of the user's own");
    assert_eq!(world.accesses(SHOP), [Access::Unclaimed]);
}

#[test]
fn an_unused_generic_instance_becomes_the_keys_and_is_replaced() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.hold(red, 1);
    assert_eq!(world.log, ["start shop", "specialise shop@red", "start shop"]);
    assert_eq!((world.up(SHOP), world.up(red)), (0, 0), "nobody is sent there while it changes");
    world.pass(CHANGE);
    assert_eq!(world.accesses(red), [Access::Only(Variant::access_key("red"))]);
    world.load(red, 0, 0, Vec::new());
    // Idle for long, it is stopped, and not given to anyone.
    world.pass(Span::from_secs(120));
    assert_eq!((world.up(red), world.count("stop i1")), (0, 1));
}

#[test]
fn an_instance_that_was_used_stays_generic() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.tell(Event::Touched { router: ROUTER, instance: InstanceId(1) });
    assert_eq!(world.accesses(SHOP), [Access::Any]);
    world.hold(red, 1);
    assert_eq!(world.log, ["start shop", "start shop@red"]);
}

#[test]
fn a_use_that_is_told_while_it_leaves_the_table_brings_it_back() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.quiesce = false;
    world.hold(red, 1);
    assert_eq!((world.up(SHOP), world.count("start shop@red")), (0, 0));
    world.tell(Event::Touched { router: ROUTER, instance: InstanceId(1) });
    assert_eq!(world.accesses(SHOP), [Access::Any]);
    assert_eq!((world.count("start shop@red"), world.count("specialise")), (1, 0));
}

#[test]
fn a_router_that_does_not_answer_keeps_nobody_waiting_for_a_generic_instance() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.quiesce = false;
    world.hold(red, 1);
    world.pass(Span::from_secs(2));
    assert_eq!((world.count("start shop@red"), world.count("specialise")), (1, 0));
    assert_eq!(world.accesses(SHOP), [Access::Any]);
}

#[test]
fn what_a_router_knew_that_left_is_generic_for_good() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.tell(Event::RouterLeft(ROUTER));
    world.tell(Event::RouterJoined(ROUTER));
    world.hold(red, 1);
    assert_eq!((world.count("start shop@red"), world.count("specialise")), (1, 0));
}

#[test]
fn a_change_that_fails_ends_the_instance_and_the_key_gets_a_new_one() {
    let mut world = with_a_pool();
    world.hook_fails = true;
    let red = world.see("red").unwrap();
    world.hold(red, 1);
    world.pass(CHANGE);
    assert_eq!((world.count("stop i1"), world.count("start shop@red")), (1, 1));
    // Once may be chance; from the second time on the hook is left alone for a while.
    world.pass(START);
    for key in ["blue", "green"] {
        let variant = world.see(key).unwrap();
        world.hold(variant, 1);
        world.pass(START + START);
    }
    assert_eq!((world.count("specialise"), world.count("start shop@green")), (2, 1));
}

#[test]
fn without_a_hook_or_when_it_is_slower_than_a_start_nothing_is_taken() {
    let mut without = kept(&[ServiceSpec { min: 1, ..shop(false) }]);
    without.pass(START);
    assert_eq!(without.accesses(SHOP), [Access::Any]);
    let red = without.see("red").unwrap();
    without.hold(red, 1);
    assert_eq!((without.count("start shop@red"), without.count("specialise")), (1, 0));

    let mut slow = with_a_pool();
    let red = slow.see("red").unwrap();
    slow.hold(red, 1);
    let change = slow.coming.keys().find(|(_, i)| *i == InstanceId(1)).copied().unwrap();
    slow.coming.remove(&change);
    slow.tell(Event::Specialised { instance: InstanceId(1), took: START + CHANGE });
    slow.pass(START + START);
    let blue = slow.see("blue").unwrap();
    slow.hold(blue, 1);
    assert_eq!((slow.count("specialise"), slow.count("start shop@blue")), (1, 1));
}

#[test]
fn at_the_cap_the_key_that_was_away_longest_gives_way_unless_it_is_in_use() {
    let mut world = kept(&[shop(false)]);
    let [red, blue, green] = ["red", "blue", "green"].map(|key| {
        world.pass(Span::from_secs(1));
        world.see(key).unwrap()
    });
    world.hold(red, 1);
    assert!(world.see("white").is_some());
    assert_eq!((world.variant("red"), world.variant("blue")), (Some(red), None), "red is in use");
    let white = world.variant("white").unwrap();
    assert!(![red, blue, green].contains(&white), "an id rests before it stands for another key");
    world.hold(green, 1);
    world.hold(white, 1);
    assert_eq!(world.see("black"), None, "no key can go: this one has to do with the generic instances");
    world.pass(Span::from_secs(300));
    for used in [green, white] {
        world.load(used, 0, 0, Vec::new());
    }
    world.pass(Span::from_secs(300));
    assert_eq!(world.see("black"), Some(blue), "after its rest the id is used again");
}

#[test]
fn keys_that_come_and_go_take_no_more_ids_than_there_may_be() {
    let mut world = kept(&[shop(false)]);
    let mut ids = BTreeSet::new();
    for n in 0..2_000 {
        ids.extend(world.see(&format!("key{n}")));
        world.pass(Span::from_secs(1));
    }
    assert!(ids.len() <= 12, "{}", ids.len());
    assert!(world.core.next_service().0 <= 13);
    assert!(world.table.len() <= 4, "{:?}", world.table.keys());
}

#[test]
fn generic_and_specialised_instances_share_one_max() {
    let mut world = kept(&[ServiceSpec { max: 2, min: 1, ..shop(false) }]);
    world.pass(START);
    let [red, blue] = ["red", "blue"].map(|key| world.see(key).unwrap());
    world.request(red);
    assert_eq!((world.up(SHOP), world.up(red)), (1, 1));
    world.request(blue);
    // One of the others had to go: both were idle.
    assert_eq!(world.up(SHOP) + world.up(red) + world.up(blue), 2);
    assert_eq!(world.up(blue), 1);
    // A person who wants none gets none of any key.
    let order = Override { instances: Some(0), until: world.now + Span::from_secs(600) };
    world.tell(Event::Override { service: SHOP, order });
    assert_eq!(world.up(SHOP) + world.up(red) + world.up(blue), 0);
    let starts = world.count("start");
    world.hold(red, 1);
    assert_eq!(world.count("start"), starts);
}

#[test]
fn what_a_persons_number_kept_from_a_key_is_the_keys_when_it_ends() {
    let mut world = kept(&[ServiceSpec { max: 2, min: 1, ..shop(false) }]);
    world.pass(START);
    let red = world.see("red").unwrap();
    let order = Override { instances: Some(1), until: world.now + Span::from_secs(60) };
    world.tell(Event::Override { service: SHOP, order });
    // The one that there is is in use.
    let load = ServiceLoad { service: SHOP, in_flight: 1, peak: 1, waiting: 0 };
    let instance = *world.processes.keys().next().unwrap();
    let used = InstanceLoad { instance, in_flight: 1, last_used: world.now };
    let (services, instances) = (vec![load], vec![used]);
    world.tell(Event::Traffic(Traffic { router: ROUTER, services, instances, ..Traffic::default() }));
    world.hold(red, 1);
    world.load(red, 0, 1, Vec::new());
    world.pass(Span::from_secs(50));
    assert_eq!(world.count("start shop@red"), 0);
    world.pass(Span::from_secs(20));
    assert_eq!(world.count("start shop@red"), 1);
}

#[test]
fn what_a_person_stopped_of_a_key_is_down_until_a_word_about_its_service() {
    let mut world = kept(&[ServiceSpec { max: 2, ..shop(false) }]);
    let red = world.see("red").unwrap();
    world.request(red);
    let instance = *world.processes.keys().next().unwrap();
    world.processes.clear();
    world.tell(Event::StoppedByHand { instance, why: "stopped by hand".to_owned() });
    world.hold(red, 1);
    assert_eq!(world.count("start shop@red"), 1);
    let order = Override { instances: None, until: Time(0) };
    world.tell(Event::Override { service: SHOP, order });
    world.hold(red, 1);
    assert_eq!(world.count("start shop@red"), 2);
}

#[test]
fn where_there_is_one_place_it_is_for_the_key_that_waits_and_not_for_min() {
    let mut world = kept(&[ServiceSpec { max: 1, min: 1, ..shop(false) }]);
    world.pass(START);
    let [red, blue] = ["red", "blue"].map(|key| world.see(key).unwrap());
    for variant in [red, blue] {
        world.request(variant);
        assert_eq!((world.up(SHOP), world.up(variant)), (0, 1));
    }
    world.pass(Span::from_secs(300));
    assert_eq!(
        (world.up(SHOP), world.up(red), world.up(blue)),
        (1, 0, 0),
        "min is back when nobody is there"
    );
}

#[test]
fn a_service_that_goes_takes_its_variants_along_and_what_they_claimed_too() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.quiesce = false;
    world.hold(red, 1);
    world.tell(Event::ServiceGone(SHOP));
    world.quiesce = true;
    world.pass(Span::from_secs(60));
    assert!(world.table.is_empty() && world.processes.is_empty(), "{:?}", world.processes);
    assert_eq!(world.count("specialise"), 0);
}

#[test]
fn a_new_life_knows_the_keys_of_the_one_before() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.processes.clear();
    world.coming.clear();
    world.tell(Event::Began);
    world.tell(Event::RouterJoined(ROUTER));
    world.tell(Event::Service(Arc::new(ServiceSpec { min: 1, ..shop(true) })));
    assert_eq!(world.variant("red"), Some(red));
    world.request(red);
}

#[test]
fn what_became_a_keys_in_the_life_before_is_that_keys_whatever_it_is_found_as() {
    let mut world = with_a_pool();
    let red = world.see("red").unwrap();
    world.hold(red, 1);
    world.pass(CHANGE);
    let address = ([127, 0, 0, 1], 1).into();
    let found = |was| Event::Found { service: SHOP, handle: format!("{was:?}"), was, address, paused: false };
    world.coming.clear();
    world.tell(Event::Began);
    world.tell(Event::Began);
    world.tell(Event::RouterJoined(ROUTER));
    world.tell(found(Some(InstanceId(1))));
    assert_eq!((world.up(SHOP), world.up(red)), (0, 1));
    assert_eq!(world.accesses(red), [Access::Only(Variant::access_key("red"))]);
    // What nobody knows was nobody's, and nobody gets it: it may have been used.
    world.processes.insert(InstanceId(9), Process { service: SHOP, key: None, touched: true, listed: false });
    world.tell(found(Some(InstanceId(9))));
    assert_eq!(world.accesses(SHOP), [Access::Any]);
}

#[test]
fn a_person_speaks_of_the_service_and_means_its_keys_too() {
    let mut world = kept(&[shop(false)]);
    let red = world.see("red").unwrap();
    let refused = |world: &World<KeepAlive>| {
        world.table[&red].unavailable.as_ref().map_or("", |u| &u.why).split(' ').next().unwrap().to_owned()
    };
    assert_eq!(refused(&world), "");
    world.tell(Event::ModeTold { service: SHOP, mode: Some(Mode::Observe) });
    world.hold(red, 1);
    assert_eq!((world.count("start"), refused(&world).as_str()), (0, "forerun"));
    world.tell(Event::ModeTold { service: SHOP, mode: None });
    world.pass(Span::from_secs(1));
    assert_eq!((world.count("start shop@red"), refused(&world).as_str()), (1, ""));
    let order = Override { instances: Some(0), until: Time::NEVER };
    world.tell(Event::Override { service: SHOP, order });
    world.pass(Span::from_secs(60));
    assert_eq!((world.up(red), refused(&world).as_str()), (0, "a"));
}

#[test]
fn what_is_watched_from_now_on_keeps_what_was_to_be_stopped_of_its_keys() {
    let mut world = kept(&[shop(false)]);
    let red = world.see("red").unwrap();
    world.request(red);
    world.quiesce = false;
    world.pass(Span::from_secs(65));
    assert_eq!((world.up(red), world.count("stop")), (0, 0), "it drains");
    world.tell(Event::ModeTold { service: SHOP, mode: Some(Mode::Observe) });
    assert_eq!(world.up(red), 1);
    world.pass(Span::from_secs(600));
    assert_eq!((world.up(red), world.count("stop")), (1, 0));
}

#[test]
fn a_key_that_waits_has_the_place_of_a_relative_that_says_later_that_it_is_not_busy() {
    let busy = Some(Busy::Http { path: "/busy".to_owned(), pointer: None });
    let mut world = kept(&[ServiceSpec { max: 1, busy, ..shop(false) }]);
    let [red, blue] = ["red", "blue"].map(|key| world.see(key).unwrap());
    world.request(red);
    let instance = *world.processes.keys().next().unwrap();
    world.hold(blue, 1);
    world.load(blue, 0, 1, Vec::new());
    assert_eq!((world.up(red), world.count("start shop@blue")), (1, 0), "it is asked first");
    world.tell(Event::BusyAnswer { instance, busy: false, why: String::new() });
    assert_eq!((world.up(red), world.count("start shop@blue")), (0, 1));
}

#[test]
fn what_is_only_watched_gets_no_variants() {
    let mut world = kept(&[ServiceSpec { mode: Mode::Observe, ..shop(false) }]);
    assert_eq!(world.see("red"), None);
}

#[test]
fn a_person_who_is_forgotten_leaves_no_key() {
    let mut spec = shop(false);
    spec.specialise.as_mut().unwrap().by = KeyFrom::User;
    let mut world = kept(&[spec]);
    assert!(world.see("00000000000000ab").is_some() && world.see("00000000000000ac").is_some());
    world.tell(Event::Forget(UserKey(0xab)));
    assert_eq!(world.variant("00000000000000ab"), None);
    assert!(world.variant("00000000000000ac").is_some());
}

#[test]
fn a_person_on_the_way_warms_the_instance_of_that_persons_key() {
    let door = ServiceSpec { start_estimate: START, ..ServiceSpec::named(ServiceId(1), "door") };
    let mut world = World::new(Forerun::new(1 << 20), &[shop(false), door]);
    let [red, blue] = ["red", "blue"].map(|key| world.see(key).unwrap());
    let activity = |world: &World<Forerun>, user, service| Activity {
        at: world.now,
        tenant: TenantKey(0),
        user: UserKey(user),
        group: GroupKey(0),
        site: SiteId(0),
        service,
        action: ActionKey(0),
    };
    // Anna goes from the door to red, Bob to blue, at any time of an hour: only the door tells when.
    let mut state = 7_u64;
    for round in 0..60 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        world.pass(Span::from_secs(600 + (state >> 33) % 3_000));
        let (user, variant) = if round % 2 == 0 { (1, red) } else { (2, blue) };
        let at_door = activity(&world, user, ServiceId(1));
        world.load(ServiceId(1), 0, 0, vec![at_door]);
        world.pass(Span::from_secs(10));
        if round >= 50 {
            let other = if variant == red { blue } else { red };
            assert_eq!((world.up(variant), world.up(other)), (1, 0), "round {round}");
        }
        let inside = activity(&world, user, variant);
        world.tell(Event::Traffic(Traffic {
            router: ROUTER,
            activities: vec![inside],
            ..Traffic::default()
        }));
        world.request(variant);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order, no instance serves two keys or one after the pool: `World` asserts it.
    #[test]
    fn no_instance_is_ever_two_keys(ops in prop::collection::vec((0..11_u8, 0..5_u64, 0..8_000_u64), 1..120)) {
        let parent = ServiceSpec { min: 1, max: 5, drain_timeout: Span::from_secs(2), ..shop(true) };
        let mut world = kept(std::slice::from_ref(&parent));
        for (op, which, millis) in ops {
            let key = format!("k{which}");
            let known = world.variant(&key);
            let nth = world.processes.keys().nth(which as usize).copied();
            match (op, known, nth) {
                (0, _, _) => { world.see(&key); }
                (1 | 2, Some(variant), _) => world.hold(variant, 1 + which as u32 % 2),
                (3, Some(variant), _) => world.load(variant, 0, 0, Vec::new()),
                (4, _, _) => world.hold(SHOP, which as u32 % 3),
                (5, _, Some(instance)) if world.processes[&instance].listed && world.processes[&instance].key.is_none() => {
                    world.tell(Event::Touched { router: ROUTER, instance });
                }
                (6, _, Some(instance)) => world.tell(Event::Died { instance, why: String::new() }),
                (7, _, _) => world.quiesce = which % 2 == 0,
                (8, _, _) => world.hook_fails = which == 0,
                (9, _, _) => {
                    world.tell(Event::RouterLeft(ROUTER));
                    world.tell(Event::RouterJoined(ROUTER));
                }
                (10, _, _) if which == 0 => {
                    world.tell(Event::ServiceGone(SHOP));
                    world.tell(Event::Service(Arc::new(parent.clone())));
                }
                _ => world.pass(Span::from_millis(millis)),
            }
        }
        world.quiesce = true;
        world.tell(Event::ShutDown);
        world.pass(Span::from_secs(120));
        prop_assert!(world.processes.is_empty(), "{:?}", world.processes);
    }
}
