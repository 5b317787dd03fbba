//! The files that an instance of a key is given: a folder for each instance, readable to this user alone.

use forerun_types::InstanceId;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The folder of all instances' folders. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    /// Under the state folder, which is this Forerun's alone and where an earlier life's are removed; without one, in
    /// the system's folder for what is temporary. Nothing is made before it is needed.
    pub(super) fn new(state_folder: Option<&Path>) -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        let root = match state_folder {
            Some(folder) => std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()).join("files"),
            None => std::env::temp_dir().join(format!(
                "forerun-files-{}-{}",
                std::process::id(),
                LIVES.fetch_add(1, Ordering::Relaxed)
            )),
        };
        let files = Self { root };
        files.clear();
        files
    }

    pub(super) fn folder(&self, instance: InstanceId) -> PathBuf {
        self.root.join(instance.to_string())
    }

    pub(super) fn remove(&self, instance: InstanceId) {
        let _ = fs::remove_dir_all(self.folder(instance));
    }

    fn clear(&self) {
        if let Err(error) = fs::remove_dir_all(&self.root)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.root.display(), "cannot remove the files of instances that are gone");
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Writes files, whose paths are relative and only go down, into a folder, which is made if need be.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn write(folder: &Path, files: &[(PathBuf, String)]) -> Result<(), String> {
    let make = |folder: &Path| DirBuilder::new().recursive(true).mode(0o700).create(folder);
    make(folder).map_err(|error| format!("cannot make the folder `{}`: {error}", folder.display()))?;
    for (path, content) in files {
        let file = folder.join(path);
        let written = file.parent().map_or(Ok(()), make).and_then(|()| {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&file)?.write_all(content.as_bytes())
        });
        written.map_err(|error| {
            format!("cannot write an instance's file under `{}`: {error}", folder.display())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_instance_has_its_own_and_leaves_nothing() {
        let state = std::env::temp_dir().join(format!("forerun-files-test-{}", std::process::id()));
        let files = Files::new(Some(&state));
        let folder = files.folder(InstanceId(7));
        assert!(!folder.exists());
        write(&folder, &[(PathBuf::from("a"), "1".to_owned()), (PathBuf::from("deep/er/b"), "2".to_owned())])
            .unwrap();
        assert_eq!(fs::read_to_string(folder.join("deep/er/b")).unwrap(), "2");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join("a"))), (0o700, 0o600));
        let error = write(&folder, &[(PathBuf::from("a/b"), String::new())]).unwrap_err();
        assert!(error.starts_with("cannot write an instance's file under"), "{error}");
        // The next life finds what a kill has left.
        std::mem::forget(files);
        let files = Files::new(Some(&state));
        assert!(!folder.exists());
        write(&folder, &[]).unwrap();
        files.remove(InstanceId(7));
        assert!(!folder.exists() && state.join("files").exists());
        drop(files);
        fs::remove_dir(&state).unwrap();
    }
}
