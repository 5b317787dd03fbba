//! Control groups: real limits of memory and CPU, and a membership that a process cannot leave by itself.
//!
//! Each instance has a group under one of this Forerun's own, in each hierarchy that is used for it: of version 2 the
//! only one, of version 1 the freezer's always, and the memory's and CPU's where the service is limited. The files are
//! written by hand; see cgroups(7). Where there are no groups, or no rights to them, instances are watched instead.
//!
//! This Forerun's group is held by a lock on its folder, so that the reaper and the next life, which have it in
//! their books, know that nobody lives there any more, and end what is in it. Another Forerun's is left alone.

mod find;
mod group;

pub(super) use group::{Group, Limits, Oom, end_base};

use find::Own;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Names of folders that are a Forerun's: this and 16 hexadecimal digits.
const PREFIX: &str = "forerun-";
/// Where Forerun itself goes when its group must be empty to be divided (version 2).
const SELF: &str = "forerun-self";
/// How long what an earlier life left may take to die.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// What control groups can do for processes here; for `forerun doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupReport {
    /// `v1`, `v2`, `v1 and v2`; `none` where there are none.
    pub version: &'static str,
    /// Forerun's own group in the hierarchy by which an instance's processes are known.
    pub folder: Option<PathBuf>,
    /// Whether memory can be limited; otherwise why not, with the mend.
    pub memory: Result<(), String>,
    /// The same for CPU.
    pub cpu: Result<(), String>,
    /// Whether processes that leave their session are found and ended.
    pub membership: Result<(), String>,
    /// Whether instances are paused by freezing their group, and not by signals.
    pub freeze: bool,
}

/// Looks what could be done, by making a group and removing it again. Moves no process.
#[must_use]
pub fn cgroup_report() -> CgroupReport {
    match Groups::open(Look::Only) {
        (Some(groups), report) => {
            drop(groups);
            report
        }
        (None, report) => report,
    }
}

/// Whether Forerun may move itself into a group of its own where that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Only,
    AndPrepare,
}

/// This life's groups. Dropping them ends what is in them.
#[derive(Debug)]
pub(super) struct Groups {
    keep: Base,
    memory: Option<Base>,
    cpu: Option<Base>,
    made: u64,
    /// Left as a kill would leave it.
    #[cfg(test)]
    left: bool,
}

/// A group of this Forerun in one hierarchy, under which each instance's stands.
#[derive(Clone, Debug)]
struct Base {
    version: Version,
    folder: PathBuf,
    /// Held as long as this life lasts.
    _lock: std::sync::Arc<File>,
}

impl Groups {
    /// `None` where nothing can be had; the report says why, and what works.
    pub(super) fn open(look: Look) -> (Option<Self>, CgroupReport) {
        Self::among(&find::own(), look)
    }

    fn among(own: &[Own], look: Look) -> (Option<Self>, CgroupReport) {
        let version = match [Version::V1, Version::V2].map(|v| own.iter().any(|own| own.version == v)) {
            [true, true] => "v1 and v2",
            [true, false] => "v1",
            [false, true] => "v2",
            [false, false] => "none",
        };
        let mut report = CgroupReport {
            version,
            folder: None,
            memory: Err(NONE.to_owned()),
            cpu: Err(NONE.to_owned()),
            membership: Err(NONE.to_owned()),
            freeze: false,
        };
        let name = format!("{PREFIX}{:016x}", draw());
        let mut bases: Vec<Base> = Vec::new();
        let mut base = |own: &Own| base_in(own, &name, &mut bases);
        let keep = match candidates(own).next().map(&mut base) {
            Some(Ok(keep)) => keep,
            Some(Err(why)) => {
                report.membership = Err(why.clone());
                report.memory = Err(why.clone());
                report.cpu = Err(why);
                return (None, report);
            }
            None => return (None, report),
        };
        report.membership = Ok(());
        report.freeze = group::can_freeze(&keep.folder, keep.version);
        let mut limiting = |controller: &str| -> Result<Base, String> {
            let own = own.iter().find(|own| own.has(controller)).ok_or_else(|| {
                format!("the kernel offers no {controller} controller here (on version 2, the group above must hand it down)")
            })?;
            let base = base(own)?;
            if own.version == Version::V2 {
                hand_down(own, &base.folder, controller, look)?;
            }
            Ok(base)
        };
        let (memory, cpu) = (limiting("memory"), limiting("cpu"));
        report.folder = keep.folder.parent().map(Path::to_owned);
        report.memory = memory.as_ref().map(drop).map_err(Clone::clone);
        report.cpu = cpu.as_ref().map(drop).map_err(Clone::clone);
        (
            Some(Self {
                keep,
                memory: memory.ok(),
                cpu: cpu.ok(),
                made: 0,
                #[cfg(test)]
                left: false,
            }),
            report,
        )
    }

    /// The folders of this life, each once: what the reaper and the next life must end.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.keep.folder.clone()];
        for base in [&self.memory, &self.cpu].into_iter().flatten() {
            if !folders.contains(&base.folder) {
                folders.push(base.folder.clone());
            }
        }
        folders
    }

    /// A fresh group for one attempt at an instance.
    ///
    /// # Errors
    /// What the system said; nothing is left then.
    pub(super) fn make(&mut self, name: &str, limits: Limits) -> io::Result<Group> {
        let group = self.make_unlimited(name, limits.kinds())?;
        let limited = group.limit(limits);
        if limited.is_err() {
            group.remove();
        }
        limited.map(|()| group)
    }

    /// A fresh group in which nothing is limited yet, and memory and CPU can be.
    ///
    /// # Errors
    /// What the system said; nothing is left then.
    pub(super) fn make_unlimited(&mut self, name: &str, (memory, cpu): (bool, bool)) -> io::Result<Group> {
        self.made += 1;
        let name = format!("{name}-{}", self.made);
        let of = |base: &Base| (base.version, base.folder.join(&name));
        let memory = self.memory.as_ref().filter(|_| memory).map(of);
        let cpu = self.cpu.as_ref().filter(|_| cpu).map(of);
        Group::make(of(&self.keep), memory, cpu)
    }
}

