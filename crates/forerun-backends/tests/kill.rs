//! Whatever ends Forerun, its instances end too, with all that they started.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const FIXTURE: &str = env!("CARGO_BIN_EXE_forerun-fixture");
const INSTANCES: usize = 5;

/// Where there are control groups, each has a daemon too, which only they can find.
fn daemon() -> &'static [&'static str] {
    if forerun_backends::process::cgroup_report().membership.is_ok() { &["--daemon"] } else { &[] }
}

/// A process that runs a backend with five instances, each with children of its own that ignore TERM.
struct Host {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    tag: String,
}

impl Host {
    fn start(folder: &Path, tag: &str) -> Self {
        Self::start_as("host", folder, tag)
    }

    fn start_as(kind: &str, folder: &Path, tag: &str) -> Self {
        let tag = format!("{tag}-{}", std::process::id());
        let mut child = Command::new(FIXTURE)
            .args([kind.as_ref(), folder.as_os_str()])
            .args([&INSTANCES.to_string(), "--tag", &tag])
            .args(["--ignore-term", "--grandchild", "--grandchild-group"])
            .args(daemon())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, tag }
    }

    fn wait_for(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended before it said {wanted}");
        }
    }

    /// The living processes of its instances; it and its reaper have the tag not, or not as theirs.
    fn instances(&self) -> Vec<u32> {
        living(&self.tag).into_iter().filter(|pid| *pid != self.child.id()).collect()
    }

    fn reaper(&self) -> u32 {
        let mut children = living("__reaper").into_iter().filter(|pid| parent(*pid) == Some(self.child.id()));
        children.next_back().unwrap()
    }

    fn wait_for_all(&self) {
        let until = Instant::now() + Duration::from_secs(5);
        let all = (3 + daemon().len()) * INSTANCES;
        // A process that has just begun has no arguments for a moment.
        while self.instances().len() != all && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.instances().len(), all);
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn check_nothing_left(&self) {
        self.check_nothing_left_but(0);
    }

    fn check_nothing_left_but(&self, spared: usize) {
        let until = Instant::now() + Duration::from_secs(2);
        // A process that was just beginning has no arguments for a moment, so one look is not enough.
        let mut empty_looks = 0;
        while empty_looks < 10 && Instant::now() < until {
            empty_looks = if self.instances().len() == spared { empty_looks + 1 } else { 0 };
            thread::sleep(Duration::from_millis(5));
        }
        let read =
            |pid: u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let tell = |pid: u32| format!("{:?} {}", read(pid, "cmdline"), read(pid, "stat"));
        let left: Vec<String> = self.instances().into_iter().map(tell).collect();
        assert!(left.len() == spared, "left behind by {}: {left:#?}", self.child.id());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn living(arg: &str) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.split(|byte| *byte == 0).any(|found| found == arg.as_bytes())
    })
    .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("forerun-{name}-{}", std::process::id()))
}

/// With and without the launcher, by turns.
fn kind(round: u64) -> &'static str {
    if round.is_multiple_of(2) { "host" } else { "host-fork" }
}

#[test]
fn kill_9_leaves_nothing() {
    let folder = folder("kill");
    for round in 0..20 {
        let mut host = Host::start_as(kind(round), &folder, &format!("kill-{round}"));
        host.wait_for("ready");
        host.wait_for_all();
        host.kill();
        host.check_nothing_left();
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn kill_9_in_the_middle_of_starting_leaves_nothing() {
    let folder = folder("middle");
    for round in 0..40 {
        let mut host = Host::start_as(kind(round), &folder, &format!("middle-{round}"));
        host.wait_for("ordered");
        thread::sleep(Duration::from_micros(400 * round));
        host.kill();
        host.check_nothing_left();
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn kill_9_leaves_nothing_that_stands_still() {
    let folder = folder("still");
    for kind in ["host-frozen", "host-halted"] {
        let mut host = Host::start_as(kind, &folder, kind);
        host.wait_for("paused");
        host.kill();
        // What is in no control group does not find its daemons.
        host.check_nothing_left_but(if kind == "host-halted" { daemon().len() * INSTANCES } else { 0 });
        living(&host.tag).iter().for_each(|pid| signal("-KILL", *pid));
        // By the next life, where the reaper is gone too.
        let mut host = Host::start_as(kind, &folder, &format!("{kind}-next"));
        host.wait_for("paused");
        let pids = [host.reaper(), host.child.id()].map(|pid| pid.to_string());
        assert!(Command::new("kill").arg("-KILL").args(pids).status().unwrap().success());
        host.child.wait().unwrap();
        let mut next = Host::start(&folder, "still-life");
        next.wait_for("ready");
        host.check_nothing_left_but(if kind == "host-halted" { daemon().len() * INSTANCES } else { 0 });
        living(&host.tag).iter().for_each(|pid| signal("-KILL", *pid));
        next.kill();
        next.check_nothing_left();
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_reaper_outlives_its_neighbours_signals() {
    let folder = folder("signals");
    let mut host = Host::start(&folder, "signals");
    host.wait_for("ready");
    let reaper = host.reaper();
    for name in ["-TERM", "-INT", "-HUP", "-QUIT"] {
        signal(name, reaper);
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(host.reaper(), reaper);
    host.kill();
    host.check_nothing_left();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_killed_reaper_is_replaced() {
    let folder = folder("replaced");
    let mut host = Host::start(&folder, "replaced");
    host.wait_for("ready");
    let reaper = host.reaper();
    signal("-KILL", reaper);
    let until = Instant::now() + Duration::from_secs(10);
    let alive = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|args| !args.is_empty());
    while (alive(reaper) || living("__reaper").iter().all(|pid| parent(*pid) != Some(host.child.id())))
        && Instant::now() < until
    {
        thread::sleep(Duration::from_millis(10));
    }
    assert_ne!(host.reaper(), reaper);
    host.kill();
    host.check_nothing_left();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_next_start_ends_what_was_left() {
    let folder = folder("next");
    let mut host = Host::start(&folder, "next");
    host.wait_for("ready");
    // Both at once, so that neither can make up for the other.
    let pids = [host.reaper(), host.child.id()].map(|pid| pid.to_string());
    assert!(Command::new("kill").arg("-KILL").args(pids).status().unwrap().success());
    host.child.wait().unwrap();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(
        host.instances().len(),
        (2 + daemon().len()) * INSTANCES,
        "only the first processes die with their parent"
    );
    let mut next = Host::start(&folder, "next-life");
    next.wait_for("ready");
    host.check_nothing_left();
    next.kill();
    next.check_nothing_left();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_state_folder_belongs_to_one() {
    let folder = folder("one");
    let mut host = Host::start(&folder, "one");
    host.wait_for("ready");
    let second =
        Command::new(FIXTURE).args(["host".as_ref(), folder.as_os_str(), "1".as_ref()]).output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && error.contains("is in use by another forerun"), "{error}");
    host.wait_for_all();
    host.kill();
    host.check_nothing_left();
    fs::remove_dir_all(folder).unwrap();
}
