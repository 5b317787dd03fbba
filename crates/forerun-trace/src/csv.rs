//! CSV with a header: Forerun's own format, any other by a map of columns, and the Azure Functions trace of 2021.

use crate::cells::Cells;
use crate::record::Record;
use crate::time::{parse_instant, quoted, seconds};
use crate::write::COLUMNS;
use forerun_types::Span;

/// Which column of a CSV holds what: `at=COL,service=COL,duration_s=COL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnMap(Vec<(&'static str, String)>);

impl ColumnMap {
    /// # Errors
    /// Names what is wrong with the text, and the keys that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut map: Vec<(&'static str, String)> = Vec::new();
        for pair in text.split(',') {
            let Some((key, column)) = pair.split_once('=') else {
                return Err(format!("{pair:?} is not KEY=COLUMN"));
            };
            let known = COLUMNS.iter().find(|&&k| k == key.trim());
            let key = *known.ok_or_else(|| format!("{key:?} is unknown{}", nearest(key.trim(), &COLUMNS)))?;
            if map.iter().any(|(k, _)| *k == key) {
                return Err(format!("{key} is given twice"));
            }
            map.push((key, column.to_owned()));
        }
        for needed in ["at", "service"] {
            if !map.iter().any(|(k, _)| *k == needed) {
                return Err(format!("{needed}=COLUMN is missing"));
            }
        }
        Ok(Self(map))
    }
}

/// What an Azure trace calls a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AzureService {
    #[default]
    App,
    Function,
}

/// Reads the lines after a header.
#[derive(Debug)]
pub(crate) struct CsvParser {
    cells: Cells,
    width: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Column number by position in [`COLUMNS`].
    Columns([Option<usize>; COLUMNS.len()]),
    Azure2021 {
        service: usize,
        end: usize,
        duration: usize,
    },
}

impl CsvParser {
    /// The format `forerun`.
    pub(crate) fn forerun(header: &[u8]) -> Result<Self, String> {
        let (cells, names) = names(header)?;
        let mut columns = [None; COLUMNS.len()];
        for (at, name) in names.iter().enumerate() {
            let Some(key) = COLUMNS.iter().position(|k| k == name) else {
                return Err(format!(
                    "unknown column {name:?}{}; other files are read by --format csv --map at=COL,service=COL",
                    nearest(name, &COLUMNS)
                ));
            };
            if columns[key].replace(at).is_some() {
                return Err(format!("column {name:?} stands there twice"));
            }
        }
        for (key, needed) in ["at", "service"].iter().enumerate() {
            if columns[key].is_none() {
                return Err(format!("column {needed:?} is missing"));
            }
        }
        Ok(Self { cells, width: names.len(), kind: Kind::Columns(columns) })
    }

    /// Any CSV, by a map.
    pub(crate) fn mapped(header: &[u8], map: &ColumnMap) -> Result<Self, String> {
        let (cells, names) = names(header)?;
        let mut columns = [None; COLUMNS.len()];
        for (key, column) in &map.0 {
            let Some(at) = names.iter().position(|n| n == column) else {
                let known: Vec<&str> = names.iter().map(String::as_str).collect();
                return Err(format!("there is no column {column:?} for {key}{}", nearest(column, &known)));
            };
            let slot = COLUMNS.iter().position(|k| k == key);
            columns[slot.unwrap_or_default()] = Some(at);
        }
        Ok(Self { cells, width: names.len(), kind: Kind::Columns(columns) })
    }

    /// `app,func,end_timestamp,duration`.
    pub(crate) fn azure2021(header: &[u8], service: AzureService) -> Result<Self, String> {
        let (cells, names) = names(header)?;
        let find = |name: &str| {
            names.iter().position(|n| n == name).ok_or_else(|| format!("column {name:?} is missing"))
        };
        let service = find(if service == AzureService::App { "app" } else { "func" })?;
        let kind = Kind::Azure2021 { service, end: find("end_timestamp")?, duration: find("duration")? };
        Ok(Self { cells, width: names.len(), kind })
    }

    pub(crate) fn parse<'a>(&'a mut self, line: &'a [u8]) -> Result<Record<'a>, String> {
        self.cells.cut(line)?;
        if self.cells.len() != self.width {
            return Err(format!("{} cells, the header has {}", self.cells.len(), self.width));
        }
        match self.kind {
            Kind::Columns(columns) => self.columns(line, &columns),
            Kind::Azure2021 { service, end, duration } => {
                let end = seconds(self.cells.get(line, end).trim_ascii()).ok_or_else(|| {
                    format!("end_timestamp {} is no number", quoted(self.cells.get(line, end)))
                })?;
                let length = span("duration", self.cells.get(line, duration))?;
                Ok(Record {
                    at_us: end - length.0 as i64,
                    service: self.cells.get(line, service),
                    duration: Some(length),
                    ..Record::default()
                })
            }
        }
    }

