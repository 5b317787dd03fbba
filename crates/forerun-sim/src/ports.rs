//! The four ports as the world has them.

use crate::backend::outlives;
use forerun_backends::{StartOrder, StopOrder};
use forerun_engine::ports::{Backends, Clock, Disk, DiskHealth, DiskOrder, Reading, Routers};
use forerun_types::{Generation, InstanceId, RouteTable, ServiceId, ServiceSpec, Time};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// As the live clock: wall time at a life's start, carried on by the world's own time.
#[derive(Clone, Debug)]
pub(crate) struct SimClock {
    /// The world's time, set by it.
    pub truth: Time,
    began: Time,
    began_truth: Time,
    /// Wall time less the world's.
    pub wall_ahead_us: i64,
    told_ahead_us: i64,
}

impl SimClock {
    #[must_use]
    pub(crate) fn new(truth: Time, wall_ahead_us: i64, not_before: Time) -> Self {
        let wall = truth.0.saturating_add_signed(wall_ahead_us);
        let began = Time(wall.max(not_before.0 + 1));
        Self { truth, began, began_truth: truth, wall_ahead_us, told_ahead_us: wall_ahead_us }
    }

    /// The engine's `now` at an instant of the world.
    #[must_use]
    pub(crate) fn now(&self, truth: Time) -> Time {
        self.began + truth.since(self.began_truth)
    }

    /// The instant of the world at which the engine's `now` is this.
    #[must_use]
    pub(crate) fn truth_of(&self, now: Time) -> Time {
        self.began_truth + now.since(self.began)
    }
}

impl Clock for SimClock {
    fn read(&mut self) -> Reading {
        let moved = self.wall_ahead_us - self.told_ahead_us;
        self.told_ahead_us = self.wall_ahead_us;
        Reading { now: self.now(self.truth), jumped: (moved.abs() >= 500_000).then_some(moved) }
    }
}

/// Orders that may wait, as for the live disk.
const ORDERS_MAX: usize = 256;

/// A disk that can be full, slow, torn and rotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimDisk {
    /// Bytes by segment.
    pub segments: BTreeMap<u64, Vec<u8>>,
    current: Option<u64>,
    /// Bytes of the current segment that a cut of power spares, and when that was ordered.
    synced_bytes: usize,
    pub synced_at: Time,
    pub full: bool,
    /// Each order takes so long.
    pub latency_us: u64,
    pending: VecDeque<(Time, Time, DiskOrder)>,
    broken: Option<String>,
    refusing: bool,
    /// Something was not taken in this life: what is promised of the last flush does not hold.
    pub failed: bool,
    pub truth: Time,
}

impl SimDisk {
    /// What a new life finds.
    #[must_use]
    pub(crate) fn next_life(self) -> Self {
        Self { segments: self.segments, full: self.full, latency_us: self.latency_us, ..Self::default() }
    }

    /// Carries out what has had its time.
    pub(crate) fn advance(&mut self, truth: Time) {
        self.truth = truth;
        while self.pending.front().is_some_and(|p| p.0 <= truth) {
            if let Some((_, ordered, order)) = self.pending.pop_front() {
                self.carry_out(ordered, order);
            }
        }
    }

    /// Power goes: of what was not synced, this share in thousandths stays.
    pub(crate) fn cut(&mut self, keep_milli: u64) {
        self.pending.clear();
        if let Some(bytes) = self.current.and_then(|current| self.segments.get_mut(&current)) {
            let unsynced = bytes.len() - self.synced_bytes.min(bytes.len());
            bytes.truncate(self.synced_bytes + (unsynced as u64 * keep_milli / 1_000) as usize);
        }
    }

