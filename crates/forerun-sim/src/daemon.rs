//! What a daemon keeps while the engine is away, what it tells when it is asked again, and what people do to it.

use crate::backend::{Backend, Follows, Phase, Pid, Process, Step, address, outlives};
use crate::faults::{Fault, Faults};
use crate::world::{What, World};
use forerun_types::{Event, Mode, ServiceId, ServiceSpec, Span};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What stays without its service so long is removed, as far as Forerun made it.
const LEFT_OVER: Span = Span::from_secs(60);
/// How often what is up tells of its use of memory and CPU.
pub(crate) const USAGE_EVERY: Span = Span::from_secs(45);

impl Backend {
    /// The engine's process ends: its children end with it, and the daemon knows no instance any more.
    pub(crate) fn life_ends(&mut self) -> Vec<(Pid, Vec<u32>)> {
        let gone: Vec<Pid> =
            self.processes.iter().filter(|(_, p)| !outlives(&p.spec)).map(|(pid, _)| *pid).collect();
        let gone = gone.into_iter().filter_map(|pid| Some((pid, self.remove(pid)?)));
        let gone: Vec<_> = gone.map(|(pid, p)| (pid, p.requests.into_iter().collect())).collect();
        self.processes.values_mut().for_each(|p| p.instance = None);
        self.by_instance.clear();
        self.ended.clear();
        self.known.clear();
        gone
    }

    /// Something runs that no order of this life made.
    pub(crate) fn tell_found(&mut self, pid: Pid, faults: &mut Faults, out: &mut Vec<(Span, Event)>) {
        let Some(found) = self.found(pid) else { return };
        let after = Span(self.delays.between(50, 2_000));
        if faults.strikes(Fault::FoundTwice) {
            let again = Span(after.0 + faults.how(Fault::FoundTwice).between(1_000, 20_000_000));
            out.push((again, found.clone()));
        }
        out.push((after, found));
    }

    fn found(&self, pid: Pid) -> Option<Event> {
        let process = self.processes.get(&pid)?;
        // What is becoming a key's is nobody's any more.
        let is_free = process.instance.is_none() && process.phase == Phase::Ready && !process.claimed;
        let service = *self.known.iter().find(|(_, name)| **name == process.spec.name)?.0;
        is_free.then(|| Event::Found {
            service,
            handle: format!("c{pid}"),
            was: process.label,
            address: address(pid),
            paused: process.paused,
        })
    }

    /// All that the daemon has of a service, and then that this was all. The answers keep their order.
    pub(crate) fn list(&mut self, service: ServiceId, faults: &mut Faults) -> Vec<(Span, Event)> {
        let Some(name) = self.known.get(&service) else { return Vec::new() };
        let of = |p: &Process| p.spec.name == *name;
        let pids: Vec<Pid> = self.processes.iter().filter(|(_, p)| of(p)).map(|(pid, _)| *pid).collect();
        let mut out = Vec::new();
        for pid in pids {
            self.tell_found(pid, faults, &mut out);
        }
        let last = out.iter().map(|(after, _)| after.0).filter(|after| *after <= 2_000).max().unwrap_or(100);
        out.push((Span(last + 1), Event::OwnState { service, there: true }));
        out
    }
}

impl World {
    /// The daemon hears which services there are; of those that are new to it, it tells what it has.
    pub(crate) fn knows(&mut self, services: &[(ServiceId, String)]) {
        let before = std::mem::take(&mut self.backend.known);
        let life = self.life;
        for (service, name) in services {
            self.backend.known.insert(*service, name.clone());
            if !before.contains_key(service) {
                let after = match self.faults.strikes(Fault::DaemonAway) {
                    true => self.faults.how(Fault::DaemonAway).between(1_000_000, 60_000_000),
                    false => self.delays.between(2_000, 400_000),
                };
                self.after(Span(after), What::List(life, *service));
            }
        }
    }

    pub(crate) fn list(&mut self, life: u32, service: ServiceId) {
        if life != self.life || self.engine.is_none() {
            return;
        }
        let answers = self.backend.list(service, &mut self.faults);
        self.story
            .line(self.now, || format!("the daemon tells what it has of {service}: {}", answers.len() - 1));
        self.schedule(Follows { answers, ..Follows::default() });
        self.after(LEFT_OVER, What::LeftOver(life));
    }

    /// What Forerun made, and nothing that it knows of, goes.
    pub(crate) fn left_over(&mut self, life: u32) {
        if life != self.life || self.engine.is_none() || self.closing {
            return;
        }
        let known: Vec<&String> = self.backend.known.values().collect();
        let lost = |p: &Process| {
            let made = p.label.is_some() && p.instance.is_none() && p.phase == Phase::Ready;
            made && (p.claimed || !known.contains(&&p.spec.name))
        };
        let lost: Vec<Pid> = self.backend.processes.iter().filter(|p| lost(p.1)).map(|p| *p.0).collect();
        for pid in lost {
            self.process(pid, Step::Die);
        }
    }

    /// What is up tells what it uses; much of what is idle keeps some CPU busy.
    pub(crate) fn tell_usage(&mut self) {
        let now_us = self.now.0;
        let mut told = Vec::new();
        for p in self.backend.processes.values() {
            let Some(instance) = p.instance.filter(|_| p.spec.pausable && p.phase == Phase::Ready) else {
                continue;
            };
            let cpu = Span(now_us.saturating_sub(p.ready_at));
            told.push(Event::InstanceUsage { instance, memory_bytes: p.spec.resources.memory_bytes, cpu });
        }
        for event in told {
            self.tell(&event);
        }
        if self.now < crate::world::BEGAN + self.setting.lasts {
            self.after(USAGE_EVERY, What::Usage);
        }
    }

