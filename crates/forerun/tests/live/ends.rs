//! How Forerun ends: requests in flight finish, a second signal ends at once, nothing is left.

use crate::http::get;
use crate::world::{GONE_WITHIN, PATIENCE, World, binary};
use std::time::{Duration, Instant};

const SERVICES: &str = "
[service.web]
command = [FIXTURE, \"--grandchild\"]
ready = { http = \"/\" }
concurrency = 4
min = 1
drain_timeout = \"8s\"
resources = { memory = \"64MB\" }
[service.stubborn]
command = [FIXTURE, \"--ignore-term\", \"--grandchild\"]
route = { host = \"stubborn.test\" }
min = 1
drain_timeout = \"1s\"
resources = { memory = \"64MB\" }
";

/// Sends `signal`, from a terminal to all of the process group, while requests are in flight: each is answered
/// whole, and the end is a good one.
fn finishes(signal: &str, terminal: bool) {
    let world = World::new(&format!("end-{signal}"), SERVICES);
    let mut live = if terminal { world.up_in_a_group() } else { world.up() };
    live.serves("web.test");
    live.ready("stubborn", 1);
    let router = live.router;
    let asked: Vec<_> =
        (0..4).map(|_| std::thread::spawn(move || get(router, "web.test", "/sleep?ms=1200"))).collect();
    live.until("web", "four in flight", |s| s["in_flight"] == 4);
    if terminal {
        live.signal_group(signal);
    } else {
        live.signal(signal);
    }
    let status = live.ended(PATIENCE);
    for answer in asked {
        let answer = answer.join().unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(status.code(), Some(0), "{status}, log: {}", world.log());
    world.all_gone(Duration::from_millis(50));
    let report = world.journal_replays();
    assert_eq!(report["torn_bytes"], 0, "{report}");
}

#[test]
fn ctrl_c_lets_requests_in_flight_finish() {
    finishes("INT", true);
}

#[test]
fn term_lets_requests_in_flight_finish() {
    finishes("TERM", false);
}

/// The second signal, in any mixture, ends at once: exit code 1, the request cut and not answered short.
fn ends_at_once(first: &str, second: &str) {
    let world = World::new(&format!("twice-{first}-{second}"), SERVICES);
    let mut live = world.up();
    live.serves("web.test");
    let router = live.router;
    let asked = std::thread::spawn(move || get(router, "web.test", "/sleep?ms=6000"));
    live.until("web", "one in flight", |s| s["in_flight"] == 1);
    live.signal(first);
    world.logs("draining");
    assert!(live.is_running());
    let start = Instant::now();
    live.signal(second);
    let status = live.ended(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(2), "ended only after {:?}", start.elapsed());
    assert_eq!(status.code(), Some(1), "{status}, log: {}", world.log());
    match asked.join().unwrap() {
        Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{error}"),
        Ok(answer) => assert!(answer.status >= 500, "{answer:?}"),
    }
    world.all_gone(GONE_WITHIN);
    // What was decided since the last flush may be lost; what was written is whole.
    let report = world.replay(binary());
    assert_eq!(report["mismatches"], 0, "{report}");
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    ends_at_once("INT", "INT");
}

#[test]
fn an_impatient_term_after_ctrl_c_ends_at_once() {
    ends_at_once("INT", "TERM");
}

#[test]
fn a_request_that_outlasts_its_drain_time_is_cut_and_the_end_comes() {
    let services = SERVICES.replace("drain_timeout = \"8s\"", "drain_timeout = \"500ms\"");
    let world = World::new("outlast", &services);
    let mut live = world.up();
    live.serves("web.test");
    let router = live.router;
    let asked = std::thread::spawn(move || get(router, "web.test", "/sleep?ms=15000"));
    live.until("web", "one in flight", |s| s["in_flight"] == 1);
    let start = Instant::now();
    live.signal("TERM");
    live.ended(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(8), "ended only after {:?}", start.elapsed());
    let cut = asked.join().unwrap();
    assert!(cut.as_ref().is_err_and(|e| e.kind() != std::io::ErrorKind::TimedOut), "{cut:?}");
    world.all_gone(GONE_WITHIN);
}

#[test]
fn an_end_while_a_service_starts_leaves_nothing() {
    let services = "[service.slow]\ncommand = [FIXTURE, \"--start-delay\", \"30000\", \"--grandchild\"]\n\
                    drain_timeout = \"1s\"\nhold = { timeout = \"30s\" }\n";
    let world = World::new("starting", services);
    let mut live = world.up();
    let router = live.router;
    let asked = std::thread::spawn(move || get(router, "slow.test", "/"));
    live.until("slow", "one starting", |s| s["instances"]["starting"] == 1);
    live.signal("TERM");
    let status = live.ended(PATIENCE / 2);
    assert_eq!(status.code(), Some(0), "{status}, log: {}", world.log());
    let answer = asked.join().unwrap().unwrap();
    assert!(answer.is_clear_refusal(), "{answer:?}");
    assert_eq!(answer.header("forerun-reason"), Some("shutting-down"));
    world.all_gone(GONE_WITHIN);
}
