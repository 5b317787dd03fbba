//! The `docker` stage: a Docker Engine of the stage's own, images made from files of this machine, the tests that
//! need them, and nothing left afterwards.

mod images;
mod lanes;
mod testbed;

use crate::cargo::{self, Count, Package, cargo};
use crate::run;
use crate::stages::{Context, check, skip};
use crate::{process, tools};
use serde_json::Value;
use std::process::{Command, ExitCode};
use std::time::Duration;
use testbed::{Daemon, Unavailable};

/// The tests that want an engine, by package.
pub(crate) const TESTS: &[(&str, &str)] = &[("forerun-backends", "docker"), ("forerun", "docker")];

/// Where the tests find Docker Compose.
const COMPOSE: &str = "FORERUN_TEST_COMPOSE";

/// Recorded minutes of the race, six seconds each.
const DEMO_MINUTES: &str = "8";
const DEMO_LIMIT: Duration = Duration::from_secs(300);

/// What it takes to run an engine and to fill it.
const PROGRAMS: &[&str] = &["dockerd", "docker", "iptables", "busybox", "openssl"];
/// Where those are; Debian's names.
const DEBIAN: &[&str] = &["docker.io", "iptables", "busybox-static", "openssl"];

pub(crate) fn run(context: &Context) -> Count {
    let tests = wanted(&context.packages);
    // Built before, and outside: inside there is no network. Each package alone, as its lane runs it: together they would
    // have other features, and the lanes would build again.
    for one in &tests {
        let built = run::shown(test(&[one]).arg("--no-run"), run::LIMIT);
        if !built.good {
            return check("build", Err(built.trouble.unwrap_or_else(|| "see above".to_owned())));
        }
    }
    if let Err(why) = there(true) {
        return unavailable(why);
    }
    let mut count = Count::default();
    let compose = match tools::compose() {
        Ok(program) => Some(program),
        Err(why) => {
            count.add(skip("docker compose", &why));
            None
        }
    };
    let demo = |daemon: &Daemon| check("demo --backend docker", demo(daemon));
    match lanes::run(&tests, compose.as_ref(), demo) {
        Ok(ran) => count.add(ran),
        Err(why) => count.add(unavailable(why)),
    }
    count
}

fn unavailable(why: Unavailable) -> Count {
    match why {
        Unavailable::Here(why) => skip("docker", &why),
        Unavailable::Broken(why) => check("a docker engine for the tests", Err(why)),
    }
}

/// Every request of an act was served on each of its sides.
fn demo_act(act: &Value, sides: usize) -> Result<(), String> {
    let name = &act["act"];
    let requests = act["traffic"]["requests"].as_u64().filter(|n| *n > 0).ok_or("an act had no requests")?;
    let runs: Vec<&Value> = cargo::array(&act["runs"]).collect();
    for side in &runs {
        let (policy, served) = (&side["policy"], &side["requests"]);
        if *served != requests || side["instances_started"] == 0 {
            return Err(format!("{name}, {policy} served {served} of {requests} requests: {side}"));
        }
        println!("demo: {name}, {policy}: {} cold starts, {requests} requests", side["cold_starts"]);
    }
    if runs.len() == sides { Ok(()) } else { Err(format!("{name} had {} sides", runs.len())) }
}

/// A short race over containers: every request is served on both sides, and nothing is left in the engine.
fn demo(daemon: &Daemon) -> Result<(), String> {
    let forerun = process::built("debug", "forerun")?;
    let args = ["demo", "--backend", "docker", "--minutes", DEMO_MINUTES, "--json"];
    let mut inside = daemon.inside(Command::new(forerun).args(args));
    let ran = run::quiet(inside.env("DOCKER_HOST", daemon.socket()), DEMO_LIMIT);
    if !ran.good {
        return Err(ran.trouble.unwrap_or_else(|| "it failed, see above".to_owned()));
    }
    let printed: Value = serde_json::from_str(&ran.text).map_err(|e| format!("--json is no JSON: {e}"))?;
    let acts: Vec<&Value> = cargo::array(&printed["acts"]).collect();
    if acts.len() != 2 {
        return Err(format!("it had {} acts", acts.len()));
    }
    for (act, sides) in acts.into_iter().zip([2, 3]) {
        demo_act(act, sides)?;
    }
    for (what, args) in [("containers", &["ps", "-aq"][..]), ("images", &["images", "-q", "forerun-demo"])] {
        let left = run::quiet(daemon.docker().args(args), DEMO_LIMIT);
        if !left.good || !left.text.trim().is_empty() {
            return Err(format!("it left {what} behind: {}", left.text));
        }
    }
    Ok(())
}

/// `cargo xtask docker-shell COMMAND...`: runs a command beside an engine as the tests have it.
pub(crate) fn shell(words: &[String]) -> ExitCode {
    let Some((program, args)) = words.split_first() else {
        eprintln!("xtask: docker-shell needs a command, as cargo test -p forerun --test docker");
        return ExitCode::from(2);
    };
    let daemon = match daemon(true) {
        Ok(daemon) => daemon,
        Err(Unavailable::Here(why) | Unavailable::Broken(why)) => {
            eprintln!("xtask: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new(program);
    // Whoever works by hand wants the engine to be found, too.
    if let Ok(program) = tools::compose() {
        command.env(COMPOSE, program);
    }
    match daemon.inside(command.args(args)).env("DOCKER_HOST", daemon.socket()).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot run {program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An engine for a benchmark, where one can be had without installing anything.
///
/// # Errors
/// Why there is none.
pub(crate) fn found() -> Result<Daemon, String> {
    daemon(false).map_err(|(Unavailable::Here(why) | Unavailable::Broken(why))| why)
}

/// Finds what an engine needs (or installs it), starts one, and gives it the images.
fn daemon(install: bool) -> Result<Daemon, Unavailable> {
    there(install)?;
    let daemon = Daemon::start(0)?;
    images::make(&daemon).map_err(Unavailable::Broken)?;
    Ok(daemon)
}

/// Finds what engines need, or installs it.
fn there(install: bool) -> Result<(), Unavailable> {
    testbed::remove_leftovers();
    testbed::possible()?;
    if let Some(program) = PROGRAMS.iter().find(|name| tools::find(name).is_none()) {
        if !install {
            return Err(Unavailable::Here(format!("there is no {program}")));
        }
        tools::apt_install(DEBIAN).map_err(Unavailable::Here)?;
    }
    Ok(())
}

/// Those of [`TESTS`] that there are.
fn wanted(packages: &[Package]) -> Vec<&'static (&'static str, &'static str)> {
    let there = |(package, test): &&(&str, &str)| {
        packages.iter().any(|p| p.name == *package && p.tests.iter().any(|t| t == test))
    };
    TESTS.iter().filter(there).collect()
}

fn test(tests: &[&(&str, &str)]) -> Command {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]);
    for (package, _) in tests {
        command.args(["--package", package]);
        if *package != "forerun" {
            // The program has it by default.
            command.args(["--features", &format!("{package}/docker")]);
        }
    }
    let mut names: Vec<&str> = tests.iter().map(|(_, test)| *test).collect();
    names.dedup();
    for name in names {
        command.args(["--test", name]);
    }
    if std::env::var_os("CI").is_some() {
        command.arg("--locked");
    }
    command
}
