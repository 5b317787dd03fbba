//! Demand: what an instance of a service takes, as far as has been seen.

use crate::policy::View;
use forerun_types::{ServiceId, ServiceSpec, Span};
use serde::{Deserialize, Serialize};

/// Starts that are remembered per service.
const STARTS: usize = 16;
/// New readings weigh 1/8: a few minutes of readings once a second forget the start-up peak.
const FADE: u64 = 8;
/// Thaws that take as long as one start, until one has been seen.
const RESUMES_PER_START: u64 = 20;
/// Uses of generic instances that are told apart; counts are halved then, so that old habits fade.
const CHOSEN_MAX: u32 = 64;
/// What an instance is priced as that takes no memory of its site's, being on a machine of its own: to keep one up is
/// not for nothing. The default of a service that says nothing.
const ELSEWHERE_BYTES: u64 = 512_000_000;
/// All of something, in millionths.
const WHOLE_PPM: u32 = 1_000_000;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Seen {
    starts: Took,
    resumes: Took,
    specialises: Took,
    /// Of instances that were started for a key.
    key_starts: Took,
    /// Generic instances, ready for either, that became a key's, and that were used as they were.
    became: u32,
    stayed: u32,
    memory_bytes: u64,
    service_time_us: u64,
    cpu_us_per_s: u64,
    /// The same while nothing was in flight.
    idle_cpu_us_per_s: u64,
}

/// How long something took, the last times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Took {
    last_us: Vec<u64>,
    next: usize,
    /// Their upper quartile.
    usual_us: u64,
}

impl Took {
    fn note(&mut self, took: Span) {
        if self.last_us.len() < STARTS {
            self.last_us.push(took.0);
        } else {
            self.last_us[self.next] = took.0;
            self.next = (self.next + 1) % STARTS;
        }
        let mut sorted = self.last_us.clone();
        sorted.sort_unstable();
        self.usual_us = sorted[sorted.len() * 3 / 4];
    }

    /// The lower quartile of the last times.
    fn quick(&self) -> Option<Span> {
        let mut sorted = self.last_us.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 4).copied().map(Span)
    }

    fn usual(&self) -> Option<Span> {
        (!self.last_us.is_empty()).then_some(Span(self.usual_us))
    }
}

/// What has been seen of every service's instances.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Demand {
    services: Vec<Seen>,
}

impl Demand {
    fn seen(&mut self, service: ServiceId) -> &mut Seen {
        let at = service.0 as usize;
        if self.services.len() <= at {
            self.services.resize_with(at + 1, Seen::default);
        }
        &mut self.services[at]
    }

    pub fn started(&mut self, service: ServiceId, took: Span) {
        self.seen(service).starts.note(took);
    }

    /// A frozen instance was thawed.
    pub fn resumed(&mut self, service: ServiceId, took: Span) {
        self.seen(service).resumes.note(took);
    }

    /// A generic instance was given to a key.
    pub fn specialised(&mut self, service: ServiceId, took: Span) {
        self.seen(service).specialises.note(took);
    }

    /// A generic instance that was ready for either became a key's, or was used as it is.
    pub fn chosen(&mut self, service: ServiceId, for_a_key: bool) {
        let seen = self.seen(service);
        let count = if for_a_key { &mut seen.became } else { &mut seen.stayed };
        *count += 1;
        if seen.became + seen.stayed >= CHOSEN_MAX {
            (seen.became, seen.stayed) = (seen.became / 2, seen.stayed / 2);
        }
    }

    /// What of a cold start a generic instance saves, in millionths: where keys take it, all but the share of a key's
    /// start that the change takes; by how often they do. All of it until a change and a key's start have been seen.
    #[must_use]
    pub fn saves_ppm(&self, spec: &ServiceSpec) -> u32 {
        let hook = spec.variant.is_none() && spec.specialise.as_ref().is_some_and(|s| s.hook.is_some());
        let seen = self.services.get(spec.id.0 as usize).filter(|_| hook);
        let times = seen.and_then(|seen| Some((seen, seen.specialises.usual()?, seen.key_starts.usual()?)));
        let Some((seen, change, start)) = times else { return WHOLE_PPM };
        let takes_ppm = change.0.saturating_mul(u64::from(WHOLE_PPM)) / start.0.max(1);
        let takes_ppm = takes_ppm.min(u64::from(WHOLE_PPM));
        let (became, all) = (u64::from(seen.became), u64::from(seen.became + seen.stayed));
        WHOLE_PPM - (takes_ppm * became / all.max(1)) as u32
    }

