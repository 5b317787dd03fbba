//! Holds the workspace to its shape: who may depend on whom, what the pure crates may not touch, and that
//! ARCHITECTURE.md says the same.

mod scan;

use crate::cargo::array;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A crate and what it may use. In order: an arrow may only point down, in tests too.
const ARROWS: &[(&str, &[&str])] = &[
    ("xtask", &[]),
    ("forerun-bench", &["*"]),
    ("forerun", &["*"]),
    ("forerun-demo", &["*"]),
    (
        "forerun-sim",
        &["forerun-engine", "forerun-backends", "forerun-route", "forerun-core", "forerun-types"],
    ),
    ("forerun-engine", &["*"]),
    ("forerun-api", &["forerun-types"]),
    ("forerun-lab", &["forerun-types", "forerun-core", "forerun-route", "forerun-trace"]),
    ("forerun-router", &["forerun-types", "forerun-route", "forerun-cache"]),
    ("forerun-cache", &["forerun-types"]),
    ("forerun-backends", &["forerun-types"]),
    ("forerun-trace", &["forerun-types"]),
    ("forerun-route", &["forerun-types"]),
    ("forerun-core", &["forerun-types"]),
    ("forerun-types", &[]),
];

/// The crates that decide: no IO, no clock, no chance.
pub(crate) const PURE: &[&str] = &["forerun-types", "forerun-core", "forerun-route"];

/// What must be nowhere below a pure crate, each with what it would bring.
const IMPURE: &[(&str, &str)] = &[
    ("async-std", "async"),
    ("chrono", "a clock"),
    ("crossbeam-channel", "threads"),
    ("fastrand", "unseeded randomness"),
    ("getrandom", "unseeded randomness"),
    ("hyper", "sockets"),
    ("jiff", "a clock"),
    ("libc", "IO"),
    ("mio", "sockets"),
    ("nix", "IO"),
    ("rand", "randomness of its own"),
    ("rayon", "threads"),
    ("rustix", "IO"),
    ("smol", "async"),
    ("socket2", "sockets"),
    ("time", "a clock"),
    ("tokio", "async"),
];

/// Everything that is wrong, one line each; empty is good.
///
/// # Errors
/// The metadata or a file cannot be read.
pub(crate) fn problems(metadata: &Value, root: &Path) -> Result<Vec<String>, String> {
    let mut problems = arrows(metadata);
    problems.extend(impure_dependencies(metadata)?);
    let document = root.join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&document).map_err(|e| format!("{}: {e}", document.display()))?;
    problems.extend(document_problems(metadata, &text));
    problems.extend(scan::pure_sources(root)?);
    problems.extend(scan::machine_paths(root)?);
    Ok(problems)
}

/// The workspace's packages, by name.
fn members(metadata: &Value) -> BTreeMap<&str, &Value> {
    let ids: BTreeSet<&str> = array(&metadata["workspace_members"]).filter_map(Value::as_str).collect();
    array(&metadata["packages"])
        .filter(|p| p["id"].as_str().is_some_and(|id| ids.contains(id)))
        .filter_map(|p| Some((p["name"].as_str()?, p)))
        .collect()
}

fn place(name: &str) -> Option<usize> {
    ARROWS.iter().position(|(crate_name, _)| *crate_name == name)
}

/// Arrows between crates of the workspace that may not be.
fn arrows(metadata: &Value) -> Vec<String> {
    let members = members(metadata);
    let mut problems = Vec::new();
    for (name, package) in &members {
        let Some(at) = place(name) else {
            problems.push(format!(
                "{name} has no place in the order of crates; add it to ARROWS in xtask/src/structure.rs"
            ));
            continue;
        };
        for dependency in array(&package["dependencies"]) {
            let Some(other) = dependency["name"].as_str().filter(|n| members.contains_key(n)) else {
                continue;
            };
            let down = place(other).is_some_and(|place| place > at);
            let allowed = ARROWS[at].1;
            if !down {
                problems.push(format!("{name} depends on {other}, which is not below it"));
            } else if dependency["kind"] != "dev" && !allowed.contains(&"*") && !allowed.contains(&other) {
                let may = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
                problems.push(format!("{name} depends on {other}; it may use {may}"));
            }
        }
    }
    problems
}

/// What pure crates reach through normal dependencies and may not.
fn impure_dependencies(metadata: &Value) -> Result<Vec<String>, String> {
    let names: BTreeMap<&str, &str> =
        array(&metadata["packages"]).filter_map(|p| Some((p["id"].as_str()?, p["name"].as_str()?))).collect();
    let nodes: BTreeMap<&str, &Value> =
        array(&metadata["resolve"]["nodes"]).filter_map(|n| Some((n["id"].as_str()?, n))).collect();
    let members = members(metadata);
    let mut problems = Vec::new();
    for pure in PURE {
        // A misspelt name would pass every test.
        let package = members.get(pure).ok_or_else(|| format!("no crate {pure} in the workspace"))?;
        let start = package["id"].as_str().unwrap_or_default();
        // Each crate that is reached, and through which.
        let mut from: BTreeMap<&str, &str> = BTreeMap::from([(start, "")]);
        let mut open = vec![start];
        while let Some(id) = open.pop() {
            let node = nodes.get(id).ok_or_else(|| format!("cargo metadata does not resolve {id}"))?;
            for dependency in array(&node["deps"]) {
                let normal = array(&dependency["dep_kinds"]).any(|k| k["kind"].is_null());
                let Some(next) = dependency["pkg"].as_str().filter(|_| normal) else { continue };
                if !from.contains_key(next) {
                    from.insert(next, id);
                    open.push(next);
                }
            }
        }
        for (id, parent) in &from {
            let name = names.get(id).copied().unwrap_or_default();
            if let Some((_, brings)) = IMPURE.iter().find(|(n, _)| *n == name) {
                let through = names.get(parent).copied().unwrap_or_default();
                problems.push(format!("{pure} reaches {name} through {through}, which brings {brings}"));
            }
        }
    }
    Ok(problems)
}

/// Crates that ARCHITECTURE.md does not list, or lists with other arrows. Its table's rows are
/// `` | `crate` | ... | may use | ... | ``.
fn document_problems(metadata: &Value, text: &str) -> Vec<String> {
    let mut rows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, name, _, may, ..] = cells[..] {
            rows.insert(name.trim_matches('`'), may.split(',').map(|m| m.trim().trim_matches('`')).collect());
        }
    }
    let members = members(metadata);
    let mut problems = Vec::new();
    for (name, allowed) in ARROWS.iter().filter(|(name, _)| members.contains_key(name)) {
        let expect: BTreeSet<&str> = match *allowed {
            [] => BTreeSet::from(["nothing"]),
            ["*"] => BTreeSet::from(["all below"]),
            // Of those, what is there.
            list => list.iter().copied().filter(|n| members.contains_key(n)).collect(),
        };
        match rows.get(name) {
            None => problems.push(format!("ARCHITECTURE.md has no row for {name}")),
            Some(says) if *says != expect => {
                let list = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(", ");
                problems.push(format!(
                    "ARCHITECTURE.md says that {name} may use {}; the rule is {}",
                    list(says),
                    list(&expect)
                ));
            }
            Some(_) => {}
        }
    }
    for name in rows.keys().filter(|n| n.starts_with("forerun") && !members.contains_key(**n)) {
        problems.push(format!("ARCHITECTURE.md has a row for {name}, which is not there"));
    }
    problems
}

#[cfg(test)]
mod tests;
