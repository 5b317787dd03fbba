//! What an answer is kept under, and which requests a cache keeps out of.

use super::vary;
use crate::Key;
use forerun_types::TenantKey;
use http::header::{CONNECTION, FORWARDED, HeaderName, IF_MATCH, IF_UNMODIFIED_SINCE, TRANSFER_ENCODING};
use http::{HeaderMap, Method};

/// Why a request is neither answered from the cache nor kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    Method,
    /// A GET with a body: what it asks for is not in its URL.
    Body,
    /// It would change what is asked for, and is no part of the key.
    Unkeyed,
    /// It depends on what is there now.
    Precondition,
    Upgrade,
}

impl Bypass {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Unkeyed => "unkeyed-header",
            Self::Precondition => "precondition",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Headers by which a request asks for something else than its line says. Many frameworks go by them, no cache keys them.
const OVERRIDES: [&str; 8] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
    "x-host",
    "x-original-host",
];

/// What a proxy in front says of the request's address. Of a proxy that is trusted it is part of the key; of anybody else it
/// would poison: the answer may show it to all.
const FRONTS: [HeaderName; 8] = [
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-scheme"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-path"),
    FORWARDED,
];
/// Those of [`FRONTS`] that the router sets itself where it does not trust them.
const OWN: usize = 2;

/// Whether a cache keeps out of a request; one with a body counts as `has_body` whatever its method.
#[must_use]
pub fn asks_past(method: &Method, headers: &HeaderMap, has_body: bool, trusted: bool) -> Option<Bypass> {
    if method != Method::GET && method != Method::HEAD {
        return Some(Bypass::Method);
    }
    if has_body || headers.contains_key(TRANSFER_ENCODING) {
        return Some(Bypass::Body);
    }
    if headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE) {
        return Some(Bypass::Precondition);
    }
    let unkeyed = hides(headers)
        || OVERRIDES.iter().any(|name| headers.contains_key(*name))
        || (!trusted && FRONTS[OWN..].iter().any(|name| headers.contains_key(name)));
    unkeyed.then_some(Bypass::Unkeyed)
}

/// Whether `Connection` takes a header away that the instance would see otherwise.
fn hides(headers: &HeaderMap) -> bool {
    const USUAL: [&str; 4] = ["close", "keep-alive", "te", "upgrade"];
    headers.get_all(CONNECTION).into_iter().any(|value| match value.to_str() {
        Ok(text) => text.split(',').map(str::trim).any(|option| {
            !option.is_empty() && !USUAL.iter().any(|usual| option.eq_ignore_ascii_case(usual))
        }),
        Err(_) => true,
    })
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub tenant: TenantKey,
    pub service: &'a str,
    /// The key of its specialised instances, if it has them.
    pub special: Option<&'a str>,
    /// As it was asked for, with its port.
    pub host: &'a str,
    /// Path and query, byte for byte: what a cache takes for the same an instance may not.
    pub target: &'a str,
}

/// The name of all answers to one URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageKey {
    pub tenant: TenantKey,
    name: Box<[u8]>,
    /// Of the name: host, a zero, and the target.
    url: usize,
}

impl PageKey {
    /// `headers`: the request's, where a proxy in front is trusted, or else `None`.
    #[must_use]
    pub fn new(origin: &Origin<'_>, headers: Option<&HeaderMap>) -> Self {
        let mut name = url(origin.host, origin.target);
        let length = name.len();
        for part in [origin.service, origin.special.unwrap_or_default()] {
            name.push(0);
            name.extend_from_slice(part.as_bytes());
        }
        if let Some(headers) = headers {
            for header in &FRONTS {
                name.push(0);
                name.extend(vary::value_of(headers, header).unwrap_or_default());
            }
        }
        Self { tenant: origin.tenant, name: name.into(), url: length }
    }

    pub(crate) fn key(&self) -> Key<'_> {
        Key { tenant: self.tenant, name: &self.name }
    }

    pub(crate) fn url(&self) -> &[u8] {
        &self.name[..self.url]
    }

    /// A number for it, for tables of what is under way.
    #[must_use]
    pub fn hash(&self, seed: u64) -> u64 {
        self.key().hash(seed)
    }
}

/// Host, a zero, and path with query.
pub(crate) fn url(host: &str, target: &str) -> Vec<u8> {
    let mut name = Vec::with_capacity(host.len() + target.len() + 48);
    name.extend(host.bytes().map(|b| b.to_ascii_lowercase()));
    name.push(0);
    name.extend_from_slice(target.as_bytes());
    name
}
