//! Forerun's own policy: profiles feed the forecast, the forecast's chances are priced.

use crate::forecast::grid::AgeGrid;
use crate::forecast::users::Expected;
use crate::forecast::{Chance, Forecast, LevelChances};
use crate::policy::{LevelValue, Policy, View};
use crate::profile::Profiles;
use crate::profile::keys::KeyHabits;
use forerun_types::{Activity, Reason, ServiceId, ServiceSpec, Span, Time, UserKey};
use serde::{Deserialize, Serialize};

/// How finely load is told apart, if the service does not say: about six start times, since what happens within one
/// start cannot be acted on. Steps are few, so that services share what they learn of gaps.
const GRAINS_MS: [u64; 8] = [250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];
const STARTS_PER_GRAIN: u64 = 6;
/// How many times in a start the sum over expected users is worth recomputing.
const USERS_PER_START: u64 = 8;

/// Profiles, forecasts and prices in one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Forerun {
    profiles: Profiles,
    forecast: Forecast,
    /// Whether what single users are about to do counts.
    with_users: bool,
    #[serde(skip)]
    scratch: Vec<LevelChances>,
    users: Vec<UsersNow>,
    keys: KeyHabits,
    /// What a core costs, as thousandths of a GB of memory over the same time.
    core_milli_gb: u64,
}

/// At the usual prices of clouds a core costs as much as eight GB.
const CORE_MILLI_GB: u64 = 8_000;

/// The last sum over a service's expected users.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct UsersNow {
    at: Time,
    count: f64,
}

impl Forerun {
    #[must_use]
    pub fn new(memory_bytes_max: u64) -> Self {
        Self {
            profiles: Profiles::new(memory_bytes_max),
            forecast: Forecast::default(),
            with_users: true,
            scratch: Vec::new(),
            users: Vec::new(),
            keys: KeyHabits::default(),
            core_milli_gb: CORE_MILLI_GB,
        }
    }

    /// What a core costs, as thousandths of a GB of memory over the same time: from the prices in the configuration.
    pub fn set_core_price(&mut self, milli_gb: u64) {
        self.core_milli_gb = milli_gb;
    }

    /// The ablation: service-level signals only.
    #[must_use]
    pub fn without_users(memory_bytes_max: u64) -> Self {
        Self { with_users: false, ..Self::new(memory_bytes_max) }
    }

    #[must_use]
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    fn expected_users(&mut self, now: Time, view: &View<'_>, grain: Span) -> f64 {
        let at = view.spec.id.0 as usize;
        if self.users.len() <= at {
            self.users.resize(at + 1, UsersNow::default());
        }
        let Some(expected) = self.forecast.expected_mut(view.spec.id) else { return 0.0 };
        if expected.is_empty() {
            return 0.0;
        }
        let memo = &mut self.users[at];
        if now >= memo.at + Span(view.start.0 / USERS_PER_START) {
            let count = expected.count(now, view.start + grain, &self.profiles.gaps, &self.profiles.all_gaps);
            *memo = UsersNow { at: now, count };
        }
        memo.count
    }
}

fn grain(spec: &ServiceSpec) -> Span {
    if spec.grain > Span::ZERO {
        return spec.grain;
    }
    let wanted_ms = spec.start_estimate.as_millis() * STARTS_PER_GRAIN;
    let fit = GRAINS_MS.iter().rev().find(|&&ms| ms <= wanted_ms).unwrap_or(&GRAINS_MS[0]);
    Span::from_millis(*fit)
}

/// Bytes for a time, in thousandths of a GB-second.
fn milli_gbs(bytes: u64, span: Span) -> u64 {
    // Almost always it fits 64 bits, where a division is many times cheaper.
    if let Some(product) = (bytes / 1_000).checked_mul(span.0) {
        return product / 1_000_000_000;
    }
    u64::try_from(u128::from(bytes) * u128::from(span.0) / 1_000_000_000_000).unwrap_or(u64::MAX)
}

/// Worth less cost, in thousandths of a GB-second.
fn net(worth: u64, cost: u64) -> i64 {
    i64::try_from(worth).unwrap_or(i64::MAX) - i64::try_from(cost).unwrap_or(i64::MAX)
}

/// What a chance in millionths of a value is worth.
fn expected(value: u64, chance_ppm: u32) -> u64 {
    match value.checked_mul(u64::from(chance_ppm)) {
        Some(product) => product / 1_000_000,
        None => (value / 1_000_000).saturating_mul(u64::from(chance_ppm)),
    }
}

