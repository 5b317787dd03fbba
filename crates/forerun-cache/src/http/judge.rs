//! Whether an answer may be kept, and how long it is fresh.

use super::date;
use super::directives::{Asks, Says};
use super::purges;
use super::stored::Stored;
use super::vary::Vary;
use forerun_types::{Span, Time};
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, DATE, ETAG, EXPIRES, HeaderValue, LAST_MODIFIED, PRAGMA,
    SET_COOKIE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};

/// What a request was answered with by an instance.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    pub method: &'a Method,
    /// As the client sent them.
    pub request: &'a HeaderMap,
    /// Somebody has been asked who the client is: as with `Authorization`, what it gets may be for it alone.
    pub guarded: bool,
    pub status: StatusCode,
    /// Without those of the one connection.
    pub answer: &'a HeaderMap,
    /// When the request was sent.
    pub asked: Time,
    pub now: Time,
}

/// What a service adds where an answer says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For 404 and 410.
    pub missing: Span,
    pub stale_if_error: Span,
}

/// Why an answer is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    Method,
    RequestNoStore,
    NoStore,
    Private,
    SetCookie,
    /// To a request that proves who asks, and the answer does not say that others may have it.
    Authorized,
    Vary,
    Status,
    Partial,
    /// It is not fresh for any time, and nothing would tell whether it still holds.
    NoFreshness,
    /// More tags than are kept: a purge by one of them would not reach it.
    Tags,
    TooLarge,
    /// The body broke off.
    CutShort,
    /// Purged, or replaced by a later answer, before it was whole.
    Outdated,
    NoRoom,
}

impl NotStored {
    /// A word for `Cache-Status`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::Authorized => "authorization",
            Self::Vary => "vary",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::NoFreshness => "no-freshness",
            Self::Tags => "too-many-tags",
            Self::TooLarge => "too-large",
            Self::CutShort => "cut-short",
            Self::Outdated => "outdated",
            Self::NoRoom => "no-room",
        }
    }
}

/// Statuses whose meaning for a cache is known here (`must-understand`, RFC 9111, 5.2.2.3).
const UNDERSTOOD: [u16; 14] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];

/// The answer as it would be kept, still without its body.
///
/// # Errors
/// Why it may not be.
pub fn judge(fetched: &Fetched<'_>, limits: &Limits) -> Result<Stored, NotStored> {
    let Fetched { method, request, status, answer, now, .. } = *fetched;
    let says = Says::of(answer);
    if method != Method::GET {
        return Err(NotStored::Method);
    }
    if request.contains_key(CACHE_CONTROL) && Asks::of(request).no_store {
        return Err(NotStored::RequestNoStore);
    }
    let understood = UNDERSTOOD.contains(&status.as_u16());
    let no_store = says.no_store && !(says.must_understand && understood);
    match status {
        StatusCode::PARTIAL_CONTENT => return Err(NotStored::Partial),
        _ if status.is_informational() || status == StatusCode::NOT_MODIFIED => {
            return Err(NotStored::Status);
        }
        _ if says.must_understand && !understood => return Err(NotStored::Status),
        _ if no_store => return Err(NotStored::NoStore),
        _ if says.private => return Err(NotStored::Private),
        _ if answer.contains_key(SET_COOKIE) => return Err(NotStored::SetCookie),
        _ => {}
    }
    let authorized = fetched.guarded || request.contains_key(AUTHORIZATION);
    if authorized && !says.shares() {
        return Err(NotStored::Authorized);
    }
    let vary = Vary::of(answer, request, fetched.guarded).map_err(|_| NotStored::Vary)?;
    let lifetime = lifetime(fetched, &says, limits, authorized)?;
    let tags = purges::tags(answer).ok_or(NotStored::Tags)?;
    let stale = |own: Option<u64>, else_: Span| own.map_or(else_, date::of_seconds);
    let stored = Stored {
        status,
        vary,
        received: now,
        age: age(fetched),
        lifetime,
        no_cache: says.no_cache || (!says.targeted && is_pragma_no_cache(answer)),
        must_revalidate: says.must_revalidate,
        shared_only: says.s_maxage.is_some(),
        stale_while_revalidate: stale(says.stale_while_revalidate, Span::ZERO),
        stale_if_error: stale(says.stale_if_error, limits.stale_if_error),
        ..Stored::new(answer.clone(), tags)
    };
    let useless = stored.lifetime <= stored.age
        && !answer.contains_key(ETAG)
        && !answer.contains_key(LAST_MODIFIED)
        && stored.stale_while_revalidate == Span::ZERO
        && stored.stale_if_error == Span::ZERO;
    if useless { Err(NotStored::NoFreshness) } else { Ok(stored) }
}

