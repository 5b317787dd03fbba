//! What a request is answered from a stored answer.

use super::date;
use super::range::{Part, part};
use super::status::Status;
use super::stored::Stored;
use bytes::Bytes;
use forerun_types::Time;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_RANGE, DATE, ETAG, EXPIRES, HeaderName,
    HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, Method, StatusCode};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What of the stored headers an answer says that sends no body again (RFC 9110, 15.4.5).
static OF_304: [HeaderName; 9] = [
    CACHE_CONTROL,
    CONTENT_LOCATION,
    DATE,
    ETAG,
    EXPIRES,
    LAST_MODIFIED,
    VARY,
    HeaderName::from_static("cdn-cache-control"),
    CACHE_STATUS,
];

/// A whole answer: its body is what is sent, its headers are final but for `Content-Length` of that body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// From what is stored, for a GET or HEAD: 304 where the client has it, a part where it asks for one.
    #[must_use]
    pub fn of(stored: &Stored, method: &Method, request: &HeaderMap, status: &Status, now: Time) -> Self {
        let whole = stored.status == StatusCode::OK;
        let mut answer = if whole && client_has(stored, request) {
            let mut kept = HeaderMap::new();
            for name in &OF_304 {
                for value in stored.headers.get_all(name) {
                    kept.append(name.clone(), value.clone());
                }
            }
            Self { status: StatusCode::NOT_MODIFIED, headers: kept, body: Bytes::new() }
        } else {
            let part = if whole && method == Method::GET { asked_part(stored, request) } else { Part::Whole };
            stored.cut(part)
        };
        if method == Method::HEAD && answer.status != StatusCode::NOT_MODIFIED {
            answer.headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.body.len()));
            answer.body = Bytes::new();
        }
        answer.headers.insert(AGE, HeaderValue::from(date::seconds(stored.age(now))));
        answer.headers.append(CACHE_STATUS, status.header());
        answer
    }
}

impl Stored {
    fn cut(&self, part: Part) -> Answer {
        let (mut headers, length) = (self.headers.clone(), self.body.len());
        let range = |text: String| HeaderValue::from_str(&text).ok();
        let (status, body, range) = match part {
            Part::Whole => (self.status, self.body.clone(), None),
            Part::One(bytes) => {
                let text = format!("bytes {}-{}/{length}", bytes.start, bytes.end - 1);
                (StatusCode::PARTIAL_CONTENT, self.body.slice(bytes), range(text))
            }
            Part::Nothing => {
                (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), range(format!("bytes */{length}")))
            }
        };
        if let Some(range) = range {
            headers.insert(CONTENT_RANGE, range);
        }
        Answer { status, headers, body }
    }
}

fn asked_part(stored: &Stored, request: &HeaderMap) -> Part {
    let Some(range) = request.get(RANGE).and_then(|value| value.to_str().ok()) else { return Part::Whole };
    if let Some(condition) = request.get(IF_RANGE).and_then(|value| value.to_str().ok()) {
        // Only what is the same to the byte may be continued.
        let holds = match condition.starts_with('"') || condition.starts_with("W/") {
            true => !condition.starts_with("W/") && etag(&stored.headers) == Some(condition),
            false => {
                let modified = date::header(&stored.headers, LAST_MODIFIED);
                modified.is_some() && modified == date::parse(condition)
            }
        };
        if !holds {
            return Part::Whole;
        }
    }
    part(range, stored.body.len())
}

fn etag(headers: &HeaderMap) -> Option<&str> {
    headers.get(ETAG)?.to_str().ok().map(str::trim)
}

/// Whether the client's own copy is this one.
fn client_has(stored: &Stored, request: &HeaderMap) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let own = etag(&stored.headers).map(strong);
        let listed = request.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
        return listed.flat_map(tags).any(|tag| tag == "*" || own == Some(strong(tag)));
    }
    if !request.contains_key(IF_MODIFIED_SINCE) {
        return false;
    }
    let since = date::header(request, IF_MODIFIED_SINCE);
    let changed =
        date::header(&stored.headers, LAST_MODIFIED).or_else(|| date::header(&stored.headers, DATE));
    matches!((since, changed), (Some(since), Some(changed)) if changed <= since)
}

/// Weak tags compare as strong ones here (RFC 9110, 13.1.2).
fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// The tags of a list; a comma may stand in one.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return None;
        }
        let quoted = rest.find('"').filter(|at| rest[..*at].trim_matches(['W', '/']).is_empty());
        let end = match quoted {
            Some(open) => rest[open + 1..].find('"').map_or(rest.len(), |close| open + close + 2),
            None => rest.find(',').unwrap_or(rest.len()),
        };
        let (tag, next) = rest.split_at(end);
        rest = next;
        Some(tag.trim())
    })
}
