//! The recorded day as single requests.
//!
//! The trace tells the mean concurrency of each minute, not its requests. In a minute of mean concurrency c, ceil(c)
//! requests arrive, each lasting 60 c / ceil(c) seconds, at instants drawn evenly from the minute by a fixed seed.

use crate::DemoError;
use crate::manifest::Rules;
use crate::script::App;
use flate2::read::GzDecoder;
use forerun_trace::{Trace, TraceEvent};
use forerun_types::{ActionKey, GroupKey, ServiceId, Span, TenantKey, Time, UserKey};
use std::io::Read;
use std::ops::Range;

const DATA: &[u8] = include_bytes!("../data/azure2019_apps.csv.gz");
/// Below this a minute counts as unused, as in FeMux's simulator.
const CONCURRENCY_LEAST: f64 = 1.6e-5;
const MINUTE_US: u64 = 60_000_000;

/// An application of the trace.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    /// Named by the first letters of its hash: enough to tell 47 apart.
    pub(crate) app: App,
    concurrency: Vec<f64>,
}

/// # Errors
/// Embedded data that cannot be read, which a test rules out.
pub(crate) fn apps() -> Result<Vec<Recorded>, DemoError> {
    let mut text = String::new();
    GzDecoder::new(DATA).read_to_string(&mut text).map_err(|e| DemoError::Data(e.to_string()))?;
    text.lines().skip(1).map(|line| app(line).ok_or_else(|| DemoError::Data(line.to_owned()))).collect()
}

fn app(line: &str) -> Option<Recorded> {
    let mut cells = line.split(',');
    let name = cells.next()?.get(..8)?.to_owned();
    let memory_mb: f64 = cells.next()?.parse().ok()?;
    let concurrency = cells.map(|c| if c.is_empty() { Some(0.0) } else { c.parse().ok() });
    Some(Recorded {
        app: App { name, memory_bytes: (memory_mb * 1e6) as u64 },
        concurrency: concurrency.collect::<Option<_>>()?,
    })
}

/// Requests of these minutes at playing speed, in order of time; second 0 is the beginning of the first minute.
/// The same minute gives the same requests, whatever range it is asked in.
pub(crate) fn requests(apps: &[Recorded], minutes: Range<usize>, act: &Rules) -> Trace {
    let mut events = Vec::new();
    for (id, app) in apps.iter().enumerate() {
        for minute in minutes.clone() {
            let c = app.concurrency.get(minute).copied().unwrap_or(0.0);
            if c < CONCURRENCY_LEAST {
                continue;
            }
            let count = c.ceil() as u64;
            let lasting = Span((c * MINUTE_US as f64 / count as f64) as u64);
            for n in 0..count {
                let offset = draw(act.seed, id as u64, minute as u64, n) % MINUTE_US;
                let at = (minute - minutes.start) as u64 * MINUTE_US + offset;
                events.push(TraceEvent {
                    at: Time(act.played(Span(at)).0),
                    service: ServiceId(id as u32),
                    tenant: TenantKey(0),
                    user: UserKey::NOBODY,
                    group: GroupKey(0),
                    action: ActionKey(0),
                    duration: Some(act.played(lasting)),
                    memory_bytes: Some(app.app.memory_bytes),
                });
            }
        }
    }
    events.sort_by_key(|e| (e.at, e.service));
    Trace { services: apps.iter().map(|a| a.app.name.clone()).collect(), events, ..Trace::default() }
}

/// One draw for each (seed, app, minute, number): SplitMix64's finaliser over their mix.
fn draw(seed: u64, app: u64, minute: u64, n: u64) -> u64 {
    let mut x = seed;
    for part in [app, minute, n] {
        x = (x ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunsOn;

    #[test]
    fn the_embedded_day_is_whole() {
        let apps = apps().unwrap();
        assert_eq!(apps.len(), 47);
        assert!(apps.iter().all(|a| a.concurrency.len() == 1_440 && a.app.memory_bytes > 10_000_000));
        let names: std::collections::BTreeSet<&str> = apps.iter().map(|a| a.app.name.as_str()).collect();
        assert_eq!(names.len(), 47);
    }

    #[test]
    fn requests_carry_the_recorded_load_and_do_not_depend_on_the_range() {
        let (apps, act) = (apps().unwrap(), Rules::load("services", RunsOn::Processes).unwrap());
        let whole = requests(&apps, 0..1_440, &act);
        let busy: u64 = whole.events.iter().map(|e| e.duration.unwrap().0 * act.speedup).sum();
        let told: f64 = apps.iter().flat_map(|a| &a.concurrency).filter(|c| **c >= CONCURRENCY_LEAST).sum();
        let ratio = busy as f64 / (told * 60e6);
        assert!((ratio - 1.0).abs() < 0.001, "{ratio}");
        let part = requests(&apps, 600..660, &act);
        let from = act.played(Span(600 * MINUTE_US));
        let same: Vec<_> = whole.events.iter().filter(|e| e.at.0 >= from.0).take(part.events.len()).collect();
        assert!(part.events.iter().zip(same).all(|(p, w)| p.at + from == w.at && p.service == w.service));
        assert!(whole.events.is_sorted_by_key(|e| e.at));
    }
}
