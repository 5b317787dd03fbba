//! `forerun.toml`, raw to validated, once: whatever is past this module needs no check.
//!
//! Keys, ranges and defaults stand in one table, `keys`. Everything that is wrong is told at once, a line each, with
//! the line of the file, the field and the mend.

mod cron;
mod global;
mod guard;
mod keys;
#[cfg(feature = "docker")]
mod labels;
mod launch;
mod machine;
mod needs;
mod problems;
mod reader;
mod ready;
mod route;
mod schema;
mod service;
mod specialise;
#[cfg(feature = "docker")]
mod tree;
mod units;
mod words;

#[cfg(feature = "docker")]
pub(crate) use labels::{Found, FromLabels, same_requests, services as from_labels};
#[cfg(feature = "docker")]
pub(crate) use launch::docker_at;
pub(crate) use needs::from_labels as needed_from_labels;
pub(crate) use problems::ConfigError;
pub(crate) use reader::nearest;
pub(crate) use schema::schema;

use forerun_router::RouterLimits;
use forerun_types::{ServiceId, ServiceSpec, SiteSpec, SlaClass, Span, Time};
use jiff::tz::TimeZone;
use problems::Source;
use reader::Reader;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml_edit::Document;

/// The file that is read when none is named.
pub(crate) const FILE: &str = "forerun.toml";

/// What `forerun config init` writes.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

/// Larger files are a mistake: ten thousand services fit well.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A validated configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// In order of the file; a service's id is its place.
    pub(crate) services: Vec<Service>,
    /// The place that all capacity is counted in.
    /// The first is where all runs that names no other.
    pub(crate) sites: Vec<SiteSpec>,
    /// The container engines, one a site, in the same order.
    pub(crate) engines: Vec<EngineConfig>,
    /// By name; `default` is always there.
    pub(crate) classes: BTreeMap<String, SlaClass>,
    pub(crate) router: RouterConfig,
    pub(crate) api: ApiConfig,
    pub(crate) store: StoreConfig,
    pub(crate) learning: LearningConfig,
    pub(crate) prices: Prices,
}

/// A service and the time zone that its hours are in.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) zone: TimeZone,
}

/// A container engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineConfig {
    pub(crate) site: String,
    /// `unix://` or `tcp://`; `None` is what the environment says, or the usual sockets.
    pub(crate) host: Option<String>,
    pub(crate) tls: Option<EngineTls>,
}

/// Files (PEM) for an engine over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineTls {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct RouterConfig {
    pub(crate) listen: SocketAddr,
    /// For proxies that ask first.
    pub(crate) wake_listen: Option<SocketAddr>,
    pub(crate) limits: RouterLimits,
}

#[derive(Clone, Debug)]
pub(crate) struct ApiConfig {
    /// Where it is no loopback address, a token is needed.
    pub(crate) listen: SocketAddr,
    /// On a loopback address too.
    pub(crate) require_token: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) folder: PathBuf,
    pub(crate) flush_interval: Span,
    pub(crate) journal_bytes_max: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct LearningConfig {
    pub(crate) memory_bytes_max: u64,
}

/// In one currency, whichever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices {
    /// 10^9 bytes for an hour.
    pub(crate) memory_gb_hour: f64,
    /// One core for an hour.
    pub(crate) cpu_hour: f64,
}

