//! The event loop that follows every instance from its order to its end.

mod changes;
mod counts;
mod looks;

use super::census::Count;
use super::files::Files;
use super::ports::{Fixed, Ports};
use super::procfs::Session;
use super::run::{Outcome, Phase, Run, Sweep, after};
use super::spawn::{Job, Process};
use super::{ProcessSettings, why};
use crate::Sink;
use crate::errands::Errands;
use crate::hooks::BusyFound;
use crate::ledger::Ledger;
use crate::output::Tail;
use forerun_types::{Event, InstanceId, ServiceSpec, Span};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes of output taken at a time from one instance: a chatty one must not keep the loop from the others.
const READ_BYTES: usize = 64 << 10;
/// Reads of what a dead instance's pipe still holds: 64 KiB by default, 1 MiB at most.
const LAST_READS_MAX: usize = 16;
/// The timer and the event-queue token that belong to no run.
const NO_RUN: u64 = 0;
const NOT_THERE: &str = "there is no such instance";

/// What reaches the loop from other threads.
#[derive(Debug)]
pub(super) enum Message {
    Start {
        instance: InstanceId,
        spec: Arc<ServiceSpec>,
        ordered: Instant,
    },
    Refuse {
        instance: InstanceId,
        why: String,
    },
    Stop {
        instance: InstanceId,
        grace: Duration,
    },
    NeverWas {
        instance: InstanceId,
    },
    ShutDown {
        grace: Duration,
    },
    Close {
        until: Instant,
    },
    Pause {
        instance: InstanceId,
    },
    Resume {
        instance: InstanceId,
        ordered: Instant,
    },
    Specialise {
        instance: InstanceId,
        spec: Arc<ServiceSpec>,
        ordered: Instant,
    },
    AskBusy {
        instance: InstanceId,
        spec: Arc<ServiceSpec>,
    },
    /// There is no instance to pause, resume or specialise.
    NotThere {
        instance: InstanceId,
    },
    Spawned {
        serial: u64,
        result: Result<Process, String>,
    },
    Done {
        serial: u64,
        errand: Done,
    },
    Counted {
        number: u64,
        sessions: HashMap<i32, Session>,
    },
}

/// What an errand for an instance came to.
#[derive(Debug)]
pub(super) enum Done {
    /// With what went wrong, which does not keep it from being ready.
    Preloaded(Vec<String>),
    Paused(Result<(), String>),
    Resumed(Result<Span, String>),
    Specialised(Result<Span, String>),
    Busy(BusyFound),
}

/// Puts messages into the loop. Bounded by the ledger: an instance has one start, one stop and one answer of the
/// spawner on their way at most.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    sender: Sender<Message>,
    wake: Arc<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Inbox {
    receiver: Receiver<Message>,
    wake: Arc<OwnedFd>,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<(Self, Inbox)> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = mpsc::channel();
        Ok((Self { sender, wake: Arc::clone(&wake) }, Inbox { receiver, wake }))
    }

    /// False if the loop has ended.
    pub(super) fn send(&self, message: Message) -> bool {
        let sent = self.sender.send(message).is_ok();
        // It fails only when the counter is full, and then the loop wakes anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        sent
    }
}

/// What an event of the queue is about: in the token, beside the run's serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Wake,
    Exit,
    Output,
    Probe,
}

impl Source {
    fn token(self, serial: u64) -> EventData {
        EventData::new_u64(serial << 2 | self as u64)
    }

    fn of(token: EventData) -> (Self, u64) {
        let source = [Self::Wake, Self::Exit, Self::Output, Self::Probe][(token.u64() & 3) as usize];
        (source, token.u64() >> 2)
    }
}

/// What the loop is connected to.
pub(super) struct Wiring {
    pub(super) settings: ProcessSettings,
    pub(super) sink: Sink,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) inbox: Inbox,
    /// For what errands come to.
    pub(super) mailbox: Mailbox,
    pub(super) jobs: Sender<Job>,
    pub(super) counts: Sender<Count>,
    pub(super) errands: Errands,
    pub(super) files: Arc<Files>,
}

pub(super) struct Keeper {
    wiring: Wiring,
    ports: Ports,
    queue: OwnedFd,
    runs: HashMap<u64, Run>,
    serials: HashMap<InstanceId, u64>,
    last_serial: u64,
    /// How many runs are in `Phase::Starting`.
    starting: usize,
    timers: BTreeSet<(Instant, u64)>,
    /// The next regular count, while anything runs.
    tick: Option<Instant>,
    /// The count that is under way, and whether another must follow it.
    counting: Option<u64>,
    count_again: bool,
    last_count: u64,
    close: Option<Instant>,
    buffer: Vec<u8>,
}

