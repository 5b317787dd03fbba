//! Forerun's own trace format, written.

use crate::record::{Record, Sink, SinkFull};
use std::borrow::Cow;
use std::io::{self, Write};

/// The columns of the format `forerun`, in the order in which they are written.
pub(crate) const COLUMNS: [&str; 13] = [
    "at",
    "service",
    "tenant",
    "user",
    "group",
    "site",
    "action",
    "duration_s",
    "cpu_s",
    "memory_bytes",
    "network_bytes",
    "storage_bytes",
    "status",
];

/// Writes records as a CSV of the format `forerun`, all columns, times in seconds since 1970.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    line: String,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        writeln!(out, "{}", COLUMNS.join(","))?;
        Ok(Self { out, line: String::new() })
    }

    /// Flushes, and gives back what was written to.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Sink for Writer<W> {
    fn record(&mut self, record: &Record<'_>) -> Result<(), SinkFull> {
        use std::fmt::Write as _;
        let line = &mut self.line;
        line.clear();
        push_seconds(line, record.at_us);
        for text in [record.service, record.tenant, record.user, record.group, record.site, record.action] {
            line.push(',');
            line.push_str(&csv_cell(&String::from_utf8_lossy(text)));
        }
        for span in [record.duration, record.cpu] {
            line.push(',');
            if let Some(span) = span {
                push_seconds(line, i64::try_from(span.0).unwrap_or(i64::MAX));
            }
        }
        for number in [record.memory_bytes, record.network_bytes, record.storage_bytes] {
            line.push(',');
            if let Some(number) = number {
                // Writing to a string cannot fail.
                let _ = write!(line, "{number}");
            }
        }
        let _ = if record.status > 0 { writeln!(line, ",{}", record.status) } else { writeln!(line, ",") };
        self.out.write_all(line.as_bytes()).map_err(SinkFull::Write)
    }
}

/// Appends microseconds as decimal seconds, whole, without trailing zeros.
fn push_seconds(out: &mut String, micros: i64) {
    use std::fmt::Write as _;
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    let _ = write!(out, "{sign}{whole}");
    if fraction > 0 {
        let digits = format!(".{fraction:06}");
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// A text as a CSV cell: quoted if it holds what would end the cell.
#[must_use]
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}
