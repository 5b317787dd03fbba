//! How instances are brought up, by backend.

use super::reader::{Reader, nearest};
use super::ready::Ready;
use super::service::Shared;
use forerun_types::{Container, Launch, Lines, SiteSpec};
use std::path::PathBuf;

/// The backends, as far as they differ in what they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Process,
    Docker,
    Command,
}

/// A container that carries labels, as far as its service is known without them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) container: String,
    pub(crate) image: String,
    pub(crate) networks: Vec<String>,
    /// What `restart:` says.
    pub(crate) restart: String,
    /// Site of its engine; empty is the only one.
    pub(crate) engine: String,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Process => "process",
            Kind::Docker => "docker",
            Kind::Command => "command",
        }
    }
}

/// Keys that one backend reads and others do not.
const FOR_ONE: &[(&str, &[Kind])] = &[
    ("command", &[Kind::Process, Kind::Docker]),
    ("folder", &[Kind::Process, Kind::Command]),
    ("container", &[Kind::Docker]),
    ("image", &[Kind::Docker]),
    ("mounts", &[Kind::Docker]),
    ("networks", &[Kind::Docker]),
    ("engine", &[Kind::Docker]),
    ("start", &[Kind::Command]),
    ("stop", &[Kind::Command]),
    ("state", &[Kind::Command]),
    ("address", &[Kind::Command]),
];

/// What a container that exists already says itself.
const OF_A_CONTAINER: &[&str] = &[
    "command",
    "env",
    "folder",
    "container",
    "image",
    "mounts",
    "networks",
    "engine",
    "start",
    "stop",
    "state",
    "address",
];

/// Which backend: what is said, or what the other keys make of it.
pub(crate) fn kind(reader: &Reader<'_>, shared: &Shared<'_>) -> Kind {
    if shared.own.is_some() {
        for name in OF_A_CONTAINER.iter().filter(|name| reader.has(name)) {
            reader.problem(name, "is the container's own, and not for a label; remove it");
        }
        if reader.choice("backend").is_some_and(|told| told != "docker") {
            reader.problem("backend", "a container's is docker; remove it");
        }
        return Kind::Docker;
    }
    let kind = match reader.choice("backend") {
        Some("docker") => Kind::Docker,
        Some("command") => Kind::Command,
        Some(_) => Kind::Process,
        None if reader.has("backend") => return Kind::Process,
        None if reader.has("image") || reader.has("container") => Kind::Docker,
        None if reader.has("start") => Kind::Command,
        None => Kind::Process,
    };
    for (name, kinds) in FOR_ONE {
        if reader.has(name) && !kinds.contains(&kind) {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
            let what = format!(
                "is for the {} backend, and this one's is {}; remove it, or write backend = \"{}\"",
                names.join(" or "),
                kind.name(),
                names[0]
            );
            reader.problem(name, &what);
        }
    }
    kind
}

/// The name by which the engine finds the backend: that of a site but the first has its site in it.
pub(crate) fn backend_name(reader: &Reader<'_>, kind: Kind, shared: &Shared<'_>) -> String {
    let site = site_named(reader, shared);
    match shared.sites.iter().position(|known| known.name == site) {
        _ if kind != Kind::Docker || site.is_empty() => {}
        Some(0) => {}
        Some(_) => return docker_at(&site),
        None => {
            let near = nearest(&site, shared.sites.iter().map(|known| known.name.as_str()));
            let mend = near.map_or_else(
                || format!("add [site.{site}] with its engine"),
                |n| format!("did you mean \"{n}\"?"),
            );
            reader.problem("engine", &format!("no site \"{site}\"; {mend}"));
        }
    }
    kind.name().to_owned()
}

fn site_named(reader: &Reader<'_>, shared: &Shared<'_>) -> String {
    match shared.own {
        Some(own) => own.engine.clone(),
        None => reader.text("engine").unwrap_or_default(),
    }
}

/// Where its instances will be; `None` when no such site is known.
pub(crate) fn site<'a>(reader: &Reader<'_>, shared: &Shared<'a>) -> Option<&'a SiteSpec> {
    let name = site_named(reader, shared);
    match name.is_empty() {
        true => shared.sites.first(),
        false => shared.sites.iter().find(|known| known.name == name),
    }
}

/// The backend of a site that is not the first.
pub(crate) fn docker_at(site: &str) -> String {
    format!("docker@{site}")
}

pub(crate) fn read(
    reader: &Reader<'_>,
    kind: Kind,
    shared: &Shared<'_>,
    port: Option<u16>,
    ready: &Ready,
) -> Launch {
    match kind {
        Kind::Process => process(reader, shared, port),
        Kind::Docker => Launch::Container(container(reader, shared, port)),
        Kind::Command => Launch::Command(lines(reader, shared, ready)),
    }
}