/// The price of one chance: an instance that is there when it is needed saves the cold start, and what the start
/// itself and, on average, half of the time would have taken; keeping it costs all of the time: its memory, and the
/// CPU that it burns while it is idle. Frozen it costs only its memory, and saves all of the cold start but the share
/// that thawing takes of it; from the need on, half of the time on average, it burns as much as a hot one. A
/// generic one that is to become a key's saves all of the cold start but the share that the change takes.
fn price(chance: &Chance, view: &View<'_>, core_milli_gb: u64) -> LevelValue {
    let (chance_ppm, within) = ((chance.chance * 1e6) as u32, chance.within);
    let memory = milli_gbs(view.memory_bytes, within);
    let core_bytes = view.idle_cpu_milli.saturating_mul(core_milli_gb).saturating_mul(1_000);
    let cpu = if core_bytes == 0 { 0 } else { milli_gbs(core_bytes, within) };
    let cost = memory.saturating_add(cpu);
    let kept = (cost / 2).saturating_add(milli_gbs(view.memory_bytes, view.start));
    let cold_start = expected(view.spec.sla.cold_start_milli_gbs, view.saves_ppm);
    let worth = expected(cold_start.saturating_add(kept), chance_ppm);
    let reason = Reason::Priced { chance_ppm, within, worth_milli_gbs: worth, cost_milli_gbs: cost };
    let value = LevelValue::new(net(worth, cost), within, view.spec, reason);
    let Some(resume) = view.resume else { return value };
    let thaw_ppm = u128::from(resume.0) * 1_000_000 / u128::from(view.start.0.max(1));
    let left_ppm = 1_000_000 - u32::try_from(thaw_ppm).unwrap_or(u32::MAX).min(1_000_000);
    let saved = expected(cold_start, left_ppm).saturating_add(kept);
    let frozen_cost = memory.saturating_add(expected(cpu / 2, chance_ppm));
    value.or_frozen(net(expected(saved, chance_ppm), frozen_cost), within, view.spec)
}

impl Policy for Forerun {
    fn service(&mut self, view: &View<'_>) {
        self.forecast.service(view.spec.id, AgeGrid::fine(grain(view.spec)));
    }

    fn service_gone(&mut self, service: ServiceId) {
        self.forecast.gone(service);
        self.keys.gone(service);
    }

    fn keyed(&mut self, activity: &Activity, parent: ServiceId) {
        let before = self.keys.of(activity.user, parent);
        if before != activity.service
            && let Some(expected) = self.forecast.expected_mut(before)
        {
            expected.remove(activity.user);
        }
        self.keys.note(activity.user, parent, activity.service, activity.at);
    }

    fn activity(&mut self, activity: &Activity, touched: &mut Vec<ServiceId>) {
        let Some(outlook) = self.profiles.activity(activity) else { return };
        if !self.with_users {
            return;
        }
        for service in outlook.lapsed.into_iter().flatten() {
            for place in [service, self.keys.of(activity.user, service)] {
                if let Some(expected) = self.forecast.expected_mut(place) {
                    expected.remove(activity.user);
                }
            }
        }
        for next in outlook.next.into_iter().flatten() {
            let place = self.keys.of(activity.user, next.service);
            if let Some(expected) = self.forecast.expected_mut(place) {
                expected.add(Expected {
                    user: activity.user,
                    chance: next.chance,
                    from: activity.at,
                    after: activity.service.0,
                });
                touched.push(place);
            }
        }
    }

    fn needed(&mut self, now: Time, service: ServiceId, peak: u32, needed: u32) {
        self.forecast.needed(now, service, peak, needed);
    }

    fn period(&mut self, now: Time, service: ServiceId, period: Span, needed: u32) {
        self.forecast.period(now, service, period, needed);
    }

    fn forget(&mut self, user: UserKey) {
        self.profiles.forget(user);
        // Also where the profile itself was dropped for room before.
        self.forecast.forget(user);
        self.keys.forget(user);
    }

    fn appraise(&mut self, now: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time {
        let users = if self.with_users { self.expected_users(now, view, grain(view.spec)) } else { 0.0 };
        self.scratch.clear();
        let again = self.forecast.chances(now, view.spec.id, view.start, users, &mut self.scratch);
        for level in &self.scratch {
            let best = level.windows().map(|c| price(&c, view, self.core_milli_gb)).max_by_key(|v| v.density);
            values.extend(best);
        }
        again
    }
    fn next_stop(&self, now: Time, view: &View<'_>) -> Option<Time> {
        let wanted = |chance: &Chance| price(chance, view, self.core_milli_gb).is_hot();
        self.forecast.next_stop(now, view.spec.id, view.start, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a chance within a minute makes of an instance of 100 MB that starts in 10 s.
    fn check(chance: f64, idle_cpu_milli: u64, resume: Option<Span>) -> (bool, bool) {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let view = View {
            spec: &spec,
            start: Span::from_secs(10),
            memory_bytes: 100_000_000,
            needed: 0,
            idle_cpu_milli,
            resume,
            saves_ppm: 1_000_000,
        };
        let chance = Chance { chance, within: Span::from_secs(60) };
        let value = price(&chance, &view, CORE_MILLI_GB);
        (value.is_hot(), value.is_frozen())
    }

    #[test]
    fn freezing_is_a_price_and_no_rule() {
        let (quick, slow) = (Some(Span::from_millis(50)), Some(Span::from_secs(10)));
        // A minute of its memory costs 6 GB-s, of 100 thousandths of a core 48, and a cold start 80.55.
        for (chance, idle_cpu, resume, (hot, frozen)) in [
            (0.3, 0, None, (true, false)),
            (0.3, 0, quick, (true, false)),
            (0.3, 100, None, (false, false)),
            (0.3, 100, quick, (false, true)),
            (0.3, 100, slow, (false, false)),
            (0.01, 100, quick, (false, false)),
            (1.0, 100, quick, (false, true)),
            (1.0, 1, slow, (true, false)),
        ] {
            assert_eq!(check(chance, idle_cpu, resume), (hot, frozen), "{chance} {idle_cpu} {resume:?}");
        }
    }
}
