//! The wake of a container: from a request at the router to its answer, beside `docker start` (or `docker unpause`) by
//! hand and the same probe. Measured where an engine is given in `FORERUN_TEST_DOCKER`, as `cargo xtask bench wake` does.

use crate::wake::{PATIENCE, ask, quantile, settings_of, until_asleep, wake};
use crate::{Figure, fail};
use forerun_backends::docker::{DockerBackend, DockerSettings};
use forerun_backends::{Backend, Sink};
use forerun_engine::live::{Engine, Settings};
use forerun_types::{Container, Launch, Readiness, Resources, ServiceId, ServiceSpec, SlaClass, Span};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STARTS: usize = 20;
const RESUMES: usize = 12;
/// From an answer to the next pause: a gap is learned, and a drain takes a second.
const PAUSED_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_micros(500);
/// The image that the test bed makes; what it runs listens on this port.
const IMAGE: &str = "forerun-test/fixture:1";
const PORT: u16 = 8080;
const NETWORK: &str = "forerun-bench";
const WOKEN: (&str, [u8; 4]) = ("forerun-bench-woken", [10, 213, 7, 10]);
const BY_HAND: (&str, [u8; 4]) = ("forerun-bench-by-hand", [10, 213, 7, 11]);
/// A tenth of a core while nobody asks: what is worth freezing. The program itself is in front, and hears signals.
const RESTLESS: &str = "while :; do i=0; while [ $i -lt 4000 ]; do i=$((i+1)); done; sleep 0.1; done & \
                        exec forerun-fixture --listen 0.0.0.0 --port 8080";
/// What a core costs in the paused rows, in thousandths of a GB: so much that keeping the restless one hot for seconds
/// is dearer than thawing it each time.
const CORE_MILLI_GB: u64 = 200_000;
/// And what a cold start costs, so that it is not stopped either.
const COLD_START_MILLI_GBS: u64 = 100_000;
/// What any engine that is not long out of care speaks; it is the test bed's.
const VERSION: &str = "v1.41";

/// The engine, as a person uses it.
struct Hand {
    socket: String,
}

pub(crate) fn run(folder: &Path) -> Vec<Figure> {
    let Ok(host) = std::env::var("FORERUN_TEST_DOCKER") else {
        eprintln!(
            "SKIPPED: wake of a container: no FORERUN_TEST_DOCKER; `cargo xtask bench wake` as root has one"
        );
        return Vec::new();
    };
    let hand = Hand { socket: host.trim_start_matches("unix://").to_owned() };
    hand.remove();
    let range = json!({"Name": NETWORK, "IPAM": {"Config": [{"Subnet": "10.213.7.0/24"}]}});
    hand.call("POST", "/networks/create", Some(&range));
    create(&hand, None);
    let mut figures = starts(&hand, &host, &folder.join("starts"));
    for (name, _) in [WOKEN, BY_HAND] {
        hand.call("DELETE", &format!("/containers/{name}?force=1&v=1"), None);
    }
    create(&hand, Some(&["sh", "-c", RESTLESS]));
    figures.extend(resumes(&hand, &host, &folder.join("resumes")));
    hand.remove();
    figures
}

/// Makes both containers, alike, at addresses that are known before, so that the one who starts by hand need not look
/// them up.
fn create(hand: &Hand, command: Option<&[&str]>) {
    for (name, address) in [WOKEN, BY_HAND] {
        let address = json!({"IPAMConfig": {"IPv4Address": std::net::Ipv4Addr::from(address).to_string()}});
        let settings = json!({
            "Image": IMAGE, "Cmd": command, "HostConfig": {"NetworkMode": NETWORK},
            "NetworkingConfig": {"EndpointsConfig": {NETWORK: address}},
        });
        hand.call("POST", &format!("/containers/create?name={name}"), Some(&settings));
    }
}

/// Request to answer of a stopped container.
fn starts(hand: &Hand, host: &str, folder: &Path) -> Vec<Figure> {
    let (runtime, engine) = engine(settings(folder, host, spec()));
    let (mut woken, mut by_hand) = (Vec::new(), Vec::new());
    for round in 0..=STARTS {
        let (a, b) = (wake(engine.address()), hand.first_answer("start"));
        hand.call("POST", &format!("/containers/{}/stop?t=1", BY_HAND.0), None);
        // The first round fills caches.
        if round > 0 {
            woken.push(a);
            by_hand.push(b);
        }
        until_asleep(&engine);
    }
    runtime.block_on(engine.shutdown());
    let by = "docker start and the same probe";
    let (ours, theirs) = (quantile(&mut woken, 0.5), quantile(&mut by_hand, 0.5));
    let (ours_high, theirs_high) = (quantile(&mut woken, 0.9), quantile(&mut by_hand, 0.9));
    vec![
        Figure::new("container: request to answer, median", ours, "ms", by, theirs),
        Figure::new("container: request to answer, p90", ours_high, "ms", by, theirs_high),
        Figure::new("container: overhead, median", ours - theirs, "ms", "5% + 10 ms", 0.05 * theirs + 10.0),
    ]
}

