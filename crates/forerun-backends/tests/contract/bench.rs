//! What a case works with: a backend, its events, and a way to see what is left.

use forerun_backends::{Backend, Sink, StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, ServiceSpec, Span};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything takes on a loaded machine; a case that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a backend is made and what it is to run.
pub(crate) trait World: Sync {
    /// Whether what it needs is there; says so loudly if not.
    fn available(&self) -> bool {
        true
    }
    /// How many instances start at once: a hundred where an instance is no more than a process or a container.
    fn many(&self) -> usize {
        100
    }
    /// How long so many starts at once may take, and so many stops.
    fn many_within(&self) -> Duration {
        PATIENCE
    }
    /// Less than anybody waits for an instance, and enough for one to begin.
    fn short(&self) -> Span {
        Span::from_millis(700)
    }
    /// Whether an instance's port can be taken by somebody else.
    fn shares_ports(&self) -> bool {
        true
    }
    /// Whether the backend sees what an instance prints.
    fn sees_output(&self) -> bool {
        true
    }
    /// Whether instances end when their backend is dropped.
    fn ends_with_its_backend(&self) -> bool {
        true
    }
    /// Whether services have working folders of the machine's.
    fn has_folders(&self) -> bool {
        true
    }
    /// A fresh backend. With `limit_memory` it enforces `resources.memory_bytes`, if it can.
    fn backend(&self, sink: Sink, limit_memory: bool) -> Box<dyn Backend>;
    /// A service that runs the fixture with these flags.
    fn spec(&self, flags: &[&str]) -> ServiceSpec;
    /// Services whose command cannot be run, each with what its failure must mention.
    fn not_runnable(&self) -> Vec<(ServiceSpec, &'static str)>;
    /// A service whose working folder does not exist.
    fn without_folder(&self) -> ServiceSpec;
    /// The living processes whose arguments hold this tag.
    fn processes(&self, tag: &str) -> Vec<u32>;
}

pub(crate) struct Bench<'a> {
    pub(crate) world: &'a dyn World,
    pub(crate) backend: Option<Box<dyn Backend>>,
    pub(crate) tag: String,
    events: Receiver<Event>,
    /// Events of other instances than the one that was asked for.
    aside: Mutex<Vec<Event>>,
    /// Usage, traffic and progress, which may come at any time.
    remarks: Mutex<Vec<Event>>,
    next: AtomicU64,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(world: &'a dyn World, case: &str) -> Self {
        Self::with(world, case, false)
    }

