//! Deception and poisoning: pairs of requests, and whether the second may get what the first was answered. docs/cache.md has
//! the table for people.

use crate::cache::answer;
use crate::world::{Instance, Reply, Request, World, entry, spec};
use forerun_types::{Auth, CacheRules, ServiceSpec};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers with these headers, with a number of its own each time, and with all that was asked: a framework at its most
/// talkative.
fn talkative(headers: &'static str) -> Instance {
    let count = AtomicUsize::new(0);
    Instance::answering(move |request: &Request| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let body = format!("{n} {} {:?} {:?}", request.line, request.headers, request.body);
        let body = if request.line.starts_with("HEAD") { "" } else { &body };
        answer(headers, body)
    })
}

fn world(instance: &Instance, change: impl FnOnce(&mut ServiceSpec)) -> World {
    let world = World::new();
    let of = |s: &mut ServiceSpec| {
        s.cache = Some(CacheRules::default());
        change(s);
    };
    world.publish(&[entry(&spec(of), &[(1, instance.address)])]);
    world
}

/// `lines`: the request's line, and header lines, parted by `|`. A body may stand behind `||`.
fn send(world: &World, lines: &str) -> Reply {
    let (head, body) = lines.split_once("||").unwrap_or((lines, ""));
    let mut parts = head.split('|');
    let line = parts.next().unwrap_or_default();
    let headers: Vec<&str> = parts.collect();
    let host = if headers.iter().any(|h| h.starts_with("Host:")) { "" } else { "\r\nHost: shop" };
    let headers: String = headers.iter().map(|h| format!("\r\n{h}")).collect();
    let mut client = world.client();
    client.send(&format!("{line} HTTP/1.1{host}{headers}\r\n\r\n{body}"));
    if line.starts_with("HEAD") { client.reply_to_head() } else { client.reply() }.expect("an answer")
}

fn is_shared(instance: &Instance, first: &str, second: &str) -> bool {
    let world = world(instance, |_| {});
    send(&world, first);
    let reply = send(&world, second);
    assert!(!reply.text().contains("evil"), "{first} then {second}: {}", reply.text());
    reply.header("cache-status").is_some_and(|status| status.starts_with("forerun; hit"))
}

#[test]
fn what_is_not_the_same_request_gets_no_other_ones_answer() {
    for (first, second, shared) in [
        // So that the others can fail.
        ("GET /a", "GET /a", true),
        ("GET /a|X-Forwarded-For: 6.6.6.6", "GET /a", true),
        ("GET /a|Host: SHOP", "GET /a", true),
        ("GET /a|User-Agent: one", "GET /a|User-Agent: two", true),
        // Path confusion.
        ("GET /account/x.css", "GET /account", false),
        ("GET /account%2Fx.css", "GET /account/x.css", false),
        ("GET /a%2fb", "GET /a/b", false),
        ("GET /a%2Fb", "GET /a%2fb", false),
        ("GET /a/../b", "GET /b", false),
        ("GET /a/%2e%2e/b", "GET /b", false),
        ("GET /a/./b", "GET /a/b", false),
        ("GET //a", "GET /a", false),
        ("GET /a/", "GET /a", false),
        ("GET /A", "GET /a", false),
        ("GET /a;.css", "GET /a", false),
        ("GET /a%00.css", "GET /a", false),
        ("GET /a%3Fx=1", "GET /a?x=1", false),
        // Parameters.
        ("GET /a?x=1&x=2", "GET /a?x=2&x=1", false),
        ("GET /a?x=1", "GET /a?x=1&x=2", false),
        ("GET /a?x", "GET /a?x=", false),
        ("GET /a?", "GET /a", false),
        // Where it goes.
        ("GET /a|Host: shop:1337", "GET /a", false),
        ("GET /a|Host: evil.shop", "GET /a", false),
        ("GET http://other/a", "GET /a", false),
        // What is no part of the key.
        ("GET /a|X-Forwarded-Host: evil", "GET /a", true),
        ("GET /a|X-Forwarded-Proto: evil", "GET /a", true),
        ("GET /a|X-Forwarded-Port: evil", "GET /a", false),
        ("GET /a|X-Forwarded-Prefix: /evil", "GET /a", false),
        ("GET /a|X-Forwarded-Scheme: evil", "GET /a", false),
        ("GET /a|X-Forwarded-Server: evil", "GET /a", false),
        ("GET /a|X-Forwarded-Path: evil", "GET /a", false),
        ("GET /a|Forwarded: host=evil", "GET /a", false),
        ("GET /a|X-Host: evil", "GET /a", false),
        ("GET /a|X-Original-Host: evil", "GET /a", false),
        ("GET /a|X-Original-URL: /evil", "GET /a", false),
        ("GET /a|X-Rewrite-URL: /evil", "GET /a", false),
        ("GET /a|X-HTTP-Method-Override: evil", "GET /a", false),
        ("GET /a|X-HTTP-Method: evil", "GET /a", false),
        ("GET /a|X-Method-Override: evil", "GET /a", false),
        // A GET with a body.
        ("GET /a|Content-Length: 4||evil", "GET /a", false),
        ("GET /a|Transfer-Encoding: chunked||4\r\nevil\r\n0\r\n\r\n", "GET /a", false),
        // Headers of the one connection.
        ("GET /a|Connection: x-evil, cookie|Cookie: evil", "GET /a", false),
        // What is no whole answer to a GET.
        ("HEAD /a", "GET /a", false),
        ("POST /a|Content-Length: 4||evil", "GET /a", false),
        ("GET /a|If-Match: \"evil\"", "GET /a", false),
    ] {
        let instance = talkative("Cache-Control: max-age=60");
        assert_eq!(is_shared(&instance, first, second), shared, "{first} then {second}");
    }
}

