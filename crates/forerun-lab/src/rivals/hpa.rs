//! Kubernetes' horizontal pod autoscaler with its defaults, as `pkg/controller/podautoscaler` of
//! kubernetes/kubernetes and its documentation have it: instances in proportion to their mean utilisation over the
//! target, at most doubled or four more at a sync, never fewer than the most of the last five minutes.

use super::autoscaled::{Autoscaled, Autoscaler};
use super::load::Load;
use super::names::Params;
use crate::LabError;
use crate::instances::Instances;
use crate::steer::Placed;
use forerun_types::{Span, Time};
use std::collections::VecDeque;

/// `--horizontal-pod-autoscaler-sync-period`; utilisation is that since the last sync.
const SYNC: Span = Span::from_secs(15);
/// `--horizontal-pod-autoscaler-tolerance`
const TOLERANCE: f64 = 0.1;
/// The default policies for scaling up: so many more at a sync, or twice as many.
const UP_PODS: u32 = 4;
const UP_FACTOR: u32 = 2;
/// What one instance takes at once where that is not limited.
const UNLIMITED: f64 = 100.0;

/// What a `HorizontalPodAutoscaler` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaRules {
    /// `averageUtilization` in thousandths; without metrics Kubernetes takes 80% of the CPU.
    target_milli: u32,
    /// `minReplicas`, from a service's first request on.
    min: u32,
    /// `maxReplicas`; Kubernetes has no default.
    max: u32,
    /// `behavior.scaleDown.stabilizationWindowSeconds`
    stabilisation: Span,
}

impl Default for HpaRules {
    fn default() -> Self {
        Self { target_milli: 800, min: 1, max: 1_000_000, stabilisation: Span::from_secs(300) }
    }
}

impl HpaRules {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, LabError> {
        let mut rules = Self::default();
        for param in Params::of("hpa", text) {
            let param = param?;
            match param.key {
                "target" => rules.target_milli = param.milli(10, 1_000)?,
                "min" => rules.min = param.number(1, 1_000_000)?,
                "max" => rules.max = param.number(1, 1_000_000)?,
                "stabilisation" => rules.stabilisation = param.span(Span::ZERO, Span::from_secs(3_600))?,
                _ => return Err(param.unknown("target, min, max and stabilisation")),
            }
        }
        rules.max = rules.max.max(rules.min);
        Ok(rules)
    }

    /// From the mean utilisation of those with a measurement: `measured` of `pods`, `usage` instances' worth in all.
    fn replicas(&self, current: u32, measured: u32, pods: u32, usage: f64) -> u32 {
        if measured == 0 {
            return current;
        }
        let target = f64::from(self.target_milli) / 1e3;
        let ratio_of = |count: u32| (usage / f64::from(count)).min(1.0) / target;
        let ratio = ratio_of(measured);
        if ratio <= 1.0 || pods == measured {
            let small = (1.0 - ratio).abs() <= TOLERANCE;
            return if small { current } else { ceil(ratio * f64::from(measured)) };
        }
        // On the way up, those without a measurement count as idle.
        let usage = usage.min(f64::from(measured));
        let ratio = usage / f64::from(pods) / target;
        let wanted = ceil(ratio * f64::from(pods));
        if (1.0 - ratio).abs() <= TOLERANCE || ratio < 1.0 || wanted < current { current } else { wanted }
    }
}

/// Rounded up, but for what floats add to a whole number.
fn ceil(x: f64) -> u32 {
    (x - 1e-9).ceil().max(0.0) as u32
}

/// One service's recommendations of the stabilisation window.
#[derive(Debug, Default)]
struct Recent(VecDeque<(Time, u32)>);

impl Recent {
    /// One sync: what is wanted, from what the metrics say.
    fn sync(&mut self, rules: &HpaRules, now: Time, current: u32, raw: u32) -> u32 {
        let Self(recent) = self;
        while recent.front().is_some_and(|r| r.0 + rules.stabilisation <= now) {
            recent.pop_front();
        }
        // An earlier one that was not more tells nothing any more.
        while recent.back().is_some_and(|r| r.1 <= raw) {
            recent.pop_back();
        }
        recent.push_back((now, raw));
        let most = recent.front().map_or(raw, |r| r.1);
        let stable = if raw > current { raw } else { current.min(most) };
        let limit = (current * UP_FACTOR).max(current + UP_PODS);
        stable.min(limit).clamp(rules.min, rules.max)
    }
}

#[derive(Debug, Default)]
struct Service {
    /// Requests that instances are busy with.
    busy: Load,
    measured: Time,
    recent: Recent,
}

/// The autoscaler of all services.
pub(super) struct Hpa {
    rules: HpaRules,
    services: Vec<Service>,
}

impl Hpa {
    pub(super) fn steer(rules: HpaRules, services: usize) -> Autoscaled<Self> {
        let mut all = Vec::new();
        all.resize_with(services, Service::default);
        Autoscaled::new(Self { rules, services: all }, services)
    }
}

impl Autoscaler for Hpa {
    const PERIOD: Span = SYNC;

    fn begin(&mut self, service: u32, at: Time) {
        let s = &mut self.services[service as usize];
        s.measured = at;
        s.busy.skip(at);
    }

    fn arrived(&mut self, _service: u32, _at: Time) {}

    fn placed(&mut self, placed: &Placed) {
        let busy = &mut self.services[placed.service as usize].busy;
        busy.change(placed.begin, 1);
        busy.change(placed.end, -1);
    }

    fn wants(&mut self, service: u32, now: Time, before: u32, instances: &Instances) -> u32 {
        let s = &mut self.services[service as usize];
        let slots = match instances.slots(service) {
            u32::MAX => UNLIMITED,
            slots => f64::from(slots),
        };
        let since = now.since(s.measured);
        let area = s.busy.until(now);
        let usage = area as f64 / since.0.max(1) as f64 / slots;
        // One that became ready since then has no measurement of the whole time yet.
        let (pods, measured) = (instances.count(service), instances.ready_by(service, s.measured));
        s.measured = now;
        let current = before.max(pods);
        let raw = self.rules.replicas(current, measured, pods, usage);
        s.recent.sync(&self.rules, now, current, raw)
    }

    /// Never: the least stays for ever.
    fn is_idle(&self, _service: u32) -> bool {
        false
    }
}

/// Whole minutes: four syncs a minute by the mean concurrency of the minute before, everything ready at once.
pub(super) fn minutes(rules: &HpaRules, concurrency: &[Vec<f64>]) -> Vec<Vec<u32>> {
    let one = |app: &Vec<f64>| {
        let (mut recent, mut wanted) = (Recent::default(), 0);
        let mut minute = |m: usize| {
            let busy = app[..m].last().copied().unwrap_or(0.0);
            if wanted > 0 || busy > 0.0 {
                for sync in 1..=4 {
                    let now = Time(m as u64 * 60_000_000 + sync * SYNC.0);
                    // What was missing was there too, and busy.
                    let current = wanted.max(busy.ceil() as u32);
                    let raw = rules.replicas(current, current, current, busy);
                    wanted = recent.sync(rules, now, current, raw);
                }
            }
            wanted
        };
        (0..app.len()).map(&mut minute).collect()
    };
    concurrency.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
