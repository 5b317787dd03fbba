//! The policies that a running engine can be given, by their names.

use crate::forerun::Forerun;
use crate::keep_alive::KeepAlive;
use crate::policy::{LevelValue, Policy, View};
use crate::trust::Track;
use forerun_types::{Activity, ServiceId, Span, Time, UserKey};
use serde::{Deserialize, Serialize};

/// One of the policies that decide from what has been seen so far.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AnyPolicy {
    Forerun(Box<Forerun>),
    KeepAlive(KeepAlive),
}

impl AnyPolicy {
    /// `forerun`, its ablations (`forerun-no-users`, `forerun-no-load`, `forerun-no-users-no-load`), `none`, or
    /// `keep-alive` with its time given beside it.
    #[must_use]
    pub fn named(name: &str, keep: Option<Span>, memory_bytes_max: u64) -> Option<Self> {
        let forerun = |make: fn(u64) -> Forerun| Some(Self::Forerun(Box::new(make(memory_bytes_max))));
        match (name, keep) {
            ("forerun", None) => forerun(Forerun::new),
            ("forerun-no-users", None) => forerun(Forerun::without_users),
            ("forerun-no-load", None) => forerun(Forerun::without_load),
            ("forerun-no-users-no-load", None) => forerun(Forerun::without_either),
            ("none", None) => Some(Self::KeepAlive(KeepAlive::new(Span::ZERO))),
            ("keep-alive", Some(keep)) => Some(Self::KeepAlive(KeepAlive::new(keep))),
            _ => None,
        }
    }

    /// What a core costs, as thousandths of a GB of memory over the same time. Policies without prices go without.
    pub fn set_core_price(&mut self, milli_gb: u64) {
        match self {
            Self::Forerun(policy) => policy.set_core_price(milli_gb),
            Self::KeepAlive(_) => {}
        }
    }

    fn inner(&mut self) -> &mut dyn Policy {
        match self {
            Self::Forerun(policy) => policy.as_mut(),
            Self::KeepAlive(policy) => policy,
        }
    }
}

impl Policy for AnyPolicy {
    fn service(&mut self, view: &View<'_>) {
        self.inner().service(view);
    }

    fn service_gone(&mut self, service: ServiceId) {
        self.inner().service_gone(service);
    }

    fn activity(&mut self, activity: &Activity, touched: &mut Vec<ServiceId>) {
        self.inner().activity(activity, touched);
    }

    fn keyed(&mut self, activity: &Activity, parent: ServiceId) {
        self.inner().keyed(activity, parent);
    }

    fn needed(&mut self, now: Time, service: ServiceId, peak: u32, needed: u32) {
        self.inner().needed(now, service, peak, needed);
    }

    fn period(&mut self, now: Time, service: ServiceId, period: Span, needed: u32) {
        self.inner().period(now, service, period, needed);
    }

    fn forget(&mut self, user: UserKey) {
        self.inner().forget(user);
    }

    fn appraise(&mut self, now: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time {
        self.inner().appraise(now, view, values)
    }

    fn next_stop(&self, now: Time, view: &View<'_>) -> Option<Time> {
        match self {
            Self::Forerun(policy) => policy.next_stop(now, view),
            Self::KeepAlive(policy) => policy.next_stop(now, view),
        }
    }

    fn track(&self, service: ServiceId) -> Option<Track> {
        match self {
            Self::Forerun(policy) => policy.track(service),
            Self::KeepAlive(policy) => policy.track(service),
        }
    }
}
