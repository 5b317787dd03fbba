//! Specialised against generic instances, over a service whose start has real work for each key: one of twenty data sets
//! is read and sorted into a table. The same requests, the same room, the same program; a generic instance loads what a
//! request needs when it comes, a specialised one before it counts as ready.

use crate::{Figure, fail};
use forerun_backends::{Backend, ProcessBackend, ProcessSettings};
use forerun_engine::live::{Engine, Settings};
use forerun_router::{Listen, RouterLimits};
use forerun_types::{
    Hook, KeyFrom, Launch, Readiness, Resources, ServiceId, ServiceSpec, SiteId, SiteSpec, Span, Specialise,
    UserFrom,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const KEYS: u64 = 20;
/// Lines of a data set: some 300 ms of one core to load, and 20 MB in memory.
const LINES: u64 = 400_000;
/// What an instance with one data set counts for.
const ONE_BYTES: u64 = 64 << 20;
/// Room for so many of them, in every run: not for all twenty.
const ROOM: u64 = 8;
/// What the runs see before they are scored, and how long they are scored.
const LEARN: Duration = Duration::from_secs(60);
const SCORE: Duration = Duration::from_secs(120);
/// Requests of a visit, and the mean time between them.
const VISIT_REQUESTS: u64 = 5;
const VISIT_GAP_MS: f64 = 500.0;
/// An answer later than this has waited for a start or a load: ten times what a hit takes on a busy machine.
const WAITED: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);

/// A person comes to a data set, and asks of it a few times.
struct Visit {
    at: Duration,
    key: u64,
    gaps: Vec<Duration>,
}

/// What one run did while it was scored.
#[derive(Default)]
struct Score {
    waits: Vec<Duration>,
    hits: u64,
    failed: u64,
    gb_seconds: f64,
}

pub(crate) fn run() -> Vec<Figure> {
    let folder = std::env::temp_dir().join(format!("forerun-specialise-{}", std::process::id()));
    let data = folder.join("data");
    if let Err(error) = write_data(&data) {
        fail(&format!("cannot write the data sets: {error}"));
    }
    let visits = visits(LEARN + SCORE);
    let play =
        |name: &str, keep: u64, keyed: bool| play(&folder.join(name), spec(&data, keep, keyed), &visits);
    let specialised = play("specialised", 1, true);
    let generic_one = play("one", 1, false);
    let generic_four = play("four", 4, false);
    let _ = std::fs::remove_dir_all(&folder);
    let mut figures = beside(&specialised, &generic_one, "generic, a set each");
    figures.extend(beside(&specialised, &generic_four, "generic, four sets each"));
    figures
}

fn beside(ours: &Score, theirs: &Score, reference: &'static str) -> Vec<Figure> {
    let figure = |name: &str, unit, of: &dyn Fn(&Score) -> f64| {
        Figure::new(format!("specialised: {name}"), of(ours), unit, reference, of(theirs))
    };
    let late =
        |s: &Score| s.waits.iter().filter(|w| **w > WAITED).count() as f64 / s.waits.len().max(1) as f64;
    let mean = |s: &Score| s.waits.iter().sum::<Duration>().as_secs_f64() * 1e3 / s.waits.len().max(1) as f64;
    let mut figures = vec![
        figure("answers that waited", "share", &late),
        figure("answer, mean", "ms", &mean),
        figure("answer, p95", "ms", &|s| quantile(&s.waits, 0.95)),
        figure("answer, p99", "ms", &|s| quantile(&s.waits, 0.99)),
        figure("data set was there", "share", &|s| s.hits as f64 / s.waits.len().max(1) as f64),
        figure("memory", "GB-s", &|s| s.gb_seconds),
    ];
    // Of nothing and nothing there is no ratio, and that all were answered needs no row.
    if ours.failed + theirs.failed > 0 {
        let share = |s: &Score| (s.waits.len() as u64 + s.failed).max(1) as f64;
        figures.push(figure("answered", "share", &|s| s.waits.len() as f64 / share(s)));
    }
    figures
}

/// Lines in no order, so that sorting them is work.
fn write_data(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut draw = Draw(1);
    for key in 0..KEYS {
        let mut text = String::new();
        for _ in 0..LINES {
            let _ = writeln!(text, "{} {}", draw.next(), draw.next() % 1_000);
        }
        std::fs::write(folder.join(format!("set-{key}")), text)?;
    }
    Ok(())
}

/// Every other data set has visits at a steady beat, as reports and shifts do; the others at random, some often and
/// most seldom. The same in every run.
fn visits(length: Duration) -> Vec<Visit> {
    let mut draw = Draw(7);
    let mut visits = Vec::new();
    for key in 0..KEYS {
        let mean_ms = 8_000.0 + 3_000.0 * key as f64;
        let mut at_ms = mean_ms * draw.unit();
        while at_ms < length.as_millis() as f64 {
            let gaps =
                (1..VISIT_REQUESTS).map(|_| Duration::from_millis(draw.exponential(VISIT_GAP_MS) as u64));
            visits.push(Visit { at: Duration::from_millis(at_ms as u64), key, gaps: gaps.collect() });
            at_ms += match key % 2 {
                0 => mean_ms * (0.98 + 0.04 * draw.unit()),
                _ => draw.exponential(mean_ms),
            };
        }
    }
    visits.sort_by_key(|v| (v.at, v.key));
    visits
}

