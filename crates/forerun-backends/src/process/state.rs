//! The state file: which sessions this life of Forerun has, so that the next one can end what it left.
//!
//! First line: the boot's id. Then `+SESSION STARTED SUM` and `-SESSION SUM` lines as they happen, and `@FOLDER SUM` for
//! each control group of this life; the sum is over the
//! boot's id too, so that a line of another boot is none. It lies in the page cache and is never synced: it must
//! survive Forerun, not the machine, and after a boot nothing of it is true.

use super::cgroup;
use super::procfs::{self, Leftover};
use crate::SetupError;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const NAME: &str = "processes";
/// A file that has grown beyond this is written anew; 64 KiB are some 4,000 starts.
const COMPACT_BYTES: u64 = 64 << 10;
/// What is read of a file at most: more can only be somebody else's.
const READ_BYTES_MAX: u64 = 4 << 20;
/// How long a start waits for leftovers to die.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct StateFile {
    boot_id: String,
    file: File,
    bytes: u64,
    compact_at_bytes: u64,
    sessions: BTreeMap<i32, u64>,
    groups: Vec<String>,
    /// Whether a failed write has been told of.
    warned: bool,
}

impl StateFile {
    /// Locks the file for this process, kills what the last life left, and begins anew.
    pub(super) fn open(folder: &Path) -> Result<Self, SetupError> {
        let path = folder.join(NAME);
        let failed = |what| {
            let path = path.clone();
            move |source| SetupError::StateFile { what, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(failed("open"))?;
        lock(&file, &path)?;
        let mut text = Vec::new();
        (&file).take(READ_BYTES_MAX).read_to_end(&mut text).map_err(failed("read"))?;
        let Leftovers { left, groups, lost } = leftovers(&text, &boot_id());
        if lost > 0 {
            tracing::warn!(
                lines = lost,
                file = %path.display(),
                "the list of processes is damaged; what its whole lines name is ended, some may be left behind"
            );
        }
        // First the groups: a frozen process dies only when it is thawed.
        groups.iter().for_each(|group| cgroup::end_if_left(Path::new(group), LOCK_PATIENCE));
        let killed = procfs::kill_leftovers(&left, true, PATIENCE);
        if killed > 0 {
            tracing::warn!(killed, "ended processes that an earlier life of forerun left behind");
        }
        let mut state = Self {
            boot_id: boot_id(),
            file,
            bytes: 0,
            compact_at_bytes: 0,
            sessions: BTreeMap::new(),
            groups: Vec::new(),
            warned: false,
        };
        state.rewrite().map_err(failed("write"))?;
        Ok(state)
    }

    /// A control group of this life.
    pub(super) fn add_group(&mut self, folder: &Path) {
        if let Some(folder) = folder.to_str().filter(|folder| !folder.contains('\n')) {
            self.groups.push(folder.to_owned());
            self.append(line(&format!("@{folder}"), &self.boot_id));
        }
    }

    pub(super) fn add(&mut self, session: i32, started_ticks: u64) {
        self.sessions.insert(session, started_ticks);
        self.append(line(&format!("+{session} {started_ticks}"), &self.boot_id));
    }

    pub(super) fn remove(&mut self, session: i32) {
        if self.sessions.remove(&session).is_some() {
            self.append(line(&format!("-{session}"), &self.boot_id));
        }
    }

    fn append(&mut self, line: String) {
        self.bytes += line.len() as u64;
        let written = if self.bytes >= self.compact_at_bytes {
            self.rewrite()
        } else {
            self.file.write_all(line.as_bytes())
        };
        // A full disk takes away one of three safeguards; it is no reason to stop serving.
        if let Err(error) = &written
            && !self.warned
        {
            tracing::warn!(%error, "cannot write the list of processes; after a crash some may be left behind");
        }
        self.warned = written.is_err();
    }

    /// A crash in between leaves a short file; the reaper and the parent-death signal stand beside it.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = format!("{}\n", self.boot_id);
        for group in &self.groups {
            text.push_str(&line(&format!("@{group}"), &self.boot_id));
        }
        for (session, started) in &self.sessions {
            text.push_str(&line(&format!("+{session} {started}"), &self.boot_id));
        }
        self.bytes = text.len() as u64;
        self.compact_at_bytes = COMPACT_BYTES.max(2 * self.bytes);
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())
    }
}

/// A process that a killed Forerun was just starting holds the lock until it is dead too, so this tries for a while.
fn lock(file: &File, path: &Path) -> Result<(), SetupError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        let path = path.to_owned();
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(10))
            }
            Err(TryLockError::WouldBlock) => return Err(SetupError::StateInUse { path }),
            Err(TryLockError::Error(source)) => {
                return Err(SetupError::StateFile { what: "lock", path, source });
            }
        }
    }
}

/// A line with its sum.
fn line(body: &str, boot_id: &str) -> String {
    format!("{body} {:08x}\n", sum(body, boot_id))
}

