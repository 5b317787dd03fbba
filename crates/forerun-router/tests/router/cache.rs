//! The HTTP cache before a service: what is answered from it, and what an instance is asked.

use crate::world::{Client, Instance, Reply, Request, World, entry, eventually, spec};
use forerun_types::{CacheRules, Event, ServiceRoute, Span};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn cached(change: impl FnOnce(&mut CacheRules), instance: &Instance) -> Arc<ServiceRoute> {
    let mut rules = CacheRules::default();
    change(&mut rules);
    entry(&spec(|s| s.cache = Some(rules)), &[(1, instance.address)])
}

fn world(instance: &Instance) -> World {
    let world = World::new();
    world.publish(&[cached(|_| {}, instance)]);
    world
}

pub(crate) fn answer(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers with these headers, and with how many it has answered.
fn counting(headers: &'static str) -> Instance {
    let count = AtomicUsize::new(0);
    Instance::answering(move |_| answer(headers, &format!("{}", 1 + count.fetch_add(1, Ordering::SeqCst))))
}

fn status(reply: &Reply) -> &str {
    reply.header("cache-status").unwrap_or("none")
}

/// A request of these header lines, each with its line break.
fn ask(world: &World, line: &str, headers: &str) -> Reply {
    world.ask(format!("{line} HTTP/1.1\r\nHost: shop\r\n{headers}").trim_end())
}

#[test]
fn a_hit_needs_no_instance_wakes_none_and_teaches() {
    let instance = counting("Cache-Control: max-age=60");
    let world = world(&instance);
    let miss = world.get("/a");
    assert_eq!((miss.text().as_str(), status(&miss)), ("1", "forerun; fwd=uri-miss; ttl=60; stored"));
    let hit = world.get("/a");
    assert_eq!(hit.text(), "1");
    assert!(status(&hit).starts_with("forerun; hit; ttl="), "{}", status(&hit));
    assert!(hit.header("age").is_some() && hit.header("date").is_some());
    assert_eq!(instance.requests(), 1);
    world.told();
    // No instance is left, and the service sleeps.
    world.publish(&[entry(&spec(|s| s.cache = Some(CacheRules::default())), &[])]);
    assert_eq!(world.get("/a").text(), "1");
    let told = world.told();
    let acts: usize =
        told.iter().map(|e| if let Event::Traffic(t) = e { t.activities.len() } else { 0 }).sum();
    assert_eq!(acts, 1, "the user did it");
    assert!(!told.iter().any(|e| matches!(e, Event::Waiting { .. })), "nobody waits: {told:?}");
    let stats = world.router.stats();
    assert_eq!(stats.services[0].cold_starts, 0);
    let cache = stats.cache.expect("a cache");
    assert_eq!(cache.requests[0], ("hit", 2));
    assert_eq!((cache.kept, cache.answered_bytes, cache.entries), (1, 2, 1));
}

#[test]
fn a_service_that_does_not_ask_for_it_has_none() {
    let instance = counting("Cache-Control: max-age=60");
    let world = World::serving(&instance);
    assert_eq!(world.get("/a").text(), "1");
    let second = world.get("/a");
    assert_eq!((second.text().as_str(), second.header("cache-status")), ("2", None));
    assert!(world.router.stats().cache.is_none());
}

#[test]
fn why_an_answer_is_not_kept_stands_in_it() {
    for (headers, expect) in [
        ("Cache-Control: no-store", "forerun; fwd=uri-miss; detail=no-store"),
        ("Cache-Control: private, max-age=5", "forerun; fwd=uri-miss; detail=private"),
        ("Cache-Control: max-age=5\r\nSet-Cookie: a=b", "forerun; fwd=uri-miss; detail=set-cookie"),
        ("X: y", "forerun; fwd=uri-miss; detail=no-freshness"),
    ] {
        let instance = counting(headers);
        let world = world(&instance);
        for n in ["1", "2"] {
            let reply = world.get("/a");
            assert_eq!((reply.text().as_str(), status(&reply)), (n, expect));
        }
    }
}

#[test]
fn clients_ask_for_parts_heads_and_news_of_what_is_stored() {
    let instance = Instance::answering(|_| answer("Cache-Control: max-age=60\r\nETag: \"a\"", "0123456789"));
    let world = world(&instance);
    world.get("/a");
    let part = ask(&world, "GET /a", "Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let same = ask(&world, "GET /a", "If-None-Match: \"a\"\r\n");
    assert_eq!((same.status, same.body.len()), (304, 0));
    let head = ask(&world, "HEAD /a", "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    assert_eq!(instance.requests(), 1);
    let nothing = ask(&world, "GET /b", "Cache-Control: only-if-cached\r\n");
    assert_eq!((nothing.status, nothing.reason()), (504, "only-if-cached"));
    assert_eq!(instance.requests(), 1);
}

#[test]
fn what_is_over_is_asked_for_and_fresh_again() {
    let (tell, told) = mpsc::sync_channel::<Request>(8);
    let instance = Instance::start(move |peer, _| {
        while let Some(request) = peer.request()? {
            let holds = request.header("if-none-match") == Some("\"a\"");
            let _ = tell.send(request);
            peer.send(&match holds {
                true => "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nX-New: 1\r\n\r\n".to_owned(),
                false => answer("Cache-Control: no-cache\r\nETag: \"a\"", "body"),
            })?;
        }
        Ok(())
    });
    let world = world(&instance);
    assert_eq!(world.get("/a").text(), "body");
    assert_eq!(told.recv().expect("asked").header("if-none-match"), None);
    let again = world.get("/a");
    assert_eq!((again.text().as_str(), again.header("x-new")), ("body", Some("1")));
    assert!(status(&again).starts_with("forerun; fwd=stale; fwd-status=304"), "{}", status(&again));
    assert_eq!(told.recv().expect("asked").header("if-none-match"), Some("\"a\""));
    // The client's own question is answered from what is stored.
    let same = ask(&world, "GET /a", "If-None-Match: \"a\"\r\n");
    assert_eq!(same.status, 304);
    assert_eq!(world.router.stats().cache.expect("a cache").requests[2], ("revalidated", 2));
}

#[test]
fn many_who_ask_for_the_same_are_one_request() {
    let (go, gone) = mpsc::sync_channel::<()>(0);
    let gone = std::sync::Mutex::new(gone);
    let instance = Instance::answering(move |_| {
        let _ = gone.lock().expect("lock").recv_timeout(Duration::from_secs(10));
        answer("Cache-Control: max-age=60", "one")
    });
    let world = world(&instance);
    let mut clients: Vec<Client> = (0..8).map(|_| world.client()).collect();
    clients.iter_mut().for_each(|client| client.get("/a"));
    eventually("the first is at the instance", || instance.requests() == 1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(instance.requests(), 1, "the others wait");
    go.send(()).expect("somebody asks");
    for mut client in clients {
        assert_eq!(client.reply().expect("an answer").text(), "one");
    }
    assert_eq!(instance.requests(), 1);
}

#[test]
fn a_leader_that_hangs_holds_the_others_only_for_a_while() {
    let count = AtomicUsize::new(0);
    let instance = Instance::answering(move |_| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_secs(15));
        }
        answer("Cache-Control: max-age=60", "mine")
    });
    let world = World::new();
    world.publish(&[cached(|rules| rules.wait = Span::from_millis(50), &instance)]);
    let mut first = world.client();
    first.get("/a");
    eventually("the first is at the instance", || instance.requests() == 1);
    assert_eq!(world.get("/a").text(), "mine");
    assert_eq!(instance.requests(), 2);
    assert!(status(&world.get("/a")).starts_with("forerun; hit"), "the second's answer was kept");
}

