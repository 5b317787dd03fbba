//! A folder with a configuration, and `forerun up` running in it.

use crate::http::{Answer, get};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longer than anything here takes unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// From a kill of Forerun to the end of all that it had started.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(2);

const GLOBALS: &str = "[router]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
                       [store]\nfolder = \"state\"\nflush_interval = \"50ms\"\n\
                       [site.local]\ncapacity = { memory = \"8GB\" }\n";

/// A temporary folder with a configuration; gone with its processes when dropped.
pub(crate) struct World {
    pub(crate) folder: PathBuf,
    /// By this the processes of its services are known in the process table.
    pub(crate) tag: String,
}

impl World {
    /// `services`: TOML, in which `FIXTURE` stands for the words that start an instance of the fixture.
    pub(crate) fn new(name: &str, services: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let tag = format!("live-{name}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("forerun-{tag}"));
        fs::create_dir_all(&folder).unwrap();
        let world = Self { folder, tag };
        world.configure(services);
        world
    }

    pub(crate) fn configure(&self, services: &str) {
        self.configure_all(&format!("{GLOBALS}{services}"));
    }

    /// The whole configuration, nothing added.
    pub(crate) fn configure_all(&self, text: &str) {
        let fixture = format!("{:?}, \"__fixture\", \"--tag\", {:?}", binary(), self.tag);
        fs::write(self.folder.join("forerun.toml"), text.replace("FIXTURE", &fixture)).unwrap();
    }

    /// The globals with one value replaced.
    pub(crate) fn globals(from: &str, to: &str) -> String {
        assert!(GLOBALS.contains(from), "no {from}");
        GLOBALS.replacen(from, to, 1)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.args(["up", "-c", "forerun.toml"]).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Starts Forerun and waits for nothing.
    pub(crate) fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Starts Forerun and waits until it says where it listens.
    pub(crate) fn up(&self) -> Live {
        self.up_by(self.command())
    }

    /// The same with something in its environment.
    pub(crate) fn up_with(&self, variables: &[(&str, &Path)]) -> Live {
        let mut command = self.command();
        command.envs(variables.iter().copied());
        self.up_by(command)
    }

    /// The same in a process group of its own, as a shell does it.
    pub(crate) fn up_in_a_group(&self) -> Live {
        let mut command = self.command();
        command.process_group(0);
        self.up_by(command)
    }

    fn up_by(&self, mut command: Command) -> Live {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(PATIENCE).unwrap_or_default();
        let address = |word: &str| {
            let rest = line.split_once(&format!("{word} http://"))?.1;
            rest.split_whitespace().next()?.parse::<SocketAddr>().ok()
        };
        match (address("router"), address("api")) {
            (Some(router), Some(api)) => Live { child, router, api },
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("forerun did not come up: {line:?}, log: {}", self.log());
            }
        }
    }

    /// Runs `forerun up` where it is expected to end by itself, and soon.
    pub(crate) fn up_fails(&self) -> (Option<i32>, String) {
        let child = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = output_of(child, "a forerun that cannot start");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits for a line of the log.
    pub(crate) fn logs(&self, part: &str) {
        eventually(&format!("`{part}` in the log"), PATIENCE, || self.log().contains(part));
    }

    /// Nothing that Forerun started may be left, grandchildren included, at the latest after `within`.
    pub(crate) fn all_gone(&self, within: Duration) {
        let start = Instant::now();
        while !processes(&self.tag).is_empty() {
            assert!(start.elapsed() < within, "left behind after {within:?}: {:?}", processes(&self.tag));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("state/journal")).unwrap();
        let mut segments: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "frj"));
        segments.sort();
        segments
    }

