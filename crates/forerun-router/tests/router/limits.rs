//! Clients that are slow, endless, greedy or malformed.

use crate::world::{Client, Instance, World, entry, eventually, ok, spec};
use forerun_router::{Outcome, Router, RouterError, RouterLimits, RouterSettings, channel};
use forerun_types::{RouterId, Span, Time};
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn world_with(instance: &Instance, change: impl FnOnce(&mut RouterLimits)) -> World {
    let world = World::with_limits(change);
    world.publish(&[entry(&spec(|_| {}), &[(1, instance.address)])]);
    world
}

#[test]
fn malformed_requests_are_answered_or_cut_and_never_forwarded() {
    let instance = Instance::saying("reached", Duration::ZERO);
    let world = World::serving(&instance);
    let long = format!("GET / HTTP/1.1\r\nHost: shop\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nHost: shop\r\n{}\r\n", "X: y\r\n".repeat(200));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: shop\r\nHost: other\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: sh\u{f6}p\r\n\r\n", 400),
        ("GARBAGE\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: shop\r\n\r\n", 400),
        ("GET / HTTP/9.9\r\nHost: shop\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: shop\r\nBad Header: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: shop\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET /\u{0}x HTTP/1.1\r\nHost: shop\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        ("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.0\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n", 405),
        (&long, 431),
        (&many, 431),
    ] {
        let mut client = world.client();
        // It may be refused before it is all sent.
        let _ = client.try_send(request.as_bytes());
        let shown: String = request.chars().take(60).collect();
        let (got, _) = client.head().unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!(got, status, "{shown:?}");
    }
    assert_eq!(instance.requests(), 0);
    assert!(world.router.stats().malformed >= 10, "{:?}", world.router.stats());
    assert_eq!(world.get("/").text(), "reached", "the router goes on");
}

#[test]
fn a_length_beside_chunks_is_refused_and_the_connection_ends() {
    // Two framings are a way to smuggle a request: neither counts, and nothing that follows on the connection is
    // read; not on the first request of it, and not on a later one.
    let instance = Instance::saying("reached", Duration::ZERO);
    let world = World::serving(&instance);
    let before = "POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for headers in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        for first in [0, 1] {
            let served = instance.requests();
            let mut client = world.client();
            for _ in 0..first {
                client.send(before);
                assert_eq!(client.reply().expect("an answer").text(), "reached");
            }
            client.send(&format!(
                "POST / HTTP/1.1\r\nHost: shop\r\n{headers}\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n"
            ));
            let reply = client.reply().expect("a refusal");
            assert_eq!(reply.status, 400);
            assert!(reply.text().contains("must not come together"), "{}", reply.text());
            // Whether it ends by a close or, since something was left unread, by a reset.
            assert_eq!(client.rest().unwrap_or_default(), b"");
            assert_eq!(instance.requests(), served + first);
        }
    }
    assert_eq!(world.router.stats().malformed, 4);
}

