//! Requests with keys: each key's instances, generic ones where there are none, and never another key's.

use crate::world::{Instance, World, entry, eventually, ok, spec};
use forerun_types::{
    Access, Event, InstanceId, InstanceRoute, KeyFrom, Mode, ServiceId, ServiceRoute, ServiceSpec,
    Specialise, Unavailable, UserFrom, Variant,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SHOP: ServiceId = ServiceId(1);

fn shop(change: impl FnOnce(&mut ServiceSpec)) -> Arc<ServiceSpec> {
    spec(|s| {
        let by = KeyFrom::Header("X-Data".to_owned());
        s.specialise = Some(Specialise { by, ..Specialise::default() });
        change(s);
    })
}

fn variant_spec(parent: &ServiceSpec, id: u32, key: &str) -> ServiceSpec {
    ServiceSpec {
        id: ServiceId(id),
        name: format!("shop@{key}"),
        unrouted: true,
        variant: Some(Variant { of: SHOP, key: key.to_owned() }),
        ..parent.clone()
    }
}

/// A variant with the instances that it has.
fn variant(parent: &ServiceSpec, id: u32, key: &str, instances: &[(u64, &Instance)]) -> Arc<ServiceRoute> {
    let access = Access::Only(Variant::access_key(key));
    let route = |(id, of): &(u64, &Instance)| InstanceRoute {
        instance: InstanceId(*id),
        address: of.address,
        access,
    };
    let instances = instances.iter().map(route).collect();
    Arc::new(ServiceRoute::new(Arc::new(variant_spec(parent, id, key)), instances, None))
}

fn saying(text: &'static str) -> Instance {
    Instance::saying(text, Duration::ZERO)
}

fn get(world: &World, key: &str) -> String {
    world.ask(&format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Data: {key}")).text()
}

fn keys_seen(events: &[Event]) -> Vec<(ServiceId, String)> {
    let key = |event: &Event| match event {
        Event::KeySeen { service, key } => Some((*service, key.clone())),
        _ => None,
    };
    events.iter().filter_map(key).collect()
}

#[test]
fn each_key_goes_to_its_own_instances_whatever_the_connection() {
    let [generic, red, blue] = ["generic", "red", "blue"].map(saying);
    let world = World::new();
    let parent = shop(|_| {});
    world.publish(&[
        entry(&parent, &[(1, generic.address)]),
        variant(&parent, 2, "red", &[(2, &red)]),
        variant(&parent, 3, "blue", &[(3, &blue)]),
    ]);
    let mut client = world.client();
    for (head, expect) in [
        ("X-Data: red", "red"),
        ("X-Data: blue", "blue"),
        ("x-data:  red ", "red"),
        ("X-Other: red", "generic"),
        ("X-Data: red\r\nX-Data: blue", "generic"),
        ("X-Data: ../red", "generic"),
    ] {
        client.send(&format!("GET / HTTP/1.1\r\nHost: shop\r\n{head}\r\n\r\n"));
        assert_eq!(client.reply().expect("an answer").text(), expect, "{head}");
    }
    let told = world.told();
    assert_eq!(keys_seen(&told), []);
    let at = |event: &Event| match event {
        Event::Traffic(traffic) => traffic.activities.iter().map(|a| a.service.0).collect(),
        _ => Vec::new(),
    };
    assert_eq!(told.iter().flat_map(at).collect::<Vec<_>>(), [2, 3, 2, 1, 1, 1]);
    // To the outside it is one service.
    let stats = world.router.stats();
    let counts: Vec<_> = stats.services.iter().map(|s| (s.id, s.name.as_str(), s.requests_total())).collect();
    assert_eq!(counts, [(SHOP, "shop", 6)]);
}

#[test]
fn a_new_key_is_told_and_its_request_waits_for_the_instance_that_comes() {
    let [generic, red] = ["generic", "red"].map(saying);
    let world = World::new();
    let parent = shop(|_| {});
    let pool = entry(&parent, &[(1, generic.address)]);
    world.publish(&[Arc::clone(&pool)]);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nX-Data: red\r\n\r\n");
    let told = world.events_until("KeySeen", |e| matches!(e, Event::KeySeen { .. }));
    assert_eq!(keys_seen(&told), [(SHOP, "red".to_owned())]);
    world.publish(&[Arc::clone(&pool), variant(&parent, 2, "red", &[])]);
    world.events_until("Waiting", |e| matches!(e, Event::Waiting { service: ServiceId(2), waiting: 1, .. }));
    world.publish(&[pool, variant(&parent, 2, "red", &[(2, &red)])]);
    assert_eq!(client.reply().expect("an answer").text(), "red");
}

#[test]
fn a_key_that_gets_no_variant_has_the_generic_instances_and_waits_for_that_once() {
    let generic = saying("generic");
    let world = World::new();
    world.publish(&[entry(&shop(|_| {}), &[(1, generic.address)])]);
    assert_eq!(get(&world, "red"), "generic");
    let since = Instant::now();
    for _ in 0..5 {
        assert_eq!(get(&world, "red"), "generic");
    }
    assert!(since.elapsed() < Duration::from_millis(250), "{:?}", since.elapsed());
    assert_eq!(keys_seen(&world.told()), [(SHOP, "red".to_owned())]);
    // What is only watched is not asked for at all.
    world.publish(&[entry(&shop(|s| s.mode = Mode::Observe), &[(1, generic.address)])]);
    let since = Instant::now();
    assert_eq!(get(&world, "blue"), "generic");
    assert!(since.elapsed() < Duration::from_millis(200), "{:?}", since.elapsed());
    assert_eq!(keys_seen(&world.told()), []);
}

#[test]
fn a_variant_that_goes_or_refuses_sends_its_requests_to_the_generic_instances() {
    let generic = saying("generic");
    let world = World::new();
    let parent = shop(|_| {});
    let pool = entry(&parent, &[(1, generic.address)]);
    world.publish(&[Arc::clone(&pool), variant(&parent, 2, "red", &[])]);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nX-Data: red\r\n\r\n");
    world.waiting(1);
    world.publish(&[Arc::clone(&pool)]);
    assert_eq!(client.reply().expect("an answer").text(), "generic");

    let why = Unavailable { why: "crashed".to_owned(), retry_after: forerun_types::Span::from_secs(5) };
    let spec = Arc::new(variant_spec(&parent, 2, "red"));
    let refusing = Arc::new(ServiceRoute::new(spec, Vec::new(), Some(why)));
    world.publish(&[Arc::clone(&pool), variant(&parent, 2, "red", &[])]);
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nX-Data: red\r\n\r\n");
    world.waiting(1);
    world.publish(&[Arc::clone(&pool), Arc::clone(&refusing)]);
    assert_eq!(client.reply().expect("an answer").text(), "generic");
    world.publish(&[pool, refusing]);
    assert_eq!(get(&world, "red"), "generic");
}

#[test]
fn an_id_that_stands_for_another_key_now_has_nothing_of_the_one_before() {
    let blue = saying("blue");
    let red = Instance::answering(|_| {
        std::thread::sleep(Duration::from_millis(300));
        ok("red")
    });
    let world = World::new();
    let parent = shop(|_| {});
    let pool = entry(&parent, &[]);
    world.publish(&[Arc::clone(&pool), variant(&parent, 2, "red", &[(2, &red)])]);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nX-Data: red\r\n\r\n");
    eventually("it is at red", || red.requests() == 1);
    // The next table that this router sees has the id for another key already.
    world.publish(&[Arc::clone(&pool), variant(&parent, 2, "blue", &[(3, &blue)])]);
    assert_eq!(get(&world, "blue"), "blue");
    let in_flight: u32 = world.router.stats().services.iter().map(|s| s.in_flight).sum();
    assert_eq!(in_flight, 1, "red is still answering");
    assert_eq!(client.reply().expect("an answer").text(), "red");
    let quiet = |e: &Event| matches!(e, Event::Quiesced { instance: InstanceId(2), .. });
    world.events_until("Quiesced", quiet);
    let stats = world.router.stats();
    let counts: Vec<_> = stats.services.iter().map(|s| (s.id, s.requests_total(), s.in_flight)).collect();
    assert_eq!(counts, [(SHOP, 2, 0)]);

    // Who waits for the one before does not wait behind, or for, the other.
    let generic = saying("generic");
    let pool = entry(&parent, &[(1, generic.address)]);
    world.publish(&[Arc::clone(&pool), variant(&parent, 2, "green", &[])]);
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nX-Data: green\r\n\r\n");
    world.waiting(1);
    world.publish(&[pool, variant(&parent, 2, "blue", &[(3, &blue)])]);
    assert_eq!(get(&world, "blue"), "blue");
    assert_eq!(client.reply().expect("an answer").text(), "generic");
}

#[test]
fn the_first_use_of_an_instance_that_a_key_could_claim_is_told_before_it_is_quiet() {
    let generic = saying("generic");
    let world = World::new();
    let parent = shop(|_| {});
    let address = generic.address;
    let route = InstanceRoute { instance: InstanceId(1), address, access: Access::Unclaimed };
    world.publish(&[Arc::new(ServiceRoute::new(Arc::clone(&parent), vec![route], None))]);
    assert_eq!((world.get("/").text(), world.get("/").text()), ("generic".into(), "generic".into()));
    world.publish(&[entry(&parent, &[])]);
    let told = world.events_until("Quiesced", |e| matches!(e, Event::Quiesced { .. }));
    let touched = told.iter().filter(|e| matches!(e, Event::Touched { instance: InstanceId(1), .. }));
    assert_eq!(touched.count(), 1);
}

#[test]
fn a_person_who_is_the_key_leaves_the_router_as_a_hash() {
    let generic = saying("generic");
    let world = World::new();
    let by_user = shop(|s| {
        s.user = UserFrom::Header("X-User".to_owned());
        s.specialise = Some(Specialise::default());
    });
    world.publish(&[entry(&by_user, &[(1, generic.address)])]);
    let reply = world.ask("GET / HTTP/1.1\r\nHost: shop\r\nX-User: anna@example.com");
    assert_eq!(reply.text(), "generic");
    let told = world.told();
    let [(_, key)] = &keys_seen(&told)[..] else { panic!("{told:?}") };
    assert!(key.len() == 16 && key.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
    assert!(!format!("{told:?}").contains("anna"), "{told:?}");
}
