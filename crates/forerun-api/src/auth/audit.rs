//! The log of changes: who, what, when, and what became of it; a line of JSON each, in `audit.jsonl` of the state folder.
//!
//! When it is full it becomes `audit.1.jsonl`, in place of the one before: the last few ten thousand changes are kept.

use super::tokens::now;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Of each of the two files: some 20,000 lines.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Of each text in a line: what a caller sends must not push out what was logged before.
const CHARS_MAX: usize = 200;

/// A change, or one that was refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Seconds since 1970 UTC.
    pub at: f64,
    /// `token NAME`, `local` (a loopback address that needs no token), or `command` (by `forerun token`).
    pub who: String,
    /// Its role; empty for a command.
    #[serde(default)]
    pub role: String,
    /// The address that it came from; empty for a command.
    #[serde(default)]
    pub from: String,
    /// As `scale web to 2 for 1h`.
    pub what: String,
    /// `done`, or why not.
    pub result: String,
}

/// The log of a state folder.
#[derive(Debug)]
pub struct AuditLog {
    path: PathBuf,
    writing: Mutex<()>,
}

impl AuditLog {
    /// Of a state folder, which need not be there yet.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join("audit.jsonl"), writing: Mutex::default() }
    }

    fn before(&self) -> PathBuf {
        self.path.with_file_name("audit.1.jsonl")
    }

    /// Adds a line; `at` is filled in here.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&self, entry: AuditEntry) -> io::Result<()> {
        let short = |text: String| text.chars().take(CHARS_MAX).collect::<String>();
        let AuditEntry { who, role, from, what, result, .. } = entry;
        let entry = AuditEntry {
            at: now(),
            who: short(who),
            role: short(role),
            from: short(from),
            what: short(what),
            result: short(result),
        };
        let line = format!("{}\n", serde_json::to_string(&entry)?);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let open = || OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        let mut file = open()?;
        if file.metadata()?.len() + line.len() as u64 > FILE_BYTES_MAX {
            fs::rename(&self.path, self.before())?;
            file = open()?;
        }
        // One write: lines of a command beside a running Forerun do not mix.
        file.write_all(line.as_bytes())
    }

    /// The last lines, the newest first. What is no line of it (a write that was cut) is left out.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn last(&self, most: usize) -> io::Result<Vec<AuditEntry>> {
        let mut last: VecDeque<AuditEntry> = VecDeque::new();
        for path in [self.before(), self.path.clone()] {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for line in BufReader::new(file).split(b'\n') {
                let Ok(entry) = serde_json::from_slice(&line?) else { continue };
                if last.len() == most {
                    last.pop_front();
                }
                last.push_back(entry);
            }
        }
        last.truncate(most);
        Ok(last.into_iter().rev().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, test: impl FnOnce(&Path, &AuditLog)) {
        let folder = std::env::temp_dir().join(format!("forerun-audit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        test(&folder, &AuditLog::of(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }

    fn entry(what: &str) -> AuditEntry {
        AuditEntry { who: "token ci".to_owned(), what: what.to_owned(), ..AuditEntry::default() }
    }

    #[test]
    fn the_newest_comes_first_and_a_cut_line_is_left_out() {
        check("order", |folder, log| {
            assert!(log.last(5).unwrap().is_empty());
            log.add(entry("one")).unwrap();
            let mut file = OpenOptions::new().append(true).open(folder.join("audit.jsonl")).unwrap();
            file.write_all(b"{\"at\":1,\"who\n").unwrap();
            log.add(entry("two\n\"x\"")).unwrap();
            let last = log.last(5).unwrap();
            let told: Vec<&str> = last.iter().map(|e| e.what.as_str()).collect();
            assert_eq!(told, ["two\n\"x\"", "one"]);
            assert!(last[0].at > 1.7e9);
            assert_eq!(log.last(1).unwrap().len(), 1);
        });
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_the_newest() {
        check("bound", |folder, log| {
            let long = "x".repeat(10_000);
            let lines = 2 * FILE_BYTES_MAX as usize / CHARS_MAX;
            for at in 0..lines {
                log.add(entry(&format!("{at} {long}"))).unwrap();
            }
            let bytes = |name| fs::metadata(folder.join(name)).unwrap().len();
            assert!(bytes("audit.jsonl") <= FILE_BYTES_MAX && bytes("audit.1.jsonl") <= FILE_BYTES_MAX);
            let last = log.last(3).unwrap();
            assert!(last[0].what.starts_with(&format!("{} ", lines - 1)), "{last:?}");
            assert!(last[0].what.len() <= CHARS_MAX);
        });
    }
}
