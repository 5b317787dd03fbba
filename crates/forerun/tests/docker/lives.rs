//! One state folder and many lives: Forerun is killed while it starts containers, clones and stops them, and so is the
//! daemon. The life that stays has what is configured: nothing lost, doubled or left behind.

use crate::engine::{Engine, eventually, fixture};
use crate::world::{Live, World};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn up(engine: &Engine, world: &World) -> Live {
    let host = format!("unix://{}", engine.socket.display());
    world.up_with(&[("DOCKER_HOST", Path::new(&host))])
}

fn configure(world: &World, count: u32) {
    let bounds = format!(
        "ready = {{ http = \"/\" }}\nresources = {{ memory = \"64MB\" }}\nconcurrency = 100\nmin = {count}\nmax = {count}\n"
    );
    world.configure(&format!(
        "[service.web]\nimage = \"forerun-test/fixture:1\"\nroute = {{ host = \"web.test\" }}\n{bounds}\
         [service.orders]\ncontainer = \"mine\"\nroute = {{ host = \"orders.test\" }}\n{bounds}"
    ));
}

/// Both services have so many, and the engine has those and no other.
fn has(live: &Live, engine: &Engine, world: &World, count: usize) {
    let right = || {
        let ready = |name: &str| live.service(name)["instances"]["ready"].as_u64() == Some(count as u64);
        let there = engine.containers();
        let of =
            |start: &str| there.iter().filter(|(name, s)| name.starts_with(start) && s == "running").count();
        ready("web")
            && ready("orders")
            && of("forerun-web-") == count
            && of("forerun-orders-") + of("mine") == count
            && there.iter().all(|(_, state)| state == "running")
    };
    let start = std::time::Instant::now();
    while !right() {
        assert!(
            start.elapsed() < SOON,
            "not {count} of each: {:?}\n{}\n{}",
            engine.containers(),
            live.status(),
            world.log()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(engine.is_running("mine"), "the person's own is one of them");
}

#[test]
fn a_forerun_killed_at_any_moment_loses_and_doubles_nothing() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("lives", "");
    let mut settings = fixture(&["--ignore-term"], &[]);
    settings["HostConfig"] = json!({"RestartPolicy": {"Name": "no"}});
    engine.create("mine", &settings);
    configure(&world, 3);
    for after_ms in [100, 700, 1_500] {
        let mut live = up(&engine, &world);
        std::thread::sleep(Duration::from_millis(after_ms));
        live.kill();
    }
    let mut live = up(&engine, &world);
    has(&live, &engine, &world, 3);
    let before = ids(&engine);
    live.kill();
    let mut live = up(&engine, &world);
    has(&live, &engine, &world, 3);
    assert_eq!(ids(&engine), before, "what ran was taken over");
    // In the middle of going down from three to one.
    live.kill();
    configure(&world, 1);
    for after_ms in [300, 1_200] {
        let mut live = up(&engine, &world);
        std::thread::sleep(Duration::from_millis(after_ms));
        live.kill();
    }
    let live = up(&engine, &world);
    has(&live, &engine, &world, 1);
    for host in ["web.test", "orders.test"] {
        assert_eq!(live.get(host, "/").status, 200);
    }
    live.has_held();
}

#[test]
fn forerun_and_the_daemon_killed_together() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("both", "");
    engine.create("mine", &fixture(&[], &[]));
    configure(&world, 2);
    let mut live = up(&engine, &world);
    has(&live, &engine, &world, 2);
    live.kill();
    engine.kill_daemon(true);
    // Forerun is there first, as it may be after a machine has started.
    let live = up(&engine, &world);
    std::thread::sleep(Duration::from_millis(500));
    engine.release_daemon();
    has(&live, &engine, &world, 2);
    eventually("requests are served", SOON, || live.get("orders.test", "/").status == 200);
    live.has_held();
}

fn ids(engine: &Engine) -> Vec<Value> {
    let names = engine.containers().into_iter().map(|(name, _)| name);
    names
        .map(|name| json!([engine.inspect(&name)["Id"], engine.inspect(&name)["State"]["StartedAt"]]))
        .collect()
}
