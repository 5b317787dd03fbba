//! `Cache-Control`, of requests and of answers.

use http::header::{CACHE_CONTROL, HeaderName, PRAGMA};
use http::{HeaderMap, HeaderValue};

/// The largest number of seconds that is told apart (RFC 9111, 1.2.2).
const SECONDS_MAX: u64 = 1 << 31;
/// Directives whose value is a number of seconds.
const SECONDS: [&str; 4] = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"];
/// A list of directives that only caches run for a site go by (RFC 9213).
const CDN: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What an answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Says {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub must_understand: bool,
    pub immutable: bool,
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
    /// These are of `CDN-Cache-Control`: `Cache-Control` and `Expires` do not count.
    pub targeted: bool,
}

impl Says {
    /// Of an answer's headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        // One that cannot be read as what it is does not count (RFC 9213, 2.1).
        if let Some(says) = joined(headers, &CDN).filter(|t| !t.is_empty() && is_dictionary(t)) {
            let bare: Vec<&str> = says.split(',').filter_map(|part| part.split(';').next()).collect();
            return Self { targeted: true, ..Self::read(&bare.join(",")) };
        }
        Self::read(&joined(headers, &CACHE_CONTROL).unwrap_or_default())
    }

    fn read(text: &str) -> Self {
        let mut says = Self::default();
        for (name, value) in parts(text) {
            let seconds = || value.as_deref().map(seconds);
            match name.as_str() {
                "no-store" => says.no_store = true,
                "no-cache" => says.no_cache = true,
                "private" => says.private = true,
                "public" => says.public = true,
                "must-revalidate" | "proxy-revalidate" => says.must_revalidate = true,
                "must-understand" => says.must_understand = true,
                "immutable" => says.immutable = true,
                // Of two, the one that ends sooner.
                "max-age" => says.max_age = least(says.max_age, seconds().unwrap_or(Some(0))),
                "s-maxage" => says.s_maxage = least(says.s_maxage, seconds().unwrap_or(Some(0))),
                "stale-while-revalidate" => {
                    says.stale_while_revalidate = least(says.stale_while_revalidate, seconds().flatten());
                }
                "stale-if-error" => says.stale_if_error = least(says.stale_if_error, seconds().flatten()),
                _ => {}
            }
        }
        says
    }

    /// Whether it allows to share what was answered to a request that proves who asks (RFC 9111, 3.5).
    #[must_use]
    pub fn shares(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// As `http-cache-semantics` reads it.
    pub(crate) fn plain(&self) -> Option<HeaderValue> {
        let mut text = String::new();
        let flags = [
            ("no-store", self.no_store),
            ("no-cache", self.no_cache),
            ("private", self.private),
            ("public", self.public),
            ("must-revalidate", self.must_revalidate),
            ("immutable", self.immutable),
        ];
        let add = |text: &mut String, part: &str| {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(part);
        };
        flags.iter().filter(|(_, set)| *set).for_each(|(name, _)| add(&mut text, name));
        for (name, seconds) in [("max-age", self.max_age), ("s-maxage", self.s_maxage)] {
            if let Some(seconds) = seconds {
                add(&mut text, &format!("{name}={seconds}"));
            }
        }
        HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty())
    }
}

/// What a request asks of caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
    /// `Some(None)`: however stale.
    pub max_stale: Option<Option<u64>>,
    pub stale_if_error: Option<u64>,
}

impl Asks {
    /// Of a request's headers.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(text) = joined(headers, &CACHE_CONTROL) else {
            let pragma = headers.contains_key(PRAGMA)
                && joined(headers, &PRAGMA)
                    .is_some_and(|t| t.split(',').any(|p| p.trim().eq_ignore_ascii_case("no-cache")));
            return Self { no_cache: pragma, ..Self::default() };
        };
        let mut asks = Self::default();
        for (name, value) in parts(&text) {
            let seconds = value.as_deref().and_then(seconds);
            match name.as_str() {
                "no-store" => asks.no_store = true,
                "no-cache" => asks.no_cache = true,
                "only-if-cached" => asks.only_if_cached = true,
                "max-age" => asks.max_age = least(asks.max_age, seconds),
                "min-fresh" => asks.min_fresh = seconds.max(asks.min_fresh),
                "max-stale" if value.is_none() || seconds.is_some() => asks.max_stale = Some(seconds),
                "stale-if-error" => asks.stale_if_error = least(asks.stale_if_error, seconds),
                _ => {}
            }
        }
        asks
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Digits, and nothing else; a negative or broken number is no time at all, and what it limits is stale at once.
fn seconds(text: &str) -> Option<u64> {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    Some(if good { text.parse().unwrap_or(SECONDS_MAX).min(SECONDS_MAX) } else { 0 })
}

