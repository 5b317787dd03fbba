//! The loop around autoscalers that look at each service from time to time.

use crate::Decision;
use crate::instances::Instances;
use crate::steer::{Placed, Steer};
use forerun_types::{ServiceId, Span, Time};
use std::collections::BTreeSet;

/// Decides for one service at a time.
pub(super) trait Autoscaler {
    /// How often it looks; at whole multiples since the beginning of the trace.
    const PERIOD: Span;

    /// A service of which there was nothing is asked for.
    fn begin(&mut self, service: u32, at: Time);

    fn arrived(&mut self, service: u32, at: Time);

    fn placed(&mut self, placed: &Placed);

    /// Instances wanted from `now` on, when so many were before.
    fn wants(&mut self, service: u32, now: Time, before: u32, instances: &Instances) -> u32;

    /// Nothing of it is running or waiting.
    fn is_idle(&self, service: u32) -> bool;
}

pub(super) struct Autoscaled<A> {
    scaler: A,
    wanted: Vec<u32>,
    /// Services of which there is something.
    live: BTreeSet<u32>,
    next: Time,
}

impl<A: Autoscaler> Autoscaled<A> {
    pub(super) fn new(scaler: A, services: usize) -> Self {
        Self { scaler, wanted: vec![0; services], live: BTreeSet::new(), next: Time::NEVER }
    }
}

impl<A: Autoscaler> Steer for Autoscaled<A> {
    fn next(&self) -> Time {
        self.next
    }

    fn decide(&mut self, at: Time, instances: &Instances, wants: &mut Vec<Decision>) {
        let mut gone = Vec::new();
        for &service in &self.live {
            let before = self.wanted[service as usize];
            let wanted = self.scaler.wants(service, at, before, instances);
            if wanted != before {
                self.wanted[service as usize] = wanted;
                wants.push(Decision { at, service: ServiceId(service), wanted });
            }
            if wanted == 0 && self.scaler.is_idle(service) {
                gone.push(service);
            }
        }
        for service in gone {
            self.live.remove(&service);
        }
        self.next = if self.live.is_empty() { Time::NEVER } else { at + A::PERIOD };
    }

    fn arrived(&mut self, at: Time, service: u32) {
        if self.live.insert(service) {
            self.scaler.begin(service, at);
        }
        if self.next == Time::NEVER {
            // Not this very instant: its decisions came before its arrivals.
            self.next = Time((at.0 / A::PERIOD.0 + 1) * A::PERIOD.0);
        }
        self.scaler.arrived(service, at);
    }

    fn placed(&mut self, placed: &Placed) {
        self.scaler.placed(placed);
    }
}