/// How long it is fresh, counted from when its instance made it. What may be stored at all is asked here too.
fn lifetime(
    fetched: &Fetched<'_>,
    says: &Says,
    limits: &Limits,
    authorized: bool,
) -> Result<Span, NotStored> {
    let Fetched { status, answer, .. } = *fetched;
    let expires = answer.contains_key(EXPIRES) && !says.targeted;
    let explicit = says.max_age.is_some() || says.s_maxage.is_some() || expires;
    let missing = matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    if !explicit && missing && limits.missing > Span::ZERO && !says.no_cache {
        return Ok(limits.missing);
    }
    if let Some(seconds) = says.s_maxage.or(says.max_age) {
        // What most answers say, and all that counts then. To have the crate find the same in maps of words took most of the
        // time that keeping an answer takes.
        return Ok(if says.no_cache { Span::ZERO } else { date::of_seconds(seconds) });
    }
    by_the_crate(fetched, says, (explicit, expires), authorized)
}

/// The same as `http-cache-semantics` has it.
pub(super) fn by_the_crate(
    fetched: &Fetched<'_>,
    says: &Says,
    (explicit, expires): (bool, bool),
    authorized: bool,
) -> Result<Span, NotStored> {
    let Fetched { request, status, answer, now, .. } = *fetched;
    let mut plain = HeaderMap::new();
    // `no-store` and `private` have been seen to, and `must-understand` may have lifted the former.
    let directives = Says { no_store: false, private: false, ..says.clone() };
    if let Some(value) = directives.plain() {
        plain.insert(CACHE_CONTROL, value);
    }
    let at = |name| date::header(answer, name).and_then(|at| HeaderValue::from_str(&date::text(at)).ok());
    if expires {
        // A date that is none has passed.
        plain.insert(EXPIRES, at(EXPIRES).unwrap_or(HeaderValue::from_static("0")));
    }
    if let Some(value) = at(DATE) {
        plain.insert(DATE, value);
    }
    // What was answered to a cookie may be for its owner alone: it is fresh only if it says so.
    let guess = !request.contains_key(COOKIE) && !authorized;
    if let Some(value) = at(LAST_MODIFIED).filter(|_| guess) {
        plain.insert(LAST_MODIFIED, value);
    }
    let mut asked = Request::new(());
    if authorized {
        asked.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("x"));
    }
    let mut answered = Response::new(());
    // An answer that says how long it is fresh may be of any status (RFC 9111, 3).
    *answered.status_mut() = if explicit { StatusCode::OK } else { status };
    *answered.headers_mut() = plain;
    let received = date::system(now);
    let policy = CachePolicy::new_options(&asked, &answered, received, CacheOptions::default());
    if !policy.is_storable() {
        return Err(NotStored::Status);
    }
    // Its headers have no `Age`: what is left is all of the lifetime.
    Ok(Span::from(policy.time_to_live(received)))
}

fn is_pragma_no_cache(answer: &HeaderMap) -> bool {
    !answer.contains_key(CACHE_CONTROL)
        && answer
            .get_all(PRAGMA)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|p| p.trim().eq_ignore_ascii_case("no-cache")))
}

/// How old it was when it came (RFC 9111, 4.2.3), in whole seconds.
fn age(fetched: &Fetched<'_>) -> Span {
    let Fetched { answer, asked, now, .. } = *fetched;
    let said = answer.get(AGE).and_then(|value| value.to_str().ok());
    let said = said.and_then(|text| text.split(',').next()).map(str::trim);
    let digits = said.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let said = digits.map_or(0, |text| text.parse().unwrap_or(u64::MAX));
    let delay = date::seconds(now.since(asked));
    let apparent = date::header(answer, DATE).map_or(0, |date| date::seconds(now.since(date)));
    date::of_seconds(said.saturating_add(delay).max(apparent))
}