#[test]
fn a_client_that_dawdles_over_its_head_is_cut_off() {
    let instance = Instance::saying("x", Duration::ZERO);
    let world = world_with(&instance, |limits| limits.head_timeout = Span::from_millis(150));
    let mut slow = world.client();
    slow.send("GET / HTTP/1.1\r\nHo");
    let since = Instant::now();
    let _ = slow.rest();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    // So is one that is idle between requests.
    let mut idle = world.client();
    idle.get("/");
    assert_eq!(idle.reply().expect("answer").text(), "x");
    let since = Instant::now();
    assert_eq!(idle.rest().expect("closed"), b"");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(instance.requests(), 1);
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_body_is_told() {
    let instance = Instance::saying("x", Duration::ZERO);
    let world = world_with(&instance, |limits| limits.stall_timeout = Span::from_millis(150));
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nab");
    let reply = client.reply().expect("an answer");
    assert_eq!((reply.status, reply.reason()), (408, "client-stalled"));
    assert_eq!(reply.header("forerun-source"), Some("client"));
    eventually("the instance is free", || world.router.stats().services[0].in_flight == 0);
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_frees_the_instance() {
    let instance = Instance::start(|peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        loop {
            peer.send(&chunk)?;
        }
    });
    let world = world_with(&instance, |limits| limits.stall_timeout = Span::from_millis(200));
    let mut client = world.client();
    client.get("/");
    eventually("it is in flight", || world.router.stats().services[0].in_flight == 1);
    eventually("it is given up", || world.router.stats().services[0].in_flight == 0);
    assert_eq!(world.router.stats().services[0].requests(Outcome::Gone), 1);
}

#[test]
fn an_endless_body_ends_with_its_client() {
    let instance = Instance::start(|peer, _| {
        peer.head()?;
        loop {
            peer.read(1)?;
        }
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..50 {
        client.send("400\r\n");
        client.send(&"x".repeat(0x400));
        client.send("\r\n");
    }
    eventually("it is in flight", || world.router.stats().services[0].in_flight == 1);
    drop(client);
    eventually("nothing is in flight", || world.router.stats().services[0].in_flight == 0);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_an_answer_frees_the_instance() {
    let instance = Instance::start(|peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")?;
        peer.request().map(|_| ())
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    client.get("/");
    assert_eq!(client.head().expect("head").0, 200);
    assert_eq!(world.router.stats().services[0].in_flight, 1);
    drop(client);
    eventually("nothing is in flight", || world.router.stats().services[0].in_flight == 0);
    assert_eq!(world.router.stats().services[0].requests(Outcome::Gone), 1);
}

#[test]
fn connections_beyond_the_limit_wait_their_turn() {
    let instance = Instance::saying("x", Duration::ZERO);
    let world = world_with(&instance, |limits| limits.connections_max = 2);
    let (mut one, mut two, mut three) = (world.client(), world.client(), world.client());
    for client in [&mut one, &mut two] {
        client.get("/");
        assert_eq!(client.reply().expect("answer").status, 200);
    }
    three.get("/");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((world.router.stats().connections, instance.requests()), (2, 2));
    drop(one);
    assert_eq!(three.reply().expect("its turn").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let instance = Instance::answering(|request| ok(&request.line));
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("GET /1 HTTP/1.1\r\nHost: shop\r\n\r\nGET /2 HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!(client.reply().expect("first").text(), "GET /1 HTTP/1.1");
    assert_eq!(client.reply().expect("second").text(), "GET /2 HTTP/1.1");
}

#[test]
fn a_router_that_cannot_start_says_why() {
    let (up, _receiver) = channel(1);
    let now = || Arc::new(|| Time(1)) as forerun_router::Clock;
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    let settings = || RouterSettings::new(RouterId(1), address, [0; 32], now());
    let outside = Router::start(settings(), Arc::clone(&up)).expect_err("no runtime");
    assert!(matches!(outside, RouterError::NoRuntime), "{outside}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let _within = runtime.enter();
    let error = Router::start(settings(), Arc::clone(&up)).expect_err("taken");
    let text = error.to_string();
    assert!(text.starts_with(&format!("router cannot listen on {address}: ")), "{text}");
    for wrong in [
        RouterLimits { head_bytes_max: 100, ..RouterLimits::default() },
        RouterLimits { connections_max: 0, ..RouterLimits::default() },
        RouterLimits { head_timeout: Span::ZERO, ..RouterLimits::default() },
        RouterLimits { connect_timeout: Span::ZERO, ..RouterLimits::default() },
        RouterLimits { stall_timeout: Span::ZERO, ..RouterLimits::default() },
    ] {
        let settings = RouterSettings { limits: wrong, ..settings() };
        let error = Router::start(settings, Arc::clone(&up)).expect_err("limits");
        assert!(matches!(error, RouterError::Limits(_)), "{error}");
    }
}

#[test]
fn a_socket_that_is_bound_already_is_used() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let _within = runtime.enter();
    let socket = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let (up, _receiver) = channel(1);
    let settings = RouterSettings::new(RouterId(1), socket, [0; 32], Arc::new(|| Time(1)));
    let router = Router::start(settings, up).expect("router");
    assert_eq!(router.address(), address);
    let mut client = Client::connect(address);
    client.reader.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    assert_eq!(client.reply().expect("answer").reason(), "starting");
}
