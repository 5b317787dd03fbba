//! A client of the Engine's API that shares nothing with the product's: what a person would do by hand.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const FIXTURE: &str = "forerun-test/fixture:1";
pub(crate) const BUSYBOX: &str = "forerun-test/busybox:1";
/// What the oldest engine that is tried speaks.
const VERSION: &str = "v1.41";
const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: some restart the daemon, and all share its containers' names.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The engine of the test bed. What a test made in it is gone when this is dropped.
pub(crate) struct Engine {
    pub(crate) socket: PathBuf,
    folder: PathBuf,
    /// The first one's; one beside it shares its turn.
    turn: Option<MutexGuard<'static, ()>>,
}

/// An answer of the engine.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Engine {
    /// `None`, and a line that says so, where there is none.
    pub(crate) fn find() -> Option<Self> {
        let Ok(host) = std::env::var("FORERUN_TEST_DOCKER") else {
            println!("SKIPPED: no FORERUN_TEST_DOCKER: run cargo xtask test --only docker");
            return None;
        };
        let socket = PathBuf::from(host.strip_prefix("unix://").expect("FORERUN_TEST_DOCKER is unix://PATH"));
        let folder = std::env::var_os("FORERUN_TEST_DOCKER_FOLDER").map(PathBuf::from).unwrap_or_default();
        // A test that failed has left things, which is no trouble of the next one.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = Self { socket, folder, turn: Some(turn) };
        engine.clean();
        Some(engine)
    }

    /// Starts a second engine beside this one, with these arguments more, in the same network.
    pub(crate) fn second(&self, arguments: &[String]) -> Second {
        let folder = self.folder.join("second");
        std::fs::create_dir_all(&folder).unwrap();
        // Complete when it is seen.
        std::fs::write(folder.join("arguments.new"), arguments.join("\n") + "\n").unwrap();
        std::fs::rename(folder.join("arguments.new"), folder.join("arguments")).unwrap();
        let engine = Self { socket: folder.join("docker.sock"), folder, turn: None };
        engine.until_up();
        Second(engine)
    }

    /// Gives another engine an image of this one.
    pub(crate) fn give(&self, image: &str, to: &Self) {
        let image = self.bytes(&format!("/images/get?names={image}"));
        let mut stream = UnixStream::connect(&to.socket).unwrap();
        let head = format!(
            "POST /{VERSION}/images/load HTTP/1.0\r\nHost: d\r\nContent-Length: {}\r\n\r\n",
            image.len()
        );
        stream.write_all(&[head.into_bytes(), image].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }

    /// Calls the API; the status is the caller's to judge.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // Version 1.0 of HTTP: the answer ends with the connection, and has no chunks.
        let head = format!(
            "{method} /{VERSION}{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {head:?}")))?;
        Ok(Answer { status, body: serde_json::from_str(body).unwrap_or(Value::Null) })
    }

    /// Calls the API, which must answer well.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let answer = self.try_call(method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert!(answer.status < 400, "{method} {path}: {answer:?}");
        answer.body
    }

    /// Creates a container; `settings` is what the API takes.
    pub(crate) fn create(&self, name: &str, settings: &Value) {
        self.call("POST", &format!("/containers/create?name={name}"), Some(settings));
    }

    pub(crate) fn start(&self, name: &str) {
        self.call("POST", &format!("/containers/{name}/start"), None);
    }

    /// As a person does it, who does not want to wait ten seconds.
    pub(crate) fn stop(&self, name: &str) {
        self.call("POST", &format!("/containers/{name}/stop?t=1"), None);
    }

    pub(crate) fn inspect(&self, name: &str) -> Value {
        self.call("GET", &format!("/containers/{name}/json"), None)
    }

    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.inspect(name)["State"]["Running"] == true
    }

    /// Every container's name, running or not, with its state, in order.
    pub(crate) fn containers(&self) -> Vec<(String, String)> {
        let list = self.call("GET", "/containers/json?all=1", None);
        let one = |c: &Value| {
            let name = c["Names"][0].as_str().unwrap_or_default().trim_start_matches('/').to_owned();
            (name, c["State"].as_str().unwrap_or_default().to_owned())
        };
        let mut containers: Vec<_> = list.as_array().unwrap().iter().map(one).collect();
        containers.sort();
        containers
    }

    /// Where a container can be asked from within the engine's network.
    pub(crate) fn address(&self, name: &str, port: u16) -> SocketAddr {
        let inspected = self.inspect(name);
        let networks = inspected["NetworkSettings"]["Networks"].as_object().unwrap();
        let ip = networks.values().find_map(|n| n["IPAddress"].as_str()?.parse::<IpAddr>().ok());
        SocketAddr::new(ip.unwrap_or_else(|| panic!("{name} has no address: {inspected}")), port)
    }

    /// Waits until it answers.
    pub(crate) fn until_up(&self) {
        eventually("the engine answers", PATIENCE, || {
            self.try_call("GET", "/_ping", None).is_ok_and(|a| a.status == 200)
        });
    }

    /// What a container has printed.
    pub(crate) fn log(&self, name: &str) -> String {
        self.raw(&format!("/containers/{name}/logs?stdout=1&stderr=1"))
    }

    /// An answer's body as it is.
    pub(crate) fn raw(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.bytes(path)).into_owned()
    }

    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /{VERSION}{path} HTTP/1.0\r\nHost: docker\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        assert!(answer.starts_with(b"HTTP/1.0 200"), "{path}: {}", String::from_utf8_lossy(&answer[..head]));
        answer.split_off(head)
    }

    /// Stops the daemon in the middle of whatever it does; it takes connections and says nothing.
    pub(crate) fn freeze_daemon(&self) {
        self.signal_daemon("STOP");
    }

    /// Lets it go on where it was.
    pub(crate) fn thaw_daemon(&self) {
        self.signal_daemon("CONT");
    }

    /// Asks the daemon to end, as a service manager does, and waits until it has. It is started again at once.
    pub(crate) fn terminate_daemon(&self) {
        let before = daemons(&self.data());
        self.signal_daemon("TERM");
        eventually("the daemon has ended", PATIENCE, || {
            daemons(&self.data()).iter().all(|pid| !before.contains(pid))
        });
    }

    fn signal_daemon(&self, signal: &str) {
        for pid in daemons(&self.data()) {
            let sent =
                std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
            assert!(sent.unwrap().success(), "kill -{signal} {pid}");
        }
    }

    fn data(&self) -> String {
        self.folder.join("data").to_string_lossy().into_owned()
    }

    /// Kills the daemon as the kernel would. It is started again at once, unless `held` keeps it down.
    pub(crate) fn kill_daemon(&self, held: bool) {
        if held {
            std::fs::write(self.folder.join("hold"), b"").unwrap();
        }
        let data = self.data();
        let pids = daemons(&data);
        assert_eq!(pids.len(), 1, "one dockerd has {data}");
        for pid in &pids {
            let killed = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            assert!(killed.unwrap().success());
        }
        eventually("the killed daemon is gone", PATIENCE, || {
            daemons(&data).iter().all(|pid| !pids.contains(pid))
        });
    }

    /// Lets a daemon that was held come up, and waits for it.
    pub(crate) fn release_daemon(&self) {
        let _ = std::fs::remove_file(self.folder.join("hold"));
        self.until_up();
    }

    /// Removes all containers and all networks but the engine's own.
    fn clean(&self) {
        // A test that failed may have left it frozen.
        self.thaw_daemon();
        self.release_daemon();
        for (name, _) in self.containers() {
            let removed = self.try_call("DELETE", &format!("/containers/{name}?force=1&v=1"), None).unwrap();
            assert!(removed.status < 400 || removed.status == 404, "{name}: {removed:?}");
        }
        for network in self.call("GET", "/networks", None).as_array().unwrap() {
            let name = network["Name"].as_str().unwrap_or_default();
            if !["bridge", "host", "none"].contains(&name) {
                self.call("DELETE", &format!("/networks/{name}"), None);
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // After a failure it stays, for a look; the next test cleans. A second one is gone by now.
        if !std::thread::panicking() && self.turn.is_some() {
            self.clean();
        }
    }
}

/// An engine beside the first, gone when dropped.
pub(crate) struct Second(pub(crate) Engine);

impl Drop for Second {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.clean();
        }
        let _ = std::fs::remove_file(self.0.folder.join("arguments"));
        self.0.signal_daemon("KILL");
    }
}

/// What makes a container of the fixture, with these flags and labels.
pub(crate) fn fixture(flags: &[&str], labels: &[(&str, &str)]) -> Value {
    let mut command = vec!["forerun-fixture", "--listen", "0.0.0.0", "--port", "8080"];
    command.extend(flags);
    let labels: serde_json::Map<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({"Image": FIXTURE, "Cmd": command, "Labels": labels})
}

/// The daemons with this data folder.
fn daemons(data: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        words.next() == Some(b"dockerd") && words.any(|word| word == data.as_bytes())
    })
    .collect()
}

pub(crate) fn eventually(what: &str, within: Duration, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
