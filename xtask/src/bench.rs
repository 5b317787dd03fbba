//! `cargo xtask bench`: runs benchmarks of `forerun-bench` and holds what they print to its shape.

use crate::cargo::{array, cargo};
use crate::docker;
use crate::run::{self, Ran};
use serde_json::Value;
use std::process::ExitCode;

/// The crate that holds the benchmarks; each prints one JSON document on a line.
const CRATE: &str = "forerun-bench";

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    names: Vec<String>,
    json: bool,
}

impl Wanted {
    /// # Errors
    /// No name, or an argument that there is not.
    pub(crate) fn parse(args: &[String]) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        for arg in args {
            match arg.as_str() {
                "--json" => wanted.json = true,
                flag if flag.starts_with('-') => return Err(format!("unknown argument {flag}")),
                name => wanted.names.push(name.to_owned()),
            }
        }
        if wanted.names.is_empty() {
            Err("bench needs the name of a benchmark, as core".to_owned())
        } else {
            Ok(wanted)
        }
    }
}

/// Runs the benchmarks one after the other. `--json` prints one document: an object, or for several names a list.
pub(crate) fn bench(wanted: &Wanted) -> ExitCode {
    let mut done = Vec::new();
    for name in &wanted.names {
        let ran = run_one(name);
        if !ran.good {
            let what = ran.trouble.unwrap_or_else(|| "it failed, see above".to_owned());
            eprintln!("xtask: bench {name}: {what}");
            return ExitCode::FAILURE;
        }
        match read(name, &ran.text) {
            Ok(document) => done.push(document),
            Err(what) => {
                eprintln!("xtask: bench {name}: {what}");
                return ExitCode::FAILURE;
            }
        }
    }
    if wanted.json {
        let document = if done.len() == 1 { done.remove(0) } else { Value::Array(done) };
        println!("{document}");
    } else {
        done.iter().for_each(print);
    }
    ExitCode::SUCCESS
}

/// Runs one benchmark; `wake` beside a Docker Engine of its own, where there can be one.
fn run_one(name: &str) -> Ran {
    let args = ["run", "--quiet", "--release", "--package", CRATE, "--", name, "--json"];
    let mut command = cargo();
    command.args(args);
    if name != "wake" {
        return run::quiet(&mut command, run::LIMIT);
    }
    // Built before, and outside: inside there is no network.
    let built = run::quiet(cargo().args(["build", "--quiet", "--release", "--package", CRATE]), run::LIMIT);
    if !built.good {
        return built;
    }
    match docker::found() {
        Ok(daemon) => run::quiet(&mut daemon.inside(&command), run::LIMIT),
        Err(why) => {
            eprintln!("xtask: bench wake: no docker engine to measure: {why}");
            run::quiet(&mut command, run::LIMIT)
        }
    }
}

/// What a benchmark printed, if it has the shape that is promised.
fn read(name: &str, text: &str) -> Result<Value, String> {
    let document: Value = serde_json::from_str(text).map_err(|e| format!("prints no JSON document: {e}"))?;
    if document["bench"] != name {
        return Err(format!("prints a document of {}", document["bench"]));
    }
    let results: Vec<&Value> = array(&document["results"]).collect();
    if results.is_empty() {
        return Err("has no results".to_owned());
    }
    for result in results {
        for key in ["name", "unit", "reference"] {
            result[key].as_str().ok_or_else(|| format!("a result has no {key}: {result}"))?;
        }
        for key in ["value", "reference_value", "ratio"] {
            result[key].as_f64().ok_or_else(|| format!("a result has no {key}: {result}"))?;
        }
    }
    Ok(document)
}

fn print(document: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    for result in array(&document["results"]) {
        println!(
            "{}: {:<44} {:>14.3} {:<14} {:>14.3} ({})  ratio {:.3}",
            text(&document["bench"]),
            text(&result["name"]),
            number(&result["value"]),
            text(&result["unit"]),
            number(&result["reference_value"]),
            text(&result["reference"]),
            number(&result["ratio"]),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_promised_shape() {
        let result = r#"{"name":"a","value":1,"unit":"s","reference":"b","reference_value":2.5,"ratio":0.4}"#;
        let document = |results: &str| format!(r#"{{"bench":"core","results":[{results}]}}"#);
        for (text, expect) in [
            (document(result), ""),
            (document(""), "no results"),
            (document(&result.replace("\"ratio\":0.4", "\"ratio\":null")), "no ratio"),
            (document(&result.replace("\"unit\":\"s\"", "\"unit\":3")), "no unit"),
            (document(result).replace("core", "wake"), "a document of \"wake\""),
            ("hello".to_owned(), "no JSON"),
        ] {
            match read("core", &text) {
                Ok(_) => assert!(expect.is_empty(), "{text}"),
                Err(what) => assert!(!expect.is_empty() && what.contains(expect), "{text}: {what}"),
            }
        }
    }

    #[test]
    fn arguments_are_read() {
        let parse = |args: &[&str]| Wanted::parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&["core", "--json"]), Ok(Wanted { names: vec!["core".to_owned()], json: true }));
        assert!(parse(&["--json"]).unwrap_err().contains("needs the name"));
        assert!(parse(&["--jsn"]).unwrap_err().contains("unknown argument"));
    }
}
