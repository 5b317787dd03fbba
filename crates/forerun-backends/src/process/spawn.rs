//! The one thread that starts processes and keeps the books of them.
//!
//! The parent-death signal comes when the *thread* that spawned ends, so every spawn is made here, on a thread that
//! lives as long as the backend. It may block (a slow disk under the program): nothing else waits for it. It also
//! owns the reaper, the state file and the control groups, where a process stands before anything of its service runs.

use super::cgroup::{Group, Groups, Limits};
use super::child::{self, Held, NotBegun};
use super::files::{self, Files};
use super::keeper::{Mailbox, Message};
use super::prepare::{Place, prepare};
use super::reaper::Reaper;
use super::spare::Spare;
use super::state::StateFile;
use super::{ProcessSettings, procfs};
use crate::SetupError;
use forerun_types::{InstanceId, Resources, ServiceSpec};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the reaper is looked at while something runs.
const REAPER_CHECK: Duration = Duration::from_secs(1);
/// The first pause before a reaper that ended is started again; it doubles up to [`REAPER_PAUSE_MAX`].
const REAPER_PAUSE: Duration = Duration::from_secs(1);
const REAPER_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long after a start the launcher for the next one is made: what was just started needs the CPU more.
const SPARE_AFTER: Duration = Duration::from_millis(50);
/// Groups that were still busy when their instance was gone; the end of the life removes what is beyond.
const BUSY_GROUPS_MAX: usize = 1_024;

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
    /// Its control group; without one it is only watched.
    pub(super) group: Option<Arc<Group>>,
}

impl Process {
    /// Signals the whole process group. It may be gone already, which is fine.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Kills all that can be killed at one stroke.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(group) = &self.group {
            group.kill();
        }
    }
}

/// What stands in the books for a session.
#[derive(Debug)]
struct Entry {
    instance: InstanceId,
    group: Option<Arc<Group>>,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Spawner {
    /// Before the groups, one of which it is in.
    spare: Option<Spare>,
    /// What the last start's group limits, as the next one's probably does; `None` where no spare is to be made.
    spare_kinds: Option<(bool, bool)>,
    /// Before the reaper: it must find them ended when it is told to go.
    groups: Option<Groups>,
    launcher_command: Option<Vec<String>>,
    reaper_command: Option<Vec<String>>,
    reaper: Option<Reaper>,
    reaper_retry_at: Instant,
    reaper_pause: Duration,
    state: Option<StateFile>,
    sessions: BTreeMap<i32, Entry>,
    /// Groups of instances that are gone, as long as the kernel says that they are busy.
    busy_groups: Vec<Arc<Group>>,
    group_warned: bool,
    limit_memory: bool,
    limit_cpu: bool,
    files: Arc<Files>,
}

impl Spawner {
    /// # Errors
    /// If the reaper cannot be started.
    pub(super) fn new(
        settings: &ProcessSettings,
        mut state: Option<StateFile>,
        groups: Option<Groups>,
        files: Arc<Files>,
    ) -> Result<Self, SetupError> {
        let reaper_command = settings.reaper_command.clone();
        let reaper = reaper_command.as_deref().map(Reaper::start).transpose()?;
        for folder in groups.iter().flat_map(Groups::folders) {
            if let Some(reaper) = &reaper {
                reaper.watch_group(&folder);
            }
            if let Some(state) = &mut state {
                state.add_group(&folder);
            }
        }
        Ok(Self {
            spare: None,
            spare_kinds: None,
            launcher_command: settings.launcher_command.clone(),
            reaper_command,
            reaper,
            reaper_retry_at: Instant::now(),
            reaper_pause: REAPER_PAUSE,
            state,
            sessions: BTreeMap::new(),
            groups,
            busy_groups: Vec::new(),
            group_warned: false,
            limit_memory: settings.limit_memory,
            limit_cpu: settings.limit_cpu,
            files,
        })
    }

