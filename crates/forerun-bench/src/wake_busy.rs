//! The wake of a process while ten thousand services are forecast: each has hours of recorded load, a router tells of all of
//! them once a second, and every minute the load of each is forecast anew. Wakes are made while that is under way, beside
//! starts by hand in the same moments.

use crate::wake::{quantile, settings, start_by_hand, wake};
use crate::{Figure, fail};
use forerun_core::{AnyPolicy, Core};
use forerun_engine::live::{Engine, Published, Settings};
use forerun_types::{Event, Mode, RouterId, ServiceId, ServiceLoad, ServiceSpec, Span, Time, Traffic};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SERVICES: u32 = 10_000;
const WAKES: usize = 150;
/// From an answer to the next wake: by then it is asleep again, or the wake does not count.
const APART: Duration = Duration::from_millis(600);
/// So many services are there before all the others are: few that are forecast often teach trees as well as many.
const FIRST: u32 = 200;
/// Minutes of these alone, in which trees are fitted on them, and of all.
const MINUTES_FIRST: u64 = 200;
const MINUTES: u64 = 240;
const MINUTE: Span = Span::from_secs(60);
/// The router that tells of their load; the engine's own is 0.
const ROUTER: RouterId = RouterId(1);
/// Every so often a part of the services is told of, as a router does: of each once a second.
const TELL_EVERY: Duration = Duration::from_millis(20);
const PARTS: u32 = 50;
/// How often it is looked whether forecasts are being made.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// Before that the engine is still beginning.
const BEGUN: Duration = Duration::from_secs(5);

pub(crate) fn run(runtime: &tokio::runtime::Runtime, folder: &Path) -> Vec<Figure> {
    let folder = folder.join("busy");
    let plain = settings(&folder);
    let mut services: Vec<Arc<ServiceSpec>> = (0..SERVICES).map(service).collect();
    let learned = Some(learned(&services));
    // The cold one is not among those that are forecast.
    services.extend(plain.services.iter().cloned());
    let settings = Settings { services, learned, ..plain };
    let engine = runtime.block_on(Engine::start(settings)).unwrap_or_else(|e| fail(&e.to_string()));
    let done = AtomicBool::new(false);
    let (mut woken, mut by_hand, longest) = std::thread::scope(|scope| {
        let told = scope.spawn(|| tell(&engine, &done));
        let (woken, by_hand) = measure(&engine);
        done.store(true, Ordering::Relaxed);
        (woken, by_hand, told.join().unwrap_or_else(|_| fail("the load could not be told")))
    });
    runtime.block_on(engine.shutdown());
    let mut at = |q| (quantile(&mut woken, q), quantile(&mut by_hand, q));
    let ((median, median_by_hand), (high, high_by_hand)) = (at(0.5), at(0.99));
    let by = "the same program started by hand";
    let of = |what: &str| format!("10,000 services forecast: {what}");
    vec![
        Figure::new(of("request to answer, median"), median, "ms", by, median_by_hand),
        Figure::new(of("request to answer, p99"), high, "ms", by, high_by_hand),
        Figure::new(of("overhead, p99"), high - high_by_hand, "ms", "20 ms", 20.0),
        Figure::new(of("longest step of the engine"), longest, "ms", "20 ms", 20.0),
    ]
}

/// Milliseconds that wakes of the cold service take while forecasts are being made, and starts by hand in between.
fn measure(engine: &Engine) -> (Vec<f64>, Vec<f64>) {
    let cold_starts = || engine.router_stats().services.iter().map(|s| s.cold_starts).sum::<u64>();
    let (mut woken, mut by_hand) = (Vec::new(), Vec::new());
    std::thread::sleep(BEGUN);
    for _ in 0..2 * WAKES {
        until_forecast(&engine.published());
        let before = cold_starts();
        let (a, b) = (wake(engine.address()), start_by_hand());
        if cold_starts() > before {
            woken.push(a);
            by_hand.push(b);
        }
        // The first fills caches.
        if woken.len() > WAKES {
            return (woken.split_off(1), by_hand.split_off(1));
        }
        std::thread::sleep(APART);
    }
    fail("the service was awake too often to be woken")
}

