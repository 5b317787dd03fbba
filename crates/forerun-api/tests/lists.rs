//! Lists a page at a time, ETags, the stream of events, and the page that shows it all: over real TCP.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ANY_PORT, Fake, Folder, ask, ask_until, start, tell};
use forerun_api::{Api, Page, Role, ServiceSummary};

async fn get(api: &Api, path: &str, more: &str) -> (u16, String) {
    let answer = ask(api, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}X-Test: 1")).await;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[tokio::test]
async fn pages_follow_each_other_and_miss_nothing() {
    let api = start(true).await;
    let (mut names, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let (status, answer) = get(&api, &format!("/v1/services?limit=3{after}"), "").await;
        assert_eq!(status, 200, "{answer}");
        let page: Page<ServiceSummary> = serde_json::from_str(body(&answer)).unwrap();
        assert_eq!(page.total, 4);
        names.extend(page.items.into_iter().map(|s| s.name));
        pages += 1;
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(
        (names.as_slice(), pages),
        (&["acme-shop", "rival-db", "rival-shop", "web"].map(str::to_owned)[..], 2)
    );
    // One that is gone is no reason to begin anew.
    let (_, answer) = get(&api, "/v1/services?after=rival-gone", "").await;
    assert!(answer.contains("rival-shop") && !answer.contains("rival-db\",\"tenant"), "{answer}");
    let (_, answer) = get(&api, "/v1/services?name=shop", "").await;
    assert!(answer.contains("\"total\":2"), "{answer}");
}

#[tokio::test]
async fn slips_are_told_with_the_mend() {
    let api = start(true).await;
    for (path, status, part) in [
        ("/v1/services?limit=0", 400, "limit: 0 is out of range; it takes 1 to 1000"),
        ("/v1/services?limit=x", 400, "invalid digit"),
        ("/v1/services?limt=1", 400, "unknown field `limt`"),
        ("/v1/services/none", 404, "no service is called `none`"),
        ("/v1/services/none/forecast", 404, "no service is called `none`"),
        ("/v1/services/%ff", 404, "names are UTF-8"),
        ("/v1/instances?limit=5000", 400, "it takes 1 to 1000"),
    ] {
        let (got, answer) = get(&api, path, "").await;
        assert!(got == status && answer.contains(part), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
    }
    let answer = tell(&api, "/v1/services/web/scale", "", &" ".repeat(100_000)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too long"), "{answer}");
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let api = start(true).await;
    for path in ["/v1/services", "/v1/services/web", "/v1/plan", "/v1/overrides", "/v1/instances", "/v1/sla"]
    {
        let (status, answer) = get(&api, path, "").await;
        let tag = answer.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default().to_owned();
        assert!(status == 200 && tag.len() > 10, "{path}: {answer}");
        let (status, answer) = get(&api, path, &format!("If-None-Match: {tag}\r\n")).await;
        assert!(status == 304 && body(&answer).is_empty(), "{path}: {answer}");
        let (status, _) = get(&api, path, "If-None-Match: \"other\"\r\n").await;
        assert_eq!(status, 200, "{path}");
    }
}

#[tokio::test]
async fn events_begin_with_what_there_is() {
    let folder = Folder::new("events");
    let token = folder.tokens().create("a", Role::Viewer, Some("acme"), None).unwrap();
    let api = Api::start(ANY_PORT, Fake::source(true), folder.guard(false)).await.unwrap();
    let head = "GET /v1/events HTTP/1.1\r\nHost: localhost";
    let all = ask_until(&api, head, |text| text.matches("event: service").count() == 4).await;
    assert!(all.contains("content-type: text/event-stream"), "{all}");
    let head = format!("{head}\r\nAuthorization: Bearer {token}");
    let own = ask_until(&api, &head, |text| text.contains("event: service")).await;
    assert!(own.contains("\"name\":\"acme-shop\"") && !own.contains("rival"), "{own}");
}

#[tokio::test]
async fn listeners_are_bounded() {
    let api = start(true).await;
    let head = "GET /v1/events HTTP/1.1\r\nHost: localhost";
    let mut open = Vec::new();
    for _ in 0..32 {
        let mut stream = tokio::net::TcpStream::connect(api.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut first = [0; 15];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        open.push(stream);
    }
    let answer = ask(&api, head).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("32 listen already"), "{answer}");
}

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let api = start(true).await;
    let (_, answer) = get(&api, "/openapi.json", "").await;
    let document: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/v1/services/{service}/wake"]["post"].is_object());
    let (_, page) = get(&api, "/docs", "").await;
    // It needs nothing from elsewhere.
    assert!(page.contains("/docs/page.js") && !page.contains("https://"), "{page}");
    assert!(page.contains("default-src 'none'"), "{page}");
    let (_, script) = get(&api, "/docs/page.js", "").await;
    assert!(script.contains("text/javascript") && !script.contains("innerHTML"), "{script}");
}

#[tokio::test]
async fn a_service_is_woken_by_the_routers_own_means() {
    let api = start(true).await;
    let answer = tell(&api, "/v1/services/web/wake", "", "").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("web is woken"), "{answer}");
    let answer = tell(&api, "/v1/services/none/wake", "", "").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}
