//! Runs worlds: one seed with its story, many seeds, the canaries.

use forerun_core::Canary;
use forerun_engine::journal::{self, segment_path};
use forerun_sim::{BUDGET, Fault, Scenario, canary_table, catch, each, run, seeds, shrink};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USAGE: &str =
    "usage: forerun-sim --seed N [--canary NAME] [--off FAULT,...] [--no-shrink] [--journal FOLDER]
       forerun-sim many [--seconds S] [--seeds N] [--from SEED] [--known FILE] [--keep FILE] [--canaries] [--faults]
       forerun-sim canaries [--matrix]
       forerun-sim replay FOLDER
one world with its story, many at once, the bugs built in (--threads N for both), or the journal that a world
has left, decided again by this build";

#[derive(Debug, Default)]
struct Args {
    command: String,
    seed: Option<u64>,
    canary: Option<Canary>,
    off: BTreeSet<Fault>,
    no_shrink: bool,
    seconds: Option<u64>,
    seeds: Option<u64>,
    from: Option<u64>,
    known: Option<PathBuf>,
    keep: Option<PathBuf>,
    canaries: bool,
    /// Say in how many worlds each fault struck.
    faults: bool,
    matrix: bool,
    /// Where to write the journal of a world, or to read it.
    journal: Option<PathBuf>,
    threads: usize,
}

impl Args {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut args = Args { threads, ..Args::default() };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "many" | "canaries" => args.command = word,
                "replay" => (args.journal, args.command) = (Some(value()?.into()), word),
                "--journal" => args.journal = Some(value()?.into()),
                "--no-shrink" => args.no_shrink = true,
                "--canaries" => args.canaries = true,
                "--faults" => args.faults = true,
                "--matrix" => args.matrix = true,
                "--seed" => args.seed = Some(number(&word, &value()?)?),
                "--seconds" => args.seconds = Some(number(&word, &value()?)?),
                "--seeds" => args.seeds = Some(number(&word, &value()?)?),
                "--from" => args.from = Some(number(&word, &value()?)?),
                "--threads" => args.threads = number(&word, &value()?)? as usize,
                "--known" => args.known = Some(value()?.into()),
                "--keep" => args.keep = Some(value()?.into()),
                "--canary" => args.canary = Some(named(&value()?, &Canary::ALL, Canary::name)?),
                "--off" => {
                    for name in value()?.split(',') {
                        args.off.insert(named(name, Fault::ALL, Fault::name)?);
                    }
                }
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        Ok(args)
    }
}

fn number(flag: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{flag}: `{text}` is no whole number"))
}

