//! `cargo xtask`: everything that is done to this repository and is no part of the product.
//!
//! `test` runs every test in stages, `bench` runs the benchmarks. See CONTRIBUTING.md.

mod agreement;
mod bars;
mod bench;
mod cache;
mod cargo;
mod described;
mod docker;
mod kill;
mod lint;
mod process;
mod run;
mod simulate;
mod stages;
mod structure;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [--only STAGE,...] [--list] [--cold]
       cargo xtask bench NAME... [--json]
       cargo xtask soak simulate
       cargo xtask soak kill [TIMES]
       cargo xtask docker-shell COMMAND...";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => return bad_arguments("no command given"),
    };
    match command {
        "test" => match stages::Wanted::parse(rest) {
            Ok(wanted) => stages::test(&wanted),
            Err(what) => bad_arguments(&what),
        },
        "bench" => match bench::Wanted::parse(rest) {
            Ok(wanted) => bench::bench(&wanted),
            Err(what) => bad_arguments(&what),
        },
        "soak" => match rest {
            [name] if name == "simulate" => simulate::soak(),
            [name, times @ ..] if name == "kill" && times.len() < 2 => match kill::times(times.first()) {
                Ok(times) => kill::soak(times),
                Err(what) => bad_arguments(&what),
            },
            _ => bad_arguments("soak needs a name; there are simulate and kill"),
        },
        "docker-shell" => docker::shell(rest),
        // What the `process` stage gives Forerun to run; see there.
        "__app" => match process::app() {
            Ok(()) => ExitCode::SUCCESS,
            Err(what) => {
                eprintln!("xtask: __app: {what}");
                ExitCode::FAILURE
            }
        },
        "--help" | "-h" | "help" => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        other => bad_arguments(&format!("unknown command {other}")),
    }
}

fn bad_arguments(what: &str) -> ExitCode {
    eprintln!("xtask: {what}\n{USAGE}");
    ExitCode::from(2)
}
