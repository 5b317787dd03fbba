//! The `process` stage: the live tests of crates, the demo with real processes, and kills in the middle of a load.

use crate::cargo::{Count, array, cargo};
use crate::run;
use crate::stages::{self, Context, check};
use crate::{described, kill, tools};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The demo promises three minutes; the fourth is for a machine that does other things too.
const DEMO_LIMIT: Duration = Duration::from_secs(240);

/// Programs of the live tests, and Debian's packages of them.
const PROXIES: [(&str, &str); 2] = [("nginx", "nginx-light"), ("caddy", "caddy")];

pub(crate) fn run(context: &Context) -> Count {
    // The examples for proxies are tried for real where these are; elsewhere their tests say that they are skipped.
    let missing: Vec<&str> =
        PROXIES.iter().filter(|(program, _)| tools::find(program).is_none()).map(|p| p.1).collect();
    if !missing.is_empty()
        && let Err(why) = tools::apt_install(&missing)
    {
        println!("process: {why}; their tests are skipped");
    }
    let mut count = stages::live(context);
    let built = run::shown(cargo().args(["build", "--release", "--package", "forerun"]), run::LIMIT);
    if !built.good {
        count.add(check("build", Err(built.trouble.unwrap_or_else(|| "see above".to_owned()))));
        return count;
    }
    match (binary(), built_for_tests()) {
        (Ok(forerun), Ok(debug)) => {
            let killed = kill::run(&forerun, &[&forerun, &debug]);
            count.add(check("kill -9 in the middle of a load, replayed by both builds", killed));
            count.add(described::run(&forerun));
            count.add(check("demo", demo(&forerun)));
        }
        (Err(what), _) | (_, Err(what)) => count.add(check("build", Err(what))),
    }
    count
}

/// The release binary, where cargo puts it.
///
/// # Errors
/// It is not there.
pub(crate) fn binary() -> Result<PathBuf, String> {
    built("release", "forerun")
}

/// The debug binary, which the live tests have just run.
fn built_for_tests() -> Result<PathBuf, String> {
    built("debug", "forerun")
}

/// A program of the workspace, where cargo puts it.
///
/// # Errors
/// It is not there.
pub(crate) fn built(profile: &str, name: &str) -> Result<PathBuf, String> {
    let folder = match (tools::target(), std::env::var_os("CARGO_TARGET_DIR")) {
        (Some(target), _) => target.to_owned(),
        (None, Some(target)) => run::root().join(target),
        (None, None) => run::root().join("target"),
    };
    let path = folder.join(profile).join(name);
    if path.is_file() { Ok(path) } else { Err(format!("there is no {}", path.display())) }
}

/// Runs the demo and looks at what it measured: real requests on both sides, and the figures that it promises.
fn demo(forerun: &PathBuf) -> Result<(), String> {
    let ran = run::quiet(Command::new(forerun).args(["demo", "--json"]), DEMO_LIMIT);
    if !ran.good {
        return Err(ran.trouble.unwrap_or_else(|| "it failed, see above".to_owned()));
    }
    let printed: Value = serde_json::from_str(&ran.text).map_err(|e| format!("--json is no JSON: {e}"))?;
    demo_problems(&printed)
}

fn demo_problems(printed: &Value) -> Result<(), String> {
    users_problems(printed)?;
    let act = array(&printed["acts"]).find(|a| a["act"] == "services").ok_or("there is no act `services`")?;
    let number = |path: &str| act.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("no {path}"));
    let side = |name: &str| {
        let runs =
            array(&act["runs"]).position(|r| r["policy"].as_str().is_some_and(|p| p.starts_with(name)));
        runs.ok_or_else(|| format!("no run of {name}"))
    };
    let (fixed, ours) = (side("keep-alive=")?, side("forerun")?);
    let requests = number("/traffic/requests")?;
    for run in [fixed, ours] {
        let served = number(&format!("/runs/{run}/requests"))?;
        if served != requests || served == 0.0 {
            return Err(format!("run {run} served {served} of {requests} requests"));
        }
    }
    let (theirs, mine) =
        (number(&format!("/runs/{fixed}/cold_starts"))?, number(&format!("/runs/{ours}/cold_starts"))?);
    let memory = number("/wins/memory_ratio")?;
    println!("demo: {mine} cold starts against {theirs}, memory ratio {memory}");
    if theirs < 30.0 {
        return Err(format!("the fixed side has {theirs} cold starts, too few to compare"));
    }
    if mine > 0.7 * theirs {
        return Err(format!("{mine} cold starts against {theirs}: more than 0.7 of them"));
    }
    // "At no more than its memory", with a hundredth for what two runs of processes differ by.
    if memory > 1.01 { Err(format!("the memory ratio is {memory}, above 1")) } else { Ok(()) }
}

