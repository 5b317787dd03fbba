//! Folders of whole minutes: mean concurrency by app, and what an instance of each app takes.

use crate::cells::Cells;
use crate::source::{Line, Lines};
use crate::time::quoted;
use crate::trace::{MinuteApp, MinuteTrace, ReadReport};
use crate::{ReadOptions, TraceError};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const CONCURRENCY: &str = "avg_concurrency_per_minute.csv";
const CONTAINERS: &str = "containers_per_minute.csv";
/// More than any machine serves at once; keeps every product with a minute exact in a float.
const CONCURRENCY_MAX: f64 = 1e6;

pub(crate) fn is_minutes(path: &Path) -> bool {
    find(path, CONCURRENCY).is_some()
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    ["", ".gz", ".zst"].iter().map(|end| folder.join(format!("{name}{end}"))).find(|p| p.is_file())
}

pub(crate) fn read(folder: &Path, options: &ReadOptions) -> Result<MinuteTrace, TraceError> {
    let needed = |name| {
        find(folder, name).ok_or_else(|| TraceError::Open {
            name: folder.join(name).display().to_string(),
            source: std::io::ErrorKind::NotFound.into(),
        })
    };
    let (concurrency, containers) = (needed(CONCURRENCY)?, needed(CONTAINERS)?);
    let mut report = ReadReport::default();
    let memory = memory(&containers, options, &mut report)?;
    let mut apps: Vec<MinuteApp> = Vec::new();
    let mut seen: HashMap<String, ()> = HashMap::new();
    let mut width = 0;
    each_line(&concurrency, options, &mut report, |cells, line, header| {
        if header {
            width = cells.len();
            return if width < 2 {
                Err("a column of names and at least one minute are needed".to_owned())
            } else {
                Ok(())
            };
        }
        let app = app(cells, line, width, &memory)?;
        if seen.insert(app.name.clone(), ()).is_some() {
            return Err(format!("app {:?} stands there twice", app.name));
        }
        apps.push(app);
        Ok(())
    })?;
    if apps.is_empty() {
        let why = report
            .first_offender
            .as_ref()
            .map_or("only a header".to_owned(), |o| format!("{}:{}: {}", o.file, o.line, o.why));
        return Err(TraceError::Nothing { name: concurrency.display().to_string(), why });
    }
    Ok(MinuteTrace { apps, report })
}

fn app(cells: &Cells, line: &[u8], width: usize, memory: &HashMap<String, f64>) -> Result<MinuteApp, String> {
    if cells.len() != width {
        return Err(format!("{} cells, the header has {width}", cells.len()));
    }
    let name = String::from_utf8_lossy(cells.get(line, 0)).into_owned();
    let memory_mb =
        *memory.get(&name).ok_or_else(|| format!("app {name:?} has no avg_mem_mb in {CONTAINERS}"))?;
    let concurrency =
        (1..width).map(|at| number(cells.get(line, at), CONCURRENCY_MAX)).collect::<Result<_, _>>()?;
    Ok(MinuteApp { name, memory_mb, concurrency })
}

/// `avg_mem_mb` by app.
fn memory(
    path: &Path,
    options: &ReadOptions,
    report: &mut ReadReport,
) -> Result<HashMap<String, f64>, TraceError> {
    let mut memory = HashMap::new();
    let mut columns = None;
    each_line(path, options, report, |cells, line, header| {
        if header {
            let find = |name: &[u8]| (0..cells.len()).find(|&at| cells.get(line, at).trim_ascii() == name);
            let app = find(b"app").ok_or("column \"app\" is missing")?;
            let memory = find(b"avg_mem_mb").ok_or("column \"avg_mem_mb\" is missing")?;
            columns = Some((app, memory));
            return Ok(());
        }
        let (app, mb) = columns.unwrap_or_default();
        let mb = number(cells.get(line, mb), 1e9)?;
        memory.insert(String::from_utf8_lossy(cells.get(line, app)).into_owned(), mb);
        Ok(())
    })?;
    Ok(memory)
}

/// An empty cell is 0.
fn number(cell: &[u8], max: f64) -> Result<f64, String> {
    let cell = cell.trim_ascii();
    if cell.is_empty() {
        return Ok(0.0);
    }
    match std::str::from_utf8(cell).ok().and_then(|t| t.parse().ok()) {
        Some(n) if (0.0..=max).contains(&n) => Ok(n),
        _ => Err(format!("{} is no number from 0 to {max}", quoted(cell))),
    }
}

/// Calls `f(cells, line, is_header)` for each line; what it refuses is counted, but for the header.
fn each_line(
    path: &Path,
    options: &ReadOptions,
    report: &mut ReadReport,
    mut f: impl FnMut(&Cells, &[u8], bool) -> Result<(), String>,
) -> Result<(), TraceError> {
    let mut lines = Lines::open(path, options.line_bytes_max)?;
    let name = lines.name.clone();
    let mut cells = Cells::default();
    let mut header = true;
    // Only for the byte order mark, which the head leaves out.
    lines.head()?;
    loop {
        let number = lines.number + 1;
        let done = match lines.next()? {
            None => break,
            Some(Line::Text(b"")) => continue,
            Some(Line::Text(line)) => {
                cells.cut(line).map_err(str::to_owned).and_then(|()| f(&cells, line, header))
            }
            Some(Line::TooLong) => Err(format!("longer than {} bytes", options.line_bytes_max)),
        };
        report.lines += 1;
        match done {
            Err(why) if header => return Err(TraceError::Header { name, why }),
            Err(why) if options.strict => return Err(TraceError::Line { name, line: number, why }),
            Err(why) => report.skip(&name, number, why),
            Ok(()) => header = false,
        }
    }
    if header { Err(TraceError::Empty { name }) } else { Ok(()) }
}
