//! The launcher: starts a service's process without copying Forerun's.
//!
//! A fork copies the page tables of the whole process and makes each page that is written next fault: some 20 ms at
//! 1 GB, felt by every request on its way. The system's own spawn avoids the fork, but cannot ask for the
//! parent-death signal. So Forerun spawns its own small entry, which ties itself to Forerun, waits until it stands in
//! the books, and then becomes the service. The two talk through the entry's standard input.

use rustix::process::{Signal, set_parent_process_death_signal, setsid};
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
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

    /// Lets the service begin, and waits until it has.
    ///
    /// # Errors
    /// What the system said when the command was to be run.
    pub(super) fn open(mut self) -> io::Result<()> {
        self.0.write_all(b"!")?;
        let mut errno = [0; 4];
        match self.0.read_exact(&mut errno) {
            Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            // It closed its end by becoming the service; or it died, which is seen like the service's death.
            Err(_) => Ok(()),
        }
    }
}

/// The launcher's whole life, up to the service's: `PROGRAM ARG...` are this process's arguments from the
/// `skip`-th on. To be called first thing by the command that
/// [`ProcessSettings::launcher_command`](crate::ProcessSettings) names.
pub fn launcher_main(skip: usize) -> ! {
    let code = match launch(skip) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cannot launch: {error}");
            127
        }
    };
    std::process::exit(code)
}

/// Returns only if the service could not be started.
fn launch(skip: usize) -> io::Result<()> {
    let mut args = env::args_os().skip(skip);
    let program = args.next().ok_or_else(|| io::Error::other("no command was given"))?;
    setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let gate = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let mut gate = UnixStream::from(gate);
    gate.write_all(b"?")?;
    // If Forerun died before the signal was asked for, nobody answers.
    gate.read_exact(&mut [0; 1])?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let error = Command::new(program).args(args).exec();
    gate.write_all(&error.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes())
}
