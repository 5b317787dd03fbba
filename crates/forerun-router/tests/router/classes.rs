//! The room for held requests at a router, shared out by SLA class.

use crate::world::{Client, Instance, Reply, World, entry, eventually, ok, spec};
use forerun_router::{HeldOfClass, Outcome};
use forerun_types::{Event, ServiceId, ServiceSpec, SlaClass};
use std::sync::Arc;

fn of_class(id: u32, class: &str, priority: u8, guarantee_milli: u32) -> Arc<ServiceSpec> {
    spec(|s| {
        s.id = ServiceId(id);
        s.name = format!("{class}{id}");
        s.route.hosts = vec![s.name.clone()];
        s.concurrency = 1;
        s.sla = SlaClass { name: class.to_owned(), priority, guarantee_milli, ..SlaClass::default() };
    })
}

fn gold(id: u32) -> Arc<ServiceSpec> {
    of_class(id, "gold", 200, 500)
}

fn bronze(id: u32) -> Arc<ServiceSpec> {
    of_class(id, "bronze", 50, 0)
}

/// A router that holds so many requests of these services, which have no instance.
fn world(held_max: u32, services: &[Arc<ServiceSpec>]) -> World {
    let world = World::with_limits(|limits| limits.held_max = held_max);
    world.publish(&services.iter().map(|s| entry(s, &[])).collect::<Vec<_>>());
    world
}

