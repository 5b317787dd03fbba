//! Who stopped it: a person, or an engine that itself was stopped. The first stays stopped, the second must not.

use crate::direct::{Direct, own_service};
use crate::engine::{Engine, eventually, fixture};
use crate::world::World;
use forerun_types::{Event, ServiceSpec};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A running container of a person's with this restart policy, taken over.
fn adopted(engine: &Engine, world: &World, policy: &str) -> (Direct, ServiceSpec) {
    let mut settings = fixture(&[], &[]);
    settings["HostConfig"] = json!({"RestartPolicy": {"Name": policy}});
    engine.create("mine", &settings);
    engine.start("mine");
    let direct = Direct::over(engine, &world.path("state"));
    let spec = own_service("mine");
    direct.know(&spec);
    let handle = engine.inspect("mine")["Id"].as_str().unwrap().to_owned();
    eventually("it is found", SOON, || direct.told().iter().any(|e| matches!(e, Event::Found { .. })));
    direct.adopt(1, &spec, &handle);
    eventually("it is adopted", SOON, || direct.told().iter().any(|e| matches!(e, Event::IsOwn { .. })));
    (direct, spec)
}

#[test]
fn a_daemon_that_is_stopped_is_nobodys_hand() {
    let Some(engine) = Engine::find() else { return };
    for policy in ["no", "unless-stopped"] {
        let world = World::new("service-stop", "");
        let (direct, _) = adopted(&engine, &world, policy);
        // As `systemctl restart docker` does it: every container gets a SIGTERM of the daemon's.
        engine.terminate_daemon();
        engine.until_up();
        let events = direct.until(1, "its end is told", SOON, |events| !events.is_empty());
        assert!(matches!(events[..], [Event::Died { .. }]), "restart: {policy}: {events:?}");
        if policy == "no" {
            assert!(!engine.is_running("mine"));
        } else {
            // The engine has brought it back, and it is there to be taken over again.
            let found = || direct.told().iter().filter(|e| matches!(e, Event::Found { .. })).count();
            eventually("it is found again", SOON, || found() == 2);
        }
        direct.is_lawful(1);
        drop(direct);
        engine.call("DELETE", "/containers/mine?force=1", None);
    }
}

#[test]
fn what_a_person_stops_is_said_so() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("hand-stop", "");
    let (direct, _) = adopted(&engine, &world, "no");
    engine.stop("mine");
    let events = direct.until(1, "its end is told", SOON, |events| !events.is_empty());
    assert!(
        matches!(&events[..], [Event::StoppedByHand { why, .. }] if why.contains("SIGTERM")),
        "{events:?}"
    );
}
