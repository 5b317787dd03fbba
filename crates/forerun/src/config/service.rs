//! One `[service.NAME]`, or what a container's labels say of one.

use super::keys::{CACHE, HOLD, RESOURCES, SCHEDULE, SERVICE, SLA};
use super::launch::{self, Kind};
use super::reader::{Entry, Reader, nearest};
use super::{Service, cron, global, guard, needs, ready, route, specialise};
use forerun_types::{
    CacheRules, HoldLimits, HoldStyle, Mode, Resources, Schedule, ServiceId, ServiceSpec, SiteSpec, SlaClass,
    UserFrom,
};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The least that an instance can count for: a plan that shares out memory cannot price what takes none. Only what shell
/// lines start may be on a machine of its own, and take none of this one's.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// Below this, hardly a page is kept.
const BODY_BYTES_MIN: u64 = 1 << 10;

/// What the services of one file share.
pub(crate) struct Shared<'a> {
    pub(crate) base: &'a Path,
    pub(crate) classes: &'a BTreeMap<String, SlaClass>,
    /// The first one's engine is `docker`.
    pub(crate) sites: &'a [SiteSpec],
    /// The container whose labels are read; `None` in a file.
    pub(crate) own: Option<&'a launch::Own>,
}

/// A service and what its neighbours are checked against.
pub(crate) struct Read<'a> {
    pub(crate) service: Service,
    pub(crate) reader: Reader<'a>,
}

pub(crate) fn read<'a>(
    root: &Reader<'a>,
    entry: &Entry<'a>,
    id: ServiceId,
    shared: &Shared<'_>,
    taken: &mut route::Taken,
) -> Read<'a> {
    let path = format!("service.{}", entry.name);
    let reader = Reader::new(root.source, path, SERVICE, entry.item.table(), entry.item.span());
    let service = described(&reader, &entry.name, id, shared);
    if !service.spec.unrouted {
        taken.add(root.source, &reader, &entry.name, &service.spec.route);
    }
    if let Some(port) = service.spec.port.filter(|_| service.spec.backend == "process") {
        taken.add_port(root.source, &reader, &entry.name, port);
    }
    Read { service, reader }
}

/// What one table says, without a look at its neighbours.
pub(crate) fn described(reader: &Reader<'_>, name: &str, id: ServiceId, shared: &Shared<'_>) -> Service {
    let kind = launch::kind(reader, shared);
    let (rule, unrouted) = route::read(reader);
    let (min, max, port) = bounds(reader, kind);
    let (schedules, zone) = schedules(reader, max);
    let ready = ready::read(reader, kind);
    let (hold, hold_style, hide_log) = hold(reader);
    let spec = ServiceSpec {
        tenant: reader.label("tenant").unwrap_or_default(),
        group: reader.label("group"),
        backend: launch::backend_name(reader, kind, shared),
        launch: launch::read(reader, kind, shared, port, &ready),
        route: rule,
        ready: ready.when,
        port,
        start_timeout: reader.duration_some("start_timeout"),
        drain_timeout: reader.duration("drain_timeout"),
        resources: resources(reader, kind, launch::site(reader, shared)),
        concurrency: concurrency(reader, kind),
        min,
        max,
        schedules,
        sla: class(reader, name, shared.classes),
        mode: mode(reader, shared),
        user: user(reader),
        hold,
        depends_on: needs::depends_on(reader),
        specialise: specialise::read(reader, kind),
        wake: guard::wake(reader),
        busy: guard::busy(reader),
        busy_max: reader.duration("busy_max"),
        keep_at_least: reader.duration("keep_at_least"),
        excludes: needs::excludes(reader),
        hold_style,
        hide_log,
        cache: cache(reader),
        auth: guard::auth(reader),
        pausable: if reader.has("pausable") { reader.flag("pausable") } else { kind == Kind::Docker },
        settle: ready.settle,
        found: shared.own.is_some(),
        unrouted,
        ..ServiceSpec::named(id, name)
    };
    Service { spec: Arc::new(spec), zone }
}

/// What a person writes acts; what is found by itself is watched first.
fn mode(reader: &Reader<'_>, shared: &Shared<'_>) -> Mode {
    if shared.own.is_some() && !reader.has("mode") {
        return Mode::Observe;
    }
    match reader.choice("mode") {
        Some("observe") => Mode::Observe,
        Some("advise") => Mode::Advise,
        _ => Mode::Act,
    }
}

/// Containers are made to be shared by many requests; what Forerun starts as a process need not be.
fn concurrency(reader: &Reader<'_>, kind: Kind) -> u32 {
    match kind {
        Kind::Process => reader.count_u32("concurrency"),
        _ if reader.has("concurrency") => reader.count_u32("concurrency"),
        _ => 0,
    }
}

fn bounds(reader: &Reader<'_>, kind: Kind) -> (u32, u32, Option<u16>) {
    let port = reader.count("port").and_then(|p| u16::try_from(p).ok());
    let min = reader.count_u32("min");
    let mut max = reader.count_u32("max");
    // Nobody's database is doubled without a word.
    let single = match kind {
        Kind::Process => port.is_some(),
        Kind::Docker => !reader.has("image"),
        Kind::Command => true,
    };
    if single && !reader.has("max") {
        max = 1.max(min);
    }
    if kind == Kind::Process && port.is_some() && max > 1 {
        reader.problem(
            "max",
            "one port serves one instance; set max = 1, or take the port from {port} or PORT",
        );
    } else if min > max && max > 0 {
        reader.problem("min", &format!("{min} is more than max, which is {max}"));
    }
    (min, max, port)
}

