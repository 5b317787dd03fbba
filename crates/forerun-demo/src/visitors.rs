//! The visitors of a web site, from its access log.
//!
//! The log holds the minute :05 of every hour and nothing else. Its minutes are put side by side, so that the last
//! request of one is followed by the first of the next: over the log's own clock nothing could be kept or foreseen.

use crate::DemoError;
use crate::manifest::Rules;
use forerun_trace::{Input, ReadOptions, Recorded, Trace, TraceEvent, read};
use forerun_types::{Span, Time};
use std::ops::Range;

const DATA: &[u8] = include_bytes!("../data/apache_logs.gz");
const MINUTE_US: u64 = 60_000_000;
const HOUR_US: u64 = 60 * MINUTE_US;

/// The whole log at recorded speed, its minutes side by side from `Time(0)` on.
///
/// # Errors
/// Embedded data that cannot be read, which a test rules out.
pub(crate) fn requests(rules: &Rules) -> Result<Trace, DemoError> {
    let input = Input::Bytes { name: "the embedded log", bytes: DATA };
    let options = ReadOptions { service: Some(rules.untold.service.clone()), ..ReadOptions::default() };
    let recorded = read(&[input], &options, &mut |_| {}).map_err(|e| DemoError::Data(e.to_string()))?;
    let Recorded::Requests(mut trace) = recorded else {
        return Err(DemoError::Data("it is no log of requests".to_owned()));
    };
    let origin_us = u64::try_from(trace.origin_us).unwrap_or(0);
    let mut last_hour = None;
    let mut minutes = 0;
    for event in &mut trace.events {
        let at = origin_us + event.at.0;
        let hour = at / HOUR_US;
        if last_hour.replace(hour) != Some(hour) {
            minutes += 1;
        }
        event.at = Time((minutes - 1) * MINUTE_US + at % MINUTE_US);
        event.duration = Some(rules.untold.duration);
        event.memory_bytes = Some(rules.untold.memory_bytes);
    }
    trace.origin_us = 0;
    Ok(trace)
}

/// These minutes at playing speed; second 0 is the beginning of the first.
pub(crate) fn minutes(whole: &Trace, range: Range<usize>, rules: &Rules) -> Trace {
    let (from, to) = (Time(range.start as u64 * MINUTE_US), Time(range.end as u64 * MINUTE_US));
    let events = whole.events.iter().filter(|e| e.at >= from && e.at < to);
    let played = |e: &TraceEvent| TraceEvent {
        at: Time(rules.played(e.at.since(from)).0),
        duration: e.duration.map(|d| rules.played(d).max(Span::from_millis(1))),
        ..*e
    };
    Trace { services: whole.services.clone(), events: events.map(played).collect(), ..Trace::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunsOn;

    #[test]
    fn the_embedded_log_is_whole_and_its_minutes_stand_side_by_side() {
        let rules = Rules::load("users", RunsOn::Processes).unwrap();
        let whole = requests(&rules).unwrap();
        assert_eq!(whole.events.len() as u64 + whole.report.skipped, 10_000);
        assert!(whole.report.skipped < 10, "{}", whole.report.skipped);
        assert!(whole.events.is_sorted_by_key(|e| e.at));
        let of_minute = |m: usize| minutes(&whole, m..m + 1, &rules).events.len();
        assert_eq!(rules.race_minutes.1, 84, "the manifest plays the log to its end");
        assert!((0..84).all(|m| (50..200).contains(&of_minute(m))));
        assert_eq!((0..84).map(of_minute).sum::<usize>(), whole.events.len());
        let raced = minutes(&whole, 60..84, &rules);
        assert!(
            raced.events.iter().all(|e| e.at.0 < rules.played(Span(24 * MINUTE_US)).0 && e.user.is_known())
        );
    }
}