#[cfg(test)]
impl Groups {
    fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.left {
            return;
        }
        for folder in self.folders() {
            end_base(&folder, Duration::from_millis(500));
        }
    }
}

const NONE: &str = "no control groups are mounted here";

/// Hierarchies by which an instance's processes can be known, the best first: version 2 where it has the controllers,
/// then the freezer, then version 2 without controllers, then any.
fn candidates(own: &[Own]) -> impl Iterator<Item = &Own> {
    let rank = |own: &Own| match own.version {
        Version::V2 if own.has("memory") || own.has("pids") => 0,
        Version::V1 if own.has("freezer") => 1,
        Version::V2 => 2,
        Version::V1 => 3,
    };
    let mut sorted: Vec<&Own> = own.iter().filter(|own| is_writable(&own.folder)).collect();
    if sorted.is_empty() {
        // For the reason why not.
        sorted = own.iter().collect();
    }
    sorted.sort_by_key(|own| rank(own));
    sorted.into_iter()
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The base in this hierarchy, made if need be.
fn base_in(own: &Own, name: &str, bases: &mut Vec<Base>) -> Result<Base, String> {
    let parent = division(&own.folder);
    let folder = parent.join(name);
    if let Some(base) = bases.iter().find(|base| base.folder == folder) {
        return Ok(base.clone());
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => format!(
            "no right to make a group under `{}`: run as root, or as a systemd service with Delegate=yes",
            parent.display()
        ),
        _ => format!("cannot make a group under `{}`: {error}", parent.display()),
    };
    fs::create_dir(&folder).map_err(failed)?;
    let lock = File::open(&folder).map_err(failed)?;
    if lock.try_lock().is_err() || !folder.is_dir() {
        return Err(format!("another program took the group `{}`", folder.display()));
    }
    let base = Base { version: own.version, folder, _lock: std::sync::Arc::new(lock) };
    bases.push(base.clone());
    Ok(base)
}

/// The group that is divided among instances: where Forerun stands, or stood before it moved into its own.
fn division(folder: &Path) -> &Path {
    match folder.parent() {
        Some(parent) if folder.file_name().is_some_and(|name| name == SELF) => parent,
        _ => folder,
    }
}

/// Lets groups below `base` use a controller (version 2): every group from Forerun's on must hand it down, and one that
/// does may hold no processes itself, the root excepted.
fn hand_down(own: &Own, base: &Path, controller: &str, look: Look) -> Result<(), String> {
    let parent = division(&own.folder);
    let given =
        |folder: &Path| find::words(&folder.join("cgroup.subtree_control")).iter().any(|c| c == controller);
    let give = |folder: &Path| fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    let busy = || {
        format!(
            "`{}` holds other processes beside forerun, so that its {controller} cannot be divided: run forerun as a \
             systemd service with Delegate=yes, or in a group of its own",
            parent.display()
        )
    };
    if !given(parent) {
        let only_us = find::words(&parent.join("cgroup.procs"))
            .iter()
            .all(|pid| *pid == std::process::id().to_string());
        // The root has no `cgroup.events`.
        let is_root = !parent.join("cgroup.events").exists();
        match look {
            Look::Only if only_us || is_root => return Ok(()),
            Look::Only => return Err(busy()),
            Look::AndPrepare if only_us && !is_root => move_in(parent).map_err(|error| {
                format!("cannot move forerun into a group of its own under `{}`: {error}", parent.display())
            })?,
            Look::AndPrepare => {}
        }
        give(parent).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => busy(),
            _ => format!("cannot divide {controller} under `{}`: {error}", parent.display()),
        })?;
    }
    if look == Look::Only || given(base) {
        return Ok(());
    }
    give(base).map_err(|error| format!("cannot divide {controller} under `{}`: {error}", base.display()))
}

/// Moves this process out of the group that is to be divided.
fn move_in(parent: &Path) -> io::Result<()> {
    let own = parent.join(SELF);
    match fs::create_dir(&own) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(own.join("cgroup.procs"), std::process::id().to_string())
}

/// Ends the processes of a group whose Forerun is no more, and removes it. For so long it is waited for that a Forerun
/// that is just being killed lets go. A folder of another name is left alone, whoever says that it is ours.
pub(super) fn end_if_left(folder: &Path, patience: Duration) {
    let until = Instant::now() + patience;
    if !is_ours(folder) {
        return;
    }
    let Ok(lock) = File::open(folder) else { return };
    while let Err(error) = lock.try_lock() {
        if !matches!(error, TryLockError::WouldBlock) || Instant::now() >= until {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    let ended = end_base(folder, PATIENCE);
    if ended > 0 {
        tracing::warn!(ended, "ended processes that an earlier life of forerun left in its control group");
    }
}

fn is_ours(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
    name.is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A number that no other Forerun of this boot has drawn, to all expectation.
fn draw() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), std::time::Instant::now()))
}

#[cfg(test)]
mod tests;
