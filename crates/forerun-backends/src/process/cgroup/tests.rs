use super::*;
use crate::process::procfs;
use std::process::{Child, Command};

/// A folder that looks like a hierarchy of version 2 with all controllers, for what the machine's own has not.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("forerun-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn put(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn v2(folder: &Path, controllers: &[&str]) -> Own {
    let controllers = controllers.iter().map(|c| (*c).to_owned()).collect();
    Own { version: Version::V2, folder: folder.to_owned(), controllers }
}

const LIMITS: Limits = Limits { memory_bytes: Some(150_000_000), cpu_milli: Some(250) };

#[test]
fn version_2_files_are_written() {
    let fake = Fake::new("cgroup2");
    fake.put("cgroup.subtree_control", "memory cpu pids\n");
    let own = [v2(&fake.0, &["memory", "cpu", "pids"])];
    let (groups, report) = Groups::among(&own, Look::AndPrepare);
    assert_eq!((report.version, report.memory, report.cpu), ("v2", Ok(()), Ok(())));
    let mut groups = groups.unwrap();
    let base = groups.folders();
    assert_eq!(base.len(), 1);
    // The kernel gathers what is written one after the other; a file holds the last.
    assert_eq!(fs::read_to_string(base[0].join("cgroup.subtree_control")).unwrap(), "+cpu");
    let group = groups.make("i7", LIMITS).unwrap();
    let [folder] = group.folders()[..] else { panic!("{group:?}") };
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
    assert_eq!(read("memory.max"), "150000000");
    assert_eq!(read("memory.swap.max"), "0");
    assert_eq!(read("memory.oom.group"), "1");
    assert_eq!(read("cpu.max"), "25000 100000");
    assert_eq!(group.oom(), Oom::default());
    fs::write(folder.join("memory.events"), "low 0\nhigh 0\nmax 4\noom 1\noom_kill 2\noom_group_kill 1\n")
        .unwrap();
    fs::write(folder.join("memory.peak"), "149999616\n").unwrap();
    assert_eq!(group.oom(), Oom { kills: 2, peak_bytes: 149_999_616 });
    fs::write(folder.join("cgroup.procs"), "12\n14\n").unwrap();
    fs::create_dir(folder.join("below")).unwrap();
    fs::write(folder.join("below/cgroup.procs"), "13\n").unwrap();
    assert_eq!(group.members().into_iter().collect::<Vec<_>>(), [12, 13, 14]);
    // Nothing of this is a process of ours: the folder's end must not look for them.
    for procs in [folder.join("cgroup.procs"), folder.join("below/cgroup.procs")] {
        fs::write(procs, "").unwrap();
    }
}

#[test]
fn why_there_are_no_limits_is_said() {
    assert!(Groups::among(&[], Look::AndPrepare).0.is_none());
    let fake = Fake::new("cgroup-why");
    let (groups, report) = Groups::among(&[v2(&fake.0, &[])], Look::AndPrepare);
    assert!(groups.is_some() && report.membership.is_ok());
    assert!(report.memory.unwrap_err().contains("offers no memory controller"));
    drop(groups);
    // With others in the group that would have to be divided, and no root.
    fake.put("cgroup.events", "populated 1\n");
    fake.put("cgroup.procs", "1\n2\n");
    let (_, report) = Groups::among(&[v2(&fake.0, &["memory"])], Look::Only);
    let why = report.memory.unwrap_err();
    assert!(why.contains("holds other processes beside forerun") && why.contains("Delegate=yes"), "{why}");
    assert_eq!(report.version, "v2");
    let nowhere = v2(Path::new("/proc/self/nowhere"), &["memory"]);
    let (groups, report) = Groups::among(&[nowhere], Look::AndPrepare);
    assert!(groups.is_none() && report.membership.unwrap_err().contains("cannot make a group under"));
}

/// The real groups of this machine, or `None`, said aloud, where there is no right to them.
fn real(wanted: impl Fn(&Own) -> bool, what: &str) -> Option<Groups> {
    let own: Vec<Own> = find::own().into_iter().filter(wanted).collect();
    let (groups, report) = Groups::among(&own, Look::AndPrepare);
    if groups.is_none() {
        eprintln!("SKIPPED: {what}: {:?}", report.membership);
    }
    groups
}

/// A shell that puts itself into a group and then runs a line there.
fn inside(group: &Group, line: &str) -> Child {
    let doors: Vec<String> =
        group.folders().iter().map(|folder| format!("echo 0 > {}/cgroup.procs", folder.display())).collect();
    Command::new("sh").args(["-c", &format!("{}; {line}", doors.join(" && "))]).spawn().unwrap()
}

