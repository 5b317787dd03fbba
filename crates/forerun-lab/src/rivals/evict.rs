//! Rivals that stop nothing but to make room: how they choose whom. They are for a bounded world.

use crate::Decision;
use crate::instances::{Instances, Key};
use crate::requests::Requests;
use crate::steer::{Placed, Steer};
use forerun_types::Time;
use std::collections::BTreeMap;

/// The least recently used goes.
pub(super) struct Lru;

impl Steer for Lru {
    const KEEPS: bool = true;

    fn next(&self) -> Time {
        Time::NEVER
    }

    fn decide(&mut self, _at: Time, _instances: &Instances, _wants: &mut Vec<Decision>) {}
}

/// FaasCache (Fuerst & Sharma, ASPLOS '21): priority = clock + uses x cost / size, set when an instance is used; the
/// lowest goes, and the clock rises to its priority. Uses are those of the service, forgotten with its last idle
/// instance. Cost is the seconds of a start, size the GB of an instance.
pub(super) struct GreedyDual<'a> {
    requests: &'a Requests<'a>,
    clock: f64,
    uses: Vec<u32>,
    /// By an instance's place.
    priority: Vec<f64>,
}

impl<'a> GreedyDual<'a> {
    pub(super) fn new(requests: &'a Requests<'a>) -> Self {
        Self { requests, clock: 0.0, uses: vec![0; requests.services()], priority: Vec::new() }
    }
}

impl Steer for GreedyDual<'_> {
    const KEEPS: bool = true;

    fn next(&self) -> Time {
        Time::NEVER
    }

    fn decide(&mut self, _at: Time, _instances: &Instances, _wants: &mut Vec<Decision>) {}

    fn placed(&mut self, placed: &Placed) {
        let (service, place) = (placed.service as usize, placed.instance.place());
        self.uses[service] += 1;
        let size_gb = (self.requests.memory[service] as f64 / 1e9).max(1e-9);
        let cost = self.requests.start[service].as_secs_f64();
        if self.priority.len() <= place {
            self.priority.resize(place + 1, 0.0);
        }
        self.priority[place] = self.clock + f64::from(self.uses[service]) * cost / size_gb;
    }

    fn victim(&mut self, _at: Time, instances: &Instances) -> Option<Key> {
        let priority = |key: &Key| self.priority.get(key.place()).copied().unwrap_or(self.clock);
        // The first of the lowest: between equals the least recently used.
        let victim = instances.idle().min_by(|a, b| priority(a).total_cmp(&priority(b)))?;
        self.clock = priority(&victim);
        let service = instances.get(victim).service;
        if instances.idle().filter(|&key| instances.get(key).service == service).count() == 1 {
            self.uses[service as usize] = 0;
        }
        Some(victim)
    }
}

/// Knows the arrivals (Belady 1966): the instance goes whose service is needed again last, where the n-th idle one
/// of a service is needed at its n-th next arrival. No bound, since one instance serves many arrivals.
pub(super) struct Belady {
    arrivals: Vec<Vec<Time>>,
}

impl Belady {
    pub(super) fn new(requests: &Requests<'_>) -> Self {
        let mut arrivals = vec![Vec::new(); requests.services()];
        for event in &requests.trace.events {
            arrivals[event.service.0 as usize].push(event.at);
        }
        Self { arrivals }
    }
}

impl Steer for Belady {
    const KEEPS: bool = true;

    fn next(&self) -> Time {
        Time::NEVER
    }

    fn decide(&mut self, _at: Time, _instances: &Instances, _wants: &mut Vec<Decision>) {}

    fn victim(&mut self, at: Time, instances: &Instances) -> Option<Key> {
        let mut idle: Vec<Key> = instances.idle().collect();
        // Stable: those used at one instant stay in the order of their services.
        idle.sort_by_key(|&key| std::cmp::Reverse(instances.get(key).used));
        let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
        let mut best: Option<(Time, Key)> = None;
        for key in idle {
            let service = instances.get(key).service;
            let arrivals = &self.arrivals[service as usize];
            let rank = seen.entry(service).or_default();
            let next = arrivals.partition_point(|&a| a <= at) + *rank;
            *rank += 1;
            let next = arrivals.get(next).copied().unwrap_or(Time::NEVER);
            if best.is_none_or(|(latest, _)| next > latest) {
                best = Some((next, key));
            }
        }
        best.map(|(_, key)| key)
    }
}
