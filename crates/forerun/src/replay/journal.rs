//! `forerun replay --journal`: a live run once more, from what it wrote down.

use crate::failure::Failure;
use forerun_engine::journal::{ReplayReport, replay};
use std::io::Write;
use std::path::Path;

/// Replays a segment, or every segment of a folder, through the core of this build.
///
/// # Errors
/// It cannot be read, or an action is another than the recorded one.
pub(crate) fn run(path: &Path, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let report = replay(path).map_err(|e| Failure::Running(e.to_string()))?;
    for lost in &report.lost {
        // A closed stderr is no reason not to answer.
        let _ = writeln!(std::io::stderr(), "forerun: not replayed: {lost}");
    }
    if json {
        let (step, at, event) = match report.first_mismatch {
            Some((step, at, event)) => (Some(step), Some(at.as_secs_f64()), Some(event)),
            None => (None, None, None),
        };
        let document = serde_json::json!({
            "segments": report.segments,
            "steps": report.steps,
            "actions": report.actions,
            "mismatches": report.mismatches,
            "first_mismatch": { "step": step, "at": at, "event": event },
            "torn_bytes": report.torn_bytes,
            "lost_segments": report.lost,
        });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{}", sentence(&report))?;
    }
    match report.first_mismatch {
        None => Ok(()),
        Some((step, at, event)) => Err(Failure::Running(format!(
            "{}: {} of {} steps acted otherwise than recorded, the first at step {step} ({event}, {:.6}); was it \
             written by another version?",
            path.display(),
            report.mismatches,
            report.steps,
            at.as_secs_f64()
        ))),
    }
}

fn sentence(report: &ReplayReport) -> String {
    let torn = match report.torn_bytes {
        0 => String::new(),
        bytes => format!("; {bytes} bytes after the last whole record are torn off"),
    };
    format!(
        "{} segments, {} steps, {} actions, {} of other actions than recorded{torn}",
        report.segments, report.steps, report.actions, report.mismatches
    )
}
