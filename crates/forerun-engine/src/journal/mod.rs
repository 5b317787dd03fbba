//! The journal: what happened, in order, so that it can be learned from again and checked.
//!
//! Segments, each opened by a snapshot of the core; then one record per step: the instant, the event, and a hash of
//! the actions that followed. A record is `length u32 | crc32 u32 | body`, little-endian; the body's first byte is
//! its kind, the rest postcard. A segment is read up to its last whole record: what a kill or a full disk tore off
//! is counted, never guessed.

mod read;
mod record;
mod replay;

pub use read::{JournalError, Segment, segments};
pub use record::{
    FORMAT_VERSION, Head, Record, actions_hash, decode, encode_head, encode_snapshot, encode_step,
};
pub use replay::{ReplayReport, Restored, replay, restore};

use std::path::{Path, PathBuf};

/// The file of a segment.
#[must_use]
pub fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.frj"))
}
