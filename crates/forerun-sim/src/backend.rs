//! A backend and its instances, obedient but for the faults. What is said of an instance is here; what is done to one
//! that is there already is in [`crate::changes`], what a daemon keeps between lives and what people do in
//! [`crate::daemon`].

use crate::faults::{Fault, Faults};
use crate::random::Random;
use forerun_backends::{StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, Launch, ServiceId, ServiceSpec, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// What an instance does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    SayReady,
    Accept,
    Hang,
    Shut,
    /// It ends by itself.
    Die,
    /// It does not start.
    Fail,
    /// It ends as ordered.
    End,
    /// It is frozen, or thawed, as ordered so long ago.
    Freeze,
    Thaw(Span),
    /// It has become its key's.
    Change(Span),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Ending,
}

/// The world's own name of what runs, which no life of the engine changes.
pub(crate) type Pid = u64;

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub spec: Arc<ServiceSpec>,
    /// As it was started: what becomes a key's keeps its limits.
    pub memory_bytes: u64,
    pub phase: Phase,
    pub accepts: bool,
    pub hung: bool,
    pub(crate) obeyed: Generation,
    pub requests: BTreeSet<u32>,
    pub(crate) started_us: u64,
    /// Whose it is in this life of the engine; nobody's until it is adopted.
    pub instance: Option<InstanceId>,
    /// What stands on it: the instance that it was made for.
    pub label: Option<InstanceId>,
    /// It is the user's own, and not made by Forerun.
    pub own: bool,
    /// A person started it.
    pub by_hand: bool,
    pub paused: bool,
    /// The key that it is for, and whether it was generic before.
    pub key: Option<String>,
    pub claimed: bool,
    /// What it is becoming.
    pub(crate) becoming: Option<Arc<ServiceSpec>>,
    /// A request was sent to it.
    pub touched: bool,
    pub ready_at: u64,
}

/// What is to happen: after how long, to whom.
pub(crate) type Due = (Span, Pid, Step);
/// An answer on its way.
pub(crate) type Answer = (Span, Event);

/// Where answers and what follows are put.
#[derive(Debug, Default)]
pub(crate) struct Follows {
    pub due: Vec<Due>,
    pub answers: Vec<Answer>,
    /// What should never have been ordered.
    pub wrong: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub processes: BTreeMap<Pid, Process>,
    pub(crate) by_instance: BTreeMap<InstanceId, Pid>,
    pub(crate) ended: BTreeSet<InstanceId>,
    /// Services whose instances outlive the engine, that it has been told of in this life.
    pub(crate) known: BTreeMap<ServiceId, String>,
    last: Pid,
    pub(crate) draw: Random,
    pub(crate) delays: Random,
}

/// Whether a service's instances outlive the engine.
pub(crate) fn outlives(spec: &ServiceSpec) -> bool {
    matches!(spec.launch, Launch::Container(_))
}

/// The address of what runs, by which it is reached whatever it is called.
pub(crate) fn address(pid: Pid) -> SocketAddr {
    let [.., a, b, c, d] = pid.to_be_bytes();
    ([10, a, b, c], 1_024 + u16::from(d)).into()
}

pub(crate) fn pid_at(address: SocketAddr) -> Pid {
    let SocketAddr::V4(v4) = address else { return 0 };
    let [_, a, b, c] = v4.ip().octets();
    Pid::from_be_bytes([0, 0, 0, 0, a, b, c, (v4.port() - 1_024) as u8])
}