    pub(crate) fn with(world: &'a dyn World, case: &str, limit_memory: bool) -> Self {
        static CASES: AtomicU64 = AtomicU64::new(0);
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        let (sender, events) = mpsc::channel();
        // The channel's end of a case may go before its backend does.
        let sink: Sink = Arc::new(move |event| drop(sender.send(event)));
        Self {
            world,
            backend: Some(world.backend(sink, limit_memory)),
            tag: format!("{case}-{}-{number}", std::process::id()),
            events,
            aside: Mutex::default(),
            remarks: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.backend.as_deref().unwrap()
    }

    /// The fixture with these flags and this bench's tag.
    pub(crate) fn spec(&self, flags: &[&str]) -> ServiceSpec {
        self.world.spec(&[flags, &["--tag", &self.tag]].concat())
    }

    pub(crate) fn start(&self, spec: ServiceSpec) -> InstanceId {
        let instance = InstanceId(self.next.fetch_add(1, Ordering::Relaxed));
        self.backend()
            .start(StartOrder { instance, generation: Generation(1), spec: Arc::new(spec) })
            .unwrap();
        instance
    }

    pub(crate) fn stop(&self, instance: InstanceId, grace: Span) {
        self.backend().stop(StopOrder { instance, generation: Generation(1), grace }).unwrap();
    }

    /// Starts the fixture and waits until it is ready.
    pub(crate) fn ready(&self, flags: &[&str]) -> (InstanceId, SocketAddr) {
        let instance = self.start(self.spec(flags));
        match self.next(instance) {
            Event::Ready { address, .. } => (instance, address),
            other => panic!("{other:?} instead of Ready"),
        }
    }

    /// Starts a service that must fail, checks that it says all of this and that nothing is left, and returns what
    /// it says.
    pub(crate) fn fails(&self, spec: ServiceSpec, mentions: &[&str]) -> String {
        let instance = self.start(spec);
        match self.next(instance) {
            Event::StartFailed { why, .. } => self.checked(why, mentions),
            other => panic!("{other:?} instead of StartFailed"),
        }
    }

    pub(crate) fn dies(&self, instance: InstanceId, mentions: &[&str]) -> String {
        match self.next(instance) {
            Event::Died { why, .. } => self.checked(why, mentions),
            other => panic!("{other:?} instead of Died"),
        }
    }

    pub(crate) fn stopped(&self, instance: InstanceId) {
        match self.next(instance) {
            Event::Stopped { .. } => {}
            other => panic!("{other:?} instead of Stopped"),
        }
    }

    fn checked(&self, why: String, mentions: &[&str]) -> String {
        self.nothing_left();
        assert!(!why.contains('\n'), "more than one line: {why}");
        for mention in mentions {
            assert!(why.contains(mention), "`{mention}` is not in `{why}`");
        }
        why
    }

    /// The next event of an instance but its usage, traffic and progress.
    pub(crate) fn next(&self, instance: InstanceId) -> Event {
        self.next_within(instance, PATIENCE)
    }

    /// The same, with this much patience.
    pub(crate) fn next_within(&self, instance: InstanceId, within: Duration) -> Event {
        let until = Instant::now() + within;
        loop {
            let mut aside = self.aside.lock().unwrap();
            if let Some(at) = aside.iter().position(|event| instance_of(event) == Some(instance)) {
                return aside.remove(at);
            }
            drop(aside);
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) if is_remark(&event) => self.remarks.lock().unwrap().push(event),
                Ok(event) => self.aside.lock().unwrap().push(event),
                Err(error) => panic!("no event of {instance} ({error}); others: {:?}", self.aside),
            }
        }
    }

    /// Memory in bytes and CPU of the next usage event of an instance.
    pub(crate) fn usage(&self, instance: InstanceId) -> (u64, Span) {
        let until = Instant::now() + PATIENCE;
        while let Ok(event) = self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            match event {
                Event::InstanceUsage { instance: of, memory_bytes, cpu } if of == instance => {
                    return (memory_bytes, cpu);
                }
                other if is_remark(&other) => {}
                other => self.aside.lock().unwrap().push(other),
            }
        }
        panic!("no usage of {instance}");
    }

    /// Nothing but usage and the like comes for a while.
    pub(crate) fn silent(&self, wait: Duration) {
        let until = Instant::now() + wait;
        assert!(self.aside.lock().unwrap().is_empty(), "{:?}", self.aside);
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) if is_remark(&event) => {}
                Ok(event) => panic!("{event:?} instead of silence"),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// No waiting here: what was told must be true when it is told.
    pub(crate) fn nothing_left(&self) {
        let left = self.world.processes(&self.tag);
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    /// So many processes live, now or in a moment: one that has just begun has no arguments yet.
    pub(crate) fn has_processes(&self, count: usize) {
        let until = Instant::now() + PATIENCE;
        while self.world.processes(&self.tag).len() != count && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(self.world.processes(&self.tag).len(), count);
    }
}

impl Drop for Bench<'_> {
    /// A case may end with instances that its backend does not end.
    fn drop(&mut self) {
        let Some(backend) = self.backend.take().filter(|_| !self.world.ends_with_its_backend()) else {
            return;
        };
        backend.shutdown(Span::ZERO);
        let until = Instant::now() + PATIENCE;
        while !backend.running().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What is told beside the life of an instance.
fn is_remark(event: &Event) -> bool {
    matches!(event, Event::InstanceUsage { .. } | Event::InstanceTraffic { .. } | Event::Progress { .. })
}

fn instance_of(event: &Event) -> Option<InstanceId> {
    match event {
        Event::Ready { instance, .. }
        | Event::StartFailed { instance, .. }
        | Event::Died { instance, .. }
        | Event::Stopped { instance }
        | Event::InstanceUsage { instance, .. }
        | Event::Paused { instance }
        | Event::Resumed { instance, .. }
        | Event::NotChanged { instance, .. }
        | Event::Specialised { instance, .. }
        | Event::StoppedByHand { instance, .. }
        | Event::Completed { instance }
        | Event::Progress { instance, .. }
        | Event::BusyAnswer { instance, .. }
        | Event::InstanceTraffic { instance, .. } => Some(*instance),
        _ => None,
    }
}

/// The whole answer to a GET, head and body.
pub(crate) fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
