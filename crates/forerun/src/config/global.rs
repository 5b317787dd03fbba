//! The tables beside the services.

use super::keys::{API, CAPACITY, LEARNING, PRICES, ROUTER, SITE, SLA, STORE, TLS};
use super::reader::Reader;
use super::{ApiConfig, EngineConfig, EngineTls, LearningConfig, Prices, RouterConfig, StoreConfig, machine};
use forerun_router::RouterLimits;
use forerun_types::{Resources, SiteId, SiteSpec, SlaClass};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

/// The least that the router can read a head with.
const HEAD_BYTES_MIN: u64 = 8 << 10;
/// Below this, a page and its pictures would push each other out.
const CACHE_BYTES_MIN: u64 = 1 << 20;
/// A journal smaller than this could not keep a snapshot and what follows it.
const JOURNAL_BYTES_MIN: u64 = 16 << 20;
/// Below this, what is learned of a thousand services would push itself out.
const LEARNING_BYTES_MIN: u64 = 16 << 20;

pub(crate) fn router(root: &Reader<'_>) -> RouterConfig {
    let reader = root.table("router", ROUTER);
    let listen = address(&reader);
    let wake_listen = reader.address("wake_listen");
    if wake_listen.is_some_and(|wake| wake.port() != 0 && wake == listen) {
        reader.problem("wake_listen", "is router.listen too; give it another port");
    }
    let connections_max = reader.count_u32("connections_max");
    RouterConfig {
        listen,
        wake_listen,
        limits: RouterLimits {
            connections_max,
            held_max: held_max(&reader, connections_max),
            held_bytes_max: reader.bytes_at_least("held_bytes_max", 0),
            head_bytes_max: usize::try_from(reader.bytes_at_least("head_bytes_max", HEAD_BYTES_MIN))
                .unwrap_or(usize::MAX),
            head_timeout: reader.duration_some("head_timeout"),
            stall_timeout: reader.duration_some("stall_timeout"),
            connect_timeout: reader.duration_some("connect_timeout"),
            response_timeout: reader.duration("response_timeout"),
            idle_max: reader.count_u32("idle_max") as usize,
            idle_timeout: reader.duration("idle_timeout"),
            trust_forwarded: reader.flag("trust_forwarded"),
            cache_bytes_max: reader.bytes_at_least("cache_bytes", CACHE_BYTES_MIN),
        },
    }
}

/// Who is held keeps a connection; some must be left for those who go through at once.
fn held_max(reader: &Reader<'_>, connections_max: u32) -> u32 {
    if reader.found("held_max").is_none() {
        return (connections_max / 2).max(1);
    }
    let held_max = reader.count_u32("held_max");
    if held_max > connections_max {
        let mend = "each held request keeps its connection; lower it, or raise connections_max";
        reader
            .problem("held_max", &format!("is more than router.connections_max, {connections_max}: {mend}"));
    }
    held_max
}

