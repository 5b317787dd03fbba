//! What activities cost: CPU, memory, network and storage by service and action, so that a forecast of activities is
//! one of all four.
//!
//! Instances are read as wholes. What one activity takes of a reading is found by regression: between two readings of
//! an instance its CPU time is what it burns idle plus the sum over its actions of `count x cost`, and every reading
//! moves the costs a part of the way to what would have explained it, in proportion to how much of each there was: the
//! normalised least-mean-squares rule (B. Widrow, M. Hoff, *Adaptive switching circuits*, 1960; J. Nagumo, A. Noda,
//! *A learning method for system identification*, IEEE Trans. Automatic Control 12(3), 1967), held at or above zero.
//! Memory goes the same way, above the least that was seen, over the mean number of each action that were in flight;
//! storage as CPU. Network bytes and time are told with each request, and only averaged.

use forerun_types::{ActionKey, Finished, ServiceId, Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Actions of a service that are told apart; the costs of what comes after are those of one more, nameless.
const ACTIONS_MAX: usize = 64;
/// Names of actions that are remembered, of all services.
const NAMES_MAX: usize = 8_192;
/// How far a reading moves the costs: in full at first, and after some hundred readings by a 64th.
const STEP_LEAST: f64 = 1.0 / 64.0;
const STEP_HALVES_AFTER: f64 = 8.0;
/// Averages forget at this rate.
const FADE: f64 = 1.0 / 64.0;
/// Over this time the rate of an action forgets.
const RATE_SPAN: Span = Span::from_secs(600);
const MICROS: f64 = 1e6;

/// What one activity takes on average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Microseconds of a core.
    pub cpu_us: f64,
    /// Bytes beyond what an idle instance holds, while it is served.
    pub memory_bytes: f64,
    /// Bytes of both bodies.
    pub network_bytes: f64,
    /// Bytes from and to disks.
    pub storage_bytes: f64,
    /// Microseconds from the hand-over to the last byte.
    pub duration_us: f64,
}

/// What a service's activities are about to take, if they come at a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Load {
    /// Cores.
    pub cpu: f64,
    /// Bytes beyond what idle instances hold.
    pub memory_bytes: f64,
    pub network_bytes_per_s: f64,
    pub storage_bytes_per_s: f64,
    /// Activities in flight.
    pub concurrency: f64,
}

/// One action and what it has taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActionUsage {
    pub action: ActionKey,
    /// Method and path template; empty where no router has told it.
    pub name: String,
    /// Activities a second, over some ten minutes.
    pub rate: f64,
    pub cost: Cost,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Entry {
    action: ActionKey,
    cost: Cost,
    /// Finished so far, for the averages' first steps.
    seen: f64,
    /// Faded count and when it was faded last.
    recent: f64,
    at: Time,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Costs {
    entries: Vec<Entry>,
    /// Readings that taught CPU and memory, and storage.
    readings: [f64; 2],
    /// The least memory that an instance was read at lately.
    floor_bytes: f64,
}

/// An instance between two readings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Position among the service's entries, how many finished, and microseconds in flight.
    done: Vec<(u16, u32, u64)>,
    /// The same since the last reading of its disks.
    done_for_disk: Vec<(u16, u32, u64)>,
    /// The last reading of its disks.
    storage_bytes: Option<u64>,
}

/// What has been seen of all services' activities, bounded by the number of services.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    services: Vec<Costs>,
    names: BTreeMap<ActionKey, String>,
}

/// What an instance used between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) over: Span,
    pub(crate) cpu: Span,
    /// Of that, what it would have burned idle.
    pub(crate) idle_cpu: Span,
    pub(crate) memory_bytes: u64,
}

impl Window {
    /// What was served so far is in no reading that tells of it alone.
    pub(crate) fn restart(&mut self) {
        self.done.clear();
    }
}

impl Entry {
    fn new(action: ActionKey, at: Time) -> Self {
        Self { action, cost: Cost::default(), seen: 0.0, recent: 0.0, at }
    }

    fn faded(&self, now: Time) -> f64 {
        let age = now.since(self.at).as_secs_f64();
        self.recent * libm::exp(-age / RATE_SPAN.as_secs_f64())
    }

    /// Activities a second, over some ten minutes.
    fn rate(&self, now: Time) -> f64 {
        self.faded(now) / RATE_SPAN.as_secs_f64()
    }

