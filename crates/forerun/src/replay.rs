//! `forerun replay`: what policies would have done on a recorded trace.

mod journal;
mod keys;
mod page;
mod print;
pub(crate) mod progress;
mod rows;
mod sizes;
mod sweep;
mod times;
mod whatif;

pub(crate) use sizes::bytes;

use crate::config::Config;
use crate::failure::Failure;
use clap::Args;
use forerun_lab::{Capacity, Decision, LabError, Options, Outcome, PolicyName, World, write_decisions};
use forerun_trace::{
    ColumnMap, Format, Input, KeyFormat, ReadOptions, ReadReport, Recorded, TraceError, parse_duration,
};
use forerun_types::Time;
use progress::Progress;
use rows::{Row, Table};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;
use sweep::Sweep;
use times::Times;
use whatif::Journal;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Files of one format, or a folder of whole minutes; `-` is standard input, .gz and .zst are read as they are
    #[arg(required_unless_present = "journal", value_name = "TRACE")]
    traces: Vec<String>,
    /// Instead of a trace, a journal of `forerun up`: a segment or its folder. Its actions must come out the same; with
    /// --policy, or a flag that is about another world, its traffic is decided anew
    #[arg(long, value_name = "FILE", conflicts_with = "traces")]
    journal: Option<PathBuf>,
    /// forerun, csv, access-log, azure2021, azure2019 or minutes [default: guessed from the first lines]
    #[arg(long)]
    format: Option<String>,
    /// For --format csv: which column is what
    #[arg(long, value_name = "at=COL,service=COL,...")]
    map: Option<String>,
    /// Access logs: path:N, host or a name [default: path:1]; Azure traces: app or func
    #[arg(long, value_name = "RULE")]
    service: Option<String>,
    /// Access logs: address, login or none [default: address]
    #[arg(long, value_name = "WHO")]
    user: Option<String>,
    /// Fail at the first line that cannot be read, instead of skipping it
    #[arg(long)]
    strict: bool,
    /// forerun, forerun-no-users, forerun-no-load, none, keep-alive=DURATION, hazard, always-on, lru, faascache, histogram,
    /// knative, hpa, optimal-keep, optimal-prewarm, belady; settings as in knative=target:0.7,window:60s; several, separated by
    /// commas, side by side [default: forerun; with --html also keep-alive=10m, knative and always-on]
    #[arg(long, value_name = "P[,P...]")]
    policy: Vec<String>,
    /// How long a start takes [default: 10s; of a journal: as measured]
    #[arg(long, value_name = "DURATION")]
    start: Option<String>,
    /// Memory of one instance where the trace does not tell
    #[arg(long, value_name = "BYTES", default_value = "1GB")]
    memory: String,
    /// Requests that an instance serves at a time; 0 is any number [default: 1; of a journal: as described]
    #[arg(long, value_name = "N")]
    per_instance: Option<u32>,
    /// How long a request takes where the trace has no such column
    #[arg(long, value_name = "DURATION", default_value = "50ms")]
    duration: String,
    /// What may exist at once: a number of instances, or bytes with their unit
    #[arg(long, value_name = "BYTES|N")]
    capacity: Option<String>,
    /// Services' classes, min, max and schedules (read as UTC) from a configuration, for the forerun policies
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// GB-seconds that one cold start is worth, where no class of --config says otherwise [default: 80.55; of a journal:
    /// as its services' classes say, if that is one price]
    #[arg(long, value_name = "X")]
    cold_start_cost: Option<f64>,
    /// Learn before, score after: a part of the trace below 1, or a TIME
    #[arg(long, value_name = "FRACTION|TIME")]
    split: Option<String>,
    /// Score only the services named in this file, one a line
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,
    /// Read the trace only to there: seconds from its start, or a date
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Seed of the router's draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Write the first policy's decisions: time_s,service,instances_wanted
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
    /// Score every policy at each of several prices, capacities or times of starting, or several keep-alives:
    /// cold-start-cost=20,40,80,160, capacity=8,16,32GB, start=1s,10s, keep-alive=1m,10m; may be given several times
    #[arg(long, value_name = "KEY=X,X,...")]
    sweep: Vec<String>,
    /// Instead of policies, caches of so many keys (or bytes, with their unit) on a trace of keys: hit ratios of Forerun's own store
    /// beside lru, arc, s3-fifo, w-tinylfu and the optimum. Of an access log also with
    /// prefetch. Formats: keys, keys-arc, keys-lirs, keys-i32, keys-i64, mooncake, access-log
    #[arg(long, value_name = "SIZE[,SIZE...]", conflicts_with_all = [
        "journal", "map", "service", "user", "policy", "start", "per_instance", "capacity", "config", "cold_start_cost",
        "only", "until", "decisions", "sweep", "html",
    ])]
    cache: Vec<String>,
    /// Write a page with the table, cold starts against memory as a chart, and what each policy cost and saved
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What is said of policies where nobody says which.
const ALONE: &str = "forerun";
/// A page compares.
const COMPARED: &str = "forerun,keep-alive=10m,knative,always-on";