fn spec(data: &Path, keep: u64, keyed: bool) -> ServiceSpec {
    let this = std::env::current_exe().unwrap_or_else(|e| fail(&format!("cannot find this program: {e}")));
    let words = [
        this.to_string_lossy().into_owned(),
        "__fixture".to_owned(),
        "--data".to_owned(),
        data.to_string_lossy().into_owned(),
        "--data-keep".to_owned(),
        keep.to_string(),
    ];
    let specialise = keyed.then(|| Specialise {
        by: KeyFrom::Path(1),
        keys_max: 64,
        preload: vec!["/data/{key}?id=0".to_owned()],
        hook: Some(Hook::Http { path: "/specialise".to_owned() }),
        ..Specialise::default()
    });
    ServiceSpec {
        backend: "process".to_owned(),
        launch: Launch::Process { command: words.into(), env: BTreeMap::new(), folder: None },
        ready: Readiness::Tcp,
        start_estimate: Span::from_millis(400),
        drain_timeout: Span::from_secs(2),
        // A load takes a core; what waits for it takes nothing.
        concurrency: 8,
        resources: Resources { memory_bytes: ONE_BYTES * keep, ..Resources::default() },
        user: UserFrom::Header("x-user".to_owned()),
        specialise,
        ..ServiceSpec::named(ServiceId(0), "data")
    }
}

/// One run from nothing: learns, then is scored.
fn play(folder: &Path, spec: ServiceSpec, visits: &[Visit]) -> Score {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => fail(&format!("cannot start the runtime: {error}")),
    };
    let engine = match runtime.block_on(Engine::start(settings(folder, spec))) {
        Ok(engine) => engine,
        Err(error) => fail(&error.to_string()),
    };
    let score = Mutex::new(Score::default());
    let began = Instant::now();
    let memory = std::thread::scope(|scope| {
        for visit in visits {
            let (score, router) = (&score, engine.address());
            scope.spawn(move || pay(visit, router, began, score));
        }
        std::thread::sleep(LEARN.saturating_sub(began.elapsed()));
        let before = gb_seconds(&engine);
        std::thread::sleep((LEARN + SCORE).saturating_sub(began.elapsed()));
        gb_seconds(&engine) - before
    });
    runtime.block_on(engine.shutdown());
    let mut score = score.into_inner().unwrap_or_else(PoisonError::into_inner);
    score.waits.sort_unstable();
    score.gb_seconds = memory;
    score
}

/// One visit: each request is sent a while after the answer before.
fn pay(visit: &Visit, router: SocketAddr, began: Instant, score: &Mutex<Score>) {
    std::thread::sleep(visit.at.saturating_sub(began.elapsed()));
    for number in 0..VISIT_REQUESTS {
        if let Some(gap) = number.checked_sub(1).and_then(|at| visit.gaps.get(at as usize)) {
            std::thread::sleep(*gap);
        }
        let sent = began.elapsed();
        let asked = Instant::now();
        let answer = ask(router, visit.key, number);
        let took = asked.elapsed();
        if sent < LEARN || sent > LEARN + SCORE {
            continue;
        }
        let mut score = score.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.as_deref() {
            Some(body) if body.starts_with("hit") => {
                (score.hits, _) = (score.hits + 1, score.waits.push(took))
            }
            Some(_) => score.waits.push(took),
            None => score.failed += 1,
        }
    }
}

/// The body of a good answer.
fn ask(router: SocketAddr, key: u64, number: u64) -> Option<String> {
    let mut stream = TcpStream::connect(router).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!(
        "GET /data/set-{key}?id={number} HTTP/1.1\r\nHost: data\r\nX-User: visitor-{key}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// What instances were seen to take so far, over all services; it is not what they are reserved.
fn gb_seconds(engine: &Engine) -> f64 {
    let totals = |t: &forerun_engine::ServiceTotals| {
        t.starting_byte_seconds + t.busy_byte_seconds + t.idle_byte_seconds
    };
    engine.published().with(|v| v.map_or(0.0, |v| v.totals.values().map(totals).sum::<f64>())) / 1e9
}

fn settings(folder: &Path, spec: ServiceSpec) -> Settings {
    Settings {
        policy: "forerun".to_owned(),
        keep: None,
        learning_bytes_max: 64 << 20,
        services: vec![Arc::new(spec)],
        sites: vec![SiteSpec {
            id: SiteId(0),
            name: "here".to_owned(),
            capacity: Resources { memory_bytes: ONE_BYTES * ROOM, ..Resources::default() },
            instances_max: 0,
        }],
        offset_seconds: Arc::new(|_, _| 0),
        keep_found: false,
        core_milli_gb: None,
        state_folder: PathBuf::from(folder),
        flush_interval: Span::from_secs(1),
        journal_bytes_max: 64 << 20,
        listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        router_limits: RouterLimits::default(),
        beside: None,
        backends: Box::new(|sink, folder: &Path| {
            let process = ProcessBackend::new(ProcessSettings::of_this_program(folder), sink)?;
            Ok(vec![Arc::new(process) as Arc<dyn Backend>])
        }),
        learned: None,
    }
}

/// Milliseconds, of sorted times.
fn quantile(sorted: &[Duration], q: f64) -> f64 {
    let at = ((q * sorted.len() as f64) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA '14): the same in every run.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}
