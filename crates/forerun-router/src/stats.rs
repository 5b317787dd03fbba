//! Counters since the router started.

use forerun_types::{Generation, InstanceLoad, ServiceId, Span};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The instance's answer, whole.
    Answered,
    /// Forerun's answer: a limit, or nothing to send it to.
    Refused,
    /// The instance failed, or what the client sent did.
    Failed,
    /// The client went away first.
    Gone,
}

impl Outcome {
    pub const ALL: [Outcome; 4] = [Outcome::Answered, Outcome::Refused, Outcome::Failed, Outcome::Gone];

    /// The label for `forerun_requests_total{outcome}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Gone => "gone",
        }
    }
}

/// One service at one router.
#[derive(Clone, Debug)]
pub struct ServiceStats {
    pub id: ServiceId,
    pub name: String,
    pub sla: String,
    pub(crate) requests: [u64; 4],
    /// Refused and failed requests by the word in their `forerun-reason`; beside them `asleep` and `probe`, requests
    /// that are nobody's and not among the service's.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Requests that were held.
    pub cold_starts: u64,
    /// How long held requests were held, in microseconds, however it ended; `None` before the first.
    pub hold_micros: Option<Histogram<u64>>,
    pub hold_micros_sum: u64,
    /// From arrival to the last byte of the answer, in microseconds.
    pub duration_micros: Option<Histogram<u64>>,
    pub duration_micros_sum: u64,
    pub held: u32,
    pub held_bytes: u64,
    pub in_flight: u32,
    pub instances: Vec<InstanceLoad>,
}

impl ServiceStats {
    /// Counts in what another entry of the same service has now; its counters are the same.
    pub(crate) fn add_gauges(&mut self, other: Self) {
        self.held = self.held.saturating_add(other.held);
        self.held_bytes = self.held_bytes.saturating_add(other.held_bytes);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.instances.extend(other.instances);
    }

    /// Requests that ended so.
    #[must_use]
    pub fn requests(&self, outcome: Outcome) -> u64 {
        self.requests[outcome as usize]
    }

    /// Requests that have ended.
    #[must_use]
    pub fn requests_total(&self) -> u64 {
        self.requests.iter().sum()
    }
}

/// What is held of one SLA class, over all its services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldOfClass {
    pub requests: u32,
    /// Of heads and what is read ahead of bodies.
    pub bytes: u64,
}

/// What the cache did since the start, and holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStats {
    /// By how they were answered: `hit`, `stale`, `revalidated`, `miss`, `bypass`.
    pub requests: [(&'static str, u64); 5],
    /// Of bodies, from the store.
    pub answered_bytes: u64,
    /// Answers that were kept, and those that would have been but for room, or because they were outdated.
    pub kept: u64,
    pub not_kept: u64,
    /// URLs, and what they take.
    pub entries: usize,
    pub bytes: u64,
}

/// A whole router.
#[derive(Clone, Debug)]
pub struct RouterStats {
    /// Of the table in use.
    pub generation: Generation,
    /// Client connections open now.
    pub connections: u32,
    pub connections_total: u64,
    /// Requests that no service is for.
    pub unknown: u64,
    /// Connections ended because what they sent was not HTTP/1.
    pub malformed: u64,
    /// Learning records dropped because the engine was behind.
    pub lost: u64,
    /// By class; those of which nothing is held are left out.
    pub held: BTreeMap<String, HeldOfClass>,
    /// Those that have left the table too, while requests for them are in flight.
    pub services: Vec<ServiceStats>,
    /// `None` while no service has asked for a cache.
    pub cache: Option<CacheStats>,
}

/// Counters that belong to no service.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// What a service counts, under its lock.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: [u64; 4],
    reasons: BTreeMap<&'static str, u64>,
    pub(crate) cold_starts: u64,
    holds: Times,
    durations: Times,
}

/// Made at the first record: most of ten thousand services may never see one.
#[derive(Debug, Default)]
struct Times {
    histogram: Option<Box<Histogram<u64>>>,
    micros_sum: u64,
}

impl Times {
    fn record(&mut self, span: Span) {
        self.micros_sum = self.micros_sum.saturating_add(span.0);
        if self.histogram.is_none() {
            // Two digits: a quantile is off by at most 1%. An hour is the longest that is told apart: 26 KB.
            self.histogram = Histogram::new_with_bounds(1, 3_600_000_000, 2).ok().map(Box::new);
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(span.0);
        }
    }

    fn copy(&self) -> Option<Histogram<u64>> {
        self.histogram.as_deref().cloned()
    }
}

impl Tally {
    pub(crate) fn ended(&mut self, outcome: Outcome, reason: Option<&'static str>, duration: Span) {
        self.requests[outcome as usize] += 1;
        if let Some(reason) = reason {
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.durations.record(duration);
    }

    /// A request that is nobody's: it is noted, and is none of the service's requests.
    pub(crate) fn nobody(&mut self, reason: &'static str) {
        *self.reasons.entry(reason).or_default() += 1;
    }

    pub(crate) fn held_for(&mut self, wait: Span) {
        self.holds.record(wait);
    }

    pub(crate) fn stats(&self, id: ServiceId, name: &str, sla: &str) -> ServiceStats {
        ServiceStats {
            id,
            name: name.to_owned(),
            sla: sla.to_owned(),
            requests: self.requests,
            reasons: self.reasons.clone(),
            cold_starts: self.cold_starts,
            hold_micros: self.holds.copy(),
            hold_micros_sum: self.holds.micros_sum,
            duration_micros: self.durations.copy(),
            duration_micros_sum: self.durations.micros_sum,
            held: 0,
            held_bytes: 0,
            in_flight: 0,
            instances: Vec::new(),
        }
    }
}