impl Service {
    /// The name of its zone, as `Europe/Berlin`.
    pub(crate) fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// Seconds that local time is ahead of UTC at an instant.
    pub(crate) fn offset_seconds(&self, at: Time) -> i32 {
        let seconds = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_second(seconds) {
            Ok(instant) => self.zone.to_offset(instant).seconds(),
            Err(_) => 0,
        }
    }
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// Everything that is wrong with it, one line each.
    pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
        let name = path.display().to_string();
        let text = read_file(path).map_err(|what| ConfigError::one(format!("{name}: {what}")))?;
        let base = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let base = base.canonicalize().map_err(|e| ConfigError::one(format!("{name}: {e}")))?;
        Config::parse(&name, &text, &base)
    }

    /// The file that was named; without a name, the usual one if it is there, else what holds without any: a machine
    /// whose containers say by their labels what is to be known needs no file.
    ///
    /// # Errors
    /// Everything that is wrong with it, one line each.
    pub(crate) fn load_or_default(named: Option<&Path>) -> Result<Config, ConfigError> {
        match named {
            Some(path) => Config::load(path),
            None if Path::new(FILE).exists() => Config::load(Path::new(FILE)),
            None => Config::parse(FILE, "", Path::new("/")),
        }
    }

    /// Validates the text of a file called `name`; relative paths in it start at `base`.
    ///
    /// # Errors
    /// Everything that is wrong with it, one line each.
    pub(crate) fn parse(name: &str, text: &str, base: &Path) -> Result<Config, ConfigError> {
        let source = Source::new(name, text);
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let what = error.message().trim().replace('\n', ", ");
                source.problem(error.span(), "", &lower_first(&what));
                source.finish()?;
                return Err(ConfigError::one(format!("{name}: {what}")));
            }
        };
        let config = read(&source, &document, base);
        source.finish()?;
        Ok(config)
    }
}

/// An amount of time as the configuration has it: `90s`, `1h30m`.
///
/// # Errors
/// What is wrong with it, and the mend.
pub(crate) fn duration_of(text: &str) -> Result<Span, String> {
    units::duration(units::Scalar::Text(text))
}

fn read_file(path: &Path) -> Result<String, String> {
    let known = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            "no such file; write one with `forerun config init`, or name yours with -c".to_owned()
        }
        _ => lower_first(&e.to_string()),
    })?;
    if known.is_dir() {
        return Err("is a folder; name the file in it".to_owned());
    }
    if known.len() > FILE_BYTES_MAX {
        return Err(format!("is larger than {} MiB; is it the right file?", FILE_BYTES_MAX >> 20));
    }
    let bytes = std::fs::read(path).map_err(|e| lower_first(&e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        format!("line {line} is not UTF-8; save it as UTF-8")
    })
}

fn read(source: &Source<'_>, document: &Document<&str>, base: &Path) -> Config {
    let root = Reader::new(source, "", keys::ROOT, Some(document.as_table()), None);
    let router = global::router(&root);
    let api = global::api(&root, &router);
    let (sites, engines) = global::sites(&root, base);
    let classes = global::classes(&root);
    let shared = service::Shared { base, classes: &classes, sites: &sites, own: None };
    let mut taken = route::Taken::listening(&[("router.listen", router.listen), ("api.listen", api.listen)]);
    let read: Vec<service::Read<'_>> = (0u32..)
        .zip(root.named("service"))
        .map(|(id, entry)| service::read(&root, &entry, ServiceId(id), &shared, &mut taken))
        .collect();
    needs::check(&read);
    let services: Vec<Service> = read.into_iter().map(|read| read.service).collect();
    sites.iter().enumerate().for_each(|(at, site)| min_fits(&root, site, at == 0, &services));
    Config {
        services,
        store: global::store(&root, base),
        learning: global::learning(&root),
        prices: global::prices(&root),
        sites,
        engines,
        classes,
        router,
        api,
    }
}

fn min_fits(root: &Reader<'_>, site: &SiteSpec, first: bool, services: &[Service]) {
    let here = |s: &&Service| s.spec.launch.site().map_or(first, |name| name == site.name);
    let always_up = services.iter().filter(here).fold(0u64, |sum, s| {
        sum.saturating_add(s.spec.resources.memory_bytes.saturating_mul(u64::from(s.spec.min)))
    });
    if site.capacity.memory_bytes > 0 && always_up > site.capacity.memory_bytes {
        let what = format!(
            "the instances that `min` keeps up take {always_up} bytes of memory, site {} has {}; lower one",
            site.name, site.capacity.memory_bytes
        );
        root.problem("service", &what);
    }
}

/// Messages of other libraries, in our case.
pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // Not `HTTP` or `TOML`.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
