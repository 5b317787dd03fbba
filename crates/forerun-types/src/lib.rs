//! The records and messages that pass between Forerun's stages: ids, time, units, and nothing that decides.
//!
//! Absent on purpose: IO, clocks, async, and any logic beyond arithmetic on a unit.

mod activity;
mod event;
mod ids;
mod route;
mod service;
mod time;

pub use activity::{Activity, Finished, InstanceLoad, ServiceLoad, Traffic};
pub use event::{Action, Event, PeriodLoad, Reason, StopWhy};
pub use ids::{ActionKey, Generation, GroupKey, InstanceId, RouterId, ServiceId, SiteId, TenantKey, UserKey};
pub use route::{Access, InstanceRoute, RouteTable, ServiceRoute, Unavailable, WaitNotes};
pub use service::{
    Auth, Busy, CacheRules, Container, Dependency, DependsUntil, HoldLimits, HoldStyle, Hook, KeyFrom,
    Launch, Lines, Mode, Override, Readiness, Resources, RouteRule, Schedule, ServiceSpec, SiteSpec,
    SlaClass, Specialise, UserFrom, Variant, WakeRules,
};
pub use time::{Span, Time};
