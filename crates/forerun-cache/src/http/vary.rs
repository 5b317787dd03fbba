//! Which of the answers to one URL is for a request: those of the same values in all headers that `Vary` names.

use http::HeaderMap;
use http::header::{HeaderName, ORIGIN, VARY};

/// More names than that, and hardly two requests are alike.
const NAMES_MAX: usize = 8;

/// What the request had there; `None` without the header.
type Value = Option<Box<[u8]>>;

/// What the router writes itself: an instance sees other values than those that a client sent. Host and scheme are of the key,
/// or the same for all.
const REWRITTEN: [&str; 6] = ["connection", "expect", "forwarded", "te", "via", "x-forwarded-for"];

/// Headers with what the request had there that was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vary(Box<[(HeaderName, Value)]>);

/// An answer can be for no other request: `*`, too many names, or a name that is none or of what the instance did not get from
/// the client, so that what it depends on cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ForNobodyElse;

impl Vary {
    /// `guarded`: who is asked for a user may add headers that the client did not send; then only those count as the
    /// client's that no such service would set.
    pub(crate) fn of(answer: &HeaderMap, request: &HeaderMap, guarded: bool) -> Result<Self, ForNobodyElse> {
        if !answer.contains_key(VARY) {
            return Ok(Self::default());
        }
        let mut names: Vec<HeaderName> = Vec::new();
        for value in answer.get_all(VARY) {
            let text = value.to_str().map_err(|_| ForNobodyElse)?;
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                if name == "*" {
                    return Err(ForNobodyElse);
                }
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| ForNobodyElse)?;
                let added = guarded && !name.as_str().starts_with("accept") && name != ORIGIN;
                if added || REWRITTEN.contains(&name.as_str()) {
                    return Err(ForNobodyElse);
                }
                names.push(name);
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > NAMES_MAX {
            return Err(ForNobodyElse);
        }
        Ok(Self(names.into_iter().map(|name| (name.clone(), value_of(request, &name))).collect()))
    }

    pub(crate) fn fits(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| match value {
            // Mostly one line of the same bytes.
            Some(value) => {
                is_plainly(request, name, value) || value_of(request, name).as_ref() == Some(value)
            }
            None => !request.contains_key(name),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| name.as_str().len() + value.as_ref().map_or(0, |v| v.len()) + 48)
            .sum()
    }
}

fn is_plainly(request: &HeaderMap, name: &HeaderName, value: &[u8]) -> bool {
    let mut values = request.get_all(name).into_iter();
    values.next().is_some_and(|v| v.as_bytes() == value) && values.next().is_none()
}

/// All lines of a header as one list, without the blanks around its commas.
pub(crate) fn value_of(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    if !headers.contains_key(name) {
        return None;
    }
    let mut out = Vec::new();
    for (at, value) in headers.get_all(name).into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        for (at, part) in value.as_bytes().split(|b| *b == b',').enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(part.trim_ascii());
        }
    }
    Some(out.into())
}
