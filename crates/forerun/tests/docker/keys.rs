//! Containers of keys: the real program, a real engine, and a data set for each key.

use crate::engine::{Engine, eventually};
use crate::world::{Live, PATIENCE, World};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

const KEYS: [&str; 3] = ["nord", "sued", "west"];
const SOON: Duration = Duration::from_secs(40);

fn up(engine: &Engine, world: &World) -> Live {
    let host = format!("unix://{}", engine.socket.display());
    world.up_with(&[("DOCKER_HOST", Path::new(&host))])
}

/// A service of containers that hold one data set each; requests name theirs in the path.
fn maps(world: &World, more: &str) {
    let data = world.path("data");
    fs::create_dir_all(&data).unwrap();
    for (n, key) in KEYS.iter().enumerate() {
        fs::write(data.join(key), format!("1 {}\n", n + 1)).unwrap();
    }
    world.configure(&format!(
        "[service.maps]\nimage = \"forerun-test/fixture:1\"\n\
         command = [\"forerun-fixture\", \"--listen\", \"0.0.0.0\", \"--port\", \"8080\", \"--data\", \"/sets\"]\n\
         mounts = [\"{}:/sets\"]\nready = {{ http = \"/\" }}\nresources = {{ memory = \"64MB\" }}\n{more}\n",
        data.display()
    ));
}

/// Asks for each key's data, which must be there already.
fn ask_for_all(live: &Live, world: &World) {
    for (n, key) in KEYS.iter().enumerate() {
        let answer = live.get("maps.test", &format!("/data/{key}?id=1"));
        let text = answer.text();
        assert_eq!(answer.status, 200, "{key}: {text}\n{}", world.log());
        assert!(text.starts_with("hit") && text.contains(&(n + 1).to_string()), "{key}: {text}");
    }
}

fn made(engine: &Engine) -> Vec<(String, String)> {
    engine.containers().into_iter().filter(|(name, _)| name.starts_with("forerun-maps")).collect()
}

fn claimed(engine: &Engine) -> usize {
    made(engine).iter().filter(|(name, _)| name.ends_with("-claimed")).count()
}

#[test]
fn a_warm_container_becomes_a_keys_by_a_request_to_it() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("http-hook", "");
    maps(
        &world,
        "min = 1\nspecialise = { by = \"path:1\", hook = \"http:/specialise\", preload = [\"/data/{key}\"] }",
    );
    let live = up(&engine, &world);
    live.ready("maps", 1);
    for _ in 0..3 {
        ask_for_all(&live, &world);
    }
    let status = live.until("maps", "the keys", |s| s["keys"].as_array().is_some_and(|k| k.len() == 3));
    let keys: BTreeSet<&str> =
        status["keys"].as_array().unwrap().iter().map(|k| k["key"].as_str().unwrap()).collect();
    assert_eq!(keys, KEYS.into());
    assert!(claimed(&engine) >= 1, "the warm one became a key's: {:?}", made(&engine));
    let count =
        "forerun_instance_start_seconds_count{service=\"maps\",backend=\"docker\",kind=\"specialise\"}";
    assert!(live.metric(count) >= 1.0);
    live.has_held();
}

#[test]
fn a_warm_container_becomes_a_keys_by_a_command_in_it() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("exec-hook", "");
    // The command makes the data set where the mount has none, so that nothing else can have done it.
    maps(
        &world,
        "min = 1\nspecialise = { by = \"header:x-key\", preload = [\"/data/{key}\"], env = { WHERE = \"set-{key}\" }, \
         hook = { command = [\"sh\", \"-c\", \"echo 1 77 > /sets/$WHERE; cp /sets/$WHERE /sets/$FORERUN_KEY\"] } }",
    );
    let live = up(&engine, &world);
    live.ready("maps", 1);
    let mut client = crate::http::Client::connect(live.router).unwrap();
    client.send(b"GET /data/ost?id=1 HTTP/1.1\r\nHost: maps.test\r\nX-Key: ost\r\n\r\n").unwrap();
    let answer = client.answer().unwrap();
    let text = answer.text();
    assert_eq!(answer.status, 200, "{text}\n{}", world.log());
    assert!(text.starts_with("hit") && text.contains("77"), "{text}\n{}", world.log());
    assert_eq!(fs::read_to_string(world.path("data/set-ost")).unwrap(), "1 77\n");
    assert_eq!(claimed(&engine), 1, "{:?}", made(&engine));
    live.has_held();
}

