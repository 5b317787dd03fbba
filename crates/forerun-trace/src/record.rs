//! One request as a file tells it, before names become numbers.

use crate::TraceError;
use forerun_types::Span;

/// What one line, or a part of it, says. Texts are borrowed from the line; an empty text is "not told", but for
/// the service, whose name may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Microseconds since 1970 UTC, or since the file's own zero.
    pub at_us: i64,
    pub service: &'a [u8],
    pub tenant: &'a [u8],
    pub user: &'a [u8],
    pub group: &'a [u8],
    pub site: &'a [u8],
    pub action: &'a [u8],
    pub duration: Option<Span>,
    pub cpu: Option<Span>,
    pub memory_bytes: Option<u64>,
    pub network_bytes: Option<u64>,
    pub storage_bytes: Option<u64>,
    /// HTTP status; 0 when not told.
    pub status: u16,
}

/// Takes records in the order of the file.
pub trait Sink {
    /// # Errors
    /// When it can take no more; reading stops with it.
    fn record(&mut self, record: &Record<'_>) -> Result<(), SinkFull>;
}

/// Why a sink takes no more.
#[derive(Debug)]
pub enum SinkFull {
    TooMany { max: usize },
    Write(std::io::Error),
}

impl SinkFull {
    pub(crate) fn at(self, name: &str, line: u64) -> TraceError {
        match self {
            SinkFull::TooMany { max } => TraceError::TooMany { name: name.to_owned(), line, max },
            SinkFull::Write(source) => TraceError::Write(source),
        }
    }
}
