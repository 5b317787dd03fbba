//! How one child is started: tied to Forerun and in its control group before anything of its own runs.

use super::cgroup::Group;
use super::launch::Gate;
use super::{prepare, sys};
use rustix::process::Pid;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A child that has been made, and that does not run its own command yet where a launcher holds it back.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) child: Child,
    /// The other end of its standard output and error.
    pub(super) output: OwnedFd,
    /// With a launcher.
    gate: Option<(Gate, Command)>,
    /// Whether it is in its group, where it was put there before.
    joined: Option<bool>,
}

/// A launcher that waits for its command.
#[derive(Debug)]
pub(super) struct Launcher {
    child: Child,
    output: OwnedFd,
    gate: Gate,
}

/// Why there is no child, or it does not run its command.
#[derive(Debug)]
pub(super) enum NotBegun {
    NoRoom(io::Error),
    NotRun(io::Error),
}

impl NotBegun {
    /// A sentence; `not_run` makes the one about the command.
    pub(super) fn sentence(&self, not_run: impl FnOnce(&io::Error) -> String) -> String {
        match self {
            NotBegun::NoRoom(error) => format!("the system has no room for another process: {error}"),
            NotBegun::NotRun(error) => not_run(error),
        }
    }
}

impl Launcher {
    /// Starts one; it dies with the calling *thread*.
    pub(super) fn start(command: &[String]) -> Result<Self, NotBegun> {
        let (program, rest) =
            command.split_first().ok_or(NotBegun::NoRoom(io::ErrorKind::InvalidInput.into()))?;
        let mut launcher = Command::new(program);
        launcher.args(rest);
        prepare::without_ours(&mut launcher);
        let output = piped(&mut launcher)?;
        let (gate, theirs) = Gate::new().map_err(NotBegun::NoRoom)?;
        launcher.stdin(theirs);
        let child = launcher.spawn().map_err(NotBegun::NotRun)?;
        Ok(Self { child, output, gate })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it its command. `joined` says whether it is in its group, if it was put there already.
    pub(super) fn with(self, command: Command, joined: Option<bool>) -> Held {
        Held { child: self.child, output: self.output, gate: Some((self.gate, command)), joined }
    }

    pub(super) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a child that dies with the calling *thread*: by a launcher where there is one, else by a fork.
pub(super) fn hold(
    mut command: Command,
    launcher: Option<&[String]>,
    reaper: Option<Arc<UnixStream>>,
    group: Option<&Group>,
) -> Result<Held, NotBegun> {
    if let Some(launcher) = launcher {
        return Ok(Launcher::start(launcher)?.with(command, None));
    }
    let output = piped(&mut command)?;
    command.stdin(Stdio::null());
    let doors = group.map_or(Ok(Vec::new()), Group::doors).map_err(NotBegun::NoRoom)?;
    sys::tie_to_this_thread(&mut command, reaper, doors);
    let child = command.spawn().map_err(NotBegun::NotRun)?;
    Ok(Held { child, output, gate: None, joined: None })
}

/// The other end of what will be its standard output and error. The command must be gone before that end is read to its
/// end: what is the child's must be the child's alone.
fn piped(command: &mut Command) -> Result<OwnedFd, NotBegun> {
    let (reader, writer) = io::pipe().map_err(NotBegun::NoRoom)?;
    command.stdout(writer.try_clone().map_err(NotBegun::NoRoom)?).stderr(writer);
    Ok(OwnedFd::from(reader))
}

impl Held {
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Lets the child run its command. Returns whether it is in its group.
    ///
    /// # Errors
    /// What the system said when the command was to be run.
    pub(super) fn begin(&mut self, group: Option<&Group>) -> Result<bool, NotBegun> {
        let pid = self.child.id();
        let Some((mut gate, command)) = self.gate.take() else {
            return Ok(group.is_some_and(|group| group.holds(pid)));
        };
        if !gate.is_tied().map_err(NotBegun::NotRun)? {
            // It died at once, which is seen like the service's death.
            return Ok(group.is_some());
        }
        let joined = self.joined.unwrap_or_else(|| group.is_some_and(|group| group.take(pid).is_ok()));
        gate.open(&command).map(|()| joined).map_err(NotBegun::NotRun)
    }
}
