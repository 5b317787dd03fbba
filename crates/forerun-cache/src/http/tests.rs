//! Rules of RFC 9111 on small exchanges: what a request was answered, and what the next is served.

use super::*;
use crate::Put;
use bytes::Bytes;
use forerun_types::{Span, TenantKey, Time};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// 2026-01-01T00:00:00Z.
const NOW: Time = Time(1_767_225_600_000_000);
const TODAY: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const YEAR_AGO: &str = "Wed, 01 Jan 2025 00:00:00 GMT";

fn map(text: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a header");
        map.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            HeaderValue::from_str(value.trim()).expect("a value"),
        );
    }
    map
}

fn ask(request: &str, status: u16, answer: &str) -> Result<Stored, NotStored> {
    ask_within(request, status, answer, &Limits::default())
}

fn ask_within(request: &str, status: u16, answer: &str, limits: &Limits) -> Result<Stored, NotStored> {
    let (request, answer) = (map(request), map(answer));
    let fetched = Fetched {
        method: &Method::GET,
        request: &request,
        guarded: false,
        status: StatusCode::from_u16(status).expect("a status"),
        answer: &answer,
        asked: NOW,
        now: NOW,
    };
    judge(&fetched, limits).map(|stored| stored.with_body(Bytes::from_static(b"0123456789")))
}

fn stored(answer: &str) -> Stored {
    ask("", 200, answer).expect("kept")
}

fn after(seconds: u64) -> Time {
    NOW + Span::from_secs(seconds)
}

#[test]
fn what_may_be_kept() {
    use NotStored as No;
    for (request, status, answer, expect) in [
        ("", 200, "cache-control: max-age=60", Ok(60)),
        ("", 200, "cache-control: s-maxage=60, max-age=1", Ok(60)),
        ("", 200, "expires: Thu, 01 Jan 2026 00:01:00 GMT\ndate: Thu, 01 Jan 2026 00:00:00 GMT", Ok(60)),
        ("", 200, "cache-control: max-age=5\nexpires: Thu, 01 Jan 2026 00:01:00 GMT", Ok(5)),
        ("", 200, "expires: 0", Err(No::NoFreshness)),
        ("", 200, "", Err(No::NoFreshness)),
        ("", 200, "etag: \"a\"", Ok(0)),
        ("", 200, "cache-control: no-cache\netag: \"a\"", Ok(0)),
        ("", 200, "cache-control: no-cache, max-age=60", Err(No::NoFreshness)),
        ("", 200, "pragma: no-cache\nexpires: Thu, 01 Jan 2026 00:01:00 GMT\netag: \"a\"", Ok(60)),
        ("", 200, "cache-control: no-store, max-age=60", Err(No::NoStore)),
        ("", 200, "cache-control: max-age=60, private", Err(No::Private)),
        ("", 200, "cache-control: max-age=60, private=\"x\"", Err(No::Private)),
        ("", 200, "cache-control: public, max-age=60\nset-cookie: a=b", Err(No::SetCookie)),
        ("", 206, "cache-control: max-age=60\ncontent-range: bytes 0-1/2", Err(No::Partial)),
        ("", 304, "cache-control: max-age=60", Err(No::Status)),
        ("", 200, "cache-control: max-age=60\nvary: *", Err(No::Vary)),
        ("", 200, "cache-control: max-age=60\nvary: a, b, *", Err(No::Vary)),
        ("", 200, "cache-control: max-age=60\nvary: a b", Err(No::Vary)),
        ("", 200, "cache-control: max-age=60\nvary: X-Forwarded-For", Err(No::Vary)),
        ("", 200, "cache-control: max-age=60\nvary: Forwarded", Err(No::Vary)),
        ("", 200, "cache-control: max-age=60\nvary: a,b,c,d,e,f,g,h,i", Err(No::Vary)),
        ("", 404, "cache-control: max-age=60", Ok(60)),
        ("", 404, "", Err(No::NoFreshness)),
        ("", 503, "cache-control: max-age=60", Ok(60)),
        ("", 503, "", Err(No::Status)),
        ("", 599, "cache-control: max-age=60, must-understand", Err(No::Status)),
        ("", 200, "cache-control: max-age=60, must-understand, no-store", Ok(60)),
        ("cache-control: no-store", 200, "cache-control: max-age=60", Err(No::RequestNoStore)),
        ("authorization: x", 200, "cache-control: max-age=60", Err(No::Authorized)),
        ("authorization: x", 200, "cache-control: max-age=60, public", Ok(60)),
        ("authorization: x", 200, "cache-control: max-age=60, must-revalidate", Ok(60)),
        ("authorization: x", 200, "cache-control: s-maxage=60", Ok(60)),
        ("cookie: a=b", 200, "cache-control: max-age=60", Ok(60)),
        ("", 200, "cache-control: max-age=60\ncdn-cache-control: max-age=90", Ok(90)),
        ("", 200, "cache-control: max-age=60\ncdn-cache-control: no-store", Err(No::NoStore)),
        ("", 200, "cache-control: no-store\ncdn-cache-control: max-age=90", Ok(90)),
    ] {
        let kept = ask(request, status, answer).map(|stored| stored.lifetime.0 / 1_000_000);
        assert_eq!(kept, expect, "{request} {status} {answer}");
    }
}

