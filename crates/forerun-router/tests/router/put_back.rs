//! Instances that die before the table says so: what they did not take goes to another, or is held again.

use crate::world::{Instance, Mortal, World, entry, eventually, ok, spec};
use forerun_router::Outcome;
use forerun_types::{Event, HoldLimits, ServiceSpec, Span};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody";
const LONG: Span = Span::from_secs(60);

fn holding(concurrency: u32, requests_max: u32, timeout: Span) -> Arc<ServiceSpec> {
    spec(|s| {
        s.concurrency = concurrency;
        s.hold = HoldLimits { requests_max, bytes_max: 1 << 20, timeout };
    })
}

/// An address at which nobody listens, and which stays taken, so that no other test is given it.
fn dead() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    let address = socket.local_addr().expect("address").as_socket().expect("an internet address");
    std::mem::forget(socket);
    address
}

/// Says the request's line and body.
fn echo() -> Instance {
    Instance::answering(|r| ok(&format!("{} {}", r.line, String::from_utf8_lossy(&r.body))))
}

#[test]
fn what_a_dead_instance_does_not_take_another_does() {
    for concurrency in [0, 1] {
        for (request, text) in [(GET, "GET / HTTP/1.1 "), (POST, "POST / HTTP/1.1 body")] {
            let instance = echo();
            let world = World::new();
            let shop = holding(concurrency, 10, LONG);
            world.publish(&[entry(&shop, &[(1, dead()), (2, dead()), (3, instance.address)])]);
            for _ in 0..4 {
                let mut client = world.client();
                client.send(request);
                let reply = client.reply().expect("an answer");
                assert_eq!((reply.status, reply.text().as_str()), (200, text), "concurrency {concurrency}");
            }
            assert_eq!(instance.requests(), 4, "each was sent once");
            eventually("all are counted", || {
                world.router.stats().services[0].requests(Outcome::Answered) == 4
            });
            let stats = world.router.stats();
            let service = &stats.services[0];
            assert_eq!((service.cold_starts, service.in_flight, service.reasons.len()), (0, 0, 0));
        }
    }
}

#[test]
fn what_no_instance_takes_is_held_for_the_next() {
    for concurrency in [0, 1] {
        for (request, text) in [(GET, "GET / HTTP/1.1 "), (POST, "POST / HTTP/1.1 body")] {
            let world = World::new();
            let shop = holding(concurrency, 10, LONG);
            let gone = dead();
            world.publish(&[entry(&shop, &[(1, gone)])]);
            let mut client = world.client();
            client.send(request);
            world.waiting(1);
            // Whoever comes meanwhile is not sent there either.
            let mut late = world.client();
            late.send(request);
            world.waiting(2);
            let instance = echo();
            // The table may well still have the dead one.
            world.publish(&[entry(&shop, &[(1, gone), (2, instance.address)])]);
            for client in [&mut client, &mut late] {
                let reply = client.reply().expect("an answer");
                assert_eq!((reply.status, reply.text().as_str()), (200, text), "concurrency {concurrency}");
            }
            eventually("both are counted", || {
                world.router.stats().services[0].requests(Outcome::Answered) == 2
            });
            let stats = world.router.stats();
            let service = &stats.services[0];
            assert_eq!((service.cold_starts, service.held, service.held_bytes), (2, 0, 0));
        }
    }
}

#[test]
fn a_request_that_was_held_already_goes_back_to_its_place_and_is_one_cold_start() {
    let world = World::new();
    let shop = holding(1, 10, LONG);
    world.publish(&[entry(&shop, &[])]);
    let mut clients: Vec<_> = (0..3)
        .map(|n| {
            let mut client = world.client();
            client.get(&format!("/{n}"));
            world.waiting(n + 1);
            client
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    world.publish(&[entry(&shop, &[(1, address)])]);
    let (stream, _) = listener.accept().expect("the first");
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).expect("its request");
    assert_eq!(line, "GET /0 HTTP/1.1\r\n");
    // It dies with the request half done.
    drop(listener);
    drop(stream);
    world.waiting(3);
    let (tell, told) = std::sync::mpsc::sync_channel(9);
    let instance = Instance::answering(move |request| {
        let _ = tell.send(request.line.clone());
        ok("x")
    });
    world.publish(&[entry(&shop, &[(2, instance.address)])]);
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reply().expect("answer").status, 200);
        assert_eq!(told.recv().expect("request"), format!("GET /{n} HTTP/1.1"));
    }
    assert_eq!(world.router.stats().services[0].cold_starts, 3);
}

#[test]
fn what_an_instance_may_have_done_is_not_done_by_another() {
    for request in [POST, "PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nbody"] {
        let closing = Instance::start(|peer, _| {
            peer.request()?;
            peer.close()
        });
        let other = echo();
        let world = World::new();
        world.publish(&[entry(&holding(1, 10, LONG), &[(1, closing.address), (2, other.address)])]);
        let mut client = world.client();
        client.send(request);
        let reply = client.reply().expect("an answer");
        assert_eq!((reply.status, reply.reason()), (502, "upstream-closed"));
        assert_eq!((closing.requests(), other.requests()), (1, 0), "{request}");
    }
}

