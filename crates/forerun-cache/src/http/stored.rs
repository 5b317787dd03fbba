//! An answer that is kept.

use super::directives::Asks;
use super::vary::Vary;
use super::{date, judge};
use crate::Stamp;
use bytes::Bytes;
use forerun_types::{Span, Time};
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderValue, LAST_MODIFIED,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, StatusCode};

/// Headers of a stored body that an answer without one (304, RFC 9111, 3.2) does not change.
const OF_THE_BODY: [http::HeaderName; 4] =
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, TRANSFER_ENCODING];

/// One of the answers to a URL.
#[derive(Clone, Debug)]
pub struct Stored {
    pub(crate) begun: Stamp,
    pub status: StatusCode,
    /// As they are sent, without `Age` and `Content-Length`.
    pub headers: HeaderMap,
    pub body: Bytes,
    pub(crate) vary: Vary,
    pub(crate) received: Time,
    /// When it was received.
    pub(crate) age: Span,
    pub(crate) lifetime: Span,
    pub(crate) no_cache: bool,
    pub(crate) must_revalidate: bool,
    /// `s-maxage`: not stale at a shared cache unless it says so.
    pub(crate) shared_only: bool,
    pub(crate) stale_while_revalidate: Span,
    pub(crate) stale_if_error: Span,
    /// As the answer names them; what is purged by hash is made of them when it is stored.
    pub(crate) tags: Box<[Box<[u8]>]>,
    pub(crate) tag_hashes: Box<[u64]>,
}

/// What a stored answer is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    Fresh,
    /// It is over, and may be served. `refresh`: an instance should be asked meanwhile.
    Stale {
        refresh: bool,
    },
    /// Not before an instance has said that it still holds.
    Revalidate,
}

impl Stored {
    pub(crate) fn new(mut headers: HeaderMap, tags: Box<[Box<[u8]>]>) -> Self {
        headers.remove(AGE);
        headers.remove(CONTENT_LENGTH);
        Self {
            begun: Stamp::default(),
            status: StatusCode::OK,
            headers,
            body: Bytes::new(),
            vary: Vary::default(),
            received: Time(0),
            age: Span::ZERO,
            lifetime: Span::ZERO,
            no_cache: false,
            must_revalidate: false,
            shared_only: false,
            stale_while_revalidate: Span::ZERO,
            stale_if_error: Span::ZERO,
            tags,
            tag_hashes: Box::default(),
        }
    }

    /// With the whole body.
    #[must_use]
    pub fn with_body(mut self, body: Bytes) -> Self {
        self.body = body;
        if !self.headers.contains_key(DATE)
            && let Ok(value) = HeaderValue::from_str(&date::text(self.received))
        {
            self.headers.insert(DATE, value);
        }
        self
    }

    /// How old it is.
    #[must_use]
    pub fn age(&self, now: Time) -> Span {
        Span(self.age.0.saturating_add(now.since(self.received).0))
    }

    /// Seconds that it stays fresh; negative once it is over.
    #[must_use]
    pub fn ttl_seconds(&self, now: Time) -> i64 {
        let (lifetime, age) = (self.lifetime.0, self.age(now).0);
        let signed = |micros: u64| i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
        if lifetime >= age { signed(lifetime - age) } else { -signed(age - lifetime) }
    }

    fn staleness(&self, now: Time) -> Span {
        Span(self.age(now).0.saturating_sub(self.lifetime.0))
    }

    /// Whether it may be served to a request that asks so.
    #[must_use]
    pub fn may_serve(&self, asks: &Asks, now: Time) -> Serve {
        let age = self.age(now);
        let left = self.lifetime.0.saturating_sub(age.0);
        let older = asks.max_age.is_some_and(|max| age > date::of_seconds(max));
        if asks.no_cache || self.no_cache || older {
            return Serve::Revalidate;
        }
        if left > 0 {
            let short = asks.min_fresh.is_some_and(|min| left < date::of_seconds(min).0);
            return if short { Serve::Revalidate } else { Serve::Fresh };
        }
        if self.must_revalidate || asks.min_fresh.is_some() {
            return Serve::Revalidate;
        }
        let stale = self.staleness(now);
        if stale < self.stale_while_revalidate {
            return Serve::Stale { refresh: true };
        }
        match asks.max_stale {
            _ if self.shared_only => Serve::Revalidate,
            Some(None) => Serve::Stale { refresh: false },
            Some(Some(max)) if stale <= date::of_seconds(max) => Serve::Stale { refresh: false },
            _ => Serve::Revalidate,
        }
    }

    /// Whether it may be served in place of an error.
    #[must_use]
    pub fn may_stand_in(&self, asks: &Asks, now: Time) -> bool {
        let asked = asks.stale_if_error.map_or(Span::ZERO, date::of_seconds);
        !self.no_cache
            && !self.must_revalidate
            && !asks.no_cache
            && self.staleness(now) < self.stale_if_error.max(asked)
    }

    /// What an instance is asked with, whether it still holds. Nothing to ask by is `None`.
    #[must_use]
    pub fn validators(&self) -> Option<[(http::HeaderName, HeaderValue); 2]> {
        let etag = self.headers.get(ETAG).map(|v| (http::header::IF_NONE_MATCH, v.clone()));
        let modified = self.headers.get(LAST_MODIFIED).map(|v| (http::header::IF_MODIFIED_SINCE, v.clone()));
        match (etag, modified) {
            (Some(etag), Some(modified)) => Some([etag, modified]),
            // The same twice is set once.
            (Some(one), None) | (None, Some(one)) => Some([one.clone(), one]),
            (None, None) => None,
        }
    }

    /// Fresh again by a 304 (RFC 9111, 4.3.4): its headers take the place of those of the same names.
    ///
    /// # Errors
    /// It may not be kept any longer; what is given back still answers this request.
    pub fn refreshed(
        &self,
        fetched: &judge::Fetched<'_>,
        limits: &judge::Limits,
    ) -> Result<Self, (judge::NotStored, Box<Self>)> {
        let mut headers = self.headers.clone();
        for name in fetched.answer.keys().filter(|name| !OF_THE_BODY.contains(name)) {
            headers.remove(name);
            for value in fetched.answer.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        // Of the old answer it would be stale again at once.
        if !fetched.answer.contains_key(DATE)
            && let Ok(value) = HeaderValue::from_str(&date::text(fetched.now))
        {
            headers.insert(DATE, value);
        }
        let whole = judge::Fetched { status: self.status, answer: &headers, ..*fetched };
        match judge::judge(&whole, limits) {
            Ok(fresh) => Ok(fresh.with_body(self.body.clone())),
            Err(why) => {
                let mut shown = self.clone();
                (shown.received, shown.age) = (fetched.now, Span::ZERO);
                headers.remove(AGE);
                shown.headers = headers;
                Err((why, Box::new(shown)))
            }
        }
    }

    /// What it takes up.
    pub(crate) fn bytes(&self) -> u64 {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 24).sum();
        (self.body.len() + headers + self.vary.bytes() + tags + 256) as u64
    }
}