#[test]
fn a_guess_at_freshness_is_a_tenth_of_the_age_and_not_for_those_with_a_cookie() {
    let answer = format!("last-modified: {YEAR_AGO}\ndate: {TODAY}");
    let lifetime = |request, answer: &str| ask(request, 200, answer).expect("kept").lifetime;
    let tenth = Span::from_secs(365 * 86_400 / 10);
    assert!(lifetime("", &answer).0.abs_diff(tenth.0) < 2_000_000, "{:?}", lifetime("", &answer));
    assert_eq!(lifetime("cookie: session=1", &answer), Span::ZERO);
    assert_eq!(lifetime("", &format!("{answer}\nexpires: nonsense")), Span::ZERO);
}

#[test]
fn what_is_missing_is_kept_as_long_as_the_service_says() {
    let limits = Limits { missing: Span::from_secs(30), ..Limits::default() };
    let kept = |status, answer| ask_within("", status, answer, &limits).map(|s| s.lifetime.0 / 1_000_000);
    assert_eq!(kept(404, ""), Ok(30));
    assert_eq!(kept(410, ""), Ok(30));
    assert_eq!(kept(404, "cache-control: max-age=5"), Ok(5));
    assert_eq!(kept(404, "cache-control: no-store"), Err(NotStored::NoStore));
    assert_eq!(kept(500, ""), Err(NotStored::Status));
    assert_eq!(kept(200, ""), Err(NotStored::NoFreshness));
}

#[test]
fn age_counts_from_where_it_was_made() {
    for (answer, age) in [
        ("", 0),
        ("age: 20", 20),
        ("age: 20, 90", 20),
        ("age: x", 0),
        ("age: -5", 0),
        ("age: 2.5", 0),
        ("date: Wed, 31 Dec 2025 23:59:30 GMT", 30),
        ("date: Wed, 31 Dec 2025 23:59:30 GMT\nage: 40", 40),
        ("date: Thu, 01 Jan 2026 01:00:00 GMT", 0),
        ("date: nonsense", 0),
    ] {
        let stored = stored(&format!("cache-control: max-age=3600\n{answer}"));
        assert_eq!(stored.age(NOW), Span::from_secs(age), "{answer}");
        assert_eq!(stored.age(after(5)), Span::from_secs(age + 5), "{answer}");
    }
    let (answer, request) = (map("cache-control: max-age=60\nage: 1"), HeaderMap::new());
    let late = Fetched {
        method: &Method::GET,
        request: &request,
        guarded: false,
        status: StatusCode::OK,
        answer: &answer,
        asked: NOW,
        now: after(7),
    };
    let stored = judge(&late, &Limits::default()).expect("kept");
    assert_eq!(stored.age(after(7)), Span::from_secs(8), "the way here took time");
}

