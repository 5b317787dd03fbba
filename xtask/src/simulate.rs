//! The `simulate` stage: the control side in a seeded world, with the bugs that are built in; and its soak.

use crate::cargo::{self, Count};
use crate::run;
use crate::stages::{Context, check};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Its own tests are in this stage: they run worlds, and are slow but in release.
pub(crate) const PACKAGE: &str = "forerun-sim";
/// The same worlds in every run, from seed 1.
const WORLDS: &str = "1000";
/// Fresh seeds after the known ones: few, since about one in two thousand still finds something; `soak` draws more.
const FRESH: &str = "20";
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
    // The stage `test` runs it in debug; the answers must be the same to the last digit.
    let answers = ["--release", "--package", "forerun-core", "--lib", "every_build_says_the_same"];
    count.add(cargo::test(&answers.map(str::to_owned)));
    // So is this, on a small part: a million steps are too many for a debug build.
    let hostile = ["--release", "--package", "forerun-core", "--test", "hostile"];
    count.add(cargo::test(&hostile.map(str::to_owned)));
    let mut worlds = simulation(&["many", "--from", "1", "--seeds", WORLDS]);
    count.add(cargo::count_of(&run::shown(&mut worlds, run::LIMIT)));
    let mut command = simulation(&["many", "--canaries", "--seeds", FRESH, "--known"]);
    count.add(cargo::count_of(&run::shown(command.arg(seeds()), run::LIMIT)));
    count.add(check("journals of worlds, decided again by a debug and a release build", journals()));
    count
}

/// Worlds whose journals are decided again: kills and restarts in all of them, and one of many services.
const JOURNALS: [&str; 3] = ["22", "221", "564"];

fn journals() -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("forerun-journals-{}", std::process::id()));
    let result = JOURNALS.iter().try_for_each(|seed| {
        let journal = folder.join(seed);
        let journal = journal.to_str().ok_or("the temporary folder has no name in UTF-8")?;
        let written = run::quiet(&mut simulation(&["--seed", seed, "--journal", journal]), run::LIMIT);
        if !written.good {
            return Err(written.trouble.unwrap_or_else(|| format!("the world of seed {seed} does not hold")));
        }
        for build in [&["--release"][..], &[]] {
            let mut again = cargo::cargo();
            again.args(["run", "--quiet", "--package", PACKAGE]).args(build).args(["--", "replay", journal]);
            if !run::shown(&mut again, run::LIMIT).good {
                return Err(format!("seed {seed}: this build decides otherwise, or not at all: {build:?}"));
            }
        }
        Ok(())
    });
    let _ = std::fs::remove_dir_all(&folder);
    result
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
