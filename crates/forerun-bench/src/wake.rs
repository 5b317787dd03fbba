//! The wake: from a request for a service that is not up to its answer, beside starting the same program by hand and
//! asking it until it answers. What is above that is Forerun's own.

use crate::{Figure, fail};
use forerun_backends::{Backend, ProcessBackend, ProcessSettings};
use forerun_engine::live::{Engine, Settings};
use forerun_router::{Listen, RouterLimits};
use forerun_types::{Launch, Readiness, Resources, ServiceId, ServiceSpec, SiteId, SiteSpec, Span};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 60;
/// Between two wakes: who is asleep is not asked for the moment after.
const APART: Duration = Duration::from_millis(200);
/// How often the one who starts by hand asks again: as fast as makes no difference.
const ASK_EVERY: Duration = Duration::from_micros(500);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run() -> Vec<Figure> {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => fail(&format!("cannot start the runtime: {error}")),
    };
    let folder = std::env::temp_dir().join(format!("forerun-wake-{}", std::process::id()));
    let engine = match runtime.block_on(Engine::start(settings(&folder))) {
        Ok(engine) => engine,
        Err(error) => fail(&error.to_string()),
    };
    let (mut woken, mut by_hand) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (a, b) = (wake(engine.address()), start_by_hand());
        // The first round fills caches.
        if round > 0 {
            woken.push(a);
            by_hand.push(b);
        }
        until_asleep(&engine);
        std::thread::sleep(APART);
    }
    runtime.block_on(engine.shutdown());
    let busy = crate::wake_busy::run(&runtime, &folder);
    let containers = crate::wake_docker::run(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    let (median_woken, median_by_hand) = (quantile(&mut woken, 0.5), quantile(&mut by_hand, 0.5));
    let (high_woken, high_by_hand) = (quantile(&mut woken, 0.9), quantile(&mut by_hand, 0.9));
    let by = "the same program started by hand";
    let mut overhead = Figure::new("overhead, median", median_woken - median_by_hand, "ms", "target", 5.0);
    overhead.reference = "5 ms";
    let mut figures = vec![
        Figure::new("request to answer, median", median_woken, "ms", by, median_by_hand),
        Figure::new("request to answer, p90", high_woken, "ms", by, high_by_hand),
        overhead,
    ];
    figures.extend(busy);
    figures.extend(containers);
    figures
}

pub(crate) fn settings(folder: &Path) -> Settings {
    let this = std::env::current_exe().unwrap_or_else(|e| fail(&format!("cannot find this program: {e}")));
    let spec = ServiceSpec {
        backend: "process".to_owned(),
        launch: Launch::Process {
            command: vec![this.to_string_lossy().into_owned(), "__fixture".to_owned()],
            env: BTreeMap::new(),
            folder: None,
        },
        ready: Readiness::Tcp,
        start_estimate: Span::from_millis(20),
        drain_timeout: Span::from_secs(1),
        ..ServiceSpec::named(ServiceId(0), "woken")
    };
    settings_of(folder, spec)
}

/// An engine of one service, of which nothing is kept, over processes.
pub(crate) fn settings_of(folder: &Path, spec: ServiceSpec) -> Settings {
    Settings {
        // Nothing is kept: every request wakes.
        policy: "none".to_owned(),
        keep: None,
        learning_bytes_max: 16 << 20,
        services: vec![Arc::new(spec)],
        sites: vec![SiteSpec {
            id: SiteId(0),
            name: "here".to_owned(),
            capacity: Resources::default(),
            instances_max: 0,
        }],
        offset_seconds: Arc::new(|_, _| 0),
        keep_found: false,
        core_milli_gb: None,
        state_folder: folder.to_owned(),
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

/// Milliseconds from a request at the router to the end of its answer.
pub(crate) fn wake(router: SocketAddr) -> f64 {
    let began = Instant::now();
    if !ask(router) {
        fail("the woken service gave no good answer");
    }
    began.elapsed().as_secs_f64() * 1e3
}

/// Milliseconds from the program's start to the end of its first answer.
pub(crate) fn start_by_hand() -> f64 {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map(|a| a.port());
    let port = port.unwrap_or_else(|e| fail(&format!("no free port: {e}")));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let began = Instant::now();
    let child = Command::new("/proc/self/exe")
        .args(["__fixture", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.unwrap_or_else(|e| fail(&format!("cannot start by hand: {e}")));
    while !ask(address) {
        if began.elapsed() > PATIENCE {
            fail("the program started by hand never answered");
        }
        std::thread::sleep(ASK_EVERY);
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    let _ = child.kill();
    let _ = child.wait();
    took
}

pub(crate) fn ask(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: woken\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    asked.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

pub(crate) fn until_asleep(engine: &Engine) {
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(250));
    while engine.published().with(|v| v.is_none_or(|v| v.sites.iter().any(|site| site.instances > 0))) {
        if began.elapsed() > PATIENCE {
            fail("the woken instance did not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((q * values.len() as f64) as usize).copied().unwrap_or(f64::NAN)
}
