//! The router: requests to a warm instance through it, beside the same requests sent to the instance itself. The client,
//! the router and the instance share the machine's cores.

use crate::wake::{PATIENCE, quantile, settings_of};
use crate::{Figure, fail};
use forerun_engine::live::Engine;
use forerun_types::{KeyFrom, Launch, Readiness, ServiceId, ServiceSpec, Span, Specialise};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Turns of each side, one after the other, so that both see the same of what else the machine does.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(1);
/// Connections that send at a time.
const CONNECTIONS: usize = 8;
/// Requests sent one after the other for their time.
const SINGLE: usize = 3_000;

pub(crate) fn run() -> Vec<Figure> {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => fail(&format!("cannot start the runtime: {error}")),
    };
    let folder = std::env::temp_dir().join(format!("forerun-router-{}", std::process::id()));
    let mut figures = Vec::new();
    for (name, keyed) in [("warm", false), ("warm, of a key", true)] {
        let settings = settings_of(&folder.join(if keyed { "keyed" } else { "plain" }), spec(keyed));
        let engine = match runtime.block_on(Engine::start(settings)) {
            Ok(engine) => engine,
            Err(error) => fail(&error.to_string()),
        };
        figures.extend(beside(name, engine.address(), &folder));
        runtime.block_on(engine.shutdown());
    }
    let _ = std::fs::remove_dir_all(&folder);
    figures
}

fn beside(name: &str, router: SocketAddr, folder: &Path) -> Vec<Figure> {
    let (mut child, direct) = by_hand(folder);
    for address in [router, direct] {
        until_answers(address);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut ours_us, mut theirs_us) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(throughput(router));
        theirs.push(throughput(direct));
        ours_us.extend(single(router, SINGLE / TURNS));
        theirs_us.extend(single(direct, SINGLE / TURNS));
    }
    let _ = child.kill();
    let _ = child.wait();
    let by = "straight to the instance";
    let (median, median_direct) = (quantile(&mut ours_us, 0.5), quantile(&mut theirs_us, 0.5));
    let (p99, p99_direct) = (quantile(&mut ours_us, 0.99), quantile(&mut theirs_us, 0.99));
    let each = format!("{name}, {CONNECTIONS} connections");
    vec![
        Figure::new(each, quantile(&mut ours, 0.5), "requests/s", by, quantile(&mut theirs, 0.5)),
        Figure::new(format!("{name}, one at a time, median"), median, "us", by, median_direct),
        Figure::new(format!("{name}, one at a time, p99"), p99, "us", by, p99_direct),
    ]
}

fn spec(keyed: bool) -> ServiceSpec {
    let this = std::env::current_exe().unwrap_or_else(|e| fail(&format!("cannot find this program: {e}")));
    let specialise = keyed.then(|| Specialise { by: KeyFrom::Path(0), keys_max: 4, ..Specialise::default() });
    let command = vec![this.to_string_lossy().into_owned(), "__fixture".to_owned()];
    ServiceSpec {
        backend: "process".to_owned(),
        launch: Launch::Process { command, env: BTreeMap::new(), folder: None },
        ready: Readiness::Tcp,
        start_estimate: Span::from_millis(20),
        drain_timeout: Span::from_secs(1),
        concurrency: 2 * CONNECTIONS as u32,
        keep_at_least: Span::from_secs(600),
        specialise,
        ..ServiceSpec::named(ServiceId(0), "warm")
    }
}

/// The same program, and where it listens.
fn by_hand(folder: &Path) -> (Child, SocketAddr) {
    let _ = std::fs::create_dir_all(folder);
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map(|a| a.port());
    let port = port.unwrap_or_else(|e| fail(&format!("no free port: {e}")));
    let child = Command::new("/proc/self/exe")
        .args(["__fixture", "--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = child.unwrap_or_else(|e| fail(&format!("cannot start by hand: {e}")));
    (child, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn until_answers(address: SocketAddr) {
    let began = Instant::now();
    while Client::open(address).and_then(|mut c| c.ask()).is_none() {
        if began.elapsed() > PATIENCE {
            fail(&format!("nothing answers at {address}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Answers a second over all connections.
fn throughput(address: SocketAddr) -> f64 {
    let began = Instant::now();
    let answers: u64 = std::thread::scope(|scope| {
        let send = || {
            let mut client = Client::open(address)?;
            let mut answers = 0;
            while began.elapsed() < TURN {
                client.ask()?;
                answers += 1;
            }
            Some(answers)
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(send)).collect();
        threads.into_iter().filter_map(|t| t.join().ok().flatten()).sum()
    });
    if answers == 0 {
        fail(&format!("{address} stopped answering"));
    }
    answers as f64 / began.elapsed().as_secs_f64()
}

/// Microseconds that each of some requests took.
fn single(address: SocketAddr, requests: usize) -> Vec<f64> {
    let Some(mut client) = Client::open(address) else { fail(&format!("{address} takes no connection")) };
    let one = |_| {
        let began = Instant::now();
        client.ask().map(|()| began.elapsed().as_secs_f64() * 1e6)
    };
    (0..requests).map_while(one).collect()
}

/// One connection that is kept.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { stream, buffer: vec![0; 4_096] })
    }

    /// Sends a request, and reads a good answer to its end: of a short one, head and body.
    fn ask(&mut self) -> Option<()> {
        self.stream.write_all(b"GET /k HTTP/1.1\r\nHost: warm\r\n\r\n").ok()?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).ok().filter(|n| *n > 0)?;
            filled += read;
            let text = std::str::from_utf8(&self.buffer[..filled]).ok()?;
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|l| {
                let (name, value) = l.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            })?;
            if body.len() >= length {
                return head.starts_with("HTTP/1.1 200").then_some(());
            }
        }
    }
}
