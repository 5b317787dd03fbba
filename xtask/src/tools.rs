//! Tools and build caches, kept outside the checkout and keyed by what they are made from.

use crate::cargo::cargo;
use crate::run::{self, root};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

pub(crate) const DENY_VERSION: &str = "0.20.2";
const SCHEMATHESIS_VERSION: &str = "4.32.5";
const COMPOSE_VERSION: &str = "2.40.3";

/// Build folders that are kept for CI; the least recently used beyond them go.
const TARGETS_MAX: usize = 2;

/// `forerun` in the XDG cache folder.
fn cache() -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let folder = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    folder.unwrap_or_else(std::env::temp_dir).join("forerun")
}

/// FNV-1a, 64 bit, in hexadecimal: a name for contents, no protection against anyone.
fn name_of(contents: &[u8]) -> String {
    let hash = contents.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The folder in the cache for a tool, named by what it is and its version.
pub(crate) fn folder_of(tool: &str) -> PathBuf {
    cache().join(format!("tools-{}", name_of(tool.as_bytes())))
}

/// The path of `cargo-deny` of the right version, installed first if it is not there.
///
/// # Errors
/// It can be neither found nor installed.
pub(crate) fn cargo_deny() -> Result<PathBuf, String> {
    let has_version = |program: &Path| {
        let output = Command::new(program).arg("--version").output().ok();
        output
            .is_some_and(|o| String::from_utf8_lossy(&o.stdout).trim().ends_with(&format!(" {DENY_VERSION}")))
    };
    let folder = cache().join(format!("tools-{}", name_of(format!("cargo-deny {DENY_VERSION}").as_bytes())));
    let installed = folder.join("bin/cargo-deny");
    for program in [installed.clone(), PathBuf::from("cargo-deny")] {
        if has_version(&program) {
            return Ok(program);
        }
    }
    println!("installing cargo-deny {DENY_VERSION} into the cache; this happens once");
    let mut command = cargo();
    command
        .args(["install", "cargo-deny", "--locked", "--version", &format!("={DENY_VERSION}"), "--root"])
        .arg(&folder)
        // Its own build folder, not the one of the workspace.
        .env_remove("CARGO_TARGET_DIR");
    let ran = run::shown(&mut command, run::LIMIT);
    if ran.good && has_version(&installed) {
        return Ok(installed);
    }
    Err(ran.trouble.unwrap_or_else(|| format!("cargo-deny {DENY_VERSION} cannot be installed")))
}

/// Schemathesis of the right version, installed with pip first if it is not there.
///
/// # Errors
/// There is no Python that makes environments, or no index to install from.
pub(crate) fn schemathesis() -> Result<PathBuf, String> {
    let folder =
        cache().join(format!("tools-{}", name_of(format!("schemathesis {SCHEMATHESIS_VERSION}").as_bytes())));
    let program = folder.join("bin/schemathesis");
    let is_it = || {
        let output = Command::new(&program).arg("--version").output().ok();
        output.is_some_and(|o| String::from_utf8_lossy(&o.stdout).contains(SCHEMATHESIS_VERSION))
    };
    if is_it() {
        return Ok(program);
    }
    let python = find("python3").ok_or("there is no python3")?;
    println!("installing schemathesis {SCHEMATHESIS_VERSION} into the cache; this happens once");
    let made = run::quiet(Command::new(&python).args(["-m", "venv"]).arg(&folder), run::LIMIT);
    let pip = folder.join("bin/pip");
    let package = format!("schemathesis=={SCHEMATHESIS_VERSION}");
    if made.good
        && run::quiet(Command::new(pip).args(["install", "--quiet", &package]), run::LIMIT).good
        && is_it()
    {
        return Ok(program);
    }
    Err(format!("{package} cannot be installed; it takes python3-venv and a package index"))
}

/// Docker Compose of the version that is tried, built with Go first if it is not there: Debian's own is too old to write
/// down what needs what.
///
/// # Errors
/// There is neither; why not.
pub(crate) fn compose() -> Result<PathBuf, String> {
    let is_it = |program: &Path| {
        let output = Command::new(program).args(["version", "--short"]).output().ok();
        output.is_some_and(|o| {
            String::from_utf8_lossy(&o.stdout).trim().trim_start_matches('v') == COMPOSE_VERSION
        })
    };
    let folder = cache().join(format!("tools-{}", name_of(format!("compose {COMPOSE_VERSION}").as_bytes())));
    let built = folder.join("docker-compose");
    for program in [built.clone(), PathBuf::from("docker-compose")] {
        if is_it(&program) {
            return Ok(program);
        }
    }
    let go = find("go").ok_or("there is no docker-compose, and no go to build it with")?;
    println!("building Docker Compose {COMPOSE_VERSION} in the cache; this happens once");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let module = "module forerun.test/compose\n\ngo 1.24.0\n";
    std::fs::write(folder.join("go.mod"), module).map_err(|e| format!("{}: {e}", folder.display()))?;
    let version = format!("-X github.com/docker/compose/v2/internal.Version=v{COMPOSE_VERSION}");
    let program = "github.com/docker/compose/v2/cmd";
    let get = ["get".to_owned(), "-tool".to_owned(), format!("{program}@v{COMPOSE_VERSION}")];
    let build =
        ["build", "-p", "2", "-ldflags", &format!("-s -w {version}"), "-o", "docker-compose", program]
            .map(str::to_owned);
    for args in [&get[..], &build[..]] {
        let ran = run::shown(Command::new(&go).args(args).current_dir(&folder), run::LIMIT);
        if !ran.good {
            return Err(ran
                .trouble
                .unwrap_or_else(|| "go cannot build docker-compose, see above".to_owned()));
        }
    }
    if is_it(&built) { Ok(built) } else { Err("what go built is no docker-compose".to_owned()) }
}

/// Where administrators' programs are, in case the path of who runs this does not say.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program, by its name.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Installs packages of Debian.
///
/// # Errors
/// There is no apt, this is not root, or it fails.
pub(crate) fn apt_install(packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" ");
    if find("apt-get").is_none() {
        return Err(format!("needs {names}, and there is no apt-get to install them with"));
    }
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        run::shown(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"), run::LIMIT).good
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    // Lists may be missing, or older than what the archive still has.
    if apt(&install) || (apt(&["update"]) && apt(&install)) {
        return Ok(());
    }
    Err(format!("needs {names}, which apt-get does not install (it takes root, and a mirror)"))
}

/// Makes cargo build in a folder of the cache that is keyed by the lock file and the compiler.
pub(crate) fn use_cached_target() {
    if std::env::var_os("CARGO_TARGET_DIR").is_some() {
        return;
    }
    let mut contents = std::fs::read(root().join("Cargo.lock")).unwrap_or_default();
    if let Ok(output) = Command::new("rustc").arg("-vV").output() {
        contents.extend(output.stdout);
    }
    let target = cache().join(format!("target-{}", name_of(&contents)));
    if let Err(error) = std::fs::create_dir_all(&target) {
        println!("xtask: no build cache: {}: {error}", target.display());
        return;
    }
    // Marks it as used now; by this the others are put in order.
    let _ = std::fs::write(target.join("used"), b"");
    remove_old_targets(&target);
    println!("building in {}", target.display());
    TARGET.get_or_init(|| target);
}

static TARGET: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

/// Where cargo builds, if not where it would by itself.
pub(crate) fn target() -> Option<&'static Path> {
    TARGET.get().map(PathBuf::as_path)
}

fn remove_old_targets(current: &Path) {
    let Some(folder) = current.parent() else { return };
    let used = |path: &Path| {
        std::fs::metadata(path.join("used")).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut others: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("target-")) && p != current)
        .collect();
    others.sort_by_key(|p| std::cmp::Reverse(used(p)));
    for old in others.iter().skip(TARGETS_MAX - 1) {
        let _ = std::fs::remove_dir_all(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_contents() {
        // The reference values of FNV-1a.
        assert_eq!(name_of(b""), "cbf29ce484222325");
        assert_eq!(name_of(b"foobar"), "85944171f73967e8");
    }

    #[test]
    fn only_the_latest_targets_are_kept() {
        let folder = std::env::temp_dir().join(format!("xtask-targets-{}", std::process::id()));
        for (name, at) in [("target-a", 1), ("target-b", 2), ("tools-x", 0), ("target-c", 3)] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
            let file = std::fs::File::create(folder.join(name).join("used")).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at)).unwrap();
        }
        remove_old_targets(&folder.join("target-c"));
        let mut left: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["target-b", "target-c", "tools-x"]);
    }
}
