//! `Cache-Status` (RFC 9211): what the cache did with a request, and why.

use http::header::HeaderValue;
use std::fmt::Write as _;

/// Why an instance was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    Bypass,
    Method,
    UriMiss,
    VaryMiss,
    Request,
    Stale,
}

impl Forward {
    fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// One member of the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `None` is a hit.
    pub forward: Option<Forward>,
    pub forward_status: Option<u16>,
    pub ttl_seconds: Option<i64>,
    pub stored: bool,
    pub collapsed: bool,
    pub detail: Option<&'static str>,
}

impl Status {
    #[must_use]
    pub fn hit(ttl_seconds: i64) -> Self {
        Self { ttl_seconds: Some(ttl_seconds), ..Self::default() }
    }

    #[must_use]
    pub fn forwarded(why: Forward) -> Self {
        Self { forward: Some(why), ..Self::default() }
    }

    #[must_use]
    pub fn header(&self) -> HeaderValue {
        let mut text = String::with_capacity(48);
        text.push_str("forerun");
        match self.forward {
            None => text.push_str("; hit"),
            Some(why) => {
                text.push_str("; fwd=");
                text.push_str(why.word());
            }
        }
        if let Some(status) = self.forward_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl_seconds {
            let _ = write!(text, "; ttl={ttl}");
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("forerun"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_a_structured_field() {
        assert_eq!(Status::hit(-3).header(), "forerun; hit; ttl=-3");
        let status = Status {
            forward_status: Some(304),
            ttl_seconds: Some(60),
            stored: true,
            collapsed: true,
            detail: Some("too-large"),
            ..Status::forwarded(Forward::Stale)
        };
        let expect = "forerun; fwd=stale; fwd-status=304; ttl=60; stored; collapsed; detail=too-large";
        assert_eq!(status.header(), expect);
    }
}
