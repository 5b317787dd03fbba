//! The reaper: a small process beside Forerun that outlives it just long enough to kill what it left.
//!
//! The parent-death signal reaches only a child itself; what the child started would go on. Forerun therefore keeps
//! one end of a socket whose other end is the reaper's standard input. When Forerun ends, however it ends, the
//! kernel closes that end, and the reaper kills every session that it was told of and not told to forget.

use super::procfs::{self, Leftover};
use super::{cgroup, sys};
use crate::SetupError;
use rustix::net::SendFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Sessions that a reaper remembers: more than there are process ids by default.
const SESSIONS_MAX: usize = 65_536;
/// A group for each hierarchy, of which there are a dozen.
const GROUPS_MAX: usize = 64;
/// The longest path that the system takes, and its sign.
const LINE_BYTES_MAX: u64 = 4_097;
/// How long it goes on killing what does not die.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long Forerun takes to be gone altogether once its socket is.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Forerun's end of a reaper.
#[derive(Debug)]
pub(super) struct Reaper {
    socket: Arc<UnixStream>,
    child: Child,
}

impl Reaper {
    /// Runs `command`, which must call [`reaper_main`].
    pub(super) fn start(command: &[String]) -> Result<Self, SetupError> {
        let failed = |source| SetupError::Reaper { command: command.join(" "), source };
        let (program, args) =
            command.split_first().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = Command::new(program)
            .arg0("forerun-reaper")
            .args(args)
            // Ctrl-C in Forerun's terminal is not for the reaper.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            // A pipe behind Forerun's output must see its end when Forerun ends.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Self { socket: Arc::new(ours), child })
    }

    /// For [`sys::tie_to_this_thread`].
    pub(super) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn watch(&self, session: i32) {
        self.tell(format!("+{session}\n"));
    }

    /// A control group of this life: what is in it ends with it.
    pub(super) fn watch_group(&self, folder: &Path) {
        if let Some(folder) = folder.to_str().filter(|folder| !folder.contains('\n')) {
            self.tell(format!("@{folder}\n"));
        }
    }

    pub(super) fn forget(&self, session: i32) {
        self.tell(format!("-{session}\n"));
    }

    fn tell(&self, line: String) {
        // What a stuck reaper misses is harmless: it compares start times before it kills.
        let _ = rustix::net::send(&*self.socket, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        let until = Instant::now() + Duration::from_secs(1);
        while self.is_alive() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The reaper's whole life: reads `+PID`, `-PID` and `@GROUP` lines from standard input until it ends, then kills every
/// session and group that is left, and exits. To be called first thing by the command that
/// [`ProcessSettings::reaper_command`](crate::ProcessSettings) names.
pub fn reaper_main() -> ! {
    sys::ignore_end_signals();
    // No folder stays busy because of it.
    let _ = std::env::set_current_dir("/");
    let (left, groups) = listen(BufReader::new(std::io::stdin().lock()));
    // First the groups: a frozen process dies only when it is thawed. Forerun's lock on them may go after its socket.
    groups.iter().for_each(|group| cgroup::end_if_left(group, LOCK_PATIENCE));
    procfs::kill_leftovers(&left, false, PATIENCE);
    std::process::exit(0)
}

/// Follows the lines to their end and returns what was not forgotten, and the groups.
fn listen(lines: impl BufRead) -> (Vec<Leftover>, BTreeSet<PathBuf>) {
    let mut sessions: BTreeMap<i32, u64> = BTreeMap::new();
    let mut groups = BTreeSet::new();
    // A line is a sign and a number or a path: this bounds what a stray writer can make it read.
    let mut lines = lines;
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let text = std::str::from_utf8(&line).unwrap_or_default().trim();
        if let Some(group) = text.strip_prefix('@') {
            if groups.len() < GROUPS_MAX {
                groups.insert(PathBuf::from(group));
            }
            continue;
        }
        let Some((sign, Ok(session))) = text.split_at_checked(1).map(|(sign, rest)| (sign, rest.parse()))
        else {
            continue;
        };
        match sign {
            "+" if sessions.len() < SESSIONS_MAX => {
                let started = procfs::stat(session).map_or(0, |stat| stat.started_ticks);
                sessions.entry(session).or_insert(started);
            }
            "-" => {
                sessions.remove(&session);
            }
            _ => {}
        }
    }
    let left = sessions.into_iter().map(|(session, started_ticks)| Leftover { session, started_ticks });
    (left.collect(), groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_followed_and_nonsense_is_skipped() {
        let long = format!("+{}\n", "9".repeat(5_000));
        for (text, left) in [
            ("", &[][..]),
            ("+2000000001\n+2000000002\n-2000000001\n", &[2_000_000_002][..]),
            ("+2000000001\n+2000000001\n", &[2_000_000_001][..]),
            ("-5\nx\n\n+\n+x\nhello\n+2000000003\n", &[2_000_000_003][..]),
            (&long, &[][..]),
        ] {
            let (found, groups) = listen(text.as_bytes());
            let found: Vec<i32> = found.iter().map(|leftover| leftover.session).collect();
            assert_eq!((&found[..], groups.len()), (left, 0), "{text}");
        }
        let (_, groups) = listen(&b"@/a b/c\n+2000000001\n@/d\n@/a b/c\n"[..]);
        assert_eq!(groups, BTreeSet::from(["/a b/c", "/d"].map(PathBuf::from)));
    }
}
