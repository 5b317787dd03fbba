//! Validated descriptions: of services, their classes and limits, and of sites. Made once, at the edge.

use crate::{ServiceId, SiteId, Span, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one instance is given or counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub network_bytes_per_s: u64,
    pub storage_bytes: u64,
}

/// How an instance is brought up. The core hands it on unread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Launch {
    /// A command with its arguments; `{port}` in an argument or a value becomes the instance's port, which it also
    /// finds in `PORT`.
    Process { command: Vec<String>, env: BTreeMap<String, String>, folder: Option<String> },
    /// Modelled by the lab: ready so long after the order.
    Modelled,
}

/// When an instance counts as ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// A GET of this path on the instance's port answers 2xx or 3xx.
    Http { path: String },
    /// The port accepts a connection.
    Tcp,
    /// A line of its output contains this text.
    Log { text: String },
}

/// Which requests are for a service. Empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRule {
    /// Lower case, without port; `*.example.com` matches one or more labels in front.
    pub hosts: Vec<String>,
    /// Prefixes that end at a segment: `/api` matches `/api` and `/api/x`, not `/apix`.
    pub paths: Vec<String>,
}

/// Where the user's identity stands in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserFrom {
    Header(String),
    Cookie(String),
    #[default]
    Address,
    /// Users are not told apart.
    None,
}

/// Limits on requests that wait for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldLimits {
    pub requests_max: u32,
    /// Bytes of request heads and buffered bodies held for the service.
    pub bytes_max: u64,
    pub timeout: Span,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self { requests_max: 1_000, bytes_max: 64 << 20, timeout: Span::from_secs(60) }
    }
}

/// Priority and promises that several services can share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaClass {
    pub name: String,
    /// Larger goes first.
    pub priority: u8,
    /// Share of a site's capacity that is this class's own, in thousandths.
    pub guarantee_milli: u32,
    /// The wait that its requests should stay within.
    pub latency: Span,
    /// What one cold start is worth, in thousandths of a GB-second.
    pub cold_start_milli_gbs: u64,
    /// How soon lent capacity must come back.
    pub reclaim_max: Span,
}

impl Default for SlaClass {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            priority: 100,
            guarantee_milli: 0,
            latency: Span::from_millis(500),
            // FeMux's objective (EuroSys '26): 0.808 s a cold start, 99.69 GB-seconds a second.
            cold_start_milli_gbs: 80_550,
            reclaim_max: Span::from_secs(10),
        }
    }
}

/// How far Forerun may go with a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Learn and show; change nothing outside.
    Observe,
    /// The same, and say what it would do.
    Advise,
    #[default]
    Act,
}

/// A window in which a least number of instances is wanted: it opens when a minute matches the five cron fields
/// (bit n set = value n matches), in the service's local time, and stays open for `open_for`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    pub minutes: u64,
    pub hours: u32,
    pub days: u32,
    pub months: u16,
    /// 0 = Sunday.
    pub weekdays: u8,
    /// Cron's rule: when neither field is `*`, a day matches if either does.
    pub either_day: bool,
    pub open_for: Span,
    pub min: u32,
}

/// A person's word, which bounds the plan until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Exactly so many instances; `None` takes the override back.
    pub instances: Option<u32>,
    pub until: Time,
}

/// A service as the core, the router and a backend need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub id: ServiceId,
    pub name: String,
    pub tenant: String,
    pub group: Option<String>,
    /// Which backend runs it: `process`, `docker`, ...
    pub backend: String,
    pub launch: Launch,
    pub route: RouteRule,
    pub ready: Readiness,
    /// The one port that its instances can listen on; `None` lets the backend give each a free one.
    pub port: Option<u16>,
    /// An instance that is not ready by then is stopped and counts as failed.
    pub start_timeout: Span,
    /// How long a start is thought to take until starts have been seen.
    pub start_estimate: Span,
    /// How long a stop waits for requests in flight, and then for the process to end by itself.
    pub drain_timeout: Span,
    /// What one instance counts for against its site's capacity.
    pub resources: Resources,
    /// Requests that one instance serves at a time; 0 is any number.
    pub concurrency: u32,
    pub min: u32,
    pub max: u32,
    pub schedules: Vec<Schedule>,
    pub sla: SlaClass,
    pub mode: Mode,
    pub user: UserFrom,
    pub hold: HoldLimits,
    /// The grain at which load is learned: gaps shorter than this need not be told apart finely. Zero lets
    /// Forerun take it from the start time.
    pub grain: Span,
}

impl ServiceSpec {
    /// A service with nothing said about it but its name: one request at a time, 1 GB, on the lab's modelled backend.
    #[must_use]
    pub fn named(id: ServiceId, name: impl Into<String>) -> Self {
        Self {
            id,
            name: name.into(),
            tenant: "default".to_owned(),
            group: None,
            backend: "modelled".to_owned(),
            launch: Launch::Modelled,
            route: RouteRule::default(),
            ready: Readiness::Tcp,
            port: None,
            start_timeout: Span::from_secs(60),
            start_estimate: Span::from_secs(10),
            drain_timeout: Span::from_secs(30),
            resources: Resources { memory_bytes: 1_000_000_000, ..Resources::default() },
            concurrency: 1,
            min: 0,
            max: u32::MAX,
            schedules: Vec::new(),
            sla: SlaClass::default(),
            mode: Mode::Act,
            user: UserFrom::default(),
            hold: HoldLimits::default(),
            grain: Span::ZERO,
        }
    }

    /// Instances that so many requests at a time need.
    #[must_use]
    pub fn instances_for(&self, requests: u32) -> u32 {
        match self.concurrency {
            0 => requests.min(1),
            n => requests.div_ceil(n),
        }
    }
}

/// What a site has to give. Zero is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSpec {
    pub id: SiteId,
    pub name: String,
    pub capacity: Resources,
    pub instances_max: u32,
}
