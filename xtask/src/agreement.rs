//! Forerun's own scores against the referee's, which shares no code with it: same trace, same decisions, same
//! figures within one percent. The data and the referee live beside the checkout, not in it.

use crate::cargo::{Count, cargo};
use crate::run::{self, root};
use crate::stages::{check, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How far a figure may be from the referee's.
const TOLERANCE: f64 = 0.01;
/// One replay of the largest trace takes seconds; this is for a slow machine under load.
const LIMIT: Duration = Duration::from_secs(300);

/// A trace, how each side is told of it, and which of their figures are the same thing.
struct Trace {
    name: &'static str,
    file: &'static str,
    kind: &'static str,
    replay: &'static [&'static str],
    /// A path in our JSON, and a key of the referee's.
    figures: &'static [(&'static str, &'static str)],
    /// Where the causality test cuts it, in seconds.
    until: u32,
    /// Instances that policies may have which only stop to make room; 0 where there is no such limit.
    capacity: u32,
}

const TRACES: &[Trace] = &[
    Trace {
        name: "azure2019_femux100",
        file: "azure2019_femux100",
        kind: "femux",
        replay: &["--format", "minutes"],
        figures: &[
            ("/cold_starts", "cold"),
            ("/memory_gb_seconds/total", "alloc_gbs"),
            ("/memory_gb_seconds/busy", "used_gbs"),
        ],
        until: 43_200,
        capacity: 0,
    },
    Trace {
        name: "gentd26",
        file: "gentd26/lora_request_trace.csv",
        kind: "gentd26",
        replay: &[
            "--format",
            "csv",
            "--map",
            "at=gmt_create,service=checkpoint_model_version_id,duration_s=exec_time_seconds",
            "--start",
            "10s",
            "--memory",
            "1GB",
        ],
        figures: &[
            ("/requests", "requests"),
            ("/cold_starts", "cold"),
            ("/instances_started", "starts"),
            ("/memory_gb_seconds/total", "alloc_gbs"),
            ("/memory_gb_seconds/busy", "busy_gbs"),
            ("/memory_gb_seconds/starting", "starting_gbs"),
        ],
        until: 604_800,
        capacity: 16,
    },
];

const POLICIES: &[&str] = &[
    "none",
    "keep-alive=10m",
    "hazard",
    "forerun",
    "always-on",
    "histogram",
    "knative",
    "hpa",
    "optimal-keep",
    "optimal-prewarm",
];

/// Those that stop instances only to make room.
const EVICTING: &[&str] = &["lru", "faascache", "belady"];

/// FeMux's objective (0.808 s a cold start, 99.69 GB-seconds a second) that the hazard rule reaches on the 47 apps:
/// Forerun's plan is that rule for one resource, and may not be worse.
const RUM_MAX: f64 = 2_426.0;

pub(crate) fn run() -> Count {
    let shared = root().join("../shared");
    let referee = shared.join("referee/keepalive/score.py");
    if !referee.is_file() {
        return skip("agreement with the referee", "there is no ../shared/referee beside the checkout");
    }
    if !run::quiet(Command::new("python3").arg("--version"), LIMIT).good {
        return skip("agreement with the referee", "there is no python3 to run it");
    }
    let built = run::shown(cargo().args(["build", "--release", "--package", "forerun"]), run::LIMIT);
    let mut count = check("build", if built.good { Ok(()) } else { Err("see above".to_owned()) });
    if !built.good {
        return count;
    }
    let forerun = match crate::process::binary() {
        Ok(path) => path,
        Err(what) => return check("build", Err(what)),
    };
    let work = std::env::temp_dir().join(format!("forerun-agreement-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir_all(&work) {
        count.add(check("work folder", Err(format!("{}: {error}", work.display()))));
        return count;
    }
    for trace in TRACES {
        let data = shared.join("data").join(trace.file);
        if !data.exists() {
            count.add(skip(trace.name, "not in ../shared/data"));
            continue;
        }
        let side = Side { trace, data, forerun: &forerun, referee: &referee, work: &work };
        for policy in POLICIES {
            let agrees = side.agrees(policy, 0);
            count.add(check(&format!("{} {policy} agrees with the referee", trace.name), agrees));
        }
        for policy in EVICTING.iter().filter(|_| trace.capacity > 0) {
            let agrees = side.agrees(policy, trace.capacity);
            count.add(check(&format!("{} {policy} agrees with the referee", trace.name), agrees));
        }
        count.add(check(&format!("{} decisions do not know the future", trace.name), side.is_causal()));
    }
    let _ = std::fs::remove_dir_all(&work);
    count
}

struct Side<'a> {
    trace: &'a Trace,
    data: PathBuf,
    forerun: &'a Path,
    referee: &'a Path,
    work: &'a Path,
}

