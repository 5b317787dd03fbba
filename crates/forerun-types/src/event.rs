//! What goes into the decision core and what comes out of it.

use crate::{
    Generation, InstanceId, Mode, Override, RouterId, ServiceId, ServiceRoute, ServiceSpec, SiteId, SiteSpec,
    Span, Time, Traffic, UserKey,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// A service's mean concurrency over one whole period that has just ended, from a source that tells no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeriodLoad {
    pub service: ServiceId,
    /// Thousandths of an instance that was busy on average, rounded up.
    pub busy_milli: u64,
    /// Instances that were needed at once.
    pub needed: u32,
}

/// All that the core learns of the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A new life of the engine: whatever ran before and is not adopted is gone.
    Began,
    Site(SiteSpec),
    /// A service was added, or is now described so.
    Service(Arc<ServiceSpec>),
    ServiceGone(ServiceId),
    /// Local time of a service is this many seconds ahead of UTC from now on.
    ZoneOffset {
        service: ServiceId,
        seconds: i32,
    },
    Override {
        service: ServiceId,
        order: Override,
    },
    Tick,
    Traffic(Traffic),
    /// A request found no instance that could take it and is held; so many are held for the service now.
    Waiting {
        router: RouterId,
        service: ServiceId,
        user: UserKey,
        waiting: u32,
    },
    /// A held request's client went away or its time ran out; so many are still held.
    Abandoned {
        router: RouterId,
        service: ServiceId,
        waiting: u32,
    },
    /// Loads of whole periods, the period that ended at `now`.
    PeriodLoads {
        period: Span,
        loads: Vec<PeriodLoad>,
    },
    Ready {
        instance: InstanceId,
        address: SocketAddr,
        took: Span,
    },
    StartFailed {
        instance: InstanceId,
        why: String,
    },
    /// An instance is gone without having been asked to.
    Died {
        instance: InstanceId,
        why: String,
    },
    /// An instance that was ordered to stop is known to be gone.
    Stopped {
        instance: InstanceId,
    },
    InstanceUsage {
        instance: InstanceId,
        memory_bytes: u64,
        cpu: Span,
    },
    /// A router has nothing in flight on an instance that is absent from its table of this generation.
    Quiesced {
        router: RouterId,
        instance: InstanceId,
        generation: Generation,
    },
    RouterJoined(RouterId),
    /// A router's lease has ended, or it said goodbye.
    RouterLeft(RouterId),
    /// The wall clock jumped by so many microseconds; `now` did not.
    ClockJumped {
        micros: i64,
    },
    Forget(UserKey),
    /// Stop everything and start nothing more.
    ShutDown,
    /// A backend has something of a service that runs, or is frozen, and that no order of this life made: it was
    /// there before, or a person started it. The core answers with [`Action::Adopt`].
    Found {
        service: ServiceId,
        /// The backend's own name for it.
        handle: String,
        /// The instance that it was in an earlier life of this installation.
        was: Option<InstanceId>,
        address: SocketAddr,
        paused: bool,
    },
    Paused {
        instance: InstanceId,
    },
    /// A frozen instance takes requests again.
    Resumed {
        instance: InstanceId,
        took: Span,
    },
    /// A pause, a resume or a change for a key was not carried out; the instance is what it was.
    NotChanged {
        instance: InstanceId,
        why: String,
    },
    /// A generic instance is its key's.
    Specialised {
        instance: InstanceId,
        took: Span,
    },
    /// A person stopped, past Forerun, what a service's instance ran in: it stays stopped until a person starts it
    /// or tells Forerun to.
    StoppedByHand {
        instance: InstanceId,
        why: String,
    },
    /// An instance ended by itself as it was meant to (exit code 0, and not to be restarted).
    Completed {
        instance: InstanceId,
    },
    /// What a start is at, for those who wait: `pulling 40%`.
    Progress {
        instance: InstanceId,
        what: String,
    },
    /// Whether an instance that is to be stopped may be; the answer to [`Action::AskBusy`].
    BusyAnswer {
        instance: InstanceId,
        busy: bool,
        why: String,
    },
    /// A person's word on how far Forerun goes with a service; `None` takes it back.
    ModeTold {
        service: ServiceId,
        mode: Option<Mode>,
    },
    /// Bytes over the network and to and from disks since an instance's start, beside [`Event::InstanceUsage`].
    InstanceTraffic {
        instance: InstanceId,
        network_bytes: u64,
        storage_bytes: u64,
    },
    /// A router has met a key of a service that specialises, and knows no variant for it.
    KeySeen {
        service: ServiceId,
        key: String,
    },
    /// What a service runs in is there and stopped, or could be made (`there`); or it is gone, and nothing can start.
    /// Told once for every service that a backend knows after each listing, after that service's `Found`s: until
    /// then the plan starts nothing for a service whose instances may outlive Forerun.
    OwnState {
        service: ServiceId,
        there: bool,
    },
    /// What an instance runs in is the user's own, and not made from it: of several it is the last to go.
    IsOwn {
        instance: InstanceId,
    },
    /// A router has sent the first request to an instance that a key could still claim ([`crate::Access::Unclaimed`]).
    /// Told before anything that the router tells of the instance later, so that before its [`Event::Quiesced`] it
    /// is known whether the instance was ever used.
    Touched {
        router: RouterId,
        instance: InstanceId,
    },
    /// A model outside of the core says what load is to come. It is weighed like any model of the core's, by its record.
    ExternalPrediction {
        service: ServiceId,
        /// When the first step begins.
        from: Time,
        step: Span,
        /// The most requests at a time in each step, in thousandths: the quantiles .1, .5, .9, .95 and .99.
        quantiles_milli: Vec<[u32; 5]>,
    },
    /// Requests and dials in a row that an instance has not answered, as one router sees it; no `tries` takes that
    /// back: it has answered, or is answering.
    Unanswered {
        router: RouterId,
        instance: InstanceId,
        tries: u32,
        /// Of those, requests whose client went away first: what the instance would have done is not known.
        left: u32,
        /// From the beginning of the first try to the end of the last.
        silent: Span,
    },
    /// So many cold starts are allowed among a million requests of an SLA class from now on; 0 is no budget.
    ColdStartBudget {
        class: String,
        ppm: u32,
    },
}

