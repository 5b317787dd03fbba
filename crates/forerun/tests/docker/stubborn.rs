//! A container that does not hear the signal to stop, as a shell that is process 1 does not: a person and Forerun stop
//! it in the same moment, and somebody asks for it just then.

use crate::engine::{Engine, eventually, fixture};
use crate::world::{Live, World, forerun};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// What the container's owner gives it to end: less than the service's `drain_timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// From the moment that it has ended to an answer of its next life, on however busy a machine.
const START: Duration = Duration::from_secs(6);

/// One of a person's own that ignores TERM, and of which nothing is kept.
fn up(engine: &Engine, world: &World, more: &str) -> Live {
    let mut settings = fixture(&["--ignore-term"], &[]);
    settings["StopTimeout"] = STOP_TIMEOUT.as_secs().into();
    engine.create("mine", &settings);
    world.configure(&format!(
        "[sla.brief]\ncold_start_cost = 0.001\n[service.web]\ncontainer = \"mine\"\nport = 8080\n\
         route = {{ host = \"web.test\" }}\nready = {{ http = \"/\" }}\nresources = {{ memory = \"64MB\" }}\n\
         concurrency = 100\nmax = 1\nsla = \"brief\"\n{more}\n"
    ));
    let host = format!("unix://{}", engine.socket.display());
    world.up_with(&[("DOCKER_HOST", Path::new(&host))])
}

/// Who stops it, and who of them is first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stopped {
    ByForerun,
    ThenByHand,
    ByHandBefore,
}

#[test]
fn a_request_waits_no_longer_than_its_owner_lets_it_take_to_end() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("stubborn", "");
    let live = up(&engine, &world, "");
    // Patient, as `docker stop` is.
    let by_hand = || engine.call("POST", "/containers/mine/stop?t=10", None);
    let stopping = || live.service("web")["instances"]["draining"] == 1;
    for stopped in [Stopped::ByForerun, Stopped::ThenByHand, Stopped::ByHandBefore] {
        assert_eq!(live.get("web.test", "/").status, 200, "{}", world.log());
        std::thread::scope(|scope| {
            if stopped == Stopped::ByHandBefore {
                scope.spawn(by_hand);
            }
            eventually("forerun stops it", SOON, stopping);
            let began = Instant::now();
            if stopped == Stopped::ThenByHand {
                scope.spawn(by_hand);
            }
            let answer = live.get("web.test", "/");
            let took = began.elapsed();
            assert_eq!(answer.status, 200, "{stopped:?}: {}\n{}", answer.text(), world.log());
            assert!(took < STOP_TIMEOUT + START, "{stopped:?}: {took:?}: {}", world.log());
            // Its next life is its own: a second one beside it would share its mounts.
            assert_eq!(engine.containers().len(), 1, "{stopped:?}: {:?}", engine.containers());
        });
        eventually("it sleeps again", SOON, || !engine.is_running("mine"));
    }
    // Each of them took as long as it was let, and it is said how that is mended.
    world.logs("did not end within 2 s of the signal to stop");
    live.has_held();
}

/// What is up for another reason than the plan's says so.
#[test]
fn what_says_that_it_is_busy_stays_up_and_that_is_told() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("busy", "");
    let live = up(&engine, &world, "busy = { command = \"true\" }");
    assert_eq!(live.get("web.test", "/").status, 200, "{}", world.log());
    let told = "not stopped, it is busy: its busy command ended with exit code 0";
    live.until("web", "kept", |s| s["reason"].as_str().is_some_and(|reason| reason.contains(told)));
    let (code, out, err) = forerun(&["explain", "web", "--api", &live.api.to_string()]);
    assert!(code == Some(0) && out.contains(told), "{out}{err}");
    assert!(engine.is_running("mine"));
    live.has_held();
}
