//! `forerun forecast`: quantiles of the load to come, or how good they would have been.

use crate::cli::ForecastArgs;
use crate::failure::Failure;
use crate::terminal;
use forerun_lab::forecast::{
    FileError, Fitted, Grid, Scores, Series, Skipped, backtest, means, read_dated, read_origins, read_series,
    write_forecasts,
};
use forerun_trace::{Input, TraceError, open_plain, parse_duration};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

/// Forecasts of a backtest, for each series.
const BACKTEST_MAX: usize = 100;

/// Reads, fits, forecasts, prints.
///
/// # Errors
/// Arguments that do not fit the file, files that cannot be read or written.
pub(crate) fn run(args: &ForecastArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match (&args.origins, &args.out) {
        (Some(origins), Some(to)) => at_origins(args, origins, to, out),
        _ => for_people(args, out),
    }
}

fn at_origins(args: &ForecastArgs, origins: &str, to: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let (mut all, skipped) =
        read_series(open(&args.series)?, args.strict).map_err(|e| refused(&args.series, &e))?;
    tell_skipped(&args.series, &skipped);
    read_origins(open(origins)?, &mut all).map_err(|e| refused(origins, &e))?;
    let began = Instant::now();
    let mut fitted = Fitted::new(&all);
    let fit_s = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let told = fitted.forecast(&mut |_| {});
    let each_s = began.elapsed().as_secs_f64();
    let forecasts: usize = told.iter().map(Vec::len).sum();
    save(to, out, |to| write_forecasts(to, &all, &told))?;
    if args.json && to != Path::new("-") {
        let document = json!({
            "series": all.len(), "forecasts": forecasts, "rows": fitted.rows, "fit_seconds": fit_s,
            "forecast_seconds": each_s / forecasts.max(1) as f64,
            "scores": means(&backtest(&all, &told)),
        });
        writeln!(out, "{document}")?;
    }
    Ok(())
}

fn for_people(args: &ForecastArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let horizon = args.horizon.as_deref().unwrap_or_default();
    let span = parse_duration(horizon).map_err(|why| Failure::Arguments(format!("--horizon: {why}")))?;
    if let Some(part) = args.backtest
        && !(0.01..=0.9).contains(&part)
    {
        return Err(Failure::Arguments(format!("--backtest: {part} is no part from 0.01 to 0.9")));
    }
    let (read, grid, skipped) =
        read_dated(open(&args.series)?, args.strict).map_err(|e| refused(&args.series, &e))?;
    tell_skipped(&args.series, &skipped);
    let steps = span.0.div_ceil(grid.step_us.unsigned_abs().max(1)) as usize;
    if steps == 0 || steps > forerun_lab::forecast::STEPS_MAX {
        let step_s = grid.step_us as f64 / 1e6;
        let max = forerun_lab::forecast::STEPS_MAX;
        return Err(Failure::Arguments(format!(
            "--horizon: {horizon} is {steps} steps of {step_s} s; give 1 to {max} steps"
        )));
    }
    let (mut all, firsts): (Vec<Series>, Vec<i64>) = read.into_iter().unzip();
    for series in &mut all {
        match args.backtest {
            Some(part) => series.ask_for_backtest(part, steps, BACKTEST_MAX),
            None => series.ask_at_end(steps),
        }
    }
    let told = Fitted::new(&all).forecast(&mut |_| {});
    if let Some(to) = &args.out {
        save(to, out, |to| write_forecasts(to, &all, &told))?;
    }
    let found = Found { all, firsts, grid, told };
    if let Some(path) = &args.html {
        let page = super::forecast_page::page(&found);
        std::fs::write(path, page).map_err(|e| cannot_write(path, &e))?;
    }
    if args.backtest.is_some() { print_scores(args, &found, out) } else { print_forecast(args, &found, out) }
}

/// What was forecast, and of what.
pub(super) struct Found {
    pub(super) all: Vec<Series>,
    /// The time of each series' first step, in microseconds since 1970.
    pub(super) firsts: Vec<i64>,
    pub(super) grid: Grid,
    pub(super) told: Vec<Vec<forerun_lab::forecast::Told>>,
}

impl Found {
    /// When a step of a series is, in words.
    pub(super) fn time(&self, series: usize, step: usize) -> String {
        let us = self.firsts[series].saturating_add(self.grid.step_us.saturating_mul(step as i64));
        jiff::Timestamp::from_microsecond(us).map_or_else(|_| us.to_string(), |t| t.to_string())
    }

