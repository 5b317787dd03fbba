//! What it costs to tell a router of one change among many services: `cargo run --release -p forerun-router
//! --example publish [SERVICES]`, 10,000 if left out. Prints microseconds at the median and at the 99th percentile.

use forerun_router::{Router, RouterHandle, RouterSettings, channel};
use forerun_types::{
    Access, Generation, InstanceId, InstanceRoute, RouteRule, RouteTable, RouterId, ServiceId, ServiceRoute,
    ServiceSpec, Time,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 2_000;

fn service(id: u32) -> Arc<ServiceRoute> {
    let mut spec = ServiceSpec::named(ServiceId(id), format!("service-{id}"));
    spec.route = RouteRule { hosts: vec![format!("service-{id}.example")], paths: Vec::new() };
    Arc::new(ServiceRoute::new(Arc::new(spec), Vec::new(), None))
}

/// The same service with one instance more or less.
fn changed(route: &ServiceRoute, round: u64) -> Arc<ServiceRoute> {
    let mut route = route.clone();
    match route.instances.pop() {
        Some(_) => {}
        None => route.instances.push(InstanceRoute {
            instance: InstanceId(round),
            address: ([127, 0, 0, 1], 1).into(),
            access: Access::Any,
        }),
    }
    Arc::new(route)
}

/// A spec of its own: the index of the rules must be made anew.
fn described_anew(route: &ServiceRoute) -> Arc<ServiceRoute> {
    Arc::new(ServiceRoute { spec: Arc::new(ServiceSpec::clone(&route.spec)), ..route.clone() })
}

fn show(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let micros = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("{what:44} {:9.1} {:9.1}", micros(0.5), micros(0.99));
}

fn time(
    router: &RouterHandle,
    table: &mut RouteTable,
    rounds: u64,
    change: impl Fn(&ServiceRoute, u64) -> Arc<ServiceRoute>,
) -> (Vec<Duration>, Vec<Duration>) {
    let (mut copying, mut publishing) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let at = (round * 7_919) as usize % table.services.len();
        table.services[at] = change(&table.services[at], round);
        table.generation.0 += 1;
        let began = Instant::now();
        let copy = RouteTable { generation: table.generation, services: table.services.clone() };
        let copied = began.elapsed();
        let began = Instant::now();
        router.publish(&copy);
        publishing.push(began.elapsed());
        let began = Instant::now();
        drop(copy);
        copying.push(copied + began.elapsed());
    }
    (copying, publishing)
}

fn main() {
    let services = std::env::args().nth(1).map_or(10_000, |n| n.parse().expect("a number of services"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let _within = runtime.enter();
    let (up, events) = channel(64);
    std::thread::spawn(move || while events.recv_timeout(Duration::from_secs(60)).is_some() {});
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    let settings = RouterSettings::new(RouterId(1), address, [0; 32], Arc::new(Time::default));
    let router = Router::start(settings, up).expect("router");
    let mut table = RouteTable { generation: Generation(1), services: (0..services).map(service).collect() };
    let began = Instant::now();
    router.publish(&table);
    println!("{services} services, microseconds{:22} {:>9} {:>9}", "", "median", "p99");
    show("publish the first table", vec![began.elapsed()]);
    let (copying, publishing) = time(&router, &mut table, ROUNDS, changed);
    show("copy the table and drop it", copying);
    show("publish it with one service changed", publishing);
    let (_, publishing) = time(&router, &mut table, ROUNDS / 20, |route, _| described_anew(route));
    show("publish it with one service described anew", publishing);
}
