//! What wakes a service, and what does not.

use crate::world::{Instance, World, entry, eventually, spec};
use forerun_router::Outcome;
use forerun_types::{Event, WakeRules};
use std::time::Duration;

#[test]
fn probes_bots_and_prefetches_neither_wake_nor_count() {
    let world = World::new();
    let shop = spec(|s| s.wake.paths = vec!["/probe".to_owned()]);
    world.publish(&[entry(&shop, &[])]);
    world.told();
    let instance = Instance::answering(|request| crate::world::ok(&request.line));
    for (head, nobody) in [
        ("GET /healthz HTTP/1.1\r\nHost: shop", true),
        ("HEAD / HTTP/1.1\r\nHost: shop", true),
        ("OPTIONS /x HTTP/1.1\r\nHost: shop", true),
        ("GET / HTTP/1.1\r\nHost: shop\r\nUser-Agent: Uptime-Kuma/1.23", true),
        ("GET / HTTP/1.1\r\nHost: shop\r\nUser-Agent: Mozilla/5.0 (compatible; Googlebot/2.1)", true),
        ("GET / HTTP/1.1\r\nHost: shop\r\nSec-Purpose: prefetch;prerender", true),
        ("GET /probe/x HTTP/1.1\r\nHost: shop", true),
    ] {
        world.publish(&[entry(&shop, &[])]);
        let asleep = world.ask(head);
        assert_eq!((asleep.status, asleep.header("forerun-state")), (200, Some("asleep")), "{head}");
        assert_eq!(world.acts_and_waits(), (0, 0), "{head} asleep");
        world.publish(&[entry(&shop, &[(1, instance.address)])]);
        assert_eq!(world.ask(head).header("forerun-state"), None, "{head} is the instance's to answer");
        let told = world.told();
        let counted = told.iter().any(|e| match e {
            Event::Traffic(t) => {
                // An instance that is new here is told as empty.
                let used = |i: &forerun_types::InstanceLoad| i.in_flight > 0 || i.last_used.0 > 0;
                !t.activities.is_empty() || !t.finished.is_empty() || t.instances.iter().any(used)
            }
            Event::Waiting { .. } => true,
            _ => false,
        });
        assert_eq!(counted, !nobody, "{head} awake: {told:?}");
    }
    assert_eq!(instance.requests(), 7);
    let stats = &world.router.stats().services[0];
    assert_eq!((stats.requests_total(), stats.reasons["asleep"], stats.reasons["probe"]), (0, 7, 7));
    assert_eq!(stats.instances[0].last_used.0, 0, "never used");
}

#[test]
fn a_preflight_and_a_deep_head_are_a_persons() {
    let world = World::new();
    let shop = spec(|_| {});
    for head in [
        "OPTIONS /x HTTP/1.1\r\nHost: shop\r\nOrigin: http://a\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        "HEAD /v2/app/manifests/1 HTTP/1.1\r\nHost: shop\r\n\r\n",
    ] {
        world.publish(&[entry(&shop, &[])]);
        let mut client = world.client();
        client.send(head);
        world.waiting(1);
        drop(client);
        world.abandoned(0);
    }
}

#[test]
fn a_sleeping_service_answers_probes_as_it_is_told_to() {
    let world = World::new();
    let shop = spec(|s| s.wake.asleep_status = 503);
    world.publish(&[entry(&shop, &[])]);
    let reply = world.get("/healthz");
    assert_eq!((reply.status, reply.header("forerun-state")), (503, Some("asleep")));
    let mut client = world.client();
    client.get("/");
    world.waiting(1);
    assert_eq!(world.get("/healthz").header("forerun-state"), Some("starting"));
    world.publish_unavailable(&shop, "it crashes");
    let reply = world.get("/healthz");
    assert_eq!((reply.status, reply.reason()), (503, "unavailable"), "failing is not asleep");
}

#[test]
fn a_probe_is_let_end_before_its_instance_is_quiet() {
    let world = World::new();
    let shop = spec(|s| s.concurrency = 1);
    let instance = Instance::saying("well", Duration::from_millis(400));
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let mut probe = world.client();
    probe.get("/healthz");
    eventually("the probe is there", || instance.requests() == 1);
    let busy = world.ask("GET /readyz HTTP/1.1\r\nHost: shop");
    assert_eq!(busy.header("forerun-state"), Some("busy"), "no second request at an instance for one");
    assert_eq!(world.router.stats().services[0].in_flight, 0, "nobody is there");
    let without = world.publish(&[entry(&shop, &[])]);
    assert!(!world.told().iter().any(|e| matches!(e, Event::Quiesced { .. })), "not while it answers");
    assert_eq!(probe.reply().expect("answer").text(), "well");
    world.events_until(
        "Quiesced",
        |e| matches!(e, Event::Quiesced { generation, .. } if *generation == without),
    );
}

#[test]
fn an_address_wakes_only_so_often() {
    let world = World::with_limits(|limits| limits.trust_forwarded = true);
    let shop = spec(|s| s.wake = WakeRules { per_minute: 2, ..WakeRules::default() });
    world.publish(&[entry(&shop, &[])]);
    let wake = |address: &str| {
        let mut client = world.client();
        client.send(&format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: {address}\r\n\r\n"));
        client
    };
    for _ in 0..2 {
        let client = wake("10.9.9.9");
        world.waiting(1);
        drop(client);
        world.abandoned(0);
    }
    world.told();
    let reply = wake("10.9.9.9").reply().expect("refused");
    assert_eq!((reply.status, reply.reason()), (429, "wake-rate"), "{}", reply.text());
    assert!(reply.header("retry-after").is_some_and(|after| after.parse::<u32>().unwrap() >= 25));
    assert_eq!(world.acts_and_waits(), (0, 0), "it is no activity either");
    // Another address may, and who finds it on its way joins.
    let other = wake("10.9.9.8");
    world.waiting(1);
    let joined = wake("10.9.9.9");
    world.waiting(2);
    drop((other, joined));
    eventually("counted", || world.router.stats().services[0].requests(Outcome::Refused) == 1);
}

#[test]
fn what_no_service_is_for_wakes_nothing() {
    let world = World::new();
    let shop = spec(|s| s.route.hosts = vec!["shop".to_owned()]);
    let database = spec(|s| (s.id, s.unrouted) = (forerun_types::ServiceId(2), true));
    world.publish(&[entry(&shop, &[]), entry(&database, &[])]);
    for head in ["GET / HTTP/1.1\r\nHost: other", "POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0"]
    {
        assert_eq!(world.ask(head).reason(), "no-service");
    }
    assert_eq!(world.acts_and_waits(), (0, 0));
}
