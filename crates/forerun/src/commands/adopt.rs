//! `forerun adopt`: the labels that make containers Forerun's. It prints them and changes nothing.

use super::sablier::{self, Labels, Subject};
use crate::cli::AdoptArgs;
use crate::config::{Config, lower_first};
use crate::engines::{ask, settings_of};
use crate::failure::Failure;
use forerun_backends::docker::{ENABLE, Labelled};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use yaml_rust2::{Yaml, YamlLoader};

/// Larger compose files are a mistake.
const FILE_BYTES_MAX: u64 = 4 << 20;
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// # Errors
/// No engine answers, the file cannot be read or is no compose file.
pub(crate) fn run(args: &AdoptArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let labels = match &args.from_sablier {
        Some(Some(file)) => sablier::labels(&of_file(file)?, zone().as_deref()),
        Some(None) => sablier::labels(&subjects(&containers(args)?), zone().as_deref()),
        None => containers(args)?.iter().filter_map(plain).collect(),
    };
    if args.json {
        let text = serde_json::to_string_pretty(&labels).map_err(|e| Failure::Running(e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    if labels.is_empty() {
        let what = match args.from_sablier {
            Some(_) => "nothing carries sablier.enable=true",
            None => "every container here has its labels, or there is none",
        };
        return Ok(writeln!(out, "{what}")?);
    }
    Ok(out.write_all(people(&labels).as_bytes())?)
}

/// As compose takes it.
fn people(labels: &[Labels]) -> String {
    let mut text = String::new();
    for one in labels {
        text += &format!("{}# {}\nlabels:\n", if text.is_empty() { "" } else { "\n" }, one.name);
        for (label, value) in &one.labels {
            // JSON's strings are YAML's too.
            text += &format!("  {label}: {}\n", serde_json::Value::from(value.as_str()));
        }
        text.extend(one.not_taken_over.iter().map(|what| format!("  # not taken over: {what}\n")));
    }
    text
}

fn containers(args: &AdoptArgs) -> Result<Vec<Labelled>, Failure> {
    let config = Config::load_or_default(args.file.config.as_deref())?;
    let mut containers = Vec::new();
    for (settings, _, _) in settings_of(&config) {
        match ask(&settings, "") {
            Ok(engine) => containers.extend(engine.containers),
            Err(Some(error)) => return Err(Failure::Running(error.to_string())),
            Err(None) => {
                return Err(Failure::Running(format!("the engine of {} does not answer", settings.name)));
            }
        }
    }
    Ok(containers)
}

/// For a container without labels of ours: what it needs at the least.
fn plain(container: &Labelled) -> Option<Labels> {
    let theirs = |label: &str| container.labels.get(label).map(String::as_str);
    if theirs(ENABLE).is_some() || theirs("forerun.made").is_some() {
        return None;
    }
    let mut labels = vec![(ENABLE.to_owned(), "true".to_owned())];
    if let [first, _, ..] = container.ports[..] {
        labels.push(("forerun.port".to_owned(), first.to_string()));
    }
    Some(Labels { name: container.name.clone(), labels, not_taken_over: Vec::new() })
}

fn subjects(containers: &[Labelled]) -> Vec<Subject> {
    let subject = |container: &Labelled| Subject {
        name: container.name.clone(),
        also: container.labels.get(COMPOSE_SERVICE).cloned(),
        service: container.labels.get(COMPOSE_SERVICE).unwrap_or(&container.name).clone(),
        labels: container.labels.clone(),
    };
    containers.iter().map(subject).collect()
}

/// The services of a compose file.
fn of_file(path: &Path) -> Result<Vec<Subject>, Failure> {
    let shown = path.display();
    let failed = |what: String| Failure::Running(format!("{shown}: {what}"));
    let size = std::fs::metadata(path).map_err(|e| failed(lower_first(&e.to_string())))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(format!("is larger than {} MiB; is it the right file?", FILE_BYTES_MAX >> 20)));
    }
    let text = std::fs::read_to_string(path).map_err(|e| failed(lower_first(&e.to_string())))?;
    of_compose(&text).map_err(failed)
}

fn of_compose(text: &str) -> Result<Vec<Subject>, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|e| {
        let at = e.marker();
        format!("line {}: {}", at.line(), lower_first(e.info()))
    })?;
    let services = documents.first().map(|document| &document["services"]);
    let Some(services) = services.and_then(Yaml::as_hash) else {
        return Err("has no services; name a compose file".to_owned());
    };
    let mut subjects = Vec::new();
    for (name, service) in services {
        let Some(name) = scalar(name) else { continue };
        let labels = match &service["labels"] {
            Yaml::Hash(map) => {
                map.iter().filter_map(|(k, v)| Some((scalar(k)?, scalar(v).unwrap_or_default()))).collect()
            }
            Yaml::Array(list) => list.iter().filter_map(scalar).map(|line| pair(&line)).collect(),
            Yaml::BadValue | Yaml::Null => BTreeMap::new(),
            _ => return Err(format!("services.{name}.labels: expected a list, or names with texts")),
        };
        subjects.push(Subject {
            also: scalar(&service["container_name"]),
            service: name.clone(),
            name,
            labels,
        });
    }
    Ok(subjects)
}

