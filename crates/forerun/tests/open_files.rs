//! `forerun up` takes all the open files that it may have, and gives its instances what it was given.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Ended with all that it started, and its folder removed, when dropped.
struct Up {
    child: Child,
    folder: PathBuf,
}

impl Up {
    /// With soft and hard limits of its own.
    fn start(soft: u32, hard: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("forerun-open-files-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        let config = "[router]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
                      [store]\nfolder = \"state\"\n[site.local]\ncapacity = { memory = \"8GB\" }\n\
                      [service.shell]\nroute = { path = \"/\" }\nmin = 1\n\
                      command = [\"sh\", \"-c\", \"ulimit -Sn > seen.new; mv seen.new seen; exec sleep 60\"]\n";
        fs::write(folder.join("forerun.toml"), config).expect("configuration");
        let log = fs::File::create(folder.join("log")).expect("log");
        let child = Command::new("sh")
            .args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" up")])
            .arg(env!("CARGO_BIN_EXE_forerun"))
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("forerun up");
        Self { child, folder }
    }

    fn read(&self, name: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let path = self.folder.join(name);
        while !path.exists() {
            assert!(Instant::now() < until, "no {name}; the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::read_to_string(path).expect("text")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("log")
    }

    /// Soft and hard.
    fn limits(&self) -> Vec<String> {
        let limits = fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("limits"));
        let limits = limits.expect("its limits");
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line");
        line.split_whitespace().take(2).map(str::to_owned).collect()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_limit_is_raised_for_forerun_alone() {
    let up = Up::start(400, 1_500);
    assert_eq!(up.read("seen").trim(), "400", "an instance has what Forerun was given");
    assert_eq!(up.limits(), ["1500", "1500"]);
    let log = up.log();
    assert!(
        log.contains("the limit on open files was 400; raised to what this process may have, 1500"),
        "{log}"
    );
    assert!(log.contains("router.connections_max = 8192 can need 17408"), "{log}");
}
