//! Benchmarks: each prints what was measured beside a reference measured in the same run, and their ratio. Machines
//! differ and are noisy; ratios travel.

mod cache;
mod core;
mod forecast;
mod plan;
mod predict;
mod processor;
mod replay;
mod router;
mod sets;
mod specialise;
mod users;
mod wake;
mod wake_busy;
mod wake_docker;

use serde::Serialize;

/// One figure. `value` and `reference_value` have the same unit.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    reference: &'static str,
    reference_value: f64,
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Bench {
    bench: &'static str,
    results: Vec<Figure>,
}

impl Figure {
    fn new(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        reference: &'static str,
        reference_value: f64,
    ) -> Self {
        Self { name: name.into(), value, unit, reference, reference_value, ratio: value / reference_value }
    }
}

type Run = fn() -> Vec<Figure>;

/// Every benchmark by its name.
const BENCHES: [(&str, Run); 10] = [
    ("cache", cache::run),
    ("core", core::run),
    ("forecast", forecast::run),
    ("plan", plan::run),
    ("predict", predict::run),
    ("replay", replay::run),
    ("wake", wake::run),
    ("router", router::run),
    ("specialise", specialise::run),
    ("users", users::run),
];

fn main() {
    // `wake`, `router` and `specialise` start this program again: as what they run, and as the process backend's helpers.
    match std::env::args().nth(1).as_deref() {
        Some("__reaper") => forerun_backends::reaper_main(),
        Some("__launch") => forerun_backends::launcher_main(),
        Some("__cached") => {
            cache::serve(std::env::args().skip(2));
            return;
        }
        Some("__fixture") => {
            forerun_backends::fixture::main(std::env::args().skip(2));
            return;
        }
        _ => {}
    }
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let json = flags.iter().any(|f| f == "--json");
    if let Some(flag) = flags.iter().find(|f| *f != "--json") {
        fail(&format!("unknown flag {flag}; there is --json"));
    }
    let known: Vec<&str> = BENCHES.iter().map(|b| b.0).collect();
    if names.is_empty() {
        fail(&format!("name one or more of: {}", known.join(", ")));
    }
    for name in &names {
        let Some((bench, run)) = BENCHES.iter().find(|b| b.0 == name) else {
            fail(&format!("no benchmark is called {name}; there are: {}", known.join(", ")));
        };
        let bench = Bench { bench, results: run() };
        if json {
            println!("{}", serde_json::to_string(&bench).unwrap_or_default());
        } else {
            print(&bench);
        }
    }
}

fn print(bench: &Bench) {
    for f in &bench.results {
        println!(
            "{}: {:<44} {:>12.3} {:<14} {:>12.3} ({})  ratio {:.3}",
            bench.bench, f.name, f.value, f.unit, f.reference_value, f.reference, f.ratio
        );
    }
}

fn fail(why: &str) -> ! {
    eprintln!("forerun-bench: {why}");
    std::process::exit(2);
}