    /// An instance was started for a key of this service.
    pub fn key_started(&mut self, service: ServiceId, took: Span) {
        self.seen(service).key_starts.note(took);
    }

    /// What a start for a key takes: the upper quartile of the last times; `None` until it was seen.
    #[must_use]
    pub fn key_start_time(&self, service: ServiceId) -> Option<Span> {
        self.services.get(service.0 as usize)?.key_starts.usual()
    }

    pub fn used(&mut self, service: ServiceId, memory_bytes: u64) {
        let seen = self.seen(service);
        seen.memory_bytes = fade(seen.memory_bytes, memory_bytes);
    }

    pub fn finished(&mut self, service: ServiceId, duration: Span) {
        let seen = self.seen(service);
        seen.service_time_us = fade(seen.service_time_us, duration.0);
    }

    pub fn cpu(&mut self, service: ServiceId, cpu: Span, over: Span) {
        if over > Span::ZERO {
            let seen = self.seen(service);
            seen.cpu_us_per_s = fade(seen.cpu_us_per_s, cpu.0.saturating_mul(1_000_000) / over.0);
        }
    }

    /// Nothing is known of a service any more: its id will be another one's.
    pub fn gone(&mut self, service: ServiceId) {
        if let Some(seen) = self.services.get_mut(service.0 as usize) {
            *seen = Seen::default();
        }
    }

    /// What was seen of a service, or of the one that it is a variant of.
    fn seen_of(&self, spec: &ServiceSpec, known: impl Fn(&Seen) -> bool) -> Option<&Seen> {
        let seen = |id: ServiceId| self.services.get(id.0 as usize).filter(|seen| known(seen));
        seen(spec.id).or_else(|| seen(spec.variant.as_ref()?.of))
    }

    /// As [`Demand::cpu`], of an instance with nothing in flight.
    pub fn idle_cpu(&mut self, service: ServiceId, cpu: Span, over: Span) {
        if over > Span::ZERO {
            let seen = self.seen(service);
            seen.idle_cpu_us_per_s = fade(seen.idle_cpu_us_per_s, cpu.0.saturating_mul(1_000_000) / over.0);
        }
    }

    /// Thousandths of a core that one instance keeps busy while it has nothing to do.
    #[must_use]
    pub fn idle_cpu_milli(&self, service: ServiceId) -> u64 {
        self.services.get(service.0 as usize).map_or(0, |s| s.idle_cpu_us_per_s / 1_000)
    }

    /// What a policy may know of a service.
    #[must_use]
    pub fn view<'a>(&self, spec: &'a ServiceSpec, needed: u32) -> View<'a> {
        let start = self.start_time(spec);
        // Until a thaw has been seen it is thought to be quick: the first one tells.
        let resume = || self.resume_time(spec.id).unwrap_or(Span(start.0 / RESUMES_PER_START));
        View {
            spec,
            start,
            memory_bytes: self.memory_bytes(spec),
            needed,
            up: 0,
            idle_cpu_milli: self.idle_cpu_milli(spec.id),
            resume: spec.pausable.then(resume),
            saves_ppm: self.saves_ppm(spec),
            short: false,
            dearer_milli: 1_000,
        }
    }

    /// What a start takes: the upper quartile of the last ones, or what the specification thinks.
    #[must_use]
    pub fn start_time(&self, spec: &ServiceSpec) -> Span {
        let seen = self.seen_of(spec, |seen| seen.starts.usual().is_some());
        seen.and_then(|seen| seen.starts.usual()).unwrap_or(spec.start_estimate)
    }

    /// What a start takes that nothing holds up: the lower quartile of the last ones, or what the specification thinks.
    #[must_use]
    pub fn quick_start(&self, spec: &ServiceSpec) -> Span {
        let seen = self.seen_of(spec, |seen| seen.starts.quick().is_some());
        seen.and_then(|seen| seen.starts.quick()).unwrap_or(spec.start_estimate)
    }

    /// What thawing takes: the upper quartile of the last times; `None` until it was seen.
    #[must_use]
    pub fn resume_time(&self, service: ServiceId) -> Option<Span> {
        self.services.get(service.0 as usize)?.resumes.usual()
    }

    /// What giving a generic instance to a key takes: the upper quartile of the last times; `None` until it was seen.
    #[must_use]
    pub fn specialise_time(&self, service: ServiceId) -> Option<Span> {
        self.services.get(service.0 as usize)?.specialises.usual()
    }

    /// Memory of one instance, as it is priced: what was seen, or what is reserved for it.
    #[must_use]
    pub fn memory_bytes(&self, spec: &ServiceSpec) -> u64 {
        let reserved = match spec.resources.memory_bytes {
            0 => ELSEWHERE_BYTES,
            bytes => bytes,
        };
        let seen = self.seen_of(spec, |seen| seen.memory_bytes > 0);
        seen.map_or(reserved, |seen| seen.memory_bytes)
    }

    /// How long a request keeps an instance busy; zero while unknown.
    #[must_use]
    pub fn service_time(&self, service: ServiceId) -> Span {
        Span(self.services.get(service.0 as usize).map_or(0, |s| s.service_time_us))
    }

    /// Thousandths of a core that one instance keeps busy on average.
    #[must_use]
    pub fn cpu_milli(&self, service: ServiceId) -> u64 {
        self.services.get(service.0 as usize).map_or(0, |s| s.cpu_us_per_s / 1_000)
    }
}

