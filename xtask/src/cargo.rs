//! Cargo: its metadata, its tests and what they counted.

use crate::run::{self, Ran};
use crate::tools;
use serde_json::Value;
use std::process::Command;

/// Tests or checks, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    pub(crate) const PASSED: Count = Count { passed: 1, failed: 0, skipped: 0 };
    pub(crate) const FAILED: Count = Count { passed: 0, failed: 1, skipped: 0 };
    pub(crate) const SKIPPED: Count = Count { passed: 0, failed: 0, skipped: 1 };

    pub(crate) fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if let Some(target) = tools::target() {
        command.env("CARGO_TARGET_DIR", target);
    }
    command
}

/// `cargo metadata` of the workspace, dependencies resolved.
///
/// # Errors
/// Cargo fails, or does not print JSON.
pub(crate) fn metadata() -> Result<Value, String> {
    let ran = run::quiet(cargo().args(["metadata", "--format-version", "1"]), run::LIMIT);
    if !ran.good {
        return Err(ran.trouble.unwrap_or_else(|| "cargo metadata failed".to_owned()));
    }
    serde_json::from_str(&ran.text).map_err(|e| format!("cargo metadata is not understood: {e}"))
}

/// A package of the workspace and which kinds of tests it has.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// It has a library, whose documentation has tests.
    pub(crate) library: bool,
    /// Names of its integration tests.
    pub(crate) tests: Vec<String>,
}

/// The packages of the workspace in order of their names.
pub(crate) fn packages(metadata: &Value) -> Vec<Package> {
    let members: Vec<&str> = array(&metadata["workspace_members"]).filter_map(Value::as_str).collect();
    let mut packages: Vec<Package> = array(&metadata["packages"])
        .filter(|p| p["id"].as_str().is_some_and(|id| members.contains(&id)))
        .map(|p| {
            let of_kind = |kind: &str| -> Vec<String> {
                let has = |t: &&Value| array(&t["kind"]).any(|k| k == kind);
                array(&p["targets"])
                    .filter(has)
                    .filter_map(|t| t["name"].as_str())
                    .map(str::to_owned)
                    .collect()
            };
            Package {
                name: p["name"].as_str().unwrap_or_default().to_owned(),
                library: !of_kind("lib").is_empty(),
                tests: of_kind("test"),
            }
        })
        .collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages
}

/// The elements of a JSON array; none for anything else.
pub(crate) fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Runs `cargo test` with these arguments and counts.
pub(crate) fn test(args: &[String]) -> Count {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]).args(args);
    if std::env::var_os("CI").is_some() {
        command.arg("--locked");
    }
    count_of(&run::shown(&mut command, run::LIMIT))
}

/// What the tests of one run of cargo counted. A run that failed without a failed test (it did not compile, it
/// crashed, it hung) is a failure too.
pub(crate) fn count_of(ran: &Ran) -> Count {
    let mut count = Count::default();
    for line in ran.text.lines() {
        if let Some(found) = count_line(line) {
            count.add(found);
        }
    }
    if let Some(trouble) = &ran.trouble {
        println!("xtask: {trouble}");
    }
    if !ran.good && count.failed == 0 {
        count.failed = 1;
    }
    count
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`
fn count_line(line: &str) -> Option<Count> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut count = Count::default();
    for part in counts.split(';') {
        match part.trim().split_once(' ') {
            Some((n, "passed")) => count.passed = n.parse().ok()?,
            Some((n, "failed")) => count.failed = n.parse().ok()?,
            Some((n, "ignored")) => count.skipped = n.parse().ok()?,
            _ => {}
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, good: bool, expect: (u64, u64, u64)) {
        let count = count_of(&Ran { good, text: text.to_owned(), trouble: None });
        assert_eq!((count.passed, count.failed, count.skipped), expect, "{text}");
    }

    #[test]
    fn results_are_added_up() {
        let ok =
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n";
        check("", true, (0, 0, 0));
        check(ok, true, (3, 0, 1));
        check(&format!("running 4 tests\n{ok}noise\n{bad}"), false, (4, 2, 1));
        // Nothing failed, yet the run did: it did not compile, or a test process was killed.
        check(ok, false, (3, 1, 1));
        check("error: could not compile", false, (0, 1, 0));
        check("test result: broken", true, (0, 0, 0));
    }
}
