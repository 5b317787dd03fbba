//! Proxies that ask first, monitors, and people who ask what goes where.

use crate::world::{Instance, World, entry, eventually, spec};
use forerun_types::{Auth, Event, HoldStyle, ServiceId, Span};
use std::time::{Duration, Instant};

const TRAEFIK: &str = "X-Forwarded-Method: POST\r\nX-Forwarded-Host: shop\r\nX-Forwarded-Uri: /orders/17?x=1\r\n\
                       X-Forwarded-For: 10.3.3.3\r\nUser-Agent: Firefox\r\n";

#[test]
fn a_proxys_question_wakes_and_is_held_until_there_is_an_instance() {
    let world = World::with_beside();
    let shop = spec(|s| (s.concurrency, s.route.hosts) = (1, vec!["shop".to_owned()]));
    world.publish(&[entry(&shop, &[])]);
    let mut clients: Vec<_> = (0..3).map(|_| world.beside_client("/v1/wake?keep=1s", TRAEFIK)).collect();
    world.waiting(1);
    eventually("all are there", || world.router.stats().connections == 3);
    assert_eq!(world.router.stats().services[0].held, 1, "one instance is enough for all that are not seen");
    let instance = Instance::saying("x", Duration::ZERO);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    for client in &mut clients {
        let reply = client.reply().expect("an answer");
        assert_eq!((reply.status, reply.header("forerun-state")), (200, Some("ready")));
        assert_eq!(reply.header("forerun-address"), Some(instance.address.to_string().as_str()));
    }
    assert_eq!(instance.requests(), 0, "the request itself goes its own way");
    let stats = world.router.stats();
    assert_eq!((stats.services[0].in_flight, stats.services[0].cold_starts), (1, 1));
    // It takes no place: a request through the router finds the only one free.
    assert_eq!(world.ask("GET / HTTP/1.1\r\nHost: shop").text(), "x");
    let told = world.told();
    let acts: Vec<_> =
        told.iter().filter_map(|e| if let Event::Traffic(t) = e { Some(t) } else { None }).collect();
    assert_eq!(
        acts.iter().map(|t| t.activities.len()).sum::<usize>(),
        4,
        "three of the proxy's, one of ours"
    );
    let names: Vec<_> = acts.iter().flat_map(|t| &t.action_names).map(|(_, name)| name.as_str()).collect();
    assert!(names.contains(&"POST /orders/{id}") && names.contains(&"GET /"), "{names:?}");
    assert_eq!(
        acts.iter().map(|t| t.finished.len()).sum::<usize>(),
        1,
        "nothing is claimed of what is not seen"
    );
    eventually("it is let go after its time", || world.router.stats().services[0].in_flight == 0);
    let wakes = world.router.wakes("shop").expect("the service");
    // Those that come in the same instant have all woken it.
    let by = wakes.woken_by.first().expect("a wake");
    assert_eq!((by.action.as_str(), by.agent.as_str(), by.by), ("POST /orders/{id}", "Firefox", "wake"));
    assert_eq!(by.address.to_string(), "10.3.3.3");
}

