//! The `cache` stage: the public HTTP cache test suite against Forerun's cache, nginx and Varnish, in the same run.
//!
//! The suite is `http-cache-tests` (BSD-3-Clause), installed by npm into the cache folder; nothing of it is kept here.
//! `FORERUN_CACHE_TESTS` names a checkout of a later one. What Forerun fails and one of the others passes must stand in
//! [`KNOWN`] with its reason.

mod servers;
mod suite;

use crate::cargo::{Count, cargo};
use crate::stages::{Context, check, skip};
use crate::{process, run, tools};
use servers::Server;
use std::collections::BTreeMap;
use suite::{Case, Suite, Verdict};

/// Programs beside Forerun, and Debian's packages of them.
const OTHERS: [(&str, &str); 2] = [("nginx", "nginx-light"), ("varnishd", "varnish")];

/// What Forerun does not pass though another does, and why it stays so.
const KNOWN: &[(&str, &str)] = &[
    (
        "age-parse-float",
        "RFC 9111, 5.1, ignores an age that is no whole number; later suites ask for that too",
    ),
    (
        "headers-store-Transfer-Encoding",
        "a coding other than chunked is refused with 502, as RFC 9112 wants of a proxy",
    ),
    (
        "304-etag-update-response-Content-MD5",
        "RFC 9111, 3.2, takes it from the 304; later suites ask for that too",
    ),
    ("304-etag-update-response-ETag", "RFC 9111, 3.2, takes it from the 304; later suites ask for that too"),
    (
        "surrogate-no-store-cc-fresh",
        "Surrogate-Control was never specified; later suites have CDN-Cache-Control",
    ),
    (
        "surrogate-fresh-cc-nostore",
        "Surrogate-Control was never specified; later suites have CDN-Cache-Control",
    ),
];

pub(crate) fn run(_: &Context) -> Count {
    let missing: Vec<&str> =
        OTHERS.iter().filter(|(program, _)| tools::find(program).is_none()).map(|other| other.1).collect();
    if !missing.is_empty()
        && let Err(why) = tools::apt_install(&missing)
    {
        println!("cache: {why}; Forerun is tried without them");
    }
    let suite = match suite::found() {
        Ok(suite) => suite,
        Err(why) => return skip("the public HTTP cache tests", &why),
    };
    let args = ["build", "--package", "forerun-router", "--example", "cached"];
    let built = run::shown(cargo().args(args), run::LIMIT);
    let router = match process::built("debug", "examples/cached") {
        Ok(router) if built.good => router,
        Ok(_) => return check("build", Err(built.trouble.unwrap_or_else(|| "see above".to_owned()))),
        Err(what) => return check("build", Err(what)),
    };
    match compared(&suite, &router) {
        Ok(count) => count,
        Err(what) => check("the public HTTP cache tests", Err(what)),
    }
}

