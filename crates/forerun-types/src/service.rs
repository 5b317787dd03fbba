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

impl Resources {
    /// Whether there is more of anything than in `other`.
    #[must_use]
    pub fn exceeds(&self, other: &Resources) -> bool {
        self.cpu_milli > other.cpu_milli
            || self.memory_bytes > other.memory_bytes
            || self.network_bytes_per_s > other.network_bytes_per_s
            || self.storage_bytes > other.storage_bytes
    }
}

/// How an instance is brought up. The core reads of it only at which site that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Launch {
    /// A command with its arguments; `{port}` in an argument or a value becomes the instance's port, which it also
    /// finds in `PORT`.
    Process { command: Vec<String>, env: BTreeMap<String, String>, folder: Option<String> },
    /// Modelled by the lab: ready so long after the order.
    Modelled,
    /// A container of an engine.
    Container(Container),
    /// Shell lines that start, stop and ask for something that Forerun does not run itself.
    Command(Lines),
}

impl Launch {
    /// The name of the site that an instance must be at; `None` is the first site.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        match self {
            Launch::Container(container) if !container.engine.is_empty() => Some(&container.engine),
            _ => None,
        }
    }
}

/// How a container is made, or which one is the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Which engine, by the name of its site; empty is the first one's.
    pub engine: String,
    /// The user's own container by name, which is the first instance and which more are cloned from. Without one,
    /// all are made from `image`.
    pub own: Option<String>,
    pub image: String,
    /// Instead of the image's own command, unless empty.
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// `SOURCE:TARGET[:ro]`.
    pub mounts: Vec<String>,
    /// Networks to join, by name.
    pub networks: Vec<String>,
    /// What `restart:` says of the user's own container: `no`, `always`, `unless-stopped`, `on-failure`.
    pub restart: String,
}

/// Shell lines; `FORERUN_INSTANCE`, `FORERUN_SERVICE` and `PORT` stand in their environment. Exit 0 is yes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    pub start: String,
    pub stop: String,
    /// Whether it runs; asked now and then. Empty: as long as nobody stopped it.
    pub state: String,
    /// Whether it is ready; empty leaves that to `ready`.
    pub ready: String,
    /// Where requests go: host and port.
    pub address: String,
    pub env: BTreeMap<String, String>,
    pub folder: Option<String>,
}

/// Another service that has to be there first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub service: String,
    pub until: DependsUntil,
}

/// What a dependency must have reached before the start of what depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DependsUntil {
    /// Its start has been ordered.
    Started,
    #[default]
    Ready,
    /// It has ended with exit code 0, now or at any time before.
    Completed,
}

/// What an instance specialised for a key gets; `{key}` is replaced in texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specialise {
    pub by: KeyFrom,
    /// The only keys, or empty for those that requests bring.
    pub keys: Vec<String>,
    /// Distinct keys that live at a time.
    pub keys_max: u32,
    pub env: BTreeMap<String, String>,
    pub args: Vec<String>,
    /// Path in the instance, and its content.
    pub files: BTreeMap<String, String>,
    pub mounts: Vec<String>,
    /// Paths that are requested of the instance before it counts as ready.
    pub preload: Vec<String>,
    /// How a running generic instance becomes a key's; `None`: only a start makes one.
    pub hook: Option<Hook>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// A POST of this path at the instance's port answers 2xx.
    Http { path: String },
    /// A command in the instance exits with 0. A process gets it run beside it, with `PORT` and `FORERUN_KEY`.
    Command(Vec<String>),
}

/// Where a request's key stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyFrom {
    #[default]
    User,
    Group,
    Tenant,
    Header(String),
    /// Segment of the path, from 0.
    Path(u32),
}

/// A service that stands for another one's instances of one key. Requests reach it through its parent's route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub of: ServiceId,
    pub key: String,
}

impl Variant {
    /// Bytes of a key.
    pub const KEY_BYTES_MAX: usize = 128;

