//! Who gets in, to what, and what is logged of it: over real TCP.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ANY_PORT, Fake, Folder, ask, tell};
use forerun_api::{Api, ApiError, AuditLog, Role};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const EVERYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// An API that needs a token.
async fn locked(folder: &Folder) -> Api {
    folder.tokens().create("keep", Role::Viewer, None, None).unwrap();
    Api::start(ANY_PORT, Fake::source(true), folder.guard(true)).await.unwrap()
}

async fn get(api: &Api, path: &str, token: &str) -> String {
    ask(api, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}")).await
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn without_a_token_nobody_else_is_let_in() {
    let folder = Folder::new("none");
    for (listen, needed) in [(EVERYWHERE, false), (EVERYWHERE, true), (ANY_PORT, true)] {
        let error = Api::start(listen, Fake::source(true), folder.guard(needed)).await.unwrap_err();
        assert!(matches!(error, ApiError::NoToken(_)), "{error}");
        assert!(error.to_string().contains("forerun token create admin --role admin"), "{error}");
    }
    // One that has ended is none.
    folder.tokens().create("old", Role::Admin, None, Some(Duration::ZERO)).unwrap();
    assert!(Api::start(EVERYWHERE, Fake::source(true), folder.guard(false)).await.is_err());
    let token = folder.tokens().create("a", Role::Viewer, None, None).unwrap();
    let api = Api::start(EVERYWHERE, Fake::source(true), folder.guard(false)).await.unwrap();
    // Whoever asks, from this machine too.
    let answer = ask(&api, "GET /v1/status HTTP/1.1\r\nHost: localhost").await;
    assert_eq!(status(&answer), 401, "{answer}");
    assert!(answer.contains("www-authenticate: Bearer") && answer.contains("forerun token create NAME"));
    assert_eq!(status(&get(&api, "/v1/status", &token).await), 200);
    assert_eq!(status(&ask(&api, "GET /healthz HTTP/1.1\r\nHost: forerun.example").await), 200);
    // No name is somebody else's where a token is needed.
    let named = format!("GET /v1/status HTTP/1.1\r\nHost: forerun.example\r\nAuthorization: Bearer {token}");
    assert_eq!(status(&ask(&api, &named).await), 200);
}

#[tokio::test]
async fn tokens_come_and_go_without_a_restart() {
    let folder = Folder::new("turn");
    let api = locked(&folder).await;
    let tokens = folder.tokens();
    let first = tokens.create("ci", Role::Viewer, None, None).unwrap();
    assert_eq!(status(&get(&api, "/v1/status", &first).await), 200);
    let second = tokens.rotate("ci", Duration::ZERO).unwrap();
    assert_eq!(status(&get(&api, "/v1/status", &first).await), 401);
    assert_eq!(status(&get(&api, "/v1/status", &second).await), 200);
    tokens.revoke("ci").unwrap();
    let answer = get(&api, "/v1/status", &second).await;
    assert!(status(&answer) == 401 && answer.contains("may have been revoked"), "{answer}");
    // What cannot be trusted lets nobody in.
    let third = tokens.create("ci", Role::Viewer, None, None).unwrap();
    let path = folder.0.join("tokens.json");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let answer = get(&api, "/v1/status", &third).await;
    assert!(status(&answer) == 503 && answer.contains("tokens cannot be read"), "{answer}");
}

#[tokio::test]
async fn other_peoples_credentials_pass_by() {
    let folder = Folder::new("pass");
    let token = folder.tokens().create("proxy", Role::Operator, None, None).unwrap();
    let api = Api::start(ANY_PORT, Fake::source(true), folder.guard(true)).await.unwrap();
    // A proxy asks with its user's credentials and a token of its own: the router gets the first and not the second.
    let both = format!(
        "GET /v1/wake HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer user\r\nForerun-Token: {token}"
    );
    let answer = ask(&api, &both).await;
    assert!(
        status(&answer) == 202 && answer.contains("Bearer user") && !answer.contains("forerun_"),
        "{answer}"
    );
    let answer = get(&api, "/v1/wake", &token).await;
    assert!(status(&answer) == 202 && answer.ends_with("None"), "{answer}");
    assert_eq!(status(&get(&api, "/v1/wake", "user").await), 401);
    // On a loopback address that needs none, they are nobody's business; a token of Forerun's still is.
    let open = common::start(true).await;
    assert_eq!(status(&get(&open, "/v1/status", "user").await), 200);
    assert_eq!(status(&get(&open, "/v1/status", "forerun_00").await), 401);
}

#[tokio::test]
async fn a_page_that_knows_no_token_gets_nothing() {
    let folder = Folder::new("page");
    let token = folder.tokens().create("ops", Role::Operator, None, None).unwrap();
    let api = Api::start(ANY_PORT, Fake::source(true), folder.guard(true)).await.unwrap();
    let more = |origin: &str| format!("Origin: {origin}\r\nAuthorization: Bearer {token}\r\n");
    for (origin, expect) in [("http://localhost", 200), ("https://evil.example", 403), ("null", 403)] {
        let answer = tell(&api, "/v1/services/web/pause", &more(origin), "").await;
        assert_eq!(status(&answer), expect, "{origin}: {answer}");
    }
    // A cookie is no token.
    let answer = tell(&api, "/v1/services/web/pause", &format!("Cookie: token={token}\r\n"), "").await;
    assert_eq!(status(&answer), 401, "{answer}");
}

#[tokio::test]
async fn every_change_is_logged_and_no_question() {
    let folder = Folder::new("audit");
    let operator = folder.tokens().create("ops", Role::Operator, None, None).unwrap();
    let viewer = folder.tokens().create("eyes", Role::Viewer, None, None).unwrap();
    let admin = folder.tokens().create("root", Role::Admin, None, None).unwrap();
    let api = Api::start(ANY_PORT, Fake::source(true), folder.guard(true)).await.unwrap();
    let by = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let body = "{\"instances\":2,\"for_seconds\":3600}";
    tell(&api, "/v1/services/web/scale", &by(&operator), body).await;
    tell(&api, "/v1/services/none/pause", &by(&operator), "").await;
    tell(&api, "/v1/services/web/pause", &by(&viewer), "").await;
    tell(&api, "/v1/services/web/pause", "", "").await;
    get(&api, "/v1/status", &viewer).await;
    let log = AuditLog::of(&folder.0).last(10).unwrap();
    let told: Vec<String> =
        log.iter().map(|e| format!("{}, {}: {} ({}, {})", e.who, e.role, e.what, e.result, e.from)).collect();
    assert_eq!(
        told,
        [
            "token eyes, viewer: POST /v1/services/web/pause (403 Forbidden, 127.0.0.1)",
            "token ops, operator: pause none (404 Not Found, 127.0.0.1)",
            "token ops, operator: scale web to 2 for 60m (done, 127.0.0.1)",
        ]
    );
    assert_eq!(status(&get(&api, "/v1/audit", &operator).await), 403);
    let answer = get(&api, "/v1/audit", &admin).await;
    assert!(status(&answer) == 200 && answer.contains("scale web to 2 for 60m"), "{answer}");
    let mode = std::fs::metadata(folder.0.join("audit.jsonl")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}