/// Why an instance is wanted or not, in numbers that a person can check.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// A request is held for it.
    Waiting {
        waiting: u32,
    },
    /// In use, or needed at the load of now.
    InUse {
        needed: u32,
    },
    /// The chance (in millionths) that it is needed within `within`, what that is worth and what keeping it costs
    /// over that time, both in thousandths of a GB-second.
    Priced {
        chance_ppm: u32,
        within: Span,
        worth_milli_gbs: u64,
        cost_milli_gbs: u64,
    },
    /// A fixed keep-alive: idle for so long of so much.
    KeepAlive {
        idle: Span,
        keep: Span,
    },
    /// `min`, `max`, a schedule or a person's word decided.
    Bound {
        what: String,
    },
    /// Room was needed for something worth more; both per GB of memory and hour. A worth beyond all prices is a held
    /// request, or what a bound demands.
    Evicted {
        for_service: ServiceId,
        worth_milli_gbs: u64,
        lost_milli_gbs: u64,
    },
    /// It failed or died.
    Failed {
        why: String,
    },
    ShutDown,
    /// Room was needed for a service of another class that goes before its own, whatever it was worth.
    Preempted {
        for_service: ServiceId,
        /// It is taken for what is guaranteed to that class, and not only because of its priority.
        guaranteed: bool,
        what: String,
    },
    /// Foresight is not believed for the service now, since its last gaps would have cost more by it than by the
    /// reactive rule, which keeps what is idle for a set time and starts nothing ahead.
    Reactive {
        idle: Span,
        keep: Span,
        foresight_milli_gbs: u64,
        reactive_milli_gbs: u64,
    },
}

