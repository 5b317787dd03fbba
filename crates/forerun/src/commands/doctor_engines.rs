//! What `forerun doctor` finds of container engines and of what is labelled there.

use super::doctor::{Finding, Level};
use crate::config::{Config, Found, from_labels};
use crate::engines::{ask, settings_of};
use forerun_backends::docker::{Discovered, ENABLE, EngineError};

/// What Sablier goes by.
const SABLIER: &str = "sablier.enable";

fn finding(level: Level, what: &'static str, told: String) -> Finding {
    Finding { level, what, told }
}

pub(crate) fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = Vec::new();
    for (settings, site, asked_for) in settings_of(config) {
        match ask(&settings, ENABLE) {
            Ok(engine) => {
                findings.push(engine_told(&engine));
                if let Ok(theirs) = ask(&settings, SABLIER)
                    && !theirs.containers.is_empty()
                {
                    findings.push(sablier(&theirs));
                }
                found.push(Found { site, containers: engine.containers });
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

/// Two that start and stop the same containers work against each other.
fn sablier(theirs: &Discovered) -> Finding {
    let names: Vec<&str> = theirs.containers.iter().map(|c| c.name.as_str()).collect();
    let both: Vec<&str> = theirs
        .containers
        .iter()
        .filter(|c| c.labels.get(ENABLE).is_some_and(|v| v == "true"))
        .map(|c| c.name.as_str())
        .collect();
    match both.is_empty() {
        true => finding(
            Level::Ok,
            "sablier",
            format!("has {}; `forerun adopt --from-sablier` prints our labels for them", names.join(", ")),
        ),
        false => finding(
            Level::Warn,
            "sablier",
            format!(
                "{} are sablier's and forerun's; remove {SABLIER} from them, or stop sablier",
                both.join(", ")
            ),
        ),
    }
}
