//! One instance's group: its files, its members, and its end.

use super::{Version, find};
use crate::process::procfs;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The period in which a share of CPU time is counted: the kernel's own default.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// The least share that the kernel takes.
const CPU_QUOTA_MICROS_MIN: u64 = 1_000;
/// How deep the groups go that an instance makes within its own; deeper ones are ended with the rest, level by level.
const DEPTH_MAX: usize = 16;

/// What a group may use; `None` is as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::process) struct Limits {
    pub(in crate::process) memory_bytes: Option<u64>,
    pub(in crate::process) cpu_milli: Option<u64>,
}

impl Limits {
    /// Of which of the two there is a limit.
    pub(in crate::process) fn kinds(self) -> (bool, bool) {
        (self.memory_bytes.is_some(), self.cpu_milli.is_some())
    }
}

/// What became of the memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::process) struct Oom {
    /// Processes that the kernel killed for it.
    pub(in crate::process) kills: u64,
    /// The most that was used, or 0 where the kernel does not say.
    pub(in crate::process) peak_bytes: u64,
}

/// A folder in each hierarchy that is used for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::process) struct Group {
    version: Version,
    keep: PathBuf,
    memory: Option<(Version, PathBuf)>,
    cpu: Option<(Version, PathBuf)>,
}

impl Group {
    pub(super) fn make(
        (version, keep): (Version, PathBuf),
        memory: Option<(Version, PathBuf)>,
        cpu: Option<(Version, PathBuf)>,
    ) -> io::Result<Self> {
        let group = Self { version, keep, memory, cpu };
        let made = group.folders().into_iter().try_for_each(fs::create_dir);
        if made.is_err() {
            group.remove();
        }
        made.map(|()| group)
    }

