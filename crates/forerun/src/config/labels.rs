//! Services from the labels of containers: `forerun.KEY=VALUE` is what `KEY = VALUE` is under `[service.NAME]`.
//!
//! All labelled containers are read together, again whenever one of them changes: what one needs and what it is asked
//! for depends on the others. A container whose labels are wrong is left alone, and the others go on.

use super::launch::Own;
use super::problems::Source;
use super::reader::{Reader, check_name, nearest};
use super::{Config, Service, keys, needs, service, tree};
use forerun_backends::docker::{ENABLE, Labelled};
use forerun_types::{Dependency, DependsUntil, Launch, RouteRule, ServiceId, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// What stands in front of every label of Forerun's.
pub(crate) const PREFIX: &str = "forerun.";
/// Labels that are no keys: those of a person, and those of what Forerun has made.
const NO_KEYS: &[&str] = &["enable", "name", "installation", "service", "instance", "made"];
const PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const COMPOSE_NUMBER: &str = "com.docker.compose.container-number";
const COMPOSE_ONEOFF: &str = "com.docker.compose.oneoff";
const COMPOSE_NEEDS: &str = "com.docker.compose.depends_on";
/// The domain that browsers take for this machine.
const LOCAL_DOMAIN: &str = "localhost";

/// An engine's containers, by the name of its site; empty for the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) site: String,
    pub(crate) containers: Vec<Labelled>,
}

/// What the labels amount to.
#[derive(Clone, Debug, Default)]
pub(crate) struct FromLabels {
    /// In order of name. Their ids are given by whoever runs them.
    pub(crate) services: Vec<Service>,
    /// Containers that are left alone, and why: `container NAME: forerun.KEY: what; the mend`.
    pub(crate) problems: Vec<String>,
    /// What is odd and goes on all the same.
    pub(crate) warnings: Vec<String>,
}

/// A container on its way to a service.
struct Candidate<'a> {
    container: &'a Labelled,
    name: String,
    project: Option<&'a str>,
    service: Service,
    routed: bool,
}

impl Candidate<'_> {
    fn told(&self, what: &str) -> String {
        format!("container {}: {what}", self.container.name)
    }

    fn change(&mut self, change: impl FnOnce(&mut ServiceSpec)) {
        change(Arc::make_mut(&mut self.service.spec));
    }
}

/// Reads all labelled containers. `config` is what else there is: services of the file, classes, capacity, sites.
pub(crate) fn services(config: &Config, found: &[Found]) -> FromLabels {
    let mut out = FromLabels::default();
    let mut candidates = candidates(config, found, &mut out);
    let file: Vec<&ServiceSpec> = config.services.iter().map(|s| &*s.spec).collect();
    resolve_needs(&mut candidates, &file, &mut out);
    drop_circles(&mut candidates, &file, &mut out);
    default_routes(&mut candidates, &file);
    drop_without_port(&mut candidates, &mut out);
    drop_taken_routes(&mut candidates, &file, &mut out);
    // Those that went may have been needed.
    drop_without_needs(&mut candidates, &file, &mut out);
    tell_unmet(&candidates, &file, &mut out);
    out.services = candidates.into_iter().map(|c| c.service).collect();
    out
}

/// One for each container that is enabled, has a name of its own and reads well; in order of name.
fn candidates<'a>(config: &Config, found: &'a [Found], out: &mut FromLabels) -> Vec<Candidate<'a>> {
    let mut containers: Vec<(&str, &Labelled)> =
        found.iter().flat_map(|f| f.containers.iter().map(|c| (f.site.as_str(), c))).collect();
    // The first of several that compose makes of one service speaks for it.
    let number = |c: &Labelled| c.labels.get(COMPOSE_NUMBER).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    containers.sort_by(|a, b| (number(a.1), &a.1.name, a.0).cmp(&(number(b.1), &b.1.name, b.0)));
    let own = |spec: &ServiceSpec| match &spec.launch {
        Launch::Container(container) => container.own.clone(),
        _ => None,
    };
    let in_file: BTreeSet<String> = config.services.iter().filter_map(|s| own(&s.spec)).collect();
    let mut owners: BTreeMap<String, String> =
        config.services.iter().map(|s| (s.spec.name.clone(), "the configuration file".to_owned())).collect();
    let mut candidates = Vec::new();
    for (site, container) in containers {
        // What stands in the file is a person's last word on a container.
        if !is_enabled(container, out) || in_file.contains(&container.name) {
            continue;
        }
        let name = match name_of(container) {
            Ok(name) => name,
            Err(what) => {
                out.problems.push(format!("container {}: {what}", container.name));
                continue;
            }
        };
        if let Some(owner) = owners.get(&name) {
            out.problems.push(format!(
                "container {}: forerun.name: \"{name}\" is {owner}'s already; give this one a name, as forerun.name={name}-2",
                container.name
            ));
            continue;
        }
        match read(config, site, container, &name) {
            Ok(mut service) => {
                out.warnings.extend(only_one(container, &mut service));
                owners.insert(name.clone(), format!("container {}", container.name));
                let project = container.labels.get(PROJECT).map(String::as_str);
                let routed =
                    container.labels.keys().any(|k| k == "forerun.route" || k.starts_with("forerun.route."));
                candidates.push(Candidate { container, name, project, service, routed });
            }
            Err(lines) => out.problems.extend(lines),
        }
    }
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    candidates
}