#[test]
fn what_a_request_is_served() {
    let old = Serve::Revalidate;
    for (answer, request, at, expect) in [
        ("max-age=60", "", 59, Serve::Fresh),
        ("max-age=60", "", 60, old),
        ("max-age=60", "cache-control: no-cache", 1, old),
        ("max-age=60", "pragma: no-cache", 1, old),
        ("max-age=60", "cache-control: max-age=10", 11, old),
        ("max-age=60", "cache-control: max-age=10", 10, Serve::Fresh),
        ("max-age=60", "cache-control: min-fresh=30", 31, old),
        ("max-age=60", "cache-control: min-fresh=30", 29, Serve::Fresh),
        ("max-age=60", "cache-control: max-stale", 1000, Serve::Stale { refresh: false }),
        ("max-age=60", "cache-control: max-stale=10", 70, Serve::Stale { refresh: false }),
        ("max-age=60", "cache-control: max-stale=10", 71, old),
        ("max-age=60, must-revalidate", "cache-control: max-stale", 61, old),
        ("s-maxage=60", "cache-control: max-stale", 61, old),
        ("max-age=60, stale-while-revalidate=5", "", 64, Serve::Stale { refresh: true }),
        ("max-age=60, stale-while-revalidate=5", "", 65, old),
        ("max-age=60, stale-while-revalidate=5, must-revalidate", "", 64, old),
        ("no-cache", "cache-control: max-stale", 1, old),
    ] {
        let stored = stored(&format!("etag: \"a\"\ncache-control: {answer}"));
        let asks = Asks::of(&map(request));
        assert_eq!(stored.may_serve(&asks, after(at)), expect, "{answer} {request} {at}");
    }
}

#[test]
fn stale_answers_stand_in_for_errors_as_long_as_they_may() {
    let limits = Limits { stale_if_error: Span::from_secs(10), ..Limits::default() };
    for (answer, request, at, expect) in [
        ("max-age=60", "", 69, true),
        ("max-age=60", "", 70, false),
        ("max-age=60, stale-if-error=100", "", 159, true),
        ("max-age=60, stale-if-error=0", "", 61, false),
        ("max-age=60", "cache-control: stale-if-error=50", 109, true),
        ("max-age=60, must-revalidate", "", 61, false),
        ("max-age=60", "cache-control: no-cache", 61, false),
    ] {
        let stored = ask_within("", 200, &format!("cache-control: {answer}"), &limits).expect("kept");
        let asks = Asks::of(&map(request));
        assert_eq!(stored.may_stand_in(&asks, after(at)), expect, "{answer} {request} {at}");
    }
}