    /// What stands for a key in [`crate::Access`]: the 64 bits of FNV-1a.
    #[must_use]
    pub fn access_key(key: &str) -> u64 {
        key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// Which requests neither wake a service nor count as a person's activity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeRules {
    /// In addition to Forerun's own list, unless `defaults` is off.
    pub methods: Vec<String>,
    /// Path prefixes that end at a segment.
    pub paths: Vec<String>,
    /// Parts of a user agent's name, lower case.
    pub agents: Vec<String>,
    /// Networks, as `10.0.0.0/8`.
    pub addresses: Vec<String>,
    /// Whether Forerun's own list of probes, bots and prefetches is left out.
    pub no_defaults: bool,
    /// Status that a sleeping service's probe gets; 0 is 200.
    pub asleep_status: u16,
    /// Wakes that one client address may cause a minute; 0 is any number.
    pub per_minute: u32,
}

/// Asked before a stop: a service that says that it is busy is left alone. No answer is busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Busy {
    /// A GET of this path; with a pointer (RFC 6901), busy when what stands there in the JSON is not null, false, 0,
    /// empty; without one, busy unless it answers 204 or 404.
    Http { path: String, pointer: Option<String> },
    /// Exit 0 is busy.
    Command(Vec<String>),
    /// CPU over the last seconds above this, in thousandths of a core.
    Cpu { milli: u64 },
    /// Network over the last seconds above this, in bytes a second.
    Network { bytes_per_s: u64 },
}

/// What a client sees while its request waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldStyle {
    /// A person's browser that goes to a page gets a waiting page; everything else is held.
    Auto,
    /// Everything is held.
    #[default]
    Wait,
    /// Every GET gets the page; what has a body is held, since a page loaded again would not send it again.
    Page,
}

/// Who may wake a service: asked before a request counts as anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Auth {
    /// A GET of this URL with the request's own head answers 2xx; anything else is the client's answer.
    Forward { url: String },
    /// User, and blake3 of the password in hexadecimal.
    Basic { users: BTreeMap<String, String> },
    /// `Authorization: Bearer`, as blake3 in hexadecimal.
    Token { hashes: Vec<String> },
}

/// What of a service's answers the router's cache may keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRules {
    /// A larger body is not kept.
    pub body_bytes_max: u64,
    /// Answers to one URL that differ by what `Vary` names; the oldest gives way.
    pub variants_max: u32,
    /// How long a request waits for another that fetches the same.
    pub wait: Span,
    /// How long a 404 or 410 is kept that does not say so itself; zero keeps none.
    pub missing: Span,
    /// How long after its end an answer may be served in place of an error, where it does not say so itself.
    pub stale_if_error: Span,
}

impl Default for CacheRules {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            variants_max: 16,
            wait: Span::from_secs(5),
            missing: Span::ZERO,
            stale_if_error: Span::ZERO,
        }
    }
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
    /// It runs: nothing is asked.
    None,
    /// The container's own health check says so; where it has none, the port accepts a connection.
    Health,
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
    /// Cold starts that are allowed among a million of its requests; 0 where nothing is said of that. Not written with
    /// the class, for which the journal's format has no room: [`crate::Event::ColdStartBudget`] tells it, and the core's own
    /// descriptions have 0.
    #[serde(skip)]
    pub cold_start_budget_ppm: u32,
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
            cold_start_budget_ppm: 0,
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
    pub depends_on: Vec<Dependency>,
    pub specialise: Option<Specialise>,
    pub variant: Option<Variant>,
    pub wake: WakeRules,
    pub busy: Option<Busy>,
    /// The longest that `busy` puts a stop off.
    pub busy_max: Span,
    /// An instance is kept at least so long after its last use.
    pub keep_at_least: Span,
    /// Services, or groups of them, that do not run while this one does.
    pub excludes: Vec<String>,
    pub hold_style: HoldStyle,
    pub auth: Option<Auth>,
    /// Instances may be frozen instead of stopped, where the backend can.
    pub pausable: bool,
    /// How long after it is ready an instance is left alone before requests go there.
    pub settle: Span,
    /// Found by itself and not written by a person in a file.
    pub found: bool,
    /// Takes no requests, whatever `route` says: it is there for those that depend on it.
    pub unrouted: bool,
    /// The last lines of what failed are kept from those who wait for it.
    pub hide_log: bool,
    /// What the router's cache keeps of it; `None` is nothing. No journal holds it: it decides nothing that is replayed.
    #[serde(skip)]
    pub cache: Option<CacheRules>,
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
            depends_on: Vec::new(),
            specialise: None,
            variant: None,
            wake: WakeRules::default(),
            busy: None,
            busy_max: Span::from_secs(24 * 3_600),
            keep_at_least: Span::ZERO,
            excludes: Vec::new(),
            hold_style: HoldStyle::default(),
            auth: None,
            pausable: false,
            settle: Span::ZERO,
            found: false,
            unrouted: false,
            hide_log: false,
            cache: None,
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
