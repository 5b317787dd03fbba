//! The wake of a container: from a request at the router to its answer, beside `docker start` (or `docker unpause`) by
//! hand and the same probe. Measured where an engine is given in `FORERUN_TEST_DOCKER`, as `cargo xtask bench wake` does.

use crate::wake::{PATIENCE, ask, quantile, settings_of, until_asleep, wake};
use crate::{Figure, fail};
use forerun_backends::docker::{DockerBackend, DockerSettings};
use forerun_backends::{Backend, Sink};
use forerun_engine::live::{Engine, Settings};
use forerun_types::{Container, Launch, Readiness, ServiceId, ServiceSpec, Span};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STARTS: usize = 20;
const RESUMES: usize = 12;
const ASK_EVERY: Duration = Duration::from_micros(500);
/// The image that the test bed makes; what it runs listens on this port.
const IMAGE: &str = "forerun-test/fixture:1";
const PORT: u16 = 8080;
const NETWORK: &str = "forerun-bench";
const WOKEN: (&str, [u8; 4]) = ("forerun-bench-woken", [10, 213, 7, 10]);
const BY_HAND: (&str, [u8; 4]) = ("forerun-bench-by-hand", [10, 213, 7, 11]);
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
    // Addresses that are known before, so that the one who starts by hand need not look them up.
    for (name, address) in [WOKEN, BY_HAND] {
        let address = json!({"IPAMConfig": {"IPv4Address": std::net::Ipv4Addr::from(address).to_string()}});
        let settings = json!({
            "Image": IMAGE, "HostConfig": {"NetworkMode": NETWORK},
            "NetworkingConfig": {"EndpointsConfig": {NETWORK: address}},
        });
        hand.call("POST", &format!("/containers/create?name={name}"), Some(&settings));
    }
    let mut figures = starts(&hand, &host, &folder.join("starts"));
    figures.extend(resumes(&hand, &host, &folder.join("resumes")));
    hand.remove();
    figures
}

/// Request to answer of a stopped container.
fn starts(hand: &Hand, host: &str, folder: &Path) -> Vec<Figure> {
    let (runtime, engine) = engine(folder, host);
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

/// Request to answer of a paused container, which each time is adopted so by a new Forerun.
fn resumes(hand: &Hand, host: &str, folder: &Path) -> Vec<Figure> {
    let (mut woken, mut by_hand) = (Vec::new(), Vec::new());
    hand.first_answer("start");
    for round in 0..=RESUMES {
        hand.call("POST", &format!("/containers/{}/start", WOKEN.0), None);
        until_answers(address(WOKEN.1));
        hand.call("POST", &format!("/containers/{}/pause", WOKEN.0), None);
        let (runtime, engine) = engine(&folder.join(round.to_string()), host);
        let adopted = Instant::now();
        while engine.published().with(|v| v.is_none_or(|v| v.sites.iter().all(|site| site.instances == 0))) {
            if adopted.elapsed() > PATIENCE {
                fail("the paused container was not adopted");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let a = wake(engine.address());
        runtime.block_on(engine.shutdown());
        hand.call("POST", &format!("/containers/{}/pause", BY_HAND.0), None);
        let b = hand.first_answer("unpause");
        if round > 0 {
            woken.push(a);
            by_hand.push(b);
        }
    }
    let by = "docker unpause and the same probe";
    let (ours, theirs) = (quantile(&mut woken, 0.5), quantile(&mut by_hand, 0.5));
    vec![
        Figure::new("paused container: request to answer, median", ours, "ms", by, theirs),
        Figure::new("paused container: overhead, median", ours - theirs, "ms", "10 ms", 10.0),
    ]
}

fn engine(folder: &Path, host: &str) -> (tokio::runtime::Runtime, Engine) {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(Engine::start(settings(folder, host))) {
        Ok(engine) => (runtime, engine),
        Err(error) => fail(&error.to_string()),
    }
}

fn settings(folder: &Path, host: &str) -> Settings {
    let own = Container { own: Some(WOKEN.0.to_owned()), image: IMAGE.to_owned(), ..Container::default() };
    let spec = ServiceSpec {
        backend: "docker".to_owned(),
        launch: Launch::Container(own),
        port: Some(PORT),
        ready: Readiness::Tcp,
        start_estimate: Span::from_millis(400),
        drain_timeout: Span::from_secs(1),
        max: 1,
        ..ServiceSpec::named(ServiceId(0), "woken")
    };
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

    fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<u16> {
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
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        status.ok_or_else(|| std::io::Error::other("no answer"))
    }
}
