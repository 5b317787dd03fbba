//! Caches on key traces: how often what is asked for is there, by policy and size.
//!
//! A policy sees one request after the other and says whether it had the key; on a miss it may take it in. The rivals are their
//! papers', and the optimum knows what is to come. The store itself is not known here: whoever has one hands it in as a
//! [`Keep`].

mod arc;
mod belady;
mod lists;
mod lru;
mod prefetch;
mod s3fifo;
mod sketch;
mod tinylfu;

pub use prefetch::{Holds, PrefetchScores, replay_prefetch, room_beside_prefetch};

use forerun_trace::KeyTrace;
use serde::Serialize;
use std::sync::Arc;

/// A key of a trace, by number.
pub type Key = u32;
/// No key, and no time.
const NONE: u32 = u32::MAX;
/// Requests between two words to the progress.
const PROGRESS_REQUESTS: usize = 1 << 16;

/// Something that keeps keys.
pub trait Keep {
    /// Whether the key was there; if not, it may be there from now on.
    fn request(&mut self, key: Key) -> bool;
}

/// How much fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSize {
    /// So many keys, whatever their sizes.
    Entries(u64),
    Bytes(u64),
}

impl CacheSize {
    /// Units that fit: keys or bytes.
    #[must_use]
    pub fn units(self) -> u64 {
        match self {
            Self::Entries(units) | Self::Bytes(units) => units,
        }
    }

    /// What each key of a trace takes of them; `None` for bytes of a trace without sizes. A key of no bytes counts as one, so that
    /// the number of them is bounded too.
    #[must_use]
    pub fn units_of(self, trace: &KeyTrace) -> Option<Arc<[u64]>> {
        match self {
            Self::Entries(_) => Some(vec![1; trace.keys].into()),
            Self::Bytes(_) => Some(trace.bytes.as_ref()?.iter().map(|bytes| (*bytes).max(1)).collect()),
        }
    }
}

/// Policies to compare a store with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheRival {
    Lru,
    Arc,
    S3Fifo,
    WTinyLfu,
    Belady,
}

impl CacheRival {
    pub const ALL: [CacheRival; 5] = [Self::Lru, Self::Arc, Self::S3Fifo, Self::WTinyLfu, Self::Belady];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Arc => "arc",
            Self::S3Fifo => "s3-fifo",
            Self::WTinyLfu => "w-tinylfu",
            Self::Belady => "belady",
        }
    }

    /// It is told what is to come.
    #[must_use]
    pub fn knows_the_future(self) -> bool {
        self == Self::Belady
    }
}

/// What came of it. Ratios are parts of 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheScores {
    pub policy: String,
    pub requests: u64,
    pub hits: u64,
    pub hit_ratio: f64,
    /// Of all bytes asked for, those that were there; null where the trace does not tell sizes.
    pub byte_hit_ratio: Option<f64>,
    pub knows_the_future: bool,
    /// What was fetched ahead; left out where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<PrefetchScores>,
}

/// Counts hits.
struct Counted<'a> {
    trace: &'a KeyTrace,
    /// The first request that counts.
    from: usize,
    hits: u64,
    bytes: u128,
    hit_bytes: u128,
}

impl<'a> Counted<'a> {
    fn new(trace: &'a KeyTrace, from: usize) -> Self {
        Self { trace, from, hits: 0, bytes: 0, hit_bytes: 0 }
    }

    fn told(&mut self, at: usize, key: Key, hit: bool) {
        if at < self.from {
            return;
        }
        self.hits += u64::from(hit);
        if let Some(bytes) = &self.trace.bytes {
            let bytes = u128::from(bytes[key as usize]);
            self.bytes += bytes;
            self.hit_bytes += if hit { bytes } else { 0 };
        }
    }

    fn scores(&self, policy: &str, knows_the_future: bool) -> CacheScores {
        let requests = self.trace.requests.len().saturating_sub(self.from) as u64;
        let bytes = self.trace.bytes.as_ref().filter(|_| self.bytes > 0);
        CacheScores {
            policy: policy.to_owned(),
            requests,
            hits: self.hits,
            hit_ratio: self.hits as f64 / requests.max(1) as f64,
            byte_hit_ratio: bytes.map(|_| self.hit_bytes as f64 / self.bytes as f64),
            knows_the_future,
            prefetch: None,
        }
    }
}

/// Runs a trace through something that keeps keys, scored from the request of number `from` on. `progress` is told of the
/// requests so far, now and then.
pub fn replay_keep(
    name: &str,
    keep: &mut dyn Keep,
    (trace, from): (&KeyTrace, usize),
    progress: &mut dyn FnMut(u64),
) -> CacheScores {
    let mut counted = Counted::new(trace, from);
    for (at, &key) in trace.requests.iter().enumerate() {
        counted.told(at, key, keep.request(key));
        if at % PROGRESS_REQUESTS == 0 {
            progress(at as u64);
        }
    }
    counted.scores(name, false)
}

/// Runs a trace through a rival; `None` for bytes of a trace without sizes.
pub fn replay_rival(
    rival: CacheRival,
    size: CacheSize,
    (trace, from): (&KeyTrace, usize),
    progress: &mut dyn FnMut(u64),
) -> Option<CacheScores> {
    let (capacity, units) = (size.units(), size.units_of(trace)?);
    let (name, scored) = (rival.name(), (trace, from));
    Some(match rival {
        CacheRival::Lru => replay_keep(name, &mut lru::Lru::new(capacity, units), scored, progress),
        CacheRival::Arc => replay_keep(name, &mut arc::ArcCache::new(capacity, units), scored, progress),
        CacheRival::S3Fifo => replay_keep(name, &mut s3fifo::S3Fifo::new(capacity, units), scored, progress),
        CacheRival::WTinyLfu => {
            let all: u128 = units.iter().map(|units| u128::from(*units)).sum();
            let entries = u128::from(capacity) * units.len() as u128 / all.max(1);
            let entries = entries.clamp(1, units.len().max(1) as u128) as u64;
            replay_keep(name, &mut tinylfu::TinyLfu::new(capacity, entries, units), scored, progress)
        }
        CacheRival::Belady => {
            let mut counted = Counted::new(trace, from);
            belady::hits(&trace.requests, &units, capacity, |at, hit| {
                counted.told(at, trace.requests[at], hit);
                if at % PROGRESS_REQUESTS == 0 {
                    progress(at as u64);
                }
            });
            counted.scores(name, true)
        }
    })
}

#[cfg(test)]
mod tests;
