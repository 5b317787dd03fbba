//! What `/proc` says of processes: who belongs to which session, and what they use.

use super::cgroup::{Group, Oom};
use forerun_types::Span;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::sync::Arc;
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
    /// Standing still by a signal.
    pub(super) stopped: bool,
    pub(super) process_group: i32,
    pub(super) session: i32,
    /// Its own and that of the children it has waited for, in clock ticks.
    pub(super) cpu_ticks: u64,
    /// When it started, in clock ticks since the boot. With the pid it names one process.
    pub(super) started_ticks: u64,
    pub(super) resident_pages: u64,
}

/// One process, whatever becomes of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: i32,
    pub(super) started_ticks: u64,
    pub(super) process_group: i32,
    pub(super) stopped: bool,
}

/// A session that is counted, and the control group in which its processes stay even if they leave it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) session: i32,
    pub(super) group: Option<Arc<Group>>,
}

/// What the living members of a session and of its control group use together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) members: Vec<Member>,
    /// Resident memory summed over members; a page that two of them share counts twice.
    pub(super) memory_bytes: u64,
    /// CPU time of members and of the children they have waited for.
    pub(super) cpu: Span,
    /// What became of its memory limit, if a control group holds it.
    pub(super) oom: Oom,
}

impl Session {
    fn add(&mut self, stat: &Stat) {
        self.members.push(Member {
            pid: stat.pid,
            started_ticks: stat.started_ticks,
            process_group: stat.process_group,
            stopped: stat.stopped,
        });
        self.memory_bytes += stat.resident_pages * rustix::param::page_size() as u64;
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        self.cpu = self.cpu + Span(stat.cpu_ticks * 1_000_000 / ticks_per_second);
    }
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
        stopped: matches!(*fields.first()?, "T" | "t"),
        process_group: i32::try_from(number(5)?).ok()?,
        session: i32::try_from(number(6)?).ok()?,
        cpu_ticks: ticks(14)? + ticks(15)? + ticks(16)? + ticks(17)?,
        started_ticks: ticks(22)?,
        resident_pages: ticks(24)?,
    })
}

/// The living members of these sessions and of their control groups; a session without any is absent. Reads the whole
/// process table: some 15 us a process.
pub(super) fn sessions(wanted: &[Watched]) -> HashMap<i32, Session> {
    let ids: HashSet<i32> = wanted.iter().map(|watched| watched.session).collect();
    let mut found: HashMap<i32, Session> = HashMap::new();
    for stat in all().filter(|stat| !stat.dead && ids.contains(&stat.session)) {
        found.entry(stat.session).or_default().add(&stat);
    }
    for Watched { session, group } in wanted {
        let Some(group) = group else { continue };
        // After the table: who left the session is in the group all the same.
        for stat in group.members().into_iter().filter_map(stat).filter(|stat| !stat.dead) {
            let known = found.entry(*session).or_default();
            if !known.members.iter().any(|member| member.pid == stat.pid) {
                known.add(&stat);
            }
        }
        if let Some(known) = found.get_mut(session) {
            known.oom = group.oom();
        }
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
    if let Some(group) =
        Pid::from_raw(id).filter(|_| found.members.iter().any(|member| member.process_group == id))
    {
        let _ = kill_process_group(group, Signal::KILL);
    }
    found.members.iter().for_each(|member| signal_member(member, Signal::KILL));
}

/// Signals a process if it is still the same: its number may have been given anew since it was read.
pub(super) fn signal_member(member: &Member, signal: Signal) {
    let same = || stat(member.pid).is_some_and(|stat| stat.started_ticks == member.started_ticks);
    signal_if(member.pid, signal, same);
}

/// Kills the process of this number if that still is the one that is meant.
pub(super) fn kill_if(pid: i32, is_it: impl Fn() -> bool) {
    signal_if(pid, Signal::KILL, is_it);
}

fn signal_if(pid: i32, signal: Signal, is_it: impl Fn() -> bool) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if is_it() {
        let _ = pidfd_send_signal(handle, signal);
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
        let watched: Vec<Watched> =
            ours.iter().map(|session| Watched { session: *session, group: None }).collect();
        let mut found = sessions(&watched);
        if marked_only {
            let ours = |session: &Session| session.members.iter().any(|member| marked(member.pid));
            found.retain(|id, session| stat(*id).is_some() || ours(session));
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
                stopped: false,
                process_group: 7,
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
        let found = sessions(&[Watched { session: me.session, group: None }]);
        let session = &found[&me.session];
        assert!(session.members.iter().any(|member| member.pid == pid) && session.memory_bytes > 0);
        assert!(sessions(&[]).is_empty());
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
