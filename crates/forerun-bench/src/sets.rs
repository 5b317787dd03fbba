//! Public sets of steps, where they lie beside the checkout with the program that cuts them.

use forerun_trace::{Input, ReadOptions, Steps, read_events};
use std::path::Path;
use std::process::Command;

const SETS: [&str; 7] =
    ["schonlau", "gentd26", "apache@tail", "bms", "fifa", "helpdesk@clock", "bpi_12_w@clock"];

/// Every set with its name; none, and a word about it, where they are not.
pub(crate) fn sets() -> Vec<(&'static str, Steps)> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let (cutter, data) = (shared.join("referee/nextactivity/score.py"), shared.join("data"));
    let work = std::env::temp_dir().join(format!("forerun-bench-sets-{}", std::process::id()));
    if !cutter.is_file() || !data.is_dir() || std::fs::create_dir_all(&work).is_err() {
        eprintln!(
            "SKIPPED: the public sets: there is no ../shared/referee and ../shared/data beside the checkout"
        );
        return Vec::new();
    }
    let read = SETS.into_iter().filter_map(|set| cut(set, &cutter, &data, &work).map(|steps| (set, steps)));
    let sets = read.collect();
    let _ = std::fs::remove_dir_all(&work);
    sets
}

fn cut(set: &str, cutter: &Path, data: &Path, work: &Path) -> Option<Steps> {
    let file = work.join("events.tsv");
    let mut python = Command::new("python3");
    python.arg(cutter).args(["export", "--set", set, "--data"]).arg(data).arg("--out").arg(&file);
    let good = python.output().is_ok_and(|ran| ran.status.success());
    let steps = read_events(&Input::Path(file), &ReadOptions::default(), &mut |_| {});
    if good && let Ok(steps) = steps {
        return Some(steps);
    }
    eprintln!("SKIPPED: {set}: python3 and the referee do not cut it into steps");
    None
}