    /// What `forerun replay --journal` prints of the state folder's journal, by `forerun`; it must succeed.
    pub(crate) fn replay(&self, forerun: &Path) -> Value {
        let child = Command::new(forerun)
            .args(["replay", "--json", "--journal", "state/journal"])
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = output_of(child, "a replay");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// The journal replays with the actions that it was written with, and is not empty.
    pub(crate) fn journal_replays(&self) -> Value {
        let report = self.replay(binary());
        assert_eq!(report["mismatches"], 0, "{report}");
        assert!(report["steps"].as_u64().unwrap() > 0, "{report}");
        report
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (pid, _) in processes(&self.tag) {
            send("KILL", pid);
        }
        // After a failure it stays, for a look.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A running Forerun; killed when dropped.
pub(crate) struct Live {
    child: Child,
    pub(crate) router: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Live {
    pub(crate) fn get(&self, host: &str, path: &str) -> Answer {
        get(self.router, host, path).unwrap_or_else(|error| panic!("GET {path} of {host}: {error}"))
    }

    /// Waits until a request is answered with 200.
    pub(crate) fn serves(&self, host: &str) -> Answer {
        let start = Instant::now();
        loop {
            let answer = get(self.router, host, "/");
            match answer {
                Ok(answer) if answer.status == 200 => return answer,
                other => assert!(start.elapsed() < PATIENCE, "{host} is not served: {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn status(&self) -> Value {
        let answer = get(self.api, "localhost", "/v1/status").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// One service's part of the status.
    pub(crate) fn service(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["services"].as_array().unwrap().iter().find(|s| s["name"] == name);
        found.cloned().unwrap_or_else(|| panic!("no service {name} in {status}"))
    }

    /// Waits until a service's status fits.
    pub(crate) fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let service = self.service(name);
            if fits(&service) {
                return service;
            }
            assert!(start.elapsed() < PATIENCE, "not in time, {what}: {service}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until so many instances of a service are ready.
    pub(crate) fn ready(&self, name: &str, count: u64) -> Value {
        self.until(name, &format!("{count} ready"), |s| s["instances"]["ready"] == count)
    }

    /// A metric's value, by its name with its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let answer = get(self.api, "localhost", "/metrics").unwrap();
        let text = answer.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// To its whole process group, as a terminal does it.
    pub(crate) fn signal_group(&self, signal: &str) {
        let group = format!("-{}", self.child.id());
        let status = Command::new("kill").args([&format!("-{signal}"), "--", &group]).status();
        assert!(status.unwrap().success(), "kill {group}");
    }

    pub(crate) fn signal(&self, signal: &str) {
        send(signal, self.child.id());
    }

    /// What it takes of memory now.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < within, "forerun has not ended after {within:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What always holds has held, by its own count.
    pub(crate) fn has_held(&self) {
        const COUNT: &str = "forerun_invariant_violations_total{";
        let answer = get(self.api, "localhost", "/metrics").unwrap();
        let text = answer.text();
        let counts: Vec<&str> = text.lines().filter(|line| line.starts_with(COUNT)).collect();
        assert!(counts.len() > 4, "the counts are not told: {text}");
        let broken: Vec<&&str> = counts.iter().filter(|line| !line.ends_with(" 0")).collect();
        assert!(broken.is_empty(), "does not hold: {broken:?}");
    }

    /// Children of Forerun's with this word among their arguments.
    pub(crate) fn children(&self, word: &str) -> Vec<u32> {
        let parent = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // After the name, which may hold anything.
            stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
        };
        let pids = processes(word).into_iter().map(|(pid, _)| pid);
        pids.filter(|pid| parent(*pid) == Some(self.child.id())).collect()
    }

    /// Asks for a draining end and waits for it.
    pub(crate) fn drain(mut self) {
        self.has_held();
        self.signal("TERM");
        let status = self.ended(PATIENCE);
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_forerun"))
}

/// Waits for a program's end, and kills it if that does not come.
pub(crate) fn output_of(mut child: Child, what: &str) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{what} has not ended after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// `forerun ARG...`: exit code, standard output, standard error.
pub(crate) fn forerun(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = output_of(command.spawn().unwrap(), "a command");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn send(signal: &str, pid: u32) {
    let _ =
        Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

pub(crate) fn eventually(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes with this word among their arguments. Zombies have none: they are dead, and wait for their parent only.
pub(crate) fn processes(word: &str) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let found = arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes());
        found.then(|| (pid, String::from_utf8_lossy(&arguments).replace('\0', " ")))
    })
    .collect()
}
