//! A router, instances made of threads, and clients that see every byte.

use forerun_router::{BesideBody, Router, RouterHandle, RouterLimits, RouterSettings, UpReceiver, channel};
use forerun_types::{
    Access, Event, Generation, InstanceId, InstanceRoute, RouteTable, RouterId, ServiceId, ServiceRoute,
    ServiceSpec, Span, Time, Unavailable,
};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than anything here takes unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) router: RouterHandle,
    pub(crate) up: UpReceiver,
    generation: AtomicU64,
}

pub(crate) fn spec(change: impl FnOnce(&mut ServiceSpec)) -> Arc<ServiceSpec> {
    let mut spec = ServiceSpec::named(ServiceId(1), "shop");
    spec.concurrency = 0;
    change(&mut spec);
    Arc::new(spec)
}

pub(crate) fn entry(spec: &Arc<ServiceSpec>, instances: &[(u64, SocketAddr)]) -> Arc<ServiceRoute> {
    let route = |&(id, address): &(u64, SocketAddr)| InstanceRoute {
        instance: InstanceId(id),
        address,
        access: Access::Any,
    };
    let instances = instances.iter().map(route).collect();
    Arc::new(ServiceRoute::new(Arc::clone(spec), instances, None))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(|_| {})
    }

    pub(crate) fn with_limits(change: impl FnOnce(&mut RouterLimits)) -> Self {
        Self::with_settings(|settings| change(&mut settings.limits))
    }

    /// With a port for proxies beside that for requests.
    pub(crate) fn with_beside() -> Self {
        let local: SocketAddr = ([127, 0, 0, 1], 0).into();
        Self::with_settings(|settings| settings.beside = Some(local.into()))
    }

    fn with_settings(change: impl FnOnce(&mut RouterSettings)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let (start, started) = (SystemTime::now(), Instant::now());
        let start = start.duration_since(UNIX_EPOCH).expect("after 1970");
        let now = Arc::new(move || Time(Span::from(start + started.elapsed()).0));
        let local: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut settings = RouterSettings::new(RouterId(3), local, [7; 32], now);
        change(&mut settings);
        let (sender, up) = channel(64);
        let router = {
            let _within = runtime.enter();
            Router::start(settings, sender).expect("router")
        };
        Self { runtime, router, up, generation: AtomicU64::new(0) }
    }

    /// A router with one service that takes everything, served by one instance.
    pub(crate) fn serving(instance: &Instance) -> Self {
        let world = Self::new();
        world.publish(&[entry(&spec(|_| {}), &[(1, instance.address)])]);
        world
    }

    pub(crate) fn publish(&self, services: &[Arc<ServiceRoute>]) -> Generation {
        let generation = Generation(self.generation.fetch_add(1, Ordering::Relaxed) + 1);
        self.router.publish(&RouteTable { generation, services: services.to_vec() });
        generation
    }

    pub(crate) fn publish_unavailable(&self, spec: &Arc<ServiceSpec>, why: &str) {
        let unavailable = Unavailable { why: why.to_owned(), retry_after: Span::from_secs(7) };
        let route = ServiceRoute::new(Arc::clone(spec), Vec::new(), Some(unavailable));
        self.publish(&[Arc::new(route)]);
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.router.address())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        let mut client = self.client();
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
        client.reply().expect("an answer")
    }

    /// The events until one fits, that one last.
    pub(crate) fn events_until(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Vec<Event> {
        let until = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        while Instant::now() < until {
            if let Some(event) = self.up.recv_timeout(Duration::from_millis(100)) {
                let done = fits(&event);
                events.push(event);
                if done {
                    return events;
                }
            }
        }
        panic!("no {what} among {events:?}");
    }

    /// All that is told within a while, for what must not be among it.
    pub(crate) fn told(&self) -> Vec<Event> {
        // A batch is told within 20 ms.
        std::thread::sleep(Duration::from_millis(150));
        std::iter::from_fn(|| self.up.try_recv()).collect()
    }

    /// Activities and waits among what is told within a while.
    pub(crate) fn acts_and_waits(&self) -> (usize, usize) {
        let told = self.told();
        let acts = told.iter().map(|e| if let Event::Traffic(t) = e { t.activities.len() } else { 0 }).sum();
        (acts, told.iter().filter(|e| matches!(e, Event::Waiting { .. })).count())
    }

    /// The answer to a request head, which ends here.
    pub(crate) fn ask(&self, head: &str) -> Reply {
        let mut client = self.client();
        client.send(&format!("{head}\r\n\r\n"));
        if head.starts_with("HEAD") { client.reply_to_head() } else { client.reply() }.expect("an answer")
    }

    /// A GET of the port for proxies, with header lines that each end with a line break.
    pub(crate) fn beside(&self, target: &str, headers: &str) -> Reply {
        let mut client = self.beside_client(target, headers);
        client.reply().expect("an answer")
    }

    pub(crate) fn beside_client(&self, target: &str, headers: &str) -> Client {
        let mut client = Client::connect(self.router.beside_address().expect("a port for proxies"));
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: forerun\r\n{headers}\r\n"));
        client
    }

    /// What this machine is answered beside requests.
    pub(crate) fn at_home(&self, target: &str) -> (u16, String) {
        let asked = hyper::Request::builder().uri(target).body(()).expect("a request");
        let response = self.runtime.block_on(self.router.beside(asked, [127, 0, 0, 1].into()));
        let status = response.status().as_u16();
        let BesideBody::Text(text) = response.into_body() else { panic!("{target} is a stream") };
        let text = text.unwrap_or_default();
        (status, String::from_utf8_lossy(&text).into_owned())
    }

    pub(crate) fn waiting(&self, count: u32) {
        self.events_until("Waiting", |e| matches!(e, Event::Waiting { waiting, .. } if *waiting == count));
    }

    pub(crate) fn abandoned(&self, left: u32) {
        self.events_until("Abandoned", |e| matches!(e, Event::Abandoned { waiting, .. } if *waiting == left));
    }
}

