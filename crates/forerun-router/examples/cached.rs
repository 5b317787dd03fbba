//! A router before one instance, with its cache or without: `cargo run -p forerun-router --example cached -- LISTEN INSTANCE
//! [--no-cache]`. What tests and benchmarks of the cache put between a client and a server; it runs until it is ended.

use forerun_router::{Router, RouterSettings, channel};
use forerun_types::{
    Access, CacheRules, Generation, InstanceId, InstanceRoute, RouteTable, RouterId, ServiceId, ServiceRoute,
    ServiceSpec, Span, Time, WakeRules,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn main() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let mut address = |what: &str| -> Result<SocketAddr, String> {
        let text = args.next().ok_or_else(|| format!("name {what}, as 127.0.0.1:8080"))?;
        text.parse().map_err(|e| format!("{text}: {e}"))
    };
    let (listen, instance) = (address("where to listen")?, address("the instance")?);
    let no_cache = args.next().is_some_and(|word| word == "--no-cache");
    let mut spec = ServiceSpec::named(ServiceId(1), "cached");
    // Every request counts, whatever its agent is called.
    spec.wake = WakeRules { no_defaults: true, ..WakeRules::default() };
    (spec.concurrency, spec.cache) = (0, (!no_cache).then(CacheRules::default));
    let route = InstanceRoute { instance: InstanceId(1), address: instance, access: Access::Any };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let _within = runtime.enter();
    let (began, since) = (SystemTime::now().duration_since(UNIX_EPOCH), Instant::now());
    let began = began.map_err(|e| format!("the clock is before 1970: {e}"))?;
    let now = Arc::new(move || Time(Span::from(began + since.elapsed()).0));
    let (sender, up) = channel(1_024);
    let settings = RouterSettings::new(RouterId(1), listen, [7; 32], now);
    let router = Router::start(settings, sender).map_err(|e| e.to_string())?;
    let services = vec![Arc::new(ServiceRoute::new(Arc::new(spec), vec![route], None))];
    router.publish(&RouteTable { generation: Generation(1), services });
    println!("{}", router.address());
    loop {
        let _ = up.recv_timeout(Duration::from_secs(1));
    }
}
