//! The `docker` stage: a Docker Engine of the stage's own, images made from files of this machine, the tests that
//! need them, and nothing left afterwards.

mod images;
mod testbed;

use crate::cargo::{self, Count, Package, cargo};
use crate::run;
use crate::stages::{Context, check, skip};
use crate::tools;
use std::process::{Command, ExitCode};
use testbed::{Daemon, Unavailable};

/// The tests that want an engine, by package.
pub(crate) const TESTS: &[(&str, &str)] = &[("forerun-backends", "docker"), ("forerun", "docker")];

/// What the engine needs besides itself; Debian's names.
const DEBIAN: &[&str] = &["docker.io", "iptables", "busybox-static"];

pub(crate) fn run(context: &Context) -> Count {
    let tests = wanted(&context.packages);
    // Built before, and outside: inside there is no network.
    let built = run::shown(test(&tests).arg("--no-run"), run::LIMIT);
    if !built.good {
        return check("build", Err(built.trouble.unwrap_or_else(|| "see above".to_owned())));
    }
    let daemon = match daemon() {
        Ok(daemon) => daemon,
        Err(Unavailable::Here(why)) => return skip("docker", &why),
        Err(Unavailable::Broken(why)) => return check("a docker engine for the tests", Err(why)),
    };
    let mut count = check("a docker engine for the tests, and images made here", Ok(()));
    let mut inside = daemon.inside(&test(&tests));
    count.add(cargo::count_of(&run::shown(&mut inside, run::LIMIT)));
    if count.failed > 0 {
        println!("the last lines of dockerd's log:\n{}", daemon.log_tail());
    }
    count
}

/// `cargo xtask docker-shell COMMAND...`: runs a command beside an engine as the tests have it.
pub(crate) fn shell(words: &[String]) -> ExitCode {
    let Some((program, args)) = words.split_first() else {
        eprintln!("xtask: docker-shell needs a command, as cargo test -p forerun --test docker");
        return ExitCode::from(2);
    };
    let daemon = match daemon() {
        Ok(daemon) => daemon,
        Err(Unavailable::Here(why) | Unavailable::Broken(why)) => {
            eprintln!("xtask: {why}");
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new(program);
    match daemon.inside(command.args(args)).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot run {program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Finds or installs what an engine needs, starts one, and gives it the images.
fn daemon() -> Result<Daemon, Unavailable> {
    testbed::remove_leftovers();
    testbed::possible()?;
    let missing = |name: &&str| tools::find(name).is_none();
    if ["dockerd", "docker", "iptables", "busybox"].iter().any(missing) {
        tools::apt_install(DEBIAN).map_err(Unavailable::Here)?;
    }
    let daemon = Daemon::start()?;
    images::make(&daemon).map_err(Unavailable::Broken)?;
    Ok(daemon)
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
