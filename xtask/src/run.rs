//! Runs programs: what they print is shown as it comes and kept, and none may run for ever.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than the slowest step (building a tool on two cores) by half.
pub(crate) const LIMIT: Duration = Duration::from_secs(25 * 60);

/// How often a program that runs is looked at.
const POLL: Duration = Duration::from_millis(50);

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code 0, in time.
    pub(crate) good: bool,
    /// Both outputs for [`shown`] and [`kept`], standard output alone for [`quiet`].
    pub(crate) text: String,
    /// What went wrong besides the exit code: not found, out of time.
    pub(crate) trouble: Option<String>,
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Runs a program in the workspace with its output shown and kept.
pub(crate) fn shown(command: &mut Command, limit: Duration) -> Ran {
    println!("$ {}", line(command));
    run(command, limit, true)
}

/// Runs a program in the workspace with its output kept, to be shown in one piece when others have had theirs.
pub(crate) fn kept(command: &mut Command, limit: Duration) -> Ran {
    command.stderr(Stdio::piped());
    run(command, limit, false)
}

/// Runs a program in the workspace; its standard output is kept, its errors are shown.
pub(crate) fn quiet(command: &mut Command, limit: Duration) -> Ran {
    run(command, limit, false)
}

fn run(command: &mut Command, limit: Duration, show: bool) -> Ran {
    if command.get_current_dir().is_none() {
        command.current_dir(root());
    }
    // A group of its own, so that a test that hangs goes with everything that it started.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    if show {
        command.stderr(Stdio::piped());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let trouble = format!("cannot run {}: {error}", command.get_program().to_string_lossy());
            return Ran { good: false, text: String::new(), trouble: Some(trouble) };
        }
    };
    let out = child.stdout.take().map(|pipe| collect(pipe, show));
    let err = child.stderr.take().map(|pipe| collect(pipe, show));
    let ended = wait(&mut child, limit);
    // Whatever outlived its parent would keep the pipes open, and this waiting.
    kill_group(child.id());
    let mut text = String::new();
    for reader in [out, err].into_iter().flatten() {
        text += &reader.join().unwrap_or_default();
    }
    let trouble = ended.is_none().then(|| format!("ran for {} s and was killed", limit.as_secs()));
    Ran { good: ended == Some(true), text, trouble }
}

fn collect(pipe: impl Read + Send + 'static, show: bool) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let read = String::from_utf8_lossy(&line);
            if show {
                // A reader of ours that has gone away is no reason to stop testing.
                let _ = std::io::stdout().write_all(read.as_bytes());
            }
            text += &read;
            line.clear();
        }
        text
    })
}

/// Whether it ended well, or `None` if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if start.elapsed() < limit => std::thread::sleep(POLL),
            Ok(None) | Err(_) => {
                kill_group(child.id());
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

fn kill_group(leader: u32) {
    let _ = Command::new("kill").args(["-KILL", "--", &format!("-{leader}")]).stderr(Stdio::null()).status();
}

/// A command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
