//! The journal: what happened, in order, so that it can be learned from again and checked.
//!
//! Segments, each opened by what stood and a snapshot of the core; then the steps: the instant, the event, a hash of
//! the actions that followed, and in words what they changed in instances. A record is
//! `length u32 | crc32 u32 | body`, little-endian; the body's first byte is its kind.
//!
//! | kind | rest of the body | |
//! |---|---|---|
//! | 1 | postcard: [`Head`] | first in every segment |
//! | 2 | the core as postcard | format 1 |
//! | 3 | postcard: instant, hash, event | format 1 |
//! | 4 | postcard: [`Scene`] | from format 2 |
//! | 5 | length unpacked u32, then LZ4 of the core as postcard | from format 2 |
//! | 6 | length unpacked u32, then LZ4 of [`Step`]s as postcard, one behind the other | format 2 |
//! | 7 | the same; services are described in more words | from format 3 |
//!
//! A segment is read up to its last whole record: what a kill or a full disk tore off is counted, never guessed.

mod change;
mod history;
mod old;
mod read;
mod record;
mod replay;
mod traffic;

pub use change::{Change, Changes, Scene, ServiceStanding, Stage, Standing, What};
pub use history::{Account, Entry, HistoryError, Wanted, account};
pub use read::{JournalError, Segment, Tail, segments};
#[cfg(feature = "canaries")]
pub use record::ANY_CHECKSUM;
pub use record::{
    FORMAT_VERSION, Head, Opening, Record, Step, Torn, actions_hash, decode, encode_step, seal_block,
};
pub use replay::{ReplayReport, Restored, relearn, replay, restore};
pub use traffic::{Recording, traffic};

use std::path::{Path, PathBuf};

/// The file of a segment.
#[must_use]
pub fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.frj"))
}

/// The same while its opening is not yet whole; nobody reads it.
#[must_use]
pub(crate) fn part_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.{PART}"))
}

/// Extension of segments whose opening is not yet whole.
pub(crate) const PART: &str = "part";