fn address(reader: &Reader<'_>) -> SocketAddr {
    // What is absent has a default, so this fallback only ever follows a problem that is noted.
    reader.address("listen").unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

pub(crate) fn api(root: &Reader<'_>, router: &RouterConfig) -> ApiConfig {
    let reader = root.table("api", API);
    let listen = address(&reader);
    if listen.port() != 0 && listen == router.listen {
        reader.problem("listen", "is router.listen too; give the api another port");
    }
    if listen.port() != 0 && Some(listen) == router.wake_listen {
        reader.problem("listen", "is router.wake_listen too; give the api another port");
    }
    ApiConfig { listen, require_token: reader.flag("require_token") }
}

pub(crate) fn store(root: &Reader<'_>, base: &Path) -> StoreConfig {
    let reader = root.table("store", STORE);
    let folder = match reader.text("folder") {
        Some(text) => Some(base.join(text)),
        None => machine::state_folder(),
    };
    if folder.is_none() {
        reader.problem("folder", "no home folder is known; name a folder");
    }
    StoreConfig {
        folder: folder.unwrap_or_default(),
        flush_interval: reader.duration_some("flush_interval"),
        journal_bytes_max: reader.bytes_at_least("journal_bytes_max", JOURNAL_BYTES_MIN),
    }
}

pub(crate) fn learning(root: &Reader<'_>) -> LearningConfig {
    let reader = root.table("learning", LEARNING);
    LearningConfig { memory_bytes_max: reader.bytes_at_least("memory_bytes_max", LEARNING_BYTES_MIN) }
}

pub(crate) fn prices(root: &Reader<'_>) -> Prices {
    let reader = root.table("prices", PRICES);
    Prices { memory_gb_hour: reader.number("memory_gb_hour"), cpu_hour: reader.number("cpu_hour") }
}

/// The sites and their engines; without any in the file, this machine.
pub(crate) fn sites(root: &Reader<'_>, base: &Path) -> (Vec<SiteSpec>, Vec<EngineConfig>) {
    let (mut sites, mut engines) = (Vec::new(), Vec::new());
    for (at, entry) in (0u16..).zip(&root.named("site")) {
        let path = format!("site.{}", entry.name);
        let reader = Reader::new(root.source, path, SITE, entry.item.table(), entry.item.span());
        engines.push(engine(&reader, &entry.name, base));
        sites.push(capacity(&reader, SiteId(at), &entry.name));
        if at > 0 && !reader.has("engine") {
            reader.problem(
                "engine",
                "is missing; a site beside the first is a container engine, as \"tcp://HOST:2376\"",
            );
        }
    }
    if sites.is_empty() {
        let reader = Reader::new(root.source, "site.local", SITE, None, None);
        engines.push(engine(&reader, "local", base));
        sites.push(capacity(&reader, SiteId(0), "local"));
    }
    (sites, engines)
}

/// How much memory another machine has is not known here: it is without limit unless the file has one.
fn capacity(reader: &Reader<'_>, id: SiteId, name: &str) -> SiteSpec {
    let capacity = reader.table("capacity", CAPACITY);
    let elsewhere = reader.text("engine").is_some_and(|host| host.starts_with("tcp://"));
    let memory_bytes = match capacity.bytes("memory") {
        Some(bytes) => bytes,
        None if elsewhere => 0,
        None => machine::memory_for_instances(),
    };
    SiteSpec {
        id,
        name: name.to_owned(),
        capacity: Resources {
            cpu_milli: capacity.cores_milli("cpu"),
            memory_bytes,
            network_bytes_per_s: capacity.bytes_per_second("network"),
            storage_bytes: capacity.bytes("storage").unwrap_or_default(),
        },
        instances_max: capacity.count_u32("instances"),
    }
}

fn engine(reader: &Reader<'_>, name: &str, base: &Path) -> EngineConfig {
    let host = reader.text("engine");
    let rest = |scheme: &str| host.as_deref().and_then(|h| h.strip_prefix(scheme));
    let good = match (rest("unix://"), rest("tcp://")) {
        (Some(path), _) => path.starts_with('/'),
        (_, Some(address)) => address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && matches!(port.parse::<u16>(), Ok(1..))),
        _ => host.is_none(),
    };
    if !good {
        reader.problem("engine", "is no engine; write \"unix:///run/docker.sock\" or \"tcp://HOST:2376\"");
    }
    let tls = reader.has("tls").then(|| {
        let inner = reader.table("tls", TLS);
        if rest("tcp://").is_none() {
            reader.problem("tls", "is for an engine over tcp://; remove it");
        }
        let file = |name: &str| {
            let path = base.join(inner.text(name).unwrap_or_default());
            if !inner.has(name) {
                inner.problem(name, "is missing; TLS with an engine takes ca, cert and key");
            } else if !path.is_file() {
                inner.problem(name, &format!("no file {}; mend the path", path.display()));
            }
            path
        };
        EngineTls { ca: file("ca"), cert: file("cert"), key: file("key") }
    });
    EngineConfig { site: name.to_owned(), host, tls }
}

pub(crate) fn class(reader: &Reader<'_>, name: &str) -> SlaClass {
    SlaClass {
        name: name.to_owned(),
        priority: u8::try_from(reader.count_u32("priority")).unwrap_or(u8::MAX),
        guarantee_milli: reader.share_milli("guarantee"),
        latency: reader.duration("latency"),
        cold_start_milli_gbs: (reader.number("cold_start_cost") * 1e3).round() as u64,
        reclaim_max: reader.duration("reclaim_max"),
        cold_start_budget_ppm: cold_start_budget_ppm(reader),
    }
}

fn cold_start_budget_ppm(reader: &Reader<'_>) -> u32 {
    let ppm = reader.share_ppm("cold_start_budget");
    if ppm == Some(0) {
        reader
            .problem("cold_start_budget", "allows none at all; write at least \"0.0001%\", or leave it out");
    }
    ppm.unwrap_or_default()
}

/// The classes of the file, and `default` if it is not among them.
pub(crate) fn classes(root: &Reader<'_>) -> BTreeMap<String, SlaClass> {
    let mut classes = BTreeMap::from([("default".to_owned(), SlaClass::default())]);
    let mut guaranteed_milli = 0u32;
    for entry in root.named("sla") {
        let path = format!("sla.{}", entry.name);
        let reader = Reader::new(root.source, path, SLA, entry.item.table(), entry.item.span());
        let class = class(&reader, &entry.name);
        guaranteed_milli += class.guarantee_milli;
        if guaranteed_milli > 1_000 && class.guarantee_milli > 0 {
            reader.problem("guarantee", "the guarantees of all classes add up to more than 1; lower one");
        }
        classes.insert(entry.name, class);
    }
    classes
}
