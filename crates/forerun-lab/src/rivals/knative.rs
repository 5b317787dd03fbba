//! Knative Serving's pod autoscaler (KPA), as `pkg/autoscaler` of knative/serving and its documentation have it: the
//! mean concurrency of a stable window over the target, a panic window for bursts, limits on how fast, and a last
//! instance that goes only after a whole stable window without a request.

use super::autoscaled::{Autoscaled, Autoscaler};
use super::load::Load;
use super::names::Params;
use crate::LabError;
use crate::instances::Instances;
use crate::steer::Placed;
use forerun_types::{Span, Time};
use std::collections::VecDeque;

/// How often the autoscaler looks.
const TICK: Span = Span::from_secs(2);
/// Concurrency is averaged by the second first.
const BUCKET: Span = Span::from_secs(1);
/// What one instance takes at once where its concurrency is not limited (`container-concurrency-target-default`).
const UNLIMITED: f64 = 100.0;

/// The keys of Knative's `config-autoscaler`, its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnativeRules {
    /// Part of an instance's concurrency that is aimed at, thousandths (`container-concurrency-target-percentage`).
    target_milli: u32,
    /// `stable-window`
    window: Span,
    /// Thousandths of the stable window (`panic-window-percentage`).
    panic_window_milli: u32,
    /// Thousandths of what is ready (`panic-threshold-percentage`).
    panic_milli: u32,
    /// Thousandths of what is ready (`max-scale-up-rate`, `max-scale-down-rate`).
    up_milli: u32,
    down_milli: u32,
    /// `scale-to-zero-grace-period`
    grace: Span,
    /// Requests (`target-burst-capacity`): below so much spare, the activator stays in the way.
    burst: u32,
}

impl Default for KnativeRules {
    fn default() -> Self {
        Self {
            target_milli: 700,
            window: Span::from_secs(60),
            panic_window_milli: 100,
            panic_milli: 2_000,
            up_milli: 1_000_000,
            down_milli: 2_000,
            grace: Span::from_secs(30),
            burst: 211,
        }
    }
}

impl KnativeRules {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, LabError> {
        let mut rules = Self::default();
        for param in Params::of("knative", text) {
            let param = param?;
            match param.key {
                "target" => rules.target_milli = param.milli(10, 1_000)?,
                "window" => rules.window = param.span(Span::from_secs(6), Span::from_secs(3_600))?,
                "panic-window" => rules.panic_window_milli = param.milli(10, 1_000)?,
                "panic" => rules.panic_milli = param.milli(1_100, 10_000)?,
                "up" => rules.up_milli = param.milli(1_001, 1_000_000_000)?,
                "down" => rules.down_milli = param.milli(1_001, 1_000_000_000)?,
                "grace" => rules.grace = param.span(Span::ZERO, Span::from_secs(86_400))?,
                "burst" => rules.burst = param.number(0, 1_000_000)?,
                _ => {
                    return Err(
                        param.unknown("target, window, panic-window, panic, up, down, grace and burst")
                    );
                }
            }
        }
        Ok(rules)
    }

    fn ratio(milli: u32) -> f64 {
        f64::from(milli) / 1e3
    }

    fn buckets(span: Span) -> usize {
        usize::try_from(span.0.div_ceil(BUCKET.0)).unwrap_or(usize::MAX).max(1)
    }

    fn panic_buckets(&self) -> usize {
        Self::buckets(Span(self.window.0 / 1_000 * u64::from(self.panic_window_milli)))
    }
}

/// What the autoscaler wants of one service, from what it measures.
#[derive(Debug, Default)]
struct Scale {
    panic_since: Option<Time>,
    /// The most since the panic began: nothing goes while it lasts.
    panic_most: u32,
}

impl Scale {
    /// `stable` and `panic` are mean concurrencies of the two windows, `target` what one instance should have.
    fn desired(
        &mut self,
        rules: &KnativeRules,
        now: Time,
        ready: u32,
        target: f64,
        stable: f64,
        panic: f64,
    ) -> u32 {
        let ready = f64::from(ready.max(1));
        let most = (KnativeRules::ratio(rules.up_milli) * ready).ceil();
        let least = (ready / KnativeRules::ratio(rules.down_milli)).floor();
        let (by_stable, by_panic) = ((stable / target).ceil(), (panic / target).ceil());
        let within = |wanted: f64| wanted.max(least).min(most) as u32;
        let over = by_panic / ready >= KnativeRules::ratio(rules.panic_milli);
        if over {
            self.panic_since = Some(now);
        } else if self.panic_since.is_some_and(|since| since + rules.window < now) {
            self.panic_since = None;
            self.panic_most = 0;
        }
        if self.panic_since.is_none() {
            return within(by_stable);
        }
        self.panic_most = self.panic_most.max(within(by_stable)).max(within(by_panic));
        self.panic_most
    }
}

/// Mean concurrency by the second, of the stable window.
#[derive(Debug, Default)]
struct Windows {
    /// Request-microseconds of each second, oldest first.
    seconds: VecDeque<u64>,
    stable: u64,
    panic: u64,
}

