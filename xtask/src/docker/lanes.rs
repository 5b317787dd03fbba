//! What runs side by side, each with an engine of its own: most of the time of these tests is waiting, for a daemon that
//! hangs, for one that comes up, for a project to fall asleep.

use super::testbed::{Daemon, Unavailable};
use super::{COMPOSE, TESTS, images, test};
use crate::cargo::{self, Count};
use crate::run;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

/// Modules of the program's tests that take longest, a lane for each line. All others, and those to come, have one lane.
const LONGEST: &[&[&str]] = &[&["compose::", "example::"], &["moments::", "hang::"]];
/// The package with those modules.
const PROGRAM: &str = "forerun";
/// What keeps the engine so busy that nothing else can keep its time beside it.
const ALONE: &str = "a_hundred_at_once";

/// Tests that share an engine, one after the other.
struct Lane {
    name: String,
    package: &'static str,
    /// For the tests' own program, which is run once with each.
    filters: Vec<Vec<String>>,
}

fn lanes(tests: &[&'static (&'static str, &'static str)]) -> Vec<Lane> {
    let mut lanes = Vec::new();
    for (package, _) in tests {
        if *package != PROGRAM {
            let filters =
                [&["--skip", ALONE][..], &[ALONE]].map(|f| f.iter().map(|w| (*w).to_owned()).collect());
            lanes.push(Lane { name: (*package).to_owned(), package, filters: filters.to_vec() });
            continue;
        }
        let mut others = Vec::new();
        for modules in LONGEST {
            let filter: Vec<String> = modules.iter().map(|module| (*module).to_owned()).collect();
            lanes.push(Lane {
                name: format!("{package}, {}", filter.join(" ")),
                package,
                filters: vec![filter],
            });
            others.extend(modules.iter().flat_map(|module| ["--skip".to_owned(), (*module).to_owned()]));
        }
        lanes.push(Lane { name: format!("{package}, all others"), package, filters: vec![others] });
    }
    lanes
}

/// Runs everything, then what is given alone, over an engine of its own; prints what each lane printed when it is over.
///
/// # Errors
/// There is no engine to be had.
pub(super) fn run(
    tests: &[&'static (&'static str, &'static str)],
    compose: Option<&PathBuf>,
    alone: fn(&Daemon) -> Count,
) -> Result<Count, Unavailable> {
    let lanes = lanes(tests);
    let mut engines = Vec::new();
    for number in 0..=lanes.len() {
        let daemon = Daemon::start(number)?;
        images::make(&daemon).map_err(Unavailable::Broken)?;
        engines.push(daemon);
    }
    // The tests' engines may have kept something; this one has seen nothing.
    let unused = engines.pop();
    let mut count = Count::default();
    thread::scope(|scope| {
        let running: Vec<_> = lanes
            .iter()
            .zip(&engines)
            .map(|(lane, daemon)| scope.spawn(move || one(lane, daemon, compose)))
            .collect();
        for lane in running {
            count.add(lane.join().unwrap_or(Count::FAILED));
        }
    });
    // They would only be in its way.
    drop(engines);
    if let Some(daemon) = unused {
        count.add(alone(&daemon));
    }
    Ok(count)
}

fn one(lane: &Lane, daemon: &Daemon, compose: Option<&PathBuf>) -> Count {
    let began = Instant::now();
    let of: Vec<_> = TESTS.iter().filter(|(package, _)| *package == lane.package).collect();
    let (mut count, mut printed) = (Count::default(), String::new());
    for filter in &lane.filters {
        let mut command = test(&of);
        command.arg("--").args(filter);
        let mut inside = daemon.inside(&command);
        if let Some(program) = compose {
            inside.env(COMPOSE, program);
        }
        let ran = run::kept(&mut inside, run::LIMIT);
        count.add(cargo::count_of(&ran));
        printed += &ran.text;
    }
    let mut text = format!("-- {}: {:.0} s\n{printed}", lane.name, began.elapsed().as_secs_f64());
    if count.failed > 0 {
        text += &format!("the last lines of dockerd's log:\n{}\n", daemon.log_tail());
    }
    // In one piece, since others print too.
    print!("{text}");
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_is_in_one_lane() {
        let all: Vec<_> = TESTS.iter().collect();
        let lanes = lanes(&all);
        let runs = |filter: &[String], name: &str| {
            let mut words = filter.iter();
            let (mut only, mut skip) = (Vec::new(), Vec::new());
            while let Some(word) = words.next() {
                match word.as_str() {
                    "--skip" => skip.extend(words.next()),
                    _ => only.push(word),
                }
            }
            (only.is_empty() || only.iter().any(|w| name.contains(w.as_str())))
                && !skip.iter().any(|w| name.contains(w.as_str()))
        };
        for name in
            ["compose::x", "example::x", "moments::x", "hang::x", "lives::x", "starts::a_hundred_at_once"]
        {
            for program in [true, false] {
                let of = lanes.iter().filter(|lane| (lane.package == PROGRAM) == program);
                let times = of.flat_map(|lane| &lane.filters).filter(|filter| runs(filter, name)).count();
                assert_eq!(times, 1, "{name}");
            }
        }
        assert_eq!(lanes.iter().filter(|lane| lane.package != PROGRAM).count(), TESTS.len() - 1);
    }
}