#[test]
fn what_cannot_be_shared_is_not_waited_for_twice() {
    let instance = Instance::answering(|_| {
        std::thread::sleep(Duration::from_millis(300));
        answer("Cache-Control: no-store", "mine")
    });
    let world = world(&instance);
    world.get("/a");
    let mut clients: Vec<Client> = (0..6).map(|_| world.client()).collect();
    clients.iter_mut().for_each(|client| client.get("/a"));
    eventually("all are at the instance at once", || instance.requests() == 7);
    for mut client in clients {
        assert_eq!(client.reply().expect("an answer").text(), "mine");
    }
}

#[test]
fn a_body_cut_short_or_too_long_is_not_kept() {
    let count = AtomicUsize::new(0);
    let instance = Instance::start(move |peer, _| {
        while let Some(request) = peer.request()? {
            let n = count.fetch_add(1, Ordering::SeqCst);
            if request.line.contains("/cut") && n == 0 {
                peer.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhalf")?;
                return peer.close();
            }
            peer.send(&answer("Cache-Control: max-age=60", &"x".repeat(2_000)))?;
        }
        Ok(())
    });
    let world = World::new();
    world.publish(&[cached(|rules| rules.body_bytes_max = 2_000, &instance)]);
    let mut client = world.client();
    client.get("/cut");
    assert!(client.reply().is_err(), "the client sees that it is cut");
    assert!(status(&world.get("/cut")).contains("fwd=uri-miss"));
    assert!(status(&world.get("/cut")).starts_with("forerun; hit"));
    world.publish(&[cached(|rules| rules.body_bytes_max = 1_999, &instance)]);
    for _ in 0..2 {
        assert!(status(&world.get("/long")).contains("fwd=uri-miss"));
    }
}

