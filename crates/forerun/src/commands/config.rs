//! `forerun config`.

use crate::cli::{ConfigCommand, ConfigFile};
use crate::config::{Config, EXAMPLE, FILE, Service, lower_first, needed_from_labels, schema};
use crate::failure::Failure;
use crate::terminal::{self, bytes};
use forerun_types::{Span, Time};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

pub(crate) fn run(command: &ConfigCommand, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        ConfigCommand::Init { file } => init(file, out),
        ConfigCommand::Check(file) => check(file, out),
        ConfigCommand::Schema => {
            let text =
                serde_json::to_string_pretty(&schema()).map_err(|e| Failure::Running(e.to_string()))?;
            Ok(writeln!(out, "{text}")?)
        }
    }
}

fn init(file: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    if file == Path::new("-") {
        return Ok(out.write_all(EXAMPLE.as_bytes())?);
    }
    let shown = file.display();
    // One step, so that a file which appears at this moment is not lost either.
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    let written = opened.and_then(|mut opened| opened.write_all(EXAMPLE.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Running(format!("{shown} is there already; move it away, or name another file"))
        }
        _ => Failure::Running(format!("cannot write {shown}: {}", lower_first(&error.to_string()))),
    })?;
    Ok(writeln!(out, "wrote {shown}; edit it, then: forerun config check -c {shown}")?)
}

fn check(file: &ConfigFile, out: &mut dyn Write) -> Result<(), Failure> {
    let path = file.config.as_deref().unwrap_or(Path::new(FILE));
    let config = Config::load(path)?;
    Ok(out.write_all(summary(&path.display().to_string(), &config).as_bytes())?)
}

/// What was understood, defaults included: a configuration can be right and yet not what was meant.
fn summary(name: &str, config: &Config) -> String {
    let (router, store) = (&config.router, &config.store);
    let mut text = format!("{name}: good\n\n");
    text += &format!("router    {}, {} connections at most\n", router.listen, router.limits.connections_max);
    text += &format!("api       {}\n", config.api.listen);
    text += &format!(
        "store     {}, journal of {}, flushed after {}\n",
        store.folder.display(),
        bytes(store.journal_bytes_max),
        store.flush_interval
    );
    text += &format!("learning  {}\n", bytes(config.learning.memory_bytes_max));
    text += &format!(
        "prices    {} for a GB of memory for an hour, {} for a core\n",
        config.prices.memory_gb_hour, config.prices.cpu_hour
    );
    for site in &config.sites {
        let memory = match site.capacity.memory_bytes {
            0 => "memory without limit".to_owned(),
            limit => format!("{} of memory", bytes(limit)),
        };
        text += &format!("site      {}, {memory}\n", site.name);
    }
    for engine in config.engines.iter().filter(|engine| engine.host.is_some()) {
        let host = engine.host.as_deref().unwrap_or_default();
        let tls = if engine.tls.is_some() { ", tls" } else { "" };
        text += &format!("engine    {}, {host}{tls}\n", engine.site);
    }
    let classes: Vec<String> =
        config.classes.values().map(|c| format!("{} ({}, {})", c.name, c.priority, c.latency)).collect();
    text += &format!("sla       {}\n\n", classes.join(", "));
    if config.services.is_empty() {
        return text + "no services here: only containers that carry forerun.enable=true\n";
    }
    let mut table = terminal::table([
        "SERVICE", "BACKEND", "ROUTE", "MEMORY", "MIN", "MAX", "SLA", "MODE", "ZONE", "WINDOWS",
    ]);
    for service in &config.services {
        table.add_row(row(service));
    }
    text += &terminal::lines(&table);
    for (service, need) in needed_from_labels(&config.services) {
        text += &format!(
            "note: {service} depends on {need}, which is not in this file: a container's labels must describe it\n"
        );
    }
    text
}

fn row(service: &Service) -> Vec<String> {
    let spec = &service.spec;
    let any = |list: &[String]| if list.is_empty() { "*".to_owned() } else { list.join(",") };
    vec![
        spec.name.clone(),
        spec.backend.clone(),
        match spec.unrouted {
            true => "none".to_owned(),
            false => format!("{} {}", any(&spec.route.hosts), any(&spec.route.paths)),
        },
        bytes(spec.resources.memory_bytes),
        spec.min.to_string(),
        spec.max.to_string(),
        spec.sla.name.clone(),
        format!("{:?}", spec.mode).to_lowercase(),
        zone(service),
        spec.schedules.len().to_string(),
    ]
}

/// `Europe/Berlin +01:00`: what local time is now, so that a wrong zone is seen.
fn zone(service: &Service) -> String {
    let now =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(Time(0), |d| Time(Span::from(d).0));
    let offset = service.offset_seconds(now);
    let minutes = offset.unsigned_abs() / 60;
    let sign = if offset < 0 { '-' } else { '+' };
    format!("{} {sign}{:02}:{:02}", service.zone_name(), minutes / 60, minutes % 60)
}
