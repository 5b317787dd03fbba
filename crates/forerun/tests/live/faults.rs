//! Instances that stop, die or hang under a load: every accepted request has an answer.

use crate::http::{Answer, get};
use crate::world::{GONE_WITHIN, Live, World, send};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SERVICES: &str = "
[service.web]
command = [FIXTURE, \"--busy\", \"10\", \"--grandchild\"]
ready = { http = \"/\" }
concurrency = 4
min = 2
max = 4
drain_timeout = \"2s\"
resources = { memory = \"400MB\" }
";

/// Asks from several clients at a time until `harm` is done and some time after; gives every result.
fn under_load(router: SocketAddr, harm: impl FnOnce()) -> Vec<io::Result<Answer>> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut results = Vec::new();
                    while !ended.load(Ordering::Relaxed) {
                        results.push(get(router, "web.test", "/bytes?n=5000"));
                    }
                    results
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        harm();
        std::thread::sleep(Duration::from_millis(800));
        ended.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// How often each status was answered. Without an answer, or with a short one, it fails.
fn statuses(results: &[io::Result<Answer>]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for result in results {
        let answer = result.as_ref().unwrap_or_else(|error| panic!("a request without an answer: {error}"));
        match answer.status {
            200 => assert_eq!(answer.body.len(), 5_000),
            _ => assert!(answer.header("forerun-reason").is_some(), "{answer:?}"),
        }
        *counts.entry(answer.status).or_default() += 1;
    }
    counts
}

fn victim(live: &Live) -> u32 {
    live.serves("web.test").pid()
}

#[test]
fn an_instance_that_is_killed_under_load_is_replaced_and_every_request_answered() {
    let world = World::new("killed", SERVICES);
    let live = world.up();
    live.ready("web", 2);
    let mut bad = 0;
    for _ in 0..5 {
        let pid = victim(&live);
        let results = under_load(live.router, || send("KILL", pid));
        let counts = statuses(&results);
        assert!(counts[&200] > 20, "{counts:?}");
        bad += counts.iter().filter(|(status, _)| **status != 200).map(|(_, count)| count).sum::<usize>();
        live.until("web", "two ready again", |s| s["instances"]["ready"].as_u64() >= Some(2));
    }
    // Those that were half answered when it died; a GET that was not is asked again elsewhere.
    assert!(bad <= 5 * 6, "{bad} requests failed");
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn an_only_instance_that_is_killed_comes_back_for_those_who_wait() {
    let services = SERVICES.replace("min = 2", "min = 1").replace("max = 4", "max = 1");
    let world = World::new("only", &services);
    let live = world.up();
    live.ready("web", 1);
    let pid = victim(&live);
    let counts = statuses(&under_load(live.router, || send("KILL", pid)));
    assert!(counts[&200] > 20, "{counts:?}");
    assert_ne!(victim(&live), pid);
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn an_instance_that_is_stopped_for_two_seconds_goes_on() {
    let world = World::new("stopped", SERVICES);
    let live = world.up();
    live.ready("web", 2);
    let pid = victim(&live);
    let start = Instant::now();
    let results = under_load(live.router, || {
        send("STOP", pid);
        std::thread::sleep(Duration::from_secs(2));
        send("CONT", pid);
    });
    let counts = statuses(&results);
    assert_eq!(counts.keys().collect::<Vec<_>>(), [&200], "{counts:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn a_stopped_instance_does_not_keep_forerun_from_ending() {
    let world = World::new("frozen", SERVICES);
    let live = world.up();
    live.ready("web", 2);
    send("STOP", victim(&live));
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn an_instance_that_exits_at_a_request_answers_that_one_with_an_error() {
    let world = World::new("exits", SERVICES);
    let live = world.up();
    live.ready("web", 2);
    let mut client = crate::http::Client::connect(live.router).unwrap();
    client.send(b"POST /exit?code=7 HTTP/1.1\r\nHost: web.test\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    let answer = client.answer().unwrap();
    // A POST is not sent twice.
    assert_eq!(
        (answer.status, answer.header("forerun-reason")),
        (502, Some("upstream-closed")),
        "{answer:?}"
    );
    live.until("web", "two ready again", |s| s["instances"]["ready"].as_u64() >= Some(2));
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn an_answer_that_breaks_off_is_closed_and_never_short_and_whole() {
    let world = World::new("breaks", SERVICES);
    let live = world.up();
    live.ready("web", 2);
    let mut client = crate::http::Client::connect(live.router).unwrap();
    // More than two sockets on the way hold: some systems let each take 32 MiB that nobody has read.
    client.send(b"GET /bytes?n=150000000 HTTP/1.1\r\nHost: web.test\r\n\r\n").unwrap();
    // What has not begun is asked of another instance. Nobody reads on, so most is still the instance's when it dies.
    client.begins().unwrap();
    live.until("web", "one in flight", |s| s["in_flight"] == 1);
    std::thread::sleep(Duration::from_millis(300));
    crate::world::processes(&world.tag).into_iter().for_each(|(pid, _)| send("KILL", pid));
    let error = client.answer().map(|answer| answer.body.len()).expect_err("a body that was cut");
    assert_ne!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    live.until("web", "nothing in flight", |s| s["in_flight"] == 0);
    assert_eq!(live.get("web.test", "/").status, 200);
    live.drain();
    world.all_gone(GONE_WITHIN);
}
