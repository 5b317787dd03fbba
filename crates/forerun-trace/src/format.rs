//! The formats there are, and how each is told from its first lines.

use crate::access_log::AccessLogParser;
use crate::azure2019::DayFile;
use crate::write::COLUMNS;
use crate::{ServiceRule, UserFrom};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Forerun's own CSV.
    Forerun,
    /// Any CSV, by a map of columns.
    Csv,
    AccessLog,
    Azure2021,
    Azure2019,
    Minutes,
}

impl Format {
    pub const ALL: [Format; 6] =
        [Self::Forerun, Self::Csv, Self::AccessLog, Self::Azure2021, Self::Azure2019, Self::Minutes];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forerun => "forerun",
            Self::Csv => "csv",
            Self::AccessLog => "access-log",
            Self::Azure2021 => "azure2021",
            Self::Azure2019 => "azure2019",
            Self::Minutes => "minutes",
        }
    }

    /// # Errors
    /// Lists the names there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|f| f.name() == text)
            .ok_or_else(|| format!("{text:?} is unknown, there are {names}"))
    }

    /// From the beginning of a file.
    pub(crate) fn guess(head: &[u8]) -> Option<Self> {
        /// A log may begin with a few requests that were none.
        const LINES: usize = 20;
        let mut lines =
            head.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l)).filter(|l| !l.is_empty());
        let first = lines.clone().next()?;
        let columns: Vec<&[u8]> = first.split(|&b| b == b',').map(<[u8]>::trim_ascii).collect();
        let has = |name: &str| columns.contains(&name.as_bytes());
        if DayFile::of(first).is_some() {
            return Some(Self::Azure2019);
        }
        if has("app") && has("func") && has("end_timestamp") && has("duration") {
            return Some(Self::Azure2021);
        }
        // One of the two suffices: a file that means to be Forerun's own and lacks the other is told so by its reader.
        let known = columns.iter().filter(|c| COLUMNS.iter().any(|k| k.as_bytes() == **c)).count();
        if has("at") && known >= 2 || has("at") && has("service") {
            return Some(Self::Forerun);
        }
        let mut parser = AccessLogParser::new(ServiceRule::Path(1), UserFrom::Nobody);
        lines.by_ref().take(LINES).any(|l| parser.parse(l).is_ok()).then_some(Self::AccessLog)
    }
}
