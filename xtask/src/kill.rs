//! Kills Forerun with -9 in the middle of a load, twenty times: nothing is left behind, its journal opens to its
//! last whole record, and its next start serves. The soak has the live tests do it a hundred times and more.

use crate::{cargo, run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 20;
/// Clients at a time.
const CLIENTS: usize = 4;
/// From a start of Forerun to its first answer.
const SERVES_WITHIN: Duration = Duration::from_secs(20);
/// From a kill to the end of all that Forerun had started.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// From SIGTERM to the end: Forerun drains first.
const DRAINS_WITHIN: Duration = Duration::from_secs(20);
/// By this the instances of a run are known in the process table.
const MARK: &str = "FORERUN_KILL_TEST";

/// Kills `forerun`; what it wrote is replayed by each of `builds`.
pub(crate) fn run(forerun: &Path, builds: &[&Path]) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("forerun-kill-{}", std::process::id()));
    let result = World::new(forerun, &folder).and_then(|world| world.run(builds));
    match result {
        Ok(()) => drop(std::fs::remove_dir_all(&folder)),
        Err(_) => println!("left for a look: {}", folder.display()),
    }
    result
}

/// Kills of a soak, unless it is told how many.
const SOAK_ROUNDS: u32 = 100;

/// # Errors
/// It is no number of kills.
pub(crate) fn times(word: Option<&String>) -> Result<u32, String> {
    let Some(word) = word else { return Ok(SOAK_ROUNDS) };
    match word.parse() {
        Ok(times) if times > 0 => Ok(times),
        _ => Err(format!("soak kill: `{word}` is no number of kills; give a whole number above 0")),
    }
}