/// All headers of a name as one list; `None` without any.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut out: Option<String> = None;
    for value in headers.get_all(name) {
        let text = String::from_utf8_lossy(value.as_bytes());
        match &mut out {
            None => out = Some(text.into_owned()),
            Some(out) => {
                out.push_str(", ");
                out.push_str(&text);
            }
        }
    }
    out
}

/// Names in lower case with their values, quotes taken off. A quoted text may hold commas.
fn parts(text: &str) -> Vec<(String, Option<String>)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let mut quoted = false;
        let mut escaped = false;
        let end = rest.bytes().position(|b| match b {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' if quoted => {
                escaped = true;
                false
            }
            b'"' => {
                quoted = !quoted;
                false
            }
            b',' => !quoted,
            _ => false,
        });
        let (part, next) = match end {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest, ""),
        };
        rest = next;
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        match part.split_once('=') {
            Some((name, value)) => parts.push((name.to_ascii_lowercase(), Some(unquoted(value)))),
            None => parts.push((part.to_ascii_lowercase(), None)),
        }
    }
    parts
}

fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    inner.map_or_else(|| text.to_owned(), |inner| inner.replace('\\', ""))
}

/// Whether it is a dictionary of structured fields (RFC 8941) as far as directives go: keys in lower case, and numbers bare.
fn is_dictionary(text: &str) -> bool {
    let key = |name: &str| {
        name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'*')
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
    };
    let item = |value: &str| {
        let bare = value.split(';').next().unwrap_or_default();
        let digits = bare.strip_prefix('-').unwrap_or(bare);
        match bare.bytes().next() {
            Some(b'"') => bare.len() > 1 && bare.ends_with('"'),
            Some(b'?') => bare == "?0" || bare == "?1",
            Some(b) if b.is_ascii_digit() || b == b'-' => {
                !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            }
            Some(b) => b.is_ascii_alphabetic() || b == b'*',
            None => false,
        }
    };
    let number = |value: &str| value.split(';').next().is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    text.split(',').map(str::trim).all(|part| match part.split_once('=') {
        Some((name, value)) if SECONDS.contains(&name) => item(value) && number(value),
        Some((name, value)) => key(name) && item(value),
        None => key(part.split(';').next().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(text: &'static str) -> Says {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
        Says::of(&headers)
    }

    #[test]
    fn directives_are_read_as_they_are_written() {
        for (text, max_age) in [
            ("max-age=60", Some(60)),
            ("MaX-aGe=60", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=003600", Some(3600)),
            ("max-age=9999999999999999999999", Some(SECONDS_MAX)),
            ("max-age=60, max-age=1", Some(1)),
            ("max-age=1 , max-age=60", Some(1)),
            ("max-age=-1", Some(0)),
            ("max-age=60.5", Some(0)),
            ("max-age='60'", Some(0)),
            ("max-age=", Some(0)),
            ("max-age", Some(0)),
            ("max-age =60", None),
            ("extension=\"max-age=60, max-age=3\", max-age=5", Some(5)),
            ("extension=\"\\\"max-age=60\", public", None),
            ("", None),
        ] {
            assert_eq!(says(text).max_age, max_age, "{text}");
        }
        assert!(says("private=\"set-cookie\"").private);
        assert!(says("x, NO-STORE").no_store);
    }

    #[test]
    fn a_targeted_list_counts_alone_if_it_is_one() {
        for (targeted, expect) in [
            ("max-age=5", Some(5)),
            ("max-age=5, public", Some(5)),
            ("max-age=5;x=1", Some(5)),
            ("max-age=\"5\"", Some(60)),
            ("max-age=5.5", Some(60)),
            ("MAX-AGE=5", Some(60)),
            ("max-age==5", Some(60)),
            ("\"x\"", Some(60)),
            ("", Some(60)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
            headers.insert(CDN, HeaderValue::from_static(targeted));
            assert_eq!(Says::of(&headers).max_age, expect, "{targeted}");
        }
    }

    #[test]
    fn a_request_says_what_it_will_take() {
        let asks = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(text));
            Asks::of(&headers)
        };
        assert_eq!(asks("max-stale").max_stale, Some(None));
        assert_eq!(asks("max-stale=5").max_stale, Some(Some(5)));
        assert!(asks("only-if-cached, no-store").only_if_cached);
        let mut headers = HeaderMap::new();
        headers.insert(PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(Asks::of(&headers).no_cache);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!Asks::of(&headers).no_cache, "cache-control counts before pragma");
    }
}
