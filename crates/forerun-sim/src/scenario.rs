//! A world before it begins: its services, its site, its routers and its requests, drawn from the seed.

use crate::classes;
use crate::faults::Fault;
use crate::levels;
use crate::random::Random;
use forerun_core::Canary;
use forerun_route::WaitlistLimits;
use forerun_types::{HoldLimits, Mode, Resources, ServiceId, ServiceSpec, SiteId, SiteSpec, Span};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    pub seed: u64,
    /// Kinds of faults that never strike.
    pub off: BTreeSet<Fault>,
    /// Single faults that are left out.
    pub skipped_faults: BTreeSet<(Fault, u32)>,
    /// Requests that are left out.
    pub skipped_requests: BTreeSet<u32>,
    pub canary: Option<Canary>,
    /// What the engine refuses is counted, and the world goes on: else the first of it ends it.
    pub past_refusals: bool,
    /// Keep the story.
    pub tell: bool,
}

/// A request that will come.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// After the world's beginning.
    pub at: Span,
    pub service: ServiceId,
    pub user: u64,
    /// What its service may specialise by.
    pub key: Option<u32>,
    pub router: usize,
    /// How long an instance takes for it.
    pub takes: Span,
    /// How long its client waits for an answer.
    pub patience: Span,
}

/// A key as requests bring it.
pub(crate) fn key_text(key: u32) -> String {
    format!("k{key}")
}

/// What a seed makes.
#[derive(Clone, Debug)]
pub struct Setting {
    pub services: Vec<Arc<ServiceSpec>>,
    pub site: SiteSpec,
    /// Routers that are processes of their own; none means one inside the engine's.
    pub separate_routers: usize,
    /// What each router may hold.
    pub waitlist: WaitlistLimits,
    pub requests: Vec<Request>,
    pub lasts: Span,
    pub flush_interval: Span,
    pub segment_bytes_max: u64,
    pub segments: u64,
    /// What people do past the engine.
    pub hands: u64,
    /// `forerun`, or a fixed keep-alive.
    pub keep: Option<Span>,
}

