//! What a browser sees while a service starts, and what everyone else gets.

use crate::world::{Instance, Reply, World, entry, eventually, spec};
use forerun_types::{Event, HoldStyle, ServiceRoute, Span};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BROWSER: &str = "GET /orders/17?x=1 HTTP/1.1\r\nHost: shop\r\nSec-Fetch-Mode: navigate\r\n\
                       Accept: text/html,application/xhtml+xml,*/*;q=0.8";

fn state(world: &World) -> serde_json::Value {
    let reply = world.ask("GET /.well-known/forerun/state?path=/orders/17 HTTP/1.1\r\nHost: shop");
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_slice(&reply.body).expect("JSON")
}

fn page(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.header("content-type")), (503, Some("text/html; charset=utf-8")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.header("retry-after").is_some());
    reply.text()
}

#[test]
fn a_browser_sees_a_page_and_everything_else_is_held() {
    let world = World::new();
    let shop =
        spec(|s| (s.hold_style, s.concurrency, s.start_estimate) = (HoldStyle::Auto, 1, Span::from_secs(12)));
    world.publish(&[entry(&shop, &[])]);
    assert_eq!(state(&world)["state"], "asleep", "the question alone wakes nothing");
    assert_eq!(world.acts_and_waits(), (0, 0));
    let asked = Instant::now();
    let text = page(&world.ask(BROWSER));
    assert!(asked.elapsed() >= Duration::from_millis(450), "what is there at once needs no page");
    assert!(text.contains("shop is starting, which usually takes 12 s"), "{text}");
    assert!(text.contains("/.well-known/forerun/state?path=/orders/17"), "{text}");
    assert_eq!(state(&world)["state"], "starting");
    let told = world.told();
    let waits: Vec<u32> = told
        .iter()
        .filter_map(|e| match e {
            Event::Waiting { waiting, .. } | Event::Abandoned { waiting, .. } => Some(*waiting),
            _ => None,
        })
        .collect();
    assert!(waits.iter().all(|waiting| *waiting == 1), "somebody waits all the time: {waits:?}");
    // An application is held meanwhile, and one instance is enough for both.
    let mut app = world.client();
    app.send("GET /api HTTP/1.1\r\nHost: shop\r\nAccept: application/json\r\n\r\n");
    eventually("the application is held", || world.router.stats().services[0].held_bytes > 0);
    assert_eq!(world.router.stats().services[0].held, 1);
    page(&world.ask(BROWSER));
    let instance = Instance::saying("hello", Duration::ZERO);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    assert_eq!(app.reply().expect("answer").text(), "hello");
    assert_eq!(state(&world)["state"], "ready");
    assert_eq!(world.ask(BROWSER).text(), "hello", "the page takes no place at the instance");
    let stats = world.router.stats();
    assert_eq!(stats.services[0].in_flight, 1, "and keeps it in use while it may be open");
    let acts: usize =
        world.told().iter().map(|e| if let Event::Traffic(t) = e { t.activities.len() } else { 0 }).sum();
    assert_eq!(acts, 1, "the application's; the page's own act was told before, and once");
    assert_eq!(stats.services[0].cold_starts, 2, "the person's and the application's");
}

#[test]
fn a_page_says_why_nothing_starts() {
    let world = World::new();
    for (hide_log, log) in [(false, true), (true, false)] {
        let shop = spec(|s| (s.hold_style, s.hide_log) = (HoldStyle::Auto, hide_log));
        world.publish_unavailable(&shop, "exit code 1\nError: no <database>");
        let text = page(&world.ask(BROWSER));
        assert!(text.contains("shop does not start: exit code 1"), "{text}");
        assert_eq!(text.contains("Error: no &lt;database&gt;"), log, "{text}");
        let reply = world.ask("GET / HTTP/1.1\r\nHost: shop\r\nAccept: application/json");
        let json: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(json["error"], "service shop is unavailable: exit code 1");
        assert_eq!(json["log"][0].as_str(), log.then_some("Error: no <database>"));
        let text = world.get("/").text();
        assert_eq!(text.lines().count(), if log { 2 } else { 1 }, "{text}");
    }
}

#[test]
fn a_style_for_everyone_and_none() {
    let world = World::new();
    for (style, head, status) in [
        (HoldStyle::Page, "GET / HTTP/1.1\r\nHost: shop", Some("text/plain; charset=utf-8")),
        (
            HoldStyle::Page,
            "GET / HTTP/1.1\r\nHost: shop\r\nAccept: application/json",
            Some("application/json"),
        ),
        (HoldStyle::Page, BROWSER, Some("text/html; charset=utf-8")),
        (HoldStyle::Page, "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0", None),
        (HoldStyle::Wait, BROWSER, None),
        (HoldStyle::Auto, "GET / HTTP/1.1\r\nHost: shop\r\nAccept: */*", None),
        (HoldStyle::Auto, "GET /x HTTP/1.1\r\nHost: shop\r\nSec-Fetch-Mode: cors\r\nAccept: text/html", None),
        (HoldStyle::Auto, "POST / HTTP/1.1\r\nHost: shop\r\nAccept: text/html\r\nContent-Length: 0", None),
    ] {
        let shop = spec(|s| {
            s.hold_style = style;
            s.hold.timeout = Span::from_millis(900);
        });
        world.publish(&[entry(&shop, &[])]);
        let reply = world.ask(head);
        assert_eq!(reply.status, 503);
        match status {
            Some(kind) => {
                assert_eq!((reply.header("content-type"), reply.reason()), (Some(kind), ""), "{head}")
            }
            None => assert_eq!(reply.reason(), "hold-timeout", "{style:?} {head}"),
        }
        world.publish(&[]);
    }
}

#[test]
fn a_page_says_how_far_the_start_is() {
    let world = World::new();
    let shop = spec(|s| (s.hold_style, s.hold.timeout) = (HoldStyle::Auto, Span::from_millis(900)));
    let mut route = ServiceRoute::new(shop, Vec::new(), None);
    route.notes.progress = "pulling 40%".to_owned();
    route.notes.usual_start = Span::from_secs(3);
    world.publish(&[Arc::new(route)]);
    let expect = "shop is starting: pulling 40%; it usually takes 3 s";
    assert!(page(&world.ask(BROWSER)).contains(expect));
    let json = state(&world);
    assert_eq!(
        (&json["text"], &json["progress"], &json["usual_seconds"]),
        (&expect.into(), &"pulling 40%".into(), &3.0.into())
    );
    let held = world.get("/");
    assert_eq!(held.reason(), "hold-timeout");
    assert!(held.text().contains(expect), "who was held is told too: {}", held.text());
}