fn fade(old: u64, new: u64) -> u64 {
    if old == 0 { new } else { old - old / FADE + new / FADE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_replaces_what_was_thought() {
        let mut demand = Demand::default();
        let spec = ServiceSpec::named(ServiceId(2), "s");
        assert_eq!(demand.start_time(&spec), Span::from_secs(10));
        for ms in [100, 200, 300, 400] {
            demand.started(spec.id, Span::from_millis(ms));
        }
        assert_eq!(demand.start_time(&spec), Span::from_millis(400));
        for _ in 0..100 {
            demand.started(spec.id, Span::from_millis(50));
        }
        assert_eq!(demand.start_time(&spec), Span::from_millis(50));
        assert_eq!(demand.memory_bytes(&spec), 1_000_000_000);
        demand.used(spec.id, 5_000_000);
        assert_eq!(demand.memory_bytes(&spec), 5_000_000);
        let mut elsewhere = ServiceSpec::named(ServiceId(3), "nas");
        elsewhere.resources.memory_bytes = 0;
        assert_eq!(demand.memory_bytes(&elsewhere), ELSEWHERE_BYTES);
    }

    #[test]
    fn a_generic_instance_saves_a_key_what_the_change_does_not_take() {
        let hook = Some(forerun_types::Hook::Http { path: "/become".to_owned() });
        let specialise = forerun_types::Specialise { hook, ..forerun_types::Specialise::default() };
        let spec = ServiceSpec { specialise: Some(specialise), ..ServiceSpec::named(ServiceId(0), "s") };
        // Milliseconds of the change and of a key's start, what became a key's, what stayed; thousandths saved.
        for (change, start, became, stayed, expect) in [
            (100, 400, 10, 0, 750),
            (100, 400, 5, 5, 875),
            (100, 400, 0, 10, 1_000),
            (100, 400, 0, 0, 1_000),
            (500, 400, 10, 0, 0),
            (500, 0, 10, 10, 500),
        ] {
            let mut demand = Demand::default();
            assert_eq!(demand.saves_ppm(&spec), WHOLE_PPM);
            demand.specialised(spec.id, Span::from_millis(change));
            assert_eq!(demand.saves_ppm(&spec), WHOLE_PPM, "until both were seen");
            demand.key_started(spec.id, Span::from_millis(start));
            (0..became).for_each(|_| demand.chosen(spec.id, true));
            (0..stayed).for_each(|_| demand.chosen(spec.id, false));
            assert_eq!(demand.saves_ppm(&spec), expect * 1_000, "{change} {start} {became} {stayed}");
        }
    }

    #[test]
    fn old_habits_of_a_pool_fade() {
        let mut demand = Demand::default();
        (0..10_000).for_each(|_| demand.chosen(ServiceId(0), true));
        (0..200).for_each(|_| demand.chosen(ServiceId(0), false));
        let seen = &demand.services[0];
        assert!(seen.became * 4 < seen.stayed && seen.became + seen.stayed < CHOSEN_MAX, "{seen:?}");
    }
}
