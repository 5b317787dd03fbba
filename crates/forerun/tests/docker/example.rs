//! `examples/compose/` by its README's words: brought up by Docker Compose itself, from images made on the spot.

use crate::engine::{BUSYBOX, Engine, FIXTURE, eventually};
use crate::world::{Live, PATIENCE, World, forerun};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Long enough for anything that would happen by itself to have happened.
const A_WHILE: Duration = Duration::from_secs(3);
const ASLEEP_WITHIN: Duration = Duration::from_secs(90);
/// From the start of the stand-in for a database until its health check says so.
const DATABASE_SECONDS: f64 = 1.5;
const SERVICES: [&str; 6] = ["admin", "api", "cache", "db", "orders", "web"];

/// Only what a test needs: free ports, a folder of its own, and cold starts so cheap that nothing is kept for long.
const CONFIG: &str = "[router]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
                      [store]\nfolder = \"state\"\nflush_interval = \"50ms\"\n\
                      [site.local]\ncapacity = { memory = \"8GB\" }\n[sla.default]\ncold_start_cost = 0.001\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/compose")
}

/// Docker Compose, with the engine and the project's file.
struct Compose<'a> {
    program: PathBuf,
    engine: &'a Engine,
    world: &'a World,
}

impl Compose<'_> {
    fn run(&self, args: &[&str]) -> String {
        let host = format!("unix://{}", self.engine.socket.display());
        let output = Command::new(&self.program)
            .args(["--file", "compose.yaml"])
            .args(args)
            .current_dir(&self.world.folder)
            .env("DOCKER_HOST", host)
            .env("DOCKER_CONFIG", &self.world.folder)
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "compose {args:?}: {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// An image that is called `name`: what `script` does in another one, with a command and a port.
fn image(engine: &Engine, name: &str, from: &str, script: &str, command: &[&str], port: u16) {
    engine.create("making", &json!({"Image": from, "Cmd": ["sh", "-c", script]}));
    engine.start("making");
    let waited = engine.call("POST", "/containers/making/wait", None);
    assert_eq!(waited["StatusCode"], 0, "{name}: {script}");
    let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let exposed: Value =
        [(format!("{port}/tcp"), json!({}))].into_iter().collect::<serde_json::Map<_, _>>().into();
    let path = format!("/commit?container=making&repo={repository}&tag={tag}");
    engine.call("POST", &path, Some(&json!({"Cmd": command, "ExposedPorts": exposed})));
    engine.call("DELETE", "/containers/making?force=1", None);
}

/// Stand-ins for the images that the file names: they listen where those do.
fn images(engine: &Engine) {
    image(
        engine,
        "nginx:1.27",
        BUSYBOX,
        "echo the shop > /www/index.html",
        &["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"],
        80,
    );
    for name in ["api", "orders"] {
        let command = ["forerun-fixture", "--listen", "0.0.0.0", "--port", "8080", "--tag", name];
        image(engine, &format!("example/shop-{name}"), FIXTURE, "true", &command, 8080);
    }
    // As process 1 it would not hear the signal to stop.
    let admin = ["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 3000 -h /www & wait"];
    image(engine, "example/shop-admin", BUSYBOX, "echo admin > /www/index.html", &admin, 3000);
    let cache = ["sh", "-c", "trap 'exit 0' TERM; httpd -f -p 6379 & wait"];
    image(engine, "valkey/valkey:8", BUSYBOX, "true", &cache, 6379);
    let script = "printf '#!/bin/sh\\ntest -f /tmp/ready\\n' > /bin/pg_isready && chmod +x /bin/pg_isready";
    let serve = format!(
        "trap 'exit 0' TERM; rm -f /tmp/ready; sleep {DATABASE_SECONDS}; touch /tmp/ready; httpd -f -p 5432 & wait"
    );
    let database = ["sh", "-c", &serve];
    image(engine, "postgres:17", BUSYBOX, script, &database, 5432);
}

fn remove_images(engine: &Engine) {
    for name in [
        "nginx:1.27",
        "example/shop-api",
        "example/shop-orders",
        "example/shop-admin",
        "valkey/valkey:8",
        "postgres:17",
    ] {
        engine.call("DELETE", &format!("/images/{name}?force=1"), None);
    }
}

fn container(service: &str) -> String {
    format!("shop-{service}-1")
}

fn running(engine: &Engine) -> Vec<&'static str> {
    SERVICES.into_iter().filter(|name| engine.is_running(&container(name))).collect()
}

fn began(engine: &Engine, service: &str) -> String {
    engine.inspect(&container(service))["State"]["StartedAt"].as_str().unwrap_or_default().to_owned()
}

fn tell(live: &Live, words: &[&str]) -> String {
    let api = live.api.to_string();
    let (code, out, err) = forerun(&[words, &["--api", &api]].concat());
    assert_eq!(code, Some(0), "forerun {words:?}: {out}{err}");
    out
}

