//! The one thread that starts processes and keeps the books of them.
//!
//! The parent-death signal comes when the *thread* that spawned ends, so every spawn is made here, on a thread that
//! lives as long as the backend. It may block (a slow disk under the program): nothing else waits for it. It also
//! owns the reaper and the state file, where a process stands before anything of its service runs.

use super::keeper::{Mailbox, Message};
use super::launch::Gate;
use super::procfs;
use super::reaper::Reaper;
use super::state::StateFile;
use super::{ProcessSettings, sys, why};
use crate::SetupError;
use forerun_types::{InstanceId, Launch, Readiness, ServiceSpec};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the reaper is looked at while something runs.
const REAPER_CHECK: Duration = Duration::from_secs(1);
/// The first pause before a reaper that ended is started again; it doubles up to [`REAPER_PAUSE_MAX`].
const REAPER_PAUSE: Duration = Duration::from_secs(1);
const REAPER_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the keeper asks of this thread.
#[derive(Debug)]
pub(super) enum Job {
    Spawn {
        serial: u64,
        instance: InstanceId,
        spec: Arc<ServiceSpec>,
        port: u16,
    },
    /// Nothing of this session is left.
    Gone {
        session: i32,
    },
}

/// A process that has been started: it leads a session of its own, whose number is its pid.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) pid: Pid,
    /// Readable once the process has ended.
    pub(super) pidfd: OwnedFd,
    /// Its standard output and error, not blocking; `None` when it has closed them.
    pub(super) output: Option<OwnedFd>,
}

impl Process {
    /// Signals the whole process group. It may be gone already, which is fine.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Spawner {
    launcher_command: Option<Vec<String>>,
    reaper_command: Option<Vec<String>>,
    reaper: Option<Reaper>,
    reaper_retry_at: Instant,
    reaper_pause: Duration,
    state: Option<StateFile>,
    sessions: BTreeSet<i32>,
}

impl Spawner {
    /// # Errors
    /// If the reaper cannot be started.
    pub(super) fn new(settings: &ProcessSettings, state: Option<StateFile>) -> Result<Self, SetupError> {
        let reaper_command = settings.reaper_command.clone();
        let reaper = reaper_command.as_deref().map(Reaper::start).transpose()?;
        Ok(Self {
            launcher_command: settings.launcher_command.clone(),
            reaper_command,
            reaper,
            reaper_retry_at: Instant::now(),
            reaper_pause: REAPER_PAUSE,
            state,
            sessions: BTreeSet::new(),
        })
    }

