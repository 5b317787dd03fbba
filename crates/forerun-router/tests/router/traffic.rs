//! What the engine learns.

use crate::world::{Instance, PATIENCE, World, entry, ok, spec};
use forerun_types::{Activity, Event, Finished, HoldLimits, Span, Traffic, UserFrom};
use std::time::{Duration, Instant};

/// Reads batches until `enough`.
fn learned(world: &World, enough: impl Fn(&Traffic) -> bool) -> Traffic {
    let until = Instant::now() + PATIENCE;
    let mut all = Traffic::default();
    while !enough(&all) {
        assert!(Instant::now() < until, "not enough: {all:?}");
        let Some(Event::Traffic(batch)) = world.up.recv_timeout(Duration::from_millis(50)) else { continue };
        assert!(batch.activities.len() + batch.finished.len() <= 512, "a batch is bounded");
        all.router = batch.router;
        all.activities.extend(batch.activities);
        all.finished.extend(batch.finished);
        all.services.extend(batch.services);
        all.instances.extend(batch.instances);
        all.action_names.extend(batch.action_names);
        all.lost += batch.lost;
    }
    all
}

#[test]
fn a_request_is_told_with_its_user_its_action_and_its_end() {
    let instance = Instance::saying("hello", Duration::from_millis(30));
    let world = World::new();
    let shop = spec(|s| {
        s.user = UserFrom::Header("x-user".to_owned());
        (s.tenant, s.group) = ("acme".to_owned(), Some("pro".to_owned()));
    });
    world.publish(&[entry(&shop, &[(9, instance.address)])]);
    let mut client = world.client();
    for (path, user) in [("/orders/17?x=1", "anna"), ("/orders/18", "bob"), ("/orders/19", "anna")] {
        client.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nX-User: {user}\r\nContent-Length: 3\r\n\r\nabc"
        ));
        assert_eq!(client.reply().expect("answer").text(), "hello");
    }
    let told = learned(&world, |t| t.finished.len() == 3);
    assert_eq!(told.router.0, 3);
    let users: Vec<_> = told.activities.iter().map(|a| a.user).collect();
    assert!(users[0] == users[2] && users[0] != users[1] && users[0].is_known(), "{users:?}");
    assert_eq!(told.action_names.len(), 1, "{:?}", told.action_names);
    assert_eq!(told.action_names[0].1, "POST /orders/{id}");
    for Activity { at, tenant, group, action, service, .. } in &told.activities {
        assert!(at.0 > 0 && tenant.0 != 0 && group.0 != 0 && service.0 == 1);
        assert_eq!(*action, told.action_names[0].0);
    }
    for Finished { instance, duration, held, network_bytes, status, .. } in &told.finished {
        assert_eq!((instance.0, *held, *network_bytes, *status), (9, Span::ZERO, 8, 200));
        assert!((30_000..5_000_000).contains(&duration.0), "{duration}");
    }
    assert!(told.services.iter().all(|load| load.peak >= load.in_flight + load.waiting));
    assert!(told.services.iter().any(|load| load.peak == 1));
    let last = learned(&world, |_| true);
    let loads = told.instances.iter().chain(&last.instances);
    assert!(loads.clone().all(|load| load.instance.0 == 9 && load.last_used.0 > 0));
    assert_eq!(told.lost, 0);
}

#[test]
fn gauges_end_where_things_are() {
    let instance = Instance::saying("x", Duration::from_millis(20));
    let world = World::new();
    let shop = spec(|s| s.concurrency = 2);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let mut clients: Vec<_> = (0..10).map(|_| world.client()).collect();
    clients.iter_mut().for_each(|c| c.get("/"));
    clients.iter_mut().for_each(|c| assert_eq!(c.reply().expect("answer").status, 200));
    let idle = |t: &Traffic| {
        t.finished.len() == 10 && t.services.last().is_some_and(|l| (l.in_flight, l.waiting) == (0, 0))
    };
    let told = learned(&world, idle);
    let peak = told.services.iter().map(|load| load.peak).max();
    assert!(peak.is_some_and(|peak| (3..=10).contains(&peak)), "{peak:?}");
    assert!(told.services.iter().all(|load| load.in_flight <= 2), "no more at once than it may serve");
    assert!(told.finished.iter().any(|f| f.held > Span::ZERO));
    assert_eq!(told.instances.last().map(|load| load.in_flight), Some(0));
}