/// All six, as the status has them.
fn known(live: &Live, world: &World, what: &str, fits: impl Fn(&Value) -> bool) {
    let start = Instant::now();
    loop {
        let status = live.status();
        let services = status["services"].as_array().unwrap();
        let is_known = |name: &&str| services.iter().any(|s| s["name"] == format!("shop-{name}") && fits(s));
        if SERVICES.iter().all(is_known) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "not all six are {what}: {status}\n{}", world.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn six_lines_are_forerun_s_and_the_rest_is_a_project_of_anyone() {
    let text = fs::read_to_string(folder().join("compose.yaml")).unwrap();
    let ours: Vec<&str> = text.lines().filter(|line| line.contains("forerun.")).collect();
    assert_eq!(ours.len(), 6, "{ours:?}");
    for (line, number) in ours.iter().zip(1..) {
        assert!(line.contains(&format!("# {number}")), "{line}");
    }
    let without: String =
        text.lines().filter(|l| !l.contains("forerun.")).map(|l| format!("{l}\n")).collect();
    for text in [&text, &without] {
        let documents = yaml_rust2::YamlLoader::load_from_str(text).unwrap();
        let services = documents[0]["services"].as_hash().unwrap();
        let mut names: Vec<&str> = services.keys().filter_map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, SERVICES);
    }
}

#[test]
fn the_example_is_brought_up_by_compose_and_lives_as_its_readme_says() {
    let Some(engine) = Engine::find() else { return };
    let Ok(program) = std::env::var("FORERUN_TEST_COMPOSE") else {
        println!("SKIPPED: no FORERUN_TEST_COMPOSE: run cargo xtask test --only docker where there is Go");
        return;
    };
    let world = World::new("example", "");
    world.configure_all(CONFIG);
    fs::copy(folder().join("compose.yaml"), world.path("compose.yaml")).unwrap();
    images(&engine);
    let compose = Compose { program: program.into(), engine: &engine, world: &world };
    compose.run(&["up", "--detach", "--quiet-pull"]);
    assert_eq!(running(&engine), SERVICES);

    let host = format!("unix://{}", engine.socket.display());
    let live = world.up_with(&[("DOCKER_HOST", Path::new(&host))]);
    known(&live, &world, "watched", |s| s["mode"] == "observe" && s["instances"]["ready"] == 1);
    let status = tell(&live, &["status"]);
    assert!(SERVICES.iter().all(|name| status.contains(&format!("shop-{name}"))), "{status}");
    let routed = |name: &str| {
        crate::http::get(live.router, name, "/").unwrap_or_else(|error| {
            panic!("{name}: {error}: {}\n{}", live.status(), world.log());
        })
    };
    assert!(routed("shop.localhost").text().contains("the shop"));
    for name in ["orders", "admin"] {
        let answer = routed(&format!("shop-{name}.localhost"));
        assert!(answer.text().starts_with(name), "{name}: {}", answer.text());
    }
    for name in ["db", "cache", "api", "web"] {
        assert_eq!(routed(&format!("shop-{name}.localhost")).status, 404, "{name}");
    }
    std::thread::sleep(A_WHILE);
    assert_eq!(running(&engine), SERVICES, "watching changes nothing");

    for name in SERVICES {
        tell(&live, &["act", &format!("shop-{name}")]);
    }
    eventually("all sleep", ASLEEP_WITHIN, || running(&engine).is_empty());
    assert!(routed("shop.localhost").text().contains("the shop"), "{}", world.log());
    for (needed, by) in [("db", "api"), ("cache", "api"), ("api", "web")] {
        assert!(began(&engine, needed) < began(&engine, by), "{needed} comes before {by}");
    }
    let database: jiff::Timestamp = began(&engine, "db").parse().unwrap();
    let api: jiff::Timestamp = began(&engine, "api").parse().unwrap();
    let waited = api.duration_since(database).as_secs_f64();
    assert!(waited >= DATABASE_SECONDS, "what needs a healthy database came {waited} s after it");

    tell(&live, &["observe", "shop-web"]);
    // Held, so that it is not Forerun that stops it in the very same moment.
    tell(&live, &["scale", "shop-admin", "1", "--for", "10m"]);
    assert_eq!(routed("shop-admin.localhost").status, 200, "{}", world.log());
    compose.run(&["stop", "--timeout", "1", "admin"]);
    eventually("what compose stops stays stopped", PATIENCE, || {
        let answer = routed("shop-admin.localhost");
        answer.status == 503 && answer.text().contains("by hand")
    });
    compose.run(&["start", "admin"]);
    eventually("what it starts is served", PATIENCE, || routed("shop-admin.localhost").status == 200);
    compose.run(&["down", "--timeout", "1", "--volumes"]);
    std::thread::sleep(A_WHILE);
    assert_eq!(engine.containers(), [], "nothing is brought back");
    live.drain();
    remove_images(&engine);
}
