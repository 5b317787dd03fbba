//! The engine's shell: stamps and journals each event, steps the core, carries the actions out. It decides nothing.
//!
//! A state machine: it is called with events and with the passing of time, and touches the world only through its
//! four ports, so that a seeded simulation can drive it as the live loop does. Between the core and the ports stands
//! the plan checker ([`Invariants::admit`]).

use crate::invariants::{Invariants, Refusal, Violation};
use crate::journal::{Changes, FORMAT_VERSION, Head, Opening, actions_hash, encode_step, seal_block};
use crate::meter::Meter;
use crate::ports::{Backends, Clock, Disk, DiskHealth, DiskOrder, Routers};
use forerun_backends::{StartOrder, StopOrder};
use forerun_core::{AnyPolicy, Core};
use forerun_types::{
    Action, Event, Generation, InstanceId, RouteTable, ServiceId, ServiceRoute, ServiceSpec, SlaClass, Span,
    Time,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// The core is asked at most so often: ticks closer together would cost more than they bring.
const TICK_LEAST: Span = Span::from_millis(2);
/// Bytes of steps that are gathered into one block, if no flush comes first.
const BATCH_BYTES: u64 = 256 << 10;
/// Refused actions that the core is told of after one event; the others follow later.
const TOLD_AT_ONCE: usize = 64;
/// How long a broken journal is left alone before a new segment is tried.
const JOURNAL_RETRY: Span = Span::from_secs(10);

/// How the journal is kept.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// Name of the policy, for the head of each segment.
    pub policy: String,
    /// Number of the first segment to write.
    pub first_segment: u64,
    /// Segments that exist already, oldest first, with their sizes.
    pub existing: Vec<(u64, u64)>,
    pub segment_bytes_max: u64,
    /// Bytes of all segments together, packed as they are on the disk; the oldest go first. One segment is always
    /// kept: the snapshot that opens it and as much again, or `segment_bytes_max` where that is more.
    pub bytes_max: u64,
    pub flush_interval: Span,
}

/// What the journal has been doing, for metrics and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    pub segment: u64,
    pub bytes: u64,
    pub steps: u64,
    pub errors: u64,
    /// Steps that no segment holds because the disk failed.
    pub steps_lost: u64,
    pub broken: Option<String>,
}

/// The four ports.
#[derive(Debug)]
pub struct Ports<C, D, B, R> {
    pub clock: C,
    pub disk: D,
    pub backends: B,
    pub routers: R,
}

#[derive(Debug)]
pub struct Shell<C, D, B, R> {
    core: Core<AnyPolicy>,
    ports: Ports<C, D, B, R>,
    journal: JournalSettings,
    state: JournalState,
    segments: Vec<(u64, u64)>,
    /// Bytes of the current segment, and those of its opening.
    segment_bytes: u64,
    opening_bytes: u64,
    /// A sync has been ordered since the current segment was begun: what is removed from then on goes after it.
    opening_synced: bool,
    /// Steps that are not yet packed.
    buffer: Vec<u8>,
    flushed: Time,
    retry_at: Time,
    /// A new segment has been begun after a failure; whether the disk took it is not known yet.
    retrying: bool,
    /// Steps recorded since the disk was last seen to be good.
    unconfirmed: u64,
    ticked: Time,
    now: Time,
    /// Changed in place unless a router has kept it: a copy would touch every service for each change.
    table: Arc<RouteTable>,
    table_changed: bool,
    withholding: bool,
    actions: Vec<Action>,
    changes: Changes,
    /// What the backends know of the core's services.
    known: u64,
    scratch: Vec<u8>,
    meter: Meter,
    invariants: Invariants,
    /// The current step's refused actions, by their places in it.
    refused: Vec<(usize, Box<Refusal>)>,
    /// What the core has yet to be told of them.
    untold: VecDeque<Event>,
    finished: bool,
}