#[test]
fn clients_get_the_whole_a_part_or_their_own_copy() {
    let answer =
        format!("etag: \"a\"\nlast-modified: {YEAR_AGO}\ncache-control: max-age=60\ncontent-type: x/y");
    let stored = stored(&answer);
    let later = "Thu, 02 Jan 2025 00:00:00 GMT";
    for (request, status, body) in [
        (String::new(), 200, "0123456789"),
        ("if-none-match: \"a\"".to_owned(), 304, ""),
        ("if-none-match: W/\"a\"".to_owned(), 304, ""),
        ("if-none-match: \"x,y\", \"a\"".to_owned(), 304, ""),
        ("if-none-match: *".to_owned(), 304, ""),
        ("if-none-match: \"b\"".to_owned(), 200, "0123456789"),
        ("if-none-match: \"x, \"a\"".to_owned(), 200, "0123456789"),
        (format!("if-none-match: \"b\"\nif-modified-since: {later}"), 200, "0123456789"),
        (format!("if-modified-since: {YEAR_AGO}"), 304, ""),
        (format!("if-modified-since: {later}"), 304, ""),
        ("if-modified-since: Tue, 31 Dec 2024 00:00:00 GMT".to_owned(), 200, "0123456789"),
        ("if-modified-since: nonsense".to_owned(), 200, "0123456789"),
        ("range: bytes=2-4".to_owned(), 206, "234"),
        ("range: bytes=20-".to_owned(), 416, ""),
        ("range: bytes=2-4\nif-range: \"a\"".to_owned(), 206, "234"),
        ("range: bytes=2-4\nif-range: \"b\"".to_owned(), 200, "0123456789"),
        ("range: bytes=2-4\nif-range: W/\"a\"".to_owned(), 200, "0123456789"),
        (format!("range: bytes=2-4\nif-range: {YEAR_AGO}"), 206, "234"),
        (format!("range: bytes=2-4\nif-range: {later}"), 200, "0123456789"),
        ("range: bytes=2-4\nif-none-match: \"a\"".to_owned(), 304, ""),
    ] {
        let reply = Answer::of(&stored, &Method::GET, &map(&request), &Status::hit(59), after(1));
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (status, body.as_bytes()), "{request}");
        assert_eq!(reply.headers["age"], "1", "{request}");
        assert_eq!(reply.headers["etag"], "\"a\"", "{request}");
        assert_eq!(reply.headers["cache-status"], "forerun; hit; ttl=59", "{request}");
        assert_eq!(reply.headers.contains_key("content-type"), status != 304, "{request}");
    }
    let part = Answer::of(&stored, &Method::GET, &map("range: bytes=-3"), &Status::hit(59), NOW);
    assert_eq!(part.headers["content-range"], "bytes 7-9/10");
    let nothing = Answer::of(&stored, &Method::GET, &map("range: bytes=10-"), &Status::hit(59), NOW);
    assert_eq!(nothing.headers["content-range"], "bytes */10");
    let head = Answer::of(&stored, &Method::HEAD, &map("range: bytes=2-4"), &Status::hit(59), NOW);
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], "10");
}

#[test]
fn a_304_makes_what_is_stored_fresh_with_its_headers() {
    let old =
        stored("etag: \"a\"\ncache-control: max-age=1\nx-old: 1\nx-both: 1\nx-both: 2\ncontent-encoding: br");
    let answer =
        map("etag: \"a\"\ncache-control: max-age=60\nx-both: 3\ncontent-encoding: gzip\ncontent-length: 3");
    let request = HeaderMap::new();
    let fetched = Fetched {
        method: &Method::GET,
        request: &request,
        guarded: false,
        status: StatusCode::NOT_MODIFIED,
        answer: &answer,
        asked: after(10),
        now: after(10),
    };
    let new = old.refreshed(&fetched, &Limits::default()).expect("kept");
    assert_eq!(new.may_serve(&Asks::default(), after(69)), Serve::Fresh);
    assert_eq!(&new.body[..], b"0123456789");
    assert_eq!(new.headers["x-old"], "1");
    assert_eq!(new.headers.get_all("x-both").iter().collect::<Vec<_>>(), ["3"]);
    assert_eq!(new.headers["content-encoding"], "br", "the body is the old one");
    assert!(!new.headers.contains_key("content-length"));

    let answer = map("cache-control: no-store");
    let (why, shown) =
        old.refreshed(&Fetched { answer: &answer, ..fetched }, &Limits::default()).unwrap_err();
    assert_eq!(why, NotStored::NoStore);
    assert_eq!(&shown.body[..], b"0123456789", "this request is still answered");
}

fn key(service: &str, host: &str, target: &str) -> PageKey {
    keyed(0, service, host, target)
}

fn keyed(tenant: u64, service: &str, host: &str, target: &str) -> PageKey {
    let origin = Origin { tenant: TenantKey(tenant), service, special: None, host, target };
    PageKey::new(&origin, None)
}