#[test]
fn each_proxy_is_understood() {
    let world = World::with_beside();
    let instance = Instance::saying("x", Duration::ZERO);
    let rule = |id: u32, name: &str, host: &str, path: &str| {
        spec(|s| {
            (s.id, s.name) = (ServiceId(id), name.to_owned());
            (s.route.hosts, s.route.paths) = (vec![host.to_owned()], vec![path.to_owned()]);
        })
    };
    let (shop, api) = (rule(1, "shop", "shop", "/"), rule(2, "api", "shop", "/api"));
    world.publish(&[entry(&shop, &[(1, instance.address)]), entry(&api, &[(2, instance.address)])]);
    for (target, headers, service) in [
        ("/v1/wake", "X-Forwarded-Host: shop\r\nX-Forwarded-Uri: /api/x\r\n", Some("api")),
        ("/v1/wake", "X-Forwarded-Host: other, shop:443\r\nX-Forwarded-Uri: /\r\n", Some("shop")),
        ("/v1/wake", "X-Original-URL: https://shop/api?x\r\nX-Original-Method: PUT\r\n", Some("api")),
        ("/v1/wake", "X-Original-Host: shop\r\nX-Original-URI: /apix\r\n", Some("shop")),
        ("/v1/wake?service=api", "", Some("api")),
        ("/v1/wake?service=none", "", None),
        ("/v1/wake", "X-Forwarded-Host: other\r\n", None),
        ("/v1/wake", "", None),
    ] {
        let before: Vec<_> =
            ["shop", "api"].map(|name| world.router.wakes(name).unwrap().kept_up_by.len()).into();
        let reply = world.beside(target, headers);
        assert_eq!(reply.status, if service.is_some() { 200 } else { 404 }, "{target} {headers}");
        let noted = ["shop", "api"]
            .iter()
            .zip(before)
            .find(|(name, before)| world.router.wakes(name).unwrap().kept_up_by.len() > *before);
        if let (Some(service), Some((name, _))) = (service, noted) {
            assert_eq!(*name, service, "{target} {headers}");
        }
        // A visit a second is noted.
        std::thread::sleep(Duration::from_millis(1_010));
        assert_eq!(noted.is_some(), service.is_some(), "{target} {headers}");
    }
    for (headers, what) in [
        ("X-Forwarded-Host: shop\r\nX-Forwarded-Method: B@D\r\n", "method"),
        ("X-Forwarded-Host: shop\r\nX-Forwarded-Uri: /a b\r\n", "target"),
    ] {
        let reply = world.beside("/v1/wake", headers);
        assert_eq!((reply.status, reply.reason()), (400, "bad-request"));
        assert!(reply.text().contains(what), "{}", reply.text());
    }
    assert_eq!(world.beside("/v1/wake?service=shop&keep=soon", "").status, 400);
    let mut client = world.beside_client("/", "");
    assert_eq!(client.reply().expect("404").status, 404);
    client.send("POST /v1/wake HTTP/1.1\r\nHost: f\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().expect("405").status, 405);
}

#[test]
fn a_proxys_question_keeps_to_auth_wake_rules_and_page() {
    let world = World::with_beside();
    let hash = blake3::hash(b"t").to_hex().to_string();
    let shop = spec(|s| {
        s.auth = Some(Auth::Token { hashes: vec![hash.clone()] });
        s.hold_style = HoldStyle::Auto;
        s.hold.timeout = Span::from_millis(800);
    });
    world.publish(&[entry(&shop, &[])]);
    let ask = |headers: &str| world.beside("/v1/wake", &format!("X-Forwarded-Host: shop\r\n{headers}"));
    let reply = ask("");
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer realm=\"forerun\"")));
    let reply = ask("Authorization: Bearer t\r\nX-Forwarded-Uri: /healthz\r\n");
    assert_eq!((reply.status, reply.header("forerun-state")), (204, Some("asleep")));
    assert_eq!(world.acts_and_waits(), (0, 0));
    let asked = Instant::now();
    let reply = ask("Authorization: Bearer t\r\nSec-Fetch-Mode: navigate\r\nAccept: text/html\r\n");
    assert_eq!((reply.status, reply.header("forerun-state")), (503, Some("starting")));
    assert!(
        asked.elapsed() < Duration::from_millis(790) && reply.text().contains("is starting"),
        "{reply:?}"
    );
    let reply = ask("Authorization: Bearer t\r\n");
    assert_eq!((reply.status, reply.reason()), (503, "hold-timeout"));
    let stranger = world.beside("/v1/page", "X-Forwarded-Host: shop\r\nAccept: text/html\r\n");
    assert_eq!(stranger.status, 401, "a stranger learns nothing of it");
    let ask_page = |headers: &str| {
        world.beside("/v1/page", &format!("X-Forwarded-Host: shop\r\nAuthorization: Bearer t\r\n{headers}"))
    };
    let page = ask_page("Accept: text/html\r\n");
    assert_eq!(page.status, 503);
    assert!(page.text().contains("shop is starting"));
    let probe = ask_page("X-Forwarded-Uri: /healthz\r\n");
    assert_eq!((probe.status, probe.header("forerun-state")), (200, Some("starting")));
    world.publish_unavailable(&shop, "it crashes\nsecret");
    let health = world.beside("/v1/services/shop/health", "").text();
    assert!(health.contains("it crashes") && !health.contains("secret"), "{health}");
    assert!(world.at_home("/v1/services/shop/health").1.contains("secret"));
    assert_eq!(
        world.beside("/api/strategies/poke?names=shop", "").status,
        403,
        "nobody is asked who it is there"
    );
    assert_eq!(ask("Authorization: Bearer t\r\nX-Forwarded-Uri: /healthz\r\n").reason(), "unavailable");
    let started = Instant::now();
    assert_eq!(ask("Authorization: Bearer t\r\n").reason(), "unavailable", "it is not waited for");
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[test]
fn a_question_is_waited_for_as_long_as_its_proxy_waits() {
    let world = World::with_beside();
    let shop = spec(|_| {});
    world.publish(&[entry(&shop, &[])]);
    let mut client = world.beside_client("/v1/wake?service=shop&keep=1s", "");
    let gone = world.beside_client("/v1/wake?service=shop&keep=1s", "");
    world.waiting(1);
    std::thread::sleep(Duration::from_secs(5));
    let told = world.told();
    assert!(
        !told.iter().any(|e| matches!(e, Event::Abandoned { .. })),
        "longer than one is said to wait: {told:?}"
    );
    drop(gone);
    let instance = Instance::saying("x", Duration::ZERO);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    assert_eq!(client.reply().expect("an answer").status, 200);
    eventually("it is let go", || world.router.stats().services[0].in_flight == 0);
    world.publish(&[entry(&shop, &[])]);
    let gone = world.beside_client("/v1/wake?service=shop", "");
    world.waiting(1);
    drop(gone);
    world.abandoned(0);
}

