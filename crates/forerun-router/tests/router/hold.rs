//! Requests that wait for an instance.

use crate::world::{Instance, World, entry, eventually, spec};
use forerun_router::Outcome;
use forerun_types::{Event, HoldLimits, Span};
use std::net::Shutdown;
use std::time::{Duration, Instant};

fn holding(requests_max: u32, bytes_max: u64, timeout: Span) -> std::sync::Arc<forerun_types::ServiceSpec> {
    spec(|s| {
        s.concurrency = 1;
        s.hold = HoldLimits { requests_max, bytes_max, timeout };
    })
}

const LONG: Span = Span::from_secs(60);

#[test]
fn a_held_request_goes_when_an_instance_comes() {
    let world = World::new();
    let shop = holding(10, 1 << 20, LONG);
    world.publish(&[entry(&shop, &[])]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody");
    world.waiting(1);
    let stats = world.router.stats();
    assert_eq!((stats.services[0].held, stats.services[0].cold_starts), (1, 1));
    assert!(stats.services[0].held_bytes > 4);
    let instance =
        Instance::answering(|request| crate::world::ok(std::str::from_utf8(&request.body).unwrap_or("")));
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    assert_eq!(client.reply().expect("answer").text(), "body");
    eventually("the request is counted", || {
        world.router.stats().services[0].requests(Outcome::Answered) == 1
    });
    let stats = world.router.stats();
    let service = &stats.services[0];
    assert_eq!((service.held, service.held_bytes, service.in_flight), (0, 0, 0));
    assert_eq!(service.hold_micros.as_ref().map(|h| h.len()), Some(1));
}

#[test]
fn the_first_who_waits_goes_first() {
    let world = World::new();
    let shop = holding(10, 1 << 20, LONG);
    world.publish(&[entry(&shop, &[])]);
    let mut clients: Vec<_> = (0..5)
        .map(|n| {
            let mut client = world.client();
            client.get(&format!("/{n}"));
            world.waiting(n + 1);
            client
        })
        .collect();
    let (tell, told) = std::sync::mpsc::sync_channel(9);
    let instance = Instance::start(move |peer, _| {
        while let Some(request) = peer.request()? {
            let _ = tell.send(request.line);
            peer.send(&crate::world::ok("x"))?;
        }
        Ok(())
    });
    // One at a time: each of the others goes when the one before has its answer.
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reply().expect("answer").status, 200);
        assert_eq!(told.recv().expect("request"), format!("GET /{n} HTTP/1.1"));
    }
}

#[test]
fn a_request_behind_a_busy_instance_is_held_too() {
    let world = World::new();
    let shop = holding(10, 1 << 20, LONG);
    let instance = Instance::saying("x", Duration::from_millis(200));
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let (mut first, mut second) = (world.client(), world.client());
    first.get("/1");
    eventually("the first is at the instance", || world.router.stats().services[0].in_flight == 1);
    second.get("/2");
    world.waiting(1);
    assert_eq!(first.reply().expect("answer").status, 200);
    assert_eq!(second.reply().expect("answer").status, 200);
    assert_eq!(world.router.stats().services[0].cold_starts, 1);
}

#[test]
fn each_limit_is_a_503_that_names_itself() {
    for (limits, requests, reason) in [
        ((1, 1 << 20, LONG), ["GET / HTTP/1.1\r\nHost: shop\r\n\r\n"; 2].as_slice(), "hold-requests"),
        ((10, 1_000, LONG), &["POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2000\r\n\r\n"], "hold-bytes"),
        (
            (10, 1_000, LONG),
            &["POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"],
            "hold-bytes",
        ),
        ((10, 1 << 20, Span::from_millis(100)), &["GET / HTTP/1.1\r\nHost: shop\r\n\r\n"], "hold-timeout"),
        ((0, 1 << 20, LONG), &["GET / HTTP/1.1\r\nHost: shop\r\n\r\n"], "hold-requests"),
    ] {
        let world = World::new();
        let shop = holding(limits.0, limits.1, limits.2);
        world.publish(&[entry(&shop, &[])]);
        let mut clients: Vec<_> = requests
            .iter()
            .map(|request| {
                let mut client = world.client();
                client.send(request);
                // In order: the earlier ones are held before the next comes.
                std::thread::sleep(Duration::from_millis(50));
                client
            })
            .collect();
        let last = clients.last_mut().expect("a client");
        let reply = last.reply().expect("a refusal");
        assert_eq!((reply.status, reply.reason()), (503, reason));
        assert!(
            reply.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok_and(|s| s > 0)),
            "{reply:?}"
        );
        assert_eq!(reply.header("forerun-source"), Some("internal"));
        assert!(
            reply.text().contains(
                &reason
                    .replace("hold-timeout", "hold.timeout")
                    .replace("hold-requests", "hold.requests_max")
                    .replace("hold-bytes", "hold.bytes_max")
            ),
            "{}",
            reply.text()
        );
        eventually("the refusal is counted", || {
            world.router.stats().services[0].reasons.get(reason) == Some(&1)
        });
        if reason == "hold-timeout" {
            world.abandoned(0);
        }
    }
}

