//! What a forecast of load costs: live, of ten thousand services a minute, and fitted, of a file of series. Beside both, the
//! sort of a day of one series' minutes, which is what the plainest quantiles take, timed in the same run.

use crate::Figure;
use crate::processor::Began;
use forerun_core::{Core, KeepAlive};
use forerun_lab::forecast::{Asked, Fitted, Series};
use forerun_types::{Event, RouterId, ServiceId, ServiceLoad, ServiceSpec, Span, Time, Traffic};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const SERVICES: u32 = 10_000;
const MINUTES: u64 = 260;
const ROUTER: RouterId = RouterId(0);
const DAY: usize = 1_440;

fn spread(n: u64) -> u64 {
    forerun_core::profile::table::spread(n)
}

/// A service's load in a minute: a slow wave with noise, higher now and then.
pub(crate) fn load(service: u64, minute: u64) -> u32 {
    let noise = spread(service << 32 | minute);
    let wave = (minute + service * 7) % 240;
    let base = wave.min(240 - wave) / 20;
    (base + noise % 3 + if noise >> 32 & 31 == 0 { 8 } else { 0 }) as u32
}

/// Seconds on the processor that forecasting all services takes, once some hours of minutes are known of each.
fn all_seconds() -> f64 {
    let mut core = Core::new(KeepAlive::new(Span::from_secs(60)));
    core.forecast_loads();
    let mut actions = Vec::new();
    let mut now = Time(1_700_000_000_000_000 / 60_000_000 * 60_000_000);
    core.step(now, &Event::RouterJoined(ROUTER), &mut actions);
    for id in 0..SERVICES {
        let spec = ServiceSpec {
            mode: forerun_types::Mode::Observe,
            ..ServiceSpec::named(ServiceId(id), format!("s{id}"))
        };
        core.step(now, &Event::Service(Arc::new(spec)), &mut actions);
    }
    let mut last = 0.0;
    for minute in 0..MINUTES {
        let service = |id: u32| {
            let in_flight = load(u64::from(id), minute);
            ServiceLoad { service: ServiceId(id), in_flight, peak: in_flight, waiting: 0 }
        };
        let traffic =
            Traffic { router: ROUTER, services: (0..SERVICES).map(service).collect(), ..Traffic::default() };
        core.step(now, &Event::Traffic(traffic), &mut actions);
        // What else is due comes first, so that what is timed are the forecasts.
        let next = now + Span::from_secs(60);
        let began = Began::now();
        while core.next_due() < next {
            now = core.next_due().max(now);
            core.step(now, &Event::Tick, &mut actions);
            actions.clear();
        }
        last = began.us() / 1e6;
        now = next;
    }
    let forecasts: Vec<_> = core.services().filter_map(|s| s.forecast).collect();
    assert_eq!(forecasts.len(), SERVICES as usize, "all are forecast");
    // Those cost the most.
    let has_trees = |(model, _): &(&str, f64)| *model == "trees";
    assert!(forecasts.iter().all(|f| f.weights.iter().any(has_trees)), "trees take part in all");
    last
}

/// Seconds of one forecast of a fitted set of series, and of the fit.
fn fitted_seconds() -> (f64, f64) {
    let (series, length, horizon) = (40, 1_000, 24);
    let all: Vec<Series> = (0..series)
        .map(|s| Series {
            name: s.to_string(),
            values: (0..length).map(|i| f64::from(load(s, i))).collect(),
            season: 240,
            test_from: 800,
            asked: (800..976).step_by(16).map(|origin| Asked { origin, horizon }).collect(),
        })
        .collect();
    let began = Instant::now();
    let mut fitted = Fitted::new(&all);
    let fit = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let told = fitted.forecast(&mut |_| {});
    let forecasts: usize = told.iter().map(Vec::len).sum();
    (began.elapsed().as_secs_f64() / forecasts as f64, fit)
}

fn sort_us() -> f64 {
    const TIMES: u64 = 200;
    let began = Instant::now();
    for n in 0..TIMES {
        let mut values: Vec<f64> = (0..DAY as u64).map(|i| f64::from(load(n, i))).collect();
        values.sort_unstable_by(f64::total_cmp);
        black_box(&values);
    }
    began.elapsed().as_secs_f64() * 1e6 / TIMES as f64
}

pub(crate) fn run() -> Vec<Figure> {
    const SORT: &str = "sorting a day of minutes";
    let sort = sort_us();
    let all = all_seconds();
    let (one, fit) = fitted_seconds();
    let each_us = all * 1e6 / f64::from(SERVICES);
    vec![
        Figure::new("forecast one live service, 5 steps", each_us, "us", SORT, sort),
        Figure::new("forecast all of 10,000 live services", all, "s", "one second", 1.0),
        Figure::new("forecast one fitted series, 24 steps", one * 1e6, "us", SORT, sort),
        Figure::new("fit 40 series of 800 values", fit * 1e6, "us", SORT, sort),
    ]
}
