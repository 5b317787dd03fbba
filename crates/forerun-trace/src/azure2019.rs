//! The Azure Functions trace of 2019: invocations per minute, with durations and memory in files of their own.

use crate::cells::Cells;
use crate::csv::AzureService;
use crate::record::{Record, Sink, SinkFull};
use forerun_types::Span;
use std::collections::HashMap;

/// Which of a day's files a header belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DayFile {
    Invocations,
    Durations,
    Memory,
}

impl DayFile {
    pub(crate) fn of(header: &[u8]) -> Option<Self> {
        if !header.starts_with(b"HashOwner,HashApp,") {
            return None;
        }
        let has = |column: &[u8]| header.split(|&b| b == b',').any(|c| c == column);
        match () {
            () if has(b"Trigger") => Some(Self::Invocations),
            () if has(b"AverageAllocatedMb") => Some(Self::Memory),
            () if has(b"Average") => Some(Self::Durations),
            () => None,
        }
    }
}

/// What the files of durations and memory have told, for the invocations that follow.
#[derive(Debug, Default)]
pub(crate) struct Azure2019 {
    service: AzureService,
    durations: HashMap<Vec<u8>, Span>,
    memory: HashMap<Vec<u8>, u64>,
    cells: Cells,
    /// Invocation files begun; each is the next day.
    days: i64,
    layout: Layout,
}

/// Where the columns of the file being read stand.
#[derive(Debug, Default)]
struct Layout {
    width: usize,
    function: Option<usize>,
    /// The mean duration or memory, or the first minute.
    value: usize,
}

const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 1_440 * MINUTE_US;

impl Azure2019 {
    pub(crate) fn new(service: AzureService) -> Self {
        Self { service, ..Self::default() }
    }

    pub(crate) fn begin(&mut self, file: DayFile, header: &[u8]) -> Result<(), String> {
        self.cells.cut(header)?;
        let find = |name: &[u8]| (0..self.cells.len()).find(|&at| self.cells.get(header, at) == name);
        let value = match file {
            DayFile::Invocations => find(b"1").ok_or("column \"1\", the first minute, is missing")?,
            DayFile::Durations => find(b"Average").unwrap_or_default(),
            DayFile::Memory => find(b"AverageAllocatedMb").unwrap_or_default(),
        };
        self.layout = Layout { width: self.cells.len(), function: find(b"HashFunction"), value };
        if file == DayFile::Invocations {
            if self.layout.function.is_none() {
                return Err("column \"HashFunction\" is missing".to_owned());
            }
            self.days += 1;
        }
        Ok(())
    }

    /// One line of the file that was begun last.
    pub(crate) fn parse(
        &mut self,
        file: DayFile,
        line: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Result<(), SinkFull>, String> {
        self.cells.cut(line)?;
        if self.cells.len() != self.layout.width {
            return Err(format!("{} cells, the header has {}", self.cells.len(), self.layout.width));
        }
        let app = self.cells.get(line, 1);
        let function = self.layout.function.map(|at| self.cells.get(line, at));
        match file {
            DayFile::Durations => {
                let ms = self.mean(line, "Average", 1e10)?;
                self.durations.insert(key(app, function), Span((ms * 1e3).round() as u64));
            }
            DayFile::Memory => {
                let bytes = (self.mean(line, "AverageAllocatedMb", 1e9)? * 1e6).round() as u64;
                let whole = match (self.service, function) {
                    (AzureService::Function, Some(function)) => function,
                    _ => app,
                };
                // An app whose functions are told one by one is as large as the largest.
                let known = self.memory.entry(whole.to_vec()).or_default();
                *known = bytes.max(*known);
            }
            DayFile::Invocations => return self.invocations(line, app, function.unwrap_or(b""), sink),
        }
        Ok(Ok(()))
    }

    fn mean(&self, line: &[u8], name: &str, max: f64) -> Result<f64, String> {
        let cell = self.cells.get(line, self.layout.value);
        match std::str::from_utf8(cell).ok().and_then(|t| t.trim().parse::<f64>().ok()) {
            Some(n) if (0.0..=max).contains(&n) => Ok(n),
            _ => Err(format!("{name} {} is no number from 0 to {max:e}", crate::time::quoted(cell))),
        }
    }

    /// Spreads each minute's arrivals evenly, the first and the last half a distance from its ends.
    fn invocations(
        &self,
        line: &[u8],
        app: &[u8],
        function: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<Result<(), SinkFull>, String> {
        let service = if self.service == AzureService::App { app } else { function };
        let duration = self.durations.get(&key(app, Some(function))).copied();
        // Where the file of durations is given, who is not in it took no time that was measured.
        let duration = duration.or((!self.durations.is_empty()).then_some(Span::ZERO));
        let memory_bytes = self.memory.get(service).or_else(|| self.memory.get(app)).copied();
        let counts = self.counts(line)?;
        for (minute, count) in counts.into_iter().enumerate() {
            let from = (self.days - 1) * DAY_US + minute as i64 * MINUTE_US;
            for n in 0..i64::from(count) {
                let at_us = from + (2 * n + 1) * MINUTE_US / (2 * i64::from(count));
                let record =
                    Record { at_us, service, action: function, duration, memory_bytes, ..Record::default() };
                if let Err(full) = sink.record(&record) {
                    return Ok(Err(full));
                }
            }
        }
        Ok(Ok(()))
    }

    fn counts(&self, line: &[u8]) -> Result<Vec<u32>, String> {
        let cells = (self.layout.value..self.layout.width).map(|at| self.cells.get(line, at).trim_ascii());
        cells
            .map(|cell| match std::str::from_utf8(cell).ok().and_then(|t| t.parse().ok()) {
                Some(count) => Ok(count),
                None if cell.is_empty() => Ok(0),
                None => Err(format!("{} is no number of invocations", crate::time::quoted(cell))),
            })
            .collect()
    }
}

fn key(app: &[u8], function: Option<&[u8]>) -> Vec<u8> {
    [app, b",", function.unwrap_or(b"")].concat()
}
