//! The API over real TCP, asked by hand.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Fake, ask, start, tell};
use forerun_api::{Api, ApiError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn every_path_answers() {
    let api = start(true).await;
    for (line, status, parts) in [
        ("GET /healthz", "200 OK", &["ok\n"][..]),
        ("GET /readyz", "200 OK", &["ok\n"]),
        (
            "GET /metrics",
            "200 OK",
            &["application/openmetrics-text; version=1.0.0", "forerun_requests_total{", "# EOF\n"],
        ),
        (
            "GET /v1/status",
            "200 OK",
            &["application/json", "\"version\":\"1.2.3\"", "\"p99\":1.5", "\"next_change\":null"],
        ),
        (
            "GET /nothing",
            "404 Not Found",
            &["application/problem+json", "\"status\":404", "nothing at /nothing"],
        ),
        ("POST /metrics", "405 Method Not Allowed", &["application/problem+json", "allow: GET", "use GET"]),
        ("DELETE /v1/status", "405 Method Not Allowed", &["DELETE is not for this path"]),
    ] {
        let answer = ask(&api, &format!("{line} HTTP/1.1\r\nHost: localhost")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {answer}");
        for part in parts {
            assert!(answer.contains(part), "{line}: {part} is not in {answer}");
        }
    }
    api.stop().await;
}

#[tokio::test]
async fn readiness_gives_its_reason() {
    let api = start(false).await;
    let answer = ask(&api, "GET /readyz HTTP/1.1\r\nHost: localhost").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("the first route table is not there yet"), "{answer}");
}

#[tokio::test]
async fn foreign_host_names_are_refused() {
    let api = start(true).await;
    let answer = ask(&api, "GET /v1/status HTTP/1.1\r\nHost: rebind.example:7070").await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("1.2.3"), "{answer}");
    // HTTP/1.0 has no Host.
    assert!(ask(&api, "GET /healthz HTTP/1.0").await.starts_with("HTTP/1.0 200 OK"));
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_does_not_end_the_api() {
    let api = start(true).await;
    assert!(ask(&api, "\x16\x03\x01 hello").await.starts_with("HTTP/1.1 400 "));
    let long = "x".repeat(1 << 20);
    let mut stream = TcpStream::connect(api.address()).await.unwrap();
    // The server may hang up in the middle of it.
    let _ = stream.write_all(format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await;
    drop(stream);
    assert!(ask(&api, "GET /healthz HTTP/1.1\r\nHost: localhost").await.contains("200 OK"));
}

#[tokio::test]
async fn only_free_ports_are_bound() {
    let first = start(true).await;
    let folder = common::Folder::new("taken");
    let error = Api::start(first.address(), Fake::source(true), folder.guard(false)).await.unwrap_err();
    assert!(matches!(error, ApiError::Bind { .. }));
    assert!(error.to_string().contains("cannot listen on 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn stop_ends_in_time_with_a_silent_client() {
    let api = start(true).await;
    let address = api.address();
    let silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHos").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), api.stop()).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    drop((silent, half));
}

#[tokio::test]
async fn orders_are_taken_from_people_and_not_from_pages() {
    let api = start(true).await;
    for (path, more, body, status, part) in [
        ("/v1/services/web/pause", "", "", "200 OK", "\"said\":\"Pause\""),
        ("/v1/services/web/scale", "", "{\"instances\":2}", "200 OK", "instances: 2, hold: None"),
        ("/v1/services/web/scale", "", "two", "400 Bad Request", "send {\\\"instances\\\": 2}"),
        ("/v1/services/wbe/act", "", "", "404 Not Found", "no service is called `wbe`; did you mean `web`?"),
        ("/v1/services/web/kill", "", "", "404 Not Found", "nothing at /v1/services/web/kill"),
        ("/v1/services/web/pause", "Origin: http://localhost:7070\r\n", "", "200 OK", "Pause"),
        ("/v1/services/web/pause", "Sec-Fetch-Site: same-origin\r\n", "", "200 OK", "Pause"),
        (
            "/v1/services/web/pause",
            "Sec-Fetch-Site: cross-site\r\n",
            "",
            "403 Forbidden",
            "other sites' pages",
        ),
        (
            "/v1/services/web/scale",
            "Content-Type: text/plain\r\n",
            "{\"instances\":2}",
            "415 Unsupported Media Type",
            "send Content-Type: application/json",
        ),
        (
            "/v1/services/web/pause",
            "Origin: https://evil.example\r\n",
            "",
            "403 Forbidden",
            "other sites' pages",
        ),
        ("/v1/services/web/pause", "Origin: null\r\n", "", "403 Forbidden", "other sites' pages"),
    ] {
        let answer = tell(&api, path, more, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path} {more}: {answer}");
        assert!(answer.contains(part), "{path} {more}: {answer}");
    }
    let answer = ask(&api, "GET /v1/services/web/pause HTTP/1.1\r\nHost: localhost").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn what_the_router_answers_is_passed_on() {
    let api = start(true).await;
    // A proxy that asks first may say whose request it asks about.
    let answer = ask(&api, "GET /v1/wake HTTP/1.1\r\nHost: shop.example").await;
    assert!(
        answer.starts_with("HTTP/1.1 202 ") && answer.ends_with("/v1/wake 127.0.0.1 shop.example None"),
        "{answer}"
    );
    let answer = ask(&api, "GET /v1/wakeful HTTP/1.1\r\nHost: shop.example").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "no other path may: {answer}");
    let answer = ask(&api, "GET /v1/other HTTP/1.1\r\nHost: localhost").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("nothing at /v1/other"), "{answer}");
}