impl<C: Clock, D: Disk, B: Backends, R: Routers> Shell<C, D, B, R> {
    /// A shell around a new or restored core. Its first event must be [`Event::Began`].
    pub fn new(core: Core<AnyPolicy>, ports: Ports<C, D, B, R>, journal: JournalSettings) -> Self {
        let segments = journal.existing.clone();
        let mut shell = Self {
            core,
            ports,
            state: JournalState {
                segment: journal.first_segment.saturating_sub(1),
                ..JournalState::default()
            },
            journal,
            segments,
            segment_bytes: 0,
            opening_bytes: 0,
            opening_synced: false,
            buffer: Vec::new(),
            flushed: Time::default(),
            retry_at: Time::default(),
            retrying: false,
            unconfirmed: 0,
            ticked: Time::default(),
            now: Time::default(),
            table: Arc::default(),
            table_changed: false,
            withholding: false,
            actions: Vec::new(),
            changes: Changes::default(),
            known: 0,
            scratch: Vec::new(),
            meter: Meter::default(),
            invariants: Invariants::default(),
            refused: Vec::new(),
            untold: VecDeque::new(),
            finished: false,
        };
        shell.now = shell.ports.clock.read().now;
        shell.flushed = shell.now;
        // A person's word outlives the life in which it was said.
        for s in shell.core.services() {
            if let Some(word) = s.mode_word {
                shell.invariants.event(&Event::ModeTold { service: s.service, mode: Some(word.mode) });
            }
        }
        shell.begin_segment();
        shell
    }

    /// The events by which a life begins. Routers see what they amount to, and no table in between: an old one that
    /// was restored, or one with half of the services, would send requests to where they do not belong.
    pub fn begin(&mut self, events: &[Event]) {
        self.withholding = true;
        for event in events {
            self.handle(event);
        }
        self.withholding = false;
        self.know();
        // Also a world without services is a table, and by its generation no longer none.
        let table = Arc::make_mut(&mut self.table);
        table.generation = table.generation.max(Generation(1));
        self.table_changed = true;
        self.publish();
    }

    /// One event from outside: stamped, decided, carried out, journaled.
    pub fn handle(&mut self, event: &Event) {
        let reading = self.ports.clock.read();
        if let Some(micros) = reading.jumped {
            self.step(reading.now, &Event::ClockJumped { micros });
        }
        if let Event::Service(spec) = event {
            self.tell_budget(reading.now, &spec.sla);
        }
        self.step(reading.now, event);
        self.tell_of_refused();
        self.know();
        self.publish();
    }

    /// What was refused is no other to the core than what a backend could not do.
    fn tell_of_refused(&mut self) {
        for _ in 0..TOLD_AT_ONCE {
            let Some(event) = self.untold.pop_front() else { return };
            self.step(self.now, &event);
        }
    }

    /// A class's budget is told by an event of its own, before a service whose description says it.
    fn tell_budget(&mut self, now: Time, sla: &SlaClass) {
        let ppm = sla.cold_start_budget_ppm;
        if self.core.cold_start_budget(&sla.name) != ppm {
            self.step(now, &Event::ColdStartBudget { class: sla.name.clone(), ppm });
        }
    }

    /// Tells backends of services that have come, gone or changed: once for all that a life begins with.
    fn know(&mut self) {
        let described = self.core.described();
        if !self.withholding && self.known != described {
            self.known = described;
            let services: Vec<Arc<ServiceSpec>> = self.core.specs().map(Arc::clone).collect();
            self.ports.backends.know(&services);
        }
    }

    /// Time has passed: ticks the core if it is due, flushes the journal.
    pub fn pass(&mut self) {
        let now = self.ports.clock.read().now;
        self.now = self.now.max(now);
        if self.core.next_due() <= self.now && self.now >= self.ticked + TICK_LEAST {
            self.ticked = self.now;
            self.handle(&Event::Tick);
        } else if !self.untold.is_empty() {
            self.tell_of_refused();
            self.publish();
        }
        if self.now >= self.flushed + self.journal.flush_interval {
            self.flush();
        }
    }

    /// When [`Shell::pass`] wants to be called next.
    #[must_use]
    pub fn next_wake(&self) -> Time {
        if !self.untold.is_empty() {
            return self.now;
        }
        let tick = self.core.next_due().max(self.ticked + TICK_LEAST);
        tick.min(self.flushed + self.journal.flush_interval)
    }

    #[must_use]
    pub fn core(&self) -> &Core<AnyPolicy> {
        &self.core
    }

    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What always holds of the orders, and how often it did not.
    #[must_use]
    pub fn invariants(&self) -> &Invariants {
        &self.invariants
    }

