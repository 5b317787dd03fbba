//! What the API answers with. Names and units here are promises to outside programs; see `docs/api.md`.

use serde::{Deserialize, Serialize};

/// The answer of `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Status {
    pub version: String,
    /// Seconds since 1970 UTC, when this was true.
    pub at: f64,
    pub uptime_seconds: f64,
    pub sites: Vec<SiteStatus>,
    /// Cold-start budgets of SLA classes that have one, in order of their names.
    #[serde(default)]
    pub budgets: Vec<BudgetStatus>,
    /// In order of the configuration.
    pub services: Vec<ServiceStatus>,
    #[serde(default)]
    pub journal: JournalStatus,
    /// Labels that cannot be used and engines that cannot be asked, one line each; what they are about is left alone.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What a person may have forgotten or not know: words that stand for long, labels that are odd, images on their way;
    /// one line each.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// The journal of what happened and was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct JournalStatus {
    /// Bytes on disk.
    pub bytes: u64,
    /// Steps since the start that no segment holds, because the disk failed.
    pub steps_lost: u64,
    /// Why it cannot be written now; `null` while it can.
    pub broken: Option<String>,
}

/// A site's capacity and what is reserved of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct SiteStatus {
    pub name: String,
    /// Bytes that instances may take; 0 is no limit.
    pub memory_capacity_bytes: u64,
    /// Bytes that instances count for, starting and draining ones included.
    pub memory_reserved_bytes: u64,
    pub instances: u32,
    /// The price of memory at the margin: GB-seconds that a GB would save in an hour; 0 while there is room for all.
    pub shadow_price: f64,
}

/// What the last gaps between a service's uses would have cost, older ones counting for less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Trust {
    /// By its foresight, and by the reactive rule beneath it.
    pub foresight_gb_seconds: f64,
    pub reactive_gb_seconds: f64,
    /// Gaps that were ever judged.
    pub gaps: u32,
    /// Foresight has done worse: the reactive rule decides.
    pub fallen: bool,
}

/// What would have been done at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Advice {
    /// Seconds since 1970 UTC.
    pub at: f64,
    /// Instances that would have been up before, and after.
    pub from: u32,
    pub to: u32,
    /// As `would start 1: 34.0% chance of need ...`.
    pub what: String,
}

/// What part of a class's requests may be cold starts, and what of that is spent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct BudgetStatus {
    pub class: String,
    /// The part that may be, as 0.01.
    pub cold_start_budget: f64,
    /// Requests of the last day that were answered, and those of them that were cold starts.
    pub requests: u64,
    pub cold_starts: u64,
    /// What of the budget is spent; above 1 where it is overspent. One cold start is always allowed.
    pub spent: f64,
    /// What a cold start counts for the plan now, as a multiple of its price: from 1 to 4.
    pub dearer: f64,
}

/// A service now, and since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ServiceStatus {
    pub name: String,
    /// Whose it is.
    #[serde(default)]
    pub tenant: String,
    /// `observe`, `advise` or `act`.
    pub mode: String,
    /// Instances that the plan wants, busy ones included.
    pub wanted: u32,
    pub instances: Instances,
    /// Requests at instances.
    pub in_flight: u32,
    /// Requests that are held.
    pub waiting: u32,
    pub requests: u64,
    pub cold_starts: u64,
    /// `null` before the first request.
    pub wait_seconds: Option<Waits>,
    /// Bytes that its instances use, as last seen.
    pub memory_bytes: u64,
    /// Why the plan wants what it wants, in one sentence.
    pub reason: String,
    /// `null` when none is foreseen.
    pub next_change: Option<NextChange>,
    /// What runs it: `process`, `docker`, ...
    #[serde(default)]
    pub backend: String,
    /// Its instances, in order of their ids.
    #[serde(default)]
    pub each: Vec<Instance>,
    /// A person's word on the number of instances, while it holds.
    #[serde(default)]
    pub word: Option<Word>,
    /// A person's word on the mode.
    #[serde(default)]
    pub mode_word: Option<ModeWord>,
    /// Held down by what a person did past Forerun.
    #[serde(default)]
    pub down: Option<Down>,
    /// What Forerun would do if it might; `null` where it acts, or would do nothing.
    #[serde(default)]
    pub would: Option<String>,
    /// What Forerun would have done, in mode `advise`: the last five, oldest first.
    #[serde(default)]
    pub advice: Vec<Advice>,
    /// How its foresight has done against the reactive rule; `null` before the first gap, and for a policy without.
    #[serde(default)]
    pub trust: Option<Trust>,
    /// What a start is at, as `pulling 40%`; empty when there is nothing to say.
    #[serde(default)]
    pub progress: String,
    /// Why the last start or instance failed; empty if none did.
    #[serde(default)]
    pub last_failure: String,
    /// Seconds since 1970 UTC, when it last ended as it was meant to.
    #[serde(default)]
    pub completed: Option<f64>,
    /// Services that it needs, and that need it.
    #[serde(default)]
    pub depends_on: Vec<String>,
    #[serde(default)]
    pub needed_by: Vec<String>,
    /// The last times that it was brought up, oldest first.
    #[serde(default)]
    pub wakes: Vec<Woken>,
    /// What a start takes, as seen or thought; resuming and giving to a key only once seen.
    #[serde(default)]
    pub start_seconds: f64,
    #[serde(default)]
    pub resume_seconds: Option<f64>,
    #[serde(default)]
    pub specialise_seconds: Option<f64>,
    /// The bounds of the configuration.
    #[serde(default)]
    pub min: u32,
    #[serde(default)]
    pub max: u32,
    #[serde(default)]
    pub keep_at_least_seconds: f64,
    /// Found by its labels, and not in the file.
    #[serde(default)]
    pub found: bool,
    /// Keys that it has instances for, or had lately; what they have counts in above.
    #[serde(default)]
    pub keys: Vec<KeyStatus>,
    /// What its activities take, the most frequent first.
    #[serde(default)]
    pub activities: Vec<ActivityCost>,
    /// What they take together, as often as of late; `null` before the first.
    #[serde(default)]
    pub load: Option<Load>,
    /// How many requests at a time are to come; `null` while there are none, or too few minutes are known.
    #[serde(default)]
    pub forecast: Option<LoadForecast>,
}