/// The act of users says what came out, win or lose: it has to have been played, by users, on all three sides.
fn users_problems(printed: &Value) -> Result<(), String> {
    let act = array(&printed["acts"]).find(|a| a["act"] == "users").ok_or("there is no act `users`")?;
    let requests = act["traffic"]["requests"].as_u64().unwrap_or(0);
    if act["traffic"]["users"].as_u64().unwrap_or(0) < 100 {
        return Err(format!("the act `users` had not its users: {}", act["traffic"]));
    }
    let runs: Vec<&Value> = array(&act["runs"]).collect();
    for name in ["keep-alive=", "forerun-no-users", "forerun"] {
        let run = runs.iter().find(|r| r["policy"].as_str().is_some_and(|p| p.starts_with(name)));
        let run = run.ok_or_else(|| format!("act `users`: no run of {name}"))?;
        if run["requests"] != requests || run["instances_started"].as_u64().unwrap_or(0) == 0 {
            return Err(format!("act `users`: {name} served {} of {requests} requests", run["requests"]));
        }
        println!("demo, users: {}: {} cold starts of {requests}", run["policy"], run["cold_starts"]);
    }
    Ok(())
}

/// A small HTTP server for Forerun to start in tests: answers every request with its process id, on `PORT`.
///
/// # Errors
/// No port is given, or it cannot be had.
pub(crate) fn app() -> Result<(), String> {
    let port = std::env::var("PORT").map_err(|_| "PORT is not set".to_owned())?;
    let port: u16 = port.parse().map_err(|_| format!("PORT is {port}"))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|e| format!("port {port}: {e}"))?;
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else { return };
    let (mut reader, mut writer) = (BufReader::new(reading), stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
        // The empty line ends a request's head; none that comes here has a body.
        if line.trim().is_empty() {
            let body = std::process::id().to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if writer.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::demo_problems;
    use serde_json::json;

    #[test]
    fn demo_must_win_and_have_measured() {
        let users = |served: u64| {
            let run = |policy| json!({ "policy": policy, "requests": served, "cold_starts": 9, "instances_started": 9 });
            let runs = ["keep-alive=60s", "forerun-no-users", "forerun"].map(run);
            json!({ "act": "users", "traffic": { "requests": 500, "users": 200 }, "runs": runs })
        };
        let document = |requests: u64, fixed: u64, ours: u64, memory: f64| {
            json!({ "acts": [users(500), {
                "act": "services",
                "traffic": { "requests": 500 },
                "runs": [
                    { "policy": "keep-alive=60s", "requests": 500, "cold_starts": fixed },
                    { "policy": "forerun", "requests": requests, "cold_starts": ours },
                ],
                "wins": { "memory_ratio": memory },
            }] })
        };
        for (printed, expect) in [
            (document(500, 100, 70, 1.0), ""),
            (document(499, 100, 70, 1.0), "served 499 of 500"),
            (document(500, 29, 1, 1.0), "too few"),
            (document(500, 100, 71, 1.0), "more than 0.7"),
            (document(500, 100, 50, 1.2), "memory ratio is 1.2"),
            (json!({ "acts": [] }), "no act `users`"),
            (json!({ "acts": [users(500)] }), "no act `services`"),
            (json!({ "acts": [users(499)] }), "served 499 of 500"),
        ] {
            match demo_problems(&printed) {
                Ok(()) => assert!(expect.is_empty(), "{printed}"),
                Err(what) => assert!(!expect.is_empty() && what.contains(expect), "{printed}: {what}"),
            }
        }
    }
}