/// So many kills by the live test, which also looks at each client's answers and at what was learned.
pub(crate) fn soak(times: u32) -> ExitCode {
    let mut command = cargo::cargo();
    command.args(["test", "--package", "forerun", "--test", "live", "kill::", "--", "--nocapture"]);
    match command.env("FORERUN_KILLS", times.to_string()).current_dir(run::root()).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

struct World {
    forerun: PathBuf,
    folder: PathBuf,
    router: u16,
    mark: String,
}

impl World {
    fn new(forerun: &Path, folder: &Path) -> Result<World, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let (router, api) = (free_port()?, free_port()?);
        let app = std::env::current_exe().map_err(|e| e.to_string())?;
        let mark = format!("{}-{router}", std::process::id());
        let config = format!(
            "[router]\nlisten = \"127.0.0.1:{router}\"\n[api]\nlisten = \"127.0.0.1:{api}\"\n\
             [store]\nfolder = \"state\"\nflush_interval = \"100ms\"\n\
             [service.app]\ncommand = [{app:?}, \"__app\"]\nenv = {{ {MARK} = {mark:?} }}\n\
             ready = {{ http = \"/\" }}\nconcurrency = 2\nmax = 4\nmin = 1\nuser = \"header:x-user\"\n\
             resources = {{ memory = \"16MB\" }}\ndrain_timeout = \"5s\"\n",
            app = app.display().to_string(),
        );
        std::fs::write(folder.join("forerun.toml"), config).map_err(|e| e.to_string())?;
        Ok(World { forerun: forerun.to_owned(), folder: folder.to_owned(), router, mark })
    }

    fn run(&self, builds: &[&Path]) -> Result<(), String> {
        let mut answered = 0;
        for round in 1..=ROUNDS {
            let mut child = self.start()?;
            let served = self.serves(&mut child);
            // Each round is killed at another moment of the load.
            let load = Duration::from_millis(50 + u64::from(round * 37 % 400));
            if served.is_ok() {
                answered += self.load(load, || drop(child.kill()));
            } else {
                let _ = child.kill();
            }
            let _ = child.wait();
            served.map_err(|e| format!("round {round}: {e}"))?;
            self.all_gone().map_err(|e| format!("round {round}: {e}"))?;
        }
        println!("kill: {ROUNDS} kills, {answered} requests answered before them");
        if answered < u64::from(ROUNDS) {
            return Err(format!("only {answered} requests were answered: there was no load to kill in"));
        }
        let mut child = self.start()?;
        let served = self.serves(&mut child);
        let drained = drain(&mut child);
        served?;
        drained?;
        self.all_gone()?;
        builds.iter().try_for_each(|build| self.journal_opens(build))
    }

    fn start(&self) -> Result<Child, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log"));
        let log = log.map_err(|e| e.to_string())?;
        Command::new(&self.forerun)
            .args(["up", "-c", "forerun.toml"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", self.forerun.display()))
    }

    fn serves(&self, child: &mut Child) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < SERVES_WITHIN {
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!(
                    "forerun ended with {status}: {}",
                    log.lines().last().unwrap_or_default()
                ));
            }
            if ask(self.router) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("no answer within {} s of the start", SERVES_WITHIN.as_secs()))
    }

    /// Asks from several clients, kills after `length`, and tells how many requests were answered.
    fn load(&self, length: Duration, kill: impl FnOnce()) -> u64 {
        let (ended, answered) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        answered.fetch_add(u64::from(ask(self.router)), Ordering::Relaxed);
                    }
                });
            }
            std::thread::sleep(length);
            kill();
            ended.store(true, Ordering::Relaxed);
        });
        answered.into_inner()
    }

    fn all_gone(&self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let left = marked(&format!("{MARK}={}", self.mark));
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() > GONE_WITHIN {
                let ids: Vec<String> = left.iter().map(u32::to_string).collect();
                return Err(format!("left behind: processes {}", ids.join(", ")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Every segment replays, up to its last whole record, with the actions that it was written with.
    fn journal_opens(&self, build: &Path) -> Result<(), String> {
        let folder = self.folder.join("state/journal");
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut segments: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        segments.sort();
        if segments.is_empty() {
            return Err("there is no journal".to_owned());
        }
        for segment in &segments {
            let output = Command::new(build).args(["replay", "--journal"]).arg(segment).output();
            let output = output.map_err(|e| e.to_string())?;
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(format!("{}: {text}", segment.display()));
            }
        }
        println!("kill: {} journal segments replay", segments.len());
        Ok(())
    }
}

/// Asks for a draining end; a drained Forerun has exit code 0.
fn drain(child: &mut Child) -> Result<(), String> {
    let id = child.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &id]).status();
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("after SIGTERM forerun ended with {status}")),
            Ok(None) if start.elapsed() < DRAINS_WITHIN => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not drained within {} s of SIGTERM", DRAINS_WITHIN.as_secs()));
            }
        }
    }
}

/// Whether one request is answered with success.
fn ask(port: u16) -> bool {
    let timeout = Duration::from_secs(5);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, timeout) else { return false };
    let _ = stream.set_read_timeout(Some(timeout));
    let head = "GET / HTTP/1.1\r\nHost: localhost\r\nX-User: someone\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(head.as_bytes()).is_ok()
        && stream.read_to_end(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener.local_addr().map(|a| a.port()).map_err(|e| e.to_string())
}

/// Processes with this in their environment, zombies left out: those are dead, and wait for their parent only.
fn marked(variable: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v == variable.as_bytes())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_says_what_is_no_number() {
        let times = |word: &str| times(Some(&word.to_owned()));
        assert_eq!((super::times(None), times("7")), (Ok(SOAK_ROUNDS), Ok(7)));
        for bad in ["0", "-1", "many"] {
            assert!(times(bad).unwrap_err().contains(bad));
        }
    }

    #[test]
    fn marked_processes_are_seen_while_they_live() {
        let mark = format!("{MARK}=seen-{}", std::process::id());
        let (name, value) = mark.split_once('=').unwrap();
        let mut child = Command::new("sleep").arg("60").env(name, value).spawn().unwrap();
        // The environment is there once the program has been loaded.
        let start = Instant::now();
        while marked(&mark).is_empty() && start.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = marked(&mark);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(seen, [child.id()]);
        assert_eq!(marked(&mark), [0u32; 0]);
    }
}
