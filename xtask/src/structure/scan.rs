//! Looks through sources for what a dependency graph does not show.

use super::PURE;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Code that a pure crate may not hold, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("SystemTime", "is a clock; take `now` as an argument"),
    ("Instant", "is a clock; take `now` as an argument"),
    ("std::fs", "is IO"),
    ("std::io", "is IO"),
    ("std::env", "is IO"),
    ("std::process", "is IO"),
    ("TcpStream", "is IO"),
    ("TcpListener", "is IO"),
    ("UdpSocket", "is IO"),
    ("std::thread", "is not for a pure crate"),
    ("Mutex", "is not for a pure crate"),
    ("RwLock", "is not for a pure crate"),
    ("println!", "is IO"),
    ("eprintln!", "is IO"),
    ("HashMap", "has no order that replays; use a BTreeMap or a table of your own"),
    ("HashSet", "has no order that replays; use a BTreeSet or a table of your own"),
    ("RandomState", "is unseeded randomness"),
    ("thread_local!", "is hidden state"),
];

/// Methods of std floats whose results differ between platforms and versions. (`sqrt`, `abs` and the roundings are
/// exact everywhere.)
const FLOAT_METHODS: &[&str] = &[
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "exp", "exp2",
    "exp_m1", "hypot", "ln", "ln_1p", "log", "log10", "log2", "powf", "powi", "sin", "sin_cos", "sinh",
    "tan", "tanh",
];

/// What the pure crates' sources hold and may not: `file:line: what`.
///
/// # Errors
/// A source cannot be read.
pub(crate) fn pure_sources(root: &Path) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for name in PURE {
        let folder = root.join("crates").join(name).join("src");
        let mut files = Vec::new();
        rust_files(&folder, &mut files)?;
        if files.is_empty() {
            return Err(format!("no sources in {}", folder.display()));
        }
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            let shown = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            problems
                .extend(forbidden(&text).into_iter().map(|(line, what)| format!("{shown}:{line}: {what}")));
        }
    }
    Ok(problems)
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        // Tests may do what they like.
        if name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs") {
            continue;
        }
        if path.is_dir() {
            rust_files(&path, into)?;
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
    into.sort();
    Ok(())
}

/// Lines and what is wrong there, tests left out.
pub(crate) fn forbidden(source: &str) -> Vec<(usize, String)> {
    let code = without_tests(&without_comments(source));
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        for (word, why) in FORBIDDEN {
            if holds(line, word) {
                found.push((at + 1, format!("{word} {why}")));
            }
        }
        for method in FLOAT_METHODS {
            let called = [format!(".{method}("), format!("f64::{method}"), format!("f32::{method}")];
            if called.iter().any(|call| holds(line, call)) {
                found.push((at + 1, format!("{method} of std differs between platforms; use libm's")));
            }
        }
    }
    found
}

/// Whether a line holds `word` not as a part of a longer name.
fn holds(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(found) = line[from..].find(word) {
        let (start, end) = (from + found, from + found + word.len());
        let before = line[..start].chars().next_back().is_some_and(part) && word.starts_with(part);
        let after = line[end..].chars().next().is_some_and(part) && word.ends_with(part);
        if !before && !after {
            return true;
        }
        from = end;
    }
    false
}

