//! What can go wrong with a trace, in one line each: where, what, and the mend.

use std::io;

/// Everything that stops a reader. What only spoils a line is counted instead, see [`crate::ReadReport`].
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("cannot open {name}: {}", lower_first(source))]
    Open { name: String, source: io::Error },
    #[error("{name}:{line}: cannot read on: {why}")]
    Read { name: String, line: u64, why: String },
    #[error("{name} is empty: a trace needs at least one line")]
    Empty { name: String },
    #[error(
        "cannot tell the format of {name} from its first line {head:?}: give --format or, for a csv, --map at=COL,service=COL"
    )]
    UnknownFormat { name: String, head: String },
    #[error("{name} is {found}, but {first} is {expected}: give files of one format at a time")]
    Mixed { name: String, found: &'static str, first: String, expected: &'static str },
    #[error("{name}:1: {why}")]
    Header { name: String, why: String },
    #[error("{option}: {why}")]
    Option { option: &'static str, why: String },
    #[error("{name}:{line}: {why} (without --strict the line would be skipped)")]
    Line { name: String, line: u64, why: String },
    #[error("no request in {name}: {why}")]
    Nothing { name: String, why: String },
    #[error("{name}:{line}: more than {max} requests: give fewer files at a time")]
    TooMany { name: String, line: u64, max: usize },
    #[error("cannot write: {}", lower_first(.0))]
    Write(#[from] io::Error),
}

/// The system's own words begin with a capital; a message of ours does not.
pub(crate) fn lower_first(error: &io::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