    /// Whether orders wait.
    pub(crate) fn lags(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The process goes: what it had not yet written is lost.
    pub(crate) fn kill(&mut self) {
        self.pending.clear();
    }

    fn carry_out(&mut self, ordered: Time, order: DiskOrder) {
        if self.full && !matches!(order, DiskOrder::Remove { .. } | DiskOrder::Sync) {
            self.broken.get_or_insert_with(|| "no space left on device".to_owned());
            (self.failed, self.current) = (true, None);
            return;
        }
        match order {
            DiskOrder::Segment { number, bytes } => {
                // The one before is synced first.
                self.synced_at = if self.current.is_some() { ordered } else { self.synced_at };
                self.segments.insert(number, bytes);
                (self.current, self.synced_bytes) = (Some(number), 0);
            }
            DiskOrder::Append(bytes) => {
                if let Some(segment) = self.current.and_then(|c| self.segments.get_mut(&c)) {
                    segment.extend(bytes);
                }
            }
            DiskOrder::Sync => {
                if let Some(segment) = self.current.and_then(|c| self.segments.get(&c)) {
                    self.synced_bytes = segment.len();
                    self.synced_at = ordered;
                }
            }
            DiskOrder::Remove { number } => {
                self.segments.remove(&number);
            }
        }
    }
}

impl Disk for SimDisk {
    fn order(&mut self, order: DiskOrder) {
        if self.refusing && !matches!(order, DiskOrder::Segment { .. }) {
            return;
        }
        self.refusing = false;
        if self.pending.len() >= ORDERS_MAX {
            (self.refusing, self.failed) = (true, true);
            self.broken.get_or_insert_with(|| "the disk is too slow".to_owned());
            return;
        }
        let after = self.pending.back().map_or(self.truth, |p| p.0.max(self.truth));
        self.pending.push_back((Time(after.0 + self.latency_us), self.truth, order));
        self.advance(self.truth);
    }

    fn health(&mut self) -> DiskHealth {
        match self.broken.take() {
            Some(why) => {
                self.refusing = true;
                DiskHealth::Broken(why)
            }
            None => DiskHealth::Good,
        }
    }
}

/// An order as the shell gave it.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    Start(StartOrder),
    Stop(StopOrder),
    Table(Arc<RouteTable>),
    Adopt(StartOrder, String),
    Pause(InstanceId, Generation),
    Resume(InstanceId, Generation),
    Specialise(StartOrder),
    AskBusy(StartOrder),
    LetGo(InstanceId),
    /// Services whose instances outlive the engine, by name.
    Know(Vec<(ServiceId, String)>),
}

/// Orders in the order in which they were given, by whichever port.
pub(crate) type Orders = Rc<RefCell<Vec<Given>>>;

/// Notes what it is ordered.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimBackends(pub Orders);

impl Backends for SimBackends {
    fn start(&mut self, order: StartOrder) {
        self.0.borrow_mut().push(Given::Start(order));
    }
    fn stop(&mut self, order: StopOrder) {
        self.0.borrow_mut().push(Given::Stop(order));
    }
    fn adopt(&mut self, order: StartOrder, handle: &str) {
        self.0.borrow_mut().push(Given::Adopt(order, handle.to_owned()));
    }
    fn pause(&mut self, instance: InstanceId, generation: Generation) {
        self.0.borrow_mut().push(Given::Pause(instance, generation));
    }
    fn resume(&mut self, instance: InstanceId, generation: Generation) {
        self.0.borrow_mut().push(Given::Resume(instance, generation));
    }
    fn specialise(&mut self, order: StartOrder) {
        self.0.borrow_mut().push(Given::Specialise(order));
    }
    fn ask_busy(&mut self, order: StartOrder) {
        self.0.borrow_mut().push(Given::AskBusy(order));
    }
    fn let_go(&mut self, instance: InstanceId) {
        self.0.borrow_mut().push(Given::LetGo(instance));
    }
    fn know(&mut self, services: &[Arc<ServiceSpec>]) {
        let services = services.iter().filter(|s| outlives(s)).map(|s| (s.id, s.name.clone()));
        self.0.borrow_mut().push(Given::Know(services.collect()));
    }
}

/// Notes the tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimRouters(pub Orders);

impl Routers for SimRouters {
    fn publish(&mut self, table: Arc<RouteTable>) {
        self.0.borrow_mut().push(Given::Table(table));
    }
}