#[test]
fn a_full_channel_loses_records_and_says_so_but_no_control_event() {
    let instance = Instance::saying("x", Duration::ZERO);
    let world = World::new();
    let shop = spec(|s| s.route.paths = vec!["/warm".to_owned()]);
    let cold = spec(|s| {
        (s.id.0, s.name) = (2, "cold".to_owned());
        s.hold = HoldLimits { timeout: Span::from_millis(1), ..HoldLimits::default() };
    });
    world.publish(&[entry(&shop, &[(1, instance.address)]), entry(&cold, &[])]);
    // Nobody reads while 64 batches fill up, one each 20 ms at the most.
    let until = Instant::now() + PATIENCE;
    let mut client = world.client();
    let (mut warm, mut held) = (0, 0);
    while world.router.stats().lost == 0 {
        assert!(Instant::now() < until, "it never fills up");
        client.get("/warm");
        assert_eq!(client.reply().expect("answer").status, 200);
        warm += 1;
        if warm % 10 == 0 {
            client.get("/cold");
            assert_eq!(client.reply().expect("refusal").reason(), "hold-timeout");
            held += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    client.get("/warm/late");
    assert_eq!(client.reply().expect("a warm request needs no engine").status, 200);
    // Until the batch that names it has been refused.
    let lost = world.router.stats().lost;
    crate::world::eventually("more is lost", || world.router.stats().lost > lost);
    warm += 1;
    let (mut waiting, mut abandoned, mut told, mut lost) = (0, 0, 0, 0);
    let mut names = std::collections::BTreeSet::new();
    let all = (warm + held) + warm;
    while told + lost < all {
        assert!(Instant::now() < until + PATIENCE, "{told} + {lost} of {all}");
        match world.up.recv_timeout(Duration::from_millis(50)) {
            Some(Event::Waiting { .. }) => waiting += 1,
            Some(Event::Abandoned { .. }) => abandoned += 1,
            Some(Event::Traffic(batch)) => {
                told += batch.activities.len() + batch.finished.len();
                lost += batch.lost as usize;
                names.extend(batch.action_names.into_iter().map(|(_, name)| name));
            }
            _ => {}
        }
    }
    assert_eq!((waiting, abandoned), (held, held));
    assert_eq!(told + lost, all, "each record is told or counted as lost");
    assert!(lost > 0);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["GET /cold", "GET /warm", "GET /warm/late"]);
}

#[test]
fn no_identity_leaves_the_router() {
    let instance = Instance::answering(|_| ok("x"));
    let world = World::new();
    let shop = spec(|s| s.user = UserFrom::Cookie("sid".to_owned()));
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let planted = "planted4711";
    let mut client = world.client();
    client.send(&format!(
        "GET /users/{planted}/mail/{planted}@example.com?who={planted} HTTP/1.1\r\nHost: shop\r\n\
         Cookie: sid={planted}\r\nAuthorization: {planted}\r\n\r\n"
    ));
    assert_eq!(client.reply().expect("answer").status, 200);
    let told = learned(&world, |t| t.finished.len() == 1);
    assert_eq!(told.action_names[0].1, "GET /users/{id}/mail/{id}");
    assert!(told.activities[0].user.is_known());
    for text in [format!("{told:?}"), format!("{:?}", world.router.stats()), format!("{:?}", world.router)] {
        assert!(!text.contains(planted), "{text}");
    }
}
