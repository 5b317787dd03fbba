//! Readers and writers of recorded traffic: what people have (access logs, CSV, public traces) becomes one kind of
//! [`Trace`].
//!
//! A line that cannot be read is skipped, counted and the first such remembered; `strict` makes it an error. Lines
//! are bounded, files are streamed, and what is compressed is read as it is.
//!
//! Absent on purpose: anything that decides, and any clock.

mod access_log;
mod azure2019;
mod build;
mod cells;
mod csv;
mod error;
mod format;
mod keys;
mod minutes;
mod read;
mod record;
mod source;
mod steps;
mod time;
mod trace;
mod write;

pub use access_log::{ServiceRule, UserFrom};
pub use csv::ColumnMap;
pub use error::TraceError;
pub use format::Format;
pub use keys::{KeyFormat, KeyTrace, Visit, read_keys};
pub use read::{Input, ReadOptions, Recorded, read, read_records};
pub use record::{Record, Sink};
pub use source::open_plain;
pub use steps::{
    ItemIs, Sequences, Step, StepFormat, Steps, guess_steps, read_events, read_sequences, read_steps,
};
pub use time::{parse_duration, parse_instant};
pub use trace::{MinuteApp, MinuteTrace, Offender, ReadReport, Trace, TraceEvent};
pub use write::{Writer, csv_cell};
