//! Forerun's own policy: profiles feed the forecast, the forecast's chances are priced.

use crate::forecast::grid::AgeGrid;
use crate::forecast::users::Expected;
use crate::forecast::{Asked, BINS_MAX, Chance, Forecast, LevelChances};
use crate::policy::{Frozen, LevelValue, Policy, View, density};
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

/// One part in so many of the memory is for the forecast's counts.
const FORECAST_SHARE: u64 = 8;

/// Profiles, forecasts and prices in one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Forerun {
    profiles: Profiles,
    forecast: Forecast,
    /// Whether what single users are about to do counts, and what the services' own load has done.
    with_users: bool,
    with_load: bool,
    #[serde(skip)]
    scratch: Vec<LevelChances>,
    users: Vec<UsersNow>,
    keys: KeyHabits,
    /// What a core costs, as thousandths of a GB of memory over the same time.
    core_milli_gb: u64,
}

/// What is to be started must be worth more than its cost by a sixteenth: estimates differ by as much from one moment to
/// the next, and what is let go at once was started for nothing.
const START_MARGIN: f64 = 1.0 / 16.0;
/// Bytes times microseconds in a thousandth of a GB-second.
const BYTE_US_PER_MILLI_GBS: f64 = 1e12;

/// At the usual prices of clouds a core costs as much as eight GB.
const CORE_MILLI_GB: u64 = 8_000;

/// The last sum over a service's expected users.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct UsersNow {
    at: Time,
    count: f64,
    /// The service's start time as it was last seen.
    start: Span,
}