    /// Works until the keeper has gone.
    pub(super) fn run(mut self, jobs: &Receiver<Job>, mailbox: &Mailbox) {
        loop {
            let watched = self.reaper_command.is_some() && !self.sessions.is_empty();
            let lacks_spare = self.spare.is_none() && self.spare_kinds.is_some();
            let job = if lacks_spare {
                jobs.recv_timeout(SPARE_AFTER)
            } else if watched || !self.busy_groups.is_empty() {
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
                Err(RecvTimeoutError::Timeout) => {
                    self.busy_groups.retain(|group| !group.remove());
                    if lacks_spare {
                        self.make_spare();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn spawn(&mut self, instance: InstanceId, spec: &ServiceSpec, port: u16) -> Result<Process, String> {
        let folder = self.files.folder(instance);
        let place = Place { instance, port, files: &folder };
        let prepared = prepare(place, spec)?;
        if let Some(files) = &prepared.files {
            files::write(&folder, files)?;
        }
        let text = prepared.text;
        let not_begun = |error: &NotBegun| error.sentence(|error| text.not_spawned(error));
        let limits = self.limits(spec.resources);
        let (mut held, group) = match self.hold(instance, prepared.command, limits) {
            Ok(held) => held,
            Err(error) => {
                self.let_go(instance, None);
                return Err(not_begun(&error));
            }
        };
        let pid = held.pid();
        self.remember(pid.as_raw_pid(), Entry { instance, group: group.clone() });
        let watch = rustix::io::ioctl_fionbio(&held.output, true)
            .and_then(|()| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|error| NotBegun::NoRoom(error.into()));
        let begun = watch.and_then(|pidfd| Ok((pidfd, held.begin(group.as_deref())?)));
        match begun {
            Ok((pidfd, joined)) => {
                let group = if joined { group } else { self.without_group(pid.as_raw_pid(), group) };
                Ok(Process { child: held.child, pid, pidfd, output: Some(held.output), group })
            }
            Err(error) => {
                self.abandon(held.child, pid);
                Err(not_begun(&error))
            }
        }
    }

    /// The spare becomes the instance's process if it can; else one is made.
    fn hold(
        &mut self,
        instance: InstanceId,
        command: Command,
        limits: Limits,
    ) -> Result<(Held, Option<Arc<Group>>), NotBegun> {
        let launcher = self.launcher_command.as_deref();
        self.spare_kinds = launcher.map(|_| limits.kinds());
        if let Some((spare, group)) = self.spare.take().and_then(|spare| spare.become_limited(limits)) {
            return Ok((spare.with(command, Some(group.is_some())), group));
        }
        let group = self.group(instance, limits);
        let reaper = self.reaper.as_ref().map(Reaper::socket);
        match child::hold(command, self.launcher_command.as_deref(), reaper, group.as_deref()) {
            Ok(held) => Ok((held, group)),
            Err(error) => {
                if let Some(group) = group {
                    self.bury(group);
                }
                Err(error)
            }
        }
    }

    fn make_spare(&mut self) {
        let kinds = self.spare_kinds.take();
        if let (Some(kinds), Some(launcher)) = (kinds, &self.launcher_command) {
            self.spare = Spare::make(launcher, self.groups.as_mut(), kinds);
        }
    }

    fn limits(&self, resources: Resources) -> Limits {
        Limits {
            memory_bytes: Some(resources.memory_bytes).filter(|bytes| self.limit_memory && *bytes > 0),
            cpu_milli: Some(resources.cpu_milli).filter(|milli| self.limit_cpu && *milli > 0),
        }
    }

    /// A control group for an instance, if there are any to be had.
    fn group(&mut self, instance: InstanceId, limits: Limits) -> Option<Arc<Group>> {
        match self.groups.as_mut()?.make(&instance.to_string(), limits) {
            Ok(group) => Some(Arc::new(group)),
            Err(error) => {
                self.warn_once(&error.to_string());
                None
            }
        }
    }

    /// The process is not in its group, and is watched instead.
    fn without_group(&mut self, session: i32, group: Option<Arc<Group>>) -> Option<Arc<Group>> {
        let group = group?;
        self.warn_once("the process could not be put into it");
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.group = None;
        }
        self.bury(group);
        None
    }

    fn warn_once(&mut self, why: &str) {
        if !std::mem::replace(&mut self.group_warned, true) {
            tracing::warn!(why, "an instance has no control group: its limits are watched and not enforced");
        }
    }

    /// Ends a process that has not become its service, or that cannot be watched.
    fn abandon(&mut self, mut child: Child, pid: Pid) {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.kill();
        let _ = child.wait();
        self.forget(pid.as_raw_pid());
    }

    fn remember(&mut self, session: i32, entry: Entry) {
        self.sessions.insert(session, entry);
        if let Some(reaper) = &self.reaper {
            reaper.watch(session);
        }
        if let Some(state) = &mut self.state {
            state.add(session, procfs::stat(session).map_or(0, |stat| stat.started_ticks));
        }
    }

    fn forget(&mut self, session: i32) {
        if let Some(entry) = self.sessions.remove(&session) {
            self.let_go(entry.instance, entry.group);
        }
        if let Some(reaper) = &self.reaper {
            reaper.forget(session);
        }
        if let Some(state) = &mut self.state {
            state.remove(session);
        }
    }

    /// Removes what an instance had beside its processes.
    fn let_go(&mut self, instance: InstanceId, group: Option<Arc<Group>>) {
        self.files.remove(instance);
        if let Some(group) = group {
            self.bury(group);
        }
    }

    fn bury(&mut self, group: Arc<Group>) {
        if !group.remove() && self.busy_groups.len() < BUSY_GROUPS_MAX {
            self.busy_groups.push(group);
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
                self.groups.iter().flat_map(Groups::folders).for_each(|folder| reaper.watch_group(&folder));
                self.sessions.keys().for_each(|session| reaper.watch(*session));
                self.reaper = Some(reaper);
            }
            Err(error) => {
                tracing::warn!(%error, "no reaper; after a crash some processes may be left behind")
            }
        }
    }
}