    /// A person does something past Forerun, or says how far it may go.
    pub(crate) fn hand(&mut self) {
        let services: Vec<Arc<ServiceSpec>> =
            self.setting.services.iter().filter(|s| outlives(s)).cloned().collect();
        if self.hands.below(3) == 0 {
            let at = self.hands.below(self.setting.services.len() as u64) as usize;
            let mode = [None, Some(Mode::Act), Some(Mode::Observe)][self.hands.below(3) as usize];
            let service = self.setting.services[at].id;
            // Of what is gone nobody can say anything: the API knows no such service.
            if self.table.service(service).is_some() {
                self.tell(&Event::ModeTold { service, mode });
            }
            return;
        }
        if services.is_empty() {
            return;
        }
        let spec = Arc::clone(&services[self.hands.below(services.len() as u64) as usize]);
        match self.hands.below(4) {
            0 | 1 => self.start_by_hand(&spec),
            2 => self.stop_by_hand(&spec),
            _ => self.freeze_by_hand(&spec),
        }
    }

    /// `docker start` of the user's own container.
    fn start_by_hand(&mut self, spec: &Arc<ServiceSpec>) {
        if self.backend.own_of(spec.id).is_some() {
            return;
        }
        self.story.line(self.now, || format!("a person starts {}'s own container", spec.name));
        let mut follows = Follows::default();
        let takes = self.backend.start_takes(spec, &mut self.faults);
        let mut process = Process::new(Arc::clone(spec), takes);
        (process.own, process.by_hand) = (true, true);
        let pid = self.backend.add(process);
        self.backend.comes_up(pid, Span(u64::MAX >> 1), takes, &mut self.faults, &mut follows);
        self.schedule(follows);
    }

    /// Something of a service that is up, by a draw.
    fn any_of(&mut self, service: ServiceId) -> Option<Pid> {
        let of = |p: &Process| {
            let elder = p.spec.variant.as_ref().map_or(p.spec.id, |variant| variant.of);
            elder == service && p.phase == Phase::Ready && p.becoming.is_none()
        };
        let up: Vec<Pid> = self.backend.processes.iter().filter(|p| of(p.1)).map(|p| *p.0).collect();
        up.get(self.hands.below(up.len() as u64) as usize).copied()
    }

    fn stop_by_hand(&mut self, spec: &Arc<ServiceSpec>) {
        if let Some(pid) = self.any_of(spec.id) {
            self.taken_down(pid);
        }
    }

    fn taken_down(&mut self, pid: Pid) {
        let Some(process) = self.backend.remove(pid) else { return };
        self.story.line(self.now, || format!("a person stops c{pid} of {}", process.spec.name));
        let mut follows = Follows::default();
        if let Some(instance) = process.instance {
            let why = "stopped by hand".to_owned();
            let event = Event::StoppedByHand { instance, why };
            self.backend.answer(event, &mut self.faults, &mut follows.answers);
        }
        for request in process.requests {
            self.reset(request, pid);
        }
        self.schedule(follows);
    }

    /// `docker pause`, or `unpause` where it is frozen.
    fn freeze_by_hand(&mut self, spec: &Arc<ServiceSpec>) {
        let Some(pid) = self.any_of(spec.id) else { return };
        // What happens before a daemon has told that it is ready it tells after that.
        let is_told = |instance| self.checks.orders.instances().any(|i| i.instance == instance && i.ready);
        if self.backend.processes.get(&pid).and_then(|p| p.instance).is_some_and(|i| !is_told(i)) {
            return;
        }
        let Some(process) = self.backend.processes.get_mut(&pid) else { return };
        process.paused = !process.paused;
        let (paused, instance) = (process.paused, process.instance);
        let what = if paused { "freezes" } else { "thaws" };
        self.story.line(self.now, || format!("a person {what} c{pid} of {}", spec.name));
        let after = Span(self.delays.between(50, 2_000));
        let Some(instance) = instance else { return };
        let event = match paused {
            true => Event::Paused { instance },
            false => Event::Resumed { instance, took: Span::ZERO },
        };
        self.schedule(Follows { answers: vec![(after, event)], ..Follows::default() });
    }

    /// After the faults what a person has frozen is thawed again, and their words are taken back.
    pub(crate) fn hands_off(&mut self) {
        for at in 0..self.setting.services.len() {
            let service = self.setting.services[at].id;
            self.tell(&Event::ModeTold { service, mode: None });
        }
        // What runs of a service that is only watched keeps its room for ever.
        let watched = |p: &Process| {
            let id = crate::rules::elder(&p.spec);
            self.setting.services.iter().any(|s| s.id == id && s.mode != Mode::Act)
                && p.phase != Phase::Ending
        };
        let watched: Vec<Pid> =
            self.backend.processes.iter().filter(|p| watched(p.1)).map(|p| *p.0).collect();
        watched.into_iter().for_each(|pid| self.taken_down(pid));
        // What is just being frozen by order is not a person's: that it is frozen has yet to be told.
        let ordered = |p: &Process| p.instance.is_some_and(|i| self.checks.levels.on_its_way(i));
        let frozen: BTreeMap<Pid, Option<forerun_types::InstanceId>> = self
            .backend
            .processes
            .iter()
            .filter(|(_, p)| p.paused && p.phase == Phase::Ready && !ordered(p))
            .map(|(pid, p)| (*pid, p.instance))
            .collect();
        let mut answers = Vec::new();
        for (pid, instance) in frozen {
            if let Some(process) = self.backend.processes.get_mut(&pid) {
                process.paused = false;
            }
            if let Some(instance) = instance {
                answers.push((Span(1_000), Event::Resumed { instance, took: Span::ZERO }));
            }
        }
        self.schedule(Follows { answers, ..Follows::default() });
    }
}