/// Why an instance is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopWhy {
    /// The plan no longer wants it.
    Plan,
    /// Room for something worth more.
    Evicted,
    /// It was not ready in time.
    StartTimeout,
    /// Forerun is shutting down, or the service is gone.
    ShutDown,
    /// It takes requests and answers none.
    Wedged,
}

/// What the core orders. Executors carry it out and choose nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// From now on the plan wants so many instances of a service, busy ones included.
    Want {
        service: ServiceId,
        site: SiteId,
        instances: u32,
        reason: Reason,
    },
    /// The instance id is the idempotency key: a second order for it changes nothing.
    Start {
        instance: InstanceId,
        generation: Generation,
        service: ServiceId,
        site: SiteId,
        spec: Arc<ServiceSpec>,
        reason: Reason,
    },
    /// End an instance: TERM, then KILL when `grace` is over.
    Stop {
        instance: InstanceId,
        generation: Generation,
        grace: Span,
        why: StopWhy,
        reason: Reason,
    },
    /// The route table's entry for a service from this generation on; `None` takes it out.
    Route {
        generation: Generation,
        service: ServiceId,
        route: Option<Arc<ServiceRoute>>,
    },
    /// Everything has stopped after [`Event::ShutDown`].
    Finished,
    /// What the backend found is this instance from now on.
    Adopt {
        instance: InstanceId,
        generation: Generation,
        service: ServiceId,
        handle: String,
        spec: Arc<ServiceSpec>,
    },
    Pause {
        instance: InstanceId,
        generation: Generation,
        reason: Reason,
    },
    Resume {
        instance: InstanceId,
        generation: Generation,
        reason: Reason,
    },
    /// Make a generic instance its variant's, for good.
    Specialise {
        instance: InstanceId,
        generation: Generation,
        spec: Arc<ServiceSpec>,
        reason: Reason,
    },
    /// Ask whether an instance is busy, before it is stopped.
    AskBusy {
        instance: InstanceId,
        generation: Generation,
        spec: Arc<ServiceSpec>,
    },
    /// An instance is Forerun's no more: what it is goes on as it is. Nothing is ordered.
    LetGo {
        instance: InstanceId,
        generation: Generation,
        reason: Reason,
    },
    /// What is only advised on would go from so many instances to so many. Nothing is ordered.
    Advise {
        service: ServiceId,
        site: SiteId,
        from: u32,
        to: u32,
        reason: Reason,
    },
}

/// No plan offers so much.
const BEYOND_PRICE: u64 = 1 << 60;

impl Reason {
    /// What would be done for this reason about a service that has `from` instances and is to have `to`.
    #[must_use]
    pub fn would(&self, from: u32, to: u32) -> String {
        let (verb, count) = if to > from { ("start", to - from) } else { ("stop", from - to) };
        format!("would {verb} {count}: {}", self.sentence())
    }

    /// One sentence for `status` and the journal.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Reason::Waiting { waiting } => format!("{waiting} request(s) held with no instance to take them"),
            Reason::InUse { needed } => format!("{needed} needed at the load of now"),
            Reason::Priced { chance_ppm, within, worth_milli_gbs, cost_milli_gbs } => format!(
                "{:.1}% chance of need within {within}, worth {:.2} GB-s, costs {:.2} GB-s",
                f64::from(*chance_ppm) / 1e4,
                *worth_milli_gbs as f64 / 1e3,
                *cost_milli_gbs as f64 / 1e3
            ),
            Reason::KeepAlive { idle, keep } => format!("idle for {idle} of {keep}"),
            Reason::Reactive { idle, keep, foresight_milli_gbs, reactive_milli_gbs } => format!(
                "idle for {idle} of {keep}, by the reactive rule: of late its foresight would have cost {:.1} GB-s \
                 and the rule {:.1}",
                *foresight_milli_gbs as f64 / 1e3,
                *reactive_milli_gbs as f64 / 1e3
            ),
            Reason::Bound { what } => what.clone(),
            Reason::Evicted { for_service, worth_milli_gbs, lost_milli_gbs } => {
                let lost = *lost_milli_gbs as f64 / 1e3;
                if *worth_milli_gbs >= BEYOND_PRICE {
                    return format!(
                        "room for service {for_service}, which needs it now; it was worth {lost:.1} GB-s per GB and hour"
                    );
                }
                let worth = *worth_milli_gbs as f64 / 1e3;
                format!(
                    "room for service {for_service}: worth {worth:.1} GB-s per GB and hour there, {lost:.1} here"
                )
            }
            Reason::Failed { why } => why.clone(),
            Reason::ShutDown => "Forerun is shutting down".to_owned(),
            Reason::Preempted { for_service, what, .. } => format!("room for service {for_service}: {what}"),
        }
    }

    /// The label for `forerun_decisions_total{reason}`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Reason::Waiting { .. } => "waiting",
            Reason::InUse { .. } => "in_use",
            Reason::Priced { .. } => "priced",
            Reason::KeepAlive { .. } => "keep_alive",
            Reason::Bound { .. } => "bound",
            Reason::Evicted { .. } => "evicted",
            Reason::Failed { .. } => "failed",
            Reason::ShutDown => "shut_down",
            Reason::Preempted { .. } => "preempted",
            Reason::Reactive { .. } => "reactive",
        }
    }
}