fn folder(reader: &Reader<'_>, shared: &Shared<'_>) -> PathBuf {
    let folder = match reader.text("folder") {
        Some(text) => shared.base.join(text),
        None => shared.base.to_owned(),
    };
    if !folder.is_dir() {
        reader.problem("folder", &format!("no folder {}; make it, or mend the path", folder.display()));
    }
    folder
}

fn process(reader: &Reader<'_>, shared: &Shared<'_>, port: Option<u16>) -> Launch {
    let folder = folder(reader, shared);
    if !reader.has("command") {
        reader.problem(
            "command",
            "is missing; name the program to start, as [\"python3\", \"-m\", \"http.server\", \"{port}\"]",
        );
    }
    let mut command = reader.command("command").unwrap_or_default();
    if let Some(program) = command.first_mut() {
        // Where a relative program is looked for differs between systems; here it is the service's folder.
        if program.contains('/') {
            let path = folder.join(&*program);
            if !path.is_file() {
                let what = format!("no program {}; build it, or mend the path", path.display());
                reader.problem("command", &what);
            }
            *program = path.to_string_lossy().into_owned();
        }
    }
    let env = reader.env("env");
    check_port(reader, &env, port);
    Launch::Process { command, env, folder: Some(folder.to_string_lossy().into_owned()) }
}

fn check_port(reader: &Reader<'_>, env: &std::collections::BTreeMap<String, String>, port: Option<u16>) {
    if env.get("PORT").is_some_and(|value| !value.contains("{port}")) {
        let mend = if port.is_some() { "remove it" } else { "write port = ... in the service" };
        reader.problem("env", &format!("PORT is set by forerun; {mend}"));
    }
}

fn container(reader: &Reader<'_>, shared: &Shared<'_>, port: Option<u16>) -> Container {
    if let Some(own) = shared.own {
        return Container {
            engine: own.engine.clone(),
            own: Some(own.container.clone()),
            image: own.image.clone(),
            networks: own.networks.clone(),
            restart: own.restart.clone(),
            ..Container::default()
        };
    }
    let own = reader.text("container");
    let image = reader.text("image").unwrap_or_default();
    for (name, text) in [("container", own.as_deref()), ("image", Some(image.as_str()))] {
        if reader.has(name)
            && text.is_some_and(|text| text.trim().is_empty() || text.contains(char::is_whitespace))
        {
            reader.problem(name, "is empty or holds blanks; write its name");
        }
    }
    if !reader.has("container") && !reader.has("image") {
        reader.problem(
            "image",
            "is missing; name an image to make containers from, or a container of your own",
        );
    }
    let env = reader.env("env");
    check_port(reader, &env, port);
    Container {
        engine: reader.text("engine").unwrap_or_default(),
        own,
        image,
        command: reader.command("command").unwrap_or_default(),
        env,
        mounts: mounts(reader, "mounts"),
        networks: reader.texts("networks").into_iter().map(|(text, _)| text).collect(),
        restart: "no".to_owned(),
    }
}

/// `SOURCE:TARGET` or `SOURCE:TARGET:ro`.
pub(crate) fn mounts(reader: &Reader<'_>, name: &str) -> Vec<String> {
    let mut mounts = Vec::new();
    for (text, span) in reader.texts(name) {
        let parts: Vec<&str> = text.split(':').collect();
        let good = match parts[..] {
            [source, target] => !source.is_empty() && target.starts_with('/'),
            [source, target, mode] => {
                !source.is_empty() && target.starts_with('/') && ["ro", "rw"].contains(&mode)
            }
            _ => false,
        };
        match good {
            true => mounts.push(text),
            false => {
                let what = format!(
                    "\"{text}\" is no mount; write it as \"/source:/target\" or \"volume:/target:ro\""
                );
                reader.source.problem(span, &reader.field(name), &what);
            }
        }
    }
    mounts
}

fn lines(reader: &Reader<'_>, shared: &Shared<'_>, ready: &Ready) -> Lines {
    let folder = folder(reader, shared);
    for name in ["start", "stop", "address"] {
        if !reader.has(name) {
            let what =
                "is missing; the command backend takes start, stop and address, and state if it can be asked";
            reader.problem(name, what);
        }
    }
    let line = |name: &str| {
        let text = reader.text(name).unwrap_or_default();
        if reader.has(name) && text.trim().is_empty() {
            reader.problem(name, "is empty; write a shell line, or `true`");
        }
        text
    };
    let address = reader.text("address").unwrap_or_default();
    let port =
        address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if reader.has("address") && !matches!(port, Some(Ok(1..))) {
        reader.problem(
            "address",
            &format!("\"{address}\" is no host with a port; write it as \"nas.lan:8096\""),
        );
    }
    Lines {
        start: line("start"),
        stop: line("stop"),
        state: line("state"),
        ready: ready.line.clone(),
        address,
        env: reader.env("env"),
        folder: Some(folder.to_string_lossy().into_owned()),
    }
}
