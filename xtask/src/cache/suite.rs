//! The suite: where it is, its cases, its origin, and what its client finds.

use super::servers::{self, Server};
use crate::{run, tools};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const VERSION: &str = "0.4.5";
/// One cache takes some twenty seconds; most of it the suite waits for things to grow stale.
const LIMIT: Duration = Duration::from_secs(300);

/// Prints the cases: only the suite's own modules know them.
const LIST: &str = "
import { pathToFileURL } from 'node:url'
const suites = (await import(pathToFileURL(process.argv[1]))).default
const cases = suites.flatMap(s => s.tests.filter(t => !t.browser_only).map(t => ({
  id: t.id, kind: t.kind || 'required', group: s.name, needs: t.depends_on || []
})))
console.log(JSON.stringify(cases))
";

/// One case of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) id: String,
    /// `required`, `optimal`, or `check`: a question without a wrong answer.
    pub(super) kind: String,
    pub(super) group: String,
    /// Cases without which this one says nothing.
    pub(super) needs: Vec<String>,
}

impl Case {
    pub(super) fn is_required(&self) -> bool {
        self.kind == "required"
    }
}

/// What came of a case with one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// What it needs did not pass, or could not be set up.
    Nothing,
}

/// A suite on the disk.
#[derive(Debug)]
pub(super) struct Suite {
    node: PathBuf,
    cases: PathBuf,
    client: PathBuf,
    server: PathBuf,
    folder: PathBuf,
}

/// The suite that is named, or the published one, installed first if it is not there.
///
/// # Errors
/// There is no node or npm, or nothing to install from.
pub(super) fn found() -> Result<Suite, String> {
    let node = tools::find("node").ok_or("there is no node to run them with")?;
    let folder = match std::env::var_os("FORERUN_CACHE_TESTS") {
        Some(folder) => PathBuf::from(folder),
        None => installed()?,
    };
    let engine =
        if folder.join("test-engine").is_dir() { folder.join("test-engine") } else { folder.clone() };
    let suite = Suite {
        node,
        cases: folder.join("tests/index.mjs"),
        client: engine.join("cli.mjs"),
        server: engine.join("server/server.mjs"),
        folder,
    };
    for file in [&suite.cases, &suite.client, &suite.server] {
        if !file.is_file() {
            return Err(format!("{} is no file of them", file.display()));
        }
    }
    Ok(suite)
}

fn installed() -> Result<PathBuf, String> {
    let folder = tools::folder_of(&format!("http-cache-tests {VERSION}"));
    let suite = folder.join("node_modules/http-cache-tests");
    if suite.join("cli.mjs").is_file() {
        return Ok(suite);
    }
    let npm = tools::find("npm").ok_or("there is no npm to install them with")?;
    println!("installing http-cache-tests {VERSION} into the cache; this happens once");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut command = Command::new(npm);
    command.args(["install", "--no-save", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]);
    command.arg("--prefix").arg(&folder).arg(format!("http-cache-tests@{VERSION}")).current_dir(&folder);
    let ran = run::shown(&mut command, run::LIMIT);
    if ran.good && suite.join("cli.mjs").is_file() {
        return Ok(suite);
    }
    Err(ran.trouble.unwrap_or_else(|| "npm does not install them (it takes a registry)".to_owned()))
}

impl Suite {
    fn node(&self) -> Command {
        let mut command = Command::new(&self.node);
        // Its scripts read npm's settings from the environment.
        command.arg("--no-warnings").current_dir(&self.folder).env("npm_package_config_id", "");
        command
    }

    /// # Errors
    /// Its modules cannot be read.
    pub(super) fn cases(&self) -> Result<Vec<Case>, String> {
        let mut command = self.node();
        command.args(["--input-type=module", "--eval", LIST]).arg(&self.cases);
        let ran = run::quiet(&mut command, LIMIT);
        let list: Value = serde_json::from_str(&ran.text).map_err(|e| format!("no list of cases: {e}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let case = |value: &Value| Case {
            id: text(&value["id"]),
            kind: text(&value["kind"]),
            group: text(&value["group"]),
            needs: crate::cargo::array(&value["needs"]).map(text).collect(),
        };
        Ok(crate::cargo::array(&list).map(case).collect())
    }

    /// The server that the caches stand before.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) fn origin(&self, folder: &Path) -> Result<Server, String> {
        let port = servers::free_port()?;
        let mut command = self.node();
        command
            .arg(&self.server)
            .env("npm_config_protocol", "http")
            .env("npm_config_port", port.to_string())
            .env("npm_config_pidfile", folder.join("origin.pid"));
        servers::started("the suite's server", command, port)
    }

    /// What its client finds through the cache at a port.
    ///
    /// # Errors
    /// It fails, or hangs.
    pub(super) fn results(&self, port: u16) -> Result<Value, String> {
        let mut command = self.node();
        command.arg(&self.client).env("npm_config_base", format!("http://127.0.0.1:{port}"));
        let ran = run::quiet(&mut command, LIMIT);
        if let Some(trouble) = ran.trouble {
            return Err(format!("the suite's client {trouble}"));
        }
        serde_json::from_str(&ran.text).map_err(|e| format!("the suite's client prints no JSON: {e}"))
    }
}

/// Each case's verdict, what it needs counted in.
pub(super) fn judged(cases: &[Case], results: &Value) -> BTreeMap<String, Verdict> {
    let by_id: BTreeMap<&str, &Case> = cases.iter().map(|case| (case.id.as_str(), case)).collect();
    cases.iter().map(|case| (case.id.clone(), judge(case, &by_id, results, 0))).collect()
}

fn judge(case: &Case, by_id: &BTreeMap<&str, &Case>, results: &Value, depth: usize) -> Verdict {
    /// Deeper than any chain of what needs what: a ring would have no end.
    const DEPTH_MAX: usize = 20;
    let holds = |id: &String| match by_id.get(id.as_str()) {
        Some(other) if depth < DEPTH_MAX => judge(other, by_id, results, depth + 1) == Verdict::Passed,
        _ => true,
    };
    match &results[&case.id] {
        _ if !case.needs.iter().all(holds) => Verdict::Nothing,
        Value::Bool(true) => Verdict::Passed,
        found if found[0] == "Assertion" => Verdict::Failed,
        _ => Verdict::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_case_says_nothing_where_what_it_needs_does_not_pass() {
        let case = |id: &str, needs: &[&str]| Case {
            id: id.to_owned(),
            kind: "required".to_owned(),
            group: "g".to_owned(),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        };
        let cases =
            [case("a", &[]), case("b", &["a"]), case("c", &["b"]), case("d", &["x"]), case("e", &["e"])];
        let results =
            json!({ "a": true, "b": ["Assertion", "no"], "c": true, "d": ["Setup", "no"], "e": true });
        let verdicts: Vec<Verdict> = judged(&cases, &results).into_values().collect();
        use Verdict::{Failed, Nothing, Passed};
        assert_eq!(verdicts, [Passed, Failed, Nothing, Nothing, Passed]);
    }
}
