//! The fixed keep-alive: an instance stays for a set time after its last use. Zero keeps nothing.

use crate::policy::{LevelValue, Policy, View};
use forerun_types::{Activity, Reason, ServiceId, Span, Time, UserKey};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeepAlive {
    keep: Span,
    services: Vec<Levels>,
}

/// When each level was last used; `Time::NEVER` while it is in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Levels {
    last_used: Vec<Time>,
}

impl KeepAlive {
    #[must_use]
    pub fn new(keep: Span) -> Self {
        Self { keep, services: Vec::new() }
    }

    fn levels(&mut self, service: ServiceId) -> &mut Vec<Time> {
        let at = service.0 as usize;
        if self.services.len() <= at {
            self.services.resize_with(at + 1, Levels::default);
        }
        &mut self.services[at].last_used
    }
}

impl Policy for KeepAlive {
    fn service(&mut self, _view: &View<'_>) {}

    fn service_gone(&mut self, service: ServiceId) {
        self.levels(service).clear();
    }

    fn activity(&mut self, _activity: &Activity, _touched: &mut Vec<ServiceId>) {}

    fn needed(&mut self, now: Time, service: ServiceId, peak: u32, needed: u32) {
        let (peak, needed) = (peak.max(needed) as usize, needed as usize);
        let levels = self.levels(service);
        if levels.len() < peak {
            levels.resize(peak, now);
        }
        levels[..needed].fill(Time::NEVER);
        for (j, last) in levels.iter_mut().enumerate().skip(needed) {
            if *last == Time::NEVER || j < peak {
                *last = now;
            }
        }
    }

    fn period(&mut self, now: Time, service: ServiceId, _period: Span, needed: u32) {
        self.needed(now, service, needed, 0);
    }

    fn forget(&mut self, _user: UserKey) {}

    fn appraise(&mut self, now: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time {
        let keep = self.keep;
        let levels = self.levels(view.spec.id);
        levels.truncate(levels.partition_point(|&last| last == Time::NEVER || last + keep > now));
        let mut again = Time::NEVER;
        for &last in levels.iter().filter(|&&last| last != Time::NEVER) {
            let idle = now.since(last);
            if idle >= keep {
                continue;
            }
            again = again.min(last + keep);
            // Worth more the longer it has to live, so that the least recently used goes first.
            let left = i64::try_from((keep - idle).as_millis()).unwrap_or(i64::MAX).saturating_add(1);
            values.push(LevelValue::new(
                left,
                Span::from_secs(1),
                view.spec,
                Reason::KeepAlive { idle, keep },
            ));
        }
        again
    }

    fn next_stop(&self, now: Time, view: &View<'_>) -> Option<Time> {
        let levels = &self.services.get(view.spec.id.0 as usize)?.last_used;
        levels
            .iter()
            .filter(|&&last| last != Time::NEVER)
            .map(|&last| last + self.keep)
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::ServiceSpec;

    fn kept(policy: &mut KeepAlive, at: u64, needed: u32) -> (usize, Time) {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let view = View {
            spec: &spec,
            start: Span::ZERO,
            memory_bytes: 1,
            needed,
            up: 0,
            idle_cpu_milli: 0,
            resume: None,
            saves_ppm: 1_000_000,
            short: false,
            dearer_milli: 1_000,
        };
        let mut values = Vec::new();
        let again = policy.appraise(Time(at), &view, &mut values);
        (values.len(), again)
    }

    #[test]
    fn each_level_stays_for_its_own_time() {
        let mut policy = KeepAlive::new(Span(100));
        policy.needed(Time(1_000), ServiceId(0), 3, 3);
        assert_eq!(kept(&mut policy, 1_000, 3).0, 0);
        policy.needed(Time(1_010), ServiceId(0), 3, 1);
        assert_eq!(kept(&mut policy, 1_050, 1), (2, Time(1_110)));
        policy.needed(Time(1_060), ServiceId(0), 2, 0);
        assert_eq!(kept(&mut policy, 1_109, 0), (3, Time(1_110)));
        assert_eq!(kept(&mut policy, 1_110, 0), (2, Time(1_160)));
        assert_eq!(kept(&mut policy, 1_160, 0), (0, Time::NEVER));
    }
}
