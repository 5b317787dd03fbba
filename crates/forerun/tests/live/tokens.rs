//! Tokens, by the commands and against a running Forerun.

use crate::world::{World, binary, output_of};
use serde_json::Value;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

const TWO: &str = "[service.web]\ncommand = [FIXTURE]\nroute = \"web.test\"\nmode = \"observe\"\n\
                   [service.other]\ncommand = [FIXTURE]\nroute = \"other.test\"\nmode = \"observe\"\ntenant = \"rival\"\n";

/// Runs a command in the world's folder, with a token in its environment.
fn run(world: &World, token: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(args).current_dir(&world.folder).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("FORERUN_TOKEN");
    if !token.is_empty() {
        command.env("FORERUN_TOKEN", token);
    }
    let output = output_of(command.spawn().unwrap(), "a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A command that must succeed.
fn done(world: &World, token: &str, args: &[&str]) -> String {
    let (code, out, err) = run(world, token, args);
    assert_eq!(code, Some(0), "{args:?}: {out}{err}");
    out
}

fn token(world: &World, args: &[&str]) -> String {
    done(world, "", &[&["token", "create"], args].concat()).trim().to_owned()
}

fn open_to_all(world: &World) {
    let globals = World::globals("[api]\nlisten = \"127.0.0.1:0\"", "[api]\nlisten = \"0.0.0.0:0\"");
    world.configure_all(&format!("{globals}{TWO}"));
}

#[test]
fn another_address_is_not_listened_on_without_a_token() {
    let world = World::new("no-token", "");
    open_to_all(&world);
    let (code, err) = world.up_fails();
    assert_eq!(code, Some(2), "{err}");
    assert!(
        err.contains(
            "api.listen: 0.0.0.0:0 needs a token, and there is none; make one first: forerun token create"
        ),
        "{err}"
    );
    // Nothing was begun: not even a journal.
    assert!(!world.path("state/journal").exists());
}

#[test]
fn tokens_open_what_is_theirs_until_they_are_revoked() {
    let world = World::new("tokens", "");
    open_to_all(&world);
    let admin = token(&world, &["root", "--role", "admin"]);
    let rival = token(&world, &["rival-ops", "--role", "operator", "--tenant", "rival"]);
    let live = world.up();
    let api = SocketAddr::from(([127, 0, 0, 1], live.api.port())).to_string();
    let at = |args: &[&str]| -> Vec<String> {
        args.iter().chain(&["--api", &api]).map(|arg| (*arg).to_owned()).collect()
    };
    let run = |token: &str, args: &[&str]| {
        let args = at(args);
        run(&world, token, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |token: &str, args: &[&str], part: &str| {
        let (code, out, err) = run(token, args);
        assert!(code == Some(1) && err.contains(part), "{args:?}: {code:?} {out}{err}");
    };
    refused("", &["status"], "a token is needed here; `forerun token create NAME` makes one");
    refused("forerun_00", &["status"], "this token is not known");
    let names = |token: &str| {
        let (_, out, err) = run(token, &["status", "--json"]);
        let status: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        let services = status["services"].as_array().unwrap().clone();
        services.iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&admin), ["web", "other"]);
    assert_eq!(names(&rival), ["other"]);
    // By the flag, too.
    assert_eq!(run("", &["status", "--token", &admin]).0, Some(0));
    refused(&rival, &["pause", "web"], "no service is called `web`");
    refused(&rival, &["route", "http://web.test/"], "the token is for rival only");
    assert_eq!(run(&rival, &["pause", "other"]).0, Some(0));
    assert_eq!(run(&rival, &["explain", "other"]).0, Some(0));
    let rotated = done(&world, "", &["token", "rotate", "rival-ops"]).trim().to_owned();
    refused(&rival, &["status"], "this token is not known");
    assert_eq!(names(&rotated), ["other"]);
    done(&world, "", &["token", "revoke", "rival-ops"]);
    refused(&rotated, &["status"], "this token is not known");
    let list: Value = serde_json::from_str(&done(&world, "", &["token", "list", "--json"])).unwrap();
    assert_eq!(list["tokens"].as_array().unwrap().len(), 1, "{list}");
    drop(live);
    let log = std::fs::read_to_string(world.path("state/audit.jsonl")).unwrap();
    let told: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<String> = told
        .iter()
        .map(|e| format!("{}: {}", e["who"].as_str().unwrap(), e["what"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            "command: create token root, admin",
            "command: create token rival-ops, operator of rival",
            "token rival-ops: pause web",
            "token rival-ops: pause other",
            "command: rotate token rival-ops",
            "command: revoke token rival-ops",
        ]
    );
    for file in ["tokens.json", "audit.jsonl"] {
        let path = world.path("state").join(file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(![&admin, &rival, &rotated].iter().any(|token| text.contains(token.as_str())), "{file}");
    }
}

#[test]
fn slips_of_the_token_command_are_told_with_the_mend() {
    let world = World::new("token-slips", TWO);
    token(&world, &["ci"]);
    for (args, part) in [
        (&["token", "create", "ci"][..], "forerun: a token is called \"ci\" already; rotate or revoke it"),
        (&["token", "create", "a b"], "forerun: \"a b\" is no name for a token"),
        (&["token", "create", "x", "--role", "root"], "there are viewer, operator and admin"),
        (&["token", "create", "x", "--for", "soon"], "forerun: --for: \"soon\" is no duration"),
        (&["token", "revoke", "nobody"], "forerun: no token is called \"nobody\"; there are ci"),
        (&["token", "rotate", "nobody"], "forerun: no token is called \"nobody\"; there are ci"),
        (&["status", "--token", "a\nb"], "forerun: --token: is no token"),
    ] {
        let (code, out, err) = run(&world, "", args);
        assert_eq!(code, Some(2), "{args:?}: {out}{err}");
        assert!(err.contains(part) && err.trim_end().lines().count() == 1, "{args:?}: {err}");
    }
    let out = done(&world, "", &["token", "list"]);
    assert!(out.contains("ci") && out.contains("viewer") && out.contains("never"), "{out}");
}
