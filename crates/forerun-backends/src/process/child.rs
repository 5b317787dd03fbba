//! How one child is started: tied to Forerun and in its control group before anything of its own runs.

use super::cgroup::Group;
use super::launch::Gate;
use super::sys;
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
    gate: Option<Gate>,
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

/// Starts a child that dies with the calling *thread*. With a launcher, the command is the launcher's with the child's
/// own appended.
pub(super) fn hold(
    mut command: Command,
    launcher: bool,
    reaper: Option<Arc<UnixStream>>,
    group: Option<&Group>,
) -> Result<Held, NotBegun> {
    let (reader, writer) = io::pipe().map_err(NotBegun::NoRoom)?;
    command.stdout(writer.try_clone().map_err(NotBegun::NoRoom)?).stderr(writer);
    let gate = if launcher {
        let (gate, theirs) = Gate::new().map_err(NotBegun::NoRoom)?;
        command.stdin(theirs);
        Some(gate)
    } else {
        command.stdin(Stdio::null());
        let doors = group.map_or(Ok(Vec::new()), Group::doors).map_err(NotBegun::NoRoom)?;
        sys::tie_to_this_thread(&mut command, reaper, doors);
        None
    };
    let child = command.spawn().map_err(NotBegun::NotRun)?;
    // The ends of the pipe and of the gate that are the child's must be the child's alone.
    drop(command);
    Ok(Held { child, output: OwnedFd::from(reader), gate })
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
        let Some(mut gate) = self.gate.take() else {
            return Ok(group.is_some_and(|group| group.holds(pid)));
        };
        if !gate.is_tied().map_err(NotBegun::NotRun)? {
            // It died at once, which is seen like the service's death.
            return Ok(group.is_some());
        }
        let joined = group.is_some_and(|group| group.take(pid).is_ok());
        gate.open().map(|()| joined).map_err(NotBegun::NotRun)
    }
}