impl Forerun {
    #[must_use]
    pub fn new(memory_bytes_max: u64) -> Self {
        Self {
            profiles: Profiles::new(memory_bytes_max - memory_bytes_max / FORECAST_SHARE),
            forecast: Forecast::new((memory_bytes_max / FORECAST_SHARE) as usize),
            with_users: true,
            with_load: true,
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

    /// The ablation: of a service only the users that are expected there, and how long it has been idle, by what all
    /// services' instances did at that age; nothing of what its own load did before.
    #[must_use]
    pub fn without_load(memory_bytes_max: u64) -> Self {
        Self { with_load: false, ..Self::new(memory_bytes_max) }
    }

    /// Both ablations: only how long an instance has been idle, by what all services' did at that age.
    #[must_use]
    pub fn without_either(memory_bytes_max: u64) -> Self {
        Self { with_users: false, ..Self::without_load(memory_bytes_max) }
    }

    #[must_use]
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    fn arrived(&mut self, activity: &Activity, service: ServiceId) {
        let start = self.users.get(service.0 as usize).map_or(Span::ZERO, |u| u.start);
        self.forecast.arrived(activity.at, service, start);
    }

    /// Requests that wait if an instance is not there when it is needed; it would have served no more than it can.
    fn crowd(&self, spec: &ServiceSpec) -> f64 {
        let crowd = self.forecast.crowd(spec.id);
        if spec.concurrency == 0 { crowd } else { crowd.min(f64::from(spec.concurrency)) }
    }

    fn expected_users(&mut self, now: Time, view: &View<'_>, grain: Span) -> f64 {
        let at = view.spec.id.0 as usize;
        let Some(expected) = self.forecast.expected_mut(view.spec.id) else { return 0.0 };
        if expected.is_empty() {
            return 0.0;
        }
        let memo = &mut self.users[at];
        if now >= memo.at + Span(view.start.0 / USERS_PER_START) {
            let count = expected.count(now, view.start + grain, &self.profiles.gaps, &self.profiles.all_gaps);
            (memo.at, memo.count) = (now, count);
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

/// Prices that hold for all chances of a level, hot or frozen; thousandths of a GB-second.
#[derive(Clone, Copy, Debug)]
struct Prices {
    /// What an instance saves that is there when it is needed: the cold starts, and what the start would have taken.
    gain: f64,
    /// What it costs while it idles, a microsecond.
    idle_us: f64,
    /// What a start ahead of the need costs until it is done.
    start: f64,
}

/// A stretch of keeping, summed up for people.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    chance: f64,
    idle_us: f64,
    until_us: f64,
}

impl Prices {
    /// What it is worth to have an instance over the first of these bins and to do the best after, over not having it
    /// then and doing the best after; and how long it would be kept.
    ///
    /// Backward induction over the bins (Bellman, *Dynamic Programming*, 1957): one that is there may be kept, which
    /// costs its idling until the need, or let go; one that is not there may be started ahead of the next bin.
    fn best(&self, bins: &[Chance]) -> (f64, Stretch) {
        let (mut there, mut gone, mut first) = (0.0f64, 0.0f64, 0.0);
        let mut stretch = Stretch::default();
        for bin in bins.iter().rev() {
            let (needed, width) = (bin.chance, bin.within.0 as f64);
            let idle = 1.0 - needed;
            let keep =
                needed * (self.gain - self.idle_us * width / 2.0) + idle * (there - self.idle_us * width);
            let wait = idle * gone.max(there - self.start);
            let after = if there > gone { stretch } else { Stretch::default() };
            stretch = Stretch {
                chance: needed + idle * after.chance,
                idle_us: needed * width / 2.0 + idle * (width + after.idle_us),
                until_us: width + idle * after.until_us,
            };
            (there, gone, first) = (keep.max(wait), wait, keep - wait);
        }
        (first, stretch)
    }
}

impl Prices {
    /// What it is worth to have one instance more, that is there or is not yet, and for how long it would be kept.
    fn net(&self, level: &LevelChances, up: bool) -> (f64, Stretch) {
        let mut room = [Chance::default(); BINS_MAX];
        let mut len = 0;
        for (slot, bin) in room.iter_mut().zip(level.bins(!up)) {
            *slot = bin;
            len += 1;
        }
        let (net, stretch) = self.best(&room[..len]);
        if up { (net, stretch) } else { ((net - self.start) * level.idle_until_ready(), stretch) }
    }

    /// The most that it brings in proportion to the time that it takes: what counts where there is not room for all.
    /// The same whether it is there or not, or two that compete for room would evict one another without end.
    fn densest(&self, level: &LevelChances) -> (f64, f64) {
        let (mut idle, mut net, mut until) = (1.0, 0.0, 0.0);
        let mut best = (f64::NEG_INFINITY, 1.0);
        for bin in level.bins(false) {
            let (needed, width) = (idle * bin.chance, bin.within.0 as f64);
            net += needed * self.gain - self.idle_us * (idle * width - needed * width / 2.0);
            until += idle * width;
            idle -= needed;
            // Cross-multiplied: net / until > best.0 / best.1.
            if until > 0.0 && (best.0 == f64::NEG_INFINITY || net * best.1 > best.0 * until) {
                best = (net, until);
            }
        }
        if best.0 == f64::NEG_INFINITY { (0.0, 1.0) } else { best }
    }
}

/// What one idle level is worth. Frozen it costs only its memory, and saves all of the cold start but the share that
/// thawing takes of it. A generic one that is to become a key's saves all of the cold start but the share that the
/// change takes.
fn price(level: &LevelChances, up: bool, view: &View<'_>, crowd: f64, core_milli_gb: u64) -> LevelValue {
    let per_us = |bytes: u64| bytes as f64 / BYTE_US_PER_MILLI_GBS;
    let memory = per_us(view.memory_bytes);
    let core = per_us(view.idle_cpu_milli.saturating_mul(core_milli_gb).saturating_mul(1_000));
    let start = memory * view.start.0 as f64;
    let cold = view.spec.sla.cold_start_milli_gbs as f64 * crowd * f64::from(view.saves_ppm) / 1e6;
    let margin = 1.0 + START_MARGIN;
    let hot = Prices { gain: cold + start, idle_us: memory + core, start: start * margin };
    let (worth_more, stretch) = hot.net(level, up);
    let within = Span(stretch.until_us as u64);
    let reason = Reason::Priced {
        chance_ppm: (stretch.chance.min(1.0) * 1e6) as u32,
        within,
        worth_milli_gbs: (stretch.chance * hot.gain) as u64,
        cost_milli_gbs: (stretch.idle_us * hot.idle_us) as u64,
    };
    // Those who compare densities rely on that it is positive for what is wanted and for nothing else.
    let density = |prices: &Prices, net_milli_gbs: i64| {
        let (net, until) = prices.densest(level);
        let density = density(net.floor() as i64, Span(until as u64), view.spec);
        if net_milli_gbs > 0 { density.max(1) } else { density.min(0) }
    };
    let net_milli_gbs = worth_more.floor() as i64;
    let value = LevelValue { net_milli_gbs, density: density(&hot, net_milli_gbs), reason, frozen: None };
    let Some(resume) = view.resume else { return value };
    let thawing = (resume.0 as f64 / view.start.0.max(1) as f64).min(1.0);
    let frozen = Prices { gain: cold * (1.0 - thawing) + start, idle_us: memory, start: hot.start };
    let net_milli_gbs = frozen.net(level, up).0.floor() as i64;
    LevelValue { frozen: Some(Frozen { net_milli_gbs, density: density(&frozen, net_milli_gbs) }), ..value }
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
        self.arrived(activity, activity.service);
        self.keys.note(activity.user, parent, activity.service, activity.at);
    }

    fn activity(&mut self, activity: &Activity, touched: &mut Vec<ServiceId>) {
        self.arrived(activity, activity.service);
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
        let at = view.spec.id.0 as usize;
        if self.users.len() <= at {
            self.users.resize(at + 1, UsersNow::default());
        }
        self.users[at].start = view.start;
        let (crowd, core) = (self.crowd(view.spec), self.core_milli_gb);
        let users = if self.with_users { self.expected_users(now, view, grain(view.spec)) } else { 0.0 };
        self.scratch.clear();
        let asked = Asked { lead: view.start, expected: users, own: self.with_load };
        let again = self.forecast.chances(now, view.spec.id, &asked, &mut self.scratch);
        let up = view.up.saturating_sub(view.needed) as usize;
        let levels = self.scratch.iter().enumerate();
        values.extend(levels.map(|(at, level)| price(level, at < up, view, crowd, core)));
        again
    }
    fn next_stop(&self, now: Time, view: &View<'_>) -> Option<Time> {
        let (crowd, core) = (self.crowd(view.spec), self.core_milli_gb);
        let wanted = |level: &LevelChances| price(level, true, view, crowd, core).is_hot();
        let asked = Asked { lead: view.start, expected: 0.0, own: self.with_load };
        self.forecast.next_stop(now, view.spec.id, &asked, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(spec: &ServiceSpec, idle_cpu_milli: u64, resume: Option<Span>) -> View<'_> {
        View {
            spec,
            start: Span::from_secs(10),
            memory_bytes: 100_000_000,
            needed: 0,
            up: 0,
            idle_cpu_milli,
            resume,
            saves_ppm: 1_000_000,
        }
    }

    /// What a chance within a minute makes of an instance of 100 MB that starts in 10 s and is there.
    fn check(chance: f64, idle_cpu_milli: u64, resume: Option<Span>) -> (bool, bool) {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let level = LevelChances::of(&[Chance { chance, within: Span::from_secs(60) }]);
        let value = price(&level, true, &view(&spec, idle_cpu_milli, resume), 1.0, CORE_MILLI_GB);
        (value.is_hot(), value.is_frozen())
    }

    /// A service whose chances by minute are these: whether it is kept, and whether it is started.
    fn decided(chances: &[f64], crowd: f64) -> (bool, bool) {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let bins: Vec<Chance> =
            chances.iter().map(|&chance| Chance { chance, within: Span::from_secs(60) }).collect();
        let (level, view) = (LevelChances::of(&bins), view(&spec, 0, None));
        let hot = |up| price(&level, up, &view, crowd, CORE_MILLI_GB).is_hot();
        (hot(true), hot(false))
    }

    #[test]
    fn a_dip_before_a_need_is_outlasted_only_while_that_is_cheaper_than_a_start() {
        // A minute costs 6 GB-s, a cold start 80.55, and a start ahead of the need about 1.
        for (chances, crowd, expect) in [
            (&[0.2, 0.0][..], 1.0, (true, true)),
            (&[0.05, 0.0], 1.0, (false, false)),
            (&[0.05, 0.0], 3.0, (true, true)),
            (&[0.08, 0.0], 1.0, (true, false)),
            // It may as well be started again in time.
            (&[0.0, 1.0], 1.0, (false, false)),
            (&[0.04, 0.04, 0.04, 1.0], 1.0, (false, false)),
            (&[], 1.0, (false, false)),
        ] {
            assert_eq!(decided(chances, crowd), expect, "{chances:?} {crowd}");
        }
    }

    proptest::proptest! {
        /// Or the core would start and stop the same instance at one instant, without end.
        #[test]
        fn what_is_worth_starting_is_worth_keeping(
            chances in proptest::collection::vec((0.0f64..1.0, 1u64..200), 1..10),
            ready in 0usize..5, passed in 0.0f64..1.0, lead_part in 0.0f64..1.0, crowd in 1.0f64..5.0,
        ) {
            let bins: Vec<Chance> = chances
                .iter()
                .map(|&(chance, seconds)| Chance { chance: chance * chance, within: Span::from_secs(seconds) })
                .collect();
            let ready = ready.min(bins.len() - 1);
            let passed = Span((bins[0].within.0 as f64 * passed) as u64);
            let (from, left) = if ready == 0 { (passed, bins[0].within - passed) } else { (Span::ZERO, bins[ready].within) };
            let then = from + Span((left.0 as f64 * lead_part) as u64);
            let before: u64 = bins[..ready].iter().map(|b| b.within.0).sum();
            let start = Span(before + then.0 - passed.0);
            let spec = ServiceSpec::named(ServiceId(0), "s");
            let view = View { start, ..view(&spec, 0, None) };
            let level = LevelChances::of(&bins).seen_from([passed, then], ready);
            let [keep, begin] = [true, false].map(|up| price(&level, up, &view, crowd, CORE_MILLI_GB).is_hot());
            proptest::prop_assert!(keep || !begin, "{level:?}");
        }
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
