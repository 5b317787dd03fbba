//! Clients that go away, dawdle, never end, or come all at once.

use crate::http::{Client, get};
use crate::world::{GONE_WITHIN, PATIENCE, World};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[test]
fn a_client_that_goes_away_while_it_is_held_is_forgotten() {
    let services = "[service.slow]\ncommand = [FIXTURE, \"--start-delay\", \"1500\"]\nmax = 1\n\
                    resources = { memory = \"64MB\" }\n";
    let world = World::new("away", services);
    let live = world.up();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(live.router).unwrap()).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n").unwrap();
    }
    live.until("slow", "ten held", |s| s["waiting"] == 10);
    let mut stays = clients.pop().unwrap();
    drop(clients);
    live.until("slow", "one held", |s| s["waiting"] == 1);
    assert_eq!(stays.answer().unwrap().status, 200);
    assert_eq!(
        live.metric(
            "forerun_requests_total{service=\"slow\",site=\"local\",sla=\"default\",outcome=\"abandoned\"}"
        ),
        9.0
    );
    live.until("slow", "nothing left", |s| s["waiting"] == 0 && s["in_flight"] == 0);
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

/// A world with one warm service and a short patience with clients.
fn impatient(name: &str) -> World {
    let world = World::new(name, "");
    let globals = World::globals("[router]\n", "[router]\nstall_timeout = \"1s\"\nhead_timeout = \"1s\"\n");
    let service = "[service.web]\ncommand = [FIXTURE]\nready = { http = \"/\" }\nmin = 1\nconcurrency = 2\n\
                   resources = { memory = \"64MB\" }\n";
    world.configure_all(&format!("{globals}{service}"));
    world
}

#[test]
fn a_slow_body_gets_through_and_one_that_stalls_is_given_up() {
    let world = impatient("body");
    let live = world.up();
    live.serves("web.test");
    let mut slow = Client::connect(live.router).unwrap();
    slow.send(b"POST /echo HTTP/1.1\r\nHost: web.test\r\nContent-Length: 20\r\n\r\n").unwrap();
    for _ in 0..20 {
        slow.send(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let answer = slow.answer().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "x".repeat(20)));
    let mut stalled = Client::connect(live.router).unwrap();
    stalled.send(b"POST /echo HTTP/1.1\r\nHost: web.test\r\nContent-Length: 20\r\n\r\nxx").unwrap();
    let start = Instant::now();
    let answer = stalled.answer().unwrap();
    assert_eq!((answer.status, answer.header("forerun-reason")), (408, Some("client-stalled")), "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // A head that never ends.
    let mut headless = Client::connect(live.router).unwrap();
    headless.send(b"GET / HTTP/1.1\r\nHost: web.test\r\n").unwrap();
    assert!(headless.is_closed(Duration::from_secs(5)), "a head without end is waited for");
    live.until("web", "nothing in flight", |s| s["in_flight"] == 0);
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn an_endless_body_takes_one_place_and_no_memory() {
    let world = impatient("endless");
    let mut live = world.up();
    live.serves("web.test");
    let mut endless = Client::connect(live.router).unwrap();
    endless.send(b"POST /echo HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let (chunk, start) = (format!("10000\r\n{}\r\n", "x".repeat(65_536)), Instant::now());
    // The instance takes 256 MB and closes; Forerun itself holds next to nothing of it.
    while start.elapsed() < PATIENCE && endless.send(chunk.as_bytes()).is_ok() {
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    assert!(live.memory_bytes() < 300_000_000, "{} bytes", live.memory_bytes());
    assert_eq!(live.get("web.test", "/").status, 200, "the other place is still there");
    drop(endless);
    live.until("web", "nothing in flight", |s| s["in_flight"] == 0);
    assert!(live.is_running());
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn five_hundred_at_once_to_a_cold_service_are_answered_or_clearly_refused() {
    let services = "[service.rush]\ncommand = [FIXTURE, \"--start-delay\", \"100\", \"--busy\", \"5\"]\nmax = 4\n\
                    concurrency = 1\nresources = { memory = \"64MB\" }\nhold = { requests = 400 }\n";
    let world = World::new("rush", services);
    let live = world.up();
    let router = live.router;
    let start = Instant::now();
    let clients: Vec<_> = (0..500)
        .map(|_| {
            let client = std::thread::Builder::new().stack_size(128 << 10);
            client.spawn(move || get(router, "rush.test", "/")).unwrap()
        })
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for client in clients {
        let answer =
            client.join().unwrap().unwrap_or_else(|error| panic!("a request without an answer: {error}"));
        let what = match answer.status {
            200 => "answered".to_owned(),
            _ if answer.is_clear_refusal() => answer.header("forerun-reason").unwrap().to_owned(),
            _ => panic!("{answer:?}"),
        };
        *counts.entry(what).or_default() += 1;
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert!(counts["answered"] >= 400, "{counts:?}");
    assert!(counts.keys().all(|what| what == "answered" || what == "hold-requests"), "{counts:?}");
    let service = live.until("rush", "nothing left", |s| s["waiting"] == 0 && s["in_flight"] == 0);
    assert_eq!(service["requests"], 500, "{service}");
    assert!(service["instances"]["ready"].as_u64().unwrap() <= 4, "{service}");
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn a_body_that_is_held_with_its_request_arrives_whole() {
    let services = "[service.cold]\ncommand = [FIXTURE, \"--start-delay\", \"400\"]\n\
                    resources = { memory = \"500MB\" }\n";
    let world = World::new("upload", services);
    let live = world.up();
    let body: Vec<u8> = (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = Client::connect(live.router).unwrap();
    let head = format!("POST /echo HTTP/1.1\r\nHost: cold.test\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(head.as_bytes()).unwrap();
    client.send(&body).unwrap();
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body == body, "another body came back, of {} bytes", answer.body.len());
    live.drain();
    world.all_gone(GONE_WITHIN);
}
