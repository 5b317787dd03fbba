//! Series as people have them: a column of times, one of values, and perhaps one that names the series.

use super::files::{FileError, Skipped, line, unreadable, value};
use super::{Asked, Series};
use csv::{ReaderBuilder, StringRecord};
use forerun_core::forecast::series::{HORIZON_MAX, SEASON_MAX};
use forerun_trace::parse_instant;
use std::collections::BTreeMap;
use std::io::Read;

/// Names that columns are known by.
const TIMES: [&str; 8] = ["t", "at", "time", "timestamp", "date", "datetime", "ds", "period"];
const NAMES: [&str; 3] = ["series", "unique_id", "service"];
/// Steps of a series that a file may span.
const STEPS_MAX: i64 = 5_000_000;
const DAY_US: i64 = 86_400_000_000;

/// The even grid that times were put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first time of each series is on it; microseconds since 1970.
    pub step_us: i64,
    /// Steps of a season: a day, or a week of steps of a day.
    pub season: usize,
}

/// Series, each with the time of its first step in microseconds since 1970.
pub type Dated = Vec<(Series, i64)>;

/// Reads series with a column of times, and puts them on a grid of the step that is most usual in the file. What falls
/// on one step is averaged, and a step without a line is no data.
///
/// # Errors
/// Columns that cannot be told, a file of less than two times, or one that spans too many steps.
pub fn read_dated(from: impl Read, strict: bool) -> Result<(Dated, Grid, Skipped), FileError> {
    let mut reader = ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(from);
    let header = reader.headers().map_err(unreadable)?.clone();
    let columns = columns(&header)?;
    let mut points: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    let mut skipped = Skipped::default();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(unreadable)? {
        match point(&record, &columns) {
            Ok((name, at, value)) => points.entry(name).or_default().push((at, value)),
            Err(error) => skipped.skip(error, strict)?,
        }
    }
    for of in points.values_mut() {
        // Stable: of one time, the file's order stays.
        of.sort_by_key(|p| p.0);
    }
    let step_us = usual_step(&points).ok_or_else(|| {
        FileError::Unreadable("no series has two different times: a forecast needs a past".to_owned())
    })?;
    let season = season(step_us);
    let series = points.into_iter().map(|(name, of)| on_grid(name, &of, step_us, season));
    Ok((series.collect::<Result<_, _>>()?, Grid { step_us, season }, skipped))
}

struct Columns {
    name: Option<usize>,
    time: usize,
    value: usize,
}

fn columns(header: &StringRecord) -> Result<Columns, FileError> {
    let plain = |h: &str| h.trim_start_matches('\u{feff}').to_lowercase();
    let find = |names: &[&str]| header.iter().position(|h| names.contains(&plain(h).as_str()));
    let name = find(&NAMES);
    let time = find(&TIMES)
        .ok_or(FileError::Column { column: "time", wanted: "time,value or series,time,value" })?;
    let named = header.iter().position(|h| plain(h) == "value");
    let mut others = (0..header.len()).filter(|c| *c != time && Some(*c) != name);
    let value = match (named, others.next(), others.next()) {
        (Some(value), ..) | (None, Some(value), None) => value,
        _ => return Err(FileError::Column { column: "value", wanted: "time,value or series,time,value" }),
    };
    Ok(Columns { name, time, value })
}

fn point(record: &StringRecord, columns: &Columns) -> Result<(String, i64, f64), FileError> {
    let cell = |column: usize| record.get(column).unwrap_or_default();
    let at = parse_instant(cell(columns.time).as_bytes()).map_err(|why| line(record, why))?;
    let text = cell(columns.value);
    let value = value(text).ok_or_else(|| {
        line(record, format!("value {text:?} is no number; leave it empty where there is no data"))
    })?;
    Ok((columns.name.map_or(String::new(), |c| cell(c).to_owned()), at, value))
}

/// The commonest distance between times that follow each other; the shorter of two as common.
fn usual_step(points: &BTreeMap<String, Vec<(i64, f64)>>) -> Option<i64> {
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for of in points.values() {
        for pair in of.windows(2) {
            *counts.entry(pair[1].0 - pair[0].0).or_default() += 1;
        }
    }
    counts.remove(&0);
    counts.into_iter().max_by_key(|(step, n)| (*n, -*step)).map(|(step, _)| step)
}

fn season(step_us: i64) -> usize {
    let fits = |period: i64| {
        let steps = usize::try_from(period / step_us).unwrap_or(1);
        (period % step_us == 0 && (2..=SEASON_MAX).contains(&steps)).then_some(steps)
    };
    fits(DAY_US).or_else(|| fits(7 * DAY_US)).unwrap_or(1)
}

fn on_grid(name: String, of: &[(i64, f64)], step_us: i64, season: usize) -> Result<(Series, i64), FileError> {
    let first = of.first().map_or(0, |p| p.0);
    let place = |at: i64| (at - first + step_us / 2) / step_us;
    let last = of.last().map_or(0, |p| place(p.0));
    if last >= STEPS_MAX {
        return Err(FileError::Unreadable(format!(
            "series {name:?} spans {last} steps of {} s, more than {STEPS_MAX}: look for a wrong time in it",
            step_us as f64 / 1e6
        )));
    }
    let mut sums = vec![(0.0, 0.0); last as usize + 1];
    for (at, value) in of.iter().filter(|p| p.1.is_finite()) {
        let sum = &mut sums[place(*at) as usize];
        *sum = (sum.0 + value, sum.1 + 1.0);
    }
    let values = sums.iter().map(|(sum, n)| if *n > 0.0 { sum / n } else { f64::NAN }).collect();
    Ok((Series { name, values, season, ..Series::default() }, first))
}

impl Series {
    /// Asks for a forecast from the last value on.
    pub fn ask_at_end(&mut self, horizon: usize) {
        self.test_from = self.values.len();
        let origin = self.values.len().saturating_sub(1);
        self.asked = vec![Asked { origin, horizon: horizon.clamp(1, HORIZON_MAX) }];
    }

    /// Asks for forecasts over the last `part` of the series, one horizon after the other, at most `most` of them.
    pub fn ask_for_backtest(&mut self, part: f64, horizon: usize, most: usize) {
        let horizon = horizon.clamp(1, HORIZON_MAX);
        let n = self.values.len();
        self.test_from = ((1.0 - part) * n as f64) as usize;
        let first = self.test_from.saturating_sub(1);
        let every: Vec<usize> = (first..n.saturating_sub(horizon)).step_by(horizon).collect();
        let kept = every.len().min(most);
        self.asked = (0..kept).map(|i| Asked { origin: every[i * every.len() / kept], horizon }).collect();
    }
}