fn pair(line: &str) -> (String, String) {
    let (label, value) = line.split_once('=').unwrap_or((line, ""));
    (label.to_owned(), value.to_owned())
}

fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(n) => Some(n.to_string()),
        Yaml::Boolean(b) => Some(b.to_string()),
        _ => None,
    }
}

/// Sablier's hours are the local ones.
fn zone() -> Option<String> {
    TimeZone::system().iana_name().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_files_are_read_in_both_spellings() {
        let text = "services:\n  web:\n    container_name: front\n    labels:\n      sablier.enable: true\n      sablier.ready-after: 30s\n\
                    \x20 db:\n    image: pg\n    labels:\n      - sablier.enable=true\n      - odd\n  plain: {image: x}\n";
        let found = of_compose(text).unwrap();
        let names: Vec<&str> = found.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["web", "db", "plain"]);
        assert_eq!(
            (found[0].also.as_deref(), found[0].labels["sablier.enable"].as_str()),
            (Some("front"), "true")
        );
        assert_eq!(
            (found[1].labels["sablier.enable"].as_str(), found[1].labels["odd"].as_str()),
            ("true", "")
        );
        for (text, part) in [
            ("a: [", "line "),
            ("version: 3", "has no services"),
            ("", "has no services"),
            ("services:\n  a:\n    labels: 7", "services.a.labels: expected a list"),
        ] {
            let error = of_compose(text).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn labels_are_printed_as_compose_takes_them() {
        let labels = [Labels {
            name: "web".to_owned(),
            labels: vec![
                (ENABLE.to_owned(), "true".to_owned()),
                ("forerun.group".to_owned(), "a\"b".to_owned()),
            ],
            not_taken_over: vec!["sablier.idle.cpu=0.1: no throttling".to_owned()],
        }];
        let text = people(&labels);
        assert_eq!(
            text,
            "# web\nlabels:\n  forerun.enable: \"true\"\n  forerun.group: \"a\\\"b\"\n  # not taken over: sablier.idle.cpu=0.1: no throttling\n"
        );
    }

    #[test]
    fn what_has_no_labels_is_offered_some() {
        let container = |ports: &[u16], label: Option<&str>| Labelled {
            name: "x".to_owned(),
            ports: ports.to_vec(),
            labels: label.into_iter().map(|l| (l.to_owned(), "true".to_owned())).collect(),
            ..Labelled::default()
        };
        assert_eq!(plain(&container(&[80], None)).unwrap().labels.len(), 1);
        assert_eq!(plain(&container(&[80, 443], None)).unwrap().labels[1].1, "80");
        assert_eq!(plain(&container(&[80], Some(ENABLE))), None);
        assert_eq!(plain(&container(&[80], Some("forerun.made"))), None);
    }
}