    /// How the models weighed in the median of all forecasts of a series, heaviest first.
    pub(super) fn weights(&self, series: usize) -> Vec<(&'static str, f64)> {
        forerun_lab::forecast::weights(&self.told[series])
    }
}

fn print_forecast(args: &ForecastArgs, found: &Found, out: &mut dyn Write) -> Result<(), Failure> {
    let mut documents = Vec::new();
    for (i, (series, told)) in found.all.iter().zip(&found.told).enumerate() {
        let steps = told.first().map(|t| t.steps.as_slice()).unwrap_or_default();
        if args.json {
            let rows: Vec<Value> = (series.values.len()..)
                .zip(steps)
                .map(|(at, q)| json!({"at": found.time(i, at), "quantiles": q}))
                .collect();
            documents.push(json!({"series": series.name, "steps": rows, "weights": found.weights(i)}));
            continue;
        }
        let mut table = terminal::table(["at", "q0.1", "q0.5", "q0.9", "q0.95", "q0.99"]);
        for (at, quantiles) in (series.values.len()..).zip(steps) {
            let cells = quantiles.iter().map(|q| short(*q));
            table.add_row(std::iter::once(found.time(i, at)).chain(cells));
        }
        if !series.name.is_empty() {
            writeln!(out, "{}", series.name)?;
        }
        writeln!(out, "{}\nmodels: {}\n", terminal::lines(&table), told_weights(&found.weights(i)))?;
    }
    if args.json {
        let levels = forerun_lab::forecast::LEVELS;
        writeln!(out, "{}", json!({"levels": levels, "series": documents}))?;
    }
    Ok(())
}

fn print_scores(args: &ForecastArgs, found: &Found, out: &mut dyn Write) -> Result<(), Failure> {
    let scores: Vec<Scores> = backtest(&found.all, &found.told);
    if scores.is_empty() {
        return Err(Failure::Arguments(
            "--backtest: no series is long enough for one horizon in its last part: give a shorter --horizon or a larger part"
                .to_owned(),
        ));
    }
    if args.json {
        return Ok(writeln!(out, "{}", json!({"series": scores}))?);
    }
    let mut table = terminal::table(["series", "forecasts", "MASE", "WQL", "SQL", "<= q0.9", "<= q0.99"]);
    for s in &scores {
        table.add_row([
            s.series.clone(),
            s.forecasts.to_string(),
            short(s.mase),
            s.wql.map_or_else(|| "-".to_owned(), short),
            short(s.sql),
            short(s.coverage_90),
            short(s.coverage_99),
        ]);
    }
    out.write_all(terminal::lines(&table).as_bytes())?;
    for s in &scores {
        writeln!(
            out,
            "models{}{}: {}",
            if s.series.is_empty() { "" } else { " of " },
            s.series,
            told_weights(&s.weights)
        )?;
    }
    Ok(())
}

pub(super) fn told_weights(weights: &[(&'static str, f64)]) -> String {
    let one = |(name, share): &(&str, f64)| format!("{name} {:.0}%", 100.0 * share);
    weights.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Four digits.
pub(super) fn short(value: f64) -> String {
    let digits = match value.abs() {
        0.0..1.0 => 4,
        1.0..100.0 => 2,
        _ => 0,
    };
    format!("{value:.digits$}")
}

fn open(name: &str) -> Result<Box<dyn Read>, Failure> {
    open_plain(&Input::parse(name)).map_err(|e: TraceError| Failure::Running(e.to_string()))
}

fn refused(name: &str, error: &FileError) -> Failure {
    Failure::Running(match error {
        FileError::Line { line, why } => format!("{name}:{line}: {why}"),
        FileError::Column { .. } => format!("{name}:1: {error}"),
        _ => format!("{name}: {error}"),
    })
}

fn tell_skipped(name: &str, skipped: &Skipped) {
    if let Some(first) = &skipped.first {
        // Standard error may be closed, and nothing depends on it.
        let _ = writeln!(
            std::io::stderr(),
            "forerun: {name}: skipped {} lines; the first: {first}",
            skipped.lines
        );
    }
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::Running(format!("cannot write {}: {}", path.display(), error.to_string().to_lowercase()))
}

fn save(
    path: &Path,
    out: &mut dyn Write,
    write: impl FnOnce(&mut dyn Write) -> Result<(), FileError>,
) -> Result<(), Failure> {
    if path == Path::new("-") {
        return write(out).map_err(|e| Failure::Running(format!("cannot write to standard output: {e}")));
    }
    let file = File::create(path).map_err(|e| cannot_write(path, &e))?;
    write(&mut BufWriter::new(file)).map_err(|e| cannot_write(path, &e))
}
