//! How a container becomes ready or does not, ends as it should, and gets its key's files.

use crate::direct::{Direct, fixture_service, service};
use crate::engine::{BUSYBOX, Engine, FIXTURE, eventually};
use crate::http::get;
use crate::world::World;
use forerun_types::{Event, Readiness, ServiceId, ServiceSpec, Span, Specialise, Variant};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);
const CHECKED: &str = "forerun-test/checked";

/// An image of the fixture's with a health check of its own, as a `Dockerfile` with `HEALTHCHECK` gives it.
fn checked_image(engine: &Engine) -> String {
    engine.create("base", &json!({"Image": FIXTURE}));
    let check =
        json!({"Healthcheck": {"Test": ["CMD-SHELL", "test -e /tmp/well"], "Interval": 1_000_000_000}});
    engine.call("POST", &format!("/commit?container=base&repo={CHECKED}&tag=1"), Some(&check));
    engine.call("DELETE", "/containers/base", None);
    let image = format!("{CHECKED}:1");
    let found = engine.call("GET", &format!("/images/{image}/json"), None);
    assert_eq!(found["Config"]["Healthcheck"]["Test"][1], "test -e /tmp/well", "{found}");
    image
}

/// Runs a script and then the fixture.
fn scripted(image: &str, script: &str) -> ServiceSpec {
    let script = format!("{script}\nexec forerun-fixture --listen 0.0.0.0");
    ServiceSpec { ready: Readiness::Health, ..service(image, &["sh", "-c", &script]) }
}

#[test]
fn an_images_own_health_check_says_when_it_is_ready() {
    let Some(engine) = Engine::find() else { return };
    let image = checked_image(&engine);
    let world = World::new("healthy", "");
    let direct = Direct::over(&engine, &world.path("state"));
    direct.start(1, &scripted(&image, "(sleep 2; touch /tmp/well) &"));
    let timeout = Span::from_secs(4);
    let never = scripted(&image, "echo still warming up");
    direct.start(2, &ServiceSpec { start_timeout: timeout, ..never });
    let events = direct.until(1, "healthy", SOON, |events| !events.is_empty());
    let [Event::Ready { took, address, .. }] = events[..] else { panic!("{events:?}") };
    assert!(took >= Span::from_secs(2), "it is ready before its check says so: {took}");
    assert_eq!(get(address, "any", "/").unwrap().status, 200);
    let events = direct.until(2, "never healthy", SOON, |events| !events.is_empty());
    let [Event::StartFailed { why, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(why.contains("not ready after 4s") && why.contains("last lines: still warming up"), "{why}");
    direct.ends_clean(&engine);
}

#[test]
fn what_is_there_to_be_done_once_is_completed() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("completed", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let job = |script: &str| ServiceSpec {
        ready: Readiness::None,
        unrouted: true,
        ..service(BUSYBOX, &["sh", "-c", script])
    };
    direct.start(1, &job("echo done"));
    direct.start(2, &job("sleep 1; echo done"));
    direct.start(3, &job("sleep 1; echo no table; exit 3"));
    for id in [1, 2] {
        let events = direct.until(id, "completed", SOON, |events| events.len() == 2);
        assert!(matches!(events[..], [Event::Ready { .. }, Event::Completed { .. }]), "{events:?}");
    }
    let events = direct.until(3, "failed", SOON, |events| events.len() == 2);
    let [Event::Ready { .. }, Event::Died { why, .. }] = &events[..] else { panic!("{events:?}") };
    assert!(why.contains("exit code 3") && why.contains("no table"), "{why}");
    direct.ends_clean(&engine);
}

#[test]
fn a_keys_files_are_in_its_container_before_it_starts() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("files", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let specialise = Specialise {
        files: BTreeMap::from([("/srv/sets/deep/{key}".to_owned(), "1 7\n2 8\n".to_owned())]),
        env: BTreeMap::from([("DATA_SET".to_owned(), "set-{key}".to_owned())]),
        args: vec!["--say".to_owned(), "for {key}".to_owned()],
        preload: vec!["/data/{key}".to_owned()],
        ..Specialise::default()
    };
    let spec = ServiceSpec {
        id: ServiceId(9),
        variant: Some(Variant { of: ServiceId(1), key: "nord".to_owned() }),
        specialise: Some(specialise),
        ready: Readiness::Http { path: "/".to_owned() },
        ..fixture_service(&["--data", "/srv/sets/deep"])
    };
    direct.start(1, &spec);
    let address = direct.ready(1);
    let ask = |path: &str| get(address, "any", path).unwrap().text();
    let first = ask("/data/nord?id=2");
    assert!(
        first.starts_with("hit") && first.contains('8'),
        "it was not loaded before it was ready: {first}"
    );
    assert_eq!((ask("/env?name=DATA_SET"), ask("/env?name=FORERUN_KEY")), ("set-nord".into(), "nord".into()));
    let name = engine.containers()[0].0.clone();
    assert!(engine.log(&name).contains("for nord"), "{}", engine.log(&name));
    eventually("it has one container", SOON, || engine.containers().len() == 1);
    direct.ends_clean(&engine);
}