fn is_enabled(container: &Labelled, out: &mut FromLabels) -> bool {
    let label = |name: &str| container.labels.get(name).map(String::as_str);
    let ours = label("forerun.made") == Some("true");
    let one_off = label(COMPOSE_ONEOFF).is_some_and(|v| v.eq_ignore_ascii_case("true"));
    match label(ENABLE) {
        _ if ours || one_off => false,
        Some("true") => true,
        Some("false") | None => false,
        Some(other) => {
            let what = format!("{ENABLE}: expected true or false, got \"{other}\"");
            out.problems.push(format!("container {}: {what}", container.name));
            false
        }
    }
}

/// `forerun.name`, else `project-service` of compose, else the container's: it never depends on what else is there.
fn name_of(container: &Labelled) -> Result<String, String> {
    if let Some(name) = container.labels.get("forerun.name") {
        return check_name(name).map(|()| name.clone()).map_err(|what| format!("forerun.name: {what}"));
    }
    let name = match (container.labels.get(PROJECT), container.labels.get(COMPOSE_SERVICE)) {
        (Some(project), Some(service)) => format!("{project}-{service}"),
        _ => container.name.clone(),
    };
    // Dots and the like, which engines allow and names of services do not.
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    check_name(&name)
        .map(|()| name)
        .map_err(|what| format!("its name is no service's ({what}); give it one, as forerun.name=web"))
}

fn read(config: &Config, site: &str, container: &Labelled, name: &str) -> Result<Service, Vec<String>> {
    let told_as = format!("container {}", container.name);
    let source = Source::without_lines(&told_as);
    let pairs = container.labels.iter().filter_map(|(label, value)| {
        let key = label.strip_prefix(PREFIX)?;
        (!NO_KEYS.contains(&key)).then_some((key, value.as_str()))
    });
    let (table, wrong) = tree::of(keys::SERVICE, pairs);
    for (key, what) in wrong {
        source.problem(None, &format!("{PREFIX}{key}"), &what);
    }
    let reader = Reader::new(&source, PREFIX.trim_end_matches('.'), keys::SERVICE, Some(&table), None);
    let own = Own {
        container: container.name.clone(),
        image: container.image.clone(),
        networks: container.networks.clone(),
        restart: container.restart.clone(),
        engine: site.to_owned(),
    };
    let shared = service::Shared {
        base: Path::new("/"),
        classes: &config.classes,
        sites: &config.sites,
        own: Some(&own),
    };
    let mut service = service::described(&reader, name, ServiceId(u32::MAX), &shared);
    if service.spec.port.is_none()
        && let [port] = container.ports[..]
    {
        Arc::make_mut(&mut service.spec).port = Some(port);
    }
    drop(reader);
    source.finish().map_err(|error| error.lines)?;
    Ok(service)
}

/// What cannot be cloned has one instance. Where more were asked for, that is said.
fn only_one(container: &Labelled, service: &mut Service) -> Option<String> {
    let why = container.only_one.as_ref()?;
    let spec = Arc::make_mut(&mut service.spec);
    let asked = ["max", "min"].into_iter().find(|key| {
        let label = container.labels.get(&format!("{PREFIX}{key}"));
        label.is_some_and(|value| value != "0" && value != "1")
    });
    (spec.min, spec.max) = (spec.min.min(1), 1);
    asked.map(|key| {
        let container = &container.name;
        format!("container {container}: {PREFIX}{key}: there can be no second one like it: {why}; it is taken as 1")
    })
}

