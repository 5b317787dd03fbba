//! Which control groups this machine has, and where this process stands in them.

use super::Version;
use std::fs;
use std::path::{Path, PathBuf};

/// The group that this process is in, in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) version: Version,
    pub(super) folder: PathBuf,
    /// The controllers that can be used below it.
    pub(super) controllers: Vec<String>,
}

impl Own {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }
}

/// Every hierarchy that is mounted and shows this process's own group; empty where there is none.
pub(super) fn own() -> Vec<Own> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut found = parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    found.retain(|own| own.folder.is_dir());
    for own in found.iter_mut().filter(|own| own.version == Version::V2) {
        own.controllers = words(&own.folder.join("cgroup.controllers"));
    }
    found
}

/// The blank-separated words of a file.
pub(super) fn words(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// From proc(5)'s `mountinfo` and cgroups(7)'s `cgroup`. Controllers of version 2 stand in files, and are not here.
fn parse(mountinfo: &str, cgroup: &str) -> Vec<Own> {
    let mut found: Vec<Own> = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let after: Vec<&str> = after.split(' ').collect();
        let (Some(root), Some(mount), Some(kind)) = (before.get(3), before.get(4), after.first()) else {
            continue;
        };
        let controllers: Vec<String> = after.get(2).unwrap_or(&"").split(',').map(str::to_owned).collect();
        let (version, place) = match *kind {
            "cgroup2" => (Version::V2, place(cgroup, |controllers| controllers.is_empty())),
            "cgroup" => {
                let ours = |listed: &str| {
                    !listed.is_empty() && listed.split(',').all(|one| controllers.iter().any(|c| c == one))
                };
                (Version::V1, place(cgroup, ours))
            }
            _ => continue,
        };
        // A mount of another part of the tree does not show this process.
        let Some(below) = place.and_then(|place| below(place, &unescape(root))) else { continue };
        let folder = Path::new(&unescape(mount)).join(below);
        if !found.iter().any(|own| own.folder == folder) {
            let controllers = if version == Version::V2 { Vec::new() } else { controllers };
            found.push(Own { version, folder, controllers });
        }
    }
    found
}

/// This process's path in the hierarchy whose controllers are these.
fn place(cgroup: &str, is_it: impl Fn(&str) -> bool) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        is_it(controllers).then_some(path)
    })
}

/// `path` from `root` on, without a leading slash.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
    // A path that climbs is outside of what this process's namespace shows.
    (!rest.split('/').any(|place| place == "..")).then_some(rest)
}

/// Blanks and the like stand in mountinfo as `\040`.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = rest.get(1..4).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = &rest[4..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, cgroup: &str, expected: &[(Version, &str, &str)]) {
        let found = parse(mountinfo, cgroup);
        let found: Vec<(Version, String, String)> = found
            .iter()
            .map(|own| (own.version, own.folder.display().to_string(), own.controllers.join(",")))
            .collect();
        let expected: Vec<(Version, String, String)> =
            expected.iter().map(|(v, f, c)| (*v, (*f).to_owned(), (*c).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_hierarchy_shows_our_own_group() {
        check("", "", &[]);
        // systemd's unified machine.
        check(
            "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
            "0::/system.slice/forerun.service\n",
            &[(Version::V2, "/sys/fs/cgroup/system.slice/forerun.service", "")],
        );
        // Version 1 with two controllers in one mount, and version 2 beside it.
        check(
            "1 0 0:28 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             2 0 0:29 / /c/memory rw shared:3 - cgroup cgroup rw,memory\n\
             3 0 0:30 / /c/systemd rw - cgroup cgroup rw,name=systemd\n\
             4 0 0:31 / /c/unified rw - cgroup2 cgroup2 rw\n\
             5 0 0:32 / /proc rw - proc proc rw\n",
            "4:memory:/a/b\n3:cpu,cpuacct:/\n2:name=systemd:/x\n0::/y\n",
            &[
                (Version::V1, "/c/cpu,cpuacct/", "rw,cpu,cpuacct"),
                (Version::V1, "/c/memory/a/b", "rw,memory"),
                (Version::V1, "/c/systemd/x", "rw,name=systemd"),
                (Version::V2, "/c/unified/y", ""),
            ],
        );
    }

    #[test]
    fn a_container_sees_its_part_of_the_tree() {
        let mount = "2 0 0:29 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let own = [(Version::V1, "/sys/fs/cgroup/memory/x", "rw,memory")];
        check(mount, "4:memory:/docker/abc/x\n", &own);
        check(mount, "4:memory:/docker/abcd\n", &[]);
        check(mount, "4:memory:/\n", &[]);
        check("2 0 0:29 / /c rw - cgroup2 cgroup2 rw\n", "0::/../other\n", &[]);
        check(
            "2 0 0:29 / /my\\040groups rw - cgroup2 cgroup2 rw\n",
            "0::/a\n",
            &[(Version::V2, "/my groups/a", "")],
        );
    }
}