    /// Works until the keeper has gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, mailbox: &Mailbox) {
        loop {
            let watched = self.reaper_command.is_some() && !self.sessions.is_empty();
            let job = if watched {
                jobs.recv_timeout(REAPER_CHECK)
            } else {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            self.keep_reaper();
            match job {
                Ok(Job::Spawn { serial, instance, spec, port }) => {
                    let result = self.spawn(instance, &spec, port);
                    mailbox.send(Message::Spawned { serial, result });
                }
                Ok(Job::Gone { session }) => self.forget(session),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn spawn(&mut self, instance: InstanceId, spec: &ServiceSpec, port: u16) -> Result<Process, String> {
        let no_room = |error: io::Error| format!("the system has no room for another process: {error}");
        let (mut command, text) = prepare(instance, spec, port, self.launcher_command.as_deref())?;
        let (reader, writer) = io::pipe().map_err(no_room)?;
        command.stdout(writer.try_clone().map_err(no_room)?).stderr(writer);
        let gate = if self.launcher_command.is_some() {
            let (gate, theirs) = Gate::new().map_err(no_room)?;
            command.stdin(theirs);
            Some(gate)
        } else {
            command.stdin(Stdio::null());
            sys::tie_to_this_thread(&mut command, self.reaper.as_ref().map(Reaper::socket));
            None
        };
        let child = command.spawn().map_err(|error| text.not_spawned(&error))?;
        // The ends of the pipe and of the gate that are the child's must be the child's alone.
        drop(command);
        let pid = Pid::from_child(&child);
        self.remember(pid.as_raw_pid());
        let output = OwnedFd::from(reader);
        let watch = rustix::io::ioctl_fionbio(&output, true)
            .and_then(|()| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|error| no_room(error.into()));
        let begun = watch.and_then(|pidfd| match gate.map_or(Ok(()), Gate::open) {
            Ok(()) => Ok(pidfd),
            Err(error) => Err(text.not_spawned(&error)),
        });
        match begun {
            Ok(pidfd) => Ok(Process { child, pid, pidfd, output: Some(output) }),
            Err(why) => {
                self.abandon(child, pid);
                Err(why)
            }
        }
    }

    /// Ends a process that has not become its service, or that cannot be watched.
    fn abandon(&mut self, mut child: Child, pid: Pid) {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.kill();
        let _ = child.wait();
        self.forget(pid.as_raw_pid());
    }

    fn remember(&mut self, session: i32) {
        self.sessions.insert(session);
        if let Some(reaper) = &self.reaper {
            reaper.watch(session);
        }
        if let Some(state) = &mut self.state {
            state.add(session, procfs::stat(session).map_or(0, |stat| stat.started_ticks));
        }
    }

    fn forget(&mut self, session: i32) {
        self.sessions.remove(&session);
        if let Some(reaper) = &self.reaper {
            reaper.forget(session);
        }
        if let Some(state) = &mut self.state {
            state.remove(session);
        }
    }

    /// Starts the reaper again if somebody ended it, less and less often if it does not stay.
    fn keep_reaper(&mut self) {
        let Some(command) = &self.reaper_command else { return };
        if self.reaper.as_mut().is_some_and(Reaper::is_alive) || Instant::now() < self.reaper_retry_at {
            return;
        }
        self.reaper = None;
        self.reaper_retry_at = Instant::now() + self.reaper_pause;
        self.reaper_pause = (self.reaper_pause * 2).min(REAPER_PAUSE_MAX);
        match Reaper::start(command) {
            Ok(reaper) => {
                tracing::warn!("the reaper had ended and was started again");
                self.sessions.iter().for_each(|session| reaper.watch(*session));
                self.reaper = Some(reaper);
            }
            Err(error) => {
                tracing::warn!(%error, "no reaper; after a crash some processes may be left behind")
            }
        }
    }
}

/// What a message about a failed spawn needs.
struct CommandText<'a> {
    program: &'a str,
    folder: Option<&'a str>,
    path: Option<&'a str>,
}

impl CommandText<'_> {
    fn not_spawned(&self, error: &io::Error) -> String {
        why::not_spawned(error, self.program, self.folder, self.path)
    }
}

/// The command with its port put in. Forerun's own settings and secrets (`FORERUN_*`) stay out of its environment;
/// the rest of Forerun's is handed on, beneath the service's own.
fn prepare<'a>(
    instance: InstanceId,
    spec: &'a ServiceSpec,
    port: u16,
    launcher: Option<&[String]>,
) -> Result<(Command, CommandText<'a>), String> {
    let Launch::Process { command, env, folder } = &spec.launch else {
        return Err("the process backend runs commands, and this service has none".to_owned());
    };
    check_ready(&spec.ready)?;
    let (program, args) = command.split_first().ok_or("the command is empty")?;
    let port = port.to_string();
    let fill = |text: &str| text.replace("{port}", &port);
    let mut prepared = match launcher.and_then(<[String]>::split_first) {
        Some((launcher, rest)) => {
            let mut prepared = Command::new(launcher);
            prepared.args(rest).arg(fill(program));
            prepared
        }
        None => Command::new(fill(program)),
    };
    prepared.args(args.iter().map(|arg| fill(arg)));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"FORERUN_"))
    {
        prepared.env_remove(name);
    }
    prepared.env("PORT", &port).env(procfs::MARK, instance.to_string());
    let env: BTreeMap<&String, String> = env.iter().map(|(name, value)| (name, fill(value))).collect();
    if let Some(name) = env.keys().find(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return Err(format!("`{name}` cannot be the name of an environment variable"));
    }
    prepared.envs(env);
    if let Some(folder) = folder {
        prepared.current_dir(folder);
    }
    let path = match &spec.launch {
        Launch::Process { env, .. } => env.get("PATH").map(String::as_str),
        _ => None,
    };
    Ok((prepared, CommandText { program, folder: folder.as_deref(), path }))
}

fn check_ready(ready: &Readiness) -> Result<(), String> {
    match ready {
        Readiness::Http { path }
            if !path.starts_with('/') || path.contains(|c: char| c <= ' ' || c == '\u{7f}') =>
        {
            Err(format!("the ready path `{}` must start with / and hold no blanks", path.escape_debug()))
        }
        Readiness::Log { text } if text.is_empty() => Err("the ready text is empty".to_owned()),
        _ => Ok(()),
    }
}
