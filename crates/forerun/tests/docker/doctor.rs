//! `forerun doctor` and `forerun adopt` at an engine as somebody has it on the first day, with Sablier's labels and the
//! usual mistakes.

use crate::engine::{BUSYBOX, Engine, fixture};
use crate::world::{World, binary};
use serde_json::{Value, json};
use std::process::Command;

fn run(engine: &Engine, world: &World, args: &[&str]) -> (bool, String) {
    let output = Command::new(binary())
        .args(args)
        .current_dir(&world.folder)
        .env("DOCKER_HOST", format!("unix://{}", engine.socket.display()))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), format!("{out}{err}"))
}

fn create(engine: &Engine, name: &str, labels: &[(&str, &str)], host: Value) {
    let mut settings = fixture(&[], labels);
    settings["HostConfig"] = host;
    engine.create(name, &settings);
}

const OURS: (&str, &str) = ("forerun.enable", "true");

fn mistakes(engine: &Engine) {
    create(engine, "good", &[OURS], json!({}));
    engine.create("noport", &json!({"Image": BUSYBOX, "Labels": {"forerun.enable": "true"}}));
    create(engine, "alone", &[OURS], json!({"NetworkMode": "none"}));
    create(engine, "always", &[OURS], json!({"RestartPolicy": {"Name": "always"}}));
    create(engine, "misspelt", &[OURS, ("forerun.prot", "8080")], json!({}));
    create(engine, "forgot", &[("forerun.port", "8080")], json!({}));
    create(engine, "lacks", &[OURS, ("forerun.depends_on", "databse")], json!({}));
    create(engine, "both", &[OURS, ("sablier.enable", "true")], json!({}));
}

#[test]
fn doctor_names_each_mistake_with_its_mend() {
    let Some(engine) = Engine::find() else { return };
    mistakes(&engine);
    let world = World::new("doctor", "");
    let (good, text) = run(&engine, &world, &["doctor"]);
    assert!(good, "mistakes of containers keep nothing from running: {text}");
    for (container, part) in [
        ("noport", "exposes no port, and gets no request; name the one it listens on, as forerun.port=8080"),
        ("alone", "is in no network, and cannot be reached; give it one"),
        ("always", "restart: always starts it whenever the engine starts; with unless-stopped it sleeps on"),
        ("misspelt", "forerun.prot: unknown key; did you mean \"port\"?"),
        ("forgot", "forerun.port says nothing without forerun.enable; add forerun.enable=true"),
        ("lacks", "no service \"databse\"; label its container forerun.enable=true, or remove it"),
    ] {
        let lines: Vec<&str> =
            text.lines().filter(|l| l.contains(&format!("container {container}:"))).collect();
        assert_eq!(lines.len(), 1, "{container}: {text}");
        assert!(lines[0].starts_with("warn") && lines[0].contains(part), "{}", lines[0]);
    }
    assert!(
        text.contains("labelled for sablier and for forerun: both; remove sablier.enable there"),
        "{text}"
    );
    assert!(!text.contains("container good:"), "{text}");
    let (_, printed) = run(&engine, &world, &["doctor", "--json"]);
    let findings: Value = serde_json::from_str(&printed).unwrap();
    let warnings = findings.as_array().unwrap().iter().filter(|f| f["level"] == "warn");
    assert!(warnings.count() >= 7, "{printed}");
}

#[test]
fn adopt_prints_our_labels_for_sablier_s_and_changes_nothing() {
    let Some(engine) = Engine::find() else { return };
    let labels = [
        ("sablier.enable", "true"),
        ("sablier.group", "shop,extra"),
        ("sablier.ready-after", "5s"),
        ("sablier.running-hours", "09:00-18:00"),
        ("sablier.running-days", "Mon,Tue"),
        ("sablier.idle.cpu", "0.1"),
    ];
    create(&engine, "whoami", &labels, json!({}));
    create(&engine, "plain", &[("sablier.enable", "true")], json!({}));
    create(&engine, "off", &[("sablier.enable", "false")], json!({}));
    let before = engine.containers();
    let world = World::new("adopt", "");
    let (good, text) = run(&engine, &world, &["adopt", "--from-sablier"]);
    assert!(good, "{text}");
    for part in [
        "# whoami\nlabels:\n  forerun.enable: \"true\"\n  forerun.group: \"shop\"\n",
        "  forerun.ready.settle: \"5s\"\n",
        "  forerun.schedule.cron: \"0 9 * * mon,tue\"\n",
        "  # not taken over: sablier.group: extra; a service has one group\n",
        "  # not taken over: sablier.idle.cpu=0.1: ",
        "# plain\nlabels:\n  forerun.enable: \"true\"\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert!(!text.contains("# off"), "{text}");
    assert_eq!(engine.containers(), before);
    // What it prints is what Forerun takes.
    let (_, printed) = run(&engine, &world, &["adopt", "--from-sablier", "--json"]);
    for one in serde_json::from_str::<Value>(&printed).unwrap().as_array().unwrap() {
        let pairs: Vec<(String, String)> = serde_json::from_value(one["labels"].clone()).unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        create(&engine, &format!("new-{}", one["name"].as_str().unwrap()), &pairs, json!({}));
    }
    let (good, text) = run(&engine, &world, &["doctor"]);
    assert!(good && !text.contains("container new-"), "{text}");
    assert!(text.contains("2 service(s) by labels"), "{text}");
}
