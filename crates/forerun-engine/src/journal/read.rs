//! Reading segments from files.

use super::record::{FORMAT_VERSION, Head, Record, Torn, decode};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: not a journal of this program (no whole head record at its beginning)", path.display())]
    NotAJournal { path: PathBuf },
    #[error("{}: journal format {version}, and this program reads up to {FORMAT_VERSION}; use the program that wrote it", path.display())]
    Version { path: PathBuf, version: u32 },
    #[error("{}: no snapshot of the core after the head; the segment cannot be replayed", path.display())]
    NoSnapshot { path: PathBuf },
    #[error("{}: the snapshot of policy `{policy}` does not fit this program: {why}", path.display())]
    Snapshot { path: PathBuf, policy: String, why: String },
    #[error("{}: no journal segment in this folder", path.display())]
    Empty { path: PathBuf },
}

/// A segment in memory.
#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub head: Head,
    bytes: Vec<u8>,
    /// Offset of the snapshot record.
    at: usize,
}

/// Where a segment ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes of whole records.
    pub whole_bytes: u64,
    /// Bytes after them that are no whole record.
    pub torn_bytes: u64,
}

/// The segments of a folder, oldest first.
pub fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let fail = |source| JournalError::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        if let (Some(number), Some("frj")) = (number, path.extension().and_then(|e| e.to_str())) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl Segment {
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let bytes = fs::read(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
        let path = path.to_owned();
        match decode(&bytes) {
            Ok((Record::Head(head), _)) if head.version > FORMAT_VERSION => {
                Err(JournalError::Version { path, version: head.version })
            }
            Ok((Record::Head(head), at)) => Ok(Self { path, head, bytes, at }),
            _ => Err(JournalError::NotAJournal { path }),
        }
    }

    /// The snapshot's bytes.
    pub fn snapshot(&self) -> Result<&[u8], JournalError> {
        match decode(&self.bytes[self.at..]) {
            Ok((Record::Snapshot(bytes), _)) => Ok(bytes),
            _ => Err(JournalError::NoSnapshot { path: self.path.clone() }),
        }
    }

    /// Hands every whole step to `each`, in order, and says where they ended.
    pub fn steps(&self, mut each: impl FnMut(forerun_types::Time, forerun_types::Event, u64)) -> Tail {
        let mut at = self.at;
        loop {
            match decode(&self.bytes[at..]) {
                Ok((Record::Step { now, event, actions_hash }, length)) => {
                    at += length;
                    each(now, event, actions_hash);
                }
                Ok((_, length)) => at += length,
                Err(Torn::End | Torn::Short | Torn::Damaged) => {
                    return Tail { whole_bytes: at as u64, torn_bytes: (self.bytes.len() - at) as u64 };
                }
            }
        }
    }
}
