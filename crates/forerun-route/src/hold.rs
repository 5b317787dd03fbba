//! Whether one more request may be held.

use forerun_types::{HoldLimits, Span};
use std::fmt;

/// Which limit a request that cannot be served now ran into.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldRefusal {
    /// `hold.requests_max` are held already.
    Requests { max: u32 },
    /// It would take the held bytes over `hold.bytes_max`.
    Bytes { max: u64, held: u64, more: u64 },
    /// It was held for `hold.timeout` and no instance became free.
    Timeout { timeout: Span },
    /// The router holds all that it may, and the request's class has its part of that.
    Router(RouterFull),
    /// It was held, and gave way to one of a class that goes before it.
    MadeWay(RouterFull),
}

/// What is short at a router that holds all that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Requests,
    Bytes,
}

/// A router's limit on all that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterFull {
    pub room: Room,
    pub max: u64,
    /// What of it is the class's own while the others want it too.
    pub part: u64,
}

impl fmt::Display for RouterFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { room, max, part } = self;
        let (what, key) = match room {
            Room::Requests => ("requests", "router.held_max"),
            Room::Bytes => ("bytes of requests", "router.held_bytes_max"),
        };
        write!(f, "this router holds {max} {what} at most, {key}")?;
        match part < max {
            true => write!(f, ", and this class has its part of them, {part}"),
            false => Ok(()),
        }
    }
}

impl HoldRefusal {
    /// A word for metrics and headers.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Requests { .. } => "hold-requests",
            Self::Bytes { .. } => "hold-bytes",
            Self::Timeout { .. } => "hold-timeout",
            Self::Router(_) => "hold-router",
            Self::MadeWay(_) => "hold-made-way",
        }
    }

    /// When it is worth to ask again: a full queue moves within seconds; a whole router that is full, or a timeout that
    /// has passed, takes longer to mend.
    #[must_use]
    pub fn retry_after(&self) -> Span {
        match self {
            Self::Requests { .. } | Self::Bytes { .. } => Span::from_secs(1),
            Self::Timeout { .. } | Self::Router(_) | Self::MadeWay(_) => Span::from_secs(5),
        }
    }
}

impl fmt::Display for HoldRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests { max } => {
                write!(
                    f,
                    "{max} requests are waiting for an instance already, and hold.requests_max allows no more"
                )
            }
            Self::Bytes { max, held, more } => write!(
                f,
                "this request's {more} bytes and the {held} already held are more than hold.bytes_max, {max}"
            ),
            Self::Timeout { timeout } => {
                write!(f, "no instance became free within hold.timeout, {timeout}")
            }
            Self::Router(full) => write!(f, "{full}"),
            Self::MadeWay(full) => write!(f, "{full}; this one made way for a class that goes first"),
        }
    }
}

/// Whether a request of `more_bytes` may join `held_requests` that hold `held_bytes`.
///
/// # Errors
/// The limit that it would break; number before bytes.
pub fn admit_hold(
    limits: &HoldLimits,
    held_requests: u32,
    held_bytes: u64,
    more_bytes: u64,
) -> Result<(), HoldRefusal> {
    if held_requests >= limits.requests_max {
        return Err(HoldRefusal::Requests { max: limits.requests_max });
    }
    if held_bytes.saturating_add(more_bytes) > limits.bytes_max {
        return Err(HoldRefusal::Bytes { max: limits.bytes_max, held: held_bytes, more: more_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_names_itself() {
        let limits = HoldLimits { requests_max: 2, bytes_max: 100, timeout: Span::from_secs(1) };
        for (held, bytes, more, refused) in [
            (0, 0, 100, None),
            (1, 60, 40, None),
            (2, 0, 0, Some("hold-requests")),
            (2, 100, 1, Some("hold-requests")),
            (1, 60, 41, Some("hold-bytes")),
            (0, 0, u64::MAX, Some("hold-bytes")),
            (1, u64::MAX, u64::MAX, Some("hold-bytes")),
        ] {
            let got = admit_hold(&limits, held, bytes, more).err().map(|r| r.reason());
            assert_eq!(got, refused, "{held} {bytes} {more}");
        }
        let closed = HoldLimits { requests_max: 0, ..limits };
        assert_eq!(admit_hold(&closed, 0, 0, 0), Err(HoldRefusal::Requests { max: 0 }));
        let sentence = HoldRefusal::Timeout { timeout: limits.timeout }.to_string();
        assert!(sentence.contains("hold.timeout"), "{sentence}");
    }
}
