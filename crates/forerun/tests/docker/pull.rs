//! Images that are not there yet: pulled before anybody needs them, and with progress for those who wait.

use crate::engine::{Engine, FIXTURE, eventually};
use crate::registry::Registry;
use crate::world::{World, forerun};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const COMMAND: [&str; 5] = ["forerun-fixture", "--listen", "0.0.0.0", "--tag", "pulled"];

fn configured(name: &str, registry: &Registry) -> World {
    let world = World::new(name, "");
    world.configure(&format!(
        "[service.web]\nimage = \"{}\"\nready = {{ http = \"/\" }}\nresources = {{ memory = \"64MB\" }}\n",
        registry.image()
    ));
    world
}

fn is_here(engine: &Engine, image: &str) -> bool {
    engine.try_call("GET", &format!("/images/{image}/json"), None).is_ok_and(|answer| answer.status == 200)
}

#[test]
fn an_image_is_pulled_before_anybody_asks_for_it() {
    let Some(engine) = Engine::find() else { return };
    let registry = Registry::serve(&engine, FIXTURE, &COMMAND, Duration::from_millis(100));
    let world = configured("pull-ahead", &registry);
    let host = format!("unix://{}", engine.socket.display());
    let live = world.up_with(&[("DOCKER_HOST", Path::new(&host))]);
    let on_its_way = format!("pulling {}", registry.image());
    eventually("how far it is is told, though nobody waits", SOON, || {
        let status = live.status();
        status["notices"].as_array().unwrap().iter().any(|n| n.as_str().unwrap().starts_with(&on_its_way))
    });
    eventually("the image is here", SOON, || is_here(&engine, &registry.image()));
    eventually("and then no more", SOON, || live.status()["notices"].as_array().unwrap().is_empty());
    assert_eq!(engine.containers(), [], "nobody has asked for anything");
    assert_eq!(registry.layers_asked(), 1);
    let answer = live.get("web.test", "/");
    assert!(
        answer.status == 200 && answer.text().starts_with("pulled"),
        "{}\n{}",
        answer.text(),
        world.log()
    );
    assert_eq!(registry.layers_asked(), 1, "it was here");
    live.has_held();
    drop(live);
    forget_all(&engine, &registry);
}

fn forget_all(engine: &Engine, registry: &Registry) {
    for (name, _) in engine.containers() {
        engine.call("DELETE", &format!("/containers/{name}?force=1"), None);
    }
    engine.call("DELETE", &format!("/images/{}?force=1", registry.image()), None);
}

#[test]
fn who_waits_for_a_pull_sees_how_far_it_is_and_it_is_one_pull_for_all() {
    let Some(engine) = Engine::find() else { return };
    // Some six seconds.
    let registry = Registry::serve(&engine, FIXTURE, &COMMAND, Duration::from_millis(300));
    let world = configured("pull-wait", &registry);
    let host = format!("unix://{}", engine.socket.display());
    let live = world.up_with(&[("DOCKER_HOST", Path::new(&host))]);
    let (mut told, mut printed) = (BTreeSet::new(), String::new());
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| live.get("web.test", "/"))).collect();
        while waiting.iter().any(|asked| !asked.is_finished()) {
            let progress = live.service("web")["progress"].as_str().unwrap_or_default().to_owned();
            if progress.contains('%') && printed.is_empty() {
                printed = forerun(&["status", "--api", &live.api.to_string()]).1;
            }
            told.insert(progress);
            std::thread::sleep(Duration::from_millis(50));
        }
        for asked in waiting {
            let answer = asked.join().unwrap();
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), world.log());
        }
    });
    let shown = told.iter().filter(|p| p.contains(&registry.image()) && p.contains('%')).count();
    assert!(shown >= 3, "how far it is was not told: {told:?}");
    assert!(printed.contains("pulling"), "{printed}");
    assert_eq!(registry.layers_asked(), 1);
    live.until("web", "nothing of the pull is told any more", |s| s["progress"] == "");
    drop(live);
    forget_all(&engine, &registry);
}

#[test]
fn an_image_that_nobody_has_is_said_so() {
    let Some(engine) = Engine::find() else { return };
    let registry = Registry::serve(&engine, FIXTURE, &COMMAND, Duration::ZERO);
    let world = World::new("pull-none", "");
    let missing = registry.image();
    drop(registry);
    world.configure(&format!("[service.web]\nimage = \"{missing}\"\nstart_timeout = \"8s\"\n"));
    let host = format!("unix://{}", engine.socket.display());
    let live = world.up_with(&[("DOCKER_HOST", Path::new(&host))]);
    let answer = live.get("web.test", "/");
    assert!(answer.status >= 500, "{answer:?}");
    live.until("web", "it says why", |s| {
        let why = s["last_failure"].as_str().unwrap_or_default();
        why.contains(&format!("cannot pull `{missing}`")) && why.contains("refused")
    });
    assert_eq!(engine.containers(), []);
}
