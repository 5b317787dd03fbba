//! The HTTP cache: hits beside nginx's `proxy_cache`, each server a process of its own before the same origin, and what a
//! request that misses pays over a router without a cache.
//!
//! A hit is counted against the time that the server was on a processor, which travels better than a rate: the client, the
//! servers and whatever else runs share the cores.

use crate::wake::{PATIENCE, quantile};
use crate::{Figure, fail};
use forerun_router::{Router, RouterSettings, channel};
use forerun_types::{
    Access, CacheRules, Generation, InstanceId, InstanceRoute, RouteTable, RouterId, ServiceId, ServiceRoute,
    ServiceSpec, Span, Time,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Turns of each side, one after the other, so that both see the same of what else the machine does.
const TURNS: usize = 5;
const TURN: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 8;
/// Different URLs that are asked for in turn.
const URLS: usize = 64;
/// Requests sent one after the other for their time.
const SINGLE: usize = 4_000;
/// Turns of misses: short ones and many, so that what else the machine does falls on both sides alike.
const MISS_TURNS: usize = 20;
const MISS_TURN: Duration = Duration::from_millis(300);
const NGINX: &str = "nginx proxy_cache";

pub(crate) fn run() -> Vec<Figure> {
    let origin = origin();
    let router = |word: &str| {
        let port = free_port();
        let mut command = Command::new("/proc/self/exe");
        command.args(["__cached", &port.to_string(), &origin.port().to_string(), word]);
        Server::start(command, port)
    };
    let (ours, bare) = (router("cache"), router("no-cache"));
    let folder = std::env::temp_dir().join(format!("forerun-bench-cache-{}", std::process::id()));
    let mut figures = Vec::new();
    match nginx(&folder, origin.port()) {
        Some(nginx) => {
            for (name, kind) in [("1 KiB", "1k"), ("64 KiB", "64k")] {
                figures.extend(hits(name, kind, &ours, &nginx));
            }
        }
        None => eprintln!("forerun-bench: there is no nginx; hits are not compared"),
    }
    figures.extend(misses(&ours, &bare));
    let _ = std::fs::remove_dir_all(&folder);
    figures
}

fn hits(name: &str, kind: &str, ours: &Server, nginx: &Server) -> Vec<Figure> {
    let (mut rate, mut rate_nginx) = (Vec::new(), Vec::new());
    let (mut us, mut us_nginx) = (Vec::new(), Vec::new());
    for server in [ours, nginx] {
        let mut client = Client::open(server.address());
        (0..URLS).for_each(|n| client.ask(&format!("/{kind}/{n}")));
    }
    for _ in 0..TURNS {
        for (server, rates, times) in [(ours, &mut rate, &mut us), (nginx, &mut rate_nginx, &mut us_nginx)] {
            rates.push(per_cpu_second(server, kind));
            times.extend(single(server, kind));
        }
    }
    let median = |values: &mut Vec<f64>| quantile(values, 0.5);
    vec![
        Figure::new(
            format!("hits of {name}"),
            median(&mut rate),
            "hits/CPU s",
            NGINX,
            median(&mut rate_nginx),
        ),
        Figure::new(format!("a hit of {name}, median"), median(&mut us), "us", NGINX, median(&mut us_nginx)),
        Figure::new(
            format!("a hit of {name}, p99"),
            quantile(&mut us, 0.99),
            "us",
            NGINX,
            quantile(&mut us_nginx, 0.99),
        ),
    ]
}

/// Hits over all connections for each second that the server was on a processor.
fn per_cpu_second(server: &Server, kind: &str) -> f64 {
    load(server, TURN, |connection, n| format!("/{kind}/{}", (connection * 7 + n) % URLS))
}

/// Answers over all connections for each second that the server was on a processor; `target` of the number of the
/// connection and of its request.
fn load(server: &Server, time: Duration, target: impl Fn(usize, usize) -> String + Sync) -> f64 {
    let (began, before) = (Instant::now(), server.cpu_seconds());
    let answers: usize = std::thread::scope(|scope| {
        let target = &target;
        let send = |connection: usize| {
            move || {
                let mut client = Client::open(server.address());
                let mut answers = 0;
                while began.elapsed() < time {
                    client.ask(&target(connection, answers));
                    answers += 1;
                }
                answers
            }
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|n| scope.spawn(send(n))).collect();
        threads.into_iter().filter_map(|t| t.join().ok()).sum()
    });
    answers as f64 / (server.cpu_seconds() - before).max(0.001)
}

/// Microseconds that each of some hits took.
fn single(server: &Server, kind: &str) -> Vec<f64> {
    let mut client = Client::open(server.address());
    let one = |n: usize| {
        let began = Instant::now();
        client.ask(&format!("/{kind}/{}", n % URLS));
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..SINGLE / TURNS).map(one).collect()
}

/// Requests that find nothing, kept and not kept, beside the same through a router without a cache.
fn misses(ours: &Server, bare: &Server) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, kind) in [("a miss that is kept", "1k"), ("an answer that may not be kept", "no-store")] {
        let (mut cpu, mut cpu_bare) = (Vec::new(), Vec::new());
        for turn in 0..MISS_TURNS {
            for (server, times) in [(ours, &mut cpu), (bare, &mut cpu_bare)] {
                let target = |connection, n| format!("/{kind}/miss-{turn}-{connection}-{n}");
                times.push(1e6 / load(server, MISS_TURN, target));
            }
        }
        let by = "a router without a cache";
        let (value, reference) = (quantile(&mut cpu, 0.5), quantile(&mut cpu_bare, 0.5));
        figures.push(Figure::new(name, value, "CPU us", by, reference));
    }
    figures
}

