//! A backend and its instances, obedient but for the faults.

use crate::faults::{Fault, Faults};
use crate::random::Random;
use forerun_backends::{StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, ServiceSpec, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an instance does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    SayReady,
    Accept,
    Hang,
    /// It ends by itself.
    Die,
    /// It does not start.
    Fail,
    /// It ends as ordered.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Ending,
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub spec: Arc<ServiceSpec>,
    pub phase: Phase,
    pub accepts: bool,
    pub hung: bool,
    obeyed: Generation,
    pub requests: BTreeSet<u32>,
    started_us: u64,
}

/// What is to happen: after how long, to whom.
pub(crate) type Due = (Span, InstanceId, Step);
/// An answer on its way.
pub(crate) type Answer = (Span, Event);

#[derive(Debug)]
pub(crate) struct Backend {
    pub processes: BTreeMap<InstanceId, Process>,
    ended: BTreeSet<InstanceId>,
    draw: Random,
    delays: Random,
}

impl Backend {
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            processes: BTreeMap::new(),
            ended: BTreeSet::new(),
            draw: Random::of(seed, "starts and stops"),
            delays: Random::of(seed, "backend delays"),
        }
    }

    /// A new life: whatever ran is gone with the old one.
    pub(crate) fn began(&mut self) {
        self.processes.clear();
        self.ended.clear();
    }

    /// Sends an answer, as well as the faults let it.
    pub(crate) fn answer(&mut self, event: Event, faults: &mut Faults, answers: &mut Vec<Answer>) {
        let mut after = self.delays.between(50, 2_000);
        // Nothing asks again whether an instance still lives: its death is told.
        if !matches!(event, Event::Died { .. }) && faults.strikes(Fault::AnswersNever) {
            return;
        }
        if faults.strikes(Fault::AnswersLate) {
            after += faults.how(Fault::AnswersLate).between(1_000_000, 25_000_000);
        }
        if faults.strikes(Fault::AnswersOutOfOrder) {
            after += faults.how(Fault::AnswersOutOfOrder).between(10_000, 3_000_000);
        }
        if faults.strikes(Fault::AnswersTwice) {
            let again = after + faults.how(Fault::AnswersTwice).between(1_000, 15_000_000);
            answers.push((Span(again), event.clone()));
        }
        answers.push((Span(after), event));
    }

    pub(crate) fn start(
        &mut self,
        order: &StartOrder,
        faults: &mut Faults,
        due: &mut Vec<Due>,
        answers: &mut Vec<Answer>,
    ) {
        let (instance, spec) = (order.instance, Arc::clone(&order.spec));
        if self.processes.contains_key(&instance) || self.ended.contains(&instance) {
            return;
        }
        if faults.strikes(Fault::AnswersError) {
            self.ended.insert(instance);
            let why = "cannot start it: no such file".to_owned();
            return self.answer(Event::StartFailed { instance, why }, faults, answers);
        }
        let timeout = spec.start_timeout;
        let usual = spec.start_estimate.0 * self.draw.between(50, 150) / 100;
        let mut takes = usual.min(timeout.0 * 8 / 10);
        if faults.strikes(Fault::StartsSlowly) {
            takes = takes.saturating_mul(faults.how(Fault::StartsSlowly).between(2, 60));
        }
        let mut process = Process {
            spec,
            phase: Phase::Starting,
            accepts: true,
            hung: false,
            obeyed: order.generation,
            requests: BTreeSet::new(),
            started_us: takes,
        };
        if faults.strikes(Fault::DiesStarting) {
            due.push((Span(faults.how(Fault::DiesStarting).below(takes)), instance, Step::Fail));
        } else if takes > timeout.0 {
            due.push((timeout, instance, Step::Fail));
        } else {
            if faults.strikes(Fault::LiesReady) {
                process.accepts = false;
                let later = faults.how(Fault::LiesReady).between(100_000, 30_000_000);
                due.push((Span(takes + later), instance, Step::Accept));
            }
            due.push((Span(takes), instance, Step::SayReady));
            if faults.strikes(Fault::Dies) {
                let later = faults.how(Fault::Dies).between(0, 300_000_000);
                due.push((Span(takes + later), instance, Step::Die));
            }
            if faults.strikes(Fault::Hangs) {
                let later = faults.how(Fault::Hangs).between(0, 60_000_000);
                due.push((Span(takes + later), instance, Step::Hang));
            }
        }
        self.processes.insert(instance, process);
    }

    pub(crate) fn stop(
        &mut self,
        order: &StopOrder,
        faults: &mut Faults,
        due: &mut Vec<Due>,
        answers: &mut Vec<Answer>,
    ) {
        let instance = order.instance;
        let Some(process) = self.processes.get_mut(&instance) else {
            // What it never had, or has ended: the answer may have been lost, so it is given again.
            self.ended.insert(instance);
            return self.answer(Event::Stopped { instance }, faults, answers);
        };
        if order.generation < process.obeyed {
            return;
        }
        process.obeyed = order.generation;
        if process.phase != Phase::Ending {
            process.phase = Phase::Ending;
            let takes = self.draw.between(1_000, 400_000);
            let hurried = if process.hung { order.grace.0 } else { takes.min(order.grace.0) };
            due.push((Span(hurried), instance, Step::End));
        }
    }

    /// Does a step; the requests that were at an instance that has gone come back, and who owned it.
    pub(crate) fn step(
        &mut self,
        instance: InstanceId,
        step: Step,
        faults: &mut Faults,
        answers: &mut Vec<Answer>,
    ) -> BTreeSet<u32> {
        let Some(process) = self.processes.get_mut(&instance) else { return BTreeSet::new() };
        let phase = process.phase;
        match step {
            Step::Accept => process.accepts = true,
            Step::Hang if phase == Phase::Ready => process.hung = true,
            Step::SayReady if phase == Phase::Starting => {
                process.phase = Phase::Ready;
                let took = Span(process.started_us);
                let address = ([127, 0, 0, 1], 9_000).into();
                self.answer(Event::Ready { instance, address, took }, faults, answers);
            }
            Step::Die | Step::Fail | Step::End => {
                let event = match (step, phase) {
                    (Step::End, Phase::Ending) | (Step::Die | Step::Fail, Phase::Ending) => {
                        Event::Stopped { instance }
                    }
                    (Step::Fail | Step::Die, Phase::Starting) => {
                        Event::StartFailed { instance, why: "ended before it was ready".to_owned() }
                    }
                    (Step::Die | Step::Fail, Phase::Ready) => {
                        Event::Died { instance, why: "killed by SIGKILL".to_owned() }
                    }
                    (_, Phase::Starting | Phase::Ready) => return BTreeSet::new(),
                    _ => return BTreeSet::new(),
                };
                let gone = self.processes.remove(&instance).map(|p| p.requests).unwrap_or_default();
                self.ended.insert(instance);
                self.answer(event, faults, answers);
                return gone;
            }
            Step::Hang | Step::SayReady => {}
        }
        BTreeSet::new()
    }
}