/// Reads, replays, prints. Scores go to `out`; notes and progress to standard error.
///
/// # Errors
/// Arguments that do not fit each other or the trace, files that cannot be read or written.
pub(crate) fn run(args: &ReplayArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if let (Some(path), true) = (&args.journal, args.only_checks()) {
        return journal::run(path, args.json, out);
    }
    if !args.cache.is_empty() {
        return keys::run(args, out);
    }
    let default = if args.html.is_some() { COMPARED } else { ALONE };
    let mut policies = policies(&args.policy, default)?;
    let mut options = options(args)?;
    let journal = args.journal.as_deref().map(|path| Journal::read(path, args, &mut options)).transpose()?;
    let sweep = Sweep::parse(args, &options)?;
    policies.extend(sweep.policies.iter().cloned());
    let (mut recorded, journal) = match journal {
        Some((recorded, journal)) => (recorded, Some(journal)),
        None => (read(args)?, None),
    };
    let times = Times::of(&recorded);
    if let Some(text) = &args.until {
        let until = times.parse("--until", text)?;
        if cut(&mut recorded, until) {
            options.until = Some(until);
        }
    }
    if let Some(text) = &args.split {
        options.split = times.split(text)?;
        if options.split > times.zero + times.length {
            return Err(bad(format!(
                "--split: {text} is after the last request, so that none would be scored"
            )));
        }
    }
    let (requests, names) = size(&recorded);
    if requests == 0 {
        let what = if journal.is_some() { "the journal has no request" } else { "the trace has no request" };
        return Err(Failure::Running(format!("{what} before --until")));
    }
    let runs = (sweep.points.len() * policies.len()) as u64;
    let mut progress = Progress::new("replaying", Some(requests * runs));
    let began = Instant::now();
    let mut rows = Vec::new();
    for point in &sweep.points {
        point.apply(&mut options, journal.is_some() && args.config.is_none());
        for (text, policy) in &policies {
            let done = rows.len() as u64 * requests;
            let outcome =
                replay(*policy, text, &recorded, &options, &mut |n| progress.at(done + n.min(requests)))?;
            if let (Some(path), true) = (&args.decisions, rows.is_empty()) {
                save(path, &outcome.decisions, &names, times.zero)?;
            }
            rows.push(Row::new(outcome.scores, &point.told, policy.knows_the_future()));
        }
    }
    let seconds = began.elapsed().as_secs_f64().max(1e-9);
    drop(progress);
    notes(report(&recorded));
    let mut table = Table { rows, speed: (requests * runs) as f64 / seconds };
    table.weigh();
    if let Some(path) = &args.html {
        let prices = args.config.as_deref().map(Config::load).transpose()?.map(|config| config.prices);
        let page = page::page(&args.name(), &recorded, &times, &table, prices);
        std::fs::write(path, page)
            .map_err(|e| Failure::Running(format!("cannot write {}: {e}", path.display())))?;
    }
    if args.json {
        let document = print::document(args, &recorded, &times, &table, journal.as_ref());
        let text = serde_json::to_string_pretty(&document).map_err(|e| Failure::Running(e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(out.write_all(print::people(&recorded, &times, &table, journal.as_ref()).as_bytes())?)
}

impl ReplayArgs {
    /// Nothing of the journal is to be decided anew: no flag says by whom, or in which world.
    fn only_checks(&self) -> bool {
        let texts = [&self.start, &self.capacity, &self.split, &self.until];
        let files = [&self.html, &self.decisions, &self.config, &self.only];
        self.policy.is_empty()
            && self.sweep.is_empty()
            && texts.iter().all(|t| t.is_none())
            && files.iter().all(|f| f.is_none())
            && self.cold_start_cost.is_none()
            && self.per_instance.is_none()
    }

    /// What a page is about.
    fn name(&self) -> String {
        let journal = self.journal.iter().map(|path| path.display().to_string());
        journal.chain(self.traces.iter().cloned()).collect::<Vec<_>>().join(", ")
    }
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::Arguments(what.to_string())
}

/// What stands behind a comma and has no `=` before its `:` goes on with a policy's settings.
fn policies(texts: &[String], default: &str) -> Result<Vec<(String, PolicyName)>, Failure> {
    let all = if texts.is_empty() { default.to_owned() } else { texts.join(",") };
    let mut names: Vec<String> = Vec::new();
    for part in all.split(',') {
        let setting = part.find(':').is_some_and(|at| !part[..at].contains('='));
        match names.last_mut() {
            Some(last) if setting => *last = format!("{last},{part}"),
            _ => names.push(part.to_owned()),
        }
    }
    names.into_iter().map(|name| Ok((name.clone(), PolicyName::parse(&name).map_err(bad)?))).collect()
}

fn options(args: &ReplayArgs) -> Result<Options, Failure> {
    let span = |option: &str, text: &str| parse_duration(text).map_err(|why| bad(format!("{option}: {why}")));
    let world = World {
        start: span("--start", args.start.as_deref().unwrap_or("10s"))?,
        memory_bytes: bytes(&args.memory).ok_or_else(|| bad(sizes::not_bytes("--memory", &args.memory)))?,
        per_instance: args.per_instance.unwrap_or(1),
        duration: span("--duration", &args.duration)?,
        capacity: match &args.capacity {
            None => Capacity::Unlimited,
            Some(text) => sizes::capacity("--capacity", text)?,
        },
    };
    let only = match &args.only {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Failure::Running(format!("cannot read {}: {e}", path.display())))?;
            Some(
                text.lines().map(|l| l.trim_end_matches('\r').to_owned()).filter(|l| !l.is_empty()).collect(),
            )
        }
    };
    let services = match &args.config {
        None => BTreeMap::new(),
        Some(path) => {
            Config::load(path)?.services.into_iter().map(|s| (s.spec.name.clone(), s.spec)).collect()
        }
    };
    Ok(Options { world, only, services, seed: args.seed, ..Options::default() })
}

fn read(args: &ReplayArgs) -> Result<Recorded, Failure> {
    let parse = |text: &str| {
        Format::parse(text).map_err(|why| match KeyFormat::parse(text) {
            Ok(_) => bad(format!("--format: {text} holds keys: give --cache SIZE")),
            Err(_) => bad(format!("--format: {why}")),
        })
    };
    let format = args.format.as_deref().map(parse).transpose()?;
    let map =
        args.map.as_deref().map(ColumnMap::parse).transpose().map_err(|e| bad(format!("--map: {e}")))?;
    let options = ReadOptions {
        format,
        map,
        service: args.service.clone(),
        user: args.user.clone(),
        strict: args.strict,
        ..ReadOptions::default()
    };
    let inputs: Vec<Input> = args.traces.iter().map(|t| Input::parse(t)).collect();
    let mut progress = Progress::new("reading lines", None);
    forerun_trace::read(&inputs, &options, &mut |lines| progress.at(lines)).map_err(|error| match error {
        TraceError::Option { .. } | TraceError::UnknownFormat { .. } | TraceError::Mixed { .. } => bad(error),
        error => Failure::Running(error.to_string()),
    })
}

fn replay(
    policy: PolicyName,
    name: &str,
    recorded: &Recorded,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, Failure> {
    let outcome = match recorded {
        Recorded::Requests(trace) => forerun_lab::replay_requests(policy, name, trace, options, progress),
        Recorded::Minutes(trace) => forerun_lab::replay_minutes(policy, name, trace, options, progress),
    };
    outcome.map_err(|error| match error {
        LabError::Option { .. } | LabError::NeverFits { .. } => bad(error),
        error => Failure::Running(error.to_string()),
    })
}

/// Whether anything came after.
fn cut(recorded: &mut Recorded, until: Time) -> bool {
    match recorded {
        Recorded::Requests(trace) => {
            let before = trace.events.len();
            trace.cut(until);
            trace.events.len() < before
        }
        Recorded::Minutes(trace) => {
            let before = trace.minutes();
            trace.cut(until);
            trace.minutes() < before
        }
    }
}

/// Requests, or minutes of all apps, and the names of the services.
fn size(recorded: &Recorded) -> (u64, Vec<String>) {
    match recorded {
        Recorded::Requests(trace) => (trace.events.len() as u64, trace.services.clone()),
        Recorded::Minutes(trace) => {
            let minutes = trace.apps.iter().map(|a| a.concurrency.len() as u64).sum();
            (minutes, trace.apps.iter().map(|a| a.name.clone()).collect())
        }
    }
}

fn report(recorded: &Recorded) -> &ReadReport {
    match recorded {
        Recorded::Requests(trace) => &trace.report,
        Recorded::Minutes(trace) => &trace.report,
    }
}

pub(crate) fn notes(report: &ReadReport) {
    let mut stderr = std::io::stderr().lock();
    for note in report.notes() {
        // Nobody reads it if standard error is closed; that is no failure.
        let _ = writeln!(stderr, "note: {note}");
    }
}

fn save(path: &PathBuf, decisions: &[Decision], names: &[String], zero: Time) -> Result<(), Failure> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let file = std::fs::File::create(path);
    file.and_then(|file| write_decisions(decisions, &names, zero, &mut BufWriter::new(file)))
        .map_err(|e| Failure::Running(format!("cannot write {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_policy_go_on_behind_a_comma() {
        let names = |texts: &[&str]| -> Vec<String> {
            let texts: Vec<String> = texts.iter().map(|t| (*t).to_owned()).collect();
            policies(&texts, ALONE).unwrap().into_iter().map(|p| p.0).collect()
        };
        assert_eq!(names(&[]), ["forerun"]);
        assert_eq!(
            names(&["forerun,knative=target:0.7,window:60s,hpa", "none"]),
            ["forerun", "knative=target:0.7,window:60s", "hpa", "none"]
        );
        assert!(policies(&["window:60s".to_owned()], ALONE).is_err());
        assert!(policies(&[String::new()], ALONE).is_err());
    }
}
