//! `forerun predict TRACE`: what each user does next, said before it happens, and how good that was.

mod report;

use crate::failure::Failure;
use crate::replay::progress::Progress;
use crate::replay::{bytes, notes};
use clap::Args;
use forerun_lab::{
    FoldScores, PredictError, PredictOut, PredictScores, PredictSplit, mark_scored, predict_folds,
    predict_quick, predict_steps, predict_windows,
};
use forerun_trace::{
    ColumnMap, Format, Input, ItemIs, ReadOptions, StepFormat, Steps, TraceError, guess_steps,
    parse_duration, parse_instant, read_events, read_sequences, read_steps,
};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, Args)]
pub(crate) struct PredictArgs {
    /// Files of one format; `-` is standard input, .gz and .zst are read as they are
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<String>,
    /// A trace's format as for replay, or events, or ipredict [default: guessed from the first lines]
    #[arg(long)]
    format: Option<String>,
    /// For --format csv: which column is what
    #[arg(long, value_name = "at=COL,service=COL,user=COL,...")]
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
    /// What of a request is predicted
    #[arg(long, value_name = "WHAT", default_value = "service", value_parser = ["service", "action", "both"])]
    item: String,
    /// Score what comes after: a part of the steps below 1, or a TIME [default: the last 20% of each user's]
    #[arg(long, value_name = "FRACTION|TIME")]
    split: Option<String>,
    /// Predict the one item that comes within the user's next N steps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    window: Option<u32>,
    /// What the model may take
    #[arg(long, value_name = "BYTES", default_value = "256MiB")]
    memory: String,
    /// Write the predictions, a row per scored step
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The quick model: a microsecond a step, and less often right
    #[arg(long, conflicts_with_all = ["window", "when", "html"])]
    quick: bool,
    /// Write how long it is until each scored step: quantiles of ln(1 + seconds)
    #[arg(long, value_name = "FILE", conflicts_with = "window")]
    when: Option<PathBuf>,
    /// Write a page with the calibration
    #[arg(long, value_name = "FILE", conflicts_with = "window")]
    html: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    steps: u64,
    items: usize,
    #[serde(flatten)]
    scores: &'a PredictScores,
    events_per_second: f64,
}

#[derive(Debug, Serialize)]
struct WindowDocument {
    window: u32,
    #[serde(flatten)]
    folds: Option<FoldScores>,
    scored: u64,
    events_per_second: f64,
}

/// # Errors
/// Arguments that do not fit each other or the trace, files that cannot be read or written.
pub(crate) fn run(args: &PredictArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let memory = memory(&args.memory)?;
    let options = options(args)?;
    let inputs: Vec<Input> = args.traces.iter().map(|t| Input::parse(t)).collect();
    let format = step_format(args, &inputs, &options)?;
    if let (Some(StepFormat::Sequences), Some(window)) = (format, args.window) {
        return folds(args, one(&inputs)?, &options, window, memory, out);
    }
    let mut steps = read(args, &inputs, &options, format)?;
    if let Some(split) = split(args, &steps)? {
        mark_scored(&mut steps, split).map_err(failed)?;
    }
    notes(&steps.report);
    if let Some(window) = args.window {
        return windows(args, &steps, window, memory, out);
    }
    let (mut rows, mut when) = (create(args.out.as_deref())?, create(args.when.as_deref())?);
    let mut progress = Progress::new("predicting", Some(steps.steps.len() as u64));
    let began = Instant::now();
    let mut tell = |done| progress.at(done);
    let scores = if args.quick {
        predict_quick(&steps, memory, rows.as_mut().map(as_write), &mut tell)
    } else {
        let mut to = PredictOut { rows: rows.as_mut().map(as_write), when: when.as_mut().map(as_write) };
        predict_steps(&steps, memory, &mut to, &mut tell)
    };
    let scores = scores.map_err(failed)?;
    let speed = speed(steps.steps.len() as u64, began);
    drop(progress);
    finish(rows, args.out.as_deref())?;
    finish(when, args.when.as_deref())?;
    if let Some(path) = &args.html {
        std::fs::write(path, report::page(&args.traces.join(" "), &scores))
            .map_err(|e| Failure::Running(format!("cannot write {}: {e}", path.display())))?;
    }
    let (count, items) = (steps.steps.len() as u64, steps.items.len());
    if args.json {
        return print_json(&Document { steps: count, items, scores: &scores, events_per_second: speed }, out);
    }
    Ok(out.write_all(report::people(count, items, &scores, speed).as_bytes())?)
}

