//! The `simulate` stage: the control side in a seeded world, with the bugs that are built in; and its soak.

use crate::cargo::{self, Count};
use crate::run;
use crate::stages::Context;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Its own tests are in this stage: they run worlds, and are slow but in release.
pub(crate) const PACKAGE: &str = "forerun-sim";
/// The same worlds in every run, from seed 1.
const WORLDS: &str = "1000";
/// Seconds of fresh seeds after them; with the build, the known seeds and the canaries the stage stays within two minutes.
const SECONDS: &str = "20";
/// A soak ends when it is told to; nobody waits for a year.
const SOAK_SECONDS: &str = "31536000";

fn seeds() -> PathBuf {
    run::root().join("crates/forerun-sim/seeds.txt")
}

fn simulation(args: &[&str]) -> Command {
    let mut command = cargo::cargo();
    command.args(["run", "--quiet", "--release", "--package", PACKAGE, "--"]).args(args);
    command
}

pub(crate) fn run(_: &Context) -> Count {
    let tests = ["--release", "--package", PACKAGE, "--test", "worlds"].map(str::to_owned);
    let mut count = cargo::test(&tests);
    let mut worlds = simulation(&["many", "--from", "1", "--seeds", WORLDS]);
    count.add(cargo::count_of(&run::shown(&mut worlds, run::LIMIT)));
    let mut command = simulation(&["many", "--canaries", "--seconds", SECONDS, "--known"]);
    count.add(cargo::count_of(&run::shown(command.arg(seeds()), run::LIMIT)));
    count
}

/// Fresh seeds until it is told to stop; what fails is added to the known seeds.
pub(crate) fn soak() -> ExitCode {
    let mut command = simulation(&["many", "--seconds", SOAK_SECONDS, "--keep"]);
    // In this group, so that what stops this stops it too.
    match command.arg(seeds()).current_dir(run::root()).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
