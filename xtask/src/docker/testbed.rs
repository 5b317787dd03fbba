//! An engine in namespaces of its own, in a temporary folder. Its process 1 dies with this program, whatever kills it,
//! and everything in the namespaces with that; a folder and control groups may be left, for the next run to remove.

use crate::run;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Namespaces of its own for a command: it dies with this program, and is process 1 of what it starts.
const NAMESPACES: &[&str] = &[
    "--pdeathsig",
    "KILL",
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child=KILL",
];
const PREFIX: &str = "forerun-docker-";
/// A cold start of dockerd takes a second; the rest is for a machine that does other things too.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// Why there is no engine.
pub(crate) enum Unavailable {
    /// This machine cannot have one: nothing is wrong with what is tested.
    Here(String),
    /// It should have been there.
    Broken(String),
}

/// A running engine; gone when dropped.
pub(crate) struct Daemon {
    folder: PathBuf,
    holder: Child,
}

/// Whether this machine lets us start an engine.
///
/// # Errors
/// What it does not let us do.
pub(crate) fn possible() -> Result<(), Unavailable> {
    let ran = Command::new("setpriv").args(NAMESPACES).arg("true").output();
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Unavailable::Here(format!("an engine needs namespaces of its own, which takes root: {why}")))
        }
        Err(error) => {
            Err(Unavailable::Here(format!("an engine needs Linux with util-linux: setpriv: {error}")))
        }
    }
}

impl Daemon {
    /// Starts one and waits until it answers. Those of one run differ by their number.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) fn start(number: usize) -> Result<Daemon, Unavailable> {
        let broken = |what: &str, error: std::io::Error| Unavailable::Broken(format!("{what}: {error}"));
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).map_err(|e| broken("the daemon's folder", e))?;
        // What an engine can do, root can do.
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&folder, mode).map_err(|e| broken("the daemon's folder", e))?;
        let mut command = Command::new("setpriv");
        command.args(NAMESPACES).arg("sh").arg(run::root().join("testbed/docker/daemon.sh"));
        command.arg(&folder).arg(&name).stdin(Stdio::null()).stdout(Stdio::null());
        let holder = command.spawn().map_err(|e| broken("setpriv", e))?;
        let mut daemon = Daemon { folder, holder };
        daemon.wait_until_up()?;
        eprintln!("a docker engine is up: {}", daemon.version());
        Ok(daemon)
    }

    fn wait_until_up(&mut self) -> Result<(), Unavailable> {
        let start = Instant::now();
        while start.elapsed() < UP_WITHIN {
            let asked = self.docker().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if asked.is_ok_and(|status| status.success()) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.holder.try_wait() {
                return Err(Unavailable::Broken(format!("what runs dockerd ended: {status}")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = self.log_tail();
        Err(Unavailable::Broken(format!("dockerd did not come up in {} s:\n{log}", UP_WITHIN.as_secs())))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its address: `unix:///...`.
    pub(crate) fn socket(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// The `docker` command, at this engine.
    pub(crate) fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.socket()]);
        // Nothing of the person who runs this: no context, no credentials.
        command.env("DOCKER_CONFIG", self.folder.join("config")).env_remove("DOCKER_HOST");
        command
    }

    fn version(&self) -> String {
        let format = "Docker Engine {{.Server.Version}}, API {{.Server.APIVersion}}";
        let output = self.docker().args(["version", "--format", format]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// The same command in the engine's network, with the engine in its environment.
    pub(crate) fn inside(&self, command: &Command) -> Command {
        let process_1 = process_1(self.holder.id()).unwrap_or_default();
        let mut inside = Command::new("nsenter");
        inside.args(["--net", "--target", &process_1.to_string(), "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.env("FORERUN_TEST_DOCKER", self.socket()).env("FORERUN_TEST_DOCKER_FOLDER", &self.folder);
        inside.env_remove("DOCKER_HOST");
        inside
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.join("dockerd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its child, process 1 of the namespaces, is killed with it, and all that is in them with that.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        remove(&self.folder);
    }
}

/// The child of `unshare --fork`.
fn process_1(unshare: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Removes what killed runs left behind.
pub(crate) fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner);
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            eprintln!("removing what a killed run left: {}", entry.path().display());
            remove(&entry.path());
        }
    }
}

/// Whose folder it is: `forerun-docker-PID-NUMBER`.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Kills what still names the folder in its command line, and removes the folder and its control groups.
fn remove(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let users = users(folder);
        if users.is_empty() {
            break;
        }
        for pid in users {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some(name) = folder.file_name() {
        // Version 1 has a folder for each controller, version 2 one for all.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
        for group in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|h| h.join(name)) {
            remove_groups(&group, deadline);
        }
    }
    if let Err(error) = fs::remove_dir_all(folder) {
        eprintln!("cannot remove {}: {error}", folder.display());
    }
}

/// Processes of this folder's daemon: dockerd, containerd, and the shims of its containers.
fn users(folder: &Path) -> Vec<u32> {
    let folder = folder.to_string_lossy();
    // With what follows, so that the folder of process 12 is not taken for that of process 123.
    let inside = format!("{folder}/");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let program = words.next().unwrap_or_default().into_owned();
        let program = Path::new(&program).file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let ours = ["dockerd", "containerd", "containerd-shim-runc-v2", "containerd-shim"].contains(&program);
        ours && words.any(|word| word.contains(&inside))
    })
    .collect()
}

/// Control groups go from the leaves up, and only once their processes have.
fn remove_groups(group: &Path, deadline: Instant) {
    for child in fs::read_dir(group).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_groups(&child.path(), deadline);
        }
    }
    while group.is_dir() && fs::remove_dir(group).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
}
