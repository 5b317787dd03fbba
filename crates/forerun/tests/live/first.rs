//! The first request after nothing was there is answered like any other.

use crate::http::{Answer, Client};
use crate::world::{GONE_WITHIN, Live, World, forerun};
use std::time::Duration;

fn post(client: &mut Client, body: &str) -> Answer {
    let length = body.len();
    let head = format!("POST /echo HTTP/1.1\r\nHost: web.test\r\nContent-Length: {length}\r\n\r\n");
    client.send(format!("{head}{body}").as_bytes()).unwrap();
    client.answer().unwrap()
}

fn says(live: &Live, args: &[&str]) {
    let api = live.api.to_string();
    let args: Vec<&str> = args.iter().copied().chain(["--api", &api]).collect();
    let (code, out, error) = forerun(&args);
    assert_eq!(code, Some(0), "{out}{error}");
}

#[test]
fn a_post_on_a_kept_connection_is_answered_after_a_stop_and_within_its_grace() {
    // It ignores the polite word, so that its stop takes as long as it may.
    let services = "[service.web]\ncommand = [FIXTURE, \"--ignore-term\", \"--start-delay\", \"200\"]\n\
                    ready = { http = \"/\" }\ndrain_timeout = \"3s\"\nresources = { memory = \"64MB\" }\n";
    let world = World::new("first", services);
    let live = world.up();
    let mut client = Client::connect(live.router).unwrap();
    let body = "x".repeat(100_000);
    let first = post(&mut client, &body);
    assert_eq!((first.status, first.body.len()), (200, body.len()), "from zero");
    says(&live, &["scale", "web", "0"]);
    live.until("web", "its last instance is told to end", |s| s["instances"]["draining"] == 1);
    says(&live, &["resume", "web"]);
    let within = post(&mut client, &body);
    assert_eq!(
        (within.status, within.body.len()),
        (200, body.len()),
        "while the last instance has its grace"
    );
    assert_ne!(within.pid(), first.pid(), "what is to end gets nothing more");
    says(&live, &["scale", "web", "0"]);
    live.until("web", "nothing is there", |s| {
        let instances = &s["instances"];
        instances["draining"] == 0 && instances["ready"] == 0 && instances["starting"] == 0
    });
    // Longer than a connection to an instance is kept.
    std::thread::sleep(Duration::from_secs(5));
    says(&live, &["resume", "web"]);
    let late = post(&mut client, &body);
    assert_eq!((late.status, late.body.len()), (200, body.len()), "after a long time without anything");
    assert!(late.pid() != first.pid() && late.pid() != within.pid());
    live.drain();
    world.all_gone(GONE_WITHIN * 3);
    world.journal_replays();
}
