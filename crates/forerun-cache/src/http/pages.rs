//! The answers to URLs, in a store of bounded bytes.

use super::key::{PageKey, url};
use super::purges::{self, Purges};
use super::stored::Stored;
use crate::{Cache, Memory, Put, Stamp};
use forerun_types::TenantKey;
use http::HeaderMap;
use std::sync::Arc;

/// What is taken for the size of an answer, for the places in which purges are told apart.
const ANSWER_BYTES: u64 = 4 << 10;
const PLACES_MIN: u64 = 1 << 12;
const PLACES_MAX: u64 = 1 << 18;

/// The answers to one URL, the newest first.
type Page = Box<[Arc<Stored>]>;

/// What is kept of all URLs.
#[derive(Clone, Debug)]
pub struct Pages {
    cache: Cache<Memory<Page>>,
    purges: Purges,
    seed: u64,
}

/// What is there for a request.
#[derive(Clone, Debug)]
pub enum Found {
    Here(Arc<Stored>),
    /// There are answers to this URL, for other requests.
    Others,
    Nothing,
}

impl Pages {
    /// `bytes`: of everything together; `seed`: one that nobody outside knows.
    #[must_use]
    pub fn new(bytes: u64, seed: u64) -> Self {
        let places = (bytes / ANSWER_BYTES * 4).clamp(PLACES_MIN, PLACES_MAX) as usize;
        let memory = Memory::new(crate::Limits::of(bytes), seed);
        Self { cache: Cache::new(memory, places, seed.rotate_left(17)), purges: Purges::new(), seed }
    }

    /// Before a fetch begins.
    #[must_use]
    pub fn begin(&mut self) -> Stamp {
        self.cache.begin()
    }

    /// URLs that are there, and what they take.
    pub fn size(&self) -> (usize, u64) {
        (self.cache.store().len(), self.cache.store().bytes())
    }

    /// The newest answer that is for a request of these headers.
    pub fn find(&mut self, key: &PageKey, request: &HeaderMap) -> Found {
        let Some(page) = self.cache.get(key.key()) else { return Found::Nothing };
        let purges = &self.purges;
        let is_current =
            |stored: &&Arc<Stored>| !purges.cover(stored.begun, key.tenant, key.url(), &stored.tag_hashes);
        let mut any = false;
        for stored in page.iter().filter(is_current) {
            any = true;
            if stored.vary.fits(request) {
                return Found::Here(Arc::clone(stored));
            }
        }
        if any { Found::Others } else { Found::Nothing }
    }

    /// Keeps what a fetch brought that began at `begun`; it takes the place of those that were for the same requests.
    pub fn keep(
        &mut self,
        key: &PageKey,
        request: &HeaderMap,
        begun: Stamp,
        mut stored: Stored,
        variants_max: usize,
    ) -> Put {
        let url = purges::hash(key.tenant, key.url(), self.seed);
        let tags = stored.tags.iter().map(|tag| purges::hash(key.tenant, tag, self.seed));
        stored.tag_hashes = tags.chain([url]).collect();
        stored.begun = begun;
        if self.purges.cover(begun, key.tenant, key.url(), &stored.tag_hashes) {
            return Put::Outdated;
        }
        let mut page = vec![Arc::new(stored)];
        if let Some(others) = self.cache.get(key.key()) {
            let stay = |other: &&Arc<Stored>| {
                !other.vary.fits(request)
                    && !self.purges.cover(other.begun, key.tenant, key.url(), &other.tag_hashes)
            };
            page.extend(others.iter().filter(stay).take(variants_max.saturating_sub(1)).map(Arc::clone));
        }
        let bytes = page.iter().map(|stored| stored.bytes()).sum();
        self.cache.put(key.key(), begun, page.into(), bytes)
    }

    /// A URL, of every service that answers it.
    pub fn purge_url(&mut self, tenant: TenantKey, host: &str, target: &str) {
        let from = self.cache.begin();
        self.purges.tag(purges::hash(tenant, &url(host, target), self.seed), from);
    }

    /// Everything with this tag.
    pub fn purge_tag(&mut self, tenant: TenantKey, tag: &str) {
        let from = self.cache.begin();
        self.purges.tag(purges::hash(tenant, tag.as_bytes(), self.seed), from);
    }

    /// Everything whose target begins so; `None` is every tenant.
    pub fn purge_prefix(&mut self, tenant: Option<TenantKey>, host: &str, prefix: &str) {
        let from = self.cache.begin();
        self.purges.prefix(tenant, &url(host, prefix), from);
    }

    /// Everything of one tenant.
    pub fn purge_tenant(&mut self, tenant: TenantKey) {
        let from = self.cache.begin();
        self.purges.prefix(Some(tenant), &[], from);
    }

    /// Everything of everyone. Its memory is given back as room is needed.
    pub fn purge_all(&mut self) {
        let from = self.cache.begin();
        self.purges.all(from);
        self.cache.purge_all();
    }
}