#[test]
fn a_change_ends_what_is_kept_of_it() {
    let count = AtomicUsize::new(0);
    let instance = Instance::answering(move |request| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        match request.line.split(' ').next() {
            Some("POST") if request.line.contains("/fails") => {
                "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned()
            }
            Some("POST") => answer("Location: /made\r\nContent-Location: http://other/b", ""),
            _ => answer("Cache-Control: max-age=60", &n.to_string()),
        }
    });
    let world = world(&instance);
    let first: Vec<String> = ["/a", "/b", "/made"].map(|path| world.get(path).text()).into();
    let same = |path: &str, n: usize| world.get(path).text() == first[n];
    ask(&world, "POST /fails", "Content-Length: 0\r\n");
    assert!(same("/a", 0));
    ask(&world, "POST /a", "Content-Length: 0\r\n");
    assert!(!same("/a", 0) && same("/b", 1) && !same("/made", 2));
}

#[test]
fn stale_answers_stand_in_for_a_service_that_fails() {
    let count = AtomicUsize::new(0);
    let instance = Instance::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"a\"", "good"),
        _ => "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad".to_owned(),
    });
    let world = world(&instance);
    assert_eq!(world.get("/a").text(), "good");
    let stale = world.get("/a");
    assert_eq!((stale.status, stale.text().as_str()), (200, "good"));
    assert!(status(&stale).contains("fwd-status=503") && status(&stale).contains("stale-if-error"));
}

#[test]
fn a_stale_answer_is_served_at_once_while_an_instance_is_asked() {
    let instance = counting("Cache-Control: max-age=0, stale-while-revalidate=60");
    let world = world(&instance);
    assert_eq!(world.get("/a").text(), "1");
    let stale = world.get("/a");
    assert_eq!(stale.text(), "1");
    assert!(status(&stale).contains("detail=stale"), "{}", status(&stale));
    eventually("an instance is asked", || instance.requests() == 2);
    eventually("its answer is there", || world.get("/a").text() != "1");
    // A service that sleeps is not woken for that.
    world.told();
    world.publish(&[entry(&spec(|s| s.cache = Some(CacheRules::default())), &[])]);
    assert!(world.get("/a").text().parse::<u32>().is_ok());
    assert!(!world.told().iter().any(|e| matches!(e, Event::Waiting { .. })));
}

#[test]
fn what_the_vary_header_names_is_told_apart() {
    let instance = Instance::answering(|request| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        answer("Cache-Control: max-age=60\r\nVary: Accept-Language", &language)
    });
    let world = world(&instance);
    for _ in 0..2 {
        for language in ["de", "en"] {
            let reply = ask(&world, "GET /a", &format!("Accept-Language: {language}\r\n"));
            assert_eq!(reply.text(), language);
        }
    }
    assert_eq!(instance.requests(), 2);
    assert_eq!(status(&world.get("/a")), "forerun; fwd=vary-miss; ttl=60; stored");
}

#[test]
fn answers_without_a_known_length_are_kept_whole() {
    let instance = Instance::answering(|_| {
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            .to_owned()
    });
    let world = world(&instance);
    assert_eq!(world.get("/a").text(), "abcde");
    let hit = world.get("/a");
    assert_eq!((hit.text().as_str(), hit.header("content-length")), ("abcde", Some("5")));
    assert_eq!(instance.requests(), 1);
}
