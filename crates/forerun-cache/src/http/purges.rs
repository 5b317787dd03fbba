//! What was purged by tag, URL or prefix, in bounded memory. It holds against fetches under way: what counts is when one began.

use crate::{Key, Stamp};
use forerun_types::TenantKey;
use http::HeaderMap;
use std::collections::VecDeque;

/// Places of tags; two tags in one place can cost a miss.
const PLACES: usize = 1 << 14;
/// Prefixes that are told apart; beyond, the oldest becomes a purge of everything that was there then.
const PREFIXES_MAX: usize = 64;
/// Tags of one answer.
const TAGS_MAX: usize = 128;
/// Headers with tags: separated by blanks, and by commas.
const TAG_HEADERS: [&str; 2] = ["surrogate-key", "cache-tag"];

#[derive(Clone, Debug)]
struct Prefix {
    /// `None` is every tenant.
    tenant: Option<TenantKey>,
    url: Box<[u8]>,
    from: Stamp,
}

#[derive(Clone, Debug)]
pub(crate) struct Purges {
    places: Box<[Stamp]>,
    prefixes: VecDeque<Prefix>,
    all: Stamp,
    /// The last of any kind: what began since is not looked up.
    newest: Stamp,
}

impl Purges {
    pub(crate) fn new() -> Self {
        let places = vec![Stamp::default(); PLACES].into_boxed_slice();
        Self { places, prefixes: VecDeque::new(), all: Stamp::default(), newest: Stamp::default() }
    }

    fn at(hash: u64) -> usize {
        hash as usize & (PLACES - 1)
    }

    pub(crate) fn tag(&mut self, hash: u64, from: Stamp) {
        self.newest = from;
        self.places[Self::at(hash)] = from;
    }

    pub(crate) fn prefix(&mut self, tenant: Option<TenantKey>, url: &[u8], from: Stamp) {
        self.newest = from;
        self.prefixes.retain(|known| known.tenant != tenant || *known.url != *url);
        self.prefixes.push_back(Prefix { tenant, url: url.into(), from });
        if self.prefixes.len() > PREFIXES_MAX
            && let Some(oldest) = self.prefixes.pop_front()
        {
            self.all = self.all.max(oldest.from);
        }
    }

    pub(crate) fn all(&mut self, from: Stamp) {
        (self.newest, self.all) = (from, from);
    }

    /// Whether what began at `begun` has been purged since.
    pub(crate) fn cover(&self, begun: Stamp, tenant: TenantKey, url: &[u8], tags: &[u64]) -> bool {
        if begun >= self.newest {
            return false;
        }
        let named = |prefix: &Prefix| {
            begun < prefix.from
                && prefix.tenant.is_none_or(|other| other == tenant)
                && url.starts_with(&prefix.url)
        };
        begun < self.all
            || tags.iter().any(|tag| begun < self.places[Self::at(*tag)])
            || self.prefixes.iter().any(named)
    }
}

/// The tags that an answer names; `None` if they are more than are kept.
pub(crate) fn tags(answer: &HeaderMap) -> Option<Box<[Box<[u8]>]>> {
    let mut tags: Vec<Box<[u8]>> = Vec::new();
    for value in TAG_HEADERS.iter().flat_map(|name| answer.get_all(*name)) {
        let words = value.as_bytes().split(|b| *b == b',' || b.is_ascii_whitespace());
        tags.extend(words.filter(|word| !word.is_empty()).map(Box::from));
        if tags.len() > TAGS_MAX {
            return None;
        }
    }
    Some(tags.into())
}

/// The hash of a tag, or of a URL as one: no tag holds a zero.
pub(crate) fn hash(tenant: TenantKey, name: &[u8], seed: u64) -> u64 {
    Key { tenant, name }.hash(seed)
}
