//! The HTTP cache before the services that ask for one (`cache` in their description).
//!
//! `serve` is a request's way: answered from the store, or sent on, and kept as its answer goes by (`fill`). Those who ask for
//! the same meanwhile wait for the first (`flights`). What may be kept and served, `forerun-cache` knows.
//!
//! An answer from the store needs no instance and wakes none. It teaches all the same: the user did it.

mod exchange;
mod fill;
mod flights;
mod purge;
mod serve;

pub(crate) use fill::Fill;
pub(crate) use purge::purge;
pub use purge::{Purge, PurgeError};
pub(crate) use serve::{Comer, serve};

use crate::core::Core;
use crate::stats::CacheStats;
use flights::Flights;
use forerun_cache::http::Pages;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of the store's bytes, so much may be bodies that are still on their way.
const FILLING_SHARE: u64 = 4;
/// Requests at a time that only freshen what has been served.
const REFRESHES_MAX: u32 = 64;

/// How a request was answered, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// From the store.
    Hit,
    /// From the store, though its time is over.
    Stale,
    /// From the store, after an instance said that it still holds.
    Revalidated,
    /// By an instance.
    Miss,
    /// By an instance, past the cache.
    Bypass,
}

#[derive(Debug)]
pub(crate) struct HttpCache {
    pages: Mutex<Pages>,
    pub(crate) flights: Arc<Flights>,
    seed: u64,
    filling: AtomicU64,
    filling_max: u64,
    refreshing: AtomicU64,
    answered: [AtomicU64; 5],
    answered_bytes: AtomicU64,
    kept: AtomicU64,
    not_kept: AtomicU64,
}

impl HttpCache {
    pub(crate) fn new(bytes: u64, seed: u64) -> Self {
        Self {
            pages: Mutex::new(Pages::new(bytes, seed)),
            flights: Arc::new(Flights::new()),
            seed: seed.rotate_left(31),
            filling: AtomicU64::new(0),
            filling_max: bytes / FILLING_SHARE,
            refreshing: AtomicU64::new(0),
            answered: <_>::default(),
            answered_bytes: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            not_kept: AtomicU64::new(0),
        }
    }

    pub(crate) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a part of a body that is on its way.
    fn take_room(&self, bytes: u64) -> bool {
        let taken = self.filling.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > self.filling_max {
            self.filling.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken <= self.filling_max
    }

    fn give_room(&self, bytes: u64) {
        self.filling.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn note_put(&self, kept: bool) {
        if kept { &self.kept } else { &self.not_kept }.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, answered: Answered, bytes: usize) {
        self.answered[answered as usize].fetch_add(1, Ordering::Relaxed);
        self.answered_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A turn to freshen something, if not too many do already.
    fn refresh(self: &Arc<Self>) -> Option<Refreshing> {
        let before = self.refreshing.fetch_add(1, Ordering::Relaxed);
        let turn = Refreshing(Arc::clone(self));
        (before < u64::from(REFRESHES_MAX)).then_some(turn)
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let (entries, bytes) = self.pages().size();
        let count = |answered: Answered| self.answered[answered as usize].load(Ordering::Relaxed);
        CacheStats {
            requests: [
                ("hit", count(Answered::Hit)),
                ("stale", count(Answered::Stale)),
                ("revalidated", count(Answered::Revalidated)),
                ("miss", count(Answered::Miss)),
                ("bypass", count(Answered::Bypass)),
            ],
            answered_bytes: self.answered_bytes.load(Ordering::Relaxed),
            kept: self.kept.load(Ordering::Relaxed),
            not_kept: self.not_kept.load(Ordering::Relaxed),
            entries,
            bytes,
        }
    }
}

struct Refreshing(Arc<HttpCache>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.refreshing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    /// The cache, made when a service first asks for it.
    pub(crate) fn cache(&self) -> &Arc<HttpCache> {
        let make = || Arc::new(HttpCache::new(self.limits.cache_bytes_max, self.draw()));
        self.cache.get_or_init(make)
    }
}