/// Names in labels are those of the same project first. What compose says is taken over where it can be.
fn resolve_needs(candidates: &mut [Candidate<'_>], file: &[&ServiceSpec], out: &mut FromLabels) {
    let compose: BTreeMap<(&str, &str), String> = candidates
        .iter()
        .filter_map(|c| {
            let service = c.container.labels.get(COMPOSE_SERVICE)?;
            Some(((c.project?, service.as_str()), c.name.clone()))
        })
        .collect();
    let known: BTreeSet<String> =
        candidates.iter().map(|c| c.name.clone()).chain(file.iter().map(|s| s.name.clone())).collect();
    for candidate in candidates.iter_mut() {
        let project = candidate.project;
        let in_project = |name: &str| compose.get(&(project?, name)).cloned();
        let mut depends_on: Vec<Dependency> = Vec::new();
        for need in &candidate.service.spec.depends_on {
            let service = in_project(&need.service).unwrap_or_else(|| need.service.clone());
            depends_on.push(Dependency { service, until: need.until });
        }
        for (name, until) in compose_needs(candidate.container) {
            match in_project(name) {
                Some(service) if depends_on.iter().any(|d| d.service == service) => {}
                Some(service) => depends_on.push(Dependency { service, until }),
                None if known.contains(name) => {}
                None => {
                    let what = format!(
                        "depends on \"{name}\", which carries no {ENABLE}=true: forerun neither starts nor keeps that"
                    );
                    out.warnings.push(candidate.told(&what));
                }
            }
        }
        let named = candidate.service.spec.excludes.iter();
        let excludes = named.map(|name| in_project(name).unwrap_or_else(|| name.clone())).collect();
        candidate.change(|spec| {
            spec.depends_on = depends_on;
            spec.excludes = excludes;
        });
    }
}

/// `db:service_healthy:false,cache:service_started:true`: names and what they must have reached. A start that is merely
/// ordered would let both begin at once, which is not what anyone means by compose's word for it.
fn compose_needs(container: &Labelled) -> Vec<(&str, DependsUntil)> {
    let text = container.labels.get(COMPOSE_NEEDS).map_or("", String::as_str);
    let entries = text.split(',').filter(|entry| !entry.is_empty());
    entries
        .map(|entry| {
            let mut parts = entry.split(':');
            let name = parts.next().unwrap_or_default();
            let until = match parts.next() {
                Some("service_completed_successfully") => DependsUntil::Completed,
                _ => DependsUntil::Ready,
            };
            (name, until)
        })
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// Leaves alone what asks for something that is not there, and what needed that, and so on.
fn drop_without_needs(candidates: &mut Vec<Candidate<'_>>, file: &[&ServiceSpec], out: &mut FromLabels) {
    loop {
        let known: BTreeSet<String> =
            candidates.iter().map(|c| c.name.clone()).chain(file.iter().map(|s| s.name.clone())).collect();
        let before = candidates.len();
        candidates.retain(|candidate| {
            let lacking = candidate.service.spec.depends_on.iter().find(|d| !known.contains(&d.service));
            let Some(lacking) = lacking else { return true };
            let name = &lacking.service;
            let mend = nearest(name, known.iter().map(String::as_str)).map_or_else(
                || format!("label its container {ENABLE}=true, or remove it"),
                |near| format!("did you mean \"{near}\"?"),
            );
            out.problems.push(candidate.told(&format!("forerun.depends_on: no service \"{name}\"; {mend}")));
            false
        });
        if candidates.len() == before {
            return;
        }
    }
}

/// What the file needs and nobody describes yet: it is started without that.
fn tell_unmet(candidates: &[Candidate<'_>], file: &[&ServiceSpec], out: &mut FromLabels) {
    let known: BTreeSet<&str> =
        candidates.iter().map(|c| c.name.as_str()).chain(file.iter().map(|s| s.name.as_str())).collect();
    for spec in file {
        for need in spec.depends_on.iter().filter(|need| !known.contains(need.service.as_str())) {
            let (name, need) = (&spec.name, &need.service);
            out.warnings.push(format!(
                "service {name}: depends_on: no container carries labels for a service \"{need}\" yet; {name} is \
                 started without it"
            ));
        }
    }
}

/// A circle may go through the file, which stays as it is.
fn drop_circles(candidates: &mut Vec<Candidate<'_>>, file: &[&ServiceSpec], out: &mut FromLabels) {
    while let Some(circle) =
        needs::circle(candidates.iter().map(|c| &*c.service.spec).chain(file.iter().copied()))
    {
        let Some(at) = candidates.iter().position(|c| circle.contains(&c.name)) else { return };
        let candidate = candidates.remove(at);
        out.problems.push(candidate.told(&format!("forerun.depends_on: {}", needs::told(&circle))));
    }
}

/// Without a word of its own: `NAME.localhost`, but nothing for what has no port or is there for others.
fn default_routes(candidates: &mut [Candidate<'_>], file: &[&ServiceSpec]) {
    let specs = candidates.iter().map(|c| &*c.service.spec).chain(file.iter().copied());
    let needed: BTreeSet<String> =
        specs.flat_map(|spec| spec.depends_on.iter().map(|d| d.service.clone())).collect();
    for candidate in candidates.iter_mut().filter(|c| !c.routed) {
        let host = format!("{}.{LOCAL_DOMAIN}", candidate.name.to_ascii_lowercase());
        let silent = candidate.container.ports.is_empty() && candidate.service.spec.port.is_none();
        let unrouted = silent || needed.contains(&candidate.name);
        candidate.change(|spec| {
            spec.unrouted = unrouted;
            if !unrouted {
                spec.route = RouteRule { hosts: vec![host], paths: Vec::new() };
            }
        });
    }
}

/// Leaves alone what requests are for, and that nobody can say the port of.
fn drop_without_port(candidates: &mut Vec<Candidate<'_>>, out: &mut FromLabels) {
    candidates.retain(|candidate| {
        let spec = &candidate.service.spec;
        if spec.unrouted || spec.port.is_some() {
            return true;
        }
        let ports: Vec<String> = candidate.container.ports.iter().map(u16::to_string).collect();
        let what = match ports.first() {
            None => "forerun.port: it exposes no port; name the one it listens on, as forerun.port=8080"
                .to_owned(),
            Some(first) => format!(
                "forerun.port: it exposes {}; name the one for requests, as forerun.port={first}",
                ports.join(", ")
            ),
        };
        out.problems.push(candidate.told(&what));
        false
    });
}

/// Leaves alone what asks for the very requests that another takes.
fn drop_taken_routes(candidates: &mut Vec<Candidate<'_>>, file: &[&ServiceSpec], out: &mut FromLabels) {
    let mut taken: BTreeMap<(String, String), String> = BTreeMap::new();
    for spec in file.iter().filter(|spec| !spec.unrouted) {
        for pair in pairs(&spec.route) {
            taken.insert(pair, spec.name.clone());
        }
    }
    candidates.retain(|candidate| {
        let spec = &candidate.service.spec;
        if spec.unrouted {
            return true;
        }
        let pairs = pairs(&spec.route);
        if let Some((pair, owner)) = pairs.iter().find_map(|p| Some((p, taken.get(p)?))) {
            let shown = format!("{}{}", pair.0, pair.1);
            let shown = if shown.is_empty() { "every request".to_owned() } else { format!("\"{shown}\"") };
            let what =
                format!("forerun.route: takes {shown}, which {owner} takes already; give each its own");
            out.problems.push(candidate.told(&what));
            return false;
        }
        taken.extend(pairs.into_iter().map(|pair| (pair, spec.name.clone())));
        true
    });
}

/// Whether two services ask for the very same requests somewhere.
pub(crate) fn same_requests(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let of_b = pairs(&b.route);
    !a.unrouted && !b.unrouted && pairs(&a.route).iter().any(|pair| of_b.contains(pair))
}

fn pairs(rule: &RouteRule) -> Vec<(String, String)> {
    let any = vec![String::new()];
    let hosts = if rule.hosts.is_empty() { &any } else { &rule.hosts };
    let paths = if rule.paths.is_empty() { &any } else { &rule.paths };
    hosts.iter().flat_map(|h| paths.iter().map(|p| (h.clone(), p.clone()))).collect()
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
