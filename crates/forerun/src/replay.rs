//! `forerun replay`: what policies would have done on a recorded trace.

mod journal;
mod print;
pub(crate) mod progress;

use crate::config::Config;
use crate::failure::Failure;
use clap::Args;
use forerun_lab::{Capacity, Decision, LabError, Options, Outcome, PolicyName, World, write_decisions};
use forerun_trace::{
    ColumnMap, Format, Input, MinuteTrace, ReadOptions, ReadReport, Recorded, Trace, TraceError,
    parse_duration, parse_instant,
};
use forerun_types::{Span, Time};
use progress::Progress;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Files of one format, or a folder of whole minutes; `-` is standard input, .gz and .zst are read as they are
    #[arg(required_unless_present = "journal", value_name = "TRACE")]
    traces: Vec<String>,
    /// Instead of a trace, a journal of `forerun up`: a segment or its folder; its actions must come out the same
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
    /// forerun, forerun-no-users, forerun-no-load, none, keep-alive=DURATION, hazard; several, separated by commas, side by side
    #[arg(long, value_name = "P[,P...]", value_delimiter = ',', default_value = "forerun")]
    policy: Vec<String>,
    /// How long a start takes
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    start: String,
    /// Memory of one instance where the trace does not tell
    #[arg(long, value_name = "BYTES", default_value = "1GB")]
    memory: String,
    /// Requests that an instance serves at a time; 0 is any number
    #[arg(long, value_name = "N", default_value_t = 1)]
    per_instance: u32,
    /// How long a request takes where the trace has no such column
    #[arg(long, value_name = "DURATION", default_value = "50ms")]
    duration: String,
    /// What may exist at once: a number of instances, or bytes with their unit
    #[arg(long, value_name = "BYTES|N")]
    capacity: Option<String>,
    /// Services' classes, min, max and schedules (read as UTC) from a configuration, for the forerun policies
    #[arg(short, long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// GB-seconds that one cold start is worth, where no class says otherwise
    #[arg(long, value_name = "X", default_value_t = 80.55)]
    cold_start_cost: f64,
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
    /// Score every policy at each of several prices: cold-start-cost=20,40,80,160
    #[arg(long, value_name = "KEY=X,X,...")]
    sweep: Option<String>,
}

