//! What the backend knows: services, runs, and which container is whose.

use super::life::Change;
use forerun_types::{InstanceId, Launch, ServiceId, ServiceSpec};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

/// How long before an end somebody's signal counts as its cause: the longest patience that people give a stop.
const HAND: Duration = Duration::from_secs(600);
/// How long before an end the kernel's word on memory counts as its cause.
const OOM: Duration = Duration::from_secs(10);
/// Containers whose last signal is remembered; the oldest go first.
const MARKS_MAX: usize = 4_096;
/// Signals that end what does not handle them, as the engine tells them: INT, QUIT, KILL, TERM.
const ENDING: [&str; 8] = ["2", "3", "9", "15", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM"];

/// An instance from its order to its end.
#[derive(Debug)]
pub(super) struct Run {
    /// The grace of a stop, once one is ordered.
    pub(super) stop: watch::Sender<Option<Duration>>,
    /// Something happened to its container.
    pub(super) look: Rc<Notify>,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) container: Option<String>,
    /// Ready, and not frozen: it is worth asking what it uses.
    pub(super) counts: bool,
}

/// Something that runs and is nobody's.
#[derive(Debug)]
pub(super) struct Found {
    /// Waits until it is ready and then tells of it.
    pub(super) waiting: AbortHandle,
    /// When it was told of.
    pub(super) told: Option<Instant>,
}

/// What became of asking for a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Hold {
    Got,
    /// Its holder is ordered to end, and whoever asked is next.
    Wait,
    Taken,
}

#[derive(Debug, Default)]
struct Marks {
    signal: Option<(Instant, String)>,
    oom: Option<Instant>,
    /// The engine has told of its end, and so of all that came before it.
    ended: bool,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) runs: HashMap<InstanceId, Run>,
    /// Which instance has a container.
    holders: HashMap<String, InstanceId>,
    /// Which instance is to have a container whose holder is ordered to end.
    heirs: HashMap<String, InstanceId>,
    pub(super) services: BTreeMap<ServiceId, Arc<ServiceSpec>>,
    /// When the services were told first.
    pub(super) known_since: Option<Instant>,
    pub(super) found: HashMap<String, Found>,
    /// What was last told of each service's own container.
    pub(super) own_state: BTreeMap<ServiceId, bool>,
    /// Ids of services' own containers, for when one is gone.
    pub(super) own_ids: HashMap<String, ServiceId>,
    marks: HashMap<String, Marks>,
    /// The last two readings of what each instance uses.
    pub(super) readings: HashMap<InstanceId, super::usage::Readings>,
}

impl Books {
    pub(super) fn holder(&self, container: &str) -> Option<InstanceId> {
        self.holders.get(container).copied()
    }

    /// Gives a container to an instance. False if another one has it.
    pub(super) fn hold(&mut self, container: &str, instance: InstanceId) -> bool {
        if self.holders.get(container).is_some_and(|holder| *holder != instance) {
            return false;
        }
        let Some(run) = self.runs.get_mut(&instance) else { return false };
        run.container = Some(container.to_owned());
        self.holders.insert(container.to_owned(), instance);
        self.heirs.remove(container);
        self.unfind(container);
        true
    }

    /// The same for one that may be on its way out: its next holder is whoever asks first.
    pub(super) fn hold_or_wait(&mut self, container: &str, instance: InstanceId) -> Hold {
        if self.heirs.get(container).is_some_and(|heir| *heir != instance) {
            return Hold::Taken;
        }
        let holder = self.holder(container).filter(|holder| *holder != instance);
        let holder = holder.and_then(|holder| self.runs.get(&holder));
        if holder.is_some_and(|run| run.stop.borrow().is_some()) {
            self.heirs.insert(container.to_owned(), instance);
            return Hold::Wait;
        }
        if self.hold(container, instance) { Hold::Got } else { Hold::Taken }
    }

    /// A container that is not there any more; its instance gets another.
    pub(super) fn release(&mut self, container: &str) {
        self.holders.remove(container);
        self.marks.remove(container);
    }

    /// Forgets an instance; its container is nobody's.
    pub(super) fn end(&mut self, instance: InstanceId) {
        self.readings.remove(&instance);
        self.heirs.retain(|_, heir| *heir != instance);
        if let Some(container) = self.runs.remove(&instance).and_then(|run| run.container) {
            self.holders.remove(&container);
            self.marks.remove(&container);
        }
    }

    /// Each instance looks for itself whether its container is still what it was.
    pub(super) fn look_all(&self) {
        self.runs.values().for_each(|run| run.look.notify_one());
    }

    pub(super) fn unfind(&mut self, container: &str) {
        if let Some(found) = self.found.remove(container) {
            found.waiting.abort();
        }
    }

    /// The known service whose own container has this name.
    pub(super) fn owner_of(&self, name: &str) -> Option<&Arc<ServiceSpec>> {
        self.services.values().find(|spec| own_name(spec) == Some(name))
    }

    pub(super) fn named(&self, service: &str) -> Option<&Arc<ServiceSpec>> {
        self.services.values().find(|spec| spec.name == service)
    }

    pub(super) fn signalled(&mut self, container: &str, signal: &str) {
        if ENDING.contains(&signal) {
            self.mark(container).signal = Some((Instant::now(), signal.to_owned()));
        }
    }

    pub(super) fn ran_out_of_memory(&mut self, container: &str) {
        self.mark(container).oom = Some(Instant::now());
    }

    /// The engine told of its end.
    pub(super) fn heard_end(&mut self, container: &str) {
        self.mark(container).ended = true;
    }

