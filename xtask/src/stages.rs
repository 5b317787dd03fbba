//! `cargo xtask test`: the stages, in their order, and what they counted.

use crate::cargo::{self, Count, Package};
use crate::{agreement, bars, cache, docker, lint, process, simulate, tools};
use std::process::ExitCode;
use std::time::Instant;

/// A stage: its name, and what runs it.
struct Stage {
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Count,
}

const STAGES: &[Stage] = &[
    Stage { name: "lint", about: "format, clippy, licences, structure", run: lint::run },
    Stage { name: "unit", about: "every crate's own tests", run: unit },
    Stage { name: "replay", about: "traces, policies, agreement with the referee", run: replay },
    Stage { name: "process", about: "router, process backend, engine and demo, live", run: process::run },
    Stage { name: "docker", about: "containers of an engine of its own, live", run: docker::run },
    Stage { name: "cache", about: "the public HTTP cache tests, beside nginx and Varnish", run: cache::run },
    Stage {
        name: "simulate",
        about: "the control side in a seeded world, and the bugs built in",
        run: simulate::run,
    },
];

/// Crates whose integration tests belong to a stage of their own.
const REPLAY: &[&str] = &["forerun-trace", "forerun-lab"];
const PROCESS: &[&str] = &["forerun-backends", "forerun-router", "forerun-engine", "forerun-demo"];
/// Tests that belong there too, of a crate whose others do not.
const PROCESS_TESTS: &[(&str, &str)] = &[("forerun", "live")];

/// What every stage needs to know.
pub(crate) struct Context {
    pub(crate) packages: Vec<Package>,
    pub(crate) metadata: serde_json::Value,
    /// Measure a build of the demo from nothing.
    pub(crate) cold: bool,
}

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Empty means all.
    only: Vec<String>,
    list: bool,
    cold: bool,
}

impl Wanted {
    /// # Errors
    /// An argument or a stage that there is not.
    pub(crate) fn parse(args: &[String]) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let only = match arg.as_str() {
                "--list" => {
                    wanted.list = true;
                    continue;
                }
                "--cold" => {
                    wanted.cold = true;
                    continue;
                }
                "--only" => args.next().map(String::as_str),
                other => match other.strip_prefix("--only=") {
                    Some(names) => Some(names),
                    None => return Err(format!("unknown argument {other}")),
                },
            };
            let names = only.ok_or("--only needs the names of stages")?;
            wanted.only.extend(names.split(',').map(str::to_owned));
        }
        for name in &wanted.only {
            if !STAGES.iter().any(|s| s.name == *name) {
                let known: Vec<&str> = STAGES.iter().map(|s| s.name).collect();
                return Err(format!("no stage {name:?}; there are {}", known.join(", ")));
            }
        }
        Ok(wanted)
    }
}

/// Runs the stages that are wanted; the last line is what they counted together.
pub(crate) fn test(wanted: &Wanted) -> ExitCode {
    if wanted.list {
        for stage in STAGES {
            println!("{:<8} {}", stage.name, stage.about);
        }
        return ExitCode::SUCCESS;
    }
    let ci = std::env::var_os("CI").is_some();
    let cold = wanted.cold || ci;
    if ci {
        tools::use_cached_target();
    }
    let metadata = match cargo::metadata() {
        Ok(metadata) => metadata,
        Err(what) => {
            println!("xtask: {what}\n{}", Count::FAILED);
            return ExitCode::FAILURE;
        }
    };
    let context = Context { packages: cargo::packages(&metadata), metadata, cold };
    let mut total = Count::default();
    for stage in STAGES {
        if !wanted.only.is_empty() && !wanted.only.iter().any(|name| name == stage.name) {
            continue;
        }
        println!("== {}: {}", stage.name, stage.about);
        let start = Instant::now();
        let count = (stage.run)(&context);
        println!("{}: {count}", stage.name);
        println!("({} took {:.0} s)", stage.name, start.elapsed().as_secs_f64());
        total.add(count);
    }
    println!("{total}");
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says what is not tested and why, so that nobody takes silence for success.
pub(crate) fn skip(what: &str, why: &str) -> Count {
    println!("SKIPPED: {what}: {why}");
    Count::SKIPPED
}

/// One check that is no test of cargo's.
pub(crate) fn check(what: &str, result: Result<(), String>) -> Count {
    match result {
        Ok(()) => {
            println!("ok: {what}");
            Count::PASSED
        }
        Err(why) => {
            println!("FAILED: {what}: {why}");
            Count::FAILED
        }
    }
}

/// Unit tests of all crates, documentation tests, and integration tests that need no other stage.
fn unit(context: &Context) -> Count {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut count = cargo::test(&words("--workspace --lib --bins --examples"));
    count.add(integration(context, |package, test| {
        !REPLAY.contains(&package)
            && package != simulate::PACKAGE
            && !is_live(package, test)
            && !wants_docker(package, test)
    }));
    let mut doc = words("--doc");
    for package in context.packages.iter().filter(|p| p.library) {
        doc.extend(words(&format!("-p {}", package.name)));
    }
    count.add(cargo::test(&doc));
    count
}

/// The integration tests that are wanted, by package and name, in one run of cargo: the fewer sets of packages, the
/// fewer sets of features to build. Without any, nothing.
fn integration(context: &Context, wanted: impl Fn(&str, &str) -> bool) -> Count {
    let mut args = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for package in &context.packages {
        let before = names.len();
        names.extend(package.tests.iter().map(String::as_str).filter(|test| wanted(&package.name, test)));
        if names.len() > before {
            args.extend(["-p".to_owned(), package.name.clone()]);
        }
    }
    if names.is_empty() {
        return Count::default();
    }
    args.extend(names.iter().flat_map(|name| ["--test".to_owned(), (*name).to_owned()]));
    cargo::test(&args)
}

fn is_live(package: &str, test: &str) -> bool {
    PROCESS.contains(&package) || PROCESS_TESTS.contains(&(package, test))
}

fn wants_docker(package: &str, test: &str) -> bool {
    docker::TESTS.contains(&(package, test))
}

fn replay(context: &Context) -> Count {
    let mut count = integration(context, |package, _| REPLAY.contains(&package));
    count.add(agreement::run());
    count.add(bars::run());
    // Above in debug, which plays its quick worlds only.
    let stress = ["--release", "--package", "forerun-lab", "--test", "stress"];
    count.add(cargo::test(&stress.map(str::to_owned)));
    count
}

/// The live tests of crates; `process` adds its own.
pub(crate) fn live(context: &Context) -> Count {
    integration(context, |package, test| is_live(package, test) && !wants_docker(package, test))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expect: Result<(&[&str], bool, bool), &str>) {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let got = Wanted::parse(&args);
        match expect {
            Ok((only, list, cold)) => {
                let only = only.iter().map(|s| (*s).to_owned()).collect();
                assert_eq!(got, Ok(Wanted { only, list, cold }));
            }
            Err(part) => assert!(got.unwrap_err().contains(part), "{args:?}"),
        }
    }

    #[test]
    fn arguments_are_read() {
        check(&[], Ok((&[], false, false)));
        check(&["--only", "lint,unit"], Ok((&["lint", "unit"], false, false)));
        check(&["--only=unit", "--cold"], Ok((&["unit"], false, true)));
        check(&["--list"], Ok((&[], true, false)));
        check(&["--only"], Err("needs the names"));
        check(&["--only", "nope"], Err("no stage \"nope\"; there are lint, unit"));
        check(&["--only", ""], Err("no stage"));
        check(&["unit"], Err("unknown argument unit"));
    }
}
