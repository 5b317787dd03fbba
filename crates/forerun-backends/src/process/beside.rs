//! Commands that run beside an instance for a moment: hooks, and questions whether it is busy.

use super::cgroup::Group;
use super::child;
use super::prepare::{self, Place};
use super::why;
use crate::waited::{self, Waited};
use forerun_types::{InstanceId, ServiceSpec};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The instance that they run beside.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    pub(super) instance: InstanceId,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) port: u16,
    pub(super) files: PathBuf,
    pub(super) group: Option<Arc<Group>>,
    pub(super) launcher_command: Option<Vec<String>>,
}

impl Beside {
    pub(super) fn place(&self) -> Place<'_> {
        Place { instance: self.instance, port: self.port, files: &self.files }
    }

    /// Runs a command to its end, in the instance's control group, so that it ends with the instance. It dies with the
    /// calling thread.
    ///
    /// # Errors
    /// A sentence, if it could not be run or was not over within the time.
    pub(super) fn run(&self, command: &[String], within: Duration) -> Result<Waited, String> {
        let until = Instant::now() + within;
        let launcher = self.launcher_command.as_deref();
        let prepared = prepare::beside(self.place(), &self.spec, command)?;
        let program = command.first().map_or("", String::as_str);
        let group = self.group.as_deref();
        let not_begun =
            |error: &child::NotBegun| error.sentence(|error| why::not_spawned(error, program, None, None));
        let mut held = child::hold(prepared, launcher, None, group).map_err(|error| not_begun(&error))?;
        if let Err(error) = held.begin(group) {
            let _ = held.child.kill();
            let _ = held.child.wait();
            return Err(not_begun(&error));
        }
        let waited = waited::wait(held.child, &held.output, || until)
            .map_err(|error| format!("`{program}` cannot be watched: {error}"))?;
        match waited.status {
            Some(_) => Ok(waited),
            None => Err(why::with_lines(format!("`{program}` was not over within {within:?}"), &waited.tail)),
        }
    }
}