/// The most requests at a time in each of the next steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LoadForecast {
    /// When the first step begins; seconds since 1970 UTC.
    pub from: f64,
    pub step_seconds: f64,
    /// Rising, as .1 and .5.
    pub levels: Vec<f64>,
    /// By step, a quantile for each level.
    pub steps: Vec<Vec<f64>>,
    /// Of each level, how much of the load was at most what it had said a step before; empty before half an hour of it.
    pub coverage: Vec<f64>,
    /// What its models weigh, heaviest first.
    pub models: Vec<ModelWeight>,
    /// By level, what the most requests of these steps take, in the proportions in which activities come of late.
    #[serde(default)]
    pub demand: Vec<Demand>,
}

/// What so many requests at a time take of a service's site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Demand {
    pub level: f64,
    pub instances: u32,
    /// Cores that the activities burn; as network and storage 0 before any was seen.
    pub cpu_cores: f64,
    /// Of all these instances.
    pub memory_bytes: f64,
    pub network_bytes_per_second: f64,
    /// From and to disks.
    pub storage_bytes_per_second: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ModelWeight {
    pub model: String,
    pub weight: f64,
}

/// What one activity of an action takes on average.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ActivityCost {
    /// Method and path template; empty for those that have no name of their own.
    pub action: String,
    /// How many came a second, over some ten minutes.
    pub per_second: f64,
    /// Seconds of a core.
    pub cpu_seconds: f64,
    /// Bytes beyond what an idle instance holds, while it is served.
    pub memory_bytes: f64,
    pub network_bytes: f64,
    pub storage_bytes: f64,
    /// From the hand-over to the last byte.
    pub seconds: f64,
}

/// What activities take of all four resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Load {
    pub per_second: f64,
    pub cpu_cores: f64,
    /// Beyond what idle instances hold.
    pub memory_bytes: f64,
    pub network_bytes_per_second: f64,
    pub storage_bytes_per_second: f64,
    /// Activities in flight.
    pub concurrency: f64,
    /// Instances at which all but one request in a hundred wait for less than the class's latency target, if they come at
    /// random.
    #[serde(default)]
    pub instances_for_target: u32,
}

/// A service's instances of one key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct KeyStatus {
    pub key: String,
    /// Instances that the plan wants, busy ones included.
    pub wanted: u32,
    pub instances: Instances,
    /// Requests at instances.
    pub in_flight: u32,
    /// Requests that are held.
    pub waiting: u32,
    /// Bytes that its instances use, as last seen.
    pub memory_bytes: u64,
    /// Why the plan wants what it wants, in one sentence.
    pub reason: String,
}

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Instance {
    pub instance: String,
    /// `starting`, `ready`, `paused`, `draining` or `stopping`.
    pub state: String,
    /// Seconds since 1970 UTC.
    pub since: f64,
    pub in_flight: u32,
    pub memory_bytes: u64,
    /// Why it was started.
    pub reason: String,
    /// It was there already, and was taken over.
    pub found: bool,
}

/// A person's word on how many instances there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Word {
    pub instances: u32,
    /// Seconds since 1970 UTC; `until` is `null` where it has no end.
    pub since: f64,
    pub until: Option<f64>,
}

/// A person's word on how far Forerun goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct ModeWord {
    pub mode: String,
    /// Seconds since 1970 UTC.
    pub since: f64,
}

/// A service is held down.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Down {
    /// Seconds since 1970 UTC.
    pub at: f64,
    pub why: String,
}

/// One of the last times that a service was brought up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Woken {
    /// Seconds since 1970 UTC.
    pub at: f64,
    /// `request`, `operator`, `person`, `plan`, or the name of a service that depends on it.
    pub by: String,
}

/// Instances by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Instances {
    pub starting: u32,
    pub ready: u32,
    pub draining: u32,
    /// Frozen: they keep their memory and use no CPU.
    #[serde(default)]
    pub paused: u32,
}

/// How long requests waited for an instance, those that did not wait included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Waits {
    pub p50: f64,
    pub p99: f64,
}

/// What the plan will do next if nothing unforeseen happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct NextChange {
    /// Seconds since 1970 UTC.
    pub at: f64,
    pub wanted: u32,
}
