//! Requests per second through a router, and without one, on the same machine at the same time of day.
//!
//! `cargo run --release -p forerun-router --example throughput [CLIENTS] [SECONDS] [CONCURRENCY] [INSTANCES]`
//! A sanity check, not a benchmark: clients, router and instances share the cores.

use forerun_router::{Router, RouterSettings, channel};
use forerun_types::{
    Access, Event, Generation, InstanceId, InstanceRoute, RouteTable, RouterId, ServiceId, ServiceRoute,
    ServiceSpec, Span, Time,
};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

struct Hello(Option<Bytes>);

impl hyper::body::Body for Hello {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

async fn instance(accepted: Arc<AtomicUsize>) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.set_nodelay(true);
            let hello = |_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Hello(Some(Bytes::from_static(b"hello, world")))))
            };
            let service = hyper::service::service_fn(hello);
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok(address)
}

/// One client's waits, in microseconds.
fn client(address: SocketAddr, until: Instant) -> std::io::Result<Vec<u64>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut waits = Vec::new();
    let mut buffer = [0; 4_096];
    while Instant::now() < until {
        let since = Instant::now();
        stream.write_all(b"GET /orders/17 HTTP/1.1\r\nHost: shop\r\n\r\n")?;
        let mut got = 0;
        while !buffer[..got].ends_with(b"hello, world") {
            match stream.read(&mut buffer[got..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => got += n,
            }
        }
        waits.push(since.elapsed().as_micros() as u64);
    }
    Ok(waits)
}

fn measure(name: &str, address: SocketAddr, clients: usize, seconds: u64) -> std::io::Result<()> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let threads: Vec<_> = (0..clients).map(|_| std::thread::spawn(move || client(address, until))).collect();
    let mut waits = Vec::new();
    for thread in threads {
        waits.extend(thread.join().map_err(|_| std::io::Error::other("a client panicked"))??);
    }
    waits.sort_unstable();
    let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or(0);
    let rate = waits.len() as u64 / seconds;
    println!("{name:>10}: {rate:>7} requests/s, p50 {} us, p99 {} us", at(0.5), at(0.99));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arg = |n: usize, default: u64| {
        std::env::args().nth(n).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (clients, seconds) = (arg(1, 8) as usize, arg(2, 3));
    let mut spec = ServiceSpec::named(ServiceId(1), "shop");
    spec.concurrency = arg(3, 0) as u32;

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut instances = Vec::new();
    for id in 0..arg(4, 1) {
        let address = runtime.block_on(instance(Arc::clone(&accepted)))?;
        instances.push(InstanceRoute { instance: InstanceId(id), address, access: Access::Any });
    }
    let direct = instances.first().ok_or("at least one instance is needed")?.address;
    let (up, receiver) = channel(64);
    let started = Instant::now();
    let now = Arc::new(move || Time(1) + Span::from(started.elapsed()));
    let router = {
        let _within = runtime.enter();
        Router::start(
            RouterSettings::new(RouterId(0), SocketAddr::from(([127, 0, 0, 1], 0)), [1; 32], now),
            up,
        )?
    };
    let route = Arc::new(ServiceRoute::new(Arc::new(spec), instances, None));
    router.publish(&RouteTable { generation: Generation(1), services: vec![route] });
    let engine = std::thread::spawn(move || {
        let (mut batches, mut records) = (0, 0);
        while let Some(event) = receiver.recv_timeout(Duration::from_secs(5)) {
            if let Event::Traffic(traffic) = event {
                batches += 1;
                records += traffic.activities.len() + traffic.finished.len();
            }
        }
        (batches, records)
    });

    measure("direct", direct, clients, seconds)?;
    let before = accepted.load(Ordering::Relaxed);
    measure("router", router.address(), clients, seconds)?;
    let dialled = accepted.load(Ordering::Relaxed) - before;
    let stats = router.stats();
    let (held, lost) = (stats.services[0].cold_starts, stats.lost);
    drop((router, stats));
    let (batches, records) = engine.join().map_err(|_| "the reader panicked")?;
    println!(
        "{dialled} connections dialled, {held} requests held, {records} records in {batches} batches, {lost} lost"
    );
    Ok(())
}
