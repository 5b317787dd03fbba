//! Where a trace's clock stands.

use super::bad;
use crate::failure::Failure;
use forerun_trace::{MinuteTrace, Recorded, Trace, parse_duration, parse_instant};
use forerun_types::{Span, Time};

/// Its zero and its length.
#[derive(Debug)]
pub(super) struct Times {
    /// Microseconds since 1970 of `Time(0)`; `None` for a trace without dates.
    pub(super) origin_us: Option<i64>,
    pub(super) zero: Time,
    pub(super) length: Span,
}

impl Times {
    pub(super) fn of(recorded: &Recorded) -> Self {
        match recorded {
            Recorded::Requests(Trace { events, origin_us, zero, .. }) => {
                let last = events.last().map_or(Time(0), |e| e.at);
                Self { origin_us: Some(*origin_us), zero: *zero, length: last.since(*zero) }
            }
            Recorded::Minutes(trace) => Self {
                origin_us: None,
                zero: Time(0),
                length: Span::from_secs(60 * MinuteTrace::minutes(trace) as u64),
            },
        }
    }

    /// Seconds from the start of the trace, or a date as the trace has it.
    pub(super) fn parse(&self, option: &str, text: &str) -> Result<Time, Failure> {
        if let Ok(span) = parse_duration(text) {
            return Ok(self.zero + span);
        }
        let micros = parse_instant(text.as_bytes()).map_err(|_| {
            bad(format!("{option}: {text:?} is neither seconds from the start of the trace nor a date"))
        })?;
        let origin =
            self.origin_us.ok_or_else(|| bad(format!("{option}: this trace has no dates: give seconds")))?;
        Ok(Time(u64::try_from(micros.saturating_sub(origin)).unwrap_or(0)))
    }

    pub(super) fn split(&self, text: &str) -> Result<Time, Failure> {
        match text.trim().parse::<f64>() {
            Ok(part) if (0.0..1.0).contains(&part) => {
                Ok(self.zero + Span::from_secs_f64(self.length.as_secs_f64() * part))
            }
            _ => self.parse("--split", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates() {
        let dated =
            Times { origin_us: Some(1_000_000_000_000_000), zero: Time(0), length: Span::from_secs(100) };
        let check = |times: &Times, text: &str, expect: Option<u64>| {
            assert_eq!(times.parse("--until", text).ok().map(|t| t.0), expect, "{text}");
        };
        check(&dated, "90", Some(90_000_000));
        check(&dated, "1.5", Some(1_500_000));
        check(&dated, "2m", Some(120_000_000));
        check(&dated, "2001-09-09T01:46:41Z", Some(1_000_000));
        check(&dated, "1970-01-01", Some(0));
        check(&dated, "soon", None);
        check(&Times { origin_us: None, ..dated }, "2001-09-09", None);
        let dated = Times { origin_us: Some(0), zero: Time(5), length: Span::from_secs(100) };
        assert_eq!(dated.split("0.25").ok(), Some(Time(25_000_005)));
        assert_eq!(dated.split("30").ok(), Some(Time(30_000_005)));
        assert!(dated.split("half").is_err());
    }
}
