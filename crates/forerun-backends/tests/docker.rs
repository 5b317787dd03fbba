//! The Docker backend against a real engine: the contract that every backend keeps, and what only containers have.
//!
//! The engine is the one that `FORERUN_TEST_DOCKER` names (`unix:///path/to/docker.sock`), with the image
//! `forerun-test/fixture:1`; without it every case says that it was skipped. Containers are reached by their own
//! addresses, so the tests run in the engine's network namespace.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod contract;

use contract::World;
use forerun_backends::docker;
use forerun_backends::{Backend, DockerBackend, DockerSettings, Sink};
use forerun_types::{Container, Launch, ServiceId, ServiceSpec, Span};
use std::fs;
use std::time::Duration;

const IMAGE: &str = "forerun-test/fixture:1";
/// The first process of a container gets no signal that it does not handle. This one hands on what it gets, and ends
/// as its child does.
const INIT: &str = "\"$@\" & p=$!; trap 'kill -TERM $p' TERM INT; wait $p; c=$?; \
                    while kill -0 $p 2>/dev/null; do wait $p; c=$?; done; exit $c";

/// The engine for tests; says loudly that there is none.
fn engine() -> Option<String> {
    let host = std::env::var("FORERUN_TEST_DOCKER").ok();
    if host.is_none() {
        eprintln!("SKIPPED: FORERUN_TEST_DOCKER names no engine (unix:///path/to/docker.sock)");
    }
    host
}

struct Containers;

impl World for Containers {
    fn available(&self) -> bool {
        engine().is_some()
    }

    fn many_within(&self) -> Duration {
        // An engine starts one to three a second on two cores, however small the program, and the backend gives it two
        // for each core at a time.
        Duration::from_secs(120)
    }

    fn short(&self) -> Span {
        Span::from_secs(5)
    }

    fn shares_ports(&self) -> bool {
        false
    }

    fn has_folders(&self) -> bool {
        false
    }

    fn backend(&self, sink: Sink, limit_memory: bool) -> Box<dyn Backend> {
        let settings = DockerSettings { host: engine(), limit: limit_memory, ..DockerSettings::default() };
        Box::new(DockerBackend::start(settings, sink).unwrap())
    }

    fn spec(&self, flags: &[&str]) -> ServiceSpec {
        spec(&[&["sh", "-c", INIT, "sh", "forerun-fixture", "--listen", "0.0.0.0"], flags].concat())
    }

    fn not_runnable(&self) -> Vec<(ServiceSpec, &'static str)> {
        let image = |image: &str| {
            let launch = Launch::Container(Container { image: image.to_owned(), ..Container::default() });
            ServiceSpec { launch, ..spec(&[]) }
        };
        let own =
            Launch::Container(Container { own: Some("nobody-made-it".to_owned()), ..Container::default() });
        vec![
            (spec(&["/nowhere/at/all"]), "/nowhere/at/all"),
            (spec(&["no-such-command-anywhere"]), "executable file not found in $PATH"),
            (spec(&["/etc"]), "permission denied"),
            (image(""), "names neither a container nor an image"),
            (image("forerun-test/no-such-image:1"), "cannot pull `forerun-test/no-such-image:1`"),
            (ServiceSpec { launch: own, ..spec(&[]) }, "the container `nobody-made-it` does not exist"),
        ]
    }

    fn without_folder(&self) -> ServiceSpec {
        unreachable!("containers have no working folders of the machine's")
    }

    fn processes(&self, tag: &str) -> Vec<u32> {
        living(tag)
    }
}

fn spec(command: &[&str]) -> ServiceSpec {
    let container = Container {
        image: IMAGE.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        ..Container::default()
    };
    ServiceSpec {
        backend: "docker".to_owned(),
        launch: Launch::Container(container),
        start_timeout: Span::from_secs(28),
        ..ServiceSpec::named(ServiceId(1), "fixture")
    }
}

/// Processes whose arguments hold the tag and that are not dead, but for the shell in front.
fn living(tag: &str) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut args = args.split(|byte| *byte == 0);
        args.next() != Some(b"sh") && args.any(|arg| arg == tag.as_bytes())
    })
    .collect()
}

contract::contract!(crate::Containers);

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