    fn finished(&mut self, now: Time, done: &Finished) {
        self.recent = self.faded(now) + 1.0;
        self.at = now;
        self.seen += 1.0;
        let part = FADE.max(1.0 / self.seen);
        let cost = &mut self.cost;
        cost.network_bytes += part * (done.network_bytes as f64 - cost.network_bytes);
        cost.duration_us += part * (done.duration.0 as f64 - cost.duration_us);
    }
}

impl Usage {
    pub(crate) fn named(&mut self, action: ActionKey, name: &str) {
        if self.names.len() < NAMES_MAX {
            self.names.entry(action).or_insert_with(|| name.to_owned());
        }
    }

    /// `window` is that of the instance, if it is still there; `service` the one that the instance's is a variant of.
    pub(crate) fn finished(
        &mut self,
        now: Time,
        service: ServiceId,
        done: &Finished,
        window: Option<&mut Window>,
    ) {
        let at = service.0 as usize;
        if self.services.len() <= at {
            self.services.resize_with(at + 1, Costs::default);
        }
        let entry = self.services[at].entry(done.action, now);
        self.services[at].entries[entry].finished(now, done);
        let Some(window) = window else { return };
        for done_so_far in [&mut window.done, &mut window.done_for_disk] {
            match done_so_far.iter_mut().find(|d| usize::from(d.0) == entry) {
                Some(d) => {
                    d.1 = d.1.saturating_add(1);
                    d.2 = d.2.saturating_add(done.duration.0);
                }
                None => done_so_far.push((entry as u16, 1, done.duration.0)),
            }
        }
    }

    /// A reading of an instance's CPU and memory.
    pub(crate) fn read(&mut self, service: ServiceId, window: &mut Window, reading: &Reading) {
        let done = std::mem::take(&mut window.done);
        let Some(costs) = self.services.get_mut(service.0 as usize) else { return };
        let memory = reading.memory_bytes as f64;
        costs.lower_floor(memory);
        let done = costs.known(done);
        if done.is_empty() || reading.over == Span::ZERO {
            return;
        }
        let part = step(costs.readings[0]);
        costs.readings[0] += 1.0;
        let cpu = reading.cpu.0 as f64 - reading.idle_cpu.0 as f64;
        let counts: Vec<(usize, f64)> = done.iter().map(|d| (d.0, f64::from(d.1))).collect();
        costs.learn(&counts, cpu, part, |cost| &mut cost.cpu_us);
        let over = reading.over.0 as f64;
        let in_flight: Vec<(usize, f64)> = done.iter().map(|d| (d.0, d.2 as f64 / over)).collect();
        costs.learn(&in_flight, memory - costs.floor_bytes, part, |cost| &mut cost.memory_bytes);
    }

    /// A reading of what an instance has moved from and to disks since its start.
    pub(crate) fn read_disk(&mut self, service: ServiceId, window: &mut Window, storage_bytes: u64) {
        // The first reading holds what the start has read.
        let before = window.storage_bytes.replace(storage_bytes);
        let done = std::mem::take(&mut window.done_for_disk);
        let Some(costs) = self.services.get_mut(service.0 as usize) else { return };
        let done = costs.known(done);
        let Some(before) = before.filter(|_| !done.is_empty()) else { return };
        let moved = storage_bytes.saturating_sub(before);
        let part = step(costs.readings[1]);
        costs.readings[1] += 1.0;
        let counts: Vec<(usize, f64)> = done.iter().map(|d| (d.0, f64::from(d.1))).collect();
        costs.learn(&counts, moved as f64, part, |cost| &mut cost.storage_bytes);
    }

