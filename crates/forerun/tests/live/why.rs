//! `forerun why` on the journal of a running Forerun, and after its end.

use crate::world::{GONE_WITHIN, World, forerun, send};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SERVICES: &str = "
[service.web]
command = [FIXTURE]
route = { host = \"web.test\" }
min = 1
max = 1
resources = { memory = \"64MB\" }
[service.bad]
command = [FIXTURE, \"--exit\", \"3\"]
route = { host = \"bad.test\" }
resources = { memory = \"64MB\" }
";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn why(world: &World, service: &str, at: f64) -> Value {
    let config = world.path("forerun.toml");
    let at = format!("{at:.6}");
    let (code, out, error) =
        forerun(&["why", service, "--at", &at, "-c", config.to_str().unwrap(), "--json"]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    serde_json::from_str(&out).unwrap()
}

fn whats(answer: &Value) -> Vec<&str> {
    answer["changes"].as_array().unwrap().iter().map(|c| c["what"].as_str().unwrap()).collect()
}

#[test]
fn why_tells_what_was_up_and_why_while_forerun_runs_and_after_it() {
    let world = World::new("why", SERVICES);
    let live = world.up();
    let pid = live.serves("web.test").pid();
    // Longer than the flush interval.
    std::thread::sleep(Duration::from_millis(400));
    let served = now();
    let first = why(&world, "web", served);
    assert_eq!(
        (&first["wanted"]["instances"], first["instances"].as_array().map(Vec::len)),
        (&1.into(), Some(1))
    );
    let instance = &first["instances"][0];
    assert_eq!(instance["state"], "ready", "{first}");
    assert!(instance["reason"].as_str().unwrap().contains(' '), "{first}");
    assert_eq!(whats(&first)[0], "began", "{first}");
    assert!(whats(&first).contains(&"started") && whats(&first).ends_with(&["ready"]), "{first}");
    // It dies, and another takes its place.
    send("KILL", pid);
    std::thread::sleep(Duration::from_millis(100));
    live.ready("web", 1);
    let _ = live.get("bad.test", "/");
    std::thread::sleep(Duration::from_millis(400));
    let later = now();
    let second = why(&world, "web", later);
    assert_ne!(second["instances"][0]["instance"], instance["instance"], "{second}");
    let died = second["changes"].as_array().unwrap().iter().find(|c| c["what"] == "died").unwrap();
    assert_eq!(died["instance"], instance["instance"]);
    assert!(died["reason"].as_str().unwrap().contains("KILL"), "{second}");
    let bad = why(&world, "bad", later);
    assert!(whats(&bad).contains(&"start_failed"), "{bad}");
    live.drain();
    world.all_gone(GONE_WITHIN);
    // The same when it no longer runs, and what came after does not change it.
    assert_eq!(why(&world, "web", served), first);
    let end = why(&world, "web", now());
    assert_eq!(
        (&end["wanted"]["instances"], end["instances"].as_array().map(Vec::len)),
        (&0.into(), Some(0)),
        "{end}"
    );
    // That none is wanted any more is told before the order or after it, as the router leaves sooner or later.
    let last: Vec<&str> = whats(&end).into_iter().filter(|what| *what != "wanted").collect();
    assert!(last.ends_with(&["stop_ordered", "stopped"]), "{end}");
    // A next life does not change it either.
    let live = world.up();
    live.serves("web.test");
    live.drain();
    assert_eq!(why(&world, "web", served), first);
}

#[test]
fn why_names_what_is_wrong_with_what_it_was_asked() {
    let world = World::new("why-wrong", SERVICES);
    let live = world.up();
    live.serves("web.test");
    live.drain();
    let (config, journal) = (world.path("forerun.toml"), world.path("state/journal"));
    let (config, journal) = (config.to_str().unwrap(), journal.to_str().unwrap());
    let later = format!("{}", now());
    for (args, code, part) in [
        (&["web", "--at", &later, "-c", "/nowhere.toml"][..], 2, "/nowhere.toml"),
        (&["web", "--at", "noon", "-c", config], 2, "--at: \"noon\" is neither a date nor seconds"),
        (&["web", "--at", "12", "-c", config], 1, "the journal begins at"),
        (
            &["webb", "--at", &later, "-c", config],
            1,
            "no service `webb` at that time; there are: bad, web; did you mean `web`?",
        ),
        (&["web", "--at", &later, "--journal", "/nowhere"], 1, "forerun: /nowhere: No such file"),
        (&["web", "--at", &later, "--journal", config], 1, "not a journal of this program"),
        (&["web", "--journal", journal], 2, "--at"),
    ] {
        let (got, out, error) = forerun(&[&["why"], args].concat());
        assert!(got == Some(code) && error.contains(part), "{args:?}: {got:?} {error}");
        assert!(out.is_empty() && error.lines().count() == 1, "{args:?}: {out} {error}");
    }
    let (code, out, error) = forerun(&["why", "web", "--at", &later, "--journal", journal]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        out.starts_with("web at 20") && out.contains("\nup: none\n") && out.contains(" started: "),
        "{out}"
    );
}