fn as_write(file: &mut BufWriter<File>) -> &mut dyn Write {
    file
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Failure::Arguments(what.to_string())
}

fn failed(error: PredictError) -> Failure {
    match error {
        PredictError::Write(_) => Failure::Running(error.to_string()),
        error => bad(error),
    }
}

fn unread(error: TraceError) -> Failure {
    match error {
        TraceError::Option { .. } | TraceError::UnknownFormat { .. } | TraceError::Mixed { .. } => bad(error),
        error => Failure::Running(error.to_string()),
    }
}

fn memory(text: &str) -> Result<usize, Failure> {
    /// What the mixers' weights take, and some room for contexts.
    const LEAST: u64 = 4 << 20;
    match bytes(text) {
        Some(bytes) if bytes >= LEAST => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Some(_) => Err(bad(format!("--memory: {text} is too little: give at least 4MiB"))),
        None => Err(bad(format!("--memory: {text:?} is no size: write 256MiB or 1GB"))),
    }
}

fn options(args: &PredictArgs) -> Result<ReadOptions, Failure> {
    let own = matches!(args.format.as_deref(), Some("events" | "ipredict"));
    let format = args.format.as_deref().filter(|_| !own).map(Format::parse).transpose();
    let format = format.map_err(|e| bad(format!("--format: {e}; and events, ipredict")))?;
    let map = args.map.as_deref().map(ColumnMap::parse).transpose();
    Ok(ReadOptions {
        format,
        map: map.map_err(|e| bad(format!("--map: {e}")))?,
        service: args.service.clone(),
        user: args.user.clone(),
        strict: args.strict,
        ..ReadOptions::default()
    })
}

/// Which of the formats it is that only prediction reads, if any.
fn step_format(
    args: &PredictArgs,
    inputs: &[Input],
    options: &ReadOptions,
) -> Result<Option<StepFormat>, Failure> {
    match args.format.as_deref() {
        Some("events") => Ok(Some(StepFormat::Events)),
        Some("ipredict") => Ok(Some(StepFormat::Sequences)),
        Some(_) => Ok(None),
        None if args.map.is_some() => Ok(None),
        None => match inputs {
            [input] => guess_steps(input, options).map_err(unread),
            _ => Ok(None),
        },
    }
}

fn one(inputs: &[Input]) -> Result<&Input, Failure> {
    match inputs {
        [input] => Ok(input),
        _ => Err(bad("TRACE: give one file of the formats events and ipredict")),
    }
}

fn read(
    args: &PredictArgs,
    inputs: &[Input],
    options: &ReadOptions,
    format: Option<StepFormat>,
) -> Result<Steps, Failure> {
    let mut progress = Progress::new("reading lines", None);
    let mut tell = |lines| progress.at(lines);
    match format {
        Some(StepFormat::Events) => read_events(one(inputs)?, options, &mut tell).map_err(unread),
        Some(StepFormat::Sequences) => {
            Ok(read_sequences(one(inputs)?, options, &mut tell).map_err(unread)?.into_steps())
        }
        None => {
            let item = match args.item.as_str() {
                "action" => ItemIs::Action,
                "both" => ItemIs::Both,
                _ => ItemIs::Service,
            };
            read_steps(inputs, options, item, &mut tell).map_err(unread)
        }
    }
}

