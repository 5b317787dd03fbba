//! Sablier's published contract, field by field.

use crate::world::{Instance, Reply, World, entry, eventually, spec};
use forerun_types::{Container, Event, Launch, ServiceId, ServiceRoute, ServiceSpec, Span};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn service(id: u32, name: &str, group: Option<&str>) -> Arc<ServiceSpec> {
    spec(|s| {
        (s.id, s.name, s.group) = (ServiceId(id), name.to_owned(), group.map(str::to_owned));
        s.concurrency = 1;
        let own = Some(format!("proj-{name}-1"));
        s.backend = "docker".to_owned();
        s.launch = Launch::Container(Container { own, ..Container::default() });
    })
}

struct Three {
    world: World,
    services: Vec<Arc<ServiceSpec>>,
    instance: Instance,
}

impl Three {
    fn asleep() -> Self {
        let world = World::with_beside();
        let services =
            vec![service(1, "web", Some("shop")), service(2, "db", Some("shop")), service(3, "solo", None)];
        let three = Self { world, services, instance: Instance::saying("x", Duration::ZERO) };
        three.ready(&[]);
        three
    }

    /// These are ready from now on, the others asleep.
    fn ready(&self, names: &[&str]) {
        let route = |spec: &Arc<ServiceSpec>| -> Arc<ServiceRoute> {
            let id = u64::from(spec.id.0);
            let here = [(id, self.instance.address)];
            entry(spec, if names.contains(&spec.name.as_str()) { &here } else { &[] })
        };
        self.world.publish(&self.services.iter().map(route).collect::<Vec<_>>());
    }

    fn get(&self, target: &str) -> Reply {
        self.world.beside(target, "")
    }
}

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_slice(&reply.body).unwrap_or_else(|error| panic!("{error}: {}", reply.text()))
}

fn status(reply: &Reply) -> &str {
    reply.header("x-sablier-session-status").unwrap_or("-")
}

