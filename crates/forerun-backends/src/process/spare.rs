//! One launcher that waits for the next start, in a control group of its own.
//!
//! To put a process into a group takes some 10 ms where none was put into one just before: the kernel first waits until
//! every CPU has seen that forks are held up (a grace period of the lock `cgroup_threadgroup_rwsem`). That and the start
//! of the launcher itself are over before anybody asks.

use super::cgroup::{Group, Groups, Limits};
use super::child::Launcher;
use std::sync::Arc;

/// The name of its group, before the group's number.
const NAME: &str = "spare";

#[derive(Debug)]
pub(super) struct Spare {
    /// `None` once it has become an instance.
    launcher: Option<Launcher>,
    /// `None` where there are no groups.
    group: Option<Group>,
    /// What its group can limit.
    kinds: (bool, bool),
}

impl Spare {
    /// `None` where none can be had; the next start goes without, and says why.
    pub(super) fn make(command: &[String], groups: Option<&mut Groups>, kinds: (bool, bool)) -> Option<Self> {
        let launcher = Launcher::start(command).ok()?;
        let pid = launcher.pid();
        let mut spare = Self { launcher: Some(launcher), group: None, kinds };
        if let Some(groups) = groups {
            let group = groups.make_unlimited(NAME, kinds).ok()?;
            let joined = group.take(pid);
            spare.group = Some(group);
            joined.ok()?;
        }
        Some(spare)
    }

    /// What becomes an instance with these limits, if it can: the launcher, and the group that it is in.
    pub(super) fn become_limited(mut self, limits: Limits) -> Option<(Launcher, Option<Arc<Group>>)> {
        let fits = self.kinds == limits.kinds() && self.launcher.as_mut().is_some_and(Launcher::is_alive);
        if !fits || self.group.as_ref().is_some_and(|group| group.limit(limits).is_err()) {
            return None;
        }
        let launcher = self.launcher.take()?;
        Some((launcher, self.group.take().map(Arc::new)))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(launcher) = &mut self.launcher {
            launcher.end();
        }
        if let Some(group) = &self.group {
            group.remove();
        }
    }
}
