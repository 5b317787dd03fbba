//! The state folder: one engine's own, with its secret, its journal and what its backends must remember.

use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const SECRET_BYTES: usize = 32;

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{}: {source}; give another folder as `store.folder`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: another forerun is using this state folder; stop it, or give this one its own `store.folder`", path.display())]
    InUse { path: PathBuf },
    #[error("{}: the secret must be 32 bytes, this file has {found}; restore it, or remove it to begin anew without the learned users", path.display())]
    Secret { path: PathBuf, found: usize },
    #[error("{}: the secret can be read by others (mode {mode:o}); chmod 600 it", path.display())]
    SecretMode { path: PathBuf, mode: u32 },
}

/// An open state folder; nobody else can open it until this is dropped.
#[derive(Debug)]
pub struct StateFolder {
    pub root: PathBuf,
    pub journal: PathBuf,
    pub backends: PathBuf,
    /// The key of the hash that users are known by.
    pub secret: [u8; SECRET_BYTES],
    _lock: File,
}

impl StateFolder {
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let (journal, backends) = (root.join("journal"), root.join("backends"));
        for folder in [root, &journal, &backends] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| StateError::Io { path: folder.to_owned(), source })?;
        }
        let path = root.join("lock");
        let fail = |source| StateError::Io { path: path.clone(), source };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::InUse { path });
        }
        let secret = secret(&root.join("secret"))?;
        Ok(Self { root: root.to_owned(), journal, backends, secret, _lock: lock })
    }
}

fn secret(path: &Path) -> Result<[u8; SECRET_BYTES], StateError> {
    let fail = |source| StateError::Io { path: path.to_owned(), source };
    match File::open(path) {
        Ok(mut file) => {
            let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(StateError::SecretMode { path: path.to_owned(), mode });
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(fail)?;
            let found = bytes.len();
            bytes.try_into().map_err(|_| StateError::Secret { path: path.to_owned(), found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(path).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

/// Written whole under another name first: a kill in between leaves no half secret.
fn make_secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let part = path.with_extension("part");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, test: impl FnOnce(&Path)) {
        let root = std::env::temp_dir().join(format!("forerun-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        test(&root);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_secret_stays_the_same_and_is_nobody_elses() {
        check("secret", |root| {
            let first = StateFolder::open(root).unwrap().secret;
            let mode = fs::metadata(root.join("secret")).unwrap().permissions().mode() & 0o777;
            assert_eq!((StateFolder::open(root).unwrap().secret, mode), (first, 0o600));
            assert_ne!(first, [0; 32]);
        });
    }

    #[test]
    fn two_cannot_use_one_folder() {
        check("lock", |root| {
            let first = StateFolder::open(root).unwrap();
            assert!(matches!(StateFolder::open(root), Err(StateError::InUse { .. })));
            drop(first);
            assert!(StateFolder::open(root).is_ok());
        });
    }

    #[test]
    fn a_cut_or_an_open_secret_is_refused_with_the_mend() {
        check("cut", |root| {
            drop(StateFolder::open(root).unwrap());
            fs::write(root.join("secret"), b"short").unwrap();
            let error = StateFolder::open(root).unwrap_err().to_string();
            assert!(error.contains("this file has 5"), "{error}");
            fs::write(root.join("secret"), [1; 32]).unwrap();
            fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
            let error = StateFolder::open(root).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        });
    }
}
