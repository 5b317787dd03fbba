//! Traffic made to hurt: bursts, a flash crowd, services that die, days and nights, and users who come back just
//! after everyone has given them up.

use forerun_trace::{Trace, TraceEvent};
use forerun_types::{ActionKey, GroupKey, ServiceId, Span, TenantKey, Time, UserKey};
use std::path::PathBuf;

/// SplitMix64.
pub(crate) struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// From 0 up to, but not, 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.share() * (high - low)
    }

    /// A gap of a Poisson process, mean `mean`.
    fn gap(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }
}

/// Requests before they stand in order: seconds, service, seconds that they take.
#[derive(Default)]
struct Requests(Vec<(f64, usize, f64)>);

impl Requests {
    fn add(&mut self, at: f64, service: usize, takes: f64) {
        self.0.push((at, service, takes));
    }

    fn trace(mut self) -> Trace {
        self.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut numbers: Vec<Option<u32>> = Vec::new();
        let mut trace = Trace::default();
        for (at, service, takes) in self.0 {
            if numbers.len() <= service {
                numbers.resize(service + 1, None);
            }
            let number = *numbers[service].get_or_insert_with(|| {
                trace.services.push(format!("s{service}"));
                trace.services.len() as u32 - 1
            });
            trace.events.push(TraceEvent {
                at: Time((at * 1e6) as u64),
                service: ServiceId(number),
                tenant: TenantKey(0),
                user: UserKey(0),
                group: GroupKey(0),
                action: ActionKey(0),
                duration: Some(Span::from_secs_f64(takes)),
                memory_bytes: None,
            });
        }
        trace
    }
}

const DAY: f64 = 86_400.0;

/// A world of a name, made only when it is played.
pub(crate) type World = (&'static str, fn() -> Option<Trace>);

/// Those that a build without optimisations plays in seconds.
pub(crate) const QUICK: [World; 3] = [
    ("services that die", || Some(dying())),
    ("just beyond 1 min", || Some(beyond(62.0))),
    ("just beyond 10 min", || Some(beyond(602.0))),
];

pub(crate) const SLOW: [World; 7] = [
    ("bursts", || Some(bursts())),
    ("flash crowd, drawn", || Some(flash_crowd())),
    ("World Cup, two days", world_cup),
    ("days and nights", || Some(days())),
    ("just beyond the price", || Some(beyond(82.0))),
    ("further beyond the price", || Some(beyond(92.0))),
    ("beyond, by turns", || Some(turns())),
];

/// Six services, asked some thirty times within a few seconds, every forty minutes or so.
fn bursts() -> Trace {
    let (mut draws, mut requests) = (Draws(1), Requests::default());
    for service in 0..6 {
        let mut at = draws.gap(2_400.0);
        while at < DAY {
            for _ in 0..15 + draws.next() % 30 {
                requests.add(at + draws.gap(5.0), service, draws.between(0.5, 4.0));
            }
            at += draws.gap(2_400.0);
        }
    }
    requests.trace()
}

/// A quiet site that is suddenly asked fifty times as much, for some minutes, three times in a day.
fn flash_crowd() -> Trace {
    let (mut draws, mut requests) = (Draws(2), Requests::default());
    let crowds = [30_000.0, 50_000.0, 80_000.0];
    for service in 0..2 {
        let mut at = 0.0;
        while at < DAY {
            let crowd: f64 = crowds
                .iter()
                .map(|begin| match at - begin {
                    age if age < 0.0 => 0.0,
                    age if age < 60.0 => age / 60.0,
                    age => (-(age - 60.0) / 400.0).exp(),
                })
                .sum();
            requests.add(at, service, draws.between(0.2, 2.0));
            at += draws.gap(60.0 / (1.0 + 50.0 * crowd)).min(30.0);
        }
    }
    requests.trace()
}

/// A hundred services, each asked for a while after it came, and then no more.
fn dying() -> Trace {
    let (mut draws, mut requests) = (Draws(3), Requests::default());
    for service in 0..100 {
        let mut at = draws.between(0.0, DAY);
        let end = at + draws.gap(3_600.0);
        let gap = draws.between(20.0, 300.0);
        requests.add(at, service, 1.0);
        while at < end {
            at += draws.gap(gap);
            requests.add(at, service, 1.0);
        }
    }
    requests.trace()
}

/// Three services with a day and a night, a week long.
fn days() -> Trace {
    let (mut draws, mut requests) = (Draws(4), Requests::default());
    for service in 0..3 {
        let shift = draws.between(0.0, DAY / 4.0);
        let mut at = 0.0;
        while at < 7.0 * DAY {
            let phase = ((at + shift) / DAY * std::f64::consts::TAU).sin();
            // Some 40 an hour by day, 1 by night.
            let rate = (1.0 + 19.5 * (1.0 + phase)) / 3_600.0;
            at += draws.gap(1.0 / rate).min(1_800.0);
            requests.add(at, service, draws.between(0.5, 3.0));
        }
    }
    requests.trace()
}

/// Eight services, each asked again as soon as a keep-alive of a little less has given it up, for an hour on, and
/// then left alone for an hour.
fn beyond(gap: f64) -> Trace {
    let (mut draws, mut requests) = (Draws(5), Requests::default());
    for service in 0..8 {
        let mut at = draws.between(0.0, 3_600.0);
        while at < DAY {
            let end = at + 3_600.0;
            while at < end {
                requests.add(at, service, 1.0);
                at += 1.0 + gap + draws.between(0.0, 0.05 * gap);
            }
            at += 3_600.0;
        }
    }
    requests.trace()
}

/// The same with another gap each hour, so that what was learned is wrong by then.
fn turns() -> Trace {
    let (mut draws, mut requests) = (Draws(6), Requests::default());
    let gaps = [62.0, 302.0, 12.0, 602.0, 82.0, 1_202.0];
    for service in 0..8 {
        let mut at = draws.between(0.0, 3_600.0);
        while at < DAY {
            let gap = gaps[(draws.next() % 6) as usize];
            let end = at + 3_600.0;
            while at < end {
                requests.add(at, service, 1.0);
                at += 1.0 + gap + draws.between(0.0, 0.05 * gap);
            }
        }
    }
    requests.trace()
}

/// The site of the World Cup of 1998, the two days that end with its busiest, one request of eight thousand.
fn world_cup() -> Option<Trace> {
    let root = std::env::var_os("FORERUN_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let file = root.join("data/worldcup98/invocation_count.csv.gz");
    let Ok(mut reader) = forerun_trace::open_plain(&forerun_trace::Input::Path(file.clone())) else {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED: {} is not there; set FORERUN_SHARED", file.display());
        return None;
    };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).expect("reads");
    let counts = text.lines().skip(1).skip(67 * 1_440).take(2 * 1_440);
    let (mut draws, mut requests) = (Draws(7), Requests::default());
    let mut left = 0.0;
    for (minute, line) in counts.enumerate() {
        let count: f64 = line.rsplit(',').next().and_then(|n| n.parse().ok()).expect("a count");
        left += count / 8_000.0;
        while left >= 1.0 {
            left -= 1.0;
            // Sections of a site, each asked half as much as the one before.
            let section = ((1.0 / (1.0 - draws.share())).log2() as usize).min(5);
            let at = 60.0 * (minute as f64 + draws.share());
            requests.add(at, section, draws.between(0.5, 5.0));
        }
    }
    Some(requests.trace())
}