impl Keeper {
    pub(super) fn new(wiring: Wiring, ports: Ports) -> io::Result<Self> {
        let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&queue, &wiring.inbox.wake, Source::Wake.token(NO_RUN), EventFlags::IN)?;
        Ok(Self {
            wiring,
            ports,
            queue,
            runs: HashMap::new(),
            serials: HashMap::new(),
            last_serial: NO_RUN,
            starting: 0,
            timers: BTreeSet::new(),
            tick: None,
            counting: None,
            count_again: false,
            last_count: 0,
            close: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Runs until it is told to close and nothing is left, or the time for that is over.
    pub(super) fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
        loop {
            events.clear();
            let timeout = self.timeout(Instant::now());
            match epoll::wait(&self.queue, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "the process backend's event queue failed");
                    return;
                }
            }
            for event in &events {
                match Source::of(event.data) {
                    (Source::Wake, _) => {
                        let _ = rustix::io::read(&self.wiring.inbox.wake, &mut [0; 8]);
                    }
                    (Source::Exit, serial) => self.on_exit(serial),
                    (Source::Output, serial) => {
                        self.on_output(serial);
                    }
                    (Source::Probe, serial) => self.on_probe(serial),
                }
            }
            while let Ok(message) = self.wiring.inbox.receiver.try_recv() {
                self.on_message(message);
            }
            self.on_time(Instant::now());
            if self.close.is_some_and(|until| self.runs.is_empty() || Instant::now() >= until) {
                return;
            }
        }
    }

    fn timeout(&self, now: Instant) -> Timespec {
        // An hour, where nothing is due: the wait wants a number.
        let next = self.timers.first().map_or(Duration::from_secs(3600), |(due, _)| due.duration_since(now));
        let next = self.close.map_or(next, |until| next.min(until.duration_since(now)));
        Timespec { tv_sec: next.as_secs().try_into().unwrap_or(3600), tv_nsec: next.subsec_nanos().into() }
    }

    fn on_message(&mut self, message: Message) {
        let now = Instant::now();
        match message {
            Message::Start { instance, spec, ordered } => self.begin(instance, spec, ordered, 1),
            Message::Refuse { instance, why } => (self.wiring.sink)(Event::StartFailed { instance, why }),
            Message::NeverWas { instance } => (self.wiring.sink)(Event::Stopped { instance }),
            Message::Stop { instance, grace } => {
                if let Some(serial) = self.serials.get(&instance) {
                    self.stop(*serial, grace, now);
                }
            }
            Message::ShutDown { grace } => {
                let serials: Vec<u64> = self.runs.keys().copied().collect();
                serials.into_iter().for_each(|serial| self.stop(serial, grace, now));
            }
            Message::Pause { instance } => self.pause(instance),
            Message::Resume { instance, ordered } => self.resume(instance, ordered),
            Message::Specialise { instance, spec, ordered } => self.specialise(instance, spec, ordered),
            Message::AskBusy { instance, spec } => self.ask_busy(instance, spec),
            Message::NotThere { instance } => self.not_changed(instance, NOT_THERE.to_owned()),
            Message::Done { serial, errand } => self.on_done(serial, errand, now),
            Message::Close { until } => self.close = Some(until),
            Message::Spawned { serial, result } => self.on_spawned(serial, result, now),
            Message::Counted { number, sessions } => self.on_counted(number, &sessions, now),
        }
    }

    fn begin(&mut self, instance: InstanceId, spec: Arc<ServiceSpec>, ordered: Instant, attempt: u32) {
        let (port, queued) = match self.port_for(&spec) {
            Ok(port) => port,
            Err(why) => return self.tell(instance, Outcome::StartFailed(why)),
        };
        self.last_serial += 1;
        let serial = self.last_serial;
        let run = Run {
            instance,
            spec: Arc::clone(&spec),
            ordered,
            attempt,
            port,
            queued,
            phase: Phase::Spawning { stop: None },
            process: None,
            tail: Tail::default(),
            timer: None,
            usage_due: ordered,
            cpu: Span::ZERO,
            cpu_seen: VecDeque::new(),
            paused: false,
            changing: false,
        };
        self.runs.insert(serial, run);
        self.serials.insert(instance, serial);
        if queued {
            return self.reschedule(serial);
        }
        if self.wiring.jobs.send(Job::Spawn { serial, instance, spec, port }).is_err() {
            self.finish(serial, Outcome::StartFailed("the spawning thread has ended".to_owned()));
        }
    }

    /// A port, and whether another instance must give it back first.
    fn port_for(&mut self, spec: &ServiceSpec) -> Result<(u16, bool), String> {
        let Some(port) = spec.port else {
            let why = "no free port was found for it; give the process backend a wider range";
            return self.ports.take().map(|port| (port, false)).ok_or_else(|| why.to_owned());
        };
        match self.ports.take_fixed(port) {
            Fixed::Taken => Ok((port, false)),
            Fixed::Ours => Ok((port, true)),
            Fixed::Foreign => Err(format!(
                "its port {port} is taken by another program; stop that, or give the service another `port`"
            )),
        }
    }

    fn on_spawned(&mut self, serial: u64, result: Result<Process, String>, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let stop = if let Phase::Spawning { stop } = run.phase { stop } else { None };
        let process = match result {
            Ok(process) => process,
            Err(why) => {
                return self.finish(serial, stop.map_or(Outcome::StartFailed(why), |_| Outcome::Stopped));
            }
        };
        let watched = epoll::add(&self.queue, &process.pidfd, Source::Exit.token(serial), EventFlags::IN);
        let watched = watched.and_then(|()| match &process.output {
            Some(output) => epoll::add(&self.queue, output, Source::Output.token(serial), EventFlags::IN),
            None => Ok(()),
        });
        run.process = Some(process);
        self.enter(serial, Phase::Starting { probe: None, probes: 0, look_at: now });
        if self.tick.is_none() {
            self.set_tick(now);
        }
        match (watched, stop) {
            (Err(error), _) => self.end_unwatched(serial, format!("cannot watch the process: {error}"), now),
            (Ok(()), Some(grace)) => self.end(serial, Outcome::Stopped, grace, now),
            (Ok(()), None) => self.look(serial, now),
        }
    }

    /// Without its events an end would never be seen, so this waits for it: a killed process is gone at once.
    fn end_unwatched(&mut self, serial: u64, why: String, now: Instant) {
        self.end(serial, Outcome::StartFailed(why), Duration::ZERO, now);
        let Some(run) = self.runs.get_mut(&serial) else { return };
        if let Some(process) = &mut run.process {
            let _ = process.child.wait();
        }
        if let Phase::Ending { sweep, .. } = &mut run.phase {
            *sweep = Some(Sweep::now(now));
        }
        self.reschedule(serial);
    }

    fn stop(&mut self, serial: u64, grace: Duration, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        match &mut run.phase {
            Phase::Spawning { .. } if run.queued => self.finish(serial, Outcome::Stopped),
            Phase::Spawning { stop } => *stop = Some(stop.map_or(grace, |earlier| earlier.min(grace))),
            Phase::Starting { .. } | Phase::Warming { .. } | Phase::Ready { .. } => {
                self.end(serial, Outcome::Stopped, grace, now)
            }
            Phase::Ending { outcome, kill_at, .. } => {
                if *outcome == Outcome::Retry {
                    *outcome = Outcome::Stopped;
                }
                // A later stop may only hasten.
                if let Some(at) = kill_at {
                    *at = (*at).min(after(now, grace));
                }
                self.reschedule(serial);
            }
        }
    }

    /// Asks a session to end, or without grace kills it; what follows comes with its first process's exit.
    fn end(&mut self, serial: u64, outcome: Outcome, grace: Duration, now: Instant) {
        let Some(run) = self.runs.get(&serial) else { return };
        let Some(process) = &run.process else { return };
        let kill_at = if grace.is_zero() {
            process.kill();
            None
        } else {
            process.signal(Signal::TERM);
            // A process that stands still must wake to hear it.
            super::freeze::wake(process);
            Some(after(now, grace))
        };
        self.enter(serial, Phase::Ending { outcome, kill_at, sweep: None });
    }

    /// The first process of a session has ended.
    fn on_exit(&mut self, serial: u64) {
        let now = Instant::now();
        self.take_last_output(serial);
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let Some(process) = &mut run.process else { return };
        let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if !matches!(waitid(WaitId::Pid(process.pid), peek), Ok(Some(_))) {
            return;
        }
        let patient = matches!(run.phase, Phase::Ending { kill_at: Some(_), .. });
        if !patient {
            // Before it is reaped, while its number cannot be another's.
            process.kill();
        }
        let _ = epoll::delete(&self.queue, &process.pidfd);
        let why = match process.child.wait() {
            Ok(status) => why::ended(status, &run.tail),
            Err(error) => format!("ended, and its status could not be read: {error}"),
        };
        let gone = Some(Sweep::now(now));
        if let Phase::Ending { sweep, .. } = &mut run.phase {
            *sweep = gone;
            return self.reschedule(serial);
        }
        let outcome = match run.over_limit() {
            Some(what) => run.faulted(why::with_lines(what, &run.tail)),
            None => run.ended(why, self.wiring.settings.port_attempts),
        };
        self.enter(serial, Phase::Ending { outcome, kill_at: None, sweep: gone });
    }

    fn take_last_output(&mut self, serial: u64) {
        for _ in 0..LAST_READS_MAX {
            if !self.on_output(serial) {
                return;
            }
        }
    }

    /// Takes what there is of an instance's output, up to a bound. Returns whether there was any.
    fn on_output(&mut self, serial: u64) -> bool {
        let Some(run) = self.runs.get_mut(&serial) else { return false };
        let Some(output) = run.process.as_ref().and_then(|process| process.output.as_ref()) else {
            return false;
        };
        let len = match rustix::io::read(output, &mut self.buffer[..]) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Err(_) => 0,
        };
        if len == 0 {
            let _ = epoll::delete(&self.queue, output);
            if let Some(process) = &mut run.process {
                process.output = None;
            }
            return false;
        }
        if run.heard(&self.buffer[..len]) {
            let port = run.port;
            self.ready(serial, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        true
    }
}
