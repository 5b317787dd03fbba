//! The plain files of `forerun forecast`: series and origins in, quantiles out.

use super::{Asked, Series};
use csv::{Reader, ReaderBuilder, StringRecord, Writer};
use forerun_core::forecast::series::track::Told;
use forerun_core::forecast::series::{HORIZON_MAX, SEASON_MAX};
use std::collections::BTreeMap;
use std::io::{Read, Write};

/// What is wrong with a file, and the mend. The name of the file is the caller's to tell.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("no column {column}: the first line is to be {wanted}")]
    Column { column: &'static str, wanted: &'static str },
    #[error("line {line}: {why}")]
    Line { line: u64, why: String },
    #[error("{0}")]
    Unreadable(String),
    #[error("there is nothing in it below the first line")]
    Empty,
}

/// Lines that could not be read.
#[derive(Debug, Default)]
pub struct Skipped {
    pub lines: u64,
    pub first: Option<FileError>,
}

impl Skipped {
    /// Passes over a line, unless it has to be right.
    pub(super) fn skip(&mut self, error: FileError, strict: bool) -> Result<(), FileError> {
        if strict {
            return Err(error);
        }
        self.lines += 1;
        self.first.get_or_insert(error);
        Ok(())
    }
}

/// Steps of one series that are kept at most.
const VALUES_MAX: usize = 20_000_000;

const SERIES: &str = "series,t,value";
const ORIGINS: &str = "series,origin,horizon,season,test_from";

/// A file with a header, line by line.
struct Table<R> {
    reader: Reader<R>,
    at: Vec<usize>,
    names: &'static [&'static str],
}

impl<R: Read> Table<R> {
    fn open(from: R, names: &'static [&'static str], wanted: &'static str) -> Result<Self, FileError> {
        let mut reader = ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(from);
        let header = reader.headers().map_err(unreadable)?.clone();
        let find = |name: &&'static str| {
            let plain = |h: &str| h.trim_start_matches('\u{feff}') == *name;
            header.iter().position(plain).ok_or(FileError::Column { column: name, wanted })
        };
        let at = names.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Self { reader, at, names })
    }

    /// The next line; false at the end.
    fn next(&mut self, record: &mut StringRecord) -> Result<bool, FileError> {
        self.reader.read_record(record).map_err(unreadable)
    }

    fn cell<'r>(&self, record: &'r StringRecord, column: usize) -> &'r str {
        record.get(self.at[column]).unwrap_or_default()
    }

    fn index(&self, record: &StringRecord, column: usize, max: usize) -> Result<usize, FileError> {
        let text = self.cell(record, column);
        let name = self.names[column];
        let number: usize = text
            .parse()
            .map_err(|_| line(record, format!("{name} {text:?} is no whole number from 0 on")))?;
        if number > max {
            return Err(line(record, format!("{name} {number} is more than {max}")));
        }
        Ok(number)
    }
}

pub(super) fn line(record: &StringRecord, why: String) -> FileError {
    FileError::Line { line: record.position().map_or(0, csv::Position::line), why }
}

pub(super) fn unreadable(error: csv::Error) -> FileError {
    let line = error.position().map(csv::Position::line);
    let why = match error.into_kind() {
        csv::ErrorKind::Io(error) => error.to_string().to_lowercase(),
        csv::ErrorKind::Utf8 { .. } => "it is no UTF-8".to_owned(),
        other => format!("{other:?}"),
    };
    line.map_or(FileError::Unreadable(why.clone()), |line| FileError::Line { line, why })
}

/// A value: an empty cell, `nan` and what is not finite are no data.
pub(super) fn value(text: &str) -> Option<f64> {
    if text.is_empty() || ["na", "null", "none"].iter().any(|n| text.eq_ignore_ascii_case(n)) {
        return Some(f64::NAN);
    }
    text.parse().ok()
}

/// Reads `series,t,value`, in the order in which series first occur. Steps that are not in the file are no data; nor
/// are lines that cannot be read, which are counted, unless `strict`.
///
/// # Errors
/// A column that is not there, nothing to read; a bad line if `strict`.
pub fn read_series(from: impl Read, strict: bool) -> Result<(Vec<Series>, Skipped), FileError> {
    let mut table = Table::open(from, &["series", "t", "value"], SERIES)?;
    let mut all = Gathered::default();
    let mut skipped = Skipped::default();
    let mut record = StringRecord::new();
    while table.next(&mut record)? {
        if let Err(error) = all.take(&table, &record) {
            skipped.skip(error, strict)?;
        }
    }
    if all.series.is_empty() { Err(FileError::Empty) } else { Ok((all.series, skipped)) }
}