    /// What broke a rule since the last call, and was not carried out; the first sixteen.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        self.invariants.take()
    }

    #[must_use]
    pub fn journal(&self) -> &JournalState {
        &self.state
    }

    /// Whether everything has stopped after [`Event::ShutDown`].
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }

    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    pub fn ports_mut(&mut self) -> &mut Ports<C, D, B, R> {
        &mut self.ports
    }

    fn step(&mut self, now: Time, event: &Event) {
        self.now = self.now.max(now);
        let mut actions = std::mem::take(&mut self.actions);
        self.core.step(self.now, event, &mut actions);
        self.invariants.event(event);
        self.meter.event(self.now, event);
        for (at, action) in actions.iter().enumerate() {
            match self.invariants.admit(self.now, action) {
                Ok(()) => self.carry_out(action),
                Err(refusal) => self.refuse(at, refusal),
            }
        }
        self.record(event, &actions);
        self.refused.clear();
        actions.clear();
        self.actions = actions;
    }

    fn refuse(&mut self, at: usize, mut refusal: Box<Refusal>) {
        let rule = refusal.rule.label();
        tracing::error!(rule, action = refusal.action, "the plan checker refuses it: {}", refusal.what);
        self.meter.refused(refusal.service, refusal.action, rule);
        self.untold.extend(refusal.told.take());
        self.refused.push((at, refusal));
    }

    fn carry_out(&mut self, action: &Action) {
        self.meter.action(self.now, action);
        match action {
            Action::Want { .. } => {}
            Action::Advise { service, from, to, reason, .. } => {
                let name = self.core.specs_from(*service).next().map_or("", |spec| spec.name.as_str());
                tracing::info!(service = name, "{}", reason.would(*from, *to));
            }
            Action::Start { instance, generation, spec, .. } => {
                // A router must know an instance's service before the instance is ready.
                self.publish();
                let order =
                    StartOrder { instance: *instance, generation: *generation, spec: Arc::clone(spec) };
                self.ports.backends.start(order);
            }
            Action::Stop { instance, generation, grace, .. } => {
                self.publish();
                let order = StopOrder { instance: *instance, generation: *generation, grace: *grace };
                self.ports.backends.stop(order);
            }
            Action::Route { generation, service, route } => {
                let sound = route.as_ref().and_then(|r| self.invariants.sound(self.now, *service, r));
                let sound = sound.map(|(route, rule)| {
                    self.meter.refused(Some(*service), "refused_route", rule.label());
                    Arc::new(route)
                });
                let route = sound.as_ref().or(route.as_ref());
                self.invariants.route(self.now, *generation, *service, route.map(AsRef::as_ref));
                self.route(*generation, *service, route);
            }
            Action::Finished => self.finished = true,
            action => self.change(action),
        }
    }

    /// Orders for instances that are there already.
    fn change(&mut self, action: &Action) {
        let order = |instance: &InstanceId, generation: &Generation, spec: &Arc<ServiceSpec>| StartOrder {
            instance: *instance,
            generation: *generation,
            spec: Arc::clone(spec),
        };
        match action {
            Action::Adopt { instance, generation, handle, spec, .. } => {
                let order = order(instance, generation, spec);
                self.ports.backends.adopt(order, handle);
            }
            Action::Pause { instance, generation, .. } => {
                self.publish();
                self.ports.backends.pause(*instance, *generation);
            }
            Action::Resume { instance, generation, .. } => {
                self.ports.backends.resume(*instance, *generation);
            }
            Action::Specialise { instance, generation, spec, .. } => {
                self.publish();
                let order = order(instance, generation, spec);
                self.ports.backends.specialise(order);
            }
            Action::AskBusy { instance, generation, spec } => {
                self.ports.backends.ask_busy(order(instance, generation, spec));
            }
            Action::LetGo { instance, .. } => {
                self.ports.backends.let_go(*instance);
            }
            Action::Want { .. }
            | Action::Advise { .. }
            | Action::Start { .. }
            | Action::Stop { .. }
            | Action::Route { .. }
            | Action::Finished => {}
        }
    }

    fn route(&mut self, generation: Generation, service: ServiceId, route: Option<&Arc<ServiceRoute>>) {
        let at = self.table.services.binary_search_by_key(&service, |s| s.spec.id);
        // A router answers that an instance has quiesced only if it had it in a table: none may come and go unseen.
        if self.table_changed
            && let Ok(at) = at
        {
            let listed = |i| route.is_some_and(|r| r.instances.iter().any(|other| other.instance == i));
            if self.table.services[at].instances.iter().any(|i| !listed(i.instance)) {
                self.publish();
            }
        }
        let table = Arc::make_mut(&mut self.table);
        match (at, route) {
            (Ok(at), Some(route)) => table.services[at] = Arc::clone(route),
            (Err(at), Some(route)) => table.services.insert(at, Arc::clone(route)),
            (Ok(at), None) => {
                table.services.remove(at);
            }
            (Err(_), None) => {}
        }
        table.generation = generation;
        self.table_changed = true;
    }

    fn publish(&mut self) {
        if self.withholding {
            return;
        }
        if std::mem::take(&mut self.table_changed) {
            self.ports.routers.publish(Arc::clone(&self.table));
        }
    }

    fn record(&mut self, event: &Event, actions: &[Action]) {
        // Also of steps that are not written: whose an instance is must be known later.
        let changes = self.changes.of(event, actions, &self.refused);
        if self.state.broken.is_some() && !self.retrying {
            self.state.steps_lost += 1;
            return;
        }
        let hash = actions_hash(actions, &mut self.scratch);
        encode_step(self.now, event, hash, &changes, &mut self.buffer);
        self.state.steps += 1;
        self.unconfirmed += 1;
        if self.buffer.len() as u64 >= BATCH_BYTES.min(self.journal.segment_bytes_max) {
            self.write_out();
        }
        // A segment that is smaller than its snapshot would make the journal one of snapshots.
        let enough = self.journal.segment_bytes_max.max(self.opening_bytes);
        if self.segment_bytes - self.opening_bytes >= enough {
            self.begin_segment();
        }
    }

    /// Packs what was gathered into a block and hands it to the disk.
    fn write_out(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let block = seal_block(&self.buffer);
        self.buffer.clear();
        self.segment_bytes += block.len() as u64;
        self.keep_within_budget();
        self.ports.disk.order(DiskOrder::Append(block));
    }

    /// Removes the oldest segments while all together are too large.
    fn keep_within_budget(&mut self) {
        if let Some((number, bytes)) = self.ports.disk.opened()
            && number == self.state.segment
        {
            self.segment_bytes = self.segment_bytes - self.opening_bytes + bytes;
            self.opening_bytes = bytes;
        }
        // Room for the next opening is made before it is taken; snapshots grow, but not by leaps.
        let next = self.opening_bytes + self.opening_bytes.max(self.journal.segment_bytes_max) / 4;
        let budget = self.journal.bytes_max.saturating_sub(next);
        let mut total: u64 = self.segment_bytes + self.segments.iter().map(|s| s.1).sum::<u64>();
        let mut dropped = 0;
        // Until then a cut of power would tear it, and the one before is all that there is.
        let spared = usize::from(!self.opening_synced);
        while total > budget && dropped + spared < self.segments.len() {
            let (number, bytes) = self.segments[dropped];
            dropped += 1;
            total -= bytes;
            self.ports.disk.order(DiskOrder::Remove { number });
        }
        self.segments.drain(..dropped);
        self.state.bytes = total;
    }

    /// Writes out what was gathered and looks at how the disk is doing.
    pub fn flush(&mut self) {
        self.flushed = self.now;
        let writing = self.state.broken.is_none() || self.retrying;
        if writing {
            self.write_out();
            self.ports.disk.order(DiskOrder::Sync);
            if !std::mem::replace(&mut self.opening_synced, true) {
                self.keep_within_budget();
            }
        }
        match self.ports.disk.health() {
            DiskHealth::Broken(why) if writing => self.journal_broke(why),
            DiskHealth::Good if writing => {
                self.unconfirmed = 0;
                if std::mem::take(&mut self.retrying) {
                    self.state.broken = None;
                    let lost = self.state.steps_lost;
                    tracing::info!(lost, segment = self.state.segment, "the journal is written again");
                }
            }
            _ if self.now >= self.retry_at => {
                self.retrying = true;
                self.begin_segment();
            }
            _ => {}
        }
    }

    fn journal_broke(&mut self, why: String) {
        tracing::error!(%why, "the journal cannot be written; decisions go on, learning since the last flush would be lost in a crash");
        if std::mem::take(&mut self.retrying) {
            // A segment whose very opening failed was never there: it takes no room from those that are.
            self.segment_bytes = 0;
        }
        self.state.errors += 1;
        // At most: a part of them may have reached the disk.
        self.state.steps_lost += std::mem::take(&mut self.unconfirmed);
        self.state.broken = Some(why);
        self.buffer.clear();
        self.retry_at = self.now + JOURNAL_RETRY;
    }

    /// A new segment, opened by a snapshot; the oldest go when all together are too large.
    fn begin_segment(&mut self) {
        self.write_out();
        if self.state.segment > 0 && self.segment_bytes > 0 {
            self.segments.push((self.state.segment, self.segment_bytes));
        }
        self.state.segment += 1;
        let head = Head {
            version: FORMAT_VERSION,
            segment: self.state.segment,
            policy: self.journal.policy.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let opening = Opening::new(&head, self.now, &self.core);
        // Until its size is told it counts as much as the one before.
        let bytes = self.ports.disk.begin(self.state.segment, opening).unwrap_or(self.opening_bytes);
        self.segment_bytes = bytes;
        self.opening_bytes = bytes;
        self.opening_synced = false;
        self.keep_within_budget();
    }
}