    /// The `most` actions of a service that are the most frequent of late, in that order.
    #[must_use]
    pub fn actions(&self, now: Time, service: ServiceId, most: usize) -> Vec<ActionUsage> {
        let Some(costs) = self.services.get(service.0 as usize) else { return Vec::new() };
        let mut rates: Vec<(f64, &Entry)> = costs.entries.iter().map(|e| (e.rate(now), e)).collect();
        rates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.action.cmp(&b.1.action)));
        let told = |(rate, e): (f64, &Entry)| ActionUsage {
            action: e.action,
            name: self.names.get(&e.action).cloned().unwrap_or_default(),
            rate,
            cost: e.cost,
        };
        rates.into_iter().take(most).map(told).collect()
    }

    /// Activities a second of a service, over some ten minutes.
    #[must_use]
    pub fn rate(&self, now: Time, service: ServiceId) -> f64 {
        self.services.get(service.0 as usize).map_or(0.0, |costs| costs.rate(now))
    }

    /// What so many activities a second of a service take, in the proportions of late.
    #[must_use]
    pub fn load(&self, now: Time, service: ServiceId, rate: f64) -> Load {
        let mut load = Load::default();
        let Some(costs) = self.services.get(service.0 as usize) else { return load };
        let all = costs.rate(now);
        if all <= 0.0 {
            return load;
        }
        for entry in &costs.entries {
            let (rate, cost) = (rate * entry.rate(now) / all, &entry.cost);
            let in_flight = rate * cost.duration_us / MICROS;
            load.cpu += rate * cost.cpu_us / MICROS;
            load.memory_bytes += in_flight * cost.memory_bytes;
            load.network_bytes_per_s += rate * cost.network_bytes;
            load.storage_bytes_per_s += rate * cost.storage_bytes;
            load.concurrency += in_flight;
        }
        load
    }
}

fn step(readings: f64) -> f64 {
    STEP_LEAST.max(1.0 / (1.0 + readings / STEP_HALVES_AFTER))
}

impl Costs {
    fn rate(&self, now: Time) -> f64 {
        self.entries.iter().map(|e| e.rate(now)).sum()
    }

    /// The place of an action. The last place is that of all for which there was none.
    fn entry(&mut self, action: ActionKey, now: Time) -> usize {
        if let Some(at) = self.entries.iter().position(|e| e.action == action) {
            return at;
        }
        if self.entries.len() < ACTIONS_MAX {
            self.entries.push(Entry::new(action, now));
        } else if self.entries.len() == ACTIONS_MAX {
            self.entries.push(Entry::new(ActionKey::default(), now));
        }
        self.entries.len() - 1
    }

    /// Of those that are still known: a service may have been forgotten between.
    fn known(&self, done: Vec<(u16, u32, u64)>) -> Vec<(usize, u32, u64)> {
        let own = done.into_iter().map(|(at, count, time)| (usize::from(at), count, time));
        own.filter(|d| d.0 < self.entries.len()).collect()
    }

    /// Follows what is lower at once, and what is higher slowly.
    fn lower_floor(&mut self, memory: f64) {
        if self.floor_bytes == 0.0 || memory < self.floor_bytes {
            self.floor_bytes = memory;
        } else {
            self.floor_bytes += FADE * FADE * (memory - self.floor_bytes);
        }
    }

