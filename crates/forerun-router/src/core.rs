//! What all parts of one router share.

use crate::batch::Batch;
use crate::cached::HttpCache;
use crate::keys::Keys;
use crate::settings::{Clock, RouterLimits};
use crate::stats::Totals;
use crate::table::{Publisher, Snapshot};
use crate::up::Up;
use crate::waiting::Lobby;
use arc_swap::ArcSwap;
use forerun_types::{RouterId, SiteId, Time};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Notify, Semaphore};

pub(crate) struct Core {
    pub(crate) id: RouterId,
    pub(crate) site: SiteId,
    pub(crate) secret: [u8; 32],
    pub(crate) clock: Clock,
    pub(crate) limits: RouterLimits,
    pub(crate) up: Arc<dyn Up>,
    pub(crate) batch: Batch,
    pub(crate) table: ArcSwap<Snapshot>,
    pub(crate) publisher: Mutex<Publisher>,
    /// Told whenever other services are in the table than before.
    pub(crate) published: Notify,
    pub(crate) keys: Keys,
    /// Everyone who is held, whatever for.
    pub(crate) lobby: Arc<Lobby>,
    pub(crate) totals: Totals,
    pub(crate) draws: AtomicU64,
    /// One for each client that follows events.
    pub(crate) streams: Arc<Semaphore>,
    /// Made when a service first asks for it.
    pub(crate) cache: OnceLock<Arc<HttpCache>>,
}

impl Core {
    pub(crate) fn now(&self) -> Time {
        (self.clock)()
    }

    /// The next of a well-mixed sequence (SplitMix64).
    pub(crate) fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.draws.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