#[test]
fn blocking_waits_until_all_are_ready() {
    let three = Three::asleep();
    let target = "/api/strategies/blocking?names=web&names=proj-db-1&session_duration=2s&timeout=20s";
    let mut client = three.world.beside_client(target, "");
    let waiting = |three: &Three| {
        let stats = three.world.router.stats();
        stats.services.iter().map(|s| s.held).collect::<Vec<_>>()
    };
    eventually("both are waited for, and no other", || waiting(&three) == [1, 1, 0]);
    three.ready(&["web"]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(waiting(&three), [0, 1, 0]);
    three.ready(&["web", "db"]);
    let reply = client.reply().expect("an answer");
    assert_eq!((reply.status, status(&reply)), (200, "ready"));
    let session = &json(&reply)["session"];
    assert_eq!(session["status"], "ready");
    let names: Vec<_> = session["instances"].as_array().unwrap().iter().map(|i| &i["instance"]).collect();
    assert_eq!(names.len(), 2);
    for (instance, name) in names.iter().zip(["proj-db-1", "proj-web-1"]) {
        assert_eq!((&instance["name"], &instance["status"]), (&name.into(), &"ready".into()));
        assert_eq!((&instance["currentReplicas"], &instance["desiredReplicas"]), (&1.into(), &1.into()));
        assert_eq!((&instance["groups"][0], &instance["enabled"]), (&"shop".into(), &"true".into()));
        assert_eq!(instance["provider"], "docker");
    }
    // The session lasts: its services are in use without a request at them.
    let in_use = |three: &Three| {
        let stats = three.world.router.stats();
        stats.services.iter().map(|s| s.in_flight).collect::<Vec<_>>()
    };
    let since = Instant::now();
    assert_eq!(in_use(&three), [1, 1, 0]);
    eventually("it ends", || in_use(&three) == [0, 0, 0]);
    let lasted = since.elapsed();
    assert!((1_800..4_000).contains(&lasted.as_millis()), "{lasted:?}");
    assert_eq!(three.instance.requests(), 0);
}

#[test]
fn a_session_shorter_than_the_start_is_wanted_until_it_is_ready() {
    let three = Three::asleep();
    let mut client = three
        .world
        .beside_client("/api/strategies/blocking?names=solo&session_duration=500ms&timeout=20s", "");
    three.world.waiting(1);
    let told = {
        std::thread::sleep(Duration::from_secs(2));
        three.world.told()
    };
    assert!(!told.iter().any(|e| matches!(e, Event::Abandoned { .. })), "{told:?}");
    three.ready(&["solo"]);
    let reply = client.reply().expect("an answer");
    assert_eq!((reply.status, status(&reply)), (200, "ready"));
}

#[test]
fn an_instance_that_goes_during_a_session_is_wanted_again() {
    let three = Three::asleep();
    three.ready(&["solo"]);
    assert_eq!(status(&three.get("/api/strategies/poke?names=solo&session_duration=20s")), "ready");
    three.world.told();
    three.ready(&[]);
    let told = three.world.events_until("Waiting", |e| matches!(e, Event::Waiting { waiting: 1, .. }));
    assert!(
        !told.iter().any(|e| matches!(e, Event::Quiesced { .. })),
        "what the proxy sent there may still run"
    );
    three.ready(&["solo"]);
    assert_eq!(status(&three.get("/api/strategies/poke?names=solo&session_duration=20s")), "ready");
}

#[test]
fn blocking_says_what_was_not_ready_in_time() {
    let three = Three::asleep();
    three.ready(&["web"]);
    let reply = three.get("/api/strategies/blocking?group=shop&timeout=200ms");
    assert_eq!((reply.status, reply.header("content-type")), (504, Some("application/problem+json")));
    let json = json(&reply);
    assert_eq!((&json["status"], &json["title"]), (&504.into(), &"Gateway Timeout".into()));
    assert_eq!(json["type"], "https://sablierapp.dev/#/errors?id=timeout");
    assert_eq!(json["instance"], "/api/strategies/blocking?group=shop&timeout=200ms");
    let detail = json["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("session was not ready after ") && detail.contains("db is starting"),
        "{detail}"
    );
    assert_eq!(json["instances"][0]["name"], "proj-db-1");
    assert_eq!(
        (&json["instances"][0]["status"], &json["instances"][1]["status"]),
        (&"starting".into(), &"ready".into())
    );
    // An optional one is started and not waited for.
    let reply = three.get("/api/strategies/blocking?names=web&names=optional:db&timeout=5s");
    assert_eq!((reply.status, status(&reply)), (200, "ready"));
    let entries = serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap();
    assert_eq!(entries["session"]["instances"][0]["optional"], true);
}

#[test]
fn dynamic_shows_a_page_at_once() {
    let three = Three::asleep();
    let reply = three.get(
        "/api/strategies/dynamic?group=shop&display_name=My%20%3CShop%3E&theme=matrix&session_duration=30m\
         &refresh_frequency=7s&show_details=true",
    );
    assert_eq!((reply.status, status(&reply)), (200, "not-ready"));
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let text = reply.text();
    assert!(
        text.contains("Starting My &lt;Shop&gt;") && text.contains("http-equiv=\"refresh\" content=\"7\""),
        "{text}"
    );
    assert!(text.contains("web is starting") && text.contains("db is starting"), "{text}");
    assert!(text.contains("30m") || text.contains("1800"), "its duration: {text}");
    let reply = three.get("/api/strategies/dynamic?names=web&show_details=false");
    assert!(!reply.text().contains("is starting") && reply.text().contains("content=\"5\""));
    three.ready(&["web", "db"]);
    assert_eq!(status(&three.get("/api/strategies/dynamic?group=shop")), "ready");
    let stats = three.world.router.stats();
    let cold: Vec<_> = stats.services.iter().map(|s| s.cold_starts).collect();
    assert_eq!(cold, [1, 1, 0], "one session, however often it is asked for");
}

#[test]
fn a_failing_service_is_an_error_in_its_session() {
    let three = Three::asleep();
    three.world.publish_unavailable(&three.services[2], "exit code 1");
    let reply = three.get("/api/strategies/poke?names=solo");
    assert_eq!((reply.status, status(&reply)), (200, "not-ready"));
    let entry = &json(&reply)["session"]["instances"][0];
    assert_eq!(
        (&entry["instance"]["status"], &entry["error"]),
        (&"error".into(), &"solo does not start: exit code 1".into())
    );
    let page = three.get("/api/strategies/dynamic?names=solo").text();
    assert!(page.contains("solo does not start: exit code 1"), "{page}");
}

#[test]
fn mistakes_are_problems_and_wake_nothing() {
    let three = Three::asleep();
    three.world.told();
    for (target, status, kind, more) in [
        ("blocking", 400, "validation-error", "'names' or 'group'"),
        ("dynamic?names=&group=", 400, "validation-error", "'names' or 'group'"),
        ("poke?names=web&group=shop", 400, "validation-error", "only one must be set"),
        ("blocking?names=web&timeout=invalid", 400, "validation-error", "timeout"),
        ("dynamic?names=web&timeout=invalid", 400, "validation-error", "timeout"),
        ("poke?names=web&session_duration=5", 400, "validation-error", "session_duration"),
        ("dynamic?names=web&refresh_frequency=-5s", 400, "validation-error", "refresh_frequency"),
        ("dynamic?names=web&show_details=maybe", 400, "validation-error", "show_details"),
        ("dynamic?names=web&theme=none", 404, "theme-not-found", "\"availableTheme\""),
        ("blocking?group=none", 404, "group-not-found", "\"availableGroups\""),
        ("dynamic?group=none", 404, "group-not-found", "\"default\""),
        ("blocking?names=none", 404, "instance-not-managed", "\"instance\": \"none\""),
    ] {
        let reply = three.get(&format!("/api/strategies/{target}"));
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (status, Some("application/problem+json")),
            "{target}"
        );
        let text = reply.text();
        assert!(text.contains(more), "{target}: {text}");
        let json = json(&reply);
        assert_eq!(json["type"], format!("https://sablierapp.dev/#/errors?id={kind}"), "{target}");
        assert_eq!(json["status"], status, "{target}");
    }
    assert_eq!(three.world.acts_and_waits(), (0, 0));
    assert_eq!(
        three.get("/api/strategies/blocking?group=default&timeout=10ms").status,
        504,
        "solo has no group"
    );
}

