//! A person's word, by the commands.

use crate::world::{Live, PATIENCE, World, eventually, forerun};
use serde_json::Value;
use std::time::{Duration, Instant};

const ONE: &str = "[service.shop-web]\ncommand = [FIXTURE]\nroute = \"web.test\"\nmax = 1\nresources = { memory = \"64MB\" }\n\
                   [service.watched]\ncommand = [FIXTURE]\nroute = \"watched.test\"\nmode = \"observe\"\n";

/// Runs a command against a running Forerun; gives its code, output and error.
fn told(live: &Live, args: &[&str]) -> (Option<i32>, String, String) {
    let api = live.api.to_string();
    forerun(&[args, &["--api", &api]].concat())
}

/// The command succeeds and says so.
fn says(live: &Live, args: &[&str], part: &str) {
    let (code, out, err) = told(live, args);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}: {out}");
    assert!(out.contains(part), "{args:?}: {out}");
}

#[test]
fn a_persons_word_holds_until_it_is_taken_back() {
    let world = World::new("control", ONE);
    let live = world.up();
    says(&live, &["scale", "shop-web", "2"], "shop-web is held at 2 until `forerun resume shop-web`");
    live.ready("shop-web", 2);
    let word = live.until("shop-web", "its word is shown", |s| s["word"]["instances"] == 2);
    assert_eq!(word["word"]["until"], Value::Null, "{word}");
    let (_, out, _) = told(&live, &["status"]);
    assert!(out.contains("held at 2 by a person until resumed"), "{out}");
    says(&live, &["scale", "shop-web", "0", "--for", "1h"], "shop-web is held at 0 for 60m");
    live.until("shop-web", "none", |s| s["instances"]["ready"] == 0 && s["word"]["until"].is_f64());
    says(&live, &["resume", "shop-web"], "shop-web is the plan's again");
    live.until("shop-web", "the word is gone", |s| s["word"].is_null());
    live.serves("web.test");
    says(&live, &["pause", "shop-web"], "shop-web stays as it is");
    live.until("shop-web", "paused at one", |s| s["word"]["instances"] == 1);
    let (_, out, _) = told(&live, &["scale", "shop-web", "1", "--json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&document["service"], &document["word"]["instances"]),
        (&Value::from("shop-web"), &Value::from(1))
    );
    live.drain();
}

#[test]
fn a_word_on_the_mode_beats_the_configuration() {
    let world = World::new("mode", ONE);
    let live = world.up();
    says(&live, &["scale", "watched", "1"], "nothing changes before `forerun act watched`");
    live.until("watched", "it would", |s| {
        s["would"].as_str().is_some_and(|w| w.starts_with("would start 1"))
    });
    assert_eq!(live.service("watched")["instances"]["ready"], 0);
    says(&live, &["act", "watched"], "watched is started and stopped by forerun from now on");
    live.ready("watched", 1);
    assert_eq!(live.service("watched")["mode"], "act");
    says(&live, &["observe", "watched"], "only watched");
    let watched = live.until("watched", "only watched", |s| s["mode"] == "observe");
    assert_eq!(watched["mode_word"]["mode"], "observe", "{watched}");
    // What is up is left alone.
    assert_eq!(watched["instances"]["ready"], 1, "{watched}");
    live.drain();
}

#[test]
fn a_service_is_woken_without_a_request_and_shown_in_lists() {
    let world = World::new("wake", ONE);
    let live = world.up();
    says(&live, &["wake", "shop-web"], "shop-web is woken");
    live.ready("shop-web", 1);
    let (code, _, err) = told(&live, &["wake", "web"]);
    assert!(code == Some(1) && err.contains("no service is called `web`"), "{err}");
    let asked = |path: &str| {
        let answer = crate::http::get(live.api, "localhost", path).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let services = asked("/v1/services");
    assert_eq!(
        (&services["total"], &services["items"][0]["name"]),
        (&Value::from(2), &Value::from("shop-web"))
    );
    eventually("its instance is listed", PATIENCE, || {
        asked("/v1/instances?name=shop")["items"][0]["state"] == "ready"
    });
    let plan = asked("/v1/plan?name=shop");
    assert!(plan["items"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{plan}");
    let forecast = asked("/v1/services/shop-web/forecast");
    assert!(forecast["forecast"].is_null() && forecast["past"].is_array(), "{forecast}");
    says(&live, &["pause", "shop-web"], "stays as it is");
    eventually("the word is listed", PATIENCE, || {
        asked("/v1/overrides")["items"][0]["word"]["instances"] == 1
    });
    let log = std::fs::read_to_string(world.path("state/audit.jsonl")).unwrap();
    assert!(log.contains("\"wake shop-web\"") && log.contains("\"who\":\"local\""), "{log}");
    live.drain();
}

#[test]
fn slips_are_told_with_the_mend() {
    let world = World::new("slips", ONE);
    let live = world.up();
    for (args, code, part) in [
        (&["pause", "web"][..], 1, "forerun: no service is called `web`; did you mean `shop-web`?\n"),
        (&["act", "zzz"], 1, "forerun: no service is called `zzz`; there are shop-web, watched\n"),
        (&["resume", "../status"], 1, "forerun: no service is called `../status`"),
        (&["scale", "shop-web", "-1"], 2, "forerun: unexpected argument '-1' found"),
        (&["scale", "shop-web", "two"], 2, "forerun: invalid value 'two' for '<N>'"),
        (&["scale", "shop-web", "2", "--for", "soon"], 2, "forerun: --for: \"soon\" is no duration"),
        (&["scale", "shop-web", "2", "--for", "0s"], 2, "forerun: --for: must be more than nothing"),
    ] {
        let (got, out, err) = told(&live, args);
        assert_eq!(got, Some(code), "{args:?}: {out}{err}");
        assert!(err.starts_with(part) && err.lines().count() == 1, "{args:?}: {err}");
    }
    eventually("nothing was changed by that", PATIENCE, || live.service("shop-web")["word"].is_null());
    live.drain();
}

#[test]
fn a_service_is_explained_and_a_url_is_routed() {
    let world = World::new("explain", ONE);
    let live = world.up();
    says(
        &live,
        &["route", "http://web.test/orders"],
        "GET web.test/orders goes to shop-web, which is asleep",
    );
    says(&live, &["route", "nobody.test"], "goes nowhere: no service is for it");
    says(&live, &["route", "x.test/", "-H", "Host: watched.test"], "goes to watched");
    let (_, out, _) = told(&live, &["route", "http://web.test/", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["service"], "shop-web");
    let (code, _, err) = told(&live, &["route", "http://web.test/", "-H", "odd"]);
    assert_eq!((code, err.as_str()), (Some(1), "forerun: a header is no header; write one as Name: value\n"));
    live.serves("web.test");
    live.ready("shop-web", 1);
    let (_, out, _) = told(&live, &["explain", "shop-web"]);
    for part in ["shop-web (process, act): 1 wanted, 1 ready", "woke it ", "start   takes "] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let instance = live.service("shop-web")["each"][0]["instance"].as_str().unwrap().to_owned();
    says(&live, &["explain", &instance], &format!("{instance} is an instance of shop-web"));
    let (_, out, _) = told(&live, &["explain", "watched", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["service"]["mode"], "observe");
    let (code, _, err) = told(&live, &["explain", "web"]);
    assert_eq!(
        (code, err.as_str()),
        (Some(1), "forerun: no service or instance is called `web`; did you mean `shop-web`?\n")
    );
    live.drain();
}

#[test]
fn what_an_action_takes_is_told_apart() {
    const PHASE: Duration = Duration::from_millis(1_500);
    let world = World::new("takes", ONE);
    let live = world.up();
    live.serves("web.test");
    let of = |s: &Value, action: &str, field: &str| {
        let found = s["activities"].as_array().unwrap().iter().find(|a| a["action"] == action);
        found.map_or(f64::NAN, |a| a[field].as_f64().unwrap())
    };
    // Now more of the one and now more of the other, each for longer than it is between two readings.
    let mut last = Value::Null;
    let ends = Instant::now() + PATIENCE * 2;
    let mut found = false;
    while !found && Instant::now() < ends {
        for (often, seldom) in [("/spin?ms=25", "/sleep?ms=25"), ("/sleep?ms=25", "/bytes?n=200000")] {
            let phase_ends = Instant::now() + PHASE;
            while Instant::now() < phase_ends {
                for path in [often, often, often, seldom] {
                    assert_eq!(live.get("web.test", path).status, 200);
                }
            }
        }
        last = live.service("shop-web");
        let (spin, sleep) = (of(&last, "GET /spin", "cpu_seconds"), of(&last, "GET /sleep", "cpu_seconds"));
        found = (0.015..0.04).contains(&spin)
            && sleep < 0.4 * spin
            && of(&last, "GET /sleep", "seconds") >= 0.02
            && of(&last, "GET /bytes", "network_bytes") >= 200_000.0
            && last["load"]["cpu_cores"].as_f64().is_some_and(|cores| cores > 0.0);
    }
    assert!(found, "{:#}", last["activities"]);
    let (_, out, _) = told(&live, &["explain", "shop-web"]);
    assert!(out.contains("takes   GET /bytes: "), "{out}");
    live.drain();
}