impl Event {
    /// The instant does not come from the event: see `step`. This is only its name, for metrics and stories.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Event::Began => "began",
            Event::Site(_) => "site",
            Event::Service(_) => "service",
            Event::ServiceGone(_) => "service_gone",
            Event::ZoneOffset { .. } => "zone_offset",
            Event::Override { .. } => "override",
            Event::Tick => "tick",
            Event::Traffic(_) => "traffic",
            Event::Waiting { .. } => "waiting",
            Event::Abandoned { .. } => "abandoned",
            Event::PeriodLoads { .. } => "period_loads",
            Event::Ready { .. } => "ready",
            Event::StartFailed { .. } => "start_failed",
            Event::Died { .. } => "died",
            Event::Stopped { .. } => "stopped",
            Event::InstanceUsage { .. } => "instance_usage",
            Event::Quiesced { .. } => "quiesced",
            Event::RouterJoined(_) => "router_joined",
            Event::RouterLeft(_) => "router_left",
            Event::ClockJumped { .. } => "clock_jumped",
            Event::Forget(_) => "forget",
            Event::ShutDown => "shut_down",
            Event::Found { .. } => "found",
            Event::Paused { .. } => "paused",
            Event::Resumed { .. } => "resumed",
            Event::NotChanged { .. } => "not_changed",
            Event::Specialised { .. } => "specialised",
            Event::StoppedByHand { .. } => "stopped_by_hand",
            Event::Completed { .. } => "completed",
            Event::Progress { .. } => "progress",
            Event::BusyAnswer { .. } => "busy_answer",
            Event::ModeTold { .. } => "mode_told",
            Event::InstanceTraffic { .. } => "instance_traffic",
            Event::KeySeen { .. } => "key_seen",
            Event::OwnState { .. } => "own_state",
            Event::IsOwn { .. } => "is_own",
            Event::Touched { .. } => "touched",
            Event::ExternalPrediction { .. } => "external_prediction",
            Event::Unanswered { .. } => "unanswered",
            Event::ColdStartBudget { .. } => "cold_start_budget",
        }
    }
}

impl Override {
    #[must_use]
    pub fn holds_at(&self, now: Time) -> bool {
        self.instances.is_some() && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evictions_read_like_a_person_would_say_them() {
        let evicted = |worth_milli_gbs| Reason::Evicted {
            for_service: ServiceId(3),
            worth_milli_gbs,
            lost_milli_gbs: 1_500,
        };
        assert_eq!(
            evicted(12_300).sentence(),
            "room for service s3: worth 12.3 GB-s per GB and hour there, 1.5 here"
        );
        let held = evicted(i64::MAX.unsigned_abs()).sentence();
        assert_eq!(held, "room for service s3, which needs it now; it was worth 1.5 GB-s per GB and hour");
    }
}