#[test]
fn another_sites_page_wakes_nothing() {
    let world = World::with_beside();
    world.publish(&[entry(&spec(|s| s.hold.timeout = Span::from_millis(10)), &[])]);
    for (target, headers, status) in [
        ("/v1/wake?service=shop", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("/api/strategies/poke?names=shop", "Sec-Fetch-Site: same-site\r\n", 403),
        ("/v1/wake?service=shop", "Sec-Fetch-Site: none\r\n", 503),
        // Of somebody who follows a link from there to the service itself.
        ("/v1/wake", "Sec-Fetch-Site: cross-site\r\nX-Forwarded-Host: shop\r\nX-Forwarded-Uri: /\r\n", 503),
    ] {
        world.told();
        assert_eq!(world.beside(target, headers).status, status, "{target} {headers}");
        assert_eq!(world.acts_and_waits().0, usize::from(status == 503), "{target} {headers}");
    }
}

#[test]
fn dormant_is_not_down() {
    let world = World::with_beside();
    let shop = spec(|_| {});
    let health = |world: &World| {
        let reply = world.beside("/v1/services/shop/health", "");
        let badge = world.beside("/v1/services/shop/badge.svg", "").text();
        let word = reply.header("forerun-state").unwrap_or("-").to_owned();
        assert!(badge.contains(&format!("shop: {word}")), "{badge}");
        (reply.status, word)
    };
    world.publish(&[entry(&shop, &[])]);
    assert_eq!(health(&world), (200, "asleep".to_owned()));
    let mut client = world.client();
    client.get("/");
    world.waiting(1);
    assert_eq!(health(&world), (200, "starting".to_owned()));
    let instance = Instance::saying("x", Duration::ZERO);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    assert_eq!(health(&world), (200, "ready".to_owned()));
    world.publish_unavailable(&shop, "it crashes");
    assert_eq!(health(&world), (503, "failing".to_owned()));
    for path in ["/v1/services/none/health", "/v1/services/shop/none", "/v1/services/shop", "/v1/services"] {
        assert_eq!(world.beside(path, "").status, 404, "{path}");
    }
    assert_eq!(client.reply().expect("answer").text(), "x", "who was held");
    assert_eq!(instance.requests(), 1, "and nobody else");
}

#[test]
fn who_woke_it_is_for_this_machine_only() {
    let world = World::with_beside();
    let shop = spec(|_| {});
    world.publish(&[entry(&shop, &[])]);
    let mut client = world.client();
    client.send("GET /orders/17 HTTP/1.1\r\nHost: shop\r\nUser-Agent: curl/8\r\n\r\n");
    world.waiting(1);
    assert_eq!(world.beside("/v1/services/shop/wakes", "").status, 404);
    assert_eq!(world.beside("/v1/route?url=http://shop/", "").status, 404);
    let (status, text) = world.at_home("/v1/services/shop/wakes");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(status, 200);
    let by = &json["woken_by"][0];
    assert_eq!((by["action"].as_str(), by["agent"].as_str()), (Some("GET /orders/{id}"), Some("curl/8")));
    assert_eq!((by["address"].as_str(), by["by"].as_str()), (Some("127.0.0.1"), Some("router")));
    assert!(by["at"].as_f64().expect("a time") > 1.6e9);
}

#[test]
fn a_route_is_explained() {
    let world = World::new();
    let shop = spec(|s| s.route.hosts = vec!["shop".to_owned()]);
    let other = spec(|s| {
        (s.id, s.name) = (ServiceId(2), "other".to_owned());
        s.route.hosts = vec!["*.example".to_owned()];
    });
    world.publish(&[entry(&shop, &[]), entry(&other, &[])]);
    let ask = |query: &str| -> (u16, serde_json::Value) {
        let (status, text) = world.at_home(&format!("/v1/route?{query}"));
        (status, serde_json::from_str(&text).expect("JSON"))
    };
    let (_, json) = ask("url=http://shop/healthz?x=1");
    assert_eq!((json["service"].as_str(), json["state"].as_str()), (Some("shop"), Some("asleep")));
    assert_eq!((json["nobody"].as_str(), json["path"].as_str()), (Some("path /healthz"), Some("/healthz")));
    assert_eq!(
        (json["tried"][0]["chosen"].as_bool(), json["tried"][1]["matches"].as_bool()),
        (Some(true), Some(false))
    );
    let (_, json) = ask("url=127.0.0.1:8080/x&header=Host:%20a.example&header=User-Agent:%20kube-probe/1");
    assert_eq!(json["service"].as_str(), Some("other"));
    assert_eq!(json["nobody"].as_str(), Some("user agent with `kube-probe`"));
    let (_, json) = ask("url=http://nowhere/");
    assert_eq!((json["service"].as_str(), json["tried"].as_array().map(Vec::len)), (None, Some(2)));
    for (query, what) in [("", "url"), ("url=http://", "url"), ("url=http://a/&header=x", "header")] {
        let (status, json) = ask(query);
        assert_eq!(status, 400, "{query}");
        assert!(json["error"].as_str().expect("an error").contains(what), "{json}");
    }
    assert_eq!(world.acts_and_waits(), (0, 0), "to ask wakes nothing");
}
