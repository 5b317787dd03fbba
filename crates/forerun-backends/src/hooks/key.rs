//! A key put into texts. It comes from a request, so that anybody may have chosen it: it must not be able to leave the
//! folder, the line or the argument that it is put into.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// A key that is longer is no key.
const KEY_BYTES_MAX: usize = 256;
const MARK: &str = "{key}";

/// Why a key, or a text with a key in it, is refused. None names the key: it may be a person's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is empty")]
    Empty,
    #[error("the key is longer than {KEY_BYTES_MAX} bytes")]
    Long,
    #[error("the key holds a control character, such as a line break")]
    Control,
    #[error("with this key the argument `{template}` would begin with `-` and be read as an option")]
    Option { template: String },
    #[error(
        "`{template}` in specialise.args is a shell's text: use \"$FORERUN_KEY\" there instead of {{key}}"
    )]
    Shell { template: String },
    #[error(
        "the file `{template}` would lie outside of the instance's folder: use a relative path without `..`"
    )]
    Outside { template: String },
    #[error(
        "with this key the file `{template}` would lie in another place: the key holds `/` or is `.` or `..`"
    )]
    Escapes { template: String },
}

/// # Errors
/// A key that cannot be handed to an instance: empty, too long, or with control characters (NUL and line breaks among
/// them).
pub fn check_key(key: &str) -> Result<(), KeyError> {
    match key {
        "" => Err(KeyError::Empty),
        key if key.len() > KEY_BYTES_MAX => Err(KeyError::Long),
        key if key.chars().any(char::is_control) => Err(KeyError::Control),
        _ => Ok(()),
    }
}

/// `{key}` replaced, for values of the environment and contents of files.
#[must_use]
pub fn fill(text: &str, key: &str) -> String {
    text.replace(MARK, key)
}

/// `{key}` replaced in a path of a request, percent-encoded, so that it stays within its segment or value.
#[must_use]
pub fn fill_path(path: &str, key: &str) -> String {
    if !path.contains(MARK) {
        return path.to_owned();
    }
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            // `.` too: a segment `..` would climb.
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    path.replace(MARK, &encoded)
}

/// `{key}` replaced in arguments.
///
/// # Errors
/// An argument that the key would turn into an option, or that a shell would run.
pub fn fill_args(args: &[String], key: &str) -> Result<Vec<String>, KeyError> {
    let mut filled = Vec::with_capacity(args.len());
    let mut before = "";
    for arg in args {
        let template = || arg.clone();
        if arg.contains(MARK) && is_shell_flag(before) {
            return Err(KeyError::Shell { template: template() });
        }
        let text = fill(arg, key);
        if text.starts_with('-') && !arg.starts_with('-') {
            return Err(KeyError::Option { template: template() });
        }
        filled.push(text);
        before = arg;
    }
    Ok(filled)
}