fn named<T: Copy>(name: &str, all: &[T], of: fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|t| of(*t) == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|t| of(*t)).collect();
        format!("there is no `{name}`; there are {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(what) => {
            eprintln!("forerun-sim: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let good = match (args.command.as_str(), args.seed) {
        ("many", _) => many(&args),
        ("canaries", _) => canaries(&args),
        ("replay", _) => replay(args.journal.as_deref().unwrap_or(Path::new("."))),
        (_, Some(seed)) => one(&args, seed),
        _ => {
            eprintln!("forerun-sim: give --seed N, many, canaries or replay FOLDER\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            eprintln!("forerun-sim: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Replays one seed with its story, and shrinks it where it fails.
fn one(args: &Args, seed: u64) -> Result<bool, String> {
    let scenario =
        Scenario { seed, off: args.off.clone(), canary: args.canary, tell: true, ..Scenario::default() };
    let mut ended = run(&scenario);
    if ended.failure.is_some() && !args.no_shrink {
        let (small, shrunk) = shrink(&scenario);
        let off: Vec<&str> = small.off.iter().map(|f| f.name()).collect();
        println!(
            "shrunk: {} of {} requests left, without the faults {}",
            ended.requests - small.skipped_requests.len() as u32,
            ended.requests,
            off.join(",")
        );
        ended = shrunk;
    }
    for line in &ended.story {
        println!("{line}");
    }
    if let Some(folder) = &args.journal {
        write_journal(folder, &ended.journal).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Ok(match &ended.failure {
        Some(failure) => {
            println!("seed {seed}: {} does not hold: {}", failure.rule, failure.what);
            false
        }
        None => {
            println!("seed {seed}: {} of {} requests served, all holds", ended.served, ended.requests);
            true
        }
    })
}

fn write_journal(folder: &Path, journal: &BTreeMap<u64, Vec<u8>>) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    journal.iter().try_for_each(|(number, bytes)| std::fs::write(segment_path(folder, *number), bytes))
}

/// Whether this build decides as the journal says; a fingerprint of all actions stands in it at each step.
fn replay(folder: &Path) -> Result<bool, String> {
    let report = journal::replay(folder).map_err(|error| error.to_string())?;
    let (steps, actions, mismatches) = (report.steps, report.actions, report.mismatches);
    println!("{} segments, {steps} steps, {actions} actions, {mismatches} otherwise", report.segments);
    if let Some((number, at, event)) = report.first_mismatch {
        println!("the first: step {number}, {event} at {at:?}");
    }
    report.lost.iter().for_each(|lost| println!("lost: {lost}"));
    Ok(steps > 0 && mismatches == 0)
}

/// Known seeds, then fresh ones until the time is over; the closing line is as cargo's tests have it.
fn many(args: &Args) -> Result<bool, String> {
    let known = args.known.as_deref().map_or(Ok(Vec::new()), seeds::read)?;
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let base = args.from.unwrap_or(nanos >> 8 << 20);
    let until = args.seconds.map(|s| Instant::now() + Duration::from_secs(s));
    let most = args.seeds.unwrap_or(if until.is_some() { u64::MAX } else { 1_000 });
    println!("{} known seeds, then fresh ones from {base}", known.len());
    let (mut passed, mut failed, mut requests, mut steps) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut struck: BTreeMap<Fault, (u64, u64)> = BTreeMap::new();
    let mut known = known.into_iter();
    let mut given = 0;
    let next = || {
        known.next().or_else(|| {
            let over = given >= most || until.is_some_and(|until| Instant::now() >= until);
            given += 1;
            (!over).then(|| base.wrapping_add(given - 1))
        })
    };
    let work = |seed: &u64| run(&Scenario { seed: *seed, off: args.off.clone(), ..Scenario::default() });
    each(args.threads, next, work, |seed, ended| {
        requests += u64::from(ended.requests);
        steps += ended.steps;
        for (fault, times) in ended.struck.into_iter().filter(|s| s.1 > 0) {
            let (worlds, all) = struck.entry(fault).or_default();
            (*worlds, *all) = (*worlds + 1, *all + u64::from(times));
        }
        match ended.failure {
            None => passed += 1,
            Some(failure) => {
                failed += 1;
                println!("seed {seed}: {} does not hold: {}", failure.rule, failure.what);
                println!("  cargo run --release -p forerun-sim -- --seed {seed}");
                if let Some(keep) = &args.keep
                    && let Err(error) = seeds::add(keep, seed, &format!("{}: {}", failure.rule, failure.what))
                {
                    println!("  {}: {error}", keep.display());
                }
            }
        }
    });
    println!("{} worlds, {requests} requests, {steps} steps", passed + failed);
    if args.faults {
        print_struck(&struck);
    }
    if args.canaries {
        let missed = caught(args, &BTreeSet::new());
        passed += Canary::ALL.len() as u64 - missed;
        failed += missed;
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    Ok(failed == 0)
}

/// In how many worlds each fault struck, and how often in all of them.
fn print_struck(struck: &BTreeMap<Fault, (u64, u64)>) {
    for fault in Fault::ALL {
        let (worlds, times) = struck.get(fault).copied().unwrap_or_default();
        println!("{:22} in {worlds:>6} worlds, {times:>8} times", fault.name());
    }
}

/// Prints the table of canaries; how many were missed.
fn caught(args: &Args, off: &BTreeSet<Fault>) -> u64 {
    let mut left = Canary::ALL.into_iter();
    let mut found = Vec::new();
    each(args.threads, || left.next(), |c| catch(*c, off, BUDGET), |c, caught| found.push((c, caught)));
    found.sort_by_key(|f| f.0);
    let (table, missed) = canary_table(&found);
    print!("{table}");
    missed.len() as u64
}

fn canaries(args: &Args) -> Result<bool, String> {
    let missed = caught(args, &args.off);
    if args.matrix {
        println!("\n| without the fault | bugs not caught |\n|---|---|");
        let mut jobs = Fault::ALL.iter().copied();
        let mut rows = Vec::new();
        each(
            args.threads,
            || jobs.next(),
            |fault| {
                let off = BTreeSet::from([*fault]);
                let missed = Canary::ALL.into_iter().filter(|c| catch(*c, &off, BUDGET).is_none());
                missed.map(|c| format!("`{}`", c.name())).collect::<Vec<_>>().join(", ")
            },
            |fault, missed| rows.push((fault, missed)),
        );
        rows.sort_by_key(|row| row.0);
        for (fault, missed) in rows {
            println!("| {} (`{}`) | {missed} |", fault.about(), fault.name());
        }
    }
    Ok(missed == 0)
}