/// Asks again and again until it holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A server whose connections are each handled by `serve`, which gets the connection's number too.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Instance {
    pub(crate) fn start(serve: impl Fn(&mut Peer, usize) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, asked, serve) = (Arc::clone(&connections), Arc::clone(&requests), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let (serve, asked) = (Arc::clone(&serve), Arc::clone(&asked));
                std::thread::spawn(move || {
                    let mut peer = Peer { reader: BufReader::new(stream), asked, asked_here: 0 };
                    // A router that closes is no error of the instance.
                    let _ = serve(&mut peer, number);
                });
            }
        });
        Self { address, connections, requests }
    }

    /// Answers each request with `answer(request)`, on a connection that is kept.
    pub(crate) fn answering(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |peer, _| {
            while let Some(request) = peer.request()? {
                peer.send(&answer(&request))?;
            }
            Ok(())
        })
    }

    /// Answers every request with this text after `busy`.
    pub(crate) fn saying(text: &'static str, busy: Duration) -> Self {
        Self::answering(move |_| {
            std::thread::sleep(busy);
            ok(text)
        })
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An instance that can be killed: listener and connections end at once, as with its process.
pub(crate) struct Mortal {
    pub(crate) address: SocketAddr,
    life: Arc<Mutex<Life>>,
}

#[derive(Default)]
struct Life {
    over: bool,
    connections: Vec<TcpStream>,
}

impl Mortal {
    /// Answers each request with `answer(request)`.
    pub(crate) fn answering(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answer)
    }

    pub(crate) fn at(
        address: SocketAddr,
        answer: impl Fn(&Request) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("address");
        let life = Arc::new(Mutex::new(Life::default()));
        let (shared, answer) = (Arc::clone(&life), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut life = shared.lock().expect("lock");
                if life.over {
                    return;
                }
                life.connections.push(stream.try_clone().expect("clone"));
                drop(life);
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || -> io::Result<()> {
                    let asked = Arc::new(AtomicUsize::new(0));
                    let mut peer = Peer { reader: BufReader::new(stream), asked, asked_here: 0 };
                    while let Some(request) = peer.request()? {
                        peer.send(&answer(&request))?;
                    }
                    Ok(())
                });
            }
        });
        Self { address, life }
    }

    /// Returns when nobody listens any more.
    pub(crate) fn kill(&self) {
        let mut life = self.life.lock().expect("lock");
        life.over = true;
        for connection in life.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(life);
        // Each wakes the listener's thread, which ends.
        eventually("the listener closes", || TcpStream::connect(self.address).is_err());
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The router as an instance sees it.
pub(crate) struct Peer {
    reader: BufReader<TcpStream>,
    asked: Arc<AtomicUsize>,
    asked_here: usize,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

impl Peer {
    /// A request's head, or `None` at the end of the connection.
    pub(crate) fn head(&mut self) -> io::Result<Option<Request>> {
        let Some((line, headers)) = read_head(&mut self.reader)? else { return Ok(None) };
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.asked_here += 1;
        Ok(Some(Request { line, headers, body: Vec::new() }))
    }

    /// A whole request.
    pub(crate) fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(mut request) = self.head()? else { return Ok(None) };
        request.body = read_body(&mut self.reader, &request.headers, false)?;
        Ok(Some(request))
    }

    /// Requests on this connection so far.
    pub(crate) fn asked_here(&self) -> usize {
        self.asked_here
    }

    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.reader.get_mut().write_all(text.as_bytes())
    }

    pub(crate) fn read(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut data = vec![0; bytes];
        self.reader.read_exact(&mut data)?;
        Ok(data)
    }

    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.reader.get_mut().shutdown(Shutdown::Both)
    }
}