/// Waits until this minute's forecasts are being made: some are there, and not yet all.
fn until_forecast(published: &Published) {
    let began = Instant::now();
    loop {
        let minute = now().0 / MINUTE.0 * MINUTE.0;
        let told = published.with(|view| {
            let told = view.into_iter().flat_map(|v| &v.services).filter_map(|s| s.forecast.as_ref());
            told.filter(|forecast| forecast.from.0 >= minute).count()
        });
        if told > 0 && told < SERVICES as usize * 9 / 10 {
            return;
        }
        if began.elapsed() > 3 * Duration::from(MINUTE) {
            fail("no forecasts are made");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Tells of the load of all services once a second, until `done`; the longest, in milliseconds, that the engine was at
/// one thing meanwhile.
fn tell(engine: &Engine, done: &AtomicBool) -> f64 {
    let (published, began, mut longest) = (engine.published(), Instant::now(), Duration::ZERO);
    engine.tell(Event::RouterJoined(ROUTER));
    for part in (0..PARTS).cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let each = SERVICES / PARTS;
        engine.tell(loads(part * each..(part + 1) * each, now().0 / MINUTE.0));
        std::thread::sleep(TELL_EVERY);
        if began.elapsed() > BEGUN {
            longest = longest.max(published.with(|view| view.map_or(Duration::ZERO, |v| v.longest)));
        }
    }
    engine.tell(Event::RouterLeft(ROUTER));
    longest.as_secs_f64() * 1e3
}

fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64))
}

/// One that is only watched, and that no request of the bench is for.
fn service(id: u32) -> Arc<ServiceSpec> {
    Arc::new(ServiceSpec {
        backend: "process".to_owned(),
        mode: Mode::Observe,
        unrouted: true,
        ..ServiceSpec::named(ServiceId(id), format!("s{id}"))
    })
}

fn loads(services: std::ops::Range<u32>, minute: u64) -> Event {
    let of = |id: u32| {
        let in_flight = crate::forecast::load(u64::from(id), minute);
        ServiceLoad { service: ServiceId(id), in_flight, peak: in_flight, waiting: 0 }
    };
    Event::Traffic(Traffic { router: ROUTER, services: services.map(of).collect(), ..Traffic::default() })
}

/// A core that has seen all services' load over the hours before, and has fitted trees on that of some.
fn learned(services: &[Arc<ServiceSpec>]) -> Core<AnyPolicy> {
    let policy = AnyPolicy::named("none", None, 16 << 20).unwrap_or_else(|| fail("there is no such policy"));
    let mut core = Core::new(policy);
    core.forecast_loads();
    let this_minute = now().0 / MINUTE.0;
    let mut actions = Vec::new();
    let mut minute = this_minute - MINUTES - MINUTES_FIRST;
    let mut step = |core: &mut Core<AnyPolicy>, at: Time, event: &Event| {
        core.step(at, event, &mut actions);
        actions.clear();
    };
    step(&mut core, Time(minute * MINUTE.0), &Event::RouterJoined(ROUTER));
    let (first, rest) = services.split_at(FIRST as usize);
    for spec in first {
        step(&mut core, Time(minute * MINUTE.0), &Event::Service(Arc::clone(spec)));
    }
    let by_trees = |core: &Core<AnyPolicy>| {
        let told = core.services().find_map(|s| s.forecast);
        told.is_some_and(|told| told.weights.iter().any(|(model, _)| *model == "trees"))
    };
    while minute < this_minute - MINUTES {
        step(&mut core, Time(minute * MINUTE.0), &loads(0..FIRST, minute));
        minute += 1;
        while core.next_due() < Time(minute * MINUTE.0) {
            let due = core.next_due();
            step(&mut core, due, &Event::Tick);
        }
    }
    if !by_trees(&core) {
        fail("no trees were fitted on what was recorded");
    }
    for spec in rest {
        step(&mut core, Time(minute * MINUTE.0), &Event::Service(Arc::clone(spec)));
    }
    while minute < this_minute {
        step(&mut core, Time(minute * MINUTE.0), &loads(0..SERVICES, minute));
        minute += 1;
    }
    core
}