/// Reads, replays, prints. Scores go to `out`; notes and progress to standard error.
///
/// # Errors
/// Arguments that do not fit each other or the trace, files that cannot be read or written.
pub(crate) fn run(args: &ReplayArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &args.journal {
        return journal::run(path, args.json, out);
    }
    let policies = policies(&args.policy)?;
    let prices = prices(args)?;
    let mut options = options(args)?;
    let mut recorded = read(args)?;
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
        return Err(Failure::Running("the trace has no request before --until".to_owned()));
    }
    let rows = prices.len() as u64 * policies.len() as u64;
    let mut progress = Progress::new("replaying", Some(requests * rows));
    let began = Instant::now();
    let mut scores = Vec::new();
    for &price in &prices {
        options.cold_start_gbs = price;
        for (text, policy) in &policies {
            let done = scores.len() as u64 * requests;
            let outcome =
                replay(*policy, text, &recorded, &options, &mut |n| progress.at(done + n.min(requests)))?;
            if let (Some(path), true) = (&args.decisions, scores.is_empty()) {
                save(path, &outcome.decisions, &names, times.zero)?;
            }
            scores.push(outcome.scores);
        }
    }
    let seconds = began.elapsed().as_secs_f64().max(1e-9);
    drop(progress);
    let speed = (requests * rows) as f64 / seconds;
    notes(report(&recorded));
    if args.json {
        let document = print::document(args, &recorded, &times, &scores, speed);
        let text = serde_json::to_string_pretty(&document).map_err(|e| Failure::Running(e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(out.write_all(print::people(&recorded, &times, &scores, speed, args.sweep.is_some()).as_bytes())?)
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::Arguments(what.to_string())
}

fn policies(texts: &[String]) -> Result<Vec<(String, PolicyName)>, Failure> {
    texts.iter().map(|text| Ok((text.clone(), PolicyName::parse(text).map_err(bad)?))).collect()
}

/// The prices of a cold start to score at: one, or those of a sweep.
fn prices(args: &ReplayArgs) -> Result<Vec<f64>, Failure> {
    let price = |option: &str, price: f64| {
        let good = (0.0..=1e12).contains(&price);
        if good { Ok(price) } else { Err(bad(format!("{option}: {price} is no price from 0 to 10^12"))) }
    };
    let Some(sweep) = &args.sweep else {
        return Ok(vec![price("--cold-start-cost", args.cold_start_cost)?]);
    };
    let Some(("cold-start-cost", list)) = sweep.split_once('=') else {
        return Err(bad(format!("--sweep: {sweep:?} is unknown: write cold-start-cost=20,40,80,160")));
    };
    let one = |text: &str| {
        let number = text.trim().parse().map_err(|_| bad(format!("--sweep: {text:?} is no number")))?;
        price("--sweep", number)
    };
    list.split(',').map(one).collect()
}

fn options(args: &ReplayArgs) -> Result<Options, Failure> {
    let span = |option: &str, text: &str| parse_duration(text).map_err(|why| bad(format!("{option}: {why}")));
    let world = World {
        start: span("--start", &args.start)?,
        memory_bytes: bytes(&args.memory).ok_or_else(|| bad(not_bytes("--memory", &args.memory)))?,
        per_instance: args.per_instance,
        duration: span("--duration", &args.duration)?,
        capacity: args.capacity.as_deref().map_or(Ok(Capacity::Unlimited), capacity)?,
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

fn not_bytes(option: &str, text: &str) -> String {
    format!("{option}: {text:?} is no size: write 512MB or 1.5GB (10^9 bytes)")
}

/// `512MB`, `1.5GB`, `2GiB`, or a number of bytes.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let number: f64 = text[..end].trim().parse().ok()?;
    // 2^53: what a float counts exactly.
    let bytes = number * factor;
    (0.0..=9_007_199_254_740_992.0).contains(&bytes).then(|| bytes.round() as u64)
}

/// A bare number is instances, a number with a unit bytes; 0 is no limit.
fn capacity(text: &str) -> Result<Capacity, Failure> {
    if let Ok(instances) = text.trim().parse::<u32>() {
        return Ok(if instances == 0 { Capacity::Unlimited } else { Capacity::Instances(instances) });
    }
    match bytes(text) {
        Some(0) => Ok(Capacity::Unlimited),
        Some(bytes) => Ok(Capacity::Bytes(bytes)),
        None => Err(bad(format!("--capacity: {text:?} is neither a number of instances nor a size as 64GB"))),
    }
}

fn read(args: &ReplayArgs) -> Result<Recorded, Failure> {
    let format =
        args.format.as_deref().map(Format::parse).transpose().map_err(|e| bad(format!("--format: {e}")))?;
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

/// Where the trace's clock stands.
#[derive(Debug)]
struct Times {
    /// Microseconds since 1970 of `Time(0)`; `None` for a trace without dates.
    origin_us: Option<i64>,
    zero: Time,
    length: Span,
}

impl Times {
    fn of(recorded: &Recorded) -> Self {
        match recorded {
            Recorded::Requests(Trace { events, origin_us, zero, .. }) => {
                let last = events.last().map_or(Time(0), |e| e.at);
                Self { origin_us: Some(*origin_us), zero: *zero, length: last.since(*zero) }
            }
            Recorded::Minutes(trace) => Self {
                origin_us: None,
                zero: Time(0),
                length: Span::from_secs(60 * MinuteTrace::minutes(trace) as u64),
            },
        }
    }

    /// Seconds from the start of the trace, or a date as the trace has it.
    fn parse(&self, option: &str, text: &str) -> Result<Time, Failure> {
        if let Ok(span) = parse_duration(text) {
            return Ok(self.zero + span);
        }
        let micros = parse_instant(text.as_bytes()).map_err(|_| {
            bad(format!("{option}: {text:?} is neither seconds from the start of the trace nor a date"))
        })?;
        let origin =
            self.origin_us.ok_or_else(|| bad(format!("{option}: this trace has no dates: give seconds")))?;
        Ok(Time(u64::try_from(micros.saturating_sub(origin)).unwrap_or(0)))
    }

    fn split(&self, text: &str) -> Result<Time, Failure> {
        match text.trim().parse::<f64>() {
            Ok(part) if (0.0..1.0).contains(&part) => {
                Ok(self.zero + Span::from_secs_f64(self.length.as_secs_f64() * part))
            }
            _ => self.parse("--split", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_capacities() {
        for (text, expect) in [
            ("1GB", Some(1_000_000_000)),
            ("1.5 gb", Some(1_500_000_000)),
            ("2KiB", Some(2048)),
            ("7", Some(7)),
            ("", None),
            ("GB", None),
            ("-1GB", None),
            ("nan", None),
            ("1PB", None),
            ("99999999TB", None),
        ] {
            assert_eq!(bytes(text), expect, "{text}");
        }
        for (text, expect) in [
            ("0", Some(Capacity::Unlimited)),
            ("16", Some(Capacity::Instances(16))),
            ("16GB", Some(Capacity::Bytes(16_000_000_000))),
            ("many", None),
            ("-1", None),
        ] {
            assert_eq!(capacity(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn times_are_seconds_or_dates() {
        let dated =
            Times { origin_us: Some(1_000_000_000_000_000), zero: Time(0), length: Span::from_secs(100) };
        let check = |times: &Times, text: &str, expect: Option<u64>| {
            assert_eq!(times.parse("--until", text).ok().map(|t| t.0), expect, "{text}");
        };
        check(&dated, "90", Some(90_000_000));
        check(&dated, "1.5", Some(1_500_000));
        check(&dated, "2m", Some(120_000_000));
        check(&dated, "2001-09-09T01:46:41Z", Some(1_000_000));
        check(&dated, "1970-01-01", Some(0));
        check(&dated, "soon", None);
        check(&Times { origin_us: None, ..dated }, "2001-09-09", None);
        let dated = Times { origin_us: Some(0), zero: Time(5), length: Span::from_secs(100) };
        assert_eq!(dated.split("0.25").ok(), Some(Time(25_000_005)));
        assert_eq!(dated.split("30").ok(), Some(Time(30_000_005)));
        assert!(dated.split("half").is_err());
    }
}
