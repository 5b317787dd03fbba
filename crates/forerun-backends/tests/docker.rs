//! The Docker backend against a real engine: the contract that every backend keeps, and what only containers have.
//!
//! The engine is the one that `FORERUN_TEST_DOCKER` names (`unix:///path/to/docker.sock`); without it every case
//! says that it was skipped. Containers are reached by their own addresses, so the tests run in the engine's network
//! namespace.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use forerun_backends::docker;

/// The engine for tests; says loudly that there is none.
fn engine() -> Option<String> {
    let host = std::env::var("FORERUN_TEST_DOCKER").ok();
    if host.is_none() {
        eprintln!("SKIPPED: FORERUN_TEST_DOCKER names no engine (unix:///path/to/docker.sock)");
    }
    host
}

#[test]
fn an_engine_is_described() {
    let Some(host) = engine() else { return };
    let found = docker::discover(Some(&host), None, docker::ENABLE).unwrap();
    assert_eq!((found.host.as_str(), found.kind), (host.as_str(), "Docker"));
    let (major, minor) = found.api.split_once('.').unwrap();
    assert!((major, minor.parse::<u32>().unwrap()) >= ("1", 41), "{}", found.api);
}

#[test]
fn what_cannot_be_reached_is_named() {
    let error = docker::discover(Some("unix:///nowhere/docker.sock"), None, "").unwrap_err().to_string();
    assert!(error.contains("`unix:///nowhere/docker.sock` cannot be reached"), "{error}");
    let error = docker::discover(Some("tcp://127.0.0.1:1"), None, "").unwrap_err().to_string();
    assert!(error.contains("`tcp://127.0.0.1:1` cannot be reached"), "{error}");
}
