//! The state file: which sessions this life of Forerun has, so that the next one can end what it left.
//!
//! First line: the boot's id. Then `+SESSION STARTED` and `-SESSION` lines as they happen. It lies in the page cache
//! and is never synced: it must survive Forerun, not the machine, and after a boot nothing of it is true.

use super::procfs::{self, Leftover};
use crate::SetupError;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const NAME: &str = "processes";
/// A file that has grown beyond this is written anew; 64 KiB are some 4,000 starts.
const COMPACT_BYTES: u64 = 64 << 10;
/// What is read of a file at most: more can only be somebody else's.
const READ_BYTES_MAX: u64 = 4 << 20;
/// How long a start waits for leftovers to die.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct StateFile {
    file: File,
    bytes: u64,
    compact_at_bytes: u64,
    sessions: BTreeMap<i32, u64>,
    /// Whether a failed write has been told of.
    warned: bool,
}

impl StateFile {
    /// Locks the file for this process, kills what the last life left, and begins anew.
    pub(super) fn open(folder: &Path) -> Result<Self, SetupError> {
        let path = folder.join(NAME);
        let failed = |what| {
            let path = path.clone();
            move |source| SetupError::StateFile { what, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed("open"))?;
        lock(&file, &path)?;
        let mut text = Vec::new();
        (&file).take(READ_BYTES_MAX).read_to_end(&mut text).map_err(failed("read"))?;
        let left = leftovers(&String::from_utf8_lossy(&text), &boot_id());
        let killed = procfs::kill_leftovers(&left, true, PATIENCE);
        if killed > 0 {
            tracing::warn!(killed, "ended processes that an earlier life of forerun left behind");
        }
        let mut state =
            Self { file, bytes: 0, compact_at_bytes: 0, sessions: BTreeMap::new(), warned: false };
        state.rewrite().map_err(failed("write"))?;
        Ok(state)
    }

    pub(super) fn add(&mut self, session: i32, started_ticks: u64) {
        self.sessions.insert(session, started_ticks);
        self.append(format!("+{session} {started_ticks}\n"));
    }

    pub(super) fn remove(&mut self, session: i32) {
        if self.sessions.remove(&session).is_some() {
            self.append(format!("-{session}\n"));
        }
    }

    fn append(&mut self, line: String) {
        self.bytes += line.len() as u64;
        let written = if self.bytes >= self.compact_at_bytes {
            self.rewrite()
        } else {
            self.file.write_all(line.as_bytes())
        };
        // A full disk takes away one of three safeguards; it is no reason to stop serving.
        if let Err(error) = &written
            && !self.warned
        {
            tracing::warn!(%error, "cannot write the list of processes; after a crash some may be left behind");
        }
        self.warned = written.is_err();
    }

    /// A crash in between leaves a short file; the reaper and the parent-death signal stand beside it.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = format!("{}\n", boot_id());
        for (session, started) in &self.sessions {
            text.push_str(&format!("+{session} {started}\n"));
        }
        self.bytes = text.len() as u64;
        self.compact_at_bytes = COMPACT_BYTES.max(2 * self.bytes);
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())
    }
}

/// A process that a killed Forerun was just starting holds the lock until it is dead too, so this tries for a while.
fn lock(file: &File, path: &Path) -> Result<(), SetupError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        let path = path.to_owned();
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(10))
            }
            Err(TryLockError::WouldBlock) => return Err(SetupError::StateInUse { path }),
            Err(TryLockError::Error(source)) => {
                return Err(SetupError::StateFile { what: "lock", path, source });
            }
        }
    }
}

/// What a file of this boot lists as not ended. Lines that make no sense, such as one cut short, are skipped.
fn leftovers(text: &str, boot_id: &str) -> Vec<Leftover> {
    let mut lines = text.lines();
    if lines.next() != Some(boot_id) {
        return Vec::new();
    }
    let mut sessions: BTreeMap<i32, u64> = BTreeMap::new();
    for line in lines {
        if let Some((session, started)) = line.strip_prefix('+').and_then(|rest| rest.split_once(' ')) {
            if let (Ok(session), Ok(started)) = (session.parse(), started.parse()) {
                sessions.insert(session, started);
            }
        } else if let Some(Ok(session)) = line.strip_prefix('-').map(str::parse) {
            sessions.remove(&session);
        }
    }
    sessions.into_iter().map(|(session, started_ticks)| Leftover { session, started_ticks }).collect()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, sessions: &[i32]) {
        let found: Vec<i32> = leftovers(text, "boot").iter().map(|leftover| leftover.session).collect();
        assert_eq!(found, sessions, "{text}");
    }

    #[test]
    fn only_this_boots_open_sessions_are_left() {
        check("", &[]);
        check("other\n+7 100\n", &[]);
        check("boot\n+7 100\n+8 200\n-7\n", &[8]);
        check("boot\n+7 100\nnonsense\n-x\n+9\n+8 2", &[7, 8]);
    }

    #[test]
    fn a_file_is_locked_compacted_and_read_back() {
        let folder = std::env::temp_dir().join(format!("forerun-state-{}", std::process::id()));
        let mut state = StateFile::open(&folder).unwrap();
        assert!(matches!(StateFile::open(&folder), Err(SetupError::StateInUse { .. })));
        // Numbers beyond the largest pid, so that nothing real is meant.
        for session in 2_000_000_000..2_000_010_000 {
            state.add(session, 5);
            state.remove(session - 2);
        }
        let text = fs::read_to_string(folder.join(NAME)).unwrap();
        assert!(text.len() as u64 <= COMPACT_BYTES, "{}", text.len());
        let left: Vec<i32> = leftovers(&text, &boot_id()).iter().map(|leftover| leftover.session).collect();
        assert_eq!(left, [2_000_009_998, 2_000_009_999]);
        drop(state);
        drop(StateFile::open(&folder).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = StateFile::open(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("cannot create the folder of `/proc/nowhere/processes`: "), "{error}");
    }
}
