use super::*;
use serde_json::json;

/// The metadata of a workspace of these crates: name, and what each depends on, with the kind of dependency.
fn doctored(crates: &[(&str, &[(&str, &str)])]) -> Value {
    let kind = |k: &str| if k == "normal" { Value::Null } else { json!(k) };
    let packages: Vec<Value> = crates
        .iter()
        .map(|(name, dependencies)| {
            let dependencies: Vec<Value> =
                dependencies.iter().map(|(other, k)| json!({ "name": other, "kind": kind(k) })).collect();
            json!({ "id": format!("id:{name}"), "name": name, "dependencies": dependencies })
        })
        .collect();
    let nodes: Vec<Value> = crates
        .iter()
        .map(|(name, dependencies)| {
            let deps: Vec<Value> = dependencies
                .iter()
                .map(|(other, k)| json!({ "pkg": format!("id:{other}"), "dep_kinds": [{ "kind": kind(k) }] }))
                .collect();
            json!({ "id": format!("id:{name}"), "deps": deps })
        })
        .collect();
    let inside = |name: &&str| name.starts_with("forerun") || *name == "xtask";
    let members: Vec<String> =
        crates.iter().map(|(name, _)| *name).filter(inside).map(|name| format!("id:{name}")).collect();
    json!({ "packages": packages, "resolve": { "nodes": nodes }, "workspace_members": members })
}

const GOOD: &[(&str, &[(&str, &str)])] = &[
    ("forerun", &[("forerun-engine", "normal"), ("tokio", "normal")]),
    ("forerun-engine", &[("forerun-api", "normal"), ("forerun-core", "normal")]),
    ("forerun-api", &[("forerun-types", "normal")]),
    ("forerun-route", &[("forerun-types", "normal"), ("rand", "dev")]),
    ("forerun-core", &[("forerun-types", "normal"), ("serde", "normal")]),
    ("forerun-types", &[("serde", "normal")]),
    ("serde", &[]),
    ("rand", &[]),
    ("tokio", &[("mio", "normal")]),
    ("mio", &[]),
];

/// `GOOD` with one crate's dependencies replaced.
fn with(name: &str, dependencies: &'static [(&'static str, &'static str)]) -> Value {
    let crates: Vec<_> =
        GOOD.iter().map(|(n, d)| if *n == name { (*n, dependencies) } else { (*n, *d) }).collect();
    doctored(&crates)
}

fn check(problems: &[String], expect: &[&str]) {
    assert_eq!(problems.len(), expect.len(), "{problems:#?}");
    for (problem, part) in problems.iter().zip(expect) {
        assert!(problem.contains(part), "{problem}");
    }
}

#[test]
fn arrows_that_point_down_are_good() {
    let metadata = doctored(GOOD);
    check(&arrows(&metadata), &[]);
    check(&impure_dependencies(&metadata).unwrap(), &[]);
}

#[test]
fn arrows_that_may_not_be_are_found() {
    let up = with("forerun-types", &[("forerun-core", "normal")]);
    check(&arrows(&up), &["forerun-types depends on forerun-core, which is not below it"]);
    let up_in_tests = with("forerun-core", &[("forerun-engine", "dev")]);
    check(&arrows(&up_in_tests), &["forerun-core depends on forerun-engine, which is not below it"]);
    let side = with("forerun-api", &[("forerun-core", "normal")]);
    check(&arrows(&side), &["forerun-api depends on forerun-core; it may use forerun-types"]);
    check(&arrows(&with("forerun-api", &[("forerun-core", "dev")])), &[]);
    check(&arrows(&with("forerun-api", &[("forerun-core", "build")])), &["it may use forerun-types"]);
    let unknown = doctored(&[("forerun-new", &[])]);
    check(&arrows(&unknown), &["forerun-new has no place"]);
}

#[test]
fn what_is_impure_is_found_however_far_below() {
    let direct = with("forerun-core", &[("tokio", "normal")]);
    check(
        &impure_dependencies(&direct).unwrap(),
        &["forerun-core reaches mio through tokio", "forerun-core reaches tokio through forerun-core"],
    );
    check(&impure_dependencies(&with("forerun-core", &[("tokio", "dev")])).unwrap(), &[]);
    // What types reaches, its users reach.
    let below = with("forerun-types", &[("rand", "normal")]);
    assert_eq!(impure_dependencies(&below).unwrap().len(), 3);
}

#[test]
fn crate_that_is_not_there_is_no_success() {
    let missing: Vec<_> = GOOD.iter().filter(|(n, _)| *n != "forerun-core").copied().collect();
    assert!(impure_dependencies(&doctored(&missing)).unwrap_err().contains("no crate forerun-core"));
}

#[test]
fn document_must_say_the_same() {
    let metadata = doctored(GOOD);
    let good = "| `forerun` | x | all below | y |\n| `forerun-engine` | x | all below | y |\n\
                | `forerun-api` | x | `forerun-types` | y |\n| `forerun-route` | x | `forerun-types` | y |\n\
                | `forerun-core` | x | `forerun-types` | y |\n| `forerun-types` | x | nothing | y |\n";
    check(&document_problems(&metadata, good), &[]);
    check(
        &document_problems(&metadata, &good.replace("`forerun-api`", "`forerun-apple`")),
        &["no row for forerun-api", "a row for forerun-apple, which is not there"],
    );
    check(
        &document_problems(&metadata, &good.replace("x | nothing", "x | `forerun-core`")),
        &["says that forerun-types may use forerun-core; the rule is nothing"],
    );
}