impl Side<'_> {
    fn replay(&self, policy: &str, decisions: &Path, more: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(self.forerun);
        command.arg("replay").arg(&self.data).args(self.trace.replay).args(["--policy", policy, "--json"]);
        command.arg("--decisions").arg(decisions).args(more);
        let ran = run::quiet(&mut command, LIMIT);
        if !ran.good {
            return Err(ran.trouble.unwrap_or_else(|| "forerun replay failed, see above".to_owned()));
        }
        let printed: Value =
            serde_json::from_str(&ran.text).map_err(|e| format!("replay --json is no JSON: {e}"))?;
        let found = printed["policies"].as_array().and_then(|p| p.first()).cloned();
        found.filter(|p| p["policy"] == policy).ok_or_else(|| format!("replay --json has no policy {policy}"))
    }

    /// `capacity` 0 is no limit, to both.
    fn agrees(&self, policy: &str, capacity: u32) -> Result<(), String> {
        let decisions = self.work.join("decisions.csv");
        let capacity = ["--capacity".to_owned(), capacity.to_string()];
        let ours = self.replay(policy, &decisions, &capacity.each_ref().map(String::as_str))?;
        let mut command = Command::new("python3");
        command.arg(self.referee).arg("--trace").arg(&self.data).args(["--kind", self.trace.kind]);
        command.arg("--decisions").arg(&decisions).args(&capacity);
        let ran = run::quiet(&mut command, LIMIT);
        if !ran.good {
            return Err(ran
                .trouble
                .unwrap_or_else(|| "the referee refuses the decisions, see above".to_owned()));
        }
        let theirs: Value =
            serde_json::from_str(&ran.text).map_err(|e| format!("the referee prints no JSON: {e}"))?;
        for (path, key) in self.trace.figures {
            let our =
                ours.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("we have no {path}"))?;
            let their = theirs[key].as_f64().ok_or_else(|| format!("the referee has no {key}"))?;
            if !near(our, their) {
                return Err(format!("{path} is {our}, the referee's {key} is {their}"));
            }
        }
        match theirs["rum"].as_f64() {
            Some(rum) if policy == "forerun" && rum > RUM_MAX => {
                Err(format!("RUM is {rum}, more than {RUM_MAX}"))
            }
            Some(rum) => {
                println!("{policy}: RUM {rum}");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The same decisions from the trace cut short as from the whole, up to the cut.
    fn is_causal(&self) -> Result<(), String> {
        let (full, cut) = (self.work.join("full.csv"), self.work.join("cut.csv"));
        let until = self.trace.until.to_string();
        self.replay("forerun", &full, &[])?;
        self.replay("forerun", &cut, &["--until", &until])?;
        let mut command = Command::new("python3");
        command.arg(self.referee).arg("--prefix").args([&full, &cut]).args(["--until", &until]);
        let ran = run::quiet(&mut command, LIMIT);
        let printed: Value = serde_json::from_str(&ran.text).unwrap_or_default();
        match printed["decisions"].as_u64() {
            // Nothing compared is nothing shown.
            Some(0) => Err(format!("there are no decisions before {until} s")),
            Some(_) if ran.good => Ok(()),
            _ => Err(ran.trouble.unwrap_or_else(|| ran.text.trim().to_owned())),
        }
    }
}

fn near(ours: f64, theirs: f64) -> bool {
    (ours - theirs).abs() <= TOLERANCE * theirs.abs() || (ours - theirs).abs() < 1e-6
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn one_percent_is_near() {
        for (ours, theirs, expect) in [
            (100.9, 100.0, true),
            (101.1, 100.0, false),
            (0.0, 0.0, true),
            (0.1, 0.0, false),
            (f64::NAN, 1.0, false),
        ] {
            assert_eq!(near(ours, theirs), expect, "{ours} {theirs}");
        }
    }
}
