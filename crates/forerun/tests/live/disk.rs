//! A disk that is full, or read-only: serving goes on, Forerun says so, and the journal comes back with the room.

use crate::world::{GONE_WITHIN, Live, PATIENCE, World, eventually};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SERVICES: &str = "
[service.web]
command = [FIXTURE]
ready = { http = \"/\" }
min = 1
user = \"header:x-user\"
resources = { memory = \"64MB\" }
";

/// A small file system, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None`, and a line that says so, where this user may not mount.
    fn mount(world: &World) -> Option<Self> {
        let path = world.path("state");
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED: a full disk: this user may not mount a small file system");
        }
        mounted.then_some(Self(path))
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(status.unwrap().success(), "remount {how}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Takes all the room there is.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("fill");
    let mut size = 64 << 10;
    let mut file = fs::File::create(&path).unwrap();
    while size > 0 {
        if std::io::Write::write_all(&mut file, &vec![b'x'; size]).is_err() {
            size /= 2;
        }
    }
    path
}

/// Requests until the journal's last page is full too.
fn load_until_broken(live: &Live) {
    let broken = || live.status()["journal"]["broken"].is_string();
    eventually("the status says that the journal is broken", PATIENCE, || {
        (0..50).for_each(|_| assert_eq!(live.get("web.test", "/").status, 200));
        broken()
    });
}

#[test]
fn a_full_disk_stops_the_journal_and_nothing_else_until_there_is_room() {
    let world = World::new("full", SERVICES);
    let Some(small) = Small::mount(&world) else { return };
    let mut live = world.up();
    live.serves("web.test");
    let filler = fill(&small.0);
    load_until_broken(&live);
    world.logs("the journal cannot be written");
    assert!(live.metric("forerun_journal_errors_total") > 0.0);
    assert_eq!(live.get("web.test", "/").status, 200);
    let before = world.segments().len();
    fs::remove_file(filler).unwrap();
    eventually("the journal comes back", PATIENCE, || live.status()["journal"]["broken"].is_null());
    world.logs("the journal is written again");
    assert_eq!(live.get("web.test", "/").status, 200);
    let lost = live.status()["journal"]["steps_lost"].as_u64().unwrap();
    assert!(lost > 0, "the gap is told of");
    assert!(world.segments().len() > before, "it goes on in a segment of its own");
    assert!(live.is_running());
    live.drain();
    world.all_gone(GONE_WITHIN);
    assert!(!world.log().contains("panicked"), "{}", world.log());
    // The torn end of the old segment is cut, the new one is whole.
    world.journal_replays();
    let live = world.up();
    world.logs("restored what was learned");
    live.serves("web.test");
    live.drain();
}

#[test]
fn a_disk_that_is_full_when_forerun_ends_and_starts_keeps_it_from_neither() {
    let world = World::new("full-start", SERVICES);
    let Some(small) = Small::mount(&world) else { return };
    let live = world.up();
    live.serves("web.test");
    fill(&small.0);
    load_until_broken(&live);
    live.drain();
    world.all_gone(GONE_WITHIN);
    let live = world.up();
    live.serves("web.test");
    eventually("the status says so", PATIENCE, || live.status()["journal"]["broken"].is_string());
    live.drain();
    world.all_gone(GONE_WITHIN);
    assert!(!world.log().contains("panicked"), "{}", world.log());
}

#[test]
fn a_state_folder_that_turns_read_only_is_told_and_survived() {
    let world = World::new("read-only", SERVICES);
    let Some(small) = Small::mount(&world) else { return };
    let mut live = world.up();
    live.serves("web.test");
    live.kill();
    world.all_gone(GONE_WITHIN);
    small.remount("ro");
    let (code, error) = world.up_fails();
    assert_eq!(code, Some(1), "{error}");
    let line = error.lines().last().unwrap_or_default();
    assert!(line.starts_with("forerun: ") && line.contains("state") && line.contains("ead-only"), "{error}");
    small.remount("rw");
    let live = world.up();
    live.serves("web.test");
    live.drain();
    world.all_gone(Duration::from_millis(100));
}
