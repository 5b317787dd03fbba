//! Whose a container is: the installation's id, and the labels that carry it.

use crate::SetupError;
use forerun_types::{InstanceId, ServiceSpec};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const INSTALLATION: &str = "forerun.installation";
pub(super) const SERVICE: &str = "forerun.service";
pub(super) const INSTANCE: &str = "forerun.instance";
pub(super) const MADE: &str = "forerun.made";
/// Which life of an installation made it: what the present one is just making must not look like a left-over.
pub(super) const LIFE: &str = "forerun.life";

const CLAIMED: &str = "-claimed";
const FILE: &str = "installation";
/// Hexadecimal digits of an installation's id: 16 bytes, so that two never meet.
const ID_DIGITS: usize = 32;
/// How long a start waits for the lock of a Forerun that is just being killed.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Who this is.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) installation: String,
    pub(super) life: String,
    /// Held as long as it lives; `None` where nothing is kept.
    _lock: Option<File>,
}

impl Owner {
    /// With a folder, who it was before; without one, somebody new whose containers nobody will know again.
    pub(super) fn of(folder: Option<&Path>, backend: &str) -> Result<Self, SetupError> {
        let random = |source| SetupError::System { what: "source of randomness", source };
        let life = hex(4).map_err(random)?;
        let Some(folder) = folder else {
            return Ok(Self { installation: hex(ID_DIGITS / 2).map_err(random)?, life, _lock: None });
        };
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SetupError::StateFile { what, path, source }
        };
        let path = folder.join(FILE);
        fs::create_dir_all(folder).map_err(failed("create the folder of", &path))?;
        let lock = lock(&folder.join(format!("{backend}.lock")))?;
        let installation = match fs::read_to_string(&path) {
            Ok(text) if is_id(text.trim()) => text.trim().to_owned(),
            Ok(_) => {
                let source = io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "it does not hold {ID_DIGITS} hexadecimal digits; put them back, or remove it and every container labelled {MADE}"
                    ),
                );
                return Err(SetupError::StateFile { what: "use", path, source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = hex(ID_DIGITS / 2).map_err(random)?;
                write_whole(&path, &id).map_err(failed("write", &path))?;
                id
            }
            Err(error) => return Err(failed("read", &path)(error)),
        };
        Ok(Self { installation, life, _lock: Some(lock) })
    }

    /// Whether containers of this life can be known again by the next.
    pub(super) fn is_kept(&self) -> bool {
        self._lock.is_some()
    }

    /// The filter for what it made.
    pub(super) fn filter(&self) -> String {
        format!("{INSTALLATION}={}", self.installation)
    }

    pub(super) fn labels(&self, spec: &ServiceSpec, instance: InstanceId) -> HashMap<String, String> {
        let labels = [
            (INSTALLATION, self.installation.clone()),
            (SERVICE, spec.name.clone()),
            (INSTANCE, instance.0.to_string()),
            (MADE, "true".to_owned()),
            (LIFE, self.life.clone()),
        ];
        labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// A name that no other installation and no other instance has, and that says whose it is.
    pub(super) fn name(&self, spec: &ServiceSpec, instance: InstanceId) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
        let service: String = spec.name.chars().map(plain).take(100).collect();
        format!("forerun-{service}-{}-{}", &self.installation[..8], instance.0)
    }

    /// Whether these labels say that this installation made the container.
    pub(super) fn made(&self, labels: &HashMap<String, String>) -> bool {
        let is = |key, value: &str| labels.get(key).is_some_and(|found| found == value);
        is(INSTALLATION, &self.installation) && is(MADE, "true")
    }
}

/// The name of a container that has become a key's. Its labels cannot change, and its name can.
pub(super) fn claimed(name: &str) -> String {
    format!("{name}{CLAIMED}")
}

/// Whether it has met a key, and so may be no other's.
pub(super) fn is_claimed(name: &str) -> bool {
    name.ends_with(CLAIMED)
}

/// The instance that a container was made for.
pub(super) fn instance_of(labels: &HashMap<String, String>) -> Option<InstanceId> {
    labels.get(INSTANCE)?.parse().ok().map(InstanceId)
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// By a second file that takes its place: a crash leaves the whole id or none. Several backends of one Forerun may
/// write it at once, and then all read what came first.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let next: PathBuf = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(next, path)
}

fn lock(path: &Path) -> Result<File, SetupError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let failed = |what, source| SetupError::StateFile { what, path: path.to_owned(), source };
    let file = options.open(path).map_err(|error| failed("open", error))?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(SetupError::StateInUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed("lock", source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::ServiceId;

    #[test]
    fn an_installation_stays_who_it_is() {
        let folder = std::env::temp_dir().join(format!("forerun-owner-{}", std::process::id()));
        let first = Owner::of(Some(&folder), "docker").unwrap();
        assert!(matches!(Owner::of(Some(&folder), "docker"), Err(SetupError::StateInUse { .. })));
        let beside = Owner::of(Some(&folder), "far").unwrap();
        assert_eq!(first.installation, beside.installation);
        let (id, life) = (first.installation.clone(), first.life.clone());
        drop(first);
        let next = Owner::of(Some(&folder), "docker").unwrap();
        assert_eq!(next.installation, id);
        assert_ne!(next.life, life);
        drop(next);
        fs::write(folder.join(FILE), "mine").unwrap();
        let error = Owner::of(Some(&folder), "docker").unwrap_err().to_string();
        assert!(error.contains("does not hold 32 hexadecimal digits"), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_claim_stands_in_the_name() {
        let owner = Owner::of(None, "docker").unwrap();
        let name = owner.name(&ServiceSpec::named(ServiceId(1), "a-claimed"), InstanceId(7));
        assert!(!is_claimed(&name) && is_claimed(&claimed(&name)));
    }

    #[test]
    fn only_its_own_labels_make_it_the_maker() {
        let (owner, other) = (Owner::of(None, "docker").unwrap(), Owner::of(None, "docker").unwrap());
        let spec = ServiceSpec::named(ServiceId(1), "a b/ü");
        let labels = owner.labels(&spec, InstanceId(7));
        assert!(owner.made(&labels) && !other.made(&labels));
        assert!(!owner.made(&HashMap::from([(INSTALLATION.to_owned(), owner.installation.clone())])));
        assert_eq!(instance_of(&labels), Some(InstanceId(7)));
        let name = owner.name(&spec, InstanceId(7));
        assert!(name.starts_with("forerun-a-b---") && name.ends_with("-7"), "{name}");
    }
}
