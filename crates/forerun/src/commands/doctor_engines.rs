//! What `forerun doctor` finds of container engines and of what is labelled there.

use super::doctor::{Finding, Level};
use crate::config::{Config, Found, from_labels};
use crate::engines::{ask, settings_of};
use forerun_backends::docker::{Discovered, ENABLE, EngineError, Labelled};

/// What Sablier goes by.
const SABLIER: &str = "sablier.enable";

fn finding(level: Level, what: &'static str, told: String) -> Finding {
    Finding { level, what, told }
}

pub(crate) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = Vec::new();
    for (settings, site, asked_for) in settings_of(config) {
        match ask(&settings, "") {
            Ok(engine) => {
                findings.push(engine_told(&engine));
                findings.extend(sablier(&engine.containers));
                findings.extend(engine.containers.iter().filter_map(misspelt));
                let containers =
                    engine.containers.into_iter().filter(|c| c.labels.contains_key(ENABLE)).collect();
                found.push(Found { site, containers });
            }
            Err(Some(EngineError::NoSocket { looked })) if !asked_for => {
                let told = format!("none here (looked for {looked}); processes and commands do without");
                findings.push(finding(Level::Ok, "engine", told));
            }
            Err(Some(error)) => findings.push(finding(Level::Fail, "engine", error.to_string())),
            Err(None) => findings.push(finding(
                Level::Fail,
                "engine",
                format!("{} does not answer; start it anew, or look into its log", settings.name),
            )),
        }
    }
    let all = || found.iter().flat_map(|found| &found.containers);
    findings.extend(all().filter(|c| is_ours(c)).flat_map(mistakes));
    let labels = from_labels(config, &found);
    if !labels.services.is_empty() {
        findings.push(finding(
            Level::Ok,
            "labels",
            format!("{} service(s) by labels", labels.services.len()),
        ));
    }
    findings.extend(labels.problems.into_iter().map(|line| finding(Level::Warn, "labels", line)));
    findings.extend(labels.warnings.into_iter().map(|line| finding(Level::Warn, "labels", line)));
    findings
}

fn engine_told(engine: &Discovered) -> Finding {
    let told = format!(
        "{} {} at {}: API {} spoken, {} the lowest that it takes",
        engine.kind, engine.version, engine.host, engine.api, engine.api_min
    );
    finding(Level::Ok, "engine", told)
}

fn is_ours(container: &Labelled) -> bool {
    container.labels.get(ENABLE).is_some_and(|v| v == "true")
        && !container.labels.contains_key("forerun.made")
}

/// Labels that have no say, since the one that counts is not there.
fn misspelt(container: &Labelled) -> Option<Finding> {
    if container.labels.contains_key(ENABLE) {
        return None;
    }
    let label = container.labels.keys().find(|label| label.starts_with("forerun."))?;
    let told =
        format!("container {}: {label} says nothing without {ENABLE}; add {ENABLE}=true", container.name);
    Some(finding(Level::Warn, "labels", told))
}

/// What reads well, and will not do what its owner expects.
fn mistakes(container: &Labelled) -> Vec<Finding> {
    let mut lines = Vec::new();
    let name = &container.name;
    let says = |label: &str| container.labels.keys().any(|key| key.starts_with(label));
    if container.networks.iter().all(|network| network == "none") {
        lines.push(format!("container {name}: it is in no network, and cannot be reached; give it one"));
    }
    if container.ports.is_empty() && !says("forerun.port") && !says("forerun.depends_on") {
        lines.push(format!(
            "container {name}: it exposes no port, and gets no request; name the one it listens on, as forerun.port=8080"
        ));
    }
    if container.restart == "always" {
        lines.push(format!(
            "container {name}: restart: always starts it whenever the engine starts; with unless-stopped it sleeps on"
        ));
    }
    lines.into_iter().map(|line| finding(Level::Warn, "containers", line)).collect()
}

/// Two that start and stop the same containers work against each other.
fn sablier(containers: &[Labelled]) -> Option<Finding> {
    let is_theirs = |c: &&Labelled| c.labels.get(SABLIER).is_some_and(|v| v == "true");
    let names = |c: &Labelled| c.name.clone();
    let theirs: Vec<String> = containers.iter().filter(is_theirs).map(names).collect();
    let both: Vec<String> = containers.iter().filter(is_theirs).filter(|c| is_ours(c)).map(names).collect();
    match (theirs.is_empty(), both.is_empty()) {
        (true, _) => None,
        (false, true) => Some(finding(
            Level::Ok,
            "sablier",
            format!("has {}; `forerun adopt --from-sablier` prints our labels for them", theirs.join(", ")),
        )),
        (false, false) => Some(finding(
            Level::Warn,
            "sablier",
            format!(
                "labelled for sablier and for forerun: {}; remove {SABLIER} there, or stop sablier",
                both.join(", ")
            ),
        )),
    }
}