    /// Sets what may be used, where the group stands in the hierarchy for it.
    pub(in crate::process) fn limit(&self, limits: Limits) -> io::Result<()> {
        if let (Some((version, folder)), Some(bytes)) = (&self.memory, limits.memory_bytes) {
            limit_memory(*version, folder, bytes)?;
        }
        if let (Some((version, folder)), Some(milli)) = (&self.cpu, limits.cpu_milli) {
            let quota = (milli.saturating_mul(CPU_PERIOD_MICROS) / 1000).max(CPU_QUOTA_MICROS_MIN);
            match version {
                Version::V2 => fs::write(folder.join("cpu.max"), format!("{quota} {CPU_PERIOD_MICROS}"))?,
                Version::V1 => {
                    fs::write(folder.join("cpu.cfs_period_us"), CPU_PERIOD_MICROS.to_string())?;
                    fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Each folder once.
    pub(in crate::process) fn folders(&self) -> Vec<&Path> {
        let mut folders = vec![self.keep.as_path()];
        for (_, folder) in [&self.memory, &self.cpu].into_iter().flatten() {
            if !folders.contains(&folder.as_path()) {
                folders.push(folder);
            }
        }
        folders
    }

    /// Opened for a process to write `0` into each, which puts itself there.
    pub(in crate::process) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let door = |folder: &Path| {
            OpenOptions::new().write(true).open(folder.join("cgroup.procs")).map(OwnedFd::from)
        };
        self.folders().into_iter().map(door).collect()
    }

    /// Puts a process into it.
    pub(in crate::process) fn take(&self, pid: u32) -> io::Result<()> {
        self.folders().into_iter().try_for_each(|folder| put(&folder.join("cgroup.procs"), &pid.to_string()))
    }

    /// Whether a process is in every folder of it, or is dead.
    pub(in crate::process) fn holds(&self, pid: u32) -> bool {
        let there = |folder: &Path| {
            find::words(&folder.join("cgroup.procs")).iter().any(|word| *word == pid.to_string())
        };
        self.folders().into_iter().all(there)
            || i32::try_from(pid).ok().and_then(procfs::stat).is_none_or(|stat| stat.dead)
    }

    pub(in crate::process) fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// The processes in it and in groups below it.
    pub(in crate::process) fn members(&self) -> BTreeSet<i32> {
        members(&self.keep)
    }

    pub(in crate::process) fn can_freeze(&self) -> bool {
        can_freeze(&self.keep, self.version)
    }

    pub(in crate::process) fn freeze(&self) -> io::Result<()> {
        match self.version {
            Version::V2 => put(&self.keep.join("cgroup.freeze"), "1"),
            Version::V1 => put(&self.keep.join("freezer.state"), "FROZEN"),
        }
    }

    pub(in crate::process) fn thaw(&self) -> io::Result<()> {
        thaw(&self.keep)
    }

    /// Whether every process in it stands still.
    pub(in crate::process) fn is_frozen(&self) -> bool {
        let file =
            self.keep.join(if self.version == Version::V2 { "cgroup.events" } else { "freezer.state" });
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line == "frozen 1" || line == "FROZEN")
    }

    /// Kills what is in it.
    pub(in crate::process) fn kill(&self) {
        kill(&self.keep);
    }

    /// All zero without a memory limit.
    pub(in crate::process) fn oom(&self) -> Oom {
        let Some((version, folder)) = &self.memory else { return Oom::default() };
        let (events, peak) = match version {
            Version::V2 => ("memory.events", "memory.peak"),
            Version::V1 => ("memory.oom_control", "memory.max_usage_in_bytes"),
        };
        let kills = number_after(&folder.join(events), "oom_kill ");
        // The peak is asked for only when it is told.
        let peak_bytes = if kills > 0 { number_after(&folder.join(peak), "") } else { 0 };
        Oom { kills, peak_bytes }
    }

    /// Whether nothing of it is left. A group whose last process has only just ended is busy for a moment.
    pub(in crate::process) fn remove(&self) -> bool {
        let left: Vec<&Path> = self.folders().into_iter().filter(|folder| !remove_tree(folder)).collect();
        left.is_empty()
    }
}

fn limit_memory(version: Version, folder: &Path, bytes: u64) -> io::Result<()> {
    match version {
        Version::V2 => {
            fs::write(folder.join("memory.max"), bytes.to_string())?;
            // What does not fit is over the limit, and not slow. The kernel may be without swap.
            let _ = fs::write(folder.join("memory.swap.max"), "0");
            // Half an instance is of no use.
            let _ = fs::write(folder.join("memory.oom.group"), "1");
        }
        Version::V1 => {
            fs::write(folder.join("memory.limit_in_bytes"), bytes.to_string())?;
            let _ = fs::write(folder.join("memory.memsw.limit_in_bytes"), bytes.to_string());
        }
    }
    Ok(())
}

/// The number in the line that starts so; 0 if there is none.
fn number_after(file: &Path, start: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn can_freeze(folder: &Path, version: Version) -> bool {
    folder.join(if version == Version::V2 { "cgroup.freeze" } else { "freezer.state" }).exists()
}

fn thaw(folder: &Path) -> io::Result<()> {
    let v1 = folder.join("freezer.state");
    if v1.exists() { put(&v1, "THAWED") } else { put(&folder.join("cgroup.freeze"), "0") }
}

/// Writes to a file of the kernel's, and never makes one.
fn put(file: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
}

fn members(folder: &Path) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    walk(folder, 0, &mut |folder| {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    });
    found
}

/// Visits a group and those below it, the lower ones first.
fn walk(folder: &Path, depth: usize, visit: &mut impl FnMut(&Path)) {
    if depth < DEPTH_MAX {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), depth + 1, visit);
            }
        }
    }
    visit(folder);
}

/// Kills what is in a group and below it. By version 2 at one stroke; otherwise one by one, and what is born meanwhile
/// is met by the next call.
fn kill(folder: &Path) {
    if put(&folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    walk(folder, 0, &mut |folder| {
        let procs = folder.join("cgroup.procs");
        let there = |pid: i32| {
            let text = fs::read_to_string(&procs).unwrap_or_default();
            text.lines().any(|line| line.parse() == Ok(pid))
        };
        let text = fs::read_to_string(&procs).unwrap_or_default();
        for pid in text.lines().filter_map(|line| line.parse::<i32>().ok()) {
            procfs::kill_if(pid, || there(pid));
        }
        // A frozen process dies when it thaws.
        let _ = thaw(folder);
    });
}

/// Removes a group and those below it, if no process is left in any.
fn remove_tree(folder: &Path) -> bool {
    walk(folder, 0, &mut |folder| drop(fs::remove_dir(folder)));
    !folder.exists()
}

/// Kills all that is in a Forerun's group and below it, waits at most for `patience` until it is gone, and removes the
/// group. Returns how many processes there were.
pub(in crate::process) fn end_base(base: &Path, patience: Duration) -> usize {
    let until = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    let mut ended = BTreeSet::new();
    while !remove_tree(base) {
        // A group that is busy without members waits for them to be buried.
        let found = members(base);
        if !found.is_empty() {
            ended.extend(found);
            kill(base);
        }
        if Instant::now() >= until {
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    ended.len()
}