    fn learn(
        &mut self,
        amounts: &[(usize, f64)],
        total: f64,
        part: f64,
        field: impl Fn(&mut Cost) -> &mut f64,
    ) {
        let (mut told, mut power) = (0.0, 0.0);
        for &(at, amount) in amounts {
            told += amount * *field(&mut self.entries[at].cost);
            power += amount * amount;
        }
        if power <= 0.0 {
            return;
        }
        let step = part * (total.max(0.0) - told) / power;
        for &(at, amount) in amounts {
            let value = field(&mut self.entries[at].cost);
            *value = (*value + step * amount).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::InstanceId;

    const SERVICE: ServiceId = ServiceId(3);
    const ONE: InstanceId = InstanceId(7);

    struct World {
        usage: Usage,
        window: Window,
        now: Time,
        draw: u64,
        storage: u64,
    }

    impl World {
        fn below(&mut self, n: u64) -> u64 {
            self.draw =
                self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.draw >> 33) % n
        }

        /// A second in which `counts` of actions 1, 2, ... with these true costs are served.
        fn second(&mut self, counts: &[u64], truth: &[Cost]) {
            let (mut cpu, mut memory, mut storage) = (2_000.0, 50e6, 0.0);
            for (at, (count, cost)) in counts.iter().zip(truth).enumerate() {
                for _ in 0..*count {
                    let done = Finished {
                        service: SERVICE,
                        action: ActionKey(at as u64 + 1),
                        instance: ONE,
                        duration: Span(cost.duration_us as u64),
                        held: Span::ZERO,
                        network_bytes: cost.network_bytes as u64,
                        status: 200,
                    };
                    self.usage.finished(self.now, SERVICE, &done, Some(&mut self.window));
                }
                let n = *count as f64;
                cpu += n * cost.cpu_us * (0.9 + self.below(200) as f64 / 1e3);
                memory += n * cost.duration_us / 1e6 * cost.memory_bytes;
                storage += n * cost.storage_bytes;
            }
            self.now += Span::from_secs(1);
            self.storage += storage as u64;
            let reading = Reading {
                over: Span::from_secs(1),
                cpu: Span(cpu as u64),
                idle_cpu: Span(2_000),
                memory_bytes: memory as u64,
            };
            self.usage.read(SERVICE, &mut self.window, &reading);
            self.usage.read_disk(SERVICE, &mut self.window, self.storage);
        }
    }

    fn world() -> World {
        World { usage: Usage::default(), window: Window::default(), now: Time(1 << 40), draw: 5, storage: 0 }
    }

    fn near(name: &str, found: f64, told: f64) {
        assert!((found - told).abs() <= 0.15 * told + 1.0, "{name}: {found} instead of {told}");
    }

    #[test]
    fn each_action_is_found_to_take_what_it_takes() {
        let truth = [
            Cost {
                cpu_us: 800.0,
                memory_bytes: 4e6,
                network_bytes: 2e3,
                storage_bytes: 0.0,
                duration_us: 2e4,
            },
            Cost {
                cpu_us: 30_000.0,
                memory_bytes: 9e7,
                network_bytes: 1e6,
                storage_bytes: 5e5,
                duration_us: 1e5,
            },
        ];
        let mut world = world();
        for _ in 0..2_000 {
            let counts = [world.below(20), world.below(4)];
            world.second(&counts, &truth);
        }
        let mut actions = world.usage.actions(world.now, SERVICE, 8);
        assert_eq!(actions.len(), 2);
        assert!(actions[0].rate > actions[1].rate, "the most frequent comes first");
        actions.sort_by_key(|a| a.action);
        for (action, told) in actions.iter().zip(&truth) {
            near("cpu", action.cost.cpu_us, told.cpu_us);
            near("network", action.cost.network_bytes, told.network_bytes);
            // One action's noise is another's error: of half a megabyte a hundredth may go astray.
            let astray = (action.cost.storage_bytes - told.storage_bytes).abs();
            assert!(astray < 5e3, "storage: {astray} from {}", told.storage_bytes);
            near("time", action.cost.duration_us, told.duration_us);
        }
        near("memory", actions[1].cost.memory_bytes, 9e7);
        near("rate", actions[0].rate, 9.5);
        // The load at twice that rate is twice the load.
        let rate = world.usage.rate(world.now, SERVICE);
        let (one, two) =
            (world.usage.load(world.now, SERVICE, rate), world.usage.load(world.now, SERVICE, 2.0 * rate));
        near("cores", one.cpu, 9.5 * 800e-6 + 1.5 * 0.03);
        near("cores", two.cpu, 2.0 * one.cpu);
        near("bytes", one.network_bytes_per_s, 9.5 * 2e3 + 1.5 * 1e6);
    }

    #[test]
    fn what_is_not_known_costs_nothing() {
        let mut world = world();
        assert_eq!(world.usage.load(world.now, SERVICE, 10.0), Load::default());
        world.second(&[5], &[Cost { cpu_us: 100.0, duration_us: 10.0, ..Cost::default() }]);
        assert!(world.usage.load(world.now, SERVICE, 10.0).cpu > 0.0);
        assert!(world.usage.actions(world.now, ServiceId(4), 8).is_empty());
    }

    #[test]
    fn actions_without_end_stay_within_bounds() {
        let mut world = world();
        for n in 0..100_000u64 {
            let done = Finished {
                service: SERVICE,
                action: ActionKey(n + 1),
                instance: ONE,
                duration: Span(u64::MAX / 3),
                held: Span::ZERO,
                network_bytes: u64::MAX,
                status: 200,
            };
            world.usage.finished(world.now, SERVICE, &done, Some(&mut world.window));
            world.usage.named(done.action, "GET /");
        }
        let entries = &world.usage.services[3].entries;
        assert_eq!(entries.len(), ACTIONS_MAX + 1);
        assert!(world.window.done.len() <= ACTIONS_MAX + 1);
        assert_eq!(world.usage.names.len(), NAMES_MAX);
        let reading = Reading {
            over: Span::from_secs(1),
            cpu: Span(u64::MAX),
            idle_cpu: Span::ZERO,
            memory_bytes: u64::MAX,
        };
        world.usage.read(SERVICE, &mut world.window, &reading);
        let load = world.usage.load(world.now, SERVICE, 1.0);
        assert!(load.cpu.is_finite() && load.memory_bytes.is_finite());
    }
}
