//! The reaper: a small process beside Forerun that outlives it just long enough to kill what it left.
//!
//! The parent-death signal reaches only a child itself; what the child started would go on. Forerun therefore keeps
//! one end of a socket whose other end is the reaper's standard input. When Forerun ends, however it ends, the
//! kernel closes that end, and the reaper kills every session that it was told of and not told to forget.

use super::procfs::{self, Leftover};
use super::sys;
use crate::SetupError;
use rustix::net::SendFlags;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Sessions that a reaper remembers: more than there are process ids by default.
const SESSIONS_MAX: usize = 65_536;
/// How long it goes on killing what does not die.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// The reaper's whole life: reads `+PID` and `-PID` lines from standard input until it ends, then kills every
/// session that is left, and exits. To be called first thing by the command that
/// [`ProcessSettings::reaper_command`](crate::ProcessSettings) names.
pub fn reaper_main() -> ! {
    sys::ignore_end_signals();
    // No folder stays busy because of it.
    let _ = std::env::set_current_dir("/");
    let left = listen(BufReader::new(std::io::stdin().lock()));
    procfs::kill_leftovers(&left, false, PATIENCE);
    std::process::exit(0)
}

/// Follows the lines to their end and returns what was not forgotten.
fn listen(lines: impl BufRead) -> Vec<Leftover> {
    let mut sessions: BTreeMap<i32, u64> = BTreeMap::new();
    // A line is a sign and a number: 64 bytes hold it, and bound what a stray writer can make it read.
    let mut lines = lines;
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.by_ref().take(64).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let text = std::str::from_utf8(&line).unwrap_or_default().trim();
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
    sessions.into_iter().map(|(session, started_ticks)| Leftover { session, started_ticks }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_followed_and_nonsense_is_skipped() {
        let long = format!("+{}\n", "9".repeat(200));
        for (text, left) in [
            ("", &[][..]),
            ("+2000000001\n+2000000002\n-2000000001\n", &[2_000_000_002][..]),
            ("+2000000001\n+2000000001\n", &[2_000_000_001][..]),
            ("-5\nx\n\n+\n+x\nhello\n+2000000003\n", &[2_000_000_003][..]),
            (&long, &[][..]),
        ] {
            let found: Vec<i32> = listen(text.as_bytes()).iter().map(|leftover| leftover.session).collect();
            assert_eq!(found, left, "{text}");
        }
    }
}