#[test]
fn a_client_that_goes_away_frees_its_slot_at_once() {
    // The second has a body that nobody has read: only the kernel knows that it is gone.
    for request in [
        "GET / HTTP/1.1\r\nHost: shop\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 400000\r\n\r\nxxxx",
    ] {
        let world = World::new();
        let shop = holding(1, 1 << 20, LONG);
        world.publish(&[entry(&shop, &[])]);
        let mut client = world.client();
        client.send(request);
        world.waiting(1);
        let left = Instant::now();
        drop(client);
        world.abandoned(0);
        assert!(left.elapsed() < Duration::from_secs(2), "{:?}", left.elapsed());
        let mut next = world.client();
        next.get("/");
        world.waiting(1);
        eventually("it is counted", || world.router.stats().services[0].requests(Outcome::Gone) == 1);
    }
}

#[test]
fn a_client_that_goes_away_among_others_leaves_their_order() {
    let world = World::new();
    let shop = holding(9, 1 << 20, LONG);
    world.publish(&[entry(&shop, &[])]);
    let mut clients: Vec<_> = (0..3)
        .map(|n| {
            let mut client = world.client();
            client.get(&format!("/{n}"));
            world.waiting(n + 1);
            client
        })
        .collect();
    drop(clients.remove(1));
    world.abandoned(2);
    let instance = Instance::answering(|request| crate::world::ok(&request.line));
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let lines: Vec<_> = clients.iter_mut().map(|c| c.reply().expect("answer").text()).collect();
    assert_eq!(lines, ["GET /0 HTTP/1.1", "GET /2 HTTP/1.1"]);
    assert_eq!(instance.requests(), 2, "nothing is sent for who has gone");
}

#[test]
fn when_nothing_will_come_everyone_is_told_at_once() {
    let world = World::new();
    let shop = holding(10, 1 << 20, LONG);
    world.publish(&[entry(&shop, &[])]);
    let mut clients: Vec<_> = (0..3)
        .map(|n| {
            let mut client = world.client();
            client.get("/");
            world.waiting(n + 1);
            client
        })
        .collect();
    world.publish_unavailable(&shop, "it exits with code 3 at each start");
    let mut late = world.client();
    late.get("/");
    clients.push(late);
    for client in &mut clients {
        let reply = client.reply().expect("a refusal");
        assert_eq!((reply.status, reply.reason()), (503, "unavailable"));
        assert_eq!(reply.header("retry-after"), Some("7"));
        assert_eq!(reply.text(), "service shop is unavailable: it exits with code 3 at each start\n");
    }
    world.abandoned(0);
}

#[test]
fn a_service_that_leaves_the_table_leaves_nobody_waiting() {
    let world = World::new();
    world.publish(&[entry(&holding(10, 1 << 20, LONG), &[])]);
    let mut client = world.client();
    client.get("/");
    world.waiting(1);
    world.publish(&[]);
    assert_eq!(client.reply().expect("an answer").reason(), "no-service");
    world.abandoned(0);
    assert!(world.router.stats().services.is_empty());
}

#[test]
fn a_service_without_limits_on_its_instances_never_waits_behind_itself() {
    let instance = Instance::saying("x", Duration::from_millis(100));
    let world = World::serving(&instance);
    let mut clients: Vec<_> = (0..8).map(|_| world.client()).collect();
    clients.iter_mut().for_each(|c| c.get("/"));
    clients.iter_mut().for_each(|c| assert_eq!(c.reply().expect("answer").status, 200));
    assert_eq!(world.router.stats().services[0].cold_starts, 0);
}

#[test]
fn a_refused_upload_still_sees_its_answer() {
    let world = World::new();
    world.publish(&[entry(&holding(0, 0, LONG), &[])]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 600000\r\n\r\n");
    client.send(&"x".repeat(600_000));
    assert_eq!(client.reply().expect("a refusal").reason(), "hold-requests");
    client.get("/");
    assert_eq!(client.reply().expect("the connection goes on").reason(), "hold-requests");
}

#[test]
fn a_client_that_only_closes_its_half_counts_as_gone() {
    let world = World::new();
    world.publish(&[entry(&holding(1, 1 << 20, LONG), &[])]);
    let mut client = world.client();
    client.get("/");
    world.waiting(1);
    client.reader.get_ref().shutdown(Shutdown::Write).expect("half close");
    world.events_until("Abandoned", |e| matches!(e, Event::Abandoned { waiting: 0, .. }));
}