impl Setting {
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let mut draw = Random::of(scenario.seed, "setting");
        let count = [1, 2, 3, 3, 5, 8, 12][draw.below(7) as usize];
        let mut services: Vec<_> = (0..count).map(|id| Arc::new(service(id, &mut draw))).collect();
        let largest = services.iter().map(|s| s.resources.memory_bytes).max().unwrap_or(1);
        let by_count = draw.below(2) == 0;
        let site = SiteSpec {
            id: SiteId(0),
            name: "here".to_owned(),
            capacity: Resources {
                memory_bytes: if by_count { 0 } else { largest * draw.between(1, 5) },
                ..Resources::default()
            },
            instances_max: if by_count { draw.between(1, 6) as u32 } else { 0 },
        };
        let separate_routers = [0, 0, 0, 1, 2][draw.below(5) as usize];
        let lasts = Span::from_secs(draw.between(10 * 60, 3 * 3600));
        let flush_interval = Span::from_millis([200, 1_000, 1_000, 5_000][draw.below(4) as usize]);
        let segment_bytes_max = [8, 32, 128][draw.below(3) as usize] << 10;
        let segments = draw.between(2, 6);
        let keep = (draw.below(4) == 0).then(|| Span::from_secs(draw.between(0, 120)));
        let hands = levels::draw(scenario.seed, &mut services);
        classes::draw(scenario.seed, &mut services);
        let mut setting = Self {
            hands,
            services,
            site,
            separate_routers,
            waitlist: waitlist(scenario.seed),
            requests: Vec::new(),
            lasts,
            flush_interval,
            segment_bytes_max,
            segments,
            keep,
        };
        setting.requests = setting.load(scenario.seed);
        setting
    }

    fn load(&self, seed: u64) -> Vec<Request> {
        let mut draw = Random::of(seed, "load");
        let mut details = Random::of(seed, "requests");
        let mut keys = Random::of(seed, "keys");
        let distinct = keys.between(1, 6);
        let most = draw.between(50, 1_500);
        let mut arrivals: Vec<(u64, u64)> = Vec::new();
        let (end, services) = (self.lasts.0, self.services.len() as u64);
        let second = 1_000_000;
        match draw.below(5) {
            // Steady: any service, evenly.
            0 => arrivals.extend((0..most).map(|_| (draw.below(end), draw.below(services)))),
            // Bursts.
            1 => {
                for _ in 0..most / 20 {
                    let (at, service) = (draw.below(end), draw.below(services));
                    arrivals.extend((0..20).map(|_| (at + draw.below(2 * second), service)));
                }
            }
            // On and off, just beyond what is kept.
            2 => {
                let gap =
                    self.keep.unwrap_or(Span::from_secs(draw.between(20, 600))).0 + draw.below(3 * second);
                let gap = gap.max(second);
                for service in 0..services {
                    let from = draw.below(gap);
                    arrivals
                        .extend((0..(end / gap).min(most / services + 1)).map(|n| (from + n * gap, service)));
                }
            }
            // Each service once.
            3 => arrivals.extend((0..services).map(|service| (draw.below(end), service))),
            // All of one.
            _ => arrivals.extend((0..most).map(|_| (draw.below(end), 0))),
        }
        let mut requests: Vec<(Span, ServiceId, Option<Span>)> =
            arrivals.into_iter().map(|(at, id)| (Span(at), ServiceId(id as u32), None)).collect();
        let flood = classes::flood(seed, &self.services, self.lasts);
        requests.extend(flood.into_iter().map(|(at, service, takes)| (at, service, Some(takes))));
        requests.sort_unstable();
        let routers = self.separate_routers.max(1) as u64;
        let users = draw.between(1, 30);
        requests
            .into_iter()
            .map(|(at, service, takes)| Request {
                at,
                service,
                user: 1 + details.below(users),
                key: keys.below(5).checked_sub(1).map(|_| keys.below(distinct) as u32),
                router: details.below(routers) as usize,
                takes: takes.unwrap_or_else(|| {
                    Span(match details.below(20) {
                        0 => details.between(10 * second, 90 * second),
                        1..5 => details.between(second, 8 * second),
                        _ => details.between(5_000, second),
                    })
                }),
                patience: Span(match details.below(10) {
                    0 => details.between(50_000, 5 * second),
                    _ => details.between(60 * second, 300 * second),
                }),
            })
            .collect()
    }
}

/// Hardly any room in three of four worlds; never so little that the few probes after the faults do not fit.
fn waitlist(seed: u64) -> WaitlistLimits {
    let mut draw = Random::of(seed, "waitlist");
    match draw.below(4) {
        0 => WaitlistLimits::default(),
        _ => WaitlistLimits { requests_max: draw.between(4, 10) as u32, ..WaitlistLimits::default() },
    }
}

fn service(id: u32, draw: &mut Random) -> ServiceSpec {
    let mut spec = ServiceSpec::named(ServiceId(id), format!("s{id}"));
    spec.resources.memory_bytes = draw.between(1, 4) * 256_000_000;
    spec.start_timeout = Span::from_secs(draw.between(5, 60));
    spec.start_estimate = Span::from_millis(draw.between(100, 4_000));
    spec.drain_timeout = Span::from_secs(draw.between(1, 30));
    spec.concurrency = [0, 1, 1, 1, 2, 8][draw.below(6) as usize];
    spec.min = [0, 0, 0, 0, 1, 2][draw.below(6) as usize];
    spec.max = [u32::MAX, u32::MAX, 1, 2, 4][draw.below(5) as usize].max(spec.min);
    spec.mode =
        [Mode::Act, Mode::Act, Mode::Act, Mode::Act, Mode::Act, Mode::Act, Mode::Observe, Mode::Advise]
            [draw.below(8) as usize];
    spec.hold = HoldLimits {
        requests_max: [1_000, 1_000, 3][draw.below(3) as usize],
        bytes_max: 64 << 20,
        timeout: Span::from_secs(draw.between(30, 90)),
    };
    spec
}
