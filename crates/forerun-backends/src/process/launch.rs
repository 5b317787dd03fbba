//! The launcher: starts a service's process without copying Forerun's.
//!
//! A fork copies the page tables of the whole process and makes each page that is written next fault: some 20 ms at
//! 1 GB, felt by every request on its way. The system's own spawn avoids the fork, but cannot ask for the
//! parent-death signal. So Forerun spawns its own small entry, which ties itself to Forerun, waits until it stands in
//! the books, is told its command, and becomes the service. The two talk through the entry's standard input.

use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// How long a program's file may take to be opened; beyond that the process is watched as if it had begun.
const PATIENCE: Duration = Duration::from_secs(10);

/// Forerun's end of the conversation with one launcher.
#[derive(Debug)]
pub(super) struct Gate(UnixStream);

impl Gate {
    /// A gate, and what the launcher gets as its standard input.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        ours.set_write_timeout(Some(PATIENCE))?;
        Ok((Self(ours), theirs.into()))
    }

    /// Waits until the launcher is tied to us, and says whether it lives: let go earlier, it could outlive us unseen.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) fn is_tied(&mut self) -> io::Result<bool> {
        match self.0.read_exact(&mut [0; 1]) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets the service begin, by its command, and waits until it has.
    ///
    /// # Errors
    /// What the system said when the command was to be run.
    pub(super) fn open(mut self, command: &Command) -> io::Result<()> {
        self.0.write_all(&told(command))?;
        let mut errno = [0; 4];
        match self.0.read_exact(&mut errno) {
            Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            // It closed its end by becoming the service; or it died, which is seen like the service's death.
            Err(_) => Ok(()),
        }
    }
}

/// A command in bytes: how many there are, then program and arguments, the folder if it has one, and its environment,
/// each a list of texts with its length before.
fn told(command: &Command) -> Vec<u8> {
    let words: Vec<&OsStr> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let folder: Vec<&OsStr> =
        command.get_current_dir().map(|folder| folder.as_os_str()).into_iter().collect();
    let mut env: BTreeMap<OsString, OsString> = env::vars_os().collect();
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => _ = env.insert(name.to_owned(), value.to_owned()),
            None => _ = env.remove(name),
        }
    }
    let env: Vec<&OsStr> = env.iter().flat_map(|(name, value)| [name.as_os_str(), value]).collect();
    let mut bytes = Vec::new();
    for list in [words, folder, env] {
        put_len(&mut bytes, list.len());
        for text in list {
            put_len(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    let mut message = Vec::with_capacity(4 + bytes.len());
    put_len(&mut message, bytes.len());
    message.extend(bytes);
    message
}

/// What does not fit is more than the system takes, and is refused by it.
fn put_len(bytes: &mut Vec<u8>, len: usize) {
    bytes.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
}

/// The command that the bytes tell.
///
/// # Errors
/// They do not come from [`told`], or do not come.
fn heard(mut gate: impl Read) -> io::Result<Command> {
    let len = take_len(&mut gate)?;
    let mut bytes = vec![0; len];
    gate.read_exact(&mut bytes)?;
    let mut rest = bytes.as_slice();
    let [words, folder, env] = [take_list(&mut rest)?, take_list(&mut rest)?, take_list(&mut rest)?];
    let mut words = words.into_iter();
    let program = words.next().ok_or_else(|| io::Error::other("no command was given"))?;
    let mut command = Command::new(program);
    command.args(words).env_clear();
    command.envs(env.chunks_exact(2).map(|pair| (&pair[0], &pair[1])));
    folder.first().map(|folder| command.current_dir(folder));
    Ok(command)
}

fn take_list(rest: &mut &[u8]) -> io::Result<Vec<OsString>> {
    (0..take_len(rest)?)
        .map(|_| {
            let len = take_len(rest)?;
            let text = rest.split_off(..len).ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok(OsString::from_vec(text.to_vec()))
        })
        .collect()
}

fn take_len(rest: &mut impl Read) -> io::Result<usize> {
    let mut len = [0; 4];
    rest.read_exact(&mut len)?;
    Ok(u32::from_ne_bytes(len) as usize)
}

/// The launcher's whole life, up to the service's. To be called first thing by the command that
/// [`ProcessSettings::launcher_command`](crate::ProcessSettings) names.
pub fn launcher_main() -> ! {
    let code = match launch() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cannot launch: {error}");
            127
        }
    };
    std::process::exit(code)
}

/// Returns only if the service could not be started, or Forerun has no use for this launcher any more.
fn launch() -> io::Result<()> {
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let gate = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let mut gate = UnixStream::from(gate);
    gate.write_all(b"?")?;
    // If Forerun died before the signal was asked for, nobody answers.
    let mut command = match heard(&gate) {
        Ok(command) => command,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
        Err(error) => return Err(error),
    };
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let error = command.exec();
    gate.write_all(&error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_heard_as_it_was_told() {
        let odd = OsStr::from_bytes(b"\xff = \n");
        let mut command = Command::new("server");
        command.args([OsStr::new("--flag"), OsStr::new(""), odd]).current_dir("/some where");
        command.env("PORT", "80").env("ODD", odd).env_remove("PATH");
        let heard = heard(told(&command).as_slice()).unwrap();
        assert_eq!(heard.get_program(), "server");
        assert!(heard.get_args().eq(command.get_args()));
        assert_eq!(heard.get_current_dir(), command.get_current_dir());
        let env: BTreeMap<_, _> = heard.get_envs().collect();
        assert_eq!(env.get(OsStr::new("ODD")), Some(&Some(odd)));
        assert!(!env.contains_key(OsStr::new("PATH")), "it was taken away");
        let inherited =
            |(name, value): &(OsString, OsString)| env.get(name.as_os_str()) == Some(&Some(value));
        assert!(env::vars_os().filter(|(name, _)| name != "PATH").all(|pair| inherited(&pair)));
    }

    #[test]
    fn what_is_cut_off_is_no_command() {
        let whole = told(&Command::new("server"));
        for len in 0..whole.len() {
            assert!(heard(&whole[..len]).is_err(), "{len} bytes");
        }
    }
}