    fn columns<'a>(
        &'a self,
        line: &'a [u8],
        columns: &[Option<usize>; COLUMNS.len()],
    ) -> Result<Record<'a>, String> {
        let [at, service, tenant, user, group, site, action, duration, cpu, memory, network, storage, status] =
            *columns;
        let text = |at: Option<usize>| at.map_or(&[][..], |at| self.cells.get(line, at));
        let length = |name, at: Option<usize>| at.map(|_| span(name, text(at))).transpose();
        let bytes = |name, at: Option<usize>| match text(at).trim_ascii() {
            b"" => Ok(None),
            cell => bytes(name, cell).map(Some),
        };
        Ok(Record {
            at_us: parse_instant(text(at))?,
            service: text(service),
            tenant: text(tenant),
            user: text(user),
            group: text(group),
            site: text(site),
            action: text(action),
            duration: length("duration_s", duration)?,
            cpu: length("cpu_s", cpu)?,
            memory_bytes: bytes("memory_bytes", memory)?,
            network_bytes: bytes("network_bytes", network)?,
            storage_bytes: bytes("storage_bytes", storage)?,
            status: bytes("status", status)?.map_or(0, |s| u16::try_from(s).unwrap_or(0)),
        })
    }
}

fn names(header: &[u8]) -> Result<(Cells, Vec<String>), String> {
    let mut cells = Cells::default();
    cells.cut(header)?;
    let name = |at| String::from_utf8_lossy(cells.get(header, at)).trim().to_owned();
    let names = (0..cells.len()).map(name).collect();
    Ok((cells, names))
}

/// Longer than any request, short enough that sums of two instants fit.
const DURATION_S_MAX: i64 = 10_000_000_000;

/// Seconds; an empty cell of a column that is there is 0.
fn span(name: &str, cell: &[u8]) -> Result<Span, String> {
    let cell = cell.trim_ascii();
    if cell.is_empty() {
        return Ok(Span::ZERO);
    }
    match seconds(cell) {
        Some(..0) => Err(format!("{name} {} is negative", quoted(cell))),
        Some(us) if us <= DURATION_S_MAX * 1_000_000 => Ok(Span(us as u64)),
        _ => Err(format!("{name} {} is no number of seconds", quoted(cell))),
    }
}

/// A whole number, or one with decimals, which are dropped.
fn bytes(name: &str, cell: &[u8]) -> Result<u64, String> {
    /// 2^53: what a float holds exactly, and more memory than any machine has.
    const MAX: f64 = 9_007_199_254_740_992.0;
    let number: Option<f64> = std::str::from_utf8(cell).ok().and_then(|t| t.parse().ok());
    match number {
        Some(n) if (0.0..=MAX).contains(&n) => Ok(n as u64),
        _ => Err(format!("{name} {} is no number from 0 to 2^53", quoted(cell))),
    }
}

/// `: did you mean X?` or the list of what there is.
fn nearest(word: &str, known: &[&str]) -> String {
    let best = known.iter().map(|k| (strsim::jaro_winkler(word, k), k)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, k)) if score > 0.8 => format!(", did you mean {k:?}?"),
        _ => format!(", there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forerun(header: &str, line: &str) -> Result<(i64, Option<u64>, Option<u64>), String> {
        let mut parser = CsvParser::forerun(header.as_bytes())?;
        let record = parser.parse(line.as_bytes())?;
        Ok((record.at_us, record.duration.map(|d| d.0), record.memory_bytes))
    }

    #[test]
    fn cells_mean_what_the_contract_says() {
        let check = |header, line, expect| assert_eq!(forerun(header, line), Ok(expect), "{line}");
        check("at,service", "5,x", (5_000_000, None, None));
        check("service,at", ",5.5", (5_500_000, None, None));
        check("at,service,duration_s", "5,x,", (5_000_000, Some(0), None));
        check("at,service,duration_s", "5,x,-0.0", (5_000_000, Some(0), None));
        check(
            "at,service,duration_s,memory_bytes",
            "5,x,1.25,1e9",
            (5_000_000, Some(1_250_000), Some(1_000_000_000)),
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |header: &str, line: &str, expect: &str| {
            let error = forerun(header, line).unwrap_err();
            assert!(error.contains(expect), "{error:?} does not say {expect:?}");
        };
        check("at,servce", "", "unknown column \"servce\", did you mean \"service\"?");
        check("at", "", "column \"service\" is missing");
        check("at,at,service", "", "twice");
        check("at,service", "5", "1 cells, the header has 2");
        check("at,service", "yesterday,x", "\"yesterday\" is neither a date nor seconds");
        for bad in ["nan", "inf", "-inf", "NaN", "x", "1e99"] {
            check("at,service,duration_s", &format!("5,x,{bad}"), "is no number of seconds");
        }
        check("at,service,duration_s", "5,x,-1", "is negative");
        check("at,service,memory_bytes", "5,x,-1", "is no number");
        check("at,service,memory_bytes", "5,x,nan", "is no number");
    }

    #[test]
    fn maps_are_checked() {
        let check = |text: &str, expect: &str| {
            let error = ColumnMap::parse(text).unwrap_err();
            assert!(error.contains(expect), "{error:?} does not say {expect:?}");
        };
        check("at=t", "service=COLUMN is missing");
        check("at=t,service=s,at=u", "at is given twice");
        check("at=t,service=s,usr=u", "did you mean \"user\"?");
        check("at", "is not KEY=COLUMN");
        let map = ColumnMap::parse("at=t,service=s").unwrap();
        let error = CsvParser::mapped(b"t,x", &map).unwrap_err();
        assert!(error.contains("no column \"s\" for service"), "{error}");
    }
}