#[test]
fn a_container_started_for_a_key_has_its_env_files_arguments_and_mounts() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("key-starts", "");
    maps(
        &world,
        "specialise = { by = \"path:1\", env = { SET = \"set of {key}\" }, args = [\"--say\", \"for {key}\"], \
         files = { \"/srv/{key}.conf\" = \"conf of {key}\" }, preload = [\"/data/{key}\"] }",
    );
    let live = up(&engine, &world);
    ask_for_all(&live, &world);
    eventually("each key has a container of its own", SOON, || {
        let up = made(&engine).into_iter().filter(|(_, state)| state == "running");
        let keys: BTreeSet<String> = up
            .filter_map(|(name, _)| {
                let found = engine.inspect(&name);
                let env = found["Config"]["Env"].as_array()?;
                let of =
                    |name: &str| env.iter().find_map(|e| Some(e.as_str()?.strip_prefix(name)?.to_owned()));
                let key = of("FORERUN_KEY=")?;
                assert_eq!(of("SET="), Some(format!("set of {key}")), "{found}");
                assert!(engine.log(&name).contains(&format!("for {key}")), "{}", engine.log(&name));
                let file = engine.raw(&format!("/containers/{name}/archive?path=/srv/{key}.conf"));
                assert!(file.contains(&format!("conf of {key}")), "{file}");
                Some(key)
            })
            .collect();
        keys == KEYS.map(str::to_owned).into()
    });
    live.has_held();
}

#[test]
fn after_a_kill_what_is_warm_is_adopted_and_what_met_a_key_is_removed() {
    let Some(engine) = Engine::find() else { return };
    let world = World::new("key-kill", "");
    maps(
        &world,
        "min = 2\nspecialise = { by = \"path:1\", hook = \"http:/specialise\", preload = [\"/data/{key}\"] }",
    );
    let mut live = up(&engine, &world);
    live.ready("maps", 2);
    ask_for_all(&live, &world);
    eventually("some have met a key, and two are warm beside them", PATIENCE, || {
        let running =
            made(&engine).iter().filter(|(name, s)| s == "running" && !name.ends_with("-claimed")).count();
        claimed(&engine) >= 1 && running >= 2 && live.service("maps")["instances"]["starting"] == 0
    });
    live.kill();
    let (old, warm): (Vec<_>, Vec<_>) =
        made(&engine).into_iter().map(|(name, _)| name).partition(|name| name.ends_with("-claimed"));
    let generic: Vec<(String, Value)> =
        warm.iter().filter_map(|name| is_generic(&engine.inspect(name))).collect();
    assert!(generic.len() >= 2, "{warm:?}");
    let live = up(&engine, &world);
    eventually("what met a key is removed", SOON, || {
        made(&engine).iter().all(|(name, _)| !old.contains(name))
    });
    live.until("maps", "the warm ones are taken over", |s| s["instances"]["ready"].as_u64() >= Some(2));
    for (id, started_at) in &generic {
        let found = engine.inspect(id);
        assert_eq!(
            &found["State"]["StartedAt"], started_at,
            "what ran was not taken over as it was: {found}"
        );
        assert_eq!(found["State"]["Running"], true);
    }
    ask_for_all(&live, &world);
    eventually("what is known is what is there", SOON, || {
        let status = live.service("maps");
        let counts = status["instances"].as_object().unwrap();
        counts.values().filter_map(Value::as_u64).sum::<u64>() == made(&engine).len() as u64
    });
    live.has_held();
}

/// The id and start of a container that was made for no key.
fn is_generic(found: &Value) -> Option<(String, Value)> {
    let env = found["Config"]["Env"].as_array()?;
    let has_key = env.iter().any(|e| e.as_str().is_some_and(|e| e.starts_with("FORERUN_KEY=")));
    (!has_key)
        .then(|| (found["Id"].as_str().unwrap_or_default().to_owned(), found["State"]["StartedAt"].clone()))
}