/// `-c`, `-lc`, ...: what follows is a program's text.
fn is_shell_flag(arg: &str) -> bool {
    arg.strip_prefix('-').is_some_and(|flags| {
        flags.len() <= 4 && flags.ends_with('c') && flags.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

/// Files with `{key}` replaced in path and content. With `under`, every path is relative and stays in that folder, or
/// is absolute and already in it, and comes back relative to it; without one (a container), paths are absolute.
///
/// # Errors
/// A path that leaves the folder, by itself or by the key.
pub fn fill_files(
    files: &BTreeMap<String, String>,
    key: &str,
    under: Option<&Path>,
) -> Result<Vec<(PathBuf, String)>, KeyError> {
    let mut filled = Vec::with_capacity(files.len());
    for (template, content) in files {
        let outside = || KeyError::Outside { template: template.clone() };
        let places = plain_places(Path::new(template), under).ok_or_else(outside)?;
        let path = fill(template, key);
        // A key that is a place of its own, or splits one in two, changes how many there are.
        let path = plain_places(Path::new(&path), under)
            .filter(|found| found.components().count() == places.components().count())
            .ok_or_else(|| KeyError::Escapes { template: template.clone() })?;
        filled.push((path, fill(content, key)));
    }
    Ok(filled)
}

/// The path relative to `under`, or absolute without one, if it only goes down.
fn plain_places(path: &Path, under: Option<&Path>) -> Option<PathBuf> {
    let inner = match under {
        Some(under) if path.is_absolute() => path.strip_prefix(under).ok()?,
        Some(_) => path,
        None => path.strip_prefix("/").ok()?,
    };
    // `components` drops `.` between places: the text itself tells.
    let plain = inner.to_str()?.split('/').all(|place| !place.is_empty() && place != "." && place != "..");
    let plain = plain && inner.components().all(|place| matches!(place, Component::Normal(_)));
    plain.then(|| if under.is_some() { inner.to_owned() } else { path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_handed_on_are_refused() {
        let long = "x".repeat(257);
        for (key, expected) in [
            ("jo", Ok(())),
            ("jo@example.com / ü", Ok(())),
            (&long[1..], Ok(())),
            ("", Err(KeyError::Empty)),
            (&long, Err(KeyError::Long)),
            ("a\nb", Err(KeyError::Control)),
            ("a\0b", Err(KeyError::Control)),
            ("a\u{85}b", Err(KeyError::Control)),
        ] {
            assert_eq!(check_key(key), expected, "{key:?}");
        }
    }

    fn check_file(template: &str, key: &str, under: Option<&str>, expected: Result<&str, &str>) {
        let files = BTreeMap::from([(template.to_owned(), "for {key}".to_owned())]);
        let found = fill_files(&files, key, under.map(Path::new));
        match (found, expected) {
            (Ok(found), Ok(path)) => assert_eq!(found, [(PathBuf::from(path), format!("for {key}"))]),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, expected) => panic!("{template} with {key}: {found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn files_stay_in_their_folder() {
        let under = Some("/run/i1");
        check_file("conf/{key}.json", "jo", under, Ok("conf/jo.json"));
        check_file("/run/i1/a", "jo", under, Ok("a"));
        check_file("{key}", "..x", under, Ok("..x"));
        check_file("/etc/passwd", "jo", under, Err("outside of the instance's folder"));
        check_file("../x", "jo", under, Err("outside of the instance's folder"));
        check_file("/run/i1/../i2", "jo", under, Err("outside of the instance's folder"));
        check_file("", "jo", under, Err("outside of the instance's folder"));
        for key in ["..", ".", "a/b", "../../etc/x", "/etc/x", "a/"] {
            check_file("{key}", key, under, Err("in another place"));
            check_file("conf/{key}/x", key, under, Err("in another place"));
        }
        check_file("conf/{key}.json", "../x", under, Err("in another place"));
        check_file("/data/{key}.json", "jo", None, Ok("/data/jo.json"));
        check_file("data", "jo", None, Err("outside"));
        check_file("/data/{key}/x", "..", None, Err("in another place"));
    }

    #[test]
    fn arguments_stay_arguments() {
        let check = |args: &[&str], key: &str, expected: Result<&[&str], &str>| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            match (fill_args(&args, key), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expected) => panic!("{args:?} with {key}: {found:?} instead of {expected:?}"),
            }
        };
        check(&["--for", "{key}", "--x={key}"], "jo", Ok(&["--for", "jo", "--x=jo"]));
        check(&["--x={key}"], "-rf", Ok(&["--x=-rf"]));
        check(&["{key}"], "-rf", Err("be read as an option"));
        check(&["sh", "-c", "load {key}"], "jo", Err("use \"$FORERUN_KEY\""));
        check(&["bash", "-lc", "load {key}"], "jo", Err("use \"$FORERUN_KEY\""));
        check(
            &["sh", "-c", "load \"$1\"", "sh", "{key}"],
            "$(x)",
            Ok(&["sh", "-c", "load \"$1\"", "sh", "$(x)"]),
        );
    }

    #[test]
    fn a_path_holds_a_key_as_one_value() {
        for (path, key, filled) in [
            ("/warm/{key}/x?for={key}", "jo", "/warm/jo/x?for=jo"),
            ("/warm/{key}", "../a?b#c d", "/warm/%2E%2E%2Fa%3Fb%23c%20d"),
            ("/warm", "jo", "/warm"),
        ] {
            assert_eq!(fill_path(path, key), filled);
        }
    }
}
