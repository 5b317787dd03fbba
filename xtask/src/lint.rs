//! The `lint` stage: format, clippy, licences and advisories, structure, and how long the demo takes to build.

use crate::cargo::{Count, cargo};
use crate::run::{self, Ran, root};
use crate::stages::{Context, check, skip};
use crate::{structure, tools};
use std::path::Path;
use std::time::{Duration, Instant};

/// A database that cannot be had in this time cannot be had.
const FETCH_LIMIT: Duration = Duration::from_secs(90);
/// How long the demo may take to build from nothing on two cores: a promise of the README.
const BUILD_LIMIT: Duration = Duration::from_secs(6 * 60);

/// The program as it is built where no container engine is wanted.
const WITHOUT_CONTAINERS: &[&str] =
    &["clippy", "--package", "forerun", "--no-default-features", "--all-targets", "--", "-D", "warnings"];

pub(crate) fn run(context: &Context) -> Count {
    let mut count = step("format", &["fmt", "--all", "--check"]);
    count.add(step("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    count.add(step("clippy without containers", WITHOUT_CONTAINERS));
    count.add(deny());
    match structure::problems(&context.metadata, &root()) {
        Ok(problems) => {
            for problem in &problems {
                println!("structure: {problem}");
            }
            let result =
                if problems.is_empty() { Ok(()) } else { Err(format!("{} problems", problems.len())) };
            count.add(check("structure", result));
        }
        Err(what) => count.add(check("structure", Err(what))),
    }
    count.add(if context.cold {
        cold_build()
    } else {
        skip("the demo's build from nothing", "takes minutes; give --cold, or set CI")
    });
    count
}

fn result(ran: &Ran) -> Result<(), String> {
    if ran.good { Ok(()) } else { Err(ran.trouble.clone().unwrap_or_else(|| "see above".to_owned())) }
}

fn step(what: &str, args: &[&str]) -> Count {
    check(what, result(&run::shown(cargo().args(args), run::LIMIT)))
}

fn deny() -> Count {
    let program = match tools::cargo_deny() {
        Ok(program) => program,
        Err(what) => return check("deny", Err(what)),
    };
    let deny = |args: &[&str], limit| {
        let mut command = std::process::Command::new(&program);
        run::shown(command.arg("--all-features").args(args), limit)
    };
    let mut count = check(
        "deny: licences, bans, sources",
        result(&deny(&["check", "--hide-inclusion-graph", "licenses", "bans", "sources"], run::LIMIT)),
    );
    // Advisories live in a repository of their own, which not every network lets through.
    let fetched = deny(&["fetch", "db"], FETCH_LIMIT);
    count.add(if fetched.good {
        check("deny: advisories", result(&deny(&["check", "--disable-fetch", "advisories"], run::LIMIT)))
    } else {
        skip("deny: advisories", "the advisory database cannot be fetched from here")
    });
    count
}

/// Builds what `cargo run --release -- demo` builds, with nothing there but the downloaded sources.
fn cold_build() -> Count {
    let what = "the demo's build from nothing";
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let target = std::env::temp_dir().join(format!("forerun-cold-{}", std::process::id()));
    // Downloads depend on the network, not on us.
    let fetched = run::shown(cargo().arg("fetch"), run::LIMIT);
    let start = Instant::now();
    let built = if fetched.good { build(&target) } else { fetched };
    let took = start.elapsed();
    let _ = std::fs::remove_dir_all(&target);
    if !built.good {
        return check(what, result(&built));
    }
    println!("{what} took {:.0} s on {} of {cores} cores", took.as_secs_f64(), cores.min(2));
    if cores < 2 {
        return skip(what, "there is one core, and the bound is for two");
    }
    let late = || format!("took {:.0} s, more than {} s", took.as_secs_f64(), BUILD_LIMIT.as_secs());
    check(what, if took <= BUILD_LIMIT { Ok(()) } else { Err(late()) })
}

fn build(target: &Path) -> Ran {
    let args = ["build", "--release", "--package", "forerun", "--jobs", "2"];
    run::shown(cargo().args(args).env("CARGO_TARGET_DIR", target), run::LIMIT)
}
