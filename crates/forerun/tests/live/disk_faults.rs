//! A disk that is slow, or fails in the middle of a write: a library that stands before the system's own calls, for
//! the journal's files alone. Requests are answered all the same, and what is whole replays.

use crate::world::{GONE_WITHIN, Live, PATIENCE, World, eventually};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SERVICES: &str = "
[service.web]
command = [FIXTURE]
ready = { http = \"/\" }
min = 1
user = \"header:x-user\"
resources = { memory = \"64MB\" }
[service.cold]
command = [FIXTURE]
route = { host = \"cold.test\" }
resources = { memory = \"64MB\" }
";

/// What the file says is read anew at each call: `slow MILLISECONDS`, `half` for half a write and then an error, or
/// anything else for no fault.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fault(int fd, char *how, int *ms) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    const char *faults = getenv("FORERUN_TEST_FAULTS");
    if (!strstr(path, "/journal/") || !faults) return 0;
    FILE *file = fopen(faults, "r");
    if (!file) return 0;
    *ms = 0;
    int found = fscanf(file, "%15s %d", how, ms);
    fclose(file);
    return found > 0;
}

ssize_t write(int fd, const void *bytes, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    char how[16];
    int ms;
    static __thread int failing;
    if (fault(fd, how, &ms)) {
        if (!strcmp(how, "slow")) usleep(ms * 1000);
        if (!strcmp(how, "half")) {
            failing = !failing;
            if (failing && n > 1) return real(fd, bytes, n / 2);
            errno = EIO;
            return -1;
        }
    }
    return real(fd, bytes, n);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    char how[16];
    int ms;
    if (fault(fd, how, &ms) && !strcmp(how, "slow")) usleep(ms * 1000);
    return real(fd);
}
"#;

struct Faults {
    library: PathBuf,
    file: PathBuf,
}

impl Faults {
    /// `None`, and a line that says so, without a C compiler.
    fn new(world: &World) -> Option<Self> {
        let (source, library, file) = (world.path("shim.c"), world.path("shim.so"), world.path("faults"));
        fs::write(&source, SHIM).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        match compiler.stderr(Stdio::null()).status() {
            Ok(status) if status.success() => {}
            _ => {
                eprintln!("SKIPPED: a slow disk: there is no C compiler to make the library of faults");
                return None;
            }
        }
        let faults = Self { library, file };
        faults.are("none");
        Some(faults)
    }

    /// Replaced whole: the library must not read half a word.
    fn are(&self, how: &str) {
        let part = self.file.with_extension("part");
        fs::write(&part, how).unwrap();
        fs::rename(part, &self.file).unwrap();
    }

    fn up(&self, world: &World) -> Live {
        world.up_with(&[("LD_PRELOAD", &self.library), ("FORERUN_TEST_FAULTS", &self.file)])
    }
}

/// Requests for so long; the longest that one took.
fn slowest(live: &Live, length: Duration) -> Duration {
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    while start.elapsed() < length {
        let asked = Instant::now();
        assert_eq!(live.get("web.test", "/").status, 200);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    slowest
}

#[test]
fn a_slow_disk_delays_no_request_and_no_start() {
    let world = World::new("slow", SERVICES);
    let Some(faults) = Faults::new(&world) else { return };
    let live = faults.up(&world);
    live.serves("web.test");
    faults.are("slow 400");
    let slowest = slowest(&live, Duration::from_secs(3));
    assert!(slowest < Duration::from_millis(350), "a request took {slowest:?}");
    let asked = Instant::now();
    assert_eq!(live.get("cold.test", "/").status, 200);
    assert!(asked.elapsed() < Duration::from_millis(1_500), "a start took {:?}", asked.elapsed());
    assert!(live.status()["journal"]["broken"].is_null());
    faults.are("none");
    live.drain();
    world.all_gone(GONE_WITHIN);
    let report = world.journal_replays();
    assert_eq!(
        (&report["torn_bytes"], &report["lost_segments"]),
        (&0.into(), &serde_json::json!([])),
        "{report}"
    );
}

#[test]
fn a_disk_too_slow_to_follow_is_told_and_the_journal_comes_back() {
    let world = World::new("too-slow", SERVICES);
    let Some(faults) = Faults::new(&world) else { return };
    let live = faults.up(&world);
    live.serves("web.test");
    faults.are("slow 4000");
    eventually("the status says that the journal is broken", PATIENCE, || {
        slowest(&live, Duration::from_millis(100)) < Duration::from_millis(350)
            && live.status()["journal"]["broken"].as_str().is_some_and(|why| why.contains("slow"))
    });
    faults.are("none");
    eventually("the journal comes back", PATIENCE, || live.status()["journal"]["broken"].is_null());
    assert!(live.status()["journal"]["steps_lost"].as_u64().unwrap() > 0);
    assert_eq!(live.get("web.test", "/").status, 200);
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn a_write_that_breaks_off_in_the_middle_tears_one_block_and_no_more() {
    let world = World::new("half", SERVICES);
    let Some(faults) = Faults::new(&world) else { return };
    let live = faults.up(&world);
    live.serves("web.test");
    slowest(&live, Duration::from_millis(300));
    faults.are("half");
    eventually("the status says that the journal is broken", PATIENCE, || {
        slowest(&live, Duration::from_millis(50));
        live.status()["journal"]["broken"].is_string()
    });
    faults.are("none");
    eventually("the journal comes back", PATIENCE, || live.status()["journal"]["broken"].is_null());
    slowest(&live, Duration::from_millis(300));
    live.drain();
    world.all_gone(GONE_WITHIN);
    let report = world.journal_replays();
    assert!(report["torn_bytes"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["segments"], 2, "{report}");
    assert!(!world.log().contains("panicked"), "{}", world.log());
}
