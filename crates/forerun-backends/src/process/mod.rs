//! Instances as child processes of Forerun.
//!
//! Three threads whatever the number of instances: the keeper, an event loop that follows every instance; the
//! spawner, which starts processes; the census, which reads `/proc`. Beside them stands one reaper process.
//!
//! Each instance leads a session of its own, in a control group of its own. Stopping, killing, pausing, memory and CPU
//! mean all that is in either. Where there are no control groups, or no right to make them, a process that makes a
//! session of its own again (a daemon) is not found, memory is watched instead of limited, and CPU is not limited.
//!
//! What waits for an instance (hooks, questions, freezing) is done on threads that last as long as it takes.
//!
//! Nothing outlives Forerun, even after `kill -9`: the parent-death signal ends each instance's first process, the
//! reaper ends the rest of its session, and what neither could end stands in the state file for the next start.

mod beside;
mod census;
mod cgroup;
mod child;
mod files;
mod freeze;
mod keeper;
mod launch;
pub(crate) mod ports;
mod prepare;
mod probe;
mod procfs;
mod reaper;
mod run;
mod spare;
mod spawn;
mod state;
mod sys;
mod why;

pub use cgroup::{CgroupReport, cgroup_report};
pub use launch::launcher_main;
pub use reaper::reaper_main;
pub(crate) use sys::{end_at_end_signals, ignore_end_signals, on_term};
#[cfg(feature = "docker")]
pub(crate) use why::{signal_name, with_lines};

use crate::errands::Errands;
use crate::ledger::{Ledger, StartVerdict, StopVerdict};
use crate::{Backend, Capabilities, OrderError, SetupError, Sink, StartOrder, StopOrder};
use cgroup::{Groups, Look};
use files::Files;
use forerun_types::{Generation, InstanceId, Span};
use keeper::{Keeper, Mailbox, Message, Wiring};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use spawn::Spawner;
use state::StateFile;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const NAME: &str = "process";

/// How a [`ProcessBackend`] works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The command that runs [`reaper_main`]; without one, what instances started themselves can outlive a killed
    /// Forerun until its next start. `["/proc/self/exe", "__reaper"]` runs the present binary, even if its file has
    /// been replaced.
    pub reaper_command: Option<Vec<String>>,
    /// The command that runs [`launcher_main`]; without one, Forerun forks, which takes the longer the more memory it
    /// uses, and has no launcher wait for the next start. `["/proc/self/exe", "__launch"]`.
    pub launcher_command: Option<Vec<String>>,
    /// Where the list of running processes is kept. One folder belongs to one Forerun at a time.
    pub state_folder: Option<PathBuf>,
    /// Limits an instance's memory to its service's `resources.memory_bytes`: one that uses more is ended, by the
    /// kernel where there are control groups, else as soon as its resident memory is seen to be more.
    pub limit_memory: bool,
    /// Limits an instance's CPU to its service's `resources.cpu_milli`, where there are control groups.
    pub limit_cpu: bool,
    /// Whether control groups are used where they can be had; without them instances are only watched.
    pub control_groups: bool,
    /// First and last port for instances; by default 12,000 that the kernel does not use for outgoing connections.
    pub ports: Option<(u16, u16)>,
    /// How many instances may exist at once; a start beyond it fails.
    pub instances_max: usize,
    /// How many ports a start tries in all while its process says that the address is in use.
    pub port_attempts: u32,
    /// How often memory and CPU are reported.
    pub usage_every: Span,
}

impl Default for ProcessSettings {
    fn default() -> Self {
        Self {
            reaper_command: None,
            launcher_command: None,
            state_folder: None,
            limit_memory: false,
            limit_cpu: false,
            control_groups: true,
            ports: None,
            // Three file descriptors each: within the 20,000 that a service manager commonly allows.
            instances_max: 4_096,
            port_attempts: 3,
            usage_every: Span::from_secs(1),
        }
    }
}

