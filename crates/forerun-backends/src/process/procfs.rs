//! What `/proc` says of processes: who belongs to which session, and what they use.

use forerun_types::Span;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

/// Every process of an instance finds its instance here; by it a leftover is told from a stranger.
pub(super) const MARK: &str = "FORERUN_INSTANCE";

/// Listings of the process table for one count; a machine that starts processes faster than they are read is not
/// waited for.
const LISTINGS_MAX: usize = 16;

/// The fields of `/proc/PID/stat` that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    /// Dead and waiting for its parent to take note.
    pub(super) dead: bool,
    pub(super) session: i32,
    /// Its own and that of the children it has waited for, in clock ticks.
    pub(super) cpu_ticks: u64,
    /// When it started, in clock ticks since the boot. With the pid it names one process.
    pub(super) started_ticks: u64,
    pub(super) resident_pages: u64,
}

/// What the living members of a session use together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) members: Vec<i32>,
    /// Resident memory summed over members; a page that two of them share counts twice.
    pub(super) memory_bytes: u64,
    /// CPU time of members and of the children they have waited for.
    pub(super) cpu: Span,
}

pub(super) fn stat(pid: i32) -> Option<Stat> {
    let mut text = Vec::with_capacity(512);
    File::open(format!("/proc/{pid}/stat")).ok()?.read_to_end(&mut text).ok()?;
    parse(pid, &text)
}

fn parse(pid: i32, text: &[u8]) -> Option<Stat> {
    // The second field is a name in parentheses, which may hold blanks and parentheses itself.
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().take(22).collect();
    // Field n of proc(5) stands at n - 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let ticks = |field: usize| number(field).map(|value| value.max(0).unsigned_abs());
    Some(Stat {
        pid,
        dead: matches!(*fields.first()?, "Z" | "X" | "x"),
        session: i32::try_from(number(6)?).ok()?,
        cpu_ticks: ticks(14)? + ticks(15)? + ticks(16)? + ticks(17)?,
        started_ticks: ticks(22)?,
        resident_pages: ticks(24)?,
    })
}

/// The living members of these sessions; a session without any is absent. Reads the whole process table: some
/// 15 us a process.
pub(super) fn sessions(wanted: &HashSet<i32>) -> HashMap<i32, Session> {
    let page_bytes = rustix::param::page_size() as u64;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let mut found: HashMap<i32, Session> = HashMap::new();
    for stat in all().filter(|stat| !stat.dead && wanted.contains(&stat.session)) {
        let session = found.entry(stat.session).or_default();
        session.members.push(stat.pid);
        session.memory_bytes += stat.resident_pages * page_bytes;
        session.cpu = session.cpu + Span(stat.cpu_ticks * 1_000_000 / ticks_per_second);
    }
    found
}

/// Every process. The table is listed until a listing shows none that has not been read: a process that was listed
/// may start another and die before it is read, and with one listing both would be missed.
fn all() -> impl Iterator<Item = Stat> {
    let mut read = HashSet::new();
    let listings = (0..LISTINGS_MAX).map_while(move |_| {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let fresh: Vec<i32> = pids.filter(|pid| read.insert(*pid)).collect();
        (!fresh.is_empty()).then_some(fresh)
    });
    listings.flatten().filter_map(stat)
}

/// Kills all of a session that was found alive: its first group at one stroke, the rest one by one. That a member
/// was found keeps the number from being another's.
pub(super) fn kill_session(id: i32, found: &Session) {
    if let Some(group) = Pid::from_raw(id) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    found.members.iter().for_each(|pid| kill_member(*pid, id));
}

/// Kills a process if it is still a member of the session: its number may have been given anew since it was read.
fn kill_member(pid: i32, session: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if stat(pid.as_raw_pid()).is_some_and(|stat| stat.session == session) {
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
}

/// A session that a life of Forerun started, from what was written down of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pub(super) session: i32,
    /// As in [`Stat`]; 0 if its leader was gone before that could be read.
    pub(super) started_ticks: u64,
}

/// Kills all that is left of these sessions and waits, at most for `patience`, until it is gone. With
/// `marked_only`, members of a session whose leader is gone must carry [`MARK`]: for records so old that the
/// number may be another's by now. Returns how many sessions had something left.
pub(super) fn kill_leftovers(leftovers: &[Leftover], marked_only: bool, patience: Duration) -> usize {
    let until = Instant::now() + patience;
    let mut ours: HashSet<i32> =
        leftovers.iter().filter(|leftover| may_be_ours(leftover)).map(|leftover| leftover.session).collect();
    let mut had_members = HashSet::new();
    let mut pause = Duration::from_millis(1);
    loop {
        let mut found = sessions(&ours);
        if marked_only {
            found.retain(|id, session| stat(*id).is_some() || session.members.iter().any(|pid| marked(*pid)));
        }
        for (id, session) in &found {
            had_members.insert(*id);
            kill_session(*id, session);
        }
        if found.is_empty() || Instant::now() >= until {
            return had_members.len();
        }
        ours.retain(|id| found.contains_key(id));
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Not if its leader's number now belongs to a process that started at another time.
fn may_be_ours(leftover: &Leftover) -> bool {
    leftover.session > 1
        && (leftover.started_ticks == 0
            || stat(leftover.session).is_none_or(|stat| stat.started_ticks == leftover.started_ticks))
}

fn marked(pid: i32) -> bool {
    let start = format!("{MARK}=");
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ.split(|byte| *byte == 0).any(|entry| entry.starts_with(start.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let rest = "S 1 7 9 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 555 1000000 77 18446744073709551615 1";
        for name in ["sh", "a b", "x) S 1 (y", ")"] {
            let stat = parse(7, format!("7 ({name}) {rest}").as_bytes());
            let expected = Stat {
                pid: 7,
                dead: false,
                session: 9,
                cpu_ticks: 100,
                started_ticks: 555,
                resident_pages: 77,
            };
            assert_eq!(stat, Some(expected), "{name}");
        }
        for bad in ["", "7 (sh", "7 (sh) S 1 2", "7 (sh) S x y z"] {
            assert_eq!(parse(7, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn this_process_is_found_in_its_session() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = stat(pid).unwrap();
        let found = sessions(&HashSet::from([me.session]));
        let session = &found[&me.session];
        assert!(session.members.contains(&pid) && session.memory_bytes > 0);
        assert!(sessions(&HashSet::new()).is_empty());
    }

    #[test]
    fn a_number_that_was_given_anew_is_spared() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = stat(pid).unwrap();
        let mine = Leftover { session: pid, started_ticks: me.started_ticks };
        assert!(may_be_ours(&mine));
        assert!(!may_be_ours(&Leftover { started_ticks: me.started_ticks + 1, ..mine }));
        assert!(!may_be_ours(&Leftover { session: 1, started_ticks: 0 }));
        assert!(!may_be_ours(&Leftover { session: 0, started_ticks: 0 }));
    }
}