impl Backend {
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            processes: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            ended: BTreeSet::new(),
            known: BTreeMap::new(),
            last: 0,
            draw: Random::of(seed, "starts and stops"),
            delays: Random::of(seed, "backend delays"),
        }
    }

    pub(crate) fn of(&self, instance: InstanceId) -> Option<&Process> {
        self.processes.get(self.by_instance.get(&instance)?)
    }

    pub(crate) fn of_mut(&mut self, instance: InstanceId) -> Option<(Pid, &mut Process)> {
        let pid = *self.by_instance.get(&instance)?;
        Some((pid, self.processes.get_mut(&pid)?))
    }

    /// Sends an answer, as well as the faults let it.
    pub(crate) fn answer(&mut self, event: Event, faults: &mut Faults, answers: &mut Vec<Answer>) {
        let mut after = self.delays.between(50, 2_000);
        // Nothing asks again whether an instance still lives: its end is told.
        let is_end = matches!(event, Event::Died { .. } | Event::StoppedByHand { .. });
        if !is_end && faults.strikes(Fault::AnswersNever) {
            return;
        }
        if faults.strikes(Fault::AnswersLate) {
            after += faults.how(Fault::AnswersLate).between(1_000_000, 25_000_000);
        }
        if faults.strikes(Fault::AnswersOutOfOrder) {
            after += faults.how(Fault::AnswersOutOfOrder).between(10_000, 3_000_000);
        }
        // Said again, it would be what a person did past the engine.
        let is_level = matches!(event, Event::Paused { .. } | Event::Resumed { .. });
        if !is_level && faults.strikes(Fault::AnswersTwice) {
            let again = after + faults.how(Fault::AnswersTwice).between(1_000, 15_000_000);
            answers.push((Span(again), event.clone()));
        }
        answers.push((Span(after), event));
    }

    /// Something new runs.
    pub(crate) fn add(&mut self, process: Process) -> Pid {
        self.last += 1;
        if let Some(instance) = process.instance {
            self.by_instance.insert(instance, self.last);
        }
        self.processes.insert(self.last, process);
        self.last
    }

    /// Takes out what has ended.
    pub(crate) fn remove(&mut self, pid: Pid) -> Option<Process> {
        let process = self.processes.remove(&pid)?;
        if let Some(instance) = process.instance {
            self.by_instance.remove(&instance);
            self.ended.insert(instance);
        }
        Some(process)
    }

    /// The user's own container of a service, if it runs.
    pub(crate) fn own_of(&self, service: ServiceId) -> Option<Pid> {
        self.processes.iter().find(|(_, p)| p.own && p.spec.id == service).map(|(pid, _)| *pid)
    }

    pub(crate) fn start(&mut self, order: &StartOrder, faults: &mut Faults, follows: &mut Follows) {
        let (instance, spec) = (order.instance, Arc::clone(&order.spec));
        if self.by_instance.contains_key(&instance) || self.ended.contains(&instance) {
            return;
        }
        if faults.strikes(Fault::AnswersError) {
            self.ended.insert(instance);
            let why = "cannot start it: no such file".to_owned();
            return self.answer(Event::StartFailed { instance, why }, faults, &mut follows.answers);
        }
        let has_own =
            matches!(&spec.launch, Launch::Container(c) if c.own.is_some()) && spec.variant.is_none();
        let own = self.own_of(spec.id);
        if let Some(pid) = own.filter(|_| has_own)
            && self.takes_over(pid, order, faults, follows)
        {
            return;
        }
        let is_own = has_own && own.is_none();
        let (timeout, takes) = (spec.start_timeout, self.start_takes(&spec, faults));
        let key = spec.variant.as_ref().map(|variant| variant.key.clone());
        let mut process = Process::new(spec, takes);
        (process.instance, process.obeyed) = (Some(instance), order.generation);
        (process.own, process.key) = (is_own, key);
        process.label = (!is_own).then_some(instance);
        let pid = self.add(process);
        if is_own {
            follows.answers.push((Span(10), Event::IsOwn { instance }));
        }
        self.comes_up(pid, timeout, takes, faults, follows);
    }

    pub(crate) fn start_takes(&mut self, spec: &ServiceSpec, faults: &mut Faults) -> u64 {
        let usual = spec.start_estimate.0 * self.draw.between(50, 150) / 100;
        let takes = usual.min(spec.start_timeout.0 * 8 / 10);
        match faults.strikes(Fault::StartsSlowly) {
            true => takes.saturating_mul(faults.how(Fault::StartsSlowly).between(2, 60)),
            false => takes,
        }
    }

    /// What is in store for something that starts.
    pub(crate) fn comes_up(
        &mut self,
        pid: Pid,
        timeout: Span,
        takes: u64,
        faults: &mut Faults,
        follows: &mut Follows,
    ) {
        let due = &mut follows.due;
        if faults.strikes(Fault::DiesStarting) {
            due.push((Span(faults.how(Fault::DiesStarting).below(takes)), pid, Step::Fail));
        } else if takes > timeout.0 {
            due.push((timeout, pid, Step::Fail));
        } else {
            if faults.strikes(Fault::LiesReady) {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.accepts = false;
                }
                let later = faults.how(Fault::LiesReady).between(100_000, 30_000_000);
                due.push((Span(takes + later), pid, Step::Accept));
            }
            due.push((Span(takes), pid, Step::SayReady));
            if faults.strikes(Fault::Dies) {
                let later = faults.how(Fault::Dies).between(0, 300_000_000);
                due.push((Span(takes + later), pid, Step::Die));
            }
            if faults.strikes(Fault::Hangs) {
                let later = faults.how(Fault::Hangs).between(0, 60_000_000);
                due.push((Span(takes + later), pid, Step::Hang));
            }
            if faults.strikes(Fault::Shuts) {
                let later = faults.how(Fault::Shuts).between(0, 120_000_000);
                due.push((Span(takes + later), pid, Step::Shut));
            }
        }
    }

    pub(crate) fn stop(&mut self, order: &StopOrder, faults: &mut Faults, follows: &mut Follows) {
        let instance = order.instance;
        let takes = self.draw.between(1_000, 400_000);
        let Some((pid, process)) = self.of_mut(instance) else {
            // What it never had, or has ended: the answer may have been lost, so it is given again.
            self.ended.insert(instance);
            return self.answer(Event::Stopped { instance }, faults, &mut follows.answers);
        };
        if order.generation < process.obeyed {
            return;
        }
        process.obeyed = order.generation;
        if process.phase != Phase::Ending {
            process.phase = Phase::Ending;
            let hurried = if process.hung { order.grace.0 } else { takes.min(order.grace.0) };
            follows.due.push((Span(hurried), pid, Step::End));
        }
    }

    /// Does a step; the requests that were at an instance that has gone come back.
    pub(crate) fn step(
        &mut self,
        now_us: u64,
        pid: Pid,
        step: Step,
        faults: &mut Faults,
        follows: &mut Follows,
    ) -> BTreeSet<u32> {
        let Some(process) = self.processes.get_mut(&pid) else { return BTreeSet::new() };
        let phase = process.phase;
        match step {
            Step::Accept => process.accepts = true,
            Step::Hang if phase == Phase::Ready => process.hung = true,
            Step::Shut if phase == Phase::Ready => process.accepts = false,
            Step::SayReady if phase == Phase::Starting => {
                (process.phase, process.ready_at) = (Phase::Ready, now_us);
                let (took, address) = (Span(process.started_us), address(pid));
                match process.instance {
                    Some(instance) => {
                        let ready = Event::Ready { instance, address, took };
                        self.answer(ready, faults, &mut follows.answers);
                    }
                    None => self.tell_found(pid, faults, &mut follows.answers),
                }
            }
            Step::Die | Step::Fail | Step::End => return self.ends(pid, step, faults, follows),
            Step::Freeze | Step::Thaw(_) | Step::Change(_) => self.changes(pid, step, faults, follows),
            Step::Hang | Step::Shut | Step::SayReady => {}
        }
        BTreeSet::new()
    }

    fn ends(&mut self, pid: Pid, step: Step, faults: &mut Faults, follows: &mut Follows) -> BTreeSet<u32> {
        let Some(process) = self.processes.get(&pid) else { return BTreeSet::new() };
        let phase = process.phase;
        if step == Step::End && phase != Phase::Ending {
            return BTreeSet::new();
        }
        let Some(process) = self.remove(pid) else { return BTreeSet::new() };
        if let Some(instance) = process.instance {
            let event = match phase {
                Phase::Ending => Event::Stopped { instance },
                Phase::Starting => {
                    Event::StartFailed { instance, why: "ended before it was ready".to_owned() }
                }
                Phase::Ready => Event::Died { instance, why: "killed by SIGKILL".to_owned() },
            };
            self.answer(event, faults, &mut follows.answers);
        }
        process.requests
    }
}

impl Process {
    pub(crate) fn new(spec: Arc<ServiceSpec>, started_us: u64) -> Self {
        Self {
            memory_bytes: spec.resources.memory_bytes,
            spec,
            phase: Phase::Starting,
            accepts: true,
            hung: false,
            obeyed: Generation(0),
            requests: BTreeSet::new(),
            started_us,
            instance: None,
            label: None,
            own: false,
            by_hand: false,
            paused: false,
            key: None,
            claimed: false,
            becoming: None,
            touched: false,
            ready_at: 0,
        }
    }
}