fn put(pages: &mut Pages, key: &PageKey, request: &str, answer: &str) -> Put {
    let begun = pages.begin();
    let answer = ask(request, 200, &format!("cache-control: max-age=60\n{answer}")).expect("kept");
    pages.keep(key, &map(request), begun, answer, 3)
}

fn has(pages: &mut Pages, key: &PageKey, request: &str) -> bool {
    matches!(pages.find(key, &map(request)), Found::Here(_))
}

#[test]
fn variants_are_told_apart_and_bounded() {
    let mut pages = Pages::new(1 << 20, 1);
    let page = key("web", "shop", "/");
    for language in ["de", "en", "fr", "it"] {
        let request = format!("accept-language: {language}");
        assert_eq!(put(&mut pages, &page, &request, "vary: Accept-Language"), Put::Kept);
    }
    assert!(!has(&mut pages, &page, "accept-language: de"), "the oldest of four has gone");
    for language in ["en", "fr", "it"] {
        assert!(has(&mut pages, &page, &format!("accept-language: {language}")), "{language}");
    }
    assert!(matches!(pages.find(&page, &HeaderMap::new()), Found::Others));
    assert_eq!(pages.size().0, 1);
    put(&mut pages, &page, "accept-encoding: a ,b\naccept-encoding: c", "vary: accept-encoding");
    assert!(has(&mut pages, &page, "accept-encoding: a, b, c"), "the same list in other words");
}

#[test]
fn what_is_purged_is_not_served_and_what_was_being_fetched_is_not_kept() {
    type Purge = fn(&mut Pages);
    let purges: [(&str, Purge, [bool; 4]); 7] = [
        ("url", |p| p.purge_url(TenantKey(0), "Shop", "/a?x=1"), [false, true, true, true]),
        ("another url", |p| p.purge_url(TenantKey(0), "shop", "/a"), [true, true, true, true]),
        ("prefix", |p| p.purge_prefix(Some(TenantKey(0)), "shop", "/a"), [false, false, true, true]),
        ("prefix of all", |p| p.purge_prefix(None, "shop", "/a"), [false, false, true, false]),
        ("tag", |p| p.purge_tag(TenantKey(0), "red"), [true, false, false, true]),
        ("tenant", |p| p.purge_tenant(TenantKey(1)), [true, true, true, false]),
        ("all", Pages::purge_all, [false, false, false, false]),
    ];
    for (name, purge, expect) in purges {
        let mut pages = Pages::new(1 << 20, 1);
        let keys = [
            (key("web", "shop", "/a?x=1"), "cache-tag: blue"),
            (key("web", "shop", "/ab"), "surrogate-key: red blue"),
            (key("web", "shop", "/b"), "cache-tag: green,red"),
            (keyed(1, "web", "shop", "/ab"), "surrogate-key: red"),
        ];
        for (key, answer) in &keys {
            assert_eq!(put(&mut pages, key, "", answer), Put::Kept);
        }
        let begun = pages.begin();
        purge(&mut pages);
        for ((key, answer), expect) in keys.iter().zip(expect) {
            assert_eq!(has(&mut pages, key, ""), expect, "{name} {key:?}");
            let late = ask("", 200, &format!("cache-control: max-age=60\n{answer}")).expect("kept");
            let put_late = pages.keep(key, &HeaderMap::new(), begun, late, 3);
            assert_eq!(put_late == Put::Kept, expect, "{name} {key:?}: what was under way");
            assert_eq!(put(&mut pages, key, "", answer), Put::Kept);
            assert!(has(&mut pages, key, ""), "{name} {key:?}: what was fetched after");
        }
    }
}

#[test]
fn more_prefixes_than_are_told_apart_purge_too_much_and_never_too_little() {
    let mut pages = Pages::new(1 << 20, 1);
    let (first, other) = (key("web", "shop", "/0/x"), key("web", "shop", "/other"));
    put(&mut pages, &first, "", "");
    put(&mut pages, &other, "", "");
    for n in 0..100 {
        pages.purge_prefix(None, "shop", &format!("/{n}/"));
    }
    assert!(!has(&mut pages, &first, ""));
    assert!(!has(&mut pages, &other, ""), "what was there when the oldest came");
    put(&mut pages, &other, "", "");
    assert!(has(&mut pages, &other, ""));
}

