//! The trait that every backend implements, its orders and its errors.

use forerun_types::{Event, Generation, InstanceId, ServiceSpec, Span};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Takes outcomes. It is called on the backend's own thread, so it must hand on and return: while it blocks, no
/// other instance of the backend moves on.
pub type Sink = Arc<dyn Fn(Event) + Send + Sync>;

/// What a backend can do beyond starting and stopping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Freeze an instance and thaw it again.
    pub pause: bool,
    /// Turn a generic instance into one for a key.
    pub specialise: bool,
    /// Instances outlive Forerun and are taken over by its next life.
    pub adopt: bool,
    /// Memory and CPU are reported as `InstanceUsage`, about once a second.
    pub usage: bool,
    /// An instance that uses more memory than its service's `resources.memory_bytes` is ended.
    pub limits: bool,
}

/// Start an instance. The instance id is the idempotency key.
#[derive(Clone, Debug)]
pub struct StartOrder {
    pub instance: InstanceId,
    pub generation: Generation,
    pub spec: Arc<ServiceSpec>,
}

/// End an instance: ask it, and force it when `grace` is over.
#[derive(Clone, Copy, Debug)]
pub struct StopOrder {
    pub instance: InstanceId,
    pub generation: Generation,
    pub grace: Span,
}

/// Why an order was refused. A refused order changes nothing, and no event follows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("order of generation {} for instance {instance} is older than {}, which it already obeyed", .ordered.0, .obeyed.0)]
    Stale { instance: InstanceId, ordered: Generation, obeyed: Generation },
    #[error("the {backend} backend cannot {what}")]
    Unsupported { backend: &'static str, what: &'static str },
    #[error("the {backend} backend has ended")]
    Ended { backend: &'static str },
}

/// Why a backend could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("cannot {what} `{}`: {source}", .path.display())]
    StateFile { what: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` is in use by another forerun: stop it, or give this one a state folder of its own", .path.display())]
    StateInUse { path: PathBuf },
    #[error("cannot start the reaper `{command}`: {source}")]
    Reaper { command: String, source: io::Error },
    #[error("ports {low}-{high} are not a range of ports above 1023")]
    Ports { low: u16, high: u16 },
    #[error("{why}")]
    Engine { why: String },
    #[error("cannot set up the {what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// Runs instances.
///
/// Events for an accepted start, in order:
/// - exactly one of `Ready`, `StartFailed` or `Stopped` ends the start;
/// - after `Ready`, `InstanceUsage` any number of times, then exactly one of `Died`, `Stopped`, `StoppedByHand` or
///   `Completed`;
/// - after each of those and `StartFailed` the instance is known to be gone, with all its processes (a container
///   that is the user's own is there still, and does not run);
/// - each accepted pause, resume and specialise is followed by `Paused`, `Resumed` or `Specialised`, by `NotChanged`,
///   or by the instance's end.
///
/// Orders never block. A repeated order for the same instance changes nothing, also after the instance's end. A
/// stop for an instance that the backend never had is answered with `Stopped`, and a start that comes after it
/// changes nothing.
pub trait Backend: Send + Sync {
    /// The name by which services ask for it: `process`, `docker`, ...
    fn name(&self) -> &'static str;

    fn capabilities(&self) -> Capabilities;

    /// # Errors
    /// [`OrderError`], and then no event follows.
    fn start(&self, order: StartOrder) -> Result<(), OrderError>;

    /// # Errors
    /// [`OrderError`], and then no event follows.
    fn stop(&self, order: StopOrder) -> Result<(), OrderError>;

    /// Freezes an instance: it keeps its memory and gets no CPU.
    ///
    /// # Errors
    /// `Unsupported` unless `capabilities().pause`.
    fn pause(&self, _instance: InstanceId, _generation: Generation) -> Result<(), OrderError> {
        Err(OrderError::Unsupported { backend: self.name(), what: "pause instances" })
    }

    /// Thaws a paused instance.
    ///
    /// # Errors
    /// `Unsupported` unless `capabilities().pause`.
    fn resume(&self, _instance: InstanceId, _generation: Generation) -> Result<(), OrderError> {
        Err(OrderError::Unsupported { backend: self.name(), what: "resume instances" })
    }

    /// Gives a generic instance to the key of a variant (`order.spec.variant`), for good.
    ///
    /// # Errors
    /// `Unsupported` unless `capabilities().specialise`.
    fn specialise(&self, _order: StartOrder) -> Result<(), OrderError> {
        Err(OrderError::Unsupported { backend: self.name(), what: "specialise instances" })
    }

    /// From now on, what was told as `Found` with this handle is the order's instance. `Ready` or `Paused` does not
    /// follow; `Died`, `Stopped` and usage do.
    ///
    /// # Errors
    /// `Unsupported` unless `capabilities().adopt`.
    fn adopt(&self, _order: StartOrder, _handle: &str) -> Result<(), OrderError> {
        Err(OrderError::Unsupported { backend: self.name(), what: "adopt instances" })
    }

    /// Asks by the order's `spec.busy` whether an instance is busy; `BusyAnswer` follows within a few seconds.
    ///
    /// # Errors
    /// `Unsupported` where the backend has no such probe.
    fn ask_busy(&self, _order: StartOrder) -> Result<(), OrderError> {
        Err(OrderError::Unsupported { backend: self.name(), what: "ask whether an instance is busy" })
    }

    /// The services of this backend, as they are now: what is found is told by their ids.
    fn know(&self, _services: &[Arc<ServiceSpec>]) {}

    /// What it is at that is no instance's, as fetching an image ahead of need: a line each, for people.
    fn at_work(&self) -> Vec<String> {
        Vec::new()
    }

    /// Every instance from the order to start it until it is known to be gone, in order of id.
    fn running(&self) -> Vec<InstanceId>;

    /// Orders every instance to stop; starts that come later fail. Does not wait: it is over when
    /// [`Backend::running`] is empty, and each instance's `Stopped` tells of its own end.
    fn shutdown(&self, grace: Span);
}
