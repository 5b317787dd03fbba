//! Instances of keys: the real program, with real processes and a data set for each key.

use crate::world::{GONE_WITHIN, World, eventually, forerun, processes};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const KEYS: [&str; 3] = ["nord", "sued", "west"];

/// A service whose instances hold one data set each; requests name theirs in the path.
fn maps(world: &World, more: &str) {
    let data = world.path("data");
    fs::create_dir_all(&data).unwrap();
    for (n, key) in KEYS.iter().chain(&["ost"]).enumerate() {
        fs::write(data.join(key), format!("1 {}\n", n + 1)).unwrap();
    }
    let folder = data.display();
    world.configure(&format!(
        "[service.maps]\ncommand = [FIXTURE, \"--data\", \"{folder}\"]\nready = {{ http = \"/\" }}\n\
         resources = {{ memory = \"64MB\" }}\n{more}\n"
    ));
}

#[test]
fn an_instance_has_one_key_and_loads_its_data_before_the_request_comes() {
    let world = World::new("keys", "");
    maps(
        &world,
        "min = 1\nspecialise = { by = \"path:1\", hook = \"http:/specialise\", \
                 preload = [\"/data/{key}\"], keys_max = 3 }",
    );
    let live = world.up();
    live.ready("maps", 1);
    let generic: BTreeSet<u32> = processes(&world.tag).into_iter().map(|(pid, _)| pid).collect();
    let mut of: BTreeMap<u32, &str> = BTreeMap::new();
    for round in 0..3 {
        for (n, key) in KEYS.iter().enumerate() {
            let answer = live.get("maps.test", &format!("/data/{key}?id=1"));
            assert_eq!(answer.status, 200, "{answer:?}");
            let text = answer.text();
            assert!(text.starts_with("hit") && text.contains(&(n + 1).to_string()), "{round} {key}: {text}");
            let owner = of.entry(answer.pid()).or_insert(key);
            assert_eq!(owner, key, "one process answers for two keys");
            if round == 0 && n == 0 {
                assert!(generic.contains(&answer.pid()), "the warm one becomes the first key's");
            }
        }
    }
    // At the cap a key has the generic instances, and none of the others' processes.
    let answer = live.get("maps.test", "/data/ost?id=1");
    assert_eq!((answer.status, of.contains_key(&answer.pid())), (200, false), "{answer:?}");

    let status = live.until("maps", "the keys", |s| s["keys"].as_array().is_some_and(|k| k.len() == 3));
    let keys: BTreeSet<&str> =
        status["keys"].as_array().unwrap().iter().map(|k| k["key"].as_str().unwrap()).collect();
    assert_eq!(keys, KEYS.into());
    assert_eq!(status["requests"].as_u64(), Some(10), "{status}");
    let (_, text, _) = forerun(&["status", "--api", &live.api.to_string()]);
    assert!(text.contains("@nord"), "{text}");
    assert!(
        live.metric(
            "forerun_instance_start_seconds_count{service=\"maps\",backend=\"process\",kind=\"specialise\"}"
        ) >= 1.0
    );
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn without_a_hook_a_key_has_its_data_from_the_start_and_keeps_it_over_a_restart() {
    let world = World::new("starts-keys", "");
    maps(&world, "specialise = { by = \"path:1\", preload = [\"/data/{key}\"] }");
    for life in 0..2 {
        let live = world.up();
        let mut pids = BTreeSet::new();
        for key in KEYS {
            let answer = live.get("maps.test", &format!("/data/{key}?id=1"));
            assert!(answer.text().starts_with("hit"), "{life} {key}: {answer:?}");
            assert!(pids.insert(answer.pid()), "{key}");
        }
        let known = || live.service("maps")["keys"].as_array().map_or(0, Vec::len);
        eventually("the keys are shown", crate::world::PATIENCE, || known() == 3);
        live.drain();
        world.all_gone(GONE_WITHIN);
    }
    world.journal_replays();
}