impl Windows {
    fn push(&mut self, area: u64, stable: usize, panic: usize) {
        self.seconds.push_back(area);
        self.stable += area;
        self.panic += area;
        if self.seconds.len() > panic {
            self.panic -= self.seconds[self.seconds.len() - 1 - panic];
        }
        if self.seconds.len() > stable {
            self.stable -= self.seconds.pop_front().unwrap_or(0);
        }
    }

    /// Averages over what there is of each window, to six digits.
    fn averages(&self, panic: usize) -> (f64, f64) {
        let average = |area: u64, buckets: usize| {
            let mean = area as f64 / (BUCKET.0 * buckets.max(1) as u64) as f64;
            (mean * 1e6).round() / 1e6
        };
        (average(self.stable, self.seconds.len()), average(self.panic, self.seconds.len().min(panic)))
    }
}

#[derive(Debug, Default)]
struct Service {
    load: Load,
    windows: Windows,
    scale: Scale,
    /// To where seconds are counted.
    until: Time,
    /// Since when the activator has been in the way.
    proxied: Option<Time>,
}

/// The autoscaler of all services.
pub(super) struct Knative {
    rules: KnativeRules,
    services: Vec<Service>,
}

impl Knative {
    pub(super) fn steer(rules: KnativeRules, services: usize) -> Autoscaled<Self> {
        let mut all = Vec::new();
        all.resize_with(services, Service::default);
        Autoscaled::new(Self { rules, services: all }, services)
    }
}

impl Autoscaler for Knative {
    const PERIOD: Span = TICK;

    fn begin(&mut self, service: u32, at: Time) {
        let (stable, panic) = (KnativeRules::buckets(self.rules.window), self.rules.panic_buckets());
        let s = &mut self.services[service as usize];
        let second = Time(at.0 / BUCKET.0 * BUCKET.0);
        let missed = usize::try_from(second.since(s.until).0 / BUCKET.0).unwrap_or(usize::MAX);
        if missed >= stable {
            s.windows = Windows::default();
        } else {
            (0..missed).for_each(|_| s.windows.push(0, stable, panic));
        }
        s.until = s.until.max(second);
        s.load.skip(second);
    }

    fn arrived(&mut self, service: u32, at: Time) {
        self.services[service as usize].load.change(at, 1);
    }

    fn placed(&mut self, placed: &Placed) {
        self.services[placed.service as usize].load.change(placed.end, -1);
    }

    fn wants(&mut self, service: u32, now: Time, before: u32, instances: &Instances) -> u32 {
        let rules = self.rules;
        let (stable, panic) = (KnativeRules::buckets(rules.window), rules.panic_buckets());
        let s = &mut self.services[service as usize];
        while s.until + BUCKET <= now {
            s.until += BUCKET;
            let area = s.load.until(s.until);
            s.windows.push(area, stable, panic);
        }
        let ready = instances.ready_by(service, now);
        let slots = match instances.slots(service) {
            u32::MAX => UNLIMITED,
            slots => f64::from(slots),
        };
        let target = (slots * KnativeRules::ratio(rules.target_milli)).max(0.01);
        let (stable, panic) = s.windows.averages(panic);
        let desired = s.scale.desired(&rules, now, ready, target, stable, panic);
        // Spare room for a burst, or the activator takes every request first.
        let spare = f64::from(ready) * slots - f64::from(rules.burst) - panic;
        let direct = ready > 0 && (rules.burst == 0 || spare.floor() >= 0.0) && desired > 0;
        match (direct, s.proxied) {
            (true, _) => s.proxied = None,
            (false, None) => s.proxied = Some(now),
            (false, Some(_)) => {}
        }
        let proxied = s.proxied.is_some_and(|since| since + rules.grace <= now);
        // The last one stays until the activator has been in the way for the grace period.
        if desired == 0 && !proxied { before.min(1) } else { desired }
    }

    fn is_idle(&self, service: u32) -> bool {
        self.services[service as usize].load.is_idle()
    }
}

/// Whole minutes show no burst and no tick: the mean of the last window's minutes over the target.
pub(super) fn minutes(rules: &KnativeRules, concurrency: &[Vec<f64>]) -> Vec<Vec<u32>> {
    let window = usize::try_from(rules.window.0.div_ceil(60_000_000)).unwrap_or(usize::MAX).max(1);
    let target = KnativeRules::ratio(rules.target_milli);
    let one = |app: &Vec<f64>| {
        let wanted = |minute: usize| {
            let past = &app[minute.saturating_sub(window)..minute];
            let mean = past.iter().sum::<f64>() / past.len().max(1) as f64 / target;
            // Half of what counts as nothing.
            if mean >= crate::minutes::CONCURRENCY_MIN / 2.0 { mean.ceil() as u32 } else { 0 }
        };
        (0..app.len()).map(wanted).collect()
    };
    concurrency.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