fn wait_for(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while !what() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Membership, freezing and killing, alike for both versions.
fn check_members(mut groups: Groups) {
    let group = groups.make("i1", Limits::default()).unwrap();
    // The second leaves its session, and is a member all the same.
    let mut child = inside(&group, "setsid sleep 600 & sleep 600");
    assert!(wait_for(|| group.members().len() >= 3), "{:?}", group.members());
    assert!(group.can_freeze());
    group.freeze().unwrap();
    assert!(wait_for(|| group.is_frozen()));
    group.thaw().unwrap();
    assert!(wait_for(|| !group.is_frozen()));
    // It dies frozen too.
    group.freeze().unwrap();
    assert!(wait_for(|| {
        group.kill();
        group.members().into_iter().filter_map(procfs::stat).all(|stat| stat.dead)
    }));
    assert!(!child.wait().unwrap().success());
    assert!(wait_for(|| group.remove()), "{group:?}");
    // What is left ends with the life.
    let group = groups.make("i2", Limits::default()).unwrap();
    let mut child = inside(&group, "setsid sleep 600 & sleep 600");
    assert!(wait_for(|| group.members().len() >= 3));
    group.freeze().unwrap();
    let waiting = std::thread::spawn(move || child.wait().unwrap());
    let folders = groups.folders();
    drop(groups);
    waiting.join().unwrap();
    assert!(folders.iter().all(|folder| !folder.exists()), "{folders:?}");
}

#[test]
fn version_1_members_are_known_frozen_and_ended() {
    if let Some(groups) = real(|own| own.has("freezer"), "version 1 freezer") {
        check_members(groups);
    }
}

#[test]
fn version_2_members_are_known_frozen_and_ended() {
    if let Some(groups) = real(|own| own.version == Version::V2, "version 2") {
        check_members(groups);
    }
}

#[test]
fn a_dead_life_is_ended_and_a_living_one_is_not() {
    let wanted = |own: &Own| own.has("freezer") || own.version == Version::V2;
    let Some(mut first) = real(wanted, "two lives") else { return };
    let group = first.make("i1", Limits::default()).unwrap();
    let mut child = inside(&group, "sleep 600");
    assert!(wait_for(|| group.members().len() >= 2));
    let folders = first.folders();
    let second = real(wanted, "two lives").unwrap();
    folders.iter().for_each(|folder| end_if_left(folder, Duration::ZERO));
    assert!(folders.iter().all(|folder| folder.exists()) && child.try_wait().unwrap().is_none());
    drop(second);
    // As a kill leaves it: unlocked, and still there.
    let dead = folders;
    first.leave();
    let waiting = std::thread::spawn(move || child.wait().unwrap());
    dead.iter().for_each(|folder| end_if_left(folder, Duration::ZERO));
    assert!(!waiting.join().unwrap().success());
    assert!(dead.iter().all(|folder| !folder.exists()), "{dead:?}");
    // A folder of another name is nobody's to end.
    let other = std::env::temp_dir().join(format!("forerun-other-{}", std::process::id()));
    fs::create_dir(&other).unwrap();
    end_if_left(&other, Duration::ZERO);
    fs::remove_dir(&other).unwrap();
}

#[test]
fn version_1_limits_hold() {
    let wanted = |own: &Own| own.version == Version::V1;
    let Some(mut groups) = real(wanted, "version 1 limits") else { return };
    if groups.memory.is_none() || groups.cpu.is_none() {
        eprintln!("SKIPPED: version 1 limits: no controllers");
        return;
    }
    let group = groups.make("i1", Limits { memory_bytes: Some(50_000_000), cpu_milli: Some(200) }).unwrap();
    // A shell that doubles a text until it may not.
    let mut child = inside(&group, "x=0123456789; while :; do x=$x$x; done");
    assert!(!child.wait().unwrap().success());
    let oom = group.oom();
    assert!(oom.kills > 0 && (40_000_000..=50_000_000).contains(&oom.peak_bytes), "{oom:?}");
    // A fifth of a core for a second of waiting is about a fifth of a second of work.
    let mut child = inside(&group, "while :; do :; done");
    std::thread::sleep(Duration::from_secs(2));
    let stat = procfs::stat(i32::try_from(child.id()).unwrap()).unwrap();
    group.kill();
    child.wait().unwrap();
    let share = stat.cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64 / 2.0;
    assert!((0.05..0.35).contains(&share), "{share} of a core");
    assert!(wait_for(|| group.remove()));
}