/// An answer as a client sees it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn reason(&self) -> &str {
        self.header("forerun-reason").unwrap_or("")
    }
}

pub(crate) struct Client {
    pub(crate) reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect to the router");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.try_send(text.as_bytes()).expect("send");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub(crate) fn get(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
    }

    /// The next answer to anything but HEAD. A body that ends early is an error.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        self.reply_to(false)
    }

    pub(crate) fn reply_to_head(&mut self) -> io::Result<Reply> {
        self.reply_to(true)
    }

    fn reply_to(&mut self, to_head: bool) -> io::Result<Reply> {
        loop {
            let (status, headers) = self.head()?;
            if status == 100 {
                continue;
            }
            let bodiless = to_head || status == 204 || status == 304;
            let body = if bodiless { Vec::new() } else { read_body(&mut self.reader, &headers, true)? };
            return Ok(Reply { status, headers, body });
        }
    }

    pub(crate) fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let Some((line, headers)) = read_head(&mut self.reader)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        Ok((status.ok_or_else(|| io::Error::other(format!("no status in {line}")))?, headers))
    }

    /// What comes until the connection ends.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// What comes until `end` has come.
    pub(crate) fn text_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(end) {
            text.extend(self.read(1).expect("more of it"));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn read(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut data = vec![0; bytes];
        self.reader.read_exact(&mut data)?;
        Ok(data)
    }
}

type Head = (String, Vec<(String, String)>);

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
            None => return Ok(Some((first.trim_end().to_owned(), headers))),
        }
    }
}

fn read_body(
    reader: &mut impl BufRead,
    headers: &[(String, String)],
    to_the_end: bool,
) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = header(headers, "content-length") {
        body.resize(length.parse().map_err(io::Error::other)?, 0);
        reader.read_exact(&mut body)?;
    } else if header(headers, "transfer-encoding").is_some() {
        while let Some(chunk) = read_chunk(reader)? {
            body.extend(chunk);
        }
        // Trailers, if any, and the empty line.
        while reader.read_until(b'\n', &mut Vec::new())? > 2 {}
    } else if to_the_end {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// The next chunk; `None` for the last, whose trailers are still to come.
pub(crate) fn read_chunk(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut size = String::new();
    if reader.read_line(&mut size)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
    if size == 0 {
        return Ok(None);
    }
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok(Some(chunk))
}
