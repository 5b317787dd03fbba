//! Running a journal through the core again.

use super::read::{JournalError, Segment, Tail, segments};
use super::record::actions_hash;
use forerun_core::{AnyPolicy, Core};
use forerun_types::{Action, Time};
use std::path::Path;

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

fn snapshot_of(segment: &Segment) -> Result<Core<AnyPolicy>, JournalError> {
    postcard::from_bytes(segment.snapshot()?).map_err(|e| JournalError::Snapshot {
        path: segment.path.clone(),
        policy: segment.head.policy.clone(),
        why: e.to_string(),
    })
}

fn run(
    segment: &Segment,
    core: &mut Core<AnyPolicy>,
    mut each: impl FnMut(Time, &'static str, &[Action], u64),
) -> Tail {
    let mut actions = Vec::new();
    segment.steps(|now, event, hash| {
        actions.clear();
        core.step(now, &event, &mut actions);
        each(now, event.name(), &actions, hash);
    })
}

/// Replays one segment, or every segment of a folder, and compares the actions of each step with the recorded hash.
pub fn replay(path: &Path) -> Result<ReplayReport, JournalError> {
    let files = if path.is_dir() {
        segments(path)?.into_iter().map(|s| s.1).collect()
    } else {
        vec![path.to_owned()]
    };
    if files.is_empty() {
        return Err(JournalError::Empty { path: path.to_owned() });
    }
    let mut report = ReplayReport::default();
    let mut scratch = Vec::new();
    for file in files {
        let segment = Segment::open(&file)?;
        let mut core = snapshot_of(&segment)?;
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
    Ok(report)
}

/// The core at the end of the newest segment that opens; `None` where there is none. What could not be opened is
/// handed to `lost`.
pub fn restore(folder: &Path, mut lost: impl FnMut(JournalError)) -> Option<Restored> {
    let files = segments(folder).unwrap_or_default();
    let last_segment = files.last()?.0;
    for (_, path) in files.into_iter().rev() {
        let opened = Segment::open(&path).and_then(|s| snapshot_of(&s).map(|core| (s, core)));
        let (segment, mut core) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                lost(error);
                continue;
            }
        };
        let (mut steps, mut last) = (0, Time::default());
        let tail = run(&segment, &mut core, |now, _, _, _| {
            steps += 1;
            last = now;
        });
        let policy = segment.head.policy;
        return Some(Restored { core, policy, last_segment, now: last, steps, torn_bytes: tail.torn_bytes });
    }
    None
}
