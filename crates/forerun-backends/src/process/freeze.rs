//! Pausing: by the control group's freezer where there is one, which its processes cannot notice; else by signals.

use super::cgroup::Group;
use super::procfs::{self, Session, Watched};
use super::spawn::Process;
use rustix::process::{Pid, Signal, kill_process_group};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// A process in the middle of a slow system call stands still only when that is over; beyond this it is let go again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks whether all stand still.
const PAUSE: Duration = Duration::from_micros(500);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Freezes an instance and waits until all its processes stand still.
///
/// # Errors
/// Why it was not frozen; it runs on then.
pub(super) fn freeze(watched: &Watched) -> Result<(), String> {
    let frozen = match freezer(watched) {
        Some(group) => {
            let asked =
                group.freeze().map_err(|error| format!("its control group cannot be frozen: {error}"));
            asked.map(|()| wait(|| group.is_frozen()))
        }
        None => Ok(wait(|| stop_all(watched))),
    };
    if frozen == Ok(true) {
        return Ok(());
    }
    let _ = thaw(watched);
    frozen.and(Err(format!("not all of its processes stood still within {PATIENCE:?}")))
}

/// Lets an instance run on.
///
/// # Errors
/// What the system said.
pub(super) fn thaw(watched: &Watched) -> Result<(), String> {
    if let Some(group) = freezer(watched) {
        return group.thaw().map_err(|error| format!("its control group cannot be thawed: {error}"));
    }
    if let Some(group) = Pid::from_raw(watched.session) {
        let _ = kill_process_group(group, Signal::CONT);
    }
    for member in found(watched).members {
        procfs::signal_member(&member, Signal::CONT);
    }
    Ok(())
}

/// At once, on the way to an end: what else stands still is woken when it is swept.
pub(super) fn wake(process: &Process) {
    process.signal(Signal::CONT);
    if let Some(group) = &process.group {
        // Thawing what is not frozen changes nothing.
        let _ = group.thaw();
    }
}

fn freezer(watched: &Watched) -> Option<&Arc<Group>> {
    watched.group.as_ref().filter(|group| group.can_freeze())
}

fn wait(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    while !done() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    true
}

/// Stops those that run, and says whether none did.
fn stop_all(watched: &Watched) -> bool {
    let running: Vec<_> = found(watched).members.into_iter().filter(|member| !member.stopped).collect();
    running.iter().for_each(|member| procfs::signal_member(member, Signal::STOP));
    running.is_empty()
}

fn found(watched: &Watched) -> Session {
    procfs::sessions(std::slice::from_ref(watched)).remove(&watched.session).unwrap_or_default()
}