/// Runs the suite through every cache, one after the other, against one origin.
fn compared(suite: &Suite, router: &std::path::Path) -> Result<Count, String> {
    let cases = suite.cases()?;
    let folder = servers::folder()?;
    let origin = suite.origin(&folder)?;
    let mut verdicts: BTreeMap<&str, BTreeMap<String, Verdict>> = BTreeMap::new();
    let starts: [(&str, Result<Server, String>); 3] = [
        ("forerun", servers::forerun(router, origin.port)),
        ("nginx", servers::nginx(&folder, origin.port)),
        ("varnish", servers::varnish(&folder, origin.port)),
    ];
    let mut count = Count::default();
    for (name, started) in starts {
        let server = match started {
            Ok(server) => server,
            Err(why) if name == "forerun" => return Err(why),
            Err(why) => {
                count.add(skip(&format!("the same with {name}"), &why));
                continue;
            }
        };
        verdicts.insert(name, suite::judged(&cases, &suite.results(server.port)?));
    }
    print(&cases, &verdicts);
    let ours = verdicts.get("forerun").ok_or("nothing was run")?;
    // A suite that does not run finds nothing wrong.
    let passed =
        cases.iter().filter(|c| c.is_required() && ours.get(&c.id) == Some(&Verdict::Passed)).count();
    count.add(check(
        &format!("{passed} required cases pass"),
        if passed >= 100 { Ok(()) } else { Err("the suite has more than a hundred that should".to_owned()) },
    ));
    let behind = behind(&cases, &verdicts);
    for (id, why) in KNOWN.iter().filter(|known| behind.contains(&known.0)) {
        println!("known: {id}: {why}");
    }
    let mut new: Vec<&str> =
        behind.iter().filter(|id| KNOWN.iter().all(|known| known.0 != **id)).copied().collect();
    if !new.is_empty() {
        // Much of it waits for something to be two or three seconds old: on a busy machine that goes wrong by chance, but not
        // twice in the same place.
        println!("once more, for {}", new.join(", "));
        let server = servers::forerun(router, origin.port)?;
        let again = suite::judged(&cases, &suite.results(server.port)?);
        new.retain(|id| again.get(*id) != Some(&Verdict::Passed));
    }
    let result = if new.is_empty() { Ok(()) } else { Err(new.join(", ")) };
    count.add(check("no case fails that nginx or Varnish passes", result));
    drop(origin);
    let _ = std::fs::remove_dir_all(&folder);
    Ok(count)
}

/// What Forerun fails of what can be failed, and one of the others passes.
fn behind<'c>(cases: &'c [Case], verdicts: &BTreeMap<&str, BTreeMap<String, Verdict>>) -> Vec<&'c str> {
    let passes = |name: &str, id: &str| verdicts.get(name).and_then(|v| v.get(id)) == Some(&Verdict::Passed);
    let can_fail = cases.iter().filter(|case| case.kind != "check");
    let ids = can_fail.map(|case| case.id.as_str());
    ids.filter(|id| !passes("forerun", id) && (passes("nginx", id) || passes("varnish", id))).collect()
}

/// Cases that pass, by group and cache: what docs/cache.md shows.
fn print(cases: &[Case], verdicts: &BTreeMap<&str, BTreeMap<String, Verdict>>) {
    let mut groups: Vec<&str> = cases.iter().map(|case| case.group.as_str()).collect();
    groups.dedup();
    let row = |name: &str, of: &[&Case]| {
        let cells: Vec<String> = ["forerun", "nginx", "varnish"]
            .iter()
            .map(|cache| {
                let Some(found) = verdicts.get(cache) else { return "-".to_owned() };
                let passed = |case: &&&Case| found.get(&case.id) == Some(&Verdict::Passed);
                of.iter().filter(passed).count().to_string()
            })
            .collect();
        println!("| {name} | {} | {} |", of.len(), cells.join(" | "));
    };
    println!("| cases | of | Forerun | nginx | Varnish |\n|---|--:|--:|--:|--:|");
    for group in groups {
        let of: Vec<&Case> = cases.iter().filter(|c| c.group == group && c.kind != "check").collect();
        if !of.is_empty() {
            row(group, &of);
        }
    }
    for kind in ["required", "optimal"] {
        row(&format!("all {kind}"), &cases.iter().filter(|c| c.kind == kind).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_passes_counts_against_forerun() {
        let case = |id: &str, kind: &str| Case {
            id: id.to_owned(),
            kind: kind.to_owned(),
            group: "g".to_owned(),
            needs: Vec::new(),
        };
        let cases = [
            case("both", "required"),
            case("theirs", "optimal"),
            case("none", "required"),
            case("c", "check"),
        ];
        let of = |passed: &[&str]| -> BTreeMap<String, Verdict> {
            let verdict = |id: &str| if passed.contains(&id) { Verdict::Passed } else { Verdict::Failed };
            ["both", "theirs", "none", "c"].iter().map(|id| ((*id).to_owned(), verdict(id))).collect()
        };
        let verdicts =
            [("forerun", of(&["both"])), ("nginx", of(&["both"])), ("varnish", of(&["theirs", "c"]))].into();
        assert_eq!(behind(&cases, &verdicts), ["theirs"]);
    }
}
