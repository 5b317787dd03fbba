//! Instances that something else runs: a virtual machine, a container of another kind, a machine that is woken. Shell
//! lines start them, stop them, and say whether they run.
//!
//! One thread keeps the books; lines run on threads of their own, so many at a time, each with a deadline. What is
//! started outlives Forerun: the next life asks each service's `state` line, and takes over what runs.
//!
//! `state` exits with 0 if it runs, 2 if a person has stopped it, 3 if it has failed and will not come up by itself, and
//! anything else if it does not run; what it prints then is told as the reason. A line that is not over in time tells
//! nothing. A service has one instance, unless its lines use `{instance}` or `FORERUN_INSTANCE`.

mod book;
mod keeper;
mod leash;
mod line;
mod run;

use crate::ledger::{Ledger, StartVerdict, StopVerdict};
use crate::{Backend, Capabilities, OrderError, SetupError, Sink, StartOrder, StopOrder};
use book::Book;
use forerun_types::{Busy, InstanceId, ServiceSpec, Span};
use keeper::{Keeper, Message};
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const NAME: &str = "command";

/// How a [`CommandBackend`] works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// Where it is written down which instances there are, for the next life; without one, services that have several
    /// are not taken over.
    pub state_folder: Option<PathBuf>,
    /// How often each `state` line is asked.
    pub poll_every: Span,
    /// How many instances may exist at once; a start beyond it fails.
    pub instances_max: usize,
    /// First and last port for `{port}` in an address; by default 12,000 that the kernel does not use for outgoing
    /// connections.
    pub ports: Option<(u16, u16)>,
}

impl Default for CommandSettings {
    fn default() -> Self {
        // Such instances are machines: there are never many, and a line may be a call to one of them.
        Self { state_folder: None, poll_every: Span::from_secs(5), instances_max: 1_024, ports: None }
    }
}

/// Runs instances by shell lines. Dropping it stops nothing.
pub struct CommandBackend {
    ledger: Arc<Mutex<Ledger>>,
    sender: Sender<Message>,
    keeper: Option<JoinHandle<()>>,
}

impl CommandBackend {
    /// # Errors
    /// If the state folder cannot be used, or the system has no room for a thread.
    pub fn new(settings: CommandSettings, sink: Sink) -> Result<Self, SetupError> {
        let (low, high) = settings.ports.unwrap_or_else(crate::process::ports::default_range);
        if low < 1_024 || low > high {
            return Err(SetupError::Ports { low, high });
        }
        let book = settings.state_folder.as_deref().map(Book::open).transpose()?.unwrap_or_default();
        let ledger = Arc::new(Mutex::new(Ledger::new(settings.instances_max)));
        let (sender, receiver) = mpsc::channel();
        let keeper = Keeper::new(&settings, sink, Arc::clone(&ledger), sender.clone(), book, (low, high));
        let keeper = thread::Builder::new()
            .name("forerun-command".to_owned())
            .stack_size(256 << 10)
            .spawn(move || keeper.run(&receiver))
            .map_err(|source| SetupError::System { what: "thread of the command backend", source })?;
        Ok(Self { ledger, sender, keeper: Some(keeper) })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, message: Message) -> Result<(), OrderError> {
        self.sender.send(message).map_err(|_| OrderError::Ended { backend: NAME })
    }

    fn begin(&self, order: StartOrder, handle: Option<String>) -> Result<(), OrderError> {
        // Orders enter the queue under the lock, so that a stop cannot overtake its start.
        let mut ledger = self.ledger();
        let instance = order.instance;
        let refuse = |why: &str| Message::Refuse { instance, why: why.to_owned() };
        let message = match (ledger.start(instance, order.generation)?, handle) {
            (StartVerdict::Start, None) => {
                Message::Start { instance, spec: order.spec, ordered: Instant::now() }
            }
            (StartVerdict::Start, Some(handle)) => Message::Adopt { instance, spec: order.spec, handle },
            (StartVerdict::Nothing, _) => return Ok(()),
            (StartVerdict::Full, _) => refuse("as many instances exist as the command backend may have"),
            (StartVerdict::ShuttingDown, _) => refuse("the command backend is shutting down"),
        };
        self.tell(message)
    }
}

impl Backend for CommandBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { adopt: true, ..Capabilities::default() }
    }

    fn start(&self, order: StartOrder) -> Result<(), OrderError> {
        self.begin(order, None)
    }

    fn adopt(&self, order: StartOrder, handle: &str) -> Result<(), OrderError> {
        self.begin(order, Some(handle.to_owned()))
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

    fn ask_busy(&self, order: StartOrder) -> Result<(), OrderError> {
        if matches!(order.spec.busy, Some(Busy::Cpu { .. } | Busy::Network { .. })) {
            let what = "measure what an instance uses: ask for `busy` by an HTTP path or a command";
            return Err(OrderError::Unsupported { backend: NAME, what });
        }
        let mut ledger = self.ledger();
        ledger.change(order.instance, order.generation)?;
        self.tell(Message::AskBusy { instance: order.instance, spec: order.spec })
    }

    fn know(&self, services: &[Arc<ServiceSpec>]) {
        // Once it has ended there is nobody to know them.
        let _ = self.sender.send(Message::Know { services: services.to_vec() });
    }

    fn running(&self) -> Vec<InstanceId> {
        self.ledger().running()
    }

    fn shutdown(&self, grace: Span) {
        let mut ledger = self.ledger();
        ledger.shutdown();
        let _ = self.sender.send(Message::ShutDown { grace: grace.into() });
    }
}

impl Drop for CommandBackend {
    fn drop(&mut self) {
        let _ = self.sender.send(Message::Close);
        if let Some(keeper) = self.keeper.take()
            // The last owner may be the sink, on the keeper's own thread.
            && keeper.thread().id() != thread::current().id()
        {
            let _ = keeper.join();
        }
    }
}

impl fmt::Debug for CommandBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandBackend").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// The longest that a question may take.
const ASK_WITHIN: Duration = Duration::from_secs(10);
