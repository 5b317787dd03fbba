//! Reading segments from files.

use super::change::Scene;
use super::record::{
    FORMAT_VERSION, Head, PREFIX, Record, Step, decode, frame_length, framed, is_snapshot, whole,
};
use forerun_core::{AnyPolicy, Core};
use forerun_types::Time;
use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
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
    #[error("{}: none of its {count} segments can be used; the newest: {newest}", path.display())]
    NoneWhole { path: PathBuf, count: usize, newest: String },
}

/// A segment in memory.
#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub head: Head,
    /// What stood when it began; format 1 does not tell.
    pub scene: Option<Scene>,
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

/// A segment, or the segments of a folder, oldest first; never none.
pub(super) fn files(path: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let kind = fs::metadata(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    if !kind.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files: Vec<PathBuf> = segments(path)?.into_iter().map(|s| s.1).collect();
    if files.is_empty() { Err(JournalError::Empty { path: path.to_owned() }) } else { Ok(files) }
}

/// When a segment began, from its first records alone; `None` where they do not tell, as in format 1.
pub(super) fn begins(path: &Path) -> io::Result<Option<Time>> {
    let mut file = fs::File::open(path)?;
    for _ in 0..2 {
        let mut bytes = vec![0; PREFIX];
        file.read_exact(&mut bytes)?;
        // No more than the file has, whatever the length says.
        let length = frame_length(&bytes).unwrap_or(0);
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        match decode(&bytes) {
            Ok((Record::Head(head), _)) if head.version <= FORMAT_VERSION => {}
            Ok((Record::Scene(scene), _)) => return Ok(Some(scene.at)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

impl Segment {
    /// # Errors
    /// The file cannot be read, or has no whole head of a format that this program knows.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let bytes = fs::read(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
        Self::parse(path, bytes)
    }

    /// The same from the bytes of a file; `path` is only for messages.
    ///
    /// # Errors
    /// There is no whole head of a format that this program knows.
    pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, JournalError> {
        let path = path.to_owned();
        let (head, mut at) = match decode(&bytes) {
            Ok((Record::Head(head), _)) if head.version > FORMAT_VERSION => {
                return Err(JournalError::Version { path, version: head.version });
            }
            Ok((Record::Head(head), at)) => (head, at),
            _ => return Err(JournalError::NotAJournal { path }),
        };
        let mut scene = None;
        if head.version >= 2
            && let Ok((Record::Scene(found), length)) = decode(&bytes[at..])
        {
            scene = Some(found);
            at += length;
        }
        Ok(Self { path, head, scene, bytes, at })
    }

    /// The snapshot's bytes.
    ///
    /// # Errors
    /// There is none, or it is not whole.
    pub fn snapshot(&self) -> Result<Cow<'_, [u8]>, JournalError> {
        match decode(&self.bytes[self.at..]) {
            Ok((Record::Snapshot(bytes), _)) => Ok(bytes),
            _ => Err(JournalError::NoSnapshot { path: self.path.clone() }),
        }
    }

    /// The core before the first step.
    ///
    /// # Errors
    /// There is no whole snapshot, or it is one of another program.
    pub fn core(&self) -> Result<Core<AnyPolicy>, JournalError> {
        whole(&self.snapshot()?).map_err(|e| JournalError::Snapshot {
            path: self.path.clone(),
            policy: self.head.policy.clone(),
            why: e.to_string(),
        })
    }

    /// Hands every whole step to `each`, in order, and says where they ended.
    pub fn steps(&self, mut each: impl FnMut(Step)) -> Tail {
        let mut at = self.at;
        loop {
            let left = &self.bytes[at..];
            let length = match framed(left) {
                // Unpacking it would be for nothing.
                Ok((body, length)) if is_snapshot(body) => length,
                _ => match decode(left) {
                    Ok((Record::Steps(steps), length)) => {
                        steps.into_iter().for_each(&mut each);
                        length
                    }
                    Ok((_, length)) => length,
                    Err(_) => return Tail { whole_bytes: at as u64, torn_bytes: left.len() as u64 },
                },
            };
            at += length;
        }
    }
}
