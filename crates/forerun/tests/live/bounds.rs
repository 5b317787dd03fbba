//! `min`, `max`, schedules, modes, and what a service's name means from one start to the next.

use crate::http::get;
use crate::world::{GONE_WITHIN, World, forerun, processes};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn service(name: &str, lines: &str) -> String {
    format!(
        "[service.{name}]\ncommand = [FIXTURE]\nroute = {{ host = \"{name}.test\" }}\n\
         resources = {{ memory = \"64MB\" }}\ndrain_timeout = \"2s\"\n{lines}\n"
    )
}

#[test]
fn min_is_up_before_any_request_and_max_is_never_passed() {
    let world = World::new("min", &service("web", "min = 2\nmax = 3\nconcurrency = 1"));
    let live = world.up();
    let status = live.ready("web", 2);
    assert!(status["reason"].as_str().unwrap().contains("min keeps 2"), "{status}");
    let router = live.router;
    let clients: Vec<_> =
        (0..12).map(|_| std::thread::spawn(move || get(router, "web.test", "/sleep?ms=150"))).collect();
    live.ready("web", 3);
    for client in clients {
        assert_eq!(client.join().unwrap().unwrap().status, 200);
        assert!(processes(&world.tag).len() <= 3, "{:?}", processes(&world.tag));
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
}

/// Two services have just filled the site after a rush, and their plans want all of it and more.
#[test]
fn a_held_request_gets_room_on_a_full_site_at_once() {
    let services = service("left", "max = 8") + &service("right", "max = 8") + &service("big", "");
    let services = services.replace(
        "route = { host = \"big.test\" }\nresources = { memory = \"64MB\" }",
        "route = { host = \"big.test\" }\nresources = { memory = \"190MB\" }\nhold = { timeout = \"15s\" }",
    );
    let world = World::new("room", "");
    world.configure_all(&(World::globals("\"8GB\"", "\"200MB\"") + &services));
    let live = world.up();
    let router = live.router;
    for _ in 0..3 {
        let rush: Vec<_> = (0..80)
            .map(|n| {
                let host = if n % 2 == 0 { "left.test" } else { "right.test" };
                std::thread::spawn(move || get(router, host, "/sleep?ms=20"))
            })
            .collect();
        for client in rush {
            assert_eq!(client.join().unwrap().unwrap().status, 200);
            let site = &live.status()["sites"][0];
            assert!(site["memory_reserved_bytes"].as_u64().unwrap() <= 200_000_000, "{site}");
        }
        let start = Instant::now();
        assert_eq!(live.get("big.test", "/").status, 200);
        assert!(start.elapsed() < Duration::from_secs(4), "held for {:?}", start.elapsed());
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn an_open_schedule_keeps_its_number_up_and_a_closed_one_does_not() {
    // It opens every minute for two, so it is open always, in any zone.
    let open = "schedule = [{ cron = \"* * * * *\", for = \"2m\", min = 2, zone = \"Asia/Kathmandu\" }]";
    // Half a day from now.
    let hour = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600 + 12) % 24;
    let closed = format!("schedule = [{{ cron = \"30 {hour} * * *\", for = \"1m\", min = 2 }}]");
    let world = World::new("schedule", &(service("open", open) + &service("closed", &closed)));
    let live = world.up();
    let status = live.ready("open", 2);
    assert!(status["reason"].as_str().unwrap().contains("a schedule keeps 2"), "{status}");
    let closed = live.service("closed");
    assert_eq!((&closed["wanted"], &closed["instances"]["ready"]), (&0.into(), &0.into()), "{closed}");
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn observe_and_advise_start_nothing_and_say_why() {
    for mode in ["observe", "advise"] {
        let world = World::new(mode, &service("watched", &format!("mode = \"{mode}\"\nmin = 1")));
        let live = world.up();
        for _ in 0..20 {
            let answer = live.get("watched.test", "/");
            assert!(answer.is_clear_refusal(), "{answer:?}");
            assert!(answer.text().contains("only watches this service"), "{}", answer.text());
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(processes(&world.tag), [], "{mode} started something");
        let status = live.service("watched");
        assert_eq!((&status["mode"], &status["requests"]), (&mode.into(), &20.into()), "{status}");
        assert_eq!(status["would"], "would start 1: min keeps 1", "{status}");
        let advice = status["advice"].as_array().unwrap();
        assert_eq!(advice.len(), usize::from(mode == "advise"), "{status}");
        live.drain();
    }
}

/// What is advised on is decided as if it were done: told in status, by the commands and in the journal.
#[test]
fn advise_says_what_it_would_have_done_and_does_nothing() {
    let world = World::new("advice", &service("watched", "mode = \"advise\"\nmin = 1"));
    let live = world.up();
    let told = |args: &[&str]| {
        let (code, out, error) = forerun(args);
        assert_eq!((code, error.as_str()), (Some(0), ""), "{args:?}: {out}");
        out
    };
    let api = live.api.to_string();
    live.until("watched", "the start is advised", |s| s["advice"][0]["what"] == "would start 1: min keeps 1");
    told(&["scale", "watched", "0", "--api", &api]);
    let status = live.until("watched", "the stop is advised", |s| s["advice"].as_array().unwrap().len() == 2);
    assert_eq!(status["advice"][1]["what"], "would stop 1: a person asked for 0", "{status}");
    let explained = told(&["explain", "watched", "--api", &api]);
    assert!(explained.contains("ago: would stop 1: a person asked for 0\n"), "{explained}");
    for (metric, count) in [("would_start", 1.0), ("would_stop", 1.0)] {
        let name = format!("forerun_decisions_total{{action=\"{metric}\",reason=\"bound\"}}");
        assert_eq!(live.metric(&name), count, "{name}");
    }
    // It may be told by a word, too, and what was only observed is advised on from then.
    told(&["observe", "watched", "--api", &api]);
    told(&["resume", "watched", "--api", &api]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(live.service("watched")["advice"].as_array().unwrap().len(), 2);
    told(&["advise", "watched", "--api", &api]);
    live.until("watched", "it is advised on again", |s| s["advice"].as_array().unwrap().len() == 3);
    assert_eq!(processes(&world.tag), [], "something was started");
    live.drain();
    let config = world.path("forerun.toml");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64().to_string();
    let why = told(&["why", "watched", "--at", &now, "-c", config.to_str().unwrap()]);
    for what in ["would start 1, and only advises: ", "would stop 1, and only advises: "] {
        assert!(why.contains(what), "{why}");
    }
    world.journal_replays();
}

/// What was learned of a service, as far as the status shows it: when it would be stopped, and that it is wanted at
/// all without a request in this life.
fn is_known(world: &World, name: &str) -> bool {
    let live = world.up();
    let mut known = false;
    for _ in 0..40 {
        known |= live.service(name)["wanted"].as_u64().unwrap() > 0;
        std::thread::sleep(Duration::from_millis(25));
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
    known
}

#[test]
fn what_was_learned_stays_with_the_name() {
    let (a, b, c) = (service("alpha", ""), service("beta", ""), service("gamma", ""));
    let world = World::new("names", &format!("{a}{b}"));
    let live = world.up();
    for _ in 0..30 {
        assert_eq!(live.serves("beta.test").status, 200);
        std::thread::sleep(Duration::from_millis(30));
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
    // It was asked for much, and just now: it is wanted at the next start without a request.
    assert!(is_known(&world, "beta"), "nothing was remembered at all");
    // Another order, another neighbour: still by its name, and the others know nothing.
    world.configure(&format!("{c}{b}{a}"));
    assert!(is_known(&world, "beta"), "forgotten in another order");
    for other in ["alpha", "gamma"] {
        assert!(!is_known(&world, other), "{other} has what beta learned");
    }
    // Renamed it is another service; its old name is gone, and requests for it are not routed.
    world.configure(&format!("{a}{c}"));
    let live = world.up();
    let answer = live.get("beta.test", "/");
    assert_eq!((answer.status, answer.header("forerun-reason")), (404, Some("no-service")));
    for name in ["alpha", "gamma"] {
        assert_eq!(live.service(name)["wanted"], 0, "{name} has what beta learned");
        live.serves(&format!("{name}.test"));
    }
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn a_secret_of_the_wrong_size_or_mode_is_refused_with_the_mend() {
    let world = World::new("secret", &service("web", "min = 1"));
    let live = world.up();
    live.serves("web.test");
    live.drain();
    let secret = world.path("state/secret");
    let good = fs::read(&secret).unwrap();
    assert_eq!(good.len(), 32);
    let refused = |what: &str| {
        let (code, error) = world.up_fails();
        assert_eq!(code, Some(1), "{error}");
        let line = error.lines().last().unwrap_or_default();
        assert!(line.starts_with("forerun: ") && line.contains("secret") && line.contains(what), "{error}");
        world.all_gone(GONE_WITHIN);
    };
    fs::write(&secret, &good[..31]).unwrap();
    refused("this file has 31");
    fs::write(&secret, []).unwrap();
    refused("this file has 0");
    fs::write(&secret, &good).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    refused("chmod 600");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let live = world.up();
    live.serves("web.test");
    live.drain();
}

/// Guarantee: what its own forecasts were worth is counted on the service's own traffic, and told.
#[test]
fn a_services_foresight_is_scored_as_the_truth_comes_in() {
    let world = World::new("trust", &service("web", "min = 0"));
    let live = world.up();
    assert!(live.service("web")["trust"].is_null(), "nothing was judged yet");
    for _ in 0..5 {
        live.serves("web.test");
        // A gap in use is seen once the report of its end has come.
        live.until("web", "it is idle", |s| s["in_flight"] == 0);
        std::thread::sleep(Duration::from_millis(100));
    }
    let status =
        live.until("web", "gaps are judged", |s| s["trust"]["gaps"].as_u64().is_some_and(|n| n >= 3));
    let trust = &status["trust"];
    for cost in ["foresight_gb_seconds", "reactive_gb_seconds"] {
        assert!(trust[cost].as_f64().is_some_and(|cost| cost > 0.0), "{status}");
    }
    assert_eq!(trust["fallen"], false, "{status}");
    let api = live.api.to_string();
    let (code, out, error) = forerun(&["explain", "web", "--api", &api]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("\ntrust   over its last gaps (") && out.contains(": they decide\n"), "{out}");
    live.drain();
    world.journal_replays();
}