/// What is scored; `None` is what the file says.
fn split(args: &PredictArgs, steps: &Steps) -> Result<Option<PredictSplit>, Failure> {
    let Some(text) = &args.split else {
        return Ok((!steps.marked).then_some(PredictSplit::EachUser));
    };
    if let Ok(part) = text.trim().parse::<f64>()
        && (0.0..1.0).contains(&part)
    {
        return Ok(Some(PredictSplit::After(part)));
    }
    let Some(start) = steps.steps.iter().filter_map(|s| s.at_s).min() else {
        return Err(bad("--split: this trace has no times: give a part below 1"));
    };
    if let Ok(span) = parse_duration(text) {
        return Ok(Some(PredictSplit::From(start.saturating_add((span.0 / 1_000_000) as i64))));
    }
    let micros = parse_instant(text.as_bytes()).map_err(|_| {
        bad(format!("--split: {text:?} is neither a part below 1, seconds from the start nor a date"))
    })?;
    Ok(Some(PredictSplit::From(micros.div_euclid(1_000_000))))
}

fn folds(
    args: &PredictArgs,
    input: &Input,
    options: &ReadOptions,
    window: u32,
    memory: usize,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let data = read_sequences(input, options, &mut |_| {}).map_err(unread)?;
    notes(&data.report);
    let mut rows = create(args.out.as_deref())?;
    let total = (data.sequences.len() * forerun_lab::FOLDS) as u64;
    let mut progress = Progress::new("predicting", Some(total));
    let began = Instant::now();
    let sink = rows.as_mut().map(as_write);
    let folds = predict_folds(&data, window as usize, memory, sink, &mut |done| progress.at(done));
    let folds = folds.map_err(failed)?;
    drop(progress);
    finish(rows, args.out.as_deref())?;
    let steps: usize = data.sequences.iter().map(Vec::len).sum();
    let speed = speed((steps * forerun_lab::FOLDS) as u64, began);
    if args.json {
        let scored = folds.right + folds.wrong;
        return print_json(
            &WindowDocument { window, folds: Some(folds), scored, events_per_second: speed },
            out,
        );
    }
    Ok(writeln!(
        out,
        "{:.1}% of {} sequences had the one predicted item in their last {window} ({} right, {} wrong, {} too short)",
        100.0 * folds.overall,
        folds.sequences,
        folds.right,
        folds.wrong,
        folds.too_short
    )?)
}

fn windows(
    args: &PredictArgs,
    steps: &Steps,
    window: u32,
    memory: usize,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut rows = create(args.out.as_deref())?;
    let mut progress = Progress::new("predicting", Some(steps.steps.len() as u64));
    let began = Instant::now();
    let sink = rows.as_mut().map(as_write);
    let scored = predict_windows(steps, window as usize, memory, sink, &mut |done| progress.at(done));
    let scored = scored.map_err(failed)?;
    drop(progress);
    finish(rows, args.out.as_deref())?;
    let speed = speed(steps.steps.len() as u64, began);
    if args.json {
        return print_json(&WindowDocument { window, folds: None, scored, events_per_second: speed }, out);
    }
    Ok(writeln!(out, "{scored} predictions of what comes within the next {window}")?)
}

fn speed(events: u64, began: Instant) -> f64 {
    events as f64 / began.elapsed().as_secs_f64().max(1e-9)
}

fn print_json(document: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(|e| Failure::Running(e.to_string()))?;
    Ok(writeln!(out, "{text}")?)
}

fn create(path: Option<&Path>) -> Result<Option<BufWriter<File>>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let file =
        File::create(path).map_err(|e| Failure::Running(format!("cannot write {}: {e}", path.display())))?;
    Ok(Some(BufWriter::new(file)))
}

fn finish(file: Option<BufWriter<File>>, path: Option<&Path>) -> Result<(), Failure> {
    let (Some(mut file), Some(path)) = (file, path) else { return Ok(()) };
    file.flush().map_err(|e| Failure::Running(format!("cannot write {}: {e}", path.display())))
}