#[test]
fn keys_hold_all_that_the_instance_sees() {
    let base = key("web", "shop", "/a");
    assert_eq!(base, key("web", "SHOP", "/a"));
    for other in [
        key("web", "shop:81", "/a"),
        key("web", "shop", "/A"),
        key("web", "shop", "/%61"),
        key("web", "shop", "/a?"),
        key("web", "shop", "/a/"),
        key("web", "shop", "//a"),
        key("web2", "shop", "/a"),
        keyed(1, "web", "shop", "/a"),
    ] {
        assert_ne!(base, other);
    }
    let origin =
        Origin { tenant: TenantKey(0), service: "web", special: Some("k"), host: "shop", target: "/a" };
    assert_ne!(base, PageKey::new(&origin, None));
    let trusted = |headers: &str| PageKey::new(&Origin { special: None, ..origin }, Some(&map(headers)));
    assert_ne!(trusted("x-forwarded-host: a"), trusted("x-forwarded-host: b"));
    assert_ne!(trusted("x-forwarded-proto: http"), trusted("x-forwarded-proto: https"));
    assert_eq!(trusted("x-forwarded-for: 1.1.1.1"), trusted("x-forwarded-for: 2.2.2.2"));
}

#[test]
fn some_requests_are_none_of_the_caches() {
    for (method, headers, body, trusted, expect) in [
        ("GET", "", false, false, None),
        ("HEAD", "", false, false, None),
        ("POST", "", true, false, Some(Bypass::Method)),
        ("PURGE", "", false, false, Some(Bypass::Method)),
        ("GET", "", true, false, Some(Bypass::Body)),
        ("GET", "transfer-encoding: chunked", false, false, Some(Bypass::Body)),
        ("GET", "if-match: \"a\"", false, false, Some(Bypass::Precondition)),
        ("GET", "connection: Keep-Alive, te", false, false, None),
        ("GET", "connection: close, accept-language", false, true, Some(Bypass::Unkeyed)),
        ("GET", "x-http-method-override: POST", false, true, Some(Bypass::Unkeyed)),
        ("GET", "x-original-url: /admin", false, true, Some(Bypass::Unkeyed)),
        ("GET", "x-forwarded-prefix: /evil", false, false, Some(Bypass::Unkeyed)),
        ("GET", "x-forwarded-prefix: /front", false, true, None),
        ("GET", "forwarded: host=evil", false, false, Some(Bypass::Unkeyed)),
        // The router sets these itself.
        ("GET", "x-forwarded-host: evil\nx-forwarded-proto: evil", false, false, None),
    ] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        assert_eq!(asks_past(&method, &map(headers), body, trusted), expect, "{method} {headers}");
    }
}

#[test]
fn what_is_said_outright_is_read_as_the_crate_reads_it() {
    for text in [
        "max-age=60",
        "s-maxage=90, max-age=60",
        "max-age=0",
        "s-maxage=0, max-age=60",
        "max-age=60, no-cache",
        "public, max-age=60, must-revalidate",
        "max-age=2147483648",
        "max-age=x",
    ] {
        let (request, answer) = (HeaderMap::new(), map(&format!("cache-control: {text}\netag: \"a\"")));
        let fetched = Fetched {
            method: &Method::GET,
            request: &request,
            guarded: false,
            status: StatusCode::OK,
            answer: &answer,
            asked: NOW,
            now: NOW,
        };
        let ours = judge(&fetched, &Limits::default()).expect("kept").lifetime;
        let theirs = judge::by_the_crate(&fetched, &Says::of(&answer), (true, false), false);
        assert_eq!(Ok(ours), theirs, "{text}");
    }
}