#[test]
fn health_and_themes_are_there() {
    let three = Three::asleep();
    let reply = three.get("/health");
    assert_eq!((reply.status, reply.text().as_str()), (200, "OK"));
    for path in ["/api/themes", "/api/dynamic/themes"] {
        assert_eq!(json(&three.get(path))["themes"][0], "ghost", "{path}");
    }
}

#[test]
fn sessions_count_against_the_wakes_of_their_address() {
    let three = Three::asleep();
    let strict = spec(|s| {
        (s.id, s.name) = (ServiceId(9), "strict".to_owned());
        s.wake.per_minute = 1;
    });
    three.world.publish(&[entry(&strict, &[])]);
    let ask = |strategy: &str, address: &str| {
        let header = format!("X-Forwarded-For: {address}\r\n");
        three
            .world
            .beside(&format!("/api/strategies/{strategy}?names=strict&session_duration=100ms"), &header)
    };
    assert_eq!(ask("poke", "10.9.9.1").status, 200);
    for strategy in ["poke", "dynamic", "blocking"] {
        eventually("its session is over", || three.world.router.stats().services[0].held == 0);
        let reply = ask(strategy, "10.9.9.1");
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (429, Some("application/problem+json")),
            "{strategy}"
        );
        let json = json(&reply);
        assert_eq!(json["type"], "https://sablierapp.dev/#/errors?id=wake-rate");
        assert!(json["retryAfter"].as_u64().is_some_and(|s| (1..=60).contains(&s)), "{json}");
        assert_eq!(three.world.router.stats().services[0].held, 0, "{strategy} wakes nothing");
    }
    assert_eq!(ask("poke", "10.9.9.2").status, 200, "another address");
    // While it is wanted nobody wakes it.
    assert_eq!(ask("poke", "10.9.9.2").status, 200);
}

#[test]
fn events_are_streamed_by_their_types() {
    let three = Three::asleep();
    let mut all = three.world.beside_client("/api/events", "");
    let mut some = three.world.beside_client("/api/events?types=started&types=removed", "");
    for client in [&mut all, &mut some] {
        let (status, headers) = client.head().expect("a head");
        assert_eq!(status, 200);
        let head = format!("{headers:?}").to_lowercase().replace("\", \"", ": ");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        assert!(head.contains("x-accel-buffering: no"), "{head}");
    }
    three.ready(&["web"]);
    // Each looks at its own times, and is waited for.
    for client in [&mut all, &mut some] {
        let started = client.text_until("\n\n");
        assert!(started.contains("event:started\ndata:{"), "{started}");
        assert!(started.contains("\"name\":\"proj-web-1\""), "{started}");
        assert!(started.contains("\"status\":\"ready\""), "{started}");
    }
    three.ready(&[]);
    let stopped = all.text_until("\n\n");
    assert!(stopped.contains("event:stopped\n"), "{stopped}");
    three.world.publish(&[]);
    let removed = some.text_until("proj-db-1");
    assert!(removed.contains("event:removed\n") && !removed.contains("event:stopped"), "{removed}");
    let reply = three.get("/api/events?types=begun");
    assert_eq!((reply.status, json(&reply)["status"].as_u64()), (400, Some(400)));
}

#[test]
fn events_do_not_hold_up_the_end() {
    let three = Three::asleep();
    let mut client = three.world.beside_client("/api/events", "");
    client.head().expect("a head");
    let since = Instant::now();
    three.world.runtime.block_on(three.world.router.shutdown(Span::from_secs(20)));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}