fn ask(world: &World, service: &ServiceSpec) -> Client {
    let mut client = world.client();
    client.send(&format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", service.name));
    client
}

/// Held, and known to be before the next comes.
fn held(world: &World, service: &ServiceSpec) -> Client {
    let client = ask(world, service);
    let id = service.id;
    world.events_until("Waiting", |e| matches!(e, Event::Waiting { service, .. } if *service == id));
    client
}

fn check_refusal(reply: &Reply, reason: &str, words: &str) {
    assert_eq!((reply.status, reply.reason(), reply.header("retry-after")), (503, reason, Some("5")));
    assert_eq!(reply.header("forerun-source"), Some("internal"));
    assert!(reply.text().contains("router.held_max") && reply.text().contains(words), "{}", reply.text());
}

#[test]
fn who_came_last_of_the_lowest_class_makes_way() {
    let (gold, first, second) = (gold(1), bronze(2), bronze(3));
    let world = world(4, &[gold.clone(), first.clone(), second.clone()]);
    let mut bronzes: Vec<Client> =
        [&first, &second, &first, &second].iter().map(|service| held(&world, service)).collect();
    // With nobody else there, its class has all of it, and one more gets an answer at once.
    check_refusal(&ask(&world, &first).reply().expect("a refusal"), "hold-router", "4 requests at most");

    let golds: Vec<Client> = (0..3).map(|_| held(&world, &gold)).collect();
    for at in [3, 2, 1] {
        let reply = bronzes.remove(at).reply().expect("an answer");
        check_refusal(&reply, "hold-made-way", "made way for a class that goes first");
    }
    eventually("the refusals are counted", || {
        let stats = world.router.stats();
        let refused = |at: usize| stats.services[at].requests(Outcome::Refused);
        (refused(0), refused(1), refused(2)) == (0, 2, 2)
    });
    let stats = world.router.stats();
    let counted = |at: usize, reason| stats.services[at].reasons.get(reason).copied();
    assert_eq!((counted(1, "hold-router"), counted(1, "hold-made-way")), (Some(1), Some(1)));
    assert_eq!(counted(2, "hold-made-way"), Some(2));
    let requests = |class: &str| stats.held.get(class).map(|held: &HeldOfClass| held.requests);
    assert_eq!((requests("gold"), requests("bronze")), (Some(3), Some(1)));

    // A class keeps one, so the next of gold is refused itself.
    let refused = ask(&world, &gold).reply().expect("a refusal");
    check_refusal(&refused, "hold-router", "this class has its part of them, 3");

    // Those who are still held are served, and give their places back.
    let instance = Instance::answering(|_| ok("x"));
    world.publish(&[&gold, &first, &second].map(|s| entry(s, &[(u64::from(s.id.0), instance.address)])));
    for mut client in golds.into_iter().chain(bronzes) {
        assert_eq!(client.reply().expect("answer").status, 200);
    }
    assert!(world.router.stats().held.is_empty());
    assert_eq!(ask(&world, &second).reply().expect("answer").status, 200);
}

#[test]
fn a_full_router_serves_whom_an_instance_is_ready_for() {
    let (gold, bronze) = (gold(1), bronze(2));
    let world = World::with_limits(|limits| limits.held_max = 1);
    let instance = Instance::answering(|_| ok("x"));
    world.publish(&[entry(&gold, &[]), entry(&bronze, &[(1, instance.address)])]);
    let _waits = held(&world, &gold);
    assert_eq!(ask(&world, &bronze).reply().expect("answer").status, 200);
    assert_eq!(world.router.stats().services[1].cold_starts, 0);
}

#[test]
fn who_leaves_gives_the_place_back() {
    let bronze = bronze(1);
    let world = world(2, std::slice::from_ref(&bronze));
    for _ in 0..3 {
        let clients = [held(&world, &bronze), held(&world, &bronze)];
        assert_eq!(ask(&world, &bronze).reply().expect("a refusal").reason(), "hold-router");
        drop(clients);
        eventually("both are gone", || world.router.stats().held.is_empty());
    }
}

#[test]
fn bytes_are_bounded_over_all_services() {
    let (gold, bronze) = (gold(1), bronze(2));
    let world = World::with_limits(|limits| limits.held_bytes_max = 1_000);
    world.publish(&[entry(&gold, &[]), entry(&bronze, &[])]);
    let post = |service: &ServiceSpec, length: u32| {
        let mut client = world.client();
        let host = &service.name;
        client.send(&format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"));
        client
    };
    let _first = post(&bronze, 400);
    world.waiting(1);
    let mut second = post(&bronze, 400);
    world.waiting(2);
    let reply = post(&bronze, 400).reply().expect("a refusal");
    assert_eq!(reply.reason(), "hold-router");
    assert!(reply.text().contains("router.held_bytes_max"), "{}", reply.text());
    let _gold = post(&gold, 400);
    assert_eq!(second.reply().expect("an answer").reason(), "hold-made-way");
    let held = world.router.stats().held;
    let bytes = |class: &str| held.get(class).map_or(0, |held| held.bytes);
    assert!(bytes("gold") > 400 && bytes("bronze") > 400, "{held:?}");
    assert!(bytes("gold") + bytes("bronze") <= 1_000, "{held:?}");
}

/// Many at once, of which most are refused or make way: each gets one answer, and nothing is left over.
#[test]
fn each_of_a_crowd_gets_one_answer() {
    const EACH: usize = 60;
    let services = [gold(1), of_class(2, "silver", 100, 0), bronze(3)];
    let world = Arc::new(world(20, &services));
    let crowd: Vec<_> = (0..EACH * 3)
        .map(|n| {
            let (world, service) = (Arc::clone(&world), Arc::clone(&services[n % 3]));
            std::thread::spawn(move || {
                let mut client = ask(&world, &service);
                (service.sla.name.clone(), client.reply().expect("an answer"))
            })
        })
        .collect();
    eventually("all but those who are held have an answer", || {
        let stats = world.router.stats();
        let ended: u64 = stats.services.iter().map(|s| s.requests_total()).sum();
        let held: u32 = stats.held.values().map(|held| held.requests).sum();
        ended + u64::from(held) == EACH as u64 * 3 && held == 20
    });
    let held = world.router.stats().held;
    // 9 by guarantee, and of the other 11 by 201 : 101 : 51; a place more or less, as parts are no whole numbers.
    for (class, least) in [("gold", 15), ("silver", 3), ("bronze", 1)] {
        assert!(held.get(class).is_some_and(|held| held.requests >= least), "{held:?}");
    }
    let instance = Instance::answering(|_| ok("x"));
    world.publish(&services.each_ref().map(|s| entry(s, &[(u64::from(s.id.0), instance.address)])));
    let mut served = 0;
    for one in crowd {
        let (class, reply) = one.join().expect("a client");
        match reply.status {
            200 => served += 1,
            503 => assert!(["hold-router", "hold-made-way"].contains(&reply.reason()), "{class}: {reply:?}"),
            _ => panic!("{class}: {reply:?}"),
        }
    }
    assert_eq!(served, 20);
    eventually("nothing is left over", || {
        let stats = world.router.stats();
        stats.held.is_empty() && stats.services.iter().all(|s| s.held == 0 && s.in_flight == 0)
    });
}