/// The source with comments, strings and characters blanked, lines kept.
fn without_comments(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let rest = &chars[at..];
        let end = match c {
            '/' if rest.get(1) == Some(&'/') => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            '/' if rest.get(1) == Some(&'*') => block_comment(rest),
            'r' | 'b' | 'c' if at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') => {
                raw_string(rest)
            }
            '"' => string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if end == 0 {
            code.push(c);
            at += 1;
        } else {
            code.extend(rest[..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += end;
        }
    }
    code
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of `r"..."`, `r#"..."#` and their kin; 0 if it is none.
fn raw_string(rest: &[char]) -> usize {
    let mut at = rest.iter().take_while(|c| "brc".contains(**c)).count();
    if at > 2 || !rest[..at].contains(&'r') {
        return 0;
    }
    let hashes = rest[at..].iter().take_while(|c| **c == '#').count();
    at += hashes;
    if rest.get(at) != Some(&'"') {
        return 0;
    }
    at += 1;
    while at < rest.len() {
        let closes = rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a character; 0 for a lifetime.
fn character(rest: &[char]) -> usize {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => rest.iter().skip(3).position(|c| *c == '\'').map_or(0, |end| end + 4),
        (Some(_), Some('\'')) => 3,
        _ => 0,
    }
}

/// The code with `#[cfg(test)]` items blanked, lines kept.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..start]);
        let item = &rest[start..];
        let end = item_end(item);
        kept.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

/// Where an item ends: at its `;` before any brace, or where its braces close.
fn item_end(item: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in item.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    item.len()
}

/// Files of the repository that name a folder of this machine, or of a home.
///
/// # Errors
/// Git cannot list the files.
pub(crate) fn machine_paths(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output();
    let output = output.map_err(|e| format!("cannot run git: {e}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    // Put together here, or this file would be the first to be found.
    let mut needles = vec![["/ro", "ot/"].concat(), ["/Us", "ers/"].concat(), format!("{}/", root.display())];
    if let Some(home) =
        std::env::var_os("HOME").map(|h| h.to_string_lossy().into_owned()).filter(|h| h.len() > 4)
    {
        needles.push(format!("{home}/"));
    }
    let mut problems = Vec::new();
    for name in String::from_utf8_lossy(&output.stdout).split('\0').filter(|n| !n.is_empty()) {
        // A file that is deleted but not yet committed so.
        let Ok(bytes) = std::fs::read(root.join(name)) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for needle in &needles {
            if let Some(line) = text.lines().position(|line| names_path(line, needle)) {
                problems.push(format!("{name}:{}: names a folder of one machine, {needle}", line + 1));
            }
        }
    }
    Ok(problems)
}

/// Whether a line holds the path, not as the end of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-}".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pure_code_may_hold_no_clock_io_or_chance() {
        for (source, expect) in [
            ("use std::time::{Duration, Instant};", Some("Instant is a clock")),
            ("let t = std::time::SystemTime::now();", Some("SystemTime is a clock")),
            ("use std::net::{SocketAddr, TcpStream};", Some("TcpStream is IO")),
            ("let m: HashMap<u8, u8> = x;", Some("HashMap has no order")),
            ("x.powi(2)", Some("powi of std")),
            ("let y = f64::ln(x);", Some("ln of std")),
            ("items.map(f64::exp)", Some("exp of std")),
            ("std::thread::spawn(f)", Some("std::thread")),
            ("use std::time::Duration; use std::net::SocketAddr;", None),
            ("libm::exp(x) + libm::log2(y) + n.ilog2() as f64 + x.sqrt()", None),
            ("struct InstantLike; fn explode() {} x.expand(1)", None),
            ("// Instant\n/* HashMap /* nested */ */ /// SystemTime", None),
            (
                "let s = \"HashMap\"; let r = r#\"Instant \" SystemTime\"#; let c = '\"'; let l: &'a str = x;",
                None,
            ),
            ("let c = '\\''; let m = HashMap::new();", Some("HashMap")),
            ("#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }", None),
            ("#[cfg(test)]\nmod tests;\nuse std::time::Instant;", Some("Instant")),
        ] {
            let found = forbidden(source);
            match expect {
                None => assert!(found.is_empty(), "{source}: {found:?}"),
                Some(part) => {
                    assert!(found.iter().any(|(_, what)| what.starts_with(part)), "{source}: {found:?}")
                }
            }
        }
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let source =
            "/* one\ntwo */\n#[cfg(test)]\nmod t {\n    const X: u8 = b'{';\n}\nlet m = HashMap::new();\n";
        assert_eq!(forbidden(source).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn paths_of_machines_are_found() {
        assert!(names_path("see /home/me/x", "/home/me/"));
        assert!(names_path("\"/home/me/\"", "/home/me/"));
        assert!(!names_path("backup/home/me/x", "/home/me/"));
        assert!(!names_path("/home/you", "/home/me/"));
    }
}