impl ProcessSettings {
    /// With this very program as reaper and launcher: it must run [`reaper_main`] for the argument `__reaper` and
    /// [`launcher_main`] for `__launch`.
    #[must_use]
    pub fn of_this_program(state_folder: &Path) -> Self {
        let this = |command: &str| Some(vec!["/proc/self/exe".to_owned(), command.to_owned()]);
        Self {
            reaper_command: this("__reaper"),
            launcher_command: this("__launch"),
            state_folder: Some(state_folder.to_owned()),
            ..Self::default()
        }
    }
}

/// Errands at a time: each is one instance's, and waits for it.
const ERRANDS_MAX: usize = 64;

/// Runs every instance as a child process. Dropping it kills what still runs, and waits for that, at most for 5 s.
pub struct ProcessBackend {
    ledger: Arc<Mutex<Ledger>>,
    mailbox: Mailbox,
    keeper: Option<JoinHandle<()>>,
    limit_memory: bool,
}

impl ProcessBackend {
    /// Kills what an earlier life left, by the state folder, and starts the threads and the reaper.
    ///
    /// # Errors
    /// If the state folder cannot be used or is in use, the reaper cannot be run, or the system has no room.
    pub fn new(settings: ProcessSettings, sink: Sink) -> Result<Self, SetupError> {
        let (low, high) = settings.ports.unwrap_or_else(ports::default_range);
        if low < 1_024 || low > high {
            return Err(SetupError::Ports { low, high });
        }
        let system = |what| move |source| SetupError::System { what, source };
        // Linux 5.3; without it no end would ever be seen.
        pidfd_open(getpid(), PidfdFlags::empty())
            .map_err(|error| system("watch over processes")(error.into()))?;
        let state = settings.state_folder.as_deref().map(StateFile::open).transpose()?;
        let groups = open_groups(&settings);
        let files = Arc::new(Files::new(settings.state_folder.as_deref()));
        let spawner = Spawner::new(&settings, state, groups, Arc::clone(&files))?;
        let limit_memory = settings.limit_memory;
        let ledger = Arc::new(Mutex::new(Ledger::new(settings.instances_max)));
        let (mailbox, inbox) = Mailbox::new().map_err(system("wake-up"))?;
        let (jobs, job_queue) = mpsc::channel();
        let (counts, count_queue) = mpsc::channel();
        let ports = ports::Ports::new((low, high), draw());
        let errands = Errands::new("forerun-errand", ERRANDS_MAX);
        let (to_ledger, mailbox_too) = (Arc::clone(&ledger), mailbox.clone());
        let wiring = Wiring {
            settings,
            sink,
            ledger: to_ledger,
            inbox,
            mailbox: mailbox_too,
            jobs,
            counts,
            errands,
            files,
        };
        let keeper = Keeper::new(wiring, ports).map_err(system("event queue"))?;
        let to_keeper = mailbox.clone();
        let spawning = named("forerun-spawn", move || spawner.run(&job_queue, &to_keeper))
            .map_err(system("spawning thread"))?;
        let to_keeper = mailbox.clone();
        let counting = named("forerun-census", move || census::run(&count_queue, &to_keeper))
            .map_err(system("census thread"))?;
        let keeping = named("forerun-keep", move || {
            // The keeper owns the others' queues: they end when it does.
            keeper.run();
            let _ = spawning.join();
            let _ = counting.join();
        })
        .map_err(system("keeping thread"))?;
        Ok(Self { ledger, mailbox, keeper: Some(keeping), limit_memory })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The control groups of this life; what cannot be had is said once.
fn open_groups(settings: &ProcessSettings) -> Option<Groups> {
    if !settings.control_groups {
        return None;
    }
    let (groups, report) = Groups::open(Look::AndPrepare);
    if let Err(why) = &report.membership {
        tracing::info!(
            why,
            "no control groups: instances are watched, and daemons that they start are not found"
        );
    } else {
        let wanted =
            [(settings.limit_memory, "memory", &report.memory), (settings.limit_cpu, "cpu", &report.cpu)];
        for (_, what, why) in wanted.into_iter().filter(|(wanted, _, _)| *wanted) {
            if let Err(why) = why {
                tracing::info!(why, "no limits of {what} by control groups");
            }
        }
    }
    groups
}

/// A number that differs from one Forerun to the next, so that two on one machine seldom try the same ports.
pub(crate) fn draw() -> u32 {
    std::process::id() ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos())
}

/// A thread with a small stack: none of them recurses.
fn named(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(work)
}

impl Backend for ProcessBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { pause: true, specialise: true, adopt: false, usage: true, limits: self.limit_memory }
    }

    fn start(&self, order: StartOrder) -> Result<(), OrderError> {
        // Orders enter the queue under the lock, so that a stop cannot overtake its start.
        let mut ledger = self.ledger();
        let instance = order.instance;
        let refuse = |why: &str| Message::Refuse { instance, why: why.to_owned() };
        let message = match ledger.start(instance, order.generation)? {
            StartVerdict::Start => Message::Start { instance, spec: order.spec, ordered: Instant::now() },
            StartVerdict::Nothing => return Ok(()),
            StartVerdict::Full => refuse("as many instances exist as the process backend may have"),
            StartVerdict::ShuttingDown => refuse("the process backend is shutting down"),
        };
        self.tell(message)
    }

    fn stop(&self, order: StopOrder) -> Result<(), OrderError> {
        let mut ledger = self.ledger();
        let instance = order.instance;
        match ledger.stop(instance, order.generation)? {
            StopVerdict::Stop => self.tell(Message::Stop { instance, grace: order.grace.into() }),
            StopVerdict::Unknown => self.tell(Message::NeverWas { instance }),
            StopVerdict::Nothing => Ok(()),
        }
    }

    fn pause(&self, instance: InstanceId, generation: Generation) -> Result<(), OrderError> {
        self.change(instance, generation, Message::Pause { instance })
    }

    fn resume(&self, instance: InstanceId, generation: Generation) -> Result<(), OrderError> {
        self.change(instance, generation, Message::Resume { instance, ordered: Instant::now() })
    }

    fn specialise(&self, order: StartOrder) -> Result<(), OrderError> {
        let StartOrder { instance, generation, spec } = order;
        self.change(instance, generation, Message::Specialise { instance, spec, ordered: Instant::now() })
    }

    fn ask_busy(&self, order: StartOrder) -> Result<(), OrderError> {
        let StartOrder { instance, generation, spec } = order;
        let mut ledger = self.ledger();
        ledger.change(instance, generation)?;
        self.tell(Message::AskBusy { instance, spec })
    }

    fn running(&self) -> Vec<InstanceId> {
        self.ledger().running()
    }

    fn shutdown(&self, grace: Span) {
        let mut ledger = self.ledger();
        ledger.shutdown();
        self.mailbox.send(Message::ShutDown { grace: grace.into() });
    }
}

impl ProcessBackend {
    fn change(&self, instance: InstanceId, generation: Generation, order: Message) -> Result<(), OrderError> {
        // In the queue under the lock, like a start: the orders of an instance keep their order.
        let mut ledger = self.ledger();
        let known = ledger.change(instance, generation)?;
        self.tell(if known { order } else { Message::NotThere { instance } })
    }

    fn tell(&self, message: Message) -> Result<(), OrderError> {
        if self.mailbox.send(message) { Ok(()) } else { Err(OrderError::Ended { backend: NAME }) }
    }
}

impl Drop for ProcessBackend {
    fn drop(&mut self) {
        self.shutdown(Span::ZERO);
        self.mailbox.send(Message::Close { until: Instant::now() + Duration::from_secs(5) });
        if let Some(keeper) = self.keeper.take()
            // The last owner may be the sink, on the keeper's own thread.
            && keeper.thread().id() != thread::current().id()
        {
            let _ = keeper.join();
        }
    }
}

impl fmt::Debug for ProcessBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessBackend").field("running", &self.running()).finish_non_exhaustive()
    }
}
