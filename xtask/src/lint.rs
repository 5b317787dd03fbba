//! The `lint` stage: format, clippy, licences and advisories, structure, and how long the demo takes to build.

use crate::cargo::{Count, cargo};
use crate::run::{self, Ran, root};
use crate::stages::{Context, check, skip};
use crate::{structure, tools};
use std::process::Command;
use std::time::{Duration, Instant};

/// A database that cannot be had in this time cannot be had.
const FETCH_LIMIT: Duration = Duration::from_secs(90);
/// How much more processor time than the yardstick the demo may take to build from nothing. Six minutes on two cores are
/// promised; by the clock the same build took from three to seven minutes on like machines, so the clock cannot be asked.
const BUILD_LIMIT: f64 = 10.0;
/// Large dependencies of the demo that others write: they tell what a build costs here and now.
const YARDSTICK: &[&str] = &["tokio", "rustls", "clap_builder", "regex-automata"];

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
    // Downloads depend on the network, not on us.
    let fetched = run::shown(cargo().arg("fetch"), run::LIMIT);
    if !fetched.good {
        return check(what, result(&fetched));
    }
    let start = Instant::now();
    let built = processor_time(&["forerun"]);
    let took = start.elapsed();
    check(
        what,
        built.and_then(|demo| {
            let yardstick = processor_time(YARDSTICK)?;
            let ratio = demo.as_secs_f64() / yardstick.as_secs_f64();
            println!(
                "{what} took {:.0} s; {:.0} s of processor time, {ratio:.1} times the {:.0} s of {}",
                took.as_secs_f64(),
                demo.as_secs_f64(),
                yardstick.as_secs_f64(),
                YARDSTICK.join(", "),
            );
            let dear = || format!("{ratio:.1} times the yardstick's processor time, more than {BUILD_LIMIT}");
            if ratio <= BUILD_LIMIT { Ok(()) } else { Err(dear()) }
        }),
    )
}

/// Processor time of a release build of these packages in an empty folder, by two jobs.
fn processor_time(packages: &[&str]) -> Result<Duration, String> {
    let target = std::env::temp_dir().join(format!("forerun-cold-{}", std::process::id()));
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\"; code=$?; times; exit $code", "build"]);
    command.arg(cargo().get_program()).args(["build", "--release", "--locked", "--jobs", "2"]);
    command.args(packages.iter().flat_map(|package| ["--package", *package]));
    let built = run::shown(command.env("CARGO_TARGET_DIR", &target), run::LIMIT);
    let _ = std::fs::remove_dir_all(&target);
    result(&built)?;
    let spent = built.text.lines().rev().find_map(of_times);
    spent
        .filter(|spent| !spent.is_zero())
        .ok_or_else(|| "sh did not tell what processor time the build took".to_owned())
}

/// The sum of a line of `times`: `1m2.50s 0m3.25s`.
fn of_times(line: &str) -> Option<Duration> {
    let part = |word: &str| {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let (user, system) = line.trim().split_once(' ')?;
    Some(Duration::from_secs_f64(part(user)? + part(system)?))
}

#[cfg(test)]
mod tests {
    use super::of_times;
    use std::time::Duration;

    #[test]
    fn times_of_a_shell_are_read() {
        assert_eq!(of_times("5m58.930000s 0m21.70s"), Some(Duration::from_millis(380_630)));
        for other in ["", "5m58.93s", "Compiling a v1.0", "5m 3s"] {
            assert_eq!(of_times(other), None, "{other}");
        }
    }
}