#[derive(Default)]
struct Gathered {
    series: Vec<Series>,
    given: Vec<Vec<bool>>,
    places: BTreeMap<String, usize>,
}

impl Gathered {
    fn take<R: Read>(&mut self, table: &Table<R>, record: &StringRecord) -> Result<(), FileError> {
        let t = table.index(record, 1, VALUES_MAX - 1)?;
        let text = table.cell(record, 2);
        let value = value(text).ok_or_else(|| {
            line(record, format!("value {text:?} is no number; leave it empty where there is no data"))
        })?;
        let name = table.cell(record, 0);
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => {
                self.places.insert(name.to_owned(), self.series.len());
                self.series.push(Series { name: name.to_owned(), ..Series::default() });
                self.given.push(Vec::new());
                self.series.len() - 1
            }
        };
        let (values, given) = (&mut self.series[place].values, &mut self.given[place]);
        if values.len() <= t {
            values.resize(t + 1, f64::NAN);
            given.resize(t + 1, false);
        }
        if std::mem::replace(&mut given[t], true) {
            return Err(line(record, format!("series {name:?} has t {t} twice: keep one")));
        }
        values[t] = value;
        Ok(())
    }
}

/// Reads `series,origin,horizon,season,test_from` into the series; those without an origin are only learned from.
///
/// # Errors
/// A series that is not there, an origin outside of it or before `test_from - 1`, one given twice.
pub fn read_origins(from: impl Read, all: &mut [Series]) -> Result<(), FileError> {
    let mut table = Table::open(from, &["series", "origin", "horizon", "season", "test_from"], ORIGINS)?;
    let places: BTreeMap<String, usize> = all.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
    let mut record = StringRecord::new();
    let mut any = false;
    while table.next(&mut record)? {
        let name = table.cell(&record, 0);
        let place = *places
            .get(name)
            .ok_or_else(|| line(&record, format!("series {name:?} is not in the file of series")))?;
        let series = &mut all[place];
        let origin = table.index(&record, 1, usize::MAX)?;
        let horizon = table.index(&record, 2, HORIZON_MAX)?;
        let season = table.index(&record, 3, SEASON_MAX)?;
        let test_from = table.index(&record, 4, usize::MAX)?;
        if origin >= series.values.len() {
            let last = series.values.len() - 1;
            return Err(line(&record, format!("origin {origin} is after the series' last t, {last}")));
        }
        if horizon == 0 || season == 0 {
            return Err(line(&record, "horizon and season are 1 at least".to_owned()));
        }
        if origin + 1 < test_from {
            return Err(line(&record, format!("origin {origin} is before test_from - 1, {}", test_from - 1)));
        }
        series.season = season;
        series.test_from = test_from;
        series.asked.push(Asked { origin, horizon });
        any = true;
    }
    for series in all.iter_mut() {
        series.asked.sort_unstable_by_key(|a| a.origin);
        if let Some(w) = series.asked.windows(2).find(|w| w[0].origin == w[1].origin) {
            return Err(FileError::Unreadable(format!(
                "series {:?} has origin {} twice: keep one",
                series.name, w[0].origin
            )));
        }
    }
    if any { Ok(()) } else { Err(FileError::Empty) }
}

/// Writes `series,origin,step,q0.1,q0.5,q0.9,q0.95,q0.99`, a row for each step of every origin.
///
/// # Errors
/// What the writer fails with.
pub fn write_forecasts(to: impl Write, all: &[Series], told: &[Vec<Told>]) -> Result<(), FileError> {
    let mut writer = Writer::from_writer(to);
    let header = ["series", "origin", "step", "q0.1", "q0.5", "q0.9", "q0.95", "q0.99"];
    writer.write_record(header).map_err(unreadable)?;
    for (series, told) in all.iter().zip(told) {
        for (asked, told) in series.asked.iter().zip(told) {
            for (i, quantiles) in told.steps.iter().enumerate() {
                let mut row = vec![series.name.clone(), asked.origin.to_string(), (i + 1).to_string()];
                row.extend(quantiles.iter().map(f64::to_string));
                writer.write_record(&row).map_err(unreadable)?;
            }
        }
    }
    writer.flush().map_err(|e| FileError::Unreadable(e.to_string().to_lowercase()))
}