    pub(super) fn has_heard_end(&self, container: &str) -> bool {
        self.marks.get(container).is_some_and(|marks| marks.ended)
    }

    /// What was told of a run that is over says nothing of the next.
    pub(super) fn begin_run(&mut self, container: &str) {
        if let Some(marks) = self.marks.get_mut(container) {
            (marks.signal, marks.ended) = (None, false);
        }
    }

    /// An engine that was stopped had sent every container a signal, which is nobody's stop; so whatever was heard of
    /// signals before the engine went says nothing once it is back.
    pub(super) fn forget_signals(&mut self) {
        self.marks.values_mut().for_each(|marks| marks.signal = None);
    }

    fn mark(&mut self, container: &str) -> &mut Marks {
        if self.marks.len() >= MARKS_MAX && !self.marks.contains_key(container) {
            let of_nobody = |marks: &Marks| {
                let last = marks.signal.as_ref().map(|(at, _)| *at).max(marks.oom);
                last.is_none_or(|at| at.elapsed() > HAND)
            };
            self.marks.retain(|_, marks| !of_nobody(marks));
            if self.marks.len() >= MARKS_MAX {
                self.marks.clear();
            }
        }
        self.marks.entry(container.to_owned()).or_default()
    }

    /// The signal that somebody sent a container a while before it ended.
    pub(super) fn signal_of(&self, container: &str) -> Option<String> {
        let (at, signal) = self.marks.get(container)?.signal.as_ref()?;
        (at.elapsed() <= HAND).then(|| named(signal))
    }

    pub(super) fn saw_oom(&self, container: &str) -> bool {
        self.marks.get(container).and_then(|marks| marks.oom).is_some_and(|at| at.elapsed() <= OOM)
    }
}

/// `SIGTERM` for 15.
fn named(signal: &str) -> String {
    match signal.parse() {
        Ok(libc::SIGKILL) => "SIGKILL".to_owned(),
        Ok(number) => crate::process::signal_name(number),
        Err(_) => signal.to_owned(),
    }
}

/// The name of the container that is a service's own; a variant has none.
pub(super) fn own_name(spec: &ServiceSpec) -> Option<&str> {
    match &spec.launch {
        Launch::Container(container) if spec.variant.is_none() => container.own.as_deref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::Container;

    fn run(name: &str) -> Run {
        let spec = Arc::new(ServiceSpec::named(ServiceId(1), name));
        Run {
            stop: watch::channel(None).0,
            look: Rc::default(),
            changes: mpsc::channel(1).0,
            spec,
            container: None,
            counts: false,
        }
    }

    #[test]
    fn a_container_has_one_holder() {
        let mut books = Books::default();
        let (a, b) = (InstanceId(1), InstanceId(2));
        books.runs.insert(a, run("web"));
        books.runs.insert(b, run("web"));
        assert!(books.hold("x", a) && books.hold("x", a) && !books.hold("x", b));
        assert!(!books.hold("y", InstanceId(3)));
        books.end(a);
        assert!(books.hold("x", b));
        assert_eq!(books.holder("x"), Some(b));
    }

    #[test]
    fn the_next_holder_is_who_asked_first() {
        let mut books = Books::default();
        let [a, b, c] = [1, 2, 3].map(InstanceId);
        books.runs.extend([a, b, c].map(|id| (id, run("web"))));
        assert_eq!(books.hold_or_wait("x", a), Hold::Got);
        assert_eq!(books.hold_or_wait("x", b), Hold::Taken, "nobody has told it to end");
        books.runs[&a].stop.send_replace(Some(Duration::ZERO));
        assert_eq!(books.hold_or_wait("x", b), Hold::Wait);
        assert_eq!(books.hold_or_wait("x", c), Hold::Taken, "it has its next holder");
        books.end(a);
        assert_eq!(books.hold_or_wait("x", c), Hold::Taken);
        assert_eq!(books.hold_or_wait("x", b), Hold::Got);
        books.runs[&b].stop.send_replace(Some(Duration::ZERO));
        assert_eq!(books.hold_or_wait("x", c), Hold::Wait);
        books.end(c);
        books.end(b);
        assert!(books.heirs.is_empty(), "who waited has ended before");
    }

    #[test]
    fn only_ending_signals_are_somebodys_stop() {
        let mut books = Books::default();
        books.signalled("x", "1");
        assert_eq!(books.signal_of("x"), None);
        books.signalled("x", "15");
        assert_eq!(books.signal_of("x").as_deref(), Some("SIGTERM"));
        books.signalled("x", "9");
        assert_eq!(books.signal_of("x").as_deref(), Some("SIGKILL"));
        books.forget_signals();
        assert_eq!(books.signal_of("x"), None);
        books.heard_end("x");
        assert!(books.has_heard_end("x") && !books.has_heard_end("y"));
        books.begin_run("x");
        assert!(!books.has_heard_end("x"), "a new run has not ended");
        assert_eq!((books.signal_of("y"), books.saw_oom("x")), (None, false));
        for n in 0..3 * MARKS_MAX {
            books.ran_out_of_memory(&n.to_string());
        }
        assert!(books.marks.len() <= MARKS_MAX);
    }

    #[test]
    fn a_variant_has_no_container_of_its_own() {
        let launch = Launch::Container(Container { own: Some("web".to_owned()), ..Container::default() });
        let mut spec = ServiceSpec { launch, ..ServiceSpec::named(ServiceId(1), "web") };
        assert_eq!(own_name(&spec), Some("web"));
        spec.variant = Some(forerun_types::Variant { of: ServiceId(1), key: "jo".to_owned() });
        assert_eq!(own_name(&spec), None);
    }
}
