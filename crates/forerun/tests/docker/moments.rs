//! Deaths in the middle: of the daemon, and of a container, while something is started, stopped, cloned or given to a
//! key. Whatever the moment, an instance begins once and ends once, and the engine has what is known and no more.

use crate::direct::{Direct, fixture_service, own_service};
use crate::engine::{Engine, eventually, fixture};
use crate::world::{World, processes, send};
use forerun_types::{Event, Hook, ServiceId, ServiceSpec, Span, Specialise, Variant};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// The service of the fixture for a key, which a command of so many seconds in the container makes an instance's.
fn for_a_key(flags: &[&str], secs: &str) -> ServiceSpec {
    let hook = Some(Hook::Command(vec!["sleep".to_owned(), secs.to_owned()]));
    ServiceSpec {
        id: ServiceId(2),
        variant: Some(Variant { of: ServiceId(1), key: "nord".to_owned() }),
        specialise: Some(Specialise { hook, ..Specialise::default() }),
        ..fixture_service(flags)
    }
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::StartFailed { .. } | Event::Died { .. } | Event::Stopped { .. })
}

/// What is known is what runs.
fn agrees(direct: &Direct, engine: &Engine, what: &str) {
    let start = Instant::now();
    loop {
        let (known, there) = (direct.running().len(), engine.containers());
        let up = there.iter().filter(|(_, state)| state == "running").count();
        if known == up && there.len() == up {
            return;
        }
        assert!(start.elapsed() < SOON, "{what}: {known} are known of {there:?}: {:?}", direct.told());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn kill_after(engine: &Engine, after_ms: u64) {
    std::thread::sleep(Duration::from_millis(after_ms));
    engine.kill_daemon(false);
    engine.until_up();
}

#[test]
fn a_daemon_killed_in_the_middle_of_starts() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("killed-start", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let mut last = 0;
    for after_ms in [10, 150, 500] {
        let ids = last + 1..=last + 3;
        last += 3;
        ids.clone().for_each(|id| direct.start(id, &fixture_service(&[])));
        kill_after(&engine, after_ms);
        for id in ids {
            let events = direct.until(id, "its start ends", SOON, |events| !events.is_empty());
            assert!(matches!(events[0], Event::Ready { .. } | Event::StartFailed { .. }), "{events:?}");
        }
        agrees(&direct, &engine, &format!("killed {after_ms} ms into starts"));
    }
    (1..=last).for_each(|id| direct.is_lawful(id));
    let by_hand = |event: &Event| matches!(event, Event::StoppedByHand { .. });
    assert!(!direct.told().iter().any(by_hand), "nobody's hand was in it: {:?}", direct.told());
    direct.ends_clean(&engine);
}

#[test]
fn a_daemon_killed_in_the_middle_of_stops() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("killed-stop", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let mut last = 0;
    for after_ms in [5, 100, 700] {
        let ids = last + 1..=last + 2;
        last += 2;
        ids.clone().for_each(|id| direct.start(id, &fixture_service(&["--ignore-term"])));
        ids.clone().for_each(|id| _ = direct.ready(id));
        ids.clone().for_each(|id| direct.stop(id, Span::from_millis(500)));
        kill_after(&engine, after_ms);
        for id in ids {
            let events = direct.until(id, "it is over", SOON, |events| events.len() > 1);
            assert!(matches!(events[..], [Event::Ready { .. }, Event::Stopped { .. }]), "{events:?}");
            direct.is_lawful(id);
        }
        agrees(&direct, &engine, &format!("killed {after_ms} ms into stops"));
    }
    direct.ends_clean(&engine);
}

#[test]
fn a_daemon_killed_in_the_middle_of_clones_and_of_keys() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("killed-clone", "");
    engine.create("mine", &fixture(&[], &[]));
    let direct = Direct::over(&engine, &world.path("state"));
    let spec = own_service("mine");
    direct.know(&spec);
    let mut last = 0;
    for after_ms in [40, 400] {
        let ids = last + 1..=last + 3;
        last += 3;
        // The first has the person's own container where it is free, the others are made like it.
        ids.clone().for_each(|id| direct.start(id, &spec));
        kill_after(&engine, after_ms);
        for id in ids {
            direct.until(id, "its start ends", SOON, |events| !events.is_empty());
        }
        for id in direct.running() {
            direct.stop(id, Span::from_secs(2));
        }
        eventually("all have ended", SOON, || direct.running().is_empty());
        // The person's own may be one that the engine died in the middle of starting: it is left as it is.
        eventually("the clones are removed, and the person's own is not", SOON, || {
            let left = engine.containers();
            matches!(&left[..], [(name, state)] if name == "mine" && ["exited", "created"].contains(&state.as_str()))
        });
        (1..=last).for_each(|id| direct.is_lawful(id));
    }
    engine.call("DELETE", "/containers/mine", None);
    let key = for_a_key(&[], "2");
    for after_ms in [20, 600] {
        last += 1;
        direct.start(last, &fixture_service(&[]));
        direct.ready(last);
        direct.specialise(last, &key);
        kill_after(&engine, after_ms);
        let events = direct.until(last, "it has ended", SOON, |events| events.last().is_some_and(is_end));
        assert!(!events.iter().any(|e| matches!(e, Event::StoppedByHand { .. })), "{events:?}");
        direct.is_lawful(last);
        agrees(&direct, &engine, &format!("killed {after_ms} ms into a key"));
    }
    direct.ends_clean(&engine);
}

#[test]
fn a_container_killed_at_any_moment_ends_once() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("killed-container", "");
    let direct = Direct::over(&engine, &world.path("state"));
    let tag = world.tag.as_str();
    let pid_of = |flag: &str| {
        let main = || processes(tag).into_iter().find(|(_, words)| words.contains(flag)).map(|(pid, _)| pid);
        eventually("its process is there", SOON, || main().is_some());
        main().unwrap()
    };
    // While it starts.
    direct.start(1, &fixture_service(&["--start-delay", "20000", "--tag", tag, "--say", "in-start"]));
    send("KILL", pid_of("in-start"));
    let events = direct.until(1, "its start ends", SOON, |events| !events.is_empty());
    assert!(
        matches!(&events[..], [Event::StartFailed { why, .. }]
            if why.contains("ended before it was ready") && why.contains("SIGKILL")),
        "{events:?}"
    );
    // While it is ready, while it stops, and while it becomes a key's.
    for (id, flag) in [(2, "in-peace"), (3, "in-stop"), (4, "in-key")] {
        direct.start(id, &fixture_service(&["--ignore-term", "--tag", tag, "--say", flag]));
        direct.ready(id);
        match id {
            3 => direct.stop(id, Span::from_secs(20)),
            4 => direct.specialise(id, &for_a_key(&[], "20")),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(400));
        send("KILL", pid_of(flag));
        let killed = Instant::now();
        let events = direct.until(id, "it has ended", SOON, |events| events.last().is_some_and(is_end));
        assert!(killed.elapsed() < Duration::from_secs(10), "{flag}: {:?}", killed.elapsed());
        match (id, events.last()) {
            (3, Some(Event::Stopped { .. })) => {}
            (2 | 4, Some(Event::Died { why, .. })) => assert!(why.contains("137"), "{why}"),
            _ => panic!("{flag}: {events:?}"),
        }
        direct.is_lawful(id);
        agrees(&direct, &engine, flag);
    }
    direct.is_lawful(1);
    direct.ends_clean(&engine);
}
