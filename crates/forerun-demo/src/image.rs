//! The image of the demo's containers: this program and the libraries that it is linked with, and nothing else.

use crate::DemoError;
use forerun_backends::{Backend, SetupError, Sink, docker};
use forerun_types::{Container, Launch};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Where the program listens in its container.
pub(crate) const PORT: u16 = 8080;
const REPOSITORY: &str = "forerun-demo";
const PROGRAM: &str = "/bin/forerun";

/// A made image; removed when dropped.
pub(crate) struct Image {
    name: String,
    /// Of the engine that has it: `Docker 20.10.24, API 1.41`.
    pub(crate) engine: String,
    /// Where the libraries are.
    folders: BTreeSet<PathBuf>,
}

impl Image {
    /// Makes it of `program`.
    ///
    /// # Errors
    /// A file cannot be read, or no engine takes it.
    pub(crate) fn make(program: &Path) -> Result<Self, DemoError> {
        // Of a demo that was killed; its number may be another program's by now, and then they stay.
        let is_over = |tag: &str| tag.parse::<u32>().is_ok() && !Path::new("/proc").join(tag).exists();
        let left = docker::remove_leftovers(None, None, REPOSITORY, is_over);
        left.map_err(|e| DemoError::Image(e.to_string()))?;
        let (archive, folders) = archive(program).map_err(DemoError::Image)?;
        let tag = std::process::id().to_string();
        let engine = docker::import(None, None, (REPOSITORY, &tag), archive)
            .map_err(|e| DemoError::Image(e.to_string()))?;
        Ok(Self { name: format!("{REPOSITORY}:{tag}"), engine, folders })
    }

    pub(crate) fn launch(&self, sleep: &str) -> Launch {
        let listen = ["--listen", "0.0.0.0", "--port", &PORT.to_string()].map(str::to_owned);
        let mut command = vec![PROGRAM.to_owned(), "__fixture".to_owned()];
        command.extend(listen);
        command.extend(["--start-delay", sleep].map(str::to_owned));
        let folders: Vec<String> = self.folders.iter().map(|f| f.to_string_lossy().into_owned()).collect();
        // A loader's own list of folders differs between distributions.
        let env = BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), folders.join(":"))]);
        Launch::Container(Container { image: self.name.clone(), command, env, ..Container::default() })
    }
}

/// One side's backend. Without a state folder: what it makes goes with it.
///
/// # Errors
/// [`SetupError`].
pub(crate) fn backend(sink: Sink) -> Result<Arc<dyn Backend>, SetupError> {
    Ok(Arc::new(docker::DockerBackend::start(docker::DockerSettings::default(), sink)?))
}

impl Drop for Image {
    fn drop(&mut self) {
        let name = self.name.clone();
        // On a thread of its own: it waits, and this may be dropped where that is not allowed.
        let removed = std::thread::spawn(move || docker::remove_image(None, None, &name)).join();
        if !matches!(removed, Ok(Ok(()))) {
            eprintln!("forerun: the demo's image is left behind: docker image rm {}", self.name);
        }
    }
}

/// A tar archive of the program and its libraries, and the libraries' folders.
fn archive(program: &Path) -> Result<(Vec<u8>, BTreeSet<PathBuf>), String> {
    // A program that is linked with nothing makes `ldd` fail, and needs none.
    let linked = Command::new("ldd").arg(program).output();
    let linked = linked.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let mut archive = Vec::new();
    add(&mut archive, program, PROGRAM)?;
    let mut folders = BTreeSet::new();
    for library in libraries(&linked) {
        add(&mut archive, Path::new(library), library)?;
        folders.extend(Path::new(library).parent().map(Path::to_owned));
    }
    // Two empty blocks are the end.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok((archive, folders))
}

/// The paths in what `ldd` prints: `libc.so.6 => /lib/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn libraries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

const BLOCK: usize = 512;

/// Appends an executable file (POSIX ustar).
fn add(archive: &mut Vec<u8>, file: &Path, path: &str) -> Result<(), String> {
    let content = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
    archive.extend(head(path.trim_start_matches('/'), content.len())?);
    archive.extend(&content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

fn head(path: &str, len: usize) -> Result<[u8; BLOCK], String> {
    let mut head = [0; BLOCK];
    // Longer ones would need the prefix field; no loader has its libraries there.
    if path.len() > 100 {
        return Err(format!("{path}: the path is too long for the image"));
    }
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{len:011o}\0"));
    put(136, "00000000000\0");
    // The sum is taken with spaces in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_the_archive() {
        let folder = std::env::temp_dir().join(format!("forerun-demo-tar-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let program = std::env::current_exe().unwrap();
        let (packed, folders) = archive(&program).unwrap();
        fs::write(folder.join("a.tar"), &packed).unwrap();
        let ran = Command::new("tar").args(["-xf", "a.tar"]).current_dir(&folder).status().unwrap();
        assert!(ran.success());
        assert_eq!(fs::read(folder.join("bin/forerun")).unwrap(), fs::read(&program).unwrap());
        for library in &folders {
            let inside = folder.join(library.strip_prefix("/").unwrap());
            assert!(fs::read_dir(&inside).unwrap().next().is_some(), "{}", inside.display());
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn paths_that_do_not_fit_are_refused() {
        assert!(head(&"x".repeat(101), 1).unwrap_err().contains("too long"));
    }
}
