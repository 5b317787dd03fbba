//! Running a journal through the core again.

use super::read::{JournalError, Segment, Tail, files, segments};
use super::record::actions_hash;
use forerun_core::{AnyPolicy, Core};
use forerun_types::{Action, Time};
use std::path::Path;

/// What is learned from anew at most: a minute or so of work.
const RELEARN_BYTES_MAX: u64 = 256 << 20;

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    pub segments: u64,
    pub steps: u64,
    pub actions: u64,
    /// Steps whose actions were not the recorded ones.
    pub mismatches: u64,
    /// The first of them: its number, instant and event.
    pub first_mismatch: Option<(u64, Time, &'static str)>,
    pub torn_bytes: u64,
    /// Segments of a folder that could not be used, and why.
    pub lost: Vec<String>,
}

/// A core as it was when the journal ended.
#[derive(Debug)]
pub struct Restored {
    pub core: Core<AnyPolicy>,
    pub policy: String,
    pub last_segment: u64,
    pub now: Time,
    pub steps: u64,
    pub torn_bytes: u64,
}

fn run(
    segment: &Segment,
    core: &mut Core<AnyPolicy>,
    mut each: impl FnMut(Time, &'static str, &[Action], u64),
) -> Tail {
    let mut actions = Vec::new();
    segment.steps(|step| {
        actions.clear();
        core.step(step.now, &step.event, &mut actions);
        each(step.now, step.event.name(), &actions, step.actions_hash);
    })
}

/// Replays one segment, or every segment of a folder that opens, and compares the actions of each step with the
/// recorded hash.
///
/// # Errors
/// The segment does not open, or none of the folder does.
pub fn replay(path: &Path) -> Result<ReplayReport, JournalError> {
    let files = files(path)?;
    let mut report = ReplayReport::default();
    let mut scratch = Vec::new();
    for file in &files {
        let opened = Segment::open(file).and_then(|segment| Ok((segment.core()?, segment)));
        let (mut core, segment) = match opened {
            Ok(opened) => opened,
            Err(error) if file == path => return Err(error),
            Err(error) => {
                report.lost.push(error.to_string());
                continue;
            }
        };
        let tail = run(&segment, &mut core, |now, name, actions, recorded| {
            report.steps += 1;
            report.actions += actions.len() as u64;
            if actions_hash(actions, &mut scratch) != recorded {
                report.mismatches += 1;
                report.first_mismatch.get_or_insert((report.steps, now, name));
            }
        });
        report.segments += 1;
        report.torn_bytes += tail.torn_bytes;
    }
    match report.lost.last() {
        Some(newest) if report.segments == 0 => Err(JournalError::NoneWhole {
            path: path.to_owned(),
            count: report.lost.len(),
            newest: newest.clone(),
        }),
        _ => Ok(report),
    }
}

/// The core at the end of the newest segment that opens; `None` where there is none. What could not be opened is
/// handed to `lost`.
pub fn restore(folder: &Path, mut lost: impl FnMut(JournalError)) -> Option<Restored> {
    let files = segments(folder).unwrap_or_default();
    let last_segment = files.last()?.0;
    for (_, path) in files.into_iter().rev() {
        let opened = Segment::open(&path).and_then(|segment| Ok((segment.core()?, segment)));
        let (mut core, segment) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                lost(error);
                continue;
            }
        };
        let (mut steps, mut last) = (0, segment.scene.as_ref().map_or(Time::default(), |s| s.at));
        let tail = run(&segment, &mut core, |now, _, _, _| {
            steps += 1;
            last = now;
        });
        let policy = segment.head.policy;
        return Some(Restored { core, policy, last_segment, now: last, steps, torn_bytes: tail.torn_bytes });
    }
    None
}

/// Runs the steps of the newest segments, at most 256 MiB of them, through a new core: for a journal whose snapshots
/// are those of another program, since events are the truth. `None` where there is no step.
pub fn relearn(folder: &Path, fresh: Core<AnyPolicy>) -> Option<Restored> {
    let mut files = segments(folder).unwrap_or_default();
    let mut bytes = 0;
    let kept = files.iter().rev().take_while(|(_, path)| {
        bytes += std::fs::metadata(path).map_or(0, |m| m.len());
        bytes <= RELEARN_BYTES_MAX
    });
    let kept = kept.count();
    let mut core = fresh;
    let (mut policy, mut now) = (String::new(), Time::default());
    let (mut steps, mut torn_bytes) = (0, 0);
    let last_segment = files.last()?.0;
    for (_, path) in files.split_off(files.len() - kept) {
        let Ok(segment) = Segment::open(&path) else { continue };
        let tail = run(&segment, &mut core, |at, _, _, _| {
            now = now.max(at);
            steps += 1;
        });
        torn_bytes += tail.torn_bytes;
        policy = segment.head.policy;
    }
    (steps > 0).then_some(Restored { core, policy, last_segment, now, steps, torn_bytes })
}
