//! Images made from files of this machine: there is no registry where the tests run.

use super::testbed::Daemon;
use crate::cargo::cargo;
use crate::{process, run, tools};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

const BUSYBOX: &str = "forerun-test/busybox:1";
const FIXTURE: &str = "forerun-test/fixture:1";

/// Makes both images.
///
/// # Errors
/// A program is missing, or the engine refuses.
pub(crate) fn make(daemon: &Daemon) -> Result<(), String> {
    let root = daemon.folder().join("root");
    busybox(&root)?;
    import(daemon, &root, BUSYBOX, &[r#"CMD ["sleep", "86400"]"#])?;
    let built = run::quiet(
        cargo().args(["build", "--package", "forerun-backends", "--bin", "forerun-fixture"]),
        run::LIMIT,
    );
    if !built.good {
        return Err(built.trouble.unwrap_or_else(|| "the fixture does not build".to_owned()));
    }
    let fixture = process::built("debug", "forerun-fixture")?;
    program(&fixture, &root)?;
    let command = r#"CMD ["forerun-fixture", "--listen", "0.0.0.0", "--port", "8080"]"#;
    import(daemon, &root, FIXTURE, &[command, "EXPOSE 8080"])?;
    std::fs::remove_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))
}

/// Busybox with a link for each of its applets.
fn busybox(root: &Path) -> Result<(), String> {
    let source = tools::find("busybox").ok_or("there is no busybox")?;
    let bin = root.join("bin");
    for folder in ["bin", "tmp", "etc", "www"] {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    std::fs::copy(&source, bin.join("busybox")).map_err(|e| format!("{}: {e}", source.display()))?;
    let applets = run::quiet(Command::new(&source).arg("--list"), run::LIMIT);
    for applet in applets.text.lines().filter(|a| *a != "busybox" && !a.contains('/')) {
        symlink("busybox", bin.join(applet)).map_err(|e| format!("{applet}: {e}"))?;
    }
    if bin.join("sh").exists() { Ok(()) } else { Err("this busybox has no sh".to_owned()) }
}

/// A program with the libraries that it is linked with, at the paths where its loader looks.
fn program(path: &Path, root: &Path) -> Result<(), String> {
    let name = path.file_name().ok_or("a program without a name")?;
    copy(path, &root.join("bin").join(name))?;
    let linked = run::quiet(Command::new("ldd").arg(path), run::LIMIT);
    for library in libraries(&linked.text) {
        copy(Path::new(library), &root.join(library.trim_start_matches('/')))?;
    }
    Ok(())
}

/// The paths in what `ldd` prints: `libc.so.6 => /lib/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`.
fn libraries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    std::fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", from.display()))
}

fn import(daemon: &Daemon, root: &Path, image: &str, changes: &[&str]) -> Result<(), String> {
    let mut pack = Command::new("tar");
    pack.args(["--owner=0", "--group=0", "-cf", "-", "-C"]).arg(root).arg(".");
    let mut pack = pack.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run tar: {e}"))?;
    let mut command = daemon.docker();
    command.arg("import");
    for change in changes {
        command.args(["--change", change]);
    }
    command.args(["-", image]).stdout(Stdio::null());
    if let Some(packed) = pack.stdout.take() {
        command.stdin(packed);
    }
    let imported = command.status().map_err(|e| format!("cannot run docker: {e}"))?;
    let packed = pack.wait().map_err(|e| format!("tar: {e}"))?;
    if imported.success() && packed.success() { Ok(()) } else { Err(format!("cannot make {image}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_wherever_their_path_stands() {
        let text = "\tlinux-vdso.so.1 (0x0007)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x0007)\n\t/lib64/ld.so.2 (0x0007)\n\
                    \tstatically linked\n";
        assert_eq!(libraries(text).collect::<Vec<_>>(), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
    }
}
