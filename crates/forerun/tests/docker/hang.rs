//! A daemon that hangs: it takes connections, and says nothing. Every order has its deadline, what is warm is served,
//! and when the daemon goes on, what is there is what is known.

use crate::direct::{Direct, fixture_service};
use crate::engine::{Engine, eventually};
use crate::http::get;
use crate::world::World;
use forerun_backends::docker;
use forerun_types::{Busy, Event, ServiceSpec, Span};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(45);
/// No warm request takes so long, on however busy a machine.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn every_order_to_a_daemon_that_hangs_has_its_deadline() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("hang", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let spec = fixture_service(&[]);
    (1..=3).for_each(|id| direct.start(id, &spec));
    let warm = direct.ready(1);
    (2..=3).for_each(|id| _ = direct.ready(id));
    engine.freeze_daemon();
    let began = Instant::now();
    let timeout = Span::from_secs(5);
    direct.start(4, &ServiceSpec { start_timeout: timeout, ..spec.clone() });
    direct.stop(2, Span::from_secs(1));
    direct.pause(3);
    let busy = Some(Busy::Command(vec!["false".to_owned()]));
    direct.ask_busy(1, &ServiceSpec { busy, ..spec });
    // What cannot be asked counts as busy, and is not waited for.
    let events = direct.until(1, "the busy answer", Duration::from_secs(8), |events| events.len() == 2);
    assert!(matches!(events[1], Event::BusyAnswer { busy: true, .. }), "{events:?}");
    // A connection of somebody new has its deadline too, and the error names the engine.
    let host = format!("unix://{}", engine.socket.display());
    let error = docker::discover(Some(&host), None, "").unwrap_err().to_string();
    assert!(error.contains(&host) && error.contains("did not answer within 10 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let asked = Instant::now();
    assert_eq!(get(warm, "any", "/").unwrap().status, 200);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    engine.thaw_daemon();
    let events = direct.until(4, "its start ends", SOON, |events| !events.is_empty());
    assert!(
        matches!(&events[..], [Event::StartFailed { why, .. }] if why.contains("not ready after 5s")),
        "{events:?}"
    );
    direct.until(2, "it is stopped", SOON, |events| matches!(events.last(), Some(Event::Stopped { .. })));
    direct.until(3, "it is paused", SOON, |events| matches!(events.last(), Some(Event::Paused { .. })));
    (1..=4).for_each(|id| direct.is_lawful(id));
    eventually("what was not wanted any more is removed", SOON, || engine.containers().len() == 2);
    direct.ends_clean(&engine);
}

#[test]
fn starts_that_a_hanging_daemon_interrupts_are_finished_once() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("interrupted", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let mut next = 1;
    for after_ms in [30, 400] {
        let ids = next..next + 4;
        next += 4;
        ids.clone().for_each(|id| direct.start(id, &fixture_service(&[])));
        std::thread::sleep(Duration::from_millis(after_ms));
        engine.freeze_daemon();
        // Longer than a ping may take: the connection counts as lost, with calls on their way.
        std::thread::sleep(Duration::from_secs(12));
        engine.thaw_daemon();
        ids.clone().for_each(|id| _ = direct.ready(id));
        ids.for_each(|id| direct.is_lawful(id));
        let made = engine.containers();
        assert_eq!(made.len() as u64, next - 1, "one container for each: {made:?}");
        assert!(made.iter().all(|(_, state)| state == "running"), "{made:?}");
    }
    direct.ends_clean(&engine);
}

#[test]
fn warm_requests_go_on_and_cold_ones_are_served_when_the_daemon_does() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("warm", "");
    let service = |name: &str, more: &str| {
        format!(
            "[service.{name}]\nimage = \"forerun-test/fixture:1\"\nroute = {{ host = \"{name}.test\" }}\n\
             ready = {{ http = \"/\" }}\nresources = {{ memory = \"64MB\" }}\nconcurrency = 100\n{more}\n"
        )
    };
    world.configure(&(service("warm", "min = 2") + &service("cold", "max = 1")));
    let host = format!("unix://{}", engine.socket.display());
    let live = world.up_with(&[("DOCKER_HOST", Path::new(&host))]);
    live.ready("warm", 2);
    engine.freeze_daemon();
    std::thread::scope(|scope| {
        let cold = scope.spawn(|| live.get("cold.test", "/"));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(12) {
            let asked = Instant::now();
            assert_eq!(live.get("warm.test", "/").status, 200);
            assert!(asked.elapsed() < AT_ONCE, "a warm request took {:?}", asked.elapsed());
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(world.log().contains("did not answer within"), "{}", world.log());
        engine.thaw_daemon();
        let answer = cold.join().unwrap();
        assert_eq!(answer.status, 200, "{}\n{}", answer.text(), world.log());
    });
    live.ready("warm", 2);
    live.ready("cold", 1);
    eventually("there is what is known, and no more", SOON, || engine.containers().len() == 3);
    live.has_held();
}