#[test]
fn what_is_for_one_is_not_for_another() {
    let modified = "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT";
    for (headers, first, second, shared) in [
        ("Cache-Control: max-age=60", "GET /a|Authorization: evil", "GET /a", false),
        ("Cache-Control: private, max-age=60", "GET /a|Authorization: evil", "GET /a", false),
        (modified, "GET /a|Cookie: session=evil", "GET /a", false),
        (modified, "GET /a", "GET /a", true),
        ("Cache-Control: max-age=60\r\nVary: Cookie", "GET /a|Cookie: evil", "GET /a", false),
        ("Cache-Control: max-age=60\r\nVary: X-Forwarded-For", "GET /a", "GET /a", false),
        ("Cache-Control: max-age=60\r\nVary: *", "GET /a", "GET /a", false),
        ("Cache-Control: max-age=60\r\nVary: X-A\r\nVary: X-B", "GET /a|X-B: evil", "GET /a", false),
        ("Cache-Control: public, max-age=60\r\nSet-Cookie: session=1", "GET /a", "GET /a", false),
        ("Cache-Control: max-age=60, No-Store", "GET /a", "GET /a", false),
        ("Cache-Control: max-age=60\r\nCache-Control: private", "GET /a", "GET /a", false),
        ("Cache-Control: x=\"no-store\", max-age=60", "GET /a", "GET /a", true),
    ] {
        let instance = talkative(headers);
        assert_eq!(is_shared(&instance, first, second), shared, "{headers}: {first} then {second}");
    }
}

#[test]
fn behind_a_guard_only_what_says_so_is_shared() {
    let hash = blake3::hash(b"key").to_hex().to_string();
    for (headers, shared) in [
        ("Cache-Control: max-age=60", false),
        ("Cache-Control: public, max-age=60", true),
        ("Cache-Control: public, max-age=60\r\nVary: Accept-Language", true),
        // What a guard may have told the instance, no client's request shows.
        ("Cache-Control: public, max-age=60\r\nVary: Remote-User", false),
    ] {
        let instance = talkative(headers);
        let world = world(&instance, |s| s.auth = Some(Auth::Token { hashes: vec![hash.clone()] }));
        let one = send(&world, "GET /a|Authorization: Bearer key").text();
        assert_eq!(send(&world, "GET /a|Authorization: Bearer key").text() == one, shared, "{headers}");
        assert_eq!(send(&world, "GET /a").status, 401, "the guard is asked before the cache");
        assert_eq!(send(&world, "GET /a|Cache-Control: only-if-cached").status, 401);
    }
}

#[test]
fn parts_never_pass_for_the_whole() {
    let instance = Instance::answering(|request| match request.header("range") {
        Some(_) => {
            let head =
                "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-3/10";
            format!("{head}\r\nContent-Length: 4\r\n\r\n0123")
        }
        None => answer("Cache-Control: max-age=60", "0123456789"),
    });
    let world = world(&instance, |_| {});
    assert_eq!(send(&world, "GET /a|Range: bytes=0-3").status, 206);
    assert_eq!(send(&world, "GET /a").text(), "0123456789");
    // As many parts as fit a head are one whole answer, not a sum of them.
    let parts: Vec<String> = (0..1_000).map(|_| "0-9".to_owned()).collect();
    let many = send(&world, &format!("GET /a|Range: bytes={}", parts.join(",")));
    assert_eq!((many.status, many.body.len()), (200, 10));
    assert_eq!(instance.requests(), 2);
}

#[test]
fn a_condition_before_the_first_answer_leaves_nothing_behind() {
    let instance = Instance::answering(|request| match request.header("if-none-match") {
        Some(_) => "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n".to_owned(),
        None => answer("Cache-Control: max-age=60", "whole"),
    });
    let world = world(&instance, |_| {});
    assert_eq!(send(&world, "GET /a|If-None-Match: *").status, 304);
    let whole = send(&world, "GET /a");
    assert_eq!((whole.status, whole.text().as_str()), (200, "whole"));
}

#[test]
fn a_flood_of_variants_stays_within_its_bound() {
    let instance = talkative("Cache-Control: max-age=60\r\nVary: X-Flood");
    let world = world(&instance, |_| {});
    send(&world, "GET /other");
    for n in 0..200 {
        send(&world, &format!("GET /a|X-Flood: {n}"));
    }
    let cache = world.router.stats().cache.expect("a cache");
    assert_eq!(cache.entries, 2, "one for each URL");
    assert!(cache.bytes < 64 << 10, "{} bytes for 17 small answers", cache.bytes);
    assert!(send(&world, "GET /other").header("cache-status").is_some_and(|s| s.contains("hit")));
}

#[test]
fn a_change_that_fails_ends_nothing() {
    let count = AtomicUsize::new(0);
    let instance = Instance::answering(move |request| match request.line.starts_with("GET") {
        true => answer("Cache-Control: max-age=60", &count.fetch_add(1, Ordering::SeqCst).to_string()),
        false => "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
    });
    let world = world(&instance, |_| {});
    assert_eq!(send(&world, "GET /a").text(), "0");
    for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE"] {
        send(&world, &format!("{method} /a|Content-Length: 0"));
        assert_eq!(send(&world, "GET /a").text(), "0", "{method}");
    }
}
