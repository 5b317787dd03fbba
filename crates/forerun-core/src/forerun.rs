//! Forerun's own policy: profiles feed the forecast, the forecast's chances are priced.

use crate::forecast::grid::AgeGrid;
use crate::forecast::users::Expected;
use crate::forecast::{Asked, Forecast, LevelChances};
use crate::policy::{LevelValue, Policy, View};
use crate::price::{costs, price, reactive};
use crate::profile::Profiles;
use crate::profile::keys::KeyHabits;
use crate::trust::{Track, Trust};
use forerun_types::{Activity, ServiceId, ServiceSpec, Span, Time, UserKey};
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
    trust: Trust,
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
            trust: Trust::default(),
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

    /// Has what foresight has just decided of each level judged; where it is not believed, the reactive rule decides.
    /// Returns when that changes next by the mere passing of time.
    fn try_trust(&mut self, now: Time, view: &View<'_>, values: &mut [LevelValue]) -> Time {
        // Freezing is a third way, which the reactive rule does not know; and where room is short it is no rule at
        // all, since what one keeps another lacks.
        if view.resume.is_some() || view.short {
            self.trust.skip(view.spec.id);
            return Time::NEVER;
        }
        let (id, crowd, core) = (view.spec.id, self.crowd(view.spec), self.core_milli_gb);
        let up = view.up.saturating_sub(view.needed) as usize;
        let believed = self.trust.judge(now, id, costs(view, crowd, core));
        let first = self.trust.first_idle(id);
        let mut again = Time::NEVER;
        for (at, (value, level)) in values.iter_mut().zip(&self.scratch).enumerate() {
            let would = self.trust.would_be_up(id, first + at);
            let wants = match would == (at < up) {
                true => value.is_hot(),
                false => price(level, would, view, crowd, core).is_hot(),
            };
            self.trust.decided(now, id, first + at, wants);
            if !believed {
                let (idle, keep) = self.trust.reactive(now, id, first + at).unwrap_or_default();
                let kept = idle < keep && self.trust.is_held(id, first + at);
                if kept {
                    again = again.min(now + (keep - idle));
                }
                *value = reactive(value, kept, view, (idle, keep), core, self.trust.track(id));
            }
        }
        again
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

impl Policy for Forerun {
    fn service(&mut self, view: &View<'_>) {
        self.forecast.service(view.spec.id, AgeGrid::fine(grain(view.spec)));
    }

    fn service_gone(&mut self, service: ServiceId) {
        self.forecast.gone(service);
        self.trust.gone(service);
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
        self.trust.needed(now, service, peak, needed);
    }

    fn period(&mut self, now: Time, service: ServiceId, period: Span, needed: u32) {
        self.forecast.period(now, service, period, needed);
        self.trust.period(now, service, period, needed);
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
        let before = values.len();
        let levels = self.scratch.iter().enumerate();
        values.extend(levels.map(|(at, level)| price(level, at < up, view, crowd, core)));
        again.min(self.try_trust(now, view, &mut values[before..]))
    }

    fn track(&self, service: ServiceId) -> Option<Track> {
        Some(self.trust.track(service)).filter(|track| track.gaps > 0)
    }

    fn next_stop(&self, now: Time, view: &View<'_>) -> Option<Time> {
        let (crowd, core) = (self.crowd(view.spec), self.core_milli_gb);
        if let Some(stop) = self.trust.next_stop(now, view.spec.id) {
            return Some(stop);
        }
        let wanted = |level: &LevelChances| price(level, true, view, crowd, core).is_hot();
        let asked = Asked { lead: view.start, expected: 0.0, own: self.with_load };
        self.forecast.next_stop(now, view.spec.id, &asked, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::Chance;
    use crate::forecast::parts::Falls;
    use forerun_types::Reason;

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
            short: false,
            dearer_milli: 1_000,
        }
    }

    /// What a chance within a minute makes of an instance of 100 MB that starts in 10 s and is there.
    fn check(chance: f64, idle_cpu_milli: u64, resume: Option<Span>) -> (bool, bool) {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let level = LevelChances::of(&[Chance::even(chance, Span::from_secs(60))]);
        let value = price(&level, true, &view(&spec, idle_cpu_milli, resume), 1.0, CORE_MILLI_GB);
        (value.is_hot(), value.is_frozen())
    }

    /// Guarantee: what is not worth its keeping at the configured price is where a cold start counts dearer, and a chance
    /// of nothing never is.
    #[test]
    fn what_counts_dearer_is_kept_at_smaller_chances() {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let kept = |chance: f64, dearer_milli: u32| {
            let level = LevelChances::of(&[Chance::even(chance, Span::from_secs(60))]);
            let view = View { dearer_milli, ..view(&spec, 0, None) };
            price(&level, true, &view, 1.0, CORE_MILLI_GB).is_hot()
        };
        // A minute costs 6 GB-s, and a cold start 80.55, or four times that.
        let at = |chance| [1_000, 4_000].map(|dearer_milli| kept(chance, dearer_milli));
        assert_eq!((at(0.1), at(0.03), at(0.01)), ([true, true], [false, true], [false, false]));
        assert_eq!(at(0.0), [false, false]);
    }

    /// A service whose chances by minute are these: whether it is kept, and whether it is started.
    fn decided(chances: &[f64], crowd: f64) -> (bool, bool) {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let bins: Vec<Chance> =
            chances.iter().map(|&chance| Chance::even(chance, Span::from_secs(60))).collect();
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

    #[test]
    fn what_is_needed_late_in_a_bin_is_started_late_in_it() {
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let late = Falls::of(&std::array::from_fn(|part| f64::from(u8::from(part == 14))));
        let bins =
            [Chance { falls: late, ..Chance::even(0.98, Span::from_secs(120)) }, Chance::even(0.0, Span(1))];
        // Needed between 105 s and 112.5 s; a start takes 10 s.
        for (passed, expect) in
            [(0, [false, false]), (90, [false, false]), (96, [true, true]), (113, [false, false])]
        {
            let at = Span::from_secs(passed);
            let level =
                LevelChances::of(&bins).seen_from([at, at + Span::from_secs(10).min(bins[0].within - at)], 0);
            let hot = [true, false].map(|up| price(&level, up, &view(&spec, 0, None), 1.0, 1).is_hot());
            assert_eq!(hot, expect, "{passed} s");
        }
        // What is evenly spread is worth its keeping at once.
        let even = LevelChances::of(&[Chance::even(0.98, Span::from_secs(120))]);
        assert!(price(&even, true, &view(&spec, 0, None), 1.0, 1).is_hot());
    }

    /// A service that is asked every 30 s, and foresight that is made to have let it go each time.
    fn deceived() -> (Forerun, Time, ServiceSpec) {
        let (mut policy, mut now) = (Forerun::new(1 << 20), Time(1_000_000));
        let spec = ServiceSpec::named(ServiceId(0), "s");
        let seen = view(&spec, 0, None);
        policy.service(&seen);
        for _ in 0..60 {
            policy.needed(now, spec.id, 1, 0);
            policy.trust.judge(now, spec.id, costs(&seen, 1.0, CORE_MILLI_GB));
            policy.trust.decided(now, spec.id, 0, false);
            now += Span::from_secs(30);
        }
        policy.needed(now, spec.id, 1, 0);
        (policy, now, spec)
    }

    #[test]
    fn where_foresight_is_not_believed_what_is_idle_is_kept_for_its_time_and_nothing_starts_ahead() {
        let (mut policy, used, spec) = deceived();
        // 100 MB: a cold start is worth 80.55 GB-s, a start 1, and a second of idling a tenth.
        let keep = Span::from_millis(815_500);
        let mut values = Vec::new();
        let seen = View { up: 1, ..view(&spec, 0, None) };
        let again = policy.appraise(used + Span::from_secs(1), &seen, &mut values);
        assert!(values[0].is_hot() && again <= used + keep, "{values:?}");
        assert!(
            matches!(values[0].reason, Reason::Reactive { keep: told, .. } if told == keep),
            "{values:?}"
        );
        assert_eq!(policy.next_stop(used + Span::from_secs(1), &seen), Some(used + keep));
        let track = policy.track(spec.id).expect("it was tried");
        assert!(track.fallen && track.foresight > 2 * track.reactive, "{track:?}");
        values.clear();
        policy.appraise(used + keep, &view(&spec, 0, None), &mut values);
        assert!(!values[0].is_hot(), "{values:?}");
        // Where room is short the rule is none.
        values.clear();
        policy.appraise(used + keep, &View { short: true, ..seen }, &mut values);
        assert!(matches!(values[0].reason, Reason::Priced { .. }), "{values:?}");
    }

    #[test]
    fn foresight_that_is_right_again_is_believed_again() {
        let (mut policy, mut now, spec) = deceived();
        let seen = View { up: 1, ..view(&spec, 0, None) };
        let mut gaps = 0;
        // It knows by now that the next request comes after 30 s; what it is charged for before fades.
        while gaps == 0 || policy.track(spec.id).is_some_and(|track| track.fallen) {
            let next = now + Span::from_secs(30);
            while now < next {
                now = policy.appraise(now, &seen, &mut Vec::new()).max(now + Span(1)).min(next);
            }
            policy.needed(now, spec.id, 1, 0);
            gaps += 1;
            assert!(gaps < 5_000, "{:?}", policy.track(spec.id));
        }
        assert!(gaps > 10, "a few gaps are chance: {gaps}");
    }

    proptest::proptest! {
        /// Or the core would start and stop the same instance at one instant, without end.
        #[test]
        fn what_is_worth_starting_is_worth_keeping(
            chances in proptest::collection::vec((0.0f64..1.0, 1u64..200, 0u32..1 << 16), 1..10),
            ready in 0usize..5, passed in 0.0f64..1.0, lead_part in 0.0f64..1.0, crowd in 1.0f64..5.0,
        ) {
            let bins: Vec<Chance> = chances
                .iter()
                .map(|&(chance, seconds, parts)| {
                    // Needs fall in some parts only; in all alike if in none.
                    let weights = std::array::from_fn(|part| f64::from(parts >> part & 1));
                    let falls = if parts == 0 { Falls::EVEN } else { Falls::of(&weights) };
                    Chance { falls, ..Chance::even(chance * chance, Span::from_secs(seconds)) }
                })
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