#[test]
fn when_none_comes_in_time_it_is_a_503_and_without_room_to_hold_a_502() {
    for (requests_max, status, reason) in [(10, 503, "hold-timeout"), (0, 502, "upstream-connect")] {
        let world = World::new();
        let shop = holding(1, requests_max, Span::from_millis(300));
        world.publish(&[entry(&shop, &[(1, dead()), (2, dead())])]);
        let sent = Instant::now();
        let reply = world.get("/");
        assert_eq!((reply.status, reply.reason()), (status, reason), "{}", reply.text());
        if status == 503 {
            assert!(sent.elapsed() >= Duration::from_millis(290), "{:?}", sent.elapsed());
            assert!(reply.header("retry-after").is_some());
            world.abandoned(0);
        } else {
            assert_eq!(reply.header("forerun-source"), Some("upstream"));
        }
        eventually("it is counted", || world.router.stats().services[0].reasons.get(reason) == Some(&1));
    }
}

#[test]
fn time_at_a_dead_instance_counts_against_the_hold() {
    let world = World::new();
    world.publish(&[entry(&holding(1, 10, Span::from_millis(400)), &[])]);
    let mut client = world.client();
    client.send(GET);
    let sent = Instant::now();
    world.waiting(1);
    std::thread::sleep(Duration::from_millis(250));
    world.publish(&[entry(&holding(1, 10, Span::from_millis(400)), &[(1, dead())])]);
    assert_eq!(client.reply().expect("an answer").reason(), "hold-timeout");
    assert!(sent.elapsed() < Duration::from_millis(640), "not 400 ms anew: {:?}", sent.elapsed());
}

#[test]
fn two_returns_are_all() {
    let world = World::new();
    let shop = holding(1, 10, LONG);
    world.publish(&[entry(&shop, &[(1, dead()), (2, dead()), (3, dead()), (4, echo().address)])]);
    let reply = world.get("/");
    assert_eq!((reply.status, reply.reason()), (502, "upstream-connect"));
    assert_eq!(world.get("/").status, 200, "the third is not asked again before it listens");
}

#[test]
fn an_instance_that_listens_again_is_used_again_without_a_new_table() {
    let world = World::new();
    let shop = holding(1, 10, LONG);
    let address = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    world.publish(&[entry(&shop, &[(1, address)])]);
    let mut client = world.client();
    client.send(POST);
    world.waiting(1);
    let _back = Mortal::at(address, |_| ok("back"));
    assert_eq!(client.reply().expect("an answer").text(), "back");
    assert_eq!(world.get("/").text(), "back");
}

#[test]
fn an_instance_that_is_given_another_address_is_found_there() {
    let world = World::new();
    let shop = holding(1, 10, LONG);
    world.publish(&[entry(&shop, &[(1, dead())])]);
    let mut client = world.client();
    client.send(GET);
    world.waiting(1);
    let instance = Instance::saying("here", Duration::ZERO);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    assert_eq!(client.reply().expect("an answer").text(), "here");
}

#[test]
fn a_dead_instance_that_leaves_the_table_is_quiesced() {
    let world = World::new();
    let shop = holding(1, 10, LONG);
    world.publish(&[entry(&shop, &[(1, dead())])]);
    let mut client = world.client();
    client.send(GET);
    world.waiting(1);
    let without = world.publish(&[entry(&shop, &[])]);
    world.events_until(
        "Quiesced",
        |e| matches!(e, Event::Quiesced { generation, .. } if *generation == without),
    );
    drop(client);
    world.abandoned(0);
}

#[test]
fn held_again_it_still_gets_an_answer_at_the_routers_end() {
    let world = World::new();
    world.publish(&[entry(&holding(1, 10, LONG), &[(1, dead())])]);
    let mut client = world.client();
    client.send(GET);
    world.waiting(1);
    world.runtime.block_on(world.router.shutdown(Span::from_millis(50)));
    assert_eq!(client.reply().expect("an answer").reason(), "shutting-down");
    drop(world.router);
    let left = std::iter::from_fn(|| world.up.recv_timeout(Duration::from_secs(5)));
    assert!(left.last().is_some_and(|e| matches!(e, Event::RouterLeft(_))));
    let asked = Instant::now();
    assert_eq!(world.up.recv_timeout(Duration::from_secs(20)), None);
    assert!(asked.elapsed() < Duration::from_secs(10), "whoever watches the dead one keeps the channel open");
}

/// One of three is killed again and again, and the table knows it only later.
#[test]
fn nobody_notices_that_instances_die() {
    const ROUNDS: u64 = 50;
    let world = World::new();
    let shop = holding(1, 1_000, LONG);
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let born = || {
        Mortal::answering(|request| {
            std::thread::sleep(Duration::from_micros(300));
            ok(&request.line)
        })
    };
    let addresses = |live: &[(u64, Mortal)]| live.iter().map(|(id, i)| (*id, i.address)).collect::<Vec<_>>();
    let mut live: Vec<(u64, Mortal)> = (0..3).map(|id| (id, born())).collect();
    world.publish(&[entry(&shop, &addresses(&live))]);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let (world, over, answered) = (&world, &over, &answered);
                scope.spawn(move || {
                    let mut client = world.client();
                    let mut n = 0;
                    while !over.load(Ordering::Relaxed) {
                        n += 1;
                        let line = format!("GET /{number}/{n} HTTP/1.1");
                        client.send(&format!("{line}\r\nHost: shop\r\n\r\n"));
                        let reply = client.reply().expect("an answer");
                        assert_eq!((reply.status, reply.text()), (200, line));
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for round in 3..ROUNDS {
            std::thread::sleep(Duration::from_millis(40));
            live[(round % 3) as usize].1.kill();
            std::thread::sleep(Duration::from_millis(8));
            live[(round % 3) as usize] = (round, born());
            world.publish(&[entry(&shop, &addresses(&live))]);
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("client");
        }
    });
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > 500, "it ran: {answered}");
    let stats = world.router.stats();
    let service = &stats.services[0];
    assert_eq!((service.held, service.held_bytes, service.reasons.len()), (0, 0, 0));
}