/// Request to answer of a container that Forerun has paused, which the engine is asked to confirm each time.
fn resumes(hand: &Hand, host: &str, folder: &Path) -> Vec<Figure> {
    let mut settings = settings(folder, host, pausable(spec()));
    settings.policy = "forerun".to_owned();
    settings.core_milli_gb = Some(CORE_MILLI_GB);
    let (runtime, engine) = engine(settings);
    let (mut woken, mut by_hand) = (Vec::new(), Vec::new());
    hand.first_answer("start");
    // Starts it; by and by it is seen what it burns while it is idle.
    wake(engine.address());
    for round in 0..=RESUMES {
        hand.until_paused(WOKEN.0);
        let a = wake(engine.address());
        hand.call("POST", &format!("/containers/{}/pause", BY_HAND.0), None);
        let b = hand.first_answer("unpause");
        if round > 0 {
            woken.push(a);
            by_hand.push(b);
        }
    }
    runtime.block_on(engine.shutdown());
    let by = "docker unpause and the same probe";
    let (ours, theirs) = (quantile(&mut woken, 0.5), quantile(&mut by_hand, 0.5));
    let (ours_high, theirs_high) = (quantile(&mut woken, 0.9), quantile(&mut by_hand, 0.9));
    vec![
        Figure::new("paused container: request to answer, median", ours, "ms", by, theirs),
        Figure::new("paused container: request to answer, p90", ours_high, "ms", by, theirs_high),
        Figure::new("paused container: overhead, median", ours - theirs, "ms", "10 ms", 10.0),
    ]
}

fn engine(settings: Settings) -> (tokio::runtime::Runtime, Engine) {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(Engine::start(settings)) {
        Ok(engine) => (runtime, engine),
        Err(error) => fail(&error.to_string()),
    }
}

fn spec() -> ServiceSpec {
    let own = Container { own: Some(WOKEN.0.to_owned()), image: IMAGE.to_owned(), ..Container::default() };
    ServiceSpec {
        backend: "docker".to_owned(),
        launch: Launch::Container(own),
        port: Some(PORT),
        ready: Readiness::Tcp,
        start_estimate: Span::from_millis(400),
        drain_timeout: Span::from_secs(1),
        max: 1,
        ..ServiceSpec::named(ServiceId(0), "woken")
    }
}

/// The same where freezing is the cheapest way to keep it.
fn pausable(spec: ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        pausable: true,
        sla: SlaClass { cold_start_milli_gbs: COLD_START_MILLI_GBS, ..SlaClass::default() },
        resources: Resources { memory_bytes: 16 << 20, ..Resources::default() },
        ..spec
    }
}

fn settings(folder: &Path, host: &str, spec: ServiceSpec) -> Settings {
    let host = host.to_owned();
    let backends = move |sink: Sink, folder: &Path| {
        let settings = DockerSettings {
            host: Some(host),
            state_folder: Some(folder.to_owned()),
            ..DockerSettings::default()
        };
        Ok(vec![Arc::new(DockerBackend::start(settings, sink)?) as Arc<dyn Backend>])
    };
    Settings { backends: Box::new(backends), ..settings_of(folder, spec) }
}

fn address(ip: [u8; 4]) -> SocketAddr {
    SocketAddr::from((ip, PORT))
}

fn until_answers(address: SocketAddr) {
    let began = Instant::now();
    while !ask(address) {
        if began.elapsed() > PATIENCE {
            fail("a container that was started by hand never answered");
        }
        std::thread::sleep(ASK_EVERY);
    }
}

impl Hand {
    /// Milliseconds from the call to the first answer of the container that is not Forerun's.
    fn first_answer(&self, call: &str) -> f64 {
        let began = Instant::now();
        self.call("POST", &format!("/containers/{}/{call}", BY_HAND.0), None);
        until_answers(address(BY_HAND.1));
        began.elapsed().as_secs_f64() * 1e3
    }

    /// Takes away what this, or a run that was killed, has made.
    fn remove(&self) {
        for (name, _) in [WOKEN, BY_HAND] {
            let _ = self.try_call("DELETE", &format!("/containers/{name}?force=1&v=1"), None);
        }
        let _ = self.try_call("DELETE", &format!("/networks/{NETWORK}"), None);
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) {
        match self.try_call(method, path, body) {
            Ok(status) if status < 400 => {}
            Ok(status) => fail(&format!("{method} {path}: the engine answers {status}")),
            Err(error) => fail(&format!("{method} {path}: {error}")),
        }
    }

    /// Waits until Forerun has paused it; that it was stopped instead, or stays hot, is no row of this table.
    fn until_paused(&self, name: &str) {
        let began = Instant::now();
        loop {
            let state = self.state(name);
            if state["Paused"] == true {
                return;
            }
            if began.elapsed() > PAUSED_WITHIN {
                fail(&format!("forerun did not pause the container within {PAUSED_WITHIN:?}: it is {state}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn state(&self, name: &str) -> Value {
        match self.answer("GET", &format!("/containers/{name}/json"), None) {
            Ok(answer) => {
                let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
                serde_json::from_str::<Value>(body).map(|v| v["State"].clone()).unwrap_or_default()
            }
            Err(error) => fail(&format!("inspect of {name}: {error}")),
        }
    }

    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<u16> {
        let answer = self.answer(method, path, body)?;
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        status.ok_or_else(|| std::io::Error::other("no answer"))
    }

    fn answer(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} /{VERSION}{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
