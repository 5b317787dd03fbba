//! What a service needs beside itself, and whether all services together can have it.

use super::Service;
use super::keys::DEPENDS;
use super::reader::{Element, Reader, check_name, nearest};
use super::service::Read;
use forerun_types::{Dependency, DependsUntil, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn depends_on(reader: &Reader<'_>) -> Vec<Dependency> {
    let mut needs: Vec<Dependency> = Vec::new();
    for element in reader.each("depends_on", DEPENDS) {
        let (name, until) = match &element {
            Element::Text(text, _) => match text.split_once(':') {
                Some((name, word)) => (Some(name.to_owned()), until(word)),
                None => (Some(text.clone()), Ok(DependsUntil::Ready)),
            },
            Element::Table(inner) => {
                if !inner.has("service") {
                    inner.problem("service", "is missing; write { service = \"db\", until = \"ready\" }");
                }
                (inner.text("service"), inner.choice("until").map_or(Ok(DependsUntil::Ready), until))
            }
        };
        let span = match &element {
            Element::Text(_, span) => span.clone(),
            Element::Table(inner) => inner.span(),
        };
        let Some(name) = name else { continue };
        match (check_name(&name), until) {
            (Err(what), _) | (_, Err(what)) => {
                reader.source.problem(span, &reader.field("depends_on"), &format!("\"{name}\": {what}"));
            }
            (Ok(()), Ok(_)) if needs.iter().any(|need| need.service == name) => {
                let what = format!("\"{name}\" is named twice; remove one");
                reader.source.problem(span, &reader.field("depends_on"), &what);
            }
            (Ok(()), Ok(until)) => needs.push(Dependency { service: name, until }),
        }
    }
    needs
}

fn until(word: &str) -> Result<DependsUntil, String> {
    match word {
        "started" => Ok(DependsUntil::Started),
        "ready" => Ok(DependsUntil::Ready),
        "completed" => Ok(DependsUntil::Completed),
        _ => Err(format!("\"{word}\" is not known; it takes started, ready, completed")),
    }
}

pub(crate) fn excludes(reader: &Reader<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for (name, span) in reader.texts("excludes") {
        match check_name(&name) {
            Ok(()) => names.push(name),
            Err(what) => {
                reader.source.problem(span, &reader.field("excludes"), &format!("\"{name}\": {what}"))
            }
        }
    }
    names
}

/// Notes names that nothing has, and services that wait for each other.
pub(crate) fn check(services: &[Read<'_>]) {
    let names: BTreeSet<&str> = services.iter().map(|s| s.service.spec.name.as_str()).collect();
    let groups: BTreeSet<&str> = services.iter().filter_map(|s| s.service.spec.group.as_deref()).collect();
    for Read { service, reader } in services {
        for need in unmet(&service.spec, &names) {
            // Any other name may be that of a service which a container's labels describe.
            if let Some(meant) = names.iter().find(|name| is_slip(need, name)) {
                reader.problem("depends_on", &format!("no service \"{need}\"; did you mean \"{meant}\"?"));
            }
        }
        for name in &service.spec.excludes {
            if !names.contains(name.as_str()) && !groups.contains(name.as_str()) {
                let known = names.union(&groups).copied().collect();
                reader.problem("excludes", &unknown("service or group", name, &known));
            }
        }
    }
    let specs = services.iter().map(|s| &*s.service.spec);
    if let Some(circle) = circle(specs)
        && let Some(first) = services.iter().find(|s| s.service.spec.name == circle[0])
    {
        first.reader.problem("depends_on", &told(&circle));
    }
}

/// One letter too many, too few, wrong or in the wrong place. Names that differ in a number are names of their own.
fn is_slip(name: &str, meant: &str) -> bool {
    let letters = |name: &str| name.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    strsim::damerau_levenshtein(name, meant) == 1 && letters(name) != letters(meant)
}

fn unmet<'s>(spec: &'s ServiceSpec, names: &BTreeSet<&str>) -> impl Iterator<Item = &'s str> {
    let needs = spec.depends_on.iter().map(|need| need.service.as_str());
    needs.filter(|need| !names.contains(need)).collect::<Vec<_>>().into_iter()
}

/// What the services of a file need and is not in it: labels of containers must describe it. Each service with the name.
pub(crate) fn from_labels(services: &[Service]) -> Vec<(String, String)> {
    let names: BTreeSet<&str> = services.iter().map(|s| s.spec.name.as_str()).collect();
    let of = |spec: &ServiceSpec| -> Vec<(String, String)> {
        unmet(spec, &names).map(|need| (spec.name.clone(), need.to_owned())).collect()
    };
    services.iter().flat_map(|s| of(&s.spec)).collect()
}

fn unknown(what: &str, name: &str, known: &BTreeSet<&str>) -> String {
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("no {what} \"{name}\"; did you mean \"{near}\"?"),
        None => format!("no {what} \"{name}\"; add [service.{name}], or remove it"),
    }
}

/// `web waits for itself: web > api > web; remove one of these`.
pub(crate) fn told(circle: &[String]) -> String {
    let first = circle.first().map_or("", String::as_str);
    format!("{first} waits for itself: {} > {first}; remove one of these", circle.join(" > "))
}

/// Services that wait for each other, in order; it starts with the one that comes first among `services`.
pub(crate) fn circle<'s>(services: impl Iterator<Item = &'s ServiceSpec>) -> Option<Vec<String>> {
    let services: Vec<&ServiceSpec> = services.collect();
    let at: BTreeMap<&str, usize> = services.iter().enumerate().map(|(n, s)| (s.name.as_str(), n)).collect();
    let needs = |n: usize| services[n].depends_on.iter().filter_map(|d| at.get(d.service.as_str()).copied());
    // Without recursion: a chain may be as long as the file.
    let mut done = vec![false; services.len()];
    for start in 0..services.len() {
        let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
        if !done[start] {
            path.push((start, needs(start).collect()));
        }
        while let Some((here, left)) = path.last_mut() {
            match left.pop() {
                Some(next) if done[next] => {}
                Some(next) => {
                    if let Some(from) = path.iter().position(|(n, _)| *n == next) {
                        let mut ring: Vec<usize> = path[from..].iter().map(|(n, _)| *n).collect();
                        let first = ring.iter().enumerate().min_by_key(|(_, n)| **n).map_or(0, |(i, _)| i);
                        ring.rotate_left(first);
                        return Some(ring.into_iter().map(|n| services[n].name.clone()).collect());
                    }
                    path.push((next, needs(next).collect()));
                }
                None => {
                    done[*here] = true;
                    path.pop();
                }
            }
        }
    }
    None
}
