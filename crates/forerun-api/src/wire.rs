//! What the API answers with. Names and units here are promises to outside programs; see `docs/api.md`.

use serde::{Deserialize, Serialize};

/// The answer of `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Seconds since 1970 UTC, when this was true.
    pub at: f64,
    pub uptime_seconds: f64,
    pub sites: Vec<SiteStatus>,
    /// In order of the configuration.
    pub services: Vec<ServiceStatus>,
    #[serde(default)]
    pub journal: JournalStatus,
}

/// The journal of what happened and was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// A service now, and since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
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
}

/// Instances by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    pub starting: u32,
    pub ready: u32,
    pub draining: u32,
}

/// How long requests waited for an instance, those that did not wait included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    pub p50: f64,
    pub p99: f64,
}

/// What the plan will do next if nothing unforeseen happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NextChange {
    /// Seconds since 1970 UTC.
    pub at: f64,
    pub wanted: u32,
}
