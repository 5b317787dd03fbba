//! Steps as formats 1 and 2 wrote them: a service was described in fewer words then. Frozen; only ever read.

use super::change::Change;
use forerun_types::{
    Event, Generation, HoldLimits, InstanceId, Launch, Mode, Override, PeriodLoad, Readiness, Resources,
    RouteRule, RouterId, Schedule, ServiceId, ServiceSpec, SiteSpec, SlaClass, Span, Time, Traffic, UserFrom,
    UserKey,
};
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Deserialize)]
struct OldService {
    id: ServiceId,
    name: String,
    tenant: String,
    group: Option<String>,
    backend: String,
    launch: Launch,
    route: RouteRule,
    ready: Readiness,
    port: Option<u16>,
    start_timeout: Span,
    start_estimate: Span,
    drain_timeout: Span,
    resources: Resources,
    concurrency: u32,
    min: u32,
    max: u32,
    schedules: Vec<Schedule>,
    sla: SlaClass,
    mode: Mode,
    user: UserFrom,
    hold: HoldLimits,
    grain: Span,
}

impl From<OldService> for ServiceSpec {
    fn from(old: OldService) -> Self {
        Self {
            tenant: old.tenant,
            group: old.group,
            backend: old.backend,
            launch: old.launch,
            route: old.route,
            ready: old.ready,
            port: old.port,
            start_timeout: old.start_timeout,
            start_estimate: old.start_estimate,
            drain_timeout: old.drain_timeout,
            resources: old.resources,
            concurrency: old.concurrency,
            min: old.min,
            max: old.max,
            schedules: old.schedules,
            sla: old.sla,
            mode: old.mode,
            user: old.user,
            hold: old.hold,
            grain: old.grain,
            ..ServiceSpec::named(old.id, old.name)
        }
    }
}

/// In the order of their numbers on the disk.
#[derive(Deserialize)]
enum OldEvent {
    Began,
    Site(SiteSpec),
    Service(Box<OldService>),
    ServiceGone(ServiceId),
    ZoneOffset { service: ServiceId, seconds: i32 },
    Override { service: ServiceId, order: Override },
    Tick,
    Traffic(Traffic),
    Waiting { router: RouterId, service: ServiceId, user: UserKey, waiting: u32 },
    Abandoned { router: RouterId, service: ServiceId, waiting: u32 },
    PeriodLoads { period: Span, loads: Vec<PeriodLoad> },
    Ready { instance: InstanceId, address: SocketAddr, took: Span },
    StartFailed { instance: InstanceId, why: String },
    Died { instance: InstanceId, why: String },
    Stopped { instance: InstanceId },
    InstanceUsage { instance: InstanceId, memory_bytes: u64, cpu: Span },
    Quiesced { router: RouterId, instance: InstanceId, generation: Generation },
    RouterJoined(RouterId),
    RouterLeft(RouterId),
    ClockJumped { micros: i64 },
    Forget(UserKey),
    ShutDown,
}

impl From<OldEvent> for Event {
    fn from(old: OldEvent) -> Self {
        match old {
            OldEvent::Began => Event::Began,
            OldEvent::Site(site) => Event::Site(site),
            OldEvent::Service(service) => Event::Service(Arc::new((*service).into())),
            OldEvent::ServiceGone(service) => Event::ServiceGone(service),
            OldEvent::ZoneOffset { service, seconds } => Event::ZoneOffset { service, seconds },
            OldEvent::Override { service, order } => Event::Override { service, order },
            OldEvent::Tick => Event::Tick,
            OldEvent::Traffic(traffic) => Event::Traffic(traffic),
            OldEvent::Waiting { router, service, user, waiting } => {
                Event::Waiting { router, service, user, waiting }
            }
            OldEvent::Abandoned { router, service, waiting } => Event::Abandoned { router, service, waiting },
            OldEvent::PeriodLoads { period, loads } => Event::PeriodLoads { period, loads },
            OldEvent::Ready { instance, address, took } => Event::Ready { instance, address, took },
            OldEvent::StartFailed { instance, why } => Event::StartFailed { instance, why },
            OldEvent::Died { instance, why } => Event::Died { instance, why },
            OldEvent::Stopped { instance } => Event::Stopped { instance },
            OldEvent::InstanceUsage { instance, memory_bytes, cpu } => {
                Event::InstanceUsage { instance, memory_bytes, cpu }
            }
            OldEvent::Quiesced { router, instance, generation } => {
                Event::Quiesced { router, instance, generation }
            }
            OldEvent::RouterJoined(router) => Event::RouterJoined(router),
            OldEvent::RouterLeft(router) => Event::RouterLeft(router),
            OldEvent::ClockJumped { micros } => Event::ClockJumped { micros },
            OldEvent::Forget(user) => Event::Forget(user),
            OldEvent::ShutDown => Event::ShutDown,
        }
    }
}

/// Format 1: instant, hash of the actions, event.
#[derive(Deserialize)]
pub(super) struct PlainStep(Time, u64, OldEvent);

/// Format 2: the same and the changes.
#[derive(Deserialize)]
pub(super) struct BlockStep(Time, u64, OldEvent, Vec<Change>);

impl From<PlainStep> for super::record::Step {
    fn from(PlainStep(now, actions_hash, event): PlainStep) -> Self {
        Self { now, actions_hash, event: event.into(), changes: Vec::new() }
    }
}

impl From<BlockStep> for super::record::Step {
    fn from(BlockStep(now, actions_hash, event, changes): BlockStep) -> Self {
        Self { now, actions_hash, event: event.into(), changes }
    }
}