/// FNV-1a (Fowler, Noll, Vo) in 32 bits: one changed byte always changes it.
fn sum(body: &str, boot_id: &str) -> u32 {
    let bytes = boot_id.bytes().chain(body.bytes());
    bytes.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What a file of this boot lists as not ended.
#[derive(Debug, Default)]
struct Leftovers {
    left: Vec<Leftover>,
    groups: Vec<String>,
    /// Lines that were no whole ones.
    lost: usize,
}

/// A file of another boot has nothing to say and nothing to lose.
fn leftovers(text: &[u8], boot_id: &str) -> Leftovers {
    let mut sessions: BTreeMap<i32, u64> = BTreeMap::new();
    let mut groups = Vec::new();
    let (mut lost, mut whole) = (0, 0);
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let own = lines.next().and_then(|first| first.strip_suffix(b"\n")) == Some(boot_id.as_bytes());
    for line in lines {
        match std::str::from_utf8(line).ok().and_then(|line| whole_line(line, boot_id)) {
            Some(Line::Started(session, started)) => drop(sessions.insert(session, started)),
            Some(Line::Ended(session)) => drop(sessions.remove(&session)),
            Some(Line::Group(folder)) => groups.push(folder.to_owned()),
            None => {
                lost += 1;
                continue;
            }
        }
        whole += 1;
    }
    if !own {
        // The first line is the damaged one if others are of this boot.
        lost = if whole > 0 { lost + 1 } else { 0 };
    }
    let left = sessions.into_iter().map(|(session, started_ticks)| Leftover { session, started_ticks });
    Leftovers { left: left.collect(), groups, lost }
}

enum Line<'a> {
    Started(i32, u64),
    Ended(i32),
    Group(&'a str),
}

/// `None` for a line that is not just as it was written.
fn whole_line<'a>(line: &'a str, boot_id: &str) -> Option<Line<'a>> {
    let (body, written) = line.strip_suffix('\n')?.rsplit_once(' ')?;
    if written != format!("{:08x}", sum(body, boot_id)) {
        return None;
    }
    match body.split_at_checked(1)? {
        ("-", session) => Some(Line::Ended(session.parse().ok()?)),
        ("@", folder) => Some(Line::Group(folder)),
        ("+", rest) => {
            let (session, started) = rest.split_once(' ')?;
            Some(Line::Started(session.parse().ok()?, started.parse().ok()?))
        }
        _ => None,
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines with their sums, after the first.
    fn file(boot: &str, bodies: &[&str]) -> String {
        bodies.iter().fold(format!("{boot}\n"), |text, body| text + &line(body, boot))
    }

    fn check(text: &str, sessions: &[i32], lost: usize) {
        let found = leftovers(text.as_bytes(), "boot");
        let left: Vec<i32> = found.left.iter().map(|leftover| leftover.session).collect();
        assert_eq!((&left[..], found.lost), (sessions, lost), "{text}");
    }

    #[test]
    fn only_this_boots_open_sessions_are_left() {
        check("", &[], 0);
        check(&file("other", &["+7 100"]), &[], 0);
        check(&file("boot", &["+7 100", "+8 200", "-7"]), &[8], 0);
        let groups = file("boot", &["@/a b/c", "+7 100", "@/d"]);
        check(&groups, &[7], 0);
        assert_eq!(leftovers(groups.as_bytes(), "boot").groups, ["/a b/c", "/d"]);
        check(&(file("boot", &["+7 100", "x", "-x", "+9"]) + "+8 2\n\n"), &[7], 5);
    }

    #[test]
    fn a_cut_or_a_flipped_bit_at_every_offset_ends_nobody_else() {
        let text = file("boot", &["+7 100", "+8 2000", "+9 31", "-8", "+10 4", "+11 512"]);
        let whole: Vec<Leftover> = leftovers(text.as_bytes(), "boot").left;
        assert_eq!(whole.len(), 4);
        let real = |found: &Leftover| {
            // 8 has ended, and is still among those that were listed if the line of its end is lost.
            whole.iter().any(|w| (w.session, w.started_ticks) == (found.session, found.started_ticks))
                || (found.session, found.started_ticks) == (8, 2_000)
        };
        for cut in 0..text.len() {
            let Leftovers { left: found, lost, .. } = leftovers(&text.as_bytes()[..cut], "boot");
            assert!(found.iter().all(real), "cut at {cut}: {found:?}");
            let last_line_whole = text.as_bytes()[..cut].ends_with(b"\n");
            assert!(cut < 6 || (lost == 0) == last_line_whole, "cut at {cut}: {lost} lines");
        }
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone().into_bytes();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Leftovers { left: found, lost, .. } = leftovers(&damaged, "boot");
            assert!(found.iter().all(real) && found.len() >= 2, "bit {bit}: {found:?}");
            assert!((1..=2).contains(&lost), "bit {bit}: {lost} lines");
        }
    }

    #[test]
    fn a_file_is_locked_compacted_and_read_back() {
        let folder = std::env::temp_dir().join(format!("forerun-state-{}", std::process::id()));
        let mut state = StateFile::open(&folder).unwrap();
        assert!(matches!(StateFile::open(&folder), Err(SetupError::StateInUse { .. })));
        // Numbers beyond the largest pid, so that nothing real is meant.
        for session in 2_000_000_000..2_000_010_000 {
            state.add(session, 5);
            state.remove(session - 2);
        }
        let text = fs::read(folder.join(NAME)).unwrap();
        assert!(text.len() as u64 <= COMPACT_BYTES, "{}", text.len());
        let Leftovers { left, lost, .. } = leftovers(&text, &boot_id());
        let left: Vec<i32> = left.iter().map(|leftover| leftover.session).collect();
        assert_eq!((&left[..], lost), (&[2_000_009_998, 2_000_009_999][..], 0));
        drop(state);
        drop(StateFile::open(&folder).unwrap());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = StateFile::open(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("cannot create the folder of `/proc/nowhere/processes`: "), "{error}");
    }
}
