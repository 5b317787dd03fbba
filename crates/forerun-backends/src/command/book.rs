//! Which instances there are, written down for the next life.
//!
//! One JSON document that is replaced as a whole. It lies in the page cache: it must survive Forerun, not the machine.

use crate::SetupError;
use forerun_types::InstanceId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const NAME: &str = "commands.json";
/// More can only be somebody else's.
const BYTES_MAX: u64 = 4 << 20;

/// What an instance was started as, which it keeps under every later id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) service: String,
    /// `i5`; empty where the service has only one.
    pub(super) label: String,
    pub(super) port: u16,
}

impl Known {
    /// The name by which the core hands it back.
    pub(super) fn handle(&self) -> String {
        format!("{}/{}", self.service, self.label)
    }

    /// The instance that it was in the life that started it.
    pub(super) fn was(&self) -> Option<InstanceId> {
        self.label.strip_prefix('i')?.parse().ok().map(InstanceId)
    }
}

#[derive(Debug, Default)]
pub(super) struct Book {
    file: Option<PathBuf>,
    known: BTreeMap<String, Known>,
    warned: bool,
}

impl Book {
    pub(super) fn open(folder: &Path) -> Result<Self, SetupError> {
        let path = folder.join(NAME);
        let failed = |what| {
            let path = path.clone();
            move |source| SetupError::StateFile { what, path, source }
        };
        fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => text = "?".to_owned(),
            Err(error) => return Err(failed("read")(error)),
        }
        let known = read(&text).unwrap_or_else(|| {
            tracing::warn!(
                file = %path.display(),
                "the list of command instances is damaged: what it named is not taken over; stop it by hand if it runs"
            );
            BTreeMap::new()
        });
        Ok(Self { file: Some(path), known, warned: false })
    }

    pub(super) fn of_service(&self, service: &str) -> Vec<Known> {
        self.known.values().filter(|known| known.service == service).cloned().collect()
    }

    pub(super) fn add(&mut self, known: &Known) {
        if self.known.insert(known.handle(), known.clone()).as_ref() != Some(known) {
            self.write();
        }
    }

    pub(super) fn remove(&mut self, known: &Known) {
        if self.known.remove(&known.handle()).is_some() {
            self.write();
        }
    }

    fn write(&mut self) {
        let Some(file) = &self.file else { return };
        let instances: Vec<Value> = self
            .known
            .values()
            .map(|known| json!({ "service": known.service, "label": known.label, "port": known.port }))
            .collect();
        let text = json!({ "instances": instances }).to_string();
        let fresh = file.with_extension("new");
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, file));
        if let Err(error) = &written
            && !self.warned
        {
            tracing::warn!(%error, file = %file.display(), "cannot write the list of command instances");
        }
        self.warned = written.is_err();
    }
}

/// `None` for what is not just as it was written.
fn read(text: &str) -> Option<BTreeMap<String, Known>> {
    if text.is_empty() {
        return Some(BTreeMap::new());
    }
    let document: Value = serde_json::from_str(text).ok()?;
    let mut found = BTreeMap::new();
    for entry in document.get("instances")?.as_array()? {
        let text = |name: &str| entry.get(name)?.as_str().map(str::to_owned);
        let port = u16::try_from(entry.get("port")?.as_u64()?).ok()?;
        let known = Known { service: text("service")?, label: text("label")?, port };
        found.insert(known.handle(), known);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(service: &str, label: &str) -> Known {
        Known { service: service.to_owned(), label: label.to_owned(), port: 80 }
    }

    #[test]
    fn the_next_life_reads_what_this_one_wrote() {
        let folder = std::env::temp_dir().join(format!("forerun-book-{}", std::process::id()));
        let mut book = Book::open(&folder).unwrap();
        book.add(&known("a \"b\"", "i5"));
        book.add(&known("a \"b\"", "i6"));
        book.add(&known("vm", ""));
        book.remove(&known("a \"b\"", "i6"));
        let next = Book::open(&folder).unwrap();
        assert_eq!(next.of_service("a \"b\""), [known("a \"b\"", "i5")]);
        assert_eq!(next.of_service("vm"), [known("vm", "")]);
        assert_eq!((known("x", "i5").was(), known("x", "").was()), (Some(InstanceId(5)), None));
        for damaged in [&b"{"[..], b"[]", b"{\"instances\": [{}]}", b"\xff\xfe"] {
            fs::write(folder.join(NAME), damaged).unwrap();
            assert!(Book::open(&folder).unwrap().known.is_empty());
        }
        fs::remove_dir_all(folder).unwrap();
        let error = Book::open(Path::new("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("cannot create the folder of `/proc/nowhere/commands.json`: "), "{error}");
    }
}
