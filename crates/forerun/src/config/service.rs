//! One `[service.NAME]`.

use super::keys::{HOLD, READY, RESOURCES, SCHEDULE, SERVICE, SLA};
use super::reader::{Entry, Reader, nearest, text_of};
use super::{Service, cron, global, route, words};
use forerun_types::{
    HoldLimits, Launch, Mode, Readiness, Resources, Schedule, ServiceId, ServiceSpec, SlaClass, UserFrom,
};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The least that an instance can count for: a plan that shares out memory cannot price what takes none.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

/// What the services of one file share.
pub(crate) struct Shared<'a> {
    pub(crate) base: &'a Path,
    pub(crate) classes: &'a BTreeMap<String, SlaClass>,
    pub(crate) capacity: &'a Resources,
}

pub(crate) fn read(
    root: &Reader<'_>,
    entry: &Entry<'_>,
    id: ServiceId,
    shared: &Shared<'_>,
    taken: &mut route::Taken,
) -> Service {
    let path = format!("service.{}", entry.name);
    let reader = Reader::new(root.source, path, SERVICE, entry.item.table(), entry.item.span());
    let rule = route::read(&reader);
    taken.add(root.source, &reader, &entry.name, &rule);
    let (min, max, port) = bounds(&reader);
    if let Some(port) = port {
        taken.add_port(root.source, &reader, &entry.name, port);
    }
    let (schedules, zone) = schedules(&reader, max);
    let defaults = ServiceSpec::named(id, entry.name.clone());
    let spec = ServiceSpec {
        tenant: reader.label("tenant").unwrap_or_default(),
        group: reader.label("group"),
        backend: reader.choice("backend").unwrap_or_default().to_owned(),
        launch: launch(&reader, shared.base, port),
        route: rule,
        ready: readiness(&reader),
        port,
        start_timeout: reader.duration_some("start_timeout"),
        drain_timeout: reader.duration("drain_timeout"),
        resources: resources(&reader, shared.capacity),
        concurrency: reader.count_u32("concurrency"),
        min,
        max,
        schedules,
        sla: class(&reader, &entry.name, shared.classes),
        mode: match reader.choice("mode") {
            Some("observe") => Mode::Observe,
            Some("advise") => Mode::Advise,
            _ => Mode::Act,
        },
        user: user(&reader),
        hold: hold(&reader),
        ..defaults
    };
    Service { spec: Arc::new(spec), zone }
}

fn bounds(reader: &Reader<'_>) -> (u32, u32, Option<u16>) {
    let port = reader.count("port").and_then(|p| u16::try_from(p).ok());
    let min = reader.count_u32("min");
    let mut max = reader.count_u32("max");
    if port.is_some() && !reader.has("max") {
        max = 1;
    }
    if port.is_some() && max > 1 {
        reader.problem(
            "max",
            "one port serves one instance; set max = 1, or take the port from {port} or PORT",
        );
    } else if min > max && max > 0 {
        reader.problem("min", &format!("{min} is more than max, which is {max}"));
    }
    (min, max, port)
}

fn launch(reader: &Reader<'_>, base: &Path, port: Option<u16>) -> Launch {
    let folder = match reader.text("folder") {
        Some(text) => base.join(text),
        None => base.to_owned(),
    };
    if !folder.is_dir() {
        reader.problem("folder", &format!("no folder {}; make it, or mend the path", folder.display()));
    }
    let mut command = command(reader);
    if let Some(program) = command.first_mut() {
        // Where a relative program is looked for differs between systems; here it is the service's folder.
        if program.contains('/') {
            let path = folder.join(&*program);
            if !path.is_file() {
                reader.problem(
                    "command",
                    &format!("no program {}; build it, or mend the path", path.display()),
                );
            }
            *program = path.to_string_lossy().into_owned();
        }
    }
    let env = reader.env("env");
    if env.get("PORT").is_some_and(|value| !value.contains("{port}")) {
        let mend = if port.is_some() { "remove it" } else { "write port = ... in the service" };
        reader.problem("env", &format!("PORT is set by forerun; {mend}"));
    }
    Launch::Process { command, env, folder: Some(folder.to_string_lossy().into_owned()) }
}

fn command(reader: &Reader<'_>) -> Vec<String> {
    let Some(found) = reader.found("command") else {
        reader.problem(
            "command",
            "is missing; name the program to start, as [\"python3\", \"-m\", \"http.server\", \"{port}\"]",
        );
        return Vec::new();
    };
    if found.list().is_none() {
        let read = text_of(found.scalar()).and_then(words::split);
        return read.map_err(|what| reader.problem("command", &what)).unwrap_or_default();
    }
    let words: Vec<String> = reader.texts("command").into_iter().map(|(text, _)| text).collect();
    if words.first().is_none_or(String::is_empty) {
        reader.problem("command", "is empty; name the program to start");
        return Vec::new();
    }
    words
}

fn readiness(reader: &Reader<'_>) -> Readiness {
    let table = reader.found("ready").filter(|found| found.table().is_some());
    let read = if table.is_some() {
        let inner = reader.table("ready", READY);
        match (inner.text("http"), inner.text("log")) {
            (Some(path), None) => http(&path),
            (None, Some(text)) => log(&text),
            (Some(_), Some(_)) => Err("takes one of http and log, not both".to_owned()),
            (None, None) => {
                Err("is empty; write \"tcp\", { http = \"/healthz\" } or { log = \"listening\" }".to_owned())
            }
        }
    } else {
        match reader.text("ready") {
            Some(text) if text == "tcp" => Ok(Readiness::Tcp),
            Some(text) if text == "http" => http("/"),
            Some(text) => match text.split_once(':') {
                Some(("http", path)) => http(path),
                Some(("log", line)) => log(line),
                _ => Err(format!(
                    "\"{text}\" is not known; write \"tcp\", \"http:/healthz\" or \"log:listening\""
                )),
            },
            // The default is a text, so what is there is wrong and noted.
            None => Ok(Readiness::Tcp),
        }
    };
    read.map_err(|what| reader.problem("ready", &what)).unwrap_or(Readiness::Tcp)
}

fn http(path: &str) -> Result<Readiness, String> {
    let good = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    if !good {
        return Err(format!("path \"{path}\" must begin with \"/\" and hold no blanks"));
    }
    Ok(Readiness::Http { path: path.to_owned() })
}

fn log(text: &str) -> Result<Readiness, String> {
    if text.trim().is_empty() || text.contains('\n') {
        return Err("the text to wait for is empty, or more than a line".to_owned());
    }
    Ok(Readiness::Log { text: text.to_owned() })
}

fn resources(reader: &Reader<'_>, capacity: &Resources) -> Resources {
    let inner = reader.table("resources", RESOURCES);
    let resources = Resources {
        cpu_milli: inner.cores_milli("cpu"),
        memory_bytes: inner.bytes_at_least("memory", MEMORY_BYTES_MIN),
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
        if let Some(name) = inner.text("zone") {
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

fn hold(reader: &Reader<'_>) -> HoldLimits {
    let inner = reader.table("hold", HOLD);
    HoldLimits {
        requests_max: inner.count_u32("requests"),
        bytes_max: inner.bytes("bytes").unwrap_or_default(),
        timeout: inner.duration_some("timeout"),
    }
}