/// Where a server runs, and as what.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start(mut command: Command, port: u16) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| fail(&format!("cannot start a server: {e}")));
        let server = Self { port, child };
        let began = Instant::now();
        while TcpStream::connect(server.address()).is_err() {
            if began.elapsed() > PATIENCE {
                fail(&format!("nothing listens on port {port}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Of it and of the processes that it has started.
    fn cpu_seconds(&self) -> f64 {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let ids = children.split_whitespace().filter_map(|id| id.parse().ok()).chain([id]);
        ids.map(on_processor).sum::<u64>() as f64 / 1e9
    }
}

/// Nanoseconds that a process's threads have been on a processor; of threads that have ended nothing is known.
fn on_processor(id: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let of = |thread: &Path| {
        let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(|thread| of(&thread.path())).sum()
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers when it is asked to end.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).map(|a| a.port());
    port.unwrap_or_else(|e| fail(&format!("no free port: {e}")))
}

/// One worker, its files in memory where there is such a folder, no log, connections that stay.
fn nginx(folder: &Path, origin: u16) -> Option<Server> {
    let folders = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map(|f| PathBuf::from(f).join("nginx"));
    let program = folders.into_iter().find(|program| program.is_file())?;
    for name in ["cache", "temp"] {
        std::fs::create_dir_all(folder.join(name)).ok()?;
    }
    let (port, at) = (free_port(), folder.display());
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {at}/temp/{kind};\n"))
        .collect();
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\n\
         access_log off;\nsendfile on;\nkeepalive_requests 1000000;\n{temp}\
         proxy_cache_path {at}/cache levels=1:2 keys_zone=c:8m max_size=1000m;\nopen_file_cache max=1000;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{origin};\n\
         proxy_cache c; proxy_http_version 1.1; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).ok()?;
    let mut command = Command::new(program);
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(&file);
    Some(Server::start(command, port))
}

/// `__cached PORT ORIGIN cache|no-cache`: a router before one instance, until it is ended.
pub(crate) fn serve(mut args: impl Iterator<Item = String>) {
    let mut port = || args.next().and_then(|a| a.parse::<u16>().ok()).unwrap_or_else(|| fail("no port"));
    let (listen, origin) = (port(), port());
    let cached = args.next().as_deref() == Some("cache");
    let mut spec = ServiceSpec::named(ServiceId(1), "cached");
    (spec.concurrency, spec.cache) = (0, cached.then(CacheRules::default));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, origin));
    let instance = InstanceRoute { instance: InstanceId(1), address, access: Access::Any };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|e| fail(&format!("cannot start the runtime: {e}")));
    let _within = runtime.enter();
    let (began, since) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now());
    let now = Arc::new(move || Time(Span::from(began + since.elapsed()).0));
    let (sender, up) = channel(1_024);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, listen));
    let router = Router::start(RouterSettings::new(RouterId(1), listen, [7; 32], now), sender);
    let router = router.unwrap_or_else(|e| fail(&e.to_string()));
    let services = vec![Arc::new(ServiceRoute::new(Arc::new(spec), vec![instance], None))];
    router.publish(&RouteTable { generation: Generation(1), services });
    loop {
        let _ = up.recv_timeout(Duration::from_secs(1));
    }
}

/// Answers `/1k/...`, `/64k/...` and `/no-store/...`.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap_or_else(|e| fail(&format!("{e}")));
    let address = listener.local_addr().unwrap_or_else(|e| fail(&format!("{e}")));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(answer(&stream)));
        }
    });
    address
}

fn answer(stream: &TcpStream) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let length = if first.contains("/64k/") { 64 << 10 } else { 1 << 10 };
        let may = if first.contains("/no-store/") { "no-store" } else { "max-age=3600" };
        let mut text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \"a\"\r\nCache-Control: {may}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        text.resize(text.len() + length, b'x');
        writer.write_all(&text)?;
    }
}

/// One connection that is kept, opened again if the server ends it.
struct Client {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = connect(address);
        Self { address, stream, buffer: vec![0; 80 << 10] }
    }

    /// Asks, and reads a good answer to its end.
    fn ask(&mut self, target: &str) {
        for _ in 0..3 {
            if self.exchange(target).is_some() {
                return;
            }
            self.stream = connect(self.address);
        }
        fail(&format!("{} does not answer {target}", self.address));
    }

    fn exchange(&mut self, target: &str) -> Option<()> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: cached\r\n\r\n");
        self.stream.write_all(request.as_bytes()).ok()?;
        let mut filled = 0;
        let (head, length) = loop {
            let read = self.stream.read(&mut self.buffer[filled..]).ok().filter(|n| *n > 0)?;
            filled += read;
            let Some(end) = self.buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end]).ok()?;
            if !head.starts_with("HTTP/1.1 200") {
                return None;
            }
            let length = head.lines().find_map(|l| {
                let (name, value) = l.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            })?;
            break (end + 4, length);
        };
        let mut left = (head + length).checked_sub(filled)?;
        while left > 0 {
            let most = left.min(self.buffer.len());
            left -= self.stream.read(&mut self.buffer[..most]).ok().filter(|n| *n > 0)?;
        }
        Some(())
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|e| fail(&format!("{address}: {e}")));
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(PATIENCE));
    stream
}