fn resources(reader: &Reader<'_>, kind: Kind, site: Option<&SiteSpec>) -> Resources {
    let capacity = site.map(|site| site.capacity).unwrap_or_default();
    let inner = reader.table("resources", RESOURCES);
    let resources = Resources {
        cpu_milli: inner.cores_milli("cpu"),
        memory_bytes: inner.bytes_from("memory", MEMORY_BYTES_MIN, kind == Kind::Command),
        network_bytes_per_s: inner.bytes_per_second("network"),
        storage_bytes: inner.bytes("storage").unwrap_or_default(),
    };
    for (name, one, all) in [
        ("cpu", resources.cpu_milli, capacity.cpu_milli),
        ("memory", resources.memory_bytes, capacity.memory_bytes),
        ("network", resources.network_bytes_per_s, capacity.network_bytes_per_s),
        ("storage", resources.storage_bytes, capacity.storage_bytes),
    ] {
        if all > 0 && one > all {
            inner.problem(name, "is more than the whole site has; no instance could ever start");
        }
    }
    resources
}

/// The windows, and the zone that they are in: one for the service, since its hours are local to it.
fn schedules(reader: &Reader<'_>, max: u32) -> (Vec<Schedule>, TimeZone) {
    let mut schedules = Vec::new();
    let mut zone: Option<(String, TimeZone)> = None;
    for inner in reader.tables("schedule", SCHEDULE) {
        for name in ["cron", "for"] {
            if !inner.has(name) {
                inner.problem(name, "is missing; a window is { cron = \"0 8 * * mon-fri\", for = \"9h\" }");
            }
        }
        // A window without a zone is in the zone of the others.
        if inner.has("zone")
            && let Some(name) = inner.text("zone")
        {
            match (TimeZone::get(&name), &zone) {
                (Err(_), _) => inner
                    .problem("zone", &format!("\"{name}\" is no time zone; write it as \"Europe/Berlin\"")),
                (Ok(_), Some((first, _))) if *first != name => {
                    inner.problem(
                        "zone",
                        &format!("a service has one zone, and \"{first}\" came first; use that"),
                    );
                }
                (Ok(found), _) => zone = Some((name, found)),
            }
        }
        let min = inner.count_u32("min");
        if min > max && max > 0 {
            inner.problem("min", &format!("{min} is more than the service's max, which is {max}"));
        }
        let open_for = inner.duration_some("for");
        let Some(text) = inner.text("cron") else { continue };
        match cron::parse(&text) {
            Ok(schedule) => schedules.push(Schedule { open_for, min, ..schedule }),
            Err(what) => inner.problem("cron", &what),
        }
    }
    (schedules, zone.map_or(TimeZone::UTC, |(_, zone)| zone))
}

fn class(reader: &Reader<'_>, name: &str, classes: &BTreeMap<String, SlaClass>) -> SlaClass {
    if reader.found("sla").is_some_and(|found| found.table().is_some()) {
        return global::class(&reader.table("sla", SLA), name);
    }
    let Some(text) = reader.text("sla") else { return SlaClass::default() };
    if let Some(class) = classes.get(&text) {
        return class.clone();
    }
    let mend = match nearest(&text, classes.keys().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "add [sla.{text}], or use one of {}",
            classes.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
    };
    reader.problem("sla", &format!("no class \"{text}\"; {mend}"));
    SlaClass::default()
}

fn user(reader: &Reader<'_>) -> UserFrom {
    let token = |name: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        (!name.is_empty() && name.bytes().all(good)).then(|| name.to_owned())
    };
    let text = reader.text("user").unwrap_or_else(|| "address".to_owned());
    let user = match text.split_once(':') {
        None if text == "address" => Some(UserFrom::Address),
        None if text == "none" => Some(UserFrom::None),
        Some(("header", name)) => token(name).map(|name| UserFrom::Header(name.to_ascii_lowercase())),
        Some(("cookie", name)) => token(name).map(UserFrom::Cookie),
        _ => None,
    };
    user.unwrap_or_else(|| {
        let what = format!(
            "\"{text}\" is not known; write \"header:NAME\", \"cookie:NAME\", \"address\" or \"none\""
        );
        reader.problem("user", &what);
        UserFrom::Address
    })
}

fn cache(reader: &Reader<'_>) -> Option<CacheRules> {
    let inner = reader.flag_or("cache", CACHE)?;
    Some(CacheRules {
        body_bytes_max: inner.bytes_at_least("body_bytes", BODY_BYTES_MIN),
        variants_max: inner.count_u32("variants"),
        wait: inner.duration("wait"),
        missing: inner.duration("missing"),
        stale_if_error: inner.duration("stale_if_error"),
    })
}

/// Limits, style, and whether those who wait see no log.
fn hold(reader: &Reader<'_>) -> (HoldLimits, HoldStyle, bool) {
    let style = |text: Option<&str>| match text {
        Some("auto") => HoldStyle::Auto,
        Some("page") => HoldStyle::Page,
        _ => HoldStyle::Wait,
    };
    let in_a_word = reader.found("hold").is_some_and(|found| found.is_text());
    if in_a_word {
        let word = reader.text("hold").unwrap_or_default();
        if !["auto", "wait", "page"].contains(&word.as_str()) {
            reader
                .problem("hold", &format!("\"{word}\" is not known; it takes auto, wait, page, or a table"));
        }
        return (HoldLimits::default(), style(Some(&word)), false);
    }
    let inner = reader.table("hold", HOLD);
    let limits = HoldLimits {
        requests_max: inner.count_u32("requests"),
        bytes_max: inner.bytes("bytes").unwrap_or_default(),
        timeout: inner.duration_some("timeout"),
    };
    (limits, style(inner.choice("style")), inner.flag("hide_log"))
}
