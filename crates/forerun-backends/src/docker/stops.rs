//! Stops that are under way, written down: an engine carries one out although whoever ordered it is dead by then, and the
//! next life must not take that for a person's hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a stop takes beyond its grace.
const MARGIN: Duration = Duration::from_secs(30);
/// Lines of the file that are read: as many as there are instances, with room.
const LINES_MAX: usize = 4_096;

/// Containers by id, each with the second since 1970 by which its stop is over.
#[derive(Debug, Default)]
pub(super) struct Stops {
    /// `None` where nothing is kept: then nobody inherits.
    path: Option<PathBuf>,
    ours: BTreeMap<String, u64>,
    inherited: BTreeMap<String, u64>,
}

impl Stops {
    /// What the life before has left in the folder. A file that cannot be read is as good as none: it only tells why
    /// something ends.
    pub(super) fn of(folder: Option<&Path>, backend: &str) -> Self {
        let path = folder.map(|folder| folder.join(format!("{backend}.stopping")));
        let text = path.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let read = |line: &str| {
            let (id, until) = line.split_once(' ')?;
            Some((id.to_owned(), until.parse().ok()?))
        };
        let inherited = text.lines().take(LINES_MAX).filter_map(read).collect();
        Self { path, ours: BTreeMap::new(), inherited }
    }

    pub(super) fn begin(&mut self, container: &str, grace: Duration) {
        let until = now_secs().saturating_add(grace.saturating_add(MARGIN).as_secs());
        self.ours.insert(container.to_owned(), until);
        self.write();
    }

    pub(super) fn end(&mut self, container: &str) {
        if self.ours.remove(container).is_some() | self.inherited.remove(container).is_some() {
            self.write();
        }
    }

    /// Whether the life before had ordered it to stop, and that may be under way still.
    pub(super) fn is_inherited(&self, container: &str) -> bool {
        self.inherited.get(container).is_some_and(|until| *until >= now_secs())
    }

    fn write(&self) {
        let Some(path) = &self.path else { return };
        let now = now_secs();
        let open = self.inherited.iter().chain(&self.ours).filter(|(_, until)| **until >= now);
        let text: String = open.map(|(id, until)| format!("{id} {until}\n")).collect();
        let next = path.with_extension("stopping-new");
        let written = fs::write(&next, text).and_then(|()| fs::rename(&next, path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write down which containers are being stopped");
        }
    }
}

/// By the machine's clock: it is for the next life to read.
fn now_secs() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_life_knows_what_is_being_stopped_and_for_how_long() {
        let folder = std::env::temp_dir().join(format!("forerun-stops-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut first = Stops::of(Some(&folder), "docker");
        first.begin("a", Duration::from_secs(10));
        first.begin("b", Duration::MAX);
        first.end("a");
        assert!(!first.is_inherited("b"), "it is its own");
        let mut next = Stops::of(Some(&folder), "docker");
        assert!(next.is_inherited("b") && !next.is_inherited("a"));
        assert!(!Stops::of(Some(&folder), "far").is_inherited("b"));
        next.begin("c", Duration::ZERO);
        assert!(Stops::of(Some(&folder), "docker").is_inherited("b"), "not over yet");
        next.end("b");
        next.end("c");
        fs::write(folder.join("docker.stopping"), "a 5\nnonsense\nb x\n").unwrap();
        let late = Stops::of(Some(&folder), "docker");
        assert!(!late.is_inherited("a") && !late.is_inherited("b"), "long over");
        fs::remove_dir_all(&folder).unwrap();
    }
}
