//! Sentences for people about how a process ended or why it could not be started.

use crate::output::Tail;
use std::env;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// `exit code 3; last lines: ...`
pub(super) fn ended(status: ExitStatus, tail: &Tail) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed by SIGKILL, not by forerun (was memory short?)".to_owned(),
        (None, Some(signal)) => format!("killed by {}", signal_name(signal)),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    with_lines(how, tail)
}

pub(crate) fn with_lines(what: String, tail: &Tail) -> String {
    match tail.summary() {
        lines if lines.is_empty() => format!("{what}; it printed nothing"),
        lines => format!("{what}; last lines: {lines}"),
    }
}

/// `SIGSEGV` for 11.
pub(crate) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Why a command could not be run: the system's error names neither the file nor the mend.
pub(super) fn not_spawned(
    error: &io::Error,
    program: &str,
    folder: Option<&str>,
    path: Option<&str>,
) -> String {
    if let Some(folder) = folder.map(Path::new)
        && !folder.is_dir()
    {
        let what = if folder.exists() { "is not a folder" } else { "does not exist" };
        return format!("the working folder `{}` {what}", folder.display());
    }
    let found = find(program, folder, path);
    match (error.kind(), found) {
        (ErrorKind::NotFound, None) if program.contains('/') => {
            format!("the command `{program}` does not exist")
        }
        (ErrorKind::NotFound, None) => format!("the command `{program}` is not in PATH"),
        (ErrorKind::NotFound, Some(file)) => {
            format!("`{}` exists, but the interpreter or loader that it names does not", file.display())
        }
        (ErrorKind::PermissionDenied, Some(file)) if file.is_dir() => {
            format!("the command `{}` is a folder", file.display())
        }
        (ErrorKind::PermissionDenied, Some(file)) if !is_executable(&file) => {
            format!("`{}` is not executable: chmod +x it, or name its interpreter first", file.display())
        }
        (_, Some(_)) if error.raw_os_error() == Some(libc::ENOEXEC) => {
            format!("`{program}` is not a program for this machine, nor a script that starts with `#!`")
        }
        _ => format!("cannot run `{program}`: {error}"),
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// Where the system looked for the program and found it.
fn find(program: &str, folder: Option<&str>, path: Option<&str>) -> Option<PathBuf> {
    if program.contains('/') {
        let file = folder.map_or_else(|| PathBuf::from(program), |folder| Path::new(folder).join(program));
        return file.exists().then_some(file);
    }
    let path = path.map(Into::into).or_else(|| env::var_os("PATH"))?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_a_sentence() {
        let mut tail = Tail::default();
        let check = |raw: i32, tail: &Tail, expected: &str| {
            assert_eq!(ended(ExitStatus::from_raw(raw), tail), expected);
        };
        check(3 << 8, &tail, "exit code 3; it printed nothing");
        tail.push(b"boom\nat line 3\n", None);
        check(0, &tail, "exit code 0; last lines: boom | at line 3");
        check(11, &tail, "killed by SIGSEGV; last lines: boom | at line 3");
        check(
            9,
            &tail,
            "killed by SIGKILL, not by forerun (was memory short?); last lines: boom | at line 3",
        );
        check(40, &tail, "killed by signal 40; last lines: boom | at line 3");
    }
}
